"""Completion with proof: what liars, droppers, echoers and the rest are worth. Each ends as the
contract says."""

from __future__ import annotations

import json
import signal
import sys
import time

import pytest

from codex_self_iter.world.process.signals import TWIN_SEC
from tests.support.harness import Workspace, wait_until

GATE = '[verify]\ncommands = ["test -f proof || { echo NOT PROVEN; exit 7; }"]\n'


def claim(**more: object) -> dict[str, object]:
    return {
        "append": {"work.txt": "x\n"},
        "block": {"completed": True, "next_goal": "finish", **more},
    }


def test_a_liar_never_completes_and_is_given_up(ws: Workspace) -> None:
    ws.config(GATE, max_stagnation=4)
    ws.script(claim())
    assert ws.run() == 3
    assert set(ws.verdicts()) == {"claim_rejected"}
    assert len(ws.journal()) == 4
    assert "NOT PROVEN" in ws.prompt(2)
    assert "same failure for the 3" in ws.prompt(4)
    assert "going in circles" in ws.status()["reason"]


def test_without_a_gate_the_same_liar_is_believed(ws: Workspace) -> None:
    """The control of the test above: it is the gate that tells."""
    ws.script(claim())
    assert ws.run() == 0
    assert ws.verdicts() == ["completed"]


def test_the_promise_word_in_passing_means_nothing(ws: Workspace) -> None:
    ws.config(max_stagnation=0)
    words = "I will say PLAN_COMPLETE when I am done; it is not PLAN_COMPLETE yet."
    ws.script(
        {
            "append": {"a": "1"},
            "say": words,
            "block": {"next_goal": "b", "reason": "PLAN_COMPLETE soon"},
        },
        {"append": {"a": "1"}, "say": "PLAN_COMPLETE", "block": {"next_goal": "c"}},
        {"append": {"a": "1"}, "raw": "PLAN_COMPLETE\nNEXT_GOAL: c\nSTOP: false\nSUMMARY: done\n"},
    )
    assert ws.run() == 0
    assert ws.verdicts() == ["continue", "continue", "completed"]


@pytest.mark.slow
def test_ping_pong_is_a_circle(ws: Workspace) -> None:
    ws.config(max_stagnation=2)
    a = {"append": {"w": "1"}, "block": {"next_goal": "write the test"}}
    b = {"append": {"w": "1"}, "block": {"next_goal": "remove the test"}}
    ws.script(*[a, b] * 10)
    assert ws.run() == 3
    assert len(ws.journal()) == 6
    assert "2 goals in turn" in ws.status()["reason"]


def test_an_idler_is_given_up(ws: Workspace) -> None:
    ws.config(max_stagnation=3)
    ws.script(*[{"block": {"next_goal": f"think {name}"}} for name in "abcdefgh"])
    assert ws.run() == 3
    assert ws.verdicts() == ["no_change"] * 3
    assert "no change of content" in ws.status()["reason"]


def test_different_goals_with_progress_are_no_circle(ws: Workspace) -> None:
    ws.config(max_stagnation=2, max_iterations=6)
    ws.script(
        *[{"append": {"w": "1"}, "block": {"next_goal": f"step {name}"}} for name in "abcdefgh"]
    )
    assert ws.run() == 0
    assert ws.verdicts() == ["continue"] * 6


def test_a_gate_edited_by_the_agent_voids_the_completion(ws: Workspace) -> None:
    (ws.path / "check.sh").write_text("exit 1\n")
    ws.git("add", "-A")
    ws.git("commit", "-q", "-m", "gate")
    ws.config('[verify]\ncommands = ["sh check.sh"]\ngate_files = ["check.sh"]\n')
    ws.script(
        {"write": {"check.sh": "exit 0\n"}, "block": {"completed": True, "next_goal": "done"}},
        {"write": {"check.sh": "exit 1\n"}, "block": {"stop": True, "reason": "I cannot"}},
    )
    assert ws.run() == 4
    first = ws.journal()[0]
    assert first["verdict"] == "claim_rejected"
    assert "check.sh" in first["gate_flaw"]
    assert "check.sh" in ws.prompt(2)


def test_without_gate_files_the_edited_gate_is_believed(ws: Workspace) -> None:
    (ws.path / "check.sh").write_text("exit 1\n")
    ws.config('[verify]\ncommands = ["sh check.sh"]\n')
    ws.script({"write": {"check.sh": "exit 0\n"}, "block": {"completed": True}})
    assert ws.run() == 0


TESTED = (
    "mkdir -p tests/out tests/.pytest_cache; echo 1 > tests/out/report; "
    "echo 1 >> tests/.coverage; echo '*' > tests/.pytest_cache/.gitignore"
)


@pytest.mark.parametrize(
    ("does", "believed"),
    [
        (TESTED, True),
        ("echo pass > tests/conftest.py", False),
        ("echo conftest.py >> .gitignore; echo pass > tests/conftest.py", False),
        ("mkdir tests/a; echo '*' > tests/a/.gitignore; echo pass > tests/a/conftest.py", False),
        ("echo 2 > tests/local.env", False),
    ],
)
def test_what_tests_leave_is_no_change_of_gate_files(
    ws: Workspace, does: str, believed: bool
) -> None:
    """A new file that git ignores, by a rule that was there, is none; anything else is."""
    (ws.path / "tests").mkdir()
    (ws.path / "tests" / "test_it.py").write_text("pass\n")
    (ws.path / "tests" / "local.env").write_text("1\n")
    (ws.path / ".gitignore").write_text("/tests/out/\n.coverage \n*.env\n")
    (ws.path / "docs").mkdir()
    (ws.path / "docs" / ".gitignore").write_text("*\n")  # says nothing of the tests
    ws.git("add", "-A")
    ws.git("commit", "-q", "-m", "tests")
    ws.config('[verify]\ncommands = ["true"]\ngate_files = ["tests/**"]\n')
    ws.script(
        {"run": does, "block": {"next_goal": "x"}},
        {"run": does, **claim()},
        {"block": {"stop": True}},
    )
    assert ws.run() == 0
    assert ws.verdicts()[1:] == (["completed"] if believed else ["claim_rejected", "stop"])


def gateless(ws: Workspace) -> dict[str, str]:
    """A step that takes the gates out of the configuration and adds a tell-tale."""
    ws.config("# nothing is asked for\n")
    text = (ws.path / "codex-self-iter.toml").read_text()
    ws.config(GATE)
    return {"codex-self-iter.toml": text}


def test_gates_that_a_run_takes_out_of_the_configuration_are_missed(ws: Workspace) -> None:
    ws.script(
        {"write": gateless(ws), "block": {"stop": True, "reason": "start me again"}},
        claim(),
        {**claim(), "until": "go", "sleep": 60},
        claim(),
    )
    assert ws.run() == 4
    process = ws.start()
    ws.wait_runs(3)
    assert ws.verdicts() == ["stop", "claim_rejected"]
    assert "gate files were changed by the agent: codex-self-iter.toml" in ws.prompt(3)
    told = "\n".join(ws.status()["warnings"])
    assert "the configuration (codex-self-iter.toml) was changed while a run was on" in told
    assert "the gates are not those of the last start: removed `test -f proof" in told
    assert ws.log().count("about=blocked") + ws.log().count('"about": "blocked"') >= 3
    path = ws.path / "codex-self-iter.toml"
    left = path.read_text()
    path.write_text("max_iterations = ")
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "not read again" in str(ws.status()["warnings"]), "the bad reload")
    assert "the configuration (" in str(ws.status()["warnings"])  # it has made nothing a person's
    path.write_text(left)
    time.sleep(2 * TWIN_SEC)  # else the two would be one request
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the configuration (" not in str(ws.status()["warnings"]), "the reload")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["stop", "claim_rejected", "completed"]


def test_gates_that_a_person_takes_out_between_runs_are_said_and_not_missed(ws: Workspace) -> None:
    text = gateless(ws)
    ws.script({"block": {"stop": True}}, claim())
    assert ws.run() == 4
    (ws.path / "codex-self-iter.toml").write_text(text["codex-self-iter.toml"])
    assert ws.run() == 0
    assert ws.verdicts() == ["stop", "completed"]
    (told,) = ws.status()["warnings"]
    assert "the gates are not those of the last start" in told


def test_confirmations_must_agree_in_a_row(ws: Workspace) -> None:
    ws.config("[verify]\nconfirmations = 1\n")
    ws.script(
        claim(), {"append": {"w": "1"}, "block": {"next_goal": "found more"}}, claim(), claim()
    )
    assert ws.run() == 0
    assert ws.verdicts() == [
        "awaiting_confirmation",
        "continue",
        "awaiting_confirmation",
        "completed",
    ]
    assert "more iteration(s) must agree" in ws.prompt(2)


def test_gates_after_every_iteration_report_without_a_claim(ws: Workspace) -> None:
    ws.config(GATE.replace("[verify]", "[verify]\nevery_iteration = true"))
    ws.script(
        {"append": {"w": "1"}, "block": {"next_goal": "go on"}},
        {"write": {"proof": "1"}, **claim()},
    )
    assert ws.run() == 0
    assert ws.verdicts() == ["continue", "completed"]
    assert "Verification failed" in ws.prompt(2)


@pytest.mark.slow
def test_a_gate_that_hangs_is_ended_with_its_children(ws: Workspace) -> None:
    ws.config(
        '[verify]\ncommands = ["setsid sleep 600 & sleep 600"]\ntimeout_sec = 1\n', max_stagnation=2
    )
    ws.script(claim())
    assert ws.run() == 3
    assert ws.journal()[0]["gates"][0]["timed_out"] is True


def test_a_gate_command_that_is_not_there_is_a_failure_not_a_pass(ws: Workspace) -> None:
    ws.config('[verify]\ncommands = ["no-such-command-here --check"]\n', max_stagnation=2)
    ws.script(claim())
    assert ws.run() == 3
    assert ws.journal()[0]["gates"][0]["exit_code"] == 127


def test_open_plan_items_void_a_claim_when_asked(ws: Workspace) -> None:
    ws.config("[verify]\nrequire_plan_done = true\n")
    done = "# Plan\n\n- [x] first\n- [x] second\n"
    ws.script(claim(), {"write": {"plan.md": done}, "block": {"completed": True}})
    assert ws.run() == 0
    assert ws.verdicts() == ["claim_rejected", "completed"]
    why = "2 of 2 plan items are still open"
    assert why in ws.prompt(2)
    assert [line["unproven"] for line in ws.journal()] == [why, ""]
    assert ws.status()["recent"][0]["unproven"] == why
    assert f"unproven={why}" in ws.log().replace("'", "")
    assert f"{why}: " in (ws.state / "report.md").read_text()


PLAN = "# Plan\n\n- [x] first\n"


@pytest.mark.parametrize("asked", [True, False])
def test_items_that_a_run_deletes_are_not_done(ws: Workspace, asked: bool) -> None:
    """Without the key the same agent is believed: the control."""
    ws.config(f"[verify]\nrequire_plan_done = {str(asked).lower()}\n")
    ws.script(
        {"write": {"plan.md": PLAN}, "block": {"completed": True}},
        {"append": {"plan.md": "- [x] second\n"}, "block": {"completed": True}},
    )
    assert ws.run() == 0
    assert ws.verdicts() == ["claim_rejected", "completed"] if asked else ["completed"]
    assert not asked or "1 open plan item(s) were removed, not ticked: second" in ws.prompt(2)


def test_items_that_a_person_deletes_are_not_asked_for(ws: Workspace) -> None:
    """Also after a run had taken one out: whoever edits the plan has seen what is in it."""
    ws.config("[verify]\nrequire_plan_done = true\n")
    ws.plan("# Plan\n\n- [ ] first\n- [ ] second\n- [ ] third\n")
    two = PLAN + "- [x] second\n"
    ws.script({"write": {"plan.md": two}, "block": {"stop": True}}, {"block": {"completed": True}})
    assert ws.run() == 0
    assert ws.runtime()["dropped"]["items"] == ["third"]
    ws.plan(PLAN)
    assert ws.run() == 0
    assert ws.verdicts() == ["stop", "completed"]


def test_what_a_run_deleted_that_died_with_its_supervisor_is_remembered(ws: Workspace) -> None:
    ws.config("[verify]\nrequire_plan_done = true\n", on_orphan="kill")
    ws.script(
        {"write": {"plan.md": PLAN}, "say": "deleted", "sleep": 600},
        {"append": {"work.txt": "x"}, "block": {"completed": True}},
        {"append": {"plan.md": "- [x] second\n"}, "block": {"completed": True}},
    )
    process = ws.start()
    wait_until(lambda: (ws.path / "plan.md").read_text() == PLAN, "the plan to be rewritten")
    process.kill()
    process.wait()
    assert ws.run() == 0
    assert ws.verdicts() == ["interrupted", "claim_rejected", "completed"]


@pytest.mark.slow
def test_a_spent_budget_needs_a_human_and_stays_spent(ws: Workspace) -> None:
    ws.config("[budget]\nmax_hours = 0.00001\n", max_stagnation=0)
    ws.script({"sleep": 0.2, "append": {"w": "1"}, "block": {"next_goal": "burn more"}})
    assert ws.run() == 4
    assert ws.status()["state"] == "blocked"
    assert "max_hours" in ws.status()["reason"]
    spent = ws.started()
    assert ws.run() == 4
    assert ws.started() == spent


@pytest.mark.slow
def test_each_iteration_is_kept_as_a_checkpoint_outside_the_branch(ws: Workspace) -> None:
    ws.script(
        {"write": {"a.txt": "1"}, "block": {"next_goal": "b"}}, {"write": {"a.txt": "2"}, **claim()}
    )
    index = (ws.path / ".git/index").read_bytes()
    assert ws.run() == 0
    assert (ws.path / ".git/index").read_bytes() == index
    refs = ws.git("for-each-ref", "--format=%(refname)", "refs/codex-self-iter").split()
    assert {ref.rsplit("/", 1)[1] for ref in refs} >= {"000001", "000002"}
    assert ws.git("log", "--oneline", "--branches").count("\n") == 1
    assert "a.txt" in ws.cli("diff", "1", "2").stdout
    undone = ws.cli("rewind", "1", "--yes")
    assert undone.returncode == 0, undone.stderr
    assert (ws.path / "a.txt").read_text() == "1"


def test_the_supervisor_commits_what_an_iteration_changed(ws: Workspace) -> None:
    ws.config('[git]\ncommit = "supervisor"\n')
    (ws.path / "mine.txt").write_text("staged by the person")
    ws.git("add", "mine.txt")
    ws.script({"write": {"a.txt": "1"}, "block": {"summary": "Write a", "completed": True}})
    assert ws.run() == 0
    assert ws.git("log", "-1", "--format=%s").strip() == "Write a"
    assert ws.git("show", "--name-only", "--format=", "HEAD").split() == ["a.txt"]
    assert ws.git("diff", "--cached", "--name-only").split() == ["mine.txt"]
    assert ws.journal()[0]["commit"]


PLANNER = (
    '{"objective": "o", "execution_prompt": "do exactly this", "done_if": "it is", "stop": false, '
    '"rationale": "r"}'
)
REVIEW = '{"continue": %s, "confidence": 0.9, "next_focus": "%s", "reason": "looked"}'


def test_roles_make_three_runs_and_the_reviewer_decides(ws: Workspace) -> None:
    ws.config(mode="roles")
    work = {"append": {"w": "1"}, "block": {"next_goal": "x", "completed": True}}
    ws.script(
        {"raw": PLANNER}, work, {"raw": REVIEW % ("true", "look at the edge")},
        {"raw": PLANNER}, work, {"raw": REVIEW % ("false", "")},
    )  # fmt: skip
    assert ws.run() == 0
    assert ws.verdicts() == ["claim_rejected", "completed"]
    assert [run["role"] for run in ws.journal()[0]["runs"]] == ["planner", "executor", "reviewer"]
    assert "do exactly this" in ws.prompt(2)
    assert "look at the edge" in ws.prompt(4)
    names = sorted(path.name for path in (ws.state / "prompts").iterdir())
    assert names[:3] == ["000001-executor.md", "000001-planner.md", "000001-reviewer.md"]


def test_a_planner_stop_is_a_cooldown_that_an_edit_ends(ws: Workspace) -> None:
    ws.config(mode="roles", planner_stop_backoff_sec=600)
    work = {"append": {"w": "1"}, "block": {"completed": True}}
    ws.script(
        {"raw": PLANNER.replace("false", "true")},
        {"raw": PLANNER},
        work,
        {"raw": REVIEW % ("false", "")},
    )
    process = ws.start()
    status = ws.wait_state("cooldown")
    assert status["wait"]["kind"] == "planner_stop"
    assert status["until"]
    ws.plan("# Plan\n\n- [ ] something new\n")
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["planner_stop", "completed"]
    assert "something new" in ws.prompt(2)


@pytest.mark.slow
def test_a_crash_in_one_role_goes_on_at_that_role(ws: Workspace) -> None:
    ws.config(mode="roles")
    executor = {"sleep": 60, "until": "go", "append": {"w": "1"}, "block": {"completed": True}}
    ws.script({"raw": PLANNER}, executor, {"raw": REVIEW % ("false", "")})
    process = ws.start()
    ws.wait_runs(2)
    process.kill()
    process.wait()
    second = ws.start()
    ws.wait_state("running")
    (ws.control / "go").touch()
    assert ws.ended(second) == 0
    assert ws.started() == 3
    assert ws.verdicts() == ["completed"]
    assert [run["role"] for run in ws.journal()[0]["runs"]] == ["planner", "executor", "reviewer"]


def test_the_report_says_what_was_asked_done_and_why_it_ended(ws: Workspace) -> None:
    ws.config(GATE)
    ws.script(claim(summary="tried"), {"write": {"proof": "1"}, **claim(summary="proved it")})
    assert ws.run() == 0
    report = (ws.state / "report.md").read_text()
    for part in (
        "# Report: completed",
        "tried",
        "proved it",
        "claim_rejected",
        "passed",
        "Time by state",
    ):
        assert part in report


@pytest.mark.parametrize("checkpoints", [True, False])
def test_the_report_sums_up_what_the_loop_did_and_no_one_else(
    ws: Workspace, checkpoints: bool
) -> None:
    """Without checkpoints it says that they cannot be told apart: the control."""
    ws.config(f"[git]\ncheckpoints = {str(checkpoints).lower()}\n")
    (ws.path / "README.md").write_text("a person's words\n")
    commit = "git add done.txt && git commit -qm done"
    ws.script(
        {"write": {"done.txt": "1"}, "run": commit, "block": {"next_goal": "b"}},
        {"write": {"new.txt": "2"}, "block": {"completed": True}},
    )
    ws.git("add", "README.md")
    ws.git("commit", "-qm", "begin")
    (ws.path / "README.md").write_text("other words\n")
    assert ws.run() == 0
    report = (ws.state / "report.md").read_text()
    assert "done.txt" in report
    assert ("Changed in iterations 1 to 2:" in report) is checkpoints
    assert ("new.txt" in report) is checkpoints
    assert ("README.md" in report) is not checkpoints
    assert ("whoever changed them" in report) is not checkpoints


@pytest.mark.parametrize("behind", ["tests", "shared/tests"])
def test_a_gate_file_behind_a_link_is_guarded_and_a_pattern_without_files_is_said(
    ws: Workspace, behind: str
) -> None:
    (ws.path / "shared" / "tests" / "deep").mkdir(parents=True)
    (ws.path / "shared" / "tests" / "deep" / "check.sh").write_text("exit 1\n")
    (ws.path / "shared" / "tests" / "circle").symlink_to("..")
    (ws.path / "tests").symlink_to("shared/tests")
    tables = (
        '[verify]\ncommands = ["sh tests/deep/check.sh"]\ngate_files = ["tests/", "none/*.py"]\n'
    )
    ws.config(tables, max_stagnation=2)
    ws.script({"write": {f"{behind}/deep/check.sh": "exit 0\n"}, "block": {"completed": True}})
    assert ws.run() != 0
    assert "check.sh" in ws.prompt(2)
    assert "[verify] gate_files: no file matches none/*.py" in ws.status()["warnings"]


GATES = {
    "nul": r"printf 'a\000b\n'",
    "bytes": r"printf '\377\376\n'",
    "colour": r"printf '\033[31mred\033[0m\n'",
    "flood": "yes 0123456789 | head -c 100000000",
    "stdin": "cat; echo nothing came",
    "child": "sleep 600 & setsid sleep 600 &",
    "tty": "echo x > /dev/tty",
    **{f"long {n}": f"seq {n} 9999" for n in range(4)},
}


def test_the_next_prompt_has_both_ends_of_every_gate_that_fails(ws: Workspace) -> None:
    commands = [f"echo HEAD {n}; {does}\necho TAIL {n}; test -e ok" for n, does in GATES.items()]
    ws.config(f"[verify]\ncommands = {json.dumps(commands)}\n")
    ws.script(claim(), {"write": {"ok": ""}, **claim()})
    assert ws.run() == 0, ws.log()
    prompt = ws.prompt(2)
    for name in GATES:
        assert f"HEAD {name}\n" in prompt
        assert f"TAIL {name}\n" in prompt
    assert "nothing came" in prompt
    assert "a\u2400b\n" in prompt
    assert "\nred\n" in prompt
    assert "\0" not in prompt
    assert "\x1b" not in prompt
    assert "bytes left out" in prompt
    flood = next(gate for gate in ws.journal()[0]["gates"] if "HEAD flood" in gate["command"])
    assert "\n[… 99992" in flood["output"]  # all of it, not only what was kept on disk
    assert len(prompt) < 32_000


TERMINAL = "import os,pty,sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.mark.parametrize("what", ["gate", "agent"])
def test_the_terminal_is_nobodys_but_the_persons(ws: Workspace, what: str) -> None:
    speak = "(echo hello > /dev/tty) 2>/dev/null && touch spoken; test ! -e spoken"
    ws.config(f"[verify]\ncommands = {json.dumps([speak] if what == 'gate' else ['true'])}\n")
    ws.script({"run": speak if what == "agent" else "true", **claim()})
    assert ws.run(prefix=(sys.executable, "-c", TERMINAL)) == 0, ws.log()
    assert not (ws.path / "spoken").exists()
    assert "run.started" in ws.log()
