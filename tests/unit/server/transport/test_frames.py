"""Frames: what comes in pieces comes out whole."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.transport.frames import (
    BINARY,
    PASSED_OVER,
    TEXT,
    FrameError,
    FrameReader,
    binary_frame,
    split_frames,
    text_frame,
    unmask,
)
from tests.integration.transport.clients import frame


@given(
    st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), st.binary(max_size=300)), max_size=8),
    st.data(),
)
def test_messages_survive_any_cut(messages: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join([frame(payload, opcode) for opcode, payload in messages])
    reader = FrameReader(1000)
    got: list[tuple[int, bytes]] = []
    position = 0
    while position < len(stream):
        size = data.draw(st.integers(1, 200))
        reader.feed(stream[position : position + size])
        position += size
        got += reader.messages()
    assert got == messages


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=6))
def test_fragments_are_one_message(parts: list[bytes]) -> None:
    reader = FrameReader(1000)
    for index, part in enumerate(parts):
        reader.feed(frame(part, 0 if index else TEXT, fin=index == len(parts) - 1))
    assert [message for message in reader.messages() if message[0]] == [(TEXT, b"".join(parts))]


def test_the_reader_may_be_left_and_taken_up_again() -> None:
    reader = FrameReader(1000)
    reader.feed(frame(b"1") + frame(b"2") + frame(b"3"))
    for message in reader.messages():
        assert message == (TEXT, b"1")
        break
    reader.feed(frame(b"4"))
    assert [payload for _, payload in reader.messages()] == [b"2", b"3", b"4"]


@given(st.binary(max_size=500))
def test_no_bytes_raise_anything_but_a_frame_error(junk: bytes) -> None:
    reader = FrameReader(1000)
    reader.feed(junk)
    with contextlib.suppress(FrameError):
        list(reader.messages())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 70000])
def test_server_frames_of_every_length(size: int) -> None:
    payload = b"x" * size
    assert list(split_frames(text_frame(payload) + binary_frame(payload))) == [
        (False, payload),
        (True, payload),
    ]


@given(st.binary(max_size=100), st.binary(min_size=4, max_size=4))
def test_unmask(payload: bytes, mask: bytes) -> None:
    assert unmask(payload, mask) == bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


@given(
    st.lists(st.binary(max_size=400), min_size=1, max_size=6),
    st.booleans(),
    st.lists(st.integers(1, 200), min_size=1, max_size=50),
)
def test_what_is_too_large_is_taken_or_passed_over_whatever_the_cuts(
    parts: list[bytes], take: bool, cuts: list[int]
) -> None:
    parts = [b"40" + parts[0], *parts[1:]]
    whole = b"".join(parts)
    asked: list[tuple[bytes, int]] = []

    def admit(opcode: int, start: bytes, size: int) -> bool:
        assert opcode == TEXT
        asked.append((start, size))
        return take

    last = len(parts) - 1
    stream = b"".join(
        [
            frame(part, 0 if n else TEXT, fin=n == last) + frame(b"", 9)
            for n, part in enumerate(parts)
        ]
    ) + frame(b"next")
    reader = FrameReader(300, admit)
    got: list[tuple[int, bytes]] = []
    position = turn = 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        reader.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
        got += [each for each in reader.messages() if each[0] not in (0, 9)]
    expected = (TEXT, whole) if take or len(whole) <= 300 else (PASSED_OVER, whole[:256])
    assert got == [expected, (TEXT, b"next")]
    assert bool(asked) == (len(whole) > 300)
    assert {start for start, _ in asked} <= {b"40"}
