"""Files and processes are not what they should be: planted, stopped, cut, left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import Workspace, wait_until

DONE = {"block": {"completed": True}}
PATIENCE = 40.0
"""Seconds in which a loop that does not hang has come to its end, on a busy machine too."""


def gates_of(*commands: str) -> str:
    return f"[verify]\ncommands = {json.dumps(commands)}\n"


def aside(ws: Workspace) -> list[str]:
    return sorted(os.listdir(ws.state / "quarantine"))


@pytest.mark.parametrize("what", ["mkfifo tests/pipe", "ln -s /dev/zero tests/zero"])
def test_a_gate_file_that_is_no_file_holds_nothing_up(ws: Workspace, what: str) -> None:
    (ws.path / "tests").mkdir()
    (ws.path / "tests" / "test_it.py").write_text("pass\n")
    subprocess.run(what, cwd=ws.path, shell=True, check=True)
    ws.config('[verify]\ncommands = ["true"]\ngate_files = ["tests/"]\n')
    ws.script({"block": {"next_goal": "x"}}, DONE)
    assert ws.run(patience=PATIENCE) == 0
    assert len(ws.journal()) == 2


def test_a_huge_gate_file_is_not_read_as_a_whole_and_still_guarded(ws: Workspace) -> None:
    with (ws.path / "huge.bin").open("wb") as file:
        file.truncate(1 << 42)
    verify = '[verify]\ncommands = ["true"]\ngate_files = ["huge.bin"]\n'
    ws.config(verify, max_stagnation=2)
    (ws.path / ".git" / "info" / "exclude").write_text("codex-self-iter.toml\nhuge.bin\n")
    change = "printf x | dd of=huge.bin bs=1 seek=4096 conv=notrunc 2>/dev/null"
    ws.script({"run": change, **DONE}, DONE)
    assert ws.run(patience=PATIENCE) == 3
    assert "huge.bin" in ws.prompt(2)


@pytest.mark.parametrize("how", ["> /dev/stderr", "| tee /dev/stderr >/dev/null", "> /dev/stdout"])
def test_a_gate_that_opens_its_output_anew_takes_back_nothing(ws: Workspace, how: str) -> None:
    gate = f"echo 'FAILED test_sum: 3 != 4'; echo '1 test failed' {how}; test -e proof"
    ws.config(f"[verify]\ncommands = [{json.dumps(gate)}]\n")
    ws.script(DONE, {"write": {"proof": "x"}, **DONE})
    assert ws.run(patience=PATIENCE) == 0
    assert "FAILED test_sum: 3 != 4\n1 test failed" in ws.prompt(2)


RECORDER, LAUNCHER = "$PPID", "$(ps -o ppid= -p $PPID)"
SUPERVISOR = "$(ps -o ppid= -p $(ps -o ppid= -p $PPID))"


@pytest.mark.parametrize("name", ["TERM", "INT", "KILL", "STOP"])
@pytest.mark.parametrize("whom", [RECORDER, LAUNCHER])
def test_a_gate_that_signals_what_runs_it_ends_once(ws: Workspace, name: str, whom: str) -> None:
    ws.config(
        gates_of(
            f"test -e ok && exit 0; echo run >> '{ws.control}/gates'; kill -{name} {whom}; sleep 1; exit 3"
        )
    )
    ws.script(DONE, {"write": {"ok": ""}, **DONE})
    assert ws.run(patience=PATIENCE) == 0, ws.log()
    assert ws.verdicts() == ["claim_rejected", "completed"]
    assert (ws.control / "gates").read_text() == "run\n"


def test_a_gate_that_ends_the_supervisor_is_not_a_person(ws: Workspace) -> None:
    ws.config(gates_of(f"test -e ok && exit 0; kill -TERM {SUPERVISOR}; sleep 1; exit 3"))
    ws.script(DONE, {"write": {"ok": ""}, **DONE})
    assert ws.run(patience=PATIENCE) == 0, ws.log()
    assert ws.verdicts() == ["claim_rejected", "completed"]


def test_an_agent_that_opens_its_output_anew_has_answered(ws: Workspace) -> None:
    answer = json.dumps({"summary": "s", "next_goal": "g", "stop": False, "completed": True})
    ws.script(
        {"run": f"echo '{answer}'; echo bye > /dev/stdout; echo bye > /dev/stderr", "raw": ""}
    )
    assert ws.run(patience=PATIENCE) == 0
    assert ws.verdicts() == ["completed"]


@pytest.mark.parametrize("name", ["stdout.log", "stderr.log", "exit.json", "identity.json"])
@pytest.mark.parametrize("kind", ["mkdir", pytest.param("mkfifo", marks=pytest.mark.slow)])
def test_an_agent_that_plants_something_in_place_of_its_files_costs_nothing(
    ws: Workspace, name: str, kind: str
) -> None:
    place = f".codex-self-iter/logs/runs/000001-executor/{name}"
    ws.script({"run": f"rm {place}; {kind} {place}", "block": {"next_goal": "x"}}, DONE)
    assert ws.run(patience=PATIENCE) == 0
    assert [line["goal_in"] for line in ws.journal()] == ["", "x"]
    if name.endswith(".log"):
        assert any(found.startswith(name) for found in aside(ws))
        assert "was no file" in ws.log()


def test_the_output_is_not_put_back_through_a_link_of_the_agents(ws: Workspace) -> None:
    elsewhere = ws.root / "elsewhere"
    elsewhere.mkdir()
    runs = f"'{ws.state}/logs/runs'"
    swap = f"mv {runs} '{ws.root}/runs'; ln -s '{elsewhere}' {runs}; sleep 0.5"
    ws.config()
    ws.script({"run": swap, "block": {"summary": "swapped"}}, DONE)
    assert ws.run(patience=PATIENCE) == 0
    assert ws.journal()[0]["summary"] == "swapped"
    assert [*elsewhere.iterdir()] == []


def test_no_record_is_written_through_a_link_of_the_agents(ws: Workspace) -> None:
    run = "'.codex-self-iter/logs/runs/000001-executor'"
    ws.script({"run": f'mv {run} ../away; ln -s "$PWD" {run}', "block": {"next_goal": "y"}}, DONE)
    assert ws.run(patience=PATIENCE) == 0
    assert not (ws.path / "exit.json").exists()
    assert [line["changed_files"] for line in ws.journal()] == [[], []]


def test_an_agent_that_removes_its_run_directory_has_answered(ws: Workspace) -> None:
    ws.script({"run": "rm -rf .codex-self-iter/logs/runs", "say": "x", "block": {"next_goal": "y"}},
              DONE)  # fmt: skip
    assert ws.run(patience=PATIENCE) == 0
    assert [line["goal_in"] for line in ws.journal()] == ["", "y"]


PLACES = [
    "logs/runs/000001-gate-1/stdout.log",
    pytest.param("logs/runs/000001-gate-1/stderr.log", marks=pytest.mark.slow),
    "logs/runs/000001-gate-1/exit.json",
    "run.lock",
    pytest.param("status.json", marks=pytest.mark.slow),
    pytest.param("report.md", marks=pytest.mark.slow),
    "runtime.json.1",
    pytest.param("prompts/000002-executor.md", marks=pytest.mark.slow),
    "room",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_directory_in_the_place_of_a_file_of_ours_is_set_aside(ws: Workspace, place: str) -> None:
    ws.config('[verify]\ncommands = ["test -e proof"]\n[output]\nlog_max_mb = 0.001\n')
    there = f".codex-self-iter/{place}"  # the supervisor may write it in between
    plant = f"until mkdir -p {there}/x 2>/dev/null; do rm -rf {there}; done"
    ws.script({"run": plant, **DONE}, {"write": {"proof": "x"}, **DONE})
    assert ws.run(patience=PATIENCE) == 0
    assert [line["iteration"] for line in ws.journal()] == [1, 2]
    assert "test -e proof" in ws.prompt(2)
    assert place == "room" or aside(ws)


@pytest.mark.parametrize("planted", [
    {"run_id": 1},
    pytest.param({"cause": "exit"}, marks=pytest.mark.slow),
    pytest.param({"agent_pid": "x", "agent_start": []}, marks=pytest.mark.slow),
    [],
])  # fmt: skip
def test_what_is_planted_as_a_record_of_a_run_is_not_believed(
    ws: Workspace, planted: object
) -> None:
    ws.script({"sleep": 60, "until": "go", "block": {"next_goal": "kept"}}, DONE)
    process = ws.start()
    ws.wait_runs(1)
    process.kill()
    process.wait()
    run = ws.state / "logs" / "runs" / "000001-executor"
    known = json.loads((run / "identity.json").read_text())
    text = json.dumps({**known, **planted} if isinstance(planted, dict) else planted)
    for name in ("identity.json", "exit.json", "before.json"):
        (run / name).write_text(text)
    (ws.control / "go").touch()
    assert ws.run(patience=PATIENCE) == 0
    assert ws.journal()[-1]["verdict"] == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["identity.json", "exit.json", "before.json", "stdout.log"])
def test_a_fifo_among_the_records_does_not_hold_up_the_next_start(ws: Workspace, name: str) -> None:
    ws.script({"sleep": 60, "until": "go", "block": {"next_goal": "kept"}}, DONE)
    process = ws.start()
    ws.wait_runs(1)
    process.kill()
    process.wait()
    path = ws.state / "logs" / "runs" / "000001-executor" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    (ws.control / "go").touch()
    assert ws.run(patience=PATIENCE) == 0
    assert ws.journal()[-1]["verdict"] == "completed"


@pytest.mark.slow
def test_the_result_of_an_earlier_history_is_not_adopted(ws: Workspace) -> None:
    """A backup is put back; the next run of a number that there was already has not begun."""
    ws.script({"block": {"next_goal": "two"}}, {"block": {"next_goal": "stale"}},
              {"sleep": 60, "until": "go", "block": {"next_goal": "three"}})  # fmt: skip
    process = ws.start()
    ws.wait_runs(3)
    process.kill()
    process.wait()
    runs = ws.state / "logs" / "runs"
    time.sleep(1)  # clocks that are slewed apart do not make a history
    for name in os.listdir(runs / "000002-executor"):
        shutil.copy(runs / "000002-executor" / name, runs / "000003-executor" / name)
    for name in ("exit.json", "identity.json"):
        path = runs / "000003-executor" / name
        found = json.loads(path.read_text())
        path.write_text(json.dumps(found | {"run_id": found["run_id"].replace("02-", "03-")}))
    (ws.control / "go").touch()
    ws.script(DONE)
    assert ws.run(patience=PATIENCE) == 0
    assert "stale" not in [line["next_goal"] for line in ws.journal()[2:]]


def test_a_run_directory_that_comes_from_a_backup_is_not_written_on(ws: Workspace) -> None:
    old = ws.state / "logs" / "runs" / "000001-executor"
    old.mkdir(parents=True)
    (old / "stdout.log").write_text('{"next_goal": "old", "completed": false}\n')
    (old / "exit.json").write_text("{}")
    ws.script({"raw": "no answer"}, DONE)
    assert ws.run(patience=PATIENCE) == 0
    assert "old" not in (old / "stdout.log").read_text()
    assert any("000001-executor" in name for name in aside(ws))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv")
@pytest.mark.skipif(os.getuid() != 0, reason="needs two users")
def test_left_overs_that_cannot_be_ended_are_said(ws: Workspace, tmp_path: Path) -> None:
    """Root without the right to signal others stands for a person whose agent uses sudo."""
    pid = tmp_path / "pid"
    left = (
        "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; setpriv --reuid 65534 --clear-groups setsid"
        f" sleep 600 >/dev/null 2>&1 & echo $! > '{pid}'; sleep 0.5"
    )
    ws.script({"run": left, "block": {"next_goal": "x"}}, DONE)
    prefix = ["setpriv", "--bounding-set", "-kill", "--inh-caps", "-kill"]
    process = ws.start(prefix=prefix)
    try:
        assert ws.ended(process, patience=120) == 0
        assert "has no power to end them" in ws.log()
        assert "has no power to end them" in ws.prompt(2)
        assert any("sleep" in text for text in ws.status()["warnings"])
    finally:
        os.kill(int(pid.read_text()), 9)


def test_every_line_of_the_journal_is_json_after_half_a_line(ws: Workspace) -> None:
    ws.script({"block": {"next_goal": "x"}}, {"block": {"stop": True, "reason": "enough"}}, DONE)
    assert ws.run(patience=PATIENCE) == 0
    journal = ws.state / "logs" / "iterations.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"iteration": 3, "half')
    assert ws.run(patience=PATIENCE) == 0
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3]
    (piece,) = [name for name in aside(ws) if "iterations.jsonl" in name]
    assert (ws.state / "quarantine" / piece).read_bytes() == b'{"iteration": 3, "half'


@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv")
@pytest.mark.parametrize(
    "place",
    [
        ".",
        "logs/iterations.jsonl",
        *(
            pytest.param(place, marks=pytest.mark.slow)
            for place in ("logs", "inbox", "runtime.json")
        ),
    ],
)
def test_rights_that_somebody_took_come_back(ws: Workspace, place: str) -> None:
    """Without its usual powers root is as good as anybody."""
    without = "-dac_override,-dac_read_search"
    prefix = ["setpriv", "--bounding-set", without, "--inh-caps", without]
    ws.script({"run": f"chmod 000 .codex-self-iter/{place}", "block": {"next_goal": "x"}},
              {"sleep": 60, "until": "go", "block": {"next_goal": "y"}}, DONE)  # fmt: skip
    process = ws.start(prefix=prefix)
    ws.wait_runs(2)
    (ws.state / "STOP").touch()
    assert ws.ended(process) == 0
    assert ws.journal()[0]["next_goal"] == "x"
    (ws.control / "go").touch()
    if place != ".":  # that one is refused at a start, with clear words
        os.chmod(ws.state / place, 0o000)
    assert ws.ended(ws.start("--clear-stop", prefix=prefix)) == 0
    assert ws.journal()[-1]["verdict"] == "completed"


POORER = Path(__file__).parents[1] / "support" / "without_pidfd.py"


@pytest.mark.slow
@pytest.mark.parametrize("number", ["EPERM", "ENOSYS", "EMFILE"])
def test_without_descriptors_of_processes_everything_works(ws: Workspace, number: str) -> None:
    prefix = [sys.executable, "-S", "-E", str(POORER), number]
    ws.config('[verify]\ncommands = ["true"]\n', command_timeout_sec=2, max_consecutive_errors=5)
    ws.script({"spawn": ["plain", "setsid", "double", "bare"], "block": {"next_goal": "x"}},
              {"deaf": True, "sleep": 60}, {"sleep": 60, "until": "go", **DONE})  # fmt: skip
    process = ws.start(prefix=prefix)
    ws.wait_runs(3)
    process.kill()
    process.wait()
    (ws.control / "go").touch()
    assert ws.run(prefix=prefix) == 0, ws.log()
    assert ws.verdicts()[-1] == "completed"
    assert [line["cause"] for line in ws.journal()][:2] == ["exit", "wall_timeout"]
    assert not ws.leftovers()


PIDS = Path("/sys/fs/cgroup/pids")


@pytest.fixture
def limited() -> Iterator[list[str]]:
    """A prefix that runs a command where it and all that it starts are 150 processes at most."""
    group = PIDS / f"csi-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup for a limit of processes: {error}")
    (group / "pids.max").write_text("150")
    yield ["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    wait_until(lambda: not (group / "cgroup.procs").read_text(), "the processes to be gone")
    group.rmdir()


# A bomb may go out by itself, when every shell of it dies of the limit: then nothing but the last
# sleep is left, and its end is waited for.
BOMBS = {
    "fork bomb": "b() { b | b & }; b; sleep 5",
    "sleepers": "for i in $(seq 400); do sleep 60 & done 2>/dev/null; sleep 5",
    "no recorder": "kill -9 $(ps -o ppid= -p $PPID); b() { b | b & }; b; sleep 5",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOMBS)
def test_at_the_limit_of_processes_the_run_ends_and_the_loop_goes_on(
    ws: Workspace, limited: list[str], kind: str
) -> None:
    ws.script({"run": BOMBS[kind], "block": {"next_goal": "x"}}, DONE)
    process = ws.start(prefix=limited)
    assert ws.ended(process, patience=100) == 0, ws.log()
    first, *_, last = ws.journal()
    # a shell that cannot fork any more may end before the limit of the run is seen
    assert first["cause"] in (("lost",) if kind == "no recorder" else ("memory", "exit"))
    assert last["verdict"] == "completed"
    assert not ws.leftovers()


def test_the_watcher_survives_a_directory_that_is_made_anew_at_the_limit(
    ws: Workspace, limited: list[str]
) -> None:
    wipe = "until rm -rf .codex-self-iter; do :; done; for i in $(seq 400); do sleep 5 & done 2>/dev/null; sleep 5"
    ws.script({"run": wipe, "block": {"next_goal": "x"}}, DONE)
    assert ws.ended(ws.start(prefix=limited), patience=100) == 0, ws.log()
    assert ws.journal()[-1]["verdict"] == "completed"
