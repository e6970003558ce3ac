"""How each CLI is called, where it is looked for, and what is said when it is not there."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time

import pytest

from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import AgentConfig, AgentMissingError, Request, VersionRange
from codex_self_iter.agents.codex import git_directories
from codex_self_iter.agents.pricing import Price, priced
from codex_self_iter.agents.probe import ask, probe_program
from codex_self_iter.core.agent_names import AUTO, NATIVE
from codex_self_iter.core.agent_report import Usage
from codex_self_iter.core.terms import Role
from codex_self_iter.errors import UsageError

PROMPT = "secret\nprompt"


@pytest.fixture
def program(tmp_path):
    """Put an executable somewhere."""

    def make(path, text="exit 0"):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"#!/bin/sh\n{text}\n")
        target.chmod(0o755)
        return str(target)

    return make


@pytest.fixture
def request_for(tmp_path):
    def make(**more):
        values = {"environment": {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home")}} | more
        workspace = values.pop("workspace", str(tmp_path))
        return Request(
            PROMPT, str(tmp_path / "p.md"), workspace, "", str(tmp_path / "run"), **values
        )

    return make


def prepared(name, request, **config):
    return catalog.get(name, AgentConfig(name, binary="/bin/true", **config)).prepare(request)


@pytest.mark.parametrize("name", AUTO)
def test_the_prompt_is_on_stdin_and_never_on_the_command_line(request_for, name):
    request = request_for()
    invocation = prepared(name, request, model="m", effort="high", args=("--extra", "x y"))
    assert invocation.stdin_path == request.prompt_path
    assert not any(PROMPT in word for word in invocation.argv)
    assert "/bin/true" in invocation.argv
    joined = "\0".join(invocation.argv)
    assert "--extra\0x y" in joined
    assert "\0m\0" in joined + "\0"


@pytest.mark.parametrize("name", AUTO)
def test_a_hint_overrides_the_model(request_for, name):
    argv = prepared(name, request_for(model_hint="better"), model="m").argv
    assert "better" in argv
    assert "m" not in argv


@pytest.mark.parametrize("name", NATIVE)
def test_bypass_is_asked_for_and_never_given_unasked(request_for, name):
    words = {
        "codex": "--dangerously-bypass-approvals-and-sandbox",
        "claude": "--dangerously-skip-permissions",
        "gemini": "yolo",
        "opencode": "--auto",
    }
    assert words[name] not in prepared(name, request_for()).argv
    assert words[name] in prepared(name, request_for(), mode="bypass").argv


def test_claude_in_safe_mode_is_confined_to_the_workspace(request_for):
    """A bare rule for a file tool allows it everywhere."""
    argv = prepared("claude", request_for()).argv
    allowed = argv[argv.index("--allowedTools") + 1].split(",")
    assert not {"Read", "Edit", "Write", "MultiEdit", "NotebookEdit", "Bash"} & set(allowed)
    assert "acceptEdits" in argv


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another sandbox elsewhere")
@pytest.mark.parametrize(
    ("mode", "own", "shell"),
    [("safe", {}, "bash"), ("bypass", {}, None), ("safe", {"CLAUDE_CODE_SHELL": "/x"}, "/x")],
)
def test_in_safe_mode_claude_runs_commands_with_bash(request_for, mode, own, shell):
    """It takes a zsh where one is installed, and its older versions have no sandbox then."""
    ours = {"PATH": os.environ["PATH"], "SHELL": "/bin/zsh"} | own
    env = prepared("claude", request_for(environment=ours), mode=mode).env
    found = shutil.which("bash") if shell == "bash" else shell
    assert env.get("CLAUDE_CODE_SHELL") == found


@pytest.mark.parametrize("role", [Role.PLANNER, Role.REVIEWER])
@pytest.mark.parametrize(
    ("name", "mode", "has", "lacks"),
    [
        ("codex", "safe", "-s\0read-only", "workspace-write"),
        ("claude", "safe", "--disallowedTools\0Edit,Write,NotebookEdit", "acceptEdits"),
        ("claude", "bypass", "--disallowedTools\0Edit,Write,NotebookEdit", "acceptEdits"),
        ("gemini", "safe", "--approval-mode\0default", "auto_edit"),
        ("opencode", "safe", "--agent\0plan", "--auto\0"),
        ("opencode", "bypass", "--agent\0plan", "nothing"),
    ],
)
def test_planner_and_reviewer_may_not_edit(request_for, role, name, mode, has, lacks):
    joined = "\0".join(prepared(name, request_for(role=role, commit_by_agent=True), mode=mode).argv)
    assert has in joined
    assert lacks not in joined
    assert "git add" not in joined
    executor = "\0".join(prepared(name, request_for(), mode=mode).argv)
    assert has not in executor


def git(directory):
    """What makes a directory a git work tree."""
    (directory / ".git").mkdir()
    (directory / ".git" / "HEAD").write_text("ref: refs/heads/main\n")


def test_codex_in_full(request_for, tmp_path):
    git(tmp_path)
    schema = {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]}
    request = request_for(schema=schema, session_id="ID", commit_by_agent=True)
    invocation = prepared("codex", request, model="m", effort="high", args=("-c", "a=1"))
    run = str(tmp_path / "run")
    assert invocation.argv == (
        "/bin/true", "exec", "--json", "-s", "workspace-write",
        "-c", f'sandbox_workspace_write.writable_roots=["{os.path.realpath(tmp_path)}/.git"]',
        "-C", str(tmp_path), "--color", "never", "-c", "features.plugins=false",
        "-m", "m", "-c", 'model_reasoning_effort="high"', "-o", f"{run}/answer.txt",
        "--output-schema", f"{run}/schema.json", "-c", "a=1", "resume", "ID", "-",
    )  # fmt: skip
    assert {path: json.loads(text) for path, text in invocation.files.items()} == {
        f"{run}/schema.json": schema | {"required": ["a", "b"]}
    }


def test_a_workspace_without_git_is_told_to_codex(request_for, tmp_path):
    flag = "--skip-git-repo-check"
    assert flag in prepared("codex", request_for()).argv
    (tmp_path / ".git").mkdir()  # empty: what a killed sandbox leaves
    assert flag in prepared("codex", request_for()).argv
    (tmp_path / ".git").rmdir()
    git(tmp_path)
    assert flag not in prepared("codex", request_for()).argv
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert flag not in prepared("codex", request_for(workspace=str(inner))).argv


def test_git_directories_of_a_linked_work_tree(scene):
    linked = scene.base / "linked"
    scene.git("worktree", "add", "-q", str(linked))
    common = os.path.realpath(scene.workspace / ".git")
    assert git_directories(str(linked)) == [f"{common}/worktrees/linked", common]
    (scene.base / "broken").mkdir()
    (scene.base / "broken" / ".git").write_text("")
    assert git_directories(str(scene.base / "broken")) == []


def test_claude_as_root_may_bypass(request_for):
    env = prepared("claude", request_for(), mode="bypass").env
    assert env.get("IS_SANDBOX") == ("1" if os.geteuid() == 0 else None)
    assert "IS_SANDBOX" not in prepared("claude", request_for()).env


@pytest.mark.parametrize("name", NATIVE)
def test_a_home_of_its_own(request_for, name, tmp_path):
    env = prepared(name, request_for(), home=str(tmp_path / "own")).env
    added = {key for key, value in env.items() if str(tmp_path / "own") in value}
    assert added
    config = AgentConfig(name, home=str(tmp_path / "own"))
    assert str(tmp_path / "own") in catalog.get(name, config).account({})


@pytest.mark.parametrize("name", AUTO)
def test_limits_are_shared_by_login(name):
    agent = catalog.get(name)
    assert agent.account({"HOME": "/a"}) == agent.account({"HOME": "/a", "X": "1"})
    assert agent.account({"HOME": "/a"}) != agent.account({"HOME": "/b"})
    key = {"codex": "CODEX_API_KEY", "claude": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY",
           "copilot": "GH_TOKEN", "vibe": "MISTRAL_API_KEY"}  # fmt: skip
    with_key = {"HOME": "/a", key.get(name, "OPENAI_API_KEY"): "k"}
    assert agent.account(with_key) == agent.account(with_key | {"HOME": "/b"})
    assert agent.account(with_key) != agent.account({"HOME": "/a"})


class TestFinding:
    @pytest.mark.parametrize("name", AUTO)
    def test_nowhere(self, tmp_path, name):
        environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
        with pytest.raises(AgentMissingError) as caught:
            catalog.get(name).prepare(Request("", "/p", "/", "", "/r", environment=environment))
        said = str(caught.value)
        assert f"'{catalog.get(name).program or name}'" in said
        install = "uv tool install" if name == "vibe" else "npm install"
        assert install in said
        assert f"[agents.{name}] binary" in said
        probe = catalog.get(name).probe(environment)
        assert not probe.installed
        assert install in probe.mend

    @pytest.mark.parametrize(
        "place",
        [
            "path",
            "home/.local/bin",
            "home/.npm-global/bin",
            "home/.nvm/versions/node/v20.1.0/bin",
            "home/.volta/bin",
        ],
    )
    def test_in_common_places(self, tmp_path, program, place):
        path = program(f"{place}/codex")
        environment = {"PATH": str(tmp_path / "path"), "HOME": str(tmp_path / "home")}
        request = Request("", "/p", "/", "", "/r", environment=environment)
        invocation = catalog.get("codex").prepare(request)
        assert invocation.argv[0] == path
        assert os.path.dirname(path) in invocation.env["PATH"].split(":")
        assert invocation.env["PATH"].startswith(str(tmp_path / "path"))

    def test_the_newest_of_nvms(self, tmp_path, program):
        for version in ("v9.9.9", "v22.3.1", "v22.20.0"):
            program(f"home/.nvm/versions/node/{version}/bin/codex")
        environment = {"PATH": str(tmp_path), "HOME": str(tmp_path / "home")}
        assert "v22.20.0" in catalog.get("codex").find(environment)

    def test_the_configured_one_goes_first(self, tmp_path, program):
        program("path/codex")
        mine, variable = program("mine/agent"), program("variable/agent")
        environment = {"PATH": str(tmp_path / "path"), "HOME": str(tmp_path), "CODEX_BIN": variable}
        assert catalog.get("codex").find(environment) == variable
        assert catalog.get("codex", AgentConfig("codex", binary=mine)).find(environment) == mine

    def test_one_that_cannot_be_run(self, tmp_path):
        (tmp_path / "codex").write_text("x")
        config = AgentConfig("codex", binary=str(tmp_path / "codex"))
        with pytest.raises(AgentMissingError, match="cannot be executed"):
            catalog.get("codex", config).find({"PATH": ""})


class TestRegistry:
    def test_an_unknown_name_gets_the_nearest(self):
        with pytest.raises(UsageError, match="did you mean 'codex'"):
            catalog.get("codx")

    def test_detection_keeps_its_order_and_never_takes_plan_shell(self, tmp_path, program):
        environment = {"PATH": str(tmp_path / "path"), "HOME": str(tmp_path)}
        configs = {name: AgentConfig(name) for name in catalog.NAMES}
        assert catalog.detect(environment, configs) is None
        for name in ("opencode", "claude"):
            program(f"path/{name}")
        assert catalog.installed(environment, configs) == ["claude", "opencode"]
        assert catalog.detect(environment, configs) == "claude"
        program("path/codex")
        assert catalog.detect(environment, configs) == "codex"


class TestProbe:
    def test_a_program_that_hangs_is_given_up(self, program):
        path = program("slow", "sleep 60 & exec sleep 60")
        before = time.monotonic()
        code, said = ask([path], dict(os.environ), timeout_sec=0.5)
        assert code is None
        assert "0.5 s" in said
        assert time.monotonic() - before < 30

    def test_a_broken_program(self, program):
        probe = probe_program(program("broken", "echo oh no; exit 3"), dict(os.environ), None)
        assert (probe.installed, probe.version) == (True, "")
        assert "oh no" in probe.detail

    def test_codexs_sandbox_is_tried_in_a_temporary_directory_as_runs_have_it(
        self, tmp_path, program
    ):
        """With a home below it codex makes no helper; a home below /tmp alone is no fault."""
        said = "bwrap: execvp codex-linux-sandbox: No such file or directory"
        path = program("codex", f'case "$HOME" in "$TMPDIR"/*) echo "{said}";; esac')
        environment = {"HOME": f"{tmp_path}/home", "TMPDIR": str(tmp_path), "PATH": os.defpath}
        agent = catalog.get("codex", AgentConfig("codex", binary=path))
        assert agent.sandbox_flaw(environment) == ("", "")
        chosen = AgentConfig("codex", binary=path, env={"TMPDIR": str(tmp_path)})
        assert catalog.get("codex", chosen).sandbox_flaw(environment)[0] == said

    @pytest.mark.parametrize(
        ("version", "said"),
        [("1.2.3", "older"), ("1.5.0", ""), ("2.0.0-beta.1", "newer"), ("1.10.0", "newer")],
    )
    def test_versions_are_compared(self, program, version, said):
        path = program("tool", f"echo 'tool v{version} (x)'")
        probe = probe_program(path, dict(os.environ), VersionRange("1.4.0", "1.9.9"))
        assert probe.version == version
        assert (said in probe.detail) if said else probe.detail == f"version {version}"


def test_money():
    prices = {"m": Price(2.0, 8.0, 0.5)}
    usage = Usage(1_000_000, 400_000, 500_000)
    assert priced(usage, "m", prices).cost_usd == pytest.approx(1.2 + 0.2 + 4.0)
    assert priced(usage, "provider/m", prices).cost_usd == pytest.approx(5.4)
    assert priced(usage, "other", prices) is usage
    assert priced(usage, "", prices) is usage
    assert priced(None, "m", prices) is None
    known = Usage(1, 0, 1, 0.5)
    assert priced(known, "m", prices) is known


def test_files_of_an_invocation_are_text_by_absolute_path(request_for):
    invocation = prepared("codex", request_for(schema={"type": "object"}))
    assert all(os.path.isabs(path) for path in invocation.files)


def test_inside_our_fence_codex_asks_for_no_tmp(request_for):
    kept = "sandbox_workspace_write.exclude_slash_tmp=true"
    for fenced in (False, True):
        assert (kept in prepared("codex", request_for(), fenced=fenced).argv) is fenced
    assert kept not in prepared("codex", request_for(role=Role.REVIEWER), fenced=True).argv


def test_inside_our_fence_claude_has_the_runs_temporary_directory(request_for):
    given = {"PATH": "/usr/bin:/bin", "HOME": "/h", "CLAUDE_CODE_TMPDIR": "/elsewhere"}
    request = request_for(environment=given, temporary="/run/tmp")
    for fenced, place in ((False, "/elsewhere"), (True, "/run/tmp")):
        invocation = prepared("claude", request, fenced=fenced)
        assert invocation.env["CLAUDE_CODE_TMPDIR"] == place
        weaker = "enableWeakerNestedSandbox" in " ".join(invocation.argv)
        assert weaker is (fenced and os.geteuid() == 0)
