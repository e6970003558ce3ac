"""The supervisor's commit: what an iteration changed, for agents that cannot write `.git`.

Whose change is it? Judged by content, path by path, between the snapshots before and after the
iteration:

    clean before, different after                      the iteration's: committed
    dirty before, by an earlier iteration of ours that
    could not be committed (a hook refused it)         the iteration's: committed
    dirty before, by a person, and edited since        two hands in one file: left, and listed
    dirty before, untouched since                      the person's: left
    staged with other content than the work tree has   the person's: left, and listed
    a repository inside this one that is not tracked   left, and listed

Leaving a mixed file is the safe side: nothing of the person's is published under our message, and
nothing of the agent's is lost. Once the person commits or takes back their part, the file belongs
to the iterations again.

The commit is made by `git commit` itself on a private index (HEAD plus the chosen paths), so that
the repository's hooks, signing and message rules apply; what the person has staged is not in it and
stays staged. Afterwards the committed paths, and only they, are brought up to date in the person's
index, so that `git status` is clean."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import time
from collections.abc import Iterable, Mapping

import anyio

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.progress import printable
from codex_self_iter.errors import StorageError
from codex_self_iter.world.bounded import ToolResult
from codex_self_iter.world.git.fingerprint import Budget, Hasher
from codex_self_iter.world.git.index import INDEX_INFO, PLUMBING, PrivateIndex
from codex_self_iter.world.git.porcelain import RAW, RawChange, parse_raw, to_text
from codex_self_iter.world.git.repository import Finder, Repository
from codex_self_iter.world.git.run import HEAD, Git, GitError
from codex_self_iter.world.guarded import read_object
from codex_self_iter.world.state.durable import replace_private

_FALLBACK = {"NAME": "codex-self-iter", "EMAIL": "codex-self-iter@localhost"}
_MAX_OWED = 16 * 1024 * 1024
_HOOK_OUTPUT = 4000


@dataclasses.dataclass(frozen=True, slots=True)
class CommitResult:
    """What became of an iteration's changes. What is not committed is still in the work tree.

    Attributes:
        commit: id of the new commit, or "".
        files: paths in it, fit for UTF-8.
        left: changed paths that were left alone, with the reason.
        error: why there is no commit although there was something to commit; a hook's output is in
            it, ready for the next prompt.
        note: something a person should know, or ""."""

    commit: str = ""
    files: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    error: str = ""
    note: str = ""


def whose(
    before: Snapshot, after: Snapshot, owed: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Divide the paths that differ from HEAD: (ours: path -> fingerprint, left: path -> reason).

    Pure. `owed` is what earlier iterations left uncommitted: path -> fingerprint."""
    ours: dict[str, str] = {}
    left: dict[str, str] = {}
    nested = tuple(
        f"{path}/" for path, value in after.entries.items() if value.startswith(("160000", "repo"))
    )
    for path, value in after.entries.items():
        was = before.entries.get(path)
        if path.startswith(nested) or (was == value and owed.get(path) != was):
            continue
        if value.startswith(("repository", "special", "unreadable")):
            left[path] = f"{value.partition(' ')[0]}: cannot be committed"
        elif was is None or owed.get(path) == was:
            ours[path] = value
        else:
            left[path] = "was changed and not committed before the iteration"
    foreign = [path for path in after.entries if path not in ours and not path.startswith(nested)]
    for path in _colliding(ours, foreign):
        del ours[path]
        left[path] = "stands where a file of somebody else's is missing"
    return ours, left


def _colliding(ours: Iterable[str], foreign: Iterable[str]) -> list[str]:
    """Paths of ours that lie below a foreign path, or above one: no tree can hold both."""
    others = set(foreign)
    above = {parent for path in others for parent in _parents(path)}
    return [
        path for path in ours if path in above or any(parent in others for parent in _parents(path))
    ]


def _parents(path: str) -> Iterable[str]:
    """ "a/b/c" -> "a", "a/b"."""
    return (path[:place] for place, letter in enumerate(path) if letter == "/")


def message(goal: str, iteration: int, summary: str) -> str:
    """The commit message: a subject of at most 72 characters, the summary, the goal, a trailer."""
    subject = _line(summary) or _line(goal) or f"Iteration {iteration}"
    body = [subject if len(subject) <= 72 else subject[:71].rsplit(" ", 1)[0][:71] + "…"]
    if _text(summary) not in ("", subject) or len(subject) > 72:
        body.append(_text(summary) or subject)
    if _text(goal):
        body.append(f"Goal: {_text(goal)}")
    return "\n\n".join([*body, f"Codex-Self-Iter-Iteration: {iteration}"]) + "\n"


def _text(text: str) -> str:
    kept = re.sub(r"[^\S\n]+\n", "\n", re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text)).strip()
    return kept if len(kept) <= 2000 else kept[:1999] + "…"


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", next(iter(_text(text).splitlines()), "")).strip()


class SupervisorCommits:
    """Makes the commits of one loop. `no_verify` (skip hooks that may refuse) may be changed."""

    def __init__(self, git: Git, state_dir: str, *, no_verify: bool = False) -> None:
        self._git = git
        self.no_verify = no_verify
        self._index = PrivateIndex(git, state_dir, "commit")
        self._owed_path = os.path.join(self._index.directory, "owed.json")
        self._finder = Finder(git)

    @property
    def _repository(self) -> Repository | None:
        return self._finder.repository

    async def commit_iteration(
        self, *, iteration: int, goal: str, summary: str, before: Snapshot, after: Snapshot
    ) -> CommitResult:
        """Commit what the iteration changed. Never raises for a fault of git, hook or disk."""
        ours, left = whose(before, after, self._owed())
        shown = tuple(f"{printable(path)} ({reason})" for path, reason in sorted(left.items()))
        try:
            obstacle = await self._obstacle(before, after)
            if obstacle or not ours:
                # else the person's own work would look like ours
                if before.complete and after.complete:
                    await self._git.beside(self._remember, ours)
                return CommitResult(left=shown, error=obstacle if ours else "")
            result = await self._commit(ours, message(goal, iteration, summary))
        except (GitError, StorageError, ValueError) as error:
            await self._git.beside(self._remember, ours)
            return CommitResult(left=shown, error=str(error))
        return dataclasses.replace(result, left=(*shown, *result.left))

    async def _obstacle(self, before: Snapshot, after: Snapshot) -> str:
        if not (before.complete and after.complete):
            half = after if before.complete else before
            return f"not committed: {half.note or 'incomplete snapshot'}"
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

    async def _commit(self, ours: dict[str, str], text: str) -> CommitResult:
        assert self._repository is not None
        old = await self._git.resolve(HEAD)
        staged = {c.path: c.new for c in await self._differences("diff-index", "--cached", old)}
        elsewhere = self._staged_elsewhere(ours, staged)
        for path in elsewhere:
            del ours[path]  # for the caller, too: what fails from here on owes nothing of these
        left = tuple(f"{printable(path)} (staged with other content)" for path in sorted(elsewhere))
        await self._git.beside(self._index.copy_from, self._repository)
        if staged:
            await self._index.ask("read-tree", *(["--reset", old] if old else ["--empty"]))
        await self._add(ours)
        same = await self._index.run("diff-index", "--cached", "--quiet", self._tree(old))
        if same.exit_code == 0:
            return CommitResult(left=left)
        identity, note = await self._identity()
        flags = ["--no-verify"] if self.no_verify else []
        out = await self._git.run(
            *PLUMBING[:2],
            *("commit", "-q", "-F", "-", "--cleanup=whitespace", "--no-status", *flags),
            stdin=text.encode("utf-8", "replace"),
            env={**self._index.env, **identity},
            hooks=True,
        )
        self._index.make_private()
        new = await self._git.resolve(HEAD)
        await self._git.beside(self._remember, ours)
        if new == old:
            return CommitResult(left=left, error=self._refused(out), note=note)
        files, late = await self._publish(old, new, staged)
        trouble = [note, self._refused(out) if out.exit_code != 0 else "", late]
        return CommitResult(new, files, left, note="; ".join(part for part in trouble if part))

    def _staged_elsewhere(self, ours: Mapping[str, str], staged: Mapping[bytes, str]) -> set[str]:
        """Paths of ours that the person staged with other content, or that collide with theirs."""
        found = {path for path in ours if staged.get(self._full(path), ours[path]) != ours[path]}
        foreign = [path for path in map(self._inner, staged) if path not in ours]
        return found | set(_colliding(ours, [*foreign, *found]))

    async def _add(self, ours: dict[str, str]) -> None:
        for there, flags in (
            (False, ["--force-remove"]),
            (True, ["--add", "--remove", "--replace"]),
        ):
            paths = [os.fsencode(path) + b"\0" for path in ours if bool(ours[path]) is there]
            if paths:
                update = ("update-index", *flags, "-z", "--stdin")
                await self._index.ask(*update, stdin=b"".join(paths))

    async def _publish(
        self, old: str, new: str, staged: Mapping[bytes, str]
    ) -> tuple[tuple[str, ...], str]:
        """Bring the person's index up to date, but for paths that they staged differently."""
        changes = await self._differences("diff-tree", old, new)
        wanted = [c for c in changes if staged.get(c.path, c.new) == c.new]
        zero = "0 " + "0" * len(new)
        orders = b"".join((c.new or zero).encode() + b"\t" + c.path + b"\0" for c in wanted)
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

    async def _identity(self) -> tuple[dict[str, str], str]:
        """The person's identity is git's own business; only what nobody configured is filled in."""
        wanted = r"^(user|author|committer)\.(name|email)$"
        out = await self._git.run("config", "--get-regexp", wanted)
        lines = out.stdout.decode("utf-8", "replace").splitlines()
        known = {line.partition(" ")[0] for line in lines}
        filled = {}
        for role in ("AUTHOR", "COMMITTER"):
            for field, value in _FALLBACK.items():
                names = {f"user.{field.lower()}", f"{role.lower()}.{field.lower()}"}
                by_mail = field == "EMAIL" and os.environ.get("EMAIL")
                if not (names & known or by_mail or os.environ.get(f"GIT_{role}_{field}")):
                    filled[f"GIT_{role}_{field}"] = value
        note = "git has no user.name or user.email here: committed as codex-self-iter"
        return filled, note if filled else ""

    def _refused(self, out: ToolResult) -> str:
        said = b"\n".join(part.strip() for part in (out.stdout, out.stderr) if part.strip())
        text = said.decode("utf-8", "replace")[-_HOOK_OUTPUT:]
        if out.timed_out:
            late = f"git commit did not end within {self._git.timeout_sec:g} s"
            return f"{late} (a hook?) and was ended.\n{text}"
        return f"git commit failed with exit code {out.exit_code}:\n{text}"

    def _owed(self) -> Mapping[str, str]:
        return read_object(self._owed_path, _MAX_OWED) or {}

    def _remember(self, paths: Iterable[str]) -> None:
        """Keep what these paths contain now (a hook may have edited them): until it changes, ours.

        A path that was committed meanwhile does no harm: it is clean before the next iteration."""
        hasher = Hasher({}, Budget(time.monotonic() + self._git.timeout_sec), self._format())
        root = os.fsencode(self._git.cwd)
        found = {path: hasher.fingerprint(os.path.join(root, os.fsencode(path))) for path in paths}
        known = {path: value for path, value in found.items() if value is not None}
        # the state directory cannot be written: the store says so; nothing is lost
        with contextlib.suppress(OSError):
            os.makedirs(self._index.directory, mode=0o700, exist_ok=True)
            replace_private(self._owed_path, json.dumps(known).encode())

    def _format(self) -> str:
        return self._repository.object_format if self._repository else "sha1"
