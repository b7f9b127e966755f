"""The operator's page lists the indexes that are made in MongoDB, all of them and no other."""

import re

from server.features import COLLECTIONS
from store.mongo.kinds import Kind
from tests.support.server import ROOT

PAGE = ROOT / "docs" / "cluster.md"


def listed() -> dict[str, str]:
    """By collection: what the page says of its indexes."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|") or line.count("|") < 4:
            names = []
            continue
        first, second = line.strip("|").split("|")[:2]
        if first.strip():
            names = re.findall(r"`c_(\w+)`", first)
        for place, name in enumerate(names):
            # Several collections in one row have as many lists, one after the other.
            parts = second.split(";") if len(names) > 1 else [second]
            found[name] = found.get(name, "") + parts[min(place, len(parts) - 1)]
    return found


def test_the_page_lists_every_index_and_no_other() -> None:
    page = listed()
    for collection in COLLECTIONS:
        kind = Kind(collection)
        indexes = collection.indexes
        wanted = {", ".join(index.fields) for index in indexes} | set(kind.text_fields)
        wanted |= {", ".join(fields) for fields in collection.set_indexes}
        said = set(re.findall(r"`([^`]+)`", page.get(collection.name, "")))
        assert said == wanted, collection.name
        across = any(index.any_org for index in indexes)
        assert across == ("across organizations" in page.get(collection.name, "")), collection.name
    assert page.keys() <= {collection.name for collection in COLLECTIONS} | {"<name>"}


def test_the_page_names_the_collections_that_have_none() -> None:
    text = PAGE.read_text()
    for collection in COLLECTIONS:
        assert f"`c_{collection.name}`" in text, collection.name
