"""Sending, editing and deleting messages."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from actions.attempts import ATTEMPTS, busy
from actions.ledger import Ledger, Must
from actions.messaging.conversations import follow_own
from actions.messaging.last_messages import Last, LastMessages
from actions.messaging.memberships import Facts, Memberships
from actions.messaging.message_views import MessageViews, shown
from actions.messaging.writing import (
    attachment,
    may_write,
    mentionable,
    no_conversation,
    no_message,
    no_upload,
)
from actions.streams.streams import Streams
from domain.clock import Clock, timestamp
from domain.errors import Conflict, Forbidden, Invalid, NotFound, ParleyError
from domain.events import CLIENT_ID
from domain.ids import key_digest, new_id
from domain.messaging.conversations import personal_stream, stream_of
from domain.messaging.messages import (
    MAX_PINS,
    MESSAGE_CREATED,
    MESSAGE_DELETED,
    MESSAGE_EDITED,
    Attachment,
    Message,
    MessageDeleted,
    check_body,
    emptied,
)
from domain.principals import Principal, Role
from store.engine import (
    Change,
    Delete,
    Document,
    Engine,
    Guard,
    GuardFailed,
    Insert,
    Key,
    NewEvent,
    Redaction,
    Update,
)
from store.messaging.conversations import has_role, is_member, remains
from store.messaging.messages import MESSAGES, PINS, REPLIES, MessageRepository, hide, is_in
from store.messaging.unread import mention, unmention
from store.uploads.uploads import UPLOADS, UploadRepository


class Draft(NamedTuple):
    """A message to send."""

    conversation: str
    client_id: str
    body: str = ""
    attachments: Sequence[str] = ()
    """Ids of uploads."""
    reply_to: str | None = None
    thread: str | None = None
    mentions: Sequence[str] = ()
    """Ids of members."""

    @property
    def digest(self) -> str:
        """Of the content, without the key it is sent under."""
        return key_digest(
            self.body,
            self.reply_to or "",
            self.thread or "",
            str(len(self.attachments)),
            *self.attachments,
            *self.mentions,
        )


class Messages:
    """What can be done with messages."""

    def __init__(
        self,
        engine: Engine,
        messages: MessageRepository,
        uploads: UploadRepository,
        memberships: Memberships,
        views: MessageViews,
        last_messages: LastMessages,
        streams: Streams,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._messages = messages
        self._uploads = uploads
        self._memberships = memberships
        self._views = views
        self._last_messages = last_messages
        self._streams = streams
        self._ledger = ledger
        self._clock = clock

    # -- sending ------------------------------------------------------------------------------

    async def send(self, principal: Principal, draft: Draft) -> Message:
        """Send a message; sent again with the same `client_id`, give the first one.

        What could change between a check and the write is checked by the write itself, so that
        a message usually takes no read.

        Raises:
            NotFound: the caller is in no such conversation.
            Invalid: it has no content, or speaks of what is not in the conversation.
            Forbidden: the other one has blocked the caller.
            Conflict: the `client_id` was used for another message.
        """
        org, user, conversation = principal.org, principal.user, draft.conversation
        check_body(draft.body)
        if not draft.body and not draft.attachments:
            raise Invalid.field("body", "a message needs a body or attachments")
        facts = self._memberships.known(org, conversation) or await self._memberships.facts(
            org, conversation
        )
        guards = may_write(facts, conversation, user)
        guards += [mentionable(conversation, each) for each in draft.mentions if each != user]
        # Of what the caller has deleted alone a guard that never holds: a retry is answered as before.
        named = [each for each in (draft.reply_to, draft.thread) if each is not None]
        gone = await self._messages.hidden(org, named, user) if named else ()
        if draft.reply_to is not None:
            place = "" if draft.reply_to in gone else conversation
            guards.append(Must(is_in(draft.reply_to, place), _no_reply))
        if draft.thread is not None:
            place = "" if draft.thread in gone else conversation
            guards.append(Must(is_in(draft.thread, place, thread=None), _no_thread))
        id = new_id()
        attachments: list[Attachment] = []
        changes: list[Change] = []
        if draft.attachments:
            attachments = await self._attach(principal, draft, id, guards, changes)

        at = timestamp(self._clock.now())
        # The document and the event's data are one object: the engine encodes it once.
        doc: Document = {
            "id": id,
            "conversation": conversation,
            "seq": 0,
            "sender": user,
            "body": draft.body,
            "attachments": attachments,
            "reply_to": draft.reply_to,
            "thread": draft.thread,
            "mentions": list(draft.mentions),
            "created_at": at,
            "edited_at": None,
            "deleted_at": None,
            "version": 1,
            "reactions": {},
            "status": "sent",
            "pinned_at": None,
            "pinned_by": None,
            CLIENT_ID: draft.client_id,
        }
        changes.append(Insert(MESSAGES, doc, "seq"))
        if draft.thread is not None:
            reply: Document = {"id": doc["id"], "thread": draft.thread, "seq": 0}
            changes.append(Insert(REPLIES, reply, "seq"))
        if draft.mentions:
            others = [each for each in draft.mentions if each != user]
            changes += mention(doc["id"], conversation, others)
        appended = await self._ledger.append(
            org,
            stream_of(conversation),
            principal.actor,
            at,
            (NewEvent(MESSAGE_CREATED.name, doc, "seq"),),
            changes,
            guards,
            key=Key(draft.client_id, draft.digest),
            reused=_other_message,
        )
        if appended.replayed:
            if not await self._memberships.is_there(org, conversation):
                raise no_conversation()
            if appended.events:
                return shown(appended.events[0].content())
            first = await self._messages.at(org, conversation, appended.seq)
            if first is None:
                raise NotFound("There is no such message any more.")
            return shown(first)
        doc["seq"] = appended.seq
        self._last_messages.note(conversation, appended.epoch, Last(doc["id"], appended.seq, at))
        return shown(doc)

    async def _attach(
        self,
        principal: Principal,
        draft: Draft,
        message: str,
        guards: list[Must],
        changes: list[Change],
    ) -> list[Attachment]:
        """The attachments on the wire; adds what gives the conversation's members the right to
        download them.
        """
        uploads = await self._uploads.get_many(principal.org, list(draft.attachments))
        at = timestamp(self._clock.now())
        attachments: list[Attachment] = []
        for id in draft.attachments:
            upload = uploads.get(id)
            if upload is None or upload["owner"] != principal.user:
                # The append refuses it, unless the message is there: sent again after its upload
                # went, it is answered as before.
                guards.append(Must(Guard(UPLOADS, id, {"owner": ""}), partial(no_upload, id)))
                continue
            guard, link = self._uploads.link(id, stream_of(draft.conversation), message, at)
            guards.append(Must(guard, partial(no_upload, id)))
            changes.append(link)
            attachments.append(attachment(upload))
        return attachments

    # -- editing ------------------------------------------------------------------------------

    async def edit(
        self,
        principal: Principal,
        message: str,
        body: str,
        version: int,
        mentions: Sequence[str] | None = None,
    ) -> Message:
        """Change the body of one's own message, and whom it mentions.

        Args:
            version: of the message that was changed; a retry of an edit that was done succeeds.
            mentions: ids of members, in place of those it had.

        Raises:
            NotFound: there is no such message for the caller.
            Invalid: it has no content, or mentions somebody who is not in the conversation.
            Forbidden: it is somebody else's.
            Conflict: it has another version, or is deleted; the error's data has it as it is.
        """
        check_body(body)
        for _ in range(ATTEMPTS):
            doc, facts = await self.find(principal, message)
            if doc["sender"] != principal.user:
                raise Forbidden("Only its sender may edit a message.")
            old: list[str] = doc["mentions"]
            new = old if mentions is None else list(mentions)
            is_so = doc["body"] == body and old == new and not doc["deleted_at"]
            if doc["version"] == version + 1 and is_so:
                return await self._views.one(principal.org, doc)
            if doc["version"] != version or doc["deleted_at"]:
                raise Conflict(
                    "The message was deleted."
                    if doc["deleted_at"]
                    else f"The message has version {doc['version']}.",
                    data={"message": await self._views.one(principal.org, doc)},
                )
            if not body and not doc["attachments"]:
                raise Invalid.field("body", "a message needs a body or attachments")
            at = timestamp(self._clock.now())
            change = {"body": body, "mentions": new, "edited_at": at, "version": version + 1}
            added = [each for each in new if each not in old and each != principal.user]
            gone = [each for each in old if each not in new]
            conversation = doc["conversation"]
            if await self.change(
                principal,
                facts,
                doc,
                at,
                change,
                MESSAGE_EDITED.name,
                [*unmention(message, gone), *mention(message, conversation, added, doc["seq"])],
                [mentionable(conversation, each) for each in added],
            ):
                return await self._views.one(principal.org, {**doc, **change})
        raise busy("message")

    async def change(
        self,
        principal: Principal,
        facts: Facts,
        doc: Document,
        at: str,
        values: Mapping[str, object],
        event: str,
        changes: Sequence[Change] = (),
        more: Sequence[Must] = (),
        retried: Sequence[Guard] = (),
    ) -> bool:
        """Change a message and tell of it with the whole message; False if it is not as `doc` any
        more, and nothing was done.

        Args:
            more: what must hold too.
            retried: what must hold too, or nothing was done.

        Raises:
            NotFound: the caller is not in the conversation any more.
            Forbidden: the other one has blocked the caller.
        """
        id, conversation = doc["id"], doc["conversation"]
        as_read = is_in(
            id,
            conversation,
            version=doc["version"],
            deleted_at=doc["deleted_at"],
            pinned_at=doc["pinned_at"],
            attachments=doc["attachments"],
        )
        org, stream = principal.org, stream_of(conversation)
        view = await self._views.one(org, {**doc, **values})
        told = await self._messages.last_told(org, id)
        veil = await self._messages.veil(org, id)
        head = await self._engine.head(org, stream)
        trimmed = await self._messages.trimmed(org, id, head.trimmed if head is not None else 0)
        guards = may_write(facts, conversation, principal.user)
        try:
            await self._ledger.append(
                org,
                stream,
                principal.actor,
                at,
                [NewEvent(event, {**view, **veil})],
                [Update(MESSAGES, id, set=values), *changes, *trimmed, told.more()],
                [*guards, *more, *retried, as_read, told.is_all],
            )
        except GuardFailed:
            return False
        return True

    # -- deleting -----------------------------------------------------------------------------

    async def delete(self, principal: Principal, message: str) -> Message:
        """Take a message's content away for everyone, from history and from the log, and the right
        to download its attachments. It keeps its place.

        Raises:
            NotFound: there is no such message for the caller.
            Forbidden: the caller is neither its sender, nor the conversation's owner, nor an
                admin.
        """
        org, user = principal.org, principal.user
        doc, facts = await self.find(principal, message, hidden=True)
        conversation = doc["conversation"]
        stream = stream_of(conversation)
        while not doc["deleted_at"]:
            guard = is_member(conversation, user)
            if doc["sender"] != user and not principal.role.at_least(Role.ADMIN):
                guard = has_role(conversation, user, "owner")
            at = timestamp(self._clock.now())
            gone = emptied(at)
            told = await self._messages.told(org, message)
            pins = []
            if doc["pinned_at"]:
                pins.append(await self._messages.pins(org, conversation, -1, MAX_PINS))
            data: MessageDeleted = {"id": message, "conversation": conversation, "seq": doc["seq"]}
            try:
                await self._ledger.append(
                    org,
                    stream,
                    principal.actor,
                    at,
                    [NewEvent(MESSAGE_DELETED.name, {**data})],
                    [
                        Update(MESSAGES, message, set=gone),
                        Delete(PINS, message),
                        *(counted for _, counted in pins),
                        *unmention(message, doc["mentions"]),
                        *(
                            self._uploads.withdraw(each["id"], stream, message, at)
                            for each in doc["attachments"]
                        ),
                    ],
                    [
                        Must(guard, partial(self._may_not_delete, principal, conversation)),
                        Must(remains(conversation, facts.kind.value), no_message),
                        is_in(
                            message,
                            conversation,
                            deleted_at=None,
                            version=doc["version"],
                            pinned_at=doc["pinned_at"],
                        ),
                        told.is_all,
                        *(room for room, _ in pins),
                    ],
                    redactions=[Redaction([doc["seq"], *told.seqs], gone)],
                )
            except GuardFailed:
                doc, _ = await self.find(principal, message, hidden=True)
                continue
            doc = {**doc, **gone}
        # Also when it was deleted before: a crash may have left them.
        await self._messages.forget_told(org, message)
        return await self._views.one(org, doc)

    async def _may_not_delete(self, principal: Principal, conversation: str) -> ParleyError:
        try:
            await self._memberships.require(principal, conversation)
        except NotFound as error:
            return error
        return Forbidden("Only its sender or an owner may delete a message.")

    async def hide(self, principal: Principal, message: str) -> Message:
        """Take a message away from the caller alone, on all of the caller's devices.

        Raises:
            NotFound: there is no such message for the caller.
        """
        org, user = principal.org, principal.user
        doc, _ = await self.find(principal, message, hidden=True)
        conversation = doc["conversation"]
        data: MessageDeleted = {"id": message, "conversation": conversation, "seq": doc["seq"]}
        guard, insert = hide(doc, user)
        view = await self._views.one(org, doc)
        with contextlib.suppress(GuardFailed):  # the caller has done so already
            await self._ledger.append(
                org,
                personal_stream(user),
                principal.actor,
                timestamp(self._clock.now()),
                [NewEvent(MESSAGE_DELETED.name, {**data})],
                [insert],
                [guard],
                first=partial(follow_own, self._streams, self._memberships, principal),
            )
        return view

    # -- finding ------------------------------------------------------------------------------

    async def find(
        self, principal: Principal, message: str, *, hidden: bool = False
    ) -> tuple[Document, Facts]:
        """A message of a conversation the caller is in.

        Args:
            hidden: also one that the caller has deleted for the caller alone.

        Raises:
            NotFound: there is none.
        """
        doc, gone = await asyncio.gather(
            self._messages.get(principal.org, message),
            self._messages.hidden(principal.org, () if hidden else [message], principal.user),
        )
        if doc is not None and not gone:
            with contextlib.suppress(NotFound):
                return doc, await self._memberships.require(principal, doc["conversation"])
        raise no_message()


def _no_reply() -> Invalid:
    return Invalid.field("reply_to", "no message of this conversation")


def _no_thread() -> Invalid:
    return Invalid.field("thread", "no message of this conversation that a thread hangs on")


def _other_message() -> Conflict:
    return Conflict("This client_id was used for another message.")
