"""Packets: both directions, and nothing but a clean refusal for what is none."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.transport import packets
from server.transport.frames import split_frames
from server.transport.packets import MalformedPacket

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10)
VALUES = st.recursive(
    SCALARS | st.binary(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=5).filter(lambda k: k != "_placeholder"), inner, max_size=3
        )
    ),
    max_leaves=10,
)


@given(
    st.lists(VALUES, max_size=4),
    st.sampled_from(["/", "/chat", "/a/b"]),
    st.sampled_from([b"", b"0", b"12345"]),
)
def test_events_survive_the_way_there_and_back(args: list[Any], namespace: str, ack: bytes) -> None:
    frames = packets.encode_arguments(packets.EVENT, namespace, ack, ["said", *args])
    (_, head), *rest = split_frames(frames)
    assert head[:1] == b"4"
    if len(rest) > packets.MAX_ATTACHMENTS:
        return
    incoming = packets.decode(head[1:])
    assert (incoming.namespace, incoming.ack) == (namespace, ack)
    assert incoming.attachments == len(rest)
    if rest:
        packets.fill_attachments(incoming.data, [payload for _, payload in rest])
    assert incoming.data == ["said", *args]


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_malformed(junk: bytes) -> None:
    for start in (b"", b"0", b"1", b"2", b"3", b"5", b"6", b"51-", b"2/chat,", b"2["):
        with contextlib.suppress(MalformedPacket):
            packets.decode(start + junk)


def test_an_event_with_its_argument_already_encoded() -> None:
    frame = packets.encode_event("/chat", "said", b'{"a":1}')
    assert list(split_frames(frame)) == [(False, b'42/chat,["said",{"a":1}]')]
    assert list(split_frames(packets.encode_event("/", "said", b"1"))) == [(False, b'42["said",1]')]


def test_placeholders_in_a_structure_as_deep_as_the_parser_allows() -> None:
    text = b'51-["said",' + b"[" * 900 + b'{"_placeholder":true,"num":0}' + b"]" * 900 + b"]"
    incoming = packets.decode(text)
    packets.fill_attachments(incoming.data, [b"deep"])
    value = incoming.data[1]
    for _ in range(900):
        (value,) = value
    assert value == b"deep"


def test_what_cannot_be_sent_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        packets.encode_arguments(packets.EVENT, "/", b"", ["said", object()])


def test_a_polling_payload_has_binary_in_base64() -> None:
    frames = packets.encode_arguments(packets.ACK, "/", b"7", [b"\x01\x02"])
    assert packets.encode_payload([packets.PING_FRAME, frames]) == (
        b'2\x1e461-7[{"_placeholder":true,"num":0}]\x1ebAQI='
    )


def test_the_open_packet() -> None:
    text = packets.open_packet("abc", ["websocket"], packets.Handshake(25.0, 20.0, 65536))
    assert json.loads(text[1:]) == {
        "sid": "abc",
        "upgrades": ["websocket"],
        "pingInterval": 25000,
        "pingTimeout": 20000,
        "maxPayload": 65536,
    }
