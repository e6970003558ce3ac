"""One step through the plan: read it, run what stands under the next open item, tick it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from codex_self_iter.core.plan import Block, Item, Plan, find_again, parse_plan, tick
from codex_self_iter.errors import UsageError
from codex_self_iter.plan_shell.answer import Answer, goal_for
from codex_self_iter.world.guarded import read_guarded

MAX_PLAN_BYTES = 64 * 1024 * 1024
_FENCED = (errno.EROFS, errno.EACCES, errno.EBUSY)
"""How it fails to make a file beside one that is open, or to put it in its place."""


def read_plan(path: Path) -> str:
    """The plan's text, bytes that are no UTF-8 kept. Raises UsageError when it cannot be read."""
    try:
        data = read_guarded(str(path), MAX_PLAN_BYTES, follow=True)
        return data.decode("utf-8", "surrogateescape")
    except OSError as error:
        what = f"{error.strerror or error}. Write one, or name it with --plan."
        raise UsageError(f"plan {path}: {what}") from error


def write_plan(path: Path, text: str) -> None:
    """Replace the plan atomically: mode, owner and a symlink stay. Where a fence opens the plan and
    not its directory, it is written in place. Raises UsageError."""
    target, data = Path(os.path.realpath(path)), text.encode("utf-8", "surrogateescape")
    try:
        try:
            _replace(target, data)
        except OSError as error:
            if error.errno not in _FENCED:
                raise
            _overwrite(target, data)
    except OSError as error:
        what = f"the item cannot be ticked: {error.strerror or error}."
        raise UsageError(f"plan {path}: {what}") from error


def _replace(target: Path, data: bytes) -> None:
    # one fixed name: what a crash leaves behind is overwritten by the next run
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with open(temporary, "wb", opener=_private) as file:
            file.write(data)
            _like(target, file.fileno())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _overwrite(target: Path, data: bytes) -> None:
    with open(target, "r+b") as file:
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _like(target: Path, descriptor: int) -> None:
    """Give a file the mode and, where that is allowed, the owner of another."""
    status = target.stat()
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


def work(plan_path: Path, workspace: Path) -> Answer:
    """Do the next open item. Raises UsageError when the plan cannot be read or written."""
    plan = parse_plan(read_plan(plan_path))
    if plan.total == 0:
        return Answer(
            summary="The plan has no items.",
            reason=f"{plan_path}: no checkbox (`- [ ] …`) in it; plan-shell works through checkboxes.",
            stop=True,
        )
    item = plan.next_open()
    if item is None:
        return _all_done(plan, "Every item was ticked already.")
    if not item.runnable and not plan.children(item):
        return _cannot(plan, item, "has no shell commands, and plan-shell cannot do prose")
    if unclosed := next((block for block in item.runnable if not block.closed), None):
        why = f"has commands whose fence (line {unclosed.line}) is never closed"
        return _cannot(plan, item, why)
    print(f"plan-shell: {goal_for(plan, item)}", flush=True)
    return _run_blocks(plan_path, workspace, plan, item)


def _run_blocks(plan_path: Path, workspace: Path, plan: Plan, item: Item) -> Answer:
    evidence: list[str] = []
    for block in item.runnable:
        code = _run(block, workspace)
        evidence.append(f"{_first_line(block)} (line {block.line}): {_ending(code)}")
        if code != 0:
            return Answer(
                summary=f"A command of the item at line {item.line} failed: {item.text}",
                reason=f"The commands at line {block.line} of the plan ended with {_ending(code)}.",
                next_goal=goal_for(plan, item),
                evidence=tuple(evidence),
                exit_code=1,
            )
    return _ticked(plan_path, plan, item, tuple(evidence))


def _run(block: Block, workspace: Path) -> int:
    """Exit code of the block's commands; negative for a signal, 127 when there is no such shell."""
    shell = "/bin/sh" if block.shell != "bash" else shutil.which("bash")
    if shell is None:
        print(f"plan-shell: line {block.line} asks for bash, and there is none on PATH", flush=True)
        return 127
    argv = [shell, "-e", "-c", block.commands, "plan-shell"]
    try:
        return subprocess.run(
            argv, cwd=workspace, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, check=False
        ).returncode
    except (OSError, ValueError) as error:  # too long for one argument, or a NUL in it
        what = f"the commands at line {block.line} cannot be started: {error}"
        print(f"plan-shell: {what}", flush=True)
        return 126


def _ticked(plan_path: Path, before: Plan, item: Item, evidence: tuple[str, ...]) -> Answer:
    """Tick the item in the plan as it is now: the commands may have edited it."""
    text = read_plan(plan_path)
    found = find_again(before, item, parse_plan(text))
    if found is None:
        summary = f"Did an item that is no longer in the plan: {item.text}"
    else:
        summary = f"Ticked: {item.text}"
        if not found.ticked:
            text = tick(text, found)
            write_plan(plan_path, text)
    plan = parse_plan(text)
    following = plan.next_open()
    if following is None:
        return _all_done(plan, summary, evidence)
    return Answer(
        summary=summary,
        reason=f"{plan.done} of {plan.total} items are ticked.",
        next_goal=goal_for(plan, following),
        evidence=evidence,
    )


def _all_done(plan: Plan, summary: str, evidence: tuple[str, ...] = ()) -> Answer:
    return Answer(
        summary=summary,
        reason=f"Every item of the plan is ticked ({plan.done} of {plan.total}).",
        evidence=evidence,
        completed=True,
    )


def _cannot(plan: Plan, item: Item, why: str) -> Answer:
    return Answer(
        summary=f"Stopped before the item at line {item.line}: {item.text}",
        reason=f"The item at line {item.line} ({item.text}) {why}. "
        "Put the commands in a ```sh fence under it, tick it yourself, or use another agent.",
        next_goal=goal_for(plan, item),
        stop=True,
    )


def _first_line(block: Block) -> str:
    lines = [line.strip() for line in block.commands.splitlines()]
    commands = [line for line in lines if line and not line.startswith("#")]
    more = f" and {len(commands) - 1} more lines" if len(commands) > 1 else ""
    return f"`{commands[0][:120]}`{more}"


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def prepare_output() -> None:
    """Any text of the plan can be printed, whatever the locale."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
