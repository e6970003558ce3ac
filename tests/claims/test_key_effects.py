"""What the keys of docs/configuration.md do, where no other test shows it from outside.

Each has its negative control: the same scene without the key goes otherwise."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.world.process.signals import TWIN_SEC
from tests.support.control_steps import CLAIM, WORK, notify, told, wait_log
from tests.support.harness import Workspace, wait_until

PLANNER = (
    '{"objective": "o", "execution_prompt": "do exactly this", "done_if": "it is", "stop": %s, '
    '"rationale": "r"}'
)
REVIEW = '{"continue": %s, "confidence": 0.9, "next_focus": "", "reason": "looked"}'
STAND_IN = """#!/bin/sh
'''exec' '{python}' -SE "$0" "$@"
' '''
# Notes how it was called; prints what codex or claude prints, as the n-th of `answers` says.
import json, os, sys
at = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(at, "calls"), "a") as file:
    file.write(json.dumps({{"argv": sys.argv[1:], "env": dict(os.environ)}}) + "\\n")
number = sum(1 for _ in open(os.path.join(at, "calls"))) - 1
prompt = sys.stdin.read()
answers = json.load(open(os.path.join(at, "answers")))
said = answers[min(number, len(answers) - 1)]
open("work.txt", "a").write("x\\n")
say = lambda **event: print(json.dumps(event), flush=True)
if os.path.basename(__file__) == "claude":
    say(type="system", subtype="init", session_id=f"s{{number}}", model="m")
    say(type="result", subtype="success", is_error=False, result=said, session_id=f"s{{number}}",
        total_cost_usd=2.0, usage={{"input_tokens": 100, "output_tokens": 10}})
else:
    new = f"0197a000-0000-7000-8000-{{number:012d}}"
    resumed = sys.argv[sys.argv.index("resume") + 1] if "resume" in sys.argv else new
    say(type="thread.started", thread_id=resumed)
    say(type="turn.started")
    say(type="item.completed", item={{"id": "i", "type": "agent_message", "text": said}})
    say(type="turn.completed", usage={{"input_tokens": 100, "cached_input_tokens": 40,
        "output_tokens": 10, "reasoning_output_tokens": 0}})
"""
GO_ON = {"summary": "s", "next_goal": "on", "stop": False, "reason": "r", "evidence": []}
DONE = json.dumps({**GO_ON, "completed": True})
MORE = json.dumps({**GO_ON, "completed": False})

pytestmark = pytest.mark.slow


def stand_in(ws: Workspace, name: str, *answers: str) -> Path:
    """A program that is called as this CLI is."""
    program = ws.root / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    (program.parent / "answers").write_text(json.dumps(answers or (MORE, DONE)))
    return program


def calls(ws: Workspace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ws.root / "bin" / "calls").read_text().splitlines()]


def after(argv: list[str], word: str) -> str:
    """What follows a word of a command line, or ""."""
    return argv[argv.index(word) + 1] if word in argv else ""


def table(program: Path, more: str = "") -> str:
    return f"[agents.{program.name}]\nbinary = {json.dumps(str(program))}\n{more}\n"


# -- the places ------------------------------------------------------------------------------------


def test_relative_paths_count_from_where_the_page_says(ws: Workspace) -> None:
    docs = ws.path / "docs"
    docs.mkdir()
    (docs / "t.md").write_text("THE TASK\n")
    (docs / "p.md").write_text("- [ ] THE ITEM\n")
    ws.config('[verify]\ncommands = ["true"]\n', task_file="docs/t.md", plan_file="docs/p.md",
              state_dir="docs/state", lock_file_name="my.lock")  # fmt: skip
    process = ws.start("--workspace", ws.path.name)  # the current directory is the one above
    assert ws.ended(process) == 0, ws.log()
    assert "THE TASK" in ws.prompt(1)
    assert "THE ITEM" in ws.prompt(1)
    assert "- [ ] first" not in ws.prompt(1)
    state = docs / "state"
    assert (state / "my.lock").exists()
    assert not (state / "loop.lock").exists()
    assert not ws.state.exists()


def test_the_task_may_be_missing_and_the_plan_may_not(ws: Workspace) -> None:
    assert ws.run() == 0
    ws.config(task_file="nowhere.md")
    assert ws.run() == 2
    (ws.path / "plan.md").unlink()
    ws.config()
    assert ws.run() == 2
    assert "plan file" in ws.log()


# -- which agent -----------------------------------------------------------------------------------


def test_auto_takes_the_template_else_an_installed_one_and_never_plan_shell(ws: Workspace) -> None:
    program = stand_in(ws, "codex", DONE)
    ws.environment["PATH"] = f"{program.parent}:/usr/bin:/bin"
    assert ws.run() == 0
    assert ws.started() == 1
    assert not (program.parent / "calls").exists()
    (ws.path / "codex-self-iter.toml").write_text("")
    assert ws.run() == 0, ws.log()
    assert len(calls(ws)) == 1
    ws.environment["PATH"] = "/usr/bin:/bin"
    ws.environment["HOME"] = str(ws.root / "nobody")
    assert ws.run() == 2
    assert "no agent was found" in ws.log()
    assert "plan-shell" in ws.log()


@pytest.mark.parametrize("adapter", ["codex", "claude"])
def test_the_table_of_an_adapter_is_how_it_is_called(ws: Workspace, adapter: str) -> None:
    program = stand_in(ws, adapter, DONE)
    home = "CODEX_HOME" if adapter == "codex" else "CLAUDE_CONFIG_DIR"
    ws.environment |= {"MY_API_KEY": "sesame-12345678", "OTHER_API_KEY": "sesame-87654321"}
    more = (
        f'model = "m-1"\neffort = "low"\nhome = {json.dumps(str(ws.root / "h"))}\n'
        'args = ["--x", "y z"]\npass_env = ["MY_API_KEY"]\nenv = { GIVEN = "g" }\n'
    )
    ws.config(table(program, more), agent=adapter)
    assert ws.run() == 0, ws.log()
    ws.config(table(program), agent=adapter)
    assert ws.run() == 0, ws.log()
    with_it, without = calls(ws)
    model = "-m" if adapter == "codex" else "--model"
    assert (after(with_it["argv"], model), after(without["argv"], model)) == ("m-1", "")
    effort = 'model_reasoning_effort="low"' if adapter == "codex" else "--effort low"
    assert effort in " ".join(with_it["argv"])
    assert "effort" not in " ".join(without["argv"]).replace("effort, as", "")
    assert after(with_it["argv"], "--x") == "y z"
    assert with_it["env"].get("GIVEN") == "g"
    assert with_it["env"][home] == str(ws.root / "h")
    assert home not in without["env"]
    assert with_it["env"].get("MY_API_KEY") == "sesame-12345678"
    assert "MY_API_KEY" not in without["env"]
    assert "OTHER_API_KEY" not in with_it["env"]


def test_bypass_takes_the_sandbox_away_and_safe_does_not(ws: Workspace) -> None:
    program = stand_in(ws, "codex", DONE)
    flag = "--dangerously-bypass-approvals-and-sandbox"
    for mode in ("safe", "bypass"):
        ws.config(table(program), agent="codex", agent_mode=mode)
        assert ws.run() == 0, ws.log()
    safe, bypass = (call["argv"] for call in calls(ws))
    assert (after(safe, "-s"), flag in safe) == ("workspace-write", False)
    assert (after(bypass, "-s"), flag in bypass) == ("", True)


def test_the_environment_of_a_template_is_the_last_word(ws: Workspace) -> None:
    env = '[agents.command.env]\nCODEX_SELF_ITER_MINE = "m"\nHOME = "/nowhere"\n'
    says = "echo $CODEX_SELF_ITER_AGENT_MODE $CODEX_SELF_ITER_MINE $HOME > told; echo $* >> told"
    ws.config(
        env + '[agents.command]\nargs = ["--more", "x y"]\n',
        agent_mode="bypass",
        agent_command_template=f"sh -c {shlex.quote(says + '; exit 1')} sh {{prompt_file}}",
        max_consecutive_errors=1,
    )
    assert ws.run() == 4
    first, second = (ws.path / "told").read_text().splitlines()
    assert first == "bypass m /nowhere"
    assert second.endswith("--more x y")
    env = env.replace("CODEX_SELF_ITER_MINE", "CODEX_SELF_ITER_AGENT_MODE")
    ws.config(env, agent_command_template=f"sh -c {shlex.quote(says)} sh {{prompt_file}}",
              max_consecutive_errors=1)  # fmt: skip
    assert ws.run() == 4
    assert (ws.path / "told").read_text().split()[0] == "m"


def test_plan_shell_gets_mode_environment_and_what_is_passed(ws: Workspace) -> None:
    ws.environment |= {"MY_API_KEY": "sesame-12345678"}
    ws.plan("- [ ] one\n\n```sh\necho $CODEX_SELF_ITER_AGENT_MODE $GIVEN $MY_API_KEY > told\n```\n")
    ws.config(
        '[agents.plan-shell]\nenv = { GIVEN = "g" }\npass_env = ["MY_API_KEY"]\n',
        agent="plan-shell", agent_mode="bypass",
    )  # fmt: skip
    assert ws.run() == 0, ws.log()
    assert (ws.path / "told").read_text() == "bypass g sesame-12345678\n"
    ws.plan("- [ ] one\n\n```sh\necho $CODEX_SELF_ITER_AGENT_MODE $GIVEN $MY_API_KEY > told\n```\n")
    ws.config(agent="plan-shell")
    assert ws.run() == 0, ws.log()
    assert (ws.path / "told").read_text() == "safe\n"


@pytest.mark.parametrize(
    ("keys", "fresh"),
    [("", 3), ("resume = true", 1), ("resume = true\nresume_max_turns = 2", 2),
     ("resume = true\nresume_max_tokens = 100", 3),
     ("resume = true\nresume_max_hours = 0.0000001", 3)],
)  # fmt: skip
def test_a_conversation_goes_on_as_long_as_it_may(ws: Workspace, keys: str, fresh: int) -> None:
    program = stand_in(ws, "codex", MORE, MORE, DONE)
    ws.config(table(program, keys), agent="codex")
    assert ws.run() == 0, ws.log()
    resumed = ["resume" in call["argv"] for call in calls(ws)]
    assert (len(resumed), resumed.count(False)) == (3, fresh)


# -- roles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["roles", "goal"])
def test_each_role_has_its_adapter_and_model_in_roles_mode_alone(ws: Workspace, mode: str) -> None:
    program = stand_in(ws, "codex", PLANNER % "false", REVIEW % "false")
    roles = '[roles]\nplanner = "codex"\nexecutor = "command"\nreviewer = "codex"\n'
    if mode == "goal":
        roles = roles.replace('executor = "command"', 'executor = "codex"')
    ws.config(roles + table(program, 'model = "m-0"'), mode=mode, agent="command",
              planner_model_hint="m-plan", reviewer_model_hint="m-review")  # fmt: skip
    assert ws.run() == 0, ws.log()
    assert ws.started() == 1  # the template's
    if mode == "goal":
        assert not (program.parent / "calls").exists()
        for key in ("roles.planner", "roles.executor", "planner_model_hint"):
            assert f"{key} does nothing" in ws.log()
        return
    assert [after(call["argv"], "-m") for call in calls(ws)] == ["m-plan", "m-review"]
    assert "does nothing" not in ws.log()


def test_without_a_hint_the_model_is_the_tables(ws: Workspace) -> None:
    program = stand_in(ws, "codex", PLANNER % "false", DONE, REVIEW % "false")
    ws.config(table(program, 'model = "m-0"'), mode="roles", agent="codex")
    assert ws.run() == 0, ws.log()
    assert [after(call["argv"], "-m") for call in calls(ws)] == ["m-0"] * 3


@pytest.mark.parametrize(("ceiling", "waits"), [(0.2, [0.2, 0.4, 0.8, 1.6, 1.6]), (3, None)])
@pytest.mark.parametrize("who", ["planner_stop", "continue_false"])
def test_a_cooldown_doubles_up_to_eight_times_or_the_longest_backoff(
    ws: Workspace, who: str, ceiling: float, waits: list[float] | None
) -> None:
    ws.config(mode="roles", **{f"{who}_backoff_sec": 0.2, "backoff_max_sec": ceiling},
              max_iterations=5, max_stagnation=0)  # fmt: skip
    work = {"append": {"w": "1"}, "block": {"next_goal": "x"}}
    steps = [{"raw": PLANNER % "true"}]
    if who == "continue_false":
        steps = [{"raw": PLANNER % "false"}, work, {"raw": REVIEW % "false"}]
    ws.script(*steps * 5)
    assert ws.run() == 0, ws.log()
    found = [line["wait"] for line in ws.journal() if line["wait"]]
    assert {wait["kind"] for wait in found} == {who}
    expected = waits or [0.2, 0.4, 0.8, 1.6, 3.0]
    for wait, least in zip(found, expected, strict=False):
        assert least <= _length(wait) <= min(least * 1.1, expected[-1]) + 0.001
    assert len(found) >= 4


def _length(wait: dict[str, Any]) -> float:
    return float(wait.get("length", wait.get("seconds", 0)))


# -- bounds and waits ------------------------------------------------------------------------------


def test_waits_after_errors_double_up_to_the_longest_and_never_beyond(ws: Workspace) -> None:
    ws.config(backoff_base_sec=0.1, backoff_max_sec=0.35, max_consecutive_errors=6)
    ws.script({"exit": 3})
    assert ws.run() == 4
    lengths = [_length(line["wait"]) for line in ws.journal() if line["wait"]]
    for length, least in zip(lengths, [0.1, 0.2, 0.35, 0.35, 0.35], strict=False):
        assert least <= length <= min(least * 1.1, 0.35)
    assert len(lengths) >= 4


@pytest.mark.parametrize(
    ("gate", "waits"), [(True, [1, 1, 1]), (1, [1, 1, 1]), (3, [0, 0, 1]), (False, [0] * 3)]
)
def test_the_loop_waits_after_so_many_iterations_without_a_change(
    ws: Workspace, gate: bool | int, waits: list[int]
) -> None:
    ws.config(no_change_gate=gate, max_stagnation=0, no_change_backoff_sec=0.3,
              backoff_max_sec=0.2, backoff_base_sec=0)  # fmt: skip
    idle = [{"block": {"next_goal": goal}} for goal in "abc"]
    ws.script(*idle, CLAIM)
    assert ws.run() == 0, ws.log()
    found = [line["wait"] for line in ws.journal()][:3]
    assert [int(wait is not None) for wait in found] == waits
    # a first wait that is longer than backoff_max_sec is as long as it says
    assert all(0.3 <= _length(wait) <= 0.33 for wait in found[:1] if wait)


@pytest.mark.parametrize(("bound", "ended"), [(2, True), (0, False)])
def test_the_same_goal_with_changes_has_three_times_the_bound(
    ws: Workspace, bound: int, ended: bool
) -> None:
    ws.config(max_stagnation=bound, max_iterations=9)
    ws.script({**WORK, "block": {"next_goal": "the same"}})
    assert ws.run() == (3 if ended else 0)
    assert len(ws.journal()) in ((6, 7) if ended else (9,))


@pytest.mark.parametrize(("grace", "ended"), [(0, True), (600, False)])
def test_kill_grace_is_the_time_between_asking_and_killing(
    ws: Workspace, grace: int, ended: bool
) -> None:
    ws.config(kill_grace_sec=grace)
    ws.script({"deaf": True, "sleep": 600})
    process = ws.start()
    ws.wait_runs(1)
    begun = time.monotonic()
    ws.cli("stop")
    ws.wait_state("stopping", "stopped")
    if ended:
        assert ws.ended(process) == 0
        return
    wait_until(lambda: time.monotonic() - begun > 2, "the grace to last")
    assert process.poll() is None
    assert ws.status()["run"]
    process.terminate()
    wait_log(ws, "stop.signal")
    time.sleep(2 * TWIN_SEC)  # else the two would be one request
    process.terminate()  # the second one skips it
    assert ws.ended(process) == 0


def test_more_memory_than_allowed_ends_a_run(ws: Workspace) -> None:
    eat = (
        f"{shlex.quote(sys.executable)} -c 'import time; x = bytearray(300 << 20); time.sleep(20)'"
    )
    ws.config(memory_limit_mb=150, max_consecutive_errors=1)
    ws.script({"run": eat})
    assert ws.run() == 4, ws.log()
    assert "memory" in ws.status()["reason"] + json.dumps(ws.journal()[-1])


def test_a_prompt_shows_the_last_iterations_that_came_to_work(ws: Workspace) -> None:
    steps = [{**WORK, "block": {"summary": f"SUM-{n}", "next_goal": f"g{n}"}} for n in range(4)]
    ws.config(history_tail=2)
    ws.script(*steps[:3], {"exit": 3}, *steps[3:], CLAIM)
    assert ws.run() == 0
    last = ws.prompt(6)
    assert [f"SUM-{n}" in last for n in range(4)] == [False, False, True, True]
    assert "- Iteration 4: no answer (1 agent)." in last
    ws.config(history_tail=0)
    ws.script(CLAIM)
    assert ws.run() == 0
    assert "SUM-3" not in ws.prompt(7)


CLAIMS = (
    ('{"summary": "READY", "next_goal": "", "completed": false}', False),
    ("words\nREADY\n" + MORE.replace(', "completed": false', ""), True),
    (
        MORE.replace('"summary": "s"', '"summary": "READY"').replace(', "completed": false', ""),
        True,
    ),
    ("it is READY now\n" + MORE, False),
    ("PLAN_COMPLETE\n" + MORE.replace(', "completed": false', ""), False),
    ("I have done it.\nREADY\n", True),
    ("READY\nand something more\n", False),
)


@pytest.mark.parametrize(("said", "claimed"), CLAIMS)
def test_the_word_claims_completion_where_the_page_says(
    ws: Workspace, said: str, claimed: bool
) -> None:
    ws.config(completion_promise="READY", max_iterations=1, backoff_base_sec=0)
    ws.script({"raw": said + "\n", **WORK})
    assert ws.run() == 0, ws.log()
    assert (ws.status()["state"] == "completed") is claimed


def test_without_a_word_none_claims_completion(ws: Workspace) -> None:
    ws.config(completion_promise="", max_iterations=1, backoff_base_sec=0)
    ws.script({"raw": "PLAN_COMPLETE\n", **WORK})
    assert ws.run() == 0
    assert ws.status()["state"] != "completed"
    assert "PLAN_COMPLETE" not in ws.prompt(1)


def _budgets() -> list[tuple[str, str, float, float]]:
    day = [("max_tokens", 150.0, 1000.0), ("max_cost_usd", 3.0, 100.0), ("max_hours", 1e-7, 10.0)]
    named = [(name, low, high) for name, low, high in day]
    named += [(f"{name}_per_day", low, high) for name, low, high in day]
    return [(name, "claude", low, high) for name, low, high in named]


@pytest.mark.parametrize(("key", "adapter", "low", "high"), _budgets())
def test_a_budget_ends_the_loop_with_4_and_gives_notice(
    ws: Workspace, key: str, adapter: str, low: float, high: float
) -> None:
    program = stand_in(ws, adapter, MORE, MORE, MORE, DONE)
    number = int if "tokens" in key else float
    ws.config(f"[budget]\n{key} = {number(low)}\nnotice_at = 0.1\n" + table(program), agent=adapter)
    assert ws.run() == 4, ws.log()
    assert key in ws.status()["reason"]
    spent = len(calls(ws))
    assert spent in (1, 2)
    assert "is used" in ws.log()
    ws.config(f"[budget]\n{key} = {number(high)}\n" + table(program), agent=adapter)
    (ws.root / "supervisor-1.log").unlink()
    assert ws.run() == 0, ws.log()
    assert "is used" not in ws.log()


# -- what is kept ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["keep_runs = 2", "keep_days = 0.00000001", "max_state_mb = 0.00001"]
)
def test_the_oldest_runs_go_but_for_the_last_three(ws: Workspace, key: str) -> None:
    def numbers() -> set[int]:
        return {int(path.name[:6]) for path in (ws.state / "logs" / "runs").iterdir()}

    steps = [{**WORK, "block": {"next_goal": f"g{n}"}} for n in range(6)]
    ws.script(*steps, {"sleep": 60, "until": "go", **CLAIM})
    process = ws.start()
    ws.wait_runs(7)
    wait_until(lambda: len(numbers()) == 7, "seven runs, and all of them kept")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    ws.config(f"[output]\n{key}\n")
    (ws.control / "go").unlink()
    process = ws.start()
    ws.wait_runs(8)
    wait_until(lambda: numbers() <= {5, 6, 7, 8}, "the oldest to go")
    assert {6, 7, 8} <= numbers()
    (ws.control / "go").touch()
    assert ws.ended(process) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "key", ["keep_runs = 2", "keep_days = 0.00000001", "max_state_mb = 0.00001"]
)
def test_starts_that_are_short_prune_at_their_end(ws: Workspace, key: str) -> None:
    """A `--once` from cron is over before the first pass is due."""
    ws.config(f"[output]\n{key}\n")
    ws.script({**WORK, "number": True})
    for _ in range(5):
        assert ws.run("--once") == 0
    runs = {int(path.name[:6]) for path in (ws.state / "logs" / "runs").iterdir()}
    assert runs == {3, 4, 5}
    assert ws.status()["disk"]["state_mb"] > 0


def test_the_log_is_rotated_at_its_size_and_so_many_files_are_kept(ws: Workspace) -> None:
    ws.config("[output]\nlog_max_mb = 0.001\nlog_files = 3\n", max_iterations=12, max_stagnation=0)
    ws.script({**WORK, "number": True})
    assert ws.run() == 0
    files = {path.name for path in (ws.state / "logs").glob("supervisor.log*")}
    assert files == {"supervisor.log", "supervisor.log.1", "supervisor.log.2"}
    assert all((ws.state / "logs" / name).stat().st_size < 3000 for name in files)


@pytest.mark.parametrize("checkpoints", [True, False])
def test_checkpoints_are_kept_up_to_their_number(ws: Workspace, checkpoints: bool) -> None:
    ws.config(f"[git]\ncheckpoints = {str(checkpoints).lower()}\ncheckpoint_keep = 2\n",
              max_iterations=4)  # fmt: skip
    ws.script({**WORK, "number": True})
    assert ws.run() == 0
    refs = ws.git("for-each-ref", "--format=%(refname)", "refs/codex-self-iter").split()
    kept = sorted(ref.rsplit("/", 1)[1] for ref in refs if ref[-1].isdigit())
    if not checkpoints:
        assert kept == []
        return
    wait_until(lambda: kept[-1] == "000004", "the last one")
    assert "000001" not in kept


@pytest.mark.slow
def test_as_many_checkpoints_of_what_was_found_are_kept_beside_them(ws: Workspace) -> None:
    ws.config("[git]\ncheckpoint_keep = 2\n")
    ws.script({**WORK, "number": True})
    for number in range(5):
        (ws.path / "mine.txt").write_text(f"{number}\n")
        assert ws.run("--once") == 0
    refs = ws.git("for-each-ref", "--format=%(refname:lstrip=3)", "refs/codex-self-iter").split()
    kept = {ref.rsplit("/", 1)[-1] for ref in refs}
    assert kept == {"000004", "000005", "000004-before", "000005-before"}


@pytest.mark.parametrize(("skip", "committed"), [("true", True), ("false", False)])
def test_hooks_are_skipped_when_asked(ws: Workspace, skip: str, committed: bool) -> None:
    hook = ws.path / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    ws.config(f"[git]\ncommit = true\nno_verify = {skip}\n", max_iterations=1)
    ws.script(WORK)
    assert ws.run() == 0
    assert ("work.txt" in ws.git("ls-files")) is committed


# -- the supervisor --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "least"),
    [("debug", "debug"), ("info", "info"), ("warning", "warning"), ("error", "")],
)
def test_the_log_has_lines_from_its_level_on(ws: Workspace, level: str, least: str) -> None:
    ws.config(f'[log]\nlevel = "{level}"\nformat = "json"\n[roles]\nplanner = "command"\n')
    assert ws.run() == 0
    lines = [json.loads(line) for line in ws.log().splitlines() if line.startswith("{")]
    order = ["debug", "info", "warning", "error"]
    found = {line["level"] for line in lines}
    assert (min(found, key=order.index) if found else "") == least
    assert ("loop.decided" in ws.log()) is (level == "debug")


@pytest.mark.parametrize(
    ("form", "service", "as_json"),
    [("auto", False, False), ("auto", True, True), ("json", False, True), ("console", True, False)],
)
def test_the_form_of_the_log(ws: Workspace, form: str, service: bool, as_json: bool) -> None:
    ws.config(f'[log]\nformat = "{form}"\n')
    environment = {"INVOCATION_ID": "x"} if service else {}
    for name in ("INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET"):
        ws.environment.pop(name, None)
    assert ws.run(environment=environment) == 0
    assert ws.log().lstrip().startswith("{") is as_json


def test_a_finish_lasts_no_longer_than_its_time(ws: Workspace) -> None:
    ws.config("[service]\non_stop = 'finish'\nfinish_timeout_sec = 0.5\n")
    ws.script({**CLAIM, "sleep": 600})
    process = ws.start()
    ws.wait_runs(1)
    process.terminate()
    assert ws.ended(process) == 0
    assert ws.status()["state"] == "stopped"
    ws.config("[service]\non_stop = 'finish'\n")
    ws.script({**CLAIM, "sleep": 600, "until": "go"})
    process = ws.start()
    ws.wait_runs(2)
    process.terminate()
    wait_until(lambda: ws.status().get("asked") or "SIGTERM" in ws.log(), "the signal to be heard")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts()[-1] == "completed"


@pytest.mark.parametrize("bound", ["per_agent = { command = 1 }", "per_agent = { codex = 1 }"])
def test_an_adapter_has_its_own_bound_in_the_pool(ws: Workspace, bound: str) -> None:
    from tests.support.harness import overlaps

    others = [Workspace(ws.root, name) for name in ("a", "b")]
    for other in others:
        other.config(f"[pool]\n{bound}\n")
        other.script({**CLAIM, "sleep": 1.5})
    flags = [word for other in others[1:] for word in ("--workspace", str(other.path))]
    text = (others[0].path / "codex-self-iter.toml").read_text()
    (ws.root / "all.toml").write_text(text.replace(f"{shlex.quote(str(others[0].control))}", "$C"))
    assert flags
    lines = [line for line in text.splitlines() if line]
    cut = lines.index("[pool]")
    entries = [
        f"[[workspaces]]\npath = {json.dumps(str(other.path))}\n"
        + next(line for line in (other.path / "codex-self-iter.toml").read_text().splitlines()
               if line.startswith("agent_command_template"))
        for other in others
    ]  # fmt: skip
    (ws.root / "all.toml").write_text("\n".join([*lines[:cut], *lines[cut:], *entries]) + "\n")
    (ws.path / "codex-self-iter.toml").unlink()
    process = _supervise(ws, ws.root / "all.toml")
    assert ws.ended(process) == 0, ws.log()
    runs = [row for other in others for row in other.runs()]
    assert overlaps(runs) == (1 if "command" in bound else 2)


def _supervise(ws: Workspace, config: Path) -> Any:
    import subprocess

    from tests.support.program import PROGRAM

    log = (ws.root / "supervisor-all.log").open("wb")
    process = subprocess.Popen(
        [*PROGRAM, "--config", str(config)], cwd=ws.root, env=ws.environment,
        stdin=subprocess.DEVNULL, stdout=log, stderr=log,
    )  # fmt: skip
    log.close()
    ws.supervisors.append(process)
    return process


def test_who_is_told_of_what(ws: Workspace) -> None:
    for heard in ("stopped", "completed"):
        ws.config(notify(ws, events=[heard]))
        ws.script(CLAIM)
        assert ws.run() == 0
        assert [one["event"] for one in told(ws)] == ([heard] if heard == "completed" else [])


# -- without effect --------------------------------------------------------------------------------

IDLE = {
    'roles.planner = "codex"': "roles.planner",
    'planner_model_hint = "m"': "planner_model_hint",
    "continue_false_backoff_sec = 1": "continue_false_backoff_sec",
    "verify.timeout_sec = 5": "verify.timeout_sec",
    "verify.every_iteration = true": "verify.every_iteration",
    'verify.pass_env = ["A"]': "verify.pass_env",
    "hooks.timeout_sec = 5": "hooks.timeout_sec",
    'prompt.planner.before = "plan.md"': "prompt.planner.before",
    "git.no_verify = true": "git.no_verify",
    "git.checkpoints = false\ngit.checkpoint_keep = 3": "git.checkpoint_keep",
    'notify.events = ["blocked"]': "notify.events",
    "notify.events = []\nnotify.command = ['true']": "notify.command",
    'notify.digest_at = "08:00"': "notify.digest_at",
    'notify.digest_at = "08:00"\nnotify.events = ["blocked"]\nnotify.command = [\'true\']': "notify.digest_at",
    "budget.notice_at = 0.5": "budget.notice_at",
    "service.finish_timeout_sec = 5": "service.finish_timeout_sec",
    "agents.codex.resume_max_turns = 3": "agents.codex.resume_max_turns",
    'agent = "codex"\nagent_command_template = "x {prompt_file}"': "agent_command_template",
    'verify.gate_files = ["no/such/*.py"]': "[verify] gate_files",
    "lanes.candidates = 2": "lanes.candidates",
    'lanes.setup = ["true"]': "lanes.setup",
    "lanes.max = 2\nlanes.setup_timeout_sec = 5": "lanes.setup_timeout_sec",
}


@pytest.mark.parametrize("lines", IDLE)
def test_a_key_without_effect_is_named(ws: Workspace, lines: str) -> None:
    (ws.path / "codex-self-iter.toml").write_text(lines + "\n")
    done = ws.cli("config", "check")
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("Warning: ")]
    assert said.startswith(f"Warning: {IDLE[lines]}")


def test_what_needs_git_is_named_without_git(ws: Workspace) -> None:
    ws.config("[git]\ncommit = true\ntimeout_sec = 5\ncheckpoint_keep = 3\n")
    assert "does nothing" not in ws.cli("config", "check").stdout
    os.rename(ws.path / ".git", ws.root / "git")
    said = ws.cli("config", "check").stdout
    for key in ("git.commit", "git.timeout_sec", "git.checkpoint_keep"):
        assert f"{key} does nothing: the workspace is in no git repository" in said
    doctor = ws.cli("doctor").stdout
    assert "git.commit does nothing" in doctor
    assert ws.run() == 0
    assert "git.commit does nothing" in ws.log()


def test_nothing_is_said_of_a_configuration_in_which_every_key_does_something(
    ws: Workspace,
) -> None:
    ws.config(
        '[verify]\ncommands = ["test -s plan.md"]\ntimeout_sec = 5\ngate_files = ["plan.md"]\n[git]\ncommit = '
        'true\nno_verify = true\n[notify]\ncommand = ["true"]\nevents = ["blocked"]\n[budget]\n'
        "max_hours = 5\nnotice_at = 0.5\n[service]\non_stop = 'finish'\nfinish_timeout_sec = 5\n"
    )
    said = ws.cli("config", "check").stdout
    assert "Warning" not in said
    assert ws.run() == 0
    assert "does nothing" not in ws.log()


# -- gate files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".venv/lib/x.py", "node_modules/a/run.js", "tests/a.py"])
@pytest.mark.parametrize("named", [True, False])
def test_a_gate_file_is_guarded_wherever_its_glob_names_it(
    ws: Workspace, place: str, named: bool
) -> None:
    file = ws.path / place
    file.parent.mkdir(parents=True)
    file.write_text("as it was\n")
    glob = f"{place.partition('/')[0]}/**" if named else "docs/**"
    ws.config(f'[verify]\ncommands = ["true"]\ngate_files = ["{glob}"]\n', max_iterations=2)
    ws.script({"append": {place: "cheated\n"}, "block": {"completed": True}}, {"exit": 3})
    assert ws.run() in (0, 4)
    assert ws.verdicts()[0] == ("claim_rejected" if named else "completed")


# -- sources, prices, entries ----------------------------------------------------------------------


def _files(ws: Workspace, *words: str) -> tuple[list[str], dict[str, Any]]:
    found = json.loads(ws.cli("config", "show", "--json", *words).stdout)
    values = {row["key"]: row["value"] for row in found["keys"]}
    return [Path(file).name for file in found["files"]], values


def test_one_file_counts_and_which(ws: Workspace) -> None:
    named, user = ws.root / "named.toml", ws.home / "config" / "codex-self-iter" / "config.toml"
    user.parent.mkdir(parents=True)
    named.write_text("history_tail = 1\n")
    user.write_text("history_tail = 3\nmax_iterations = 3\n")
    (ws.path / "codex-self-iter.toml").write_text("history_tail = 2\n")
    for words, name, tail, most in (
        (["--config", str(named)], "named.toml", 1, 0),
        ([], "codex-self-iter.toml", 2, 0),
        ([], "config.toml", 3, 3),
        ([], "", 8, 0),
    ):
        files, values = _files(ws, *words)
        assert files == ([name] if name else [])
        assert (values["history_tail"], values["max_iterations"]) == (tail, most)
        {"": user, "config.toml": user, "codex-self-iter.toml": ws.path / name}.get(
            name, named
        ).unlink(missing_ok=True)
    del ws.environment["XDG_CONFIG_HOME"]
    (ws.home / ".config" / "codex-self-iter").mkdir(parents=True)
    (ws.home / ".config" / "codex-self-iter" / "config.toml").write_text("history_tail = 4\n")
    assert _files(ws)[1]["history_tail"] == 4


def test_a_flag_for_a_list_is_repeated_and_a_switch_stands_alone_or_is_turned_round(
    ws: Workspace,
) -> None:
    assert ws.run("--verify-command", "true", "--verify-command=test 1", "--no-git-checkpoints",
                  "--verify-every-iteration", "--set", "agents.command.args=[]") == 0  # fmt: skip
    assert [gate["command"] for gate in ws.journal()[0]["gates"]] == ["true", "test 1"]
    assert ws.git("for-each-ref", "refs/codex-self-iter") == ""


def test_output_is_capped_in_mib(ws: Workspace) -> None:
    ws.config("[output]\nmax_run_mb = 0.5\n")
    ws.script({"flood_mb": 2, **CLAIM})
    assert ws.run() == 0
    output = ws.state / "logs" / "runs" / "000001-executor" / "stdout.log"
    assert 0.25 * 2**20 < output.stat().st_size <= 0.5 * 2**20 + 4096


@pytest.mark.parametrize(("cached", "cost"), [("cached_input_per_mtok = 1000", 1.04), ("", 1.4)])
def test_a_price_makes_a_cost_of_tokens(ws: Workspace, cached: str, cost: float) -> None:
    program = stand_in(ws, "codex", DONE)
    price = f'[prices."m-1"]\ninput_per_mtok = 10000\n{cached}\noutput_per_mtok = 40000.0\n'
    ws.config(price + "as_of = 2026-01-31\n" + table(program, 'model = "m-1"'), agent="codex")
    assert ws.run() == 0, ws.log()
    assert ws.journal()[-1]["cost_usd"] == pytest.approx(cost)
    ws.config(price.replace("m-1", "m-2") + table(program, 'model = "m-1"'), agent="codex")
    assert ws.run() == 0, ws.log()
    assert ws.journal()[-1]["cost_usd"] is None


def test_prices_and_workspaces_as_variables_are_json(ws: Workspace) -> None:
    ws.environment |= {
        "CODEX_SELF_ITER_PRICES": '{"m.1": {"input_per_mtok": 1, "output_per_mtok": 4}}',
        "CODEX_SELF_ITER_WORKSPACES": '[{"path": "one", "history_tail": 3}]',
    }
    values = _files(ws)[1]
    assert values['prices."m.1".output_per_mtok'] == 4
    assert values['prices."m.1".cached_input_per_mtok'] is None
    assert values['prices."m.1".as_of'] == ""
    assert (values["workspaces[0].path"], values["workspaces[0].name"]) == ("one", "")
    assert (values["workspaces[0].priority"], values["workspaces[0].history_tail"]) == (0, 3)
    ws.environment["CODEX_SELF_ITER_PRICES"] = '{"m": {"cached_input_per_mtok": -1, "as_of": "x"}}'
    ws.environment["CODEX_SELF_ITER_WORKSPACES"] = '[{"name": 3, "priority": "x"}]'
    said = ws.cli("config", "check").stderr
    for key in ("input_per_mtok: is req", "output_per_mtok: is req", "cached_input_per_mtok: must",
                "as_of: must"):  # fmt: skip
        assert f"prices.m.{key}" in said
    for key in ("path: is required", "name: must be a text", "priority: must be a whole number"):
        assert f"workspaces[0].{key}" in said


def test_what_belongs_to_the_supervisor_is_no_key_of_an_entry(ws: Workspace) -> None:
    (ws.path / "codex-self-iter.toml").write_text(
        '[[workspaces]]\npath = "x"\nworkspace = "y"\npool.max_agents = 1\nservice.on_stop = "end"\n'
        'log.level = "info"\n'
    )
    done = ws.cli("config", "check")
    assert done.returncode == 2
    for key in ("workspace", "pool", "service", "log"):
        assert f"workspaces[0].{key}: unknown key; " in done.stderr


def test_an_entry_counts_from_its_file_and_differs_where_it_says(ws: Workspace) -> None:
    for name in ("one", "two"):
        Workspace(ws.root / "sub", name).script(WORK)
    template = (ws.path / "codex-self-iter.toml").read_text().splitlines()[0]
    control = shlex.quote(str(ws.control))
    entries = [
        f'[[workspaces]]\npath = "{name}"\nmax_iterations = {count}\n{more}'
        + template.replace(control, shlex.quote(str(ws.root / "sub" / f"{name} control"))) + "\n"
        for name, count, more in (("one", 1, ""), ("two", 2, 'name = "second"\n'))
    ]  # fmt: skip
    config = ws.root / "sub" / "all.toml"
    config.write_text("\n".join(["backoff_base_sec = 0", *entries]))
    process = _supervise(ws, config)
    assert ws.ended(process) == 0, ws.log()
    statuses = [
        json.loads((ws.root / "sub" / name / ".codex-self-iter" / "status.json").read_text())
        for name in ("one", "two")
    ]
    assert [(one["name"], one["iteration"]) for one in statuses] == [("one", 1), ("second", 2)]


@pytest.mark.parametrize("first", ["b", "c", "d"])
def test_the_higher_priority_has_the_next_place(ws: Workspace, first: str) -> None:
    names = ("a", "b", "c", "d")
    loops = {name: Workspace(ws.root, name) for name in names}
    for loop in loops.values():
        loop.script({"sleep": 60, "until": "go", **CLAIM})
    template = (ws.path / "codex-self-iter.toml").read_text().splitlines()[0]
    config = ws.root / "all.toml"

    def entries(*present: str) -> None:
        lines = ["pool.max_agents = 1"]
        for name in present:
            own = template.replace(
                shlex.quote(str(ws.control)), shlex.quote(str(loops[name].control))
            )
            lines += ["[[workspaces]]", f'path = "{name}"', own]
            lines += [f"priority = {9 * (name == first)}"]
        config.write_text("\n".join(lines) + "\n")

    entries("a", "b")
    loops["b"].state.mkdir()
    (loops["b"].state / "PAUSE").touch()
    process = _supervise(ws, config)
    loops["a"].wait_runs(1)
    entries(*names)
    process.send_signal(signal.SIGHUP)
    (loops["b"].state / "PAUSE").unlink()
    for name in names[1:]:
        status = loops[name].state / "status.json"
        wait_until(lambda: status.exists() and "a slot of the pool" in status.read_text(), name)  # noqa: B023
    (loops["a"].control / "go").touch()
    wait_until(lambda: any(loops[name].started() for name in names[1:]), "the next run")
    assert [name for name in names[1:] if loops[name].started()] == [first]
    for loop in loops.values():
        (loop.control / "go").touch()
    assert ws.ended(process) == 0


# -- more of the single keys -----------------------------------------------------------------------


def test_iterations_are_counted_anew_with_each_start(ws: Workspace) -> None:
    ws.config(max_iterations=2, max_stagnation=0)
    ws.script({**WORK, "number": True})
    for count in (2, 4):
        assert ws.run() == 0
        assert len(ws.journal()) == count


@pytest.mark.parametrize("what", ["output", "cpu", "file", "nothing"])
def test_output_cpu_and_files_keep_a_run_from_being_idle(ws: Workspace, what: str) -> None:
    loop = {
        "output": "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $i; sleep 0.5; done",
        "cpu": "timeout 6 sh -c 'while :; do :; done'",
        "file": "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo >> f.txt; sleep 0.5; done",
        "nothing": "sleep 6",
    }[what]
    ws.config(
        agent_command_template=f"sh -c {shlex.quote(f'{loop}; echo x >> w.txt; cat answer')} "
        "sh {prompt_file}",
        idle_timeout_sec=3, max_iterations=1, backoff_base_sec=0,
    )  # fmt: skip
    (ws.path / "answer").write_text(DONE)
    assert ws.run() == 0, ws.log()
    assert (ws.verdicts() == ["timed_out"]) is (what == "nothing")


@pytest.mark.parametrize("shared", [True, False])
def test_agents_of_one_account_wait_for_its_limit_together(ws: Workspace, shared: bool) -> None:
    second = stand_in(ws, "claude", DONE)
    first = ws.root / "bin" / "codex"
    event = {"type": "turn.failed", "error": {"message": "rate limit exceeded: slow down. Please "
             "try again in 600s."}}  # fmt: skip
    started = json.dumps({"type": "thread.started", "thread_id": "x"})
    first.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{started}'\necho '{json.dumps(event)}'\n"
                     "exit 1\n")  # fmt: skip
    first.chmod(0o755)
    account = 'account = "mine"' if shared else ""
    ws.config(f'[agents]\norder = ["codex", "claude"]\n{table(first, account)}'
              f"{table(second, account)}")  # fmt: skip
    process = ws.start()
    if shared:
        ws.wait_state("limited")
        assert not (ws.root / "bin" / "calls").exists()
    else:
        assert ws.ended(process) == 0
        assert len(calls(ws)) == 1


@pytest.mark.parametrize(("most", "kept"), [("0.01", False), ("1", True), ("0", True)])
def test_untracked_files_above_the_size_are_listed_but_not_kept(
    ws: Workspace, most: str, kept: bool
) -> None:
    ws.config(f"[git]\ncheckpoint_max_file_mb = {most}\n")
    ws.script({"run": "head -c 100000 /dev/zero > big.bin", **CLAIM})
    assert ws.run() == 0
    names = ws.git("ls-tree", "--name-only", ws.journal()[-1]["checkpoint"])
    assert "work.txt" in names
    assert ("big.bin" in names) is kept
    assert ("big.bin" in ws.log()) is not kept


@pytest.mark.parametrize(("days", "gone"), [("0.00000001", True), ("0", False), ("30", False)])
def test_old_checkpoints_go_after_their_days(ws: Workspace, days: str, gone: bool) -> None:
    # with so few to keep they are looked after in every iteration
    ws.config(f"[git]\ncheckpoint_keep_days = {days}\ncheckpoint_keep = 10\n",
              max_iterations=4, max_stagnation=0)  # fmt: skip
    ws.script({**WORK, "number": True})
    assert ws.run() == 0
    refs = ws.git("for-each-ref", "--format=%(refname)", "refs/codex-self-iter").split()
    assert ("000001" in {ref.rsplit("/", 1)[1] for ref in refs}) is not gone


def test_each_role_goes_on_in_a_conversation_of_its_own(ws: Workspace) -> None:
    answers = (PLANNER % "false", MORE, REVIEW % "true", PLANNER % "false", DONE, REVIEW % "false")
    program = stand_in(ws, "codex", *answers)
    ws.config(table(program, "resume = true"), agent="codex", mode="roles")
    assert ws.run() == 0, ws.log()
    resumed = [after(call["argv"], "resume")[-2:] for call in calls(ws)]
    assert resumed == ["", "", "", "00", "01", "02"]
