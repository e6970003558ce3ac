"""Write the manifests of the plugin for Codex and for Claude Code, and of the marketplaces that offer
it, from one source: what they say of it, and its version, are the same.

The plugin has a directory of its own, `plugin/`, with the skill: these programs copy the whole
directory of a plugin, which for the repository itself would take a `.venv` along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from codex_self_iter import __version__

ROOT = Path(__file__).resolve().parents[2]
NAME = "codex-self-iter"
PLACE = "./plugin"
PLUGIN = ROOT / PLACE
WHO = {"name": "The codex-self-iter authors"}
WHAT = "Keeps a coding agent working in your repository, unattended, until the work is proven complete."
SHARED: dict[str, Any] = {
    "name": NAME,
    "version": __version__,
    "description": WHAT,
    "author": WHO,
    "license": "MIT",
    "keywords": ["agent", "supervisor", "loop", "daemon", "unattended"],
    "skills": "./skills/",
    "mcpServers": {NAME: {"command": NAME, "args": ["mcp"]}},
}
INTERFACE = {
    "displayName": NAME,
    "shortDescription": "Work through a plan unattended, with proof at the end",
    "longDescription": (
        "Sets up and looks after a supervised loop: a plan of checkboxes, one agent run after another, verification commands "
        "that must pass before the work counts as complete, and plain files to watch, steer and stop it with."
    ),
    "developerName": WHO["name"],
    "category": "Productivity",
    "capabilities": ["Interactive", "Write"],
    "defaultPrompt": [
        "Set up an unattended loop for the work we just planned.",
        "What is the loop in this repository doing, and is it stuck?",
        "Stop the loop after its iteration and sum up what it did.",
    ],
}
CODEX_OFFER = {
    "name": NAME,
    "source": {"source": "local", "path": PLACE},
    "policy": {"installation": "AVAILABLE", "authentication": "ON_INSTALL"},
    "category": INTERFACE["category"],
}


def files() -> dict[Path, str]:
    """Every manifest with its text."""
    made = {
        PLUGIN / ".codex-plugin" / "plugin.json": SHARED | {"interface": INTERFACE},
        PLUGIN / ".claude-plugin" / "plugin.json": SHARED,
        ROOT / ".agents" / "plugins" / "marketplace.json": {
            "name": NAME,
            "interface": {"displayName": NAME},
            "plugins": [CODEX_OFFER],
        },
        ROOT / ".claude-plugin" / "marketplace.json": {
            "name": NAME,
            "owner": WHO,
            "description": WHAT,
            "plugins": [{"name": NAME, "source": PLACE, "description": WHAT}],
        },
    }
    return {path: json.dumps(value, indent=2) + "\n" for path, value in made.items()}
