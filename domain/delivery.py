"""How an event travels: its delivery class."""

from enum import StrEnum


class Delivery(StrEnum):
    """Declared once with each event type; decides storage, resume and behaviour under pressure."""

    DURABLE = "durable"
    """Stored in its stream before anyone sees it, replayed by seq, never dropped."""

    LATEST = "latest"
    """Only the newest value per key matters: coalesced under pressure, current value sent again."""

    VOLATILE = "volatile"
    """Neither stored nor replayed; the first to go when a client reads slowly."""
