"""How often each thing may be asked for, unless `PARLEY_RATE_LIMITS` says otherwise.

A bucket is counted per user, or per network address for those who are nobody yet. As many
requests as the limit may come at once; then they come back evenly over the period. Buckets have
the names of the commands that take from them; a command without an entry takes `DEFAULT`.
"""

from collections.abc import Iterable, Mapping

from config.load import SettingsError
from config.values import Rate, RateLimits

SECOND, MINUTE, HOUR = 1.0, 60.0, 3600.0

DEFAULT = Rate(100, SECOND)

LIMITS: Mapping[str, Rate] = {
    # Failed attempts only: one that succeeds is given back.
    "login": Rate(10, MINUTE),  # per account
    "login.address": Rate(60, MINUTE),
    "password": Rate(10, MINUTE),  # the current password, asked for again
    "register.made": Rate(1000, HOUR),  # per address: a whole office behind one, no flood
    "register.refused": Rate(30, HOUR),  # per address: how many accounts can be found by trying
    "api_key.refused": Rate(60, MINUTE),  # per address: wrong API keys
    # All requests.
    "auth.login": Rate(300, MINUTE),
    "auth.register": Rate(300, MINUTE),
    "session.refresh": Rate(300, MINUTE),
    "auth.refresh": Rate(30, MINUTE),
    "auth.reset": Rate(60, MINUTE),
    "user.reset_link": Rate(60, MINUTE),
    "invite.create": Rate(60, MINUTE),
    "user.search": Rate(20, SECOND),
    "message.send": Rate(50, SECOND),
    "message.edit": Rate(20, SECOND),
    "message.delete": Rate(20, SECOND),
    "message.search": Rate(10, SECOND),
    "pin.add": Rate(20, SECOND),
    "pin.remove": Rate(20, SECOND),
    "conversation.create": Rate(60, MINUTE),
    "conversation.list": Rate(20, SECOND),
    "conversation.update": Rate(10, SECOND),  # of a large group an event of 100 kB
    "conversation.delete": Rate(20, MINUTE),
    "conversation.join": Rate(60, MINUTE),
    "conversation.leave": Rate(60, MINUTE),
    "conversation.leave_many": Rate(10, MINUTE),  # up to 100 each
    "member.add": Rate(20, SECOND),
    "member.added": Rate(100, HOUR),  # per user added: by those whom this one does not know
    "member.remove": Rate(20, SECOND),
    "member.update": Rate(20, SECOND),
    "stream.subscribe": Rate(20, SECOND),  # up to 1,000 streams and 4 MiB of events each
    "stream.sync": Rate(10, SECOND),  # up to 10,000 streams
    "typing.start": Rate(10, SECOND),
    "typing.stop": Rate(10, SECOND),
    "reaction.add": Rate(20, SECOND),
    "reaction.remove": Rate(20, SECOND),
    "presence.set": Rate(10, SECOND),
    "presence.activity": Rate(5, SECOND),  # told to everybody who watches
    "presence.watch": Rate(20, SECOND),  # up to 1,000 users each
    "presence.room": Rate(20, SECOND),  # asks all nodes
    "contact.list": Rate(20, SECOND),
    "upload.create": Rate(120, MINUTE),
    "upload.download": DEFAULT,
}


def buckets(settings: RateLimits) -> Mapping[str, Rate | None]:
    """The limit of every bucket that has its own; None: this bucket limits nothing."""
    return {**LIMITS, **settings.buckets}


def check_buckets(settings: RateLimits, commands: Iterable[str]) -> None:
    """Refuse a limit that would limit nothing.

    Args:
        commands: the buckets that commands take from.

    Raises:
        SettingsError: a bucket is of no command and of nothing else.
    """
    unknown = settings.buckets.keys() - LIMITS.keys() - set(commands)
    if unknown:
        raise SettingsError(("PARLEY_RATE_LIMITS", f"{min(unknown)} is no bucket"))
