"""What nodes that share a store keep there for each other, and who is connected to them."""

from collections.abc import Mapping

from domain.events import EventType
from domain.rates import Rate
from handlers.command import CommandSet
from handlers.connections.connections import ConnectionCommands
from store.cluster import leases, nodes
from store.engine import Collection

COLLECTIONS: tuple[Collection, ...] = (*leases.COLLECTIONS, *nodes.COLLECTIONS)
EVENTS: tuple[EventType, ...] = ()
COMMANDS: tuple[type[CommandSet], ...] = (ConnectionCommands,)
LIMITS: Mapping[str, Rate] = {}
