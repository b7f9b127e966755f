"""Making members owners, and owners ordinary members again."""

from actions.accounts.people import People
from actions.attempts import ATTEMPTS, busy
from actions.ledger import Ledger, Must
from actions.messaging.conversation_views import ConversationViews
from actions.messaging.members import Members
from actions.messaging.owners import Owners, administers, role_event
from domain.clock import Clock, timestamp
from domain.errors import Conflict, NotFound, TooLarge
from domain.messaging.conversations import MAX_OWNERS, Conversation, Kind, MemberRole, stream_of
from domain.principals import Principal, Role
from store.engine import Document, Guard, GuardFailed, Update
from store.messaging.conversations import (
    CONVERSATIONS,
    MEMBERS,
    ConversationRepository,
    count_owners,
    has_role,
    is_owned_as,
    owners_of,
)


class MemberRoles:
    """What can be done with the roles of members."""

    def __init__(
        self,
        conversations: ConversationRepository,
        people: People,
        views: ConversationViews,
        members: Members,
        owners: Owners,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._conversations = conversations
        self._people = people
        self._views = views
        self._members = members
        self._owners = owners
        self._ledger = ledger
        self._clock = clock

    async def update(
        self, principal: Principal, conversation: str, user: str, role: MemberRole
    ) -> Conversation:
        """Give a member another role. Twice is once.

        Of a group without an active owner the organization's administrators make any member one,
        or themselves, who are put into it.

        Raises:
            NotFound: no such conversation for the caller, or the user is not in it.
            Forbidden: the caller does not manage it.
            Invalid: it is a direct conversation.
            Conflict: it would be left without an active owner, or the new one is disabled.
            TooLarge: it has `MAX_OWNERS` owners already.
        """
        org = principal.org
        for _ in range(ATTEMPTS):
            doc = await self._conversations.get(org, conversation)
            if doc is None:
                raise NotFound("There is no such conversation.")
            authority, takes_over = await self._authority(principal, doc)
            member = await self._conversations.member(org, conversation, user)
            if member is None and not (takes_over and user == principal.user and role == "owner"):
                raise NotFound("This user is not in the conversation.")
            try:
                if member is None:
                    done = await self._members.enter(principal, doc, user, [authority], role)
                else:
                    done = await self._change(principal, doc, member, role, authority)
            except GuardFailed:
                continue
            if done:
                if role == "owner":
                    await self._owners.look_again(org, conversation, user)
                return (await self._views.many(principal, [doc]))[0]
        raise busy()

    async def _authority(self, principal: Principal, doc: Document) -> tuple[Guard | Must, bool]:
        """The guard of one who may change roles, and whether only because nobody else is there."""
        member = await self._conversations.member(principal.org, doc["id"], principal.user)
        if doc["kind"] == Kind.DIRECT and member is None:
            raise NotFound("There is no such conversation.")
        authority = self._owners.authority(principal, doc)
        if administers(principal, doc) or (member is not None and member["role"] == "owner"):
            return authority, False
        if (
            doc["kind"] == Kind.GROUP
            and principal.role.at_least(Role.ADMIN)
            and not await self._owners.active(principal.org, doc["id"])
        ):
            return is_owned_as(doc), True
        raise await self._owners.refused(principal, doc)

    async def _change(
        self,
        principal: Principal,
        doc: Document,
        member: Document,
        role: MemberRole,
        authority: Guard | Must,
    ) -> bool:
        """Change a member's role as of these documents; False if it is owned by others by now."""
        org, id, user = principal.org, doc["id"], member["user"]
        if member["role"] == role:
            return True
        guards: list[Guard | Must] = [
            authority,
            has_role(id, user, member["role"]),
            is_owned_as(doc),
        ]
        if role == "owner":
            if not await self._people.existing(org, [user]):
                raise Conflict("This user is disabled.")
            if owners_of(doc) >= MAX_OWNERS:
                raise TooLarge(
                    f"A conversation has at most {MAX_OWNERS} owners.", data={"limit": MAX_OWNERS}
                )
            values = count_owners(owners_of(doc) + 1)
        else:
            others = [each for each in await self._owners.active(org, id) if each != user]
            if not others:
                raise Conflict("This is the last owner. Make somebody else one first.")
            guards.append(has_role(id, others[0], "owner"))
            values = count_owners(owners_of(doc) - 1)
        await self._ledger.append(
            org,
            stream_of(id),
            principal.actor,
            timestamp(self._clock.now()),
            [role_event(id, user, role)],
            [
                Update(MEMBERS, member["id"], set={"role": role}),
                Update(CONVERSATIONS, id, set=values),
            ],
            guards,
        )
        return True
