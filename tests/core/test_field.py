"""Loops that elsewhere failed for ever, or ended too soon, and how they end here.

Each row names the public thread in which it was met."""

from __future__ import annotations

import dataclasses

import pytest

from codex_self_iter.core.agent_report import FailureClass
from codex_self_iter.core.runs import EndCause
from tests.support.loop_world import (
    Answer,
    Script,
    World,
    block,
    claim,
    fail,
    failing,
    passing,
    policy,
    work,
)
from tests.support.situations import end

MUTE = Answer("no block", changed=False)
CUT = Answer("", EndCause.WALL_TIMEOUT, exit_code=1)
SAME = work("fix the parser", changed=False)
COMMITTED = work("next chapter")
WAITING = Answer(block("", stop=True, reason="a person must click"), changed=False)
GATES = [failing("error: x is not defined")]

# (thread, script, policy's changes, state and exit code, most iterations)
LOOPS = [
    ("librefang/librefang#5168", Script([fail(FailureClass.LIMIT)]), {}, ("blocked", 4), 400),
    ("eddiearc/larkin#236", Script([fail(FailureClass.BILLING)]), {}, ("blocked", 4), 2),
    ("agent0ai/agent-zero#139", Script([fail(FailureClass.CONTEXT)]), {}, ("blocked", 4), 6),
    ("openclaw/openclaw#124941", Script([fail(FailureClass.MEMORY)]), {}, ("blocked", 4), 12),
    ("anthropics/claude-code#30150", Script([fail(FailureClass.AGENT)]), {}, ("blocked", 4), 10),
    ("agrimsingh/ralph-wiggum-cursor#15", Script([MUTE]), {}, ("blocked", 4), 10),
    ("Q00/ouroboros#778", Script([SAME]), {"no_change_gate": 0}, ("stagnated", 3), 12),
    ("Yeachan-Heo/oh-my-claudecode#2090", Script([claim()], gates=GATES), {}, ("stagnated", 3), 40),
    ("whanyu1212/greeks-in-the-loop#47", Script([fail(FailureClass.NETWORK)]), {},
     ("blocked", 4), 400),
    # too soon
    ("frankbria/ralph-claude-code#141",
     Script([*[dataclasses.replace(COMMITTED, ticked=1)] * 30, claim()]), {}, ("completed", 0), 31),
    ("frankbria/ralph-claude-code#128",
     Script([*[work(f"step {n}") for n in range(30)], claim()]), {}, ("completed", 0), 31),
    ("jwbron/egg#3658", Script([*[CUT] * 15, claim()]), {"max_consecutive_errors": 3},
     ("completed", 0), 16),
    ("chippingway/orchestrator#455", Script([fail(FailureClass.CONTEXT), work("on"), claim()]), {},
     ("completed", 0), 3),
    ("guettli/agentloop#126", Script([fail(FailureClass.LIMIT, "x", 1_700_030_000.0), claim()]), {},
     ("completed", 0), 2),
    ("link-assistant/hive-mind#1874",
     Script([fail(FailureClass.LIMIT, "weekly", 1_700_400_000.0), claim()]), {}, ("completed", 0), 2),
    ("Wirasm/prp#64", Script([work("on"), WAITING]), {}, ("stopped", 0), 2),
]  # fmt: skip


@pytest.mark.parametrize(("thread", "script", "changes", "ends", "most"), LOOPS)
def test_a_loop_ends_when_it_should(
    thread: str,
    script: Script,
    changes: dict[str, object],
    ends: tuple[str, int],
    most: int,
) -> None:
    gates = ("true",) if script.gates != (passing(),) else ()
    world = World(script, policy(verify_commands=gates, **changes))
    world.boot()
    world.run(limit=2_000)
    assert end(world) == ends, thread
    assert len(world.disk.journal) <= most


def test_there_are_ten_of_them() -> None:
    assert len({thread for thread, *_ in LOOPS}) >= 10
