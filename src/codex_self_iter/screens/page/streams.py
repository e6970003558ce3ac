"""What an open page is told: server-sent events, each with the place from which the next begins.

Nothing is kept for an event. Each open page has a place in the journal and in the newest run's
output, and is told what lies behind it; an event's id is that place. So a page that was cut off, or
whose server or supervisor was restarted, says where it was and misses nothing, and fifty pages cost
fifty places."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from codex_self_iter.core.foreign import as_dict, as_text
from codex_self_iter.core.text import clean, clean_block, size
from codex_self_iter.errors import StorageError
from codex_self_iter.screens import records, sources
from codex_self_iter.screens.loops import Target
from codex_self_iter.screens.outputs import OUTPUT_FILES, WINDOW, Run, reader, runs
from codex_self_iter.screens.page import contents
from codex_self_iter.screens.page.pages import render
from codex_self_iter.views.timeline import iteration
from codex_self_iter.views.transcript import MAX_TEXT, Item, Transcript
from codex_self_iter.world.growing import GrowingFile
from codex_self_iter.world.guarded import open_guarded, stat_or_none

TICK_SEC, BOARD_SEC = 1.0, 2.0
BEAT_SEC = 15.0
"""So often a page hears something, so that both ends notice when the other is gone."""
LOOK_SEC = 5.0
"""A loop whose files have not changed is looked at after so long all the same: it may be gone."""
MOST_STREAMS = 100
MOST_LINES = 200
"""Journal lines of one moment."""
MOST_BEHIND = 4 * WINDOW
"""Bytes of output that a page is behind: what is more is left out, and said."""
PRIME = 16 * 1024
"""Bytes at a file's beginning by which it is known whose output it is."""


class Place(NamedTuple):
    """How far a page is: the journal's mark, the run that it reads, bytes of its two outputs."""

    mark: str = ""
    run: str = ""
    stdout: int = 0
    stderr: int = 0

    def __str__(self) -> str:
        return ".".join(map(str, self))

    @classmethod
    def read(cls, text: str) -> Place | None:
        """The place that an id stands for; None for what is none."""
        parts = text.split(".")
        fine = len(parts) == 4 and all(
            p.isascii() and p.isdigit() and len(p) < 16 for p in parts[2:]
        )
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3])) if fine else None


class Follower:
    """The newest run's output, from a place on; every run that begins after it."""

    def __init__(self, state_dir: str) -> None:
        """Nothing is read yet."""
        self._state_dir = state_dir
        self._runs_changed = -1
        self._run: Run | None = None
        self._files: list[GrowingFile] = []
        self._transcript = Transcript(reader)
        self._unshown = 0
        """Bytes of the lines whose message still comes in pieces: none of it was shown."""
        self.began_at = "", 0
        """The run, and the byte of its output, at which what is shown begins."""

    def place(self, mark: str) -> Place:
        """How far it is."""
        if self._run is None:
            return Place(mark)
        stdout, stderr = self._files
        return Place(mark, self._run.name, stdout.position - self._unshown, stderr.position)

    def begin(self, place: Place | None) -> list[Item]:
        """Go to a place; without one, to what the newest iteration's runs printed last. What is
        new there."""
        every = self._every() or []
        run = next((one for one in every if place and one.name == place.run), None)
        if run is not None and place is not None:
            self._open(run, place.stdout, place.stderr)
        elif every:
            first = next(one for one in every if one.iteration == every[-1].iteration)
            starts = [_last_window(path) for path in _outputs(first)]
            self._open(first, *starts)
            self.began_at = first.name, starts[0]
            self._runs_changed = -1
            return [_heading(first), *self.new()]
        self._runs_changed = -1
        return self.new()

    def new(self) -> list[Item]:
        """What has been printed since, of all runs; bounded: the rest comes with the next call."""
        found = self._read()
        if len(found) < 2000:
            for run in self._later():
                found += self._end()
                self._open(run, 0, 0)
                found += [_heading(run), *self._read()]
        return found

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def _later(self) -> list[Run]:
        every = self._every()
        if not every or self._run is None:
            return every[-1:] if every else []
        names = [run.name for run in every]
        if self._run.name not in names:
            return every[-1:]
        return every[names.index(self._run.name) + 1 :][-5:]

    def _every(self) -> list[Run] | None:
        """The runs; None when there are no others than last time."""
        found = stat_or_none(os.path.join(self._state_dir, "logs", "runs"))
        changed = found.st_mtime_ns if found else 0
        if changed == self._runs_changed:
            return None
        self._runs_changed = changed
        return runs(self._state_dir)

    def _open(self, run: Run, stdout: int, stderr: int) -> None:
        self.close()
        self._run = run
        paths = _outputs(run)
        self._files = [
            GrowingFile(path, start=start)
            for path, start in zip(paths, (stdout, stderr), strict=True)
        ]
        self._transcript = Transcript(reader)
        self._unshown = 0
        # whose output it is, and which commands are open, is told by what stands before
        for line in _lines_before(paths[0], stdout):
            self._transcript.feed(line)
        self._transcript.finish()

    def _read(self) -> list[Item]:
        found: list[Item] = []
        for number, file in enumerate(self._files):
            with suppress(OSError):
                if left_out := file.catch_up(MOST_BEHIND, WINDOW):
                    what = f"[… {size(left_out)} are not shown here; the whole output has them]"
                    found.append(Item("note", what))
                read = 0
                while read < WINDOW and (lines := file.lines()):
                    read += sum(map(len, lines)) + len(lines)
                    found += self._items(lines, is_error=number == 1)
        return found

    def _items(self, lines: list[str], *, is_error: bool) -> list[Item]:
        if is_error:
            return [Item("error", clean_block(line, MAX_TEXT)) for line in lines if line.strip()]
        found: list[Item] = []
        for line in lines:
            found += self._transcript.feed(line)
            length = len(line.encode("utf-8", "replace")) + 1
            self._unshown = self._unshown + length if self._transcript.pending else 0
        return found

    def _end(self) -> list[Item]:
        """The unfinished last lines of a run that has ended."""
        found: list[Item] = []
        for number, file in enumerate(self._files):
            found += self._items(file.rest(), is_error=number == 1)
        return [*found, *self._transcript.finish()]


def _heading(run: Run) -> Item:
    return Item("heading", run.name)


def _outputs(run: Run) -> list[str]:
    return [os.path.join(run.path, name) for name in OUTPUT_FILES]


def _last_window(path: str) -> int:
    """Where the whole lines of a file's last WINDOW / 4 bytes begin; 0 where there is none."""
    with suppress(OSError):
        fd = open_guarded(path)
        try:
            start = os.fstat(fd).st_size - WINDOW // 4
            if start > 0:
                return start + os.pread(fd, WINDOW // 4, start).find(b"\n") + 1
        finally:
            os.close(fd)
    return 0


def _lines_before(path: str, start: int) -> list[str]:
    """A file's first lines and those before `start`, both bounded."""
    if start <= 0:
        return []
    with suppress(OSError):
        fd = open_guarded(path)
        try:
            head = os.pread(fd, min(PRIME, start), 0)
            tail = os.pread(fd, min(PRIME, start), max(0, start - PRIME))
        finally:
            os.close(fd)
        data = (
            head if start <= PRIME else head.rpartition(b"\n")[0] + b"\n" + tail.partition(b"\n")[2]
        )
        return data.decode("utf-8", "replace").split("\n")
    return []


class LoopStream:
    """What an open page of one loop has not been told yet."""

    def __init__(self, name: str, loop: Target, place: Place | None) -> None:
        """`place`: where the page is, None for one that has seen nothing."""
        self._name, self._loop = name, loop
        self._follower = Follower(loop.state_dir)
        self._began = place
        self._place = place or Place()
        self._first = True
        self._stamp: object = None
        self._journal: object = None
        self._plan: object = None
        self._looked = float("-inf")
        self._said: dict[str, str] = {}

    def step(self) -> bytes:
        """The events of this moment."""
        parts = list(self._regions())
        items = self._follower.begin(self._began) if self._first else self._follower.new()
        self._first = False
        place = self._follower.place(self._place.mark)
        if items:
            told = [item._asdict() for item in items]
            parts.append(event("output", told, str(place)))
        elif place != self._place:
            parts.append(event("position", "", str(place)))
        self._place = place
        return b"".join(parts)

    def close(self) -> None:
        """The page has gone."""
        self._follower.close()

    def _regions(self) -> list[bytes]:
        state_dir = self._loop.state_dir
        names = ("status.json", "inbox", "STOP", "PAUSE", "")
        stamp = [_mark(os.path.join(state_dir, name)) for name in names]
        if stamp == self._stamp and time.monotonic() - self._looked < LOOK_SEC:
            return []
        self._stamp, self._looked = stamp, time.monotonic()
        one = sources.show(self._name, self._loop)
        now = contents.now(one)
        parts = [self._region("now", "now.html", now, now["title"])]
        parts.append(self._region("messages", "messages.html", contents.messages(one)))
        journal = _mark(os.path.join(state_dir, "logs", "iterations.jsonl"))
        if journal != self._journal:
            placed = contents.latest(one)
            facts = contents.history(one, placed, contents.SHORT)
            if placed:
                self._place = self._place._replace(mark=placed[-1].mark)
            parts.append(self._region("history", "history.html", facts))
            parts.append(self._region("proof", "proof.html", facts))
        told = as_text(as_dict(one.seen.status.get("plan")).get("path"))
        plan = journal, _mark(told or os.path.join(one.seen.workspace, "plan.md"))
        if plan != self._plan:
            parts.append(self._region("plan", "plan.html", contents.plan(one)))
        self._journal, self._plan = journal, plan
        return parts

    def _region(self, name: str, template: str, facts: dict[str, Any], title: str = "") -> bytes:
        html = render(template, facts)
        return b"" if known(self._said, name, html, title) else region(name, html, title)


def digest(html: str) -> str:
    """By which a part of the page is known again."""
    return hashlib.blake2b(html.encode("utf-8", "replace"), digest_size=16).hexdigest()


def known(said: dict[str, str], name: str, html: str, title: str) -> bool:
    """Whether a part of the page, and its title, are what was said last; from now on they are."""
    mark, old = digest(title + html), said.get(name)
    said[name] = mark
    return mark == old


def region(name: str, html: str, title: str = "", place: str = "") -> bytes:
    """A part of the page. `title`: what the page is called from now on, "" for as before."""
    told = {"id": name, "html": html, **({"title": clean(title)} if title else {})}
    return event("region", told, place)


class BoardStream:
    """The same for the page of all loops."""

    def __init__(self, known: contents.Known, shown: str) -> None:
        """`shown`: the digest of the columns that the page shows, "" where that is not known."""
        self._known, self._seen = known, -1
        self._shown = shown

    def step(self) -> bytes:
        """The columns, if they have changed."""
        self._known.shown()
        seen = self._known.changes
        if seen == self._seen:
            return b""
        self._seen = seen
        facts = self._known.board()
        html = render("columns.html", facts)
        if (mark := digest(html)) == self._shown:
            return b""
        self._shown = mark
        return region("columns", html, facts["title"], mark)

    def close(self) -> None:
        """There is nothing to close."""


class JournalStream:
    """The journal's lines for a program: all that are kept, then each as it is written."""

    def __init__(self, loop: Target, mark: str) -> None:
        """`mark`: the id of the last one that it has, "" for none."""
        self._state_dir, self._place = loop.state_dir, mark
        self._stamp: object = None

    def step(self) -> bytes:
        """The next ones."""
        stamp = _mark(os.path.join(self._state_dir, "logs", "iterations.jsonl"))
        if stamp == self._stamp:
            return b""
        with suppress(StorageError):
            found = records.after(self._state_dir, self._place, MOST_LINES)
            self._stamp = stamp if len(found) < MOST_LINES else None
            if found:
                self._place = found[-1].mark
            told = ((contents.fields(iteration(line.record)), line.mark) for line in found)
            return b"".join(event("iteration", facts, mark) for facts, mark in told)
        return b""

    def close(self) -> None:
        """There is nothing to close."""


Stream = LoopStream | BoardStream | JournalStream


def _mark(path: str) -> object:
    found = stat_or_none(path)
    return found and (found.st_ino, found.st_mtime_ns, found.st_size)


def event(kind: str, data: object, place: str) -> bytes:
    """One event. JSON has no line feeds, so that one line of data is all of it."""
    text = json.dumps(data, ensure_ascii=False) if data != "" else ""
    line = f"id: {place}\n" if place else ""
    return f"{line}event: {kind}\ndata: {text}\n\n".encode("utf-8", "replace")


async def events(
    stream: Stream, tick_sec: float, over: asyncio.Event, allowed: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """All events of one open page, until it goes, is no longer allowed in, or all is over."""
    beat, loop = time.monotonic(), asyncio.get_running_loop()
    yield event("clock", time.time(), "")
    try:
        while allowed() and not over.is_set():
            if part := await loop.run_in_executor(None, stream.step):
                yield part
                beat = time.monotonic()
            elif time.monotonic() - beat > BEAT_SEC:
                yield event("clock", time.time(), "")
                beat = time.monotonic()
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), tick_sec)
    finally:
        stream.close()
