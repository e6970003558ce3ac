"""What a scripted supervisor keeps: work tree, state directory, log; and all of it put together."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections.abc import Callable, Mapping
from typing import Any

import anyio.lowlevel

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.supervisor.shared import Shared
from codex_self_iter.testing.clock import run_inline
from codex_self_iter.testing.scripted import ScriptedHost, ScriptedMachine
from codex_self_iter.world.pool import Pool
from codex_self_iter.world.state.redact import InHaste, Redactor, never
from codex_self_iter.world.state.store import Loaded, StateDirectory

__all__ = [
    "Memory",
    "MemoryStore",
    "ScriptedStore",
    "ScriptedWorkTree",
    "SilentLog",
    "scripted_shared",
]


class ScriptedWorkTree:
    """ports.WorkTree of a scripted machine: no git, content is a number."""

    repository: object | None = None
    timeout_sec = 60.0

    def __init__(self, machine: ScriptedMachine, workspace: str) -> None:
        self._machine, self._workspace = machine, workspace

    async def snapshot(self, previous: Snapshot | None) -> Snapshot:  # noqa: ARG002
        await anyio.lowlevel.checkpoint()
        self._machine.alive(self._workspace)
        return Snapshot("", "", {"work": str(self._machine.content.get(self._workspace, 0))})

    async def committed(self, old_head: str, new_head: str) -> Mapping[str, tuple[str, str]]:  # noqa: ARG002
        return {}


class ScriptedStore(StateDirectory):
    """A real state directory that asks before every write: `before(what)` may raise StorageError.

    `after(what)` is called when snapshot or journal line is durable."""

    before: Callable[[str], None] = staticmethod(lambda _what: None)
    after: Callable[[str], None] = staticmethod(lambda _what: None)

    def save_runtime(self, runtime: Mapping[str, Any]) -> None:
        self.before("runtime")
        super().save_runtime(runtime)
        self.after("runtime")

    def save_status(self, status: Mapping[str, Any]) -> None:
        self.before("status")
        super().save_status(status)

    def append_journal(self, record: Mapping[str, Any]) -> None:
        self.before("journal")
        super().append_journal(record)
        self.after("journal")

    def save_prompt(
        self, iteration: int, role: str, text: str, attempt: int = 1, *, redact: bool = True
    ) -> str:
        self.before("prompt")
        return super().save_prompt(iteration, role, text, attempt, redact=redact)

    def run_directory(self, iteration: int, label: str, attempt: int = 1) -> str:
        if (
            self.root.look(
                f"logs/runs/{iteration:06d}-{label}{f'-{attempt}' if attempt > 1 else ''}"
            )
            is None
        ):
            self.before("run directory")
        return super().run_directory(iteration, label, attempt)


@dataclasses.dataclass(slots=True)
class Memory:
    """What `MemoryStore` keeps; outlives the supervisors that write it.

    Attributes:
        lines: the journal's last lines, `keep` of them at most; on_line is told of every one."""

    runtime: str = ""
    status: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    lines: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)
    on_line: Callable[[Mapping[str, Any]], None] = lambda _line: None
    keep: int = 200


class MemoryStore(ScriptedStore):
    """Snapshot, journal and status in memory: for many iterations in little time."""

    def __init__(self, path: str, workspace: str, memory: Memory) -> None:
        """Prompts and runs stay files in `path`."""
        super().__init__(path, workspace, redactor=_Nothing())
        self.memory = memory

    def save_runtime(self, runtime: Mapping[str, Any]) -> None:
        self.before("runtime")
        self.memory.runtime = json.dumps(runtime)
        self.after("runtime")

    def save_status(self, status: Mapping[str, Any]) -> None:
        self.before("status")
        self.memory.status = status

    def append_journal(self, record: Mapping[str, Any]) -> None:
        self.before("journal")
        self.memory.lines.append(record)
        del self.memory.lines[: -self.memory.keep]
        self.memory.on_line(record)
        self.after("journal")

    def journal_tail(self, count: int) -> list[dict[str, Any]]:
        return [dict(line) for line in self.memory.lines[-count:]] if count else []

    def redact_run(self, directory: str, in_haste: InHaste = never) -> int:  # noqa: ARG002
        return 0

    def redact_prompt(self, path: str, in_haste: InHaste = never) -> int:  # noqa: ARG002
        return 0

    def load(self) -> Loaded:
        last = json.loads(json.dumps(self.memory.lines[-1])) if self.memory.lines else None
        runtime = json.loads(self.memory.runtime) if self.memory.runtime else None
        return Loaded(runtime, last, [])


class _Nothing(Redactor):
    """Redacts nothing: there are no secrets in a script."""

    def __init__(self) -> None:
        super().__init__()

    def text(self, text: str) -> str:
        return text

    def value(self, value: Any) -> Any:
        return value


class SilentLog:
    """A structlog logger that keeps the names of its events and prints nothing."""

    def __init__(self) -> None:
        """`events` has (level, event, fields), oldest first, the last thousand."""
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def bind(self, **_fields: Any) -> SilentLog:
        """The same logger."""
        return self

    def __getattr__(self, level: str) -> Callable[..., None]:
        """A method for each level."""
        if level.startswith("__"):
            raise AttributeError(level)

        def write(event: str, **fields: Any) -> None:
            self.events.append((level, event, fields))
            del self.events[:-1000]

        return write


def scripted_shared(machine: ScriptedMachine, *, seed: int = 0, **changes: Any) -> Shared:
    """What a supervisor shares, on a scripted machine; `changes` are fields of `Shared`."""
    given: dict[str, Any] = {
        "host": ScriptedHost(machine),
        "pool": Pool(2),
        "clock": machine.clock,
        "boot_id": machine.clock.boot_id,
        "log": SilentLog(),
        "environ": {"PATH": os.defpath},
        "rng": random.Random(seed),
        "in_thread": run_inline,
        "open_store": ScriptedStore,
        "open_work_tree": lambda workspace, *_how: ScriptedWorkTree(machine, workspace),
        "free_disk_mb": lambda _path: 100_000,
    }
    return Shared(**(given | changes))
