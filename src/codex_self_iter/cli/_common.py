"""What the commands share: which loop is meant, what its files say, whether its supervisor lives.

Only light imports: every reading command starts through here."""

from __future__ import annotations

import argparse
import os
import sys

from codex_self_iter.core.foreign import as_dict, as_list, as_text
from codex_self_iter.errors import UsageError
from codex_self_iter.screens.loops import (
    CONFIG_NAME,
    DEFAULT_STATE_DIR,
    ENVIRONMENT,
    Target,
    config_path,
    read_config,
    read_status,
)
from codex_self_iter.world import registry


def add_loop_arguments(parser: argparse.ArgumentParser, *, name: bool = True) -> None:
    """Add the options that say which loop is meant; with `name`, also as a positional argument."""
    add = parser.add_argument
    what = "name of a loop, or its workspace"
    if name:  # where it is not given, what --loop says stays
        add("loop", nargs="?", default=argparse.SUPPRESS, metavar="NAME", help=what)
    add("--loop", metavar="NAME", help=what)
    add("--workspace", metavar="DIR", help="the loop's workspace (default: the current directory)")
    add("--state-dir", metavar="DIR", help="its state directory, relative to the workspace")
    add("--config", metavar="FILE", help="its configuration file")
    add("--debug", action="store_true", help=argparse.SUPPRESS)


def add_iteration_arguments(parser: argparse.ArgumentParser) -> None:
    """The same, and which iteration: `iteration_word` reads it."""
    add_loop_arguments(parser, name=False)
    what = "a loop; an iteration (default: the last)"
    parser.add_argument("what", nargs="*", metavar="[NAME] [N]", help=what)


def positive_int(text: str) -> int:
    """An argparse type: a whole number above 0."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """An argparse type: a finite number, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, not {text!r}")
    return value


def moment_of(text: str, more: str = "") -> float:
    """Unix seconds of --since: a date, or so long ago. Raises UsageError; `more`: what else it may
    be."""
    import time
    from datetime import datetime

    units = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
    if text[-1:] in units and text[:-1].isascii() and text[:-1].isdigit():
        return max(0.0, time.time() - int(text[:-1][:12]) * units[text[-1]])
    try:
        # a date without a zone is the person's own
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        expected = f"expected {more}90m, 12h, 7d or a date like 2030-01-31"
        raise UsageError(f"--since {text!r}: {expected}") from None


def goes_with(args: argparse.Namespace, meant: bool, what: str, *names: str) -> None:
    """Raises UsageError for options that were given and do nothing, for not `what` is `meant`."""
    for name in names if not meant else ():
        if getattr(args, name) not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')} does nothing without {what}")


def iteration_word(args: argparse.Namespace) -> int | None:
    """The iteration in `args.what`; a loop's name before it goes to `args.loop`.

    Raises UsageError."""
    words = list(args.what)
    number = int(words.pop()) if words and words[-1].isascii() and words[-1].isdigit() else None
    if len(words) > 1 or (words and args.loop):
        raise UsageError(f"expected an iteration's number, not {' '.join(words)!r}")
    if words and words[0].isdigit() and number is not None and not _is_loop(words[0]):
        raise UsageError(f"expected one iteration, not {' '.join(args.what)!r}")
    args.loop = words[0] if words else args.loop
    return number


def _is_loop(name: str) -> bool:
    return os.path.isdir(name) or bool(registry.find(name, registry.entries(clean=False)))


def name_first(args: argparse.Namespace, words: list[str]) -> list[str]:
    """The words behind the name of a known loop, which goes to `args.loop`; without one, all."""
    if args.loop or args.workspace or not registry.find(words[0], registry.entries(clean=False)):
        return words
    args.loop = words[0]
    return words[1:]


def find_loop(args: argparse.Namespace) -> Target:
    """The loop that the command line means. Raises UsageError when there is none, also where only a
    directory above is a loop's workspace."""
    loop = named_loop(args)
    if nowhere(loop) and (meant := did_you_mean(loop.workspace)):
        raise UsageError(f"no loop has run in {loop.workspace}; {meant}")
    return loop


def nowhere(loop: Target) -> bool:
    """Whether no loop has run in its directory, and none is prepared."""
    marks = (os.path.join(loop.workspace, mark) for mark in ("plan.md", CONFIG_NAME))
    return not loop.config and not any(map(os.path.exists, (loop.state_dir, *marks)))


def did_you_mean(directory: str) -> str:
    """A question with the option for the loop's workspace above a directory; "" for none."""
    import shlex  # only where a path is to be quoted

    workspace, _ = enclosing(directory)
    return f"did you mean --workspace {shlex.quote(workspace)}?" if workspace else ""


def enclosing(directory: str) -> tuple[str, str]:
    """The loop's workspace above a directory, no further up than its repository; and the top of
    that. Each is "" where there is none, or the directory is the top itself."""
    start = at = os.path.realpath(directory)
    workspace = ""
    while not os.path.lexists(os.path.join(at, ".git")):
        if at == os.path.dirname(at):
            return workspace, ""
        at = os.path.dirname(at)
        run, *prepared = (
            os.path.exists(os.path.join(at, mark))
            for mark in (DEFAULT_STATE_DIR, "plan.md", CONFIG_NAME)
        )
        workspace = workspace or (at if run or all(prepared) else "")
    return workspace, at if at != start else ""


def named_loop(args: argparse.Namespace) -> Target:
    """The loop, or the directory, that the command line names. Raises UsageError."""
    name = getattr(args, "loop", None) or ""
    config = args.config or ""
    if name and args.workspace:
        raise UsageError(f"give either the name {name!r} or --workspace, not both")
    if name:
        return _by_name(name, args.state_dir, config)
    workspace = args.workspace or os.environ.get(ENVIRONMENT + "WORKSPACE", "")
    if not workspace and args.state_dir and os.path.isdir(args.state_dir):
        return _by_state_dir(os.path.abspath(args.state_dir), config)
    several = [] if workspace else config_loops(config)
    if len(several) == 1:
        return several[0]
    if several:
        rows = "\n".join(f"  --workspace {loop.workspace}" for loop in several)
        raise UsageError(f"the configuration names {len(several)} loops; say which:\n{rows}")
    return _by_workspace(workspace or ".", args.state_dir, config)


def config_loops(config: str) -> list[Target]:
    """The loops of the configuration's [[workspaces]]; [] when it has none, or when the current
    directory is one of them: then that one is meant."""
    path = config_path(".", config)
    read = read_config(".", config)
    entries = [as_dict(entry) for entry in as_list(read.get("workspaces"))]
    if not entries:
        return []
    found = []
    for entry in entries:
        place = os.path.expanduser(as_text(entry.get("path")))
        workspace = os.path.realpath(os.path.join(os.path.dirname(path), place))
        own = as_text(entry.get("state_dir") or read.get("state_dir")) or DEFAULT_STATE_DIR
        state_dir = os.path.normpath(os.path.join(workspace, os.path.expanduser(own)))
        name = as_text(entry.get("name")) or os.path.basename(workspace)
        found.append(Target(name, workspace, state_dir, config))
    here = os.path.realpath(os.curdir)
    return [] if any(loop.workspace == here for loop in found) else found


def _by_name(name: str, state_dir: str | None, config: str) -> Target:
    known = registry.entries(clean=False)
    found = registry.find(name, known)
    if len(found) == 1:
        return Target(found[0].name, found[0].workspace, found[0].state_dir, config)
    shown = registry.display_names(known)
    if found:
        rows = "\n".join(f"  {shown[entry.state_dir]}  ({entry.workspace})" for entry in found)
        raise UsageError(f"{len(found)} loops are called {name!r}; say which:\n{rows}")
    if os.path.isdir(name):
        return _by_workspace(name, state_dir, config)
    from codex_self_iter.cli import nearest

    near = nearest(name, list(shown.values()))
    hint = f" (did you mean {near!r}?)" if near else ""
    raise UsageError(f"no loop is called {name!r}{hint}; 'codex-self-iter status --all' lists them")


def _by_state_dir(state_dir: str, config: str) -> Target:
    status = read_status(state_dir)
    workspace = str(status.get("workspace") or os.path.dirname(state_dir))
    name = str(status.get("name") or os.path.basename(workspace))
    return Target(name, workspace, state_dir, config)


def _by_workspace(workspace: str, state_dir: str | None, config: str) -> Target:
    try:
        path = os.path.abspath(os.path.expanduser(workspace))
    except FileNotFoundError:
        raise UsageError("the current directory no longer exists; give --workspace") from None
    if not os.path.isdir(path):
        what = "is not a directory" if os.path.exists(path) else "does not exist"
        raise UsageError(f"workspace {path} {what}")
    chosen = _state_dir_of(path, state_dir, config)
    status = read_status(chosen)
    return Target(str(status.get("name") or os.path.basename(path) or path), path, chosen, config)


def _state_dir_of(workspace: str, given: str | None, config: str) -> str:
    """Flag > environment > file > default; else where the last supervisor here really put it."""
    setting: object = given or os.environ.get(ENVIRONMENT + "STATE_DIR")
    setting = setting or read_config(workspace, config).get("state_dir")
    if not isinstance(setting, str) or not setting:
        setting = DEFAULT_STATE_DIR
    configured = os.path.normpath(os.path.join(workspace, os.path.expanduser(setting)))
    if given or os.path.exists(os.path.join(configured, "status.json")):
        return configured
    real = os.path.realpath(workspace)
    used = [
        entry
        for entry in registry.entries(clean=False)
        if os.path.realpath(entry.workspace) == real
    ]
    return used[0].state_dir if len(used) == 1 else configured


def write_out(path: str, data: bytes, said: str = "") -> None:
    """Write what a command has made: to stdout for "-", else into a file, and say where; `said` is
    added. Raises UsageError."""
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    say(f"Wrote {os.path.abspath(path)}{said}.")


def say(text: str) -> None:
    """One message on stdout, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
