"""Text that may be shown: no control characters, bounded, figures as people say them."""

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    typed,
)
from tests.support.harmless import assert_harmless


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


@pytest.mark.parametrize(
    "name",
    [
        "/srv/app",
        "/srv/my app",
        "/a/it's \\ $(id)",
        b"/a/\x1b[31mred\n'q\\7\xff\xc3\xbc",
        "/a/\u202etxt.1",
    ],
)
def test_a_path_in_a_command_is_clean_and_names_the_same_file(name: str | bytes) -> None:
    path = os.fsdecode(name)
    line = f"printf %s {typed(path)}"
    assert clean(line) == line
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout == os.fsencode(path)


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
    assert [tokens(value) for value in (999_949, 999_950)] == ["999.9k", "1.0M"]
    assert [money(value) for value in (0, 0.0012, 3.456)] == ["$0.00", "$0.0012", "$3.46"]
