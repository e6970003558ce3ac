"""The loop from outside: several iterations, a restart in the middle, completion, errors, exit
codes."""

from __future__ import annotations

import json
import shlex
import signal
import sys

import pytest

from tests.support.harness import Workspace, overlaps, wait_until

STEP = {"append": {"work.txt": "x\n"}}


def goal(text: str, **block: object) -> dict[str, object]:
    return {**STEP, "block": {"next_goal": text, **block}}


def test_a_loop_runs_to_completion_and_leaves_its_files(ws: Workspace) -> None:
    ws.script(goal("second"), goal("third"), goal("", completed=True, summary="all done"))
    assert ws.run() == 0
    journal = ws.journal()
    assert [line["iteration"] for line in journal] == [1, 2, 3]
    assert ws.verdicts() == ["continue", "continue", "completed"]
    assert [line["goal_in"] for line in journal] == ["", "second", "third"]
    assert ws.status()["state"] == "completed"
    assert ws.status()["exit"]["code"] == 0
    assert "second" in ws.prompt(2)
    assert (ws.state / "report.md").read_text().startswith("# Report: completed")
    assert ws.git("status", "--porcelain", "--ignored", ".codex-self-iter").strip() in (
        "",
        "!! .codex-self-iter/",
    )
    assert overlaps(ws.runs()) == 1


def test_numbers_and_goal_go_on_across_a_restart(ws: Workspace) -> None:
    ws.script(goal("second"), goal("third"), goal("fourth"), goal("", completed=True))
    assert ws.run("--max-iterations", "2") == 0
    assert ws.status()["state"] == "stopped"
    assert "iteration limit" in ws.status()["reason"]
    assert ws.run() == 0
    assert [line["iteration"] for line in ws.journal()] == [1, 2, 3, 4]
    assert ws.journal()[2]["goal_in"] == "third"


def test_an_agent_that_fails_once_is_run_again_with_what_was_wrong(ws: Workspace) -> None:
    ws.script(
        {"exit": 3},
        {"raw": "no block here\n"},
        {"raw": '{"summary": "half", "next_goal":'},
        goal("", completed=True),
    )
    assert ws.run() == 0
    assert ws.verdicts() == ["error", "error", "error", "completed"]
    assert "exit code 3: more" in ws.prompt(2)  # the reason that it gives itself
    assert "no control block" in ws.prompt(3)


def test_too_many_agent_errors_in_a_row_need_a_human(ws: Workspace) -> None:
    ws.config(max_consecutive_errors=3)
    ws.script({"exit": 1})
    assert ws.run() == 4
    assert ws.verdicts() == ["error"] * 3
    assert ws.status()["state"] == "blocked"


def test_an_agent_that_prints_its_prompt_has_not_answered(ws: Workspace) -> None:
    ws.plan(
        '# Plan\n\nSay:\n\nPLAN_COMPLETE\n\n{"summary": "s", "next_goal": "g", "stop": '
        'false, "completed": true}\n'
    )
    ws.config(max_consecutive_errors=2)
    ws.script({"echo": True})
    assert ws.run() == 4
    assert ws.verdicts() == ["error", "error"]


def test_a_claim_is_not_believed_until_the_gate_passes(ws: Workspace) -> None:
    ws.config('[verify]\ncommands = ["test -f proof || { echo the proof is missing; exit 7; }"]')
    ws.script(goal("claim", completed=True), {**goal("", completed=True), "write": {"proof": "1"}})
    assert ws.run() == 0
    assert ws.verdicts() == ["claim_rejected", "completed"]
    assert "the proof is missing" in ws.prompt(2)
    assert ws.journal()[0]["gates"][0]["exit_code"] == 7


def test_stop_with_an_unmet_gate_needs_a_human(ws: Workspace) -> None:
    ws.config('[verify]\ncommands = ["false"]')
    ws.script(goal("", stop=True, reason="cannot go on"))
    assert ws.run() == 4
    assert ws.status()["state"] == "blocked"
    assert "cannot go on" in ws.status()["reason"]


def test_stop_without_gates_ends_well(ws: Workspace) -> None:
    ws.script(goal("", stop=True, reason="a person must choose"))
    assert ws.run() == 0
    assert "a person must choose" in ws.status()["reason"]


def test_the_same_goal_again_and_again_ends_as_stagnated(ws: Workspace) -> None:
    ws.config(max_stagnation=1)
    ws.script(goal("Fix it!"), goal("fix  IT"))
    assert ws.run() == 3
    assert len(ws.journal()) == 3  # three times the bound, because content changes
    assert "going in circles" in ws.prompt(3)
    assert "going in circles" not in ws.prompt(2)


def test_no_change_is_noticed_and_backed_off(ws: Workspace) -> None:
    ws.config(max_stagnation=0)
    ws.script(
        {"block": {"next_goal": "a"}}, {"block": {"next_goal": "b"}}, goal("", completed=True)
    )
    assert ws.run() == 0
    assert ws.verdicts() == ["no_change", "no_change", "completed"]
    assert ws.journal()[0]["wait"]["kind"] == "no_change"


@pytest.mark.slow
def test_a_second_supervisor_is_refused_and_says_who_holds(ws: Workspace) -> None:
    ws.script({"sleep": 30, "until": "go"})
    first = ws.start()
    ws.wait_runs(1)
    assert ws.run() == 75
    assert str(first.pid) in ws.log()
    link = ws.root / "another path"
    link.symlink_to(ws.path)
    other = ws.start("--workspace", str(link), "--state-dir", str(ws.root / "elsewhere"))
    assert ws.ended(other) in (2, 75)
    (ws.control / "go").touch()
    first.send_signal(signal.SIGTERM)
    assert ws.ended(first) == 0


def test_sigint_is_a_stop_with_its_own_exit_code(ws: Workspace) -> None:
    ws.script({"sleep": 60})
    process = ws.start()
    ws.wait_runs(1)
    process.send_signal(signal.SIGINT)
    assert ws.ended(process) == 130
    assert ws.verdicts() == ["aborted"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ws: (ws.path / "plan.md").unlink(), "plan.md"),
        (lambda ws: ws.plan(" \n"), "empty"),
        (lambda ws: (ws.path / "plan.md").write_bytes(b"\xff\xfe\xfa"), "UTF-8"),
        (
            lambda ws: ws.config(agent_command_template="no-such-program {prompt_file}"),
            "no-such-program",
        ),
        (lambda ws: ws.config(agent_command_template="agent"), "prompt_file"),
        (lambda ws: ws.config(command_timeout_sec=-1), "command_timeout_sec"),
        (lambda ws: ws.config(max_iteration=3), "max_iterations"),
        (lambda ws: (ws.path / "codex-self-iter.toml").write_text("a = ["), "codex-self-iter.toml"),
    ],
)
def test_bad_input_is_one_clear_message_and_exit_2(
    ws: Workspace, change: object, said: str
) -> None:
    change(ws)  # type: ignore[operator]
    assert ws.run() == 2
    assert said in ws.log()
    assert "Traceback" not in ws.log()
    assert ws.started() == 0


def test_state_from_a_newer_version_is_refused_and_kept(ws: Workspace) -> None:
    assert ws.run() == 0
    newer = json.dumps({**ws.runtime(), "schema": 99})
    (ws.state / "runtime.json").write_text(newer)
    assert ws.run() == 2
    assert (ws.state / "runtime.json").read_text() == newer
    assert "Traceback" not in ws.log()


def test_broken_state_is_set_aside_and_the_journal_gives_the_goal(ws: Workspace) -> None:
    ws.script(goal("second"), goal("", completed=True))
    assert ws.run("--max-iterations", "1") == 0
    for name in ("runtime.json", "runtime.json.1"):
        (ws.state / name).write_bytes(b"\0\0 broken")
    assert ws.run() == 0
    assert [line["iteration"] for line in ws.journal()] == [1, 2]
    assert ws.journal()[1]["goal_in"] == "second"
    assert any((ws.state / "quarantine").iterdir())


@pytest.mark.slow
def test_a_time_out_ends_a_deaf_agent_with_its_children(ws: Workspace) -> None:
    # the first must have come to its left-overs by then, the second to its end
    ws.config(command_timeout_sec=5, kill_grace_sec=0.5)
    ws.script({"deaf": True, "sleep": 60, "spawn": ["setsid", "bare"]}, goal("", completed=True))
    assert ws.run() == 0
    assert ws.verdicts() == ["timed_out", "completed"]
    assert "timed out" in ws.prompt(2)


def test_a_stale_lock_file_never_blocks(ws: Workspace) -> None:
    ws.state.mkdir()
    (ws.state / "loop.lock").write_text('{"pid": 1}')
    assert ws.run() == 0


def test_paths_with_every_kind_of_character_work(tmp_path: object) -> None:
    from pathlib import Path

    root = Path(str(tmp_path))
    odd = Workspace(root, "wörk {x} $HOME 'q' \"d\"")
    odd.config()
    template = f"{shlex.quote(sys.executable)} agent.py {{prompt_file}} {{workspace}}"
    (odd.path / "agent.py").write_text(
        "import sys, json\n"
        "assert open(sys.argv[1]).read() and open(sys.argv[2] + '/plan.md').read()\n"
        "print(json.dumps(dict(summary='ok', next_goal='', stop=False, completed=True)))\n"
    )
    assert odd.run("--agent-command-template", template) == 0
    assert odd.verdicts() == ["completed"]
    odd.close()


@pytest.mark.slow
def test_the_goal_survives_an_aborted_iteration(ws: Workspace) -> None:
    ws.script(goal("carry on with this"), {"sleep": 60}, goal("", completed=True))
    process = ws.start()
    ws.wait_runs(2)
    assert ws.cli("stop").returncode == 0
    assert ws.ended(process) == 0
    assert ws.run() == 0  # STOP is there: nothing starts
    assert ws.started() == 2
    (ws.state / "STOP").unlink()
    assert ws.run() == 0
    assert ws.journal()[2]["goal_in"] == "carry on with this"
    wait_until(lambda: not ws.leftovers(), "nothing left")


@pytest.mark.parametrize("on_orphan", ["adopt", "kill"])
def test_a_run_that_ended_while_nobody_watched_is_not_done_again(
    ws: Workspace, on_orphan: str
) -> None:
    ws.config(on_orphan=on_orphan)
    ws.script({"sleep": 60, "until": "go", **goal("", completed=True)}, {"exit": 1})
    process = ws.start()
    ws.wait_runs(1)
    process.kill()
    process.wait()
    (ws.control / "go").touch()
    wait_until(lambda: list(ws.state.glob("logs/runs/*/exit.json")), "the recorder to note the end")
    assert ws.run() == 0
    assert ws.verdicts() == ["completed"]
    assert ws.started() == 1


@pytest.mark.slow
def test_an_iteration_that_is_adopted_is_the_one_of_once(ws: Workspace) -> None:
    """Negative control: one that was interrupted is none; another one is run."""

    def killed(run: int) -> None:
        process = ws.start("--once")
        ws.wait_runs(run)
        process.kill()
        process.wait()

    ws.script({"append": {"w": "x"}, "sleep": 60, "until": "go"})
    killed(1)
    process = ws.start("--once")
    wait_until(lambda: ws.status()["pid"] == process.pid, "it to be adopted")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["continue"]
    assert ws.status()["counters"]["iterations_this_run"] == 1
    (ws.control / "go").unlink()
    killed(2)
    ws.config(on_orphan="kill")
    ws.script({"append": {"w": "x"}})
    assert ws.run("--once") == 0
    assert ws.verdicts() == ["continue", "interrupted", "continue"]
    assert ws.status()["counters"]["iterations_this_run"] == 1


def test_a_living_orphan_is_ended_when_asked(ws: Workspace) -> None:
    ws.config(on_orphan="kill")
    ws.script({"sleep": 60, "spawn": ["bare"]}, goal("", completed=True))
    process = ws.start()
    ws.wait_runs(1)
    process.kill()
    process.wait()
    assert ws.run() == 0
    assert ws.verdicts() == ["interrupted", "completed"]
    assert overlaps(ws.runs()) <= 2  # the killed one never says that it ended
