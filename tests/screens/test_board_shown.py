"""The board as people see it, in every state and in terminals of every width: `shown/board-N.txt`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codex_self_iter.screens.board.bindings import TABS
from codex_self_iter.screens.board.drawing import draw
from codex_self_iter.screens.board.looking import Found, Meant, Reader, under_way
from codex_self_iter.screens.board.showing import Body, Level, Line, Showing
from codex_self_iter.screens.loops import Target
from codex_self_iter.screens.sources import Shown
from codex_self_iter.views.rows import ranked, row
from codex_self_iter.views.summary import Surroundings
from codex_self_iter.views.timeline import iterations
from codex_self_iter.views.troubles import troubles
from tests.support.board_pilot import at_board
from tests.support.shown_loops import GATE, NOW, cases, record, seen

pytestmark = pytest.mark.anyio
SHOWN = Path(__file__).parent / "shown"
HEIGHT = 24
WIDTHS = (60, 100, 200)
LINES: list[Line] = [
    ("── 000012-executor ──", "cyan"), ("Reads the grammar", ""), ("$ make test", "bold"),
    ("  | 3 passed", "dim"), ("± parser.py", "green"),
    ("A long line, which is wrapped where the screen ends: " + "x" * 200, ""),
    ("漢字 are two columns wide, and so are 絵文字: " + "漢" * 60, ""),
]  # fmt: skip


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def loops(names: list[str]) -> list[Shown]:
    """The cases as the board finds them, the most urgent first."""
    every = cases()
    found = {}
    for name in names:
        place = f"/srv/{name}"
        one = seen(every[name], name, place)
        around = Surroundings(NOW, f" --workspace {place}", stop=False, pause=False, bar="#.")
        target = Target(name, place, one.state_dir)
        found[one.state_dir] = Shown(name, target, one, around, row(name, one, around))
    return [found[one.state_dir] for one in ranked(shown.row for shown in found.values())]


class Fixed(Reader):
    """A reader of loops that never change."""

    def __init__(self, names: list[str]) -> None:
        super().__init__([])
        self.all = loops(names)

    def look(self, meant: Meant) -> Found:
        one = next((s for s in self.all if s.row.state_dir == meant.state_dir), None)
        one = one or next(iter(self.all), None)
        if one is None:
            return Found(meant, [], [], [], fresh=True)
        old = [record(n, NOW - 700 * (12 - n), gates=[GATE] * (n == 10)) for n in (9, 10, 11)]
        done = iterations(old) if one.seen.status else []
        lines = LINES if TABS[meant.tab] == "output" else [(TABS[meant.tab], "")]
        here = meant._replace(state_dir=one.row.state_dir)
        return Found(here, self.all, [*done, *under_way(one, done)], lines, fresh=True)


async def everything(width: int) -> str:
    """The list with each loop chosen, then one loop and one iteration from close by."""
    names = list(cases())
    told = []
    async with at_board((width, HEIGHT), reader=Fixed(names), clock=lambda: NOW) as seat:
        for number in range(len(names)):
            screen = await seat.looked()
            told.append(f"==== {seat.board._shown().name}\n{screen}")
            if number < len(names) - 1:
                await seat.press("j")
        await seat.press("g")
        while seat.board.on.row.name != "running":
            await seat.press("j")
        told.append(f"==== a loop\n{await seat.press('enter') and await seat.looked()}")
        told.append(f"==== an iteration\n{await seat.press('enter') and await seat.looked()}")
        told.append(f"==== help\n{await seat.press('?')}")
        told.append(f"==== a question\n{await seat.press('escape', 'X')}")
        told.append(f"==== steering\n{await seat.press('n', ':', 'h', 'i', 'j', 'q')}")
    return "\n".join(told) + "\n"


@pytest.mark.parametrize("width", WIDTHS)
async def test_all_is_shown_as_it_was_agreed(width: int) -> None:
    """`python -m tests.screens.test_board_shown` renews it."""
    shown = SHOWN / f"board-{width}.txt"
    assert await everything(width) == shown.read_text(encoding="utf-8")


async def test_without_any_loop_it_says_how_to_start_one() -> None:
    async with at_board((80, 12), reader=Fixed([]), clock=lambda: NOW) as seat:
        assert 'codex-self-iter run "what is wanted"' in seat.text()
        for key in ("j", "k", "enter", "p", ":", "X", "r", "tab", "G", "<", "n", "f"):
            assert len((await seat.press(key)).splitlines()) == 12


@pytest.mark.parametrize("size", [(20, 5), (1, 1), (2, 2), (10, 3), (79, 24), (80, 24), (300, 100)])
@pytest.mark.parametrize("level", list(Level))
def test_no_size_is_too_small_or_overdrawn(size: tuple[int, int], level: Level) -> None:
    width, height = size
    every = loops(list(cases()))
    for shown in every:
        one = Showing(now=NOW, rows=[s.row for s in every], chosen=shown.row.state_dir)
        one.seen, one.level = shown.seen, level
        one.troubles = troubles(shown.seen, shown.around)
        one.iterations = iterations([record(9), record(10, gates=[GATE])])[::-1]
        one.body = Body(LINES)
        for one.help in (False, True):
            lines = draw(one, width, height)
            from rich.cells import cell_len

            assert len(lines) == height
            assert max(sum(cell_len(text) for text, _ in line) for line in lines) <= width


async def test_a_terminal_of_20_by_5_can_be_used() -> None:
    async with at_board((20, 5), reader=Fixed(list(cases())), clock=lambda: NOW) as seat:
        for key in "jkGg\x1b?qn":
            if key not in "q\x1b":
                assert len((await seat.press(key)).splitlines()) <= 5
        await seat.press("escape")
        assert "needs you" in seat.text()


if __name__ == "__main__":
    import asyncio
    import os

    os.environ["TZ"] = "UTC"
    time.tzset()
    SHOWN.mkdir(exist_ok=True)
    for columns in WIDTHS:
        text = asyncio.run(everything(columns))
        (SHOWN / f"board-{columns}.txt").write_text(text, encoding="utf-8")
