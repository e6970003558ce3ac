"""What the loop's work does to git beside the content of files: another branch, commits taken off
theirs, files hidden or stashed. It is said for as long as it is so."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.progress import printable
from codex_self_iter.core.text import listed
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.git.hidden import hidden, index_mark
from codex_self_iter.world.git.ledger import Ledger
from codex_self_iter.world.git.porcelain import to_text
from codex_self_iter.world.git.repository import Repository
from codex_self_iter.world.git.run import Git, GitError
from codex_self_iter.world.ports import WorkTree


class SideEffects:
    """Those of one loop.

    Attributes:
        stash: what the loop's work has put into git's stash, for people; "" when nothing is."""

    def __init__(self, ctx: Context, git: Git, work_tree: WorkTree, ledger: Ledger) -> None:
        self._ctx, self._git, self._work_tree, self._ledger = ctx, git, work_tree, ledger
        self.stash = ""
        self.branch = ""
        """The branch that was last seen checked out."""
        self._stashes: tuple[tuple[str, ...], tuple[str, ...]] = (), ()
        self._index: tuple[int, int, int] | None = None
        self._hidden: frozenset[str] | None = None
        """What git did not see before any run."""

    async def before(self, look: Snapshot) -> None:
        """A run is about to begin."""
        self.branch = look.branch or self.branch
        self._tell_place(look)
        if self._ledger.adrift:
            await self.tell_adrift(look, "")
        await self._look_for_hidden()

    async def after(self, before: Snapshot, after: Snapshot) -> None:
        """A run has ended, or gates."""
        if before.head != after.head:
            await self._tell_lost(before, after)
        self._tell_branch(before, after)
        await self._look_for_hidden()

    def _tell_branch(self, before: Snapshot, after: Snapshot) -> None:
        """Say that a run has changed the branch, for as long as another than before is out."""
        known = all(look.branch or look.head for look in (before, after))  # else git is gone
        if known and before.branch != after.branch:
            was, now = _place(before), _place(after)
            self._ctx.log.warning("git.branch_changed", was=was, now=now)
            if self._ledger.home is None:
                self._ledger.home = before.branch
        self._tell_place(after)

    def _tell_place(self, look: Snapshot) -> None:
        home, warnings = self._ledger.home, self._ctx.warnings
        if home is not None and look.branch == home:
            self._ledger.home = None
            warnings.clear("branch")
        elif home is not None and (look.branch or look.head):
            text = f"a run checked out {_place(look)} instead of {home or 'no branch'}"
            warnings.tell("branch", f"{text}: the work goes on there")

    async def _look_for_hidden(self) -> None:
        """Say which tracked files a run has hidden from git, and so from us."""
        repository, warnings = self._work_tree.repository, self._ctx.warnings
        if not isinstance(repository, Repository) or index_mark(repository) == self._index:
            return
        self._index = index_mark(repository)
        with contextlib.suppress(GitError):
            found = await hidden(self._git)
            if self._hidden is None:
                self._hidden = found
            names = sorted(found - self._hidden)
            if not names:
                warnings.clear("git.hidden")
                return
            text = (
                "a run hid tracked files from git, their changes are neither seen nor committed: "
                f"{some(names)}"
            )
            mend = "git update-index --no-skip-worktree --no-assume-unchanged FILE"
            warnings.tell("git.hidden", f"{text}; {mend}", agent=True)

    async def _tell_lost(self, before: Snapshot, after: Snapshot) -> None:
        """Say that a run took commits off their branch (a reset, a repository made anew)."""
        if not (self._ctx.policy.commit and before.head and after.complete):
            return
        held = ("for-each-ref", "--count=1", "--contains", before.head, "refs/heads")
        with contextlib.suppress(GitError):
            out = await self._git.run(*held)
            if out.exit_code == 0 and (out.stdout.strip() or not before.branch):
                return
            there = f"git branch rescue {before.head[:12]} brings them back"
            gone = "they are not in this repository, which was made anew"
            text = f"a run took the commits up to {before.head[:12]} off {before.branch}"
            known = await self._git.resolve(f"{before.head}^{{commit}}")
            self._ctx.log.warning("git.commits_lost", head=before.head, branch=before.branch)
            self._ctx.warnings.tell(
                "commit.lost", f"{text}: {there if known else gone}", agent=True
            )

    async def tell_adrift(self, look: Snapshot | None, commit: str) -> None:
        """Say that a commit is on no branch since a run detached HEAD, until one has it."""
        ledger, branch = self._ledger, look.branch if look else ""
        if branch:
            self.branch = branch
        elif commit and self.branch:  # who starts on no branch wants none
            ledger.adrift = commit
        if not ledger.adrift:
            return
        holding = ("for-each-ref", "--count=1", "--contains", ledger.adrift, "refs/heads")
        with contextlib.suppress(GitError):
            if (await self._git.ask(*holding)).strip():
                ledger.adrift = ""
                self._ctx.warnings.clear("commit.adrift")
                return
        what = f"the loop's last commit, {ledger.adrift[:12]}, is on no branch"
        mend = f"check out {self.branch} again and git merge {ledger.adrift[:12]}"
        text = f"{what}, because HEAD was detached from {self.branch}: {mend}"
        self._ctx.warnings.tell("commit.adrift", text, agent=True)

    async def look_for_taken(
        self, gone: Mapping[str, str], before: Snapshot, after: Snapshot
    ) -> None:
        """Say what work whose end nobody saw, gates or hooks took out of the work tree although it
        is not theirs to take, and what brings it back."""
        if not self._ledger.theirs:
            self._ctx.warnings.clear("taken")
        if gone and before.head != after.head:
            committed = await self._work_tree.committed(before.head, after.head)
            gone = {path: value for path, value in gone.items() if path not in committed}
        if not gone:
            return
        ids = {path: value.partition(" ")[2] for path, value in gone.items()}
        known: set[str] = set()
        with contextlib.suppress(GitError):
            wanted = "\n".join(filter(None, ids.values())).encode()
            found = await self._git.ask("cat-file", "--batch-check=%(objectname)", stdin=wanted)
            known = {line for line in found.decode().splitlines() if " " not in line}
        names = sorted(gone)
        back = [f"git cat-file blob {ids[p]} > {shlex.quote(p)}" for p in names if ids[p] in known]
        mend = "; ".join(back[:5]) or "a hook may have kept them (pre-commit: ~/.cache/pre-commit)"
        text = f"gates or a hook took changes out of the work tree: {some(names)}"
        self._ctx.warnings.tell(
            "taken", f"{text}; to bring them back: {printable(mend)}", agent=True
        )

    async def look_for_stashes(self, look: Snapshot) -> None:
        """Say what the loop's work has put into git's stash: it is not in the work tree."""
        ours, now = self._ledger.stashed, (self._ledger.stashed, look.stashes)
        if now == self._stashes or not look.complete:
            return
        self._stashes = now
        if not ours:
            self.stash = ""
            self._ctx.warnings.clear("git.stash")
            return
        told = [await self._stashed(one) for one in ours]
        place = look.stashes.index(ours[0])
        mend = "git stash pop" + (f" stash@{{{place}}}" if place else "")
        more = f" (and so on: {len(ours)} stashes of runs)" if len(ours) > 1 else ""
        self.stash = f"a run stashed {'; '.join(told[:3])}: {mend} brings it back{more}"
        self._ctx.warnings.tell("git.stash", self.stash, agent=True)

    async def _stashed(self, commit: str) -> str:
        """How many files a stash holds, and some of them."""
        names: list[str] = []
        for asked in (
            ("diff", "--name-only", "-z", f"{commit}^1", commit),
            ("ls-tree", "-r", "--name-only", "-z", f"{commit}^3"),  # untracked ones, if any
        ):
            with contextlib.suppress(GitError):
                names += map(to_text, (await self._git.ask(*asked)).split(b"\0")[:-1])
        return f"{len(names)} file(s) ({some(names)})" if names else "what cannot be read"


def some(names: list[str]) -> str:
    """The first five paths, fit for UTF-8, and how many more there are."""
    return printable(listed(names))


def _place(look: Snapshot) -> str:
    return look.branch or f"detached {look.head[:12]}"
