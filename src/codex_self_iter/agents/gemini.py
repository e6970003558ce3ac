"""Gemini CLI (`@google/gemini-cli`): `gemini -o stream-json`, the prompt on stdin.

As measured with 0.61.0: the exit code of an API error is its HTTP status modulo 256; a folder that
is not trusted ends the run; a run ended by a signal exits 0 without a `result` event."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

from codex_self_iter.agents.base import Invocation, Request, VersionRange
from codex_self_iter.agents.cli_agent import (
    CliAgent,
    Reading,
    fingerprint,
    real_home,
)
from codex_self_iter.agents.failure_table import by_status, status_in
from codex_self_iter.agents.stream import ErrorFacts, Event, EventKind, spent, tool_call
from codex_self_iter.core.agent_report import Failure, FailureClass, Usage
from codex_self_iter.core.foreign import as_dict, as_int, as_text, as_words

# 400 to 599, modulo 256, as far as they occur.
_HTTP_EXITS = {
    status % 256: status for status in (400, 401, 403, 404, 408, 413, 429, 500, 502, 503, 504)
}
_EXITS = {
    41: FailureClass.AUTH,
    44: FailureClass.SANDBOX,
    52: FailureClass.CONFIG,
    55: FailureClass.CONFIG,
    130: FailureClass.KILLED,
}
_UNKNOWN_SESSION_EXIT = 42
_REFUSED = re.compile(
    r"\btool\b.*\bnot found|not in workspace|outside (of )?the (allowed )?workspace|denied by policy",
    re.IGNORECASE,
)


class GeminiAgent(CliAgent):
    """Runs and reads the Gemini CLI."""

    name = "gemini"
    program = "gemini"
    package = "@google/gemini-cli"
    log_in = "run `gemini` once and log in, or set GEMINI_API_KEY"
    known_versions = VersionRange("0.61.0", "0.61.0")
    needed = ("GEMINI_*", "GOOGLE_*")
    home_variable = "GEMINI_CLI_HOME"
    """The CLI keeps its files in `.gemini` below this directory."""

    def prepare(self, request: Request) -> Invocation:
        program = self.find(request.environment)
        # Its "plan" goes on to carry the plan out by itself; "default" has no tool that writes.
        safe = "default" if request.read_only else "auto_edit"
        approval = "yolo" if self.config.mode == "bypass" else safe
        argv = [program, "-o", "stream-json", "--approval-mode", approval]
        if self.model(request):
            argv += ["-m", self.model(request)]
        if request.session_id:
            argv += ["--resume", request.session_id]
        argv += self.config.args
        extra = {"GEMINI_CLI_TRUST_WORKSPACE": "true", "GEMINI_CLI_NO_RELAUNCH": "true"}
        extra |= request.scratch
        env = self.environment(request.environment, program, extra)
        return Invocation(tuple(argv), env, request.prompt_path)

    @staticmethod
    def speaks(kind: str, value: Mapping[str, Any]) -> bool:
        if kind not in ("message", "tool_use", "tool_result", "result"):
            return kind == "init"
        return "timestamp" in value and "sessionID" not in value

    @staticmethod
    def events(kind: str, value: Mapping[str, Any]) -> list[Event]:
        match kind:
            case "init":
                ident, model = as_text(value.get("session_id")), as_text(value.get("model"))
                session = Event(EventKind.SESSION, f"session {ident}, {model}", ident, model)
                return [session, Event(EventKind.TURN)]
            case "message" if value.get("role") == "assistant":
                piece = EventKind.DELTA if value.get("delta") is True else EventKind.MESSAGE
                return [Event(piece, as_text(value.get("content")))]
            case "tool_use":
                name, ident = as_text(value.get("tool_name")), as_text(value.get("tool_id"))
                tool, text = tool_call(name, as_dict(value.get("parameters")))
                return [Event(EventKind.TOOL_STARTED, text, ident, tool=tool)]
            case "tool_result":
                return _tool_result(value)
            case "error":  # a warning, for the supervisor only
                return [Event(EventKind.NOTE, error=_error(value))]
            case "result":
                return _result(value)
            case _:
                return []

    def refine(self, failure: Failure | None, run: Reading) -> Failure | None:
        """The exit code tells more than the events, where these told nothing better."""
        code = run.outcome.exit_code
        if failure is None or failure.kind is not FailureClass.AGENT or code is None:
            return failure
        kind = _EXITS.get(code)
        status = _HTTP_EXITS.get(code, 0)
        if status:
            kind = by_status(status) or FailureClass.AGENT
        if code == _UNKNOWN_SESSION_EXIT and run.request.session_id:
            kind = FailureClass.CONTEXT
        return dataclasses.replace(failure, kind=kind) if kind else failure

    def login(self, environment: Mapping[str, str]) -> str:
        for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
            if environment.get(name):
                return fingerprint(environment[name])
        return self._directory(environment)

    def _directory(self, environment: Mapping[str, str]) -> str:
        home = environment.get("GEMINI_CLI_HOME")
        return real_home({"HOME": home} if home else environment, ".gemini")

    def logged_in(
        self, _program: str, environment: Mapping[str, str]
    ) -> tuple[bool | None, str, str]:
        for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
            if environment.get(name):
                return True, f"key from {name}", ""
        directory = self._directory(environment)
        if os.path.exists(os.path.join(directory, "oauth_creds.json")):
            return True, "logged in with an account", ""
        if environment.get("GOOGLE_GENAI_USE_VERTEXAI") or os.path.exists(
            os.path.join(directory, "settings.json")
        ):
            return None, "its login cannot be told without asking the service", self.log_in
        return False, "not logged in", self.log_in


# --- the event stream of `-o stream-json`


def _error(error: Mapping[str, Any]) -> ErrorFacts:
    message = as_text(error.get("message"))
    return ErrorFacts(message, as_text(error.get("type")), status_in(message))


def _tool_result(value: Mapping[str, Any]) -> list[Event]:
    ident, output = as_text(value.get("tool_id")), as_words(value.get("output"))
    message = as_text(as_dict(value.get("error")).get("message"))
    ok = value.get("status") != "error"
    error = None if ok and not message else ErrorFacts(message or output)
    events = [Event(EventKind.TOOL_ENDED, ident=ident, output=output, ok=ok, error=error)]
    if _REFUSED.search(message):
        events.append(Event(EventKind.REFUSED, message))
    return events


def _result(value: Mapping[str, Any]) -> list[Event]:
    stats = as_dict(value.get("stats"))
    events = []
    if stats:
        counts = (as_int(stats.get(key)) for key in ("input_tokens", "cached", "output_tokens"))
        events.append(Event(EventKind.TOTAL, usage=Usage(*counts)))
    if value.get("status") == "success":
        return [*events, Event(EventKind.DONE, f"done, {spent(stats)}")]
    error = _error(as_dict(value.get("error")))
    return [*events, Event(EventKind.FAILED, error.message, error=error)]
