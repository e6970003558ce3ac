"""Nothing outlives its run: every way to escape x deaf or not x every way for a run to end."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import anyio
import pytest

from codex_self_iter.core.runs import EndCause, RunLimits, RunOutcome, RunSpec
from codex_self_iter.world.process.host import Host
from tests.support.hosting import (
    ESCAPES,
    escape_script,
    eventually,
    kill_tagged,
    make_spec,
    new_tag,
    start_supervisor,
    stdout_of,
    tagged,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HANG = "while :; do sleep 0.1; done"
GRACE = RunLimits(kill_grace_sec=0.3)


def plan(
    root: Path, *, deaf: bool, then: str, limits: RunLimits = GRACE
) -> dict[str, tuple[str, RunSpec]]:
    """kind -> (tag, spec) for every way to escape."""
    made = {}
    for kind in ESCAPES:
        tag = new_tag()
        script = escape_script(kind, tag, deaf=deaf, then=then)
        made[kind] = (
            tag,
            make_spec(root, "bash", "-c", script, name=f"{kind}-{deaf}", limits=limits),
        )
    return made


def left_over(runs: dict[str, tuple[str, RunSpec]]) -> dict[str, set[int]]:
    return {kind: tagged(tag) for kind, (tag, _) in runs.items() if tagged(tag)}


async def until_escaped(runs: dict[str, tuple[str, RunSpec]]) -> None:
    """Every agent has started its escapee: without this the matrix would prove nothing."""
    for kind, (tag, spec) in runs.items():
        escaped = await anyio.to_thread.run_sync(
            lambda tag=tag, spec=spec: eventually(
                lambda: "ready" in stdout_of(spec) and tagged(tag)
            )
        )
        assert escaped, f"{kind}: nothing escaped; {stdout_of(spec)!r}"


@pytest.mark.parametrize("deaf", [False, True])
async def test_normal_end_leaves_nothing(tmp_path: Path, deaf: bool) -> None:
    runs = plan(tmp_path, deaf=deaf, then="exit 7")
    async with Host() as host:
        handles = {kind: await host.start(spec) for kind, (_, spec) in runs.items()}
        for kind, handle in handles.items():
            outcome = await handle.wait()
            assert (outcome.cause, outcome.exit_code) == (EndCause.EXIT, 7), kind
            assert outcome.swept >= 1, kind
            assert tagged(runs[kind][0]) == set(), kind


@pytest.mark.parametrize("deaf", [False, True])
async def test_end_leaves_nothing(tmp_path: Path, deaf: bool) -> None:
    runs = plan(tmp_path, deaf=deaf, then=HANG)
    outcomes: dict[str, RunOutcome] = {}
    async with Host() as host:
        handles = {kind: await host.start(spec) for kind, (_, spec) in runs.items()}
        await until_escaped(runs)

        async def end(kind: str) -> None:
            outcomes[kind] = await handles[kind].end()

        async with anyio.create_task_group() as group:
            for kind in runs:
                group.start_soon(end, kind)
        assert left_over(runs) == {}
    assert {outcome.cause for outcome in outcomes.values()} == {EndCause.REQUEST}
    assert {outcome.signal for outcome in outcomes.values()} == {
        signal.SIGKILL if deaf else signal.SIGTERM
    }


@pytest.mark.parametrize("deaf", [False, True])
async def test_wall_timeout_leaves_nothing(tmp_path: Path, deaf: bool) -> None:
    limits = dataclasses.replace(GRACE, wall_sec=10.0)
    runs = plan(tmp_path, deaf=deaf, then=HANG, limits=limits)
    async with Host() as host:
        handles = {kind: await host.start(spec) for kind, (_, spec) in runs.items()}
        await until_escaped(runs)
        causes = {(await handle.wait()).cause for handle in handles.values()}
        assert left_over(runs) == {}
    assert causes == {EndCause.WALL_TIMEOUT}


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("how", ["adopt", "sweep", "sweep_without_identity"])
async def test_killed_supervisor_leaves_nothing_after_recovery(
    tmp_path: Path, deaf: bool, how: str
) -> None:
    runs = plan(tmp_path, deaf=deaf, then=HANG)
    with start_supervisor([spec for _, spec in runs.values()]) as supervisor:
        try:
            await until_escaped(runs)
        finally:
            supervisor.kill()
    # the negative control: without recovery they all live on
    assert left_over(runs).keys() == runs.keys()
    if how == "sweep_without_identity":
        for _, spec in runs.values():
            Path(spec.directory, "identity.json").unlink()
    async with Host() as host:
        for kind, (tag, spec) in runs.items():
            if how == "adopt":
                handle = await host.adopt(spec, None)
                assert handle is not None, kind
                assert (await handle.end()).cause is EndCause.REQUEST, kind
            else:
                assert await host.sweep(spec, None) >= 2, kind
            assert tagged(tag) == set(), kind


async def test_without_subreapers_an_escapee_survives(tmp_path: Path) -> None:
    """The negative control of the matrix: it is the subreaper that catches them."""
    tag = new_tag()
    script = escape_script("all_at_once", tag, deaf=False, then="exit 0")
    try:
        async with Host(subreaper=False) as host:
            handle = await host.start(make_spec(tmp_path, "bash", "-c", script))
            assert (await handle.wait()).ok
            assert tagged(tag) != set()
    finally:
        kill_tagged(tag)
    assert eventually(lambda: not tagged(tag))


async def test_sweeping_one_run_leaves_the_other_runs_children_alone(tmp_path: Path) -> None:
    tag, other_tag = new_tag(), new_tag()
    one = make_spec(
        tmp_path, "bash", "-c", escape_script("all_at_once", tag, deaf=False, then="exit 0")
    )
    other = make_spec(
        tmp_path, "bash", "-c", escape_script("all_at_once", other_tag, deaf=False, then=HANG)
    )
    async with Host() as host:
        living = await host.start(other)
        await until_escaped({"other": (other_tag, other)})
        assert (await (await host.start(one)).wait()).ok
        assert tagged(tag) == set()
        assert len(tagged(other_tag)) >= 1
        await living.end()
        assert tagged(other_tag) == set()
