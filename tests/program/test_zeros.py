"""Keys that say "0 = no limit", "keep all" or "off" do that."""

from __future__ import annotations

import json
import re
from pathlib import Path

import codex_self_iter.settings.schema as schema
from tests.support.harness import Workspace

TOP = (
    "max_iterations", "max_stagnation", "max_outage_sec", "command_timeout_sec", "idle_timeout_sec",
    "memory_limit_mb", "min_free_disk_mb", "max_consecutive_errors", "no_change_gate",
    "history_tail", "kill_grace_sec", "backoff_base_sec", "no_change_backoff_sec",
    "continue_false_backoff_sec", "planner_stop_backoff_sec",
)  # fmt: skip
TABLES = {
    "verify": ("timeout_sec", "confirmations"),
    "budget": (
        "max_tokens", "max_cost_usd", "max_hours", "max_tokens_per_day", "max_cost_usd_per_day",
        "max_hours_per_day", "notice_at",
    ),
    "output": ("max_run_mb", "keep_runs", "keep_days", "max_state_mb", "log_max_mb"),
    "notes": ("max_count", "max_bytes"),
    "pool": ("max_memory_mb",),
    "service": ("finish_timeout_sec",),
    "git": ("timeout_sec", "checkpoint_keep", "checkpoint_keep_days", "checkpoint_max_file_mb"),
    "agents.codex": ("linger_sec", "resume_max_turns", "resume_max_tokens", "resume_max_hours"),
}  # fmt: skip


def zeros(**more: str) -> str:
    parts = []
    for table, keys in TABLES.items():
        lines = [f"{key} = 0" for key in keys if key not in more] + [more.get(table, "")]
        parts.append("\n".join([f"[{table}]", *lines]))
    return "\n".join(parts)


def test_all_of_them_at_once_limit_nothing(ws: Workspace) -> None:
    ws.config(
        zeros(
            git='commit = "supervisor"',
            verify='commands = ["test -s plan.md"]\nevery_iteration = true',
        ),
        **dict.fromkeys(TOP, 0),
    )
    big = "head -c 11000000 /dev/zero > big.bin"
    used = {"type": "usage", "input_tokens": 10}
    ws.script(
        {"run": big, "flood_mb": 1, "raw": json.dumps(used) + "\n"},
        {"exit": 3},
        {"block": {"next_goal": "same"}},
        {"block": {"next_goal": "same"}},
        {"block": {"next_goal": "same"}},
        {"write": {"a.txt": "a"}, "block": {"completed": True}},
    )
    assert ws.run() == 0, ws.log()
    assert ws.started() == 6
    assert ws.verdicts()[-1] == "completed"
    assert set(ws.git("log", "--format=", "--name-only", "-2").split()) == {"a.txt", "big.bin"}
    point = ws.journal()[-1]["checkpoint"]
    assert "big.bin" in ws.git("ls-tree", "--name-only", point)
    assert not list((ws.state / "logs").glob("supervisor.log.*"))
    assert (ws.state / "logs" / "runs" / "000001-executor" / "stdout.log").stat().st_size > 2**20
    assert "is used" not in ws.log()
    assert ws.status()["warnings"] == []


def test_a_big_untracked_file_is_kept_and_no_notice_given(ws: Workspace) -> None:
    ws.config("[git]\ncheckpoint_max_file_mb = 0\n[budget]\nmax_hours = 1000\nnotice_at = 0\n")
    ws.script({"run": "head -c 11000000 /dev/zero > big.bin", "block": {"completed": True}})
    assert ws.run() == 0
    assert "big.bin" in ws.git("ls-tree", "--name-only", ws.journal()[-1]["checkpoint"])
    assert "is used" not in ws.log()


def test_every_key_that_says_so_is_tried_here() -> None:
    source = Path(schema.__file__).read_text()
    said = re.findall(r'^    (\w+): [^\n]*\n    """(?:(?!""").)*?\b0 = ', source, re.M | re.S)
    tried = {*TOP, *(key for keys in TABLES.values() for key in keys)}
    tried.add("setup_timeout_sec")  # lanes/test_lanes_run.py
    assert len(said) > 30
    assert set(said) <= tried
