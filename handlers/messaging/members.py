"""Commands about who is in a conversation."""

from pydantic import Field

from actions.messaging.conversation_views import ConversationViews
from actions.messaging.member_roles import MemberRoles
from actions.messaging.members import Members
from domain.messaging.conversations import (
    MAX_LEFT,
    AllLeft,
    Conversation,
    ConversationMember,
    MemberRole,
)
from domain.pages import Page
from domain.rates import MINUTE, SECOND, Rate
from handlers.command import CommandSet, Request, Route, command
from handlers.context import Context
from handlers.fields import Id, PageRequest
from handlers.messaging.conversations import OneConversation


class SeveralConversations(Request):
    """Some conversations."""

    conversations: list[Id] = Field(min_length=1, max_length=MAX_LEFT)


class ListMembers(PageRequest):
    """A page of members."""

    conversation: Id


class OneMember(Request):
    """A user, and a conversation."""

    conversation: Id
    user: Id


class UpdateMember(OneMember):
    """What a member of a conversation shall be."""

    role: MemberRole


class MemberCommands(CommandSet):
    """`conversation.join`, `conversation.leave`, `conversation.leave_many`, `member.list`,
    `member.add`, `member.update`, `member.remove`.
    """

    namespace = "/messages"

    def __init__(self, members: Members, roles: MemberRoles, views: ConversationViews) -> None:
        self._members = members
        self._roles = roles
        self._views = views

    @command(
        "conversation.join",
        route=Route("POST", "/conversations/{conversation}/join"),
        limit=Rate(60, MINUTE),
    )
    async def join(self, context: Context, request: OneConversation) -> Conversation:
        """Join a channel.

        Guests cannot; they are added. Whoever is in it already stays in it.
        """
        return await self._members.join(context.principal, request.conversation)

    @command(
        "conversation.leave",
        route=Route("POST", "/conversations/{conversation}/leave"),
        limit=Rate(60, MINUTE),
    )
    async def leave(self, context: Context, request: OneConversation) -> Conversation:
        """Leave a group or channel.

        The last owner who is not disabled hands over to the member who has been in it longest and
        is not disabled.
        """
        return await self._members.leave(context.principal, request.conversation)

    @command(
        "conversation.leave_many",
        route=Route("POST", "/users/me/conversations/leave"),
        limit=Rate(10, MINUTE),  # up to 100 each
    )
    async def leave_many(self, context: Context, request: SeveralConversations) -> AllLeft:
        """Leave several groups and channels at once.

        Each is left as with `conversation.leave`, and has a result of its own: what cannot be left
        does not hinder the others. One named twice is left once.
        """
        return await self._members.leave_many(context.principal, request.conversations)

    @command("member.list", route=Route("GET", "/conversations/{conversation}/members"))
    async def list(self, context: Context, request: ListMembers) -> Page[ConversationMember]:
        """List who is in a conversation, who joined first first."""
        return await self._views.members(
            context.principal,
            request.conversation,
            cursor=request.cursor,
            limit=request.limit,
        )

    @command(
        "member.add",
        route=Route("POST", "/conversations/{conversation}/members"),
        limit=Rate(20, SECOND),
    )
    async def add(self, context: Context, request: OneMember) -> Conversation:
        """Put a user into a group or channel.

        Owners may, in channels admins too. Whoever is in it already stays in it.
        """
        return await self._members.add(context.principal, request.conversation, request.user)

    @command(
        "member.update",
        route=Route("PATCH", "/conversations/{conversation}/members/{user}"),
        limit=Rate(20, SECOND),
    )
    async def update(self, context: Context, request: UpdateMember) -> Conversation:
        """Make a member of a group or channel an owner, or an ordinary member again.

        Owners may, in channels admins too. The last owner who is not disabled stays one: `conflict`.
        Of a group whose owners are all disabled, admins of the organization make any member an
        owner, or themselves, even from outside.
        """
        return await self._roles.update(
            context.principal, request.conversation, request.user, request.role
        )

    @command(
        "member.remove",
        route=Route("DELETE", "/conversations/{conversation}/members/{user}"),
        limit=Rate(20, SECOND),
    )
    async def remove(self, context: Context, request: OneMember) -> Conversation:
        """Put a user out of a group or channel.

        Owners may, in channels admins too. Removing yourself is leaving.
        """
        return await self._members.remove(context.principal, request.conversation, request.user)
