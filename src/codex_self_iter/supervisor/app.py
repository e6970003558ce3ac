"""From flags to an exit code: read the configuration, run the supervisor, say how it ended."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio

from codex_self_iter import settings as configuration
from codex_self_iter.agents.codex import git_directories
from codex_self_iter.core.terms import Role
from codex_self_iter.errors import CodexSelfIterError, ExitCode, UsageError
from codex_self_iter.settings import Settings
from codex_self_iter.settings.model import tell_apart
from codex_self_iter.settings.templates import NO_REPOSITORY
from codex_self_iter.setup.detect import with_gates
from codex_self_iter.supervisor import logger
from codex_self_iter.supervisor.configured import agent_names, need_reader
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.options import RunOptions
from codex_self_iter.supervisor.supervisor import Supervisor
from codex_self_iter.world import threads
from codex_self_iter.world.console import Console
from codex_self_iter.world.git.repository import discover
from codex_self_iter.world.git.run import Git, GitError, GitTimeoutError, complete, run_blocking
from codex_self_iter.world.process import proctable, signals
from codex_self_iter.world.start import start_directory

THREADS = 4
"""Without signals, keeper, console and one for slow calls nothing goes."""


def read_settings(
    flags: Mapping[str, Any], options: RunOptions
) -> tuple[list[Settings], list[CodexSelfIterError]]:
    """Settings of every loop, and what is wrong with those that cannot run. Raises UsageError."""
    environ, cwd, file = os.environ, start_directory(), options.config or None
    gated = partial(with_gates, environ=environ, new=bool(options.sentence))
    names = options.flag_names
    if options.config_dir:
        where = options.config_dir
        loaded, problems = configuration.load_directory(
            where, flags=flags, environ=environ, options=names
        )
        loaded.sort(key=lambda one: bool(one.workspaces))  # a loop that is named by its file has it
        return tell_apart(gated(loop) for one in loaded for loop in one.loops()), list(problems)
    if len(options.workspaces) < 2:
        given = dict(flags) | ({"workspace": options.workspaces[0]} if options.workspaces else {})
        read = configuration.load(given, config_file=file, environ=environ, cwd=cwd, options=names)
        return [gated(loop) for loop in read.loops()], []
    loops: list[Settings] = []
    errors: list[CodexSelfIterError] = []
    for workspace in options.workspaces:
        try:
            given = {**flags, "workspace": workspace}
            read = configuration.load(
                given, config_file=file, environ=environ, cwd=cwd, options=names
            )
            loops.extend(map(gated, read.loops()))
        except UsageError as error:
            errors.append(error)
    return tell_apart(loops), errors


def rehearse(
    flags: Mapping[str, Any], options: RunOptions, one: Callable[[Settings, str, bool], str]
) -> str:
    """What `run` would do up to the first run of each loop; `one` says it of one. Raises UsageError
    as it would."""
    loops, problems = read_settings(flags, options)
    if problems:
        raise problems[0]
    _check_place(loops, options)
    texts = (one(loop, options.sentence, options.clear_stop) for loop in loops)
    heads = (f"# {loop.name}\n" if len(loops) > 1 else "" for loop in loops)
    return "\n".join(head + text for head, text in zip(heads, texts, strict=True))


def _check_place(loops: list[Settings], options: RunOptions) -> None:
    """Raises UsageError where a task in words has no repository, unless that is meant, several
    workspaces, or an agent that reads none."""
    if options.sentence and len(loops) > 1:
        what = f"a task in words is for one workspace, and the configuration names {len(loops)}"
        raise UsageError(f"{what}; say which with --workspace")
    if options.sentence and loops and loops[0].lanes.max > 1:
        what = "lanes take their items from a plan, and a task in words has none yet"
        raise UsageError(f'{what}; make one first: codex-self-iter plan "…"')
    where = str(loops[0].workspace_path) if loops else ""
    if options.sentence and not options.no_git:
        _need_repository(where)
    if options.sentence and loops:
        need_reader(agent_names(loops[0], os.environ)[Role.EXECUTOR][0])


def _need_repository(where: str) -> None:
    """Raises UsageError where git cannot keep what is changed."""
    if not git_directories(where):
        if all(os.path.exists(os.path.join(where, name)) for name in ("HEAD", "objects", "refs")):
            what = f"{where} is a bare repository, without files to work on"
            raise UsageError(f"{what}; `git worktree add DIR` there makes a workspace, DIR")
        raise UsageError(f"{NO_REPOSITORY} ({where}); `git init` there, or give --no-git")
    try:
        found, why = complete(discover(Git(run_blocking, where)))
    except GitTimeoutError:  # a slow one may be used all the same
        return
    except GitError as error:
        found, why = None, str(error)
    if found is None:
        mend = "mend that, or give --no-git: changes are judged by content alone then"
        raise UsageError(f"git cannot be used in {where}: {why}; {mend}, and cannot be taken back")


def run(
    flags: Mapping[str, Any],
    options: RunOptions,
    show: Callable[[str], None],
    make: Callable[..., Loop] = Loop,
) -> int:
    """Run the supervisor to its end; returns its exit code. Raises CodexSelfIterError.

    `show` gets the card at the end of a single loop, where the log is for people; `make` makes a
    loop, called as `Loop` is.

    From here on the signals that end it are left to the supervisor, also at the end of the process.
    """
    loops, problems = read_settings(flags, options)
    if not loops:
        if problems:
            raise problems[0]
        what = "there is no *.toml file in it, so there is nothing to run"
        raise UsageError(f"{options.config_dir}: {what}")
    _check_place(loops, options)
    if blind := proctable.blind():
        raise UsageError(blind)
    if not threads.can_be_had(THREADS):  # later a call would wait for one, deaf to signals
        what = "this user's, container's or unit's limit of processes is reached"
        raise CodexSelfIterError(f"{what} (ulimit -u, pids.max, TasksMax); nothing was started")
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.HEARD)  # before any thread is started
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a background job may write (`stty tostop`)
    first = loops[0]
    terminal, console = sys.stderr.isatty(), Console(sys.stderr)
    people = terminal and not logger.wants_json(first.log.format, os.environ)
    one = len(loops) == 1 and not options.debug and os.environ.get("TERM") != "dumb"
    live = console.live if people and one else None
    log = logger.configure(
        level="debug" if options.debug else first.log.level,
        form=first.log.format,
        environ=os.environ,
        console=console,
        terminal=terminal,
    )
    for problem in problems:
        log.error("config.skipped", error=str(problem))
    os.umask(os.umask(0o077) & 0o077)  # what we and the agent make, we can always read ourselves

    card = len(loops) == 1 and not logger.wants_json(first.log.format, os.environ)
    cards: list[str] = []

    async def supervise() -> int:
        reader = partial(read_settings, flags, options)
        supervisor = Supervisor(loops, log, reader, options, live, card, make=make)
        code = await supervisor.run()
        cards.extend(supervisor.cards())
        return code

    gc.freeze()  # what is loaded stays: no collection, the one at the end neither, walks it again
    try:
        code = anyio.run(supervise)
    finally:
        console.close()
    for text in cards:
        show(text)
    if problems:
        code = max(code, int(ExitCode.USAGE), key=Supervisor.severity)
    return code
