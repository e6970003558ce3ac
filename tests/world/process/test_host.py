"""The process host: starting, ending, adopting, and what it does when the world misbehaves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from codex_self_iter.core.runs import EndCause, RunLimits, RunSpec
from codex_self_iter.errors import StorageError
from codex_self_iter.world.process import proctable, spawner, traces, watched
from codex_self_iter.world.process.host import MARKER, Host, Run
from tests.support.hosting import (
    escape_script,
    eventually,
    make_spec,
    new_tag,
    start_supervisor,
    stdout_of,
    tagged,
)

pytestmark = pytest.mark.anyio

HANG = "while :; do sleep 0.1; done"


async def until(condition: object, limit_sec: float = 20.0) -> None:
    assert await anyio.to_thread.run_sync(eventually, condition, limit_sec)


async def start_shell(host: Host, root: Path, script: str, **fields: object) -> tuple[Run, RunSpec]:
    """Start a shell script and wait until it printed something."""
    spec = make_spec(root, "bash", "-c", script, **fields)  # type: ignore[arg-type]
    run = await host.start(spec)
    await until(lambda: stdout_of(spec))
    return run, spec


# --- what a run gets ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code", "number"), [("exit 3", 3, None), ("kill -SEGV $$", None, signal.SIGSEGV)]
)
async def test_the_end_is_reported_as_it_was(
    tmp_path: Path, script: str, code: int, number: int
) -> None:
    async with Host() as host:
        run = await host.start(make_spec(tmp_path, "bash", "-c", script))
        outcome = await run.wait()
    assert (outcome.cause, outcome.exit_code, outcome.signal) == (EndCause.EXIT, code, number)
    assert outcome.duration_sec > 0
    assert outcome.started_at == run.identity.started_at


async def test_stdin_is_the_prompt_file_or_nothing(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt"
    prompt.write_text("do it")
    async with Host() as host:
        given = make_spec(tmp_path, "cat", stdin_path=str(prompt))
        empty = make_spec(tmp_path, "cat")
        for spec in (given, empty):
            assert (await (await host.start(spec)).wait()).ok
    assert stdout_of(given) == "do it"
    assert stdout_of(empty) == ""


async def test_environment_is_what_was_asked_for_with_marker_and_without_service_variables(
    tmp_path: Path,
) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "KEPT": "a b\n'$c",
        "NOTIFY_SOCKET": "/x",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": "3",
        "CODEX_SELF_ITER_OF_THE_PERSON": "for this agent",
    }
    async with Host() as host:
        spec = make_spec(tmp_path, "env", "-0", env=env)
        await (await host.start(spec)).wait()
    seen = dict(entry.split("=", 1) for entry in stdout_of(spec).split("\0") if entry)
    assert seen.pop(proctable.PLACE_MARKER) == os.path.realpath(spec.cwd)
    theirs = {"CODEX_SELF_ITER_OF_THE_PERSON": "for this agent"}
    assert seen == {"PATH": os.environ["PATH"], "KEPT": "a b\n'$c", MARKER: spec.run_id, **theirs}


async def test_a_run_inherits_the_run_lock_and_no_other_descriptor(tmp_path: Path) -> None:
    script = """import os
for fd in range(3, 256):
  try: print(os.readlink(f'/proc/self/fd/{fd}'))
  except OSError: pass"""
    async with Host() as host:
        spec = make_spec(tmp_path, sys.executable, "-I", "-S", "-c", script)
        assert (await (await host.start(spec)).wait()).ok
    assert stdout_of(spec).split() == [spec.run_lock_path]


async def test_a_run_has_its_own_session_default_signals_and_no_blocked_ones(
    tmp_path: Path,
) -> None:
    script = "ps -o sid=,pid= -p $$; exec grep -E '^Sig(Blk|Ign)' /proc/self/status"
    quit_before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # as a background job of a shell
    try:
        async with Host() as host:
            spec = make_spec(tmp_path, "sh", "-c", script)
            await (await host.start(spec)).wait()
    finally:
        signal.signal(signal.SIGQUIT, quit_before)
    session, pid, _, blocked, _, ignored = stdout_of(spec).split()
    assert session == pid
    assert int(blocked, 16) == int(ignored, 16) == 0


async def test_arguments_beyond_a_socket_buffer_and_undecodable_bytes_arrive(
    tmp_path: Path,
) -> None:
    words = ["x" * 100_000] * 12 + [os.fsdecode(b"caf\xe9"), "", "a b\n"]
    async with Host() as host:
        spec = make_spec(tmp_path, "sh", "-c", 'printf "%s\\0" "$@" | md5sum', "sh", *words)
        await (await host.start(spec)).wait()
    expected = hashlib.md5(b"".join(os.fsencode(word) + b"\0" for word in words)).hexdigest()
    assert stdout_of(spec).split()[0] == expected


async def test_every_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with Host() as host:
            spec = make_spec(tmp_path, "sh", "-c", "sleep 9 & umask")
            await (await host.start(spec)).wait()
    finally:
        os.umask(before)
    assert stdout_of(spec) == "0000\n"  # the agent's own umask is the person's, not ours
    files = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in Path(spec.directory).iterdir()
    }
    assert files == dict.fromkeys(["stdout.log", "stderr.log", "identity.json", "exit.json"], 0o600)
    assert stat.S_IMODE(os.stat(spec.run_lock_path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(spec.directory).st_mode) == 0o700


# --- what cannot be started -----------------------------------------------------------------------


async def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    plain = tmp_path / "not-executable"
    plain.write_text("text")
    unmarked = tmp_path / "unmarked"
    unmarked.write_text("echo no first line\n")
    unmarked.chmod(0o755)
    cases = {
        "missing": (
            make_spec(tmp_path, "no-such-program-anywhere"),
            True,
            "no-such-program-anywhere",
        ),
        "not executable": (make_spec(tmp_path, str(plain)), True, "not-executable"),
        "no format": (make_spec(tmp_path, str(unmarked)), True, "begin it with #!/bin/sh"),
        "no directory": (make_spec(tmp_path, "true", cwd=str(tmp_path / "gone")), False, "gone"),
        "too long": (make_spec(tmp_path, "true", "x" * 3_000_000), False, "too long"),
        "NUL": (make_spec(tmp_path, "true", "a\0b"), False, "null byte"),
    }
    async with Host() as host:
        for name, (spec, missing, words) in cases.items():
            outcome = await (await host.start(spec)).wait()
            assert outcome.cause is EndCause.SPAWN_FAILED, name
            assert outcome.argv0_missing is missing, name
            assert words in outcome.error, (name, outcome.error)
            assert not traces.lock_is_held(spec.run_lock_path), name


async def test_a_held_run_lock_refuses_a_second_agent(tmp_path: Path) -> None:
    async with Host() as host:
        first, spec = await start_shell(host, tmp_path, f"echo up; {HANG}")
        second = await host.start(
            dataclasses.replace(spec, run_id="second", directory=str(tmp_path / "second"))
        )
        outcome = await second.wait()
        assert outcome.cause is EndCause.SPAWN_FAILED
        assert str(first.identity.agent_pid) in outcome.error
        await first.end()
        third = await host.start(
            dataclasses.replace(spec, run_id="third", directory=str(tmp_path / "third"))
        )
        await third.end()


async def test_an_impossible_run_directory_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    async with Host() as host:
        with pytest.raises(StorageError, match="runs"):
            await host.start(make_spec(tmp_path, "true"))


# --- ending ---------------------------------------------------------------------------------------


async def test_a_clean_answer_after_our_signal_is_still_our_end(tmp_path: Path) -> None:
    async with Host() as host:
        run, _ = await start_shell(
            host, tmp_path, f"trap 'echo done; exit 0' TERM; echo up; {HANG}"
        )
        outcome = await run.end(EndCause.IDLE_TIMEOUT)
    assert (outcome.cause, outcome.exit_code) == (EndCause.IDLE_TIMEOUT, 0)
    assert not outcome.ok


async def test_a_shorter_grace_shortens_a_ladder_that_has_begun(tmp_path: Path) -> None:
    limits = RunLimits(kill_grace_sec=300)
    async with Host() as host:
        run, _ = await start_shell(host, tmp_path, f"trap '' TERM; echo up; {HANG}", limits=limits)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(run.end)
                await anyio.sleep(0.1)
                assert (await run.end(grace_sec=0)).signal == signal.SIGKILL
    assert await run.end() == await run.wait()  # idempotent


async def test_a_stopped_agent_is_ended(tmp_path: Path) -> None:
    async with Host() as host:
        run, _ = await start_shell(host, tmp_path, "echo up; kill -STOP $$")
        outcome = await run.end()
    assert (outcome.cause, outcome.signal) == (EndCause.REQUEST, signal.SIGTERM)


async def test_cancelling_a_wait_leaves_the_run_and_closing_the_host_ends_it(
    tmp_path: Path,
) -> None:
    tag = new_tag()
    async with Host() as host:
        run = await host.start(make_spec(tmp_path, "sleep", tag))
        with anyio.move_on_after(0.1):
            await run.wait()
        assert len(tagged(tag)) == 1
    assert tagged(tag) == set()
    assert run.outcome is not None
    assert run.outcome.cause is EndCause.REQUEST


async def test_a_cancelled_loop_still_ends_everything(tmp_path: Path) -> None:
    tag = new_tag()
    with anyio.move_on_after(1.0):
        async with Host() as host:
            await host.start(
                make_spec(
                    tmp_path, "bash", "-c", escape_script("all_at_once", tag, deaf=True, then=HANG)
                )
            )
            await anyio.sleep_forever()
    assert tagged(tag) == set()


async def test_a_left_over_that_holds_stdout_delays_nothing(tmp_path: Path) -> None:
    async with Host() as host:
        run = await host.start(
            make_spec(tmp_path, "bash", "-c", "(trap '' TERM; sleep 300) & exit 0")
        )
        with anyio.fail_after(20):
            outcome = await run.wait()
    assert outcome.ok
    assert outcome.swept >= 1


# --- agents that attack ---------------------------------------------------------------------------


async def test_an_agent_that_kills_its_recorder_at_once_leaves_nothing_and_is_not_started_twice(
    tmp_path: Path,
) -> None:
    tag, count = new_tag(), tmp_path / "count"
    script = f"kill -9 $PPID; echo x >> {count}; exec setsid env -i /bin/sleep {tag}"
    async with Host() as host:
        for _ in range(5):
            run = await host.start(make_spec(tmp_path, "sh", "-c", script))
            assert (await run.wait()).cause in {EndCause.LOST, EndCause.SPAWN_FAILED}
            assert tagged(tag) == set()
    assert count.read_text().count("x") <= 5


@pytest.mark.parametrize("kind", ["plain", "all_at_once"])
async def test_an_agent_that_kills_its_recorder_is_swept_by_the_second_ring(
    tmp_path: Path, kind: str
) -> None:
    tag = new_tag()
    script = escape_script(kind, tag, deaf=True, then=f"kill -9 $PPID; {HANG}")
    async with Host() as host:
        run = await host.start(make_spec(tmp_path, "bash", "-c", script))
        with anyio.fail_after(30):
            outcome = await run.wait()
        assert outcome.cause is EndCause.LOST
        assert outcome.signal == signal.SIGKILL
        assert tagged(tag) == set()
        assert not Path(f"/proc/{run.identity.agent_pid}").exists()  # collected, too


@pytest.mark.parametrize("field", ["cause", "swept", "left", "duration_sec"])
@pytest.mark.parametrize("value", ["drop", '"x"', "null", "true", "NaN", "1e999", "[]"])
def test_a_report_with_a_field_that_is_none_is_no_report(
    tmp_path: Path, field: str, value: str
) -> None:
    spec = make_spec(tmp_path, "true")
    whole = {
        "run_id": spec.run_id, "cause": "exit", "exit_code": 0, "signal": None, "started_at": 1.5,
        "duration_sec": 2, "cpu_sec": 0.5, "max_rss_bytes": 4096, "swept": 0, "left": 0,
    }  # fmt: skip
    path = Path(spec.directory, "exit.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole))
    report = watched.read_report(spec)
    assert report is not None
    assert (report.exit_code, report.duration_sec) == (0, 2)
    fields = {name: json.dumps(known) for name, known in whole.items()}
    if value == "drop":
        del fields[field]
    else:
        fields[field] = value
    path.write_text("{" + ", ".join(f'"{name}": {text}' for name, text in fields.items()) + "}")
    assert watched.read_report(spec) is None


async def test_a_report_that_the_agent_planted_does_not_hide_its_end(tmp_path: Path) -> None:
    script = (
        f"""echo '{{"run_id": "'"${MARKER}"'", "left": 0}}' > "$PLANTED"; """
        f"sleep 0.5; kill -9 $PPID; {HANG}"
    )
    spec = make_spec(tmp_path, "bash", "-c", script)
    planted = f"{spec.directory}/exit.json"
    spec = dataclasses.replace(spec, env=dict(spec.env) | {"PLANTED": planted})
    async with Host() as host:
        run = await host.start(spec)
        with anyio.fail_after(30):
            outcome = await run.wait()
    assert (outcome.cause, outcome.signal) == (EndCause.LOST, signal.SIGKILL)
    assert json.loads(Path(planted).read_text())["left"] == 0


async def test_an_agent_that_stops_its_recorder_changes_nothing(tmp_path: Path) -> None:
    async with Host() as host:
        run = await host.start(make_spec(tmp_path, "bash", "-c", "kill -STOP $PPID; exit 5"))
        with anyio.fail_after(30):
            outcome = await run.wait()
    assert (outcome.cause, outcome.exit_code) == (EndCause.EXIT, 5)


async def test_a_recorder_that_is_stopped_again_and_again_cannot_hold_the_host(
    tmp_path: Path,
) -> None:
    tag = new_tag()
    script = (
        f"P=$PPID; (trap '' TERM; while kill -STOP $P; do sleep 0.01; done; exec sleep {tag}) & "
        f"echo up; {HANG}"
    )
    async with Host() as host:
        run, _ = await start_shell(host, tmp_path, script)
        with anyio.fail_after(40):
            outcome = await run.end()
    assert outcome.cause is EndCause.REQUEST
    assert tagged(tag) == set()
    assert not Path(f"/proc/{run.identity.agent_pid}").exists()


async def test_a_killed_launcher_is_replaced_and_living_runs_go_on(tmp_path: Path) -> None:
    async with Host() as host:
        first, _ = await start_shell(host, tmp_path, f"echo up; {HANG}")
        os.kill(host._spawner.pid, signal.SIGKILL)
        second = await host.start(make_spec(tmp_path, "sh", "-c", "exit 4"))
        assert (await second.wait()).exit_code == 4
        assert first.outcome is None
        assert (await first.end()).cause is EndCause.REQUEST


async def test_run_files_deleted_by_the_agent_come_back(tmp_path: Path) -> None:
    async with Host() as host:
        spec = make_spec(
            tmp_path, "bash", "-c", f"echo the answer; sleep 0.5; rm -rf {tmp_path}/runs; exit 6"
        )
        run = await host.start(spec)
        outcome = await run.wait()
    assert outcome.exit_code == 6
    assert stdout_of(spec) == "the answer\n"


# --- nothing leaks --------------------------------------------------------------------------------


async def test_no_descriptor_and_no_process_leaks(tmp_path: Path) -> None:
    async with Host() as host:
        await (await host.start(make_spec(tmp_path, "true"))).wait()
        before = len(os.listdir("/proc/self/fd"))
        for number in range(50):
            spec = make_spec(
                tmp_path, "true" if number % 5 else "no-such-program", name=f"run-{number}"
            )
            with anyio.CancelScope() as scope:
                if number % 3 == 0:
                    scope.cancel()  # cancelled before, during or right after the spawn
                run = await host.start(spec)
                await run.wait()
        await until(lambda: not host._living())
        assert len(os.listdir("/proc/self/fd")) == before
        await until(lambda: len(own_recorders(host)) <= 1)  # the one that waits for the next run


def own_recorders(host: Host) -> list[proctable.Proc]:
    table = proctable.scan()
    return [
        table[pid]
        for pid in proctable.descendants(proctable.offspring(table), {host._spawner.pid})
        if table[pid].living
    ]


async def test_starts_at_the_same_time_are_all_watched_and_all_ended(tmp_path: Path) -> None:
    tag = new_tag()
    runs: list[Run] = []

    async def start(host: Host) -> None:
        runs.append(await host.start(make_spec(tmp_path, "sleep", tag)))

    async with Host() as host:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(start, host)
        assert len(tagged(tag)) == len(runs) == 20
        late = anyio.create_task_group()
        async with late:
            late.start_soon(start, host)
            await anyio.lowlevel.checkpoint()
            await host.aclose()  # while one is being started
    assert len(runs) == 21
    assert {(await run.wait()).cause for run in runs} == {EndCause.REQUEST}
    assert tagged(tag) == set()


async def test_a_cancelled_start_still_knows_its_run(tmp_path: Path) -> None:
    tag = new_tag()
    async with Host() as host:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await host.start(make_spec(tmp_path, "sleep", tag))
    assert tagged(tag) == set()


# --- adopting -------------------------------------------------------------------------------------


def leave_run(root: Path, script: str, **fields: object) -> RunSpec:
    """A run whose supervisor was killed."""
    spec = make_spec(root, "bash", "-c", script, **fields)  # type: ignore[arg-type]
    with start_supervisor([spec]) as supervisor:
        try:
            assert eventually(lambda: stdout_of(spec))
        finally:
            supervisor.kill()
    return spec


async def test_an_adopted_run_goes_on_and_its_exit_status_is_known(tmp_path: Path) -> None:
    go = tmp_path / "go"
    spec = leave_run(
        tmp_path, f"echo up; while ! [ -e {go} ]; do sleep 0.05; done; echo more; exit 9"
    )
    identity = traces.read_identity(spec)
    async with Host() as host:
        run = await host.adopt(spec, identity)
        assert run is not None
        assert run.identity == identity
        assert traces.lock_is_held(spec.run_lock_path)
        go.touch()
        outcome = await run.wait()
    assert (outcome.cause, outcome.exit_code) == (EndCause.EXIT, 9)
    assert stdout_of(spec) == "up\nmore\n"


async def test_a_run_that_ended_alone_gives_its_recorded_exit(tmp_path: Path) -> None:
    spec = leave_run(tmp_path, "echo up; sleep 0.3; exit 11")
    assert eventually(lambda: not traces.lock_is_held(spec.run_lock_path))
    async with Host() as host:
        run = await host.adopt(spec, None)
        assert run is not None
        outcome = await run.wait()
    assert (outcome.cause, outcome.exit_code) == (EndCause.EXIT, 11)
    assert outcome.duration_sec > 0.2


async def test_an_adopted_runs_deadline_counts_from_its_true_start(tmp_path: Path) -> None:
    limits = RunLimits(wall_sec=2.0, kill_grace_sec=0.3)
    spec = leave_run(tmp_path, f"echo up; {HANG}", limits=limits)
    await anyio.sleep(2.0)
    async with Host() as host:
        run = await host.adopt(spec, None)
        assert run is not None
        assert (await run.wait()).cause is EndCause.WALL_TIMEOUT


async def test_an_adopted_run_without_recorder_is_watched_and_then_lost(tmp_path: Path) -> None:
    go = tmp_path / "go"
    spec = leave_run(tmp_path, f"echo up; while ! [ -e {go} ]; do sleep 0.05; done")
    kill_recorder(spec)
    async with Host() as host:
        run = await host.adopt(spec, None)
        assert run is not None
        await anyio.sleep(0.2)
        assert run.outcome is None
        go.touch()
        assert (await run.wait()).cause is EndCause.LOST


@pytest.mark.parametrize("deaf", [False, True])
async def test_an_adopted_run_without_recorder_can_be_ended(tmp_path: Path, deaf: bool) -> None:
    trap = "trap '' TERM;" if deaf else ""
    spec = leave_run(tmp_path, f"{trap} (setsid sleep 300 &); echo up; {HANG}")
    kill_recorder(spec)
    async with Host() as host:
        run = await host.adopt(spec, None)
        assert run is not None
        assert (await run.end()).cause is EndCause.REQUEST
    assert proctable.marked(proctable.scan(), spec.run_id) == set()


async def test_left_overs_of_a_dead_agent_are_swept_at_adoption(tmp_path: Path) -> None:
    tag = new_tag()
    spec = leave_run(tmp_path, f"(setsid sleep {tag} &); echo up; {HANG}")
    kill_recorder(spec)
    os.kill(agent_of(spec)[0], signal.SIGKILL)
    assert eventually(lambda: not proctable.alive(proctable.scan(), *agent_of(spec)))
    assert len(tagged(tag)) == 1
    async with Host() as host:
        run = await host.adopt(spec, None)
        assert run is not None
        outcome = await run.wait()
    assert outcome.cause is EndCause.LOST
    assert outcome.swept >= 1
    assert tagged(tag) == set()


def kill_recorder(spec: RunSpec) -> None:
    identity = traces.read_identity(spec)
    assert identity is not None
    os.kill(identity.recorder_pid, signal.SIGKILL)
    assert eventually(
        lambda: (
            not proctable.alive(proctable.scan(), identity.recorder_pid, identity.recorder_start)
        )
    )


def agent_of(spec: RunSpec) -> tuple[int, int]:
    identity = traces.read_identity(spec)
    assert identity is not None
    return identity.agent_pid, identity.agent_start


async def test_a_run_is_found_by_its_recorders_name_when_every_file_is_gone(tmp_path: Path) -> None:
    tag = new_tag()
    spec = leave_run(tmp_path, f"echo up; exec env -i sleep {tag}")
    for path in [*Path(spec.directory).iterdir(), Path(spec.run_lock_path)]:
        path.unlink()
    async with Host() as host:
        assert await host.sweep(spec, None) >= 1
    assert tagged(tag) == set()


async def test_no_trace_is_none_and_another_boot_is_lost(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "true")
    async with Host() as host:
        assert await host.adopt(spec, None) is None
        assert await host.sweep(spec, None) == 0
        run = await host.start(make_spec(tmp_path, "sleep", "300"))
        other_boot = dataclasses.replace(run.identity, boot_id="another", run_id=spec.run_id)
        adopted = await host.adopt(spec, other_boot)
        assert adopted is not None
        assert (await adopted.wait()).cause is EndCause.LOST
        assert run.outcome is None  # its pid is in `other_boot`: left alone


def in_own_session(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, start_new_session=True)


async def test_a_process_that_got_a_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    stranger = in_own_session("sleep", "300")
    try:
        start = proctable.start_ticks(stranger.pid)
        spec = make_spec(tmp_path, "true")
        async with Host() as host:
            ended = await host.start(spec)
            await ended.wait()
            stale = dataclasses.replace(
                ended.identity,
                agent_pid=stranger.pid,
                agent_start=start - 1,
                recorder_pid=stranger.pid,
                recorder_start=start - 1,
            )
            assert await host.sweep(spec, stale) == 0
            assert stranger.poll() is None
            # the negative control: with the true start time it is taken for the run's and ended
            assert (
                await host.sweep(
                    spec, dataclasses.replace(stale, agent_start=start, recorder_pid=0)
                )
                == 1
            )
            assert stranger.wait(10) == 0  # a sweep has collected it: nobody knows how it ended
    finally:
        stranger.kill()
        stranger.wait()


# --- output as it was printed ---------------------------------------------------------------------

REOPENERS = {
    "> /dev/stderr": "echo two > /dev/stderr",
    "> /dev/stdout": "(echo two > /dev/stdout) 1>&2",
    "> /proc/self/fd/2": "echo two > /proc/self/fd/2",
    "tee": "echo two | tee /dev/stderr >/dev/null",
    "truncate": "truncate -s 0 /proc/$$/fd/2 2>/dev/null; echo two >&2",
}
"""What prints "two" to standard error, whatever it is, and empties it if it is a file."""


@pytest.mark.parametrize("how", REOPENERS)
async def test_nothing_that_a_run_opens_takes_back_what_it_printed(
    tmp_path: Path, how: str
) -> None:
    script = f"echo one >&2; {REOPENERS[how]}; echo three >&2"
    async with Host() as host:
        spec = make_spec(tmp_path, "bash", "-c", script)
        assert (await (await host.start(spec)).wait()).exit_code == 0
        lines = Path(spec.directory, "stderr.log").read_text().split()
    assert lines == ["one", "two", "three"]


@pytest.mark.parametrize("how", REOPENERS)
def test_negative_control_a_file_as_its_output_is_emptied(tmp_path: Path, how: str) -> None:
    script = f"echo one >&2; {REOPENERS[how]}; echo three >&2"
    with (tmp_path / "log").open("ab") as file:
        subprocess.run(["bash", "-c", script], stderr=file, check=True)
    assert "one" not in (tmp_path / "log").read_text().split()


async def test_what_was_printed_before_the_recorder_was_killed_is_kept(tmp_path: Path) -> None:
    async with Host() as host:
        for _ in range(5):
            spec = make_spec(tmp_path, "bash", "-c", "echo the answer; kill -9 $PPID; sleep 300")
            await (await host.start(spec)).wait()
            assert stdout_of(spec) == "the answer\n"


async def test_an_agent_that_removes_its_directory_at_once_loses_nothing(tmp_path: Path) -> None:
    async with Host() as host:
        for _ in range(5):
            spec = make_spec(tmp_path, "bash", "-c", f"rm -rf {tmp_path}/runs; echo the answer")
            assert (await (await host.start(spec)).wait()).exit_code == 0
            assert stdout_of(spec) == "the answer\n"


async def test_an_adopted_run_prints_on_with_and_without_its_recorder(tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo up; while ! [ -e {go} ]; do sleep 0.05; done; echo more; echo end >/dev/stdout"
    for killed in (False, True):
        go.unlink(missing_ok=True)
        spec = leave_run(tmp_path, script)
        if killed:
            kill_recorder(spec)
        async with Host() as host:
            run = await host.adopt(spec, None)
            assert run is not None
            go.touch()
            outcome = await run.wait()
        assert outcome.exit_code == (None if killed else 0)
        assert stdout_of(spec) == "up\nmore\nend\n"


@pytest.mark.parametrize("name", ["exit.json", "exit.json.tmp", "identity.json", "stdout.log"])
@pytest.mark.parametrize("kind", ["mkdir", "mkfifo"])
async def test_what_lies_in_the_way_of_a_runs_files_is_set_aside(
    tmp_path: Path, kind: str, name: str
) -> None:
    spec = make_spec(tmp_path, "sh", "-c", 'rm -f "$PLACE"; $KIND "$PLACE"; echo the answer')
    path = Path(spec.directory, name)
    spec = dataclasses.replace(spec, env=dict(spec.env) | {"PLACE": str(path), "KIND": kind})
    path.parent.mkdir(parents=True)
    path.mkdir()
    async with Host() as host:
        with anyio.fail_after(30):
            outcome = await (await host.start(spec)).wait()
    assert (outcome.cause, outcome.exit_code) == (EndCause.EXIT, 0)
    assert stdout_of(spec) == "the answer\n"
    assert watched.read_report(spec) is not None
    assert len(list((tmp_path / "quarantine").iterdir())) >= 1


# --- nothing stopped, nothing disguised -----------------------------------------------------------


async def test_a_stopped_launcher_and_waiting_recorder_delay_nothing(tmp_path: Path) -> None:
    stop = (
        "L=$(awk '{print $4}' /proc/$PPID/stat);"
        " kill -STOP $(cat /proc/$L/task/$L/children) $L 2>/dev/null; kill -CONT $PPID"
    )
    async with Host() as host:
        begun = time.monotonic()
        for number in range(3):
            run = await host.start(make_spec(tmp_path, "bash", "-c", stop, name=f"run-{number}"))
            assert (await run.wait()).exit_code == 0
        assert time.monotonic() - begun < 15


async def test_closing_the_spawner_leaves_no_stopped_recorder(tmp_path: Path) -> None:
    async with Host() as host:
        await (await host.start(make_spec(tmp_path, "true"))).wait()
        launcher_pid = host._spawner.pid
        assert eventually(lambda: spawner._waiting(launcher_pid))
        (waiting,) = spawner._waiting(launcher_pid)
        for pid in (waiting, launcher_pid):
            os.kill(pid, signal.SIGSTOP)
        await anyio.to_thread.run_sync(host._spawner.close)
        assert eventually(lambda: proctable.read(waiting) is None or not read_alive(waiting))


def read_alive(pid: int) -> bool:
    found = proctable.read(pid)
    return found is not None and found.living


DISGUISED = """
import ctypes, os, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
ctypes.CDLL(None).prctl(15, b"csi-launcher", 0, 0, 0)
time.sleep(TAG)
"""


async def test_a_name_like_ours_spares_nobody(tmp_path: Path) -> None:
    tag = new_tag()
    script = (
        f"env -i {shlex.quote(sys.executable)} -S -c '{DISGUISED.replace('TAG', tag)}'; sleep 0.3;"
        f" kill -9 $PPID; {HANG}"
    )
    async with Host() as host:
        run = await host.start(make_spec(tmp_path, "bash", "-c", script))
        with anyio.fail_after(30):
            assert (await run.wait()).cause is EndCause.LOST
        assert tagged(tag) == set()


# --- where there are no descriptors of processes --------------------------------------------------


async def test_an_adopted_run_whose_record_says_all_is_gone_is_swept(tmp_path: Path) -> None:
    spec = leave_run(tmp_path, f"trap '' TERM; echo up; {HANG}")
    kill_recorder(spec)
    identity = traces.read_identity(spec)
    assert identity is not None
    planted = {
        "run_id": spec.run_id, "cause": "exit", "exit_code": 0, "signal": None, "started_at": 1.5,
        "duration_sec": 2, "cpu_sec": 0.5, "max_rss_bytes": 4096, "swept": 0, "left": 0,
    }  # fmt: skip
    Path(spec.directory, "exit.json").write_text(json.dumps(planted))
    async with Host() as host:
        run = await host.adopt(spec, None)
        assert run is not None
        await run.end()
    assert proctable.marked(proctable.scan(), spec.run_id) == set()


async def test_too_few_descriptors_fail_a_start_and_leak_none(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with Host() as host:
        await (await host.start(make_spec(tmp_path, "true"))).wait()
        before = len(os.listdir("/proc/self/fd"))
        for room in range(2, 22):
            host._spawner.close()  # another one has to be started
            resource.setrlimit(resource.RLIMIT_NOFILE, (before + room, hard))
            try:
                run = await host.start(make_spec(tmp_path, "true"))
                assert (await run.wait()).cause in {EndCause.EXIT, EndCause.SPAWN_FAILED}
            except StorageError as error:
                assert "too many open files" in str(error)  # noqa: PT017
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (await (await host.start(make_spec(tmp_path, "true"))).wait()).exit_code == 0
        assert len(os.listdir("/proc/self/fd")) == before
