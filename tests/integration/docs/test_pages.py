"""What a browser meets: the documentation's pages, and which pages may use the REST side."""

import re

import pytest

from tests.support.rest import Api

OURS = "http://localhost:5173"
"""Allowed in development."""

FOREIGN = "https://evil.example"


async def test_the_documentation_needs_nothing_from_elsewhere(api: Api) -> None:
    start = await api.request("GET", "//")
    assert (start.status, start.headers["location"]) == (302, "/docs")
    page = await api.request("GET", "//docs")
    assert page.status == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    needed = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert {"docs/swagger-ui-bundle.js", "docs/start.js"} <= set(needed)
    for each in needed:
        assert each.startswith("docs/")
        reply = await api.request("GET", f"//{each}")
        assert reply.status == 200, each
        assert reply.body, each
    script = (await api.request("GET", "//docs/start.js")).body.decode()
    assert '"openapi.json"' in script
    assert (await api.request("GET", "//docs/package.json")).status == 404


async def test_the_documentations_program_is_sent_compressed_and_is_no_old_one(api: Api) -> None:
    path = "//docs/swagger-ui-bundle.js"
    plain = await api.request("GET", path, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    versions = re.findall(r'version="(3\.\d+\.\d+)"', plain.body.decode())
    assert "3.4.17" in versions, "the DOMPurify that was looked at; 3.2.4 has advisories"
    packed = await api.request("GET", path, headers={"Accept-Encoding": "gzip, br"})
    assert packed.headers.get("content-encoding") == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    assert packed.body == plain.body


@pytest.mark.parametrize("path", ["//openapi.json", "//asyncapi.json"])
async def test_documents_are_fetched_again_only_when_changed(api: Api, path: str) -> None:
    first = await api.request("GET", path)
    assert first.status == 200
    assert first.json["info"]["title"] == "Parley"
    again = await api.request("GET", path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


async def test_pages_of_allowed_origins_may_read_answers_and_errors(api: Api) -> None:
    ann = await api.register("Ann")
    for who, status in ((ann.api, 200), (api, 401)):
        reply = await who.request("GET", "/users/me", headers={"Origin": OURS})
        assert reply.status == status
        assert reply.headers["access-control-allow-origin"] == OURS
        assert reply.headers["access-control-allow-credentials"] == "true"
        assert "Origin" in reply.headers["vary"]
        assert "Retry-After" in reply.headers["access-control-expose-headers"]
        reply = await who.request("GET", "/users/me", headers={"Origin": FOREIGN})
        assert reply.status == status
        assert "access-control-allow-origin" not in reply.headers


async def test_a_browser_asks_first(api: Api) -> None:
    asked = {
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    reply = await api.request("OPTIONS", "/conversations/x", headers={"Origin": OURS, **asked})
    assert reply.status == 204
    assert reply.headers["access-control-allow-origin"] == OURS
    assert reply.headers["access-control-allow-credentials"] == "true"
    assert "PATCH" in reply.headers["access-control-allow-methods"]
    assert reply.headers["access-control-allow-headers"] == "authorization,content-type"
    reply = await api.request("OPTIONS", "/conversations/x", headers={"Origin": FOREIGN, **asked})
    assert not [name for name in reply.headers if name.startswith("access-control")]
