"""opencode (`opencode-ai`): `opencode run --format json`, the prompt on stdin.

As measured with 1.18.33: there is no final event, a good run's last step ended with reason "stop";
a refused permission ends the run with exit code 0 and reason "tool-calls"; errors carry the API's
status and headers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from codex_self_iter.agents.base import Invocation, Request, VersionRange
from codex_self_iter.agents.cli_agent import CliAgent, Reading, fingerprint, real_home
from codex_self_iter.agents.failure_table import by_code, known_code
from codex_self_iter.agents.stream import ErrorFacts, Event, EventKind, tool_call
from codex_self_iter.core.agent_report import Failure, FailureClass, Usage
from codex_self_iter.core.foreign import as_cost, as_dict, as_int, as_text, as_words
from codex_self_iter.world.guarded import read_guarded

_PROVIDERS = (
    "ANTHROPIC", "OPENAI", "GEMINI", "GOOGLE", "OPENROUTER", "GROQ", "MISTRAL", "DEEPSEEK", "XAI",
    "AZURE", "AWS", "TOGETHER", "FIREWORKS", "CEREBRAS", "MOONSHOT", "ZAI", "ZHIPU", "DASHSCOPE",
    "HF", "OPENCODE",
)  # fmt: skip
_REFUSED = re.compile(
    r"rejected permission|permission (was )?(denied|rejected)|auto-reject"
    r"|specific rule which prevents",
    re.I,
)


class OpencodeAgent(CliAgent):
    """Runs and reads opencode."""

    name = "opencode"
    program = "opencode"
    package = "opencode-ai"
    log_in = "opencode auth login"
    tells_cost = True
    noise_cores = 0.04  # 0.026 in bursts, for as long as the server says nothing
    places = ("~/.opencode/bin",)
    known_versions = VersionRange("1.18.33", "1.18.33")
    needed = tuple(f"{name}_*" for name in _PROVIDERS)

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
        program = self.find(request.environment)
        argv = [program, "run", "--format", "json", "--dir", request.workspace]
        if self.config.mode == "bypass":
            argv.append("--auto")
        if request.read_only:
            argv += ["--agent", "plan"]
        if self.model(request):
            argv += ["-m", self.model(request)]
        if self.config.effort:
            argv += ["--variant", self.config.effort]
        if request.session_id:
            argv += ["--session", request.session_id]
        argv += self.config.args
        extra = {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
        env = self.environment(request.environment, program, extra | request.scratch)
        return Invocation(tuple(argv), env, request.prompt_path)

    @staticmethod
    def speaks(_kind: str, value: Mapping[str, Any]) -> bool:
        return "sessionID" in value

    @staticmethod
    def events(kind: str, value: Mapping[str, Any]) -> list[Event]:
        session = Event(EventKind.SESSION, ident=as_text(value.get("sessionID")))
        said = _events(kind, value)
        return [session, *said] if said else []

    def refine(self, failure: Failure | None, run: Reading) -> Failure | None:
        """A run that stopped because something was refused."""
        if failure is not None and run.outcome.ok and not run.parsed.ended and run.parsed.refused:
            refused = next(reversed(run.parsed.refused))
            return Failure(
                FailureClass.SANDBOX,
                f"stopped because it was refused: {refused}",
                None,
                failure.account,
            )
        return failure

    def login(self, environment: Mapping[str, str]) -> str:
        keys = [environment[name] for name in _keys(environment)]
        return fingerprint("\n".join(keys)) if keys else self._data(environment)

    def _data(self, environment: Mapping[str, str]) -> str:
        base = environment.get("XDG_DATA_HOME")
        if base:
            return os.path.realpath(os.path.join(base, "opencode"))
        return real_home(environment, ".local/share/opencode")

    def logged_in(
        self, _program: str, environment: Mapping[str, str]
    ) -> tuple[bool | None, str, str]:
        names = _keys(environment)
        if names:
            return True, f"key from {', '.join(names)}", ""
        try:
            path = os.path.join(self._data(environment), "auth.json")
            known = as_dict(json.loads(read_guarded(path, 1 << 20, follow=True)))
        except (OSError, ValueError):
            known = {}
        if known:
            return True, f"logged in: {', '.join(sorted(known))}", ""
        # Its configuration may hold a key, and some of its models need none.
        return None, "no login found; its configuration may hold one", self.log_in


def _keys(environment: Mapping[str, str]) -> list[str]:
    names = (f"{provider}_API_KEY" for provider in _PROVIDERS)
    return [name for name in names if environment.get(name)]


# --- the event stream of `--format json`


def _events(kind: str, value: Mapping[str, Any]) -> list[Event]:
    part = as_dict(value.get("part"))
    match kind:
        case "step_start":
            return [Event(EventKind.TURN)]
        case "text":
            return [Event(EventKind.MESSAGE, as_text(part.get("text")))]
        case "reasoning":
            return [Event(EventKind.THINKING)]
        case "tool_use":
            return _tool(part)
        case "step_finish":
            return _step(part)
        case "error":
            return [_error(as_dict(value.get("error")))]
        case _:
            return []


def _tool(part: dict[str, Any]) -> list[Event]:
    """A tool call, which is told when it has ended."""
    state, name = as_dict(part.get("state")), as_text(part.get("tool"))
    given, ok = as_dict(state.get("input")), state.get("status") != "error"
    tool, text = tool_call(name, given)
    error = as_words(state.get("error"))
    ended = Event(
        EventKind.TOOL_ENDED,
        text,
        as_text(part.get("callID")),
        tool=tool,
        output=as_words(state.get("output")),
        ended=as_words(as_dict(state.get("metadata")).get("exit")),
        ok=ok,
        error=None if ok else ErrorFacts(error),
    )
    if ok:
        changed = [Event(EventKind.CHANGED, as_text(given.get("filePath")))]
        return [ended, *changed] if name in ("write", "edit", "patch") else [ended]
    if not _REFUSED.search(error):
        return [ended]
    details = (given.get("command"), given.get("filePath"), state.get("title"))
    detail = next(filter(None, map(as_text, details)), "")
    what = f"{name}: {detail}" if detail else name
    return [ended, Event(EventKind.REFUSED, f"{what}: {error}")]


def _step(part: dict[str, Any]) -> list[Event]:
    tokens = as_dict(part.get("tokens"))
    cache = as_dict(tokens.get("cache"))
    cached = as_int(cache.get("read"))
    usage = Usage(
        as_int(tokens.get("input")) + cached + as_int(cache.get("write")),
        cached,
        as_int(tokens.get("output")) + as_int(tokens.get("reasoning")),
        as_cost(part.get("cost")),
    )
    last = part.get("reason") != "tool-calls"
    return [
        Event(EventKind.TOKENS, ident=as_text(part.get("id")), usage=usage),
        Event(EventKind.DONE if last else EventKind.THINKING),
    ]


def _error(error: dict[str, Any]) -> Event:
    data, name = as_dict(error.get("data")), as_text(error.get("name"))
    text = message = as_text(data.get("message")) or name
    given = as_dict(data.get("responseHeaders"))
    headers = {str(key).lower(): as_text(value) for key, value in given.items()}
    after = headers.get("retry-after", "")
    if after:
        message += f" (Retry-After: {after})"
    reset = headers.get("anthropic-ratelimit-unified-reset", "")
    at = float(reset) if reset.isdigit() and len(reset) == 10 else None
    code = name if by_code(name) else known_code(as_text(data.get("responseBody"))) or name
    facts = ErrorFacts(message, code, as_int(data.get("statusCode")), at)
    return Event(EventKind.FAILED, text, error=facts)
