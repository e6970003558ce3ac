"""What the documents say is so: links resolve, commands and flags exist, tables agree with the
code."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from codex_self_iter import __version__
from codex_self_iter.core.plan import parse_plan
from codex_self_iter.errors import ExitCode
from codex_self_iter.settings.schema import NotifySettings
from codex_self_iter.settings.types import EVENTS

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".git", ".venv", ".hypothesis", "node_modules", "__pycache__", "build", "dist"}
LINK = re.compile(r"\]\(([^)\s]+)\)")


def tree() -> Iterator[Path]:
    """Every file of the project."""
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and not any(
            p in SKIPPED or p.endswith(("_cache", ".egg-info")) for p in parts
        ):
            yield path


DOCUMENTS = sorted(path for path in tree() if path.suffix == ".md" and "tests" not in path.parts)


def example_keys() -> set[str]:
    """Every key that config.example.toml shows, also those in comments."""
    lines = (ROOT / "config.example.toml").read_text().splitlines()
    found = (re.match(r"#? ?([a-z_]+) *=", line) for line in lines)
    return {match[1] for match in found if match}


@pytest.mark.parametrize("name",
["README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml",
    "config.example.toml", "constraints.txt", "scripts/run-local.sh", "scripts/test.sh", ".ci/run",
    ".github/workflows/ci.yml", ".codex-plugin/plugin.json", "examples/TASK.md", "examples/plan.md",
    "docs/architecture.md", "docs/plan-shell.md"])  # fmt: skip
def test_the_top_level_is_complete(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        if not target.startswith(("http://", "https://", "#", "mailto:")):
            assert (document.parent / target.partition("#")[0]).exists(), target


def commands(document: Path) -> Iterator[tuple[str, str]]:
    """(command, flag or "") of every `codex-self-iter …` in code."""
    text = document.read_text()
    code = re.findall(r"`(codex-self-iter [^`\n]+)`", text) + re.findall(
        r"^    (codex-self-iter .+)$", text, re.M
    )
    for line in code:
        words = line.split("#")[0].split()[1:]
        command = words[0] if words and not words[0].startswith("-") else "run"
        flags = [word.strip("[]") for word in words if word.startswith(("--", "[--"))]
        yield from ((command, flag.partition("=")[0]) for flag in flags or [""])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_flags_in_the_documents_exist(document: Path) -> None:
    from codex_self_iter.cli import COMMANDS, build_parser

    for command, flag in commands(document):
        if command == "…" or flag == "--version":
            continue
        assert command in COMMANDS, command
        parser, _ = build_parser(command)
        if flag and command not in ("config", "service"):
            assert flag in parser.format_help(), f"{command} {flag}"


def test_every_command_is_in_the_readme() -> None:
    from codex_self_iter.cli import COMMANDS

    named = {command for command, _ in commands(ROOT / "README.md")}
    assert named >= set(COMMANDS) - {"run", "demo"}


def test_the_exit_codes_in_the_readme_are_the_programs() -> None:
    table = (ROOT / "README.md").read_text().partition("### Exit codes")[2].partition("###")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)} == {
        int(code) for code in ExitCode
    }


def test_keys_in_the_readme_are_in_the_example_file() -> None:
    table = (ROOT / "README.md").read_text().partition("### Configuration")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(?:\[(\w+)\] ?)?(\w*)`", table, re.M)
    assert len(rows) >= 8
    example = (ROOT / "config.example.toml").read_text()
    for section, key in rows:
        assert not section or f"[{section}]" in example
        assert not key or key in example_keys()


def test_the_example_plans_are_plans() -> None:
    assert parse_plan((ROOT / "examples" / "plan.md").read_text()).total >= 4
    items = parse_plan((ROOT / "examples" / "plan-shell.md").read_text()).items
    assert items
    assert all(item.runnable for item in items)


def test_the_readme_shows_a_real_session() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("<!-- session:start -->") == text.count("<!-- session:end -->") == 1
    session = text.partition("<!-- session:start -->")[2].partition("<!-- session:end -->")[0]
    assert "$ ./scripts/run-local.sh" in session
    assert "completed" in session


def test_the_plugin_manifest_is_valid() -> None:
    manifest = json.loads((ROOT / ".codex-plugin" / "plugin.json").read_text())
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", manifest["name"])
    assert manifest["version"] == __version__
    assert manifest["description"]
    assert manifest["skills"].startswith("./")
    assert (ROOT / manifest["skills"]).is_dir()
    prompts = manifest["interface"]["defaultPrompt"]
    assert 0 < len(prompts) <= 3
    assert all(len(prompt) <= 128 for prompt in prompts)
    assert [path.name for path in (ROOT / ".codex-plugin").iterdir()] == ["plugin.json"]


def test_the_marketplace_offers_this_plugin() -> None:
    marketplace = json.loads((ROOT / ".agents" / "plugins" / "marketplace.json").read_text())
    (plugin,) = marketplace["plugins"]
    manifest = ROOT / plugin["source"]["path"] / ".codex-plugin" / "plugin.json"
    assert json.loads(manifest.read_text())["name"] == plugin["name"]
    assert (
        f"codex plugin add {plugin['name']}@{marketplace['name']}"
        in (ROOT / "README.md").read_text()
    )


def test_the_skills_have_a_name_and_a_description() -> None:
    found = list((ROOT / "skills").glob("*/SKILL.md"))
    assert found
    for skill in found:
        _, front, body = skill.read_text().split("---\n", 2)
        fields = dict(line.split(": ", 1) for line in front.splitlines())
        assert fields["name"] == skill.parent.name
        assert 40 <= len(fields["description"]) <= 1024
        assert body.strip()


def test_constraints_pin_what_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        one for extra in project["optional-dependencies"].values() for one in extra
    ]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for requirement in map(Requirement, wanted):
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_no_package_index_and_no_directory_of_somebodys_machine_is_named() -> None:
    # spelt in pieces, so that this file does not find itself
    hosts = [
        "pypi" + ".org",
        "python" + "hosted",
        "npmjs" + ".",
        "deb." + "debian",
        "archive." + "ubuntu",
    ]
    places = [r"(?<![\w.~-])/wo" + r"rk/", "/opt/" + "pypi", r"/home/\w+/" + r"(?:src|code|repo)"]
    forbidden = re.compile("|".join([re.escape(host) for host in hosts] + places).encode())
    bad = [str(path.relative_to(ROOT)) for path in tree() if forbidden.search(path.read_bytes())]
    assert bad == []


def test_every_default_event_of_notify_is_explained() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    table = text.partition("| event | when |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|[^|]*\|", table, re.MULTILINE))))
    assert set(NotifySettings().events) <= named <= set(EVENTS)
