"""The storage engine on SQLite."""

from store.sqlite import archive
from store.sqlite.copies import backup, restore
from store.sqlite.engine import SqliteEngine
from store.sqlite.writer import Observer

__all__ = ["Observer", "SqliteEngine", "archive", "backup", "restore"]
