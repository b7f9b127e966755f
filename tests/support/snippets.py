"""What the pages show to be typed: their blocks, and programs made of them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.node import node, run_to_end
from tests.support.server import ROOT

DOCS = ROOT / "docs"


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language, if it says one, and text of each block."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def block(page: str, language: str, number: int = 0) -> str:
    """One block of a page of `docs/`, the first being 0."""
    return [text for kind, text in blocks(DOCS / page) if kind == language][number]


def named(page: Path, name: str) -> str:
    """The block that follows `<!-- name -->`."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found, f"{page.name} has no {name}"
    return found[1]


async def script(source: str, url: str, token: str) -> Any:
    """What a script prints, which has `io`, `url` and `token`, and `print` to print and end."""
    head = (
        'import { io } from "socket.io-client";\n'
        f"const url = {json.dumps(url)}, token = {json.dumps(token)};\n"
        "const print = (value) => { console.log(JSON.stringify(value)); process.exit(0); };\n"
    )
    return json.loads(await run_to_end(node(), "--input-type=module", "-", source=head + source))
