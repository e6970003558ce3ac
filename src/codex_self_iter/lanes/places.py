"""Where a lane is, and what its loop is given: work tree, state directory, plan, task, settings."""

from __future__ import annotations

import dataclasses
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from codex_self_iter.core.lanes import Lane
from codex_self_iter.core.state import Spent
from codex_self_iter.lanes import words
from codex_self_iter.settings import Settings
from codex_self_iter.settings.paths import MAX_DOCUMENT_BYTES
from codex_self_iter.settings.schema import LanesSettings, NotifySettings
from codex_self_iter.supervisor.context import Context
from codex_self_iter.views.lane_rows import mark
from codex_self_iter.world import port_ranges, registry
from codex_self_iter.world.git import lane_trees
from codex_self_iter.world.git.repository import Repository
from codex_self_iter.world.guarded import read_guarded
from codex_self_iter.world.state.durable import replace_private, storing

OWN, PLAN, TASK = ".codex-self-iter", "plan.md", "task.md"
"""In a lane's work tree: its plan and its task, hidden from git."""
_TOLD_HERE = frozenset(("completed", "stagnated", "blocked", "crashed", "stopped", "digest"))
"""What the loop with the lanes tells itself."""
_BOUNDS = {"max_tokens": "tokens", "max_cost_usd": "cost_usd", "max_hours": "hours"}
_DAILY = {f"{bound}_per_day": f"day_{used}" for bound, used in _BOUNDS.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """Where the lanes of one loop are.

    Attributes:
        directory: all work trees; prefix: the workspace below the top of a work tree, "" or with a
            "/" at its end; state_dir: of the loop with the lanes; port_base: the first port of all."""

    directory: str
    prefix: str
    state_dir: str
    port_base: int

    @classmethod
    def of(cls, ctx: Context, repository: Repository, held: ExitStack) -> Places:
        """Those that the settings name; ports are had until `held` is closed. Raises OSError where
        there is no home directory, or no work tree can be made."""
        given = ctx.settings.lanes.directory
        base = os.path.expanduser(given) or os.path.join(_state_home(), "lanes")
        name = os.path.basename(str(ctx.paths.workspace)) or "root"
        first = ctx.settings.lanes.port_base
        if ctx.settings.origin("lanes", "port_base") == "default":
            wanted = max(1000, 2 * words.PORTS * ctx.settings.lanes.max)
            first, fd = port_ranges.claim(os.path.join(_state_home(), "ports"), first, wanted)
            held.callback(os.close, fd)
        directory = os.path.join(base, f"{name}-{mark(ctx.store.path)}")
        if flaw := lane_trees.unfit(directory):
            raise OSError(f"{flaw}; mend that, or name another [lanes] directory")
        return cls(directory, repository.prefix, ctx.store.path, first)

    def tree(self, lane: str) -> str:
        """The work tree of a lane, or of the landing."""
        return os.path.join(self.directory, lane)

    def workspace(self, tree: str) -> str:
        """The workspace in a work tree."""
        return os.path.join(tree, self.prefix).rstrip("/") or tree

    def lane_state(self, lane: str) -> str:
        """The state directory of a lane's loop; it outlives the work tree."""
        return os.path.join(self.state_dir, self.below(lane))

    @staticmethod
    def below(lane: str) -> str:
        """The same, from the state directory of the loop with the lanes."""
        return f"lanes/{lane}/state"

    def kept_as(self, lane: str) -> str:
        """By which name the commits of a lane are kept."""
        return f"{mark(self.state_dir)}/{lane}"

    def first_port(self, lane: Lane) -> int:
        """The first of a lane's ports."""
        return self.port_base + words.PORTS * lane.slot

    def variables(self, lane: Lane) -> dict[str, str]:
        """What a lane's agents, gates and commands find in their environment."""
        return {
            "CODEX_SELF_ITER_LANE": lane.id,
            "CODEX_SELF_ITER_PORT_BASE": str(self.first_port(lane)),
        }


def _state_home() -> str:
    found = registry.directory()
    if not found:
        raise OSError(
            "there is no home directory for the work trees; name one in [lanes] directory"
        )
    return os.path.dirname(found)


def _own(places: Places, lane: Lane) -> str:
    return os.path.join(places.workspace(lane.place), OWN)


def write_texts(ctx: Context, places: Places, lane: Lane) -> None:
    """Write plan and task of a lane, unless its plan is there. Raises StorageError, OSError."""
    own = _own(places, lane)
    with storing("write", own):
        os.makedirs(own, mode=0o700, exist_ok=True)
        task = words.task(ctx.task.text, ctx.plan.path, lane, places.first_port(lane))
        texts = {".gitignore": "*\n", TASK: task}
        if not os.path.exists(os.path.join(own, PLAN)):
            texts[PLAN] = words.plan(lane)
        for name, text in texts.items():
            replace_private(os.path.join(own, name), text.encode())


def add_item(places: Places, lane: Lane, text: str) -> None:
    """Add one more thing to a lane's own plan, once. Raises StorageError, OSError."""
    path = os.path.join(_own(places, lane), PLAN)
    line = f"- [ ] {text}"
    with storing("write", path):
        try:
            old = read_guarded(path, MAX_DOCUMENT_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            old = ""
        if line not in old.splitlines():
            replace_private(path, f"{old.rstrip()}\n{line}\n".encode())


def tick_added(places: Places, lane: Lane) -> None:
    """Tick what was added to a lane's own plan: a person has done it. Raises StorageError, OSError."""
    path = os.path.join(_own(places, lane), PLAN)
    with storing("write", path):
        text = read_guarded(path, MAX_DOCUMENT_BYTES).decode("utf-8", "replace")
        for again in words.AGAIN.values():
            text = text.replace(f"- [ ] {again} (", f"- [x] {again} (")
        replace_private(path, text.encode())


def lane_settings(ctx: Context, places: Places, lane: Lane, others: Spent) -> Settings:
    """The settings of a lane's loop. `others`: what all lanes but this one have used."""
    base = ctx.settings
    workspace, own = Path(places.workspace(lane.place)), Path(_own(places, lane))
    order = base.agents.order
    commit = "agent" if base.git.commit == "agent" else "supervisor"
    changes: dict[str, Any] = {
        "workspace": workspace,
        "workspaces": (),
        "task_file": own / TASK,
        "plan_file": own / PLAN,
        "state_dir": Path(places.lane_state(lane.id)),
        "lanes": LanesSettings(),
        "metrics_file": "",
        "git": base.git.model_copy(update={"commit": commit}),
        "hooks": base.hooks.model_copy(update={"on_start": (), "on_end": ()}),
        "budget": _rest(base, others),
        "notify": _notify(base.notify),
    }
    if lane.candidate and order:
        changes["agent"] = order[lane.candidate % len(order)]
    name = f"{base.name}.{lane.id}"
    return base.model_copy(update=changes).loaded_as(name=name, base="", priority=base.priority)


def _notify(base: NotifySettings) -> NotifySettings:
    """Who is told of a lane: not what the loop with the lanes tells itself."""
    if not (base.command or base.urls or base.targets):
        return base
    targets = [
        one.model_copy(update={"events": tuple(e for e in one.events if e not in _TOLD_HERE)})
        for one in base.targets
    ]
    events = tuple(one for one in base.events if one not in _TOLD_HERE)
    changes = {"events": events, "targets": tuple(targets), "replies": (), "digest_at": ""}
    return base.model_copy(update=changes)


def _rest(base: Settings, others: Spent) -> Any:
    """What the other lanes have left of the budget; a spent one leaves next to nothing."""
    left = {}
    for bound, used in (_BOUNDS | _DAILY).items():
        if whole := getattr(base.budget, bound):
            rest = whole - getattr(others, used)
            left[bound] = max(1, int(rest)) if isinstance(whole, int) else max(1e-6, rest)
    return base.budget.model_copy(update=left)
