"""What a loop could not do for its person: told once, shown until it is over, bounded.

The same words are in the log, in `status.json`, in the report and, where an agent can mend it, in
the next prompt. They live as long as the supervisor: a cause that outlives it is found again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from structlog.typing import FilteringBoundLogger

MOST = 50
"""So many are kept, the newest; `dropped` counts the others."""
LONGEST = 4000
"""Characters of one; a hook may say a lot."""


@dataclasses.dataclass(frozen=True, slots=True)
class Warned:
    """One warning; `agent` says that the next prompt is to have it."""

    text: str
    agent: bool = False


class Warnings:
    """The warnings of one loop, oldest first."""

    def __init__(
        self, log: FilteringBoundLogger, redact: Callable[[str], str] = lambda text: text
    ) -> None:
        """`redact` takes secrets out of a text before it is cut."""
        self._log, self._redact = log, redact
        self._told: dict[str, Warned] = {}
        self.dropped = 0

    def tell(self, key: str, text: str, *, agent: bool = False) -> bool:
        """Say it, once for as long as `key` says the same; another text takes its place. True when
        it is new."""
        text = self._redact(text)
        warned = Warned(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…", agent)
        known = self._told.get(key)
        if known is not None and known.text == warned.text:
            self._told[key] = warned  # the agent may have been told by now
            return False
        self._told.pop(key, None)
        self._told[key] = warned
        if len(self._told) > MOST:
            del self._told[next(iter(self._told))]
            self.dropped += 1
        self._log.warning("state.warning", text=warned.text)
        return True

    def begun(self, key: str) -> bool:
        """True while something is told under this key."""
        return key in self._told

    def clear(self, key: str) -> None:
        """It is over."""
        self._told.pop(key, None)

    def __iter__(self) -> Iterator[str]:
        return (warned.text for warned in self._told.values())

    def for_agent(self) -> tuple[str, ...]:
        """What the next prompt is to say."""
        return tuple(warned.text for warned in self._told.values() if warned.agent)
