"""A work tree follows its branch to a later commit, or nothing at all is touched.

The branch and the work tree of a person are moved together. Meanwhile nobody else can: the work
tree's `index.lock` is ours, so that every git of the person that would commit, switch or stage says
so and does nothing; the branch itself is moved by compare and swap, and HEAD is held while files
are written. Files are brought up to date by git itself on a copy of the index, which refuses where
a change of the person is in the way.

What a kill leaves is told by one file in the work tree's git directory, the record: it says which
branch was to go from where to where, its living writer holds it by flock, and the locks are hard
links to it. `finish` reads it and brings everything to where the branch is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import anyio

from codex_self_iter.core.progress import printable
from codex_self_iter.core.text import counted, listed
from codex_self_iter.world.bounded import ToolResult
from codex_self_iter.world.git.held_index import Hold, Move
from codex_self_iter.world.git.index import INDEX_INFO
from codex_self_iter.world.git.porcelain import RAW, RawChange, parse_raw, parse_status
from codex_self_iter.world.git.repository import Repository
from codex_self_iter.world.git.run import Git, GitError, failed
from codex_self_iter.world.guarded import read_guarded

_PLUMBING = ("-c", "core.splitIndex=false", "-c", "core.safecrlf=false")
_WAITS, _WAIT_SEC = 20, 0.05
_TRIES = 10
_BUSY = "a git command is at work in {}; wait for it"
"""A status bar's git holds a lock for some milliseconds."""
_MAX_BLOB = 64 * 1024 * 1024
_LIMIT = 65536


@dataclasses.dataclass(frozen=True, slots=True)
class Advanced:
    """What became of an order to move a branch.

    Attributes:
        moved: the branch is at the new commit, and so is the work tree that has it checked out.
        why: what is in the way, where, and what to do; "" when nothing is.
        raced: the branch is not where it was expected any more: combine anew.
        place: top of the work tree that has the branch checked out, "" for none."""

    moved: bool
    why: str = ""
    raced: bool = False
    place: str = ""


class Place(NamedTuple):
    """A work tree: its top, and its own git directory ("": the directory is gone)."""

    path: str
    git_dir: str


def short(branch: str) -> str:
    """A branch as people call it."""
    return branch.removeprefix("refs/heads/")


async def _move(git: Git, order: Move, message: str) -> Advanced:
    """Move the branch alone. Raises GitError."""
    flags = ("--no-deref", "-m", message)
    out = await git.run("update-ref", *flags, order.branch, order.new, order.old)
    if out.exit_code == 0:
        return Advanced(True)
    at = await git.resolve(order.branch)
    if at == order.old:
        raise failed(out, "update-ref", git)
    return Advanced(False, raced=True, why=_elsewhere(order, at))


def _elsewhere(order: Move, at: str) -> str:
    where = f"is at {at[:12]} now" if at else "is gone"
    return f"{short(order.branch)} {where}; it was at {order.old[:12]}"


async def advance(
    git: Git, place: Place, order: Move, message: str, edited: str = "", *, again: bool = False
) -> Advanced:
    """Move a branch that this work tree has checked out, and the work tree with it. GitError.

    `edited`: a path, from the top, whose file stays as it is where a person has edited and not
    staged it. `again`: something was in the way, and probably is: look before the index is locked."""
    if not place.git_dir:
        gone = f"{short(order.branch)} is checked out in {place.path}, which is not there"
        return Advanced(False, f"{gone}; bring it back, or run git worktree prune")
    return await _Checkout(git, place, order, edited=edited).advance(message, again)


async def advance_beside(
    git: Git, others: Sequence[Place], order: Move, message: str
) -> Advanced | None:
    """Move a branch that no work tree has checked out; None when one has it by now. GitError.

    A `git switch` of a person to this very branch reads where it is long before HEAD says so: in
    these work trees no git begins meanwhile, and one that came too late for that is caught up
    with."""
    trees = [_Checkout(git, place, order) for place in others]
    held: list[_Checkout] = []
    try:
        for tree in trees:
            why = await tree.take()
            if why:
                return Advanced(False, why)
            held.append(tree)
        if any([await tree.on_branch() for tree in held]):
            return None
        moved = await _move(git, order, message)
        for tree in held if moved.moved else ():
            await tree.wait_for_others()
            if await tree.on_branch():
                caught = await tree.settle()
                moved = caught if caught.why else dataclasses.replace(moved, place=caught.place)
        return moved
    finally:
        with anyio.CancelScope(shield=True):
            for tree in held:
                await tree.give_back()


async def finish(git: Git, place: Place, branch: str = "") -> Advanced | None:
    """Bring to its end what was cut off in this work tree, where it was to move this branch (any
    without); None when nothing was. Raises GitError."""
    if not os.path.lexists(os.path.join(place.git_dir, Hold.RECORD)):
        return None
    hold = Hold(place.git_dir)
    if not await git.beside(hold.open):
        return Advanced(False, _at_work(place))
    try:
        order = hold.order()
        if order is None:  # it was cut off before anything was changed
            await git.beside(hold.clear)
            return None
        wanted = branch in ("", order.branch)
        return await _Checkout(git, place, order, hold).settle() if wanted else None
    finally:
        hold.release()


def _at_work(place: Place) -> str:
    return f"another landing is at work in {place.path}; wait for it"


class _Checkout:
    """One order in one work tree."""

    def __init__(
        self, git: Git, place: Place, order: Move, hold: Hold | None = None, edited: str = ""
    ) -> None:
        self._git = dataclasses.replace(git, cwd=place.path)
        self._place = place
        self._order = order
        self._edited, self._is_edited = os.fsencode(edited), False
        self._hold = Hold(place.git_dir) if hold is None else hold
        self._on_copy = {"GIT_INDEX_FILE": self._hold.copy}

    async def advance(self, message: str, again: bool) -> Advanced:
        """See `advance` of this module."""
        left = await finish(self._git, self._place)
        if left is not None and left.why:
            return await self._refused(left.why)
        if why := await self._unfit({}) if again else self._under_way():
            return await self._refused(why)
        if why := await self.take():
            return await self._refused(why)
        try:
            return await self._advance(message)
        finally:
            self._hold.release()

    async def take(self) -> str:
        """Write the record and lock the index in a moment in which no git is at work here; why that
        cannot be."""
        if not await self._git.beside(self._hold.open):
            return _at_work(self._place)
        await self._git.beside(self._hold.write, self._order)
        why = ""
        for _ in range(_TRIES):
            why = await self.wait_for_others() or await self._lock_index()
            if why or not await self._git.beside(self._hold.somebody, self._place.path):
                break
            await self._git.beside(self._hold.unlock, self._hold.INDEX)
            why = _BUSY.format(self._place.path)
        if why:
            await self.give_back()
        return why

    async def give_back(self) -> None:
        """Everything of ours goes; nothing where that is so already."""
        await self._git.beside(self._hold.clear)
        self._hold.release()

    async def wait_for_others(self) -> str:
        """Until no git is at work in this work tree: some keep what they have read of the index, or
        write HEAD after it. What to say where one stays."""
        for _ in range(_WAITS):
            if not await self._git.beside(self._hold.somebody, self._place.path):
                return ""
            await anyio.sleep(_WAIT_SEC)
        return _BUSY.format(self._place.path)

    async def on_branch(self) -> bool:
        """Whether HEAD is on the branch."""
        out = await self._run("symbolic-ref", "--quiet", "HEAD")
        return os.fsdecode(out.stdout.removesuffix(b"\n")) == self._order.branch

    async def _advance(self, message: str) -> Advanced:
        """The index is locked."""
        why = await self._unfit_now() or await self._overwritten()
        if why:
            await self._git.beside(self._hold.clear)
            return await self._refused(why)
        moved = await self._move(self._order, message)
        if not moved.moved:
            await self._git.beside(self._hold.clear)
            return dataclasses.replace(moved, place=self._place.path)
        if await self._hold_head():
            try:
                await self._enter_edited()
                await self._read_tree(self._order.old, self._order.new)
            except GitError as error:
                return await self.settle(str(error))
            # one that has read the index by now would write it back as it was, once it is unlocked
            await self.wait_for_others()
            await self._git.beside(self._hold.publish)
        await self._git.beside(self._hold.clear)
        return Advanced(True, place=self._place.path)

    async def settle(self, trouble: str = "") -> Advanced:
        """Bring index and files to where the branch is, or all of it back to the old commit."""
        if why := await self._wait_for_the_dead() or await self._lock_index():
            return Advanced(False, why, place=self._place.path)
        order, place = self._order, self._place.path
        at = await self._git.resolve(order.branch)
        if at not in (order.old, order.new) or not await self._hold_head():
            await self._git.beside(self._hold.clear)
            return Advanced(at == order.new, raced=at not in (order.old, order.new), place=place)
        theirs: Collection[bytes] = ()
        if at == order.new and not trouble:
            try:
                theirs = await self._bring(order.old, order.new)
            except GitError as error:
                trouble = str(error)
            if not theirs and not trouble:
                await self._git.beside(self._hold.clear)
                return Advanced(True, place=place)
        if at == order.new:
            await self._git.beside(self._hold.unlock, self._hold.HEAD)  # git writes to its reflog
            back = Move(order.branch, order.new, order.old)
            if not (await self._move(back, "landing taken back")).moved:
                raise GitError(f"{short(order.branch)} was moved while {place} was brought back")
            await self._hold_head()
        await self._bring(order.new, order.old, leave=True)
        await self._git.beside(self._hold.clear)
        why = self._changes(theirs) if theirs else ""
        if trouble:
            why = f"{place} cannot be brought to the new commit: {trouble}"
        return Advanced(False, why, place=place)

    async def _refused(self, why: str) -> Advanced:
        at = await self._git.resolve(self._order.branch)
        if at != self._order.old:
            elsewhere = _elsewhere(self._order, at)
            return Advanced(False, elsewhere, raced=True, place=self._place.path)
        return Advanced(False, why, place=self._place.path)

    async def _unfit(self, env: Mapping[str, str]) -> str:
        """Why this work tree cannot follow, by its index or the copy of it."""
        path, branch = self._place.path, short(self._order.branch)
        if why := self._under_way():
            return why
        flags = ("-z", "--branch", "--no-ahead-behind", "--no-renames", "--untracked-files=no")
        status = (*_PLUMBING, "status", "--porcelain=v2", *flags, "--ignore-submodules=dirty")
        found = parse_status(await self._git.ask(*status, env=env))
        if found.branch != branch:
            return f"{path} has left {branch} just now; try again"
        if found.head != self._order.old:
            return f"{branch} is at {found.head[:12]} now"
        # another commit of a submodule in the work tree is nothing that git would overwrite
        changed = [one.path for one in found.records if not one.nested or one.staged is not None]
        if self._edited in changed and await self._only_edited(env):
            changed.remove(self._edited)
            self._is_edited = True
        return (await self._moved_beneath() or self._changes(changed)) if changed else ""

    async def _moved_beneath(self) -> str:
        """What to do where the branch was moved from another work tree, so that the files here are
        behind it; "" where it was not. git writes down what this work tree itself has moved."""
        path, old = self._place.path, self._order.old
        out = await self._git.run("log", "--walk-reflogs", "--max-count=1", "--format=%H", "HEAD")
        seen = out.stdout.decode().strip()
        if not seen or seen == old:
            return ""
        moved = f"{short(self._order.branch)} was moved to {old[:12]} from elsewhere"
        mend = f"git read-tree -m -u {seen[:12]} HEAD"
        return f"{moved}, and {path} is still at {seen[:12]}; there: {mend}"

    async def _only_edited(self, env: Mapping[str, str]) -> bool:
        """Whether the file that may be edited is not staged, too."""
        ask = ("--literal-pathspecs", "diff-index", "--cached", "--quiet", "HEAD", "--")
        out = await self._git.run(*ask, os.fsdecode(self._edited), env=env)
        return out.exit_code == 0

    async def _enter_edited(self) -> None:
        """Where the file that may be edited is, git is to take the new entry and leave the file."""
        if self._is_edited and self._edited in await self._unlike():
            between = await self._between()
            await self._enter({c.path: c.new for c in between if c.path == self._edited})

    async def _unfit_now(self) -> str:
        """The same of a fresh copy, which knows then of each file whether it is as it was."""
        await self._git.beside(self._hold.copy_index)
        return await self._unfit({**self._on_copy, "GIT_OPTIONAL_LOCKS": "1"}) or self._under_way()

    def _under_way(self) -> str:
        operation = Repository(self._place.git_dir, "", "", "").operation()
        if os.path.lexists(self._hold.path("sequencer")):
            operation = "cherry-pick or revert in progress"
        return f"{self._place.path} has a {operation}; finish or abort it" if operation else ""

    def _changes(self, paths: Collection[bytes]) -> str:
        names = listed([printable(os.fsdecode(path)) for path in sorted(paths)], 3)
        many = counted(len(paths), "file")
        return f"{self._place.path} has changes of yours in {many} ({names}); commit or stash them"

    async def _overwritten(self) -> str:
        """Files of the person that git does not track, also ignored ones, which the new commit has
        at their places."""
        added = [change.path for change in await self._between() if not change.old]
        found = await self._git.beside(_others, self._place.path, added)
        if not found:
            return ""
        ask = ("--literal-pathspecs", "ls-files", "-z", "--others", "--")
        lines = await self._ask(*ask, *map(os.fsdecode, found))
        theirs = [name for name in lines.split(b"\0") if name]
        if not theirs:
            return ""
        names = listed([printable(os.fsdecode(name)) for name in theirs], 3)
        what = f"{self._place.path} has files that would be overwritten ({names})"
        return f"{what}; move them away or commit them"

    async def _between(self) -> list[RawChange]:
        return parse_raw(await self._git.ask("diff-tree", *RAW, self._order.old, self._order.new))

    async def _fresh_copy(self) -> bool:
        await self._git.beside(self._hold.copy_index)
        return await self._refresh()

    async def _refresh(self) -> bool:
        """Look at every file; whether all are as the copy has them."""
        out = await self._run("update-index", "--refresh", "--ignore-submodules")
        return out.exit_code == 0

    async def _lock_index(self) -> str:
        for _ in range(_WAITS):
            if await self._git.beside(self._hold.lock, self._hold.INDEX):
                return ""
            await anyio.sleep(_WAIT_SEC)
        lock = self._hold.path(self._hold.INDEX)
        return f"{lock} exists: a git command is at work there; if none is running, remove it"

    async def _hold_head(self) -> bool:
        """Hold HEAD; False when the work tree has left the branch."""
        for _ in range(_WAITS):
            if await self._git.beside(self._hold.lock, self._hold.HEAD):
                break
            await anyio.sleep(_WAIT_SEC)
        return await self.on_branch()

    async def _wait_for_the_dead(self) -> str:
        give_up = anyio.current_time() + min(self._git.timeout_sec, 600)
        while await self._git.beside(self._hold.still_written):
            if anyio.current_time() > give_up:
                return f"a git of an earlier landing is still at work in {self._place.path}"
            await anyio.sleep(_WAIT_SEC)
        return ""

    async def _bring(self, old: str, new: str, *, leave: bool = False) -> Collection[bytes]:
        """Bring index and files from `old`, or from something between both, to `new`. Nothing is
        touched where a person has changed what is to be changed: returns their paths. With `leave`
        they stay as they are, and the rest follows."""
        between = parse_raw(await self._git.ask("diff-tree", *RAW, old, new))
        await self._fresh_copy()
        cached = parse_raw(await self._ask("diff-index", "--cached", *RAW, new))
        staged = {change.path: change.new for change in cached}
        changes, theirs = {}, set()
        for change in between:
            entry = staged.get(change.path, change.new)
            if entry not in (change.old, change.new):
                theirs.add(change.path)
            elif leave or entry == change.old:  # else the index was brought to the end already
                changes[change.path] = change
        done, broken, edited = await self._sort(changes)
        theirs |= edited
        if theirs and not leave:
            return theirs
        await self._git.beside(self._remove, broken)
        await self._fresh_copy()
        kept = {c.path: c.new for c in between if c.path in done or c.path in theirs}
        await self._enter({path: change.old for path, change in changes.items()} | kept)
        await self._refresh()
        await self._read_tree(old, new)
        await self._enter({path: staged[path] for path in theirs if path in staged})
        await self._refresh()
        await self._git.beside(self._hold.publish)
        return theirs

    async def _sort(
        self, changes: Mapping[bytes, RawChange]
    ) -> tuple[set[bytes], list[bytes], set[bytes]]:
        """The paths whose file is as it is to be, those of which a killed git has written the
        beginning, and those that hold something of a person. The others are as they were."""
        await self._enter({path: change.new for path, change in changes.items()})
        unlike = await self._unlike()
        done = {
            path
            for path, change in changes.items()
            if (path not in unlike if change.new else not self._there(path))
        }
        await self._enter({path: change.old for path, change in changes.items()})
        unlike = await self._unlike()
        broken, edited = [], set()
        for path, change in changes.items():
            if path in done or not self._there(path) or (change.old and path not in unlike):
                continue
            sides = (change.new, change.old)
            if any([await self._is_beginning(path, side) for side in sides]):
                broken.append(path)
            else:
                edited.add(path)
        return done, broken, edited

    async def _read_tree(self, old: str, new: str) -> None:
        await self._ask("read-tree", "-m", "-u", "--no-recurse-submodules", old, new)

    async def _enter(self, entries: Mapping[bytes, str]) -> None:
        """Make these paths these entries in the copy ("": none)."""
        zero = "0 " + "0" * len(self._order.new)
        orders = [(entry or zero).encode() + b"\t" + path for path, entry in entries.items()]
        if orders:
            await self._ask(*INDEX_INFO, stdin=b"".join(order + b"\0" for order in orders))

    async def _unlike(self) -> set[bytes]:
        """Paths whose file is not what the copy has for them."""
        await self._refresh()
        out = await self._ask("diff-files", *RAW, "--ignore-submodules=all")
        return {change.path for change in parse_raw(out)}

    async def _is_beginning(self, path: bytes, entry: str) -> bool:
        """True when the file holds nothing but the beginning of what is to come: a git that was
        killed has written it."""
        mode, _, oid = entry.partition(" ")
        if not mode.startswith("100"):
            return False
        try:
            shown = ("cat-file", "--filters", f"--path={os.fsdecode(path)}", oid)
            out = await self._run(*shown)
            found = await self._git.beside(read_guarded, self._full(path), _MAX_BLOB)
        except (GitError, OSError):  # a filter that dies, a link
            return False
        if out.exit_code != 0 or out.truncated:
            return False
        return len(found) < len(out.stdout) and out.stdout.startswith(found)

    def _remove(self, paths: Iterable[bytes]) -> None:
        for path in paths:
            os.unlink(self._full(path))

    def _there(self, path: bytes) -> bool:
        return os.path.lexists(self._full(path))

    def _full(self, path: bytes) -> str:
        return os.path.join(self._place.path, os.fsdecode(path))

    async def _move(self, order: Move, message: str) -> Advanced:
        env = {**self._git.env, **self._on_copy}  # so that it is known for ours
        return await _move(dataclasses.replace(self._git, env=env), order, message)

    async def _ask(self, *args: str, stdin: bytes | None = None) -> bytes:
        return await self._git.ask(*_PLUMBING, *args, stdin=stdin, env=self._on_copy)

    async def _run(self, *args: str) -> ToolResult:
        return await self._git.run(*_PLUMBING, *args, env=self._on_copy)


def _others(top: str, added: Iterable[bytes]) -> list[bytes]:
    """What is at the places of files to be added: they themselves, or what is above them and is no
    directory. Blocking."""
    found = set()
    for path in added:
        above = path
        while above := os.path.dirname(above):
            full = os.path.join(os.fsencode(top), above)
            if os.path.islink(full) or os.path.isfile(full):
                found.add(above)
        if os.path.lexists(os.path.join(os.fsencode(top), path)):
            found.add(path)
    return sorted(found)
