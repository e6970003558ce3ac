"""`doctor` on lanes: what would keep them from being made, worked on or landed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_self_iter.cli.doctor.checks_lanes import lanes
from codex_self_iter.cli.doctor.finding import Context, Finding
from codex_self_iter.settings import load

Look = Callable[..., dict[str, Finding]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository with one commit and a plan."""
    path = tmp_path / "a b"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    (path / "plan.md").write_text("- [ ] One\n- [ ] Two (after: 1)\n")
    git(path, "add", ".")
    git(path, "-c", "user.name=N", "-c", "user.email=n@example.invalid", "commit", "-qm", "First")
    return path


@pytest.fixture
def look(place: Path, tmp_path: Path) -> Look:
    """The findings by id; keys of [lanes] and the gates as they are given."""

    def run(
        gates: tuple[str, ...] = ("true",), path: str = "", **keys: object
    ) -> dict[str, Finding]:
        given = {"workspace": str(place), "lanes": {"max": 2, **keys}}
        settings = load(
            given | {"verify": {"commands": gates}}, environ={}, cwd=str(tmp_path), config_file=None
        )
        environ = {"PATH": path or "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
        return {one.id: one for one in lanes(Context(settings, environ, 0.0))}

    return run


def git(path: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(path), *words], check=True, capture_output=True)


def faults(found: dict[str, Finding]) -> dict[str, str]:
    return {name: one.status for name, one in found.items() if one.status != "ok"}


def test_where_all_is_well_it_is_said_where_lanes_land(look: Look, tmp_path: Path) -> None:
    found = look(directory=str(tmp_path / "lanes"))
    assert faults(found) == {}
    assert found["lanes.target"].what == "lanes land on main, which is checked out"
    assert found["lanes.plan"].what.startswith("2 of 2 items are open")
    assert not (tmp_path / "lanes").exists()


def test_without_lanes_nothing_is_said(look: Look) -> None:
    assert look(max=1) == {}


def test_an_old_git_is_told_which_one_is_needed(look: Look, tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho git version 2.37.9\n")
    fake.chmod(0o755)
    found = look(path=str(fake.parent))
    assert faults(found) == {"lanes.git": "fail"}
    assert found["lanes.git"].what == "lanes need git 2.38 or later; this is git version 2.37.9"
    assert "[lanes] max = 1" in found["lanes.git"].mend


def test_lanes_need_a_repository_and_a_first_commit(look: Look, place: Path) -> None:
    (place / ".git").rename(place.parent / "git")
    found = look()
    assert faults(found) == {"lanes.repository": "fail"}
    assert "lanes need a git repository" in found["lanes.repository"].what
    git(place, "init", "-q")
    found = look()
    assert "lanes need a first commit" in found["lanes.repository"].what


def test_a_target_must_be_known_and_there(look: Look, place: Path) -> None:
    assert faults(look(target="gone")) == {"lanes.target": "fail"}
    git(place, "switch", "-q", "--detach")
    found = look()
    assert faults(found) == {"lanes.target": "fail"}
    assert "HEAD is detached" in found["lanes.target"].what
    assert faults(look(target="main")) == faults(look(target="refs/heads/main")) == {}


def test_work_trees_are_not_made_in_the_repository(look: Look, place: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(place)  # the settings alone cannot see through it
    found = look(directory=str(link / "lanes"))
    assert "is inside the repository" in found["lanes.directory"].what
    (tmp_path / "file").write_text("")
    found = look(directory=str(tmp_path / "file" / "lanes"))
    assert "cannot be written" in found["lanes.directory"].what


def test_without_gates_landing_proves_nothing(look: Look) -> None:
    found = look(gates=())
    assert faults(found) == {"lanes.gates": "warn"}
    assert "nothing proves what lanes land" in found["lanes.gates"].what


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("Do it.\n", "fail", "has no items"),
        ("- [x] One\n", "warn", "every item of"),
        ("- [ ] One (after: 2)\n- [ ] Two (after: 1)\n", "fail", "item 1 can never begin"),
        ("- [ ] One (after: 9)\n", "fail", "names no item"),
    ],
)
def test_a_plan_that_lanes_cannot_follow(
    look: Look, place: Path, text: str, status: str, words: str
) -> None:
    (place / "plan.md").write_text(text)
    found = look()
    assert faults(found) == {"lanes.plan": status}
    assert words in found["lanes.plan"].what
    assert found["lanes.plan"].mend
