"""docs/contract.md: files, fields and words that programs rely on, after a loop that lived through
most of what can happen."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.core.runs import EndCause
from tests.claims.documents import ROOT
from tests.support.control_steps import PLANNED
from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM

PAGE = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
SECRET = "sk-proj-" + "Ab1" * 12


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the first table of a section."""
    table = section(title).partition("\n|")[2].partition("\n\n")[0]
    lines = table.splitlines()
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A gate that failed, a message, a goal, a failure, an edit of the plan, a proven end."""
    ws = Workspace(tmp_path_factory.mktemp("contract"))
    environment, gate = (shlex.quote(str(ws.control / name)) for name in ("run-env", "gate-env"))
    ws.config(
        f'[verify]\ncommands = ["env > {gate}; pwd >> {gate}; test -f proof"]\n'
        '[git]\ncommit = "supervisor"\n[hooks]\nafter_iteration = ["true"]\n',
        agent_mode="bypass",
    )
    done = {"next_goal": "rest", "completed": True, "evidence": ["a", "b"], "reason": "because"}
    ws.script(
        {"write": {"a": "1"},
         "block": {**done, "summary": f"claimed with {SECRET}", "notes": ["a fact"]},
         "run": f"env > {environment}; pwd >> {environment}; echo x > $TMPDIR/mine"},
        {"say": "about to fail", "exit": 3},
        {"append": {"plan.md": "\n- [ ] third\n"}, "sleep": 60, "until": "go"},
        {"signal": 9},
        {"write": {"proof": "1"}, "block": done},
    )  # fmt: skip
    assert ws.cli("steer", "mind the gap").returncode == 0
    assert ws.cli("goal", "the goal of a person").returncode == 0
    inbox = ws.state / "inbox"
    (inbox / ".hidden").write_text("nobody reads this")
    (inbox / "by-hand.txt").write_text("written by hand")
    process = ws.start()
    ws.wait_runs(3)
    wait_until(lambda: ws.status()["iteration"] == 3 and ws.status()["run"], "the third run")
    ws.running = ws.status()["run"]  # type: ignore[attr-defined]
    (inbox / "goal").write_text("another goal")
    wait_until(lambda: not (inbox / "goal").exists(), "the goal to be read")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0, ws.log()
    yield ws
    ws.close()


# -- the state directory --------------------------------------------------------------------------


TASK_IN_WORDS = ("task.md", "plan.md", "task-1.md", "plan-1.md")
"""`program/test_start.py` has them."""
FENCED = ("fence/before.json", "container.json", "container/", "desk/")
"""Of a loop whose agents have a fence: `tests/fence`, `tests/fence_container`."""
LANES = ("lanes.json", "logs/lanes.jsonl", "lanes/LANE/state/", "lanes/asked/")
"""Of a loop with lanes: `tests/lanes`."""
MESSAGES = ("outbox.json", "logs/notify.jsonl")
"""`program/test_notifications.py` has them."""


def test_every_file_of_the_table_is_there_and_no_other(lived: Workspace) -> None:
    """What may be there at times only is tried below."""
    named = [
        name for cells in rows("The state directory") for name in re.findall("`([^`]+)`", cells[0])
    ]
    there = {str(path.relative_to(lived.state)) for path in lived.state.rglob("*")}
    for name in named:
        pattern = name.rstrip("/").replace("NNNNNN", r"\d{6}").replace("ROLE", "executor")
        pattern = pattern.replace("gate-N", r"gate-\d").replace("MOMENT-N", r"\w+-\d")
        if name not in ("STOP", "PAUSE", "inbox/goal", *TASK_IN_WORDS, *MESSAGES, *LANES, *FENCED):
            assert any(re.fullmatch(pattern, path) for path in there), name
    tops = {name.split("/")[0] for name in named} | {"runtime.json.1", ".gitignore"}
    assert {path.name for path in lived.state.iterdir()} <= tops


def test_it_is_private_and_git_ignores_it(lived: Workspace) -> None:
    theirs = (".hidden", "by-hand.txt", "goal")
    ours = [path for path in lived.state.rglob("*") if not path.name.endswith(theirs)]
    for path in (lived.state, *ours):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert lived.git("status", "--porcelain", "--ignored=no", "--", ".codex-self-iter") == ""
    assert ".codex-self-iter" not in lived.git("log", "--name-only", "--format=")


def test_prompts_are_kept_as_they_were_sent_but_for_secrets(lived: Workspace) -> None:
    for number in range(1, 6):
        kept = (lived.state / "prompts" / f"{number:06d}-executor.md").read_text()
        assert kept == lived.prompt(number).replace(SECRET, "[redacted]")
        assert SECRET not in kept


def test_a_message_is_in_the_next_prompt_once_and_hidden_files_in_none(lived: Workspace) -> None:
    first, second = lived.prompt(1), lived.prompt(2)
    assert "mind the gap" in first
    assert "written by hand" in first
    assert "written by hand" not in second
    assert all("nobody reads this" not in lived.prompt(number) for number in range(1, 6))
    done = {path.name: path.read_text() for path in (lived.state / "inbox" / "done").iterdir()}
    assert "written by hand" in done.values()
    assert (lived.state / "inbox" / ".hidden").exists()


def test_a_goal_file_is_the_next_goal(lived: Workspace) -> None:
    goals = [line["goal_in"] for line in lived.journal()]
    assert goals[0] == "the goal of a person"
    assert goals[3] == "another goal"


def test_the_output_of_each_run_and_gate_is_kept(lived: Workspace) -> None:
    runs = lived.state / "logs" / "runs"
    assert "about to fail" in (runs / "000002-executor" / "stdout.log").read_text()
    assert (runs / "000001-gate-1" / "stdout.log").exists()
    assert (runs / "000001-gate-1" / "stderr.log").exists()


def test_the_report_says_what_was_asked_done_proven_and_spent(lived: Workspace) -> None:
    report = (lived.state / "report.md").read_text()
    for title in ("What was asked", "What was done", "Gates", "Cost", "What is open"):
        assert f"## {title}" in report, title


def test_status_and_log_and_snapshot_are_of_this_loop(lived: Workspace) -> None:
    assert lived.status()["state"] == lived.runtime()["state"] == "completed"
    log = [
        json.loads(line) for line in (lived.state / "logs/supervisor.log").read_text().splitlines()
    ]
    assert log[-1]["event"] == "loop.ended"
    before = json.loads((lived.state / "runtime.json.1").read_text())
    assert before["iteration"] <= lived.runtime()["iteration"]


# -- the agent's environment ----------------------------------------------------------------------


def environment_of(path: Path) -> tuple[dict[str, str], str]:
    """The variables of a run, and its working directory."""
    *lines, directory = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line), directory


@pytest.mark.parametrize("who", ["run-env", "gate-env"])
def test_what_is_promised_is_in_the_environment(lived: Workspace, who: str) -> None:
    variables, directory = environment_of(lived.control / who)
    last = lived.journal()[0 if who == "run-env" else -1]
    assert directory == variables["CODEX_SELF_ITER_RUN_IN"] == str(lived.path)
    if who == "run-env":
        assert variables["CODEX_SELF_ITER_RUN_ID"] == last["runs"][0]["run_id"]
        assert variables["CODEX_SELF_ITER_AGENT_MODE"] == "bypass"
        assert variables["GIT_CEILING_DIRECTORIES"].startswith(f"{lived.state}/logs/runs/000001")
    else:
        assert variables["CODEX_SELF_ITER_RUN_ID"]
        assert "CODEX_SELF_ITER_AGENT_MODE" not in variables
    for name in ("TMPDIR", "TMP", "TEMP", "BUN_TMPDIR") if who == "run-env" else ():
        assert not Path(variables[name]).exists(), name
    documented = {
        name
        for cells in rows("The agent's environment")
        for name in re.findall("`([A-Z_]+)`", cells[0])
    }
    assert {name for name in variables if name.startswith("CODEX_SELF_ITER_")} <= documented
    shells = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert variables.keys() - lived.environment.keys() - shells <= documented


def test_the_run_of_status_is_the_run_of_the_environment(lived: Workspace) -> None:
    run_id = lived.running["run_id"]  # type: ignore[attr-defined]
    assert run_id == lived.journal()[2]["runs"][0]["run_id"]


# -- the journal ----------------------------------------------------------------------------------

KINDS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in (int, float),
    "bool": lambda value: isinstance(value, bool),
    "time": lambda value: bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value)),
    "object": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
    "list of str": lambda value: all(isinstance(one, str) for one in value),
    "null": lambda value: value is None,
}


def kinds(text: str, count: int) -> list[str]:
    parts = text.split(", ")
    return parts if len(parts) == count else parts * count


def misfits(record: dict[str, Any]) -> list[str]:
    """Fields of the table that a line lacks, or that are of another kind."""
    bad = []
    for cells in rows("The journal"):
        names = re.findall(r"`(\w+)`", cells[0])
        for name, kind in zip(names, kinds(cells[1], len(names)), strict=True):
            allowed = [KINDS[one] for one in kind.split(" or ")]
            if name not in record or not any(allow(record[name]) for allow in allowed):
                bad.append(f"{name}: {kind}: {record.get(name, 'missing')!r}")
    return bad


def test_every_field_of_the_journal_has_its_kind(lived: Workspace) -> None:
    lines = lived.journal()
    assert len(lines) == 5
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5]
    for line in lines:
        assert misfits(line) == []
        for one in (*line["gates"], *line["runs"]):
            title = "gates" if "command" in one else "runs"
            (cells,) = [cells for cells in rows("The journal") if cells[0] == f"`{title}`"]
            assert set(re.findall(r"`(\w+)`", cells[2])) <= set(one)


def test_the_check_of_kinds_sees_what_is_wrong(lived: Workspace) -> None:
    line = lived.journal()[0]
    assert misfits({**line, "duration_sec": "long"}) != []
    assert misfits({key: value for key, value in line.items() if key != "phase"}) != []


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, {
            "phase": "executor", "goal_in": "the goal of a person", "reason": "because",
            "evidence": ["a", "b"], "next_goal": "rest", "has_new_changes": True, "completed": True,
            "stop": False, "claimed": True, "verdict": "claim_rejected", "agent": "command",
            "model": "", "exit_code": 0, "signal": None, "cause": "exit", "error": "",
            "failure_class": "", "usage": None, "cost_usd": None, "changed_count": 1,
            "changed_files": ["a"], "owed": None, "refused": [], "roles": {}, "notes": ["a fact"],
        }),
        (2, {"verdict": "error", "exit_code": 3, "cause": "exit", "failure_class": "agent",
             "completed": False, "claimed": False, "has_new_changes": False, "state": "backoff"}),
        (3, {"verdict": "continue", "claimed": False, "unproven": "", "next_goal": "another goal"}),
        (4, {"verdict": "error", "exit_code": None, "signal": 9, "goal_in": "another goal"}),
        (5, {"verdict": "completed", "state": "completed", "unproven": "", "claimed": True}),
    ],
    ids=["claim", "failure", "goal", "signal", "end"],
)  # fmt: skip
def test_a_line_of_the_journal_says_what_happened(
    lived: Workspace, number: int, expected: dict[str, Any]
) -> None:
    line = lived.journal()[number - 1]
    assert {key: line[key] for key in expected} == expected


def test_the_journal_agrees_with_git_and_with_itself(lived: Workspace) -> None:
    lines = lived.journal()
    for line in lines:
        assert line["started_at"] < line["ts"]
        assert line["duration_sec"] > 0
    for before, after in itertools.pairwise(lines):
        assert after["goal_in"] == before["next_goal"]
        assert after["head_before"] == before["head_after"]
    first, last = lines[0], lines[-1]
    assert first["unproven"]
    assert first["gates"][0]["ok"] is False
    assert last["gates"][0]["ok"] is True
    assert last["head_after"] == last["commit"] == lived.git("rev-parse", "HEAD").strip()
    assert lived.git("cat-file", "-t", last["checkpoint"]).strip() == "commit"
    assert lines[1]["error"]
    assert [one["text"].strip() for one in first["messages"]] == ["mind the gap", "written by hand"]
    assert first["messages"][1]["name"] == "by-hand.txt"
    events = lines[3]["events"]
    assert ("goal.set", "another goal") in [(one["kind"], one.get("goal")) for one in events]
    assert "plan.changed" in [one["kind"] for one in events]


def test_history_and_show_print_the_lines(lived: Workspace) -> None:
    printed = [json.loads(line) for line in lived.cli("history", "--json").stdout.splitlines()]
    documented = {
        name for cells in rows("The journal") for name in re.findall(r"`(\w+)`", cells[0])
    }
    for mine, line in zip(printed, lived.journal(), strict=True):
        assert {key: mine[key] for key in documented} == {key: line[key] for key in documented}
    shown = json.loads(lived.cli("show", "2", "--json").stdout)
    assert {key: shown[key] for key in documented} == {
        key: lived.journal()[1][key] for key in documented
    }


# -- the control block ----------------------------------------------------------------------------

LABELLED = section("The control block").partition("too:\n\n")[2].partition("\n\n")[0]
LABELLED = re.sub(r"^    ", "", LABELLED, flags=re.MULTILINE)


ANSWERS = [
    ('{"next_goal": "g", "stop": false}', "continue"),
    ('Done.\n```json\n{"next_goal": "g", "stop": false}\n```\n', "continue"),
    (LABELLED, "continue"),
    ('{"next_goal": "g"}', "error"),
    ('{"completed": true}', "error"),
    ('{"summary": "s", "reason": "r"}', "error"),
    ("I have done everything.", "error"),
    ('{"completed": true, "summary": "s"}', "claim_rejected"),
    (LABELLED.replace("COMPLETED: false", "COMPLETED: true"), "claim_rejected"),
    ('{"stop": true, "reason": "ask me"}', "stop"),
]
"""What an agent says, and what follows while a gate fails."""


def test_what_is_a_control_block_and_what_is_none(ws: Workspace) -> None:
    ws.config(
        '[verify]\ncommands = ["false"]',
        max_stagnation=0, max_consecutive_errors=0, backoff_base_sec=0, backoff_max_sec=0,
    )  # fmt: skip
    ws.script(*({"append": {"w": "1"}, "raw": answer} for answer, _ in ANSWERS))
    assert ws.run() == 4
    lines = ws.journal()
    assert [line["verdict"] for line in lines] == [verdict for _, verdict in ANSWERS]
    for line, (answer, verdict) in zip(lines, ANSWERS, strict=True):
        if verdict == "continue":
            assert line["completed"] is line["stop"] is False
            assert line["next_goal"] == ("write the tests" if answer == LABELLED else "g")
        if answer == LABELLED:
            said = [line[key] for key in ("summary", "reason", "evidence")]
            assert said == ["wrote the parser", "more to do", ["pytest -q: 3 passed"]]
            assert line["notes"] == ["the tests need redis"]


@pytest.mark.slow
def test_the_prompts_ask_for_the_fields_of_the_tables(ws: Workspace) -> None:
    ws.config(mode="roles")
    review = {"continue": False, "confidence": 0.9, "next_focus": "", "reason": "seen"}
    ws.script(
        {"raw": json.dumps(PLANNED)},
        {"append": {"w": "1"}, "block": {"completed": True}},
        {"raw": json.dumps(review)},
    )
    assert ws.run() == 0
    text = section("The control block")
    for number, role in ((1, "planner"), (2, ""), (3, "reviewer")):
        asked = re.findall(r"^- (\w+) \((\w+)", ws.prompt(number), re.MULTILINE)
        if role:
            (row,) = re.findall(rf"^\| {role} \| (.*) \|$", text, re.MULTILINE)
            named = re.findall(r"`(\w+)` \((\w+)", row)
        else:
            named = [
                (name.strip("`"), kind.split()[0]) for name, kind, _ in rows("The control block")
            ]
        words = {"str": "string", "bool": "boolean", "list": "list", "number": "number"}
        assert [(name, words[kind]) for name, kind in named] == asked
    (line,) = ws.journal()
    assert line["phase"] == "reviewer"
    assert line["roles"]["planner"]["objective"] == "o"
    assert line["roles"]["reviewer"]["reason"] == "seen"
    assert [run["role"] for run in line["runs"]] == ["planner", "executor", "reviewer"]
    assert misfits(line) == []


@pytest.mark.slow
def test_nothing_is_read_half_written(ws: Workspace) -> None:
    """Whoever reads while a loop works finds whole files."""
    ws.config(no_change_gate=False, max_stagnation=0)
    ws.script({"append": {"w": "x"}, "number": True})
    process = ws.start("--max-iterations", "4")
    read = 0
    while process.poll() is None:
        for name in ("status.json", "runtime.json"):
            if (ws.state / name).exists():
                read += bool(json.loads((ws.state / name).read_text()))
        lines = ws.state / "logs" / "iterations.jsonl"
        for line in lines.read_text().split("\n")[:-1] if lines.exists() else ():
            json.loads(line)
    assert process.returncode == 0
    assert read > 5


# -- exit codes -----------------------------------------------------------------------------------


ENDS: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {
    0: ({}, {"append": {"w": "1"}, "block": {"completed": True}}),
    2: ({"max_iterations": -1}, {}),
    3: ({"max_stagnation": 2, "no_change_gate": False}, {}),
    4: ({"max_consecutive_errors": 2}, {"exit": 3}),
}
"""How a loop is made to end with a code: keys, and what its agent does."""


@pytest.mark.parametrize(
    ("codes", "worst"),
    [
        ((4, 2, 0), 2),
        pytest.param((3, 4), 4, marks=pytest.mark.slow),
        pytest.param((0, 3), 3, marks=pytest.mark.slow),
        pytest.param((0, 0), 0, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_directory_of_configurations_ends_with_its_last_loop_and_the_worst_code(
    tmp_path: Path, codes: tuple[int, ...], worst: int
) -> None:
    directory = tmp_path / "configurations"
    directory.mkdir()
    loops = [Workspace(tmp_path, f"loop-{number}") for number, _ in enumerate(codes)]
    try:
        for loop, code in zip(loops, codes, strict=True):
            keys, step = ENDS[code]
            loop.config(**keys)
            loop.script(step)
            text = (loop.path / "codex-self-iter.toml").read_text()
            (loop.path / "codex-self-iter.toml").unlink()
            (directory / f"{loop.path.name}.toml").write_text(f'workspace = "{loop.path}"\n{text}')
        log = (tmp_path / "supervisor-1.log").open("ab")
        with log:
            process = subprocess.Popen(
                [*PROGRAM, "--config-dir", str(directory)], cwd=tmp_path, stdout=log, stderr=log,
                env=loops[0].environment, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        loops[0].supervisors.append(process)
        assert loops[0].ended(process) == worst, loops[0].log()
        for loop, code in zip(loops, codes, strict=True):
            if code != 2:
                assert loop.status()["exit"]["code"] == code
    finally:
        for loop in loops:
            loop.close()


def test_a_deleted_lock_opens_no_door(ws: Workspace) -> None:
    """Whoever removes the locks while an agent works lets no second supervisor in."""
    ws.script({"sleep": 60, "until": "go", "append": {"w": "1"}, "block": {"completed": True}})
    first = ws.start()
    ws.wait_runs(1)
    for name in ("loop.lock", "run.lock"):
        (ws.state / name).unlink()
    assert ws.run() == 75
    assert f"{first.pid}" in ws.log()
    (ws.control / "go").touch()
    assert ws.ended(first) == 0
    assert not (ws.control / "overlaps.log").exists()


@pytest.mark.parametrize("mode", ["safe", pytest.param("bypass", marks=pytest.mark.slow)])
def test_plan_shell_is_told_the_mode(ws: Workspace, mode: str) -> None:
    ws.config(agent="plan-shell", agent_command_template="")
    ws.plan('- [ ] say it\n  ```sh\n  echo "$CODEX_SELF_ITER_AGENT_MODE" > mode\n  ```\n')
    assert ws.run("--once", "--agent-mode", mode) == 0
    assert (ws.path / "mode").read_text() == f"{mode}\n"


def test_every_verdict_and_cause_is_one_of_the_table(ws: Workspace) -> None:
    """Those of the program: `history --verdict` lists the first, the code the second."""
    said = ws.cli("history", "--verdict", "none of them").stderr
    listed = said.partition("there are: ")[2].strip().split(", ")
    documented = {cells[0]: re.findall(r"`(\w+)`", cells[2]) for cells in rows("The journal")}
    assert documented["`verdict`"] == listed
    assert documented["`cause`"] == [cause.value for cause in EndCause]
