"""What agents cannot do here although they run, or spoil by running as they do, and commands that
cannot work here, said at the start and by `doctor`; and what a run was not allowed to do, said when
it has ended."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from codex_self_iter.agents.base import Agent, AgentMissingError
from codex_self_iter.agents.cli_agent import CliAgent
from codex_self_iter.agents.codex import git_directories
from codex_self_iter.agents.pricing import price_of
from codex_self_iter.agents.probe import ask
from codex_self_iter.core.agent_report import AgentReport
from codex_self_iter.core.shell import bashism, first_program, with_bash
from codex_self_iter.settings import Settings, resolve_paths
from codex_self_iter.settings.idle import idle
from codex_self_iter.settings.templates import untouched
from codex_self_iter.supervisor import gate_globs
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.guarded import stat_or_none

OWNER = "workspace.owner"
REFUSED = "refused"
_TOKENS = ("max_tokens", "max_tokens_per_day")
_SHOWN = 5
"""Refused calls that a warning names; the journal has all of them."""


class Shortfall(NamedTuple):
    """One thing that will not be as configured; `key` as in `doctor`."""

    key: str
    what: str
    mend: str


def shortfalls(
    settings: Settings, agents: Iterable[Agent], environ: Mapping[str, str]
) -> Iterator[Shortfall]:
    """Everything that can be told of the agents that are in use before the first run."""
    workspace = stat_or_none(str(resolve_paths(settings).workspace))
    if workspace is not None and workspace.st_uid != 0 == os.geteuid():
        owner = workspace.st_uid
        what = (
            f"this runs as root in a workspace of user {owner}: what it makes there, objects of git "
            "too, that user cannot change"
        )
        mend = f"run it as that user (sudo -u '#{owner}' …, docker run --user {owner})"
        yield Shortfall(OWNER, what, mend)
    roles = settings.mode == "roles"
    for agent in agents:
        name = agent.name
        if isinstance(agent, CliAgent):
            try:
                agent.find(environ)
            except AgentMissingError:
                continue
            what, mend = agent.lacking(environ)
            if what:
                yield Shortfall(f"agent.{name}.sandbox", what, mend)
        hints = [settings.planner_model_hint, settings.reviewer_model_hint] if roles else []
        models = dict.fromkeys(
            (getattr(settings.agents.get(name), "model", ""), *filter(None, hints))
        )
        yield from [lost for model in models if (lost := unpriced(settings, agent, model))][:1]


def unpriced(
    settings: Settings, agent: Agent, model: str, *, seen: bool = False
) -> Shortfall | None:
    """Whether a bound of money, or of tokens, cannot be kept for this agent and model ("": its own
    choice); `seen`: a run's cost was not known."""
    blind = agent.name == "command"  # every other agent tells its tokens, or uses none
    keys = ("max_cost_usd", "max_cost_usd_per_day") + _TOKENS * blind
    bounds = [key for key in keys if getattr(settings.budget, key)]
    if not bounds:
        return None
    what = f"[budget] {' and '.join(bounds)} cannot be kept for {agent.name}: "
    if blind:
        what += "a template tells neither tokens nor cost"
        return Shortfall(f"budget.{agent.name}", what, "bound it by max_hours")
    if not isinstance(agent, CliAgent) or agent.tells_cost:
        return None
    known = price_of(model, agent.config.prices) if model else settings.prices
    if known and not seen:
        return None
    what += f'[prices."{model}"] is missing' if model else "[prices] lacks its model"
    return Shortfall(f"budget.{agent.name}", what, "add the price of its model, or set max_tokens")


def without_effect(settings: Settings) -> list[str]:
    """What to say of keys that do nothing as things are here. Blocks a little."""
    workspace = resolve_paths(settings).workspace
    found = list(idle(settings, repository=bool(git_directories(str(workspace)))))
    if none := gate_globs.without_file(str(workspace), tuple(settings.verify.gate_files)):
        found.append(f"verify.gate_files: {none}")
    return found


# -- commands --------------------------------------------------------------------------------------


def unusable_gates(
    settings: Settings, workspace: str, environ: Mapping[str, str]
) -> Iterator[Shortfall]:
    """Gates that cannot succeed as things are here. Blocks while /bin/sh answers."""
    for number, command in enumerate(settings.verify.commands, 1):
        if lost := _unusable_gate(command, workspace, environ):
            yield Shortfall(f"gate.{number}", *lost)


def _unusable_gate(
    command: str, workspace: str, environ: Mapping[str, str]
) -> tuple[str, str] | None:
    """What is wrong with a gate and how it is mended."""
    plain = {**environ, "LC_ALL": "C"}
    if (words := bashism(command)) and ask(["/bin/sh", "-c", "[[ x ]]"], plain)[0] != 0:
        what = f"{words} in the gate {command!r} is bash's, and /bin/sh is no bash here"
        return what, with_bash(command)
    code, said = ask(["/bin/sh", "-n", "-c", command], plain)
    if code != 0:
        return f"{command!r} is no shell command ({said})", "mend [verify] commands"
    return _lacking(first_program(command), f"the gate {command!r}", workspace, environ)


def unusable_notify(
    settings: Settings, workspace: str, environ: Mapping[str, str]
) -> Shortfall | None:
    """The `[notify] command`, when its program cannot be started."""
    program = next(iter(settings.notify.command), "")
    lost = _lacking(program, "[notify] command", workspace, environ)
    return Shortfall("notify", *lost) if lost else None


def _lacking(
    program: str, whose: str, workspace: str, environ: Mapping[str, str]
) -> tuple[str, str] | None:
    if not program or found(program, environ, workspace):
        return None
    path = os.path.join(workspace, program)
    if "/" in program and os.path.isfile(path):
        what = f"the program {program!r} of {whose} is not executable"
        return what, f"chmod +x {shlex.quote(path)}"
    return f"the program {program!r} of {whose} is not there", f"install {program}"


def found(program: str, environ: Mapping[str, str], *places: str) -> str:
    """Path of a program, found as a run in the workspace finds it; "" for none. A relative path is
    looked for below each of `places`."""
    if "/" in program:
        paths = (os.path.join(place, program) for place in places)
        return next(
            (path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), ""
        )
    return shutil.which(program, path=environ.get("PATH") or os.defpath) or ""


async def tell_commands(ctx: Context) -> None:
    """Warn of commands that cannot work here, for as long as it is so."""
    about = ctx.settings, str(ctx.paths.workspace), ctx.shared.environ

    def look() -> list[Shortfall]:
        lost = unusable_notify(*about)
        return [*unusable_gates(*about), *([lost] if lost else [])]

    lost = await ctx.shared.in_thread(look)
    text = "; ".join(f"{one.what} ({one.mend})" for one in lost)
    ctx.warnings.tell("commands", text) if lost else ctx.warnings.clear("commands")


# -- telling ---------------------------------------------------------------------------------------


def tell_start(ctx: Context) -> None:
    """Warn of what these settings and this machine cannot do, and of nothing that is mended."""
    git = bool(git_directories(str(ctx.paths.workspace)))
    for text in idle(ctx.settings, repository=git):
        ctx.log.warning("config.without_effect", text=text)
    policy = ctx.policy
    used = dict.fromkeys(one.name for role in policy.roles for one in policy.agents[role])
    agents = [ctx.agents[name] for name in used]
    found = {lost.key: lost for lost in shortfalls(ctx.settings, agents, ctx.shared.environ)}
    keys = [key.format(name) for name in ctx.agents for key in ("agent.{}.sandbox", "budget.{}")]
    for key in (OWNER, *keys):
        ctx.warnings.clear(key) if key not in found else _tell(ctx, found[key])
    for document in ctx.documents:
        if what := untouched(document.path, document.text):
            ctx.warnings.tell(f"{document.what} untouched", what)


def _tell(ctx: Context, lost: Shortfall) -> None:
    ctx.warnings.tell(lost.key, f"{lost.what}; {lost.mend}")


def tell_run(ctx: Context, name: str, report: AgentReport) -> None:
    """Warn of what a run that has ended was refused, and of a cost that nobody knows."""
    before = ctx.state.open.refused if ctx.state.open else ()
    tell_refused(ctx, name, tuple(dict.fromkeys((*before, *report.refused))), report.answered)
    usage = report.usage
    if usage is not None and usage.cost_usd is None and usage.total_tokens:
        lost = unpriced(ctx.settings, ctx.agents[name], report.model, seen=True)
        if lost is not None:
            _tell(ctx, lost)


def tell_refused(ctx: Context, name: str, refused: Sequence[str], answered: bool = True) -> None:
    """Warn of what the last iteration's agent was not allowed to do; an iteration that was answered
    without any ends the warning."""
    if refused:
        more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        ctx.warnings.tell(
            REFUSED,
            f"{name} was not allowed to use: {'; '.join(refused[:_SHOWN])}{more}. Take a way that "
            "needs no such call; if there is none, say in the answer what a person has to allow",
            agent=True,
        )
    elif answered:
        ctx.warnings.clear(REFUSED)
