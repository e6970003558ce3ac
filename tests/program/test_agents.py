"""Which agent takes a run: fallback while the preferred one is limited or broken, and the way back.

The preferred agent here is a stand-in for the codex program that fails as the real one was measured
to fail (the real one is run in tests/agents); what is tested is the supervisor's choice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.harness import Workspace, wait_until

CODEX = """#!/bin/sh
# Prints what codex prints; the case is in the file `mode` beside this script.
cat >/dev/null
echo '{"type":"thread.started","thread_id":"0197a000-0000-7000-8000-000000000001"}'
echo '{"type":"turn.started"}'
case "$(cat "$(dirname "$0")/mode")" in
limit) echo '{"type":"turn.failed","error":{"message":"rate limit exceeded: slow down. Please try again in 3s."}}'; exit 1;;
quota) echo '{"type":"turn.failed","error":{"message":"You have hit your usage limit. Try again later."}}'; exit 1;;
auth) echo '{"type":"turn.failed","error":{"message":"unexpected status 401 Unauthorized: no, url: x"}}'; exit 1;;
esac
echo '{"type":"item.completed","item":{"id":"item_0","type":"agent_message","text":"{\\"summary\\":\\"by codex\\",\\"next_goal\\":\\"on\\",\\"stop\\":false,\\"reason\\":\\"r\\",\\"evidence\\":[],\\"completed\\":true}"}}'
echo '{"type":"turn.completed","usage":{"input_tokens":100,"cached_input_tokens":40,"output_tokens":10,"reasoning_output_tokens":0}}'
"""  # noqa: E501


@pytest.fixture
def mode(ws: Workspace) -> Path:
    """The file that says how the stand-in fails."""
    binary = ws.root / "bin" / "codex"
    binary.parent.mkdir()
    binary.write_text(CODEX)
    binary.chmod(0o755)
    ws.config(
        (
            f'[agents]\norder = ["codex", "command"]\n[agents.codex]\nbinary = '
            f"{json.dumps(str(binary))}\n"
        ),
        agent="codex",
    )
    return binary.parent / "mode"


def alone(ws: Workspace, keys: str = "") -> None:
    """Take the fallback away."""
    config = ws.path / "codex-self-iter.toml"
    config.write_text(keys + config.read_text().replace('["codex", "command"]', '["codex"]'))


@pytest.mark.slow
def test_the_next_agent_takes_over_and_the_first_comes_back(ws: Workspace, mode: Path) -> None:
    mode.write_text("limit")
    ws.script(
        {"append": {"w": "1"}, "block": {"next_goal": "one"}},
        {"sleep": 10, "until": "go", "append": {"w": "1"}},
    )
    process = ws.start()
    ws.wait_runs(2)
    mode.write_text("fine")
    wait_until(lambda: ws.journal()[0]["verdict"] == "limited", "the limit in the journal")
    # The margin after a limit's end is five seconds and a little; the second run of the fallback
    # lasts longer.
    assert ws.ended(process) == 0
    journal = ws.journal()
    assert [line["agent"] for line in journal] == ["codex", "command", "command", "codex"]
    assert ws.verdicts()[0] == "limited"
    assert ws.verdicts()[-1] == "completed"
    assert journal[-1]["usage"]["total_tokens"] == 110
    assert journal[-1]["cost_usd"] is None


@pytest.mark.slow
def test_a_lone_limited_agent_waits_and_is_not_started_into_the_limit(
    ws: Workspace, mode: Path
) -> None:
    alone(ws)
    mode.write_text("limit")
    process = ws.start()
    status = ws.wait_state("limited")
    assert status["wait"]["kind"] == "limit"
    assert status["until"]
    mode.write_text("fine")
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["limited", "completed"]


def test_a_login_fault_is_blocked_and_needs_a_human(ws: Workspace, mode: Path) -> None:
    alone(ws, "max_consecutive_errors = 2\n")
    mode.write_text("auth")
    assert ws.run() == 4
    assert ws.status()["state"] == "blocked"
    assert [line["failure_class"] for line in ws.journal()] == ["auth", "auth"]


@pytest.mark.slow
def test_messages_wait_for_a_run_that_does_work(ws: Workspace, mode: Path) -> None:
    alone(ws)
    mode.write_text("limit")
    assert ws.cli("steer", "mind the gap").returncode == 0
    process = ws.start()
    ws.wait_state("limited")
    mode.write_text("fine")
    assert ws.ended(process) == 0
    prompts = sorted((ws.state / "prompts").iterdir())
    assert "mind the gap" in prompts[-1].read_text()
