"""`diff` as a person calls it: real processes, real git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from codex_self_iter.world import registry
from tests.support.checkpoint_commands import Workspace
from tests.support.program import PROGRAM


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return Workspace(tmp_path / "my work", monkeypatch)


def test_it_prints_an_iterations_change_and_a_summary(work: Workspace) -> None:
    work.checkpoint(1, "one\n")
    work.checkpoint(2, "two\n")
    done = work.call("diff", "2")
    assert done.returncode == 0, done.stderr
    assert b"-one\n+two" in done.stdout
    assert b"file.txt | 2 +-" in work.call("diff", "2", "--stat").stdout
    assert b"+two" in work.call("diff", "1", "2").stdout
    assert b"-two" in work.call("diff", "2", "1").stdout


@pytest.mark.parametrize("words", [("diff", "shop", "2"), ("diff", "shop", "1", "2"),
                                   ("rewind", "shop", "1", "--dry-run")])  # fmt: skip
def test_a_loop_is_named_before_the_iteration(
    work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    work.checkpoint(1, "one\n")
    work.checkpoint(2, "two\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    registry.register("shop", str(work.path), str(work.state))
    done = subprocess.run(
        [*PROGRAM, *words], cwd=tmp_path, env=work.env,
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert b"file.txt" in done.stdout


def test_an_unknown_iteration_lists_what_there_is(work: Workspace) -> None:
    assert b"none has been made here yet" in work.call("diff", "1").stderr
    work.checkpoint(1, "one\n")
    done = work.call("diff", "7")
    assert done.returncode == 2
    assert done.stderr == (
        b"codex-self-iter: there is no checkpoint 7 (an iteration that changed nothing has "
        b"none); there are: 1\n"
    )


def test_no_repository_and_no_workspace_are_clear_errors(work: Workspace, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    done = work.call("diff", "1", workspace=tmp_path / "plain")
    assert (done.returncode, b"not a git repository" in done.stderr) == (2, True)
    done = work.call("diff", "1", workspace=tmp_path / "missing")
    assert (done.returncode, b"does not exist" in done.stderr) == (2, True)
    assert b"Traceback" not in done.stderr


def test_a_reader_that_stops_early_is_no_error(work: Workspace) -> None:
    work.checkpoint(1, "x" * 10)
    work.checkpoint(2, "line\n" * 200_000)
    process = subprocess.Popen(
        work.argv("diff", "2"),
        cwd=work.path,
        env=work.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stdout, process.stderr:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0
