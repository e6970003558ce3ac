"""`metrics_file` from outside: the numbers of real loops; what cannot be written is said."""

from __future__ import annotations

from pathlib import Path

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
    assert "No such file" in said


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
