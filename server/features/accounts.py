"""Accounts: who there is, how they come in, how long they may stay; keys, contacts and blocks."""

from collections.abc import Mapping
from dataclasses import dataclass

from actions.accounts.access import Authenticator
from actions.accounts.accounts import Accounts, PasswordRules
from actions.accounts.api_keys import ApiKeys
from actions.accounts.contacts import Contacts
from actions.accounts.expiry import Expirations
from actions.accounts.guesses import Guesses
from actions.accounts.hashing import PasswordHasher
from actions.accounts.sessions import Sessions
from actions.accounts.tokens import Tokens
from actions.accounts.users import Users
from actions.uploads.avatars import Avatars
from config.load import SettingsError
from config.settings import PasswordRule, Registration, Settings
from domain.errors import Conflict, Invalid
from domain.events import EventType
from domain.rates import HOUR, MINUTE, Rate
from fanout.limits import RateLimiter
from handlers.accounts.auth import AuthCommands
from handlers.accounts.contacts import ContactCommands
from handlers.accounts.users import ApiKeyCommands, UserCommands
from handlers.command import CommandSet
from server.core import Core
from server.features.feature import Feature, Job
from store.accounts import accounts as accounts_store
from store.accounts import contacts as contacts_store
from store.accounts import guesses as guesses_store
from store.accounts import sessions as sessions_store
from store.accounts.accounts import AccountRepository
from store.accounts.contacts import ContactRepository
from store.accounts.guesses import GuessRepository
from store.accounts.sessions import SessionRepository
from store.engine import Collection
from store.uploads.uploads import UploadRepository

COLLECTIONS: tuple[Collection, ...] = (
    *accounts_store.COLLECTIONS,
    *sessions_store.COLLECTIONS,
    *guesses_store.COLLECTIONS,
    *contacts_store.COLLECTIONS,
)
EVENTS: tuple[EventType, ...] = ()
COMMANDS: tuple[type[CommandSet], ...] = (
    AuthCommands,
    UserCommands,
    ApiKeyCommands,
    ContactCommands,
)
LIMITS: Mapping[str, Rate] = {
    # Failed attempts only: one that succeeds is given back.
    "login": Rate(10, MINUTE),  # per account
    "login.address": Rate(60, MINUTE),
    "password": Rate(10, MINUTE),  # the current password, asked for again
    "register.made": Rate(1000, HOUR),  # per address: a whole office behind one, no flood
    "register.refused": Rate(30, HOUR),  # per address: how many accounts can be found by trying
    "api_key.refused": Rate(60, MINUTE),  # per address: wrong API keys
}


@dataclass(frozen=True, kw_only=True)
class AccountsFeature(Feature):
    """With what other features build on."""

    people: AccountRepository
    authenticator: Authenticator
    sessions: Sessions
    users: Users
    keys: ApiKeys
    contacts: Contacts
    avatars: Avatars


def build(core: Core, settings: Settings, limiter: RateLimiter) -> AccountsFeature:
    """The feature on one node."""
    people, kept = AccountRepository(core.engine), SessionRepository(core.engine)
    tokens = Tokens(
        settings.secret_key.get_secret_value(),
        settings.token_issuer,
        settings.token_audience,
        settings.access_ttl,
        core.clock,
    )
    authenticator = Authenticator(
        tokens,
        people,
        kept,
        core.control,
        core.clients,
        limiter,
        core.clock,
        settings.access_ttl,
    )
    hasher = PasswordHasher(settings.bcrypt_cost)
    expirations = Expirations(authenticator, core.clock)
    sessions = Sessions(
        kept,
        people,
        tokens,
        authenticator,
        expirations,
        core.clients,
        core.clock,
        settings.refresh_ttl,
        settings.refresh_grace,
        settings.session_max_age,
    )
    avatars = Avatars(people, UploadRepository(core.engine), core.clock)
    guesses = Guesses(GuessRepository(core.engine), core.clock)
    accounts = Accounts(
        people,
        kept,
        sessions,
        hasher,
        limiter,
        core.clock,
        settings.registration.value,
        guesses,
        PasswordRules(settings.password_rule is PasswordRule.LENGTH, (settings.token_issuer,)),
        avatars,
    )
    users = Users(
        people,
        sessions,
        authenticator,
        core.clock,
        kept,
        takes_registrations=settings.registration is not Registration.CLOSED,
    )
    keys = ApiKeys(kept, authenticator, core.clock, settings.api_key_ttl)
    contacts = Contacts(ContactRepository(core.engine), people, core.clock)

    async def start() -> None:
        owned = await accounts.ensure_organization()
        await authenticator.start()
        await _first_admin(accounts, settings, owned=owned)

    async def close() -> None:
        hasher.close()

    return AccountsFeature(
        name="accounts",
        commands=[
            AuthCommands(accounts, sessions),
            UserCommands(accounts, users),
            ApiKeyCommands(keys),
            ContactCommands(contacts),
        ],
        followers=[expirations],
        services=[authenticator.run, expirations.run],
        jobs=[Job("sessions", HOUR, sessions.trim), Job("guesses", HOUR, guesses.trim)],
        start=start,
        close=close,
        people=people,
        authenticator=authenticator,
        sessions=sessions,
        users=users,
        keys=keys,
        contacts=contacts,
        avatars=avatars,
    )


async def _first_admin(accounts: Accounts, settings: Settings, *, owned: bool) -> None:
    """Make the administrator that the settings name. `owned`: whether there is an owner already.

    Raises:
        SettingsError: it cannot be made.
    """
    email, password = settings.admin_email, settings.admin_password
    if not email or (owned and not password):  # later it may be taken out of the settings
        return
    if not password:
        problem = "is missing: the first administrator needs both"
        raise SettingsError(("PARLEY_ADMIN_PASSWORD", problem))
    try:
        await accounts.ensure_first_admin(email, password.get_secret_value())
    except Invalid as error:
        problem = error.errors[0]["message"]
        raise SettingsError(("PARLEY_ADMIN_PASSWORD", problem)) from None
    except Conflict:
        problem = "is of an account with another password than PARLEY_ADMIN_PASSWORD"
        raise SettingsError(("PARLEY_ADMIN_EMAIL", problem)) from None
