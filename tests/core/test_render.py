"""Every agent's stream is shown by what it means; nothing it says breaks the reader or the
terminal.
"""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codex_self_iter.core.render import MAX_TEXT, READERS, Item, Renderer, sniff
from codex_self_iter.core.text import (
    age,
    clean,
    clean_block,
    cut,
    money,
    shorten,
    size,
    tokens,
    took,
)


def render(*events: dict[str, Any], agent: str = "") -> list[tuple[str, str]]:
    renderer = Renderer(agent)
    items = [item for event in events for item in renderer.feed(json.dumps(event))]
    return [(item.kind, item.text) for item in [*items, *renderer.finish()]]


def codex_item(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "item": fields}


def test_codex_commands_are_shown_once_with_their_end() -> None:
    command = {"type": "command_execution", "command": "/bin/bash -lc 'make test'"}
    started = codex_item("item.started", **command)
    ended = codex_item("item.completed", **command, aggregated_output="ok\n", exit_code=0)
    assert render(started, ended) == [
        ("command", "make test"),
        ("output", "ok"),
        ("note", "exit 0"),
    ]
    assert render(started, ended, started, ended)[3:] == render(started, ended)
    assert render(ended) == [("command", "make test"), ("output", "ok"), ("note", "exit 0")]


def test_codex_changes_messages_and_errors() -> None:
    changes = [{"path": "a.py", "kind": "add"}, {"path": "b.py", "kind": "update"}]
    assert render(
        codex_item("item.completed", type="file_change", changes=changes),
        codex_item("item.completed", type="agent_message", text="Done."),
        codex_item("item.completed", type="web_search", query="q"),
        {"type": "error", "message": "Reconnecting... 1/5"},
        {"type": "turn.failed", "error": {"message": "usage limit"}},
        {"type": "turn.completed", "usage": {"input_tokens": 1500, "output_tokens": 20}},
    ) == [
        ("change", "add a.py"),
        ("change", "update b.py"),
        ("message", "Done."),
        ("note", "searched the web: q"),
        ("error", "Reconnecting... 1/5"),
        ("error", "failed: usage limit"),
        ("note", "done, thread total 1.5k tokens in, 20 out"),
    ]


def test_a_control_block_is_shown_by_its_fields() -> None:
    answer = json.dumps(
        {"summary": "did it", "next_goal": "", "completed": True, "evidence": ["3 passed"]}
    )
    (item,) = render(codex_item("item.completed", type="agent_message", text=answer))
    assert item == ("message", 'summary: did it\ncompleted: true\nevidence: ["3 passed"]')


def test_claude() -> None:
    def assistant(*content: dict[str, Any]) -> dict[str, Any]:
        return {"type": "assistant", "message": {"content": list(content)}, "session_id": "s"}

    def user(**result: Any) -> dict[str, Any]:
        return {
            "type": "user",
            "message": {"content": [{"type": "tool_result", **result}]},
            "session_id": "s",
        }

    look, bash = (
        {"type": "text", "text": "Look."},
        {"type": "tool_use", "name": "Bash", "input": {"command": "ls"}},
    )
    assert render(
        {"type": "system", "subtype": "init", "session_id": "s", "model": "m"},
        assistant(look, bash),
        user(content="file\n"),
        assistant({"type": "tool_use", "name": "Edit", "input": {"file_path": "a.py", "old_string": "x"}}),
        user(content=[{"type": "text", "text": "no such file"}], is_error=True),
        {"type": "result", "subtype": "success", "is_error": False, "session_id": "s", "total_cost_usd": 0.5,
         "usage": {"input_tokens": 10, "output_tokens": 2}, "permission_denials": [{"tool_name": "Write"}]},
        {"type": "result", "subtype": "success", "is_error": True, "session_id": "s", "result": "overloaded"},
    ) == [
        ("note", "session s, m"), ("message", "Look."), ("command", "ls"), ("output", "file"),
        ("change", "edit a.py"), ("error", "no such file"), ("note", "done, $0.50, 10 tokens in, 2 out"),
        ("error", "not permitted: Write"), ("error", "failed: overloaded"),
    ]  # fmt: skip


def test_gemini_joins_the_pieces_of_a_message() -> None:
    def event(**fields: Any) -> dict[str, Any]:
        return {"timestamp": "t", **fields}

    assert render(
        event(type="init", session_id="s", model="m"),
        event(type="message", role="user", content="prompt"),
        event(type="message", role="assistant", content="Hel", delta=True),
        event(type="message", role="assistant", content="lo", delta=True),
        event(type="tool_use", tool_name="run_shell_command", parameters={"command": "ls"}),
        event(type="tool_result", status="success", output="a\n"),
        event(type="tool_result", status="error", error={"message": "denied"}),
        event(type="message", role="assistant", content="end", delta=True),
        event(type="result", status="error", error={"message": "quota"}),
    ) == [
        ("note", "session s, m"), ("message", "Hello"), ("command", "ls"), ("output", "a"),
        ("error", "denied"),
        ("message", "end"), ("error", "failed: quota"),
    ]  # fmt: skip


def test_opencode() -> None:
    def part(kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": kind, "sessionID": "s", "part": fields}

    ls = {"command": "ls"}
    state = {"status": "completed", "input": ls, "output": "a", "metadata": {"exit": 0}}
    assert render(
        part("step_start"),
        part("text", text="Hello"),
        part("tool_use", tool="bash", state=state),
        {
            "type": "error",
            "sessionID": "s",
            "error": {"name": "APIError", "data": {"message": "429"}},
        },
    ) == [
        ("message", "Hello"),
        ("command", "ls"),
        ("output", "a"),
        ("note", "exit 0"),
        ("error", "failed: 429"),
    ]


@pytest.mark.parametrize(
    "line", ["plain", "{no", '{"no": "type"}', "[1]", "", '{"type": 5}', '{"type": "x"}']
)
def test_what_is_no_event_is_shown_as_text(line: str) -> None:
    assert Renderer().feed(line) == [Item("text", line)]


def test_a_stream_behind_a_wrapper_is_recognised() -> None:
    renderer = Renderer("command")
    assert renderer.feed("wrapper: starting codex")[0].kind == "text"
    assert renderer.feed('{"type":"thread.started","thread_id":"t"}') == [Item("note", "thread t")]
    assert renderer.feed('{"type":"error","message":"m"}') == [Item("error", "m")]


def test_long_outputs_show_their_end() -> None:
    fields = {
        "type": "command_execution",
        "command": "x",
        "aggregated_output": "n\n" * 50,
        "exit_code": 0,
    }
    assert render(codex_item("item.completed", **fields))[1][1].splitlines()[0] == "[42 lines]"


keys = st.sampled_from([
    "type", "item", "part", "message", "content", "text", "error", "data", "usage", "changes", "state",
    "input",
    "name", "command", "path", "output", "session_id", "sessionID", "timestamp", "subtype", "role", "delta",
    "is_error", "result", "aggregated_output", "exit_code", "kind", "tool", "permission_denials", "stats",
    "metadata", "exit",
])  # fmt: skip
types = st.sampled_from([
    "item.started", "item.completed", "turn.failed", "turn.completed", "error", "assistant", "user", "result",
    "system", "init", "message", "tool_use", "tool_result", "text", "step_finish",
])  # fmt: skip
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "text", "\x1b[2J", "\x9bx", '{"summary": 1}', "/bin/bash -lc 'x'"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
events = st.tuples(types, st.dictionaries(keys, values, max_size=6))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, max_size=4), st.sampled_from(["", *READERS]))
def test_no_event_breaks_the_renderer(stream: list[tuple[str, dict[str, Any]]], agent: str) -> None:
    for kind, text in render(*(fields | {"type": kind} for kind, fields in stream), agent=agent):
        assert kind in {"message", "command", "output", "change", "error", "note", "text"}
        assert_harmless(text)
        assert len(text) <= 2 * MAX_TEXT + 4096


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=200))
def test_clean_leaves_no_control_character(text: str) -> None:
    assert_harmless(clean_block(text))
    assert "\n" not in clean(text)
    assert len(shorten(text, 20)) <= 20
    assert clean_block(clean_block(text)) == clean_block(text)


@given(
    st.lists(
        st.sampled_from(
            ["\x1b", "[", "]", "0;", "m", "\x07", "a", "\\", "\n", "\r", "\x9b", "31", "P", "c"]
        )
    )
)
def test_no_composition_of_sequences_survives(parts: list[str]) -> None:
    assert_harmless(clean_block("".join(parts)))


def assert_harmless(text: str) -> None:
    for character in text:
        assert character in "\n\t" or ord(character) >= 0x20, repr(text)
        assert not 0x7F <= ord(character) < 0xA0
        assert character not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"
    text.encode("utf-8")


def test_a_redrawn_line_shows_what_stood_last() -> None:
    assert clean_block("10 %\r50 %\r100 %\r\nnext") == "100 %\nnext"


def test_figures_as_people_say_them() -> None:
    spans = [age(value) for value in (0, 59, 60, 3661, 90_000, -5)]
    assert spans == ["0 s", "59 s", "1 m 00 s", "1 h 01 m", "1 d 01 h", "0 s"]
    assert [took(value) for value in (0.44, 9.96, 61, -1)] == ["0.4 s", "10 s", "1 m 01 s", "0.0 s"]
    assert [cut("a  b", 9), cut("a  bcd", 4), shorten("a \n b", 9)] == ["a  b", "a  …", "a b"]
    sizes = [size(value) for value in (0, 999, 1500, 15_000, 2.5e9, 3e12)]
    assert sizes == ["0 B", "999 B", "1.5 kB", "15 kB", "2.5 GB", "3.0 TB"]
    assert [tokens(value) for value in (5, 12_345, 2_000_000)] == ["5", "12.3k", "2.0M"]
    assert [money(value) for value in (0, 0.0012, 3.456)] == ["$0.00", "$0.0012", "$3.46"]


def test_sniffing_is_careful() -> None:
    assert sniff({"type": "error", "message": "m"}) == ""
    assert sniff({"type": None}) == ""
    assert sniff({"type": "result", "session_id": "s"}) == "claude"
