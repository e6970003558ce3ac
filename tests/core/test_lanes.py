"""What the scheduler of lanes decides, case by case."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.lane_machine import MOST_CRASHES, MOST_DELAYS, decide
from codex_self_iter.core.lanes import (
    Begin,
    Boot,
    Clear,
    Delayed,
    End,
    Followed,
    Halt,
    Idle,
    Judge,
    Land,
    Landing,
    Lane,
    Lanes,
    LaneState,
    Made,
    Make,
    Move,
    Moved,
    Note,
    Over,
    Pause,
    Person,
    Planned,
    Proven,
    Refused,
    Return,
    Rules,
    Tell,
    Wish,
    active,
    from_json,
    to_json,
)
from codex_self_iter.core.terms import State
from tests.support.lane_world import World, item, plan, reloaded


def world(*items: Any, most: int = 2, candidates: int = 1, batch: int = 1, back: int = 3) -> World:
    """A world that has started, with the work trees made."""
    found = World(plan(*(items or (item(1), item(2)))), Rules(most, candidates, batch, back))
    found.boot()
    for _, which in list(found.tasks):
        found.made(which)
    return found


def state_of(found: World, which: str) -> LaneState:
    lane = found.state.lane(which)
    assert lane is not None
    return lane.state


def lane_of(found: World, which: str) -> Lane:
    lane = found.state.lane(which)
    assert lane is not None
    return lane


def did(found: World, kind: type) -> list[Any]:
    """What of one kind the last decision wanted."""
    return [one for one in found.commands if isinstance(one, kind)]


# -- a lane's life ---------------------------------------------------------------------------------


def test_as_many_lanes_are_begun_as_may_be_at_work() -> None:
    found = World(plan(*map(item, range(1, 6))), Rules(3))
    found.boot()
    assert did(found, Make) == [Make("1"), Make("2"), Make("3")]
    assert [one.slot for one in found.state.lanes] == [0, 1, 2]
    found.made("2")
    assert did(found, Begin) == [Begin("2")]
    found.over("2")
    assert state_of(found, "2") is LaneState.LANDING
    assert did(found, Land) == [Land(("2",))]
    assert did(found, Make) == [Make("4")]


@pytest.mark.parametrize(
    ("state", "size", "flaw", "then", "back"),
    [
        (State.COMPLETED, 3, "", LaneState.LANDING, None),
        (State.COMPLETED, 0, "", LaneState.WORKING, "unchanged"),
        (State.COMPLETED, 3, "two files", LaneState.WORKING, "dirty"),
        (State.CRASHED, 3, "", LaneState.WORKING, None),
        (State.STAGNATED, 3, "", LaneState.NEEDS_YOU, None),
        (State.BLOCKED, 3, "", LaneState.NEEDS_YOU, None),
        (State.STOPPED, 3, "", LaneState.NEEDS_YOU, None),
    ],
)
def test_how_a_loop_ends_says_what_follows(
    state: State, size: int, flaw: str, then: LaneState, back: str | None
) -> None:
    found = world(item(1))
    found.over("1", state, size, flaw)
    lane = lane_of(found, "1")
    assert lane.state is then
    assert (lane.back.kind if lane.back else None) == back
    assert bool(did(found, Person)) == (then is LaneState.NEEDS_YOU)
    assert bool(did(found, Begin)) == (then is LaneState.WORKING)


def test_a_loop_that_crashes_again_and_again_needs_a_person() -> None:
    found = world(item(1))
    for _ in range(MOST_CRASHES - 1):
        found.over("1", State.CRASHED)
        assert state_of(found, "1") is LaneState.WORKING
    found.over("1", State.CRASHED)
    assert state_of(found, "1") is LaneState.NEEDS_YOU


def test_a_work_tree_that_cannot_be_made_is_tried_again_then_needs_a_person() -> None:
    found = World(plan(item(1)), Rules())
    found.boot()
    for _ in range(MOST_CRASHES - 1):
        found.made("1", "no space", there=False)
        assert did(found, Make) == [Make("1")]
    found.made("1", "no space", there=False)
    assert did(found, Person) == [Person("lane 1 needs you: no space")]
    assert found.finish is not None
    assert found.finish.reason == "1 item left: lane 1 (no space)"


def test_nothing_changed_twice_needs_a_person() -> None:
    found = world(item(1))
    found.over("1", size=0)
    found.over("1", size=0)
    assert state_of(found, "1") is LaneState.NEEDS_YOU


# -- landing ---------------------------------------------------------------------------------------


def test_a_conflict_comes_back_so_often_then_needs_a_person() -> None:
    found = world(item(1), back=2)
    for times in (1, 2):
        found.over("1")
        found.answer(Refused(("1",), "conflict", "both", "marked"))
        lane = lane_of(found, "1")
        assert (lane.state, lane.returns) == (LaneState.WORKING, times)
        assert lane.back == Return("conflict", "both", "marked")
    found.over("1")
    found.answer(Refused(("1",), "conflict", "both", "marked"))
    assert lane_of(found, "1").why == "its work conflicts with the target, 3 times now"
    assert state_of(found, "1") is LaneState.NEEDS_YOU


def test_work_that_came_back_waits_until_there_is_room() -> None:
    found = world(item(1), item(2), most=1)
    found.over("1")
    found.made("2")
    found.answer(Refused(("1",), "red", "gates", "onto"))
    assert found.state.idle == ("1",)
    assert not did(found, Begin)
    found.over("2")
    assert did(found, Begin) == [Begin("1")], "before anything new"


def test_what_waits_for_room_has_no_end_of_its_own() -> None:
    found = world(item(1), item(2), item(3), most=1)
    found.over("1")
    found.made("2")
    found.answer(Refused(("1",), "red", "gates", "onto"))
    found.ask(Wish.DROP, "1")
    assert state_of(found, "1") is LaneState.DROPPED
    assert did(found, End) == []


def test_a_red_batch_is_halved_until_it_is_known_who_is_red() -> None:
    found = world(*map(item, range(1, 5)), most=4, batch=4)
    found.over("1")
    for which in "234":
        found.over(which)
    found.prove()
    found.answer(Moved())
    assert found.state.landing == Landing(("2", "3", "4"))
    found.answer(Refused(("2", "3", "4"), "red", "gates"))
    assert found.state.landing == Landing(("2",))
    found.prove()
    found.answer(Moved())
    assert found.state.landing == Landing(("3",))
    found.answer(Refused(("3",), "red", "gates", "onto"))
    assert found.state.landing == Landing(("4",))
    assert state_of(found, "3") is LaneState.WORKING


def test_a_suspect_that_a_person_drops_is_none_any_more() -> None:
    found = world(*map(item, range(1, 5)), most=4, batch=3)
    for which in "1234":
        found.over(which)
    found.prove()
    found.answer(Moved())
    found.answer(Refused(("2", "3", "4"), "red", "gates"))
    found.ask(Wish.DROP, "3")
    assert found.state.suspects == ("2", "4")
    found.ask(Wish.RETRY, "3")
    found.made("3-2")
    found.over("3-2")
    assert "3-2" not in found.state.suspects


def test_a_landing_that_fails_for_another_reason_is_tried_again_then_needs_a_person() -> None:
    found = world(item(1))
    found.over("1")
    for pause in range(1, MOST_DELAYS):
        found.answer(Delayed("no space"))
        assert did(found, Land) == [Land(("1",), pause=pause)]
    found.answer(Delayed("no space"))
    assert lane_of(found, "1").why == "it could not be landed: no space"


def test_a_landing_for_which_another_try_is_no_use_needs_a_person_at_once() -> None:
    found = world(item(1))
    found.over("1")
    found.answer(Delayed("read-only", fatal=True))
    assert lane_of(found, "1").why == "it could not be landed: read-only"


def test_who_loses_a_race_proves_anew() -> None:
    found = world(item(1))
    found.over("1")
    found.prove()
    assert did(found, Move) == [Move()]
    found.answer(Moved(raced=True))
    assert found.state.landing == Landing(("1",))
    assert did(found, Land) == [Land(("1",))]


def test_what_landed_beside_the_target_is_cleared_once_the_target_follows() -> None:
    found = world(item(1))
    found.over("1")
    found.prove()
    found.answer(Moved(held="changes of yours", ticked=False))
    assert found.state.unticked == ("item 1",)
    found.cleared("1", "it is not on the target")
    assert found.finish is not None
    assert found.finish.state is State.BLOCKED
    assert "changes of yours" in found.finish.reason
    state, commands = decide(found.state, Followed("", "commit"), found.rules, 99.0)
    assert [one for one in commands if isinstance(one, Clear)] == [Clear("1")]
    assert state.lanes[0].left == ""


# -- candidates ------------------------------------------------------------------------------------


def test_the_smallest_candidate_lands_and_the_others_are_cleared() -> None:
    found = world(item(1), most=3, candidates=3)
    assert [one.id for one in found.state.lanes] == ["1a", "1b", "1c"]
    found.over("1a", size=9)
    found.over("1b", size=4)
    assert found.state.landing is None
    found.over("1c", size=4)
    assert found.state.landing == Landing(("1b",))
    assert lane_of(found, "1a").why == "lane 1b was smaller"
    assert lane_of(found, "1c").why == "lane 1b was as small, and comes first"
    chosen = next(one for one in did(found, Note) if one.event == "chosen")
    assert [one["size"] for one in chosen.fields["candidates"]] == [9, 4, 4]


def judged_world(*ready: str) -> World:
    found = World(plan(item(1)), Rules(3, 3, reviewer=True))
    found.boot()
    for _, which in list(found.tasks):
        found.made(which)
    for size, which in enumerate(ready, 1):
        found.over(which, size=size)
    return found


def test_where_there_is_a_reviewer_it_compares_the_candidates() -> None:
    found = judged_world("1a", "1b", "1c")
    assert did(found, Judge) == [Judge("item 1", ("1a", "1b", "1c"))]
    assert found.state.landing is None
    found.judged("item 1", "1c", "it is whole")
    assert found.state.landing == Landing(("1c",))
    assert lane_of(found, "1a").why == "lane 1c was the best for the reviewer: it is whole"


def test_without_its_answer_the_smallest_lands() -> None:
    found = judged_world("1a", "1b", "1c")
    found.judged("item 1", "")
    assert found.state.landing == Landing(("1a",))
    assert lane_of(found, "1c").why == "lane 1a was smaller"


def test_one_alone_is_not_compared() -> None:
    found = judged_world("1a")
    found.over("1b", State.STAGNATED)
    found.over("1c", State.STAGNATED)
    assert did(found, Judge) == []
    assert found.state.landing == Landing(("1a",))


def test_candidates_are_compared_again_after_a_stop() -> None:
    found = judged_world("1a", "1b", "1c")
    found.stop_now()
    assert found.finish is not None
    found.boot()
    assert did(found, Judge) == [Judge("item 1", ("1a", "1b", "1c"))]
    found.drain()


def test_an_edit_while_they_are_compared_sends_them_back() -> None:
    found = judged_world("1a", "1b", "1c")
    found.edit(dataclasses.replace(item(1), body="something else"))
    assert found.state.judging == () or did(found, Judge) == []
    found.drain()


def test_a_candidate_waits_for_one_that_is_not_begun_yet() -> None:
    found = world(item(1), item(2), most=1, candidates=2)
    found.over("1a")
    assert found.state.landing is None
    assert did(found, Make) == [Make("1b")]


def test_of_candidates_one_that_needs_you_does_not_hold_the_others_up() -> None:
    found = world(item(1), candidates=2)
    found.over("1a", State.STAGNATED)
    found.over("1b")
    assert found.state.landing == Landing(("1b",))
    assert lane_of(found, "1a").why == "lane 1b was done"


def test_a_candidate_that_a_person_keeps_is_kept() -> None:
    found = world(item(1), candidates=2)
    found.ask(Wish.KEEP, "1a")
    found.over("1a", State.STOPPED)
    found.over("1b")
    assert state_of(found, "1a") is LaneState.KEPT
    assert found.state.landing == Landing(("1b",))


def test_a_candidate_that_is_landing_is_not_lost_to_one_that_is_ready_later() -> None:
    found = world(item(1), candidates=2)
    found.ask(Wish.KEEP, "1a")
    found.over("1a", State.STOPPED)
    found.over("1b")
    found.ask(Wish.RETRY, "1a")
    found.made("1a")
    found.over("1a", size=1)
    assert state_of(found, "1b") is LaneState.LANDING
    found.prove()
    found.answer(Moved())
    assert (state_of(found, "1a"), state_of(found, "1b")) == (LaneState.LOST, LaneState.LANDED)


def test_when_the_chosen_one_is_dropped_trying_again_begins_them_anew() -> None:
    found = world(item(1), candidates=2)
    found.over("1a")
    found.over("1b", size=5)
    found.ask(Wish.DROP, "1a")
    found.ask(Wish.RETRY, "1b")
    assert did(found, Make) == [Make("1a-2"), Make("1b-2")]


# -- a person --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "then"), [(Wish.KEEP, LaneState.KEPT), (Wish.DROP, LaneState.DROPPED)]
)
def test_a_lane_at_work_ends_first(wish: Wish, then: LaneState) -> None:
    found = world(item(1))
    found.ask(wish, "1")
    assert did(found, End) == [End("1")]
    found.over("1", State.STOPPED)
    assert state_of(found, "1") is then
    assert lane_of(found, "1").why == f"you asked to {wish} it"


def test_a_wish_can_be_taken_back() -> None:
    found = world(item(1))
    found.ask(Wish.DROP, "1")
    found.ask(Wish.RETRY, "1")
    found.over("1", State.STOPPED)
    assert did(found, Begin) == [Begin("1")]
    assert lane_of(found, "1").wish == ""


def test_a_lane_that_is_made_is_dropped_with_its_work_tree() -> None:
    found = World(plan(item(1)), Rules())
    found.boot()
    found.ask(Wish.DROP, "1")
    found.made("1")
    assert state_of(found, "1") is LaneState.DROPPED
    assert did(found, Clear) == [Clear("1")]


def test_one_more_try_waits_for_room_and_has_ports_of_its_own() -> None:
    found = World(plan(item(1), item(2)), Rules(1))
    found.boot()
    found.made("1", "no", fatal=True, there=False)
    assert lane_of(found, "2").slot == 0, "those that the first has left"
    found.ask(Wish.RETRY, "1")
    assert found.state.idle == ("1",)
    found.made("2")
    found.over("2")
    assert did(found, Make) == [Make("1")]
    assert lane_of(found, "1").slot == 1


def test_a_lane_that_was_dropped_is_begun_anew_when_asked() -> None:
    found = world(item(1), item(2))
    found.ask(Wish.DROP, "1")
    found.over("1", State.STOPPED)
    found.ask(Wish.RETRY, "1")
    assert did(found, Make) == [Make("1-2")]


def test_what_moves_the_target_in_this_moment_lands_or_does_as_asked() -> None:
    for raced, then in ((False, LaneState.LANDED), (True, LaneState.DROPPED)):
        found = world(item(1))
        found.over("1")
        found.prove()
        found.ask(Wish.DROP, "1")
        assert state_of(found, "1") is LaneState.LANDING
        found.answer(Moved(raced=raced))
        assert state_of(found, "1") is then
        assert not did(found, Land)


def test_what_is_landing_can_be_kept_and_the_rest_of_its_batch_lands() -> None:
    found = world(item(1), item(2), item(3), most=3, batch=2)
    for which in "123":
        found.over(which)
    found.prove()
    found.answer(Moved())
    found.ask(Wish.KEEP, "2")
    assert found.state.landing == Landing(("3",))
    assert did(found, Land) == [Land(("3",))]


@pytest.mark.parametrize("wish", Wish)
def test_of_what_is_over_nothing_is_left_to_ask(wish: Wish) -> None:
    found = world(item(1), item(2))
    found.over("1")
    found.prove()
    found.answer(Moved())
    before = found.state
    found.ask(wish, "1")
    found.ask(wish, "no such lane")
    assert found.state == before


# -- the plan --------------------------------------------------------------------------------------


def test_an_item_that_is_edited_reaches_its_agent_also_after_a_kill() -> None:
    found = world(item(1), item(2))
    found.edit(item(1, body="- [ ] more"), item(2))
    (told,) = did(found, Tell)
    assert told.lane == "1"
    assert "- [ ] more" in told.text
    found.boot()
    assert did(found, Tell) == [told]
    found.over("1", State.CRASHED)
    assert not did(found, Tell), "it has been heard by now"


def test_an_item_that_is_edited_while_its_lane_rests_is_told_when_it_goes_on() -> None:
    found = world(item(1), item(2))
    found.over("1", State.STAGNATED)
    found.edit(item(1, key="other words"), item(2))
    assert lane_of(found, "1").item == "other words"
    found.ask(Wish.RETRY, "1")
    found.made("1")
    assert [one.lane for one in did(found, Tell)] == ["1"]
    assert found.commands.index(did(found, Tell)[0]) < found.commands.index(Begin("1"))


def test_an_item_that_is_edited_while_it_is_proven_comes_back() -> None:
    found = world(item(1), item(2))
    found.over("1")
    found.edit(item(1, body="- [ ] more"), item(2))
    lane = lane_of(found, "1")
    assert (lane.state, lane.returns) == (LaneState.WORKING, 0)
    assert lane.back is not None
    assert lane.back.kind == "asked"
    assert found.state.landing is None


def test_an_item_that_only_moves_is_not_told() -> None:
    found = world(item(1), item(2))
    found.edit(item(0, key="new"), item(1), item(2))
    assert not did(found, Tell)
    assert lane_of(found, "1").number == 2


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        ((item(1, done=True), item(2)), "its item was ticked by somebody else"),
        ((item(2),), "its item was taken out of the plan"),
        ((), "its item was taken out of the plan"),
    ],
)
def test_a_lane_rests_while_its_item_is_gone_and_goes_on_when_it_is_back(
    edit: tuple[Any, ...], why: str
) -> None:
    found = world(item(1), item(2))
    found.edit(*edit)
    assert End("1") in found.commands
    found.over("1", State.STOPPED)
    assert (state_of(found, "1"), lane_of(found, "1").why) == (LaneState.KEPT, why)
    found.edit(item(1), item(2))
    assert did(found, Make)[0] == Make("1")
    assert lane_of(found, "1").gone == ""


def test_a_plan_that_is_empty_for_a_moment_changes_nothing() -> None:
    found = world(item(1), item(2))
    found.edit()
    found.edit(item(1), item(2))
    found.over("1", State.STOPPED)
    assert did(found, Begin) == [Begin("1")]
    assert not found.state.of(LaneState.KEPT, LaneState.NEEDS_YOU)


def test_an_item_that_is_ticked_while_it_is_proven_does_not_land() -> None:
    found = world(item(1), item(2))
    found.over("1")
    found.edit(item(1, done=True), item(2))
    assert state_of(found, "1") is LaneState.KEPT
    assert found.state.landing is None


def test_an_item_that_is_ticked_while_the_target_moves_lands() -> None:
    found = world(item(1), item(2))
    found.over("1")
    found.prove()
    found.edit(item(1, done=True), item(2))
    assert not did(found, Land)
    found.answer(Moved())
    assert state_of(found, "1") is LaneState.LANDED
    assert found.state.settled == ("item 1",)


def test_a_lane_that_a_person_keeps_stays_kept_whatever_the_plan_says() -> None:
    found = world(item(1), item(2))
    found.ask(Wish.KEEP, "1")
    found.over("1", State.STOPPED)
    found.edit(item(2))
    found.edit(item(1), item(2))
    assert state_of(found, "1") is LaneState.KEPT


def test_a_lane_that_needs_you_does_not_when_its_item_is_done() -> None:
    found = world(item(1), item(2))
    found.over("1", State.STAGNATED)
    found.edit(item(1, done=True), item(2))
    assert state_of(found, "1") is LaneState.KEPT


# -- halts, pauses, ends ---------------------------------------------------------------------------


def test_a_halt_while_a_lane_is_made_begins_nothing_and_the_next_start_goes_on() -> None:
    found = World(plan(item(1)), Rules())
    found.boot()
    found.send(Halt("you stopped it"))
    found.made("1")
    assert not did(found, Begin)
    assert found.finish is not None
    assert (found.finish.state, found.finish.reason) == (State.STOPPED, "you stopped it")
    found.boot()
    assert did(found, Begin) == [Begin("1")]


def test_a_lane_that_may_do_no_more_in_this_start_goes_on_at_the_next() -> None:
    found = world(item(1), item(2), item(3))
    found.over("1", State.STOPPED, bounded=True)
    assert not did(found, Begin)
    assert not did(found, Person)
    assert not did(found, Make)  # its place is not another's
    found.over("2", State.STOPPED, bounded=True)
    assert found.finish is not None
    assert found.finish.state is State.STOPPED
    assert found.finish.reason == "stopped: the next start goes on with lanes 1, 2"
    found.boot()
    assert did(found, Begin) == [Begin("1"), Begin("2")]
    assert not lane_of(found, "1").why


def test_where_another_lane_needs_a_person_it_ends_as_that() -> None:
    found = world()
    found.over("1", State.STOPPED, bounded=True)
    found.over("2", State.STAGNATED)
    assert found.finish is not None
    assert (found.finish.state, found.finish.reason) == (
        State.BLOCKED,
        "2 items left: lane 2 (stagnated), lane 1 (stopped: it goes on at the next start)",
    )


def test_a_lane_that_was_kept_meanwhile_is_begun_when_it_is_asked_for() -> None:
    found = world()
    found.over("1", State.STOPPED, bounded=True)
    found.ask(Wish.KEEP, "1")
    assert state_of(found, "1") is LaneState.KEPT
    found.ask(Wish.RETRY, "1")
    assert did(found, Make) == [Make("1")]


def test_a_halt_that_is_taken_back_lets_all_go_on() -> None:
    found = world(item(1), item(2), item(3))
    found.send(Halt("stop"))
    found.over("1", State.STOPPED)
    found.send(Halt(""))
    assert did(found, Begin) == [Begin("1")]


def test_what_was_called_off_goes_on_at_the_next_start() -> None:
    found = World(plan(item(1), item(2)), Rules())
    found.boot()
    found.stop_now()
    assert found.finish is not None
    found.boot()
    assert did(found, Make) == [Make("1"), Make("2")]


def test_a_budget_that_is_spent_ends_as_blocked_unless_all_has_landed() -> None:
    found = world(item(1))
    found.send(Halt("the budget is spent", spent=True))
    found.over("1", State.STOPPED)
    assert found.finish is not None
    assert (found.finish.state, found.finish.reason) == (State.BLOCKED, "the budget is spent")
    found = world(item(1))
    found.over("1")
    found.prove()
    found.send(Halt("the budget is spent", spent=True))
    found.answer(Moved())
    found.cleared("1")
    assert found.finish is not None
    assert found.finish.state is State.COMPLETED


def test_in_a_pause_nothing_is_begun_and_nothing_ends() -> None:
    found = world(item(1), item(2))
    found.send(Pause(True))
    found.over("1")
    found.over("2", State.CRASHED)
    assert found.commands == ()
    assert found.state.idle == ("2",)
    found.send(Pause(False))
    assert did(found, Begin) == [Begin("2")]
    assert did(found, Land) == [Land(("1",))]


def test_a_pause_before_the_start_after_a_stop_is_no_end() -> None:
    stopped = Lanes(items=plan(item(1)), halt="stop")
    state, commands = decide(stopped, Pause(True), Rules(), 1.0)
    assert commands == ()
    assert state.paused


@pytest.mark.parametrize(
    ("items", "state", "reason"),
    [
        ((), State.BLOCKED, "the plan has no items"),
        ((item(1, done=True),), State.COMPLETED, "all items are ticked"),
        ((item(1, 1),), State.BLOCKED, "1 item left: item 1 waits for 1"),
        (
            (item(1, 2), item(2, 1)),
            State.BLOCKED,
            "2 items left: item 1 waits for 2, item 2 waits for 1",
        ),
    ],
)
def test_where_nothing_can_be_begun_it_ends_at_once(
    items: tuple[Any, ...], state: State, reason: str
) -> None:
    found = World(plan(*items), Rules())
    found.boot()
    assert found.finish is not None
    assert (found.finish.state, found.finish.reason) == (state, reason)


def test_the_end_says_what_each_item_that_is_left_waits_for() -> None:
    found = world(item(1), item(2), item(3, 1))
    found.over("1", State.STAGNATED)
    found.ask(Wish.DROP, "2")
    found.over("2", State.STOPPED)
    found.cleared("2")
    assert found.finish is not None
    assert found.finish.reason == (
        "3 items left: lane 1 (stagnated), lane 2 (you asked to drop it), item 3 waits for 1"
    )


def test_after_a_start_with_fewer_lanes_at_once_the_others_wait() -> None:
    found = world(*map(item, range(1, 5)), most=4)
    found.rules = Rules(2)
    found.boot()
    assert did(found, Begin) == [Begin("1"), Begin("2")]
    assert found.state.idle == ("3", "4")


def test_what_may_be_left_of_a_lane_after_a_kill_is_ended_by_its_own_loop() -> None:
    found = world(item(1), item(2))
    found.items = plan(item(2))
    found.boot()
    assert found.commands[:2] == (Begin("1"), End("1"))
    found.over("1", State.STOPPED)
    assert state_of(found, "1") is LaneState.KEPT


# -- on the disk -----------------------------------------------------------------------------------


FULL = Lanes(
    target="refs/heads/main",
    target_commit="c",
    items=(item(1, 2, done=True), item(2)),
    lanes=(
        Lane(
            "1", "item 1", 1, "t", "b", LaneState.LANDING, 1.5, "why", 1, 2, "base", "tip", "/p",
            "left", 3, 4, 5, Return("red", "x", "y"), "tell", "keep", "gone", "once", "landed", "best", "so good", 6,
            7.5, 8.5,
        ),
        Lane("2", "item 2", 2, "t", "b", LaneState.WORKING, 2.0),
    ),
    landing=Landing(("1",), "onto", "commit"),
    suspects=("1",),
    delays=2,
    held="held",
    settled=("item 3",),
    unticked=("item 4",),
    halt="halt",
    spent="spent",
    idle=("2",),
)  # fmt: skip


def test_what_is_kept_is_read_again() -> None:
    assert reloaded(FULL) == FULL
    assert reloaded(Lanes()) == Lanes()
    for name in (one.name for one in dataclasses.fields(Lanes)):
        assert name in ("paused", "judging") or getattr(FULL, name), f"{name} is not tried"
    for name in (one.name for one in dataclasses.fields(Lane)):
        assert getattr(FULL.lanes[0], name), f"{name} is not tried"
    anew = dataclasses.replace(FULL, paused=True, judging=("item 1",))
    assert reloaded(anew) == FULL, "each start finds out anew"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "form 2"),
        ({"schema": None}, "form None"),
        ({"lanes": [{"id": "1", "state": "asleep"}]}, "asleep"),
        ({"lanes": [{"id": "1", "state": "making", "wish": "more"}]}, "more"),
        ({"lanes": [{"state": "making"}]}, "id"),
        ({"lanes": [{"id": "1", "state": "making"}] * 2}, "same id"),
        ({"items": [{"key": "a"}] * 2}, "same key"),
        ({"landing": None}, "landing"),
        ({"landing": {"lanes": ["2"]}}, "landing"),
        ({"landing": {"lanes": []}, "lanes": []}, "no lanes"),
        ({"idle": ["1"]}, "not at work"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_json({**to_json(FULL), **change})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(data=st.data(), value=JSON)
def test_broken_values_are_refused_or_make_a_state_that_can_go_on(
    data: st.DataObject, value: Any
) -> None:
    broken = to_json(FULL)
    where: Any = broken
    if data.draw(st.booleans()):
        where = broken[data.draw(st.sampled_from(["items", "lanes"]))][0]
    elif data.draw(st.booleans()):
        where = broken["landing"]
    where[data.draw(st.sampled_from(sorted(where)))] = value
    try:
        state = from_json(broken)
    except ValueError:
        return
    for event in (Boot(state.items), Planned(()), Moved(), Halt(""), Idle("2")):
        state, _ = decide(state, event, Rules(), 1.0)


def test_lanes_are_shown_in_the_order_of_their_items() -> None:
    found = world(item(1), item(2), most=4, candidates=2)
    assert [one.id for one in active(found.state)] == ["1a", "1b", "2a", "2b"]


# -- many ------------------------------------------------------------------------------------------


def longest(count: int) -> dict[str, float]:
    """Seconds of the decisions in the middle of so many items, 64 lanes at once, by event."""
    items, half, rules = plan(*map(item, range(1, count + 1))), count // 2, Rules(64, batch=8)
    state = Lanes(
        items=items,
        lanes=tuple(
            Lane(str(n), one.key, n, one.title, one.body, LaneState.LANDED, 0.0)
            for n, one in enumerate(items[:half], 1)
        ),
        settled=tuple(one.key for one in items[:half]),
    )
    state, _ = decide(state, Boot(items), rules, 1.0)
    for one in state.at_work:
        state, _ = decide(state, Made(one.id, "base", f"/{one.id}"), rules, 2.0)
    for one in state.at_work[:20]:
        state, _ = decide(state, Over(one.id, State.COMPLETED, "", "tip", 1), rules, 3.0)
    landing = state.landing
    assert landing is not None
    moving = dataclasses.replace(state, landing=Landing(landing.lanes, "onto", "commit"))
    edited = plan(item(0, key="new"), *items)
    halted = dataclasses.replace(state, halt="stop")
    cases = {
        "boot": (state, Boot(items)),
        "over": (state, Over(state.at_work[0].id, State.COMPLETED, "", "tip", 1)),
        "proven": (state, Proven(landing.lanes, "onto", "commit")),
        "moved": (moving, Moved()),
        "edited": (state, Planned(edited)),
        "emptied": (state, Planned(())),
        "went on": (halted, Halt("")),
    }
    found = {}
    for name, (before, event) in cases.items():
        best = 9e9
        for _ in range(3):
            began = time.process_time()
            decide(before, event, rules, 4.0)  # type: ignore[arg-type]
            best = min(best, time.process_time() - began)
        found[name] = best
    return found


def test_a_decision_about_a_thousand_items_takes_bounded_time() -> None:
    small, large = longest(250), longest(1000)
    for name, took in large.items():
        print(f"{name}: {took * 1e3:.1f} ms, four times as many: {took / small[name]:.1f} as long")
        assert took < 2


def test_a_lane_of_no_plan_is_nothing_to_decide() -> None:
    for event in (Made("9"), Over("9", State.COMPLETED, ""), Proven(("9",), "", ""), Moved()):
        state, commands = decide(FULL, event, Rules(), 1.0) if event != Moved() else (FULL, ())
        assert state.lanes == FULL.lanes
        assert not [one for one in commands if isinstance(one, Begin | Land | Clear)]
