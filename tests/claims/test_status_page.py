"""docs/status.md against real loops: at every moment every field has the type that the page tells,
no field is missing, none is unlisted, and each means what is said there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.claims.scenes import SCENES, Seen, Theatre, claude
from tests.program.test_control_status import (
    DOCUMENT,
    OF_THE_COMMAND,
    check_schema,
    documented,
    fits,
    flat,
)
from tests.support.control_steps import WORK, long_run
from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM

QUICK = ("proof", "errors", "money", "crash")
"""Scenes of the tests that every change needs."""
STATES = re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text().partition("## The states")[2], re.M)


def values(statuses: Iterable[dict[str, Any]], path: str) -> list[Any]:
    """Every value that a field had; of a list's items those of each."""
    found: list[Any] = []
    for status in statuses:
        here: list[Any] = [status]
        for name in path.split("."):
            key, many = name.removesuffix("[]"), name.endswith("[]")
            here = [one[key] for one in here if one and key in one]
            here = [item for one in here for item in one] if many else here
        found += here
    return found


def wrong(scenes: Iterable[Seen]) -> list[str]:
    """What of all that was seen does not fit the page."""
    found = set()
    for one in scenes:
        kinds = ((one.statuses, False), (one.printed, True))
        for status, command in ((x, command) for some, command in kinds for x in some):
            try:
                if status.get("state"):
                    check_schema(status, command=command)
            except AssertionError as error:
                found.add(f"{one.name}: {str(error)[:300]}")
    return sorted(found)


def test_at_every_moment_each_field_has_the_type_of_the_page(seen: Theatre) -> None:
    assert wrong(seen.all(*QUICK)) == []


def test_the_check_finds_a_wrong_type_and_an_unlisted_field(seen: Theatre) -> None:
    good = seen["proof"].last
    for bad in (
        good | {"iteration": "3"},
        good | {"new": 1},
        {k: good[k] for k in good if k != "pid"},
    ):
        assert wrong([Seen("bad", statuses=[bad])])


@pytest.mark.slow
def test_in_every_scene_each_field_has_the_type_of_the_page(seen: Theatre) -> None:
    assert wrong(seen.all(*SCENES)) == []


NULL = {
    "until", "run", "run.pid", "run.recorder_pid", "run.deadline_at", "run.age_sec", "run.cpu_percent",
    "run.cpu_sec", "run.memory_mb", "run.processes", "run.last_output_at", "run.idle_sec",
    "run.output_bytes", "run.retrying", "wait", "last", "last.tokens", "last.cost_usd",
    "recent[].tokens", "recent[].cost_usd", "owed", "plan.last_ticked", "disk.git_mb",
    "disk.git_loose", "exit", "pool.in_use", "pool.waiting", "totals.goodput", "lanes", "stale_sec", "orphan_pid", "run.waiting_for",
}  # fmt: skip
ELSEWHERE = {
    "plan": "program/test_control_status.py: a plan of prose has no items",
    "run.waiting_for": "test_a_run_that_waits_for_its_place_says_so",
}
"""What no scene has, and what has it."""


@pytest.mark.slow
def test_every_field_was_seen_with_a_value_and_null_where_the_page_says_so(seen: Theatre) -> None:
    statuses = [x for one in seen.all(*SCENES) for x in (*one.statuses, *one.printed)]
    missing = []
    for path, kind in documented().items():
        had = values(statuses, path)
        null, value = None in had, any(item is not None for item in had)
        if not value and path not in ELSEWHERE:
            missing.append(f"{path} was never anything")
        if kind.endswith("or null") and not null and path not in ELSEWHERE:
            missing.append(f"{path} was never null")
        # status --json before the first start is told apart: it has null for all that is not known
        if not kind.endswith("or null") and None in values(
            [x for x in statuses if x["state"]], path
        ):
            missing.append(f"{path} was null")
    assert missing == []


@pytest.mark.slow
def test_every_state_was_seen(seen: Theatre) -> None:
    found = {x["state"] for one in seen.all(*SCENES) for x in one.statuses}
    assert found == set(STATES)


# -- what each field means ---------------------------------------------------------------------------

Check = Callable[[Seen], bool]
MEANING: dict[str, tuple[str, Check]] = {}
"""Field -> the scene that shows what it means, and whether it does."""


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def each(path: str, check: Callable[[Any, dict[str, Any]], bool]) -> Check:
    """Of every status in which the field is not null; there is one."""

    def checked(one: Seen) -> bool:
        found = [(v, x) for x in one.statuses for v in values([x], path) if v is not None]
        return bool(found) and all(check(value, status) for value, status in found)

    return checked


def same(path: str, wanted: Callable[[Seen], Any]) -> Check:
    """It is always this."""
    return lambda one: set(values(one.statuses, path)) == {wanted(one)}


def grows(path: str, *, above: float = 0) -> Check:
    """It never goes back, and gets above this."""

    def checked(one: Seen) -> bool:
        found = [value for value in values(one.statuses, path) if value is not None]
        return all(a <= b for a, b in pairwise(found)) and found[-1] > above

    return checked


def line_of(one: Seen, iteration: int) -> dict[str, Any]:
    return next(line for line in one.journal if line["iteration"] == iteration)


def of_journal(path: str, key: str) -> Check:
    """In `last` and `recent`: what the journal has of the iteration."""
    holder, _, field = path.rpartition(".")

    def checked(one: Seen) -> bool:
        items = [item for item in values(one.statuses, holder) if item]
        return bool(items) and all(
            item[field] == pick(line_of(one, item["iteration"]), key) for item in items
        )

    return checked


def pick(line: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        line = (line or {}).get(part)  # type: ignore[assignment]
    return line


def version() -> str:
    done = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def agents_process(value: int, status: dict[str, Any]) -> bool:
    return value != status["pid"] and value != status["run"]["recorder_pid"]


def since_moves_with_the_state(one: Seen) -> bool:
    """Between two looks of different iterations the loop may have been in another state."""
    kept = ("state", "iteration")
    return all(
        all(a[key] == b[key] for key in kept) <= (a["since"] == b["since"])
        and (a["since"] == b["since"]) <= (a["state"] == b["state"])
        and a["since"] <= a["updated_at"]
        for a, b in pairwise(one.statuses)
    ) and len({x["since"] for x in one.statuses}) > 2  # fmt: skip


def deadline(value: str, status: dict[str, Any]) -> bool:
    return abs(epoch(value) - epoch(status["run"]["started_at"]) - 500) < 5


def counted(key: str, label: str, names: Callable[[dict[str, Any]], list[str]]) -> Check:
    """At the end a list of `totals` has what the journal's lines have."""

    def agrees(one: Seen) -> bool:
        told = {x[label]: x["count"] for x in one.last["totals"][key]}
        return told == Counter(name for line in one.journal for name in names(line)) != {}

    return agrees


def used(name: str, of: str) -> Check:
    """An agent's figure is that of the whole loop, where it is the only one."""
    return lambda one: [x[name] for x in one.last["totals"]["agents"]] == [one.last["usage"][of]]


def spent(one: Seen) -> dict[str, float]:
    return {x["state"]: x["sec"] for x in one.last["totals"]["time"]}


def whole(one: Seen) -> float:
    """Seconds from the first supervisor's start to the last word of the last."""
    return epoch(one.last["exit"]["at"]) - epoch(one.statuses[0]["started_at"])


RESULTS = counted(
    "gates", "result", lambda x: ["passed" if g["ok"] else "failed" for g in x["gates"]]
)
VERDICTS = counted("iterations", "verdict", lambda line: [line["verdict"]])
CAUSES = counted("runs", "cause", lambda line: [run["cause"] for run in line["runs"]])

MEANING |= {
    "totals": ("errors", lambda one: all(x["totals"] for x in one.statuses)),
    **dict.fromkeys(("totals.iterations", "totals.iterations[].verdict", "totals.iterations[].count"),
                    ("proof", VERDICTS)),
    **dict.fromkeys(("totals.gates", "totals.gates[].result", "totals.gates[].count"), ("proof", RESULTS)),
    **dict.fromkeys(("totals.runs", "totals.runs[].cause", "totals.runs[].count"), ("proof", CAUSES)),
    "totals.agents": ("money", lambda one: len(one.last["totals"]["agents"]) == 1),
    "totals.agents[].agent": (
        "money", lambda one: one.last["totals"]["agents"][0]["agent"] == one.last["agent"],
    ),
    "totals.agents[].tokens": ("money", used("tokens", "tokens")),
    "totals.agents[].cost_usd": ("money", used("cost_usd", "cost_usd")),
    "totals.time": ("proof", lambda one: abs(sum(spent(one).values()) - whole(one)) < 1.5),
    "totals.time[].state": ("proof", lambda one: {"running", "verifying"} < set(spent(one))),
    "totals.time[].sec": ("errors", lambda one: spent(one)["backoff"] >= 1),
    "totals.state": (
        "proof", lambda one: all(x["totals"]["state"] == x["state"] for x in one.statuses),
    ),
    "totals.as_of": (
        "proof",
        lambda one: all(x["since"] <= x["totals"]["as_of"] <= x["updated_at"] for x in one.statuses
                        if x["state"] != "starting"),
    ),
    "totals.productive_sec": (
        "proof", lambda one: 0 < one.last["totals"]["productive_sec"] <= spent(one)["running"] + 1,
    ),
    "totals.unproductive_sec": (
        "errors", lambda one: 0 < one.last["totals"]["unproductive_sec"] <= spent(one)["running"] + 1,
    ),
    "totals.goodput": (
        "errors", lambda one: one.statuses[0]["totals"]["goodput"] in (None, 0.0)
        and one.last["totals"]["goodput"] == 0.0,
    ),
    "pool": ("proof", lambda one: all(x["pool"] for x in one.statuses)),
    "pool.slots": ("proof", lambda one: len({x["pool"]["slots"] for x in one.statuses}) == 1),
    "pool.in_use": ("proof", lambda one: {x["pool"]["in_use"] for x in one.statuses if x["run"]} <= {0, 1}),
    "pool.waiting": ("proof", lambda one: {x["pool"]["waiting"] for x in one.statuses} == {0, None}),
    "schema": ("proof", same("schema", lambda _: 1)),
    "version": ("proof", same("version", lambda _: version())),
    "pid": ("proof", same("pid", lambda one: one.facts["pid"])),
    "boot_id": (
        "proof",
        same("boot_id", lambda _: Path("/proc/sys/kernel/random/boot_id").read_text().strip()),
    ),
    "config": ("proof", lambda one: {x["config"] for x in one.statuses} == {None}),
    "name": ("proof", same("name", lambda one: os.path.basename(one.facts["workspace"]))),
    "workspace": ("proof", same("workspace", lambda one: one.facts["workspace"])),
    "state_dir": (
        "proof", same("state_dir", lambda one: one.facts["workspace"] + "/.codex-self-iter"),
    ),
    "state": ("proof", each("state", lambda value, _: value in STATES)),
    "since": ("proof", since_moves_with_the_state),
    "until": (
        "errors",
        each("until", lambda value, x: value == x["wait"]["until"] and value > x["since"]),
    ),
    "reason": (
        "controls",
        lambda one: any("stops after this iteration" in x["reason"] for x in one.statuses),
    ),
    "updated_at": ("proof", grows("updated_at", above="")),  # type: ignore[arg-type]
    "started_at": ("proof", lambda one: len({x["started_at"] for x in one.statuses}) == 1),
    "iteration": (
        "proof",
        lambda one: (
            {x["iteration"] for x in one.statuses} - {0} == {line["iteration"] for line in one.journal}
        ),
    ),
    "goal": (
        "roles",
        lambda one: {x["goal"] for x in one.statuses} >= {"", "the objective"},
    ),
    "mode": ("roles", same("mode", lambda _: "roles")),
    "agent": (
        "outage", lambda one: {x["agent"] for x in one.statuses} == {"claude", "command"},
    ),
    "run": (
        "proof",
        lambda one: {x["run"] is None for x in one.statuses if x["state"] == "running"} >= {False}
        and all(x["run"] is None for x in one.statuses if x["exit"] or x["state"] == "verifying"),
    ),
    "run.run_id": (
        "proof",
        lambda one: (
            len({*values(one.statuses, "run.run_id")}) == len(one.journal)
            and one.facts["run_id"] in values(one.statuses, "run.run_id")
        ),
    ),
    "run.role": (
        "roles",
        lambda one: set(values(one.statuses, "run.role")) == {"planner", "executor", "reviewer"},
    ),
    "run.agent": ("outage", each("run.agent", lambda value, x: value == x["agent"])),
    "run.pid": ("proof", each("run.pid", agents_process)),
    "run.recorder_pid": ("proof", each("run.recorder_pid", lambda v, x: v != x["pid"])),
    "run.started_at": ("killed", lambda one: _kept_start(one)),
    "run.deadline_at": ("proof", each("run.deadline_at", deadline)),
    "run.directory": (
        "proof", each("run.directory", lambda v, x: v.startswith(x["state_dir"] + "/logs/runs/")),
    ),
    "run.waiting_for": ("many", each("run.run_id", lambda _v, x: x["run"]["waiting_for"] is None)),
    "run.retrying": ("outage", each("run.retrying", lambda value, _: value.startswith("retry 3/10"))),
    "run.age_sec": ("proof", each("run.age_sec", lambda v, x: 0 <= v < 300)),
    "run.cpu_percent": ("proof", each("run.cpu_percent", lambda v, _: 0 <= v < 1000)),
    "run.cpu_sec": ("proof", each("run.cpu_sec", lambda v, _: 0 <= v < 100)),
    "run.memory_mb": ("proof", each("run.memory_mb", lambda v, _: 0 <= v < 1000)),
    "run.processes": ("proof", each("run.processes", lambda v, _: 0 <= v < 10)),
    "run.last_output_at": (
        "proof", each("run.last_output_at", lambda v, x: v <= x["updated_at"]),
    ),
    "run.idle_sec": ("proof", each("run.idle_sec", lambda v, x: 0 <= v <= x["run"]["age_sec"] + 1)),
    "run.output_bytes": (
        "proof", lambda one: len("hello\n") in values(one.statuses, "run.output_bytes"),
    ),
    "wait": (
        "errors",
        lambda one: {x["state"] for x in one.statuses if x["wait"]} == {"backoff"},
    ),
    "wait.kind": ("errors", each("wait.kind", lambda v, _: v == "error")),
    "wait.until": ("errors", each("wait.until", lambda v, x: v == x["until"])),
    "wait.length_sec": ("errors", each("wait.length_sec", lambda v, _: 1 <= v <= 1.2)),
    "wait.reason": ("errors", each("wait.reason", lambda v, x: v == x["reason"] and "3" in v)),
    "last": ("proof", lambda one: one.statuses[0]["last"] is None and bool(one.last["last"])),
    "last.iteration": (
        "proof",
        lambda one: {*values(one.statuses, "last.iteration")} == {*range(1, len(one.journal) + 1)},
    ),
    "last.verdict": ("proof", of_journal("last.verdict", "verdict")),
    "last.summary": ("proof", of_journal("last.summary", "summary")),
    "last.duration_sec": ("proof", of_journal("last.duration_sec", "duration_sec")),
    "last.ended_at": ("proof", of_journal("last.ended_at", "ts")),
    "last.tokens": ("money", of_journal("last.tokens", "usage.total_tokens")),
    "last.cost_usd": ("money", of_journal("last.cost_usd", "cost_usd")),
    "last.failure_class": (
        "errors", lambda one: set(values(one.statuses, "last.failure_class")) == {"agent"},
    ),
    "last.unproven": (
        "proof",
        lambda one: (
            len({*values(one.statuses, "last.unproven")}) == 3
            and "test -e done" in values(one.statuses, "last.unproven")[0]
            and one.last["last"]["unproven"] == ""
        ),
    ),
    "recent": (
        "git",
        lambda one: (
            [x["iteration"] for x in one.last["recent"]]
            == [line["iteration"] for line in one.journal[-5:]]
            and len(one.journal) > 5
        ),
    ),
    "recent[].iteration": (
        "proof",
        lambda one: [x["iteration"] for x in one.last["recent"]] == [*range(1, len(one.journal) + 1)],
    ),
    "recent[].verdict": ("proof", of_journal("recent[].verdict", "verdict")),
    "recent[].failure_class": (
        "errors", lambda one: set(values(one.statuses, "recent[].failure_class")) == {"agent"},
    ),
    "recent[].summary": ("proof", of_journal("recent[].summary", "summary")),
    "recent[].unproven": (
        "proof", lambda one: one.last["recent"][0]["unproven"] == line_of(one, 1)["unproven"] != "",
    ),
    "recent[].gates_failed": (
        "proof",
        lambda one: (
            [x["gates_failed"] for x in one.last["recent"]][:2] == [["test -e done"], []]
        ),
    ),
    "recent[].duration_sec": ("proof", of_journal("recent[].duration_sec", "duration_sec")),
    "recent[].tokens": ("money", of_journal("recent[].tokens", "usage.total_tokens")),
    "recent[].cost_usd": ("money", of_journal("recent[].cost_usd", "cost_usd")),
    "counters": ("errors", each("counters", lambda v, _: len(v) == 7)),
    "counters.consecutive_errors": ("errors", grows("counters.consecutive_errors", above=1)),
    "counters.failures": ("errors", grows("counters.failures", above=1)),
    "counters.no_change": (
        "circles", lambda one: {0, 1, 2} <= set(values(one.statuses, "counters.no_change")),
    ),
    "counters.same_goal": (
        "circles", lambda one: max(values(one.statuses, "counters.same_goal")) >= 2,
    ),
    "counters.confirmations": (
        "proof", lambda one: set(values(one.statuses, "counters.confirmations")) >= {0, 1},
    ),
    "counters.gate_failures": (
        "proof", lambda one: set(values(one.statuses, "counters.gate_failures")) == {0, 1},
    ),
    "counters.iterations_this_run": (
        "killed",
        lambda one: one.last["iteration"] > one.last["counters"]["iterations_this_run"] > 0,
    ),
    "usage": ("money", each("usage", lambda v, _: len(v) == 4)),
    "usage.tokens": ("money", grows("usage.tokens", above=2600)),
    "usage.cost_usd": ("money", lambda one: one.last["usage"]["cost_usd"] == 0.5),
    "usage.unpriced_tokens": ("money", lambda one: one.last["usage"]["unpriced_tokens"] == 1800),
    "usage.hours": ("money", grows("usage.hours", above=-1)),
    "lanes": ("lanes", lambda one: any(x["lanes"] for x in one.statuses)),
    "lanes.most": ("lanes", same("lanes.most", lambda _: 2)),
    "lanes.target": ("lanes", same("lanes.target", lambda one: one.facts["branch"])),
    "lanes.held": (
        "lanes", lambda one: one.last["lanes"]["held"] == "" and any(values(one.statuses, "lanes.held"))
    ),
    "lanes.landing": ("lanes", lambda one: ["1"] in values(one.statuses, "lanes.landing")),
    "lanes.landed": ("lanes", lambda one: set(values(one.statuses, "lanes.landed")) == {0, 1}),
    "lanes.left": ("lanes", lambda one: {1, 2} <= set(values(one.statuses, "lanes.left")) <= {0, 1, 2}),
    "lanes.lanes": (
        "lanes", lambda one: [x["lane"] for x in one.last["lanes"]["lanes"]] == ["2"]
    ),
    "lanes.lanes[].lane": ("lanes", lambda one: set(values(one.statuses, "lanes.lanes[].lane")) == {"1", "2"}),
    "lanes.lanes[].number": (
        "lanes", lambda one: all(str(x["number"]) == x["lane"] for x in values(one.statuses, "lanes.lanes[]"))
    ),
    "lanes.lanes[].item": (
        "lanes", lambda one: set(values(one.statuses, "lanes.lanes[].item")) == {"first", "second"}
    ),
    "lanes.lanes[].state": (
        "lanes", lambda one: {"working", "landing", "needs you"} <= set(values(one.statuses, "lanes.lanes[].state"))
    ),
    "lanes.lanes[].since": (
        "lanes", each("lanes", lambda v, x: all(y["since"] <= x["updated_at"] for y in v["lanes"])),
    ),
    "lanes.lanes[].why": ("lanes", lambda one: "which one?" in one.last["lanes"]["lanes"][0]["why"]),
    "lanes.lanes[].place": (
        "lanes", lambda one: one.last["lanes"]["lanes"][0]["place"].startswith(one.facts["root"] + "/trees/")
    ),
    "lanes.lanes[].state_dir": (
        "lanes", each("lanes", lambda v, x: all(
            y["state_dir"] == f"{x['state_dir']}/lanes/{y['lane']}/state" for y in v["lanes"])),
    ),
    "lanes.lanes[].returns": ("lanes", lambda one: set(values(one.statuses, "lanes.lanes[].returns")) == {0}),
    "owed": ("owed", lambda one: None in values(one.statuses, "owed") and any(values(one.statuses, "owed"))),
    "owed.count": ("owed", each("owed.count", lambda v, x: v == len(x["owed"]["files"]) > 0)),
    "owed.iteration": ("owed", lambda one: 1 in values(one.statuses, "owed.iteration")),
    "owed.files": ("owed", lambda one: ["work.txt"] in values(one.statuses, "owed.files")),
    "owed.why": ("owed", lambda one: any("hook says no" in v for v in values(one.statuses, "owed.why"))),
    "owed.mendable": ("owed", lambda one: True in values(one.statuses, "owed.mendable")),
    "plan": ("proof", lambda one: one.last["plan"] is not None),
    "plan.done": ("proof", lambda one: (one.statuses[0]["plan"]["done"], one.last["plan"]["done"]) == (0, 3)),
    "plan.total": ("proof", lambda one: set(values(one.statuses, "plan.total")) == {2, 3}),
    "notes": ("proof", lambda one: set(values(one.statuses, "notes")) == {0, 2}),
    "plan.path": ("proof", each("plan.path", lambda v, _: v.endswith("/plan.md") and v.startswith("/"))),
    "plan.last_ticked": (
        "proof", lambda one: set(values(one.statuses, "plan.last_ticked")) >= {None, "second", "third"},
    ),
    "disk": ("proof", each("disk", lambda v, _: len(v) == 4)),
    "disk.state_mb": ("proof", each("disk.state_mb", lambda v, _: 0 <= v < 10)),
    "disk.free_mb": (
        "reload",
        lambda one: abs(one.last["disk"]["free_mb"] / one.facts["free_mb"] - 1) < 0.03,
    ),
    "disk.git_mb": ("proof", each("disk.git_mb", lambda v, _: 0 <= v < 10)),
    "disk.git_loose": ("proof", each("disk.git_loose", lambda v, _: v > 0)),
    "warnings": (
        "reload",
        lambda one: any("not read again" in w for x in one.statuses for w in x["warnings"])
        and not any("not read again" in w for w in one.last["warnings"]),
    ),
    "log": ("proof", lambda one: one.last["log"] == one.last["state_dir"] + "/logs/supervisor.log"),
    "stop_file": ("proof", lambda one: one.last["stop_file"] == one.last["state_dir"] + "/STOP"),
    "global_stop_file": (
        "proof", lambda one: one.last["global_stop_file"] == one.last["workspace"] + "/.codex-stop",
    ),
    "pause_file": ("proof", lambda one: one.last["pause_file"] == one.last["state_dir"] + "/PAUSE"),
    "exit": (
        "proof", lambda one: not one.statuses[0]["exit"] and bool(one.last["exit"])
        and all(bool(x["exit"]) == (x["state"] == "completed") for x in one.statuses),
    ),
    "exit.code": ("errors", lambda one: one.last["exit"]["code"] == one.facts["code"] == 4),
    "exit.state": ("errors", lambda one: one.last["exit"]["state"] == one.last["state"] == "blocked"),
    "exit.reason": ("errors", lambda one: one.last["exit"]["reason"] == one.last["reason"] != ""),
    "exit.at": ("errors", lambda one: one.last["exit"]["at"] >= one.last["since"]),
    "alive": ("proof", lambda one: [x["alive"] for x in one.printed] == [False, False, True, False]),
    "stale_sec": (
        "proof",
        lambda one: one.printed[0]["stale_sec"] is None and 0 <= one.printed[2]["stale_sec"] < 60,
    ),
    "orphan_pid": (
        "killed",
        lambda one: one.printed[0]["orphan_pid"] in values(one.statuses, "run.pid"),
    ),
    "waiting_goal": (
        "proof",
        lambda one: [x["waiting_goal"] for x in one.printed] == ["", "the first goal", "", ""],
    ),
    "waiting_messages": (
        "proof", lambda one: [x["waiting_messages"] for x in one.printed] == [0, 1, 0, 0],
    ),
}  # fmt: skip


def _kept_start(one: Seen) -> bool:
    """The start of the first run is told alike by both supervisors."""
    told = {(x["pid"], x["run"]["started_at"]) for x in one.statuses
            if x["run"] and x["iteration"] == 1 and x["run"]["pid"]}  # fmt: skip
    return len({pid for pid, _ in told}) == 2 and len({at for _, at in told}) == 1


def test_the_meaning_of_every_field_is_looked_at() -> None:
    assert MEANING.keys() == documented().keys()
    assert MEANING.keys() > OF_THE_COMMAND


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(field, marks=() if scene in QUICK else pytest.mark.slow)
        for field, (scene, _) in MEANING.items()
    ],
)
def test_a_field_means_what_the_page_says(seen: Theatre, field: str) -> None:
    scene, means = MEANING[field]
    assert means(seen[scene]), values(seen[scene].statuses, field)


def test_before_the_first_start_what_nobody_knows_is_null(seen: Theatre) -> None:
    first = seen["proof"].printed[0]
    check_names = {path for path in documented() if "." not in path}
    assert first.keys() == check_names
    for path, value in flat(first).items():
        if path in documented() and value is not None:
            assert fits(value, documented()[path]), path
    assert first["state"] is None
    assert first["exit"] is None
    assert first["workspace"] == seen["proof"].facts["workspace"]


# -- what the page says of the whole -----------------------------------------------------------------


def test_what_is_read_is_never_half_a_file(seen: Theatre) -> None:
    assert all("torn" not in one.facts for one in seen.all(*QUICK))


@pytest.mark.slow
def test_it_is_written_at_every_change_and_every_five_seconds(seen: Theatre) -> None:
    """In a long wait only the heartbeat moves; what is logged as a state was in the file."""
    for one in seen.all("limit", "proof", "errors"):
        times = [epoch(status["updated_at"]) for status in one.statuses]
        assert max(b - a for a, b in pairwise(times)) < 8  # 5 on a machine that is not busy
    beats = [x for x in seen["limit"].statuses if x["state"] == "limited"]
    assert any({**a, "updated_at": 0, "disk": 0} == {**b, "updated_at": 0, "disk": 0}
               for a, b in pairwise(beats))  # fmt: skip
    states = {x["state"] for x in seen["proof"].statuses}
    assert states >= {"running", "verifying", "completed"}


def test_the_command_prints_the_file_and_what_that_cannot_know(seen: Theatre) -> None:
    last = seen["proof"].printed[-1]
    assert {key: last[key] for key in last if key not in OF_THE_COMMAND} == seen["proof"].last


SCHEMA_1 = Path(__file__).with_name("status-schema-1.txt")


def test_no_field_of_schema_1_goes_or_changes_its_type() -> None:
    """Whoever adds a field adds a line to the file; none is ever changed."""
    kept = dict(line.split(": ") for line in SCHEMA_1.read_text().splitlines())
    assert kept.items() <= documented().items()
    assert documented().keys() == kept.keys()


@pytest.mark.slow
def test_a_killed_supervisor_leaves_its_last_heartbeat(seen: Theatre) -> None:
    """And a clean end sets `exit`: `test_a_field_means_what_the_page_says[exit]`."""
    gone = seen["killed"].printed[0]
    assert (gone["alive"], gone["exit"], gone["state"]) == (False, None, "running")
    assert gone["stale_sec"] > 0


def test_times_are_utc_with_milliseconds(seen: Theatre) -> None:
    stamp = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
    kinds = documented()
    for path in (path for path, kind in kinds.items() if kind.startswith("time")):
        for value in values(seen["proof"].statuses + seen["errors"].statuses, path):
            assert value is None or stamp.fullmatch(value), path


ENDS = {
    "completed": ("proof", 0),
    "stopped": ("limit", 130),
    "stagnated": ("circles", 3),
    "blocked": ("errors", 4),
    "crashed": ("crash", 1),
}


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(s, marks=() if scene in QUICK else pytest.mark.slow)
        for s, (scene, _) in ENDS.items()
    ],
)
def test_a_final_state_ends_with_its_code(seen: Theatre, state: str) -> None:
    scene, code = ENDS[state]
    one = seen[scene]
    assert (one.facts["code"], one.last["exit"]["code"], one.last["exit"]["state"]) == (
        code,
        code,
        state,
    )
    assert one.last["state"] == state


@pytest.mark.slow
def test_a_stop_on_request_is_an_end_with_0(seen: Theatre) -> None:
    for name in ("roles", "controls", "person"):
        assert (seen[name].facts["code"], seen[name].last["state"]) == (0, "stopped")


@pytest.mark.slow
def test_states_follow_each_other_as_the_page_says(seen: Theatre) -> None:
    def after(name: str, state: str) -> set[str]:
        """What came after a state, in the file or, where that was too short to be seen, the log."""
        one = seen[name]
        ends = [line["state"] for line in one.of("loop.ended")]
        logged = [line["event"].removeprefix("loop.") for line in one.console]
        orders = ([x["state"] for x in one.statuses], [x for x in logged if x in STATES] + ends)
        return {b for order in orders for a, b in pairwise(order) if a == state != b}

    assert after("proof", "starting") <= {"running", "verifying"}
    assert "verifying" in after("proof", "running")
    assert after("proof", "verifying") == {"running", "completed"}
    assert after("errors", "backoff") == {"running"}
    assert after("roles", "cooldown") == {"running", "stopped"}
    assert after("limit", "limited") == {"paused", "stopped"}
    assert after("limit", "paused") == {"limited"}
    assert after("controls", "stopping") == {"stopped"}
    assert "running" in after("login", "blocked")


@pytest.mark.slow
def test_a_run_that_waits_for_its_place_says_so(tmp_path: Path) -> None:
    """Two loops, one place: what the second waits for is in `run.waiting_for` and `reason`."""
    first, second = (Workspace(tmp_path, name) for name in ("first", "second"))
    try:
        texts = []
        for ws in (first, second):
            ws.script(
                {"sleep": 600, "until": "go", "append": {"w": "x"}, "block": {"completed": True}}
            )
            ws.config("[pool]\nmax_agents = 1\n")
            texts.append((ws.path / "codex-self-iter.toml").read_text())
        place = tmp_path / "loops"
        place.mkdir()
        for ws, text in zip((first, second), texts, strict=True):
            (place / f"{ws.path.name}.toml").write_text(
                f"workspace = {json.dumps(str(ws.path))}\n{text}"
            )
            (ws.path / "codex-self-iter.toml").unlink()
        with (tmp_path / "supervisor-1.log").open("wb") as log:
            process = subprocess.Popen(
                [*PROGRAM, "--config-dir", str(place)], cwd=tmp_path, env=first.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        first.supervisors.append(process)

        def waiting() -> list[dict[str, Any]]:
            found = [ws.status() for ws in (first, second)]
            return [x for x in found if (x.get("run") or {}).get("waiting_for")]

        (status,) = wait_until(waiting, "a loop that waits")
        check_schema(status)
        assert status["state"] == "running"
        assert status["reason"] == status["run"]["waiting_for"]
        assert "pool" in status["reason"] or "place" in status["reason"]
        assert status["pool"] == {"slots": 1, "in_use": 1, "waiting": 1}
        for ws in (first, second):
            (ws.control / "go").touch()
        assert first.ended(process) == 0
    finally:
        for ws in (first, second):
            ws.close()


@pytest.mark.slow
@pytest.mark.parametrize("field", ["stop_file", "global_stop_file", "pause_file"])
def test_the_files_that_it_names_do_what_it_says(ws: Workspace, field: str) -> None:
    ws.script({"exit": 3})
    ws.config(backoff_base_sec=600, backoff_max_sec=600)
    process = ws.start()
    path = Path(ws.wait_state("backoff")[field])
    path.touch()
    if field == "pause_file":
        ws.wait_state("paused")
        path.unlink()
        ws.wait_state("backoff")
        Path(ws.status()["stop_file"]).touch()
    assert ws.ended(process) == 0
    assert ws.status()["state"] == "stopped"


@pytest.mark.slow
def test_an_idle_run_is_ended_at_its_bound(ws: Workspace) -> None:
    ws.config(claude(ws, "exec sleep 600"), agent="claude", idle_timeout_sec=8, max_iterations=1)
    process = ws.start()
    seen: list[float] = []

    def over() -> bool:
        run = ws.status().get("run") or {}
        seen.append(run.get("idle_sec") or 0.0)
        return process.poll() is not None

    wait_until(over, "the end")
    assert ws.verdicts() == ["timed_out"]
    assert max(seen) > 1
    assert 8 <= ws.journal()[0]["duration_sec"] < 60


@pytest.mark.slow
def test_max_iterations_counts_the_iterations_of_this_supervisor(ws: Workspace) -> None:
    ws.config(max_iterations=1)
    ws.script(WORK)
    for number in (1, 2):
        assert ws.run() == 0
        status = ws.status()
        assert (status["iteration"], status["counters"]["iterations_this_run"]) == (number, 1)
        assert "iteration limit reached" in status["reason"]


@pytest.mark.slow
def test_stopping_lasts_the_grace_and_a_little(ws: Workspace) -> None:
    ws.config(kill_grace_sec=2)
    ws.script({**long_run(), "deaf": True})
    process = ws.start()
    ws.wait_runs(1)
    process.terminate()
    begun = time.monotonic()
    ws.wait_state("stopping")
    assert ws.ended(process) == 0
    assert 1.9 <= time.monotonic() - begun < 40  # a busy machine


@pytest.mark.slow
@pytest.mark.parametrize("why", ["disk", "budget", "login"])
def test_blocked_waits_or_ends_and_says_what_a_person_can_do(seen: Theatre, why: str) -> None:
    one = seen[{"disk": "reload", "budget": "money", "login": "login"}[why]]
    blocked = [x for x in one.statuses if x["state"] == "blocked"]
    said = {
        "disk": "free some to go on",
        "budget": "max_cost_usd = 1.2",
        "login": "claude auth login",
    }
    assert any(said[why] in x["reason"] for x in blocked) or why == "budget"
    ended = [x for x in blocked if x["exit"]]
    assert bool(ended) == (why != "disk")
    assert all(x["exit"]["code"] == 4 for x in ended)
    assert (why == "budget") or any(not x["exit"] for x in blocked)


@pytest.mark.slow
def test_lists_and_texts_are_no_longer_than_the_page_says(seen: Theatre) -> None:
    last = seen["bounds"].last
    recent, owed = last["recent"][-1], last["owed"]
    assert len(last["last"]["summary"]) > 300
    assert recent["summary"] == last["last"]["summary"][:300]
    assert recent["unproven"] == last["last"]["unproven"][:300]
    assert recent["gates_failed"] == [f"false {number}" for number in range(3)]
    assert (owed["count"], len(owed["files"])) == (14, 10)
    assert len(last["warnings"]) == 20
    said = [line["text"] for line in seen["bounds"].of("state.warning")]
    assert len(said) > 20
    assert last["warnings"] == said[-20:]


@pytest.mark.slow
def test_every_kind_of_wait_and_role_and_mode_was_seen(seen: Theatre) -> None:
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| str \| (.*) \|$", DOCUMENT.read_text(), re.M))
    statuses = [status for one in seen.all(*SCENES) for status in one.statuses]
    for path in ("wait.kind", "run.role", "mode"):
        assert set(values(statuses, path)) - {None} == set(re.findall(r"`(\w+)`", rows[path])), path
