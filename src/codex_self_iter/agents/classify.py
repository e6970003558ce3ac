"""Why a run failed. Pure.

Order of belief: how the run ended (what we did to it comes first), then what the CLI says as an
error (its code, an HTTP status, its words), then the exit code; last, and only as a guess, what a
run printed that did no work. The table is in `failure_table`."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping

from codex_self_iter.agents.failure_table import (
    by_body,
    by_code,
    by_phrase,
    by_sentence,
    by_status,
    mend_of,
)
from codex_self_iter.agents.reset_time import believable, parse_reset
from codex_self_iter.agents.run_files import LINE_BYTES
from codex_self_iter.agents.stream import ErrorFacts, Parsed
from codex_self_iter.core.agent_report import SEEN_CHARS, Failure, FailureClass, not_started
from codex_self_iter.core.foreign import as_dict, as_text, decode_at
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.core.text import clean_block, one_line

# A crash is the agent's fault; any other signal that we did not send came from outside.
# Programs that catch a signal, and shells, exit with 128 + its number.
_SIGNAL_EXITS = {129: 1, 130: 2, 137: 9, 143: 15}

# A shell's "cannot be executed" and "not found": of the program itself, or of the `node` that it
# needs.
_NOT_RUN_EXITS = (126, 127)

_ERROR_LINE = re.compile(r"([\w.]*error|fatal|panic)\b", re.IGNORECASE)

# What runtimes add below an error: warnings, hints, stack traces, codex's count of tokens.
_NOISE = re.compile(
    r"\(node:\d+\)|\(Use `node |at |\^+$|node:internal|Node\.js v|tokens used|[\d,.]+$"
    r"|\(?warning\b|npm (warn|notice)|deprecat|Require stack:|[{}\])(;,]+$"
    # Notices of a new version, also in boxes; that it will be tried again.
    r"|\W{0,4}(update available|a new (version|release)|retrying in \d)|[╭╮╰╯│┌┐└┘╔╗╚╝║]",
    re.IGNORECASE,
)
_PAGE = re.compile(r"(?:<!doctype html[^<>]*>\s*)?<html\b", re.IGNORECASE)
_TITLE = re.compile(r"<title>([^<>\n]*)</title>", re.IGNORECASE)
_SHELL = re.compile(r"Terminated(: 15)?$")
"""What a shell prints of a child that got our SIGTERM; a broken stream is `terminated`."""
_STAMPED = re.compile(r"limit reached\|\d{10}$")
"""A limit with its end in Unix seconds is written for programs: no guess."""
_BY_ITSELF = (EndCause.EXIT, EndCause.LINGERED)
_WRAPPED = 3
"""So often is an error body put into the message of another one."""
_SAME_END_SEC = 120.0
"""A time in words is cut to the minute; a window that ends so near to it is the same."""

_LABEL: Mapping[EndCause, str] = {
    EndCause.WALL_TIMEOUT: "ended after its longest allowed time",
    EndCause.IDLE_TIMEOUT: "ended after showing no sign of life",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Printed:
    """What a run printed beside its events: the ends of both streams, as text."""

    stderr: str = ""
    stdout: str = ""


def classify(
    parsed: Parsed,
    outcome: RunOutcome,
    printed: Printed,
    now: float,
    tz: datetime.tzinfo | None = None,
    *,
    final_event: bool = False,
    account: str = "",
    log_in: str = "",
) -> Failure | None:
    """Say why a run failed; None when it did what it should.

    Args:
        printed: believed only when the run failed without having done any work.
        now, tz: for reset times in prose.
        final_event: this CLI ends every good run with a final event, so that one without is not
            good.
        account: put into the failure.
        log_in: how a person logs in to this CLI."""
    resets: tuple[FailureClass, ...] = (FailureClass.LIMIT, FailureClass.BILLING)
    said, guessed = "", False
    if answered(parsed, outcome):
        return None
    if ended_by := _from_cause(parsed, outcome):
        kind, message = ended_by
        error = parsed.retry or parsed.error or ErrorFacts()
    elif outcome.cause in _BY_ITSELF and _failed(parsed, outcome, final_event):
        kind, message, error, guessed = _from_exit(parsed, outcome, printed)
        resets, said = (*resets, FailureClass.OVERLOAD), message
    else:
        return None
    reset = _reset(parsed, error, said, now, tz) if kind in resets else None
    if kind is FailureClass.BILLING and reset is not None:
        kind = FailureClass.LIMIT  # what is used up comes back by itself
    mend = (log_in if kind is FailureClass.AUTH else "") or mend_of(kind, message)
    idle = ended_by is None and not (parsed.moved or parsed.ok)
    idle = idle and (final_event or _only_sentences(printed))
    return Failure(kind, one_line(message, SEEN_CHARS), reset, account, guessed, mend, idle)


def answered(parsed: Parsed, outcome: RunOutcome) -> bool:
    """True when the stream had said that the run was done before we signalled it: that counts,
    whatever became of the process."""
    ours = outcome.cause not in _BY_ITSELF
    return parsed.ended and parsed.ok and (outcome.answered if ours else True)


def _failed(parsed: Parsed, outcome: RunOutcome, final_event: bool) -> bool:
    return parsed.ended or final_event or outcome.signal is not None or outcome.exit_code != 0


def _from_cause(parsed: Parsed, outcome: RunOutcome) -> tuple[FailureClass, str] | None:
    """What follows from how the run ended alone."""
    match outcome.cause:
        case EndCause.SPAWN_FAILED:
            failure = not_started(outcome)
            return failure.kind, failure.message
        case EndCause.MEMORY:
            return FailureClass.MEMORY, "ended because it used more memory than allowed"
        case EndCause.REQUEST | EndCause.CRASHED:
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
        kind = _by_error(parsed.retry) or FailureClass.NETWORK
        if kind not in (FailureClass.LIMIT, FailureClass.OVERLOAD, FailureClass.AUTH):
            kind = FailureClass.NETWORK
        return kind, f"{label} while it was retrying: {parsed.retry.message}"
    silent = parsed.turn_open and not parsed.open_tools
    if silent and (outcome.cause is EndCause.IDLE_TIMEOUT or not parsed.moved):
        return FailureClass.NETWORK, f"{label} without an answer from its model"
    return FailureClass.AGENT, label


def _from_exit(
    parsed: Parsed, outcome: RunOutcome, printed: Printed
) -> tuple[FailureClass, str, ErrorFacts, bool]:
    """Class, message, what was said of it, and whether the class is a guess."""
    error = parsed.error or parsed.retry or ErrorFacts()
    kind, guessed, said = _by_error(error), False, error.message
    if kind is None and (hint := by_ending(printed)) and _believed(hint[0], parsed):
        (kind, said), guessed = hint, not _STAMPED.search(hint[1])
    named = bool(said)
    said = said or last_words(printed.stderr) or last_words(printed.stdout)
    # How it ended stands in the journal; here it counts where the words say less.
    named = (named or bool(_ERROR_LINE.match(said))) and outcome.signal is None
    label, said = _exit_label(parsed, outcome), _unwrapped(said)
    by_label = not named or not (outcome.exit_code or parsed.ended)
    message = f"{label}: {said}" if said and by_label else said or label
    signal = outcome.signal
    if signal is None:
        signal = _SIGNAL_EXITS.get(outcome.exit_code or 0)
    if signal is not None and not parsed.ended and kind is not FailureClass.MEMORY:
        # Not our signal, and what it said before is not why it ended: taken for a limit or a lost
        # network it would be waited for, and an agent that always ends like this would run for
        # ever. Only memory explains it: the kernel kills when there is none left, node aborts.
        kind = FailureClass.AGENT
    # 126 and 127 are the agent's own codes as well, unless it said nothing at all.
    if kind is None and outcome.exit_code in _NOT_RUN_EXITS and not parsed.events:
        kind = FailureClass.CONFIG
    return kind or FailureClass.AGENT, message, error, guessed and kind is not FailureClass.AGENT


def _believed(kind: FailureClass, parsed: Parsed) -> bool:
    """Text counts for a run that did no work; of memory a run dies in the middle of it."""
    return kind is FailureClass.MEMORY or not (parsed.moved or parsed.ok)


def by_ending(printed: Printed) -> tuple[FailureClass, str] | None:
    """The class and the sentence with which one of the streams ends, if a known CLI prints it."""
    warned, said = _spoken(printed.stderr), _spoken(printed.stdout)
    # On stderr hints may follow an error; on stdout what follows it is an answer.
    errors = [line for line in warned if _ERROR_LINE.match(line)]
    for line in (*errors[-1:], *warned[-1:], *said[-1:]):
        if (kind := by_sentence(line)) is not None:
            return kind, line
    return None


def _only_sentences(printed: Printed) -> bool:
    """True when nothing was printed but what known CLIs print when they fail."""
    lines = (*_spoken(printed.stderr), *_spoken(printed.stdout))
    return bool(lines) and all(by_sentence(line) is not None for line in lines)


def own_lines(text: str) -> int:
    """How many lines an agent printed beside refusals, of the last few hundred."""
    return sum(by_sentence(line) is None for line in _spoken(text, 300))


def _spoken(text: str, count: int = 20) -> list[str]:
    """The last lines of a text, without what runtimes and shells add; of a page its title."""
    lines = _last_lines(_titled(clean_block(text)), count)
    return [line for line in lines if not (_NOISE.match(line) or _SHELL.match(line))]


def _titled(text: str) -> str:
    """The text; of a page at its end, as gateways answer in place of an API, only the title."""
    if text.rstrip()[-7:].lower() != "</html>" or not (pages := list(_PAGE.finditer(text))):
        return text
    start = pages[-1].start()
    title = _TITLE.search(text, start)
    return f"{text[:start]}{title[1]}" if title else text


def _by_error(error: ErrorFacts) -> FailureClass | None:
    """The class of what the CLI says as an error: its own code, then the API's, then the status,
    then its words. Two things only words tell: that a request did not fit, and that no waiting
    mends a limit."""
    words, status = by_phrase(error.message), by_status(error.http_status)
    own, body = by_code(error.code), by_body(error.message)
    if own is FailureClass.NETWORK:
        own = status or own  # a connection that failed for an answer: the answer says more
    if own is FailureClass.OVERLOAD and words is FailureClass.NETWORK and status is None:
        own = words  # claude says "server_error" of a connection that it could not make
    known = own or body or status
    if words is FailureClass.CONTEXT and own in (None, FailureClass.LIMIT):
        return words  # a 400, 413 or 429 whose text says what it really is
    if words is FailureClass.BILLING and known in (FailureClass.LIMIT, FailureClass.AUTH, None):
        return words
    return known or words


def _reset(
    parsed: Parsed, error: ErrorFacts, message: str, now: float, tz: datetime.tzinfo | None
) -> float | None:
    """When the limit ends: the server's own word of it goes first, made exact by the window that
    ends then; without a word of it, the first window that ends."""
    if (at := believable(error.reset_at, now)) is not None:
        return at
    said = parse_reset(error.message, now, tz) or parse_reset(message, now, tz)
    ends = [at for end in parsed.limit_ends if (at := believable(end, now)) is not None]
    if said is None or (ends and parsed.limit_told):
        return min(ends, default=None)
    near = [end for end in ends if abs(end - said) <= _SAME_END_SEC]
    return min(near, default=said)


def _unwrapped(said: str) -> str:
    """A message in which the API's error body, JSON around a sentence, is the sentence."""
    for _ in range(_WRAPPED):
        start = said.find("{")
        body = decode_at(said, start, strict=False) if start >= 0 else None
        if body is None:
            break
        value, end = body
        error = as_dict(value).get("error")
        inner = as_text(as_dict(error).get("message")) or as_text(as_dict(value).get("message"))
        if not inner.strip():
            break
        said = f"{said[:start]}{inner.strip()}{said[end:]}"
    return said


def _exit_label(parsed: Parsed, outcome: RunOutcome) -> str:
    if outcome.signal is not None:
        return f"ended by signal {outcome.signal}"
    if outcome.exit_code:
        return f"exit code {outcome.exit_code}"
    if parsed.too_long and not parsed.ended:
        return (
            f"an event longer than {LINE_BYTES >> 20} MiB was not read, and no final one was seen"
        )
    return "reported an error" if parsed.ended else "ended without a final event"


def last_words(text: str) -> str:
    """What went wrong, in a program's words: the last line that calls itself an error, else the
    end."""
    lines = _last_lines(clean_block(text), 20)
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    return errors[-1] if errors else "\n".join(lines[-3:])


def _last_lines(text: str, count: int) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()][-count:]
