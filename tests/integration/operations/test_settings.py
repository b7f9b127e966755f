"""What an operator sees of wrong settings."""

import subprocess
import sys
from pathlib import Path

from tests.support.server import ROOT, ServerProcess, clean_environment


def run_server(tmp_path: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "empty.env").touch()
    return subprocess.run(
        [sys.executable, "-m", "server"],
        cwd=ROOT,
        env={
            **clean_environment(),
            "PARLEY_ENV_FILE": str(tmp_path / "empty.env"),
            "PARLEY_DATA_DIR": str(tmp_path / "data"),
            **{f"PARLEY_{name}": value for name, value in settings.items()},
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_a_wrong_value_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    ended = run_server(tmp_path, PORT="http")
    assert ended.returncode == 2
    assert ended.stderr == "parley: PARLEY_PORT must be a whole number\n"
    assert ended.stdout == ""


def test_production_without_a_key_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    ended = run_server(tmp_path, ENV="production")
    assert ended.returncode == 2
    assert ended.stderr.startswith("parley: PARLEY_SECRET_KEY is missing")
    assert ended.stderr.count("\n") == 1


def test_a_first_password_that_is_too_easy_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    ended = run_server(tmp_path, ADMIN_EMAIL="root@example.com", ADMIN_PASSWORD="easy")
    assert ended.returncode == 2
    assert ended.stderr.startswith("parley: PARLEY_ADMIN_PASSWORD must have at least 8")
    assert ended.stderr.count("\n") == 1


def test_a_limit_of_nothing_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    ended = run_server(tmp_path, RATE_LIMITS="message.sned=5/s")
    assert ended.returncode == 2
    assert ended.stderr == "parley: PARLEY_RATE_LIMITS message.sned is no bucket\n"


def test_a_port_that_is_taken_is_one_line(tmp_path: Path, server: ServerProcess) -> None:
    ended = run_server(tmp_path, PORT=str(server.port))
    assert ended.returncode in {1, 2}
    lines = [line for line in ended.stderr.splitlines() if line.startswith("parley: ")]
    assert len(lines) == 1
    assert str(server.port) in lines[0]
    assert "Traceback" not in ended.stderr


def test_nobody_but_the_owner_reads_the_data(server: ServerProcess) -> None:
    assert server.data_dir.stat().st_mode & 0o077 == 0
    assert (server.data_dir / "secret_key").stat().st_mode & 0o077 == 0
