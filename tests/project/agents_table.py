"""The table of all agents in docs/agents.md, made from what the program knows of them."""

from __future__ import annotations

from pathlib import Path

from codex_self_iter.agents import catalog
from codex_self_iter.core.acp_agents import ACP_AGENTS, AcpRow, Counts, Setting
from codex_self_iter.core.agent_names import CLIS, NATIVE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "agents.md"

_CALLED = {
    "codex": "codex exec --json", "claude": "claude -p --output-format stream-json",
    "gemini": "gemini -o stream-json", "opencode": "opencode run --format json",
}  # fmt: skip
_ANSWER = {"codex": "`--output-schema`, `-o`", "claude": "`--json-schema`", "gemini": "last message",
           "opencode": "last text"}  # fmt: skip
_TOKENS = {"codex": "differences of the thread's totals", "claude": "per run", "gemini": "per run",
           "opencode": "sum of steps"}  # fmt: skip
_MEASURED = {"codex": "0.169.0, 0.171.0", "claude": "2.1.197, 2.1.332"}
_COUNTS = {Counts.NONE: "not known", Counts.TURN: "per run", Counts.PROCESS: "per run",
           Counts.SESSION: "per run", Counts.CALLS: "sum of model calls"}  # fmt: skip
_NONE = "\N{EN DASH}"
_ANY = (
    "| `acp` | `[agents.acp] command`, over ACP | last message | as its row, where it has one | as told | "
    f"yes | in mid-turn | {_NONE} |"
)
_TEMPLATE = (
    f"| `command` | `agent_command_template` | end of stdout | {_NONE} | {_NONE} | {_NONE} | ends the run | "
    f"{_NONE} |"
)
_SHELL = (
    f"| `plan-shell` | shell commands of the plan | control block | {_NONE} | {_NONE} | {_NONE} | ends the run | "
    "ships with the package |"
)


def table() -> str:
    """All of it, with its head."""
    lines = [
        "| agent | runs | answer | tokens | cost | `resume` | `steer --now` | measured with |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_native(name) for name in NATIVE]
    lines += [_acp(name, ACP_AGENTS[name]) for name in CLIS if name not in NATIVE]
    lines += [
        _ANY,
        _TEMPLATE,
        _SHELL,
    ]
    return "\n".join(lines)


def _native(name: str) -> str:
    agent = catalog.get(name)
    known = agent.known_versions
    assert known is not None
    measured = _MEASURED.get(name, known.last)
    assert measured.startswith(known.first)
    assert measured.endswith(known.last)
    cost = "as reported" if getattr(agent, "tells_cost", False) else "by `[prices]`"
    return (
        f"| `{name}` | `{_CALLED[name]}` | {_ANSWER[name]} | {_TOKENS[name]} | {cost} | yes "
        f"| ends the run | {measured} |"
    )


def _acp(name: str, row: AcpRow) -> str:
    if not row.measured:
        return (
            f"| `{name}` | `{' '.join(row.command)}`, over ACP | last message | not known | as told "
            "| if it says so | in mid-turn | not measured |"
        )
    cost = "as reported" if row.tells_cost else "by `[prices]`"
    cost = cost if row.tells_cost or row.counts is not Counts.NONE else "not known"
    return (
        f"| `{name}` | `{' '.join(row.command)}`, over ACP | last message | {_COUNTS[row.counts]} | {cost} "
        f"| {'yes' if row.loads else 'no'} | in mid-turn | {row.measured} |"
    )


def modes() -> str:
    """What puts each agent over ACP into its mode."""
    lines = ["| over ACP | safe | bypass | planner and reviewer |", "|---|---|---|---|"]
    for name, row in ACP_AGENTS.items():
        settings = (row.safe, row.bypass, row.read_only or row.safe)
        if settings != (Setting(),) * 3:
            lines.append(f"| `{name}` | {' | '.join(map(_setting, settings))} |")
    return "\n".join(lines)


def _setting(one: Setting) -> str:
    words = [f"mode `{one.mode}`"] if one.mode else []
    words += [f"`{one.option} = {one.value}`"] if one.option else []
    words += [f"`{name}`" for name, _ in one.env]
    return ", ".join(words) or _NONE


def page() -> str:
    """docs/agents.md with its tables as they are now."""
    text = PAGE.read_text(encoding="utf-8")
    for kind, made in (("agents", table()), ("modes", modes())):
        start, end = f"<!-- {kind}:start -->\n", f"\n<!-- {kind}:end -->"
        before, _, rest = text.partition(start)
        text = before + start + made + end + rest.partition(end)[2]
    return text
