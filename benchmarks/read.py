"""What it takes to read what an agent printed, at the bound of its log, and to take secrets out."""

from __future__ import annotations

import json
import time
from pathlib import Path

from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import Request
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.world.state.redact import Redactor, redact_file
from codex_self_iter.world.state.root import StateRoot

SIZE = 64 * 2**20
"""`output.max_run_mb`."""
ENDED = RunOutcome("r", EndCause.EXIT, 1, None, 0.0, 1.0)


def event(cli: str, text: str) -> bytes:
    """A line that such an agent prints."""
    value: dict[str, object] = {
        "type": "item.completed",
        "item": {"type": "reasoning", "text": text},
    }
    if cli == "claude":
        content = [{"type": "text", "text": text}]
        value = {"type": "assistant", "session_id": "s", "message": {"content": content}}
    return json.dumps(value).encode() + b"\n"


def show(root: Path) -> None:
    """Print CPU milliseconds for each CLI, for small lines and for a single one."""
    state, redactor = StateRoot(str(root)), Redactor(["q7Zr" * 15])
    request = Request("", "", "/", "", str(root), environment={"HOME": str(root)})
    for cli in ("codex", "claude"):
        for name, text in (("small lines", "a word " * 30), ("one line", "a word " * (SIZE // 7))):
            line = event(cli, text)
            (root / "stdout.log").write_bytes(line * max(1, SIZE // len(line)))
            begun = time.process_time()
            catalog.get(cli).read(request, ENDED, RunFiles(str(root)), now=1.0)
            read = time.process_time()
            redact_file(state, "stdout.log", redactor)
            times = (read - begun) * 1e3, (time.process_time() - read) * 1e3
            print(f"{cli}, {name}: {times[0]:.0f} ms to read, {times[1]:.0f} ms to redact")
