"""Real agents over ACP, against a local model server: the whole program, and what each does in its
own way."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import AgentConfig
from codex_self_iter.core.agent_report import FailureClass
from tests.agents.conftest import scene  # noqa: F401
from tests.support.acp_agents import program, surroundings
from tests.support.agent_runs import go
from tests.support.model_server import ModelServer, fault, say, shell, write
from tests.support.program import commands
from tests.support.real_program import Program, block

pytestmark = [pytest.mark.real_agents, pytest.mark.slow]

ONLY_ACP = ["copilot", "qwen", "vibe", "kilo"]
GATE = '[verify]\ncommands = ["test -f a.txt -a -f b.txt"]\n'
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
        left = commands(self.scene.left())  # a process of its tool may end meanwhile
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


USED = {
    "copilot": ([360, 480], [None, None]),
    "qwen": ([360, 480], [None, None]),
    "vibe": ([360, 480], [0.00036, 0.00048]),
    "kilo": ([0, 0], [0.001476, 0.001968]),
}
"""Tokens of the two runs, and what each cost."""


@pytest.mark.parametrize("name", ONLY_ACP)
def test_a_plan_is_worked_off_to_proven_completion_in_safe_mode(scene, loop, name):  # noqa: F811
    """What it edits in the workspace is allowed; a command, and an edit elsewhere or in `.git`, are
    refused, the turn goes on without them, and the next prompt says so. The session is gone on
    with."""
    outside, hook = scene.home / "outside.txt", scene.workspace / ".git" / "hooks" / "pre-commit"
    ours = loop(
        name,
        write(str(scene.workspace / "a.txt"), "a"),
        shell("touch commanded"),
        block("Made a.", next_goal="Make b."),
        write(str(outside), "x"),
        write(str(hook), "x"),
        write(str(scene.workspace / "b.txt"), "b"),
        block("Made b.", completed=True),
    )
    ours.tables += "resume = true\n"
    code = ours.run("--max-iterations", "3", config=GATE, timeout=400)
    assert code == 0, ours.log()[-4000:]
    assert ours.status()["state"] == "completed"
    records = ours.journal()
    assert [record["verdict"] for record in records] == ["continue", "completed"]
    assert [record["changed_files"] for record in records] == [["a.txt"], ["b.txt"]]
    assert records[1]["goal_in"] == "Make b."
    assert not (scene.workspace / "commanded").exists()
    assert not outside.exists()
    assert not hook.exists()
    tokens, cost = USED[name]
    assert [record["usage"]["total_tokens"] for record in records] == tokens
    assert [record["cost_usd"] for record in records] == pytest.approx(cost)
    asked = ours.asked()
    assert len(asked) == 7  # nothing hidden is taken for its conversation
    assert "Make two files." in asked[0]
    assert "Made a." in asked[3]
    assert f"{name} was not allowed to use: execute: touch commanded" in asked[3]
    assert f"{outside}" in ours.log().partition("was not allowed to use")[2]
    assert ours.server.other == []


@pytest.mark.parametrize("name", ONLY_ACP)
def test_it_survives_kills_and_takes_messages(scene, loop, name):  # noqa: F811
    """In a tool each: a message arrives, the supervisor, the host and the agent are killed, the
    loop is stopped."""
    waits = "touch in-{0}; while [ ! -e go-{0} ]; do sleep 0.1; done"
    stays = "sleep 300 & touch in-{0}; sleep 300"
    ours = loop(
        name,
        shell(waits.format(1)),
        shell(waits.format(2)),
        block("Survived.", next_goal="Go on."),
        shell(stays.format(3)),
        shell(stays.format(4)),
        shell(stays.format(5)),
    )
    words = ("--agent-mode", "bypass", "--no-change-gate", "0", "--max-consecutive-errors", "9")
    process = ours.start(*words)
    try:
        ours.exists("in-1")
        assert ours.cli("steer", "--now", "Use blue.").returncode == 0
        ours.exists("in-2")
        assert "Use blue." in ours.asked()[1]
        assert "touch in-1" in ours.asked()[1]  # in the same session
        ours.until(lambda: "run.steered" in ours.log())
        process.kill()
        process.wait()
        process = ours.start(*words)
        ours.until(lambda: "orphan.adopted" in ours.log())
        (scene.workspace / "go-2").touch()
        ours.exists("in-3")
        (first,) = ours.journal()
        assert first["summary"] == "Survived."
        assert [one["text"] for one in first["messages"]] == ["Use blue.\n"]
        ours.of_run("host").kill()
        ours.exists("in-4")
        ours.of_run("agent").kill()
        ours.exists("in-5")
        assert {one["verdict"] for one in ours.journal()[1:]} == {"error"}
        mine = {one.pid for one in scene.left()}
        (ours.state / "STOP").touch()
        assert process.wait(120) == 0, ours.log()[-4000:]
    finally:
        process.kill()
        process.wait()
    assert len(mine) > 3
    assert scene.left() == [], [line for _, line in commands(scene.left())]


@pytest.mark.parametrize("name", NATIVE)
def test_those_with_an_adapter_of_their_own_can_speak_acp(scene, loop, name):  # noqa: F811
    """Claude and codex take a message into the running turn."""
    steers, there = name in ("claude", "codex"), scene.base
    waits = f"touch {there}/in-1; while [ ! -e {there}/go-1 ]; do sleep 0.1; done"
    ours = loop(
        name,
        write(str(scene.workspace / "a.txt"), "a"),
        *([shell(waits)] if steers else []),
        write(str(scene.workspace / "b.txt"), "b"),
        block("Made both.", completed=True),
    )
    process = ours.start("--max-iterations", "1", "--agent-mode", "bypass", config=GATE)
    try:
        if steers:
            ours.until((there / "in-1").exists)
            assert ours.cli("steer", "--now", "Use blue.").returncode == 0
            ours.until(lambda: "run.steered" in ours.log())
            (there / "go-1").touch()
        assert process.wait(200) == 0, ours.log()[-4000:]
    finally:
        process.kill()
        process.wait()
    (record,) = ours.journal()
    assert record["verdict"] == "completed"
    assert record["changed_files"] == ["a.txt", "b.txt"]
    steps = 4 if steers else 3
    tokens = 0 if name == "opencode" else 120 * steps
    assert record["usage"]["total_tokens"] == tokens
    assert len(ours.asked()) == steps
    if steers:
        assert any("Use blue." in one for one in ours.asked()[2:])
        assert len(record["messages"]) == 1


def test_a_plan_is_drafted_and_nothing_is_edited(scene, loop):  # noqa: F811
    plan = "# Plan\n\n- [ ] make a.txt\n  check: test -f a.txt\n"
    planted = scene.workspace / "planted.txt"
    ours = loop("copilot", write(str(planted), "x"), say(f"I have looked.\n\n{plan}"))
    for name in ("plan.md", "TASK.md"):
        (scene.workspace / name).unlink()
    scene.environment["CODEX_SELF_ITER_AGENT"] = "copilot"
    scene.environment["PATH"] += f":{program('copilot').parent}"
    done = ours.cli("plan", "Make a.txt, please", "--yes")
    assert done.returncode == 0, done.stderr
    assert (ours.state / "plan.md").read_text() == plan
    assert "Make a.txt, please" in ours.asked()[0]
    assert not planted.exists()


def test_no_login_asks_for_a_person(loop):
    ours = loop("copilot", fault("unauthorized"))
    assert ours.run("--max-consecutive-errors", "2") == 4, ours.log()[-4000:]
    assert ours.status()["state"] == "blocked"
    assert {record["failure_class"] for record in ours.journal()} == {"auth"}


def test_a_missing_login_is_seen_without_a_question(scene):  # noqa: F811
    agent = catalog.get("copilot", AgentConfig("copilot", binary=installed("copilot")))
    assert agent.probe(scene.environment).logged_in is False
    with ModelServer([fault("unauthorized")]) as server:
        scene.environment |= surroundings("copilot", scene, server.url)
        assert agent.probe(scene.environment).logged_in is True
        assert server.asks == []


@pytest.mark.parametrize("name", ["copilot", "codex", "claude"])
def test_a_limit_is_one(scene, name):  # noqa: F811
    """Recordings have the others, and more kinds of failure."""
    config = AgentConfig(name, binary=installed(name), protocol="acp")
    with ModelServer([fault("usage_limit", headers={"Retry-After": "3600"})]) as server:
        scene.environment |= surroundings(name, scene, server.url)
        report, outcome = go(catalog.get(name, config), scene.request())
    assert outcome.exit_code == 1
    assert report.failure is not None
    assert report.failure.kind is FailureClass.LIMIT
    assert report.answer == ""
