"""Whether git's directories are the workspace's own: its `.git` may be a file or a link that names
any place, and is content like all else that an agent writes."""

from __future__ import annotations

import contextlib
import os

from codex_self_iter.core.fence import inside
from codex_self_iter.world.git.repository import repository_key
from codex_self_iter.world.guarded import read_guarded


def foreign(workspace: str, places: tuple[str, ...]) -> str:
    """Which of git's directories (without links) is not proven to be this workspace's; "" for none.

    Outside, a linked work tree's own names the workspace in turn, which nobody can write who may
    only write the workspace; and a submodule's lies in the repository above."""
    outside = [place for place in places if not inside(place, workspace)]
    if not outside:
        return ""
    key = repository_key(workspace)
    link = key[0] if key is not None else ""
    back = [place for place in outside if _names(place, link)]
    above = [place for place in outside if _module_above(place, workspace)]
    owned = {os.path.dirname(os.path.dirname(place)) for place in back} | {*back, *above}
    return next((place for place in outside if place not in owned), "")


def _names(git_dir: str, link: str) -> bool:
    with contextlib.suppress(OSError):
        said = os.fsdecode(read_guarded(f"{git_dir}/gitdir", 4096)).rstrip("\n")
        return os.path.normpath(os.path.join(git_dir, said)) == link
    return False


def _module_above(place: str, workspace: str) -> bool:
    top, found, _ = place.partition("/.git/modules/")
    return bool(found) and inside(workspace, top)
