"""`demo`: the loop over a small real workspace, to its end, without key or network."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from codex_self_iter.cli._program import program_name
from codex_self_iter.core.foreign import decode
from codex_self_iter.demo import git, make_workspace
from codex_self_iter.world.guarded import read_guarded

STATE = ".codex-self-iter"
"""The state directory of the demo; its configuration leaves the default."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "workspace to make: new, empty or an earlier demo (default: a new one in the cache directory)"
    parser.add_argument("directory", nargs="?", type=Path, metavar="DIR", help=what)


def run(args: argparse.Namespace) -> int:
    """Make the workspace, run the loop as `run` does, say what happened; the loop's exit code.

    Raises UsageError when the workspace cannot be made."""
    directory = workspace_for(args.directory)
    make_workspace(directory)
    print(f"Sample workspace: {directory}")
    what = "The loop works through plan.md until `python3 -m unittest -q` passes."
    print(f"One of its tests fails. {what}\n", flush=True)
    before = len(_journal(directory))
    program_name()  # as the person has it, not as the agent will
    _own_environment()
    code = _run_before_a_board(directory) if _has_board() else _run_loop(directory)
    _report(directory, before)
    return code


def workspace_for(wanted: Path | None) -> Path:
    """An absolute path; by default a new directory in the user's cache, named after the time."""
    if wanted is not None:
        return Path(os.path.abspath(wanted.expanduser()))
    name = time.strftime("demo-%Y%m%d-%H%M%S-")
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        cache = caches.absolute() / "codex-self-iter"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=name, dir=cache))
    except (OSError, RuntimeError):  # no home directory, or a read-only one
        return Path(tempfile.mkdtemp(prefix=f"codex-self-iter-{name}"))


def _own_environment() -> None:
    """Only the demo's own file configures it, not the person's variables; `python3` is our own."""
    for name in [name for name in os.environ if name.startswith(("CODEX_SELF_ITER_", "GIT_"))]:
        del os.environ[name]
    here = Path(sys.executable).parent
    if (here / "python3").exists():
        os.environ["PATH"] = os.pathsep.join([str(here), os.environ.get("PATH", os.defpath)])
    if paths := os.environ.get("PYTHONPATH"):  # the agent runs in another directory
        found = [os.path.abspath(path) for path in paths.split(os.pathsep) if path]
        os.environ["PYTHONPATH"] = os.pathsep.join(found)


def _run_loop(directory: Path) -> int:
    from codex_self_iter.cli import main

    config = directory / "codex-self-iter.toml"
    return main(["run", "--workspace", str(directory), "--config", str(config)])


def _has_board() -> bool:
    from codex_self_iter.cli.top import no_terminal

    return not no_terminal() and importlib.util.find_spec("textual") is not None


def _run_before_a_board(directory: Path) -> int:
    """The same behind the board. When that is left the log goes on where it was shown; what was said
    meanwhile is said after it: the card, and the whole log of a loop that has failed."""
    board = [sys.executable, "-m", "codex_self_iter", "top", "--until-end"]
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in (1, 2)]
        screen = [os.dup(number) for number in (1, 2)]
        for number in screen:
            stack.callback(os.close, number)
        shown = subprocess.Popen([*board, "--workspace", str(directory)])

        def turn(targets: list[int]) -> None:
            sys.stdout.flush()
            for number, target in zip((1, 2), targets, strict=True):
                os.dup2(target, number)

        def after_it() -> None:
            shown.wait()
            turn(screen)

        turn([file.fileno() for file in files])
        waiting = threading.Thread(target=after_it)
        waiting.start()
        code = 1
        try:
            code = _run_loop(directory)
        finally:
            if code:
                shown.terminate()
            waiting.join()
        for file in files[: 2 if code else 1]:
            file.seek(0)
            print(file.read().decode("utf-8", "replace"), end="", flush=True)
    return code


def _report(directory: Path, before: int) -> None:
    """This run's iterations and the commits, from files that anybody can read."""
    print("\nIterations")
    for record in _journal(directory)[before:]:
        number, verdict = record.get("iteration", "?"), record.get("verdict", "?")
        print(f"  {number:>3}  {verdict}: {record.get('summary', '')}")
    print("\nCommits")
    for line in git(directory, "log", "--oneline", "-n", "12").splitlines():
        print(f"  {line}")
    sys.stdout.flush()


def _journal(directory: Path) -> list[dict[str, Any]]:
    path = directory / STATE / "logs" / "iterations.jsonl"
    try:
        lines = read_guarded(str(path), 4_000_000).decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return [record for line in lines if (record := decode(line))]
