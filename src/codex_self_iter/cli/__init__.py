"""The command line: one thin file for each command, and only the chosen one is imported.

A command is `add_arguments(parser)` and `run(args) -> exit code`; what several share begins with _.

`main` is the border: here, and nowhere else, an error becomes one line on stderr and an exit code
of the contract."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from codex_self_iter import __version__
from codex_self_iter.errors import CodexSelfIterError, ExitCode, UsageError

TYPE_CHECKING = False  # importing `typing` would cost a tenth of a start
if TYPE_CHECKING:
    from typing import Any, NoReturn, TextIO

PROGRAM = "codex-self-iter"
COMMANDS: dict[str, str] = {
    "run": "run the loop (the default command)",
    "init": "write TASK.md, plan.md and a configuration into a workspace",
    "doctor": "check everything that could stop a run tonight",
    "plan": "have the agent draft a plan, check it, or show how far it has come",
    "status": "what is happening now; all loops without a workspace",
    "digest": "what happened since yesterday, over all loops",
    "notify": "send a test message; what became of those that were sent",
    "top": "all loops in the terminal, and each in depth",
    "logs": "the agent's output, across iterations",
    "history": "a table of the iterations",
    "show": "everything about one iteration",
    "stop": "end the loop, now or after the iteration",
    "pause": "start no further iteration until resume",
    "resume": "go on after a pause",
    "steer": "tell the agent something with the next prompt",
    "goal": "replace the current goal",
    "lanes": "what each lane works on; keep, drop, retry or show one",
    "diff": "what an iteration changed",
    "rewind": "take the work tree back to an iteration",
    "serve": "all loops in a browser, also on a phone",
    "mcp": "the loops as tools for agents and desktops (MCP, on stdin and stdout)",
    "export": "one loop as one HTML file",
    "config": "show, check or describe the configuration",
    "service": "install the supervisor as a systemd or launchd service",
    "demo": "a complete run on a sample workspace, without any agent installed",
    "version": "what is installed: version, Python, platform, libraries, extras",
}
HIDDEN = {"complete": "shell completion"}
_MODULES = {"resume": "pause"}
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)
_CALLERS_REPOSITORY = """GIT_DIR GIT_WORK_TREE GIT_IMPLICIT_WORK_TREE GIT_COMMON_DIR GIT_INDEX_FILE
    GIT_INDEX_VERSION GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_NAMESPACE GIT_PREFIX
    GIT_CONFIG GIT_CONFIG_PARAMETERS GIT_GRAFT_FILE GIT_SHALLOW_FILE GIT_NO_REPLACE_OBJECTS
    GIT_REPLACE_REF_BASE GIT_QUARANTINE_PATH GIT_INTERNAL_SUPER_PREFIX GIT_INTERNAL_GETTEXT_SH_SCHEME
    GIT_LITERAL_PATHSPECS GIT_GLOB_PATHSPECS GIT_NOGLOB_PATHSPECS GIT_ICASE_PATHSPECS GIT_ATTR_SOURCE
    GIT_REFLOG_ACTION GIT_AUTHOR_DATE GIT_COMMITTER_DATE"""
"""What git sets for its hooks, aliases and `rebase --exec`: who is started by one of these would
work, and let agents and gates work, on another repository than the workspace's. Names, keys and
settings of the person (GIT_AUTHOR_NAME, GIT_SSH_COMMAND, GIT_CONFIG_GLOBAL…) stay."""
_COMMON_OPTIONS = ("--workspace", "--state-dir", "--config")


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError, knows no abbreviations and suggests the nearest option."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def _get_formatter(self) -> argparse.HelpFormatter:
        """With a known width: to ask for it, argparse would import all of `shutil`."""
        return argparse.HelpFormatter(self.prog, width=_columns() - 2)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage."""
        said = " ".join(map(brief, message.split(" ")))
        raise UsageError(f"{said}{self._suggestion(message)}\nSee: {self.prog} --help")

    def _suggestion(self, message: str) -> str:
        prefix = "unrecognized arguments: "
        if not message.startswith(prefix):
            return ""
        known = [text for action in self._actions for text in action.option_strings]
        hints = []
        words = message[len(prefix) :].split()
        takes_task = any(action.metavar in ("TASK", "check|show|TASK") for action in self._actions)
        alone = len(words) == 1 and words[0] in COMMANDS
        if takes_task and not alone and not any(word.startswith("-") for word in words):
            return f' (a task in words needs quotes: {self.prog} "Make the tests pass")'
        for word in words:
            if word in COMMANDS:
                return f" (the command goes first: {PROGRAM} {word} ...)"
            near = nearest(word.partition("=")[0], known) if word.startswith("-") else ""
            hints += [f"{near} for {word.partition('=')[0]}"] if near else []
        return f" (did you mean {', '.join(hints)}?)" if hints else ""


def _columns() -> int:
    given = os.environ.get("COLUMNS", "")
    try:
        return int(given) if given.isdigit() and int(given) else os.get_terminal_size(1).columns
    except OSError:
        return 80


def brief(word: str) -> str:
    """What was typed, as far as an error needs it to name it: a whole file may have been pasted."""
    return word if len(word) <= 80 else f"{word[:79]}…"


def nearest(word: str, known: Sequence[str]) -> str:
    """The known word that `word` was probably meant to be, or ""."""
    import difflib

    bare = {one.lstrip("-"): one for one in known}
    near = difflib.get_close_matches(word.lstrip("-"), list(bare), n=1, cutoff=0.7)
    return bare[near[0]] if near else ""


def split_command(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The command, `run` when there is none, and the other words. Raises UsageError."""
    index = 0
    while index < len(argv) and argv[index].partition("=")[0] in _COMMON_OPTIONS:
        index += 1 if "=" in argv[index] else 2
    word = argv[index] if index < len(argv) else ""
    if word in COMMANDS or word in HIDDEN:
        return word, [*argv[:index], *argv[index + 1 :]]
    if word and not word.startswith("-"):
        if " " in word.strip():
            raise UsageError(f"{brief(word)!r} is no command; did you mean run {brief(word)!r}?")
        near = nearest(word, list(COMMANDS))
        hint = f" (did you mean {near!r}?)" if near else ""
        raise UsageError(f"unknown command {brief(word)!r}{hint}\nCommands: {', '.join(COMMANDS)}")
    return "run", list(argv)


def build_parser(command: str) -> tuple[Parser, Any]:
    """The parser of one command, and its module. Raises UsageError when it is not there."""
    name = f"{__name__}.{_MODULES.get(command, command)}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UsageError(f"the command {command!r} is not part of this installation") from None
    description = (COMMANDS | HIDDEN)[command]
    parser = Parser(
        prog=f"{PROGRAM} {command}", description=description[0].upper() + description[1:] + "."
    )
    parser.set_defaults(command=command)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    module.add_arguments(parser)
    return parser, module


def overview() -> str:
    """The text of `--help` without a command."""
    width = max(map(len, COMMANDS)) + 2
    rows = "\n".join(f"  {name:<{width}}{text}" for name, text in COMMANDS.items())
    return (
        f"usage: {PROGRAM} [COMMAND] [options]\n\n"
        "Keeps a coding agent working in your repository, unattended, until the work is proven complete.\n\n"
        f"Commands (run is meant when none is given):\n{rows}\n\n"
        f"'{PROGRAM} COMMAND --help' explains one of them; 'run --help' lists every setting.\n"
        f"Without a workspace the current directory is meant.\n"
    )


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code, whatever became of its output."""
    _make_output_robust()
    for name in _CALLERS_REPOSITORY.split():
        os.environ.pop(name, None)
    code = _guarded(list(argv))
    for stream in (sys.stdout, sys.stderr):
        _settle(stream)
    return code


def _guarded(argv: list[str]) -> int:
    try:
        return _dispatch(argv)
    except SystemExit as end:  # argparse: --help, --version
        return end.code if isinstance(end.code, int) else int(ExitCode.OK)
    except CodexSelfIterError as error:
        from codex_self_iter.cli._program import as_typed

        _complain(f"{PROGRAM}: {as_typed(str(error), COMMANDS)}")
        return int(error.exit_code)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        _silence(sys.stdout)
        return int(ExitCode.OK)
    except KeyboardInterrupt:
        return int(ExitCode.SIGINT)
    except Exception as error:
        # Commands name their files in what they raise: what has none was said by the output itself.
        if isinstance(error, OSError) and error.filename is None and error.errno in _UNWRITABLE:
            return _cannot_write(error.strerror or str(error))
        if isinstance(error, FileNotFoundError) and not _has_directory():
            gone = "the current directory does not exist any more; change to one that does"
            _complain(f"{PROGRAM}: {gone}")
            return int(ExitCode.USAGE)
        return _report_defect(error, argv)


def _has_directory() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def _dispatch(argv: list[str]) -> int:
    if argv[:1] in (["-h"], ["--help"], ["help"]):
        sys.stdout.write(overview())
        return int(ExitCode.OK)
    command, rest = split_command(argv)
    parser, module = build_parser(command)
    args = parser.parse_args(rest)
    if command != "run":  # it has its own; the others end like any program
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if callable(signal.getsignal(signal.SIGHUP)):  # nohup leaves it ignored
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
    code = int(module.run(args))
    problem = _settle(sys.stdout)
    if problem and command != "run":  # a loop's end is told by its exit code, whoever listens
        return code or _cannot_write(problem)
    return code


def _cannot_write(problem: str) -> int:
    _complain(f"{PROGRAM}: cannot write the output: {problem}")
    return int(ExitCode.INTERNAL)


def _report_defect(error: Exception, argv: list[str]) -> int:
    from codex_self_iter.world import crashlog

    where = crashlog.write(error, argv)
    _complain(f"{PROGRAM}: internal error: {type(error).__name__}: {error}".splitlines()[0])
    _complain(f"The traceback is in {where}; please report it." if where else "")
    return int(ExitCode.INTERNAL)


def _complain(text: str) -> None:
    """Say it, unless nobody reads: that must not hold up the exit code."""
    if text:
        from codex_self_iter.world.console import say

        say(sys.stderr, text)


def _make_output_robust() -> None:
    """Text that the terminal's encoding cannot show, or a closed stream, must not end a command.

    A closed descriptor 0, 1 or 2 becomes /dev/null: the next file that is opened would be taken for
    it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
            os.set_inheritable(number, True)
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # lives as long as the process


def _settle(stream: TextIO) -> str:
    """Flush what can be; else keep the interpreter quiet about it at its end. What was wrong, but
    for a reader (head, less) that has seen enough."""
    try:
        stream.flush()
    except BrokenPipeError:
        _silence(stream)
    except OSError as error:
        _silence(stream)
        return error.strerror or str(error)
    return ""


def _silence(stream: TextIO) -> None:
    """Keep the interpreter from complaining about the closed pipe when it flushes at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        pass
