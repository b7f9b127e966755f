"""Reads the settings, or says in one line why they cannot be used."""

import contextlib
import difflib
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from config.files import SUFFIX, read_secrets
from config.settings import PREFIX, SECRETS, Settings, sqlite_path

ENV_FILE = "PARLEY_ENV_FILE"
SECRET_FILE = "secret_key"  # noqa: S105 - a file's name
_ENCODING = "utf-8-sig"
"""Some editors put a mark before the text, which is not part of the first variable's name."""
_READ_ELSEWHERE = {ENV_FILE, "PARLEY_URL"}
_GUESSABLE = ("changeme", "change-me", "change_me", "password", "example", "12345678", "your-")

Problem = tuple[str, str]
"""A variable, and what is wrong with it."""


class SettingsError(Exception):
    """The server cannot start with these settings. The text is one line and holds no secret."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{name} {problem}" for name, problem in problems))
        self.variables = tuple(name for name, _ in problems)
        """The environment variables at fault."""


def load() -> tuple[Settings, list[str]]:
    """The settings of this process, and warnings: one line for each variable that nobody reads.

    The environment goes before the env file: the one that `PARLEY_ENV_FILE` names, else `.env`
    if it is there. A secret may be in a file (`config.files`). Makes the data directory unless its name looks mistyped, and in development the
    secret key in it, if they are not there.

    Raises:
        SettingsError: a value is wrong or missing.
    """
    env_file = _env_file()
    in_file = _variables_in(env_file) if env_file else {}
    secret, problems = read_secrets(map(variable_of, SECRETS), os.environ, in_file)
    if problems:
        raise SettingsError(*problems)
    kept: dict[str, Any] = {field_of(name): value for name, value in secret.items()}
    try:
        settings = Settings(_env_file=env_file, _env_file_encoding=_ENCODING, **kept)
    except ValidationError as error:
        raise SettingsError(*_problems(error)) from None
    problems = [*_contradictions(settings), *(_unsafe(settings) if settings.production else ())]
    if problems:
        raise SettingsError(*problems)
    _make_directory(settings)
    _find_directory(settings.store_url)
    if not settings.secret_key.get_secret_value():
        key = SecretStr(_kept_secret(settings.data_dir))
        settings = settings.model_copy(update={"secret_key": key})
    return settings, _warnings([*os.environ, *in_file])


def variable_of(field: str) -> str:
    """The environment variable of a field of `Settings`."""
    return PREFIX + field.upper()


def field_of(variable: str) -> str:
    """The field of `Settings` of an environment variable."""
    return variable.removeprefix(PREFIX).lower()


def _env_file() -> Path | None:
    named = os.environ.get(ENV_FILE)
    path = Path(named or ".env")
    if named and not path.is_file():
        raise SettingsError((ENV_FILE, f"names {named}, which is no file"))
    return path if path.is_file() else None


def _variables_in(env_file: Path) -> dict[str, str | None]:
    """What the file sets.

    The parser passes over a line that it cannot read, and the server would start with the default
    in its place: `PARLEY_REGISTRATION invite` would let everybody in.
    """
    try:
        with env_file.open(encoding=_ENCODING) as file:
            bindings = list(parse_stream(file))
    except OSError as error:
        raise SettingsError((ENV_FILE, f"names {env_file}: {error.strerror}")) from None
    except UnicodeDecodeError:
        raise SettingsError((ENV_FILE, f"names {env_file}, which is no UTF-8 text")) from None
    for binding in bindings:
        ours = (binding.key or "").upper().startswith(PREFIX)
        if binding.error or (ours and binding.value is None):
            read = binding.original.string
            empty = read[: len(read) - len(read.lstrip())].count("\n")
            where = f"{env_file}, line {binding.original.line + empty}"
            raise SettingsError((ENV_FILE, f"names {where}: not NAME=value"))
    return dotenv_values(env_file, encoding=_ENCODING)


def _problems(error: ValidationError) -> list[Problem]:
    found = [
        (variable_of(str(details["loc"][0])), _explain(details))
        for details in error.errors()
        if details["type"] != "default_factory_not_called"  # its cause is in the list
    ]
    return sorted(found)


def _explain(details: ErrorDetails) -> str:
    """What is wrong, in the words of someone who sets an environment variable."""
    ctx = details.get("ctx", {})
    match details["type"]:
        case "int_parsing" | "int_type":
            return "must be a whole number"
        case "greater_than_equal":
            return f"must be at least {ctx['ge']}"
        case "less_than_equal":
            return f"must be at most {ctx['le']}"
        case "enum":
            return f"must be one of {ctx['expected']}".replace("'", "")
        case "string_pattern_mismatch":
            return "must not contain spaces"
        case "value_error" if "error" in ctx:
            return str(ctx["error"])
        case "value_error":
            return "must be an email address: " + str(ctx.get("reason", details["msg"]))
        case _:
            return details["msg"][0].lower() + details["msg"][1:]


def _contradictions(settings: Settings) -> list[Problem]:
    """Values that are right alone and wrong together, or that this version cannot serve."""
    found: list[Problem] = []
    shared = not settings.store_url.startswith("sqlite:")
    if settings.redis_url is not None and not shared:
        found.append(
            ("PARLEY_REDIS_URL", "joins nodes on one store: PARLEY_STORE_URL must be mongodb://")
        )
    if settings.workers > 1 and (settings.redis_url is None or not shared):
        found.append(
            ("PARLEY_WORKERS", "above 1 needs PARLEY_REDIS_URL and a mongodb:// PARLEY_STORE_URL")
        )
    if settings.admin_password is not None and settings.admin_email is None:
        found.append(("PARLEY_ADMIN_EMAIL", "is missing: the first administrator needs both"))
    if settings.access_ttl > settings.refresh_ttl:
        found.append(("PARLEY_ACCESS_TTL", "must not be longer than PARLEY_REFRESH_TTL"))
    if settings.send_queue > settings.send_queue_total:
        found.append(("PARLEY_SEND_QUEUE", "must not be larger than PARLEY_SEND_QUEUE_TOTAL"))
    if settings.max_body > settings.max_body_total:
        found.append(("PARLEY_MAX_BODY", "must not be larger than PARLEY_MAX_BODY_TOTAL"))
    if settings.upload_max > settings.upload_quota:
        found.append(("PARLEY_UPLOAD_MAX", "must not be larger than PARLEY_UPLOAD_QUOTA"))
    return found


def _unsafe(settings: Settings) -> list[Problem]:
    """What only a laptop may do."""
    found: list[Problem] = []
    key = settings.secret_key.get_secret_value()
    if not key:
        found.append(("PARLEY_SECRET_KEY", "is missing (openssl rand -hex 32 makes one)"))
    elif len(set(key)) < 8 or any(word in key.lower() for word in _GUESSABLE):
        found.append(
            ("PARLEY_SECRET_KEY", "can be guessed (openssl rand -hex 32 makes a good one)")
        )
    if not settings.rate_limits.enabled:
        found.append(("PARLEY_RATE_LIMITS", "must not be off in production"))
    if settings.cors_origins.any:
        found.append(("PARLEY_CORS_ORIGINS", "must name the origins in production, not *"))
    if settings.bcrypt_cost < 10:
        found.append(("PARLEY_BCRYPT_COST", "must be at least 10 in production"))
    return found


def _make_directory(settings: Settings) -> None:
    """Make the data directory if it was to be expected that it is not there.

    The default is made. One that somebody named must be there in production, and have a place to be
    made in elsewhere: what is made of a mistyped name is an empty server.
    """
    path = settings.data_dir
    named = "data_dir" in settings.model_fields_set
    if named and not (path if settings.production else path.absolute().parent).is_dir():
        raise SettingsError(("PARLEY_DATA_DIR", f"is {path}: there is no such directory"))
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or "cannot be used"
        raise SettingsError(("PARLEY_DATA_DIR", f"is {path}: {reason}")) from None


def _find_directory(store_url: str) -> None:
    """A database file is made where it is missing, its directory is not: see `_make_directory`."""
    if not store_url.startswith("sqlite:"):
        return
    directory = sqlite_path(store_url).absolute().parent
    if not directory.is_dir():
        raise SettingsError(("PARLEY_STORE_URL", f"is {store_url}: there is no {directory}"))


def _kept_secret(data_dir: Path) -> str:
    """The key kept in the data directory, made there first if need be.

    Linked into place whole, so that of several processes that start at once all read the same.
    """
    path = data_dir / SECRET_FILE
    try:
        if not path.exists():
            with tempfile.NamedTemporaryFile("w", dir=data_dir, prefix=".secret") as file:
                file.write(secrets.token_hex(32) + "\n")
                file.flush()
                os.fsync(file.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(file.name, path)
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(("PARLEY_SECRET_KEY", f"cannot be kept in {path}: {error}")) from None
    if len(key) < 32:
        raise SettingsError(("PARLEY_SECRET_KEY", f"kept in {path} is shorter than 32 bytes"))
    return key


def _warnings(names: list[str]) -> list[str]:
    known = {variable_of(field) for field in Settings.model_fields}
    known |= {variable_of(field) + SUFFIX for field in SECRETS}
    lines = []
    for name in sorted({name.upper() for name in names}):
        if not name.startswith(PREFIX) or name in known or name in _READ_ELSEWHERE:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        lines.append(f"{name} is no setting" + (f", did you mean {near[0]}?" if near else ""))
    return lines
