"""Faults that were found by using the program, each as the behaviour that has to be."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.harness import AGENT, Workspace, wait_until
from tests.support.program import PROGRAM

STEP = {"append": {"work.txt": "x\n"}}
SLOW = {"sleep": 30, "until": "go"}


def kill(ws: Workspace) -> None:
    """kill -9 of the last supervisor."""
    ws.supervisors[-1].kill()
    ws.supervisors[-1].wait()


def forget_everything(ws: Workspace) -> tuple[str, ...]:
    shutil.rmtree(ws.state)
    return ()


def forget_the_run(ws: Workspace) -> tuple[str, ...]:
    for path in [*ws.state.glob("*.lock"), *ws.state.glob("runtime.json*")]:
        path.unlink()
    return ()


def take_another_state_directory(ws: Workspace) -> tuple[str, ...]:
    return "--state-dir", str(ws.root / "another state")


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["whole", "emptied"])
@pytest.mark.parametrize(
    "meanwhile", [forget_everything, forget_the_run, take_another_state_directory]
)
def test_no_second_agent_beside_one_of_which_no_record_is_left(
    ws: Workspace, meanwhile: Callable[[Workspace], tuple[str, ...]], environment: str
) -> None:
    if environment == "emptied":  # the marks that are looked for are gone with it
        agent = f"{shlex.quote(sys.executable)} -S -E {shlex.quote(str(AGENT))} {shlex.quote(str(ws.control))}"
        command = f"env -i PATH={os.defpath} {agent} {{prompt_file}} {{workspace}}"
        ws.config(agent_command_template=command)
    ws.script({**SLOW, "spawn": ["setsid"]}, {**STEP, "block": {"completed": True}})
    ws.start()
    ws.wait_runs(1)
    kill(ws)
    assert ws.leftovers()
    flags = meanwhile(ws)
    assert ws.run(*flags) == 0
    assert not (ws.control / "overlaps.log").exists()
    assert "strays.ended" in ws.log()
    wait_until(lambda: not ws.leftovers(), "the first agent to be gone")


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full 2>&1", "2>&1 | head -n 1"]
)
def test_the_exit_code_tells_the_end_whatever_became_of_the_output(ws: Workspace, how: str) -> None:
    ws.config(max_stagnation=2)
    ws.script({**STEP, "block": {"next_goal": "the same"}})
    assert shell(ws, "run", how) == 3


@pytest.mark.slow
@pytest.mark.parametrize("command", ["status", "history", "show", "logs", "config show"])
def test_a_reading_command_says_so_when_its_output_cannot_be_written(
    ws: Workspace, command: str
) -> None:
    ws.script({**STEP, "block": {"completed": True}})
    assert ws.run() == 0
    assert shell(ws, command, ">/dev/full 2>said") == 1
    assert "cannot write the output: No space left" in (ws.root / "said").read_text()
    assert shell(ws, command, ">&-") == 0
    assert shell(ws, command, "| true") == 0


def shell(ws: Workspace, command: str, how: str) -> int:
    """The exit code of a command whose streams a shell has redirected."""
    argv = [*PROGRAM, *command.split(), "--workspace", str(ws.path)]
    script = f"{shlex.join(argv)} {how}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=ws.root, env=ws.environment, check=False, timeout=60
    )
    return done.returncode


def test_two_workspaces_of_the_same_name_both_run(tmp_path: Path) -> None:
    both = [Workspace(tmp_path / parent, "app") for parent in ("one", "two")]
    try:
        for ws in both:
            ws.config()
            ws.script({**STEP, "block": {"completed": True}})
        assert both[0].run("--workspace", str(both[1].path)) == 0
        assert [ws.verdicts() for ws in both] == [["completed"]] * 2
        assert {ws.status()["name"] for ws in both} == {"app", "app-2"}
    finally:
        for ws in both:
            ws.close()


def test_line_breaks_inside_a_text_do_not_spoil_a_control_block(ws: Workspace) -> None:
    raw = '{"summary": "one\ntwo\tthree", "next_goal": "", "stop": false, "completed": true}\n'
    ws.script({**STEP, "raw": raw})
    assert ws.run() == 0
    assert ws.verdicts() == ["completed"]


@pytest.mark.slow
def test_show_says_what_this_iteration_changed_and_the_message_it_was_given(ws: Workspace) -> None:
    ws.script({**STEP, "block": {"next_goal": "again"}}, {**STEP, "block": {"completed": True}})
    assert ws.run("--max-iterations", "1") == 0
    assert ws.cli("steer", "mind the gap").returncode == 0
    assert ws.run() == 0
    shown = ws.cli("show", "2").stdout
    assert "1 file changed, 1 insertion(+)" in shown
    assert "messages   mind the gap\n" in shown


def test_status_claims_no_figure_that_was_not_measured(ws: Workspace) -> None:
    ws.script({**STEP, "block": {"completed": True}})
    assert ws.run() == 0
    shown = ws.cli("status").stdout
    assert "0 B free" not in shown
    assert "state directory 0 B" not in shown


def test_a_first_iteration_that_was_cut_off_has_no_history_to_lose(ws: Workspace) -> None:
    ws.script({**SLOW}, {**STEP, "block": {"completed": True}})
    ws.config(on_orphan="kill")
    ws.start()
    ws.wait_runs(1)
    kill(ws)
    assert ws.run() == 0
    assert "history is lost" not in ws.log()


def test_no_half_of_a_secret_stays_where_a_hooks_words_are_cut(ws: Workspace) -> None:
    secret = "q7Zr" * 15
    ws.environment["DEPLOY_TOKEN"] = secret
    hook = ws.path / ".git" / "hooks" / "pre-commit"
    hook.write_text(f"#!/bin/sh\necho '{'x' * 430} {secret} end'\nexit 1\n")
    hook.chmod(0o755)
    ws.config('[git]\ncommit = "supervisor"\n')
    ws.script({"write": {"a.txt": "agent"}, "block": {"completed": True}})
    assert ws.run() == 0
    assert "commit.failed" in ws.log()
    kept = [ws.log(), *(p.read_text(errors="replace") for p in ws.state.rglob("*") if p.is_file())]
    assert not any(secret[:20] in text for text in kept)
    assert any("xxx [redacted]" in text for text in kept)


GPG = """#!/bin/sh
touch '{asked}'
echo "gpg: waiting for a passphrase" >&2
read answer < /dev/tty || { echo "gpg: cannot open /dev/tty" >&2; exit 2; }
sleep 600
"""


def test_a_signing_tool_that_wants_a_terminal_holds_nothing_up_and_is_said(ws: Workspace) -> None:
    gpg, asked = ws.root / "gpg", ws.root / "asked"
    gpg.write_text(GPG.replace("{asked}", str(asked)))
    gpg.chmod(0o755)
    ws.git("config", "commit.gpgsign", "true")
    ws.git("config", "gpg.program", str(gpg))
    ws.config('[git]\ncommit = "supervisor"\ntimeout_sec = 20\n')
    ws.script({"write": {"a.txt": "agent"}, "block": {"completed": True}})
    assert ws.run() == 0
    assert asked.exists()
    (line,) = ws.journal()
    assert line["commit"] == ""
    assert "gpg failed to sign" in line["keep_error"]
    assert "not committed" in str(ws.status()["warnings"])
    assert ws.status()["owed"]["count"] == 1
    ws.git("config", "commit.gpgsign", "false")
    (ws.path / ".codex-self-iter" / "STOP").unlink(missing_ok=True)
    ws.script({"write": {"b.txt": "agent"}, "block": {"completed": True}})
    assert ws.run() == 0
    assert ws.git("log", "--format=", "--name-only", "-1").split() == ["a.txt", "b.txt"]


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="NOT TESTED HERE: needs root and unshare",
)
def test_a_repository_that_is_read_only_is_said_and_the_loop_goes_on(ws: Workspace) -> None:
    ws.config('[git]\ncommit = "supervisor"\n')
    ws.script(
        {"write": {"a.txt": "agent"}}, {"write": {"b.txt": "b"}, "block": {"completed": True}}
    )
    bind = (
        f'mount --bind "{ws.path}/.git" "{ws.path}/.git"; mount -o remount,ro,bind "{ws.path}/.git"'
    )
    prefix = ["unshare", "-m", "sh", "-c", f'{bind}; exec "$@"', "sh"]
    assert ws.run(prefix=prefix) == 0
    assert ws.verdicts() == ["continue", "completed"]
    assert all("ead-only" in line["keep_error"] for line in ws.journal())
    assert "ead-only" in str(ws.status()["warnings"])
    assert "ead-only" in ws.prompt(2)
    assert sorted(ws.status()["owed"]["files"]) == ["a.txt", "b.txt"]
