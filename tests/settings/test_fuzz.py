"""Whatever stands in the file, the environment or the flags: settings, or one report; never
anything else."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_self_iter.settings import ConfigError, Settings, load
from codex_self_iter.settings.env_source import variable_name
from codex_self_iter.settings.example import toml_value

PATHS = [path for path, _ in Settings().leaves()]
NAMES = sorted(
    {str(part) for path in PATHS for part in path} | {"prices", "workspaces", "path", "name", "x"}
)
scalars = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
    | st.sampled_from(
        ["codex", "command", "STOP", "goal", "{prompt_file}", "../x", "", "2026-01-01"]
    )
)
values = st.recursive(
    scalars,
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(NAMES), below, max_size=4)
    ),
    max_leaves=8,
)
files = st.dictionaries(st.sampled_from(NAMES), values, max_size=8)


def attempt(text: str, flags: dict[str, Any], environ: dict[str, str]) -> Settings | ConfigError:
    """The settings or the report."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "c.toml").write_text(text, encoding="utf-8", newline="")
        try:
            return load(flags, config_file="c.toml", environ=environ, cwd=directory)
        except ConfigError as error:
            return error


def outcome(text: str, flags: dict[str, Any], environ: dict[str, str]) -> None:
    """Load, and use what was loaded; a report names at least one error, in our words."""
    loaded = attempt(text, flags, environ)
    if isinstance(loaded, ConfigError):
        assert loaded.problems
        assert "Value error" not in str(loaded)
        assert "Input should" not in str(loaded)
        return
    assert len(loaded.loops()) == max(1, len(loaded.workspaces))
    assert all(loop.name for loop in loaded.loops())
    assert all(loaded.origin(*path) for path, _ in loaded.leaves())


@pytest.mark.slow
@given(files)
@settings(max_examples=250, deadline=None)
def test_any_file_gives_settings_or_one_report(values: dict[str, Any]) -> None:
    outcome(
        "\n".join(f"{toml_value(key)} = {toml_value(value)}" for key, value in values.items()),
        {},
        {},
    )


@given(st.lists(values, max_size=3))
@settings(max_examples=100, deadline=None)
def test_any_entries_give_settings_or_one_report(entries: list[Any]) -> None:
    tables = [entry if isinstance(entry, dict) else {"path": entry} for entry in entries]
    outcome(
        f"workspaces = {toml_value([{'path': f'w{n}', **t} for n, t in enumerate(tables)])}", {}, {}
    )


@pytest.mark.slow
@given(
    st.dictionaries(st.sampled_from(PATHS), st.text(max_size=6) | scalars.map(str), max_size=4),
    files,
)
@settings(max_examples=150, deadline=None)
def test_any_variables_and_flags_give_settings_or_one_report(
    variables: dict[tuple[str, ...], str], flags: dict[str, Any]
) -> None:
    flags.pop("workspace", None)
    outcome("", flags, {variable_name(path): text for path, text in variables.items()})
