"""`init`: write TASK.md, plan.md and a configuration. Nothing that exists is overwritten."""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import sys
from collections.abc import Iterator

from codex_self_iter.cli._common import enclosing
from codex_self_iter.cli._program import program_name
from codex_self_iter.core.plan_lint import PLAN
from codex_self_iter.errors import UsageError
from codex_self_iter.settings import CONFIG_NAME, Settings, load, resolve_paths
from codex_self_iter.settings.example import toml_value
from codex_self_iter.settings.templates import (
    HOW_AGENT,
    NO_AGENT,
    NO_GATE,
    NO_REPOSITORY,
    TASK,
    unwritten,
)
from codex_self_iter.setup.detect import Detected, detect, text_of

_FILES = ("TASK.md", "plan.md")
_CACHES = (
    "~/.cache",
    "~/.npm",
    "~/.cargo/registry",
    "~/.m2/repository",
    "~/.gradle",
    "~/go/pkg/mod",
)
_WANTED = ("what is wanted in {0}", "the next steps in {1}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--workspace", metavar="DIR", help="the workspace (default: the current directory)")
    what = "write new files although they exist; the old ones are kept beside them as NAME.bak"
    add("--force", action="store_true", help=what)


def run(args: argparse.Namespace) -> int:
    """Write what is missing and say what to do next. Raises UsageError."""
    workspace = os.path.abspath(os.path.expanduser(args.workspace or "."))
    if not os.path.isdir(workspace):
        there = os.path.lexists(workspace)
        what = "is not a directory" if there else "does not exist; create it first"
        raise UsageError(f"workspace {workspace} {what}")
    found = detect(workspace, os.environ)
    kept = os.path.lexists(os.path.join(workspace, CONFIG_NAME)) and not args.force
    settings = _settings(workspace)
    named = (settings.task_file, settings.plan_file) if kept and settings else _FILES
    names = [str(name) for name in named]
    if settings and not args.force:
        paths = resolve_paths(settings)  # a task that was given in words, and its plan, are there
        both = zip((paths.task, paths.plan), names, strict=True)
        names = [str(path) if path.parent == paths.state_dir else name for path, name in both]
    files = {names[0]: TASK, names[1]: PLAN, CONFIG_NAME: config_text(found)}
    lines = [
        _write(os.path.join(workspace, os.path.expanduser(name)), text, args.force)
        for name, text in files.items()
    ]
    settings = settings if kept else _settings(workspace)
    lines += _misplaced(workspace)
    if settings and (paths := resolve_paths(settings)).in_words:
        lines.append(
            f"note     the loop here works on {paths.task}, unless --task-file names another"
        )
    steps = list(_next_steps(workspace, found, settings, names, kept=kept))
    shown = (f"  {number}. {step}" for number, step in enumerate(steps, 1))
    sys.stdout.write("\n".join([*lines, "", "Next:", *shown]) + "\n")
    return 0


def _settings(workspace: str) -> Settings | None:
    """What the configuration that lies there says, if any; None when it is not valid."""
    given, file = {"workspace": workspace}, os.path.join(workspace, CONFIG_NAME)
    named = file if os.path.lexists(file) else None
    try:
        loaded = load(given, config_file=named, environ=os.environ, cwd=os.getcwd())
    except UsageError:
        return None
    return loaded.loops()[0]


def _misplaced(workspace: str) -> Iterator[str]:
    """What to know of a directory that is only a part of something."""
    above, top = enclosing(workspace)
    if above:
        yield f"note     the workspace of a loop is around it: did you mean {above}?"
    elif top:
        yield f"note     this is not the top of its git repository, which is {top}"


def config_text(found: Detected) -> str:
    """The configuration for what was detected."""
    lines = [
        "# `codex-self-iter config show --example` prints every key with its default.",
        "",
        *_agent_lines(found),
        "",
        "[verify]",
        "# Commands that must all exit 0 before a completion is believed.",
    ]
    if not found.gates:
        lines += ["# None was recognised: name yours, or a completion is believed without proof."]
    return "\n".join([*lines, f"commands = {toml_value(found.gates)}", "", *_fence_lines(), ""])


def _fence_lines() -> list[str]:
    """A fence as it could be, where this machine can build one."""
    from codex_self_iter.core.fence import choose
    from codex_self_iter.world.process.fence_machine import look  # starts programs

    if choose(look(), "auto", offline=False, state_inside=True).means is None:
        return []
    there = [path for path in _CACHES if os.path.isdir(os.path.expanduser(path))]
    return [
        "# This machine can keep an agent to this directory and its own home. The caches of its tools have to",
        "# be named, and to be there; you use them, too. See docs/security.md.",
        "# [fence]",
        '# level = "write"',
        f"# allow_write = {toml_value(there or ['~/.cache'])}",
    ]


def _agent_lines(found: Detected) -> list[str]:
    if found.agents:
        first = toml_value(next(iter(found.agents)))
        return [f"# Installed here: {', '.join(found.agents)}.", f"agent = {first}"]
    return [
        "# No known agent was found on this machine. With one installed, or with agent_command_template set,",
        '# "auto" takes it; "plan-shell" works through the shell commands of plan.md by itself.',
        'agent = "auto"',
    ]


def _write(path: str, text: str, force: bool) -> str:
    """Create one private file. What is there stays, or with `force` is moved aside, never lost."""
    moved = ""
    if os.path.lexists(path) and not force:
        return f"kept     {path}{_odd(path)}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path):
            moved = free_name(path)
            os.rename(path, moved)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return f"kept     {path}"
    except OSError as error:
        what = f"{path} cannot be written ({error.strerror}); mend its permissions"
        raise UsageError(what) from None
    old = f" (the old one is now {os.path.basename(moved)})" if moved else ""
    return f"wrote    {path}{old}"


def _odd(path: str) -> str:
    """Why what was kept cannot be used, or ""."""
    if not os.path.exists(path):
        return " (a link to nothing: remove it, or make what it names)"
    return "" if os.path.isfile(path) else " (it is no file: move it away, and init writes one)"


def free_name(path: str) -> str:
    """PATH.bak, or the first PATH.bakN that is free."""
    names = itertools.chain([f"{path}.bak"], (f"{path}.bak{n}" for n in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))


def _next_steps(
    workspace: str, found: Detected, settings: Settings | None, names: list[str], *, kept: bool
) -> Iterator[str]:
    here = os.path.samefile(workspace, os.getcwd())
    where = "" if here else f" --workspace {shlex.quote(workspace)}"
    wanted = [
        text
        for what, name, text in zip(("task", "plan"), names, _WANTED, strict=True)
        if not (said := text_of(workspace, os.path.expanduser(name))).strip()
        or unwritten(what, name, said)
    ]
    if wanted:
        yield f"Write down {', and '.join(wanted).format(*names)}."
    if not os.path.exists(os.path.join(workspace, ".git")):
        yield f"`git init`, for {NO_REPOSITORY}."
    yield "Commit these files: what is not committed when a loop starts stays yours to commit."
    if settings is None:
        check = f"{program_name()} config check{where}"
        yield f"Mend {CONFIG_NAME}, which was there and is not valid: `{check}` says what is wrong."
    else:
        yield _agent_step(found, settings, kept=kept)
        yield _gate_step(found, settings)
        if settings.fence.level == "none" and not kept and _fence_lines():
            yield f"A fence around the agent can be built here: [fence] in {CONFIG_NAME}."
    yield from (f"{program_name()} {command}{where}" for command in ("doctor", "run"))


def _agent_step(found: Detected, settings: Settings, *, kept: bool) -> str:
    from codex_self_iter.supervisor.configured import configure  # imports much

    if found.agents and not kept:
        places = "; ".join(f"{name}: {path}" for name, path in found.agents.items())
        return f"Agents found: {places}."
    try:
        policy = configure(settings, resolve_paths(settings), os.environ).policy
    except UsageError as error:
        if str(error).startswith(NO_AGENT):
            return f"{HOW_AGENT[0].upper()}{HOW_AGENT[1:]}: {NO_AGENT}."
        return f"Mend what stands in {CONFIG_NAME}: {error}."
    names = dict.fromkeys(one.name for role in policy.roles for one in policy.agents[role])
    return f"Agents of {CONFIG_NAME}: {', '.join(names)}."


def _gate_step(found: Detected, settings: Settings) -> str:
    if settings.verify.commands:
        return f"A completion must pass: {', '.join(settings.verify.commands)}."
    some = f" (found here: {', '.join(found.gates)})" if found.gates else ""
    return f"Name your tests under [verify] in {CONFIG_NAME}{some}: {NO_GATE}."
