"""docs/notifications.md against real loops: each event is told when the page says so, with its fields."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.claims.scenes import (
    EVENTS,
    SCENES,
    WORK,
    Seen,
    Theatre,
    defect,
    json_lines,
    long_run,
    notify,
)  # fmt: skip
from tests.claims.test_status_page import ENDS, STATES
from tests.support.harness import Workspace, wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()
FIELDS = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE, re.MULTILINE))
NAMED = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", PAGE, re.MULTILINE)

WHEN: dict[str, tuple[str, str, str]] = {
    "completed": ("proof", "completed", ""),
    "stopped": ("limit", "stopped", "SIGINT"),
    "stagnated": ("circles", "stagnated", ""),
    "crashed": ("crash", "crashed", "a defect of ours; the traceback is in /"),
    "blocked": ("errors", "blocked", "max_consecutive_errors"),
    "agent_stopped": ("person", "stopped", "is refused"),
    "budget": ("money", "running", "% of [budget] max_"),
    "outage": ("outage", "running", "command stands in for it"),
    "cooldown": ("roles", "cooldown", "3 times in a row"),
    "digest": ("daily", "running", "Digest: 1 loop, none needs you, 1 iteration"),
}
"""Event -> the scene that has it, the state it is told in, a part of its text."""
QUICK = ("proof", "errors", "money", "crash")


def events(one: Seen) -> list[str]:
    return [told["event"] for told in one.told]


def of(one: Seen, event: str) -> dict[str, Any]:
    return next(told for told in one.told if told["event"] == event)


def test_every_event_of_the_page_is_tried() -> None:
    assert set(NAMED) == WHEN.keys() == set(EVENTS)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(event, marks=() if scene in QUICK else pytest.mark.slow)
        for event, (scene, _, _) in WHEN.items()
    ],
)
def test_an_event_is_told_with_every_field(seen: Theatre, event: str) -> None:
    scene, state, text = WHEN[event]
    one = seen[scene]
    told = of(one, event)
    assert {key: type(value).__name__ for key, value in told.items()} == FIELDS
    assert told["loop"] == Path(one.facts["workspace"]).name
    assert told["workspace"] == one.facts["workspace"]
    assert told["state"] == state
    assert text in told["text"]
    assert told["iteration"] in {status["iteration"] for status in one.statuses} | {0}
    if event in ENDS:
        assert told["text"] == one.last["exit"]["reason"] == one.last["reason"]
        assert told["iteration"] == one.last["iteration"]
        assert one.of("loop.ended")[-1]["reason"] == told["text"]
        assert told["text"] in one.facts["report"]


@pytest.mark.slow
def test_nothing_else_is_told_and_each_in_the_workspace(seen: Theatre) -> None:
    for one in seen.all(*SCENES):
        assert set(events(one)) <= set(NAMED)
        assert sorted(one.facts["told in"]) == sorted(told["workspace"] for told in one.told)
        for told in one.told:
            assert {key: type(value).__name__ for key, value in told.items()} == FIELDS
            assert told["state"] in STATES


def test_what_needs_a_person_is_told_once(seen: Theatre) -> None:
    assert events(seen["errors"]) == ["blocked"]
    assert events(seen["proof"]) == ["completed"]


@pytest.mark.slow
def test_who_goes_on_trying_is_told_too(seen: Theatre) -> None:
    """Nobody is logged in: it is told while the loop still tries, and the end is no second word."""
    one = seen["login"]
    assert events(one) == ["blocked"]
    assert "unless that is done, the loop ends" in one.told[0]["text"]
    assert any(status["state"] == "blocked" and not status["exit"] for status in one.statuses)


@pytest.mark.slow
def test_an_agent_that_stops_is_an_end_as_well(seen: Theatre) -> None:
    assert sorted(events(seen["person"])) == ["agent_stopped", "stopped"]  # sent side by side


@pytest.mark.slow
def test_secrets_are_not_told(seen: Theatre) -> None:
    text = of(seen["person"], "agent_stopped")["text"]
    assert "sk-0123456789" not in json.dumps(seen["person"].told)
    assert "[redacted]" in text


def test_each_bound_of_the_budget_is_told_once_and_stays_among_the_warnings(seen: Theatre) -> None:
    one = seen["money"]
    said = [told["text"] for told in one.told if told["event"] == "budget"]
    assert sorted(text.partition("[budget] ")[2].split()[0] for text in said) == [
        "max_cost_usd", "max_tokens",
    ]  # fmt: skip
    for text in said:
        assert any(text in status["warnings"] for status in one.statuses if not status["exit"])
        assert text in one.last["warnings"]
        assert text in one.facts["report"]
    assert events(one)[-1] == "blocked"


@pytest.mark.slow
def test_a_command_that_fails_is_a_warning_until_it_succeeds(seen: Theatre) -> None:
    one = seen["told_in_vain"]
    (line,) = one.of("notify.failed")
    assert (line["target"], line["error"]) == ("command", "exit code 7")
    assert any("exit code 7" in text for status in one.statuses for text in status["warnings"])
    assert one.facts["code"] == 0


@pytest.mark.slow
def test_a_command_has_thirty_seconds(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    ws.config('[notify]\ncommand = ["sleep", "300"]\n')
    ws.script({"append": {"work.txt": "x\n"}, "block": {"completed": True}})
    process = ws.start()
    try:
        ws.wait_state("completed")
        assert ws.ended(process) == 0
        assert ws.log().count("it timed out") == 2, (
            "once, and among the warnings: nobody waits twice"
        )
        ended = ws.status()["exit"]["at"]
        assert ended
    finally:
        ws.close()


def test_the_page_s_example_reaches_a_program(tmp_path: Path) -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("    echo"))
    (tmp_path / "tell-me").write_text("#!/bin/sh\ncat > told\n")
    (tmp_path / "tell-me").chmod(0o755)
    subprocess.run(["sh", "-c", line.strip()], cwd=tmp_path, check=True)
    wait_until((tmp_path / "told").exists, "the file")
    assert json.loads((tmp_path / "told").read_text())["event"] in NAMED


def test_events_that_are_never_told_are_refused(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    try:
        ws.config(f"[notify]\nevents = {json.dumps(NAMED)}\n")
        assert ws.cli("config", "check").returncode == 0
        for never in ("running", "backoff", "nonsense"):
            ws.config(f'[notify]\nevents = ["{never}"]\n')
            done = ws.cli("config", "check")
            assert done.returncode == 2
            assert never in done.stderr + done.stdout
    finally:
        ws.close()


@pytest.mark.slow
def test_a_notice_of_the_budget_is_a_warning_until_the_bound_is_raised(tmp_path: Path) -> None:
    """Also after a restart, although it is told only once."""
    ws = Workspace(tmp_path)
    low = "[budget]\nmax_hours = 1\nnotice_at = 0.0000001\n"

    def noticed() -> bool:
        return any(
            "[budget] max_hours = 1 is used" in text for text in ws.status().get("warnings", ())
        )

    try:
        ws.config(low + notify(ws), max_iterations=1)
        ws.script({**WORK, "sleep": 0.1}, long_run())
        assert ws.run() == 0
        assert noticed()
        (ws.state / "status.json").unlink()
        ws.config(low + notify(ws))
        process = ws.start()
        wait_until(noticed, "the warning after the restart")
        ws.config("[budget]\nmax_hours = 1000\n" + notify(ws))
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: ws.status().get("warnings") == [], "its end")
        ws.cli("stop")
        assert ws.ended(process) == 0
        assert [told["event"] for told in json_lines(ws.root / "told")].count("budget") == 1
    finally:
        ws.close()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["completed", "crashed"])
def test_who_could_not_be_told_of_the_end_finds_it_in_status_and_report(
    tmp_path: Path, end: str
) -> None:
    ws = Workspace(tmp_path)
    try:
        ws.config('[notify]\ncommand = ["sh", "-c", "exit 7"]\n')
        ws.script({"append": {"work.txt": "x\n"}, "block": {"completed": True}})
        environment, flag = defect(ws, "supervisor.senses", "Senses.look")
        if end == "crashed":
            flag.touch()
        assert ws.run(environment=environment) == (1 if end == "crashed" else 0)
        assert ws.status()["state"] == end
        (said,) = (text for text in ws.status()["warnings"] if "[notify]" in text)
        assert "exit code 7" in said
        assert said in (ws.state / "report.md").read_text()
        assert "notify.failed" in ws.log()
    finally:
        ws.close()
