"""Filters and sort orders as MongoDB has them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from store.conditions import each_of, prefix_end
from store.engine import Filter, Is, Value
from store.mongo.kinds import Kind, row_id

Query = dict[str, Any]

_COMPARISONS = {"<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte", "!=": "$ne"}


def _condition(wanted: Any) -> Any:
    if not isinstance(wanted, Is):
        return wanted
    op, value = wanted.op, wanted.value
    if op in _COMPARISONS:
        return {_COMPARISONS[op]: value}
    if op == "in":
        return {"$in": list(value)}
    if op == "prefix":
        end = prefix_end(value)
        return {"$gte": value} if end is None else {"$gte": value, "$lt": end}
    raise ValueError(f"no such comparison: {op!r}")


def condition(kind: Kind, where: Filter, org: str | None) -> Query:
    """A filter; without an organization, over all of them.

    Raises:
        ValueError: a field that is not declared, or no such comparison.
    """
    query: Query = {"_o": {"$gt": ""}} if org is None else {"_o": org}
    more: list[Query] = []
    for name, wanted in where.items():
        for each in each_of(wanted):
            asked = _by_id(org, each) if name == "id" else None
            if kind.is_set(name):
                asked = {name: _has(kind, name, each)}
            if asked is None:
                asked = {kind.field(name): _condition(each)}
            ((field, value),) = asked.items()
            if field not in query:
                query[field] = value
            elif _apart(query[field], value):
                query[field] = {**query[field], **value}
            else:
                more.append(asked)
    return {**query, "$and": more} if more else query


def _has(kind: Kind, name: str, wanted: Any) -> Any:
    if not isinstance(wanted, Is) or wanted.op != "has" or not isinstance(wanted.value, str):
        raise ValueError(f"{kind.name}: of {name} only `has` can be asked")
    return wanted.value


def _by_id(org: str | None, wanted: Any) -> Query | None:
    """A condition on ids that the index answers which is always there; None if it does not."""
    if org is None:
        return None
    if isinstance(wanted, str):
        return {"_id": row_id(org, wanted)}
    if isinstance(wanted, Is) and wanted.op == "in":
        return {"_id": {"$in": [row_id(org, id) for id in wanted.value if id is not None]}}
    return None


def _apart(one: Any, other: Any) -> bool:
    """Whether two conditions on a field can be one: a range has one place in an index."""
    return isinstance(one, dict) and isinstance(other, dict) and not one.keys() & other.keys()


class Order(NamedTuple):
    """Sort fields, all in one direction, `id` among them."""

    fields: tuple[str, ...]
    descending: bool

    @property
    def sort(self) -> list[tuple[str, int]]:
        """As MongoDB takes it."""
        return [(name, -1 if self.descending else 1) for name in self.fields]


def order_of(kind: Kind, order: Sequence[str], *, any_org: bool = False) -> Order:
    """Read an `order`; with `any_org`, the organization is its last field.

    Raises:
        ValueError: a field that is not declared, or directions that differ.
    """
    descending = bool(order) and order[0].startswith("-")
    fields = []
    for name in order:
        if name.startswith("-") != descending:
            raise ValueError("all sort fields must have one direction")
        fields.append(kind.field(name.removeprefix("-")))
    if "id" not in fields:
        fields.append("id")
    if any_org:
        fields.append("_o")
    return Order(tuple(fields), descending)


_NUMBERS = {"$lte": float("inf")}
_STRINGS = {"$gte": ""}
_BOOLS = {"$in": [False, True]}


def _beyond(value: Value, descending: bool) -> list[Any]:
    """Conditions of the values that sort behind one: null, then numbers, strings, truth values.

    A comparison finds values of the same type only, so the other types have their own.
    """
    if value is None:
        return [] if descending else [{"$ne": None}]
    same = {"$lt" if descending else "$gt": value}
    if isinstance(value, bool):
        return [same, _STRINGS, _NUMBERS, None] if descending else [same]
    if isinstance(value, str):
        return [same, _NUMBERS, None] if descending else [same, _BOOLS]
    return [same, None] if descending else [same, _STRINGS, _BOOLS]


def behind(order: Order, after: Sequence[Value]) -> Query:
    """The condition of what sorts behind these values.

    Raises:
        ValueError: `after` does not have a value for every sort field.
    """
    if len(after) != len(order.fields):
        raise ValueError(f"`after` needs values for {order.fields}")
    parts: list[Query] = []
    for last, (name, value) in enumerate(zip(order.fields, after, strict=True)):
        same = dict(zip(order.fields[:last], after[:last], strict=True))
        if name in {"id", "_o"}:
            parts.append({**same, name: {"$lt" if order.descending else "$gt": value}})
        else:
            parts += [{**same, name: each} for each in _beyond(value, order.descending)]
    return {"$or": parts}


def changed(
    doc: Mapping[str, Any], set: Mapping[str, Any], inc: Mapping[str, int]
) -> dict[str, Any]:
    """A document after an update.

    Raises:
        TypeError: a field to add to is no number.
    """
    after = {**doc, **set}
    for name, step in inc.items():
        after[name] = (after.get(name) or 0) + step
    return after
