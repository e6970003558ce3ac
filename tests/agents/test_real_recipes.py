"""The templates that docs/agents.md gives for other CLIs, each with the newest real one of its name,
against a local model server."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest

from tests.support.harness import Workspace
from tests.support.model_server import ModelServer, answer, say, shell

pytestmark = [pytest.mark.real_agents, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
RECIPE = re.compile(r"^\| (\w+) \| `(agent_command_template = .*)` \|$", re.MULTILINE)
RECIPES = dict(RECIPE.findall((ROOT / "docs" / "agents.md").read_text(encoding="utf-8")))
DONE = {"summary": "made a.txt", "next_goal": "", "stop": False, "completed": True}


def surroundings(name: str, url: str) -> dict[str, str]:
    """The variables by which each CLI finds the server, without a login."""
    openai = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_BASE": f"{url}/v1",
              "OPENAI_API_KEY": "sk-none", "OPENAI_MODEL": "m"}  # fmt: skip
    return {
        "qwen": openai,
        "aider": openai | {"AIDER_MODEL": "openai/m", "AIDER_ANALYTICS": "false",
                           "AIDER_CHECK_UPDATE": "false"},
        "copilot": {"COPILOT_PROVIDER_BASE_URL": f"{url}/v1", "COPILOT_PROVIDER_TYPE": "openai",
                    "COPILOT_PROVIDER_API_KEY": "none", "COPILOT_MODEL": "gpt-4.1",
                    "COPILOT_OFFLINE": "true"},
    }[name]  # fmt: skip


EDIT = {
    "aider": [say("a.txt\n```\nhi\n```\n\n" + json.dumps(DONE))],  # it reads edits in the answer
    "copilot": [shell("echo hi > a.txt"), answer(DONE)],
    "qwen": [shell("echo hi > a.txt"), answer(DONE)],
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_recipe_works_with_the_real_cli(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    program: Path = request.getfixturevalue(f"real_{name}")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / name).symlink_to(program)
    ws = Workspace(tmp_path)
    try:
        with ModelServer(EDIT[name], tools=name != "aider") as server:
            given = surroundings(name, server.url)
            given["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
            ws.config(agent_command_template=tomllib.loads(RECIPES[name])["agent_command_template"])
            assert ws.run("--max-iterations", "1", patience=300, environment=given) == 0, ws.log()
        assert ws.verdicts() == ["completed"], ws.journal()
        assert (ws.path / "a.txt").read_text() == "hi\n"
        (output,) = (ws.state / "logs" / "runs").rglob("stdout.log")
        assert "://" not in output.read_text(), "nothing is opened in a browser"
    finally:
        ws.close()
