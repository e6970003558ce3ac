"""The supervisor's commit: what the loop changed, for agents that cannot write `.git`.

Whose a change is, `core.owed` says. The commit is made by `git commit` itself on a private index
(HEAD plus the chosen paths), so that the repository's hooks, signing and message rules apply; what
the person has staged is not in it and stays staged. Afterwards the committed paths, and only they,
are brought up to date in the person's index, so that `git status` is clean. Where somebody else
commits meanwhile, a commit of ours on top of theirs would take theirs back: it is taken off again
and made anew.

What the loop's work has put into the index is the loop's as well: what was edited since is taken
as it is now; what was only taken out of the index, or made executable there, is taken as staged.
What is staged with the very content of the work tree, by git's own rules (filters, line ends, file
modes), is taken as it is staged; other staged content is the person's, and the path is left."""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
from collections.abc import Mapping

import anyio

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.owed import Debts, colliding, divide
from codex_self_iter.core.progress import printable
from codex_self_iter.errors import StorageError
from codex_self_iter.world.bounded import ToolResult
from codex_self_iter.world.git.conflicts import conflicts
from codex_self_iter.world.git.index import INDEX_INFO, PLUMBING, PrivateIndex
from codex_self_iter.world.git.left_out import left_out
from codex_self_iter.world.git.porcelain import RAW, RawChange, parse_raw, to_text
from codex_self_iter.world.git.repository import Finder, Repository
from codex_self_iter.world.git.run import HEAD, Git, GitError

_FALLBACK = {"NAME": "codex-self-iter", "EMAIL": "codex-self-iter@localhost"}
_HOOK_OUTPUT = 3500
_TRIES = 5
"""So often is a commit made anew that others had moved HEAD under; another loop may be quick."""
TRAILER = "Codex-Self-Iter-Iteration"
_MOVED = "somebody else committed at the same time"


@dataclasses.dataclass(frozen=True, slots=True)
class CommitResult:
    """What became of the loop's changes. What is not committed is still in the work tree.

    Attributes:
        commit: id of the new commit, or "".
        files: paths in it, fit for UTF-8.
        left: changed paths that were left alone, each with the reason.
        error: why there is no commit although there was something to commit; a hook's output is in
            it, ready for the next prompt.
        note: something a person should know, or "".
        tried: git was asked to commit, so that hooks may have changed files.
        untracked: paths whose file the commit left in the work tree, tracked no more."""

    commit: str = ""
    files: tuple[str, ...] = ()
    left: Mapping[str, str] = dataclasses.field(default_factory=dict)
    error: str = ""
    note: str = ""
    tried: bool = False
    untracked: tuple[str, ...] = ()


def message(goal: str, iteration: int, summary: str) -> str:
    """The commit message: a subject of at most 72 characters, the summary, the goal, a trailer."""
    subject = _line(summary) or _line(goal) or f"Iteration {iteration}"
    body = [subject if len(subject) <= 72 else subject[:71].rsplit(" ", 1)[0][:71] + "…"]
    if _text(summary) not in ("", subject) or len(subject) > 72:
        body.append(_text(summary) or subject)
    if _text(goal):
        body.append(f"Goal: {_text(goal)}")
    return "\n\n".join([*body, f"{TRAILER}: {iteration}"]) + "\n"


def _text(text: str) -> str:
    kept = re.sub(r"[^\S\n]+\n", "\n", re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text)).strip()
    return kept if len(kept) <= 2000 else kept[:1999] + "…"


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", next(iter(_text(text).splitlines()), "")).strip()


def _orders(entries: Mapping[bytes, str]) -> bytes:
    """What makes these paths (from the top) these entries, for `INDEX_INFO`."""
    return b"".join(entry.encode() + b"\t" + path + b"\0" for path, entry in entries.items())


async def identity(git: Git) -> tuple[dict[str, str], str]:
    """The person's identity is git's own business; only what nobody configured is filled in.

    Returns variables for a call, and a note for people where there are some. Raises GitError."""
    wanted = r"^(user|author|committer)\.(name|email)$"
    out = await git.run("config", "--get-regexp", wanted)
    lines = out.stdout.decode("utf-8", "replace").splitlines()
    values = {name: value.strip() for name, _, value in (x.partition(" ") for x in lines)}
    known = {name for name, value in values.items() if value}  # the last one counts
    filled = {}
    for role in ("AUTHOR", "COMMITTER"):
        for field, value in _FALLBACK.items():
            names = {f"user.{field.lower()}", f"{role.lower()}.{field.lower()}"}
            by_mail = field == "EMAIL" and os.environ.get("EMAIL")
            if not (names & known or by_mail or os.environ.get(f"GIT_{role}_{field}")):
                filled[f"GIT_{role}_{field}"] = value
    note = "git has no user.name or user.email here: committed as codex-self-iter"
    return filled, note if filled else ""


class SupervisorCommits:
    """Makes the commits of one loop. `no_verify` (skip hooks that may refuse) may be changed."""

    def __init__(self, git: Git, state_dir: str, *, no_verify: bool = False) -> None:
        self._git = git
        self.no_verify = no_verify
        self._index = PrivateIndex(git, state_dir, "commit")
        self._finder = Finder(git)

    @property
    def _repository(self) -> Repository | None:
        return self._finder.repository

    async def commit(
        self, debts: Debts, look: Snapshot, text: str, mine: Mapping[str, str]
    ) -> CommitResult:
        """Commit what is owed at this look under the message `text`; `mine`: what the loop has put
        into the index, by path. Never raises for a fault of git, hook or disk."""
        if not debts and not mine and look.complete:
            return CommitResult()
        ours, left = await self._git.beside(divide, debts, look)
        try:
            if obstacle := await self._obstacle(look):
                return CommitResult(left=left, error=obstacle)
            left |= (unfit := await left_out(self._git, ours))
            ours = {path: value for path, value in ours.items() if path not in unfit}
            mine = {p: entry for p, entry in mine.items() if p in ours or p not in look.entries}
            if not ours and not mine:
                return CommitResult(left=left)
            for _ in range(_TRIES):
                if (result := await self._commit(ours, text, mine)) is not None:
                    break
            else:
                return CommitResult(left=left, error=f"not committed: {_MOVED}", tried=True)
        except (GitError, StorageError, ValueError) as error:
            return CommitResult(left=left, error=f"not committed: {error}", tried=True)
        return dataclasses.replace(result, left=left | dict(result.left))

    async def catch_up(self, old: str) -> None:
        """A supervisor that was killed may have committed on top of `old` without bringing the
        person's index up to date: do that. Never raises for a fault of git."""
        try:
            await self._finder.find()
            new = await self._git.resolve(HEAD)
            said = await self._git.run("show", "-s", "--format=%P%n%B", "HEAD")
            parent, _, text = said.stdout.decode("utf-8", "replace").partition("\n")
            if self._repository is None or parent != old or f"\n{TRAILER}: " not in text:
                return
            staged = await self._differences("diff-index", "--cached", old)
            await self._publish(old, new, {change.path: change.new for change in staged}, {})
        except (GitError, ValueError):
            return  # nothing is lost: `git reset` does the same

    async def _obstacle(self, look: Snapshot) -> str:
        if not look.complete:
            return f"not committed: {look.note or 'incomplete snapshot'}"
        why = await self._finder.find()
        if self._repository is None:
            return f"not committed: {why}"
        if operation := self._repository.operation():
            return (
                f"not committed: {operation}; finish or abort it, the changes are in the work tree"
            )
        if self._repository.index_locked():
            lock = os.path.join(self._repository.git_dir, "index.lock")
            return f"not committed: {lock} exists; if no git command is running, remove it"
        return ""

    async def _commit(
        self, ours: dict[str, str], text: str, mine: Mapping[str, str]
    ) -> CommitResult | None:
        """One try; None when somebody else has moved HEAD meanwhile."""
        assert self._repository is not None
        old = await self._git.resolve(HEAD)
        changes = await self._differences("diff-index", "--cached", old)
        torn = await conflicts(self._git, ours) if any(not c.new for c in changes) else {}
        ours = {path: value for path, value in ours.items() if not torn.get(path)}
        ended = {self._full(path) for path, why in torn.items() if not why}
        staged = {c.path: c.new for c in changes if c.path not in ended}
        await self._git.beside(self._index.copy_from, self._repository)
        mine = {p: entry for p, entry in mine.items() if staged.get(self._full(p)) == entry}
        alike, other = await self._staged(ours, staged, mine)
        taken = {self._inner(path) for path in alike}
        foreign = [path for path in map(self._inner, staged) if path not in {*ours, *taken}]
        other |= set(colliding(ours, [*foreign, *other]))
        alike = {path: entry for path, entry in alike.items() if self._inner(path) not in other}
        left = dict.fromkeys(other, "staged with other content")
        left |= {path: why for path, why in torn.items() if why}
        if changes:
            await self._index.ask("read-tree", *(["--reset", old] if old else ["--empty"]))
        plain = {p: value for p, value in ours.items() if self._full(p) not in alike}
        plain = {p: value for p, value in plain.items() if p not in other}
        there, gone = ([p for p in plain if bool(plain[p]) is known] for known in (True, False))
        await self._index.update(gone, "--force-remove")
        refused = await self._index.add(there)
        ended -= {self._full(path) for path in [*other, *refused]}
        merged = {c.path: c.old for c in changes if c.path in ended}
        left |= refused
        error = "".join(f"{printable(p)} cannot be added: {refused[p]}" for p in [*refused][:1])
        if alike:
            zero = "0 " + "0" * len(self._repository.empty_tree)
            orders = _orders({path: entry or zero for path, entry in alike.items()})
            await self._index.ask(*INDEX_INFO, stdin=orders)
        same = await self._index.run("diff-index", "--cached", "--quiet", self._tree(old))
        if same.exit_code == 0:
            if merged:
                await self._publish(old, old, {}, merged)
            return CommitResult(left=left, error=error, tried=bool(merged))
        who, note = await identity(self._git)
        flags = ["--no-verify"] if self.no_verify else []
        if await self._git.resolve(HEAD) != old:
            return None
        token = f"codex-self-iter {secrets.token_hex(4)}"
        out = await self._git.run(
            *PLUMBING[:2],
            *("commit", "-q", "-F", "-", "--cleanup=whitespace", "--no-status", *flags),
            stdin=text.encode("utf-8", "replace"),
            env={**self._index.env, **who, "GIT_REFLOG_ACTION": token},
            hooks=True,
        )
        self._index.make_private()
        new, parent = await self._made(token, out)
        if not new:
            moved = await self._git.resolve(HEAD) != old  # then git could not move it once more
            error = self._refused(out)
            return None if moved else CommitResult(left=left, error=error, note=note, tried=True)
        if parent != old:
            back = ("update-ref", "-m", f"{token}: {_MOVED}", "HEAD", parent, new)
            if (await self._git.run(*back)).exit_code == 0:
                return None
            note = f"{new[:12]} takes back what {parent[:12]} has brought: {_MOVED}"
        theirs = {path: entry for path, entry in staged.items() if self._inner(path) not in mine}
        files, late = await self._publish(old, new, theirs, merged)
        failed = f"committed, but afterwards {self._refused(out)}" if out.exit_code != 0 else ""
        trouble = [note, failed, late]
        told = "; ".join(part for part in trouble if part)
        untracked = tuple(self._inner(path) for path, entry in alike.items() if not entry)
        return CommitResult(new, files, left, error, told, tried=True, untracked=untracked)

    async def _made(self, token: str, out: ToolResult) -> tuple[str, str]:
        """The commit that git has just made, and its parent ("" without one); ("", "") when there
        is none. HEAD may be somebody else's by now; the reflog names ours."""
        asked = ("log", "-g", "-n", "50", "--format=%H%x00%P%x00%gs", "HEAD")
        logged = await self._git.run(*asked)
        lines = logged.stdout.decode("utf-8", "replace").splitlines()
        if not lines and out.exit_code == 0:  # no reflog is kept here
            new = await self._git.resolve(HEAD)
            return new, await self._git.resolve(f"{new}^")
        made = (line.split("\0") for line in lines if f"\0{token}" in line)
        new, parents, _ = next(made, ["", "", ""])
        return new, parents.partition(" ")[0]

    async def _staged(
        self, ours: Mapping[str, str], staged: Mapping[bytes, str], mine: Mapping[str, str]
    ) -> tuple[dict[bytes, str], set[str]]:
        """What is staged otherwise than the bytes of our paths say: what is to be committed as it is
        staged (git sees it as the work tree has it, or the loop took it out of the index; full path
        -> entry), and the paths of ours that somebody else has staged."""
        doubtful = {p for p in ours if staged.get(self._full(p), ours[p]) != ours[p]}
        doubtful |= mine.keys() - ours.keys()
        if not doubtful:
            return {}, set()
        await self._index.run("update-index", "-q", "--refresh")
        changes = parse_raw(await self._index.ask("diff-files", *RAW))
        other = doubtful & {self._inner(change.path) for change in changes}
        out = {p for p in doubtful if not staged[self._full(p)]}
        alike = (doubtful - other - out) | (out & mine.keys())
        return {self._full(p): staged[self._full(p)] for p in alike}, (other | out) - mine.keys()

    async def _publish(
        self, old: str, new: str, staged: Mapping[bytes, str], merged: Mapping[bytes, str]
    ) -> tuple[tuple[str, ...], str]:
        """Bring the person's index up to date, but for paths that they staged differently; of the
        conflicts `merged` those that the commit does not hold are as in `old`."""
        changes = await self._differences("diff-tree", old, new)
        wanted = [c for c in changes if staged.get(c.path, c.new) == c.new]
        zero = "0 " + "0" * len(new)
        entries = {**merged, **{c.path: c.new for c in wanted}}
        orders = _orders({path: entry or zero for path, entry in entries.items()})
        files = tuple(sorted(printable(self._inner(c.path)) for c in changes))
        trouble = ""
        for _ in range(5):  # an editor's `git status` holds the lock for some milliseconds
            out = await self._git.run(*PLUMBING[2:], *INDEX_INFO, stdin=orders)
            if out.exit_code == 0:
                await self._git.run("update-index", "-q", "--refresh")
                return files, ""
            trouble = out.stderr.decode("utf-8", "replace").strip()[:300]
            await anyio.sleep(0.2)
        late = f"committed, but the index could not be brought up to date ({trouble})"
        return files, f"{late}: run git reset -q"

    async def _differences(self, command: str, *sides: str) -> list[RawChange]:
        flags = [side for side in sides if side.startswith("-")]
        # what is only announced (git add -N) has no content that somebody staged
        flags += ["--ita-invisible-in-index"] if command == "diff-index" else []
        trees = [self._tree(side) for side in sides if not side.startswith("-")]
        return parse_raw(await self._git.ask(command, *RAW, *flags, *trees))

    def _tree(self, commit: str) -> str:
        assert self._repository is not None
        return commit or self._repository.empty_tree

    def _full(self, path: str) -> bytes:
        assert self._repository is not None
        return os.fsencode(self._repository.prefix + path)

    def _inner(self, path: bytes) -> str:
        """A path below the top as one below the workspace; one outside keeps its full name."""
        return to_text(path.removeprefix(self._full("")))

    def _refused(self, out: ToolResult) -> str:
        said = b"\n".join(part.strip() for part in (out.stdout, out.stderr) if part.strip())
        text = said.decode("utf-8", "replace")
        if len(text) > _HOOK_OUTPUT:  # whole lines: half a secret would not be known for one
            _, _, text = text[-_HOOK_OUTPUT:].partition("\n")
        if out.timed_out:
            late = f"git commit did not end within {self._git.timeout_sec:g} s"
            return f"{late} (a hook?) and was ended.\n{text}"
        how = f"was ended by signal {out.signal}" if out.signal else ""
        return f"git commit {how or f'failed with exit code {out.exit_code}'}:\n{text}"
