"""What programs printed where other supervisors went wrong, and what it is here.

Each row names the public thread in which it was met. Only messages that programs print are given as
they are."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import AgentConfig, Request
from codex_self_iter.agents.command import text_report
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core.control_block import ControlBlock, parse, promised
from codex_self_iter.core.runs import EndCause, RunOutcome
from tests.support.loop_world import Answer, policy
from tests.support.situations import drive, running
from tests.support.situations import ended as finished

NOW = 1_795_352_400.0
BLOCK = {"summary": "did it", "next_goal": "n", "stop": False, "completed": False}
ANSWER = json.dumps(BLOCK)
LIMIT = "You've hit your session limit · resets 4:10am"
TOO_LARGE = (
    "openai.RateLimitError: Error code: 429 - {'error': {'message': 'Request too large for "
    "gpt-4o-mini in organization org-x on tokens per min (TPM): Limit 200000, Requested 695212. The "
    "input or output tokens must be reduced in order to run successfully.', 'type': 'tokens', "
    "'code': 'rate_limit_exceeded'}}"
)
NEXTEST = "PASS [   0.229s] (3552/3639) orch::bin/orch store::tests::rate_limits_are_counted"

# What a program printed last, and its exit code: (thread, text, exit code, class; "" is an answer)
WORDS = [
    ("gabrielkoerich/orch#1292", "- Added copilot quota patterns to parse_retry_at", 1, "agent"),
    ("gabrielkoerich/orch#2125", "src/app.rs: error on line 529, file has 529 bytes", 1, "agent"),
    ("gabrielkoerich/orch#3274", NEXTEST, 1, "agent"),
    ("RyderFreeman4Logos/cli-sub-agent#1736", "ok 4 - monthly spending cap is final", 1, "agent"),
    ("hivecommons/hive#360", "The architect: good rate limiting.", 0, ""),
    ("frankbria/ralph-claude-code#2", '{"type":"x","is_error":false,"result":"ok"}', 0, ""),
    ("frankbria/ralph-claude-code#184", "command timed out: 5-hour limit test", 124, "agent"),
    ("TheMorpheus407/RepoLens#181", "181\tOPEN\tRate limit reached is a false alarm", 1, "agent"),
    ("AndyMik90/Aperant#1546", "API Error: 400 due to tool use concurrency issues.", 1, "agent"),
    ("reticlehq/reticle#674", "POST /account/login returned 401 as expected", 1, "agent"),
    ("WingedGuardian/GENesis-AGI#1294", LIMIT, 1, "limit"),
    ("guettli/agentloop#126", f"Internal error: {LIMIT}", 1, "limit"),
    ("agent0ai/agent-zero#139", TOO_LARGE, 1, "context"),
    ("multica-ai/multica#6402", "Prompt is too long", 0, "context"),
    ("chippingway/orchestrator#455", "API Error: 400 prompt is too long: 9 > 8 maximum", 1, "context"),
]  # fmt: skip


def ended(
    code: int | None, cause: EndCause = EndCause.EXIT, *, answered: bool = False
) -> RunOutcome:
    return RunOutcome("r", cause, code, None, NOW - 10, 10.0, answered=answered)


@pytest.mark.parametrize(("thread", "text", "code", "kind"), WORDS, ids=lambda one: str(one)[:40])
def test_free_words_decide_little(
    thread: str, text: str, code: int, kind: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "stdout.log").write_text(text + "\n")
    report = text_report(ended(code), RunFiles(str(tmp_path)), NOW, account="")
    assert (str(report.failure.kind) if report.failure else "") == kind, thread
    assert bool(report.answer) or kind


PROMPT = "Do it. End with this word alone:\nALL_DONE\nand nothing else."

# What an agent said of its completion, and whether that is a claim: (thread, text, claim)
CLAIMS = [
    ("Th0rgal/open-ralph-wiggum#36", "I will not say ALL_DONE yet", False),
    ("Th0rgal/open-ralph-wiggum#36", 'Once done, I\'ll say "ALL_DONE"', False),
    ("code-yeongyu/oh-my-openagent#2773", "Not everything is finished yet", False),
    ("mikeyobrien/ralph-orchestrator#139", PROMPT, False),  # an echo
    ("cursor/plugins#282", "all done", False),
    ("cursor/plugins#282", "Everything passes.\nALL_DONE", True),
]


@pytest.mark.parametrize(("thread", "text", "claim"), CLAIMS)
def test_a_word_in_passing_completes_nothing(thread: str, text: str, claim: bool) -> None:
    block = json.dumps({"summary": "s", "next_goal": "n", "stop": False})
    answer = f"{text}\n{block}"
    read = parse(answer, PROMPT)
    assert isinstance(read, ControlBlock)
    assert promised("ALL_DONE", answer, read, PROMPT) is claim, thread
    plain_no = parse(f"{text}\n{ANSWER}", PROMPT)  # frankbria/ralph-claude-code#88
    assert isinstance(plain_no, ControlBlock)
    assert not promised("ALL_DONE", answer, plain_no, PROMPT)


INIT = {"type": "system", "subtype": "init", "session_id": "s", "model": "m"}
RESULT = {"type": "result", "subtype": "success", "session_id": "s", "result": ANSWER}
REFUSED = {**RESULT, "is_error": True, "api_error_status": 429, "result": LIMIT}
SAID = {"type": "item.completed", "item": {"type": "agent_message", "text": ANSWER}}
TURN = {"type": "turn.completed", "usage": {"input_tokens": 1}}
STARTED = [{"type": "thread.started", "thread_id": "t"}, {"type": "turn.started"}]

# How a stream and its process ended: (thread, agent, events, end, whether the answer is used)
ENDS = [
    ("anthropics/claude-code#25629", "claude", [INIT, RESULT], ended(None, EndCause.LINGERED), True),
    ("gabrielkoerich/orch#3059", "claude", [INIT, RESULT], ended(1), True),
    ("kcsinclair/kaos-control#14", "claude", [INIT, RESULT], ended(143), True),
    ("kcsinclair/kaos-control#14", "claude", [INIT, REFUSED], ended(0), False),
    ("GuDaStudio/codexmcp#28", "codex", [*STARTED, SAID, TURN],
     ended(None, EndCause.LINGERED), True),
    ("paperclipai/paperclip#10261", "codex", [*STARTED, SAID, TURN],
     ended(None, EndCause.IDLE_TIMEOUT, answered=True), True),
    ("multica-ai/multica#3548", "codex", [*STARTED, SAID, TURN],
     ended(1, EndCause.WALL_TIMEOUT, answered=True), True),
    ("openai/codex#28476", "codex", STARTED, ended(None, EndCause.IDLE_TIMEOUT), False),
    ("anthropics/claude-code#1920", "claude", [INIT], ended(None, EndCause.IDLE_TIMEOUT), False),
]  # fmt: skip


@pytest.mark.parametrize(("thread", "cli", "events", "end", "used"), ENDS)
def test_an_answer_is_used_however_its_process_ended(
    thread: str, cli: str, events: list[object], end: RunOutcome, used: bool, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "stdout.log").write_text("\n".join(map(json.dumps, events)) + "\n")
    environment = {"HOME": str(tmp_path), "PATH": "/nowhere"}
    request = Request("", "", str(tmp_path), "", str(tmp_path), environment=environment)
    agent = catalog.get(cli, AgentConfig(cli))
    report = agent.read(request, end, RunFiles(str(tmp_path)), now=NOW)
    assert (report.answer == ANSWER, report.answered) == (used, used), thread
    assert (report.failure is None) is used


def said(text: str) -> dict[str, object]:
    return {"type": "item.completed", "item": {"type": "agent_message", "text": text}}


WORD = "ALL_DONE"
OLDER = ANSWER.replace('"n"', '"old"')
ECHO = {"type": "item.completed", "item": {"type": "command_execution", "status": "completed",
        "command": "cat x", "aggregated_output": ANSWER}}  # fmt: skip

# What codex said in several messages, and the goal of the block that counts; None: none does
MESSAGES = [
    ([ANSWER, "That is all."], "n"),
    (["I begin.", ANSWER, "One more look.", "All is well."], "n"),
    ([OLDER, ANSWER, "That is all."], "n"),
    ([ANSWER, OLDER], "old"),
    ([ANSWER, OLDER.replace("false", '"perhaps"', 1)], None),  # the last one is not valid
    ([ANSWER, WORD], "n"),  # it says that nothing is completed
    (["I begin.", "That is all."], None),
    ([ANSWER, *["more"] * 9], None),  # long ago
]


@pytest.mark.parametrize(("messages", "goal"), MESSAGES)
def test_a_block_before_the_last_message_is_read(
    messages: list[str], goal: str | None, tmp_path: pathlib.Path
) -> None:
    events = [*STARTED, ECHO, *map(said, messages), TURN]
    (tmp_path / "stdout.log").write_text("\n".join(map(json.dumps, events)) + "\n")
    environment = {"HOME": str(tmp_path), "PATH": "/nowhere"}
    request = Request("", "", str(tmp_path), "", str(tmp_path), environment=environment)
    agent = catalog.get("codex", AgentConfig("codex"))
    report = agent.read(request, ended(0), RunFiles(str(tmp_path)), now=NOW)
    assert report.answer == messages[-1]
    state = running()
    event = dataclasses.replace(finished(state, Answer()), report=report)
    state, _ = drive(state, event, rules=policy(completion_promise=WORD))
    assert (state.goal, state.finished) == (goal or "", False)


FENCE = "```"
LINES = ANSWER.replace("did it", "did\nit")  # a line's end inside a text, as it is
SHELL = ANSWER.replace("did it", f"ran\n{FENCE}json\n{{}}\n{FENCE}")

# In which shape an answer came: (thread, text)
SHAPES = [
    ("mangowhoiscloud/geode#1612", f"{FENCE}json\n{ANSWER}\n{FENCE}"),
    ("misospace/pr-reviewer-action#449", f"{FENCE}json\n{LINES}\n{FENCE}"),
    ("hasamba/DFIR-Companion#323", SHELL),
    ("tinyhumansai/openhuman#5151", f"The result is: {ANSWER}"),
    ("kunchenguid/no-mistakes#144", f"I use {FENCE}json for output.\n\n{FENCE}json\n{ANSWER}\n{FENCE}"),
    ("kunchenguid/no-mistakes#144", f"{FENCE}markdown\nx{FENCE}\n{FENCE}json\n{ANSWER}\n{FENCE}"),
    ("vectorize-io/hindsight#2542", f"{FENCE}json\n{ANSWER}"),
    ("copperheadhq/copperhead#236", f"Here it is:\n{FENCE}json\n{ANSWER}\n{FENCE}\nThat is all."),
    ("frankbria/ralph-claude-code#113", f"---STATUS---\n{ANSWER}\n---END---"),
    ("preloop/preloop#232", f"{ANSWER}\n"),
]  # fmt: skip


@pytest.mark.parametrize(("thread", "text"), SHAPES)
def test_an_answer_is_read_in_whatever_shape_it_came(thread: str, text: str) -> None:
    read = parse(text)
    assert isinstance(read, ControlBlock), thread
    assert read.next_goal == "n"
    assert read.summary.startswith(("did", "ran"))


def test_there_are_ten_of_each() -> None:
    assert len({thread for thread, *_ in (*WORDS, *CLAIMS)}) >= 10
    assert len({thread for thread, *_ in (*ENDS, *SHAPES)}) >= 10
