"""What the board reads of the files at one look, and what has changed since the last."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from codex_self_iter.core.foreign import as_dict, as_int
from codex_self_iter.core.text import clean, size
from codex_self_iter.errors import CodexSelfIterError
from codex_self_iter.screens.board import sheets
from codex_self_iter.screens.board.bindings import TABS
from codex_self_iter.screens.board.showing import Line
from codex_self_iter.screens.loops import Target
from codex_self_iter.screens.outputs import Output, Run, runs
from codex_self_iter.screens.records import after, latest, older
from codex_self_iter.screens.sources import Loops, Shown
from codex_self_iter.views.timeline import Iteration, colour, iteration, iterations
from codex_self_iter.world.guarded import stat_or_none

ALL_SEC = 1.0
"""Between two looks at all loops."""
ITERATIONS = 200
"""So many are read at first, and with each step further back."""
_OPEN = ("starting", "running", "verifying", "stopping")


class Meant(NamedTuple):
    """What is to be read: a loop, an iteration (None: the newest), a tab; `older`: iterations of
    before, too."""

    state_dir: str
    number: int | None
    tab: int
    older: int


class Found(NamedTuple):
    """What a look has found. `fresh`: the lines take the place of those before, else they come at
    their end; `lines` is None where nothing has changed."""

    meant: Meant
    shown: list[Shown]
    done: list[Iteration]
    lines: list[Line] | None
    fresh: bool


class Reader:
    """Looks at the files. For one thread at a time; never raises for what it finds there."""

    def __init__(self, named: list[Target]) -> None:
        self._loops = Loops(named)
        self._all_at = 0.0
        self._dir = ""
        self._mark = ""
        self._first = ""
        self._steps = 0
        self._done: list[Iteration] = []
        self._key: object = None
        self._open: list[tuple[str, Output]] = []
        self._runs: list[Run] = []
        self._runs_stamp: object = None

    def look(self, meant: Meant) -> Found:
        """What there is now. Without a loop in `meant` it is the most urgent one."""
        steady = time.monotonic()
        if meant.state_dir != self._dir or steady >= self._all_at:
            self._loops.closely = meant.state_dir
            self._loops.refresh()
            self._all_at = steady + ALL_SEC
        shown = self._loops.shown
        one = next((s for s in shown if s.row.state_dir == meant.state_dir), None)
        one = one or next(iter(shown), None)
        if one is None:
            return Found(meant, [], [], [], fresh=True)
        meant = meant._replace(state_dir=one.row.state_dir)
        problem = ""
        try:
            self._follow(meant)
        except CodexSelfIterError as error:
            problem = clean(str(error))
        done = [*self._done, *under_way(one, self._done)]
        lines, fresh = self._lines(meant, one, done)
        if problem and lines is not None:
            lines = [(problem, "red"), *lines]
        return Found(meant, shown, done, lines, fresh)

    def close(self) -> None:
        """Close what is open."""
        for _, output in self._open:
            output.close()

    def _follow(self, meant: Meant) -> None:
        """Bring the iterations up to date."""
        if meant.state_dir != self._dir:
            self._dir, self._mark, self._first, self._steps, self._done = (
                meant.state_dir,
                "",
                "",
                0,
                [],
            )
        if self._mark:
            found = after(self._dir, self._mark)
            self._done = iterations_of(self._done, [iteration(one.record) for one in found])
        else:
            found = latest(self._dir, ITERATIONS)
            self._done = iterations(one.record for one in found)
            self._first = found[0].mark if found else ""
        self._mark = found[-1].mark if found else self._mark
        while self._steps < meant.older and self._first:
            self._steps += 1
            before = older(self._dir, self._first, ITERATIONS)
            self._first = before[0].mark if before else ""
            self._done = [iteration(one.record) for one in before] + self._done

    def _lines(
        self, meant: Meant, one: Shown, done: list[Iteration]
    ) -> tuple[list[Line] | None, bool]:
        number = done[-1].number if meant.number is None and done else meant.number
        which = next((it for it in done if it.number == number), None)
        if TABS[meant.tab] == "output":
            return self._output(meant, number or 0)
        key = (meant.state_dir, meant.tab, self._version(meant, one, which))
        if key == self._key:
            return None, True
        self._key = key
        return sheets.sheet(meant.tab, one, which, done, time.time()), True

    def _version(self, meant: Meant, one: Shown, which: Iteration | None) -> object:
        """What must differ for a tab to be made anew."""
        number = (which.number, which.ended) if which else None
        status = one.seen.status
        match TABS[meant.tab]:
            case "plan":
                plan = str(as_dict(status.get("plan")).get("path") or "")
                stamp = _stamp(plan or os.path.join(one.seen.workspace, "plan.md"))
                return stamp, status.get("goal"), one.seen.waiting, self._mark
            case "messages":
                inbox = os.path.join(meant.state_dir, "inbox")
                return _stamp(inbox), _stamp(os.path.join(inbox, "done"))
            case "history" | "plots":
                return self._mark, len(self._done)
            case "prompt":
                return number, as_dict(status.get("run")).get("run_id")
        return number

    def _output(self, meant: Meant, number: int) -> tuple[list[Line] | None, bool]:
        """Everything of the iteration's runs, then what they have printed since."""
        key = (meant.state_dir, 0, number)
        fresh = key != self._key
        if fresh:
            self.close()
            self._key, self._open = key, []
        have = {name for name, _ in self._open}
        found: list[Line] = []
        stamp = _stamp(os.path.join(meant.state_dir, "logs", "runs"))
        every = self._runs
        if fresh or stamp != self._runs_stamp:
            every = [run for run in runs(meant.state_dir) if run.iteration == number]
            self._runs, self._runs_stamp = every, stamp
        for run in every:
            if run.name not in have:
                found += self._begun(run, number)
        if self._open and have:
            found += sheets.items(self._open[-1][1].new())
        if fresh and not every:
            found.append(("This iteration has printed nothing that is kept.", "dim"))
        return (found if found or fresh else None), fresh

    def _begun(self, run: Run, number: int) -> list[Line]:
        """What is shown when a run begins, or is looked at first."""
        found = self._last() if self._open else []
        output = Output(run.path)
        self._open.append((run.name, output))
        shown = sheets.items(output.new())
        found.append((f"── {run.name} ──", "cyan"))
        if output.skipped:
            words = f"{size(output.skipped)} before this: codex-self-iter logs {number} has all"
            found.append((words, "dim"))
        return found + shown

    def _last(self) -> list[Line]:
        """What the run before had not finished when the next one began."""
        output = self._open[-1][1]
        return [*sheets.items(output.new()), *sheets.items(output.finish())]


def _stamp(path: str) -> object:
    """What is another one when a file, or the names in a directory, have changed."""
    found = stat_or_none(path)
    return found and (found.st_ino, found.st_mtime_ns, found.st_size)


def iterations_of(known: list[Iteration], more: list[Iteration]) -> list[Iteration]:
    """The same, and those that came; of one number the last counts."""
    if not more:
        return known
    numbers = {one.number for one in more}
    return [one for one in known if one.number not in numbers] + more


def under_way(shown: Shown, done: list[Iteration]) -> list[Iteration]:
    """The iteration that is on, which no journal has."""
    status = shown.seen.status
    number, state = as_int(status.get("iteration")), shown.row.state
    if not number or state not in _OPEN or (done and done[-1].number >= number):
        return []
    blank = iteration({"iteration": number, "goal_in": status.get("goal")})
    return [blank._replace(verdict=state, colour=colour("continue"), summary=shown.row.doing)]
