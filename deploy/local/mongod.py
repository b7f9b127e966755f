"""What stands for MongoDB on this machine: the program in `deploy/mongod`, built once and kept under
`build/`.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local import ROOT
from deploy.local.golang import NoGo, go
from deploy.local.ports import free_port

SOURCE = ROOT / "deploy" / "mongod"
BUILD = ROOT / "build" / "mongod"
FERRETDB = "github.com/FerretDB/FerretDB"

PATCHES = {
    "internal/backends/sqlite/collection.go": [
        # Filters that an index answers are answered by it, not by reading the whole collection.
        (
            "\tvar whereClause string\n\tvar args []any\n",
            "\twhereClause, args := wherePushdown(params.Filter)\n",
        ),
        ("\tif params.Filter.Len() == 1 {\n", "\tif false {\n"),
        # A unique index in the way of an update is told as what it is.
        (
            "\t\t\tr, err := tx.ExecContext(ctx, q, string(b), arg)\n\t\t\tif err != nil {\n",
            "\t\t\tr, err := tx.ExecContext(ctx, q, string(b), arg)\n\t\t\tif err != nil {\n"
            "\t\t\t\tvar se *sqlite3.Error\n"
            "\t\t\t\tif errors.As(err, &se) && se.Code() == sqlite3lib.SQLITE_CONSTRAINT_UNIQUE {\n"
            "\t\t\t\t\treturn backends.NewError(backends.ErrorCodeInsertDuplicateID, err)\n"
            "\t\t\t\t}\n",
        ),
    ],
    "internal/backends/sqlite/metadata/metadata.go": [
        # As the index on _id writes it, so that the index is used.
        ("DefaultColumn + \"->'$._id'\"", 'DefaultColumn + "->\\"_id\\""'),
    ],
    "internal/util/resource/resource.go": [
        # It looks for leaks of its own, at a twentieth of its time.
        ("\tcheckArgs(obj, token)\n\n\tname :=", "\tif true {\n\t\treturn\n\t}\n\n\tname :="),
        ("\tcheckArgs(obj, token)\n\n\tp :=", "\tif true {\n\t\treturn\n\t}\n\n\tp :="),
    ],
}
"""What of FerretDB is built otherwise: texts in its files, and what stands there instead."""


class Unbuildable(Exception):
    """The program cannot be built here; the text says why."""


def binary() -> Path:
    """The program, built if it was not since its source changed (about two minutes).

    Raises:
        Unbuildable: there is no Go, or building failed.
    """
    sources = sorted([*SOURCE.rglob("*.go"), SOURCE / "go.mod", SOURCE / "go.sum"])
    digest = hashlib.sha256(json.dumps(PATCHES).encode())
    for path in sources:
        digest.update(path.read_bytes())
    target = BUILD / f"mongod-{digest.hexdigest()[:16]}"
    if target.exists():
        return target
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            try:
                _build(target, go(BUILD))
            except NoGo as error:
                raise Unbuildable(str(error)) from error
    return target


def _build(target: Path, program: Path) -> None:
    """Build from a copy of FerretDB's source that `PATCHES` and `_overlay/` have changed."""
    copy = BUILD / "source"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(SOURCE, copy)
    _go(program, copy, "mod", "download", FERRETDB)
    module = _go(program, copy, "list", "-m", "-f", "{{.Dir}}", FERRETDB).strip()
    shutil.copytree(module, copy / "_ferretdb", copy_function=shutil.copyfile)
    for path in copy.rglob("*"):  # modules are kept read-only
        path.chmod(0o755 if path.is_dir() else 0o644)
    for name, changes in PATCHES.items():
        file = copy / "_ferretdb" / name
        text = file.read_text()
        for old, new in changes:
            if old not in text:
                raise Unbuildable(f"{name} of FerretDB is not as expected: {old!r} is missing")
            text = text.replace(old, new)
        file.write_text(text)
    shutil.copy(SOURCE / "_overlay" / "pushdown.go", copy / "_ferretdb/internal/backends/sqlite")
    _go(program, copy, "mod", "edit", f"-replace={FERRETDB}=./_ferretdb")
    partial = target.with_suffix(".partial")
    _go(program, copy, "build", "-trimpath", "-o", str(partial), ".")
    for other in BUILD.glob("mongod-*"):
        if other != partial:
            other.unlink(missing_ok=True)
    partial.rename(target)
    shutil.rmtree(copy, ignore_errors=True)


def _go(program: Path, directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [program, *arguments], check=False, cwd=directory, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise Unbuildable(f"go {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


class Mongod:
    """One process and its data, which outlive any number of its restarts. All methods block."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"mongodb://127.0.0.1:{self.port}"

    def start(self, timeout: float = 20.0) -> Self:
        """Start it and wait until it serves.

        Raises:
            AssertionError: it does not within `timeout` seconds.
        """
        assert self._process is None, "it runs already"
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(binary(), "-with-parent", "-data", self.directory / "data"),
                    *("-listen", f"127.0.0.1:{self.port}"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,  # Ctrl-C is for who started it: others still need it then
            )
        output = self._process.stdout
        assert output is not None
        deadline = time.monotonic() + timeout
        ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
        line = os.read(output.fileno(), 1000) if ready else b""
        if not line.startswith(b"mongodb://"):
            self.kill()
            raise AssertionError((self.directory / "log").read_text()[-2000:] or "no answer")
        return self

    def stop(self) -> None:
        """End it and wait for the end."""
        self._end(kill=False)

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self._end(kill=True)

    def pause(self) -> None:
        """It is there and does nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It does again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
