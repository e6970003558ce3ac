"""SIGHUP: valid changes apply at the next iteration, key by key; anything else changes nothing and
says why."""

from __future__ import annotations

import shlex
import signal
import sys
import time

import pytest

from codex_self_iter.world.process.signals import TWIN_SEC
from tests.support.control_steps import CLAIM, WORK, long_run, reach, wait_log
from tests.support.harness import Workspace, wait_until


@pytest.mark.slow
def test_a_change_applies_at_the_next_iteration_and_is_logged_key_by_key(ws: Workspace) -> None:
    ws.script(long_run(until="go"), {**CLAIM, "sleep": 60}, CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    ws.config(
        '[verify]\ncommands = ["test -e proof || { touch proof; exit 5; }"]', command_timeout_sec=2
    )
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "command_timeout_sec")  # a line for each key
    wait_log(ws, "verify.commands")
    assert ws.log().count("config.changed") >= 2
    assert "config.applied" not in ws.log()
    time.sleep(2.5)
    assert ws.status()["state"] == "running"  # the run that was on keeps its time
    (ws.control / "go").touch()
    wait_log(ws, "config.applied")
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["continue", "timed_out", "claim_rejected", "completed"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ws: ws.config(command_timeout_sec=-5), "command_timeout_sec"),
        (
            lambda ws: ws.config(agent_command_template="no-such-program {prompt_file}"),
            "no-such-program",
        ),
        (
            lambda ws: (ws.path / "codex-self-iter.toml").write_text("max_iterations = "),
            "codex-self-iter.toml",
        ),
    ],
)
def test_a_bad_file_changes_nothing_and_says_why(ws: Workspace, change: object, said: str) -> None:
    ws.script(long_run(until="go"), WORK, CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    change(ws)  # type: ignore[operator]
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "config.not_reloaded")
    assert said in ws.log()
    assert "config.changed" not in ws.log()
    wait_until(lambda: said in str(ws.status()["warnings"]), "the status to say so")
    ws.config(max_stagnation=9)
    time.sleep(2 * TWIN_SEC)  # else the two would be one request
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: not ws.status()["warnings"], "the warning to go with a good one")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["continue", "continue", "completed"]
    assert "Traceback" not in ws.log()


def test_a_raised_iteration_limit_comes_in_time_for_the_last_iteration(ws: Workspace) -> None:
    ws.config(max_iterations=1)
    ws.script(long_run(until="go"), CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    ws.config(max_iterations=5)
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "config.changed")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["continue", "completed"]


def test_another_agent_takes_over_from_one_that_is_limited(ws: Workspace) -> None:
    process = reach(ws, "limited", CLAIM)
    (ws.path / "other.py").write_text(
        "import json\nprint(json.dumps(dict(summary='ok', next_goal='', stop=False, "
        "completed=True)))\n"
    )
    ws.config(agent_command_template=f"{shlex.quote(sys.executable)} other.py {{prompt_file}}")
    process.send_signal(signal.SIGHUP)
    assert ws.ended(process) == 0
    # words alone hold no account: the old agent may have been asked once more
    assert ws.verdicts()[-1] == "completed"
    assert set(ws.verdicts()[:-1]) == {"limited"}


@pytest.mark.slow
def test_a_reload_during_a_wait_or_a_pause_applies_at_once_and_ends_neither(ws: Workspace) -> None:
    process = reach(ws, "backoff")
    ws.config(max_stagnation=9, backoff_base_sec=600, backoff_max_sec=900)
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "config.applied")
    ws.cli("pause")
    ws.wait_state("paused")
    ws.config(max_stagnation=10, backoff_base_sec=600, backoff_max_sec=900)
    process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert ws.status()["state"] == "paused"
    assert ws.started() == 1
    ws.cli("stop")
    assert ws.ended(process) == 0
    assert ws.log().count("config.applied") == 2


def test_what_is_not_in_force_before_a_restart_is_named(ws: Workspace) -> None:
    process = reach(ws, "running")
    ws.config("[log]\nlevel = 'debug'\n[output]\nlog_files = 2\nkeep_runs = 9\n")
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "config.needs_restart")
    said = next(line for line in ws.log().splitlines() if "config.needs_restart" in line)
    assert "log.level" in said
    assert "output.log_files" in said
    assert "keep_runs" not in said
