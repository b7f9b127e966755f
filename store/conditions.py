"""Conditions judged on a document in memory; every engine means the same by them."""

from collections.abc import Mapping, Sequence
from typing import Any

from store.engine import Collection, Filter, Is

_COMPARISONS = {"<", "<=", ">", ">="}


def prefix_end(prefix: str) -> str | None:
    """The least string greater than all that start with `prefix`; None if there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            following = 0xE000 if last == 0xD7FF else last + 1  # surrogates are not characters
            return prefix[:-1] + chr(following)
        prefix = prefix[:-1]
    return None


def each_of(wanted: Any) -> tuple[Any, ...]:
    """The conditions that a filter has on one field: values and `Is`."""
    return wanted if type(wanted) is tuple else (wanted,)


def matches(doc: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether a filter holds of a document; fields need not be declared."""
    return all(
        _holds(doc.get(name), each) for name, wanted in where.items() for each in each_of(wanted)
    )


def _holds(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Is):
        return bool(value == wanted)
    op, other = wanted.op, wanted.value
    if op == "!=":
        return bool(value != other)
    if op == "in":
        return value in list(other)
    if op == "has":
        return isinstance(value, list | tuple) and other in value
    if op == "prefix":
        return isinstance(value, str) and value.startswith(other)
    if op not in _COMPARISONS:
        raise ValueError(f"no such comparison: {op!r}")
    if isinstance(value, str) != isinstance(other, str) or value is None or other is None:
        return False
    if op == "<":
        return bool(value < other)
    if op == "<=":
        return bool(value <= other)
    if op == ">":
        return bool(value > other)
    return bool(value >= other)


def one_value(where: Filter) -> frozenset[str]:
    """The fields of which a filter leaves one value: what an index has of it is sorted by the field
    behind. Of a set field it is the string that it has.
    """
    return frozenset(
        name
        for name, wanted in where.items()
        if any(not isinstance(each, Is) or each.op == "has" for each in each_of(wanted))
    )


def check_any_org_order(collection: Collection, where: Filter, order: Sequence[str]) -> None:
    """Hold an order of documents of any organization against what is declared for it.

    Raises:
        ValueError: no `ordered` index has what the filter finds in this order.
    """
    names = tuple(name.removeprefix("-") for name in order)
    wanted = names if "id" in names else (*names, "id")
    one = one_value(where)
    for index in collection.indexes:
        fields = index.fields if "id" in index.fields else (*index.fields, "id")
        led = len(fields) - len(wanted)
        if index.ordered and led >= 0 and fields[led:] == wanted and one.issuperset(fields[:led]):
            return
    raise ValueError(f"{collection.name}: no ordered index sorts by {tuple(order)}")
