"""The documented site of nginx: TLS ends there, and people are served through it."""

import io
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from deploy.local.ports import free_port
from tests.conftest import StartServer
from tests.integration.docs.test_docs import run
from tests.support.certificate import Certificate, make_certificate
from tests.support.nginx import Nginx, here
from tests.support.rest import Api
from tests.support.server import ServerProcess
from tests.support.snippets import DOCS, named

SOCKETS = "/socket.io/?EIO=4&transport="


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    return start_server(TRUSTED_PROXIES="127.0.0.1")


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """One that the programs of the test take for good."""
    made = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.path))
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(made.path))
    return made


@pytest.fixture
def nginx(server: ServerProcess, certificate: Certificate, tmp_path: Path) -> Iterator[Nginx]:
    port, directory = free_port(), tmp_path / "nginx"
    text = named(DOCS / "operations.md", "nginx.conf")
    text = here(text, port, {"127.0.0.1:8000": server.port}, directory, certificate)
    with Nginx(directory, text, port) as nginx:
        yield nginx


@pytest.mark.parametrize("language", ["javascript", "python"])
async def test_the_documented_clients_come_through(
    nginx: Nginx, tmp_path: Path, language: str
) -> None:
    url = f"https://127.0.0.1:{nginx.port}"
    output = await run(language, url, tmp_path, 6, 10)
    assert "holds 0,1,2,3,4,5 at 7 " in output
    assert " failed 0 " in output
    for name, text in nginx.logs().items():
        assert "sid=" not in text, name
    log = nginx.logs()["parley.log"]
    assert re.search(r'"POST /api/v1/auth/register" 201 ', log)
    assert re.search(r'"GET /socket.io/" 101 ', log), "nobody came by websocket"


async def test_what_the_site_says_is_so(
    nginx: Nginx, server: ServerProcess, certificate: Certificate
) -> None:
    url = f"https://127.0.0.1:{nginx.port}"
    context = ssl.create_default_context(cafile=str(certificate.path))
    async with Api(server.url) as api:
        ann = await api.register("Ann")
    bearer = {"Authorization": f"Bearer {ann.token}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        for path in ("/metrics", "//metrics", "/%6detrics", "/x/../metrics", "/metrics?x=1"):
            async with session.get(URL(url + path, encoded=True)) as answer:
                assert answer.status == 404, path
        for path in ("/", "/docs", "/openapi.json", "/health/ready"):
            async with session.get(url + path) as answer:
                assert (answer.status, answer.url.scheme) == (200, "https"), path
        form = aiohttp.FormData()
        largest = io.BytesIO(bytes(25 << 20))
        form.add_field("file", largest, filename="a", content_type="application/octet-stream")
        async with session.post(f"{url}/api/v1/uploads", data=form, headers=bearer) as answer:
            assert answer.status == 201, await answer.text()
        # A page of the same host needs no further settings, another one is refused.
        forged = {"X-Forwarded-For": "203.0.113.9"}
        sockets = f"{url}{SOCKETS}websocket"
        async with session.ws_connect(sockets, headers=forged, origin=url) as ws:
            assert (await ws.receive()).data.startswith("0{")
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await session.ws_connect(sockets, origin="https://elsewhere.example")
    assert "203.0.113.9" not in server.log(), "a client says itself what its address is"
