"""The words of a text, as the search index of every engine has them (`domain.words`)."""

from domain.words import WORDS, wanted_words, words

__all__ = ["MAX_WORDS", "TOKEN", "WORDS", "holds", "tokens", "wanted_words", "words"]

TOKEN = 100
"""Characters of a word that the index keeps; longer words are compared once more when found."""

MAX_WORDS = 32
"""Words of a query that are looked for; more are ignored."""


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
