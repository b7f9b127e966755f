"""Sending and fetching files: the two routes that are no JSON command. Permission, rate limit,
metrics and errors are those of all commands; only the bytes take their own way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from aiohttp import web
from pydantic import Field

from actions.uploads.uploads import Download, Incoming, Uploads
from domain.clock import parse_timestamp
from domain.errors import Invalid, ParleyError
from domain.principals import Role
from domain.uploads.pictures import SIZES, SizeName
from domain.uploads.uploads import Upload, disposition
from handlers.command import Command, Empty, Request
from handlers.context import Context
from handlers.dispatcher import Dispatcher, validate
from server.http.middleware import REQUEST_ID
from server.http.multipart import FORM, FileForm
from server.http.problems import problem
from server.http.ranges import Span, UnsatisfiableRange, Validators
from server.http.responses import json_response
from server.http.rest import PREFIX, Rest, query

log = structlog.get_logger(__name__)

STALL = 60.0
"""Seconds within which a client must take a piece of a file."""

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-site",
    "Accept-Ranges": "bytes",
    "Cache-Control": "private, no-cache",
}
"""Headers of every file (OWASP File Upload): nothing in it runs, nobody else keeps it, and whether
the reader still may have it is asked each time."""


class UploadFields(Request):
    """The form's fields besides the file."""

    conversation: str | None = Field(None, min_length=1, max_length=64)
    client_id: str | None = Field(None, min_length=1, max_length=64)


class DownloadFile(Request):
    """Which file, and whether to save it."""

    upload: str = Field(min_length=1, max_length=64)
    download: bool = False
    size: SizeName | None = None


class UploadRoutes:
    """`POST /uploads` and `GET /uploads/{upload}`."""

    def __init__(
        self,
        rest: Rest,
        dispatcher: Dispatcher,
        uploads: Uploads,
        max_file: int,
        base_path: str = "",
    ) -> None:
        self._rest = rest
        self._dispatcher = dispatcher
        self._uploads = uploads
        self._max_file = max_file
        self._base_path = base_path
        self._open = _command("upload.download", DownloadFile, Download, self._opened)

    def attach(self, app: web.Application) -> None:
        """Add the routes below `/api/v1`."""
        app.router.add_post(PREFIX + "/uploads", self._create)
        app.router.add_get(PREFIX + "/uploads/{upload}", self._send)

    # -- sending ------------------------------------------------------------------------------

    async def _create(self, request: web.Request) -> web.StreamResponse:
        context = await self._rest.context(request, needed=True)
        if request.query_string:
            raise Invalid("This address takes no query.")
        if request.content_type != FORM:
            raise web.HTTPUnsupportedMediaType(
                text=f"Send {FORM} with the file in the field `file`."
            )

        async def receive(context: Context, _: Empty) -> Upload:
            with self._rest.arriving.share(stranger=False) as share:
                form = FileForm(request, self._max_file, share)
                await form.open(frozenset(UploadFields.model_fields))
                fields = validate(UploadFields, form.fields)
                incoming = Incoming(
                    name=form.name,
                    content_type=form.content_type,
                    conversation=fields.conversation,
                    client_id=fields.client_id,
                    size=form.size,
                )
                return await self._uploads.receive(context.principal, incoming, form.chunks())

        upload = await self._dispatcher.run(
            _command("upload.create", Empty, Upload, receive), context, {}
        )
        response = json_response(request, upload, 201)
        response.headers["Location"] = f"{self._base_path}{PREFIX}/uploads/{upload['id']}"
        return response

    # -- fetching -----------------------------------------------------------------------------

    async def _opened(self, context: Context, request: DownloadFile) -> Download:
        return await self._uploads.open(context.principal, request.upload, request.size)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        context = await self._rest.context(request, needed=True)
        payload = query(request)
        if "upload" in payload:
            raise Invalid.field("upload", "is given by the path")
        payload |= request.match_info
        asked = validate(DownloadFile, payload)
        found: Download = await self._dispatcher.run(self._open, context, payload, strict=False)
        try:
            return await self._respond(request, found, attachment=asked.download)
        finally:
            await found.reader.close()

    async def _respond(
        self, request: web.Request, found: Download, *, attachment: bool
    ) -> web.StreamResponse:
        upload, size = found.upload, found.reader.size
        validators = Validators.of(found.sha256, parse_timestamp(upload["created_at"]))
        headers = {**SAFE, **validators.headers()}
        if validators.not_modified(request.headers):
            return web.Response(status=304, headers=headers)
        try:
            span = validators.span(request.headers, size) if request.method == "GET" else None
        except UnsatisfiableRange as error:
            response = problem(error, request[REQUEST_ID])
            response.headers["Content-Range"] = f"bytes */{size}"
            return response
        kind = found.content_type
        headers["Content-Type"] = f"{kind}; charset=utf-8" if kind == "text/plain" else kind
        headers["Content-Disposition"] = disposition(kind, found.name, attachment=attachment)
        if span is not None:
            headers["Content-Range"] = span.content_range(size)
        stream = web.StreamResponse(status=200 if span is None else 206, headers=headers)
        stream.headers["X-Request-ID"] = request[REQUEST_ID]
        span = span or Span(0, size)
        stream.content_length = span.length
        await stream.prepare(request)
        if request.method == "GET":
            await _pour(request, stream, found, span)
        return stream


async def _pour(
    request: web.Request, stream: web.StreamResponse, found: Download, span: Span
) -> None:
    try:
        async for piece in found.reader.read(span.start, span.length):
            async with asyncio.timeout(STALL):
                await stream.write(piece)
    except (ParleyError, TimeoutError, ConnectionError) as error:
        # The head is out: a response that ends early is all that can tell the client now.
        log.info("download_cut", upload=found.upload["id"], reason=type(error).__name__)
        if request.transport is not None:
            request.transport.abort()


def _command(
    name: str, model: type[Request], answer: Any, run: Callable[[Context, Any], Awaitable[Any]]
) -> Command:
    return Command(
        name=name,
        namespace=None,
        request=model,
        response=answer,
        summary="",
        description="",
        run=run,
        role=Role.GUEST,
        route=None,
        socket=False,
    )


_PROBLEM = {"$ref": "#/components/responses/Problem"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ANY_TYPE = {"application/octet-stream": _BINARY, "*/*": _BINARY}
"""The first is there for generators of clients, which pass over what they do not know."""
_ID = {
    "name": "upload",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 64},
}


def _header(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }


OPENAPI: Mapping[str, Mapping[str, Any]] = {
    "/uploads": {
        "post": {
            "operationId": "upload.create",
            "tags": ["upload"],
            "summary": "Upload a file.",
            "description": "Streamed to the store. `file` must be the last field. Its declared "
            "type must agree with its content; what cannot be recognised is kept as "
            "application/octet-stream.",
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "required": ["file"],
                            "additionalProperties": False,
                            "properties": {
                                "conversation": {
                                    "type": "string",
                                    "description": "Whose members may fetch it before a message has it.",
                                    "minLength": 1,
                                    "maxLength": 64,
                                },
                                "client_id": {
                                    "type": "string",
                                    "description": "Sent again, it answers the first result.",
                                    "minLength": 1,
                                    "maxLength": 64,
                                },
                                "file": {"type": "string", "format": "binary"},
                            },
                        }
                    }
                },
            },
            "responses": {
                "201": {
                    "description": "Stored.",
                    "headers": {"Location": {"schema": {"type": "string"}}},
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Upload"}}
                    },
                },
                "default": _PROBLEM,
            },
        }
    },
    "/uploads/{upload}": {
        "get": {
            "operationId": "upload.download",
            "tags": ["upload"],
            "summary": "Fetch a file.",
            "description": "For its owner, and those who may read what it is attached to. HEAD "
            "answers the same without the bytes.",
            "parameters": [
                _ID,
                {
                    "name": "download",
                    "in": "query",
                    "required": False,
                    "description": "Have a browser save it, whatever its type.",
                    "schema": {"type": "boolean", "default": False},
                },
                {
                    "name": "size",
                    "in": "query",
                    "required": False,
                    "description": "Of a picture that can be shown (`image`): its thumbnail, in "
                    "JPEG or WebP, of at most so many pixels: "
                    + ", ".join(f"{name} {edge}" for name, edge in SIZES.items())
                    + ". One that is no larger is sent itself.",
                    "schema": {"type": "string", "enum": list(SIZES)},
                },
                _header("Range", "One range of bytes."),
                _header("If-Range", "ETag or date the range is of; otherwise all is sent."),
                _header("If-None-Match", "ETags of what the client has."),
            ],
            "responses": {
                "200": {"description": "The file.", "content": _ANY_TYPE},
                "206": {"description": "The range of it.", "content": _ANY_TYPE},
                "304": {"description": "The client has it."},
                "416": _PROBLEM,
                "default": _PROBLEM,
            },
        }
    },
}
"""The routes for `/openapi.json`, below `/api/v1`."""
