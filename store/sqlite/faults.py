"""What SQLite's errors mean: the store is out of reach, or the caller is at fault."""

import sqlite3

from domain.errors import Unavailable

_OUTAGE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOTADB,
    }
)


def is_outage(error: BaseException) -> bool:
    """Whether it is the file's or the disk's fault, and the same may succeed later."""
    if isinstance(error, OSError | Unavailable):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.Error) and code is not None and code & 0xFF in _OUTAGE


def unavailable(error: BaseException) -> Unavailable:
    """An outage as the caller sees it: the details stay in the cause."""
    if isinstance(error, Unavailable):
        return Unavailable(error.message)
    made = Unavailable("The store cannot be reached.")
    made.__cause__ = error
    return made
