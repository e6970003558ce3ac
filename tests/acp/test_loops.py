"""The whole program over an agent that speaks ACP: the same that holds for every agent, and what only
these can."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from codex_self_iter.agents.acp import over_acp
from codex_self_iter.agents.base import AgentConfig
from codex_self_iter.agents.classify import Printed, classify
from codex_self_iter.core.runs import EndCause, RunOutcome
from tests.support.harness import Workspace, wait_until
from tests.support.program import commands

Json = dict[str, Any]
USAGE = {"inputTokens": 100, "cachedReadTokens": 40, "outputTokens": 20, "totalTokens": 120}
END = {"end": "end_turn", "usage": USAGE}


def block(summary: str = "Did a thing.", **more: Any) -> Json:
    fields = {"summary": summary, "next_goal": "Go on.", "stop": False, "reason": "", "evidence": [],
              "completed": False} | more  # fmt: skip
    return {"say": json.dumps(fields), "id": summary}


class Acp(Workspace):
    """A workspace whose agent plays a script over ACP."""

    def play(
        self, *turns: list[Json], tables: str = "", keys: Json | None = None, **script: Any
    ) -> None:
        """What it does, a turn for each run; the last is repeated."""
        path = self.control / "acp.json"
        log, count = self.control / "heard", self.control / "count"
        whole = {"turns": turns, "log": str(log), "count": str(count), **script}
        path.write_text(json.dumps(whole))
        command = [sys.executable, "-m", "codex_self_iter.testing.acp_agent", str(path)]
        self.config(
            f"{tables}\n[agents.acp]\ncommand = {json.dumps(command)}\n",
            agent="acp", agent_mode="bypass", kill_grace_sec=4, **(keys or {}),
        )  # fmt: skip

    def heard(self, method: str) -> list[Json]:
        path = self.control / "heard"
        lines = path.read_bytes().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [one["params"] for one in found if one.get("method") == method]

    def prompts(self) -> list[str]:
        return [one["prompt"][0]["text"] for one in self.heard("session/prompt")]

    def answers(self) -> list[str]:
        """What was chosen of each permission that it asked for."""
        lines = (self.control / "heard").read_bytes().splitlines()
        found = [json.loads(line).get("result", {}).get("outcome") for line in lines]
        return [one["optionId"] for one in found if one]

    def asked(self, count: int = 1) -> None:
        """Wait until the agent has its prompt."""
        wait_until(lambda: len(self.prompts()) >= count, lambda: f"a prompt\n{self.log()[-3000:]}")

    def run_output(self, number: int = 1) -> str:
        path = self.state / "logs" / "runs" / f"{number:06d}-executor" / "stdout.log"
        return path.read_text() if path.exists() else ""

    def of_run(self, name: str) -> psutil.Process:
        """The process of the present run whose command line has this."""
        left = [(one, " ".join(line)) for one, line in commands(self.leftovers())]
        found = [(one, line) for one, line in left if name in line]
        ours = [(one, line) for one, line in found if "acp_host" not in line]
        return (ours if name == "acp_agent" else found)[0][0]


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Acp]:
    ws = Acp(tmp_path)
    yield ws
    ws.close()


SLOW = [{"say": "At work."}, {"say": "", "id": "x"}, {"sleep": 60}]


def test_a_plan_is_worked_off_to_proven_completion(ws: Acp) -> None:
    ws.play(
        [{"write": str(ws.path / "a.txt")}, block("Made a.", next_goal="Make b.")],
        [block("Claimed too early.", completed=True)],
        [{"write": str(ws.path / "b.txt")}, block("Made b.", completed=True)],
        tables='[verify]\ncommands = ["test -f a.txt -a -f b.txt"]',
    )
    assert ws.run("--max-iterations", "6") == 0, ws.log()
    assert ws.verdicts() == ["continue", "claim_rejected", "completed"]
    records = ws.journal()
    assert records[1]["goal_in"] == "Make b."
    assert records[0]["changed_files"] == ["a.txt"]
    assert "Make b." in ws.prompts()[1]
    assert ws.status()["state"] == "completed"


def test_tokens_and_money_are_those_of_the_run(ws: Acp) -> None:
    """Money is told as the session's sum; of one that goes on only what is new counts."""

    def turn(cost: float) -> list[Json]:
        amount = {"amount": cost, "currency": "USD"}
        return [block(), {"update": {"sessionUpdate": "usage_update", "cost": amount}}, END]

    ws.play(
        turn(0.25), turn(0.75), turn(1.5), name="@agentclientprotocol/claude-agent-acp",
        modes=["bypassPermissions"], tables="[agents.acp.env]\nX = \"1\"",
        keys={"no_change_gate": 0},
    )  # fmt: skip
    config = ws.path / "codex-self-iter.toml"
    config.write_text(config.read_text() + "resume = true\n")
    assert ws.run("--max-iterations", "3") == 0, ws.log()
    records = ws.journal()
    assert [one["usage"]["total_tokens"] for one in records] == [120, 120, 120]
    assert [one["usage"]["cached_input_tokens"] for one in records] == [40, 40, 40]
    assert [one["cost_usd"] for one in records] == pytest.approx([0.25, 0.5, 0.75])
    assert len(ws.heard("session/new")) == 1
    assert len({one["sessionId"] for one in ws.heard("session/load")}) == 1


def test_a_session_that_is_gone_is_followed_by_a_fresh_one(ws: Acp) -> None:
    ws.play([block("First.")], [block("Second.")], [block("Third.")], load="refuse",
            keys={"no_change_gate": 0})  # fmt: skip
    config = ws.path / "codex-self-iter.toml"
    config.write_text(config.read_text() + "resume = true\n")
    assert ws.run("--max-iterations", "3") == 0, ws.log()
    assert [one["failure_class"] for one in ws.journal()] == ["", "context", ""]
    assert len(ws.heard("session/new")) == 2


# -- kills, ends -----------------------------------------------------------------------------------


def test_a_run_outlives_its_supervisor_and_its_answer_counts(ws: Acp) -> None:
    ws.play([*SLOW[:2], {"sleep": 4}, block("Survived.")], [block("Second.", completed=True)])
    first = ws.start()
    ws.asked()
    first.kill()
    first.wait()
    assert ws.run("--max-iterations", "2") == 0, ws.log()
    assert "run.adopted" in ws.log() or "orphan.adopted" in ws.log()
    assert ws.journal()[0]["summary"] == "Survived."
    assert len(ws.prompts()) == 2


@pytest.mark.parametrize("who", ["acp_host", "acp_agent"])
def test_a_killed_host_or_agent_fails_its_run_and_nothing_is_left(ws: Acp, who: str) -> None:
    ws.play([{"spawn": "sleep 300"}, *SLOW], [block("Second.", completed=True)])
    process = ws.start("--max-iterations", "2")
    ws.asked()
    wait_until(lambda: "At work." in ws.run_output() or "acp.turn" in ws.run_output(), "the turn")
    ws.of_run(who).kill()
    assert ws.ended(process) == 0, ws.log()
    first, second = ws.journal()
    assert first["verdict"] == "error"
    assert second["summary"] == "Second."
    assert "signal 9" in json.dumps(first)


def test_stop_cancels_the_turn_and_nothing_is_left(ws: Acp) -> None:
    ws.play([{"spawn": "sleep 300"}, *SLOW])
    process = ws.start()
    ws.asked()
    (ws.state / "STOP").touch()
    assert ws.ended(process) == 0, ws.log()
    assert len(ws.heard("session/cancel")) == 1
    assert ws.leftovers() == []


def test_a_deaf_agent_is_ended_within_the_grace(ws: Acp) -> None:
    ws.play(SLOW, cancel="never", deaf=True)
    process = ws.start()
    ws.asked()
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0, ws.log()
    assert ws.leftovers() == []


def test_a_turn_that_nobody_answers_is_the_networks_fault(ws: Acp) -> None:
    ws.play([{"silent": True}], [block(completed=True)], keys={"idle_timeout_sec": 2})
    assert ws.run("--max-iterations", "2") == 0, ws.log()
    assert [one["failure_class"] for one in ws.journal()] == ["network", ""]


def test_a_turn_that_works_for_too_long_is_cancelled(ws: Acp) -> None:
    tool = {"toolCallId": "t", "kind": "execute", "rawInput": {"command": "make"}}
    ws.play(
        [{"tool": tool}, {"sleep": 60}], [block(completed=True)], keys={"command_timeout_sec": 3}
    )
    assert ws.run("--max-iterations", "2") == 0, ws.log()
    first, second = ws.journal()
    assert (first["cause"], first["failure_class"]) == ("wall_timeout", "agent")
    assert second["verdict"] == "completed"
    assert len(ws.heard("session/cancel")) == 1


def test_an_agent_that_floods_is_capped_and_its_answer_read(ws: Acp) -> None:
    """Its output is ours to write: what it says is cut before it is written."""
    tool = {"toolCallId": "t", "kind": "execute", "rawInput": {"command": "yes"},
            "content": [{"type": "content", "content": {"type": "text", "text": "y" * 200_000}}]}  # fmt: skip
    many = [{"tool": tool, "ended": "completed"}] * 100
    ws.play([*many, block("Done.", completed=True)], tables="[output]\nmax_run_mb = 1\n")
    assert ws.run() == 0, ws.log()
    assert ws.verdicts() == ["completed"]
    output = ws.state / "logs" / "runs" / "000001-executor" / "stdout.log"
    assert output.stat().st_size <= 1.1 * 2**20


def test_an_answer_counts_although_the_agent_stays(ws: Acp) -> None:
    ws.play([block("Done.", completed=True)], deaf=True)
    assert ws.run() == 0, ws.log()
    assert ws.verdicts() == ["completed"]


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": -32603, "message": "x", "data": {"codexErrorInfo": "usageLimitExceeded"}}, "limit"),
        ({"code": -32603, "message": "x", "data": {"codexErrorInfo": {"usageLimitExceeded": {}}}}, "limit"),
        ({"code": -32603, "message": "x", "data": {"errorKind": "rate_limit"}}, "limit"),
        ({"code": 429, "message": "Resource exhausted"}, "limit"),
        ({"code": -31001, "message": "Rate limit exceeded"}, "limit"),
        ({"code": 500, "message": "x"}, "overload"),
        ({"code": -32603, "message": "x", "data": {"errorKind": "server_error"}}, "overload"),
        ({"code": -32603, "message": "Prompt is too long"}, "context"),
        ({"code": -32000, "message": "Authentication required"}, "auth"),
        ({"code": -31002, "message": "x"}, "auth"),
        ({"code": -32603, "message": "Internal error", "data": {"details": "401 bad key"}}, "auth"),
        ({"code": -32603, "message": "x", "data": {"errorKind": "billing_error"}}, "billing"),
        ({"code": -32603, "message": "something else"}, "agent"),
    ],
)  # fmt: skip
def test_an_error_has_its_class(error: Json, kind: str) -> None:
    """By the code and the data first, then by the words."""
    code = "auth_required" if error["code"] == -32000 else error["code"]
    details = (error.get("data") or {}).get("details", "")
    message = f"{error['message']}: {details}" if details else error["message"]
    line = {"type": "acp.failed", "message": message, "code": code}
    lines = [json.dumps({"type": "acp.turn"}),
             json.dumps(line | {"data": json.dumps(error.get("data"))})]  # fmt: skip
    parsed = over_acp("acp")(AgentConfig("acp")).parse_events(lines)
    outcome = RunOutcome("r", EndCause.EXIT, 1, None, 0.0, 1.0)
    failure = classify(parsed, outcome, Printed(), 1.0, final_event=True)
    assert failure is not None
    assert failure.kind == kind


def test_a_missing_login_is_for_a_person(ws: Acp) -> None:
    ws.play(login=False)
    assert ws.run() == 4, ws.log()
    assert ws.status()["state"] == "blocked"
    assert {one["failure_class"] for one in ws.journal()} == {"auth"}
    assert ws.prompts() == []


def test_a_limit_is_waited_for_or_stood_in_for(ws: Acp) -> None:
    ws.play([{"fail": {"code": 429, "message": "Rate limit. Try again in 5 hours"}}])
    ws.script({"block": {"completed": True}})
    config = ws.path / "codex-self-iter.toml"
    config.write_text(
        config.read_text().replace(
            "[agents.acp]", '[agents]\norder = ["acp", "command"]\n[agents.acp]'
        )
    )
    assert ws.run("--max-iterations", "3") == 0, ws.log()
    records = ws.journal()
    assert records[0]["failure_class"] == "limit"
    assert records[-1]["verdict"] == "completed"
    assert len(ws.prompts()) == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [(["/bin/echo", "hello there"], "hello there"), (["/bin/cat"], "no ACP agent")],
)
def test_a_command_that_is_no_acp_agent_is_for_a_person(
    ws: Acp, command: list[str], said: str
) -> None:
    ws.config(f"[agents.acp]\ncommand = {json.dumps(command)}\n", agent="acp")
    assert ws.run() == 4, ws.log()
    assert ws.journal()[-1]["failure_class"] == "config"
    assert said in ws.status()["reason"]


def test_version_2_is_for_a_person(ws: Acp) -> None:
    ws.play(version=2)
    assert ws.run() == 4, ws.log()
    assert "version 2" in ws.status()["reason"]


@pytest.mark.parametrize(
    ("tables", "keys", "said"),
    [
        ("", {"agent": "acp"}, "agents.acp.command"),
        ("[agents.acp]\ncommand = []\n", {"agent": "acp"}, "agents.acp.command"),
        ('[agents.acp]\ncommand = "one text"\n', {"agent": "acp"}, "command"),
        ('[agents.codex]\nprotocol = "acpx"\n', {"agent": "codex"}, "protocol"),
        ('[agents.copilot]\ncommand = ["x"]\n', {"agent": "copilot"}, "command"),
        ('[agents.acp]\ncommand = ["/no/such/agent"]\n', {"agent": "acp"}, "/no/such/agent"),
        ('[agents.copilot]\nbinary = "/no/such/agent"\n', {"agent": "copilot"}, "/no/such/agent"),
        ("", {"agent": "copilott"}, "copilot"),
    ],
)  # fmt: skip
def test_bad_input_is_said_with_its_place(ws: Acp, tables: str, keys: Json, said: str) -> None:
    ws.config(tables, **keys)
    assert ws.run() == 2, ws.log()
    assert said in ws.log()
    assert "Traceback" not in ws.log()


# -- what it may do --------------------------------------------------------------------------------


def test_what_was_refused_is_told(ws: Acp) -> None:
    tool = {"toolCallId": "t", "kind": "execute", "rawInput": {"command": "make install"}}
    ws.play([{"ask": tool}, block("First.")], [block("Second.", completed=True)])
    assert ws.run("--agent-mode", "safe") == 0, ws.log()
    assert "make install" in ws.prompts()[1]
    assert "make install" in ws.cli("show", "1").stdout


def test_a_turn_that_ends_for_a_refusal_goes_on_without_it(ws: Acp) -> None:
    """copilot, qwen, kilo and opencode end their turn without a word then."""
    tool = {"toolCallId": "t", "kind": "execute", "rawInput": {"command": "make install"}}
    ws.play([{"say": "I install it."}, {"ask": tool}, END], [block(completed=True)])
    assert ws.run("--agent-mode", "safe") == 0, ws.log()
    (record,) = ws.journal()
    assert record["verdict"] == "completed"
    assert "make install" in ws.prompts()[1]
    assert "make install" in ws.cli("show", "1").stdout


def test_a_turn_that_ends_for_refusals_again_and_again_is_for_a_person(ws: Acp) -> None:
    tool = {"toolCallId": "t", "kind": "execute", "rawInput": {"command": "make install"}}
    ws.play([{"ask": tool}, END])
    assert ws.run("--agent-mode", "safe") == 4, ws.log()
    assert ws.journal()[0]["failure_class"] == "sandbox"
    assert "make install" in ws.status()["reason"]
    assert ws.prompts()[1].startswith("This was refused")


def test_a_reviewer_may_edit_nothing(ws: Acp) -> None:
    edit = {"ask": {"toolCallId": "t", "kind": "edit", "locations": [{"path": "a.txt"}]}}
    plan = {
        "objective": "o",
        "execution_prompt": "p",
        "done_if": "d",
        "stop": False,
        "rationale": "r",
    }
    review = {"done": True, "continue": False, "issues": [], "next_step_hint": "", "score": 5}
    ws.play(
        [edit, {"say": json.dumps(plan)}], [edit, block(completed=True)], [edit, {"say": json.dumps(review)}],
        keys={"mode": "roles"},
    )  # fmt: skip
    ws.run("--max-iterations", "1")
    assert ws.answers() == ["o-reject_once", "o-allow_once", "o-reject_once"]


def test_an_agent_gets_its_keys_and_no_others(ws: Acp) -> None:
    seen = ws.control / "environment"
    script = f"#!/bin/sh\nenv > '{seen}'\nexec '{sys.executable}' -m codex_self_iter.testing.acp_agent '{ws.control}/acp.json'\n"
    ws.play([block(completed=True)], modes=["agent"], name="copilot")
    program = ws.root / "copilot"
    program.write_text(script)
    program.chmod(0o755)
    ws.config(f'[agents.copilot]\nbinary = "{program}"\n', agent="copilot", agent_mode="bypass")
    given = {
        "COPILOT_GITHUB_TOKEN": "a",
        "OPENAI_API_KEY": "b",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    assert ws.run(environment=given) == 0, ws.log()
    text = seen.read_text()
    assert "COPILOT_GITHUB_TOKEN=a" in text
    assert "OPENAI_API_KEY" not in text


# -- steering --------------------------------------------------------------------------------------


@pytest.mark.parametrize("steering", [True, False])
def test_a_message_goes_into_the_running_turn(ws: Acp, steering: bool) -> None:
    last = [block("In blue.", completed=True)]
    first = [*SLOW[:2], {"sleep": 5}, *last] if steering else SLOW
    ws.play(first, last, steering=steering)
    process = ws.start()
    ws.asked()
    wait_until(lambda: "At work." in ws.run_output(), lambda: ws.log()[-2000:])
    done = ws.cli("steer", "--now", "Use blue.")
    assert done.returncode == 0
    assert ws.ended(process) == 0, ws.log()
    (record,) = ws.journal()  # the run was not ended for it
    assert record["messages"][0]["text"] == "Use blue.\n"
    assert "run.steered" in ws.log()
    told = ws.heard("_session/steering" if steering else "session/prompt")[-1]["prompt"][0]["text"]
    assert "Use blue." in told
    assert "end as you were asked to" in told
    assert list((ws.state / "inbox" / "done").iterdir())
    assert not list(ws.state.glob("logs/runs/*/control.json"))


@pytest.mark.slow
def test_where_the_turn_does_not_take_it_the_run_is_ended_for_it(ws: Acp) -> None:
    ws.play(SLOW, [block("In blue.", completed=True)], cancel="never")
    process = ws.start()
    ws.asked()
    wait_until(lambda: "At work." in ws.run_output(), lambda: ws.log()[-2000:])
    ws.cli("steer", "--now", "Use blue.")
    assert ws.ended(process, 120) == 0, ws.log()
    assert ws.verdicts() == ["aborted", "completed"]
    assert "Use blue." in ws.prompts()[-1]


def test_a_message_that_a_turn_has_taken_outlives_a_kill(ws: Acp) -> None:
    """It was in the turn of a run that failed: the next prompt has it."""
    ws.play([*SLOW[:2], {"sleep": 60}], SLOW, [block("In blue.", completed=True)])
    process = ws.start()
    ws.asked()
    wait_until(lambda: "At work." in ws.run_output(), lambda: ws.log()[-2000:])
    ws.cli("steer", "--now", "Use blue.")
    ws.asked(2)
    wait_until(lambda: "run.steered" in ws.log(), lambda: ws.log()[-2000:])
    process.kill()
    process.wait()
    ws.of_run("acp_host").kill()
    assert ws.run() == 0, ws.log()
    assert "Use blue." in ws.prompts()[-1]


def test_a_message_is_given_once_although_its_supervisor_is_killed(ws: Acp) -> None:
    """The run has said that it took it, and nobody heard so."""
    second = [{"say": "At it.", "id": "q"}, {"say": "", "id": "r"}, {"sleep": 8}]
    ws.play(SLOW, [*second, block("In blue.", completed=True)])
    process = ws.start()
    ws.asked()
    wait_until(lambda: "At work." in ws.run_output(), lambda: ws.log()[-2000:])
    host = ws.of_run("acp_host")
    host.suspend()
    ws.cli("steer", "--now", "Use blue.")
    wait_until(lambda: list(ws.state.glob("logs/runs/*/control.json")), lambda: ws.log()[-2000:])
    process.send_signal(signal.SIGSTOP)
    host.resume()
    wait_until(lambda: "acp.control" in ws.run_output(), lambda: ws.run_output())
    process.kill()
    process.wait()
    assert "run.steered" not in ws.log()
    assert ws.run() == 0, ws.log()
    assert "run.steered" in ws.log()
    assert len(ws.prompts()) == 2
    assert len(ws.journal()) == 1
