"""What a password is worth to somebody who tries likely ones first: its parts that are known hardly
count. Passwords like `Passw0rd!` and `Parley2026` are on no list, and among the first guesses.
"""

from collections.abc import Set

PART = 2
"""What a known part of any length counts for, in characters that nobody knows."""

MOST = 64
"""Characters that are looked at: a longer password is not made of few known parts."""

LEAST_PART, LEAST_ROW = 3, 4
"""Characters of a known part; of a row of keys that are no digits: words have shorter ones."""
_LONGEST_WORD = 20

_ROWS = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiop",
    "qwertzuiop",
    "azertyuiop",
    "asdfghjkl",
    "qsdfghjklm",
    "zxcvbnm",
    "yxcvbnm",
    "1q2w3e4r5t6y7u8i9o0p",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    '!"\u00a7$%&/()=',
    "!@#$%^&*()",
)
_RUNS = frozenset(
    run[start:end]
    for row in _ROWS
    for run in (row, row[::-1])
    for start in range(len(run))
    for end in range(start + LEAST_PART, len(run) + 1)
    if end - start >= LEAST_ROW or run[start:end].isdecimal()
)

_READINGS = (
    str.maketrans("013456789@$!|", "oleasgtbgasil"),
    str.maketrans("013456789@$!|", "oieasgtbgasii"),
)
"""Digits and signs that stand for letters; 1 and | for either of two."""


def worth(folded: str, *, known: Set[str], common: Set[str]) -> int:
    """How many unknown characters a case-folded password is worth: the least over all ways to cut
    it into parts. A known part (a word, a year, a row of keys) counts `PART`, any other character 1.
    """
    text = folded[:MOST]
    readings = {text, *(text.translate(table) for table in _READINGS)}
    least = [0]
    for end in range(1, len(text) + 1):
        best = least[end - 1] + 1
        for start in range(max(0, end - _LONGEST_WORD), end - LEAST_PART + 1):
            if least[start] + PART < best and _is_part(
                {each[start:end] for each in readings}, text[start:end], known, common
            ):
                best = least[start] + PART
        least.append(best)
    return least[-1] + len(folded) - len(text)


def _is_part(readings: Set[str], written: str, known: Set[str], common: Set[str]) -> bool:
    if written in _RUNS or not readings.isdisjoint(known) or not readings.isdisjoint(common):
        return True
    return len(written) == 4 and written.isdecimal() and written[:2] in {"19", "20"}
