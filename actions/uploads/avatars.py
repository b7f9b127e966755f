"""Uploads that are somebody's picture: all of the organization may see them, and they are kept."""

from domain.clock import Clock, timestamp
from domain.errors import Invalid
from domain.principals import Principal
from domain.uploads.uploads import upload_of
from store.accounts.accounts import AccountRepository
from store.engine import Document
from store.uploads.uploads import UploadRepository


class Avatars:
    """Which uploads are pictures of their owners: those that the owners' accounts name."""

    def __init__(
        self, accounts: AccountRepository, uploads: UploadRepository, clock: Clock
    ) -> None:
        self._accounts = accounts
        self._uploads = uploads
        self._clock = clock

    async def check(self, principal: Principal, avatar: str | None) -> None:
        """Refuse what cannot be the caller's picture: of uploads only own, completed pictures.

        Raises:
            Invalid: it is another upload.
        """
        id = upload_of(avatar)
        if id is None:
            return
        doc = await self._uploads.get(principal.org, id)
        # From here on no sweep takes it away before the account names it.
        at = timestamp(self._clock.now())
        if (
            doc is None
            or doc["owner"] != principal.user
            or not await self._uploads.look_at_again(principal.org, id, at)
        ):
            raise Invalid.field("avatar", f"you have no completed upload {id[:64]}")
        if not doc["content_type"].startswith("image/"):
            raise Invalid.field("avatar", "the upload is no picture")

    async def replaced(self, org: str, old: str | None, new: str | None) -> None:
        """A user has another picture: the one before goes with the next sweep that finds it in no
        message.
        """
        id = upload_of(old)
        if id is not None and id != upload_of(new):
            await self._uploads.look_at_again(org, id, timestamp(self._clock.now()))

    async def shows(self, org: str, upload: Document) -> bool:
        """Whether an upload is its owner's picture."""
        user = await self._accounts.user(org, upload["owner"])
        return user is not None and upload_of(user["avatar"]) == upload["id"]

    async def removed(self, org: str, upload: Document) -> None:
        """An upload is being removed: it is nobody's picture any more. May be done again."""
        user = await self._accounts.user(org, upload["owner"])
        if user is not None and upload_of(user["avatar"]) == upload["id"]:
            where = {"avatar": user["avatar"]}
            await self._accounts.update_user(org, user["id"], {"avatar": None}, where)
