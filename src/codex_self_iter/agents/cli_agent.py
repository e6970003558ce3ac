"""What the adapters of event-streaming CLIs have in common."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from codex_self_iter.agents.base import AgentConfig, AgentMissingError, Probe, Request, VersionRange
from codex_self_iter.agents.classify import Printed, answered, classify
from codex_self_iter.agents.passed_env import agent_environment
from codex_self_iter.agents.pricing import priced
from codex_self_iter.agents.probe import Found, find_program, probe_program, with_path
from codex_self_iter.agents.run_files import ANSWER_BYTES, RunFiles
from codex_self_iter.agents.stream import Event, EventKind, Parsed, fold
from codex_self_iter.core.agent_report import SEEN_CHARS, AgentReport, Failure, FailureClass
from codex_self_iter.core.foreign import as_text, decode
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.core.text import one_line

_STDERR_BYTES = 16 * 1024
_ENDS = frozenset((EventKind.DONE, EventKind.FAILED))
_TELLS_END = _ENDS | frozenset(
    map(EventKind, ("turn", "message", "delta", "thinking", "tool_started", "tool_ended"))
)
_BROKEN = "sandbox: "
_SANDBOX_BROKEN = re.compile(
    r"^\s*(Exit code \d+\s+)?(bwrap|codex-linux-sandbox|sandbox-exec): |"
    r"Sandbox\((Landlock|Denied)|error running landlock",
    re.MULTILINE,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """A finished run that is being read: what was asked, how it ended, what it said, when it is
    read."""

    request: Request
    outcome: RunOutcome
    files: RunFiles
    parsed: Parsed
    now: float


class CliAgent(abc.ABC):
    """An agent whose CLI writes one JSON event a line to stdout."""

    name: ClassVar[str]
    known_versions: ClassVar[VersionRange | None] = None
    program: ClassVar[str]
    """The usual name of the program."""
    package: ClassVar[str]
    """The npm package, for messages."""
    places: ClassVar[tuple[str, ...]] = ()
    """Where its own installer puts it."""
    needed: ClassVar[tuple[str, ...]] = ()
    """Variables that it needs even if they look secret (see `agent_environment`)."""
    home_variable: ClassVar[str] = ""
    """The variable that names the CLI's configuration directory, where it has one."""
    noise_cores: ClassVar[float] = 0.005
    """Share of a core that it uses while it waits for a silent server, as measured."""
    tells_tokens: ClassVar[bool] = True
    """Whether it says how many tokens a run used."""
    tells_cost: ClassVar[bool] = False
    """Whether it says what a run cost; else [prices] must."""
    log_in: ClassVar[str] = ""
    """How a person logs in."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config

    # --- starting

    def find(self, environment: Mapping[str, str]) -> Found:
        """Find the program. Raises AgentMissingError."""
        if self.config.image:
            return Found(self.chosen(environment) or self.program)
        mend = f"install it (`npm install -g {self.package}`) or set [agents.{self.name}] binary"
        return find_program(
            self.program, self.chosen(environment), environment, mend=mend, places=self.places
        )

    def chosen(self, _environment: Mapping[str, str]) -> str:
        """The program that the person chose, or ""."""
        return self.config.binary

    def environment(
        self, ours: Mapping[str, str], program: str, extra: Mapping[str, str]
    ) -> dict[str, str]:
        """The agent's complete environment."""
        return agent_environment(
            ours,
            needed=(*self.needed, *self.also_needed(ours)),
            passed=self.config.pass_env,
            extra=with_path(program, ours) | self.home_environment() | dict(extra),
            configured=self.config.env,
        )

    def also_needed(self, _ours: Mapping[str, str]) -> Iterable[str]:
        """Further names needed, found in the CLI's configuration."""
        return ()

    def home_environment(self) -> dict[str, str]:
        """The variables that make `home` the CLI's configuration directory."""
        home = os.path.expanduser(self.config.home)
        return {self.home_variable: home} if home and self.home_variable else {}

    def seen(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment as far as it says who is logged in."""
        return dict(environment) | self.home_environment() | dict(self.config.env)

    def model(self, request: Request) -> str:
        """The model to ask for; "" leaves the choice to the CLI."""
        return request.model_hint or self.config.model

    # --- reading

    @staticmethod
    @abc.abstractmethod
    def speaks(kind: str, value: Mapping[str, Any]) -> bool:
        """Whether an event looks like this CLI's, for streams whose agent nobody named."""

    @staticmethod
    @abc.abstractmethod
    def events(kind: str, value: Mapping[str, Any]) -> list[Event]:
        """What one JSON event of this `type` says. Pure; never raises."""

    def parse_line(self, line: str) -> list[Event]:
        """The events of one line. Pure; never raises."""
        value = decode(line)
        kind = as_text(value.get("type")) if value else ""
        return self.events(kind, value) if value and kind else []

    def parse_events(self, lines: Iterable[str]) -> Parsed:
        """What a stream says. Pure; never raises."""
        return fold(event for line in lines for event in self.parse_line(line))

    def final(self, line: str) -> bool | None:
        """Whether the stream is over with this line (True) or goes on (False); None when the line
        does not tell. Pure; never raises."""
        told = [event.kind for event in self.parse_line(line) if event.kind in _TELLS_END]
        return told[-1] in _ENDS if told else None

    def read(
        self, request: Request, outcome: RunOutcome, files: RunFiles, *, now: float | None = None
    ) -> AgentReport:
        """Read a finished run: see Agent.read."""
        at = time.time() if now is None else now
        parsed = self.parse_events(files.iter_lines("stdout.log"))
        parsed.too_long = files.too_long
        return self.report(Reading(request, outcome, files, parsed, at))

    def report(self, run: Reading) -> AgentReport:
        """Turn what was parsed into the report."""
        parsed = run.parsed
        failure = self.refine(self._classified(run), run)
        model = parsed.model or self.model(run.request)
        said = parsed.message if parsed.answer is None else parsed.answer
        if failure is None and not said.strip() and parsed.note:  # why it ended without a word
            failure = Failure(FailureClass.AGENT, one_line(f"no answer: {parsed.note}", SEEN_CHARS))
        done = failure is None and answered(parsed, run.outcome)
        answer = "" if failure else bounded_answer(said)
        return AgentReport(
            answer=answer,
            usage=priced(parsed.usage, model, self.config.prices),
            session_id=parsed.session_id,
            failure=failure,
            model=model,
            refused=tuple(parsed.refused),
            answered=done,
            note=_end_note(run.outcome) if done else "",
            said="" if failure else _together(parsed.messages, said),
            cut=ANSWER_BYTES if len(answer) < len(said) and answer else 0,
        )

    def _classified(self, run: Reading) -> Failure | None:
        # A CLI that came to its first event prints nothing else on stdout.
        plain = "" if run.parsed.events else run.files.read_tail("stdout.log", _STDERR_BYTES)
        return classify(
            run.parsed,
            run.outcome,
            Printed(run.files.read_tail("stderr.log", _STDERR_BYTES), plain),
            run.now,
            final_event=True,
            account=self.account(run.request.environment),
            log_in=self.log_in,
        )

    def refine(self, failure: Failure | None, run: Reading) -> Failure | None:
        """What only the adapter can tell about a failure. Here: a sandbox that cannot be set up
        lets every command fail, and the run ends well all the same."""
        said = run.parsed
        broken = next((text for text in said.refused if text.startswith(_BROKEN)), "")
        if failure is not None or not broken or said.tools_ok or said.changed:
            return failure
        text = f"{self.name}'s sandbox does not work here: {broken.removeprefix(_BROKEN)}"
        message = one_line(text, SEEN_CHARS)
        return Failure(FailureClass.SANDBOX, message, None, self.account(run.request.environment))

    # --- looking

    def account(self, environment: Mapping[str, str]) -> str:
        return self.config.account or f"{self.name}:{self.login(self.seen(environment))}"

    @abc.abstractmethod
    def login(self, environment: Mapping[str, str]) -> str:
        """Names the login: a key's fingerprint or the directory that holds it."""

    def probe(self, environment: Mapping[str, str]) -> Probe:
        try:
            program = self.find(environment)
        except AgentMissingError as error:
            return Probe(False, detail=str(error), mend=f"npm install -g {self.package}")
        if self.config.image:
            return Probe(True, program, f"in {self.config.image}")
        clean = self.environment(environment, program, {})
        probe = probe_program(program, clean, self.known_versions)
        if not probe.version:
            return probe
        logged_in, detail, mend = self.logged_in(program, clean)
        return dataclasses.replace(
            probe, logged_in=logged_in, detail=f"{probe.detail}; {detail}", mend=mend
        )

    def lacking(self, _environment: Mapping[str, str]) -> tuple[str, str]:
        """What this machine lacks for all of its work, and what mends it; "" twice for nothing."""
        return "", ""

    def sandbox_flaw(self, environment: Mapping[str, str]) -> tuple[str, str]:  # noqa: ARG002
        """Why its sandbox fails, tried without tokens, and what mends it; "" twice where it works
        or cannot be tried. Blocks."""
        return "", ""

    @abc.abstractmethod
    def logged_in(
        self, program: str, environment: Mapping[str, str]
    ) -> tuple[bool | None, str, str]:
        """Whether somebody is logged in, how, and what mends it if not."""


def bounded_answer(text: str) -> str:
    """The answer, cut at its beginning if it is longer than a report carries."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= ANSWER_BYTES else data[-ANSWER_BYTES:].decode("utf-8", "ignore")


def _together(messages: Sequence[str], answer: str) -> str:
    """The last messages and the answer as one text; "" when the answer is all there is."""
    before = [*messages[:-1], *(text for text in messages[-1:] if text != answer)]
    return bounded_answer("\n\n".join((*before, answer))) if before else ""


def sandbox_broken(output: str) -> list[Event]:
    """The event of a command whose sandbox could not be set up, if its output says so."""
    broken = _SANDBOX_BROKEN.search(output[:300])
    return [Event(EventKind.REFUSED, f"{_BROKEN}{output.strip()}")] if broken else []


def fingerprint(secret: str) -> str:
    """Tells keys apart without giving them away."""
    return "key-" + hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()[:12]


def real_home(environment: Mapping[str, str], *parts: str) -> str:
    """A real path below the person's home directory."""
    home = environment.get("HOME") or os.path.expanduser("~")
    return os.path.realpath(os.path.join(home, *parts))


def _end_note(outcome: RunOutcome) -> str:
    """What is odd about the end of a run that had answered, else ""."""
    if outcome.ok:
        return ""
    match outcome.cause:
        case EndCause.EXIT if outcome.signal is not None:
            return f"it had answered and was then ended by signal {outcome.signal}"
        case EndCause.EXIT:
            return f"it had answered and then exited with code {outcome.exit_code}"
        case _:
            return "it had answered and did not end by itself"
