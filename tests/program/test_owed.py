"""What the loop changed is committed with a later iteration, or said; what a person changed is
left alone. Tried on the real program, with real git, kills and hooks."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.claims.scenes import defect
from tests.support.harness import Workspace, wait_until

COMMIT = '[git]\ncommit = "supervisor"\n'
DONE = {"block": {"completed": True}}
END = (signal.SIGTERM, signal.SIGKILL)


def committed(ws: Workspace) -> set[str]:
    """Every path in a commit of the supervisor."""
    out = ws.git("log", "--format=", "--name-only", "--grep=Codex-Self-Iter-Iteration")
    return set(out.split())


def left(ws: Workspace) -> str:
    return ws.git("status", "--porcelain", "-uall")


def kept_when(ws: Workspace, words: str) -> str:
    """Shell: keep the status as `then.json` once it says so; after ten seconds as it is."""
    status = f"'{ws.state}/status.json'"
    wait = f"n=0; until grep -q '{words}' {status} || [ $n = 200 ]; do n=$((n+1)); sleep 0.05; done"
    return f"{wait}; cp {status} '{ws.control}/then.json'"


def hook(ws: Workspace, name: str, script: str) -> Path:
    path = ws.path / ".git" / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def gate(ws: Workspace, *commands: str, tables: str = "", **keys: object) -> None:
    ws.config(f"{COMMIT}\n[verify]\ncommands = {json.dumps(commands)}\n{tables}", **keys)


WAITING_GATE = "touch '{c}/gate'; until [ -e '{c}/go' ]; do sleep 0.05; done"


def wait_file(ws: Workspace, name: str) -> None:
    wait_until((ws.control / name).exists, lambda: f"{name}; log:\n{ws.log()[-3000:]}")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["before", "_look"])
def test_killed_again_before_it_has_looked_the_work_is_still_the_loops(
    ws: Workspace, method: str
) -> None:
    """The second supervisor ends right after it has ended the run of the first."""
    at_once = "__import__('os')._exit(9)"
    environment, flag = defect(ws, "supervisor.workspace", f"Workspace.{method}", error=at_once)
    ws.config(COMMIT, on_orphan="kill")
    ws.script(
        {"write": {"before.txt": "b"}},
        {"write": {"work.txt": "w"}, "sleep": 60, "until": "never"},
        {"write": {"more.txt": "m"}, **DONE},
    )
    first = ws.start()
    ws.wait_runs(2)
    wait_until((ws.path / "work.txt").exists, "the work")
    first.kill()
    first.wait()
    flag.touch()
    assert ws.run(environment=environment) == 9, ws.log()
    flag.unlink()
    assert ws.run() == 0, ws.log()
    assert committed(ws) == {"before.txt", "work.txt", "more.txt"}
    assert left(ws) == ""


@pytest.mark.parametrize("how", END)
def test_killed_or_ended_in_the_gates_the_next_start_commits(
    ws: Workspace, how: signal.Signals
) -> None:
    gate(ws, WAITING_GATE.format(c=ws.control))
    ws.script({"write": {"feature.txt": "f"}, "block": {"summary": "Feature", "completed": True}})
    first = ws.start()
    wait_file(ws, "gate")
    first.send_signal(how)
    ws.ended(first)
    (ws.control / "go").touch()
    assert ws.run() == 0, ws.log()
    assert ws.git("log", "-1", "--format=%s").strip() == "Feature"
    assert committed(ws) == {"feature.txt"}
    assert left(ws) == ""
    assert ws.started() == 1


@pytest.mark.parametrize(
    "end",
    [
        "SIGTERM",
        "SIGKILL",
        *(pytest.param(end, marks=pytest.mark.slow) for end in ("STOP", "steer")),
    ],
)
def test_what_an_ended_run_changed_goes_into_a_later_commit(ws: Workspace, end: str) -> None:
    ws.config(COMMIT, on_orphan="kill")
    ws.script(
        {"write": {"a.txt": "half", "b.txt": "b"}, "sleep": 60},
        {"append": {"a.txt": " done"}, "block": {"completed": True}},
    )
    process = ws.start()
    ws.wait_runs(1)
    wait_until(lambda: (ws.path / "b.txt").exists(), "the agent's files")
    if end == "STOP":
        ws.cli("stop")
    elif end == "steer":
        assert ws.cli("steer", "--now", "go on").returncode == 0
    else:
        process.send_signal(getattr(signal, end))
    if end != "steer":
        ws.ended(process)
        assert "a.txt" not in committed(ws)
        assert ws.run(*(["--clear-stop"] if end == "STOP" else [])) == 0, ws.log()
    else:
        assert ws.ended(process) == 0
    assert committed(ws) == {"a.txt", "b.txt"}
    assert left(ws) == ""
    assert ws.status()["owed"] is None


STAGES = "echo half > {0}; git add {0}; echo whole > {0}"


def test_what_an_ended_run_had_staged_and_edited_again_is_the_loops_after_a_kill(
    ws: Workspace,
) -> None:
    ws.config(COMMIT, on_orphan="kill")
    stages = STAGES.format("a.txt")
    ws.script(
        {"run": f"{stages}; touch '{ws.control}/staged'", "sleep": 60},
        {"run": STAGES.format("b.txt"), **DONE},
    )
    (ws.path / "person.txt").write_text("staged")
    ws.git("add", "person.txt")
    (ws.path / "person.txt").write_text("half done")
    process = ws.start()
    wait_file(ws, "staged")
    process.kill()
    ws.ended(process)
    assert ws.run() == 0, ws.log()
    assert committed(ws) == {"a.txt", "b.txt"}
    assert ws.git("show", "HEAD:a.txt") == "whole\n"
    assert ws.git("show", ":person.txt") == "staged"
    assert left(ws) == "AM person.txt\n"
    assert ws.status()["owed"] is None


@pytest.mark.slow
def test_what_a_stopped_loop_owes_is_said_and_a_persons_edit_in_between_stays_theirs(
    ws: Workspace,
) -> None:
    ws.config(COMMIT)
    ws.script(
        {"write": {"a.txt": "1", "b.txt": "1"}, "sleep": 60},
        {"append": {"a.txt": "2", "b.txt": "2"}, "write": {"c.txt": "c"}, **DONE},
    )
    process = ws.start()
    wait_until(lambda: (ws.path / "b.txt").exists(), "the agent's files")
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    assert ws.status()["owed"]["count"] == 2
    assert ws.status()["owed"]["files"] == ["a.txt", "b.txt"]
    assert "2 files are not committed" in ws.status()["exit"]["reason"]
    (ws.path / "a.txt").write_text("the person's")
    (ws.path / "mine.txt").write_text("the person's")
    assert ws.run() == 0
    assert committed(ws) == {"b.txt", "c.txt"}
    assert left(ws) == "?? a.txt\n?? mine.txt\n"
    said = ws.status()
    assert "1 file is not committed (a.txt)" in said["exit"]["reason"]
    assert "edited by somebody else" in said["owed"]["why"]
    assert "a.txt" in (ws.state / "report.md").read_text()
    assert "1 not committed (a.txt)" in ws.cli("show", "2").stdout
    assert "not committed (a.txt)" in ws.cli("status").stdout


def test_a_refusing_hook_is_said_everywhere_and_mended_by_the_agent(ws: Workspace) -> None:
    ws.config(COMMIT, max_iterations=2)
    hook(ws, "pre-commit", 'grep -q good a.txt && exit 0; echo "LINT-SAYS-NO to a.txt"; exit 1')
    ws.script(
        {"write": {"a.txt": "bad"}, "block": {"next_goal": "x"}},
        {"write": {"a.txt": "bad too"}, "block": {"completed": True}},
    )
    assert ws.run() == 0
    assert committed(ws) == set()
    said = ws.status()
    assert said["state"] == "completed"
    assert "1 file is not committed (a.txt)" in said["exit"]["reason"]
    assert "LINT-SAYS-NO" in said["owed"]["why"]
    assert any("LINT-SAYS-NO" in text for text in said["warnings"])
    assert "commit.failed" in ws.log()
    assert "LINT-SAYS-NO" in ws.prompt(2)
    assert "LINT-SAYS-NO" in (ws.state / "report.md").read_text()
    assert "LINT-SAYS-NO" in ws.cli("show", "1").stdout
    ws.script({"write": {"a.txt": "good"}, "block": {"completed": True}})
    assert ws.run() == 0
    assert "LINT-SAYS-NO" in ws.prompt(3)  # the restart has not forgotten it
    assert committed(ws) == {"a.txt"}
    assert ws.status()["owed"] is None
    assert ws.status()["warnings"] == []
    assert "not committed" not in ws.status()["exit"]["reason"]


def test_a_hook_that_mends_what_it_refuses_is_asked_once_more(ws: Workspace) -> None:
    """The way of formatters: each iteration has something new to format, so without it nothing
    would ever be committed."""
    ws.config(COMMIT, max_iterations=2)
    asked = ws.control / "asked"
    mend = f"echo >> '{asked}'; grep -q bad *.txt || exit 0; sed -i s/bad/good/ *.txt; exit 1"
    hook(ws, "pre-commit", mend)
    ws.script({"write": {"a.txt": "bad"}}, {"write": {"b.txt": "bad"}})
    assert ws.run() == 0
    assert committed(ws) == {"a.txt", "b.txt"}
    assert ws.git("show", "HEAD:b.txt") == "good"
    assert left(ws) == ""
    assert ws.status()["owed"] is None
    assert "commit.failed" not in ws.log()
    assert len(asked.read_text()) == 4


def test_a_hook_that_always_finds_something_to_mend_is_not_asked_for_ever(ws: Workspace) -> None:
    ws.config(COMMIT, max_iterations=1)
    asked = ws.control / "asked"
    hook(ws, "pre-commit", f"echo >> '{asked}'; echo x >> a.txt; echo NEVER; exit 1")
    ws.script({"write": {"a.txt": "a"}})
    assert ws.run() == 0
    assert len(asked.read_text()) == 2
    assert committed(ws) == set()
    assert "NEVER" in ws.status()["owed"]["why"]


def test_what_was_refused_is_committed_by_an_iteration_that_changes_nothing(ws: Workspace) -> None:
    ws.config(COMMIT, max_iterations=1)
    refusal = hook(ws, "commit-msg", "exit 1")
    ws.script({"write": {"a.txt": "a"}}, DONE)
    assert ws.run() == 0
    refusal.unlink()
    assert ws.run() == 0
    assert committed(ws) == {"a.txt"}


@pytest.mark.parametrize("how", [None, *END])
def test_what_gates_change_is_the_loops(ws: Workspace, how: signal.Signals | None) -> None:
    gate(ws, f"echo tidy >> b.txt; {WAITING_GATE.format(c=ws.control)}", max_iterations=2)
    if how is None:
        (ws.control / "go").touch()
    ws.script(
        {"write": {"a.txt": "1"}, "block": {"completed": True}},
    )
    process = ws.start()
    wait_file(ws, "gate")
    if how is not None:
        process.send_signal(how)
        ws.ended(process)
        (ws.control / "go").touch()
        process = ws.start()
    assert ws.ended(process) == 0, ws.log()
    assert committed(ws) == {"a.txt", "b.txt"}
    assert left(ws) == ""


def test_a_persons_edit_while_the_gates_are_ended_stays_theirs(ws: Workspace) -> None:
    gate(ws, f"echo tidy >> b.txt; {WAITING_GATE.format(c=ws.control)}")
    ws.script({"write": {"a.txt": "1"}, "block": {"completed": True}})
    process = ws.start()
    wait_file(ws, "gate")
    process.send_signal(signal.SIGTERM)
    ws.ended(process)
    (ws.path / "mine.txt").write_text("the person's")
    (ws.control / "go").touch()
    assert ws.run() == 0
    assert committed(ws) == {"a.txt", "b.txt"}
    assert left(ws) == "?? mine.txt\n"


@pytest.mark.slow
@pytest.mark.parametrize("how", END)
def test_killed_in_a_commit_hook_the_next_start_commits_what_it_changed(
    ws: Workspace, how: signal.Signals
) -> None:
    ws.config(COMMIT)
    once = f"[ -e '{ws.control}/go' ] || echo hook >> hooked.txt"
    script = f"{once}; {WAITING_GATE.format(c=ws.control)}"
    hook(ws, "pre-commit", script)
    ws.script({"write": {"a.txt": "1"}, "block": {"completed": True}}, DONE)
    process = ws.start()
    wait_file(ws, "gate")
    process.send_signal(how)
    if how is signal.SIGKILL:
        ws.ended(process)
        process = ws.start()
        wait_until(lambda: ws.status().get("pid") == process.pid, "the next supervisor")
    (ws.control / "go").touch()
    ws.ended(process)
    assert ws.run() == 0
    assert committed(ws) == {"a.txt", "hooked.txt"}
    assert left(ws) == ""


@pytest.mark.slow
def test_a_lock_that_the_run_left_is_removed_and_an_older_one_is_said(ws: Workspace) -> None:
    ws.config(COMMIT, max_iterations=1)
    lock = ws.path / ".git" / "index.lock"
    ws.script({"write": {"a.txt": "1"}, "run": f"touch '{lock}' .git/HEAD.lock"}, DONE)
    assert ws.run() == 0
    assert committed(ws) == {"a.txt"}
    assert not lock.exists()
    assert "git.lock_removed" in ws.log()
    lock.touch()
    ws.script({"append": {"a.txt": "2"}}, {"append": {"a.txt": "2"}, **DONE})
    assert ws.run() == 0
    assert lock.exists()
    assert any(str(lock) in text for text in ws.status()["warnings"])
    lock.unlink()
    assert ws.run() == 0
    assert left(ws) == ""


@pytest.mark.parametrize(
    ("config", "attributes", "content"),
    [
        ({}, "*.txt text eol=crlf\n", "one\\r\\ntwo\\r\\n"),
        ({"core.autocrlf": "true"}, "", "one\\r\\ntwo\\r\\n"),
        ({"filter.up.clean": "tr a-z A-Z", "filter.up.smudge": "cat"}, "*.txt filter=up\n", "abc"),
        ({"core.fileMode": "false"}, "", "#!/bin/sh\\n"),
    ],
)
def test_what_git_stores_otherwise_than_it_lies_there_is_committed(
    ws: Workspace, config: dict[str, str], attributes: str, content: str
) -> None:
    ws.config(COMMIT)
    for key, value in config.items():
        ws.git("config", key, value)
    (ws.path / ".gitattributes").write_text(attributes)
    ws.git("add", ".gitattributes")
    ws.git("commit", "-q", "-m", "attributes")
    make = f"printf '{content}' > a.txt; chmod +x a.txt; git add a.txt"
    ws.script({"run": make, "block": {"completed": True}})
    assert ws.run() == 0
    assert committed(ws) == {"a.txt"}
    assert left(ws) == ""
    assert ws.status()["owed"] is None


def test_a_filter_that_fails_holds_up_no_other_file(ws: Workspace) -> None:
    ws.config(COMMIT)
    ws.git("config", "filter.lfs.clean", "no-such-git-lfs clean")
    ws.git("config", "filter.lfs.required", "true")
    (ws.path / ".gitattributes").write_text("*.bin filter=lfs\n")
    ws.git("add", ".gitattributes")
    ws.git("commit", "-q", "-m", "attributes")
    ws.script({"write": {"a.bin": "1", "b.txt": "b"}, "block": {"completed": True}})
    assert ws.run() == 0
    assert committed(ws) == {"b.txt"}
    assert "a.bin" in ws.status()["exit"]["reason"]
    assert "no-such-git-lfs" in ws.status()["owed"]["why"]


def test_what_cannot_be_committed_from_outside_is_said(ws: Workspace) -> None:
    ws.config(COMMIT)
    inner = (
        "git init -q inner && echo x > inner/x && git -C inner add x && git -C inner commit -qm x"
    )
    ws.script({"run": f"{inner}; echo y > inner/y", "write": {"b.txt": "b"}, **DONE})
    assert ws.run() == 0
    assert committed(ws) == {"b.txt"}
    assert "inner" in ws.status()["exit"]["reason"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "why"),
    [("git config core.bare true", "work tree"), ("git merge -q other || true", "merge")],
)
def test_a_repository_that_cannot_take_a_commit_is_said_and_caught_up_with(
    ws: Workspace, what: str, why: str
) -> None:
    ws.config(COMMIT, max_iterations=1)
    (ws.path / "m").write_text("1")
    ws.git("add", "m")
    ws.git("commit", "-qm", "m")
    ws.git("checkout", "-q", "-b", "other")
    (ws.path / "m").write_text("2")
    ws.git("commit", "-qam", "2")
    ws.git("checkout", "-q", "main")
    (ws.path / "m").write_text("3")
    ws.git("commit", "-qam", "3")
    ws.script({"write": {"a.txt": "1"}, "run": what}, DONE)
    assert ws.run() == 0
    assert any(why in text for text in ws.status()["warnings"])
    assert why in ws.journal()[-1]["keep_error"]
    ws.git("config", "core.bare", "false")
    if why == "merge":
        ws.git("merge", "--abort")
    assert ws.run() == 0
    assert committed(ws) == {"a.txt"}
    assert left(ws) == ""


def test_a_key_stays_out_of_what_is_published(ws: Workspace) -> None:
    key = "Zk9vQ2hhbmdlTWVOb3cxMjM0NTY3ODkw"
    ws.config(COMMIT)
    ws.script({"write": {"a.txt": "1"}, "block": {"summary": f"use {key}", "completed": True}})
    assert ws.run(environment={"ACME_API_KEY": key}) == 0
    told = ws.git("log", "--all", "--format=%B")
    assert "use [redacted]" in told
    assert key not in told


def test_a_foreign_ledger_is_set_aside(ws: Workspace) -> None:
    ws.config(COMMIT)
    (ws.state / "git").mkdir(parents=True)
    (ws.state / "git" / "owed.json").write_text('{"schema": 1, "paths": [1]}')
    ws.script({"write": {"a.txt": "1"}, "block": {"completed": True}})
    assert ws.run() == 0
    assert committed(ws) == {"a.txt"}
    assert any("owed.json" in path.name for path in (ws.state / "quarantine").iterdir())


def test_without_a_committing_supervisor_nothing_is_owed(ws: Workspace) -> None:
    """Negative control: only where it was asked to commit does it say that it did not."""
    ws.script({"write": {"a.txt": "1"}, "block": {"completed": True}})
    assert ws.run() == 0
    assert ws.status()["owed"] is None
    assert not (ws.state / "git" / "owed.json").exists()


FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")


def test_a_start_from_a_git_hook_or_alias_misleads_nobody(ws: Workspace, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "elsewhere")
    other.config()
    seen = ws.control / "seen"
    look = f"env | grep ^GIT_ | sort >> '{seen}'; git rev-parse --show-toplevel >> '{seen}'"
    gate(ws, look)
    ws.script({"run": look, "write": {"a.txt": "1"}, "block": {"completed": True}})
    place = str(other.path / ".git")
    poisoned = {**dict.fromkeys(FOREIGN, place), "GIT_WORK_TREE": str(other.path)}
    poisoned |= {"GIT_INDEX_FILE": f"{place}/index", "GIT_OBJECT_DIRECTORY": f"{place}/objects"}
    assert ws.run(environment={**poisoned, "GIT_SSH_COMMAND": "ssh -v"}) == 0, ws.log()
    lines = seen.read_text().splitlines()
    assert lines.count(str(ws.path)) == 2
    assert not [line for line in lines if line.partition("=")[0] in FOREIGN]
    assert lines.count("GIT_SSH_COMMAND=ssh -v") == 2
    assert committed(ws) == {"a.txt"}
    assert ws.journal()[0]["checkpoint"]
    assert other.git("for-each-ref", "--format=%(refname)").split() == ["refs/heads/main"]
    ws.environment |= poisoned
    assert "a.txt" in ws.cli("diff", "1").stdout
    assert "a.txt" in ws.cli("show", "1").stdout
    for name in poisoned:
        del ws.environment[name]
    other.close()


@pytest.mark.slow
def test_a_file_that_is_rewritten_again_and_again_does_not_fill_the_repository(
    ws: Workspace,
) -> None:
    ws.config("[git]\ncheckpoint_keep = 2\n", max_iterations=8)
    ws.script({"run": "head -c 1000000 /dev/urandom > big.bin", "number": True})
    assert ws.run() == 0
    stored = int(ws.git("count-objects", "-v").split("size: ")[1].split()[0])
    assert stored < 4000  # KiB; eight versions are 8,000
    assert ws.status()["disk"]["git_mb"] == pytest.approx(stored / 1024, abs=1.5)
    assert len(ws.git("for-each-ref", "refs/codex-self-iter").splitlines()) <= 4
    ws.git("fsck", "--full")


OBSTACLES = {
    "signature": (
        "git config commit.gpgsign true; git config gpg.program /bin/false",
        "git config --unset commit.gpgsign",
        "gpg",
    ),
    "hanging hook": (
        "printf '#!/bin/sh\\nsleep 600\\n' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit",
        "rm .git/hooks/pre-commit",
        "did not end within 2 s",
    ),
    "ownership": ("chown -R 12345 .git .", "chown -R 0 .git .", "safe.directory"),
    "rebase": ("mkdir .git/rebase-merge", "rmdir .git/rebase-merge", "rebase in progress"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_keeps_git_from_committing_is_said_and_then_caught_up_with(
    ws: Workspace, name: str
) -> None:
    break_it, mend_it, words = OBSTACLES[name]
    if name == "ownership" and os.geteuid():
        pytest.skip("only root can give files away")
    ws.config('[git]\ncommit = "supervisor"\ntimeout_sec = 2\n', max_iterations=1)
    (ws.path / ".git" / "hooks").mkdir(exist_ok=True)
    ws.script({"write": {"a.txt": "1"}, "run": break_it}, {"run": mend_it, **DONE})
    assert ws.run() == 0
    assert any(words in text for text in ws.status()["warnings"]), ws.status()["warnings"]
    assert "not committed" in ws.status()["exit"]["reason"]
    assert words in ws.journal()[-1]["keep_error"]
    assert ws.run() == 0
    assert words in ws.prompt(2)
    assert committed(ws) == {"a.txt"}
    assert left(ws) == ""
    told = [text for text in ws.status()["warnings"] if "this runs as root" not in text]
    assert told == []


def test_a_directory_without_git_says_that_nothing_is_committed(ws: Workspace) -> None:
    ws.config(COMMIT)
    shutil.rmtree(ws.path / ".git")
    ws.script({"write": {"a.txt": "1"}, "block": {"completed": True}})
    assert ws.run() == 0
    assert "not a git repository" in ws.status()["exit"]["reason"]


def test_a_reload_of_the_patience_with_git_is_in_force(ws: Workspace) -> None:
    ws.config('[git]\ncommit = "supervisor"\ntimeout_sec = 600\n', max_iterations=2)
    hook(ws, "pre-commit", f"touch '{ws.control}/hook'; sleep 600")
    ws.script(
        {"sleep": 60, "until": "go", "block": {"next_goal": "x"}},
        {"write": {"a.txt": "1"}, "block": {"completed": True}},
    )
    process = ws.start()
    ws.wait_runs(1)
    ws.config('[git]\ncommit = "supervisor"\ntimeout_sec = 1\n', max_iterations=2)
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "config.changed" in ws.log(), "the reload")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert "did not end within 1 s" in ws.status()["owed"]["why"]


def test_an_adopted_runs_changes_are_committed(ws: Workspace) -> None:
    ws.config(COMMIT)
    (ws.path / "mine.txt").write_text("the person's")
    ws.script({"write": {"a.txt": "1"}, "sleep": 60, "until": "go", **DONE})
    process = ws.start()
    wait_until(lambda: (ws.path / "a.txt").exists(), "the agent's file")
    process.kill()
    ws.ended(process)
    (ws.control / "go").touch()
    assert ws.run() == 0
    assert committed(ws) == {"a.txt"}
    assert left(ws) == "?? mine.txt\n"


def test_roles_own_what_each_of_them_changed_and_nothing_else(ws: Workspace) -> None:
    ws.config(COMMIT, mode="roles")
    plan = {"objective": "o", "execution_prompt": "p", "done_if": "d", "stop": False}
    review = {"continue": False, "confidence": 1, "next_focus": "", "reason": "r"}
    ws.script(
        {"write": {"planner.txt": "1"}, "raw": json.dumps({**plan, "rationale": "r"})},
        {"write": {"executor.txt": "1"}, **DONE},
        {"write": {"reviewer.txt": "1"}, "raw": json.dumps(review)},
    )
    (ws.path / "mine.txt").write_text("the person's")
    assert ws.run() == 0
    assert committed(ws) == {"planner.txt", "executor.txt", "reviewer.txt"}
    assert left(ws) == "?? mine.txt\n"


def test_a_commit_on_no_branch_is_said_until_a_branch_has_it(ws: Workspace) -> None:
    ws.config(COMMIT)
    branch = ws.git("symbolic-ref", "--short", "HEAD").strip()
    mend = f"git checkout -q {branch} && git merge -q HEAD@{{1}}"
    ws.script(
        {"run": "git checkout -q --detach", "write": {"a.txt": "a"}},
        {"write": {"b.txt": "b"}},
        {"run": mend, "write": {"c.txt": "c"}},
    )
    assert ws.run("--max-iterations", "2") == 0
    assert "is on no branch" in ws.prompt(2)
    last = ws.git("rev-parse", "--short=12", "HEAD").strip()
    assert f"last commit, {last}, is on no branch" in " ".join(ws.status()["warnings"])
    assert ws.run("--max-iterations", "1") == 0
    assert "is on no branch" in ws.prompt(3)  # another supervisor knows it, too
    assert "is on no branch" not in " ".join(ws.status()["warnings"])
    assert committed(ws) == {"a.txt", "b.txt", "c.txt"}


def test_the_ledger_keeps_no_secret_that_a_hook_said(ws: Workspace) -> None:
    secret = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
    hook(ws, "pre-commit", f"echo found {secret}; exit 1")
    ws.config(COMMIT)
    ws.script({"write": {"a.txt": "a"}})
    assert ws.run("--max-iterations", "1") == 0
    told = (ws.state / "git" / "owed.json").read_text()
    assert "found [redacted]" in told
    assert secret not in told


def test_a_run_that_changes_the_branch_is_told_until_it_is_back(ws: Workspace) -> None:
    ws.config(COMMIT)
    home = ws.git("branch", "--show-current").strip()
    keep = kept_when(ws, "a run checked out")
    ws.script(
        {"git": [["checkout", "-q", "-b", "other"]], "write": {"a.txt": "a"}},
        {"run": keep, "write": {"b.txt": "b"}},
        {"git": [["checkout", "-q", home]], "write": {"c.txt": "c"}, **DONE},
    )
    assert ws.run() == 0
    told = f"a run checked out other instead of {home}: the work goes on there"
    assert told in json.loads((ws.control / "then.json").read_text())["warnings"]
    assert ws.log().count("git.branch_changed") == 2
    assert ws.status()["warnings"] == []


def test_commit_messages_are_what_their_header_says(ws: Workspace) -> None:
    ws.config(COMMIT)
    ws.git("config", "i18n.commitEncoding", "ISO-8859-1")
    ws.script({"write": {"a.txt": "a"}, "block": {"summary": "Füge an", "completed": True}})
    assert ws.run() == 0
    assert ws.git("log", "-1", "--format=%s", "--encoding=UTF-8").strip() == "Füge an"


def test_what_is_to_be_committed_next_is_no_warning(ws: Workspace) -> None:
    ws.config(COMMIT)
    refusal = hook(ws, "pre-commit", "exit 1")
    ws.script({"write": {"a.txt": "a"}}, {"run": f"rm '{refusal}'", "write": {"b.txt": "b"}}, DONE)
    assert ws.run() == 0
    said = [line for line in ws.log().splitlines() if "not committed" in line]
    assert [line for line in said if "b.txt" in line] == []
    assert len(said) == 1  # of the commit that failed


@pytest.mark.parametrize(
    ("act", "said"),
    [
        ("git reset -q --hard HEAD~1", "git branch rescue"),
        ("rm -rf .git && git init -q", "made anew"),
        ("git commit -q --allow-empty -m own", ""),
    ],
)
def test_commits_that_a_run_took_off_their_branch_are_said(
    ws: Workspace, act: str, said: str
) -> None:
    ws.config(COMMIT)
    ws.script({"write": {"a.txt": "a"}}, {"run": act, "write": {"b.txt": "b"}}, DONE)
    assert ws.run() == 0
    told = [text for text in ws.status()["warnings"] if "a run took the commits up to" in text]
    assert bool(told) is bool(said)
    assert said in "".join(told)


def test_what_was_only_announced_to_git_is_committed(ws: Workspace) -> None:
    ws.config(COMMIT)
    ws.script({"run": "echo a > n.txt; git add -N n.txt"}, {"append": {"n.txt": "b"}, **DONE})
    assert ws.run() == 0
    assert committed(ws) == {"n.txt"}
    assert left(ws) == ""


def test_a_branch_without_history_is_another_branch(ws: Workspace) -> None:
    ws.config(COMMIT)
    ws.script({"git": [["checkout", "-q", "--orphan", "fresh"]], "write": {"a.txt": "a"}}, DONE)
    assert ws.run() == 0
    assert any("checked out fresh instead of" in text for text in ws.status()["warnings"])


@pytest.mark.parametrize("how", ["skip-worktree", "assume-unchanged"])
def test_a_file_that_a_run_hides_from_git_is_said(ws: Workspace, how: str) -> None:
    for name in ("mine.txt", "ours.txt"):
        (ws.path / name).write_text("x")
        ws.git("add", name)
    ws.git("commit", "-qm", "both")
    ws.git("update-index", f"--{how}", "mine.txt")  # a person's own affair
    ws.config(COMMIT)
    show = f"git update-index --no-{how} ours.txt"
    ws.script(
        {"run": f"git update-index --{how} ours.txt", "append": {"ours.txt": "y"}},
        {"run": f"{kept_when(ws, 'a run hid')}; {show}", **DONE},
    )
    assert ws.run() == 0
    (told,) = json.loads((ws.control / "then.json").read_text())["warnings"]
    assert "a run hid tracked files from git" in told
    assert "ours.txt" in told
    assert "mine.txt" not in told
    assert "ours.txt" in ws.prompt(2)
    assert ws.status()["warnings"] == []
    assert committed(ws) == {"ours.txt"}


@pytest.mark.slow
def test_new_secrets_large_files_and_heaps_are_left_out_of_the_commit_and_named_until_ignored(
    ws: Workspace,
) -> None:
    ws.config(COMMIT)
    many = "mkdir node_modules; cd node_modules; seq 1002 | xargs touch"
    ws.script(
        {"write": {".env": "A=1", "a.txt": "a"}, "run": f"truncate -s 60M big.bin; {many}"},
        {"write": {"b.txt": "b"}, **DONE},
        {"write": {".gitignore": ".env\nnode_modules\nbig.bin\n"}, **DONE},
    )
    assert ws.run() == 0
    assert committed(ws) == {"a.txt", "b.txt"}
    told = (
        ".env looks like a secret",
        "big.bin is 60 MiB",
        "1001 more new files below node_modules",
    )
    places = ws.prompt(2), " ".join(ws.status()["warnings"]), ws.status()["reason"], ws.log()
    for place in places:
        assert [words for words in told if words not in place] == []
    assert "let .gitignore name it" in ws.prompt(2)
    (ws.path / "person.txt").write_text("p")
    assert ws.run() == 0
    assert committed(ws) == {"a.txt", "b.txt", ".gitignore"}
    assert ws.status()["owed"] is None
    assert "left out" not in " ".join([*ws.status()["warnings"], ws.status()["reason"]])


def test_a_conflict_without_a_merge_is_said_to_the_agent_and_committed_when_resolved(
    ws: Workspace,
) -> None:
    (ws.path / "c.txt").write_text("ours\n")
    ws.git("add", "c.txt")
    ws.git("commit", "-qm", "ours")
    ws.config(COMMIT)
    (ws.path / "c.txt").write_text("a person's\n")
    ws.git("stash", "-q")
    (ws.path / "c.txt").write_text("changed\n")
    ws.git("commit", "-qam", "changed")
    ws.script(
        {"run": "git stash pop || true", "write": {"a.txt": "a"}},
        {"write": {"c.txt": "resolved\n"}, **DONE},
    )
    assert ws.run() == 0
    assert "c.txt has an unresolved conflict" in ws.prompt(2)
    assert committed(ws) == {"a.txt", "c.txt"}
    assert ws.git("show", "HEAD:c.txt") == "resolved\n"
    assert ws.git("log", "-S<<<<<<<", "--format=%h", "--", "c.txt") == ""
    assert left(ws) == ""
    assert ws.status()["owed"] is None
    assert ws.status()["warnings"] == []
