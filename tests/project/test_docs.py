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
from codex_self_iter.settings import Settings
from codex_self_iter.settings.keys import fields_of, kind_at, table_at
from codex_self_iter.settings.schema import NotifySettings
from codex_self_iter.settings.types import EVENTS
from tests.project import make_plugin

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


@pytest.mark.parametrize("name",
["README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml",
    "config.example.toml", "constraints.txt", "scripts/run-local.sh", "scripts/test.sh", ".ci/run",
    ".github/workflows/ci.yml", "plugin/.codex-plugin/plugin.json", "plugin/.claude-plugin/plugin.json",
    "examples/TASK.md", "examples/plan.md",
    "docs/architecture.md", "docs/plan-shell.md"])  # fmt: skip
def test_the_top_level_is_complete(name: str) -> None:
    assert (ROOT / name).is_file()


def prose(text: str) -> str:
    """Without code, in which nothing is a link or a heading."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]+`", lambda code: code[0].replace("](", "] ("), text)


def anchors(document: Path) -> set[str]:
    """What `#…` may name in a document: GitHub's names of its headings."""
    found: dict[str, int] = {}
    for title in re.findall(r"^#{1,6} +(.+?)[ #]*$", prose(document.read_text()), re.M):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number = found[slug] = found.get(slug, -1) + 1
        found.setdefault(f"{slug}-{number}" if number else slug, 0)
    return set(found)


def links(document: Path) -> list[str]:
    """The targets within the project, also those of reference links and of HTML."""
    text = prose(document.read_text())
    found = LINK.findall(text) + re.findall(r"^\[[^\]]+\]: +(\S+)", text, re.M)
    found += re.findall(r"<(?:a|img) [^>]*(?:href|src)=\"([^\"]+)\"", text)
    return [one for one in found if not one.startswith(("http://", "https://", "mailto:"))]


def broken(document: Path) -> list[str]:
    """Links to a file that is not there, outside of the project, or to no heading of it."""
    bad = []
    for target in links(document):
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        inside = file.is_relative_to(ROOT) or not document.is_relative_to(ROOT)
        good = file.exists() and inside and not path.startswith("/")
        if not good or (anchor and (file.suffix != ".md" or anchor not in anchors(file))):
            bad.append(target)
    return bad


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(document: Path) -> None:
    assert broken(document) == []


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text(
        "# One, `two` & three\n\n## One\n\n## One\n\n```\n# no\n```\n"
    )
    good = ["there.md", "there.md#one-two--three", "there.md#one", "there.md#one-1", "#here"]
    bad = ["gone.md", "there.md#no", "there.md#one-2", "#there", "/there.md", "there.md#One"]
    page = tmp_path / "page.md"
    page.write_text("# Here\n" + "".join(f"[x]({one})\n" for one in good + bad))
    assert broken(page) == bad
    page.write_text("`[x](gone.md)`\n\n[one]: gone.md\n")
    assert broken(page) == ["gone.md"]


def test_every_page_is_reached_from_the_readme() -> None:
    seen, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        for target in links(page):
            if path := target.partition("#")[0]:
                found = (page.parent / path).resolve()
                todo += sorted(found.glob("*.md")) if found.is_dir() else [found]
    elsewhere = {"plugin", "src"}  # what codex and claude read, and the demo's sample
    pages = {path for path in DOCUMENTS if not elsewhere & set(path.relative_to(ROOT).parts)}
    assert {str(path) for path in pages - seen} == set()


def commands(document: Path) -> Iterator[tuple[str, str]]:
    """(command, flag or "") of every `codex-self-iter …` in code."""
    text = document.read_text()
    code = re.findall(r"`(codex-self-iter [^`\n]+)`", text) + re.findall(
        r"^    (codex-self-iter .+)$", text, re.M
    )
    for line in code:
        words = line.split("#")[0].replace("[run]", "run").split()[1:]
        command = words[0] if words and not words[0].startswith("-") else "run"
        flags = [word.strip("[]") for word in words if word.startswith(("--", "[--"))]
        yield from ((command, flag.partition("=")[0]) for flag in flags or [""])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_flags_in_the_documents_exist(document: Path) -> None:
    from codex_self_iter.cli import COMMANDS, HIDDEN, build_parser

    for command, flag in commands(document):
        if command in ("…", "COMMAND") or flag == "--version":
            continue
        assert command in COMMANDS | HIDDEN, command
        parser, _ = build_parser(command)
        if flag and command not in ("config", "service"):
            assert flag in parser.format_help(), f"{command} {flag}"


def test_the_contract_says_how_to_control_a_loop() -> None:
    from codex_self_iter.cli import COMMANDS

    named = {command for command, _ in commands(ROOT / "docs" / "contract.md")}
    assert named >= set(COMMANDS) - {"run", "init", "doctor", "config", "demo"}


def test_the_exit_codes_in_the_contract_are_the_programs() -> None:
    text = (ROOT / "docs" / "contract.md").read_text()
    table = text.partition("## Exit codes")[2].partition("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)} == {
        int(code) for code in ExitCode
    }


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_keys_that_a_document_names_exist(document: Path) -> None:
    """`[verify] commands` and `verify.gate_files`; CHANGELOG.md speaks of what was, too."""
    text = document.read_text()
    if document.name == "status.md":  # its rows are fields of its own
        text = re.sub(r"^\| `[^`]+` \|", "", text, flags=re.M)
    named = re.findall(r"`\[([a-z.]+)\] ([a-z_]+)", text)
    tables = "|".join(name for name in fields_of(Settings) if table_at((name,)))
    if document.name not in ("log-events.md", "doctor.md"):  # events and checks are written so, too
        named += re.findall(rf"`({tables})\.(?!md\b|json\b)([a-z_]+)\b(?!\.)", text)
    for table, key in named if document.name != "CHANGELOG.md" else ():
        assert kind_at((*table.split("."), key)) is not None, f"[{table}] {key}"


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


@pytest.mark.parametrize("path", make_plugin.files(), ids=lambda path: path.parent.name)
def test_a_manifest_is_what_the_one_source_says(path: Path) -> None:
    assert path.read_text() == make_plugin.files()[path], "python -m tests.project.make_reference"


@pytest.mark.parametrize("program", ["codex", "claude"])
def test_the_plugin_manifest_is_valid(program: str) -> None:
    place = ROOT / "plugin" / f".{program}-plugin"
    manifest = json.loads((place / "plugin.json").read_text())
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", manifest["name"])
    assert manifest["version"] == __version__
    assert manifest["skills"].startswith("./")
    assert (ROOT / "plugin" / manifest["skills"]).is_dir()
    prompts = manifest.get("interface", {}).get("defaultPrompt", ["x"])
    assert 0 < len(prompts) <= 3
    assert all(len(prompt) <= 128 for prompt in prompts)
    assert [path.name for path in place.iterdir()] == ["plugin.json"]


@pytest.mark.parametrize(
    ("path", "command"),
    [(".agents/plugins", "codex plugin add"), (".claude-plugin", "claude plugin install")],
)
def test_the_marketplace_offers_this_plugin(path: str, command: str) -> None:
    marketplace = json.loads((ROOT / path / "marketplace.json").read_text())
    (plugin,) = marketplace["plugins"]
    assert plugin["name"] == make_plugin.NAME
    assert f"{command} {plugin['name']}@{marketplace['name']}" in (ROOT / "README.md").read_text()


def test_the_skills_have_a_name_and_a_description() -> None:
    found = list((ROOT / "plugin" / "skills").glob("*/SKILL.md"))
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
    text = (ROOT / "docs" / "notifications.md").read_text()
    table = text.partition("| event | when |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|[^|]*\|", table, re.MULTILINE))))
    assert set(NotifySettings().events) <= named <= set(EVENTS)
