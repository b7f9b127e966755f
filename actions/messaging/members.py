"""Coming into conversations and going out of them."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from actions.accounts.people import People, require_users
from actions.attempts import ATTEMPTS, busy
from actions.ledger import Ledger, Must
from actions.messaging.conversation_views import ConversationViews, may_discover
from actions.messaging.conversations import REACTIONS, Conversations, shut_out, too_many
from actions.messaging.memberships import Memberships
from actions.messaging.owners import Owners
from actions.messaging.places import Places
from actions.messaging.strangers import Strangers
from actions.streams.streams import Streams
from domain.clock import Clock, timestamp
from domain.errors import Invalid, NotFound, ParleyError, TooLarge
from domain.events import StoredEvent
from domain.messaging.conversations import (
    MAX_CHANNEL_MEMBERS,
    MAX_GROUP_MEMBERS,
    MEMBER_ADDED,
    MEMBER_REMOVED,
    AllLeft,
    Conversation,
    Kind,
    Left,
    MemberChange,
    MemberRole,
    Refusal,
    stream_of,
)
from domain.principals import Principal
from domain.streams import Head
from store.accounts.contacts import unblocked
from store.engine import (
    Appended,
    Change,
    Delete,
    Document,
    Engine,
    Guard,
    GuardFailed,
    NewEvent,
    Update,
)
from store.messaging.conversations import (
    CONVERSATIONS,
    MEMBERS,
    ConversationRepository,
    add_member,
    count_owners,
    has_role,
    has_room,
    is_no_member,
    is_owned_as,
    key_of,
    owners_of,
    remains,
)

LEFT_AT_ONCE = 10
"""Conversations that one command leaves at the same time."""


class Members:
    """What can be done with the members of conversations."""

    def __init__(
        self,
        engine: Engine,
        conversations: ConversationRepository,
        people: People,
        memberships: Memberships,
        views: ConversationViews,
        opened: Conversations,
        owners: Owners,
        strangers: Strangers,
        places: Places,
        streams: Streams,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._conversations = conversations
        self._people = people
        self._memberships = memberships
        self._views = views
        self._opened = opened
        self._owners = owners
        self._strangers = strangers
        self._places = places
        self._streams = streams
        self._ledger = ledger
        self._clock = clock

    # -- in -----------------------------------------------------------------------------------

    async def join(self, principal: Principal, conversation: str) -> Conversation:
        """Come into a channel. Who is in it already stays in it.

        Raises:
            NotFound: there is no such channel for the caller.
            Invalid: it is no channel.
            TooLarge: it is full, or the caller is in as many conversations as one may be in.
        """
        for _ in range(ATTEMPTS):
            doc = await self._views.visible(principal, conversation)
            if doc["kind"] != Kind.CHANNEL:
                raise Invalid("Only channels can be joined.")
            if not may_discover(principal, doc) or await self.enter(
                principal, doc, principal.user, []
            ):
                return (await self._views.many(principal, [doc]))[0]
        raise busy()

    async def add(self, principal: Principal, conversation: str, user: str) -> Conversation:
        """Put somebody into a group or channel. Who is in it already stays in it.

        Raises:
            NotFound: no such conversation for the caller, or no such user.
            Forbidden: the caller is none of its owners, nor an admin in a channel; the user has
                blocked the caller.
            TooLarge: it is full, or the user is in as many conversations as one may be in.
            RateLimited: the user was put into conversations by strangers too often lately.
        """
        org = principal.org
        for _ in range(ATTEMPTS):
            doc = await self._views.visible(principal, conversation)
            authority = self._owners.authority(principal, doc)
            # Before anything is told of the user or of the room there is; the guard is for what
            # changes after this.
            if not await self._owners.is_manager(principal, doc):
                raise await self._owners.refused(principal, doc)
            await require_users(self._people, org, [user])
            willing = Must(unblocked(user, principal.user), partial(shut_out, Kind(doc["kind"])))
            there = await self._memberships.is_member(org, conversation, user)
            async with self._strangers.adding(principal, () if there else [user]):
                done = await self.enter(principal, doc, user, [authority], willing=[willing])
            if done:
                return (await self._views.many(principal, [doc]))[0]
        raise busy()

    async def enter(
        self,
        principal: Principal,
        doc: Document,
        user: str,
        authority: Sequence[Guard | Must],
        role: MemberRole = "member",
        *,
        willing: Sequence[Must] = (),
    ) -> bool:
        """Put a user in as of a conversation's document; False if that has changed by now.

        Args:
            authority: what must hold.
            willing: what must hold too if the user is not in it yet.

        Raises:
            ParleyError: what these say.
            TooLarge: there is no room for the user, who is not in it yet.
        """
        org, id = principal.org, doc["id"]
        group = doc["kind"] == Kind.GROUP
        most = MAX_GROUP_MEMBERS if group else MAX_CHANNEL_MEMBERS
        full = doc["size"] >= most
        async with self._places.held(org, [user]) as crowded:
            if (full or crowded) and not await self._memberships.is_member(org, id, user):
                raise TooLarge("This conversation is full.") if full else too_many(principal, user)
            return await self._enter(principal, doc, user, authority, willing, role, most)

    async def _enter(
        self,
        principal: Principal,
        doc: Document,
        user: str,
        authority: Sequence[Guard | Must],
        willing: Sequence[Must],
        role: MemberRole,
        most: int,
    ) -> bool:
        org, id = principal.org, doc["id"]
        # Whoever comes first into a channel that all have left is its owner.
        if not owners_of(doc):
            role = "owner"
        at = timestamp(self._clock.now())
        data: MemberChange = {"conversation": id, "user": user, "role": role}
        owners = count_owners(owners_of(doc) + 1) if role == "owner" else {}
        # Read before the append: the newcomer misses no reaction to what it will fetch.
        reactions = await self._engine.head(org, f"{REACTIONS}/{id}") or Head("", 0, 0)
        newcomer = is_no_member(id, user)
        try:
            await self._ledger.append(
                org,
                stream_of(id),
                principal.actor,
                at,
                [NewEvent(MEMBER_ADDED.name, {**data})],
                [
                    add_member(id, user, role, at),
                    Update(CONVERSATIONS, id, set=owners, inc={"size": 1}),
                ],
                [*authority, newcomer, *willing, is_owned_as(doc), has_room(id, most)],
                first=partial(self._opened.admit, org, [user], id, reactions),
            )
        except GuardFailed as failed:
            return failed.guard == newcomer
        return True

    # -- out ----------------------------------------------------------------------------------

    async def leave(self, principal: Principal, conversation: str) -> Conversation:
        """Go out of a group or channel. The last active owner hands over to
        the active member who has been in it longest.

        Raises:
            NotFound: the caller is not in it.
            Invalid: it is a direct conversation.
        """
        doc = await self._take_out(principal, conversation, principal.user)
        return (await self._views.many(principal, [doc]))[0]

    async def leave_many(self, principal: Principal, conversations: Sequence[str]) -> AllLeft:
        """Go out of several groups and channels, each as with `leave`; what cannot be left, or not
        now, keeps nobody from leaving the others.
        """
        turns = asyncio.Semaphore(LEFT_AT_ONCE)

        async def leave(conversation: str) -> Left:
            async with turns:
                try:
                    await self._take_out(principal, conversation, principal.user)
                except ParleyError as error:
                    refusal: Refusal = {"code": error.code, "message": error.message}
                    return {"conversation": conversation, "ok": False, "error": refusal}
            return {"conversation": conversation, "ok": True, "error": None}

        wanted = list(dict.fromkeys(conversations))
        return {"items": await asyncio.gather(*map(leave, wanted))}

    async def remove(self, principal: Principal, conversation: str, user: str) -> Conversation:
        """Put somebody out of a group or channel; oneself is as `leave`.

        Raises:
            NotFound: no such conversation for the caller, or the user is not in it.
            Forbidden: the caller is none of its owners, nor an admin in a channel.
        """
        doc = await self._take_out(principal, conversation, user)
        return (await self._views.many(principal, [doc]))[0]

    async def _take_out(self, principal: Principal, conversation: str, user: str) -> Document:
        org = principal.org
        for _ in range(ATTEMPTS):
            doc = await self._views.visible(principal, conversation)
            authority: list[Must] = []
            if user != principal.user:
                authority.append(self._owners.authority(principal, doc))
            elif doc["kind"] == Kind.DIRECT:
                raise Invalid("A direct conversation cannot be left.")
            member = await self._conversations.member(org, conversation, user)
            if member is None:
                if authority and not await self._owners.is_manager(principal, doc):
                    raise await self._owners.refused(principal, doc)
                raise NotFound("This user is not in the conversation.")
            guards, changes, events, heir = await self._going(org, doc, member)
            try:
                appended = await self._ledger.append(
                    org,
                    stream_of(conversation),
                    principal.actor,
                    timestamp(self._clock.now()),
                    events,
                    changes,
                    [*authority, *guards],
                    first=partial(self._gone, user),
                )
            except GuardFailed:
                continue
            # All have been told, the one who goes too; this one hears no more after that.
            self._streams.expel(
                user, {stream_of(conversation): appended.seq, f"{REACTIONS}/{conversation}": 0}
            )
            await self._owners.look_again(org, conversation, heir)
            return doc
        raise busy()

    async def _going(
        self, org: str, doc: Document, member: Document
    ) -> tuple[list[Guard], list[Change], list[NewEvent], str | None]:
        """What takes a member out, and makes an heir the owner if this one was the last."""
        id, user, role = doc["id"], member["user"], member["role"]
        gone: MemberChange = {"conversation": id, "user": user, "role": role}
        events = [NewEvent(MEMBER_REMOVED.name, {**gone})]
        guards = [has_role(id, user, role), remains(id, doc["kind"])]
        changes: list[Change] = [Delete(MEMBERS, key_of(id, user))]
        values: Mapping[str, int | None] = {}
        heir: str | None = None
        if role == "owner":
            next = await self._owners.succession(org, doc, user)
            guards += next.guards
            changes += next.changes
            events += next.events
            values, heir = next.values, next.heir
        changes.append(Update(CONVERSATIONS, id, set=values, inc={"size": -1}))
        return guards, changes, events, heir

    def _gone(self, user: str, _: Appended) -> None:
        self._memberships.changed([user])

    def removed(self, _org: str, event: StoredEvent) -> None:
        """A `member.removed` was delivered on this node: from here on that user hears no more of
        the conversation, whether or not the order to do so arrives.
        """
        gone: MemberChange = event.content()
        self._memberships.forget(gone["user"])
        self._streams.expel_here(gone["user"], event.stream)
        self._streams.expel_here(gone["user"], f"{REACTIONS}/{gone['conversation']}")
