"""The words of a text in the one form in which they are compared, wherever something is searched:
messages, people, contacts. Case, accents, strokes (`ł`, `ø`, `đ`) and width (`Ｔｅｘｔ`) do not matter.

Scripts that are written without spaces, and Korean, whose endings are part of the word, are cut
into single characters and pairs of neighbours: so a word is found inside a sentence.
"""

import re
import unicodedata
from functools import lru_cache

WORDS = 3
"""Goes up when the words of a text become others: search indexes are then made anew."""

_WORD = re.compile(r"[^\W_]+")
_VOICED = {"\u3099", "\u309a"}
"""Marks that make another letter of a Japanese one; an accent they are not."""

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # Japanese
    "\u3100-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese
    "\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff"  # Korean
)
_RUN = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")


def _strokes() -> dict[int, str]:
    """Letters with a stroke, which Unicode does not take apart as it does accents."""
    named = re.compile(r"LATIN SMALL LETTER ([A-Z]) WITH (?:DIAGONAL )?(?:STROKE|BAR)\Z")
    found: dict[int, str] = {}
    for code in (*range(0x80, 0x250), *range(0x2C60, 0x2C80), *range(0xA720, 0xA800)):
        match = named.match(unicodedata.name(chr(code), ""))
        if match is not None:
            found[code] = match[1].lower()
    return found


_STROKES = _strokes()


@lru_cache(4096)
def _plain(char: str) -> str:
    """A character taken apart, without its accents; marks that are none of these are blanks."""
    return "".join(
        " " if unicodedata.combining(each) and each not in _VOICED else each
        for each in unicodedata.normalize("NFKD", char)
        if each in _VOICED or unicodedata.category(each) != "Mn"
    )


def folded(text: str) -> str:
    """A text without case, accents, strokes and width."""
    if text.isascii():
        return text.lower()
    # One by one: of a run of marks all of them are sorted, which takes the square of its length, and
    # a message may be nothing else.
    plain = "".join(map(_plain, text))
    return unicodedata.normalize("NFC", plain).casefold().translate(_STROKES)


def words(text: str) -> list[str]:
    """What a text is found by, in its order: its words, and of unspaced scripts each character
    and each pair of neighbours.
    """
    found: list[str] = []
    for word in _WORD.findall(folded(text)):
        if word.isascii():
            found.append(word)
            continue
        for run in _RUN.findall(word):
            if _IS_UNSPACED.match(run) is None:
                found.append(run)
                continue
            found += run
            found += [run[place : place + 2] for place in range(len(run) - 1)]
    return found


def wanted_words(text: str) -> list[str]:
    """As `words`, of a query: single characters only where they stand alone."""
    found: list[str] = []
    for word in _WORD.findall(folded(text)):
        for run in _RUN.findall(word):
            if len(run) == 1 or _IS_UNSPACED.match(run) is None:
                found.append(run)
            else:
                found += [run[place : place + 2] for place in range(len(run) - 1)]
    return found
