"""docs/metrics.md: every series of a real loop, against what the loop itself has written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.claims.scenes import claude
from tests.support.control_steps import wait_log
from tests.support.harness import Workspace
from tests.views.test_metrics import PAGE, ROW

Numbers = dict[tuple[str, ...], float]


class Told(NamedTuple):
    """A loop that has ended: its numbers, its status, its journal's lines."""

    numbers: Numbers
    status: dict[str, Any]
    journal: list[dict[str, Any]]

    def of(self, name: str) -> dict[tuple[str, ...], float]:
        return {labels: value for (one, *labels_), value in self.numbers.items() if one == name
                for labels in [tuple(labels_)]}  # fmt: skip

    def one(self, name: str) -> float | None:
        return self.of(name).get(())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """An error, then work whose gate fails, then the proven end; with tokens and money."""
    ws = Workspace(tmp_path_factory.mktemp("metrics"))
    lines = (
        "n=$(cat n 2>/dev/null || echo 0); echo $((n+1)) > n",
        "[ $n = 0 ] && exit 3",
        f'echo $n >> "{ws.path}/work.txt"',
        "[ $n = 1 ] || sed -i 's/completed\\\\\": false/completed\\\\\": true/' result",
        "cat result",
    )
    table = claude(ws, *lines)
    (ws.path / "plan.md").write_text("- [x] one\n- [ ] two\n")
    ws.config(
        f'{table}[verify]\ncommands = ["test $(wc -l < work.txt) -ge 2"]\nrequire_plan_done = false\n',
        agent="claude", agent_command_template="", metrics_file=f"{ws.root}/{{name}}.prom",
        backoff_base_sec=1, backoff_max_sec=1,
    )  # fmt: skip
    try:
        assert ws.run() == 0, ws.log()
        text = (ws.root / f"{ws.path.name.replace(' ', '-')}.prom").read_text()
        numbers = {
            (sample.name, *(v for k, v in sample.labels.items() if k != "loop")): sample.value
            for one in text_string_to_metric_families(text)
            for sample in one.samples
        }
        yield Told(numbers, ws.status(), ws.journal())
    finally:
        ws.close()


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def listed(one: Told, key: str, label: str, value: str) -> dict[tuple[str, ...], float]:
    return {(x[label],): x[value] for x in one.status["totals"][key]}


def counts(of: Callable[[dict[str, Any]], list[str]]) -> Callable[[Told], Any]:
    return lambda one: {(k,): v for k, v in Counter(n for x in one.journal for n in of(x)).items()}


SERIES: dict[str, Callable[[Told], Any]] = {
    "csi_loop_needs_person": lambda _: {(): 0.0},
    "csi_loop_state_since_timestamp_seconds": lambda one: {(): epoch(one.status["since"])},
    "csi_loop_wait_until_timestamp_seconds": lambda _: {},
    "csi_iteration": lambda one: {(): len(one.journal)},
    "csi_iterations_total": counts(lambda x: [x["verdict"]]),
    "csi_gate_runs_total": counts(
        lambda x: ["passed" if g["ok"] else "failed" for g in x["gates"]]
    ),
    "csi_agent_runs_total": counts(lambda x: [run["cause"] for run in x["runs"]]),
    "csi_tokens_total": lambda one: {("claude",): one.status["usage"]["tokens"]},
    "csi_cost_usd_total": lambda one: {("claude",): one.status["usage"]["cost_usd"]},
    "csi_build_info": lambda one: {(one.status["version"],): 1},
    "csi_state_seconds_total": lambda one: listed(one, "time", "state", "sec"),
    "csi_lost_seconds_total": lambda one: {
        **{k: v for k, v in listed(one, "time", "state", "sec").items() if k != ("running",)},
        ("unproductive",): one.status["totals"]["unproductive_sec"],
    },
    "csi_productive_seconds_total": lambda one: {(): one.status["totals"]["productive_sec"]},
    "csi_goodput_ratio": lambda one: {(): one.status["totals"]["goodput"]},
    "csi_plan_items": lambda _: {("done",): 1, ("open",): 1},
    "csi_consecutive_errors": lambda _: {(): 0},
    "csi_iterations_without_change": lambda _: {(): 0},
    "csi_warnings": lambda one: {(): len(one.status["warnings"])},
    "csi_owed_files": lambda _: {},
    "csi_state_directory_bytes": lambda one: {(): one.status["disk"]["state_mb"] * 2**20},
    "csi_free_disk_bytes": lambda one: {(): one.status["disk"]["free_mb"] * 2**20},
    "csi_pool_slots": lambda one: {(): one.status["pool"]["slots"]},
    "csi_pool_in_use": lambda _: {},
    "csi_pool_waiting": lambda _: {},
}


@pytest.mark.parametrize("name", SERIES)
def test_a_series_is_what_the_page_says(told: Told, name: str) -> None:
    assert told.of(name) == pytest.approx(SERIES[name](told))


def test_the_rest_of_the_series(told: Told) -> None:
    states = told.of("csi_loop_state")
    assert [name for (name,), value in states.items() if value] == ["completed"]
    assert {"gone", "orphan", "not responding", "not started", "unreadable"} < {
        n for (n,) in states
    }
    waited = told.of("csi_wait_seconds_total")
    assert {n for (n,) in waited} == {
        "backoff",
        "cooldown",
        "limited",
        "outage",
        "paused",
        "blocked",
    }
    assert waited["backoff",] == told.of("csi_state_seconds_total")["backoff",] >= 1
    beat, age = told.one("csi_heartbeat_timestamp_seconds"), told.one("csi_heartbeat_age_seconds")
    assert beat == pytest.approx(epoch(told.status["updated_at"]), abs=2)
    assert age is not None
    assert 0 <= age < 10


def test_no_series_is_left_out(told: Told) -> None:
    rest = {
        "csi_loop_state", "csi_wait_seconds_total", "csi_heartbeat_timestamp_seconds",
        "csi_heartbeat_age_seconds",
    }  # fmt: skip
    assert SERIES.keys() | rest == dict(ROW.findall(PAGE.read_text())).keys()
    assert {name for name, *_ in told.numbers} <= SERIES.keys() | rest


def test_totals_go_on_over_a_kill_and_nothing_printed_is_in_them(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    try:
        ws.config('[verify]\ncommands = ["true"]\n', metrics_file=f"{tmp_path}/x.prom")
        work = {
            "say": "csi_secret_words 1\n",
            "append": {"w": "x"},
            "block": {"summary": "csi words"},
        }
        end = {"append": {"w": "x"}, "block": {"completed": True}}
        ws.script(work, {"sleep": 600, "until": "go", **work}, end)
        process = ws.start()
        ws.wait_runs(2)
        process.kill()
        process.wait()
        second = ws.start()
        wait_log(ws, "run.adopted")
        (ws.control / "go").touch()
        assert ws.ended(second) == 0
        text = (tmp_path / "x.prom").read_text()
        assert 'csi_iterations_total{loop="work space",verdict="continue"} 2.0' in text
        assert 'csi_iterations_total{loop="work space",verdict="completed"} 1.0' in text
        assert "words" not in text
    finally:
        ws.close()
