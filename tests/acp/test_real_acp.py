"""Real agents over ACP, against a local model server: the whole program, and what each does in its
own way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import AgentConfig
from tests.agents.conftest import scene  # noqa: F401
from tests.support.acp_agents import program, surroundings
from tests.support.agent_runs import go
from tests.support.model_server import ModelServer, fault, say, shell, write
from tests.support.real_program import Program, block

pytestmark = [pytest.mark.real_agents, pytest.mark.slow]

ONLY_ACP = ["copilot", "qwen", "vibe", "kilo"]
NATIVE = ["gemini", "opencode", "codex", "claude"]


class Loop(Program):
    """The program over an agent that speaks ACP."""

    def configure(self, program):
        self.scene.environment |= surroundings(self.agent, self.scene, self.server.url)
        self.tables = f"[agents.{self.agent}]\nbinary = {json.dumps(program)}\n"
        if self.agent in NATIVE:
            self.tables += 'protocol = "acp"\n'

    def start(self, *words, config=""):
        return super().start(*words, config=config + self.tables)

    def cli(self, *words):
        """Another command on the same workspace."""
        return subprocess.run(
            [sys.executable, "-m", "codex_self_iter", *words],
            cwd=self.scene.workspace, env=self.scene.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def log(self):
        path = self.scene.base / "program.log"
        return path.read_text() if path.exists() else ""

    def exists(self, name):
        """Wait until the agent's tool has made this file."""
        self.until((self.scene.workspace / name).exists, 150)

    def asked(self):
        """The model requests so far, as text."""
        return [json.dumps(ask.body) for ask in self.server.main_asks]

    def of_run(self, what):
        """The host of the present run, or its agent."""
        left = [(one, one.cmdline()) for one in self.scene.left()]
        (host,) = (one for one, line in left if "codex_self_iter.acp_host" in " ".join(line))
        (agent,) = host.children()
        return host if what == "host" else agent


def installed(name):
    """The program of an agent; the test is skipped without it."""
    path = program(name)
    if not os.access(path, os.X_OK):
        missing = f"the real {name} CLI is not installed; run scripts/install-real-agents.sh"
        if os.environ.get("CODEX_SELF_ITER_REQUIRE_REAL_AGENTS") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return str(path)


@pytest.fixture
def loop(scene):  # noqa: F811
    """Make a program over one of them."""
    made = []

    def make(name, *script):
        made.append(Loop(scene, name, installed(name), list(script)))
        return made[-1]

    yield make
    for one in made:
        one.server.__exit__(None, None, None)


@pytest.mark.parametrize("name", ONLY_ACP)
def test_a_plan_is_worked_off_to_proven_completion_in_safe_mode(scene, loop, name):  # noqa: F811
    """What it edits in the workspace is allowed; commands and edits elsewhere are refused, and the
    next prompt says so."""
    files = scene.workspace, scene.base / "home"
    ours = loop(
        name,
        write(str(files[0] / "a.txt"), "a"),
        *([] if name == "copilot" else [shell("touch commanded")]),
        block("Made a.", next_goal="Make b."),
        *([] if name == "copilot" else [write(str(files[1] / "outside.txt"), "x")]),
        write(str(files[0] / "b.txt"), "b"),
        block("Made b.", completed=True),
    )
    config = '[verify]\ncommands = ["test -f a.txt -a -f b.txt"]\n'
    code = ours.run("--max-iterations", "3", config=config, timeout=400)
    assert code == 0, ours.log()[-4000:]
    records = ours.journal()
    assert [record["verdict"] for record in records] == ["continue", "completed"]
    assert records[0]["changed_files"] == ["a.txt"]
    assert records[1]["goal_in"] == "Make b."
    print([record["usage"] for record in records], [record["cost_usd"] for record in records])
    print(len(ours.server.asks), len(ours.server.main_asks))
    assert not (scene.workspace / "commanded").exists()
    assert not (files[1] / "outside.txt").exists()
