"""The table of agents over ACP, and what the adapter makes of a row."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.agents import catalog
from codex_self_iter.agents.acp import over_acp
from codex_self_iter.agents.base import AgentConfig, Request
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core.acp_agents import ACP_AGENTS, Counts, Setting
from codex_self_iter.core.agent_names import AUTO, CLIS, NAMES, NATIVE
from codex_self_iter.core.agent_report import Usage
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.core.terms import Role
from tests.acp.conftest import Host

ONLY = [name for name in CLIS if name not in NATIVE]


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """An environment in which every agent of the table is installed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for row in ACP_AGENTS.values():
        path = programs / row.command[0]
        path.write_text("#!/bin/sh\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path)}


def request(tmp_path: Path, environment: dict[str, str], **more: Any) -> Request:
    given = {"prompt": "p", "prompt_path": f"{tmp_path}/p.md", "workspace": f"{tmp_path}/work space",
             "plan_path": f"{tmp_path}/plan.md", "directory": f"{tmp_path}/run",
             "environment": environment}  # fmt: skip
    return Request(**(given | more))


@pytest.mark.parametrize("name", list(ACP_AGENTS))
@pytest.mark.parametrize("mode", ["safe", "bypass"])
def test_each_agent_is_called_as_its_row_says(
    tmp_path: Path, machine: dict[str, str], name: str, mode: str
) -> None:
    row = ACP_AGENTS[name]
    config = AgentConfig(
        name, mode=mode, model="m", effort="high", args=("--more",), protocol="acp"
    )
    made = catalog.get(name, config).prepare(request(tmp_path, machine))
    at = made.argv.index("--")
    assert made.argv[at + 1 :] == (f"{tmp_path}/bin/{row.command[0]}", *row.command[1:], "--more")
    ours = made.argv[:at]
    for words in (("--mode", mode), ("--model", "m"), ("--effort", "high"), ("--agent", name),
                  ("--cwd", f"{tmp_path}/work space"), ("--writable", f"{tmp_path}/plan.md"),
                  ("--control", f"{tmp_path}/run/control.json")):  # fmt: skip
        assert words in list(itertools.pairwise(ours))
    assert made.stdin_path == f"{tmp_path}/p.md"
    for key, value in (*row.env, *getattr(row, mode).env):
        assert made.env[key] == value


@pytest.mark.parametrize("name", NATIVE)
def test_without_protocol_the_agents_own_adapter_is_used(
    tmp_path: Path, machine: dict[str, str], name: str
) -> None:
    (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
    (tmp_path / "bin" / name).chmod(0o755)
    made = catalog.get(name, AgentConfig(name)).prepare(request(tmp_path, machine))
    assert os.path.basename(made.argv[0]) == name


@pytest.mark.parametrize("name", NATIVE)
def test_limits_are_shared_with_the_agents_own_adapter(name: str, machine: dict[str, str]) -> None:
    seen = machine | {"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b", "GEMINI_API_KEY": "c"}
    own, other = AgentConfig(name), AgentConfig(name, protocol="acp")
    assert catalog.get(name, own).account(seen) == catalog.get(name, other).account(seen)


def test_accounts_differ_by_key_and_tell_none(machine: dict[str, str]) -> None:
    agent = catalog.get("copilot")
    one = agent.account(machine | {"COPILOT_GITHUB_TOKEN": "secret-1"})
    two = agent.account(machine | {"COPILOT_GITHUB_TOKEN": "secret-2"})
    none = agent.account(machine | {"COPILOT_MODEL": "x"})
    assert len({one, two, none}) == 3
    assert "secret" not in one + two


@pytest.mark.parametrize("name", ONLY)
def test_an_agent_gets_only_its_own_secrets(
    tmp_path: Path, machine: dict[str, str], name: str
) -> None:
    keys = {"COPILOT_GITHUB_TOKEN", "DASHSCOPE_API_KEY", "VIBE_API_KEY", "KILO_API_KEY", "CURSOR_API_KEY",
            "GOOSE_API_KEY", "AUGMENT_API_TOKEN", "FACTORY_API_KEY", "JUNIE_API_KEY", "CLINE_API_KEY"}  # fmt: skip
    ours = machine | dict.fromkeys(keys, "s3cret") | {"AWS_SECRET_ACCESS_KEY": "x"}
    got = catalog.get(name).prepare(request(tmp_path, ours)).env
    assert len(keys & got.keys()) == 1
    assert "AWS_SECRET_ACCESS_KEY" not in got


def test_a_role_that_changes_nothing_is_put_into_another_mode(
    tmp_path: Path, machine: dict[str, str]
) -> None:
    asked = request(tmp_path, machine, role=Role.REVIEWER)
    made = catalog.get("kilo", AgentConfig("kilo", mode="bypass")).prepare(asked)
    assert "--read-only" in made.argv
    assert '"edit":"deny"' in made.env["KILO_PERMISSION"]


def test_an_old_session_is_named_with_what_it_has_used(
    tmp_path: Path, machine: dict[str, str]
) -> None:
    asked = request(tmp_path, machine, session_id="old", previous_thread_usage=Usage(5, 2, 1, 0.5))
    argv = catalog.get("vibe").prepare(asked).argv
    assert argv[argv.index("--resume") + 1] == "old"
    assert argv[argv.index("--before") + 1] == "5,2,1,0.5"


def test_nothing_of_where_we_are_is_imported(tmp_path: Path, machine: dict[str, str]) -> None:
    argv = catalog.get("vibe").prepare(request(tmp_path, machine)).argv
    assert {"-I", "-S"} <= set(argv)


def test_names_are_one_table() -> None:
    assert set(ACP_AGENTS) <= set(CLIS) <= set(NAMES)
    assert [name for name in AUTO if name not in NATIVE] == [
        name for name in ONLY if ACP_AGENTS[name].measured
    ]
    said = [one for row in ACP_AGENTS.values() for one in row.names]
    assert said == [one.lower() for one in dict.fromkeys(said)]


@pytest.mark.parametrize("name", ONLY)
def test_what_nobody_measured_is_said_in_safe_mode(name: str) -> None:
    row = ACP_AGENTS[name]
    what, mend = catalog.get(name).lacking({})  # type: ignore[attr-defined]
    assert bool(what) == bool(mend) == (row.safe == Setting())
    assert catalog.get(name, AgentConfig(name, mode="bypass")).lacking({}) == ("", "")  # type: ignore[attr-defined]


def test_every_measured_row_has_what_the_others_may_lack() -> None:
    for name, row in ACP_AGENTS.items():
        if row.measured:
            assert row.names, name
            assert row.safe != Setting(), name
            assert row.bypass != Setting(), name
            assert row.tells_cost or row.counts is not Counts.NONE, name


# -- looking ---------------------------------------------------------------------------------------


def probe(host: Host, agent: list[str]) -> Any:
    config = AgentConfig("acp", command=tuple(agent))
    return over_acp("acp")(config).probe(host.environment)


def test_a_probe_opens_a_session(host: Host) -> None:
    found = probe(host, host.agent([]))
    assert (found.installed, found.version, found.logged_in, found.mend) == (
        True,
        "1.2.3",
        True,
        "",
    )
    assert host.sent("session/prompt") == []


def test_a_probe_sees_a_missing_login(host: Host) -> None:
    assert probe(host, host.agent([], login=False)).logged_in is False


@pytest.mark.parametrize("words", [["/bin/cat"], ["/bin/echo", "hi"], ["/bin/false"]])
def test_a_probe_sees_what_is_no_agent(host: Host, words: list[str]) -> None:
    found = probe(host, words)
    assert found.version == ""
    assert "no ACP agent" in found.detail


def test_a_probe_of_nothing(host: Host) -> None:
    assert probe(host, ["/no/such/agent"]).installed is False


# -- reading ---------------------------------------------------------------------------------------


def test_a_killed_host_has_told_what_was_used(tmp_path: Path) -> None:
    lines = ['{"type": "acp.session", "id": "s1"}', '{"type": "acp.turn"}',
             '{"type": "acp.usage", "input": 100, "cached": 40, "output": 20, "cost_usd": 0.5}',
             '{"type": "acp.message", "te']  # fmt: skip
    (tmp_path / "stdout.log").write_text("\n".join(lines))
    outcome = RunOutcome("r", EndCause.EXIT, None, 9, 0.0, 1.0)
    asked = request(tmp_path, {"HOME": "/"}, directory=str(tmp_path))
    report = catalog.get("vibe").read(asked, outcome, RunFiles(str(tmp_path)))
    assert report.usage == Usage(100, 40, 20, 0.5)
    assert report.session_id == "s1"
    assert report.failure is not None


def test_events_of_the_host_are_recognised_without_its_name() -> None:
    speaker = catalog.speaker("acp.message", {"type": "acp.message"})
    assert speaker is not None
    assert [one.text for one in speaker.events("acp.message", {"text": "hi"})] == ["hi"]


@pytest.mark.parametrize(
    "value", [{}, {"text": 7}, {"id": []}, {"code": {}, "message": None, "data": 3}]
)
def test_no_event_of_the_host_raises(value: dict[str, object]) -> None:
    agent = over_acp("acp")
    for kind in ("agent", "session", "turn", "message", "progress", "aside", "note", "retry", "refused",
                 "tool", "tool_ended", "control", "usage", "done", "failed", "tomorrow"):  # fmt: skip
        agent.events(f"acp.{kind}", value)
