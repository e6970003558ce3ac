"""What is said before the first run: who works on what, what proves the end, and the limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from codex_self_iter.core.agent_names import CLIS
from codex_self_iter.core.text import counted, in_a_row
from codex_self_iter.views.report import duration

_MODES = {
    "safe": "in safe mode (the agent's own sandbox or permission rules hold)",
    "bypass": "in bypass mode (nothing but this machine holds the agent)",
}
_BOUNDS = {
    "max_hours": "{:g} h of agent runs",
    "max_hours_per_day": "{:g} h of agent runs a day",
    "max_tokens": "{:,.0f} tokens",
    "max_tokens_per_day": "{:,.0f} tokens a day",
    "max_cost_usd": "${:g}",
    "max_cost_usd_per_day": "${:g} a day",
}
HOW_GATE = "name a check that does: --verify-command 'COMMAND', or [verify] commands"


def terms(
    agents: Sequence[str],
    mode: str,
    work: str,
    gates: Sequence[str],
    remark: str,
    bounds: Mapping[str, float],
    fence: str = "none",
) -> list[str]:
    """Three lines; what has no proof is said first.

    `work`: what it works on; `remark`: of gates that cannot run; `bounds`: by key, with
    `command_timeout_sec` and `max_stagnation`, 0 for none; `fence`: the level of the agents' fence."""
    known = all(agent in (*CLIS, "acp") for agent in agents)
    how = _MODES[mode] if known else f"(agent_mode = {mode} is for the program to keep)"
    if fence != "none":
        how = "in bypass mode" if known and mode == "bypass" else how
        how += f', behind a fence (level "{fence}")'
    verb = "works" if len(agents) == 1 else "work"
    who = f"{' and '.join(agents)} {verb} on {work} {how}"
    most = bounds["max_iterations"]
    named = [counted(most, "iteration")] if most else []
    named += [text.format(bounds[key]) for key, text in _BOUNDS.items() if bounds[key]]
    free = not named
    if bounds["command_timeout_sec"]:
        named.append(f"{duration(bounds['command_timeout_sec'])} a run")
    if bounds["max_stagnation"]:
        named.append(f"{in_a_row(bounds['max_stagnation'], 'iteration')} without progress")
    if free:
        named.append("no bound of iterations, time or money")
    limits = f"limits: {', '.join(named)}"
    if gates:
        proof = f"done will be believed when {' and '.join(f'`{one}`' for one in gates)} "
        proof += "exits 0" if len(gates) == 1 else "exit 0"
        return [who, proof + (f" ({remark})" if remark else ""), limits]
    why = f" ({remark})" if remark else ""
    proof = f"nothing proves completion here{why}: done is the agent's word; {HOW_GATE}"
    return [proof, who, limits]
