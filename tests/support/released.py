"""Stores as the released version left them: `tests/integration/released/`.

They were made by a server of commit 005861f, over REST, and written out: the database as SQL
statements or extended JSON, and what is known of it (`*.known.json`): ids, secrets, and what that
version itself answered. Times are moved when a store is filled, as if it had been made just now:
sessions and invitations have not run out.
"""

import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from bson import json_util
from pymongo import MongoClient

from domain.clock import timestamp
from tests.support.server import ROOT

HERE = ROOT / "tests" / "integration" / "released"

_TIME = re.compile(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Released:
    """The store of one engine, `sqlite` or `mongodb`."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        text = self._read(f"{engine}.known.json", timedelta())
        made = orjson.loads(text)["upload"]["created_at"]
        self._moved = datetime.now(UTC) - _parsed(made)
        self.known: dict[str, Any] = orjson.loads(
            self._read(f"{engine}.known.json", self._moved).encode()
        )

    def _read(self, name: str, by: timedelta) -> str:
        return _TIME.sub(lambda found: _moved(found[0], by), (HERE / name).read_text())

    def fill_sqlite(self, data_dir: Path) -> None:
        """Make the database, and the uploaded files, in a server's directory."""
        data_dir.mkdir(parents=True)
        database = sqlite3.connect(data_dir / "parley.db")
        database.executescript(self._read("sqlite.sql", self._moved))
        database.close()
        for name, content in self.known["files"].items():
            file = data_dir / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)

    def fill_mongodb(self, url: str) -> None:
        """Make the collections in a database."""
        client: MongoClient[dict[str, Any]] = MongoClient(url)
        collections = json_util.loads(self._read("mongodb.json", self._moved))
        for name, told in collections.items():
            rows = client.get_default_database()[name]
            for index in told["indexes"]:
                fields = [(field, direction) for field, direction in index["key"]]
                rows.create_index(
                    fields, name=index["name"], unique=index["unique"], sparse=index["sparse"]
                )
            if told["rows"]:
                rows.insert_many(told["rows"])
        client.close()


def _parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _moved(text: str, by: timedelta) -> str:
    return timestamp((_parsed(text) + by).timestamp())
