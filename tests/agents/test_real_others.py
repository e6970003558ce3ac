"""The real Gemini CLI and opencode, against a local model server."""

from __future__ import annotations

import json

import pytest

from codex_self_iter.agents.gemini import GeminiAgent
from codex_self_iter.agents.opencode import OpencodeAgent
from codex_self_iter.core.agent_report import FailureClass, Usage
from codex_self_iter.core.terms import Role
from tests.support.agent_runs import DONE, gemini_config, go, opencode_config
from tests.support.model_server import ModelServer, answer, call, fault, say, shell, write

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


def tried(scene, ground) -> set[str]:
    """What of the world outside has changed."""
    known = {str(path): text for path, text in ground.items()}
    now = [path for path in (scene.base / "outside").rglob("*") if path.is_file()]
    now += [path for path in (scene.home / ".ssh").rglob("*") if path.is_file()]
    return {path.name for path in now if known.get(str(path)) != path.read_text()}


@pytest.fixture
def ground(scene):
    """A key in the home, a directory beside the workspace, a link that leads there."""
    outside, key = scene.base / "outside" / "old.txt", scene.home / ".ssh" / "id"
    for path in (outside, key):
        path.parent.mkdir()
        path.write_text("old SECRET\n")
    (scene.workspace / "link").symlink_to(outside.parent)
    return {path: path.read_text() for path in (outside, key)}


@pytest.mark.parametrize("serve", ["gemini"], indirect=True)
def test_safe_gemini_keeps_to_the_workspace_and_has_no_shell(scene, serve, ground):
    (outside, key), inside = ground, scene.workspace
    attempts = [
        call("write_file", file_path=f"{key.parent}/new", content="x"),
        call("write_file", file_path=f"{outside.parent}/new.txt", content="x"),
        call("write_file", file_path=f"{inside}/link/new.txt", content="x"),
        call("write_file", file_path=f"{inside}/.git/hooks/pre-commit", content="x"),
        call(
            "replace", file_path=str(outside), old_string="old", new_string="new", instruction="x"
        ),
        call("read_file", file_path=str(key)),
        call("grep_search", pattern="SECRET", dir_path=str(key.parent)),
        call("glob", pattern="*", dir_path=str(key.parent)),
    ]
    shells = [call("run_shell_command", command="echo x > x.txt", description="x")]
    allowed = call("write_file", file_path=f"{inside}/new.txt", content="x")
    server, gemini = serve(*attempts, *shells, allowed, say("tried"))
    report, _ = go(gemini, scene.request())
    assert report.failure is None
    assert tried(scene, ground) == set()
    assert not (inside / ".git" / "hooks" / "pre-commit").exists()
    assert "old SECRET" not in json.dumps(server.main_asks[-1].body)
    assert scene.read("new.txt") == "x"
    assert not (inside / "x.txt").exists()
    paths = {
        f"{key.parent}/new",
        f"{outside.parent}/new.txt",
        str(outside),
        str(key),
        str(key.parent),
    }
    assert all(any(f'"{path}"' in text for text in report.refused) for path in paths)
    assert any("run_shell_command" in text for text in report.refused)


@pytest.mark.parametrize("serve", ["opencode"], indirect=True)
@pytest.mark.parametrize("what", ["write", "shell"])
def test_safe_opencode_stops_at_a_path_outside(scene, serve, ground, what):
    outside, key = ground
    attempt = {
        "write": call("write", filePath=f"{outside.parent}/new.txt", content="x"),
        "shell": shell(f"cat {key}"),
    }[what]
    server, opencode = serve(attempt, say("never"))
    report, outcome = go(opencode, scene.request())
    assert outcome.ok
    assert report.failure is not None
    assert report.failure.kind is FailureClass.SANDBOX
    assert report.refused
    assert tried(scene, ground) == set()
    assert len(server.main_asks) == 1


@pytest.mark.parametrize("serve", ["opencode"], indirect=True)
def test_safe_opencode_is_no_sandbox(scene, serve, ground):
    """What docs/agents.md says that it lets through."""
    outside, _ = ground
    hook = scene.workspace / ".git" / "hooks" / "pre-commit"
    server, opencode = serve()
    connect = f"import socket; socket.create_connection(('127.0.0.1', {server.port}), 5)"
    server.script = [
        call("write", filePath=f"{scene.workspace}/link/linked.txt", content="x"),
        call("write", filePath=str(hook), content="x"),
        shell(f"echo x > {outside.parent}/echo.txt"),
        shell(f'python3 -c "{connect}" && touch connected'),
        say("did"),
    ]
    report, _ = go(opencode, scene.request())
    assert report.failure is None
    assert tried(scene, ground) == {"linked.txt", "echo.txt"}
    assert hook.exists()
    assert (scene.workspace / "connected").exists()
