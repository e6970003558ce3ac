"""An iteration as a trace: which spans there are, what they say, and which of them have failed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.views.spans import Span, spans, traceparent

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BEGAN = "2026-01-31T10:00:00.000Z"
USAGE = {"input_tokens": 100, "cached_input_tokens": 40, "output_tokens": 10, "cost_usd": 0.5}


def run(role: str, **more: Any) -> dict[str, Any]:
    told = {
        "run_id": f"l-000007-{role}",
        "role": role,
        "agent": "codex",
        "model": "m",
        "exit_code": 0,
    }
    more = {"cause": "exit", "started_at": "2026-01-31T10:00:01.500Z", "duration_sec": 2.0, **more}
    return {**told, "signal": None, "resumed": False, "usage": USAGE, **more}


def gate(**more: Any) -> dict[str, Any]:
    told = {"command": "make test", "ok": True, "exit_code": 0, "started_at": None}
    return {**told, "duration_sec": 1.0, "timed_out": False, "output": "SAID", **more}


def line(*runs: dict[str, Any], gates: tuple[dict[str, Any], ...] = (), **more: Any) -> list[Span]:
    record = {
        "iteration": 7, "verdict": "continue", "started_at": BEGAN, "duration_sec": 9.0, "failure_class": "",
        "changed_count": 3, "usage": USAGE, "summary": "SAID", "reason": "SAID", "next_goal": "SAID",
        "error": "SAID", "goal_in": "SAID", "runs": list(runs), "gates": list(gates), **more,
    }  # fmt: skip
    return spans(record, "l", "shop")


def test_every_attribute_is_on_the_page_and_no_other() -> None:
    whole = run("executor", signal=9)
    found = line(whole, gates=(gate(),), failure_class="agent")
    here = {key for span in found for key in span.attributes}
    assert here == set(re.findall(r"`(csi\.\w+)`", PAGE.read_text()))


def test_nothing_that_an_agent_said_is_in_a_span() -> None:
    found = line(run("executor"), gates=(gate(ok=False, exit_code=1),), failure_class="agent")
    assert "SAID" not in str(found)


def test_all_runs_of_an_iteration_are_its_children_with_what_each_used() -> None:
    roles = ("planner", "executor", "reviewer")
    root, *own = line(*map(run, roles), usage={**USAGE, "input_tokens": 300})
    assert [span.name for span in own] == [f"run {role}" for role in roles]
    assert {span.parent for span in own} == {root.id}
    assert len({span.id for span in (root, *own)}) == 4
    assert root.attributes["csi.input_tokens"] == 300
    assert [span.attributes["csi.input_tokens"] for span in own] == [100] * 3
    assert own[0].attributes["csi.cost_usd"] == 0.5
    assert (root.begin, root.end - root.begin) == (1769853600.0, 9.0)
    assert (own[0].begin - root.begin, own[0].end - root.begin) == (1.5, 3.5)


def test_a_run_is_told_the_span_that_it_will_have() -> None:
    root, own = line(run("executor"))
    assert traceparent("l", 7, "l-000007-executor") == f"00-{own.trace}-{own.id}-01"
    assert re.fullmatch(r"[0-9a-f]{32}", root.trace)
    assert re.fullmatch(r"[0-9a-f]{16}", root.id)
    for other in (("l", 8, "l-000008-executor"), ("m", 7, "m-000007-executor")):
        assert traceparent(*other)[3:35] != root.trace
        assert traceparent(*other)[36:52] != own.id


@pytest.mark.parametrize(
    ("ended", "more", "root_error", "run_error"),
    [
        ({}, {}, "", ""),
        ({"exit_code": 3}, {}, "", ""),  # it had answered
        ({"exit_code": 3}, {"failure_class": "agent", "verdict": "error"}, "agent", "agent"),
        ({"cause": "lost", "exit_code": None}, {"verdict": "interrupted"}, "interrupted", "lost"),
        ({"cause": "request", "exit_code": None}, {"verdict": "aborted"}, "", ""),
        ({"cause": "wall_timeout"}, {"verdict": "timed_out"}, "timed_out", ""),
        ({}, {"verdict": "claim_rejected"}, "", ""),
    ],
)
def test_what_has_failed_is_said(
    ended: dict[str, Any], more: dict[str, Any], root_error: str, run_error: str
) -> None:
    root, first, last = line(run("planner"), run("executor", **ended), **more)
    assert (root.error, first.error, last.error) == (root_error, "", run_error)


def test_a_red_gate_says_how_it_ended() -> None:
    gates = (gate(), gate(ok=False, exit_code=2), gate(ok=False, exit_code=None, timed_out=True))
    _, *own = line(gates=gates)
    assert [span.error for span in own] == ["", "exited with code 2", "timed out"]
    assert len({span.id for span in own}) == 3


def test_a_line_of_an_older_version_has_spans_too() -> None:
    bare = {
        key: value for key, value in run("executor").items() if key not in ("started_at", "usage")
    }
    root, own = line(bare, usage=None)
    assert (own.begin, own.end) == (root.begin, root.begin + 2.0)
    assert not {"csi.input_tokens", "csi.cost_usd"} & {*root.attributes, *own.attributes}
