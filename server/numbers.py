"""What the cluster's parts count, as metrics."""

from collections.abc import Sequence

from fanout.redis_bus import RedisBus
from server.metrics import Numbers


def bus_numbers(bus: RedisBus) -> Sequence[Numbers]:
    """Of the way to other nodes."""
    return (
        Numbers(
            "parley_bus_connected",
            "Whether Redis is connected, for publishing and for hearing.",
            lambda: {"publishing": bus.publishing, "hearing": bus.hearing},
        ),
        Numbers(
            "parley_bus_messages",
            "Messages between nodes: published, received, and those that were not sent as they "
            "were: replaced by newer ones, dropped, not understood.",
            bus.counts,
            counter=True,
        ),
        Numbers("parley_bus_channels", "Rooms heard over Redis.", lambda: bus.channels),
        Numbers("parley_bus_queued_bytes", "Bytes waiting for Redis.", lambda: bus.queued_bytes),
    )
