"""Which agents are in a container, and in which image their program is."""

from __future__ import annotations

from codex_self_iter.settings.model import Settings

LEVEL = "container"


def image_of(settings: Settings, agent: str) -> str:
    """The image in which an agent's program is; "" for none, or for another level."""
    own = settings.agents.get(agent).fence
    level = own.level or settings.fence.level
    return (own.image or settings.fence.image) if level == LEVEL else ""
