"""What was redacted is in no record of the store any more."""

import sqlite3
from typing import Any

from pymongo import MongoClient

from store.engine import Change, Engine, Insert, NewEvent, Redaction, Update
from tests.support.mongo_stores import MongoStores
from tests.support.stores import NOTES, appending, note, send
from tests.unit.store.conftest import SqliteStores

STREAM = "messages/r1"
SECRET = "hush-hush"


async def send_and_redact(engine: Engine) -> None:
    """A message, and another that is sent and edited, and taken back at once."""
    await send(engine, "a", body="kept")
    await send(engine, "b", body=SECRET)
    edited: list[Change] = [Update(NOTES, "b", set={"body": f"{SECRET}!"})]
    await engine.append(
        appending(STREAM, NewEvent("message.edited", {"body": f"{SECRET}!"}), changes=edited)
    )
    other = Insert(NOTES, note("c", body="kept"))
    gone: list[Change] = [Update(NOTES, "b", set={"body": ""}), other]
    await engine.append(
        appending(STREAM, changes=gone, redactions=[Redaction([2, 3], {"body": ""})])
    )


async def test_sqlite(sqlite: SqliteStores) -> None:
    engine = await sqlite.engine()
    await send_and_redact(engine)
    db = sqlite3.connect(sqlite.path)
    tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    rows = [
        row
        for (name,) in tables
        if not name.startswith("fts_")  # the index's own form
        for row in db.execute(f'SELECT * FROM "{name}"')
    ]
    db.close()
    assert SECRET not in repr(rows)
    assert "kept" in repr(rows)


async def test_mongo(mongo: MongoStores) -> None:
    await send_and_redact(await mongo.node(sweep_every=600.0))
    client: MongoClient[dict[str, Any]] = MongoClient(mongo.url)
    database = client.get_default_database()
    rows = [row for name in database.list_collection_names() for row in database[name].find()]
    client.close()
    assert SECRET not in repr(rows)
    assert "kept" in repr(rows)
