"""What CONTRIBUTING.md says of the tests, of CI and of the code is so."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import conftest
from tests.project.measure import PACKAGE, measures, read, twice

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CI = (ROOT / ".ci" / "run").read_text()
CODE = [
    path for room in ("src", "tests", "benchmarks") for path in sorted((ROOT / room).rglob("*.py"))
]


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,.]*", text)]


def off(said: str, measured: str) -> bool:
    """True when a figure is wrong by more than a tenth (or half of what stands at the last place)."""
    pairs = zip(numbers(said), numbers(measured), strict=True)
    return any(abs(one - two) > max(0.1 * two, 0.5) for one, two in pairs)


@pytest.mark.slow
def test_the_measures_are_what_is_measured() -> None:
    shown = dict(
        re.findall(
            r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|$", TEXT.partition("measures:start")[2], re.M
        )
    )
    for what, measured in measures(PACKAGE, ROOT / "tests").items():
        assert not off(shown[what], measured), (
            f"{what}: {measured}: python -m tests.project.measure"
        )


def test_a_measure_that_is_off_is_seen() -> None:
    assert off("216", "250")
    assert off("136 / 690", "136 / 564")
    assert not off("33,330", "34,027")


def test_no_module_name_means_two_things() -> None:
    assert twice(PACKAGE, read(PACKAGE)) == []


def test_nothing_is_mocked() -> None:
    found = [
        path for path in CODE if re.search(r"^\s*(from|import) .*\bmock\b", path.read_text(), re.M)
    ]
    assert found == []


def test_warnings_are_errors_and_what_hangs_ends() -> None:
    options = PROJECT["tool"]["pytest"]["ini_options"]
    assert options["filterwarnings"] == ["error"]
    assert options["timeout"] == 120
    assert conftest.SLOW_SEC == 600


@pytest.mark.slow
def test_a_test_that_hangs_shows_every_threads_stack(tmp_path: Path) -> None:
    test = tmp_path / "test_hangs.py"
    test.write_text("import time\ndef test_it():\n    time.sleep(60)\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"),
               "--rootdir", str(tmp_path), "--timeout", "1", str(test)]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 1
    assert "time.sleep(60)" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "step",
    [
        "ruff check",
        "ruff format --check",
        "codespell",
        "mypy",
        "scripts/test.sh --all",
    ],
)
def test_ci_checks_what_the_rules_say(step: str) -> None:
    assert step in CI
    assert re.search(
        r"^\s*- run: .*\.ci/run|bash \.ci/run",
        (ROOT / ".github/workflows/ci.yml").read_text(),
        re.M,
    )


def test_ci_installs_system_packages_only_as_root() -> None:
    before, _, after = CI.partition('if [ "$(id -u)" -eq 0 ]')
    assert "apt-get" not in re.sub(r"^#.*$", "", before, flags=re.M)
    assert "apt-get" in after


def test_types_are_strict_and_lines_end_where_it_is_said() -> None:
    assert PROJECT["tool"]["mypy"]["strict"] is True
    assert PROJECT["tool"]["ruff"]["line-length"] == 100
    assert PROJECT["tool"]["ruff"]["lint"]["pycodestyle"]["max-line-length"] == 136


def test_the_core_needs_no_library() -> None:
    """No dependency in the core: it decides, from standard library values."""
    for path in (PACKAGE / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                top = (node.module or "").partition(".")[0]
                assert top in sys.stdlib_module_names | {"codex_self_iter"}, path
