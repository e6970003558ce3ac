"""A defect of ours, wherever it is: exit code, status, report, log, notification and the file of the
traceback say the same."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.claims.scenes import DONE, Seen, Theatre, defect, json_lines, set_up
from tests.support.control_steps import WORK, long_run
from tests.support.harness import Workspace
from tests.support.program import PROGRAM

CRASH = "home/state/codex-self-iter/crash.log"
ERROR = "RuntimeError: a defect of ours"


def disagreements(
    status: dict[str, Any], told: list[dict[str, Any]], lines: list[dict[str, Any]], report: str
) -> list[str]:
    """What of a crash is not told alike."""
    ended, found = status["exit"] or {}, []
    reason = status["reason"]
    if (status["state"], ended.get("state"), ended.get("code")) != ("crashed", "crashed", 1):
        found.append(f"state {status['state']}, exit {ended}")
    crashed = [line for line in lines if line["event"] == "loop.crashed"][-1:]
    traceback = str(crashed[0]["traceback"]) if crashed else "-"
    if not crashed or crashed[0]["level"] != "error" or crashed[0]["error"] != ERROR:
        found.append(f"the log has {crashed}")
    if not reason.startswith(ERROR) or traceback not in reason:
        found.append(f"the reason is {reason!r}, the log has {traceback}")
    if ended.get("reason") != reason:
        found.append(f"exit.reason is {ended.get('reason')!r}")
    if not told or (told[-1]["event"], told[-1]["text"], told[-1]["state"]) != (
        "crashed",
        reason,
        "crashed",
    ):
        found.append(f"told was {told[-1:]}")
    if not report.startswith("# Report: crashed") or reason not in report:
        found.append(f"the report begins with {report[:200]!r}")
    if status["run"] or status["wait"] or status["until"]:
        found.append("something is still on")
    return found


def look(ws: Workspace) -> list[str]:
    lines = json_lines(*sorted(ws.root.glob("supervisor-*.log")))
    kept = json_lines(ws.state / "logs" / "supervisor.log")
    report = (ws.state / "report.md").read_text() if (ws.state / "report.md").exists() else ""
    told = json_lines(ws.root / "told")
    found = disagreements(ws.status(), told, lines, report)
    if (
        kept
        and [x for x in kept if x["event"] == "loop.crashed"][-1:]
        != [x for x in lines if x["event"] == "loop.crashed"][-1:]
    ):
        found.append("the log file lacks the crash")
    return found


@pytest.fixture
def ws(tmp_path: Path) -> Any:
    workspace = Workspace(tmp_path)
    set_up(workspace)
    workspace.script(WORK, long_run())
    yield workspace
    workspace.close()


def test_a_defect_in_a_run_is_told_alike_everywhere(seen: Theatre) -> None:
    one: Seen = seen["crash"]
    assert disagreements(one.last, one.told, one.console, one.facts["report"]) == []
    assert one.facts["code"] == 1
    assert one.console == one.kept
    said = one.facts["printed"]
    path = one.of("loop.crashed")[0]["traceback"]
    assert path.endswith(CRASH)
    assert f"codex-self-iter: internal error: {ERROR.partition(' of')[0]}" in said
    assert f"The traceback is in {path}; please report it." in said
    assert "Traceback" not in said
    assert one.facts["crash.log"].count("Traceback") == 1
    assert "RuntimeError: a defect" in one.facts["crash.log"]
    ended = one.of("loop.ended")[-1]
    assert (ended["level"], ended["state"], ended["exit_code"]) == ("error", "crashed", 1)
    assert ended["reason"] == one.last["reason"]
    assert one.printed[-1]["alive"] is False


def test_the_comparison_finds_what_differs(seen: Theatre) -> None:
    one = seen["crash"]
    good = (one.last, one.told, one.console, one.facts["report"])
    for number, bad in (
        (0, one.last | {"reason": "ExceptionGroup"}), (0, one.last | {"exit": None}),
        (1, []), (2, []), (3, ""),
    ):  # fmt: skip
        changed: list[Any] = [*good]
        changed[number] = bad
        assert disagreements(*changed)


AT_THE_START = [
    ("supervisor.loop", "recover"),
    ("supervisor.rounds", "Rounds._boot"),
    ("supervisor.loop", "Loop.context"),
    ("supervisor.loop", "configure"),
    ("supervisor.loop", "validate_workspace"),
]


@pytest.mark.parametrize(
    ("module", "name"),
    [AT_THE_START[0], *(pytest.param(*one, marks=pytest.mark.slow) for one in AT_THE_START[1:])],
)
def test_a_defect_at_the_start_is_told_alike_everywhere(
    ws: Workspace, module: str, name: str
) -> None:
    environment, flag = defect(ws, module, name)
    flag.touch()
    assert ws.run(environment=environment) == 1
    assert look(ws) == []
    shown = ws.cli("status").stdout
    assert "crashed" in shown.splitlines()[0]
    assert str(ws.root / CRASH) in re.sub(r"\n +", " ", shown)
    flag.unlink()
    ws.script(DONE)
    assert ws.run(environment=environment) == 0
    assert ws.status()["state"] == "completed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("supervisor.supervisor", "read_clock"),
        ("supervisor.supervisor", "Supervisor._from_a_run"),
        ("supervisor.rounds", "decide"),
        ("supervisor.workspace", "compare"),
        ("supervisor.housekeeping", "_once"),
    ],
)
def test_a_defect_in_any_part_is_told_alike_everywhere(
    ws: Workspace, module: str, name: str
) -> None:
    environment, flag = defect(ws, module, name)
    ws.script(WORK, long_run("go"))
    soon = name == "_once"  # it is done two seconds after the start, and then seldom
    if soon:
        flag.touch()
    process = ws.start(environment=environment)
    if not soon:
        ws.wait_runs(2)
        flag.touch()
        if name == "Supervisor._from_a_run":
            process.terminate()
        (ws.control / "go").touch()
    assert ws.ended(process) == 1
    assert look(ws) == []


@pytest.mark.slow
def test_a_defect_that_repeats_is_told_each_time(ws: Workspace) -> None:
    environment, flag = defect(ws, "supervisor.senses", "Senses.look")
    flag.touch()
    for number in (1, 2, 3):
        assert ws.run(environment=environment) == 1
        assert look(ws) == []
        assert len(json_lines(ws.root / "told")) == number
        assert (ws.root / CRASH).read_text().count("Traceback") == number


@pytest.mark.slow
def test_among_many_loops_it_is_told_alike_and_that_it_starts_again(seen: Theatre) -> None:
    one = seen["many"]
    status = next(x for x in one.statuses if x["state"] == "crashed")
    told = [x for x in one.told if x["event"] == "crashed"]
    report = f"# Report: crashed\n{status['reason']}"  # the next end has written another one
    assert disagreements(status, told, one.console, report) == []
    assert status["reason"].endswith("; it starts again after 5 s")
    (line,) = one.of("loop.crashed")
    assert (line["loop"], line["seconds"]) == ("first", 5)
    assert one.facts["crash.log"].count("Traceback") == 1
    assert one.last["state"] == "completed"
    assert one.last["exit"]["code"] == 0


@pytest.mark.slow
def test_the_traceback_is_on_stderr_where_no_file_can_be_written(ws: Workspace) -> None:
    environment, flag = defect(ws, "supervisor.senses", "Senses.look")
    flag.touch()
    (ws.root / "a file").touch()
    environment["XDG_STATE_HOME"] = str(ws.root / "a file")
    assert ws.run(environment=environment) == 1
    assert ws.log().count("Traceback") == 1
    status = ws.status()
    assert status["reason"] == status["exit"]["reason"] == json_lines(ws.root / "told")[0]["text"]
    assert "traceback" not in status["reason"]


@pytest.mark.slow
def test_with_debug_it_is_on_stderr_and_in_the_file(ws: Workspace) -> None:
    environment, flag = defect(ws, "supervisor.senses", "Senses.look")
    flag.touch()
    assert ws.run("--debug", environment=environment) == 1
    assert ws.log().count("Traceback") == 1
    assert (ws.root / CRASH).read_text().count("Traceback") == 1
    assert look(ws) == []


def test_a_defect_of_a_reading_command_names_the_file(ws: Workspace) -> None:
    environment, flag = defect(ws, "cli.status", "run")
    flag.touch()
    ws.environment |= environment
    done = ws.cli("status")
    assert done.returncode == 1
    assert str(ws.root / CRASH) in done.stderr
    assert "Traceback" not in done.stderr
    entry = (ws.root / CRASH).read_text()
    assert "Traceback" in entry
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", entry)
    assert json.dumps("status") in entry.replace("'", '"')


@pytest.mark.slow
def test_a_defect_of_what_the_loops_share_is_told_by_each(tmp_path: Path) -> None:
    loops = [Workspace(tmp_path, name) for name in ("one", "two")]
    try:
        place = tmp_path / "loops"
        place.mkdir()
        for ws in loops:
            set_up(ws)
            ws.script(long_run())
            config = ws.path / "codex-self-iter.toml"
            text = f"workspace = {json.dumps(str(ws.path))}\n{config.read_text()}"
            (place / f"{ws.path.name}.toml").write_text(text)
            config.unlink()
        environment, flag = defect(loops[0], "supervisor.supervisor", "read_clock")
        with (tmp_path / "supervisor-1.log").open("wb") as log:
            process = subprocess.Popen(
                [*PROGRAM, "--config-dir", str(place)], cwd=tmp_path, stdin=subprocess.DEVNULL,
                env={**loops[0].environment, **environment}, stdout=log, stderr=log,
            )  # fmt: skip
        loops[0].supervisors.append(process)
        for ws in loops:
            ws.wait_runs(1)
        flag.touch()
        assert loops[0].ended(process) == 1
        lines, told = json_lines(tmp_path / "supervisor-1.log"), json_lines(tmp_path / "told")
        for ws in loops:
            mine = [line for line in lines if line.get("loop") == ws.path.name]
            heard = [one for one in told if one["loop"] == ws.path.name]
            report = (ws.state / "report.md").read_text()
            assert disagreements(ws.status(), heard, mine, report) == []
    finally:
        for ws in loops:
            ws.close()
