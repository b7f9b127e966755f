"""What nodes that share a store keep there for each other."""

from domain.events import EventType
from store.cluster import leases, nodes
from store.engine import Collection

COLLECTIONS: tuple[Collection, ...] = (*leases.COLLECTIONS, *nodes.COLLECTIONS)
EVENTS: tuple[EventType, ...] = ()
NAMESPACES: tuple[str, ...] = ()
