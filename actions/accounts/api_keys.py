"""API keys: how programs come in."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from actions.accounts.access import Authenticator
from actions.accounts.authority import without_key
from actions.accounts.tokens import KEY_PREFIX, random_token, token_hash
from domain.accounts.accounts import MAX_KEYS, ApiKey, KeyKind, clean_name, may_manage
from domain.clock import Clock, timestamp
from domain.errors import Forbidden, NotFound, TooLarge, Unauthenticated
from domain.ids import new_id
from domain.pages import Page, by_id, cut, resume
from domain.principals import KEY_ID_PREFIX, Principal, Role
from store.accounts.sessions import SessionRepository

log = structlog.get_logger(__name__)

HINT = 8
"""Characters of a key that are kept to recognise it by."""


class ApiKeys:
    """Makes, lists and revokes API keys of an organization."""

    def __init__(
        self,
        keys: SessionRepository,
        authenticator: Authenticator,
        clock: Clock,
        default_ttl: float = 0.0,
    ) -> None:
        """`default_ttl`: seconds that a key lives of which nothing else is said; 0: without end."""
        self._default_ttl = default_ttl or None
        self._keys = keys
        self._authenticator = authenticator
        self._clock = clock
        self.before_agent_ends: list[Callable[[str, str, float], Awaitable[None]]] = []
        """Called with organization, agent and the time (Unix seconds) at which it ends, before that
        is settled; who fails prevents it."""
        self.on_agent_ended: list[Callable[[], None]] = []
        """Called after an agent was ended."""

    async def create(
        self,
        principal: Principal,
        name: str,
        kind: KeyKind,
        role: Role,
        ttl: float | None,
        *,
        endless: bool = False,
    ) -> ApiKey:
        """A new key, which is told once, here.

        Args:
            kind: `user` acts as the caller, with at most `role`; `agent` acts as itself.
            ttl: seconds that it lives; None: as long as the server's setting says.
            endless: it lives until it is revoked.

        Raises:
            Forbidden: the role is above the caller's; or an agent's is not below it; or the caller
                is a key itself.
            TooLarge: the caller has made `MAX_KEYS` that are good.
        """
        without_key(principal)
        if ttl is None and not endless:
            ttl = self._default_ttl
        allowed = principal.role.at_least(role) if kind == "user" else _may_grant(principal, role)
        if not allowed:
            raise Forbidden("A key cannot do more than who makes it.")
        org, maker, now = principal.org, principal.user, self._clock.now()
        full = TooLarge(
            f"You have made {MAX_KEYS} API keys that are good, which is the most.",
            data={"limit": MAX_KEYS},
        )
        if len(await self._keys.keys_made_by(org, maker, timestamp(now))) >= MAX_KEYS:
            raise full
        key = random_token(KEY_PREFIX, principal.org)
        id = KEY_ID_PREFIX + new_id()
        doc: dict[str, Any] = {
            "id": id,
            "hash": token_hash(key),
            "name": clean_name(name),
            "hint": key[: len(KEY_PREFIX) + HINT],
            "kind": kind,
            "role": role.value,
            "user": principal.user if kind == "user" else id,
            "created_by": principal.user,
            "created_at": timestamp(now),
            "expires_at": timestamp(now + ttl) if ttl is not None else None,
            "revoked_at": None,
            "last_used_at": None,
        }
        if kind == "agent" and ttl is not None:
            await self._prepare(org, id, now + ttl)
        await self._keys.add_key(org, doc)
        # Others may have been made at the same moment: one that comes too late is taken back.
        if len(await self._keys.keys_made_by(org, maker, timestamp(now))) > MAX_KEYS:
            await self._keys.drop_key(org, id)
            raise full
        session = await self._keys.session(org, principal.session)
        if session is None or session["revoked_at"] is not None:
            # Whoever ended it meanwhile ended the keys there were, and did not see this one.
            await self._keys.revoke_key(org, id, timestamp(now))
            raise Unauthenticated("The session has ended.")
        log.info("api_key_created", key=id, kind=kind, by=principal.user)
        view = _view(doc)
        view["key"] = key
        return view

    async def list(self, principal: Principal, *, cursor: str | None, limit: int) -> Page[ApiKey]:
        """The organization's keys that are not revoked, newest first."""
        after = resume(cursor, "id")
        found = await self._keys.keys(principal.org, after=after, limit=limit + 1)
        page, next = cut(found, limit, by_id)
        return {"items": [_view(each) for each in page], "next": next}

    async def revoke(self, principal: Principal, id: str) -> None:
        """End a key at once, with its connections.

        Raises:
            NotFound: there is no such key, or it was revoked.
            Forbidden: it acts for an owner, and the caller is none.
        """
        key = await self._keys.key(principal.org, id)
        if key is None or key["revoked_at"] is not None:
            raise NotFound("There is no such API key.")
        if key["created_by"] != principal.user and not principal.role.at_least(Role(key["role"])):
            raise Forbidden("This key's role is above yours.")
        now = self._clock.now()
        if key["kind"] == "agent":
            await self._prepare(principal.org, key["user"], now)
        await self._authenticator.note(key["user"])
        await self._keys.revoke_key(principal.org, id, timestamp(now))
        self._authenticator.tell(key["user"])
        for callback in self.on_agent_ended if key["kind"] == "agent" else ():
            callback()
        log.info("api_key_revoked", key=id, by=principal.user)

    async def _prepare(self, org: str, agent: str, at: float) -> None:
        for prepare in self.before_agent_ends:
            await prepare(org, agent, at)


def _may_grant(principal: Principal, role: Role) -> bool:
    return principal.role is Role.OWNER or may_manage(principal.role, role)


def _view(doc: Mapping[str, Any]) -> ApiKey:
    return {
        "id": doc["id"],
        "name": doc["name"],
        "hint": doc["hint"],
        "kind": doc["kind"],
        "role": doc["role"],
        "created_at": doc["created_at"],
        "created_by": doc["created_by"],
        "expires_at": doc["expires_at"],
        "last_used_at": doc.get("last_used_at"),
    }
