"""What the tests use as MongoDB finds what MongoDB finds, also where it leaves documents out early."""

from typing import Any

import pytest
from pymongo import MongoClient

from tests.support.mongod import scratch

DOCUMENTS: list[dict[str, Any]] = [
    {"_id": "plain", "a": "x", "b": "y", "n": 7},
    {"_id": "second is a list", "a": "x", "b": ["w", "y"], "n": [1, 9]},
    {"_id": "first is a list", "a": ["x"], "b": "y", "n": -7},
    {"_id": "both are lists", "a": ["v", "x"], "b": ["y"], "n": 7.5},
    {"_id": "another", "a": "x", "b": "z", "n": "7"},
    {"_id": "nothing", "a": None, "n": None},
    {"_id": "bracket", "a": "[x", "b": "y", "n": 12},
    {"_id": "long", "a": "x", "b": 'quote " and \\', "n": 2**40},
]

BOTH = {"plain", "second is a list", "first is a list", "both are lists"}

CASES: list[tuple[dict[str, Any], set[str]]] = [
    ({"a": "x", "b": "y"}, BOTH),
    ({"b": "y", "a": "x"}, BOTH),
    ({"a": "x", "b": "y", "_id": "plain"}, {"plain"}),
    ({"a": "[x"}, {"bracket"}),
    ({"b": 'quote " and \\'}, {"long"}),
    ({"b": {"$in": ["w", "z"]}}, {"second is a list", "another"}),
    ({"_id": {"$in": ["plain", "nothing", "none"]}}, {"plain", "nothing"}),
    ({"n": {"$gt": 7}}, {"second is a list", "both are lists", "bracket", "long"}),
    ({"n": {"$gte": 7, "$lt": 12}}, {"plain", "second is a list", "both are lists"}),
    ({"n": {"$lt": 0}}, {"first is a list"}),
    ({"n": {"$lte": 7.0}}, {"plain", "second is a list", "first is a list"}),
    ({"a": "x", "n": {"$gt": 2**33}}, {"long"}),
    ({"a": None}, {"nothing"}),
]


@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "index"])
def test_filters(mongodb: str, *, indexed: bool) -> None:
    with scratch(mongodb) as database, MongoClient[dict[str, Any]](database.url) as client:
        rows = client.get_default_database()["rows"]
        if indexed:
            rows.create_index([("a", 1), ("n", 1)])  # MongoDB takes one list for each row
            rows.create_index("b")
        rows.insert_many(DOCUMENTS)
        for query, wanted in CASES:
            assert {row["_id"] for row in rows.find(query)} == wanted, query
            assert rows.count_documents(query) == len(wanted), query
