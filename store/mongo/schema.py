"""What has to be in the database before it is used: versions, indexes, the rows' shape.

All of it may be done by several nodes at the same time, and again at every start.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping

from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError, OperationFailure

from domain.errors import Unavailable
from domain.ids import key_digest
from store.engine import StoreError
from store.mongo.conflicts import ATTEMPTS
from store.mongo.database import Database, Rows
from store.mongo.kinds import Kind, Row, Shape, document, ownership, version

VERSION = 1
"""Of the layout that this program writes."""

Migration = Callable[[Database], Awaitable[None]]

MIGRATIONS: Mapping[int, Migration] = {}
"""What brings the layout to a version from the one before. Each can be repeated, also after it was
cut short, and run by one node at a time, while others may still write the old layout."""

LEASE = 60_000
"""Milliseconds without a sign of a node that migrates after which another takes its work over."""

LOOK = 0.1
"""Seconds between looks at what another node is migrating."""

WRITTEN = 600_000
"""Milliseconds for which rows of another shape are looked for after a program last wrote them."""

RESHAPED = 200
"""Rows brought to a new shape at once."""


async def prepare(database: Database) -> None:
    """Bring the database up to date.

    Raises:
        StoreError: it is of a newer version, or a unique index does not hold for what is there.
    """
    await _migrate(database)
    await _indexes(
        database.log,
        IndexModel([("stream", 1), ("last", 1)], name="stream_last"),
        IndexModel([("key", 1)], name="key", unique=True, sparse=True),
        IndexModel([("pending", 1)], name="pending", sparse=True),
        IndexModel([("at", 1)], name="at", sparse=True),
        IndexModel([("gone", 1)], name="gone", sparse=True),
    )
    for kind in database.kinds.values():
        kind.widen(await _share_shape(database, kind))
        await _indexes(database.rows(kind), IndexModel([("_c", 1)], name="_c"))
        await reshape(database, kind)
        await _indexes(database.rows(kind), *_of(kind))
    await others_write(database)


async def _indexes(rows: Rows, *models: IndexModel) -> None:
    there = await rows.index_information()
    for model in models:  # each by itself: together, FerretDB fails if some are there
        if model.document["name"] not in there:
            try:
                await rows.create_indexes([model])
            except OperationFailure as error:
                raise StoreError(
                    f"index {model.document['name']} of {rows.name} cannot be made: {error}"
                ) from error


def _of(kind: Kind) -> list[IndexModel]:
    lists = {index.fields for index in kind.collection.indexes} - {("id",)}  # see `id_`
    lists |= kind.collection.set_indexes.keys()
    models = [
        IndexModel([("_o", 1), *((name, 1) for name in fields), ("id", 1)], name="_".join(fields))
        for fields in sorted(lists)
    ]
    ordered = {index.fields for index in kind.collection.indexes if index.ordered}
    across = {index.fields for index in kind.collection.indexes if index.any_org} - ordered
    models += [
        IndexModel([(name, 1) for name in fields], name="any_" + "_".join(fields))
        for fields in sorted(across)
    ]
    models += [
        IndexModel(
            [*((name, 1) for name in dict.fromkeys((*fields, "id"))), ("_o", 1)],
            name="ordered_" + "_".join(fields),
        )
        for fields in sorted(ordered)
    ]
    models.append(IndexModel([("_o", 1), ("id", 1)], name="id_"))
    models += [
        IndexModel([(field, 1)], name=field, unique=True, sparse=True)
        for field in kind.unique_fields
    ]
    models += [
        IndexModel([("_o", 1), (field, 1), ("id", 1)], name=field) for field in kind.text_fields
    ]
    models.append(IndexModel([("_x", 1)], name="_x", sparse=True))
    return models


# -- versions -------------------------------------------------------------------------------------


async def _migrate(database: Database) -> None:
    meta, me = database.meta, secrets.token_hex(8)
    await _insert_once(database, {"_id": "layout", "version": VERSION, "by": None, "until": 0})
    while True:
        row = await meta.find_one({"_id": "layout"})
        if row is None:
            raise Unavailable("The store's layout is not there.")
        found = int(row["version"])
        if found > VERSION:
            raise StoreError(
                f"the data is of version {found}, this program knows versions up to {VERSION}: "
                "run the newer program"
            )
        if found == VERSION:
            return
        now = database.milliseconds()
        if row["by"] is not None and row["until"] > now:
            await asyncio.sleep(LOOK)
            continue
        mine = await meta.update_one(
            {"_id": "layout", "version": found, "by": row["by"], "until": row["until"]},
            {"$set": {"by": me, "until": now + LEASE}},
        )
        if mine.matched_count:
            await _work(database, me, MIGRATIONS[found + 1])
            await meta.update_one(
                {"_id": "layout", "by": me},
                {"$set": {"version": found + 1, "by": None, "until": 0}},
            )


async def _work(database: Database, me: str, migration: Migration) -> None:
    """Migrate, however long it takes, as long as no other node has taken it over.

    Raises:
        Unavailable: one has.
    """
    work = asyncio.ensure_future(migration(database))
    try:
        while not (await asyncio.wait((work,), timeout=LEASE / 3000))[0]:
            mine = await database.meta.update_one(
                {"_id": "layout", "by": me}, {"$set": {"until": database.milliseconds() + LEASE}}
            )
            if not mine.matched_count:
                raise Unavailable("Another node has gone on with the migration.")
        await work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _insert_once(database: Database, row: Row) -> None:
    with contextlib.suppress(DuplicateKeyError):  # then it is there
        await database.meta.insert_one(row)


# -- epochs ---------------------------------------------------------------------------------------


async def read_generation(database: Database) -> str:
    """The part that all epochs have in common."""
    row = await database.meta.find_one({"_id": "epochs"})
    if row is None:
        await _insert_once(database, {"_id": "epochs", "generation": secrets.token_hex(8)})
        return await read_generation(database)
    return str(row["generation"])


async def new_generation(database: Database) -> str:
    """Change it."""
    generation = secrets.token_hex(8)
    await database.meta.update_one({"_id": "epochs"}, {"$set": {"generation": generation}})
    return generation


# -- shapes ---------------------------------------------------------------------------------------


async def _share_shape(database: Database, kind: Kind) -> Shape:
    """Add what this program declares to what all have declared; returns the sum."""
    name = f"shape/{kind.name}"
    for _ in range(ATTEMPTS):
        row = await database.meta.find_one({"_id": name})
        known = kind.shape if row is None else _shape(row).union(kind.shape)
        if row is not None and known == _shape(row):
            return known
        wanted: Row = {
            "_id": name,
            "_v": version(),
            "columns": sorted(known.columns),
            "uniques": sorted(",".join(fields) for fields in known.uniques),
            "texts": sorted(known.texts),
            "sets": sorted(known.sets),
        }
        if row is None:
            await _insert_once(database, wanted)
        else:
            await database.meta.replace_one({"_id": name, "_v": row["_v"]}, wanted)
    raise Unavailable("Too many nodes start at once.")


def _shape(row: Row) -> Shape:
    return Shape(
        frozenset(row["columns"]),
        frozenset(tuple(fields.split(",")) for fields in row["uniques"]),
        frozenset(row["texts"]),
        frozenset(row.get("sets", ())),
    )


async def others_write(database: Database) -> bool:
    """Say that this program is writing; whether programs with other shapes were, of late."""
    mine = key_digest(*(f"{name} {kind.digest}" for name, kind in sorted(database.kinds.items())))
    name, now = f"program/{mine}", database.milliseconds()
    await database.meta.update_one({"_id": name}, {"$set": {"program": now}}, upsert=True)
    others = {"program": {"$gt": now - WRITTEN}, "_id": {"$ne": name}}
    return await database.meta.find_one(others) is not None


async def silence(database: Database) -> float:
    """Seconds since a node last said that it writes; infinite if none ever did."""
    rows = await database.meta.find({"program": {"$gt": 0}}).to_list()
    last = max((int(row["program"]) for row in rows), default=None)
    return float("inf") if last is None else (database.milliseconds() - last) / 1000


async def reshape(database: Database, kind: Kind) -> int:
    """Bring rows that another version of the program wrote to this one's shape; how many."""
    rows = database.rows(kind)
    done = 0
    # Two ranges of the index, where `!=` would be one look at all of it.
    for other in ({"$lt": kind.digest}, {"$gt": kind.digest}):
        while True:
            found = await rows.find({"_c": other}).limit(RESHAPED).to_list()
            for row in found:
                wanted = kind.row(row["_o"], document(row), old=True) | ownership(row)
                same = {"_id": row["_id"], "_v": row["_v"]}
                try:
                    await rows.replace_one(same, {**wanted, "_v": version()})
                except DuplicateKeyError as error:
                    raise StoreError(
                        f"{kind.name}: two documents have the same unique values"
                    ) from error
            done += len(found)
            if len(found) < RESHAPED:
                break
    return done
