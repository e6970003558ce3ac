"""What `codex-self-iter mcp --control` changes: a real loop, with a scripted agent."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from codex_self_iter.world.process.around import inside_a_run
from tests.support.control_steps import CLAIM, long_run
from tests.support.harness import Workspace, wait_until
from tests.support.mcp_client import said, serving
from tests.support.program import PROGRAM

pytestmark = pytest.mark.skipif(inside_a_run(), reason="inside a run of ours all of it is refused")
TEXT = '- one "line"; $(touch x) ünï\n\u2028--now and another\n'


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path, "shop")
    workspace.config()
    yield workspace
    workspace.close()


def test_a_loop_is_steered_paused_and_stopped(ws: Workspace, tmp_path: Path) -> None:
    ws.script(long_run("one"), long_run("two"), long_run())
    supervisor = ws.start()
    ws.wait_runs(1)
    ws.wait_state("running")
    with serving(ws.environment, tmp_path, "--control", "--loop", str(ws.path)) as client:
        assert "puts it into the next prompt" in client.call("steer", text=TEXT)["done"]
        assert "next iteration" in client.call("goal", text="- another goal")["done"]
        assert "pauses when this iteration ends" in client.call("pause")["done"]
        (ws.control / "one").touch()
        ws.wait_state("paused")
        assert client.call("status")["state"] == "paused"
        assert "goes on" in client.call("resume")["done"]
        ws.wait_runs(2)
        assert TEXT.strip() in ws.prompt(2)
        assert "- another goal" in ws.prompt(2)
        ws.wait_state("running")
        assert "ends the running agent" in client.call("steer", text="at once", now=True)["done"]
        ws.wait_runs(3)
        assert "at once" in ws.prompt(3)
        ws.wait_state("running")
        assert "lets this iteration end" in client.call("stop_after_iteration")["done"]
        assert "ends the running agent" in client.call("pause", now=True)["done"]
    assert ws.ended(supervisor) == 0
    assert not (ws.path / "x").exists()


def test_what_cannot_be_done_is_said(ws: Workspace, tmp_path: Path) -> None:
    ws.script(CLAIM)
    with serving(ws.environment, tmp_path, "--control") as client:
        for tool, given, words in (
            ("steer", {}, "'text' is missing"),
            ("steer", {"text": None}, "'text' is missing"),
            ("steer", {"text": "  \n"}, "the message is empty"),
            ("steer", {"text": "x" * 300_000}, "262144"),
            ("steer", {"text": "ü" * 200_000}, "longer than 256 KiB"),
            ("goal", {"text": "\ud800"}, "not valid text"),
            ("pause", {}, "no loop has run in"),
            ("pause", {"workspace": "nowhere"}, "no loop is called"),
            ("pause", {"workspace": str(ws.path), "now": 1}, "true or false"),
        ):
            assert words in client.wrong(tool, **given), tool
    assert not list(ws.path.glob(".codex-self-iter/inbox/*"))


def test_without_control_nothing_can_be_changed(ws: Workspace) -> None:
    with serving(ws.environment, ws.path) as client:
        for tool in ("steer", "goal", "pause", "resume", "stop_after_iteration"):
            error = client.ask("tools/call", name=tool, arguments={"text": "x"})["error"]
            assert "--control" in error["message"]
    assert not ws.state.exists()


def asking(tool: str, **arguments: str) -> str:
    """A shell command that asks a server of its own for a tool, and for the loops."""
    asked = [
        {"jsonrpc": "2.0", "id": ident, "method": "tools/call", "params": {"name": name, "arguments": given}}
        for ident, (name, given) in enumerate([(tool, arguments), ("loops", {})])
    ]  # fmt: skip
    lines = " ".join(shlex.quote(json.dumps(one)) for one in asked)
    return f"printf '%s\\n' {lines} | {shlex.join(PROGRAM)} mcp --control"


def answers(text: str) -> dict[int, tuple[bool, str]]:
    found = map(json.loads, text.splitlines())
    return {one["id"]: (one["result"]["isError"], said(one["result"])) for one in found}


@pytest.mark.parametrize("way", ["agent", "bare", "daemon", "gate"])
def test_an_agent_cannot_change_the_loop_that_runs_it(ws: Workspace, way: str) -> None:
    """Not by a server that got no variable of the run either, nor by one that left its session."""
    kept, ask = ws.control / "said", asking("pause", workspace=str(ws.path))
    bare = [
        "env",
        "-i",
        *(f"{name}={ws.environment[name]}" for name in ("PATH", "HOME", "XDG_STATE_HOME")),
    ]
    into = (
        f"> {shlex.quote(str(kept))}.new; mv {shlex.quote(str(kept))}.new {shlex.quote(str(kept))}"
    )
    whole = f"{ask} {into}"
    command = {
        "agent": whole,
        "gate": whole,
        "bare": f"{shlex.join([*bare, 'sh', '-c', whole])}",
        "daemon": f"({shlex.join(['setsid', *bare, 'sh', '-c', whole])} &) "
        f"; while ! [ -e {shlex.quote(str(kept))} ]; do sleep 0.02; done",
    }[way]
    ws.script({**CLAIM, **({} if way == "gate" else {"run": command})})
    ws.config(f"[verify]\ncommands = [{json.dumps(command)}]" if way == "gate" else "")
    assert ws.run() == 0, ws.log()
    heard = answers(kept.read_text())
    assert heard[0][0]
    assert "inside a run" in heard[0][1]
    assert heard[1] == (False, heard[1][1])
    assert str(ws.path) in heard[1][1]
    assert not (ws.state / "PAUSE").exists()


def test_the_runs_variable_is_enough_also_in_who_started_the_server(ws: Workspace) -> None:
    """As where the recorder was killed, or a system shows no names."""
    bare = shlex.join(["env", "-i", f"HOME={ws.home}"])
    for command in (asking("resume"), asking("resume").replace("| ", f"| {bare} ")):
        done = subprocess.run(
            ["sh", "-c", command], env={**ws.environment, "CODEX_SELF_ITER_RUN_ID": "r-1"},
            cwd=ws.path, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert "inside a run" in answers(done.stdout)[0][1]


def test_outside_of_a_run_the_same_is_done(ws: Workspace) -> None:
    done = subprocess.run(
        ["sh", "-c", asking("pause", workspace=str(ws.path))], env=ws.environment, cwd=ws.root,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert not answers(done.stdout)[0][0]
    wait_until((ws.state / "PAUSE").exists, "the pause")
