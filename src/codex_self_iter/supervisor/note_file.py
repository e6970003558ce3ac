"""The loop's notes: `notes.md`, which agents add to and a person edits, and what prompts show of it.

The file is the truth. What an iteration noted is in its journal line before it is in the file, so a
file that is lost between two starts is made anew from the journal; one that is lost meanwhile, the
state directory puts back."""

from __future__ import annotations

from collections.abc import Iterable

from codex_self_iter.core import notes as lines
from codex_self_iter.core.foreign import as_list, as_words
from codex_self_iter.core.text import counted
from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.documents import SETTLE_SEC
from codex_self_iter.world.state.root import Signature
from codex_self_iter.world.state.store import NOTES

JOURNAL_LINES = 500
"""So many lines of the journal, the last, are looked through for the notes of a lost file."""
PATIENCE_SEC = 3.0
"""A file that is written to all the time holds up a note for so long at most."""
MORE, UNREAD = "notes more", "notes unread"


class Notes:
    """The notes of one loop."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._text: str | None = None
        self._seen: Signature | str | None = "never"
        self._candidate: Signature | str | None = "never"
        self._since = 0.0

    def begin(self) -> None:
        """A start: read them; what is lost comes out of the journal."""
        self._take()
        ctx = self._ctx
        if self._text is not None or not (ctx.state.noted and ctx.settings.notes.on):
            return
        try:
            tail = ctx.store.journal_tail(JOURNAL_LINES)
        except StorageError as error:
            self._unread(error)
            return
        old = [as_words(one) for line in tail for one in as_list(line.get("notes"))]
        self._restore(self._added("", old)[0])

    def look(self) -> bool:
        """Read what was changed; True while somebody may still be writing it."""
        now = self._ctx.shared.clock.monotonic()
        try:
            seen = self._ctx.store.notes_seen()
        except StorageError as error:
            self._unread(error)
            return False
        if seen == self._seen:
            return False
        if seen != self._candidate:
            self._candidate, self._since = seen, now
        if seen is not None and now - self._since < SETTLE_SEC:
            return True
        before = self._text
        self._take()
        if self._text is None and before is not None:
            self._restore(before)
        return False

    def shown(self) -> list[str]:
        """What a prompt shows, oldest first, and say so if that is not all."""
        bounds, found = self._ctx.settings.notes, lines.notes_of(self._text or "")
        shown = lines.newest(found, bounds.max_count, bounds.max_bytes)
        left = len(found) - len(shown)
        if left and bounds.on:
            what = f"{counted(left, 'note')} of {NOTES}, the oldest, are in no prompt"
            text = f"{what}: [notes] max_count = {bounds.max_count}, max_bytes = {bounds.max_bytes}"
            self._ctx.warnings.tell(MORE, text)
        else:
            self._ctx.warnings.clear(MORE)
        return shown

    async def keep(self, new: tuple[str, ...]) -> None:
        """Add what an iteration noted. Raises StorageError."""
        ctx, clock = self._ctx, self._ctx.shared.clock
        if not ctx.settings.notes.on:
            return
        give_up = clock.monotonic() + PATIENCE_SEC
        while self.look() and clock.monotonic() < give_up:
            await clock.sleep(0.05)
        text, gone = self._added(self._text or "", map(ctx.store.redactor.text, new))
        if text != self._text:
            await ctx.shared.in_thread(ctx.store.write_notes, text)
            self._take()
            ctx.log.info("notes.kept", notes=ctx.notes, gone=gone)

    def _added(self, text: str, new: Iterable[str]) -> tuple[str, int]:
        bounds = self._ctx.settings.notes
        return lines.added(text, new, bounds.max_count, bounds.max_bytes)

    def _take(self) -> None:
        """Read the file, whoever wrote it."""
        ctx = self._ctx
        try:
            self._text = ctx.store.read_notes()
            self._seen = self._candidate = ctx.store.notes_seen()
        except StorageError as error:
            self._unread(error)
            return
        ctx.warnings.clear(UNREAD)
        ctx.warn(ctx.store.take_warnings())
        ctx.notes = len(lines.notes_of(self._text or ""))

    def _restore(self, text: str) -> None:
        """Write what was lost."""
        try:
            self._ctx.store.write_notes(text)
        except StorageError as error:
            self._unread(error)
            self._text = text
            return
        self._take()
        said = f"{NOTES} was deleted or could not be read: its {counted(self._ctx.notes, 'note')} were put back"
        self._ctx.warnings.tell("notes lost", said)

    def _unread(self, error: StorageError) -> None:
        self._ctx.warnings.tell(UNREAD, f"notes are not read, or not put back: {error}")
