"""What an agent was not allowed to do, and what of the configuration cannot be kept, is said."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from codex_self_iter.settings.templates import TASK
from tests.support.control_steps import CLAIM, long_run, notify, told
from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM

DENIAL = {"tool_name": "Bash", "tool_use_id": "t", "tool_input": {"command": "pytest -q"}}
BLOCK = {"summary": "s", "next_goal": "on", "stop": False, "reason": "r", "evidence": []}
REFUSED = "claude was not allowed to use: Bash: pytest -q"


def claude_says(answer: str, denials: list[dict[str, object]], **more: object) -> str:
    """The stream of a run."""
    init = {"type": "system", "subtype": "init", "session_id": "s", "model": "m"}
    result = {"type": "result", "subtype": "success", "is_error": False, "session_id": "s"}
    end = result | {"result": answer, "permission_denials": denials, "total_cost_usd": 0.1} | more
    return "".join(json.dumps(event) + "\n" for event in (init, end))


class Stub:
    """A program that prints what is in the file beside it."""

    def __init__(self, ws: Workspace, name: str) -> None:
        self.program = ws.root / "bin" / name
        self.program.parent.mkdir()
        self.said = self.program.parent / "said"
        read = "while read -r line; do :; done"  # the prompt
        self.program.write_text(
            f'#!/bin/sh\n{read}\n/bin/cat "${{0%/*}}/said"\nexit ${{CODE:-0}}\n'
        )
        self.program.chmod(0o755)

    def table(self, name: str, path: str = "/usr/bin:/bin", code: int = 0) -> str:
        env = f'env = {{ PATH = "{path}", CODE = "{code}" }}'
        return f"[agents.{name}]\nbinary = {json.dumps(str(self.program))}\n{env}\n"


def prompt(ws: Workspace, iteration: int) -> str:
    return (ws.state / "prompts" / f"{iteration:06}-executor.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["continue", "error", "no block"])
def test_what_was_refused_is_in_log_show_status_and_the_next_prompt(
    ws: Workspace, ends: str
) -> None:
    claude = Stub(ws, "claude")
    answer = json.dumps(BLOCK | {"completed": False}) if ends != "no block" else "I could not."
    failed = {"is_error": True} if ends == "error" else {}
    claude.said.write_text(claude_says(answer, [DENIAL, DENIAL], **failed))
    ws.config(claude.table("claude"), agent="claude", max_iterations=1)
    ws.run()
    assert REFUSED in ws.log()
    assert any(text.startswith(REFUSED) for text in ws.status()["warnings"])
    assert "refused    Bash: pytest -q" in ws.cli("show", "1").stdout
    assert f"- {REFUSED}" in (ws.state / "report.md").read_text()
    # A supervisor that comes later knows it; one answer without a refusal, and it is over.
    claude.said.write_text(claude_says(json.dumps(BLOCK | {"completed": False}), []))
    ws.run()
    assert REFUSED in prompt(ws, 2)
    assert not any(REFUSED in text for text in ws.status()["warnings"])
    ws.run()
    assert REFUSED not in prompt(ws, 3)


def codex_says() -> str:
    events = [
        {"type": "thread.started", "thread_id": "0197a000-0000-7000-8000-000000000001"},
        {"type": "turn.started"},
        {"type": "item.completed", "item": {
            "id": "i", "type": "agent_message", "text": json.dumps(BLOCK | {"completed": True})}},
        {"type": "turn.completed", "usage": {"input_tokens": 100, "output_tokens": 10}},
    ]  # fmt: skip
    return "".join(json.dumps(event) + "\n" for event in events)


KEPT = "max_cost_usd cannot be kept for codex"


@pytest.mark.parametrize(
    ("tables", "model", "said"),
    [
        ("", "", "[prices] lacks its model"),
        ('[prices."other"]\ninput_per_mtok = 1\noutput_per_mtok = 1\n', "gpt-5.5",
         '[prices."gpt-5.5"] is missing'),
        ('[prices."gpt-5.5"]\ninput_per_mtok = 1\noutput_per_mtok = 1\n', "gpt-5.5", ""),
    ],
    ids=["no prices", "another model", "priced"],
)  # fmt: skip
def test_a_bound_of_money_that_cannot_be_kept_is_said_before_the_first_run(
    ws: Workspace, tables: str, model: str, said: str
) -> None:
    codex = Stub(ws, "codex")
    codex.said.write_text(codex_says())
    chosen = codex.table("codex") + f'model = "{model}"\n'
    ws.config("[budget]\nmax_cost_usd = 0.05\n" + tables + chosen, agent="codex")
    assert ws.run() == 0
    log, report = ws.log(), (ws.state / "report.md").read_text()
    assert (KEPT in log) is bool(said)
    assert said in log
    assert any(KEPT in text for text in ws.status()["warnings"]) is bool(said)
    assert ("is not known" in report) is bool(said)
    assert "$0.00 " not in report
    if said:
        assert log.index(KEPT) < log.index("run.started")
    doctor = ws.cli("doctor").stdout
    assert ("budget.codex" in doctor) is bool(said)


def test_a_price_that_turns_out_to_be_missing_is_said_when_it_does(ws: Workspace) -> None:
    """Which model it is only the run tells."""
    codex = Stub(ws, "codex")
    codex.said.write_text(codex_says())
    prices = '[prices."other"]\ninput_per_mtok = 1\noutput_per_mtok = 1\n'
    ws.config("[budget]\nmax_cost_usd = 1\n" + prices + codex.table("codex"), agent="codex")
    assert ws.run() == 0
    assert ws.log().index("run.ended") < ws.log().index(KEPT)


@pytest.mark.parametrize("key", ["max_cost_usd_per_day", "max_tokens", "max_tokens_per_day"])
def test_a_template_tells_neither_tokens_nor_cost(ws: Workspace, key: str) -> None:
    ws.script({"block": {"completed": True}})
    ws.config(f"[budget]\n{key} = 1\n")
    assert ws.run() == 0
    said = f"{key} cannot be kept for command: a template tells neither tokens nor cost"
    assert said in ws.log()
    assert any(said in text for text in ws.status()["warnings"])
    assert "budget.command" in ws.cli("doctor").stdout


def test_a_bound_of_tokens_is_kept_for_who_tells_them(ws: Workspace) -> None:
    codex = Stub(ws, "codex")
    codex.said.write_text(codex_says())
    ws.config("[budget]\nmax_tokens = 100\n" + codex.table("codex"), agent="codex")
    assert ws.run() == 0
    assert "cannot be kept" not in ws.log()


def test_without_a_bound_of_money_nothing_is_said_of_it(ws: Workspace) -> None:
    ws.script({"block": {"completed": True}})
    assert ws.run() == 0
    assert "cannot be kept" not in ws.log()


def test_a_missing_sandbox_is_said_at_the_start(ws: Workspace) -> None:
    claude = Stub(ws, "claude")
    claude.said.write_text(claude_says(json.dumps(BLOCK | {"completed": True}), []))
    ws.config(claude.table("claude", path="/nowhere"), agent="claude")
    assert ws.run() == 0
    assert "without bubblewrap and socat claude has no sandbox" in ws.log()
    there = Path(claude.program.parent)
    for name in ("bwrap", "socat"):
        (there / name).write_text("#!/bin/sh\n")
        (there / name).chmod(0o755)
    ws.config(claude.table("claude", path=str(there)), agent="claude")
    assert ws.run() == 0
    assert "no sandbox" not in str(ws.status()["warnings"])


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED HERE: another user's needs root")
def test_root_in_another_users_workspace_is_said(ws: Workspace) -> None:
    ws.config()
    ws.script({"block": BLOCK | {"completed": True}})
    said = "this runs as root in a workspace of user 12345"
    os.chown(ws.path, 12345, 12345)
    assert ws.run() == 0
    assert said in ws.log()
    assert "workspace.owner" in ws.cli("doctor", "--json").stdout
    os.chown(ws.path, 0, 0)
    assert ws.run() == 0
    assert said not in str(ws.status()["warnings"])


def test_commands_that_cannot_work_are_said_before_the_first_run_until_they_can(
    ws: Workspace,
) -> None:
    notify = '[notify]\ncommand = ["no-such-program"]\nevents = ["budget"]\n'
    ws.config(f'[verify]\ncommands = ["./check.sh"]\n{notify}')
    mended = "printf '#!/bin/sh\\n' > check.sh; chmod +x check.sh"
    ws.script({"block": {"completed": True}}, {"run": mended, "block": {"completed": True}})
    assert ws.run() == 0
    gate = "the program './check.sh' of the gate './check.sh' is not there"
    told = "the program 'no-such-program' of [notify] command is not there"
    log = ws.log()
    assert log.index(gate) < log.index("run.started")
    assert log.index(told) < log.index("run.started")
    assert [told in text and gate not in text for text in ws.status()["warnings"]] == [True]
    missing = "`./check.sh` exited with code 127 (a program of it is not there)"
    assert [line["unproven"] for line in ws.journal()] == [missing, ""]


HOOKS = """[hooks]
on_start = ["./hook --now"]
on_end = ["date && no-such-hook", "echo 'open"]
before_iteration = ["test 1 = 1"]
"""


def test_hooks_that_cannot_work_are_said_by_doctor_config_check_and_a_start(ws: Workspace) -> None:
    (ws.path / "hook").write_text("#!/bin/sh\n")
    ws.config(HOOKS)
    missing = "the program './hook' of the on_start hook './hook --now' is not executable"
    doubtful = "the program 'no-such-hook' of the on_end hook 'date && no-such-hook' is not there"
    broken = '"echo \'open" is no shell command'
    found = json.loads(ws.cli("doctor", "--json").stdout)["findings"]
    told = {one["id"]: one for one in found if one["id"].startswith("hook.")}
    assert {key: (one["status"], one["what"].partition(" (")[0]) for key, one in told.items()} == {
        "hook.on_start.1": ("fail", missing),
        "hook.on_end.1": ("warn", doubtful),
        "hook.on_end.2": ("fail", broken),
    }
    assert told["hook.on_start.1"]["mend"].startswith("chmod +x ")
    assert told["hook.on_end.2"]["mend"] == "mend [hooks] on_end"
    checked = ws.cli("config", "check")
    assert checked.returncode == 0
    assert all(text in checked.stdout for text in (missing, doubtful, broken))
    assert ws.run() == 0
    (warning,) = [text for text in ws.status()["warnings"] if missing in text]
    assert broken in warning
    assert doubtful not in warning


@pytest.mark.parametrize("flaw", ["", "missing", "empty", "large", "binary"])
def test_files_of_prompt_are_looked_at_in_the_words_of_a_start(ws: Workspace, flaw: str) -> None:
    texts = {"": b"Hello", "empty": b" \n", "large": b"x" * 70_000, "binary": b"a\0"}
    if flaw != "missing":
        (ws.path / "mine.md").write_bytes(texts[flaw])
    ws.config('[prompt.planner]\nbefore = "mine.md"\n', mode="roles")
    checked = ws.cli("config", "check")
    found = json.loads(ws.cli("doctor", "--json").stdout)["findings"]
    faults = [one["what"] for one in found if one["status"] == "fail"]
    if not flaw:
        assert (checked.returncode, faults) == (0, [])
        return
    assert ws.run() == 2
    (said,) = [line for line in ws.log().splitlines() if "mine.md" in line]
    assert checked.returncode == 2
    assert said.split("; ")[0].endswith(faults[0])
    assert said.strip() in checked.stderr


def test_a_gate_that_takes_too_long_is_said_to_have_timed_out(ws: Workspace) -> None:
    ws.config('[verify]\ncommands = ["sleep 600"]\ntimeout_sec = 0.2\n', max_iterations=1)
    ws.script({"block": {"completed": True}})
    ws.run()
    assert "`sleep 600` timed out" in ws.journal()[0]["unproven"]
    gate = next(line for line in ws.log().splitlines() if "gate.failed" in line)
    assert "timed out" in gate
    assert "000001-gate-1: timed out" in ws.cli("logs", "1").stdout
    assert "- `sleep 600`: timed out" in (ws.state / "report.md").read_text()


def test_a_gate_that_a_signal_ends_is_said_to_have_ended_so(ws: Workspace) -> None:
    ws.config('[verify]\ncommands = ["kill -SEGV $$"]\n', max_iterations=1)
    ws.script({"block": {"completed": True}})
    ws.run()
    assert "`kill -SEGV $$` ended by signal SEGV (code 139)" in ws.journal()[0]["unproven"]
    assert ws.journal()[0]["gates"][0]["exit_code"] == 139


def test_a_plan_without_items_makes_require_plan_done_void_and_that_is_said(ws: Workspace) -> None:
    ws.config("[verify]\nrequire_plan_done = true\n")
    ws.plan("# Plan\n\nNo boxes yet.\n")
    ws.script(
        {"block": {"next_goal": "x"}, "write": {"plan.md": "- [x] a box\n"}},
        {"block": {"completed": True}},
    )
    process = ws.start()
    said = "require_plan_done has no effect: plan.md has no checkboxes"
    assert ws.ended(process) == 0
    log = ws.log()
    assert log.index(said) < log.index("run.started")
    assert log.count(said) == 1
    assert said not in str(ws.status()["warnings"])


def test_a_loop_that_comes_to_nothing_is_told_once_and_goes_on(ws: Workspace) -> None:
    ws.config(notify(ws), max_stagnation=1, max_iterations=7)
    ws.script({"append": {"work.txt": "x\n"}, "number": True})
    assert ws.run() == 0
    said = "no item ticked, no claim and no other result of a gate for more than 3 iterations"
    assert [said in ws.prompt(run) for run in range(1, 8)] == [False] * 4 + [True] + [False] * 2
    assert [one["event"] for one in told(ws)] == ["cooldown"]
    assert said in told(ws)[0]["text"]
    assert ws.log().count("state.warning") == 1
    assert any(said in text for text in ws.status()["warnings"])


def test_a_task_that_nobody_has_written_is_said_until_it_is(ws: Workspace) -> None:
    (ws.path / "TASK.md").write_text(TASK)
    ws.script(long_run(until="go"), CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    assert any("still as `init` wrote it" in text for text in ws.status()["warnings"])
    (ws.path / "TASK.md").write_text("# Task\n\nMake it so.\n")
    wait_until(lambda: not ws.status()["warnings"], "the end of the warning")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("where", ["inner", ".."])
def test_two_loops_on_the_same_files_are_told(ws: Workspace, own: bool, where: str) -> None:
    """One that has a repository of its own shares nothing."""
    other = ws.path / where if where == "inner" else ws.path.parent
    other.mkdir(exist_ok=True)
    (other / "plan.md").write_text("- [ ] a\n\n  ```sh\n  true\n  ```\n")
    if where == "inner":
        if own:
            subprocess.run(["git", "init", "-q"], cwd=other, env=ws.environment, check=True)
    elif not own:
        (ws.path / ".git").rename(ws.root / "away")
    ws.script(long_run("go"), CLAIM)
    ws.start()
    ws.wait_runs(1)
    done = subprocess.run(
        [*PROGRAM, "run", "--workspace", str(other), "--agent", "plan-shell"],
        env=ws.environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = f"another loop is at work on the same files ({ws.path})"
    assert (said in done.stderr) is not own
