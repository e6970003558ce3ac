"""The board as a program: keys in, lines out, and one task that looks at the files.

It draws only what has become another line, and writes only what the commands write. All that reads
or writes goes through threads, one at a time, so a slow disk holds up no key."""

from __future__ import annotations

import asyncio
import functools
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from textual.app import ComposeResult
from textual.widgets import Input
from textual.worker import WorkerFailed

from codex_self_iter.core.text import clean, one_line
from codex_self_iter.errors import CodexSelfIterError
from codex_self_iter.screens import kept, steering
from codex_self_iter.screens.board.aside import aside
from codex_self_iter.screens.board.bindings import BY_KEY, TABS
from codex_self_iter.screens.board.drawing import body_size, draw
from codex_self_iter.screens.board.looking import Found, Meant, Reader
from codex_self_iter.screens.board.showing import Body, Level, Showing
from codex_self_iter.screens.board.widgets import Canvas, Keyed, Typed
from codex_self_iter.screens.sources import Shown
from codex_self_iter.views.troubles import troubles

LOOK_SEC = 0.5
"""Between two looks at the loop that is shown."""
LEAVE_SEC = 5.0
"""How long a board that is to leave by itself shows the end."""


class Board(Keyed):
    """All loops, one loop, one iteration."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; overflow: hidden; }
    Canvas { width: 1fr; height: 1fr; background: ansi_default; color: ansi_default; }
    Typed { dock: bottom; height: 1; border: none; padding: 0; display: none;
            background: ansi_default; color: ansi_default; }
    """

    def __init__(
        self,
        reader: Reader,
        chosen: str = "",
        clock: Callable[[], float] = time.time,
        *,
        until_end: bool = False,
    ) -> None:
        """`chosen`: state directory of the loop to open, "" for the list of all; `clock`: Unix
        seconds; `until_end`: leave by itself when that loop has ended and no key was pressed."""
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
        self._until_end, self._ended_at = until_end, 0.0
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
            self._apply(await aside(functools.partial(self._reader.look, meant)))
            self.looks += 1
            self._leave_at_the_end()
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

    def _leave_at_the_end(self) -> None:
        shown = self._shown()
        over = shown is not None and not shown.seen.life.alive and shown.seen.status.get("exit")
        if not (self._until_end and over):
            self._ended_at = 0.0
        elif not self._ended_at:
            self._ended_at = self._clock()
            self._say(f"the loop has ended; the board leaves in {LEAVE_SEC:g} s, any key keeps it")
            self.redraw()
        elif self._clock() - self._ended_at >= LEAVE_SEC:
            self.exit()

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
        on.message, on.bad, self._until_end = "", False, False
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

    def do_repaint(self) -> None:
        """All lines: another program may have written across them."""
        self.refresh(layout=True)
        self._say("the screen was drawn anew")

    def do_quit(self) -> None:
        """Leave; the loops go on."""
        self.exit()

    # -- searching ---------------------------------------------------------------------------------

    def do_search(self) -> None:
        """Ask for what is to be found."""
        self._type("search: ", self._search)

    def _search(self, text: str) -> None:
        self.on.searched = " ".join(text.split("\n"))
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
            said, bad = await aside(act), False
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
        self._ask(
            f"stop {shown.name} now? ({ends or 'it '}stops)",
            lambda: steering.stop(steering.aim(loop)),
        )

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

        when = "at once; if need be ends the running agent for it" if now else "for the next prompt"
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

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        """What was typed is whole."""
        self.typed(self._typed.text)

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
