"""Plan and task: read when changed, and only when they are whole.

An editor may truncate and write in two steps, rename a new file over the old one, or take the file
away for a moment. A new content counts when the file has stood still for SETTLE_SEC.

What is deleted, emptied or made unreadable while the loop's own processes are at work is no
person's wish (an agent tidied up, `git clean`): the last good text stays in force and is put back.
On a branch that does not have the file it is only kept in force: put there, it would keep git from
leaving the branch."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from codex_self_iter.core.foreign import as_dict, as_list, as_text
from codex_self_iter.core.plan import (
    MAX_LINES,
    Item,
    find_again,
    followed,
    newlines,
    parse_plan,
    plan_progress,
)
from codex_self_iter.errors import StorageError
from codex_self_iter.settings.paths import MAX_DOCUMENT_BYTES, ResolvedPaths, mib
from codex_self_iter.world.guarded import QUARANTINE, read_guarded, read_object
from codex_self_iter.world.process.bare import move_aside
from codex_self_iter.world.state.durable import replace_private, storing

SETTLE_SEC = 0.3
"""A file that did not change for so long is taken as saved; editors write in far less."""
CUT_SEC = 2.0
"""The same for a text that looks like half of one: who writes in steps may take a break."""

_TICK = re.compile(r"([ \t]*(?:[-*+]|\d+[.)])[ \t]+\[)[ xX](\])")
_STATE_BYTES = 64 * 1024 * 1024

Signature = tuple[int, int, int, int] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Edit:
    """One change of a document's text, in lines."""

    what: str
    added: int
    removed: int
    ticks_only: bool


class Document:
    """One text file that a person edits while the loop runs."""

    def __init__(
        self, what: str, path: str, *, required: bool, aside: str, most: int = MAX_DOCUMENT_BYTES
    ) -> None:
        """`what` names it in messages ("plan", "task"); `aside`: the directory for what lies in its
        place and cannot be read; `most`: bytes of the longest text."""
        self.what = what
        self._most = most
        self._aside = aside
        self.path = path
        self.required = required
        self.text = ""
        self.problem = ""
        self.away = False
        """A run has left the branch that has the file: the last good text goes on without it."""
        self.came: tuple[str, ...] = ()
        """Open items that came in since the last `save`, by whichever supervisor; some may be gone
        again."""
        self.missing: tuple[str, ...] = ()
        """Those that were gone when a run ended, and are not back."""
        self._seen: Signature | str = "never"
        self._candidate: Signature | str = "never"
        self._left: Signature | str = "never"
        self._good = ""
        self._since = 0.0
        self._progress: tuple[str, tuple[int, int, str | None]] = ("", (0, 0, None))

    def poll(self, now: float, *, at_once: bool = False, in_run: bool = False) -> Edit | None:
        """Look at the file; `now` is monotonic. Returns the edit when a new text was taken.

        `in_run`: something of ours is at work; then a file that it has lost is not looked at."""
        if (in_run or self.away) and self.lost():
            return None
        self.away = False
        signature = self._signature()
        if signature == self._seen:
            self._candidate = signature
            return None
        if signature != self._candidate:
            self._candidate, self._since = signature, now
        return self._take(signature, math.inf if at_once else now - self._since)

    def leave(self) -> None:
        """Something that the loop had started has ended: what is there now it may have left."""
        self._left = self._signature()

    @property
    def as_left(self) -> bool:
        """True when the file is the one that was there at the last `leave`: nobody's edit since."""
        return self._seen == self._left

    # -- what was lost while something of ours was at work -----------------------------------------

    def lost(self) -> bool:
        """True when there was a good text and the file is missing, holds nothing or is no text
        now."""
        if not self._good or self._signature() == self._seen:
            return False
        content = self._content()
        return content is None or not content[0].strip()

    def put_back(self) -> str:
        """Write the last good text where it was lost; what to say of it. Raises StorageError."""
        if not self.lost():
            return ""
        _, problem = self._content() or ("", "")
        how = "was deleted or emptied during a run"
        with storing("put back", self.path):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            if problem:
                cause, _, _ = problem.partition(":")
                how = f"{cause} after a run, and is now {move_aside(self.path, self._aside)}"
            with open(self.path, "w", encoding="utf-8", newline="") as file:
                file.write(self._good)
        self.text, self.problem = self._good, ""
        self._seen = self._candidate = self._signature()
        name = os.path.basename(self.path)
        return f"{name} {how}: its last text was put back"

    def tick(self, choose: Callable[[str], Iterable[Item]]) -> str:
        """Tick the items that `choose` finds in the file's text; why that cannot be, or "".

        One byte is written for each, in place: what somebody edits meanwhile stays as it is."""
        name = os.path.basename(self.path)
        try:
            with open(os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
                text = data.decode("utf-8-sig")
                for item in choose(text):
                    byte = len(data) - len(text[item.mark :].encode())
                    os.pwrite(file.fileno(), b"x", byte)
        except OSError as error:
            return f"{name} cannot be written ({error.strerror})"
        except UnicodeDecodeError:
            return f"{name} is not UTF-8"
        return ""

    def untick(self, items: Sequence[Item]) -> dict[Item, str]:
        """Take the ticks of these items of `text` back in the file. Which stand, and why.

        One byte is written for each, in place: what somebody has edited meanwhile stays as it is,
        and so does an item that was edited itself."""
        name, stand = os.path.basename(self.path), dict[Item, str]()
        try:
            with open(os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
                text = after = data.decode("utf-8-sig")
                old, new = parse_plan(self.text), parse_plan(text)
                for item in items:
                    now = find_again(old, item, new)
                    if now is None or now.checks != item.checks:
                        stand[item] = "it was edited meanwhile"
                    elif now.ticked:
                        byte = len(data) - len(text[now.mark :].encode())
                        os.pwrite(file.fileno(), b" ", byte)
                        after = f"{after[: now.mark]} {after[now.mark + 1 :]}"
        except OSError as error:
            return dict.fromkeys(items, f"{name} cannot be written ({error.strerror})")
        except UnicodeDecodeError:
            return dict.fromkeys(items, f"{name} is not UTF-8")
        if text == self.text:
            self.text = self._good = after
            self._seen = self._candidate = self._signature()
        return stand

    def save(self, directory: str) -> None:
        """A run begins: leave the text in its directory, for a supervisor that comes later. Raises
        StorageError."""
        self.came = ()
        if not self.text:
            return
        path = os.path.join(directory, f"{self.what}.md")
        with storing("write", path):
            replace_private(path, self.text.encode("utf-8", "replace"))

    def saved(self, directory: str) -> str | None:
        """What `save` left in a run's directory, or None."""
        try:
            path = os.path.join(directory, f"{self.what}.md")
            return read_guarded(path, MAX_DOCUMENT_BYTES).decode()
        except (OSError, UnicodeDecodeError):
            return None

    def forget(self, directory: str) -> None:
        """Remove what `save` left: its run has been judged."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(directory, f"{self.what}.md"))

    def recall(self, directory: str) -> None:
        """Take what `save` left, if the file has been lost since; if not, what came in since is
        known from it."""
        text = self.saved(directory)
        if text is not None and self.text:
            self.came = followed((), text, self.text)
        elif text is not None:
            self._good = text
            if self.lost():
                self.text, self.problem = text, ""

    def progress(self) -> tuple[int, int, str | None]:
        """(ticked, all, last ticked) of the checkboxes; counted once for each text."""
        if self._progress[0] is not self.text:
            self._progress = self.text, plan_progress(self.text)
        return self._progress[1]

    @property
    def settling(self) -> bool:
        """True while a change has been seen but the file may not be whole yet."""
        return self._candidate != self._seen

    def _signature(self) -> Signature:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _take(self, signature: Signature, stood_still: float) -> Edit | None:
        """Take the text if it is whole: it has not changed for `stood_still` seconds."""
        text, problem = self._read()
        if self._signature() != signature:
            return None  # it changed while it was read: look again
        if stood_still < self._patience(text, problem):
            return None
        first = self._seen == "never"
        self._seen = self._candidate = signature
        self.problem = problem
        if problem or text == self.text:
            return None
        edit = self._edit(self.text, text)
        if not edit.ticks_only and not first:
            self.came = followed(self.came, self.text, text)
        self.text = text
        self._good = text if text.strip() else ""
        return edit

    def _patience(self, text: str, problem: str) -> float:
        """How long this text must have stood still to be taken as whole."""
        if problem:
            return SETTLE_SEC
        if _same_but_for_ticks(text, self.text):
            return 0.0  # as long as the old one and the same but for its ticks: it cannot be half
        lost_its_end = self.text.endswith("\n") and not text.endswith("\n")
        return CUT_SEC if text and (lost_its_end or self.text.startswith(text)) else SETTLE_SEC

    def _read(self) -> tuple[str, str]:
        """(text, problem): one of them is ""."""
        name, content = os.path.basename(self.path), self._content()
        if content is None:
            missing = f"{name} is missing: put it back and the loop goes on"
            return "", missing if self.required else ""
        text, problem = content
        if problem:
            return "", f"{name} {problem}"
        if self.required and not text.strip():
            return "", f"{name} is empty: the loop goes on when it has content"
        return text, ""

    def _content(self) -> tuple[str, str] | None:
        """(text, "") or ("", problem); None without a file."""
        try:
            with open(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return "", "is not a regular file: the loop goes on when it is"
                data = file.read(self._most + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            return "", f"cannot be read ({error.strerror}): the loop goes on when it can"
        if len(data) > self._most:
            return "", f"is larger than {mib(self._most)}: shorten it and the loop goes on"
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            where = f"not UTF-8 (byte {error.start})"
            return "", f"is {where}: save it as UTF-8 and the loop goes on"
        return text, ""

    def _edit(self, old: str, new: str) -> Edit:
        if max(old.count("\n"), new.count("\n")) > MAX_LINES:  # only how many more or fewer
            grown = new.count("\n") - old.count("\n")
            return Edit(self.what, max(0, grown), max(0, -grown), ticks_only=False)
        before, after = Counter(old.splitlines()), Counter(new.splitlines())
        return Edit(
            what=self.what,
            added=sum((after - before).values()),
            removed=sum((before - after).values()),
            ticks_only=_same_but_for_ticks(old, new),
        )


def quarantine(paths: ResolvedPaths) -> str:
    """The directory for what lies in a document's place."""
    return str(paths.state_dir / QUARANTINE)


def put_back_lost(paths: ResolvedPaths) -> list[str]:
    """Put back what a run has deleted that was on when its supervisor ended; what to say of it."""
    kept = read_object(str(paths.state_dir / "runtime.json"), _STATE_BYTES) or {}
    opened = as_dict(kept.get("open"))
    ended = as_list(opened.get("ended")) or [None]
    label = as_text(as_dict(opened.get("run") or ended[-1]).get("label"))
    said = []
    for what, path in (("plan", paths.plan), ("task", paths.task)):
        document = Document(what, str(path), required=False, aside=quarantine(paths))
        if label and label == os.path.basename(label):
            document.recall(str(paths.state_dir / "logs" / "runs" / label))
        with contextlib.suppress(StorageError):
            said.append(document.put_back())
    return [text for text in said if text]


def _same_but_for_ticks(one: str, two: str) -> bool:
    if len(one) != len(two) or one.count("\n") > MAX_LINES:
        return False  # a tick takes the place of a blank
    lines = zip(newlines(one).split("\n"), newlines(two).split("\n"), strict=False)
    return all(_unticked(a) == _unticked(b) for a, b in lines if a != b)


def _unticked(line: str) -> str:
    found = _TICK.match(line)
    return line if found is None else f"{found[1]} {line[found.end() - 1 :]}"
