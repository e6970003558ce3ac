"""What keys mean for each other: checks that need more than one value."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

from codex_self_iter.settings.model import KeyPath, Settings
from codex_self_iter.settings.schema import WorkspaceEntry

Breach = tuple[tuple[KeyPath, ...], str]
"""The keys that do not go together (the first is the one to report) and the message."""

RESERVED_NAMES = frozenset((
    ".gitignore", "PAUSE", "inbox", "lanes", "lanes.json", "logs", "notes.md", "outbox.json",
    "prompts", "quarantine", "report.md", "run.lock", "runtime.json", "runtime.json.1",
    "runtime.json.next", "runtime.json.tmp", "status.json",
))  # fmt: skip
"""Files of the state directory that have their own meaning."""


def breaches(settings: Settings) -> Iterator[Breach]:
    """Every rule that these settings break."""
    yield from _metrics(settings)
    yield from _lanes(settings)
    yield from _backoff(settings)
    yield from _names(settings)
    yield from _agents(settings)
    yield from _entries(settings)


def _backoff(settings: Settings) -> Iterator[Breach]:
    if settings.backoff_max_sec < settings.backoff_base_sec:
        base, most = settings.backoff_base_sec, settings.backoff_max_sec
        text = f"must be at least backoff_base_sec ({base:g}), not {most:g}"
        yield (("backoff_max_sec",), ("backoff_base_sec",)), text


def _metrics(settings: Settings) -> Iterator[Breach]:
    path = os.path.normpath(os.path.expanduser(settings.metrics_file))
    if settings.metrics_file and path.startswith(f"{settings.workspace_path}/"):
        text = "must be outside the workspace: what changes there is taken for an agent's work"
        yield (("metrics_file",),), text


def _lanes(settings: Settings) -> Iterator[Breach]:
    """Whoever looks at the workspace would take work trees in it for its content."""
    given = settings.lanes.directory
    path = os.path.normpath(os.path.expanduser(given))
    if given and f"{path}/".startswith(f"{settings.workspace_path}/"):
        text = "must be outside the workspace: what is in it would be taken for an agent's work"
        yield (("lanes", "directory"),), text


def _names(settings: Settings) -> Iterator[Breach]:
    names = ("stop_file_name", "global_stop_file_name", "lock_file_name")
    for one, other in itertools.combinations(names, 2):
        if getattr(settings, one) == getattr(settings, other):
            yield ((other,), (one,)), f"must differ from {one}: both are {getattr(settings, one)!r}"
    for name in ("stop_file_name", "lock_file_name"):
        if getattr(settings, name) in RESERVED_NAMES:
            text = f"{getattr(settings, name)!r} is a file of the state directory"
            yield ((name,),), f"{text} with its own meaning"
    for name in ("plan_file", "task_file"):
        if str(getattr(settings, name)) == settings.global_stop_file_name:
            text = f"must differ from {name}: both are {settings.global_stop_file_name!r}"
            yield (("global_stop_file_name",), (name,)), text
    if settings.plan_file == settings.task_file:
        text = f"must differ from task_file: both are {str(settings.plan_file)!r}"
        yield (("plan_file",), ("task_file",)), text


def _agents(settings: Settings) -> Iterator[Breach]:
    """Two adapters run what the person names, and need to be told."""
    roles = settings.roles
    named: dict[KeyPath, object] = {
        ("agent",): settings.agent,
        ("agents", "order"): settings.agents.order,
        ("roles", "planner"): roles.planner,
        ("roles", "executor"): roles.executor,
        ("roles", "reviewer"): roles.reviewer,
    }
    needs: dict[str, KeyPath] = {}
    if not settings.agent_command_template:
        needs["command"] = ("agent_command_template",)
    if not settings.agents.acp.command:
        needs["acp"] = ("agents", "acp", "command")
    for name in needs.keys() & settings.agent_names():
        for key, value in named.items():
            if value == name or (isinstance(value, tuple) and name in value):
                text = f'names the adapter "{name}", which needs {".".join(map(str, needs[name]))}'
                yield (key, needs[name]), text


def _entries(settings: Settings) -> Iterator[Breach]:
    paths: dict[str, int] = {}
    names: dict[str, int] = {}
    states: dict[str, int] = {}
    metrics: dict[str, int] = {}
    for index, entry in enumerate(settings.workspaces):
        key: KeyPath = ("workspaces", index)
        path = str(settings.entry_path(entry))
        if path in paths:
            text = f"is the same directory as that of workspaces[{paths[path]}]: {path}"
            yield ((*key, "path"),), text
        if entry.name and entry.name in names:
            text = f"is the same as that of workspaces[{names[entry.name]}]: {entry.name!r}"
            yield ((*key, "name"),), text
        state = _state_dir(settings, entry)
        if state in states and path not in paths:
            text = f"is the same directory as that of workspaces[{states[state]}]: {state}"
            yield ((*key, "state_dir"), ("state_dir",)), f"{text}; give each its own"
        template = str(settings.loop_values(entry).get("metrics_file", settings.metrics_file))
        if template in metrics and template and "{name}" not in template:
            text = f"would be that of workspaces[{metrics[template]}], too; put {{name}} into it"
            yield ((*key, "metrics_file"), ("metrics_file",)), text
        metrics.setdefault(template, index)
        states.setdefault(state, index)
        paths.setdefault(path, index)
        names.setdefault(entry.name, index)
        if entry.name and not _is_loop_name(entry.name):
            yield ((*key, "name"),), "must be printable, without / and not starting with - or ."


def _state_dir(settings: Settings, entry: WorkspaceEntry) -> str:
    given = str(settings.loop_values(entry).get("state_dir", settings.state_dir))
    place = os.path.join(settings.entry_path(entry), os.path.expanduser(given))
    return place if "\0" in place else os.path.realpath(place)


def _is_loop_name(name: str) -> bool:
    return name.isprintable() and "/" not in name and name[0] not in "-." and name == name.strip()
