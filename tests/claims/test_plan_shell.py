"""docs/plan-shell.md, tried through the whole loop and by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from tests.support.harness import Workspace
from tests.support.program import PROGRAM

CAN_UNSHARE = os.geteuid() == 0 and shutil.which("unshare") is not None
MAKE = "- [ ] make\n  ```sh\n  {}\n  ```\n"


def loop(ws: Workspace, plan: str, tables: str = "", **keys: object) -> None:
    ws.plan(plan)
    ws.config(tables, agent_command_template="", agent="plan-shell", **keys)


def by_hand(ws: Workspace, plan: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    """One step as the documentation tells it: exit code, control block, output."""
    ws.plan(plan)
    words = [
        PROGRAM[0],
        "-m",
        "codex_self_iter.plan_shell",
        "--workspace",
        ".",
        "--plan",
        "plan.md",
    ]
    done = subprocess.run(
        words, cwd=ws.path, env=ws.environment | environment, capture_output=True, text=True,
        timeout=60, check=False, input="never read\n",
    )  # fmt: skip
    _, fence, block = done.stdout.rpartition("```json\n")
    return done.returncode, json.loads(block.removesuffix("```\n")) if fence else {}, done.stdout


def test_it_needs_neither_key_nor_network(ws: Workspace) -> None:
    loop(ws, MAKE.format("echo $HOME > made") + MAKE.format("cat made > made-too"))
    ws.environment = {
        key: value
        for key, value in ws.environment.items()
        if "KEY" not in key and "TOKEN" not in key
    }
    assert ws.run(prefix=("unshare", "-n") if CAN_UNSHARE else ()) == 0, ws.log()
    assert ws.verdicts() == ["continue", "completed"]  # one item each run
    assert (ws.path / "made-too").exists()
    assert (ws.path / "plan.md").read_text().count("[x]") == 2
    assert ws.git("log", "--oneline").count("\n") == 1  # it commits nothing by itself


def test_it_may_be_asked_for_on_the_command_line(ws: Workspace) -> None:
    loop(ws, MAKE.format("touch made"))
    (ws.path / "codex-self-iter.toml").unlink()
    assert ws.run("--agent", "plan-shell") == 0, ws.log()
    assert (ws.path / "made").exists()


def test_a_message_has_no_effect_on_it(ws: Workspace) -> None:
    loop(ws, MAKE.format("touch made"))
    assert ws.cli("steer", "touch other instead").returncode == 0
    assert ws.run() == 0
    assert (ws.path / "made").exists()
    assert not (ws.path / "other").exists()


def test_its_commands_get_no_input_and_none_of_our_keys(ws: Workspace) -> None:
    look = "cat > got; env > env.txt; echo to-out; echo to-err >&2"
    loop(ws, MAKE.format(look), '[agents.plan-shell]\npass_env = ["GH_TOKEN"]\n')
    assert ws.run(environment={"ACME_SECRET": "s" * 20, "GH_TOKEN": "t" * 20, "PLAIN": "p"}) == 0
    assert (ws.path / "got").read_text() == ""
    found = (ws.path / "env.txt").read_text()
    assert "GH_TOKEN=" in found
    assert "PLAIN=p" in found
    assert "ACME_SECRET" not in found
    shown = ws.cli("logs", "1").stdout
    assert "to-out" in shown
    assert "to-err" in shown


def test_a_failing_command_is_tried_again_with_backoff(ws: Workspace) -> None:
    loop(ws, MAKE.format("test -e second || { touch second; exit 7; }"))
    assert ws.run() == 0, ws.log()
    assert ws.verdicts() == ["error", "completed"]
    assert ws.journal()[0]["wait"]["kind"] == "error"
    assert "7" in ws.journal()[0]["error"]


def test_the_loop_commits_where_it_is_asked_to(ws: Workspace) -> None:
    loop(ws, MAKE.format("touch made"), '[git]\ncommit = "supervisor"\n')
    assert ws.run() == 0
    assert "made" in ws.git("show", "--name-only", "--format=", "HEAD").split()


FENCES = {
    "indented": "- [ ] a\n\n    ```sh\n    touch ran\n    ```\n",
    "not indented": "- [ ] a\n```sh\ntouch ran\n```\n",
    "star": "* [ ] a\n  ```shell\n  touch ran\n  ```\n",
    "plus": "+ [ ] a\n  ```sh\n  touch ran\n  ```\n",
    "1.": "1. [ ] a\n   ```sh\n   touch ran\n   ```\n",
    "1)": "1) [ ] a\n   ```sh\n   touch ran\n   ```\n",
    "deep": "- a\n  - b\n    - [ ] c\n      ```sh\n      touch ran\n      ```\n",
    "bash": "- [ ] a\n  ```bash\n  [[ -f plan.md ]] && touch ran\n  ```\n",
    "console": "- [ ] a\n  ```console\n  $ touch ran\n  touch output\n  ```\n",
}


@pytest.mark.parametrize("how", FENCES)
def test_what_it_reads_it_runs(ws: Workspace, how: str) -> None:
    code, block, _ = by_hand(ws, FENCES[how])
    assert code == 0
    assert block["completed"] is True
    assert (ws.path / "ran").exists()
    assert not (ws.path / "output").exists()


TEXT = {
    "python": "- [ ] a\n  ```python\n  open('ran', 'w')\n  ```\n",
    "none": "- [ ] a\n  ```\n  touch ran\n  ```\n",
    "after a heading": "- [ ] a\n\n## b\n\n```sh\ntouch ran\n```\n",
    "after a ruler": "- [ ] a\n\n---\n\n```sh\ntouch ran\n```\n",
}


@pytest.mark.parametrize("how", TEXT)
def test_what_is_text_it_does_not_run(ws: Workspace, how: str) -> None:
    code, block, _ = by_hand(ws, TEXT[how])
    assert (code, block["stop"], block["completed"]) == (0, True, False)
    assert "a" in block["reason"]
    assert not (ws.path / "ran").exists()


def test_checkboxes_in_fences_and_comments_are_no_items(ws: Workspace) -> None:
    plan = "```\n- [ ] in a fence\n```\n<!-- - [ ] in a comment -->\n- [x] done\n"
    code, block, _ = by_hand(ws, plan)
    assert (code, block["completed"]) == (0, True)
    assert "1 of 1" in block["reason"]


def test_a_parent_is_ticked_after_its_items(ws: Workspace) -> None:
    plan = "- [ ] all\n  - [ ] one\n    ```sh\n    true\n    ```\n"
    by_hand(ws, plan)
    text = (ws.path / "plan.md").read_text()
    assert "- [x] one" in text
    code, block, _ = by_hand(ws, text)
    assert (code, block["completed"]) == (0, True)
    assert "- [x] all" in (ws.path / "plan.md").read_text()


ANSWERS: list[tuple[str, str, int, dict[str, Any]]] = [
    (
        "open items remain",
        MAKE.format("true") + "- [ ] b\n",
        0,
        {"completed": False, "stop": False},
    ),
    ("the last one", MAKE.format("true"), 0, {"completed": True}),
    ("nothing was open", "- [x] a\n", 0, {"completed": True}),
    ("a command fails", MAKE.format("exit 3"), 1, {"completed": False, "stop": False}),
    ("prose", "- [ ] think\n", 0, {"stop": True}),
    ("never closed", "- [ ] a\n  ```sh\n  touch ran\n", 0, {"stop": True}),
    ("no checkboxes", "# Plan\n\nwords\n", 0, {"stop": True}),
]


@pytest.mark.parametrize(("case", "plan", "code", "answer"), ANSWERS, ids=[a[0] for a in ANSWERS])
def test_each_case_is_answered_as_its_row_says(
    ws: Workspace, case: str, plan: str, code: int, answer: dict[str, Any]
) -> None:
    ended, block, _ = by_hand(ws, plan)
    assert ended == code
    assert answer.items() <= block.items()
    ticked = (ws.path / "plan.md").read_text() != plan
    assert ticked is (case in ("open items remain", "the last one"))
    if case == "open items remain":
        assert "b" in block["next_goal"]
    if case == "a command fails":
        assert "line 2" in block["reason"] or "line 3" in block["reason"]
        assert "3" in block["reason"]
    assert not (ws.path / "ran").exists()


@pytest.mark.parametrize("without", ["plan", "workspace"])
def test_without_plan_or_workspace_there_is_one_line(ws: Workspace, without: str) -> None:
    (ws.path / "plan.md").unlink()
    where = str(ws.path if without == "plan" else ws.root / "nowhere")
    words = [PROGRAM[0], "-m", "codex_self_iter.plan_shell", "--workspace", where]
    done = subprocess.run(words, env=ws.environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
