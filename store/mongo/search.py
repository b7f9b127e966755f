"""Full-text search on an index of words."""

from typing import Any

from store.engine import Document, Filter
from store.mongo.database import Database
from store.mongo.kinds import Kind, document, row_id, text_field
from store.mongo.query import condition
from store.words import MAX_WORDS, TOKEN, holds, wanted_words


async def search(
    database: Database,
    kind: Kind,
    org: str,
    text: str,
    where: Filter,
    limit: int,
    before: str | None,
) -> list[Document]:
    """Documents that hold every word, newest id first."""
    name = kind.collection.text
    if name is None:
        raise ValueError(f"{kind.name} has no text to search in")
    query = condition(kind, where, org)
    wanted = wanted_words(text)[:MAX_WORDS]
    if not wanted or limit <= 0:
        return []
    field = text_field(name)
    asked: list[Any] = [{field: word[:TOKEN]} for word in dict.fromkeys(wanted[:-1])]
    # A word has letters and digits only: nothing in it means anything in a regular expression.
    asked.append({field: {"$regex": "^" + wanted[-1][:TOKEN]}})
    exact = all(len(word) < TOKEN for word in wanted)
    found: list[Document] = []
    while True:
        behind = [] if before is None else [{"_id": {"$lt": row_id(org, before)}}]
        rows = await (
            database.rows(kind)
            .find({**query, "$and": [*query.get("$and", ()), *asked, *behind]}, {"_j": 1})
            .sort([("id", -1)])
            .limit(limit)
            .to_list()
        )
        docs = [document(row) for row in rows]
        found += [doc for doc in docs if exact or holds(doc.get(name), wanted)]
        if len(docs) < limit or len(found) >= limit:
            return found[:limit]
        before = docs[-1]["id"]
