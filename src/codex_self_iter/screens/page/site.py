"""The addresses of the page, and what is answered at each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from codex_self_iter.core.foreign import as_text
from codex_self_iter.errors import CodexSelfIterError, UsageError
from codex_self_iter.metrics import EXTRA
from codex_self_iter.screens import records
from codex_self_iter.screens.loops import Target
from codex_self_iter.screens.outputs import page as window
from codex_self_iter.screens.outputs import rendered
from codex_self_iter.screens.page import contents, streams
from codex_self_iter.screens.page.gatekeeper import Gatekeeper, RefusedError
from codex_self_iter.screens.page.pages import asset, entrance, page, render
from codex_self_iter.screens.page.web_api import act, failure, loop_of, routes
from codex_self_iter.screens.sources import Shown
from codex_self_iter.views.digest import LoopDigest, headline
from codex_self_iter.views.metrics import families
from codex_self_iter.views.rows import Urgency
from codex_self_iter.world import crashlog, installed

if TYPE_CHECKING:
    from starlette.requests import Request

KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
Facts = dict[str, Any]
OVER_SEC = 86_400.0
"""So long after its end a loop that needs nobody is among the numbers."""


def _long_over(one: Shown) -> bool:
    """Whether a loop has ended long ago, and needs nobody."""
    return one.row.urgency is Urgency.DONE and (one.seen.life.stale_sec or 0.0) > OVER_SEC


class Site:
    """Everything behind the door."""

    def __init__(self, keeper: Gatekeeper, named: Sequence[Target], over: asyncio.Event) -> None:
        """`named`: loops that need not be in the registry; `over`: is set when the page ends."""
        self.keeper, self.known, self._over = keeper, contents.Known(named), over
        self._streams = 0

    # -- the door ----------------------------------------------------------------------------------

    def enter(self, request: Request) -> Response:
        """By a link, which works once, or by the token."""
        key = request.query_params.get("key", "")
        form, source = request.state.form, request.state.source
        token = as_text(form.get("token"))
        door = self.keeper.door
        if request.method == "HEAD" or (request.method == "GET" and not key):
            words = "Open the page by the link that `codex-self-iter serve --link` prints."
            return entrance(words, 200, door.has_token)
        self.keeper.heard(source)
        if door.opens(token) if request.method == "POST" else door.keys.use_link(key, door.port):
            door.passed(source)
            response = page("entered.html", {})
            self.keeper.let_in(response)
            return response
        door.failed(source)
        words = "That is not the token."
        if request.method == "GET":
            words = "This link was used already, or is too old: `codex-self-iter serve --link` prints another."
        return entrance(words, 403, door.has_token)

    def leave(self, _request: Request) -> Response:
        """Take the device's cookie back."""
        response = entrance("This device is out.", 200, self.keeper.door.has_token)
        response.delete_cookie(self.keeper.cookie_name, secure=self.keeper.address.secure)
        return response

    def link(self, request: Request) -> Response:
        """A link for another device."""
        door = self.keeper.door
        way = f"{self.keeper.address.origins[0]}/enter?key={door.keys.new_link(door.port)}"
        words = "Open this on the other device within an hour. It works once."
        return self._page(request, "said.html", _said("A link", words, "/", link=way))

    def metrics(self, _request: Request) -> Response:
        """The numbers of all loops, for Prometheus."""
        if flaw := installed.lack(*EXTRA):
            return PlainTextResponse(f"/metrics {flaw}\n", 501)
        from codex_self_iter.metrics.exposition import CONTENT_TYPE, text

        seen = ((one.name, one.seen) for one in self.known.shown() if not _long_over(one))
        return Response(text(families(seen, time.time())), media_type=CONTENT_TYPE)

    # -- pages -------------------------------------------------------------------------------------

    def board(self, request: Request) -> Response:
        """All loops."""
        facts = self.known.board()
        shown = streams.digest(render("columns.html", facts))
        facts |= {"stream": "/events", "since": shown}
        return self._page(request, "board.html", facts)

    def loop(self, request: Request) -> Response:
        """One loop."""
        one = self._loop(request)
        follower = streams.Follower(one.loop.state_dir)
        output = follower.begin(None)
        placed = contents.latest(one)
        place = follower.place(placed[-1].mark if placed else "")
        follower.close()
        base = contents.base(one)
        facts = {
            **contents.history(one, placed, contents.SHORT),
            **contents.now(one),
            **contents.plan(one),
            **contents.messages(one),
            "output": output,
            "run": follower.began_at[0],
            "before": follower.began_at[1],
            "stream": f"{base}/events",
            "since": str(place),
        }
        return self._page(request, "loop.html", facts)

    def history(self, request: Request) -> Response:
        """Iterations, page by page."""
        one = self._loop(request)
        before = request.query_params.get("before", "")
        state_dir = one.loop.state_dir
        count = contents.LONG
        placed = (
            records.older(state_dir, before, count) if before else records.latest(state_dir, count)
        )
        facts = contents.history(one, placed, count)
        return self._page(request, "list.html", {**facts, "name": one.row.name})

    def iteration(self, request: Request) -> Response:
        """One iteration."""
        facts = contents.one_iteration(self._loop(request), request.path_params["number"])
        return self._page(request, "iteration.html", facts)

    def output(self, request: Request) -> Response:
        """A window into what a run printed."""
        one = self._loop(request)
        run = contents.run_named(one, request.path_params["run"])
        before, after = (
            contents.number(request.query_params.get(n), n) for n in ("before", "after")
        )
        found = window(f"{run.path}/stdout.log", before=before, after=after)
        errors = _errors(f"{run.path}/stderr.log")
        base = contents.base(one)
        facts = {
            "name": one.row.name,
            "base": base,
            "run": run.name,
            "here": f"{base}/output/{run.name}",
            "iteration": run.iteration,
            "output": rendered(found.lines),
            "errors": errors,
            "start": found.start,
            "end": found.end,
            "size": found.size,
        }
        return self._page(request, "output.html", facts)

    def plots(self, request: Request) -> Response:
        """All plots of a loop."""
        return self._page(request, "plots.html", contents.plotted(self._loop(request)))

    def settings(self, request: Request) -> Response:
        """The settings in force."""
        return self._page(request, "settings.html", contents.settings(self._loop(request)))

    def export(self, request: Request) -> Response:
        """One loop as one file, to be kept or sent."""
        one = self._loop(request)
        headers = {
            "content-disposition": f'attachment; filename="{contents.key_of(one.loop)}.html"'
        }
        return Response(export(one), media_type="text/html", headers=headers)

    def steer(self, request: Request) -> Response:
        """A control, as the command of its name."""
        one = self._loop(request)
        back = contents.base(one)
        try:
            words, wrong = act(one, request.state.form), False
        except CodexSelfIterError as error:
            words, wrong = str(error), True
        facts = _said(one.row.name, words, back, wrong=wrong)
        return self._page(request, "said.html", facts, 400 if wrong else 200)

    # -- what goes on ------------------------------------------------------------------------------

    async def board_events(self, request: Request) -> Response:
        """The columns, as they change."""
        stream = streams.BoardStream(self.known, _since(request))
        return self._events(request, stream, streams.BOARD_SEC)

    async def loop_events(self, request: Request) -> Response:
        """A loop, as it changes, from where the page is."""
        one = await asyncio.to_thread(self._loop, request)
        stream = streams.LoopStream(one.name, one.loop, streams.Place.read(_since(request)))
        return self._events(request, stream, streams.TICK_SEC)

    async def journal_events(self, request: Request) -> Response:
        """The journal's lines, all behind the place that is given."""
        one = await asyncio.to_thread(self._loop, request)
        stream = streams.JournalStream(one.loop, _since(request))
        return self._events(request, stream, streams.TICK_SEC)

    def _events(self, request: Request, stream: streams.Stream, tick_sec: float) -> Response:
        if self._streams >= streams.MOST_STREAMS:
            stream.close()
            words = f"{streams.MOST_STREAMS} pages are open: close one."
            return PlainTextResponse(words, 503, headers={"retry-after": "30"})

        async def counted() -> Any:
            if self._streams >= streams.MOST_STREAMS:  # others that asked at once have begun since
                stream.close()
                return
            self._streams += 1
            try:
                async for part in streams.events(
                    stream, tick_sec, self._over, lambda: self._still(request)
                ):
                    yield part
            finally:
                self._streams -= 1

        headers = {"x-accel-buffering": "no"}
        return StreamingResponse(counted(), media_type="text/event-stream", headers=headers)

    def _still(self, request: Request) -> bool:
        """Whether whoever opened a stream may go on: `serve --forget` ends it."""
        if not request.state.session.csrf:
            return True
        cookie = request.cookies.get(self.keeper.cookie_name, "")
        return self.keeper.door.session(cookie) is not None

    # -- shared ------------------------------------------------------------------------------------

    def _loop(self, request: Request) -> Shown:
        return loop_of(self.known, request)

    def _page(self, request: Request, template: str, facts: Facts, status: int = 200) -> Response:
        more = {"session": request.state.session, "control": self.keeper.address.control}
        return page(template, {**facts, **more}, status)


def _since(request: Request) -> str:
    """Where an open page is: a browser that reconnects by itself says it, and the page's script."""
    return request.headers.get("last-event-id") or request.query_params.get("since", "")


def _said(title: str, words: str, back: str, *, wrong: bool = False, link: str = "") -> Facts:
    return {"title": title, "words": words, "back": back, "wrong": wrong, "link": link}


def _errors(path: str) -> str:
    try:
        return "\n".join(window(path).lines)
    except OSError:
        return ""


def export(one: Shown) -> str:
    """One loop as a file that needs nothing beside it."""
    return render("export.html", contents.exported(one))


def digest_page(loops: Sequence[LoopDigest], since: float) -> str:
    """What happened since then (Unix seconds), as a file that needs nothing beside it."""
    facts = {"headline": headline(loops), "since": since, "until": time.time()}
    return render("digest.html", {**facts, **contents.digest(loops)})


def static(request: Request) -> Response:
    """The page's own script and style."""
    name = request.path_params["name"]
    try:
        data = asset(name)
    except FileNotFoundError:
        raise HTTPException(404, "There is no such file.") from None
    headers = {"cache-control": "max-age=31536000, immutable"}
    return Response(data, media_type=KINDS.get(name.rpartition(".")[2]), headers=headers)


def health(_request: Request) -> Response:
    """That it answers; who may not come in hears nothing else."""
    return PlainTextResponse("ok\n")


def _failed(request: Request, error: Exception) -> Response:
    """What went wrong, in words; a defect of ours is left where it can be found."""
    status, words, headers = 500, "", {}
    if isinstance(error, RefusedError | HTTPException):
        status = error.status if isinstance(error, RefusedError) else error.status_code
        words = error.words if isinstance(error, RefusedError) else str(error.detail)
        headers = dict(error.headers or {})
    elif isinstance(error, UsageError):
        status, words = 404, str(error)
    elif isinstance(error, CodexSelfIterError | OSError):
        status, words = 503, str(error)
    else:
        where = crashlog.write(error, ["serve", request.url.path])
        words = f"A defect of the page; the traceback is in {where}." if where else "A defect."
    if request.url.path.startswith("/api/"):
        return failure(status, words, headers)
    facts = {**_said("That did not work", words, "/", wrong=True), "session": None}
    return page("said.html", facts, status, headers)


def site(
    keeper: Gatekeeper, named: Sequence[Target] = (), over: asyncio.Event | None = None
) -> Starlette:
    """The application behind the door; its arguments are those of `Site`."""
    here = Site(keeper, named, over or asyncio.Event())
    loop = "/loop/{key}"
    pages: list[tuple[str, Callable[..., Any], str]] = [
        ("/enter", here.enter, "GET POST"),
        ("/leave", here.leave, "POST"),
        ("/link", here.link, "POST"),
        ("/healthz", health, "GET"),
        ("/metrics", here.metrics, "GET"),
        ("/static/{name}", static, "GET"),
        ("/", here.board, "GET"),
        ("/events", here.board_events, "GET"),
        (loop, here.loop, "GET"),
        (f"{loop}/events", here.loop_events, "GET"),
        (f"{loop}/history", here.history, "GET"),
        (f"{loop}/iteration/{{number:int}}", here.iteration, "GET"),
        (f"{loop}/output/{{run}}", here.output, "GET"),
        (f"{loop}/plots", here.plots, "GET"),
        (f"{loop}/settings", here.settings, "GET"),
        (f"{loop}/export", here.export, "GET"),
        (f"{loop}/steer", here.steer, "POST"),
    ]
    routed = [Route(path, do, methods=methods.split()) for path, do, methods in pages]
    kinds = (RefusedError, HTTPException, CodexSelfIterError, OSError, Exception)
    return Starlette(
        routes=[*routed, *routes(here.known, here.journal_events)],
        exception_handlers=dict.fromkeys(kinds, _failed),
    )
