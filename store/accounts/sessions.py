"""Login sessions, API keys, login attempts, and the notes that tell all nodes whose access changed."""

from store.accounts.accounts import SERVER
from store.engine import Collection, Document, Engine, Filter, Index, Is, Unindexed

SESSIONS = Collection(
    "sessions",
    # All that `live` asks for is in one index: those who log in and out all day leave many revoked
    # sessions, and SQLite would rather take the other index and read all of the organization.
    indexes=(
        Index(("user", "revoked_at", "expires_at")),
        Index(("expires_at",), any_org=True),
    ),
    unindexed=(
        Unindexed(
            ("user", "revoked_at", "expires_at"),
            ("-id",),
            "one person's sessions that are in force",
        ),
    ),
)
"""`{id, user, created_at, last_used_at, expires_at, user_agent, remote, revoked_at, refresh, previous,
rotated_at, generation, used}`; `refresh` is the hash of the refresh token that is good now, `previous`
that of the one before, `rotated_at` when it was used, `generation` how often that happened, `used`
whether an access token that came with the newest one was shown since."""

API_KEYS = Collection(
    "api_keys",
    indexes=(
        Index(("hash",), unique=True),
        Index(("created_by", "revoked_at", "expires_at")),
        Index(("revoked_at",)),
    ),
)
"""`{id, hash, name, hint, kind, role, user, created_by, created_at, expires_at, revoked_at,
last_used_at}`."""

ATTEMPTS = Collection(
    "login_attempts", indexes=(Index(("account", "network", "ok")), Index(("at",)))
)
"""`{id, account: key of the address, network, ok, at}`, in `SERVER`."""

CHANGES = Collection("access_changes", indexes=(Index(("at",)),))
"""`{id, user, at}`, in `SERVER`: ask the store about this user before believing a token."""

COLLECTIONS = (SESSIONS, API_KEYS, ATTEMPTS, CHANGES)


class SessionRepository:
    """Reads and writes sessions and what else decides who may come in."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    # -- sessions -----------------------------------------------------------------------------

    async def add(self, org: str, doc: Document) -> None:
        """Store a new session."""
        await self.engine.insert(org, SESSIONS, doc)

    async def session(self, org: str, session: str) -> Document | None:
        """One session."""
        return await self.engine.get(org, SESSIONS, session)

    async def rotate(
        self,
        org: str,
        session: str,
        *,
        old: str,
        new: str,
        at: str,
        expires_at: str,
        generation: int,
        remote: str,
        user_agent: str,
    ) -> bool:
        """Put a new refresh token's hash in place of the old one's, for the `generation`-th time.
        Of any number of callers with one old hash exactly one gets True; False also if the session
        is revoked.
        """
        changed = await self.engine.update(
            org,
            SESSIONS,
            session,
            set={
                "refresh": new,
                "previous": old,
                "rotated_at": at,
                "generation": generation,
                "used": False,
                "last_used_at": at,
                "expires_at": expires_at,
                "remote": remote,
                "user_agent": user_agent,
            },
            where={"refresh": old, "revoked_at": None},
        )
        return changed is not None

    async def mark_used(self, org: str, session: str, generation: int) -> None:
        """Note that what the newest refresh gave is in use; an older one's does not count."""
        await self.engine.update(
            org, SESSIONS, session, set={"used": True}, where={"generation": generation}
        )

    async def revoke(self, org: str, session: str, at: str, *, forget_at: str) -> bool:
        """End a session, and have it trimmed from a time on; False if it was ended already or is
        not there.
        """
        changed = await self.engine.update(
            org,
            SESSIONS,
            session,
            set={"revoked_at": at, "expires_at": forget_at},
            where={"revoked_at": None},
        )
        return changed is not None

    async def live(self, org: str, user: str, now: str) -> list[Document]:
        """A user's sessions that are neither ended nor expired, newest first."""
        return await self.engine.find(
            org,
            SESSIONS,
            {"user": user, "revoked_at": None, "expires_at": Is(">", now)},
            order=("-id",),
        )

    async def trim_sessions(self, before: str) -> int:
        """Forget sessions that expired before a time."""
        return await self.engine.delete_any_org(SESSIONS, {"expires_at": Is("<", before)})

    # -- API keys -----------------------------------------------------------------------------

    async def add_key(self, org: str, doc: Document) -> None:
        """Store a new API key."""
        await self.engine.insert(org, API_KEYS, doc)

    async def key(self, org: str, id: str) -> Document | None:
        """One API key by its id."""
        return await self.engine.get(org, API_KEYS, id)

    async def find_key(self, org: str, hash: str) -> Document | None:
        """The API key with this hash."""
        found = await self.engine.find(org, API_KEYS, {"hash": hash}, limit=1)
        return found[0] if found else None

    async def keys(self, org: str, *, after: str | None, limit: int) -> list[Document]:
        """The organization's keys that are not revoked, newest first, behind the id `after`."""
        where = (
            {"revoked_at": None} if after is None else {"revoked_at": None, "id": Is("<", after)}
        )
        return await self.engine.find(org, API_KEYS, where, order=("-id",), limit=limit)

    async def keys_made_by(self, org: str, user: str, now: str) -> list[Document]:
        """The keys a user made that have neither been revoked nor come to their end."""
        found: list[Document] = []
        for end in (None, Is(">", now)):
            where: Filter = {"created_by": user, "revoked_at": None, "expires_at": end}
            found += await self.engine.find(org, API_KEYS, where, limit=None)
        return found

    async def drop_key(self, org: str, id: str) -> None:
        """Forget a key that nobody was told of."""
        await self.engine.delete(org, API_KEYS, {"id": id})

    async def use_key(self, org: str, id: str, at: str) -> None:
        """Note that an API key was used."""
        await self.engine.update(org, API_KEYS, id, set={"last_used_at": at})

    async def revoke_key(self, org: str, id: str, at: str) -> Document | None:
        """End an API key; None if it was ended already or is not there."""
        return await self.engine.update(
            org, API_KEYS, id, set={"revoked_at": at}, where={"revoked_at": None}
        )

    # -- login attempts -----------------------------------------------------------------------

    async def record_attempt(self, id: str, account: str, network: str, ok: bool, at: str) -> None:
        """Record that somebody tried to log in."""
        doc = {"id": id, "account": account, "network": network, "ok": ok, "at": at}
        await self.engine.insert(SERVER, ATTEMPTS, doc)

    async def succeeded_from(self, account: str, network: str) -> bool:
        """Whether a recorded attempt of this account from this network succeeded."""
        where = {"account": account, "network": network, "ok": True}
        return bool(await self.engine.find(SERVER, ATTEMPTS, where, limit=1))

    async def trim_attempts(self, before: str) -> int:
        """Forget attempts older than a time."""
        return await self.engine.delete(SERVER, ATTEMPTS, {"at": Is("<", before)})

    # -- changes of access --------------------------------------------------------------------

    async def note_change(self, id: str, user: str, at: str) -> None:
        """Note that what a user may do is about to change."""
        await self.engine.insert(SERVER, CHANGES, {"id": id, "user": user, "at": at})

    async def changes(self, since: str) -> list[Document]:
        """Changes noted at a time or later, oldest first."""
        where = {"at": Is(">=", since)}
        return await self.engine.find(SERVER, CHANGES, where, order=("at",), limit=None)

    async def trim_changes(self, before: str) -> int:
        """Forget changes older than a time."""
        return await self.engine.delete(SERVER, CHANGES, {"at": Is("<", before)})
