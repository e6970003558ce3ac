"""`show N`: everything about one iteration."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from codex_self_iter.cli import _common
from codex_self_iter.cli._terminal import Paint
from codex_self_iter.core.evidence import gate_before, gate_end
from codex_self_iter.core.foreign import as_dict, as_list, as_number, as_words
from codex_self_iter.core.text import clean, clean_block, epoch, moment, shorten, took
from codex_self_iter.errors import ExitCode, UsageError
from codex_self_iter.screens import records
from codex_self_iter.screens.loops import Target
from codex_self_iter.screens.outputs import agent_runs, prompts
from codex_self_iter.views.timeline import Record, spent
from codex_self_iter.world.git import labels
from codex_self_iter.world.guarded import read_guarded

MAX_TEXT = 4000
"""Characters of prompt, answer and gate output without --full; half of it of what was reported."""
MAX_FULL = 4_000_000
MAX_PROMPT_BYTES = 64 * 1024 * 1024
FIELDS = (
    "goal_in", "summary", "unproven", "reason", "error", "next_goal", "evidence", "notes", "refused",
    "messages", "events",
)  # fmt: skip
GIT_TIMEOUT_SEC = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _common.add_iteration_arguments(parser)
    add("--full", action="store_true", help="everything without a bound")
    add("--json", action="store_true", help="the journal's line, with the paths of the files")
    add(
        "--prompt",
        nargs="?",
        const="",
        metavar="RUN",
        help="its prompt alone, byte for byte; of several runs, name one (planner, executor-2)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the iteration, or its prompt. Raises UsageError for what is not there."""
    if args.prompt is not None and (args.json or args.full):
        raise UsageError("--prompt goes with neither --json nor --full")
    if args.prompt and args.prompt.isdigit():  # `show --prompt 3`
        args.what, args.prompt = [*args.what, args.prompt], ""
    iteration = _common.iteration_word(args)
    loop = _common.find_loop(args)
    if args.prompt is not None:
        sys.stdout.flush()
        sys.stdout.buffer.write(_sent(loop, iteration, args.prompt))
        return int(ExitCode.OK)
    record = records.find(loop.state_dir, iteration)
    if args.json:
        number = record["iteration"]
        value = {**record, "prompt_files": prompts(loop.state_dir, number)}
        value |= {"run_directories": agent_runs(loop.state_dir, number)}
        sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    else:
        stat = _diff_stat(loop.workspace, record)
        for line in _lines(loop, record, stat, MAX_FULL if args.full else MAX_TEXT, Paint()):
            sys.stdout.write(line + "\n")
    return int(ExitCode.OK)


def _sent(loop: Target, iteration: int | None, run: str) -> bytes:
    """A prompt as it is kept; also of an iteration that is on. Raises UsageError."""
    number = records.find(loop.state_dir, None)["iteration"] if iteration is None else iteration
    files = prompts(loop.state_dir, number)
    kept = {os.path.basename(path)[7:].removesuffix(".md"): path for path in files}
    if not kept:
        records.find(loop.state_dir, number)  # there was no such iteration
        raise UsageError(
            f"the prompt of iteration {number} is not kept any more; [output] keep_runs, keep_days "
            "and max_state_mb say what is"
        )
    if run not in kept and (run or len(kept) > 1):
        what = f"no prompt {run!r}" if run else "several prompts"
        raise UsageError(
            f"iteration {number} has {what}; name one: show {number} --prompt {' | '.join(kept)}"
        )
    path = kept[run] if run else files[0]
    try:
        return read_guarded(path, MAX_PROMPT_BYTES)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None


def _lines(loop: Target, record: Record, stat: str, bound: int, paint: Paint) -> Iterator[str]:
    verdict = clean(str(record.get("verdict") or "?"), 40)
    lasted = took(as_number(record.get("duration_sec")))
    at = epoch(record.get("ts"))
    when = clean(str(record.get("ts") or "")) if at is None else moment(at)
    yield paint(f"Iteration {record['iteration']}: {verdict}, {lasted}, {when}", "bold")
    for key in FIELDS:
        yield from _field(key.replace("_in", "").replace("_", " "), record.get(key), paint, bound)
    yield from _field("wait", _wait(record), paint)
    yield from _field("not kept", record.get("keep_error"), paint)
    yield from _field("owed", _owed(record), paint)
    yield from _field("agent", _agents(record), paint)
    yield from _field("usage", ", ".join(filter(None, spent(record))), paint)
    for gate in as_list(record.get("gates")):
        if isinstance(gate, dict):
            yield from _gate(gate, bound, paint)
    if stat:  # git's own summary where the checkpoints are known, else the journal's list
        yield f"  {paint('changes', 'dim')}"
        yield from _indented(clean_block(stat))
    else:
        yield from _field("changed", record.get("changed_files"), paint)
    for path in prompts(loop.state_dir, record["iteration"]):
        yield from _text("prompt", path, bound, paint)
    for directory in agent_runs(loop.state_dir, record["iteration"]):
        yield from _text("answer", os.path.join(directory, "answer.txt"), bound, paint)
    yield paint(f"output: codex-self-iter logs {record['iteration']}", "dim")


def _field(label: str, value: object, paint: Paint, bound: int = MAX_TEXT) -> Iterator[str]:
    values = value if isinstance(value, list) else [value]
    for one in values:
        if one not in (None, "", [], {}):
            yield f"  {paint(f'{label:<11}', 'dim')}{clean(_plain(one), bound // 2)}"
            label = ""


def _plain(value: object) -> str:
    """A message by its text, what happened by its kind and time, every other table as JSON."""
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return " ".join(value["text"].split())
    if isinstance(value, dict) and isinstance(value.get("kind"), str):
        more = [f"{key} {as_words(one)}" for key, one in value.items() if key not in ("kind", "at")]
        return ", ".join([f"{value['kind']} at {moment(as_number(value.get('at')))}", *more])
    return as_words(value)


def _wait(record: Record) -> str:
    """What was waited for after it, and how long."""
    wait = as_dict(record.get("wait"))
    if not wait:
        return ""
    kind, reason = as_words(wait.get("kind")).replace("_", " "), as_words(wait.get("reason"))
    why = "" if reason in (record.get("error"), record.get("reason")) else f": {reason}"
    until, length = as_number(wait.get("until")), as_number(wait.get("length"))
    return f"{kind} until {moment(until)} ({took(length)}){why}"


def _owed(record: Record) -> str:
    """What was not committed when the iteration had ended."""
    owed = as_dict(record.get("owed"))
    if not owed:
        return ""
    why = str(owed.get("why") or "the next commit takes them")
    files = ", ".join(map(str, as_list(owed.get("files"))))
    count = as_number(owed.get("count"))
    return f"{count:.0f} not committed ({files}): {why}" if count else f"not committed: {why}"


def _agents(record: Record) -> list[str]:
    """Who worked: in roles mode each with its role, the last with how it ended."""
    runs = [as_dict(run) for run in as_list(record.get("runs"))]
    if len(runs) < 2:
        return [_agent(record)]
    told = []
    for run in runs:
        who = ", ".join(str(run[key]) for key in ("agent", "model") if run.get(key))
        told.append(f"{run.get('role')}: {who}, {took(as_number(run.get('duration_sec')))}")
    return [*told[:-1], f"{runs[-1].get('role')}: {_agent(record)}"]


def _agent(record: Record) -> str:
    parts = [str(record.get(key)) for key in ("agent", "model") if record.get(key)]
    ends = ("exit_code", "signal", "cause", "failure_class")
    told = {key: record[key] for key in ends if record.get(key) not in (None, "")}
    return ", ".join([*parts, *(f"{key.replace('_', ' ')} {text}" for key, text in told.items())])


def _gate(gate: dict[str, Any], bound: int, paint: Paint) -> Iterator[str]:
    ok = gate.get("ok")
    result = f"ok{gate_before(gate)}" if ok else gate_end(gate)
    lasted = took(as_number(gate.get("duration_sec")))
    line = f"{clean(str(gate.get('command')), 500)}: {clean(result)}, {lasted}"
    items = [shorten(str(title), 200) for title in as_list(gate.get("items"))]
    label = "check" if items else "gate"
    yield f"  {paint(label.ljust(11), 'dim')}{paint(line, 'green' if ok else 'red')}"
    yield from (f"{' ' * 13}of {title}" for title in items)
    yield from _field("", gate.get("tick"), paint)
    if not ok and gate.get("output"):
        yield from _indented(clean_block(str(gate["output"]), bound))


def _diff_stat(workspace: str, record: Record) -> str:
    """What `diff N --stat` says; without a checkpoint, the commits between the ends; else "".

    Asks git itself: what `diff` imports takes longer than everything else that is shown."""
    after = record.get("checkpoint") or record.get("head_after")
    before = record.get("head_before")
    if record.get("checkpoint"):
        before = _checkpoint_before(workspace, str(after), int(record["iteration"])) or before
    if not all(isinstance(end, str) and end.isalnum() for end in (before, after)):
        return ""
    return _git(workspace, "diff", "--no-ext-diff", "--stat=100", str(before), str(after), "--")


def _checkpoint_before(workspace: str, checkpoint: str, iteration: int) -> str:
    """Commit of the last checkpoint before it: `N-before`, or what the one before it left."""
    listing = _git(workspace, "for-each-ref", "--format=%(objectname) %(refname)", labels.REFS)
    refs = [line.partition(" ")[::2] for line in listing.splitlines()]
    ours = next((os.path.dirname(name) for commit, name in refs if commit == checkpoint), None)
    known = [(os.path.basename(n), commit) for commit, n in refs if os.path.dirname(n) == ours]
    return labels.before(known, str(iteration))


def _git(workspace: str, *args: str) -> str:
    from codex_self_iter.world.bounded import run as run_bounded  # the only command that asks git

    argv = ["git", "-C", workspace, "--no-optional-locks", *args]
    try:
        done = run_bounded(argv, timeout_sec=GIT_TIMEOUT_SEC)
    except OSError:
        return ""
    return done.stdout.decode("utf-8", "replace").rstrip() if done.ok else ""


def _text(label: str, path: str, bound: int, paint: Paint) -> Iterator[str]:
    try:
        data = read_guarded(path, 4 * bound + 1)
    except OSError:
        return
    text = data[: 4 * bound].decode("utf-8", "replace")
    yield f"  {paint(label, 'dim')} {clean(path)}"
    yield from _indented(clean_block(text, bound))
    if len(data) > 4 * bound or len(text) > bound:
        yield paint("    (cut; --full shows more)", "dim")


def _indented(text: str) -> Iterator[str]:
    yield from (f"    {line}".rstrip() for line in text.rstrip().split("\n"))
