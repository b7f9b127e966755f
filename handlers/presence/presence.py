"""`presence.*`: over sockets only."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from actions.presence.presence import Presences
from actions.presence.watch import PresenceWatch
from domain.errors import TooLarge
from domain.pages import Page
from domain.presence.presence import MAX_TEXT, MAX_WATCHED, ChosenStatus, Presence
from domain.rates import SECOND, Rate
from handlers.command import CommandSet, Request, command
from handlers.context import Context
from handlers.fields import Id, PageRequest
from handlers.streams.streams import Done


def _few(value: object) -> object:
    """Beyond what a connection may watch, as in several calls."""
    if isinstance(value, list) and len(value) > MAX_WATCHED:
        raise TooLarge(f"A connection may watch at most {MAX_WATCHED} users.")
    return value


def _once(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(ids))


class SetPresence(Request):
    """What to show to others."""

    status: ChosenStatus
    text: str | None = Field(None, max_length=MAX_TEXT)


class Users(Request):
    """Some users."""

    users: Annotated[list[Id], AfterValidator(_once), BeforeValidator(_few)] = Field(
        min_length=1, max_length=MAX_WATCHED
    )


class InRoom(PageRequest):
    """A page of those who are connected to a stream."""

    stream: str = Field(max_length=200)


class Activity(Request):
    """Whether anybody is at the device."""

    idle: bool


class PresenceCommands(CommandSet):
    """`presence.set`, `presence.activity`, `presence.watch`, `presence.unwatch`, `presence.room`."""

    namespace = "/presence"

    def __init__(self, presences: Presences, watch: PresenceWatch) -> None:
        self._presences = presences
        self._watch = watch

    @command("presence.set", limit=Rate(10, SECOND))
    async def set(self, context: Context, request: SetPresence) -> Presence:
        """Set your status on this device, and the text others see beside it.

        Of several devices the busiest counts: busy, then online, then away. `invisible` is for
        all devices, until another status is set: others see you offline. Without `text` it stays
        as it is; null or nothing takes it away. Answers your presence as you see it.
        """
        return await self._presences.choose(
            context.client,
            request.status,
            request.text,
            keep_text="text" not in request.model_fields_set,
        )

    @command("presence.activity", limit=Rate(5, SECOND))  # told to everybody who watches
    async def activity(self, context: Context, request: Activity) -> Done:
        """Tell whether anybody is at this device: a user whose devices are all idle is away."""
        self._presences.set_idle(context.client, idle=request.idle)
        return {}

    @command("presence.watch", limit=Rate(20, SECOND))  # up to 1,000 users each
    async def watch(self, context: Context, request: Users) -> list[Presence]:
        """Watch users: answers their presence now, in the order asked; `presence.changed` tells of
        every change after it.

        A connection watches at most 1,000 users. Of a user you may know nothing of, it is that
        of somebody who is not there.
        """
        return await self._watch.watch(context.client, request.users)

    @command("presence.unwatch")
    async def unwatch(self, context: Context, request: Users) -> Done:
        """Watch users no longer."""
        self._watch.unwatch(context.client, request.users)
        return {}

    @command("presence.room", limit=Rate(20, SECOND))  # asks all nodes
    async def room(self, context: Context, request: InRoom) -> Page[Presence]:
        """List who is connected and follows a stream that you may read, on all nodes.

        Whoever is invisible is not in it. A page may have fewer than `limit`, also when there is
        a next one.
        """
        return await self._watch.room(
            context.principal, request.stream, cursor=request.cursor, limit=request.limit
        )
