"""What is there: the installed agents, and the commands that test this repository."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping

from codex_self_iter.agents.base import AgentMissingError
from codex_self_iter.agents.probe import find_program
from codex_self_iter.core.acp_agents import ACP_AGENTS
from codex_self_iter.core.agent_names import AUTO, NATIVE
from codex_self_iter.core.foreign import as_dict, as_text, decode
from codex_self_iter.settings import Settings, resolve_paths
from codex_self_iter.world.bounded import run
from codex_self_iter.world.git.repository import repository_key

_READ_BYTES = 1024 * 1024
_MOST_TESTS = 200
"""Files with tests that are looked at; with more of them pytest, which runs both kinds, is meant."""
_SPEAKING = (
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
    "tox.ini",
    "pytest.ini",
    "noxfile.py",
    "Pipfile",
)
_IS_THERE = "import sys, importlib.util as u; sys.exit(u.find_spec(sys.argv[1]) is None)"
"""Whether Python has a module, without importing it: that takes longer than all else of a start."""
_PLAIN_TEST = re.compile(r"^(async )?def test", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class Detected:
    """Agents by name with the path of each, and gate commands."""

    agents: Mapping[str, str]
    gates: tuple[str, ...]


def with_gates(settings: Settings, environ: Mapping[str, str], *, new: bool = False) -> Settings:
    """The same, with the gates that are found here where the task is one in words, or `new` is to
    be, and the configuration names none. Blocks for a moment."""
    paths = resolve_paths(settings)
    if settings.origin("verify", "commands") != "default" or not (new or paths.in_words):
        return settings
    found = gate_commands(str(paths.workspace), environ)
    where = str(paths.workspace)
    flaws = {command: flaw for command in found if (flaw := _flaw(command, where, environ))}
    gates = tuple(command for command in found if command not in flaws)
    remark = "; ".join(f"`{command}` would, but {flaw}" for command, flaw in flaws.items())
    remark = remark or ("" if found else _around(where, environ))
    verify = settings.verify.model_copy(update={"commands": gates})
    return settings.model_copy(update={"verify": verify}).loaded_as(remark=remark)


def _around(workspace: str, environ: Mapping[str, str]) -> str:
    """What to say where the tests are those of the repository that the workspace is only part of."""
    marker = repository_key(workspace)
    top = os.path.dirname(marker[0]) if marker else workspace
    if os.path.realpath(workspace) == top or not (found := gate_commands(top, environ)):
        return ""
    return f"{' and '.join(f'`{one}`' for one in found)} would, in {top}: start it there"


def _flaw(command: str, workspace: str, environ: Mapping[str, str]) -> str:
    """Why a command that was found cannot run here, or ""."""
    program, *words = command.split()
    if os.sep in program:  # of an environment in the workspace: nothing of it is started here
        there = os.access(os.path.join(workspace, program), os.X_OK)
        return "" if there else f"{program} cannot be started"
    if shutil.which(program, path=environ.get("PATH")) is None:
        return f"there is no {program} on PATH"
    if words[:1] == ["-m"] and not run([program, "-c", _IS_THERE, words[1]], env=environ).ok:
        return f"{program} has no {words[1]} here"
    return ""


def detect(workspace: str, environ: Mapping[str, str]) -> Detected:
    """Look at the machine and the workspace. Reads only."""
    agents = {name: find_agent(name, environ) for name in AUTO}
    return Detected(
        {name: path for name, path in agents.items() if path}, gate_commands(workspace, environ)
    )


def find_agent(name: str, environ: Mapping[str, str]) -> str:
    """Absolute path of an agent's program, on PATH or where installers put it; "" for none."""
    try:
        program = name if name in NATIVE else ACP_AGENTS[name].command[0]
        return str(find_program(program, "", environ, mend=""))
    except AgentMissingError:
        return ""


def gate_commands(workspace: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The test commands that the files speak for; `make test` only when nothing else does."""
    found = tuple(_by_language(workspace, environ))
    if found or not _has_make_test(workspace):
        return found
    return ("make test",)


def _by_language(workspace: str, environ: Mapping[str, str]) -> Iterator[str]:
    python = _own_python(workspace)
    if alone := _unittest(workspace):
        yield f"{python or 'python3'} -m unittest {alone}"
    elif _uses_pytest(workspace):
        # a pytest beside the repository's own environment lacks what its tests import
        own = python and os.path.isfile(os.path.join(workspace, os.path.dirname(python), "pytest"))
        there = not own and shutil.which("pytest", path=environ.get("PATH"))
        yield "pytest -q" if there else f"{python if own else 'python3'} -m pytest -q"
    if _has_npm_test(workspace):
        yield "npm test"
    if os.path.isfile(os.path.join(workspace, "Cargo.toml")):
        yield "cargo test"
    if os.path.isfile(os.path.join(workspace, "go.mod")):
        yield "go test ./..."


def _own_python(workspace: str) -> str:
    """The Python of a virtual environment in the workspace, seen from there; "" for none."""
    places = (f"{name}/bin/python" for name in (".venv", "venv"))
    return next((one for one in places if os.path.isfile(os.path.join(workspace, one))), "")


def _unittest(workspace: str) -> str:
    """What unittest is given to run tests that are all of its kind, in one directory, where nothing
    speaks of pytest; else ""."""
    here = glob.escape(workspace)
    named = itertools.chain.from_iterable(
        glob.iglob(f"{here}/{pattern}", recursive=True)
        for pattern in ("test_*.py", "test*/**/test_*.py", "conftest.py", "test*/**/conftest.py")
    )
    files = [os.path.relpath(path, workspace) for path in itertools.islice(named, _MOST_TESTS)]
    settings = (os.path.relpath(path, workspace) for path in glob.iglob(f"{here}/*requirements*"))
    texts = [text_of(workspace, name) for name in (*_SPEAKING, *settings, *files)]
    if not files or any("pytest" in text for text in texts) or len(files) == _MOST_TESTS:
        return ""
    if not all(
        "unittest" in text and not _PLAIN_TEST.search(text) for text in texts[-len(files) :]
    ):
        return ""
    places = {os.path.dirname(name) for name in files}
    if len(places) != 1 or (place := places.pop()).count(os.sep):
        return ""
    if not place or os.path.isfile(os.path.join(workspace, place, "__init__.py")):
        return "-q"
    return f"discover -q -s {place}"


def _uses_pytest(workspace: str) -> bool:
    names = ("pytest.ini", "conftest.py", "tests/conftest.py")
    if any(os.path.isfile(os.path.join(workspace, name)) for name in names):
        return True
    try:
        project = tomllib.loads(text_of(workspace, "pyproject.toml"))
    except tomllib.TOMLDecodeError:
        project = {}
    if "pytest" in as_dict(project.get("tool")):
        return True
    sections = {"setup.cfg": "[tool:pytest]", "tox.ini": "[pytest]"}
    if any(section in text_of(workspace, name) for name, section in sections.items()):
        return True
    here = glob.escape(workspace)
    return bool(glob.glob(f"{here}/test*/test_*.py") or glob.glob(f"{here}/test_*.py"))


def _has_npm_test(workspace: str) -> bool:
    """A test script that is not the placeholder which `npm init` writes."""
    package = decode(text_of(workspace, "package.json")) or {}
    script = as_text(as_dict(package.get("scripts")).get("test"))
    return bool(script.strip()) and "no test specified" not in script


def _has_make_test(workspace: str) -> bool:
    names = ("GNUmakefile", "makefile", "Makefile")
    text = "".join(text_of(workspace, name) + "\n" for name in names)
    return re.search(r"^test\s*:(?!=)", text, re.MULTILINE) is not None


def text_of(workspace: str, name: str) -> str:
    """A file's text, "" when there is none that can be read."""
    path = os.path.join(workspace, name)
    if not os.path.isfile(path):
        return ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_READ_BYTES)
    except OSError:
        return ""
