"""What is said before the first run and at the end, as people read it: `shown/start-and-end.txt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codex_self_iter.core.owed import Owed
from codex_self_iter.core.state import LoopState
from codex_self_iter.core.terms import State
from codex_self_iter.views.card import card
from codex_self_iter.views.preface import terms

GOLDEN = Path(__file__).parent / "shown" / "start-and-end.txt"
NONE = dict.fromkeys(
    ("max_iterations", "max_hours", "max_hours_per_day", "max_tokens", "max_tokens_per_day",
     "max_cost_usd", "max_cost_usd_per_day", "command_timeout_sec", "max_stagnation"), 0.0,
)  # fmt: skip
USUAL = NONE | {"command_timeout_sec": 7200, "max_stagnation": 12}
ALL = {**USUAL, "max_iterations": 1, "max_hours": 2.5, "max_tokens": 2_000_000,
       "max_cost_usd": 4.5, "max_hours_per_day": 1, "max_tokens_per_day": 1000,
       "max_cost_usd_per_day": 1}  # fmt: skip
LINE: dict[str, Any] = {
    "iteration": 3, "verdict": "continue", "usage": {"total_tokens": 1_234_567}, "cost_usd": 0.5,
    "checkpoint": "abc",
}  # fmt: skip
GATES = [
    {"command": "pytest -q", "ok": True, "exit_code": 0, "red_at_start": True},
    {"command": "mypy", "ok": False, "exit_code": 1},
]


def state(end: State, reason: str, **more: Any) -> LoopState:
    return LoopState("x", state=end, reason=reason, **more)


def shown(end: LoopState, lines: list[dict[str, Any]], **more: Any) -> str:
    given: dict[str, Any] = {
        "seconds": 3725.0, "changes": [], "warnings": [], "where": "",
        "report": "/w/.codex-self-iter/report.md",
    } | more  # fmt: skip
    return card(end, lines, **given)


def everything() -> str:
    """All kinds of both, with a blank line between two."""
    two = [LINE, {**LINE, "iteration": 4, "verdict": "completed", "gates": GATES, "cost_usd": None}]
    starts = [
        terms(["codex"], "safe", '"Make the tests pass"', ["pytest -q"], "", USUAL),
        terms(["claude", "codex"], "bypass", "plan.md (1 of 4 items done)", ["a", "b"], "", ALL),
        terms(
            ["codex"], "bypass", '"Do it"', [], "`go test ./...` would, but there is no go", NONE
        ),
        terms(["command"], "safe", "plan.md", ["x"], "`y` would", USUAL),
    ]
    ends = [
        shown(
            state(State.COMPLETED, "All is done.", owed=Owed(2, 3, ("a.py", "b.py"), "hook: no")),
            two,
            changes=[
                ("Changed in iterations 3 to 4", " a.py | 2 +-\n 1 file changed, 2 insertions(+)\n")
            ],
            warnings=["one", "two", "three", "four", "five"],
            where=" --workspace '/my work'",
            steps=(1, 4),
        ),
        shown(
            state(State.COMPLETED, "Its word."),
            [{**LINE, "usage": None, "cost_usd": None}],
            steps=(3, 3),
        ),
        shown(state(State.STOPPED, "stopped by SIGINT"), [], seconds=0.4),
        shown(
            state(State.STAGNATED, "in circles"),
            [{**LINE, "cost_usd": None, "checkpoint": ""}],
            steps=(0, 1),
        ),
        shown(
            state(State.BLOCKED, "who\nknows\x1b[2J"), [{"verdict": 3, "usage": "x", "gates": "y"}]
        ),
    ]
    return "\n\n".join(["\n".join(lines) for lines in starts] + ends) + "\n"


def test_all_is_said_as_it_was_agreed() -> None:
    assert everything() == GOLDEN.read_text(encoding="utf-8")


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(everything(), encoding="utf-8")
