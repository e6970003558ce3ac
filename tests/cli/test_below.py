"""In a directory below a loop's workspace: every command says which was probably meant."""

import subprocess
from pathlib import Path

import pytest

MEANT = "did you mean --workspace '{}'?"


@pytest.fixture
def below(command) -> Path:
    """A directory of the workspace of `command`, which is a repository."""
    subprocess.run(["git", "init", "-q", command.workspace], check=True)
    command.state_dir.mkdir()
    path: Path = command.workspace / "src" / "deep"
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize(
    "words", ["run", "history", "show", "logs", "stop", "pause", "goal x", "steer x", "diff 1"]
)
def test_a_command_refuses_and_names_the_workspace(command, below: Path, words: str) -> None:
    done = command(*words.split(), cwd=below)
    assert done.returncode == 2
    assert MEANT.format(command.workspace) in done.stderr
    assert list(below.iterdir()) == []


def test_status_shows_what_it_would_and_names_the_workspace(command, below: Path) -> None:
    for words in (), ("--workspace", "."):
        done = command("status", *words, cwd=below)
        assert (done.returncode, done.stderr) == (0, "")
        assert MEANT.format(command.workspace) in done.stdout
    assert "did you mean" not in command("status", "--all", cwd=below).stdout


def test_init_says_that_it_writes_into_a_part(command, below: Path) -> None:
    assert f"did you mean {command.workspace}?" in command("init", cwd=below).stdout
    command.state_dir.rmdir()
    below.joinpath("plan.md").unlink()
    told = command("init", cwd=below).stdout
    assert f"not the top of its git repository, which is {command.workspace}" in told
    assert "did you mean" not in told
    assert "note " not in command("init").stdout


@pytest.mark.parametrize("mark", [".git", "plan.md"])
def test_a_repository_or_workspace_of_its_own_means_itself(command, below: Path, mark: str) -> None:
    (below / mark).mkdir()
    for words in ["history"], ["run"]:
        assert "did you mean" not in command(*words, cwd=below).stderr
