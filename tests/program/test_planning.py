"""From outside: `plan "TASK"`, with a person at a terminal and without."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time

import pytest

from tests.support.control_steps import CLAIM, WORK, long_run
from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM

TASK = "Make the tests pass"
PLAN = "# Plan\n\n- [ ] mend it\n      check: test -e mended\n"
OTHER = "# Plan\n\n- [ ] mend it otherwise\n      check: test -e other\n"
WRONG = "# Plan\n\n- [ ] mend it (after: 7)\n"


@pytest.fixture
def ws(ws: Workspace) -> Workspace:
    """A repository without a plan of ours."""
    ws.without_plan()
    return ws


def says(text: str) -> dict[str, object]:
    return {"raw": f"I have looked around.\n\n{text}"}


class Terminal:
    """`plan` in a terminal: what it shows, and what is typed."""

    def __init__(self, ws: Workspace, *words: str, **environment: str) -> None:
        self.screen, terminal = os.openpty()
        argv = [*PROGRAM, "plan", *words, "--workspace", str(ws.path)]
        self.process = subprocess.Popen(
            argv, cwd=ws.root, env={**ws.environment, **environment}, stdin=terminal,
            stdout=terminal, stderr=terminal, start_new_session=True,
        )  # fmt: skip
        os.close(terminal)
        self.shown = ""

    def until(self, text: str) -> None:
        """Read on until it is shown."""
        end = time.monotonic() + 60
        while text not in self.shown and time.monotonic() < end:
            if select.select([self.screen], [], [], 0.1)[0]:
                part = b""
                with contextlib.suppress(OSError):  # the other side is closed
                    part = os.read(self.screen, 65536)
                self.shown += part.decode(errors="replace").replace("\r\n", "\n")
                if not part:
                    break
        assert text in self.shown, self.shown

    def types(self, text: str) -> None:
        self.shown = ""
        os.write(self.screen, text.encode())

    def ends(self, text: str) -> int:
        self.until(text)
        code = self.process.wait(60)
        os.close(self.screen)
        return code


def plan_of(ws: Workspace) -> str:
    return (ws.state / "plan.md").read_text()


def test_a_plan_is_made_shown_and_accepted(ws: Workspace) -> None:
    ws.script(says(PLAN), CLAIM)
    talk = Terminal(ws, TASK)
    talk.until("[a]ccept, [r]evise in words, [e]dit, [q]uit? ")
    assert PLAN in talk.shown
    assert TASK in ws.prompt(1)
    talk.types("a\n")
    assert talk.ends("Start it: ") == 0
    assert plan_of(ws) == PLAN
    assert ws.git("status", "--short") == ""
    assert ws.run() == 0
    assert TASK in ws.prompt(2)
    assert "- [ ] mend it\n" in ws.prompt(2)


def test_it_is_revised_in_words_and_asks_when_it_must(ws: Workspace) -> None:
    ws.script(says("? Which tests?\n? By when?"), says(PLAN), says(OTHER))
    talk = Terminal(ws, TASK)
    talk.until("Which tests? ")
    talk.types("all of them\n")
    talk.until("By when? ")
    talk.types("today\n")
    talk.until("[q]uit? ")
    assert "Which tests?\nall of them\n" in ws.prompt(2)
    talk.types("r\n")
    talk.until("What should be different? ")
    talk.types("another way, please\n")
    talk.until("[q]uit? ")
    assert "another way, please" in ws.prompt(3)
    assert PLAN.strip() in ws.prompt(3)
    talk.types("a\n")
    assert talk.ends("Start it: ") == 0
    assert plan_of(ws) == OTHER


@pytest.mark.parametrize("typed", ["q\n", "\x04"])
def test_who_wants_none_gets_none(ws: Workspace, typed: str) -> None:
    ws.script(says(PLAN))
    talk = Terminal(ws, TASK)
    talk.until("[q]uit? ")
    talk.types(typed)
    assert talk.ends("Nothing was written.") == 0
    assert not (ws.state / "plan.md").exists()


def test_the_end_of_input_is_no_answer_and_an_empty_line_no_wish(ws: Workspace) -> None:
    ws.script(says("? Which tests?"), says(PLAN))
    talk = Terminal(ws, TASK)
    talk.until("Which tests? ")
    talk.types("\x04")
    assert talk.ends("Nothing was written.") == 0
    talk = Terminal(ws, TASK)
    talk.until("[q]uit? ")
    talk.types("r\n")
    talk.until("What should be different? ")
    talk.types("\n")
    talk.until("[q]uit? ")
    talk.types("r\n")
    talk.until("What should be different? ")
    talk.types("\x04")
    assert talk.ends("Nothing was written.") == 0
    assert ws.started() == 2  # no run for words that nobody said


def test_an_editor_edits_it_and_one_that_fails_changes_nothing(ws: Workspace) -> None:
    ws.script(says(PLAN))
    for name, does in (
        ("good", 'sed -i s/mend/repair/ "$1"'),
        ("bad", "exit 3"),
        ("empty", ': > "$1"'),
    ):
        (ws.root / name).write_text(f"#!/bin/sh\n{does}\n")
        (ws.root / name).chmod(0o755)
    talk = Terminal(ws, TASK, EDITOR=str(ws.root / "bad"), VISUAL="")
    talk.until("[q]uit? ")
    talk.types("e\n")
    talk.until("[q]uit? ")
    assert "ended with 3. The plan is as it was." in talk.shown
    assert PLAN in talk.shown
    talk.types("q\n")
    assert talk.ends("Nothing was written.") == 0
    for name, shown in (
        ("none", "cannot be used"),
        ("empty", "left an empty file"),
        ("good", "repair it"),
    ):
        talk = Terminal(ws, TASK, EDITOR=str(ws.root / name), VISUAL="")
        talk.until("[q]uit? ")
        talk.types("e\n")
        talk.until("[q]uit? ")
        assert shown in talk.shown
        talk.types("a\n")
        assert talk.ends("Start it: ") == 0
    assert "- [ ] repair it\n" in plan_of(ws)


def test_a_blank_name_is_no_editor_and_a_mark_of_its_is_no_text(ws: Workspace) -> None:
    """Some editors begin a file with the mark of its encoding."""
    ws.script(says(PLAN))
    editor = ws.root / "marks"
    editor.write_text("#!/bin/sh\nprintf '\\357\\273\\277- [ ] marked\\n' >\"$1\"\n")
    editor.chmod(0o755)
    talk = Terminal(ws, TASK, VISUAL="  ", EDITOR=str(editor))
    talk.until("[q]uit? ")
    talk.types("e\n")
    talk.until("[q]uit? ")
    talk.types("accept\n")
    assert talk.ends("Start it: ") == 0
    assert plan_of(ws) == "- [ ] marked\n"


def test_the_keyboard_is_the_editors_while_it_is_open(ws: Workspace) -> None:
    """Ctrl-C is a key in it; the dialogue goes on with what it leaves."""
    ws.script(says(PLAN))
    editor, heard = ws.root / "editor", ws.root / "heard"
    editor.write_text(
        "#!/bin/sh\n"
        f"trap 'sed -i s/mend/repair/ \"$1\"; touch {heard}; exit 0' INT\n"
        f"touch {heard}-open\nwhile :; do sleep 0.05; done\n"
    )
    editor.chmod(0o755)
    talk = Terminal(ws, TASK, VISUAL="", EDITOR=str(editor))
    talk.until("[q]uit? ")
    talk.types("e\n")
    wait_until((ws.root / "heard-open").exists, "the editor to be open")
    os.killpg(talk.process.pid, signal.SIGINT)
    talk.until("[q]uit? ")
    assert "repair it" in talk.shown
    talk.types("q\n")
    assert talk.ends("Nothing was written.") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_else_ends_the_dialogue_ends_the_editor_too(
    ws: Workspace, number: signal.Signals
) -> None:
    ws.script(says(PLAN))
    editor, mark = ws.root / "editor", ws.root / "open"
    editor.write_text(f"#!/bin/sh\necho $$ >{mark}.new\nmv {mark}.new {mark}\nexec sleep 600\n")
    editor.chmod(0o755)
    talk = Terminal(ws, TASK, VISUAL="", EDITOR=str(editor))
    talk.until("[q]uit? ")
    talk.types("e\n")
    wait_until(mark.exists, "the editor to be open")
    talk.process.send_signal(number)
    assert talk.ends("Nothing was written.") == 130
    wait_until(lambda: not os.path.exists(f"/proc/{mark.read_text().strip()}"), "its end")


@pytest.mark.parametrize("typed", ["abort\n", "acceptance\n", "\n", "q?\n"])
def test_only_what_was_offered_is_an_answer(ws: Workspace, typed: str) -> None:
    """ "abort" begins like "accept"."""
    ws.script(says(PLAN))
    talk = Terminal(ws, TASK)
    talk.until("[q]uit? ")
    talk.types(typed)
    talk.until("[q]uit? ")
    talk.types("quit\n")
    assert talk.ends("Nothing was written.") == 0
    assert not (ws.state / "plan.md").exists()


def test_an_interrupt_at_the_question_says_that_nothing_was_written(ws: Workspace) -> None:
    ws.script(says(PLAN))
    talk = Terminal(ws, TASK)
    talk.until("[q]uit? ")
    os.killpg(talk.process.pid, signal.SIGINT)
    assert talk.ends("Nothing was written.") == 130
    assert not (ws.state / "plan.md").exists()


def test_words_in_another_encoding_reach_the_agent_as_text(ws: Workspace) -> None:
    """A terminal may send bytes that are no UTF-8: the prompt is text all the same."""
    ws.script(says(PLAN), says(OTHER))
    talk = Terminal(ws, TASK, PYTHONIOENCODING="utf-8:strict")
    talk.until("[q]uit? ")
    talk.types("r\n")
    talk.until("What should be different? ")
    os.write(talk.screen, b"a caf\xe9, please\n")
    talk.until(OTHER.strip().splitlines()[-1])
    assert "a caf\ufffd, please" in ws.prompt(2)
    talk.until("[q]uit? ")
    talk.types("q\n")
    assert talk.ends("Nothing was written.") == 0


@pytest.mark.parametrize("how", [["--yes"], []])
def test_an_agent_that_reads_no_task_drafts_no_plan(ws: Workspace, how: list[str]) -> None:
    ws.config(agent_command_template="", agent="plan-shell")
    talk = Terminal(ws, TASK, *how)
    assert talk.ends("plan-shell does what stands in a plan and reads no task in words") == 2
    assert not (ws.state / "plan.md").exists()


# -- without a person ------------------------------------------------------------------------------


def headless(ws: Workspace, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    argv = [*PROGRAM, "plan", *words, "--workspace", str(ws.path)]
    return subprocess.run(
        argv, cwd=ws.root, env=ws.environment, input=given, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


def test_without_a_terminal_it_is_taken_as_it_comes(ws: Workspace) -> None:
    ws.script(says(PLAN))
    refused = headless(ws, TASK)
    assert (refused.returncode, "give --yes" in refused.stderr) == (2, True)
    assert ws.started() == 0
    done = headless(ws, TASK, "--yes")
    assert done.returncode == 0, done.stderr
    assert PLAN in done.stdout
    assert "Ask nothing" in ws.prompt(1)
    assert plan_of(ws) == PLAN


@pytest.mark.parametrize("how", ["file", "-"])
def test_the_task_may_come_from_a_file_or_standard_input(ws: Workspace, how: str) -> None:
    ws.script(says(PLAN))
    words = "-"
    if how == "file":
        (ws.root / "wish.txt").write_text("What I want\n")
        words = str(ws.root / "wish.txt")
    done = headless(ws, words, "--yes", given="What I want\n")
    assert done.returncode == 0, done.stderr
    assert (ws.state / "task.md").read_text() == "What I want\n"


def test_what_is_wrong_in_it_is_told_to_the_agent_once(ws: Workspace) -> None:
    ws.script(says(WRONG), says(PLAN))
    assert headless(ws, TASK, "--yes").returncode == 0
    assert "line 3: " in ws.prompt(2)
    assert plan_of(ws) == PLAN
    ws.script(says(WRONG))
    again = headless(ws, TASK, "--yes")
    assert again.returncode == 2, again.stderr
    assert "nothing was written" in again.stderr
    assert plan_of(ws) == PLAN


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (says("I would rather not."), "has answered without a plan (I have looked around."),
        ({"raw": ""}, "has answered without a plan (nothing)"),
        ({"exit": 3}, "exit code 3"),
    ],
)
def test_a_plan_that_never_comes_is_said(ws: Workspace, step: dict[str, object], said: str) -> None:
    ws.script(step)
    done = headless(ws, TASK, "--yes")
    assert done.returncode == 4
    assert said in done.stderr
    assert "its output is in " in done.stderr
    assert not (ws.state / "plan.md").exists()
    assert len(done.stderr.strip().splitlines()) == 2  # who is at it, and what became of it


@pytest.mark.parametrize("plan", [PLAN, "no plan"])
def test_what_the_agent_changes_instead_of_planning_is_said(ws: Workspace, plan: str) -> None:
    """A program of a template has all rights."""
    (ws.path / "mine.txt").write_text("a person's")
    ws.script({**says(plan), "write": {"new.txt": "n"}, "run": "rm codex-self-iter.toml"})
    ws.git("add", "-f", "codex-self-iter.toml")
    done = headless(ws, TASK, "--yes")
    assert done.returncode == (0 if plan == PLAN else 4)
    said = "command was to plan and has changed files: codex-self-iter.toml, new.txt\n"
    assert said in done.stderr
    assert ("mine.txt" in done.stderr) is False


def test_a_plan_of_the_workspace_is_replaced_and_kept(ws: Workspace) -> None:
    ws.plan("- [ ] of the person\n")
    ws.script(says(PLAN))
    assert headless(ws, TASK, "--yes").returncode == 0
    assert (ws.path / "plan.md").read_text() == PLAN
    assert (ws.path / "plan.md.bak").read_text() == "- [ ] of the person\n"
    assert not (ws.state / "plan.md").exists()


@pytest.mark.slow
def test_a_loop_that_was_here_begins_with_the_new_plan(ws: Workspace) -> None:
    ws.script({**WORK, "block": {"next_goal": "old goal"}}, says(PLAN), CLAIM)
    assert ws.run("run", TASK, "--once") == 0
    done = headless(ws, "Something else", "--yes")
    assert done.returncode == 0, done.stderr
    assert ws.run() == 0
    assert "Begin with the first open item of the new plan." in ws.prompt(3)
    assert "Something else" in ws.prompt(3)


def test_nothing_is_planned_while_a_supervisor_is_at_work(ws: Workspace) -> None:
    ws.script(long_run("go"), CLAIM)
    ws.start("run", TASK)
    ws.wait_runs(1)
    done = headless(ws, "Something else", "--yes")
    assert done.returncode == 75
    assert (ws.state / "task.md").read_text() == f"{TASK}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_who_ends_it_ends_all_that_it_has_started(ws: Workspace, number: signal.Signals) -> None:
    """The keyboard, a service manager, a terminal that is closed."""
    ws.script({**says(PLAN), "sleep": 600, "spawn": ["setsid"]})
    talk = Terminal(ws, TASK)
    ws.wait_runs(1)
    os.killpg(talk.process.pid, number)
    assert talk.process.wait(60) == 130
    wait_until(lambda: not ws.leftovers(), "nothing to be left")
    assert not (ws.state / "plan.md").exists()


def test_empty_input_is_no_task(ws: Workspace) -> None:
    done = headless(ws, "-", "--yes")
    assert (done.returncode, ws.started()) == (2, 0)
    assert "standard input is empty; write down what is wanted" in done.stderr


@pytest.mark.parametrize("words", [["chkc"], [TASK, "more"], [TASK, "--json"], [""]])
def test_what_is_no_task_is_refused(ws: Workspace, words: list[str]) -> None:
    done = headless(ws, *words, "--yes")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert ws.started() == 0
