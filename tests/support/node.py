"""The official `socket.io-client` on Node, led from Python, and programs run to their end."""

import asyncio
import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.recorder import ConnectRefused, Recorder, unwrap
from tests.support.server import clean_environment

NODE_DIR = Path(__file__).parents[1] / "node"


def node() -> str:
    """The path of Node, with the client library in place.

    Raises:
        AssertionError: one of them is missing.
    """
    path = shutil.which("node")
    assert path, "these tests need Node 18 or later"
    assert (NODE_DIR / "node_modules" / "socket.io-client").is_dir(), "run `make test` once"
    return path


async def run_to_end(
    *command: str | Path,
    environment: dict[str, str] | None = None,
    source: str = "",
    cwd: Path = NODE_DIR,
    timeout: float = 50.0,
) -> str:
    """Run a program to its end, e.g. `run_to_end(node(), "script.mjs")`.

    Args:
        command: the program and its arguments.
        environment: on top of ours.
        source: its standard input; `node --input-type=module -` runs it.
        cwd: by default where Node finds the client library.
        timeout: seconds.

    Returns:
        What it wrote, both outputs together.

    Raises:
        AssertionError: it exits with another code than 0, or takes longer.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**clean_environment(), **(environment or {})},
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(source.encode()), timeout)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"{command} ran longer than {timeout:g} s") from None
    text = output.decode(errors="replace")
    assert process.returncode == 0, f"{command} exited with {process.returncode}\n{text}"
    return text


class NodeProcess:
    """One Node process that holds one connection, and its namespaces."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.clients: dict[str, NodeClient] = {}
        self._process = process
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls) -> "NodeProcess":
        """Start Node; nothing is connected yet."""
        return cls(
            await asyncio.create_subprocess_exec(
                node(),
                str(NODE_DIR / "client.mjs"),
                env=clean_environment(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 24,
            )
        )

    async def ask(self, op: str, *, timeout: float = 15.0, **args: Any) -> Any:
        """Have the process do something; its answer."""
        number = self._next
        self._next += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "op": op, **args}).encode() + b"\n")
        return await asyncio.wait_for(answer, timeout)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            if "id" in said:
                answer = self._answers.pop(said["id"])
                if not answer.done():
                    answer.set_result(said)
            elif client := self.clients.get(said["namespace"]):
                client.on_said(said)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the Node process ended"))

    async def stop(self) -> None:
        """Close the connection and end the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader


class NodeClient(Recorder):
    """One namespace, through the official client, which reconnects by itself and resumes."""

    def __init__(self, process: NodeProcess, namespace: str) -> None:
        super().__init__()
        self.process = process
        self.namespace = namespace
        self.connected = False
        self.disconnects: list[str] = []
        """The reason of each disconnection."""

    async def call(self, command: str, data: Any = None, *, timeout: float = 10.0) -> Any:
        """Send a command; its answer's `data`.

        Raises:
            CommandFailed: the answer is an error.
        """
        return unwrap(command, await self.request(command, data, timeout=timeout))

    async def request(self, command: str, data: Any = None, *, timeout: float = 10.0) -> Any:
        """Send a command; its answer as it came.

        Raises:
            ConnectionError: no answer within `timeout` seconds.
        """
        answer = await self.process.ask(
            "request",
            namespace=self.namespace,
            command=command,
            data={} if data is None else data,
            timeout=int(timeout * 1000),
        )
        if not answer["ok"]:
            raise ConnectionError(answer["message"])
        return answer["ack"]

    async def cut(self) -> None:
        """Close the transport under the client; it reconnects by itself with `auth.resume`."""
        await self.process.ask("cut")

    async def transport(self) -> str:
        """`polling` or `websocket`, as it is now."""
        return str((await self.process.ask("transport"))["name"])

    async def close(self) -> None:
        """Disconnect the namespace, and end the process when it was the last."""
        self.process.clients.pop(self.namespace, None)
        if not self.process.clients:
            await self.process.stop()

    def on_said(self, said: dict[str, Any]) -> None:
        """Something happened to the namespace's socket."""
        if "event" in said:
            self.record(said["event"], said["args"][0] if said["args"] else None)
            return
        self.connected = said["state"] == "connected"
        if said["state"] == "disconnected":
            self.disconnects.append(said["reason"])
        self.notify()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


async def connect_node(
    url: str,
    namespace: str,
    token: str | None = None,
    *,
    resume: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    process: NodeProcess | None = None,
) -> NodeClient:
    """Connect one namespace by the official client, and wait for `ready`.

    Args:
        url: of the server.
        namespace: with its leading slash.
        token: access token or API key.
        resume: where this client stood, as `Recorder.streams` has it.
        options: the client's own, e.g. `{"transports": ["polling"]}`.
        process: another client's, to share its connection.

    Raises:
        ConnectRefused: the server answers `connect_error`.
    """
    own = process is None
    process = process or await NodeProcess.start()
    client = process.clients[namespace] = NodeClient(process, namespace)
    try:
        answer = await process.ask(
            "connect",
            url=url,
            namespace=namespace,
            token=token,
            resume=resume,
            options=options or {},
        )
        if not answer["ok"]:
            raise ConnectRefused(answer)
        await client.wait_for("ready", timeout=10)
    except BaseException:
        process.clients.pop(namespace, None)
        if own:
            await process.stop()
        raise
    return client
