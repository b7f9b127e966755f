"""What `deploy/` gives to those who watch: every metric that it names is there, and its rules hold."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
import yaml  # type: ignore[import-untyped]

from server.version import VERSION
from tests.conftest import StartServer
from tests.support.mongod import scratch
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import Api
from tests.support.server import ROOT, ServerProcess
from tests.support.snippets import block

RULES = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "parley.json").read_text())
NAME = re.compile(r"\b(?:parley|process)_[a-z_]+\b")


def expressions() -> dict[str, str]:
    """By title or name."""
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    }
    for group in yaml.safe_load((RULES / "rules.yaml").read_text())["groups"]:
        found |= {rule["alert"]: rule["expr"] for rule in group["rules"]}
    return found


def declared(text: str) -> set[str]:
    """Names of samples that an exposition's families have, whether or not they have a sample yet."""
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        names |= {name, f"{name}_bucket"} if kind == "histogram" else {name}
    return names


async def scrape(server: ServerProcess) -> str:
    async with aiohttp.request("GET", f"{server.url}/metrics") as answer:
        return await answer.text()


def value(text: str, sample: str) -> float | None:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    return None if found is None else float(found[1])


async def wait_for(server: ServerProcess, ready: Callable[[str], object]) -> str:
    deadline = time.monotonic() + 10
    while not ready(text := await scrape(server)):
        assert time.monotonic() < deadline, text
    return text


async def test_every_metric_that_is_watched_is_there(
    tmp_path: Path, mongodb: str, start_server: StartServer
) -> None:
    require_redis()
    with RedisProcess(tmp_path / "redis") as redis, scratch(mongodb) as database:
        server = start_server(
            STORE_URL=database.url, REDIS_URL=redis.url, SECRET_KEY="of the only node " * 3
        )
        there = declared(await scrape(server))
        watched = {name: set(NAME.findall(text)) for name, text in expressions().items()}
        assert len(watched) > 35
        assert {name: names - there for name, names in watched.items() if names - there} == {}
        assert await wait_for(
            server, lambda text: value(text, 'parley_store_size_bytes{kind="database"}') or False
        )
        server.stop()


async def test_what_runs_and_how_it_is(start_server: StartServer) -> None:
    server = start_server()
    async with Api(server.url) as api:
        await api.register("Ann")
    text = await wait_for(server, lambda text: "parley_store_size_bytes{" in text)
    assert re.search(rf'^parley_build_info{{python="3[^"]+",version="{VERSION}"}} 1.0$', text, re.M)
    assert value(text, 'parley_ready{check="store"}') == 1
    assert value(text, "parley_store_queue") == 0
    size = value(text, 'parley_store_size_bytes{kind="database"}')
    assert size is not None
    assert size > 4096


async def test_the_age_of_the_last_backup(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    sample = 'parley_last_backup_timestamp_seconds{state="done"}'
    assert value(await scrape(server), sample) is None
    before = time.time() - 1
    subprocess.run(
        [sys.executable, "-m", "server", "backup", str(tmp_path / "copy.tar")],
        cwd=ROOT,
        env=server.environment(),
        check=True,
        capture_output=True,
    )
    taken = value(await scrape(server), sample)
    assert taken is not None
    assert before <= taken <= time.time() + 1


def promtool(kind: str, file: str, cwd: Path) -> None:
    """Have it look at a file of rules."""
    program = shutil.which("promtool")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is missing: apt-get install prometheus")
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(
        [program, kind, "rules", file], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", [("check", "rules.yaml"), ("test", "rules.test.yaml")])
def test_the_rules_hold(command: tuple[str, str]) -> None:
    promtool(*command, cwd=RULES)


def test_the_documented_expression_is_one(tmp_path: Path) -> None:
    rule = {"record": "lag", "expr": block("operations.md", "promql")}
    (tmp_path / "rules.yaml").write_text(
        json.dumps({"groups": [{"name": "documented", "rules": [rule]}]})
    )
    promtool("check", "rules.yaml", cwd=tmp_path)
