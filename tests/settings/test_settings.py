"""Configuration: precedence, provenance, what environment and flags may say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_self_iter.errors import UsageError
from codex_self_iter.settings import CONFIG_NAME, ConfigError, Settings, load
from codex_self_iter.settings.env_source import variable_name
from codex_self_iter.settings.example import toml_value


def read(
    tmp_path: Path,
    text: str | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    **variables: str,
) -> Settings:
    """Load `text` as the workspace's file, with nothing of the surroundings."""
    if text is not None:
        (tmp_path / CONFIG_NAME).write_text(text)
    environ = {f"CODEX_SELF_ITER_{name}": value for name, value in variables.items()}
    home = {"HOME": str(tmp_path / "home")}
    return load(flags or {}, config_file=None, environ=home | environ, cwd=str(tmp_path))


def test_without_any_source_every_value_is_the_default(tmp_path: Path) -> None:
    loaded = read(tmp_path)
    assert loaded == Settings()
    assert loaded.sources == ()
    assert {loaded.origin(*path) for path, _ in loaded.leaves()} == {"default"}


def test_constructing_settings_reads_nothing_from_the_surroundings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CODEX_SELF_ITER_MAX_ITERATIONS", "7")
    assert Settings().max_iterations == 0


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    text = "max_iterations = 1\nhistory_tail = 1\nkill_grace_sec = 1"
    loaded = read(
        tmp_path,
        text,
        flags={"max_iterations": 3},
        MAX_ITERATIONS="2",
        HISTORY_TAIL="2",
        MAX_STAGNATION="2",
    )
    assert (loaded.max_iterations, loaded.history_tail, loaded.kill_grace_sec) == (3, 2, 1)
    assert loaded.origin("max_iterations") == "flag --max-iterations"
    assert loaded.origin("history_tail") == "environment CODEX_SELF_ITER_HISTORY_TAIL"
    assert loaded.origin("kill_grace_sec") == f"file {tmp_path / CONFIG_NAME}:3"
    assert loaded.origin("backoff_base_sec") == "default"


def test_tables_of_several_sources_are_joined(tmp_path: Path) -> None:
    text = '[verify]\ncommands = ["a"]\nconfirmations = 1\n[agents.codex.env]\nA = "1"\nB = "1"'
    loaded = read(
        tmp_path,
        text,
        flags={"verify": {"confirmations": 2, "commands": None}},
        AGENTS__CODEX__ENV__B="2",
    )
    assert (loaded.verify.commands, loaded.verify.confirmations) == (("a",), 2)
    assert loaded.agents.codex.env == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("MAX_ITERATIONS", "10", ("max_iterations",), 10),
        ("KILL_GRACE_SEC", "0.5", ("kill_grace_sec",), 0.5),
        ("NO_CHANGE_GATE", "false", ("no_change_gate",), False),
        ("NO_CHANGE_GATE", "3", ("no_change_gate",), 3),
        ("VERIFY__COMMANDS", '["a b", "c"]', ("verify", "commands"), ("a b", "c")),
        ("VERIFY", '{"commands": ["x"]}', ("verify", "commands"), ("x",)),
        ("GIT__COMMIT", "true", ("git", "commit"), "supervisor"),
        ("GIT__CHECKPOINTS", "0", ("git", "checkpoints"), False),
        ("AGENT_MODE", "bypass", ("agent_mode",), "bypass"),
        ("AGENTS__PLAN_SHELL__ACCOUNT", "m", ("agents", "plan_shell", "account"), "m"),
        ("POOL__PER_AGENT__CODEX", "1", ("pool", "per_agent"), {"codex": 1}),
        ("COMPLETION_PROMISE", "", ("completion_promise",), ""),
        ("COMPLETION_PROMISE", "10", ("completion_promise",), "10"),
        ("TASK_FILE", "with space é.md", ("task_file",), Path("with space é.md")),
    ],
)
def test_a_variable_is_read_as_its_key_wants_it(
    tmp_path: Path, name: str, text: str, path: tuple[str, ...], value: object
) -> None:
    found: object = read(tmp_path, **{name: text})
    for part in path:
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value) or isinstance(found, Mapping)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("MAX_ITERATIONS", "ten", 'a whole number, 0 or more, not "ten" (a text)'),
        ("MAX_ITERATIONS", "", "a whole number, 0 or more"),
        ("MAX_ITERATIONS", "-1", "not -1 (a whole number)"),
        ("KILL_GRACE_SEC", "nan", "a number of seconds"),
        ("KILL_GRACE_SEC", "inf", "a number of seconds"),
        ("VERIFY__COMMANDS", "make test", "written as JSON"),
        ("VERIFY__COMMANDS", '"make test"', "must be a list of texts"),
        ("VERIFY__COMANDS", "[]", "did you mean CODEX_SELF_ITER_VERIFY__COMMANDS?"),
        ("MAX_ITERATION", "3", "did you mean CODEX_SELF_ITER_MAX_ITERATIONS?"),
        (
            "X",
            "3",
            "unknown variable; CODEX_SELF_ITER_ names are the keys of the configuration file",
        ),
        ("VERIFY__", "3", "unknown variable"),
        ("AGENT", "codxe", 'did you mean "codex"?'),
    ],
)
def test_a_bad_variable_is_named_with_what_is_allowed(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, **{name: text})
    assert f"environment CODEX_SELF_ITER_{name}:" in str(caught.value)
    assert says in str(caught.value)


def test_our_own_variables_are_no_keys_and_no_errors(tmp_path: Path) -> None:
    assert read(tmp_path, RUN_ID="x-1", REAL_AGENTS="1", REQUIRE_REAL_AGENTS="1") == Settings()


def test_a_bad_flag_is_named_as_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            {"max_iterations": -1, "verify": {"commands": [""]}},
            config_file=None,
            environ={"HOME": str(tmp_path)},
            cwd=str(tmp_path),
            options={"verify.commands": "--verify-command"},
        )
    assert (
        "flag --set max_iterations: max_iterations: must be a whole number, 0 or more, not -1"
        in str(caught.value)
    )
    assert "flag --verify-command: verify.commands[0]: must not be empty" in str(caught.value)


def test_the_file_is_looked_for_in_four_places_in_order(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("asked", "variable", "ws", "user")}
    (tmp_path / "ws").mkdir()
    user = tmp_path / "xdg/codex-self-iter/config.toml"
    user.parent.mkdir(parents=True)
    places |= {"ws": tmp_path / "ws" / CONFIG_NAME, "user": user}
    for number, path in enumerate(places.values(), 1):
        path.write_text(f"max_iterations = {number}")
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    found = [
        load({"workspace": "ws"}, config_file="asked", environ=environ, cwd=str(tmp_path)),
        load(
            {"workspace": "ws"},
            config_file=None,
            environ=environ | {"CODEX_SELF_ITER_CONFIG": "variable"},
            cwd=str(tmp_path),
        ),
        load({"workspace": "ws"}, config_file=None, environ=environ, cwd=str(tmp_path)),
        load({}, config_file=None, environ=environ, cwd=str(tmp_path)),
    ]
    assert [one.max_iterations for one in found] == [1, 2, 3, 4]
    assert [one.sources for one in found] == [(path,) for path in places.values()]


def test_a_frozen_value_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().max_iterations = 3
    with pytest.raises(TypeError):
        Settings(agents={"codex": {"env": {"A": "b"}}}).agents.codex.env["A"] = "c"  # type: ignore[index,arg-type]


@pytest.mark.parametrize(("gate", "number"), [(True, 1), (False, 0), (0, 0), (3, 3)])
def test_the_no_change_gate_is_a_number(gate: bool | int, number: int) -> None:
    assert int(Settings(no_change_gate=gate).no_change_gate) == number


@given(st.text().filter(lambda text: "\0" not in text))
@settings(max_examples=200)
def test_any_text_survives_the_way_through_toml(text: str) -> None:
    import tomllib

    assert tomllib.loads(f"a = {toml_value(text)}\n[b]\n{toml_value(text)} = 1") == {
        "a": text,
        "b": {text: 1},
    }


def test_every_key_has_a_description_and_a_variable_that_reaches_it(tmp_path: Path) -> None:
    from codex_self_iter.settings.keys import field_at

    plain = Settings()
    for path, value in plain.leaves():
        field = field_at(path)
        assert field is not None, path
        assert field.description, path
        import json

        text = value if isinstance(value, str) else json.dumps(value)
        environ = {"HOME": str(tmp_path), variable_name(path): text}
        loaded = load({}, config_file=None, environ=environ, cwd=str(tmp_path))
        assert loaded == plain, path
        assert loaded.origin(*path) == f"environment {variable_name(path)}"


def test_a_missing_current_directory_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load({}, config_file="gone.toml", environ=dict(os.environ), cwd=str(tmp_path))


@pytest.mark.parametrize(
    ("directory", "flaw"),
    [
        ("lanes", "must be absolute, or begin with ~"),
        ("../lanes", "must be absolute"),
        ("{ws}", "must be outside the workspace"),
        ("{ws}/lanes", "must be outside the workspace"),
        ("{ws}/../ws/x/..", "must be outside the workspace"),
        ("{ws}-lanes", ""),
        ("~/lanes", ""),
        ("", ""),
    ],
)
def test_work_trees_of_lanes_are_outside_the_workspace(
    tmp_path: Path, directory: str, flaw: str
) -> None:
    workspace = tmp_path / "ws"
    workspace.mkdir()
    flags = {"workspace": str(workspace), "lanes": {"directory": directory.format(ws=workspace)}}
    if not flaw:
        read(tmp_path, flags=flags)
        return
    with pytest.raises(UsageError, match=flaw) as caught:
        read(tmp_path, flags=flags)
    assert "lanes.directory" in str(caught.value)
