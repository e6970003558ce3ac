"""All loops of one user: found without a workspace, named, told apart, cleaned."""

import json
import os
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from codex_self_iter.screens import sources
from codex_self_iter.screens.loops import Target
from codex_self_iter.views.troubles import troubles
from codex_self_iter.world import registry


@pytest.fixture(autouse=True)
def scratch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)


def loop(tmp_path: Path, name: str) -> Path:
    state_dir = tmp_path / name / ".codex-self-iter"
    state_dir.mkdir(parents=True)
    registry.register(Path(name).name, str(state_dir.parent), str(state_dir))
    return state_dir


def test_what_was_registered_is_listed_once_and_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        state_dir = loop(tmp_path, "repo")
        registry.register("renamed", str(tmp_path / "repo"), str(state_dir))
    finally:
        os.umask(old)
    (entry,) = registry.entries()
    assert entry == (
        "renamed",
        str(tmp_path / "repo"),
        str(state_dir),
        os.getpid(),
        registry.boot_id(),
    )
    (file,) = Path(registry.directory()).iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_an_entry_whose_state_directory_is_gone_is_cleaned(tmp_path: Path) -> None:
    state_dir = loop(tmp_path, "repo")
    dead = subprocess.Popen(["true"])
    dead.wait()
    (file,) = Path(registry.directory()).iterdir()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pid": dead.pid}))
    state_dir.rmdir()
    assert registry.entries(clean=False) == []
    assert file.exists()
    assert registry.entries() == []
    assert not file.exists()


def test_a_living_supervisor_keeps_its_entry_while_its_directory_is_gone(tmp_path: Path) -> None:
    loop(tmp_path, "repo").rmdir()
    assert len(registry.entries()) == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 1}', "\x00", '{"pid": "x"}'])
def test_foreign_files_are_passed_over(tmp_path: Path, content: str) -> None:
    loop(tmp_path, "repo")
    (Path(registry.directory()) / "foreign.json").write_text(content)
    assert len(registry.entries()) == 1


def test_twins_get_the_shortest_path_that_tells_them_apart(tmp_path: Path) -> None:
    for name in ("a/app", "b/app", "other"):
        loop(tmp_path, name)
    found = registry.entries()
    assert sorted(registry.display_names(found).values()) == ["a/app", "b/app", "other"]
    assert len(registry.find("app", found)) == 2
    assert [entry.workspace for entry in registry.find("b/app", found)] == [str(tmp_path / "b/app")]
    assert len(registry.find(str(tmp_path / "a/app"), found)) == 1
    assert registry.find("nobody", found) == []


def test_two_loops_in_one_workspace_are_told_apart_too(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        registry.register("repo", str(tmp_path), str(tmp_path / name))
    names = set(registry.display_names(registry.entries()).values())
    assert len(names) == 2
    assert all(name.startswith("repo~") for name in names)


def test_the_table_of_all_loops(make_command, tmp_path: Path) -> None:
    one, two = make_command("a/app"), make_command("b/app")
    for command in (one, two):
        command.write_status()
        registry.register("app", str(command.workspace), str(command.state_dir))
    done = one("status", cwd=tmp_path)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "ITERATION", "SINCE", "PLAN", "WORKSPACE"]
    assert lines[1].startswith("a/app  running  12")
    assert "8/12" in lines[2]
    values = json.loads(one("status", "--all", "--json").stdout)
    assert [value["alive"] for value in values] == [True, True]


def test_a_loop_whose_state_directory_is_gone_is_forgotten_not_without_a_word(
    make_command, tmp_path: Path
) -> None:
    one, two = make_command("a/app"), make_command("b/app")
    for command in (one, two):
        command.write_status()
        registry.register("app", str(command.workspace), str(command.state_dir))
    one.release()
    for file in Path(registry.directory()).glob("*.json"):
        entry = json.loads(file.read_text())
        if entry["workspace"] == str(one.workspace):
            file.write_text(json.dumps(entry | {"pid": 0}))
    shutil.rmtree(one.state_dir)
    gone = f"its state directory {one.state_dir} is gone"
    assert f"{gone}." in one("status", "--workspace", ".").stdout, "not that none has ever run"
    two("status")  # nobody else makes it forgotten
    assert len(json.loads(two("status", "--all", "--json").stdout)) == 2
    told = two("status", "--all").stdout
    assert f"Forgotten: a/app, {gone}." in told
    assert len(told.splitlines()) == 3
    assert "Forgotten" not in two("status", "--all").stdout


def test_of_a_loop_whose_workspace_is_gone_only_commands_that_work_are_named(
    make_command, tmp_path: Path
) -> None:
    one = make_command("app")
    other = make_command("other")
    one.write_status(state="stopped")
    state = tmp_path / "kept state"
    one.release()
    one.state_dir.rename(state)
    registry.register("app", str(one.workspace), str(state))
    shutil.rmtree(one.workspace)
    told = " ".join(other("status", "--loop", "app").stdout.split())
    named = f"history --state-dir '{state}'"
    assert f"codex-self-iter {named} (its workspace {one.workspace} is gone)" in told
    assert f"--workspace {one.workspace}" not in told
    done = other(*shlex.split(named))
    assert (done.returncode, done.stderr) == (0, "")
    shown = sources.show("app", Target("app", str(one.workspace), str(state)))
    (trouble,) = troubles(shown.seen, shown.around)
    assert (trouble.kind, trouble.mend) == ("homeless", f"codex-self-iter {named}")


def test_a_first_start_that_was_refused_leaves_no_loop(make_command) -> None:
    one = make_command("app")
    refused = one("run", "--max-iterations", "1")
    assert refused.returncode == 2
    assert "plan.md" in refused.stderr
    assert not Path(registry.directory()).exists()
    assert "Forgotten" not in one("status", "--all").stdout


def test_a_name_leads_to_its_loop_and_an_ambiguous_one_is_explained(
    make_command, tmp_path: Path
) -> None:
    one, two = make_command("a/app"), make_command("b/app")
    for command, iteration in ((one, 1), (two, 2)):
        command.write_status(iteration=iteration)
        registry.register("app", str(command.workspace), str(command.state_dir))
    assert json.loads(one("status", "b/app", "--json", cwd=tmp_path).stdout)["iteration"] == 2
    ambiguous = one("status", "app", cwd=tmp_path)
    assert ambiguous.returncode == 2
    assert "2 loops are called 'app'" in ambiguous.stderr
    assert "a/app" in ambiguous.stderr
    unknown = one("status", "a/ap", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "did you mean 'a/app'" in unknown.stderr
    assert (
        json.loads(one("status", str(two.workspace), "--json", cwd=tmp_path).stdout)["iteration"]
        == 2
    )


def test_a_state_directory_given_by_flag_is_remembered(make_command, tmp_path: Path) -> None:
    """`status` finds what `run --state-dir` used, without being told again."""
    command = make_command("repo")
    command.write_status()
    elsewhere = tmp_path / "elsewhere"
    command.state_dir.rename(elsewhere)
    registry.register("repo", str(command.workspace), str(elsewhere))
    assert json.loads(command("status", "--json", "--workspace", ".").stdout)["iteration"] == 12


def test_nothing_known(make_command, tmp_path: Path) -> None:
    command = make_command("empty")
    assert "No loop of this user is known" in command("status").stdout
    assert json.loads(command("status", "--json").stdout) == []
