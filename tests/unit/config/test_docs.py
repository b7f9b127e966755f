from config.docs import (
    END,
    SHOWN_IN,
    START,
    table,
    updated,
)
from config.load import variable_of
from config.settings import Settings


def test_every_setting_is_described() -> None:
    text = table()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"| `{variable_of(name)}` |" in text


def test_only_what_is_between_the_markers_is_replaced() -> None:
    assert updated(f"a\n{START}\nold\n{END}\nb", "new\n") == f"a\n{START}\nnew\n{END}\nb"
    assert updated("no markers", "new\n") == "no markers"


def test_the_page_that_shows_it_has_markers() -> None:
    text = SHOWN_IN.read_text(encoding="utf-8")
    assert text.count(START) == text.count(END) == 1
    assert updated(text, table()) == text
