"""What the cluster's parts count, as metrics."""

from collections.abc import Sequence

from actions.presence.presence import Presences
from actions.presence.watch import PresenceWatch
from fanout.redis.bus import RedisBus
from server.cluster.clocks import ClockCheck
from server.cluster.nodes import Neighbours
from server.core import Core
from server.metrics.metrics import Numbers


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


def repair_numbers(core: Core) -> Numbers:
    """Of what other nodes have said and this one has not heard."""
    return Numbers(
        "parley_repairs",
        "What the bus has lost: streams that were found behind their log, and times that "
        "orders between nodes were or may have been missed.",
        lambda: {
            "streams": core.repair.found,
            "orders": core.control.missed + core.user_control.missed,
        },
        counter=True,
    )


def nodes_numbers(neighbours: Neighbours) -> Numbers:
    """Of the other nodes on the same store."""
    return Numbers(
        "parley_nodes",
        "Other nodes that use the same store, and those of them that are not heard over Redis.",
        lambda: {"others": neighbours.others, "not_joined": neighbours.apart},
    )


def clock_numbers(clocks: ClockCheck) -> Numbers:
    """Of this node's clock."""
    return Numbers(
        "parley_clock_ahead_seconds",
        "Seconds by which the clock of the store or of another node, whichever differs most, is "
        "ahead of this node's.",
        lambda: clocks.furthest,
    )


def presence_numbers(presences: Presences, watch: PresenceWatch) -> Sequence[Numbers]:
    """Of who is there, and who looks."""
    return (
        Numbers(
            "parley_presence_users",
            "Users with a device connected to this node, or whose last one went a moment ago.",
            presences.counts,
        ),
        Numbers(
            "parley_presence_watches",
            "Users watched from this node, and connections that watch somebody.",
            lambda: {"watched": watch.watched, "watchers": watch.watchers},
        ),
        Numbers(
            "parley_presence_swept",
            "Users of dead nodes whom this node has taken offline.",
            lambda: presences.swept,
            counter=True,
        ),
    )
