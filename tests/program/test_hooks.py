"""The person's own commands at turns of the loop: `[hooks]`."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from typing import Any

import psutil
import pytest

from codex_self_iter.world.process.signals import TWIN_SEC
from tests.claims.scenes import defect
from tests.support.control_steps import CLAIM, FAILS, IDLE, WORK, wait_log
from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM

MOMENTS = ("on_start", "before_iteration", "after_iteration", "on_wait", "on_end")
NOTE = 'x=$(cat); printf "%s\\n" "$x" >> hooked'
"""Shell text that adds what the hook is told to a file of the workspace."""


def hooks(**table: Any) -> str:
    return "\n".join(
        ["[hooks]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
    )


def hooked(ws: Workspace) -> list[dict[str, Any]]:
    path = ws.path / "hooked"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def pid_in(ws: Workspace, name: str) -> int:
    """The pid that a hook has written into a file of the workspace."""
    path = ws.path / name
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"a pid in {name}")
    return int(path.read_text())


HANGS = "echo $$ > pid; exec sleep 600"


def test_each_moment_has_its_hook_in_order_with_the_facts(ws: Workspace) -> None:
    ws.config(hooks(**{moment: [NOTE] for moment in MOMENTS}))
    ws.script(WORK, CLAIM)
    assert ws.run() == 0, ws.log()
    told = hooked(ws)
    assert [one["hook"] for one in told] == [
        "on_start", "before_iteration", "after_iteration", "before_iteration", "after_iteration",
        "on_end",
    ]  # fmt: skip
    assert [one["iteration"] for one in told] == [0, 1, 1, 2, 2, 2]
    first, last = told[0], told[-1]
    assert first["workspace"] == str(ws.path)
    assert first["state_dir"] == str(ws.state)
    assert first["loop"] == ws.status()["name"]
    assert [one.get("verdict") for one in told[2:5:2]] == ["continue", "completed"]
    assert told[2]["record"]["summary"] == "did a step"
    assert told[3]["goal"] == told[2]["record"]["next_goal"]
    assert (last["state"], last["exit_code"]) == ("completed", 0)
    assert last["reason"] == ws.status()["reason"]
    assert ws.status()["exit"]["code"] == 0
    assert "hook.passed" in ws.log()


def test_without_hooks_there_is_none(ws: Workspace) -> None:
    """The control of the test above."""
    assert ws.run() == 0
    assert "hook." not in ws.log()
    assert not (ws.state / "logs" / "hooks").exists()


def test_a_hook_is_told_by_variables_and_gets_no_secret_that_it_does_not_ask_for(
    ws: Workspace,
) -> None:
    ws.environment |= {"MY_API_KEY": "sesame-12345678", "OTHER_API_KEY": "sesame-87654321"}
    ws.config(hooks(after_iteration=["env > after"], on_end=["env > end"], pass_env=["MY_*"]))
    assert ws.run() == 0
    after, end = (
        dict(
            line.split("=", 1) for line in (ws.path / name).read_text().splitlines() if "=" in line
        )
        for name in ("after", "end")
    )
    ours = {key: value for key, value in after.items() if key.startswith("CODEX_SELF_ITER_")}
    assert ours["CODEX_SELF_ITER_HOOK"] == "after_iteration"
    assert ours["CODEX_SELF_ITER_VERDICT"] == "completed"
    assert ours["CODEX_SELF_ITER_ITERATION"] == "1"
    assert ours["CODEX_SELF_ITER_LOOP"] == ws.status()["name"]
    assert ours["CODEX_SELF_ITER_STATE"]
    assert end["CODEX_SELF_ITER_EXIT_CODE"] == "0"
    assert end["CODEX_SELF_ITER_REASON"] == ws.status()["reason"]
    assert after["MY_API_KEY"] == "sesame-12345678"
    assert "OTHER_API_KEY" not in after


def test_a_command_of_ours_in_a_hook_knows_what_a_hook_is_told(ws: Workspace) -> None:
    ws.environment |= ws.with_command()
    ws.config(hooks(before_iteration=["codex-self-iter config check"]))
    assert ws.run() == 0, ws.log()


@pytest.mark.slow
def test_a_failing_before_iteration_holds_the_loop_until_it_succeeds(ws: Workspace) -> None:
    ws.config(hooks(before_iteration=["echo x >> asked; test -e go || { echo NOT YET; exit 3; }"]))
    process = ws.start()
    status = ws.wait_state("blocked")
    assert "exit code 3: NOT YET" in status["reason"]
    assert status["until"] is None
    assert "loop.held" in ws.log()
    assert "NOT YET" in ws.cli("status").stdout
    wait_until(lambda: len((ws.path / "asked").read_text().splitlines()) > 1, "being asked again")
    assert ws.started() == 0
    assert ws.status()["state"] == "blocked"
    (ws.path / "go").touch()
    assert ws.ended(process) == 0
    assert "loop.released" in ws.log()
    count = len((ws.path / "asked").read_text().splitlines())
    assert count >= 3
    assert ws.started() == 1
    assert ws.log().count("loop.held") == 1  # the same reason is said once


def test_a_held_loop_ends_at_a_stop_and_at_a_pause_asks_nobody(ws: Workspace) -> None:
    ws.config(hooks(before_iteration=["false"]))
    process = ws.start()
    ws.wait_state("blocked")
    ws.cli("pause")
    ws.wait_state("paused")
    ws.cli("stop")
    assert ws.ended(process) == 0
    assert ws.started() == 0


@pytest.mark.slow
def test_a_reload_without_the_hook_lets_the_loop_go_on(ws: Workspace) -> None:
    ws.config(hooks(before_iteration=["false"]))
    process = ws.start()
    ws.wait_state("blocked")
    ws.config()
    process.send_signal(signal.SIGHUP)
    assert ws.ended(process) == 0, ws.log()
    assert ws.verdicts() == ["completed"]


def test_other_hooks_that_fail_are_told_and_change_nothing(ws: Workspace) -> None:
    fails = "echo NO LUCK; exit 7"
    ws.config(hooks(on_start=[fails, "touch second"], after_iteration=[fails], on_end=[fails]))
    assert ws.run() == 0
    assert ws.verdicts() == ["completed"]
    warnings = "\n".join(ws.status()["warnings"])
    for moment in ("on_start", "after_iteration", "on_end"):
        assert f"the {moment} hook {fails!r} failed: exit code 7: NO LUCK" in warnings
    assert (ws.path / "second").exists()  # each command of a list is run
    assert "on_end hook" in (ws.state / "report.md").read_text()
    assert "hook.failed" in ws.log()


def test_a_hook_that_works_again_is_no_warning_any_more(ws: Workspace) -> None:
    ws.config(hooks(after_iteration=["test -e second || { touch second; exit 1; }"]))
    ws.script(WORK, CLAIM)
    assert ws.run() == 0
    assert "after_iteration hook" in ws.log()
    assert not [text for text in ws.status()["warnings"] if "hook" in text]


def test_a_hook_that_hangs_is_ended_at_its_time_out_with_all_it_has_started(ws: Workspace) -> None:
    hangs = "setsid sleep 600 & echo $! > child; sleep 600"
    ws.config(hooks(after_iteration=[hangs], timeout_sec=0.5))
    assert ws.run() == 0
    assert "it was ended after [hooks] timeout_sec = 0.5" in "\n".join(ws.status()["warnings"])
    assert not psutil.pid_exists(pid_in(ws, "child"))


def test_what_a_hook_leaves_in_the_background_ends_with_it(ws: Workspace) -> None:
    ws.config(hooks(before_iteration=["setsid sleep 600 > /dev/null 2>&1 & echo $! > child"]))
    ws.script({**CLAIM, "run": "kill -0 $(cat child) && touch alive; true"})
    assert ws.run() == 0
    assert (ws.path / "child").exists()
    assert not (ws.path / "alive").exists()


def test_a_stop_does_not_wait_for_a_hook(ws: Workspace) -> None:
    ws.config(hooks(before_iteration=[HANGS], on_end=["touch ended"]))
    process = ws.start()
    pid = pid_in(ws, "pid")
    wait_until(lambda: "before_iteration hook" in ws.status()["reason"], "a reason in status")
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    assert not psutil.pid_exists(pid)
    assert ws.started() == 0
    assert (ws.path / "ended").exists()
    assert ws.status()["state"] == "stopped"


@pytest.mark.slow
def test_a_signal_gives_all_hooks_fifteen_seconds_and_the_grace(ws: Workspace) -> None:
    ws.config(hooks(on_end=[HANGS], timeout_sec=0))
    ws.script({**WORK, "sleep": 60})
    process = ws.start()
    ws.wait_runs(1)
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    pid_in(ws, "pid")
    assert ws.ended(process) == 0
    assert 10 < time.monotonic() - begun < 30  # the unit's bound is 35 and the grace
    assert "cut short: the stop was in a hurry" in "\n".join(ws.status()["warnings"])


@pytest.mark.slow
def test_a_second_signal_ends_a_hook_at_once(ws: Workspace) -> None:
    ws.config(
        hooks(on_end=["trap '' TERM; echo $$ > pid; while :; do sleep 1; done"], timeout_sec=0)
    )
    process = ws.start()
    pid = pid_in(ws, "pid")
    process.send_signal(signal.SIGTERM)
    wait_log(ws, "stop.signal")
    time.sleep(2 * TWIN_SEC)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    assert time.monotonic() - begun < 10  # the control: 15 s
    assert not psutil.pid_exists(pid)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before_iteration", "on_start", "after_iteration"])
def test_after_a_kill_during_a_hook_the_next_start_ends_it_and_goes_on(
    ws: Workspace, moment: str
) -> None:
    ws.config(hooks(**{moment: [f"test -e pid && exit 0; {HANGS}"]}))
    ws.script(WORK, CLAIM)
    process = ws.start()
    pid = pid_in(ws, "pid")
    process.kill()
    process.wait()
    assert psutil.pid_exists(pid)
    assert ws.run() == 0, ws.log()
    assert not psutil.pid_exists(pid)
    assert ws.verdicts() == ["continue", "completed"]
    assert [line["iteration"] for line in ws.journal()] == [1, 2]


@pytest.mark.slow
def test_stop_ends_a_hook_whose_supervisor_is_gone(ws: Workspace) -> None:
    ws.config(hooks(before_iteration=[HANGS]))
    process = ws.start()
    pid = pid_in(ws, "pid")
    process.kill()
    process.wait()
    assert ws.cli("stop").returncode == 0
    wait_until(lambda: not psutil.pid_exists(pid), "the hook's end")


def after_a_stop(ws: Workspace, **table: Any) -> tuple[subprocess.Popen[bytes], int]:
    """A loop that was stopped by a file while a hook hangs; the hook's pid."""
    ws.config(hooks(timeout_sec=600, **table), kill_grace_sec=1)
    ws.script(WORK)
    process = ws.start()
    pid = pid_in(ws, "pid")
    ws.cli("stop")
    return process, pid


def test_a_stop_gives_a_hanging_after_iteration_its_grace_and_on_end_its_chance(
    ws: Workspace,
) -> None:
    process, pid = after_a_stop(ws, after_iteration=[HANGS], on_end=["sleep 1.5; touch ended"])
    assert ws.ended(process) == 0  # the control: 600 s
    assert not psutil.pid_exists(pid)
    assert (ws.path / "ended").exists()
    said = "the after_iteration hook was ended 1 s (kill_grace_sec) after the stop"
    assert said in "\n".join(ws.status()["warnings"])
    assert said in (ws.state / "report.md").read_text()


def test_a_stop_lets_an_after_iteration_that_is_quick_come_to_its_end(ws: Workspace) -> None:
    quick = "echo $$ > pid; until test -e .codex-self-iter/STOP; do sleep 0.05; done; touch done"
    process, _ = after_a_stop(ws, after_iteration=[quick])
    assert ws.ended(process) == 0
    assert (ws.path / "done").exists()
    assert not ws.status()["warnings"]


def test_a_second_stop_waits_for_no_hook(ws: Workspace) -> None:
    hangs = f"trap '' TERM; {HANGS}"
    ws.config(hooks(after_iteration=[hangs], on_end=["touch ended"]), kill_grace_sec=600)
    ws.script(WORK)
    process = ws.start()
    pid = pid_in(ws, "pid")
    again = lambda: ws.cli("stop").returncode == 0 and process.poll() is not None  # noqa: E731
    wait_until(again, "the end")  # the control: 600 s
    assert ws.ended(process) == 0
    assert not psutil.pid_exists(pid)
    assert not (ws.path / "ended").exists()


@pytest.mark.parametrize("ended", ["stopped", "completed"])
def test_a_stop_that_comes_while_on_end_hangs_ends_it(ws: Workspace, ended: str) -> None:
    deaf = "trap '' TERM; echo $$ > pid; while :; do sleep 1; done"
    ws.config(hooks(on_end=[deaf], timeout_sec=600), kill_grace_sec=60)
    ws.script(CLAIM if ended == "completed" else {**WORK, "sleep": 60})
    process = ws.start()
    if ended == "stopped":
        ws.wait_runs(1)
        ws.cli("stop")
    pid = pid_in(ws, "pid")
    assert process.poll() is None
    ws.cli("stop")
    assert ws.ended(process) == 0  # the control: 600 s
    assert not psutil.pid_exists(pid)
    assert ws.status()["state"] == ended
    assert "on_end, or what ran before it, was cut short" in "\n".join(ws.status()["warnings"])


def test_a_stop_at_the_start_runs_no_hook_but_that_of_the_end(ws: Workspace) -> None:
    ws.config(hooks(**{moment: [NOTE] for moment in MOMENTS}))
    (ws.path / ".codex-stop").touch()
    assert ws.run() == 0
    assert [one["hook"] for one in hooked(ws)] == ["on_end"]


@pytest.mark.parametrize("step", [FAILS, IDLE], ids=["backoff", "cooldown"])
def test_a_long_wait_is_told_once(ws: Workspace, step: dict[str, Any]) -> None:
    slow = {"backoff_base_sec": 600, "backoff_max_sec": 900, "no_change_backoff_sec": 600}
    ws.config(hooks(on_wait=[NOTE], on_end=[NOTE]), **slow)
    ws.script(step)
    process = ws.start()
    status = ws.wait_state("backoff", "cooldown")
    wait_until(lambda: hooked(ws), "the hook")
    (told,) = hooked(ws)
    assert (told["hook"], told["state"], told["reason"]) == (
        "on_wait", status["state"], status["reason"],
    )  # fmt: skip
    assert told["until"] == status["until"]
    ws.cli("stop")
    assert ws.ended(process) == 0
    assert [one["hook"] for one in hooked(ws)] == ["on_wait", "on_end"]


def test_a_short_wait_is_not_told(ws: Workspace) -> None:
    """The control of the test above."""
    ws.config(hooks(on_wait=[NOTE]))
    ws.script(FAILS, CLAIM)
    assert ws.run() == 0
    assert hooked(ws) == []


@pytest.mark.slow
def test_a_pause_and_a_hold_are_told_when_they_have_lasted(ws: Workspace) -> None:
    ws.config(hooks(on_wait=[NOTE]))
    ws.cli("pause")
    ws.start()
    wait_until(lambda: hooked(ws), "the hook")
    (ws.path / "plan.md").unlink()
    ws.cli("resume")
    wait_until(lambda: len(hooked(ws)) > 1, "the second one")
    assert [(one["state"], one["until"]) for one in hooked(ws)] == [
        ("paused", None), ("cooldown", None),
    ]  # fmt: skip


def test_what_a_hook_changes_is_the_loops_and_no_progress_of_the_agent(ws: Workspace) -> None:
    ws.config(
        '[git]\ncommit = "supervisor"\n' + hooks(after_iteration=["echo x >> by-hook"]),
        max_iterations=3,
    )
    ws.script(WORK, IDLE, WORK)
    assert ws.run() == 0
    assert ws.verdicts() == ["continue", "no_change", "continue"]
    assert "by-hook" in ws.git("show", "--name-only", "--format=", "HEAD")


def test_the_end_of_a_loop_that_needs_a_person_is_told(ws: Workspace) -> None:
    ws.config(hooks(on_end=[NOTE]), max_consecutive_errors=1)
    ws.script(FAILS)
    assert ws.run() == 4
    (told,) = hooked(ws)
    assert (told["state"], told["exit_code"]) == ("blocked", 4)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "among others"])
def test_the_end_of_a_crash_is_told_unless_the_loop_starts_again(
    ws: Workspace, alone: bool
) -> None:
    ws.config(hooks(on_end=[NOTE]) if alone else "")
    ws.script({**WORK, "sleep": 60})
    environment, flag = defect(ws, "supervisor.senses", "Senses.look")
    if alone:
        process = ws.start(environment=environment)
    else:
        place = ws.root / "many"
        place.mkdir()
        text = (ws.path / "codex-self-iter.toml").read_text() + hooks(on_end=[NOTE])
        (place / "a.toml").write_text(f"workspace = {json.dumps(str(ws.path))}\n{text}")
        command = [*PROGRAM, "--config-dir", str(place)]
        log = (ws.root / "supervisor-all.log").open("wb")
        process = subprocess.Popen(
            command, env={**ws.environment, **environment}, stdout=log, stderr=log
        )
        log.close()
        ws.supervisors.append(process)
    ws.wait_runs(1)
    flag.touch()
    if alone:
        assert ws.ended(process) == 1
        (told,) = hooked(ws)
        assert (told["state"], told["exit_code"]) == ("crashed", 1)
        return
    wait_log(ws, "loop.crashed")
    flag.unlink()
    wait_log(ws, "run.adopted")
    assert hooked(ws) == []


def test_hooks_run_one_at_a_time_and_no_iteration_begins_beside_one(ws: Workspace) -> None:
    slow = "echo begun $CODEX_SELF_ITER_HOOK >> turns; sleep 0.3; echo ended >> turns"
    ws.config(hooks(on_start=[slow], before_iteration=[slow], after_iteration=[slow]))
    ws.script(*[{**step, "run": "echo agent >> turns"} for step in (WORK, CLAIM)])
    assert ws.run() == 0
    assert (ws.path / "turns").read_text().splitlines() == [
        "begun on_start", "ended",
        *["begun before_iteration", "ended", "agent", "begun after_iteration", "ended"] * 2,
    ]  # fmt: skip


def test_of_a_list_none_runs_behind_the_one_that_forbids_an_iteration(ws: Workspace) -> None:
    ws.config(hooks(before_iteration=["touch first", "false", "touch third"]))
    ws.start()
    assert "'false'" in ws.wait_state("blocked")["reason"]
    assert (ws.path / "first").exists()
    assert not (ws.path / "third").exists()


def test_a_hook_is_run_by_the_shell_in_the_workspace(ws: Workspace) -> None:
    ws.config(hooks(on_start=["(pwd; ps -o comm= $$) | cat > told"]))
    assert ws.run() == 0
    place, shell = (ws.path / "told").read_text().splitlines()
    assert place == str(ws.path)
    assert shell == "sh"


def test_secrets_do_not_reach_what_is_kept_of_a_hook(ws: Workspace) -> None:
    secret = "ghp_" + "a1B2" * 9
    ws.config(hooks(after_iteration=[f"echo {secret[:8]}'{secret[8:]}'; exit 1"]))
    assert ws.run() == 0
    kept = (ws.state / "logs" / "hooks" / "after_iteration-1" / "stdout.log").read_text()
    assert "[redacted" in kept
    assert secret not in json.dumps(ws.status())


@pytest.mark.slow
def test_a_long_hook_at_the_end_is_no_hang_to_the_service_manager(ws: Workspace) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(ws.root / "n"))
        manager.settimeout(30)
        waits = "touch ending; until test -e heard; do sleep 0.05; done"
        ws.config(hooks(on_end=[waits]))
        process = ws.start(environment={"NOTIFY_SOCKET": str(ws.root / "n")})
        wait_until((ws.path / "ending").exists, "the hook")
        beats = 0
        while beats < 4:  # one may have been on its way
            beats += b"WATCHDOG=1" in manager.recv(4096)
        (ws.path / "heard").touch()
        assert ws.ended(process) == 0
