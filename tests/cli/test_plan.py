"""`plan check` and `plan show`, as a person and a program call them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

GOOD = "# Plan\n\n- [x] done\n- [ ] one (after: 1)\n  check: make test\n"
RULES = {
    "empty": "words\n",
    "not-an-item": "- [ ] a\n- [X ] b\n",
    "unclosed": "- [ ] a\n```\n",
    "tabs": "- [ ] a\n  - [ ] b\n\t- [ ] c\n",
    "stray-check": "- [ ] a\ncheck: b\n",
    "after": "- [ ] a (after: 9)\n",
    "too-long": "- [ ] a\n" + "\n" * 50_001,
    "too-large": "- [ ] a and b and c\n",
    "no-check": "- [ ] a\n",
    "duplicate": "- [ ] a\n- [ ] a\n",
    "nothing-to-verify": "- [ ] a\n",
}
FAULTS = {"empty", "not-an-item", "unclosed", "tabs", "stray-check", "after", "too-long"}


def write(command, text: str, name: str = "plan.md") -> Path:
    path = command.workspace / name
    path.write_text(text, encoding="utf-8")
    return path


def findings(command, *words: str) -> tuple[int, list[dict]]:
    done = command("plan", "check", "--json", *words)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)["findings"]


def test_a_good_plan_is_good(command) -> None:
    write(command, GOOD)
    done = command("plan", "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "plan.md is good: 2 items, 0 faults, 0 suggestions\n"


def test_each_finding_is_one_line_with_its_place(command) -> None:
    write(command, "# Plan\n\n- [ ] one\n- [] two\n")
    done = command("plan", "check")
    assert done.returncode == 2
    unchecked, nothing, fault, last = done.stdout.splitlines()
    assert nothing.startswith("plan.md:3: suggestion: nothing here can be verified")
    assert unchecked.startswith("plan.md:3: suggestion: the item has no check; say below it,")
    assert fault == (
        "plan.md:4: fault: this is not read as an item: its box is `[]`; "
        "write `- [ ] text`, or `- [x] text` for an item that is done [not-an-item]"
    )
    assert last == "plan.md is wrong: 1 item, 1 fault, 2 suggestions"


def test_suggestions_alone_are_said_and_exit_0(command) -> None:
    done = command("plan", "check")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "plan.md can be used: 1 item, 0 faults, 2 suggestions"


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_found(command, rule: str) -> None:
    write(command, RULES[rule])
    code, found = findings(command)
    kinds = {one["rule"]: one["kind"] for one in found}
    assert kinds[rule] == ("fault" if rule in FAULTS else "suggestion")
    assert code == (2 if rule in FAULTS else 0)
    write(command, GOOD)
    assert findings(command) == (0, [])


@pytest.mark.parametrize(
    "line",
    [
        "- []",
        "- [X ] b",
        "-[ ] b",
        "- [ ]b",
        "- [v] b",
        "- [~] b",
        "[ ] b",
        "\nb\n\n    - [ ] code",
    ],
)
def test_every_box_that_is_none_is_found(command, line: str) -> None:
    write(command, f"- [ ] a\n{line}\n")
    code, found = findings(command)
    assert (code, [one["rule"] for one in found if one["kind"] == "fault"]) == (2, ["not-an-item"])


def test_lines_may_end_with_a_carriage_return_alone(command) -> None:
    write(command, "# Plan\r- [x] a\r- [ ] b\r  check: test -e b\r")
    assert findings(command) == (0, [])
    assert "1 of 2 items done" in command("plan", "show").stdout


def test_dates_links_and_boxes_in_a_fence_are_neither_items_nor_faults(command) -> None:
    write(command, "- [x] a\n- [2026-01-29] b\n- [x](y)\n\n   ```md\n   - [ ] c\n   ```\n")
    assert [one["rule"] for one in findings(command)[1]] == ["nothing-to-verify"]
    assert "1 of 1 item done" in command("plan", "show").stdout


def test_what_init_wrote_is_found(command) -> None:
    (command.workspace / "plan.md").unlink()
    assert command("init").returncode == 0
    code, found = findings(command)
    assert (code, [(one["rule"], one["kind"]) for one in found]) == (2, [("placeholder", "fault")])
    text = (command.workspace / "plan.md").read_text(encoding="utf-8")
    write(command, text + "- [ ] my own item; check: make\n")
    code, found = findings(command)
    left = [one for one in found if one["rule"] == "placeholder"]
    assert (code, [one["line"] for one in left]) == (0, [6, 7, 8])


def test_gates_that_are_configured_verify_something(command) -> None:
    assert "nothing-to-verify" in {one["rule"] for one in findings(command)[1]}
    write(command, '[verify]\ncommands = ["make"]\n', "codex-self-iter.toml")
    assert {one["rule"] for one in findings(command)[1]} == {"no-check"}


@pytest.mark.parametrize("tests", [True, False])
def test_the_tests_of_the_repository_verify_the_plan_of_a_task_in_words(
    command, tests: bool
) -> None:
    """A run of it takes them as its gates; one with a plan of the workspace does not."""
    command.state_dir.mkdir(exist_ok=True)
    (command.workspace / "plan.md").unlink(missing_ok=True)
    (command.state_dir / "plan.md").write_text("- [ ] a\n")
    if tests:
        (command.workspace / "Makefile").write_text("test:\n\ttrue\n")
    rules = [one["rule"] for one in findings(command)[1]]
    assert ("nothing-to-verify" in rules) is not tests
    write(command, "- [ ] a\n")
    assert "nothing-to-verify" in [one["rule"] for one in findings(command)[1]]


def test_json_is_one_object(command) -> None:
    write(command, "- [] a\n- [ ] b\n")
    value = json.loads(command("plan", "check", "--json").stdout)
    assert value.keys() == {"schema", "path", "items", "faults", "suggestions", "findings"}
    assert (value["path"], value["items"], value["faults"]) == ("plan.md", 1, 1)
    assert all(one.keys() == {"line", "kind", "rule", "what", "mend"} for one in value["findings"])


def test_any_file_can_be_checked_anywhere(command, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    draft = elsewhere / "draft.md"
    draft.write_text("- [] a\n", encoding="utf-8")
    done = command("plan", "check", "draft.md", cwd=elsewhere)
    assert done.returncode == 2
    assert done.stdout.startswith("draft.md:1: fault: ")
    assert command("plan", "check", str(draft)).stdout.startswith(f"{draft}:1: fault: ")
    assert sorted(path.name for path in elsewhere.iterdir()) == ["draft.md"]


def test_no_lock_is_needed_and_nothing_is_changed(command) -> None:
    command.write_status()  # and a supervisor holds the lock
    before = {path: path.stat().st_mtime_ns for path in command.workspace.rglob("*")}
    assert command("plan", "check").returncode == 0
    assert command("plan", "show").returncode == 0
    command.release()
    assert command("plan", "check").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in command.workspace.rglob("*")} == before


@pytest.mark.parametrize("action", ["check", "show"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "init` writes one, or name another file"),
        (b"- [ ] a\n\xff\n", "is not UTF-8 (line 2); save it as UTF-8"),
        (b"x" * (4 * 1024 * 1024 + 1), "is larger than 4 MiB; shorten it"),
    ],
)
def test_a_plan_that_cannot_be_read_is_one_line(command, action, content, said) -> None:
    path = command.workspace / "plan.md"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    done = command("plan", action)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_no_text_file_is_refused(command) -> None:
    os.mkfifo(command.workspace / "fifo")
    for name in ("fifo", "."):
        done = command("plan", "check", name)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sho"], "a task in words after 'plan', not 'sho' (did you mean 'show'?)"),
        (["write me a parser"], "give --yes to take the plan as it comes"),
        (["check", "no.md"], "plan file no.md does not exist; name another file"),
        (["check", "a", "b"], "unrecognized arguments: b"),
    ],
)
def test_other_words_are_one_error(command, words: list[str], said: str) -> None:
    done = command("plan", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr.splitlines()[0]


# -- show -----------------------------------------------------------------------------------------

ITEMS = """\
- [x] Read it
- [ ] Write it
  - [x] the parser
    check: pytest -q tests/parser
  - [ ] the page; check: `make docs` and `make links`
- [x] by hand
"""


def journal(command, *lines: dict) -> None:
    """A journal in which these were ticked, as the marks of the program."""
    (command.state_dir / "logs").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (command.state_dir / "logs" / "iterations.jsonl").write_text(text, encoding="utf-8")


def test_show_says_what_is_done_and_what_is_next(command) -> None:
    from codex_self_iter.core.marks import mark

    write(command, ITEMS)
    journal(
        command,
        {"iteration": 3, "ticked": [mark("Read it 1"), mark("the parser 1")]},
        {"iteration": 4, "ticked": []},
        {"iteration": 7, "ticked": [mark("the parser 1")]},
    )
    done = command("plan", "show")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "plan.md: 3 of 5 items done",
        "  [x] Read it  iteration 3",
        "  [ ] Write it",
        "    [x] the parser  iteration 7",
        "        check: pytest -q tests/parser",
        ">   [ ] the page",
        "        check: make docs",
        "        check: make links",
        "  [x] by hand",
    ]
    assert command("plan").stdout == done.stdout
    assert command("plan", "show", str(command.workspace / "plan.md")).returncode == 0


def test_show_as_json(command) -> None:
    from codex_self_iter.core.marks import mark

    write(command, ITEMS)
    journal(command, {"iteration": 3, "ticked": [mark("Read it 1")]})
    value = json.loads(command("plan", "show", "--json").stdout)
    assert (value["path"], value["done"], value["total"]) == ("plan.md", 3, 5)
    assert value["items"][3] == {
        "line": 5, "text": "the page", "level": 1, "ticked": False, "next": True,
        "checks": ["make docs", "make links"], "since_iteration": None,
    }  # fmt: skip
    assert [one["since_iteration"] for one in value["items"]] == [3, None, None, None, None]


def test_show_fits_a_narrow_terminal(command) -> None:
    write(command, f"- [ ] {'long words ' * 40}; check: {'x' * 300}\n")
    for columns in ("60", "90"):
        lines = command("plan", "show", COLUMNS=columns).stdout.splitlines()
        assert max(map(len, lines)) == int(columns)


def test_a_plan_cannot_write_to_the_terminal(command) -> None:
    write(command, "- [ ] a\x1b[31m red\x1b]0;title\x07\n  check: b\x1b[2J\n- [] \x1b[31m\n")
    for action in ("check", "show"):
        assert "\x1b" not in command("plan", action).stdout


def test_the_plan_of_the_last_supervisor_is_meant(command) -> None:
    other = write(command, "- [ ] other\n", "other.md")
    write(command, 'plan_file = "third.md"\n', "codex-self-iter.toml")
    write(command, "- [ ] third\n", "third.md")
    assert "third" in command("plan").stdout
    assert "plan.md" in command("plan", CODEX_SELF_ITER_PLAN_FILE="plan.md").stdout
    command.write_status(plan={"done": 0, "total": 1, "last_ticked": None, "path": str(other)})
    assert "other" in command("plan").stdout


def test_the_words_of_plan_are_completed(command) -> None:
    assert command("complete", "--", "plan", "").stdout.split() == ["check", "show"]
    assert command("complete", "--", "plan", "s").stdout.split() == ["show"]
    assert "--json" in command("complete", "--", "plan", "--").stdout.split()
