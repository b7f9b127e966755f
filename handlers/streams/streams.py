"""Commands every namespace has: following streams. And their REST form for mobile apps."""

from typing import Annotated, Any

from pydantic import Field, PlainValidator, ValidationInfo
from typing_extensions import TypedDict

from actions.streams.streams import MAX_STREAMS, Position, Streams
from domain.errors import Invalid, TooLarge
from domain.events import ActorView
from domain.rates import SECOND, Rate
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


def _positions(value: Any, info: ValidationInfo) -> dict[str, Position]:
    """By hand: there may be thousands, and of wrong ones the model would name each."""
    field = info.field_name or "streams"
    if type(value) is not dict:
        raise Invalid.field(field, "must be positions by stream")
    if len(value) > MAX_STREAMS:
        raise TooLarge(f"{field}: at most {MAX_STREAMS} streams.", data={"limit": MAX_STREAMS})
    positions: dict[str, Position] = {}
    for stream, known in value.items():
        wrong = _wrong(known)
        if wrong is not None:
            raise Invalid.field(f"{field}.{stream[:100]}{wrong[0]}", wrong[1])
        positions[stream] = Position(known["epoch"], known["seq"])
    return positions


def _wrong(known: Any) -> tuple[str, str] | None:
    """Where a position is wrong, and how."""
    if type(known) is not dict or len(known) > 2:
        return "", "must be {epoch, seq}"
    epoch, seq = known.get("epoch"), known.get("seq")
    if type(epoch) is not str or len(epoch) > 64:
        return ".epoch", "must be a text of at most 64 characters"
    if type(seq) is not int or not 0 <= seq <= 2**53:
        return ".seq", "must be a whole number from 0 to 2^53"
    return None


KnownStreams = Annotated[
    dict[str, Position],
    PlainValidator(
        _positions,
        json_schema_input_type=Annotated[dict[str, Known], Field(max_length=MAX_STREAMS)],
    ),
]
"""Where a client stands, by stream. More than `MAX_STREAMS` are `TooLarge`."""


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

    @command(
        "stream.subscribe",
        limit=Rate(20, SECOND),  # up to 1,000 streams and 4 MiB of events each
    )
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

    @command(
        "stream.sync",
        route=Route("POST", "/sync"),
        socket=False,
        limit=Rate(10, SECOND),  # up to 10,000 streams
    )
    async def sync(self, context: Context, request: Sync) -> Subscribed:
        """Fetch everything missed in many streams in one call."""
        return {"streams": await self._streams.sync(context.principal, request.streams)}  # type: ignore[typeddict-item]
