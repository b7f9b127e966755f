"""What the person who starts the server is told."""

from pathlib import Path

import pytest

from config.settings import LogFormat, Settings
from server.app import welcome


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
    ],
)
def test_where_to_go_and_how_to_make_the_first_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str, url: str
) -> None:
    welcome(Settings(_env_file=None, host=host, data_dir=tmp_path), 8000)
    told = capsys.readouterr().out
    for each in (f"{url}/docs", f"{url}/asyncapi.json", f"{url}/api/v1/auth/register", "make demo"):
        assert each in told
    assert str(tmp_path) in told


@pytest.mark.parametrize(
    ("host", "port", "demo"),
    [
        ("127.0.0.1", 8000, "make demo"),
        ("127.0.0.1", 9000, "make demo PARLEY_URL=http://127.0.0.1:9000"),
        ("::1", 8000, "make demo PARLEY_URL=http://[::1]:8000"),
    ],
)
def test_the_demo_is_that_of_this_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str, port: int, demo: str
) -> None:
    welcome(Settings(_env_file=None, host=host, data_dir=tmp_path), port)
    assert f"talk:  {demo}\n" in capsys.readouterr().out


def test_below_a_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    welcome(Settings(_env_file=None, base_path="/chat", data_dir=tmp_path), 8000)
    told = capsys.readouterr().out
    for each in ("", "/docs", "/asyncapi.json", "/api/v1/auth/register"):
        assert f"http://127.0.0.1:8000/chat{each}" in told
    assert "talk:  make demo\n" in told


def test_logs_for_machines_hold_no_text_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    welcome(Settings(_env_file=None, log_format=LogFormat.JSON, data_dir=tmp_path), 8000)
    assert "/docs" not in capsys.readouterr().out
