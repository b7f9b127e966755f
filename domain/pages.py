"""Pages of a list, and the opaque cursors that lead from one to the next."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

import orjson
from typing_extensions import TypedDict

from domain.errors import Invalid

Item = TypeVar("Item")
Row = TypeVar("Row")

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_CURSOR_LENGTH = 2048
"""Characters; a request model refuses a longer one."""


class Page(TypedDict, Generic[Item]):
    """Some items of a list, and the cursor that goes on from there; None at the end."""

    items: list[Item]
    next: str | None


def encode_cursor(position: Mapping[str, Any]) -> str:
    """A position in a list as an opaque text: safe in a URL, without padding."""
    return base64.urlsafe_b64encode(orjson.dumps(dict(position))).rstrip(b"=").decode()


def decode_cursor(cursor: str, fields: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """The position in a cursor.

    Args:
        fields: the names and types it must have, no more and no fewer.

    Raises:
        Invalid: it is none that this list gave out.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        position = orjson.loads(raw)
    except (binascii.Error, ValueError):
        raise Invalid.field("cursor", "not a cursor of this list") from None
    if (
        type(position) is not dict
        or position.keys() != fields.keys()
        or not all(isinstance(position[name], kind) for name, kind in fields.items())
    ):
        raise Invalid.field("cursor", "not a cursor of this list")
    return position


@overload
def resume(cursor: str | None, field: str, /) -> str | None: ...


@overload
def resume(cursor: str | None, field: str, second: str, /) -> tuple[str, str] | None: ...


def resume(
    cursor: str | None, field: str, second: str | None = None, /
) -> str | tuple[str, str] | None:
    """Where a list that is sorted by one text or by two goes on; None at its beginning.

    Args:
        field, second: what the cursor's position calls them.

    Raises:
        Invalid: the cursor is none that this list gave out.
    """
    if cursor is None:
        return None
    if second is None:
        one: str = decode_cursor(cursor, {field: str})[field]
        return one
    position = decode_cursor(cursor, {field: str, second: str})
    return position[field], position[second]


def cut(
    found: Sequence[Row], limit: int, position: Callable[[Row], Mapping[str, Any]]
) -> tuple[list[Row], str | None]:
    """A page of what was found, and the cursor behind it.

    Args:
        found: one more than `limit` if there is more; any others are not looked at.
        position: of a row in the list, as `resume` reads it.
    """
    page = list(found[:limit])
    return page, encode_cursor(position(page[-1])) if len(found) > limit else None


def by_id(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The position of a row in a list that is sorted by id."""
    return {"id": row["id"]}
