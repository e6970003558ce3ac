"""Keys that are set and do nothing as the others are: said, because somebody hopes for something."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from codex_self_iter.settings.agent_tables import CliSettings, CommandSettings
from codex_self_iter.settings.keys import dotted
from codex_self_iter.settings.model import Settings
from codex_self_iter.settings.schema import TEXTS

_ROLES = (
    "roles.planner", "roles.executor", "roles.reviewer", "planner_model_hint",
    "reviewer_model_hint", "continue_false_backoff_sec", "planner_stop_backoff_sec",
    *(f"prompt.{role}.{key}" for role in ("planner", "reviewer") for key in TEXTS),
)  # fmt: skip
MOMENTS = frozenset(("on_start", "before_iteration", "after_iteration", "on_wait", "on_end"))
"""Keys of `[hooks]` that are commands."""
_CHECKPOINTS = ("git.checkpoint_keep", "git.checkpoint_keep_days", "git.checkpoint_max_file_mb")


def idle(settings: Settings, *, repository: bool) -> Iterator[str]:
    """What to say of every key that has another value than the default and no effect.

    `repository`: whether the workspace is in a git repository."""
    values, defaults = _by_key(settings), _by_key(Settings())
    for key, why in _unused(settings, repository):
        if values[key] != defaults[key]:
            yield f"{key} does nothing: {why}"


def _by_key(settings: Settings) -> dict[str, Any]:
    return {dotted(path): value for path, value in settings.leaves()}


def _unused(settings: Settings, repository: bool) -> Iterator[tuple[str, str]]:
    """Keys without an effect, and why; whether they are set is not asked here."""
    git, verify, notify = settings.git, settings.verify, settings.notify
    if settings.mode == "goal":
        yield from ((key, 'mode = "goal" has no roles') for key in _ROLES)
    if not verify.commands:
        keys = ("verify.timeout_sec", "verify.pass_env") * (not verify.item_checks)
        for key in (*keys, "verify.every_iteration", "verify.at_start"):
            yield key, "there are no [verify] commands"
    hooks = dict(settings.hooks)
    if not any(hooks[moment] for moment in MOMENTS):
        yield from ((f"hooks.{key}", "there are no [hooks]") for key in hooks.keys() - MOMENTS)
    if not repository:
        keys = ("git.commit", "git.no_verify", "git.timeout_sec", *_CHECKPOINTS)
        yield from ((key, "the workspace is in no git repository") for key in keys)
    elif git.commit != "supervisor":
        yield "git.no_verify", 'only git.commit = "supervisor" has hooks to skip'
    if repository and not git.checkpoints:
        yield from ((key, "git.checkpoints is false") for key in _CHECKPOINTS)
    if settings.lanes.max == 1:
        yield from (
            (f"lanes.{key}", "lanes.max is 1: there are no lanes")
            for key, _ in settings.lanes
            if key != "max"
        )
    elif not settings.lanes.setup:
        yield "lanes.setup_timeout_sec", "there is no [lanes] setup"
    sent = bool(notify.urls or notify.targets)
    if not (notify.command or sent):
        keys = ("events", "quiet", "zone", "page", "digest_at")
        yield from (
            (f"notify.{key}", "there is no [notify] command, url or target") for key in keys
        )
    elif not notify.events:
        yield from ((f"notify.{key}", "[notify] events names none") for key in ("command", "urls"))
    if notify.command and not sent:
        yield from ((f"notify.{key}", "only a command is told") for key in ("quiet", "page"))
    heard = {*notify.events}.union(*(target.events for target in notify.targets))
    if (notify.command or sent) and "digest" not in heard:
        yield "notify.digest_at", "no events name the digest"
    if not (notify.quiet or notify.digest_at):
        yield "notify.zone", "there are no quiet hours, and no digest"
    bounds = (value for key, value in settings.budget if key != "notice_at")
    if not any(bounds):
        yield "budget.notice_at", "there is no bound in [budget]"
    if settings.service.on_stop == "end":
        yield "service.finish_timeout_sec", 'service.on_stop is "end"'
    if settings.agent not in ("auto", "command") and "command" not in settings.agent_names():
        yield "agent_command_template", f'agent = "{settings.agent}", and nothing names "command"'
    yield from _fences(settings)
    for name, table in settings.agents:
        if isinstance(table, CliSettings) and not table.resume:
            for key in ("resume_max_turns", "resume_max_tokens", "resume_max_hours"):
                yield f"agents.{name}.{key}", f"agents.{name}.resume is false"


def _fences(settings: Settings) -> Iterator[tuple[str, str]]:
    """What a level of the fence does not look at."""
    tables = [table for _, table in settings.agents if isinstance(table, CommandSettings)]
    levels = {settings.fence.level, *(table.fence.level for table in tables)}
    if not levels & {"write", "container"}:
        keys = (key for key, _ in settings.fence if key != "level")
        yield from ((f"fence.{key}", 'there is no fence: level is "none"') for key in keys)
        return
    if "write" not in levels:
        yield "fence.by", 'only level "write" is made by these'
    if "container" not in levels:
        yield from (
            (f"fence.{key}", 'only level "container" has it') for key in ("image", "engine")
        )
