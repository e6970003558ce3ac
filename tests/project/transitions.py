"""Which state of `status.json` follows which, and why: the machine seen from outside.

`machine.decide` makes these moves; the tests compare every one that it makes with this table, and
the diagram in `docs/architecture.md` is drawn from it. A new supervisor always begins at `starting`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from codex_self_iter.core.terms import State

GROUPS: Mapping[str, tuple[State, ...]] = {
    "working": (State.RUNNING, State.VERIFYING),
    "waiting": (State.BACKOFF, State.COOLDOWN, State.LIMITED, State.BLOCKED, State.PAUSED),
}
"""States that share moves."""

TRANSITIONS: tuple[tuple[str, str, State], ...] = (
    ("starting", "inputs read, nothing holds", State.RUNNING),
    ("starting", "something holds", State.PAUSED),
    ("starting", "something holds", State.COOLDOWN),
    ("starting", "something holds", State.BLOCKED),
    ("starting", "the rest of a wait", State.BACKOFF),
    ("starting", "the rest of a wait", State.LIMITED),
    ("starting", "gates were running", State.VERIFYING),
    ("starting", "what was proven is kept", State.COMPLETED),
    ("starting", "STOP, limit of iterations", State.STOPPED),
    ("starting", "STOP while a result is kept", State.STOPPING),
    ("running", "gates are due", State.VERIFYING),
    ("verifying", "next run", State.RUNNING),
    ("working", "failed", State.BACKOFF),
    ("working", "nothing to do, no plan", State.COOLDOWN),
    ("working", "every account is limited", State.LIMITED),
    ("working", "a person must act", State.BLOCKED),
    ("working", "PAUSE", State.PAUSED),
    ("working", "proven", State.COMPLETED),
    ("working", "in circles", State.STAGNATED),
    ("working", "the agent's stop, limit of iterations", State.STOPPED),
    ("working", "STOP", State.STOPPING),
    ("stopping", "its run has ended", State.STOPPED),
    ("stopping", "it was proven already", State.COMPLETED),
    ("waiting", "over", State.RUNNING),
    ("waiting", "STOP, limit of iterations", State.STOPPED),
    ("waiting", "something else holds", State.BACKOFF),
    ("waiting", "something else holds", State.COOLDOWN),
    ("waiting", "something else holds", State.LIMITED),
    ("waiting", "something else holds", State.BLOCKED),
    ("waiting", "something else holds", State.PAUSED),
    ("paused", "gates go on", State.VERIFYING),
)
"""(state or group, why, next state)."""


def moves() -> Iterator[tuple[State, State]]:
    """Every pair of states that the table allows, staying put apart."""
    for source, _, target in TRANSITIONS:
        for state in GROUPS.get(source) or (State(source),):
            if state is not target:
                yield state, target
