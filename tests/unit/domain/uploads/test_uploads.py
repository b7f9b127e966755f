"""Names of files, and how a browser is told to treat them."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.uploads.uploads import MAX_NAME, clean_name, disposition


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\win.ini", "win.ini"),
        ("C:\\fakepath\\photo.png", "photo.png"),
        ("/", "file"),
        ("..", "file"),
        (".htaccess", "htaccess"),
        ("", "file"),
        (None, "file"),
        ("a\x00b.png", "ab.png"),
        ("a\r\nSet-Cookie: x.png", "aSet-Cookie: x.png"),
        ("photo\u202egnp.exe", "photognp.exe"),
        ("half \ud800 pair.txt", "half pair.txt"),
        ("  spaced   out .txt ", "spaced out.txt"),
        ("trailing...", "trailing"),
        ("cafe\u0301.txt", "caf\u00e9.txt"),
        ("résumé 你好.docx", "résumé 你好.docx"),
    ],
)
def test_clean_name(given_name: str | None, kept: str) -> None:
    assert clean_name(given_name) == kept


def test_a_long_name_is_cut_before_its_extension() -> None:
    cleaned = clean_name("ä" * 5000 + ".jpeg")
    assert cleaned.endswith("ä.jpeg")
    assert MAX_NAME - 1 <= len(cleaned.encode()) <= MAX_NAME


@given(st.text(max_size=600))
def test_any_name_becomes_one_that_is_no_path(text: str) -> None:
    cleaned = clean_name(text)
    assert cleaned
    assert len(cleaned.encode()) <= MAX_NAME
    assert not set(cleaned) & set("/\\\0\r\n")
    assert cleaned not in {".", ".."}
    assert clean_name(cleaned) == cleaned


@given(st.text(max_size=100))
def test_a_disposition_is_one_header_line_that_names_the_file(text: str) -> None:
    name = clean_name(text)
    value = disposition("image/png", name, attachment=False)
    found = re.fullmatch(
        r"""inline; filename="([ !#$&-\[\]-~]*)"(?:; filename\*=UTF-8''([!-~]+))?""", value
    )
    assert found, value
    assert (unquote(found[2]) if found[2] else found[1]) == name


@pytest.mark.parametrize(
    "kind",
    ["text/html", "image/svg+xml", "application/xml", "application/pdf", "text/javascript"],
)
def test_what_a_browser_could_run_is_never_inline(kind: str) -> None:
    assert disposition(kind, "x", attachment=False).startswith("attachment;")


def test_what_is_safe_is_inline_unless_it_is_to_be_saved() -> None:
    assert disposition("image/png", "x.png", attachment=False) == 'inline; filename="x.png"'
    assert disposition("image/png", "x.png", attachment=True) == 'attachment; filename="x.png"'
    assert (
        disposition("image/png", 'a"b é.png', attachment=False)
        == "inline; filename=\"a_b e.png\"; filename*=UTF-8''a%22b%20%C3%A9.png"
    )
