"""docs/operations.md, tried from outside: watching, messages, moving, and what happens when…"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.program.test_durability_clocks import LIBRARY, fake
from tests.support.control_steps import (
    CLAIM,
    FAILS,
    PLANNED,
    WORK,
    long_run,
    notify,
    reach,
    told,
    wait_log,
)
from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "core" / "persisted" / "snapshots.jsonl"
COMMIT = '[git]\ncommit = "supervisor"\n'
CAN_UNSHARE = os.geteuid() == 0 and shutil.which("unshare") is not None
needs_unshare = pytest.mark.skipif(not CAN_UNSHARE, reason="NOT TESTED HERE: needs root, unshare")


def shown(ws: Workspace) -> dict[str, Any]:
    """`status --json`."""
    found: dict[str, Any] = json.loads(ws.cli("status", "--json").stdout)
    return found


# -- an end, and the next start --------------------------------------------------------------------


@pytest.mark.parametrize("end", ["completed", "stagnated", "blocked"])
def test_a_start_after_an_end_begins_another_iteration(ws: Workspace, end: str) -> None:
    steps = {"completed": CLAIM, "stagnated": {"block": {"next_goal": "x"}}, "blocked": FAILS}
    ws.config(max_stagnation=1, max_consecutive_errors=1)
    ws.script(steps[end])
    code = ws.run()
    assert ws.status()["state"] == end
    runs = ws.started()
    assert ws.run() == code
    assert ws.started() > runs
    # …unless a STOP is there: each start ends at once, with 0 and without an agent
    assert ws.cli("stop").returncode == 0
    runs = ws.started()
    assert [ws.run(), ws.run()] == [0, 0]
    assert ws.started() == runs
    (ws.state / "STOP").unlink()
    assert ws.run() == code
    assert ws.started() > runs


# -- watching --------------------------------------------------------------------------------------


def alarm(status: dict[str, Any]) -> bool:
    """What the documentation recommends for monitoring."""
    over = status["state"] in ("completed", "stopped")
    return (not status["alive"] and not over) or (status["stale_sec"] or 0) > 60


@pytest.mark.parametrize("how", ["completed", "stopped", "stagnated", "blocked", "killed"])
def test_monitoring_as_recommended_tells_good_ends_from_bad(ws: Workspace, how: str) -> None:
    ws.config(max_stagnation=1, max_consecutive_errors=1)
    steps = {"completed": CLAIM, "stagnated": {"block": {"next_goal": "x"}}, "blocked": FAILS}
    ws.script(steps.get(how, long_run()))
    process = ws.start()
    if how in ("killed", "stopped"):
        ws.wait_runs(1)
        assert not alarm(shown(ws))
        process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGTERM)
    ws.ended(process)
    status = shown(ws)
    # an end that is written down is none that went stale: its heartbeat is as old as it
    assert alarm(status) is (how not in ("completed", "stopped"))
    for pid in [pid for word, pid, _ in ws.runs() if word == "start"] if how == "killed" else []:
        os.kill(pid, signal.SIGKILL)


def test_the_list_of_loops_is_a_convenience(ws: Workspace) -> None:
    process = reach(ws, "running", CLAIM)
    everywhere = [*PROGRAM, "status"]

    def table() -> str:
        done = subprocess.run(
            everywhere, cwd="/", env=ws.environment, capture_output=True, text=True
        )
        return done.stdout

    place = ws.home / "state" / "codex-self-iter" / "loops"
    assert len(list(place.iterdir())) == 1
    assert "work space" in table()
    shutil.rmtree(place)
    assert "work space" not in table()
    assert shown(ws)["alive"] is True
    assert ws.cli("logs").returncode == 0
    assert ws.cli("steer", "--now", "go on").returncode == 0
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["aborted", "completed"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_words_are_completed_in_each_shell_as_it_is_said(ws: Workspace, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"NOT TESTED HERE: there is no {shell}")
    environment = ws.with_command()
    load = f'eval "$(codex-self-iter complete --script {shell})"'
    script = {
        "bash": f"{load}; COMP_WORDS=(codex-self-iter ste); COMP_CWORD=1; COMP_LINE='x ste'; "
        "$(complete -p codex-self-iter | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo ${COMPREPLY[@]}",
        "zsh": f"autoload -U compinit; compinit -u -D; {load}; "
        "_describe() { print -l -- ${(P)${@: -1}} $@ }; compadd() { print -r -- ${(P)${@: -1}} $@ }; "
        "words=(codex-self-iter ste); CURRENT=2; ${_comps[codex-self-iter]}",
        "fish": "codex-self-iter complete --script fish | source; complete -C 'codex-self-iter ste'",
    }[shell]
    flags = ["-f"] if shell == "zsh" else []
    done = subprocess.run(
        [shell, *flags, "-c", script],
        env=environment, cwd=ws.path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "steer" in done.stdout, done.stderr


# -- messages --------------------------------------------------------------------------------------

BIG = "y" * 40_000


def test_what_lies_in_the_inbox_is_a_message_or_is_not_as_it_is_said(ws: Workspace) -> None:
    inbox = ws.state / "inbox"
    inbox.mkdir(parents=True)
    (inbox / "1 plain").write_text("the plain one")
    (inbox / "2.bin").write_bytes("the wide one: Grüße".encode("utf-16"))
    (inbox / "3 big.txt").write_text(f"BEGIN{BIG}END")
    (inbox / "4.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xfe" + bytes(range(256)))
    nothing = ("note~", "#note#", "note.swp", ".hidden.md")
    for name in nothing:
        (inbox / name).write_text(f"never {name}")
    assert ws.cli("steer", "-", "x").returncode in (0, 2)
    long = ws.root / "long.md"
    long.write_text(f"OPEN{'z' * 200_000}CLOSE")
    assert ws.cli("steer", "-f", str(long)).returncode == 0
    ws.script(CLAIM)
    time.sleep(0.6)  # it has to stand still for half a second
    assert ws.run() == 0
    prompt = ws.prompt(1)
    for words in ("the plain one", "the wide one: Grüße", "BEGINyyy"):
        assert words in prompt
    assert "yyyEND" not in prompt
    assert 32_000 < prompt.count("y") < 33_000
    assert f"{inbox}/done/" in prompt  # the path of the rest
    assert "OPENzzz" in prompt
    assert "zzzCLOSE" in prompt
    assert "never" not in prompt
    assert {*nothing} <= {path.name for path in inbox.iterdir()}
    assert [path.name for path in (ws.state / "quarantine").iterdir() if "4.png" in path.name]
    assert "4.png" in " ".join(ws.status()["warnings"])


def test_a_file_that_is_written_on_after_it_was_taken_comes_again_whole(ws: Workspace) -> None:
    ws.script(long_run("go"), CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    note = ws.state / "inbox" / "note.md"
    note.write_text("first half\n")
    held = note.open("a")  # as an editor or a shell that goes on with it
    (ws.control / "go").touch()
    ws.wait_runs(2)
    held.close()
    assert ws.ended(process) == 0
    assert "first half" in ws.prompt(2)
    ws.script(long_run("go on"), CLAIM)
    (ws.control / "counter").unlink()
    (ws.control / "go on").unlink(missing_ok=True)
    note.write_text("one\n")
    time.sleep(0.6)
    with note.open("a") as writer:
        process = ws.start()
        wait_until(lambda: not note.exists(), "the message to be taken")
        writer.write("two\n")
        writer.flush()
        time.sleep(0.6)  # what has just been written may not be whole: it is left to settle
        wait_log(ws, "inbox.message")
        (ws.control / "go on").touch()
        assert ws.ended(process) == 0
    assert "one\ntwo" in ws.prompt(2)


# -- upgrade, backup, another machine --------------------------------------------------------------


def test_state_of_an_older_version_is_read_and_carried_on(ws: Workspace) -> None:
    old = [json.loads(line) for line in KEPT.read_text().splitlines()]
    fitting = [
        one for one in old if not one.get("open") and one.get("goal") and not one.get("wait")
    ]
    snapshot = fitting[0]
    ws.state.mkdir(mode=0o700)
    (ws.state / "runtime.json").write_text(json.dumps(snapshot))
    ws.script(CLAIM)
    assert ws.run() == 0, ws.log()
    assert ws.journal()[0]["iteration"] == snapshot["iteration"] + 1
    assert ws.journal()[0]["goal_in"] == snapshot["goal"]
    assert snapshot["goal"] in ws.prompt(1)
    assert not (ws.state / "quarantine").exists() or not list((ws.state / "quarantine").iterdir())


def test_a_loop_moves_to_another_machine_in_an_archive(ws: Workspace, tmp_path: Path) -> None:
    ws.config(backoff_base_sec=2, backoff_max_sec=2)
    ws.script({**WORK, "block": {"next_goal": "keep this"}}, FAILS, CLAIM)
    process = ws.start()
    ws.wait_state("backoff")
    assert ws.cli("stop", "--wait").returncode == 0
    assert ws.ended(process) == 0
    archive, there = tmp_path / "shop.tar.gz", tmp_path / "other machine"
    there.mkdir()
    pack = ["tar", "-C", str(ws.root), "-czf", str(archive), ws.path.name]
    subprocess.run(pack, check=True, timeout=60)
    subprocess.run(["tar", "-C", str(there), "-xzf", str(archive)], check=True, timeout=60)
    shutil.rmtree(ws.path)
    moved = Workspace(there, ws.path.name)  # the fixture commits; what was brought stays
    moved.control.rmdir()
    ws.control.rename(moved.control)
    template = (moved.path / "codex-self-iter.toml").read_text()
    (moved.path / "codex-self-iter.toml").write_text(
        template.replace(str(ws.control), str(moved.control))
    )
    try:
        assert moved.run() == 0  # the STOP came along
        assert moved.started() == 2
        assert moved.cli("doctor").returncode != 0  # it says so, too
        (moved.state / "STOP").unlink()
        doctor = moved.cli("doctor")
        assert doctor.returncode == 0, doctor.stdout
        assert moved.run() == 0
        lines = moved.journal()
        assert [line["iteration"] for line in lines] == [1, 2, 3]
        assert lines[2]["goal_in"] == "keep this"
        assert moved.status()["workspace"] == str(moved.path)
        assert not ws.path.exists()
    finally:
        moved.close()


def test_a_copy_of_the_state_is_usable_at_any_moment(ws: Workspace, tmp_path: Path) -> None:
    ws.script({**WORK, "number": True})
    process = ws.start()
    copies = []
    for number in range(2):
        ws.wait_runs(2 * number + 3)
        copies.append(tmp_path / f"copy {number}")
        # a copy that is not even taken in one moment
        copy = ["cp", "-a", str(ws.state), str(copies[-1])]
        subprocess.run(copy, check=False, timeout=60, capture_output=True)
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    ws.script(CLAIM)
    for copy_of_state in copies:
        shutil.rmtree(ws.state)
        shutil.copytree(copy_of_state, ws.state)
        assert ws.run() == 0, ws.log()
        numbers = [line["iteration"] for line in ws.journal()]
        assert numbers == sorted(set(numbers))
        assert ws.journal()[-1]["verdict"] == "completed"
        assert ws.journal()[-1]["goal_in"].startswith("goal ")


def test_a_clone_moves_the_work_and_a_push_the_checkpoints(ws: Workspace, tmp_path: Path) -> None:
    ws.config(COMMIT)
    ws.script({"write": {"a.txt": "1"}, "block": {"summary": "A", "completed": True}})
    assert ws.run() == 0
    clone = tmp_path / "clone"
    ws.git("clone", "-q", str(ws.path), str(clone))
    assert (clone / "a.txt").read_text() == "1"
    assert not (clone / ".codex-self-iter").exists()
    assert ws.git("-C", str(clone), "for-each-ref", "refs/codex-self-iter") == ""
    ws.git("init", "-q", "--bare", str(tmp_path / "bare.git"))
    ws.git("push", "-q", str(tmp_path / "bare.git"), "refs/codex-self-iter/*")
    refs = ws.git("-C", str(tmp_path / "bare.git"), "for-each-ref", "--format=%(refname)")
    assert any(ref.endswith("/000001") for ref in refs.split())


# -- what happens when… ----------------------------------------------------------------------------


@pytest.mark.root
@needs_unshare
def test_after_a_reboot_what_was_recorded_is_known_to_be_gone(ws: Workspace) -> None:
    """Another boot id, and a stranger who has the agent's number now."""
    ws.script({**WORK, "block": {"next_goal": "keep this"}}, long_run(), CLAIM)
    process = ws.start()
    ws.wait_runs(2)
    agent = [pid for word, pid, _ in ws.runs() if word == "start"][1]
    wait_until(lambda: (ws.status()["run"] or {}).get("pid") == agent, "the second run")
    process.kill()
    process.wait()
    recorder = json.loads((ws.state / "status.json").read_text())["run"]["recorder_pid"]
    for pid in (recorder, agent):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not ws.leftovers(), "what a reboot ends to be gone")
    with subprocess.Popen(["sleep", "600"]) as stranger:
        for path in [ws.state / "runtime.json", *ws.state.glob("logs/runs/*/identity.json")]:
            text = path.read_text()
            for pid in (recorder, agent):
                text = text.replace(str(pid), str(stranger.pid))
            path.write_text(text)
        boot = ws.root / "boot_id"
        boot.write_text("00000000-1111-2222-3333-444444444444\n")
        bind = f"mount --bind '{boot}' /proc/sys/kernel/random/boot_id && exec \"$@\""
        assert ws.run(prefix=("unshare", "-m", "sh", "-c", bind, "sh")) == 0, ws.log()
        assert stranger.poll() is None
        stranger.kill()
    assert ws.verdicts() == ["continue", "interrupted", "completed"]
    assert [line["goal_in"] for line in ws.journal()] == ["", "keep this", "keep this"]
    assert ws.journal()[1]["wait"]["kind"] == "error"  # a backoff comes first
    assert ws.status()["boot_id"].startswith("00000000-1111")


def test_only_a_run_that_does_nothing_at_all_is_idle(ws: Workspace) -> None:
    ws.config(idle_timeout_sec=3, backoff_base_sec=0.05)
    busy = "i=0; end=$(($(date +%s)+7)); while [ $(date +%s) -lt $end ]; do i=$((i+1)); done"
    writes = "for n in 1 2 3 4 5 6 7; do date +%N >> busy.txt; sleep 1; done"
    prints = "for n in 1 2 3 4 5 6 7; do echo $n; sleep 1; done"
    steps = [{**WORK, "run": does} for does in (busy, writes, prints)]
    ws.script(*steps, {**WORK, "run": "sleep 600"}, CLAIM)
    assert ws.run() == 0, ws.log()
    assert ws.verdicts() == [*["continue"] * 3, "timed_out", "completed"]
    assert ws.journal()[3]["cause"] == "idle_timeout"
    assert "no output, CPU use or file change for idle_timeout_sec" in ws.prompt(5)


def test_a_supervisor_that_is_stopped_is_said_not_to_respond_and_goes_on(ws: Workspace) -> None:
    process = reach(ws, "running", CLAIM)
    process.send_signal(signal.SIGSTOP)
    try:
        first = ws.cli("status").stdout.splitlines()[0]
        assert "not responding" not in first  # not yet
        wait_until(lambda: "not responding" in ws.cli("status").stdout, "status to say so")
        assert shown(ws)["stale_sec"] > 20
        assert "kill" in ws.cli("status").stdout
    finally:
        process.send_signal(signal.SIGCONT)
    ws.cli("steer", "--now", "go on")
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["aborted", "completed"]


def test_what_takes_more_memory_than_it_may_is_ended_alone(ws: Workspace) -> None:
    ws.config(memory_limit_mb=150, backoff_base_sec=0.05)
    eats = 'exec python3 -S -c "import time; x = bytearray(400 << 20); time.sleep(600)"'
    ws.script({**WORK, "run": eats}, CLAIM)
    assert ws.run() == 0, ws.log()
    first = ws.journal()[0]
    assert (first["cause"], first["failure_class"]) == ("memory", "memory")
    assert "memory" in ws.prompt(2)
    assert not ws.leftovers()


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("index.lock", "nothing is committed"),
        ("refs/heads/main.lock", "nothing is committed"),
        ("config.lock", "git changes no setting"),
        ("packed-refs.lock", "git deletes no reference"),
    ],
)
def test_an_older_lock_of_git_is_named_with_what_it_holds_up(
    ws: Workspace, lock: str, said: str
) -> None:
    ws.config(COMMIT)
    path = ws.path / ".git" / lock
    path.touch()
    ws.script({"write": {"a.txt": "a"}, "block": {"completed": True}})
    assert ws.run() == 0
    (warning, *_) = ws.status()["warnings"]
    assert f"{path} was there before the iteration" in warning
    assert said in warning
    committed = "a.txt" in ws.git("log", "--format=", "--name-only")
    assert committed is ("nothing" not in said)
    assert path.exists()


def reach_again(ws: Workspace) -> subprocess.Popen[bytes]:
    """A supervisor whose run lasts."""
    ws.script(long_run())
    runs = ws.started()
    process = ws.start()
    ws.wait_runs(runs + 1)
    return process


def test_logs_and_runs_are_bounded(ws: Workspace) -> None:
    ws.config("[output]\nkeep_runs = 3\nlog_max_mb = 0.01\nlog_files = 2\n", max_iterations=12)
    ws.script({**WORK, "say": "x" * 2000, "number": True})
    assert ws.run("--debug") == 0
    runs = ws.state / "logs" / "runs"
    process = reach_again(ws)
    wait_until(lambda: len(list(runs.iterdir())) <= 4, "the old ones to be removed")
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    logs = list((ws.state / "logs").glob("supervisor.log*"))
    assert len(logs) <= 3
    assert max(path.stat().st_size for path in logs) < 40_000
    assert len(ws.journal()) == 13  # what was done is kept


def test_a_deleted_workspace_among_others_ends_that_loop_alone(tmp_path: Path) -> None:
    pair = [Workspace(tmp_path, name) for name in ("one", "two")]
    try:
        for ws in pair:
            ws.config()
            ws.script(long_run("go", block={"completed": True}))
        shutil.rmtree(pair[1].path / ".git")
        one, two = pair
        process = one.start("--workspace", str(two.path), "--pool-max-agents", "2")
        for ws in pair:
            ws.wait_runs(1)
        two.path.rename(tmp_path / "away")
        wait_until(lambda: not _gone(tmp_path / "away"), "it to be deleted")
        wait_until(lambda: f"the workspace {two.path} is gone" in one.log(), "the end of it")
        assert one.status()["state"] == "running"
        (one.control / "go").touch()
        assert one.ended(process) == 4
        assert one.verdicts() == ["completed"]
        assert not two.path.exists()
    finally:
        for ws in pair:
            ws.close()


def _gone(path: Path) -> bool:
    shutil.rmtree(path, ignore_errors=True)
    return path.exists()


def test_a_file_that_a_person_edits_after_the_loop_is_theirs(ws: Workspace) -> None:
    ws.config(COMMIT)
    ws.script({"write": {"a.txt": "half"}, "sleep": 60}, {"write": {"b.txt": "b"}, **CLAIM})
    process = ws.start()
    wait_until((ws.path / "a.txt").exists, "the file")
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    (ws.path / "a.txt").write_text("a person's")
    assert ws.run() == 0
    assert "a.txt" not in ws.git("log", "--format=", "--name-only")
    assert "not committed (a.txt)" in ws.cli("status").stdout


# -- the boundary ----------------------------------------------------------------------------------

SERVICE = {
    "NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1",
    "LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x", "INVOCATION_ID": "0" * 32,
    "JOURNAL_STREAM": "9:1", "MANAGERPID": "1", "CREDENTIALS_DIRECTORY": "/nowhere",
}  # fmt: skip
SEEN = "env | sort > '{}'"


def read_env(path: Path) -> dict[str, str]:
    lines = path.read_text(errors="replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_neither_agent_nor_gate_gets_what_is_the_service_managers(ws: Workspace) -> None:
    seen, gate = ws.control / "agent env", ws.control / "gate env"
    ws.config(f"[verify]\ncommands = [{json.dumps(SEEN.format(gate))}]\n")
    ws.script({**CLAIM, "run": SEEN.format(seen)})
    ws.environment |= {"ACME_API_KEY": "k" * 20}
    given = {**SERVICE, "CODEX_SELF_ITER_HISTORY_TAIL": "3", "GIT_SSH_COMMAND": "ssh -v"}
    assert ws.run(environment=given) == 0
    for path in (seen, gate):
        found = read_env(path)
        assert not SERVICE.keys() & found.keys()
        assert "CODEX_SELF_ITER_HISTORY_TAIL" not in found
        assert found["GIT_SSH_COMMAND"] == "ssh -v"
    # the template's program alone gets keys unasked, and a gate none
    assert "ACME_API_KEY" in read_env(seen)
    assert "ACME_API_KEY" not in read_env(gate)


def test_words_of_a_run_that_is_on_are_private(ws: Workspace) -> None:
    key = "Zk9vQ2hhbmdlTWVOb3cxMjM0NTY3ODkw"
    ws.plan(f"- [ ] use {key}\n")
    ws.script(long_run("go", block={"completed": True}))
    process = ws.start(environment={"ACME_API_KEY": key})
    ws.wait_runs(1)
    ws.wait_state("running")
    with_key = [p for p in ws.state.rglob("*") if p.is_file() and key.encode() in p.read_bytes()]
    assert {p.parent.name for p in with_key} <= {"prompts", ".codex-self-iter", "000001-executor"}
    assert with_key
    assert {p.stat().st_mode & 0o777 for p in with_key} == {0o600}
    (ws.control / "go").touch()
    assert ws.ended(process) == 0


def test_keys_stay_out_of_commits_checkpoints_and_notifications(ws: Workspace) -> None:
    key = "Zk9vQ2hhbmdlTWVOb3cxMjM0NTY3ODkw"
    printed = "sk-ant-" + "api03-Qw7eRt9yUi2oPa4sDf6gHj8kLz0xCv1b"
    ws.config(COMMIT + notify(ws))
    block = {"summary": f"use {key} and {printed}", "reason": f"{key} {printed}", "stop": True}
    ws.script({"write": {"a.txt": "1"}, "block": block})
    ws.run(environment={"ACME_API_KEY": key})
    kept = ws.git("log", "--all", "--format=%B%n%N") + str(told(ws))
    kept += ws.git("for-each-ref", "--format=%(contents)")
    assert "[redacted]" in str(told(ws))
    assert "use [redacted]" in ws.git("log", "-1", "--format=%B", "main")
    assert key not in kept
    assert printed not in kept


# -- more of what happens when… --------------------------------------------------------------------


def events(ws: Workspace) -> list[str]:
    return [one["event"] for one in told(ws)]


def test_an_agent_that_stops_is_told_and_stands_in_the_last_verdict(ws: Workspace) -> None:
    ws.config(notify(ws))
    ws.script({**WORK, "block": {"stop": True, "reason": "buy a key"}})
    assert ws.run() == 0
    assert (ws.status()["state"], ws.status()["last"]["verdict"]) == ("stopped", "stop")
    assert "agent_stopped" in events(ws)


def test_a_stagnated_loops_report_says_what_repeated(ws: Workspace) -> None:
    ws.config(max_stagnation=1)
    ws.script({**WORK, "block": {"next_goal": "paint the wall"}})
    assert ws.run() == 3
    prompts = [ws.prompt(number) for number in range(1, ws.started() + 1)]
    assert sum("going in circles" in prompt for prompt in prompts) == 1
    report = (ws.state / "report.md").read_text()
    assert ws.status()["reason"].partition(":")[0] in report
    assert "paint the wall" in report


REVIEW = {"continue": False, "confidence": 1, "next_focus": "", "reason": "r"}


@pytest.mark.parametrize("who", ["planner", pytest.param("reviewer", marks=pytest.mark.slow)])
def test_who_sees_nothing_to_do_is_asked_less_often_and_told(ws: Workspace, who: str) -> None:
    waits = {"planner_stop_backoff_sec": 0.2, "continue_false_backoff_sec": 0.2}
    ws.config(notify(ws), mode="roles", max_iterations=6, **waits)
    planner = {"raw": json.dumps({**PLANNED, "stop": who == "planner"})}
    three = [planner, {"block": {"next_goal": "x"}}, {"raw": json.dumps(REVIEW)}]
    ws.script(*(three * 6 if who == "reviewer" else [planner]))
    assert ws.run(patience=110) == 0, ws.log()
    lengths = [line["wait"]["length"] / 0.2 for line in ws.journal()[:5]]
    # each in turn twice as long, up to eight times, with up to a tenth of jitter
    assert [int(length) if length < 8 else 8 for length in lengths] == [1, 2, 4, 8, 8]
    assert events(ws).count("cooldown") == 1


@pytest.mark.parametrize("why", ["no room", "no plan"])
def test_what_holds_a_loop_for_long_is_told(ws: Workspace, why: str) -> None:
    """Ten minutes, shortened here."""
    site = ws.root / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'codex_self_iter' in sys.orig_argv:\n"
        "    from codex_self_iter.supervisor import conditions\n"
        "    assert conditions.HELD_SEC == 600\n"
        "    conditions.HELD_SEC = 0.5\n"
    )
    ws.environment["PYTHONPATH"] = str(site)
    slow = {"no_change_backoff_sec": 0.1}
    ws.config(notify(ws), **({"min_free_disk_mb": 10**9} if why == "no room" else slow))
    ws.script({"sleep": 120, "until": "go", "block": {"next_goal": "x"}})
    process = ws.start()
    if why == "no plan":
        ws.wait_runs(1)
        assert ws.cli("pause").returncode == 0
        (ws.control / "go").touch()
        ws.wait_state("paused")
        (ws.path / "plan.md").unlink()
        assert ws.cli("resume").returncode == 0
    wait_until(lambda: "blocked" in events(ws), "the notification")
    assert "held for" in str(told(ws))
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    assert ws.started() == (why == "no plan")


@pytest.mark.skipif(not LIBRARY, reason="NOT TESTED HERE: wrong clocks need Debian's faketime")
def test_old_checkpoints_go_by_their_age(ws: Workspace) -> None:
    ws.config("[git]\ncheckpoint_keep_days = 30\ncheckpoint_keep = 10\n")
    ws.script({**WORK, "block": {"next_goal": "x"}}, CLAIM)
    refs = ("for-each-ref", "--format=%(refname:lstrip=-1)", "refs/codex-self-iter")
    assert ws.run("--max-iterations", "1", environment=fake("-60d"), patience=300) == 0
    assert "000001" in ws.git(*refs).split()
    assert ws.run() == 0
    assert "000002" in ws.git(*refs).split()
    assert "000001" not in ws.git(*refs).split()


def test_an_upgrade_while_an_agent_works_keeps_the_goal(ws: Workspace, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    make = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
    subprocess.run(make, check=True, timeout=100)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT], check=True, timeout=400, cwd=tmp_path
    )
    (wheel,) = tmp_path.glob("*.whl")
    (place,) = environment.glob("lib/python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (place / "others.pth").write_text("\n".join(here) + "\n")  # what it depends on is not at stake
    install = [
        *pip,
        "--python",
        python,
        "install",
        "--force-reinstall",
        "--no-deps",
        "--no-index",
        wheel,
    ]
    subprocess.run(install, check=True, timeout=100, cwd=tmp_path)
    program = [str(environment / "bin" / "codex-self-iter")]
    ws.script({**WORK, "block": {"next_goal": "keep this"}}, long_run(), CLAIM)
    log = (ws.root / "supervisor-1.log").open("ab")
    with log:
        start = [*program, "run", "--workspace", str(ws.path)]
        running = {"env": ws.environment, "cwd": ws.root, "stdout": log, "stderr": log}
        process = subprocess.Popen(start, **running)  # type: ignore[call-overload]
        ws.supervisors.append(process)
        ws.wait_runs(2)
        subprocess.run(install, check=True, timeout=100, cwd=tmp_path)
        check = [*program, "config", "check", "--workspace", str(ws.path)]
        assert subprocess.run(check, env=ws.environment, cwd=ws.root, timeout=60).returncode == 0
        assert ws.status()["state"] == "running"
        process.send_signal(signal.SIGTERM)
        assert ws.ended(process) == 0
        assert not ws.leftovers()
        process = subprocess.Popen(start, **running)  # type: ignore[call-overload]
        ws.supervisors.append(process)
        assert ws.ended(process) == 0
    assert ws.verdicts() == ["continue", "aborted", "completed"]
    assert [line["goal_in"] for line in ws.journal()] == ["", "keep this", "keep this"]


def test_what_is_started_hears_the_signals_that_end_nothing_here(ws: Workspace) -> None:
    """Blocked signals are inherited: `timeout` and `alarm` of an agent's tools would fail."""
    look = f"grep -h SigBlk /proc/self/status >> '{ws.control}/blocked'"
    hook = ws.path / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{look}\n")
    hook.chmod(0o755)
    command = json.dumps(["sh", "-c", look])
    gates = f"[verify]\ncommands = [{json.dumps(look)}]\n"
    ws.config(f"{COMMIT}{gates}[notify]\ncommand = {command}\n")
    ws.script({**CLAIM, "run": look})
    assert ws.run() == 0, ws.log()
    lines = (ws.control / "blocked").read_text().splitlines()
    assert len(lines) >= 4  # agent, gate, hook, notification
    assert {int(line.split()[1], 16) for line in lines} == {0}
