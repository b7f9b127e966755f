"""Documents within a transaction: as the file has them, as decided so far, and whose they are."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from store.engine import Document
from store.sqlite.cache import Key
from store.sqlite.search import indexed
from store.sqlite.tables import Table


class State(NamedTuple):
    """A document at one moment."""

    rowid: int
    text: bytes | None
    owner: int | None
    doc: Document | None
    columns: list[Any] | None


class Row:
    """A document within a transaction."""

    __slots__ = ("columns", "doc", "owner", "rowid", "stored", "stored_owner", "text")

    def __init__(
        self, rowid: int = 0, stored: bytes | None = None, owner: int | None = None
    ) -> None:
        self.rowid = rowid
        self.stored = stored
        """In the file; None if it is not there."""
        self.text = stored
        """As decided so far."""
        self.stored_owner = owner
        """The stream that it belongs to in the file; None for none."""
        self.owner = owner
        """As decided so far."""
        self.doc: Document | None = None
        """`text` decoded, once somebody asks."""
        self.columns: list[Any] | None = None
        """Of `text`, where known."""

    def document(self) -> Document | None:
        """The document as decided so far, not to be changed in place."""
        if self.doc is None and self.text is not None:
            self.doc = orjson.loads(self.text)
        return self.doc

    def state(self) -> State:
        """What `restore` goes back to."""
        return State(self.rowid, self.text, self.owner, self.doc, self.columns)

    def restore(self, state: State) -> None:
        """Take back what was decided since."""
        self.rowid, self.text, self.owner, self.doc, self.columns = state


def check_plain(key: Key, row: Row | None, owner: int | None) -> None:
    """Hold a change against whose the document is. `owner`: the stream that makes it, None for a
    plain change.

    Raises:
        ValueError: a plain change of what belongs to a stream.
    """
    if owner is None and row is not None and row.owner is not None:
        raise ValueError(f"{key[0]}: {key[2]} belongs to a stream")


def check_owned(table: Table, key: Key, before: State, row: Row, owner: int) -> None:
    """Hold a document, as an append to the stream `owner` leaves it, against what it was before.

    Raises:
        ValueError: it belongs to another stream, or has other unique values now.
    """
    if before.text is None or row.text is None:
        return
    if before.owner is not None and before.owner != owner:
        raise ValueError(f"{key[0]}: {key[2]} belongs to another stream")
    if table.uniques:
        old: Mapping[str, Any] = before.doc or orjson.loads(before.text)
        if table.unique_values(old) != table.unique_values(row.document() or {}):
            raise ValueError(f"{key[0]}: an append does not change the unique values of {key[2]}")


def text_of(doc: bytes | None, field: str) -> str | None:
    """What the search index gets of a document; None if there is nothing."""
    if doc is None:
        return None
    text = orjson.loads(doc).get(field)
    return indexed(text) if isinstance(text, str) and text else None
