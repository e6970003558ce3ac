"""How git is called: a clean environment, no prompts, no pager, no hooks, always bounded in time.

Everything that talks to git goes through `Git`. What starts the process is a `GitRunner`, so that
the supervisor hands in its contained asynchronous one and the commands hand in `run_blocking`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar, TypeVarTuple

from codex_self_iter.errors import CodexSelfIterError
from codex_self_iter.world.bounded import ToolResult, run
from codex_self_iter.world.sdnotify import SERVICE_PREFIXES

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HEAD = "HEAD^{commit}"
"""The commit that is checked out; nothing on an unborn branch."""
OLDEST = (2, 25)
"""Before it, `git add` has no --pathspec-from-file and `rev-parse` no --show-object-format."""
MAX_OUTPUT = 64 * 1024 * 1024
"""Bytes of git's output, some 400,000 status lines; an answer of this size counts as cut short."""

_KEPT_NAMES = """GIT_CONFIG_GLOBAL GIT_CONFIG_SYSTEM GIT_CONFIG_NOSYSTEM GIT_CONFIG_COUNT
    GIT_CEILING_DIRECTORIES GIT_DISCOVERY_ACROSS_FILESYSTEM GIT_EXEC_PATH
    GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL"""
_KEPT = frozenset(_KEPT_NAMES.split())
"""The person's own settings. Every other GIT_* variable (GIT_DIR, GIT_INDEX_FILE, GIT_TRACE…) would
point git elsewhere or change what it prints; they are set, for example, when we are started from a
hook or an alias."""
_KEPT_PREFIXES = ("GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_")

_COMMON = ("--no-pager", "-c", "core.fsmonitor=false", "-c", "i18n.commitEncoding=UTF-8")
_NO_UPKEEP = ("-c", "gc.auto=0", "-c", "maintenance.auto=false")
"""No daemon and no garbage collection that would outlive the call."""
_WORST = ("fatal:", "error:")
_NO_HOOKS = ("-c", f"core.hooksPath={os.devnull}")


class GitRunner(Protocol):
    """Runs one program to its end; after `timeout_sec` it is killed with all that it started."""

    async def __call__(
        self,
        argv: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str] | None = None,
        timeout_sec: float = 60,
        max_output: int = MAX_OUTPUT,
        stdin: bytes | None = None,
    ) -> ToolResult: ...


class GitError(CodexSelfIterError):
    """git could not do what was asked; the message says what it said."""


class GitTimeoutError(GitError):
    """git did not answer in time and was ended."""


def git_environment(base: Mapping[str, str], *, plain: bool = True) -> dict[str, str]:
    """The environment of a git call: `base` without what would redirect git or make it ask.

    `plain` also fixes the language, because messages are read; off for calls that run the person's
    hooks."""
    env = {
        name: value
        for name, value in base.items()
        if not name.startswith(SERVICE_PREFIXES)
        and (not name.startswith("GIT_") or name in _KEPT or name.startswith(_KEPT_PREFIXES))
    }
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    env |= {"GIT_PAGER": "cat", "GIT_EDITOR": "true"}
    return env | ({"LC_ALL": "C", "LANGUAGE": ""} if plain else {})


@dataclasses.dataclass(slots=True)
class Git:
    """git in one directory.

    Attributes:
        runner: what starts the process.
        cwd: absolute path; the workspace.
        timeout_sec: patience with one call, may be infinite; may be changed.
        env: what its processes get beside the environment."""

    runner: GitRunner
    cwd: str
    timeout_sec: float = 60.0
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)

    async def beside(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Do blocking work in a thread; where there is no event loop, here."""
        if self.runner is run_blocking:
            return work(*args)
        from codex_self_iter.world import threads  # the commands, which have no loop, are spared it

        return await threads.run_sync(work, *args)

    async def run(
        self,
        *args: str,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        hooks: bool = False,
        upkeep: bool = False,
        timeout_sec: float | None = None,
    ) -> ToolResult:
        """Run `git args…`. Raises GitError only when git could not be started or was killed.

        `hooks`: the repository's hooks run, and may kill it when all is done; `upkeep`: its settings of `git gc` hold."""
        quiet = [*(() if upkeep else _NO_UPKEEP), *(() if hooks else _NO_HOOKS)]
        argv = ["git", *_COMMON, *quiet, *args]
        full = git_environment(os.environ, plain=not hooks) | {**self.env, **(env or {})}
        patience = self.timeout_sec if timeout_sec is None else timeout_sec
        try:
            out = await self.runner(
                argv,
                cwd=self.cwd,
                env=full,
                timeout_sec=patience,
                max_output=MAX_OUTPUT,
                stdin=stdin,
            )
        except OSError as error:
            raise GitError(self._cannot_start(str(error))) from error
        if out.exit_code is None and not out.timed_out:
            if out.signal and hooks:
                return out
            if out.signal:
                raise GitError(f"git {args[0]} was ended by signal {out.signal}")
            raise GitError(self._cannot_start(out.error))
        return out

    async def ask(
        self, *args: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None
    ) -> bytes:
        """Like `run`, and raises GitError unless git exits 0. Returns its output as it came."""
        out = await self.run(*args, stdin=stdin, env=env)
        if out.exit_code != 0:
            command = next(arg for arg in args if arg != "-c" and "=" not in arg)
            raise failed(out, command, self)
        return out.stdout

    async def resolve(self, revision: str) -> str:
        """The object id that a revision names, "" if it names nothing. Raises GitError."""
        out = await self.run("rev-parse", "--verify", "--quiet", revision)
        return out.stdout.decode().strip() if out.exit_code == 0 else ""

    async def line(self, *args: str, env: Mapping[str, str] | None = None) -> str:
        """`ask` for an answer of one line (an object id, a path)."""
        return os.fsdecode((await self.ask(*args, env=env)).removesuffix(b"\n"))

    def _cannot_start(self, detail: str) -> str:
        if not os.path.isdir(self.cwd):
            return f"the directory {self.cwd} is gone"
        return (
            f"git cannot be started ({detail or 'no reason given'}): is it installed and on PATH?"
        )


def failed(out: ToolResult, command: str, git: Git) -> GitError:
    """The error to raise for a call that did not exit 0."""
    kind = GitTimeoutError if out.timed_out else GitError
    return kind(f"git {command}: {explain(out, git.timeout_sec, git.cwd)}")


def explain(out: ToolResult, timeout_sec: float, cwd: str) -> str:
    """One line about a failed call: what is wrong and, where known, what to do."""
    if out.timed_out:
        return f"no answer within {timeout_sec:g} s (ended)"
    text = (out.stderr.strip() or out.stdout.strip()).decode("utf-8", "replace")
    if "dubious ownership" in text:
        mend = f"git config --global --add safe.directory '{cwd}'"
        return f"the repository belongs to another user and git refuses it; to allow it: {mend}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    worst = [line for line in lines if line.startswith(_WORST)] or lines[:1]
    # what a filter or a helper said ("sh: 1: git-lfs: not found") is often the reason
    others = [line for line in lines if line not in worst and ": " in line]
    worst += [line for line in others if not line.startswith(("hint:", "warning:"))]
    return ("; ".join(worst) or f"exit code {out.exit_code}")[:400]


async def run_blocking(argv: Sequence[str], **options: Any) -> ToolResult:
    """A GitRunner for short commands: it blocks. Raises OSError when git cannot be started."""
    return run(argv, **options)


def complete(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run, without an event loop, a coroutine that never waits (it uses `run_blocking` alone)."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("the coroutine had to wait; run it in an event loop")
