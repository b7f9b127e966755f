"""Rules for text that people write."""

import re

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_LINES_AND_TABS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def has_control_characters(text: str, *, newlines: bool = True) -> bool:
    """Whether the text holds control characters (Unicode category Cc).

    Args:
        newlines: line ends (also CR LF) and tabs are text; nothing else is.
    """
    pattern = _CONTROL_BUT_LINES_AND_TABS if newlines else _CONTROL
    return pattern.search(text) is not None


def is_encodable(text: str) -> bool:
    """Whether the text can be written as UTF-8: it has no half of a surrogate pair, which a JSON
    escape can spell.
    """
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
