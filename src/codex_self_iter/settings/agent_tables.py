"""The tables of agents: what can be said of each kind of agent, and the order of preference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, create_model

from codex_self_iter.core.agent_names import CLIS, NATIVE
from codex_self_iter.settings.table import Table
from codex_self_iter.settings.types import (
    AgentList,
    ArgList,
    Command,
    Count,
    EnvTable,
    FencePaths,
    Money,
    OwnFenceLevel,
    OwnNetwork,
    Protocol,
    Seconds,
    Switch,
    Text,
    TextList,
)


class AgentFence(Table):
    """What differs for this agent from [fence]; its lists are added to those."""

    level: OwnFenceLevel = ""
    """As in [fence]; "" = what that says."""
    allow_write: FencePaths = ()
    """What this agent may also write."""
    allow_read: FencePaths = ()
    """What this agent may also read."""
    deny_read: FencePaths = ()
    """What this agent must not read either."""
    network: OwnNetwork = ""
    """As in [fence]; "" = what that says."""
    image: Text = ""
    """Image for level "container"; "" = that of [fence]."""


class CommandSettings(Table):
    """A program of which nothing is known: what `agent_command_template` names."""

    args: ArgList = ()
    """Arguments added to those that the adapter gives."""
    env: EnvTable = Field(default_factory=dict)
    """Environment variables added for this agent."""
    account: Text = ""
    """Name of the account that limits belong to; "" = one for each adapter and home."""
    fence: AgentFence = Field(default_factory=AgentFence)
    """The fence around this agent."""


class PlanShellSettings(CommandSettings):
    """A program that gets none of our secrets by itself."""

    pass_env: TextList = ()
    """Variables of our environment that are handed on even if they look like secrets."""


class CliSettings(PlanShellSettings):
    """A CLI with models and conversations, whose stream says when it has ended."""

    protocol: Protocol = ""
    """"acp" = call it over the Agent Client Protocol; "" = by an adapter of its own, where it has one."""
    binary: Text = ""
    """Program to start; "" = look on PATH and in the common places."""
    model: Text = ""
    """Model to ask for; "" = the agent's own default."""
    home: Text = ""
    """The agent's own configuration directory; "" = its default."""
    linger_sec: Seconds = 10
    """Longest time after its final event before its process is ended; 0 = no limit."""
    resume: Switch = False
    """Go on in one conversation instead of starting a fresh one each iteration."""
    resume_max_turns: Count = 20
    """Runs after which a resumed conversation is replaced by a fresh one; 0 = never."""
    resume_max_tokens: Count = 0
    """Tokens after which it is replaced; 0 = never."""
    resume_max_hours: Money = 24
    """Age in hours after which it is replaced; 0 = never."""


class AgentSettings(CliSettings):
    """How one kind of agent is called."""

    effort: Text = ""
    """Reasoning effort to ask for; "" = the agent's own default."""


class AcpSettings(AgentSettings):
    """Any agent that speaks the Agent Client Protocol."""

    command: Command = ()
    """Command that starts it, such as ["my-agent", "--acp"]."""


class _AgentsSettings(Table):
    """The agents: the order of preference, and a table for each adapter."""

    order: AgentList = ()
    """Adapters in order of preference; the next takes over while one is limited or broken."""
    codex: AgentSettings = Field(default_factory=AgentSettings)
    """The codex adapter."""
    claude: AgentSettings = Field(default_factory=AgentSettings)
    """The claude adapter."""
    gemini: CliSettings = Field(default_factory=CliSettings)
    """The gemini adapter."""
    opencode: AgentSettings = Field(default_factory=AgentSettings)
    """The opencode adapter."""
    command: CommandSettings = Field(default_factory=CommandSettings)
    """The adapter of `agent_command_template`."""
    plan_shell: PlanShellSettings = Field(default_factory=PlanShellSettings, alias="plan-shell")
    """The embedded plan-shell adapter."""
    acp: AcpSettings = Field(default_factory=AcpSettings)
    """Any other agent that speaks the Agent Client Protocol."""

    def get(self, name: str) -> CommandSettings:
        """The table of one adapter. Raises KeyError for a name that is no adapter's."""
        field = name.replace("-", "_")
        if field == "order" or field not in type(self).model_fields:
            raise KeyError(name)
        table: CommandSettings = getattr(self, field)
        return table


if TYPE_CHECKING:
    AgentsSettings = _AgentsSettings
else:
    AgentsSettings = create_model(  # a table for each row
        "AgentsSettings",
        __base__=_AgentsSettings,
        __doc__=_AgentsSettings.__doc__,
        **{
            name: (
                AgentSettings,
                Field(default_factory=AgentSettings, description=f"{name}, over ACP."),
            )
            for name in CLIS
            if name not in NATIVE
        },
    )
