"""A workspace without git: the same questions, answered by a bounded walk."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from codex_self_iter.core.progress import compare
from codex_self_iter.world.git import fingerprint
from codex_self_iter.world.git.fingerprint import Budget, Hasher
from codex_self_iter.world.git.scan import ContentScan, ScanLimits, scan

pytestmark = pytest.mark.anyio


@pytest.fixture
def work(tmp_path: Path) -> Path:
    place = tmp_path / "work"
    for name in (
        "state/private",
        "a",
        "sub/b",
        "node_modules/x/y",
        ".codex-stop",
        ".git/HEAD",
        ".venv/z",
    ):
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    (place / "link").symlink_to("nowhere")
    (place / "loop").symlink_to(".")
    return place


def scanner(work: Path, **limits: int) -> ContentScan:
    return ContentScan(str(work), str(work / "state"), limits=ScanLimits(**limits))


async def test_only_the_work_itself_counts(work: Path) -> None:
    taken = await scanner(work).snapshot(None)
    assert set(taken.entries) == {"a", "sub/b", "link", "loop"}
    assert taken.complete
    assert (taken.head, taken.branch) == ("", "")


async def test_files_of_ours_are_no_work(work: Path) -> None:
    limits = ScanLimits(own=("sub/b",))
    taken = await ContentScan(str(work), str(work / "state"), limits=limits).snapshot(None)
    assert set(taken.entries) == {"a", ".codex-stop", "link", "loop"}


async def test_content_counts_and_times_do_not(work: Path) -> None:
    scan_it = scanner(work)
    before = await scan_it.snapshot(None)
    os.utime(work / "a", (1, 1))
    (work / "sub/b").unlink()
    (work / "sub/b").write_text("1")
    (work / "state/private").write_text("2")
    after = await scan_it.snapshot(before)
    assert compare(before, after).changed is False
    (work / "a").write_text("2")
    (work / "link").unlink()
    (work / "link").symlink_to("elsewhere")
    (work / "sub/b").chmod(0o755)
    (work / "c\n").write_text("")
    assert compare(after, await scan_it.snapshot(after)).files == ("a", "c\n", "link", "sub/b")


async def test_bounds_make_it_incomplete(work: Path) -> None:
    for limits, words in (({"files": 2}, "more than 2 files"), ({"bytes": 1}, "MiB of files")):
        taken = await scanner(work, **limits).snapshot(None)
        assert not taken.complete
        assert words in taken.note
        assert compare(taken, taken).changed is None


async def test_time_is_bounded(work: Path) -> None:
    hasher = Hasher({}, Budget(time.monotonic() - 1))
    _, why = scan(str(work), str(work / "state"), hasher, ScanLimits())
    assert why == "reading the files took too long"


async def test_a_pipe_does_not_block(work: Path) -> None:
    os.mkfifo(work / "pipe")
    assert (await scanner(work).snapshot(None)).entries["pipe"].startswith("special")


def look(work: Path, cache: fingerprint.StatCache) -> tuple[Hasher, str | None]:
    hasher = Hasher(cache, Budget(time.monotonic() + 60))
    return hasher, hasher.fingerprint(os.fsencode(work / "a"))


def test_an_old_unchanged_file_is_read_once_and_a_recent_one_again(work: Path) -> None:
    first, value = look(work, {})
    assert first.fresh == {}  # written a moment ago: its times prove nothing yet

    real = os.lstat(work / "a")
    key = (real.st_dev, real.st_ino, real.st_size, real.st_mtime_ns, real.st_ctime_ns, real.st_mode)
    trusted = {os.fsencode(work / "a"): (key, "from the cache")}
    assert look(work, trusted)[1] == "from the cache"
    os.utime(work / "a", (1, 1))
    assert look(work, trusted)[1] == value


@pytest.mark.slow
def test_a_file_becomes_trusted_after_two_seconds(work: Path) -> None:
    time.sleep(2.1)
    first, value = look(work, {})
    ((path, (key, kept)),) = first.fresh.items()
    assert kept == value
    assert look(work, {path: (key, "from the cache")})[1] == "from the cache"


def test_a_large_file_is_sampled_at_its_ends_and_in_between(work: Path) -> None:
    size = 65 * 1024 * 1024
    seen = set()
    for offset in (None, 0, size // 2 // 65536 * 65536, size - 1):
        with (work / "a").open("wb") as file:
            file.truncate(size)
            if offset is not None:
                file.seek(offset)
                file.write(b"x")
        _, value = look(work, {})
        assert value is not None
        assert value.startswith("100644 ~")
        seen.add(value)
    assert len(seen) >= 3  # the ends for sure; in between only where a sample lies
