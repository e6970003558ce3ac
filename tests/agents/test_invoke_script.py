"""scripts/invoke-codex-agent.sh, with a stand-in for codex that says how it was called."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "invoke-codex-agent.sh"
SHELLS = [shell for shell in ("/bin/sh", "/bin/bash", "/bin/busybox") if os.access(shell, os.X_OK)]
CODEX = """#!/bin/sh
for word in "$@"; do printf '<%s>' "$word" >&2; done
echo >&2
echo "pid $$" >&2
cat
[ -z "$SLEEP" ] || exec sleep 60
exit ${EXIT:-0}
"""


@pytest.fixture
def place(tmp_path):
    """A prompt, a workspace and a codex on PATH; calls the script."""
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "codex").write_text(CODEX)
    (tmp_path / "bin" / "codex").chmod(0o755)
    (tmp_path / "a $b 'c").mkdir()
    (tmp_path / "-prompt ü.md").write_text("the prompt $x", encoding="utf-8")
    return Place(tmp_path)


class Place:
    def __init__(self, base):
        self.base = base
        self.prompt = str(base / "-prompt ü.md")
        self.workspace = str(base / "a $b 'c")
        self.environment = {"PATH": f"{base}/bin:/usr/bin:/bin", "HOME": str(base / "home")}

    def call(self, *words, shell="/bin/sh", **environment):
        return subprocess.run(
            [shell, str(SCRIPT), *words],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self.environment | environment,
            timeout=60,
        )

    def run(self, **environment):
        return self.call(self.prompt, self.workspace, **environment)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_prompt_goes_in_and_the_answer_comes_out(place, shell):
    if shell.endswith("busybox"):
        pytest.skip("busybox is no sh by that name")
    done = place.call(place.prompt, place.workspace, shell=shell)
    assert (done.returncode, done.stdout) == (0, "the prompt $x")
    assert f"<-C><{place.workspace}>" in done.stderr
    assert "<-s><workspace-write><--skip-git-repo-check><->" in done.stderr


def test_bypass(place):
    done = place.run(CODEX_SELF_ITER_AGENT_MODE="bypass")
    assert "<--dangerously-bypass-approvals-and-sandbox>" in done.stderr
    assert "workspace-write" not in done.stderr
    assert place.run(CODEX_SELF_ITER_AGENT_MODE="yes").returncode == 2


def test_a_git_work_tree_needs_no_exception(place):
    (place.base / ".git").mkdir()  # empty: what a killed sandbox leaves
    assert "--skip-git-repo-check" in place.run().stderr
    (place.base / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    assert "--skip-git-repo-check" not in place.run().stderr


def test_resume_stands_after_every_flag(place):
    for done in (
        place.run(CODEX_SESSION_ID="ID"),
        place.call("--resume", "ID", place.prompt, place.workspace),
    ):
        assert done.stderr.splitlines()[0].endswith("<resume><ID><->")
        assert "<-s><workspace-write>" in done.stderr


def test_model_and_effort(place):
    done = place.run(CODEX_MODEL="m", CODEX_EFFORT="high")
    assert '<-m><m><-c><model_reasoning_effort="high">' in done.stderr


@pytest.mark.parametrize("code", ["1", "3", "127"])
def test_the_exit_code_is_codexs(place, code):
    assert place.run(EXIT=code).returncode == int(code)


def test_a_missing_codex_is_one_clear_line(place):
    done = place.run(PATH="/usr/bin:/bin")
    assert done.returncode == 127
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "npm install -g @openai/codex" in done.stderr
    done = place.run(CODEX_BIN="/no/such/codex")
    assert done.returncode == 127
    assert "CODEX_BIN=/no/such/codex" in done.stderr


@pytest.mark.parametrize(
    "where", [".local/bin", ".npm-global/bin", ".nvm/versions/node/v22.1.0/bin"]
)
def test_common_places(place, where):
    target = place.base / "home" / where
    target.mkdir(parents=True)
    (place.base / "bin" / "codex").rename(target / "codex")
    assert place.run().returncode == 0


def test_the_newest_of_nvms_with_its_node(place):
    for version in ("v9.1.0", "v22.20.0", "v22.3.0"):
        target = place.base / "home/.nvm/versions/node" / version / "bin"
        target.mkdir(parents=True)
        (target / "node").write_text(f"#!/bin/sh\necho node {version}\n")
        (target / "node").chmod(0o755)
        (target / "codex").write_text("#!/usr/bin/env node\n")
        (target / "codex").chmod(0o755)
    bare = place.base / "bare"
    bare.mkdir()
    for tool in ("env", "dirname", "awk", "sort", "tail", "cut"):
        path = next(p for p in (f"/usr/bin/{tool}", f"/bin/{tool}") if os.path.exists(p))
        (bare / tool).symlink_to(path)
    done = place.run(PATH=str(bare))
    assert (done.returncode, done.stdout) == (0, "node v22.20.0\n"), done.stderr


def test_codex_bin_goes_first(place):
    other = place.base / "other codex"
    other.write_text("#!/bin/sh\necho other\n")
    other.chmod(0o755)
    assert place.run(CODEX_BIN=str(other)).stdout == "other\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "usage"),
        (["one"], "usage"),
        (["--frobnicate", "a", "b"], "--frobnicate"),
        (["--resume"], "session id"),
        (["/no/prompt", "/"], "/no/prompt"),
    ],
)
def test_bad_usage_is_one_clear_line(place, words, said):
    done = place.call(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_workspace_is_named(place):
    done = place.call(place.prompt, "/no/workspace")
    assert done.returncode == 2
    assert "/no/workspace" in done.stderr


def test_help(place):
    done = place.call("--help")
    assert done.returncode == 0
    assert "CODEX_SELF_ITER_AGENT_MODE" in done.stdout


def test_signals_reach_codex_itself(place):
    """The script becomes codex: its pid is codex's."""
    process = subprocess.Popen(
        ["/bin/sh", str(SCRIPT), place.prompt, place.workspace],
        env=place.environment | {"SLEEP": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stderr is not None
        process.stderr.readline()
        assert process.stderr.readline() == f"pid {process.pid}\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
