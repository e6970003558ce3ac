"""The codex CLI (`@openai/codex`): `codex exec --json`.

What decides the shape of this adapter, as measured with 0.169.0 and 0.171.0: the default sandbox is read-only,
so one is always named; `-o` keeps an old file's content, so its path is fresh; usage counts by
thread; the event stream names no error class, the thread's rollout does; all of `exec`'s flags go
before `resume`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
import tomllib
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
from codex_self_iter.agents.failure_table import status_in
from codex_self_iter.agents.pricing import priced
from codex_self_iter.agents.probe import ask
from codex_self_iter.agents.rollout import Turn, read_turn, usage_of
from codex_self_iter.agents.stream import (
    ErrorFacts,
    Event,
    EventKind,
    Parsed,
    Tool,
    edited,
    spent,
)
from codex_self_iter.core.agent_report import AgentReport, Usage
from codex_self_iter.core.foreign import as_dict, as_list, as_text, as_words
from codex_self_iter.core.runs import RunOutcome
from codex_self_iter.world.guarded import read_guarded

_MAX_CONFIG = 4 * 1024 * 1024
_PATCH_REJECTED = re.compile(r"patch rejected: ([^\n]+)")


class CodexAgent(CliAgent):
    """Runs and reads codex."""

    name = "codex"
    program = "codex"
    package = "@openai/codex"
    log_in = "codex login"
    known_versions = VersionRange("0.169.0", "0.171.0")
    needed = ("CODEX_*", "OPENAI_*")
    home_variable = "CODEX_HOME"

    def chosen(self, environment: Mapping[str, str]) -> str:
        """The configured program, else CODEX_BIN."""
        return self.config.binary or environment.get("CODEX_BIN", "")

    def home(self, environment: Mapping[str, str]) -> str:
        """Real path of CODEX_HOME as the agent will see it."""
        chosen = self.seen(environment).get("CODEX_HOME")
        return os.path.realpath(chosen) if chosen else real_home(self.seen(environment), ".codex")

    def prepare(self, request: Request) -> Invocation:
        program = self.find(request.environment)
        files: dict[str, str] = {}
        argv = [program, "exec", "--json", *self._sandbox(request)]
        argv += ["-C", request.workspace, "--color", "never"]
        if not git_directories(request.workspace):
            argv.append("--skip-git-repo-check")
        argv += ["-c", "features.plugins=false", *self._model(request)]
        argv += ["-o", os.path.join(request.directory, "answer.txt")]
        if request.schema is not None:
            schema_path = os.path.join(request.directory, "schema.json")
            # the strict form of its server takes no field that may be left out
            strict = {**request.schema, "required": list(request.schema.get("properties", ()))}
            files[schema_path] = json.dumps(strict, indent=1)
            argv += ["--output-schema", schema_path]
        argv += self.config.args
        argv += ["resume", request.session_id, "-"] if request.session_id else ["-"]
        env = self.environment(request.environment, program, request.scratch)
        return Invocation(tuple(argv), env, request.prompt_path, files)

    def _sandbox(self, request: Request) -> list[str]:
        if self.config.mode == "bypass":
            return ["--dangerously-bypass-approvals-and-sandbox"]
        if request.read_only:
            return ["-s", "read-only"]
        flags = ["-s", "workspace-write"]
        if self.config.fenced:  # it would put mount points into /tmp, and do nothing without them
            flags += ["-c", "sandbox_workspace_write.exclude_slash_tmp=true"]
        roots = git_directories(request.workspace) if request.commit_by_agent else []
        if roots:  # the sandbox keeps .git read-only otherwise
            flags += ["-c", f"sandbox_workspace_write.writable_roots={json.dumps(roots)}"]
        return flags

    def _model(self, request: Request) -> list[str]:
        flags = ["-m", self.model(request)] if self.model(request) else []
        if self.config.effort:
            flags += ["-c", f"model_reasoning_effort={json.dumps(self.config.effort)}"]
        return flags

    def also_needed(self, ours: Mapping[str, str]) -> Iterable[str]:
        """The variables that the configured providers take their keys from."""
        path = os.path.join(self.home(ours), "config.toml")
        try:
            providers = as_dict(_toml(path).get("model_providers"))
        except (OSError, ValueError):
            providers = {}
        for provider in providers.values():
            yield as_text(as_dict(provider).get("env_key"))
            yield from map(as_text, as_dict(as_dict(provider).get("env_http_headers")).values())
        yield from re.findall(r"env_key\s*=\s*[\"']?(\w+)", "\n".join(self.config.args))

    @staticmethod
    def speaks(kind: str, _value: Mapping[str, Any]) -> bool:
        return kind.startswith(("thread.", "turn.", "item."))

    @staticmethod
    def events(kind: str, value: Mapping[str, Any]) -> list[Event]:
        match kind:
            case "thread.started":
                thread = as_text(value.get("thread_id"))
                return [Event(EventKind.SESSION, f"thread {thread}", thread)]
            case "turn.started":
                return [Event(EventKind.TURN)]
            case "item.started" | "item.updated" | "item.completed":
                return _item(as_dict(value.get("item")), kind.removeprefix("item."))
            case "turn.completed":
                total = as_dict(value.get("usage"))
                done = Event(EventKind.DONE, f"done, thread total {spent(total)}")
                return [*([Event(EventKind.TOTAL, usage=usage_of(total))] if total else []), done]
            case "turn.failed":
                return [_error(EventKind.FAILED, as_dict(value.get("error")))]
            case "error":
                retrying = as_text(value.get("message")).startswith("Reconnecting")
                return [_error(EventKind.RETRY if retrying else EventKind.NOTE, value)]
            case _:
                return []

    def report(self, run: Reading) -> AgentReport:
        """Add what only the rollout, `-o`'s file and stderr tell."""
        request, parsed, files = run.request, run.parsed, run.files
        turn = self._turn(request, run.outcome, parsed)
        if turn is not None:
            _add_rollout(parsed, turn)
        if parsed.ended and parsed.ok and not parsed.message:
            parsed.message = files.read_tail("answer.txt")
        for rejected in _PATCH_REJECTED.findall(files.read_tail("stderr.log", 64 * 1024)):
            parsed.refused.setdefault(f"patch rejected: {rejected}")
        report = CliAgent.report(self, run)
        thread = parsed.total
        if thread is None:
            return report
        usage = _of_this_run(thread, _before(request, parsed, turn))
        return dataclasses.replace(
            report, thread_usage=thread, usage=priced(usage, report.model, self.config.prices)
        )

    def _turn(self, request: Request, outcome: RunOutcome, parsed: Parsed) -> Turn | None:
        if not parsed.session_id:
            return None
        resumed = parsed.session_id == request.session_id
        not_before = outcome.started_at if resumed else 0.0
        return read_turn(self.home(request.environment), parsed.session_id, not_before)

    def login(self, environment: Mapping[str, str]) -> str:
        key = environment.get("CODEX_API_KEY")
        return fingerprint(key) if key else self.home(environment)

    def logged_in(
        self, program: str, environment: Mapping[str, str]
    ) -> tuple[bool | None, str, str]:
        if environment.get("CODEX_API_KEY"):
            return True, "key from CODEX_API_KEY", ""
        if self._custom_provider(environment):
            return None, "a provider of your own is configured: its login is not checked", ""
        code, said = ask([program, "login", "status"], environment)
        line = said.splitlines()[-1] if said else ""
        for one in said.splitlines():
            line = one if "ogged in" in one else line
        if code == 0:
            return True, line or "logged in", ""
        if "not logged in" in said.lower():
            return False, "not logged in", self.log_in
        return None, f"`codex login status` said: {line or 'nothing'}", self.log_in

    def sandbox_flaw(self, environment: Mapping[str, str]) -> tuple[str, str]:
        program = self.find(environment)
        if self.config.image:
            return "", ""
        clean = self.environment(environment, program, {})
        with tempfile.TemporaryDirectory() as own:  # as each run has one
            given = {**clean, "TMPDIR": self.config.env.get("TMPDIR", own)}
            _, said = ask([program, "sandbox", "--", "true"], given)
        if not sandbox_broken(said):
            return "", ""
        return said.splitlines()[-1], (
            "allow unprivileged user namespaces, keep codex's home out of the temporary directory, "
            'or set agent_mode = "bypass" in a container'
        )

    def _custom_provider(self, environment: Mapping[str, str]) -> bool:
        try:
            path = os.path.join(self.home(environment), "config.toml")
            provider = as_text(_toml(path).get("model_provider"))
        except (OSError, ValueError):
            provider = ""
        for value in re.findall(
            r"^model_provider\s*=\s*[\"']?([\w-]+)", "\n".join(self.config.args), re.M
        ):
            provider = value
        return provider not in ("", "openai")


def _toml(path: str) -> dict[str, object]:
    """A configuration file of codex. Raises OSError, ValueError."""
    return tomllib.loads(read_guarded(path, _MAX_CONFIG, follow=True).decode())


def git_directories(workspace: str) -> list[str]:
    """The git directories of the work tree around `workspace`: its own, and the common one of a
    linked work tree; [] outside of one. Read from the files, so that nothing has to be started."""
    directory = os.path.realpath(workspace)
    while True:
        marker = os.path.join(directory, ".git")
        # A sandbox that was killed leaves an empty `.git` behind, in the temporary directory too.
        if os.path.isfile(os.path.join(marker, "HEAD")):
            return [marker]
        if os.path.isfile(marker) and (linked := _linked(marker)):
            return linked
        parent = os.path.dirname(directory)
        if parent == directory:
            return []
        directory = parent


def _linked(marker: str) -> list[str]:
    line = _first_line(marker)
    own = line.removeprefix("gitdir:").strip()
    if own == line:
        return []
    own = os.path.normpath(os.path.join(os.path.dirname(marker), own))
    common = _first_line(os.path.join(own, "commondir"))
    return [own, os.path.normpath(os.path.join(own, common))] if common else [own]


def _first_line(path: str) -> str:
    try:
        line = read_guarded(path, 4096, follow=True).partition(b"\n")[0]
        return os.fsdecode(line).strip()
    except OSError:
        return ""


def _add_rollout(parsed: Parsed, turn: Turn) -> None:
    parsed.model = turn.model or parsed.model
    parsed.total = parsed.total or turn.after
    parsed.limit_ends = list(turn.limit_ends)
    if turn.code or turn.http_status:
        last = parsed.error or ErrorFacts()
        parsed.error = ErrorFacts(
            last.message or turn.message, turn.code, turn.http_status or last.http_status
        )


def _before(request: Request, parsed: Parsed, turn: Turn | None) -> Usage | None:
    """The thread's totals before this run: None for a fresh thread."""
    if parsed.session_id != request.session_id:
        return None
    return request.previous_thread_usage or (turn.before if turn else None)


def _of_this_run(thread: Usage, before: Usage | None) -> Usage:
    if before is None:
        return thread
    difference = Usage(
        thread.input_tokens - before.input_tokens,
        thread.cached_input_tokens - before.cached_input_tokens,
        thread.output_tokens - before.output_tokens,
    )
    # A count that went down began anew.
    if min(difference.input_tokens, difference.cached_input_tokens, difference.output_tokens) < 0:
        return thread
    return difference


# --- the event stream of `codex exec --json`


def _error(kind: EventKind, error: Mapping[str, Any]) -> Event:
    message = as_text(error.get("message"))
    return Event(kind, message, error=ErrorFacts(message, http_status=status_in(message)))


def _item(item: dict[str, Any], stage: str) -> list[Event]:
    kind, completed = as_text(item.get("type")), stage == "completed"
    if kind == "agent_message":
        return [Event(EventKind.MESSAGE, as_text(item.get("text")))] if completed else []
    if kind == "reasoning":
        return [Event(EventKind.THINKING)]
    if kind == "error":
        return [Event(EventKind.NOTE, as_text(item.get("message")))] if completed else []
    if kind in ("todo_list", ""):
        return []
    if completed:
        return _tool_ended(kind, item)
    # Of a tool that is no command only the end is told: then it has its files, or its query.
    command = as_text(item.get("command")) if kind == "command_execution" else ""
    call = Event(EventKind.TOOL_STARTED, command, as_text(item.get("id")), tool=Tool.COMMAND)
    return [call] if stage == "started" else []


def _tool_ended(kind: str, item: dict[str, Any]) -> list[Event]:
    ident, status = as_text(item.get("id")), as_text(item.get("status"))
    ok = status not in ("failed", "declined")
    changes = [as_dict(change) for change in as_list(item.get("changes"))]
    paths = [as_text(change.get("path")) for change in changes]
    output = as_text(item.get("aggregated_output"))
    tool, text, ended = Tool.OTHER, "", ""
    if kind == "command_execution":
        tool, text = Tool.COMMAND, as_text(item.get("command"))
        ended = as_words(item.get("exit_code")) or status
    elif kind == "file_change":
        lines = [edited(as_text(one.get("kind")), as_text(one.get("path"))) for one in changes]
        tool, text = Tool.EDIT, "\n".join(lines)
    elif kind == "web_search":
        text = f"searched the web: {as_text(item.get('query'))}"
    events = [Event(EventKind.TOOL_ENDED, text, ident, "", tool, output, ended, ok)]
    if kind == "file_change" and ok:
        events += [Event(EventKind.CHANGED, path) for path in paths]
    if not ok and (broken := sandbox_broken(output)):
        return [*events, *broken]
    if status == "declined" or output.startswith("rejected"):
        what = _refused_text(kind, item, paths)
        events.append(Event(EventKind.REFUSED, f"{what}: {output.strip() or 'declined'}"))
    return events


def _refused_text(kind: str, item: dict[str, Any], paths: list[str]) -> str:
    if kind == "file_change":
        return "edit " + ", ".join(paths)
    names = (as_text(item.get(key)) for key in ("command", "query", "tool"))
    return next(filter(None, names), kind)
