"""Record the streams in `recorded/` from the real CLIs against the local model server.

    PYTHONPATH=src:. python tests/agents/record_fixtures.py [NAME…]

What the oldest measured version says otherwise is recorded as `older-WHAT`. Only loopback is used.
Paths of this machine are replaced; everything else stays as the CLIs wrote it."""

from __future__ import annotations

import glob
import os
import pathlib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from codex_self_iter.agents import catalog  # noqa: E402
from codex_self_iter.agents.base import AgentConfig  # noqa: E402
from tests.support import acp_agents  # noqa: E402
from tests.support.agent_runs import (  # noqa: E402
    DONE,
    SCHEMA,
    Scene,
    claude_config,
    codex_config,
    gemini_config,
    opencode_config,
    real_agents_directory,
    real_program,
    run,
)
from tests.support.model_server import ModelServer, answer, fault, say, shell, write  # noqa: E402

ONLY_ACP = ("copilot", "qwen", "vibe", "kilo")


def acp_config(name: str) -> Callable[..., AgentConfig]:
    """An agent that speaks ACP against the local server."""

    def make(program: str, scene: Scene, url: str, **more: Any) -> AgentConfig:
        scene.environment |= acp_agents.surroundings(name, scene, url)
        return AgentConfig(name, binary=program, **more)

    return make


CONFIGS = {
    "codex": codex_config,
    "claude": claude_config,
    "gemini": gemini_config,
    "opencode": opencode_config,
    **{name: acp_config(name) for name in ONLY_ACP},
}
OLDER = {"codex": ("happy", "killed"), "claude": ("happy", "rate-limit", "unauthorized")}
RESET = 1_900_000_000  # a fixed point in time, so that the recorded prose is stable


def scripts(scene: Scene) -> dict[str, dict[str, list]]:
    """For each CLI and recording: the model's steps."""
    new = str(scene.workspace / "b.txt")
    outside = f"python3 -c \"open('{scene.base}/beside.txt','w')\""
    happy = [shell("echo hi > a.txt; ls"), write(new, "hello"), answer(DONE)]
    refused = [shell(outside), say("I could not do it.")]
    over_acp = {"happy": happy, "refused": refused, "unauthorized": [fault("unauthorized")]}
    limited = {"rate-limit": [fault("usage_limit", headers={"Retry-After": "3600"})]}
    return {
        "codex": {
            "happy": happy,
            "failed-tool": [shell("exit 3"), say("It failed.")],
            "usage-limit": [fault("usage_limit", resets_at=RESET)],
            "unauthorized": [fault("unauthorized")],
            "overloaded": [fault("overloaded")],
            "context": [fault("context")],
            "dropped": [fault("drop")],
            "killed": [shell("touch started; sleep 60")],
        },
        "claude": {
            "happy": happy,
            "refused": refused,
            "rate-limit": [fault("usage_limit")],
            "unauthorized": [fault("unauthorized")],
            "context": [fault("context")],
            "killed": [shell("touch started; sleep 60")],
        },
        "gemini": {
            "happy": happy,
            "refused": refused,
            "unauthorized": [fault("unauthorized")],
            "no-model": [fault("no_model")],
        },
        "opencode": {
            "happy": happy,
            "refused": [write(str(scene.base / "beside.txt"), "x"), say("never")],
            "unauthorized": [fault("unauthorized")],
        },
        **dict.fromkeys(ONLY_ACP, over_acp),
        "copilot": over_acp | limited | {"context": [fault("context")]},
        "vibe": over_acp | limited,
    }


def record(name: str, what: str, *, older: bool = False) -> None:
    """One recording: `recorded/NAME/WHAT.jsonl`, for codex the rollout too."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="recording-"))
    scene = Scene(base)
    try:
        with ModelServer(scripts(scene)[name][what]) as server:
            asks = name in ("gemini", *ONLY_ACP)
            mode = "bypass" if asks and what == "happy" else "safe"
            found = real_program(name, older=older)
            program = str(acp_agents.program(name)) if name in ONLY_ACP else found
            assert program, f"{name} is not installed"
            agent = catalog.get(name, CONFIGS[name](program, scene, server.url, mode=mode))
            request = scene.request(
                "Do the next thing.", schema=SCHEMA if what == "happy" else None
            )
            until = None
            if what == "killed":
                until = lambda: (scene.workspace / "started").exists() and _said_tool(scene)  # noqa: E731
            outcome = run(agent.prepare(request), request, end_when=until)
        target = HERE / "recorded" / name
        target.mkdir(parents=True, exist_ok=True)
        what = f"older-{what}" if older else what
        (target / f"{what}.jsonl").write_text(
            _scrub(scene.stdout(), scene, server.port), encoding="utf-8"
        )
        stderr = pathlib.Path(request.directory, "stderr.log").read_text(encoding="utf-8")
        (target / f"{what}.stderr").write_text(_scrub(stderr, scene, server.port), encoding="utf-8")
        (target / f"{what}.exit").write_text(
            f"{outcome.exit_code} {outcome.signal}\n", encoding="utf-8"
        )
        for path in glob.glob(str(scene.home / ".codex/sessions/*/*/*/*.jsonl")):
            text = pathlib.Path(path).read_text(encoding="utf-8")
            kept = [line for line in text.splitlines(True) if _matters(line)]
            rollout = _scrub("".join(kept), scene, server.port)
            (target / f"{what}.rollout").write_text(rollout, encoding="utf-8")
        print(name, what, outcome.exit_code, outcome.signal)
    finally:
        scene.check_nothing_left()
        shutil.rmtree(base)


def _said_tool(scene: Scene) -> bool:
    return "item.started" in scene.stdout() or '"tool_use"' in scene.stdout()


def _matters(line: str) -> bool:
    """A rollout is mostly instructions; its events, settings and counts are enough."""
    kinds = ("event_msg", "turn_context", "token_usage_record")
    return any(f'"type":"{kind}"' in line for kind in kinds)


def _scrub(text: str, scene: Scene, port: int) -> str:
    flat = re.sub(r"[^A-Za-z0-9]", "-", str(scene.base))
    for path, plain in (
        (str(scene.base), "/scene"),
        (flat, "-scene"),
        (real_agents_directory(), "/agents"),
        (os.path.expanduser("~"), "/home/someone"),
        (f"127.0.0.1:{port}", "127.0.0.1:8080"),
    ):
        text = text.replace(path, plain)
    return text


def main() -> None:
    """Record what is asked for, or everything."""
    for name in sys.argv[1:] or list(CONFIGS):
        base = pathlib.Path(tempfile.mkdtemp(prefix="recording-"))
        names = list(scripts(Scene(base))[name])
        shutil.rmtree(base)
        for what in names:
            record(name, what)
        for what in OLDER.get(name, ()):
            record(name, what, older=True)


if __name__ == "__main__":
    main()
