"""Words that wait: kept once, bounded, tried again, given up."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.mailbox import (
    DAY_SEC,
    FIRST_SEC,
    GIVE_UP_SEC,
    KNOWN,
    LONGEST_SEC,
    MOST,
    Mailbox,
    Notice,
    added,
    digest_due,
    due,
    held,
    key_of,
    patience,
    settled,
    without,
)
from codex_self_iter.core.state import plain
from codex_self_iter.world.state.codec import from_json

NOW = 1_893_456_000.0


def word(number: int = 1, at: float = NOW) -> Notice:
    return Notice(f"k{number}", "blocked", "t", at, "app", "/w", "/w/.s", "blocked", at, number)


def test_a_word_is_kept_once_and_sent_to_each() -> None:
    box = added(Mailbox(), word(), ["a", "b"])
    assert added(box, word(), ["a", "b"]) is box
    assert patience(box, NOW) == 0
    box, over = settled(box, ["k1"], "a", "", NOW)
    assert over == ()
    assert [len(due(box, name, NOW)) for name in "ab"] == [0, 1]
    box, (entry,) = settled(box, ["k1"], "b", "", NOW)
    assert entry.outcomes == {"a": "sent", "b": "sent"}
    assert patience(box, NOW) is None
    assert added(box, word(), ["a"]) is box, "sent, and not again"
    later = added(box, word(2), ["a"])
    assert later.entries[0].before == word(), "what was done since is told from it"


def test_nobody_to_tell_is_nothing_to_keep() -> None:
    assert added(Mailbox(), word(), []) == Mailbox()


def test_what_was_not_taken_waits_longer_each_time_and_is_given_up_at_last() -> None:
    box, now, waits = added(Mailbox(), word(), ["a"]), NOW, []
    for _ in range(200):
        box, over = settled(box, ["k1"], "a", "no answer", now)
        if over:
            break
        waits.append(patience(box, now) or 0.0)
        assert due(box, "a", now + waits[-1] - 1) == ()
        now += waits[-1]
    assert waits[:4] == [FIRST_SEC, FIRST_SEC * 2, FIRST_SEC * 4, FIRST_SEC * 8]
    assert max(waits) == LONGEST_SEC
    assert GIVE_UP_SEC <= now - NOW < GIVE_UP_SEC + 2 * LONGEST_SEC
    assert over[0].outcomes["a"].startswith("given up after ")
    assert "no answer" in over[0].outcomes["a"]


def test_a_target_that_asks_for_it_is_left_alone_by_every_word() -> None:
    box = added(added(Mailbox(), word(1), ["a", "b"]), word(2), ["a"])
    box, _ = settled(box, ["k1"], "a", "too many", NOW, 600.0)
    box = added(box, word(3), ["a", "b"])
    assert [len(due(box, name, NOW + 599)) for name in "ab"] == [0, 2]
    assert len(due(box, "a", NOW + 600)) == 3
    failed, _ = settled(box, ["k1"], "a", "no", NOW + 600)
    assert failed.rests == {}, "it is over"
    sooner, _ = settled(added(Mailbox(), word(), ["a"]), ["k1"], "a", "x", NOW, 1.0)
    assert due(sooner, "a", NOW + FIRST_SEC - 1) == (), "never sooner than without"
    longest, _ = settled(added(Mailbox(), word(), ["a"]), ["k1"], "a", "x", NOW, 1e9)
    assert patience(longest, NOW) == DAY_SEC
    taken, _ = settled(box, ["k1"], "a", "", NOW + 1)
    assert len(due(taken, "a", NOW + 1)) == 2, "it takes words again"


def test_an_older_file_is_read() -> None:
    old = plain(added(Mailbox(), word(), ["a"]))
    for new in ("rests", "digest_day", "digest_at"):
        del old[new]
    del old["entries"][0]["notice"]["gone"]
    assert from_json(Mailbox, old) == added(Mailbox(), word(), ["a"])


HOUR_OF_DAY = 8 * 3600.0


@given(
    st.lists(
        st.one_of(
            st.floats(1.0, 90_000.0),  # it is looked again after so long
            st.floats(-43_000.0, 43_000.0).map(lambda by: ("wrong by", by)),
        ),
        max_size=60,
    ),
    st.floats(0.0, 86_399.0),
)
def test_no_day_has_two_digests_and_each_day_that_is_looked_at_late_has_one(
    steps: list[Any], start: float
) -> None:
    clock, wrong, last, told = NOW + start, 0.0, 0, list[int]()
    for step in steps:
        if isinstance(step, tuple):
            wrong = step[1]
        else:
            clock += step
        today, since = divmod(clock + wrong, DAY_SEC)
        due, last = digest_due(last, int(today), reached=since >= HOUR_OF_DAY)
        told += [int(today)] if due else []
        assert last >= today - 1 or not due
        if since >= HOUR_OF_DAY:
            assert last >= today, "told, or not to be told any more"
    assert told == sorted(set(told))


def test_the_first_digest_is_not_before_the_next_day() -> None:
    assert digest_due(0, 100, reached=True) == (False, 100)
    assert digest_due(0, 100, reached=False) == (False, 99)
    assert digest_due(99, 100, reached=False) == (False, 99)
    assert digest_due(99, 100, reached=True) == (True, 100)
    assert digest_due(90, 100, reached=True) == (True, 100), "at the next start"
    assert digest_due(101, 100, reached=True) == (False, 101), "set back"
    assert digest_due(4000, 100, reached=True) == (False, 100), "it was far ahead, and not for ever"


@pytest.mark.parametrize("back", [3600.0, 86_400.0 * 3, 1e9])
def test_a_clock_that_was_set_back_keeps_nobody_waiting_for_days(back: float) -> None:
    box, _ = settled(added(Mailbox(), word(), ["a"]), ["k1"], "a", "x", NOW)
    assert (patience(box, NOW - back) or 0.0) <= 86_400.0


def test_ten_thousand_words_are_bounded_and_said() -> None:
    box = Mailbox()
    for number in range(10_000):
        box = added(box, word(number), ["a"])
    assert len(box.entries) == MOST
    assert len(box.known) == KNOWN
    assert box.dropped == 10_000 - MOST
    assert [entry.notice.iteration for entry in box.entries[-2:]] == [9_998, 9_999]
    keys = [entry.notice.key for entry in box.entries]
    failed, _ = settled(box, keys, "a", "no", NOW)
    assert failed.dropped == box.dropped, "nobody has heard of them"
    box, over = settled(box, keys, "a", "", NOW)
    assert (len(over), box.dropped) == (MOST, 0)


def test_quiet_hours_hold_one_target_and_not_the_other() -> None:
    box = held(added(Mailbox(), word(), ["a", "b"]), "a", NOW + 3600)
    assert [len(due(box, name, NOW)) for name in "ab"] == [0, 1]
    assert len(due(box, "a", NOW + 3600)) == 1


def test_a_target_that_is_gone_from_the_configuration_holds_nothing() -> None:
    box, over = without(added(Mailbox(), word(), ["a", "b"]), ["b"])
    assert over == ()
    box, over = settled(box, ["k1"], "b", "", NOW)
    assert over[0].outcomes == {
        "a": "given up: it is not in the configuration any more",
        "b": "sent",
    }
    box, over = without(added(Mailbox(), word(), ["a"]), [])
    assert (box.entries, len(over)) == ((), 1)
    kept = added(Mailbox(), word(), ["a"])
    assert without(kept, ["a"]) == (kept, ())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 9)), max_size=30))
def test_whatever_happens_it_is_read_as_it_was_written(steps: list[tuple[str, bool, int]]) -> None:
    box, now = Mailbox(), NOW
    for target, fails, number in steps:
        now += 100
        box = added(box, dataclasses.replace(word(number), at=now), ["a", "b", "c"])
        keys = [entry.notice.key for entry in due(box, target, now)]
        box, _ = settled(box, keys, target, "x" if fails else "", now)
        assert from_json(Mailbox, plain(box)) == box
        assert len(set(box.known)) == len(box.known)


def test_a_key_tells_words_apart() -> None:
    assert key_of("a", 1, "x") != key_of("a", 11, "x")
    assert key_of("a", 1, "\udcff") == key_of("a", 1, "\udcff")
