"""Words take as long as their text, whatever it is made of."""

import time

import pytest

from domain.uploads.uploads import clean_name
from domain.words import folded, words

MARKS = ["\u0301\u0316", "\u0301\u0334", "\u3099\u302e", "\u0f73\u0f75", "\u1b44\u3099"]
"""Pairs that Unicode sorts; of each a run that takes a minute where all of it is sorted."""


@pytest.mark.parametrize("pair", MARKS)
def test_a_run_of_marks_holds_nobody_up(pair: str) -> None:
    began = time.perf_counter()
    found = words("one " + "a" + pair * 100_000 + " two")
    name = clean_name("a" + pair * 100_000 + ".txt")
    assert time.perf_counter() - began < 10
    assert (found[0], found[-1]) == ("one", "two")
    assert name.endswith(".txt")


def test_marks_make_no_other_words() -> None:
    assert folded("Å\u0316e\u0301 Łódź") == "ae lodz"
    assert words("が") == words("か\u3099") != words("か")
