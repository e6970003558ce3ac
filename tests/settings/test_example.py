"""config.example.toml: every key, exactly the defaults, and examples that load."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from codex_self_iter.settings import AGENT_NAMES, Settings, load
from codex_self_iter.settings.example import example_toml, json_schema

COMMITTED = Path(__file__).parents[2] / "config.example.toml"


def uncommented(text: str) -> str:
    """The example with its commented tables in use."""
    return re.sub(r"^#(?=[^ #\n])", "", text, flags=re.MULTILINE)


def loaded(tmp_path: Path, text: str) -> Settings:
    """Load a text as a configuration file."""
    (tmp_path / "c.toml").write_text(text)
    return load({}, config_file="c.toml", environ={}, cwd=str(tmp_path))


def test_the_committed_example_is_the_one_that_the_schema_makes() -> None:
    assert COMMITTED.read_text() == example_toml(), (
        "codex-self-iter config show --example > config.example.toml"
    )


def test_the_example_loads_to_exactly_the_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path, example_toml()) == Settings()


def test_negative_control_a_changed_example_does_not(tmp_path: Path) -> None:
    changed = example_toml().replace("kill_grace_sec = 10", "kill_grace_sec = 11")
    assert loaded(tmp_path, changed) != Settings()


def test_every_key_stands_in_the_example_with_a_comment_above_it() -> None:
    text = uncommented(example_toml())
    values = tomllib.loads(text)
    for path, _ in Settings().leaves():
        found: object = values
        if path[0] == "agents" and path[1] != "order" and path[2:] != ("command",):
            path = ("agents", "codex", *path[2:])
        for part in path:
            assert isinstance(found, dict)
            assert part in found, path
            found = found[part]
    lines = example_toml().split("# Prices")[0].splitlines()
    for number, line in enumerate(lines):
        if " = " in line and not line.startswith("# "):
            assert lines[number - 1].startswith("# "), line


def test_the_commented_tables_load_too(tmp_path: Path) -> None:
    settings = loaded(tmp_path, uncommented(example_toml()))
    assert settings.agents == Settings().agents
    assert all(settings.agents.get(name) is not None for name in AGENT_NAMES)
    assert len(settings.prices) == 1
    first, second = settings.loops()
    assert (first.name, first.max_iterations, first.verify.commands) == (
        "first",
        50,
        ("make test",),
    )
    assert (second.name, second.max_iterations) == ("second-repository", 0)


def test_the_json_schema_describes_every_top_level_key() -> None:
    properties = json_schema()["properties"]
    assert set(properties) == {path[0] for path, _ in Settings().leaves()}
    assert json_schema()["additionalProperties"] is False
    assert {"type": "boolean"} in json_schema()["$defs"]["GitSettings"]["properties"]["commit"][
        "anyOf"
    ]
