"""Poor and shifting surroundings: no home, no terminal, no working directory, no workspace."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from codex_self_iter.world import registry
from tests.support.control_steps import wait_log
from tests.support.harness import AGENT, Workspace, wait_until
from tests.support.listeners import http
from tests.support.program import PROGRAM

WORK = {"append": {"work.txt": "x\n"}}
END = {**WORK, "block": {"completed": True}}


def test_a_deleted_working_directory_stops_nothing(ws: Workspace) -> None:
    """The program of the template counts from the workspace, the configuration is read again."""
    here = ws.root / "here"
    here.mkdir()
    agent = ws.path / "scripts" / "agent.sh"
    agent.parent.mkdir()
    agent.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S -E {_agent(ws)} "$1" "$2"\n'
    )
    agent.chmod(0o755)
    ws.config(agent_command_template="scripts/agent.sh {prompt_file} {workspace}")
    ws.script({**WORK, "sleep": 60, "until": "go"}, END)
    relative = os.path.relpath(ws.path, here)
    with (ws.root / "supervisor-0.log").open("wb") as log:
        process = subprocess.Popen(
            [*PROGRAM, "--workspace", relative],
            cwd=here, env=ws.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    ws.supervisors.append(process)
    ws.wait_runs(1)
    here.rmdir()
    ws.config(agent_command_template="scripts/agent.sh {prompt_file} {workspace}", history_tail=3)
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "history_tail")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["continue", "completed"]


def _agent(ws: Workspace) -> str:
    """The harness's agent as a shell has it, with its control directory."""
    return f"'{AGENT}' '{ws.control}'"


def test_a_command_in_a_deleted_directory_says_so(ws: Workspace) -> None:
    script = (
        f'cd "$1" && rmdir "$1" && exec {shlex.quote(sys.executable)} -m codex_self_iter doctor'
    )
    gone = ws.root / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", script, "sh", str(gone)],
        env=ws.environment, cwd=ws.root, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "internal error" not in done.stderr


IGNORING = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"


def test_who_ignores_the_ends_of_children_takes_git_from_nobody(ws: Workspace) -> None:
    """It is inherited, and then no child's exit status can be had."""
    ws.config('[git]\ncommit = "supervisor"\n')
    ws.script(END)
    start = f"{IGNORING}; os.execv(sys.argv[1], sys.argv[1:])"
    assert ws.ended(ws.start(prefix=(sys.executable, "-S", "-c", start))) == 0
    assert ws.status()["owed"] is None
    assert "work.txt" in ws.git("ls-files")


NO_PROC = {
    "another pid namespace": ("unshare", "-p", "-f"),
    "not mounted": ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc; exec "$@"', "sh"),
}


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="NOT TESTED HERE: taking /proc away needs root and unshare",
)
@pytest.mark.parametrize("why", NO_PROC)
def test_where_processes_cannot_be_found_nothing_starts(ws: Workspace, why: str) -> None:
    ws.script(END)
    assert ws.ended(ws.start(prefix=NO_PROC[why])) == 2
    assert why in ws.log()
    assert "mount -t proc" in ws.log()
    assert ws.started() == 0


NO_THREADS = """
import sys, threading
def start(_): raise RuntimeError("can't start new thread")
threading.Thread.start = start
import codex_self_iter.__main__ as program
sys.argv[0] = "codex-self-iter"
program.main()
"""


def test_at_the_limit_of_processes_a_start_says_so(ws: Workspace) -> None:
    ws.script(END)
    command = [sys.executable, "-c", NO_THREADS, "--workspace", str(ws.path)]
    done = subprocess.run(
        command, env=ws.environment, check=False, timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "limit of processes is reached" in done.stderr
    assert "internal error" not in done.stderr


def test_a_terminal_that_is_closed_at_once_ends_nothing(ws: Workspace) -> None:
    code = "import os, signal, codex_self_iter.__main__; os.kill(os.getpid(), signal.SIGHUP)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, env=ws.environment, check=False, timeout=60).returncode == 0


def test_nothing_is_asked_of_the_environment(ws: Workspace) -> None:
    ws.script({**WORK, "block": {"next_goal": "größer 目标"}}, END)
    bare = {"PATH": os.environ["PATH"], "HOME": "nowhere", "TERM": "dumb", "LANG": "C"}
    bare |= {key: ws.environment[key] for key in ws.environment if key.startswith("GIT_")}
    log = ws.root / "supervisor-0.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                "sh", "-c", 'exec "$@" <&-', "sh",
                *PROGRAM, "--workspace", str(ws.path),
            ],
            cwd=ws.root, env=bare, stdout=out, stderr=out,
        )  # fmt: skip
    ws.supervisors.append(process)
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["continue", "completed"]
    assert "registry.not_written" in ws.log()
    made = {path.name for path in (*ws.path.iterdir(), *ws.root.iterdir())}
    assert not made & {"nowhere", "~"}


def test_without_a_home_there_is_no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "nowhere")
    assert registry.directory() == ""
    assert registry.entries() == []
    with pytest.raises(OSError, match="no home"):
        registry.register("a", "/w", "/w/s")


def _removed(path: Path) -> bool:
    """Delete it: what writes through a descriptor that it holds may get in between."""
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("git", [True, False])
@pytest.mark.parametrize("when", ["running", "waiting"])
def test_a_deleted_workspace_ends_the_loop_and_is_not_made_again(
    tmp_path: Path, git: bool, when: str
) -> None:
    ws, held = Workspace(tmp_path), ExitStack()
    try:
        told = ws.root / "told"
        slow = {"no_change_backoff_sec": 600}
        hook = held.enter_context(http())
        web = f"urls = ['json://127.0.0.1:{hook.port}/']"
        ws.config(f"[notify]\n{web}\ncommand = ['sh', '-c', \"cat > '{told}'\"]\n", **slow)
        ws.script({"sleep": 120, "until": "never"} if when == "running" else {})
        if not git:
            shutil.rmtree(ws.path / ".git")
        process = ws.start()
        if when == "running":
            ws.wait_runs(1)
        else:
            ws.wait_state("cooldown")
        ws.path.rename(ws.root / "away")  # at once: what is deleted piece by piece is put back
        wait_until(partial(_removed, ws.root / "away"), "the workspace to be deleted")
        assert ws.ended(process) == 4
        wait_until(lambda: not ws.leftovers(), "the agent's end")
        assert not ws.path.exists()
        assert f"the workspace {ws.path} is gone" in ws.log()
        assert '"event": "blocked"' in told.read_text()
        (message,) = hook.heard
        assert message["message"].splitlines()[-1] == "codex-self-iter status --all"
    finally:
        held.close()
        ws.close()


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="NOT TESTED HERE: mounts need root and unshare",
)
def test_a_bare_mount_point_is_no_workspace(ws: Workspace) -> None:
    """What is left when a disk went away is not worked in."""
    ws.script({"sleep": 120, "until": "never"})
    go = ws.control / "go"
    copy = ws.root / "copy"
    shutil.copytree(ws.path, copy, symlinks=True)
    for entry in ws.path.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    mount = """mount -t tmpfs none "$1"; cp -a "$2/." "$1"; workspace=$1 go=$3; shift 3; cd /
    "$@" & supervisor=$!
    until test -e "$go"; do sleep 0.05; done
    umount -l "$workspace"; wait $supervisor"""
    names = (str(ws.path), str(copy), str(go))
    process = ws.start(prefix=("unshare", "-m", "sh", "-c", mount, "sh", *names))
    ws.wait_runs(1)
    go.touch()
    assert ws.ended(process) == 4
    assert f"the workspace {ws.path} is gone" in ws.log()
    assert not (ws.path / "plan.md").exists()


def test_modules_of_the_workspace_are_not_taken_for_ours(ws: Workspace) -> None:
    ws.config(agent_command_template="", agent="plan-shell")
    for name in ("argparse", "codex_self_iter", "json", "shlex"):
        (ws.path / f"{name}.py").write_text("raise SystemExit('not this one')\n")
    (ws.path / "plan.md").write_text("- [ ] one\n\n  ```sh\n  echo done > made\n  ```\n")
    assert ws.run() == 0, ws.log()
    assert (ws.path / "made").read_text() == "done\n"


def test_in_a_locale_without_utf8_names_and_words_are_what_they_are(ws: Workspace) -> None:
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    ws.environment |= {"LC_ALL": "C", **ascii_only}
    ws.config('[git]\ncommit = "supervisor"\n')
    ws.script({"run": "echo x > Maße.txt", "block": {"summary": "Füße", "completed": True}})
    assert ws.run() == 0, ws.log()
    assert ws.git("log", "-1", "-z", "--format=%s", "--name-only") == "Füße\0\nMaße.txt\0"
    assert ws.journal()[0]["summary"] == "Füße"
    assert "F??e" in ws.cli("history").stdout


def test_the_supervisors_own_output_in_the_workspace_is_no_work_of_an_agent(ws: Workspace) -> None:
    """`codex-self-iter run > run.log 2>&1`, in the workspace."""
    log = ws.path / "logs" / "run.log"
    log.parent.mkdir()
    log.touch()
    ws.config('[git]\ncommit = "supervisor"\n', max_iterations=2)
    ws.script({"block": {"next_goal": "a"}}, {"block": {"next_goal": "b"}})
    assert ws.run(output=log) == 0
    assert ws.verdicts() == ["no_change", "no_change"]
    assert ws.status()["owed"] is None
    assert "iteration" in log.read_text()
    assert ws.cli("rewind", "1-before", "--yes").returncode == 0
    assert log.stat().st_size > 0


def test_a_file_that_the_supervisor_does_not_write_is_the_agents_work(ws: Workspace) -> None:
    """The control of the test above: it is not the name that tells."""
    (ws.path / "logs").mkdir()
    ws.config(max_iterations=1)
    ws.script({"append": {"logs/run.log": "x"}, "block": {"next_goal": "a"}})
    assert ws.run() == 0
    assert ws.verdicts() == ["continue"]


@pytest.mark.slow
def test_a_directory_of_sources_is_never_taken_for_the_state(ws: Workspace) -> None:
    (ws.path / "src").mkdir(mode=0o755)
    (ws.path / "src/main.py").write_text("print()\n")
    for command in ("config", "check"), ("doctor",), ("run",):
        ws.config(state_dir="src")
        done = ws.cli(*command)
        assert done.returncode == (4 if command == ("doctor",) else 2), done
        said = done.stdout + done.stderr
        assert f"state directory {ws.path}/src holds something else (main.py)" in said
        assert "Traceback" not in said
    assert [path.name for path in (ws.path / "src").iterdir()] == ["main.py"]
    assert (ws.path / "src").stat().st_mode & 0o777 == 0o755
    refused = {".": "workspace or above", ".git": "git's own", "plan.md": "is not a directory"}
    for place, says in refused.items():
        ws.config(state_dir=place)
        done = ws.cli("config", "check")
        assert (done.returncode, says in done.stderr) == (2, True), done
    ws.config(state_dir="new")  # negative control
    assert ws.cli("config", "check").returncode == 0
    assert ws.cli("steer", "be brief").returncode == 0
    assert ws.run("run") == 0, ws.log()
    assert ws.git("status", "--porcelain", "--", "new") == ""


def test_the_rules_of_somebody_else_do_not_show_the_state_to_git(ws: Workspace) -> None:
    ws.config(state_dir="build")
    ws.state = ws.path / "build"
    ws.state.mkdir()
    (ws.state / ".gitignore").write_text("*.o\n")
    assert ws.run("run") == 0, ws.log()
    assert ws.git("status", "--porcelain", "--", "build") == ""
    assert ".gitignore was set aside" in ws.log()
    (ws.state / ".gitignore").write_text("# mine\n*\n!report.md\n")  # what is meant stays
    assert ws.run("run") == 0, ws.log()
    assert "# mine" in (ws.state / ".gitignore").read_text()


@pytest.mark.slow
def test_one_state_directory_is_never_that_of_two_workspaces(ws: Workspace) -> None:
    other = Workspace(ws.root, "other")
    for one in ws, other:
        one.state = ws.root / "state of all"
        one.config(state_dir=str(one.state))
        one.script({"append": {"w.txt": "x\n"}, "block": {"next_goal": f"more {one.path.name}"}})
    assert ws.run("run", "--once") == 0, ws.log()
    before = (ws.state / "runtime.json").read_bytes()
    says = f"state directory {ws.state} is that of the workspace {ws.path}, and not of {other.path}"
    assert says in other.cli("config", "check").stderr
    done = other.cli("run", "do something else", "--once")
    assert (done.returncode, says in done.stderr) == (2, True), done
    assert (ws.state / "runtime.json").read_bytes() == before
    assert not (ws.state / "task.md").exists()
    assert ws.run("run", "--once") == 0, ws.log()  # negative control: it goes on with its own
    copied = ws.root / "copy"
    shutil.copytree(ws.state, copied)
    other.config(state_dir=str(copied))
    assert other.cli("config", "check").returncode == 0  # as somebody asked for
    ws.path.rename(ws.root / "gone")
    other.config(state_dir=str(ws.state))  # moved: the state of what is gone goes on
    assert other.run("run", "--once") == 0, other.log()
    assert [line["iteration"] for line in other.journal()] == [1, 2, 3]
    other.close()


def test_a_copy_of_a_workspace_goes_on_beside_it(ws: Workspace) -> None:
    assert ws.run("run", "--once") == 0, ws.log()
    copied = ws.root / "copy"
    shutil.copytree(ws.path, copied)
    assert ws.run("run", "--once", "--workspace", str(copied)) == 0, ws.log()


def test_a_workspace_whose_name_is_no_text_is_watched_by_looking(tmp_path: Path) -> None:
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/w\xff")
    except OSError:
        pytest.skip("this file system has no such names")
    ws = Workspace(tmp_path, os.fsdecode(b"w\xff"))
    ws.control = tmp_path / "control"
    ws.control.mkdir()
    ws.config()
    ws.script({"sleep": 60, "until": "never", "block": {"next_goal": "on"}})
    process = ws.start("run")
    ws.wait_runs(1)
    wait_until(lambda: "watching by events failed" in ws.log(), "it to be said")
    (ws.state / "STOP").touch()
    assert ws.ended(process) == 0, ws.log()
    assert ws.status()["state"] == "stopped"
    assert ws.log().count("watching by events failed") == 1
    done = ws.cli("service", "install", "--dry-run")
    assert done.returncode == 2
    assert "a path that is not UTF-8 cannot become a service" in done.stderr
    ws.close()
