"""Pictures as cameras and programs make them, with what they tell of whoever took them."""

import functools
import io
import struct
import zlib
from typing import Any

from PIL import Image, ImageCms

SECRET = b"lives at 51.5 N"
"""What is in every kind of metadata made here."""

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + SECRET + b"</x:xmpmeta>"


def drawing(width: int = 600, height: int = 400, mode: str = "RGB") -> Image.Image:
    """Red above on the left, blue everywhere else."""
    image = Image.new("RGB", (width, height), "blue")
    image.paste("red", (0, 0, width // 2, height // 2))
    return image.convert(mode)


def exif(orientation: int | None = None) -> bytes:
    """EXIF with a place and a text."""
    made = Image.Exif()
    made[0x010E] = SECRET.decode()  # description
    if orientation is not None:
        made[0x0112] = orientation
    made.get_ifd(0x8825)[1] = "N"
    made.get_ifd(0x8825)[2] = (51.0, 30.0, 0.0)
    return made.tobytes()


@functools.cache
def profile() -> bytes:
    """A colour profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(image: Image.Image, kind: str, **more: Any) -> bytes:
    """A file of this type, `image/png` and so on."""
    file = io.BytesIO()
    image.save(file, kind.partition("/")[2].upper(), **more)
    return file.getvalue()


def photograph(
    kind: str = "image/jpeg", orientation: int | None = None, width: int = 600, height: int = 400
) -> bytes:
    """A picture with all the metadata that its type can have."""
    image = drawing(width, height)
    if kind == "image/gif":
        return encoded(image, kind, comment=SECRET)[:-1] + _gif_xmp() + b";" + SECRET
    more: dict[str, Any] = {"exif": exif(orientation), "icc_profile": profile()}
    if kind == "image/jpeg":
        plain = encoded(image, kind, comment=SECRET, xmp=XMP, **more)
        return plain[:2] + _iptc() + plain[2:] + SECRET
    if kind == "image/webp":
        return encoded(image, kind, xmp=XMP, **more)
    plain = encoded(image, kind, **more)
    text = _png_chunk(b"tEXt", b"Author\0" + SECRET) + _png_chunk(b"tIME", bytes(7))
    return plain[:33] + text + plain[33:] + SECRET


def animation(kind: str) -> bytes:
    """Three frames that last, the first one blue."""
    frames = [Image.new("RGB", (300, 200), colour) for colour in ("blue", "red", "green")]
    more: dict[str, Any] = {} if kind == "image/gif" else {"exif": exif()}
    if kind == "image/webp":
        more["lossless"] = True
    return encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], duration=80, loop=0, **more
    )


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of some kilobytes that takes gigabytes when it is decoded."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(200)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + _png_chunk(b"IHDR", head)
        + _png_chunk(b"tEXt", b"Author\0" + SECRET)
        + _png_chunk(b"IDAT", packed)
        + _png_chunk(b"IEND", b"")
    )


def opened(data: bytes) -> Image.Image:
    """A picture, decoded."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def is_red(image: Image.Image, x: float, y: float) -> bool:
    """Whether it is red there, of its width and height from above on the left."""
    place = (int(x * (image.width - 1)), int(y * (image.height - 1)))
    pixel = image.convert("RGB").getpixel(place)
    assert isinstance(pixel, tuple)
    return pixel[0] > 150 and pixel[2] < 100


def _png_chunk(name: bytes, body: bytes) -> bytes:
    checked = name + body
    return len(body).to_bytes(4, "big") + checked + zlib.crc32(checked).to_bytes(4, "big")


def _iptc() -> bytes:
    body = b"Photoshop 3.0\0" + SECRET
    return b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body


def _gif_xmp() -> bytes:
    body = b"".join(bytes((len(part),)) + part for part in (XMP[:100], XMP[100:]) if part)
    return b"\x21\xff\x0bXMP DataXMP" + body + b"\0"
