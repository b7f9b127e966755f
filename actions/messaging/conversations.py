"""Opening conversations and changing what is said of them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from actions.accounts.people import People, require_users
from actions.attempts import ATTEMPTS, busy
from actions.ledger import Ledger, Must
from actions.messaging.conversation_views import ConversationViews, change_of
from actions.messaging.memberships import Memberships
from actions.messaging.owners import Owners
from actions.messaging.places import Places
from actions.messaging.strangers import Strangers
from actions.streams.streams import Streams
from domain.clock import Clock, timestamp
from domain.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from domain.ids import key_digest, new_id
from domain.messaging.conversations import (
    CONVERSATION_CREATED,
    CONVERSATION_UPDATED,
    MAX_CONVERSATIONS,
    MAX_GROUP_MEMBERS,
    MAX_TITLE,
    MAX_TOPIC,
    Conversation,
    Kind,
    clean_line,
    personal_stream,
    stream_of,
)
from domain.principals import Principal, Role
from domain.streams import Head
from store.accounts.contacts import BLOCKS, pair, unblocked
from store.engine import (
    Appended,
    Document,
    Engine,
    GuardFailed,
    Insert,
    NewEvent,
    Update,
)
from store.messaging.conversations import (
    CONVERSATIONS,
    ConversationRepository,
    Creation,
    add_member,
    change_settings,
    is_as,
    is_member,
    is_new,
)

CLIENT_IDS_KEPT = 30 * 86_400.0
"""Seconds that it is remembered which conversation a `client_id` opened."""

REACTIONS = "reactions"
"""The namespace whose streams have the same readers."""


def too_many(principal: Principal, user: str) -> TooLarge:
    """The error when somebody is in as many conversations as a user may be in."""
    who = "You are" if user == principal.user else f"User {user} is"
    return TooLarge(
        f"{who} in {MAX_CONVERSATIONS} conversations, which is the most.",
        data={"limit": MAX_CONVERSATIONS},
    )


class Conversations:
    """What can be done with conversations as such."""

    def __init__(
        self,
        engine: Engine,
        conversations: ConversationRepository,
        people: People,
        memberships: Memberships,
        views: ConversationViews,
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
        self._owners = owners
        self._strangers = strangers
        self._places = places
        self._streams = streams
        self._ledger = ledger
        self._clock = clock

    # -- opening ------------------------------------------------------------------------------

    async def create(
        self,
        principal: Principal,
        *,
        kind: Kind,
        members: Sequence[str],
        title: str | None,
        client_id: str,
    ) -> Conversation:
        """Open a conversation; of two people, give the one there is. Sent again, give what was
        answered first, whoever has come, gone or been blocked since.

        Raises:
            NotFound: one of the members does not exist.
            Forbidden: one of them has blocked the caller; a guest opens a channel.
            Conflict: the `client_id` was used for another conversation.
            TooLarge: one of them is in `MAX_CONVERSATIONS` already; nobody is for a direct one.
            RateLimited: one of them was put into conversations by strangers too often lately.
        """
        org, user = principal.org, principal.user
        others = [each for each in dict.fromkeys(members) if each != user]
        title = clean_line("title", title, MAX_TITLE)
        if kind is Kind.DIRECT:
            if len(others) != 1:
                raise Invalid.field("members", "a direct conversation has one other member")
            if title is not None:
                raise Invalid.field("title", "a direct conversation has none")
        elif len(others) >= MAX_GROUP_MEMBERS:
            raise Invalid.field("members", f"at most {MAX_GROUP_MEMBERS} to begin with")
        owners = 1 if kind is not Kind.DIRECT else 0
        roles = {user: "owner" if owners else "member"} | dict.fromkeys(others, "member")
        digest = key_digest(orjson.dumps([kind.value, sorted(others), title]).decode())
        used = await self._conversations.creation(org, user, client_id)
        doc = await self._conversations.made(org, _same(used, digest)) if used is not None else None
        if doc is not None:
            return await self._first(principal, doc, kind, title, roles)
        if kind is Kind.CHANNEL and not principal.role.at_least(Role.MEMBER):
            raise Forbidden("Guests cannot open channels.")
        # With somebody who is disabled there is what was said, and what this one finds later.
        await require_users(self._people, org, others, disabled=kind is Kind.DIRECT)
        # Before the `client_id` is taken for it: what is refused leaves nothing to be given later.
        # The guards are for who is blocked after this.
        if await self._engine.get_many(org, BLOCKS, [pair(each, user) for each in others]):
            raise shut_out(kind)

        at = timestamp(self._clock.now())
        id = await self._reserve(principal, kind, others, digest, client_id, at)
        data = _opened(id, kind, title, roles, at)
        room: Document = {
            "id": id,
            "kind": kind.value,
            "title": title,
            "topic": None,
            "created_at": at,
            "created_by": user,
            "owners": owners,
            "size": len(roles),
        }
        try:
            # A direct conversation is never refused because strangers have filled somebody's list.
            async with self._places.held(org, list(roles) if owners else ()) as crowded:
                if crowded is not None and await self._conversations.made(org, id) is None:
                    raise too_many(principal, crowded)
                async with self._strangers.adding(principal, others if owners else ()):
                    await self._ledger.append(
                        org,
                        stream_of(id),
                        principal.actor,
                        at,
                        [NewEvent(CONVERSATION_CREATED.name, {**data})],
                        [
                            Insert(CONVERSATIONS, room),
                            *(add_member(id, each, role, at) for each, role in roles.items()),
                        ],
                        [
                            *(
                                Must(unblocked(each, user), partial(shut_out, kind))
                                for each in others
                            ),
                            is_new(id),
                        ],
                        first=partial(self.admit, org, list(roles), id, Head("", 0, 0)),
                    )
        except GuardFailed:
            doc = await self._conversations.made(org, id)
            assert doc is not None
            return await self._first(principal, doc, kind, title, roles)
        return data

    async def _first(
        self,
        principal: Principal,
        doc: Document,
        kind: Kind,
        title: str | None,
        roles: Mapping[str, Any],
    ) -> Conversation:
        """What was answered first to a request that opened a conversation. Of a group or channel
        nothing else may be told here: the caller may not be in it any more, or it is deleted.
        """
        if kind is Kind.DIRECT:
            return (await self._views.many(principal, [doc]))[0]
        return _opened(doc["id"], kind, title, roles, doc["created_at"])

    async def _reserve(
        self,
        principal: Principal,
        kind: Kind,
        others: Sequence[str],
        digest: str,
        client_id: str,
        at: str,
    ) -> str:
        """The id of the conversation that this request opens or has opened."""
        org, user = principal.org, principal.user
        if kind is Kind.DIRECT:
            id = await self._conversations.reserve_direct(org, user, others[0])
        else:
            id = new_id()
        first = await self._conversations.reserve_creation(
            org, user, client_id, Creation(id, digest), at
        )
        return _same(first, digest)

    async def trim(self) -> int:
        """Forget old `client_id`s; returns how many. Called now and then."""
        before = timestamp(self._clock.now() - CLIENT_IDS_KEPT)
        return await self._conversations.forget_creations(before)

    def admit(
        self,
        org: str,
        users: Sequence[str],
        conversation: str,
        reactions: Head,
        appended: Appended,
    ) -> None:
        """Have newcomers' connections follow a conversation from the event that brought them."""
        self._memberships.changed(users)
        before = Head(appended.epoch, appended.seq - 1, 0)
        self._streams.admit(
            org, users, {stream_of(conversation): before, f"{REACTIONS}/{conversation}": reactions}
        )

    # -- changing -----------------------------------------------------------------------------

    async def update(
        self, principal: Principal, conversation: str, changes: Mapping[str, Any]
    ) -> Conversation:
        """Change a conversation's title or topic for all, or muting and archiving for oneself.

        Args:
            changes: some of `title`, `topic` (None takes it away), `muted`, `archived`.

        Raises:
            NotFound: the caller may not know of it.
            Forbidden: title and topic are changed by owners, in channels by admins too.
        """
        doc = await self._views.visible(principal, conversation)
        shared: dict[str, str | None] = {}
        if "title" in changes:
            shared["title"] = clean_line("title", changes["title"], MAX_TITLE)
        if "topic" in changes:
            shared["topic"] = clean_line("topic", changes["topic"], MAX_TOPIC)
        own = {name: bool(changes[name]) for name in ("muted", "archived") if name in changes}
        if shared:
            doc = await self._update_shared(principal, doc, shared)
        if own:
            await self._update_own(principal, doc, own)
        return (await self._views.many(principal, [doc]))[0]

    async def _update_shared(
        self, principal: Principal, doc: Document, values: Mapping[str, str | None]
    ) -> Document:
        id = doc["id"]
        for _ in range(ATTEMPTS):
            authority = self._owners.authority(principal, doc)
            changed = {**doc, **values}
            if changed == doc:
                # Nothing to write; who may not change it shall hear so all the same.
                if not await self._owners.is_manager(principal, doc):
                    raise await self._owners.refused(principal, doc)
                return doc
            as_read = is_as(id, kind=doc["kind"], title=doc["title"], topic=doc["topic"])
            data, members = await self._views.shared(principal.org, changed)
            try:
                await self._ledger.append(
                    principal.org,
                    stream_of(id),
                    principal.actor,
                    timestamp(self._clock.now()),
                    [NewEvent(CONVERSATION_UPDATED.name, {**data})],
                    [Update(CONVERSATIONS, id, set=values)],
                    [authority, as_read, *members],
                )
            except GuardFailed:
                doc = await self._views.visible(principal, id)
                continue
            return changed
        raise busy()

    async def _update_own(
        self, principal: Principal, doc: Document, values: Mapping[str, bool]
    ) -> None:
        org, user, id = principal.org, principal.user, doc["id"]
        data = change_of(doc)
        data["muted"], data["archived"] = values.get("muted"), values.get("archived")
        await self._ledger.append(
            org,
            personal_stream(user),
            principal.actor,
            timestamp(self._clock.now()),
            [NewEvent(CONVERSATION_UPDATED.name, {**data})],
            change_settings(id, user, values),
            [Must(is_member(id, user), _not_in_it)],
            first=partial(follow_own, self._streams, self._memberships, principal),
        )


def follow_own(
    streams: Streams, memberships: Memberships, principal: Principal, appended: Appended
) -> None:
    """Have a user's connections follow the user's own stream from its first event on."""
    if appended.seq == 1:
        org, user = principal.org, principal.user
        memberships.changed([user])
        streams.admit(org, [user], {personal_stream(user): Head(appended.epoch, 0, 0)})


def shut_out(kind: Kind) -> Forbidden:
    """The error for one who is blocked by somebody who shall be in a conversation."""
    if kind is Kind.DIRECT:
        return Forbidden("This user does not want to hear from you.")
    return Forbidden("One of these users does not want to be added by you.")


def _not_in_it() -> NotFound:
    return NotFound("You are not in this conversation.")


def _same(used: Creation, digest: str) -> str:
    """The conversation that a `client_id` stands for, if it was used for the same request."""
    if used.digest != digest:
        raise Conflict("This client_id was used for another conversation.")
    return used.conversation


def _opened(
    id: str, kind: Kind, title: str | None, roles: Mapping[str, Any], at: str
) -> Conversation:
    members = roles.items() if kind is not Kind.CHANNEL else ()
    return {
        "id": id,
        "kind": kind.value,
        "title": title,
        "topic": None,
        "members": [
            {"user": user, "role": role, "joined_at": at, "read_seq": 0, "delivered_seq": 0}
            for user, role in members
        ],
        "created_at": at,
        "last_message": None,
        "unread": 0,
        "more": False,
        "mentions": 0,
        "muted": False,
        "archived": False,
    }
