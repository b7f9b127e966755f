"""What the file holds, and how an older file is brought up to date.

Streams and bookkeeping have numbered migrations. The collections' tables follow their
declarations: what differs is found at start and changed, columns are filled from the documents.
"""

# ruff: noqa: S608 - names in statements come from declarations; values are always bound

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from domain.errors import Unavailable
from store.engine import StoreError
from store.sqlite.checkpoint import SAFETY
from store.sqlite.faults import is_outage
from store.sqlite.search import TOKENIZER
from store.sqlite.sets import drop_others
from store.sqlite.tables import Table
from store.words import WORDS

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE streams (
        id INTEGER PRIMARY KEY,
        org TEXT NOT NULL,
        name TEXT NOT NULL UNIQUE,
        epoch TEXT NOT NULL,
        trimmed INTEGER NOT NULL DEFAULT 0
    );
    -- The head is the newest event, which is never trimmed: no second row to write per append.
    -- Rows are added at the end and found by the index: kept in order of (stream, seq), each append
    -- would split and rewrite pages in the middle, twice as many for each commit.
    CREATE TABLE events (
        stream INTEGER NOT NULL REFERENCES streams (id),
        seq INTEGER NOT NULL,
        type TEXT NOT NULL,
        at TEXT NOT NULL,
        actor TEXT NOT NULL,
        actor_kind TEXT NOT NULL,
        data TEXT NOT NULL,
        UNIQUE (stream, seq)
    );
    -- `client` is a 128-bit BLAKE2b of the actor and the client_id.
    CREATE TABLE keys (
        stream INTEGER NOT NULL REFERENCES streams (id),
        client BLOB NOT NULL,
        seq INTEGER NOT NULL,
        count INTEGER NOT NULL,
        digest TEXT NOT NULL,
        at TEXT NOT NULL,
        PRIMARY KEY (stream, client)
    ) WITHOUT ROWID;
    -- How far the text of a collection is in its search index, by _rowid; `field` says of what the
    -- index is made.
    CREATE TABLE search (
        collection TEXT PRIMARY KEY,
        field TEXT NOT NULL,
        upto INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE pings (id INTEGER PRIMARY KEY, count INTEGER NOT NULL);
    """,
)
"""Each brings the file from the version of its place to the next. Never change one; add one."""

OLDEST_SQLITE = (3, 35, 0)

READER_PAGES = 4 * 1024 * 1024
"""Bytes of pages that a reading connection of its own keeps in memory."""


def open_writer(
    path: Path, *, synchronous: str, busy_timeout: float, page_bytes: int, create: bool
) -> sqlite3.Connection:
    """A connection to write with.

    Raises:
        sqlite3.Error: the file cannot be opened; with `create` false also if it is not there.
    """
    mode = "rwc" if create else "rw"
    if create and not path.exists():
        with contextlib.suppress(OSError):  # SQLite says why, in a moment
            path.touch(0o600)  # it has everybody's messages; -wal and -shm follow it
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=1024,
        timeout=busy_timeout,
    )
    try:
        for pragma in (
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            "foreign_keys = ON",
            "secure_delete = FAST",
            "temp_store = MEMORY",
            f"cache_size = -{page_bytes // 1024}",
            f"wal_autocheckpoint = {SAFETY}",
            "journal_size_limit = 67108864",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def open_reader(
    path: Path, *, busy_timeout: float = 5.0, page_bytes: int = READER_PAGES
) -> sqlite3.Connection:
    """A connection that can only read, for use in one thread.

    Raises:
        sqlite3.Error: the file is not there or cannot be opened.
    """
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
        timeout=busy_timeout,
    )
    db.execute("PRAGMA query_only = ON")
    db.execute(f"PRAGMA cache_size = -{page_bytes // 1024}")
    return db


def version(db: sqlite3.Connection) -> int:
    """The schema version of an open file; 0 for an empty one.

    Raises:
        StoreError: the file is of a newer version than this program knows, or not of its making.
    """
    known = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    if not known:
        return 0
    if ("schema_version",) not in known:
        raise StoreError("the file is a database of some other program")
    found = int(db.execute("SELECT version FROM schema_version").fetchone()[0])
    if found > len(MIGRATIONS):
        raise StoreError(
            f"the data is of version {found}, this program knows versions up to "
            f"{len(MIGRATIONS)}: run the newer program, or restore an older backup"
        )
    return found


def migrate(db: sqlite3.Connection, tables: Iterable[Table]) -> None:
    """Bring a file up to date in one transaction.

    Raises:
        StoreError: newer data than the program, or data that a new unique index does not allow.
        Unavailable: locked, full, unreadable.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old, 3.35 is needed")
    try:
        db.execute("BEGIN IMMEDIATE")
        try:
            _migrate(db, tables)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        if is_outage(error):
            raise Unavailable(f"The store cannot be opened: {error}") from error
        raise StoreError(f"the schema cannot be brought up to date: {error}") from error


def _migrate(db: sqlite3.Connection, tables: Iterable[Table]) -> None:
    found = version(db)
    if found == 0:
        db.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
        db.execute("INSERT INTO schema_version VALUES (0)")
    for script in MIGRATIONS[found:]:
        for statement in _statements(script):
            db.execute(statement)
    if found < len(MIGRATIONS):
        db.execute("UPDATE schema_version SET version = ?", (len(MIGRATIONS),))
    for table in tables:
        _follow(db, table)
        _follow_text(db, table)


def _statements(script: str) -> Iterable[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _follow(db: sqlite3.Connection, table: Table) -> None:
    """Make a collection's table what its declaration says."""
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table.name})")]
    if not columns:
        fields = "".join(f'"{name}", ' for name in table.columns)
        db.execute(
            f"CREATE TABLE {table.name} (_rowid INTEGER PRIMARY KEY, _org TEXT NOT NULL, "
            f"id TEXT NOT NULL, {fields}_stream INTEGER, _doc TEXT NOT NULL)"
        )
        db.execute(f'CREATE UNIQUE INDEX "key {table.plain}" ON {table.name} (_org, id)')
        columns = ["_rowid", "_org", "id", *table.columns, "_stream", "_doc"]
    if "_stream" not in columns:  # what an earlier version wrote belongs to whoever writes it next
        db.execute(f"ALTER TABLE {table.name} ADD COLUMN _stream INTEGER")
        columns.append("_stream")

    # Before the columns: triggers use them.
    sets = drop_others(db, table.plain, table.sets)
    wanted = table.indexes
    there = {row[1] for row in db.execute(f"PRAGMA index_list({table.name})")}
    for name in there - wanted.keys() - {f"key {table.plain}"}:
        db.execute(f'DROP INDEX "{name}"')
    # A column that is no longer filled must not be believed by a later version that declares it.
    for name in set(columns) - {"_rowid", "_org", "id", "_stream", "_doc", *table.columns}:
        db.execute(f'ALTER TABLE {table.name} DROP COLUMN "{name}"')
    for name in table.columns:
        if name not in columns:
            db.execute(f'ALTER TABLE {table.name} ADD COLUMN "{name}"')
            db.execute(f"UPDATE {table.name} SET \"{name}\" = json_extract(_doc, '$.{name}')")
    for name, statement in wanted.items():
        if name not in there:
            db.execute(statement)
    for index in table.sets:
        if index.plain not in sets:
            index.make(db)


def _follow_text(db: sqlite3.Connection, table: Table) -> None:
    """Make a collection's search index, empty, if it is not there for this field and these words."""
    name, field = table.collection.name, table.collection.text
    row = db.execute("SELECT field FROM search WHERE collection = ?", (name,)).fetchone()
    had = row[0] if row is not None else None
    made_of = None if field is None else f"{field} as words, {WORDS}"
    if had == made_of:
        return
    db.execute(f'DROP TABLE IF EXISTS "fts_{name}"')
    db.execute("DELETE FROM search WHERE collection = ?", (name,))
    if field is not None:
        db.execute(
            f"CREATE VIRTUAL TABLE {table.fts} USING fts5 "
            f"(text, content='', columnsize=0, tokenize='{TOKENIZER}')"
        )
        db.execute("INSERT INTO search VALUES (?, ?, 0)", (name, made_of))
