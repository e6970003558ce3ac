"""What the parts of one loop share. Every part takes it; none of them knows the loop."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup
from structlog.typing import FilteringBoundLogger

from codex_self_iter.agents.base import Agent
from codex_self_iter.core.events import Event
from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.mailbox import Mailbox
from codex_self_iter.core.policy import Policy
from codex_self_iter.core.state import LoopState
from codex_self_iter.settings import Settings
from codex_self_iter.settings.paths import ResolvedPaths
from codex_self_iter.supervisor.configured import Configured
from codex_self_iter.supervisor.documents import Document
from codex_self_iter.supervisor.shared import Shared
from codex_self_iter.supervisor.warnings import Warnings
from codex_self_iter.views.status import RECENT
from codex_self_iter.world.git.objects import Stored
from codex_self_iter.world.state.inbox import Inbox
from codex_self_iter.world.state.store import StateDirectory


@dataclasses.dataclass(eq=False, slots=True)
class Mail:
    """Words to a person that are on their way.

    Attributes:
        read: whether `box` is what the state directory has.
        disk: held while it is read or written there.
        woken: set when there is something new.
        final: the last tries were made, as nobody is there later.
        slow: targets that failed at the last try, and took long to.
        begun: when the loop began to send (monotonic seconds); 0: not yet."""

    box: Mailbox = dataclasses.field(default_factory=Mailbox)
    read: bool = False
    disk: anyio.Lock = dataclasses.field(default_factory=anyio.Lock)
    woken: anyio.Event = dataclasses.field(default_factory=anyio.Event)
    final: bool = False
    slow: set[str] = dataclasses.field(default_factory=set)
    begun: float = 0.0


@dataclasses.dataclass(eq=False, slots=True)
class Context:
    """One loop, as its parts see it.

    Attributes:
        name, log: the loop's name, and a logger that says it.
        plan, task: the texts as they were last taken.
        tasks: what is started in it ends with the loop.
        post: queues an event; callable from any task of this event loop.
        config: replaced as a whole by a reload.
        state: written by the loop only.
        notes: how many there are.
        warnings: what could not be done for the person; recent: the journal's last lines.
        stored: what the repository's object store holds, once it was counted.
        at_start: what the gates said before the first run of this start; None: not asked.
        changed: set when `status.json` is to be written soon.
        lanes: what `status.json` says of the lanes; None for a loop without."""

    shared: Shared
    name: str
    log: FilteringBoundLogger
    paths: ResolvedPaths
    store: StateDirectory
    inbox: Inbox
    plan: Document
    task: Document
    tasks: TaskGroup
    post: Callable[[Event], None]
    config: Configured
    state: LoopState
    warnings: Warnings
    recent: deque[Mapping[str, Any]] = dataclasses.field(
        default_factory=lambda: deque(maxlen=RECENT)
    )
    free_mb: float = 0.0
    state_mb: float = 0.0
    notes: int = 0
    stored: Stored | None = None
    at_start: Sequence[GateResult] | None = None
    changed: anyio.Event = dataclasses.field(default_factory=anyio.Event)
    mail: Mail = dataclasses.field(default_factory=Mail)
    lanes: Mapping[str, Any] | None = None

    @property
    def settings(self) -> Settings:
        """The present settings."""
        return self.config.settings

    @property
    def agents(self) -> Mapping[str, Agent]:
        """The adapters by name."""
        return self.config.agents

    @property
    def policy(self) -> Policy:
        """The present rules."""
        return self.config.policy

    @property
    def documents(self) -> tuple[Document, Document]:
        """Plan and task."""
        return self.plan, self.task

    @property
    def run_lock_path(self) -> str:
        """The file that every run inherits locked."""
        return str(self.paths.state_dir / "run.lock")

    def start(
        self, what: str, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> None:
        """Start a task of the loop."""
        self.tasks.start_soon(function, *args, name=f"{self.name}: {what}")

    def tell(self) -> None:
        """Have `status.json` written soon."""
        self.changed.set()

    def shown(self, text: str, longest: int) -> str:
        """A text for a person: without secrets, then cut. The other way round half of one stays."""
        return self.store.redactor.text(text)[:longest]

    def warn(self, texts: Iterable[str]) -> None:
        """Tell what the state directory has to say."""
        for text in texts:
            self.warnings.tell(text, text)
