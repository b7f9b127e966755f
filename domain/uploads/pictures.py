"""Pictures as files: taking out what they say of whoever took them, without touching a pixel.

JPEG, PNG, WebP and GIF are made of pieces. What a piece is for stands at its beginning, so those
that are no part of the image (EXIF with its coordinates and serial numbers, XMP, IPTC, comments,
whatever was appended to the file) can be left out, and the others stay as they came: nothing is
decoded, nothing loses quality, animations stay whole.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, NotRequired
from zlib import crc32

from pydantic import with_config
from typing_extensions import TypedDict

KINDS = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
"""Types whose metadata is taken out, and that have thumbnails."""

SizeName = Literal["small", "medium", "large"]

SIZES: dict[SizeName, int] = {"small": 160, "medium": 480, "large": 1280}
"""Pixels of a thumbnail's longer edge."""


@with_config(extra="forbid")
class ImageSize(TypedDict):
    """What is known of a picture that can be shown. Pixels, as it is to be seen: turned upright."""

    width: int
    height: int
    animated: NotRequired[bool]


class Damaged(ValueError):
    """It is not built as its type says."""


class Bare(NamedTuple):
    """A picture without metadata."""

    data: bytes
    exif: bytes
    """What was taken out that says which way is up; empty if nothing did."""


def bare(kind: str, data: bytes) -> Bare:
    """A picture of one of `KINDS` without its metadata.

    Colour profiles stay: without them the colours would be others. What is cut short is cut short
    afterwards too.

    Raises:
        Damaged: what it consists of cannot be told.
    """
    return _WALKS[kind](data)


# -- which way is up ------------------------------------------------------------------------------

_ORIENTATION = 0x0112
_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}


def orientation(exif: bytes) -> int:
    """Which way is up according to an EXIF note, 1 to 8; 1 if it does not say.

    Nothing else of it is read: whatever a library makes of the other entries costs memory and lines
    in the log, of which the sender chooses how many.
    """
    note = exif[exif.find(b"\0") :].lstrip(b"\0") if exif.startswith(b"Exif\0") else exif
    order = _BYTE_ORDERS.get(note[:4])
    if order is None:
        return 1
    start = int.from_bytes(note[4:8], order)
    for number in range(int.from_bytes(note[start : start + 2], order)):
        at = start + 2 + 12 * number
        entry = note[at : at + 12]
        if len(entry) < 12:
            break
        if int.from_bytes(entry[:2], order) == _ORIENTATION:
            # A short number, in the first two of the bytes for its value.
            value = int.from_bytes(entry[8:10], order)
            short = int.from_bytes(entry[2:4], order) == 3
            return value if short and 1 <= value <= 8 else 1
    return 1


def with_orientation(kind: str, data: bytes, up: int) -> bytes:
    """A JPEG, PNG or WebP without metadata, with a note of which way is up and no other."""
    note = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes((0, up)) + bytes(6)
    if kind == "image/jpeg":
        body = b"Exif\0\0" + note
        return data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]
    if kind == "image/png":
        checked = b"eXIf" + note
        chunk = len(note).to_bytes(4, "big") + checked + crc32(checked).to_bytes(4, "big")
        return data[:_PNG_HEAD] + chunk + data[_PNG_HEAD:]
    chunks = [
        _chunk(name, bytes((body[0] | _EXIF,)) + body[1:] if name == b"VP8X" else body)
        for name, body in _riff(data, 12)
    ]
    content = b"".join((b"WEBP", *chunks, _chunk(b"EXIF", note)))
    return b"RIFF" + len(content).to_bytes(4, "little") + content


# -- JPEG -----------------------------------------------------------------------------------------

_SEGMENT_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""What ends the compressed pixels: a marker that is neither an escaped 0xFF nor a restart. Any number
of 0xFF may stand before it, and are not looked for: a run of them would be read anew from each.
"""

MAX_SCANS = 100
"""Of one JPEG. Progressive ones have some ten; each makes the decoder go over all pixels anew, and
costs its sender a few bytes."""

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a length."""


def _bare_jpeg(data: bytes) -> Bare:
    if data[:2] != b"\xff\xd8":
        raise Damaged
    kept = [data[:2]]
    exif = b""
    at, scans = 2, 0
    while at < len(data):
        if data[at] != 0xFF:
            raise Damaged
        while at < len(data) and data[at] == 0xFF:  # any number of them may fill
            at += 1
        if at >= len(data):
            break
        marker, at = data[at], at + 1
        if marker == _EOI:
            # What follows is not the image: previews and films of phones, with metadata of theirs.
            kept.append(b"\xff\xd9")
            break
        if marker in _ALONE:
            continue
        if marker in {0x00, _SOI} or at + 2 > len(data):
            raise Damaged
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2:
            raise Damaged
        body = data[at + 2 : at + length]
        if _belongs_to_jpeg(marker, body):
            kept += (bytes((0xFF, marker)), data[at : at + length])
        elif marker == 0xE1 and body.startswith(b"Exif\0"):
            exif = exif or body
        at += length
        if marker == _SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise Damaged
            found = _SEGMENT_END.search(data, at)
            end = found.start() if found else len(data)
            kept.append(data[at:end])
            at = end
    if not scans:
        raise Damaged
    return Bare(b"".join(kept), exif)


def _belongs_to_jpeg(marker: int, body: bytes) -> bool:
    if marker == 0xFE:  # a comment
        return False
    if not 0xE0 <= marker <= 0xEF:
        return True
    return (
        (marker == 0xE0 and body.startswith(b"JFIF\0"))
        or (marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"))
        or (marker == 0xEE and body.startswith(b"Adobe"))  # how its colours are meant
    )


# -- PNG ------------------------------------------------------------------------------------------

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD = len(_PNG) + 25
"""Bytes up to the end of the first chunk, IHDR."""

_PNG_CHUNKS = frozenset(
    b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV cLLI bKGD hIST pHYs sPLT "
    b"acTL fcTL fdAT".split()
)
"""Chunks that make the image: its pixels, its colours, its animation."""


def _bare_png(data: bytes) -> Bare:
    if not data.startswith(_PNG) or data[12:16] != b"IHDR":
        raise Damaged
    kept = [_PNG]
    exif = b""
    at, pixels = len(_PNG), False
    while at + 8 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if length >= 1 << 31 or not name.isalpha():
            raise Damaged
        if name in _PNG_CHUNKS:
            kept.append(data[at : at + 12 + length])
        elif name == b"eXIf":
            exif = b"Exif\0\0" + data[at + 8 : at + 8 + length]
        pixels = pixels or name == b"IDAT"
        at += 12 + length
        if name == b"IEND":
            break
    if not pixels:
        raise Damaged
    return Bare(b"".join(kept), exif)


# -- WebP -----------------------------------------------------------------------------------------

_WEBP_CHUNKS = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
_EXIF = 0x08
_EXIF_AND_XMP = 0x0C
"""The bits of VP8X that say that there is some."""
_FRAME = 16
"""Bytes before the chunks of an animation's frame."""


def _bare_webp(data: bytes) -> Bare:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise Damaged
    kept = []
    exif = b""
    for name, body in _riff(data, 12):
        if name == b"VP8X" and body:
            kept.append(_chunk(name, bytes((body[0] & ~_EXIF_AND_XMP,)) + body[1:]))
        elif name == b"ANMF":
            inner = [_chunk(*each) for each in _riff(body, _FRAME) if each[0] in _WEBP_CHUNKS]
            kept.append(_chunk(name, body[:_FRAME] + b"".join(inner)))
        elif name in _WEBP_CHUNKS:
            kept.append(_chunk(name, body))
        elif name == b"EXIF":
            exif = body if body.startswith(b"Exif\0") else b"Exif\0\0" + body
    if not kept:
        raise Damaged
    content = b"WEBP" + b"".join(kept)
    return Bare(b"RIFF" + len(content).to_bytes(4, "little") + content, exif)


def _riff(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2)


# -- GIF ------------------------------------------------------------------------------------------

_REPEATS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
"""The extensions that say how often an animation is played."""


def _bare_gif(data: bytes) -> Bare:
    if data[:6] not in {b"GIF87a", b"GIF89a"} or len(data) < 13:
        raise Damaged
    at = 13 + _colours(data[10])
    kept = [data[:at]]
    images = 0
    while at < len(data):
        start, what = at, data[at]
        if what == 0x3B:
            kept.append(b"\x3b")
            break
        if what == 0x2C:
            if start + 10 > len(data):
                break
            at = _blocks_end(data, start + 10 + _colours(data[start + 9]) + 1)
            images += 1
            keep = True
        elif what == 0x21 and start + 2 < len(data):
            label = data[start + 1]
            at = _blocks_end(data, start + 2)
            keep = label == 0xF9 or (label == 0xFF and data[start + 3 : start + 14] in _REPEATS)
        else:
            raise Damaged
        if keep:
            kept.append(data[start:at])
    if not images:
        raise Damaged
    return Bare(b"".join(kept), b"")


def _colours(flags: int) -> int:
    """Bytes of the table of colours that these flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _blocks_end(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


_WALKS = {
    "image/gif": _bare_gif,
    "image/jpeg": _bare_jpeg,
    "image/png": _bare_png,
    "image/webp": _bare_webp,
}
