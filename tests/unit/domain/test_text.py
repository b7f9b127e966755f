"""What can stand as a name or title."""

import pytest

from domain.accounts import accounts
from domain.errors import Invalid
from domain.messaging import conversations
from domain.text import why_not_plain
from domain.uploads import uploads

UNSEEN = [
    "\u200b",
    "\u200d\u200c",
    "\u2060 \ufeff",
    "\u00ad",
    "\u3164",
    "\uffa0\u115f",
    "\u2800",
    "\ufe0f",
    "\u0301",
    "\u034f",
    "\U000e0041",
    "\u200e",
]
TURNED = [f"a{chr(each)}b" for each in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]
WRONG = [*UNSEEN, *TURNED, "a\x00b", "a\nb", "\u009f"]


@pytest.mark.parametrize("text", WRONG, ids=ascii)
def test_no_name_and_no_title_hides_what_it_is(text: str) -> None:
    assert why_not_plain(text) is not None
    with pytest.raises(Invalid):
        accounts.clean_name(text)
    with pytest.raises(Invalid):
        conversations.clean_line("title", text, 200)


@pytest.mark.parametrize("text", UNSEEN, ids=ascii)
def test_a_file_has_a_name_that_is_seen(text: str) -> None:
    assert uploads.clean_name(text) == "file"


@pytest.mark.parametrize(
    "text",
    [
        "Ann",
        "Zoe\u0308",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # a joiner within Persian
        "\u05d0\u05d1\u05d2",
        "\u5f20\u4f1f",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u2764\ufe0f",
        "#1",
        "\U0001f3f4\U000e0067\U000e0062\U000e007f",
    ],
    ids=ascii,
)
def test_every_script_can_be_written(text: str) -> None:
    assert why_not_plain(text) is None
    assert accounts.clean_name(text) == conversations.clean_line("title", text, 200) == text
