"""`config show|check|schema`, as a person calls it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.cli import config
from codex_self_iter.errors import UsageError
from codex_self_iter.settings import CONFIG_NAME, Settings
from codex_self_iter.settings.example import example_toml

Call = Callable[..., str]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Run the command in `tmp_path`; what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    def run(*argv: str) -> str:
        parser = argparse.ArgumentParser()
        config.add_arguments(parser)
        assert config.run(parser.parse_args(argv)) == 0
        return capsys.readouterr().out

    return run


def test_show_prints_every_key_with_its_source(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / CONFIG_NAME).write_text("max_iterations = 3")
    monkeypatch.setenv("CODEX_SELF_ITER_HISTORY_TAIL", "4")
    rows = dict(line.split("  # ") for line in call("show").splitlines()[1:])
    rows = {key.strip(): origin for key, origin in rows.items()}
    assert rows["max_iterations = 3"] == f"file {tmp_path / CONFIG_NAME}:1"
    assert rows["history_tail = 4"] == "environment CODEX_SELF_ITER_HISTORY_TAIL"
    assert rows['mode = "goal"'] == "default"
    assert len(rows) == len(list(Settings().leaves()))


def test_show_changed_prints_only_what_differs_from_the_default(call: Call, tmp_path: Path) -> None:
    text = (
        'mode = "goal"\nmax_iterations = 0\n[verify]\ncommands = ["a"]\n[agents.codex.env]\nA = "b"'
    )
    (tmp_path / CONFIG_NAME).write_text(text)
    assert [
        line.split("  #")[0].strip() for line in call("show", "--changed").splitlines()[1:]
    ] == ['verify.commands = ["a"]', 'agents.codex.env.A = "***"']


def test_show_json_is_the_same_for_programs(call: Call, tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).write_text("kill_grace_sec = 1.5")
    shown = json.loads(call("show", "--json"))
    assert shown["files"] == [str(tmp_path / CONFIG_NAME)]
    rows = {row["key"]: row for row in shown["keys"]}
    assert rows["kill_grace_sec"]["value"] == 1.5
    assert rows["kill_grace_sec"]["origin"].startswith("file ")


def test_values_of_an_agents_environment_are_never_shown(call: Call, tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).write_text(
        '[agents.codex.env]\nKEY = "sesame"\n[[workspaces]]\npath = '
        '"x"\nagents.claude.env.KEY = "sesame"'
    )
    for flag in ([], ["--json"]):
        text = call("show", *flag)
        assert "sesame" not in text
        assert text.count("***") == 2


def test_check_names_the_file_or_raises_every_error(call: Call, tmp_path: Path) -> None:
    assert "defaults only" in call("check")
    (tmp_path / CONFIG_NAME).write_text("mode = 'roles'")
    assert str(tmp_path / CONFIG_NAME) in call("check")
    (tmp_path / CONFIG_NAME).write_text("a = 1\nb = 1")
    with pytest.raises(UsageError, match="2 errors"):
        call("check")


def test_schema_is_json_and_the_example_is_the_example(call: Call) -> None:
    assert json.loads(call("schema"))["properties"]["max_iterations"]["default"] == 0
    assert call("show", "--example") == example_toml()


def test_schema_and_example_work_beside_a_broken_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).write_text("= broken")
    assert call("schema")
    assert call("show", "--example")


@pytest.mark.slow
def test_the_command_itself_exits_with_2_and_the_whole_report(command: Any) -> None:
    (command.workspace / CONFIG_NAME).write_text("max_iteration = 3\nkill_grace_sec = '1'")
    result = command("config", "check", CODEX_SELF_ITER_MODE="x")
    assert (result.returncode, result.stdout) == (2, "")
    assert "3 errors in the configuration:" in result.stderr
    assert (
        f"{CONFIG_NAME}:1: max_iteration: unknown key; did you mean max_iterations?"
        in result.stderr
    )
    assert "Traceback" not in result.stderr
    assert command("config", "show", "--example").stdout == example_toml()
