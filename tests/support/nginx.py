"""A real nginx in front of servers, ended with the test."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.certificate import Certificate

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


def require_proxy(program: str) -> None:
    """Skip the test where `nginx` or `haproxy` is not installed; fail it in the build."""
    if shutil.which(program, path=PATH) is None:
        reason = f"{program} is not installed: nothing behind it is tested"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def here(
    text: str,
    port: int,
    servers: Mapping[str, int],
    directory: Path,
    certificate: Certificate | None = None,
) -> str:
    """A site of the documentation as it is, but on this machine.

    Args:
        text: the site, which listens on 443 with TLS.
        port: what it listens on here.
        servers: by what it calls them, the ports of those before which it stands.
        directory: of its logs.
        certificate: without one it serves without TLS.
    """
    assert text.count("listen 443 ssl http2;") == 1
    if certificate is None:
        text = text.replace("listen 443 ssl http2;", f"listen 127.0.0.1:{port};")
        text = re.sub(r"    ssl_certificate.*\n", "", text)
    else:
        text = text.replace("listen 443 ", f"listen 127.0.0.1:{port} ")
        text = re.sub(r"(ssl_certificate) .*;", rf"\1 {certificate.path};", text)
        text = re.sub(r"(ssl_certificate_key) .*;", rf"\1 {certificate.key};", text)
    for name, server in servers.items():
        assert f"server {name}" in text
        text = text.replace(f"server {name}", f"server 127.0.0.1:{server}")
    return text.replace("/var/log/nginx/", f"{directory}/")


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
        require_proxy("nginx")
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
