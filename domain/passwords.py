"""What a password has to be. Pure rules; hashing is in `actions/hashing.py`.

The rules follow NIST SP 800-63B, section 5.1.1.2 (length counts most, well-known ones are
refused, nothing is cut off or changed behind the user's back) and OWASP's password storage notes.
"""

import importlib.util
import sys
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from domain.errors import Invalid
from domain.text import is_encodable

MIN_LENGTH = 8
"""Characters of a password with upper case, lower case and a digit."""

MIN_PHRASE = 15
"""Characters from which a password may be made of anything."""

MAX_BYTES = 1024
"""UTF-8 bytes of a password."""

RULE = (
    f"at least {MIN_LENGTH} characters with an upper-case letter, a lower-case letter and a "
    f"digit, or at least {MIN_PHRASE} of anything"
)


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


def check(password: str, *, about: Iterable[str], field: str = "password") -> None:
    """Refuse a password that is too easy.

    Args:
        about: what is known of the user: email address, name.
        field: the request's field that an error names.

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
    if len(text) < MIN_LENGTH or not (mixed or len(text) >= MIN_PHRASE):
        raise Invalid.field(field, f"must have {RULE}")
    folded = text.casefold()
    if len(set(folded)) < 3 or is_well_known(folded):
        raise Invalid.field(field, "is among those that are tried first")
    if folded in _derived(about):
        raise Invalid.field(field, "must not be the email address or the name")


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


@cache
def _well_known() -> frozenset[str]:
    """The 30,000 most used passwords that zxcvbn is shipped with, those that could pass.

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
    return frozenset(each for each in passwords if len(each) >= MIN_LENGTH)
