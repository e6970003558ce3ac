"""Agents over the Agent Client Protocol: `codex_self_iter.acp_host` speaks it, and this adapter
starts that program and reads its events.

What is particular to an agent is a row of `core.acp_agents`. The four CLIs that have an adapter of
their own keep its login, keys and account; over the protocol they lose status codes and schemas."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import codex_self_iter
from codex_self_iter.agents.base import (
    Invocation,
    Probe,
    Request,
    VersionRange,
)
from codex_self_iter.agents.cli_agent import CliAgent, Reading, fingerprint, real_home
from codex_self_iter.agents.failure_table import by_code, known_code, status_in
from codex_self_iter.agents.probe import Found, ask, find_program, unmeasured
from codex_self_iter.agents.stream import ErrorFacts, Event, EventKind, Tool, edited
from codex_self_iter.core.acp_agents import ACP_AGENTS, CONTROL, AcpRow, Counts, Setting
from codex_self_iter.core.agent_report import AgentReport, Failure, FailureClass, Usage
from codex_self_iter.core.foreign import as_cost, as_dict, as_int, as_text, decode
from codex_self_iter.errors import UsageError

PROBE_SEC = 60.0
"""For a session that is only opened; the slowest measured took 22 s, on a machine that had work."""
_OWN_CODES = {-31001: 429, -31002: 401, -32002: 404}
"""Codes of vibe and of the protocol that stand for a status of HTTP."""
_STATUS = re.compile(r"(?:^|: )\(?([45]\d\d)\b")
"""As copilot ("Error: 429 …") and qwen ("Internal error: 401 …") begin what the server answered."""
_STARTED = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from codex_self_iter.acp_host.__main__ import main; sys.exit(main())"
)


class OverAcp(CliAgent):
    """Runs and reads an agent over the protocol; who it is, a subclass says."""

    row: ClassVar[AcpRow]
    steers: ClassVar[bool] = True
    """Its running turn takes messages, by the file CONTROL."""

    def find(self, environment: Mapping[str, str]) -> Found:
        """Find the agent's program. Raises AgentMissingError."""
        if self.config.image:
            return Found(self.config.binary or self._words()[0])
        return find_program(
            self._words()[0],
            self.config.binary,
            environment,
            mend=self._mend(),
            places=self.places,
        )

    def _mend(self) -> str:
        if not self.row.install:
            return f"set [agents.{self.name}] command to its command line"
        return f"install it ({self.row.install}) or set [agents.{self.name}] binary"

    def _words(self) -> tuple[str, ...]:
        """The agent's command line as it stands in the row, or as the person gave it."""
        return self.config.command or self.row.command

    def prepare(self, request: Request) -> Invocation:
        program = self.find(request.environment)
        words = ["--cwd", request.workspace, "--writable", request.plan_path]
        words += ["--control", os.path.join(request.directory, CONTROL)]
        if request.session_id:
            words += ["--resume", request.session_id]
            if (used := request.previous_thread_usage) is not None:
                counts = used.input_tokens, used.cached_input_tokens, used.output_tokens
                words += ["--before", ",".join(map(str, (*counts, used.cost_usd or 0.0)))]
        if self.model(request):
            words += ["--model", self.model(request)]
        if self.config.effort:
            words += ["--effort", self.config.effort]
        env = self._environment(request.environment, program, request.read_only, request.scratch)
        argv = self._host(program, words, read_only=request.read_only)
        return Invocation(argv, env, request.prompt_path)

    def _host(
        self, program: str, words: Iterable[str], *, read_only: bool = False
    ) -> tuple[str, ...]:
        """The host's command line; nothing of where we are is imported, and nothing of others."""
        root = os.path.dirname(os.path.dirname(os.path.abspath(codex_self_iter.__file__)))
        python = (sys.executable, "-I", "-S", "-X", "utf8", "-c", _STARTED.format(root=root))
        flags = ["--agent", self.name, "--mode", self.config.mode]
        flags += ["--grace", str(self.config.kill_grace_sec)]
        flags += ["--read-only"] * read_only
        return (*python, *flags, *words, "--", program, *self._words()[1:], *self.config.args)

    def _environment(
        self,
        ours: Mapping[str, str],
        program: str,
        read_only: bool,
        scratch: Mapping[str, str],
    ) -> dict[str, str]:
        wanted = self.row.setting(bypass=self.config.mode == "bypass", read_only=read_only)
        return self.environment(
            ours, program, dict(self.row.env) | dict(wanted.env) | dict(scratch)
        )

    # --- reading

    @staticmethod
    def speaks(kind: str, _value: Mapping[str, Any]) -> bool:
        return kind.startswith("acp.")

    @staticmethod
    def events(kind: str, value: Mapping[str, Any]) -> list[Event]:
        return _events(kind.removeprefix("acp."), value) if kind.startswith("acp.") else []

    def report(self, run: Reading) -> AgentReport:
        """A resumed session's usage goes on from what it had used before."""
        report = CliAgent.report(self, run)
        before = run.request.previous_thread_usage if run.request.session_id else None
        known = [usage for usage in (before, report.usage) if usage]
        return dataclasses.replace(report, thread_usage=Usage.of(*known) if known else None)

    def refine(self, failure: Failure | None, run: Reading) -> Failure | None:
        """A turn that ended without a word because something was refused."""
        said = run.parsed
        if failure is not None or said.message.strip() or not said.refused:
            return failure
        text = f"stopped because it was refused: {next(reversed(said.refused))}"
        return Failure(FailureClass.SANDBOX, text, None, self.account(run.request.environment))

    # --- looking

    def probe(self, environment: Mapping[str, str]) -> Probe:
        """A session is opened and nothing asked. Up to a minute; call it in a thread."""
        try:
            program = self.find(environment)
        except UsageError as error:
            return Probe(False, detail=str(error), mend=self._mend())
        if self.config.image:
            return Probe(True, program, f"in {self.config.image}")
        with tempfile.TemporaryDirectory(prefix="csi-", ignore_cleanup_errors=True) as nowhere:
            clean = self._environment(environment, program, False, {})
            words = ("--probe", "--cwd", nowhere)
            code, said = ask(self._host(program, words), clean, PROBE_SEC, cwd=nowhere)
        told = {as_text(value.get("type")): value for line in said.splitlines()
                if (value := decode(line)) is not None}  # fmt: skip
        version = as_text(told.get("acp.agent", {}).get("version"))
        remark = unmeasured(version, self.known_versions) if version else ""
        failed = told.get("acp.failed")
        known = Probe(True, program, version or "?", measured=not remark, detail=remark)
        if failed is not None:
            facts = _error(failed)
            if facts.http_status == 401:
                return dataclasses.replace(known, logged_in=False, mend=self.log_in)
            why = f"no session can be opened: {facts.message}"
            return dataclasses.replace(known, version="", detail=why, mend=self._mend())
        if code != 0:
            why = f"`{os.path.basename(program)}` answered nothing ({code}): {said[-200:]}"
            return dataclasses.replace(known, version="", detail=why, mend=self._mend())
        detail = remark or f"version {version}"
        sure = True if self.row.tells_login else None
        return dataclasses.replace(known, logged_in=sure, detail=detail)

    def lacking(self, _environment: Mapping[str, str]) -> tuple[str, str]:
        """In safe mode, what nobody has measured."""
        if self.config.mode == "bypass" or self.row.safe != Setting():
            return "", ""
        what = f"what {self.name} does without asking in safe mode is not known: no mode of it is"
        return what, "run it where the machine itself is the sandbox (a container)"

    def sandbox_flaw(self, environment: Mapping[str, str]) -> tuple[str, str]:  # noqa: ARG002
        return "", ""


class AnyAcpAgent(OverAcp):
    """An agent without an adapter of its own."""

    def login(self, environment: Mapping[str, str]) -> str:
        """Keys that the row names, else the directory that holds its login."""
        exact = {name for name in self.row.secrets if not name.endswith("*")}
        starts = tuple(name[:-1] for name in self.row.secrets if name.endswith("*"))
        keys = [
            value
            for name, value in sorted(environment.items())
            if value and (name in exact or (name.startswith(starts) and name.endswith(_KEYS)))
        ]
        if keys:
            return fingerprint("\n".join(keys))
        chosen = environment.get(self.row.home) if self.row.home else ""
        return os.path.realpath(chosen) if chosen else real_home(environment, f".{self.name}")

    def logged_in(
        self, _program: str, _environment: Mapping[str, str]
    ) -> tuple[bool | None, str, str]:
        """`probe` finds out more."""
        return None, "", ""


_KEYS = ("_KEY", "_TOKEN")


@functools.cache  # a stream is asked for its speaker line by line
def over_acp(name: str, native: type[CliAgent] | None = None) -> type[OverAcp]:
    """The adapter of an agent over the protocol; of one with an adapter of its own, what that knows
    of its login stays. `name`: of a row, or "acp" for a command that the person gave."""
    row = ACP_AGENTS.get(name, AcpRow((), log_in="start the program yourself, and log in there"))
    about: dict[str, Any] = {
        "name": name,
        "row": row,
        "program": (*row.command, "")[0],
        "package": row.install,
        "tells_tokens": row.counts is not Counts.NONE,
        "tells_cost": row.tells_cost,
        "noise_cores": row.noise_cores,
        "known_versions": VersionRange(row.measured, row.measured) if row.measured else None,
    }
    if native is None:
        about |= {"needed": row.secrets, "home_variable": row.home, "log_in": row.log_in}
    bases = (OverAcp, native) if native is not None else (AnyAcpAgent,)
    return type(f"{name.title()}OverAcp", bases, about)


# --- the host's events


def _events(kind: str, value: Mapping[str, Any]) -> list[Event]:
    text, ident = as_text(value.get("text")), as_text(value.get("id"))
    match kind:
        case "agent":
            about = f"{as_text(value.get('name'))} {as_text(value.get('version'))}"
            return [Event(EventKind.ASIDE, about)]
        case "session":
            return [Event(EventKind.SESSION, f"session {ident}", ident)]
        case "turn":
            return [Event(EventKind.TURN)]
        case "message":
            return [Event(EventKind.MESSAGE, text)]
        case "progress":
            return [Event(EventKind.THINKING)]
        case "aside" | "note":
            return [Event(EventKind.ASIDE, text)]
        case "retry":
            return [Event(EventKind.RETRY, f"retry: {text}", error=_error({"message": text}))]
        case "refused":
            return [Event(EventKind.REFUSED, text)]
        case "tool":
            return [Event(EventKind.TOOL_STARTED, "", ident, tool=_tool(value))]
        case "tool_ended":
            return _tool_ended(value, ident)
        case "control":
            done = "taken" if value.get("ok") is True else "not taken"
            return [Event(EventKind.ASIDE, f"message {done}: {as_text(value.get('how'))}")]
        case "usage":
            into, cached, out = (as_int(value.get(key)) for key in ("input", "cached", "output"))
            used = Usage(into, cached, out, as_cost(value.get("cost_usd")))
            return [Event(EventKind.TOTAL, usage=used)]
        case "done":
            return [Event(EventKind.DONE)]
        case "failed":
            error = _error(value)
            return [Event(EventKind.FAILED, error.message, error=error)]
        case _:
            return []


_KINDS = {"execute": Tool.COMMAND, "edit": Tool.EDIT, "delete": Tool.EDIT, "move": Tool.EDIT}


def _tool(value: Mapping[str, Any]) -> Tool:
    return _KINDS.get(as_text(value.get("kind")), Tool.OTHER)


def _tool_ended(value: Mapping[str, Any], ident: str) -> list[Event]:
    """What it was is shown with its end: many agents say at its start only that there is one."""
    tool, ok, output = _tool(value), value.get("ok") is True, as_text(value.get("output"))
    path, title = as_text(value.get("path")), as_text(value.get("title"))
    text = title or path
    if tool is Tool.COMMAND:
        text = as_text(value.get("command")) or title
    elif tool is Tool.EDIT and path:
        text = edited(as_text(value.get("kind")), path)
    ended = Event(
        EventKind.TOOL_ENDED,
        text,
        ident,
        tool=tool,
        output=output if ok else "",
        ok=ok,
        error=None if ok else ErrorFacts(output),
    )
    changed = ok and tool is Tool.EDIT and path
    return [ended, Event(EventKind.CHANGED, path)] if changed else [ended]


def _error(value: Mapping[str, Any]) -> ErrorFacts:
    """What an error says: the agent's own class of it where it gives one, a status, its words."""
    message, code = as_text(value.get("message")), value.get("code")
    data = as_text(value.get("data"))
    number = code if isinstance(code, int) and not isinstance(code, bool) else 0
    name = code if isinstance(code, str) else _class_in(data)
    status = number if 100 <= number < 600 else _OWN_CODES.get(number, 0)
    if name == "auth_required":
        status = 401
    if not status and (found := _STATUS.search(message)):
        status = int(found[1])
    return ErrorFacts(message, name, status or status_in(message))


def _class_in(data: str) -> str:
    """The first word in the data of an error that is the name of a class of it, or ""."""
    found = as_dict(decode(data))
    named = (found.get(key) for key in ("codexErrorInfo", "errorKind", "errorName", "category"))
    words = [word if isinstance(word, str) else next(iter(as_dict(word)), "") for word in named]
    words += [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word) for word in words]  # usageLimitExceeded
    return next((word for word in words if by_code(word)), known_code(data))
