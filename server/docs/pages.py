"""`/docs`, `/openapi.json`, `/asyncapi.json`: nothing is fetched from elsewhere."""

import asyncio
import gzip
import hashlib
from functools import cache
from pathlib import Path

import orjson
from aiohttp import web

from server.docs.schemas import Schema

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Parley API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: -1,
});
"""

_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self'; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
)

_FILES = Path(__file__).parent / "swagger_ui"
"""Swagger UI's own files, compressed when they were put there (`make swagger-ui`)."""

PIECE = 64 * 1024
"""Bytes of a file that are given to a connection at a time."""

_ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}


class DocsPages:
    """Serves the documents. Links are relative, so that they lead to the same server below any path."""

    def __init__(self, openapi: Schema, asyncapi: Schema, base_path: str = "") -> None:
        self._base_path = base_path
        self._documents = {
            "/openapi.json": orjson.dumps(openapi),
            "/asyncapi.json": orjson.dumps(asyncapi),
        }

    def attach(self, app: web.Application) -> None:
        """Add the routes."""
        for path in self._documents:
            app.router.add_get(path, self._document)
        app.router.add_get("/", self._to_docs)
        app.router.add_get("/docs", self._page)
        app.router.add_get("/docs/", self._to_docs)
        app.router.add_get("/docs/start.js", self._start)
        app.router.add_get("/docs/{asset}", self._asset)

    async def _document(self, request: web.Request) -> web.Response:
        body = self._documents[request.path]
        etag = hashlib.blake2b(body, digest_size=12).hexdigest()
        known = request.if_none_match
        if known and any(each.value == etag for each in known):
            return web.Response(status=304, headers={"ETag": f'W/"{etag}"'})
        response = web.Response(
            body=body, content_type="application/json", headers={"ETag": f'W/"{etag}"'}
        )
        response.enable_compression()
        return response

    async def _to_docs(self, _request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"{self._base_path}/docs"})

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(
            text=_PAGE,
            content_type="text/html",
            headers={"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"},
        )

    async def _start(self, _request: web.Request) -> web.Response:
        return web.Response(text=_START, content_type="text/javascript")

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["asset"]
        if name not in _ASSETS:
            raise web.HTTPNotFound
        headers = {"Cache-Control": "public, max-age=86400", "Vary": "Accept-Encoding"}
        coding = request.headers.get("Accept-Encoding", "").lower()
        body, compressed = await asyncio.to_thread(_asset, name)
        if compressed and "gzip" in coding:
            headers["Content-Encoding"] = "gzip"
        elif compressed:
            body = await asyncio.to_thread(_unpacked, name)
        response = web.StreamResponse(headers={"Content-Type": _ASSETS[name], **headers})
        response.content_length = len(body)
        await response.prepare(request)
        if request.method != "HEAD":
            # Piece by piece: whoever asks on many connections and does not read makes little wait.
            for at in range(0, len(body), PIECE):
                await response.write(body[at : at + PIECE])
        return response


@cache
def _unpacked(name: str) -> bytes:
    """A compressed file's content, once for all who ask: each would hold its own while it waits."""
    return gzip.decompress(_asset(name)[0])


@cache
def _asset(name: str) -> tuple[bytes, bool]:
    """A file's bytes, and whether they are compressed."""
    packed = _FILES / f"{name}.gz"
    return (
        (packed.read_bytes(), True) if packed.is_file() else ((_FILES / name).read_bytes(), False)
    )
