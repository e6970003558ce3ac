"""The report that is left when a loop ends: what was asked, done, proven and spent, and why it
ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from codex_self_iter.core.state import LoopState
from codex_self_iter.core.text import iso


def duration(seconds: float) -> str:
    """Seconds for people: 42 s, 3 min 20 s, 5 h 12 min, 2 d 4 h."""
    if seconds == math.inf:
        return "?"
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
        text = str(line.get("summary") or line.get("error") or "")
        text = text.replace("|", "\\|").replace("\n", " ")
        took = duration(float(line.get("duration_sec") or 0))
        rows.append(
            f"| {line.get('iteration')} | {line.get('verdict')} | {took} "
            f"| {usage.get('total_tokens', '')} | {line.get('changed_count', '')} | {text[:160]} |"
        )
    return rows


def report(
    state: LoopState,
    lines: Sequence[Mapping[str, Any]],
    *,
    plan: str,
    task: str,
    times: Mapping[str, float],
    diff_stat: str,
    warnings: Sequence[str] = (),
    now: float,
) -> str:
    """Markdown text. `lines`: the journal's last lines; `times`: seconds by state since the
    supervisor started."""
    last = lines[-1] if lines else {}
    verdicts = Counter(str(line.get("verdict")) for line in lines)
    commits = [str(line["commit"]) for line in lines if line.get("commit")]
    gates = [
        f"- `{gate.get('command')}`: {'passed' if gate.get('ok') else 'failed'}"
        for gate in last.get("gates") or ()
    ]
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    counted = f" (last {len(lines)}: {counts})" if lines else ""
    spent = state.spent
    hours = duration(spent.hours * 3600)
    parts = [
        f"# Report: {state.state.value}",
        f"Written {iso(now)}. {state.reason}",
        "## What was asked",
        (task.strip() or plan.strip())[:4_000],
        "## What was done",
        f"{state.iteration} iterations in all{counted}.",
        "\n".join(_rows(lines)),
        f"Commits by the supervisor: {', '.join(commits)}" if commits else "",
        f"```\n{diff_stat.strip()}\n```" if diff_stat.strip() else "",
        "## Gates of the last iteration" if gates else "",
        "\n".join(gates),
        "## Cost",
        f"{spent.tokens} tokens, {spent.cost_usd:.2f} USD where known, {hours} of agent runs.",
        "## Time by state",
        "\n".join(f"- {name}: {duration(seconds)}" for name, seconds in sorted(times.items())),
        "## What is open",
        f"The next goal would be: {state.goal or '(start from the plan)'}",
        f"{state.owed.told()}." if state.owed else "",
        f"What failed last: {state.feedback[:4_000]}" if state.feedback else "",
        "## Warnings" if warnings else "",
        "\n".join(f"- {text}" for text in warnings),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
