"""The comparison of two snapshots, as a table and as laws."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.progress import Change, compare, printable

BASE = Snapshot("h1", "main", {"a": "100644 1"})
CUT = Snapshot("", "", {}, complete=False, note="git status: no answer within 60 s (ended)")

entries = st.dictionaries(st.sampled_from("abcde"), st.sampled_from(["", "100644 1", "100644 2"]))
snapshots = st.builds(
    Snapshot,
    st.sampled_from(["h1", "h2"]),
    st.sampled_from(["main", "side", ""]),
    entries,
    st.booleans(),
)


def moved(**changes: object) -> Snapshot:
    return dataclasses.replace(BASE, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("after", "changed", "files"),
    [
        (BASE, False, ()),
        (moved(branch="side"), False, ()),
        (moved(head="h2"), True, ()),
        (moved(entries={"a": "100644 2"}), True, ("a",)),
        (moved(entries={"a": ""}), True, ("a",)),
        (moved(entries={"a": "100755 1"}), True, ("a",)),
        (moved(entries={}), True, ("a",)),
        (moved(entries={**BASE.entries, "b": "100644 1"}), True, ("b",)),
        (CUT, None, ()),
        (moved(complete=False), None, ()),
        (moved(complete=False, entries={}), None, ()),
        (moved(complete=False, entries={"b": "1"}), None, ()),
        (moved(complete=False, entries={"a": "100644 2"}), True, ("a",)),
        (moved(complete=False, head="h2"), True, ()),
        (Snapshot("", "", {"a": "100644 1"}), True, ()),
    ],
)
def test_table(after: Snapshot, changed: bool | None, files: tuple[str, ...]) -> None:
    change = compare(BASE, after)
    assert (change.changed, change.files) == (changed, files)


def test_what_is_beyond_the_bound_is_no_change_while_its_sizes_and_times_stay() -> None:
    cut = moved(complete=False, rest="1")
    assert compare(cut, cut).changed is False
    assert compare(cut, dataclasses.replace(cut, rest="2")).changed is None
    assert compare(cut, moved(complete=False)).changed is None
    assert compare(cut, dataclasses.replace(cut, entries={})).files == ("a",)
    assert Snapshot.from_json(cut.to_json()) == cut


def test_notes_say_what_was_unusual() -> None:
    assert compare(BASE, BASE) == Change(False)
    assert "no answer" in compare(BASE, CUT).note
    assert "no progress by itself" in compare(BASE, moved(branch="side")).note
    assert compare(BASE, moved(head="h2", branch="side")).note == "branch main -> side"
    assert compare(BASE, moved(note="merge in progress")).note == "merge in progress"
    assert compare(BASE, Snapshot("", "", {})).note == "the git repository is gone"
    assert (
        compare(Snapshot("", "", {}), Snapshot("", "main", {})).note == "a git repository appeared"
    )


def test_a_commit_of_what_was_dirty_names_only_what_changed_in_content() -> None:
    after = Snapshot("h2", "main", {"c": "100644 9"})
    committed = {"a": ("100644 0", "100644 1"), "b": ("", "100644 5"), "gone": ("100644 7", "")}
    assert compare(BASE, after, committed).files == ("b", "c", "gone")
    # without it the commit's own changes are missing
    assert compare(BASE, after).files == ("a", "c")


def test_names_are_fit_for_utf8() -> None:
    assert printable("ü\udcff\n") == "ü\\xff\n"
    assert compare(moved(entries={}), moved(entries={"\udcff": "1"})).files == ("\\xff",)


@given(snapshots)
def test_a_snapshot_never_differs_from_itself(one: Snapshot) -> None:
    assert compare(one, one).changed is (False if one.complete else None)


@given(snapshots, snapshots)
def test_the_answer_does_not_depend_on_the_direction(one: Snapshot, other: Snapshot) -> None:
    there, back = compare(one, other), compare(other, one)
    assert (there.changed, there.files) == (back.changed, back.files)


@given(snapshots, snapshots)
def test_equality_is_claimed_only_by_complete_snapshots(one: Snapshot, other: Snapshot) -> None:
    if compare(one, other).changed is False:
        assert one.complete
        assert other.complete
        assert (one.head, one.entries) == (other.head, other.entries)
