"""Checks of plan items that are run: a tick whose check fails is taken back, and so is said."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.support.harness import Workspace, wait_until

ON = "[verify]\nitem_checks = true\n"
OPEN = "# Plan\n\n- [ ] make one; check: echo LOOKED; test -f one\n- [ ] two\n"
TICKED = OPEN.replace("[ ] make", "[x] make")
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()


def plan(ws: Workspace) -> str:
    return (ws.path / "plan.md").read_text(encoding="utf-8")


def ticks(text: str = TICKED, **more: Any) -> dict[str, Any]:
    """A run that writes this plan."""
    return {"write": {"plan.md": text}, "block": {"next_goal": "on"}, **more}


def done(**more: Any) -> dict[str, Any]:
    return {"append": {"work.txt": "x"}, "block": {"completed": True}, **more}


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_set_for_gates_is_for_checks_too(ws: Workspace, asked: bool) -> None:
    ws.config(f"[verify]\nitem_checks = {str(asked).lower()}\ntimeout_sec = 77\nat_start = true\n")
    assert ws.run() == 0
    assert ("verify.timeout_sec does nothing" in ws.log()) is not asked
    assert "verify.at_start does nothing" in ws.log()


def test_a_tick_that_is_taken_back_is_nothing_that_a_gate_took(ws: Workspace) -> None:
    """The plan is as it was committed then, and so no change any more."""
    ws.config(ON)
    ws.plan(OPEN)
    ws.git("commit", "-qam", "plan")
    ws.script(ticks())
    assert ws.run("--max-iterations", "1") == 0
    assert plan(ws) == OPEN
    assert "took changes" not in ws.log()


@pytest.mark.parametrize("asked", [True, False])
def test_a_tick_whose_check_fails_is_taken_back(ws: Workspace, asked: bool) -> None:
    """Without the key it stands: the control."""
    ws.config(ON if asked else "")
    ws.plan(OPEN)
    ws.script(ticks(), {"block": {"stop": True}})
    assert ws.run("--max-iterations", "2") == 0
    if not asked:
        assert plan(ws) == TICKED
        assert ws.journal()[0]["gates"] == []
        return
    assert plan(ws) == OPEN
    line = ws.journal()[0]
    (gate,) = line["gates"]
    assert (gate["command"], gate["exit_code"], gate["ok"]) == (
        "echo LOOKED; test -f one",
        1,
        False,
    )
    assert (gate["items"], gate["tick"]) == (["make one"], "its tick was taken back")
    assert "the check of 'make one'" in line["unproven"]
    assert line["verdict"] == "continue"
    assert line["ticked"] == []
    said = ws.prompt(2)
    assert (
        "Verification failed: the check of 'make one': `echo LOOKED; test -f one` exited with"
        in said
    )
    assert "its tick was taken back" in said
    assert "LOOKED" in said
    assert "the tick of an item whose check fails is taken back" in said
    assert "tick.refused" in ws.log()
    shown = ws.cli("show", "1").stdout
    assert "check      echo LOOKED; test -f one: exited with code 1" in shown
    assert "of make one" in shown
    assert "its tick was taken back" in shown


def test_a_tick_whose_check_succeeds_stands(ws: Workspace) -> None:
    ws.config(ON)
    ws.plan(OPEN)
    step = ticks()
    step["write"]["one"] = "1"
    ws.script(step, {"block": {"stop": True}})
    assert ws.run("--max-iterations", "2") == 0
    assert plan(ws) == TICKED
    assert len(ws.journal()[0]["ticked"]) == 1
    assert [gate["ok"] for gate in ws.journal()[0]["gates"]] == [True]
    assert ws.journal()[1]["gates"] == []  # once for each tick


def test_what_a_person_ticks_is_neither_checked_nor_taken_back(ws: Workspace) -> None:
    ws.config(ON)
    ws.plan(TICKED.replace("[ ] two", "[x] two"))
    ws.script(done())
    assert ws.run() == 0
    assert ws.verdicts() == ["completed"]
    assert ws.journal()[0]["gates"] == []
    assert "[x] make one" in plan(ws)


def test_a_completion_is_not_believed_while_a_check_fails(ws: Workspace) -> None:
    """Neither of what the claim itself ticks, nor of what is open."""
    ws.config(ON)
    ws.plan(OPEN)
    claim = ticks(block={"completed": True})
    ws.script(claim, done(), done(write={"one": "1"}))
    assert ws.run() == 0
    assert ws.verdicts() == ["claim_rejected", "claim_rejected", "completed"]
    assert "Completion was claimed but is not proven: the check of 'make one'" in ws.prompt(2)
    assert plan(ws) == OPEN


def test_a_check_that_breaks_again_refuses_a_completion(ws: Workspace) -> None:
    ws.config(ON)
    ws.plan(OPEN)
    first = ticks()
    first["write"]["one"] = "1"
    ws.script(first, done(run="rm one"), done(write={"one": "1"}))
    assert ws.run() == 0
    assert ws.verdicts() == ["continue", "claim_rejected", "completed"]
    assert plan(ws) == TICKED


def test_what_a_failed_run_has_ticked_is_checked_with_the_claim(ws: Workspace) -> None:
    ws.config(ON)
    ws.plan(OPEN)
    ws.script(
        {"write": {"plan.md": TICKED}, "raw": "", "exit": 3}, done(), done(write={"one": "1"})
    )
    assert ws.run() == 0
    assert ws.verdicts() == ["error", "claim_rejected", "completed"]


def test_a_tick_that_is_taken_back_is_no_progress(ws: Workspace) -> None:
    ws.config(ON, max_stagnation=3)
    ws.plan(OPEN)
    ws.script(ticks())
    assert ws.run() == 3
    assert len(ws.journal()) < 12


@pytest.mark.slow
@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("keeps", [True, False])
def test_a_supervisor_that_is_killed_meanwhile_is_no_way_out(
    ws: Workspace, taken: bool, keeps: bool
) -> None:
    """Killed in the check, or when the tick was taken back and nothing else had been done: the next
    one finds, says and refuses the same."""
    wait = "echo x >> ../looks; while test -f ../hold; do sleep 0.05; done"
    slow = OPEN.replace("echo LOOKED", wait)
    ws.config(f"{ON}[git]\ncheckpoints = {str(keeps).lower()}\n")
    ws.plan(slow)
    hold, looks = ws.path.parent / "hold", ws.path.parent / "looks"
    hold.touch()
    first = ticks(slow.replace("[ ] make", "[x] make"), block={"completed": True})
    ws.script(first, done(), done(write={"one": "1"}))
    process = ws.start()
    wait_until(looks.exists, "the check to run")
    process.kill()
    process.wait()
    assert "[x] make" in plan(ws)
    if taken:
        ws.plan(slow)
    hold.unlink()
    assert ws.run() == 0
    assert ws.verdicts() == ["claim_rejected", "claim_rejected", "completed"]
    assert plan(ws) == slow
    assert "the check of 'make one'" in ws.prompt(2)


def test_what_is_committed_has_the_tick_taken_back(ws: Workspace) -> None:
    ws.config(f'{ON}[git]\ncommit = "supervisor"\n')
    ws.plan(OPEN)
    ws.git("add", "plan.md")
    ws.git("commit", "-qm", "the plan")
    ws.script(ticks(TICKED + "- [ ] three\n"), {"block": {"stop": True}})
    assert ws.run("--max-iterations", "1") == 0
    assert ws.git("show", "HEAD:plan.md") == OPEN + "- [ ] three\n"
    assert ws.status()["owed"] is None


def test_an_item_that_is_edited_meanwhile_is_left_alone(ws: Workspace) -> None:
    check = "cp ../edited plan.md; false"
    (ws.path.parent / "edited").write_text(
        OPEN.replace("- [ ] make one", "- [x] make ONE"), encoding="utf-8"
    )
    text = f"- [ ] make one; check: {check}\n- [ ] two\n"
    ws.config(ON)
    ws.plan(text)
    ws.script(ticks(text.replace("[ ] make", "[x] make")), {"block": {"stop": True}})
    assert ws.run("--max-iterations", "1") == 0
    assert plan(ws) == (ws.path.parent / "edited").read_text(encoding="utf-8")
    (gate,) = ws.journal()[0]["gates"]
    assert gate["tick"] == "its tick stands: it was edited meanwhile"
    assert any("could not be taken back" in text for text in ws.status()["warnings"])


def test_a_tick_that_stands_refuses_the_next_claim_as_well(ws: Workspace) -> None:
    """It was not taken back because somebody had edited the check: it stays the loop's tick."""
    text = "- [ ] make one\n  check: test -f ../edited || { touch ../edited; cp ../other plan.md; }; test -f one\n"
    other = text.replace("[ ]", "[x]").replace("; test -f one", "; test -f one; test -f one")
    (ws.path.parent / "other").write_text(other, encoding="utf-8")
    ws.config(ON)
    ws.plan(text)
    ws.script(ticks(text.replace("[ ]", "[x]")), done(), done(write={"one": "1"}))
    assert ws.run() == 0
    assert ws.verdicts() == ["continue", "claim_rejected", "completed"]
    assert plan(ws) == other


def test_roles_have_their_checks_run_before_the_review(ws: Workspace) -> None:
    ws.config(ON, mode="roles")
    ws.plan(OPEN)
    planned = {
        "raw": '{"objective": "o", "execution_prompt": "p", "done_if": "d", "stop": false, "rationale": "r"}'
    }
    review = {
        "raw": '{"continue": true, "confidence": 0.9, "next_focus": "on", "reason": "looked"}'
    }
    ws.script(planned, ticks(), review)
    assert ws.run("--max-iterations", "1") == 0
    assert "Gate `echo LOOKED; test -f one`: FAILED" in ws.prompt(3)
    assert plan(ws) == OPEN
    assert "the check of 'make one'" in ws.runtime()["feedback"]


def test_other_edits_of_that_moment_stay(ws: Workspace) -> None:
    text = "- [ ] make one; check: echo '- [ ] häppy' >> plan.md; false\n- [ ] two\n"
    ws.config(ON)
    ws.plan(text)
    ws.script(ticks(text.replace("[ ] make", "[x] make")), {"block": {"stop": True}})
    assert ws.run("--max-iterations", "1") == 0
    assert plan(ws) == text + "- [ ] häppy\n"
    assert ws.journal()[0]["gates"][0]["tick"] == "its tick was taken back"


def test_a_plan_that_cannot_be_written_is_a_warning(ws: Workspace) -> None:
    text = "- [ ] make one; check: chmod a-w plan.md; false\n"
    ws.config(ON)
    ws.plan(text)
    ws.script(ticks(text.replace("[ ] make", "[x] make")), {"block": {"stop": True}})
    assert ws.run("--max-iterations", "1", prefix=UNPRIVILEGED) == 0
    assert "[x]" in plan(ws)
    assert any("cannot be written" in text for text in ws.status()["warnings"])


def test_a_check_has_the_time_of_a_gate(ws: Workspace) -> None:
    ws.config(ON + "timeout_sec = 0.3\n")
    text = "- [ ] make one\n  check: sleep 600\n"
    ws.plan(text)
    ws.script(ticks(text.replace("[ ]", "[x]")), {"block": {"stop": True}})
    assert ws.run("--max-iterations", "1") == 0
    (gate,) = ws.journal()[0]["gates"]
    assert gate["timed_out"]
    assert plan(ws) == text


def test_gates_are_not_run_for_a_tick(ws: Workspace) -> None:
    ws.config(ON + 'commands = ["echo GATE; false"]\n')
    ws.plan(OPEN)
    ws.script(ticks(), {"block": {"stop": True}})
    assert ws.run("--max-iterations", "1") == 0
    assert [gate["command"] for gate in ws.journal()[0]["gates"]] == ["echo LOOKED; test -f one"]


def test_an_agent_that_edits_the_plan_chooses_what_is_run(ws: Workspace) -> None:
    """As docs/plan.md warns: a check is no gate."""
    ws.config(ON)
    ws.plan("- [ ] make one\n  check: test -f one\n")
    ws.script(ticks("- [x] make one\n  check: touch ../ran\n"), {"block": {"stop": True}})
    assert ws.run("--max-iterations", "1") == 0
    assert (ws.path.parent / "ran").exists()
    assert "[x]" in plan(ws)
