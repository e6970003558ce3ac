"""The workspace's content in one look: one `git status`, and the fingerprints of what it names.

Read-only: no lock is taken, no index is written, no hook, monitor or pager is started. The
repository may be in any state (unborn, detached, in the middle of a merge, locked by a dead
process); what a person should know is in the snapshot's note. When git does not answer, the
snapshot is incomplete and says why.

A workspace that never had a usable repository is scanned instead (see `contentscan`)."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Mapping

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.world import threads
from codex_self_iter.world.bounded import ToolResult
from codex_self_iter.world.git.fingerprint import Budget, Hasher, StatCache
from codex_self_iter.world.git.porcelain import (
    RAW,
    Record,
    Status,
    parse_raw,
    parse_status,
    to_text,
)
from codex_self_iter.world.git.repository import Finder, Repository, state_notes
from codex_self_iter.world.git.run import (
    MAX_OUTPUT,
    Git,
    GitError,
    GitRunner,
    GitTimeoutError,
    failed,
)
from codex_self_iter.world.git.scan import ContentScan, ScanLimits, scan
from codex_self_iter.world.guarded import stat_or_none

_STATUS = (
    *("--no-optional-locks", "status", "--porcelain=v2", "-z", "--branch", "--no-renames"),
    *("--untracked-files=all", "--no-ahead-behind"),
)
_AT_ONCE = 256 * 1024
"""Bytes of an answer that is read on the event loop; a longer one, for some 10 ms, in a thread."""
_DEPTH = 4
"""Repositories within repositories are followed this deep."""


@dataclasses.dataclass(slots=True)
class _Look:
    """What one snapshot gathers."""

    hasher: Hasher
    budget: Budget
    entries: dict[str, str] = dataclasses.field(default_factory=dict)
    staged: dict[str, str] = dataclasses.field(default_factory=dict)
    flaws: list[str] = dataclasses.field(default_factory=list)
    nested: int = 0
    rest: str = ""


class GitWorkTree:
    """A WorkTree over git. Its stat cache saves reading a file again that did not change."""

    def __init__(
        self,
        workspace: str,
        state_dir: str,
        runner: GitRunner,
        timeout_sec: float = 60.0,
        limits: ScanLimits | None = None,
    ) -> None:
        self.workspace = os.path.realpath(workspace)
        self._state = os.path.relpath(os.path.realpath(state_dir), self.workspace)
        self._limits = limits or ScanLimits()
        self._git = Git(runner, self.workspace, timeout_sec)
        self._scan = ContentScan(workspace, state_dir, timeout_sec, self._limits)
        self._finder = Finder(self._git)
        self._had_git = False
        self._cache: StatCache = {}

    @property
    def timeout_sec(self) -> float:
        """Patience with one git command, and with reading all files of one look."""
        return self._git.timeout_sec

    @timeout_sec.setter
    def timeout_sec(self, seconds: float) -> None:
        self._git.timeout_sec = self._scan.timeout_sec = seconds

    @property
    def repository(self) -> Repository | None:
        """The repository at the last look."""
        return self._finder.repository

    async def snapshot(self, previous: Snapshot | None) -> Snapshot:
        """Take one snapshot. Never raises for git or the files: the note says what is wrong."""
        try:
            why = await self._finder.find()
            if self.repository is not None:
                taken = await self._look(self.repository)
                self._had_git = self._had_git or taken.complete
                return taken
        except (GitError, ValueError) as error:
            why = str(error)
            if self.repository is not None or isinstance(error, GitTimeoutError):
                return Snapshot("", "", {}, complete=False, note=why)
        if self._had_git and self._finder.key is not None:
            return Snapshot("", "", {}, complete=False, note=why)
        taken = await self._scan.snapshot(previous)
        note = "; ".join(part for part in (taken.note, f"scanned without git: {why}") if part)
        return dataclasses.replace(taken, note=note)

    async def committed(self, old_head: str, new_head: str) -> Mapping[str, tuple[str, str]]:
        """What two commits differ in, for `compare`; {} when git does not answer. One process."""
        if self.repository is None or old_head == new_head:
            return {}
        sides = [head or self.repository.empty_tree for head in (old_head, new_head)]
        try:
            raw = await self._git.ask("diff-tree", *RAW, *sides, "--", ".")
            changes = [(self._relative(change.path), change) for change in parse_raw(raw)]
        except (GitError, ValueError):
            return {}
        return {
            to_text(path): (change.old, change.new) for path, change in changes if path is not None
        }

    async def _look(self, repository: Repository) -> Snapshot:
        budget = Budget(time.monotonic() + self._git.timeout_sec)
        look = _Look(Hasher(self._cache, budget, repository.object_format), budget)
        try:
            status = await self._status()
            if status is None:
                long = "git status: too many files to list"
                return Snapshot("", "", {}, complete=False, note=long)
            await self._gather(look, status)
        finally:
            budget.stop = True
        self._cache = look.hasher.fresh
        notes = look.flaws + state_notes(repository)
        if look.hasher.unreadable:
            some = (os.path.basename(to_text(path)) for path in look.hasher.unreadable[:3])
            notes.append(f"unreadable, judged by size and time: {', '.join(map(repr, some))}")
        note, whole = "; ".join(notes), not look.flaws
        stashes = await self._git.beside(repository.stashes) if repository.has_stash() else ()
        rest = look.rest if len(look.flaws) == 1 else ""
        return Snapshot(
            status.head, status.branch, look.entries, whole, note, look.staged, stashes, rest
        )

    async def _status(self) -> Status | None:
        pathspec = [".", *([f":(exclude,literal){self._state}"] if self._state_inside else [])]
        into = "dirty" if self._limits.unasked else "none"
        out = await self._git.run(*_STATUS, f"--ignore-submodules={into}", "--", *pathspec)
        if len(out.stdout) < _AT_ONCE:
            return self._read(out)
        return await self._git.beside(self._read, out)

    def _read(self, out: ToolResult) -> Status | None:
        """The status with paths below the workspace; None when it was too long. Raises GitError."""
        status = _parse(out, self._git)
        if status is None:
            return None
        paths = ((record, self._relative(record.path)) for record in status.records)
        records = (
            dataclasses.replace(record, path=path) for record, path in paths if path is not None
        )
        return dataclasses.replace(status, records=tuple(records))

    async def _gather(self, look: _Look, status: Status) -> None:
        records = list(status.records)
        changed = ((record.path, record.staged) for record in records)
        look.staged = {to_text(path): value for path, value in changed if value is not None}
        await self._fingerprints(look, records, b"")
        for record in records:
            if record.nested:
                await self._enter(look, record, record.path, 1)

    async def _fingerprints(self, look: _Look, records: list[Record], below: bytes) -> None:
        """Fingerprint the plain files of one status, in a worker thread."""
        top = os.path.join(os.fsencode(self.workspace), below)
        plain = [record for record in records if not record.nested]
        strangers = [record for record in plain if not record.tracked]
        excess = len(strangers) - self._limits.files
        if excess > 0:
            most = self._limits.files
            only = "the others are not read, only their names, sizes and times are compared"
            ask = "is a build directory not ignored?"
            look.flaws.append(f"more than {most} untracked files; {ask} {only}")
            plain = [record for record in plain if record.tracked] + strangers[:most]
            look.rest = await threads.run_sync(
                _by_stat, top, strangers[most:], look.budget, abandon_on_cancel=True
            )
        if not plain:
            return
        found, whole = await threads.run_sync(
            _hash_all, look.hasher, top, below, plain, abandon_on_cancel=True
        )
        if not whole:
            patience = f"{self._git.timeout_sec:g} s"
            look.flaws.append(f"reading the changed files took longer than {patience}")
        look.entries |= found

    async def _enter(self, look: _Look, record: Record, path: bytes, depth: int) -> None:
        """A submodule that differs, or an untracked repository: its HEAD, and its own changes."""
        name = to_text(path)
        top = os.path.join(self.workspace, name)
        if not os.path.lexists(os.path.join(top, ".git")):
            look.entries[name] = "directory" if os.path.isdir(top) else ""
            return
        look.nested += 1
        if depth > _DEPTH or look.nested > self._limits.nested:
            look.flaws.append(f"more repositories inside this one than are followed ({name})")
            return
        if self._limits.unasked:
            found, flaw = await threads.run_sync(
                scan,
                top,
                os.path.join(top, ".git"),
                look.hasher,
                self._limits,
                abandon_on_cancel=True,
            )
            look.entries |= {f"{name.rstrip('/')}/{inner}": mark for inner, mark in found.items()}
            look.flaws += [f"{name}: {flaw}"] if flaw else []
            return
        # Named outright: were its .git broken, git would climb up and answer for the outer one.
        git = dataclasses.replace(self._git, cwd=top)
        try:
            where = ("--git-dir", os.path.join(top, ".git"), "--work-tree", top)
            asked = await git.run(*where, *_STATUS, "--ignore-submodules=none")
            status = _parse(asked, git)
        except (GitError, ValueError) as error:
            look.flaws.append(f"{name}: {error}")
            return
        if status is None:
            look.flaws.append(f"{name}: too many files to list")
            return
        look.entries[name] = f"{'160000' if record.tracked else 'repository'} {status.head}"
        await self._fingerprints(look, list(status.records), path)
        for inner in status.records:
            if inner.nested:
                await self._enter(look, inner, os.path.join(path, inner.path), depth + 1)

    @property
    def _state_inside(self) -> bool:
        return self._state != "." and not self._state.startswith(os.pardir)

    def _relative(self, path: bytes) -> bytes | None:
        """The path below the workspace; None when it is outside or of the state directory."""
        assert self.repository is not None
        prefix = os.fsencode(self.repository.prefix)
        state = os.fsencode(self._state)
        inner = path.removeprefix(prefix)
        if not path.startswith(prefix) or inner == state or inner.startswith(state + b"/"):
            return None
        if to_text(inner) in self._limits.own:
            return None
        return inner


def _parse(out: ToolResult, git: Git) -> Status | None:
    """Read a status answer; None when it was too long. Raises GitError when git failed."""
    if out.exit_code != 0:
        raise failed(out, "status", git)
    if len(out.stdout) >= MAX_OUTPUT:
        return None
    return parse_status(out.stdout)


def _hash_all(
    hasher: Hasher, top: bytes, below: bytes, records: list[Record]
) -> tuple[dict[str, str], bool]:
    """Fingerprints by path from the workspace, without what equals HEAD (staged, taken back). False: time was up."""
    heads = {record.path: record.head for record in records if record.head is not None}
    links: dict[bytes, bool] = {b"": False}
    found: dict[bytes, str] = {}
    whole = True
    for record in records:
        if record.path not in found:
            behind_link = _behind_link(top, os.path.dirname(record.path), links)
            value = "" if behind_link else hasher.fingerprint(os.path.join(top, record.path))
            if value is None:
                whole = False
                break
            found[record.path] = value
    differing = ((path, value) for path, value in found.items() if heads.get(path) != value)
    return {to_text(os.path.join(below, path)): value for path, value in differing}, whole


def _by_stat(top: bytes, records: list[Record], budget: Budget) -> str:
    """What is another one when a name, size or time of these files is; "": time was up."""
    digest = hashlib.sha256()
    for record in records:
        if budget.spent:
            return ""
        found = stat_or_none(os.fsdecode(os.path.join(top, record.path)), follow=False)
        times = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns) if found else ()
        digest.update(repr((record.path, times)).encode())
    return digest.hexdigest()


def _behind_link(top: bytes, directory: bytes, known: dict[bytes, bool]) -> bool:
    """True when a directory was replaced by a link: what is behind it is not in the work tree."""
    if directory not in known:
        known[directory] = os.path.islink(os.path.join(top, directory)) or _behind_link(
            top, os.path.dirname(directory), known
        )
    return known[directory]
