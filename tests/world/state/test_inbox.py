"""Messages arrive once, in order and whole; sentinels mean what their first line says."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codex_self_iter.errors import StorageError
from codex_self_iter.world.state.durable import storing
from codex_self_iter.world.state.inbox import (
    GOAL,
    MAX_FOREIGN,
    MAX_MESSAGE,
    Inbox,
    is_now,
    read_pause,
    read_stop,
    remove_pause,
    remove_stop,
    write_goal,
    write_message,
    write_pause,
    write_stop,
)
from codex_self_iter.world.state.root import StateRoot


@pytest.fixture
def inbox(root: StateRoot) -> Inbox:
    return Inbox(root)


def texts(inbox: Inbox) -> list[str]:
    return [message.text for message in inbox.messages()]


def test_messages_come_in_the_order_of_their_arrival_and_once(
    root: StateRoot, inbox: Inbox
) -> None:
    for number in range(20):
        write_message(root.path, f"message {number}")
    assert texts(inbox) == [f"message {number}\n" for number in range(20)]
    inbox.mark_done([message.name for message in inbox.messages()[:19]], 12)
    assert texts(inbox) == ["message 19\n"]
    done = sorted(os.listdir(f"{root.path}/inbox/done"))
    assert len(done) == 19
    assert all(name.startswith("000012-") and name.endswith(".md") for name in done)


def test_a_file_dropped_late_under_an_early_name_comes_late(root: StateRoot, inbox: Inbox) -> None:
    write_message(root.path, "first")
    time.sleep(0.02)  # more than the clock tick of the file system
    Path(root.path, "inbox/0-note.txt").write_text("second")
    assert texts(inbox) == ["first\n", "second"]


def test_a_write_is_private_and_leaves_no_temporary(root: StateRoot) -> None:
    for path in (
        write_message(root.path, "x"),
        write_goal(root.path, "y"),
        write_stop(root.path),
        write_pause(root.path),
    ):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert [name for name in os.listdir(f"{root.path}/inbox") if name.startswith(".")] == []


def test_the_commands_work_before_the_first_run(tmp_path: Path) -> None:
    state = str(tmp_path / "work/.state")
    write_message(state, "hello")
    assert stat.S_IMODE(os.stat(state).st_mode) == 0o700
    assert Path(state, ".gitignore").read_text() == "*\n"


def test_half_written_and_hidden_files_wait(root: StateRoot, inbox: Inbox) -> None:
    with root.directory("inbox/done"):
        pass
    Path(root.path, "inbox/empty.md").touch()
    for name in (".editor.swp", "note.md~", "#note.md#", "note.swp"):
        Path(root.path, "inbox", name).write_text("x")
    Path(root.path, "inbox/folder").mkdir()
    assert inbox.messages() == []
    Path(root.path, "inbox/empty.md").write_text("now whole")
    assert texts(inbox) == ["now whole"]


def test_a_symlink_in_the_inbox_is_not_read(root: StateRoot, inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("do not send this to an agent")
    write_message(root.path, "fine")
    os.symlink(tmp_path / "secret", f"{root.path}/inbox/link.md")
    assert texts(inbox) == ["fine\n"]
    assert len(os.listdir(f"{root.path}/quarantine")) == 1


READ = """
import sys
from codex_self_iter.world.state.inbox import Inbox
from codex_self_iter.world.state.root import StateRoot
root = StateRoot(sys.argv[1])
print([message.text for message in Inbox(root).messages()], *root.take_warnings())
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="NOT TESTED HERE: a file of somebody else's needs root and setpriv",
)
def test_a_message_that_may_not_be_read_is_kept_and_said(root: StateRoot, inbox: Inbox) -> None:
    write_message(root.path, "fine")
    private = Path(root.path, "inbox/private.md")
    private.write_text("for later")
    private.chmod(0)
    os.chown(private, 12345, 12345)  # of our own the rights would be taken back
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    told = subprocess.run(
        [*powerless, sys.executable, "-c", READ, root.path],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert told.startswith(r"['fine\n']")
    assert "it may not be read" in told
    (kept,) = Path(root.path, "quarantine").iterdir()
    assert kept.read_text() == "for later"


class BadSector(StateRoot):
    """A disk that cannot read one file."""

    def read(self, name: str, limit: int) -> bytes | None:
        with storing("read", name):
            if name.endswith("bad.md"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(name, limit)


def test_a_message_that_the_disk_cannot_read_now_stays_where_it_is(root: StateRoot) -> None:
    write_message(root.path, "fine")
    Path(root.path, "inbox/bad.md").write_text("unreadable")
    with contextlib.closing(BadSector(root.path)) as broken:
        with pytest.raises(StorageError, match=r"bad\.md.*[Ii]nput/output"):
            Inbox(broken).messages()
        assert sorted(texts(Inbox(root))) == ["fine\n", "unreadable"]
    assert not Path(root.path, "quarantine").exists()


def test_a_huge_or_badly_encoded_message_is_bounded_and_readable(
    root: StateRoot, inbox: Inbox
) -> None:
    write_message(root.path, "x" * (2 * MAX_MESSAGE))
    (message,) = inbox.messages()
    assert len(message.text) < MAX_MESSAGE + 1000
    assert message.text.endswith(f"/inbox/done/*-{message.name}]")
    inbox.mark_done([message.name], 1)
    Path(root.path, "inbox/notes.txt").write_bytes(b"x" * MAX_FOREIGN + b"\xff, the rest")
    (message,) = inbox.messages()
    assert len(message.text) < MAX_FOREIGN + 1000
    assert message.text.endswith("/inbox/done/*-notes.txt]")
    inbox.mark_done([message.name], 1)
    Path(root.path, "inbox/latin").write_bytes(b"a\xffb")
    assert texts(inbox) == ["a\ufffdb"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_message_is_decoded_by_its_mark(root: StateRoot, inbox: Inbox, encoding: str) -> None:
    with root.directory("inbox"):
        Path(root.path, "inbox/note.txt").write_bytes("für später\n".encode(encoding))
    assert texts(inbox) == ["für später\n"]


def test_what_is_no_text_is_set_aside_and_said(root: StateRoot, inbox: Inbox) -> None:
    write_message(root.path, "look at the picture")
    Path(root.path, "inbox/picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" * 10_000)
    assert texts(inbox) == ["look at the picture\n"]
    (said,) = root.take_warnings()
    assert said.startswith("inbox/picture.png was set aside")
    assert len(os.listdir(f"{root.path}/quarantine")) == 1


def test_who_goes_on_writing_a_message_that_was_taken_is_heard_again(
    root: StateRoot, inbox: Inbox
) -> None:
    with root.directory("inbox"), Path(root.path, "inbox/note.md").open("w") as file:
        file.write("first line\n")
        file.flush()
        now = Path(root.path, "inbox/note.md").stat().st_mtime
        assert inbox.arriving(now + 0.1)
        assert inbox.names(now + 0.1) == []  # it has not stood still yet
        (taken,) = inbox.messages(wall=now + 1)
        inbox.mark_done([taken.name], 1, {taken.name: {taken.mark}})
        assert inbox.names() == []
        assert inbox.occupied
        file.write("second line\n")
    (again,) = inbox.messages()
    assert (again.name, again.text) == ("note.md", "first line\nsecond line\n")
    inbox.mark_done([again.name], 2, {again.name: {again.mark}})
    assert inbox.messages() == []


def test_now_is_in_the_name(root: StateRoot, inbox: Inbox) -> None:
    write_message(root.path, "later")
    assert not any(map(is_now, inbox.names()))
    path = write_message(root.path, "now", now=True)
    assert path.endswith(".now.md")
    assert any(map(is_now, inbox.names()))
    assert [message.now for message in inbox.messages()] == [False, True]


def test_the_goal_is_apart_and_the_last_one_counts(root: StateRoot, inbox: Inbox) -> None:
    assert inbox.goal() is None
    write_goal(root.path, "one")
    write_goal(root.path, "two\nlines")
    assert inbox.goal() == "two\nlines"
    assert inbox.messages() == []
    inbox.mark_done([GOAL], 3)
    assert inbox.goal() is None
    assert os.listdir(f"{root.path}/inbox/done") == ["000003-goal"]


def test_done_messages_never_overwrite_each_other(root: StateRoot, inbox: Inbox) -> None:
    for text in ("one", "two", "three"):
        Path(root.path, "inbox").mkdir(exist_ok=True)
        Path(root.path, "inbox/note").write_text(text)
        inbox.mark_done(["note"], 5)
    done = Path(root.path, "inbox/done")
    assert sorted(path.read_text() for path in done.iterdir()) == ["one", "three", "two"]
    inbox.mark_done(["note"], 5)


def test_a_name_as_long_as_can_be_is_moved_too(root: StateRoot, inbox: Inbox) -> None:
    Path(root.path, "inbox").mkdir()
    name = "n" * 252 + ".md"
    Path(root.path, "inbox", name).write_text("x")
    inbox.mark_done(inbox.names(), 5)
    assert inbox.messages() == []
    assert len(os.listdir(f"{root.path}/inbox/done")) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "now"),
        ("now\n", "now"),
        ("after-iteration\n", "after-iteration"),
        ("AFTER-ITERATION", "after-iteration"),
        ("please", "now"),
    ],
)
def test_stop_means_what_its_first_line_says(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / ".codex-stop").write_text(content)
    assert read_stop(str(tmp_path), ".codex-stop") == expected
    assert remove_stop(str(tmp_path), ".codex-stop")
    assert read_stop(str(tmp_path), ".codex-stop") is None
    assert not remove_stop(str(tmp_path), ".codex-stop")


@pytest.mark.parametrize("kind", ["directory", "dangling", "fifo"])
def test_whatever_is_called_stop_is_one(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "STOP"
    {
        "directory": path.mkdir,
        "dangling": lambda: path.symlink_to("nowhere"),
        "fifo": lambda: os.mkfifo(path),
    }[kind]()
    assert read_stop(str(tmp_path)) == "now"
    assert remove_stop(str(tmp_path))


def test_a_directory_that_cannot_be_read_is_no_stop(tmp_path: Path) -> None:
    assert read_stop(str(tmp_path / "missing")) is None
    (tmp_path / "file").touch()
    assert read_stop(str(tmp_path / "file")) is None


def test_written_sentinels_read_back(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    write_stop(state, after_iteration=True)
    assert read_stop(state) == "after-iteration"
    write_stop(state)
    assert read_stop(state) == "now"
    write_stop(state, after_iteration=True)
    assert read_stop(state) == "now"  # a later request softens none
    assert read_pause(state) is None
    write_pause(state)
    assert read_pause(state) == "after-run"
    write_pause(state, now=True)
    write_pause(state)
    assert read_pause(state) == "now"
    assert remove_pause(state)
    assert read_pause(state) is None


def test_a_stop_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    (tmp_path / "state/STOP").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot write .*STOP"):
        write_stop(str(tmp_path / "state"))


def test_the_fast_commands_import_nothing_heavy() -> None:
    script = (
        "import sys\nimport codex_self_iter.world.state.inbox, codex_self_iter.world.state.lock, codex_self_iter.world.state.journal\n"
        "heavy = {'anyio', 'asyncio', 'pydantic', 'structlog', 'watchfiles', 'psutil', 'logging', 'inspect',"
        " 'dataclasses', 'typing', 'pathlib', 'subprocess', 'tempfile'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    # -S: what a site's own .pth files import is not ours
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-S", "-c", script], env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
