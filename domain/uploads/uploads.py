"""Uploaded files: their wire form, their names, and how a browser may be given them."""

import re
import unicodedata
from urllib.parse import quote

from pydantic import with_config
from typing_extensions import TypedDict

from domain.text import why_not_plain
from domain.uploads.pictures import ImageSize

MAX_NAME = 255
"""Bytes of a file's name in UTF-8: what file systems take."""

OCTET_STREAM = "application/octet-stream"

INLINE = frozenset(
    {
        "audio/flac",
        "audio/mp4",
        "audio/mpeg",
        "audio/ogg",
        "audio/wav",
        "audio/webm",
        "image/avif",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "text/plain",
        "video/mp4",
        "video/ogg",
        "video/webm",
    }
)
"""Types a browser shows without running anything. Everything else is saved, not shown."""


@with_config(extra="forbid")
class Upload(TypedDict):
    """An uploaded file, as it is kept. `size` is in bytes, `sha256` in hexadecimal."""

    id: str
    owner: str
    name: str
    content_type: str
    size: int
    sha256: str
    image: ImageSize | None
    """Of a picture that can be shown: it has thumbnails too."""
    conversation: str | None
    created_at: str


@with_config(extra="forbid")
class UploadPage(TypedDict):
    """A page of the caller's uploads, newest first, and what is left of the quota."""

    items: list[Upload]
    next: str | None
    used: int
    quota: int


@with_config(extra="forbid")
class UploadRemoved(TypedDict):
    """The upload that is no longer there."""

    id: str


LOOKED_AT = 500
"""Characters at the beginning and at the end of a file's name that are looked at; sorting a run of
marks takes the square of its length.
"""


def clean_name(given: str | None) -> str:
    """A file's name that is safe to show and to offer for saving.

    Only the last part of a path stays, in NFC, without control, format and surrogate characters
    (NUL, line ends, direction overrides that disguise an extension), without leading dots and at
    most `MAX_NAME` bytes, cut before the extension. What leaves nothing is `file`.
    """
    text = (given or "").replace("\\", "/").rpartition("/")[2]
    if len(text) > 2 * LOOKED_AT:
        text = text[:LOOKED_AT] + text[-LOOKED_AT:]
    text = unicodedata.normalize("NFC", text)
    text = "".join(each for each in text if unicodedata.category(each)[0] != "C")
    text = text.replace("\\", "/").rpartition("/")[2]
    text = " ".join(text.split()).lstrip(". ").rstrip(". ")
    if why_not_plain(text) is not None or not text:
        return "file"
    stem, dot, extension = text.rpartition(".")
    if not stem or len(extension.encode()) > 32:
        stem, dot, extension = text, "", ""
    room = MAX_NAME - len((dot + extension).encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(". ") + dot + extension


def disposition(content_type: str, name: str, *, attachment: bool) -> str:
    """The `Content-Disposition` of a download (RFC 6266, with `filename*` of RFC 8187).

    Types that are not in `INLINE` are an attachment whatever was asked for.
    """
    kind = "attachment" if attachment or content_type not in INLINE else "inline"
    plain = "".join(
        each if " " <= each <= "~" and each not in '"\\%' else "_"
        for each in unicodedata.normalize("NFKD", name)
        if not unicodedata.combining(each)
    )
    value = f'{kind}; filename="{plain}"'
    if plain != name:
        # RFC 8187's attr-char: what quote() leaves, and these.
        value += f"; filename*=UTF-8''{quote(name, safe='!#$&+^`|')}"
    return value


_UPLOAD = re.compile(r"(?:/[^?#]*)?/api/v1/uploads/([^/?#]+)(?:[?#].*)?\Z")


def upload_of(path: str | None) -> str | None:
    """The upload that a path of this server leads to, if it is that of one."""
    found = _UPLOAD.match(path) if path is not None and path.startswith("/") else None
    return found[1] if found is not None else None


def renamed(name: str, content_type: str) -> str:
    """A file's name with the extension that JPEG and WebP have."""
    extension = {"image/jpeg": ".jpg", "image/webp": ".webp"}[content_type]
    return name.rpartition(".")[0][: MAX_NAME - 8] + extension if "." in name else name + extension
