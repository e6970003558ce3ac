"""The configuration read again: a bad one changes nothing and says why."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import Any

import anyio

from codex_self_iter.errors import CodexSelfIterError, UsageError
from codex_self_iter.settings import Settings
from codex_self_iter.supervisor.members import Member, Members
from codex_self_iter.supervisor.options import RunOptions
from codex_self_iter.supervisor.rounds import Rounds
from codex_self_iter.supervisor.shared import Shared
from codex_self_iter.world import threads

CONFIG_DIR_SEC, CONFIG_DIR_HEARD_SEC = 1.0, 5.0
"""Between two looks at the configuration directory: by themselves, and while the watcher tells."""
SETTLE_SEC = 0.2
"""A file that is just being written is not read before it has had time to become whole."""
AWAY_SEC = 5.0
"""A file that is missing for so long was removed; until then it may be about to be replaced."""
HELD_SEC = 30.0
"""So long a missing file may be one that is new or changed since, and cannot be read."""
FIXED = {
    "workspace", "state_dir", "lock_file_name", "stop_file_name", "global_stop_file_name",
    "plan_file", "task_file", "log.level", "log.format", "output.log_max_mb", "output.log_files",
    "on_orphan",
}  # fmt: skip
"""Keys that a reload cannot change: what they name, or made, is in use, or they are for a start."""

Signature = tuple[tuple[str, int, int, int], ...]
Files = dict[str, tuple[int, int, int]]
"""Path -> inode, size, mtime_ns."""
Reader = Callable[[], tuple[list[Settings], list[CodexSelfIterError]]]


@dataclasses.dataclass(slots=True)
class _Away:
    """A loop whose file or entry is missing.

    Attributes:
        since: when that was noticed.
        known: the bad files of the look before; none of them can be its own.
        due: when it is to end for that."""

    since: float
    known: Files
    due: float


_SECRET = ("notify.urls", "notify.targets", "notify.replies", "otlp")
"""Keys whose values are not logged."""


class Reload:
    """Gives loops their new settings, starts those that came, ends those whose file went."""

    def __init__(
        self, members: Members, reader: Reader, options: RunOptions, shared: Shared
    ) -> None:
        self._members, self._reader, self._directory = members, reader, options.config_dir
        self._log, self._alone, self._watcher = shared.log, shared.alone, shared.watcher
        self._now = shared.clock.monotonic
        self._said = False
        """This reload has changed something, and that was logged."""
        self._away: dict[str, _Away] = {}
        self._bad: Files = {}
        """The files of the directory that could not be read at the last look."""

    def run(self) -> list[Rounds]:
        """Read the configuration again; the living loops for which that was good. The others keep
        the old one, and say why until it is."""
        bad, good = self._read(), []
        for name, member in self._members.by_name.items():
            rounds = member.loop.rounds if member.loop is not None else None
            if rounds is None or member.ended is not None:
                continue
            if name in bad:
                text = f"the configuration was not read again, the old one holds: {bad[name]}"
                rounds.ctx.warnings.tell("reload", text)
            else:
                rounds.ctx.warnings.clear("reload")
                good.append(rounds)
            rounds.ctx.tell()
        return good

    def _read(self) -> dict[str, str]:
        """Give every loop its settings; the loops that could not be given any, and why."""
        try:
            wanted, problems = self._reader()
        except (UsageError, OSError) as error:
            self._log.error("config.not_reloaded", error=str(error))
            return dict.fromkeys(self._members.by_name, str(error))
        for problem in problems:
            self._log.error("config.skipped", error=str(problem))
        by_name = {settings.name: settings for settings in wanted}
        if self._alone:
            by_name = self._of_the_one(wanted)
        else:
            self._follow_renamed(by_name)
        self._said = False
        refused = {name: self._take(name, settings) for name, settings in by_name.items()}
        missing = self._members.by_name.keys() - by_name.keys()
        if self._directory:
            found = _directory_signature(self._directory)
            self._bad, before = self._bad_files(found, wanted), self._bad
            refused |= self._let_go(missing, before, list(map(str, problems)))
        elif problems or self._alone:
            refused |= dict.fromkeys(missing, "; ".join(map(str, problems)))
        else:
            for name in missing:
                self._members.remove(self._members.by_name[name])
        refused = {name: why for name, why in refused.items() if why}
        if not (self._said or refused or missing or self._directory):
            self._log.info("config.unchanged")
        return refused

    def _of_the_one(self, wanted: list[Settings]) -> dict[str, Settings]:
        """The settings of the only loop that we run, whatever the file calls it now; a loop more
        waits for a restart."""
        ((name, member),) = self._members.by_name.items()
        here = member.settings.workspace_path
        mine = [settings for settings in wanted if settings.workspace_path == here]
        if len(wanted) > 1:
            self._log.warning("config.needs_restart", keys=["workspaces"])
        return {name: (mine or wanted)[0]}

    def _follow_renamed(self, by_name: dict[str, Settings]) -> None:
        """A file that was renamed is still that of the loop in its workspace."""
        members = self._members.by_name
        missing = {members[name].settings.workspace_path: name for name in members.keys() - by_name}
        for name in by_name.keys() - members.keys():
            old = missing.get(by_name[name].workspace_path)
            if old is not None and members[old].ended is None:
                self._log.info("loop.renamed", loop=old, name=name)
                members[name] = members.pop(old)

    def _bad_files(self, found: Signature, good: Iterable[Settings]) -> Files:
        read = {str(path) for settings in good for path in settings.sources}
        files = {os.path.join(self._directory, name): about for name, *about in found}
        return {path: (a, b, c) for path, (a, b, c) in files.items() if path not in read}

    def _let_go(self, missing: set[str], before: Files, problems: list[str]) -> dict[str, str]:
        """End loops whose file or entry is gone for good; what keeps the others, by loop.

        Editors and tools take a file away for a moment, or give it another name and write on in it.
        A file that was bad before the loop's went away is another's."""
        now, members = self._now(), self._members.by_name
        away, kept = {}, {}
        for name in missing:
            if members[name].ended is not None:
                continue
            held = self._bad.keys() & set(map(str, members[name].settings.sources))
            if not held:
                one = away[name] = self._away.get(name) or _Away(now, before, now)
                held = {path for path, _ in self._bad.items() - one.known.items()}
                one.due = one.since + (HELD_SEC if held else AWAY_SEC)
                if now >= one.due:
                    self._members.remove(members[name])
                    continue
            told = [text for text in problems if any(path in text for path in held)]
            kept[name] = "; ".join(told or sorted(held))
        self._away = away
        return kept

    def _due(self) -> bool:
        """True when a missing file is to be looked for once more."""
        members = self._members.by_name
        return any(self._now() >= a.due and not members[n].leaving for n, a in self._away.items())

    def _take(self, name: str, settings: Settings) -> str:
        """Give a loop its settings; why it cannot have them, or ""."""
        member = self._members.by_name.get(name)
        if member is not None and member.leaving and member.ended is None:
            member.back = settings
            return ""
        if member is not None and _same(member.settings, settings) and not member.leaving:
            member.settings = settings  # it may have come from a file of another name
            return ""
        again = member is not None and member.ended is not None
        self._said = True
        if member is not None and not (again and (self._directory or member.leaving)):
            return self._change(member, settings)
        self._log.info("loop.added", loop=name)
        self._members.add(settings)
        return ""

    def _change(self, member: Member, settings: Settings) -> str:
        """Use new settings, or say why they cannot be used; then everything stays as it was."""
        rounds = member.loop.rounds if member.loop is not None else None
        log = rounds.ctx.log if rounds is not None else self._log.bind(loop=settings.name)
        changes = _changes(member.settings, settings)

        def say() -> None:
            for key, values in changes.items():
                secret = ".env." in f".{key}." or key.startswith(_SECRET)
                old, new = ("[hidden]", "[hidden]") if secret else values
                log.info("config.changed", key=key, old=old, new=new)

        try:
            if rounds is not None and member.ended is None:
                rounds.reload(settings, [key for key in changes if key not in FIXED], say)
                _say_waiting(rounds, settings)
            else:
                say()
        except UsageError as error:
            log.error("config.not_reloaded", error=str(error))
            return str(error)
        member.settings = settings
        self._members.bound(settings)
        return ""

    async def watch_directory(self, reload: Callable[[], object]) -> None:
        """Notice files that come, go or change, for ever."""
        changed, watcher = anyio.Event(), self._watcher
        if watcher is not None:
            watcher.subscribe({"configuration": self._directory}, lambda _kind: changed.set())
        seen = await threads.run_sync(_directory_signature, self._directory)
        self._bad = self._bad_files(seen, (one.settings for one in self._members.by_name.values()))
        while True:
            heard = watcher is not None and watcher.hint_alive
            with anyio.move_on_after(CONFIG_DIR_HEARD_SEC if heard else CONFIG_DIR_SEC):
                await changed.wait()
                await anyio.sleep(SETTLE_SEC)
            changed = anyio.Event()
            now = await threads.run_sync(_directory_signature, self._directory)
            if (now != seen or self._due()) and self._members.stop is None:
                seen = now
                reload()


def _say_waiting(rounds: Rounds, settings: Settings) -> None:
    """Name what is not as it was when the loop began and stays so until a restart."""
    waiting = [key for key in _changes(rounds.begun, settings) if key in FIXED]
    if not waiting:
        rounds.ctx.warnings.clear("restart")
        return
    rounds.ctx.log.warning("config.needs_restart", keys=waiting)
    what = f"what the configuration now says of {', '.join(waiting)} waits for a restart"
    rounds.ctx.warnings.tell("restart", what)


def _same(one: Settings, other: Settings) -> bool:
    return one == other and one.priority == other.priority


def _changes(before: Settings, after: Settings) -> dict[str, tuple[Any, Any]]:
    """Every key that is different, with its old and its new value."""
    old, new = _leaves(before), _leaves(after)
    keys = sorted(old.keys() | new.keys())
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def _leaves(settings: Settings) -> dict[str, Any]:
    leaves = {".".join(map(str, path)): value for path, value in settings.leaves()}
    return {**leaves, "priority": settings.priority}


def _directory_signature(path: str) -> Signature:
    found = []
    try:
        for entry in os.scandir(path):
            if entry.name.endswith(".toml") and not entry.name.startswith("."):
                stat = entry.stat()
                found.append((entry.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    except OSError:
        return ()
    return tuple(sorted(found))
