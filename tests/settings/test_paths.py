"""Workspace, plan, task and state directory: refused with what to do, before anything starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_self_iter.errors import UsageError
from codex_self_iter.settings import Settings, load, validate_workspace
from codex_self_iter.settings.paths import state_flaws


def prepared(tmp_path: Path) -> Path:
    """A workspace with a plan, in a directory with an awkward name."""
    path = tmp_path / "a b{c}$d'é"
    path.mkdir()
    (path / "plan.md").write_text("- [ ] x")
    return path


def test_paths_are_absolute_and_real(tmp_path: Path) -> None:
    workspace = prepared(tmp_path)
    (tmp_path / "link").symlink_to(workspace)
    loaded = load({"workspace": "link"}, config_file=None, environ={}, cwd=str(tmp_path))
    paths = validate_workspace(loaded)
    assert paths.workspace == workspace
    assert paths.plan == workspace / "plan.md"
    assert paths.task == workspace / "TASK.md"
    assert paths.state_dir == workspace / ".codex-self-iter"


def test_absolute_paths_elsewhere_are_taken_as_they_are(tmp_path: Path) -> None:
    workspace = prepared(tmp_path)
    (tmp_path / "p.md").write_text("x")
    settings = Settings(
        workspace=workspace, plan_file=tmp_path / "p.md", state_dir=tmp_path / "state"
    )
    paths = validate_workspace(settings)
    assert (paths.plan, paths.state_dir) == (tmp_path / "p.md", tmp_path / "state")


def _remove(path: Path) -> None:
    (path / "plan.md").unlink()


def _directory(path: Path) -> None:
    _remove(path)
    (path / "plan.md").mkdir()


def _fifo(path: Path) -> None:
    _remove(path)
    os.mkfifo(path / "plan.md")


def _dangling(path: Path) -> None:
    _remove(path)
    (path / "plan.md").symlink_to("gone.md")


FLAWS: list[tuple[Callable[[Path], object], str]] = [
    (_remove, "plan.md does not exist; `codex-self-iter init --workspace "),
    (_dangling, "it is a symbolic link to nothing"),
    (_directory, "plan.md is a directory"),
    (_fifo, "plan.md is not a plain file"),
    (lambda path: (path / "plan.md").write_text(" \n\t\n"), "plan.md is empty"),
    (lambda path: (path / "plan.md").write_bytes(b"\xef\xbb\xbf"), "plan.md is empty"),
    (
        lambda path: (path / "plan.md").write_bytes(b"a\n\xff"),
        "plan.md is not UTF-8 (line 2, byte 0xff)",
    ),
    (lambda path: (path / "TASK.md").mkdir(), "TASK.md is a directory"),
    (lambda path: (path / "TASK.md").write_bytes(b"\xff"), "TASK.md is not UTF-8"),
    (
        lambda path: (path / ".codex-self-iter").write_text(""),
        "is not a directory; move that file away",
    ),
]


@pytest.mark.parametrize(("spoil", "says"), FLAWS)
def test_a_flaw_is_refused_with_what_to_do(
    tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    workspace = prepared(tmp_path)
    validate_workspace(Settings(workspace=workspace))  # negative control: it was good before
    spoil(workspace)
    with pytest.raises(UsageError) as caught:
        validate_workspace(Settings(workspace=workspace))
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("state_dir", "says"),
    [(".", "is the workspace"), ("..", "or above it"), (".git/x", "git's own directory")],
)
def test_a_state_directory_that_would_hide_the_repository_is_refused(
    tmp_path: Path, state_dir: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        validate_workspace(Settings(workspace=prepared(tmp_path), state_dir=Path(state_dir)))


FOREIGN = ["main.py", "status.json main.py", "logs/app.log main.py", ".config", "task.md.orig"]
OURS = [
    "", "inbox/1.md", "STOP PAUSE", "inbox/goal", "task.md plan.md", "task.md task-1.md plan-12.md",
    ".gitignore", "runtime.json.tmp", "lost+found/x", "logs/supervisor.log", "prompts/1.md",
    "runtime.json main.py", "runtime.json.1 main.py", "loop.lock main.py", "logs/runs/1/x main.py",
    "logs/iterations.jsonl main.py", "inbox/done/1.md main.py", "quarantine/x main.py",
]  # fmt: skip


@pytest.mark.parametrize("names", [*FOREIGN, *OURS])
def test_a_state_directory_that_holds_something_else_is_refused(tmp_path: Path, names: str) -> None:
    workspace = prepared(tmp_path)
    for name in names.split():
        (workspace / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / "src" / name).touch()
    settings = Settings(workspace=workspace, state_dir=Path("src"))
    flaws = list(state_flaws(settings))
    if names in OURS:
        assert flaws == []
        return
    alien = names.split()[-1]
    (flaw,) = flaws
    assert f"{workspace}/src holds something else ({alien}), and" in flaw
    assert flaw.endswith("; name one that is new or empty (state_dir)")
    with pytest.raises(UsageError, match="holds something else"):
        validate_workspace(settings)


def test_the_configured_lock_and_stop_files_are_ours(tmp_path: Path) -> None:
    workspace = prepared(tmp_path)
    (workspace / "s").mkdir()
    (workspace / "s/halt").touch()
    settings = Settings(workspace=workspace, state_dir=Path("s"), lock_file_name="my.lock")
    assert list(state_flaws(settings)) != []
    assert list(state_flaws(settings.model_copy(update={"stop_file_name": "halt"}))) == []
    (workspace / "s/my.lock").touch()
    assert list(state_flaws(settings)) == []


def test_a_missing_workspace_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, says in (("gone", "does not exist"), ("file", "is not a directory")):
        with pytest.raises(UsageError, match=says):
            validate_workspace(Settings(workspace=tmp_path / name))


def test_all_flaws_are_listed_at_once(tmp_path: Path) -> None:
    workspace = prepared(tmp_path)
    _remove(workspace)
    (workspace / "TASK.md").mkdir()
    with pytest.raises(UsageError) as caught:
        validate_workspace(Settings(workspace=workspace))
    assert len(str(caught.value).splitlines()) == 2


def test_a_plan_with_a_byte_order_mark_is_a_plan(tmp_path: Path) -> None:
    workspace = prepared(tmp_path)
    (workspace / "plan.md").write_bytes(b"\xef\xbb\xbf- [ ] x")
    validate_workspace(Settings(workspace=workspace))
