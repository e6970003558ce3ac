"""What claude's runs cost: fresh and resumed, in versions that count by run and by session."""

from __future__ import annotations

import json

import pytest

from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import AgentConfig, Request
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core.agent_report import Usage
from codex_self_iter.core.runs import EndCause, RunOutcome

CENTS = 0.0076


def models(tokens, cost):
    return {"m": {"inputTokens": tokens, "outputTokens": tokens // 50, "costUSD": cost}}


def result(version, calls, before):
    """The result of a run of `calls` calls in a session that had made `before` of them."""
    usage = {"input_tokens": 1000 * calls, "output_tokens": 20 * calls}
    told = {"type": "result", "subtype": "success", "session_id": "s", "result": "ok"}
    all_calls = calls if version == "by run" else before + calls
    told["total_cost_usd"] = CENTS * all_calls
    told |= {"usage": usage, "modelUsage": models(1000 * all_calls, CENTS * all_calls)}
    if version == "since":
        told["model_usage_since_last_result"] = models(1000 * calls, CENTS * calls)
    return told


def read(tmp_path, lines, session="", previous=None):
    (tmp_path / "stdout.log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    request = Request(
        "", "", "", "", str(tmp_path), session_id=session, previous_thread_usage=previous
    )
    outcome = RunOutcome("r", EndCause.EXIT, 0, None, 0.0, 1.0)
    return catalog.get("claude", AgentConfig("claude")).read(
        request, outcome, RunFiles(str(tmp_path)), now=1.8e9
    )


@pytest.mark.parametrize("version", ["by run", "by session", "since"])
def test_each_run_costs_what_it_used_itself(tmp_path, version):
    before, previous, shown = 0, None, []
    for calls in (1, 2, 3):
        report = read(tmp_path, [result(version, calls, before)], "s" if before else "", previous)
        before, previous = before + calls, report.thread_usage
        shown.append((report.usage.total_tokens, round(report.usage.cost_usd / CENTS, 6)))
    assert shown == [(1020, 1), (2040, 2), (3060, 3)]
    assert previous.total_tokens == 6 * 1020


def test_a_fresh_session_after_another_starts_anew(tmp_path):
    previous = Usage(9000, 0, 180, 1.0)
    report = read(tmp_path, [result("by session", 1, 0)], "another", previous)
    assert report.usage.total_tokens == 1020


def test_two_results_of_one_run_add_up(tmp_path):
    report = read(tmp_path, [result("since", 1, 0), result("since", 2, 1)])
    assert (report.usage.total_tokens, round(report.usage.cost_usd / CENTS, 6)) == (3060, 3)
