"""`plan "TASK"`: the dialogue in which a plan is made."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import anyio

from codex_self_iter.cli.init import free_name
from codex_self_iter.core.drafting import Draft
from codex_self_iter.core.plan_lint import Remark, lint
from codex_self_iter.core.text import clean, clean_block, listed
from codex_self_iter.errors import ExitCode, UsageError
from codex_self_iter.screens.alone import free_for_a_run
from codex_self_iter.settings import load, validate_workspace
from codex_self_iter.setup.detect import with_gates
from codex_self_iter.setup.sentence import checked
from codex_self_iter.supervisor.planning import Planner, keep
from codex_self_iter.world.console import say
from codex_self_iter.world.guarded import read_guarded
from codex_self_iter.world.state.store import StateDirectory

MAX_BYTES = 1024 * 1024
"""Longest task in a file."""
ROUNDS = 3
"""So often an agent may ask before it has to plan."""
_CHOICES = "[a]ccept, [r]evise in words, [e]dit, [q]uit? "
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_WORDS = ("accept", "revise", "edit", "quit")


def run(args: argparse.Namespace, words: str) -> int:
    """Have a plan made for `words`, a task, a file with one, or "-"; the exit code.

    Raises UsageError, WorkspaceBusyError."""
    _end_as_interrupted()
    asks = sys.stdin.isatty() and sys.stderr.isatty() and words != "-"
    if not (asks or args.yes):
        raise UsageError("there is no terminal to ask at: give --yes to take the plan as it comes")
    task = _task(words)
    flags = {"workspace": args.workspace, "state_dir": args.state_dir}
    settings = load(flags, config_file=args.config, environ=os.environ, cwd=os.getcwd())
    settings = with_gates(settings, os.environ, new=True)
    paths = validate_workspace(settings, documents=False)
    store = StateDirectory(str(paths.state_dir), str(paths.workspace))
    try:
        with free_for_a_run(str(paths.workspace), str(paths.state_dir)):
            gates = bool(settings.verify.commands)
            talk = _Talk(Planner(settings, paths, store, task), gates, ask=asks and not args.yes)
            try:
                plan = talk.until_agreed()
            except EOFError:
                plan = ""
            except KeyboardInterrupt:
                say(sys.stderr, "\nNothing was written.")  # the terminal may be gone
                raise
            if not plan:
                _say("Nothing was written.")
                return int(ExitCode.OK)
            path = keep(store, paths, task, plan, free_name)
    finally:
        store.close()
    where = f" --workspace {shlex.quote(args.workspace)}" if args.workspace else ""
    _say(f"The plan is in {path}. Start it: codex-self-iter run{where}")
    return int(ExitCode.OK)


def _end_as_interrupted() -> None:
    """SIGTERM and a terminal that is closed end it as Ctrl-C does: with the agent's run."""
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))


def _task(words: str) -> str:
    if words != "-" and not os.path.isfile(words):
        return checked(words)
    name = "standard input" if words == "-" else words
    try:
        data = (
            sys.stdin.buffer.read(MAX_BYTES + 1)
            if words == "-"
            else read_guarded(words, MAX_BYTES + 1, follow=True)
        )
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UsageError(f"{name} cannot be read ({error.strerror or error})") from None
    if not text.strip() or len(text.encode()) > MAX_BYTES:
        what = f"is larger than {MAX_BYTES // 2**20} MiB" if text.strip() else "is empty"
        raise UsageError(f"{name} {what}; write down what is wanted")
    return text


class _Talk:
    """Drafts, and what is said of them, until there is a plan or none."""

    def __init__(self, planner: Planner, gates: bool, *, ask: bool) -> None:
        self._planner, self._gates, self._ask = planner, gates, ask
        self._said: list[str] = []
        self._plan = ""

    def until_agreed(self) -> str:
        """The plan, "" when the person wants none. Raises UsageError for one that is wrong, EOFError
        at the end of input."""
        self._draft()
        if not self._ask:
            return self._as_it_comes()
        while True:
            self._show()
            said = _input(_CHOICES).strip().lower()
            choice = next((word for word in _WORDS if said and word.startswith(said)), "")
            if choice == "accept":
                return self._plan
            if choice == "quit":
                return ""
            if choice == "edit":
                self._edit()
            elif choice == "revise" and (words := _input("What should be different? ").strip()):
                self._said.append(words)
                self._draft()

    def _draft(self) -> None:
        for left in reversed(range(ROUNDS + 1)):
            _say(f"{self._planner.agent.name} is at it …")
            try:
                found: Draft = anyio.run(self._again, bool(left) and self._ask)
            finally:
                if names := clean(listed(self._planner.changed)):
                    _say(f"{self._planner.agent.name} was to plan and has changed files: {names}")
            if found.plan:
                self._plan = found.plan
                return
            for question in found.questions:
                self._said.append(f"{question}\n{_input(f'{clean(question)} ')}")

    async def _again(self, may_ask: bool) -> Draft:
        return await self._planner.draft(self._plan, self._said, may_ask=may_ask)

    def _as_it_comes(self) -> str:
        """Without a person; what is wrong in it is told to the agent once."""
        faults = self._faults()
        if faults:
            self._said += [f"line {one.line}: {one.what}; {one.mend}" for one in faults]
            self._draft()
            faults = self._faults()
        self._show()
        if faults:
            raise UsageError("the plan that was drafted is wrong; nothing was written")
        return self._plan

    def _faults(self) -> list[Remark]:
        return [one for one in lint(self._plan, gates=self._gates) if one.fault]

    def _show(self) -> None:
        sys.stdout.write(f"\n{clean_block(self._plan)}\n")
        for one in lint(self._plan, gates=self._gates):
            kind = "fault" if one.fault else "suggestion"
            sys.stdout.write(f"line {one.line}: {kind}: {clean(f'{one.what}; {one.mend}')}\n")
        sys.stdout.flush()

    def _edit(self) -> None:
        """Let the person edit it; what the editor leaves counts when it ends well."""
        set_to = (os.environ.get(name, "").strip() for name in ("VISUAL", "EDITOR"))
        editor = next(filter(None, set_to), "vi")
        with tempfile.TemporaryDirectory(prefix="csi-plan-") as place:
            path = os.path.join(place, "plan.md")
            with open(path, "w", encoding="utf-8") as file:
                file.write(self._plan)
            try:
                with _keyboard_is_the_editors():
                    code = subprocess.run([*shlex.split(editor), path], check=False).returncode
                with open(path, encoding="utf-8-sig") as file:
                    text = file.read()
            except (OSError, ValueError) as error:
                _say(f"{editor} cannot be used ({error}); set EDITOR. The plan is as it was.")
                return
        if code or not text.strip():
            how = f"ended with {code}" if code else "left an empty file"
            _say(f"{editor} {how}. The plan is as it was.")
            return
        self._plan = text


@contextlib.contextmanager
def _keyboard_is_the_editors() -> Iterator[None]:
    """Ctrl-C means something else in an editor; what else ends the dialogue ends both."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    keyboard = signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN: an editor inherits that
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGINT, keyboard)


def _input(question: str) -> str:
    """A line of the person. Raises EOFError at the end of input."""
    sys.stderr.write(question)
    sys.stderr.flush()
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    return line.decode("utf-8", "replace")  # a terminal may send what is no UTF-8


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
