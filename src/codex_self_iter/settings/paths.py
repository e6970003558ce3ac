"""The files and directories of one loop: resolved, and checked before anything is started."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from codex_self_iter.core.foreign import as_text, decode
from codex_self_iter.errors import UsageError
from codex_self_iter.settings.model import Settings
from codex_self_iter.settings.rules import RESERVED_NAMES
from codex_self_iter.settings.tomlfile import BadFileError, read_plain

OWN_TASK, OWN_PLAN = "task.md", "plan.md"
"""In the state directory: a task that was given in words, and the plan that is made for it."""
_OWN = re.compile(r"(task|plan)(-\d+)?\.md|git|lost\+found|.*\.tmp")
"""Names in a state directory beside the reserved ones and the two that are configured."""
_MARKS = ("runtime.json", "runtime.json.1", "quarantine", "logs/iterations.jsonl", "logs/runs",
          "inbox/done")  # fmt: skip
"""What only a state directory has: with one of them it is ours, whatever else lies in it."""
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""Longest plan or task. No agent that was measured takes a longer prompt."""

MAX_TEXT_BYTES = 64 * 1024
"""Longest text of `[prompt]`: it is in every prompt, also in one that had to be shortened."""


@dataclasses.dataclass(frozen=True, slots=True)
class ResolvedPaths:
    """Absolute paths of one loop; `task` need not exist. `workspace` and `state_dir` have no links
    in them; `task` and `plan` keep theirs, so that the replacement of a link is seen."""

    workspace: Path
    task: Path
    plan: Path
    state_dir: Path

    @property
    def in_words(self) -> bool:
        """True when the task was given in words."""
        return self.task == self.state_dir / OWN_TASK


def resolve_paths(settings: Settings) -> ResolvedPaths:
    """The paths as configured; nothing is checked.

    A task that was given in words (`run "…"`) lies in the state directory, and is the task until
    flag or environment name another; so does its plan, where the workspace has none."""
    workspace = settings.workspace_path
    task = Path(os.path.abspath(workspace / os.path.expanduser(settings.task_file)))
    plan = Path(os.path.abspath(workspace / os.path.expanduser(settings.plan_file)))
    state_dir = Path(os.path.realpath(workspace / os.path.expanduser(settings.state_dir)))
    own_task, own_plan = state_dir / OWN_TASK, state_dir / OWN_PLAN
    if own_task.is_file() and not settings.origin("task_file").startswith(("flag", "environment")):
        task = own_task
    if (
        own_plan.is_file()
        and settings.origin("plan_file") == "default"
        and not os.path.lexists(plan)
    ):
        plan = own_plan
    return ResolvedPaths(workspace, task, plan, state_dir)


def validate_workspace(settings: Settings, *, documents: bool = True) -> ResolvedPaths:
    """Check what a start needs; without `documents`, plan and task are still to come. Raises
    UsageError that lists everything wrong."""
    paths = resolve_paths(settings)
    flaws = list(_workspace_flaws(paths.workspace))
    if not flaws:
        if documents:
            asked = settings.origin("plan_file") != "default"
            flaws += _plan_flaws(paths.plan, paths.workspace, asked=asked)
            flaws += _task_flaws(paths.task, asked=settings.origin("task_file") != "default")
        flaws += text_flaws(settings)
        flaws += state_flaws(settings)
    if flaws:
        raise UsageError("\n".join(flaws))
    return paths


def _workspace_flaws(path: Path) -> Iterator[str]:
    mode = _mode(path)
    if mode is None:
        yield f"workspace {path} does not exist; name an existing directory with --workspace"
    elif not stat.S_ISDIR(mode):
        yield f"workspace {path} is not a directory; name a directory with --workspace"
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield f"workspace {path} {_unwritable(path)}"


def _plan_flaws(path: Path, workspace: Path, *, asked: bool) -> Iterator[str]:
    if _mode(path) is None:
        link = " (it is a symbolic link to nothing)" if path.is_symlink() else ""
        here = os.path.samefile(workspace, os.curdir)
        init = "codex-self-iter init" + (
            "" if here else f" --workspace {shlex.quote(str(workspace))}"
        )
        what = f'`{init}` writes one, run "what is wanted" needs none, or name another with --plan-file'
        if asked:
            what = 'write it, or leave out plan_file: then run "what is wanted" needs none'
        yield f"plan file {path} does not exist{link}; {what}"
        return
    text, flaw = _read(path)
    if flaw:
        yield f"plan file {path} {flaw}"
    elif not text.strip():
        yield f"plan file {path} is empty; write down what is to be done, such as `- [ ] first item`"


def _task_flaws(path: Path, *, asked: bool) -> Iterator[str]:
    if _mode(path) is None:
        if asked:  # nobody names a file that need not be there
            yield f"task file {path} does not exist; write it, or leave out --task-file (task_file)"
    else:
        _, flaw = _read(path)
        if flaw:
            yield f"task file {path} {flaw}"


def text_path(settings: Settings, file: str) -> Path:
    """Where a file of `[prompt]` is."""
    return Path(os.path.abspath(settings.workspace_path / os.path.expanduser(file)))


def text_flaws(settings: Settings) -> Iterator[str]:
    """What is wrong with the files that `[prompt]` names."""
    for key, file in settings.prompt.files().items():
        path = text_path(settings, file)
        if _mode(path) is None:
            yield f"prompt file {path} does not exist; write it, or leave out {key}"
            continue
        text, flaw = _read(path, MAX_TEXT_BYTES)
        if flaw or not text.strip():
            yield f"prompt file {path} {flaw or f'is empty; write it, or leave out {key}'}"


def state_flaws(settings: Settings) -> Iterator[str]:
    """Why a loop cannot keep its state where it is configured; one line each."""
    paths = resolve_paths(settings)
    state, mode = paths.state_dir, _mode(paths.state_dir)
    if state == paths.workspace or state in paths.workspace.parents:
        yield f"state directory {state} is the workspace or above it; give it its own (state_dir)"
    elif ".git" in state.parts:
        yield f"state directory {state} is inside git's own directory; choose another (state_dir)"
    elif mode is not None and not stat.S_ISDIR(mode):
        yield f"state directory {state} is not a directory; move that file away or set state_dir"
    elif mode is not None and not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        yield f"state directory {state} {_unwritable(state)}"
    elif mode is not None and (alien := _alien(state, settings)):
        what = f"holds something else ({alien}), and all in it would be hidden from git"
        yield f"state directory {state} {what}; name one that is new or empty (state_dir)"
    elif mode is not None and (other := _other_workspace(paths)):
        what = f"is that of the workspace {other}, and not of {paths.workspace}"
        mend = "give each its own (state_dir), or go on with a copy: cp -a"
        yield f"state directory {state} {what}; {mend} {shlex.quote(str(state))} ELSEWHERE"


def _other_workspace(paths: ResolvedPaths) -> str:
    """The workspace of the loop whose state this is, where that is another one; else "".

    One that is gone was moved here, and a state directory at another place than it was is a copy,
    or was moved with its workspace."""
    try:
        known = decode(read_plain(paths.state_dir / "status.json", MAX_DOCUMENT_BYTES).decode())
    except (OSError, ValueError, BadFileError):
        return ""
    other = as_text((known or {}).get("workspace"))
    here = as_text((known or {}).get("state_dir")) == str(paths.state_dir)
    there = os.path.isabs(other) and os.path.isdir(other) and os.path.isdir(paths.workspace)
    return other if here and there and not os.path.samefile(other, paths.workspace) else ""


def _alien(state: Path, settings: Settings) -> str:
    """What in a directory shows that it is no state directory; "" where that is one, or is empty
    but for what may be left there for the first start."""
    if any(os.path.lexists(state / mark) for mark in (*_MARKS, settings.lock_file_name)):
        return ""
    own = {*RESERVED_NAMES, settings.stop_file_name}
    names = (name for name in os.listdir(state) if not (name in own or _OWN.fullmatch(name)))
    return min(names, default="")


def _unwritable(path: Path) -> str:
    """Why a directory cannot be written, and what to do."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "is on a file system that is read-only; mount it writable"
    return "cannot be written by this user; mend its permissions (chmod, chown)"


def _read(path: Path, most: int = MAX_DOCUMENT_BYTES) -> tuple[str, str]:
    """The text, or why it cannot be read and what to do."""
    try:
        data = read_plain(path, most + 1)
        if len(data) > most:
            return "", f"is larger than {mib(most)}, too much for a prompt; shorten it"
        if b"\0" in data:
            line = data.count(b"\n", 0, data.index(b"\0")) + 1
            return "", f"is no text (line {line} holds a zero byte); save it as UTF-8 text"
        return data.decode("utf-8-sig"), ""
    except BadFileError as error:
        return "", f"{error}; replace it by a text file"
    except IsADirectoryError:
        return "", "is a directory; replace it by a text file"
    except OSError as error:
        return "", f"cannot be read ({error.strerror}); mend its permissions (chmod, chown)"
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return "", f"is not UTF-8 (line {line}, byte 0x{data[error.start]:02x}); save it as UTF-8"


def mib(size: int) -> str:
    """A bound in bytes as people read it."""
    return f"{size / 2**20:g} MiB" if size >= 2**20 else f"{size / 2**10:g} KiB"


def _mode(path: Path) -> int | None:
    """The mode of what a path leads to; None for nothing, or nothing that we may see."""
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return None
