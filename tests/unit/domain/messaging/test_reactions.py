"""What counts as one emoji."""

import pytest

from domain.errors import Invalid
from domain.messaging.reactions import canonical


@pytest.mark.parametrize(
    "emoji",
    ["👍", "👍🏽", "👨‍👩‍👧", "🇩🇪", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", ":party_parrot:", ":+1:", ":" + "a" * 64 + ":"],
)
def test_one_emoji_or_shortcode_is_kept_as_it_is(emoji: str) -> None:
    assert canonical(emoji) == emoji


FORMS = [
    ("❤", "❤\ufe0f"),
    ("☺", "☺\ufe0f"),
    ("❤\ufe0f", "❤\ufe0f"),
    ("❤\ufe0e", "❤\ufe0f"),
    ("👍\ufe0f", "👍"),
    ("👍🏽\ufe0f", "👍🏽"),
    ("1⃣", "1\ufe0f⃣"),
    ("🏳‍🌈", "🏳\ufe0f‍🌈"),
    ("❤‍🔥", "❤\ufe0f‍🔥"),
]


@pytest.mark.parametrize(("sent", "kept"), FORMS)
def test_forms_of_one_emoji_are_the_same(sent: str, kept: str) -> None:
    assert canonical(sent) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "1",
        "#",
        "👍👍",
        "👍 ",
        " 👍",
        "🏽",
        "::",
        ":A:",
        ":a b:",
        ":a:\n",
        "ok",
        ":" + "a" * 65 + ":",
    ],
)
def test_nothing_else_is(text: str) -> None:
    with pytest.raises(Invalid):
        canonical(text)
