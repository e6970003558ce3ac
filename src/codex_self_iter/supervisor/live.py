"""The live line of a foreground run: state, iteration, agent age, last output; each second."""

from __future__ import annotations

from codex_self_iter.core import waits
from codex_self_iter.core.text import clean
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.work import Work
from codex_self_iter.views.report import duration


def text(ctx: Context, work: Work) -> str:
    """The line's content."""
    state, sample, shared = ctx.state, work.sample(), ctx.shared
    parts = [state.state.value, f"iteration {state.iteration}"]
    run = state.open.run if state.open else None
    if run is not None and sample is not None:
        parts.append(f"{run.agent} for {duration(sample.age_sec)}")
        if sample.last_output_at is not None:
            silent = duration(shared.clock.wall() - sample.last_output_at)
            parts.append(f"last output {silent} ago")
        parts.append(f"{sample.memory_bytes / 2**20:.0f} MiB")
    elif state.wait is not None:
        parts.append(f"{duration(waits.rest(state.wait, shared.moment()))} left")
        parts.append(state.wait.reason)
    elif reason := work.waiting_for() or state.reason:
        parts.append(reason)
    return clean(ctx.store.redactor.text(" · ".join(parts)))
