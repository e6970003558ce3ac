"""The state directory comes back as it was: broken files, deleted files, older and newer versions,
kill -9."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codex_self_iter.core.state import LoopState, to_json
from codex_self_iter.errors import StorageError, UsageError
from codex_self_iter.world.state.codec import recover
from codex_self_iter.world.state.journal import tail
from codex_self_iter.world.state.migrations import SCHEMA, migrate
from codex_self_iter.world.state.redact import Redactor
from codex_self_iter.world.state.store import StateDirectory


def snapshot(iteration: int, **fields: object) -> dict:
    return json.loads(json.dumps(to_json(LoopState("loop", iteration=iteration)))) | fields


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def opened(workspace: Path):
    """Open the workspace's state directory; may be called again (a restart)."""
    stores: list[StateDirectory] = []

    def open_it(**options: object) -> StateDirectory:
        stores.append(StateDirectory(str(workspace / ".state"), str(workspace), **options))
        return stores[-1]

    yield open_it
    for one in stores:
        one.close()


def at(store: StateDirectory, name: str) -> Path:
    return Path(store.path, name)


def aside(store: StateDirectory) -> list[str]:
    return sorted(os.listdir(at(store, "quarantine")))


# -- creating --------------------------------------------------------------------------------------


def test_it_is_made_with_its_parts_and_never_dirties_the_repository(
    opened, workspace: Path
) -> None:
    subprocess.run(["git", "init", "-q", workspace], check=True)
    store = opened()
    store.save_runtime(snapshot(1))
    store.save_status({"state": "running"})
    store.append_journal({"iteration": 1})
    store.save_prompt(1, "executor", "do it")
    found = subprocess.run(
        ["git", "-C", workspace, "status", "--porcelain"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert found == ""
    for where, directories, files in os.walk(store.path):
        assert all(stat.S_IMODE(os.stat(f"{where}/{one}").st_mode) == 0o700 for one in directories)
        assert all(stat.S_IMODE(os.stat(f"{where}/{one}").st_mode) == 0o600 for one in files)


def test_a_directory_that_holds_the_workspace_is_refused(workspace: Path) -> None:
    for path in (workspace, workspace.parent):
        with pytest.raises(UsageError, match="directory of its own"):
            StateDirectory(str(path), str(workspace))
    assert os.listdir(workspace) == []


def test_somebody_elses_repository_is_refused(workspace: Path) -> None:
    (workspace / "other/.git").mkdir(parents=True)
    with pytest.raises(UsageError, match="git repository"):
        StateDirectory(str(workspace / "other"), str(workspace))


def test_prompts_runs_and_report_have_the_documented_places(opened) -> None:
    store = opened()
    assert store.save_prompt(12, "executor", "text ü") == str(
        at(store, "prompts/000012-executor.md")
    )
    assert store.save_prompt(12, "executor", "again", 2).endswith("prompts/000012-executor-2.md")
    assert at(store, "prompts/000012-executor.md").read_text() == "text ü"
    assert store.run_directory(12, "gate-1").endswith("logs/runs/000012-gate-1")
    assert store.run_directory(12, "executor", 2).endswith("logs/runs/000012-executor-2")
    assert os.path.isdir(store.run_directory(12, "executor", 2))
    assert Path(store.write_report("done")).read_text() == "done"


# -- recovery order --------------------------------------------------------------------------------


def test_a_new_directory_knows_nothing(opened) -> None:
    found = opened().load()
    assert (found.runtime, found.last_line, found.warnings) == (None, None, [])


def test_the_snapshot_comes_first(opened) -> None:
    store = opened()
    store.save_runtime(snapshot(1))
    store.save_runtime(snapshot(2))
    store.append_journal({"iteration": 2})
    found = opened().load()
    assert (found.runtime, found.last_line) == (snapshot(2), {"iteration": 2})
    assert found.warnings == []


BROKEN = {
    "empty": b"",
    "torn": b'{"schema": 1, "iter',
    "nul": b"\0" * 4096,
    "list": b"[]",
    "foreign": b'{"name": "somebody else"}',
    "not-utf8": b'{"schema":1,"iteration":1,"goal":"\xff"}',
    "deep": b"[" * 100_000,
    "no-number": b'{"schema":1,"loop_id":"x","iteration":"three"}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_snapshot_is_set_aside_and_the_previous_one_is_used(
    opened, content: bytes
) -> None:
    store = opened()
    store.save_runtime(snapshot(1))
    store.save_runtime(snapshot(2))
    at(store, "runtime.json").write_bytes(content)
    found = opened().load()
    assert found.runtime == snapshot(1)
    assert len(found.warnings) == 2
    (one,) = aside(store)
    assert at(store, f"quarantine/{one}").read_bytes() == content
    assert opened().load().runtime == snapshot(1), "and again after another restart"


def test_without_snapshots_the_journal_speaks(opened) -> None:
    store = opened()
    store.save_runtime(snapshot(1))
    store.append_journal({"iteration": 3, "next_goal": "go on"})
    for name in ("runtime.json", "runtime.json.1"):
        at(store, name).write_bytes(b"broken")
    found = opened().load()
    assert found.runtime is None
    assert found.last_line == {"iteration": 3, "next_goal": "go on"}
    assert len(aside(store)) == 2


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo"])
@pytest.mark.parametrize("name", ["runtime.json", "logs/iterations.jsonl"])
def test_what_is_no_file_is_set_aside(opened, tmp_path: Path, kind: str, name: str) -> None:
    store = opened()
    store.save_runtime(snapshot(1))
    store.save_runtime(snapshot(2))
    store.append_journal({"iteration": 2})
    path = at(store, name)
    path.unlink()
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps(snapshot(99)))
    {
        "directory": path.mkdir,
        "symlink": lambda: path.symlink_to(outside),
        "fifo": lambda: os.mkfifo(path),
    }[kind]()
    found = opened().load()
    assert found.runtime == snapshot(1 if name == "runtime.json" else 2)
    assert len(aside(store)) == 1
    assert found.warnings


@pytest.mark.parametrize(
    "journal", [b"", b"\0" * 9000, b"rubbish\n"], ids=["none", "nul", "rubbish"]
)
def test_when_nothing_is_readable_the_loop_never_starts_from_zero(opened, journal: bytes) -> None:
    store = opened()
    at(store, "runtime.json").write_bytes(b"broken")
    at(store, "logs/iterations.jsonl").write_bytes(journal)
    for _ in range(3):  # nor when a service manager or a person simply tries again
        with pytest.raises(UsageError, match="a loop has been here") as caught:
            opened().load()
        assert f"mv {store.path}" in str(caught.value)
    assert [at(store, f"quarantine/{one}").read_bytes() for one in aside(store)] == [b"broken"]
    shutil.move(store.path, f"{store.path}.old")
    assert opened().load().runtime is None, "what the message advises works"


def test_a_journal_that_is_gone_beside_a_good_snapshot_is_only_a_warning(opened) -> None:
    store = opened()
    store.save_runtime(snapshot(4))
    found = opened().load()
    assert found.runtime == snapshot(4)
    assert "is missing" in found.warnings[0]


def test_an_unreadable_journal_beside_a_good_snapshot_is_only_a_warning(opened) -> None:
    store = opened()
    store.save_runtime(snapshot(4))
    at(store, "logs/iterations.jsonl").write_bytes(b"rubbish\n")
    found = opened().load()
    assert found.runtime == snapshot(4)
    assert found.last_line is None
    assert len(found.warnings) == 1


# -- versions --------------------------------------------------------------------------------------


def test_a_newer_version_is_refused_and_nothing_is_moved(opened) -> None:
    store = opened()
    store.save_runtime(snapshot(1))
    store.save_runtime(snapshot(2))
    at(store, "runtime.json").write_text(json.dumps(snapshot(2, schema=SCHEMA + 1)))
    before = at(store, "runtime.json").read_bytes()
    with pytest.raises(UsageError, match="newer codex-self-iter"):
        opened().load()
    at(store, "runtime.json").write_bytes(b"broken")
    at(store, "runtime.json.1").write_bytes(before)
    with pytest.raises(UsageError, match="newer codex-self-iter"):
        opened().load()
    assert aside(store) == []


def test_an_older_version_is_migrated(opened) -> None:
    store = opened()
    old = snapshot(7)
    for name in ("schema", "goal"):
        del old[name]
    at(store, "runtime.json").write_text(json.dumps(old))
    found = opened().load()
    assert found.runtime == old | {"schema": SCHEMA}


def test_migrations_run_one_after_the_other() -> None:
    steps = {
        0: lambda old: {"schema": 1, "iteration": old["n"]},
        1: lambda old: old | {"schema": 2, "goal": ""},
    }
    old = {"n": 5}
    assert migrate(old, 2, steps) == {"schema": 2, "iteration": 5, "goal": ""}
    assert old == {"n": 5}
    with pytest.raises(ValueError, match="no migration"):
        migrate({"schema": 1}, 3, steps)
    with pytest.raises(UsageError):
        migrate({"schema": 4}, 3, steps)


# -- healing ---------------------------------------------------------------------------------------


@pytest.fixture
def busy(opened) -> StateDirectory:
    store = opened()
    store.acquire_lock()
    for number in (1, 2, 3):
        store.append_journal({"iteration": number})
        store.save_runtime(snapshot(number))
    store.save_status({"state": "running"})
    store.save_prompt(4, "executor", "the prompt")
    assert store.heal() == []
    return store


def content(store: StateDirectory) -> dict[str, bytes]:
    names = [
        "runtime.json",
        "runtime.json.1",
        "status.json",
        ".gitignore",
        "logs/iterations.jsonl",
        "loop.lock",
    ]
    return {name: at(store, name).read_bytes() for name in [*names, "prompts/000004-executor.md"]}


def test_a_deleted_directory_comes_back_as_it_was(busy: StateDirectory) -> None:
    before = content(busy)
    shutil.rmtree(busy.path)
    restored = busy.heal()
    assert content(busy) == before
    assert {
        "runtime.json",
        "logs/iterations.jsonl",
        "loop.lock",
        "status.json",
        "inbox/done/",
    } <= set(restored)
    assert busy.heal() == []
    assert stat.S_IMODE(os.stat(busy.path).st_mode) == 0o700


def test_git_clean_takes_nothing_for_long(busy: StateDirectory, workspace: Path) -> None:
    before = content(busy)
    subprocess.run(["git", "init", "-q", workspace], check=True)
    subprocess.run(["git", "-C", workspace, "clean", "-qxdff"], check=True)
    assert not os.path.exists(busy.path)
    busy.heal()
    assert content(busy) == before


@pytest.mark.parametrize(
    "name",
    [
        "runtime.json",
        "runtime.json.1",
        "status.json",
        ".gitignore",
        "logs/iterations.jsonl",
        "loop.lock",
        "logs",
        "inbox",
        "prompts",
    ],
)
def test_a_deleted_part_comes_back(busy: StateDirectory, name: str) -> None:
    before = content(busy)
    path = at(busy, name)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert busy.heal() != []
    assert content(busy) == before
    assert path.exists()


def test_a_directory_that_was_moved_away_and_made_again_is_filled_again(
    busy: StateDirectory, tmp_path: Path
) -> None:
    before = content(busy)
    os.rename(busy.path, tmp_path / "moved")
    os.makedirs(f"{busy.path}/inbox")
    Path(busy.path, "STOP").write_text("")
    busy.heal()
    assert content(busy) == before
    assert at(busy, "STOP").exists()


@pytest.mark.parametrize("write", ["runtime", "status", "journal", "run", "prompt"])
def test_every_write_into_a_deleted_directory_restores_it_first(
    busy: StateDirectory, write: str
) -> None:
    shutil.rmtree(busy.path)
    {
        "runtime": lambda: busy.save_runtime(snapshot(4)),
        "status": lambda: busy.save_status({}),
        "journal": lambda: busy.append_journal({"iteration": 4}),
        "run": lambda: busy.run_directory(4, "executor"),
        "prompt": lambda: busy.save_prompt(4, "executor", "x"),
    }[write]()
    assert tail(busy.journal.path, 3)[-1]["iteration"] == (4 if write == "journal" else 3)
    assert at(busy, "runtime.json").exists()


def test_a_snapshot_changed_by_another_program_is_set_aside(busy: StateDirectory) -> None:
    at(busy, "runtime.json").write_text('{"mine": true}')
    assert busy.heal() == ["runtime.json"]
    assert json.loads(at(busy, "runtime.json").read_bytes()) == snapshot(3)
    (one,) = aside(busy)
    assert at(busy, f"quarantine/{one}").read_text() == '{"mine": true}'
    at(busy, "runtime.json").write_text('{"mine": 2}')
    busy.save_runtime(snapshot(4))
    assert len(aside(busy)) == 2
    assert json.loads(at(busy, "runtime.json").read_bytes()) == snapshot(4)


def test_a_workspace_that_is_gone_is_not_made_again(busy: StateDirectory, workspace: Path) -> None:
    shutil.rmtree(workspace)
    with pytest.raises(StorageError, match=r"workspace .* is gone"):
        busy.heal()
    assert not workspace.exists()


# -- secrets ---------------------------------------------------------------------------------------


def test_no_secret_reaches_the_disk(opened) -> None:
    secret, key = "hunter2hunter2", "sk-ant-api03-" + "Ab1_" * 10
    store = opened(redactor=Redactor([secret]))
    dirty = f"use {secret} and {key}."
    store.save_runtime(snapshot(1, goal=dirty))
    store.save_runtime(snapshot(2, goal=dirty))
    store.save_status({"state": "running", "goal": dirty})
    store.append_journal({"iteration": 1, "evidence": [dirty], "gates": [{"output": dirty}]})
    store.save_prompt(1, "executor", dirty)
    verbatim = store.save_prompt(2, "executor", dirty, redact=False)
    assert Path(verbatim).read_text() == dirty
    assert store.redact_prompt(verbatim) == 2
    store.write_report(dirty)
    run = store.run_directory(1, "executor")
    Path(run, "stdout.log").write_text(f"{dirty}\n")
    assert store.redact_run(run) == 2
    Path(store.run_directory(2, "executor"), "stdout.log").write_text(f"{dirty}\n")
    store.save_prompt(2, "reviewer", dirty, redact=False)
    store.redact_iteration(2)
    # what the loop goes on from keeps its own words until nobody goes on from it
    assert json.loads(at(store, "runtime.json").read_bytes())["goal"] == dirty
    store.redact_runtime()
    for where, _, files in os.walk(store.path):
        for one in files:
            text = Path(where, one).read_text()
            assert secret not in text, one
            assert key not in text, one
    assert (
        json.loads(at(store, "runtime.json").read_bytes())["goal"]
        == "use [redacted] and [redacted]."
    )
    shutil.rmtree(store.path)
    store.heal()
    assert secret not in at(store, "status.json").read_text()


# -- kill -9 ---------------------------------------------------------------------------------------

WRITER = """
import sys
from codex_self_iter.core.state import LoopState, to_json
from codex_self_iter.world.state.store import StateDirectory

store = StateDirectory(sys.argv[1], sys.argv[2])
found = store.load()
number = max(found.runtime["iteration"] if found.runtime else 0, found.last_line["iteration"] if found.last_line else 0)
print("go", flush=True)
while True:
    number += 1
    store.append_journal({"iteration": number, "summary": "x" * 9000})
    store.save_runtime(to_json(LoopState("loop", iteration=number, goal="y" * 9000)))
    print(number, flush=True)
"""


SECRET = "zq9-4417-unfindable"


def closed(number: int, goal: str, ended_at: float) -> dict:
    last = {
        "iteration": number, "verdict": "continue", "summary": goal, "duration_sec": 1.0,
        "ended_at": ended_at, "tokens": None, "cost_usd": None,
    }  # fmt: skip
    return snapshot(number, goal=goal, last=last)


def line(after: dict) -> dict:
    return {"iteration": after["iteration"], "next_goal": after["goal"], "after": after}


def test_killed_after_the_line_the_loop_goes_on_from_its_own_words(opened) -> None:
    redactor = Redactor([SECRET])
    store = opened(redactor=redactor)
    store.save_runtime(snapshot(1, open={"number": 1, "goal": "", "started_at": 1.0}))
    after = closed(1, f"log in with {SECRET}", 5.0)
    store.append_journal(line(after))  # and here it is killed
    again = opened(redactor=redactor)
    loaded = again.load()
    assert recover(loaded.runtime, loaded.last_line, "x").goal == f"log in with {SECRET}"
    assert SECRET not in at(again, "logs/iterations.jsonl").read_text()
    assert loaded.warnings == []
    # once the snapshot is there it is what counts, also where the file is still beside it
    aside = at(again, "runtime.json.next").read_bytes()
    again.save_runtime(after | {"goal": "another", "iteration": 2})
    assert not at(again, "runtime.json.next").exists()
    at(again, "runtime.json.next").write_bytes(aside)
    loaded = opened(redactor=redactor).load()
    assert recover(loaded.runtime, loaded.last_line, "x").goal == "another"


def test_a_line_that_somebody_appended_hides_none_of_ours(opened) -> None:
    store = opened()
    store.save_runtime(snapshot(1, open={"number": 1, "goal": "", "started_at": 1.0}))
    store.append_journal(line(closed(1, "true", 5.0)))
    with at(store, "logs/iterations.jsonl").open("a") as file:
        file.write('{"iteration": 800, "next_goal": "a lie"}\n')
    loaded = opened().load()
    state = recover(loaded.runtime, loaded.last_line, "x")
    assert (state.iteration, state.open, state.goal) == (1, None, "true")


def test_the_state_of_a_line_that_was_never_written_is_none(opened) -> None:
    redactor = Redactor([SECRET])
    store = opened(redactor=redactor)
    store.save_runtime(snapshot(2, open={"number": 2, "goal": "", "started_at": 1.0}))
    store.append_journal(line(closed(1, "plain", 4.0)))
    never = closed(2, f"log in with {SECRET}", 5.0)
    at(store, "runtime.json.next").write_text(json.dumps(never))
    loaded = opened(redactor=redactor).load()
    assert recover(loaded.runtime, loaded.last_line, "x").open is not None
    store.append_journal(line(closed(2, "plain", 6.0)))
    loaded = opened(redactor=redactor).load()
    assert recover(loaded.runtime, loaded.last_line, "x").goal == "plain"


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_that_was_promised(opened, workspace: Path) -> None:
    chance = random.Random(7)
    promised = kills = 0
    while kills < 40 or promised <= 100:  # however slow the disk is
        kills += 1
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(workspace / ".state"), str(workspace)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "go\n"
        time.sleep(chance.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        said = writer.stdout.read().split()
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        promised = max([promised, *(int(word) for word in said if word)])
        store = opened()
        found = store.load()
        torn = [name for name in aside(store) if name.startswith("logs_iterations.jsonl.")]
        assert aside(store) == torn  # half a line, which nobody was promised
        assert not any("runtime.json.1" in one for one in found.warnings)
        lines = [line["iteration"] for line in store.journal_tail(10_000)]
        assert lines == list(range(1, len(lines) + 1)), "no number lost, none twice"
        assert len(lines) >= promised
        if promised:
            assert found.runtime is not None
            assert promised <= found.runtime["iteration"] <= len(lines)
        store.close()


NAIVE = """
import json, sys
print("go", flush=True)
while True:
    with open(sys.argv[1], "w") as file:
        file.write(json.dumps({"iteration": 1, "goal": "y" * 200_000}))
"""


def test_a_plain_overwrite_would_be_found_broken(tmp_path: Path) -> None:
    """The negative control: the same blows hit a writer that just writes."""
    path = tmp_path / "runtime.json"
    for _ in range(40):
        writer = subprocess.Popen(
            [sys.executable, "-c", NAIVE, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "go\n"
        time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        try:
            json.loads(path.read_bytes())
        except (ValueError, FileNotFoundError):
            return
    raise AssertionError("forty blows and never broken: the test above proves nothing")
