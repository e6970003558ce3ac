"""What is kept of an agent's words: no half of a secret stays where they are cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import AgentConfig, Request
from codex_self_iter.agents.command import text_report
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core.agent_report import AgentReport
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.world.state.redact import Redactor

KEY = "q7Zr" * 15
FAILED = RunOutcome("r", EndCause.EXIT, 1, None, 0.0, 1.0)


def denied(cli: str, text: str) -> list[object]:
    """A stream in which `text` was refused."""
    if cli == "codex":
        item = {"id": "i", "type": "command_execution", "command": text, "status": "declined"}
        return [{"type": "item.completed", "item": {**item, "aggregated_output": text}}]
    if cli == "claude":
        denial = {"tool_name": "Bash", "tool_input": {"command": text}}
        done = {"type": "result", "subtype": "success", "session_id": "s", "result": "x"}
        return [{**done, "permission_denials": [denial]}]
    if cli == "gemini":
        error = {"message": f"tool x not found: {text}"}
        return [{"type": "tool_result", "tool_id": "t", "status": "error", "error": error}]
    error = f"The user rejected permission {text}"
    state = {"status": "error", "input": {"command": text}, "error": error}
    part = {"tool": "bash", "callID": "c", "state": state}
    return [{"type": "tool_use", "sessionID": "s", "part": part}]


def kept(report: AgentReport) -> str:
    return "\n".join([*report.refused, report.failure.message if report.failure else ""])


def halves(text: str) -> bool:
    return any(KEY[:size] in text for size in (8, 20, 40))


@pytest.mark.parametrize("cli", ["codex", "claude", "gemini", "opencode"])
def test_no_half_of_a_secret_stays_where_a_refusal_is_cut(cli: str, tmp_path: Path) -> None:
    redact = Redactor([KEY]).text
    request = Request("", "", "/", "", str(tmp_path), environment={"HOME": str(tmp_path)})
    seen = 0
    for before in range(150, 520, 10):
        lines = denied(cli, f"{'x' * before} {KEY} end")
        (tmp_path / "stdout.log").write_text("\n".join(map(json.dumps, lines)) + "\n")
        agent = catalog.get(cli, AgentConfig(cli))
        report = agent.read(request, FAILED, RunFiles(str(tmp_path)), now=1.0)
        assert report.refused
        assert not halves(kept(report.shown(redact)))
        assert all(len(text) <= 500 for text in report.shown(redact).refused)
        # Negative control: cut first, and half of it stays.
        seen += halves(redact(kept(report.shown(str))))
    assert seen


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_nor_where_last_words_are(stream: str, tmp_path: Path) -> None:
    redact = Redactor([KEY]).text
    for before in range(400, 520, 5):
        (tmp_path / f"{stream}.log").write_text(f"{'x' * before} {KEY} end\n")
        report = text_report(FAILED, RunFiles(str(tmp_path)), 1.0, account="")
        assert not halves(kept(report.shown(redact)))
    for after in range(4030, 4096, 5):  # a tail of 4 KiB is read
        (tmp_path / f"{stream}.log").write_text(f"x {KEY} {'y' * 50} {'z ' * (after // 2)}\n")
        report = text_report(FAILED, RunFiles(str(tmp_path)), 1.0, account="")
        assert not any(KEY[-size:] in kept(report.shown(redact)) for size in (8, 20, 40))
