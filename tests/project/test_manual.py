"""share/: the manual page and the completions are what the program says now, and work as files."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from codex_self_iter.cli import COMMANDS, PROGRAM, build_parser
from codex_self_iter.cli._flags import FLAGS
from tests.project import make_manual
from tests.project.make_manual import COMPLETIONS, MANUAL, SHARE
from tests.support.program import PYTHON

MADE = make_manual.files()


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.name)
def test_what_is_shipped_is_what_the_program_says(path: Path) -> None:
    assert path.read_text() == MADE[path], "python -m tests.project.make_reference"


def test_nothing_else_is_shipped() -> None:
    assert {path for path in SHARE.rglob("*") if path.is_file()} == set(MADE)


def shown() -> str:
    """The page as text."""
    command = ["groff", "-man", "-ww", "-Tascii", "-P-cbou", MANUAL]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return " ".join(done.stdout.split())


@pytest.mark.skipif(shutil.which("groff") is None, reason="NOT TESTED HERE: there is no groff")
def test_the_manual_page_shows_every_command_and_option() -> None:
    page = shown()
    assert f"{PROGRAM} - {make_manual.SUMMARY}" in page
    for command in COMMANDS:
        own = page.partition(f" {command} {build_parser(command)[0].description} ")[2]
        for action in build_parser(command)[0]._actions:
            wanted = action.help != argparse.SUPPRESS and action.dest not in ("help", "version")
            for option in action.option_strings if wanted else ():
                assert option in own, (command, option)
    for flag in FLAGS:
        assert f"{flag.option}, {flag.key}, CODEX_SELF_ITER_" in page
    assert "130 interrupted from the keyboard (Ctrl-C)" in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="NOT TESTED HERE: there is no groff")
def test_a_page_that_groff_does_not_understand_would_be_noticed(tmp_path: Path) -> None:
    """Negative control."""
    broken = tmp_path / "broken.1"
    broken.write_text(MANUAL.read_text() + ".NOSUCH\n")
    command = ["groff", "-man", "-ww", "-Tascii", "-z", broken]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "NOSUCH" in done.stderr


def test_text_cannot_give_orders_to_the_formatter() -> None:
    assert make_manual._plain(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert make_manual._plain("a\\b --c") == "a\\eb \\-\\-c"


LOADED = {
    "bash": "source {file}; COMP_WORDS=(codex-self-iter ste); COMP_CWORD=1; _codex_self_iter; "
    "echo ${{COMPREPLY[@]}}",
    # as compinit finds it: the first call defines the function and completes as well
    "zsh": "fpath=({directory} $fpath); autoload -U compinit; compinit -u -D; "
    "compadd() {{ print -r -- ${{(P)${{@: -1}}}} }}; words=(codex-self-iter ste); CURRENT=2; "
    "for time in 1 2; do ${{_comps[codex-self-iter]}}; done",
    "fish": "complete -C 'codex-self-iter ste'",
}


@pytest.mark.parametrize("shell", LOADED)
def test_a_shell_that_finds_the_file_completes_words(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"NOT TESTED HERE: there is no {shell}")
    file = COMPLETIONS[shell]
    script = LOADED[shell].format(file=f"'{file}'", directory=f"'{file.parent}'")
    flags = ["-f"] if shell == "zsh" else []
    path = f"{Path(PYTHON).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), "XDG_DATA_DIRS": str(SHARE)}
    done = subprocess.run(
        [shell, *flags, "-c", script], env=environment, cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    words = re.findall(r"^steer\b", done.stdout, re.M)
    assert len(words) == (2 if shell == "zsh" else 1), done.stderr
