"""Write the two references for users: docs/commands.md from the parsers of the commands, and
docs/configuration.md from the schema of the configuration. And what is installed for people: the
files of share/ (make_manual.py). And docs/llms.txt (make_llms.py), the tables of docs/agents.md
(agents_table.py), and the manifests of the plugin (make_plugin.py).

python -m tests.project.make_reference            rewrite the documents
python -m tests.project.make_reference --check    exit 1 if one is out of date"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from codex_self_iter.cli import COMMANDS, HIDDEN, build_parser
from codex_self_iter.cli._flags import FLAGS
from codex_self_iter.settings import AGENT_NAMES, Settings
from codex_self_iter.settings.agent_tables import (
    AcpSettings,
    AgentFence,
    AgentSettings,
    AgentsSettings,
)
from codex_self_iter.settings.env_source import variable_name
from codex_self_iter.settings.example import toml_value
from codex_self_iter.settings.keys import allowed_at, dotted, fields_of, table_at
from codex_self_iter.settings.model import KeyPath
from codex_self_iter.settings.schema import (
    NotifyReplies,
    NotifyTarget,
    Price,
    WorkspaceEntry,
)
from codex_self_iter.supervisor.reload import FIXED
from tests.project import agents_table, make_llms, make_manual, make_plugin

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = ROOT / "docs" / "configuration.md"
COMMANDS_PAGE = ROOT / "docs" / "commands.md"

# --- configuration ---------------------------------------------------------------------------

_FIXED = ", ".join(f"`{key}`" for key in sorted(FIXED))
CONFIGURATION_HEAD = f"""\
# Configuration

Every key of `codex-self-iter.toml`. The same as a file to start from: [config.example.toml](../config.example.toml), or
`codex-self-iter config show --example`. `codex-self-iter config show` prints what a start here would use and where each value comes
from; `config check` says whether a file is good; `config schema` prints a JSON schema for editors.

**Where a value comes from.** A flag beats an environment variable, which beats the file, which beats the default. The file is
the one named with `--config`, else `codex-self-iter.toml` in the workspace, else `codex-self-iter/config.toml` in your
configuration directory (`$XDG_CONFIG_HOME` or `~/.config`). One file counts; they are not mixed.

**Flags** are those of `codex-self-iter run`. One for a list is repeated, once for each part; one for `true` or `false` may
stand alone (`--verify-every-iteration`) or be turned round (`--no-git-checkpoints`). Where a key has no flag of its own,
`--set KEY=VALUE` gives it, with the value as TOML.

**Variables** have the words of a table and of its key joined by two underscores. Lists and tables are written as JSON:
`CODEX_SELF_ITER_VERIFY__COMMANDS='["make test"]'`.

**Mistakes** are errors, all of them at once, with file and line: an unknown key or variable (with the nearest known one), a value
of the wrong kind, a value that is out of bounds. Nothing starts then (exit 2). A reload with a mistake changes nothing.

**A reload** (SIGHUP, `systemctl reload`) reads the file again. `max_iterations`, `[budget]`, `[service]` and `[pool]` are in force
at once, the other keys between two iterations; the log says which are (`config.applied`). A few cannot change while a supervisor
runs, and `status` names those that would: {_FIXED} wait for a restart. An entry of
`[[workspaces]]` that comes starts its loop; one that goes ends it after its iteration. Where one loop runs alone, a second one waits
for a restart.

**Without effect.** A key that is set and does nothing as the others are (`roles.planner` with `mode = "goal"`, `git.commit` without
git) is named by the log at the start, by `config check` and by `doctor`.

Durations are seconds, with a fraction if you like. MiB are 1,048,576 bytes.
"""


def configuration() -> str:
    """The text of docs/configuration.md."""
    parts = [CONFIGURATION_HEAD, *_section("Top level", (), Settings)]
    for name, field in fields_of(Settings).items():
        table = table_at((name,))
        if table is not None:
            parts += _section(f"[{name}]", (name,), table, _sentence(field))
        if table is AgentsSettings:
            parts += _section(*ADAPTERS)
            parts += _section(
                "[agents.codex.fence]", ("agents", "codex", "fence"), AgentFence, FENCE
            )
            parts += _section(
                "[agents.acp]", ("agents", "acp"), AcpSettings, ANY_ACP, AgentSettings
            )
            continue
        for inner, below in fields_of(table).items() if table is not None else ():
            found = table_at((name, inner))
            if found is not None:
                parts += _section(f"[{name}.{inner}]", (name, inner), found, _sentence(below))
    for title, path, said in FREE:
        model = table_at(path)
        assert model is not None
        parts += _section(title, path, model, said)
    return "\n".join(parts).rstrip("\n") + "\n"


FENCE = f"{AgentFence.__doc__} Every adapter has such a table ([security.md](security.md))."
ANY_ACP = "Beside the keys of an adapter."
WHICH_KEYS = """These are the keys of codex, claude, opencode and of all agents over ACP. `[agents.gemini]`
has no `effort`, `[agents.plan-shell]` only `args`, `env`, `account` and `pass_env`, `[agents.command]` only `args`, `env` and
`account`, both also `fence`: an adapter has no key that it would ignore."""
ADAPTERS = (
    "[agents.codex], [agents.claude] and the others",
    ("agents", "codex"),
    AgentSettings,
    f"""A table for each adapter: {", ".join(f"`{name}`" for name in AGENT_NAMES)}. {WHICH_KEYS}
Flag and variable are shown for codex.""",
)
FREE: tuple[tuple[str, KeyPath, str], ...] = (
    (
        '[prices."name-of-a-model"]',
        ("prices", "x"),
        """Prices, in US dollars per million tokens, by the model's name as the agent reports it. A model that is not here has no known
cost. As a variable: `CODEX_SELF_ITER_PRICES`, the whole table as JSON.""",
    ),
    (
        "[[notify.targets]]",
        ("notify", "targets", 0),
        """More who are told, each with what differs from the others ([notifications.md](notifications.md)). As a variable:
`CODEX_SELF_ITER_NOTIFY__TARGETS`, the whole list as JSON.""",
    ),
    (
        "[[notify.replies]]",
        ("notify", "replies", 0),
        """Where you can answer from, and who may ([notifications.md](notifications.md#answering)). As a variable:
`CODEX_SELF_ITER_NOTIFY__REPLIES`, the whole list as JSON.""",
    ),
    (
        "[[workspaces]]",
        ("workspaces", 0),
        """Several loops in one supervisor: an entry each, with these keys and any key of a loop that differs from the file's own (all
but `workspace`, `[pool]`, `[service]` and `[log]`, which belong to the supervisor). As a variable:
`CODEX_SELF_ITER_WORKSPACES`, the whole list as JSON.""",
    ),
)


def _section(
    title: str,
    path: KeyPath,
    model: type[BaseModel],
    said: str = "",
    known: type[BaseModel] | None = None,
) -> Iterator[str]:
    """A heading, what it is about, and a row for each key that is no table and not `known`."""
    had = () if known is None else fields_of(known)
    free = model in (NotifyReplies, NotifyTarget, Price, WorkspaceEntry)
    yield f"\n## {title}\n"
    yield from (said, "") if said else ()
    yield from _rows(
        ["key", "meaning", "default", "what may be given", *([] if free else ["flag", "variable"])],
        (
            _key(path, name, field, free=free)
            for name, field in (model.model_fields if free else fields_of(model)).items()
            if name not in ("prices", "workspaces", "targets", "replies", *had)
            and table_at((*path, name)) is None
        ),
    )


def _key(path: KeyPath, name: str, field: FieldInfo, *, free: bool) -> list[str]:
    key = (*path, name)
    flag = next((one.option for one in FLAGS if one.key == dotted(key)), _flag(key))
    given = [] if free else [f"`{flag}`", f"`{variable_name(key)}`"]
    default = field.get_default(call_default_factory=True)
    shown = "none" if default is None else f"`{toml_value(default)}`"
    shown = "required" if field.is_required() else shown
    allowed = allowed_at(key) or "a finite number, 0 or more"
    return [f"`{name}`", _sentence(field), shown, allowed, *given]


def _flag(key: KeyPath) -> str:
    return "--workspace" if key == ("workspace",) else f"--set {dotted(key)}=…"


def _rows(names: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(list(names))
    for cells in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _sentence(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


# --- commands ---------------------------------------------------------------------------------

COMMANDS_HEAD = """\
# Commands

`codex-self-iter COMMAND [options]`; without a command `run` is meant, and `codex-self-iter --help` lists them.
`python -m codex_self_iter` is the same program. This page says of every command what `--help` says, and what it exits with.

Every command also has `--help` and `--version`. Options are written out in full: an abbreviation is an error.

**Exit codes.** What holds for all of them: 0, it was done; 1, the output cannot be written, or a defect; 2, bad usage, no such loop
or a configuration that is not valid, said in one line on stderr; 130, interrupted with Ctrl-C. A reader that has seen enough (`| head`)
is no error. Each command below says what else it exits with.

## Which loop

Commands that read or control a loop take the one of the current directory, or the one that these say:

"""
WHICH = frozenset({"loop", "workspace", "state_dir", "config"})
COMMON = frozenset({"help", "version"})
RUN_TOO = """Every key of the configuration is a flag, too: [configuration.md](configuration.md)."""
EXITS = {
    "run": "as [the contract](contract.md#exit-codes) says: 0, 1, 2, 3, 4, 75 or 130.",
    "doctor": """4 when a finding needs a person (`FAIL`), as a configuration that is not valid does; else 0, also with
warnings.""",
    "plan": "2 also when `check` finds a fault; 0 with suggestions only ([plan.md](plan.md)).",
    "stop": """75 when `--timeout` is over and the supervisor is still there; its STOP stays. `--wait` without a supervisor is 0 at
once.""",
    "rewind": "75 while a supervisor or an agent works here; 0 also when nothing was to do, or the answer was no.",
    "demo": "as `run`.",
}


def commands() -> str:
    """The text of docs/commands.md."""
    shared, _ = build_parser("status")
    parts = [COMMANDS_HEAD, *_options(shared, lambda action: action.dest in WHICH)]
    for name in (*COMMANDS, *HIDDEN):
        parser, _ = build_parser(name)
        which = {action.dest for action in parser._actions} >= WHICH and name != "run"
        skip = WHICH | COMMON if which else COMMON
        parts += ["", f"## {name}", "", str(parser.description), "", f"    {_usage(parser)}", ""]
        rows = [*_options(parser, lambda action: action.dest not in skip)]  # noqa: B023 - used at once
        parts += [*rows, ""] if len(rows) > 2 else []
        also = ["It takes [the options that say which loop](#which-loop), too."] if which else []
        also += [RUN_TOO] if name == "run" else []
        parts += [" ".join([*also, f"Exit code: {EXITS[name]}"] if name in EXITS else also)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip("\n") + "\n"


def _options(
    parser: argparse.ArgumentParser, wanted: Callable[[argparse.Action], bool]
) -> Iterator[str]:
    """A row for each option and argument that has a help text and is no key of the configuration."""
    shown = [
        action
        for action in parser._actions
        if wanted(action) and action.help != argparse.SUPPRESS and ":" not in action.dest
    ]
    yield from _rows(["option", "what it does"], ([_name(one), _help(one)] for one in shown))


def _name(action: argparse.Action) -> str:
    word = f"[{action.metavar}]" if action.nargs == "?" else action.metavar
    value = f" {word}" if action.metavar and action.option_strings else ""
    names = action.option_strings or [
        str(action.metavar or "|".join(action.choices or [action.dest]))
    ]
    return ", ".join(f"`{name}{value}`" for name in names)


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%")


def _usage(parser: argparse.ArgumentParser) -> str:
    if parser.usage:
        return parser.usage % {"prog": parser.prog}
    words = [
        f"[{name}]" if one.nargs in ("?", "*") and "[" not in name else name
        for one in parser._actions
        if not one.option_strings and (name := _name(one).strip("`"))
    ]
    return " ".join([parser.prog, "[options]", *words])


def main() -> int:
    made = {
        CONFIGURATION: configuration(),
        COMMANDS_PAGE: commands(),
        **make_manual.files(),
        **make_plugin.files(),
    }
    made[make_llms.LLMS] = make_llms.llms()
    made[agents_table.PAGE] = agents_table.page()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is out of date: run python -m tests.project.make_reference")
        return 1 if stale else 0
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
