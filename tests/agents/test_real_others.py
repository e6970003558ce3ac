"""The real Gemini CLI and opencode, against a local model server."""

from __future__ import annotations

import json

import pytest

from codex_self_iter.agents.gemini import GeminiAgent
from codex_self_iter.agents.opencode import OpencodeAgent
from codex_self_iter.core.agent_report import FailureClass, Usage
from codex_self_iter.core.terms import Role
from tests.support.agent_runs import DONE, gemini_config, go, opencode_config
from tests.support.model_server import ModelServer, answer, fault, say, shell, write

pytestmark = [pytest.mark.real_agents, pytest.mark.slow]


@pytest.fixture(params=["gemini", "opencode"])
def serve(request, scene):
    """Start a server with a script and give it with an adapter that talks to it."""
    program = request.getfixturevalue(f"real_{request.param}")
    servers = []

    def start(*script, **config):
        server = ModelServer(list(script))
        servers.append(server.__enter__())
        if request.param == "gemini":
            return server, GeminiAgent(gemini_config(program, scene, server.url, **config))
        return server, OpencodeAgent(opencode_config(program, scene, server.url, **config))

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def test_a_run_changes_files_and_answers(scene, serve):
    new = str(scene.workspace / "b.txt")
    server, agent = serve(
        shell("echo hi > a.txt"), write(new, "hello"), answer(DONE), mode="bypass"
    )
    report, outcome = go(agent, scene.request("Do it, “please”."))
    assert outcome.ok
    assert report.failure is None
    assert json.loads(report.answer) == DONE
    assert scene.read("a.txt") == "hi\n"
    assert scene.read("b.txt").strip() == "hello"
    assert report.usage is not None
    assert (
        report.usage.input_tokens,
        report.usage.cached_input_tokens,
        report.usage.output_tokens,
    ) == (
        300,
        120,
        60,
    )
    assert report.session_id
    asked = json.dumps(server.main_asks[0].body, ensure_ascii=False)
    assert "Do it, “please”." in asked


def test_a_reviewer_cannot_edit_and_answers(scene, serve):
    new = str(scene.workspace / "b.txt")
    _, agent = serve(write(new, "hello"), answer(DONE))
    report, outcome = go(agent, scene.request(role=Role.REVIEWER))
    assert outcome.ok
    assert report.failure is None
    assert json.loads(report.answer) == DONE
    assert not (scene.workspace / "b.txt").exists()


def test_a_long_prompt_arrives_whole(scene, serve):
    """Longer than one argument of a command line may be."""
    server, agent = serve(say("ok"), mode="bypass")
    prompt = "word " * 40_000 + "THE END"
    report, _ = go(agent, scene.request(prompt))
    assert report.failure is None
    assert "THE END" in json.dumps(server.main_asks[0].body)


def test_a_resumed_run_goes_on_with_the_conversation(scene, serve):
    server, agent = serve(say("first"), say("second"))
    first, _ = go(agent, scene.request("number one"))
    second, _ = go(agent, scene.request("number two", session_id=first.session_id))
    assert (second.answer, second.session_id) == ("second", first.session_id)
    assert "number one" in json.dumps(server.main_asks[1].body)
    assert second.usage == Usage(100, 40, 20, second.usage and second.usage.cost_usd)


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (fault("unauthorized"), FailureClass.AUTH),
        (fault("no_model"), FailureClass.CONFIG),
    ],
    ids=lambda value: getattr(value, "fault", str(value)),
)
def test_each_fault_has_its_class(scene, serve, step, kind):
    _, agent = serve(step)
    report, outcome = go(agent, scene.request())
    assert outcome.exit_code != 0
    assert report.failure is not None
    assert (report.failure.kind, report.answer) == (kind, "")


def test_an_unknown_session_asks_for_a_fresh_one(scene, serve):
    _, agent = serve(say("never"))
    ident = (
        "0bb295d4-4033-4bc6-8b25-14069d7e9e32"
        if agent.name == "gemini"
        else "ses_dfcba34cbffeCrCWkbf1HZH1VM"
    )
    report, outcome = go(agent, scene.request(session_id=ident))
    assert outcome.exit_code != 0
    assert report.failure is not None
    assert report.failure.kind is FailureClass.CONTEXT


def test_the_probe_asks_without_spending(scene, serve):
    server, agent = serve(say("never"))
    probe = agent.probe(scene.environment)
    assert probe.installed
    assert probe.version == agent.known_versions.last
    assert probe.logged_in is (True if agent.name == "gemini" else None)
    assert not server.asks
