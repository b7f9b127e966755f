"""Who is asking: the authenticated caller and the roles of an organization."""

from dataclasses import dataclass
from enum import StrEnum

from domain.events import Actor, ActorKind


class Role(StrEnum):
    """A user's role in the organization, from most to least."""

    OWNER = "owner"
    ADMIN = "admin"
    TECHNICIAN = "technician"
    MEMBER = "member"
    GUEST = "guest"

    @property
    def rank(self) -> int:
        """0 for a guest, higher for more."""
        return _RANK[self]

    def at_least(self, other: "Role") -> bool:
        """Whether this role may do what `other` may."""
        return self.rank >= other.rank


KEY_ID_PREFIX = "key_"
"""What the ids of API keys begin with, by which they are told from those of sessions."""

_RANK = {role: rank for rank, role in enumerate(reversed(Role))}


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller, as its token and the store say."""

    user: str
    org: str
    role: Role
    session: str
    """The login session the token belongs to; an API key's own id for a key."""
    expires_at: float
    """Unix seconds when the token ends."""
    kind: ActorKind = "user"
    generation: int = 0
    """How often the session had been refreshed when the token was made."""

    @property
    def by_key(self) -> bool:
        """Whether the caller came with an API key, and not logged in."""
        return self.session.startswith(KEY_ID_PREFIX)

    @property
    def actor(self) -> Actor:
        """As the author of events."""
        return Actor(self.user, self.kind)
