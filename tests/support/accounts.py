"""Everything about accounts, put together over a store of its own, without a server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from actions.accounts.access import Authenticator
from actions.accounts.accounts import Accounts, Registration
from actions.accounts.api_keys import ApiKeys
from actions.accounts.expiry import Expirations
from actions.accounts.guesses import Guesses
from actions.accounts.hashing import PasswordHasher
from actions.accounts.sessions import Origin, Sessions
from actions.accounts.tokens import Tokens
from actions.accounts.users import Users
from actions.connections.clients import Client, Clients
from domain.accounts import accounts as wire
from domain.accounts.accounts import email_key
from domain.clock import timestamp
from domain.ids import new_id
from domain.principals import Principal, Role
from fanout.control import CHANNEL, Control
from fanout.limits import Limit, LocalRateLimiter
from store.accounts import accounts as accounts_store
from store.accounts import guesses as guesses_store
from store.accounts import sessions as sessions_store
from store.accounts.accounts import AccountRepository
from store.accounts.guesses import GuessRepository
from store.accounts.sessions import SessionRepository
from store.engine import Engine
from store.sqlite import SqliteEngine
from tests.support.bus import LossyBus, Wire
from tests.support.local import LocalOutlet, TurnedClock, local_client

COLLECTIONS = (
    *accounts_store.COLLECTIONS,
    *sessions_store.COLLECTIONS,
    *guesses_store.COLLECTIONS,
)
PASSWORD = "Kestrel over 7 weirs"
SECRET = "accounts under test " * 4
ACCESS_TTL, REFRESH_TTL = 900.0, 7 * 86400.0
KEY_TTL = 365 * 86400.0
HOME = Origin("192.0.2.1", "tests")
AWAY = Origin("198.51.100.9", "somebody else")


class AccountsNode:
    """One node's accounts."""

    def __init__(
        self,
        engine: Engine,
        bus: LossyBus,
        clock: TurnedClock,
        hasher: PasswordHasher,
        registration: Registration = "open",
        limits: dict[str, Limit | None] | None = None,
    ) -> None:
        self.clock = clock
        self.bus = bus
        self.clients = Clients()
        self.control = Control(bus)
        self.repository = AccountRepository(engine)
        self.session_repository = SessionRepository(engine)
        self.tokens = Tokens(SECRET, "parley", "parley", ACCESS_TTL, clock)
        self.limiter = LocalRateLimiter(limits or {}, clock)
        self.authenticator = Authenticator(
            self.tokens,
            self.repository,
            self.session_repository,
            self.control,
            self.clients,
            self.limiter,
            clock,
            ACCESS_TTL,
        )
        self.expirations = Expirations(self.authenticator, clock)
        self.sessions = Sessions(
            self.session_repository,
            self.repository,
            self.tokens,
            self.authenticator,
            self.expirations,
            self.clients,
            clock,
            REFRESH_TTL,
        )
        self.guess_repository = GuessRepository(engine)
        self.guesses = Guesses(self.guess_repository, clock)
        self.accounts = Accounts(
            self.repository,
            self.session_repository,
            self.sessions,
            hasher,
            self.limiter,
            clock,
            registration,
            self.guesses,
        )
        self.users = Users(
            self.repository,
            self.sessions,
            self.authenticator,
            clock,
            self.session_repository,
            takes_registrations=registration != "closed",
        )
        self.keys = ApiKeys(self.session_repository, self.authenticator, clock, KEY_TTL)

    async def start(self) -> None:
        await self.bus.start(lambda _, message: self.control.receive(message), lambda _: None)
        self.bus.subscribe(CHANNEL)
        await self.authenticator.start()

    async def register(self, name: str = "Ann", email: str | None = None) -> wire.Tokens:
        address = email or f"{name.lower()}@example.com"
        return await self.accounts.register(address, PASSWORD, name, None, HOME)

    async def login(
        self, email: str, password: str = PASSWORD, origin: Origin = HOME
    ) -> wire.Tokens:
        return await self.accounts.login(email, password, origin)

    async def principal(self, tokens: wire.Tokens) -> Principal:
        return await self.authenticator.authenticate(tokens["access_token"], HOME.remote)

    async def connect(
        self, token: str, *, transport: str | None = None
    ) -> tuple[Client, LocalOutlet]:
        """A client as the gateway lets it in."""
        principal = await self.authenticator.authenticate(token, HOME.remote)
        client, outlet = local_client(principal, session=transport)
        self.clients.add(client)
        await self.expirations.entered(client, ())
        return client, outlet

    async def somebody(
        self, role: Role, name: str, org: str = wire.DEFAULT_ORG
    ) -> tuple[Principal, wire.Tokens]:
        """A user of that role in that organization, logged in; made without asking anybody."""
        at = timestamp(self.clock.now())
        await self.repository.ensure_organization(org, org, at)
        address = f"{name.lower()}@{org}.example.com"
        user = await self.accounts.add_user(org, address, name, role, "no password")
        if role is Role.OWNER:
            found = await self.repository.organization(org)
            assert found is not None
            owners = [*found["owners"], user["id"]]
            assert await self.repository.set_owners(org, owners, found["version"])
        tokens = await self.sessions.begin(org, user, HOME)
        return await self.principal(tokens), tokens

    async def attempts(self, email: str) -> list[dict[str, Any]]:
        """What was recorded of logins to an address, oldest first."""
        engine = self.session_repository.engine
        where = {"account": email_key(wire.normalize_email(email))}
        found = await engine.find(
            accounts_store.SERVER, sessions_store.ATTEMPTS, where, order=("network", "ok")
        )
        return sorted(found, key=lambda each: str(each["id"]))


class AccountsWorld:
    """A store, and as many nodes over it as a test wants."""

    def __init__(self, engine: Engine, clock: TurnedClock, hasher: PasswordHasher) -> None:
        self.engine = engine
        self.clock = clock
        self._hasher = hasher
        self._wire = Wire()
        self._nodes: list[AccountsNode] = []

    async def node(
        self, registration: Registration = "open", limits: dict[str, Limit | None] | None = None
    ) -> AccountsNode:
        bus = LossyBus(self._wire)
        made = AccountsNode(self.engine, bus, self.clock, self._hasher, registration, limits)
        await made.accounts.ensure_organization()
        await made.start()
        self._nodes.append(made)
        return made

    async def turn(self, seconds: float) -> None:
        """Let time pass; the nodes look for changes as they do all the time."""
        self.clock.turn(seconds)
        for node in self._nodes:
            await node.authenticator.look()
            await node.authenticator.note_use()


@asynccontextmanager
async def accounts_world(directory: Path) -> AsyncIterator[AccountsWorld]:
    """Accounts over a new SQLite file in a directory."""
    clock = TurnedClock()
    collections = COLLECTIONS
    engine = SqliteEngine(directory / f"{new_id()}.db", collections, clock=clock)
    hasher = PasswordHasher(4)
    await engine.start()
    try:
        yield AccountsWorld(engine, clock, hasher)
    finally:
        hasher.close()
        await engine.stop()
