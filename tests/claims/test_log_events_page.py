"""docs/log-events.md against real loops: each line that a loop writes is on the page with its level
and exactly its fields, and each event of the page is seen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.core.terms import State
from tests.claims.documents import TESTS, functions
from tests.claims.scenes import SCENES, Seen, Theatre, json_lines
from tests.support.harness import Workspace

PAGE = Path(__file__).parents[2] / "docs" / "log-events.md"
QUICK = ("proof", "errors", "money", "crash")
ALWAYS = {"event", "level", "timestamp"}
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ELSEWHERE = {
    "run.steered": "acp/test_loops.py::test_a_message_goes_into_the_running_turn",
    "landing.delayed": "lanes/test_lane_log.py::test_what_fails_for_another_reason_than_the_work_is_tried_again",
    "landing.halved": "lanes/test_lane_log.py::test_a_plan_from_its_start_to_its_end",
    "landing.started": "lanes/test_lane_log.py::test_a_plan_from_its_start_to_its_end",
    "lane.asked": "lanes/test_lane_log.py::test_what_a_person_asks",
    "lane.begun": "lanes/test_lane_log.py::test_a_plan_from_its_start_to_its_end",
    "lane.chosen": "lanes/test_lane_log.py::test_of_candidates_the_smallest_is_chosen",
    "lane.compared": "lanes/test_lane_log.py::test_where_there_is_a_reviewer_it_says_which_candidate_is_the_best",
    "lane.crashed": "lanes/test_lane_log.py::test_what_fails_for_another_reason_than_the_work_is_tried_again",
    "lane.dropped": "lanes/test_lane_log.py::test_what_a_person_asks",
    "lane.kept": "lanes/test_lane_log.py::test_what_a_person_asks",
    "container.made": "fence_container/test_inside.py::test_two_runs_share_a_container_that_goes_with_the_loop",
    "fence.chosen": "fence/test_told.py::test_what_was_refused_is_told_to_the_person_and_the_next_agent",
    "lane.landed": "lanes/test_lane_log.py::test_a_plan_from_its_start_to_its_end",
    "lane.lost": "lanes/test_lane_log.py::test_of_candidates_the_smallest_is_chosen",
    "lane.made": "lanes/test_lane_log.py::test_a_plan_from_its_start_to_its_end",
    "lane.needs_you": "lanes/test_lane_log.py::test_a_plan_from_its_start_to_its_end",
    "lane.ready": "lanes/test_lane_log.py::test_a_plan_from_its_start_to_its_end",
    "lane.refused": "lanes/test_lane_log.py::test_what_a_person_asks",
    "lane.retried": "lanes/test_lane_log.py::test_what_a_person_asks",
    "lane.returned": "lanes/test_lane_log.py::test_a_plan_from_its_start_to_its_end",
    "notify.given_up": "program/test_notifications.py::test_what_nobody_takes_for_days_is_given_up_and_said",
    "notify.left": "program/test_notifications.py::test_whoever_starts_an_ended_loop_has_its_words",
    "notify.shared": "program/test_notifications.py::test_loops_that_one_limit_holds_up_send_one_message",
    "reply.accepted": "program/test_replies.py::test_a_reply_steers_a_running_loop_and_stops_it",
    "reply.answered": "program/test_replies.py::test_a_reply_steers_a_running_loop_and_stops_it",
    "reply.interrupted": "program/test_replies.py::test_a_reply_that_a_kill_interrupts_is_said_by_the_next_start",
    "reply.listening": "program/test_replies.py::test_a_reload_begins_and_ends_it",
    "reply.refused": "program/test_replies.py::test_a_flood_is_counted_and_not_logged_line_by_line",
    "reply.unanswered": "program/test_replies.py::test_an_answer_that_cannot_be_sent_is_logged",
    "otlp.left": "program/test_otlp.py::test_a_program_that_stands_still_holds_nothing_up",
    "otlp.recovered": "program/test_otlp.py::test_a_receiver_that_fails_is_told_and_holds_nothing_up",
    "awake.held": "program/test_awake.py::test_it_is_held_while_a_run_is_on_and_let_go_at_the_end",
    "awake.released": "program/test_awake.py::test_it_is_held_while_a_run_is_on_and_let_go_at_the_end",
    "clock.jumped": "program/test_durability_clocks.py::test_a_wait_is_neither_lost_nor_prolonged_when_the_clock_is_set_during_it",
    "registry.not_written": "program/test_surroundings.py::test_nothing_is_asked_of_the_environment",
    "signal.doubtful": "program/test_control_stop.py::test_of_a_sender_that_is_gone_while_a_run_is_on_only_the_second_counts",
    "stop.forced": "program/test_control_results.py::test_a_call_that_never_comes_back_does_not_hold_up_the_end",
    "tick.refused": "program/test_item_checks.py::test_a_tick_whose_check_fails_is_taken_back",
    "loop.terms": "program/test_start.py::test_the_terms_of_a_plan_say_how_far_it_is",
    "strays.ended": "program/test_reported.py::test_no_second_agent_beside_one_of_which_no_record_is_left",
}
"""Events that need surroundings of their own, and the test from outside that makes them."""
SCENE_OF = {
    "agent.handed_over": "outage",
    "before.not_saved": "storage",
    "checkpoint.failed": "storage",
    "checkpoint.skipped": "wiped",
    "checkpoints.not_pruned": "storage",
    "commit.again": "owed",
    "commit.failed": "owed",
    "commit.left": "owed",
    "commit.made": "proof",
    "config.applied": "reload",
    "config.changed": "reload",
    "config.needs_restart": "reload",
    "config.not_reloaded": "reload",
    "config.skipped": "many",
    "config.unchanged": "reload",
    "config.without_effect": "reload",
    "console.lines_lost": "unread",
    "gate.failed": "proof",
    "gate.passed": "proof",
    "hook.failed": "told_in_vain",
    "hook.passed": "told_in_vain",
    "git.gc_failed": "storage",
    "git.branch_changed": "git",
    "git.commits_lost": "git",
    "git.lock_removed": "git",
    "host.keeper_fault": "blind",
    "inbox.message": "proof",
    "inbox.not_read": "storage",
    "iteration.ended": "proof",
    "journal.rotated": "blind",
    "log.lines_lost": "unwritable",
    "loop.added": "many",
    "loop.circling": "circles",
    "loop.crashed": "many",
    "loop.decided": "proof",
    "loop.ended": "proof",
    "loop.held": "reload",
    "loop.notify": "errors",
    "loop.refused": "many",
    "loop.released": "reload",
    "loop.removed": "many",
    "loop.renamed": "many",
    "notes.kept": "proof",
    "notify.failed": "told_in_vain",
    "notify.sent": "proof",
    "orphan.adopted": "killed",
    "orphan.ended": "killed",
    "plan.changed": "proof",
    "redaction.failed": "storage",
    "report.not_written": "storage",
    "retention.failed": "storage",
    "retention.pruned": "blind",
    "run.adopted": "killed",
    "run.answered": "lingers",
    "run.cannot_start": "unwritable",
    "run.cannot_start_yet": "unwritable",
    "run.ended": "proof",
    "run.lingered": "lingers",
    "run.retrying": "outage",
    "run.spawn": "proof",
    "run.started": "proof",
    "state.cannot_write": "unwritable",
    "state.lost": "unwritable",
    "state.not_restored": "storage",
    "state.restored": "wiped",
    "state.warning": "owed",
    "state.writable_again": "unwritable",
    "status.not_written": "storage",
    "stop.after_iteration": "controls",
    "stop.at_once": "controls",
    "signal.ignored": "controls",
    "stop.signal": "limit",
    "task.changed": "proof",
    "watcher.trouble": "blind",
    "workspace.changed_between_iterations": "git",
}
"""Events, and the scene that brings each about."""
CALM = "person"
"""A scene in which nothing goes wrong: what tells of trouble is not in it."""
UNSEEN = {"run.unknown"}
"""The page says "not tested here" of it."""


def documented() -> dict[str, tuple[str, set[str]]]:
    """Event -> (level, fields)."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| (\w+) \|([a-z_, ]*)\|", PAGE.read_text(), re.M)
    return {
        name: (level, set(filter(None, fields.strip().split(", ")))) for name, level, fields in rows
    }


PAGES = documented()
"""As the page has them."""


def problem(line: dict[str, Any], *, many: bool) -> str:
    """What of a line is not as the page says, or ""."""
    event, level = line["event"], line["level"]
    fields = line.keys() - ALWAYS - ({"loop"} if many else set())
    if not STAMP.fullmatch(str(line["timestamp"])):
        return f"{event}: timestamp {line['timestamp']}"
    state = event.removeprefix("loop.")
    if state in set(State) and event not in PAGES:
        wanted = {"reason", "seconds", "until"} if "until" in fields else {"reason"}
        if fields == wanted and level == ("warning" if state == "blocked" else "info"):
            return (
                "" if STAMP.fullmatch(line.get("until", line["timestamp"])) else f"{event}: until"
            )
        return f"{event} ({level}): {sorted(fields)}"
    if event not in PAGES:
        return f"{event} is not on the page"
    told, wanted = PAGES[event]
    wanted = wanted - ({"loop"} if many else set())
    either = event == "loop.ended" and level in ("info", "error")
    if (level != told and not either) or fields not in (wanted, wanted - {"loop"}):
        return f"{event} ({level}): {sorted(fields)}, the page has {told}: {sorted(wanted)}"
    return ""


def problems(scenes: Iterable[Seen]) -> set[str]:
    found = (
        problem(line, many=one.name in ("many", "lanes", "")) for one in scenes for line in one.lines
    )  # fmt: skip
    return set(filter(None, found))


@pytest.mark.slow
def test_each_line_is_on_the_page_with_its_level_and_fields(seen: Theatre) -> None:
    assert problems(seen.all(*QUICK)) == set()


@pytest.mark.slow
def test_each_line_of_every_scene_is_on_the_page(seen: Theatre) -> None:
    assert problems(seen.all(*SCENES)) == set()


def test_the_check_finds_what_is_not_on_the_page() -> None:
    good = {"event": "commit.made", "level": "info", "timestamp": "2026-01-31T23:59:59.000Z",
            "commit": "c", "files": 1}  # fmt: skip
    assert not problem(good, many=False)
    assert problem(good | {"event": "commit.new"}, many=False)
    assert problem(good | {"level": "warning"}, many=False)
    assert problem(good | {"more": 1}, many=False)
    assert problem({key: good[key] for key in good if key != "files"}, many=False)
    assert problem(good | {"timestamp": "2026-01-31T23:59:59.000001Z"}, many=False)
    assert problem(good | {"loop": "x"}, many=False)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(event, marks=() if scene in QUICK else pytest.mark.slow)
        for event, scene in SCENE_OF.items()
    ],
)
def test_an_event_is_written_when_the_page_says_so(seen: Theatre, event: str) -> None:
    """With its level and its fields, and not where nothing of the kind has happened."""
    found = [line for line in seen[SCENE_OF[event]].lines if line["event"] == event]
    assert found
    assert problems([Seen("", console=found)]) == set()
    if PAGES[event][0] in ("warning", "error") and event not in ("loop.notify", "state.warning"):
        assert not [line for line in seen[CALM].lines if line["event"] == event]


def test_every_event_of_the_page_is_tried() -> None:
    assert SCENE_OF.keys() | ELSEWHERE.keys() | UNSEEN == PAGES.keys()
    assert set(SCENE_OF.values()) <= SCENES.keys()


def test_what_no_scene_has_is_seen_elsewhere() -> None:
    for event, test in ELSEWHERE.items():
        file, _, name = test.partition("::")
        assert name in functions(TESTS / file)
        assert event in (TESTS / file).read_text()
    said = PAGE.read_text()
    for event in UNSEEN:
        assert re.search(rf"^\| `{event}` .*not tested here", said, re.M)


def test_the_log_file_has_every_line_of_the_console(seen: Theatre) -> None:
    for one in seen.all("proof", "errors"):
        assert one.console == one.kept
        assert all("loop" not in line for line in one.console)


@pytest.mark.slow
def test_a_line_about_one_loop_is_kept_with_it_and_one_about_all_with_each(seen: Theatre) -> None:
    one = seen["many"]
    about = [line for line in one.console if line.get("loop") == "first"]
    assert about
    kept = [line for line in one.kept if "loop" in line]
    assert kept == about
    others = {line.get("loop") for line in one.console} - {None, "first"}
    assert others >= {"lost", "second"}
    assert not any(line.get("loop") in others for line in one.kept)
    reload = seen["reload"]
    assert {"config.not_reloaded", "config.changed"} <= {line["event"] for line in reload.kept}


def test_every_decision_is_logged_at_the_level_debug(seen: Theatre) -> None:
    lines = seen["proof"].of("loop.decided")
    assert {"Prepared", "RunEnded", "GatesEnded", "Kept"} <= {line["event_type"] for line in lines}
    assert any("running -> verifying" in line["state"] for line in lines)
    assert any("StartRun" in line["commands"] for line in lines)
    assert seen["proof"].of("run.spawn")[0]["argv"]


def test_lines_of_states_say_why_and_how_long(seen: Theatre) -> None:
    (line,) = seen["errors"].of("loop.backoff")
    assert "code 3" in line["reason"]
    assert 1 <= line["seconds"] <= 1.2
    until, at = (datetime.fromisoformat(line[key]) for key in ("until", "timestamp"))
    assert 0 < (until - at).total_seconds() < 2


@pytest.mark.slow
@pytest.mark.parametrize("why", ["flag", "INVOCATION_ID", "people"])
def test_programs_get_json_and_people_lines(ws: Workspace, why: str) -> None:
    variables = {"INVOCATION_ID": "1"} if why == "INVOCATION_ID" else {}
    flags = ("--log-format", "json") if why == "flag" else ()
    assert ws.run(*flags, environment=variables) == 0
    lines = ws.log().partition("\n\n")[0].splitlines()  # then comes the card
    kept = json_lines(ws.state / "logs" / "supervisor.log")
    assert kept
    if why != "people":
        assert json_lines(*sorted(ws.root.glob("supervisor-*.log"))) == kept
        assert all(line.keys() >= ALWAYS for line in kept)
        return
    assert len(lines) == len(kept)
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[", lines[0])
    assert all(re.match(r"\d\d:\d\d:\d\d \[", line) for line in lines[1:])
    ended = next(line for line in lines if "iteration.ended" in line)
    assert "failure_class" not in ended
    assert "next_goal" not in ended


@pytest.mark.slow
def test_no_secret_is_logged(seen: Theatre) -> None:
    one = seen["person"]
    said = json.dumps([one.console, one.kept])
    assert "sk-0123456789" not in said
    assert "[redacted]" in said
