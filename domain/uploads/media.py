"""What a file is, by its first bytes: the type its sender declares is a claim, not a fact."""

import codecs
from typing import NamedTuple

import puremagic

from domain.errors import Invalid
from domain.uploads.uploads import OCTET_STREAM

HEAD = 64 * 1024
"""Bytes from the beginning that are looked at."""

_CANONICAL = {
    "application/vnd.microsoft.icon": "image/x-icon",
    "application/x-gzip": "application/gzip",
    "application/x-pdf": "application/pdf",
    "application/x-zip-compressed": "application/zip",
    "audio/mp3": "audio/mpeg",
    "audio/vnd.wave": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/x-flac": "audio/flac",
    "audio/x-m4a": "audio/mp4",
    "audio/x-mpeg": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/vnd.microsoft.icon": "image/x-icon",
    "image/x-bmp": "image/bmp",
    "image/x-ms-bmp": "image/bmp",
    "image/x-png": "image/png",
    "text/xml": "application/xml",
    "video/x-m4v": "video/mp4",
}
"""Other names that browsers and systems use for a type, and the one used here."""

_BY_EXTENSION = {
    ".m4a": "audio/mp4",
    ".3gp": "video/3gpp",
    ".zip": "application/zip",
    ".oga": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
}
"""Types of signatures that the library knows by extension only."""

_FAMILIES = (
    frozenset({"application/ogg", "audio/ogg", "video/ogg", "audio/opus"}),
    frozenset({"audio/webm", "video/webm"}),
    frozenset({"audio/x-matroska", "video/x-matroska", "application/x-matroska"}),
    frozenset({"audio/mp4", "video/mp4", "video/quicktime", "video/3gpp", "audio/3gpp"}),
    frozenset({"image/heic", "image/heif"}),
)
"""Containers whose first bytes do not tell sound from pictures: the declared one is believed."""

_SIGNED_TEXT = frozenset(
    {"text/html", "image/svg+xml", "application/xml", "application/xhtml+xml", "application/rtf"}
)
"""Text that has a signature."""

_PLAIN = frozenset({"text/plain", "text/csv", "text/markdown", "application/json"})
"""Text without a signature that no browser runs: believed of anything that is text."""

_TEXTUAL = frozenset(
    {"application/javascript", "application/x-sh", "application/yaml", "application/x-yaml"}
)

_PREFERRED = ("image/avif", "image/heic", "application/zip")
"""Named before the others when several types share a signature."""

_PDF = "application/pdf"

_STRONG = 3
"""Bytes a signature must have to say what an undeclared file is, or that a declaration is wrong."""


class _Match(NamedTuple):
    content_type: str
    length: int


def content_type(head: bytes, declared: str | None) -> str:
    """The type to store a file under.

    Args:
        head: the file's first bytes, `HEAD` of them or all.
        declared: the type its sender gave, parameters and all; None or `application/octet-stream`
            for no statement.

    Returns:
        The declared type if the content bears it out, what was recognised if nothing was declared,
        and `application/octet-stream` for what cannot be recognised.

    Raises:
        Invalid: the content is evidently something else than declared.
    """
    claim = _canonical(declared) if declared else OCTET_STREAM
    found = _matches(head)
    text = is_text(head)
    if any(_agrees(claim, match.content_type) for match in found):
        return claim
    if _is_textual(claim) and text:
        return claim if claim in _PLAIN else OCTET_STREAM
    strong = [match for match in found if match.length >= _STRONG and not _only_text(match, text)]
    if claim == OCTET_STREAM:
        return _best(strong) if strong else OCTET_STREAM
    if strong or (text and _has_signature(claim)):
        what = _best(strong) if strong else "text"
        raise Invalid.field("file", f"is declared as {claim[:100]} but is {what}")
    return OCTET_STREAM


def is_text(head: bytes) -> bool:
    """Whether these first bytes are those of UTF-8 text without control characters."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < HEAD)
    except UnicodeDecodeError:
        return False
    return not any(each < " " and each not in "\t\n\r\f\x1b" for each in text)


def _canonical(declared: str) -> str:
    name = declared.partition(";")[0].strip().lower()
    return _CANONICAL.get(name, name) or OCTET_STREAM


def _matches(head: bytes) -> list[_Match]:
    if not head:
        return []
    try:
        raw = puremagic.magic_string(head)
    except puremagic.PureError:
        return []
    found = []
    for each in raw:
        name = each.mime_type or _BY_EXTENSION.get(each.extension.lower(), "")
        if name and name != OCTET_STREAM:
            found.append(_Match(_canonical(name), len(each.byte_match)))
    return found


def _best(found: list[_Match]) -> str:
    names = [match.content_type for match in found]
    return next((each for each in _PREFERRED if each in names), names[0])


def _agrees(claim: str, recognised: str) -> bool:
    return claim == recognised or any(claim in one and recognised in one for one in _FAMILIES)


def _is_textual(name: str) -> bool:
    return (
        name.startswith("text/")
        or name in _PLAIN
        or name in _TEXTUAL
        or name in _SIGNED_TEXT
        or name.endswith(("+json", "+xml"))
    )


def _only_text(match: _Match, text: bool) -> bool:
    """Whether a match is a guess about the words of a text: those are no signature."""
    return text and match.content_type not in _SIGNED_TEXT and match.content_type != _PDF


def _has_signature(name: str) -> bool:
    return name.startswith(("image/", "audio/", "video/", "font/")) or name in {
        _PDF,
        "application/gzip",
        "application/zip",
    }
