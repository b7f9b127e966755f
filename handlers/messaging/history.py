"""Commands that read and find messages."""

from pydantic import Field

from actions.messaging.history import History, Wanted
from actions.messaging.search import Query, Search
from domain.messaging.messages import MAX_QUERY, Message
from domain.pages import Page
from domain.rates import SECOND, Rate
from handlers.command import CommandSet, Request, Route, command
from handlers.context import Context
from handlers.fields import Id, PageRequest, Seq, Time


class OneMessage(Request):
    """A message."""

    message: Id


class MessageHistory(PageRequest):
    """A part of a conversation's history."""

    conversation: Id
    before: Seq | None = None
    after: Seq | None = None
    around: Seq | None = None
    since: Time | None = None
    until: Time | None = None
    thread: Id | None = None


class SearchMessages(PageRequest):
    """What to look for, and where."""

    q: str = Field(min_length=1, max_length=MAX_QUERY)
    conversation: Id | None = None
    sender: Id | None = None
    since: Time | None = None
    until: Time | None = None


class HistoryCommands(CommandSet):
    """`message.get`, `message.history`, `message.search`."""

    namespace = "/messages"

    def __init__(self, history: History, search: Search) -> None:
        self._history = history
        self._search = search

    @command("message.get", route=Route("GET", "/messages/{message}"))
    async def get(self, context: Context, request: OneMessage) -> Message:
        """Fetch one message."""
        return await self._history.get(context.principal, request.message)

    @command("message.history", route=Route("GET", "/conversations/{conversation}/messages"))
    async def history(self, context: Context, request: MessageHistory) -> Page[Message]:
        """Fetch a part of a conversation's history.

        Items are always in ascending seq; without bounds it is the newest page. `before` and
        `after` are seqs and exclude it, `around` is one to have in the middle, `since` and
        `until` are times and include it, `thread` is a message whose thread is fetched. `next`
        goes on towards older messages, with `after` or `since` towards newer ones; passed as
        `cursor` it stands for all of the bounds.
        """
        wanted = Wanted(
            before=request.before,
            after=request.after,
            around=request.around,
            since=request.since,
            until=request.until,
            thread=request.thread,
        )
        return await self._history.page(
            context.principal,
            request.conversation,
            wanted,
            cursor=request.cursor,
            limit=request.limit,
        )

    @command("message.search", route=Route("GET", "/search/messages"), limit=Rate(10, SECOND))
    async def search(self, context: Context, request: SearchMessages) -> Page[Message]:
        """Find messages that hold all words of `q`, newest first.

        The last word may be a beginning; case and accents do not matter. Only your own
        conversations are searched. Pass the same filters with `cursor`.
        """
        query = Query(request.q, request.conversation, request.sender, request.since, request.until)
        return await self._search.messages(
            context.principal, query, cursor=request.cursor, limit=request.limit
        )
