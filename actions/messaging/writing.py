"""What must hold when somebody writes in a conversation, and what is said when it does not."""

from collections.abc import Callable
from functools import partial

from actions.ledger import Must
from actions.messaging.memberships import Facts, Memberships
from domain.errors import Forbidden, Invalid, NotFound
from domain.messaging.conversations import Kind
from domain.messaging.messages import Attachment, attachment_url
from domain.principals import Principal
from store.accounts.contacts import ContactRepository, unblocked
from store.engine import Document
from store.messaging.conversations import is_member, remains
from store.uploads.uploads import length_of


def no_conversation() -> NotFound:
    """There is none for the caller."""
    return NotFound("There is no such conversation.")


def no_message() -> NotFound:
    """There is none for the caller."""
    return NotFound("There is no such message.")


def may_write(
    facts: Facts, conversation: str, user: str, missing: Callable[[], NotFound] = no_conversation
) -> list[Must]:
    """Holds as long as the user may write in the conversation.

    Args:
        missing: makes the error for one who is not in it.
    """
    guards = [Must(is_member(conversation, user), missing)]
    if facts.kind is Kind.CHANNEL:
        # Deleted, it may have its members for a moment yet.
        guards.append(Must(remains(conversation, facts.kind.value), missing))
    if facts.kind is Kind.DIRECT:
        other = facts.other(user)
        if other is not None:
            guards.append(Must(unblocked(other, user), unwanted))
    return guards


def mentionable(conversation: str, user: str) -> Must:
    """Holds as long as a user who is mentioned is in the conversation."""
    return Must(is_member(conversation, user), partial(_not_in_it, user))


async def is_shut_out(
    memberships: Memberships, contacts: ContactRepository, principal: Principal, conversation: str
) -> bool:
    """Whether the other one of a direct conversation has blocked the user.

    Raises:
        NotFound: the organization has no such conversation.
    """
    org, user = principal.org, principal.user
    facts = memberships.known(org, conversation) or await memberships.facts(org, conversation)
    other = facts.other(user)
    return other is not None and await contacts.is_blocked(org, other, user)


def no_upload(id: str) -> Invalid:
    """An attachment is not the sender's."""
    return Invalid.field("attachments", f"you have no completed upload {id}")


def attachment(upload: Document) -> Attachment:
    """An upload as the message shows it that carries it."""
    id = upload["id"]
    shown: Attachment = {
        "id": id,
        "name": upload["name"],
        "content_type": upload["content_type"],
        "size": length_of(upload),
        "url": attachment_url(id),
    }
    if upload.get("image") is not None:
        shown["image"] = upload["image"]
    return shown


def unwanted() -> Forbidden:
    """The other one of a direct conversation has blocked the caller."""
    return Forbidden("This user does not want to hear from you.")


def _not_in_it(user: str) -> Invalid:
    return Invalid.field("mentions", f"{user} is not in the conversation")
