"""Others in our directory: `git clean`, `rm -rf`, planted links, garbage, a STOP by the agent,
killed recorders."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.support.control_steps import long_run
from tests.support.harness import Workspace, wait_until
from tests.support.program import commands

DONE = {"block": {"completed": True}}
WAITING = {"sleep": 60, "until": "go"}


def planted(first: str, *others: str) -> list[object]:
    """The first place each time, the others among the slow tests."""
    return [first, *(pytest.param(name, marks=pytest.mark.slow) for name in others)]


def go(ws: Workspace) -> None:
    (ws.control / "go").touch()


def numbers(ws: Workspace) -> list[int]:
    return [line["iteration"] for line in ws.journal()]


def aside(ws: Workspace) -> list[str]:
    return sorted(os.listdir(ws.state / "quarantine"))


# It may fail on a directory that is not empty: the supervisor puts its files back beside it.
CLEANERS = {
    "git clean": "git clean -qxdff -e codex-self-iter.toml || :",
    "rm -rf": "until rm -rf .codex-self-iter; do :; done",
}


@pytest.mark.parametrize("how", ["git clean", pytest.param("rm -rf", marks=pytest.mark.slow)])
def test_an_agent_that_wipes_the_state_directory_costs_nothing(ws: Workspace, how: str) -> None:
    ws.script(
        {"block": {"next_goal": "wipe"}},
        {"run": CLEANERS[how], "sleep": 60, "until": "go", "block": {"next_goal": "after"}},
        DONE,
    )
    process = ws.start()
    ws.wait_runs(2)
    journal = ws.state / "logs" / "iterations.jsonl"
    began = time.monotonic()
    for path in ("runtime.json", "status.json", "loop.lock", ".gitignore", "inbox"):
        wait_until((ws.state / path).exists, f"{path} to be back")
    wait_until(lambda: journal.exists() and len(ws.journal()) == 1, "the journal to be back")
    assert time.monotonic() - began < 15
    assert ws.run() == 75  # the lock still excludes a second supervisor
    go(ws)
    assert ws.ended(process) == 0
    assert numbers(ws) == [1, 2, 3]
    assert [line["goal_in"] for line in ws.journal()] == ["", "wipe", "after"]
    assert "state.restored" in ws.log()


@pytest.mark.parametrize("how", ["rm -rf", pytest.param("git clean", marks=pytest.mark.slow)])
def test_a_person_who_wipes_it_during_a_wait_costs_nothing(ws: Workspace, how: str) -> None:
    ws.config(backoff_base_sec=8, backoff_max_sec=8)
    ws.script({"block": {"next_goal": "kept"}}, {"exit": 3}, DONE)
    process = ws.start()
    ws.wait_state("backoff")
    # As root, a person's `git clean` does what the agent's does.
    subprocess.run(["/bin/sh", "-c", CLEANERS[how]], cwd=ws.path, env=ws.environment, check=True)
    ws.wait_state("backoff")
    wait_until(lambda: numbers(ws) == [1, 2], "the journal to be back")
    assert ws.ended(process) == 0
    assert numbers(ws) == [1, 2, 3]
    assert ws.journal()[2]["goal_in"] == "kept"


@pytest.mark.slow
def test_without_its_directory_a_new_supervisor_starts_at_one(ws: Workspace) -> None:
    """Negative control: it was the living supervisor that brought everything back."""
    ws.script({"block": {"next_goal": "x"}}, DONE)
    assert ws.run("--max-iterations", "1") == 0
    shutil.rmtree(ws.state)
    assert ws.run() == 0
    assert numbers(ws) == [1]


def test_an_agent_that_deletes_its_own_output_is_judged_sensibly(ws: Workspace) -> None:
    ws.script(
        {
            "run": "rm -rf .codex-self-iter/logs/runs",
            "sleep": 1.5,
            "block": {"next_goal": "unseen"},
        },
        DONE,
    )
    assert ws.run() == 0
    assert numbers(ws) == [1, 2]
    # Either the answer was still found, or the run is an error that says so; never a crash, never a
    # completion.
    assert ws.verdicts()[0] in ("continue", "no_change", "error")
    assert ws.verdicts()[1] == "completed"
    assert "Traceback" not in ws.log()


@pytest.mark.slow
def test_an_agent_that_deletes_the_repository_does_not_end_the_loop(ws: Workspace) -> None:
    ws.script({"run": "rm -rf .git", "block": {"next_goal": "go on"}}, {"write": {"a": "1"}}, DONE)
    assert ws.run() == 0
    assert numbers(ws) == [1, 2, 3]
    assert ws.verdicts()[2] == "completed"


@pytest.mark.slow
def test_an_agent_that_moves_head_has_made_progress(ws: Workspace) -> None:
    ws.script({"run": "git checkout -q -b other && git commit -q --allow-empty -m moved"}, DONE)
    assert ws.run() == 0
    assert ws.journal()[0]["has_new_changes"] is True
    assert ws.journal()[0]["head_before"] != ws.journal()[0]["head_after"]


def test_garbage_in_our_files_is_set_aside_and_our_truth_kept(ws: Workspace) -> None:
    lie = json.dumps({"schema": 1, "iteration": 900, "goal": "a lie"})
    write = (
        f"cd .codex-self-iter && echo '{lie}' > runtime.json && echo garbage > status.json && "
        'echo \'{"iteration": 800, "next_goal": "a lie"}\' > logs/iterations.jsonl'
    )
    ws.script(
        {"block": {"next_goal": "true"}},
        {"run": write, "sleep": 2.5, "block": {"next_goal": "truer"}},
        DONE,
    )
    assert ws.run() == 0
    good = [line for line in ws.journal() if line["iteration"] < 800]
    assert [line["iteration"] for line in good] == [1, 2, 3]
    assert [line["goal_in"] for line in good] == ["", "true", "truer"]
    assert ws.runtime()["iteration"] == 3
    assert ws.status()["iteration"] == 3
    assert any(name.startswith("runtime.json") for name in aside(ws))


@pytest.mark.parametrize(
    "name",
    planted(
        "run.lock",
        "runtime.json",
        "status.json",
        "loop.lock",
        "logs/iterations.jsonl",
        "report.md",
        "logs/supervisor.log",
    ),
)
def test_a_planted_symlink_is_never_written_through(ws: Workspace, name: str) -> None:
    treasure = ws.root / "treasure"
    treasure.write_text("precious")
    ws.script(
        {
            "run": f"ln -sfn '{treasure}' .codex-self-iter/{name}",
            "sleep": 1.5,
            "block": {"next_goal": "more"},
        },
        {"append": {"work.txt": "x"}, "block": {"next_goal": "more"}},
        DONE,
    )
    assert ws.run() == 0
    assert treasure.read_text() == "precious"
    assert numbers(ws) == [1, 2, 3]
    assert (ws.state / name).exists()


@pytest.mark.parametrize("name", planted("logs", "prompts", "inbox", "logs/runs"))
def test_a_planted_directory_symlink_is_never_written_through(ws: Workspace, name: str) -> None:
    outside = ws.root / "outside"
    outside.mkdir()
    trap = f"until rm -rf .codex-self-iter/{name}; do :; done; ln -sfn '{outside}' .codex-self-iter/{name}"
    ws.script({"run": trap, "sleep": 1.5, "block": {"next_goal": "more"}}, DONE, DONE)
    assert ws.run() == 0
    assert not list(outside.iterdir()), list(outside.iterdir())
    assert numbers(ws)[-1] >= 2


def test_a_stop_file_by_the_agent_is_obeyed(ws: Workspace) -> None:
    ws.script({"run": "touch .codex-self-iter/STOP", "sleep": 60})
    assert ws.run() == 0
    assert ws.status()["state"] == "stopped"
    assert ws.verdicts() == ["aborted"]
    assert ws.started() == 1


def test_an_agent_that_kills_its_recorder_is_swept_and_the_loop_goes_on(ws: Workspace) -> None:
    # the shell's parent is the agent, the agent's the recorder
    kill = "kill -9 $(ps -o ppid= -p $PPID)"
    ws.script({"spawn": ["setsid", "bare"], "run": kill, "sleep": 300}, DONE)
    ws.config(command_timeout_sec=20)
    assert ws.run() == 0
    assert ws.verdicts()[0] in ("interrupted", "error", "timed_out")
    assert ws.verdicts()[1:] == ["completed"]
    wait_until(lambda: not ws.leftovers(), "nothing left", 10)


@pytest.mark.parametrize("policy", ["adopt", pytest.param("kill", marks=pytest.mark.slow)])
def test_an_agent_that_kills_the_supervisor_is_found_by_the_next(
    ws: Workspace, policy: str
) -> None:
    ws.config(on_orphan=policy)
    kill = "kill -9 $(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' .codex-self-iter/loop.lock)"
    ws.script({"run": kill, "sleep": 60, "until": "go", "block": {"next_goal": "survived"}}, DONE)
    process = ws.start()
    assert ws.ended(process) == -signal.SIGKILL
    agent = ws.runs()[0][1]
    assert Path(f"/proc/{agent}").exists()
    second = ws.start()
    wait_until(lambda: "orphan." in ws.log(), "the orphan to be found")
    go(ws)
    assert ws.ended(second) == 0
    if policy == "adopt":
        assert ws.verdicts() == ["no_change", "completed"]
        assert ws.journal()[1]["goal_in"] == "survived"
    else:
        assert ws.verdicts() == ["interrupted", "completed"]
    assert ws.started() == 2
    assert not (ws.control / "overlaps.log").exists()


@pytest.mark.slow
def test_killing_the_whole_group_of_the_supervisor_loses_nothing(ws: Workspace) -> None:
    ws.script(WAITING, DONE)
    process = ws.start(start_new_session=True)
    ws.wait_runs(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    second = ws.start()
    wait_until(lambda: "orphan.adopted" in ws.log(), "adoption")
    go(ws)
    assert ws.ended(second) == 0
    assert ws.started() == 2
    assert numbers(ws) == [1, 2]


def _can_look_in() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    done = subprocess.run(["unshare", "-p", "-f", "--mount-proc", "true"], check=False)
    return done.returncode == 0


@pytest.mark.root
@pytest.mark.skipif(not _can_look_in(), reason="NOT TESTED HERE: needs root and unshare")
def test_as_process_1_what_somebody_started_by_looking_in_is_left_alone(ws: Workspace) -> None:
    kill = "kill -9 $(ps -o ppid= -p $PPID)"
    daemon = "env -i setsid sh -c 'sleep 54326 & sleep 54326' >/dev/null 2>&1 & sleep 0.3"
    wait = f"until test -e '{ws.control}/go'; do sleep 0.05; done"
    ws.script({"run": f"{wait}; {daemon}; {kill}; sleep 60"}, long_run())
    unshare = ["unshare", "-p", "-f", "--mount-proc", "--kill-child"]
    outside = ws.start(prefix=unshare)
    wait_until(lambda: psutil.Process(outside.pid).children(), "process 1")
    (first,) = psutil.Process(outside.pid).children()

    def sleeping(seconds: int) -> list[psutil.Process]:
        found = commands(first.children(recursive=True))
        return [one for one, line in found if line[:2] == ["sleep", str(seconds)]]

    ws.wait_runs(1)
    look_in = ["nsenter", "-t", str(first.pid), "-p", "-m", "sh", "-c"]
    subprocess.run([*look_in, "setsid sleep 54325 >/dev/null 2>&1 </dev/null & exit"], check=True)
    wait_until(lambda: [p for p in sleeping(54325) if p.parent() == first], "an orphan of theirs")
    time.sleep(1.5)  # the keeper has looked
    (ws.control / "go").touch()
    wait_until((ws.control / "prompt-2.md").exists, lambda: f"the next run:\n{ws.log()}")
    assert sleeping(54325)
    assert not sleeping(54326)
    (ws.state / "STOP").touch()
    assert ws.ended(outside) == 0
