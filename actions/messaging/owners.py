"""Who manages a conversation, and that there is somebody to do so as long as anybody is in it.

A conversation's owners are its members of that role. Its document counts them: whatever makes or
unmakes one is guarded by that number, so of two owners who go at the same moment one is decided
after the other. Whether a user is disabled is written elsewhere: who is, is made an ordinary member
(`hand_over`), and who was made an owner is looked at once more afterwards.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from actions.accounts.people import People
from actions.attempts import ATTEMPTS
from actions.ledger import Ledger, Must
from actions.messaging.conversation_views import may_discover
from actions.messaging.memberships import Memberships
from domain.clock import Clock, timestamp
from domain.errors import Forbidden, Invalid, NotFound
from domain.events import SYSTEM, Actor
from domain.messaging.conversations import MEMBER_UPDATED, Kind, MemberChange, MemberRole, stream_of
from domain.principals import Principal, Role
from store.engine import Change, Document, Guard, GuardFailed, NewEvent, Update
from store.messaging.conversations import (
    CONVERSATIONS,
    MEMBERS,
    ConversationRepository,
    count_owners,
    has_role,
    is_as,
    is_member,
    is_owned_as,
    key_of,
    owners_of,
    remains,
)

PAGE = 200
"""Members that are looked at together to find an heir."""


def administers(principal: Principal, doc: Document) -> bool:
    """Whether the caller's role in the organization makes a manager of the conversation."""
    return doc["kind"] == Kind.CHANNEL and principal.role.at_least(Role.ADMIN)


def manages(principal: Principal, doc: Document) -> Guard:
    """The guard of one who manages a conversation: its owners, in channels admins too.

    Raises:
        Invalid: nobody manages a direct conversation.
    """
    if doc["kind"] == Kind.DIRECT:
        raise Invalid("A direct conversation is that of its two members; it cannot be changed.")
    if administers(principal, doc):
        return remains(doc["id"], doc["kind"])
    return has_role(doc["id"], principal.user, "owner")


def role_event(conversation: str, user: str, role: MemberRole) -> NewEvent:
    """Tells that a member has another role."""
    data: MemberChange = {"conversation": conversation, "user": user, "role": role}
    return NewEvent(MEMBER_UPDATED.name, {**data})


class Succession(NamedTuple):
    """What a conversation needs when one of its owners is to be none."""

    active: bool
    """Whether somebody who is not disabled is an owner then."""
    heir: str | None
    """Who is made one."""
    guards: Sequence[Guard]
    changes: Sequence[Change]
    events: Sequence[NewEvent]
    values: Mapping[str, int | None]
    """Of the conversation's document."""


class Owners:
    """Looks up and appoints those who manage conversations."""

    def __init__(
        self,
        conversations: ConversationRepository,
        people: People,
        memberships: Memberships,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._conversations = conversations
        self._people = people
        self._memberships = memberships
        self._ledger = ledger
        self._clock = clock

    # -- who may ------------------------------------------------------------------------------

    async def is_manager(self, principal: Principal, doc: Document) -> bool:
        """Whether the caller manages a group or channel now."""
        if administers(principal, doc):
            return True
        member = await self._conversations.member(principal.org, doc["id"], principal.user)
        return member is not None and member["role"] == "owner"

    def authority(self, principal: Principal, doc: Document) -> Must:
        """Holds as long as the caller manages the conversation.

        Raises:
            Invalid: nobody manages a direct conversation.
        """
        return Must(manages(principal, doc), partial(self.refused, principal, doc))

    async def refused(self, principal: Principal, doc: Document) -> Forbidden | NotFound:
        """The error for one who does not manage a conversation, or not any more."""
        if await self._conversations.get(principal.org, doc["id"]) is None:
            return NotFound("There is no such conversation.")
        if may_discover(principal, doc) or await self._memberships.is_member(
            principal.org, doc["id"], principal.user
        ):
            return Forbidden("Only an owner of the conversation may do this.")
        return NotFound("There is no such conversation.")

    async def active(self, org: str, conversation: str) -> list[str]:
        """The owners who are not disabled."""
        owners = [each["user"] for each in await self._conversations.owners(org, conversation)]
        there = await self._people.existing(org, owners)
        return [each for each in owners if each in there]

    # -- who is next --------------------------------------------------------------------------

    async def succession(self, org: str, doc: Document, user: str) -> Succession:
        """What goes with an owner's not being one any more: nothing if there is another who is
        active; otherwise the active member who has been in it longest becomes one. If nobody is
        active, whoever has been in it longest, unless there is a disabled owner left.
        """
        id = doc["id"]
        owners = [each["user"] for each in await self._conversations.owners(org, id)]
        others = [each for each in owners if each != user]
        there = await self._people.existing(org, others)
        active = [each for each in others if each in there]
        guards = [is_owned_as(doc)]
        fewer = count_owners(owners_of(doc) - 1)
        if active:
            guards.append(has_role(id, active[0], "owner"))
            return Succession(True, None, guards, (), (), fewer)
        heir, is_active = await self._heir(org, id, owners)
        if not is_active and others:
            return Succession(False, None, guards, (), (), fewer)
        if heir is None:
            return Succession(False, None, [*guards, is_as(id, size=1)], (), (), fewer)
        return Succession(
            is_active,
            heir,
            [*guards, is_member(id, heir)],
            [Update(MEMBERS, key_of(id, heir), set={"role": "owner"})],
            [role_event(id, heir, "owner")],
            count_owners(owners_of(doc)),
        )

    async def _heir(
        self, org: str, conversation: str, besides: Collection[str]
    ) -> tuple[str | None, bool]:
        """Who has been in a conversation longest, and whether that one is active."""
        first: str | None = None
        async for page in self._conversations.members_in_pages(org, conversation, PAGE):
            users = [each["user"] for each in page if each["user"] not in besides]
            there = await self._people.existing(org, users)
            for user in users:
                if user in there:
                    return user, True
            first = first or next(iter(users), None)
        return first, False

    # -- handing over -------------------------------------------------------------------------

    async def look_again(self, org: str, conversation: str, user: str | None) -> None:
        """Somebody was made an owner: who was disabled at that moment hands over at once."""
        if user is not None and not await self._people.existing(org, [user]):
            await self.hand_over(org, conversation, user)

    async def hand_over_all(self, org: str, user: str) -> None:
        """Make a disabled user an ordinary member wherever somebody active can be the owner.

        Safe to be done twice, at once or after it was cut short.
        """
        for conversation in await self._conversations.owned_by(org, user):
            await self.hand_over(org, conversation, user)

    async def hand_over(
        self, org: str, conversation: str, user: str, actor: Actor = SYSTEM
    ) -> None:
        """As `hand_over_all`, in one conversation."""
        for _ in range(ATTEMPTS):
            doc = await self._conversations.get(org, conversation)
            member = await self._conversations.member(org, conversation, user)
            if doc is None or member is None or member["role"] != "owner":
                return
            next = await self.succession(org, doc, user)
            if not next.active or await self._people.existing(org, [user]):
                return
            try:
                await self._ledger.append(
                    org,
                    stream_of(conversation),
                    actor,
                    timestamp(self._clock.now()),
                    [*next.events, role_event(conversation, user, "member")],
                    [
                        *next.changes,
                        Update(MEMBERS, key_of(conversation, user), set={"role": "member"}),
                        Update(CONVERSATIONS, conversation, set=next.values),
                    ],
                    [has_role(conversation, user, "owner"), *next.guards],
                )
            except GuardFailed:
                continue
            await self.look_again(org, conversation, next.heir)
            return
