"""The iterations of a loop, as its journal has them: what `history`, the board and the page show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from codex_self_iter.core.evidence import gate_end
from codex_self_iter.core.foreign import as_cost, as_dict, as_list, as_number, as_text
from codex_self_iter.core.text import clean, clean_block, epoch, money, shorten, tokens
from codex_self_iter.views.summary import against

Record = Mapping[str, Any]
GOOD = ("completed", "continue")
BAD = ("error", "timed_out", "claim_rejected")
MAX_TEXT = 4000
"""Characters of a summary or goal; twice as many of a gate's output."""


class GateRun(NamedTuple):
    """A gate, or an item's check, of an iteration. `end` says how it ended: "passed", "timed out"."""

    command: str
    ok: bool
    end: str
    took_sec: float
    output: str
    items: tuple[str, ...]


class Iteration(NamedTuple):
    """One iteration. Every text is clean.

    Attributes:
        number: 0 for a line that has none.
        began, ended: Unix seconds, None where the line does not say.
        verdict, colour: the verdict, and "green", "yellow" or "red".
        summary: in one line: what stood against it, what the agent said, else what went wrong.
        tokens, cost_usd: None where they are not known.
        files: those that it changed, at most 200 of `changed`.
        waited: kind of the wait that followed, with its reason; "" for none."""

    number: int
    began: float | None
    ended: float | None
    took_sec: float
    verdict: str
    colour: str
    failure: str
    summary: str
    goal: str
    next_goal: str
    error: str
    agent: str
    model: str
    tokens: float | None
    cost_usd: float | None
    changed: int
    files: tuple[str, ...]
    gates: tuple[GateRun, ...]
    commit: str
    checkpoint: str
    waited: str

    @property
    def told_verdict(self) -> str:
        """The verdict, with the class of what failed."""
        return f"{self.verdict} ({self.failure})" if self.failure else self.verdict


def colour(verdict: str) -> str:
    """In what colour a verdict is shown."""
    return "green" if verdict in GOOD else "red" if verdict in BAD else "yellow"


def used(record: Record) -> tuple[float | None, float | None]:
    """Tokens and US dollars of an iteration, None where they are not known."""
    usage = as_dict(record.get("usage"))
    both = as_number(usage.get("input_tokens")) + as_number(usage.get("output_tokens"))
    total = as_number(usage.get("total_tokens")) or both
    cost = record.get("cost_usd") if record.get("cost_usd") is not None else usage.get("cost_usd")
    return total or None, as_cost(cost)


def spent(record: Record) -> tuple[str, str]:
    """(tokens, money) of an iteration as people read them; "" where nothing is known."""
    count, cost = used(record)
    return tokens(count) if count else "", money(cost) if cost is not None else ""


def summed_up(record: Record) -> str:
    """In a few words: what stood against it, what the agent said, else what went wrong."""
    text = str(record.get("summary") or record.get("error") or record.get("reason") or "")
    gates = map(as_dict, as_list(record.get("gates")))
    failed = [gate.get("command") for gate in gates if not gate.get("ok", 1)]
    why = against(record.get("unproven"), failed)
    return f"{why}: {text}" if why else text


def iteration(record: Record) -> Iteration:
    """A journal line as it is shown; whatever is missing or foreign in it is passed over."""
    verdict = clean(str(record.get("verdict") or ""), 30)
    count, cost = used(record)
    files = [clean(str(path), 500) for path in as_list(record.get("changed_files"))]
    wait = as_dict(record.get("wait"))
    kind = clean(str(wait.get("kind") or ""), 40).replace("_", " ")
    reason = shorten(as_text(wait.get("reason")), 300)
    ended, lasted = epoch(record.get("ts")), max(0.0, as_number(record.get("duration_sec")))
    began = record.get("started_at")
    if isinstance(began, str):
        began = epoch(began)
    if not as_number(began):
        began = None if ended is None else ended - lasted
    return Iteration(
        number=int(as_number(record.get("iteration"))),
        began=began,
        ended=ended,
        took_sec=lasted,
        verdict=verdict,
        colour=colour(verdict),
        failure=clean(str(record.get("failure_class") or ""), 30),
        summary=shorten(summed_up(record), MAX_TEXT),
        goal=clean_block(as_text(record.get("goal_in")), MAX_TEXT),
        next_goal=clean_block(as_text(record.get("next_goal")), MAX_TEXT),
        error=clean_block(as_text(record.get("error")), MAX_TEXT),
        agent=clean(as_text(record.get("agent")), 40),
        model=clean(as_text(record.get("model")), 80),
        tokens=count,
        cost_usd=cost,
        changed=max(len(files), int(as_number(record.get("changed_count")))),
        files=tuple(files),
        gates=tuple(_gate(as_dict(gate)) for gate in as_list(record.get("gates"))),
        commit=clean(as_text(record.get("commit")), 64),
        checkpoint=clean(as_text(record.get("checkpoint")), 64),
        waited=f"{kind}: {reason}" if kind and reason else kind,
    )


def iterations(records: Iterable[Record]) -> list[Iteration]:
    """The same of many, in their order; of several lines of one number the last counts."""
    found = {one.number: one for one in map(iteration, records)}
    return list(found.values())


def _gate(gate: Mapping[str, Any]) -> GateRun:
    return GateRun(
        clean(str(gate.get("command") or ""), 500),
        bool(gate.get("ok")),
        clean(gate_end(gate), 500),
        max(0.0, as_number(gate.get("duration_sec"))),
        clean_block(as_text(gate.get("output")), 2 * MAX_TEXT),
        tuple(shorten(str(title), 200) for title in as_list(gate.get("items"))),
    )
