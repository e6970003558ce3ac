"""Cut, repeated, interleaved, foreign lines: parsers never raise and never invent an answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_self_iter.agents import catalog
from codex_self_iter.agents.classify import Printed, classify
from codex_self_iter.agents.rollout import parse_rollout
from codex_self_iter.agents.stream import EventKind, Parsed
from codex_self_iter.core.agent_names import AUTO
from codex_self_iter.core.agent_report import Failure
from codex_self_iter.core.runs import EndCause
from tests.agents.test_recorded import lines_of, outcome, recordings

CLIS = {name: catalog.get(name) for name in AUTO}
LINES = {
    name: [line for cli, what in recordings(name) for line in lines_of(cli, what)] for name in CLIS
}
ALL_LINES = [line for lines in LINES.values() for line in lines]
SPEAKS = (EventKind.MESSAGE, EventKind.DELTA, EventKind.ANSWER)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)


def texts(cli: str, lines: list[str]) -> list[str]:
    """Every text that the lines themselves give as one."""
    return [
        event.text for line in lines for event in CLIS[cli].parse_line(line) if event.kind in SPEAKS
    ]


def said(parsed: Parsed) -> str:
    return parsed.message if parsed.answer is None else parsed.answer


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A CLI and lines: its own in any order and number, some cut, some foreign."""
    cli = draw(st.sampled_from(sorted(CLIS)))
    lines = []
    for line in draw(st.lists(st.sampled_from(LINES[cli]), max_size=30)):
        match draw(st.integers(0, 5)):
            case 0:
                lines.append(line[: draw(st.integers(0, len(line)))])
            case 1:
                lines.append(line[draw(st.integers(0, len(line))) :])
            case 2:
                lines += [line, line]
            case 3:
                lines += [draw(st.text(max_size=50)), draw(st.sampled_from(ALL_LINES)), line]
            case _:
                lines.append(line)
    return cli, lines


@pytest.mark.slow
@given(streams())
@settings(max_examples=300, deadline=None)
def test_no_stream_raises_or_makes_up_an_answer(stream):
    cli, lines = stream
    parsed = CLIS[cli].parse_events(lines)
    known = texts(cli, lines)
    answer = said(parsed)
    assert answer == "" or answer in known or answer in "".join(known)


@given(streams(), st.sampled_from([0, 1, 143]), st.sampled_from(list(EndCause)))
@settings(max_examples=200, deadline=None)
def test_a_run_without_its_end_has_failed(stream, code, cause):
    cli, lines = stream
    parsed = CLIS[cli].parse_events(lines)
    failure = classify(parsed, outcome(code, cause=cause), Printed(), 1.8e9, final_event=True)
    assert isinstance(failure, Failure) or (
        parsed.ended and parsed.ok and cause in (EndCause.EXIT, EndCause.LINGERED)
    )
    if failure:
        assert failure.message
        assert len(failure.message) <= 500
        assert "\n" not in failure.message


@pytest.mark.slow
@given(st.sampled_from(sorted(CLIS)), st.data())
@settings(max_examples=200, deadline=None)
def test_values_of_any_shape_are_taken(cli, data):
    """A known line in which any value was replaced by any other."""
    value = json.loads(data.draw(st.sampled_from(LINES[cli])))
    target = value
    for _ in range(data.draw(st.integers(0, 3))):
        inner = [one for one in target.values() if isinstance(one, dict) and one]
        if not inner:
            break
        target = data.draw(st.sampled_from(inner))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON)
    parsed = CLIS[cli].parse_events([json.dumps(value)])
    assert isinstance(said(parsed), str)
    assert parsed.usage is None or parsed.usage.total_tokens >= 0
    parse_rollout([json.dumps(value)])


@given(
    st.sampled_from(sorted(CLIS)),
    st.lists(st.text(max_size=200) | JSON.map(json.dumps), max_size=20),
)
@settings(max_examples=100, deadline=None)
def test_a_foreign_stream_says_nothing(cli, lines):
    parsed = CLIS[cli].parse_events(lines)
    assert (said(parsed), parsed.ended, parsed.usage) == ("", False, None)


@pytest.mark.parametrize("cli", sorted(CLIS))
@pytest.mark.parametrize(
    "line",
    [
        "[" * 200_000,
        '{"a":' * 200_000,
        '{"type":"result","n":' + "9" * 10_000 + "}",
        '{"type":["x"]}',
        '{"type":"item.completed","item":{"type":"agent_message","text":"\\ud800"}}',
        "\x00" * 1000,
    ],
    ids=["deep list", "deep object", "huge number", "type is a list", "lone surrogate", "NULs"],
)
def test_hostile_lines_are_taken(cli, line):
    CLIS[cli].parse_events([line])


@pytest.mark.parametrize("cli", sorted(CLIS))
def test_every_prefix_of_a_good_run_but_the_whole_has_failed(cli):
    lines = lines_of(cli, "happy")
    ends = []
    for count in range(len(lines) + 1):
        parsed = CLIS[cli].parse_events(lines[:count])
        failure = classify(parsed, outcome(), Printed(), 1.8e9, final_event=True)
        ends.append(failure is None)
    assert ends[-1]
    assert not any(ends[:-1])
