"""What lies on the disk: broken journals and snapshots, privacy of files, secrets, and the kill
loop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.harness import Workspace, wait_until

DONE = {"block": {"completed": True}}
ROOT = Path(__file__).resolve().parents[2]
KEY = "Zk9vQ2hhbmdlTWVOb3cxMjM0NTY3ODkw"
PRINTED = "sk-ant-" + "api03-Qw7eRt9yUi2oPa4sDf6gHj8kLz0xCv1b"


def journal(ws: Workspace) -> Path:
    return ws.state / "logs" / "iterations.jsonl"


def good_lines(ws: Workspace) -> list[dict[str, object]]:
    found = []
    for raw in journal(ws).read_bytes().split(b"\n"):
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and "iteration" in line:
            found.append(line)
    return found


DAMAGE = {
    "torn tail": b'{"iteration": 3, "next_goal": "half a li',
    "NUL block": b"\0" * 4096,
    "NUL block and line feed": b"\0" * 4096 + b"\n",
    "foreign line": b"hello, I am not yours\n",
    "foreign JSON": b'{"event": "x"}\n[1, 2]\n',
    "binary": bytes(range(256)) * 8,
}


OFTEN = ("torn tail",)


@pytest.mark.parametrize(
    "kind",
    [*OFTEN, *(pytest.param(kind, marks=pytest.mark.slow) for kind in DAMAGE if kind not in OFTEN)],
)
@pytest.mark.parametrize("without_snapshot", [False, True], ids=["snapshot", "no snapshot"])
def test_a_damaged_journal_loses_no_goal_and_no_number(
    ws: Workspace, kind: str, without_snapshot: bool
) -> None:
    ws.script({"block": {"next_goal": "two"}}, {"block": {"next_goal": "three"}}, DONE)
    assert ws.run("--max-iterations", "2") == 0
    with journal(ws).open("ab") as file:
        file.write(DAMAGE[kind])
    if without_snapshot:
        for name in ("runtime.json", "runtime.json.1"):
            (ws.state / name).unlink()
    assert ws.run() == 0, ws.log()
    assert [json.loads(line) for line in journal(ws).read_bytes().splitlines()]
    lines = good_lines(ws)
    assert [line["iteration"] for line in lines] == [1, 2, 3]
    assert lines[2]["goal_in"] == "three"
    assert "three" in ws.prompt(3)


@pytest.mark.slow
def test_a_long_journal_slows_neither_start_nor_iteration(ws: Workspace) -> None:
    ws.script({"block": {"next_goal": "two"}}, DONE)
    began = time.monotonic()
    assert ws.run("--max-iterations", "1") == 0
    short = time.monotonic() - began
    line = json.loads(journal(ws).read_text())
    with journal(ws).open("w") as file:
        for number in range(1, 100_001):
            file.write(
                json.dumps(
                    {**line, "iteration": number, "after": {**line["after"], "iteration": number}}
                )
                + "\n"
            )
    for name in ("runtime.json", "runtime.json.1"):
        (ws.state / name).unlink()
    began = time.monotonic()
    assert ws.run() == 0
    assert time.monotonic() - began < 3 * short + 5
    with journal(ws).open("rb") as file:
        file.seek(-100_000, 2)
        last = json.loads(file.read().splitlines()[-1])
    assert last["iteration"] == 100_001
    assert last["goal_in"] == "two"


def test_a_truncated_snapshot_is_replaced_by_the_one_before(ws: Workspace) -> None:
    ws.script({"block": {"next_goal": "two"}}, {"block": {"next_goal": "three"}}, DONE)
    assert ws.run("--max-iterations", "2") == 0
    whole = (ws.state / "runtime.json").read_bytes()
    (ws.state / "runtime.json").write_bytes(whole[: len(whole) // 2])
    assert ws.run() == 0
    assert [line["iteration"] for line in ws.journal()] == [1, 2, 3]
    assert ws.journal()[2]["goal_in"] == "three"
    assert "runtime.json.1" in ws.log()


@pytest.mark.slow
def test_with_nothing_readable_it_refuses_and_keeps_everything(ws: Workspace) -> None:
    ws.script({"block": {"next_goal": "two"}}, DONE)
    assert ws.run("--max-iterations", "1") == 0
    broken = {
        "runtime.json": b"{ half",
        "runtime.json.1": b"\0" * 100,
        "logs/iterations.jsonl": b"\0" * 500,
    }
    for name, data in broken.items():
        (ws.state / name).write_bytes(data)
    for _ in range(2):  # also the second time, when the broken files lie in quarantine already
        assert ws.run() == 2
    kept = [path.read_bytes() for path in (ws.state / "quarantine").iterdir()] + [
        journal(ws).read_bytes()
    ]
    for data in broken.values():
        assert data in kept
    assert "Traceback" not in ws.log()
    assert "move the directory away" in ws.log()
    assert ws.started() == 1


@pytest.mark.parametrize(
    "mask", ["000", *(pytest.param(mask, marks=pytest.mark.slow) for mask in ("077", "777"))]
)
def test_everything_is_private_whatever_the_umask(ws: Workspace, mask: str) -> None:
    ws.config('[verify]\ncommands = ["true"]\nevery_iteration = true')
    ws.script({"exit": 2}, {"append": {"work.txt": "x"}, "block": {"next_goal": "more"}}, DONE)
    script = f'umask {mask}; exec "$@"'
    assert ws.run(prefix=["/bin/sh", "-c", script, "sh"]) == 0, ws.log()
    (ws.state / "inbox").stat()
    wrong = []
    for path in [ws.state, *ws.state.rglob("*")]:
        mode = path.lstat().st_mode & 0o777
        if mode != (0o700 if path.is_dir() else 0o600):
            wrong.append(f"{oct(mode)} {path.relative_to(ws.path)}")
    assert not wrong, "\n".join(wrong)


def test_secrets_stay_out_of_everything_that_is_kept(ws: Workspace) -> None:
    ws.plan(f"# Plan\n\n- [ ] use {KEY} carefully\n")
    ws.script(
        {"exit": 4, "raw": f"the key is {PRINTED} and {KEY}\n"},
        {
            "say": f"Authorization: Bearer {PRINTED}",
            "block": {
                "summary": f"used {KEY}",
                "next_goal": f"use {PRINTED} again",
                "evidence": [KEY],
            },
        },
        {"block": {"completed": True, "summary": f"done with {KEY}"}},
    )
    assert ws.run(environment={"ACME_API_KEY": KEY}) == 0
    assert KEY in ws.prompt(1)  # the agent itself saw its prompt verbatim
    found = []
    for path in ws.state.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        found += [
            str(path.relative_to(ws.state)) for secret in (KEY, PRINTED) if secret.encode() in data
        ]
    assert not found
    assert KEY not in ws.log()
    assert PRINTED not in ws.log()
    assert "[redacted]" in journal(ws).read_text()


def test_no_half_of_a_secret_is_left_where_a_text_is_cut(ws: Workspace) -> None:
    summaries = [f"{'x' * (cut - len(KEY) // 2)}{KEY}" for cut in (120, 160, 200, 300)]
    steps = [{"append": {"w": "x"}, "block": {"summary": s, "next_goal": s}} for s in summaries]
    failed = {"raw": f"{'x' * (484 - len(KEY) // 2)} {KEY}", "exit": 1}
    ws.script(*steps, failed, {"block": {"completed": True}})
    told = ws.root / "told"
    ws.config(f"[notify]\ncommand = ['sh', '-c', \"cat >> '{told}'\"]\n")
    assert ws.run("--debug", environment={"ACME_API_KEY": KEY}) == 0
    half = KEY[: len(KEY) // 2 - 1]
    kept = [path for path in ws.state.rglob("*") if path.is_file()]
    assert not [path.name for path in (*kept, told) if half.encode() in path.read_bytes()]
    assert half not in ws.log()


def test_what_was_killed_with_its_supervisor_is_gone_through_as_well(ws: Workspace) -> None:
    ws.config(on_orphan="kill")
    ws.plan(f"# Plan\n\n- [ ] use {KEY}\n")
    ws.script({"say": f"it is {KEY}", "sleep": 120}, {"block": {"completed": True}})
    secret = {"ACME_API_KEY": KEY}
    first = ws.start(environment=secret)
    output = ws.state / "logs" / "runs" / "000001-executor" / "stdout.log"
    wait_until(lambda: output.exists() and KEY in output.read_text(), "the output")
    first.kill()
    first.wait()
    assert ws.run(environment=secret) == 0
    assert [
        p.name for p in ws.state.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()
    ] == []


def test_the_loop_goes_on_from_its_own_words(ws: Workspace) -> None:
    """A goal is not changed by a restart, whatever is shown of it."""
    goal = f"start postgres with {KEY}"
    ws.script({"append": {"w": "x"}, "block": {"next_goal": goal}}, {"sleep": 120, "until": "go"})
    secret = {"ACME_API_KEY": KEY, "POSTGRES_PASSWORD": "postgres"}
    first = ws.start(environment=secret)
    ws.wait_runs(2)
    shown = "start postgres with [redacted]"
    wait_until(lambda: ws.status()["goal"] == shown, "the goal in the status")
    first.send_signal(signal.SIGTERM)
    assert ws.ended(first) == 0
    ws.script({"block": {"completed": True}})
    assert ws.run(environment=secret) == 0
    assert goal in ws.prompt(3)


def test_without_a_telling_name_a_value_is_kept(ws: Workspace) -> None:
    """Negative control: it is the redaction that takes the key out, and only where it is a
    secret."""
    ws.script({"block": {"completed": True, "summary": f"done with {KEY}"}})
    assert ws.run(environment={"ACME_COLOUR": KEY}) == 0
    assert KEY in journal(ws).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["adopt", "kill"])
def test_nothing_is_lost_when_it_is_killed_again_and_again(policy: str) -> None:
    script = [
        sys.executable,
        str(ROOT / "tests" / "faults" / "kill_loop.py"),
        "--count",
        "10",
        "--on-orphan",
        policy,
    ]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
