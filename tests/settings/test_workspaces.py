"""Several loops in one configuration, and a directory of configurations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.errors import UsageError
from codex_self_iter.settings import ConfigError, Settings, load, load_directory


def read(
    tmp_path: Path, text: str, flags: Mapping[str, Any] | None = None, **environ: str
) -> Settings:
    """Load `text` from a directory of its own, with another current directory."""
    (tmp_path / "conf").mkdir(exist_ok=True)
    (tmp_path / "cwd").mkdir(exist_ok=True)
    (tmp_path / "conf/c.toml").write_text(text)
    return load(
        flags or {}, config_file="../conf/c.toml", environ=environ, cwd=str(tmp_path / "cwd")
    )


ENTRIES = """
max_iterations = 1
kill_grace_sec = 1
[verify]
commands = ["a"]
timeout_sec = 5
[[workspaces]]
path = "one"
[[workspaces]]
path = "two"
name = "second"
priority = 3
max_iterations = 2
[workspaces.verify]
timeout_sec = 6
[workspaces.agents.codex]
model = "m"
"""


def test_without_entries_there_is_one_loop(tmp_path: Path) -> None:
    loaded = read(tmp_path, "max_iterations = 3")
    assert loaded.loops() == (loaded,)
    assert loaded.name == "cwd"


def test_an_entry_overrides_the_file_and_its_path_counts_from_the_file(tmp_path: Path) -> None:
    one, two = read(tmp_path, ENTRIES).loops()
    assert (one.workspace_path, two.workspace_path) == (
        tmp_path / "conf/one",
        tmp_path / "conf/two",
    )
    assert (one.name, one.priority, two.name, two.priority) == ("one", 0, "second", 3)
    assert (one.max_iterations, two.max_iterations) == (1, 2)
    assert (two.verify.commands, two.verify.timeout_sec) == (("a",), 6)
    assert (one.agents.codex.model, two.agents.codex.model) == ("", "m")
    assert one.loops() == (one,)


def test_a_flag_and_a_variable_win_over_an_entry(tmp_path: Path) -> None:
    environ = {"CODEX_SELF_ITER_VERIFY__TIMEOUT_SEC": "9"}
    loops = read(tmp_path, ENTRIES, {"max_iterations": 8}, **environ).loops()
    assert [(loop.max_iterations, loop.verify.timeout_sec) for loop in loops] == [(8, 9), (8, 9)]


def test_a_workspace_by_flag_picks_its_entry_or_stands_alone(tmp_path: Path) -> None:
    (picked,) = read(tmp_path, ENTRIES, {"workspace": "../conf/two"}).loops()
    assert (picked.name, picked.max_iterations) == ("second", 2)
    (alone,) = read(tmp_path, ENTRIES, {"workspace": "../other"}).loops()
    assert (alone.name, alone.max_iterations, alone.workspaces) == ("other", 1, ())


def test_entries_by_flag_count_from_the_current_directory(tmp_path: Path) -> None:
    loops = read(
        tmp_path, "max_iterations = 3", {"workspaces": [{"path": "a"}, {"path": "../b"}]}
    ).loops()
    assert [loop.workspace_path for loop in loops] == [tmp_path / "cwd/a", tmp_path / "b"]
    assert [loop.max_iterations for loop in loops] == [3, 3]


def test_directories_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    loops = read(
        tmp_path, "\n".join(f'[[workspaces]]\npath = "{name}/x"' for name in "abc")
    ).loops()
    assert [loop.name for loop in loops] == ["x", "x-2", "x-3"]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('name = "x"', "c.toml:1: workspaces[0].path: is required"),
        ('path = ""', "c.toml:2: workspaces[0].path: must be a path"),
        (
            'path = "a"\npriority = "high"',
            "c.toml:3: workspaces[0].priority: must be a whole number",
        ),
        (
            'path = "a"\nmax_iteration = 3',
            "c.toml:3: workspaces[0].max_iteration: unknown key; did you mean",
        ),
        (
            'path = "a"\nmax_iterations = "3"',
            "c.toml:3: workspaces[0].max_iterations: must be a whole",
        ),
        (
            'path = "a"\nverify.commands = [""]',
            "c.toml:3: workspaces[0].verify.commands[0]: must not be",
        ),
        (
            'path = "a"\nbackoff_max_sec = 1',
            "c.toml:3: workspaces[0].backoff_max_sec: must be at least",
        ),
        ('path = "a"\nworkspace = "b"', "c.toml:3: workspaces[0].workspace: unknown key; use path"),
        (
            'path = "a"\npool.max_agents = 3',
            "c.toml:3: workspaces[0].pool: unknown key; it belongs to",
        ),
        ('path = "a"\nname = "a/b"', "c.toml:3: workspaces[0].name: must be printable"),
        (
            'path = "a"\n[[workspaces]]\npath = "./x/../a"',
            "c.toml:4: workspaces[1].path: is the same directory",
        ),
        (
            'path = "a"\n[[workspaces]]\npath = "b"\nstate_dir = "../a/.codex-self-iter"',
            "c.toml:5: workspaces[1].state_dir: is the same directory as that of workspaces[0]",
        ),
        (
            'path = "a"\nname = "n"\n[[workspaces]]\npath = "b"\nname = "n"',
            "c.toml:6: workspaces[1].name: is the same as that of workspaces[0]",
        ),
    ],
)
def test_an_error_in_an_entry_has_its_own_line(tmp_path: Path, entry: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "[[workspaces]]\n" + entry)
    assert str(caught.value).startswith("1 error ")
    assert says in str(caught.value)


def test_one_state_directory_for_several_entries_is_an_error(tmp_path: Path) -> None:
    entries = '[[workspaces]]\npath = "a"\n[[workspaces]]\npath = "b"\n'
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f'state_dir = "{tmp_path}/s"\n{entries}')
    says = (
        "c.toml:1: state_dir: workspaces.1.state_dir is the same directory as that of workspaces[0]"
    )
    assert f"{says}: {tmp_path}/s; give each its own" in str(caught.value)
    own = f'state_dir = "{tmp_path}/other"\n'
    assert len(read(tmp_path, f'state_dir = "{tmp_path}/s"\n{entries}{own}').loops()) == 2


def test_one_state_directory_for_two_files_is_an_error_of_the_second(tmp_path: Path) -> None:
    for name in "abc":
        state = "other" if name == "c" else "s"
        text = f'workspace = "/{name}"\nstate_dir = "{tmp_path}/{state}"\n'
        (tmp_path / f"{name}.toml").write_text(text)
    loaded, (error,) = load_directory(tmp_path)
    assert [one.name for one in loaded] == ["a", "c"]
    says = f"{tmp_path}/b.toml: state_dir: {tmp_path}/s is already that of {tmp_path}/a.toml"
    assert says in str(error)


def test_errors_of_the_file_and_of_several_entries_come_together(tmp_path: Path) -> None:
    text = 'mode = 1\n[[workspaces]]\npath = "a"\nmode = 2\n[[workspaces]]\npath = "b"\nx = 1'
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert [problem.where.rsplit(":", 1)[1] for problem in caught.value.problems] == ["1", "4", "7"]


def test_a_directory_loads_the_good_files_and_reports_each_bad_one(tmp_path: Path) -> None:
    for name, text in {
        "a.toml": 'workspace = "wa"',
        "b.toml": "x = 1",
        "c.toml": "not toml",
        "d.toml": "max_iterations = 1",
        "e.toml": f'workspace = "{tmp_path}/wa"',
        "f.toml": '[[workspaces]]\npath = "f1"\n[[workspaces]]\npath = "f2"',
        ".hidden.toml": "not toml",
        "notes.txt": "not toml",
    }.items():
        (tmp_path / name).write_text(text)
    loaded, failed = load_directory(tmp_path)
    assert [loop.workspace_path.name for one in loaded for loop in one.loops()] == [
        "wa",
        "f1",
        "f2",
    ]
    assert [loop.name for one in loaded for loop in one.loops()] == ["a", "f1", "f2"]
    reports = [str(error) for error in failed]
    assert len(reports) == 4
    for report, says in zip(
        reports,
        (
            "b.toml:1: x: unknown key",
            "c.toml:1: the configuration file is not TOML",
            "d.toml: workspace: is required",
            "e.toml: workspace:",
        ),
        strict=True,
    ):
        assert says in report


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_directory(tmp_path / "gone")
