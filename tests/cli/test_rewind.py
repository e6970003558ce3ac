"""`rewind` as a person calls it."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.support.checkpoint_commands import Workspace


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    place = Workspace(tmp_path / "my work", monkeypatch)
    place.checkpoint(1, "one\n")
    place.checkpoint(2, "two\n")
    (place.path / "later.txt").write_text("later\n")
    return place


def text(work: Workspace) -> str:
    return (work.path / "file.txt").read_text()


def test_dry_run_says_everything_and_does_nothing(work: Workspace) -> None:
    done = work.call("rewind", "1", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert b"  change   file.txt\n  remove   later.txt\n" in done.stdout
    assert text(work) == "two\n"
    assert len(work.git("for-each-ref", "refs/codex-self-iter").splitlines()) == 2


def test_yes_goes_back_and_says_how_to_return(work: Workspace) -> None:
    head = work.commit()
    done = work.call("rewind", "1", "--yes")
    assert done.returncode == 0, done.stderr
    assert text(work) == "one\n"
    assert not (work.path / "later.txt").exists()
    assert work.git("rev-parse", "HEAD").strip() == head
    assert b"git reset --soft" in done.stdout
    back = done.stdout.decode().split("take this back: codex-self-iter ")[1].split("\n")[0].split()
    assert work.call(*back, "--yes").returncode == 0
    assert text(work) == "two\n"
    assert (work.path / "later.txt").read_text() == "later\n"


def test_without_a_terminal_it_asks_for_yes(work: Workspace) -> None:
    done = work.call("rewind", "1")
    assert done.returncode == 2
    assert b"--yes" in done.stderr
    assert text(work) == "two\n"


@pytest.mark.parametrize(("answer", "result"), [(b"y\n", "one\n"), (b"\n", "two\n")])
def test_in_a_terminal_it_asks(work: Workspace, answer: bytes, result: str) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        done = subprocess.run(
            work.argv("rewind", "1"),
            env=work.env,
            stdin=theirs,
            capture_output=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert text(work) == result


@pytest.mark.parametrize("what", ["supervisor's file", "workspace", "agent"])
def test_it_refuses_while_a_supervisor_or_an_agent_is_at_work(work: Workspace, what: str) -> None:
    places = {
        "supervisor's file": work.state / "loop.lock",
        "workspace": work.path,
        "agent": work.state / "run.lock",
    }
    for name in ("loop.lock", "run.lock"):
        (work.state / name).touch()
    fd = os.open(places[what], os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        done = work.call("rewind", "1", "--yes")
        assert done.returncode == 75
        assert b"Stop it first" in done.stderr
        assert text(work) == "two\n"
        assert work.call("rewind", "1", "--dry-run").returncode == 0
    finally:
        os.close(fd)
    # the negative control: a stale file is no lock
    assert work.call("rewind", "1", "--yes").returncode == 0
    assert text(work) == "one\n"


def test_an_unknown_checkpoint_is_a_clear_error(work: Workspace) -> None:
    done = work.call("rewind", "9", "--yes")
    assert done.returncode == 2
    assert b"there are: 1-2" in done.stderr


def test_nothing_to_do_is_said(work: Workspace) -> None:
    (work.path / "later.txt").unlink()
    done = work.call("rewind", "2", "--yes")
    assert done.returncode == 0
    assert b"already is as in checkpoint 2" in done.stdout
