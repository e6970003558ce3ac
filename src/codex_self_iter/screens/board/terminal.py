"""The board as a program: keys in, lines out, and one task that looks at the files.

It draws only what has become another line, and writes only what the commands write. All that reads
or writes goes through threads, one at a time, so a slow disk holds up no key."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input
from textual.worker import WorkerFailed

from codex_self_iter.core.foreign import as_dict, as_int
from codex_self_iter.core.text import clean, one_line, size
from codex_self_iter.errors import CodexSelfIterError
from codex_self_iter.screens import kept, steering
from codex_self_iter.screens.board import sheets
from codex_self_iter.screens.board.bindings import BY_KEY, TABS
from codex_self_iter.screens.board.drawing import Pieces, body_size, draw
from codex_self_iter.screens.board.showing import Body, Level, Line, Showing
from codex_self_iter.screens.loops import Target
from codex_self_iter.screens.outputs import Output, Run, runs
from codex_self_iter.screens.records import after, latest, older
from codex_self_iter.screens.sources import Loops, Shown
from codex_self_iter.views.timeline import Iteration, colour, iteration, iterations
from codex_self_iter.views.troubles import troubles
from codex_self_iter.world.guarded import stat_or_none

T = TypeVar("T")
LOOK_SEC, ALL_SEC = 0.5, 1.0
"""Between two looks at the loop that is shown, and at all of them."""
ITERATIONS = 200
"""So many are read at first, and with each step further back."""
_STYLE_OF = {"": Style()}
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


class Canvas(Widget, can_focus=True):
    """The whole screen, line by line."""

    def __init__(self) -> None:
        super().__init__()
        self._drawn: list[Pieces] = []

    def show(self, drawn: list[Pieces]) -> None:
        """Draw the lines that have changed."""
        old, self._drawn = self._drawn, drawn
        regions = [
            Region(0, y, self.size.width, 1)
            for y in range(max(len(old), len(drawn)))
            if old[y : y + 1] != drawn[y : y + 1]
        ]
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        pieces = self._drawn[y] if y < len(self._drawn) else []
        strip = Strip([Segment(text, _style(style)) for text, style in pieces])
        return strip.adjust_cell_length(self.size.width, Style())

    def on_key(self, event: events.Key) -> None:
        """Every key goes to the board, and nowhere else."""
        event.stop()
        event.prevent_default()
        board = self.app
        assert isinstance(board, Board)
        # a character as it is, so that ":" and "!" are what is on the keyboard
        plain = event.character if event.is_printable and event.character != " " else event.key
        board.press(plain or event.key)

    def on_mouse_scroll_down(self) -> None:
        """A page goes down by some lines."""
        self._scrolled(3)

    def on_mouse_scroll_up(self) -> None:
        """And up."""
        self._scrolled(-3)

    def _scrolled(self, rows: int) -> None:
        board = self.app
        assert isinstance(board, Board)
        board.scrolled(rows)


def _style(words: str) -> Style:
    if words not in _STYLE_OF:
        _STYLE_OF[words] = Style.parse(words)
    return _STYLE_OF[words]


class Typed(Input):
    """The line in which a message or a search is typed; no other key than enter and esc leaves it."""

    def on_key(self, event: events.Key) -> None:
        """Leave with esc; tab and the like do nothing here."""
        board = self.app
        assert isinstance(board, Board)
        if event.key == "escape":
            event.stop()
            board.typed(None)
        elif event.key in ("tab", "shift+tab", "ctrl+q", "ctrl+c"):
            event.stop()
            event.prevent_default()


class Board(App[None]):
    """All loops, one loop, one iteration."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; overflow: hidden; }
    Canvas { width: 1fr; height: 1fr; background: ansi_default; color: ansi_default; }
    Typed { dock: bottom; height: 1; border: none; padding: 0; display: none;
            background: ansi_default; color: ansi_default; }
    """

    def __init__(
        self, reader: Reader, chosen: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        """`chosen`: state directory of the loop to open, "" for the list of all; `clock`: Unix
        seconds."""
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.on = Showing(chosen=chosen, level=Level.LOOP if chosen else Level.LOOPS)
        self.failed: BaseException | None = None
        self._reader, self._clock = reader, clock
        self._canvas, self._typed = Canvas(), Typed()
        self._found: Found | None = None
        self._older = 0
        self._wake = asyncio.Event()
        self._answer: Callable[[], str] | None = None
        self._take: Callable[[str], None] | None = None
        self._known = 0
        self._minute = 0
        """In which it was drawn last: what is said of ages changes no more often."""
        self.looks = 0
        """How often the files were looked at."""

    # -- the frame ---------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Two widgets: the screen, and the line that is typed."""
        yield self._canvas
        yield self._typed

    def on_mount(self) -> None:
        """Begin to look."""
        self._canvas.focus()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.exit)
        self.redraw()
        self.run_worker(self._watch(), exit_on_error=True)

    def on_resize(self) -> None:
        """Another size is another picture."""
        self.call_after_refresh(self.redraw)

    def _handle_exception(self, error: Exception) -> None:
        """A defect ends the board without a traceback across the terminal; `failed` has it."""
        if self.failed is None:
            self.failed = error.error if isinstance(error, WorkerFailed) else error
        self.exit()

    def redraw(self) -> None:
        """Draw what has changed."""
        self.on.now = self._clock()
        size = self._canvas.size
        if size.width and size.height:
            self._canvas.show(draw(self.on, size.width, size.height))

    def _room(self) -> tuple[int, int]:
        size = self._canvas.size
        return body_size(self.on, size.width, size.height)

    # -- looking -----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            self._wake.clear()
            meant = Meant(self.on.chosen, self.on.number, self.on.tab, self._older)
            self._apply(await _aside(functools.partial(self._reader.look, meant)))
            self.looks += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK_SEC)

    def _apply(self, found: Found) -> None:
        """Show what was found, unless another thing is meant by now."""
        on, old = self.on, self._found
        self._found = found
        minute = int(self._clock() // 60)
        if old is not None and found.lines is None and minute == self._minute:
            same = old.shown is found.shown and old.done == found.done
            if same and old.meant == found.meant:
                return
        self._minute = minute
        on.loading = False
        on.rows = [one.row for one in found.shown]
        if not on.chosen or on.row is None:
            on.chosen = found.meant.state_dir if on.rows else ""
        if found.meant.state_dir != on.chosen:
            self._wake.set()
            self.redraw()
            return
        self._take_loop()
        on.iterations = found.done[::-1]
        newest = on.iterations[0].number if on.iterations else 0
        if on.number is None:
            self._known, on.new = newest, 0
        elif newest > self._known:
            on.new = newest
        if (found.meant.number, found.meant.tab) == (on.number, on.tab) and found.lines is not None:
            if not found.fresh:
                on.body.extend(found.lines)
            elif found.lines != on.body.lines:
                on.body = Body(found.lines)
                on.found = -1
        self.redraw()

    def _take_loop(self) -> None:
        """What is known of the loop that is meant."""
        shown = self._shown()
        self.on.seen = shown.seen if shown else None
        self.on.troubles = troubles(shown.seen, shown.around) if shown else []

    def _shown(self) -> Shown | None:
        every = self._found.shown if self._found else []
        return next((one for one in every if one.row.state_dir == self.on.chosen), None)

    def _other(self) -> None:
        """Something else is meant: its text is read at once."""
        on = self.on
        on.body, on.scroll, on.found = Body(), 0, -1
        on.tail = TABS[on.tab] == "output"
        self._wake.set()

    # -- keys --------------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        """Do what a key is for, or say why not."""
        on = self.on
        on.message, on.bad = "", False
        if on.question:
            self._answered(key)
        elif (binding := BY_KEY.get(key)) is None:
            self._say(f"{clean(key, 20)} does nothing here; ? shows the keys", bad=True)
        elif on.help and binding.does not in ("down", "up", "first", "last", "back", "quit"):
            on.help, on.scroll = False, 0
        elif binding.does == "tab":
            self._to_tab(int(key) - 1)
        else:
            getattr(self, f"do_{binding.does}")()
        self.redraw()

    def _say(self, text: str, *, bad: bool = False) -> None:
        self.on.message, self.on.bad = one_line(text, 1000), bad

    def do_down(self) -> None:
        """One further."""
        self._step(1)

    def do_up(self) -> None:
        """One back."""
        self._step(-1)

    def _step(self, by: int) -> None:
        on = self.on
        if on.help or on.level is Level.ITERATION:
            self.scrolled(by)
        elif on.level is Level.LOOPS:
            self._choose_loop(self._place() + by)
        else:
            self._choose_iteration(self._place() + by)

    def _place(self) -> int:
        on = self.on
        if on.level is Level.LOOPS:
            return next((n for n, row in enumerate(on.rows) if row.state_dir == on.chosen), 0)
        meant = on.iteration
        return next((n for n, one in enumerate(on.iterations) if one is meant), 0)

    def _choose_loop(self, place: int) -> None:
        on = self.on
        if not on.rows:
            self._say("there is no loop", bad=True)
        elif not 0 <= place < len(on.rows):
            self._say("there is no other loop in this direction")
        elif on.rows[place].state_dir != on.chosen:
            on.chosen, on.number, on.new = on.rows[place].state_dir, None, 0
            on.iterations, self._older = [], 0
            self._take_loop()
            self._other()

    def _choose_iteration(self, place: int) -> None:
        on = self.on
        if not on.iterations:
            self._say("there is no iteration yet", bad=True)
        elif place >= len(on.iterations):
            self._say("no further iteration was read; < reads older ones")
        elif place < 0:
            self._say("this is the newest iteration")
        else:
            on.number = on.iterations[place].number if place else None
            on.new = 0 if place == 0 else on.new
            self._other()

    def scrolled(self, rows: int) -> None:
        """Scroll the text, or the help."""
        on = self.on
        columns, room = self._room()
        if on.help:
            on.scroll = max(0, on.scroll + rows)
            return
        last = max(0, len(on.body.wrapped(columns)) - room)
        at = last if on.tail else min(on.scroll, last)
        on.scroll = max(0, min(last, at + rows))
        on.tail = on.scroll == last and TABS[on.tab] == "output"
        if on.scroll == at:
            self._say("this is the end" if rows > 0 else "this is the beginning")
        self.redraw()

    def do_first(self) -> None:
        """The first loop, iteration or row."""
        self._jump(first=True)

    def do_last(self) -> None:
        """The last one."""
        self._jump(first=False)

    def _jump(self, *, first: bool) -> None:
        on = self.on
        if on.help or on.level is Level.ITERATION:
            on.tail = not first
            on.scroll = 0 if first else 10**9
        elif on.level is Level.LOOPS:
            self._choose_loop(0 if first else len(on.rows) - 1)
        else:
            self._choose_iteration(0 if first else len(on.iterations) - 1)

    def do_zoom(self) -> None:
        """Closer."""
        on = self.on
        if on.row is None:
            self._say("there is no loop to open", bad=True)
        elif on.level is Level.LOOP and not on.iterations:
            self._say("there is no iteration to open yet", bad=True)
        elif on.level is Level.ITERATION:
            self._say("this is as close as it gets; esc goes back")
        else:
            on.level = Level(on.level + 1)

    def do_back(self) -> None:
        """Further away."""
        on = self.on
        if on.help:
            on.help, on.scroll = False, 0
        elif on.level is Level.LOOPS:
            self._say("these are all loops; q leaves")
        else:
            on.level = Level(on.level - 1)

    def do_next_tab(self) -> None:
        """The tab to the right."""
        self._to_tab((self.on.tab + 1) % len(TABS))

    def do_last_tab(self) -> None:
        """The tab to the left."""
        self._to_tab((self.on.tab - 1) % len(TABS))

    def do_diff(self) -> None:
        """What the iteration changed."""
        self._to_tab(TABS.index("diff"))

    def _to_tab(self, tab: int) -> None:
        on = self.on
        columns, _ = self._room()
        if columns and on.level is not Level.ITERATION and self.size.width < 80:
            on.level = Level.ITERATION  # in one column there is no text beside the list
        if tab != on.tab:
            on.tab = tab
            self._other()

    def do_page_down(self) -> None:
        """The next page of the text."""
        self.scrolled(max(1, self._room()[1] - 1))

    def do_page_up(self) -> None:
        """The page before."""
        self.scrolled(-max(1, self._room()[1] - 1))

    def do_follow(self) -> None:
        """Go with the newest iteration, or stay with the one that is shown."""
        on = self.on
        if on.number is None and on.iterations:
            on.number, self._known = on.iterations[0].number, on.iterations[0].number
            self._say(f"stays with iteration {on.number}; f follows again")
        else:
            on.number, on.new = None, 0
            self._say("follows the newest iteration")
            self._other()

    def do_earlier(self) -> None:
        """Older iterations."""
        if self.on.row is None:
            self._say("there is no loop", bad=True)
            return
        self._older += 1
        self._say("older iterations are read")
        self._wake.set()

    def do_help(self) -> None:
        """The keys."""
        self.on.help, self.on.scroll = not self.on.help, 0

    def do_quit(self) -> None:
        """Leave; the loops go on."""
        self.exit()

    # -- searching ---------------------------------------------------------------------------------

    def do_search(self) -> None:
        """Ask for what is to be found."""
        self._type("search: ", self._search)

    def _search(self, text: str) -> None:
        self.on.searched = text
        self._match(1, start=0)

    def do_next_match(self) -> None:
        """The next one."""
        self._match(1)

    def do_last_match(self) -> None:
        """The one before."""
        self._match(-1)

    def _match(self, step: int, start: int | None = None) -> None:
        on = self.on
        word = on.searched.casefold()
        if not word:
            self._say("nothing was searched yet; / asks", bad=True)
            return
        if on.level is Level.LOOPS:
            texts = [f"{row.name} {row.state} {row.doing} {row.workspace}" for row in on.rows]
            at = self._place()
        else:
            texts = [text for text, _ in on.body.wrapped(self._room()[0])]
            at = on.found
        first = start if start is not None else at + step
        order = [(first + step * n) % len(texts) for n in range(len(texts))]
        place = next((n for n in order if word in texts[n].casefold()), -1)
        if place < 0:
            self._say(f"{clean(on.searched, 80)!r} is not there", bad=True)
        elif on.level is Level.LOOPS:
            self._choose_loop(place)
        else:
            on.found, on.tail = place, False
            on.scroll = max(0, place - self._room()[1] // 2)

    # -- steering ----------------------------------------------------------------------------------

    def _target(self) -> Shown | None:
        shown = self._shown()
        if shown is None:
            self._say("there is no loop to steer", bad=True)
        return shown

    def _ask(self, question: str, act: Callable[[], str]) -> None:
        self.on.question, self._answer = question, act

    def _answered(self, key: str) -> None:
        act, self._answer, self.on.question = self._answer, None, ""
        if key not in ("y", "Y") or act is None:
            self._say("nothing was done")
        else:
            self._do(act)

    def _do(self, act: Callable[[], str]) -> None:
        self._say("…")
        self.run_worker(self._done(act))

    async def _done(self, act: Callable[[], str]) -> None:
        try:
            said, bad = await _aside(act), False
        except CodexSelfIterError as error:
            said, bad = str(error), True
        self._say(clean(said), bad=bad)
        self._wake.set()
        self.redraw()

    def do_pause(self) -> None:
        """Pause, or go on."""
        if (shown := self._target()) is None:
            return
        loop, name = shown.loop, shown.name
        if shown.around.pause or shown.row.state == "paused":
            self._ask(f"resume {name}?", lambda: steering.resume(steering.aim(loop)))
        else:
            question = f"pause {name} when its iteration ends?"
            self._ask(question, lambda: steering.pause(steering.aim(loop)))

    def do_stop_after(self) -> None:
        """Stop when the iteration has ended."""
        if (shown := self._target()) is None:
            return
        loop = shown.loop
        self._ask(
            f"stop {shown.name} after its iteration?",
            lambda: steering.stop(steering.aim(loop), after_iteration=True),
        )

    def do_stop(self) -> None:
        """Stop now."""
        if (shown := self._target()) is None:
            return
        loop = shown.loop
        ends = steering.ends(steering.Aim(loop, dict(shown.seen.status), shown.seen.life))
        self._ask(f"stop {shown.name} now? ({ends or 'it '}stops)", lambda: _stop(loop))

    def do_steer(self) -> None:
        """A message for the next prompt."""
        self._steer(now=False)

    def do_steer_now(self) -> None:
        """The same, at once."""
        self._steer(now=True)

    def _steer(self, *, now: bool) -> None:
        if (shown := self._target()) is None:
            return
        loop = shown.loop

        def send(text: str) -> None:
            self._do(lambda: steering.steer(steering.aim(loop), text, now=now))

        when = "ends the running agent for it" if now else "for the next prompt"
        self._type(f"tell {shown.name} ({when}); enter sends, esc does not", send)

    def do_rewind(self) -> None:
        """Take the work tree back."""
        shown, one = self._target(), self.on.iteration
        if shown is None:
            return
        if one is None or one.ended is None:
            self._say("choose an iteration that has ended, then r takes it back", bad=True)
        elif shown.seen.life.alive:
            self._say("its supervisor is at work: stop it first (S or X)", bad=True)
        else:
            loop, label = shown.loop, str(one.number)
            question = f"take the work tree of {shown.name} back to iteration {label}?"
            self._ask(question, lambda: kept.go_back(loop, label))

    # -- typing ------------------------------------------------------------------------------------

    def _type(self, words: str, take: Callable[[str], None]) -> None:
        self.on.typing, self._take = words, take
        self._typed.value = ""
        self._typed.display = True
        self._typed.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """What was typed is whole."""
        self.typed(event.value)

    def typed(self, text: str | None) -> None:
        """Take a text, or with None leave it."""
        take, self._take, self.on.typing = self._take, None, ""
        self._typed.display = False
        self._canvas.focus()
        if not (text and text.strip()):
            self._say("nothing was done")
        elif take is not None:
            take(text)
        self.redraw()


async def _aside(call: Callable[[], T]) -> T:
    """A call that may take long, in a thread that nobody waits for when the board ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(take: Callable[[Any], None], value: object) -> None:
        if not future.done():
            take(value)

    def work() -> None:
        try:
            told = functools.partial(settle, future.set_result, call())
        except Exception as error:
            told = functools.partial(settle, future.set_exception, error)
        with suppress(RuntimeError):  # the board has ended meanwhile
            loop.call_soon_threadsafe(told)

    threading.Thread(target=work, daemon=True).start()
    return await future


def _stop(loop: Target) -> str:
    """As `stop` does: with an orphan nobody is there who would obey."""
    at = steering.aim(loop)
    said = steering.stop(at)
    if at.life.orphan:
        from codex_self_iter.screens.alone import end_left  # imports much

        end_left(loop)
        said += f" Ended it (pid {at.life.orphan}), with all that it had started."
    return said
