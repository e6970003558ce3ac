"""A message for the running turn, on virtual time: what became of it is decided before the run's end."""

from __future__ import annotations

from pathlib import Path

import anyio

from codex_self_iter.core.state import Message
from codex_self_iter.testing import run_virtual
from codex_self_iter.world.state.inbox import write_message
from tests.support.virtual import WORK, Life, in_turn, machine, settings


def test_a_message_that_a_turn_took_as_it_ended_is_that_runs(tmp_path: Path) -> None:
    """The supervisor sees that it was taken after it has seen the end of the run."""

    async def main() -> Life:
        life = Life(machine(in_turn(WORK)), settings(tmp_path, max_iterations=1))
        async with life.alive():
            await anyio.sleep(100.0)
            rounds = life.rounds
            midturn = rounds.outbox._midturn
            path = write_message(rounds.ctx.store.path, "Use blue.")
            opened = rounds.ctx.state.open
            assert opened is not None
            assert opened.run is not None

            async def taken(_run_id: str, messages: tuple[Message, ...]) -> bool:
                assert [one.text for one in messages] == ["Use blue.\n"]
                while rounds.work.handle is not None:
                    await anyio.sleep(1.0)
                await anyio.sleep(10.0)
                return True

            midturn._taken = taken  # type: ignore[method-assign]
            midturn.give(opened.run.run_id, [Path(path).name])
            await anyio.sleep(8000.0)
        return life

    life = run_virtual(main)
    (record,) = life.journal()
    assert [one["text"] for one in record["messages"]] == ["Use blue.\n"]
