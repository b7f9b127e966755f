"""What a user has not read in all conversations together: asked at a fresh start, and told with
`ready`. From then on `unread.updated` tells what changes.
"""

from collections.abc import Collection, Mapping
from typing import Any

from actions.connections.clients import Client
from actions.messaging.memberships import Memberships
from actions.messaging.unread import Unread
from actions.messaging.unread_counts import total_of
from domain.events import StoredEvent
from domain.messaging.conversations import personal_stream, stream_of
from domain.messaging.unread import UnreadTotal
from fanout.sequencer import Sequencer
from store.gathered import Gathered
from store.messaging.unread import Counted, Pair, UnreadRepository

COUNTED_TOGETHER = 1000
"""Conversations that are counted in one go, for all who come at the same moment."""


class UnreadTotals:
    """Adds up what users have not read, leaving out what they have muted or archived."""

    def __init__(
        self,
        unread: Unread,
        repository: UnreadRepository,
        memberships: Memberships,
        sequencer: Sequencer,
    ) -> None:
        self._unread = unread
        self._memberships = memberships
        self._sequencer = sequencer
        self._counting: Gathered[Pair, Counted] = Gathered(repository.count, COUNTED_TOGETHER)
        self._coming: dict[Client, dict[str, int]] = {}
        """Clients that are coming in: up to which seq of each conversation they were counted for."""

    async def get(self, org: str, user: str) -> UnreadTotal:
        """What a user has not read."""
        inbox = self._unread.kept_of(user)
        if inbox is not None and inbox.org == org and not self._unread.is_waiting(inbox):
            return inbox.totals()
        return _total(await self._count(org, user))

    async def at_ready(self, client: Client) -> Mapping[str, Any]:
        """What `ready` tells of it, for a client of which what comes from now on is held."""
        org, user = client.principal.org, client.principal.user
        if self._unread.kept_of(user) is None:
            counted = await self._count(org, user)
            if self._unread.kept_of(user) is None:
                self._coming[client] = {pair[0]: each.through for pair, each in counted.items()}
                return {"unread": _total(counted)}
        # What changes these is told after `ready` alone, so they are looked at last.
        inbox = self._unread.kept_of(user)
        assert inbox is not None
        return {"unread": inbox.totals()}

    async def entered(self, client: Client, resumed: Collection[str]) -> None:
        """A client is in: it is told where something came while it was counted."""
        org, user = client.principal.org, client.principal.user
        for conversation, through in self._coming.pop(client, {}).items():
            if self._sequencer.reached(stream_of(conversation), through + 1):
                self._unread.recount(org, user, conversation)

    async def left(self, client: Client) -> None:
        """A client has gone, or could not come in."""
        self._coming.pop(client, None)

    async def _count(self, org: str, user: str) -> Mapping[Pair, Counted]:
        mine = await self._memberships.of_user(org, user)
        return await self._counting.get(org, [(each, user) for each in mine])

    def hidden(self, org: str, event: StoredEvent) -> None:
        """A message was deleted: if for one user alone, it counts for this user no more."""
        user = event.actor.id
        if event.stream == personal_stream(user):
            self._unread.recount(org, user, event.content()["conversation"])

    def edited(self, _org: str, event: StoredEvent) -> None:
        """A message was changed, and may mention others than before."""
        message = event.content()
        self._unread.edited(message["conversation"], message["seq"], message["mentions"])

    def settings_changed(self, org: str, event: StoredEvent) -> None:
        """A conversation was updated: if for one user alone, then muted or archived or no more."""
        data = event.content()
        user = event.actor.id
        if event.stream == personal_stream(user) and not (
            data["muted"] is None and data["archived"] is None
        ):
            self._unread.recount(org, user, data["id"])


def _total(counted: Mapping[Pair, Counted]) -> UnreadTotal:
    return total_of(each.counts for each in counted.values() if not each.quiet)
