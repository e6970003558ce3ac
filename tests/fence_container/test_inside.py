"""Level "container" for real: what a run inside is like, seen from the loop outside."""

from __future__ import annotations

import json

import pytest

from tests.fence_container.conftest import Place

pytestmark = [pytest.mark.root, pytest.mark.slow]
ANSWER = json.dumps(
    {
        "summary": "did a step", "next_goal": "go on", "stop": False, "reason": "more", "evidence": [],
        "completed": False,
    }
)  # fmt: skip
SAY = f"echo '{ANSWER}'\n"


def test_two_runs_share_a_container_that_goes_with_the_loop(place: Place) -> None:
    place.agent(
        'echo "$(cat /proc/1/stat)" >>first; echo "$PATH $TMPDIR $(id -u)" >>who\n'
        "echo run >>work; cat /proc/1/comm >&2\n" + SAY
    )
    assert place.run("--max-iterations", "2") == 0, place.log()
    assert place.verdicts() == ["continue", "continue"], place.log()
    assert (place.path / "work").read_text() == "run\nrun\n"
    first, second = (line.split()[21] for line in (place.path / "first").read_text().splitlines())
    assert first == second
    assert place.log().count("container.made") == 1
    path, temporary, user = (place.path / "who").read_text().splitlines()[0].split()
    assert (temporary, user) == ("/run/tmp", "0")
    assert str(place.podman.directory) not in path
    assert not [
        one for one in ("container.json", "container", "desk") if (place.state / one).exists()
    ]
