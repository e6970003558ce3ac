"""The real codex CLI, against a local model server: what the adapter asks for really happens."""

from __future__ import annotations

import json
import os
import time

import pytest

from codex_self_iter.agents.codex import CodexAgent
from codex_self_iter.agents.pricing import Price
from codex_self_iter.core.agent_report import FailureClass, Usage
from codex_self_iter.core.runs import EndCause
from codex_self_iter.core.terms import Role
from tests.support.agent_runs import (
    DONE,
    SCHEMA,
    both_versions,
    codex_config,
    go,
    place_outside,
    run,
)
from tests.support.model_server import ModelServer, answer, fault, say, shell, write

pytestmark = [pytest.mark.real_agents, pytest.mark.slow]


@pytest.fixture
def serve(scene, real_codex):
    """Start a server with a script and give it with an adapter that talks to it."""
    servers = []

    def start(*script, **config):
        server = ModelServer(list(script))
        servers.append(server.__enter__())
        return server, CodexAgent(codex_config(real_codex, scene, server.url, **config))

    yield start
    for server in servers:
        server.__exit__(None, None, None)


@both_versions
def test_a_run_changes_files_and_answers_with_the_schema(scene, serve):
    new = str(scene.workspace / "b.txt")
    server, codex = serve(shell("echo hi > a.txt"), write(new, "hello"), answer(DONE))
    report, outcome = go(codex, scene.request("Do it, “please”.", schema=SCHEMA))

    assert outcome.ok
    assert report.failure is None
    assert json.loads(report.answer) == DONE
    assert scene.read("a.txt") == "hi\n"
    assert scene.read("b.txt") == "hello\n"
    assert report.usage == report.thread_usage == Usage(300, 120, 60)
    assert report.model == "gpt-5.5"
    asked = server.main_asks[0]
    assert "Do it, “please”." in json.dumps(asked.body["input"], ensure_ascii=False)
    assert asked.body["text"]["format"]["schema"] == SCHEMA
    assert asked.headers["authorization"] == "Bearer local-key"
    assert not server.other


def test_a_reviewer_cannot_edit_and_answers(scene, serve):
    _, codex = serve(shell("echo two > two.txt"), answer(DONE))
    report, outcome = go(codex, scene.request(role=Role.REVIEWER))
    assert outcome.ok
    assert report.failure is None
    assert json.loads(report.answer) == DONE
    assert not (scene.workspace / "two.txt").exists()


def test_a_price_table_gives_money_and_an_unknown_model_none(scene, serve):
    _, codex = serve(say("ok"), prices={"gpt-5.5": Price(2.0, 10.0, 0.5)})
    report, _ = go(codex, scene.request())
    assert report.usage is not None
    assert report.usage.cost_usd == pytest.approx((60 * 2.0 + 40 * 0.5 + 20 * 10.0) / 1e6)
    _, codex = serve(say("ok"), prices={"gpt-other": Price(2.0, 10.0)})
    report, _ = go(codex, scene.request())
    assert report.usage == Usage(100, 40, 20, None)


@both_versions
def test_a_resumed_run_counts_its_own_tokens_and_keeps_its_sandbox(scene, serve):
    server, codex = serve(say("first"), shell("echo two > two.txt"), say("second"))
    first, _ = go(codex, scene.request("one"))
    second, _ = go(
        codex,
        scene.request("two", session_id=first.session_id, previous_thread_usage=first.thread_usage),
    )
    assert second.session_id == first.session_id
    assert second.answer == "second"
    assert second.thread_usage == Usage(300, 120, 60)
    assert second.usage == Usage(200, 80, 40)
    assert scene.read("two.txt") == "two\n"  # a resume that lost -s would be read-only
    assert "one" in json.dumps(server.main_asks[1].body["input"])

    third, _ = go(codex, scene.request("three", session_id=first.session_id))
    assert third.usage == Usage(100, 40, 20)  # the rollout knows where the thread stood


def test_an_unknown_session_asks_for_a_fresh_one(scene, serve):
    server, codex = serve(say("never asked"))
    report, outcome = go(codex, scene.request(session_id="01a20341-9f82-7820-b794-124100100b1d"))
    assert outcome.exit_code == 1
    assert report.failure is not None
    assert report.failure.kind is FailureClass.CONTEXT
    assert not server.asks


@both_versions
def test_a_usage_limit_has_its_exact_end(scene, serve):
    end = int(time.time()) + 5025
    _, codex = serve(fault("usage_limit", resets_at=end))
    report, outcome = go(codex, scene.request())
    assert outcome.exit_code == 1
    assert report.failure is not None
    assert report.failure.kind is FailureClass.LIMIT
    assert report.failure.reset_at == end
    assert report.failure.account == f"codex:{os.path.realpath(scene.home / '.codex')}"
    assert report.answer == ""


def test_without_the_rollout_the_end_comes_from_the_prose(scene, serve):
    """The negative control of the exact time: prose has whole minutes only."""
    end = int(time.time()) // 60 * 60 + 5025
    _, codex = serve(fault("usage_limit", resets_at=end), args=("--ephemeral",))
    report, _ = go(codex, scene.request())
    assert report.failure is not None
    assert report.failure.kind is FailureClass.LIMIT
    assert report.failure.reset_at is not None
    assert report.failure.reset_at != end
    assert abs(report.failure.reset_at - end) <= 60


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (fault("usage_limit"), FailureClass.LIMIT),
        (fault("rate_limit"), FailureClass.LIMIT),
        (fault("quota"), FailureClass.BILLING),
        (fault("unauthorized"), FailureClass.AUTH),
        (fault("unauthorized", status=403), FailureClass.AUTH),
        (fault("no_model"), FailureClass.CONFIG),
        (fault("context"), FailureClass.CONTEXT),
        (fault("server_error"), FailureClass.OVERLOAD),
        (fault("overloaded"), FailureClass.OVERLOAD),
        (fault("drop"), FailureClass.NETWORK),
        (fault("garbage"), FailureClass.NETWORK),
        (fault("reset"), FailureClass.NETWORK),
    ],
    ids=lambda value: (
        f"{value.fault}{value.options.get('status', '')}" if hasattr(value, "fault") else str(value)
    ),
)
def test_each_fault_has_its_class(scene, serve, step, kind):
    _, codex = serve(step)
    report, outcome = go(codex, scene.request())
    assert outcome.exit_code == 1
    assert report.failure is not None
    assert (report.failure.kind, report.answer) == (kind, "")
    assert report.failure.message
    assert "\n" not in report.failure.message


def test_a_slow_answer_is_an_answer(scene, serve):
    _, codex = serve(fault("drip", seconds=1.5, text="slow but fine"))
    report, _ = go(codex, scene.request())
    assert (report.failure, report.answer) == (None, "slow but fine")


@pytest.mark.parametrize("name", ["silent", "stall"])
def test_a_model_that_never_answers_is_the_networks_fault(scene, serve, name):
    server, codex = serve(fault(name))
    seen: list[float] = []

    def waited() -> bool:
        if server.asks and not seen:
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] > 0.5

    report, _ = go(codex, scene.request(), end_when=waited, cause=EndCause.IDLE_TIMEOUT)
    assert report.failure is not None
    assert report.failure.kind is FailureClass.NETWORK


def test_a_refused_connection_is_the_networks_fault(scene, real_codex):
    with ModelServer([say("gone")]) as server:
        url = server.url
    codex = CodexAgent(codex_config(real_codex, scene, url))
    request = scene.request()

    def reconnecting() -> bool:
        return "Reconnecting" in scene.stdout()

    report, _ = go(codex, request, end_when=reconnecting, cause=EndCause.WALL_TIMEOUT)
    assert report.failure is not None
    assert report.failure.kind is FailureClass.NETWORK
    assert "network" in report.failure.message


def in_tool(scene):
    """True once the tool runs and codex has said so."""
    return lambda: (scene.workspace / "started").exists() and "item.started" in scene.stdout()


def test_a_time_out_at_work_is_the_agents_fault(scene, serve):
    """The negative control: a tool that hangs is not the network."""
    _, codex = serve(shell("touch started; sleep 60"), say("never"))
    report, _ = go(codex, scene.request(), end_when=in_tool(scene), cause=EndCause.IDLE_TIMEOUT)
    assert report.failure is not None
    assert report.failure.kind is FailureClass.AGENT


@both_versions
def test_a_run_killed_in_a_tool_has_no_answer_but_its_tokens_and_can_be_resumed(scene, serve):
    server, codex = serve(say("working on it"), shell("touch started; sleep 60"), say("back again"))
    first, _ = go(codex, scene.request())
    killed, _ = go(
        codex,
        scene.request(
            "more", session_id=first.session_id, previous_thread_usage=first.thread_usage
        ),
        end_when=in_tool(scene),
    )
    assert killed.failure is not None
    assert killed.failure.kind is FailureClass.KILLED
    assert killed.answer == ""
    assert killed.session_id == first.session_id
    scene.check_nothing_left()
    again, _ = go(
        codex,
        scene.request(
            session_id=first.session_id,
            previous_thread_usage=killed.thread_usage or first.thread_usage,
        ),
    )
    assert again.answer == "back again"
    assert again.usage is not None
    total = sum(one.usage.total_tokens for one in (first, killed, again) if one.usage)
    assert total == again.thread_usage.total_tokens
    assert len(server.main_asks) == 3


def outside_and_git(scene, serve, *, mode="safe", **more) -> tuple[bool, bool]:
    """Whether a run could write beside the workspace, and commit."""
    commit = (
        "git -c user.name=t -c user.email=t@example.invalid commit -q --allow-empty -m 'by agent'"
    )
    with place_outside() as beside:
        _, codex = serve(shell(f"touch '{beside}'; {commit}"), say("tried"), mode=mode)
        report, _ = go(codex, scene.request(**more))
        assert report.failure is None
        return os.path.exists(beside), "by agent" in scene.git("log", "-1", "--format=%s")


@both_versions
def test_safe_mode_keeps_to_the_workspace_and_off_git(scene, serve):
    assert outside_and_git(scene, serve) == (False, False)


@both_versions
def test_safe_mode_is_a_sandbox_that_reads_and_does_not_write_elsewhere(scene, serve):
    outside, key = scene.base / "outside", scene.home / ".ssh" / "id"
    outside.mkdir()
    key.parent.mkdir()
    key.write_text("PRIVATE")
    (scene.workspace / "link").symlink_to(outside)
    git = scene.workspace / ".git"
    before = (git / "config").read_text()
    server, codex = serve()
    connect = f"import socket; socket.create_connection(('127.0.0.1', {server.port}), 5)"
    server.script = [
        write(f"{key.parent}/new", "x"),
        write(f"{outside}/new.txt", "x"),
        write(f"{scene.workspace}/link/new.txt", "x"),
        write(f"{git}/hooks/pre-commit", "x"),
        shell(f"echo x > {outside}/echo.txt"),
        shell(f"echo x > {git}/hooks/pre-commit"),
        shell("git config user.name other"),
        shell(f'python3 -c "{connect}" && touch connected'),
        shell(f"cat {key} > seen.txt"),
        say("tried"),
    ]
    report, _ = go(codex, scene.request())
    assert report.failure is None
    assert report.refused  # the patches; of a command its output tells
    assert list(outside.iterdir()) == []
    assert list(key.parent.iterdir()) == [key]
    assert not (git / "hooks" / "pre-commit").exists()
    assert (git / "config").read_text() == before
    assert not (scene.workspace / "connected").exists()
    assert scene.read("seen.txt") == "PRIVATE"


@both_versions
def test_safe_mode_lets_the_agent_commit_when_it_is_to(scene, serve):
    assert outside_and_git(scene, serve, commit_by_agent=True) == (False, True)


def test_bypass_mode_is_not_sandboxed(scene, serve):
    assert outside_and_git(scene, serve, mode="bypass") == (True, True)


def test_a_workspace_without_git_works(scene, serve):
    plain = scene.base / "plain"
    plain.mkdir()
    _, codex = serve(shell("echo hi > a.txt"), say("ok"))
    request = scene.request(workspace=str(plain))
    assert "--skip-git-repo-check" in codex.prepare(request).argv
    report, _ = go(codex, request)
    assert (report.failure, report.answer) == (None, "ok")
    assert (plain / "a.txt").read_text() == "hi\n"


def test_a_bad_flag_is_a_configuration_fault(scene, serve):
    _, codex = serve(say("never"), args=("--no-such-flag",))
    report, outcome = go(codex, scene.request())
    assert outcome.exit_code == 2
    assert report.failure is not None
    assert report.failure.kind is FailureClass.CONFIG
    assert "--no-such-flag" in report.failure.message


def test_an_hour_of_output_in_one_line_is_read(scene, serve):
    _, codex = serve(shell("head -c 1500000 /dev/zero | tr '\\0' '\\033'"), answer(DONE))
    report, _ = go(codex, scene.request(schema=SCHEMA))
    assert json.loads(report.answer) == DONE


def test_secrets_stay_out_of_the_tools_environment(scene, serve):
    scene.environment |= {"DATABASE_PASSWORD": "hunter2", "GH_TOKEN": "t", "EDITOR": "vi"}
    _, codex = serve(shell("env > env.txt"), say("ok"), pass_env=("GH_TOKEN",))
    go(codex, scene.request())
    seen = dict(line.partition("=")[::2] for line in scene.read("env.txt").splitlines())
    assert "DATABASE_PASSWORD" not in seen
    assert seen["GH_TOKEN"] == "t"
    assert seen["EDITOR"] == "vi"


@both_versions
def test_the_probe_asks_without_spending(scene, serve, older):
    server, codex = serve(say("never"))
    probe = codex.probe(scene.environment)
    known = codex.known_versions.first if older else codex.known_versions.last
    assert (probe.installed, probe.version, probe.logged_in) == (True, known, None)
    (scene.home / ".codex" / "config.toml").unlink()
    probe = codex.probe(scene.environment)
    assert (probe.logged_in, probe.mend) == (False, "codex login")
    probe = codex.probe(scene.environment | {"CODEX_API_KEY": "k"})
    assert (probe.logged_in, probe.mend) == (True, "")
    assert not server.asks


def test_the_script_gives_only_the_answer(scene, serve):
    script = os.path.abspath(
        os.path.join(os.path.dirname(__file__), "../../scripts/invoke-codex-agent.sh")
    )
    from codex_self_iter.agents.base import AgentConfig
    from codex_self_iter.agents.command import CommandAgent

    _, codex = serve(
        shell("echo hi > a.txt"),
        answer(DONE),
        fault("usage_limit", resets_at=int(time.time()) + 7200),
    )
    scene.environment["CODEX_BIN"] = codex.config.binary
    template = f"'{script}' {{prompt_file}} {{workspace}}"
    command = CommandAgent(AgentConfig("command", template=template))
    request = scene.request()
    outcome = run(command.prepare(request), request)
    assert outcome.exit_code == 0
    assert scene.stdout().strip() == json.dumps(DONE)
    assert scene.read("a.txt") == "hi\n"
    report, outcome = go(command, scene.request())
    assert outcome.exit_code == 1
    assert report.failure is not None
    assert report.failure.kind is FailureClass.LIMIT
    assert report.failure.reset_at is not None
    assert abs(report.failure.reset_at - time.time() - 7200) < 120
