"""The settings: environment variables `PARLEY_*`, or the same names in an env file.

Everything is declared here once. `config.docs` makes the table of the documentation of it, and
`config.load` reads it; nothing else looks at the environment.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, EmailStr, Field, SecretStr, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

from config.values import (
    Bytes,
    Network,
    Origins,
    RateLimits,
    Seconds,
    parse_base_path,
    parse_networks,
    parse_place,
    parse_url,
)

PREFIX = "PARLEY_"
SECRETS = ("secret_key", "store_url", "redis_url", "admin_password", "sentry_dsn")
"""Fields whose values nobody shall read: each may be kept in a file, `PARLEY_…_FILE`."""
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class Environment(StrEnum):
    """What the server runs for."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Registration(StrEnum):
    """Who may make an account."""

    OPEN = "open"
    INVITE = "invite"
    CLOSED = "closed"


class PasswordRule(StrEnum):
    """What a password needs."""

    MIXED = "mixed"
    LENGTH = "length"


class ImageMetadata(StrEnum):
    """What becomes of what a picture's file tells besides the picture."""

    REMOVE = "remove"
    KEEP = "keep"


class LogLevel(StrEnum):
    """The least severe entries that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How log entries are written."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class Synchronous(StrEnum):
    """When SQLite calls a commit done."""

    FULL = "full"
    NORMAL = "normal"


def _store_url(value: object) -> str:
    url = parse_url(("sqlite", "mongodb", "mongodb+srv"), value)
    if url.startswith("sqlite:") and sqlite_path(url).name in {"", ":memory:"}:
        raise ValueError("must name a file: sqlite:///data/parley.db, sqlite:////absolute/path.db")
    return url


def _default_store_url(data: dict[str, Any]) -> str:
    return f"sqlite:///{data['data_dir']}/parley.db"


def sqlite_path(url: str) -> Path:
    """The file of a `sqlite:///relative` or `sqlite:////absolute` URL."""
    return Path(url.removeprefix("sqlite://").removeprefix("/"))


_REDIS = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)


def _redis_url(value: object) -> str | None:
    if not isinstance(value, str) or "+" not in value.partition("://")[0]:
        return None if value is None else parse_url(_REDIS, value)
    scheme, _, rest = value.partition("://")
    rest, mark, query = rest.partition("?")
    login, at, where = rest.rpartition("@")
    hosts, slash, path = where.partition("/")
    for host in hosts.split(","):
        parse_url(_REDIS, f"{scheme}://{login}{at}{host}{slash}{path}{mark}{query}")
    return value


def _otlp_endpoint(value: object) -> str | None:
    return None if value is None else parse_url(("http", "https"), value)


def _secret(value: SecretStr) -> SecretStr:
    length = len(value.get_secret_value().encode())
    if 0 < length < 32:
        raise ValueError(
            f"must have at least 32 bytes, has {length} (openssl rand -hex 32 makes one)"
        )
    return value


Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^\S+$")]

NodeName = Annotated[str, StringConstraints(max_length=63, pattern=r"^[A-Za-z0-9_-]*$")]


class Settings(BaseSettings):
    """All settings of one server. Durations are in seconds, sizes in bytes.

    Made by `config.load.load`, which also fills `secret_key`. A field's title in upper case with
    the prefix is its variable; `section` is its heading in the documentation.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    # -- server -------------------------------------------------------------------------------

    env: Environment = Field(
        default=Environment.DEVELOPMENT,
        description="`production` refuses what is unsafe outside a laptop, and logs JSON.",
        json_schema_extra={"section": "Server"},
    )
    host: Name = Field(
        default="127.0.0.1",
        description="Address to listen on; `0.0.0.0` for all of IPv4, `::` for all.",
    )
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one."
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Processes that share the port. More than 1 needs Redis and MongoDB, and serves "
        "sockets over websocket only.",
    )
    worker_timeout: Annotated[float, Seconds(1, 3600)] = Field(
        default=30.0,
        description="Time after which one of several workers whose event loop stands still is replaced.",
    )
    node_name: NodeName = Field(
        default="",
        description="What a balancer knows this node by: each session id begins with it and a dot, "
        "so that a session's requests can be sent to its node. Letters, digits, `-`, `_`.",
        json_schema_extra={"default": "none"},
    )
    data_dir: Path = Field(
        default=Path("data"),
        description="Directory of the database, the uploads and the secret key. The default is made if "
        "missing; another one must be there in production, and at least its parent elsewhere.",
    )
    cors_origins: Origins = Field(
        default_factory=lambda data: (
            Origins(("http://localhost:*", "http://127.0.0.1:*"))
            if data.get("env") is Environment.DEVELOPMENT
            else Origins()
        ),
        description="Browser origins allowed besides the server's own, separated by commas: "
        "`https://app.example.com,https://*.example.org`, also of hybrid apps and browser extensions "
        "(`capacitor://localhost`, `chrome-extension://abc`). `*` (all) in development only.",
        json_schema_extra={"default": "this machine in development, otherwise none"},
    )
    base_path: Annotated[str, BeforeValidator(parse_base_path)] = Field(
        default="",
        description="Path below which a proxy shows the server, such as `/chat`, for what the server "
        "says of its addresses. It answers with and without it.",
        json_schema_extra={"default": "none"},
    )
    docs: Annotated[str, BeforeValidator(parse_place)] = Field(
        default="on",
        description="Where `/docs`, `/openapi.json` and `/asyncapi.json` are: `on` with everything "
        "else, `off` nowhere, `127.0.0.1:8001` at an address of their own.",
    )
    metrics: Annotated[str, BeforeValidator(parse_place)] = Field(
        default="on",
        description="Where `/metrics` is: `on` with everything else, `off` nowhere, "
        "`127.0.0.1:9100` at an address of its own (which may be that of `PARLEY_DOCS`).",
    )
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(parse_networks)] = Field(
        default=(),
        description="Addresses or networks of the proxies whose `X-Forwarded-For` is believed.",
    )
    max_connections: int = Field(
        default=20_000,
        ge=1,
        le=1_000_000,
        description="Sockets at a time on this node. When it is full, whoever has most makes room: "
        "an address of which nobody has logged in, a user with more than ten. If nobody does, more "
        "are refused with status 503.",
    )
    max_connections_per_address: int = Field(
        default=2_000,
        ge=1,
        le=1_000_000,
        description="Sockets at a time of one network address (of IPv6: a /64 network) on this node; "
        "more are refused with status 429. Trusted proxies are not counted, who comes through them is.",
    )
    max_connections_per_user: int = Field(
        default=100,
        ge=1,
        le=1_000_000,
        description="Sockets at a time of one user on this node; more are refused with `rate_limited`.",
    )
    shutdown_grace: Annotated[float, Seconds(1, 600)] = Field(
        default=20.0, description="Time to finish what was accepted after SIGTERM."
    )
    max_body: Annotated[int, Bytes(KIB, 64 * MIB)] = Field(
        default=MIB, description="Largest body of a REST request, uploads aside."
    )
    max_body_total: Annotated[int, Bytes(MIB, 1024 * GIB)] = Field(
        default=64 * MIB,
        description="What this node may hold of requests and messages that have not come whole; half "
        "of it for those without a token. What is beyond is refused as `unavailable` (503).",
    )

    # -- store --------------------------------------------------------------------------------

    store_url: Annotated[str, BeforeValidator(_store_url)] = Field(
        default_factory=_default_store_url,
        repr=False,
        description="Where everything is kept: `sqlite:///file.db`, `sqlite:////absolute/file.db`, "
        "`mongodb://host:27017/parley`, `mongodb+srv://…`. The file is made if missing, its directory "
        "is not.",
        json_schema_extra={"section": "Store", "default": "`parley.db` in `PARLEY_DATA_DIR`"},
    )
    redis_url: Annotated[str | None, BeforeValidator(_redis_url)] = Field(
        default=None,
        repr=False,
        description="Redis that joins nodes to a cluster; without it there must be one node only. "
        "`redis://host:6379/0`, `rediss://` with TLS, `redis+sentinel://host:26379,…/service`, "
        "`redis+cluster://host:6379,…`.",
    )
    redis_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = Field(
        default="parley",
        description="Beginning of all names in Redis: sets servers apart that share one.",
    )
    head_check: Annotated[float, Seconds(0.5, 60)] = Field(
        default=5.0,
        description="How often a node of a cluster looks for events that Redis has lost.",
    )
    sqlite_synchronous: Synchronous = Field(
        default=Synchronous.FULL,
        description="`full`: acknowledged means on disk. `normal`: a power cut may undo the last "
        "commits; a crash of the process does not.",
    )
    sqlite_cache: Annotated[int, Bytes(MIB, 64 * GIB)] = Field(
        default=64 * MIB,
        description="Memory for pages of SQLite's file; it fills as the file grows. What is not in it "
        "is mostly in the system's cache.",
    )
    store_queue: int = Field(
        default=10_000,
        ge=100,
        le=1_000_000,
        description="Writes that may wait for the store; more are answered `unavailable`.",
    )
    store_pool: int = Field(
        default=50, ge=1, le=1000, description="Connections of this node to each MongoDB server."
    )
    store_timeout: Annotated[float, Seconds(0.1, 300)] = Field(
        default=5.0, description="How long a locked or unreachable store is waited for."
    )
    retention_events: int = Field(
        default=10_000,
        ge=100,
        le=100_000_000,
        description="Newest events of a stream that stay in its log, for resuming.",
    )
    retention_age: Annotated[float, Seconds(HOUR, 36_500 * DAY)] = Field(
        default=30 * DAY,
        description="Age up to which events stay in the log. History itself stays.",
    )
    upload_max: Annotated[int, Bytes(KIB, 10 * GIB)] = Field(
        default=25 * MIB, description="Largest uploaded file."
    )
    upload_quota: Annotated[int, Bytes(KIB, 1024 * GIB)] = Field(
        default=GIB, description="What one user may have uploaded altogether."
    )
    upload_unattached: Annotated[float, Seconds(MINUTE, 365 * DAY)] = Field(
        default=DAY, description="How long an upload that no message carries is kept."
    )
    image_metadata: ImageMetadata = Field(
        default=ImageMetadata.REMOVE,
        description="What becomes of the metadata (place, camera, time) in uploaded pictures.",
    )
    image_pixels: int = Field(
        default=50_000_000,
        ge=1_000_000,
        le=150_000_000,
        description="Pixels of a picture that is decoded; one with more is a file like any other. "
        "Each takes 4 to 16 bytes of memory meanwhile.",
    )

    # -- sockets ------------------------------------------------------------------------------

    ping_interval: Annotated[float, Seconds(0.1, 300)] = Field(
        default=25.0,
        description="Time between two pings of a socket.",
        json_schema_extra={"section": "Sockets"},
    )
    ping_timeout: Annotated[float, Seconds(0.1, 300)] = Field(
        default=20.0, description="How long a ping's answer is waited for."
    )
    max_frame: Annotated[int, Bytes(KIB, 16 * MIB)] = Field(
        default=64 * KIB, description="Largest frame from a client; larger files are uploads."
    )
    max_connect: Annotated[int, Bytes(KIB, 8 * MIB)] = Field(
        default=MIB,
        description="Largest packet that connects to a namespace: it carries `resume`, about 85 "
        "bytes a stream. A larger one is refused with `too_large`.",
    )
    send_queue: Annotated[int, Bytes(16 * KIB, GIB)] = Field(
        default=MIB,
        description="What may wait for one slow client; beyond it is closed with `slow_consumer`.",
    )
    send_queue_total: Annotated[int, Bytes(MIB, 1024 * GIB)] = Field(
        default=256 * MIB,
        description="What may wait for all clients of this node; beyond, the slowest are closed. As much again "
        "may wait of answers to HTTP requests; beyond, those that wait for longest are cut off.",
    )
    send_stall: Annotated[float, Seconds(0.5, 300)] = Field(
        default=5.0, description="How long a client may take nothing before it is closed."
    )
    presence_grace: Annotated[float, Seconds(0, HOUR)] = Field(
        default=15.0, description="Time between a user's last connection and `offline`."
    )

    # -- accounts -----------------------------------------------------------------------------

    secret_key: Annotated[SecretStr, AfterValidator(_secret)] = Field(
        default=SecretStr(""),
        description="Signs the tokens: at least 32 bytes, the same on all nodes. Required in "
        "production; changing it ends every session.",
        json_schema_extra={
            "section": "Accounts",
            "default": "made once and kept in `PARLEY_DATA_DIR`",
        },
    )
    token_issuer: Name = Field(default="parley", description="`iss` of the tokens, and required.")
    token_audience: Name = Field(default="parley", description="`aud` of the tokens, and required.")
    access_ttl: Annotated[float, Seconds(5, DAY)] = Field(
        default=15 * MINUTE, description="Life of an access token."
    )
    refresh_ttl: Annotated[float, Seconds(MINUTE, 365 * DAY)] = Field(
        default=7 * DAY, description="Life of a refresh token: how long one stays logged in, idle."
    )
    refresh_grace: Annotated[float, Seconds(0, HOUR)] = Field(
        default=30.0,
        description="How long a refresh token may be used again for the same answer: by another "
        "tab, or after a lost answer. For longer only until the answer is seen to have arrived.",
    )
    session_max_age: Annotated[float, Seconds(MINUTE, 3650 * DAY)] = Field(
        default=30 * DAY, description="How long one stays logged in at most, however active."
    )
    bcrypt_cost: int = Field(
        default=12,
        ge=4,
        le=16,
        description="Work factor of password hashes, each step doubles; at least 10 in production.",
    )
    api_key_ttl: Annotated[float, Seconds(0, 3650 * DAY)] = Field(
        default=365 * DAY,
        description="Life of an API key whose maker says nothing else; 0: until it is revoked.",
    )
    password_rule: PasswordRule = Field(
        default=PasswordRule.MIXED,
        description="`mixed`: 8 characters with upper case, lower case and a digit, or 15 of "
        "anything. `length`: 15 of anything (NIST SP 800-63B-4). Well-known ones are refused.",
    )
    registration: Registration = Field(
        default=Registration.OPEN,
        description="Who may make an account: `open` everybody, `invite` the invited, `closed` "
        "nobody.",
    )
    admin_email: EmailStr | None = Field(
        default=None, description="The first administrator, made at start if missing."
    )
    admin_password: SecretStr | None = Field(
        default=None, description="Password of the first administrator, used when it is made."
    )
    rate_limits: RateLimits = Field(
        default_factory=RateLimits,
        description="Limits that differ from the declared ones, by bucket: "
        "`message.send=50/s,login=10/m`. `off` lifts them all, in development only.",
        json_schema_extra={"default": "as declared with each command"},
    )

    # -- logs ---------------------------------------------------------------------------------

    log_level: LogLevel = Field(
        default=LogLevel.INFO,
        description="The least severe entries that are logged.",
        json_schema_extra={"section": "Logs"},
    )
    log_format: LogFormat = Field(
        default=LogFormat.AUTO,
        description="`auto` is `json` in production, `console` in development.",
    )

    # -- telemetry ----------------------------------------------------------------------------

    sentry_dsn: SecretStr = Field(
        default=SecretStr(""),
        description="Where errors are sent, as Sentry names it: `https://key@host/1`. Needs "
        "`requirements-telemetry.txt`.",
        json_schema_extra={"section": "Telemetry", "default": "nowhere"},
    )
    otlp_endpoint: Annotated[str | None, BeforeValidator(_otlp_endpoint)] = Field(
        default=None,
        description="Collector that traces are sent to over OTLP/HTTP: `http://127.0.0.1:4318`. Needs "
        "`requirements-telemetry.txt`.",
        json_schema_extra={"default": "nowhere"},
    )
    trace_share: float = Field(
        default=1.0, ge=0, le=1, description="Share of commands whose trace is sent: 0.01 is 1 %."
    )

    @property
    def production(self) -> bool:
        """Whether this is a production server."""
        return self.env is Environment.PRODUCTION

    @property
    def json_logs(self) -> bool:
        """Whether log entries are JSON."""
        if self.log_format is LogFormat.AUTO:
            return self.production
        return self.log_format is LogFormat.JSON
