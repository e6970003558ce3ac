"""Whose a change is, by content alone; and what a loop does and says while something is owed."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core import commands as do
from codex_self_iter.core import events as ev
from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.owed import (
    Debt,
    Owed,
    divide,
    explained,
    seen,
    stashed,
    summary,
    taken,
    worked,
)
from codex_self_iter.core.state import LoopState
from tests.support.loop_world import Answer, block, claim, policy
from tests.support.situations import drive, ended, running

RULES = policy(commit=True)
REFUSED = Owed(2, 1, ("a.txt", "b.txt"), "pre-commit says no", mendable=True)


def look(**entries: str) -> Snapshot:
    return Snapshot("h", "main", entries)


def answered(answer: Answer, **changes: object) -> tuple[LoopState, tuple[do.Command, ...]]:
    event = dataclasses.replace(ended(running(), answer), **changes)
    return drive(running(), event, rules=RULES)


def test_work_that_follows_work_keeps_what_is_owed() -> None:
    debts = worked({}, look(), look(a="1"), 1, 5.0)
    debts = worked(debts, look(a="1"), look(a="2", b="1"), 2, 6.0)
    assert debts == {"a": Debt("2", 1, 5.0), "b": Debt("1", 2, 6.0)}
    assert divide(debts, look(a="2", b="1", c="3")) == ({"a": "2", "b": "1"}, {})


def test_an_edit_between_two_works_makes_a_path_somebody_elses_to_commit() -> None:
    debts = worked({}, look(), look(a="1"), 1, 0.0)
    debts = worked(debts, look(a="person", p="1"), look(a="both", p="1"), 2, 0.0)
    ours, left = divide(debts, look(a="both", p="1"))
    assert ours == {}
    assert list(left) == ["a"]
    assert seen(debts, look(p="1")) == {}  # the person has committed it
    debts = worked(seen(debts, look()), look(), look(a="new"), 3, 0.0)
    assert divide(debts, look(a="new"))[0] == {"a": "new"}


def test_a_look_that_saw_nothing_takes_nothing_back() -> None:
    blind = Snapshot("", "", {}, complete=False)
    assert seen({"a": Debt("1")}, blind) == {"a": Debt("1")}


STATES = st.dictionaries(st.sampled_from("abc"), st.sampled_from("123"), max_size=3)


@given(st.lists(st.tuples(st.booleans(), STATES), max_size=12))
def test_nothing_that_a_person_touched_is_ever_ours(
    steps: list[tuple[bool, dict[str, str]]],
) -> None:
    """Against a plain oracle: who changed a path since it was last clean."""
    debts: dict[str, Debt] = {}
    now: dict[str, str] = {}
    hands: dict[str, set[bool]] = {}
    for ours, new in steps:
        for path in "abc":
            if path not in new:
                hands[path] = set()
            elif new[path] != now.get(path):
                hands.setdefault(path, set()).add(ours)
        before, after = look(**now), look(**new)
        debts = worked(debts, before, after, 1, 0.0) if ours else seen(debts, after)
        now = new
    mine, left = divide(debts, look(**now))
    assert set(mine) == {path for path in now if hands[path] == {True}}
    assert set(left) == {path for path in now if hands[path] == {True, False}}


def test_what_work_has_stashed_is_known_while_it_is_in_the_stash() -> None:
    def stash(*ids: str) -> Snapshot:
        return Snapshot("h", "main", {}, stashes=ids)

    ours = stashed((), stash("old"), stash("new", "old"))
    assert ours == ("new",)
    assert stashed(ours, stash("a person's", "new"), stash("2", "a person's", "new")) == (
        "2",
        "new",
    )
    assert stashed(ours, stash("new", "old"), stash("old")) == ()
    told = summary({}, stash="a run stashed 1 file(s)")
    assert told.told().endswith("not committed: a run stashed 1 file(s)")
    written = stash("1").to_json()
    assert Snapshot.from_json(written) == stash("1")
    del written["stashes"], written["rest"]  # of an older version
    assert Snapshot.from_json(written) == stash()


def test_what_work_took_from_somebody_else_is_theirs_when_it_is_brought_back() -> None:
    mine = look(mine="1", both="1")
    debts = worked({}, look(both="0"), mine, 1, 0.0)
    gone = taken({"mine": Debt("1"), "both": debts["both"]}, mine, look())
    assert gone == {"both": "1"}  # what is the loop's alone is only its own loss
    assert taken({}, mine, mine) == {}
    assert worked({}, look(), look(mine="1"), 2, 0.0, {"mine": "1"})["mine"].mixed
    assert not worked({}, look(), look(mine="2"), 2, 0.0, {"mine": "1"})["mine"].mixed


def test_the_summary_is_bounded_and_says_why() -> None:
    debts = {f"f{n:03}": Debt("1", n + 3) for n in range(100)}
    short = summary(debts, "no " * 5000)
    assert (short.count, short.iteration, len(short.files)) == (100, 3, 10)
    assert len(short.why) <= 4000
    assert len(short.told()) < 500
    assert summary({}, "").told() == ""
    told = summary(explained({"a": Debt("1")}, {"a": "staged with other content"}))
    assert told.told() == "1 file is not committed (a): a staged with other content"
    assert not told.mendable


def test_an_iteration_that_changed_nothing_commits_what_is_owed() -> None:
    idle = block("more")
    state, commands = answered(Answer(idle), changed=False)
    assert not [one for one in commands if isinstance(one, do.Keep)]
    state, commands = answered(Answer(idle), changed=False, owed=REFUSED)
    assert [one.commit for one in commands if isinstance(one, do.Keep)] == [True]
    assert [one.checkpoint for one in commands if isinstance(one, do.Keep)] == [False]
    state, _ = drive(state, ev.Kept(owed=Owed()), rules=RULES)
    assert state.owed == Owed()


@pytest.mark.parametrize("owed", [REFUSED, Owed()])
def test_an_end_says_what_is_not_committed(owed: Owed) -> None:
    state, _ = answered(claim())
    state, commands = drive(state, ev.Kept(owed=owed), rules=RULES)
    (end,) = (one for one in commands if isinstance(one, do.Exit))
    assert ("2 files are not committed (a.txt, b.txt): pre-commit says no" in end.reason) is bool(
        owed
    )
    record = next(one.record for one in commands if isinstance(one, do.Journal))
    assert (record["owed"] is None) is not bool(owed)
