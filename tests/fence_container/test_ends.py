"""Nothing inside outlives its run, whoever is killed outside; and the container goes, too."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import psutil
import pytest

from tests.fence_container.conftest import Place
from tests.fence_container.test_inside import SAY
from tests.support.harness import wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow]
ESCAPEE = ("sleep", str(1_000_000 + os.getpid()))  # other tests may look at the same time
ESCAPE = f"""\
setsid sh -c 'trap "" TERM HUP; env -i setsid {" ".join(ESCAPEE)} & exec sleep 54332' >/dev/null 2>&1 &
until [ "$(ps -e | grep -c sleep)" = 2 ]; do sleep 0.02; done
"""
WAIT = "touch there; until [ -e go ]; do sleep 0.05; done\n"


def escaped() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == [*ESCAPEE]]


def shims(place: Place) -> list[psutil.Process]:
    """What stands outside for this loop's runs."""
    own = f"{place.state}/"
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if any("process.inside import" in word for word in one.info["cmdline"] or ())
        and any(own in word for word in one.info["cmdline"])
    ]


def test_an_escapee_does_not_outlive_its_run(place: Place) -> None:
    place.agent(
        f"if [ -e escaped ]; then ps -e | grep -c sleep >seen; else touch escaped; {ESCAPE} fi\n"
        + SAY
    )
    assert place.run("--max-iterations", "2") == 0, place.log()
    assert place.verdicts() == ["continue", "continue"], place.log()
    assert (place.path / "seen").read_text() == "0\n"
    assert re.search("swept=[1-9]", place.log())
    assert escaped() == []


def test_a_stop_reaches_the_agent_inside_and_a_deaf_one_is_killed(place: Place) -> None:
    place.agent(
        "(trap 'echo heard >heard; exit' TERM; touch there; while :; do sleep 0.05; done) &\n"
        f"trap '' TERM; {ESCAPE.replace('= 2 ]', '-ge 2 ]')} while :; do sleep 0.05; done\n"
    )
    running = place.start()
    wait_until((place.path / "there").exists, place.log)
    wait_until(escaped, place.log)
    assert place.cli("stop").returncode == 0
    assert place.ended(running) == 0, place.log()
    assert (place.path / "heard").exists()
    assert escaped() == []


def test_a_run_goes_on_without_its_supervisor_and_the_next_one_takes_it_over(place: Place) -> None:
    place.agent("touch begun; echo run >>runs\n" + ESCAPE + WAIT + "echo err >&2\n" + SAY)
    place.start("--max-iterations", "1")
    wait_until((place.path / "there").exists, place.log)
    place.supervisor().kill()
    place.supervisors[-1].wait()
    assert len(escaped()) == 1
    (place.path / "begun").unlink()
    running = place.start("--max-iterations", "1")
    wait_until(lambda: "orphan.adopted" in place.log(), place.log)
    (place.path / "go").touch()
    assert place.ended(running) == 0, place.log()
    assert place.verdicts() == ["continue"], place.log()
    assert (place.path / "runs").read_text() == "run\n"
    run = place.state / "logs" / "runs" / "000001-executor"
    assert (run / "stderr.log").read_text() == "err\n"
    assert escaped() == []


def test_a_run_that_ends_without_its_supervisor_leaves_nothing_inside(place: Place) -> None:
    """What is left is an empty container, in which the next start goes on."""
    place.agent("echo run >>runs\n" + ESCAPE + WAIT + SAY)
    place.start("--max-iterations", "1")
    wait_until((place.path / "there").exists, place.log)
    place.supervisor().kill()
    place.supervisors[-1].wait()
    (place.path / "go").touch()
    wait_until(lambda: not escaped() and not shims(place), "the run's end")
    assert place.podman("ps", "--quiet").count("\n") == 1
    assert place.run("--max-iterations", "2") == 0, place.log()
    assert place.verdicts() == ["continue", "continue"], place.log()
    assert (place.path / "runs").read_text() == "run\nrun\n"
    assert place.log().count("container.made") == 1


def test_an_orphan_is_ended_inside_where_it_is_not_to_go_on(place: Place) -> None:
    place.agent(
        "echo run >>runs\n[ -e go ] && exec sh -c \"echo '{}'\"\n" + ESCAPE + WAIT, on_orphan="kill"
    )
    place.start("--max-iterations", "1")
    wait_until((place.path / "there").exists, place.log)
    place.supervisor().kill()
    place.supervisors[-1].wait()
    assert len(escaped()) == 1
    (place.path / "agent.sh").write_text(
        "#!/bin/sh\n[ -e there ] && ps -e | grep -c sleep >seen\n" + SAY
    )
    assert place.run("--max-iterations", "1") == 0, place.log()
    assert (place.path / "seen").read_text() == "0\n"
    assert escaped() == []


def test_whoever_kills_what_stands_outside_for_a_run_ends_the_run(place: Place) -> None:
    place.agent("echo run >>runs\nif [ ! -e there ]; then\n" + ESCAPE + WAIT + "fi\n" + SAY)
    running = place.start("--max-iterations", "2")
    wait_until((place.path / "there").exists, place.log)
    (shim,) = shims(place)
    shim.send_signal(signal.SIGKILL)
    assert place.ended(running) == 0, place.log()
    assert place.verdicts() == ["error", "continue"], place.log()
    assert escaped() == []
    assert place.log().count("container.made") == 1  # the same one goes on


def test_a_container_that_is_removed_under_a_run_ends_it_and_is_made_again(place: Place) -> None:
    place.agent("echo run >>runs\nif [ ! -e there ]; then\n" + ESCAPE + WAIT + "fi\n" + SAY)
    running = place.start("--max-iterations", "2")
    wait_until((place.path / "there").exists, place.log)
    place.podman("rm", "--force", "--all")
    assert place.ended(running) == 0, place.log()
    assert place.verdicts() == ["error", "continue"], place.log()
    assert place.log().count("container.made") == 2
    assert escaped() == []


def test_the_container_survives_a_run_whose_recorder_is_killed(place: Place) -> None:
    """podman's process beside it is a child of the supervisor then, and no left-over of a run."""
    place.agent("echo run >>runs\nif [ ! -e there ]; then\n" + ESCAPE + WAIT + "fi\n" + SAY)
    running = place.start("--max-iterations", "2")
    wait_until((place.path / "there").exists, place.log)
    (shim,) = shims(place)
    recorder = shim.parent()
    assert recorder is not None
    assert Path(f"/proc/{recorder.pid}/comm").read_text().startswith("csi-")
    recorder.kill()
    assert place.ended(running) == 0, place.log()
    assert place.verdicts() == ["interrupted", "continue"], place.log()
    assert place.log().count("container.made") == 1
    assert escaped() == []
