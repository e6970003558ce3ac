"""Every agent's stream is shown by what it means; nothing it says breaks the reader or the
terminal."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codex_self_iter.agents import catalog
from codex_self_iter.core.agent_names import CLIS, NATIVE
from codex_self_iter.views.transcript import MAX_TEXT, Item, Reader, Transcript
from tests.agents.test_recorded import lines_of, recordings
from tests.support.harmless import assert_harmless


def recognise(kind: str, value: Mapping[str, Any]) -> Reader | None:
    adapter = catalog.speaker(kind, value)
    return adapter.events if adapter else None


def transcript(agent: str = "") -> Transcript:
    """One that takes every event for this agent's as long as nothing says otherwise."""
    if not agent:
        return Transcript(recognise)
    events = catalog.get(agent).events
    return Transcript(lambda kind, value: recognise(kind, value) or events)


def render(*events: dict[str, Any], agent: str = "") -> list[tuple[str, str]]:
    renderer = transcript(agent)
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


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (r"'make \"all\"'", r"make \"all\""),
        (
            r'"echo \"it\'s \$5\" \\\\ \`date\`"'.replace("\\'", "'"),
            r"""echo "it's $5" \\ `date`""",
        ),
        ("make", "make"),
    ],
)
def test_a_command_is_shown_as_the_shell_was_given_it(given: str, shown: str) -> None:
    """codex puts double quotes around one that has single ones."""
    started = codex_item("item.started", type="command_execution", command=f"/bin/bash -lc {given}")
    assert render(started) == [("command", shown)]


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
    assert transcript().feed(line) == [Item("text", line)]


def test_a_stream_behind_a_wrapper_is_recognised() -> None:
    renderer = transcript()
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
@given(st.lists(events, max_size=4), st.sampled_from(["", *CLIS]))
def test_no_event_breaks_the_renderer(stream: list[tuple[str, dict[str, Any]]], agent: str) -> None:
    for kind, text in render(*(fields | {"type": kind} for kind, fields in stream), agent=agent):
        assert kind in {"message", "command", "output", "change", "error", "note", "text"}
        assert_harmless(text)
        assert len(text) <= 2 * MAX_TEXT + 4096


def test_sniffing_is_careful() -> None:
    assert catalog.speaker("error", {"type": "error", "message": "m"}) is None
    assert transcript().feed('{"type": null}') == [Item("text", '{"type": null}')]
    claude = catalog.speaker("result", {"type": "result", "session_id": "s"})
    assert claude is not None
    assert claude.name == "claude"


@pytest.mark.parametrize(("cli", "what"), recordings())
def test_whose_event_it_is_is_never_mistaken(cli: str, what: str) -> None:
    speakers = set()
    for line in lines_of(cli, what):
        event = json.loads(line)
        adapter = catalog.speaker(event["type"], event)
        speakers.add(adapter.name if adapter else "")
    assert speakers - {""} == {cli if cli in NATIVE else "acp"}
