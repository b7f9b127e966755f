"""`.ci/run` installs what the tests run: a clone on a bare Debian 12 skips and lacks nothing."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import ROOT

RUN = (ROOT / ".ci" / "run").read_text()

CALLS = {
    "run",
    "Popen",
    "check_call",
    "check_output",
    "create_subprocess_exec",
    "which",
    "_run",
    "require_proxy",
    "run_to_end",
}

ELSEWHERE = {
    "sh": "every Debian has it",
    "node": "installed with npm, if it is new enough",
    "ip": "is in the package of `ss`",
    "nft": "needs the right to make networks, which a build has not; those tests skip themselves",
    "systemd-analyze": "judges units where there is a systemd; the test skips itself",
    "apt-get": "installs what is missing",
    "sudo": "is used for that, where it is needed",
}
"""Programs that it need not install, and why."""


def _first(node: ast.expr) -> str | None:
    """The program that a call's first argument names."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.List | ast.Tuple) and node.elts:
        return _first(node.elts[0])
    return _first(node.value) if isinstance(node, ast.Starred) else None


def programs(path: Path) -> Iterator[str]:
    """What a test file runs or looks for by name."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "PROGRAM" for target in node.targets
        ):
            name = _first(node.value)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            name = _first(node.args[0]) if called in CALLS else None
        else:
            continue
        if name is not None and re.fullmatch(r"[a-z][a-z0-9-]+", name):
            yield name


def installed() -> dict[str, str]:
    """Each program that is looked for, and its package."""
    return dict(re.findall(r"^need (\S+) (\S+)$", RUN, re.MULTILINE))


def test_everything_that_tests_run_is_installed() -> None:
    files = [
        path
        for directory in ("tests", "deploy")  # what starts a cluster on this machine is there
        for path in (ROOT / directory).rglob("*.py")
        if "node_modules" not in path.parts
    ]
    found = {name: path for path in files for name in programs(path)}
    assert {"redis-server", "openssl", "redis-cli", "nginx", "haproxy", "promtool", "go"} <= set(
        found
    )
    lacking = {name: path for name, path in found.items() if name not in installed()}
    assert not {name: str(path) for name, path in lacking.items() if name not in ELSEWHERE}


@pytest.mark.parametrize("there", [False, True])
def test_a_program_is_looked_for_as_a_file(tmp_path: Path, there: bool) -> None:
    """The shell's own `kill` is none that a test can run."""
    need = RUN[RUN.index("missing=''") : RUN.index("need redis-server")]
    if there:
        (tmp_path / "kill").touch(0o755)
    done = subprocess.run(
        [shutil.which("sh") or "sh", "-euc", f'{need}\nneed kill procps\nprintf %s "$missing"'],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ([] if there else ["procps"])
