"""The references for users are what the program's own parsers and schema say."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from codex_self_iter.cli import COMMANDS, HIDDEN, build_parser
from codex_self_iter.core.control_block import FIELDS
from codex_self_iter.errors import ExitCode
from codex_self_iter.settings import Settings
from codex_self_iter.settings.env_source import variable_name
from codex_self_iter.supervisor.supervisor import SEVERITY
from tests.project import make_llms, make_reference


@pytest.mark.parametrize(
    ("path", "make"),
    [
        (make_reference.CONFIGURATION, make_reference.configuration),
        (make_reference.COMMANDS_PAGE, make_reference.commands),
        (make_llms.LLMS, make_llms.llms),
    ],
    ids=["configuration", "commands", "llms"],
)
def test_a_reference_is_up_to_date(path: Path, make: object) -> None:
    assert callable(make)
    assert path.read_text() == make(), "python -m tests.project.make_reference"


def test_every_key_stands_in_the_reference() -> None:
    text = make_reference.configuration()
    keys = [path for path, _ in Settings().leaves() if path not in [("prices",), ("workspaces",)]]
    for path in keys:
        if path[0] != "agents" or path[1] in ("order", "codex"):
            assert f"`{variable_name(path)}`" in text, path


@pytest.mark.parametrize("command", [*COMMANDS, *HIDDEN])
def test_every_option_stands_in_the_reference(command: str) -> None:
    text = make_reference.commands()
    own = text.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    assert own
    known = own + text.partition("\n## Which loop\n")[2].partition("\n## ")[0] + "--version --help"
    for action in build_parser(command)[0]._actions:
        for option in action.option_strings if action.help != argparse.SUPPRESS else ():
            if option.startswith("--") and ":" not in action.dest:
                assert option in known, option


def test_the_order_of_exit_codes_is_the_programs() -> None:
    text = (make_reference.ROOT / "docs" / "contract.md").read_text()
    said = text.partition("Its code is the worst of theirs:")[2].partition(".")[0]
    assert tuple(int(code) for code in re.findall(r"\d+", said)) == SEVERITY


def test_the_page_for_language_models_lists_everything_once() -> None:
    text = make_llms.LLMS.read_text(encoding="utf-8")
    linked = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", text, re.MULTILINE)
    pages = [path.relative_to(make_llms.DOCS) for path in make_llms.DOCS.rglob("*.md")]
    assert sorted(linked) == sorted([*map(str, pages), *make_llms.FURTHER])
    assert all((make_llms.DOCS / page).is_file() for page in linked)
    listed = re.findall(r"^- `codex-self-iter (\w+)`: \S", text, re.MULTILINE)
    assert listed == [name for name in COMMANDS if name not in HIDDEN]
    for code in ExitCode:
        assert f"\n- `{int(code)}`: " in text
    for name in (*FIELDS, "status.json", "logs/iterations.jsonl", "inbox/"):
        assert f"\n- `{name}`" in text
    assert len(text) < 12_000
