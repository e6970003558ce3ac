"""A reload says of every key whether it is in force or waits for a restart, and so it is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tomllib
from typing import Any

import pytest

from tests.claims.configuration_page import PAGE, ROWS, Row
from tests.claims.test_keys import chosen, set_all
from tests.support.control_steps import CLAIM, WORK, long_run, wait_log
from tests.support.harness import FAST, Workspace, wait_until

KEPT = {"workspace", "agent", "agents.order", "agent_command_template", "mode"}
"""Keys without which the scripted agent would not be the agent, or not alone."""


def logged(ws: Workspace) -> list[dict[str, Any]]:
    """The lines of the supervisor's own log."""
    path = ws.state / "logs" / "supervisor.log"
    return [json.loads(line) for line in path.read_text().splitlines()]


def told(ws: Workspace, event: str) -> set[str]:
    """Every key that lines of this event name."""
    return {key for line in logged(ws) if line["event"] == event for key in line["keys"]}


def waiting() -> set[str]:
    """The keys of which the page says that they wait for a restart."""
    text = " ".join(PAGE.read_text().split()).partition("**A reload**")[2]
    return set(
        re.findall(r"`([\w.]+)`", text.partition("wait for a restart")[0].rpartition(":")[2])
    )


def paused(ws: Workspace) -> subprocess.Popen[bytes]:
    ws.cli("pause")
    process = ws.start()
    ws.wait_state("paused")
    return process


def change(ws: Workspace, rows: list[Row]) -> None:
    """Write a configuration that differs in these keys."""
    values = {row.key: chosen(row) for row in rows if row.key not in KEPT}
    same = {key: json.dumps(value) for key, value in FAST.items()} | {"backoff_max_sec": "500"}
    same = {key: value for key, value in same.items() if key not in values}
    template = tomllib.loads((ws.control / "first.toml").read_text())["agent_command_template"]
    set_all(ws, {"agent_command_template": json.dumps(template), **same, **values})


def keep_first(ws: Workspace) -> None:
    text = (ws.path / "codex-self-iter.toml").read_text()
    (ws.control / "first.toml").write_text(text)


def leaf(row: Row) -> str:
    """The key as a change of it is logged; of a table, the one in it."""
    below = {"agents.codex.env": ".A", "pool.per_agent": ".codex"}
    return row.key + below.get(row.key, "")


def test_each_key_is_in_force_or_waits_and_the_page_says_which(ws: Workspace) -> None:
    keep_first(ws)
    process = paused(ws)
    rows = [row for row in ROWS if row.key not in KEPT]
    change(ws, rows)
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "config.needs_restart")
    keys = {leaf(row) for row in rows}
    wait_until(lambda: told(ws, "config.applied") >= keys - waiting(), "the keys to be applied")
    assert told(ws, "config.needs_restart") == waiting() - KEPT
    assert keys <= told(ws, "config.applied") | told(ws, "config.needs_restart")
    assert not told(ws, "config.applied") & told(ws, "config.needs_restart")

    def named() -> bool:
        said = [text for text in ws.status()["warnings"] if "waits for a restart" in text]
        return bool(said) and all(key in said[0] for key in waiting() - KEPT)

    wait_until(named, "status to name what waits")
    (ws.path / "codex-self-iter.toml").write_text((ws.control / "first.toml").read_text())
    process.send_signal(signal.SIGHUP)
    wait_until(
        lambda: "waits for a restart" not in str(ws.status()["warnings"]),
        "the warning to go with what was changed back",
    )
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "config.unchanged")


@pytest.mark.slow
def test_each_key_alone_is_named_when_it_changes(ws: Workspace) -> None:
    keep_first(ws)
    process = paused(ws)
    for row in ROWS:
        if row.key in KEPT:
            continue
        before = len(logged(ws))
        change(ws, [row])
        process.send_signal(signal.SIGHUP)
        event = "config.needs_restart" if row.key in waiting() else "config.applied"

        def named(key: str = leaf(row), event: str = event, before: int = before) -> bool:
            new = [line for line in logged(ws)[before:] if line["event"] == event]
            return any(key in line["keys"] for line in new)

        wait_until(named, f"{row.key} to be in {event}")


def test_a_key_that_waits_for_a_restart_is_as_it_was(ws: Workspace) -> None:
    (ws.path / "TASK.md").write_text("the first task\n")
    (ws.path / "t.md").write_text("the second task\n")
    (ws.path / "p.md").write_text("- [ ] the second plan\n")
    ws.script(long_run(until="go"), WORK, CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    ws.config(
        "[log]\nlevel = 'debug'\nformat = 'json'\n[output]\nlog_max_mb = 0.0001\nlog_files = 1\n",
        plan_file="p.md", task_file="t.md", state_dir="elsewhere", lock_file_name="lock",
        stop_file_name="HALT", global_stop_file_name="HALT2", on_orphan="kill",
    )  # fmt: skip
    (ws.path / "HALT2").touch()
    (ws.state / "HALT").touch()
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "config.needs_restart")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts()[-1] == "completed"
    assert "the first task" in ws.prompt(3)
    assert "- [ ] first" in ws.prompt(3)
    assert "second" not in ws.prompt(3).replace("- [ ] second", "")
    assert not (ws.path / "elsewhere").exists()
    assert not (ws.state / "lock").exists()
    assert not list((ws.state / "logs").glob("supervisor.log.*"))
    assert '{"' not in ws.log()
    assert {line["level"] for line in logged(ws)} <= {"info", "warning"}
    (ws.path / "HALT2").unlink()
    (ws.path / "elsewhere").mkdir()
    (ws.path / "elsewhere" / "HALT").touch()
    assert ws.run() == 0  # now they are in force
    assert "HALT" in ws.log()


@pytest.mark.parametrize("second", [2, 3])
def test_a_second_sighup_right_after_the_first_is_not_lost(ws: Workspace, second: int) -> None:
    process = paused(ws)
    ws.config(history_tail=1)
    os.kill(process.pid, signal.SIGHUP)
    wait_until(lambda: '"history_tail"' in json.dumps(logged(ws)), "the first to be read")
    ws.config(history_tail=second)
    os.kill(process.pid, signal.SIGHUP)
    ws.config(history_tail=second + 7)
    os.kill(process.pid, signal.SIGHUP)
    wait_until(lambda: any(line.get("new") == second + 7 for line in logged(ws)), "the last one")


def test_a_bound_of_the_whole_loop_is_in_force_in_mid_run(ws: Workspace) -> None:
    ws.script(long_run(until="go"), WORK)
    process = ws.start()
    ws.wait_runs(1)
    ws.config("[budget]\nmax_hours = 0.000001\n[service]\non_stop = 'finish'\n", history_tail=2)
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "config.applied")
    at_once = {"budget.max_hours", "service.on_stop"}
    assert told(ws, "config.applied") == at_once
    (ws.control / "go").touch()
    assert ws.ended(process) == 4
    assert "max_hours" in ws.status()["reason"]
    assert told(ws, "config.applied") == at_once | {"history_tail"}


def entries(ws: Workspace, *others: str, **priorities: int) -> None:
    """A configuration with an entry for each workspace."""
    lines = [line for line in (ws.control / "first.toml").read_text().splitlines() if line]
    for name in others:
        lines += ["[[workspaces]]", f"path = {json.dumps(str(ws.root / name))}"]
        lines += [f'name = "{name}"', f"priority = {priorities.get(name, 0)}"]
    (ws.root / "all.toml").write_text("\n".join(lines) + "\n")


def test_an_entry_that_comes_goes_or_has_another_priority(ws: Workspace) -> None:
    keep_first(ws)
    for name in ("a", "b", "c"):
        Workspace(ws.root, name)
        (ws.root / name / ".codex-self-iter").mkdir()
        (ws.root / name / ".codex-self-iter" / "PAUSE").touch()
    log = (ws.root / "all.log").open("wb")
    entries(ws, "a", "b")
    process = subprocess.Popen(
        [*_program(), "--config", str(ws.root / "all.toml"), "--log-format", "json"],
        cwd=ws.root, env=ws.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
    )  # fmt: skip
    log.close()
    ws.supervisors.append(process)

    def said(event: str, loop: str) -> bool:
        lines = (ws.root / "all.log").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return any((line["event"], line.get("loop")) == (event, loop) for line in found)

    wait_until(lambda: said("loop.paused", "a") and said("loop.paused", "b"), "both to begin")
    entries(ws, "a", "c", a=5)
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: said("loop.removed", "b"), "the entry that went")
    wait_until(lambda: said("loop.added", "c"), "the entry that came")
    wait_until(lambda: said("config.applied", "a"), "the priority")
    wait_until(lambda: said("loop.ended", "b"), "its loop to end")


def _program() -> tuple[str, ...]:
    from tests.support.program import PROGRAM

    return PROGRAM


def test_where_one_loop_runs_alone_a_second_one_waits_for_a_restart(ws: Workspace) -> None:
    keep_first(ws)
    Workspace(ws.root, "other")
    process = paused(ws)
    with (ws.path / "codex-self-iter.toml").open("a") as file:
        file.write('[[workspaces]]\npath = "."\n[[workspaces]]\npath = "../other"\n')
        file.write("max_iterations = 3\n")
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "config." in ws.log(), "the reload")
    assert not (ws.root / "other" / ".codex-self-iter").exists()
