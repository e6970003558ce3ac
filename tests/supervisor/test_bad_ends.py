"""A loop whose own code fails: its agent is ended, and the reason is in status, report and word."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.errors import WorkspaceBusyError, first_cause
from codex_self_iter.supervisor.options import RunOptions
from codex_self_iter.supervisor.supervisor import Supervisor
from codex_self_iter.testing import Performance, SilentLog, answer, run_virtual, scripted_shared
from tests.support.virtual import DAY, HOUR, Life, in_turn, machine, settings


def failing(after: list[float], error: Exception, made: Any) -> Any:
    """A look at the disk that raises once the time has come, and then no more."""

    def look(_path: str) -> int:
        if after and made.clock.awake() >= after[0]:
            after.clear()
            raise error
        return 100_000

    return look


def fits_documentation(told: dict[str, Any]) -> bool:
    """True when docs/notifications.md has these fields, of these types and in this order."""
    text = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()
    fields = re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE)
    return fields == [(key, type(value).__name__) for key, value in told.items()]


def test_a_defect_is_told_by_its_own_name_and_leaves_no_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    async def main() -> None:
        made = machine(in_turn(Performance(HOUR, answer("two"))))
        look = failing([600.0], RuntimeError("the disk speaks Latin"), made)
        told = tmp_path / "told.json"
        given = settings(tmp_path / "w", notify={"command": ["sh", "-c", f"cat > {told}"]})
        life = Life(made, given, free_disk_mb=look, poll_sec=2.0)
        with pytest.raises(RuntimeError, match="Latin"):
            await life.loop.run()
        assert made.alive() == []
        status = life.status()
        assert status["state"] == "crashed"
        kept = tmp_path / "state" / "codex-self-iter" / "crash.log"
        assert (
            status["reason"] == f"RuntimeError: the disk speaks Latin; the traceback is in {kept}"
        )
        assert status["exit"]["code"] == 1
        state = Path(life.rounds.ctx.store.path)
        assert [*(state / "logs" / "runs").iterdir()]
        assert not [*state.glob("logs/runs/*/tmp")]
        report = (state / "report.md").read_text()
        assert report.startswith("# Report: crashed")
        assert "Latin" in told.read_text()
        assert '"event": "crashed"' in told.read_text()
        assert fits_documentation(json.loads(told.read_text()))
        assert not fits_documentation({"event": "crashed"})

    run_virtual(main)


def test_among_many_loops_a_crash_has_its_reason_and_a_busy_workspace_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    async def run(error: Exception) -> tuple[int, dict[str, Any]]:
        made = machine(lambda _spec: Performance(HOUR, answer("two", completed=True)))
        log: Any = SilentLog()
        shared = scripted_shared(
            made, log=log, alone=False, poll_sec=10.0, housekeeping_sec=DAY,
            free_disk_mb=failing([600.0], error, made),
        )  # fmt: skip
        given = settings(tmp_path / type(error).__name__)
        supervisor = Supervisor([given], log, lambda: ([given], []), RunOptions(), shared=shared)
        code = await supervisor.run()
        assert made.alive() == []
        return code, {name: fields for level, name, fields in log.events if level == "error"}

    async def main() -> None:
        code, said = await run(KeyError("what"))
        assert code == 0  # it started again, and completed
        assert said["loop.crashed"]["error"] == "KeyError: 'what'"
        journal = tmp_path / "KeyError" / ".codex-self-iter" / "logs" / "iterations.jsonl"
        first, *_ = map(json.loads, journal.read_text().splitlines())
        assert (first["verdict"], first["cause"]) == ("aborted", "crashed")
        assert first["counters"]["agent_errors"] == 0
        kept = tmp_path / "state" / "codex-self-iter" / "crash.log"
        assert said["loop.crashed"]["traceback"] == str(kept)
        assert "['loop " in kept.read_text()
        assert "Traceback" in kept.read_text()
        assert "raise error" in kept.read_text()
        code, said = await run(WorkspaceBusyError("another one has it"))
        assert code == 75
        assert "loop.crashed" not in said
        assert said["loop.refused"]["error"] == "another one has it"

    run_virtual(main)


def test_the_cause_in_a_group_is_the_error_that_says_most() -> None:
    busy = WorkspaceBusyError("busy")
    inner = ExceptionGroup("inner", [ValueError("x"), busy])
    assert first_cause(ExceptionGroup("outer", [KeyError("k"), inner])) is busy
    assert isinstance(first_cause(ExceptionGroup("outer", [KeyError("k")])), KeyError)


def test_a_loop_that_starts_again_keeps_a_stop_that_was_written_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    stop = tmp_path / "w" / ".codex-self-iter" / "STOP"

    async def main() -> None:
        made = machine(in_turn(Performance(HOUR, answer("two"))))
        log: Any = SilentLog()
        disk = failing([600.0], RuntimeError("broken"), made)

        def free_disk(path: str) -> int:
            try:
                return disk(path)
            except RuntimeError:
                stop.touch()  # somebody asks just when the loop fails
                raise

        shared = scripted_shared(
            made, log=log, alone=False, poll_sec=10.0, housekeeping_sec=DAY, free_disk_mb=free_disk
        )
        given = settings(tmp_path / "w")
        stop.parent.mkdir(mode=0o700)
        stop.touch()  # of yesterday: cleared at the first start
        supervisor = Supervisor(
            [given], log, lambda: ([given], []), RunOptions(clear_stop=True), shared=shared
        )
        assert await supervisor.run() == 0
        assert len(made.history) == 1  # the first start had a run, the second none
        assert stop.exists()

    run_virtual(main)
