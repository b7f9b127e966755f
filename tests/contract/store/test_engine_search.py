"""Full-text search."""

import asyncio

import pytest

from store.engine import Collection, Delete, Engine, Insert, Is, Put, Update
from tests.support.stores import NOTES, ORG, OTHER, ROOMS, Stores, appending, note, send


async def found(engine: Engine, text: str, where: object = None, **more: object) -> list[str]:
    docs = await engine.search(ORG, NOTES, text, where or {}, **{"limit": 100, **more})  # type: ignore[arg-type]
    return [doc["id"] for doc in docs]


async def write(engine: Engine, **bodies: str | None) -> None:
    await engine.write(
        ORG, [Insert(NOTES, note(id, body=body, room="r1")) for id, body in bodies.items()]
    )


async def test_every_word_must_be_there_the_last_as_a_prefix(engine: Engine) -> None:
    await write(engine, a="the quick brown fox", b="the quick dog", c="a brown bear", d="", e=None)
    assert await found(engine, "quick") == ["b", "a"]
    assert await found(engine, "quick the") == ["b", "a"]
    assert await found(engine, "the qui") == ["b", "a"]
    assert await found(engine, "qui the") == []
    assert await found(engine, "brown") == ["c", "a"]
    assert await found(engine, "brown fox") == ["a"]
    assert await found(engine, "fox brown quick the") == ["a"]
    assert await found(engine, "zebra") == []


async def test_case_and_accents_do_not_matter(engine: Engine) -> None:
    await write(engine, a="Crème BRÛLÉE", b="creme brulee", c="cre\u0300me", d="ПРИВЕТ Ærø")
    assert await found(engine, "crème") == ["c", "b", "a"]
    assert await found(engine, "CREME brul") == ["b", "a"]
    assert await found(engine, "cre\u0300me") == ["c", "b", "a"]
    assert await found(engine, "привет") == ["d"]


async def test_words_of_all_scripts(engine: Engine) -> None:
    bodies = {
        "a1": "Die Straße",
        "a2": "İstanbul ısı",
        "a3": "ﬁn ŉ ǅ",
        "b1": "آب أحمد",
        "b2": "שָׁלוֹם",
        "c1": "नमस्ते दुनिया",
        "c2": "สวัสดี",
        "d1": "カ゚ ガ",
        "d2": "한국어",
        "e1": "ok🏿ok done🪿done",
        "e2": "price₿price",
        "f1": "\ue000x y\u0378z",
        "f2": "x² ½ Ⅷ ǣ ΌΣΟΣ",
    }
    await write(engine, **bodies)
    for query, wanted in {
        "strasse": ["a1"],
        "STRASSE die": ["a1"],
        "straße": ["a1"],
        "stras": ["a1"],
        "istanbul": ["a2"],
        "ısı": ["a2"],
        "اب": ["b1"],
        "احمد": ["b1"],
        "שלום": ["b2"],
        "नमस्ते": ["c1"],
        "สวสด": ["c2"],
        "カ": ["d1"],
        "か": [],
        "ガ": ["d1"],
        "カ゚": ["d1"],
        "한국": ["d2"],
        "한": ["d2"],
        "ok": ["e1"],
        "done": ["e1"],
        "price": ["e2"],
        "x": ["f2", "f1"],
        "x y": ["f1"],
        "z": ["f1"],
        "x²": ["f2"],
        "½": ["f2"],
        "æ": ["f2"],
        "όσος": ["f2"],
        "οσοσ": ["f2"],
    }.items():
        assert await found(engine, query) == wanted, query


async def test_every_character_is_in_the_words_that_it_is_looked_for_by(engine: Engine) -> None:
    # One here and there in the planes that are written in.
    characters = [chr(code) for code in range(0xA1, 0x1FB00, 701) if not 0xD800 <= code < 0xE000]
    await engine.write(
        ORG,
        [
            Insert(NOTES, note(f"n{ord(each):06x}", body=f"q{ord(each)} a{each}b {each} end"))
            for each in characters
        ],
    )
    for each in characters:
        wanted = [f"n{ord(each):06x}"]
        assert await found(engine, f"a{each}b q{ord(each)}") == wanted, hex(ord(each))
        assert await found(engine, f"q{ord(each)} a{each}") == wanted, hex(ord(each))


async def test_no_character_has_a_meaning(engine: Engine) -> None:
    await write(engine, a='say "hi" to AND OR NOT NEAR body:x (y) * ^z -w', b="plain")
    for text in (
        '"',
        '"hi"',
        "AND",
        "NOT hi",
        "NEAR(hi to)",
        "body:x",
        "x*",
        "hi -w",
        "(y)",
        "^z",
        "'",
    ):
        got = await found(engine, text)
        assert got in (["a"], []), text
        assert "b" not in got
    assert await found(engine, "OR plain") == []
    assert await found(engine, 'say "hi" AND') == ["a"]
    assert await found(engine, "\x00hi\x00") == ["a"]


async def test_no_word_no_hits(engine: Engine) -> None:
    await write(engine, a="text")
    for text in ("", "   ", "!!!", '"', "-- * ()", "_", "👍"):
        assert await found(engine, text) == []


async def test_newest_first_in_pages(engine: Engine) -> None:
    await write(engine, **{f"n{n:02}": f"word {n}" for n in (3, 1, 2, 7, 5, 6, 4)})
    assert await found(engine, "word", limit=3) == ["n07", "n06", "n05"]
    assert await found(engine, "word", limit=3, before="n05") == ["n04", "n03", "n02"]
    assert await found(engine, "word", limit=3, before="n02") == ["n01"]


async def test_filters_and_organizations(engine: Engine) -> None:
    await engine.insert(ORG, NOTES, note("a", room="r1", seq=1, body="word"))
    await engine.insert(ORG, NOTES, note("b", room="r2", seq=2, body="word"))
    await engine.insert(OTHER, NOTES, note("c", room="r1", seq=1, body="word"))
    assert await found(engine, "word") == ["b", "a"]
    assert await found(engine, "word", {"room": "r1"}) == ["a"]
    assert await found(engine, "word", {"seq": Is(">", 1)}) == ["b"]
    assert [d["id"] for d in await engine.search(OTHER, NOTES, "word", {}, limit=9)] == ["c"]


async def test_everything_written_before_is_found(stores: Stores, engine: Engine) -> None:
    for n in range(30):
        await send(engine, f"n{n:02}", body=f"unique{n}")
        assert await found(engine, f"unique{n}") == [f"n{n:02}"]
    await asyncio.gather(*(send(engine, f"m{n:02}", body="many") for n in range(50)))
    async for store in stores.before_and_after_restart(engine):
        assert len(await found(store, "many")) == 50
        await send(store, f"x{id(store)}", body="late")
    assert len(await found(store, "late")) == 2


async def test_changes_are_found_as_they_are_now(stores: Stores, engine: Engine) -> None:
    for indexed in (False, True):
        await engine.delete(ORG, NOTES, {})
        await write(engine, a="alpha one", b="beta one", c="gamma one", d="delta one", e="eps one")
        if indexed:
            assert await found(engine, "one") == ["e", "d", "c", "b", "a"]
        await engine.update(ORG, NOTES, "a", set={"body": "changed two"})
        await engine.append(appending(changes=[Update(NOTES, "b", set={"body": None})]))
        await engine.write(ORG, [Delete(NOTES, "c"), Put(NOTES, note("d", body="put two"))])
        await engine.update(ORG, NOTES, "e", set={"room": "elsewhere"})
        async for store in stores.before_and_after_restart(engine):
            assert await found(store, "one") == ["e"]
            assert await found(store, "two") == ["d", "a"]
            assert await found(store, "alpha") == []
            engine = store


async def test_what_was_removed_is_not_found_when_its_place_is_taken(engine: Engine) -> None:
    await write(engine, a="first")
    assert await found(engine, "first") == ["a"]
    await engine.delete(ORG, NOTES, {"id": "a"})
    await write(engine, b="second")
    assert await found(engine, "first") == []
    assert await found(engine, "second") == ["b"]
    await engine.delete(ORG, NOTES, {"id": "b"})
    await write(engine, c="third")
    assert await found(engine, "third") == ["c"]
    assert await found(engine, "second") == []


async def test_searching_while_writing(engine: Engine) -> None:
    async def write_and_find(n: int) -> None:
        stream = f"messages/{n % 3}"
        await send(engine, f"n{n:03}", stream=stream, body=f"common only{n}x")
        assert await found(engine, f"only{n}x") == [f"n{n:03}"]
        edit = Update(NOTES, f"n{n:03}", set={"body": f"other only{n}y"})
        await engine.append(appending(stream, changes=[edit]))
        assert await found(engine, f"only{n}x") == []
        assert await found(engine, f"only{n}y") == [f"n{n:03}"]

    await asyncio.gather(*(write_and_find(n) for n in range(40)))
    assert await found(engine, "common") == []
    assert len(await found(engine, "other")) == 40


async def test_a_later_version_may_search_another_field(stores: Stores) -> None:
    plain = Collection("notes")
    engine = await stores.start((plain,))
    await engine.write(
        ORG, [Insert(plain, note(f"n{n:03}", body="old", title="fresh")) for n in range(700)]
    )
    await stores.stop(engine)
    for field, word, other in (("body", "old", "fresh"), ("title", "fresh", "old")):
        kind = Collection("notes", text=field)
        engine = await stores.start((kind,))
        assert len(await engine.search(ORG, kind, word, {}, limit=1000)) == 700
        assert await engine.search(ORG, kind, other, {}, limit=1000) == []
        await stores.stop(engine)


async def test_a_collection_without_text_cannot_be_searched(engine: Engine) -> None:
    with pytest.raises(ValueError, match="rooms"):
        await engine.search(ORG, ROOMS, "x", {}, limit=1)


async def test_long_and_strange_texts(engine: Engine) -> None:
    await write(engine, a="x" * 200_000 + " end", b="null\x00byte word", c="日本語 テスト")
    assert await found(engine, "end") == ["a"]
    assert await found(engine, "word") == ["b"]
    assert await found(engine, "テスト") == ["c"]
    assert await found(engine, "word " * 10_000) == ["b"]
    await engine.delete(ORG, NOTES, {})
    assert await found(engine, "word") == []


@pytest.mark.parametrize(
    ("body", "queries"),
    [
        ("私は東京都に住んでいます", ["東京", "京都", "住", "東京都", "住んで", "東 住んで"]),
        ("我们明天去北京开会", ["北京", "明天", "会", "北京开会"]),
        ("ฉันรักประเทศไทย", ["ประเทศ", "ไทย", "รัก"]),
        ("안녕하세요한국어입니다", ["한국어", "국어", "한국"]),
        ("Łódź, København, Đà Nẵng", ["lodz", "kobenhavn", "da nang", "ŁÓDŹ", "københ"]),
        ("Ｐａｒｌｅｙ　ｶﾞｲﾄﾞ", ["parley", "ガイド", "ＰＡＲＬＥＹ", "ｶﾞ"]),
        ("version3東京", ["version3", "東京", "vers"]),
    ],
)
async def test_words_are_found_inside_scripts_without_spaces_and_whatever_their_strokes_and_width(
    engine: Engine, body: str, queries: list[str]
) -> None:
    await write(engine, a=body, b="nothing of it", c="大阪 서울 กรุงเทพ")
    for query in queries:
        assert await found(engine, query) == ["a"], query


@pytest.mark.parametrize("near", [0, 3, 1000])
async def test_however_many_are_looked_at_one_by_one_the_hits_are_the_same(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    monkeypatch.setattr("store.sqlite.search.NEAR", near)
    docs = [
        note(f"n{number:02}", body="Crème even" if number % 2 else "creme", room=f"r{number % 5}")
        for number in range(20)
    ]
    await engine.write(ORG, [Insert(NOTES, doc) for doc in docs])
    await engine.insert(OTHER, NOTES, note("n99", body="creme", room="r1"))
    newest = [doc["id"] for doc in reversed(docs)]
    assert await found(engine, "creme") == newest
    assert await found(engine, "crem", limit=7) == newest[:7]
    assert await found(engine, "crem", limit=7, before=newest[6]) == newest[7:14]
    assert await found(engine, "crème eve") == newest[::2]
    for where in ({"room": "r1"}, {"room": Is("in", ["r1", "r4"])}, {"room": Is("!=", "r1")}):
        wanted = await engine.find(ORG, NOTES, where, order=("-id",))
        assert await found(engine, "creme", where) == [doc["id"] for doc in wanted]
        assert (
            await found(engine, "creme", where, limit=2, before="n15")
            == [doc["id"] for doc in wanted if doc["id"] < "n15"][:2]
        )
