"""A loop in every state, as the screens name it: `shown/loops.txt`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.terms import State
from codex_self_iter.views.rows import (
    COLUMNS,
    STUCK_TIMES,
    URGENCIES,
    Row,
    Urgency,
    counts,
    ranked,
    row,
)
from codex_self_iter.views.summary import Life, Seen, Surroundings
from codex_self_iter.views.troubles import Trouble, troubles
from tests.support.shown_loops import NOW, Case, base, cases, seen

GOLDEN = Path(__file__).parent / "shown" / "loops.txt"
DOCUMENTED = (Path(__file__).parents[2] / "docs" / "status.md").read_text()
AROUND = Surroundings(NOW, " --workspace /srv/app", stop=False, pause=False, bar="#.")
CASES = cases()


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def shown(case: Case) -> Row:
    return row("app", seen(case), AROUND)


def everything() -> str:
    """Each case: the line, then what is wrong with it."""
    told = []
    for name, case in CASES.items():
        one = shown(case)
        words = URGENCIES[one.urgency]
        head = f"{name}: {one.state} ({one.colour}), {words}, in column {one.column}"
        told += ["", head, f"  {one.doing}"]
        for trouble in troubles(seen(case), AROUND):
            what = f"{trouble.kind}, {URGENCIES[trouble.urgency]}"
            told.append(f"  - {trouble.words} [{what}]")
            told += [f"      {trouble.mend}"] if trouble.mend else []
    return "\n".join(told[1:]) + "\n"


def test_all_is_said_as_it_was_agreed() -> None:
    assert everything() == GOLDEN.read_text(encoding="utf-8")


def test_every_state_of_the_page_is_among_them() -> None:
    page = DOCUMENTED.partition("## The states")[2]
    states = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    assert states == {state.value for state in State}
    assert states <= {case.status.get("state") for case in CASES.values()}


def test_the_status_of_a_case_has_every_field_of_the_page() -> None:
    fields = DOCUMENTED.partition("## The states")[0]
    rows = re.findall(r"^\| `([\w.\[\]]+)` \| [^|]* \| ([^|]*) \|", fields, re.M)
    tops = {
        name for name, text in rows if "." not in name and "only in `status --json`" not in text
    }
    assert tops == base().keys()
    for name in (name for name, _ in rows if name.startswith("run.")):
        assert name.partition(".")[2] in base()["run"]


@pytest.mark.parametrize("name", CASES)
def test_each_has_the_state_and_urgency_that_a_person_would_give_it(name: str) -> None:
    case = CASES[name]
    one = shown(case)
    assert (one.state, URGENCIES[one.urgency]) == (case.state, case.urgency)
    assert one.column in COLUMNS
    assert one.doing


def test_whoever_needs_a_person_has_a_trouble_that_says_so_and_how_to_mend_it() -> None:
    for name, case in CASES.items():
        urgent = [t for t in troubles(seen(case), AROUND) if t.urgency is Urgency.NEEDS_YOU]
        assert bool(urgent) is (case.urgency == "needs you"), name
        assert all(trouble.mend for trouble in urgent), name


def first(status: dict[str, Any], around: Surroundings = AROUND, **more: Any) -> Trouble:
    return troubles(seen(Case("", "", status, **more)), around)[0]


def test_what_is_paused_or_limited_is_not_stuck_as_well() -> None:
    """What went before the pause is no reason to look: the command is the one that ends it."""
    counters = base()["counters"] | {"no_change": 5, "same_goal": 6}
    for name in ("paused", "limited"):
        status = CASES[name].status | {"counters": counters}
        assert [t.kind for t in troubles(seen(Case("", "", status)), AROUND)] == [name]
    assert first(CASES["paused"].status).mend == "codex-self-iter resume --workspace /srv/app"
    assert first(base() | {"counters": counters}).kind == "stuck"  # the control: at work it is


def test_whoever_has_answered_an_agent_is_told_to_start_it() -> None:
    """The answer alone changes nothing: nobody runs the loop."""
    one = seen(CASES["asks"])
    assert "steer" in troubles(one, AROUND)[0].mend
    one.waiting = "", 1
    assert troubles(one, AROUND)[0].mend == "codex-self-iter run --workspace /srv/app"


@pytest.mark.parametrize("name", ["gone", "orphan"])
def test_a_start_that_is_advised_is_not_ended_by_a_stop_file(name: str) -> None:
    case = CASES[name]
    around = Surroundings(NOW, AROUND.where, stop=True, pause=False, bar="#.")
    assert troubles(seen(case), around)[0].mend.endswith("--clear-stop")
    assert not troubles(seen(case), AROUND)[0].mend.endswith("--clear-stop")


def test_nothing_more_is_taken_from_a_file_that_cannot_be_believed() -> None:
    case = CASES["asks"]._replace(flaw="status.json is of a newer form")
    assert [t.kind for t in troubles(seen(case), AROUND)] == ["unreadable"]


def test_one_error_is_no_alarm_and_three_are() -> None:
    """Negative control of the bound: right below it a loop is no trouble."""
    for count in range(6):
        status = base()
        status["counters"]["consecutive_errors"] = count
        one = shown(Case("running", "", status))
        assert (one.urgency is Urgency.STUCK) is (count >= STUCK_TIMES)


def test_the_most_urgent_come_first_and_nobody_is_lost() -> None:
    rows = [shown(case)._replace(name=name) for name, case in CASES.items()]
    order = ranked(reversed(rows))
    assert [one.urgency for one in order] == sorted(one.urgency for one in rows)
    assert {one.name for one in order} == CASES.keys()
    assert counts(rows) == {
        urgency: sum(one.urgency is urgency for one in rows) for urgency in Urgency
    }


def test_among_equals_the_longest_need_the_soonest_end_and_the_latest_result_come_first() -> None:
    one = shown(CASES["blocked"])
    two = one._replace(name="older", since=1.0)
    assert [row.name for row in ranked([one, two])] == ["older", "app"]
    waiting = shown(CASES["limited"])
    soon = waiting._replace(name="soon", until=2.0)
    assert [row.name for row in ranked([waiting, soon])] == ["soon", "app"]
    done = shown(CASES["completed"])
    before = done._replace(name="before", since=1.0)
    assert [row.name for row in ranked([before, done])] == ["app", "before"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.sampled_from(["running", "blocked", "stop", "2030-01-01T00:00:00.000Z", "\x1b[2J\u202e"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(sorted(base())), JSON, max_size=12),
    st.booleans(),
    st.none() | st.floats(0, 1e6),
    st.booleans(),
)
def test_whatever_the_file_says_there_is_a_clean_line(
    status: dict[str, object], alive: bool, stale: float | None, whole: bool
) -> None:
    """Anybody may have written it; nothing is raised, and nothing drives a terminal."""
    one = Seen(
        "app", "/srv/app", "/s", (base() | status) if whole else status, Life(alive, stale, 1)
    )
    line = row("app", one, AROUND)
    wrong = troubles(one, AROUND)
    texts = [line.name, line.state, line.doing, line.agent]
    texts += [text for trouble in wrong for text in (trouble.words, trouble.mend, trouble.kind)]
    assert all(text.isprintable() for text in texts if text.isascii())
    assert not {"\x1b", "\n", "\x9b", "\u202e"} & set("".join(texts))
    assert wrong == sorted(wrong, key=lambda trouble: trouble.urgency)
    assert ranked([line, line]) == [line, line]
    assert line.column in COLUMNS


if __name__ == "__main__":
    import os

    os.environ["TZ"] = "UTC"
    time.tzset()
    GOLDEN.write_text(everything(), encoding="utf-8")
