"""What an agent leaves so that the supervisor, or the next run, does its work outside of the fence."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from codex_self_iter.core.fence import Means
from tests.support.harness import Workspace

DONE = {"append": {"work.txt": "x\n"}, "block": {"completed": True, "summary": "done"}}
GO_ON = {"append": {"work.txt": "x\n"}, "block": {"summary": "fine", "next_goal": "more"}}
FILTER = "git config -f {config} filter.x.clean {program}; echo '* filter=x' >.gitattributes"

PLANTED = {
    # name: (configuration of the repository, first run, second run)
    "git's common directory": (
        "", "mkdir evil; cp -r .git/objects .git/refs .git/config .git/HEAD evil; "
        + FILTER.format(config="evil/config", program="{program}") + "; echo ../evil >.git/commondir", "",
    ),
    "another one to write to": ("", "echo {home} >.git/commondir", "echo x >>{home}/.bashrc"),
    "a plan by a link": (
        "", "mv docs d2; mkdir docs; ln -s {home}/.bashrc docs/plan.md", "echo x >>{home}/.bashrc",
    ),
    "the log of HEAD": ("", "rm .git/logs/HEAD; ln -s {home}/.bashrc .git/logs/HEAD", ""),
    "a commit's message": ("", "rm -f .git/COMMIT_EDITMSG; ln -s {home}/.bashrc .git/COMMIT_EDITMSG", ""),
    "references elsewhere": ("", "rm -rf .git/refs/codex-self-iter; ln -s {home}/d .git/refs/codex-self-iter", ""),
    "a pipe": ("", "rm .git/logs/HEAD; mkfifo .git/logs/HEAD", ""),
    "a configuration of the work tree": (
        "git config extensions.worktreeConfig true", FILTER.format(config=".git/config.worktree", program="{program}"), "",
    ),
    "an included configuration": (
        "git config include.path ../.gitconfig", FILTER.format(config=".gitconfig", program="{program}"), "",
    ),
    "a home by a link": ("", "rm -rf {home}/.cache/x; ln -s {home} {home}/.cache/x", "echo x >>{home}/.bashrc"),
    "deep hooks": ("", "cd .git/hooks && for i in $(seq 200); do mkdir d && cd d; done", ""),
}  # fmt: skip


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path)
    yield workspace
    workspace.close()


def planted(ws: Workspace, name: str, tables: str, **keys: str) -> dict[str, str]:
    """Run two iterations; what is in the home, and what ran outside, afterwards."""
    program, ran = ws.root / "filter.sh", ws.root / "ran"
    program.write_text(f"#!/bin/sh\ntouch '{ran}'\ncat\n")
    program.chmod(0o755)
    (ws.home / ".bashrc").write_text("mine\n")
    for one in (ws.home / "d", ws.home / ".cache/x", ws.path / "docs"):
        one.mkdir(parents=True)
    (ws.path / "docs/plan.md").write_text("- [ ] first\n")
    prepare, *runs = (
        text.replace("{home}", f"'{ws.home}'").replace("{program}", f"\"'{program}'\"")
        for text in PLANTED[name]
    )
    if prepare:
        ws.git(*prepare.split()[1:])
    ws.git("add", "-A")
    ws.git("commit", "-qm", "docs")
    ws.script({"run": runs[0], **GO_ON}, {"run": runs[1] or "true", **DONE})
    allowed = json.dumps([str(ws.control), str(ws.home / ".cache"), str(ws.home / ".cache/x")])
    ws.config(
        f'[verify]\ncommands = ["true"]\n[git]\ncommit = true\n[fence]\nallow_write = {allowed}\n{tables}',
        plan_file="docs/plan.md",
        **keys,
    )
    ws.run("--max-iterations", "3")
    assert ws.started() >= 2, ws.log()
    left = {
        path.name: path.read_text()
        for path in (ws.home / ".bashrc", *(ws.home / "d").rglob("*"))
        if path.is_file()
    }
    return left | ({"ran": ""} if ran.exists() else {})


@pytest.mark.parametrize("means", [Means.NAMESPACES, Means.LANDLOCK])
@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_does_nothing_outside(ws: Workspace, name: str, means: Means) -> None:
    ws.state = ws.root / "state"
    fence = f'level = "write"\nby = "{means}"\n'
    assert planted(ws, name, fence, state_dir=str(ws.state)) == {".bashrc": "mine\n"}, ws.log()
    assert "loop.crashed" not in ws.log()


@pytest.mark.parametrize("name", ["git's common directory", "the log of HEAD", "a home by a link"])
def test_without_a_fence_it_does(ws: Workspace, name: str) -> None:
    """The control."""
    assert planted(ws, name, 'level = "none"\n') != {".bashrc": "mine\n"}


@pytest.mark.parametrize("means", [Means.NAMESPACES, Means.LANDLOCK])
def test_a_repository_that_is_none_opens_nothing(ws: Workspace, means: Means) -> None:
    ws.git("rev-parse", "HEAD")
    (ws.path / ".git").rename(ws.root / "git")
    (ws.home / ".bashrc").write_text("mine\n")
    ws.state = ws.root / "state"
    ws.script(
        {"run": f"echo 'gitdir: {ws.home}' >.git", **GO_ON},
        {"run": f"echo x >>'{ws.home}/.bashrc'", **DONE},
    )
    tables = f'[fence]\nlevel = "write"\nby = "{means}"\nallow_write = ["{ws.control}"]\n'
    (ws.root / "git").rename(ws.path / ".git")
    ws.config(tables, state_dir=str(ws.state))
    (ws.path / ".git").rename(ws.root / "git")
    ws.run("--max-iterations", "2")
    (ws.path / ".git").unlink(missing_ok=True)
    (ws.root / "git").rename(ws.path / ".git")
    assert ws.started() == 2, ws.log()
    assert (ws.home / ".bashrc").read_text() == "mine\n"


def test_the_records_of_a_run_are_not_its_own(ws: Workspace) -> None:
    """Who its processes are, and how it ended, is ours to say."""
    forge = "cd $TMPDIR/.. && for one in identity.json exit.json made; do echo x >$one; done; ls >$TMPDIR/../ls"
    ws.script({"run": forge, **DONE})
    ws.config(
        f'[verify]\ncommands = ["true"]\n[fence]\nlevel = "write"\nallow_write = ["{ws.control}"]\n'
    )
    assert ws.run() == 0, ws.log()
    (run,) = (path for path in (ws.state / "logs/runs").iterdir() if "executor" in path.name)
    assert not {"made", "ls"} & {path.name for path in run.iterdir()}
    assert json.loads((run / "identity.json").read_text())["agent_pid"]


def test_landlock_is_refused_where_keys_lie_in_what_is_open(ws: Workspace) -> None:
    (ws.path / ".ssh").mkdir()
    ws.script(DONE)
    tables = f'[fence]\nlevel = "write"\nby = "landlock"\nallow_write = ["{ws.control}"]\n'
    ws.config(tables, state_dir=str(ws.root / "state"))
    ws.run("--max-iterations", "1", environment={"HOME": str(ws.path)})
    assert "cannot close" in ws.log()
    assert ws.started() == 0
    assert os.path.isdir(ws.path / ".ssh")
