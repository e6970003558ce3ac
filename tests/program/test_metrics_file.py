"""`metrics_file` from outside: the numbers of real loops; what cannot be written is said."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.control_steps import long_run
from tests.support.harness import Workspace, wait_until

DONE = {"append": {"work.txt": "x\n"}, "block": {"completed": True, "summary": "done"}}


def numbers(path: Path) -> dict[tuple[str, ...], float]:
    """Of one loop's file: (name, value of the further label) -> number."""
    if not path.exists():
        return {}
    return {
        (sample.name, *(v for k, v in sample.labels.items() if k != "loop")): sample.value
        for one in text_string_to_metric_families(path.read_text())
        for sample in one.samples
    }


def test_a_loop_writes_its_numbers_while_it_runs_and_at_its_end(
    ws: Workspace, tmp_path: Path
) -> None:
    out = tmp_path / "collector"
    out.mkdir()
    ws.config('[verify]\ncommands = ["true"]\n', metrics_file=f"{out}/csi-{{name}}.prom")
    ws.script(long_run(), DONE)
    process = ws.start()
    path = out / f"csi-{ws.path.name.replace(' ', '-')}.prom"
    wait_until(lambda: numbers(path).get(("csi_loop_state", "running")) == 1, "its numbers")
    assert numbers(path)["csi_heartbeat_timestamp_seconds",] > 0
    assert ("csi_iterations_total", "completed") not in numbers(path)
    ws.cli("steer", "--now", "go on")
    assert ws.ended(process) == 0
    found = numbers(path)
    assert found["csi_loop_state", "completed"] == 1
    assert found["csi_loop_needs_person",] == 0
    assert found["csi_iterations_total", "completed"] == 1
    assert found["csi_gate_runs_total", "passed"] == 1
    assert found["csi_state_seconds_total", "running"] > 0
    assert sum(v for (name, *_), v in found.items() if name == "csi_agent_runs_total") == 2
    assert [one.name for one in out.iterdir()] == [path.name]


def test_what_cannot_be_written_is_said_and_holds_up_nothing(ws: Workspace, tmp_path: Path) -> None:
    ws.config(metrics_file=f"{tmp_path}/nowhere/x.prom")
    ws.script(DONE)
    doctor = ws.cli("doctor").stdout
    assert "metrics_file" in doctor
    assert f"mkdir -p {tmp_path}/nowhere" in doctor
    assert ws.run() == 0
    said = " ".join(ws.status()["warnings"])
    assert "metrics_file could not be written" in said
    assert f"{tmp_path}/nowhere/x.prom: No such file or directory" in said


def test_several_loops_of_one_configuration_need_a_file_each(ws: Workspace) -> None:
    for name in ("a", "b"):
        (ws.path / name).mkdir()
    table = "".join(f'[[workspaces]]\npath = "{name}"\n' for name in "ab")
    ws.config(table, metrics_file="/tmp/x.prom")
    refused = ws.cli("config", "check")
    assert refused.returncode == 2
    assert "put {name} into it" in refused.stderr + refused.stdout
    ws.config(table, metrics_file="/tmp/x-{name}.prom")
    assert "put {name} into it" not in str(ws.cli("config", "check"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("numbers.prom", "must be an absolute path that ends in .prom"),
        ("/tmp/numbers", "must be an absolute path that ends in .prom"),
        ("/tmp/{nme}.prom", "may have {name} in it and no other"),
        ("{ws}/x.prom", "must be outside the workspace"),
    ],
)
def test_a_file_that_would_not_be_collected_or_taken_for_work_is_refused(
    ws: Workspace, path: str, said: str
) -> None:
    ws.config(metrics_file=path.replace("{ws}", str(ws.path)))
    refused = ws.cli("config", "check")
    assert refused.returncode == 2
    assert said in refused.stderr


@pytest.mark.slow
def test_what_is_no_longer_written_is_not_left_for_the_collector(
    ws: Workspace, tmp_path: Path
) -> None:
    ws.config(metrics_file=f"{tmp_path}/one.prom")
    ws.script(long_run(), long_run(), long_run())
    process = ws.start()
    ws.wait_runs(1)
    wait_until((tmp_path / "one.prom").exists, "the first")
    ws.config(metrics_file=f"{tmp_path}/two.prom")
    process.send_signal(signal.SIGHUP)
    ws.cli("steer", "--now", "keys are taken between two runs")
    wait_until((tmp_path / "two.prom").exists, "the second")
    wait_until(lambda: not (tmp_path / "one.prom").exists(), "the first to go")
    ws.config()
    process.send_signal(signal.SIGHUP)
    ws.cli("steer", "--now", "and another one")
    wait_until(lambda: not (tmp_path / "two.prom").exists(), "the second to go")
    assert ws.status()["warnings"] == []
    ws.cli("stop")
    assert ws.ended(process) == 0
    assert not list(tmp_path.glob("*.prom"))


@pytest.mark.slow
def test_another_loop_s_file_is_left_alone_and_that_is_said(tmp_path: Path) -> None:
    first, second = (Workspace(tmp_path / name, "app") for name in "ab")
    try:
        for ws in (first, second):
            ws.config(metrics_file=f"{tmp_path}/csi-{{name}}.prom")
            ws.script(long_run())
        process = first.start()
        path = tmp_path / "csi-app.prom"
        wait_until(path.exists, "the first")
        other = second.start()
        wait_until(
            lambda: any(
                "is written by another loop" in w for w in second.status().get("warnings", ())
            ),
            "the second to say it",
        )
        assert str(first.state) in path.read_text().splitlines()[0]
        for ws, one in ((first, process), (second, other)):
            ws.cli("stop")
            assert ws.ended(one) == 0
    finally:
        first.close()
        second.close()
