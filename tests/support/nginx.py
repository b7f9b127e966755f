"""A real nginx in front of servers, ended with the test."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
"""Debian keeps it where only an administrator's shell looks."""

MAIN = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 512; }}
http {{
    access_log {directory}/access.log combined;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/site.conf;
}}
"""
"""What distributions have around a site, with everything in one directory."""


def require_nginx() -> None:
    """Skip the test where no nginx is installed; fail it in the build."""
    if shutil.which("nginx", path=PATH) is None:
        reason = "nginx is not installed: nothing behind it is tested"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


class Nginx:
    """One nginx with a site as it stands in `sites-enabled`. All methods block, but briefly."""

    def __init__(self, directory: Path, site: str, port: int) -> None:
        """`port` is one that the site listens on."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = port
        (directory / "site.conf").write_text(site, encoding="utf-8")
        (directory / "nginx.conf").write_text(MAIN.format(directory=directory), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it serves, without TLS and trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def logs(self) -> dict[str, str]:
        """What its logs hold, by file."""
        return {
            path.name: path.read_text(errors="replace") for path in self.directory.glob("*.log")
        }

    def __enter__(self) -> Self:
        require_nginx()
        # Its workers are another user's where it is started as root: they come to their files.
        for place in (self.directory, *self.directory.parents):
            if place.stat().st_uid == os.geteuid() and place != Path("/"):
                place.chmod(place.stat().st_mode | 0o011)
        with (self.directory / "output.log").open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *("nginx", "-e", str(self.directory / "error.log")),
                    *("-p", str(self.directory), "-c", str(self.directory / "nginx.conf")),
                ],
                env={**os.environ, "PATH": PATH},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, self.logs()
                assert time.monotonic() < deadline, self.logs()
                time.sleep(0.02)
            else:
                return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
