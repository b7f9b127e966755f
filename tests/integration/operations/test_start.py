"""A server that cannot start says why in one line, and exits with 1: its manager starts it again."""

import os
import signal
import socket
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from server.signals import PASSED_OVER
from tests.support.server import ROOT, ServerProcess, clean_environment, free_port


def start(directory: Path, **settings: object) -> tuple[int, list[str]]:
    """Run a server to its end: exit code, and the lines it wrote."""
    (directory / "empty.env").touch()
    ended = subprocess.run(
        [sys.executable, "-m", "server"],
        cwd=ROOT,
        env={
            **clean_environment(),
            "PARLEY_ENV_FILE": str(directory / "empty.env"),
            "PARLEY_DATA_DIR": str(directory / "data"),
            "PARLEY_PORT": str(free_port()),
            "PARLEY_STORE_TIMEOUT": "1",
            **{f"PARLEY_{name}": str(value) for name, value in settings.items()},
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout.splitlines()


def test_a_mongodb_that_is_away(tmp_path: Path) -> None:
    code, lines = start(tmp_path, STORE_URL=f"mongodb://ann:secret@127.0.0.1:{free_port()}/x")
    assert code == 1
    (line,) = lines
    assert "cannot be reached" in line
    assert "PARLEY_STORE_URL=mongodb://ann:***@127.0.0.1:" in line
    assert "secret" not in line


@pytest.mark.parametrize("wrong", ["parley.db", "uploads"])
def test_something_else_in_the_place_of_the_data(tmp_path: Path, wrong: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if wrong == "uploads":
        (data / wrong).touch()
    else:
        (data / wrong).mkdir()
    code, lines = start(tmp_path)
    assert code == 1
    (line,) = lines
    assert line.startswith("parley: ")
    assert wrong in line


def test_what_people_say_is_for_the_service_alone_in_a_directory_that_others_may_read(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path)
    server.data_dir.mkdir(parents=True, exist_ok=True)
    server.data_dir.chmod(0o755)
    before = os.umask(0o022)
    try:
        with server:
            names = ["parley.db", "parley.db-wal", "parley.db-shm", "uploads"]
            modes = {name: (server.data_dir / name).stat().st_mode & 0o077 for name in names}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(names, 0)


def test_a_first_administrator_without_a_password(tmp_path: Path) -> None:
    code, lines = start(tmp_path, ADMIN_EMAIL="root@example.com")
    assert code == 2
    assert lines == ["parley: PARLEY_ADMIN_PASSWORD is missing: the first administrator needs both"]


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, lines = start(tmp_path, PORT=port)
    assert code == 1
    assert lines == [
        f"parley: cannot listen on 127.0.0.1:{port}: Address already in use "
        "(another is chosen with PARLEY_PORT)"
    ]


def test_an_env_file_with_a_line_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.env").write_text("PARLEY_REGISTRATION invite\n")
    code, lines = start(tmp_path)
    assert code == 2
    where = tmp_path / "empty.env"
    assert lines == [f"parley: PARLEY_ENV_FILE names {where}, line 1: not NAME=value"]


def test_an_interpreter_without_the_packages(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False)
    ended = subprocess.run(
        [bare / "bin/python", "-m", "server"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("parley: ")
    assert ".venv/bin/python -m server" in line


@pytest.mark.parametrize("stopping", [signal.SIGHUP, signal.SIGQUIT], ids=["HUP", "QUIT"])
def test_a_hangup_is_a_stop_and_other_signals_are_told(
    tmp_path: Path, stopping: signal.Signals
) -> None:
    with ServerProcess(tmp_path) as server:
        for number in filter(None, (getattr(signal, name, None) for name in PASSED_OVER)):
            server.signal(number)
            until = time.monotonic() + 10
            while number.name not in server.log():
                assert server.running
                assert time.monotonic() < until
                time.sleep(0.01)
        assert server.ready()
        server.signal(stopping)
        assert server.wait() == 0
        assert "stopped" in server.log()
