"""Write docs/faults.md from a run: `scripts/fault-report.sh`.

    python -m tests.project.fault_page DIRECTORY

The directory has what a run has left: `run.json` (when, where), `*.xml` (pytest's results),
`kills-*.json` (tests.faults.kill_loop), `lanes.json` (tests.lanes.faults.kill_lanes) and
`year-*.json` (tests.simulation); what is missing is missing on the page, too."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.faults.kinds import KINDS, Kind, files, kind_of, names

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"
START, END = "<!-- results:start -->\n", "<!-- results:end -->\n"
HELD, FAILED, NOT_RUN = "held", "failed", "not run"


@dataclass
class Tried:
    """What became of the cases of one test."""

    cases: Counter[str] = field(default_factory=Counter)
    why: set[str] = field(default_factory=set)

    def told(self) -> str:
        """The result in words."""
        if not self.cases:
            return "not in this run"
        if self.cases[FAILED]:
            return f"**{self.cases[FAILED]} failed**"
        why = "; ".join(sorted(self.why))
        if not self.cases[HELD]:
            return f"not run: {why}"
        return f"held ({self.cases[NOT_RUN]} not run: {why})" if self.cases[NOT_RUN] else HELD


Results = defaultdict[tuple[str, str], Tried]


def read(paths: Sequence[Path]) -> Results:
    """The results by (file, test)."""
    found: Results = defaultdict(Tried)
    for case in (case for path in paths for case in ElementTree.parse(path).iter("testcase")):
        modules = [part for part in case.get("classname", "").split(".") if part[:4] != "Test"]
        file = "/".join(modules[1:]) + ".py"
        tried = found[file, case.get("name", "").partition("[")[0]]
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            tried.cases[FAILED] += 1
        elif skipped is not None:
            tried.cases[NOT_RUN] += 1
            tried.why.add(_cell(skipped.get("message", "").removeprefix("NOT TESTED HERE: ")))
        else:
            tried.cases[HELD] += 1
    return found


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _in(kind: Kind) -> Iterator[tuple[str, str]]:
    for file in files():
        for name in names(file):
            if kind_of(file, name) is kind:
                yield file, name


def page(directory: Path) -> str:
    """All that stands between the two marks."""
    results = read(sorted(directory.glob("*.xml")))
    parts = [_where(directory / "run.json"), _summary(results)]
    parts += [_kills(sorted(directory.glob("kills-*.json")))]
    parts += [_lane_kills(directory / "lanes.json")]
    parts += [_years(sorted(directory.glob("year-*.json")))]
    parts += [_section(kind, results) for kind in KINDS]
    return "\n".join(part for part in parts if part)


def _where(path: Path) -> str:
    return f"{json.loads(path.read_text())['told']}\n" if path.exists() else ""


def _summary(results: Results) -> str:
    lines = ["| kind | tests | cases | held | failed | not run |", "|---|---|---|---|---|---|"]
    total: Counter[str] = Counter()
    for kind in KINDS:
        count: Counter[str] = Counter()
        for key in _in(kind):
            count["tests"] += 1
            count += results[key].cases
        total += count
        lines.append(_counted(f"[{kind.title}](#{_anchor(kind.title)})", count))
    return "\n".join([*lines, _counted("**together**", total), ""])


def _counted(title: str, count: Counter[str]) -> str:
    cases = count[HELD] + count[FAILED] + count[NOT_RUN]
    figures = (count["tests"], cases, count[HELD], count[FAILED], count[NOT_RUN])
    return f"| {title} | {' | '.join(f'{one:,}' for one in figures)} |"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _kills(paths: Sequence[Path]) -> str:
    """A loop that lost something writes no file."""
    if not paths:
        return ""
    lines = [
        "## The kill loops\n",
        "Each round starts the supervisor, waits for a moment and kills; at the end the files must tell one story.\n",
        "| what is done with the orphan | kills | of whom | iterations | messages sent | lost, repeated or left |",
        "|---|---|---|---|---|---|",
    ]
    for path in paths:
        one = json.loads(path.read_text())
        whom = ", ".join(f"{name} {count}" for name, count in sorted(one["kills"].items()))
        figures = f"{one['count']:,} | {whom} | {one['iterations']:,} | {one['messages']:,}"
        lines.append(f"| `{one['on_orphan']}` (seed {one['seed']}) | {figures} | nothing |")
    return "\n".join([*lines, ""])


def _lane_kills(path: Path) -> str:
    """The same of lanes: one that lost something writes no file."""
    if not path.exists():
        return ""
    one = json.loads(path.read_text())
    whom = ", ".join(f"{name} {count}" for name, count in sorted(one["kills"].items()))
    return (
        "## Lanes that are killed\n\n"
        "Plans of four items with a conflict and a combination at which the gates are red; each is killed up to "
        "six times, then runs to its end.\n\n"
        "| kills | of whom | plans | lost, landed without green gates, or left |\n|---|---|---|---|\n"
        f"| {one['count']:,} (seed {one['seed']}) | {whom} | {one['plans']:,} | nothing |\n"
    )


def _years(paths: Sequence[Path]) -> str:
    if not paths:
        return ""
    lines = [
        "## The simulated years\n",
        "The real core on virtual time, in worlds in which more or less goes wrong.\n",
        "| world | days | goodput | iterations | agent runs | crashes, reboots | longest unexplained | broken invariants |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in paths:
        one: dict[str, Any] = json.loads(path.read_text())
        longest = max((length for length, _, _ in one["unexplained"]), default=0.0)
        ended = one["happened"].get("crash", 0), one["happened"].get("reboot", 0)
        lines.append(
            f"| `{path.stem.removeprefix('year-')}` (seed {one['seed']}) | {one['days']:g}"
            f" | {one['productive'] / one['best']:.4f} | {one['iterations']:,} | {one['runs']:,}"
            f" | {ended[0]:,}, {ended[1]:,} | {longest:.1f} s | {len(one['faults'])} |"
        )
    return "\n".join([*lines, ""])


def _section(kind: Kind, results: Results) -> str:
    rows = [
        f"| {name.removeprefix('test_').replace('_', ' ')} | [{Path(file).stem[5:]}](../tests/{file})"
        f" | {results[file, name].cases.total()} | {results[file, name].told()} |"
        for file, name in _in(kind)
    ]
    head = ["| what must hold | test | cases | result |", "|---|---|---|---|"]
    return "\n".join([f"## {kind.title}\n", f"{kind.done}\n", *head, *rows, ""])


def renewed(text: str, results: str) -> str:
    """The document with these results between the marks."""
    before, rest = text.split(START)
    return before + START + results + END + rest.split(END)[1]


def described() -> str:
    """When and where this is, for `run.json`."""

    def ask(*argv: str) -> str:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    load = "/".join(f"{one:.0f}" for one in os.getloadavg())
    who = "as root" if os.geteuid() == 0 else "not as root"
    return (
        f"Run of {time.strftime('%d %B %Y').lstrip('0')}, commit {ask('git', 'rev-parse', '--short=12', 'HEAD')},"
        f" {who}: Linux {platform.release()}, Python {platform.python_version()},"
        f" {ask('git', '--version')}, {os.cpu_count()} cores, load average {load} at the start."
    )


def main(argv: Sequence[str]) -> int:
    """Write the page; exit 1 when something on it has failed."""
    if argv[:1] == ["--describe"]:
        print(json.dumps({"told": described()}))
        return 0
    results = page(Path(argv[0]))
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    return int("failed**" in results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
