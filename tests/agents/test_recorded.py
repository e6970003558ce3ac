"""What each adapter makes of streams that the real CLIs wrote."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import AgentConfig, Request
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.agents.stream import EventKind
from codex_self_iter.core.agent_names import AUTO
from codex_self_iter.core.agent_report import FailureClass, Usage
from codex_self_iter.core.runs import EndCause, RunOutcome
from tests.support.agent_runs import DONE

RECORDED = pathlib.Path(__file__).parent / "recorded"
NOW = 1_795_352_400.0  # soon after the recordings


def recordings(name: str = "*") -> list[tuple[str, str]]:
    """(CLI, recording) of everything there is."""
    return sorted(
        (path.parent.name, path.name.split(".")[0]) for path in RECORDED.glob(f"{name}/*.jsonl")
    )


def lines_of(cli: str, what: str) -> list[str]:
    return next(RECORDED.glob(f"{cli}/{what}.*jsonl")).read_text(encoding="utf-8").splitlines()


def changed_by(cli: str, what: str) -> list[str]:
    agent = catalog.get(cli)
    return [
        event.text
        for line in lines_of(cli, what)
        for event in agent.parse_line(line)
        if event.kind is EventKind.CHANGED
    ]


def outcome(exit_code=0, signal=None, cause=EndCause.EXIT) -> RunOutcome:
    return RunOutcome("r", cause, exit_code, signal, started_at=NOW - 10, duration_sec=10.0)


@pytest.fixture
def read(tmp_path):
    """Read a recording as the supervisor would."""

    def reader(cli: str, what: str, *, cause=EndCause.EXIT, session_id="", exit_as=None, **config):
        directory = tmp_path / "run"
        directory.mkdir(exist_ok=True)
        shutil.copy(next(RECORDED.glob(f"{cli}/{what}.*jsonl")), directory / "stdout.log")
        stderr = RECORDED / cli / f"{what}.stderr"
        (directory / "stderr.log").write_bytes(stderr.read_bytes() if stderr.exists() else b"")
        ended = exit_as
        if ended is None:
            code, signal = (RECORDED / cli / f"{what}.exit").read_text().split()
            ended = [None if one == "None" else int(one) for one in (code, signal)]
        rollout = RECORDED / cli / f"{what}.rollout"
        if rollout.exists():
            thread = json.loads(lines_of(cli, what)[0])["thread_id"]
            day = tmp_path / "home/.codex/sessions/2026/11/22"
            day.mkdir(parents=True, exist_ok=True)
            shutil.copy(rollout, day / f"rollout-2026-11-22T12-00-00-{thread}.jsonl")
        environment = {"HOME": str(tmp_path / "home"), "PATH": "/nowhere"}
        request = Request(
            "",
            "",
            str(tmp_path),
            "",
            str(directory),
            session_id=session_id,
            environment=environment,
        )
        agent = catalog.get(cli, AgentConfig(cli, **config))
        run = outcome(*ended, cause=cause)
        return agent.read(request, run, RunFiles(str(directory)), now=NOW)

    return reader


@pytest.mark.parametrize(
    ("cli", "what"),
    [
        *((cli, "happy") for cli in AUTO),
        ("codex", "older-happy"),
        ("claude", "older-happy"),
    ],
)
def test_a_good_run_is_read_whole(read, cli, what):
    report = read(cli, what)
    assert report.failure is None
    assert json.loads(report.answer) == DONE
    assert report.usage is not None
    assert (
        report.usage.input_tokens,
        report.usage.cached_input_tokens,
        report.usage.output_tokens,
    ) == ((0, 0, 0) if cli == "kilo" else (300, 120, 60))  # which tells of the last call alone
    assert report.session_id
    if cli != "gemini":  # which says nothing of files
        assert changed_by(cli, what) == ["/scene/work space/b.txt"]


@pytest.mark.parametrize(
    ("cli", "what", "kind"),
    [
        ("codex", "usage-limit", FailureClass.LIMIT),
        ("codex", "unauthorized", FailureClass.AUTH),
        ("codex", "overloaded", FailureClass.OVERLOAD),
        ("codex", "context", FailureClass.CONTEXT),
        ("codex", "dropped", FailureClass.NETWORK),
        ("codex", "broken-sandbox", FailureClass.SANDBOX),
        ("claude", "rate-limit", FailureClass.LIMIT),
        ("claude", "older-rate-limit", FailureClass.LIMIT),
        ("claude", "older-unauthorized", FailureClass.AUTH),
        ("claude", "told-limit", FailureClass.LIMIT),
        ("claude", "limit", FailureClass.LIMIT),
        ("claude", "unauthorized", FailureClass.AUTH),
        ("claude", "context", FailureClass.CONTEXT),
        ("gemini", "unauthorized", FailureClass.AUTH),
        ("gemini", "no-model", FailureClass.CONFIG),
        ("opencode", "unauthorized", FailureClass.AUTH),
        ("opencode", "refused", FailureClass.SANDBOX),
        ("copilot", "rate-limit", FailureClass.LIMIT),
        ("copilot", "unauthorized", FailureClass.AUTH),
        ("copilot", "context", FailureClass.CONTEXT),
        ("qwen", "unauthorized", FailureClass.AUTH),
        ("vibe", "rate-limit", FailureClass.LIMIT),
        ("vibe", "unauthorized", FailureClass.AUTH),
        ("kilo", "unauthorized", FailureClass.AUTH),
    ],
)
def test_a_failed_run_has_its_class(read, cli, what, kind):
    report = read(cli, what, exit_as=[1, None] if what in ("limit", "told-limit") else None)
    assert report.failure is not None
    assert report.failure.kind is kind
    assert report.answer == ""
    assert report.failure.account


@pytest.mark.parametrize("cli", AUTO)
@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (EndCause.REQUEST, FailureClass.KILLED),
        (EndCause.MEMORY, FailureClass.MEMORY),
        (EndCause.LOST, FailureClass.KILLED),
        (EndCause.WALL_TIMEOUT, FailureClass.AGENT),
        (EndCause.SPAWN_FAILED, FailureClass.AGENT),
    ],
)
def test_a_whole_answer_of_a_run_that_we_ended_is_not_believed(read, cli, cause, kind):
    report = read(cli, "happy", cause=cause)
    assert report.failure is not None
    assert (report.failure.kind, report.answer) == (kind, "")
    assert report.session_id


@pytest.mark.parametrize(
    ("cli", "what"), [("codex", "killed"), ("codex", "older-killed"), ("claude", "killed")]
)
def test_a_killed_run_keeps_its_session_and_its_tokens(read, cli, what):
    report = read(cli, what, cause=EndCause.REQUEST)
    assert report.session_id
    assert report.failure is not None
    assert report.failure.kind is FailureClass.KILLED
    assert report.usage is not None
    assert report.usage.input_tokens == 100


def test_codex_tells_the_exact_end_of_a_limit(read):
    """The recorded limit ends too far away to be believed as it stands; a nearer one is."""
    report = read("codex", "usage-limit")
    assert report.failure is not None
    assert report.failure.reset_at is None


def test_claude_tells_the_exact_end_of_a_limit(read):
    for what in ("limit", "told-limit"):
        report = read("claude", what, exit_as=[1, None])
        assert report.failure is not None
        assert report.failure.reset_at == 1_795_360_000


def test_codex_commands_that_fail_are_no_failure_of_the_run(read):
    report = read("codex", "failed-tool")
    assert (report.failure, report.answer) == (None, "It failed.")


def test_a_refused_tool_is_reported(read):
    report = read("claude", "refused")
    assert report.failure is None
    assert len(report.refused) == 1
    assert report.refused[0].startswith("Bash: python3 -c")
    assert read("gemini", "refused").refused
    for cli in ("copilot", "qwen", "vibe", "kilo"):
        report = read(cli, "refused")
        assert (report.failure, report.answer) == (None, "I could not do it.")
        assert report.refused[0].startswith("execute: python3 -c")


def test_codex_takes_the_model_and_the_tokens_from_the_rollout(read):
    report = read("codex", "happy")
    assert report.model == "gpt-5.5"
    assert report.thread_usage == Usage(300, 120, 60)


@pytest.mark.parametrize(("cli", "what"), recordings())
def test_every_recorded_line_is_known_or_harmless(cli, what):
    agent = catalog.get(cli)
    for line in lines_of(cli, what):
        for event in agent.parse_line(line):
            assert event.kind in EventKind


BROKEN = "bwrap: No permissions to create new namespace"


@pytest.mark.parametrize(
    ("cli", "tool", "end"),
    [
        (
            "codex",
            {
                "type": "item.completed",
                "item": {
                    "type": "command_execution",
                    "status": "failed",
                    "aggregated_output": BROKEN,
                },
            },
            {"type": "turn.completed", "usage": {}},
        ),
        (
            "claude",
            {
                "type": "user",
                "message": {
                    "content": [{"type": "tool_result", "is_error": True, "content": BROKEN}]
                },
            },
            {"type": "result", "subtype": "success", "is_error": False, "result": "I could not."},
        ),
    ],
)
def test_a_sandbox_that_cannot_be_set_up_is_a_failure(tmp_path, cli, tool, end):
    def report(*events):
        (tmp_path / "stdout.log").write_text("".join(json.dumps(event) + "\n" for event in events))
        request = Request("", "", "/", "", str(tmp_path), environment={})
        return catalog.get(cli).read(request, outcome(), RunFiles(str(tmp_path)), now=NOW)

    failure = report(tool, end).failure
    assert failure is not None
    assert failure.kind is FailureClass.SANDBOX
    assert BROKEN in failure.message
    fine = json.loads(
        json.dumps(tool)
        .replace("failed", "completed")
        .replace("true", "false")
        .replace("bwrap", "x")
    )
    assert report(tool, fine, end).failure is None  # some commands did run
