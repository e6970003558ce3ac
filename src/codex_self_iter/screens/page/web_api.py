"""The same for programs: JSON under /api/v1/, described by /api/v1/openapi.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from codex_self_iter.core.foreign import as_text
from codex_self_iter.errors import UsageError
from codex_self_iter.screens import records, sources, steering
from codex_self_iter.screens.outputs import page as window
from codex_self_iter.screens.outputs import rendered, runs
from codex_self_iter.screens.page import contents, openapi
from codex_self_iter.screens.sources import Shown
from codex_self_iter.views.timeline import iteration
from codex_self_iter.views.troubles import troubles

if TYPE_CHECKING:
    from starlette.requests import Request

MOST = 500
"""Iterations of one answer."""
Facts = dict[str, Any]


def failure(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    """Why there is no answer."""
    return JSONResponse({"error": words}, status, headers=dict(headers or {}))


VERBS: dict[str, Callable[[steering.Aim, str], str]] = {
    "pause": lambda at, _: steering.pause(at),
    "resume": lambda at, _: steering.resume(at),
    "steer": steering.steer,
    "steer-now": lambda at, text: steering.steer(at, text, now=True),
    "stop-after-iteration": lambda at, _: steering.stop(at, after_iteration=True),
    "stop": lambda at, _: steering.stop(at),
}
"""What a page may ask for, if it may anything: the functions of the commands."""


def loop_of(known: contents.Known, request: Request) -> Shown:
    """The loop of an address. Raises HTTPException where there is none."""
    one = known.find(request.path_params["key"])
    if one is None:
        raise HTTPException(404, "There is no such loop.")
    return one


def act(one: Shown, form: Facts) -> str:
    """Do what a form says; the sentence for the person. Raises UsageError and StorageError."""
    verb = VERBS.get(as_text(form.get("verb")))
    if verb is None:
        raise UsageError(f"expected a verb: {', '.join(VERBS)}")
    # browsers end the lines of a form by CR LF
    return verb(steering.aim(one.loop), as_text(form.get("text")).replace("\r\n", "\n"))


def routes(known: contents.Known, events: Callable[[Request], Any]) -> list[Route]:
    """Every address of the API; `events` streams a journal."""
    api = Api(known)
    loop = "/api/v1/loops/{key}"
    addresses: tuple[tuple[str, Callable[..., Any], str], ...] = (
        ("/api/v1/openapi.json", api.description, "GET"),
        ("/api/v1/loops", api.loops, "GET"),
        (loop, api.loop, "GET"),
        (f"{loop}/iterations", api.iterations, "GET"),
        (f"{loop}/iterations/{{number:int}}", api.iteration, "GET"),
        (f"{loop}/iterations/{{number:int}}/diff", api.diff, "GET"),
        (f"{loop}/output/{{run}}", api.output, "GET"),
        (f"{loop}/events", events, "GET"),
        (f"{loop}/control", api.control, "POST"),
    )
    return [Route(path, do, methods=[method]) for path, do, method in addresses]


def finite(status: Mapping[str, object]) -> object:
    """What was read, without what JSON has no word for: infinity and no number are null."""
    return json.loads(json.dumps(status), parse_constant=lambda _word: None)


class Api:
    """The answers."""

    def __init__(self, known: contents.Known) -> None:
        """Of these loops."""
        self.known = known

    def description(self, _request: Request) -> Response:
        """What there is, as OpenAPI says it."""
        return JSONResponse(openapi.description())

    def loops(self, _request: Request) -> Response:
        """All loops, the most urgent first."""
        return JSONResponse({"loops": [contents.row_fields(one) for one in self.known.shown()]})

    def loop(self, request: Request) -> Response:
        """One loop."""
        one = loop_of(self.known, request)
        plan = sources.plan(one.seen)
        items = [
            {"title": line.title, "done": line.item.ticked, "next": line.next, "level": line.level,
             "checks": list(line.checks), "iteration": line.since}
            for line in plan.lines
        ]  # fmt: skip
        found = [
            {"kind": t.kind, "urgency": t.urgency.name.lower(), "words": t.words, "mend": t.mend,
             "since": t.since}
            for t in troubles(one.seen, one.around)
        ]  # fmt: skip
        facts = {"troubles": found, "items": items, "status": finite(one.seen.status)}
        return JSONResponse({**contents.row_fields(one), **facts})

    def iterations(self, request: Request) -> Response:
        """Iterations, oldest first; `older` is the `before` of the page before."""
        one = loop_of(self.known, request)
        limit, before = _limit(request), request.query_params.get("before", "")
        state_dir = one.loop.state_dir
        placed = (
            records.older(state_dir, before, limit) if before else records.latest(state_dir, limit)
        )
        facts = [{**contents.fields(iteration(line.record)), "mark": line.mark} for line in placed]
        more = len(placed) == limit and facts[0]["number"] > 1
        return JSONResponse({"iterations": facts, "older": placed[0].mark if more else None})

    def iteration(self, request: Request) -> Response:
        """One iteration, with the names of its runs."""
        one, number = loop_of(self.known, request), request.path_params["number"]
        record = records.find(one.loop.state_dir, number)
        found = [run.name for run in runs(one.loop.state_dir) if run.iteration == number]
        return JSONResponse({**contents.fields(iteration(record)), "runs": found})

    def diff(self, request: Request) -> Response:
        """What an iteration changed."""
        one, number = loop_of(self.known, request), request.path_params["number"]
        return JSONResponse({"iteration": number, "diff": sources.diff(one.loop, str(number))})

    def output(self, request: Request) -> Response:
        """A range of what a run printed, as people read it."""
        one = loop_of(self.known, request)
        run = contents.run_named(one, request.path_params["run"])
        before, after = (
            contents.number(request.query_params.get(n), n) for n in ("before", "after")
        )
        found = window(f"{run.path}/stdout.log", before=before, after=after)
        items = [item._asdict() for item in rendered(found.lines)]
        place = {"start": found.start, "end": found.end, "size": found.size}
        return JSONResponse({"run": run.name, **place, "items": items})

    def control(self, request: Request) -> Response:
        """A control, as the command of its name."""
        one = loop_of(self.known, request)
        try:
            return JSONResponse({"said": act(one, request.state.form)})
        except UsageError as error:
            return failure(400, str(error))


def _limit(request: Request) -> int:
    count = contents.number(request.query_params.get("limit"), "limit")
    if count is not None and not 1 <= count <= MOST:
        raise HTTPException(400, f"limit: expected 1 to {MOST}")
    return 50 if count is None else count
