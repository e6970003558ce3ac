"""`doctor`: finds what would stop a run, says how to mend it, changes nothing."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.cli import config, doctor
from codex_self_iter.cli.doctor.ask import ask
from codex_self_iter.cli.doctor.finding import Context, Finding, good
from codex_self_iter.core.shell import bashism, piped, with_bash
from codex_self_iter.settings import CONFIG_NAME, Settings
from codex_self_iter.settings.templates import PLAN, TASK

Findings = dict[str, dict[str, Any]]
Call = Callable[..., tuple[int, Findings]]

CONFIG = 'agent = "command"\nagent_command_template = "sh -c true {prompt_file}"\n[verify]\ncommands = ["true"]\n'


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good workspace: repository with identity, plan, task, configuration. The home is empty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in list(os.environ):
        if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER", "CODEX_SELF_ITER_", "XDG_")):
            monkeypatch.delenv(name)
    path = tmp_path / "a b"
    path.mkdir()
    git(path, "init", "-q")
    git(path, "config", "user.name", "N")
    git(path, "config", "user.email", "n@example.invalid")
    (path / "plan.md").write_text("- [ ] x")
    (path / "TASK.md").write_text("x")
    (path / CONFIG_NAME).write_text(CONFIG)
    return path


@pytest.fixture
def call(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `doctor --json` on the workspace: exit code, and findings by id."""

    def run(*argv: str) -> tuple[int, Findings]:
        code = doctor.run(arguments("--workspace", str(workspace), "--json", *argv))
        report = json.loads(capsys.readouterr().out)
        assert report["ok"] == (code == 0)
        return code, {found["id"]: found for found in report["findings"]}

    return run


def arguments(*argv: str) -> argparse.Namespace:
    """Parse like the command line."""
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return parser.parse_args(argv)


def git(path: Path, *words: str) -> None:
    """Run git in a directory."""
    subprocess.run(["git", "-C", str(path), *words], check=True, capture_output=True)


def failed(findings: Findings) -> set[str]:
    """The ids of what failed."""
    return {name for name, found in findings.items() if found["status"] == "fail"}


def test_a_good_workspace_has_no_failure_and_is_left_as_it_was(call: Call, workspace: Path) -> None:
    before = sorted(path.name for path in workspace.iterdir())
    code, findings = call()
    assert (code, failed(findings)) == (0, set())
    assert sorted(path.name for path in workspace.iterdir()) == before
    expected = {
        "config",
        "python",
        "time.clock",
        "workspace",
        "state",
        "disk",
        "sentinel",
        "agent.command",
    }
    assert expected | {
        "gate.1",
        "git.program",
        "git.repository",
        "git.identity",
        "git.index_lock",
    } <= set(findings)


def spoil_plan(path: Path) -> None:
    (path / "plan.md").unlink()


def spoil_config(path: Path) -> None:
    (path / CONFIG_NAME).write_text(CONFIG + "x = 1\ny = 1\n")


def spoil_stop(path: Path) -> None:
    (path / ".codex-stop").touch()


def spoil_pause(path: Path) -> None:
    (path / ".codex-self-iter").mkdir(0o700)
    (path / ".codex-self-iter/PAUSE").touch()


def spoil_gate(path: Path) -> None:
    (path / CONFIG_NAME).write_text(CONFIG.replace('"true"', '"A=1 no-such-program x"'))


def spoil_gate_quotes(path: Path) -> None:
    (path / CONFIG_NAME).write_text(CONFIG.replace('"true"', '"echo \'x"'))


def spoil_gate_mode(path: Path) -> None:
    (path / "check.sh").write_text("#!/bin/sh\n")
    (path / CONFIG_NAME).write_text(CONFIG.replace('"true"', '"./check.sh"'))


def spoil_notify_of_a_shell(path: Path) -> None:
    command = '["sh", "-c", "no-such-mail -s it ada@example.org"]'
    (path / CONFIG_NAME).write_text(f"{CONFIG}[notify]\ncommand = {command}\n")


def spoil_notify(path: Path) -> None:
    (path / CONFIG_NAME).write_text(CONFIG + '[notify]\ncommand = ["no-such-program"]\n')


def spoil_agent(path: Path) -> None:
    (path / CONFIG_NAME).write_text(CONFIG.replace("sh -c", "scripts/agent.sh"))


def spoil_disk(path: Path) -> None:
    (path / CONFIG_NAME).write_text("min_free_disk_mb = 1000000000000\n" + CONFIG)


def spoil_identity(path: Path) -> None:
    git(path, "config", "--unset", "user.name")
    git(path, "config", "--unset", "user.email")
    git(path, "config", "user.useConfigOnly", "true")
    (path / CONFIG_NAME).write_text(CONFIG + "[git]\ncommit = 'agent'\n")


def spoil_index(path: Path) -> None:
    (path / ".git/index.lock").touch()
    os.utime(path / ".git/index.lock", (time.time() - 3600,) * 2)


def spoil_repository(path: Path) -> None:
    (path / ".git/HEAD").write_text("")
    (path / ".git/config").write_text("[broken")


@pytest.mark.parametrize(
    ("spoil", "name", "mend"),
    [
        (spoil_plan, "workspace", "codex-self-iter init"),
        (spoil_config, "config", "config check"),
        (spoil_stop, "sentinel.stop", "rm '"),
        (spoil_pause, "sentinel.pause", "rm '"),
        (spoil_gate, "gate.1", "install no-such-program"),
        (spoil_gate_quotes, "gate.1", "mend [verify] commands"),
        (spoil_gate_mode, "gate.1", "chmod +x '"),
        (spoil_notify, "notify", "install no-such-program"),
        (spoil_notify_of_a_shell, "notify", "install no-such-mail"),
        (spoil_agent, "agent.command", "chmod +x"),
        (spoil_disk, "disk", "make room"),
        (spoil_identity, "git.identity", "config user.name"),
        (spoil_index, "git.index_lock", "rm '"),
        (spoil_repository, "git.repository", "status"),
    ],
)
def test_a_fault_fails_with_the_command_that_mends_it(
    call: Call, workspace: Path, spoil: Callable[[Path], None], name: str, mend: str
) -> None:
    spoil(workspace)
    code, findings = call()
    assert code == 4
    assert name in failed(findings)
    assert mend in findings[name]["mend"]


def test_several_faults_are_all_found(call: Call, workspace: Path) -> None:
    for spoil in (spoil_plan, spoil_stop, spoil_index):
        spoil(workspace)
    _, findings = call()
    assert failed(findings) == {"workspace", "sentinel.stop", "git.index_lock"}


def test_less_serious_things_are_warnings(call: Call, workspace: Path) -> None:
    shutil.rmtree(workspace / ".git")
    (workspace / "TASK.md").unlink()
    (workspace / ".codex-self-iter").mkdir()
    (workspace / ".codex-self-iter").chmod(0o755)
    (workspace / ".codex-self-iter/status.json").touch()
    os.utime(workspace / ".codex-self-iter/status.json", (time.time() + 7200,) * 2)
    (workspace / CONFIG_NAME).write_text(CONFIG.replace('["true"]', "[]"))
    code, findings = call()
    assert code == 0
    warned = {name for name, found in findings.items() if found["status"] == "warn"}
    assert {"git.repository", "workspace.task", "state.private", "time.state", "gates"} <= warned
    assert all(findings[name]["mend"] for name in warned)


def test_a_program_that_a_gate_puts_on_its_own_path_is_not_missed(
    call: Call, workspace: Path
) -> None:
    (workspace / CONFIG_NAME).write_text(CONFIG.replace('"true"', '"PATH=bin:$PATH checker"'))
    assert failed(call()[1]) == set()


def test_what_init_wrote_and_nobody_touched_is_a_warning(call: Call, workspace: Path) -> None:
    (workspace / "TASK.md").write_text(TASK)
    (workspace / "plan.md").write_text(PLAN)
    _, findings = call()
    for name in ("workspace.task", "workspace.plan"):
        assert findings[name]["status"] == "warn"
        assert "still as `init` wrote it" in findings[name]["what"]
    (workspace / "TASK.md").write_text(TASK.replace("Goal:", "Goal: a parser"))
    assert call()[1]["workspace.task"]["status"] == "ok"


def test_a_gate_is_run_only_when_asked(call: Call, workspace: Path) -> None:
    (workspace / CONFIG_NAME).write_text(CONFIG.replace('"true"', '"touch ran && exit 3"'))
    _, findings = call()
    assert findings["gate.1"]["status"] == "ok"
    assert not (workspace / "ran").exists()
    code, findings = call("--run-gates")
    assert (workspace / "ran").exists()
    assert "exits 3" in findings["gate.1"]["what"]
    assert (code, findings["gate.1"]["status"]) == (0, "warn")


FAKE_CLI = """#!/bin/sh
case "$*" in
  *--version*) echo "codex-cli 0.169.0" ;;
  *login*) echo "{said}"; exit {code} ;;
esac
"""


def install(path: Path, said: str, code: int) -> None:
    """A stand-in for an agent's program that answers the two questions doctor asks."""
    path.write_text(FAKE_CLI.format(said=said, code=code))
    path.chmod(0o755)


def configure(workspace: Path, text: str) -> None:
    """Replace the agent in the configuration."""
    tables = CONFIG.split("\n", 2)[2]
    (workspace / CONFIG_NAME).write_text(f"{text}\n{tables}")


def test_an_agent_that_is_not_logged_in_fails_unless_another_can_take_over(
    call: Call, workspace: Path
) -> None:
    program = workspace.parent / "codex"
    install(program, "Not logged in", 1)
    table = f'[agents.codex]\nbinary = "{program}"'
    configure(workspace, f'agent = "codex"\n{table}')
    code, findings = call()
    assert (code, failed(findings)) == (4, {"agent.codex"})
    assert "login" in findings["agent.codex"]["mend"]
    (workspace / CONFIG_NAME).write_text(
        f'agent = "codex"\n[agents]\norder = ["codex", "plan-shell"]\ncodex.binary = "{program}"\n'
    )
    code, findings = call()
    assert (code, findings["agent.codex"]["status"], findings["agent.plan-shell"]["status"]) == (
        0,
        "warn",
        "ok",
    )


def test_a_good_agent_is_named_with_its_version(call: Call, workspace: Path) -> None:
    install(workspace.parent / "codex", "Logged in using an API key", 0)
    configure(workspace, f'agent = "codex"\n[agents.codex]\nbinary = "{workspace.parent}/codex"')
    code, findings = call()
    assert (code, findings["agent.codex"]["status"]) == (0, "ok")
    assert "0.169.0" in findings["agent.codex"]["what"]


@pytest.mark.parametrize(("version", "side"), [("0.42.0", "older"), ("9.0.1", "newer")])
def test_a_version_that_was_not_measured_is_said(
    call: Call, workspace: Path, version: str, side: str
) -> None:
    program = workspace.parent / "codex"
    install(program, "Logged in using an API key", 0)
    program.write_text(program.read_text().replace("0.169.0", version))
    configure(workspace, f'agent = "codex"\n[agents.codex]\nbinary = "{program}"')
    _, findings = call()
    assert (
        f"{version} is {side} than those this was measured with" in findings["agent.codex"]["what"]
    )


def test_claude_without_a_sandbox_is_said_and_how_to_mend_it(
    call: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    there = workspace.parent / "bin"
    there.mkdir()
    install(there / "claude", '{"loggedIn": true}', 0)
    table = f'[agents.claude]\nbinary = "{there}/claude"\nenv = {{ PATH = "{there}" }}'
    configure(workspace, f'agent = "claude"\n{table}')
    code, findings = call()
    assert (code, findings["agent.claude.sandbox"]["status"]) == (0, "warn")
    assert "without bubblewrap and socat" in findings["agent.claude.sandbox"]["what"]
    assert "apt-get install bubblewrap socat" in findings["agent.claude.sandbox"]["mend"]
    install(there / "bwrap", "", 0)
    assert "without socat" in call()[1]["agent.claude.sandbox"]["what"]
    install(there / "socat", "", 0)
    assert "agent.claude.sandbox" not in call()[1]
    (there / "bwrap").unlink()
    configure(workspace, f'agent = "claude"\nagent_mode = "bypass"\n{table}')
    code, findings = call()
    assert "agent.claude.sandbox" not in findings
    assert (code, "refuses" in findings["agent.claude"]["what"]) == (0, False)  # also as root


def test_a_bound_of_money_without_a_price_is_said(call: Call, workspace: Path) -> None:
    with (workspace / CONFIG_NAME).open("a") as file:
        file.write("[budget]\nmax_cost_usd = 1\n")
    code, findings = call()
    assert (code, findings["budget.command"]["status"]) == (0, "warn")
    assert "max_cost_usd cannot be kept" in findings["budget.command"]["what"]


def test_a_program_that_cannot_say_its_version_fails(call: Call, workspace: Path) -> None:
    program = workspace.parent / "codex"
    program.write_text("#!/bin/sh\necho 'Cannot find module yargs' >&2\nexit 1\n")
    program.chmod(0o755)
    configure(workspace, f'agent = "codex"\n[agents.codex]\nbinary = "{program}"')
    code, findings = call()
    assert (code, findings["agent.codex"]["status"]) == (4, "fail")
    assert "Cannot find module yargs" in findings["agent.codex"]["what"]
    assert findings["agent.codex"]["mend"]


def test_an_agent_that_is_not_installed_fails(call: Call, workspace: Path) -> None:
    configure(workspace, 'agent = "codex"\n[agents.codex]\nbinary = "/nonexistent/codex"')
    code, findings = call()
    assert (code, findings["agent.codex"]["status"]) == (4, "fail")
    assert "/nonexistent/codex" in findings["agent.codex"]["what"]


def test_a_machine_without_git_is_a_warning(
    call: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(workspace.parent / "empty"))
    _, findings = call()
    assert findings["git.program"]["status"] == "warn"


def test_each_loop_of_a_configuration_is_examined(call: Call, workspace: Path) -> None:
    (workspace / CONFIG_NAME).write_text(
        CONFIG + '[[workspaces]]\npath = "."\n[[workspaces]]\npath = "gone"\n'
    )
    args = arguments("--config", str(workspace / CONFIG_NAME), "--json")
    found = [finding for finding in doctor.examine(args) if finding.id == "workspace"]
    assert [(finding.loop, finding.status) for finding in found] == [
        ("a b", "ok"),
        ("gone", "fail"),
    ]


def test_a_check_that_raises_is_a_finding_and_hides_nothing() -> None:
    def broken(_: Context) -> Iterator[Finding]:
        yield good("first", "x")
        raise RuntimeError("boom")

    def sound(_: Context) -> Iterator[Finding]:
        yield good("second", "x")

    context = Context(Settings(), os.environ, time.time())
    found = list(doctor.run_checks((broken, sound), context))
    assert [finding.id for finding in found] == ["check.broken", "second"]
    assert "RuntimeError: boom" in found[0].what


def test_a_wrong_clock_fails() -> None:
    from codex_self_iter.cli.doctor import checks_machine

    found = list(checks_machine.clock(Context(Settings(), os.environ, now=86400.0)))
    assert (found[0].id, found[0].status) == ("time.clock", "fail")
    assert "1970-01-02" in found[0].what


def test_people_read_a_summary_and_how_to_mend(
    workspace: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil_stop(workspace)
    assert doctor.run(arguments("--workspace", str(workspace))) == 4
    text = capsys.readouterr().out
    assert "[ FAIL ] sentinel.stop:" in text
    assert f"mend: rm '{workspace}/.codex-stop'" in text
    assert text.rstrip().endswith("a run would be stopped or spoilt.")


def test_a_program_that_does_not_answer_is_given_up_and_leaves_nothing(tmp_path: Path) -> None:
    context = Context(Settings(workspace=tmp_path), os.environ, time.time())
    answer = ask(
        ["/bin/sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; wait"], context, timeout_sec=2
    )
    assert (answer.code, answer.text) == (None, "no answer within 2 s")
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.02)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_the_command_itself_says_who_works_here_and_exits_as_documented(command: Any) -> None:
    command.write_status()  # this process is the supervisor
    result = command("doctor", "--json", CODEX_SELF_ITER_AGENT="plan-shell")
    found = {one["id"]: one for one in json.loads(result.stdout)["findings"]}
    assert (found["lock"]["status"], str(os.getpid()) in found["lock"]["what"]) == ("warn", True)
    assert result.returncode == 0, result.stdout
    command.release()
    (command.workspace / "plan.md").unlink()
    assert command("doctor", CODEX_SELF_ITER_AGENT="plan-shell").returncode == 4
    assert command("doctor", "--no-such-flag").returncode == 2


def test_a_broken_configuration_is_a_finding_not_an_exit(command: Any) -> None:
    result = command("doctor", CODEX_SELF_ITER_AGENTT="x")
    assert result.returncode == 4
    assert "did you mean CODEX_SELF_ITER_AGENT" in result.stdout
    assert "time.clock" in result.stdout


BASHISMS = [
    "[[ -f x ]]", "source venv/bin/activate && pytest", "files=(a b) && test ${#files[@]} = 2",
    "diff <(ls a) <(ls b)", "grep x <<< y", "make &> log", "if true; then source x; fi",
]  # fmt: skip
PLAIN = [
    "test -f x", ". venv/bin/activate && pytest", "grep '[[ x ]]' file", 'echo "<(x)"',
    "make > log 2>&1", "(cd a && make)", "f() { true; }; f", "python -c 'a=(1, 2)'", "a=$(ls)",
    "grep -E \\[\\[ x", "bash -c '[[ -f x ]]'", "npm run source", "echo $((1 + 2))",
]  # fmt: skip


@pytest.mark.parametrize("command", BASHISMS)
def test_what_only_bash_understands_is_named(command: str) -> None:
    assert bashism(command)
    assert bashism(with_bash(command)) is None


@pytest.mark.parametrize("command", PLAIN)
def test_what_every_shell_understands_is_not(command: str) -> None:
    assert bashism(command) is None


@pytest.mark.parametrize(
    ("command", "hides"),
    [
        ("sh check.sh 2>&1 | tail -5", True),
        ("pytest -q | tee log", True),
        ("pytest -q || exit 1", False),
        ("git status --porcelain | grep -q .", False),
        ("echo 'a | tail'", False),
        ("bash -c 'set -o pipefail; pytest | tail'", False),
        ("set -o pipefail; pytest | tail", False),
        ("a | b && c", False),
    ],
)
def test_a_pipe_that_hides_a_failure_is_named(command: str, hides: bool) -> None:
    assert piped(command) is hides


@pytest.mark.skipif(
    "dash" not in os.path.realpath("/bin/sh"), reason="here /bin/sh understands bash's words"
)
def test_a_gate_for_bash_has_its_mend(
    call: Call, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = "[[ -f plan.md ]]"
    (workspace / CONFIG_NAME).write_text(CONFIG.replace('"true"', f'"{gate}"'))
    code, findings = call()
    assert code == 4
    assert findings["gate.1"]["status"] == "fail"
    assert findings["gate.1"]["mend"] == "bash -c '[[ -f plan.md ]]'"
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    assert config.run(parser.parse_args(["check", "--workspace", str(workspace)])) == 0
    assert "bash -c '[[ -f plan.md ]]'" in capsys.readouterr().out
