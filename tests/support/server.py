"""A real server under test: `python -m server` on a free port, with its own data, that can be killed."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from deploy.local import ROOT, server
from deploy.local.ports import free_port
from deploy.local.server import Process, ServerFailed, clean_environment
from tests.support.nursery import Nursery
from tests.support.plans import SLOW

__all__ = ["ROOT", "ServerFailed", "ServerProcess", "clean_environment", "free_port"]

FOR_TESTS = {
    "BCRYPT_COST": "4",
    "RATE_LIMITS": "off",
    "LOG_FORMAT": "console",
    "SHUTDOWN_GRACE": "5",
}
"""Settings of every server under test, unless the test says otherwise."""


class ServerProcess(server.ServerProcess):
    """A server with the settings of tests, whose store is looked at for slow questions."""

    nursery: ClassVar[Nursery | None] = None
    """Makes the processes; without one each begins with `python -m server`."""

    def __init__(self, directory: Path, settings: Mapping[str, object] | None = None) -> None:
        super().__init__(directory, {**FOR_TESTS, **(settings or {})})

    def spawn(self) -> Process:
        if self.nursery is None:
            return super().spawn()
        return self.nursery.spawn(self.environment(), self.log_path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        started = self._process is not None
        super().__exit__(kind, error, trace)
        if started and error is None:
            assert SLOW not in self.log(), self.log()[self.log().index(SLOW) :][:2000]
