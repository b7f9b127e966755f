"""Pictures lose what they tell besides the picture, stand upright, and are never decoded when large."""

import asyncio
import contextlib
import threading
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actions.uploads import pictures
from actions.uploads.pictures import Picture, Pictures
from domain.errors import Unavailable
from domain.uploads.pictures import KINDS, MAX_SCANS, SIZES, Damaged, bare, orientation
from tests.support.pictures import (
    SECRET,
    animation,
    bomb,
    drawing,
    encoded,
    exif,
    is_red,
    opened,
    photograph,
    profile,
)

ALL = sorted(KINDS)
TURNING = ["image/jpeg", "image/png", "image/webp"]
_SMALL = {kind: photograph(kind, width=40, height=30) for kind in ALL}


async def look(
    data: bytes,
    kind: str,
    *,
    max_pixels: int = 10_000_000,
    metadata: Literal["remove", "keep"] = "remove",
) -> Picture:
    made = Pictures(max_pixels=max_pixels, metadata=metadata)

    async def read() -> bytes:
        return data

    try:
        return await made.look(kind, len(data), read)
    finally:
        made.close()


@pytest.mark.parametrize("kind", ALL)
async def test_nothing_is_told_but_the_picture(kind: str) -> None:
    came = photograph(kind)
    assert SECRET in came
    found = await look(came, kind)
    assert found.data is not None
    assert SECRET not in found.data
    after = opened(found.data)
    assert dict(after.getexif()) == {}
    assert "xmp" not in after.info
    assert after.info.get("icc_profile") == (None if kind == "image/gif" else profile())
    # not a pixel is another
    assert after.convert("RGB").tobytes() == opened(came).convert("RGB").tobytes()
    assert found.image == {"width": 600, "height": 400, "animated": False}
    assert bare(kind, found.data).data == found.data


@pytest.mark.parametrize("kind", ALL)
async def test_a_picture_without_metadata_stays_as_it_came(kind: str) -> None:
    came = encoded(drawing(), kind)
    assert (await look(came, kind)).data == came


@pytest.mark.parametrize("kind", TURNING)
@pytest.mark.parametrize("orientation", range(1, 9))
async def test_it_is_turned_upright_before_that_is_forgotten(kind: str, orientation: int) -> None:
    found = await look(photograph(kind, orientation), kind)
    assert found.data is not None
    assert SECRET not in found.data
    # where the corner that is stored first is to be seen (EXIF, 4.6.4 A)
    corner = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0), (1, 0), (1, 1), (0, 1)][orientation - 1]
    size = (600, 400) if orientation < 5 else (400, 600)
    small = found.thumbnails["small"]
    for image in (opened(found.data), opened(small.data)):
        reds = [(x, y) for x in (0, 1) for y in (0, 1) if is_red(image, x, y)]
        assert reds == [corner]
        assert dict(image.getexif()) == {}
    assert opened(found.data).size == size
    assert found.image == {"width": size[0], "height": size[1], "animated": False}
    assert opened(found.data).info.get("icc_profile") == profile()


@pytest.mark.parametrize("kind", TURNING)
async def test_a_large_one_keeps_the_note_of_which_way_is_up_alone(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "TURNED_PIXELS", dict.fromkeys(TURNING, 1000))
    found = await look(photograph(kind, orientation=6), kind)
    assert found.data is not None
    assert SECRET not in found.data
    assert dict(opened(found.data).getexif()) == {0x0112: 6}
    assert found.image == {"width": 400, "height": 600, "animated": False}
    assert is_red(opened(found.thumbnails["small"].data), 1, 0)


@pytest.mark.parametrize("kind", ["image/gif", "image/png", "image/webp"])
async def test_animations_stay_whole(kind: str) -> None:
    came = animation(kind)
    found = await look(came, kind)
    assert found.data is not None
    assert SECRET not in found.data
    before, after = opened(came), opened(found.data)
    assert getattr(after, "n_frames", 1) == 3
    assert after.info["loop"] == 0
    for frame in range(3):
        before.seek(frame)
        after.seek(frame)
        assert after.convert("RGB").tobytes() == before.convert("RGB").tobytes()
        assert after.info["duration"] == before.info["duration"]
    assert found.image == {"width": 300, "height": 200, "animated": True}
    still = opened(found.thumbnails["small"].data)
    assert getattr(still, "n_frames", 1) == 1
    assert still.size == (160, 107)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
async def test_thumbnails_of_every_mode(mode: str) -> None:
    kind = "image/jpeg" if mode == "CMYK" else "image/png"
    image = drawing(2000, 1000, "RGB" if mode == "I;16" else mode)
    if mode == "RGBA":
        image.putpixel((0, 999), (0, 0, 0, 0))
        image.paste((0, 0, 0, 0), (1000, 500, 2000, 1000))
    if mode == "I;16":
        image = image.convert("I;16").point(lambda grey: grey * 256)
    found = await look(encoded(image, kind), kind)
    assert found.thumbnails.keys() == SIZES.keys()
    for name, thumbnail in found.thumbnails.items():
        small = opened(thumbnail.data)
        assert small.size == (SIZES[name], SIZES[name] // 2)
        assert thumbnail.content_type == f"image/{str(small.format).lower()}"
        assert (small.format == "WEBP") == (mode == "RGBA")
        assert len(thumbnail.data) < 400_000


async def test_only_what_is_smaller_than_the_picture_is_made() -> None:
    assert (await look(encoded(drawing(160, 90), "image/png"), "image/png")).thumbnails == {}
    found = await look(encoded(drawing(481, 2), "image/png"), "image/png")
    assert sorted(found.thumbnails) == ["medium", "small"]
    assert opened(found.thumbnails["small"].data).size == (160, 1)


async def test_a_bomb_is_a_file_like_any_other() -> None:
    came = bomb()
    assert len(came) < 50_000
    found = await look(came, "image/png", max_pixels=150_000_000)
    assert (found.shown, found.image, found.thumbnails) == (False, None, {})
    assert found.data is not None
    assert SECRET not in found.data
    found = await look(photograph(), "image/jpeg", max_pixels=600 * 400 - 1)
    assert (found.shown, found.image) == (False, None)
    assert (await look(photograph(), "image/jpeg", max_pixels=600 * 400)).image is not None


@pytest.mark.parametrize("kind", ALL)
async def test_cut_short_anywhere_nothing_is_told(kind: str) -> None:
    """Every beginning of a picture is kept without metadata, or is no picture at all."""
    came = photograph(kind, width=64, height=48)
    for end in range(0, len(came), 7):
        try:
            kept = bare(kind, came[:end]).data
        except Damaged:
            continue
        assert SECRET not in kept
    found = await look(came[: len(came) * 2 // 3], kind)
    assert found.data is None or SECRET not in found.data


@pytest.mark.parametrize("kind", ALL)
async def test_what_is_no_picture_is_no_picture(kind: str) -> None:
    came = photograph(kind)
    head = {"image/png": 33, "image/webp": 12}.get(kind, 3)
    for data in (came[:head] + bytes(5000), came[:head] + b"\xff" * 5000, came[:head], b""):
        found = await look(data, kind)
        assert (found.image, found.thumbnails) == (None, {})
        assert found.data is not None or not found.shown


async def test_metadata_may_be_kept() -> None:
    found = await look(photograph(orientation=6), "image/jpeg", metadata="keep")
    assert (found.data, found.shown) == (None, True)
    assert found.image == {"width": 400, "height": 600, "animated": False}
    assert is_red(opened(found.thumbnails["small"].data), 1, 0)
    assert SECRET not in found.thumbnails["small"].data
    assert (await look(b"\xff\xd8\xff no picture", "image/jpeg", metadata="keep")).shown


@pytest.mark.parametrize("note", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", exif()[:20]])
async def test_exif_that_cannot_be_read_says_nothing(note: bytes) -> None:
    came = encoded(drawing(), "image/jpeg", exif=note)
    found = await look(came, "image/jpeg")
    assert found.data == encoded(drawing(), "image/jpeg")


@pytest.mark.parametrize("order", ["little", "big"])
def test_which_way_is_up_is_read_among_other_entries(order: Literal["little", "big"]) -> None:
    def number(value: int, size: int = 2) -> bytes:
        return value.to_bytes(size, order)

    entries = [number(0x010E) + number(7) + number(1 << 20, 4) + number(8, 4)] * 2
    entries.append(number(0x0112) + number(3) + number(1, 4) + number(6) + bytes(2))
    start = b"II*\0" if order == "little" else b"MM\0*"
    note = start + number(8, 4) + number(len(entries)) + b"".join(entries) + bytes(4)
    assert orientation(b"Exif\0\0" + note) == 6
    assert orientation(note) == 6
    assert orientation(note[:30]) == 1


def test_a_run_of_fill_bytes_takes_no_longer_than_others() -> None:
    # Reading it anew from each of its bytes would take hours, and nothing else would run.
    head, size = b"\xff\xd8\xff\xda\x00\x02", 1 << 20
    assert len(bare("image/jpeg", head + b"\xff" * size + b"\0").data) == len(head) + size + 1
    ended = bare("image/jpeg", head + b"\xff" * size + b"\xd9" + SECRET).data
    assert ended.endswith(b"\xff\xd9")


async def test_scans_without_end_are_not_decoded() -> None:
    came = encoded(drawing(), "image/jpeg", progressive=True)
    scan = came[came.rindex(b"\xff\xda") : -2]
    assert (await look(came[:-2] + 10 * scan + came[-2:], "image/jpeg")).image is not None
    found = await look(came[:-2] + MAX_SCANS * scan + came[-2:], "image/jpeg")
    assert (found.image, found.shown) == (None, False)


async def test_one_at_a_time_and_not_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(drawing(), "image/png")
    running, most, go = 0, 0, threading.Event()
    reads = 0
    true_bare = bare

    def slow(kind: str, data: bytes) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        go.wait(10)
        running -= 1
        return true_bare(kind, data)

    async def read() -> bytes:
        nonlocal reads
        reads += 1
        return data

    monkeypatch.setattr(pictures, "bare", slow)
    made = Pictures(max_pixels=10_000_000, metadata="remove", waiting=2)
    looks = [asyncio.create_task(made.look("image/png", len(data), read)) for _ in range(3)]
    async with asyncio.timeout(10):
        while not running:
            await asyncio.sleep(0.001)
        with pytest.raises(Unavailable):
            await made.look("image/png", len(data), read)
        assert reads == 1  # those who wait hold nothing in memory
        looks[0].cancel()  # it cannot be stopped: nobody else runs beside it
        looks[1].cancel()
        await asyncio.sleep(0)
        go.set()
        found = await looks[2]
        assert found.image is not None
        assert most == 1
        results = await asyncio.gather(*looks, return_exceptions=True)
    assert [type(each) for each in results[:2]] == [asyncio.CancelledError] * 2
    assert (await made.look("image/png", len(data), read)).image is not None
    made.close()


async def test_one_who_sends_many_neither_delays_nor_keeps_out_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encoded(drawing(), "image/png")
    go, done = threading.Event(), list[str]()
    true_bare = bare

    def slow(kind: str, data: bytes) -> object:
        go.wait(10)
        return true_bare(kind, data)

    async def read() -> bytes:
        return data

    async def look_for(whose: str) -> None:
        await made.look("image/png", len(data), read, whose)
        done.append(whose)

    monkeypatch.setattr(pictures, "bare", slow)
    made = Pictures(max_pixels=10_000_000, metadata="remove", waiting=5)
    many = [asyncio.create_task(look_for("ann")) for _ in range(6)]
    await asyncio.sleep(0)
    other = asyncio.create_task(look_for("ben"))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await look_for("ann")
    go.set()
    async with asyncio.timeout(10):
        await other
        results = await asyncio.gather(*many, return_exceptions=True)
    assert [type(each) for each in results] == [type(None)] * 5 + [Unavailable]
    assert done.index("ben") <= 2
    made.close()


async def test_one_of_too_many_bytes_is_not_even_read() -> None:
    made = Pictures(max_pixels=10_000_000, metadata="remove")

    async def read() -> bytes:
        raise AssertionError

    found = await made.look("image/png", pictures.MAX_BYTES + 1, read)
    assert (found.data, found.shown, found.image) == (None, False, None)
    made.close()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_is_changed_in_a_picture_it_is_taken_apart_or_damaged(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(ALL))
    came = bytearray(_SMALL[kind])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(came) - 1))
        came[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(Damaged):
        kept = bare(kind, bytes(came)).data
        assert bare(kind, kept).data == kept
