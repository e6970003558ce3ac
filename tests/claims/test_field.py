"""Situations of docs/field.md that no other test shows from outside.

codex, claude, gemini and opencode are stand-ins that print what the real ones print; the real ones
are run in `tests/agents/test_real_*`."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.harness import Workspace, wait_until
from tests.support.program import commands

BLOCK = {"summary": "s", "next_goal": "on", "stop": False, "reason": "r", "evidence": []}
DONE = {"block": {"completed": True}}
WORK = {"append": {"work.txt": "x\n"}}


def stand_in(ws: Workspace, name: str, *lines: str, tables: str = "", **keys: object) -> None:
    """Let a program that reads its prompt and does this be the agent of this name."""
    binary = ws.root / "bin" / name
    binary.parent.mkdir(exist_ok=True)
    head = f"#!/bin/sh\nhere='{ws.control}'\n[ -t 0 ] || cat > /dev/null\n"
    binary.write_text(head + "\n".join(lines) + "\n")
    binary.chmod(0o755)
    table = f"[agents.{name}]\nbinary = {json.dumps(str(binary))}\n{tables}"
    ws.config(table, agent=name, **keys)


def says(*events: object) -> str:
    """Shell that prints these, a line each."""
    lines = "\n".join(json.dumps(event, ensure_ascii=False) for event in events)
    return f"cat <<'EOF'\n{lines}\nEOF"


def codex_fails(text: str) -> list[object]:
    return [
        {"type": "thread.started", "thread_id": "0197a000-0000-7000-8000-000000000001"},
        {"type": "turn.started"},
        {"type": "turn.failed", "error": {"message": text}},
    ]


def claude_fails(text: str) -> list[object]:
    end = {"type": "result", "subtype": "success", "is_error": True, "session_id": "s"}
    init = {"type": "system", "subtype": "init", "session_id": "s", "model": "m"}
    return [init, end | {"api_error_status": 429, "result": text}]


# -- words ---------------------------------------------------------------------------------------


def next_monday(now: datetime) -> datetime:
    day = now + timedelta(days=-now.weekday() % 7)
    nine = day.replace(hour=9, minute=0, second=0, microsecond=0)
    return nine if nine > now else nine + timedelta(days=7)


def first_of_month(now: datetime) -> datetime:
    later = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (later + timedelta(days=32)).replace(day=1)


REGAIN = (
    "You have reached your specified API usage limits. You will regain access on {end:%Y-%m-%d}"
)


def day_of(now: datetime) -> datetime:
    return (now + timedelta(days=9)).replace(hour=0, minute=0, second=0, microsecond=0)


def tomorrow_at_nine(now: datetime) -> datetime:
    return (now + timedelta(days=1)).replace(hour=9, minute=0, second=0, microsecond=0)


def last_second_of_minute(now: datetime) -> datetime:
    """A clock without seconds is the end of its minute."""
    return (now + timedelta(hours=3)).replace(second=59, microsecond=0)


HIT = "You\u2019ve hit your usage limit. Try again "
ENDS: list[tuple[str, str, Callable[[datetime], datetime]]] = [
    ("claude", "Your limit will reset on Monday at 9am.", next_monday),
    ("claude", REGAIN + " at 00:00 UTC.", first_of_month),
    ("claude", "You've hit your Opus limit \u00b7 resets {end:%b} {end.day}", day_of),
    (
        "claude",
        "Usage limit reached. Please try again in 2 weeks.",
        lambda now: now + timedelta(14),
    ),
    ("claude", "Your limit will reset at 9 AM tomorrow.", tomorrow_at_nine),
    ("codex", HIT + "in an hour.", lambda now: now + timedelta(hours=1)),
    ("codex", HIT + "at {begin:%b %d, %Y %I:%M %p}.", last_second_of_minute),
]


@pytest.mark.parametrize(("agent", "text", "end"), ENDS)
def test_a_limits_end_is_read_in_the_words_of_the_cli(
    ws: Workspace, agent: str, text: str, end: Callable[[datetime], datetime]
) -> None:
    now = datetime.now().astimezone()
    expected = end(now)
    text = text.format(end=expected, begin=expected.replace(second=0))
    stand_in(ws, agent, says(*(codex_fails if agent == "codex" else claude_fails)(text)), "exit 1")
    process = ws.start()
    status = ws.wait_state("limited")
    until = datetime.fromisoformat(status["until"])
    assert timedelta(0) <= until - expected < timedelta(minutes=3), (text, until, expected)
    process.terminate()
    assert ws.ended(process) == 0


RED, END = "\x1b[1;31m", "\x1b[0m"
LABELS = "NEXT_GOAL: seen\nSTOP: no\nSUMMARY: s\nREASON: r\nEVIDENCE: e\nCOMPLETED: no\n"
ANSWER = json.dumps(BLOCK | {"next_goal": "seen", "completed": False})
SHAPES = {
    "coloured labels": LABELS.replace("NEXT_GOAL:", f"{RED}NEXT_GOAL:{END}"),
    "coloured JSON": ANSWER.replace('"next_goal"', f'{RED}"next_goal"{END}'),
    "a fence": f"Done.\n```json\n{ANSWER}\n```\n",
    "a comma at the end": ANSWER.replace("}", ",}"),
    "talk after it": f"{ANSWER}\nSTOP: yes\nREASON: I am tired\n",
    "a diff after it": f'{ANSWER}\n--- a/x\n+++ b/x\n-{{"next_goal": "old"}}\n+{{"stop": true}}\n',
    "lists and words for values": ANSWER.replace("false", '"no"').replace("[]", '"tests pass"'),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_is_read_in_the_shape_in_which_it_came(ws: Workspace, shape: str) -> None:
    ws.script({**WORK, "raw": SHAPES[shape]}, {**WORK, **DONE})
    assert ws.run() == 0
    assert ws.verdicts() == ["continue", "completed"]
    assert ws.journal()[0]["next_goal"] == "seen"


def test_an_older_block_does_not_stand_in_for_one_that_is_broken(ws: Workspace) -> None:
    older = json.dumps(BLOCK | {"completed": True})
    newer = json.dumps(BLOCK | {"completed": "partially"})
    ws.script({"raw": f"{older}\n{newer}\n"}, DONE)
    assert ws.run() == 0
    assert ws.verdicts()[0] == "error"
    assert "partially" in ws.prompt(2)


# -- how long it goes on ---------------------------------------------------------------------------


def test_falling_counts_of_a_gate_are_progress(ws: Workspace) -> None:
    left = f"n=$(cat '{ws.control}/left'); echo \"Found $n errors\"; [ $n -eq 0 ]"
    ws.config(
        f"[verify]\ncommands = [{json.dumps(left)}]\nevery_iteration = true\n", max_stagnation=2
    )
    (ws.control / "left").write_text("8")
    fewer = f"n=$(cat '{ws.control}/left'); [ $n -eq 0 ] || echo $((n-1)) > '{ws.control}/left'"
    step = {"run": fewer, **WORK, "block": {"next_goal": "mend the next one"}}
    ws.script(*[step] * 8, {**WORK, **DONE})
    assert ws.run() == 0
    assert len(ws.journal()) == 9


def test_negative_control_without_falling_counts_it_goes_in_circles(ws: Workspace) -> None:
    """The same goal with changes has three times the bound, without changes the bound."""
    ws.config(max_stagnation=2)
    ws.script({**WORK, "block": {"next_goal": "the same"}})
    assert ws.run() == 3
    changing = len(ws.journal())
    ws.script({"block": {"next_goal": "the same"}})
    (ws.state / "runtime.json").unlink()
    (ws.state / "runtime.json.1").unlink(missing_ok=True)
    (ws.state / "logs" / "iterations.jsonl").unlink()
    assert ws.run() == 3
    assert changing >= 3 * len(ws.journal()) - 3
    assert len(ws.journal()) <= 4 < 6 <= changing <= 9


def test_a_plan_of_blank_lines_holds_nothing_up(ws: Workspace) -> None:
    ws.plan("# Plan\n\n- [ ] first\n" + "\n" * 100_000 + " \n" * 50_000)
    ws.script({**WORK, "sleep": 60})
    process = ws.start()
    ws.wait_runs(1)
    begun = time.monotonic()
    process.terminate()
    assert ws.ended(process, 20) == 0
    assert time.monotonic() - begun < 15


# -- what a run gets and leaves --------------------------------------------------------------------


def test_what_a_run_does_not_get(ws: Workspace) -> None:
    """Neither the service manager's variables, nor git's, ours or anybody's keys; and no input."""
    ws.config('[verify]\ncommands = ["env > gate.txt"]\n')
    ws.script({"run": "env > agent.txt; read -r x; echo read $? > input.txt", **DONE})
    given = {
        "NOTIFY_SOCKET": "/nowhere/socket", "WATCHDOG_USEC": "60000000", "LISTEN_FDS": "1",
        "INVOCATION_ID": "i", "GIT_DIR": "/nowhere/.git", "GIT_INDEX_FILE": "/nowhere/index",
        "GIT_WORK_TREE": "/nowhere", "CODEX_SELF_ITER_LOG__LEVEL": "info",
    }  # fmt: skip
    assert ws.run(environment=given) == 0, ws.log()
    for name in ("agent.txt", "gate.txt"):
        got = {line.partition("=")[0] for line in (ws.path / name).read_text().splitlines()}
        assert got & given.keys() <= {"INVOCATION_ID"}, name
        assert "PATH" in got
    assert (ws.path / "input.txt").read_text() == "read 1\n"


def test_nothing_that_a_run_started_is_there_in_the_next(ws: Workspace) -> None:
    ws.script(
        {**WORK, "spawn": ["plain", "setsid", "double", "bare", "holder"]},
        {**WORK, "sleep": 60, "until": "go", **DONE},
    )
    process = ws.start()
    ws.wait_runs(2)
    left = [p for p, line in commands(ws.leftovers()) if "time.sleep(600)" in " ".join(line)]
    assert left == []
    (ws.control / "go").touch()
    assert ws.ended(process) == 0


def test_a_run_that_takes_all_memory_is_ended_and_the_loop_goes_on(ws: Workspace) -> None:
    ws.config(memory_limit_mb=150)
    eat = (
        f"{shlex.quote(sys.executable)} -c 'import time; x = bytearray(300 << 20); time.sleep(60)'"
    )
    ws.script({"run": eat}, {**WORK, **DONE})
    assert ws.run() == 0
    first, second = ws.journal()
    assert (first["cause"], second["verdict"]) == ("memory", "completed")
    assert "memory" in ws.prompt(2)


# -- the CLIs --------------------------------------------------------------------------------------


def claude_answers(calls: int, since: int | None) -> list[object]:
    """A result whose figures are of the whole conversation, as claude 2.1.332 gives them."""

    def models(count: int) -> dict[str, object]:
        tokens = {"inputTokens": 900 * count, "outputTokens": 100 * count}
        return {"m": tokens | {"costUSD": 0.5 * count}}

    end = {
        "type": "result", "subtype": "success", "is_error": False, "session_id": "s",
        "result": json.dumps(BLOCK | {"completed": calls == 3}), "total_cost_usd": 0.5 * calls,
        "usage": {"input_tokens": 900, "output_tokens": 100},
        "modelUsage": models(calls),
    }  # fmt: skip
    if since is not None:
        end["model_usage_since_last_result"] = models(since)
    return [{"type": "system", "subtype": "init", "session_id": "s", "model": "m"}, end]


@pytest.mark.parametrize("since", [1, None])
def test_a_resumed_conversation_is_counted_once(ws: Workspace, since: int | None) -> None:
    lines = [
        'n=$(cat "$here/n" 2>/dev/null || echo 0); n=$((n+1)); echo $n > "$here/n"',
        "date +%N >> work.txt",
        *(f"[ $n -eq {n} ] && {says(*claude_answers(n, since))}" for n in (1, 2, 3)),
    ]
    stand_in(ws, "claude", *lines, tables="resume = true\n")
    assert ws.run() == 0
    assert [line["usage"]["total_tokens"] for line in ws.journal()] == [1000] * 3
    assert [round(line["cost_usd"], 3) for line in ws.journal()] == [0.5] * 3


def test_a_codex_thread_is_counted_once(ws: Workspace) -> None:
    """Its figures are of the thread, from its first turn on."""
    lines = [
        'n=$(cat "$here/n" 2>/dev/null || echo 0); n=$((n+1)); echo $n > "$here/n"',
        "date +%N >> work.txt",
    ]
    for n in (1, 2, 3):
        text = json.dumps(BLOCK | {"completed": n == 3})
        events = [
            *codex_fails("")[:2],
            {"type": "item.completed", "item": {"id": "i", "type": "agent_message", "text": text}},
            {"type": "turn.completed",
             "usage": {"input_tokens": 1000 * n, "cached_input_tokens": 0, "output_tokens": 10 * n}},
        ]  # fmt: skip
        lines.append(f"[ $n -eq {n} ] && {says(*events)}")
    stand_in(ws, "codex", *lines, "exit 0", tables="resume = true\n")
    assert ws.run() == 0
    assert [line["usage"]["total_tokens"] for line in ws.journal()] == [1010] * 3


@pytest.mark.parametrize(
    "text", ["[API Error: terminated]", "[API Error: Expected property name or '}' in JSON at 1]"]
)
def test_a_connection_that_is_cut_is_the_networks_fault(ws: Workspace, text: str) -> None:
    error = {"type": "result", "status": "error", "error": {"type": "Error", "message": text}}
    start = {"type": "init", "session_id": "s", "model": "m"}
    ok = {
        "type": "message",
        "role": "assistant",
        "content": json.dumps(BLOCK | {"completed": True}),
    }
    end = {"type": "result", "status": "success", "stats": {"total_tokens": 5}}
    lines = (
        f'if [ ! -e "$here/was" ]; then touch "$here/was"; {says(start, error)}\nexit 1; fi',
        says(start, ok, end),
    )
    stand_in(ws, "gemini", *lines)
    assert ws.run() == 0
    first, last = ws.journal()
    assert (first["failure_class"], last["verdict"]) == ("network", "completed")
    assert ws.status()["counters"]["consecutive_errors"] == 0


@pytest.mark.slow
def test_an_agent_that_is_noisy_while_it_waits_is_idle(ws: Workspace) -> None:
    """opencode takes a few hundredths of a core while its server is silent."""
    noise = f"exec {shlex.quote(sys.executable)} -S -E -c " + shlex.quote(
        "import time\nwhile True:\n e = time.process_time() + 0.003\n"
        " while time.process_time() < e: pass\n time.sleep(0.2)"
    )
    stand_in(ws, "opencode", noise, idle_timeout_sec=5, max_consecutive_errors=1)
    assert ws.run(patience=100) == 4
    assert [line["cause"] for line in ws.journal()] == ["idle_timeout"]


def test_safe_claude_is_given_no_rule_that_lets_it_write_everywhere(ws: Workspace) -> None:
    stand_in(ws, "claude", 'printf "%s\\n" "$@" > "$here/argv"', says(*claude_answers(3, None)))
    assert ws.run() == 0
    words = (ws.control / "argv").read_text().split("\n")
    assert "acceptEdits" in words
    assert "--dangerously-skip-permissions" not in words
    allowed = {rule for word in words for rule in word.replace(",", " ").split()}
    assert not allowed & {"Read", "Edit", "Write", "NotebookEdit", "Grep", "Glob", "Bash"}


@pytest.mark.parametrize(
    "words", ["< {prompt_file}", "{prompt_file} | tee log", "x && {prompt_file}"]
)
def test_a_template_that_only_a_shell_understands_is_refused_with_the_right_line(
    ws: Workspace, words: str
) -> None:
    ws.config(agent_command_template=f"my-agent -y {words}")
    assert ws.run() == 2
    assert "sh -c" in ws.log()
    assert not (ws.state / "logs" / "iterations.jsonl").exists()


def test_an_answer_to_the_signal_is_not_believed(ws: Workspace) -> None:
    done = json.dumps(BLOCK | {"completed": True, "next_goal": "made up"})
    wait = f"touch '{ws.control}/there'; while :; do sleep 0.1; done"
    agent = ws.root / "agent.sh"
    answer = ws.root / "answer"
    answer.write_text(done + "\n")
    agent.write_text(f"#!/bin/sh\ntrap 'cat \"{answer}\"; exit 0' TERM\n{wait}\n")
    agent.chmod(0o755)
    ws.config(agent_command_template=f"{shlex.quote(str(agent))} {{prompt_file}}")
    process = ws.start()
    wait_until((ws.control / "there").exists, "the agent")
    assert ws.cli("stop").returncode == 0
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["aborted"]
    assert ws.status()["state"] == "stopped"
    assert ws.runtime()["goal"] != "made up"


# -- people ----------------------------------------------------------------------------------------


def test_a_signal_that_comes_while_it_waits_ends_it_at_once(ws: Workspace) -> None:
    ws.config(backoff_base_sec=600, backoff_max_sec=600)
    ws.script({"exit": 3})
    process = ws.start()
    ws.wait_state("backoff")
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process, 20) == 0
    assert ws.status()["state"] == "stopped"
    # and the next start waits the rest
    again = ws.start()
    ws.wait_state("backoff")
    assert ws.started() == 1
    again.terminate()
    assert ws.ended(again) == 0


def test_links_and_names_in_the_workspace_are_no_trap(ws: Workspace) -> None:
    """A workspace behind a link is the same workspace: a second supervisor is refused."""
    link = ws.root / "a link"
    os.symlink(ws.path, link)
    ws.script({**WORK, "sleep": 60})
    first = ws.start()
    ws.wait_runs(1)
    second = ws.start("--workspace", str(link))
    assert ws.ended(second) == 75
    first.terminate()
    assert ws.ended(first) == 0
    assert ws.started() == 1


def test_without_a_home_it_works_and_makes_none(ws: Workspace) -> None:
    ws.script({**WORK, **DONE})
    poor = {"HOME": "nowhere", "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    assert ws.run(environment=poor) == 0, ws.log()
    assert not [*ws.root.glob("*/nowhere"), *ws.root.glob("nowhere"), *ws.root.glob("**/~")]


def test_a_workspace_without_commits_is_worked_in(ws: Workspace, tmp_path: Path) -> None:
    """`git init` and nothing else: HEAD names nothing yet."""
    fresh = Workspace(tmp_path / "fresh")
    wait_until(lambda: fresh.path.exists(), "it")
    fresh.git("update-ref", "-d", "HEAD")
    fresh.git("rm", "-rq", "--cached", ".")
    fresh.config('[git]\ncommit = "supervisor"\n')
    fresh.script({**WORK, **DONE})
    try:
        assert fresh.run() == 0, fresh.log()
        assert "work.txt" in fresh.git("log", "--format=", "--name-only")
    finally:
        fresh.close()
