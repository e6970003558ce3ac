"""The items of a plan as lanes take them."""

from __future__ import annotations

import time

import pytest

from codex_self_iter.core.lane_items import LaneItem, items, open_boxes, ticked
from codex_self_iter.core.plan import parse_plan

NESTED = """# Plan

Some words.

- [ ] Parse
  - [x] words
  - [ ] numbers

  More about it.
- [x] Print (after: 1)
1. [ ] Count (after: 1, 2); check: `make count`
   check: make more

## Later

- [ ] Ship (after: 3)
"""


def one(text: str) -> LaneItem:
    """The only item of a plan."""
    (found,) = items(text)
    return found


def bodies(text: str) -> list[str]:
    return [found.body for found in items(text)]


def test_an_item_is_a_checkbox_of_the_top_level_with_all_below_it() -> None:
    parse, print_, count, ship = items(NESTED)
    assert [x.number for x in items(NESTED)] == [1, 2, 3, 4]
    assert parse.body == ("- [ ] Parse\n  - [x] words\n  - [ ] numbers\n\n  More about it.")
    assert (print_.done, print_.after, print_.title) == (True, (1,), "Print")
    assert (count.title, count.after) == ("Count", (1, 2))
    assert count.body.endswith("check: make more")
    assert (ship.key, ship.body, ship.after) == ("Ship", "- [ ] Ship (after: 3)", (3,))


@pytest.mark.parametrize(
    ("after", "found"),
    [
        ("2, 3", (2, 3)),
        ("3,2 2", (3, 2)),
        ("1", (1,)),
        ("9", ()),
        ("0, -1, x, 1.5, \uff12", ()),
        ("9" * 5000, ()),
        ("", ()),
    ],
)
def test_it_waits_for_the_items_that_are_there(after: str, found: tuple[int, ...]) -> None:
    text = f"- [ ] A (after: {after})\n- [ ] B\n- [ ] C\n"
    assert items(text)[0].after == found


def test_the_same_words_have_keys_of_their_own() -> None:
    text = "- [ ] A\n- [ ] A\n- [ ] A (2)\n- [ ] A\n- [ ]   A\n"
    keys = [found.key for found in items(text)]
    assert keys == ["A", "A (2)", "A (2) (2)", "A (3)", "A (4)"]
    assert [found.title for found in items(text)] == ["A", "A", "A (2)", "A", "A"]


def test_a_long_title_is_cut_and_has_a_key_of_its_own() -> None:
    text = f"- [ ] {'x' * 5000} a\n- [ ] {'x' * 5000} b\n"
    first, second = items(text)
    assert len(first.key) == 300
    assert second.key == f"{first.key} (2)"


def test_an_item_is_done_when_all_below_it_is() -> None:
    assert not one("- [x] A\n  - [ ] b\n").done
    assert one("- [x] A\n  - [x] b\n").done
    assert not one("- [ ] A\n  - [x] b\n").done


@pytest.mark.parametrize(
    ("below", "kept"),
    [
        ("  text\n\n## Next\n", "\n  text"),
        ("\nNext\n====\n", ""),
        ("\nNext\n----\n", ""),
        ("\n---\n", ""),
        ("  - list\n---\n", "\n  - list"),
        ("#no heading\n", "\n#no heading"),
        ("```sh\n# comment\n```\n", "\n```sh\n# comment\n```"),
        ("````\n```\n# text\n````\n# Next\n", "\n````\n```\n# text\n````"),
        ("<!-- a\n# b\n-->\n# Next\n", "\n<!-- a\n# b\n-->"),
        ("  ~~~\n# never closed\n", "\n  ~~~\n# never closed"),
        ("\n\n\n", ""),
    ],
)
def test_an_item_ends_at_the_next_heading_or_ruler(below: str, kept: str) -> None:
    assert one(f"- [ ] A\n{below}").body == f"- [ ] A{kept}"


def test_only_a_newline_ends_a_line() -> None:
    odd = "a\fb\vc\x1cd\x85e\u2028f"
    text = f"Before: {odd}\n- [ ] A {odd}\n- [ ] B\n"
    assert bodies(text) == [f"- [ ] A {odd}", "- [ ] B"]


def test_line_ends_and_a_mark_at_the_beginning_are_no_words() -> None:
    text = "\ufeff- [ ] A\r\n  more\r\n- [x] B\r\n"
    assert bodies(text) == ["- [ ] A\n  more", "- [x] B"]
    assert ticked(text, ["A"]) == "\ufeff- [x] A\r\n  more\r\n- [x] B\r\n"


@pytest.mark.parametrize("text", ["", "\n", "# Plan\n", "- A\n", "```\n- [ ] A\n```\n", "- [ ]\n"])
def test_a_plan_may_have_no_items(text: str) -> None:
    assert items(text) == ()
    assert ticked(text, ["A"]) == text


def test_exactly_the_chosen_marks_are_ticked() -> None:
    text = NESTED.replace("Ship", "Parse")
    new = ticked(text, ["Parse (2)", "Count", "not there"])
    changed = [at for at, (a, b) in enumerate(zip(text, new, strict=True)) if a != b]
    marks = [found.mark for found in parse_plan(text).items]
    assert changed == [marks[4], marks[5]]
    assert all(new[at] == "x" for at in changed)
    new = ticked(text, ["Parse"])
    changed = [at for at, (a, b) in enumerate(zip(text, new, strict=True)) if a != b]
    assert changed == [marks[0], marks[2]], "with what is below, and nothing twice"
    assert not open_boxes(new, ["Parse"])
    assert ticked(new, ["Parse"]) == new


def test_what_is_ticked_is_done() -> None:
    keys = [found.key for found in items(NESTED)]
    assert all(found.done for found in items(ticked(NESTED, keys)))
    assert [found.key for found in items(ticked(NESTED, keys))] == keys


def seconds(count: int, line: str) -> float:
    """How long reading and ticking takes, the best of three."""
    text = "".join(line.format(n) for n in range(count))
    keys = [found.key for found in items(text)]
    assert len(set(keys)) == count
    best = 9e9
    for _ in range(3):
        began = time.process_time()
        ticked(text, keys)
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize("line", ["- [ ] Item {}\n  - [ ] below\n", "- [ ] Same\n"])
def test_a_thousand_items_take_bounded_time(line: str) -> None:
    small, large = seconds(250, line), seconds(1000, line)
    print(f"250: {small:.4f} s, 1000: {large:.4f} s, ratio {large / small:.1f}")
    assert large < 20
