"""`run --dry-run` with lanes: which items would be begun, and the whole prompt of the first."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from codex_self_iter.core.lane_items import LaneItem, items
from codex_self_iter.core.lane_machine import decide
from codex_self_iter.core.lanes import Boot, Lane, Lanes, Rules
from codex_self_iter.lanes import words
from codex_self_iter.lanes.places import OWN
from codex_self_iter.settings import Settings
from codex_self_iter.settings.paths import validate_workspace
from codex_self_iter.settings.schema import LanesSettings
from codex_self_iter.supervisor import rehearsal


def rehearse(settings: Settings, sentence: str, clear_stop: bool) -> str:
    """What a start of these loops would do. Raises UsageError as a start would."""
    if settings.lanes.max < 2 or sentence:
        return rehearsal.rehearse(settings, sentence, clear_stop)
    paths, own = validate_workspace(settings), settings.lanes
    found = items(paths.plan.read_text("utf-8-sig"))
    rules = Rules(own.max, own.candidates, own.batch, own.max_conflicts)
    state, _ = decide(Lanes(), Boot(found), rules, 0.0)
    text = "\n".join(_lines(settings, found, state))
    if not state.lanes:
        return f"{text}\n"
    task = paths.task.read_text("utf-8-sig") if paths.task.is_file() else ""
    with tempfile.TemporaryDirectory(prefix="csi-dry-run-") as scratch:
        first = state.lanes[0]
        changes = _texts(settings, Path(scratch), task, str(paths.plan), first)
        said = rehearsal.rehearse(settings.model_copy(update=changes), "", clear_stop)
        place = f"{OWN}/"
        return f"{text}\n\nThe first, as it would begin:\n\n{said.replace(f'{scratch}/', place)}"


def _lines(settings: Settings, found: tuple[LaneItem, ...], state: Lanes) -> Iterator[str]:
    own, target = settings.lanes, settings.lanes.target or "the branch that is checked out"
    done = sum(one.done for one in found)
    yield (
        f"Lanes: {own.max} at once, landing on {target}; {done} of {len(found)} items are done. "
        "Each is worked on in a work tree of its own."
    )
    for lane in state.lanes:
        yield f"lane {lane.id:<6} would begin: {lane.title}"
    begun = {lane.item for lane in state.lanes}
    for item in found:
        if not item.done and item.key not in begun:
            after = f", after {', '.join(map(str, item.after))}" if item.after else ""
            yield f"item {item.number:<6} would wait{after}: {item.title}"


def _texts(
    settings: Settings, scratch: Path, task: str, plan: str, lane: Lane
) -> dict[str, object]:
    """Plan and task of a lane, written, and the settings that name them."""
    port = settings.lanes.port_base + words.PORTS * lane.slot
    (scratch / "plan.md").write_text(words.plan(lane))
    (scratch / "task.md").write_text(words.task(task, plan, lane, port))
    return {
        "plan_file": scratch / "plan.md",
        "task_file": scratch / "task.md",
        "lanes": LanesSettings(),
    }
