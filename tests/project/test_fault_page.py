"""docs/faults.md: every test that causes faults has a kind, and the page says what a run came to."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.faults import kinds
from tests.faults.kinds import KINDS, ROOMS, TESTS, chosen, files, kind_of, names
from tests.project import fault_page
from tests.simulation.world import MIXES

ROOT = TESTS.parent
CASE = '<testcase classname="tests.faults.test_kill_nine" name="{0}" time="1.5">{1}</testcase>'
LOOP = {
    "count": 9, "seed": 1, "on_orphan": "adopt", "kills": {"group": 9}, "messages": 4,
    "iterations": 1234,
}  # fmt: skip
NAME = "test_no_moment_loses_a_run_or_leaves_one_behind"


def junit(path: Path, *inside: str) -> None:
    cases = "".join(CASE.format(f"{NAME}[{n}]", what) for n, what in enumerate(inside))
    path.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")


def test_no_file_that_causes_faults_is_without_a_kind() -> None:
    rooms = {str(path.relative_to(TESTS)) for room in ROOMS for path in TESTS.glob(room)}
    assert rooms - set(files()) == set()
    assert [(file, name) for file in rooms for name in names(file) if not kind_of(file, name)] == []


def test_what_the_kinds_name_is_there() -> None:
    assert kinds.unmatched() == []
    assert len(chosen()) == len(set(chosen()))
    assert len({kind.title for kind in KINDS}) == len(KINDS)


def test_a_named_test_goes_before_its_file() -> None:
    by_name = kind_of("program/test_owed.py", "test_killed_in_a_commit_hook_and_more")
    by_file = kind_of("program/test_owed.py", "test_anything")
    assert by_name is not None
    assert by_file is not None
    assert (by_name.title, by_file.title) == ("Kills", "git")
    assert kind_of("core/test_plan.py", "test_anything") is None


def test_the_page_says_what_held_what_failed_and_what_was_not_run(tmp_path: Path) -> None:
    row = "| no moment loses a run or leaves one behind | [kill_nine](../tests/faults/test_kill_nine.py)"
    junit(tmp_path / "tests.xml", "", "")
    assert f"{row} | 2 | held |" in fault_page.page(tmp_path)
    junit(tmp_path / "tests.xml", "", '<skipped message="NOT TESTED HERE: no | room"/>')
    assert f"{row} | 2 | held (1 not run: no \\| room) |" in fault_page.page(tmp_path)
    junit(tmp_path / "tests.xml", "", '<failure message="x"/>', '<error message="x"/>')
    page = fault_page.page(tmp_path)
    assert f"{row} | 3 | **2 failed** |" in page
    assert "| **together** | " in page
    assert "| 3 | 1 | 2 | 0 |" in page
    junit(tmp_path / "tests.xml")
    assert f"{row} | 0 | not in this run |" in fault_page.page(tmp_path)


def test_kills_and_years_are_on_it_only_when_they_were_run(tmp_path: Path) -> None:
    assert "## The kill loops" not in fault_page.page(tmp_path)
    assert "## Lanes that are killed" not in fault_page.page(tmp_path)
    lanes = {"count": 1200, "seed": 7, "kills": {"group": 1200}, "plans": 300}
    (tmp_path / "lanes.json").write_text(json.dumps(lanes))
    (tmp_path / "kills-adopt.json").write_text(json.dumps(LOOP))
    year = {
        "seed": 7, "days": 2, "productive": 1.0, "best": 2.0, "iterations": 5, "runs": 6,
        "happened": {"crash": 3}, "unexplained": [[1.5, 0, "x"]], "faults": ["two agents"],
    }  # fmt: skip
    (tmp_path / "year-hell.json").write_text(json.dumps(year))
    page = fault_page.page(tmp_path)
    assert "| `adopt` (seed 1) | 9 | group 9 | 1,234 | 4 | nothing |" in page
    assert "| 1,200 (seed 7) | group 1200 | 300 | nothing |" in page
    assert "| `hell` (seed 7) | 2 | 0.5000 | 5 | 6 | 3, 0 | 1.5 s | 1 |" in page


def test_the_script_knows_every_world_and_its_parts() -> None:
    script = (ROOT / "scripts" / "fault-report.sh").read_text()
    (worlds,) = (line for line in script.splitlines() if "for mix in" in line)
    assert set(worlds.partition(" in ")[2].rstrip("; do").split()) == set(MIXES)
    for said in (
        "KILLS:-200",
        "--seed 7",
        "DAYS:-365",
        "tests kills years page",
        "for orphan in adopt kill",
        "tests.lanes.faults.kill_lanes",
    ):
        assert said in script
    done = subprocess.run(
        [ROOT / "scripts" / "fault-report.sh", "nothing"],
        capture_output=True, text=True, check=False, timeout=100, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 2
    assert "none of tests, kills, years, page" in done.stderr


def test_one_part_alone_replaces_its_figures(tmp_path: Path) -> None:
    """The page is made of what is kept of each part's last run."""
    junit(tmp_path / "tests.xml", "")
    page = tmp_path / "faults.md"
    text = f"before\n{fault_page.START}figures of before\n{fault_page.END}after\n"
    page.write_text(fault_page.renewed(text, fault_page.page(tmp_path)))
    assert page.read_text().startswith(f"before\n{fault_page.START}| kind |")
    assert page.read_text().endswith(f"{fault_page.END}after\n")
    assert "figures of before" not in page.read_text()
    (tmp_path / "kills-kill.json").write_text(json.dumps(LOOP))
    again = fault_page.renewed(page.read_text(), fault_page.page(tmp_path))
    assert "## The kill loops" in again
    assert "no moment loses a run" in again


def test_the_published_page_is_whole() -> None:
    text = (ROOT / "docs" / "faults.md").read_text()
    assert text.count(fault_page.START) == text.count(fault_page.END) == 1
    for kind in KINDS:
        assert f"\n## {kind.title}\n" in text, "run scripts/fault-report.sh"
    assert "failed**" not in text
