"""An iteration as a trace: spans for itself, its agent runs and its gates, after OpenTelemetry.

Ids are derived from those of loop, iteration and run. So an agent can be told its span before there
is one, and a run that a later supervisor adopts belongs to the same trace. Nothing that an agent has
said is in a span."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from codex_self_iter.core.evidence import gate_end
from codex_self_iter.core.foreign import as_dict, as_int, as_list, as_number, as_text
from codex_self_iter.core.runs import EndCause
from codex_self_iter.core.terms import Verdict
from codex_self_iter.core.text import clean, epoch

LONGEST = 1000
"""Characters of a text in a span."""
_FAILED = (Verdict.ERROR.value, Verdict.TIMED_OUT.value, Verdict.INTERRUPTED.value)


class Span(NamedTuple):
    """One span. Ids are hexadecimal, `parent` is "" for the root; times are Unix seconds. `error`: why
    it has failed, or ""."""

    name: str
    trace: str
    id: str
    parent: str
    begin: float
    end: float
    attributes: dict[str, str | int | float | bool]
    error: str = ""


def traceparent(loop_id: str, iteration: int, run_id: str) -> str:
    """What tells a run of this iteration its place in the trace, after W3C's Trace Context."""
    return f"00-{_trace(loop_id, iteration)}-{_id(f'run {run_id}', 16)}-01"


def spans(record: Mapping[str, Any], loop_id: str, loop: str) -> list[Span]:
    """The spans of an iteration, from its journal line, the root first; `loop` is its name."""
    number, verdict = as_int(record.get("iteration")), as_text(record.get("verdict"))
    trace, begin = _trace(loop_id, number), epoch(record.get("started_at")) or 0.0
    failure = as_text(record.get("failure_class"))
    root = Span(
        name="iteration",
        trace=trace,
        id=_id(f"iteration {loop_id} {number}", 16),
        parent="",
        begin=begin,
        end=begin + as_number(record.get("duration_sec")),
        attributes={
            "csi.loop": loop,
            "csi.iteration": number,
            "csi.verdict": verdict,
            "csi.changed_files": as_int(record.get("changed_count")),
            **_used(record),
        },
        error=failure or (verdict if verdict in _FAILED else ""),
    )
    runs = [as_dict(run) for run in as_list(record.get("runs"))]
    gates = [as_dict(gate) for gate in as_list(record.get("gates"))]
    own = [_run(root, run, failure if run is runs[-1] else None) for run in runs]
    own += [
        _gate(root, f"{loop_id}-{number:06d}-gate-{at}", one) for at, one in enumerate(gates, 1)
    ]
    return [root, *own]


def _run(root: Span, run: Mapping[str, Any], failure: str | None) -> Span:
    """An agent run; `failure`: the class of the iteration's failure, if it is the last run. Only an
    answer lets another run follow."""
    role, cause = as_text(run.get("role")), as_text(run.get("cause"))
    code, number = run.get("exit_code"), run.get("signal")
    lost = cause if cause == EndCause.LOST else ""
    told = {"csi.exit_code": code, "csi.signal": number, "csi.failure_class": failure or None}
    attributes = {
        "csi.run_id": as_text(run.get("run_id")),
        "csi.role": role,
        "csi.agent": as_text(run.get("agent")),
        "csi.model": as_text(run.get("model")),
        "csi.cause": cause,
        "csi.resumed": bool(run.get("resumed")),
        **{key: value for key, value in told.items() if isinstance(value, str | int)},
        **_used(run),
    }
    span = _id(f"run {as_text(run.get('run_id'))}", 16)
    return _child(root, f"run {role}", span, run, attributes, failure or lost)


def _gate(root: Span, run_id: str, gate: Mapping[str, Any]) -> Span:
    command, code = as_text(gate.get("command")), gate.get("exit_code")
    attributes: dict[str, str | int | float | bool] = {
        "csi.run_id": run_id,
        "csi.command": clean(command, LONGEST),
        "csi.ok": bool(gate.get("ok")),
        **({"csi.exit_code": code} if isinstance(code, int) else {}),
    }
    error = "" if gate.get("ok") else clean(gate_end(gate), LONGEST)
    return _child(root, "gate", _id(f"run {run_id}", 16), gate, attributes, error)


def _child(
    root: Span,
    name: str,
    span: str,
    told: Mapping[str, Any],
    attributes: dict[str, str | int | float | bool],
    error: str,
) -> Span:
    """A span below the root, with the times of a run or a gate of the journal."""
    begin = epoch(told.get("started_at")) or root.begin
    end = begin + as_number(told.get("duration_sec"))
    return Span(name, root.trace, span, root.id, begin, end, attributes, error)


def _used(told: Mapping[str, Any]) -> dict[str, int | float]:
    """Tokens and money, as far as they are known."""
    usage = as_dict(told.get("usage"))
    kinds = ("input_tokens", "cached_input_tokens", "output_tokens")
    found: dict[str, int | float] = {
        f"csi.{kind}": as_int(usage.get(kind)) for kind in kinds if usage
    }
    cost = usage.get("cost_usd")
    return found | ({"csi.cost_usd": as_number(cost)} if cost is not None else {})


def _trace(loop_id: str, iteration: int) -> str:
    return _id(f"trace {loop_id} {iteration}", 32)


def _id(of: str, digits: int) -> str:
    return hashlib.sha256(of.encode("utf-8", "replace")).hexdigest()[:digits]
