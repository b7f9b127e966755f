"""`make cluster` installs what it needs, or says what is missing."""

import os
from pathlib import Path

import pytest

from deploy.cluster import Failed, install


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which programs are found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_what_is_there_is_left_alone(programs: Path) -> None:
    _program(programs / "go", "exit 0")
    install("go", "golang-go")


def test_what_is_missing_is_installed(programs: Path) -> None:
    log = programs / "asked"
    _program(
        programs / "apt-get",
        f'echo "$@" >>{log}; [ "$1" = update ] || {{ echo >{programs}/go; /bin/chmod +x {programs}/go; }}',
    )
    install("go", "golang-go")
    assert log.read_text().split("\n")[:2] == ["update -qq", "install -y -qq golang-go"]


def test_what_cannot_be_installed_is_named(programs: Path) -> None:
    with pytest.raises(Failed, match="apt-get install golang-go"):
        install("go", "golang-go")
    _program(programs / "apt-get", "echo no such package >&2; exit 100")
    with pytest.raises(Failed, match="no such package"):
        install("go", "golang-go")
