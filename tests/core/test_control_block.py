"""The agent's answer is found, whatever stands around it, and nothing else is ever taken for
one."""

from __future__ import annotations

import itertools
import json
import re
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codex_self_iter.core import control_block
from codex_self_iter.core import prompt as prompts
from codex_self_iter.core.control_block import (
    FIELDS,
    MAX_TEXT,
    ControlBlock,
    Unreadable,
    promised,
    to_bool,
    to_text,
)
from codex_self_iter.core.state import PlannerAnswer
from codex_self_iter.core.terms import Role
from codex_self_iter.world.state.codec import from_json


class ParseError(Exception):
    """An answer was unreadable; says why."""


def parse(text: str, prompt: str = "") -> ControlBlock:
    block = control_block.parse(text, prompt)
    if isinstance(block, Unreadable):
        raise ParseError(block.why)
    return block


def read_json_object(text: str, required: str) -> dict[str, Any]:
    found = control_block.read_json_object(text, required)
    if isinstance(found, Unreadable):
        raise ParseError(found.why)
    return found


GOOD: dict[str, Any] = {
    "summary": "wrote the parser",
    "next_goal": "test the parser",
    "stop": False,
    "reason": "not tested yet",
    "evidence": ["pytest -q: 3 passed"],
    "completed": False,
}
BLOCK = ControlBlock(**{**GOOD, "evidence": ("pytest -q: 3 passed",)})
LABELS = """NEXT_GOAL: test the parser
STOP: false
SUMMARY: wrote the parser
REASON: not tested yet
EVIDENCE: pytest -q: 3 passed
COMPLETED: false"""


def changed(**fields: Any) -> str:
    return json.dumps(GOOD | fields)


# -- both formats ----------------------------------------------------------------------------------

SHAPES = {
    "compact": json.dumps(GOOD, separators=(",", ":")),
    "pretty": json.dumps(GOOD, indent=4),
    "tabs": json.dumps(GOOD, indent="\t"),
    "fence": f"```json\n{json.dumps(GOOD, indent=2)}\n```",
    "fence without language": f"```\n{json.dumps(GOOD)}\n```",
    "fence never closed": f"```json\n{json.dumps(GOOD)}",
    "keys turned round": json.dumps(dict(reversed(GOOD.items()))),
    "unknown fields": json.dumps(GOOD | {"mood": {"stop": True}}),
    "inside another object": json.dumps({"type": "result", "result": GOOD}),
    "inside a list": json.dumps([GOOD]),
    "labels": LABELS,
    "labels in another order": "\n".join(
        sorted(LABELS.split("\n"), key=lambda line: line.startswith("STOP"))
    ),
    "labels with CRLF": LABELS.replace("\n", "\r\n"),
    "labels on one line": LABELS.replace("\n", " "),
    "bold labels": "\n".join(
        f"**{a}:** {b}" for a, b in (x.split(": ", 1) for x in LABELS.split("\n"))
    ),
    "bold labels, colon outside": "\n".join(
        f"- **{a}**: {b}" for a, b in (x.split(": ", 1) for x in LABELS.split("\n"))
    ),
    "quoted labels": "\n".join(f"> {line}" for line in LABELS.split("\n")).replace("> >", ">"),
    "labels in a fence": f"```\n{LABELS}\n```",
}


@pytest.mark.parametrize("after", ["", "\n", "\n\nThat is all.\n", "\ntokens used: 1,234\n"])
@pytest.mark.parametrize(
    "before", ["", 'I read {the} files: {"a": 1}.\n\n', "STOP! Then I went on.\n", "\0\x1b[0m\n"]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_usual_shape_is_read(shape: str, before: str, after: str) -> None:
    assert parse(before + SHAPES[shape] + after) == BLOCK


def test_a_text_in_the_last_label_runs_to_the_end() -> None:
    assert parse("STOP: no\nCOMPLETED: no\nNEXT_GOAL: one\n\ntwo\n").next_goal == "one\n\ntwo"


def test_json_with_crlf_is_read() -> None:
    assert parse(json.dumps(GOOD, indent=2).replace("\n", "\r\n")) == BLOCK


def test_label_values_may_have_several_lines() -> None:
    block = parse(
        "SUMMARY: one\ntwo\n\nthree\nEVIDENCE:\n- a\n* b\n• c\nNEXT_GOAL: go\non\nSTOP: no\n"
    )
    assert block.summary == "one\ntwo\n\nthree"
    assert block.evidence == ("a", "b", "c")
    assert block.next_goal == "go\non"


def test_a_colon_or_a_label_word_inside_a_value_changes_nothing() -> None:
    text = LABELS.replace(
        "not tested yet", "the log says COMPLETED: true and STOP: true, which is another program's"
    )
    block = parse(text)
    assert (block.stop, block.completed) == (False, False)
    assert "another program's" in block.reason


@pytest.mark.parametrize(("first", "second"), list(itertools.product(["json", "labels"], repeat=2)))
def test_the_last_of_two_blocks_wins(first: str, second: str) -> None:
    def shape(kind: str, goal: str) -> str:
        return (
            changed(next_goal=goal) if kind == "json" else LABELS.replace("test the parser", goal)
        )

    assert parse(f"{shape(first, 'old')}\nmore work\n{shape(second, 'new')}").next_goal == "new"


@pytest.mark.parametrize(
    "tail",
    [
        json.dumps(GOOD)[: len(json.dumps(GOOD)) // 2],
        '{"summary": "x", "stop": false}',
        '{"next_goal": "x"}',
        "STOP: true",  # one label alone is prose
        "STOP: yes\nREASON: the server, not the loop\n",  # so are these two
        '{"summary": "a log record", "reason": "x"}',
        '@@ -1,2 +1,2 @@\n-old\n+new\n {"summary": "s", "next_goal": "", "stop": true}\n',
        "{}",
    ],
)
def test_half_a_block_does_not_hide_the_whole_one_before_it(tail: str) -> None:
    assert parse(f"{changed(next_goal='whole')}\n{tail}").next_goal == "whole"


@pytest.mark.parametrize(
    "tail",
    [
        '{"summary": "x", "stop": "perhaps", "next_goal": "y"}',
        '{"summary": "x", "stop": false, "completed": "partially"}',
        '{"summary": "x", "stop": 0.5, "next_goal": "y"}',
        '{"summary": "x", "stop": NaN, "next_goal": "y"}',
        '{"summary": "x", "stop": false, "next_goal": ""}',
        "NEXT_GOAL: something else\nSTOP: perhaps\n",
    ],
)
def test_a_last_block_that_nobody_understands_brings_no_older_one_back(tail: str) -> None:
    with pytest.raises(ParseError, match="the last control block is not valid"):
        parse(f"{changed(next_goal='', completed=True)}\n{tail}")


def test_colours_are_no_part_of_an_answer() -> None:
    assert parse("\x1b[1mNEXT_GOAL:\x1b[0m x\n\x1b[32mSTOP:\x1b[m no\n").next_goal == "x"
    coloured = changed(next_goal="y").replace(": ", "\x1b[0m:\x1b[36m ").replace("{", "\x1b[1m{")
    assert parse(coloured).next_goal == "y"


@pytest.mark.parametrize("prompt", ["\n", "STOP: no\nREASON: x\n", '{"summary": "x"}\n'])
@pytest.mark.parametrize(
    "answer",
    ["STOP: no\nREASON: x\n", "NEXT_GOAL: a\nSTOP: maybe\n", '{"summary":"x","stop":"q"}\n',
     '{"a', '{"a":', "\x1b[1m", "{ ", "PROMISE\n", "@@ -1,9 +1,9 @@\n", "\n"],
)  # fmt: skip
def test_no_answer_takes_long_beside_a_large_prompt(answer: str, prompt: str) -> None:
    """Measured in the time that one search of the prompt takes, so that no busy machine fails."""
    text, asked = answer * (256 * 1024 // len(answer)), prompt * (4 * 1024 * 1024 // len(prompt))
    began = time.thread_time()
    for _ in range(3):
        assert "nothing of this kind" not in " ".join(asked.split())
    unit = time.thread_time() - began
    began = time.thread_time()
    control_block.parse(text, asked)
    control_block.promised("PROMISE", text, control_block.ControlBlock(), asked)
    assert time.thread_time() - began < 10 * unit + 2.0


def test_the_whole_object_comes_before_an_object_inside_it() -> None:
    assert parse(changed(plan={"next_goal": "inner", "stop": True, "summary": "inner"})) == BLOCK


def test_an_inline_answer_after_a_block_on_lines_is_found() -> None:
    text = (
        LABELS.replace("test the parser", "old") + "\nfine\nNEXT_GOAL: new STOP: false SUMMARY: s"
    )
    assert parse(text).next_goal == "new"


# -- nearly JSON -----------------------------------------------------------------------------------

PRETTY = json.dumps(GOOD, indent=1)
NEARLY = {
    "commas at the end": PRETTY.replace('"\n ]', '",\n ]').replace("false\n}", "false,\n}"),
    "comments": PRETTY.replace("{", "{ // my answer: {", 1).replace('",\n', '", // "x"\n', 1),
    "a comment in the old way": PRETTY.replace("false,", "false /* ,} */,", 1),
    "Python": repr(GOOD),
    "Python's words": json.dumps(GOOD).replace("false", "False"),
    "typographic quotes": re.sub(r'"([^"]*)"', r"“\1”", PRETTY),
    "in a fence": f"```json\n{GOOD!r}\n```",
}


@pytest.mark.parametrize("after", ["", "\n", "\n\nThat is all.\n"])
@pytest.mark.parametrize("before", ["", 'I read {the} files: {"a": 1,}.\n\n', "don't\n"])
@pytest.mark.parametrize("shape", NEARLY)
def test_a_block_that_is_nearly_json_is_read(shape: str, before: str, after: str) -> None:
    assert parse(before + NEARLY[shape] + after) == BLOCK


def test_backslashes_and_quotes_in_texts_stay() -> None:
    said = r"""{"summary": "C:\src \d+ \\ \" \u00e4 \user it\'s // no", "next_goal": "g", "stop": no,}"""
    said = said.replace("no,}", "false}")
    assert parse(said).summary == r"""C:\src \d+ \ " ä \user it's // no"""
    quoted = (
        r"""{'summary': 'a "b" \\"c" it\'s', 'next_goal': 'g', 'stop': False, 'reason': None}"""
    )
    assert parse(quoted).summary == r"""a "b" \"c" it's"""


@pytest.mark.parametrize("shape", NEARLY)
def test_strict_json_goes_first_and_an_echo_is_none(shape: str) -> None:
    assert parse(f"{changed(next_goal='strict')}\n{NEARLY[shape]}").next_goal == "strict"
    prompt = prompt_with(NEARLY[shape])
    with pytest.raises(ParseError, match="repeat the prompt"):
        parse(prompt, prompt)


@pytest.mark.parametrize(
    "text",
    [
        "{'summary': 'a log record', 'level': 3}",  # no block
        "{'a': 1, 'next_goal': 'x', 'stop': False}",  # begins as something else
        "print({'summary': summary, 'next_goal': goal, 'stop': False})",  # code
        "{'next_goal': 'x', 'stop': False",
    ],
)
def test_what_only_looks_like_it_is_no_block(text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{\n"summary": "a "quoted" word",\n"next_goal": "n"}', "line 2: .* `.*quoted"),
        (PRETTY[:-20], "broken at its line"),
        ('{"summary": "s", "next_goal": ..., "stop": false}', r"line 1: .*\.\.\."),
    ],
)
def test_of_a_broken_block_the_place_is_told(text: str, place: str) -> None:
    with pytest.raises(ParseError, match=place):
        parse(f"Done.\n\n{text}\n")
    prompt = prompt_with(text)
    with pytest.raises(ParseError, match="no control block was found"):
        parse(prompt, prompt)


def test_a_large_block_after_words_is_read_and_its_field_is_cut() -> None:
    large = json.dumps({"summary": "s", "next_goal": "x" * 200_000, "stop": False})
    found = parse(f"Done.\n\n{large}\n", "the task")
    assert found.next_goal == "x" * MAX_TEXT


def test_a_planners_object_may_be_nearly_json_too() -> None:
    assert read_json_object("so:\n{'objective': 'x', 'stop': False,}", "objective")["stop"] is False
    with pytest.raises(ParseError, match="broken at its line 1"):
        read_json_object('{"objective": "an "x"", "stop": false}', "objective")


# -- coercion --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        (True, True), ("true", True), ("True", True), ("YES", True), ("y", True), (1, True),
        ("1", True), ("on", True),
        ("**true**", True), ("`yes`", True), ("Yes.", True), ("done", True),
        (False, False), ("false", False), ("No", False), ("n", False), (0, False), ("0", False),
        (None, False),
        ("null", False), ("none", False), ("", False), ("off", False), (" False\r", False),
        ("perhaps", None), ([], None), ([True], None), ({}, None), ("true, nearly", None),
    ],
)  # fmt: skip
def test_booleans_are_coerced_or_refused(value: Any, meaning: bool | None) -> None:
    assert to_bool(value) is meaning
    if meaning is None:
        with pytest.raises(ParseError, match='"stop" must be true or false'):
            parse(changed(stop=value))
    else:
        assert parse(changed(stop=value)).stop is meaning
        assert parse(changed(completed=value)).completed is meaning


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("  x \n", "x"),
        (["a", None, ["b"]], "a\nb"),
        (3, "3"),
        ({"a": 1}, '{"a": 1}'),
        (True, "true"),
    ],
)
def test_texts_are_coerced(value: Any, text: str) -> None:
    assert to_text(value) == text
    assert parse(changed(summary=value)).summary == text


@pytest.mark.parametrize(
    ("value", "evidence"),
    [
        (None, ()), ([], ()), ("", ()), ("none", ()), ("N/A", ()), (["a", None, "", 3], ("a", "3")),
        ("- a\n- b", ("a", "b")), ({"cmd": "x"}, ('{"cmd": "x"}',)),
    ],
)  # fmt: skip
def test_evidence_becomes_a_list(value: Any, evidence: tuple[str, ...]) -> None:
    assert parse(changed(evidence=value)).evidence == evidence


@pytest.mark.parametrize("empty", ["", None, "none", "N/A", "null", "  "])
def test_a_missing_next_goal_is_fine_only_at_the_end(empty: str | None) -> None:
    assert parse(changed(next_goal=empty, completed=True)).next_goal == ""
    assert parse(changed(next_goal=empty, stop="yes")).next_goal == ""
    with pytest.raises(ParseError, match='"next_goal" is missing or empty'):
        parse(changed(next_goal=empty))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "printed nothing"),
        (" \n\t", "printed nothing"),
        ("I am done.", "no control block"),
        ("{" * 50, "no control block"),
        ("\0" * 50, "no control block"),
        ("PLAN_COMPLETE", "no control block"),
        ('{"summary": "s", "next_goal": "g"}', '"stop" is missing'),
        ('{"stop": false, "summary": "s"}', '"next_goal" is missing'),
    ],
)
def test_the_error_says_what_was_wrong(text: str, problem: str) -> None:
    with pytest.raises(ParseError, match=problem):
        parse(text)


def test_long_values_are_bounded() -> None:
    assert len(parse(changed(summary="x" * 300_000)).summary) == 20_000
    assert len(parse(changed(evidence=["e"] * 5_000)).evidence) == 200


def test_lone_surrogates_can_be_written_to_files_afterwards() -> None:
    text = (
        '{"summary": "\\ud800", "next_goal": "a\\udfffb", "stop": false, "evidence": ["\\udc00"]}'
    )
    block = parse(text)
    json.dumps(block.to_json(), ensure_ascii=False).encode("utf-8")


# -- hostile text ----------------------------------------------------------------------------------

SIZE = 256 * 1024
FLOODS = {
    "braces": "{" * SIZE,
    "braces and quotes": '{"' * (SIZE // 2),
    "open objects": '{"a":' * (SIZE // 5),
    "open lists": '{"summary":' + "[" * SIZE,
    "open strings": '{"summary": "' + "a" * SIZE,
    "spaces": "{ " * (SIZE // 2),
    "stars": "*" * SIZE,
    "labels": "STOP:" * (SIZE // 5),
    "label lines": "STOP: x\nREASON: y\n" * (SIZE // 18),
    "label stars": "STOP" + "*" * SIZE,
    "small objects": '{"stop":1,"reason":2}' * (SIZE // 21),
    "wrong objects": '{"stop":[],"reason":2}\n' * (SIZE // 23),
    "many opens, one far end": '{"a":"' * 2_000 + "x" * SIZE,
    "nearly blocks": "{'stop':" * (SIZE // 8),
    "nearly texts": "{'stop': '" * (SIZE // 10),
    "comments": "{'stop': " + "// a b " * (SIZE // 7),
    "comments of the old way": "{'stop': " + "/*" * (SIZE // 2),
    "commas": "{'stop': [" + ", " * (SIZE // 2),
    "spaces before a key": "{ // x\n" * (SIZE // 7),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_takes_bounded_time_and_hides_no_answer(flood: str) -> None:
    begun = time.process_time()
    assert parse(FLOODS[flood] + "\n" + json.dumps(GOOD), prompt=FLOODS[flood]) == BLOCK
    try:
        parse(FLOODS[flood], prompt=FLOODS[flood][:100_000])
    except ParseError:
        pass
    assert time.process_time() - begun < 5.0


@pytest.mark.parametrize("depth", [10, 100, 500, 900, 990, 5_000])
@pytest.mark.parametrize("kind", ["[]", "{}"])
def test_deep_nesting_is_no_way_to_crash(depth: int, kind: str) -> None:
    opened, closed = ('{"a":' * depth, "}" * depth) if kind == "{}" else ("[" * depth, "]" * depth)
    value = opened + ("1" if kind == "{}" else "") + closed
    text = f'{{"summary": {value}, "next_goal": "g", "stop": false}}'
    try:
        assert parse(text).next_goal == "g"
    except ParseError:
        assert depth > 100  # beyond any answer; a clear refusal
    try:
        read_json_object(text, "next_goal")
    except ParseError:
        assert depth > 100


# -- echoes ----------------------------------------------------------------------------------------

EXAMPLE_JSON = changed(next_goal="as in the example")
EXAMPLE_LABELS = LABELS.replace("test the parser", "as in the example")
EXAMPLES = {"json": EXAMPLE_JSON, "fence": f"```json\n{EXAMPLE_JSON}\n```",
            "labels": EXAMPLE_LABELS,
    "inline": EXAMPLE_LABELS.replace("\n", " ")}  # fmt: skip


def prompt_with(example: str) -> str:
    task = (
        f"Build a parser. Answer in this form when you have finished, and in no "
        f"other:\n\n{example}\n\nThank you."
    )
    return prompts.build(
        prompts.PromptInputs(
            Role.EXECUTOR, 3, plan="- [ ] all of it", task=task, promise="PLAN_COMPLETE"
        )
    )


@pytest.mark.parametrize("noise", ["", "user\n", "[2026-11-01] prompt:\n"])
@pytest.mark.parametrize("rest", ["", "\n", "\nI could not do anything.\nerror: stream closed\n"])
@pytest.mark.parametrize("shape", EXAMPLES)
def test_a_repeated_prompt_is_no_answer(shape: str, rest: str, noise: str) -> None:
    prompt = prompt_with(EXAMPLES[shape])
    with pytest.raises(ParseError, match="repeat the prompt"):
        parse(noise + prompt + rest, prompt)


@pytest.mark.parametrize("shape", EXAMPLES)
def test_part_of_the_prompt_is_no_answer(shape: str) -> None:
    prompt = prompt_with(EXAMPLES[shape])
    at = prompt.index(EXAMPLES[shape])
    with pytest.raises(ParseError, match="repeat the prompt"):
        parse(prompt[at - 100 : at + len(EXAMPLES[shape]) + 5], prompt)


@pytest.mark.parametrize("shape", EXAMPLES)
@pytest.mark.parametrize("answer", EXAMPLES)
def test_an_answer_after_the_repeated_prompt_counts(shape: str, answer: str) -> None:
    prompt = prompt_with(EXAMPLES[shape])
    mine = EXAMPLES[answer].replace("as in the example", "my own goal")
    assert parse(f"{prompt}\nI have done it.\n{mine}\n", prompt).next_goal == "my own goal"


@pytest.mark.parametrize("shape", EXAMPLES)
def test_the_exact_answer_that_the_task_spells_out_counts(shape: str) -> None:
    prompt = prompt_with(EXAMPLES[shape])
    assert parse(EXAMPLES[shape], prompt).next_goal == "as in the example"
    assert parse(f"Done.\n\n{EXAMPLES[shape]}\n", prompt).next_goal == "as in the example"
    assert parse(f"{prompt}\n{EXAMPLES[shape]}\n", prompt).next_goal == "as in the example"


def test_negative_control_without_the_prompt_an_echo_is_believed() -> None:
    prompt = prompt_with(EXAMPLE_JSON)
    assert parse(prompt).next_goal == "as in the example"


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("promise", ["", "PLAN_COMPLETE", "DONE."])
@pytest.mark.parametrize("gates", [(), ("pytest -q",), ("true", "STOP: x")])
def test_our_own_prompt_can_never_be_read_as_an_answer(
    role: Role, promise: str, gates: tuple[str, ...]
) -> None:
    text = prompts.build(
        prompts.PromptInputs(
            role, 7, plan="- [ ] an item", task="A task.", goal="a goal", promise=promise,
            gates=gates,
            history=[{"iteration": 6, "verdict": "continue", "summary": "did it", "gates": []}],
            feedback="it failed", messages=["be quick"], circling=prompts.circling_text("a goal"),
            planner=PlannerAnswer("", "do it", "done", "", False),
            block=GOOD,
            gate_results=[{"command": "true", "ok": False, "exit_code": 1, "output": "no"}],
            changed_files=["a.py"], commit="agent", hint="a model",
        )
    )  # fmt: skip
    for start in (0, len(text) // 3, len(text) // 2):
        with pytest.raises(ParseError):
            parse(text[start:])
        for key in ("objective", "continue"):
            with pytest.raises(ParseError):
                read_json_object(text[start:], key)
        assert not promised(promise, text[start:], ControlBlock())


FORM = dict(GOOD, summary="...", next_goal="", completed=True)
QUOTE = dict(GOOD, summary="all of it", next_goal="", completed=True)


@pytest.mark.parametrize("form", ["...", "…", ".....", "<what you did>"])
@pytest.mark.parametrize("key", ["summary", "next_goal"])
def test_a_form_that_nobody_filled_in_is_no_answer(form: str, key: str) -> None:
    with pytest.raises(ParseError, match="repeat the prompt"):
        parse(changed(**{key: form, "completed": True}))
    assert parse(f"{changed()}\n(the form: {changed(**{key: form})})\n") == BLOCK
    assert parse(changed(**{key: f"{form} and more"}))


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(QUOTE),
        json.dumps(QUOTE, indent=2),
        json.dumps(QUOTE, separators=(",", ":")),
        json.dumps(dict(reversed(QUOTE.items()))),
    ],
)
def test_an_object_of_the_prompt_is_an_echo_however_it_is_written(written: str) -> None:
    prompt = prompt_with(json.dumps(QUOTE))
    at = prompt.index('{"summary"')
    for text in (f"I am to end with {written} when all is done.", prompt[:at] + written):
        with pytest.raises(ParseError, match="repeat the prompt"):
            parse(text, prompt)
        assert parse(text).completed  # negative control: the prompt decides
    assert parse(f"I looked at it.\n\n{written}\n", prompt).completed


# -- the promise word ------------------------------------------------------------------------------

WORD = "PLAN_COMPLETE"


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        (WORD, True), (f"all done\n{WORD}\n", True), (f"x\r\n{WORD}\r\ny", True),
        (f"  {WORD}\t\n{{}}", True),
        (f"not {WORD}", False), (f"{WORD}.", False), (f"`{WORD}`", False), (f"X{WORD}", False),
        (f"{WORD}D\n", False),
        (WORD.lower(), False), ("", False), (f"{WORD} is not reached", False),
    ],
)  # fmt: skip
def test_the_word_counts_alone_on_its_line(text: str, claims: bool) -> None:
    assert promised(WORD, text, ControlBlock()) is claims


@pytest.mark.parametrize(
    ("summary", "claims"),
    [(WORD, True), (f" {WORD}\n", True), (f"{WORD}: all is done", False),
     (f"2 items open, {WORD} not reached yet", False), (f"MY_{WORD}", False), ("", False)],
)  # fmt: skip
def test_the_word_counts_as_the_whole_summary(summary: str, claims: bool) -> None:
    assert promised(WORD, "", ControlBlock(summary=summary)) is claims


@pytest.mark.parametrize("said", [False, "false", "no"])
def test_the_word_means_nothing_beside_a_plain_no(said: Any) -> None:
    text = changed(completed=said, summary=WORD)
    assert not promised(WORD, f"{WORD}\n{text}", parse(text))
    without = json.dumps({"summary": WORD, "next_goal": "x", "stop": False})
    assert promised(WORD, without, parse(without))


@pytest.mark.parametrize("more", [{}, {"next_goal": ""}, {"next_goal": "", "stop": False}])
def test_the_word_as_the_summary_needs_no_goal(more: dict[str, Any]) -> None:
    text = json.dumps({"summary": WORD, "reason": "all done"} | more)
    read = control_block.parse(text, "", WORD)
    assert isinstance(read, ControlBlock)
    assert promised(WORD, text, read)
    for other in (text.replace(WORD, "x"), text.replace("}", ', "completed": false}')):
        assert isinstance(control_block.parse(other, "", WORD), Unreadable)


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        (WORD, True), (f"All is done.\n\n  {WORD} \n\n", True),
        (f"All is done: {WORD}", False), (f"{WORD}\nNo, wait.", False),
        (f'{{"summary": "a "b"", "next_goal": "n"}}\n{WORD}', False),
        (f'{{"next_goal": "n", "stop": "perhaps"}}\n{WORD}', False),
    ],
)  # fmt: skip
def test_the_word_as_the_last_line_needs_no_block(text: str, claims: bool) -> None:
    read = control_block.parse(text, "", WORD)
    assert (isinstance(read, ControlBlock) and read.completed) is claims
    prompt = f"Do it. At the end print this word alone:\n{text}"
    assert isinstance(control_block.parse(prompt, prompt, WORD), Unreadable)
    assert isinstance(control_block.parse(text, prompt), Unreadable)


@pytest.mark.parametrize("field", ["next_goal", "reason", "evidence"])
def test_the_word_in_any_other_field_means_nothing(field: str) -> None:
    value: Any = [f"grep {WORD} TASK.md"] if field == "evidence" else f"write {WORD}"
    text = changed(**{field: value})
    assert not promised(WORD, text, parse(text))


def test_the_word_switched_off_means_nothing() -> None:
    assert not promised("", f"{WORD}\n\n", ControlBlock(summary=WORD))


def test_the_word_in_a_repeated_prompt_means_nothing() -> None:
    task = f"When all is finished print this word on a line of its own:\n{WORD}\n"
    prompt = prompts.build(prompts.PromptInputs(Role.EXECUTOR, 1, plan="p", task=task))
    assert not promised(WORD, f"user\n{prompt}\nworking\n", ControlBlock(), prompt)
    assert promised(WORD, f"user\n{prompt}\nworking\n{WORD}\n", ControlBlock(), prompt)


@pytest.mark.parametrize("word", ["a.c", "(x", "[done]", "ÄÖÜ", "two words", "\\d+"])
def test_any_word_is_taken_literally(word: str) -> None:
    assert promised(word, f"x\n{word}\n", ControlBlock())
    assert not promised(word, "abc\n5\n", ControlBlock())


# -- properties ------------------------------------------------------------------------------------

plain = st.text(st.characters(exclude_categories=("Cs",))).filter(
    lambda text: not re.fullmatch(r"\s*(\.{3,}|…+|<[^<>\n]+>)\s*", text)
)
noise = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from('{}[]":,\\\n STOP:COMPLETED_GOAL')
)
goals = plain.map(str.strip).filter(
    lambda t: t and t.casefold() not in {"none", "null", "n/a"} and len(t) < 9_000
)
blocks = st.fixed_dictionaries(
    {
        "summary": plain,
        "next_goal": goals,
        "stop": st.booleans(),
        "reason": plain,
        "evidence": st.lists(plain, max_size=5),
        "completed": st.booleans(),
    }
)


def expected(fields: dict[str, Any]) -> ControlBlock:
    return ControlBlock(
        summary=fields["summary"].strip(),
        next_goal=fields["next_goal"],
        stop=fields["stop"],
        reason=fields["reason"].strip(),
        evidence=tuple(text.strip() for text in fields["evidence"] if text.strip()),
        completed=fields["completed"],
    )


@given(st.one_of(noise, st.text()), st.one_of(st.just(""), noise))
@example("NEXT_GOAL:\nSTOP:", "")
@example('{"stop": 1e999, "summary": NaN}', "")
@example('{"stop": ' + "9" * 5_000 + ', "summary": 1}', "")
def test_nothing_but_a_parse_error_ever_comes_out(text: str, prompt: str) -> None:
    try:
        assert isinstance(parse(text, prompt), ControlBlock)
    except ParseError:
        pass
    promised("DONE", text, ControlBlock(summary=text), prompt)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_any_json_in_any_field_is_an_answer_or_a_parse_error(fields: dict[str, Any]) -> None:
    try:
        block = parse(json.dumps(fields))
    except ParseError:
        return
    json.dumps(block.to_json(), ensure_ascii=False).encode()
    assert block.stop or block.completed or block.next_goal


@given(blocks, noise, st.sampled_from([None, 2]), st.booleans())
def test_a_block_after_any_noise_is_found_exactly(
    fields: dict[str, Any], before: str, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(fields, indent=indent, ensure_ascii=ascii_only)
    assert parse(before + "\n" + text) == expected(fields)


@given(blocks, st.text(st.characters(exclude_characters="{:", exclude_categories=("Cs",))))
def test_a_block_before_any_noise_without_blocks_is_found(
    fields: dict[str, Any], after: str
) -> None:
    assert parse(json.dumps(fields) + "\n" + after) == expected(fields)


@given(blocks)
def test_a_block_survives_its_own_json(fields: dict[str, Any]) -> None:
    block = parse(json.dumps(fields))
    assert parse(json.dumps(block.to_json())) == block
    assert from_json(ControlBlock, block.to_json()) == block


words = st.text(st.sampled_from("abc äöü.,;-()"), min_size=1).map(str.strip).filter(
    lambda text: len(text) > 1 and text.strip("-. ") != ""
)  # fmt: skip


@given(words, words, words, st.booleans(),
       st.permutations(["NEXT_GOAL", "STOP", "SUMMARY", "REASON", "COMPLETED"]),
    st.sampled_from(["\n", "\r\n", " "]))  # fmt: skip
def test_labelled_blocks_round_trip_in_any_order(
    goal: str, summary: str, reason: str, stop: bool, order: list[str], separator: str
) -> None:
    values = {
        "NEXT_GOAL": goal,
        "SUMMARY": summary,
        "REASON": reason,
        "STOP": str(stop),
        "COMPLETED": "no",
    }
    block = parse(separator.join(f"{label}: {values[label]}" for label in order))
    assert (block.next_goal, block.summary, block.reason, block.stop) == (
        goal,
        summary,
        reason,
        stop,
    )


SHORT = "NEXT_GOAL: go on\nSTOP: false\nSUMMARY: did it"


@pytest.mark.parametrize(
    ("answer", "notes"),
    [
        (json.dumps({"next_goal": "x", "stop": False, "notes": ["a", " b "]}), ("a", "b")),
        (json.dumps({"next_goal": "x", "stop": False, "notes": "- a\n- b"}), ("a", "b")),
        (json.dumps({"next_goal": "x", "stop": False, "notes": None}), ()),
        (json.dumps({"next_goal": "x", "stop": False}), ()),
        (json.dumps({"next_goal": "x", "stop": False, "notes": [["a"], 7, ""]}), ("a", "7")),
        (f"{SHORT}\nNOTES:\n- a\n- b", ("a", "b")),
        (f"{SHORT}\nNOTES: none", ()),
        (f"NOTES: prose before\n\nNOTES: a\n{SHORT}", ("a",)),
        (f"NOTES: prose before\n\n{SHORT.replace('STOP', 'NOTES: a' + chr(10) + 'STOP')}", ("a",)),
    ],
)
def test_notes_are_read_in_every_form_and_need_not_be_there(
    answer: str, notes: tuple[str, ...]
) -> None:
    block = parse(answer)
    assert (block.notes, bool(block.next_goal)) == (notes, True)


def test_notes_are_bounded_and_alone_make_no_block() -> None:
    many = [f"note {number}" for number in range(500)]
    assert parse(json.dumps({"next_goal": "x", "stop": False, "notes": many})).notes == tuple(
        many[: control_block.PROPOSED]
    )
    with pytest.raises(ParseError):
        parse(json.dumps({"notes": ["a"], "summary": "s"}))
    assert parse(f"{SHORT}\n\n{json.dumps({'notes': ['a'], 'name': 'x'})}").notes == ()
