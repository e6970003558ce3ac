"""Every iteration's result, kept as a commit that no branch, tag or stash knows.

`refs/codex-self-iter/<loop>/<iteration, six digits>` names a commit whose tree is the work tree's
content: tracked and untracked files, staged or not. Ignored files, the state directory, files above
a size and what git refuses (a filter fails) are not in it; the last two are listed in the message,
and a rewind leaves them alone. What is dirty inside a submodule is not in it.

`<iteration>-before` is the content that an iteration found, kept where that is not what the last
one left: at the start of a supervisor, and when a person edited in between. So `diff N` shows the
iteration's own work alone.

The commit's parent is the HEAD of that moment. The checkpoint before it is named in the message
only: were it a parent, pruning could never free anything.

It is made with a private index and plumbing commands: the person's index, stash, branches, reflogs
and hooks are not touched, and no user name needs to be configured."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.owed import unkept
from codex_self_iter.core.progress import printable
from codex_self_iter.errors import StorageError, UsageError
from codex_self_iter.world.git import labels, objects
from codex_self_iter.world.git.index import PLUMBING, PrivateIndex
from codex_self_iter.world.git.porcelain import to_text
from codex_self_iter.world.git.repository import Finder, Repository, loop_name
from codex_self_iter.world.git.run import HEAD, Git, GitError, failed
from codex_self_iter.world.git.scan import STOP_FILE
from codex_self_iter.world.guarded import stat_or_none

_IDENTITY = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (("NAME", "codex-self-iter"), ("EMAIL", "codex-self-iter@localhost"))
}
_SKIPPED = "Codex-Self-Iter-Skipped: "


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """A stored checkpoint. `label` is "12" for what iteration 12 left, "12-before" for what it
    found, or a name such as "before-rewind-…"."""

    label: str
    commit: str
    created: float
    subject: str
    tree: str

    @property
    def iteration(self) -> int | None:
        """The iteration whose result this is, else None."""
        return int(self.label) if self.label.isdecimal() else None

    @property
    def place(self) -> tuple[int, bool]:
        """Where it stands in time among the numbered ones; (-1, False) for another name."""
        return labels.place(self.label)


@dataclasses.dataclass(frozen=True, slots=True)
class Stretch:
    """Iterations between which nobody else edited: `old` is what the first found, `new` what the
    last left (commits)."""

    first: int
    last: int
    old: str
    new: str


@dataclasses.dataclass(frozen=True, slots=True)
class SaveResult:
    """What `save` did. No checkpoint: `commit` is "", `error` says why, and the loop goes on.
    `skipped`: files that are too big; `refused`: what git refuses, with its words."""

    label: str
    commit: str = ""
    skipped: tuple[str, ...] = ()
    error: str = ""
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """The work tree's content, stored, not yet named. `skipped`, `refused`: paths below the
    workspace that are not in it."""

    tree: str
    head: str
    skipped: tuple[str, ...]
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one loop. Kept for the loop's life, it saves git calls.

    Attributes:
        max_file_mb: untracked files above this many MiB are skipped, 0: none; may be changed.
        own: files of ours, relative to the workspace, which are not the work.
        unasked: git in submodules is not asked (`ScanLimits.unasked`)."""

    def __init__(
        self, git: Git, state_dir: str, *, loop: str = "", max_file_mb: float = 10
    ) -> None:
        self.git = git
        self.state_dir = os.path.realpath(state_dir)
        self.own: tuple[str, ...] = (STOP_FILE,)
        self.unasked = False
        self._loop = loop
        self.max_file_mb = max_file_mb
        self._finder = Finder(git)
        self._last: tuple[float, Snapshot, Tree] | None = None
        self._made: tuple[tuple[int, bool], str] | None = None

    async def repository(self) -> Repository:
        """The repository, found once. Raises GitError, and UsageError when there is none."""
        why = await self._finder.find()
        if self._finder.repository is None:
            raise UsageError(f"no checkpoints in {self.git.cwd}: {why}")
        return self._finder.repository

    async def ref(self, label: str) -> str:
        """Full name of a label's ref."""
        loop = self._loop or loop_name(await self.repository(), self.state_dir)
        return f"{labels.REFS}/{loop}/{labels.normal(label, 6)}"

    async def save(
        self, label: int | str, *, title: str = "", snapshot: Snapshot | None = None
    ) -> SaveResult:
        """Keep the work tree's content under `label`. Never raises for a fault of git or the disk.

        Args:
            label: the iteration's number.
            title: one line of what was done, for people.
            snapshot: the iteration's last snapshot, if at hand: saves looking for big files, and
                everything but the commit itself when nothing changed since the last one."""
        text = str(label)
        try:
            tree = await self.tree(snapshot)
            commit = await self.name(text, tree, title, snapshot.branch if snapshot else "")
        except (GitError, UsageError, StorageError) as error:
            return SaveResult(text, error=str(error))
        return SaveResult(text, commit, tree.skipped, refused=tree.refused)

    async def save_before(self, iteration: int, snapshot: Snapshot | None = None) -> SaveResult:
        """Keep what an iteration finds, unless that is known already (it goes on after a crash)."""
        label = f"{iteration}-before"
        try:
            known = await self.git.resolve(await self.ref(label))
        except (GitError, UsageError) as error:
            return SaveResult(label, error=str(error))
        return SaveResult(label, known) if known else await self.save(label, snapshot=snapshot)

    async def tree(self, snapshot: Snapshot | None = None, index_name: str = "checkpoint") -> Tree:
        """Store the work tree's content. Raises GitError, UsageError, StorageError."""
        snapshot = snapshot if snapshot and snapshot.complete else None
        if self._last and self._last[:2] == (self.max_file_mb, snapshot):
            return self._last[2]
        repository = await self.repository()
        index = PrivateIndex(self.git, self.state_dir, index_name)
        await self.git.beside(index.copy_from, repository)
        dirty = snapshot.entries if snapshot else await self._dirty()
        skipped = await self.git.beside(self._too_big, dirty)
        refused = {}
        if not await self._add(index, skipped):
            without = {*skipped, *(unkept(snapshot) if snapshot else ())}
            rest = [path for path in dirty if path not in without and not self.is_ours(path)]
            refused = await index.add(rest)
        head = snapshot.head if snapshot else await self.git.resolve(HEAD)
        result = Tree(await index.write_tree(), head, skipped, refused)
        if snapshot:
            self._last = self.max_file_mb, snapshot, result
        return result

    async def name(self, label: str, tree: Tree, title: str, branch: str = "") -> str:
        """Make a stored tree a checkpoint, in the place of an earlier one. Raises GitError."""
        made = self._made
        previous = made[1] if made and made[0] < labels.place(label) else await self._before(label)
        ours = (path for path in self.own if os.path.lexists(os.path.join(self.git.cwd, path)))
        told = dataclasses.replace(tree, skipped=(*tree.skipped, *ours))
        message = _message(label, told, title, branch, previous)
        parent = ["-p", tree.head] if tree.head else []
        out = await self.git.ask(
            *PLUMBING, "commit-tree", tree.tree, *parent, "-F", "-", stdin=message, env=_IDENTITY
        )
        commit = out.decode().strip()
        await self.git.ask(*PLUMBING, "update-ref", "--no-deref", await self.ref(label), commit)
        if labels.place(label)[0] >= 0:
            self._made = labels.place(label), commit
        return commit

    async def listing(self) -> list[Checkpoint]:
        """All checkpoints of this loop, iterations first, in order. Raises GitError, UsageError."""
        pattern = (await self.ref("0")).rpartition("/")[0]
        fields = (
            "%(refname)%00%(objectname)%00%(committerdate:unix)%00%(contents:subject)%00%(tree)"
        )
        found = []
        known = await self.git.ask("for-each-ref", f"--format={fields}", pattern)
        for line in known.splitlines():
            ref, commit, created, subject, tree = line.decode("utf-8", "replace").split("\0")
            label = labels.normal(ref.rpartition("/")[2])
            found.append(Checkpoint(label, commit, float(created or 0), subject, tree))
        return sorted(found, key=lambda one: (one.place[0] < 0, one.place, one.label))

    async def stretches(self, results: Mapping[int, str]) -> list[Stretch]:
        """What the iterations with these results (commits by number) did, without what somebody
        else did in between; one whose beginning is pruned is left out.

        Raises GitError, UsageError."""
        found: list[Stretch] = []
        begin, left = "", ""
        for one in await self.listing():
            number, is_result = one.place
            if number >= 0 and not is_result and one.tree != left:
                begin = one.commit
            elif is_result and results.get(number) == one.commit:
                if begin:
                    found.append(Stretch(number, number, begin, one.commit))
                elif found:
                    found[-1] = dataclasses.replace(found[-1], last=number, new=one.commit)
                begin, left = "" if begin or found else one.commit, one.tree
        return found

    async def find(self, label: str) -> Checkpoint:
        """The checkpoint of that label. Raises UsageError, which lists what there is."""
        known = await self.listing()
        name = labels.normal(label)
        if name.endswith("-before") and all(one.label != name for one in known):
            # what iteration N found has none of its own where the one before it has left it
            numbered = [(one.label, one.label) for one in known]
            if max(map(labels.place, dict(numbered)), default=(-1, False)) > labels.place(name):
                name = labels.before(numbered, name) or name
        for one in known:
            if one.label == name:
                return one
        if not known:
            raise UsageError(f"there is no checkpoint {label}: none has been made here yet")
        hint = " (an iteration that changed nothing has none)" if label.isdecimal() else ""
        raise UsageError(f"there is no checkpoint {label}{hint}; there are: {_ranges(known)}")

    async def skipped(self, commit: str) -> set[str]:
        """Paths below the workspace that were too big for a checkpoint, refused, or ours."""
        message = await self.git.ask("show", "-s", "--format=%B", "--encoding=UTF-8", commit)
        lines = message.decode("utf-8", "replace").splitlines()
        return {
            json.loads(line.removeprefix(_SKIPPED)) for line in lines if line.startswith(_SKIPPED)
        }

    async def diff(
        self, first: str, second: str = "", *, summary: bool = False, colour: bool = False
    ) -> bytes:
        """What iteration `first` changed (against the checkpoint before it, or the commit it
        started from); with `second`, what lies between the two. Raises GitError, UsageError."""
        if second:
            old, new = (await self.find(first)).commit, (await self.find(second)).commit
        else:
            new = (await self.find(first)).commit
            old = await self._before(first) or await self.git.resolve(f"{new}^1")
            old = old or (await self.repository()).empty_tree
        return await self.between(old, new, summary=summary, colour=colour)

    async def between(
        self, old: str, new: str, *, summary: bool = False, colour: bool = False
    ) -> bytes:
        """What lies between two commits, below the workspace. Raises GitError."""
        options = ["--no-ext-diff", "--relative", f"--color={'always' if colour else 'never'}"]
        return await self.git.ask(
            "diff", *options, *(["--stat=100"] if summary else []), old, new, "--", "."
        )

    async def prune(self, keep: int, keep_days: float, now: float) -> int:
        """Delete what is beyond the newest `keep` iterations or older than `keep_days` (0: no
        bound), never the newest; all others together likewise; and what only they needed. How
        many. Raises GitError."""
        known = await self.listing()
        doomed: list[Checkpoint] = []
        for numbered in (True, False):
            group = [one for one in known if (one.iteration is not None) is numbered]
            newest = sorted(group, key=lambda one: (one.created, one.place), reverse=True)
            for rank, one in enumerate(newest):
                old = keep_days > 0 and one.created < now - keep_days * 86400
                if rank and ((keep and rank >= keep) or old):
                    doomed.append(one)
        if doomed:
            orders = [f"delete {await self.ref(one.label)} {one.commit}\n" for one in doomed]
            update = (*PLUMBING, "update-ref", "--no-deref", "--stdin")
            await self.git.ask(*update, stdin="".join(orders).encode())
            newest_of_all = max(one.created for one in doomed)
            await objects.forget(self.git, [one.commit for one in doomed], newest_of_all)
        return len(doomed)

    def is_ours(self, path: str) -> bool:
        """True when a path below the workspace is in the state directory or a file of ours."""
        state = os.path.relpath(self.state_dir, self.git.cwd)
        return path == state or path.startswith(state + os.sep) or path in self.own

    async def _dirty(self) -> list[str]:
        raw = await self.git.ask(
            "ls-files", "-z", "--others", "--modified", "--exclude-standard", "--", "."
        )
        return [to_text(path) for path in raw.split(b"\0") if path]

    def too_big(self, path: str) -> bool:
        """True when a file (relative to the workspace) is too big for a checkpoint."""
        if not self.max_file_mb:
            return False
        found = stat_or_none(os.path.join(self.git.cwd, path), follow=False)
        return (
            found is not None
            and found.st_size > self.max_file_mb * 1024 * 1024
            and stat.S_ISREG(found.st_mode)
            and not self.is_ours(path)
        )

    def _too_big(self, paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted({path for path in paths if self.too_big(path)}))

    async def _add(self, index: PrivateIndex, skipped: Sequence[str]) -> bool:
        """Bring the private index to the work tree's content; False when git refuses some of it."""
        links = await self._submodules(index) if self.unasked else []
        excluded = [*skipped, *links, *self.own, os.path.relpath(self.state_dir, self.git.cwd)]
        outside = [path for path in excluded if path == "." or path.startswith(os.pardir)]
        specs = [".", *(f":(exclude,literal){path}" for path in excluded if path not in outside)]
        out = await index.run(
            *("-c", "advice.addEmbeddedRepo=false", "add", "-A", "--ignore-errors"),
            *("--pathspec-from-file=-", "--pathspec-file-nul"),
            stdin=b"\0".join(map(os.fsencode, specs)),
        )
        if out.timed_out:
            raise failed(out, "add", self.git)
        if links:  # their commits, for which git asks nobody
            paths = b"\0".join(map(os.fsencode, links))
            await index.run("update-index", "--remove", "-z", "--stdin", stdin=paths)
        return out.exit_code == 0

    async def _submodules(self, index: PrivateIndex) -> list[str]:
        with open(index.path, "rb") as file:  # the mode of one, as an entry has it
            if not await self.git.beside(lambda: b"\0\0\xe0\0" in file.read()):
                return []
        raw = await index.ask("ls-files", "--stage", "-z", "--", ".")
        found = (line.partition(b"\t") for line in raw.split(b"\0"))
        return [to_text(path) for about, _, path in found if about.startswith(b"160000 ")]

    async def _before(self, label: str) -> str:
        """Commit of the nearest earlier numbered checkpoint, or ""."""
        return labels.before([(one.label, one.commit) for one in await self.listing()], label)


def _message(label: str, tree: Tree, title: str, branch: str, previous: str) -> bytes:
    line = re.sub(r"\s+", " ", re.sub(r"[\x00-\x1f\x7f]", " ", title)).strip()[:500]
    number, result = labels.place(label)
    what = f"Checkpoint of iteration {number}" if result else f"Checkpoint {label}"
    trailers = [f"Codex-Self-Iter-Iteration: {number}"] if number >= 0 else []
    trailers += [f"Codex-Self-Iter-Branch: {printable(branch)}"] if branch else []
    trailers += [f"Codex-Self-Iter-Previous: {previous}"] if previous else []
    trailers += [_SKIPPED + json.dumps(path) for path in (*tree.skipped, *tree.refused)]
    parts = [what, printable(line), "\n".join(trailers)]
    return ("\n\n".join(part for part in parts if part) + "\n").encode("utf-8", "replace")


def _ranges(known: Sequence[Checkpoint]) -> str:
    """ "1-7, 9, before-rewind-x": iterations as ranges, then the rest."""
    runs: list[list[int]] = []
    for number in (one.iteration for one in known if one.iteration is not None):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(low) if low == high else f"{low}-{high}" for low, high in runs]
    return ", ".join(texts + [one.label for one in known if one.iteration is None])
