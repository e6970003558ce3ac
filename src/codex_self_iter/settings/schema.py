"""Every configuration key: its kind, its default and, in the text under it, what it means.

The texts are part of the program: `config schema`, config.example.toml and the reference show them.
Constructing one of these models reads nothing from the surroundings; `load` does that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

from codex_self_iter.settings.agent_tables import AgentsSettings
from codex_self_iter.settings.table import Table
from codex_self_iter.settings.types import (
    AgentChoice,
    Allowed,
    Amount,
    AtLeastOne,
    Command,
    CommitMode,
    ContainerEngine,
    Count,
    Date,
    EventList,
    FarDirectory,
    FenceLevel,
    FenceMeans,
    FencePaths,
    FileName,
    GlobList,
    Hours,
    Identity,
    Integer,
    LandedMessage,
    LogLevel,
    Money,
    Network,
    NoChangeGate,
    Option,
    OptionalAgent,
    PathText,
    PoolTable,
    PortNumber,
    Receiver,
    ReplyUrl,
    Seconds,
    Share,
    SomeTexts,
    Switch,
    Template,
    Text,
    Textfile,
    TextList,
    TimeOfDay,
    Word,
    Zone,
    freeze,
)


class VerifySettings(Table):
    """Gates: what must succeed before "completed" is believed."""

    commands: Annotated[TextList, Option("--verify-command")] = ()
    """Commands that must all exit 0 before a completion is believed."""
    timeout_sec: Seconds = 1800
    """Longest time for one gate; 0 = no limit."""
    confirmations: Count = 0
    """How many more iterations must agree that the work is complete; 0 = none."""
    every_iteration: Switch = False
    """Run the gates after every iteration, not only when one claims completion."""
    at_start: Switch = False
    """Run the gates once before the first run of a start: what fails already is said to the person
    and to the agent."""
    gate_files: GlobList = ()
    """Globs of files that belong to the gates: a completion is void when the agent changed one.
    What lies in .git, .venv, node_modules or a cache counts where a glob names that directory.
    A configuration in the workspace is always one of them."""
    pass_env: TextList = ()
    """Variables that gates get although they look like secrets ("NAME", "NAME_*")."""
    require_plan_done: Switch = False
    """Refuse a completion while the plan has open checkboxes, or a run has deleted some of them."""
    item_checks: Switch = False
    """Run the check of an item that a run has ticked, as a gate, and take the tick back if it fails."""


class HooksSettings(Table):
    """Commands of your own at turns of the loop."""

    on_start: TextList = ()
    """Run once when the loop starts."""
    before_iteration: TextList = ()
    """Run before each iteration; while one fails no iteration begins."""
    after_iteration: TextList = ()
    """Run after each iteration."""
    on_wait: TextList = ()
    """Run once when a wait of five seconds or more begins."""
    on_end: TextList = ()
    """Run when the loop has ended, whatever its end."""
    timeout_sec: Seconds = 60
    """Longest time for one hook; 0 = no limit."""
    pass_env: TextList = ()
    """Variables that hooks get although they look like secrets ("NAME", "NAME_*")."""


class PromptTexts(Table):
    """Text files of your own that go into prompts, by path, relative to the workspace."""

    before: Text = ""
    """File whose text stands before everything else; "" = none."""
    introduction: Text = ""
    """File whose text stands in place of the introduction; "" = the program's own."""
    after: Text = ""
    """File whose text stands after everything but the section on how to answer; "" = none."""


class PromptSettings(PromptTexts):
    """Text files of your own in every prompt; a role's own table goes first, key by key."""

    planner: PromptTexts = Field(default_factory=PromptTexts)
    """The same for the planner alone."""
    executor: PromptTexts = Field(default_factory=PromptTexts)
    """The same for the executor alone: in goal mode that is every run."""
    reviewer: PromptTexts = Field(default_factory=PromptTexts)
    """The same for the reviewer alone."""

    def files(self) -> Mapping[str, str]:
        """The key and path of every file that is named."""
        tables = {"prompt": self, **{f"prompt.{name}": getattr(self, name) for name in ROLES}}
        named = {f"{at}.{key}": getattr(tables[at], key) for at in tables for key in TEXTS}
        return {key: file for key, file in named.items() if file}

    def of(self, role: str) -> Mapping[str, str]:
        """Paths for the prompts of a role, by key; "" for none."""
        return {key: getattr(getattr(self, role), key) or getattr(self, key) for key in TEXTS}


ROLES, TEXTS = ("planner", "executor", "reviewer"), ("before", "introduction", "after")


class NotesSettings(Table):
    """Notes: short facts that agents leave for later iterations."""

    max_count: Count = 50
    """How many notes are kept and shown in prompts, the newest; 0 = none: agents are not asked for
    any."""
    max_bytes: Count = 6000
    """Their size together, in bytes, beyond which the oldest go; 0 = as max_count = 0."""

    @property
    def on(self) -> bool:
        """Whether agents are asked for notes."""
        return self.max_count > 0 and self.max_bytes > 0


class BudgetSettings(Table):
    """What may be spent. A spent budget ends the loop with exit code 4."""

    max_tokens: Count = 0
    """Tokens (input and output) of the whole loop; 0 = no limit."""
    max_cost_usd: Money = 0
    """US dollars of the whole loop, where the cost is known; 0 = no limit."""
    max_hours: Money = 0
    """Hours of agent runs of the whole loop; 0 = no limit."""
    max_tokens_per_day: Count = 0
    """Tokens in one day (UTC); 0 = no limit."""
    max_cost_usd_per_day: Money = 0
    """US dollars in one day (UTC); 0 = no limit."""
    max_hours_per_day: Money = 0
    """Hours of agent runs in one day (UTC); 0 = no limit."""
    notice_at: Share = 0.8
    """Share of a budget at which a notice is given; 0 = none."""


class OutputSettings(Table):
    """Caps and retention of what is kept on disk."""

    max_run_mb: Amount = 64
    """Disk for each of an agent run's stdout and stderr, in MiB; head and tail are kept; 0 = no
    limit."""
    keep_runs: Count = 200
    """How many runs' files are kept, those of gates too; the last three iterations' always are; 0 =
    no limit. Pruned every few minutes, and at the end of a shorter start."""
    keep_days: Amount = 30
    """How many days a run's files are kept; the last three iterations' always are; 0 = no limit.
    Pruned every few minutes, and at the end of a shorter start."""
    max_state_mb: Amount = 2048
    """Size of the whole state directory, in MiB, above which the oldest runs go, but for the last
    three iterations'; 0 = no limit. Pruned every few minutes, and at the end of a
    shorter start."""
    log_max_mb: Amount = 10
    """Size at which the supervisor's own log is rotated, in MiB; 0 = never."""
    log_files: AtLeastOne = 5
    """How many files of the supervisor's own log are kept."""


class PoolSettings(Table):
    """How many agent runs one supervisor may have alive at once."""

    max_agents: AtLeastOne = 2
    """Agent runs alive at once, over all loops."""
    max_memory_mb: Count = 0
    """Memory of all agent trees together, in MiB, above which none is started; 0 = no limit."""
    per_agent: PoolTable = Field(default_factory=dict)
    """The same bound for single adapters, such as { codex = 1 }."""


class GitSettings(Table):
    """What the supervisor does with git."""

    commit: CommitMode = "none"
    """Who commits an iteration's changes: "none", "supervisor" (also true) or "agent"."""
    no_verify: Switch = False
    """Skip the repository's commit hooks in the supervisor's commits."""
    timeout_sec: Seconds = 60
    """Longest time for one git command; 0 = no limit."""
    checkpoints: Switch = True
    """Keep each iteration's result under refs/codex-self-iter/."""
    checkpoint_keep: Count = 200
    """How many iterations' checkpoints are kept, or up to a tenth more, and as many beside them of
    what was found (`N-before`, `before-rewind-…`); 0 = all."""
    checkpoint_keep_days: Amount = 30
    """How many days checkpoints are kept, until the next 20th iteration at most; 0 = for ever."""
    checkpoint_max_file_mb: Amount = 10
    """Untracked files above this size, in MiB, are listed but not kept; 0 = keep all."""


class LanesSettings(Table):
    """Several items of the plan at once, each in a work tree of its own, landed one after the other."""

    max: Annotated[AtLeastOne, Option("--lanes")] = 1
    """Lanes at work at once; 1 = off: one loop works on the whole plan."""
    candidates: AtLeastOne = 1
    """Lanes for each item, by the agents of `agents.order` in turn; the smallest that is done lands."""
    batch: AtLeastOne = 1
    """Lanes that are done and land together, with one run of the gates; red ones are halved."""
    max_conflicts: Count = 3
    """How often work comes back to its lane (conflict, red gates, nothing committed) before a person is
    asked."""
    target: Text = ""
    """Branch that the lanes land on; "" = the one that is checked out at the first start."""
    directory: FarDirectory = ""
    """Where the work trees are, outside the workspace; "" = below the user's state directory."""
    setup: TextList = ()
    """Commands in each fresh work tree, before its agent and before the gates of a landing."""
    setup_timeout_sec: Seconds = 1800
    """Longest time for one of them; 0 = no limit."""
    port_base: PortNumber = 20000
    """First port of the first lane; each has a hundred, the first in CODEX_SELF_ITER_PORT_BASE. Unless it
    is set, the lanes of another supervisor have other ones."""
    message: LandedMessage = "{title}"
    """Message of a commit that lands."""
    author: Identity = ""
    """Author of a commit that lands; "" = as git has it."""
    squash: Switch = False
    """Land one commit for each lane instead of a merge of its own commits."""


class FenceSettings(Table):
    """A fence around what an agent's runs may touch, whatever the agent's own sandbox does."""

    level: FenceLevel = "none"
    """"write": all is read-only but the workspace, the agent's own homes and its temporary directory;
    "container": only the agent's container is there."""
    by: FenceMeans = "auto"
    """What "write" is made with; "auto" = the first of them that works here."""
    allow_write: FencePaths = ()
    """What may also be written, caches for example; it opens what is closed otherwise."""
    allow_read: FencePaths = ()
    """What may be read although it is closed: keys, logins of other programs, sockets of your programs."""
    deny_read: FencePaths = ()
    """What must not be read either."""
    network: Network = "all"
    """"none" refuses every socket but local ones; single hosts cannot be named."""
    image: Text = ""
    """Image for level "container"; it has the agent in it."""
    engine: ContainerEngine = "auto"
    """What runs containers; "auto" = podman, else docker."""


class RolesSettings(Table):
    """Which adapter works in which role when `mode = "roles"`; "" = the same as `agent`."""

    planner: OptionalAgent = ""
    """Adapter of the planner."""
    executor: OptionalAgent = ""
    """Adapter of the executor."""
    reviewer: OptionalAgent = ""
    """Adapter of the reviewer."""


class Price(Table):
    """The price of one model, in US dollars per million tokens, on a date."""

    input_per_mtok: Money
    """Input tokens that were not cached."""
    cached_input_per_mtok: Money | None = None
    """Cached input tokens; left out = as input."""
    output_per_mtok: Money
    """Output tokens."""
    as_of: Date = ""
    """Day on which these prices were right; for people, nothing is made of it."""


class NotifyTarget(Table):
    """One more who is told, with what differs from the others."""

    url: Text
    """Where to send it, as apprise has it; ${VARIABLE} stands for what is secret in it."""
    name: Word = ""
    """What it is called in log, status and `notify test`; "" = by the url's scheme."""
    events: EventList = ()
    """What it is told about; [] = `events` of [notify]."""
    markdown: Switch = False
    """Send Markdown instead of plain text."""
    at_night: Switch = False
    """Send also in quiet hours."""


class NotifyReplies(Table):
    """Where a person answers from, and who may."""

    url: ReplyUrl
    """A topic, "ntfys://ntfy.example.org/${TOPIC}", or a bot, "tgram://${TELEGRAM_TOKEN}"."""
    allow: SomeTexts
    """Who is heard: numbers of Telegram's users; for ntfy the words that a message begins with."""


class NotifySettings(Table):
    """Who is told when something happens."""

    command: Command = ()
    """Program and arguments; it gets one JSON object on standard input."""
    urls: TextList = ()
    """Where to send it, as apprise has it ("ntfys://ntfy.sh/${TOPIC}"); ${VARIABLE} stands for what is
    secret; needs the extra [notify]."""
    targets: tuple[NotifyTarget, ...] = ()
    """The same with settings of their own."""
    replies: tuple[NotifyReplies, ...] = ()
    """Where you can answer from; needs the extra [notify]."""
    quiet: Hours = ""
    """Hours in which nothing is sent; what happens then comes at their end. The command is run."""
    zone: Zone = ""
    """Time zone of the quiet hours and of `digest_at`; "" = the machine's."""
    digest_at: TimeOfDay = ""
    """Time of day at which one message says what has happened in a day, in all loops of the
    supervisor; "" = none."""
    page: Text = ""
    """Address of the page (`serve`): a message names that of its loop; "" = none."""
    events: EventList = (
        "blocked", "completed", "stagnated", "crashed", "agent_stopped", "budget", "outage", "cooldown", "digest",
    )  # fmt: skip
    """What it is told about."""


class ServiceSettings(Table):
    """How a service stops, and whether the machine may sleep meanwhile."""

    on_stop: Annotated[Literal["end", "finish"], Allowed('one of "end", "finish"')] = "end"
    """On SIGTERM: "end" the running agent, or let it "finish" its iteration."""
    finish_timeout_sec: Seconds = 3600
    """Longest wait for "finish"; 0 = none."""
    inhibit_sleep: Switch = False
    """Keep the machine awake while a run or a gate is on (systemd-inhibit, or caffeinate on macOS)."""


class LogSettings(Table):
    """The supervisor's own log."""

    level: LogLevel = "info"
    """Least severe level that is written."""
    format: Annotated[
        Literal["auto", "console", "json"], Allowed('one of "auto", "console", "json"')
    ] = "auto"
    """"auto" is "json" under systemd and "console" elsewhere."""


class WorkspaceEntry(BaseModel):
    """One loop of many: its path, and any field or table of a loop that differs from the file's own."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    path: PathText
    """The workspace; a relative path counts from the directory of the configuration file."""
    name: Text = ""
    """Name in `status` and the like; "" = the directory's name."""
    priority: Integer = 0
    """A loop with a higher number gets a free place in the pool first."""

    @property
    def overrides(self) -> Mapping[str, Any]:
        """The keys that differ for this loop, as written."""
        return self.__pydantic_extra__ or {}


Prices = Annotated[
    Mapping[str, Price], AfterValidator(freeze), PlainSerializer(lambda value: dict(value))
]


class LoopFields(Table):
    """The keys of one loop: all but those that belong to the supervisor as a whole."""

    workspace: PathText = Path(".")
    """Directory in which the agent works; a relative path counts from the current directory."""
    task_file: PathText = Path("TASK.md")
    """What is wanted, in your words (may be missing); relative to the workspace."""
    plan_file: PathText = Path("plan.md")
    """The plan that the agent follows; relative to the workspace."""
    state_dir: PathText = Path(".codex-self-iter")
    """State directory; relative to the workspace."""
    mode: Annotated[Literal["goal", "roles"], Allowed('one of "goal", "roles"')] = "goal"
    """"goal": one agent run an iteration; "roles": planner, executor and reviewer."""
    agent: AgentChoice = "auto"
    """Adapter; "auto" takes agent_command_template if set, else an installed one (never plan-shell)."""
    agent_mode: Annotated[Literal["safe", "bypass"], Allowed('one of "safe", "bypass"')] = "safe"
    """"safe": the agent's own sandbox is on; "bypass": no sandbox, no questions."""
    agent_command_template: Template = ""
    """Command of your own agent, with {prompt_file} and, if wanted, {workspace}; no shell."""
    max_iterations: Count = 0
    """Iterations of this start after which the loop stops, one that it adopts included; 0 = no
    limit."""
    max_stagnation: Count = 12
    """Iterations without progress in a row that end the loop (three times as many with the same goal
    but changes of content); 0 = off."""
    command_timeout_sec: Seconds = 7200
    """Longest agent run; 0 = no limit."""
    idle_timeout_sec: Seconds = 1800
    """Longest time without output, CPU use or file change of an agent run; 0 = off."""
    kill_grace_sec: Seconds = 10
    """Time between asking an agent run to end and killing it; 0 = none."""
    memory_limit_mb: Count = 0
    """Memory of a whole agent tree, in MiB, at which it is ended; 0 = off."""
    min_free_disk_mb: Count = 256
    """Free disk, in MiB, below which no agent is started; 0 = off."""
    max_consecutive_errors: Count = 10
    """Agent faults in a row, without a change of content, that end the loop; 0 = off."""
    max_outage_sec: Seconds = 259200
    """Time without an answer, for limits, overload and network, that ends the loop after ten tries at
    least; 0 = off."""
    on_orphan: Annotated[Literal["adopt", "kill"], Allowed('one of "adopt", "kill"')] = "adopt"
    """An agent run left by a supervisor that died: "adopt" it, or "kill" it and start anew."""
    stop_file_name: FileName = "STOP"
    """Sentinel inside the state directory that stops the loop."""
    global_stop_file_name: FileName = ".codex-stop"
    """Sentinel inside the workspace that stops the loop."""
    lock_file_name: FileName = "loop.lock"
    """The supervisor's lock inside the state directory."""
    planner_model_hint: Text = ""
    """Model for the planner; "" = as the agent's table says."""
    reviewer_model_hint: Text = ""
    """Model for the reviewer; "" = as the agent's table says."""
    history_tail: Count = 8
    """Iterations that came to work which a prompt shows; failed ones are summed up; 0 = none."""
    no_change_gate: NoChangeGate = True
    """Iterations without a change in a row before the loop waits; true = 1, false = 0 = never."""
    backoff_base_sec: Seconds = 5
    """First wait after an error, or up to a tenth longer; it doubles with every further one; 0 = none."""
    backoff_max_sec: Seconds = 900
    """Longest wait after an error; at least backoff_base_sec."""
    no_change_backoff_sec: Seconds = 30
    """First wait after an iteration that changed nothing, or up to a tenth longer; it doubles up to
    backoff_max_sec; 0 = none."""
    continue_false_backoff_sec: Seconds = 300
    """Cooldown after a reviewer's "continue": false; in a row it doubles, up to eight times as long (or
    backoff_max_sec, if that is longer); 0 = none."""
    planner_stop_backoff_sec: Seconds = 600
    """Cooldown after a planner's "stop": true; in a row it doubles, up to eight times as long (or
    backoff_max_sec, if that is longer); 0 = none."""
    completion_promise: Word = "PLAN_COMPLETE"
    """Word that claims completion alone on its line or as the whole summary, unless the answer says
    "completed": false; without a control block, as the last line; "" = off."""
    metrics_file: Textfile = ""
    """File for node_exporter's textfile collector, absolute, ending in .prom; {name} in it is the loop's
    name; needs the extra [metrics]; "" = none."""
    otlp: Receiver = ""
    """Where traces and numbers are exported to: base address of an OTLP receiver over HTTP, such as
    "http://localhost:4318"; ${VARIABLE} in it is taken from the environment; needs the extra [metrics];
    "" = nowhere."""
    verify: VerifySettings = Field(default_factory=VerifySettings)
    """Gates: what must succeed before "completed" is believed."""
    prompt: PromptSettings = Field(default_factory=PromptSettings)
    """Text files of your own in every prompt; a role's own table goes first, key by key."""
    notes: NotesSettings = Field(default_factory=NotesSettings)
    """Notes: short facts that agents leave for later iterations."""
    hooks: HooksSettings = Field(default_factory=HooksSettings)
    """Commands of your own at turns of the loop."""
    budget: BudgetSettings = Field(default_factory=BudgetSettings)
    """What may be spent."""
    output: OutputSettings = Field(default_factory=OutputSettings)
    """Caps and retention of what is kept on disk."""
    git: GitSettings = Field(default_factory=GitSettings)
    """What the supervisor does with git."""
    fence: FenceSettings = Field(default_factory=FenceSettings)
    """What an agent may touch."""
    lanes: LanesSettings = Field(default_factory=LanesSettings)
    """Several items of the plan at once."""
    roles: RolesSettings = Field(default_factory=RolesSettings)
    """Which adapter works in which role."""
    agents: AgentsSettings = Field(default_factory=AgentsSettings)
    """The agents: order of preference, and a table for each adapter."""
    prices: Prices = Field(default_factory=dict)
    """Prices by model name; a model that is not here has no known cost."""
    notify: NotifySettings = Field(default_factory=NotifySettings)
    """Who is told when something happens."""

    def agent_names(self) -> frozenset[str]:
        """Every adapter that this loop names."""
        roles = self.roles
        named = {self.agent, roles.planner, roles.executor, roles.reviewer, *self.agents.order}
        return frozenset(named - {"", "auto"})
