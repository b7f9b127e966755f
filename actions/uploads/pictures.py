"""Uploaded pictures: their metadata taken out, turned upright, and made small.

Pillow decodes them, in a thread of its own and one at a time, and never the metadata: of that it is
given what says which way is up. How many pixels there would be is looked at before any is decoded.
"""

import asyncio
import io
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from actions.turns import Turns
from domain.uploads.pictures import (
    SIZES,
    Damaged,
    ImageSize,
    SizeName,
    bare,
    orientation,
    with_orientation,
)

# This server's own bound counts; theirs would warn in the log of what is refused anyway.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

MAX_BYTES = 64 * 1024 * 1024
"""Bytes of a picture that is looked at: as much is held in memory."""

MAX_WAITING = 32
"""Pictures that may wait for the thread."""

TURNED_PIXELS = {"image/jpeg": 25_000_000, "image/png": 25_000_000, "image/webp": 8_000_000}
"""Up to so many pixels are turned themselves; that needs room for them twice, and WebP's encoder takes
48 bytes and up to a microsecond for each. In larger files a note of which way is up stays, and
nothing else."""

PROFILE = 16 * 1024
"""Bytes of a colour profile that thumbnails take over."""

BUSY = "Too many pictures are being looked at; try again in a moment."

_FORMATS = {
    "image/gif": GifImagePlugin.GifImageFile.format,
    "image/jpeg": JpegImagePlugin.JpegImageFile.format,
    "image/png": PngImagePlugin.PngImageFile.format,
    "image/webp": WebPImagePlugin.WebPImageFile.format,
}
"""The decoders that are used: no other is even loaded."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small form of a picture."""

    data: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Picture:
    """What becomes of an uploaded picture."""

    data: bytes | None
    """The file to keep; None: as it came."""
    shown: bool = True
    """Whether it may be given to browsers as a picture."""
    image: ImageSize | None = None
    """None if it cannot be decoded, or is not to be."""
    thumbnails: dict[SizeName, Thumbnail] = field(default_factory=dict)
    """Those smaller than the picture."""


class Pictures:
    """Looks at pictures, outside the event loop."""

    def __init__(
        self, *, max_pixels: int, metadata: Literal["remove", "keep"], waiting: int = MAX_WAITING
    ) -> None:
        """
        Args:
            max_pixels: of a picture that is decoded.
            metadata: whether files keep what is no part of the image.
        """
        self._max_pixels = max_pixels
        self._keep = metadata == "keep"
        self._turns = Turns(1, waiting + 1, BUSY)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")

    async def look(
        self, kind: str, size: int, read: Callable[[], Awaitable[bytes]], whose: str = ""
    ) -> Picture:
        """What becomes of a picture of one of `domain.uploads.pictures.KINDS`.

        Args:
            size: how many bytes it has.
            read: gets them, once it is its turn.
            whose: those of different people take turns.

        Raises:
            Unavailable: too many are waiting, of this one more than of anybody else.
        """
        if size > MAX_BYTES:
            return Picture(None, shown=self._keep)
        async with self._turns.turn(whose):
            data = await read()
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._thread, self._look, kind, data)
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                # It cannot be stopped, and the next must not be decoded beside it.
                await asyncio.wait((work,))
                raise

    def close(self) -> None:
        """Let what runs end."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _look(self, kind: str, data: bytes) -> Picture:
        try:
            found = bare(kind, data)
        except Damaged:
            return Picture(None, shown=self._keep)
        kept = None if self._keep else found.data
        up = orientation(found.exif)
        try:
            with _opened(kind, found.data) as image:
                width, height = image.size
                animated = bool(getattr(image, "is_animated", False))
            if width * height > self._max_pixels:
                return Picture(kept, shown=self._keep)
            if not self._keep and up in _TURNS and not animated:
                kept = _turned(kind, found.data, up)
            thumbnails = _thumbnails(kind, found.data, up if not animated else 1)
        except Image.DecompressionBombError:
            return Picture(kept, shown=self._keep)
        except Exception:  # noqa: BLE001 - decoders raise of all kinds at what is damaged
            return Picture(kept)
        if up in _SIDEWAYS and not animated:
            width, height = height, width
        return Picture(
            kept,
            image={"width": width, "height": height, "animated": animated},
            thumbnails=thumbnails,
        )


def _opened(kind: str, data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=(_FORMATS[kind],))


def _turned(kind: str, data: bytes, up: int) -> bytes:
    """A picture with its pixels turned upright, in the quality it had; with a note if it is large."""
    with _opened(kind, data) as image:
        if image.width * image.height > TURNED_PIXELS[kind]:
            return with_orientation(kind, data, up)
        file = io.BytesIO()
        icc = image.info.get("icc_profile")
        if kind == "image/jpeg":
            assert isinstance(image, JpegImagePlugin.JpegImageFile)
            turned = image.transpose(_TURNS[up])
            turned.save(
                file,
                "JPEG",
                qtables=image.quantization,
                subsampling=max(JpegImagePlugin.get_sampling(image), 0),
                progressive=bool(image.info.get("progressive")),
                optimize=True,
                icc_profile=icc,
            )
        else:
            lossless = kind == "image/png" or b"VP8L" in data[:64]
            image.transpose(_TURNS[up]).save(
                file, _FORMATS[kind], lossless=lossless, quality=90, icc_profile=icc
            )
        return file.getvalue()


def _thumbnails(kind: str, data: bytes, up: int) -> dict[SizeName, Thumbnail]:
    made: dict[SizeName, Thumbnail] = {}
    with _opened(kind, data) as image:
        longest = max(image.size)
        largest = max(SIZES.values())
        icc = image.info.get("icc_profile")
        profile = (
            icc if icc and len(icc) <= PROFILE and image.mode in {"RGB", "RGBA", "P"} else None
        )
        if kind == "image/jpeg":
            image.draft("RGB", (largest, largest))  # decodes no more than that needs
        image.load()
        small = _plain(image)
    small.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    if up in _TURNS:
        small = small.transpose(_TURNS[up])
    for name, edge in sorted(SIZES.items(), key=lambda each: -each[1]):
        if longest > edge:
            small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
            made[name] = _encoded(small, profile)
    return made


def _plain(image: Image.Image) -> Image.Image:
    """An image in RGB or RGBA, and at most some times larger than the largest thumbnail."""
    if image.mode.startswith("I"):  # 16 bits of grey
        image = image.convert("I").point(lambda grey: grey * (1 / 256)).convert("L")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode == "P":
        image = image.convert(mode)
    factor = max(image.size) // (2 * max(SIZES.values()))
    if factor > 1 and image.mode != "1":
        image = image.reduce(factor)
    return image.convert(mode)


def _encoded(image: Image.Image, profile: bytes | None) -> Thumbnail:
    file = io.BytesIO()
    if image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
        image.save(file, "WEBP", quality=80, icc_profile=profile)
        return Thumbnail(file.getvalue(), "image/webp")
    image.convert("RGB").save(file, "JPEG", quality=82, optimize=True, icc_profile=profile)
    return Thumbnail(file.getvalue(), "image/jpeg")
