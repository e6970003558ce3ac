"""The host over a scripted agent that plays what real ones do, and worse."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import psutil
import pytest

from codex_self_iter.acp_host import wire
from codex_self_iter.agents import probe
from tests.acp.conftest import Host
from tests.support.harness import wait_until

END = {"end": "end_turn", "usage": {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120}}


def test_a_turn_is_told_in_whole_messages(host: Host) -> None:
    tool = {
        "toolCallId": "t1",
        "kind": "edit",
        "title": "Edit",
        "locations": [{"path": "/w/a.txt"}],
    }
    steps = [
        {"say": "I will ", "id": "m1"}, {"say": "edit.", "id": "m1"},
        {"tool": tool, "ended": "completed"},
        {"say": "Second.", "id": "m2"}, {"say": "The end", "id": "m3"}, {"say": "ing.", "id": "m3"},
    ]  # fmt: skip
    assert host.run(host.agent(steps)) == 0, host.stderr
    kinds = [one["type"].removeprefix("acp.") for one in host.said()]
    told = ["turn", "message", "tool", "tool_ended", "message", "message", "done"]
    assert [kind for kind in kinds if kind not in ("progress", "note")] == [
        "agent",
        "session",
        *told,
    ]
    assert [one["text"] for one in host.said("message")] == [
        "I will edit.",
        "Second.",
        "The ending.",
    ]
    ended = host.one("tool_ended")
    assert (ended["ok"], ended["path"]) == (True, "/w/a.txt")
    assert host.one("agent") == {"type": "acp.agent", "name": "scripted", "version": "1.2.3"}
    hello = host.sent("initialize")[0]
    assert hello["protocolVersion"] == 1
    assert hello["clientCapabilities"] == {
        "fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False,
    }  # fmt: skip
    assert host.sent("session/prompt")[0]["prompt"] == [{"type": "text", "text": "Do it."}]
    assert host.left() == []


def test_the_prompt_arrives_as_it_is(host: Host) -> None:
    prompt = 'Zeile 1\r\n"zwei"\u2028\x1b[31m 🦊 \\n {} ' + "x" * 2_000_000
    assert host.run(host.agent([]), prompt=prompt) == 0, host.stderr
    assert host.sent("session/prompt")[0]["prompt"][0]["text"] == prompt


def test_what_comes_before_the_prompt_is_no_answer(host: Host) -> None:
    """gemini announces its mode so."""
    steps = [{"update": {"sessionUpdate": "usage_update"}}, {"say": "Done."}]
    agent = host.agent(steps, modes=["yolo"], name="gemini-cli")
    assert host.run(agent, "--mode", "bypass") == 0, host.stderr
    assert [one["text"] for one in host.said("message")] == ["Done."]


def test_the_programs_own_words_are_none_of_the_model(host: Host) -> None:
    steps = [{"say": "**Warning:** dear user", "id": None}, {"say": "Done.", "id": "m"}]
    agent = host.agent(
        steps, modes=["bypassPermissions"], name="@agentclientprotocol/claude-agent-acp"
    )
    assert host.run(agent, "--mode", "bypass") == 0, host.stderr
    assert host.one("message")["text"] == "Done."
    assert host.one("aside")["text"] == "**Warning:** dear user"


def test_an_error_after_the_programs_own_words_is_told(host: Host) -> None:
    """Copilot sends both without an id."""
    steps = [{"say": "Info: Retrying..."}, {"say": "Error: 401"}, {"end": "end_turn"}]
    assert host.run(host.agent(steps, modes=["agent"], name="Copilot")) == 1
    assert host.one("aside")["text"] == "Info: Retrying..."
    assert host.one("failed")["message"] == "Error: 401"


@pytest.mark.parametrize("key", ["details", "message"])
def test_the_details_of_an_error_are_told(host: Host, key: str) -> None:
    error = {"code": -32603, "message": "Internal error", "data": {key: "401 bad key"}}
    assert host.run(host.agent([{"fail": error}])) == 1
    assert host.one("failed")["message"] == "Internal error: 401 bad key"


# -- modes and permissions -------------------------------------------------------------------------


def test_the_mode_is_set_whatever_the_default_is(host: Host) -> None:
    agent = host.agent([], name="qwen-code", modes=["auto", "default", "yolo"])
    assert host.run(agent) == 0, host.stderr
    assert [one["modeId"] for one in host.sent("session/set_mode")] == ["default"]


def test_a_mode_may_be_an_address(host: Host) -> None:
    modes = [
        f"https://agentclientprotocol.com/protocol/session-modes#{one}" for one in ("plan", "agent")
    ]
    agent = host.agent([END], name="copilot", modes=modes)
    assert host.run(agent, "--mode", "bypass") == 0, host.stderr
    assert host.sent("session/set_mode")[0]["modeId"] == modes[1]
    option = host.sent("session/set_config_option")[0]
    assert (option["configId"], option["value"]) == ("allow_all", "on")


def test_safe_mode_does_not_trust_an_agent_that_lacks_its_mode(host: Host) -> None:
    agent = host.agent([], name="qwen-code", modes=["auto", "yolo"])
    assert host.run(agent) == 1
    failed = host.one("failed")
    assert failed["code"] == "acp_mode"
    assert "auto, yolo" in failed["message"]
    assert host.sent("session/prompt") == []
    assert host.run(agent, "--mode", "bypass") == 0  # it has that one


def test_of_an_agent_that_nobody_knows_it_is_said(host: Host) -> None:
    assert host.run(host.agent([])) == 0, host.stderr
    assert "what it does unasked" in host.one("note")["text"]


def test_model_and_effort_are_asked_for_where_that_is_possible(host: Host) -> None:
    agent = host.agent([], options=["model", "thought_level"])
    assert host.run(agent, "--model", "m-1", "--effort", "high") == 0, host.stderr
    chosen = [(one["configId"], one["value"]) for one in host.sent("session/set_config_option")]
    assert chosen == [("the-model", "m-1"), ("the-thought_level", "high")]
    assert host.run(host.agent([]), "--model", "m-1") == 0, host.stderr
    assert any("choose its model" in one["text"] for one in host.said("note"))


def ask(kind: str, **more: object) -> dict[str, object]:
    return {"ask": {"toolCallId": "t1", "kind": kind, **more}}


def test_permissions_are_for_once_and_refusals_are_told(host: Host) -> None:
    steps = [
        ask("edit", locations=[{"path": "a.txt"}]),
        ask("edit", locations=[{"path": "/etc/passwd"}]),
        ask("execute", rawInput={"command": "rm -rf /"}),
        {
            **ask("edit", locations=[{"path": "a.txt"}]),
            "options": ["allow_always", "reject_always"],
        },
        {"say": "Done."},
    ]
    assert host.run(host.agent([*steps, {"say": "Done."}])) == 0, host.stderr
    answers = [one["result"]["outcome"] for one in host.heard() if "result" in one]
    assert [one.get("optionId", one["outcome"]) for one in answers] == [
        "o-allow_once", "o-reject_once", "o-reject_once", "cancelled",
    ]  # fmt: skip
    refused = [one["text"] for one in host.said("refused")]
    assert len(refused) == 3
    assert "outside" in refused[0]
    assert "rm -rf /" in refused[1]


def test_a_link_leads_where_it_leads(host: Host) -> None:
    (host.workspace / "out").symlink_to("/etc")
    steps = [ask("edit", locations=[{"path": "out/passwd"}]), {"say": "No."}]
    assert host.run(host.agent(steps)) == 0
    assert "outside" in host.one("refused")["text"]


def test_a_request_for_permission_may_name_only_the_call(host: Host) -> None:
    """vibe names the call, of which it has told before what it is."""
    tool = {"toolCallId": "t1", "kind": "execute", "rawInput": {"command": "ls"}}
    steps = [{"tool": tool}, {"ask": {"toolCallId": "t1"}}, {"say": "No."}]
    assert host.run(host.agent(steps)) == 0, host.stderr
    assert "ls" in host.one("refused")["text"]


def test_what_a_tool_does_may_be_said_with_the_request_alone(host: Host) -> None:
    """Qwen's way."""
    call = {"toolCallId": "t", "kind": "execute"}
    ended = {"sessionUpdate": "tool_call_update", "toolCallId": "t", "status": "failed"}
    asked = call | {"rawInput": {"command": "make install"}}
    host.run(host.agent([{"tool": call}, {"ask": asked}, {"update": ended}, {"say": "No."}]))
    assert host.one("tool_ended")["command"] == "make install"


def test_whatever_else_it_asks_for_is_answered(host: Host) -> None:
    """Some wait for ever otherwise."""
    wanted = [
        "fs/read_text_file",
        "terminal/create",
        "elicitation/create",
        "craft/drainMidTurnQueue",
    ]
    assert host.run(host.agent([{"want": one} for one in wanted])) == 0, host.stderr
    assert [one["error"]["code"] for one in host.heard() if "error" in one] == [-32601] * 4
    assert [
        one for one in wanted if any(one in note["text"] for note in host.said("note"))
    ] == wanted


# -- failures --------------------------------------------------------------------------------------


def test_version_2_is_refused(host: Host) -> None:
    assert host.run(host.agent([], version=2)) == 1
    failed = host.one("failed")
    assert failed["code"] == "no_acp"
    assert "version 2" in failed["message"]
    assert host.left() == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/bin/echo", "usage: agent [options]"], "usage: agent"),
        (["/bin/false"], "no ACP agent"),
        (["/bin/cat"], "no ACP agent"),
        (["/bin/sh", "-c", "echo '[1]'; echo '\"x\"'; exit 3"], "[1]"),
    ],
)
def test_what_is_no_acp_agent_is_said_to_be_none(host: Host, command: list[str], said: str) -> None:
    assert host.run(command) == 1
    failed = host.one("failed")
    assert failed["code"] == "no_acp"
    assert said in failed["message"]


def test_a_program_that_is_not_there(host: Host) -> None:
    assert host.run([str(host.base / "nowhere")]) == 127
    assert "cannot be started" in host.one("failed")["message"]


def test_an_agent_that_wants_a_login(host: Host) -> None:
    assert host.run(host.agent([], login=False)) == 1
    assert host.one("failed")["code"] == "auth_required"


def test_an_error_keeps_its_code_and_its_data(host: Host) -> None:
    data = {"codexErrorInfo": "usageLimitExceeded", "much": "x" * 100_000}
    error = {"code": -32603, "message": "You've hit your usage limit", "data": data}
    assert host.run(host.agent([{"fail": error}])) == 1
    failed = host.one("failed")
    assert failed["code"] == -32603
    assert "usageLimitExceeded" in failed["data"]
    assert len(failed["data"]) <= 4000


@pytest.mark.parametrize(
    "reason", ["max_tokens", "max_turn_requests", "refusal", "cancelled", "tomorrow", 7]
)
def test_a_turn_that_did_not_end_well_is_a_failure(host: Host, reason: object) -> None:
    assert host.run(host.agent([{"say": "So far."}, {"end": reason}])) == 1
    assert host.said("done") == []
    assert host.one("message")["text"] == "So far."
    if isinstance(reason, str):
        assert host.one("failed")["code"] == reason


def test_an_end_without_a_model_call_is_a_failure_where_the_row_says_so(host: Host) -> None:
    steps = [{"say": "Error: 429 too many requests"}, {"end": "end_turn"}]
    agent = host.agent(steps, name="copilot", modes=["agent"])
    assert host.run(agent, "--mode", "bypass") == 1
    assert host.one("failed")["message"] == "Error: 429 too many requests"
    assert host.run(host.agent(steps)) == 0  # of others nothing is known


def test_an_agent_that_dies_in_its_turn(host: Host) -> None:
    assert host.run(host.agent([{"say": "I am"}, {"exit": 9}])) == 1
    assert "exited with code 9" in host.one("failed")["message"]
    assert host.one("message")["text"] == "I am"


def test_an_answer_counts_once(host: Host) -> None:
    again = json.dumps({"jsonrpc": "2.0", "id": 3, "result": {"stopReason": "end_turn"}})
    steps = [{"raw": again}, {"raw": again}, {"raw": again.replace("3", "99")}, {"sleep": 0.2}]
    assert host.run(host.agent(steps)) == 0, host.stderr
    assert len(host.said("done")) == 1


@pytest.mark.parametrize("ident", ["text", "float"])
def test_an_id_that_comes_back_in_another_form_is_known(host: Host, ident: str) -> None:
    assert host.run(host.agent([{"say": "Done."}], ids=ident)) == 0, host.stderr
    assert host.one("message")["text"] == "Done."


def test_lines_that_are_no_messages_do_no_harm(host: Host) -> None:
    odd = ["", "{", "[]", "null", "7", "Loading…", '{"jsonrpc": "2.0"}', "{" * 5000, '{"id": {}}']
    steps = [{"raw": one} for one in odd] + [{"raw": "noise"}] * 50 + [{"say": "Done."}]
    assert host.run(host.agent(steps)) == 0, host.stderr
    assert host.one("message")["text"] == "Done."
    assert len(host.said("note")) < 30


def test_a_message_that_is_too_long_is_dropped(host: Host) -> None:
    steps = [{"fill": wire.MAX_LINE + 1}, {"say": "Done.", "id": "m"}]
    assert host.run(host.agent(steps)) == 0, host.stderr
    assert host.one("message")["text"] == "Done."
    assert any("32 MiB" in note["text"] for note in host.said("note"))


def test_an_answer_that_is_too_long_ends_the_run(host: Host) -> None:
    """Nobody would answer otherwise."""
    steps = [{"end": "end_turn", "more": "x" * (wire.MAX_LINE + 1)}]
    assert host.run(host.agent(steps)) == 1
    assert "32 MiB" in host.one("failed")["message"]


def test_long_messages_and_outputs_are_cut(host: Host) -> None:
    content = [{"type": "content", "content": {"type": "text", "text": "o" * 5_000_000}}]
    tool = {
        "toolCallId": "t",
        "kind": "execute",
        "rawInput": {"command": "c" * 1_000_000},
        "content": content,
    }
    steps = [{"tool": tool, "ended": "completed"}, *([{"fill": 1_000_000}] * 5), {"say": "END"}]
    assert host.run(host.agent(steps)) == 0, host.stderr
    assert host.one("message")["text"].endswith("END")
    assert max(len(line) for line in (host.base / "out").read_bytes().splitlines()) < 3_000_000


def test_an_old_session_goes_on(host: Host) -> None:
    assert host.run(host.agent([]), "--resume", "old") == 0, host.stderr
    assert host.one("session") == {"type": "acp.session", "id": "old", "resumed": True}
    assert host.sent("session/new") == []


@pytest.mark.parametrize("load", ["refuse", "none"])
def test_a_session_that_is_gone_is_not_made_anew_in_silence(host: Host, load: str) -> None:
    assert host.run(host.agent([], load=load), "--resume", "old") == 1
    assert "session old not found" in host.one("failed")["message"]
    assert host.sent("session/prompt") == []


def test_a_probe_asks_nothing(host: Host) -> None:
    assert host.run(host.agent([]), "--probe") == 0
    assert host.sent("session/prompt") == []
    assert host.one("session")["id"]


@pytest.mark.parametrize(
    "flags", [["--cwd", "/nowhere"], ["--mode", "yolo"], ["--before", "1,2"], ["--grace", "x"]]
)
def test_bad_usage(host: Host, flags: list[str]) -> None:
    assert host.run(["/bin/true"], *flags) == 2
    assert "Traceback" not in host.stderr
    assert flags[1] in host.stderr or flags[0] in host.stderr


# -- steering and the end --------------------------------------------------------------------------


def order(host: Host, **value: object) -> None:
    """Leave an order, as the supervisor does."""
    path = host.base / "new"
    path.write_text(json.dumps(value))
    path.chmod(0o600)
    path.rename(host.control)


def in_turn(host: Host) -> None:
    wait_until(lambda: host.said("message"), lambda: f"a message: {host.said()}")


SLOW = [{"say": "At work.", "id": "a"}, {"say": "", "id": "b"}, {"sleep": 90}, {"say": "First."}]


def test_a_text_goes_into_the_running_turn_where_the_agent_takes_it(host: Host) -> None:
    process = host.start(host.agent([*SLOW[:2], {"sleep": 3}, {"say": "Done."}], steering=True))
    in_turn(host)
    order(host, id="x", steer="Use blue.")
    assert host.end(process) == 0, host.stderr
    assert host.one("control") == {
        "type": "acp.control", "id": "x", "ok": True, "how": "the running turn has it",
    }  # fmt: skip
    assert host.sent("_session/steering")[0]["prompt"][0]["text"] == "Use blue."
    assert host.sent("session/cancel") == []
    assert len(host.sent("session/prompt")) == 1


def test_a_text_that_the_running_turn_does_not_take_begins_it_anew(host: Host) -> None:
    agent = host.agent(SLOW, [{"say": "Blue."}], steering=True, steered="promptRequired")
    process = host.start(agent)
    in_turn(host)
    order(host, id="x", steer="Use blue.")
    assert host.end(process) == 0, host.stderr
    assert host.one("control")["how"] == "the turn began anew with it"
    assert host.said("message")[-1]["text"] == "Blue."


@pytest.mark.parametrize("cancel", ["cancelled", "error"])
def test_for_all_others_the_turn_begins_anew_in_its_session(host: Host, cancel: str) -> None:
    process = host.start(host.agent(SLOW, [{"say": "Blue."}], cancel=cancel))
    in_turn(host)
    order(host, id="x", steer="Use blue.")
    assert host.end(process) == 0, host.stderr
    assert host.one("control")["ok"] is True
    texts = [one["prompt"][0]["text"] for one in host.sent("session/prompt")]
    assert texts == ["Do it.", "Use blue."]
    assert host.said("message")[-1]["text"] == "Blue."
    assert len(host.said("done")) == 1


def test_a_text_that_is_there_before_the_turn_is_part_of_the_prompt(host: Host) -> None:
    order(host, id="x", steer="Use blue.")
    assert host.run(host.agent([])) == 0, host.stderr
    assert host.sent("session/prompt")[0]["prompt"][0]["text"] == "Do it.\n\nUse blue."
    assert host.one("control")["ok"] is True


def test_a_control_file_of_somebody_else_is_no_order(host: Host) -> None:
    process = host.start(host.agent([*SLOW[:2], {"sleep": 4}, {"say": "Done."}]))
    in_turn(host)
    plants = [
        lambda: os.mkfifo(host.control),
        lambda: host.control.symlink_to(host.base / "prompt.md"),
        lambda: (host.control.write_text('{"steer": "x"}'), host.control.chmod(0o666)),
        lambda: (host.control.write_text("{" * 100_000), host.control.chmod(0o600)),
        lambda: order(host, id="y", steer="  "),
    ]
    for count, plant in enumerate(plants, 1):
        plant()
        wait_until(lambda count=count: len(host.said("control")) == count, lambda: f"{host.said()}")
    assert host.end(process) == 0, host.stderr
    assert [one["ok"] for one in host.said("control")] == [False] * len(plants)
    assert len(host.sent("session/prompt")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_turn_and_ends_everything(host: Host, number: int) -> None:
    process = host.start(host.agent([{"spawn": "sleep 300"}, *SLOW]))
    in_turn(host)
    process.send_signal(number)
    assert host.end(process) == 128 + number
    assert len(host.sent("session/cancel")) == 1
    assert host.said("done") == host.said("failed") == []
    # what the agent left is for the containment around the host
    assert {one.name() for one in host.left()} <= {"sh", "sleep"}


def test_an_order_cancels_the_turn(host: Host) -> None:
    process = host.start(host.agent(SLOW))
    in_turn(host)
    order(host, id="x", cancel=True)
    assert host.end(process) == 130
    assert host.one("control")["how"] == "cancelled"


def test_a_deaf_agent_is_ended_within_the_grace(host: Host) -> None:
    process = host.start(host.agent(SLOW, cancel="never", deaf=True), "--grace", "3")
    in_turn(host)
    began = time.monotonic()
    process.terminate()
    assert host.end(process) == 143
    assert host.left() == []
    assert 1.8 < time.monotonic() - began < 30  # cancel 0.9, stdin 0.9, TERM 0.3: then KILL


def test_a_second_signal_is_in_a_hurry(host: Host) -> None:
    process = host.start(host.agent(SLOW, cancel="never", deaf=True), "--grace", "1000")
    in_turn(host)
    process.terminate()
    wait_until(lambda: host.sent("session/cancel"), lambda: "a cancel")
    process.terminate()
    assert host.end(process) == 143
    assert host.left() == []


def test_an_agent_that_stays_after_its_turn_is_ended(host: Host) -> None:
    assert host.run(host.agent([{"say": "Done."}], deaf=True)) == 0, host.stderr
    assert host.one("done")["reason"] == "end_turn"
    assert host.left() == []


def test_an_agent_goes_with_its_host(host: Host) -> None:
    process = host.start(host.agent(SLOW))
    in_turn(host)
    process.kill()
    host.end(process)
    wait_until(lambda: host.left() == [], lambda: f"still there: {host.left()}")


def test_the_agent_has_a_process_group_of_its_own(host: Host) -> None:
    process = host.start(host.agent(SLOW))
    in_turn(host)
    (agent,) = psutil.Process(process.pid).children()
    assert os.getpgid(agent.pid) == agent.pid != os.getpgid(process.pid)
    process.terminate()
    assert host.end(process) == 143


def test_it_is_small_and_idle(host: Host) -> None:
    """At most 20 MiB, and no CPU to speak of while the agent thinks."""
    process = host.start(host.agent(SLOW))
    in_turn(host)
    own = psutil.Process(process.pid)
    before = own.cpu_times()
    time.sleep(2)
    after = own.cpu_times()
    assert (after.user + after.system) - (before.user + before.system) <= 0.05
    assert own.memory_full_info().uss <= 20 * 2**20
    process.terminate()
    assert host.end(process) == 143


def test_pieces_are_told_as_life_and_not_one_by_one(host: Host) -> None:
    steps = [{"think": "hm "}] * 3000 + [{"say": "a", "id": "m"}] * 3000
    assert host.run(host.agent(steps)) == 0, host.stderr
    assert 1 <= len(host.said("progress")) <= 4
    assert host.one("message")["text"] == "a" * 3000


def test_it_needs_nothing_but_the_standard_library(host: Host) -> None:
    import subprocess

    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(wire.__file__))))
    code = f"import sys; sys.path.insert(0, {root!r}); import codex_self_iter.acp_host.turn"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


# -- what agents do although the protocol forbids it ------------------------------------------------


def test_what_comes_after_the_turns_answer_is_part_of_it(host: Host) -> None:
    """As of opencode (anomalyco/opencode#17505)."""
    late = [{"late": " blue", "id": "a"}, {"late": " sky.", "id": "a"}]
    assert host.run(host.agent([{"say": "The", "id": "a"}, *late])) == 0, host.stderr
    assert host.one("message")["text"] == "The blue sky."


def test_what_another_session_says_is_no_answer(host: Host) -> None:
    """An agent of the agent speaks under an id of its own; its tools are told all the same."""
    tool = {"tool": {"toolCallId": "t", "kind": "edit", "title": "a"}, "ended": "completed"}
    steps = [{"of": "child"}, {"say": "Mine."}, tool, {"say": "Yours."}]
    assert host.run(host.agent([{"say": "The ", "id": "a"}, *steps])) == 0, host.stderr
    assert [one["text"] for one in host.said("message")] == ["The "]
    assert host.one("tool_ended")["id"] == "t"


def test_an_agent_that_never_says_our_sessions_id_is_heard(host: Host) -> None:
    assert host.run(host.agent([{"of": "another"}, {"say": "Done."}])) == 0, host.stderr
    assert host.one("message")["text"] == "Done."


def test_places_that_another_process_makes_out_are_none(host: Host) -> None:
    paths = ("~/a", "file:///etc/passwd", "/proc/self/cwd/a", "//proc/self/cwd/a", "../../proc/1/a")
    asks = [{"ask": {"toolCallId": "t", "kind": "edit", "locations": [{"path": path}]}}
            for path in paths]  # fmt: skip
    assert host.run(host.agent([*asks, {"say": "Done."}])) == 0, host.stderr
    assert len(host.said("refused")) == len(paths)


def test_a_yes_that_is_for_ever_only_is_told_as_refused(host: Host) -> None:
    ask = {"toolCallId": "t", "kind": "edit", "locations": [{"path": "a.txt"}]}
    step = {"ask": ask, "options": ["allow_always", "reject_once"]}
    assert host.run(host.agent([step, {"say": "Done."}])) == 0, host.stderr
    assert "for this once" in host.one("refused")["text"]


def test_an_agent_that_has_left_its_group_is_ended(host: Host) -> None:
    leave = "import os, signal, time; os.setpgid(0, os.getpgid(os.getppid()))"
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(900)"
    process = host.start([sys.executable, "-c", f"{leave}; {deaf}"], "--grace", "2")
    wait_until(lambda: len(host.left()) == 2, lambda: f"the agent: {host.left()}")
    process.send_signal(signal.SIGTERM)
    assert host.end(process) == 128 + signal.SIGTERM
    assert host.left() == []


def test_no_agent_is_left_of_a_probe_that_is_killed(host: Host) -> None:
    """Whoever has it done kills its group."""
    argv = [sys.executable, "-P", "-m", "codex_self_iter.acp_host", "--probe", "--", "sleep", "900"]
    found = probe.ask(argv, host.environment, 3.0)
    assert found == (None, "no answer within 3 s")
    wait_until(lambda: not host.left(), lambda: f"still there: {host.left()}")


def test_an_answer_that_was_too_long_is_told_as_that(host: Host) -> None:
    assert host.run(host.agent([{"fill": 40_000_000}])) == 1
    assert "longer than 32 MiB" in host.one("failed")["message"]


def test_what_is_no_agent_is_named_with_its_end(host: Host) -> None:
    assert host.run(["sh", "-c", "exit 7"]) == 1
    said = host.one("failed")["message"]
    assert "exited with code 7" in said
    assert "sh -c exit 7" in said


def test_an_order_is_taken_once(host: Host) -> None:
    """A supervisor that was killed before it heard that it was taken gives it again."""
    process = host.start(host.agent(SLOW, [{"say": "Blue.", "id": "a"}, {"say": "", "id": "b"},
                                           {"sleep": 4}], SLOW))  # fmt: skip
    in_turn(host)
    order(host, id="x", steer="Use blue.")
    wait_until(lambda: host.said("control"), lambda: f"a word: {host.said()}")
    order(host, id="x", steer="Use blue.")
    assert host.end(process) == 0, host.stderr
    assert not host.control.exists()
    assert len(host.sent("session/prompt")) == 2


def test_an_error_that_belongs_to_no_request_is_told(host: Host) -> None:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "Parse error"}}
    assert host.run(host.agent([{"raw": json.dumps(error)}])) == 0, host.stderr
    assert any("Parse error" in one["text"] for one in host.said("note"))
