"""Typing: told to whoever is there, kept nowhere."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from actions.connections.clients import Client
from actions.timeouts import Timeouts
from domain.clock import Clock, timestamp
from domain.errors import NotFound
from domain.events import Actor, StoredEvent
from domain.messaging.typing import TYPING_CHANGED, TYPING_ENDS, TYPING_REPEATS
from domain.principals import Principal
from fanout.publisher import Publisher


class _Typist:
    """One user writing in one conversation, on one device or several."""

    __slots__ = ("actor", "clients", "conversation", "stream", "told")

    def __init__(self, stream: str, conversation: str, actor: Actor) -> None:
        self.stream = stream
        self.conversation = conversation
        self.actor = actor
        self.clients: dict[Client, None] = {}
        self.told = float("-inf")
        """When the others last heard of it, on the monotonic clock."""


class Typing:
    """Carries `typing.start` and `typing.stop` to the others in a conversation.

    A connection that follows a conversation was let in as its member, and is put out when it is
    one no longer: only a block takes a read.
    """

    def __init__(
        self,
        publisher: Publisher,
        is_shut_out: Callable[[Principal, str], Awaitable[bool]],
        clock: Clock,
        is_of: Callable[[str, str, str, str], bool] = lambda *_: False,
    ) -> None:
        """`is_shut_out` says whether a user may not write in a conversation because the other one
        of it does not want to hear from that user; `is_of`, whether an organization's conversation,
        of which the former was asked, is that of two users.
        """
        self._is_of = is_of
        self._publisher = publisher
        self._is_shut_out = is_shut_out
        self._clock = clock
        self._typists: dict[tuple[str, str], _Typist] = {}
        self._of_client: dict[Client, set[_Typist]] = {}
        self._timeouts = Timeouts(TYPING_ENDS, self._ended, clock)

    @property
    def active(self) -> int:
        """How many users are writing somewhere, each conversation counted."""
        return len(self._typists)

    def run_due(self) -> None:
        """End what is due. Called by a timer; harmless at any time."""
        self._timeouts.run_due()

    async def start(self, client: Client, conversation: str) -> None:
        """The client's user writes something, for `TYPING_ENDS` seconds unless told again. Nobody
        is told of a user who is blocked there.

        Raises:
            NotFound: the client follows no such conversation.
        """
        _followed(client, conversation)
        if await self._is_shut_out(client.principal, conversation):
            return
        stream = _followed(client, conversation)
        user = client.principal.user
        typist = self._typists.get((stream, user))
        if typist is None:
            typist = _Typist(stream, conversation, client.principal.actor)
            self._typists[stream, user] = typist
        if client not in typist.clients:
            typist.clients[client] = None
            mine = self._of_client.get(client)
            if mine is None:
                mine = self._of_client[client] = set()
                client.when_closed(lambda: self._gone(client))
            mine.add(typist)
        self._timeouts.start((typist, client))
        now = self._clock.monotonic()
        if now - typist.told >= TYPING_REPEATS:
            typist.told = now
            self._tell(typist, typing=True)

    def stop(self, client: Client, conversation: str) -> None:
        """The client's user no longer writes. Told only if the others believe that this user does,
        and does so on no other device.

        Raises:
            NotFound: the client follows no such conversation.
        """
        stream = _followed(client, conversation)
        typist = self._typists.get((stream, client.principal.user))
        if typist is not None and client in typist.clients:
            self._timeouts.stop((typist, client))
            self._ended((typist, client))

    def sent(self, _org: str, event: StoredEvent) -> None:
        """A message was delivered here: who sent it no longer writes it, on any device."""
        self.end(event.actor.id, event.stream)

    def end(self, user: str, stream: str) -> None:
        """A user no longer writes in a conversation, or may no longer."""
        typist = self._typists.get((stream, user))
        if typist is None:
            return
        for client in list(typist.clients):
            self._timeouts.stop((typist, client))
            self._ended((typist, client))

    def blocked(self, user: str, order: Mapping[str, Any]) -> None:
        """Somebody does not want to hear from a user any more: as `end`, in the conversation of the
        two.
        """
        mine = [typist for (_, who), typist in self._typists.items() if who == user]
        for typist in mine:
            if self._is_of(order["org"], typist.conversation, user, order["by"]):
                self.end(user, typist.stream)

    def _ended(self, key: tuple[_Typist, Client]) -> None:
        typist, client = key
        del typist.clients[client]
        mine = self._of_client.get(client)
        if mine is not None:
            mine.discard(typist)
        if not typist.clients:
            del self._typists[typist.stream, typist.actor.id]
            self._tell(typist, typing=False)

    def _gone(self, client: Client) -> None:
        for typist in self._of_client.pop(client, ()):
            self._timeouts.stop((typist, client))
            self._ended((typist, client))

    def _tell(self, typist: _Typist, *, typing: bool) -> None:
        self._publisher.emit(
            TYPING_CHANGED,
            typist.stream,
            timestamp(self._clock.now()),
            {"conversation": typist.conversation, "user": typist.actor.id, "typing": typing},
            actor=typist.actor,
            stream=typist.stream,
        )


def _followed(client: Client, conversation: str) -> str:
    """The stream of a conversation that the client follows; its user's own stream is none."""
    stream = f"messages/{conversation}"
    if stream not in client.streams or conversation == client.principal.user:
        raise NotFound("There is no such conversation.")
    return stream
