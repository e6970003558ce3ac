"""What agents cannot do here although they run, or spoil by running as they do, and commands that
cannot work here, said at the start and by `doctor`; and what a run was not allowed to do, said when
it has ended."""

from __future__ import annotations

import os
import re
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
from codex_self_iter.core.foreign import as_dict, as_list, as_text
from codex_self_iter.core.shell import (
    bashism,
    first_program,
    hollow,
    later_programs,
    piped,
    with_bash,
)
from codex_self_iter.core.text import counted
from codex_self_iter.settings import Settings, resolve_paths
from codex_self_iter.settings.idle import MOMENTS, idle
from codex_self_iter.settings.templates import unwritten
from codex_self_iter.supervisor import gate_globs
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world import mounts, registry
from codex_self_iter.world.guarded import read_object, stat_or_none
from codex_self_iter.world.state import holder

OWNER = "workspace.owner"
NETWORK = "workspace.network"
NEIGHBOUR = "workspace.neighbour"
REFUSED = "refused"
_SHELL = re.compile(r"(?:/(?:usr/)?bin/)?(?:ba|da|z)?sh")
_TOKENS = ("max_tokens", "max_tokens_per_day")
_COSTS = ("max_cost_usd", "max_cost_usd_per_day")
_SHOWN = 5
_MOST_LANES = 64 * 1024 * 1024
"""Refused calls that a warning names; the journal has all of them."""


class Shortfall(NamedTuple):
    """One thing that will not be as configured; `key` as in `doctor`. `sure`: it will not work at
    all."""

    key: str
    what: str
    mend: str
    sure: bool = True


def shortfalls(
    settings: Settings, agents: Iterable[Agent], environ: Mapping[str, str]
) -> Iterator[Shortfall]:
    """Everything that can be told of the agents that are in use before the first run."""
    paths = resolve_paths(settings)
    kind = mounts.file_system(str(paths.workspace))
    if kind in mounts.NETWORK:
        what = (
            f"the workspace is on a file system of another machine ({kind}): what changes there is "
            "seen late, and its locks may not keep two supervisors apart"
        )
        yield Shortfall(NETWORK, what, "work in a clone on a disk of this machine")
    workspace = stat_or_none(str(paths.workspace))
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
    if isinstance(agent, CliAgent):
        tells_tokens, tells_cost = agent.tells_tokens, agent.tells_cost
    elif agent.name == "command":
        tells_tokens = tells_cost = False
    else:
        return None  # it uses none
    keys = _TOKENS * (not tells_tokens) + _COSTS * (not tells_cost)
    bounds = [key for key in (*_COSTS, *_TOKENS) if key in keys and getattr(settings.budget, key)]
    if not bounds:
        return None
    what = f"[budget] {' and '.join(bounds)} cannot be kept for {agent.name}: "
    if not tells_tokens:
        who = "a template" if agent.name == "command" else "it"
        what += f"{who} tells {'no tokens' if tells_cost else 'neither tokens nor cost'}"
        mend = f"bound it by {'max_cost_usd or ' * tells_cost}max_hours"
        return Shortfall(f"budget.{agent.name}", what, mend)
    assert isinstance(agent, CliAgent)
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
        found.append(f"[verify] gate_files: {none}")
    return found


# -- commands --------------------------------------------------------------------------------------


def gate_flaws(
    settings: Settings, workspace: str, environ: Mapping[str, str]
) -> Iterator[Shortfall]:
    """Gates that cannot succeed as things are here, or that prove nothing. Blocks while /bin/sh
    answers."""
    for number, command in enumerate(settings.verify.commands, 1):
        flaws = _gate_flaws(command, workspace, environ)
        yield from _worst(f"gate.{number}", flaws)


def hook_flaws(
    settings: Settings, workspace: str, environ: Mapping[str, str]
) -> Iterator[Shortfall]:
    """Hooks that cannot succeed as things are here. Blocks while /bin/sh answers."""
    for moment in sorted(MOMENTS):
        for number, command in enumerate(getattr(settings.hooks, moment), 1):
            whose, where = f"the {moment} hook {command!r}", f"[hooks] {moment}"
            flaws = _shell_flaws(command, whose, where, workspace, environ)
            key = f"hook.{moment}.{number}"
            yield from _worst(key, flaws)


def _worst(key: str, flaws: Iterable[tuple[str, str, bool]]) -> Iterator[Shortfall]:
    """The flaw of a command that is told: one that is sure, if there is one."""
    found = sorted(flaws, key=lambda flaw: not flaw[2])[:1]
    return (Shortfall(key, *flaw) for flaw in found)


def _gate_flaws(
    command: str, workspace: str, environ: Mapping[str, str]
) -> Iterator[tuple[str, str, bool]]:
    """What is wrong with a gate, how it is mended, and whether it surely is."""
    whose = f"the gate {command!r}"
    yield from _shell_flaws(command, whose, "[verify] commands", workspace, environ)
    if hollow(command):
        what = f"{whose} succeeds whatever is wrong: it proves nothing"
        yield what, "name a command that fails while the work is not done", False
    elif piped(command):
        what = f"the exit code of {whose} is that of its last part, whatever failed before"
        yield what, with_bash(f"set -o pipefail; {command}"), False


def _shell_flaws(
    command: str, whose: str, where: str, workspace: str, environ: Mapping[str, str]
) -> Iterator[tuple[str, str, bool]]:
    """Why a command for /bin/sh, which is configured in `where`, cannot work."""
    environ = {**environ, "LC_ALL": "C"}
    used = bashism(command)
    if used and ask(["/bin/sh", "-c", used.probe], environ)[0] != 0:
        what = f"{used.words} in {whose} is bash's, and /bin/sh is no bash here"
        yield what, with_bash(command), used.sure
    code, said = ask(["/bin/sh", "-n", "-c", command], environ)
    if code != 0:
        yield f"{command!r} is no shell command ({said})", f"mend {where}", True
    elif lost := _lacking(first_program(command), whose, workspace, environ):
        yield *lost, True
    for program in later_programs(command):
        if lost := _lacking(program, whose, workspace, environ):
            yield *lost, False


def notify_flaw(settings: Settings, workspace: str, environ: Mapping[str, str]) -> Shortfall | None:
    """Why the `[notify] command` cannot be started."""
    whose, command = "[notify] command", settings.notify.command
    lost = _lacking(next(iter(command), ""), whose, workspace, environ, by_shell=False)
    if not lost and len(command) > 2 and _SHELL.fullmatch(command[0]) and command[1] == "-c":
        lost = _lacking(first_program(command[2]), whose, workspace, environ)
    return Shortfall("notify", *lost) if lost else None


def _lacking(
    program: str, whose: str, workspace: str, environ: Mapping[str, str], *, by_shell: bool = True
) -> tuple[str, str] | None:
    """Why a program cannot be started, and how that is mended. `by_shell`: a shell starts it, which
    has words of its own and reads a script without a first line."""
    if not program:
        return None
    path = found(program, environ, workspace)
    known = ["/bin/sh", "-c", 'command -v "$0"', program]
    if not path and by_shell and "/" not in program and ask(known, environ)[0] == 0:
        return None
    named = f"the program {program!r} of {whose}"
    if path:
        why, mend = unstartable(path, by_shell)
        return (f"{named} {why}", mend) if why else None
    path = os.path.join(workspace, program)
    if "/" not in program or not os.path.isfile(path):
        return f"{named} is not there", f"install {program}"
    if os.stat(path).st_mode & 0o111 and os.statvfs(path).f_flag & getattr(os, "ST_NOEXEC", 0):
        return f"{named} is on a file system without execution (noexec)", f"sh {shlex.quote(path)}"
    return f"{named} is not executable", f"chmod +x {shlex.quote(path)}"


def unstartable(path: str, by_shell: bool) -> tuple[str, str]:
    """Why an executable file cannot be started after all, and how it is mended; "" twice if it can."""
    quoted = shlex.quote(path)
    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError:
        return "", ""  # it may be run and not be read
    if head[:2] != b"#!":
        if by_shell or b"\0" in head:
            return "", ""
        return "has no first line that names its interpreter", f"begin {quoted} with #!/bin/sh"
    line = head[2:].partition(b"\n")[0]
    if line.endswith(b"\r"):
        return "has Windows line ends: its interpreter is not found", f"sed -i 's/\\r$//' {quoted}"
    interpreter = os.fsdecode((line.split() or [b""])[0])
    if interpreter and not os.path.exists(interpreter):
        return f"asks for {interpreter}, which is not there", f"mend its first line: {quoted}"
    return "", ""


def found(program: str, environ: Mapping[str, str], workspace: str) -> str:
    """Path of a program, found as a run in the workspace finds it; "" for none."""
    if "/" in program:
        path = os.path.join(workspace, program)
        return path if os.path.isfile(path) and os.access(path, os.X_OK) else ""
    return shutil.which(program, path=environ.get("PATH") or os.defpath) or ""


def command_flaws(
    settings: Settings, workspace: str, environ: Mapping[str, str]
) -> list[Shortfall]:
    """The flaws of gates, hooks and notify together."""
    lost = notify_flaw(settings, workspace, environ)
    gates, hooks = (find(settings, workspace, environ) for find in (gate_flaws, hook_flaws))
    return [*gates, *hooks, *([lost] if lost else [])]


async def tell_commands(ctx: Context) -> None:
    """Warn of commands that cannot work here, for as long as it is so. What is only doubtful may be
    meant: `doctor` and `config check` say it."""
    about = ctx.settings, str(ctx.paths.workspace), ctx.shared.environ
    lost = [one for one in await ctx.shared.in_thread(command_flaws, *about) if one.sure]
    text = "; ".join(f"{one.what} ({one.mend})" for one in lost)
    ctx.warnings.tell("commands", text) if lost else ctx.warnings.clear("commands")


async def tell_neighbours(ctx: Context) -> None:
    """Warn of other loops that are at work in a directory around this workspace, or in it."""
    workspace, state_dir = str(ctx.paths.workspace), str(ctx.paths.state_dir)
    near = await ctx.shared.in_thread(_neighbours, workspace, state_dir)
    what = "what one changes counts for both; give one a work tree of its own (git worktree add)"
    text = f"another loop is at work on the same files ({', '.join(near)}): {what}"
    ctx.warnings.tell(NEIGHBOUR, text) if near else ctx.warnings.clear(NEIGHBOUR)


def _neighbours(workspace: str, state_dir: str) -> list[str]:
    """Workspaces of living loops that have files in common with this one."""
    found = []
    for other in registry.entries(clean=False):
        there = os.path.realpath(other.workspace)
        nested = os.path.commonpath([there, workspace]) in (there, workspace)
        if nested and other.state_dir != state_dir and holder.probe(other.state_dir):
            one_repository = git_directories(there) == git_directories(workspace)
            found += [other.workspace] if one_repository else []
    return found


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
    for key in (NETWORK, OWNER, *keys):
        ctx.warnings.clear(key) if key not in found else _tell(ctx, found[key])
    for document in ctx.documents:
        what = unwritten(document.what, document.path, document.text)
        if what and stat_or_none(document.path):
            ctx.warnings.tell(f"{document.what} unwritten", what)
    if resting := _resting_lanes(ctx):
        what = f"lanes of an earlier start hold work on {counted(resting, 'item')}"
        mend = "`run --lanes` goes on with it, `lanes` shows it; this start works on the whole plan"
        ctx.warnings.tell("lanes", f"{what}; {mend}")


def _resting_lanes(ctx: Context) -> int:
    """How many lanes of an earlier start are not over, where this one has none."""
    path = f"{ctx.store.path}/lanes.json"
    if ctx.settings.lanes.max > 1 or stat_or_none(path) is None:
        return 0
    known = as_list((read_object(path, _MOST_LANES) or {}).get("lanes"))
    over = {"", "landed", "lost", "dropped"}
    return sum(as_text(as_dict(one).get("state")) not in over for one in known)


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
