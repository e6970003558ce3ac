"""Every key of docs/configuration.md: default, place, flag, variable, what is taken and what is not.

All keys are in these tests because they are on the page; what a key does is tried elsewhere, by the
test that its row names in tables/docs.configuration.toml."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from typing import Any

import pytest

from tests.claims.configuration_page import ROWS, Row
from tests.claims.documents import load
from tests.support.harness import Workspace

PREFIX = "CODEX_SELF_ITER_"
PAIRS = {'"own {}"': itertools.count()}
"""Values that must differ from key to key."""


def text_of(value: str) -> str:
    """A TOML value that is made distinct where it must be."""
    return value.format(next(PAIRS[value])) if value in PAIRS else value


def set_all(ws: Workspace, values: dict[str, str]) -> dict[str, int]:
    """Write a configuration of one line a key; the number of each key's line."""
    lines = [f"{key} = {value}" for key, value in values.items()]
    (ws.path / "codex-self-iter.toml").write_text("\n".join(lines) + "\n")
    return {key: number for number, key in enumerate(values, 1)}


def chosen(row: Row, at: int = 0) -> str:
    """A good value; of keys that must go together, one that does."""
    fixed = {
        "backoff_base_sec": ["2", "3"],
        "backoff_max_sec": ["1000", "1001"],
        "agent": ['"codex"', '"claude"'],
        "agents.order": ['["codex"]', '["claude"]'],
        "agent_command_template": ['"mine {prompt_file}"', '"other {prompt_file}"'],
        "plan_file": ['"p.md"', '"p2.md"'],
        "task_file": ['"t.md"', '"t2.md"'],
    }
    if row.key.startswith("prompt."):
        return ['"plan.md"', '"codex-self-iter.toml"'][at % 2]
    tables = ["{ A = 'b' }", "{ C = 'd' }"] if row.key.endswith(".env") else []
    tables = ["{ codex = 1 }", "{ codex = 2 }"] if row.key.endswith("per_agent") else tables
    good = tables or fixed.get(row.key, row.good)
    if row.key.startswith("roles."):
        good = ['"codex"', '"claude"']
    return text_of(good[at % len(good)])


def shown(ws: Workspace, **variables: str) -> dict[str, dict[str, Any]]:
    """What `config show` says, by key."""
    ws.environment |= variables
    done = ws.cli("config", "show", "--json")
    assert done.returncode == 0, done.stderr
    return {row["key"]: row for row in json.loads(done.stdout)["keys"]}


def entry(found: dict[str, dict[str, Any]], key: str, value: str) -> dict[str, Any]:
    """What is shown of a key that was set to this value; an agent's environment is a secret."""
    plain = tomllib.loads(f"x = {value}")["x"]
    if isinstance(plain, dict) and plain:
        ((name, below),) = plain.items()
        key, plain = f"{key}.{name}", "***" if key.endswith(".env") else below
    if key != "git.commit" or isinstance(plain, str):
        assert found[key]["value"] == plain, key
    return found[key]


def as_variable(value: str) -> str:
    """A TOML value as it stands in a variable: JSON for lists and tables, else its text."""
    plain = tomllib.loads(f"x = {value}")["x"]
    return plain if isinstance(plain, str) else json.dumps(plain)


def test_every_default_is_the_one_on_the_page_and_every_key_is_there(ws: Workspace) -> None:
    (ws.path / "codex-self-iter.toml").unlink()
    found = shown(ws)
    given = {row.key: row.value for row in ROWS if row.key != "workspace"}
    for key, value in given.items():
        assert (key, found[key]["value"], found[key]["origin"]) == (key, value, "default")
    assert tomllib.loads('x = "."')["x"] == next(r.value for r in ROWS if r.key == "workspace")
    codex = {key.removeprefix("agents.codex.") for key in given if key.startswith("agents.codex.")}
    lists = {"workspace", "prices", "workspaces", "notify.targets", "notify.replies"}
    for key in found.keys() - given.keys() - lists:
        _, adapter, name = key.split(".", 2)
        assert name in codex, key
        assert found[key]["value"] == given[f"agents.codex.{name}"], key
        assert adapter != "codex"
    lacking = {
        adapter: codex
        - {key.split(".", 2)[2] for key in found if key.startswith(f"agents.{adapter}.")}
        for adapter in ("claude", "gemini", "opencode", "plan-shell", "command")
    }
    assert not lacking["claude"] | lacking["opencode"]
    assert lacking["gemini"] == {"effort"}
    fence = {key for key in codex if key.startswith("fence.")}
    assert codex - lacking["plan-shell"] == {"args", "env", "account", "pass_env"} | fence
    assert codex - lacking["command"] == {"args", "env", "account"} | fence


def test_the_file_sets_every_key(ws: Workspace) -> None:
    values = {row.key: chosen(row) for row in ROWS if row.key != "workspace"}
    lines, found = set_all(ws, values), shown(ws)
    for key, value in values.items():
        origin = entry(found, key, value)["origin"]
        assert origin.endswith(f"codex-self-iter.toml:{lines[key]}"), key


def test_the_variable_of_every_key_sets_it_and_beats_the_file(ws: Workspace) -> None:
    rows = [row for row in ROWS if row.key != "workspace"]
    set_all(ws, {row.key: chosen(row) for row in rows})
    values = {row: chosen(row, 1) for row in rows}
    found = shown(ws, **{row.variable: as_variable(value) for row, value in values.items()})
    for row, value in values.items():
        assert entry(found, row.key, value)["origin"] == f"environment {row.variable}"


def flags(row: Row, value: str) -> list[str]:
    """The words of a row's flag with this value."""
    plain = tomllib.loads(f"x = {value}")["x"]
    if row.flag.startswith("--set "):
        return ["--set", f"{row.flag.removeprefix('--set ').removesuffix('…')}{value}"]
    values = plain if isinstance(plain, list) else [plain]
    return [f"{row.flag}={part if isinstance(part, str) else json.dumps(part)}" for part in values]


def test_the_flag_of_every_key_beats_variable_and_file(ws: Workspace) -> None:
    rows = [row for row in ROWS if row.key != "workspace"]
    # A flag for an empty list does not exist, and what is started must be possible.
    mine = {row: chosen(row) for row in rows}
    keep = {
        "state_dir": '".codex-self-iter"', "plan_file": '"plan.md"', "stop_file_name": '"STOP"',
        "task_file": '"t.md"', "global_stop_file_name": '"STOP2"',
        "agent_command_template": f'"{"/bin/true"} {{prompt_file}}"', "agent": '"command"',
        "agents.order": '["command"]', "mode": '"goal"', "lock_file_name": '"lock"', "lanes.max": "1",
        "metrics_file": json.dumps(f"{ws.root}/{{name}}.prom"),
    }  # fmt: skip
    mine |= {row: keep[row.key] for row in rows if row.key in keep}
    mine |= {row: '"command"' for row in rows if row.key.startswith("roles.")}
    bad = {row.key: row.wrong[0] for row in rows}
    set_all(ws, bad)
    refused = ws.run()
    assert refused == 2
    ws.state.mkdir()
    (ws.path / "t.md").write_text("the task")
    (ws.state / "STOP").touch()
    words = [word for row, value in mine.items() for word in flags(row, value)]
    # what is no JSON at all cannot be read, whatever beats it
    variables = {
        row.variable: as_variable(row.wrong[0])
        for row in rows
        if not row.allowed.startswith(("a text", "true", "a list", "a table"))
    }
    lists = [row for row in rows if row.allowed.startswith("a list")]
    variables |= {row.variable: "[1]" for row in lists}
    assert ws.run(*words, environment=variables) == 0, ws.log()[-3000:]
    assert ws.started() == 0


def test_a_flag_with_a_wrong_value_is_named_with_its_key(ws: Workspace) -> None:
    numbers = [row for row in ROWS if not row.flag.startswith("--set") and "number" in row.allowed]
    numbers = [row for row in numbers if not row.allowed.startswith("a text")]
    words = [f"{row.flag}=-1" for row in numbers]
    others = [row for row in ROWS if row.allowed.startswith("one of")]
    others = [row for row in others if not row.flag.startswith("--set")]
    words += [f"{row.flag}=nonsense" for row in others]
    lists = [row for row in ROWS if "list of" in row.allowed and "not empty" in row.allowed]
    lists = [row for row in lists if not row.flag.startswith("--set")]
    words += [f"{row.flag}=" for row in lists]
    assert ws.run(*words) == 2
    for row in (*numbers, *others, *lists):
        assert f"flag {row.flag}: {row.key}" in ws.log(), row.key
    sets = [row for row in ROWS if row.flag.startswith("--set")]
    sets = [row for row in sets if not row.allowed.startswith("a text")]
    wrong = {
        row: "-1" if "number" in row.allowed or "true" in row.allowed else row.wrong[0]
        for row in sets
    }
    assert ws.run(*[w for row in sets for w in ("--set", f"{row.key}={wrong[row]}")]) == 2
    for row in sets:
        assert f"flag --set {row.key}: {row.key}" in ws.log(), row.key


@pytest.mark.slow
@pytest.mark.parametrize("row", [r for r in ROWS if r.allowed == "true or false"], ids=str)
def test_a_switch_stands_alone_or_is_turned_round(ws: Workspace, row: Row) -> None:
    (ws.state).mkdir()
    (ws.state / "STOP").touch()
    if row.flag.startswith("--set"):
        return
    for word in (row.flag, row.flag.replace("--", "--no-", 1), f"{row.flag}=true"):
        assert ws.run(word) == 0
    assert ws.run(f"{row.flag}=perhaps") == 2
    assert f"{row.flag}: expected true or false" in ws.log()


@pytest.mark.parametrize("at", range(max(len(row.wrong) for row in ROWS)))
def test_a_wrong_value_is_named_with_file_line_and_key(ws: Workspace, at: int) -> None:
    wrong = {
        row.key: row.wrong[at] for row in ROWS if at < len(row.wrong) and row.key != "workspace"
    }
    lines = set_all(ws, wrong)
    done = ws.cli("config", "check")
    assert (done.returncode, done.stdout) == (2, "")
    for key, line in lines.items():
        told = re.search(rf"codex-self-iter\.toml:{line}: {re.escape(key)}[\[:. ]", done.stderr)
        assert told, (key, wrong[key], done.stderr)
    assert done.stderr.count("codex-self-iter.toml:") >= len(lines)


@pytest.mark.parametrize("at", range(1, max(len(row.good) for row in ROWS)))
def test_every_value_that_the_page_allows_is_taken(ws: Workspace, at: int) -> None:
    held = ("agent", "agents.order", "plan_file", "task_file", "workspace", "backoff_max_sec")
    rows = [row for row in ROWS if row.key not in held and at < len(row.good)]
    set_all(ws, {"agents.acp.command": '["x"]'} | {row.key: text_of(row.good[at]) for row in rows} | {"backoff_max_sec": "1e9"} | {
        "agent_command_template": '"mine {prompt_file}"'})  # fmt: skip
    done = ws.cli("config", "check")
    assert done.returncode == 0, done.stderr


def test_a_wrong_variable_is_named_with_its_key(ws: Workspace) -> None:
    rows = [row for row in ROWS if not row.allowed.startswith("a text")]
    ws.environment |= {row.variable: "-1" if "number" in row.allowed else "\t" for row in rows}
    ws.environment |= {f"{PREFIX}MAX_ITERATION": "3"}
    done = ws.cli("config", "check")
    assert done.returncode == 2
    for row in rows:
        if row.key != "workspace" and "plain file name" not in row.allowed:
            assert f"environment {row.variable}: {row.key}" in done.stderr, row.key
    assert f"MAX_ITERATION: unknown variable; did you mean {PREFIX}MAX_ITERATIONS?" in done.stderr


def test_an_unknown_key_is_an_error_with_the_nearest_known_one(ws: Workspace) -> None:
    spelt = [row for row in ROWS if row.key.count(".") < 2]
    wrong = {f"{row.key}z": row for row in spelt}
    lines = set_all(ws, dict.fromkeys(wrong, "1"))
    done = ws.cli("config", "check")
    assert done.returncode == 2
    for key, row in wrong.items():
        said = f":{lines[key]}: {key}: unknown key; did you mean {row.key}?"
        assert said in done.stderr, key


GENERIC = {"claims/test_keys.py", "program/test_zeros.py", "claims/test_reload_keys.py"}


def test_every_key_has_a_test_of_what_it_does() -> None:
    table = load("docs/configuration.md")
    for row in ROWS:
        name = row.key.rpartition(".")[2]
        lines = [v for k, v in table.items() if k[5:].startswith(f"`{name}` | {row.meaning[:20]}")]
        assert lines, row.key
        own = [test for tests in lines for test in tests if test.partition("::")[0] not in GENERIC]
        assert any("::" in test for test in own), row.key


CONTRADICTIONS = (
    {
        "backoff_max_sec = 1": "backoff_max_sec: must be at least backoff_base_sec (5), not 1",
        'plan_file = "TASK.md"': "plan_file: must differ from task_file",
        'stop_file_name = "loop.lock"': "stop_file_name: lock_file_name must differ from stop_file",
        'global_stop_file_name = "TASK.md"': "global_stop_file_name: must differ from plan_file",
        'agent = "command"': 'agent: names the adapter "command", which needs agent_command',
        'roles.reviewer = "command"': 'roles.reviewer: names the adapter "command", which needs',
    },
    {
        "backoff_base_sec = 1000": "backoff_base_sec: backoff_max_sec must be at least backoff",
        'stop_file_name = "PAUSE"': "stop_file_name: 'PAUSE' is a file of the state directory",
    },
)


@pytest.mark.parametrize("said", CONTRADICTIONS, ids=["six", "two"])
def test_keys_that_contradict_each_other_are_errors(ws: Workspace, said: dict[str, str]) -> None:
    (ws.path / "codex-self-iter.toml").write_text("\n".join(said) + "\n")
    done = ws.cli("config", "check")
    assert done.returncode == 2
    for line, text in enumerate(said.values(), 1):
        assert f"codex-self-iter.toml:{line}: {text}" in done.stderr
