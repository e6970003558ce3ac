"""Bringing a lane's commits onto the target branch, in the object store.

A landing is made as a commit before anybody sees it: `combine` merges a lane into the commit that
the target is at, without a work tree, an index or a hook. Only `advance` moves a branch, from the
very commit that was combined with, and only where no work of a person is in the way.

The plan is not the lanes' file: whatever a lane did to it, the combined commit has the target's, or
the text that the caller gives."""

from __future__ import annotations

import dataclasses
import os
import re

from codex_self_iter.world.git import follow, held_index
from codex_self_iter.world.git.commits import identity
from codex_self_iter.world.git.follow import Advanced
from codex_self_iter.world.git.run import Git, GitError, failed
from codex_self_iter.world.git.worktree_list import busy_with, worktrees

OLDEST_FOR_LANDING = (2, 38)
"""The first with `git merge-tree --write-tree`."""
_MAX_TEXT = 4000
_TRIES = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One lane to be landed.

    Attributes:
        tip: its commit.
        message: of the commit that lands it.
        author: "Name <mail>", or "" for the repository's identity.
        squash: one commit with the target as its only parent, instead of a merge."""

    tip: str
    message: str
    author: str = ""
    squash: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Combined:
    """The commit that holds both sides, and its tree."""

    commit: str
    tree: str


@dataclasses.dataclass(frozen=True, slots=True)
class Conflict:
    """Both sides do not go together.

    Attributes:
        files: the paths in conflict, from the top of the repository.
        text: what git says about them.
        tree: the merge as far as it goes, with conflict markers in it."""

    files: tuple[str, ...]
    text: str
    tree: str


async def too_old(git: Git) -> str:
    """Why this git cannot land anything, or "". Raises GitError when there is none."""
    said = await git.line("version")
    found = re.search(r"\d+(\.\d+)+", said)
    version = found[0] if found else said
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    if found and numbers[:2] >= OLDEST_FOR_LANDING:
        return ""
    return f"lanes need git {'.'.join(map(str, OLDEST_FOR_LANDING))} or later; this is {version}"


async def current_branch(git: Git) -> str:
    """Full name of the branch that is checked out, even if it has no commit yet; "" when HEAD is
    detached. Raises GitError."""
    out = await git.run("symbolic-ref", "--quiet", "HEAD")
    if out.exit_code not in (0, 1):
        raise failed(out, "symbolic-ref", git)
    return os.fsdecode(out.stdout.removesuffix(b"\n"))


async def combine(
    git: Git, onto: str, part: Part, plan: str = "", plan_text: bytes | None = None
) -> Combined | Conflict:
    """Merge a lane into the commit `onto`. Nothing but objects is written. Raises GitError.

    Args:
        git: in any work tree of the repository, or in the repository itself.
        onto: id of the commit that the target is at.
        part: the lane.
        plan: the plan's path from the top of the repository, "" when git does not track it. What
            the lane did to that file does not count.
        plan_text: the plan's text after the landing, as the repository stores it."""
    own = await _entry(git, onto, plan) if plan else ""
    theirs = await _with_plan(git, own, part.tip, plan) if plan else part.tip
    merged = await _merge(git, onto, theirs)
    if isinstance(merged, Conflict):
        return merged
    if plan and plan_text is not None:
        blob = (await git.ask("hash-object", "-w", "--stdin", stdin=plan_text)).decode().strip()
        mode = own.partition(" ")[0] or "100644"
        merged = await _with_entry(git, merged, plan, f"{mode} {blob}")
    parents: tuple[str, ...] = (onto, part.tip)
    if part.squash or await _is_ancestor(git, part.tip, onto):
        if merged == await git.line("rev-parse", "--verify", f"{onto}^{{tree}}"):
            return Combined(onto, merged)
        parents = (onto,)
    return Combined(await _commit(git, merged, parents, part.message, part.author), merged)


async def marked(git: Git, tip: str, onto: str, conflict: Conflict, message: str) -> str:
    """The commit from which a lane at `tip` solves its conflict with `onto`: the markers are in the
    files, and both sides are parents. Raises GitError."""
    return await _commit(git, conflict.tree, (tip, onto), message)


async def size(git: Git, base: str, tip: str, plan: str = "") -> int:
    """Lines added and deleted between two commits, but for the plan; a binary file counts as one.
    Raises GitError."""
    flags = ("-r", "-z", "--numstat", "--find-renames", "--no-ext-diff", "--no-textconv")
    fields = iter((await git.ask("diff-tree", *flags, base, tip)).split(b"\0"))
    total = 0
    for field in fields:
        if not field:
            continue
        added, deleted, path = field.split(b"\t", 2)
        if not path:  # renamed: the old and the new name follow
            next(fields)
            path = next(fields)
        if path != os.fsencode(plan):
            total += 1 if added == b"-" else int(added) + int(deleted)
    return total


async def checkout_of(git: Git, branch: str) -> str:
    """Top of the work tree that has this branch (full name) checked out, or is in the middle of a
    rebase or a bisect of it; "" for none. Raises GitError."""
    places, _ = await _places(git, branch)
    return places[0].path if places else ""


async def _places(git: Git, branch: str) -> tuple[list[follow.Place], list[follow.Place]]:
    """The work trees that have the branch checked out, and those where a person may be about to."""
    places, others = [], []
    for number, one in enumerate(await worktrees(git)):
        busy = await git.beside(busy_with, one.git_dir) if one.git_dir else set()
        place = follow.Place(one.path, one.git_dir)
        if not one.bare and (one.branch == branch or branch in busy):
            places.append(place)
        elif not one.bare and one.git_dir and (one.branch or not number):
            others.append(place)
    return places, others


async def advance(
    git: Git,
    branch: str,
    old: str,
    new: str,
    message: str,
    edited: str = "",
    *,
    again: bool = False,
) -> Advanced:
    """Move a branch (full name) from one commit to a later one, if it is still there. Needs an
    event loop. Raises GitError.

    `edited`: a path, from the top, whose file may have edits of a person that are not staged; it
    stays as it is. `again`: something of the person was in the way the last time.

    Where it is checked out, the work tree follows, or else nothing is touched and `why` says what
    is in the way. After a kill in the middle `finish_advance` goes on."""
    if not await _is_ancestor(git, old, new):
        raise GitError(f"{branch} is not moved: {new[:12]} does not hold {old[:12]}")
    order = held_index.Move(branch, old, new)
    for _ in range(_TRIES):
        places, others = await _places(git, branch)
        if len(places) > 1:
            both = " and ".join(place.path for place in places)
            why = f"{follow.short(branch)} is checked out in {both}; leave it in one"
            return Advanced(False, why, place=places[0].path)
        if places:
            return await follow.advance(git, places[0], order, message, edited, again=again)
        result = await follow.advance_beside(git, others, order, message)
        if result is not None:
            return result
    return Advanced(False, f"{follow.short(branch)} is checked out again and again; try later")


async def finish_advance(git: Git, branch: str, old: str, new: str) -> Advanced:
    """After a kill in the middle of `advance`: bring the work tree to the commit that the branch is
    at now. What a person has changed since stays: is it in the way, all goes back to `old`.

    Harmless where nothing is half done. `moved` says whether the branch holds `new` now. Needs an
    event loop. Raises GitError."""
    for one in await worktrees(git):
        if one.git_dir and not one.bare:
            result = await follow.finish(git, follow.Place(one.path, one.git_dir), branch)
            if result is not None and result.why:
                return result
    at = await git.resolve(branch)
    if at and await _is_ancestor(git, new, at):
        return Advanced(True, place=await checkout_of(git, branch))
    return Advanced(False, raced=at != old, place=await checkout_of(git, branch))


async def _merge(git: Git, ours: str, theirs: str) -> str | Conflict:
    """The tree that merges both, or the conflict."""
    out = await git.run("merge-tree", "--write-tree", "--name-only", "-z", ours, theirs)
    if out.exit_code not in (0, 1) or out.truncated:
        raise failed(out, "merge-tree", git)
    tree, _, rest = out.stdout.partition(b"\0")
    if not tree:  # it says 1 for a commit that is not there, too
        raise failed(out, "merge-tree", git)
    if out.exit_code == 0:
        return tree.decode()
    names, _, notes = rest.partition(b"\0\0")
    files = tuple(os.fsdecode(name) for name in names.split(b"\0") if name)
    return Conflict(files, _texts(notes), tree.decode())


def _texts(notes: bytes) -> str:
    """The messages among `<number of paths> NUL <paths> NUL <kind> NUL <message> NUL` …"""
    fields = iter(notes.split(b"\0"))
    found = []
    for number in fields:
        if not number.isdigit():
            break
        for _ in range(int(number) + 1):
            next(fields, b"")
        found.append(next(fields, b"").decode("utf-8", "replace").rstrip("\n"))
    text = "\n".join(line for line in found if not line.startswith("Auto-merging "))
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


async def _with_plan(git: Git, wanted: str, tip: str, plan: str) -> str:
    """A commit like `tip` with this entry for the plan: where both sides have the same, nothing can
    be in conflict."""
    if wanted == await _entry(git, tip, plan):
        return tip
    tree = await git.line("rev-parse", "--verify", f"{tip}^{{tree}}")
    return await _plain_commit(git, await _with_entry(git, tree, plan, wanted), tip)


async def _plain_commit(git: Git, tree: str, parent: str) -> str:
    who, _ = await identity(git)
    return await git.line("commit-tree", "-m", "plan", "-p", parent, tree, env=who)


async def _entry(git: Git, treeish: str, path: str) -> str:
    """`<mode> <object id>` of a path in a tree, "" where it has none."""
    out = await git.ask("--literal-pathspecs", "ls-tree", "--full-tree", "-z", treeish, "--", path)
    mode, _, oid = (out.partition(b"\t")[0].decode() or "  ").split(" ")
    return f"{mode} {oid}".strip()


async def _with_entry(git: Git, tree: str, path: str, entry: str) -> str:
    """The tree with another entry at this path ("": none)."""
    return await _replaced(git, tree, path, entry) or await git.line("mktree")


async def _replaced(git: Git, tree: str, path: str, entry: str) -> str:
    """The same; "" for a tree without entries."""
    name, _, rest = path.partition("/")
    out = await git.ask("ls-tree", "--full-tree", "-z", tree) if tree else b""
    lines = {line.partition(b"\t")[2]: line for line in out.split(b"\0") if line}
    key = os.fsencode(name)
    if rest:
        _, kind, known = lines.get(key, b"  ").partition(b"\t")[0].decode().split(" ")
        below = await _replaced(git, known if kind == "tree" else "", rest, entry)
        entry = f"040000 {below}" if below else ""
    lines.pop(key, None)
    if entry:
        mode, _, oid = entry.partition(" ")
        kind = {"040000": "tree", "160000": "commit"}.get(mode, "blob")
        lines[key] = f"{mode} {kind} {oid}\t".encode() + key
    if not lines:
        return ""
    made = await git.ask("mktree", "-z", stdin=b"".join(line + b"\0" for line in lines.values()))
    return made.decode().strip()


async def _commit(
    git: Git, tree: str, parents: tuple[str, ...], message: str, author: str = ""
) -> str:
    """Store a commit, signed where the repository signs its commits."""
    who, _ = await identity(git)
    if author:
        found = re.fullmatch(r"\s*([^<>\n]*?)\s*<([^<>\n]*)>\s*", author)
        if found is None or not found[1]:
            raise GitError(f"{author!r} is no author: write it as Name <mail>")
        who = {**who, "GIT_AUTHOR_NAME": found[1], "GIT_AUTHOR_EMAIL": found[2]}
    sign = await git.run("config", "--type=bool", "--get", "commit.gpgSign")
    flags = ["-S"] if sign.stdout.strip() == b"true" else []
    for parent in parents:
        flags += ["-p", parent]
    text = message.replace("\0", "").strip() + "\n"
    data = text.encode("utf-8", "replace")
    made = await git.ask("commit-tree", *flags, "-F", "-", tree, stdin=data, env=who)
    return made.decode().strip()


async def _is_ancestor(git: Git, old: str, new: str) -> bool:
    out = await git.run("merge-base", "--is-ancestor", old, new)
    if out.exit_code not in (0, 1):
        raise failed(out, "merge-base", git)
    return out.exit_code == 0
