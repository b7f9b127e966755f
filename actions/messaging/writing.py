"""What must hold when somebody writes in a conversation, and what is said when it does not."""

from actions.messaging.memberships import Facts, Memberships
from domain.errors import Forbidden, Invalid, NotFound, ParleyError
from domain.messaging.conversations import Kind
from domain.messaging.messages import Attachment, attachment_url
from domain.principals import Principal
from store.accounts.contacts import BLOCKS, ContactRepository, unblocked
from store.engine import Document, Guard
from store.messaging.conversations import MEMBERS, is_member, key_of, remains
from store.messaging.messages import MESSAGES
from store.uploads.uploads import UPLOADS, length_of


def may_write(facts: Facts, conversation: str, user: str) -> list[Guard]:
    """Holds as long as the user may write in the conversation."""
    guards = [is_member(conversation, user)]
    if facts.kind is Kind.CHANNEL:
        # Deleted, it may have its members for a moment yet.
        guards.append(remains(conversation, facts.kind.value))
    if facts.kind is Kind.DIRECT:
        other = facts.other(user)
        if other is not None:
            guards.append(unblocked(other, user))
    return guards


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


def refused(guard: Guard, conversation: str, user: str) -> ParleyError:
    """What a guard that failed says to the user who wrote."""
    if guard.collection is BLOCKS:
        return Forbidden("This user does not want to hear from you.")
    if guard.collection is MEMBERS and guard.id != key_of(conversation, user):
        mentioned = guard.id.rpartition(":")[2]
        return Invalid.field("mentions", f"{mentioned} is not in the conversation")
    if guard.collection is UPLOADS:
        return no_upload(guard.id)
    if guard.collection is MESSAGES and "thread" in guard.where:
        return Invalid.field("thread", "no message of this conversation that a thread hangs on")
    if guard.collection is MESSAGES:
        return Invalid.field("reply_to", "no message of this conversation")
    return NotFound("There is no such conversation.")
