"""The rate limits of a node: those declared, and what `PARLEY_RATE_LIMITS` says otherwise."""

from collections.abc import Mapping

from config.load import SettingsError
from config.values import RateLimits
from domain.rates import DEFAULT
from fanout.limits import Limit
from server.features import LIMITS


def limits_of(settings: RateLimits) -> tuple[Mapping[str, Limit | None], Limit | None]:
    """The limit of every bucket, and that of a bucket which is not named; None limits nothing.

    Raises:
        SettingsError: a bucket that nothing takes from has a limit.
    """
    if not settings.enabled:
        return {}, None
    if unknown := settings.buckets.keys() - LIMITS.keys():
        raise SettingsError(("PARLEY_RATE_LIMITS", f"{min(unknown)} is no bucket"))
    return {**LIMITS, **settings.buckets}, DEFAULT
