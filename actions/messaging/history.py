"""Reading messages: one, or a part of a conversation's history."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from actions.messaging.memberships import Memberships
from actions.messaging.message_views import MessageViews
from actions.messaging.messages import Messages
from domain.errors import Invalid
from domain.messaging.messages import Message
from domain.pages import Page, cut, decode_cursor, encode_cursor
from domain.principals import Principal
from store.engine import Document
from store.messaging.messages import MessageRepository, Range

_MAX_SEQ = 2**53
_OPTIONAL_SEQ = (int, type(None))
_OPTIONAL_TEXT = (str, type(None))
_CURSOR: dict[str, type | tuple[type, ...]] = {
    "conversation": str,
    "after": _OPTIONAL_SEQ,
    "before": _OPTIONAL_SEQ,
    "until": _OPTIONAL_TEXT,
    "thread": _OPTIONAL_TEXT,
    "newest": bool,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of a history is asked for. Seqs are exclusive, times inclusive."""

    before: int | None = None
    after: int | None = None
    around: int | None = None
    since: str | None = None
    until: str | None = None
    thread: str | None = None

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            Invalid: names the field.
        """
        others = (self.before, self.after, self.since, self.until)
        if self.around is not None and any(each is not None for each in others):
            raise Invalid.field("around", "goes with no other bound")
        if self.after is not None and self.before is not None and self.after >= self.before:
            raise Invalid.field("after", "is not smaller than before")
        if self.since is not None and self.until is not None and self.since > self.until:
            raise Invalid.field("since", "is later than until")

    @property
    def newest(self) -> bool:
        """Whether the newest messages of the part come first, and `next` leads to older ones."""
        return self.after is None and self.since is None

    def range(self, conversation: str) -> Range:
        """As the store takes it."""
        return Range(conversation, self.after, self.before, self.since, self.until, self.thread)


class History:
    """Reads messages for users."""

    def __init__(
        self,
        repository: MessageRepository,
        messages: Messages,
        memberships: Memberships,
        views: MessageViews,
    ) -> None:
        self._repository = repository
        self._messages = messages
        self._memberships = memberships
        self._views = views

    async def get(self, principal: Principal, message: str) -> Message:
        """One message.

        Raises:
            NotFound: there is none the caller may see.
        """
        doc, _ = await self._messages.find(principal, message)
        return await self._views.one(principal.org, doc)

    async def page(
        self,
        principal: Principal,
        conversation: str,
        wanted: Wanted,
        *,
        cursor: str | None,
        limit: int,
    ) -> Page[Message]:
        """A page of a conversation's history, ascending by seq.

        Args:
            cursor: from an earlier page; it has the whole question in it, so that `wanted` is not
                looked at.

        Raises:
            NotFound: the caller is in no such conversation.
            Invalid: the bounds contradict each other.
        """
        wanted.check()
        await self._memberships.require(principal, conversation)
        if cursor is not None:
            range, newest = _resumed(conversation, cursor)
            return await self._straight(principal, range, newest, limit)
        if wanted.around is not None:
            return await self._around(principal, conversation, wanted, limit)
        return await self._straight(principal, wanted.range(conversation), wanted.newest, limit)

    async def _straight(
        self, principal: Principal, range: Range, newest: bool, limit: int
    ) -> Page[Message]:
        docs = await self._repository.visible(
            principal.org, range, principal.user, newest=newest, limit=limit + 1
        )

        def position(last: Document) -> Mapping[str, Any]:
            bound = {"before" if newest else "after": last["seq"]}
            return _position(replace(range, since=None, **bound), newest)

        page, next = cut(docs, limit, position)
        if newest:
            page.reverse()
        return {"items": await self._views.many(principal.org, page), "next": next}

    async def _around(
        self, principal: Principal, conversation: str, wanted: Wanted, limit: int
    ) -> Page[Message]:
        """Half of the page older than the seq or at it, half newer; more of the one where there
        is less of the other.
        """
        assert wanted.around is not None
        older = Range(conversation, before=wanted.around + 1, thread=wanted.thread)
        newer = Range(conversation, after=wanted.around, thread=wanted.thread)
        org, user, read = principal.org, principal.user, self._repository.visible
        back = await read(org, older, user, newest=True, limit=limit + 1)
        ahead = await read(org, newer, user, newest=False, limit=limit)
        taken = max(min(len(back), limit - limit // 2), limit - len(ahead))
        back, more = back[:taken], len(back) > taken
        page = [*reversed(back), *ahead[: limit - len(back)]]
        next: str | None = None
        if more:
            first = page[0]["seq"] if page else wanted.around + 1
            next = encode_cursor(_position(replace(older, before=first), True))
        return {"items": await self._views.many(principal.org, page), "next": next}


def _position(range: Range, newest: bool) -> Mapping[str, Any]:
    return {
        "conversation": range.conversation,
        "after": range.after,
        "before": range.before,
        "until": range.until,
        "thread": range.thread,
        "newest": newest,
    }


def _resumed(conversation: str, cursor: str) -> tuple[Range, bool]:
    at = decode_cursor(cursor, _CURSOR)
    if at["conversation"] != conversation:
        raise Invalid.field("cursor", "it is another conversation's")
    if any(not 0 <= (at[bound] or 0) <= _MAX_SEQ for bound in ("after", "before")):
        raise Invalid.field("cursor", "not a cursor of this list")
    range = Range(conversation, at["after"], at["before"], None, at["until"], at["thread"])
    return range, at["newest"]
