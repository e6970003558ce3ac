"""Old runs go, new ones and the truth stay, and nothing is ever removed through a symlink."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from codex_self_iter.world.state.logfile import LogFile, rotate
from codex_self_iter.world.state.retention import KEEP_ASIDE, Retention
from codex_self_iter.world.state.root import StateRoot

DAY = 86400


def fill(root: StateRoot, numbers: range, size: int = 1000, age_days: float = 0) -> None:
    for number in numbers:
        run = Path(root.path, f"logs/runs/{number:06d}-executor")
        run.mkdir(parents=True)
        (run / "stdout.log").write_bytes(b"x" * size)
        prompt = Path(root.path, f"prompts/{number:06d}-executor.md")
        prompt.parent.mkdir(exist_ok=True)
        prompt.write_bytes(b"p" * 100)
        when = time.time() - age_days * DAY
        for path in (run / "stdout.log", run, prompt):
            os.utime(path, (when, when))


def left(root: StateRoot, place: str = "logs/runs") -> list[int]:
    return sorted(int(name[:6]) for name in os.listdir(f"{root.path}/{place}"))


def test_the_number_of_runs_is_bounded(root: StateRoot) -> None:
    fill(root, range(1, 31))
    pruned = Retention(root, keep_runs=10).prune()
    assert left(root) == left(root, "prompts") == list(range(21, 31))
    assert len(pruned.removed) == 40
    assert not pruned.over
    assert Retention(root, keep_runs=10).prune().removed == ()


def test_old_runs_go_but_never_the_newest(root: StateRoot) -> None:
    fill(root, range(1, 11), age_days=40)
    fill(root, range(11, 13), age_days=1)
    Retention(root, keep_days=30, keep_newest=3).prune()
    assert left(root) == [10, 11, 12]


def test_a_clock_a_year_ahead_leaves_the_newest(root: StateRoot) -> None:
    fill(root, range(1, 11))
    Retention(root, keep_days=30, keep_newest=3, wall=lambda: time.time() + 365 * DAY).prune()
    assert left(root) == [8, 9, 10]


def test_the_size_is_bounded_by_removing_the_oldest(root: StateRoot) -> None:
    fill(root, range(1, 11), size=1024 * 1024)
    retention = Retention(root, max_state_mb=5.5)
    assert retention.usage_mb() > 10
    pruned = retention.prune()
    assert not pruned.over
    assert left(root) == [6, 7, 8, 9, 10]
    assert retention.usage_mb() <= 5.5
    assert pruned.freed_bytes >= 5 * 1024 * 1024


def test_a_bound_that_cannot_be_met_is_said(root: StateRoot) -> None:
    fill(root, range(1, 4), size=1024 * 1024)
    journal = Path(root.path, "logs/iterations.jsonl")
    journal.write_bytes(b"j" * 1024 * 1024)
    assert Retention(root, max_state_mb=0.5).prune().over
    assert left(root) == [1, 2, 3]
    assert journal.stat().st_size == 1024 * 1024


def test_zero_means_no_bound(root: StateRoot) -> None:
    fill(root, range(1, 31), age_days=400)
    assert Retention(root, keep_runs=0, keep_days=0, max_state_mb=0).prune().removed == ()


def test_a_living_run_is_protected(root: StateRoot) -> None:
    fill(root, range(1, 11), age_days=40)
    Retention(root, keep_days=30, keep_newest=1).prune({"000002-executor"})
    assert left(root) == [2, 10]


def test_time_is_bounded_and_the_next_pass_goes_on(root: StateRoot) -> None:
    fill(root, range(1, 31))
    retention = Retention(root, keep_runs=5)
    assert retention.prune(budget_sec=-1).removed == ()
    assert len(left(root)) == 30
    retention.prune()
    assert left(root) == list(range(26, 31))


def test_nothing_is_removed_through_a_symlink(root: StateRoot, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "000001-executor").mkdir(parents=True)
    (outside / "000001-executor/precious").write_text("x")
    fill(root, range(1, 11), age_days=40)
    os.symlink(outside, f"{root.path}/logs/runs/000000-link")
    os.symlink(outside / "000001-executor", f"{root.path}/logs/runs/000001-executor/inner")
    Retention(root, keep_runs=1, keep_newest=1).prune()
    assert (outside / "000001-executor/precious").read_text() == "x"
    assert left(root) == [10]
    os.rename(f"{root.path}/logs/runs", f"{root.path}/logs/old")
    os.symlink(outside, f"{root.path}/logs/runs")
    Retention(root, keep_runs=1, keep_newest=1).prune()
    assert (outside / "000001-executor/precious").read_text() == "x"


def test_sizes_of_finished_runs_are_measured_once(root: StateRoot) -> None:
    fill(root, range(1, 301), size=10)
    retention = Retention(root)
    retention.usage_mb()
    started = time.process_time()
    retention.usage_mb(max_age_sec=0)
    again = time.process_time() - started
    assert again < 0.5
    growing = Path(root.path, "logs/runs/000300-executor/stdout.log")
    before = retention.usage_mb(max_age_sec=0)
    growing.write_bytes(b"x" * 3 * 1024 * 1024)
    assert retention.usage_mb() == before, "within its age the figure is kept"
    assert retention.usage_mb(max_age_sec=0) > before + 2.9


def test_a_log_is_rotated_and_bounded(root: StateRoot) -> None:
    log = LogFile(root, "logs/supervisor.log", max_mb=0.01, keep=3)
    for number in range(3000):
        log.write(f"line {number} of the log\n")
    names = sorted(os.listdir(f"{root.path}/logs"))
    assert names == ["supervisor.log", "supervisor.log.1", "supervisor.log.2"]
    for name in names:
        about = os.stat(f"{root.path}/logs/{name}")
        assert about.st_size < 0.02 * 1024 * 1024
        assert stat.S_IMODE(about.st_mode) == 0o600
    text = "".join(Path(root.path, "logs", name).read_text() for name in reversed(names))
    assert text.endswith("line 2999 of the log\n")
    assert log.lost_lines == 0
    log.close()


def test_a_deleted_log_comes_back(root: StateRoot) -> None:
    log = LogFile(root, "logs/supervisor.log")
    log.write("one\n")
    os.unlink(f"{root.path}/logs/supervisor.log")
    os.rmdir(f"{root.path}/logs")
    log.write("two\n")
    assert Path(root.path, "logs/supervisor.log").read_text() == "two\n"
    log.close()


def test_one_file_may_be_all_there_is(root: StateRoot) -> None:
    root.replace("log", b"x" * 100)
    assert not rotate(root, "log", 101, 1)
    assert rotate(root, "log", 100, 1)
    assert not os.path.exists(f"{root.path}/log")
    assert not rotate(root, "log", 100, 1)


def test_a_directory_in_the_place_of_an_older_log_does_not_hold_up_the_log(root: StateRoot) -> None:
    Path(root.path, "logs/supervisor.log.1/x").mkdir(parents=True)
    log = LogFile(root, "logs/supervisor.log", max_mb=0.001, keep=3)
    for _ in range(20):
        log.write("x" * 200 + "\n")
    log.close()
    assert log.lost_lines == 0
    assert Path(root.path, "logs/supervisor.log.1").is_file()
    assert "not a log of ours" in root.take_warnings()[0]


def test_what_was_set_aside_and_read_is_bounded_the_newest_stay(root: StateRoot) -> None:
    for place in ("quarantine", "inbox/done"):
        Path(root.path, place).mkdir(parents=True, exist_ok=True)
        for number in range(KEEP_ASIDE + 30):
            Path(root.path, place, f"{number:06d}.md").write_text("x")
    Path(root.path, "quarantine", "000001.md").rename(Path(root.path, "quarantine", "000999.md"))
    pruned = Retention(root).prune()
    assert len(pruned.removed) == 60
    for place in ("quarantine", "inbox/done"):
        assert len(left(root, place)) == KEEP_ASIDE
    assert 999 in left(root, "quarantine")


@pytest.mark.slow
def test_a_late_bound_on_many_runs_is_met_at_once(root: StateRoot) -> None:
    """Forty thousand names: quadratic looking would take minutes."""
    prompts = Path(root.path, "prompts")
    prompts.mkdir()
    for number in range(40_000):
        (prompts / f"{number:06d}-executor.md").touch()
    begun = time.monotonic()
    Retention(root, keep_runs=10).prune(budget_sec=0.0)
    assert time.monotonic() - begun < 20
