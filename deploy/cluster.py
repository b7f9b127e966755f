"""A whole cluster on this machine: `make cluster`, `make cluster-demo`.

Three nodes behind HAProxy, with a real Redis and, in MongoDB's place, a stand-in that is built
once. It is for trying out: all its data goes with it.
"""

import argparse
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.local import ROOT
from deploy.local.mongod import BUILD, Mongod, Unbuildable
from deploy.local.ports import free_port
from deploy.local.redis import RedisProcess
from deploy.local.server import ServerFailed, ServerProcess

PROGRAMS = {"redis-server": "redis-server", "haproxy": "haproxy"}
"""Programs, and the Debian packages that have them."""
TEMPLATE = Path(__file__).with_name("haproxy.cfg")
RESTART_AFTER = 2.0
"""Seconds until a node that was killed is started again: time to see that it is missed by nobody."""


class Failed(Exception):
    """The cluster cannot run; the text says why in one line."""


def main() -> int:
    """Run it. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.cluster", description=__doc__)
    parser.add_argument("--nodes", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--port", type=int, default=8000, help="the balancer's (default: 8000)")
    parser.add_argument("--demo", action="store_true", help="run the demo, then end")
    asked = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # Debian keeps haproxy where only an administrator's shell looks.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    try:
        for program, package in PROGRAMS.items():
            install(program, package)
        if not any(BUILD.glob("mongod-*")):
            install("go", "golang-go")
        with cluster(asked.nodes, None if asked.demo else asked.port, doors=asked.demo) as running:
            if asked.demo:
                return running.demo()
            running.tell()
            running.watch()
    except KeyboardInterrupt:
        print("\nended")
    except (Failed, ServerFailed) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except Unbuildable as error:
        print(f"cluster: nothing can stand for MongoDB: {error}", file=sys.stderr)
        return 1
    return 0


def install(program: str, package: str) -> None:
    """Have a program, from its Debian package if it is missing.

    Raises:
        Failed: it is missing and cannot be installed.
    """
    if shutil.which(program):
        return
    wanted = f"{program} is not installed: apt-get install {package}"
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if not shutil.which("apt-get") or (root and not shutil.which("sudo")):
        raise Failed(wanted)
    print(f"installing {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", package]):
        done = subprocess.run(
            [*root, "apt-get", *arguments], check=False, env=environment, capture_output=True
        )
        if done.returncode != 0:
            raise Failed(f"{wanted} ({done.stderr.decode().strip()[-200:]})")
    if not shutil.which(program):
        raise Failed(wanted)


class Cluster:
    """The running parts."""

    def __init__(self, url: str, nodes: Sequence[ServerProcess], doors: Sequence[str]) -> None:
        self.url = url
        self.nodes = nodes
        self.doors = doors
        """By node: a URL that leads to it while it is up, otherwise to another one."""

    def tell(self) -> None:
        """Say where everything is."""
        for number, node in enumerate(self.nodes, 1):
            print(f"  node {number}     {node.url}   pid {node.pid}")
        print(f"  balancer   {self.url}   API: {self.url}/docs")
        print(
            f"\nTwo people talk through it:  make demo PARLEY_URL={self.url}\n"
            "Kill a node with kill -9; it is started again. Ctrl-C ends everything.",
            flush=True,
        )

    def watch(self) -> None:
        """Start nodes again that end, until interrupted."""
        while True:
            time.sleep(0.2)
            for number, node in enumerate(self.nodes, 1):
                if node.running:
                    continue
                print(f"  node {number} ended with {node.exit_code}", flush=True)
                time.sleep(RESTART_AFTER)
                with _signals_for_us_alone():
                    node.start()
                print(f"  node {number} is back at {node.url}, pid {node.pid}", flush=True)

    def demo(self) -> int:
        """Ada and Ben on different nodes; Ben's is killed. Returns the demo's exit code."""
        here = {1: "Ada", 2: "Ben, until it is killed"}
        for number, node in enumerate(self.nodes, 1):
            print(f"  node {number}     {node.url}   pid {node.pid}   {here.get(number, '')}")
        sys.stdout.flush()
        demo = subprocess.run(
            ["node", "demo/demo.mjs"],
            cwd=ROOT,
            check=False,
            env={
                **os.environ,
                "PARLEY_URL": self.url,
                "PARLEY_URL_ADA": self.doors[0],
                "PARLEY_URL_BEN": self.doors[1],
                "PARLEY_NODE_OF_BEN": str(self.nodes[1].pid),
            },
        )
        return demo.returncode


@contextmanager
def cluster(count: int, port: int | None, *, doors: bool) -> Iterator[Cluster]:
    """A running cluster; ended, part by part, after the block.

    Args:
        count: of nodes.
        port: of the balancer; None takes a free one.
        doors: whether the balancer has a port for each node too.

    Raises:
        Failed: the balancer does not start.
        ServerFailed: a node does not start.
        Unbuildable: what stands for MongoDB cannot be built here.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-")))
        with _signals_for_us_alone():
            print("starting Redis and what stands for MongoDB (built once, in about two minutes)")
            redis = stack.enter_context(RedisProcess(directory / "redis"))
            mongod = stack.enter_context(Mongod(directory / "mongod"))
            shared = {
                "STORE_URL": f"{mongod.url}/parley",
                "REDIS_URL": redis.url,
                "SECRET_KEY": secrets.token_hex(32),
                "TRUSTED_PROXIES": "127.0.0.1",
                "LOG_FORMAT": "console",
                "SHUTDOWN_GRACE": "5",
            }
            nodes = [
                stack.enter_context(
                    ServerProcess(
                        directory / f"node{number}", {**shared, "NODE_NAME": f"node{number}"}
                    )
                )
                for number in range(1, count + 1)
            ]
            port = port or free_port()
            ports = [free_port() for _ in nodes] if doors else []
            config = directory / "haproxy.cfg"
            config.write_text(configuration(TEMPLATE.read_text(), port, nodes, ports))
            stack.enter_context(haproxy(config))
        url = f"http://127.0.0.1:{port}"
        yield Cluster(url, nodes, [f"http://127.0.0.1:{each}" for each in ports])


def configuration(
    template: str, port: int, nodes: Sequence[ServerProcess], doors: Sequence[int]
) -> str:
    """`haproxy.cfg` for this machine: with these nodes, on this port, and a door to each node."""
    servers = "".join(
        f"    server node{number} 127.0.0.1:{node.port}\n" for number, node in enumerate(nodes, 1)
    )
    text = re.sub(r"(?: +server node\d .*\n)+", servers, template)
    text = text.replace("    bind :8000\n", f"    bind 127.0.0.1:{port}\n")
    for number, door in enumerate(doors, 1):
        others = [n for n in range(1, len(nodes) + 1) if n != number]
        text += f"\nlisten door{number}\n    bind 127.0.0.1:{door}\n"
        text += "    http-request set-header X-Forwarded-For %[src]\n"
        text += "    option httpchk GET /health/ready\n"
        text += "    use-server %[url_param(sid),field(1,.)] if { url_param(sid) -m found }\n"
        text += f"    server node{number} 127.0.0.1:{nodes[number - 1].port}\n"
        text += "".join(
            f"    server node{n} 127.0.0.1:{nodes[n - 1].port} backup\n" for n in others
        )
    return text


@contextmanager
def haproxy(config: Path) -> Iterator[None]:
    """HAProxy with this configuration; its log is beside it.

    Raises:
        Failed: it does not start.
    """
    log = config.with_name("haproxy.log")
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["haproxy", "-db", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        time.sleep(0.5)  # it says nothing when it listens; a wrong port ends it at once
        if process.poll() is not None:
            raise Failed(f"haproxy ended: {log.read_text().strip().splitlines()[-1]}")
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _signals_for_us_alone() -> Iterator[None]:
    """What is started in the block does not hear Ctrl-C: it is ended in its turn, nodes before
    what they need.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


if __name__ == "__main__":
    sys.exit(main())
