"""One supervisor, many workspaces: each loop as alone, one pool, one bad one never harms the
others."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from tests.support.control_steps import WORK, long_run, notify, told
from tests.support.harness import Workspace, overlaps, wait_until
from tests.support.program import PROGRAM


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Workspace]]:
    workspaces = [Workspace(tmp_path, f"repo {name}") for name in "abc"]
    for ws in workspaces:
        ws.config()
        ws.script(
            {"append": {"w": "x"}, "block": {"next_goal": f"more {ws.path.name}"}},
            {"block": {"completed": True}},
        )
    yield workspaces
    for ws in workspaces:
        ws.close()


def supervise(
    *workspaces: Workspace, tables: str = "", flags: tuple[str, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start one supervisor over these; it belongs to the first (its log, its end)."""
    first = workspaces[0]
    template = "\n".join(
        f"[[workspaces]]\npath = {json.dumps(str(ws.path))}\nagent_command_template = "
        + json.dumps(_template(ws))
        for ws in workspaces
    )
    config = first.root / "all.toml"
    config.write_text(
        "backoff_base_sec = 0.05\nno_change_backoff_sec = 0.05\nkill_grace_sec = 1\n"
        + tables
        + "\n"
        + template
    )
    log = (first.root / f"supervisor-{len(first.supervisors) + 1}.log").open("wb")
    with log:
        process = subprocess.Popen(
            [*PROGRAM, "--config", str(config), *flags],
            cwd=first.root, env=first.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    first.supervisors.append(process)
    return process


def _template(ws: Workspace) -> str:
    text = (ws.path / "codex-self-iter.toml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("agent_command_template"))
    found: str = json.loads(line.split("=", 1)[1])
    return found


def test_all_loops_run_to_their_own_end(three: list[Workspace]) -> None:
    assert three[0].ended(supervise(*three)) == 0
    for ws in three:
        assert ws.verdicts() == ["continue", "completed"]
        assert ws.status()["state"] == "completed"
        assert f"more {ws.path.name}" in ws.prompt(2)


def test_the_pool_bounds_all_loops_together(three: list[Workspace]) -> None:
    for ws in three:
        ws.script(
            {"sleep": 0.4, "append": {"w": "x"}}, {"sleep": 0.4, "block": {"completed": True}}
        )
    assert three[0].ended(supervise(*three, tables="[pool]\nmax_agents = 1\n")) == 0
    assert overlaps([row for ws in three for row in ws.runs()]) == 1


@pytest.mark.slow
def test_a_wider_pool_is_used(three: list[Workspace]) -> None:
    """The control of the test above: the bound is what keeps them apart."""
    for ws in three:
        ws.script({"sleep": 3, "block": {"completed": True}})
    assert three[0].ended(supervise(*three, tables="[pool]\nmax_agents = 3\n")) == 0
    assert overlaps([row for ws in three for row in ws.runs()]) > 1


def test_one_bad_workspace_is_reported_and_the_others_run(three: list[Workspace]) -> None:
    (three[1].path / "plan.md").unlink()
    assert three[0].ended(supervise(*three)) == 2
    assert three[0].verdicts() == three[2].verdicts() == ["continue", "completed"]
    assert "plan.md" in three[0].log()
    assert "Traceback" not in three[0].log()


def test_the_worst_exit_code_is_the_supervisors(three: list[Workspace]) -> None:
    three[1].script({"exit": 1})
    assert three[0].ended(supervise(*three, tables="max_consecutive_errors = 2\n")) == 4


def test_stop_of_one_loop_leaves_the_others(three: list[Workspace]) -> None:
    for ws in three:
        ws.script({"sleep": 60, "until": "go", "block": {"completed": True}})
    process = supervise(*three, tables="[pool]\nmax_agents = 3\n")
    for ws in three:
        ws.wait_runs(1)
    three[1].cli("stop")
    three[1].wait_state("stopped")
    assert three[0].status()["state"] == "running"
    for ws in three:
        (ws.control / "go").touch()
    assert three[0].ended(process) == 0
    assert three[1].verdicts() == ["aborted"]
    assert three[2].verdicts() == ["completed"]


@pytest.mark.slow
def test_a_repository_deleted_under_its_loop_harms_only_that_loop(three: list[Workspace]) -> None:
    for ws in three:
        ws.script({"sleep": 60, "until": "go", "block": {"completed": True}})
    process = supervise(*three, tables="[pool]\nmax_agents = 3\n")
    for ws in three:
        ws.wait_runs(1)
    three[1].path.rename(three[1].root / "away")
    shutil.rmtree(three[1].root / "away")
    for ws in three:
        (ws.control / "go").touch()
    three[0].wait_state("completed")
    three[2].wait_state("completed")
    assert three[0].ended(process) == 4
    assert f"the workspace {three[1].path} is gone" in three[0].log()
    assert "loop.crashed" not in three[0].log()
    assert not three[1].path.exists()


def test_a_left_over_of_one_loop_is_swept_and_another_loops_is_not(three: list[Workspace]) -> None:
    a, b, _ = three
    b.script(
        {"spawn": ["bare"], "sleep": 60, "until": "go", "run": "true", "block": {"completed": True}}
    )
    a.script({"spawn": ["bare", "setsid"], "append": {"w": "1"}}, {"block": {"completed": True}})
    process = supervise(a, b, tables="[pool]\nmax_agents = 2\n")
    b.wait_runs(1)
    a.wait_state("completed")
    agent = psutil.Process(b.runs()[0][1])
    recorder = agent.parent()
    assert recorder is not None
    # The bare daemon of b was adopted by b's own recorder and lives on as long as its run.
    wait_until(lambda: len(recorder.children()) >= 2, "b's daemon to be b's recorder's child")
    (b.control / "go").touch()
    assert a.ended(process) == 0
    assert not psutil.pid_exists(recorder.pid)


@pytest.mark.slow
def test_a_config_directory_is_watched(three: list[Workspace]) -> None:
    a, b, c = three
    for ws in three:
        ws.script(
            {"sleep": 60, "until": "go", "block": {"next_goal": "on"}},
            {"sleep": 60, "until": "end"},
        )
    directory = a.root / "conf.d"
    directory.mkdir()

    def add(ws: Workspace, name: str, extra: str = "") -> None:
        (directory / f"{name}.toml.new").write_text(
            f"workspace = {json.dumps(str(ws.path))}\nagent_command_template = {json.dumps(_template(ws))}\n"
            f"kill_grace_sec = 1\n{extra}[pool]\nmax_agents = 5\n"
        )
        (directory / f"{name}.toml.new").rename(directory / f"{name}.toml")

    add(a, "a")
    log = (a.root / "supervisor-1.log").open("wb")
    with log:
        process = subprocess.Popen(
            [*PROGRAM, "--config-dir", str(directory)],
            cwd=a.root, env=a.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    a.supervisors.append(process)
    a.wait_runs(1)
    add(b, "b")
    b.wait_runs(1)
    (directory / "bad.toml").write_text("no = [")
    add(c, "c")
    c.wait_runs(1)
    add(c, "c", "max_iterations = 1\n")
    wait_until(lambda: "max_iterations" in a.log(), "the change to be logged")
    # It was there, and bad, before: it cannot be the one that goes.
    (directory / "b.toml").rename(directory / "b.away")
    wait_until(lambda: "loop.removed" in a.log(), "the loop of the missing file to be let go")
    (b.control / "go").touch()
    b.wait_state("stopped")
    (directory / "b.away").rename(directory / "b.toml")
    b.wait_runs(2)
    assert a.status()["state"] == "running"
    (c.control / "go").touch()
    c.wait_state("stopped")
    assert "iteration limit" in c.status()["reason"]
    process.send_signal(signal.SIGTERM)
    assert a.ended(process) == 0


@pytest.mark.slow
def test_a_file_of_the_config_directory_may_be_away_renamed_or_half_written(
    three: list[Workspace],
) -> None:
    directory = three[0].root / "conf.d"
    directory.mkdir()
    for ws, name in zip(three, "abc", strict=True):
        ws.script({"sleep": 120, "until": "go", "block": {"completed": True}})
        (directory / f"{name}.toml").write_text(
            f"workspace = {json.dumps(str(ws.path))}\n"
            f"agent_command_template = {json.dumps(_template(ws))}\n[pool]\nmax_agents = 5\n"
        )
    first = three[0]
    with (first.root / "supervisor-1.log").open("wb") as log:
        process = subprocess.Popen(
            [*PROGRAM, "--config-dir", "conf.d"],
            cwd=first.root, env=first.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    first.supervisors.append(process)
    for ws in three:
        ws.wait_runs(1)
    (directory / "a.toml").rename(directory / "a.away")
    (directory / "b.toml").rename(directory / "renamed.toml")
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "loop.renamed" in first.log(), "the renamed file to be followed")
    (directory / "a.away").rename(directory / "a.toml")
    whole = (directory / "c.toml").read_text()
    (directory / "c.toml").write_text(whole[:20])
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "config.skipped" in first.log(), "the half-written file to be skipped")
    (directory / "c.toml").write_text(whole + "[output]\nkeep_runs = 7\n")
    wait_until(lambda: "keep_runs" in first.log(), "the whole file to be read")
    whole = (directory / "renamed.toml").read_text()
    (directory / "renamed.toml").unlink()
    (directory / "half.toml").write_text(whole[:20])
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "half.toml" in str(three[1].status()["warnings"]), "the file to be named")
    (directory / "half.toml").write_text(whole)
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: first.log().count("loop.renamed") == 2, "it to be followed again")
    for ws in three:
        (ws.control / "go").touch()
    assert first.ended(process) == 0
    assert "loop.removed" not in first.log()
    for ws in three:
        assert ws.verdicts() == ["completed"]


@pytest.mark.slow
def test_many_loops_with_faults_and_kills_end_as_their_scripts_say(tmp_path: Path) -> None:
    rng = random.Random(7)
    count = 30
    workspaces = [Workspace(tmp_path, f"r{number}") for number in range(count)]
    expected = []
    for ws in workspaces:
        ws.config()
        steps: list[dict[str, object]] = []
        for number in range(rng.randint(1, 3)):
            fault = rng.choice(
                [{}, {"exit": 1}, {"raw": "garbage"}, {"spawn": ["setsid"]}, {"sleep": 0.3}]
            )
            steps.append({"append": {"w": "x"}, "block": {"next_goal": f"s{number}"}, **fault})
        steps.append({"block": {"completed": True}})
        ws.script(*steps)
        expected.append("completed")
    for _ in range(3):
        process = supervise(*workspaces, tables="[pool]\nmax_agents = 4\n")
        seen = sum(ws.started() for ws in workspaces)
        wait_until(
            lambda seen=seen, process=process: (
                sum(ws.started() for ws in workspaces) > seen + 8 or process.poll() is not None
            ),
            "some runs",
        )
        process.kill()
        process.wait()
    assert workspaces[0].ended(supervise(*workspaces, tables="[pool]\nmax_agents = 4\n"), 400) == 0
    for ws in workspaces:
        assert ws.status()["state"] == "completed", ws.path
        numbers = [line["iteration"] for line in ws.journal()]
        assert numbers == sorted(set(numbers))
        assert overlaps(ws.runs()) <= 1, ws.path
    for ws in workspaces:
        ws.close()


def test_status_without_a_workspace_shows_all_loops(three: list[Workspace]) -> None:
    assert three[0].ended(supervise(*three)) == 0
    environment = three[0].environment
    done = subprocess.run(
        [*PROGRAM, "status"],
        cwd=os.path.dirname(three[0].root), env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    for ws in three:
        assert ws.path.name in done.stdout
    one = subprocess.run(
        [*PROGRAM, "status", three[1].path.name, "--json"],
        cwd=os.path.dirname(three[0].root), env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert json.loads(one.stdout)["workspace"] == str(three[1].path)


@pytest.mark.slow
def test_memory_in_use_holds_further_runs_back(three: list[Workspace]) -> None:
    a, b, _ = three
    a.script({"sleep": 5, "block": {"completed": True}})
    # The first run of b may slip in before a's first sample; it lasts long enough for that sample
    # to be there.
    b.script({"sleep": 2.5, "append": {"w": "1"}}, {"block": {"completed": True}})
    process = supervise(a, b, tables="[pool]\nmax_agents = 2\nmax_memory_mb = 1\n")
    wait_until(
        lambda: "MiB" in b.status().get("reason", ""),
        "the reason in the status of the waiting loop",
    )
    assert a.ended(process) == 0
    end = next(at for word, _, at in a.runs() if word == "end")
    assert [at > end for word, _, at in b.runs() if word == "start"][-1]


def test_what_a_person_edits_while_a_loop_waits_for_its_place_stays_theirs(
    three: list[Workspace],
) -> None:
    a, b, _ = three
    done = {"sleep": 60, "until": "go", "block": {"completed": True}}
    for ws in (a, b):
        ws.script({"write": {"agent.txt": "agent"}, **done})
    process = supervise(a, b, tables='[git]\ncommit = "supervisor"\n[pool]\nmax_agents = 1\n')
    wait_until(lambda: a.started() or b.started(), "the first run")
    first, second = (a, b) if a.started() else (b, a)
    wait_until(lambda: (second.status().get("run") or {}).get("waiting_for"), "the other waits")
    (second.path / "mine.txt").write_text("half done")
    for ws in (first, second):
        (ws.control / "go").touch()
    assert a.ended(process) == 0
    assert second.git("log", "--format=", "--name-only", "-1").split() == ["agent.txt"]
    assert second.git("status", "--porcelain").strip() == "?? mine.txt"


def test_a_gate_file_that_a_person_edits_meanwhile_is_no_cheat_of_the_agent(
    three: list[Workspace],
) -> None:
    a, b, _ = three
    for ws in (a, b):
        (ws.path / "checks").mkdir()
        (ws.path / "checks" / "all.sh").write_text("exit 0")
        ws.script({"sleep": 60, "until": "go", "block": {"completed": True}})
    tables = """[verify]
commands = ["sh checks/all.sh"]
gate_files = ["checks/"]
[pool]
max_agents = 1
"""
    process = supervise(a, b, tables=tables)
    wait_until(lambda: a.started() or b.started(), "the first run")
    first, second = (a, b) if a.started() else (b, a)
    wait_until(lambda: (second.status().get("run") or {}).get("waiting_for"), "the other waits")
    (second.path / "checks" / "all.sh").write_text("exit 0  # mine")
    (second.path / "checks" / "more.sh").write_text("exit 0")
    for ws in (first, second):
        (ws.control / "go").touch()
    assert a.ended(process) == 0
    assert second.verdicts() == ["completed"]


def test_a_loop_that_waited_for_its_place_looks_at_its_conditions_again(
    three: list[Workspace],
) -> None:
    a, b, _ = three
    for ws in (a, b):
        ws.script({"sleep": 60, "until": "go", "block": {"completed": True}})
    process = supervise(a, b, tables="[pool]\nmax_agents = 1\n")
    wait_until(lambda: a.started() or b.started(), "the first run")
    first, second = (a, b) if a.started() else (b, a)
    wait_until(lambda: (second.status().get("run") or {}).get("waiting_for"), "the other waits")
    (second.path / "plan.md").rename(second.path / "away.md")
    (first.control / "go").touch()
    second.wait_state("cooldown")
    assert second.started() == 0
    (second.control / "go").touch()
    (second.path / "away.md").rename(second.path / "plan.md")
    assert a.ended(process) == 0
    assert second.verdicts() == ["completed"]


@pytest.mark.slow
def test_loops_of_one_supervisor_send_one_digest_about_all(three: list[Workspace]) -> None:
    """It was down at the hour. One of them has ended before the digest comes."""
    for ws in three:
        ws.script(WORK, long_run())
    three[2].script(WORK, {"block": {"completed": True}})
    assert three[0].ended(supervise(*three, tables="max_iterations = 1\n")) == 0
    yesterday = {"digest_day": datetime.now().astimezone().toordinal() - 1}
    for ws in three:
        (ws.state / "outbox.json").write_text(json.dumps(yesterday))
    table = notify(three[0], events=["digest"], digest_at="00:00")
    process = supervise(*three, tables=f"[pool]\nmax_agents = 3\n{table}")

    def days() -> list[int]:
        boxes = [json.loads((ws.state / "outbox.json").read_text()) for ws in three[:2]]
        return [box["digest_day"] - yesterday["digest_day"] for box in boxes]

    wait_until(lambda: days() == [1, 1], "each to have thought of it")
    wait_until(lambda: told(three[0]), "the digest")
    assert "notify.shared" in three[0].log()
    three[0].cli("stop")
    three[1].cli("stop")
    assert three[0].ended(process) == 0
    (one,) = told(three[0])
    head, *lines = one["text"].splitlines()
    assert head.startswith("Digest: 3 loops, none needs you, ")
    assert {line.partition(":")[0] for line in lines} == {ws.path.name for ws in three}
