"""Whatever an agent says becomes events, and never an error of ours."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.acp_host.permissions import Rules, outcome
from codex_self_iter.acp_host.said import MESSAGE_CHARS, OUTPUT_CHARS, Said, name_of
from codex_self_iter.acp_host.usage import Spending
from codex_self_iter.agents.acp import over_acp
from codex_self_iter.core.acp_agents import Counts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = ("sessionUpdate", "toolCallId", "kind", "title", "status", "content", "locations", "rawInput",
        "rawOutput", "messageId", "cost", "_meta", "usage")  # fmt: skip
KINDS = (
    "agent_message_chunk",
    "agent_thought_chunk",
    "tool_call",
    "tool_call_update",
    "usage_update",
    "plan",
)
UPDATE = st.dictionaries(st.sampled_from(KEYS), JSON).map(lambda one: dict(one)) | st.builds(
    lambda kind, more: {**more, "sessionUpdate": kind},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(KEYS[1:]), JSON),
)


class Told:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.said = Said(self.emit, ("Info: ",))

    def emit(self, kind: str, /, **fields: object) -> None:
        self.events.append(json.loads(json.dumps({"type": f"acp.{kind}", **fields})))


@given(st.lists(UPDATE, max_size=6))
def test_no_update_raises(updates: list[dict[str, Any]]) -> None:
    told, spending, agent = Told(), Spending(Counts.CALLS), over_acp("acp")
    rules = Rules(bypass=False, read_only=False, places=("/w",), real=lambda path: path)
    for update in updates:
        told.said.update(update, 1.0)
        spending.update(update)
        spending.answer(update)
        call = told.said.permission(update)
        rules.refusal(call)
        name_of(call)
        outcome(update.get("content"), allow=True)
    told.said.flush()
    for event in told.events:
        agent.events(event["type"], event)


def test_what_is_kept_is_bounded() -> None:
    told = Told()
    for number in range(1000):
        told.said.update({"sessionUpdate": "tool_call", "toolCallId": str(number)}, 1.0)
    assert len(told.said.calls) == 100
    piece = {"sessionUpdate": "agent_message_chunk", "content": {"text": "x" * 300_000}}
    for _ in range(20):
        told.said.update(piece, 1.0)
    told.said.flush()
    assert len(told.events[-1]["text"]) <= 2 * MESSAGE_CHARS
    output = [{"type": "content", "content": {"type": "text", "text": "o" * 1_000_000}}]
    end = {
        "sessionUpdate": "tool_call_update",
        "toolCallId": "x",
        "status": "completed",
        "content": output,
    }
    told.said.update(end, 1.0)
    assert len(told.events[-1]["output"]) < 1.1 * OUTPUT_CHARS


def test_news_of_a_call_from_before_do_not_part_a_message() -> None:
    told = Told()
    for update in (
        {"sessionUpdate": "tool_call", "toolCallId": "x"},
        {"sessionUpdate": "agent_message_chunk", "content": {"text": '{"summary": '}},
        {"sessionUpdate": "tool_call_update", "toolCallId": "x", "status": "completed"},
        {"sessionUpdate": "agent_message_chunk", "content": {"text": '"done"}'}},
    ):
        told.said.update(update, 1.0)
    told.said.flush()
    assert [one["text"] for one in told.events if "text" in one] == ['{"summary": "done"}']
