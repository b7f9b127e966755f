"""What a password has to be. Pure rules; hashing is in `actions/accounts/hashing.py`.

The rules follow NIST SP 800-63B, section 5.1.1.2 (length counts most, well-known ones are
refused, nothing is cut off or changed behind the user's back) and OWASP's password storage notes.
"""

import importlib.util
import re
import sys
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from domain.accounts.password_parts import worth
from domain.errors import Invalid
from domain.text import is_encodable

MIN_LENGTH = 8
"""Characters of a password with upper case, lower case and a digit."""

MIN_PHRASE = 15
"""Characters from which a password may be made of anything."""

MAX_BYTES = 1024
"""UTF-8 bytes of a password."""

MIN_WORD = 3
"""Characters of a known word that is looked for in passwords."""

LEAST_WORTH = 7
"""Unknown characters that a password has to be worth; a known part is worth two."""

COMMON = 3000
"""As many of the most used passwords are looked for as parts of others."""

_ALSO_COMMON = frozenset(
    {
        "password",
        "login",
        "admin",
        "administrator",
        "welcome",
        "letmein",
        "changeme",
        "secret",
        "server",
        "chat",
        "january",
        "february",
        "march",
        "april",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
        "spring",
        "summer",
        "autumn",
        "winter",
        "company",
    }
)
_BETWEEN = re.compile(r"[\W\d_]+")

RULE = (
    f"at least {MIN_LENGTH} characters with an upper-case letter, a lower-case letter and a "
    f"digit, or at least {MIN_PHRASE} of anything"
)


LENGTH_RULE = f"at least {MIN_PHRASE} characters"
"""NIST SP 800-63B-4, section 3.1.1.2: length, and nothing else."""

SERVER_WORDS = ("parley",)
"""Words that somebody who guesses tries first on this server."""


def normalized(password: str) -> bytes:
    """The bytes that are hashed: the same for every way a keyboard may compose the characters.

    Normalization Form KC, as NIST SP 800-63B asks for.

    Raises:
        Invalid: longer than `MAX_BYTES`, or no text.
    """
    if len(password) <= MAX_BYTES and is_encodable(password):
        raw = unicodedata.normalize("NFKC", password).encode()
        if len(raw) <= MAX_BYTES:
            return raw
    raise Invalid.field("password", f"must be text of at most {MAX_BYTES} bytes")


def check(
    password: str, *, about: Iterable[str], field: str = "password", length_only: bool = False
) -> None:
    """Refuse a password that is too easy.

    Args:
        about: what is known of the user and of the server: email address, name, words.
        field: the request's field that an error names.
        length_only: ask for `MIN_PHRASE` characters, whichever they are.

    Raises:
        Invalid: too short, too long, well known, or made of what is known of the user.
    """
    if len(password) > MAX_BYTES or not is_encodable(password):
        raise Invalid.field(field, f"must be text of at most {MAX_BYTES} bytes")
    text = unicodedata.normalize("NFKC", password)
    if len(text.encode()) > MAX_BYTES:
        raise Invalid.field(field, f"must be text of at most {MAX_BYTES} bytes")
    mixed = (
        any(char.isupper() for char in text)
        and any(char.islower() for char in text)
        and any(char.isdigit() for char in text)
    )
    if length_only and len(text) < MIN_PHRASE:
        raise Invalid.field(field, f"must have {LENGTH_RULE}")
    if len(text) < MIN_LENGTH or not (mixed or len(text) >= MIN_PHRASE):
        raise Invalid.field(field, f"must have {RULE}")
    folded = text.casefold()
    if len(set(folded)) < 3 or is_well_known(folded):
        raise Invalid.field(field, "is one of the most used passwords")
    known = tuple(about)
    if folded in _derived(known):
        raise Invalid.field(field, "must not be the email address or the name")
    if worth(folded, known=_words((*known, *SERVER_WORDS)), common=_common_words()) < LEAST_WORTH:
        raise Invalid.field(
            field,
            "is made of what is tried first: well-known passwords, years, rows of keys, names; "
            "add words of your own",
        )


def is_well_known(folded: str) -> bool:
    """Whether a case-folded password is on the list of the most used ones."""
    return folded in _well_known()


def _derived(about: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for each in about:
        folded = unicodedata.normalize("NFKC", each).casefold().strip()
        local, _, domain = folded.rpartition("@")
        found |= {folded, local, domain, "".join(folded.split())}
    return found


def _words(about: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for each in about:
        folded = unicodedata.normalize("NFKC", each).casefold()
        found |= {part for part in _BETWEEN.split(folded) if len(part) >= MIN_WORD}
    return frozenset(found)


@cache
def _common_words() -> frozenset[str]:
    """The words that most used passwords are made of."""
    most_used = [each for each in _passwords()[:COMMON] if len(each) > MIN_WORD]
    return frozenset(most_used) | _ALSO_COMMON


@cache
def _well_known() -> frozenset[str]:
    """The most used passwords, those that could pass."""
    return frozenset(each for each in _passwords() if len(each) >= MIN_LENGTH)


def _passwords() -> list[str]:
    """The 30,000 most used passwords that zxcvbn is shipped with, most used first.

    Its data file is loaded alone: the package also builds tables of words and keyboards, about
    15 MB that nothing here uses.
    """
    package = importlib.util.find_spec("zxcvbn")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("zxcvbn is not installed")
    path = Path(package.submodule_search_locations[0]) / "frequency_lists.py"
    spec = importlib.util.spec_from_file_location("_zxcvbn_frequency_lists", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    passwords: list[str] = module.FREQUENCY_LISTS["passwords"]
    sys.modules.pop(spec.name, None)
    return passwords
