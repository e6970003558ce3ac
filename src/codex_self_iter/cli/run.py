"""`run`: the flags. What they start is in `codex_self_iter.supervisor.app`."""

from __future__ import annotations

import argparse
import os
import sys

from codex_self_iter.cli import COMMANDS, PROGRAM, _common, _flags, brief, nearest
from codex_self_iter.cli._program import as_typed
from codex_self_iter.errors import UsageError
from codex_self_iter.screens.loops import need_file
from codex_self_iter.setup.sentence import checked
from codex_self_iter.supervisor.options import RunOptions
from codex_self_iter.world.console import say
from codex_self_iter.world.start import start_directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = "codex-self-iter [run] [options]"
    add(
        "--workspace", action="append", default=[], metavar="DIR",
        help="where the agent works (default: the current directory); repeat it for several loops",
    )  # fmt: skip
    add(
        "sentence",
        nargs="?",
        metavar="TASK",
        help="what is wanted, in words; else task and plan are files",
    )
    add("--no-git", action="store_true", help="take TASK also where there is no git repository")
    add("--config", metavar="FILE", help="configuration (default: codex-self-iter.toml there)")
    add("--config-dir", metavar="DIR", help="a directory of configurations, one for each loop")
    add("--once", action="store_true", help="one iteration: --max-iterations 1")
    what = (
        "say what would be done up to the first run, with its whole prompt; start and write nothing"
    )
    add("--dry-run", action="store_true", help=what)
    add("--clear-stop", action="store_true", help="remove a STOP file that is there")
    add("--debug", action="store_true", help="show every event, decision and spawn")
    _flags.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Start the supervisor and return its exit code."""
    chosen = options(args)
    values = _flags.collect(args)
    if args.once:
        if values.get("max_iterations", 1) != 1:
            raise UsageError("give either --once or --max-iterations, not both")
        values["max_iterations"] = 1

    if "rich" not in sys.modules:
        # structlog loads it, where it is there, for tracebacks that nobody prints here: a tenth of the start
        sys.modules["rich"] = None  # type: ignore[assignment]
        import structlog  # noqa: F401

        del sys.modules["rich"]
    from codex_self_iter.lanes import loop_for
    from codex_self_iter.supervisor import app

    try:
        if args.dry_run:
            from codex_self_iter.lanes.lane_rehearsal import rehearse  # seldom wanted

            sys.stdout.write(app.rehearse(values, chosen, rehearse))
            return 0
        return int(app.run(values, chosen, _show, loop_for))
    except UsageError as error:
        here = os.path.expanduser((*args.workspace, os.curdir)[0])
        planned = args.config or os.path.exists(os.path.join(here, "plan.md"))
        if not planned and (meant := _common.did_you_mean(here)):
            raise UsageError(f"{error}\n{meant}") from None
        raise


def _show(card: str) -> None:
    """The card, unless nobody takes it: that must not hold up the exit code."""
    say(sys.stdout, "\n" + as_typed(card, COMMANDS))


def _one_word(word: str) -> str:
    """What to say of a word where a task was expected: it may be a command in a wrong place."""
    if word in COMMANDS:
        return f"unrecognized arguments: {word} (the command goes first: {PROGRAM} {word} ...)"
    near = nearest(word, list(COMMANDS))
    hint = f" (did you mean the command {near!r}?)" if near else ""
    return (
        f'{brief(word)!r} is one word{hint}; say the task in a sentence: run "Make the tests pass"'
    )


def options(args: argparse.Namespace) -> RunOptions:
    """The options beside the configuration. Raises UsageError for paths that are not there."""
    task = "" if args.sentence is None else checked(args.sentence)
    if task.isascii() and len(task.split()) == 1:
        raise UsageError(_one_word(task))
    _common.goes_with(args, bool(task), "a task in words", "no_git")
    if task and (args.config_dir or len(args.workspace) > 1):
        raise UsageError("a task in words is for one workspace; name that one alone")
    if task and getattr(args, "key:task_file"):
        raise UsageError("give the task in words or with --task-file, not both")
    if args.config_dir and (args.config or args.workspace):
        what = "--config-dir names its workspaces itself; leave --workspace and --config out"
        raise UsageError(what)
    for path in args.workspace:
        if not os.path.isdir(os.path.expanduser(path)):
            what = "is not a directory" if os.path.exists(path) else "does not exist"
            raise UsageError(f"workspace {path} {what}")
    if args.config:
        need_file(args.config)
    if args.config_dir and not os.path.isdir(args.config_dir):
        what = "is not a directory" if os.path.exists(args.config_dir) else "does not exist"
        raise UsageError(f"configuration directory {args.config_dir} {what}")
    return RunOptions(
        workspaces=tuple(args.workspace),
        config=args.config or "",
        config_dir=os.path.abspath(os.path.join(start_directory(), args.config_dir))
        if args.config_dir
        else "",
        sentence=task,
        no_git=args.no_git,
        clear_stop=args.clear_stop,
        debug=args.debug,
        flag_names={flag.key: flag.option for flag in _flags.FLAGS},
    )
