"""How a command is followed through the server and on to other nodes, where that is wanted."""

from contextlib import AbstractContextManager
from typing import Protocol


class Tracing(Protocol):
    """Makes the spans of traces. Who has none traces nothing, and pays nothing for it."""

    def span(
        self, name: str, kind: str = "internal", parent: str | None = None, **attributes: str
    ) -> AbstractContextManager[object]:
        """A part of what is done: inside the one that is open in this task, or of the trace that
        `parent` names, if it is given.

        Args:
            kind: `internal`, `server`, `client`, `producer` or `consumer`, as OpenTelemetry means
                them.
            parent: as `context` told it, perhaps on another node; what cannot be read is none.
        """
        ...

    def context(self) -> str | None:
        """What names the open span to others: a `traceparent` (W3C Trace Context). None if there is
        none, or it is not recorded.
        """
        ...
