"""Uploads: what is received within the limits is kept, what fails leaves nothing."""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from actions.streams.streams import Rules
from actions.uploads.pictures import Pictures
from actions.uploads.uploads import Incoming, Limits, Uploads
from domain.clock import timestamp
from domain.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from domain.events import Actor
from domain.principals import Principal, Role
from domain.streams import StreamName
from domain.uploads.uploads import Upload
from store.engine import Append, Document, GuardFailed, NewEvent
from store.sqlite import SqliteEngine
from store.uploads.blobs_disk import DiskBlobs
from store.uploads.uploads import COLLECTIONS, State, UploadRepository
from tests.support.pictures import SECRET, bomb, opened, photograph

KIB = 1024
MIB = KIB * KIB
HOUR = 3600.0
LIMITS = Limits(size=3 * MIB, quota=5 * MIB, unattached=24 * HOUR)
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100)


class Clock:
    """Starts long ago, so that the files' real times are never old to it."""

    def __init__(self) -> None:
        self.time = time.time() - 100 * 24 * HOUR

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def user(name: str, org: str = "default") -> Principal:
    return Principal(name, org, Role.MEMBER, "s1", 2e9)


ADA, BOB, EVE = user("ada"), user("bob"), user("ada", org="elsewhere")


class Stage:
    """Uploads over a real store, and conversations with members given by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.engine = SqliteEngine(path / "test.db", COLLECTIONS, clock=self.clock)
        self.blobs = DiskBlobs(path / "uploads")
        self.repository = UploadRepository(self.engine)
        self.pictures = Pictures(max_pixels=10_000_000, metadata="remove")
        self.members: dict[str, set[str]] = {}
        self.rules = Rules()
        self.rules.declare("messages", self._may_read)
        self.uploads = self.with_limits(LIMITS)

    def with_limits(self, limits: Limits) -> Uploads:
        return Uploads(self.repository, self.blobs, self.rules, self.clock, limits, self.pictures)

    async def _may_read(self, principal: Principal, stream: StreamName) -> bool:
        return principal.user in self.members.get(stream.id, ())

    async def put(
        self, chunks: Iterable[bytes], *, by: Principal = ADA, **said: str | int | None
    ) -> Upload:
        incoming = Incoming(**{"name": "a.bin", "content_type": None, **said})  # type: ignore[arg-type]
        return await self.uploads.receive(by, incoming, stream(chunks))

    async def attach(self, upload: str, conversation: str, message: str = "m") -> None:
        """As `message.send` does it."""
        at = timestamp(self.clock.now())
        name = f"messages/{conversation}"
        guard, link = self.repository.link(upload, name, message, at)
        events = [NewEvent("message.created", {})]
        await self.engine.append(
            Append("default", name, Actor("ada"), at, events, changes=[link], guards=[guard])
        )

    async def used(self) -> int:
        return await self.repository.used("default", "ada")

    def files(self) -> list[Path]:
        return [each for each in (self.path / "uploads").rglob("*") if each.is_file()]

    async def check_nothing_left(self) -> None:
        assert self.files() == []
        assert await self.used() == 0
        assert (await self.uploads.list(ADA, None, 10))["items"] == []


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    await stage.engine.start()
    await stage.blobs.start()
    yield stage
    await stage.blobs.stop()
    await stage.engine.stop()
    stage.pictures.close()


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def content(uploads: Uploads, who: Principal, id: str) -> bytes:
    found = await uploads.open(who, id)
    try:
        pieces = [piece async for piece in found.reader.read(0, found.reader.size)]
    finally:
        await found.reader.close()
    return b"".join(pieces)


# -- receiving ------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
async def test_a_file_is_kept_as_it_came(stage: Stage, known: bool) -> None:
    data = os.urandom(2 * MIB + 17)
    chunks = [data[at : at + 50_000] for at in range(0, len(data), 50_000)]
    upload = await stage.put(chunks, name="../x/b\u00e4r.bin", size=len(data) if known else None)
    assert upload == {
        "id": upload["id"],
        "owner": "ada",
        "name": "b\u00e4r.bin",
        "content_type": "application/octet-stream",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "image": None,
        "conversation": None,
        "created_at": timestamp(stage.clock.now()),
    }
    assert await content(stage.uploads, ADA, upload["id"]) == data
    assert await stage.uploads.get(ADA, upload["id"]) == upload
    assert await stage.used() == len(data)
    assert len(stage.files()) == 1


@pytest.mark.parametrize("known", [True, False])
async def test_a_file_over_the_limit_leaves_nothing(stage: Stage, known: bool) -> None:
    with pytest.raises(TooLarge, match=f"at most {3 * MIB} bytes"):
        await stage.put([bytes(MIB)] * 4, size=4 * MIB if known else None)
    await stage.check_nothing_left()


async def test_a_file_that_lies_about_its_size_leaves_nothing(stage: Stage) -> None:
    with pytest.raises(TooLarge):
        await stage.put([bytes(MIB)] * 4, size=1)
    await stage.check_nothing_left()


@pytest.mark.parametrize("known", [True, False])
async def test_the_quota_can_be_filled_to_the_byte(stage: Stage, known: bool) -> None:
    for size in (3 * MIB, 2 * MIB - 5, 5):
        await stage.put([bytes(size)], size=size if known else None)
    assert await stage.used() == 5 * MIB
    with pytest.raises(TooLarge, match="altogether"):
        await stage.put([b"x"], size=1 if known else None)
    assert await stage.used() == 5 * MIB
    assert len(stage.files()) == 3


@pytest.mark.parametrize("known", [True, False])
async def test_parallel_uploads_do_not_overshoot_the_quota(stage: Stage, known: bool) -> None:
    async def one() -> bool:
        chunks = [bytes(64 * KIB)] * 16
        try:
            await stage.put(chunks, size=MIB if known else None)
        except TooLarge:
            return False
        return True

    done = await asyncio.gather(*(one() for _ in range(12)))
    assert 1 <= sum(done) <= 5
    assert not known or sum(done) == 5
    kept = (await stage.uploads.list(ADA, None, 100))["items"]
    assert len(kept) == len(stage.files()) == sum(done)
    assert await stage.used() == sum(done) * MIB


async def test_another_users_quota_is_another(stage: Stage) -> None:
    stage.uploads = stage.with_limits(Limits(size=10, quota=10, unattached=HOUR))
    for who in (ADA, BOB, EVE):
        await stage.put([b"x" * 10], by=who)
        with pytest.raises(TooLarge):
            await stage.put([b"x"], by=who)


async def test_an_empty_file_is_refused(stage: Stage) -> None:
    with pytest.raises(Invalid, match="empty"):
        await stage.put([b"", b""])
    await stage.check_nothing_left()


async def test_a_disguised_file_is_refused_and_leaves_nothing(stage: Stage) -> None:
    with pytest.raises(Invalid, match="declared as image/png but is text/html"):
        await stage.put([b"<!DOCTYPE html><html>"], content_type="image/png")
    await stage.check_nothing_left()


async def test_a_sender_that_fails_or_goes_away_leaves_nothing(stage: Stage) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield bytes(MIB)
        raise Invalid("The body ended early.")

    with pytest.raises(Invalid, match="ended early"):
        await stage.uploads.receive(ADA, Incoming("a", None), failing())
    await stage.check_nothing_left()

    began = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield bytes(MIB)
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(stage.uploads.receive(ADA, Incoming("a", None), stuck()))
    await began.wait()
    assert await stage.used() > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await stage.check_nothing_left()


async def test_a_full_disk_is_unavailable_and_leaves_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left"):
        await stage.put([b"data"])
    monkeypatch.undo()
    await stage.check_nothing_left()
    await stage.put([b"data"])


async def test_the_same_key_answers_the_first_result(stage: Stage) -> None:
    first = await stage.put([PNG], name="a.png", client_id="k1")
    again = await stage.put([PNG], name="a.png", client_id="k1")
    assert again == first
    assert await stage.used() == len(PNG)
    assert len(stage.files()) == 1
    with pytest.raises(Conflict):
        await stage.put([PNG + b"x"], name="a.png", client_id="k1")
    with pytest.raises(Conflict):
        await stage.put([PNG], name="b.png", client_id="k1")
    assert await stage.used() == len(PNG)
    other = await stage.put([PNG], by=BOB, client_id="k1")
    assert other["id"] != first["id"]
    await stage.uploads.delete(ADA, first["id"])
    assert (await stage.put([PNG], name="a.png", client_id="k1"))["id"] != first["id"]


# -- giving ---------------------------------------------------------------------------------------


async def test_only_the_owner_and_those_who_read_a_place_it_is_attached_to(stage: Stage) -> None:
    upload = await stage.put([PNG])
    stage.members = {"c1": {"ada", "bob"}, "c2": {"cid"}}
    for who in (BOB, EVE, user("bob", org="elsewhere")):
        with pytest.raises(NotFound):
            await stage.uploads.open(who, upload["id"])
    await stage.attach(upload["id"], "c2")
    with pytest.raises(NotFound):
        await stage.uploads.open(BOB, upload["id"])
    await stage.attach(upload["id"], "c1")
    await stage.attach(upload["id"], "c1")
    assert await content(stage.uploads, BOB, upload["id"]) == PNG
    assert await content(stage.uploads, user("cid"), upload["id"]) == PNG
    with pytest.raises(NotFound):
        await stage.uploads.open(EVE, upload["id"])
    stage.members["c1"].discard("bob")
    with pytest.raises(NotFound):
        await stage.uploads.open(BOB, upload["id"])


async def test_an_upload_into_a_conversation_is_for_its_members_at_once(stage: Stage) -> None:
    stage.members = {"c1": {"ada", "bob"}, "c2": {"bob"}}
    upload = await stage.put([PNG], conversation="c1")
    assert upload["conversation"] == "c1"
    assert await content(stage.uploads, BOB, upload["id"]) == PNG
    with pytest.raises(NotFound):
        await stage.uploads.open(user("cid"), upload["id"])
    with pytest.raises(NotFound):
        await stage.put([PNG], conversation="c2")
    assert len(stage.files()) == 1


@pytest.mark.parametrize("id", ["nothing", "../../x", "", "messages/c1", "\0", "a" * 10_000])
async def test_what_is_no_upload_is_not_found(stage: Stage, id: str) -> None:
    for call in (stage.uploads.open, stage.uploads.get, stage.uploads.delete):
        with pytest.raises(NotFound):
            await call(ADA, id)


async def test_pages_of_the_own_uploads(stage: Stage) -> None:
    ids = [(await stage.put([b"x" * n]))["id"] for n in range(1, 6)]
    await stage.put([b"other"], by=BOB)
    page = await stage.uploads.list(ADA, None, 2)
    assert (page["used"], page["quota"]) == (15, 5 * MIB)
    seen = [each["id"] for each in page["items"]]
    while page["next"] is not None:
        page = await stage.uploads.list(ADA, page["next"], 2)
        seen += [each["id"] for each in page["items"]]
    assert seen == ids[::-1]


# -- removing -------------------------------------------------------------------------------------


async def test_deleting_frees_the_quota_and_the_disk(stage: Stage) -> None:
    upload = await stage.put([bytes(3 * MIB)])
    await stage.attach(upload["id"], "c1")
    stage.members = {"c1": {"ada", "bob"}}
    with pytest.raises(NotFound):
        await stage.uploads.delete(BOB, upload["id"])
    assert await stage.uploads.delete(ADA, upload["id"]) == {"id": upload["id"]}
    for who in (ADA, BOB):
        with pytest.raises(NotFound):
            await stage.uploads.open(who, upload["id"])
    with pytest.raises(NotFound):
        await stage.uploads.delete(ADA, upload["id"])
    await stage.check_nothing_left()
    with pytest.raises(GuardFailed):
        await stage.attach(upload["id"], "c1")


async def test_of_many_who_delete_one_does(stage: Stage) -> None:
    upload = await stage.put([PNG])
    done = await asyncio.gather(
        *(stage.uploads.delete(ADA, upload["id"]) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(each, dict) for each in done) == 1
    await stage.check_nothing_left()


async def test_what_no_message_carries_is_removed_after_a_while(stage: Stage) -> None:
    stage.members = {"c1": {"ada"}}
    attached = await stage.put([b"attached"])
    await stage.attach(attached["id"], "c1")
    await stage.put([b"forgotten"])
    await stage.put([b"forgotten too"], conversation="c1")
    stage.clock.time += 23 * HOUR
    late = await stage.put([b"late"])
    assert await stage.uploads.sweep() == 0
    stage.clock.time += 2 * HOUR
    assert await stage.uploads.sweep() == 2
    kept = [each["id"] for each in (await stage.uploads.list(ADA, None, 10))["items"]]
    assert kept == [late["id"], attached["id"]]
    assert await stage.used() == len(b"attached") + len(b"late")
    assert len(stage.files()) == 2
    stage.clock.time += 1000 * HOUR
    assert await stage.uploads.sweep() == 1
    assert await content(stage.uploads, ADA, attached["id"]) == b"attached"


async def test_an_upload_attached_while_it_is_swept_is_spared(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await stage.put([b"just in time"])
    stage.clock.time += 25 * HOUR
    condemn = stage.repository.condemn

    async def attach_first(org: str, id: str, state: State, at: str) -> bool:
        await stage.attach(id, "c1")
        return await condemn(org, id, state, at)

    monkeypatch.setattr(stage.repository, "condemn", attach_first)
    assert await stage.uploads.sweep() == 0
    assert await content(stage.uploads, ADA, upload["id"]) == b"just in time"


@pytest.mark.parametrize(
    "step", ["reserve", "create", "complete", "recount", "condemn", "delete", "remove"]
)
@pytest.mark.parametrize(
    ("lost", "times"),
    [([b"lost"] * 1000, 1), *(([photograph(width=1400)], times) for times in range(1, 6))],
)
async def test_a_crash_at_any_step_is_cleared_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, step: str, lost: list[bytes], times: int
) -> None:
    """A crash is a step, the first time or a later one, and all after it, that do not happen."""
    kept = await stage.put([b"kept"])
    await stage.attach(kept["id"], "c1")

    class Crash(BaseException):
        pass

    crashed = False
    left = times

    def guarded(target: object, name: str) -> None:
        original = getattr(target, name)

        async def call(*args: object) -> object:
            nonlocal crashed, left
            left -= name == step
            crashed = crashed or left == 0
            if crashed:
                raise Crash
            return await original(*args)

        monkeypatch.setattr(target, name, call)

    for name in ("begin", "reserve", "complete", "recount", "condemn", "remove"):
        guarded(stage.repository, name)
    for name in ("create", "delete"):
        guarded(stage.blobs, name)

    async def put_and_delete() -> None:
        made = await stage.put(lost, size=sum(map(len, lost)))
        await stage.uploads.delete(ADA, made["id"])

    with contextlib.suppress(Crash):
        await put_and_delete()
    assert crashed or times > 1
    monkeypatch.undo()
    stage.clock.time += 25 * HOUR
    await stage.uploads.sweep()
    assert await stage.used() == len(b"kept")
    assert len(stage.files()) == 1
    items = (await stage.uploads.list(ADA, None, 10))["items"]
    assert [each["id"] for each in items] == [kept["id"]]


async def test_a_sweep_counts_for_those_alone_who_were_at_work_since_the_last(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [user(f"u{number}") for number in range(20)]
    for who in people:
        made = await stage.put([b"one"], by=who)
        await stage.attach(made["id"], "c1")
    counted: list[str] = []
    recount = stage.repository.recount

    async def noted(org: str, owner: str) -> bool:
        counted.append(owner)
        return await recount(org, owner)

    monkeypatch.setattr(stage.repository, "recount", noted)
    await stage.uploads.sweep()
    assert counted == []  # they may be at work
    stage.clock.time += 2 * HOUR
    await stage.uploads.sweep()
    assert sorted(counted) == sorted(who.user for who in people)
    counted.clear()
    stage.clock.time += 2 * HOUR
    await stage.uploads.sweep()
    assert counted == []
    await stage.put([b"two"], by=people[3])
    counted.clear()
    stage.clock.time += 2 * HOUR
    await stage.uploads.sweep()
    assert counted == ["u3"]


async def test_a_slow_upload_that_goes_on_is_not_swept(stage: Stage) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(8):
            stage.clock.time += 0.4 * HOUR
            await stage.uploads.sweep()
            yield bytes(200 * KIB)

    upload = await stage.uploads.receive(ADA, Incoming("a", None, size=1600 * KIB), slow())
    assert upload["size"] == 1600 * KIB


async def test_an_upload_that_stood_still_is_swept_and_fails(stage: Stage) -> None:
    async def stopped() -> AsyncIterator[bytes]:
        yield bytes(200 * KIB)
        stage.clock.time += 2 * HOUR
        assert await stage.uploads.sweep() == 1
        yield bytes(200 * KIB)

    with pytest.raises(Unavailable):
        await stage.uploads.receive(ADA, Incoming("a", None, size=400 * KIB), stopped())
    await stage.check_nothing_left()


# -- pictures -------------------------------------------------------------------------------------


async def test_a_picture_is_kept_with_thumbnails_that_are_counted_and_go_with_it(
    stage: Stage,
) -> None:
    came = photograph(orientation=6, width=1400, height=700)
    upload = await stage.put([came[:1000], came[1000:]], name="me.jpeg")
    file = await content(stage.uploads, ADA, upload["id"])
    assert SECRET not in file
    assert upload["content_type"] == "image/jpeg"
    assert (upload["size"], upload["sha256"]) == (len(file), hashlib.sha256(file).hexdigest())
    assert upload["image"] == {"width": 700, "height": 1400, "animated": False}
    thumbnails = []
    for size, wanted in (("small", (80, 160)), ("medium", (240, 480)), ("large", (640, 1280))):
        found = await stage.uploads.open(ADA, upload["id"], size)  # type: ignore[arg-type]
        pieces = [piece async for piece in found.reader.read(0, found.reader.size)]
        await found.reader.close()
        thumbnails.append(b"".join(pieces))
        assert opened(thumbnails[-1]).size == wanted
        assert (found.name, found.content_type) == ("me.jpg", "image/jpeg")
        assert found.sha256 == hashlib.sha256(thumbnails[-1]).hexdigest()
    assert len(stage.files()) == 4
    assert await stage.used() == len(file) + sum(map(len, thumbnails))
    with pytest.raises(NotFound):
        await stage.uploads.open(BOB, upload["id"], "small")
    await stage.uploads.delete(ADA, upload["id"])
    await stage.check_nothing_left()
    unattached = await stage.put([came])
    stage.clock.time += 25 * HOUR
    assert await stage.uploads.sweep() == 1
    await stage.check_nothing_left()
    assert unattached["id"] != upload["id"]


async def test_a_picture_smaller_than_a_thumbnail_is_its_own(stage: Stage) -> None:
    upload = await stage.put([photograph("image/png", width=200, height=100)])
    large = await stage.uploads.open(ADA, upload["id"], "large")
    await large.reader.close()
    assert (large.sha256, large.content_type) == (upload["sha256"], "image/png")
    assert len(stage.files()) == 2
    text = await stage.put([b"text"])
    with pytest.raises(NotFound):
        await stage.uploads.open(ADA, text["id"], "small")


async def test_a_bomb_and_a_damaged_picture_are_files_like_any_other(stage: Stage) -> None:
    upload = await stage.put([bomb()], content_type="image/png")
    assert (upload["content_type"], upload["image"]) == ("application/octet-stream", None)
    assert SECRET not in await content(stage.uploads, ADA, upload["id"])
    damaged = await stage.put([PNG], content_type="image/png")
    assert (damaged["content_type"], damaged["image"]) == ("application/octet-stream", None)
    assert await content(stage.uploads, ADA, damaged["id"]) == PNG
    assert len(stage.files()) == 2
    with pytest.raises(NotFound):
        await stage.uploads.open(ADA, upload["id"], "small")


async def test_thumbnails_count_towards_the_quota(stage: Stage) -> None:
    came = photograph(width=1400)
    kept = await stage.put([came])
    used = await stage.used()
    assert used > kept["size"]
    await stage.uploads.delete(ADA, kept["id"])
    stage.uploads = stage.with_limits(Limits(3 * MIB, used - 1, HOUR))
    with pytest.raises(TooLarge):
        await stage.put([came])
    await stage.check_nothing_left()
    stage.uploads = stage.with_limits(Limits(3 * MIB, used, HOUR))
    await stage.put([came])


async def test_a_picture_sent_again_answers_the_first(stage: Stage) -> None:
    came = photograph(orientation=3)
    first = await stage.put([came], client_id="k")
    assert await stage.put([came], client_id="k") == first
    with pytest.raises(Conflict):
        await stage.put([photograph()], client_id="k")
    with pytest.raises(Conflict):  # what is kept of it is another file
        await stage.put([await content(stage.uploads, ADA, first["id"])], client_id="k")
    assert len(stage.files()) == 1 + 2


async def test_what_is_shown_elsewhere_is_kept_for_as_long(stage: Stage) -> None:
    upload = await stage.put([b"x"])
    shown = True

    async def shows(org: str, doc: Document) -> bool:
        assert (org, doc["owner"]) == ("default", "ada")
        return shown

    stage.uploads.shows = shows
    assert await stage.uploads.get(BOB, upload["id"]) == upload
    for _ in range(2):
        stage.clock.time += LIMITS.unattached + 1
        assert await stage.uploads.sweep() == 0
    shown = False
    # As `Avatars.replaced` has it looked at.
    at = timestamp(stage.clock.now())
    assert await stage.repository.look_at_again("default", upload["id"], at)
    assert await stage.uploads.sweep() == 0
    stage.clock.time += LIMITS.unattached + 1
    assert await stage.uploads.sweep() == 1
    await stage.check_nothing_left()
    assert not await stage.repository.look_at_again("default", upload["id"], at)
