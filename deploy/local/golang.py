"""A Go that is new enough, from one that may not be."""

import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

RELEASE = "1.24.13"
"""What is fetched where Go is older. It is at least what `deploy/mongod/go.mod` asks for."""


class NoGo(Exception):
    """There is none; the text says why."""


def go(directory: Path) -> Path:
    """The program: the installed one or, where that is too old (Debian 12 has 1.19), `RELEASE`.

    Go's releases are versions of the module `golang.org/toolchain`, which every Go fetches and
    verifies like any other. From 1.21 on Go uses them by itself, unless it is told not to.

    Args:
        directory: where a release that was fetched is kept. It exists.

    Raises:
        NoGo: Go is not installed, or cannot fetch another.
    """
    found = shutil.which("go")
    if found is None:
        raise NoGo("Go is not installed")
    system, machine, version = _run(found, directory, "env", "GOOS", "GOARCH", "GOVERSION").split(
        "\n"
    )[:3]
    if _minor(version) >= _minor(f"go{RELEASE}"):
        return Path(found)
    ours = directory / f"go{RELEASE}"
    if not ours.exists():
        module = f"golang.org/toolchain@v0.0.1-go{RELEASE}.{system}-{machine}"
        fetched = json.loads(_run(found, directory, "mod", "download", "-json", module))
        partial = directory / "go.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with zipfile.ZipFile(fetched["Zip"]) as archive:
            archive.extractall(partial)
        (release,) = (partial / "golang.org").iterdir()
        _complete(release)
        release.rename(ours)
        shutil.rmtree(partial)
    return ours / "bin" / "go"


def _complete(release: Path) -> None:
    """Give it what a module's files cannot have: the right to be run, and the name `go.mod`."""
    for path in [*(release / "bin").iterdir(), *(release / "pkg" / "tool").rglob("*")]:
        path.chmod(0o755)
    for path in (release / "src").rglob("_go.mod"):
        path.rename(path.with_name("go.mod"))


def _minor(version: str) -> tuple[int, int]:
    found = re.search(r"\bgo(\d+)\.(\d+)", version)
    if not found:
        raise NoGo(f"{version!r} is not a version of Go")
    return int(found[1]), int(found[2])


def _run(program: str, directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [program, *arguments],
        check=False,
        cwd=directory,
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise NoGo(f"go {arguments[0]} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
