"""Write the generated parts of docs/architecture.md: tables and the state diagram, from the code
that decides.

python -m tests.project.make_diagrams            rewrite the document
python -m tests.project.make_diagrams --check    exit 1 if it is out of date"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from codex_self_iter.core.holds import HOLDS
from codex_self_iter.core.waits import COOLDOWNS, STATES
from tests.project.transitions import GROUPS, TRANSITIONS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
ENDS = ("completed", "stopped", "stagnated")


def holds() -> str:
    rows = ["| | condition | the loop is then |", "|---|---|---|"]
    return "\n".join(
        [*rows, *(f"| {n} | {what} | {state} |" for n, (what, state) in enumerate(HOLDS, 1))]
    )


def waits() -> str:
    rows = ["| wait | state | ended early by something new to do |", "|---|---|---|"]
    for kind, state in STATES.items():
        rows.append(f"| `{kind}` | `{state}` | {'yes' if kind in COOLDOWNS else 'no'} |")
    return "\n".join(rows)


def diagram() -> str:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> starting"]
    for group, states in GROUPS.items():
        lines += [f"    state {group} {{", *(f"        {state}" for state in states), "    }"]
    labels: dict[tuple[str, str], list[str]] = {}
    for source, why, target in TRANSITIONS:
        if source == "waiting" and target in GROUPS["waiting"]:
            continue  # drawn as one arrow below
        labels.setdefault((source, str(target)), []).append(why)
    lines += [
        f"    {source} --> {target}: {' / '.join(whys)}"
        for (source, target), whys in labels.items()
    ]
    lines += ["    waiting --> waiting: something else holds"]
    lines += [f"    {end} --> [*]" for end in ENDS]
    lines += ["    blocked --> [*]: budget spent, too many errors (exit 4)", "```"]
    return "\n".join(lines)


PARTS = {"holds": holds, "waits": waits, "diagram": diagram}


def render(text: str) -> str:
    """The document with its generated parts made anew."""
    for name, make in PARTS.items():
        pattern = re.compile(rf"(<!-- generated: {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        found = pattern.findall(text)
        if len(found) != 1:
            raise SystemExit(
                f"{DOCUMENT}: expected one generated part {name!r}, found {len(found)}"
            )
        before, after = found[0]
        text = pattern.sub((before + make() + after).replace("\\", r"\\"), text)
    return text


def main() -> int:
    text = DOCUMENT.read_text()
    made = render(text)
    if "--check" in sys.argv[1:]:
        if made != text:
            print(
                f"{DOCUMENT} is out of date: run python -m tests.project.make_diagrams",
                file=sys.stderr,
            )
        return int(made != text)
    DOCUMENT.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
