"""The real Claude Code CLI, against a local model server."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest

from codex_self_iter.agents.claude import ClaudeAgent
from codex_self_iter.core.agent_report import FailureClass
from codex_self_iter.core.runs import EndCause
from codex_self_iter.core.terms import Role
from tests.support.agent_runs import DONE, SCHEMA, claude_config, go, place_outside
from tests.support.model_server import ModelServer, answer, fault, say, shell, write

pytestmark = [pytest.mark.real_agents, pytest.mark.slow]


@pytest.fixture
def serve(scene, real_claude):
    """Start a server with a script and give it with an adapter that talks to it."""
    servers = []

    def start(*script, **config):
        server = ModelServer(list(script))
        servers.append(server.__enter__())
        return server, ClaudeAgent(claude_config(real_claude, scene, server.url, **config))

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def test_a_run_changes_files_and_answers_with_the_schema(scene, serve):
    new = str(scene.workspace / "b.txt")
    server, claude = serve(write(new, "hello"), answer(DONE))
    report, outcome = go(claude, scene.request("Do it, “please”.", schema=SCHEMA))
    assert outcome.ok
    assert report.failure is None
    assert json.loads(report.answer) == DONE
    assert scene.read("b.txt") == "hello"
    assert report.session_id
    assert report.usage is not None
    assert (
        report.usage.input_tokens,
        report.usage.cached_input_tokens,
        report.usage.output_tokens,
    ) == (
        200,
        80,
        40,
    )
    assert report.usage.cost_usd is not None
    assert report.usage.cost_usd > 0
    assert report.thread_usage == report.usage  # of the session, for a run that resumes it
    assert "Do it, “please”." in json.dumps(
        server.main_asks[0].body["messages"], ensure_ascii=False
    )
    assert not server.other


@pytest.mark.parametrize("mode", ["safe", "bypass"])
def test_a_reviewer_cannot_edit_and_answers(scene, serve, mode):
    new = str(scene.workspace / "b.txt")
    _, claude = serve(write(new, "hello"), answer(DONE), mode=mode)
    report, outcome = go(claude, scene.request(schema=SCHEMA, role=Role.REVIEWER))
    assert outcome.ok
    assert report.failure is None
    assert json.loads(report.answer) == DONE
    assert not os.path.exists(new)


def test_without_a_schema_the_text_is_the_answer(scene, serve):
    _, claude = serve(say("All done.\nSTOP: false"))
    report, _ = go(claude, scene.request())
    assert (report.answer, report.failure) == ("All done.\nSTOP: false", None)


def test_a_resumed_run_goes_on_with_the_conversation(scene, serve):
    server, claude = serve(say("first"), say("second"))
    first, _ = go(claude, scene.request("number one"))
    second, _ = go(claude, scene.request("number two", session_id=first.session_id))
    assert (second.answer, second.session_id) == ("second", first.session_id)
    assert "number one" in json.dumps(server.main_asks[1].body["messages"])
    assert second.usage is not None
    assert second.usage.input_tokens == 100  # of this run alone


def test_an_unknown_session_asks_for_a_fresh_one(scene, serve):
    server, claude = serve(say("never asked"))
    report, outcome = go(claude, scene.request(session_id="0bb295d4-4033-4bc6-8b25-14069d7e9e32"))
    assert outcome.exit_code == 1
    assert report.failure is not None
    assert report.failure.kind is FailureClass.CONTEXT
    assert not server.main_asks


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (fault("usage_limit"), FailureClass.LIMIT),
        (fault("unauthorized"), FailureClass.AUTH),
        (fault("no_model"), FailureClass.CONFIG),
        (fault("context"), FailureClass.CONTEXT),
        (fault("server_error"), FailureClass.OVERLOAD),
        (fault("overloaded"), FailureClass.OVERLOAD),
        (fault("reset"), FailureClass.NETWORK),
        (fault("drop"), FailureClass.NETWORK),
        (fault("garbage"), FailureClass.NETWORK),
    ],
    ids=lambda value: getattr(value, "fault", str(value)),
)
def test_each_fault_has_its_class(scene, serve, step, kind):
    _, claude = serve(step)
    report, outcome = go(claude, scene.request())
    assert outcome.exit_code == 1
    assert report.failure is not None
    assert (report.failure.kind, report.answer) == (kind, "")
    assert report.failure.message


def test_a_slow_answer_is_an_answer(scene, serve):
    _, claude = serve(fault("drip", seconds=1.5, text="slow but fine"))
    report, _ = go(claude, scene.request())
    assert (report.failure, report.answer) == (None, "slow but fine")


@pytest.mark.parametrize("name", ["silent", "stall"])
def test_a_model_that_never_answers_is_the_networks_fault(scene, serve, name):
    server, claude = serve(fault(name))
    report, _ = go(
        claude,
        scene.request(),
        end_when=lambda: bool(server.main_asks) and "init" in scene.stdout(),
        cause=EndCause.IDLE_TIMEOUT,
    )
    assert report.failure is not None
    assert report.failure.kind is FailureClass.NETWORK


def test_a_retrying_run_that_times_out_is_not_the_agents_fault(scene, serve):
    _, claude = serve(fault("overloaded", status=500))
    scene.environment["CLAUDE_CODE_MAX_RETRIES"] = "8"
    report, _ = go(
        claude,
        scene.request(),
        end_when=lambda: "api_retry" in scene.stdout(),
        cause=EndCause.WALL_TIMEOUT,
    )
    assert report.failure is not None
    assert report.failure.kind is FailureClass.OVERLOAD


def test_an_answer_after_the_signal_is_not_believed(scene, serve):
    """Claude may go on after a SIGTERM in a tool and end well: that run was aborted all the
    same."""
    _, claude = serve(shell("touch started; sleep 60"), say("I finished everything"), mode="bypass")
    report, _ = go(claude, scene.request(), end_when=(scene.workspace / "started").exists)
    assert report.failure is not None
    assert report.failure.kind is FailureClass.KILLED
    assert report.answer == ""
    assert report.session_id
    assert report.usage is not None
    assert report.usage.input_tokens >= 100


SANDBOX_HERE = sys.platform == "darwin" or bool(shutil.which("bwrap") and shutil.which("socat"))


def touch(path) -> str:
    """A command that is not one of the simple ones."""
    return f"python3 -c \"open('{path}', 'w')\""


def test_safe_mode_keeps_to_the_workspace(scene, serve):
    with place_outside() as beside:
        _, claude = serve(shell(touch(beside)), say("tried"))
        report, _ = go(claude, scene.request())
        assert report.failure is None
        assert not os.path.exists(beside)


def test_bypass_mode_does_not(scene, serve):
    with place_outside() as beside:
        _, claude = serve(shell(touch(beside)), say("tried"), mode="bypass")
        report, _ = go(claude, scene.request())
        assert report.refused == ()
        assert os.path.exists(beside)


def test_safe_mode_runs_commands_in_a_sandbox_or_says_that_it_refused_them(scene, serve):
    _, claude = serve(shell(touch("x")), say("tried"))
    report, _ = go(claude, scene.request())
    assert (scene.workspace / "x").exists() is SANDBOX_HERE
    assert bool(report.refused) is not SANDBOX_HERE


def test_a_tool_can_be_allowed(scene, serve):
    _, claude = serve(
        shell('python3 -c \'open("x", "w")\''),
        say("ok"),
        args=("--allowedTools", "Bash(python3:*)"),
    )
    report, _ = go(claude, scene.request())
    assert report.refused == ()
    assert (scene.workspace / "x").exists()


def test_the_agent_may_commit_when_it_is_to(scene, serve):
    scene.git("config", "user.name", "t")
    scene.git("config", "user.email", "t@example.invalid")
    commit = "git commit -q --allow-empty -m by-agent"
    _, claude = serve(shell(commit), say("ok"))
    report, _ = go(claude, scene.request(commit_by_agent=True))
    assert report.refused == ()
    assert "by-agent" in scene.git("log", "-1", "--format=%s")


def test_the_probe_asks_without_spending(scene, serve):
    server, claude = serve(say("never"))
    probe = claude.probe(scene.environment)
    assert (probe.installed, probe.version, probe.logged_in) == (True, "2.1.197", True)
    del scene.environment["ANTHROPIC_API_KEY"]
    probe = claude.probe(scene.environment)
    assert probe.logged_in is False
    assert "claude auth login" in probe.mend
    assert not server.main_asks


def test_the_account_is_the_key_and_never_shows_it(scene, serve):
    _, claude = serve(say("never"))
    account = claude.account(scene.environment)
    assert account.startswith("claude:key-")
    assert "local-key" not in account
    del scene.environment["ANTHROPIC_API_KEY"]
    assert claude.account(scene.environment) == f"claude:{os.path.realpath(scene.home / '.claude')}"
