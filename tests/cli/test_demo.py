"""The demo: a real workspace with a failing test, mended by the loop through the ordinary command
line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from codex_self_iter.cli import demo
from codex_self_iter.core.plan import parse_plan
from codex_self_iter.demo import git, make_workspace, sample_files
from codex_self_iter.errors import UsageError
from tests.support.program import PROGRAM


def mended(workspace: Path) -> bool:
    argv = ["python3", "-m", "unittest", "-q"]
    return (
        subprocess.run(argv, cwd=workspace, capture_output=True, check=False, timeout=60).returncode
        == 0
    )


def step(workspace: Path) -> int:
    argv = [sys.executable, "-m", "codex_self_iter.plan_shell", "--workspace", str(workspace)]
    return subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode


def test_the_sample_is_complete_and_fails_at_first(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    assert {name for name, _ in sample_files()} >= {
        "plan.md",
        "TASK.md",
        "codex-self-iter.toml",
        ".gitignore",
    }
    assert git(tmp_path, "status", "--porcelain") == ""
    assert not mended(tmp_path)
    items = parse_plan((tmp_path / "plan.md").read_text()).items
    assert len(items) >= 4
    assert all(item.runnable and not item.ticked for item in items)


@pytest.mark.slow
def test_the_plan_mends_the_sample_and_commits_each_step(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    items = parse_plan((tmp_path / "plan.md").read_text()).items
    for _ in items:
        assert step(tmp_path) == 0
    assert mended(tmp_path)
    assert len(git(tmp_path, "log", "--oneline").splitlines()) == len(items) + 1
    assert git(tmp_path, "status", "--porcelain").split() == ["M", "plan.md"]


def test_the_mending_step_is_what_mends_it(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    assert step(tmp_path) == 0
    assert not mended(tmp_path)
    assert step(tmp_path) == 0
    assert mended(tmp_path)


@pytest.mark.slow
def test_an_earlier_demo_starts_again_and_loses_nothing(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    assert step(tmp_path) == step(tmp_path) == 0
    (tmp_path / "mine.txt").write_text("my notes")
    before = git(tmp_path, "rev-parse", "HEAD").strip()
    make_workspace(tmp_path)
    assert not mended(tmp_path)
    assert before in git(tmp_path, "rev-list", "HEAD")
    assert git(tmp_path, "show", "HEAD~1:mine.txt") == "my notes"
    assert step(tmp_path) == step(tmp_path) == 0


@pytest.mark.parametrize("kind", ["files", "repository", "file"])
def test_what_is_no_demo_is_left_alone(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "here"
    if kind == "file":
        target.write_text("precious")
    else:
        target.mkdir()
        (target / "precious").write_text("precious")
        if kind == "repository":
            git(target, "init", "-q")
    with pytest.raises(UsageError, match="here"):
        make_workspace(target)
    assert (target if kind == "file" else target / "precious").read_text() == "precious"


def test_the_persons_git_settings_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "hooks").mkdir(parents=True)
    hook = home / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {home}/hooks\n[commit]\n\tgpgSign = "
        f"true\n[init]\n\ttemplateDir = {home}\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    workspace = tmp_path / "with space"
    make_workspace(workspace)
    monkeypatch.delenv("GIT_DIR")
    assert step(workspace) == 0
    assert not (tmp_path / "elsewhere").exists()


def test_without_git_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="needs git"):
        make_workspace(tmp_path / "w")


@pytest.mark.parametrize("home", ["home", "no/such/file.txt"])
def test_without_a_name_it_takes_a_new_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (tmp_path / "no" / "such").mkdir(parents=True)
    (tmp_path / "no" / "such" / "file.txt").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = demo.workspace_for(None), demo.workspace_for(None)
    assert first != second
    assert first.is_dir()
    assert first.is_relative_to(tmp_path)
    assert first.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_the_demo_ends_in_proven_completion(tmp_path: Path) -> None:
    workspace = tmp_path / "a demo"
    env = {**os.environ, "CODEX_SELF_ITER_AGENT": "codex", "HOME": str(tmp_path / "home")}
    argv = [*PROGRAM, "demo", str(workspace)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    status = json.loads((workspace / ".codex-self-iter" / "status.json").read_bytes())
    assert status["state"] == "completed"
    journal = (
        (workspace / ".codex-self-iter" / "logs" / "iterations.jsonl").read_text().splitlines()
    )
    records = [json.loads(line) for line in journal]
    assert len(records) == 5
    assert [gate["exit_code"] for gate in records[-1]["gates"]] == [0]
    assert mended(workspace)
    assert git(workspace, "status", "--porcelain").split() == ["M", "plan.md"]
    card = done.stdout.partition("\n\ncompleted: ")[2].partition("\n\n")[0]
    hints = re.findall(r"^ {2}(?:look|take back)? +(\S*codex-self-iter .+)$", card, re.MULTILINE)
    assert len(hints) == 3, card
    for hint in hints:
        line = f"{hint} --yes" if " rewind " in hint else hint
        subprocess.run(
            ["/bin/sh", "-c", line], env=env, capture_output=True, check=True, timeout=60
        )
    assert not mended(workspace)  # the last hint has taken it all back
