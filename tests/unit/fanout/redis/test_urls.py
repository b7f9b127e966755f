"""What a URL says besides where Redis is: user, database, TLS, the Sentinels' own password."""

import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from deploy.local.ports import free_port
from fanout.redis.servers import open_servers
from tests.support.certificate import make_certificate
from tests.support.counting import until
from tests.support.joint import Joint, wait_for
from tests.support.redis import RedisProcess, require_redis

USER = ("ACL", "SETUSER", "ann", "on", ">pass@/wörd", "~*", "&*", "+@all")
LOGIN = "ann:pass%40%2Fw%C3%B6rd"


@pytest.fixture
async def joint() -> AsyncIterator[Joint]:
    require_redis()
    joint = Joint()
    yield joint
    await joint.close()


async def exchange(joint: Joint, url: str) -> None:
    """Two nodes hear each other over it."""
    here, there = await joint.bus(url), await joint.bus(url)
    channels = [f"messages/{number}" for number in range(20)]
    for channel in channels:
        there.bus.subscribe(channel)
    await until(lambda: there.joined >= set(channels), 20)
    for channel in channels:
        here.bus.publish(channel, channel.encode())
    await until(lambda: len(there.messages) == len(channels), 20)


@contextlib.contextmanager
def cluster_of_three(directory: Path) -> Iterator[tuple[str, list[RedisProcess]]]:
    """As `redis-cli` makes one, over TLS: its hosts and its servers."""
    certificate = make_certificate(directory)
    ports, servers = [free_port() for _ in range(3)], []
    with ExitStack() as stack:
        for port in ports:
            bus_port = free_port()
            servers.append(
                RedisProcess(
                    directory,
                    *certificate.redis(port),
                    *("--cluster-enabled", "yes", "--tls-cluster", "yes"),
                    *("--cluster-config-file", f"nodes-{port}.conf"),
                    *("--cluster-port", str(bus_port), "--cluster-node-timeout", "2000"),
                )
            )
            stack.enter_context(servers[-1])
            servers[-1].say(*USER)
        hosts = [f"127.0.0.1:{port}" for port in ports]
        subprocess.run(
            [
                *("redis-cli", "--tls", "--cacert", str(certificate.path)),
                *("--cluster", "create", *hosts, "--cluster-yes"),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
        for server in servers:
            wait_for(server, ("CLUSTER", "INFO"), b"cluster_state:ok")
        yield ",".join(hosts), servers


async def test_a_cluster_with_tls_and_a_user(joint: Joint, tmp_path: Path) -> None:
    with cluster_of_three(tmp_path) as (hosts, servers):
        options = f"ssl_ca_certs={tmp_path}/certificate.pem&socket_timeout=3"
        await exchange(joint, f"rediss+cluster://{LOGIN}@{hosts}?{options}")
        for server in servers:
            # Those of `say` beside.
            assert server.say("CLIENT", "LIST").count(b"user=ann") >= 2
        await joint.close()
        # The authority is looked at: with others' alone nobody is let in.
        stranger = open_servers(f"rediss+cluster://{LOGIN}@{hosts}?socket_timeout=3")
        with pytest.raises(RedisError, match="cannot be connected"):
            await stranger.refresh()
        await stranger.close()


@pytest.mark.parametrize("servers_tls", [True, False])
async def test_sentinels_with_tls_and_a_password(
    joint: Joint, tmp_path: Path, servers_tls: bool
) -> None:
    certificate = make_certificate(tmp_path)
    ports = [free_port() for _ in range(2)]
    with RedisProcess(tmp_path, *certificate.redis(ports[0])) as master:
        master.say(*USER)
        port = ports[0] if servers_tls else master.port
        config = f"sentinel monitor main 127.0.0.1 {port} 1\nrequirepass sesame\n"
        tls = certificate.redis(ports[1])
        sentinel = RedisProcess(
            tmp_path, *(tls if servers_tls else [*tls, "--tls-replication", "no"]), sentinel=config
        )
        sentinel.password = "sesame"
        with sentinel:
            where = f"{LOGIN}@127.0.0.1:{ports[1]},127.0.0.1:1/main/2"
            own = "sentinel_password=sesame&socket_timeout=3&health_check_interval=7"
            authority = f"ssl_ca_certs={certificate.path}"
            url = (
                f"rediss+sentinel://{where}?{own}&{authority}"
                if servers_tls
                else f"redis+sentinel://{where}?{own}&sentinel_ssl=true&sentinel_{authority}"
            )
            await exchange(joint, url)
            servers = open_servers(url)
            await servers.client.ping()
            assert b"db=2" in master.say("CLIENT", "LIST")
            assert master.say("CLIENT", "LIST").count(b"user=ann") >= 5
            await servers.close()
            # Without the Sentinels' password nobody learns where the master is, and says why.
            closed = open_servers(url.replace("sentinel_password=sesame&", ""))
            with pytest.raises(RedisConnectionError, match="Authentication required"):
                await closed.client.ping()
            await closed.close()
            await joint.close()


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis+cluster://one,two/1", "database"),
        ("redis+cluster://one,two?sentinel_password=secret", "options of Sentinel: password"),
        ("redis+cluster://one,two?ssl_ca_certs=/ca.pem", "TLS without TLS .*ssl_ca_certs"),
        ("redis://one?ssl_ca_certs=/ca.pem", "TLS without TLS .*ssl_ca_certs"),
        ("redis+sentinel://one/main?sentinel_ssl_ca_certs=/ca", "TLS without TLS .*ssl_ca_certs"),
        ("rediss+sentinel://one/main?ssl_ca_cert=/ca.pem", "unknown options: ssl_ca_cert"),
        ("redis://one?passwrd=secret", "unknown options: passwrd"),
        ("redis+sentinel://one/main/0/1", "too much"),
        ("redis+sentinel://one/main/first", "no number"),
        ("redis+sentinel://one/main?sentinel_ssl=maybe", "sentinel_ssl"),
        ("redis+cluster://one?socket_timeout=soon", "socket_timeout"),
    ],
)
def test_an_option_that_would_be_dropped_is_named(url: str, named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        open_servers(url)
    assert "secret" not in str(caught.value)
