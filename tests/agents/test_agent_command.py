"""The command template and the plain-text agents."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.agents.base import AgentConfig, AgentMissingError
from codex_self_iter.agents.command import CommandAgent, expand_template, text_report
from codex_self_iter.agents.plan_shell import PlanShellAgent
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core.agent_report import FailureClass
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.errors import UsageError
from tests.support.agent_runs import go, run

ANY_PATH = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("a {prompt_file}", ("a", "P")),
        ("a {prompt_file} {workspace}", ("a", "P", "W")),
        (
            "'my agent' --in={prompt_file} \"x y\" {{}} {{z}}",
            ("my agent", "--in=P", "x y", "{}", "{z}"),
        ),
        ("a $HOME `b` * ; {prompt_file}", ("a", "$HOME", "`b`", "*", ";", "P")),
        ("a {prompt_file}{prompt_file}", ("a", "PP")),
    ],
)
def test_a_template_is_split_and_then_filled_in(template, words):
    assert expand_template(template, "P", "W") == words


@given(ANY_PATH, ANY_PATH)
def test_any_path_arrives_whole(prompt, workspace):
    """Spaces, quotes, braces, `$`, other letters: what is filled in is never read again."""
    template = "agent 'two words' {prompt_file} --dir={workspace}"
    assert expand_template(template, prompt, workspace) == (
        "agent",
        "two words",
        prompt,
        f"--dir={workspace}",
    )


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("", "names no program"),
        ("   ", "names no program"),
        ("agent", "must contain {prompt_file}"),
        ("agent {workspace}", "must contain {prompt_file}"),
        ("agent {{prompt_file}}", "must contain {prompt_file}"),
        ("agent {prompt_file} {plan}", "unknown field {plan}"),
        ("agent {prompt_file} {}", "unknown field {}"),
        ("agent {prompt_file} {0}", "unknown field {0}"),
        ("agent {prompt_file.x}", "unknown field {prompt_file.x}"),
        ("agent {prompt_file!r}", "unknown field"),
        ("agent {prompt_file:>9}", "unknown field"),
        ("agent {prompt_file", "meant as itself"),
        ("agent {prompt_file} }", "meant as itself"),
        ("agent 'x {prompt_file}", "cannot be split"),
    ],
)
def test_a_bad_template_is_named(template, said):
    with pytest.raises(UsageError, match="agent_command_template") as caught:
        expand_template(template, "P", "W")
    assert said in str(caught.value)


@given(st.text(max_size=60))
def test_any_template_is_used_or_refused_in_words(template):
    try:
        words = expand_template(template, "P", "W")
    except UsageError:
        return
    assert any("P" in word for word in words)


def command(template, **more) -> CommandAgent:
    return CommandAgent(AgentConfig("command", template=template, **more))


def script(scene, text):
    path = scene.base / "my agent {x} $y ü.sh"
    path.write_text("#!/bin/sh\n" + text, encoding="utf-8")
    path.chmod(0o755)
    return str(path).replace("{", "{{").replace("}", "}}")


def test_a_program_of_the_persons_own_runs(scene):
    path = script(
        scene, 'cat "$1"; echo "in $2 mode $CODEX_SELF_ITER_AGENT_MODE key $MY_API_KEY"; cat'
    )
    scene.environment["MY_API_KEY"] = "k"
    agent = command(f"'{path}' {{prompt_file}} {{workspace}}", mode="bypass")
    report, _ = go(agent, scene.request("The “prompt” {x} $y"))
    assert report.failure is None
    assert report.answer == f"The “prompt” {{x}} $yin {scene.workspace} mode bypass key k\n"


def test_without_success_nothing_is_believed(scene):
    path = script(
        scene,
        "echo COMPLETED: true; echo 'ERROR: usage limit, try again in 2 hours' >&2; echo bye >&2; exit 1",
    )
    report, _ = go(command(f"'{path}' {{prompt_file}}"), scene.request())
    assert report.answer == ""
    assert report.failure is not None
    assert report.failure.kind is FailureClass.LIMIT
    assert report.failure.reset_at is not None
    assert report.failure.message == "ERROR: usage limit, try again in 2 hours"


def test_words_of_a_limit_in_a_good_run_mean_nothing(scene):
    """The negative control."""
    path = script(scene, "echo 'ERROR: usage limit, try again in 2 hours' >&2; echo fine")
    report, _ = go(command(f"'{path}' {{prompt_file}}"), scene.request())
    assert (report.failure, report.answer) == (None, "fine\n")


@pytest.mark.parametrize(
    ("says", "kind"),
    [
        ("Reconnecting... waiting for network", FailureClass.NETWORK),
        ("compiling", FailureClass.AGENT),
    ],
)
def test_a_time_out_with_the_network_on_its_lips(scene, says, kind):
    path = script(scene, f"echo '{says}' >&2; exec sleep 60")
    agent = command(f"'{path}' {{prompt_file}}")
    request = scene.request()

    def said():
        return bool(RunFiles(request.directory).read_tail("stderr.log"))

    report, _ = go(agent, request, end_when=said, cause=EndCause.WALL_TIMEOUT)
    assert report.failure is not None
    assert report.failure.kind is kind


@pytest.mark.parametrize("first", ["true", "echo 'Reconnecting... waiting for network' >&2"])
def test_what_a_shell_says_of_our_own_signal_is_no_retry(scene, first):
    """A wrapper that cleans up prints `Terminated` of the child that was ended with it. Taken for
    the network's fault, an agent that hangs every time would be tried again for ever."""
    path = script(
        scene, f"trap 'exit 143' TERM; {first}; sh -c 'echo started; exec sleep 60'; true"
    )
    request = scene.request()

    def said():
        return bool(RunFiles(request.directory).read_tail("stdout.log"))

    agent = command(f"'{path}' {{prompt_file}}")
    report, _ = go(agent, request, end_when=said, cause=EndCause.WALL_TIMEOUT)
    assert "Terminated" in RunFiles(request.directory).read_tail("stderr.log")
    assert report.failure is not None
    wanted = FailureClass.AGENT if first == "true" else FailureClass.NETWORK
    assert report.failure.kind is wanted


def test_a_long_answer_keeps_its_end(scene):
    path = script(scene, "head -c 1000000 /dev/zero | tr '\\0' x; echo THE END")
    report, _ = go(command(f"'{path}' {{prompt_file}}"), scene.request())
    assert report.answer.endswith("xxTHE END\n")
    assert len(report.answer) == report.cut == 256 * 1024


def test_a_missing_program_is_named_with_what_to_do(scene):
    for template in ("no-such-agent {prompt_file}", "./no/such/agent {prompt_file}"):
        with pytest.raises(AgentMissingError, match=r"no.such.agent") as caught:
            command(template).prepare(scene.request())
        assert "agent_command_template" in str(caught.value)
        probe = command(template).probe(scene.environment)
        assert (probe.installed, bool(probe.mend)) == (False, True)


def test_a_relative_program_is_found_in_the_workspace(scene):
    (scene.workspace / "agent.sh").write_text("#!/bin/sh\necho here\n")
    (scene.workspace / "agent.sh").chmod(0o755)
    report, _ = go(command("./agent.sh {prompt_file}"), scene.request())
    assert report.answer == "here\n"


def test_the_account_is_the_template_or_the_configured_one():
    assert command("a {prompt_file}").account({}) == command("a {prompt_file}").account({})
    assert command("a {prompt_file}").account({}) != command("b {prompt_file}").account({})
    assert command("a {prompt_file}", account="mine").account({}) == "mine"


def test_plan_shell_is_started_as_a_module_with_the_prompt_on_stdin(scene):
    agent = PlanShellAgent(AgentConfig("plan-shell"))
    request = scene.request()
    invocation = agent.prepare(request)
    assert invocation.argv[:2] == (sys.executable, "-P")
    assert invocation.argv[4:6] == ("-m", "codex_self_iter.plan_shell")
    assert invocation.argv[6:] == ("--plan", request.plan_path, "--workspace", request.workspace)
    assert invocation.stdin_path == request.prompt_path
    imports = (sys.executable, "-c", "import codex_self_iter; print(codex_self_iter.__version__)")
    outcome = run(type(invocation)(imports, invocation.env), request)
    assert outcome.ok, RunFiles(request.directory).read_tail("stderr.log")
    assert agent.probe(os.environ).installed


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Usage limit reached. Try again in 2 hours.", FailureClass.LIMIT),
        ("Error: not logged in. Please run login.", FailureClass.AUTH),
    ],
)
def test_a_refusal_is_told_from_success_although_the_exit_code_is_0(tmp_path, said, kind):
    (tmp_path / "stdout.log").write_text(f"{said}\n")
    outcome = RunOutcome("r", EndCause.EXIT, 0, None, 0.0, 1.0)
    report = text_report(outcome, RunFiles(str(tmp_path)), 1_000.0, account="a")
    assert report.failure is not None
    assert report.failure.kind is kind


def test_an_answer_that_speaks_of_limits_is_an_answer(tmp_path):
    (tmp_path / "stdout.log").write_text(
        '{"summary": "handled the usage limit error", "next_goal": "x", "stop": false}\n'
    )
    outcome = RunOutcome("r", EndCause.EXIT, 0, None, 0.0, 1.0)
    assert text_report(outcome, RunFiles(str(tmp_path)), 1_000.0, account="a").failure is None
