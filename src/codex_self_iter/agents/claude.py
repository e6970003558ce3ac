"""Claude Code (`@anthropic-ai/claude-code`): `claude -p --output-format stream-json --verbose`.

As measured with 2.1.197 and 2.1.332: an API error is a `result` of subtype "success" with
`is_error`; events may follow the result; `--resume` works from the same directory only. Usage and
cost of a resumed run begin at 0 in the older and go on from the session's total in the newer one,
which says beside it what has been used since the last result."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from codex_self_iter.agents.base import Invocation, Request, VersionRange
from codex_self_iter.agents.cli_agent import (
    CliAgent,
    Reading,
    fingerprint,
    real_home,
    sandbox_broken,
)
from codex_self_iter.agents.failure_table import by_code, status_in
from codex_self_iter.agents.probe import ask
from codex_self_iter.agents.stream import ErrorFacts, Event, EventKind, spent, tool_call
from codex_self_iter.core.agent_report import AgentReport, Usage
from codex_self_iter.core.foreign import (
    as_cost,
    as_dict,
    as_int,
    as_list,
    as_number,
    as_text,
    as_words,
    decode,
)
from codex_self_iter.core.text import money

# In safe mode commands run in Claude's own sandbox (the workspace is writable, the rest and the
# network are not; what holds keys cannot be read). Where that cannot be set up (on Linux it needs
# bubblewrap and socat) only commands that Claude itself knows to be harmless, and what
# `acceptEdits` allows, go without asking; more is the person's to allow:
# [agents.claude] args = ["--allowedTools", "Bash(pytest:*)"].
# The file tools need no rule: acceptEdits confines them to the workspace, and a bare one allows
# them everywhere. Glob and Grep are not there unless they are named. Nor do harmless commands
# of git need one: a rule for `git diff` would allow its `--output=FILE`, wherever that is.
_SECRET = ("~/.ssh", "~/.aws", "~/.gnupg", "~/.config/gh", "~/.netrc", "~/.kube", "~/.docker")
_SANDBOX: dict[str, dict[str, Any]] = {
    "sandbox": {
        "enabled": True,
        "autoAllowBashIfSandboxed": True,
        "allowUnsandboxedCommands": False,
        "filesystem": {"denyRead": _SECRET},
    }
}
_SAFE_TOOLS = ("Glob(./**)", "Grep(./**)")
_EDIT_TOOLS = ("Edit", "Write", "NotebookEdit")
# After -m git takes no message from a file, wherever that is; a list of paths it would take from
# one, and its error would show the file's first line.
_COMMIT_TOOLS = ("Bash(git add:*)", "Bash(git commit -m:*)", "Bash(git commit -am:*)")
_COMMIT_NEVER = ("Bash(git add *--pathspec-fr*)", "Bash(git commit *--pathspec-fr*)")


SHELL = "CLAUDE_CODE_SHELL"
"""Names the shell that runs Claude's commands. Measured: where a zsh is installed 2.1.197 takes it,
and its sandbox is then none (2.1.332 is not concerned); with bash it holds."""


class ClaudeAgent(CliAgent):
    """Runs and reads Claude Code."""

    name = "claude"
    program = "claude"
    package = "@anthropic-ai/claude-code"
    log_in = "claude auth login, or set ANTHROPIC_API_KEY"
    places = ("~/.claude/local",)
    known_versions = VersionRange("2.1.197", "2.1.332")
    needed = ("ANTHROPIC_*", "CLAUDE_*")
    home_variable = "CLAUDE_CONFIG_DIR"
    tells_cost = True

    def also_needed(self, ours: Mapping[str, str]) -> Iterable[str]:
        """The keys of the cloud that serves the model, where one was chosen."""
        seen = self.seen(ours)
        if seen.get("CLAUDE_CODE_USE_BEDROCK"):
            yield "AWS_*"
        if seen.get("CLAUDE_CODE_USE_VERTEX"):
            yield from ("GOOGLE_*", "CLOUD_ML_*")

    def prepare(self, request: Request) -> Invocation:
        program = self.find(request.environment)
        argv = [program, "-p", "--output-format", "stream-json", "--verbose"]
        argv += self._permissions(request)
        if self.model(request):
            argv += ["--model", self.model(request)]
        if self.config.effort:
            argv += ["--effort", self.config.effort]
        if request.schema is not None:
            argv += ["--json-schema", json.dumps(request.schema, separators=(",", ":"))]
        if request.session_id:
            argv += ["--resume", request.session_id]
        argv += self.config.args
        return Invocation(tuple(argv), self._environment(request, program), request.prompt_path)

    def _permissions(self, request: Request) -> list[str]:
        kept = ["--disallowedTools", ",".join(_EDIT_TOOLS)] if request.read_only else []
        if self.config.mode == "bypass":
            return ["--dangerously-skip-permissions", *kept]
        tools = [*_SAFE_TOOLS]
        if request.commit_by_agent and not request.read_only:
            tools += _COMMIT_TOOLS
            kept = ["--disallowedTools", ",".join(_COMMIT_NEVER)]
        mode = "default" if request.read_only else "acceptEdits"
        flags = ["--permission-mode", mode, "--allowedTools", ",".join(tools), *kept]
        return [*flags, "--settings", json.dumps(self._sandbox())]

    def _sandbox(self) -> dict[str, Any]:
        if not (self.config.fenced and os.geteuid() == 0):
            return _SANDBOX
        # Root's /proc is closed in parts in our fence, and no new one can then be mounted inside.
        return {"sandbox": _SANDBOX["sandbox"] | {"enableWeakerNestedSandbox": True}}

    def _environment(self, request: Request, program: str) -> dict[str, str]:
        extra = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}
        if self.config.mode == "bypass" and os.geteuid() == 0:
            extra["IS_SANDBOX"] = "1"  # it refuses to bypass as root otherwise
        if self._sandboxed() and SHELL not in request.environment:
            bash = shutil.which("bash", path=request.environment.get("PATH"))
            extra |= {SHELL: bash} if bash else {}
        if self.config.fenced and request.temporary:
            extra["CLAUDE_CODE_TMPDIR"] = request.temporary  # the one that it may write
        return self.environment(request.environment, program, extra | request.scratch)

    @staticmethod
    def speaks(kind: str, value: Mapping[str, Any]) -> bool:
        return kind in ("system", "assistant", "user", "result") and "session_id" in value

    @staticmethod
    def events(kind: str, value: Mapping[str, Any]) -> list[Event]:
        match kind:
            case "system":
                return _system(value)
            case "assistant":
                return _assistant(value)
            case "user":
                return _user(value)
            case "rate_limit_event":
                return _limit(as_dict(value.get("rate_limit_info")))
            case "result":
                return _result(value)
            case _:
                return []

    def report(self, run: Reading) -> AgentReport:
        """A resumed session's total goes on in some versions, without saying what is new in it."""
        parsed, before = run.parsed, run.request.previous_thread_usage
        resumed = bool(parsed.session_id) and parsed.session_id == run.request.session_id
        own, total = parsed.tokens.get("result"), parsed.total
        if resumed and before is not None and own is not None and total is not None:
            least = Usage.of(before, own)
            if (
                total.input_tokens >= least.input_tokens
                and total.output_tokens >= least.output_tokens
            ):
                parsed.total = _less(total, before)
        report = CliAgent.report(self, run)
        known = [usage for usage in (before if resumed else None, report.usage) if usage]
        return dataclasses.replace(report, thread_usage=Usage.of(*known) if known else None)

    def _sandboxed(self) -> bool:
        """Whether commands are to run in the sandbox that Claude has on Linux."""
        return self.config.mode != "bypass" and sys.platform.startswith("linux")

    def lacking(self, environment: Mapping[str, str]) -> tuple[str, str]:
        if not self._sandboxed():
            return "", ""
        seen = self.environment(environment, "/", {})
        path = seen["PATH"]
        needed = {"bwrap": "bubblewrap", "socat": "socat"}
        packages = [
            package for name, package in needed.items() if not shutil.which(name, path=path)
        ]
        if not packages:
            return _shell_flaw(seen.get(SHELL, ""), path)
        what = (
            f"without {' and '.join(packages)} claude has no sandbox: it refuses tests, builds and "
            "every other command that is not plainly harmless"
        )
        return what, (
            f"sudo apt-get install {' '.join(packages)}; or allow what is needed: "
            '[agents.claude] args = ["--allowedTools", "Bash(pytest:*)"]'
        )

    def login(self, environment: Mapping[str, str]) -> str:
        for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"):
            if environment.get(name):
                return fingerprint(environment[name])
        chosen = environment.get("CLAUDE_CONFIG_DIR")
        return os.path.realpath(chosen) if chosen else real_home(environment, ".claude")

    def logged_in(
        self, program: str, environment: Mapping[str, str]
    ) -> tuple[bool | None, str, str]:
        code, said = ask([program, "auth", "status"], environment)
        status = decode(said)
        if status is None:
            return None, f"`claude auth status` was not understood (exit code {code})", self.log_in
        if status.get("loggedIn") is True:
            return True, f"logged in ({as_text(status.get('authMethod')) or 'method unknown'})", ""
        return False, "not logged in", self.log_in


def _shell_flaw(chosen: str, path: str) -> tuple[str, str]:
    none_better = shutil.which("zsh", path=path) and not shutil.which("bash", path=path)
    if "zsh" not in os.path.basename(chosen) and not none_better:
        return "", ""
    what = "versions of claude such as 2.1.197 run the commands of a zsh outside of their sandbox"
    return what, f"install bash, and set {SHELL} to no zsh"


# --- the event stream of `--output-format stream-json`


def _system(value: Mapping[str, Any]) -> list[Event]:
    match value.get("subtype"):
        case "init":
            ident, model = as_text(value.get("session_id")), as_text(value.get("model"))
            session = Event(EventKind.SESSION, f"session {ident}, {model}", ident, model)
            return [session, Event(EventKind.TURN)]
        case "api_retry":
            status, code = as_int(value.get("error_status")), as_text(value.get("error"))
            tries = f"{as_int(value.get('attempt'))}/{as_int(value.get('max_retries'))}"
            text = f"retry {tries}: {code or 'error'}"
            message = f"{text}, status {status}" if status else text
            return [Event(EventKind.RETRY, text, error=ErrorFacts(message, code, status))]
        case _:
            return []


def _assistant(value: Mapping[str, Any]) -> list[Event]:
    message = as_dict(value.get("message"))
    blocks = [as_dict(block) for block in as_list(message.get("content"))]
    if message.get("model") == "<synthetic>" or value.get("error"):  # the CLI's own words
        texts = [text for block in blocks if (text := as_text(block.get("text")))]
        said = "\n".join(texts)
        status = as_int(value.get("api_error_status")) or status_in(said)
        told = as_dict(as_dict(value.get("api_error_params")).get("rate_limit_info"))
        error = ErrorFacts(said, as_text(value.get("error")), status, _reset(told))
        asides = [Event(EventKind.ASIDE, text) for text in texts]
        return [*asides, Event(EventKind.NOTE, error=error)]
    events: list[Event] = []
    if message.get("usage"):
        usage = _usage(as_dict(message.get("usage")))
        events.append(Event(EventKind.TOKENS, ident=as_text(message.get("id")), usage=usage))
    inner = value.get("parent_tool_use_id") is not None  # a sub-agent's words are not the answer
    for block in blocks:
        match block.get("type"):
            case "text":
                text = as_text(block.get("text"))
                if inner:
                    events += [Event(EventKind.THINKING), Event(EventKind.ASIDE, text)]
                else:
                    events.append(Event(EventKind.MESSAGE, text))
            case "tool_use":
                tool, text = tool_call(as_text(block.get("name")), as_dict(block.get("input")))
                ident = as_text(block.get("id"))
                events.append(Event(EventKind.TOOL_STARTED, text, ident, tool=tool))
            case "server_tool_use":
                events.append(Event(EventKind.TOOL_STARTED, ident=as_text(block.get("id"))))
            case _:
                events.append(Event(EventKind.THINKING))
    return events


def _user(value: Mapping[str, Any]) -> list[Event]:
    events: list[Event] = []
    for block in map(as_dict, as_list(as_dict(value.get("message")).get("content"))):
        if block.get("type") != "tool_result":
            continue
        ident, output = as_text(block.get("tool_use_id")), _output(block.get("content"))
        if block.get("is_error") is True:
            error = ErrorFacts(output)
            events.append(Event(EventKind.TOOL_ENDED, ident=ident, ok=False, error=error))
            events += sandbox_broken(as_text(block.get("content")))
        else:
            events.append(Event(EventKind.TOOL_ENDED, ident=ident, output=output))
    done = as_dict(value.get("tool_use_result"))
    if done.get("type") in ("create", "update") or "structuredPatch" in done:
        events.append(Event(EventKind.CHANGED, as_text(done.get("filePath"))))
    return events


def _output(content: object) -> str:
    """A tool's output: a text, or a list of blocks of which some hold text."""
    if not isinstance(content, list):
        return as_words(content)
    return "\n".join(as_words(as_dict(block).get("text")) for block in content)


def _limit(info: dict[str, Any]) -> list[Event]:
    reset = _reset(info)
    if info.get("status") != "rejected" or reset is None:
        return []
    return [Event(EventKind.LIMIT, error=ErrorFacts(reset_at=reset))]


def _reset(info: dict[str, Any]) -> float | None:
    return float(as_int(info.get("resetsAt"))) or None


def _result(value: Mapping[str, Any]) -> list[Event]:
    events = [Event(EventKind.SESSION, ident=as_text(value.get("session_id")))]
    events += _spent(value)
    text, subtype = as_text(value.get("result")), as_text(value.get("subtype"))
    if value.get("is_error") is True or subtype != "success":
        errors = value.get("errors")
        said = text or "; ".join(map(as_text, as_list(errors))) or subtype
        codes = map(as_text, (value.get("api_error"), value.get("api_error_type")))
        api = next((code for code in codes if by_code(code)), "")
        code = api if subtype in ("success", "error_during_execution") else subtype
        status = as_int(value.get("api_error_status")) or status_in(said)
        shown = text or as_words(errors or subtype)
        events.append(Event(EventKind.FAILED, shown, error=ErrorFacts(said, code, status)))
    else:
        structured = value.get("structured_output")
        answer = text if structured is None else json.dumps(structured, ensure_ascii=False)
        cost = money(as_number(value.get("total_cost_usd")))
        used = spent(as_dict(value.get("usage")))
        done = Event(EventKind.DONE, f"done, {cost}, {used}" if used else f"done, {cost}")
        events += [Event(EventKind.ANSWER, answer), done]
    for denial in map(as_dict, as_list(value.get("permission_denials"))):
        name, given = as_text(denial.get("tool_name")), as_dict(denial.get("tool_input"))
        events.append(Event(EventKind.REFUSED, _refused_text(name, given)))
        events.append(Event(EventKind.NOTE, f"not permitted: {name}"))
    return events


def _refused_text(name: str, given: dict[str, Any]) -> str:
    for key in ("command", "file_path", "notebook_path", "pattern", "query", "url", "description"):
        if as_text(given.get(key)):
            where = f" in {given['path']}" if as_text(given.get("path")) else ""
            return f"{name}: {as_text(given[key])}{where}"
    return name


def _usage(usage: dict[str, Any]) -> Usage:
    """Claude's input tokens leave cached ones out; ours include them."""
    cached = as_int(usage.get("cache_read_input_tokens"))
    written = as_int(usage.get("cache_creation_input_tokens"))
    return Usage(
        as_int(usage.get("input_tokens")) + cached + written,
        cached,
        as_int(usage.get("output_tokens")),
    )


def _spent(value: Mapping[str, Any]) -> list[Event]:
    """What a result says of usage: since the last one where it tells, else its total."""
    since = as_dict(value.get("model_usage_since_last_result"))
    if since:
        models = [as_dict(one) for one in since.values()]
        costs = [cost for one in models if (cost := as_cost(one.get("costUSD"))) is not None]
        return [Event(EventKind.SPENT, usage=_sum(models, sum(costs) if costs else None))]
    cost = as_cost(value.get("total_cost_usd"))
    main = _usage(as_dict(value.get("usage")))
    models = [as_dict(one) for one in as_dict(value.get("modelUsage")).values()]
    if not models:
        return [Event(EventKind.TOTAL, usage=dataclasses.replace(main, cost_usd=cost))]
    # The main model's part tells whether a resumed session's total is of the run alone.
    own = Event(EventKind.TOKENS, ident="result", usage=main)
    return [Event(EventKind.TOTAL, usage=_sum(models, cost)), own]


def _sum(models: list[dict[str, Any]], cost: float | None) -> Usage:
    """All models, sub-agents too."""

    def total(key: str) -> int:
        return sum(as_int(one.get(key)) for one in models)

    cached = total("cacheReadInputTokens")
    fresh = total("inputTokens") + total("cacheCreationInputTokens")
    return Usage(fresh + cached, cached, total("outputTokens"), cost)


def _less(total: Usage, before: Usage) -> Usage:
    cost = total.cost_usd
    if cost is not None and before.cost_usd is not None:
        cost = max(0.0, cost - before.cost_usd)
    return Usage(
        total.input_tokens - before.input_tokens,
        max(0, total.cached_input_tokens - before.cached_input_tokens),
        total.output_tokens - before.output_tokens,
        cost,
    )
