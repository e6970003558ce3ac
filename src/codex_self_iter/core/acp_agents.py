"""The agents that speak the Agent Client Protocol: one row each, and a new agent is a new row.

The protocol leaves open what they do differently: how a mode is set, what a count of tokens counts,
which words are their own. The figures and names were measured with the version that a row names;
rows without one are by the agents' own documentation."""

from __future__ import annotations

import enum
from typing import NamedTuple

CONTROL = "control.json"
"""In a run's directory: what the program that speaks the protocol is told while the run goes on."""


class Counts(enum.StrEnum):
    """What the token counts of an agent's answer to a prompt cover."""

    NONE = "none"
    """It gives none, or none that can be used."""
    TURN = "turn"
    """This prompt."""
    PROCESS = "process"
    """All prompts since the agent was started."""
    SESSION = "session"
    """All prompts of the session, also those of earlier processes."""
    CALLS = "calls"
    """A model call each: they are told in between, and add up."""


class Setting(NamedTuple):
    """What puts a session into a mode.

    Attributes:
        mode: of `session/set_mode`: the end of the mode's id, which may be a URI.
        option, value: of `session/set_config_option`.
        env: variables of the agent's environment."""

    mode: str = ""
    option: str = ""
    value: str = ""
    env: tuple[tuple[str, str], ...] = ()


class AcpRow(NamedTuple):
    """What is particular to one agent.

    Attributes:
        command: how it is started.
        names: what it calls itself in `agentInfo.name`, lower case.
        install: how a person installs it.
        log_in: how a person logs in.
        secrets: variables that it needs even if they look secret.
        env: variables that it always gets.
        home: the variable that names its configuration directory.
        measured: the version that this row was measured with; "" when it was not.
        safe, bypass, read_only: how it is put into the mode; `read_only` goes over `safe`.
        counts: what its token counts cover.
        usage_proves: an end without token counts is a failure that it does not call one.
        asides: how texts begin that are the program's own, not the model's.
        loads: an old session can be gone on with.
        tells_login: it opens no session for somebody who is not logged in.
        tells_cost: it says what a run cost.
        noise_cores: share of a core that it uses while its server is silent."""

    command: tuple[str, ...]
    names: tuple[str, ...] = ()
    install: str = ""
    log_in: str = ""
    secrets: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    home: str = ""
    measured: str = ""
    safe: Setting = Setting()
    bypass: Setting = Setting()
    read_only: Setting | None = None
    counts: Counts = Counts.NONE
    usage_proves: bool = False
    asides: tuple[str, ...] = ()
    loads: bool = True
    tells_login: bool = True
    tells_cost: bool = False
    noise_cores: float = 0.01

    def setting(self, *, bypass: bool, read_only: bool) -> Setting:
        """What puts it into the mode that is wanted."""
        if read_only and self.read_only is not None:
            return self.read_only
        return self.bypass if bypass else self.safe


_ASK = '{"edit":"ask","bash":"ask","webfetch":"ask","external_directory":"ask"}'
_EDIT_NOTHING = _ASK.replace('"edit":"ask"', '"edit":"deny"')
_ALLOW = _ASK.replace("ask", "allow")
_MODELS = ("OPENAI_*", "ANTHROPIC_*", "GEMINI_*", "GOOGLE_*", "OPENROUTER_*", "MISTRAL_*")

ACP_AGENTS: dict[str, AcpRow] = {
    "copilot": AcpRow(
        ("copilot", "--acp"),
        names=("copilot",),
        install="npm install -g @github/copilot",
        log_in="copilot login, or set COPILOT_GITHUB_TOKEN",
        secrets=("COPILOT_*", "GITHUB_TOKEN", "GH_TOKEN"),
        home="COPILOT_HOME",
        measured="1.0.102",
        safe=Setting(mode="agent"),
        bypass=Setting(mode="agent", option="allow_all", value="on"),
        read_only=Setting(mode="agent"),
        counts=Counts.PROCESS,
        usage_proves=True,
        asides=("Info: ",),
    ),
    "qwen": AcpRow(
        ("qwen", "--acp"),
        names=("qwen-code",),
        install="npm install -g @qwen-code/qwen-code",
        log_in="qwen, then /auth; or set OPENAI_API_KEY and OPENAI_BASE_URL",
        secrets=("OPENAI_*", "QWEN_*", "DASHSCOPE_*"),
        measured="0.24.4",
        safe=Setting(mode="default"),  # "auto-edit" edits outside the workspace, too, unasked
        bypass=Setting(mode="yolo"),
        read_only=Setting(mode="default"),
        counts=Counts.CALLS,
        noise_cores=0.015,  # 0.008 measured
    ),
    "vibe": AcpRow(
        ("vibe-acp",),
        names=("@mistralai/mistral-vibe",),
        install="uv tool install mistral-vibe",
        log_in="vibe --setup, or set MISTRAL_API_KEY",
        secrets=("MISTRAL_*", "VIBE_*"),
        home="VIBE_HOME",
        measured="3.0.2",
        safe=Setting(mode="ask"),  # "accept-edits" edits what is in .git, too, unasked
        bypass=Setting(mode="auto-approve"),
        read_only=Setting(mode="ask"),
        counts=Counts.SESSION,
        tells_cost=True,
    ),
    "kilo": AcpRow(
        ("kilo", "acp"),
        names=("kilo",),
        install="npm install -g @kilocode/cli",
        log_in="kilo auth login",
        secrets=("KILO_*", *_MODELS),
        env=(("KILO_DISABLE_AUTOUPDATE", "1"), ("KILO_DISABLE_MODELS_FETCH", "1")),
        measured="7.7.7",
        safe=Setting(env=(("KILO_PERMISSION", _ASK),)),
        bypass=Setting(env=(("KILO_PERMISSION", _ALLOW),)),
        read_only=Setting(env=(("KILO_PERMISSION", _EDIT_NOTHING),)),
        tells_login=False,
        tells_cost=True,
        noise_cores=0.04,
    ),
    "codex": AcpRow(
        ("codex-acp",),
        names=("@agentclientprotocol/codex-acp",),
        install="npm install -g @agentclientprotocol/codex-acp",
        measured="2.6.0",
        safe=Setting(mode="workspace-write"),
        bypass=Setting(mode="agent-full-access"),
        read_only=Setting(mode="read-only"),
        counts=Counts.TURN,
        usage_proves=True,
        noise_cores=0.03,  # 0.019 measured
    ),
    "claude": AcpRow(
        ("claude-agent-acp",),
        names=("@agentclientprotocol/claude-agent-acp",),
        install="npm install -g @agentclientprotocol/claude-agent-acp",
        env=(
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            ("CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION", "false"),
            ("DISABLE_AUTOUPDATER", "1"),
        ),
        measured="0.101.0",
        safe=Setting(mode="acceptEdits"),
        bypass=Setting(mode="bypassPermissions", env=(("IS_SANDBOX", "1"),)),
        read_only=Setting(mode="default"),
        counts=Counts.TURN,
        asides=("**Warning:**",),
        tells_login=False,
        tells_cost=True,
        noise_cores=0.015,  # 0.009 measured
    ),
    "gemini": AcpRow(
        ("gemini", "--acp"),
        names=("gemini-cli",),
        install="npm install -g @google/gemini-cli",
        env=(("GEMINI_CLI_TRUST_WORKSPACE", "true"), ("GEMINI_CLI_NO_RELAUNCH", "true")),
        measured="0.61.0",
        safe=Setting(mode="autoEdit"),
        bypass=Setting(mode="yolo"),
        read_only=Setting(mode="default"),
        counts=Counts.TURN,
        asides=("[MODE_UPDATE]",),
        loads=False,  # the attempt spoils the session's file (gemini-cli#29288)
    ),
    "opencode": AcpRow(
        ("opencode", "acp"),
        names=("opencode",),
        install="npm install -g opencode-ai",
        env=(("OPENCODE_DISABLE_AUTOUPDATE", "1"), ("OPENCODE_DISABLE_MODELS_FETCH", "1")),
        measured="1.18.33",
        safe=Setting(env=(("OPENCODE_PERMISSION", _ASK),)),
        bypass=Setting(env=(("OPENCODE_PERMISSION", _ALLOW),)),
        read_only=Setting(env=(("OPENCODE_PERMISSION", _EDIT_NOTHING),)),
        tells_login=False,
        tells_cost=True,
        noise_cores=0.04,
    ),
    "cursor": AcpRow(
        ("cursor-agent", "acp"),
        install="the installer of cursor.com/cli",
        log_in="cursor-agent login, or set CURSOR_API_KEY",
        secrets=("CURSOR_*",),
    ),
    "goose": AcpRow(
        ("goose", "acp"),
        install="the installer of goose (block/goose)",
        log_in="goose configure",
        secrets=("GOOSE_*", *_MODELS),
        safe=Setting(env=(("GOOSE_MODE", "approve"),)),
        bypass=Setting(env=(("GOOSE_MODE", "auto"),)),
    ),
    "auggie": AcpRow(
        ("auggie", "--acp"),
        install="npm install -g @augmentcode/auggie",
        log_in="auggie login",
        secrets=("AUGMENT_*",),
        env=(("AUGMENT_DISABLE_AUTO_UPDATE", "1"),),
    ),
    "droid": AcpRow(
        ("droid", "exec", "--output-format", "acp"),
        install="npm install -g droid",
        log_in="droid, or set FACTORY_API_KEY",
        secrets=("FACTORY_*", "DROID_*"),
        env=(("DROID_DISABLE_AUTO_UPDATE", "true"), ("FACTORY_DROID_AUTO_UPDATE_ENABLED", "false")),
    ),
    "junie": AcpRow(
        ("junie", "--acp=true"),
        install="the installer of junie.jetbrains.com",
        log_in="junie, or set JUNIE_API_KEY",
        secrets=("JUNIE_*",),
    ),
    "cline": AcpRow(
        ("cline", "--acp"),
        install="npm install -g cline",
        log_in="cline auth",
        secrets=("CLINE_*",),
    ),
}
