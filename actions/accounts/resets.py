"""Links with which somebody who has forgotten the password sets a new one, once."""

import structlog

from actions.accounts.tokens import RESET_PREFIX, random_token, token_hash
from domain.accounts.accounts import RESET_TTL, PasswordReset, email_key, normalize_email
from domain.clock import Clock, timestamp
from domain.errors import Conflict, NotFound
from domain.ids import new_id
from store.accounts.accounts import AccountRepository
from store.engine import Document

log = structlog.get_logger(__name__)

OPERATOR = "operator"
"""The maker of a link that was made on the server's machine: who can read the store needs no role."""


async def make_reset(
    accounts: AccountRepository, clock: Clock, org: str, target: Document, by: str
) -> PasswordReset:
    """A link for a user. The one before it ends.

    Raises:
        Conflict: the user is disabled.
    """
    if target["disabled_at"] is not None:
        raise Conflict("This user is disabled.")
    now = clock.now()
    token = random_token(RESET_PREFIX, org)
    ends = timestamp(now + RESET_TTL)
    doc = {
        "id": new_id(),
        "hash": token_hash(token),
        "user": target["id"],
        "created_by": by,
        "created_at": timestamp(now),
        "expires_at": ends,
        "used_at": None,
    }
    await accounts.add_reset(org, doc)
    log.info("reset_link_made", user=target["id"], by=by)
    return {"user": target["id"], "token": token, "expires_at": ends}


async def operators_reset(accounts: AccountRepository, clock: Clock, email: str) -> PasswordReset:
    """A link for whoever has an address, an only owner too.

    Raises:
        Invalid: this is no address.
        NotFound: nobody has it.
        Conflict: the user is disabled.
    """
    found = await accounts.by_email(email_key(normalize_email(email)))
    if found is None:
        raise NotFound("There is no account with this address.")
    return await make_reset(accounts, clock, found.org, found.user, OPERATOR)
