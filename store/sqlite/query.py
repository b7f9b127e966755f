"""Filters and sort orders as SQL."""

# ruff: noqa: S608 - names in statements come from declarations; values are always bound

from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import orjson

from store.conditions import each_of, one_value, prefix_end
from store.engine import Filter, Is, Value
from store.sqlite.sets import SetIndex
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


class Source(NamedTuple):
    """What documents are looked for in: their table `t`, or an index over a set field, `h`, and it."""

    table: Table
    by: SetIndex | None = None

    @property
    def text(self) -> str:
        """What follows FROM."""
        if self.by is None:
            return f"{self.table.name} AS t"
        return f"{self.by.name} AS h CROSS JOIN {self.table.name} AS t ON t._rowid = h._r"

    @property
    def org(self) -> str:
        """The column of the organization."""
        return f"{'t' if self.by is None else 'h'}.{ORG}"

    def column(self, name: str) -> str:
        """The column of a declared field.

        Raises:
            ValueError: it is not declared.
        """
        column = self.table.column(name)
        if self.by is not None and (name == "id" or name in self.by.fields):
            return f"h.{column}"
        return f"t.{column}"

    def sorted(self, name: str) -> str:
        """The column of a field of an `Order`."""
        return self.org if name == ORG else self.column(name)


def source(table: Table, where: Filter, order: Sequence[str] = ()) -> Source:
    """What answers a filter best. `order`: sort fields, without the organization."""
    one = one_value(where)
    best: tuple[tuple[bool, int], SetIndex] | None = None
    for index in table.sets:
        led = next((n for n, name in enumerate(index.fields) if name not in one), len(index.fields))
        if index.set not in index.fields[:led]:
            continue
        fields = index.fields if "id" in index.fields else (*index.fields, "id")
        is_sorted = any(fields[n:] == tuple(order) for n in range(led + 1))
        if best is None or (is_sorted, led) > best[0]:
            best = ((is_sorted, led), index)
    return Source(table, None if best is None else best[1])


def condition(table: Table, where: Filter, of: Source | None = None) -> Sql:
    """The SQL of a filter, starting with `AND`; empty for one without conditions.

    Raises:
        ValueError: a field that is not declared, or no such comparison.
    """
    of = of or Source(table)
    texts: list[str] = []
    params: list[Any] = []
    led = False
    for name, wanted in where.items():
        for each in each_of(wanted):
            if name in table.collection.sets:
                first = not led and of.by is not None and of.by.set == name
                led = led or first
                one = _has(table, name, each, f'h."{name}"' if first else None)
            else:
                one = _condition(of.column(name), each)
            texts.append(f" AND {one.text}")
            params += one.params
    return Sql("".join(texts), params)


def _has(table: Table, name: str, wanted: Any, column: str | None) -> Sql:
    if not isinstance(wanted, Is) or wanted.op != "has" or not isinstance(wanted.value, str):
        raise ValueError(f"{table.collection.name}: of {name} only `has` can be asked")
    if column is not None:
        return Sql(f"{column} = ?", [wanted.value])
    index = next(index for index in table.sets if index.fields == (name,))
    return Sql(
        f"EXISTS (SELECT 1 FROM {index.name} AS x "
        f'WHERE x._org = t._org AND x."{name}" = ? AND x.id = t.id)',
        [wanted.value],
    )


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


def order_by(table: Table, order: Order, of: Source | None = None) -> str:
    """The ORDER BY clause."""
    of = of or Source(table)
    way = " DESC" if order.descending else ""
    return " ORDER BY " + ", ".join(f"{of.sorted(name)}{way}" for name in order.fields)


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
    of: Source, order: Order, after: Sequence[Value], filled: Set[str] = frozenset()
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
    columns = [of.sorted(name) for name in order.fields]
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
