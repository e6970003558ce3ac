"""The real CLIs inside the fence, against a local model server: each works a plan off to proven
completion, and nothing is warned of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from codex_self_iter.core.fence import Means
from codex_self_iter.world.process.fence_machine import look
from tests.support.agent_runs import SANDBOX_PROGRAMS, Scene, need_real
from tests.support.model_server import Step, call, fault, shell, write
from tests.support.real_program import Program, block

pytestmark = [pytest.mark.real_agents, pytest.mark.slow]

NATIVE = ("codex", "claude", "gemini", "opencode")
GATE = '[verify]\ncommands = ["test -f a.txt -a -f b.txt"]\n'
WITHOUT_HOMES = """
from codex_self_iter.core.agent_homes import HOMES
HOMES.clear()
from codex_self_iter.__main__ import main
main()
"""


class Fenced(Program):
    """The program with a fence around one of the agents, and its state beside the workspace."""

    def __init__(self, scene: Scene, agent: str, program: str, script: list[Step]) -> None:
        super().__init__(scene, agent, program, script)
        self.state = scene.base / "state"

    def fenced(self, means: Means, mode: str, *words: str, more: str = "") -> int:
        tables = f'[fence]\nlevel = "write"\nby = "{means}"\n[agents.{self.agent}]\n'
        tables += f"model = {json.dumps(self.model)}\n"
        return self.run(
            "--state-dir", str(self.state), "--agent-mode", mode, "--max-iterations", "2", *words,
            config=f"{GATE}{tables}{more}",
        )  # fmt: skip

    def log(self) -> str:
        return (self.scene.base / "program.log").read_text()


@pytest.fixture
def loop(scene: Scene) -> Iterator[Callable[..., Fenced]]:
    """Make a program over one of them."""
    made: list[Fenced] = []

    def make(agent: str, *script: Step) -> Fenced:
        made.append(Fenced(scene, agent, need_real(agent), list(script)))
        return made[-1]

    yield make
    for one in made:
        one.server.__exit__(None, None, None)


def need(means: Means) -> None:
    if flaw := look().flaw(means):
        pytest.skip(f"NOT TESTED HERE: {means}: {flaw}")


def work(agent: str, mode: str, scene: Scene) -> list[Step]:
    """A new file, another one by a command, and both items ticked, by a command that puts a new
    file in the plan's place. Gemini has no commands in safe mode."""
    at = str(scene.workspace)
    if (agent, mode) == ("gemini", "safe"):
        old, new = "- [ ] make b", "- [x] make b"
        edit = {"file_path": f"{at}/plan.md", "instruction": "x"}
        return [
            write(f"{at}/a.txt", "a"),
            write(f"{at}/b.txt", "b"),
            call("replace", **edit, old_string="- [ ] make a", new_string="- [x] make a"),
            call("replace", **edit, old_string=old, new_string=new),
        ]
    command = "ls; echo b > b.txt; sed -i 's/\\[ \\]/[x]/' plan.md"
    return [write(f"{at}/a.txt", "a"), shell(command)]


@pytest.mark.parametrize("agent", NATIVE)
@pytest.mark.parametrize(
    ("means", "mode"), [(Means.NAMESPACES, "safe"), (Means.LANDLOCK, "bypass")]
)
def test_a_plan_is_worked_off_inside_the_fence(
    scene: Scene,
    loop: Callable[..., Fenced],
    agent: str,
    means: Means,
    mode: str,
) -> None:
    need(means)
    if (agent, mode) == ("claude", "safe") and not all(map(shutil.which, SANDBOX_PROGRAMS)):
        pytest.skip(f"NOT TESTED HERE: claude's sandbox needs {' and '.join(SANDBOX_PROGRAMS)}")
    ours = loop(agent, *work(agent, mode, scene), block("Made both.", completed=True))
    assert ours.fenced(means, mode) == 0, ours.log()[-4000:]
    (record,) = ours.journal()
    assert record["verdict"] == "completed"
    assert record["changed_files"] == ["a.txt", "b.txt", "plan.md"]
    assert record["refused"] == []
    assert f"by={means}" in ours.log()
    told = [line for line in ours.log().splitlines() if "[warning" in line]
    assert [line for line in told if "has gaps on this machine" not in line] == []


@pytest.mark.parametrize("agent", ["codex", "claude"])
def test_a_conversation_goes_on_inside_the_fence(loop: Callable[..., Fenced], agent: str) -> None:
    need(Means.NAMESPACES)
    ours = loop(agent, block("First."), block("Second."))
    assert (
        ours.fenced(Means.NAMESPACES, "bypass", "--no-change-gate", "0", more="resume = true\n")
        == 0
    )
    assert "First." in json.dumps(ours.server.main_asks[1].body)


@pytest.mark.parametrize("agent", ["codex", "claude"])
def test_where_its_own_sandbox_cannot_work_the_start_says_what_to_do(
    scene: Scene,
    loop: Callable[..., Fenced],
    agent: str,
) -> None:
    need(Means.LANDLOCK)
    if agent == "claude" and not look().bwrap:
        pytest.skip("NOT TESTED HERE: without bubblewrap claude has no sandbox")
    ours = loop(agent, fault("silent"))
    assert ours.fenced(Means.LANDLOCK, "safe") == 2
    said = (
        f'(landlock: {agent}\'s own sandbox cannot work inside it); set [fence] by to "auto", or set '
        'agent_mode to "bypass", as the fence holds the agent without its own sandbox'
    )
    assert said in ours.log()
    assert ours.server.asks == []


def test_without_its_home_an_agent_is_stopped_by_the_fence_and_that_is_said(
    scene: Scene,
    loop: Callable[..., Fenced],
) -> None:
    """What the table of homes is for: cleared, codex cannot start."""
    need(Means.NAMESPACES)
    ours = loop("codex", fault("silent"))
    place = scene.base / "without"
    place.mkdir()
    config = place / "loop.toml"
    argv = [
        sys.executable, "-c", WITHOUT_HOMES, "--workspace", str(scene.workspace), "--agent", "codex",
        "--config", str(config), "--state-dir", str(ours.state), "--max-consecutive-errors", "1",
        "--agent-mode", "bypass",
    ]  # fmt: skip
    for more, told in (
        ("", "its fence lets codex write nothing beside the workspace"),
        (
            f"[agents.codex.fence]\nallow_write = [{json.dumps(str(place))}]\n",
            f"its fence lets codex write {place.resolve()} beside the workspace",
        ),
    ):
        config.write_text(f'{GATE}[fence]\nlevel = "write"\nby = "namespaces"\n{more}')
        done = subprocess.run(
            argv, env=scene.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 4, done.stderr
        assert told in done.stderr
        assert "[agents.codex.fence] allow_write opens more" in done.stderr
    assert {record["failure_class"] for record in ours.journal()} == {"sandbox"}
    assert ours.server.asks == []
    assert os.listdir(scene.home / ".codex") == ["config.toml"]
