"""The real supervisor in its real unit under a real systemd, with a scripted agent."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.service.spec import supervisor_argv
from tests.support import lab as laboratory
from tests.support.lab import ESCAPEES, SOURCE, UNIT, Service

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(bool(laboratory.missing()), reason=f"systemd lab: {laboratory.missing()}"),
]

AGENT = r"""#!/bin/sh
# $1 prompt, $2 workspace. Control files lie beside this script.
here=$(dirname "$0")
echo run >> "$2/work.txt"
if [ -e "$here/escapee" ]; then
    sleep 54321 &
    sh -c "trap '' TERM; sleep 54322" &
    setsid env -i sh -c 'sleep 54323 & sleep 54323' > /dev/null 2>&1 &
fi
[ -e "$here/deaf" ] && trap '' TERM
while [ -e "$here/slow" ]; do sleep 0.1; done
number=$(wc -l < "$2/work.txt")
printf '```json\n{"summary": "did %s", "next_goal": "goal %s", "stop": false, "reason": "r",' "$number" "$number"
printf ' "completed": false, "evidence": []}\n```\n'
"""


class Loop(Service):
    """A loop with a repository, a scripted agent and its unit."""

    def __init__(self, manager: laboratory.Lab, name: str) -> None:
        super().__init__(manager, name)
        (self.workspace / "plan.md").write_text("- [ ] one\n- [ ] two\n", encoding="utf-8")
        agent = self.control / "agent.sh"
        agent.write_text(AGENT, encoding="utf-8")
        agent.chmod(0o755)
        self.tell("slow")
        self.configure(max_iterations=0)
        subprocess.run(
            ["git", "init", "-q"], cwd=self.workspace, check=True, env=os.environ | manager.env
        )
        self.spec = self.spec._replace(argv=supervisor_argv(str(self.workspace)), stop_sec=30)

    def configure(self, **keys: Any) -> None:
        keys = {
            "agent_command_template": f"'{self.control}/agent.sh' {{prompt_file}} {{workspace}}"
        } | keys
        keys |= {"kill_grace_sec": 1, "no_change_gate": False}
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in keys.items()]
        (self.workspace / "codex-self-iter.toml").write_text("".join(lines), encoding="utf-8")

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside the lab, as the same person."""
        env = [f"PYTHONPATH={SOURCE / 'src'}", sys.executable, "-m", "codex_self_iter"]
        return self.manager.run(
            "env", *env, *words, "--workspace", str(self.workspace), check=False
        )

    def status(self) -> dict[str, Any]:
        return json.loads(self.cli("status", "--json").stdout)

    def journal(self) -> list[dict[str, Any]]:
        path = self.workspace / ".codex-self-iter" / "logs" / "iterations.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def until_agent_runs(self, count: int = 1) -> None:
        work = self.workspace / "work.txt"
        laboratory.until(
            lambda: work.exists() and len(work.read_text().splitlines()) >= count, "the agent runs"
        )


@pytest.fixture
def loop(manager: laboratory.Lab, tmp_path: Path) -> Iterator[Loop]:
    """A fresh loop; ended and forgotten afterwards."""
    loop = Loop(manager, tmp_path.name)
    yield loop
    loop.forget()


def test_ready_comes_with_a_status_line_and_a_held_lock(loop: Loop) -> None:
    shown = loop.start()
    assert shown["StatusText"]
    status = loop.status()
    assert status["alive"] is True
    assert str(status["pid"]) == shown["MainPID"] or status["pid"] > 0


def test_stop_by_file_is_inactive_and_not_restarted(loop: Loop) -> None:
    loop.start()
    loop.until_agent_runs()
    assert loop.cli("stop").returncode == 0
    shown = loop.manager.until_state(UNIT, ActiveState="inactive", SubState="dead")
    assert (shown["Result"], shown["NRestarts"], shown["ExecMainStatus"]) == ("success", "0", "0")
    assert loop.manager.processes("agent.sh", "codex_self_iter") == []


def test_a_missing_plan_is_exit_2_and_not_restarted(loop: Loop) -> None:
    (loop.workspace / "plan.md").unlink()
    loop.install()
    loop.manager.systemctl("start", UNIT, check=False)
    shown = loop.manager.until_state(UNIT, ActiveState="failed")
    assert (shown["ExecMainStatus"], shown["NRestarts"]) == ("2", "0")


def test_a_second_supervisor_is_exit_75(loop: Loop) -> None:
    loop.start()
    second = loop.cli("run")
    assert second.returncode == 75, second.stderr
    assert loop.manager.show(UNIT)["SubState"] == "running"


def test_kill_9_empties_the_group_and_the_next_one_goes_on(loop: Loop) -> None:
    (loop.control / "slow").unlink()
    loop.start()
    laboratory.until(lambda: len(loop.journal()) >= 2, "two iterations")
    loop.tell("slow")
    loop.tell("escapee")
    laboratory.until(lambda: len(loop.manager.processes(*ESCAPEES)) >= 4, "the escapees run")
    before = len(loop.journal())
    (loop.control / "escapee").unlink()
    loop.manager.kill(UNIT, signal.SIGKILL)
    loop.manager.until_state(UNIT, ActiveState="active", SubState="running", NRestarts="1")
    assert loop.manager.processes(*ESCAPEES) == []
    (loop.control / "slow").unlink()
    laboratory.until(lambda: len(loop.journal()) >= before + 3, "it goes on")
    numbers = [record["iteration"] for record in loop.journal()]
    assert numbers == sorted(set(numbers))
    assert loop.journal()[before + 1]["goal_in"].startswith("goal ")


def test_the_watchdog_ends_a_stopped_supervisor_and_the_next_one_goes_on(loop: Loop) -> None:
    loop.start(WatchdogSec="2")
    loop.until_agent_runs()
    loop.manager.kill(UNIT, signal.SIGSTOP)
    loop.manager.until_state(UNIT, ActiveState="active", SubState="running", NRestarts="1")
    laboratory.until(lambda: loop.status()["alive"], "the next one holds the lock")


def test_a_working_supervisor_satisfies_its_watchdog(loop: Loop) -> None:
    """While an agent works silently, rounds go on: no restart within several watchdog times."""
    loop.start(WatchdogSec="2")
    loop.until_agent_runs()
    loop.manager.run("sleep", "6")
    shown = loop.manager.show(UNIT)
    assert (shown["NRestarts"], shown["SubState"]) == ("0", "running")


def test_reload_applies_a_changed_configuration(loop: Loop) -> None:
    before = loop.start()
    loop.until_agent_runs()
    loop.configure(max_iterations=1)
    loop.manager.systemctl("reload", UNIT)
    shown = loop.manager.until_state(UNIT, ActiveState="active", SubState="running")
    assert (shown["MainPID"], shown["NRestarts"]) == (before["MainPID"], "0")
    (loop.control / "slow").unlink()
    loop.manager.until_state(UNIT, ActiveState="inactive", SubState="dead")
    assert len(loop.journal()) <= 2


def test_reload_of_a_broken_configuration_changes_nothing(loop: Loop) -> None:
    before = loop.start()
    loop.until_agent_runs()
    (loop.workspace / "codex-self-iter.toml").write_text(
        "max_iterations = -1\nnonsense = 1\n", encoding="utf-8"
    )
    loop.manager.systemctl("reload", UNIT)
    shown = loop.manager.until_state(UNIT, ActiveState="active", SubState="running")
    assert shown["MainPID"] == before["MainPID"]


def test_stop_with_a_deaf_agent_and_escapees_is_in_order_and_complete(loop: Loop) -> None:
    loop.tell("deaf")
    loop.tell("escapee")
    loop.start()
    loop.until_agent_runs()
    laboratory.until(lambda: len(loop.manager.processes(*ESCAPEES)) >= 4, "the escapees run")
    loop.manager.systemctl("stop", UNIT)
    shown = loop.manager.show(UNIT)
    assert (shown["ActiveState"], shown["Result"], shown["ExecMainStatus"]) == (
        "inactive",
        "success",
        "0",
    )
    assert loop.manager.processes("agent.sh", "codex_self_iter", *ESCAPEES) == []
    assert loop.status()["exit"]["code"] == 0


@pytest.mark.parametrize(("on_stop", "verdict"), [("finish", "continue"), ("end", "aborted")])
def test_a_restart_lets_the_iteration_end_if_it_is_asked_to(
    loop: Loop, on_stop: str, verdict: str
) -> None:
    with (loop.workspace / "codex-self-iter.toml").open("a", encoding="utf-8") as file:
        file.write(f'[service]\non_stop = "{on_stop}"\n')
    loop.start()
    loop.until_agent_runs()
    loop.manager.systemctl("stop", "--no-block", UNIT)
    loop.manager.until_state(UNIT, ActiveState="deactivating")
    (loop.control / "slow").unlink()
    loop.manager.until_state(UNIT, ActiveState="inactive", Result="success")
    assert [record["verdict"] for record in loop.journal()] == [verdict]
