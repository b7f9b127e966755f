"""Filters and sort orders as SQL."""

# ruff: noqa: S608 - names in statements come from declarations; values are always bound

from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import orjson

from store.conditions import each_of, prefix_end
from store.engine import Filter, Is, Value
from store.sqlite.tables import Table

ORG = "_org"
"""The column of the organization, which no field is called."""

_COMPARISONS = {"<", "<=", ">", ">="}


class Sql(NamedTuple):
    """A piece of SQL and its parameters."""

    text: str
    params: list[Any]


def _condition(column: str, wanted: Any) -> Sql:
    if not isinstance(wanted, Is):
        return Sql(f"{column} IS NULL", []) if wanted is None else Sql(f"{column} = ?", [wanted])
    op, value = wanted.op, wanted.value
    if op in _COMPARISONS:
        return Sql(f"{column} {op} ?", [value])
    if op == "!=":
        return Sql(f"{column} IS NOT ?", [value])
    if op == "in":
        values = list(value)
        listed = [one for one in values if one is not None]
        text = f"{column} IN (SELECT value FROM json_each(?))"
        if len(listed) < len(values):
            text = f"({text} OR {column} IS NULL)"
        return Sql(text, [orjson.dumps(listed).decode()])
    if op == "prefix":
        end = prefix_end(value)
        # Numbers sort before all text, so the lower bound keeps them out.
        if end is None:
            return Sql(f"{column} >= ?", [value])
        return Sql(f"({column} >= ? AND {column} < ?)", [value, end])
    raise ValueError(f"no such comparison: {op!r}")


def condition(table: Table, where: Filter, alias: str = "t") -> Sql:
    """The SQL of a filter, starting with `AND`; empty for one without conditions.

    Raises:
        ValueError: a field that is not declared, or no such comparison.
    """
    texts: list[str] = []
    params: list[Any] = []
    for name, wanted in where.items():
        column = f"{alias}.{table.column(name)}"
        for each in each_of(wanted):
            one = _condition(column, each)
            texts.append(f" AND {one.text}")
            params += one.params
    return Sql("".join(texts), params)


class Order(NamedTuple):
    """Sort fields, all in one direction, `id` among them."""

    fields: tuple[str, ...]
    descending: bool


def order_of(table: Table, order: Sequence[str], *, any_org: bool = False) -> Order:
    """Read an `order`; with `any_org`, the organization is its last field.

    Raises:
        ValueError: a field that is not declared, or directions that differ.
    """
    descending = bool(order) and order[0].startswith("-")
    fields = []
    for name in order:
        if name.startswith("-") != descending:
            raise ValueError("all sort fields must have one direction")
        field = name.removeprefix("-")
        table.column(field)
        fields.append(field)
    if "id" not in fields:
        fields.append("id")
    if any_org:
        fields.append(ORG)
    return Order(tuple(fields), descending)


def _sorted(table: Table, name: str) -> str:
    return f"t.{ORG if name == ORG else table.column(name)}"


def order_by(table: Table, order: Order) -> str:
    """The ORDER BY clause."""
    way = " DESC" if order.descending else ""
    return " ORDER BY " + ", ".join(f"{_sorted(table, name)}{way}" for name in order.fields)


def never_null(where: Filter) -> Set[str]:
    """The fields that a filter leaves no null in."""
    return {
        name
        for name, wanted in where.items()
        if any(
            each is not None
            if not isinstance(each, Is)
            else each.op != "!=" and not (each.op == "in" and None in each.value)
            for each in each_of(wanted)
        )
    }


def behind(
    table: Table, order: Order, after: Sequence[Value], filled: Set[str] = frozenset()
) -> list[Sql]:
    """Conditions that together, one after the other, give what sorts behind `after`.

    One condition is enough where nulls are out of the way: they sort first, and row values
    compare like an index. Otherwise there is one per field and place of the nulls, each of which
    an index can answer. In the fields `filled` there are no nulls.

    Raises:
        ValueError: `after` does not have a value for every sort field.
    """
    if len(after) != len(order.fields):
        raise ValueError(f"`after` needs values for {order.fields}")
    columns = [_sorted(table, name) for name in order.fields]
    if None not in after and not order.descending:
        places = ", ".join("?" * len(after))
        return [Sql(f" AND ({', '.join(columns)}) > ({places})", list(after))]
    conditions = []
    for last in range(len(columns) - 1, -1, -1):
        same = "".join(f" AND {column} IS ?" for column in columns[:last])
        params = list(after[:last])
        column, value = columns[last], after[last]
        if order.descending:
            if value is not None:
                conditions.append(Sql(f"{same} AND {column} < ?", [*params, value]))
                if order.fields[last] not in {"id", ORG} and order.fields[last] not in filled:
                    conditions.append(Sql(f"{same} AND {column} IS NULL", params))
        elif value is None:
            conditions.append(Sql(f"{same} AND {column} IS NOT NULL", params))
        else:
            conditions.append(Sql(f"{same} AND {column} > ?", [*params, value]))
    return conditions
