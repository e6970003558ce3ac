"""stop, pause, resume, steer, goal: the files they leave and what they say, with and without a
supervisor."""

import stat
import subprocess
from pathlib import Path

import pytest


def only_message(state_dir: Path) -> Path:
    (path,) = [path for path in (state_dir / "inbox").iterdir() if path.is_file()]
    return path


@pytest.mark.parametrize(
    ("words", "content"), [((), "now"), (("--after-iteration",), "after-iteration")]
)
def test_stop_leaves_the_sentinel(command, words: tuple[str, ...], content: str) -> None:
    command.write_status()
    done = command("stop", *words)
    assert (done.returncode, done.stderr) == (0, "")
    sentinel = command.state_dir / "STOP"
    assert sentinel.read_text(encoding="utf-8").splitlines()[0] == content
    assert stat.S_IMODE(sentinel.stat().st_mode) == 0o600
    assert str(sentinel) in done.stdout
    assert "lets this iteration end" in done.stdout if words else "stops now" in done.stdout


def test_stop_without_a_supervisor_says_what_will_happen(command) -> None:
    done = command("stop")
    assert done.returncode == 0
    assert "No supervisor is running here" in done.stdout
    assert "--clear-stop" in done.stdout
    assert (command.state_dir / "STOP").exists()
    assert stat.S_IMODE(command.state_dir.stat().st_mode) == 0o700
    assert (command.state_dir / ".gitignore").read_text(encoding="ascii") == "*\n"


def test_nothing_is_left_in_a_directory_that_is_no_workspace(make_command) -> None:
    command = make_command("anything")
    for words in (["stop"], ["pause"], ["steer", "x"], ["goal", "x"]):
        done = command(*words)
        assert done.returncode == 2
        assert "no loop has run" in done.stderr
    assert list(command.workspace.iterdir()) == []


def test_the_recorded_sentinel_name_is_honoured(command) -> None:
    command.write_status(
        stop_file=str(command.state_dir / "HALT"), pause_file=str(command.state_dir / "REST")
    )
    command("stop")
    command("pause")
    assert (command.state_dir / "HALT").exists()
    assert (command.state_dir / "REST").exists()
    assert not (command.state_dir / "STOP").exists()
    command("resume")
    assert not (command.state_dir / "REST").exists()


def test_the_configured_sentinel_name_is_honoured_before_the_first_start(command) -> None:
    config = command.workspace / "codex-self-iter.toml"
    config.write_text('stop_file_name = "HALT"\n', encoding="utf-8")
    command("stop")
    assert (command.state_dir / "HALT").exists()
    command("stop", CODEX_SELF_ITER_STOP_FILE_NAME="QUIT")
    assert (command.state_dir / "QUIT").exists()


def test_stop_waits_until_the_supervisor_is_gone(command) -> None:
    command.write_status()
    waiting = subprocess.Popen(
        command.argv("stop", "--wait"),
        cwd=command.workspace,
        env=command.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    with waiting:
        assert waiting.stdout is not None
        assert "Wrote" in waiting.stdout.readline()
        assert waiting.poll() is None
        command.write_status(
            exit={"code": 0, "state": "stopped", "reason": "STOP file", "at": command.iso()}
        )
        command.release()
        assert waiting.wait(timeout=10) == 0
        assert "STOP file" in waiting.stdout.read()


def test_a_wait_can_be_bounded(command) -> None:
    command.write_status()
    done = command("stop", "--wait", "--timeout", "0.2")
    assert done.returncode == 75  # the workspace is still taken
    assert "still there" in done.stderr


def test_pause_and_resume(command) -> None:
    command.write_status()
    sentinel = command.state_dir / "PAUSE"
    assert "pauses when this iteration ends" in command("pause").stdout
    assert sentinel.read_text(encoding="utf-8").splitlines()[0] != "now"
    assert "pauses now" in command("pause", "--now").stdout
    assert sentinel.read_text(encoding="utf-8").splitlines()[0] == "now"
    assert "goes on" in command("resume").stdout
    assert not sentinel.exists()
    assert "Nothing to resume" in command("resume").stdout


def test_resume_mentions_a_stop_that_still_stands(command) -> None:
    command("pause")
    (command.workspace / ".codex-stop").touch()
    assert "says stop" in command("resume").stdout


def test_a_later_request_softens_none(command) -> None:
    command.write_status()
    for name, harder, softer in (
        ("STOP", ["stop"], ["stop", "--after-iteration"]),
        ("PAUSE", ["pause", "--now"], ["pause"]),
    ):
        sentinel = command.state_dir / name
        assert "now already" not in command(*softer).stdout
        command(*harder)
        said = command(*softer).stdout
        assert sentinel.read_text(encoding="utf-8") == "now\n"
        assert "now already, and still does" in said
        assert "ends the running agent" in said


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("running", "ends the running agent and starts again with it"),
        ("verifying", "ends the gates and starts again with it"),
        ("backoff", "waits no longer and starts the next run with it"),
        ("limited", "puts it into the next prompt; no agent is running"),
    ],
)
def test_what_is_said_to_end_is_what_runs(command, state: str, said: str) -> None:
    command.write_status(state=state)
    assert said in command("steer", "--now", "hurry").stdout
    others = command("pause", "--now").stdout + command("stop").stdout
    assert others.count("ends the") == (2 if state in ("running", "verifying") else 0)


def test_steer_writes_the_words_verbatim(command) -> None:
    command.write_status()
    text = "use {prompt_file} & $HOME 'as is' Grüße"
    done = command("steer", text)
    message = only_message(command.state_dir)
    assert message.read_text(encoding="utf-8") == text + "\n"
    assert str(message) in done.stdout
    assert "next prompt" in done.stdout
    assert not message.name.endswith(".now.md")


def test_steer_now_is_in_the_name(command) -> None:
    command("steer", "--now", "stop", "that")
    message = only_message(command.state_dir)
    assert message.name.endswith(".now.md")
    assert message.read_text(encoding="utf-8") == "stop that\n"


@pytest.mark.parametrize("words", [("-",), ("-f", "-"), ("-f", "note.md")])
def test_steer_from_stdin_or_a_file(command, words: tuple[str, ...]) -> None:
    (command.workspace / "note.md").write_text("two\nlines\n", encoding="utf-8")
    assert command("steer", *words, stdin="two\nlines\n").returncode == 0
    assert only_message(command.state_dir).read_text(encoding="utf-8") == "two\nlines\n"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("  ",),
        ("-f", "missing"),
        ("-f", "note.md", "and words"),
        ("-f", "binary"),
        ("-f", "empty"),
        ("-f", "huge"),
        ("--loop", "nobody", "x"),
    ],
)
def test_a_bad_message_is_refused_and_nothing_written(command, words: tuple[str, ...]) -> None:
    for name, content in {
        "note.md": b"x",
        "binary": b"\xff\xfe",
        "empty": b"",
        "huge": b"x" * 300_000,
    }.items():
        (command.workspace / name).write_bytes(content)
    done = command("steer", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("codex-self-iter: ")
    assert "Traceback" not in done.stderr
    assert not command.state_dir.exists()


def test_goal_is_left_for_the_supervisor(command) -> None:
    command.write_status(goal="the old goal")
    done = command("goal", "Ship", "it")
    assert (command.state_dir / "inbox" / "goal").read_text(encoding="utf-8") == "Ship it\n"
    assert "the old goal" in done.stdout


def test_a_state_directory_that_cannot_be_written_is_one_message(command) -> None:
    command.state_dir.write_text("a file is in the way", encoding="utf-8")
    done = command("stop")
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("codex-self-iter: ")
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
