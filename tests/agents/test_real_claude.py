"""The real Claude Code CLI, against a local model server."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys

import pytest

from codex_self_iter.agents.claude import ClaudeAgent
from codex_self_iter.core.agent_report import FailureClass
from codex_self_iter.core.runs import EndCause
from codex_self_iter.core.terms import Role
from tests.support.agent_runs import (
    DONE,
    SANDBOX_PROGRAMS,
    SCHEMA,
    both_versions,
    claude_config,
    go,
    place_outside,
)
from tests.support.model_server import ModelServer, Step, answer, call, fault, say, shell, write

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


@both_versions
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


@both_versions
def test_a_resumed_run_goes_on_with_the_conversation(scene, serve):
    server, claude = serve(say("first"), say("second"))
    first, _ = go(claude, scene.request("number one"))
    second, _ = go(claude, scene.request("number two", session_id=first.session_id))
    assert (second.answer, second.session_id) == ("second", first.session_id)
    assert "number one" in json.dumps(server.main_asks[1].body["messages"])
    third, _ = go(
        claude,
        scene.request(
            "number three",
            session_id=first.session_id,
            previous_thread_usage=second.thread_usage,
        ),
    )
    for report in (second, third):  # of each run alone, in tokens and in money
        assert report.usage == dataclasses.replace(
            first.usage, cost_usd=pytest.approx(first.usage.cost_usd)
        )


@both_versions
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


@pytest.mark.parametrize("older", [True], ids=["older"])
@pytest.mark.parametrize(
    ("name", "kind"), [("usage_limit", FailureClass.LIMIT), ("unauthorized", FailureClass.AUTH)]
)
def test_the_older_version_says_it_too(scene, serve, name, kind):
    _, claude = serve(fault(name))
    report, _ = go(claude, scene.request())
    assert report.failure is not None
    assert report.failure.kind is kind


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


@both_versions
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


def touch(path) -> str:
    """A command that is not one of the simple ones."""
    return f"python3 -c \"open('{path}', 'w')\""


@pytest.fixture
def sandbox():
    """What claude's sandbox needs."""
    missing = [name for name in SANDBOX_PROGRAMS if shutil.which(name) is None]
    if sys.platform.startswith("linux") and missing:
        message = f"claude's sandbox needs {' and '.join(missing)}"
        if os.environ.get("CODEX_SELF_ITER_REQUIRE_REAL_AGENTS") == "1":
            pytest.fail(message)
        pytest.skip(message)


class Ground:
    """A home with a key, a directory beside the workspace, a workspace with a commit and a link that
    leads out of it; and what was there at first."""

    def __init__(self, scene):
        self.scene, self.outside, self.inside = scene, scene.base / "outside", scene.workspace
        for path, text in (
            (self.outside / "old.txt", "old SECRET\n"),
            (scene.home / ".ssh" / "id", "PRIVATE SECRET\n"),
            (self.inside / "in.txt", "in old\n"),
        ):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        scene.git("config", "user.name", "t")
        scene.git("config", "user.email", "t@example.invalid")
        scene.git("add", "in.txt")
        scene.git("commit", "-qm", "in")
        (self.inside / "link").symlink_to(self.outside)
        self.before = self.seen()

    def seen(self):
        """Everything that safe mode protects."""
        roots = (self.outside, self.scene.home / ".ssh", self.inside / ".git" / "hooks")
        files = [path for root in roots for path in root.rglob("*") if path.is_file()]
        own = [self.inside / ".git" / "config", self.inside / ".claude" / "settings.json"]
        there = [*files, *filter(os.path.exists, [*own, self.inside / ".mcp.json"])]
        return {str(path): path.read_text() for path in there}


def results(server) -> list[tuple[bool, str]]:
    """(went well, output) of every tool call of the last conversation."""
    contents = (message["content"] for message in server.main_asks[-1].body["messages"])
    blocks = (block for content in contents if isinstance(content, list) for block in content)
    return [
        (block.get("is_error") is not True, json.dumps(block["content"]))
        for block in blocks
        if block["type"] == "tool_result"
    ]


def refused_attempts(ground) -> list[Step]:
    """What no safe claude may do, with or without its sandbox."""
    ssh, out, inside = ground.scene.home / ".ssh", ground.outside, ground.inside
    return [
        call("Write", file_path=f"{ssh}/authorized_keys", content="x"),
        call("Write", file_path=f"{out}/new.txt", content="x"),
        call("Write", file_path=f"{inside}/link/new.txt", content="x"),
        call("Write", file_path=f"{inside}/.git/hooks/pre-commit", content="x"),
        call("Write", file_path=f"{inside}/.claude/settings.json", content="{}"),
        call("Write", file_path=f"{inside}/.mcp.json", content="{}"),
        call("Read", file_path=f"{ssh}/id"),
        call("Read", file_path=f"{out}/old.txt"),
        call("Edit", file_path=f"{out}/old.txt", old_string="old", new_string="new"),
        call("Grep", pattern="SECRET", path=str(ssh), output_mode="content"),
        call("Grep", pattern="SECRET", path="../outside", output_mode="content"),
        call("Grep", pattern="SECRET", path="link", output_mode="content"),
        call("Glob", pattern="**/*", path=str(ssh)),
        shell(f"cat {ssh}/id"),
        shell(f"git diff --output={out}/diff.txt"),
        shell(f"git log -p --output={out}/log.txt"),
        shell(f"git show --output={out}/show.txt"),
        shell(f"git diff --no-index /dev/null {ssh}/id"),
        shell(f"echo x > {out}/echo.txt"),
        shell(f"git status > {out}/status.txt"),
        shell(f"cp in.txt {out}/copy.txt"),
        shell(f"sed -i s/old/new/ {out}/old.txt"),
        shell(f"rm {out}/old.txt"),
        shell(touch(f"{out}/python.txt")),
        call("WebFetch", url="http://127.0.0.1:1/", prompt="x"),
    ]


def allowed_attempts(ground) -> list[Step]:
    """What every safe claude may do."""
    inside = ground.inside
    return [
        call("Read", file_path=f"{inside}/in.txt"),
        call("Edit", file_path=f"{inside}/in.txt", old_string="old", new_string="new"),
        call("Write", file_path=f"{inside}/new.txt", content="x"),
        call("Grep", pattern="new", output_mode="content"),
        call("Glob", pattern="*.txt"),
        shell("git status --short"),
        shell("git diff"),
        shell("git log --oneline"),
        shell("git show"),
        shell("ls; cat in.txt"),
    ]


@both_versions
def test_safe_mode_without_a_sandbox_keeps_to_the_workspace_and_says_what_it_refused(scene, serve):
    scene.without_sandbox()
    ground = Ground(scene)
    attempts = [*refused_attempts(ground), shell(touch("x.txt"))]
    server, claude = serve(*attempts, say("tried"))
    report, _ = go(claude, scene.request())
    assert report.failure is None
    assert ground.seen() == ground.before
    assert not (scene.workspace / "x.txt").exists()
    done = results(server)
    assert [step for step, (ok, _) in zip(attempts, done, strict=True) if ok] == []
    assert "SECRET" not in "".join(output for _, output in done)
    # of the edit it says that the file was not read; everything else is told as refused
    assert len(report.refused) == len(attempts) - 1
    assert report.refused[-1].startswith("Bash: python3 -c")


@both_versions
def test_safe_mode_lets_claude_work_in_the_workspace(scene, serve):
    scene.without_sandbox()
    ground = Ground(scene)
    attempts = allowed_attempts(ground)
    server, claude = serve(*attempts, say("did"))
    report, _ = go(claude, scene.request())
    assert report.refused == ()
    assert [step for step, (ok, _) in zip(attempts, results(server), strict=True) if not ok] == []
    assert scene.read("in.txt") == "in new\n"


@both_versions
def test_safe_mode_in_its_sandbox_keeps_to_the_workspace(scene, serve, sandbox):
    ground = Ground(scene)
    inside = [*allowed_attempts(ground), shell(touch("x.txt")), shell("cat ../outside/old.txt")]
    server, claude = serve()
    connect = f"import socket; socket.create_connection(('127.0.0.1', {server.port}), 5)"
    attempts = [*refused_attempts(ground), shell(f'python3 -c "{connect}"')]
    server.script = [*attempts, *inside, say("tried")]
    report, _ = go(claude, scene.request())
    assert report.failure is None
    assert ground.seen() == ground.before
    done = results(server)
    tried, worked = done[: len(attempts)], done[len(attempts) :]
    assert "PRIVATE" not in "".join(output for _, output in done)
    assert not tried[-1][0]  # no network
    assert [step for step, (ok, _) in zip(inside, worked, strict=True) if not ok] == []
    assert (scene.workspace / "x.txt").exists()


@both_versions
@pytest.mark.parametrize("chosen", [False, True], ids=["ours", "the person's"])
def test_its_commands_are_no_zshs_unless_a_person_chose_one(scene, serve, chosen, sandbox):
    """With a real zsh the sandbox of 2.1.197 is none (tried by hand with zsh 5.9)."""
    used, zsh = scene.base / "zsh-was-used", scene.base / "bin" / "zsh"
    zsh.parent.mkdir()
    zsh.write_text(f'#!/bin/sh\n: >{used}\nexec bash "$@"\n')
    zsh.chmod(0o755)
    scene.environment |= {"PATH": f"{zsh.parent}:{scene.environment['PATH']}", "SHELL": str(zsh)}
    env = {"CLAUDE_CODE_SHELL": str(zsh)} if chosen else {}
    _server, claude = serve(shell("pwd"), say("done"), env=env)
    report, _ = go(claude, scene.request())
    assert report.failure is None
    assert used.exists() == chosen
    flaw, mend = claude.lacking(scene.environment)
    assert ("run the commands of a zsh outside" in flaw) == chosen
    assert ("install bash, and set CLAUDE_CODE_SHELL" in mend) == chosen


@both_versions
def test_in_its_sandbox_named_files_can_be_committed_and_all_at_once_cannot(scene, serve, sandbox):
    Ground(scene)
    scene.git("checkout", "-q", "-b", "work")
    commit = shell("git add new.txt && git commit -qm by-agent")
    steps = [shell("touch new.txt"), shell("git add -A"), commit]
    server, claude = serve(*steps, say("did"))
    go(claude, scene.request(commit_by_agent=True))
    assert [ok for ok, _ in results(server)] == [True, False, True]
    assert scene.git("show", "--format=%s", "--name-only").split() == ["by-agent", "new.txt"]


def test_negative_control_a_bare_rule_allows_everywhere(scene, serve):
    ground = Ground(scene)
    write_out = call("Write", file_path=f"{ground.outside}/new.txt", content="x")
    _, claude = serve(write_out, say("did"), args=("--allowedTools", "Write"))
    report, _ = go(claude, scene.request())
    assert report.refused == ()
    assert (ground.outside / "new.txt").exists()


@both_versions
def test_bypass_mode_does_not(scene, serve):
    with place_outside() as beside:
        _, claude = serve(shell(touch(beside)), say("tried"), mode="bypass")
        report, _ = go(claude, scene.request())
        assert report.refused == ()
        assert os.path.exists(beside)


def test_a_tool_can_be_allowed(scene, serve):
    _, claude = serve(
        shell('python3 -c \'open("x", "w")\''),
        say("ok"),
        args=("--allowedTools", "Bash(python3:*)"),
    )
    report, _ = go(claude, scene.request())
    assert report.refused == ()
    assert (scene.workspace / "x").exists()


@both_versions
def test_the_agent_may_commit_when_it_is_to(scene, serve):
    scene.git("config", "user.name", "t")
    scene.git("config", "user.email", "t@example.invalid")
    commits = ["git add a.txt && git commit -m one", "git commit -am two --allow-empty"]
    commits.append("git commit -m \"$(cat <<'EOF'\nby-agent\n\nbody\nEOF\n)\" --allow-empty")
    _, claude = serve(write(str(scene.workspace / "a.txt"), "a"), *map(shell, commits), say("ok"))
    report, _ = go(claude, scene.request(commit_by_agent=True))
    assert report.refused == ()
    assert scene.git("log", "-3", "--format=%s").split() == ["by-agent", "two", "one"]


@both_versions
def test_what_may_commit_reads_and_writes_nothing_outside(scene, serve):
    scene.without_sandbox()
    ground = Ground(scene)
    key, out = scene.home / ".ssh" / "id", ground.outside
    attempts = [
        f"git commit --allow-empty -F {key}",
        f"git commit --allow-empty -m x -F {key}",
        f"git commit -amF {key}",
        f"git commit --allow-empty -F - < {key}",
        f"git commit --allow-empty --template={key}",
        f"git commit -m x --pathspec-from-file={key}",
        f"git commit -m x '--pathspec-from-file={key}'",
        f"git add --pathspec-from-file={key}",
        f'git commit --allow-empty -m "$(cat {key})"',
        f"git commit --allow-empty -m x > {out}/new.txt",
        f"git -C {out} add old.txt",
        f"git --work-tree={out} add old.txt",
        f"GIT_WORK_TREE={out} git add old.txt",
        f"cd {out} && git add old.txt",
        "git -c core.editor='touch pwned' commit --allow-empty",
        "GIT_EDITOR='touch pwned' git commit --allow-empty",
    ]
    server, claude = serve(*map(shell, attempts), say("tried"))
    go(claude, scene.request(commit_by_agent=True))
    done = zip(attempts, results(server), strict=True)
    assert [(step, said) for step, (ok, said) in done if ok or "SECRET" in said] == []
    assert ground.seen() == ground.before
    assert "SECRET" not in scene.git("log", "--format=%B")
    assert not (scene.workspace / "pwned").exists()


@both_versions
def test_the_probe_asks_without_spending(scene, serve, older):
    server, claude = serve(say("never"))
    probe = claude.probe(scene.environment)
    known = claude.known_versions.first if older else claude.known_versions.last
    assert (probe.installed, probe.version, probe.logged_in) == (True, known, True)
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
