"""`codex-self-iter demo [DIR]`: the loop over a small real workspace, to proven completion, without key or network."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from codex_self_iter.demo import git, make_workspace
from codex_self_iter.errors import UsageError

__all__ = ["add_arguments", "run"]

HELP = "run the loop over a small sample workspace: no key, no network, under a minute"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `demo`."""
    parser.add_argument(
        "directory",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="where to make the workspace: new, empty, or an earlier demo (default: a new one in the cache directory)",
    )


def run(args: argparse.Namespace) -> int:
    """Make the workspace, run the loop as `codex-self-iter run` does, say what happened. Returns the loop's code.

    Raises UsageError when the workspace cannot be made.
    """
    directory = _directory(args.directory)
    make_workspace(directory)
    print(f"Sample workspace: {directory}")
    print("One of its tests fails. The loop works through plan.md until `python3 -m unittest -q` passes.\n", flush=True)
    _own_environment()
    started = time.monotonic()
    code = _run_loop(directory)
    _report(directory, code, time.monotonic() - started)
    return code


def _directory(wanted: Path | None) -> Path:
    """An absolute path; by default a new directory in the user's cache, named after the time."""
    if wanted is not None:
        return Path(os.path.abspath(wanted.expanduser()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    base = cache / "codex-self-iter" / time.strftime("demo-%Y%m%d-%H%M%S")
    for candidate in [base, *(Path(f"{base}-{n}") for n in range(2, 100))]:
        try:
            candidate.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"{candidate}: {error.strerror}. Name a directory: codex-self-iter demo DIR") from error
        return candidate
    raise UsageError(f"{base}: too many demos at once. Name a directory: codex-self-iter demo DIR")


def _own_environment() -> None:
    """The demo shows the file in its workspace, not the person's own settings; `python3` is the one that runs us."""
    for name in [name for name in os.environ if name.startswith(("CODEX_SELF_ITER_", "GIT_"))]:
        del os.environ[name]
    here = Path(sys.executable).parent
    if (here / "python3").exists():
        os.environ["PATH"] = os.pathsep.join([str(here), os.environ.get("PATH", os.defpath)])
    if paths := os.environ.get("PYTHONPATH"):  # the agent runs in another directory
        os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in paths.split(os.pathsep) if path)


def _run_loop(directory: Path) -> int:
    from codex_self_iter.cli import main

    return main(["run", "--workspace", str(directory), "--config", str(directory / "codex-self-iter.toml")])


def _report(directory: Path, code: int, seconds: float) -> None:
    state = directory / ".codex-self-iter"
    status = _status(state / "status.json")
    print(f"\nEnded after {seconds:.1f} s: {status.get('state', 'unknown')} (exit code {code}). {status.get('reason', '')}")
    print("\nIterations")
    for line in _journal(state / "logs" / "iterations.jsonl"):
        print(f"  {line.get('iteration', '?'):>3}  {line.get('verdict', '?'):<10}  {line.get('summary', '')}")
        for gate in line.get("gates") or ():
            print(f"{'':>19}gate `{gate.get('command')}`: exit code {gate.get('exit_code')}")
    print("\nCommits")
    print("".join(f"  {line}\n" for line in git(directory, "log", "--oneline", "-n", "12").splitlines()))
    program = _program()
    print("Where to look")
    print(f"  {program} status --workspace {directory}")
    print(f"  {program} history --workspace {directory}")
    print(f"  git -C {directory} log -p")
    print(f"  {state}/  (what each file is: README.md, \"The state directory\")")


def _status(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _journal(path: Path) -> list[dict[str, Any]]:
    """The last lines of the journal; a demo's is short."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [json.loads(line) for line in lines[-20:] if line.startswith("{") and line.endswith("}")]


def _program() -> str:
    """How the person would call us: by name when it is on PATH, else by path."""
    beside = Path(sys.executable).parent / "codex-self-iter"
    if found := shutil.which("codex-self-iter"):
        on_path = not beside.exists() or Path(found) != beside
        if on_path:
            return "codex-self-iter"
    if beside.exists():
        return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)
    return f"{sys.executable} -m codex_self_iter"
