"""A gate that writes down which tree it has judged, and how."""

from __future__ import annotations

from tests.support.lanes import LaneWorkspace

IN_LANDING = 'test "$(basename "$(git rev-parse --show-toplevel)")" = landing'
"""In a gate: it judges what is to land, not what a lane has."""
JUDGE = (
    'tree=$(git rev-parse "HEAD^{tree}"); test -z "$(git status --porcelain)" || tree=dirty; '
    "trap 'test $? = 0 && said=green || said=red; echo $tree $said >> \"$LANE_AGENT/judged\"' EXIT"
)
"""Before the gate's own commands: `<tree> green` or `<tree> red` once they are through."""


def judged(ws: LaneWorkspace) -> list[tuple[str, str]]:
    """(tree, "green" or "red") of every judgement."""
    path = ws.agents / "judged"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(tree, said) for tree, said in map(str.split, lines)]


def judged_at(ws: LaneWorkspace, commit: str) -> list[str]:
    """What was said of exactly the tree of this commit."""
    tree = ws.git("rev-parse", f"{commit}^{{tree}}").strip()
    return [said for one, said in judged(ws) if one == tree]
