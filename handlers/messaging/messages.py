"""Commands that send and change messages."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from actions.messaging.messages import Draft, Messages
from domain.messaging.messages import MAX_ATTACHMENTS, MAX_BODY, MAX_MENTIONS, Message
from domain.rates import SECOND, Rate
from handlers.command import CommandSet, Request, Route, command
from handlers.context import Context
from handlers.fields import ClientId, Id

_MAX_TEXT = 4 * MAX_BODY
"""Characters that are looked at; what is between this and the limit in bytes is `too_large`."""


def _id_of(value: object) -> object:
    """An attachment may be given as the upload itself was answered: its `id` counts."""
    return value.get("id") if isinstance(value, dict) else value


def _once(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(ids))


Attached = Annotated[Id, BeforeValidator(_id_of)]


class SendMessage(Request):
    """A message to send."""

    conversation: Id
    client_id: ClientId
    body: str = Field("", max_length=_MAX_TEXT)
    attachments: Annotated[list[Attached], AfterValidator(_once)] = Field(
        default_factory=list, max_length=MAX_ATTACHMENTS
    )
    """Uploads: their ids, or objects with an `id`."""
    reply_to: Id | None = None
    thread: Id | None = None
    mentions: Annotated[list[Id], AfterValidator(_once)] = Field(
        default_factory=list, max_length=MAX_MENTIONS
    )


class EditMessage(Request):
    """A message's new body."""

    message: Id
    body: str = Field(max_length=_MAX_TEXT)
    version: int = Field(ge=1, le=2**53)
    mentions: Annotated[list[Id], AfterValidator(_once)] | None = Field(
        None, max_length=MAX_MENTIONS
    )
    """Those it had, if left out."""


class DeleteMessage(Request):
    """A message to delete."""

    message: Id
    scope: Literal["everyone", "me"] = "everyone"


class MessageCommands(CommandSet):
    """`message.send`, `message.edit`, `message.delete`."""

    namespace = "/messages"

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    @command(
        "message.send",
        route=Route("POST", "/conversations/{conversation}/messages", 201),
        limit=Rate(50, SECOND),
    )
    async def send(self, context: Context, request: SendMessage) -> Message:
        """Send a message to a conversation you are in.

        It needs a body or attachments (own, completed uploads). `reply_to` is the message it
        answers, `thread` the one whose thread it belongs to, both of the same conversation;
        `mentions` are members of it.
        """
        return await self._messages.send(
            context.principal,
            Draft(
                request.conversation,
                request.client_id,
                request.body,
                request.attachments,
                request.reply_to,
                request.thread,
                request.mentions,
            ),
        )

    @command("message.edit", route=Route("PATCH", "/messages/{message}"), limit=Rate(20, SECOND))
    async def edit(self, context: Context, request: EditMessage) -> Message:
        """Change the body of your own message.

        `version` is that of the message you changed; if it has another one by now, the answer is
        `conflict`, with the message as it is in `data.message`. `mentions` takes the place of
        those it had: who is no longer mentioned is counted no mention any more.
        """
        return await self._messages.edit(
            context.principal, request.message, request.body, request.version, request.mentions
        )

    @command("message.delete", route=Route("DELETE", "/messages/{message}"), limit=Rate(20, SECOND))
    async def delete(self, context: Context, request: DeleteMessage) -> Message:
        """Delete a message, for everyone or for yourself alone.

        For everyone its sender may, the conversation's owner and admins: it stays in history
        without its content, and so do its events for whoever comes back later. For yourself it
        is nowhere any more: not in history, lists, search or counts, nor in what is resumed.
        """
        if request.scope == "me":
            return await self._messages.hide(context.principal, request.message)
        return await self._messages.delete(context.principal, request.message)
