"""Deleting conversations, with all that was in them.

One append tells it, puts everybody out of a group and leaves of the conversation only that it was:
from there on nobody can do anything in it. What it was made of goes afterwards, in steps; if this
node dies meanwhile, the job of another goes on.
"""

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from typing import cast

import structlog

from actions.attempts import ATTEMPTS, busy
from actions.connections.clients import Outlet
from actions.ledger import Ledger
from actions.messaging.conversation_views import ConversationViews
from actions.messaging.conversations import REACTIONS
from actions.messaging.memberships import Memberships
from actions.messaging.owners import Owners
from actions.streams.streams import Streams
from domain.clock import Clock, parse_timestamp, timestamp
from domain.errors import ParleyError
from domain.events import StoredEvent
from domain.messaging.conversations import (
    CONVERSATION_DELETED,
    ConversationDeleted,
    Kind,
    stream_of,
)
from domain.principals import Principal
from fanout.hub import Hub
from store.engine import Appended, Delete, GuardFailed, NewEvent
from store.messaging.conversations import (
    MEMBERS,
    ConversationRepository,
    bury,
    is_as,
    key_of,
    remains,
)
from store.messaging.deletions import DeletionRepository, note_deletion

log = structlog.get_logger(__name__)

AT_ONCE = 1000
"""Conversations that are cleared away in one round."""

AT_FIRST = 2
"""Steps in which members of a channel are put out before the deletion is answered."""

SETTLED = 60.0
"""Seconds after which nothing that was under way can come behind, so that looking once more is
enough."""


class Deletions:
    """Deletes conversations."""

    def __init__(
        self,
        conversations: ConversationRepository,
        deletions: DeletionRepository,
        memberships: Memberships,
        views: ConversationViews,
        owners: Owners,
        hub: Hub,
        streams: Streams,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._conversations = conversations
        self._deletions = deletions
        self._memberships = memberships
        self._views = views
        self._owners = owners
        self._hub = hub
        self._streams = streams
        self._ledger = ledger
        self._clock = clock
        self._wake = asyncio.Event()

    async def delete(self, principal: Principal, conversation: str) -> None:
        """Delete a group or channel for everybody. Who has done so may do so again.

        Raises:
            NotFound: there is none the caller may know of.
            Forbidden: the caller does not manage it.
            Invalid: it is a direct conversation.
        """
        org, stream = principal.org, stream_of(conversation)
        for _ in range(ATTEMPTS):
            if await self._conversations.is_deleted_by(org, conversation, principal.user):
                return
            doc = await self._views.visible(principal, conversation)
            authority = self._owners.authority(principal, doc)
            if not await self._owners.is_manager(principal, doc):
                raise await self._owners.refused(principal, doc)
            as_read = [remains(conversation, doc["kind"])]
            users: list[str] = []
            if doc["kind"] == Kind.GROUP:
                members = await self._conversations.members(org, conversation)
                users = [each["user"] for each in members]
                as_read.append(is_as(conversation, size=len(users)))
            at = timestamp(self._clock.now())
            data: ConversationDeleted = {"id": conversation}
            try:
                appended = await self._ledger.append(
                    org,
                    stream,
                    principal.actor,
                    at,
                    [NewEvent(CONVERSATION_DELETED.name, {**data})],
                    [
                        bury(conversation, principal.user),
                        note_deletion(conversation, at),
                        *(Delete(MEMBERS, key_of(conversation, each)) for each in users),
                    ],
                    [authority, *as_read],
                    first=partial(self._buried, conversation),
                )
            except GuardFailed:
                continue
            self._put_out(users, conversation, appended.seq)
            log.info("conversation_deleted", conversation=conversation, by=principal.user)
            self._wake.set()
            # Those of a channel. If there are many, the rest of them is put out afterwards.
            await self._empty(org, conversation, appended.seq, AT_FIRST)
            return
        raise busy()

    def _buried(self, conversation: str, _: Appended) -> None:
        self._memberships.forget_facts(conversation)

    def _put_out(self, users: Sequence[str], conversation: str, seq: int) -> None:
        self._memberships.changed(users)
        for user in users:
            self._streams.expel(
                user, {stream_of(conversation): seq, f"{REACTIONS}/{conversation}": 0}
            )

    async def _empty(self, org: str, conversation: str, seq: int, steps: int | None = None) -> None:
        while steps is None or steps > 0:
            users = await self._deletions.remove_members(org, conversation)
            if not users:
                return
            self._put_out(users, conversation, seq)
            steps = None if steps is None else steps - 1

    def deleted(self, _org: str, event: StoredEvent) -> None:
        """A `conversation.deleted` was delivered on this node: from here on nobody hears more of
        the conversation, whether or not orders arrive.
        """
        gone: ConversationDeleted = event.content()
        self._memberships.forget_facts(gone["id"])
        for stream in (event.stream, f"{REACTIONS}/{gone['id']}"):
            outlets = cast("Collection[Outlet]", self._hub.members(stream))
            for user in {each.state.principal.user for each in outlets if each.state is not None}:
                self._memberships.forget(user)
                self._streams.expel_here(user, stream)

    # -- clearing away ------------------------------------------------------------------------

    async def finish(self) -> int:
        """Clear away what deleted conversations were made of; returns how many are done with.

        Safe to be done twice at once.
        """
        done = 0
        for note in await self._deletions.some(self._clock.now(), AT_ONCE):
            org, id = note["org"], note["id"]
            settled = parse_timestamp(note["at"]) <= self._clock.now() - SETTLED
            await self._empty(org, id, int(note["seq"]))
            await self._deletions.clear(org, id)
            if settled:
                # Not before: what did not reach a node is fetched from there.
                await self._deletions.clear_log(org, [stream_of(id), f"{REACTIONS}/{id}"])
                await self._deletions.done(org, id)
                done += 1
        return done

    async def run(self) -> None:
        """Clear away without delay for as long as the node runs; what fails is left to the job."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.finish()
            except ParleyError as error:
                log.warning("deletion_delayed", code=error.code)
