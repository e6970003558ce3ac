"""One program, many commands: which one runs, and how every error ends."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from codex_self_iter.cli import COMMANDS, build_parser, split_command
from codex_self_iter.cli._flags import FLAGS, collect
from codex_self_iter.cli.run import options
from codex_self_iter.errors import UsageError
from codex_self_iter.supervisor.options import RunOptions
from tests.support.program import PYTHON

HEAVY = {
    "anyio", "asyncio", "pydantic", "pydantic_settings", "psutil", "rich", "structlog", "typer", "watchfiles",
}  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], ("run", [])),
        (["--workspace", ".", "--once"], ("run", ["--workspace", ".", "--once"])),
        (["run", "--once"], ("run", ["--once"])),
        (["--once", "run"], ("run", ["--once", "run"])),
        (["status", "--json"], ("status", ["--json"])),
        (["--workspace", ".", "status", "--json"], ("status", ["--workspace", ".", "--json"])),
        (
            ["--workspace=status", "--config", "run", "stop"],
            ("stop", ["--workspace=status", "--config", "run"]),
        ),
        (["--workspace", "status"], ("run", ["--workspace", "status"])),
    ],
)
def test_the_command_is_found_wherever_common_options_stand(
    argv: list[str], expected: object
) -> None:
    assert split_command(argv) == expected


def test_a_misspelled_command_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'status'"):
        split_command(["statsu"])


def test_a_misspelled_option_names_the_nearest(command) -> None:
    done = command("run", "--max-iteratons", "3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("codex-self-iter: ")
    assert "did you mean --max-iterations" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words", [("run", "--nope"), ("status", "--nope"), ("nope",), ("run", "--x")]
)
def test_a_far_fetched_guess_is_none(command, words: tuple[str, ...]) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert "did you mean" not in done.stderr


def test_a_command_behind_options_of_run_is_said_to_go_first(command) -> None:
    done = command("--agent-command-template", "x {prompt_file}", "status")
    assert done.returncode == 2
    found = re.search(r"the command goes first: (.+) status \.\.\.", done.stderr)
    assert found, done.stderr
    (program,) = shlex.split(found[1])  # it can be typed, whatever is in its path
    assert program.endswith("codex-self-iter")


def test_it_is_called_by_its_name_where_a_link_on_path_leads_to_it(command, tmp_path) -> None:
    """As `pipx` and `uv tool` install it; another program of that name is not meant."""
    links = tmp_path / "links"
    links.mkdir()
    command.env["PATH"] = f"{links}{os.pathsep}{command.env['PATH']}"
    link, beside = (
        links / "codex-self-iter",
        os.path.join(os.path.dirname(PYTHON), "codex-self-iter"),
    )
    for target, by_name in ((beside, True), ("/bin/true", False)):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        said = command("--agent-command-template", "x {prompt_file}", "status").stderr
        assert ("the command goes first: codex-self-iter status" in said) is by_name, said


@pytest.mark.parametrize("name", ["run", "status", "stop", "pause", "resume", "steer", "goal"])
def test_every_command_explains_itself(command, name: str) -> None:
    done = command(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"codex-self-iter {name}" in done.stdout or "[run]" in done.stdout


def test_help_and_version_without_a_command(command) -> None:
    overview = command("--help")
    assert overview.returncode == 0
    assert all(name in overview.stdout for name in COMMANDS)
    assert command("--version").stdout.startswith("codex-self-iter 0.")


def parse(*words: str) -> tuple[RunOptions, dict[str, object]]:
    parser, _ = build_parser("run")
    args = parser.parse_args(words)
    return options(args), collect(args)


def test_flags_become_configuration_keys() -> None:
    _, values = parse(
        "--max-iterations",
        "3",
        "--verify-command",
        "pytest -q",
        "--verify-command",
        "ruff check",
        "--no-change-gate",
        "--verify-every-iteration=false",
        "--command-timeout-sec",
        "2.5",
        "--agent-command-template",
        "agent {prompt_file}",
        "--log-format",
        "json",
        "--set",
        "agents.codex.model=gpt-6",
        "--set",
        "pool.per_agent.codex=2",
        "--agents-order",
        "claude",
    )
    assert values == {
        "max_iterations": 3,
        "verify": {"commands": ["pytest -q", "ruff check"], "every_iteration": False},
        "no_change_gate": True,
        "command_timeout_sec": 2.5,
        "agent_command_template": "agent {prompt_file}",
        "log": {"format": "json"},
        "agents": {"codex": {"model": "gpt-6"}, "order": ["claude"]},
        "pool": {"per_agent": {"codex": 2}},
    }


@pytest.mark.parametrize(
    ("word", "value"),
    [("--no-change-gate=3", 3), ("--no-change-gate=off", False), ("--no-no-change-gate", False)],
)
def test_the_no_change_gate_takes_a_switch_or_a_number(word: str, value: object) -> None:
    assert parse(word)[1]["no_change_gate"] is value or parse(word)[1]["no_change_gate"] == value


def test_what_was_not_given_is_not_passed_on() -> None:
    """Else a flag's default would win over the configuration file."""
    assert parse()[1] == {}


def test_the_flag_table_has_each_key_and_option_once() -> None:
    assert len({flag.key for flag in FLAGS}) == len(FLAGS) == len({flag.option for flag in FLAGS})


def test_several_workspaces(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    chosen, _ = parse("--workspace", str(tmp_path), "--workspace", str(tmp_path / "a"), "--debug")
    assert chosen.workspaces == (str(tmp_path), str(tmp_path / "a"))
    assert (chosen.config, chosen.config_dir, chosen.clear_stop, chosen.debug) == (
        "",
        "",
        False,
        True,
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--max-iterations", "many"),
        ("--verify-every-iteration=perhaps",),
        ("--set", "nothing"),
        ("--workspace", "/does/not/exist"),
        ("--config", "/does/not/exist.toml"),
        ("--config-dir", "/does/not/exist"),
        ("--once", "--max-iterations", "5"),
    ],
)
def test_bad_flags_are_one_message_and_exit_2(command, words: tuple[str, ...]) -> None:
    done = command(*words)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("codex-self-iter: ")
    assert "Traceback" not in done.stderr


def test_reading_commands_import_nothing_heavy(command) -> None:
    """The budget of a start: `status` answers at once on a busy machine, too."""
    command.write_status()
    script = (
        "import sys, json, time; began = time.perf_counter()\n"
        "from codex_self_iter.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print(json.dumps([code, time.perf_counter() - began, sorted(sys.modules)]), file=sys.stderr)"
    )
    (command.state_dir / "logs" / "runs" / "000001-executor").mkdir(parents=True)
    (command.state_dir / "logs" / "iterations.jsonl").write_text(
        '{"iteration": 1}\n', encoding="utf-8"
    )
    reading = (
        ["status"],
        ["status", "--json"],
        ["history"],
        ["show", "1"],
        ["logs"],
        ["complete", "--", "st"],
        ["plan", "check"],
        ["plan", "show"],
        ["version"],
        ["version", "--json"],
    )
    for words in (*reading, ["stop"], ["resume"], ["steer", "x"], ["goal", "x"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=command.workspace,
            env=command.env,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        code, seconds, modules = json.loads(done.stderr)
        print(f"{' '.join(words)}: {seconds * 1000:.0f} ms after the interpreter's start")
        assert code == 0
        assert HEAVY.isdisjoint(modules)


def test_a_start_hardly_looks_for_waste() -> None:
    script = (
        "import gc, codex_self_iter.__main__; looks = []\n"
        "gc.callbacks.append(lambda phase, info: looks.append(phase))\n"
        "import codex_self_iter.supervisor.app, codex_self_iter.cli.run; print(len(looks))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=60
    )
    assert int(done.stdout) < 60  # 250 by default


@pytest.mark.parametrize(
    ("name", "ours"), [("status", {"_common", "_terminal", "status"}), ("version", {"version"})]
)
def test_what_only_says_something_imports_next_to_nothing(
    command, name: str, ours: set[str]
) -> None:
    """Each of these costs a start of `status` some per cent, and came in unnoticed once."""
    command.write_status()
    dear = {
        "bz2", "contextlib", "dataclasses", "hashlib", "lzma", "pathlib", "platform", "random",
        "shutil", "subprocess", "tempfile", "threading", "tomllib", "typing",
    }  # fmt: skip
    script = (
        "import sys, json, time; began = time.perf_counter()\n"
        "from codex_self_iter.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print(json.dumps([code, time.perf_counter() - began, sorted(sys.modules)]), file=sys.stderr)"
    )
    # -S: what a site's own .pth files import is not ours
    environment = command.env | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-S", "-c", script, name], cwd=command.workspace, env=environment,
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    code, seconds, modules = json.loads(done.stderr)
    print(f"{name}: {seconds * 1000:.0f} ms after the interpreter's start, {len(modules)} modules")
    assert code == 0
    assert dear.isdisjoint(modules)
    cli = "codex_self_iter.cli."
    assert {name.removeprefix(cli) for name in modules if name.startswith(cli)} == ours


def test_the_import_budget_would_notice(command) -> None:
    """Negative control: the same look at a process that did import something heavy."""
    script = "import json, sys, anyio; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert not HEAVY.isdisjoint(json.loads(done.stdout))


def test_a_reader_that_has_seen_enough_is_no_error(command) -> None:
    command.write_status(warnings=["x" * 5000] * 60)
    shell = (
        f"{' '.join(map(repr, command.argv('status', '--json')))} | true; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=command.workspace,
        env=command.env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_with_130(command) -> None:
    command.write_status()
    watch = subprocess.Popen(
        command.argv("status", "--watch"),
        cwd=command.workspace,
        env=command.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        assert watch.wait(timeout=10) == 130
        assert "Traceback" not in watch.stderr.read()


def test_an_unexpected_error_is_one_line_and_a_private_file(command, tmp_path) -> None:
    """A defect is provoked by a module of the same name that raises."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import codex_self_iter.cli.status as s\n"
        "def run(args): raise RuntimeError('a defect')\n"
        "s.run = run\n",
        encoding="utf-8",
    )
    done = command("status", PYTHONPATH=str(broken))
    assert done.returncode == 1
    assert "internal error: RuntimeError: a defect" in done.stderr
    assert "Traceback" not in done.stderr
    crash = tmp_path / "home" / ".local" / "state" / "codex-self-iter" / "crash.log"
    assert str(crash) in done.stderr
    assert "Traceback" in crash.read_text(encoding="utf-8")
    assert crash.stat().st_mode & 0o777 == 0o600
    assert "Traceback" in command("status", "--debug", PYTHONPATH=str(broken)).stderr


def test_every_configuration_key_of_a_loop_has_its_flag() -> None:
    """Seen from the settings, which the flags are made from."""
    from pydantic import BaseModel

    from codex_self_iter.settings import Settings

    def leaves(model: type[BaseModel], prefix: str = "") -> set[str]:
        found = set()
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= leaves(inner, f"{prefix}{name}.")
            else:
                found.add(prefix + name)
        return found

    own_options = {"workspace", "workspaces"}
    by_set = {"prices", "pool.per_agent", "notify.targets"}
    keys = {key for key in leaves(Settings) if key.count(".") < 2}
    assert {flag.key for flag in FLAGS} == keys - own_options - by_set


def test_a_start_loads_no_library_for_pictures_of_tracebacks(tmp_path) -> None:
    """structlog would, where it is there: a tenth of the start."""
    pytest.importorskip("rich")
    (tmp_path / "plan.md").write_text("- [ ] something\n")
    words = ("-X", "importtime", "-m", "codex_self_iter", "run", "--dry-run", "--workspace")
    template = ("--agent-command-template", "true {prompt_file}")
    done = subprocess.run(
        [PYTHON, *words, str(tmp_path), *template],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "structlog" in loaded
    assert not {name for name in loaded if name.startswith("rich.")}
