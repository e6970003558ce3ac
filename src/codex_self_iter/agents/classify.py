"""Why a run failed. Pure.

Order of belief: how the run ended (what we did to it comes first), then what the CLI itself names
(its own error code, an HTTP status), then prose, then the exit code. Tables before code."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping

from codex_self_iter.agents.reset_time import believable, parse_reset
from codex_self_iter.agents.stream import ErrorFacts, Parsed
from codex_self_iter.core.agent_report import Failure, FailureClass
from codex_self_iter.core.runs import EndCause, RunOutcome

_MESSAGE_CHARS = 500
_PROSE_CHARS = 8_000
"""The end of a text in which a class is looked for; a sentence of a CLI is short."""
# A crash is the agent's fault; any other signal that we did not send came from outside.
# Programs that catch a signal, and shells, exit with 128 + its number.
_SIGNAL_EXITS = {129: 1, 130: 2, 137: 9, 143: 15}

# A shell's "cannot be executed" and "not found": of the program itself, or of the `node` that it
# needs.
_NOT_RUN_EXITS = (126, 127)

_HTTP: Mapping[int, FailureClass] = {
    401: FailureClass.AUTH,
    402: FailureClass.LIMIT,
    403: FailureClass.AUTH,
    404: FailureClass.CONFIG,
    408: FailureClass.NETWORK,
    413: FailureClass.CONTEXT,
    429: FailureClass.LIMIT,
    529: FailureClass.OVERLOAD,
}

# First match wins. Every phrase is one that an error has and a program's ordinary output has not.
_PHRASES: Mapping[FailureClass, tuple[str, ...]] = {
    FailureClass.MEMORY: (
        r"heap out of memory",
        r"cannot allocate memory",
        r"\bENOMEM\b",
        r"memory allocation of \d+ bytes failed",
    ),
    FailureClass.CONTEXT: (
        r"context[ _-]?(window|length)",
        r"(prompt|input|conversation|request) is too (long|large)",
        r"ran out of room",
        r"input_too_large|request_too_large",
        r"maximum (context|number of tokens)",
        r"exceeds? the maximum number of tokens",
        # A session that cannot be gone on with; a fresh one can.
        r"no (conversation|rollout) found",
        r"(session|thread|conversation)[^.\n]{0,80}not found",
        r"invalid session identifier|error resuming session",
        r"already has an active writer",
        r"session id .{0,60}already in use",
    ),
    FailureClass.LIMIT: (
        r"usage[ _]limit",
        r"rate[ _-]?limit",
        r"hit your [^.\n]{0,40}limit",
        r"limit reached",
        r"too many requests|resource_exhausted",
        r"quota",
        r"credit balance|insufficient[ _](credits|funds|balance)",
        r"billing[ _](error|hard)",
        r"status:? 429|\(429\)",
    ),
    FailureClass.AUTH: (
        r"status:? 40[13]\b|\b403 forbidden|api error: 40[13]\b|\"code\": ?40[13]\b",
        r"\bunauthori[sz]ed\b|\bunauthenticated\b|permission_denied",
        r"not logged in|please (run )?[^\n]{0,20}/?log ?in",
        r"(invalid|incorrect) (x-)?api[ _-]?key",
        r"api[ _-]?key (is )?(missing|required|not (set|found|valid))",
        r"authentication[ _](failed|error|required)|failed to authenticate",
        r"(oauth|access|refresh) token [^.\n]{0,40}(expired|revoked|invalid|could not)",
        r"set an auth method|invalid auth method",
    ),
    FailureClass.CONFIG: (
        r"model[^.\n]{0,80}(does not exist|not found|not supported|is not available)",
        r"model_?not_?found|unknown model",
        r"unexpected argument|(unknown|unrecognized) (option|argument)",
        r"invalid value .{0,80} for '",
        r"not (inside|running in) a trusted directory|untrusted (folder|workspace|directory)",
        r"missing environment variable",
        r"error loading config|invalid_json_schema",
    ),
    FailureClass.OVERLOAD: (
        r"overloaded|at capacity|high demand",
        r"internal[ _]server[ _]error|bad gateway|gateway time-?out",
        r"service unavailable|temporarily unavailable|\bUNAVAILABLE\b",
        r"status:? 5\d\d\b|api error: 5\d\d\b",
    ),
    FailureClass.NETWORK: (
        r"stream (disconnected|closed|ended)",
        r"connection (refused|reset|error|closed|aborted|failed|timed out)",
        r"ECONN(REFUSED|RESET|ABORTED)|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EPIPE|E(HOST|NET)UNREACH",
        r"waiting for network|network (error|is unreachable)",
        r"fetch failed|socket hang up|error sending request|unable to connect",
        r"name resolution|could not resolve|dns error|tls handshake",
        r"request timed out|(empty|malformed) response",
    ),
    FailureClass.SANDBOX: (
        r"\bbwrap: |\blandlock\b|\bseccomp\b",
        r"sandbox[^.\n]{0,60}(denied|failed|error|not (available|supported|permitted))",
    ),
}
_PROSE = {kind: re.compile("|".join(phrases), re.IGNORECASE) for kind, phrases in _PHRASES.items()}

_ERROR_LINE = re.compile(r"([\w.]*error|fatal|panic)\b", re.IGNORECASE)

_LABEL: Mapping[EndCause, str] = {
    EndCause.WALL_TIMEOUT: "ended after its longest allowed time",
    EndCause.IDLE_TIMEOUT: "ended after showing no sign of life",
}


def classify(
    parsed: Parsed,
    outcome: RunOutcome,
    stderr_tail: str,
    now: float,
    tz: datetime.tzinfo | None = None,
    *,
    codes: Mapping[str, FailureClass] | None = None,
    final_event: bool = False,
    account: str = "",
) -> Failure | None:
    """Say why a run failed; None when it did what it should.

    Args:
        stderr_tail: the end of what it wrote to stderr; believed only when the run failed.
        now, tz: for reset times in prose.
        codes: the CLI's own error codes and what they mean; they go before everything else it says.
        final_event: this CLI ends every good run with a final event, so that one without is not
            good.
        account: put into the failure."""
    resets: tuple[FailureClass, ...] = (FailureClass.LIMIT,)
    said = ""
    if ended_by := _from_cause(parsed, outcome):
        kind, message = ended_by
        error = parsed.retry or parsed.error or ErrorFacts()
    elif outcome.cause is EndCause.EXIT and _failed(parsed, outcome, final_event):
        kind, message, error = _from_exit(parsed, outcome, stderr_tail, codes or {})
        resets, said = (FailureClass.LIMIT, FailureClass.OVERLOAD), message
    else:
        return None
    reset = _reset(parsed, error, said, now, tz) if kind in resets else None
    return Failure(kind, one_line(message), reset, account)


def by_text(text: str) -> FailureClass | None:
    """The class that prose names, or None."""
    text = text[-_PROSE_CHARS:]
    return next((kind for kind, pattern in _PROSE.items() if pattern.search(text)), None)


def by_status(status: int) -> FailureClass | None:
    """The class that an HTTP status stands for, or None."""
    return _HTTP.get(status) or (FailureClass.OVERLOAD if 500 <= status < 600 else None)


def one_line(text: str, limit: int = _MESSAGE_CHARS) -> str:
    """The text on one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _failed(parsed: Parsed, outcome: RunOutcome, final_event: bool) -> bool:
    if outcome.signal is not None or outcome.exit_code != 0:
        return True
    return not parsed.ok if parsed.ended else final_event


def _from_cause(parsed: Parsed, outcome: RunOutcome) -> tuple[FailureClass, str] | None:
    """What follows from how the run ended alone."""
    match outcome.cause:
        case EndCause.SPAWN_FAILED:
            kind = FailureClass.CONFIG if outcome.argv0_missing else FailureClass.AGENT
            return kind, f"could not be started: {outcome.error or 'unknown reason'}"
        case EndCause.MEMORY:
            return FailureClass.MEMORY, "ended because it used more memory than allowed"
        case EndCause.REQUEST:
            return FailureClass.KILLED, "ended on request"
        case EndCause.LOST:
            return FailureClass.KILLED, "it was gone and had left no exit status"
        case EndCause.WALL_TIMEOUT | EndCause.IDLE_TIMEOUT:
            return _from_timeout(parsed, outcome)
        case _:
            return None


def _from_timeout(parsed: Parsed, outcome: RunOutcome) -> tuple[FailureClass, str]:
    """A run that waited for its model is not at fault; one that was at work is."""
    label = f"{_LABEL[outcome.cause]} ({outcome.duration_sec:.0f} s)"
    if parsed.retry is not None:
        kind = _by_error(parsed.retry, {}) or FailureClass.NETWORK
        if kind not in (FailureClass.LIMIT, FailureClass.OVERLOAD, FailureClass.AUTH):
            kind = FailureClass.NETWORK
        return kind, f"{label} while it was retrying: {parsed.retry.message}"
    silent = parsed.turn_open and not parsed.open_tools
    if silent and (outcome.cause is EndCause.IDLE_TIMEOUT or not parsed.moved):
        return FailureClass.NETWORK, f"{label} without an answer from its model"
    return FailureClass.AGENT, label


def _from_exit(
    parsed: Parsed, outcome: RunOutcome, stderr_tail: str, codes: Mapping[str, FailureClass]
) -> tuple[FailureClass, str, ErrorFacts]:
    error = parsed.error or parsed.retry or ErrorFacts()
    # A final event that reports success with an exit code that does not: stderr is then what the
    # tools wrote, and its prose is not about this run.
    said = error.message or (last_words(stderr_tail) if not parsed.ok else "")
    label = _exit_label(parsed, outcome)
    message = f"{label}: {said}" if said else label
    signal = outcome.signal
    if signal is None:
        signal = _SIGNAL_EXITS.get(outcome.exit_code or 0)
    kind = _by_error(error, codes)
    if kind is None and not parsed.ok:
        kind = by_text(_last_lines(stderr_tail, 20))
    if signal is not None and not parsed.ended and kind is not FailureClass.MEMORY:
        # Not our signal, and what it said before is not why it ended: taken for a limit or a lost
        # network it would be waited for, and an agent that always ends like this would run for
        # ever. Only memory explains it: the kernel kills when there is none left, node aborts.
        kind = FailureClass.AGENT
    # 126 and 127 are the agent's own codes as well, unless it said nothing at all.
    if kind is None and outcome.exit_code in _NOT_RUN_EXITS and not parsed.events:
        kind = FailureClass.CONFIG
    return kind or FailureClass.AGENT, message, error


def _by_error(error: ErrorFacts, codes: Mapping[str, FailureClass]) -> FailureClass | None:
    if error.code in codes:
        return codes[error.code]
    prose = by_text(error.message) if error.message else None
    if prose is FailureClass.CONTEXT:
        return prose  # a 400 or a 413 whose text says what it really is
    return by_status(error.http_status) or prose


def _reset(
    parsed: Parsed, error: ErrorFacts, message: str, now: float, tz: datetime.tzinfo | None
) -> float | None:
    for exact in (error.reset_at, parsed.limit_at):
        if (at := believable(exact, now)) is not None:
            return at
    return parse_reset(error.message, now, tz) or parse_reset(message, now, tz)


def _exit_label(parsed: Parsed, outcome: RunOutcome) -> str:
    if outcome.signal is not None:
        return f"ended by signal {outcome.signal}"
    if outcome.exit_code:
        return f"exit code {outcome.exit_code}"
    return "reported an error" if parsed.ended else "ended without a final event"


def last_words(text: str) -> str:
    """What went wrong, in a program's words: the last line that calls itself an error, else the
    end."""
    lines = _last_lines(text, 20).splitlines()
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    return errors[-1] if errors else "\n".join(lines[-3:])


def _last_lines(text: str, count: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:])
