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
from codex_self_iter.errors import UsageError
from codex_self_iter.settings.example import toml_value
from codex_self_iter.settings.load import CONFIG_NAME
from codex_self_iter.settings.templates import (
    HOW_AGENT,
    NO_AGENT,
    NO_GATE,
    NO_REPOSITORY,
    PLAN,
    TASK,
)
from codex_self_iter.setup.detect import Detected, detect


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
    files = {"TASK.md": TASK, "plan.md": PLAN, CONFIG_NAME: config_text(found)}
    places = {os.path.join(workspace, name): text for name, text in files.items()}
    lines = [_write(path, text, args.force) for path, text in places.items()]
    lines += _misplaced(workspace)
    sys.stdout.write("\n".join([*lines, "", *_next_steps(workspace, found)]) + "\n")
    return 0


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
    return "\n".join([*lines, f"commands = {toml_value(found.gates)}", ""])


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
        if os.path.lexists(path):
            moved = _free_name(path)
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


def _free_name(path: str) -> str:
    names = itertools.chain([f"{path}.bak"], (f"{path}.bak{n}" for n in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))


def _next_steps(workspace: str, found: Detected) -> list[str]:
    steps = ["Write down what is wanted in TASK.md, and the first steps in plan.md."]
    if not os.path.exists(os.path.join(workspace, ".git")):
        steps.append(f"`git init`, for {NO_REPOSITORY}.")
    steps.append(
        "Commit these files: what is not committed when a loop starts stays yours to commit."
    )
    if found.agents:
        places = "; ".join(f"{name}: {path}" for name, path in found.agents.items())
        steps.append(f"Agents found: {places}.")
    else:
        steps.append(f"{HOW_AGENT[0].upper()}{HOW_AGENT[1:]}: {NO_AGENT}.")
    if found.gates:
        steps.append(f"A completion must pass: {', '.join(found.gates)}.")
    else:
        steps.append(f"Name your tests under [verify] in {CONFIG_NAME}: {NO_GATE}.")
    here = os.path.samefile(workspace, os.getcwd())
    where = "" if here else f" --workspace {shlex.quote(workspace)}"
    steps += [f"{program_name()} {command}{where}" for command in ("doctor", "run")]
    return ["Next:", *(f"  {number}. {step}" for number, step in enumerate(steps, 1))]
