"""`Append.redactions`: content that goes from the log, while the stream stays as it was."""

import asyncio

import pytest

from domain.streams import Head
from store.engine import (
    Change,
    Delete,
    Engine,
    Guard,
    GuardFailed,
    Insert,
    Key,
    NewEvent,
    Redaction,
    Update,
)
from tests.support.stores import (
    BOB,
    NOTES,
    ORG,
    ROOMS,
    Stores,
    appending,
    gathered,
    note,
    send,
    seqs,
)

STREAM = "messages/r1"
LONG_AGO = "2000-01-01T00:00:00.000Z"
GONE = {"body": "", "gone": True}
SECRET = "hush-hush"


async def bodies(engine: Engine, stream: str = STREAM) -> list[object]:
    return [event.content().get("body") for event in await engine.read(ORG, stream, 0, 1000)]


async def redact(engine: Engine, *which: int, stream: str = STREAM, **more: object) -> None:
    await engine.append(appending(stream, redactions=[Redaction(which, {**GONE, **more})]))


async def test_fields_are_set_and_the_rest_stays(stores: Stores, engine: Engine) -> None:
    await send(engine, "a", body="secret", actor=BOB)
    await send(engine, "b", body="public")
    before = await engine.read(ORG, STREAM, 0, 10)
    head = await engine.head(ORG, STREAM)
    assert head is not None
    await redact(engine, 1, none=None)
    async for store in stores.before_and_after_restart(engine):
        first, second, third = await store.read(ORG, STREAM, 0, 10)
        assert first.content() == {**before[0].content(), **GONE, "none": None}
        assert (first.seq, first.type, first.at, first.actor, first.epoch) == (
            1,
            before[0].type,
            before[0].at,
            BOB,
            head.epoch,
        )
        assert second.payload == before[1].payload
        assert third.seq == 3
        assert await store.head(ORG, STREAM) == Head(head.epoch, 3, 0)


async def test_several_events_and_one_inside_an_append_of_many(engine: Engine) -> None:
    many = [NewEvent("x", {"body": f"secret {n}"}) for n in range(250)]
    await engine.append(appending(STREAM, *many[:3]))
    for event in many[3:5]:
        await engine.append(appending(STREAM, event))
    await engine.append(appending(STREAM, *many[5:]))
    wanted = [2, 4, *range(100, 251)]
    await redact(engine, *reversed(wanted), 2)
    assert await bodies(engine) == [
        *("" if seq in wanted else f"secret {seq - 1}" for seq in range(1, 251)),
        None,
    ]


async def test_redactions_of_one_append_are_made_in_order(engine: Engine) -> None:
    await engine.append(appending(STREAM, *(NewEvent("x", {"body": "secret"}) for _ in "ab")))
    orders = [
        Redaction([1, 2], {"body": "first", "one": 1}),
        Redaction([2], {"body": "second", "two": 2}),
    ]
    await engine.append(appending(STREAM, redactions=orders))
    one, two, _ = await engine.read(ORG, STREAM, 0, 10)
    assert one.content() == {"body": "first", "one": 1}
    assert two.content() == {"body": "second", "one": 1, "two": 2}
    # And again, by a later append.
    await redact(engine, 2, one=None)
    assert (await engine.read(ORG, STREAM, 1, 1))[0].content() == {**GONE, "one": None, "two": 2}


async def test_only_events_before_the_append_and_in_the_log(engine: Engine) -> None:
    for n in range(6):
        await send(engine, f"n{n}", body=f"{n}")
    await send(engine, "other", stream="messages/r2", body="other")
    assert await engine.trim(keep=3, before=LONG_AGO) == 3
    await engine.append(
        appending(
            STREAM,
            NewEvent("x", {"body": "own"}),
            redactions=[Redaction([-1, 0, 2, 3, 4, 7, 8, 10**9], GONE)],
        )
    )
    await send(engine, "later", body="later")
    assert await bodies(engine) == ["", "4", "5", "own", "later"]
    assert await seqs(engine) == [4, 5, 6, 7, 8]
    assert await bodies(engine, "messages/r2") == ["other"]
    # On a stream that begins with it there is nothing to redact.
    await redact(engine, 1, stream="messages/new")
    assert (await engine.read(ORG, "messages/new", 0, 5))[0].content() == {"text": "hello"}


async def test_a_retry_with_the_key_of_a_redacted_event_answers_it_redacted(
    stores: Stores, engine: Engine
) -> None:
    await send(engine, "a", body="secret", key=Key("k", "d"))
    await redact(engine, 1)
    async for store in stores.before_and_after_restart(engine):
        again = await send(store, "a", body="secret", key=Key("k", "d"))
        assert again.replayed
        assert [event.content()["body"] for event in again.events] == [""]


async def test_what_is_refused_redacts_nothing(engine: Engine) -> None:
    await send(engine, "a", body="secret")
    order = [Redaction([1], GONE)]
    with pytest.raises(GuardFailed):
        await engine.append(appending(STREAM, guards=[Guard(ROOMS, "nowhere")], redactions=order))
    with pytest.raises(TypeError):
        await engine.append(appending(STREAM, redactions=[Redaction([1], {"body": {1, 2}})]))
    await engine.append(appending(STREAM, key=Key("k", "d")))
    again = await engine.append(appending(STREAM, key=Key("k", "d"), redactions=order))
    assert again.replayed
    assert await bodies(engine) == ["secret", None]


async def test_no_record_of_the_store_has_the_old_content(stores: Stores, engine: Engine) -> None:
    """A message, and another that is sent and edited, and taken back at once."""
    await send(engine, "a", body="kept")
    await send(engine, "b", body=SECRET, key=Key("k", "d"))
    edited: list[Change] = [Update(NOTES, "b", set={"body": f"{SECRET}!"})]
    await engine.append(
        appending(STREAM, NewEvent("message.edited", {"body": f"{SECRET}!"}), changes=edited)
    )
    assert SECRET in stores.inside.records()
    other = Insert(NOTES, note("c", body="kept"))
    gone: list[Change] = [Update(NOTES, "b", set={"body": ""}), other]
    await engine.append(appending(STREAM, changes=gone, redactions=[Redaction([2, 3], GONE)]))
    records = stores.inside.records()
    assert SECRET not in records
    assert "kept" in records


async def test_at_the_same_moment_as_what_they_redact(engine: Engine) -> None:
    """Everything is in one queue: what is redacted may not be written yet when it is decided."""
    done = await gathered(
        send(engine, "a", body="secret"),
        engine.append(appending(STREAM, redactions=[Redaction([1, 2], GONE)])),
        send(engine, "b", body="public"),
        send(engine, "c", body="secret"),
        engine.append(appending(STREAM, redactions=[Redaction([4], GONE)])),
    )
    assert [each.seq for each in done] == [1, 2, 3, 4, 5]
    assert await bodies(engine) == ["", None, "public", "", None]


async def test_who_sees_the_event_or_the_state_sees_them_redacted(engine: Engine) -> None:
    """While somebody reads all the time."""
    rounds = 40
    for n in range(rounds):
        await send(engine, f"n{n}", body="secret")
    head = rounds
    checked = 0

    async def watch() -> None:
        nonlocal checked
        while await engine.get(ORG, NOTES, f"n{rounds - 1}") is not None:
            there = await engine.get_many(ORG, NOTES, [f"n{n}" for n in range(rounds)])
            known = await engine.head(ORG, STREAM)
            assert known is not None
            events = await engine.read(ORG, STREAM, 0, rounds)
            for n, event in enumerate(events):
                if f"n{n}" not in there or known.seq > head + n:
                    assert event.content()["body"] == ""
                    checked += 1

    watching = asyncio.create_task(watch())
    for n in range(rounds):
        await engine.append(
            appending(
                STREAM,
                changes=[Update(NOTES, f"n{n}", set={"body": ""}), Delete(NOTES, f"n{n}")],
                redactions=[Redaction([n + 1], GONE)],
            )
        )
    await watching
    assert checked > 0
