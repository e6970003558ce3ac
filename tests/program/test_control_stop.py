"""STOP in every form and phase: files, commands, signals; and a PAUSE that gives way to it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from codex_self_iter.service.spec import data
from tests.support.control_steps import CLAIM, WORK, agents_alive, long_run, reach, wait_log
from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM

PHASES = ("running", "verifying", "backoff", "cooldown", "limited", "paused")


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_a_stop_file_ends_the_loop_in_every_phase(ws: Workspace, phase: str) -> None:
    process = reach(ws, phase)
    name = {"verifying": ".codex-stop", "cooldown": ".codex-stop"}.get(phase)
    began = time.monotonic()
    (ws.path / name if name else ws.state / "STOP").touch()
    assert ws.ended(process) == 0
    assert time.monotonic() - began < 20
    status = ws.status()
    assert status["state"] == "stopped"
    assert (name or "STOP") in status["reason"]
    assert status["exit"]["code"] == 0
    assert status["run"] is None
    assert not ws.leftovers()
    for line in ws.journal()[-1:]:  # how to go on is the end's reason, not the iteration's
        said = status["last"]["summary"], line["summary"], line["reason"], line["error"]
        assert not any(str(ws.path) in text for text in said)
    started = ws.started()
    # the file is still there: nothing starts, and the message says what to remove
    assert ws.run() == 0
    assert ws.started() == started
    assert f"{name or 'STOP'}; remove this file" in ws.log()


@pytest.mark.parametrize("phase", ["running", "verifying", "limited"])
def test_sigterm_is_the_same_event(ws: Workspace, phase: str) -> None:
    process = reach(ws, phase)
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    assert "SIGTERM" in ws.status()["reason"]
    assert not ws.leftovers()


IN_A_BACKGROUND = ("/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh")
"""What a shell does to a job that it starts with `&`."""


def ignores(pid: int, number: signal.Signals = signal.SIGINT) -> bool:
    """Whether the process has this signal ignored."""
    (line,) = re.findall(r"SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(line, 16) & 1 << (number - 1))


@pytest.mark.parametrize("prefix", [(), IN_A_BACKGROUND], ids=["foreground", "background"])
@pytest.mark.parametrize("delay", [0.2, 0.5, 0.9])
def test_a_signal_while_starting_is_not_lost(
    ws: Workspace, delay: float, prefix: tuple[str, ...]
) -> None:
    ws.script(long_run())
    process = ws.start(prefix=prefix)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    if prefix and not ws.log():  # perhaps the interpreter was not there yet to unignore it
        wait_until(lambda: process.poll() is not None or not ignores(process.pid), "our handler")
        process.send_signal(signal.SIGINT)
    code = ws.ended(process, 30)
    # Before our first line the interpreter itself ends as it can: by the signal, or with 1 in its
    # own start-up.
    unborn = not ws.state.exists() and "codex_self_iter" not in ws.log()
    assert code in ((130, -signal.SIGINT, 1) if unborn else (130, -signal.SIGINT))
    # no traceback of ours; before us the interpreter may have one
    assert "codex_self_iter/" not in ws.log()


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "wrapped"])
def test_a_sigterm_before_our_first_line_leaves_nothing(ws: Workspace, wrapped: bool) -> None:
    born = ws.root / "born"
    (ws.root / "late").mkdir()
    (ws.root / "late" / "sitecustomize.py").write_text(
        f"import time\nopen({str(born)!r}, 'w').close()\ntime.sleep(600)\n"
    )
    prefix = ("/bin/sh", data("launchd-wrapper.sh")) if wrapped else ()
    process = ws.start(prefix=prefix, environment={"PYTHONPATH": str(ws.root / "late")})
    wait_until(born.exists, "the interpreter")
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == (0 if wrapped else -signal.SIGTERM)
    assert not ws.state.exists()
    assert "Traceback" not in ws.log()


def test_own_names_for_the_stop_files_survive_a_reload_that_changes_them(ws: Workspace) -> None:
    ws.config(stop_file_name="HALT", global_stop_file_name=".halt")
    ws.script(long_run())
    process = ws.start()
    ws.wait_runs(1)
    (ws.state / "STOP").touch()
    (ws.path / ".codex-stop").touch()
    ws.config(stop_file_name="OTHER", global_stop_file_name=".other")
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "config.needs_restart" in ws.log(), "the warning")
    ws.wait_state("running")
    assert str(ws.state / "HALT") in ws.cli("stop").stdout
    assert ws.ended(process) == 0


def test_stop_after_the_iteration_lets_it_end_and_can_be_taken_back(ws: Workspace) -> None:
    ws.script(long_run(until="go"), long_run(until="go on"), WORK)
    process = ws.start()
    ws.wait_runs(1)
    assert "lets this iteration end" in ws.cli("stop", "--after-iteration").stdout
    wait_until(lambda: "stops after this iteration" in ws.status()["reason"], "status to say so")
    (ws.state / "STOP").unlink()
    wait_until(lambda: "stops after" not in ws.status()["reason"], "status to say so")
    (ws.control / "go").touch()
    ws.wait_runs(2)
    ws.cli("stop", "--after-iteration")
    wait_until(lambda: "stops after this iteration" in ws.status()["reason"], "status to say so")
    (ws.control / "go on").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["continue", "continue"]
    assert ws.started() == 2


def test_a_stop_now_overtakes_a_stop_after_the_iteration(ws: Workspace) -> None:
    ws.script(long_run())
    process = ws.start()
    ws.wait_runs(1)
    ws.cli("stop", "--after-iteration")
    wait_until(lambda: "stops after this iteration" in ws.status()["reason"], "status to say so")
    (ws.path / ".codex-stop").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["aborted"]


def test_stop_after_the_iteration_waits_for_the_gates(ws: Workspace) -> None:
    process = reach(ws, "verifying")
    ws.cli("stop", "--after-iteration")
    wait_until(lambda: "stops after this iteration" in ws.status()["reason"], "status to say so")
    (ws.control / "gate").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["completed"]


def test_a_second_sigint_skips_the_grace_of_a_deaf_agent(ws: Workspace) -> None:
    ws.config(kill_grace_sec=50)
    ws.script({"deaf": True, "sleep": 120, "spawn": ["setsid"]})
    process = ws.start()
    ws.wait_runs(1)
    process.send_signal(signal.SIGINT)
    wait_until(ws.state_is("stopping"), "stopping")
    time.sleep(1.5)
    assert process.poll() is None  # the grace is on: one signal is not enough
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert ws.ended(process) == 130
    assert time.monotonic() - began < 30
    assert not ws.leftovers()


def test_stop_before_the_first_start_and_clear_stop(ws: Workspace) -> None:
    assert ws.cli("stop", "--after-iteration").returncode == 0
    assert ws.run() == 0
    assert ws.started() == 0
    assert "STOP" in ws.status()["reason"]
    assert ws.run("--clear-stop", "--max-iterations", "1") == 0
    assert ws.started() == 1


@pytest.mark.parametrize("by", ["file", "signal"])
def test_a_stop_ends_what_the_last_supervisor_left(ws: Workspace, by: str) -> None:
    process = reach(ws, "running")
    process.kill()
    process.wait()
    if by == "file":
        ws.cli("stop")
    again = ws.start()
    if by == "signal":
        wait_until(lambda: "orphan.adopted" in ws.log(), "the run to be adopted")
        again.send_signal(signal.SIGTERM)
    assert ws.ended(again) == 0
    assert not ws.leftovers()
    assert ws.started() == 1
    assert ws.status()["state"] == "stopped"


SUDDEN = {
    "kill": "/bin/kill -{name} $pid",
    "pkill": "pkill -{name} -f '[c]odex_self_iter --workspace {workspace}'",
    "shell": 'sh -c "kill -{name} $pid"',
}


def gone_at_once(ws: Workspace, pid: object, sender: str, name: str) -> str:
    """A command that sends a signal and is no more when it is heard."""
    send = SUDDEN[sender].format(name=name, workspace=ws.path)
    return f"pid={pid}; kill -STOP $pid; {send}; sleep 0.2; kill -CONT $pid"


@pytest.mark.parametrize("sender", SUDDEN)
@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_of_a_sender_that_is_gone_while_a_run_is_on_only_the_second_counts(
    ws: Workspace, name: str, sender: str
) -> None:
    pidfile = ws.control / "pid"
    command = gone_at_once(ws, f"$(cat '{pidfile}')", sender, name)
    wait = f"until test -s '{pidfile}'; do sleep 0.05; done"
    ws.script({**WORK, "run": f"{wait}; {command}; sleep 0.3"}, long_run())
    process = ws.start()
    pidfile.write_text(str(process.pid))
    wait_until((ws.control / "prompt-2.md").exists, lambda: f"the next run:\n{ws.log()}")
    assert "signal.doubtful" in ws.log()
    text = f"SIG{name} came from a process that was gone at once"
    wait_until(lambda: text in ws.prompt(2), "the next prompt to say so")
    wait_until(lambda: text in str(ws.status().get("warnings")), "the warning")
    subprocess.run(["sh", "-c", gone_at_once(ws, process.pid, sender, name)], check=True)
    assert ws.ended(process) == (130 if name == "INT" else 0)
    assert f"SIG{name}" in ws.status()["reason"]


def test_where_no_run_is_on_a_sender_that_is_gone_is_a_person(ws: Workspace) -> None:
    process = reach(ws, "paused")
    subprocess.run(["sh", "-c", gone_at_once(ws, process.pid, "kill", "TERM")], check=True)
    assert ws.ended(process) == 0
    assert "SIGTERM" in ws.status()["reason"]


SENDERS = {
    "the shell's own": "kill -{name} $(cat '{file}')",
    "by name": "pkill -{name} -f 'codex_self_iter --workspace {workspace}'",
    "detached": "setsid sh -c \"sleep 0.1; kill -{name} $(cat '{file}'); sleep 1\" & sleep 1.5",
}


def test_a_signal_that_asks_for_nothing_ends_nothing(ws: Workspace) -> None:
    """A batch system's, a power supply's; what a terminal sends for Ctrl-\\ is a stop."""
    process = reach(ws, "running")
    assert ignores(process.pid, signal.SIGTTOU)  # a background job under `stty tostop` is not held
    for number in (signal.SIGUSR1, signal.SIGXCPU, signal.SIGALRM, signal.SIGIO, signal.SIGPROF):
        process.send_signal(number)
        wait_log(ws, number.name)
    process.send_signal(signal.SIGRTMIN + 3)
    wait_log(ws, "SIGRTMIN+3")
    process.send_signal(signal.SIGQUIT)
    assert ws.ended(process) == 0
    assert "SIGQUIT" in ws.status()["reason"]
    assert not ws.leftovers()


OFTEN = (("TERM", "by name"), ("INT", "the shell's own"), ("HUP", "detached"))
SELDOM = [
    pytest.param(name, sender, marks=pytest.mark.slow)
    for name in ("TERM", "INT", "HUP")
    for sender in SENDERS
    if (name, sender) not in OFTEN
]


@pytest.mark.parametrize(("name", "sender"), [*OFTEN, *SELDOM])
def test_a_signal_of_the_agent_is_no_persons(ws: Workspace, name: str, sender: str) -> None:
    pidfile = ws.control / "pid"
    command = SENDERS[sender].format(name=name, file=pidfile, workspace=ws.path)
    wait = f"until test -s '{pidfile}'; do sleep 0.05; done"
    ws.script({**WORK, "run": f"{wait}; {command}; sleep 0.3"}, long_run())
    process = ws.start()
    pidfile.write_text(str(process.pid))
    wait_until((ws.control / "prompt-2.md").exists, lambda: f"the next run:\n{ws.log()}")
    assert "signal.ignored" in ws.log()
    text = f"SIG{name} came from a process that a run of this loop had started"
    wait_until(lambda: text in ws.prompt(2), "the next prompt to say so")
    wait_until(lambda: f"SIG{name}" in str(ws.status().get("warnings")), "the warning")
    # a person's is heard all the same
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    assert "SIGTERM" in ws.status()["reason"]


@pytest.mark.slow
def test_a_run_whose_supervisor_was_killed_while_it_ended_it_is_no_error(ws: Workspace) -> None:
    """Adopted, asked to stop, and the supervisor killed between TERM and KILL."""
    ws.config(kill_grace_sec=3)
    ws.script(long_run(deaf=True), CLAIM)
    first = ws.start()
    ws.wait_runs(1)
    first.kill()
    first.wait()
    second = ws.start()
    wait_log(ws, "orphan.adopted")
    ws.wait_state("running")
    stop = ws.state / "STOP"
    stop.touch()
    wait_log(ws, "loop.stopping")  # written down by then
    second.kill()
    second.wait()
    wait_until(lambda: not agents_alive(ws), "the recorder to end the agent")
    stop.unlink()
    assert ws.run() == 0
    assert ws.verdicts() == ["aborted", "completed"]
    assert ws.runtime()["counters"]["agent_errors"] == 0


IN_A_THREAD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from codex_self_iter.screens import steering
from codex_self_iter.screens.loops import Target
aim = steering.aim(Target("loop", *sys.argv[1:]))
with ThreadPoolExecutor(1) as threads:
    print(threads.submit(lambda: steering.stop(aim, after_iteration=True)).result())
    print(threads.submit(lambda: steering.stop(aim)).result())
"""


def test_a_screen_ends_what_works_on_without_its_supervisor_too(ws: Workspace) -> None:
    """Both screens act in a thread; gently there is nobody who would obey."""
    process = reach(ws, "running")
    process.kill()
    process.wait()
    pid = json.loads(ws.cli("status", "--json").stdout)["orphan_pid"]
    command = [PROGRAM[0], "-c", IN_A_THREAD, str(ws.path), str(ws.state)]
    done = subprocess.run(command, env=ws.environment, capture_output=True, text=True, check=True)
    gently, now = done.stdout.splitlines()
    assert "Ended it" not in gently
    assert f"Ended it (pid {pid}), with all that it had started." in now
    assert not ws.leftovers()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["agent", "gate"])
def test_what_works_on_without_its_supervisor_is_told_and_ended_by_stop(
    ws: Workspace, what: str
) -> None:
    process = reach(ws, {"agent": "running", "gate": "verifying"}[what])
    process.kill()
    process.wait()
    seen = json.loads(ws.cli("status", "--json").stdout)
    pid = seen["orphan_pid"]
    assert psutil.pid_exists(pid)
    assert seen["state"] == ws.status()["state"] == {"agent": "running"}.get(what, "verifying")
    assert "orphan" in ws.cli("status").stdout.splitlines()[0]
    for words in (["doctor"], ["rewind", "1-before", "--yes"], ["pause"]):
        told = ws.cli(*words)
        assert f"pid {pid}" in told.stdout + told.stderr, words
    assert ws.cli("rewind", "1-before", "--yes").returncode == 75
    done = ws.cli("stop", "--wait")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"pid {pid}" in done.stdout
    assert not ws.leftovers()
    assert json.loads(ws.cli("status", "--json").stdout)["orphan_pid"] is None
    assert "still at work" not in ws.cli("doctor").stdout
    ws.cli("resume")
    (ws.control / "gate").touch()
    ws.script(CLAIM)
    assert ws.run("--clear-stop") == 0
    aborted = ["aborted"] if what == "agent" else []  # the agent has not failed
    assert ws.verdicts() == [*aborted, "completed"]
