"""Contacts: whom a user has in the address book, and whom nothing shall come from."""

from pydantic import with_config
from typing_extensions import TypedDict

from domain.words import wanted_words, words

MAX_CONTACTS = 1000
"""Contacts of one user."""

MAX_BLOCKS = 1000
"""Users that one user may have blocked."""

MAX_QUERY = 100
"""Characters of a search by name."""


@with_config(extra="forbid")
class Contact(TypedDict):
    """What the caller keeps about another user."""

    user: str
    name: str
    avatar: str | None
    disabled: bool
    added_at: str | None
    """Null: not in the address book."""
    blocked: bool


def search_words(text: str) -> list[str]:
    """The words of a query in the form in which they are compared."""
    return wanted_words(text)


def matches(name: str, wanted: list[str]) -> bool:
    """Whether each of the wanted words begins a word of the name."""
    known = words(name)
    return all(any(word.startswith(each) for word in known) for each in wanted)
