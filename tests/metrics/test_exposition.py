"""What Prometheus reads, judged by its own parser and by promtool; the alerts by their own clock."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from codex_self_iter.metrics.exposition import FRESH_SEC, owner, path_for, text, write
from codex_self_iter.views.metrics import families
from tests.support.harness import PATIENCE
from tests.support.shown_loops import NOW, cases, seen

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
ALL = [(name, seen(case)) for name, case in cases().items()]
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")


def promtool(*words: str, given: bytes = b"") -> str:
    done = subprocess.run(
        ["promtool", *words], input=given, capture_output=True, timeout=PATIENCE, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def test_what_is_written_is_what_is_read() -> None:
    found = {
        one.name: one for one in text_string_to_metric_families(text(families(ALL, NOW)).decode())
    }
    told = {one.name: one for one in families(ALL, NOW)}
    assert set(found) == set(told)
    for name, one in told.items():
        assert found[name].type == ("counter" if one.counter else "gauge")
        values = {
            tuple(s.labels[label] for label in one.labels): s.value for s in found[name].samples
        }
        assert values == {sample.labels: sample.value for sample in one.samples}


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_series() -> None:
    promtool("check", "metrics", given=text(families(ALL, NOW)))
    bad = b"# HELP csi_x_total x\n# TYPE csi_x_total gauge\ncsi_x_total 1\n"
    with pytest.raises(AssertionError, match="csi_x_total"):
        promtool("check", "metrics", given=bad)


def test_a_textfile_is_replaced_whole_and_others_may_read_it(tmp_path: Path) -> None:
    path = path_for(f"{tmp_path}/sub/csi-{{name}}.prom", "my loop: 1")
    assert path == str(tmp_path / "sub/csi-my-loop-1.prom")
    with pytest.raises(FileNotFoundError):
        write(path, [], owner="/s")
    (tmp_path / "sub").mkdir()
    assert owner(path, time.time()) == ""
    odd = "/s/one\nx\t \udcff" + "y" * 5000
    write(path, families(ALL[:1], NOW), owner=odd)
    assert owner(path, time.time()) == odd, "or a loop would take its own file for another's"
    assert owner(path, time.time() + FRESH_SEC + 1) == "", "of a loop that has gone"
    write(path, families(ALL[1:2], NOW), owner="/s")
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o644
    assert b'loop="running"' in Path(path).read_bytes()
    assert [one.name for one in (tmp_path / "sub").iterdir()] == ["csi-my-loop-1.prom"]
    assert path_for("/x/{name}", "…") == "/x/loop"


# -- the alerts ------------------------------------------------------------------------------------

STATES = ("running", "stagnated", "blocked", "crashed", "completed", "limited")
ALERTS: dict[str, tuple[dict[str, Any], int]] = {
    # name: series of a loop that it is for, minutes until it is there
    "CodexSelfIterStagnated": ({"state": "stagnated"}, 3),
    "CodexSelfIterBlocked": ({"state": "blocked"}, 8),
    "CodexSelfIterCrashed": ({"state": "crashed"}, 3),
    "CodexSelfIterSupervisorGone": ({"state": "running", "beats": 2}, 10),
    "CodexSelfIterNeedsPerson": ({"state": "blocked", "needs": 1}, 20),
    "CodexSelfIterNothingDone": ({"state": "running", "work": 0}, 480),
    "CodexSelfIterNotScraped": ({"state": "running", "up": 0}, 10),
}


def series(state: str, *, beats: int = 600, needs: int = 0, work: int = 50, up: int = 1) -> str:
    """A loop for ten hours: in that state, with a heartbeat for so many minutes, at work for so many
    seconds of each minute."""
    lines = [
        f"""- series: 'csi_loop_state{{loop="app",state="{name}",instance="x"}}'
        values: '{int(name == state)}x600'"""
        for name in STATES
    ]
    beat = " ".join(str(60 * min(minute, beats)) for minute in range(601))
    lines.append(f"""- series: 'csi_heartbeat_timestamp_seconds{{loop="app",instance="x"}}'
        values: '{beat}'""")
    lines.append(f"""- series: 'csi_loop_needs_person{{loop="app",instance="x"}}'
        values: '{needs}x600'""")
    lines.append(f"""- series: 'csi_lost_seconds_total{{loop="app",instance="x",cause="backoff"}}'
        values: '0+{60 - work}x600'""")
    lines.append(f"""- series: 'up{{loop="app",instance="x",job="codex-self-iter"}}'
        values: '{up}x600'""")
    return "\n      ".join(lines)


def fires(name: str, at: int, tmp_path: Path, loop: Mapping[str, Any]) -> bool:
    """Whether an alert is there at that minute."""
    shutil.copy(DEPLOY / "alerts.yml", tmp_path)
    test = f"""rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      {series(**loop)}
    promql_expr_test:
      - expr: count(ALERTS{{alertname="{name}",alertstate="firing",loop="app"}}) or vector(0)
        eval_time: {at}m
        exp_samples: [{{labels: "{{}}", value: VALUE}}]
"""
    right = []
    for value in ("0", "1"):
        (tmp_path / "test.yml").write_text(test.replace("VALUE", value))
        done = subprocess.run(
            ["promtool", "test", "rules", "test.yml"],
            cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        right.append(done.returncode == 0)
    assert sum(right) == 1, done.stdout + done.stderr
    return right[1]


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    said = promtool("check", "rules", str(DEPLOY / "alerts.yml"))
    assert f"{len(ALERTS)} rules found" in said
    promtool("check", "config", "--syntax-only", str(DEPLOY / "prometheus.yml"))


@needs_promtool
@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_there_when_it_is_due_and_not_for_a_loop_at_work(
    name: str, tmp_path: Path
) -> None:
    loop, minutes = ALERTS[name]
    assert fires(name, minutes, tmp_path, loop)
    assert not fires(name, minutes, tmp_path, {"state": "running"})
    assert not fires(name, minutes, tmp_path, {"state": "completed", "beats": 2})


def test_the_dashboard_asks_for_series_that_there_are() -> None:
    board = json.loads((DEPLOY / "dashboard.json").read_text())
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"csi_\w+", target["expr"])
    }
    known = {one.name + "_total" * one.counter for one in families([], NOW)}
    rules = set(re.findall(r"csi_\w+", (DEPLOY / "alerts.yml").read_text()))
    assert len(asked) > 10
    assert asked | rules <= known
