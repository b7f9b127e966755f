"""The documentation of the settings, made of their declaration.

`python -m config.docs` prints the tables, `--write` puts them between the markers of the page that
shows them, `--check` fails if it is out of date.
"""

import argparse
import sys
from enum import Enum
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from config.load import ENV_FILE, variable_of
from config.settings import Settings
from config.values import Bytes, Seconds

START, END = "<!-- settings:start -->", "<!-- settings:end -->"
ROOT = Path(__file__).parent.parent
SHOWN_IN = ROOT / "docs" / "configuration.md"


def table() -> str:
    """All settings as Markdown tables, one for each section."""
    lines: list[str] = []
    for name, field in Settings.model_fields.items():
        section = _extra(field).get("section")
        if section:
            lines += ["", f"**{section}**", "", "| Variable | Default | Meaning |", "|---|---|---|"]
        cells = (f"`{variable_of(name)}`", _default(field), field.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += [
        "",
        f"`{ENV_FILE}` names the env file to read in place of `.env`; the environment goes before it. "
        "A duration is a number of seconds or has a unit (`500ms`, `90s`, `15m`, `12h`, `7d`), a "
        "size a number of bytes or has one (`64KiB`, `25MiB`, `1GB`).",
    ]
    return "\n".join(lines).strip() + "\n"


def _extra(field: FieldInfo) -> dict[str, str]:
    extra = field.json_schema_extra
    return {k: str(v) for k, v in extra.items()} if isinstance(extra, dict) else {}


def _default(field: FieldInfo) -> str:
    told = _extra(field).get("default")
    if told:
        return told
    value = field.default
    if value is None or value == () or value is PydanticUndefined:
        return "none"
    for mark in field.metadata:
        if isinstance(mark, Seconds | Bytes):
            return f"`{mark.format(value)}`"
    return f"`{value.value if isinstance(value, Enum) else value}`"


def updated(text: str, generated: str, start: str = START, stop: str = END) -> str:
    """`text` with what stands between the markers replaced; unchanged if it has none."""
    head, begin, rest = text.partition(start)
    _, end, tail = rest.partition(stop)
    if not begin or not end:
        return text
    return f"{head}{start}\n{generated}{stop}{tail}"


def run(program: str, generated: str, start: str, stop: str) -> int:
    """Print, write or check what is generated, as the arguments say. 1 if a check fails.

    Args:
        program: how it is called.
        start: the marker before it on the page.
        stop: the marker behind it.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help="update the page that shows it")
    action.add_argument("--check", action="store_true", help="fail if the page is out of date")
    arguments = parser.parse_args()
    if not (arguments.write or arguments.check):
        print(generated, end="")
        return 0
    text = SHOWN_IN.read_text(encoding="utf-8")
    new = updated(text, generated, start, stop)
    if new == text:
        return 0
    if arguments.write:
        SHOWN_IN.write_text(new, encoding="utf-8")
    shown = SHOWN_IN.relative_to(ROOT)
    print(f"{shown}: {'updated' if arguments.write else 'out of date; run `make docs`'}")
    return 1 if arguments.check else 0


if __name__ == "__main__":
    sys.exit(run("config.docs", table(), START, END))
