"""What is said of a plan: every rule with what it finds and with what is like it and is fine."""

from __future__ import annotations

import time

import pytest
from hypothesis import given

from codex_self_iter.core.plan import newlines
from codex_self_iter.core.plan_lint import LONG, PLAN, lint
from tests.core.test_plan import PLANS


def found(text: str, *, gates: bool = True) -> list[tuple[int, str]]:
    """(line, rule) of every finding but those of items without a check."""
    return [(one.line, one.rule) for one in lint(text, gates=gates) if one.rule != "no-check"]


def test_a_good_plan_has_no_finding() -> None:
    text = "# Plan\n\n- [x] done, and done, and done\n- [ ] one (after: 1)\n  check: make test\n"
    assert lint(text) == []


@pytest.mark.parametrize(
    "line",
    [
        "- []", "- [] a", "- [X ] a", "- [ x] a", "-[ ] a", "-[x] a", "- [ ]a", "- [x]a", "- [ ]", "- [x]",
        "- [v] a", "- [✓] a", "- [-] a", "- [\u00a0] a", "[ ] a", "[x] a", "• [ ] a", "\u2013 [ ] a",
        "- ☐ a", "- ( ) a", "1.[ ] a", "2) [] a",
    ],
)  # fmt: skip
def test_a_box_that_is_no_item_is_a_fault(line: str) -> None:
    assert found(f"- [ ] good\n{line}\n") == [(2, "not-an-item")]
    assert all(one.fault for one in lint(f"- [x] good\n{line}\n", gates=True))


@pytest.mark.parametrize(
    "line", ["-\u00a0[ ] b", "\u00a0 - [ ] b", "- [\u00a0] b", "- [ ]\u00a0b", "-\u3000[ ] b"]
)
def test_a_blank_that_is_no_plain_one_is_named(line: str) -> None:
    """Pasted from a page or a text document it looks like every other."""
    (remark,) = (one for one in lint(f"- [ ] good\n{line}\n") if one.fault)
    odd = "U+3000" if "\u3000" in line else "U+00A0"
    assert remark[:4] == (
        2, "not-an-item", True, f"this is not read as an item: a blank in it is no plain one ({odd})"
    )  # fmt: skip


def test_an_indent_of_tabs_and_blanks_is_found_whatever_ends_the_lines() -> None:
    text = "- [ ] a\n  - [ ] b\n\t- [ ] c\n"
    assert found(text.replace("\n", "\r")) == found(text) == [(3, "tabs")]


@pytest.mark.parametrize(
    "line",
    [
        "- [x](page)", "- [x][ref]", "[x]: https://there", "- [link](page)", "- [a] a", "- [1] note",
        "words [ ] a", "- words", "[ ]", "(x) a", "[x]", "- (c) note", "* * *", "> - [ ] quoted",
    ],
)  # fmt: skip
def test_a_link_and_a_word_in_brackets_are_no_boxes(line: str) -> None:
    assert found(f"- [ ] good\n{line}\n") == []


def test_an_item_that_is_indented_like_code_is_a_fault() -> None:
    assert found("- [ ] good\n\nwords\n\n    - [ ] code\n") == [(5, "not-an-item")]
    assert found("- [ ] good\n\n```\n    - [] code\n```\n") == []


@pytest.mark.parametrize(
    ("text", "line"),
    [("- [ ] a\n```sh\n- [ ] b", 2), ("- [ ] a\n\n<!-- b\n- [ ] c", 3), ("- [ ] a\n~~~\n```", 2)],
)
def test_what_nothing_closes_is_a_fault(text: str, line: int) -> None:
    assert found(text) == [(line, "unclosed")]


def test_tabs_beside_blanks_are_a_fault() -> None:
    assert found("- [ ] a\n  - [ ] b\n\t- [ ] c") == [(3, "tabs")]
    assert found("- [ ] a\n\t- [ ] b\n\t\t- [ ] c") == []


def test_a_check_of_no_item_is_a_fault() -> None:
    assert found("check: a\n- [ ] a\n  check:\ncheck: b\n  Check: prose") == [
        (1, "stray-check"), (3, "stray-check"), (4, "stray-check"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- [ ] a (after: 2)\n- [ ] b", []),
        ("- [ ] a (after: 3)\n- [ ] b", [1]),
        ("- [ ] a (after: 0)\n- [ ] b (after: b)", [1, 2]),
        ("- [ ] a (after: 1)", [1]),
        ("- [ ] a (after: 2)\n- [ ] b (after: 1)", [1]),
        ("- [ ] a\n- [ ] b (after: 3)\n- [ ] c (after: 4, 1)\n- [ ] d (after: 2)", [2]),
        ("- [ ] a\n- [ ] b (after: 1)\n- [ ] c (after: 1, 2)", []),
        ("- [ ] a\n  - [ ] b (after: 1)", [1]),
        ("- [ ] a\n  - [ ] b (after: 2)\n- [ ] c (after: 1)", [1]),
        ("- [ ] a (after: 3)\n- [ ] b (after: 3)\n- [ ] c (after: 2)", [2]),
    ],
)
def test_an_order_that_cannot_be_kept_is_a_fault(text: str, expected: list[int]) -> None:
    assert found(text) == [(line, "after") for line in expected]


def test_a_circle_is_told_item_by_item() -> None:
    (one,) = lint("- [x] a (after: 2)\n- [x] b (after: 3)\n- [x] c (after: 1)", gates=True)
    assert one.what == (
        "item 1 can never begin: it waits for item 2, which waits for item 3, which waits for item 1"
    )


@pytest.mark.parametrize("text", ["", " \n", "# Plan\n\nwords\n"])
def test_an_empty_plan_is_a_fault(text: str) -> None:
    assert [(one.line, one.rule, one.fault) for one in lint(text)] == [(1, "empty", True)]


def test_what_init_wrote_is_a_fault_and_one_item_of_it_a_suggestion() -> None:
    (one,) = lint(PLAN)
    assert (one.rule, one.fault) == ("placeholder", True)
    (left,) = (
        one for one in lint(PLAN + "- [ ] my own\n") if one.line == 6 and one.rule == "placeholder"
    )
    assert not left.fault


@pytest.mark.parametrize(
    ("item", "large"),
    [
        ("Write the parser and its tests", False),
        ("Write the parser and its tests and the page", True),
        ("Write one. Write two.", False),
        ("Write one. Write two. Write three.", True),
        ("Write one; write two; write three", True),
        ("Write e.g. a, i.e. b", False),
        ("Write `a and b and c. D. E`", False),
        ("a" * LONG, False),
        ("a" * (LONG + 1), True),
        ("a" * LONG + f"; check: {'b' * LONG}", False),
        ("Write a and\n  b and c", True),
        ("Write a and\n\n  b and c", False),
        ("Write a and\n  - b and c", False),
        ("Write a and b and c\n  - [ ] a", False),
    ],
)  # fmt: skip
def test_an_item_that_is_too_large_is_a_suggestion(item: str, large: bool) -> None:
    assert (found(f"- [ ] {item}\n") == [(1, "too-large")]) is large
    assert (found(f"- [x] {item}\n")) == []


def unchecked(text: str) -> list[int]:
    return [one.line for one in lint(text, gates=True) if one.rule == "no-check"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- [ ] a", [1]),
        ("- [x] a", []),
        ("- [ ] a; check: make", []),
        ("- [ ] a\n  check: make", []),
        ("- [ ] a\n  ```sh\n  make\n  ```", []),
        ("- [ ] a\n  ```\n  text\n  ```", [1]),
        ("- [ ] a\n  - [ ] b\n  - [ ] c\n    check: make", [2]),
        ("- [ ] a\n  - [ ] b\n  check: make", []),
        ("- [ ] a; check: true", [1]),
        ("- [ ] a; check: make || true", [1]),
    ],
)
def test_an_item_without_a_check_is_a_suggestion(text: str, expected: list[int]) -> None:
    assert unchecked(text) == expected


def test_the_same_item_twice_is_a_suggestion() -> None:
    assert found("- [ ] Write  it.\n- [ ] write it") == [(2, "duplicate")]
    assert found("- [ ] a\n  - [ ] tests\n- [ ] b\n  - [ ] tests") == []
    assert found("- [ ] a\n- [x] a") == []
    assert found("- [x] a\n- [ ] a") == [(2, "duplicate")]


def test_nothing_to_verify_is_a_suggestion() -> None:
    assert found("- [ ] a", gates=False) == [(1, "nothing-to-verify")]
    assert found("- [ ] a", gates=True) == []
    assert found("- [ ] a\n- [x] b; check: make", gates=False) == []


@given(PLANS)
def test_no_text_is_too_strange(text: str) -> None:
    lines = newlines(text).count("\n") + 1
    assert all(1 <= one.line <= lines and one.what and one.mend for one in lint(text))


@pytest.mark.parametrize(
    "piece",
    [
        "\n", "- [ ] a (after: 1, 2)\n", "- [ ] a; check: (\n  check: b\n", "check: `", "- [ ] a\nb and c. D\n",
        "- [ ] (after: 1)", "- [] a\n", "- [ ] a     ", "; ", "- [ ] a (check: ", "- [ ] a\n \t- [ ] b\n",
    ],
)  # fmt: skip
def test_no_plan_takes_long(piece: str) -> None:
    text = "- [ ] " + piece * (512 * 1024 // len(piece))
    began = time.thread_time()
    lint(text)
    assert time.thread_time() - began < 4.0  # below 0.5 s on an idle machine, each


def test_what_is_not_read_is_a_fault() -> None:
    assert found("- [ ] a\n" + "\n" * 50_000) == [(50_000, "too-long")]
    assert found("- [ ] a\n" + "\n" * 49_999) == []
