"""The static table: every configuration key of a loop and its flag on `run`.

`max_iterations` is `--max-iterations`, `budget.max_tokens` is `--budget-max-tokens`. The values are
converted here and judged by the settings, which see flag, environment and file alike. The table is
written out so that the command line need not import the settings."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple


class Flag(NamedTuple):
    """One key. `kind` is str, int, float, bool, gate (true, false or a number) or list
    (repeatable).
    """

    key: str
    kind: str
    help: str
    name: str = ""
    """The flag, where it is not the key's own."""

    @property
    def option(self) -> str:
        """The long option."""
        return self.name or "--" + self.key.replace(".", "-").replace("_", "-")

    @property
    def dest(self) -> str:
        """The attribute in argparse's namespace; cannot collide with another option's."""
        return "key:" + self.key


FLAGS: tuple[Flag, ...] = (
    Flag("task_file", "str", "what is asked, in prose (default: TASK.md)"),
    Flag("plan_file", "str", "the plan (default: plan.md)"),
    Flag("state_dir", "str", "where the loop keeps its state (default: .codex-self-iter)"),
    Flag("mode", "str", "goal or roles"),
    Flag("agent", "str", "auto, codex, claude, gemini, opencode, command or plan-shell"),
    Flag("agent_mode", "str", "safe or bypass"),
    Flag(
        "agent_command_template",
        "str",
        "the agent's command line with {prompt_file} and {workspace}",
    ),
    Flag("max_iterations", "int", "end after so many iterations of this start; 0: never"),
    Flag("max_stagnation", "int", "give up after so many iterations in circles; 0: never"),
    Flag("command_timeout_sec", "float", "longest duration of an agent run"),
    Flag(
        "idle_timeout_sec", "float", "longest time without output, CPU use and file change; 0: off"
    ),
    Flag("kill_grace_sec", "float", "time between TERM and KILL"),
    Flag("memory_limit_mb", "int", "memory of the whole agent tree; 0: no limit"),
    Flag("min_free_disk_mb", "int", "below this no run starts"),
    Flag("max_consecutive_errors", "int", "agent faults in a row before a person is asked"),
    Flag("on_orphan", "str", "adopt or kill an agent that an earlier supervisor left"),
    Flag("stop_file_name", "str", "the STOP file's name in the state directory"),
    Flag("global_stop_file_name", "str", "the STOP file's name in the workspace"),
    Flag("lock_file_name", "str", "the lock's name in the state directory"),
    Flag("planner_model_hint", "str", "a model for the planner"),
    Flag("reviewer_model_hint", "str", "a model for the reviewer"),
    Flag("history_tail", "int", "journal lines in each prompt"),
    Flag(
        "no_change_gate",
        "gate",
        "wait after this many iterations without a change; true is 1, false never",
    ),
    Flag("backoff_base_sec", "float", "first wait after an error"),
    Flag("backoff_max_sec", "float", "longest wait after an error"),
    Flag("no_change_backoff_sec", "float", "first wait after an iteration without a change"),
    Flag("continue_false_backoff_sec", "float", "cooldown after a reviewer's continue=false"),
    Flag("planner_stop_backoff_sec", "float", "cooldown after a planner's stop"),
    Flag("completion_promise", "str", "the word that claims completion"),
    Flag(
        "verify.commands",
        "list",
        "a gate: a command that must succeed; repeatable",
        "--verify-command",
    ),
    Flag("verify.timeout_sec", "float", "longest duration of a gate"),
    Flag("verify.confirmations", "int", "further iterations that must agree with a completion"),
    Flag("verify.every_iteration", "bool", "run the gates after every iteration"),
    Flag(
        "verify.gate_files",
        "list",
        "files that void a completion when the agent changed them; repeatable",
    ),
    Flag("verify.require_plan_done", "bool", "no completion while the plan has open items"),
    Flag("budget.max_tokens", "int", "tokens in all; 0: no limit"),
    Flag("budget.max_cost_usd", "float", "US dollars in all"),
    Flag("budget.max_hours", "float", "agent hours in all"),
    Flag("budget.max_tokens_per_day", "int", "tokens a day"),
    Flag("budget.max_cost_usd_per_day", "float", "US dollars a day"),
    Flag("budget.max_hours_per_day", "float", "agent hours a day"),
    Flag("budget.notice_at", "float", "share of a budget at which a notice is given"),
    Flag("output.max_run_mb", "float", "output kept of one run"),
    Flag("output.keep_runs", "int", "runs whose output is kept"),
    Flag("output.keep_days", "float", "days for which output is kept"),
    Flag("output.max_state_mb", "float", "size of the state directory"),
    Flag("output.log_max_mb", "float", "size of the supervisor's log before it is rotated"),
    Flag("output.log_files", "int", "rotated logs kept"),
    Flag("pool.max_agents", "int", "agent runs alive at once"),
    Flag("pool.max_memory_mb", "int", "memory of all agent runs; 0: no limit"),
    Flag("git.commit", "str", "who commits: none, supervisor or agent"),
    Flag("git.no_verify", "bool", "commit without hooks"),
    Flag("git.timeout_sec", "float", "longest duration of a git command"),
    Flag("git.checkpoints", "bool", "keep each iteration's result as a checkpoint"),
    Flag("git.checkpoint_keep", "int", "checkpoints kept"),
    Flag("git.checkpoint_keep_days", "float", "days for which checkpoints are kept"),
    Flag("git.checkpoint_max_file_mb", "float", "bigger untracked files are left out"),
    Flag("roles.planner", "str", "the planner's adapter"),
    Flag("roles.executor", "str", "the executor's adapter"),
    Flag("roles.reviewer", "str", "the reviewer's adapter"),
    Flag("agents.order", "list", "an agent to fall back on, in order; repeatable"),
    Flag("notify.command", "list", "a word of the notification command; repeatable"),
    Flag("notify.events", "list", "an event to notify of; repeatable"),
    Flag("service.on_stop", "str", "end or finish the running iteration at SIGTERM"),
    Flag("service.finish_timeout_sec", "float", "longest time to finish it"),
    Flag("log.level", "str", "debug, info, warning or error"),
    Flag("log.format", "str", "auto, console or json"),
)

_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the whole table, and `--set` for the tables of agents and prices."""
    group = parser.add_argument_group(
        "settings", "Each also stands in the configuration file and environment."
    )
    for flag in FLAGS:
        settings: dict[str, Any] = {
            "dest": flag.dest,
            "default": None,
            "help": flag.help,
            "metavar": flag.kind.upper(),
        }
        if flag.kind == "list":
            settings |= {"action": "append", "metavar": "TEXT"}
        elif flag.kind in ("bool", "gate"):
            settings |= {"nargs": "?", "const": True, "type": _TYPES[flag.kind]}
        else:
            settings |= {"type": _TYPES[flag.kind]}
        group.add_argument(flag.option, **settings)
        if flag.kind in ("bool", "gate"):
            no = "--no-" + flag.option.removeprefix("--")
            group.add_argument(
                no, dest=flag.dest, action="store_const", const=False, help=argparse.SUPPRESS
            )
    group.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE", type=_assignment,
        help="any key, its value in TOML: --set agents.codex.model='\"gpt-6\"'; repeatable",
    )  # fmt: skip


def collect(args: argparse.Namespace) -> dict[str, Any]:
    """What was given, nested as in the configuration file: {"verify": {"commands": [...]}}."""
    found: dict[str, Any] = {}
    for flag in FLAGS:
        value = getattr(args, flag.dest)
        if value is not None:
            _put(found, flag.key, value)
    for key, value in args.assignments:
        _put(found, key, value)
    return found


def _put(target: dict[str, Any], key: str, value: object) -> None:
    *tables, last = key.split(".")
    for table in tables:
        target = target.setdefault(table, {})
    target[last] = value


def _bool(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE + _FALSE:
        raise argparse.ArgumentTypeError(f"expected true or false, not {text!r}")
    return word in _TRUE


def _gate(text: str) -> bool | int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return _bool(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected true, false or a number, not {text!r}"
        ) from None


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, not {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, not {text!r}") from None


def _assignment(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`; a value that is no TOML is taken as a string, so that `model=gpt-6` needs no
    quotes.
    """
    import tomllib

    key, equals, value = text.partition("=")
    if not equals or not all(part for part in key.split(".")):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, not {text!r}")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


_TYPES = {"str": str, "int": _integer, "float": _number, "bool": _bool, "gate": _gate}
