"""What agent runs and gates have printed: their directories, and windows into files of any size.

Nothing here reads a whole file: a log of 200 MiB opens at once."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from codex_self_iter.core.evidence import gate_end
from codex_self_iter.core.foreign import as_dict, as_list
from codex_self_iter.core.text import clean_block
from codex_self_iter.screens.records import newest
from codex_self_iter.views.transcript import MAX_TEXT, Item, Reader, Transcript
from codex_self_iter.world.growing import GrowingFile
from codex_self_iter.world.guarded import open_guarded

_NAME = re.compile(r"(\d{1,12})-([a-z_-]+?)(?:-(\d+))?$")


class Run(NamedTuple):
    """One run directory; ordered as the runs were."""

    iteration: int
    began_ns: int
    name: str
    path: str
    end: str = ""
    """How a gate that has failed ended."""


def runs(state_dir: str) -> list[Run]:
    """The run directories, in the order of the runs. Foreign names are passed over."""
    found, entries = [], []
    with suppress(OSError):
        entries = list(os.scandir(os.path.join(state_dir, "logs", "runs")))
    for entry in entries:
        match = _NAME.match(entry.name)
        with suppress(OSError):  # retention has just removed it
            if match and entry.is_dir(follow_symlinks=False):
                began = _began(entry.path) or entry.stat().st_mtime_ns
                found.append(Run(int(match[1]), began, entry.name, entry.path))
    return sorted(found)


def _began(directory: str) -> int:
    """When a run was started, by the file that its recorder writes then; 0 without one. The
    directory itself changes once more when the iteration has ended."""
    with suppress(OSError):
        return os.stat(os.path.join(directory, "identity.json")).st_mtime_ns
    return 0


def with_ends(chosen: list[Run], state_dir: str) -> list[Run]:
    """The same runs, with how gates ended that the journal has: their output does not say it."""
    gates = {one.iteration for one in chosen if "-gate-" in one.name}
    if not gates:
        return chosen
    records = newest(state_dir, len(gates), lambda record: record["iteration"] in gates)
    ends = {
        f"{record['iteration']:06d}-gate-{number}": gate_end(as_dict(gate))
        for record in records
        for number, gate in enumerate(as_list(record.get("gates")), 1)
        if not as_dict(gate).get("ok")
    }
    return [one._replace(end=ends.get(one.name, "")) for one in chosen]


def reader(kind: str, value: Mapping[str, Any]) -> Reader | None:
    """Who can read an event of this kind; None when any agent could have said it."""
    # Imported at the first event: plain output is shown without any adapter.
    from codex_self_iter.agents import catalog

    adapter = catalog.speaker(kind, value)
    return adapter.events if adapter else None


def prompts(state_dir: str, iteration: int) -> list[str]:
    """The prompt files of an iteration, in the order of the runs."""
    directory, prefix = os.path.join(state_dir, "prompts"), f"{iteration:06d}-"
    roles = ("planner", "executor", "reviewer")

    def order(path: str) -> tuple[int, int, str]:
        role, _, attempt = os.path.basename(path)[len(prefix) :].removesuffix(".md").partition("-")
        return roles.index(role) if role in roles else len(roles), len(attempt), attempt

    return sorted(glob.glob(f"{glob.escape(directory)}/{prefix}*"), key=order)


def agent_runs(state_dir: str, iteration: int) -> list[str]:
    """The directories of an iteration's agent runs that are still kept, in their order."""
    of_it = (one for one in runs(state_dir) if one.iteration == iteration)
    return [one.path for one in of_it if "-gate" not in one.name]


OUTPUT_FILES = ("stdout.log", "stderr.log")
WINDOW = 256 * 1024
"""Bytes of an output that are shown at first; what is before comes when it is asked for."""


class Page(NamedTuple):
    """A window into a file: whole lines, the bytes at which they begin and end, and its size."""

    lines: list[str]
    start: int
    end: int
    size: int


def page(path: str, *, before: int | None = None, after: int | None = None) -> Page:
    """At most WINDOW bytes of a file, as whole lines: those that end at `before` (None: at the
    file's end), or begin at `after`. A longer line is cut where the window ends. Raises OSError."""
    fd = open_guarded(path)
    try:
        size = os.fstat(fd).st_size
        if after is not None:
            start = min(max(0, after), size)
            data = os.pread(fd, WINDOW, start)
            feed = data.rfind(b"\n")
            if feed >= 0 and start + len(data) < size:
                data = data[: feed + 1]
            return _page(data, start, size)
        end = size if before is None else min(max(0, before), size)
        start = max(0, end - WINDOW)
        data = os.pread(fd, end - start, start)
        feed = data.find(b"\n") if start else -1
        if 0 <= feed < len(data) - 1:
            data, start = data[feed + 1 :], start + feed + 1
        return _page(data, start, size)
    finally:
        os.close(fd)


def _page(data: bytes, start: int, size: int) -> Page:
    text = data.decode("utf-8", "replace")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return Page(lines, start, start + len(data), size)


def rendered(lines: Iterable[str]) -> list[Item]:
    """Lines of an agent's output as people read them."""
    transcript = Transcript(reader)
    found = [item for line in lines for item in transcript.feed(line)]
    return [*found, *transcript.finish()]


class Output:
    """What one run prints, as people read it: its last WINDOW bytes, and what comes after."""

    def __init__(self, directory: str) -> None:
        """Of a run that need not have begun."""
        self.directory = directory
        self._files = [
            (GrowingFile(os.path.join(directory, name), WINDOW), name == "stderr.log")
            for name in OUTPUT_FILES
        ]
        self._transcript = Transcript(reader)

    @property
    def skipped(self) -> int:
        """Bytes at the beginning of its standard output that are not shown: `page` has them."""
        return self._files[0][0].skipped

    def new(self) -> list[Item]:
        """What has been printed since the last call. Never raises."""
        found: list[Item] = []
        for file, is_error in self._files:
            with suppress(OSError):
                while lines := file.lines():
                    found += self._items(lines, is_error)
        return found

    def finish(self) -> list[Item]:
        """The unfinished last lines of a run that has ended; the files are closed."""
        found: list[Item] = []
        for file, is_error in self._files:
            found += self._items(file.rest(), is_error)
            file.close()
        return [*found, *self._transcript.finish()]

    def close(self) -> None:
        """Close the files; `new` would open them again."""
        for file, _ in self._files:
            file.close()

    def _items(self, lines: list[str], is_error: bool) -> list[Item]:
        if is_error:
            return [Item("error", clean_block(line, MAX_TEXT)) for line in lines if line.strip()]
        return [item for line in lines for item in self._transcript.feed(line)]
