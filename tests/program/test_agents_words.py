"""What an agent's words and its end amount to, from outside: a wrapper that prints what CLIs print."""

from __future__ import annotations

import itertools
import json
import pathlib
import re
import shlex
import tomllib

import pytest

from tests.support.harness import Workspace, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
WRAPPER = ROOT / "scripts" / "invoke-codex-agent.sh"
LIMIT = "You\u2019ve hit your usage limit. Try again in 2 hours."
WARNING = "(node:1) Warning: x is deprecated"


def says(ws: Workspace, *lines: str, **keys: object) -> None:
    """Let the agent be a program that does this at every run."""
    agent = ws.root / "agent.sh"
    agent.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n", encoding="utf-8")
    agent.chmod(0o755)
    template = f"{shlex.quote(str(agent))} {{prompt_file}} {{workspace}}"
    ws.config(agent_command_template=template, **keys)


def echo(text: str, to: str = "1") -> str:
    return f"printf '%s\\n' {shlex.quote(text)} >&{to}"


def classes(ws: Workspace) -> list[str]:
    return [line["failure_class"] for line in ws.journal()]


@pytest.mark.parametrize(
    "lines",
    [
        (echo("Added rate limiting to login. All tests pass."),),
        (echo("FAILED tests/test_rate_limit.py - assert 3 == 4"), "exit 1"),
        (echo("FAILED: expected 200, got 401 unauthorized"), "exit 1"),
        (echo(LIMIT), echo("but then the tests passed"), "exit 1"),
        (echo("x" * 10), echo("ok\n" * 12 + LIMIT), "exit 1"),
    ],
)
def test_words_that_no_cli_ends_with_are_the_agents_fault(
    ws: Workspace, lines: tuple[str, ...]
) -> None:
    says(ws, *lines, max_consecutive_errors=2)
    assert ws.run() == 4
    assert classes(ws) == ["agent", "agent"]


def test_what_a_run_that_worked_says_last_is_no_limit(ws: Workspace) -> None:
    work = 'date +%N >> "$2/work.txt"', echo("Edited work.txt")
    says(ws, *work, echo(LIMIT), "exit 1", max_consecutive_errors=2)
    assert ws.run("--max-iterations", "3") == 0  # and it worked: no error is counted
    assert classes(ws) == ["agent"] * 3
    assert ws.status()["counters"]["consecutive_errors"] == 0


@pytest.mark.parametrize(
    "lines",
    [(echo(LIMIT), echo(WARNING, "2"), "exit 1"), (echo(LIMIT, "2"), "exit 1"), (echo(LIMIT),)],
)
def test_a_limit_in_words_holds_the_loop_from_the_second_run_on(
    ws: Workspace, lines: tuple[str, ...]
) -> None:
    says(ws, *lines)
    process = ws.start()
    wait_until(lambda: len(ws.journal()) == 2, "the second run")
    ws.wait_state("limited")
    assert classes(ws) == ["limit", "limit"]
    first, second = ((line["wait"], line["after"]["limits"]) for line in ws.journal())
    assert first[0]["length"] < 10
    assert first[1] == {}  # the account is not held
    assert second[0]["length"] > 7000
    assert len(second[1]) == 1
    process.terminate()
    assert ws.ended(process) == 0


@pytest.mark.parametrize(
    ("text", "kind", "own"),
    [
        ("API Error: Connection error.", "network", 'date +%N >> "$2/.agent.md"'),
        (
            "You've hit your limit \u00b7 resets 11pm",
            "limit",
            'echo agent 1.0; date +%N >> "$2/agent.log"',
        ),
        (
            "Invalid API key \u00b7 Please run /login",
            "auth",
            'echo agent 1.0; mkdir -p "$2/.aider"; date +%N >> "$2/.aider/chat"',
        ),
    ],
)
def test_a_history_that_the_program_writes_is_no_work(
    ws: Workspace, text: str, kind: str, own: str
) -> None:
    says(ws, own, echo(text, "2"), "exit 1")
    process = ws.start()
    wait_until(lambda: len(ws.journal()) == 2, "the second run")
    if kind == "limit":
        assert ws.wait_state("limited")["wait"]["kind"] == "limit"
    first, second = (line["after"]["counters"] for line in ws.journal())
    assert classes(ws) == [kind] * 2
    assert (first["failures"], second["failures"]) == (1, 2)
    process.terminate()
    assert ws.ended(process) == (4 if kind == "auth" else 0)


@pytest.mark.slow
def test_a_run_that_changes_something_and_exits_with_an_error_waits_longer_each_time(
    ws: Workspace,
) -> None:
    says(ws, 'date +%N >> "$2/agent.log"', "exit 1", backoff_base_sec=0.05, backoff_max_sec=60)
    assert ws.run("--max-iterations", "6") == 0
    assert classes(ws) == ["agent"] * 6
    waits = [line["wait"]["length"] for line in ws.journal()]
    assert all(one * 1.7 < other for one, other in itertools.pairwise(waits)), waits
    assert ws.status()["counters"]["consecutive_errors"] == 0


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Your credit balance is too low to access the API. Please purchase credits.", "billing"),
        ("ERROR: You hit your spend cap set in your workspace.", "billing"),
        ("Invalid API key \u00b7 Please run /login", "auth"),
    ],
)
def test_what_only_a_person_mends_is_told_and_ends_after_two_tries(
    ws: Workspace, text: str, kind: str
) -> None:
    told = ws.root / "told"
    notify = ["sh", "-c", f"cat >> {shlex.quote(str(told))}; echo >> {shlex.quote(str(told))}"]
    says(ws, echo(text), "exit 1", max_consecutive_errors=0)
    config = ws.path / "codex-self-iter.toml"
    config.write_text(config.read_text() + f"[notify]\ncommand = {json.dumps(notify)}\n")
    assert ws.run() == 4
    assert classes(ws) == [kind, kind]
    status = ws.status()
    assert status["state"] == "blocked"
    assert f"a person must act ({kind}): " in status["reason"]
    assert "credit" in status["reason"] or "log in" in status["reason"]
    assert text.split(".")[0] in told.read_text()


@pytest.mark.parametrize("mode", ["safe", "bypass"])
def test_the_mode_reaches_codex_through_the_wrapper(ws: Workspace, mode: str) -> None:
    binary = ws.root / "bin" / "codex"
    binary.parent.mkdir()
    binary.write_text('#!/bin/sh\ncat >/dev/null\necho "$@" >&2\nenv >&2\nexit 3\n')
    binary.chmod(0o755)
    template = f"{shlex.quote(str(WRAPPER))} {{prompt_file}} {{workspace}}"
    ws.config(agent_command_template=template, max_consecutive_errors=1)
    given = {"CODEX_BIN": str(binary), "CODEX_SELF_ITER_AGENT_MODE": mode}
    given["CODEX_SELF_ITER_LOG__LEVEL"] = "info"
    assert ws.run(environment=given) == 4
    (said,) = (ws.state / "logs" / "runs").glob("*/stderr.log")
    words = said.read_text()
    bypassed = "--dangerously-bypass-approvals-and-sandbox" in words
    assert bypassed is (mode == "bypass")
    assert f"CODEX_SELF_ITER_AGENT_MODE={mode}" in words
    assert "CODEX_SELF_ITER_LOG__LEVEL" not in words


def test_an_answer_that_is_too_large_is_told_as_that(ws: Workspace) -> None:
    ws.script(
        {"append": {"work.txt": "x\n"}, "block": {"next_goal": "g" * 300_000}},
        {"append": {"work.txt": "x\n"}, "block": {"next_goal": "h" * 250_000}},
        {"block": {"completed": True}},
    )
    assert ws.run() == 0
    assert ws.verdicts() == ["error", "continue", "completed"]
    assert (
        "the answer is too large: a control block is looked for in its last 256 KiB" in ws.prompt(2)
    )
    assert len(ws.journal()[1]["next_goal"]) == 20_000


RECIPE = re.compile(r"^\| \w+ \| `(agent_command_template = .*)` \|$", re.MULTILINE)
RECIPES = RECIPE.findall((ROOT / "docs" / "agents.md").read_text(encoding="utf-8"))
ANSWER = json.dumps({"summary": "s", "next_goal": "n", "stop": False, "completed": True})


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_of_the_documentation_bring_the_prompt_to_the_program(
    ws: Workspace, recipe: str
) -> None:
    """A stand-in of the CLI's name answers when it has the prompt: on stdin, or by --message-file."""
    template = tomllib.loads(recipe)["agent_command_template"]
    assert len(RECIPES) == 3
    binaries = ws.root / "bin"
    binaries.mkdir()
    for name in ("qwen", "copilot", "aider"):
        lines = (
            "#!/bin/sh",
            'for word in "$@"; do last=$word; done',
            'if [ "$4" = "" ]; then cat > got; else cat "$last" > got; fi',
            "grep -q NEXT_GOAL got || grep -q next_goal got || exit 1",
            echo(ANSWER),
        )
        (binaries / name).write_text("\n".join(lines) + "\n")
        (binaries / name).chmod(0o755)
    ws.config(agent_command_template=template)
    path = f"{binaries}:{ws.environment['PATH']}"
    assert ws.run(environment={"PATH": path}) == 0
    assert ws.verdicts() == ["completed"]
