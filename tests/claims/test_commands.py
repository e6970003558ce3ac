"""docs/commands.md: every option does what its help says, and what does nothing is an error."""

from __future__ import annotations

import json
import os
import plistlib
import pty
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.cli import COMMANDS
from tests.claims.documents import ROOT
from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM

PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
Done = subprocess.CompletedProcess[str]


def call(ws: Workspace, *words: str, cwd: Path | None = None, stdin: str = "", **env: str) -> Done:
    """The program with these words, in the workspace."""
    return subprocess.run(
        [*PROGRAM, *words], cwd=cwd or ws.path, env={**ws.environment, "TZ": "UTC", **env},
        input=stdin, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def good(ws: Workspace, *words: str, **options: Any) -> str:
    done = call(ws, *words, **options)
    assert (done.returncode, done.stderr) == (0, ""), words
    return done.stdout


def refused(ws: Workspace, *words: str, **options: Any) -> str:
    """One message, exit 2, and nothing printed."""
    done = call(ws, *words, **options)
    assert (done.returncode, done.stdout) == (2, ""), (words, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Four iterations that have ended: work, work, a failure, a proven end."""
    ws = Workspace(tmp_path_factory.mktemp("commands"), "shop")
    ws.config('[verify]\ncommands = ["echo of the gate; test -f three"]')
    long = "word " * 3000
    ws.script(
        {"write": {"one": "1\n"}, "say": "\x1b[31mred of one\x1b[0m", "block": {"summary": "made one"}},
        {"write": {"two": "2\n"}, "say": "of two", "block": {"summary": long, "next_goal": "three"}},
        {"say": "of the failure", "exit": 3},
        {"write": {"three": "3\n"}, "say": "of three", "block": {"completed": True, "summary": "made three"}},
    )  # fmt: skip
    assert ws.run() == 0, ws.log()
    yield ws
    ws.close()


# -- all commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(over: Workspace, command: str) -> None:
    said = good(over, command, "--help", COLUMNS="1000")
    section = PAGE.partition(f"\n## {command}\n\n")[2].partition("\n## ")[0]
    assert section.partition("\n")[0] in said
    rows = [
        row.strip("| ").split(" | ", 1) for row in section.splitlines() if row.startswith("| `")
    ]
    for names, text in rows:
        assert text in said, text
        assert all(name in said for name in re.findall(r"`(-[^`]+)`", names)), names


def test_the_commands_are_listed(over: Workspace) -> None:
    said = good(over, "--help")
    assert [name for name in COMMANDS if f"  {name} " not in said] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_its_version(over: Workspace, command: str) -> None:
    assert re.fullmatch(r"codex-self-iter [\d.]+\S*\n", good(over, command, "--version"))


def test_a_word_that_is_no_option_is_refused_and_an_abbreviation_too(over: Workspace) -> None:
    assert "--follow" in refused(over, "logs", "--folow")
    assert "--max-iterations" in refused(over, "--max-iter", "1")
    assert "did you mean 'status'" in refused(over, "statsu")


def test_who_has_seen_enough_is_no_error(over: Workspace) -> None:
    command = [*PROGRAM, "config", "schema"]
    with subprocess.Popen(command, env=over.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_an_output_that_cannot_be_written_is_exit_1(over: Workspace) -> None:
    with Path("/dev/full").open("w") as full:
        command = [*PROGRAM, "history", "--workspace", str(over.path)]
        done = subprocess.run(
            command,
            env=over.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "cannot write the output" in done.stderr


def test_a_loop_is_named_in_every_way(over: Workspace, tmp_path: Path) -> None:
    ways = [
        ["shop"], [str(over.path)], ["--loop", "shop"], ["--workspace", str(over.path)],
        ["--state-dir", str(over.state)], ["--workspace", str(over.path), "--state-dir", ".codex-self-iter"],
        ["--config", str(over.path / "codex-self-iter.toml"), "--workspace", str(over.path)],
    ]  # fmt: skip
    here = good(over, "history")
    assert "made three" in here
    for way in ways:
        assert good(over, "history", *way, cwd=tmp_path) == here, way
    assert good(over, "show", "shop", "1", cwd=tmp_path) == good(over, "show", "1")
    assert "no loop is called 'ship'" in refused(over, "history", "ship", cwd=tmp_path)
    assert "did you mean 'shop'" in refused(over, "history", "ship", cwd=tmp_path)
    assert "not both" in refused(over, "history", "shop", "--workspace", str(over.path))
    other = tmp_path / "other.toml"
    other.write_text(f'state_dir = "{over.state}"\n')
    (tmp_path / "plan.md").touch()
    elsewhere = "--workspace", str(tmp_path)
    assert "made three" not in call(over, "history", *elsewhere).stdout
    assert good(over, "history", *elsewhere, "--config", str(other)) == here


NOTHING = [
    ("stop --timeout 1", "--wait"),
    ("stop --wait --timeout nan", "seconds"),
    ("stop --wait --timeout -1", "seconds"),
    ("status --interval 1", "--watch"),
    ("status --watch --interval 0", "above 0"),
    ("status --watch --interval inf", "seconds"),
    ("status --all shop", "--all"),
    ("status --all --workspace .", "--all"),
    ("logs --all --last 2", "not allowed"),
    ("logs --supervisor --all", "not allowed"),
    ("logs 1 --last 2", "either"),
    ("logs 1 --all", "either"),
    ("logs 1 --supervisor", "either"),
    ("logs 1 2", "one iteration"),
    ("logs --last 0", "above 0"),
    ("show 1 2", "one iteration"),
    ("show 99", "no iteration 99"),
    ("logs 99", "no output of iteration 99"),
    ("diff 99", "99"),
    ("history --limit 0", "above 0"),
    ("history --verdict good", "continue"),
    ("history --since yesterday", "7d"),
    ("config check --json", "'show'"),
    ("config schema --changed", "'show'"),
    ("config check --example", "'show'"),
    ("config --example --json", "leave --json"),
    ("show 1 --prompt --json", "--prompt"),
    ("show 1 --prompt --full", "--prompt"),
    ("run --config-dir . --workspace .", "--config-dir"),
    ("run --config-dir . --config x.toml", "--config-dir"),
    ("run --once --max-iterations 2", "--once"),
    ("run --set nonsense", "KEY=VALUE"),
    ("run --set nonsense=1", "nonsense"),
    ("run --config gone.toml", "gone.toml"),
    ("run --workspace gone", "gone"),
    ("service show --dry-run", "'install' or 'uninstall'"),
    ("service install --run-as root", "--system"),
    ("service install --name a/b", "letters"),
    ("service install --config-dir . --workspace .", "--config-dir"),
    ("service install --user --system", "not allowed"),
    ("service uninstall", "not installed"),
    ("steer", "empty"),
    ("goal", "empty"),
    ("steer words --file x", "not both"),
    ("goal --file gone", "gone"),
    ("complete --script tcsh", "bash, zsh, fish"),
    ("init --workspace gone", "gone"),
]


QUICK = 10
"""So many of them are in the short set; each is a start of the program."""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(*one, id=one[0], marks=() if number < QUICK else pytest.mark.slow)
        for number, one in enumerate(NOTHING)
    ],
)
def test_what_would_do_nothing_is_refused(over: Workspace, words: str, said: str) -> None:
    assert said in refused(over, *words.split())
    assert not (over.state / "STOP").exists()


# -- reading --------------------------------------------------------------------------------------


def test_status_prints_one_loop_and_all_loops(over: Workspace) -> None:
    assert "completed" in good(over, "status")
    for words in (["status", "--all"], ["status"]):  # no workspace: all loops
        table = good(over, *words, cwd=over.root)
        assert re.search(r"^NAME +STATE .*WORKSPACE$", table, re.MULTILINE)
        assert str(over.path) in table
    printed = json.loads(good(over, "status", "--json"))
    assert {key: printed[key] for key in over.status()} == over.status()
    assert set(printed) - set(over.status()) == {
        "alive", "stale_sec", "orphan_pid", "waiting_goal", "waiting_messages",
    }  # fmt: skip
    assert [one["name"] for one in json.loads(good(over, "status", "--all", "--json"))] == ["shop"]


@pytest.mark.parametrize("short", ["-w", pytest.param("--watch", marks=pytest.mark.slow)])
def test_status_is_redrawn_until_it_is_interrupted(over: Workspace, short: str) -> None:
    leader, follower = pty.openpty()
    environment = {**over.environment, "TERM": "xterm"}
    process = subprocess.Popen(
        [*PROGRAM, "status", short, "--interval", "0.05"], cwd=over.path, env=environment,
        stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    seen = b""
    try:
        while seen.count(b"\x1b[H") < 3:
            seen += os.read(leader, 65536)
    finally:
        process.send_signal(signal.SIGINT)
        while True:
            try:
                if not os.read(leader, 65536):
                    break
            except OSError:  # nobody writes any more
                break
        os.close(leader)
    assert process.wait(30) == 130
    assert b"completed" in seen


def heads(text: str) -> list[str]:
    return re.findall(r"^── (\S+) ──$", text, re.MULTILINE)


def test_logs_prints_which_output_is_asked_for(over: Workspace) -> None:
    last = good(over, "logs")
    assert heads(last) == ["000004-executor", "000004-gate-1"]
    assert "of three" in last
    assert heads(good(over, "logs", "1")) == ["000001-executor"]
    assert heads(good(over, "logs", "--last", "2"))[0] == "000003-executor"
    every = ["000001-executor", "000002-executor", "000003-executor"]
    assert heads(good(over, "logs", "--all"))[:3] == every
    assert "of the failure" in good(over, "logs", "3")
    assert heads(good(over, "logs", "-f")) == heads(good(over, "logs", "--follow")) == heads(last)


def test_logs_raw_and_the_supervisors_own(over: Workspace) -> None:
    assert "\x1b" not in good(over, "logs", "1")
    raw = good(over, "logs", "--raw", "1")
    kept = (over.state / "logs" / "runs" / "000001-executor" / "stdout.log").read_text()
    assert "\x1b[31m" in kept
    assert kept in raw
    own = [json.loads(line) for line in good(over, "logs", "--supervisor").splitlines()]
    log = (over.state / "logs" / "supervisor.log").read_text().splitlines()
    assert own == [json.loads(line) for line in log]


def table(text: str) -> list[str]:
    return re.findall(r"^ *(\d+)  ", text, re.MULTILINE)


def test_history_filters(over: Workspace) -> None:
    assert table(good(over, "history")) == ["1", "2", "3", "4"]
    assert table(good(over, "history", "--limit", "2")) == ["3", "4"]
    assert table(good(over, "history", "--verdict", "error")) == ["3"]
    both = good(over, "history", "--verdict", "error", "--verdict", "completed")
    assert table(both) == ["3", "4"]
    assert table(good(over, "history", "--since", "3")) == ["3", "4"]
    for since in ("90m", "12h", "7d", "2020-01-31"):
        assert table(good(over, "history", "--since", since)) == ["1", "2", "3", "4"], since
    assert table(good(over, "history", "--since", "2099-01-31")) == []
    lines = [json.loads(line) for line in good(over, "history", "--json").splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4]


def test_history_shows_thirty(over: Workspace, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "logs").mkdir(parents=True)
    line = json.loads((over.state / "logs" / "iterations.jsonl").read_text().splitlines()[0])
    rows = (json.dumps({**line, "iteration": number}) + "\n" for number in range(1, 41))
    (copy / "logs" / "iterations.jsonl").write_text("".join(rows))
    shown = table(call(over, "history", "--state-dir", str(copy)).stdout)
    assert shown == [str(number) for number in range(11, 41)]


def test_show_tells_everything_about_one_iteration(over: Workspace) -> None:
    last = good(over, "show")
    assert last.startswith("Iteration 4: completed")
    assert "made three" in last
    assert "of the gate" in good(over, "show", "4")
    short, full = good(over, "show", "2"), good(over, "show", "2", "--full")
    assert full.count("word") > 2900 > short.count("word")
    assert "goal" in over.prompt(2)
    assert over.prompt(2).splitlines()[0] in full
    shown = json.loads(good(over, "show", "2", "--json"))
    line = over.journal()[1]
    assert {key: shown[key] for key in line if key != "after"} == {
        key: line[key] for key in line if key != "after"
    }
    paths = [
        value
        for value in re.findall(r'"(/[^"]+)"', json.dumps(shown))
        if "000002-executor" in value
    ]
    assert {Path(path).parent.parent.name for path in paths} >= {"logs"} or paths
    assert all(Path(path).exists() for path in paths)


def test_diff_prints_what_changed(over: Workspace) -> None:
    assert re.findall(r"^\+\+\+ b/(\w+)", good(over, "diff", "2"), re.MULTILINE) == ["two"]
    both = good(over, "diff", "1", "4")
    assert re.findall(r"^\+\+\+ b/(\w+)", both, re.MULTILINE) == ["three", "two"]
    stat = good(over, "diff", "2", "--stat")
    assert "two | 1 +" in stat
    assert "+++" not in stat
    assert good(over, "diff", "shop", "2", cwd=over.root) == good(over, "diff", "2")


# -- controlling ----------------------------------------------------------------------------------


@pytest.fixture
def busy(ws: Workspace) -> Iterator[Workspace]:
    """A loop whose agent works until it may go on, and then works on."""
    ws.script({"sleep": 60, "until": "go", "append": {"w": "1"}, "block": {"next_goal": "on"}})
    ws.start()
    ws.wait_runs(1)
    ws.wait_state("running")
    yield ws
    (ws.control / "go").touch()


def test_stop_now_waits_until_the_supervisor_is_gone(busy: Workspace) -> None:
    said = busy.cli("stop", "--wait")
    assert said.returncode == 0
    assert "ends the running agent and stops now" in said.stdout
    assert busy.supervisors[0].wait(5) == 0
    assert busy.verdicts() == ["aborted"]


def test_stop_after_the_iteration_and_a_bounded_wait(busy: Workspace) -> None:
    late = busy.cli("stop", "--after-iteration", "--wait", "--timeout", "0.3")
    assert late.returncode == 75
    assert "still there" in late.stderr
    assert busy.supervisors[0].poll() is None
    (busy.control / "go").touch()
    assert busy.ended(busy.supervisors[0]) == 0
    assert busy.verdicts() == ["continue"]
    again = busy.cli("stop", "--wait", "--timeout", "5")
    assert again.returncode == 0
    assert "No supervisor" in again.stdout


def test_pause_and_resume(busy: Workspace) -> None:
    assert "pauses when this iteration ends" in busy.cli("pause").stdout
    (busy.control / "go").touch()
    busy.wait_state("paused")
    assert busy.verdicts() == ["continue"]
    assert busy.cli("resume").returncode == 0
    busy.wait_runs(2)


@pytest.mark.slow
def test_pause_now_ends_the_agent(busy: Workspace) -> None:
    assert "ends the running agent and pauses now" in busy.cli("pause", "--now").stdout
    busy.wait_state("paused")
    assert busy.started() == 1
    (busy.control / "go").touch()
    assert busy.cli("resume").returncode == 0
    busy.wait_runs(2)


def test_steer_reaches_the_next_prompt_or_starts_it_at_once(busy: Workspace) -> None:
    note = busy.root / "note.txt"
    note.write_text("out of a file\n")
    assert call(busy, "steer", "several", "words").returncode == 0
    assert call(busy, "steer", "-", stdin="from standard input").returncode == 0
    assert call(busy, "steer", "-f", str(note)).returncode == 0
    assert call(busy, "steer", "--file", str(note)).returncode == 0
    assert busy.started() == 1
    assert "starts again with it" in call(busy, "steer", "--now", "at once").stdout
    second = busy.prompt(2)
    for text in ("several words", "from standard input", "out of a file", "at once"):
        assert text in second, text
    assert second.count("out of a file") == 2


@pytest.mark.parametrize(
    "way",
    ["words", *(pytest.param(way, marks=pytest.mark.slow) for way in ("stdin", "file", "short"))],
)
def test_goal_replaces_the_goal(ws: Workspace, way: str) -> None:
    text = "a goal of a person"
    note = ws.root / "note.txt"
    note.write_text(text)
    words = {
        "words": text.split(),
        "stdin": ["-"],
        "file": ["--file", str(note)],
        "short": ["-f", str(note)],
    }
    assert call(ws, "goal", *words[way], stdin=text).returncode == 0
    assert ws.run("--once") == 0
    assert ws.journal()[0]["goal_in"] == text


@pytest.mark.slow
def test_rewind_goes_back_says_and_asks(ws: Workspace) -> None:
    ws.config(no_change_gate=False)
    ws.script(
        {"write": {"a": "1"}}, {"write": {"a": "2", "b": "2"}}, {"block": {"completed": True}}
    )
    assert ws.run() == 0
    ws.git("add", "-A")
    (ws.path / ".gitignore").write_text("ignored\n")
    (ws.path / "ignored").write_text("mine")
    index, head = ws.git("ls-files", "-s"), ws.git("rev-parse", "HEAD")
    dry = good(ws, "rewind", "1", "--dry-run")
    assert "change   a" in dry
    assert "remove   b" in dry
    assert (ws.path / "a").read_text() == "2"
    assert "nobody can be asked" in call(ws, "rewind", "1").stderr
    assert (ws.path / "b").exists()
    done = good(ws, "rewind", "1", "--yes")
    assert (ws.path / "a").read_text() == "1"
    assert not (ws.path / "b").exists()
    assert (ws.path / "ignored").read_text() == "mine"
    assert (ws.git("ls-files", "-s"), ws.git("rev-parse", "HEAD")) == (index, head)
    kept = re.findall(r"codex-self-iter rewind (\S+)", done)[0]
    assert good(ws, "rewind", kept, "--yes")
    assert (ws.path / "b").read_text() == "2"


@pytest.mark.slow
def test_rewind_is_refused_and_diff_works_while_a_supervisor_runs(busy: Workspace) -> None:
    (busy.control / "go").touch()
    wait_until(lambda: len(busy.journal()) >= 1, "an iteration")
    assert call(busy, "diff", "1").returncode == 0
    assert call(busy, "rewind", "1", "--yes").returncode == 75


# -- run ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_takes_a_configuration_by_name(ws: Workspace) -> None:
    named = ws.root / "named.toml"
    (ws.path / "codex-self-iter.toml").rename(named)
    assert ws.run("--config", str(named), "--once") == 0
    assert len(ws.journal()) == 1


def test_once_is_one_iteration_and_clear_stop_removes_a_stop(ws: Workspace) -> None:
    ws.script({"append": {"w": "1"}, "number": True})
    ws.cli("stop")
    assert ws.run("--once") == 0
    assert ws.journal() == []
    assert (ws.state / "STOP").exists()
    (ws.path / ".codex-stop").touch()
    assert ws.run("--once", "--clear-stop") == 0
    assert len(ws.journal()) == 1
    assert not (ws.state / "STOP").exists()
    assert not (ws.path / ".codex-stop").exists()


@pytest.mark.slow
def test_debug_shows_decisions_and_spawns(ws: Workspace) -> None:
    assert ws.run("--once", "--debug") == 0
    for event in ("loop.decided", "run.spawn", "iteration.ended"):
        assert event in ws.log(), event


@pytest.mark.slow
def test_set_gives_any_key(ws: Workspace) -> None:
    given = "--set", "agents.command.env={ GIVEN = 'by a flag' }", "--set", "max_iterations=1"
    ws.script(
        {"append": {"w": "1"}, "run": f'echo "$GIVEN" > "{ws.control}/given"', "number": True}
    )
    assert ws.run(*given) == 0
    assert (ws.control / "given").read_text() == "by a flag\n"
    assert len(ws.journal()) == 1


@pytest.mark.slow
def test_a_repeated_workspace_is_several_loops(tmp_path: Path) -> None:
    loops = [Workspace(tmp_path, name) for name in ("one", "two")]
    try:
        for loop in loops:
            loop.config()
            loop.script({"append": {"w": "1"}, "block": {"completed": True}})
        assert loops[0].run("--workspace", str(loops[1].path)) == 0
        assert [loop.verdicts() for loop in loops] == [["completed"], ["completed"]]
    finally:
        for loop in loops:
            loop.close()


# -- init, doctor, config -------------------------------------------------------------------------


@pytest.mark.slow
def test_init_writes_and_keeps(ws: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "fresh"
    target.mkdir()
    good(ws, "init", "--workspace", str(target))
    names = ["TASK.md", "codex-self-iter.toml", "plan.md"]
    assert sorted(path.name for path in target.iterdir()) == names
    (target / "plan.md").write_text("mine\n")
    assert "kept" in good(ws, "init", "--workspace", str(target))
    assert (target / "plan.md").read_text() == "mine\n"
    good(ws, "init", "--workspace", str(target), "--force")
    assert (target / "plan.md").read_text() != "mine\n"
    assert (target / "plan.md.bak").read_text() == "mine\n"


@pytest.mark.slow
def test_doctor_says_what_is_wrong_and_exits_with_4(ws: Workspace, tmp_path: Path) -> None:
    marker = ws.root / "ran"
    ws.config(f'[verify]\ncommands = ["touch {marker.name}; mv {marker.name} ..; exit 3"]')
    there = "--workspace", str(ws.path)
    fine = call(ws, "doctor", *there, cwd=tmp_path)
    assert fine.returncode == 0, fine.stdout
    assert " FAIL " not in fine.stdout
    assert not marker.exists()
    ran = call(ws, "doctor", *there, "--run-gates", cwd=tmp_path)
    assert ran.returncode == 0, "a gate that fails before the work is done is a warning"
    assert "[ warn ]" in ran.stdout
    assert marker.exists()
    found = json.loads(call(ws, "doctor", *there, "--json", cwd=tmp_path).stdout)
    assert found["ok"] is True
    assert {"id", "status", "what", "mend"} <= set(found["findings"][0])
    broken = tmp_path / "broken.toml"
    broken.write_text("max_iteratons = 3\n")
    wrong = call(ws, "doctor", *there, "--config", str(broken))
    assert wrong.returncode == 4
    assert "[ FAIL ]" in wrong.stdout
    assert "max_iterations" in wrong.stdout


@pytest.mark.slow
def test_config_shows_checks_and_describes(ws: Workspace, tmp_path: Path) -> None:
    there = "--workspace", str(ws.path)
    shown = good(ws, "config", *there, cwd=tmp_path)
    assert shown == good(ws, "config", "show", *there, cwd=tmp_path)
    assert "max_iterations = 0" in shown
    assert "# default" in shown
    changed = good(ws, "config", "--changed", *there, cwd=tmp_path)
    assert "kill_grace_sec = 1 " in changed
    assert "# default" not in changed
    every = json.loads(good(ws, "config", "--json", *there, cwd=tmp_path))["keys"]
    some = json.loads(good(ws, "config", "--json", "--changed", *there, cwd=tmp_path))["keys"]
    assert all(one in every and one["origin"] != "default" for one in some)
    assert 0 < len(some) < len(every)
    assert good(ws, "config", "--example") == (ROOT / "config.example.toml").read_text()
    schema = json.loads(good(ws, "config", "schema"))
    assert "max_iterations" in schema["properties"]
    assert "is good" in good(ws, "config", "check", *there, cwd=tmp_path)
    other = tmp_path / "other.toml"
    other.write_text('max_iterations = 7\nmode = "goal"\n')
    assert "max_iterations = 7" in good(ws, "config", "--config", str(other))
    differing = good(ws, "config", "--changed", "--config", str(other))
    assert "max_iterations = 7" in differing
    assert "mode" not in differing  # set, but to what it is anyhow
    other.write_text("max_iteratons = 7\n")
    assert "other.toml:1" in refused(ws, "config", "check", "--config", str(other))


# -- service, demo, complete ----------------------------------------------------------------------


def test_service_installs_shows_and_removes(ws: Workspace) -> None:
    env = {"XDG_CONFIG_HOME": str(ws.home / ".config")}
    place = ws.home / ".config" / "systemd" / "user"
    assert "Not installed" in good(ws, "service", "show", **env)
    unit = place / "codex-self-iter-mine.service"
    named = "--name", "mine"
    dry = good(ws, "service", "install", "--dry-run", *named, "--user", **env)
    assert f"would write {unit}" in dry
    assert f"WorkingDirectory={ws.path}".replace(" ", "\\x20") in dry or str(ws.path) in dry
    assert not unit.exists()
    variables = ws.root / "variables.env"
    config = ws.root / "c.toml"
    shutil.copy(ws.path / "codex-self-iter.toml", config)
    more = "--env-file", str(variables), "--config", str(config), "--workspace", str(ws.path)
    good(ws, "service", "install", *named, *more, **env)
    text = unit.read_text()
    assert str(variables) in text
    assert str(config) in text
    assert variables.exists()
    assert "up to date" in good(ws, "service", "show", *named, *more, **env)
    assert "Would remove" in good(ws, "service", "uninstall", "--dry-run", *named, **env)
    assert unit.exists()
    good(ws, "service", "uninstall", *named, **env)
    assert not unit.exists()


@pytest.mark.slow
def test_service_for_the_machine_and_for_many_loops(ws: Workspace) -> None:
    system = good(ws, "service", "install", "--dry-run", "--system", "--run-as", "root")
    assert "/etc/systemd/system/codex-self-iter-" in system
    assert "\nUser=root\n" in system
    many = good(ws, "service", "install", "--dry-run", "--config-dir", str(ws.root))
    assert f"--config-dir {ws.root}" in many.replace('"', "")
    apple = good(ws, "service", "install", "--dry-run", "--manager", "launchd")
    text = apple[apple.index("<?xml") : apple.index("</plist>") + len("</plist>")]
    assert plistlib.loads(text.encode())["WorkingDirectory"] == str(ws.path)


@pytest.mark.slow
def test_demo_takes_a_directory(ws: Workspace) -> None:
    target = ws.root / "demo"
    done = call(ws, "demo", str(target), cwd=ws.root)
    assert done.returncode == 0, done.stderr
    assert "completed: Every item" in done.stdout
    assert (target / ".codex-self-iter" / "report.md").exists()


def test_completion_completes_words_and_prints_scripts(over: Workspace) -> None:
    assert good(over, "complete", "st").split() == ["status", "stop", "steer"]
    assert good(over, "complete", "--", "logs", "--fol").split() == ["--follow"]
    assert good(over, "complete", "--", "stop", "").split() == ["shop"]
    for shell in ("bash", "zsh", "fish"):
        assert "codex-self-iter complete" in good(over, "complete", "--script", shell)
    bash = good(over, "complete", "--script", "bash")
    subprocess.run(["bash", "-n"], input=bash, text=True, check=True)
    assert "  complete" not in good(over, "--help")
