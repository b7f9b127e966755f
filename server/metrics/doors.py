"""What is counted where clients come in, as metrics."""

from collections.abc import Sequence

from fanout.hub import HubCounters
from server.http.departing import Departing
from server.http.door import Door
from server.metrics.metrics import Numbers
from server.transport.arriving import Arriving
from server.transport.options import TransportCounters


def door_numbers(
    counters: TransportCounters,
    hub: HubCounters,
    door: Door,
    arriving: Arriving,
    departing: Departing,
) -> Sequence[Numbers]:
    """Of the transport and of HTTP, and of what the hub gave them."""
    return (
        Numbers("parley_sessions", "Open Socket.IO sessions.", lambda: counters.sessions),
        Numbers(
            "parley_connections",
            "Connections by namespace.",
            lambda: counters.connections,
            label="namespace",
        ),
        Numbers(
            "parley_queued_bytes",
            "Bytes waiting for slow and polling clients.",
            lambda: counters.queued_bytes,
        ),
        Numbers(
            "parley_http_connections",
            "Open connections that speak HTTP, polling among them and websockets not.",
            lambda: len(door),
        ),
        Numbers(
            "parley_http_connections_refused",
            "Connections that were not let in, by reason.",
            lambda: door.refused,
            label="reason",
            counter=True,
        ),
        Numbers(
            "parley_arriving_bytes",
            "Bytes held of requests that have not come whole.",
            lambda: arriving.held,
        ),
        Numbers(
            "parley_arriving_refused",
            "Requests refused because too much was held.",
            lambda: arriving.refused,
            counter=True,
        ),
        Numbers(
            "parley_departing_bytes",
            "Bytes of HTTP answers that wait for slow peers.",
            lambda: departing.held,
        ),
        Numbers(
            "parley_departing_cut",
            "Connections cut off because too much waited.",
            lambda: departing.cut,
            counter=True,
        ),
        Numbers(
            "parley_packets_received",
            "Packets from clients.",
            lambda: counters.packets_in,
            counter=True,
        ),
        Numbers(
            "parley_malformed_closes",
            "Sessions closed for what they sent.",
            lambda: counters.malformed,
            counter=True,
        ),
        Numbers(
            "parley_silent_closes",
            "Sessions closed because they never connected to a namespace.",
            lambda: counters.silent,
            counter=True,
        ),
        Numbers(
            "parley_evictions",
            "Connections ended to make room for others: sessions by whose they were, and http.",
            lambda: {"http": door.evicted, **counters.evicted},
            label="kind",
            counter=True,
        ),
        Numbers(
            "parley_deliveries",
            "Events times connections they were written to.",
            lambda: hub.deliveries,
            counter=True,
        ),
        Numbers(
            "parley_closes",
            "Sessions the server closed on purpose, by code.",
            lambda: counters.closes,
            label="code",
            counter=True,
        ),
        Numbers(
            "parley_handshakes_refused",
            "Handshakes and connects to namespaces refused, by reason.",
            lambda: counters.refused,
            label="reason",
            counter=True,
        ),
        Numbers(
            "parley_slow_clients",
            "Events not sent to slow clients as they were: dropped, or replaced by newer ones.",
            lambda: {"dropped": counters.dropped, "coalesced": counters.coalesced},
            counter=True,
        ),
    )
