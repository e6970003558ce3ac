"""Which loops of a `--config-dir` end when files go, while other files in it cannot be read."""

from __future__ import annotations

import functools
import types
from pathlib import Path

import pytest

from codex_self_iter.supervisor.app import read_settings
from codex_self_iter.supervisor.members import Member
from codex_self_iter.supervisor.options import RunOptions
from codex_self_iter.supervisor.reload import AWAY_SEC, HELD_SEC, Reload

BAD = "no = ["


class Directory:
    """A directory of configurations with the loops `a` and `b`, and a clock that is set."""

    def __init__(self, path: Path) -> None:
        self.path, self.now, self.removed, self.warned = path, 0.0, [], {}
        for name in "ab":
            (path / f"{name} work").mkdir()
            self.write(name, f"workspace = {str(path / name) + ' work'!r}\n")
        options = RunOptions(config_dir=str(path))
        reader = functools.partial(read_settings, {}, options)
        log = types.SimpleNamespace(info=self.say, warning=self.say, error=self.say)
        clock = types.SimpleNamespace(monotonic=lambda: self.now)
        self.members = types.SimpleNamespace(by_name={}, remove=self.remove, stop=None)
        for settings in reader()[0]:
            self.members.by_name[settings.name] = Member(settings, loop=self.loop(settings.name))
        shared = types.SimpleNamespace(log=log, alone=False, watcher=None, clock=clock)
        self.reload = Reload(self.members, reader, options, shared)
        self.read()

    def loop(self, name: str) -> types.SimpleNamespace:
        warnings = types.SimpleNamespace(
            tell=lambda _, text: self.warned.__setitem__(name, text),
            clear=lambda _: self.warned.pop(name, None),
        )
        ctx = types.SimpleNamespace(warnings=warnings, tell=lambda: None)
        return types.SimpleNamespace(rounds=types.SimpleNamespace(ctx=ctx))

    def say(self, *_words: object, **_fields: object) -> None:
        """The log."""

    def remove(self, member: Member) -> None:
        self.removed.append(member.settings.name)
        member.leaving = True

    def write(self, name: str, text: str) -> None:
        (self.path / f"{name}.toml").write_text(text)

    def read(self, after: float = 0.0) -> list[str]:
        """The loops that have been let go after a reload, so much later."""
        self.now += after
        self.reload.run()
        return self.removed


@pytest.fixture
def place(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


def test_a_file_that_was_bad_before_keeps_no_other_loop_going(place: Directory) -> None:
    place.write("old", BAD)
    place.read()
    (place.path / "a.toml").unlink()
    assert (place.read(), place.warned) == ([], {})
    assert place.read(AWAY_SEC - 0.1) == []
    assert place.read(0.2) == ["a"]


def test_a_file_that_is_bad_itself_keeps_its_loop_and_is_named(place: Directory) -> None:
    place.write("old", BAD)
    place.write("a", BAD)
    assert place.read() == place.read(HELD_SEC * 100) == []
    assert list(place.warned) == ["a"]
    assert "/a.toml:1: " in place.warned["a"]
    assert "old.toml" not in place.warned["a"]
    (place.path / "a.toml").unlink()
    assert place.read() == []
    assert place.read(AWAY_SEC) == ["a"]


@pytest.mark.parametrize("late", [False, True])
def test_a_new_bad_file_may_be_the_missing_one_for_a_while(place: Directory, late: bool) -> None:
    whole = (place.path / "a.toml").read_text()
    (place.path / "a.toml").unlink()
    if late:
        place.read()
    place.write("renamed", BAD)
    assert place.read() == []
    assert "/renamed.toml:1: " in place.warned["a"]
    assert place.read(HELD_SEC - 0.1) == []
    place.write("renamed", whole)  # it was: the loop has another name, and its file
    place.read(100)
    assert (place.removed, place.warned, set(place.members.by_name)) == ([], {}, {"renamed", "b"})
    place.write("renamed", BAD)
    assert place.read() == place.read(HELD_SEC * 100) == []


def test_a_new_bad_file_keeps_a_loop_no_longer_than_that(place: Directory) -> None:
    (place.path / "a.toml").unlink()
    place.write("new", BAD)
    assert place.read() == place.read(HELD_SEC - 0.1) == []
    assert place.read(0.2) == ["a"]
