"""Real agents that speak ACP, against the local model server: how each finds it, without a login."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.support.agent_runs import Scene, real_agents_directory

PROGRAMS: Mapping[str, str] = {
    "copilot": "node_modules/.bin/copilot",
    "qwen": "node_modules/.bin/qwen",
    "kilo": "node_modules/.bin/kilo",
    "vibe": "vibe/bin/vibe-acp",
    "gemini": "node_modules/.bin/gemini",
    "opencode": "node_modules/.bin/opencode",
    "codex": "acp/node_modules/.bin/codex-acp",
    "claude": "acp/node_modules/.bin/claude-agent-acp",
}
"""Where scripts/install-real-agents.sh puts each."""


def program(name: str) -> Path:
    """The program of one agent, installed or not."""
    return Path(real_agents_directory()) / PROGRAMS[name]


def surroundings(name: str, scene: Scene, url: str) -> dict[str, str]:
    """The variables by which each finds the server; files that it needs are made in the home."""
    home = scene.home
    binaries = Path(real_agents_directory()) / "node_modules" / ".bin"
    openai = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "sk-none", "OPENAI_MODEL": "m"}
    match name:
        case "copilot":
            return {"COPILOT_PROVIDER_BASE_URL": f"{url}/v1", "COPILOT_PROVIDER_TYPE": "openai",
                    "COPILOT_PROVIDER_API_KEY": "none", "COPILOT_MODEL": "gpt-4.1",
                    "COPILOT_OFFLINE": "true"}  # fmt: skip
        case "qwen":
            _write(home / ".qwen" / "settings.json", {
                "security": {"auth": {"selectedType": "openai"}},
                "privacy": {"usageStatisticsEnabled": False},
                "general": {"enableAutoUpdate": False},
                "telemetry": {"enabled": False},
            })  # fmt: skip
            return openai
        case "kilo" | "opencode":
            provider = {"anthropic": {"options": {"baseURL": f"{url}/v1", "apiKey": "local-key"}}}
            settings = {"provider": provider, "model": "anthropic/claude-sonnet-4-5"}
            _write(home / ".config" / name / f"{name}.json", settings)
            return {
                f"{name.upper()}_DISABLE_{what}": "1" for what in ("AUTOUPDATE", "MODELS_FETCH")
            }
        case "vibe":
            (home / ".vibe").mkdir(exist_ok=True)
            (home / ".vibe" / "config.toml").write_text(
                'active_model = "local"\nenable_telemetry = false\nenable_update_checks = false\n'
                "enable_auto_update = false\n"
                f'[[providers]]\nname = "local"\napi_base = "{url}/v1"\n'
                'api_key_env_var = "VIBE_LOCAL_API_KEY"\nbackend = "generic"\n'
                '[[models]]\nname = "m"\nprovider = "local"\nalias = "local"\n'
                "input_price = 1.0\noutput_price = 1.0\n",
                encoding="utf-8",
            )
            return {"VIBE_LOCAL_API_KEY": "none"}
        case "codex":
            from tests.support.agent_runs import codex_config

            codex_config("codex", scene, url)
            return {"CODEX_PATH": str(binaries / "codex"),
                    "LOCAL_API_KEY": "local-key"}  # fmt: skip
        case "claude":
            return {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "local-key",
                    "CLAUDE_CODE_MAX_RETRIES": "1",
                    "CLAUDE_CODE_EXECUTABLE": str(binaries / "claude")}  # fmt: skip
        case "gemini":
            from tests.support.agent_runs import gemini_config

            gemini_config("gemini", scene, url)
            return {"GEMINI_API_KEY": "local-key", "GOOGLE_GEMINI_BASE_URL": url}
    raise KeyError(name)


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
