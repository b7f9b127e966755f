"""Rules for text that people write."""

import re
import unicodedata

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_LINES_AND_TABS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def has_control_characters(text: str, *, newlines: bool = True) -> bool:
    """Whether the text holds control characters (Unicode category Cc).

    Args:
        newlines: line ends (also CR LF) and tabs are text; nothing else is.
    """
    pattern = _CONTROL_BUT_LINES_AND_TABS if newlines else _CONTROL
    return pattern.search(text) is not None


_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""What makes text run another way than its letters say, also what comes after it."""

_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
"""Letters and symbols that show nothing: fillers of Hangul, the empty pattern of Braille."""


def why_not_plain(text: str) -> str | None:
    """Why a text cannot stand as a name or title in other people's lists, if it cannot: it has
    control characters or ones that turn its direction, or nothing of it would be seen.

    Joiners and marks are parts of many scripts, but not without a letter. A text without any
    character is plain.
    """
    if text.isascii() and text.isprintable():
        return "nothing of it is visible" if text.isspace() else None
    if has_control_characters(text, newlines=False):
        return "control characters are not allowed"
    if not is_encodable(text):
        return "half a character is not allowed"
    if _DIRECTION.search(text):
        return "characters that turn the direction of text are not allowed"
    return None if any(map(_is_seen, text)) else "nothing of it is visible"


def _is_seen(char: str) -> bool:
    return unicodedata.category(char)[0] not in "CMZ" and char not in _BLANK


def is_encodable(text: str) -> bool:
    """Whether the text can be written as UTF-8: it has no half of a surrogate pair, which a JSON
    escape can spell.
    """
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
