"""Write share/: the manual page, from the parsers of the commands, the flags of the configuration
and the contract's table of exit codes; the completions of the shells, from the program.

python -m tests.project.make_reference            rewrites them together with the references"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from codex_self_iter import __version__
from codex_self_iter.cli import COMMANDS, PROGRAM, build_parser
from codex_self_iter.cli._flags import FLAGS
from codex_self_iter.cli.complete import SCRIPTS
from codex_self_iter.settings.env_source import variable_name

ROOT = Path(__file__).resolve().parents[2]
SHARE = ROOT / "share"
MANUAL = SHARE / "man" / "man1" / f"{PROGRAM}.1"
COMPLETIONS = {
    "bash": SHARE / "bash-completion" / "completions" / PROGRAM,
    "zsh": SHARE / "zsh" / "site-functions" / f"_{PROGRAM}",
    "fish": SHARE / "fish" / "vendor_completions.d" / f"{PROGRAM}.fish",
}
SUMMARY = "keep a coding agent working until the work is proven complete"
DESCRIPTION = (
    "It runs a coding agent again and again in a git repository, watches over it, and believes that "
    "the work is complete when the gates that are configured have passed. Without a command, run is meant."
)
FILES = {
    "TASK.md": "What is wanted, in your words.",
    "plan.md": "The plan that the agent follows: a list of checkboxes.",
    "codex-self-iter.toml": "The configuration, else codex-self-iter/config.toml in your directory of configurations.",
    ".codex-self-iter/": "The state of the loop: status.json, the journal, prompts, outputs.",
}
VARIABLES = """Every key of the configuration is a variable, too: CODEX_SELF_ITER_ and the key in capitals; the words of a table and
of its key are joined by two underscores."""


def files() -> dict[Path, str]:
    """Each file of share/, and its text."""
    return {MANUAL: manual(), **{COMPLETIONS[shell]: text for shell, text in SCRIPTS.items()}}


def manual() -> str:
    """The manual page, in the macros of man(7)."""
    title = f'.TH {PROGRAM.upper()} 1 "" "{PROGRAM} {__version__}" "User Commands"'
    parts = [
        *(title, ".nh", ".ad l", *_heading("name"), f"{_plain(PROGRAM)} \\- {SUMMARY}"),
        *(*_heading("synopsis"), f".B {_plain(PROGRAM)}", "[COMMAND] [options]"),
        *(*_heading("description"), _plain(DESCRIPTION)),
        *(*_heading("commands"), *_commands()),
        *(*_heading("settings"), *_settings()),
        *(*_heading("environment"), _plain(" ".join(VARIABLES.split()))),
        *_heading("files"),
        *(line for name, text in FILES.items() for line in _item(_bold(name), text)),
        *(*_heading("exit status"), *_exit_codes()),
        *(*_heading("see also"), "git(1), systemd(1)"),
    ]
    return "\n".join(parts) + "\n"


def _heading(title: str) -> Iterator[str]:
    yield f".SH {title.upper()}"


def _commands() -> Iterator[str]:
    for name in COMMANDS:
        parser, _ = build_parser(name)
        yield f".SS {name}"
        yield _plain(str(parser.description))
        for action in parser._actions:
            hidden = action.help == argparse.SUPPRESS or ":" in action.dest
            if not hidden and action.dest not in ("help", "version"):
                yield from _item(_named(action), (action.help or "").replace("%%", "%"))


def _named(action: argparse.Action) -> str:
    """As it is typed: an option in bold, with the name of its value, or a word."""
    value = f" \\fI{_plain(str(action.metavar))}\\fR" if action.metavar else ""
    if action.option_strings:
        return ", ".join(_bold(option) + value for option in action.option_strings)
    return f"\\fI{_plain(str(action.metavar or '|'.join(action.choices or [action.dest])))}\\fR"


def _settings() -> Iterator[str]:
    yield "Flags of run; each is a key of the configuration, and a variable of the environment."
    for flag in FLAGS:
        names = (
            f"{_bold(flag.option)}, {_plain(flag.key)}, {variable_name(tuple(flag.key.split('.')))}"
        )
        yield from _item(names, flag.help.replace("%%", "%"))


def _exit_codes() -> Iterator[str]:
    contract = (ROOT / "docs" / "contract.md").read_text()
    table = contract.partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    for code, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", table, re.M):
        yield from _item(code, meaning)


def _item(name: str, text: str) -> Iterator[str]:
    yield from (".TP", name, _plain(text))


def _bold(text: str) -> str:
    return f"\\fB{_plain(text)}\\fR"


def _plain(text: str) -> str:
    """Text in which nothing is a request or an escape, and a hyphen can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = escaped.replace("…", "...")  # not every terminal has them
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped
