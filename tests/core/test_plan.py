"""The plan parser: what is an item, what belongs to it, and that ticking touches nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codex_self_iter.core.plan import (
    MAX_DROPPED,
    content_hash,
    dropped,
    find_again,
    followed,
    overwritten,
    parse_plan,
    plan_progress,
    read_plan,
    tick,
    ticks,
)
from codex_self_iter.supervisor.documents import Document

PIECES = st.sampled_from(
    [
        "- [ ] a", "- [x] b", "* [X] c", "+ [\t] d", "12. [ ] e", "3) [x] f", "  - [ ] nested",
        "\t- [ ] tab",
        "- [ ]", "- [] g", "- [x](link)", "- plain", "# heading", "---", "text", "", "   ",
        "```sh", "```",
        "  ```bash", "~~~", "~~~~ console", "````", "$ echo hi", "<!--", "-->", "> - [ ] quoted",
        "    - [ ] code", "é\u2028ü\x0b",
    ]
)  # fmt: skip
ENDS = st.sampled_from(["\n", "\r\n", "\r"])
PLANS = st.one_of(
    st.text(),
    st.lists(st.tuples(PIECES, ENDS)).map(lambda lines: "".join(line + end for line, end in lines)),
)


def titles(text: str) -> list[str]:
    return [item.text for item in parse_plan(text).items]


@pytest.mark.parametrize(
    "line",
    [
        "- [ ] a",
        "* [ ] a",
        "+ [ ] a",
        "1. [ ] a",
        "99) [ ] a",
        "  - [ ] a",
        "-   [ ]   a  ",
        "- [\t] a",
        "- [ ] a\r",
    ],
)
def test_every_list_marker_makes_an_item(line: str) -> None:
    (item,) = parse_plan(line).items
    assert (item.text, item.ticked, item.line) == ("a", False, 1)


@pytest.mark.parametrize("line", ["- [x] a", "* [X] a", "7. [x] a"])
def test_both_letters_are_ticks(line: str) -> None:
    assert parse_plan(line).items[0].ticked


@pytest.mark.parametrize(
    "line",
    [
        "[ ] a",
        "- [ ]a",
        "- []  a",
        "- [x](page)",
        "-[ ] a",
        "- [ ]",
        "- [y] a",
        "- [~] a",
        "- [2026-01-29] a",
        "> - [ ] a",
        "text - [ ] a",
    ],
)
def test_what_only_looks_like_an_item_is_none(line: str) -> None:
    assert titles(line) == []


def test_items_in_fences_comments_and_code_are_not_counted() -> None:
    text = """\
```md
- [ ] fenced
```
~~~~
- [ ] longer fence
~~~
- [ ] still inside
~~~~
<!-- a note
- [ ] commented out
-->
<!-- - [ ] one line -->

    - [ ] an indented code block

- [ ] real
    - [ ] nested by four
"""
    assert titles(text) == ["real", "nested by four"]


def test_line_numbers_are_an_editors() -> None:
    plan = parse_plan("\ufeff- [ ] a\r\n\x0b\u2028\r\n\n- [x] b")
    assert [(item.text, item.line) for item in plan.items] == [("a", 1), ("b", 4)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_end_of_a_line_ends_one(end: str) -> None:
    """Also a carriage return alone, as some editors write it: else the whole plan were one line."""
    text = end.join(
        ["# Plan", "", "- [x] a", "  check: one", "- [ ] b", "  ```sh", "  two", "  ```", ""]
    )
    plan = parse_plan(text)
    assert [(item.text, item.line) for item in plan.items] == [("a", 3), ("b", 5)]
    assert plan.items[0].checks == ("one",)
    assert [block.commands for block in plan.items[1].blocks] == ["two\n"]
    assert tick(text, plan.items[1]) == text.replace("[ ]", "[x]")


def test_progress_counts_and_names_the_last_ticked() -> None:
    assert plan_progress("- [x] a\n- [ ] b\n- [X] c\n") == (2, 3, "c")
    assert plan_progress("nothing") == (0, 0, None)


def test_blocks_belong_to_the_item_above_indented_or_not() -> None:
    text = """\
- [ ] one
  with prose

  ```sh
  cat <<END
    kept
  END
  ```
```bash
two
```
  - plain, nested
    ```python
    not shell
    ```
- [ ] two
  ~~~console
  $ echo a \\
  > b
  a b
  $ echo c
  ~~~

# heading

```sh
nobody's
```
"""
    one, two = parse_plan(text).items
    assert [(b.shell, b.script, b.line) for b in one.blocks] == [
        ("sh", "cat <<END\n  kept\nEND\n", 4),
        ("bash", "two\n", 9),
    ]
    assert [b.commands for b in two.blocks] == ["echo a \\\nb\necho c\n"]


@pytest.mark.parametrize(
    "end", ["# Next", "Next\n====", "Next\n----", "***", "- plain", "- [ ] other"]
)
def test_a_block_after_the_items_end_is_not_its(end: str) -> None:
    item = parse_plan(f"- [ ] a\n\n{end}\n\n```sh\nrm everything\n```\n").items[0]
    assert item.blocks == ()


def test_an_unclosed_fence_is_marked() -> None:
    (item,) = parse_plan("- [ ] a\n```sh\nls\n- [ ] swallowed\n").items
    assert [block.closed for block in item.blocks] == [False]


@pytest.mark.parametrize("body", ["", "# only a comment\n", "\n \n"])
def test_a_block_without_commands_is_nothing_to_run(body: str) -> None:
    (item,) = parse_plan(f"- [ ] a\n```sh\n{body}```\n").items
    assert item.blocks
    assert item.runnable == ()


def test_a_console_block_without_prompts_is_output_only() -> None:
    (item,) = parse_plan("- [ ] a\n```console\nrm everything\n```\n").items
    assert item.runnable == ()


def test_children_come_before_a_parent_without_commands() -> None:
    text = "- [ ] parent\n  - [x] a\n  - [ ] b\n    - [ ] deep\n- [ ] next\n"
    plan = parse_plan(text)
    assert [child.text for child in plan.children(plan.items[0])] == ["a", "b", "deep"]
    order = []
    while item := parse_plan(text).next_open():
        order.append(item.text)
        text = tick(text, item)
    assert order == ["deep", "b", "parent", "next"]


def test_a_parent_with_commands_comes_first() -> None:
    plan = parse_plan("- [ ] parent\n  ```sh\n  ls\n  ```\n  - [ ] child\n")
    item = plan.next_open()
    assert item is not None
    assert item.text == "parent"


def test_ticking_an_edited_plan_is_refused() -> None:
    item = parse_plan("- [ ] a\n").items[0]
    with pytest.raises(ValueError, match="line 1"):
        tick("completely new\n", item)


def test_an_item_is_found_again_after_an_edit() -> None:
    old = parse_plan("- [x] same\n- [ ] same\n")
    new = parse_plan("new\n\n\n\n- [x] same\n- [ ] same\n")
    assert find_again(old, old.items[1], new) == new.items[1]
    assert find_again(old, old.items[1], parse_plan("- [ ] other\n")) is None
    assert find_again(old, old.items[1], parse_plan("- [ ] same\n")) is not None


def test_the_hash_follows_the_content() -> None:
    assert content_hash("a") == content_hash("a") != content_hash("a\r")
    assert len(content_hash("\udcff")) == 16


@given(PLANS)
@example("\ufeff- [ ] a\r\n")
def test_ticking_changes_exactly_one_byte(text: str) -> None:
    plan = parse_plan(text)
    for item in plan.items:
        before = text.encode("utf-8", "surrogatepass")
        after = tick(text, item).encode("utf-8", "surrogatepass")
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert len(changed) == (0 if item.ticked else 1)
        assert all(b == ord("x") for _, b in changed)
        again = parse_plan(tick(text, item))
        assert again.done == plan.done + (not item.ticked)
        assert [other.text for other in again.items] == [other.text for other in plan.items]


@given(PLANS)
def test_working_through_a_plan_ends_with_every_item_ticked(text: str) -> None:
    total = parse_plan(text).total
    for _ in range(total):
        item = parse_plan(text).next_open()
        if item is None:
            break
        text = tick(text, item)
    assert plan_progress(text)[:2] == (total, total)


def test_reading_a_plan_needs_no_heavy_import() -> None:
    code = "import sys; import codex_self_iter.core.plan; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"dataclasses", "inspect", "asyncio", "hashlib"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "piece",
    [
        "\n",
        " \n",
        "a\n",
        "- [ ] x\n",
        "```sh\n```\n",
        "- - - x\n",
        "`" * 5000,
        "<!--\n",
        "- [ ] x\n  check: y\n",
        "     - [ ] x\n  - [ ] y\n   check: z\n",
    ],
)
def test_no_plan_takes_long_to_read_or_to_compare(piece: str) -> None:
    """A loop reads its plan where it hears signals; 16,000 blank lines took it eight seconds."""
    text = piece * (4 * 1024 * 1024 // len(piece))
    plan = Document("plan", "/nowhere", required=True, aside="")
    began = time.thread_time()
    plan_progress(text)
    assert not plan._edit(text, f"{text[:-2]}zz").ticks_only
    assert plan._patience(text, "") > 0
    assert time.thread_time() - began < 4.0  # below 0.3 s on an idle machine, each


def test_ticks_are_told_from_other_edits() -> None:
    plan = Document("plan", "/nowhere", required=True, aside="")
    old = "# Plan\n\n- [ ] one\n  2) [x] two\n- [ ](link)\n"
    assert plan._edit(old, old.replace("[ ] one", "[x] one")).ticks_only
    assert plan._edit(old, old.replace("[x] two", "[ ] two")).ticks_only
    assert not plan._edit(old, old.replace("one", "two")).ticks_only
    assert not plan._edit(old, old + "- [ ] three\n").ticks_only


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("- [ ] a\n- [ ] b", "- [x] a\n- [ ] b", 1),
        ("- [ ] a\n- [ ] b", "- [x] a\n- [X] b", 2),
        ("- [x] a\n- [ ] b", "- [ ] a\n- [ ] b", -1),
        ("- [x] a\n- [ ] b", "- [ ] a\n- [x] b", 0),
        ("- [ ] a", "- [ ] a\n- [x] added as done", 0),
        ("- [ ] a", "- [x] a\n- [ ] found on the way", 1),
        ("- [ ] a\n- [ ] b", "- [x] a (done, see b.py)\n- [ ] b", 1),
        ("- [ ] a\n- [ ] a", "- [x] a\n- [ ] a", 1),
        ("- [x] a\n- [ ] b", "- [ ] b", 0),
        ("- [ ] a", "", 0),
        ("", "- [ ] a", 0),
        ("- [ ] a", "- [ ] a", 0),
    ],
)
def test_what_was_ticked_between_two_texts(before: str, after: str, expected: int) -> None:
    assert ticks(before, after) == expected


@pytest.mark.parametrize(
    ("known", "before", "after", "expected"),
    [
        ("", "- [ ] a\n- [ ] b", "- [x] a", ["b"]),
        ("", "- [ ] a\n- [ ] b", "", ["a", "b"]),
        ("", "- [ ] a\n- [x] b", "- [x] a", []),  # done ones may be tidied up
        ("", "- [ ] write tests", "- [ ] write tests of a\n- [ ] write tests of b", []),
        ("", "- [ ] a", "- [x] a, as b", []),
        (
            "",
            "- [ ] fix the parser\n- [ ] write the docs",
            "- [x] write all docs",
            ["fix the parser"],
        ),
        ("", "- [ ] a\n- [ ] a", "- [x] a", ["a"]),
        ("b", "- [ ] a", "- [x] a", ["b"]),
        ("b", "- [x] a", "- [x] a\n- [x] b", []),
        ("b", "- [ ] a", "- [x] b", ["a"]),  # what is put back is no item in the place of another
    ],
)
def test_what_was_taken_out_between_two_texts(
    known: str, before: str, after: str, expected: list[str]
) -> None:
    assert list(dropped(known.split(), before, after)) == expected


@pytest.mark.parametrize(
    ("texts", "lost"),
    [
        (["- [ ] a", "- [ ] a\n- [ ] new", "- [x] a"], ["new"]),
        (["- [ ] a", "- [ ] a\n- [ ] new", "- [x] a\n- [ ] the agent's own"], ["new"]),
        (["- [ ] a", "- [ ] a\n- [ ] new", "- [x] a", "- [x] a\n- [x] new"], []),  # back
        (["- [ ] a", "- [ ] a\n- [ ] write docs", "- [x] a\n- [ ] write the docs"], []),
        (["- [ ] a", "- [ ] a (in progress)", "- [x] a"], []),  # no new item, only another word
        (["- [ ] a\n- [ ] b", "- [ ] a", "- [ ] c"], []),  # `dropped` sees to these
        (["", "- [ ] a\n- [ ] b", "- [ ] c"], ["a", "b"]),
    ],
)
def test_what_came_in_between_and_was_overwritten(texts: list[str], lost: list[str]) -> None:
    seen: tuple[str, ...] = ()
    for old, new in itertools.pairwise(texts):
        seen = followed(seen, old, new)
    assert list(overwritten(seen, texts[0], texts[-1])) == lost


def test_no_rewritten_plan_takes_long_to_compare() -> None:
    old = "".join(f"- [ ] {n} fix\n" for n in range(20_000))
    new = "".join(f"- [ ] fix {n} anew\n" for n in range(10_000))
    began = time.thread_time()
    assert len(dropped((), old, new)) == MAX_DROPPED
    assert len(followed(map(str, range(MAX_DROPPED)), new, old)) == MAX_DROPPED
    assert time.thread_time() - began < 4.0


@pytest.mark.parametrize(
    ("line", "title", "checks"),
    [
        ("a; check: make test", "a", ("make test",)),
        ("a, check: make", "a", ("make",)),
        ("Do a. check: make", "Do a", ("make",)),
        ("a — check: `pytest -q` passes", "a", ("pytest -q",)),
        ("a - check: make -C x", "a", ("make -C x",)),
        ("a check: `x` and `y z`", "a", ("x", "y z")),
        ("a (check: test -n \"$(ls)\") (after: 1)", "a", ('test -n "$(ls)"',)),
        ("a (check: make) and b", "a and b", ("make",)),
        ("a (after: 2, 3); check: make", "a", ("make",)),
        ("Spell check: the README", "Spell check: the README", ()),
        ("a spell-check: the README", "a spell-check: the README", ()),
        ("a. Check: it is good", "a. Check: it is good", ()),
        ("a; check:", "a; check:", ()),
        ("a; check: make\0", "a", ()),
        ("a (check: make", "a", ("make",)),
        ("check: make", "check: make", ()),
    ],
)  # fmt: skip
def test_a_check_in_the_line_of_an_item(line: str, title: str, checks: tuple[str, ...]) -> None:
    (item,) = parse_plan(f"- [ ] {line}\n").items
    assert (item.text, item.title, item.checks) == (line, title, checks)


def checks(text: str) -> list[tuple[str, ...]]:
    return [item.checks for item in parse_plan(text).items]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- [ ] a\n  check: make", [("make",)]),
        ("- [ ] a\n  - check: `make`", [("make",)]),
        ("- [ ] a\n\n  words\n  check: make\n  check: make test", [("make", "make test")]),
        ("- [ ] a; check: one\n  check: two\r\n", [("one", "two")]),
        ("- [ ] a\n  - [ ] b\n    check: of b\n  check: of a", [("of a",), ("of b",)]),
        ("- [ ] a\n  - plain\n    check: of a", [("of a",)]),
        ("- [ ] a\ncheck: of nothing", [()]),
        ("- [ ] a\n- plain\n  check: of the plain line", [()]),
        ("- [ ] a\n# b\n  check: below a heading", [()]),
        ("- [ ] a\n\nwords\n  check: below a paragraph", [()]),
        ("- [ ] a\n  ```\n  check: in a fence\n  ```", [()]),
        ("- [ ] a\n  <!--\n  check: in a comment\n  -->", [()]),
        ("- [ ] a\n  check:\n  Check: prose", [()]),
    ],
)
def test_a_check_below_an_item(text: str, expected: list[tuple[str, ...]]) -> None:
    assert checks(text) == expected


def test_items_of_the_top_level_have_numbers() -> None:
    plan = parse_plan("  - [ ] a\n- [ ] b (after: 1, x)\n  - [ ] c\n    - [ ] d\n- [ ] e")
    assert plan.numbers() == (1, 2, 2, 2, 3)
    assert [item.after for item in plan.items] == [(), ("1", "x"), (), (), ()]
    assert parse_plan("").numbers() == ()


def test_what_is_no_item_is_told_apart() -> None:
    found = read_plan("# Plan\n- [ ] a\n  check: b\n- [] c\n\n```\n- [] d\n```\nwords\n<!-- e\nf")
    assert found.loose == {4: "- [] c", 9: "words"}
    assert found.unclosed == 10
    assert read_plan("```\n- [ ] a").unclosed == 1
    assert read_plan("```\n```\n<!-- -->\n").unclosed == 0
