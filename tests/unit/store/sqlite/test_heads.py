"""Heads kept in memory are never older than what the file shows."""

from domain.streams import Head
from store.sqlite.cache import Heads, Place


def place(seq: int) -> Place:
    return Place(1, "org", Head("epoch", seq, 0))


def test_a_stream_is_unknown_while_a_commit_moves_it() -> None:
    heads = Heads(10)
    heads.publish([("a", place(1)), ("b", place(1))])
    heads.forget(["a"])
    assert heads.get("a") is None
    assert heads.get("b") == place(1)
    heads.offer(heads.generation, "a", place(1))  # read from the file before the commit was seen
    assert heads.get("a") is None
    heads.publish([("a", place(2))])
    heads.offer(heads.generation, "a", place(1))
    assert heads.get("a") == place(2)


def test_a_commit_that_fails_leaves_the_stream_to_be_read() -> None:
    heads = Heads(10)
    heads.publish([("a", place(1))])
    heads.forget(["a"])
    heads.unchanged()
    assert heads.get("a") is None
    heads.offer(heads.generation, "a", place(1))
    assert heads.get("a") == place(1)
