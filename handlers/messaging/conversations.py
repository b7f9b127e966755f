"""Commands about conversations as such."""

from pydantic import Field

from actions.messaging.conversation_views import ConversationViews
from actions.messaging.conversations import Conversations
from actions.messaging.deletions import Deletions
from domain.errors import Invalid
from domain.messaging.conversations import (
    MAX_GROUP_MEMBERS,
    MAX_TITLE,
    MAX_TOPIC,
    Conversation,
    ConversationKind,
    Kind,
)
from domain.pages import Page
from domain.rates import MINUTE, SECOND, Rate
from handlers.command import CommandSet, Request, Route, command
from handlers.context import Context
from handlers.fields import ClientId, Id, PageRequest


class CreateConversation(Request):
    """A conversation to open."""

    kind: ConversationKind
    members: list[Id] = Field(default_factory=list, max_length=MAX_GROUP_MEMBERS)
    """Users besides the caller."""
    title: str | None = Field(None, max_length=MAX_TITLE)
    client_id: ClientId


class ListConversations(PageRequest):
    """A page of conversations."""

    kind: ConversationKind | None = None
    archived: bool | None = None
    joinable: bool = False


class OneConversation(Request):
    """A conversation."""

    conversation: Id


class UpdateConversation(Request):
    """What to change of a conversation; what is not there stays as it is."""

    conversation: Id
    title: str | None = Field(None, max_length=MAX_TITLE)
    topic: str | None = Field(None, max_length=MAX_TOPIC)
    muted: bool = False
    archived: bool = False


class ConversationCommands(CommandSet):
    """`conversation.create`, `conversation.list`, `conversation.get`, `conversation.update`,
    `conversation.delete`.
    """

    namespace = "/messages"

    def __init__(
        self, conversations: Conversations, deletions: Deletions, views: ConversationViews
    ) -> None:
        self._conversations = conversations
        self._deletions = deletions
        self._views = views

    @command(
        "conversation.create",
        route=Route("POST", "/conversations", 201),
        limit=Rate(60, MINUTE),
    )
    async def create(self, context: Context, request: CreateConversation) -> Conversation:
        """Open a conversation.

        The caller becomes the owner of a group or channel. Of the same two people there is one
        direct conversation: asked for again, it is answered as it is.
        """
        return await self._conversations.create(
            context.principal,
            kind=Kind(request.kind),
            members=request.members,
            title=request.title,
            client_id=request.client_id,
        )

    @command("conversation.list", route=Route("GET", "/conversations"), limit=Rate(20, SECOND))
    async def list(self, context: Context, request: ListConversations) -> Page[Conversation]:
        """List your conversations, the one with the latest message first.

        `kind` and `archived` leave the others out. With `kind=channel` and `joinable=true`: the
        channels you are not in and could join, oldest first.
        """
        if request.joinable:
            if request.kind != "channel" or request.archived is not None:
                raise Invalid.field("joinable", "goes with kind=channel alone")
            return await self._views.joinable(
                context.principal, cursor=request.cursor, limit=request.limit
            )
        return await self._views.mine(
            context.principal,
            kind=request.kind,
            archived=request.archived,
            cursor=request.cursor,
            limit=request.limit,
        )

    @command("conversation.get", route=Route("GET", "/conversations/{conversation}"))
    async def get(self, context: Context, request: OneConversation) -> Conversation:
        """Fetch one conversation: one you are in, or a channel you could join."""
        return await self._views.get(context.principal, request.conversation)

    @command(
        "conversation.update",
        route=Route("PATCH", "/conversations/{conversation}"),
        limit=Rate(10, SECOND),  # of a large group an event of 100 kB
    )
    async def update(self, context: Context, request: UpdateConversation) -> Conversation:
        """Change a conversation.

        `title` and `topic` are for all and changed by owners, in channels by admins too; null
        takes one away. `muted` and `archived` are your own, on all your devices.
        """
        changes = request.model_dump(exclude_unset=True, exclude={"conversation"})
        if not changes:
            raise Invalid("There is nothing to change.")
        return await self._conversations.update(context.principal, request.conversation, changes)

    @command(
        "conversation.delete",
        route=Route("DELETE", "/conversations/{conversation}", 204),
        limit=Rate(20, MINUTE),
    )
    async def delete(self, context: Context, request: OneConversation) -> None:
        """Delete a group or channel for everybody, with all that was said in it.

        Owners may, in channels admins too. Files that were attached stay with those who uploaded
        them.
        """
        await self._deletions.delete(context.principal, request.conversation)
