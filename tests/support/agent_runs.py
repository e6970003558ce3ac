"""Runs of agents for tests: a scratch scene, the real CLIs where installed, a plain process
runner."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from codex_self_iter.agents.base import Agent, AgentConfig, Invocation, Request
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core.agent_report import AgentReport
from codex_self_iter.core.runs import EndCause, RunOutcome
from tests.support.program import kill

both_versions = pytest.mark.parametrize("older", [False, True], ids=["newest", "older"])
"""Runs a test with the newest and with the oldest version that was measured."""
SANDBOX_PROGRAMS = ("bwrap", "socat")
MARKER = "SCENE_OF_A_TEST"
"""No name of ours: those are kept from agents."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"summary": {"type": "string"}, "completed": {"type": "boolean"}},
    "required": ["summary", "completed"],
    "additionalProperties": False,
}
DONE = {"summary": "done", "completed": True}


def real_agents_directory() -> str:
    """Where scripts/install-real-agents.sh puts them."""
    chosen = os.environ.get("CODEX_SELF_ITER_REAL_AGENTS")
    return chosen or os.path.expanduser("~/.cache/codex-self-iter/agents")


def real_program(name: str, *, older: bool = False) -> str | None:
    """The real CLI in the newest version that was measured, or in the oldest; None where it is not
    installed."""
    base = os.path.join(real_agents_directory(), "older") if older else real_agents_directory()
    path = os.path.join(base, "node_modules", ".bin", name)
    return path if os.access(path, os.X_OK) and shutil.which("node") else None


def need_real(name: str, *, older: bool = False) -> str:
    """The same; without it the test is skipped, or fails where the real CLIs are required."""
    path = real_program(name, older=older)
    if path is None:
        kind = f"the {'older ' if older else ''}real {name} CLI"
        missing = f"{kind} is not installed; run scripts/install-real-agents.sh"
        if os.environ.get("CODEX_SELF_ITER_REQUIRE_REAL_AGENTS") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return path


class Scene:
    """A scratch home and a git workspace; the environment leads to nothing of the person's own."""

    def __init__(self, base: pathlib.Path) -> None:
        self.base = base
        self.home = base / "home"
        self.workspace = base / "work space"
        self.home.mkdir()
        self.workspace.mkdir()
        (base / "tmp").mkdir()
        self.runs = 0
        self.environment: dict[str, str] = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            # Not a parent of the home: codex makes no helper programs below the temporary
            # directory, and with an old bubblewrap on PATH its sandbox then fails.
            "TMPDIR": str(base / "tmp"),
            MARKER: str(base),
            "NO_PROXY": "127.0.0.1,localhost",
        }
        self.git("init", "-q")
        self.git(
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.invalid",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "x",
        )

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=self.workspace,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def request(self, prompt: str = "Do the next thing.", **more: Any) -> Request:
        """A request with a fresh run directory."""
        self.runs += 1
        directory = self.base / f"run{self.runs}"
        directory.mkdir()
        path = directory / "prompt.md"
        path.write_text(prompt, encoding="utf-8")
        values: dict[str, Any] = {
            "prompt": prompt,
            "prompt_path": str(path),
            "workspace": str(self.workspace),
            "plan_path": str(self.workspace / "plan.md"),
            "directory": str(directory),
            "environment": dict(self.environment),
        }
        return Request(**(values | more))

    def without_sandbox(self) -> None:
        """Hide what a sandbox on Linux is made with, as if it were not installed."""
        farm = self.base / "bin"
        farm.mkdir()
        for directory in self.environment["PATH"].split(os.pathsep):
            names = os.listdir(directory) if os.path.isdir(directory) else []
            for name in {*names} - {*SANDBOX_PROGRAMS}:
                with contextlib.suppress(FileExistsError):
                    os.symlink(os.path.join(directory, name), farm / name)
        self.environment["PATH"] = str(farm)

    def stdout(self) -> str:
        """What the latest run has written so far."""
        path = self.base / f"run{self.runs}" / "stdout.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def read(self, name: str) -> str:
        return (self.workspace / name).read_text(encoding="utf-8")

    def left(self) -> list[psutil.Process]:
        """Processes of this scene that are still alive."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARKER) == str(self.base):
                    found.append(process)
        return found

    def check_nothing_left(self) -> None:
        """End what a run left behind (the supervisor's sweep does that in earnest)."""
        for _ in range(100):
            left = self.left()
            if not left:
                return
            kill(left)
            psutil.wait_procs(left, timeout=0.1)
        raise AssertionError(f"still alive: {self.left()}")


def run(
    invocation: Invocation,
    request: Request,
    *,
    timeout: float = 90.0,
    end_when: Callable[[], bool] | None = None,
    cause: EndCause = EndCause.REQUEST,
) -> RunOutcome:
    """Run an invocation as the process host does: files for output, a session of its own, TERM then
    KILL.

    `end_when` ends it with `cause` as soon as it is true."""
    for path, text in invocation.files.items():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    started_at, started = time.time(), time.monotonic()
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(request.directory)
        stdin = stack.enter_context(open(invocation.stdin_path or os.devnull, "rb"))
        stdout = stack.enter_context(open(directory / "stdout.log", "ab"))
        stderr = stack.enter_context(open(directory / "stderr.log", "ab"))
        process = subprocess.Popen(
            invocation.argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=invocation.env,
            cwd=request.workspace,
            start_new_session=True,
        )
        ended, family = EndCause.EXIT, list[psutil.Process]()
        try:
            while process.poll() is None:
                if time.monotonic() - started > timeout:
                    raise AssertionError(f"no end within {timeout} s: {invocation.argv}")
                if end_when is not None and end_when():
                    ended = cause
                    family = psutil.Process(process.pid).children(recursive=True)
                    os.killpg(process.pid, signal.SIGTERM)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(1.0)
                    break
                time.sleep(0.02)
        finally:
            for one in family:  # a tool has a session of its own
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    return RunOutcome(
        run_id="test",
        cause=ended,
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        started_at=started_at,
        duration_sec=time.monotonic() - started,
    )


def go(agent: Agent, request: Request, **more: Any) -> tuple[AgentReport, RunOutcome]:
    """Prepare, run and read."""
    outcome = run(agent.prepare(request), request, **more)
    return agent.read(request, outcome, RunFiles(request.directory)), outcome


def codex_config(program: str, scene: Scene, url: str, **more: Any) -> AgentConfig:
    """Codex against the local server: a provider of our own, few retries, no other connection."""
    home = scene.home / ".codex"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        'model_provider = "local"\nmodel = "gpt-5.5"\ncheck_for_update_on_startup = false\n'
        "[analytics]\nenabled = false\n"
        f'[model_providers.local]\nname = "local"\nbase_url = "{url}/v1"\nwire_api = "responses"\n'
        'env_key = "LOCAL_API_KEY"\nrequest_max_retries = 0\nstream_max_retries = 0\n'
        # A killed sandbox leaves its empty mount points in every directory that it makes writable.
        "[sandbox_workspace_write]\nexclude_slash_tmp = true\n",
        encoding="utf-8",
    )
    scene.environment["LOCAL_API_KEY"] = "local-key"
    return AgentConfig("codex", binary=program, **more)


def claude_config(program: str, scene: Scene, url: str, **more: Any) -> AgentConfig:
    """Claude Code against the local server."""
    scene.environment |= {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "local-key",
        "CLAUDE_CODE_MAX_RETRIES": "1",
        "CLAUDE_CODE_TMPDIR": str(scene.base / "tmp"),
    }
    return AgentConfig("claude", binary=program, **more)


def gemini_config(program: str, scene: Scene, url: str, **more: Any) -> AgentConfig:
    """The Gemini CLI against the local server."""
    home = scene.home / ".gemini"
    home.mkdir(exist_ok=True)
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": False},
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
    }
    (home / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    scene.environment |= {"GEMINI_API_KEY": "local-key", "GOOGLE_GEMINI_BASE_URL": url}
    return AgentConfig("gemini", binary=program, model="gemini-2.5-pro", **more)


def opencode_config(program: str, scene: Scene, url: str, **more: Any) -> AgentConfig:
    """opencode against the local server."""
    home = scene.home / ".config" / "opencode"
    home.mkdir(parents=True, exist_ok=True)
    provider = {"anthropic": {"options": {"baseURL": f"{url}/v1", "apiKey": "local-key"}}}
    (home / "opencode.json").write_text(json.dumps({"provider": provider}), encoding="utf-8")
    return AgentConfig("opencode", binary=program, model="anthropic/claude-sonnet-4-5", **more)


@contextlib.contextmanager
def place_outside() -> Iterator[str]:
    """A path outside of the workspace and of every temporary directory; nothing is left there."""
    path = os.path.join(os.path.expanduser("~"), f".codex-self-iter-test-{os.getpid()}")
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def lines_of(path: str | pathlib.Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a file."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
