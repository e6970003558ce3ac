"""The card at the end of a foreground run: what it came to, and the commands from here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from codex_self_iter.core.evidence import gate_end
from codex_self_iter.core.foreign import as_cost, as_dict, as_int, as_list
from codex_self_iter.core.state import LoopState
from codex_self_iter.core.terms import State
from codex_self_iter.core.text import clean, counted, money, one_line
from codex_self_iter.views.report import duration

_WARNINGS = 3
"""So many are shown; status and report have all."""
_WIDTH = 200


def card(
    state: LoopState,
    lines: Sequence[Mapping[str, Any]],
    *,
    seconds: float,
    changes: Sequence[tuple[str, str]],
    warnings: Sequence[str],
    where: str,
    report: str,
    steps: tuple[int, int] = (0, 0),
) -> str:
    """Text of some lines.

    Args:
        lines: of the journal, those of this run.
        seconds: how long the supervisor was at it.
        changes: git's summaries, each with what it is.
        where: options that name the loop to a command, with a space before them, or "".
        report: path of the report.
        steps: items of the plan that are done, and all."""
    verdicts = Counter(str(line.get("verdict")) for line in lines)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    took = f"{duration(seconds)}, {counted(len(lines), 'iteration')}"
    rows = [
        ("time", took + (f" ({counts})" if counts else "")),
        ("spent", _spent(lines)),
        *(("gate", text) for text in _gates(state, lines)),
        *(
            ("changed", f"{stat.strip().splitlines()[-1].strip()} ({what})")
            for what, stat in changes
        ),
        *(("left out", text) for text in filter(None, [_open(*steps), state.owed.told()])),
        *(("warning", one_line(text, _WIDTH)) for text in warnings[:_WARNINGS]),
    ]
    if len(warnings) > _WARNINGS:
        rows.append(("warning", f"and {len(warnings) - _WARNINGS} more, in the report"))
    if lines:
        rows.append(("look", f"codex-self-iter history{where}"))
        rows.append(("look", f"codex-self-iter show{where} {as_int(lines[-1].get('iteration'))}"))
    rows.append(("look", report))
    if any(line.get("checkpoint") for line in lines):
        first = as_int(lines[0].get("iteration"))
        rows.append(("take back", f"codex-self-iter rewind{where} {first}-before"))
    labels = ["", *(name for name, _ in rows)]
    told = (
        f"  {name * (name != labels[n]):<10}{clean(text)}" for n, (name, text) in enumerate(rows)
    )
    return "\n".join([clean(f"{state.state.value}: {one_line(state.reason, _WIDTH)}"), *told])


def _open(done: int, total: int) -> str:
    left = total - done
    verb = "is" if left == 1 else "are"
    return f"{left} of {counted(total, 'item')} of the plan {verb} open" if left else ""


def _spent(lines: Sequence[Mapping[str, Any]]) -> str:
    known = [as_int(as_dict(line.get("usage")).get("total_tokens")) for line in lines]
    costs = [cost for line in lines if (cost := as_cost(line.get("cost_usd"))) is not None]
    if not sum(known):
        return "tokens and money are not known" if lines else "nothing"
    spent = money(sum(costs)) if costs else "what they cost is not known"
    part = " so far as known" if 0 < len(costs) < len([one for one in known if one]) else ""
    return f"{sum(known):,} tokens, {spent}{part}"


def _gates(state: LoopState, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    last = as_list(lines[-1].get("gates")) if lines else []
    found = [f"`{gate.get('command')}`: {gate_end(gate)}" for gate in map(as_dict, last)]
    if not found and state.state is State.COMPLETED:
        return ["none was run: that it is complete is the agent's word"]
    return found
