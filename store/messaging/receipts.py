"""How far each member has come in a conversation, and the log of how it came there.

Positions are plain documents, moved by compare-and-set; no append touches them. The log is what
tells when one message was delivered and read: the first move that covered its seq.
"""

from collections.abc import Sequence

from typing_extensions import TypedDict

from domain.ids import new_id
from domain.messaging.receipts import Position, ReceiptKind, nowhere
from store.engine import Collection, Document, Engine, Index, Is

POSITIONS = Collection("positions", indexes=(Index(("conversation", "user")),))
"""`{id: "<conversation>:<user>", conversation, user, delivered_seq, delivered_at, read_seq,
read_at}`."""

RECEIPTS = Collection(
    "receipts",
    indexes=(Index(("conversation", "user", "kind", "seq")), Index(("at",), any_org=True)),
)
"""`{id, conversation, user, kind, seq, at}`: one for each move of a position, for as long as events
are kept; of older ones the position tells."""

COLLECTIONS = (POSITIONS, RECEIPTS)


class PositionDoc(TypedDict):
    """A position as it is stored."""

    id: str
    conversation: str
    user: str
    delivered_seq: int
    delivered_at: str | None
    read_seq: int
    read_at: str | None


class ReceiptRepository:
    """Reads and moves positions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def positions(
        self, org: str, conversations: Sequence[str]
    ) -> dict[str, dict[str, PositionDoc]]:
        """All positions in some conversations, by conversation and user.

        All conversations are there; members of whom nothing has been heard are left out.
        """
        found: dict[str, dict[str, PositionDoc]] = {each: {} for each in conversations}
        if not found:
            return found
        where = {"conversation": Is("in", list(found))}
        order = ("conversation", "user")
        for doc in await self._engine.find(org, POSITIONS, where, order=order, limit=None):
            found[doc["conversation"]][doc["user"]] = _position_doc(doc)
        return found

    async def of_pairs(
        self, org: str, pairs: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], Position]:
        """Positions by conversation and user; all pairs are there."""
        ids = {pair: ":".join(pair) for pair in pairs}
        docs = await self._engine.get_many(org, POSITIONS, list(ids.values()))
        return {
            pair: position_of(docs[id]) if id in docs else nowhere(*pair)
            for pair, id in ids.items()
        }

    async def of_users(
        self, org: str, conversation: str, users: Sequence[str]
    ) -> dict[str, Position]:
        """Some users' positions in one conversation, by user; all users are there."""
        ids = {user: f"{conversation}:{user}" for user in users}
        docs = await self._engine.get_many(org, POSITIONS, list(ids.values()))
        return {
            user: position_of(docs[id]) if id in docs else nowhere(conversation, user)
            for user, id in ids.items()
        }

    async def get(self, org: str, conversation: str, user: str) -> Position:
        """Where one user stands in one conversation."""
        doc = await self._engine.get(org, POSITIONS, f"{conversation}:{user}")
        return position_of(doc) if doc is not None else nowhere(conversation, user)

    async def move(self, org: str, old: Position, new: Position) -> bool:
        """Set a position that is still the old one; False, and nothing changed, if it is not."""
        id = f"{new['conversation']}:{new['user']}"
        if old["delivered_seq"] == 0:
            doc: Document = {"id": id, **nowhere(new["conversation"], new["user"])}
            await self._engine.insert_or_get(org, POSITIONS, doc)
        return (
            await self._engine.update(
                org,
                POSITIONS,
                id,
                set={
                    "delivered_seq": new["delivered_seq"],
                    "delivered_at": new["delivered_at"],
                    "read_seq": new["read_seq"],
                    "read_at": new["read_at"],
                },
                where={"delivered_seq": old["delivered_seq"], "read_seq": old["read_seq"]},
            )
            is not None
        )

    async def log(
        self, org: str, conversation: str, user: str, kind: ReceiptKind, seq: int, at: str
    ) -> None:
        """Record a move that was made."""
        await self._engine.insert(
            org,
            RECEIPTS,
            {
                "id": new_id(),
                "conversation": conversation,
                "user": user,
                "kind": kind,
                "seq": seq,
                "at": at,
            },
        )

    async def first(
        self, org: str, conversation: str, user: str, kind: ReceiptKind, seq: int
    ) -> str | None:
        """When the user's first move of a kind that covered `seq` was made, if one is recorded."""
        found = await self._engine.find(
            org,
            RECEIPTS,
            {"conversation": conversation, "user": user, "kind": kind, "seq": Is(">=", seq)},
            order=("seq", "id"),
            limit=1,
        )
        return found[0]["at"] if found else None


def position_of(doc: Document | PositionDoc) -> Position:
    """A stored position on the wire."""
    return {
        "conversation": doc["conversation"],
        "user": doc["user"],
        "delivered_seq": doc["delivered_seq"],
        "delivered_at": doc["delivered_at"],
        "read_seq": doc["read_seq"],
        "read_at": doc["read_at"],
    }


def _position_doc(doc: Document) -> PositionDoc:
    return {"id": doc["id"], **position_of(doc)}
