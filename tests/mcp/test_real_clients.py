"""The real programs as clients, against a local model server: what a tool says reaches the model, and
no server outlives its client. The lines of docs/mcp.md that add it are typed here."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.claims.documents import ROOT
from tests.support.agent_runs import Scene, claude_config, codex_config, gemini_config, need_real
from tests.support.control_steps import CLAIM
from tests.support.harness import Workspace, wait_until
from tests.support.mcp_client import servers
from tests.support.model_server import Ask, ModelServer, Step, call, say

pytestmark = [pytest.mark.real_agents, pytest.mark.slow]
PAGE = (ROOT / "docs" / "mcp.md").read_text(encoding="utf-8")
ADDING = dict(re.findall(r"^\| [^|]+ \| `((\w+) [^`]+)` \|$", PAGE, re.MULTILINE))
SUMMARY = "planted the larch"
NAMES = {
    "claude": ("mcp__codex-self-iter__history", ""),
    "codex": ("history", "mcp__codex_self_iter"),
    "gemini": ("mcp_codex-self-iter_history", ""),
    "copilot": ("codex-self-iter-history", ""),
}


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A loop that has ended, and our program on PATH."""
    ws = Workspace(tmp_path_factory.mktemp("clients"), "shop")
    ws.environment = ws.with_command()
    ws.config()
    ws.script({**CLAIM, "block": {"completed": True, "summary": SUMMARY}})
    assert ws.run() == 0, ws.log()
    yield ws
    ws.close()


@pytest.fixture
def scene(loop: Workspace) -> Iterator[Scene]:
    """A home of its own; nothing of what was changed stays."""
    with tempfile.TemporaryDirectory(prefix="csi-", ignore_cleanup_errors=True) as base:
        scene = Scene(Path(base))
        for name in ("PATH", "XDG_STATE_HOME"):
            scene.environment[name] = loop.environment[name]
        yield scene
        (loop.state / "PAUSE").unlink(missing_ok=True)
        scene.check_nothing_left()


def prepared(name: str, scene: Scene, url: str) -> list[str]:
    """The command that asks something, once the program finds the model server."""
    program = need_real(name)
    configure: dict[str, Any] = {
        "claude": claude_config,
        "codex": codex_config,
        "gemini": gemini_config,
    }
    if name in configure:
        configure[name](program, scene, url)
    else:
        scene.environment |= {
            "COPILOT_PROVIDER_BASE_URL": f"{url}/v1", "COPILOT_PROVIDER_TYPE": "openai",
            "COPILOT_PROVIDER_API_KEY": "none", "COPILOT_MODEL": "gpt-4.1", "COPILOT_OFFLINE": "true",
        }  # fmt: skip
    asking = {
        "claude": ["-p", "hi", "--allowedTools", NAMES["claude"][0]],
        "codex": ["exec", "hi"],
        "gemini": ["-p", "hi", "-m", "gemini-2.5-pro", "--approval-mode", "yolo", "--skip-trust"],
        "copilot": ["-p", "hi", "--allow-all-tools"],
    }
    return [program, *asking[name]]


def line_of(name: str) -> str:
    """The command of the page that adds the server."""
    return next(line for line, word in ADDING.items() if word == name)


def asked(
    scene: Scene, name: str, line: str, *flags: str, tool: str = "history", **given: Any
) -> str:
    """Add the server and ask the program something: what its model gets after the call of a tool."""
    called, namespace = NAMES[name]
    called = called.replace("history", tool)
    asks: list[Ask] = []

    def answer(ask: Ask) -> Step:
        asks.append(ask)
        wanted = call(called, workspace="shop", **given) if len(asks) == 1 else say("the end")
        return Step(wanted.kind, wanted.text, namespace, options=wanted.options)

    def do(*argv: str) -> str:
        done = subprocess.run(
            argv, cwd=scene.workspace, env=scene.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with ModelServer(answer) as server:
        argv = prepared(name, scene, server.url)
        do(argv[0], *shlex.split(line)[1:])
        assert "the end" in do(*argv, *flags)
    assert SUMMARY not in json.dumps(asks[0].body)
    wait_until(lambda: not servers(str(scene.home)), "the server to end with its client")
    return json.dumps(asks[1].body)


def with_state(line: str, scene: Scene) -> str:
    """The line for a program that hands no variable on."""
    return line.replace(" -- ", f" --env XDG_STATE_HOME={scene.environment['XDG_STATE_HOME']} -- ")


@pytest.mark.parametrize("name", NAMES)
def test_what_a_tool_says_reaches_the_model(scene: Scene, name: str) -> None:
    line, own = line_of(name), {"wait_for_previous": True} if name == "gemini" else {}
    line = with_state(line, scene) if name == "codex" else line
    assert SUMMARY in asked(scene, name, line, **own)


def test_codex_hands_no_variable_of_ours_on(scene: Scene) -> None:
    assert "no loop is called 'shop'" in asked(scene, "codex", line_of("codex"))


@pytest.mark.parametrize(
    ("name", "words"), [("codex", "requires approval"), ("claude", "requested permissions")]
)
def test_a_program_asks_before_a_tool_changes_something(
    scene: Scene, loop: Workspace, name: str, words: str
) -> None:
    line = with_state(line_of(name), scene) + " --control"
    heard = asked(scene, name, line, tool="pause")
    assert words in heard
    assert not (loop.state / "PAUSE").exists()


def test_codex_asks_no_more_where_it_is_told_so(scene: Scene, loop: Workspace) -> None:
    (mode,) = re.findall(r"`(mcp_servers\.\S+ = \S+)`", PAGE)
    line = with_state(line_of("codex"), scene) + " --control"
    asked(scene, "codex", line, "-c", mode.replace(" ", ""), tool="pause")
    assert (loop.state / "PAUSE").exists()
