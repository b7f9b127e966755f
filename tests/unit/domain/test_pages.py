"""Pages of lists, and the cursors between them."""

import pytest

from domain.errors import Invalid
from domain.pages import by_id, cut, encode_cursor, resume


@pytest.mark.parametrize("number", range(8))
def test_pages_have_each_row_once(number: int) -> None:
    rows = [{"id": str(each)} for each in range(number)]
    seen: list[dict[str, str]] = []
    cursor: str | None = None
    while True:
        after = resume(cursor, "id") or ""
        page, cursor = cut([row for row in rows if row["id"] > after][:4], 3, by_id)
        seen += page
        if cursor is None:
            break
        assert len(page) == 3
    assert seen == rows


def test_a_list_goes_on_behind_two_texts() -> None:
    page, next = cut([("a", "1"), ("a", "2")], 1, lambda row: {"at": row[0], "id": row[1]})
    assert page == [("a", "1")]
    assert resume(next, "at", "id") == ("a", "1")
    assert resume(None, "at", "id") is None


@pytest.mark.parametrize("position", [{}, {"id": 1}, {"at": "a"}, {"at": "a", "id": "b"}])
def test_the_cursor_of_another_list_is_refused(position: dict[str, object]) -> None:
    with pytest.raises(Invalid, match="cursor"):
        resume(encode_cursor(position), "id")
