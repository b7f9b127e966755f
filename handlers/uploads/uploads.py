"""Commands about uploads. The bytes themselves go over REST alone: `server.http.uploads`."""

from pydantic import Field

from actions.uploads.uploads import Uploads
from domain.pages import DEFAULT_LIMIT, MAX_CURSOR_LENGTH, MAX_LIMIT
from domain.uploads.uploads import Upload, UploadPage, UploadRemoved
from handlers.command import CommandSet, Request, Route, command
from handlers.context import Context


class NamedUpload(Request):
    """One upload."""

    upload: str = Field(min_length=1, max_length=64)


class ListUploads(Request):
    """A page of uploads."""

    cursor: str | None = Field(None, max_length=MAX_CURSOR_LENGTH)
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)


class UploadCommands(CommandSet):
    """`upload.list`, `upload.get`, `upload.delete`."""

    namespace = "/messages"

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    @command("upload.list", route=Route("GET", "/uploads"))
    async def list(self, context: Context, request: ListUploads) -> UploadPage:
        """List your own uploads.

        Newest first, with the bytes you have used of your quota.
        """
        return await self._uploads.list(context.principal, request.cursor, request.limit)

    @command("upload.get")
    async def get(self, context: Context, request: NamedUpload) -> Upload:
        """Get what is known of an upload.

        Over REST, `GET /uploads/{upload}` gives the file itself.
        """
        return await self._uploads.get(context.principal, request.upload)

    @command("upload.delete", route=Route("DELETE", "/uploads/{upload}"))
    async def delete(self, context: Context, request: NamedUpload) -> UploadRemoved:
        """Delete one of your uploads.

        It is gone wherever it was attached, and its bytes are free for others.
        """
        return await self._uploads.delete(context.principal, request.upload)
