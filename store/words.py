"""The words of a text, as the search index of every engine has them."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")
_VOICED = {"\u3099", "\u309a"}
"""Marks that make another letter of a Japanese one; an accent they are not."""

TOKEN = 100
"""Characters of a word that the index keeps; longer words are compared once more when found."""

MAX_WORDS = 32
"""Words of a query that are looked for; more are ignored."""


def words(text: str) -> list[str]:
    """The words in their order: runs of letters and digits, without case and accents."""
    plain = "".join(
        char
        for char in unicodedata.normalize("NFD", text)
        if char in _VOICED or unicodedata.category(char) != "Mn"
    )
    return _WORD.findall(unicodedata.normalize("NFC", plain).casefold())


def tokens(text: object) -> list[str]:
    """What the index keeps of a text, each once."""
    if not isinstance(text, str):
        return []
    return sorted({word[:TOKEN] for word in words(text)})


def holds(text: object, wanted: list[str]) -> bool:
    """Whether a text has every word, the last one as a prefix."""
    found = words(text) if isinstance(text, str) else []
    known = set(found)
    return all(word in known for word in wanted[:-1]) and any(
        word.startswith(wanted[-1]) for word in found
    )
