"""Why a run failed, from how it ended and what was said."""

from __future__ import annotations

import dataclasses
import time

import pytest

from codex_self_iter.agents.classify import Printed, classify, own_lines
from codex_self_iter.agents.failure_table import by_phrase
from codex_self_iter.agents.stream import ErrorFacts, Event, EventKind, Parsed, fold
from codex_self_iter.core.agent_report import AgentReport, FailureClass
from codex_self_iter.core.runs import EndCause, RunOutcome

NOW = 1_795_345_200.0


def run(exit_code=1, signal=None, cause=EndCause.EXIT, **more) -> RunOutcome:
    return RunOutcome("r", cause, exit_code, signal, NOW - 60, 60.0, **more)


def failed(message="", **more) -> Parsed:
    return Parsed(error=ErrorFacts(message, **more))


def kind_of(parsed, outcome, stderr="", **more):
    failure = classify(parsed, outcome, Printed(stderr), NOW, **more)
    return failure.kind if failure else None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("You\u2019ve hit your usage limit. Try again later.", FailureClass.LIMIT),
        ("exceeded retry limit, last status: 429 Too Many Requests", FailureClass.LIMIT),
        ("Quota exceeded. Check your plan and billing details.", FailureClass.BILLING),
        ("Credit balance is too low", FailureClass.BILLING),
        ("unexpected status 401 Unauthorized: x, url: http://h/", FailureClass.AUTH),
        ("Invalid API key · Please run /login", FailureClass.AUTH),
        ("OAuth token has expired", FailureClass.AUTH),
        ("Missing environment variable: `X`.", FailureClass.CONFIG),
        ("The model `x` does not exist", FailureClass.CONFIG),
        ("error: unexpected argument '--full-auto' found", FailureClass.CONFIG),
        (
            "Not inside a trusted directory and --skip-git-repo-check was not specified.",
            FailureClass.CONFIG,
        ),
        ("Codex ran out of room in the model's context window.", FailureClass.CONTEXT),
        ("API Error: 400 prompt is too long: 210000 tokens > 200000 maximum", FailureClass.CONTEXT),
        ("No conversation found with session ID: abc", FailureClass.CONTEXT),
        (
            "We're currently experiencing high demand, which may cause temporary errors.",
            FailureClass.OVERLOAD,
        ),
        ("Selected model is at capacity. Please try a different model.", FailureClass.OVERLOAD),
        ("stream disconnected before completion: eof", FailureClass.NETWORK),
        ("connect ECONNREFUSED 127.0.0.1:1", FailureClass.NETWORK),
        ("Reconnecting... waiting for network", FailureClass.NETWORK),
        ("FATAL ERROR: Reached heap limit - JavaScript heap out of memory", FailureClass.MEMORY),
        ("bwrap: No permissions to create new namespace", FailureClass.SANDBOX),
        ("AssertionError: 3 != 4", None),
        ("I ran 401 tests and 429 passed", None),
        ("", None),
    ],
)
def test_prose_names_its_class(text, kind):
    assert by_phrase(text) is kind


def test_a_good_run_has_not_failed():
    assert kind_of(Parsed(ended=True, ok=True), run(0)) is None
    assert kind_of(Parsed(), run(0)) is None
    assert kind_of(Parsed(), run(0), final_event=True) is FailureClass.AGENT


def test_what_stderr_says_of_a_good_run_means_nothing():
    assert (
        kind_of(Parsed(ended=True, ok=True), run(0), "usage limit reached, 401 Unauthorized")
        is None
    )


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (run(None, cause=EndCause.REQUEST), FailureClass.KILLED),
        (run(0, cause=EndCause.REQUEST), FailureClass.KILLED),
        (run(None, cause=EndCause.MEMORY), FailureClass.MEMORY),
        (run(None, cause=EndCause.LOST), FailureClass.KILLED),
        (
            run(None, cause=EndCause.SPAWN_FAILED, argv0_missing=True, error="gone"),
            FailureClass.CONFIG,
        ),
        (
            run(None, cause=EndCause.SPAWN_FAILED, argv0_missing=True, was_there=True),
            FailureClass.MISSING,
        ),
        (run(None, cause=EndCause.SPAWN_FAILED, error="E2BIG"), FailureClass.AGENT),
        (run(None, cause=EndCause.WALL_TIMEOUT), FailureClass.AGENT),
        (run(None, signal=9), FailureClass.AGENT),
        (run(None, signal=15), FailureClass.AGENT),
        (run(None, signal=11), FailureClass.AGENT),
        (run(143), FailureClass.AGENT),
        (run(137), FailureClass.AGENT),
        (run(134), FailureClass.AGENT),
        (run(127), FailureClass.CONFIG),
        (run(1), FailureClass.AGENT),
    ],
    ids=str,
)
def test_how_a_run_ended_goes_first(outcome, kind):
    assert kind_of(Parsed(), outcome) is kind


def test_a_node_that_ran_out_of_memory_is_no_crash():
    outcome = run(None, signal=6)
    assert (
        kind_of(Parsed(), outcome, "FATAL ERROR: JavaScript heap out of memory")
        is FailureClass.MEMORY
    )
    assert kind_of(Parsed(), outcome) is FailureClass.AGENT


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (401, "x", FailureClass.AUTH),
        (403, "x", FailureClass.AUTH),
        (404, "x", FailureClass.CONFIG),
        (413, "x", FailureClass.CONTEXT),
        (429, "x", FailureClass.LIMIT),
        (500, "x", FailureClass.OVERLOAD),
        (529, "x", FailureClass.OVERLOAD),
        (400, "prompt is too long", FailureClass.CONTEXT),
        (400, "who knows", FailureClass.AGENT),
    ],
)
def test_an_http_status_has_its_class(status, message, kind):
    assert kind_of(failed(message, http_status=status), run()) is kind


def test_the_clis_own_code_goes_before_everything_it_says():
    parsed = failed("usage limit, 401", code="context_window_exceeded", http_status=500)
    assert kind_of(parsed, run()) is FailureClass.CONTEXT


class TestTimeOut:
    """A run that waited for its model is not at fault; one that was at work is."""

    @pytest.mark.parametrize("cause", [EndCause.WALL_TIMEOUT, EndCause.IDLE_TIMEOUT])
    @pytest.mark.parametrize(
        ("message", "kind"),
        [
            ("Reconnecting... waiting for network", FailureClass.NETWORK),
            ("retry 3/10: server_error, status 500", FailureClass.OVERLOAD),
            ("Reconnecting... 1/5 (429 Too Many Requests)", FailureClass.LIMIT),
            ("something odd", FailureClass.NETWORK),
        ],
    )
    def test_while_retrying(self, cause, message, kind):
        parsed = Parsed(events=5, moved=True, turn_open=True, retry=ErrorFacts(message))
        assert kind_of(parsed, run(None, cause=cause)) is kind

    def test_before_any_answer(self):
        parsed = Parsed(events=2, turn_open=True)
        assert kind_of(parsed, run(None, cause=EndCause.WALL_TIMEOUT)) is FailureClass.NETWORK
        assert kind_of(parsed, run(None, cause=EndCause.IDLE_TIMEOUT)) is FailureClass.NETWORK

    def test_silent_between_tools(self):
        parsed = Parsed(events=9, moved=True, turn_open=True)
        assert kind_of(parsed, run(None, cause=EndCause.IDLE_TIMEOUT)) is FailureClass.NETWORK
        assert kind_of(parsed, run(None, cause=EndCause.WALL_TIMEOUT)) is FailureClass.AGENT

    def test_in_a_tool(self):
        parsed = Parsed(events=9, moved=True, turn_open=True, open_tools={"t"})
        for cause in (EndCause.IDLE_TIMEOUT, EndCause.WALL_TIMEOUT):
            assert kind_of(parsed, run(None, cause=cause)) is FailureClass.AGENT

    def test_without_any_event(self):
        assert kind_of(Parsed(), run(None, cause=EndCause.IDLE_TIMEOUT)) is FailureClass.AGENT


class TestReset:
    def reset(self, parsed, outcome=None, stderr=""):
        failure = classify(parsed, outcome or run(), Printed(stderr), NOW)
        assert failure is not None
        return failure.reset_at

    def test_the_exact_time_goes_before_prose(self):
        parsed = failed("usage limit, try again in 2 hours", reset_at=NOW + 7000.0)
        assert self.reset(parsed) == NOW + 7000
        assert self.reset(failed("usage limit, try again in 2 hours")) == NOW + 7200

    def test_an_absurd_exact_time_is_not_believed(self):
        parsed = failed("usage limit, try again in 2 hours", reset_at=NOW * 2)
        assert self.reset(parsed) == NOW + 7200

    def test_prose_on_stderr_counts_for_a_failed_run(self):
        assert (
            self.reset(Parsed(), stderr="ERROR: usage limit reached, try again in 90 seconds")
            == NOW + 90
        )

    def test_the_window_that_was_refused_last_counts(self):
        windows = [NOW + 3600, NOW + 90_000]
        told = [Event(EventKind.LIMIT, error=ErrorFacts(reset_at=end)) for end in windows]
        failed = Event(EventKind.FAILED, error=ErrorFacts("You've hit your weekly limit"))
        assert self.reset(fold([*told, failed])) == NOW + 90_000
        assert self.reset(fold([*reversed(told), failed])) == NOW + 3600

    def test_other_failures_have_none(self):
        assert self.reset(failed("401 Unauthorized: try again in 2 hours")) is None

    def test_a_limit_met_while_retrying_has_one(self):
        parsed = Parsed(turn_open=True, retry=ErrorFacts("429 Too Many Requests, retry after 600"))
        assert self.reset(parsed, run(None, cause=EndCause.WALL_TIMEOUT)) == NOW + 600


def test_a_message_is_one_bounded_line():
    failure = classify(failed("a\nb\x0b" + "c" * 5000), run(), Printed(), NOW, account="acc")
    assert failure is not None
    assert len(failure.message) == 5004
    shown = AgentReport("", failure=failure).shown(str).failure
    assert shown is not None
    assert len(shown.message) == 500
    assert "\n" not in failure.message
    assert failure.account == "acc"


def test_stderr_stands_in_where_the_stream_said_nothing():
    stderr = "WARNING: x\nError: listen EADDRINUSE\n    at a (b.js:1)\n    at c (d.js:2)\n"
    failure = classify(Parsed(), run(), Printed(stderr), NOW)
    assert failure is not None
    assert failure.message == "Error: listen EADDRINUSE"
    parsed = dataclasses.replace(Parsed(), error=ErrorFacts("the stream's own words"))
    failure = classify(parsed, run(), Printed(stderr), NOW)
    assert failure is not None
    assert failure.message == "the stream's own words"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            '[API Error: {"error":{"code":401,"message":"Invalid API key"}}]',
            "[API Error: Invalid API key]",
        ),
        (
            '429: {"error":{"message":"{\\"error\\":{\\"message\\":\\"Slow\\\\ndown\\"}}"}}',
            "429: Slow down",
        ),
        (
            'API Error: 529 {"type":"error","error":{"message":"Overloaded"},"id":null}',
            "API Error: 529 Overloaded",
        ),
        ('{"message":"plain"} at the end', "plain at the end"),
        ('no body {"a": 1} here', 'no body {"a": 1} here'),
        ('{"error": {"message": " "}}', '{"error": {"message": " "}}'),
        ("{[{[{", "{[{[{"),
    ],
)
def test_an_error_body_in_a_message_is_its_sentence(said, shown):
    failure = classify(failed(said), run(), Printed(), NOW)
    assert failure is not None
    assert failure.message == shown


def test_how_a_run_ended_is_said_where_nothing_else_is():
    for outcome, message in ((run(3), "exit code 3"), (run(None, signal=11), "ended by signal 11")):
        failure = classify(Parsed(), outcome, Printed(), NOW)
        assert failure is not None
        assert failure.message == message
    failure = classify(Parsed(), run(None, signal=11), Printed("Error: last"), NOW)
    assert failure is not None
    assert failure.message == "ended by signal 11: Error: last"


@pytest.mark.parametrize(
    ("parsed", "stderr", "stream", "idle"),
    [
        (Parsed(), "API Error: Connection error.", False, True),
        (Parsed(), "Edited x.py\nAPI Error: Connection error.", False, False),
        (Parsed(), "something else", False, False),
        (Parsed(moved=True), "API Error: Connection error.", False, False),
        (Parsed(events=1), "a log of the program", True, True),
        (Parsed(events=2, moved=True), "", True, False),
    ],
)
def test_a_run_that_did_nothing_is_told(
    parsed: Parsed, stderr: str, stream: bool, idle: bool
) -> None:
    failure = classify(parsed, run(), Printed(stderr), NOW, final_event=stream)
    assert failure is not None
    assert failure.idle is idle
    late = run(cause=EndCause.WALL_TIMEOUT)
    failure = classify(parsed, late, Printed(stderr), NOW, final_event=stream)
    assert failure is not None
    assert not failure.idle  # cut short: it may have worked without a word


def test_a_refusal_to_run_as_root_says_what_mends_it():
    said = "--dangerously-skip-permissions cannot be used with root/sudo privileges"
    for parsed, stderr in ((failed(said), ""), (Parsed(), said)):
        failure = classify(parsed, run(), Printed(stderr), NOW, log_in="log in")
        assert failure.kind is FailureClass.CONFIG
        assert "another user than root" in failure.mend
    other = classify(Parsed(), run(), Printed("error: unknown option '--nope'"), NOW)
    assert (other.kind, "root" in other.mend) == (FailureClass.CONFIG, False)


@pytest.mark.parametrize("flood", ["<html", "<!doctype html>", "<title>", "<html><title>"])
def test_a_flood_of_pages_is_read_in_bounded_time(flood):
    began = time.thread_time()
    own_lines(flood * (256 * 1024 // len(flood)) + "</html>")
    assert time.thread_time() - began < 5.0
