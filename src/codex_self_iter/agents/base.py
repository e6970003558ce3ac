"""What an adapter is: the values it takes and gives, and its Protocol.

An adapter tells how one kind of agent is started (`prepare`) and what its files say afterwards
(`read`). It starts nothing and decides nothing: the process host runs the invocation, the
supervisor draws conclusions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from codex_self_iter.core.agent_report import AgentReport, Usage
from codex_self_iter.core.runs import RunOutcome
from codex_self_iter.core.terms import Role
from codex_self_iter.errors import UsageError

if TYPE_CHECKING:
    from codex_self_iter.agents.pricing import Price
    from codex_self_iter.agents.run_files import RunFiles


class AgentMissingError(UsageError):
    """The agent's program was not found; the message says what was looked for, where, and how to
    mend it."""


@dataclasses.dataclass(frozen=True, slots=True)
class AgentConfig:
    """One agent as configured (`[agents.NAME]` and the top-level keys that concern agents).

    Attributes:
        name: the adapter's name.
        binary: program name or path; "" looks for the usual name.
        model: "" leaves the choice to the CLI.
        effort: reasoning effort; "" leaves the choice to the CLI.
        home: the CLI's own configuration directory; "" leaves it where it is.
        args: added to the command line, after ours, so that they win.
        env: set in the agent's environment, after everything else.
        pass_env: names handed on from our environment even if they look secret.
        mode: "safe" (sandboxed or asking CLIs stay so) or "bypass".
        resume: the supervisor's session policy; adapters look at `Request.session_id` only.
        template: command line of the `command` adapter.
        account: overrides the account under which limits are shared.
        prices: model name to price, for CLIs that report tokens but no money.
        protocol: "acp" for the Agent Client Protocol where the agent also has an adapter of its own.
        command: how the agent is started, where no row says it.
        kill_grace_sec: within so many seconds after SIGTERM it must be gone.
        fenced: it runs in our fence of level "write": the system's temporary directory is read-only.
        image: container image in which its program is; "" = it is on this machine."""

    name: str
    binary: str = ""
    model: str = ""
    effort: str = ""
    home: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pass_env: tuple[str, ...] = ()
    mode: str = "safe"
    resume: bool = False
    template: str = ""
    account: str = ""
    prices: Mapping[str, Price] = dataclasses.field(default_factory=dict)
    protocol: str = ""
    command: tuple[str, ...] = ()
    kill_grace_sec: float = 10.0
    fenced: bool = False
    image: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One run that is wanted. All paths are absolute.

    Attributes:
        prompt: the prompt's text, the same as in the file `prompt_path`.
        directory: the run's own fresh directory; adapters put their files there.
        session_id: session to resume; "" starts a fresh one.
        schema: JSON schema of the expected answer, or None.
        commit_by_agent: the agent is to commit: let it write the repository's git directory.
        environment: the supervisor's own environment, from which the agent's is made.
        model_hint: overrides the configured model for this run; "" does not.
        temporary: the run's own temporary directory; "" leaves it the system's.
        previous_thread_usage: totals of the resumed thread before this run, for CLIs that count by
            thread."""

    prompt: str
    prompt_path: str
    workspace: str
    plan_path: str
    directory: str
    role: Role = Role.EXECUTOR
    session_id: str = ""
    schema: Mapping[str, Any] | None = None
    commit_by_agent: bool = False
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    model_hint: str = ""
    previous_thread_usage: Usage | None = None
    temporary: str = ""

    @property
    def read_only(self) -> bool:
        """Planner and reviewer change nothing."""
        return self.role is not Role.EXECUTOR

    @property
    def scratch(self) -> dict[str, str]:
        """The variables that make `temporary` the temporary directory, also for Bun, and keep git
        from taking what is made there for a part of the workspace's repository."""
        if not self.temporary:
            return {}
        named = dict.fromkeys(("TMPDIR", "TMP", "TEMP", "BUN_TMPDIR"), self.temporary)
        known = self.environment.get("GIT_CEILING_DIRECTORIES", "")
        ceilings = ":".join(filter(None, (known, self.directory)))
        return {**named, "GIT_CEILING_DIRECTORIES": ceilings}


@dataclasses.dataclass(frozen=True, slots=True)
class Invocation:
    """How to start the run.

    Attributes:
        argv: program (absolute where it was found) and arguments; never through a shell.
        env: the complete environment.
        stdin_path: file that becomes stdin, or None for /dev/null.
        files: absolute path to text, written with mode 0600 before the start."""

    argv: tuple[str, ...]
    env: dict[str, str]
    stdin_path: str | None = None
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class VersionRange:
    """The versions an adapter was measured with, both ends included. Others are used too, with a
    remark."""

    first: str
    last: str


@dataclasses.dataclass(frozen=True, slots=True)
class Probe:
    """What is known about an agent on this machine, found out without spending tokens.

    Attributes:
        path: the program, or "".
        version: as the CLI says it, or "".
        logged_in: None when it cannot be told (a custom provider, a keychain).
        detail: one line for people.
        mend: the command or setting that mends what is wrong; "" when nothing is.
        measured: False for a version that the adapter was not measured with."""

    installed: bool
    path: str = ""
    version: str = ""
    logged_in: bool | None = None
    detail: str = ""
    mend: str = ""
    measured: bool = True


class Agent(Protocol):
    """One kind of agent."""

    @property
    def name(self) -> str:
        """The adapter's name, as in the configuration."""

    @property
    def known_versions(self) -> VersionRange | None:
        """The measured versions; None for agents without versions of their own."""

    def prepare(self, request: Request) -> Invocation:
        """Build the invocation. Reads (configuration, the binary's place) but changes nothing.

        Raises:
            AgentMissingError: the program was not found.
            UsageError: the configuration cannot be used."""

    def read(
        self, request: Request, outcome: RunOutcome, files: RunFiles, *, now: float | None = None
    ) -> AgentReport:
        """Read a finished run. Never raises for what the agent wrote. `now`: Unix seconds, the
        machine's unless given."""

    def probe(self, environment: Mapping[str, str]) -> Probe:
        """Look at this machine, in bounded time (about 20 s at worst; call it in a thread)."""

    def account(self, environment: Mapping[str, str]) -> str:
        """The key under which limits are shared: equal for runs that draw on the same account."""
