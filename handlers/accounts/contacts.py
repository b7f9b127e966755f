"""Commands about contacts."""

from pydantic import Field

from actions.accounts.contacts import Contacts
from domain.accounts.contacts import MAX_QUERY, Contact
from domain.pages import DEFAULT_LIMIT, MAX_CURSOR_LENGTH, MAX_LIMIT, Page
from domain.rates import SECOND, Rate
from handlers.command import CommandSet, Request, Route, command
from handlers.context import Context


class ListContacts(Request):
    """A page of contacts."""

    q: str | None = Field(None, max_length=MAX_QUERY)
    blocked: bool = False
    cursor: str | None = Field(None, max_length=MAX_CURSOR_LENGTH)
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)


class OtherUser(Request):
    """Another user."""

    user: str = Field(min_length=1, max_length=64)


class ContactCommands(CommandSet):
    """`contact.list`, `contact.add`, `contact.remove`, `contact.block`, `contact.unblock`."""

    namespace = "/messages"

    def __init__(self, contacts: Contacts) -> None:
        self._contacts = contacts

    @command("contact.list", route=Route("GET", "/contacts"), limit=Rate(20, SECOND))
    async def list(self, context: Context, request: ListContacts) -> Page[Contact]:
        """List your contacts by name.

        With `q` those whose names have words that begin so; with `blocked` the users you have
        blocked, contacts or not.
        """
        return await self._contacts.list(
            context.principal, request.q, request.blocked, request.cursor, request.limit
        )

    @command("contact.add", route=Route("POST", "/contacts", 201))
    async def add(self, context: Context, request: OtherUser) -> Contact:
        """Put a user into your contacts.

        One that is there already stays as it is.
        """
        return await self._contacts.add(context.principal, request.user)

    @command("contact.remove", route=Route("DELETE", "/contacts/{user}"))
    async def remove(self, context: Context, request: OtherUser) -> Contact:
        """Take a user out of your contacts.

        A block stays. One that is not there is no error.
        """
        return await self._contacts.remove(context.principal, request.user)

    @command("contact.block", route=Route("PUT", "/contacts/{user}/block"))
    async def block(self, context: Context, request: OtherUser) -> Contact:
        """Block a user.

        A blocked user cannot open a direct conversation with you or send in it: that is forbidden
        then. No event tells of the block.
        """
        return await self._contacts.block(context.principal, request.user)

    @command("contact.unblock", route=Route("DELETE", "/contacts/{user}/block"))
    async def unblock(self, context: Context, request: OtherUser) -> Contact:
        """Lift your block of a user."""
        return await self._contacts.unblock(context.principal, request.user)
