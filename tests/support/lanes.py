"""A workspace with lanes: a plan, what the agent of each item does, and what became of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from codex_self_iter.views.lane_rows import ref
from tests.support.harness import FAST, Workspace

AGENT = Path(__file__).with_name("lane_agent.sh")


class LaneWorkspace(Workspace):
    """The same as any other, with a plan of items and a shell script for each."""

    def __init__(self, root: Path, items: Mapping[str, str] | Iterable[str], **config: Any) -> None:
        """`items`: the words of each item, with the script of its agent ("": it writes a file that
        has the item's number for a name)."""
        super().__init__(root)
        found = dict(items) if isinstance(items, Mapping) else dict.fromkeys(items, "")
        self.agents = self.control / "lanes"
        self.agents.mkdir(parents=True, exist_ok=True)
        self.environment["LANE_AGENT"] = str(self.agents)
        self.plan("# Plan\n\n" + "".join(f"- [ ] {words}\n" for words in found))
        for number, script in enumerate(found.values(), 1):
            self.agent(number, script or f"echo {number} > {number}.txt")
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "the plan")
        self.lanes(**config)

    def lanes(self, gates: Iterable[str] = ("true",), **keys: Any) -> None:
        """Write the configuration, outside the workspace; `keys` are those of [lanes], or, with a
        "__" in them, of other tables."""
        own = {"max": 3, "directory": str(self.trees)} | {
            key: value for key, value in keys.items() if "__" not in key
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in FAST.items()]
        lines.append(f"agent_command_template = {json.dumps(f'sh {AGENT} {{prompt_file}}')}")
        tables: dict[str, dict[str, Any]] = {"lanes": own, "verify": {"commands": list(gates)}}
        for key, value in keys.items():
            if "__" in key:
                table, _, name = key.partition("__")
                tables.setdefault(table, {})[name] = value
        for table, values in tables.items():
            lines.append(f"[{table}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        self.file.write_text("\n".join(lines) + "\n")

    @property
    def file(self) -> Path:
        """The configuration."""
        return self.root / "lanes.toml"

    @property
    def trees(self) -> Path:
        """Where the work trees are."""
        return self.root / "trees"

    def agent(self, which: object, script: str) -> None:
        """What the agent of an item (3), of one of its runs ("3.2"), or of a lane ("3b") does."""
        (self.agents / str(which)).write_text(script + "\n")

    def run_lanes(self, *more: str, patience: float = 120.0) -> int:
        """Run to the end; the exit code."""
        return self.ended(self.start_lanes(*more), patience)

    def start_lanes(self, *more: str, **how: Any) -> Any:
        """Start the supervisor."""
        return self.start("--config", str(self.file), *more, **how)

    @property
    def known(self) -> dict[str, Any]:
        """`lanes.json`."""
        found: dict[str, Any] = json.loads((self.state / "lanes.json").read_text())
        return found

    def lane(self, which: object) -> dict[str, Any]:
        """What is known of one lane; {} before it is."""
        try:
            lanes = self.known["lanes"]
        except (FileNotFoundError, ValueError):
            return {}
        return next((one for one in lanes if one["id"] == str(which)), {})

    def ref(self, which: object) -> str:
        """What keeps the commits of a lane."""
        return ref(str(which), os.path.realpath(self.state))

    def events(self, event: str = "") -> list[dict[str, Any]]:
        """The journal of lanes."""
        path = self.state / "logs" / "lanes.jsonl"
        lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
        return [line for line in lines if event in ("", line["event"])]

    def seen(self, which: object) -> list[str]:
        """The prompts that a lane's agent had, in order."""
        files = sorted(self.agents.glob(f"seen.{which}.*"), key=os.path.getmtime)
        return [file.read_text() for file in files]

    def at(self, commit: str, file: str) -> str:
        """A file's content at a commit."""
        return self.git("show", f"{commit}:{file}")

    def contents(self, commit: str = "main") -> set[str]:
        """The files of a commit."""
        return set(self.git("ls-tree", "-r", "--name-only", commit).splitlines())

    def made(self) -> set[str]:
        """The commits that lanes were at: after an agent's run by its own word, and by the journals."""
        found = {line for file in self.agents.glob("heads.*") for line in file.read_text().split()}
        for file in self.state.glob("lanes/*/state/logs/iterations.jsonl"):
            lines = map(json.loads, file.read_text().splitlines())
            found |= {str(line["head_after"]) for line in lines if line.get("head_after")}
        return found

    def lost(self) -> set[str]:
        """Those of them that no ref reaches."""
        return self.made() - set(self.git("rev-list", "--all").split())
