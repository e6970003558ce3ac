"""What an agent has answered counts, whatever becomes of its process: the most reported loss of all.

The agent is a stand-in that prints what claude prints and then does not end, or ends oddly."""

from __future__ import annotations

import json

import pytest

from tests.support.harness import Workspace, wait_until

BLOCK = {
    "summary": "did it", "next_goal": "n", "stop": False, "reason": "r", "evidence": [],
    "completed": True,
}  # fmt: skip
INIT = json.dumps({"type": "system", "subtype": "init", "session_id": "s", "model": "m"})
TOOL = {"type": "tool_result", "tool_use_id": "t", "content": f"{json.dumps(BLOCK)}"}


def result(**more: object) -> str:
    said = {"type": "result", "subtype": "success", "session_id": "s", "result": json.dumps(BLOCK)}
    return json.dumps({**said, "usage": {"input_tokens": 5, "output_tokens": 2}, **more})


def agent(ws: Workspace, *lines: str, tables: str = "", **keys: object) -> None:
    """Let a program that does this be the claude program."""
    binary = ws.root / "bin" / "claude"
    binary.parent.mkdir()
    (ws.root / "init").write_text(INIT + "\n")
    (ws.root / "result").write_text(result() + "\n")
    head = f'#!/bin/sh\ncd "{ws.root}"\ncat >/dev/null\ncat init\n'
    binary.write_text(head + "\n".join(lines) + "\n")
    binary.chmod(0o755)
    table = f"[agents.claude]\nbinary = {json.dumps(str(binary))}\n{tables}\n"
    ws.config(table, agent="claude", **keys)


@pytest.mark.parametrize(
    ("lines", "cause", "ended"),
    [
        (("cat result", "exec sleep 600"), "lingered", None),
        (("cat result; echo hm >&2", "while :; do echo hm >&2; sleep 0.2; done"), "lingered", None),
        (('printf %s "$(cat result)"', "exec sleep 600"), "lingered", None),
        (("cat result result", "exec sleep 600"), "lingered", None),
        (("cat result", "exit 1"), "exit", 1),
        (("cat result", "kill -PIPE $$"), "exit", None),
    ],
)
def test_an_answer_is_used_although_its_process_lingers_or_ends_oddly(
    ws: Workspace, lines: tuple[str, ...], cause: str, ended: int | None
) -> None:
    linger_sec = 1 if cause == "lingered" else 60
    agent(ws, *lines, tables=f"linger_sec = {linger_sec}", idle_timeout_sec=600)
    assert ws.run() == 0
    assert ws.status()["state"] == "completed"
    (line,) = ws.journal()
    assert (line["verdict"], line["summary"], line["cause"]) == ("completed", "did it", cause)
    if cause == "exit":
        assert line["exit_code"] == ended
    assert line["usage"]["total_tokens"] == 7
    assert "run.answered" in ws.log()
    assert ws.leftovers() == []


RETRY = json.dumps({"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 2})


@pytest.mark.parametrize("answers", [True, False])
def test_a_stop_during_the_lingering_keeps_the_answer(ws: Workspace, answers: bool) -> None:
    (ws.root / "retry").write_text(RETRY + "\n")
    more = "cat result" if answers else "cat init; sed 's/result/user/' result"
    lines = ("cat retry", "until [ -e go ]; do sleep 0.1; done", more, "exec sleep 600")
    agent(ws, *lines, tables="linger_sec = 0", idle_timeout_sec=600)
    (ws.root / "result").write_text(result(result=json.dumps({**BLOCK, "completed": False})) + "\n")

    def retrying() -> bool:
        return bool((ws.status().get("run") or {}).get("retrying"))

    process = ws.start()
    wait_until(retrying, "the run to wait for its model")
    (ws.root / "go").touch()
    wait_until(lambda: ws.status()["run"] and not retrying(), "what came then to be read")
    assert ws.cli("stop").returncode == 0
    assert ws.ended(process) == 0
    assert ws.status()["state"] == "stopped"
    (line,) = ws.journal()
    if answers:
        assert (line["verdict"], line["summary"]) == ("no_change", "did it")
    else:  # negative control: what is cut short before its answer has none
        assert line["verdict"] == "aborted"
    assert ws.leftovers() == []


def test_a_stop_right_after_the_final_event_keeps_the_answer(ws: Workspace) -> None:
    stop = f"sleep 0.2; touch '{ws.state}/STOP'"  # the recorder has written it down, nobody has read it
    agent(ws, "cat result", stop, "exec sleep 600", idle_timeout_sec=600)
    (ws.root / "result").write_text(result(result=json.dumps({**BLOCK, "completed": False})) + "\n")
    assert ws.run() == 0
    assert ws.status()["state"] == "stopped"
    (line,) = ws.journal()
    assert (line["verdict"], line["summary"]) == ("no_change", "did it")


@pytest.mark.slow
def test_a_time_out_during_the_lingering_takes_nothing_back(ws: Workspace) -> None:
    agent(ws, "cat result", "exec sleep 600", tables="linger_sec = 0", idle_timeout_sec=3)
    assert ws.run() == 0
    assert [line["cause"] for line in ws.journal()] == ["idle_timeout"]
    assert ws.verdicts() == ["completed"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines",
    [
        ("head -c 80 result", "exec sleep 600"),  # the stream ends in the middle of its final event
        (f"cat <<'EOF'\n{json.dumps({'type': 'user', 'session_id': 's', 'message': {'content': [TOOL]}})}\nEOF",
         "exec sleep 600"),  # a block inside a tool's result
        ("cat result init", "exec sleep 600"),  # it went on after the first final event
    ],
)  # fmt: skip
def test_without_its_final_event_nothing_was_answered(
    ws: Workspace, lines: tuple[str, ...]
) -> None:
    agent(ws, *lines, tables="linger_sec = 0.5", idle_timeout_sec=3)
    assert ws.run("--once") == 0
    assert ws.verdicts() == ["timed_out"]
