"""The fence as a person and an agent meet it: what is said, refused, adopted, configured."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codex_self_iter.core.fence import Ground, Means
from codex_self_iter.supervisor.fencing import refused_paths
from codex_self_iter.world.process.fence_machine import look
from tests.support.control_steps import long_run
from tests.support.harness import Workspace, wait_until

DONE = {"append": {"work.txt": "x\n"}, "block": {"completed": True, "summary": "done"}}
GROUND = Ground(
    "/w",
    "/w/.state",
    "/w/.state/run",
    "/w/.state/run/tmp",
    sealed=("/w/.git/config",),
    closed=("/keys",),
)


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path)
    yield workspace
    workspace.close()


def fence(ws: Workspace, more: str = "") -> str:
    """A fence that lets the scripted agent reach its script."""
    control = json.dumps(str(ws.control))
    return f'[verify]\ncommands = ["true"]\n[fence]\nlevel = "write"\nallow_write = [{control}]\n{more}'


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("sh: 1: cannot create /x/y: Read-only file system", "/x/y"),
        ("/usr/bin/bash: line 3: /x/y: Permission denied", "/x/y"),
        ("mv: cannot move 'a' to '/x/y z': Device or resource busy", "/x/y z"),
        ("OSError: [Errno 30] Read-only file system: '/x/y'", "/x/y"),
        ("Error: EROFS: read-only file system, open '/x/y'", "/x/y"),
        ("open /x/y: read-only file system", "/x/y"),
        ("EROFS: read-only file system, mkdir '/x/y'", "/x/y"),
        ("error: failed to open file `/x/y`: Read-only file system (os error 30)", "/x/y"),
        ("couldn't create directory /x/y (Read-only file system)", "/x/y"),
        ("cat: /keys/id: No such file or directory", "/keys/id"),
        (
            "error: could not lock config file .git/config: Device or resource busy",
            "/w/.git/config",
        ),
        ('{"output":"touch: cannot touch \'/x/y\': Read-only file system\\n"}', "/x/y"),
        ('{"text":"\\"/x/y\\": Permission denied"}', "/x/y"),
    ],
)
def test_a_refusal_is_read_out_of_what_was_printed(line: str, path: str) -> None:
    assert path in [*refused_paths(f"before\n{line}\nafter", GROUND)]


@pytest.mark.parametrize(
    "line",
    [
        "sh: 1: cannot create /w/closed: Permission denied",  # ordinary rights
        "the word /x/y and nothing else",
        "cat: /x/y: No such file or directory",
        "ssh: host: Permission denied (publickey)",
        "x" * 5000 + "/x/y: Permission denied",
    ],
)
def test_other_words_are_no_refusal(line: str) -> None:
    assert [*refused_paths(line, GROUND)] == []


def test_what_was_refused_is_told_to_the_person_and_the_next_agent(ws: Workspace) -> None:
    target = ws.root / "outside"
    command = f"echo x >'{target}'"
    ws.script({"run": command, "block": {"summary": "tried"}}, DONE)
    ws.config(fence(ws))
    assert ws.run() == 0, ws.log()
    assert not target.exists()
    assert f"{target} (the fence)" in ws.prompt(2)
    assert "Take a way that needs no such call" in ws.prompt(2)
    assert f"{target} (the fence)" in ws.cli("show", "1").stdout
    assert "fence.chosen" in ws.log()
    assert 'behind a fence (level "write")' in ws.log()


@pytest.mark.parametrize("means", Means)
@pytest.mark.parametrize("inside_state", [True, False], ids=["in the state", "in the workspace"])
def test_plan_shell_ticks_the_plan_wherever_it_is(
    ws: Workspace, means: Means, inside_state: bool
) -> None:
    """In the state directory only the plan is open, and not the directory around it."""
    if flaw := look().flaw(means):
        pytest.skip(f"NOT TESTED HERE: {means}: {flaw}")
    ws.state = ws.root / "state"
    ws.state.mkdir()
    plan = (ws.state if inside_state else ws.path) / "plan.md"
    plan.write_text(
        "- [ ] a\n  ```sh\n  echo a >a.txt\n  ```\n- [ ] b\n  ```sh\n  test -f a.txt\n  ```\n"
    )
    ws.config(
        f'[fence]\nlevel = "write"\nby = "{means}"\n',
        agent_command_template="", agent="plan-shell", plan_file=str(plan),
    )  # fmt: skip
    assert ws.run("--state-dir", str(ws.state)) == 0, ws.log()
    assert ws.verdicts() == ["continue", "completed"]
    assert plan.read_text().count("[x]") == 2
    prompt = (ws.state / "prompts/000001-executor.md").read_text()
    assert ("Write that file in place" in prompt) is inside_state
    assert "was not allowed" not in ws.log()


@pytest.mark.parametrize(("name", "works"), [("aider", True), ("another", False)])
def test_a_known_program_of_a_template_writes_its_home(
    ws: Workspace, name: str, works: bool
) -> None:
    program = ws.root / name
    done = '{"completed": true, "summary": "done", "next_goal": "", "stop": false}'
    program.write_text(
        f"#!/bin/sh\nmkdir -p ~/.aider && : >~/.aider/seen && : >work && echo '{done}'\n"
    )
    program.chmod(0o755)
    ws.config(fence(ws), agent_command_template=f"'{program}' {{prompt_file}}")
    ws.run("--max-iterations", "1")
    assert (ws.home / ".aider" / "seen").exists() is works
    assert ws.verdicts() == ["completed" if works else "error"]


def test_gates_hooks_and_our_git_run_outside(ws: Workspace) -> None:
    gate, hook = ws.root / "gate ran", ws.root / "hook ran"
    ws.script(DONE)
    tables = fence(ws).replace('["true"]', json.dumps([f"touch '{gate}'"]))
    starts = json.dumps([f"touch '{hook}'"])
    ws.config(f"{tables}[hooks]\non_start = {starts}\n[git]\ncommit = true\n")
    assert ws.run() == 0, ws.log()
    assert gate.exists()
    assert hook.exists()
    assert "work.txt" in ws.git("show", "--stat", "HEAD")


@pytest.mark.parametrize("level", ["write", "none"])
def test_a_repository_that_the_agent_makes_inside_runs_nothing_of_ours(
    ws: Workspace, level: str
) -> None:
    """Its own configuration may name a filter, which git would run when we ask it; with no fence it
    does (the control)."""
    ran = ws.root / "ran"
    filter_ = ws.path / "filter.sh"
    make = f"""
        printf '#!/bin/sh\\ntouch "{ran}"\\ncat\\n' >filter.sh; chmod +x filter.sh
        git init -q emb && cd emb && echo x >f && git add f && git commit -qm x
        echo '* filter=x' >.git/info/attributes && git config filter.x.clean "'{filter_}'" && touch -d @1 f
        cd .. && git add emb
    """
    ws.script({"run": make, **DONE})
    ws.config(fence(ws).replace('"write"', f'"{level}"'))
    assert ws.run() == 0, ws.log()
    assert (ws.path / "emb/.git").exists()
    assert ran.exists() is (level == "none")
    assert "+Subproject commit" in ws.cli("diff", "1").stdout


def test_the_variables_of_closed_sockets_are_taken_out(ws: Workspace) -> None:
    agent = ws.root / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(agent))
        listener.listen()
        ws.script({"run": 'echo "<$SSH_AUTH_SOCK>" >seen', **DONE})
        for more, seen in (("", "<>"), (f'allow_read = ["{agent}"]\n', f"<{agent}>")):
            ws.config(fence(ws, more))
            ws.run("--max-iterations", "1", environment={"SSH_AUTH_SOCK": str(agent)})
            assert (ws.path / "seen").read_text().strip() == seen


def test_a_run_behind_the_fence_is_adopted_and_keeps_its_fence(ws: Workspace) -> None:
    target = ws.root / "outside"
    go = ws.control / "go"
    wait = f"while [ ! -e '{go}' ]; do sleep 0.02; done; echo x >'{target}'"
    ws.script({"run": wait, **DONE})
    ws.config(fence(ws))
    first = ws.start()
    ws.wait_runs(1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = ws.start()
    ws.wait_state("running")
    go.touch()
    assert ws.ended(second) == 0
    assert not target.exists()
    assert ws.started() == 1
    assert (ws.path / "work.txt").exists()


def test_git_is_put_back_after_a_kill_before_it_is_asked(ws: Workspace) -> None:
    """Landlock cannot close it: the next supervisor puts back what a run has done."""
    state = ws.state = ws.root / "state"
    ran = ws.root / "ran"
    evil = f"printf '[core]\\n\\tfsmonitor = touch {str(ran).replace(' ', '')}\\n' >>.git/config"
    ws.script({"run": evil, **long_run()}, DONE)
    ws.config(fence(ws, 'by = "landlock"\n'), state_dir=str(state), on_orphan="kill")
    before = (ws.path / ".git/config").read_text()
    first = ws.start()
    wait_until(lambda: (ws.path / ".git/config").read_text() != before, ws.log)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert ws.run() == 0, ws.log()
    assert (ws.path / ".git/config").read_text() == before
    assert not ran.exists()
    assert "fsmonitor" in "".join(
        path.read_text() for path in (state / "quarantine").glob("*config*")
    )
    assert not (state / "fence/before.json").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED HERE: only root can mount")
def test_the_loop_waits_where_git_cannot_be_put_back(ws: Workspace) -> None:
    """Git is not asked then, and the loop goes on once it can be."""
    ws.state = ws.root / "state"
    go, aside = ws.control / "go", ws.state / "quarantine"
    ran = ws.root / "ran"
    evil = f"git config filter.x.clean \"touch '{ran}'; cat\"; echo '* filter=x' >.gitattributes"
    wait = f"{evil}; touch '{ws.control}/made'; while [ ! -e '{go}' ]; do sleep 0.02; done"
    ws.script({"run": wait, **DONE})
    ws.config(fence(ws, 'by = "landlock"\n'), state_dir=str(ws.state))
    process = ws.start()
    wait_until(lambda: (ws.control / "made").exists(), ws.log)
    aside.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", aside], check=True)
    try:
        go.touch()
        wait_until(lambda: "run.cannot_start" in ws.log(), ws.log)
        assert not ran.exists()
    finally:
        subprocess.run(["umount", aside], check=True)
    assert ws.ended(process) == 0
    assert not ran.exists()


def test_what_cannot_be_built_is_refused_and_nothing_runs(ws: Workspace) -> None:
    ws.script(DONE)
    ws.config(fence(ws, 'by = "landlock"\n'))  # the state directory lies in the workspace
    assert ws.run() == 2
    assert "it cannot close the state directory inside the workspace" in ws.log()
    assert "state_dir" in ws.log()
    assert ws.started() == 0
    doctor = json.loads(ws.cli("doctor", "--json").stdout)
    found = [one for one in doctor["findings"] if one["id"] == "fence"]
    assert [one["status"] for one in found] == ["fail"]
    assert "auto" in found[0]["mend"]
    dry = ws.cli("run", "--dry-run")
    assert dry.returncode == 2
    assert "cannot close" in dry.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED HERE: only root has rights to give up")
def test_the_next_means_are_taken_where_one_may_make_no_namespace(ws: Workspace) -> None:
    """As in a container: Landlock is left, and holds."""
    target = ws.root / "outside"
    ws.script({"run": f"echo x >'{target}'", **DONE})
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    ws.config(fence(ws))
    assert ws.run(prefix=bare) == 2
    for text in (
        "namespaces: unshare: Operation not permitted",
        "bubblewrap: ",
        "landlock: it cannot",
    ):
        assert text in ws.log()
    ws.state = ws.root / "state"
    ws.config(fence(ws), state_dir=str(ws.state))
    assert ws.run(prefix=bare) == 0, ws.log()
    assert "by=landlock" in ws.log()
    assert not target.exists()


def test_doctor_says_what_is_built_and_what_is_odd(ws: Workspace) -> None:
    ws.config('[fence]\nlevel = "write"\nallow_write = ["~/none"]\n')
    said = ws.cli("doctor").stdout
    assert 'fence: level "write" for command, by namespaces' in said
    assert "allow_write: ~/none is not there" in said
    ws.config("")
    assert "no fence: " in ws.cli("doctor").stdout
    assert '[fence] level = "write" works here, by namespaces' in ws.cli("doctor").stdout
    assert "fence        level" not in ws.cli("run", "--dry-run").stdout
    ws.config(fence(ws))
    assert 'fence        level "write", by namespaces' in ws.cli("run", "--dry-run").stdout


def test_what_the_level_does_not_look_at_is_named(ws: Workspace) -> None:
    ws.config('[fence]\nallow_write = ["~/x"]\nimage = "x"\n')
    said = ws.cli("config", "check").stdout
    assert 'fence.allow_write does nothing: there is no fence: level is "none"' in said
    ws.config('[fence]\nlevel = "write"\nimage = "x"\n')
    said = ws.cli("config", "check").stdout
    assert "fence.image does nothing" in said
    assert "fence.by" not in said


def test_a_cli_without_a_network_is_warned_of(ws: Workspace) -> None:
    ws.config('[fence]\nlevel = "write"\nnetwork = "none"\n', agent="codex")
    assert "codex cannot reach its model" in ws.cli("doctor").stdout


def test_one_agent_may_have_another_fence(ws: Workspace) -> None:
    target = ws.root / "outside"
    ws.script({"run": f"echo x >'{target}'", **DONE})
    ws.config(fence(ws) + f'[agents.command.fence]\nallow_write = ["{ws.root}"]\n')
    ws.run("--max-iterations", "1")
    assert target.exists()
    assert "is open, and the workspace lies in it" in " ".join(ws.status()["warnings"])
    target.unlink()
    ws.config(fence(ws) + '[agents.command.fence]\nlevel = "none"\n')
    ws.run("--max-iterations", "1")
    assert target.exists()


def test_what_one_agent_may_read_and_reach_differs(ws: Workspace) -> None:
    far, key = ws.root / "far", ws.home / ".netrc"
    for path in (far, key):
        path.write_text("KEY\n")
    net = f"{sys.executable} -c 'import socket; socket.socket()' && touch net"
    ws.script({"run": f"cat '{far}' >far; cat '{key}' >key; {net}", **DONE})

    def seen(own: str) -> tuple[bool, bool, bool]:
        for name in ("far", "key", "net"):
            (ws.path / name).unlink(missing_ok=True)
        ws.config(f"{fence(ws)}[agents.command.fence]\n{own}\n")
        ws.run("--max-iterations", "1")
        read = ("KEY" in (ws.path / name).read_text() for name in ("far", "key"))
        return *read, (ws.path / "net").exists()

    assert seen("") == (True, False, True)
    other = f'deny_read = ["{far}"]\nallow_read = ["~/.netrc"]\nnetwork = "none"'
    assert seen(other) == (False, True, False)


def test_a_workspace_by_a_link_has_its_fence(ws: Workspace) -> None:
    link, target = ws.root / "link", ws.root / "outside"
    link.symlink_to(ws.path)
    ws.script({"run": f"echo x >'{target}'", **DONE})
    ws.config(fence(ws))
    ws.path, real = link, ws.path
    assert ws.run() == 0, ws.log()
    ws.path = real
    assert (real / "work.txt").exists()
    assert not target.exists()


def test_what_cannot_be_closed_is_refused(ws: Workspace) -> None:
    ws.script(DONE)
    ws.config(fence(ws, f'deny_read = ["{ws.path}"]\n'))
    assert ws.run() == 2
    assert "holds the workspace" in ws.log()
    assert ws.started() == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('level = "walls"', 'one of "none", "write", "container"'),
        ('network = ["a.example"]', 'one of "all", "none"'),
        ('by = "chroot"', '"landlock"'),
        ("allow_write = [1]", "a list of paths"),
        ('allow_write = [""]', "a list of paths"),
        ('deny = ["x"]', "deny_read"),
    ],
)
def test_a_wrong_key_is_told(ws: Workspace, text: str, said: str) -> None:
    ws.config(f"[fence]\n{text}\n")
    refused = ws.cli("config", "check")
    assert refused.returncode == 2
    assert said in refused.stderr + refused.stdout
