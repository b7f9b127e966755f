"""Kinds of values on the command lines."""

import argparse
from collections.abc import Sequence


class names:  # noqa: N801
    """Reads names separated by commas, all of which must be known."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def __call__(self, text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",") if name.strip()]
        for name in chosen:
            if name not in self._known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(self._known)}")
        return [name for name in self._known if name in chosen]


def sizes(text: str) -> tuple[int, ...]:
    """Reads numbers from 1 on, separated by commas; gives them in ascending order."""
    try:
        found = tuple(sorted({int(each) for each in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers") from None
    if found[0] < 1:
        raise argparse.ArgumentTypeError(f"{found[0]} is less than 1")
    return found
