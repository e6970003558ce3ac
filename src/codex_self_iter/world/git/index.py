"""An index of our own. The person's index is read once as a start and never written.

The file lives in `<state directory>/git/`, where no other program looks; whoever uses it holds the
supervisor's lock or knows that no supervisor runs, so a `.lock` beside it was left by a dead
process."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence

from codex_self_iter.errors import StorageError
from codex_self_iter.world.bounded import ToolResult
from codex_self_iter.world.git.repository import Repository
from codex_self_iter.world.git.run import Git, GitError, GitTimeoutError, failed
from codex_self_iter.world.guarded import open_guarded

PLUMBING = (
    *("-c", "core.splitIndex=false", "-c", "core.safecrlf=false"),
    *("-c", "core.logAllRefUpdates=false"),
)
"""No shared index files in the person's git directory, no refusal over line ends, no reflog."""
INDEX_INFO = ("update-index", "--add", "--replace", "-z", "--index-info")
MAX_REFUSED = 100
"""So many paths may be refused, each with git's words."""


def copy_index(source: str, target: str, mode: int = 0o600) -> None:
    """Copy an index to a name that is free; nothing where there is none yet. Blocking; OSError."""
    if not os.path.exists(source):
        return
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(open_guarded(source), "rb") as old, open(fd, "wb") as new:
        shutil.copyfileobj(old, new)
        written = os.fstat(old.fileno())
    # git reads a file again that is not older than its index: no younger copy
    os.utime(target, ns=(written.st_atime_ns, written.st_mtime_ns))


class PrivateIndex:
    """A named private index and the git calls that use it."""

    def __init__(self, git: Git, state_dir: str, name: str) -> None:
        self.directory = os.path.join(os.path.realpath(state_dir), "git")
        self.path = os.path.join(self.directory, f"{name}.index")
        self._git = git

    @property
    def env(self) -> Mapping[str, str]:
        """What makes git use this index."""
        return {"GIT_INDEX_FILE": self.path}

    def copy_from(self, repository: Repository) -> None:
        """Start from the person's index (its stat data saves reading every file) or from nothing.

        Raises StorageError when the state directory cannot be written."""
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            self.discard()
            copy_index(os.path.join(repository.git_dir, "index"), self.path)
        except OSError as error:
            raise StorageError(f"cannot write {self.directory}: {error.strerror}") from error

    def discard(self) -> None:
        """Remove the index and what a killed git left of it."""
        for path in (self.path, f"{self.path}.lock"):
            if os.path.lexists(path):
                os.unlink(path)

    async def ask(self, *args: str, stdin: bytes | None = None) -> bytes:
        """A git call on this index that must succeed. Raises GitError."""
        out = await self.run(*args, stdin=stdin)
        if out.exit_code != 0:
            raise failed(out, args[0], self._git)
        return out.stdout

    async def run(self, *args: str, stdin: bytes | None = None) -> ToolResult:
        """A git call on this index, whatever its exit code."""
        out = await self._git.run(*PLUMBING, *args, stdin=stdin, env=self.env)
        self.make_private()
        return out

    async def update(self, paths: Sequence[str], *flags: str) -> None:
        """Bring the entries of these paths up to date, all or none. Raises GitError."""
        if paths:
            names = b"".join(os.fsencode(path) + b"\0" for path in paths)
            await self.ask("update-index", *flags, "-z", "--stdin", stdin=names)

    async def add(self, paths: Sequence[str], room: int = MAX_REFUSED) -> dict[str, str]:
        """Take these paths as the work tree has them, in halves where git refuses all together.

        Returns what it refuses by itself (a filter that fails…), with its words. Raises GitError
        when that is more than `room`."""
        try:
            await self.update(paths, "--add", "--remove", "--replace")
            return {}
        except GitTimeoutError:
            raise
        except GitError as error:
            if not room:
                raise
            if len(paths) == 1:
                return {paths[0]: str(error)}
        middle = len(paths) // 2
        refused = await self.add(paths[:middle], room)
        return refused | await self.add(paths[middle:], room - len(refused))

    def make_private(self) -> None:
        """git writes an index anew, with the permissions that the umask leaves."""
        with contextlib.suppress(FileNotFoundError):
            os.chmod(self.path, 0o600)

    async def write_tree(self) -> str:
        """Store the index as a tree; returns its id. Raises GitError."""
        return (await self.ask("write-tree")).decode().strip()
