"""`logs`: the agent's output across iterations, as people read it or as it came."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

from codex_self_iter.cli import _common
from codex_self_iter.cli._terminal import Paint
from codex_self_iter.core.text import clean, clean_block
from codex_self_iter.errors import ExitCode, UsageError
from codex_self_iter.screens.loops import Target, look
from codex_self_iter.screens.outputs import Run, reader, runs, with_ends
from codex_self_iter.views.summary import standstill
from codex_self_iter.views.transcript import Item, Transcript
from codex_self_iter.world.growing import GrowingFile

POLL_SEC = 0.2
RESTART_SEC, CRASH_SEC = 3.0, 10.0
"""A supervisor that was there may come again so soon: after an end (an update), and after none (a
service starts it again after 5 s)."""
_NOT_YET = "no supervisor has run here yet: waiting for the first start"
_STYLE = {"command": "bold", "change": "green", "error": "red", "note": "dim", "output": "dim"}
_MARK = {"command": "$ ", "change": "± ", "error": "! ", "note": "  ", "output": "  | "}
_PLAIN_MARK = _MARK | {"change": "+ "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, number = parser.add_argument, _common.positive_int
    _common.add_iteration_arguments(parser)
    add("-f", "--follow", action="store_true", help="go on until the loop has ended")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--last", type=number, metavar="K", help="the last K iterations")
    which.add_argument("--all", action="store_true", help="every iteration whose output is kept")
    add("--raw", action="store_true", help="stdout and stderr as they came, unrendered")
    help_ = "the supervisor's own log instead"
    which.add_argument("--supervisor", action="store_true", help=help_)


def run(args: argparse.Namespace) -> int:
    """Print what is asked for."""
    iteration = _common.iteration_word(args)
    if iteration is not None and (args.last or args.all or args.supervisor):
        raise UsageError("give either an iteration, or --last, --all or --supervisor")
    loop = _common.find_loop(args)
    printer = _RawPrinter() if args.raw else _Printer(Paint())
    watch = _Watch(loop) if args.follow else None
    if args.supervisor:
        return _supervisor_log(loop, watch, printer)
    found = runs(loop.state_dir)
    chosen = _choose(found, iteration, args, loop)
    last = None
    for one in with_ends(chosen, loop.state_dir):
        last = _next(last, one, printer)
    if watch:
        _follow(watch, {one.name for one in found}, last, printer)
    else:
        _end(last, printer)
    return int(ExitCode.OK)


def _choose(
    found: list[Run], iteration: int | None, args: argparse.Namespace, loop: Target
) -> list[Run]:
    numbers = sorted({one.iteration for one in found})
    if iteration is not None:
        chosen = [one for one in found if one.iteration == iteration]
        if not chosen and not (args.follow and (not numbers or iteration > numbers[-1])):
            kept = f"kept are {numbers[0]} to {numbers[-1]}" if numbers else "none is kept"
            what = f"there is no output of iteration {iteration}"
            raise UsageError(f"{what} in {loop.state_dir} ({kept})")
        return chosen
    if not numbers and not args.follow:
        raise UsageError(f"there is no agent output in {loop.state_dir} yet")
    wanted = numbers if args.all else numbers[-(args.last or 1) :]
    return [one for one in found if one.iteration in wanted]


class _Watch:
    """Whether the loop goes on, and what it says when it does not."""

    def __init__(self, loop: Target) -> None:
        self.loop, self._told = loop, ""
        self._alive_at = time.monotonic() if look(loop).life.alive else float("-inf")

    def look(self) -> tuple[str, bool]:
        """What is new ("" when nothing is), and whether it is the end."""
        seen, now = look(self.loop), time.monotonic()
        if not (seen.status or seen.life.alive or self._told):
            self._told = _NOT_YET
            return _NOT_YET, False
        text = standstill(seen)
        if seen.life.alive:
            self._alive_at = now
        patience = RESTART_SEC if seen.status.get("exit") else CRASH_SEC
        if not seen.life.alive and (not text or now - self._alive_at < patience):
            return "", False
        news = text if text != self._told else ""
        self._told = text
        return news, not seen.life.alive


def _follow(watch: _Watch, seen: set[str], current: _Stream | None, printer: _Printer) -> None:
    """Print what the newest run still writes, every run that begins, and why none does; return
    when the loop has ended."""
    over = False
    while not over:
        news, over = watch.look()  # first: what was printed before is shown before
        fresh = [one for one in runs(watch.loop.state_dir) if one.name not in seen]
        if current:
            current.show(printer)
        for one in fresh:
            seen.add(one.name)
            current = _next(current, one, printer)
        if over:
            _end(current, printer)
        printer.note(news)
        if not over:
            time.sleep(POLL_SEC)


def _next(current: _Stream | None, one: Run, printer: _Printer) -> _Stream:
    """Leave one run and show the next; the old one may have written its last lines meanwhile."""
    _end(current, printer)
    printer.heading(f"{one.name}: {clean(one.end)}" if one.end else one.name)
    stream = _Stream(one.path)
    stream.show(printer)
    return stream


def _end(current: _Stream | None, printer: _Printer) -> None:
    if current:
        current.show(printer)
        current.close(printer)


class _Stream:
    """stdout and stderr of one run."""

    def __init__(self, path: str) -> None:
        names = {"stdout.log": False, "stderr.log": True}
        self.files = [
            (GrowingFile(os.path.join(path, name)), is_error) for name, is_error in names.items()
        ]
        self.transcript = Transcript(reader)

    def show(self, printer: _Printer) -> None:
        for file, is_error in self.files:
            for data in _chunks(file, raw=printer.raw):
                printer.feed(data, self.transcript, is_error=is_error)

    def close(self, printer: _Printer) -> None:
        """Print unfinished lines and held messages."""
        for file, is_error in self.files:
            if not printer.raw:
                for line in file.rest():
                    printer.feed(line, self.transcript, is_error=is_error)
            file.close()
        printer.items(self.transcript.finish())


def _chunks(file: GrowingFile, *, raw: bool) -> Iterator[str | bytes]:
    while lines := ([file.chunk()] if raw else file.lines()):
        if lines == [b""]:
            return
        yield from lines


class _Printer:
    """Rendered output."""

    raw = False

    def __init__(self, paint: Paint) -> None:
        self.paint = paint
        self.marks = _MARK if paint.unicode else _PLAIN_MARK

    def heading(self, name: str) -> None:
        bar = "──" if self.paint.unicode else "--"
        self._write(self.paint(f"{bar} {name} {bar}", "cyan") + "\n")

    def note(self, text: str) -> None:
        """What the loop does, beside what the agent says."""
        dash = "—" if self.paint.unicode else "--"
        if text:
            self._write(self.paint(f"{dash} {text} {dash}", "dim") + "\n")

    def feed(self, line: str | bytes, transcript: Transcript, *, is_error: bool) -> None:
        assert isinstance(line, str)
        if is_error:
            self.items([Item("error", clean_block(line, 16384))] if line.strip() else [])
        else:
            self.items(transcript.feed(line))

    def items(self, items: list[Item]) -> None:
        for item in items:
            mark, style = self.marks.get(item.kind, ""), _STYLE.get(item.kind)
            for line in item.text.split("\n"):
                self._write(self.paint(mark + line, *filter(None, [style])) + "\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


class _RawPrinter(_Printer):
    """Bytes as they came: stdout to stdout, stderr to stderr, nothing added."""

    raw = True

    def __init__(self) -> None:
        super().__init__(Paint(colour=False))

    def heading(self, _name: str) -> None:
        pass

    def note(self, _text: str) -> None:
        pass

    def feed(self, line: str | bytes, _transcript: Transcript, *, is_error: bool) -> None:
        assert isinstance(line, bytes)
        stream = sys.stderr if is_error else sys.stdout
        stream.buffer.write(line)
        stream.buffer.flush()


def _supervisor_log(loop: Target, watch: _Watch | None, printer: _Printer) -> int:
    """The supervisor's log; rotated parts are in the same directory."""
    path = os.path.join(loop.state_dir, "logs", "supervisor.log")
    if not os.path.exists(path) and not watch:
        elsewhere = "under systemd: journalctl --user -u 'codex-self-iter*'"
        raise UsageError(f"there is no {path} yet ({elsewhere})")
    file, inode = GrowingFile(path), _inode(path)
    while True:
        news, over = watch.look() if watch else ("", True)
        if news == _NOT_YET:
            printer.note(news)
        for data in _chunks(file, raw=printer.raw):
            if isinstance(data, bytes):
                printer.feed(data, Transcript(reader), is_error=False)
            else:
                printer.items([Item("text", clean_block(data))])
        if over:
            return int(ExitCode.OK)
        if _inode(path) not in (None, inode):  # rotated: the new file from its beginning
            file.close()
            file, inode = GrowingFile(path), _inode(path)
            continue
        time.sleep(POLL_SEC)


def _inode(path: str) -> int | None:
    with suppress(OSError):
        return os.stat(path).st_ino
    return None
