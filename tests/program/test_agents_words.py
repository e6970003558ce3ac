"""What an agent's words and its end amount to, from outside: a wrapper that prints what CLIs print."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.support.harness import Workspace

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
        ('date +%N >> "$2/work.txt"', echo(LIMIT), "exit 1"),
    ],
)
def test_words_that_no_cli_ends_with_are_the_agents_fault(
    ws: Workspace, lines: tuple[str, ...]
) -> None:
    says(ws, *lines, max_consecutive_errors=2)
    assert ws.run() == 4
    assert classes(ws) == ["agent", "agent"]


@pytest.mark.parametrize(
    "lines",
    [(echo(LIMIT), echo(WARNING, "2"), "exit 1"), (echo(LIMIT, "2"), "exit 1"), (echo(LIMIT),)],
)
def test_a_limit_in_words_holds_the_loop_from_the_second_run_on(
    ws: Workspace, lines: tuple[str, ...]
) -> None:
    says(ws, *lines)
    process = ws.start()
    ws.wait_state("limited")
    assert classes(ws) == ["limit", "limit"]
    assert [line["wait"]["kind"] for line in ws.journal()] == ["error", "limit"]
    assert ws.journal()[1]["wait"]["length"] > 7000
    process.terminate()
    assert ws.ended(process) == 0


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
