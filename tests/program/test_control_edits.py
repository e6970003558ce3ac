"""Plan and task edits as editors make them: the next prompt has the new text, whole, and never half
of it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.control_steps import CLAIM, IDLE, WORK, long_run, reach, wait_log
from tests.support.harness import Workspace, wait_until

NEW = "# Plan\n\n- [ ] first\n- [ ] a new item\n- [ ] another\n"


def in_place(path: Path) -> None:
    path.write_text(NEW)


def atomic(path: Path) -> None:
    temporary = path.with_name(".plan.md.tmp")
    temporary.write_text(NEW)
    os.replace(temporary, path)


def with_backup(path: Path) -> None:
    """As vim does: the old file is renamed away, a new one is written under the name."""
    backup = path.with_name("plan.md~")
    path.rename(backup)
    time.sleep(0.1)
    path.write_text(NEW)
    backup.unlink()


def half_saved(path: Path) -> None:
    """Truncated, then written in two steps with a break between."""
    with path.open("w") as file:
        time.sleep(0.7)
        file.write(NEW[:20])
        file.flush()
        time.sleep(0.9)
        file.write(NEW[20:])


def through_a_link(path: Path) -> None:
    target = path.with_name("real plan.md")
    atomic_target = target.with_name(".real.tmp")
    atomic_target.write_text(NEW)
    os.replace(atomic_target, target)


@pytest.mark.slow
@pytest.mark.parametrize("edit", [in_place, atomic, with_backup, half_saved, through_a_link])
def test_an_edit_ends_a_cooldown_and_the_next_prompt_has_it(
    ws: Workspace, edit: Callable[[Path], None]
) -> None:
    plan = ws.path / "plan.md"
    if edit is through_a_link:
        plan.rename(plan.with_name("real plan.md"))
        plan.symlink_to("real plan.md")
    process = reach(ws, "cooldown", CLAIM)
    edit(plan)
    assert ws.ended(process) == 0
    assert NEW.strip() in ws.prompt(2)
    events = [event for line in ws.journal() for event in line["events"]]
    assert [(event["kind"], event["added"], event["removed"]) for event in events] == [
        ("plan.changed", 2, 1)
    ]


@pytest.mark.slow
def test_an_edit_of_the_task_counts_and_the_task_may_come_and_go(ws: Workspace) -> None:
    process = reach(ws, "cooldown", IDLE, CLAIM)
    (ws.path / "TASK.md").write_text("Build the north tower.\n")
    wait_until(lambda: len(ws.journal()) == 2, "the second iteration's end")
    ws.wait_state("cooldown")
    assert "Build the north tower." in ws.prompt(2)
    (ws.path / "TASK.md").unlink()
    assert ws.ended(process) == 0
    assert "north tower" not in ws.prompt(3)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["backoff", "limited"])
def test_an_edit_ends_neither_a_backoff_nor_a_limit(ws: Workspace, phase: str) -> None:
    process = reach(ws, phase)
    until, runs = ws.status()["until"], ws.started()
    in_place(ws.path / "plan.md")
    wait_log(ws, "plan.changed")
    time.sleep(0.5)
    assert (ws.status()["state"], ws.status()["until"]) == (phase, until)
    assert ws.status()["plan"]["total"] == 3
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    assert ws.started() == runs


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda plan: plan.unlink(), "missing"),
        pytest.param(lambda plan: plan.write_text("\n \n"), "empty", marks=pytest.mark.slow),
        pytest.param(
            lambda plan: plan.write_bytes(b"# Plan \xff\xfe\n"), "UTF-8", marks=pytest.mark.slow
        ),
        (lambda plan: (plan.unlink(), os.mkfifo(plan)), "regular"),
    ],
)
def test_an_unusable_plan_holds_the_loop_until_it_is_good_again(
    ws: Workspace, spoil: Callable[[Path], object], said: str
) -> None:
    plan = ws.path / "plan.md"
    ws.script(long_run(until="go"), CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    ws.cli("pause")
    (ws.control / "go").touch()
    ws.wait_state("paused")  # while a run is on, what is taken away is put back
    spoil(plan)
    ws.cli("resume")
    status = ws.wait_state("cooldown")
    assert said in status["reason"]
    assert "plan.md" in status["reason"]
    time.sleep(0.5)
    assert ws.started() == 1
    atomic(plan)
    assert ws.ended(process) == 0
    assert "another" in ws.prompt(2)
    assert ws.verdicts() == ["continue", "completed"]


def test_the_plan_may_vanish_while_the_loop_waits_and_stop_still_works(ws: Workspace) -> None:
    process = reach(ws, "cooldown")
    (ws.path / "plan.md").unlink()
    wait_until(lambda: "missing" in ws.status()["reason"], "status to say so")
    (ws.path / ".codex-stop").touch()
    assert ws.ended(process) == 0
    assert ws.started() == 1


def test_the_agents_own_ticking_is_no_edit_and_shows_as_progress(ws: Workspace) -> None:
    tick = {"write": {"plan.md": "# Plan\n\n- [x] first\n- [ ] second\n"}}
    ws.script({**IDLE, **tick}, {**IDLE, **tick}, long_run(**tick))
    ws.config(no_change_backoff_sec=1)
    process = ws.start()
    ws.wait_runs(1)
    plan = wait_until(lambda: (p := ws.status().get("plan")) and p["done"] == 1 and p, "progress")
    assert (plan["total"], plan["last_ticked"]) == (2, "first")
    assert "1 of 2" in ws.cli("status").stdout
    ws.wait_runs(3)
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    assert [line["events"] for line in ws.journal()] == [[], [], []]
    assert ws.verdicts()[:2] == ["continue", "no_change"]


def test_an_edit_resets_what_counts_towards_stagnation(ws: Workspace) -> None:
    ws.config(max_stagnation=1)
    same = {**WORK, "block": {"next_goal": "again"}}
    ws.script(same, {**same, "sleep": 60, "until": "go"}, same, same, same, same)
    process = ws.start()
    ws.wait_runs(2)
    ws.cli("pause")
    (ws.control / "go").touch()
    ws.wait_state("paused")
    in_place(ws.path / "plan.md")  # while no agent works: a person's
    wait_log(ws, "plan.changed")
    ws.cli("resume")
    assert ws.ended(process) == 3
    # Without the edit it ends after the third, three times the bound (tested elsewhere); the counts began again after the
    # second.
    assert len(ws.journal()) == 5


@pytest.mark.parametrize("asked", [False, True])
def test_an_item_of_a_person_that_an_agent_writes_over_is_said(ws: Workspace, asked: bool) -> None:
    ws.plan("- [ ] first\n")
    ws.config(f"[verify]\nrequire_plan_done = {str(asked).lower()}")
    go = ws.control / "go"
    works = f"until test -e '{go}'; do sleep 0.05; done; echo '- [x] first' > plan.md"
    ws.script(
        {**WORK, "run": works},
        CLAIM,
        {**CLAIM, "append": {"plan.md": "- [x] of a person\n"}},
    )
    process = ws.start()
    ws.wait_runs(1)
    (ws.path / "plan.md").write_text("- [ ] of a person\n- [ ] first\n")
    wait_log(ws, "plan.changed")
    go.touch()
    assert ws.ended(process) == 0
    assert "plan.md had during a run what is gone now without a tick: of a person" in ws.prompt(2)
    assert ws.log().count("text='plan.md had during a run") == 1
    assert ws.verdicts() == ["continue", *["claim_rejected"] * asked, "completed"]
    assert bool(ws.status()["warnings"]) is not asked  # until it is back
    assert "of a person" in (ws.state / "report.md").read_text()


def test_open_items_stand_against_completion_when_asked(ws: Workspace) -> None:
    ws.config("[verify]\nrequire_plan_done = true")
    done = {"write": {"plan.md": "# Plan\n\n- [x] first\n- [X] second\n"}}
    ws.script(CLAIM, {**CLAIM, **done})
    assert ws.run() == 0
    assert ws.verdicts() == ["claim_rejected", "completed"]
    assert "2 of 2 plan items are still open" in ws.prompt(2)
    assert json.loads((ws.state / "status.json").read_text())["plan"]["done"] == 2


@pytest.mark.parametrize("how", ["git clean -fdq", ": > plan.md; echo > TASK.md", "in the gates"])
def test_what_an_agent_deletes_is_put_back_and_said(ws: Workspace, how: str) -> None:
    ws.git("rm", "-q", "--cached", "plan.md")
    ws.git("commit", "-q", "-m", "the plan is nobody else's")
    (ws.path / "TASK.md").write_text("Build the thing.\n")
    plan = (ws.path / "plan.md").read_text()
    if how == "in the gates":
        ws.config("[verify]\ncommands = ['rm plan.md TASK.md']\nevery_iteration = true\n")
        ws.script(WORK, {**WORK, "block": {"completed": True}})
    else:
        ws.script({**WORK, "run": how}, {**WORK, "block": {"completed": True}})
    assert ws.run() == 0
    assert (ws.path / "plan.md").read_text() == plan
    assert (ws.path / "TASK.md").read_text() == "Build the thing.\n"
    for name in ("plan.md", "TASK.md"):
        assert f"{name} was deleted or emptied during a run" in ws.prompt(2)
    assert "Build the thing." in ws.prompt(2)
    assert not [event for line in ws.journal() for event in line["events"]]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("rm plan.md; mkfifo plan.md", "is not a regular file"),
        pytest.param("rm plan.md; mkdir plan.md", "cannot be read", marks=pytest.mark.slow),
        pytest.param(r"printf 'x \377\n' > plan.md", "is not UTF-8", marks=pytest.mark.slow),
        pytest.param("rm plan.md; ln -s plan.md plan.md", "cannot be read", marks=pytest.mark.slow),
    ],
)
def test_what_an_agent_makes_unreadable_is_put_back_and_kept(
    ws: Workspace, spoil: str, said: str
) -> None:
    plan = (ws.path / "plan.md").read_text()
    ws.script({**WORK, "run": spoil}, {**WORK, "block": {"completed": True}})
    assert ws.run() == 0
    assert (ws.path / "plan.md").read_text() == plan
    assert f"plan.md {said}" in ws.prompt(2)
    assert [path.name.split(".")[0] for path in (ws.state / "quarantine").iterdir()] == ["plan"]


def test_what_was_deleted_is_put_back_by_the_next_supervisor(ws: Workspace) -> None:
    (ws.path / "TASK.md").write_text("Build the thing.\n")
    ws.script(
        {**long_run("go"), "run": "rm plan.md TASK.md"}, {**WORK, "block": {"completed": True}}
    )
    process = ws.start()
    ws.wait_runs(1)
    wait_until(lambda: not (ws.path / "TASK.md").exists(), "the deletion")
    process.kill()
    process.wait()
    (ws.control / "go").touch()
    assert ws.run() == 0
    assert "- [ ] first" in (ws.path / "plan.md").read_text()
    assert (ws.path / "TASK.md").read_text() == "Build the thing.\n"


def test_a_person_who_takes_the_plan_away_is_obeyed(ws: Workspace) -> None:
    ws.script(long_run("go"))
    process = ws.start()
    ws.wait_runs(1)
    ws.cli("pause")
    (ws.control / "go").touch()
    ws.wait_state("paused")
    (ws.path / "plan.md").unlink()
    ws.cli("resume")
    assert "plan.md is missing" in ws.wait_state("cooldown")["reason"]
    assert not (ws.path / "plan.md").exists()
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
