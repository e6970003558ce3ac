"""opencode (`opencode-ai`): `opencode run --format json`, the prompt on stdin.

As measured with 1.18.33: there is no final event, a good run's last step ended with reason "stop";
a refused permission ends the run with exit code 0 and reason "tool-calls"; errors carry the API's
status and headers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from codex_self_iter.agents.base import Invocation, Request, VersionRange
from codex_self_iter.agents.cli_agent import CliAgent, Reading, decoded, fingerprint, real_home
from codex_self_iter.agents.stream import ErrorFacts, Event, EventKind, as_dict, as_int, as_text
from codex_self_iter.core.model import Failure, FailureClass, Usage

_PROVIDERS = (
    "ANTHROPIC", "OPENAI", "GEMINI", "GOOGLE", "OPENROUTER", "GROQ", "MISTRAL", "DEEPSEEK", "XAI", "AZURE",
    "AWS", "TOGETHER", "FIREWORKS", "CEREBRAS", "MOONSHOT", "ZAI", "ZHIPU", "DASHSCOPE", "HF", "OPENCODE",
)  # fmt: skip
_REFUSED = re.compile(
    r"rejected permission|permission (was )?(denied|rejected)|auto-reject|specific rule which prevents",
    re.I,
)


class OpencodeAgent(CliAgent):
    """Runs and reads opencode."""

    name = "opencode"
    program = "opencode"
    package = "opencode-ai"
    places = ("~/.opencode/bin",)
    known_versions = VersionRange("1.18.33", "1.18.33")
    needed = tuple(f"{name}_*" for name in _PROVIDERS)
    codes: ClassVar[Mapping[str, FailureClass]] = {
        "ProviderAuthError": FailureClass.AUTH,
        "ProviderModelNotFoundError": FailureClass.CONFIG,
        "ContextOverflowError": FailureClass.CONTEXT,
    }

    def home_environment(self) -> dict[str, str]:
        """`home` holds its configuration and its data; our other XDG directories stay as they are,
        for the tools that it runs."""
        if not self.config.home:
            return {}
        home = os.path.expanduser(self.config.home)
        return {
            "OPENCODE_CONFIG_DIR": os.path.join(home, "config"),
            "XDG_DATA_HOME": os.path.join(home, "data"),
        }

    def prepare(self, request: Request) -> Invocation:
        """See Agent.prepare."""
        program = self.find(request.environment)
        argv = [program, "run", "--format", "json", "--dir", request.workspace]
        if self.config.mode == "bypass":
            argv.append("--auto")
        if self.model(request):
            argv += ["-m", self.model(request)]
        if self.config.effort:
            argv += ["--variant", self.config.effort]
        if request.session_id:
            argv += ["--session", request.session_id]
        argv += self.config.args
        extra = {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
        env = self.environment(request.environment, program, extra)
        return Invocation(tuple(argv), env, request.prompt_path)

    def parse_line(self, line: str) -> Iterable[Event]:
        return parse_line(line)

    def refine(self, failure: Failure | None, run: Reading) -> Failure | None:
        """A run that stopped because something was refused."""
        if failure is not None and run.outcome.ok and not run.parsed.ended and run.parsed.refused:
            refused = next(reversed(run.parsed.refused))
            return Failure(
                FailureClass.SANDBOX,
                f"stopped because it was refused: {refused}"[:500],
                None,
                failure.account,
            )
        return failure

    def login(self, environment: Mapping[str, str]) -> str:
        keys = [
            environment[f"{name}_API_KEY"]
            for name in _PROVIDERS
            if environment.get(f"{name}_API_KEY")
        ]
        return fingerprint("\n".join(keys)) if keys else self._data(environment)

    def _data(self, environment: Mapping[str, str]) -> str:
        base = environment.get("XDG_DATA_HOME")
        return (
            os.path.realpath(os.path.join(base, "opencode"))
            if base
            else real_home(environment, ".local/share/opencode")
        )

    def logged_in(
        self, _program: str, environment: Mapping[str, str]
    ) -> tuple[bool | None, str, str]:
        names = [f"{name}_API_KEY" for name in _PROVIDERS if environment.get(f"{name}_API_KEY")]
        if names:
            return True, f"key from {', '.join(names)}", ""
        try:
            with open(os.path.join(self._data(environment), "auth.json"), encoding="utf-8") as file:
                known = as_dict(json.load(file))
        except (OSError, ValueError):
            known = {}
        if known:
            return True, f"logged in: {', '.join(sorted(known))}", ""
        # Its configuration may hold a key, and some of its models need none.
        return None, "no login found; its configuration may hold one", "opencode auth login"


# --- the event stream


def parse_line(line: str) -> list[Event]:
    """The events of one line of `--format json`. Pure; never raises."""
    found = decoded(line)
    if found is None:
        return []
    kind, value = found
    part = as_dict(value.get("part"))
    session = Event(EventKind.SESSION, ident=as_text(value.get("sessionID")))
    match kind:
        case "step_start":
            return [session, Event(EventKind.TURN)]
        case "text":
            return [session, Event(EventKind.MESSAGE, as_text(part.get("text")))]
        case "reasoning":
            return [session, Event(EventKind.THINKING, as_text(part.get("text")))]
        case "tool_use":
            return [session, *_tool(part)]
        case "step_finish":
            return [session, *_step(part)]
        case "error":
            return [session, _error(as_dict(value.get("error")))]
        case _:
            return []


def _tool(part: dict[str, Any]) -> list[Event]:
    state = as_dict(part.get("state"))
    given, meta = as_dict(state.get("input")), as_dict(state.get("metadata"))
    name, ident = as_text(part.get("tool")), as_text(part.get("callID"))
    ok = state.get("status") != "error"
    detail = (
        as_text(given.get("command"))
        or as_text(given.get("filePath"))
        or as_text(state.get("title"))
    )
    text = f"{name}: {detail[:300]}" if detail else name
    code = meta.get("exit")
    events = [
        Event(
            EventKind.TOOL_ENDED,
            text,
            ident,
            exit_code=code if isinstance(code, int) else None,
            ok=ok,
        )
    ]
    if ok and name in ("write", "edit", "patch"):
        events.append(Event(EventKind.CHANGED, as_text(given.get("filePath"))))
    error = as_text(state.get("error"))
    if not ok and _REFUSED.search(error):
        events.append(Event(EventKind.REFUSED, f"{text}: {error}"))
    return events


def _step(part: dict[str, Any]) -> list[Event]:
    tokens, cost = as_dict(part.get("tokens")), part.get("cost")
    cache = as_dict(tokens.get("cache"))
    cached = as_int(cache.get("read"))
    money = (
        float(cost)
        if isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < 1e6
        else None
    )
    usage = Usage(
        as_int(tokens.get("input")) + cached + as_int(cache.get("write")),
        cached,
        as_int(tokens.get("output")) + as_int(tokens.get("reasoning")),
        money,
    )
    ended = (
        Event(EventKind.DONE) if part.get("reason") != "tool-calls" else Event(EventKind.THINKING)
    )
    return [Event(EventKind.TOKENS, ident=as_text(part.get("id")), usage=usage), ended]


def _error(error: dict[str, Any]) -> Event:
    data = as_dict(error.get("data"))
    message = as_text(data.get("message")) or as_text(error.get("name"))
    headers = {
        str(name).lower(): as_text(value)
        for name, value in as_dict(data.get("responseHeaders")).items()
    }
    after = headers.get("retry-after", "")
    if after:
        message += f" (Retry-After: {after})"
    reset = headers.get("anthropic-ratelimit-unified-reset", "")
    at = float(reset) if reset.isdigit() and len(reset) == 10 else None
    status = as_int(data.get("statusCode"))
    return Event(
        EventKind.FAILED, message, error=ErrorFacts(message, as_text(error.get("name")), status, at)
    )
