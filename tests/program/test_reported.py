"""Faults that were found by using the program, each as the behaviour that has to be."""

from __future__ import annotations

import shutil

import pytest

from tests.program.harness import Workspace, wait_until

STEP = {"append": {"work.txt": "x\n"}}
SLOW = {"sleep": 30, "until": "go"}


def kill(ws: Workspace) -> None:
    """kill -9 of the last supervisor."""
    ws.supervisors[-1].kill()
    ws.supervisors[-1].wait()


def forget_everything(ws: Workspace) -> tuple[str, ...]:
    shutil.rmtree(ws.state)
    return ()


def take_another_state_directory(ws: Workspace) -> tuple[str, ...]:
    return "--state-dir", str(ws.root / "another state")


@pytest.mark.parametrize("meanwhile", [forget_everything, take_another_state_directory])
def test_no_second_agent_beside_one_of_which_no_record_is_left(ws: Workspace, meanwhile: object) -> None:
    ws.script({**SLOW, "spawn": ["setsid"]}, {**STEP, "block": {"completed": True}})
    ws.start()
    ws.wait_runs(1)
    kill(ws)
    assert ws.leftovers()
    assert callable(meanwhile)
    flags = meanwhile(ws)
    assert ws.run(*flags) == 0
    assert not (ws.control / "overlaps.log").exists()
    assert "strays.ended" in ws.log()
    wait_until(lambda: not ws.leftovers(), "the first agent to be gone")
