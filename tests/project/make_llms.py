"""docs/llms.txt: one page for language models, out of what is written and tested elsewhere.

The commands come from their parsers, exit codes, files and the control block from docs/contract.md,
the list of pages from docs/ itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from codex_self_iter.cli import COMMANDS, HIDDEN, build_parser

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LLMS = DOCS / "llms.txt"
FURTHER = {
    "../README.md": "what it is, how to install it, what it promises",
    "../examples/README.md": "a task and plans to start from",
    "../CONTRIBUTING.md": "the words and the rooms of the code, the rules for a change",
    "../CHANGELOG.md": "what has changed, for users",
}
HEAD = """\
# codex-self-iter

> Keeps a coding agent (Codex, Claude Code, Gemini CLI, opencode, any program by a template) working in a git repository,
> unattended, for hours or days. It runs the agent again and again, one iteration after the other, contains and watches each run,
> and believes "completed" only when the gates, commands such as the repository's tests, have passed.

Install it in a clone: `pipx install .` or `uv tool install .`. Begin in a repository: `codex-self-iter run "what is wanted"`. Look
and steer from another terminal: `codex-self-iter status`, `codex-self-iter logs -f`, `codex-self-iter steer "text"`,
`codex-self-iter stop`. Programs read `codex-self-iter status --json` and `codex-self-iter history --json`, and write files:
what `stop`, `pause`, `resume`, `steer` and `goal` do is a file in the state directory.
"""


def llms() -> str:
    """The text of docs/llms.txt."""
    parts = [HEAD, "## Commands\n", *_commands(), "", "## Exit codes\n", *_rows("Exit codes"), ""]
    parts += ["## The state directory\n", "`.codex-self-iter/` in the workspace.\n"]
    parts += [
        *_rows("The state directory"),
        "",
        "## The control block\n",
        _first("The control block"),
    ]
    parts += ["", *_rows("The control block"), "", "## Pages\n", *_pages(), ""]
    return "\n".join(parts)


def _commands() -> Iterator[str]:
    for name in sorted({*COMMANDS} - {*HIDDEN}, key=list(COMMANDS).index):
        parser = build_parser(name)[0]
        said = " ".join((parser.description or "").split())
        yield f"- `codex-self-iter {name}`: {said}"


def _section(title: str) -> str:
    """A section of the contract."""
    text = (DOCS / "contract.md").read_text(encoding="utf-8")
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def _first(title: str) -> str:
    """Its first paragraph, in one line."""
    return " ".join(_section(title).strip().partition("\n\n")[0].split())


def _rows(title: str) -> Iterator[str]:
    """The rows of its first table."""
    table = re.findall(r"(?:^\|.*\n)+", _section(title), re.MULTILINE)[0]
    for row in table.splitlines()[2:]:
        cells = [_plain(cell.strip()) for cell in row.strip("|").split(" | ")]
        name = cells[0] if cells[0].startswith("`") else f"`{cells[0].strip()}`"
        kind = f" ({cells[1]})" if len(cells) > 2 else ""
        yield f"- {name}{kind}: {cells[-1].strip()}"


def _plain(text: str) -> str:
    """Without links, which lead from the page where they stand."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def _pages() -> Iterator[str]:
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        title, _, body = text.partition("# ")[2].partition("\n")
        parts = body.strip("\n").split("\n\n")
        prose = next(part for part in parts if part[0] not in " |-<")
        first = re.split(r"(?<=\.) ", _plain(" ".join(prose.split())))[0]
        yield f"- [{title}]({path.relative_to(DOCS)}): {first.rstrip(':.')}"
    yield from (f"- [{Path(name).name}]({name}): {said}" for name, said in FURTHER.items())
