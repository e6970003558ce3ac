"""Going back: the work tree's content becomes that of a checkpoint.

    tracked files, untracked files that are not ignored     as in the checkpoint; those it lacks are removed
    ignored files, the state directory                      stay
    files too big for the checkpoint or for the present one stay (they could not be brought back)
    the files that the supervisor's output went to          stay
    what is inside submodules and other repositories        stays
    HEAD, branches, the index, the stash                    stay: what was staged or committed since is still
    there

The present is kept as a checkpoint of its own first, so that a rewind can itself be taken back. git
refuses to overwrite a file that changed after that, and then nothing has been done."""

from __future__ import annotations

import dataclasses
import os
import time

from codex_self_iter.core.progress import printable
from codex_self_iter.errors import UsageError
from codex_self_iter.world.git.checkpoints import Checkpoint, Checkpoints, Tree
from codex_self_iter.world.git.index import INDEX_INFO, PrivateIndex
from codex_self_iter.world.git.porcelain import RAW, RawChange, parse_raw, to_text


@dataclasses.dataclass(frozen=True, slots=True)
class RewindPlan:
    """What a rewind will do.

    Attributes:
        target: the checkpoint to go back to.
        present: the work tree's content now.
        changes: what happens to each file; paths are relative to the top of the repository.
        kept: files that stay as they are although they may differ, with the reason.
        head_then: the commit that HEAD named when the checkpoint was made, "" when there was none.
    """

    target: Checkpoint
    present: Tree
    changes: tuple[RawChange, ...]
    kept: tuple[str, ...]
    head_then: str

    def lines(self) -> list[str]:
        """One line for each file: restore, change back or remove."""
        verb = {(True, False): "restore", (False, False): "change ", (False, True): "remove "}
        return [f"{verb[not c.old, not c.new]}  {printable(to_text(c.path))}" for c in self.changes]


async def plan_rewind(checkpoints: Checkpoints, label: str) -> RewindPlan:
    """Say what `rewind` would do; changes nothing. Raises UsageError, GitError, StorageError."""
    target = await checkpoints.find(label)
    git, index = checkpoints.git, PrivateIndex(checkpoints.git, checkpoints.state_dir, "rewind")
    present = await checkpoints.tree(index_name="rewind")
    skipped = {*present.skipped, *present.refused} | await checkpoints.skipped(target.commit)
    prefix = os.fsencode((await checkpoints.repository()).prefix)
    changes: list[RawChange] = []
    kept: list[str] = []
    for change in await _raw(checkpoints, present.tree, target.commit):
        path = to_text(change.path.removeprefix(prefix))
        if checkpoints.is_ours(path):
            continue
        reason = _reason(change, path in skipped or (not change.old and checkpoints.too_big(path)))
        if reason:
            kept.append(f"{printable(path)} ({reason})")
        else:
            changes.append(change)
    # What git ignores is in no tree, so the comparison above does not see it; but a file of the
    # checkpoint may have to go where such a thing stands now. Then the present is taken once more
    # with it, so that it is kept under the label too, and the comparison is made anew, because a
    # directory in the way is many files. Only those that are in the way may differ from before.
    obstacles = await _obstacles(checkpoints, [change for change in changes if not change.old])
    if obstacles:
        inner = [path.removeprefix(prefix) for path in obstacles]
        present = await _with_obstacles(index, present, inner)
        wanted = {change.path for change in changes} | obstacles
        below = tuple(path + b"/" for path in obstacles)
        again = await _raw(checkpoints, present.tree, target.commit)
        changes = [c for c in again if c.path in wanted or c.path.startswith(below)]
    head_then = await git.resolve(f"{target.commit}^1")
    return RewindPlan(target, present, tuple(changes), tuple(kept), head_then)


async def rewind(checkpoints: Checkpoints, plan: RewindPlan, now: float | None = None) -> str:
    """Do it. Returns the label under which the present was kept.

    Raises UsageError when the work tree is no longer what was planned for, and GitError or
    StorageError."""
    fresh = await plan_rewind(checkpoints, plan.target.label)
    if (fresh.present.tree, fresh.changes) != (plan.present.tree, plan.changes):
        raise UsageError(
            "the workspace changed since this was planned; nothing was done. Run it again"
        )
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    label = await _free_label(checkpoints, f"before-rewind-{moment}")
    title = f"The state before going back to checkpoint {plan.target.label}"
    await checkpoints.name(label, fresh.present, title)
    index = PrivateIndex(checkpoints.git, checkpoints.state_dir, "rewind")
    wanted = await _wanted_tree(checkpoints, fresh)
    await index.ask("read-tree", "-m", "-u", fresh.present.tree, wanted)
    index.discard()
    return label


def _reason(change: RawChange, skipped: bool) -> str:
    """Why a file stays as it is, or ""."""
    if skipped:
        return "too big for a checkpoint, refused by git, or ours"
    if change.old.startswith("160000") or change.new.startswith("160000"):
        return "a repository of its own"
    return ""


async def _raw(checkpoints: Checkpoints, old: str, new: str) -> list[RawChange]:
    return parse_raw(await checkpoints.git.ask("diff-tree", *RAW, old, new, "--", "."))


async def _obstacles(checkpoints: Checkpoints, new: list[RawChange]) -> set[bytes]:
    """Ignored things that stand where the checkpoint has a file, or one of its directories."""
    prefix = os.fsencode((await checkpoints.repository()).prefix)
    found = set()
    for change in new:
        place = b""
        for part in change.path.removeprefix(prefix).split(b"/"):
            place = os.path.join(place, part)
            full = os.path.join(os.fsencode(checkpoints.git.cwd), place)
            last = prefix + place == change.path
            if os.path.lexists(full) and (last or os.path.islink(full) or not os.path.isdir(full)):
                found.add(prefix + place)
                break
    return found


async def _with_obstacles(index: PrivateIndex, present: Tree, paths: list[bytes]) -> Tree:
    """They would be overwritten, so the present keeps them too."""
    await index.ask(
        *("--literal-pathspecs", "add", "-f", "--pathspec-from-file=-", "--pathspec-file-nul"),
        stdin=b"\0".join(paths),
    )
    return dataclasses.replace(present, tree=await index.write_tree())


async def _wanted_tree(checkpoints: Checkpoints, plan: RewindPlan) -> str:
    """The present tree with the planned changes alone: what is kept is the same on both sides."""
    build = PrivateIndex(checkpoints.git, checkpoints.state_dir, "rewind-target")
    build.discard()
    await build.ask("read-tree", plan.present.tree)
    nothing = b"0 " + b"0" * len(plan.present.tree) + b"\t"
    removed = [nothing + c.path for c in plan.changes if not c.new]
    written = [c.new.encode() + b"\t" + c.path for c in plan.changes if c.new]
    orders = b"\0".join([*removed, *written])
    if orders:
        await build.ask(*INDEX_INFO, stdin=orders + b"\0")
    tree = await build.write_tree()
    build.discard()
    return tree


async def _free_label(checkpoints: Checkpoints, label: str) -> str:
    taken = {one.label for one in await checkpoints.listing()}
    numbered = (f"{label}-{number}" for number in range(2, len(taken) + 3))
    return next(name for name in (label, *numbered) if name not in taken)
