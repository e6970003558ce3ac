"""Errors of a configuration file: all at once, each with line, key, what is allowed and the nearest
key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codex_self_iter.settings import ConfigError, load


def errors(tmp_path: Path, text: str | bytes) -> list[str]:
    """The lines of the report for a file with this content, without the file's name."""
    path = tmp_path / "c.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load({}, config_file=str(path), environ={}, cwd=str(tmp_path))
    assert caught.value.exit_code == 2
    head, *lines = str(caught.value).splitlines()
    assert head.startswith(f"{len(lines)} error")
    return [line.strip().replace(f"{path}:", "") for line in lines]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_iteration = 3", "1: max_iteration: unknown key; did you mean max_iterations?"),
        ('\n\ncommands = ["x"]', "3: commands: unknown key; commands belongs in [verify]"),
        ("[verify]\nmax_iterations = 3", "belongs at the top level, above the first [table]"),
        (
            "[verify]\ntimeout_secs = 3",
            "2: verify.timeout_secs: unknown key; did you mean verify.timeout_sec?",
        ),
        ("[verify]\ncommand = []", "2: verify.command: unknown key; did you mean verify.commands?"),
        ("[verfy]\ncommands = []", "1: verfy: unknown key; did you mean verify?"),
        ("[agents.codx]", "1: agents.codx: unknown key; did you mean agents.codex?"),
        (
            'max_iterations = "10"',
            '1: max_iterations: must be a whole number, 0 or more, not "10" (a text)',
        ),
        ("max_iterations = true", "not true (true or false)"),
        ("max_iterations = 1.0", "not 1.0 (a number)"),
        ("max_iterations = -1", "not -1 (a whole number)"),
        ("kill_grace_sec = true", "1: kill_grace_sec: must be a number of seconds"),
        ("kill_grace_sec = nan", "1: kill_grace_sec: must be a number of seconds"),
        ("kill_grace_sec = inf", "1: kill_grace_sec: must be a number of seconds"),
        ("kill_grace_sec = -0.5", "1: kill_grace_sec: must be a number of seconds"),
        ("kill_grace_sec = 1e300", "1: kill_grace_sec: must be a number of seconds"),
        ("no_change_gate = -1", "1: no_change_gate: must be true, false or a whole number"),
        ("no_change_gate = 1.5", "1: no_change_gate: must be true, false or a whole number"),
        (
            "verify = 3",
            "1: verify: must be a table, not 3 (a whole number); write [verify], and below it its keys",
        ),
        ('[verify]\ncommands = "x"', "2: verify.commands: must be a list of texts"),
        ('[verify]\ncommands = [\n "a",\n " ",\n]', "2: verify.commands[1]: must not be empty"),
        (
            '[verify]\ncommands = [1, "a"]',
            "verify.commands[0]: must not be 1 (a whole number); allowed: a list of texts",
        ),
        ("[git]\nno_verify = 1", "2: git.no_verify: must be true or false, not 1"),
        ('[git]\ncommit = "supervisors"', 'did you mean "supervisor"?'),
        ('stop_file_name = "../x"', "1: stop_file_name: must be the plain name of a file"),
        ('stop_file_name = ""', "1: stop_file_name: must be the plain name of a file"),
        ('stop_file_name = "PAUSE"', "file of the state directory with its own meaning"),
        ('lock_file_name = "a/b"', "1: lock_file_name: must be the plain name of a file"),
        ('stop_file_name = "loop.lock"', "lock_file_name must differ from stop_file_name"),
        (
            'stop_file_name = "X"\nglobal_stop_file_name = "X"',
            "2: global_stop_file_name: must differ",
        ),
        ("backoff_max_sec = 1", "1: backoff_max_sec: must be at least backoff_base_sec (5), not 1"),
        ("backoff_base_sec = 1000", "1: backoff_base_sec: backoff_max_sec must be at least"),
        ('plan_file = "TASK.md"', "1: plan_file: must differ from task_file"),
        ('agent = "codxe"', 'did you mean "codex"?'),
        ('agent = "mine"', "1: agent: must be one of"),
        ('agent = "command"', '"command", which needs agent_command_template'),
        ('[agents]\norder = ["codex", "command"]', "2: agents.order: names the adapter"),
        (
            '[agents]\norder = ["foo"]',
            '2: agents.order[0]: must not be "foo" (a text); allowed: a list of adapter names',
        ),
        ('[roles]\nplanner = "foo"', "2: roles.planner: must be one of"),
        ('agent_command_template = "run"', "must contain {prompt_file}"),
        ('agent_command_template = "run {prompt_file} {x}"', "unknown field {x}"),
        ('agent_command_template = "run < {prompt_file}"', "write: sh -c 'exec run < "),
        ('agent_command_template = "run \'{prompt_file}"', "quote is never closed"),
        ('workspace = ""', "1: workspace: must be a path"),
        ('state_dir = "a\\u0000b"', "1: state_dir: must not contain a NUL"),
        ("[pool]\nmax_agents = 0", "2: pool.max_agents: must be a whole number, 1 or more"),
        (
            "\n\n[workspaces]\npath = 'x'",
            '3: workspaces: must be a list of tables, not {"path": "x"} (a table); write [[workspaces]]',
        ),
        ("\n[[verify]]\ncommands = []", "2: verify: must be a table, not [{"),
        (
            "\n[notify.replies]\nurl = 'ntfy://h/t'",
            '2: notify.replies: must be a list of tables, not {"url": "ntfy://h/t"} (a table); write [[notify.replies]]',
        ),
        (
            "[notify]\ntargets = ['json://h']",
            '2: notify.targets[0]: must be a table, not "json://h" (a text); write [[notify.targets]]',
        ),
        (
            "[[notify.replies]]\nurl = 'tgram://${T}'\nallow = [42]",
            (
                "allow[0]: must not be 42 (a whole number); allowed: a list of one or more texts that are not empty, "
                'each once, such as ["a", "b"]; a text stands in quotes: "42"'
            ),
        ),
        ("\n\n[workspaces]\npath = 'x'", "3: workspaces: must be a list of tables, not"),
        ("\n[[verify]]\ncommands = []", "2: verify: must be a table, not"),
        (f"max_iterations = {10**26}", "(a whole number); the largest is 9007199254740992"),
        ("[pool.per_agent]\nfoo = 1", "1 or more (codex, claude, gemini, opencode, copilot, "),
        ("[pool.per_agent]\ncodx = 1", 'did you mean "codex"?'),
        (
            "[pool.per_agent]\nfoo = 1",
            '2: pool.per_agent.foo: must not be "foo" (a text); allowed: a table of adapter',
        ),
        ("[budget]\nnotice_at = 1.5", "2: budget.notice_at: must be a number from 0 to 1"),
        ("[prices.x]\ninput_per_mtok = 1", "1: prices.x.output_per_mtok: is required"),
        (
            '[prices.x]\ninput_per_mtok = 1\noutput_per_mtok = 1\nas_of = "soon"',
            "4: prices.x.as_of: must be a date",
        ),
        (
            '[notify]\nevents = ["done"]',
            '2: notify.events[0]: must not be "done" (a text); allowed: a list of: agent_stopped,',
        ),
        ('[notify]\nevents = ["running"]', '2: notify.events[0]: must not be "running"'),
        ('[agents]\norder = ["codex", "codex"]', "2: agents.order: has 'codex' twice"),
        (
            '[agents.command]\nmodel = "m"',
            "2: agents.command.model: unknown key; the command adapter has no use for it; known here",
        ),
        ('[agents.plan-shell]\nbinary = "b"', "2: agents.plan-shell.binary: unknown key; the plan"),
        ('[agents.gemini]\neffort = "low"', "2: agents.gemini.effort: unknown key; the gemini ad"),
        ('[log]\nlevel = "loud"', "2: log.level: must be one of"),
        (
            "[agents.codex.env]\nA = 1",
            "2: agents.codex.env.A: must not be ***; allowed: a table of texts",
        ),
        ("a = 1\na = 2", "2: the configuration file is not TOML: Cannot overwrite a value"),
        ("a = ", "1: the configuration file is not TOML"),
        ('a = "', "1: the configuration file is not TOML"),
        (b"\xef\xbb\xbfa = 1", "1: the configuration file begins with a byte-order mark"),
        (b"# x\n# \xff", "2: the configuration file is not UTF-8 (byte 0xff)"),
        ("m = 1\0", "1: the configuration file is not TOML"),
        ("a = " + "[" * 5000, "the configuration file is"),
    ],
)
def test_an_error_says_where_and_what(tmp_path: Path, text: str | bytes, says: str) -> None:
    found = errors(tmp_path, text)
    assert len(found) == 1, found
    assert says in found[0]


def test_all_errors_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = 'x = 1\nmode = "m"\n[verify]\ncommands = 3\n[prices.p]\nfoo = 1\n[zzz]\nb = 1\n'
    found = errors(tmp_path, text + "[output]\nkeep_runs = -3")
    assert [line.split(":")[0] for line in found] == ["1", "2", "4", "5", "5", "6", "7", "10"]


def test_several_wrong_items_of_one_list_are_each_reported(tmp_path: Path) -> None:
    found = errors(tmp_path, '[verify]\ncommands = ["", "a", " ", 3]')
    assert [line.split(": ")[1] for line in found] == [f"verify.commands[{at}]" for at in (0, 2, 3)]


def test_errors_of_every_source_are_in_one_report(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("x = 1")
    with pytest.raises(ConfigError) as caught:
        load(
            {"history_tail": "y"},
            config_file="c.toml",
            environ={"CODEX_SELF_ITER_MODE": "z"},
            cwd=str(tmp_path),
        )
    report = str(caught.value)
    assert report.startswith("3 errors in the configuration:")
    assert all(name in report for name in ("c.toml:1", "CODEX_SELF_ITER_MODE", "--history-tail"))


def test_a_value_of_an_agents_environment_is_never_shown(tmp_path: Path) -> None:
    found = errors(
        tmp_path, "[agents.codex.env]\nKEY = 12345678\n[agents.claude]\nenv = { KEY = [87654321] }"
    )
    assert len(found) == 2
    assert not any("12345678" in line or "87654321" in line for line in found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("notes = 3", "1: notes: must be a table, not 3 (a whole number); write [notes], and below it"),
        ("notes = 3", "its keys (max_count, max_bytes)"),
        ('[[git]]\ncommit = "agent"', "(a list); write [git], and below it its keys"),
        ('[prompt]\nexecutor = "x.md"', "write [prompt.executor], and below it its keys (before, "),
        ('[agents]\ncodex = "gpt"', "write [agents.codex], and below it its keys (args, "),
        ('workspaces = ["a"]', '1: workspaces[0]: must be a table, not "a" (a text); write [[workspaces]]'),
        ('[workspaces]\na = 1', 'must be a list of tables, not {"a": 1} (a table); write [[workspaces]]'),
        ('[notify.targets]\nurl = "x"', "a list of tables, not"),
        ('[notify]\ntargets = ["x"]', 'not "x" (a text); write [[notify.targets]]'),
        ('[[workspaces]]\npath = "."\nverify = 3', "3: workspaces[0].verify: must be a table, not 3"),
        ('[[workspaces]]\npath = "."\nverify = 3', "; write [workspaces.verify], and below it"),
        ("prices = 3", "must be a table, not 3 (a whole number); write [prices.NAME]"),
        ("[prices]\nx = 3", "write [prices.x], and below it its keys"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_told_how_one_is_written(tmp_path: Path, text: str, says: str) -> None:
    (found,) = errors(tmp_path, text)
    assert says in found


@pytest.mark.parametrize(
    "text",
    [
        'a."b c" = 1',
        "[t]\n\n  k = 1 # c\n",
        '[[w]]\nx = """\ny = 1\n"""\nk = 1\n[w.t]\nq = 1\n[[w]]\nk = 2',
        "l = [\n1, # ]\n2,\n]\nk = { x = 1, y = [ { z = 2 } ] }\r\nq = 1",
        "m = '''\n[no]\n'''\n[a.b.'c.d']\ne = 1979-05-27",
        "# only a comment",
    ],
)
def test_every_key_of_a_file_has_its_line(tmp_path: Path, text: str) -> None:
    from codex_self_iter.settings.tomlfile import read_toml

    (tmp_path / "t.toml").write_bytes(text.encode())
    file = read_toml(tmp_path / "t.toml")
    for path, line in file.lines.items():
        name = next(part for part in reversed(path) if isinstance(part, str))
        assert name in text.split("\n")[line - 1], (path, line)

    def leaves(path: tuple[str | int, ...], value: object) -> list[tuple[str | int, ...]]:
        pairs = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value)
            if isinstance(value, list)
            else []
        )
        return [leaf for key, below in pairs for leaf in leaves((*path, key), below)] or [path]

    assert all(leaf in file.lines for leaf in leaves((), file.values) if leaf)


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name, says in (
        ("none", "does not exist; name an existing file with --config"),
        (".", "is a directory"),
        ("fifo", "is not a plain file"),
        ("loop", "cannot be read (Too many levels of symbolic links)"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(ConfigError) as caught:
            load({}, config_file=name, environ={}, cwd=str(tmp_path))
        assert says in str(caught.value)
