"""Did an iteration change anything? Judged by content alone. Pure.

    HEAD moved (commit, amend, reset, another commit checked out)    progress
    content of a tracked or untracked, not ignored file changed      progress
    a branch switched to the same commit with the same content       none
    staging alone, touching, deleting and making again identically   none
    an ignored file, the state directory                             none (they are in no snapshot)
    a file beyond the bound of a look has another size or time       unknown
    a snapshot is incomplete and shows no difference                 unknown

Unknown is no verdict: the caller counts it neither as progress nor as its absence, and tells the
person the note. A difference that both snapshots did see is a difference even when they are
incomplete."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from codex_self_iter.core.evidence import Snapshot


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What lies between two snapshots.

    Attributes:
        changed: True: progress. False: none. None: cannot be told.
        files: paths whose content differs, sorted, fit for UTF-8 (other bytes as `\\xNN`). Without
            the commits' own changes (see `compare`) a file edited and committed within the
            iteration is not among them.
        note: one line for people: what was unusual, or ""."""

    changed: bool | None
    files: tuple[str, ...] = ()
    note: str = ""


def compare(
    before: Snapshot, after: Snapshot, committed: Mapping[str, tuple[str, str]] | None = None
) -> Change:
    """Compare two snapshots of one workspace.

    Args:
        before: the earlier snapshot.
        after: the later one.
        committed: what differs between the two heads: path -> fingerprints in the old and in the
            new one (worth asking for when HEAD moved). With it `files` is exact across commits.
    """
    sure = all(look.complete or look.rest for look in (before, after))
    kind_changed = sure and _has_git(before) != _has_git(after)
    head_moved = before.head != after.head and (sure or bool(before.head and after.head))
    differing = _differing(before, after, committed or {}, sure)
    changed: bool | None = head_moved or kind_changed or bool(differing)
    if not changed and not (sure and before.rest == after.rest):
        changed = None
    files = () if kind_changed else tuple(sorted(map(printable, differing)))
    return Change(changed, files, _note(before, after, changed, kind_changed))


def _differing(
    before: Snapshot, after: Snapshot, committed: Mapping[str, tuple[str, str]], sure: bool
) -> list[str]:
    """Paths whose content differs. A path in neither entries nor `committed` is as in HEAD:
    None."""

    def content(entries: Mapping[str, str], path: str, side: int) -> str | None:
        fallback = committed[path][side] if path in committed else None
        return entries.get(path, fallback)

    if sure:
        paths = before.entries.keys() | after.entries.keys() | committed.keys()
    else:  # what only one incomplete snapshot has may merely not have been looked at in the other
        paths = (before.entries.keys() & after.entries.keys()) | committed.keys()
    return [
        path
        for path in paths
        if content(before.entries, path, 0) != content(after.entries, path, 1)
    ]


def _has_git(snapshot: Snapshot) -> bool:
    """A repository has a commit, or a branch that waits for its first; a content scan has
    neither."""
    return bool(snapshot.head or snapshot.branch)


def _note(before: Snapshot, after: Snapshot, changed: bool | None, kind_changed: bool) -> str:
    notes = []
    if kind_changed:
        notes.append(
            "a git repository appeared" if _has_git(after) else "the git repository is gone"
        )
    elif before.branch != after.branch and before.complete and after.complete:
        switched = f"branch {before.branch or '(detached)'} -> {after.branch or '(detached)'}"
        notes.append(
            switched if changed else f"{switched}, same commit and content: no progress by itself"
        )
    if not (before.complete and after.complete):
        notes.append(
            f"incomplete snapshot: {(after if not after.complete else before).note or 'no reason'}"
        )
    elif after.note:
        notes.append(after.note)
    return "; ".join(notes)


def printable(path: str) -> str:
    """A path for people and files in UTF-8: bytes that are no UTF-8 appear as `\\xNN`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
