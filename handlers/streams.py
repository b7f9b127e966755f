"""Commands every namespace has: following streams. And their REST form for mobile apps."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from actions.streams import MAX_STREAMS, Position, Streams
from domain.events import ActorView
from handlers.command import CommandSet, Request, Route, command
from handlers.context import Context


class StreamPosition(Request):
    """A stream, and where the client stands in it if it was there before."""

    stream: str = Field(max_length=200)
    epoch: str | None = Field(None, max_length=64)
    seq: int | None = Field(None, ge=0, le=2**53)


class Subscribe(Request):
    """The streams to follow."""

    streams: list[StreamPosition] = Field(min_length=1, max_length=1000)


class Unsubscribe(Request):
    """The streams to follow no longer."""

    streams: list[str] = Field(min_length=1, max_length=1000)


class Known(Request):
    """What a client knows of one stream."""

    epoch: str = Field(max_length=64)
    seq: int = Field(ge=0, le=2**53)


def _few(value: object) -> object:
    """Looked at before what is in it: pydantic counts afterwards."""
    if isinstance(value, dict) and len(value) > MAX_STREAMS:
        raise ValueError(f"at most {MAX_STREAMS} streams")
    return value


KnownStreams = Annotated[dict[str, Known], Field(max_length=MAX_STREAMS), BeforeValidator(_few)]
"""Where a client stands, by stream."""


class Sync(Request):
    """All streams a client knows."""

    streams: KnownStreams


class Envelope(TypedDict):
    """A durable event; `data` as declared with its type."""

    stream: str
    epoch: str
    seq: int
    type: str
    at: str
    actor: ActorView
    data: dict[str, Any]


class StreamHead(TypedDict):
    """Where a stream stands, and whether all that was missed of it was sent."""

    epoch: str
    seq: int
    recovered: bool


class SubscribedStream(TypedDict):
    """What was missed of one stream, and where it stands."""

    epoch: str
    seq: int
    recovered: bool
    events: list[Envelope]
    more: bool


class Subscribed(TypedDict):
    """By stream."""

    streams: dict[str, SubscribedStream]


class Done(TypedDict):
    """Nothing to tell."""


class StreamCommands(CommandSet):
    """`stream.subscribe`, `stream.unsubscribe`."""

    namespace = None

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    @command("stream.subscribe")
    async def subscribe(self, context: Context, request: Subscribe) -> Subscribed:
        """Follow streams from now on.

        Everything up to the answered `seq` is in history or in `events`; everything after it
        comes live. `recovered: false` means the gap could not be filled: fetch the state and go
        on from `seq`.
        """
        wanted = {
            each.stream: Position(each.epoch or "", each.seq) if each.seq is not None else None
            for each in request.streams
        }
        return {"streams": await self._streams.subscribe(context.client, wanted)}  # type: ignore[typeddict-item]

    @command("stream.unsubscribe")
    async def unsubscribe(self, context: Context, request: Unsubscribe) -> Done:
        """Follow streams no longer."""
        await self._streams.unsubscribe(context.client, request.streams)
        return {}


class SyncCommands(CommandSet):
    """`POST /sync`."""

    namespace = None

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    @command("stream.sync", route=Route("POST", "/sync"), socket=False)
    async def sync(self, context: Context, request: Sync) -> Subscribed:
        """Fetch everything missed in many streams in one call."""
        known = {stream: Position(each.epoch, each.seq) for stream, each in request.streams.items()}
        return {"streams": await self._streams.sync(context.principal, known)}  # type: ignore[typeddict-item]
