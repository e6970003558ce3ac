"""The scripts of the README, as a newcomer calls them: from anywhere, through links, with strange
paths."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from codex_self_iter.cli import COMMANDS, HIDDEN

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
NEEDED = (
    "sh",
    "basename",
    "cat",
    "cksum",
    "dirname",
    "env",
    "find",
    "mkdir",
    "readlink",
    "rm",
    "sed",
    "sleep",
    "tail",
)


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A directory for PATH that has the usual small tools, and neither Python nor uv."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found, name
        (directory / name).symlink_to(found)
    return directory


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what the scripts need, at a path with everything that quoting can get wrong."""
    target = tmp_path / "a clone, it's [new] $HOME é"
    leave_out = shutil.ignore_patterns("__pycache__")
    for name in ("src", "scripts", "share"):
        shutil.copytree(ROOT / name, target / name, ignore=leave_out)
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


def call(
    script: Path, *arguments: str, path: Path | str, **variables: str
) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(path), "HOME": str(script.parent), "LC_ALL": "C", **variables}
    return subprocess.run(
        [str(script), *arguments],
        env=env,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.parametrize("shell", [["sh"], ["bash", "--posix"]], ids=lambda argv: argv[0])
def test_every_script_parses(script: Path, shell: list[str]) -> None:
    if shutil.which(shell[0]) and "bash" not in script.read_text().partition("\n")[0]:
        subprocess.run([*shell, "-n", str(script)], check=True)


@pytest.mark.parametrize(
    "name", ["scripts/run-local.sh", "scripts/test.sh", "scripts/capture-session.sh", ".ci/run"]
)
def test_what_is_called_can_be_executed(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)


def test_help_needs_nothing(clone: Path, bare_path: Path) -> None:
    done = call(clone / "scripts" / "run-local.sh", "--help", path=bare_path)
    assert done.returncode == 0
    assert "WORKSPACE" in done.stdout
    assert not (clone / ".venv").exists()


def test_no_python_is_one_clear_message(clone: Path, bare_path: Path) -> None:
    done = call(clone / "scripts" / "run-local.sh", path=bare_path)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "no Python 3.11 or newer" in done.stderr
    assert not (clone / ".venv" / "codex-self-iter.lock").exists()


def test_an_old_python_is_none(clone: Path, bare_path: Path) -> None:
    executable(bare_path / "python3", "#!/bin/sh\nexit 1\n")
    assert "no Python 3.11 or newer" in call(clone / "scripts" / "test.sh", path=bare_path).stderr


def test_debians_missing_venv_package_is_named(clone: Path, bare_path: Path) -> None:
    fake = f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec "{sys.executable}" "$@"\n'
    executable(bare_path / "python3", fake)
    done = call(clone / "scripts" / "run-local.sh", path=bare_path)
    assert done.returncode == 2
    assert "apt-get install python3-venv" in done.stderr


def uv(bin_directory: Path, *, works: bool = True) -> Path:
    """A stand-in for uv that makes an environment without any index: it borrows this one's
    packages."""
    site = next(path for path in sys.path if path.endswith("site-packages"))
    text = f"""#!/bin/sh
echo "$*" >>"$HOME/uv-calls"
for last; do :; done
case "$1" in
    venv) {"exit 2" if not works else ""}
        "{sys.executable}" -m venv --without-pip "$last"
        echo "{site}" >"$(echo "$last"/lib/python*/site-packages)/borrowed.pth" ;;
    pip) echo "$PWD/src" >"$(echo .venv/lib/python*/site-packages)/ours.pth" ;;
esac
"""
    return executable(bin_directory / "uv", text)


def uv_calls(script: Path) -> list[str]:
    return (script.parent / "uv-calls").read_text().splitlines()


def test_uv_is_used_and_a_fitting_environment_is_kept(clone: Path, bare_path: Path) -> None:
    uv(bare_path)
    script = clone / "scripts" / "test.sh"
    first = call(script, "--version", path=bare_path)
    assert first.returncode == 0, first.stderr
    assert "Preparing" in first.stderr
    assert [line.split()[0] for line in uv_calls(script)] == ["venv", "pip"]
    assert uv_calls(script)[1].endswith("-e .[test]")

    second = call(script, "--version", path=bare_path)
    assert (second.returncode, len(uv_calls(script))) == (0, 2)
    assert "Preparing" not in second.stderr

    with open(clone / "pyproject.toml", "a") as file:
        file.write("# changed\n")
    assert call(script, "--version", path=bare_path).returncode == 0
    assert [line.split()[0] for line in uv_calls(script)] == ["venv", "pip", "pip"]
    assert not (clone / ".venv" / "codex-self-iter.lock").exists()


@pytest.mark.parametrize(
    ("words", "asked"),
    [((), "-m not slow"), (("--all", "-x"), "-x"), (("-k", "plan"), "-k plan")],
    ids=["quick", "all", "chosen"],
)
def test_without_arguments_the_slow_ones_are_left_out(
    clone: Path, bare_path: Path, words: tuple[str, ...], asked: str
) -> None:
    uv(bare_path)
    (clone / "conftest.py").write_text("raise SystemExit(print(*__import__('sys').argv[1:]))\n")
    done = call(clone / "scripts" / "test.sh", *words, path=bare_path)
    assert done.stdout.strip() == f"-n 4 --dist worksteal {asked}", done.stderr


def test_what_the_tests_start_has_byte_code(clone: Path, bare_path: Path) -> None:
    uv(bare_path)
    (clone / "conftest.py").write_text(
        "raise SystemExit(print(__import__('sys').dont_write_bytecode))"
    )
    script = clone / "scripts" / "test.sh"
    done = call(script, path=bare_path, PYTHONDONTWRITEBYTECODE="1")
    assert done.stdout.strip() == "False", done.stderr


def test_a_moved_clone_gets_a_new_environment(clone: Path, bare_path: Path) -> None:
    uv(bare_path)
    assert call(clone / "scripts" / "test.sh", "--version", path=bare_path).returncode == 0
    moved = clone.rename(clone.parent / "moved")
    done = call(moved / "scripts" / "test.sh", "--version", path=bare_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in uv_calls(moved / "scripts" / "test.sh")] == [
        "venv",
        "pip",
    ] * 2


def test_a_broken_environment_is_made_anew(clone: Path, bare_path: Path) -> None:
    uv(bare_path)
    script = clone / "scripts" / "test.sh"
    assert call(script, "--version", path=bare_path).returncode == 0
    interpreter = clone / ".venv" / "bin" / "python"
    interpreter.unlink()
    interpreter.symlink_to("/nowhere/python")
    done = call(script, "--version", path=bare_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in uv_calls(script)] == ["venv", "pip"] * 2


def test_a_link_from_elsewhere_works(clone: Path, bare_path: Path, tmp_path: Path) -> None:
    uv(bare_path)
    (tmp_path / "one").symlink_to(clone / "scripts" / "test.sh")
    (tmp_path / "two").symlink_to("one")
    done = call(tmp_path / "two", "--version", path=bare_path)
    assert done.returncode == 0, done.stderr
    assert (clone / ".venv").is_dir()


def test_a_lock_of_a_dead_script_does_not_block(clone: Path, bare_path: Path) -> None:
    uv(bare_path)
    dead = subprocess.Popen(["true"])
    dead.wait()
    lock = clone / ".venv" / "codex-self-iter.lock"
    lock.mkdir(parents=True)
    (lock / "pid").write_text(f"{dead.pid}\n")
    assert call(clone / "scripts" / "test.sh", "--version", path=bare_path).returncode == 0


def test_two_at_once_prepare_once(clone: Path, bare_path: Path) -> None:
    uv(bare_path)
    script = clone / "scripts" / "test.sh"
    env = {"PATH": str(bare_path), "HOME": str(script.parent)}
    argv = [str(script), "--version"]
    both = [
        subprocess.Popen(argv, env=env, cwd="/", stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert [line.split()[0] for line in uv_calls(script)] == ["venv", "pip"]


@pytest.mark.slow
def test_a_command_is_handed_on_and_its_messages_name_what_can_be_typed(
    clone: Path, bare_path: Path, tmp_path: Path
) -> None:
    uv(bare_path)
    script, program = clone / "scripts" / "run-local.sh", clone / ".venv/bin/codex-self-iter"
    workspace = tmp_path / "work space"
    workspace.mkdir()
    call(script, "--version", path=bare_path)
    executable(program, "#!/bin/sh\n")
    refused = call(script, str(workspace), path=bare_path)
    near = shlex.quote(str(program.relative_to("/")))  # `call` is in /
    init = f"{near} init --workspace '{workspace}'"
    assert (refused.returncode, f"`{init}` writes one" in refused.stderr) == (2, True)
    found = call(script, str(workspace), path=f"{program.parent}:{bare_path}")
    assert f"`codex-self-iter init --workspace '{workspace}'`" in found.stderr  # by its name
    done = call(script, "init", "--workspace", str(workspace), path=bare_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (workspace / "plan.md").exists()


def test_run_local_knows_every_command() -> None:
    text = (ROOT / "scripts/run-local.sh").read_text()
    listed = re.search(r"^commands='([^']*)'$", text, re.MULTILINE)
    assert listed
    assert set(listed[1].split()) == {*COMMANDS, *HIDDEN}
