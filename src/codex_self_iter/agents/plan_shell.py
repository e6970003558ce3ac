"""The embedded agent: `python -m codex_self_iter.plan_shell`.

It takes the first open item of the plan and runs the shell commands under it. It needs no key and
no network, and is only ever asked for by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import codex_self_iter
from codex_self_iter.agents.base import AgentConfig, Invocation, Probe, Request, VersionRange
from codex_self_iter.agents.command import text_report
from codex_self_iter.agents.passed_env import MODE, agent_environment
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core.agent_report import AgentReport
from codex_self_iter.core.runs import RunOutcome


class PlanShellAgent:
    """Runs and reads plan-shell."""

    name = "plan-shell"
    known_versions: VersionRange | None = None

    def __init__(self, config: AgentConfig) -> None:
        self.config = config

    def prepare(self, request: Request) -> Invocation:
        module = (sys.executable, "-P", "-X", "utf8", "-m", "codex_self_iter.plan_shell")
        places = ("--plan", request.plan_path, "--workspace", request.workspace)
        env = agent_environment(
            request.environment,
            passed=self.config.pass_env,
            extra={
                **_importable(request.environment),
                MODE: self.config.mode,
                **request.scratch,
            },
            configured=self.config.env,
        )
        return Invocation((*module, *places, *self.config.args), env, request.prompt_path)

    def read(
        self, request: Request, outcome: RunOutcome, files: RunFiles, *, now: float | None = None
    ) -> AgentReport:
        """The control block is at the end of stdout."""
        return text_report(outcome, files, now, account=self.account(request.environment))

    def probe(self, environment: Mapping[str, str]) -> Probe:  # noqa: ARG002
        detail = "part of this package; runs the shell commands of the plan"
        return Probe(
            True, sys.executable, codex_self_iter.__version__, logged_in=True, detail=detail
        )

    def account(self, environment: Mapping[str, str]) -> str:  # noqa: ARG002
        """It has no limits to share."""
        return self.config.account or "plan-shell"


def _importable(ours: Mapping[str, str]) -> dict[str, str]:
    """Let the child find this package as we found it, installed or not, whatever its working
    directory is."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(codex_self_iter.__file__)))
    if root in sys.path and ("site-packages" in root or "dist-packages" in root):
        return {}
    known = ours.get("PYTHONPATH", "")
    return {"PYTHONPATH": f"{root}{os.pathsep}{known}" if known else root}
