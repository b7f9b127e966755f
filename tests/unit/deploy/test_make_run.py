"""`make run` asks for nothing in the network once the server's packages are installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.server import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make run` looks at, with an interpreter that only notes what it is asked to do."""
    for name in ("Makefile", *(each.name for each in ROOT.glob("requirements*.txt"))):
        shutil.copy2(ROOT / name, tmp_path / name)
    interpreter = tmp_path / ".venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text('#!/bin/sh\necho "$*" >>asked\n')
    interpreter.chmod(0o755)
    return tmp_path


def asked(checkout: Path) -> list[str]:
    """What `make run` has the interpreter do, now."""
    (checkout / "asked").write_text("")
    subprocess.run(["make", "run"], cwd=checkout, check=True, capture_output=True, timeout=60)
    return (checkout / "asked").read_text().splitlines()


def test_the_network_is_asked_the_first_time_alone(checkout: Path) -> None:
    *installed, server = asked(checkout)
    assert [each.split()[:3] for each in installed] == [
        ["-m", "pip", "--disable-pip-version-check"]
    ] * 2
    assert server == "-m server"
    assert asked(checkout) == ["-m server"]


def test_it_is_asked_again_for_another_lock(checkout: Path) -> None:
    asked(checkout)
    lock = checkout / "requirements.txt"
    later = (checkout / ".venv" / ".runtime").stat().st_mtime + 10
    os.utime(lock, (later, later))
    install, server = asked(checkout)
    assert install.endswith("--require-hashes -r requirements.txt")
    assert server == "-m server"
    for stamp in (".runtime", ".pip"):
        os.utime(checkout / ".venv" / stamp, (later + 10, later + 10))
    assert asked(checkout) == ["-m server"]
