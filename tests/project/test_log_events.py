"""The catalogue of log events in the docs is what the code writes: no more, no less, with the same
levels."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from codex_self_iter.lanes.conductor import LOGGED

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error"}


def calls(source: str) -> set[tuple[str, str]]:
    """(event, level) of every constant event that a log call or a `Log` command names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        first, function = node.args[0], node.func
        if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
            continue
        if isinstance(function, ast.Attribute) and function.attr in LEVELS:
            if ast.unparse(function.value).endswith(("log", "get_logger()")):
                found.add((first.value, function.attr))
        elif isinstance(function, ast.Name) and function.id == "Log":
            found.add((first.value, "info"))
    return found


def documented() -> dict[str, str]:
    text = (ROOT / "docs" / "log-events.md").read_text()
    return dict(re.findall(r"^\| `([a-z_.]+)` \| (\w+) \|", text, re.MULTILINE))


def written() -> dict[str, set[str]]:
    # Chosen at run time:
    events = {"gate.failed": {"info"}, "gate.passed": {"info"}, "loop.ended": {"info", "error"}}
    events |= {"hook.failed": {"info"}, "hook.passed": {"info"}}
    events["log.lines_lost"] = {"warning"}  # by the writer of the log itself
    events |= {f"{what}.changed": {"info"} for what in ("plan", "task")}
    events |= {
        event: {"warning" if note == "needs_you" else "info"} for note, event in LOGGED.items()
    }
    for path in (ROOT / "src").rglob("*.py"):
        for event, level in calls(path.read_text()):
            events.setdefault(event, set()).add(level)
    return events


def test_every_event_is_documented_with_its_level() -> None:
    docs = documented()
    missing = {
        event: levels for event, levels in written().items() if docs.get(event) not in levels
    }
    assert not missing


def test_nothing_is_documented_that_is_not_written() -> None:
    assert not documented().keys() - written().keys()


def test_the_collector_sees_a_new_event() -> None:
    assert calls('self.log.info("brand.new", a=1)') == {("brand.new", "info")}
    assert calls('Log("core.said", {})') == {("core.said", "info")}
