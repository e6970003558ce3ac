"""The report that is left when a loop ends: what was asked, done, proven and spent, and why it
ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from codex_self_iter.core.evidence import gate_end
from codex_self_iter.core.plan import parse_plan
from codex_self_iter.core.state import LoopState, Spent
from codex_self_iter.core.terms import State
from codex_self_iter.core.text import counted, moment, money

_ITEMS = 20
"""Open items of the plan that are listed."""


def duration(seconds: float) -> str:
    """Seconds for people: 0.4 s, 42 s, 3 min 20 s, 5 h 12 min, 2 d 4 h."""
    if seconds == math.inf:
        return "?"
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"


def _rows(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        "| # | verdict | duration | tokens | changed files | summary |",
        "|---|---|---|---|---|---|",
    ]
    for line in lines:
        usage = line.get("usage") or {}
        told = (line.get("unproven"), line.get("summary") or line.get("error"))
        text = ": ".join(str(part) for part in told if part)
        text = text.replace("|", "\\|").replace("\n", " ")
        took = duration(float(line.get("duration_sec") or 0))
        rows.append(
            f"| {line.get('iteration')} | {line.get('verdict')} | {took} "
            f"| {usage.get('total_tokens', '')} | {line.get('changed_count', '')} | {text[:160]} |"
        )
    return rows


def _cost(spent: Spent, lines: Sequence[Mapping[str, Any]]) -> str:
    """Tokens and money as far as they are known, and what is not."""
    if not (spent.tokens or spent.cost_usd):
        return "Tokens and money are not known" if lines else "No tokens"
    known = f"{spent.tokens} tokens, {money(spent.cost_usd)}"
    if not spent.unpriced_tokens:
        return known
    models = {str(line["model"]) for line in lines if line.get("model") and _unpriced(line)}
    of = f" of {', '.join(sorted(models))}" if models else ""
    if spent.unpriced_tokens >= spent.tokens:
        return f"{spent.tokens} tokens; what they cost is not known ([prices] lacks the price{of})"
    lacks = f"the cost of {spent.unpriced_tokens} of the tokens is not known"
    return f"{known} so far as known ({lacks}: [prices] lacks the price{of})"


def _unpriced(line: Mapping[str, Any]) -> bool:
    return bool(line.get("usage")) and line.get("cost_usd") is None


def _open(state: LoopState, plan: str) -> list[str]:
    """What is left to do, as far as the loop knows."""
    items = [item.text for item in parse_plan(plan).items if not item.ticked]
    listed = "\n".join(f"- {text}" for text in items[:_ITEMS])
    more = f"\n- and {len(items) - _ITEMS} more" if len(items) > _ITEMS else ""
    parts = [f"Open items of the plan:\n\n{listed}{more}" if items else ""]
    if state.state is not State.COMPLETED:
        parts.append(f"The next goal would be: {state.goal or '(start from the plan)'}")
    parts.append(f"{state.owed.told()}." if state.owed else "")
    parts.append(f"What failed last: {state.feedback[:4_000]}" if state.feedback else "")
    return [part for part in parts if part]


def report(
    state: LoopState,
    lines: Sequence[Mapping[str, Any]],
    *,
    plan: str,
    task: str,
    times: Mapping[str, float],
    changes: Sequence[tuple[str, str]] = (),
    warnings: Sequence[str] = (),
    lanes: str = "",
    now: float,
) -> str:
    """Markdown text. `lines`: the journal's last lines; `times`: seconds by state since the
    supervisor started; `changes`: git's summaries, each with what it is; `lanes`: what
    `views.lane_rows.section` says of a loop with lanes."""
    last = lines[-1] if lines else {}
    verdicts = Counter(str(line.get("verdict")) for line in lines)
    commits = [str(line["commit"]) for line in lines if line.get("commit")]
    gates = [f"- `{gate.get('command')}`: {gate_end(gate)}" for gate in last.get("gates") or ()]
    if not gates and state.state is State.COMPLETED and not lanes:
        gates = ["None was run: that it is complete is the agent's word."]
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    done = counted(state.iteration, "iteration")
    if lines:
        done += (
            f": {counts}" if len(lines) >= state.iteration else f"; the last {len(lines)}: {counts}"
        )
    parts = [
        f"# Report: {state.state.value}",
        f"Written {moment(now)}. {state.reason}",
        "## What was asked",
        (task.strip() or plan.strip())[:4_000],
        *(() if lanes else ("## What was done", f"{done}.", "\n".join(_rows(lines)))),
        f"Commits by the supervisor: {', '.join(commits)}" if commits else "",
        *(f"{title}:\n\n```\n{stat.strip()}\n```" for title, stat in changes),
        *(("## Lanes", lanes) if lanes else ()),
        "## Gates of the last iteration" if gates else "",
        "\n".join(gates),
        "## Cost",
        f"{_cost(state.spent, lines)}, {duration(state.spent.hours * 3600)} of agent runs.",
        "## Time by state since the last start",
        "\n".join(f"- {name}: {duration(seconds)}" for name, seconds in sorted(times.items())),
        "## What is open",
        *(_open(state, plan) or ["Nothing."]),
        "## Warnings" if warnings else "",
        "\n".join(f"- {text}" for text in warnings),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
