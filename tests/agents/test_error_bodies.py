"""What CLIs and APIs say when a run fails, and what only sounds like it (`errors/README.md`)."""

from __future__ import annotations

import json
import pathlib
import time

import pytest

from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import AgentConfig, Request
from codex_self_iter.agents.command import text_report
from codex_self_iter.agents.failure_table import TABLE
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core import bounds
from codex_self_iter.core.agent_report import FailureClass
from codex_self_iter.core.runs import EndCause, RunOutcome

ERRORS = pathlib.Path(__file__).parent / "errors"
DOCS = pathlib.Path(__file__).parents[2] / "docs" / "agents.md"
NOW = 1_795_352_400.0
THREAD = "0197a000-0000-7000-8000-000000000001"


def bodies(name):
    lines = (ERRORS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def codex(body, home):
    failed = {"message": body["message"]}
    if "info" in body:
        day = home / ".codex/sessions/2026/11/22"
        day.mkdir(parents=True)
        error = {"message": body["message"], "codex_error_info": body["info"]}
        line = {"type": "event_msg", "payload": {"type": "task_complete", "error": error}}
        (day / f"rollout-2026-11-22T12-00-00-{THREAD}.jsonl").write_text(json.dumps(line))
    return [
        {"type": "thread.started", "thread_id": THREAD},
        {"type": "turn.started"},
        {"type": "error", **failed},
        {"type": "turn.failed", "error": failed},
    ]


def claude(body, _home):
    said = {"model": "<synthetic>", "content": [{"type": "text", "text": body["text"]}]}
    return [
        {"type": "system", "subtype": "init", "session_id": "s", "model": "m"},
        {"type": "assistant", "session_id": "s", "message": said, "error": body["error"]},
        {
            "type": "result",
            "subtype": "success",
            "is_error": True,
            "session_id": "s",
            "result": body["text"],
            "api_error_status": body["status"] or None,
        },
    ]


def gemini(body, _home):
    error = {"type": body["type"], "message": body["message"]}
    return [
        {"type": "init", "session_id": "s", "model": "m"},
        {"type": "result", "status": "error", "error": error},
    ]


def opencode(body, _home):
    data = {
        "message": body["message"],
        "statusCode": body["status"],
        "responseHeaders": body.get("headers", {}),
        "responseBody": body.get("body", ""),
    }
    return [{"type": "error", "sessionID": "s", "error": {"name": body["name"], "data": data}}]


STREAMS = {"codex": codex, "claude": claude, "gemini": gemini, "opencode": opencode}


def ended(code) -> RunOutcome:
    return RunOutcome("r", EndCause.EXIT, code, None, NOW - 10, 10.0)


def read(cli, lines, tmp_path, code=1):
    (tmp_path / "stdout.log").write_text("\n".join(map(json.dumps, lines)) + "\n")
    environment = {"HOME": str(tmp_path), "PATH": "/nowhere"}
    request = Request("", "", str(tmp_path), "", str(tmp_path), environment=environment)
    agent = catalog.get(cli, AgentConfig(cli))
    return agent.read(request, ended(code), RunFiles(str(tmp_path)), now=NOW)


def printed(body, tmp_path):
    for stream in ("stdout", "stderr"):
        (tmp_path / f"{stream}.log").write_text(body.get(stream, ""), encoding="utf-8")
    return text_report(ended(body["exit"]), RunFiles(str(tmp_path)), NOW, account="a")


def wrong(failure, body):
    """What differs from what is wanted; "" when nothing does."""
    kind = str(failure.kind) if failure else "none"
    reset = failure is not None and failure.reset_at is not None
    if kind != body["kind"]:
        return f"{kind}, not {body['kind']}: {body}"
    return "" if reset is body.get("reset", False) else f"reset {reset}: {body}"


@pytest.mark.parametrize("cli", sorted(STREAMS))
def test_an_error_event_has_its_class(cli, tmp_path):
    flaws = []
    for number, body in enumerate(bodies(cli)):
        home = tmp_path / str(number)
        home.mkdir()
        failure = read(cli, STREAMS[cli](body, home), home, body.get("exit", 1)).failure
        flaws.append(wrong(failure, body))
        assert failure is None or not failure.guessed
    assert [flaw for flaw in flaws if flaw] == []


def test_a_wrappers_last_words_have_a_class_that_is_a_guess(tmp_path):
    flaws = []
    for body in bodies("text"):
        failure = printed(body, tmp_path).failure
        flaws.append(wrong(failure, body))
        stamped = "|1795360000" in body.get("stdout", "")  # written for programs
        assert failure is None or failure.guessed is not stamped, body
    assert [flaw for flaw in flaws if flaw] == []


def test_what_only_sounds_like_it_is_the_agents_own(tmp_path):
    for body in bodies("harmless"):
        report = printed(body, tmp_path)
        if body["exit"] == 0:
            assert (report.failure, bool(report.answer)) == (None, True), body
        else:
            assert report.failure is not None
            assert report.failure.kind is FailureClass.AGENT, body


@pytest.mark.parametrize("cli", sorted(STREAMS))
def test_nor_do_they_when_an_agent_says_or_runs_them(cli, tmp_path):
    """As a message, as the output of a tool, and as the last words of its tools on stderr."""
    for body in [*bodies("harmless"), *bodies("text")]:
        text = body.get("stdout") or body.get("stderr", "")
        (tmp_path / "stderr.log").write_text(text, encoding="utf-8")
        report = read(cli, work(cli, text), tmp_path)
        assert report.failure is not None
        allowed = {FailureClass.AGENT, FailureClass.MEMORY}
        assert report.failure.kind in allowed, text


def work(cli, text):
    """A run that worked and was then cut off before its end."""
    if cli == "codex":
        call = {"id": "i", "type": "command_execution", "command": "x", "aggregated_output": text}
        return [
            {"type": "turn.started"},
            {"type": "item.completed", "item": {**call, "exit_code": 1, "status": "failed"}},
            {"type": "item.completed", "item": {"id": "j", "type": "agent_message", "text": text}},
        ]
    if cli == "claude":
        result = {"type": "tool_result", "tool_use_id": "t", "is_error": True, "content": text}
        said = {"id": "m", "model": "m", "content": [{"type": "text", "text": text}]}
        return [
            {"type": "user", "session_id": "s", "message": {"content": [result]}},
            {"type": "assistant", "session_id": "s", "message": said},
        ]
    if cli == "gemini":
        return [
            {"type": "tool_result", "tool_id": "t", "status": "error", "output": text},
            {"type": "message", "role": "assistant", "content": text},
        ]
    state = {"status": "error", "input": {"command": "x"}, "error": text}
    tool = {"tool": "bash", "callID": "c", "state": state}
    return [
        {"type": "tool_use", "sessionID": "s", "part": tool},
        {"type": "text", "sessionID": "s", "part": {"text": text}},
    ]


def test_there_are_enough_of_them():
    assert sum(len(bodies(name)) for name in (*STREAMS, "text")) >= 150
    assert len(bodies("harmless")) >= 60


def test_the_documentation_shows_the_table():
    head = ["| class | evidence | what follows | bound |", "|---|---|---|---|"]
    rows = [f"| {r.kind} | {r.evidence} | {r.follows} | {bounds.said(r.kind)} |" for r in TABLE]
    assert "\n".join(head + rows) in DOCS.read_text(encoding="utf-8")


def test_the_table_has_every_class_once_and_no_code_twice():
    assert sorted(row.kind for row in TABLE) == sorted(FailureClass)
    for field in ("codes", "statuses"):
        known = [one for row in TABLE for one in getattr(row, field)]
        assert len(known) == len(set(known))


@pytest.mark.parametrize("cli", sorted(STREAMS))
def test_a_flood_is_read_in_bounded_time(cli, tmp_path):
    """64 MiB of events, then an error of a megabyte; ten times what it takes, for busy machines."""
    line = (json.dumps(work(cli, "x" * 200)[-1]) + "\n").encode()
    body = {
        "message": "You've hit your usage limit. " + "y" * 1_000_000, "text": "You've hit your usage limit. " + "y" * 1_000_000,
        "error": "", "status": 429, "type": "Error", "name": "APIError",
    }  # fmt: skip
    end = "\n".join(map(json.dumps, STREAMS[cli](body, tmp_path))) + "\n"
    with (tmp_path / "stdout.log").open("wb") as file:
        file.write(line * (64 * 2**20 // len(line)))
        file.write(end.encode())
    environment = {"HOME": str(tmp_path), "PATH": "/nowhere"}
    request = Request("", "", str(tmp_path), "", str(tmp_path), environment=environment)
    begun = time.process_time()
    agent = catalog.get(cli, AgentConfig(cli))
    report = agent.read(request, ended(1), RunFiles(str(tmp_path)), now=NOW)
    assert report.failure is not None
    assert report.failure.kind is FailureClass.LIMIT
    assert time.process_time() - begun < 3.0
