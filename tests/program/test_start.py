"""From outside: a task in one sentence, what is said before the first run, and the card at the end."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.control_steps import CLAIM, WORK, long_run
from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM

TASK = "Make the tests of «x» pass"
PLAN = ".codex-self-iter/plan.md"
MADE = {PLAN: "- [x] all of it\n"}


@pytest.fixture
def ws(ws: Workspace) -> Workspace:
    """A repository without a plan of ours."""
    ws.without_plan()
    ws.script({**CLAIM, "write": MADE})
    return ws


def card(ws: Workspace) -> str:
    """The text after the log of the last start."""
    return ws.log().rpartition("\n\n")[2]


def refused(ws: Workspace, *words: str) -> str:
    """What is said of a start that is refused before anything is started."""
    done = ws.cli("run", *words)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert ws.started() == 0
    return done.stderr


def test_a_sentence_is_all_that_a_loop_needs(ws: Workspace) -> None:
    assert ws.run("run", TASK) == 0, ws.log()
    assert (ws.state / "task.md").read_text() == f"{TASK}\n"
    assert f"# Task\n\n{TASK}\n" in ws.prompt(1)
    assert f"# Plan (the file {PLAN})" in ws.prompt(1)
    assert "Make this plan" in ws.prompt(1)
    assert (ws.path / PLAN).read_text() == MADE[PLAN]
    assert ws.git("status", "--short").split() == ["??", "work.txt"]  # nothing of ours


@pytest.mark.parametrize("plan", [PLAN, "plan.md"])
def test_to_make_the_plan_and_to_tick_it_is_work_where_git_does_not_see_it(
    ws: Workspace, plan: str
) -> None:
    """No wait because "nothing was changed"; words beside the items are no work."""
    steps = ("- [ ] a\n- [ ] b\n", "- [x] a\n- [ ] b\n", "- [x] a\n- [ ] b\n\nI have thought.\n")
    ws.script(*({"write": {plan: text}, "block": {"next_goal": text[-9:]}} for text in steps))
    words = [TASK]
    if plan != PLAN:
        (ws.path / ".git/info/exclude").write_text("*.md\n*.toml\n")
        ws.plan("# Plan\n\n- [ ] make it\n")
        words = []
    assert ws.run("run", *words, "--max-iterations", "3") == 0, ws.log()
    assert ws.verdicts() == ["continue", "continue", "no_change"]
    assert [line["has_new_changes"] for line in ws.journal()] == [True, True, False]
    assert f"Tick an item in {plan}" in ws.prompt(1)


@pytest.mark.parametrize("task", ["- [ ] do this first", "--input-format is what?", "-x must go"])
@pytest.mark.parametrize("before", [[], ["--"]])
def test_a_task_may_begin_with_a_dash(ws: Workspace, task: str, before: list[str]) -> None:
    done = ws.cli("run", "--dry-run", *before, task)
    assert done.returncode == 0, done.stderr
    assert f"# Task\n\n{task}\n" in done.stdout


def test_a_task_in_words_is_for_one_workspace_and_no_plan_that_is_named(ws: Workspace) -> None:
    ws.config(plan_file="docs/p.md")
    said = refused(ws, TASK)
    assert "docs/p.md does not exist; write it, or leave out plan_file: then run " in said
    assert not (ws.state / "task.md").exists()
    (ws.root / "second").mkdir()
    ws.config(f'[[workspaces]]\npath = "."\n[[workspaces]]\npath = "{ws.root}/second"\n')
    done = subprocess.run(
        [*PROGRAM, "run", TASK], cwd=ws.path, env=ws.environment, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, ws.started(), (ws.state / "task.md").exists()) == (2, 0, False)
    assert "for one workspace, and the configuration names 2; say which" in done.stderr
    assert ws.run("run", TASK) == 0  # it names its own


def test_the_next_start_without_a_sentence_goes_on_with_it(ws: Workspace) -> None:
    ws.script(
        {**WORK, "write": {PLAN: "- [ ] the one step\n"}, "block": {"next_goal": "step"}}, CLAIM
    )
    assert ws.run("run", TASK, "--once") == 0
    assert ws.run() == 0
    assert TASK in ws.prompt(2)
    assert "the one step" in ws.prompt(2)
    assert "# Current goal\n\nstep\n" in ws.prompt(2)
    assert ws.verdicts() == ["continue", "completed"]


@pytest.mark.slow
def test_the_same_sentence_again_goes_on_and_another_one_begins_anew(ws: Workspace) -> None:
    ws.script(
        {**WORK, "write": MADE, "block": {"next_goal": "old goal"}},
        {**WORK, "block": {"next_goal": "old goal"}},
        CLAIM,
    )
    for sentence in (TASK, TASK, "Something else"):
        assert ws.run("run", sentence, "--once") == 0, ws.log()
    assert "# Current goal\n\nold goal\n" in ws.prompt(2)
    assert MADE[PLAN] in ws.prompt(2)
    assert "Something else" in ws.prompt(3)
    assert TASK not in ws.prompt(3).partition("# History")[0]
    assert "old goal" not in ws.prompt(3).partition("# History")[0]
    assert "Make this plan" in ws.prompt(3)
    assert (ws.state / "task-1.md").read_text() == f"{TASK}\n"
    assert (ws.state / "plan-1.md").read_text() == MADE[PLAN]


@pytest.mark.parametrize("mine", [False, True])
def test_the_same_sentence_after_completion_begins_anew(ws: Workspace, mine: bool) -> None:
    """The tests that were mended once fail again: the ticked plan and its goal are those of then."""
    if mine:
        ws.plan("- [x] of the person\n")
    done = {**WORK, "block": {"next_goal": "nothing is left", "completed": True}}
    ws.script(done if mine else {**done, "write": MADE}, done)
    assert ws.run("run", TASK) == 0, ws.log()
    assert ws.run("run", TASK) == 0
    assert "# Current goal\n\nBegin with the new task" in ws.prompt(2)
    assert ("Make this plan" in ws.prompt(2)) is not mine
    assert ws.run() == 0  # without words it goes on
    assert "Begin with the new task" not in ws.prompt(3).partition("# History")[0]


def test_with_a_plan_of_the_workspace_the_sentence_is_the_task(ws: Workspace) -> None:
    ws.plan("- [ ] of the person\n")
    (ws.path / "TASK.md").write_text("the task of the file\n")
    ws.script({**WORK, "block": {"next_goal": "x"}}, CLAIM)
    assert ws.run("run", TASK, "--once") == 0
    assert TASK in ws.prompt(1)
    assert "of the person" in ws.prompt(1)
    assert "the task of the file" not in ws.prompt(1)
    assert not (ws.path / PLAN).exists()
    assert ws.run("--task-file", "TASK.md") == 0  # who names a file means it
    assert "the task of the file" in ws.prompt(2)


def test_a_plan_that_never_comes_is_said_and_holds_nothing_up(ws: Workspace) -> None:
    ws.script({"exit": 3}, {**WORK, "block": {"next_goal": "x"}}, long_run("go"), CLAIM)
    process = ws.start("run", TASK)
    ws.wait_runs(3)
    said = f"no plan has been written yet: {PLAN} is as it was"
    assert said not in ws.prompt(2)  # a run that did not come to work is no reason to say so
    assert said in ws.prompt(3)
    wait_until(lambda: said in str(ws.status()["warnings"]), "the warning")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert not ws.status()["warnings"]  # it was done without


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("",), "the task is empty"),
        (("  \n",), "the task is empty"),
        (("x" * 70_000,), "the task is 68 KiB, more than 64; put it into a file"),
        ((TASK, "--task-file", "TASK.md"), "in words or with --task-file, not both"),
        ((TASK, "--workspace", "."), "a task in words is for one workspace"),
        (("statsu",), "'statsu' is one word (did you mean the command 'status'?)"),
        (("--debug", "stop"), "(the command goes first: "),
        ((TASK, "more"), "unrecognized arguments: more"),
        (("Make", "the", "plan", "work"), "(a task in words needs quotes: "),
        (("x", "status"), "(the command goes first: "),
        (("Fix", "it", "--dry-rnu"), "(did you mean --dry-run for --dry-rnu?)"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_one_is_refused(ws: Workspace, words: list[str], said: str) -> None:
    assert said in refused(ws, *words)
    assert not ws.state.exists()


def test_without_a_repository_it_is_asked_for(ws: Workspace) -> None:
    shutil.rmtree(ws.path / ".git")
    said = refused(ws, TASK)
    assert "the workspace is no git repository: changes are judged by content alone" in said
    assert "`git init` there, or give --no-git" in said
    assert not ws.state.exists()
    assert ws.run("run", TASK, "--no-git") == 0, ws.log()
    assert ws.cli("run", "--no-git").returncode == 2  # it does nothing without a task


def elsewhere(ws: Workspace, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`run` in another directory."""
    template = {"CODEX_SELF_ITER_AGENT_COMMAND_TEMPLATE": "cat {prompt_file}"}
    return subprocess.run(
        [*PROGRAM, "run", *words], cwd=place, env={**ws.environment, **template}, check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_bare_repository_is_no_workspace(ws: Workspace) -> None:
    """`git init`, which helps elsewhere, changes nothing there."""
    bare = ws.root / "bare.git"
    ws.git("clone", "-q", "--bare", str(ws.path), str(bare))
    done = elsewhere(ws, bare, TASK)
    assert (done.returncode, ws.started()) == (2, 0)
    assert f"{bare} is a bare repository, without files to work on" in done.stderr
    assert "`git worktree add DIR` there makes a workspace" in done.stderr
    assert not (bare / ".codex-self-iter").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("git config core.bare true", "git config --worktree core.bare false"),
        (": >.git/HEAD", "not a git repository"),
        (
            "cd .. && git init -q . && echo '/work space' >.gitignore && rm -r 'work space/.git'",
            "ignores",
        ),
    ],
)
def test_a_repository_that_git_cannot_use_is_none(ws: Workspace, spoil: str, said: str) -> None:
    """Nothing could be taken back: that is not found out at the end."""
    subprocess.run(spoil, shell=True, cwd=ws.path, env=ws.environment, check=True)
    refusal = refused(ws, TASK)
    assert f"git cannot be used in {ws.path}: " in refusal
    assert said in refusal
    assert "or give --no-git: changes are judged by content alone then, and cannot be" in refusal
    assert not ws.state.exists()
    assert ws.run("run", TASK, "--no-git") == 0, ws.log()


@pytest.mark.parametrize("how", [[], ["--dry-run"]])
def test_an_agent_that_reads_no_task_is_given_none(ws: Workspace, how: list[str]) -> None:
    """plan-shell does what stands in the plan: it would end well without having done the task."""
    ws.config(agent_command_template="")
    said = refused(ws, TASK, "--agent", "plan-shell", *how)
    assert "plan-shell does what stands in a plan and reads no task in words" in said
    ws.plan("- [ ] one\n  ```sh\n  touch done\n  ```\n")
    assert "reads no task in words" in refused(ws, TASK, "--agents-order", "plan-shell", *how)
    assert not ws.state.exists()
    if not how:
        assert ws.run("run", "--agent", "plan-shell") == 0, ws.log()
        assert (ws.path / "done").exists()


def test_a_sentence_without_run_is_understood_as_one(ws: Workspace) -> None:
    done = ws.cli(TASK)
    assert done.returncode == 2
    assert f"did you mean run {TASK!r}?" in done.stderr


def test_a_sentence_changes_nothing_while_another_supervisor_is_at_work(ws: Workspace) -> None:
    ws.script(long_run("go"), CLAIM)
    ws.start("run", TASK)
    ws.wait_runs(1)
    assert ws.cli("run", "Something else").returncode == 75
    assert (ws.state / "task.md").read_text() == f"{TASK}\n"


# -- the gates that are found ----------------------------------------------------------------------


def terms(ws: Workspace) -> list[str]:
    """The three lines."""
    heads = ("command works on", "done will", "nothing proves", "limits:")
    rows = (line.partition("] ")[2] for line in ws.log().splitlines())
    return [row for row in rows if row.startswith(heads)]


def test_the_gates_of_the_repository_prove_a_sentence(ws: Workspace) -> None:
    (ws.path / "Makefile").write_text("test:\n\ttest -e done\n")
    ws.script(CLAIM, {**CLAIM, "write": {"done": ""}})
    assert ws.run("run", TASK) == 0, ws.log()
    assert ws.verdicts() == ["claim_rejected", "completed"]
    who, proof, limits = terms(ws)
    assert who.startswith(f'command works on "{TASK}" ')
    assert proof == "done will be believed when `make test` exits 0"
    assert "no bound of iterations, time or money" in limits


def test_gates_that_are_configured_are_the_only_ones(ws: Workspace) -> None:
    (ws.path / "Makefile").write_text("test:\n\tfalse\n")
    assert ws.run("run", TASK, "--verify-command", "test -e work.txt") == 0
    assert [gate["command"] for gate in ws.journal()[0]["gates"]] == ["test -e work.txt"]


def test_without_any_proof_that_is_said_first(ws: Workspace) -> None:
    (ws.path / "Cargo.toml").write_text("")  # a gate that is found and cannot run
    empty = ws.root / "no cargo"
    empty.mkdir()
    for program in ("git", "sh"):
        (empty / program).symlink_to(Path("/usr/bin") / program)
    assert ws.run("run", TASK, environment={"PATH": str(empty)}) == 0, ws.log()
    proof, who, _ = terms(ws)
    assert proof.startswith(
        "nothing proves completion here (`cargo test` would, but there is no cargo on PATH): done is "
        "the agent's word; name a check that does: --verify-command"
    )
    assert who.startswith("command works on")


def test_the_tests_of_the_repository_around_the_workspace_are_named(ws: Workspace) -> None:
    """Who starts in a directory of the repository is told where its proof is."""
    (ws.path / "Makefile").write_text("test:\n\ttest -e done\n")
    (ws.path / "part").mkdir()
    done = elsewhere(ws, ws.path / "part", TASK, "--dry-run")
    assert f"nothing proves completion here (`make test` would, in {ws.path}: start it there)" in (
        done.stdout
    )
    (ws.path / "part" / "go.mod").touch()
    done = elsewhere(ws, ws.path / "part", TASK, "--dry-run")
    assert "make test" not in done.stdout


def test_the_terms_of_a_plan_say_how_far_it_is(ws: Workspace) -> None:
    ws.plan("- [x] one\n- [ ] two\n")
    limits = (
        "--max-iterations",
        "3",
        "--budget-max-cost-usd",
        "2.5",
        "--command-timeout-sec",
        "90",
    )
    assert ws.run(*limits, "--verify-command", "true", "--verify-command", "test 1 = 1") == 0
    assert terms(ws) == [
        "command works on plan.md (1 of 2 items done) (agent_mode = safe is for the program to keep)",
        "done will be believed when `true` and `test 1 = 1` exit 0",
        "limits: 3 iterations, $2.5, 1 min 30 s a run, 12 iterations in a row without progress",
    ]


# -- before the first run --------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_red_before_the_first_run_is_said_to_person_and_agent(
    ws: Workspace, asked: bool
) -> None:
    ws.config(f'[verify]\ncommands = ["test -e done", "true"]\nat_start = {str(asked).lower()}\n')
    ws.script({**WORK, "block": {"next_goal": "x"}}, {**CLAIM, "write": {"done": ""}})
    assert ws.run("run", TASK) == 0, ws.log()
    said = "red before the first run of this start: `test -e done` exited with code 1"
    assert (said in ws.prompt(1)) == (said in ws.log()) == asked
    assert not ws.status()["warnings"]  # it is green now
    before = "was red before the loop began"
    assert (f"`test -e done`: passed, {before}" in card(ws)) == asked
    assert (f"test -e done: ok, {before}" in ws.cli("show", "2").stdout) == asked
    assert "`true`: passed, was" not in card(ws)


@pytest.mark.slow
def test_what_was_red_at_first_is_known_to_later_starts_until_the_work_is_complete(
    ws: Workspace,
) -> None:
    gate = '[verify]\ncommands = ["test -e done"]\nat_start = true\nevery_iteration = true\n'
    ws.plan("- [ ] x\n")
    ws.config(gate, max_iterations=1)
    red = "test -e done: exited with code 1"
    before = ", was red before the loop began"
    ws.script(WORK, {**CLAIM, "write": {"done": ""}}, {**WORK, "run": "rm done"})
    for number, code in ((1, 0), (2, 0), (3, 0)):
        assert ws.run() == code, ws.log()
        assert ws.journal()[-1]["iteration"] == number
    told = [ws.cli("show", str(number)).stdout for number in (1, 2, 3)]
    assert red + before in told[0]
    assert "test -e done: ok" + before in told[1]
    assert red in told[2]
    assert before not in told[2]  # green when this work began
    assert [line["gates"][0]["red_at_start"] for line in ws.journal()] == [True, True, False]


def test_a_gate_that_a_later_start_finds_red_was_not_so_before_the_loop(ws: Workspace) -> None:
    ws.plan("- [ ] x\n")
    ws.config(
        '[verify]\ncommands = ["test ! -e broken"]\nat_start = true\nevery_iteration = true\n',
        max_iterations=1,
    )
    ws.script({**WORK, "write": {"broken": ""}}, WORK)
    assert ws.run() == ws.run() == 0
    assert "was red" not in ws.cli("show", "2").stdout
    assert [line["gates"][0]["red_at_start"] for line in ws.journal()] == [False, False]


def test_a_stop_while_the_gates_run_before_the_first_run_ends_it(ws: Workspace) -> None:
    ws.config(f"[verify]\ncommands = [\"touch '{ws.root}/on'; sleep 600\"]\nat_start = true\n")
    process = ws.start("run", TASK)
    wait_until((ws.root / "on").exists, "the gate")
    assert ws.cli("stop").returncode == 0
    assert ws.ended(process) == 0
    assert ws.started() == 0


# -- a rehearsal -----------------------------------------------------------------------------------


def everything(ws: Workspace) -> dict[str, bytes]:
    """Every file of the workspace, git's too, and of the person's home."""
    places = (*ws.path.rglob("*"), *ws.home.rglob("*"))
    return {str(path): path.read_bytes() for path in places if path.is_file()}


def rehearsed(ws: Workspace, *words: str) -> str:
    """What a dry run says. It leaves everything as it was."""
    before, runs = everything(ws), ws.started()
    done = ws.cli("run", *words, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert everything(ws) == before
    assert ws.started() == runs
    return done.stdout


def test_a_dry_run_shows_the_first_run_as_it_will_be(ws: Workspace) -> None:
    ws.environment["MY_SETTING"] = "1"
    said = rehearsed(ws, TASK, "--verify-command", "test -e work.txt")
    assert not ws.state.exists()
    head, _, prompt = said.partition("as follows\n\n")
    assert "done will be believed when `test -e work.txt` exits 0" in head
    assert f"'{ws.state}/prompts/000001-executor.md'" in head  # an argument of the command
    assert re.search(r"^environment .* MY_SETTING ", head, re.MULTILINE)
    assert re.search(r"^gate +test -e work.txt$", head, re.MULTILINE)
    assert "Iteration 1, executor, by command" in head
    assert ws.run("run", TASK, "--verify-command", "test -e work.txt") == 0
    assert prompt == ws.prompt(1)
    assert f"prompt       {len(prompt.encode())} bytes" in head


@pytest.mark.slow
def test_a_dry_run_goes_on_where_the_loop_is(ws: Workspace) -> None:
    ws.script({**WORK, "write": MADE, "block": {"next_goal": "the next goal"}})
    assert ws.run("run", TASK, "--once") == 0
    assert ws.cli("steer", "a word from me").returncode == 0
    said = rehearsed(ws)
    _, _, prompt = said.partition("as follows\n\n")
    assert "Iteration 2" in said
    assert ws.run("--once") == 0
    assert prompt == ws.prompt(2)
    assert "a word from me" in prompt
    assert "Something else" in rehearsed(ws, "Something else, please")


@pytest.mark.slow
def test_a_dry_run_says_what_would_come_before_a_run(ws: Workspace) -> None:
    ws.script({"exit": 3})
    ws.config(backoff_base_sec=600, backoff_max_sec=600)
    process = ws.start("run", TASK)
    ws.wait_state("backoff")
    process.terminate()
    assert ws.ended(process) == 0
    assert "no run would start now: " in rehearsed(ws)
    ws.cli("stop")
    assert f"it would end at once: {ws.state}/STOP is there" in rehearsed(ws)
    assert "it would end at once" not in rehearsed(ws, "--clear-stop")
    ws.cli("pause")
    assert "the loop is paused" in rehearsed(ws, "--clear-stop")


def test_a_dry_run_refuses_what_a_start_refuses(ws: Workspace) -> None:
    assert "plan file" in refused(ws, "--dry-run")
    ws.config(agent_command_template="no-such-program {prompt_file}")
    assert "no-such-program" in refused(ws, TASK, "--dry-run")


# -- the card --------------------------------------------------------------------------------------


def test_the_card_says_what_it_came_to(ws: Workspace) -> None:
    ws.script({**WORK, "block": {"next_goal": "x"}}, {**CLAIM, "write": MADE})
    assert ws.run("run", TASK, "--verify-command", "test -e work.txt") == 0
    rows = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in card(ws).splitlines()]
    assert rows[0] == ["completed: more"]
    found = {row[0]: row[1] for row in rows[1:] if len(row) == 2}
    assert re.fullmatch(r"[\d.]+ s, 2 iterations \(1 continue, 1 completed\)", found["time"])
    assert found["spent"] == "tokens and money are not known"
    assert found["gate"] == "`test -e work.txt`: passed"
    assert found["changed"].startswith("1 file changed, 2 insertions(+)")
    where = f"--workspace '{ws.path}'"
    assert found["look"].endswith(f"history {where}")
    assert f"show {where} 2" in card(ws)
    command = next(line for line in card(ws).splitlines() if "take back" in line).split(
        "take back"
    )[1]
    undone = subprocess.run(
        f"{command} --yes", shell=True, cwd=ws.root, env=ws.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert undone.returncode == 0, undone.stderr
    assert not (ws.path / "work.txt").exists()


def test_a_second_start_has_a_card_of_its_own(ws: Workspace) -> None:
    ws.script({**WORK, "write": MADE, "block": {"next_goal": "x"}})
    for _ in range(2):
        assert ws.run("run", TASK, "--once") == 0
        assert "1 iteration (1 continue)" in card(ws)
        assert "1 file changed, 1 insertion(+)" in card(ws)


def test_items_that_are_open_were_left_out(ws: Workspace) -> None:
    """The agent may believe to be done all the same."""
    ws.plan("- [x] one\n- [ ] two\n- [ ] three\n")
    assert ws.run() == 0
    assert "  left out  2 of 3 items of the plan are open\n" in card(ws)
    ws.plan("- [x] one\n- [x] two\n")
    assert ws.run() == 0
    assert "left out" not in card(ws)


def test_what_was_left_out_is_on_the_card(ws: Workspace) -> None:
    (ws.path / ".git" / "hooks" / "pre-commit").write_text("#!/bin/sh\nexit 1\n")
    (ws.path / ".git" / "hooks" / "pre-commit").chmod(0o755)
    ws.config('[git]\ncommit = "supervisor"\n')
    assert ws.run("run", TASK) == 0
    assert "left out  1 file is not committed (work.txt)" in card(ws)


def test_what_an_agent_says_does_nothing_to_the_terminal(ws: Workspace) -> None:
    """Neither in the log nor on the card; a word without blanks is shown without quotes."""
    evil = "a\x1b[2Jb\x07\u202e\x9bq"
    block = {"next_goal": evil, "summary": evil, "reason": evil, "completed": True}
    ws.script({**WORK, "block": block})
    assert ws.run("run", TASK) == 0
    assert "summary=ab" in ws.log()
    assert "completed: ab" in card(ws)
    assert not set(ws.log()) & set("\x1b\x07\u202e\x9b")


def test_programs_get_no_card(ws: Workspace) -> None:
    assert ws.run("run", TASK, "--log-format", "json") == 0
    assert ws.log().splitlines()[-1].startswith("{")
    assert '"event": "loop.terms"' in ws.log()


def test_nobody_who_reads_the_card_holds_up_the_end(ws: Workspace) -> None:
    words = [*PROGRAM, "--workspace", str(ws.path), "run", TASK]
    with subprocess.Popen(
        words, cwd=ws.root, env=ws.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 0
