"""docs/tutorial.md: what is typed there prints what is shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.claims.played import PAGE, Reader, blocks, fits, play
from tests.support.agent_runs import need_real

TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    one = Reader(tmp_path, need_real("codex"))
    with one.server:
        yield one
    one.scene.check_nothing_left()


@pytest.mark.slow
@pytest.mark.real_agents
def test_what_is_typed_prints_what_is_shown(reader: Reader) -> None:
    differs = []
    for typed, printed in play(reader, TEXT):
        if not fits(typed.shown, printed):
            differs.append("\n".join([f"$ {typed.command}", *printed]))
    assert not differs, "\n\n".join(differs)
    assert reader.left() == []  # every word of the model was asked for
    assert "Call the total TOTAL" in str(reader.server.main_asks[-1].body)


def test_the_page_has_everything_that_is_played() -> None:
    """The patterns find its fences; none is left out, none is only looked at."""
    found = blocks(TEXT)
    assert TEXT.count("```") == 2 * len(found)
    assert TEXT.count("<!--") == sum(block.second for block in found) == 1
    typed = [one.command for block in found if block.kind == "console" for one in block.typed()]
    assert len(typed) >= 12
    answers = [
        answer
        for block in found
        if block.kind == "console"
        for one in block.typed()
        for answer in one.answers()
    ]
    assert [word for _, word in answers] == ["y", "r", "Document it in README.md, too", "a"]


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (["took 3.8 s at 21:04:10"], ["took 12 s at 09:00:00"], True),
        (["one", "…", "four"], ["one", "two", "three", "four"], True),
        (["one", "…", "four"], ["one", "four"], True),
        (["a … c"], ["a b c"], True),
        (["one"], ["one", "two"], False),
        (["one", "two"], ["one"], False),
        (["verdict=completed"], ["verdict=continue"], False),
        (["1 file changed"], ["2 files changed"], False),
        (["a … c"], ["a b"], False),
    ],
)
def test_only_what_differs_from_run_to_run_is_passed_over(
    shown: list[str], printed: list[str], same: bool
) -> None:
    assert fits(shown, printed) is same


def test_the_model_waits_for_the_second_terminal() -> None:
    from tests.claims.played import script

    steps, second = script(threading.Event()), threading.Event()
    second.set()
    assert len(list(script(second))) == 10
    assert next(steps).kind == "shell"
