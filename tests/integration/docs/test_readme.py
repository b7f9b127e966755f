"""What the README shows works as it stands there."""

import re
import sys
from pathlib import Path

import pytest

from tests.support.node import node, run_to_end
from tests.support.server import ROOT, ServerProcess, free_port
from tests.support.snippets import named


def example(name: str) -> str:
    """The code block that follows `<!-- name -->`."""
    return named(ROOT / "README.md", name)


@pytest.mark.parametrize("name", ["first.mjs", "first.py"])
def test_a_first_client_has_15_lines(name: str) -> None:
    assert len([line for line in example(name).splitlines() if line]) <= 15


async def test_the_first_client_in_javascript(server: ServerProcess) -> None:
    output = await run_to_end(
        node(),
        "--input-type=module",
        "-",
        source=example("first.mjs"),
        environment={"PARLEY_URL": server.url},
    )
    assert re.search(r"#\d+ Hello!", output)


async def test_the_first_client_in_python(server: ServerProcess, tmp_path: Path) -> None:
    output = await run_to_end(
        sys.executable,
        "-",
        source=example("first.py"),
        environment={"PARLEY_URL": server.url},
        cwd=tmp_path,
    )
    assert re.search(r"#\d+ Hello!", output)


async def test_the_demo(server: ServerProcess) -> None:
    output = await run_to_end(
        node(), ROOT / "demo" / "demo.mjs", environment={"PARLEY_URL": server.url}
    )
    assert "Ben is cut off" in output
    assert "nothing was missed" in output


async def test_the_demo_says_that_nothing_listens() -> None:
    with pytest.raises(AssertionError, match="start it with: make run"):
        await run_to_end(
            node(),
            ROOT / "demo" / "demo.mjs",
            environment={"PARLEY_URL": f"http://127.0.0.1:{free_port()}"},
        )
