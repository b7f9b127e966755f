"""The stand-in for MongoDB is built with a Go that is new enough."""

import json
import re
import zipfile
from pathlib import Path

import pytest

from deploy.local.golang import RELEASE, NoGo, go
from tests.support.server import ROOT

MODULE = f"golang.org/toolchain@v0.0.1-go{RELEASE}.linux-amd64"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which programs are found."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    directory = tmp_path / "build"
    directory.mkdir()
    return directory


def _install(programs: Path, version: str, download: str = "echo no network >&2; exit 1") -> Path:
    program = programs / "go"
    program.write_text(
        f'#!/bin/sh\ncase "$1" in\n'
        f"env) echo linux; echo amd64; echo {version} ;;\n"
        f'mod) echo "$@" >>{programs}/asked; {download} ;;\n'
        "esac\n"
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("version", [f"go{RELEASE}", "go1.31rc1", "devel go1.99-0123456789"])
def test_one_that_is_new_enough_is_used(programs: Path, kept: Path, version: str) -> None:
    program = _install(programs, version)
    assert go(kept) == program
    assert list(kept.iterdir()) == []


def test_an_old_one_fetches_another_once(programs: Path, kept: Path, tmp_path: Path) -> None:
    archive = tmp_path / "release.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name, text in {
            "bin/go": "#!/bin/sh\necho new",
            "pkg/tool/linux_amd64/compile": "",
            "src/_go.mod": "module std",
            "src/cmd/_go.mod": "module cmd",
        }.items():
            file.writestr(f"{MODULE}/{name}", text)
    answer = json.dumps({"Zip": str(archive)})
    _install(programs, "go1.19.8", f"echo '{answer}'")
    program = go(kept)
    assert go(kept) == program
    assert program.read_text().endswith("new")
    assert program.stat().st_mode & 0o111
    root = program.parent.parent
    assert (root / "pkg/tool/linux_amd64/compile").stat().st_mode & 0o111
    assert (root / "src/go.mod").read_text() == "module std"
    assert (root / "src/cmd/go.mod").read_text() == "module cmd"
    assert (programs / "asked").read_text() == f"mod download -json {MODULE}\n"
    assert list(kept.iterdir()) == [root]


def test_what_went_wrong_is_said(programs: Path, kept: Path) -> None:
    with pytest.raises(NoGo, match="not installed"):
        go(kept)
    _install(programs, "go1.19.8")
    with pytest.raises(NoGo, match="no network"):
        go(kept)


def test_what_is_fetched_is_new_enough() -> None:
    asked = re.search(
        r"^go (\d+)\.(\d+)", (ROOT / "deploy/mongod/go.mod").read_text(), re.MULTILINE
    )
    assert asked
    assert [int(each) for each in RELEASE.split(".")][:2] >= [int(each) for each in asked.groups()]
