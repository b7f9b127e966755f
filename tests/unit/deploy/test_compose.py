"""The compose files agree with the settings, with the balancer's configuration and with the image."""

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from config.settings import Settings
from tests.support.server import ROOT

DEPLOY = ROOT / "deploy"
FILES = {
    name: yaml.safe_load((DEPLOY / name).read_text())
    for name in ("compose.yaml", "compose.single.yaml")
}
CLUSTER = FILES["compose.yaml"]
HAPROXY = (DEPLOY / "haproxy.cfg").read_text()
NGINX = (DEPLOY / "nginx.conf").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()

IMAGE = "parley:local"


def default(setting: str) -> float:
    return float(Settings.model_fields[setting].default)


def nodes(name: str) -> dict[str, dict[str, Any]]:
    """The services that run Parley."""
    services = FILES[name]["services"]
    return {key: each for key, each in services.items() if each["image"] == IMAGE}


def seconds(span: str) -> float:
    assert span.endswith("s")
    return float(span.removesuffix("s"))


@pytest.mark.parametrize("name", FILES)
def test_a_node_has_the_time_to_drain_and_the_files_for_its_sockets(name: str) -> None:
    for node in nodes(name).values():
        assert "PARLEY_SHUTDOWN_GRACE" not in node["environment"]
        assert seconds(node["stop_grace_period"]) > default("shutdown_grace")
        assert node["ulimits"]["nofile"] > default("max_connections")


@pytest.mark.parametrize("name", FILES)
def test_a_node_writes_where_it_may(name: str) -> None:
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    data = re.search(r"PARLEY_DATA_DIR=(\S+)", DOCKERFILE)
    assert user
    assert data
    for node in nodes(name).values():
        assert node["read_only"]
        places = dict(each.partition(":")[::2] for each in node["tmpfs"])
        if any(each.endswith(f":{data[1]}") for each in node.get("volumes", ())):
            assert data[1] not in places
        else:
            assert {f"uid={user[1]}", f"gid={user[2]}"} <= set(places[data[1]].split(","))


@pytest.mark.parametrize("name", FILES)
def test_one_service_builds_the_image(name: str) -> None:
    builders = [node for node in nodes(name).values() if "build" in node]
    assert len(builders) == 1, "two that write one image's name at once may fail"
    for node in nodes(name).values():
        assert "build" in node or node["pull_policy"] == "never"


@pytest.mark.parametrize("name", FILES)
def test_what_is_kept_has_a_volume(name: str) -> None:
    named = {
        each.partition(":")[0]
        for service in FILES[name]["services"].values()
        for each in service.get("volumes", ())
        if not each.startswith((".", "/"))
    }
    assert named == FILES[name]["volumes"].keys()


def test_health_checks_ask_what_there_is() -> None:
    source = (ROOT / "server" / "health.py").read_text()
    for text in (str(CLUSTER), DOCKERFILE, HAPROXY):
        asked = set(re.findall(r"/health/\w+", text))
        assert asked
        for path in asked:
            assert f'add_get("{path}"' in source


def test_the_balancer_has_an_address_of_its_own_that_the_nodes_trust() -> None:
    address = CLUSTER["services"]["balancer"]["networks"]["inside"]["ipv4_address"]
    (pool,) = CLUSTER["networks"]["inside"]["ipam"]["config"]
    assert IPv4Address(address) in IPv4Network(pool["subnet"])
    assert IPv4Address(address) not in IPv4Network(pool["ip_range"])
    assert IPv4Network(pool["ip_range"]).subnet_of(IPv4Network(pool["subnet"]))
    for node in nodes("compose.yaml").values():
        assert node["environment"]["PARLEY_TRUSTED_PROXIES"] == address


def test_the_balancer_knows_the_nodes() -> None:
    port = re.search(r"PARLEY_PORT=(\d+)", DOCKERFILE)
    assert port
    wanted = {(node, node, port[1]) for node in nodes("compose.yaml")}
    backends = HAPROXY.split("\nbackend ")[1:]
    assert [each.partition("\n")[0] for each in backends] == ["nodes", "living"]
    for backend in backends:
        assert set(re.findall(r"^ +server (\S+) ([^:\s]+):(\d+)", backend, re.MULTILINE)) == wanted
    for name, node in nodes("compose.yaml").items():
        assert node["environment"]["PARLEY_NODE_NAME"] == name, "sessions are found by it"


def test_nginx_balances_the_same_nodes() -> None:
    servers = re.findall(r"^ +server (\S+):8000", NGINX, re.MULTILINE)
    assert servers == [*(["node1", "node2"] * 3), "node2", "node1"]
    assert set(servers) == set(nodes("compose.yaml"))
    found = re.search(r"proxy_read_timeout (\d+)s", NGINX)
    assert found
    assert float(found[1]) > default("ping_interval") + default("ping_timeout")


def test_the_balancer_waits_longer_than_a_client_may_be_silent() -> None:
    silence = default("ping_interval") + default("ping_timeout")
    for kind in ("client", "server", "tunnel"):
        found = re.search(rf"timeout {kind} (\d+)s", HAPROXY)
        assert found
        assert float(found[1]) > silence


def test_the_replica_set_is_the_one_that_the_nodes_ask_for() -> None:
    mongodb = CLUSTER["services"]["mongodb"]
    name = mongodb["command"][mongodb["command"].index("--replSet") + 1]
    made = re.search(r'_id: "(\w+)", members: \[{ _id: 0, host: "([\w:]+)"', str(mongodb))
    assert made
    assert made.groups() == (name, "mongodb:27017")
    for node in nodes("compose.yaml").values():
        url = node["environment"]["PARLEY_STORE_URL"]
        assert url == f"mongodb://{made[2]}/parley?replicaSet={name}"


def test_what_others_have_built_is_named_by_digest() -> None:
    named = re.findall(r"^ *image: (\S+)", (ROOT / "deploy/compose.yaml").read_text(), re.M)
    named += re.findall(r"^ARG PYTHON=(\S+)", (ROOT / "Dockerfile").read_text(), re.M)
    others = [each for each in named if each != IMAGE]
    assert len(others) == 4
    assert all(re.search(r":[\w.-]+@sha256:[0-9a-f]{64}\Z", each) for each in others)
