"""What the API promises, in the words of OpenAPI 3.1. The tests hold every answer against it."""

from __future__ import annotations

from typing import Any

from codex_self_iter import __version__
from codex_self_iter.views.rows import COLUMNS, Urgency

Schema = dict[str, Any]
STRING, BOOLEAN, INTEGER, NUMBER = ({"type": t} for t in ("string", "boolean", "integer", "number"))
MAYBE_NUMBER, MAYBE_STRING = ({"type": [t, "null"]} for t in ("number", "string"))
VERBS = ("pause", "resume", "steer", "steer-now", "stop-after-iteration", "stop")
URGENCY = {"type": "string", "enum": [one.name.lower() for one in Urgency]}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_LOOP: Schema = {
    "id": {**STRING, "description": "What the loop is called in addresses."},
    "name": {**STRING, "description": "Unique among the loops of this user."},
    "workspace": STRING,
    "state": {**STRING, "description": "As `status` says it, such as running, limited, gone."},
    "urgency": URGENCY,
    "column": {"type": "string", "enum": list(COLUMNS)},
    "doing": STRING,
    "since": {**MAYBE_NUMBER, "description": "Unix seconds."},
    "until": {**MAYBE_NUMBER, "description": "Unix seconds: the end of a wait."},
    "iteration": INTEGER,
    "plan": _object(done=INTEGER, total=INTEGER),
    "tokens": NUMBER,
    "cost_usd": NUMBER,
    "agent": STRING,
    "warnings": INTEGER,
    "alive": {**BOOLEAN, "description": "Whether a supervisor has it."},
}
_ITERATION: Schema = {
    "number": INTEGER, "began": MAYBE_NUMBER, "ended": MAYBE_NUMBER, "took_sec": NUMBER,
    "verdict": STRING, "colour": STRING, "failure": STRING, "summary": STRING, "goal": STRING,
    "next_goal": STRING, "error": STRING, "agent": STRING, "model": STRING, "tokens": MAYBE_NUMBER,
    "cost_usd": MAYBE_NUMBER, "changed": INTEGER, "files": _list(STRING),
    "gates": _list(_ref("Gate")), "commit": STRING, "checkpoint": STRING, "waited": STRING,
}  # fmt: skip
SCHEMAS: dict[str, Schema] = {
    "Error": _object(error={**STRING, "description": "Why, in words for a person."}),
    "Loop": _object(**_LOOP),
    "Loops": _object(loops=_list(_ref("Loop"))),
    "Trouble": _object(
        kind=STRING, urgency=URGENCY, words=STRING, mend=STRING, since=MAYBE_NUMBER
    ),
    "Item": _object(
        title=STRING, done=BOOLEAN, next=BOOLEAN, level=INTEGER, checks=_list(STRING),
        iteration={"type": ["integer", "null"]},
    ),
    "LoopInDepth": _object(
        **_LOOP,
        troubles=_list(_ref("Trouble")),
        items=_list(_ref("Item")),
        status={"type": "object", "description": "`status.json` as it is (docs/status.md)."},
    ),
    "Gate": _object(
        command=STRING, ok=BOOLEAN, end=STRING, took_sec=NUMBER, output=STRING, items=_list(STRING)
    ),
    "Iteration": _object(**_ITERATION, runs=_list(STRING)),
    "Iterations": _object(
        iterations=_list(_object(**_ITERATION, mark=STRING)),
        older={**MAYBE_STRING, "description": "`before` of the older ones; null: there are none."},
    ),
    "Diff": _object(iteration=INTEGER, diff=STRING),
    "Output": _object(
        run=STRING, start=INTEGER, end=INTEGER, size=INTEGER,
        items=_list(_object(kind=STRING, text=STRING)),
    ),
    "Said": _object(said={**STRING, "description": "What the command would have said."}),
    "Control": {
        "type": "object",
        "properties": {"verb": {"type": "string", "enum": list(VERBS)}, "text": STRING},
        "required": ["verb"],
    },
}  # fmt: skip

_KEY: Schema = {"name": "key", "in": "path", "required": True, "schema": STRING}
_NUMBER: Schema = {"name": "number", "in": "path", "required": True, "schema": INTEGER}
_RUN: Schema = {"name": "run", "in": "path", "required": True, "schema": STRING}


def _query(name: str, schema: Schema, what: str) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": what}


def _answer(name: str, kind: str = "application/json") -> Schema:
    schema = STRING if kind == "text/event-stream" else _ref(name)
    error = {"content": {"application/json": {"schema": _ref("Error")}}}
    return {
        "200": {"description": name, "content": {kind: {"schema": schema}}},
        "default": {"description": "Why there is no answer.", **error},
    }


def _get(what: str, name: str, *parameters: Schema, kind: str = "application/json") -> Schema:
    return {
        "get": {"summary": what, "parameters": list(parameters), "responses": _answer(name, kind)}
    }


def description() -> Schema:
    """The whole description."""
    loop, range_ = "/api/v1/loops/{key}", "a byte of the output at which the window"
    since = _query("since", STRING, "the id of the last event that was heard")
    control = {
        "post": {
            "summary": "Pause, resume, steer or stop; only with `serve --control`.",
            "parameters": [_KEY],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _ref("Control")}},
            },
            "responses": _answer("Said"),
        }
    }
    paths = {
        "/api/v1/loops": _get("All loops, the most urgent first.", "Loops"),
        loop: _get("One loop: troubles, plan, status.", "LoopInDepth", _KEY),
        f"{loop}/iterations": _get(
            "Iterations, oldest first: the newest, or those before a mark.", "Iterations", _KEY,
            _query("limit", INTEGER, "1 to 500; 50"),
            _query("before", STRING, "`older` of an answer, or an iteration's `mark`"),
        ),
        f"{loop}/iterations/{{number}}": _get("One iteration.", "Iteration", _KEY, _NUMBER),
        f"{loop}/iterations/{{number}}/diff": _get("What it changed.", "Diff", _KEY, _NUMBER),
        f"{loop}/output/{{run}}": _get(
            "A range of what a run printed, at most 256 KiB of it.", "Output", _KEY, _RUN,
            _query("before", INTEGER, f"{range_} ends"), _query("after", INTEGER, f"{range_} begins"),
        ),
        f"{loop}/events": _get(
            "Iterations as they end, as server-sent events `iteration`; Last-Event-ID goes on.",
            "", _KEY, since, kind="text/event-stream",
        ),
        f"{loop}/control": control,
    }  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {"title": "codex-self-iter", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{"token": []}, {}],
    }
