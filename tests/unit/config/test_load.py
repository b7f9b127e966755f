import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config.load import SettingsError, load, variable_of
from config.settings import SECRETS, Environment, Settings, sqlite_path

GOOD_KEY = "0f9d8c7b6a5e4d3c2b1a09f8e7d6c5b4a3928170"

SetEnv = Callable[..., None]


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the developer's variables nor their `.env`."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("PARLEY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def set_env(monkeypatch: pytest.MonkeyPatch) -> SetEnv:
    def set_env(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"PARLEY_{name}", value)

    return set_env


def problem() -> str:
    with pytest.raises(SettingsError) as caught:
        load()
    return str(caught.value)


def test_nothing_has_to_be_set(tmp_path: Path) -> None:
    settings, warnings = load()
    assert warnings == []
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.env is Environment.DEVELOPMENT
    assert not settings.json_logs
    assert sqlite_path(settings.store_url) == Path("data/parley.db")
    assert (tmp_path / "data").is_dir()


def test_values_are_typed(set_env: SetEnv) -> None:
    set_env(
        ACCESS_TTL="15m",
        MAX_FRAME="128KiB",
        RATE_LIMITS="login=10/m",
        CORS_ORIGINS="https://a.example",
        TRUSTED_PROXIES="10.0.0.0/8",
        REDIS_URL="",
    )
    settings, _ = load()
    assert settings.access_ttl == 900
    assert settings.max_frame == 131072
    assert settings.rate_limits.buckets == {"login": (10, 60)}
    assert settings.cors_origins.allows("https://a.example")
    assert not settings.cors_origins.allows("http://localhost:3000")
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8"]
    assert settings.redis_url is None


def test_the_store_is_in_the_data_directory(set_env: SetEnv, tmp_path: Path) -> None:
    set_env(DATA_DIR=str(tmp_path / "elsewhere"))
    settings, _ = load()
    assert sqlite_path(settings.store_url) == tmp_path / "elsewhere" / "parley.db"


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("PORT", "http", "must be a whole number"),
        ("PORT", "70000", "must be at most 65535"),
        ("ENV", "prod", "must be one of development or production"),
        ("HOST", "a b", "must not contain spaces"),
        ("ACCESS_TTL", "soon", "must be seconds or a duration such as 15m, 12h, 7d"),
        ("MAX_FRAME", "10", "must be between 1KiB and 16MiB"),
        ("RATE_LIMITS", "login=often", "'often' is no rate such as 50/s, 10/m or 100/10m"),
        ("CORS_ORIGINS", "example.com", "'example.com' is no origin such as"),
        ("TRUSTED_PROXIES", "lb", "'lb' is no address or network"),
        ("STORE_URL", "postgres://x", "must be a URL that starts with sqlite://"),
        ("STORE_URL", "sqlite:///:memory:", "must name a file"),
        ("REDIS_URL", "redis://cache", "PARLEY_STORE_URL must be mongodb://"),
        ("WORKERS", "4", "above 1 needs PARLEY_REDIS_URL and a mongodb:// PARLEY_STORE_URL"),
        ("ADMIN_EMAIL", "root", "must be an email address"),
    ],
)
def test_a_wrong_value_is_one_line(set_env: SetEnv, variable: str, value: str, told: str) -> None:
    set_env(**{variable: value})
    line = problem()
    assert line.startswith(f"PARLEY_{variable} ")
    assert told in line
    assert "\n" not in line


def test_the_first_administrator_needs_both(set_env: SetEnv) -> None:
    set_env(ADMIN_PASSWORD="Correct horse 7 battery")
    assert problem().startswith("PARLEY_ADMIN_EMAIL is missing")


def test_all_wrong_values_are_in_the_line(set_env: SetEnv) -> None:
    set_env(PORT="x", DATA_DIR="", LOG_LEVEL="loud")
    with pytest.raises(SettingsError) as caught:
        load()
    assert caught.value.variables == ("PARLEY_LOG_LEVEL", "PARLEY_PORT")


def test_no_secret_is_told(set_env: SetEnv) -> None:
    set_env(SECRET_KEY="tooshort", ADMIN_PASSWORD="hunter22", STORE_URL="x://me:hunter33@db")
    line = problem()
    assert "PARLEY_SECRET_KEY must have at least 32 bytes, has 8" in line
    assert not any(secret in line for secret in ("tooshort", "hunter22", "hunter33"))


def test_a_url_with_a_password_is_not_shown() -> None:
    assert "hunter33" not in repr(Settings(store_url="mongodb://me:hunter33@db"))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "PARLEY_SECRET_KEY is missing"),
        ({"SECRET_KEY": "a" * 40}, "PARLEY_SECRET_KEY can be guessed"),
        ({"SECRET_KEY": "changeme-" + GOOD_KEY}, "PARLEY_SECRET_KEY can be guessed"),
        ({"SECRET_KEY": GOOD_KEY, "RATE_LIMITS": "off"}, "PARLEY_RATE_LIMITS"),
        ({"SECRET_KEY": GOOD_KEY, "CORS_ORIGINS": "*"}, "PARLEY_CORS_ORIGINS"),
        ({"SECRET_KEY": GOOD_KEY, "BCRYPT_COST": "4"}, "PARLEY_BCRYPT_COST"),
    ],
)
def test_production_refuses_what_is_unsafe(
    set_env: SetEnv, values: dict[str, str], told: str
) -> None:
    set_env(ENV="production", **values)
    assert told in problem()


def test_production(set_env: SetEnv, tmp_path: Path) -> None:
    set_env(ENV="production", SECRET_KEY=GOOD_KEY)
    settings, _ = load()
    assert settings.json_logs
    assert not settings.cors_origins.allows("http://localhost:3000")
    assert not (tmp_path / "data" / "secret_key").exists()


def test_the_secret_key_is_made_once_and_only_for_the_owner(tmp_path: Path) -> None:
    first, _ = load()
    again, _ = load()
    assert len(first.secret_key.get_secret_value()) >= 32
    assert again.secret_key == first.secret_key
    mode = (tmp_path / "data" / "secret_key").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret_key"]


def test_processes_that_start_together_agree_on_the_key() -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = {key for key, _ in pool.map(lambda _: (load()[0].secret_key, 0), range(32))}
    assert len(keys) == 1


def test_a_kept_key_that_was_damaged_is_not_used(tmp_path: Path) -> None:
    load()
    (tmp_path / "data" / "secret_key").write_text("short")
    assert "PARLEY_SECRET_KEY kept in" in problem()


def test_a_data_directory_that_cannot_be_used(set_env: SetEnv, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    set_env(DATA_DIR=str(tmp_path / "file"))
    assert problem().startswith(f"PARLEY_DATA_DIR is {tmp_path / 'file'}: ")


def test_the_environment_goes_before_the_env_file(set_env: SetEnv, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PARLEY_PORT=9000\nPARLEY_HOST=0.0.0.0\nOTHER=1\n")
    set_env(PORT="9001")
    settings, warnings = load()
    assert (settings.host, settings.port) == ("0.0.0.0", 9001)
    assert warnings == []


def test_a_named_env_file(set_env: SetEnv, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PARLEY_PORT=9000\n")
    (tmp_path / "other").write_text("PARLEY_PORT=9002\nPARLEY_PROT=1\n")
    set_env(ENV_FILE="other")
    settings, warnings = load()
    assert settings.port == 9002
    assert warnings == ["PARLEY_PROT is no setting, did you mean PARLEY_PORT?"]
    set_env(ENV_FILE="missing")
    assert problem() == "PARLEY_ENV_FILE names missing, which is no file"
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    set_env(ENV_FILE="binary")
    assert problem() == "PARLEY_ENV_FILE names binary, which is no UTF-8 text"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("PARLEY_REGISTRATION invite\n", 1),
        ("PARLEY_HOST=0.0.0.0\n\n# people\nPARLEY_REGISTRATION invite\nPARLEY_PORT=1\n", 4),
        ('PARLEY_HOST=0.0.0.0\r\nPARLEY_REGISTRATION="invite\r\n', 2),
        ("PARLEY_HOST=0.0.0.0\nPARLEY_REGISTRATION\n", 2),
    ],
)
def test_a_line_of_the_env_file_that_cannot_be_read_stops_the_start(
    text: str, line: int, set_env: SetEnv, tmp_path: Path
) -> None:
    (tmp_path / "parley.env").write_bytes(text.encode())
    set_env(ENV_FILE="parley.env")
    assert problem() == f"PARLEY_ENV_FILE names parley.env, line {line}: not NAME=value"


def test_an_env_file_as_other_tools_write_it(set_env: SetEnv, tmp_path: Path) -> None:
    text = "\ufeffPARLEY_PORT=9000\r\n\r\n# comment\r\nexport PARLEY_HOST='0.0.0.0'\r\nOTHER\r\n"
    (tmp_path / ".env").write_bytes(text.encode())
    set_env()
    settings, warnings = load()
    assert (settings.port, settings.host, warnings) == (9000, "0.0.0.0", [])


def test_a_variable_that_nobody_reads_is_warned_of(set_env: SetEnv) -> None:
    set_env(CORS_ORIGIN="https://a.example", ZZZ="1", URL="http://127.0.0.1:8000")
    _, warnings = load()
    assert warnings == [
        "PARLEY_CORS_ORIGIN is no setting, did you mean PARLEY_CORS_ORIGINS?",
        "PARLEY_ZZZ is no setting",
    ]


def test_every_default_is_a_value_that_may_be_written(set_env: SetEnv) -> None:
    defaults, _ = load()
    for name, field in Settings.model_fields.items():
        for mark in field.metadata:
            if hasattr(mark, "parse") and hasattr(mark, "format"):
                value = getattr(defaults, name)
                assert mark.parse(mark.format(value)) == value, variable_of(name)


def test_a_mistyped_directory_is_not_made(tmp_path: Path, set_env: SetEnv) -> None:
    set_env(STORE_URL="sqlite:///typo/parley.db")
    assert problem() == (
        f"PARLEY_STORE_URL is sqlite:///typo/parley.db: there is no {tmp_path / 'typo'}"
    )
    assert not (tmp_path / "typo").exists()
    set_env(STORE_URL="sqlite:///data/parley.db")
    load()


def test_a_data_directory_somebody_named_has_a_place(tmp_path: Path, set_env: SetEnv) -> None:
    set_env(DATA_DIR=str(tmp_path / "typo" / "parley"))
    assert "there is no such directory" in problem()
    assert not (tmp_path / "typo").exists()
    set_env(DATA_DIR=str(tmp_path / "parley"))
    load()
    assert (tmp_path / "parley").is_dir()


def test_production_makes_no_data_directory_that_somebody_named(
    tmp_path: Path, set_env: SetEnv
) -> None:
    set_env(ENV="production", SECRET_KEY=GOOD_KEY, DATA_DIR=str(tmp_path / "parley"))
    assert "there is no such directory" in problem()
    (tmp_path / "parley").mkdir()
    load()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("secret_key", GOOD_KEY),
        ("store_url", "mongodb://u:secret@db/parley"),
        ("redis_url", "redis://:secret@cache"),
        ("admin_password", "Analytical-Engine-1"),
    ],
)
def test_a_secret_may_be_in_a_file(tmp_path: Path, set_env: SetEnv, field: str, value: str) -> None:
    file = tmp_path / "secret"
    file.write_text(value + "\n")
    set_env(ADMIN_EMAIL="ada@example.com", ADMIN_PASSWORD="Analytical-Engine-0")
    if field == "redis_url":
        set_env(STORE_URL="mongodb://db/parley")
    name = variable_of(field).removeprefix("PARLEY_")
    set_env(**{name: "", f"{name}_FILE": str(file)})
    settings, warnings = load()
    kept = getattr(settings, field)
    assert (kept if isinstance(kept, str) else kept.get_secret_value()) == value
    assert warnings == []
    set_env(**{name: value})
    assert problem() == f"PARLEY_{name}_FILE and PARLEY_{name} are both set: one of them"


@pytest.mark.parametrize(
    "url",
    [
        "rediss+cluster://one:7000,two:7001?ssl_ca_certs=/etc/ca@home.pem",
        "redis+sentinel://ann:secret@one,two:26379/main/2?sentinel_ssl_ca_certs=/etc/ca.pem",
    ],
)
def test_hosts_of_redis_end_before_its_options(set_env: SetEnv, url: str) -> None:
    set_env(STORE_URL="mongodb://db/parley", REDIS_URL=url)
    assert load()[0].redis_url == url
    set_env(REDIS_URL=url.replace("one", "one:x", 1))
    assert "PARLEY_REDIS_URL must be a URL" in problem()


def test_an_env_file_may_name_a_secrets_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(GOOD_KEY)
    (tmp_path / ".env").write_text(f"PARLEY_SECRET_KEY_FILE={tmp_path}/key\n")
    assert load()[0].secret_key.get_secret_value() == GOOD_KEY


def test_a_secrets_file_that_cannot_be_read_stops_the_start(
    tmp_path: Path, set_env: SetEnv
) -> None:
    file = tmp_path / "key"
    set_env(SECRET_KEY_FILE=str(file))
    assert problem() == f"PARLEY_SECRET_KEY_FILE names {file}: No such file or directory"
    file.write_text("\n")
    assert problem() == f"PARLEY_SECRET_KEY_FILE names {file}, which is empty"
    file.write_bytes(b"\xff")
    assert "no UTF-8 text" in problem()
    file.write_text("hunter2")
    assert problem().startswith("PARLEY_SECRET_KEY must have at least 32 bytes")


def test_every_setting_that_hides_its_value_may_be_in_a_file() -> None:
    hidden = {
        name
        for name, field in Settings.model_fields.items()
        if not field.repr or "SecretStr" in str(field.annotation)
    }
    assert hidden == set(SECRETS)
