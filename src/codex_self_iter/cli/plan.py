"""`plan check|show`: what is wrong with a plan, and how far it has come; `plan "TASK"`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator

from codex_self_iter.cli import _common, brief
from codex_self_iter.cli._terminal import Paint, width
from codex_self_iter.core.foreign import as_dict, as_text
from codex_self_iter.core.plan import Plan, parse_plan
from codex_self_iter.core.text import clean, counted, cut, shorten
from codex_self_iter.errors import ExitCode, UsageError
from codex_self_iter.screens.loops import ENVIRONMENT, Target, read_config, read_status
from codex_self_iter.screens.records import ticked_in
from codex_self_iter.views.plan_view import Line, lines
from codex_self_iter.world.guarded import read_guarded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from codex_self_iter.core.plan_lint import Remark

ACTIONS = ("check", "show")
MAX_BYTES = 4 * 1024 * 1024
"""Longest plan that a loop takes: `settings.paths.MAX_DOCUMENT_BYTES`, which costs too much here."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = (
        "check: say what is wrong with it; show: items, ticks and what is next (the default); "
        "a task in words, a file with one or -: have the agent make a plan"
    )
    parser.add_argument("action", nargs="?", default="show", metavar="check|show|TASK", help=what)
    what = "another file than the workspace's plan"
    parser.add_argument("file", nargs="?", metavar="FILE", help=what)
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    what = "with a task: take the plan as it comes, without asking"
    parser.add_argument("--yes", action="store_true", help=what)
    _common.add_loop_arguments(parser, name=False)


def run(args: argparse.Namespace) -> int:
    """Print; 2 when `check` finds a fault. Raises UsageError."""
    if args.action not in ACTIONS:
        return _have_one_made(args)
    _common.goes_with(args, False, "a task", "yes")
    named = args.loop or args.workspace or args.state_dir
    loop = None if args.file and not named else _common.find_loop(args)
    path = args.file or (_plan_file(loop) if loop else "")
    text = _read(path, loop)
    near = os.path.relpath(path)
    name = clean(path if near.startswith("..") else near)
    if args.action == "check":
        from codex_self_iter.core.plan_lint import lint

        gates = _has_gates(loop.workspace if loop else ".", args.config or "")
        if loop and os.path.dirname(path) == loop.state_dir:
            gates = gates or _finds_gates(loop.workspace)
        remarks = lint(text, gates=gates)
        return _say_remarks(name, parse_plan(text), remarks, args.json)
    rows = lines(parse_plan(text), ticked_in(loop.state_dir) if loop else {})
    if args.json:
        return _print(_as_json(name, rows))
    return _print("\n".join(_lines(name, rows, Paint(), width())))


def _have_one_made(args: argparse.Namespace) -> int:
    """The dialogue. Raises UsageError for a word that is neither an action, a file nor a task."""
    words = args.action
    if args.file or args.json:
        what = f"expected 'check' or 'show' after 'plan', or one task, not {brief(words)!r}"
        raise UsageError(what)
    one_word = words.isascii() and len(words.split()) == 1 and words != "-"
    if one_word and not os.path.isfile(words):
        from codex_self_iter.cli import nearest

        near = nearest(words, ACTIONS)
        hint = f" (did you mean {near!r}?)" if near else ""
        expected = "expected 'check', 'show', a file or a task in words after 'plan'"
        raise UsageError(f"{expected}, not {brief(words)!r}{hint}")
    from codex_self_iter.cli import _drafting

    return _drafting.run(args, words)


def _print(text: str) -> int:
    sys.stdout.write(text + "\n")
    return int(ExitCode.OK)


# -- which file ------------------------------------------------------------------------------------


def _plan_file(loop: Target) -> str:
    """The plan that the loop's last supervisor followed; without one, that of the configuration, or
    of a task in words."""
    told = as_text(as_dict(read_status(loop.state_dir).get("plan")).get("path"))
    given = os.environ.get(f"{ENVIRONMENT}PLAN_FILE", "")
    given = given or as_text(read_config(loop.workspace, loop.config).get("plan_file"))
    plan = os.path.join(loop.workspace, os.path.expanduser(given or "plan.md"))
    own = os.path.join(loop.state_dir, "plan.md")
    there = not given and not os.path.lexists(plan) and os.path.isfile(own)
    return told or (own if there else plan)


def _has_gates(workspace: str, config: str) -> bool:
    """Whether commands are configured that must succeed before a completion is believed."""
    verify = as_dict(read_config(workspace, config).get("verify"))
    return bool(verify.get("commands") or os.environ.get(f"{ENVIRONMENT}VERIFY__COMMANDS"))


def _finds_gates(workspace: str) -> bool:
    """Whether the repository has tests of its own, which prove a task in words."""
    from codex_self_iter.setup.detect import gate_commands  # imports much

    return bool(gate_commands(workspace, os.environ))


def _read(path: str, loop: Target | None) -> str:
    """The text of a plan. Raises UsageError."""
    try:
        data = read_guarded(path, MAX_BYTES + 1, follow=True)
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        init = "`codex-self-iter init` writes one, or name another file"
        mend = init if loop else "name another file"
        raise UsageError(f"plan file {path} does not exist; {mend}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"plan file {path} is not UTF-8 (line {line}); save it as UTF-8") from None
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"plan file {path} cannot be read ({why}); name a text file") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"plan file {path} is larger than {MAX_BYTES // 2**20} MiB; shorten it")
    return text


# -- check -----------------------------------------------------------------------------------------


def _say_remarks(name: str, plan: Plan, remarks: list[Remark], as_json: bool) -> int:
    faults = sum(one.fault for one in remarks)
    suggestions = len(remarks) - faults
    if as_json:
        value = {
            "schema": 1, "path": name, "items": plan.total, "faults": faults,
            "suggestions": suggestions, "findings": [
                {"line": one.line, "kind": _kind(one), "rule": one.rule, "what": one.what,
                 "mend": one.mend}
                for one in remarks
            ],
        }  # fmt: skip
        _print(json.dumps(value, ensure_ascii=False, indent=2))
    else:
        for one in remarks:
            text = f"{_kind(one)}: {one.what}; {one.mend} [{one.rule}]"
            _print(f"{name}:{one.line}: {clean(text)}")
        found = f"{counted(faults, 'fault')}, {counted(suggestions, 'suggestion')}"
        verdict = "is wrong" if faults else "can be used" if suggestions else "is good"
        _print(f"{name} {verdict}: {counted(plan.total, 'item')}, {found}")
    return int(ExitCode.USAGE if faults else ExitCode.OK)


def _kind(remark: Remark) -> str:
    return "fault" if remark.fault else "suggestion"


# -- show ------------------------------------------------------------------------------------------


def _as_json(name: str, rows: list[Line]) -> str:
    items = [
        {"line": row.item.line, "text": row.item.title, "level": row.level,
         "ticked": row.item.ticked, "next": row.next, "checks": row.item.checks,
         "since_iteration": row.since}
        for row in rows
    ]  # fmt: skip
    done = sum(row.item.ticked for row in rows)
    value = {"schema": 1, "path": name, "done": done, "total": len(rows), "items": items}
    return json.dumps(value, ensure_ascii=False, indent=2)


def _lines(name: str, rows: list[Line], paint: Paint, columns: int) -> Iterator[str]:
    done = sum(row.item.ticked for row in rows)
    yield paint(f"{name}: {done} of {counted(len(rows), 'item')} done", "bold")
    for row in rows:
        since = f"  iteration {row.since}" if row.since else ""
        indent = "  " * min(row.level, 8)
        head = f"{'>' if row.next else ' '} {indent}[{'x' if row.item.ticked else ' '}] "
        title = shorten(row.item.title, columns - len(head) - len(since))
        style = "dim" if row.item.ticked else "bold" if row.next else ""
        yield paint(f"{head}{title}", *filter(None, [style])) + paint(since, "dim")
        for check in row.item.checks:
            yield paint(cut(f"  {indent}    check: {check}", columns), "dim")
