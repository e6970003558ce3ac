"""The whole program over one workspace and a real agent, against a local model server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import codex_self_iter
from tests.support.agent_runs import (
    claude_config,
    codex_config,
    gemini_config,
    lines_of,
    opencode_config,
)
from tests.support.model_server import ModelServer, answer

CONFIGS = {
    "codex": codex_config,
    "claude": claude_config,
    "gemini": gemini_config,
    "opencode": opencode_config,
}
SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(codex_self_iter.__file__)))


def block(summary="Did a thing.", *, next_goal="Go on.", completed=False):
    """A step that answers with a control block."""
    fields = {"reason": "", "evidence": [], "stop": False}
    return answer({"summary": summary, "next_goal": next_goal, "completed": completed} | fields)


class Program:
    """The program over one workspace, with one of the agents."""

    def __init__(self, scene, agent, program, script):
        self.scene, self.agent = scene, agent
        self.server = ModelServer(script).__enter__()
        self.configure(program)
        scene.environment["PYTHONPATH"] = SOURCE
        (scene.workspace / "plan.md").write_text("- [ ] make a.txt\n- [ ] make b.txt\n")
        (scene.workspace / "TASK.md").write_text("Make two files.\n")
        self.state = scene.workspace / ".codex-self-iter"

    def configure(self, program):
        """Lead the agent to the server."""
        config = CONFIGS[self.agent](program, self.scene, self.server.url)
        self.model = config.model
        environment = self.scene.environment
        environment["PATH"] = f"{os.path.dirname(program)}:{environment['PATH']}"

    def start(self, *words, config=""):
        path = self.scene.base / "loop.toml"
        path.write_text(config)
        argv = [sys.executable, "-m", "codex_self_iter", "--workspace", str(self.scene.workspace)]
        argv += ["--config", str(path), "--agent", self.agent, "--no-change-backoff-sec", "0.1"]
        with open(self.scene.base / "program.log", "ab") as log:
            return subprocess.Popen(
                [*argv, "--backoff-base-sec", "0.2", *words],
                env=self.scene.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def run(self, *words, config="", timeout=120.0):
        process = self.start(*words, config=config)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError((self.scene.base / "program.log").read_text()[-4000:]) from None
        finally:
            process.wait()

    def journal(self):
        return list(lines_of(self.state / "logs" / "iterations.jsonl"))

    def status(self):
        try:
            return json.loads((self.state / "status.json").read_text())
        except (OSError, ValueError):
            return {}

    def until(self, true, seconds=60.0):
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, (self.scene.base / "program.log").read_text()[-4000:]
            time.sleep(0.05)
