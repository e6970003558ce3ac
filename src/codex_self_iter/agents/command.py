"""The `command` adapter: any program, by a command line with `{prompt_file}` and `{workspace}`.

The template is split first and filled in afterwards, never given to a shell: paths with spaces,
quotes, braces, `$` or any letters arrive whole. The program reads the prompt file itself; its stdin
is empty. It gets our whole environment, secrets too: a wrapper script calls who knows which agent,
and only the person knows what that needs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from codex_self_iter.agents.base import (
    AgentConfig,
    AgentMissingError,
    Invocation,
    Probe,
    Request,
    VersionRange,
)
from codex_self_iter.agents.classify import Printed, by_ending, classify, own_lines
from codex_self_iter.agents.passed_env import MODE, agent_environment
from codex_self_iter.agents.probe import find_program
from codex_self_iter.agents.run_files import ANSWER_BYTES, RunFiles
from codex_self_iter.agents.stream import ErrorFacts, Parsed
from codex_self_iter.core.agent_report import AgentReport, Failure, FailureClass
from codex_self_iter.core.control_block import ControlBlock, parse
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.core.template import parse_template, render_template
from codex_self_iter.errors import UsageError
from codex_self_iter.world.start import start_directory

_SAID_BYTES = 4096
_REFUSAL_LINES = 10
"""A refusal is a line or two; an agent that did work says more."""
_WAITING = (FailureClass.NETWORK, FailureClass.OVERLOAD, FailureClass.LIMIT)
_REFUSALS = (*_WAITING, FailureClass.AUTH, FailureClass.BILLING, FailureClass.CONTEXT)


class CommandAgent:
    """Runs and reads a program of the person's own."""

    name = "command"
    known_versions: VersionRange | None = None

    def __init__(self, config: AgentConfig) -> None:
        self.config = config

    def prepare(self, request: Request) -> Invocation:
        words = expand_template(self.config.template, request.prompt_path, request.workspace)
        program = words[0]
        if not self.config.image or os.path.isfile(os.path.join(request.workspace, program)):
            program = _program(program, request.environment, request.workspace)
        extra = {MODE: self.config.mode, **request.scratch}
        env = agent_environment(
            request.environment, passed=("*",), extra=extra, configured=self.config.env
        )
        return Invocation((program, *words[1:], *self.config.args), env)

    def read(
        self, request: Request, outcome: RunOutcome, files: RunFiles, *, now: float | None = None
    ) -> AgentReport:
        """The answer is the end of stdout."""
        return text_report(outcome, files, now, account=self.account(request.environment))

    def probe(self, environment: Mapping[str, str]) -> Probe:
        """The program is looked for; it is not run."""
        try:
            words = expand_template(self.config.template, "prompt", "workspace")
            if self.config.image:
                return Probe(True, words[0], detail=f"its program is in {self.config.image}")
            path = _program(words[0], environment, start_directory())
        except UsageError as error:
            return Probe(False, detail=str(error), mend="correct agent_command_template")
        return Probe(True, path, detail="command template; its login is its own matter")

    def account(self, environment: Mapping[str, str]) -> str:  # noqa: ARG002
        """The template stands for the account."""
        return self.config.account or f"command:{self.config.template}"


def expand_template(template: str, prompt_file: str, workspace: str) -> tuple[str, ...]:
    """Split a command template, then fill in its fields. `{{` and `}}` stand for braces.

    Raises:
        UsageError: it is empty, cannot be split, lacks `{prompt_file}` or has another field."""
    try:
        return render_template(parse_template(template), prompt_file, workspace)
    except ValueError as error:
        raise UsageError(f"agent_command_template {error}: {template!r}") from None


def _program(word: str, environment: Mapping[str, str], workspace: str) -> str:
    """The program: on PATH, or a path relative to where the supervisor was started, else to the
    workspace."""
    path = os.path.expanduser(word)
    if "/" in path:
        for base in (start_directory(), workspace):
            candidate = os.path.join(base, path)
            if os.path.isfile(candidate):
                path = os.path.abspath(candidate)
                break
    mend = "correct agent_command_template"
    try:
        return str(find_program("command", path, environment, mend=mend))
    except AgentMissingError as error:
        raise AgentMissingError(
            f"agent_command_template: {word!r} cannot be started: {error}"
        ) from None


def text_report(
    outcome: RunOutcome, files: RunFiles, now: float | None, *, account: str
) -> AgentReport:
    """Read an agent that speaks plain text: believed when it exited 0, else its last words tell
    why. Wrappers lose exit codes: a few lines that end in a CLI's refusal and hold no answer are
    no success either; what they were is kept, for a run that turns out to have worked."""
    at = time.time() if now is None else now
    answer = files.read_tail("stdout.log", ANSWER_BYTES) if outcome.ok else ""
    said = answer or files.read_tail("stdout.log", _SAID_BYTES)
    warned = files.read_tail("stderr.log", _SAID_BYTES)
    worked = "next_goal" in said.lower() or own_lines(said) > _REFUSAL_LINES
    if outcome.ok and said.strip():  # stderr of a run that answered is what its tools wrote
        warned = ""
    printed = Printed(warned, said)
    hint = None if worked else by_ending(printed)
    refused = hint is not None and hint[0] in _REFUSALS
    # A time-out whose last words are of a retry is the network's fault, or the service's.
    waiting = ErrorFacts(hint[1]) if hint is not None and hint[0] in _WAITING else None
    parsed = Parsed(moved=worked, retry=None if outcome.cause is EndCause.EXIT else waiting)
    failure: Failure | None = None
    if not outcome.ok or refused:
        parsed.ended = outcome.ok
        block = parse(said) if worked else None
        if isinstance(block, ControlBlock):  # it failed, and says itself why
            printed = Printed(warned, block.reason or block.summary)
        failure = classify(parsed, outcome, printed, at, account=account)
    cut = ANSWER_BYTES if answer and files.size("stdout.log") > ANSWER_BYTES else 0
    return AgentReport(answer=answer, failure=failure, cut=cut)
