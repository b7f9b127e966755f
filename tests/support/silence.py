"""Connections that break without a word: nothing arrives any more, and nobody is told.

`StallingProxy` stops forwarding what goes through it; the kernels on both sides still answer for it.
`SilentNetwork` drops the packets, so that nobody answers; it needs the right to make a network
namespace.
"""

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Literal

from tests.support.proxy import Carry, MakeSocket, Proxy

Direction = Literal["both", "to_server", "to_client"]

_CLONE_NEWNET = 0x40000000


class _Gates:
    """What holds back the connections that were open when they closed."""

    def __init__(self) -> None:
        self.to_server = asyncio.Event()
        self.to_client = asyncio.Event()
        self.to_server.set()
        self.to_client.set()


class StallingProxy(Proxy):
    """A proxy that can stop forwarding."""

    def __init__(
        self, port: int, host: str = "127.0.0.1", make_socket: MakeSocket = socket.socket
    ) -> None:
        """As `Proxy`."""
        super().__init__(port, host, make_socket)
        self._gates = _Gates()

    @property
    def url(self) -> str:
        """Where clients reach the server through it."""
        return f"http://127.0.0.1:{self.port}"

    def stall(self, direction: Direction = "both") -> None:
        """Forward nothing any more, not even an end, over the connections that are open now.
        Later ones are forwarded.
        """
        if direction != "to_client":
            self._gates.to_server.clear()
        if direction != "to_server":
            self._gates.to_client.clear()
        self._gates = _Gates()

    def carries(self) -> tuple[Carry, Carry]:
        """Waits at the gates of now."""
        return _through(self._gates.to_server), _through(self._gates.to_client)


def _through(gate: asyncio.Event) -> Carry:
    async def wait(data: bytes) -> bytes:
        await gate.wait()
        return data

    return wait


class NotPermitted(Exception):
    """No network namespace can be made here; the text says why."""


class SilentNetwork:
    """A network namespace that is joined to this one by one cable, whose packets can be dropped.
    Use `silent_network`.
    """

    def __init__(self, name: str, host: str) -> None:
        self._name = name
        self.host = host
        """This side's address, as it is reached from the other side."""

    def socket(self) -> socket.socket:
        """A TCP socket on the other side."""
        made: list[socket.socket] = []
        failed: list[OSError] = []

        def make() -> None:
            # A thread of its own is in the namespace, and what it makes stays there.
            libc = ctypes.CDLL(None, use_errno=True)
            space = os.open(f"/run/netns/{self._name}", os.O_RDONLY)
            try:
                if libc.setns(space, _CLONE_NEWNET) != 0:
                    failed.append(OSError(ctypes.get_errno(), "setns"))
                else:
                    made.append(socket.socket())
            finally:
                os.close(space)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return made[0]

    def drop_packets(self) -> None:
        """Drop everything that comes to or leaves the other side."""
        for hook in ("input", "output"):
            self._inside(
                "nft",
                f"add table inet silence; add chain inet silence {hook} "
                f"{{ type filter hook {hook} priority 0; policy drop; }}",
            )

    def pass_packets(self) -> None:
        """The end of `drop_packets`."""
        self._inside("nft", "delete table inet silence")

    def _inside(self, *command: str) -> None:
        _run("ip", "netns", "exec", self._name, *command)


@contextlib.contextmanager
def silent_network() -> Iterator[SilentNetwork]:
    """Make a network and remove it.

    Raises:
        NotPermitted: that is not possible here.
    """
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            raise NotPermitted(f"there is no `{program}`")
    mark = secrets.token_hex(3)
    name, here, there = f"parley-{mark}", f"pl{mark}a", f"pl{mark}b"
    # Of 198.18.0.0/15, which is for tests between networks (RFC 2544).
    block = f"198.18.{secrets.randbelow(256)}"
    offset = secrets.randbelow(64) * 4
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _run("ip", "addr", "add", f"{block}.{offset + 1}/30", "dev", here)
        _run("ip", "link", "set", here, "up")
        _run("ip", "-n", name, "addr", "add", f"{block}.{offset + 2}/30", "dev", there)
        _run("ip", "-n", name, "link", "set", there, "up")
        network = SilentNetwork(name, f"{block}.{offset + 1}")
        network.drop_packets()
        network.pass_packets()
        yield network
    finally:
        # The cable goes with the namespace, and that with the last socket in it.
        subprocess.run(["ip", "link", "del", here], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise NotPermitted(f"`{' '.join(command)}`: {done.stderr.strip()}")
