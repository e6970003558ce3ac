"""The person's own words in the prompts: `[prompt]`."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.program.test_bounds import fails, stand_in
from tests.support.control_steps import CLAIM, PLANNED, WORK, long_run, wait_log
from tests.support.harness import Workspace, wait_until

OURS = "You are working in a repository"
LARGEST = 64 * 1024


def prompt(table: dict[str, Any], name: str = "prompt") -> str:
    return "\n".join(
        [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
    )


def write(ws: Workspace, **texts: str) -> None:
    for name, text in texts.items():
        (ws.path / f"{name}.md").write_text(text, encoding="utf-8")


def test_texts_frame_the_prompt_and_the_answer_section_stays_last(ws: Workspace) -> None:
    write(ws, first="\nÜber alles {n} $HOME\n", last="THE LAST WORD\n\n# How to cook\n")
    ws.config(prompt({"before": "first.md", "after": "last.md"}))
    assert ws.run() == 0
    text = ws.prompt(1)
    assert text.startswith(f"Über alles {{n}} $HOME\n\n{OURS}")
    end = text.index("THE LAST WORD\n\n# How to cook\n\n# How to answer\n")
    assert "# " not in text[end:].partition("# How to answer\n")[2]
    assert "completed (boolean)" in text[end:]


def test_without_them_the_prompt_is_ours(ws: Workspace) -> None:
    """The control of the test above."""
    write(ws, first="Über alles\n", last="THE LAST WORD\n")
    assert ws.run() == 0
    assert ws.prompt(1).startswith(OURS)
    assert "THE LAST WORD" not in ws.prompt(1)


def test_an_introduction_of_ones_own_stands_in_place_of_ours(ws: Workspace) -> None:
    write(ws, mine="You mend clocks.\n", first="FIRST\n")
    ws.config(prompt({"introduction": "mine.md", "before": "first.md"}))
    assert ws.run() == 0
    assert ws.prompt(1).startswith("FIRST\n\nYou mend clocks.\n\n# Plan (the file plan.md)\n")
    assert OURS not in ws.prompt(1)
    assert "completed (boolean)" in ws.prompt(1)


def test_a_role_has_its_own_texts_key_by_key(ws: Workspace) -> None:
    write(ws, all="FOR ALL\n", plans="FOR THE PLANNER\n", does="YOU DO\n", looks="YOU LOOK\n")
    tables = (
        prompt({"before": "all.md"})
        + prompt({"before": "plans.md"}, "prompt.planner")
        + prompt({"introduction": "does.md"}, "prompt.executor")
        + prompt({"after": "looks.md"}, "prompt.reviewer")
    )
    ws.config(tables, mode="roles", max_iterations=1)
    review = {"continue": True, "confidence": 1, "next_focus": "f", "reason": "r"}
    ws.script({"block": PLANNED}, WORK, {"block": review})
    assert ws.run() == 0
    planner, executor, reviewer = (ws.prompt(number) for number in (1, 2, 3))
    assert planner.startswith("FOR THE PLANNER\n\nYou plan one iteration")
    assert executor.startswith("FOR ALL\n\nYOU DO\n")
    assert reviewer.startswith("FOR ALL\n\nYou review one iteration")
    assert "YOU LOOK\n\n# How to answer" in reviewer
    assert "YOU LOOK" not in planner + executor
    assert "execution_prompt (string)" in planner
    assert "next_focus (string)" in reviewer


def test_they_are_read_anew_for_each_iteration(ws: Workspace) -> None:
    write(ws, first="THE FIRST TEXT\n")
    ws.config(prompt({"before": "first.md"}))
    ws.script({**WORK, "write": {"first.md": "ANOTHER TEXT\n"}}, CLAIM)
    assert ws.run() == 0
    assert ws.prompt(1).startswith("THE FIRST TEXT\n")
    assert ws.prompt(2).startswith("ANOTHER TEXT\n")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("rm first.md", "first.md is missing"),
        (": > first.md", "first.md is empty"),
        (r"printf '\377' > first.md", "first.md is not UTF-8"),
        ("head -c 70000 /dev/zero | tr '\\0' x > first.md", "first.md is larger than 64 KiB"),
        ("rm first.md; mkdir first.md", "first.md cannot be read (Is a directory)"),
    ],
)
def test_one_that_is_lost_while_the_loop_runs_stays_in_force_and_that_is_said(
    ws: Workspace, spoil: str, said: str
) -> None:
    write(ws, first="THE FIRST TEXT\n")
    ws.config(prompt({"before": "first.md"}))
    ws.script({**WORK, "run": spoil}, {**long_run("go"), **CLAIM})
    process = ws.start()
    ws.wait_runs(2)
    assert ws.prompt(2).startswith("THE FIRST TEXT\n")
    warned = wait_until(lambda: ws.status()["warnings"], "the warning")
    assert any(said in text and "prompts go on with the last text" in text for text in warned)
    assert said in ws.log()
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert said in (ws.state / "report.md").read_text()


def test_one_that_is_back_is_no_warning_any_more(ws: Workspace) -> None:
    write(ws, first="THE FIRST TEXT\n")
    ws.config(prompt({"before": "first.md"}))
    ws.script({**WORK, "run": "rm first.md"}, {**WORK, "write": {"first.md": "BACK\n"}}, CLAIM)
    assert ws.run() == 0
    assert "first.md is missing" in ws.log()
    assert ws.prompt(3).startswith("BACK\n")
    assert not [text for text in ws.status()["warnings"] if "first.md" in text]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist; write it, or leave out prompt.after"),
        (b"\n \n", "is empty"),
        (b"a\nb\xff\n", "is not UTF-8 (line 2, byte 0xff)"),
        (b"a\0", "is no text"),
        (b"x" * (LARGEST + 1), "is larger than 64 KiB, too much for a prompt"),
    ],
)
def test_a_start_with_one_that_cannot_be_used_is_refused(
    ws: Workspace, content: bytes | None, said: str
) -> None:
    ws.config(prompt({"after": "last.md"}))
    if content is not None:
        (ws.path / "last.md").write_bytes(content)
    assert ws.run() == 2
    (line,) = [line for line in ws.log().splitlines() if said in line]
    assert f"prompt file {ws.path / 'last.md'}" in line
    assert ws.started() == 0
    assert said.partition(";")[0] in ws.cli("doctor").stdout


def test_one_as_long_as_may_be_is_whole_and_drops_nothing(ws: Workspace) -> None:
    write(ws, last="x" * LARGEST)
    ws.config(prompt({"after": "last.md"}))
    ws.script(WORK, CLAIM)
    assert ws.run() == 0
    assert "x" * LARGEST in ws.prompt(2)
    assert "- [ ] first" in ws.prompt(2)
    assert "did a step" in ws.prompt(2)  # the history


@pytest.mark.slow
def test_a_reload_that_names_a_missing_one_changes_nothing(ws: Workspace) -> None:
    ws.script(long_run("go", block={"next_goal": "on"}), CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    ws.config(prompt({"before": "first.md"}))
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "config.not_reloaded")
    assert "leave out prompt.before" in ws.log()
    write(ws, first="THE FIRST TEXT\n")
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "config.changed")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert ws.prompt(2).startswith("THE FIRST TEXT\n")


def test_paths_count_from_the_workspace_or_from_anywhere(ws: Workspace) -> None:
    (ws.path / "sub dir").mkdir()
    write(ws, **{"sub dir/first": "FIRST\n"})
    (ws.home / "mine.md").write_text("MINE\n")
    ws.config(prompt({"before": "sub dir/first.md", "introduction": "~/mine.md"}))
    assert ws.run() == 0
    assert ws.prompt(1).startswith("FIRST\n\nMINE\n")


def test_a_shortened_prompt_has_them_whole(ws: Workspace) -> None:
    write(ws, first="THE FIRST TEXT\n", last="x" * 30_000)
    at = stand_in(
        ws, fails(413, "too long"), tables=prompt({"before": "first.md", "after": "last.md"})
    )
    assert (at / "claude").exists()
    assert ws.run() == 4
    full, short = [path.read_text() for path in sorted((ws.state / "prompts").iterdir())]
    assert "- [ ] first" in full
    assert "- [ ] first" not in short
    assert short.startswith("THE FIRST TEXT\n")
    assert "x" * 30_000 in short
