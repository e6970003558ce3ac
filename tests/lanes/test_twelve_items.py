"""A plan of twelve items on four lanes, with a conflict, a red combination, a kill -9, and a person
who commits in between: everything lands, and nothing of the person's is lost."""

from __future__ import annotations

import signal

import pytest

from tests.lanes.conftest import Make
from tests.support.harness import wait_until

ITEMS = {
    "the first line of the list": "echo one > list.txt",
    "the second line of the list": "echo two > list.txt",  # a conflict with the first
    "a limit of five": "echo 5 > limit.txt",
    "ten of them": "seq 10 > many.txt",  # with the limit: red, though each alone is green
    "a file": "",
    "what needs the file (after: 5)": "cat 5.txt > 6.txt",
    "another file": "",
    "what needs both (after: 5, 7)": "cat 5.txt 7.txt > 8.txt",
    "work that takes a while": "sleep 1; echo 9 > 9.txt",
    "work in small commits": "for n in 1 2 3; do echo $n > ten.$n; git add .; git commit -qm $n; done",
    "a directory": "mkdir -p deep/er; echo 11 > deep/er/11.txt",
    "the last (after: 6, 8)": "cat 6.txt 8.txt > 12.txt",
}
GATE = 'test ! -e limit.txt -o ! -e many.txt || test "$(wc -l < many.txt)" -le "$(cat limit.txt)"'


@pytest.mark.slow
def test_twelve_items_on_four_lanes_land_through_everything_that_goes_wrong(make: Make) -> None:
    ws = make(ITEMS, gates=[GATE], max=4)
    both = "printf 'one\\ntwo\\n' > list.txt"
    few = "seq 5 > many.txt; echo 5 > limit.txt"
    for number, again in ((1, both), (2, both), (3, few), (4, few)):
        ws.agent(f"{number}.2", again)
        ws.agent(f"{number}.3", again)
    process = ws.start_lanes()
    wait_until(lambda: len(ws.events("landed")) >= 2, "two to land")
    process.send_signal(signal.SIGKILL)
    process.wait()
    mine = []
    (ws.path / "mine.txt").write_text("by hand\n")
    ws.git("add", "mine.txt")
    ws.git("commit", "-q", "-m", "mine, while nothing runs")
    mine.append(ws.git("rev-parse", "HEAD").strip())
    process = ws.start_lanes()
    wait_until(lambda: len(ws.events("landed")) >= 5, "five to land")
    for attempt in range(50):  # a landing may be moving the branch in this moment: git says so
        (ws.path / "mine.txt").write_text("by hand, again\n")
        try:
            ws.git("commit", "-q", "-m", "mine, in between", "mine.txt")
            break
        except Exception:
            assert attempt < 49
    mine.append(ws.git("rev-parse", "HEAD").strip())
    assert ws.ended(process, 240) == 0, ws.log()[-5000:]

    there = ws.contents()
    assert there >= {"list.txt", "limit.txt", "many.txt", "mine.txt", "12.txt", "deep/er/11.txt"}
    assert there >= {f"{n}.txt" for n in (5, 6, 7, 8, 9)} | {f"ten.{n}" for n in (1, 2, 3)}
    assert ws.at("main", "12.txt") == "5\n5\n7\n"
    assert ws.at("main", "list.txt") == "one\ntwo\n"
    assert ws.at("main", "mine.txt") == "by hand, again\n"
    assert ws.git("status", "--porcelain") == ""
    assert (ws.path / "plan.md").read_text().count("[x]") == 12
    commits = ws.git("log", "--format=%H", "main").split()
    assert set(mine) <= set(commits)
    assert {back["kind"] for back in ws.events("returned")} >= {"conflict", "red"}
    assert ws.git("worktree", "list").count("\n") == 1
    assert len(ws.made()) > 12
    assert ws.lost() == set()
