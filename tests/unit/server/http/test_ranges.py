"""Conditional and range requests (RFC 9110)."""

import pytest

from server.http.ranges import Span, UnsatisfiableRange, Validators

MADE = 1_767_225_600.9
"""2026-01-01T00:00:00.9Z"""
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
ONE = Validators.of("abc", MADE)


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", Span(0, 1)),
        ("bytes=0-99", Span(0, 100)),
        ("bytes=10-19", Span(10, 10)),
        ("bytes=90-", Span(90, 10)),
        ("bytes=90-1000", Span(90, 10)),
        ("bytes=-5", Span(95, 5)),
        ("bytes=-500", Span(0, 100)),
        ("Bytes=1-2", Span(1, 2)),
        # Malformed or not supported: everything.
        ("", None),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,5-6", None),
        ("bytes=a-b", None),
        ("items=0-1", None),
        ("bytes=١-٢", None),
        ("bytes=" + "9" * 50 + "-", None),
    ],
)
def test_ranges(header: str, span: Span | None) -> None:
    assert ONE.span({"Range": header}, 100) == span


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_behind_the_end(header: str) -> None:
    with pytest.raises(UnsatisfiableRange):
        ONE.span({"Range": header}, 100)


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [
        ('"abc"', True),
        ('W/"abc"', False),
        ('"other"', False),
        (DATE, True),
        ("Thu, 01 Jan 2026 00:00:01 GMT", False),
        ("yesterday", False),
    ],
)
def test_a_range_of_something_else_is_answered_with_all(if_range: str, applies: bool) -> None:
    span = ONE.span({"Range": "bytes=0-9", "If-Range": if_range}, 100)
    assert (span is not None) is applies


@pytest.mark.parametrize(
    ("headers", "has_it"),
    [
        ({}, False),
        ({"If-None-Match": '"abc"'}, True),
        ({"If-None-Match": 'W/"abc"'}, True),
        ({"If-None-Match": '"x", "abc"'}, True),
        ({"If-None-Match": "*"}, True),
        ({"If-None-Match": '"x"'}, False),
        ({"If-None-Match": '"x"', "If-Modified-Since": DATE}, False),
        ({"If-Modified-Since": DATE}, True),
        ({"If-Modified-Since": "Wed, 31 Dec 2025 23:59:59 GMT"}, False),
        ({"If-Modified-Since": "nonsense"}, False),
    ],
)
def test_conditions(headers: dict[str, str], has_it: bool) -> None:
    assert ONE.not_modified(headers) is has_it


def test_validators_as_headers() -> None:
    assert ONE.headers() == {"ETag": '"abc"', "Last-Modified": DATE}
