"""The first line of a message on the Redis bus."""

import pytest

from fanout.redis.header import read_header, write_header


@pytest.mark.parametrize("for_all", [False, True])
def test_a_header_is_one_line_that_says_who_published_and_for_whom(for_all: bool) -> None:
    line, end, rest = write_header("n1", all=for_all).partition(b"\n")
    assert (end, rest) == (b"\n", b"")
    assert read_header(line) == (True, "n1", for_all)


@pytest.mark.parametrize(
    "line", [b"", b"{", b"\xff", b"[]", b"1", b"{}", b'{"parley":2,"node":"n1"}']
)
def test_what_is_of_another_version_or_none_is_not_readable(line: bytes) -> None:
    assert not read_header(line).readable
