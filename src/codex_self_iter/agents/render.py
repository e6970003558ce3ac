"""Events as people read them: a line or a few for each, "" for those of no interest. Pure."""

from __future__ import annotations

from codex_self_iter.agents import registry
from codex_self_iter.agents.cli_agent import CliAgent
from codex_self_iter.agents.stream import Event, EventKind

__all__ = ["render", "render_line"]

_PREFIX = {
    EventKind.TOOL_STARTED: "> ",
    EventKind.CHANGED: "changed ",
    EventKind.REFUSED: "refused: ",
    EventKind.RETRY: "retrying: ",
    EventKind.NOTE: "note: ",
}


def render(event: Event) -> str:
    """One event. Texts of the agent are given whole; the rest is one line."""
    match event.kind:
        case EventKind.MESSAGE | EventKind.DELTA:
            return event.text
        case EventKind.SESSION if event.ident and event.model:
            return f"session {event.ident}, model {event.model}"
        case EventKind.TOOL_ENDED:
            return _tool_ended(event)
        case EventKind.TOTAL if event.usage is not None:
            cost = "" if event.usage.cost_usd is None else f", ${event.usage.cost_usd:.4f}"
            return f"{event.usage.total_tokens} tokens{cost}"
        case EventKind.FAILED:
            return f"failed: {event.error.message if event.error else event.text}"
        case kind if kind in _PREFIX and event.text:
            return _PREFIX[kind] + " ".join(event.text.split())
        case _:
            return ""


def _tool_ended(event: Event) -> str:
    state = "ok" if event.ok else "failed"
    if event.exit_code is not None:
        state = f"exit code {event.exit_code}"
    text = " ".join(event.text.split())
    return f"< {state}{': ' + text if text else ''}"


def render_line(agent: str, line: str) -> list[str]:
    """A line of an agent's stdout as people read it; of an agent without events, the line itself."""
    adapter = registry.get(agent)
    if not isinstance(adapter, CliAgent):
        return [line]
    return [text for event in adapter.parse_line(line) if (text := render(event))]
