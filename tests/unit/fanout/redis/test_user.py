"""A Redis where nodes have a user of their own, with the rights that the operator's page gives."""

import re
import shlex
from pathlib import Path

from structlog.testing import capture_logs

from domain.clock import SystemClock
from fanout.limits import Limit, LocalRateLimiter
from fanout.redis.limits import RedisRateLimiter
from fanout.redis.servers import open_servers
from tests.support.counting import until
from tests.support.redis import RedisProcess, require_redis
from tests.support.registries import Registries, device
from tests.support.server import ROOT
from tests.support.snippets import block

STRANGERS = "user default on nopass ~* &* +@all\n"


def documented_user() -> str:
    """The line of `users.acl` on the page."""
    found = re.search(r"^user parley .*$", (ROOT / "docs" / "cluster.md").read_text(), re.MULTILINE)
    assert found
    return found[0]


def test_the_documented_files_let_nobody_else_in(tmp_path: Path) -> None:
    require_redis()
    users = tmp_path / "users.acl"
    users.write_text(block("cluster.md", "", 1))
    config = block("cluster.md", "").replace("/etc/redis/users.acl", str(users))
    options = [shlex.split(line) for line in config.splitlines()]
    redis = RedisProcess(
        tmp_path, *(word for name, *rest in options for word in (f"--{name}", *rest))
    )
    redis.password = "parley password"  # the user's name goes before it
    with redis:
        assert redis.say("SET", "parley:1", "x") == b"+OK\r\n"
        assert redis.say("SET", "other", "x").startswith(b"-NOPERM")
        assert redis.say("CONFIG", "GET", "save").startswith(b"-NOPERM")
        redis.password = None
        assert redis.say("GET", "parley:1").startswith(b"-NOAUTH")


async def test_the_documented_user_may_do_all_that_nodes_do(tmp_path: Path) -> None:
    require_redis()
    users = tmp_path / "users.acl"
    users.write_text(f"{STRANGERS}{documented_user()}\n")
    with RedisProcess(tmp_path, "--aclfile", str(users)) as redis, capture_logs() as log:
        url = redis.url.replace("redis://", "redis://parley:password@")
        nodes = Registries(url)
        here, there = [await nodes.add(dead_after=30) for _ in range(2)]
        there.bus.subscribe("messages/1")
        await until(lambda: "messages/1" in there.joined)
        here.registry.watch("org", "ann")
        there.registry.put("org", "ann", device("desk"))
        await until(lambda: ("org", "ann") in here.changed)
        assert await here.ids() == {"desk"}
        await nodes.close()

        servers = open_servers(url)
        limits: dict[str, Limit | None] = {"login": (2, 60.0)}
        clock = SystemClock()
        one, other = (
            RedisRateLimiter(servers, LocalRateLimiter(limits, clock), limits, clock)
            for _ in range(2)
        )
        assert [await one.take("login", "ann"), await other.take("login", "ann")] == [0.0, 0.0]
        assert await one.take("login", "ann") > 0
        await servers.close()
        troubles = [entry for entry in log if entry["log_level"] != "info"]
        assert not troubles
        names = redis.say("KEYS", "*").split(b"\r\n")[2::2]
        assert all(name.startswith(b"parley:") for name in names)


async def test_why_nodes_are_not_let_in_again_is_told(tmp_path: Path) -> None:
    """Users that were made at runtime are gone when Redis restarts."""
    require_redis()
    with RedisProcess(tmp_path) as redis, capture_logs() as log:
        _, *rights = documented_user().split(maxsplit=2)
        redis.say("ACL", "SETUSER", rights[0], *rights[1].split())
        nodes = Registries(redis.url.replace("redis://", "redis://parley:password@"))
        await nodes.add(dead_after=30)

        def told(event: str) -> bool:
            return any(entry["event"] == event and "password" in entry["error"] for entry in log)

        redis.kill()
        await until(lambda: any(entry["event"] == "bus_listening_failed" for entry in log))
        redis.start()
        await until(lambda: told("bus_listening_failed") and told("bus_publishing_failed"))
        await nodes.close()
