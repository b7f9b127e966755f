"""Types by content: what is declared is believed only as far as the bytes bear it out."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Invalid
from domain.uploads.media import HEAD, content_type, is_text
from domain.uploads.uploads import INLINE, OCTET_STREAM

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100)
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(50)
GIF = b"GIF89a" + b"\1" * 50
WEBP = b"RIFF\0\0\0\0WEBPVP8 " + bytes(50)
AVIF = b"\0\0\0\x1cftypavif\0\0\0\0" + bytes(50)
MP4 = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(50)
M4A = b"\0\0\0\x20ftypM4A \0\0\2\0isomiso2avc1mp41" + bytes(50)
MP3 = b"ID3\3\0\0\0\0\0\0" + bytes(50)
OGG = b"OggS\0\2" + bytes(20) + b"\x01vorbis"
WEBM = b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webmB\x87"
WAV = b"RIFF\0\0\0\0WAVEfmt " + bytes(30)
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + b"x" * 50
HTML = b"<!DOCTYPE html><html><script>alert(1)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
UNKNOWN = bytes(range(100, 180))


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "hi")
    return out.getvalue()


ZIP = _zip()


@pytest.mark.parametrize(
    ("head", "declared", "kept"),
    [
        (PNG, "image/png", "image/png"),
        (PNG, "IMAGE/PNG; charset=binary", "image/png"),
        (PNG, None, "image/png"),
        (PNG, OCTET_STREAM, "image/png"),
        (JPEG, "image/jpg", "image/jpeg"),
        (GIF, "image/gif", "image/gif"),
        (WEBP, "image/webp", "image/webp"),
        (AVIF, "image/avif", "image/avif"),
        (AVIF, None, "image/avif"),
        (MP4, "video/mp4", "video/mp4"),
        (M4A, "audio/x-m4a", "audio/mp4"),
        (MP3, "audio/mp3", "audio/mpeg"),
        (OGG, "audio/ogg", "audio/ogg"),
        (WEBM, "audio/webm", "audio/webm"),
        (WEBM, "video/webm", "video/webm"),
        (WAV, "audio/x-wav", "audio/wav"),
        (PDF, "application/pdf", "application/pdf"),
        (ZIP, "application/x-zip-compressed", "application/zip"),
        (ZIP, None, "application/zip"),
        (
            ZIP,
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        (HTML, "text/html", "text/html"),
        (HTML, None, "text/html"),
        (SVG, "image/svg+xml", "image/svg+xml"),
        (b"hello", "text/plain; charset=utf-8", "text/plain"),
        (b"BM is a car", "text/plain", "text/plain"),
        (b"a,b\n1,2\n", "text/csv", "text/csv"),
        (b'{"a": 1}', "application/json", "application/json"),
        (b"hello", None, OCTET_STREAM),
        (b"<p>only a piece", "text/html", OCTET_STREAM),
        (b"alert(1)", "text/javascript", OCTET_STREAM),
        (UNKNOWN, None, OCTET_STREAM),
        (UNKNOWN, "image/png", OCTET_STREAM),
        (UNKNOWN, "text/plain", OCTET_STREAM),
        (UNKNOWN, "application/x-nobody-knows", OCTET_STREAM),
    ],
)
def test_what_the_content_bears_out_is_kept(head: bytes, declared: str | None, kept: str) -> None:
    assert content_type(head, declared) == kept


@pytest.mark.parametrize(
    ("head", "declared"),
    [
        (HTML, "image/png"),
        (SVG, "image/png"),
        (b"alert(1)", "image/png"),
        (PNG, "image/jpeg"),
        (PNG, "text/plain"),
        (PDF, "image/png"),
        (ZIP, "image/png"),
        (MP4, "image/gif"),
    ],
)
def test_what_is_evidently_something_else_is_refused(head: bytes, declared: str) -> None:
    with pytest.raises(Invalid, match="is declared as"):
        content_type(head, declared)


@given(st.binary(max_size=64), st.sampled_from(sorted(INLINE - {"text/plain"})))
def test_no_text_is_ever_taken_for_something_shown_inline(data: bytes, declared: str) -> None:
    head = b"<script>alert(1)</script>" + data
    try:
        kept = content_type(head, declared)
    except Invalid:
        return
    assert kept == OCTET_STREAM


def test_text_cut_in_the_middle_of_a_character_is_text() -> None:
    text = "ä".encode() * HEAD
    assert is_text(b"x" + text[: HEAD - 1])
    assert not is_text(b"x" + "ä".encode()[:1])
    assert not is_text(b"a\0b")
