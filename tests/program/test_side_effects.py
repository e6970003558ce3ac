"""What an agent or a hook does to git beside the content of files is said, and undoes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.harness import Workspace, wait_until

COMMIT = '[git]\ncommit = "supervisor"\n'
DONE = {"block": {"completed": True}}


@pytest.mark.parametrize("mode", ["supervisor", "none"])
def test_what_a_run_stashes_is_said_everywhere_until_it_is_back(ws: Workspace, mode: str) -> None:
    ws.config(f'[git]\ncommit = "{mode}"\n', max_iterations=1)
    (ws.path / "old.txt").write_text("a person's, stashed before")
    ws.git("stash", "-qu")
    ws.script({"write": {"a.txt": "a", "b.txt": "b"}, "run": "git stash -qu", **DONE})
    assert ws.run() == 0
    told = "2 file(s) (a.txt, b.txt): git stash pop brings it back"
    assert told in str(ws.status()["warnings"])
    assert told in ws.status()["exit"]["reason"]
    assert told in (ws.state / "report.md").read_text()
    assert told in " ".join(ws.cli("status").stdout.split())
    assert told in ws.cli("show", "1").stdout
    assert "took changes" not in ws.log()
    (ws.path / "later.txt").write_text("a person's, stashed between the runs")
    ws.git("stash", "-qu")
    ws.script(
        {"block": {"next_goal": "x"}},
        {"run": "git stash pop -q stash@{1}", **DONE},
    )
    assert ws.run("--max-iterations", "2") == 0
    assert told.replace("pop", "pop stash@{1}") in ws.prompt(2)  # another supervisor knows it, too
    assert ws.status()["warnings"] == []
    assert ws.status()["owed"] is None
    assert "stash" not in ws.status()["exit"]["reason"]
    assert ws.git("stash", "list").count("\n") == 2  # the person's


@pytest.mark.parametrize("mode", ["supervisor", "none"])
@pytest.mark.parametrize("gate", ["git clean -fdq", "git stash -qu", "touch x; rm x"])
def test_what_gates_take_out_of_the_work_tree_is_said(ws: Workspace, mode: str, gate: str) -> None:
    gates = json.dumps([gate])
    ws.config(f'[git]\ncommit = "{mode}"\n[verify]\ncommands = {gates}\n')
    ws.script({"write": {"new.txt": "n"}, **DONE})
    assert ws.run() == 0
    told = str(ws.status()["warnings"])
    assert ("took changes out of the work tree: new.txt" in told) is ("clean" in gate)
    assert ("a run stashed 1 file(s) (new.txt)" in told) is ("stash" in gate)


@pytest.mark.parametrize("mode", ["supervisor", "none"])
def test_a_gate_that_changes_the_branch_is_told_until_it_is_back(ws: Workspace, mode: str) -> None:
    gates = json.dumps(["git checkout -q -b other || git checkout -q main"])
    ws.config(f'[git]\ncommit = "{mode}"\n[verify]\ncommands = {gates}\nevery_iteration = true\n')
    ws.script(
        {"write": {"a.txt": "a"}, "block": {"next_goal": "x"}}, {"write": {"b.txt": "b"}, **DONE}
    )
    assert ws.run("--max-iterations", "1") == 0
    assert "a run checked out other instead of main" in str(ws.status()["warnings"])
    assert ws.run() == 0
    assert ws.status()["warnings"] == []


def test_what_an_agent_that_is_to_commit_leaves_is_said_everywhere(ws: Workspace) -> None:
    (ws.path / "mine.txt").write_text("a person's")
    gates = json.dumps(["echo g > gate.txt"])
    ws.config(f'[git]\ncommit = "agent"\n[verify]\ncommands = {gates}\n')
    ws.script(
        {"write": {"a.txt": "a"}, "git": [["add", "a.txt"], ["commit", "-qm", "a"]]},
        {"write": {"b.txt": "b"}, "block": {"next_goal": "x"}},
        {**DONE},
    )
    assert ws.run() == 0
    told = "b.txt): the agent is to commit its work"
    assert "the agent is to commit its work" not in ws.prompt(2)
    assert told in ws.prompt(3)
    for said in (ws.log(), (ws.state / "report.md").read_text(), ws.status()["exit"]["reason"]):
        assert "2 files are not committed (b.txt, gate.txt)" in said
    assert "2 not committed (b.txt, gate.txt)" in ws.cli("status").stdout
    assert "2 not committed (b.txt, gate.txt)" in ws.cli("show", "3").stdout
    ws.script({"git": [["add", "b.txt", "gate.txt"], ["commit", "-qm", "b"]], **DONE})
    assert ws.run() == 0
    assert ws.status()["owed"] is None
    assert ws.status()["warnings"] == []
    assert ws.git("status", "--porcelain") == "?? mine.txt\n"


def test_nothing_is_committed_from_another_tree(ws: Workspace, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "elsewhere")
    ws.config(COMMIT)
    ws.script(
        {"write": {"a.txt": "a"}, "run": f"git config core.worktree '{other.path}'"},
        {"write": {"b.txt": "b"}, "run": "git config --unset core.worktree", **DONE},
    )
    assert ws.run("--max-iterations", "1") == 0
    why = "core.worktree names another"
    assert why in str(ws.status()["warnings"])
    assert why in ws.status()["exit"]["reason"]
    assert why in ws.journal()[0]["keep_error"]
    assert ws.git("log", "--format=%s").split() == ["start"]
    assert other.git("for-each-ref").count("\n") == 1
    ws.git("config", "--unset", "core.worktree")
    assert ws.run() == 0
    other.close()


def test_the_plan_is_not_put_where_it_would_keep_git_from_coming_back(ws: Workspace) -> None:
    ws.config(COMMIT)
    leave = "git checkout -q --orphan other && git rm -rfq . && git commit -q --allow-empty -m o"
    ws.script(
        {"run": leave, "write": {"a.txt": "a"}},
        {"run": "git checkout -q main", "write": {"b.txt": "b"}},
        DONE,
    )
    assert ws.run() == 0, ws.log()
    assert "plan.md is not on the branch that a run has checked out" in ws.prompt(2)
    assert "- [ ] first" in ws.prompt(2)
    assert ws.git("show", "--format=", "--name-only", "main").split() == ["b.txt"]
    assert ws.git("show", "--format=", "--name-only", "other").split() == ["a.txt"]
    assert ws.git("status", "--porcelain") == ""
    assert ws.status()["warnings"] == []


TAKES_OUT = "git diff > '{0}/patch'; git checkout -q -- mine.txt; touch '{0}/hook'; sleep 600"


@pytest.mark.parametrize("how", ["its time is up", "killed with its supervisor"])
def test_an_edit_that_an_ended_hook_took_away_is_said_and_stays_its_owners(
    ws: Workspace, how: str
) -> None:
    killed = how.startswith("killed")
    ws.config(COMMIT + f"timeout_sec = {600 if killed else 2}\n", max_iterations=2)
    (ws.path / "mine.txt").write_text("committed")
    ws.git("add", "mine.txt")
    ws.git("commit", "-qm", "mine")
    (ws.path / "mine.txt").write_text("a person's edit")
    hook = ws.path / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    takes_out = TAKES_OUT.format(ws.control)
    hook.write_text(f"#!/bin/sh\n[ -e '{ws.control}/hook' ] && exit 0; {takes_out}\n")
    hook.chmod(0o755)
    edit = ws.git("hash-object", "mine.txt").strip()
    mend = f"git cat-file blob {edit} > mine.txt"
    ws.script({"write": {"a.txt": "a"}}, {"run": mend, "write": {"b.txt": "b"}, **DONE})
    process = ws.start()
    if killed:
        wait_until((ws.control / "hook").exists, "the hook")
        process.kill()
        ws.ended(process)
        process = ws.start()
    assert ws.ended(process) == 0
    assert mend in ws.log()
    assert mend in ws.prompt(2)
    assert (ws.path / "mine.txt").read_text() == "a person's edit"
    assert ws.git("log", "--format=", "--name-only", "HEAD~2..").split() == ["b.txt", "a.txt"]
    assert "mine.txt" in ws.status()["owed"]["files"]
    assert "took changes" not in str(ws.status()["warnings"])


MODES_COUNT = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
"""What makes file modes count for root as well."""


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None,
    reason="NOT TESTED HERE: modes do not count for root, and there is no setpriv",
)
def test_a_repository_without_write_permission_is_said_and_caught_up_with(ws: Workspace) -> None:
    prefix = MODES_COUNT if os.geteuid() == 0 else ()
    ws.config(COMMIT, max_iterations=1)
    lock = "chmod -R a-w .git"
    ws.script({"write": {"a.txt": "a"}, "run": lock}, {"write": {"b.txt": "b"}, **DONE})
    assert ws.run(prefix=prefix) == 0
    ws.git("status")  # it can be read
    assert "insufficient permission" in ws.journal()[0]["keep_error"]
    assert "insufficient permission" in str(ws.status()["warnings"])
    assert "1 file is not committed (a.txt)" in ws.status()["exit"]["reason"]
    assert "insufficient permission" in (ws.state / "report.md").read_text()
    assert "not committed (a.txt)" in ws.cli("status").stdout
    assert "not committed (a.txt)" in ws.cli("show", "1").stdout
    assert ws.run(prefix=prefix) == 0
    assert "insufficient permission" in ws.prompt(2)
    assert sorted(ws.status()["owed"]["files"]) == ["a.txt", "b.txt"]
    subprocess.run(["chmod", "-R", "u+w", ".git"], cwd=ws.path, check=True, timeout=60)
    ws.script(DONE)
    assert ws.run(prefix=prefix) == 0
    assert ws.git("log", "--format=", "--name-only", "-1").split() == ["a.txt", "b.txt"]
    assert ws.status()["owed"] is None
    assert ws.status()["warnings"] == []
