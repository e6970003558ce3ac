"""What every request passes before anything is read for it: where it comes from, to whom it speaks,
who asks, and whether that may change something.

In this order: the peer (a named proxy's, where there is one), the name it calls us by (a stranger's
name that leads here would make its pages ours), the page that asks (Origin, Sec-Fetch-Site), the
device (cookie or token), and for a change the word that only our own pages know."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from codex_self_iter.core.foreign import as_text
from codex_self_iter.screens.page.entering import COOKIE_SEC, Door, Session
from codex_self_iter.screens.page.pages import entrance, style_source

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 1024 * 1024
"""Bytes of a form: a message of 256 KiB, every byte of it escaped, fits."""
BODY_SEC = 10.0
CSRF_HEADER, CSRF_FIELD = "x-csrf-token", "csrf"
FREE = ("/enter", "/healthz", "/static/")
"""What can be asked for from outside the door."""
HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src 'self'; style-src {style_source()}; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Address(NamedTuple):
    """Where the page is.

    Attributes:
        origins: what browsers may call it, the first for people: `https://loops.example.org`.
        proxy: the address of the named proxy, "" without one: then whoever connects is the source.
        control: whether the page may change anything."""

    origins: tuple[str, ...]
    proxy: str = ""
    control: bool = False

    @property
    def secure(self) -> bool:
        """Whether browsers reach it by TLS."""
        return self.origins[0].startswith("https:")


class RefusedError(Exception):
    """A request that is not answered, and why, in words for a person."""

    def __init__(self, status: int, words: str, **headers: str) -> None:
        self.status, self.words, self.headers = status, words, headers


class Gatekeeper:
    """The middleware around everything."""

    def __init__(self, make: Callable[[Gatekeeper], ASGIApp], door: Door, address: Address) -> None:
        """`make`: gives what is behind the door, and knows its keeper."""
        self.door, self.address = door, address
        self.hosts = {origin.partition("://")[2].lower() for origin in address.origins}
        prefix = "__Host-" if address.secure else ""
        self.cookie_name = f"{prefix}codex-self-iter-{door.port}"
        self.app = make(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._look(request)
        except RefusedError as refusal:
            answer = await to_thread.run_sync(self._refused, request, refusal)
            await answer(scope, receive, guarded)
        else:
            await self.app(scope, receive, guarded)

    async def _look(self, request: Request) -> None:
        headers, path = request.headers, request.url.path
        state = request.scope.setdefault("state", {})
        state["session"], state["form"], state["source"] = None, {}, self._source(request)
        if len(headers.getlist("host")) != 1 or headers["host"].lower() not in self.hosts:
            known = " or ".join(self.address.origins)
            raise RefusedError(421, f"This page is not known by that name; it is at {known}.")
        if request.method not in ("GET", "HEAD", "POST"):
            raise RefusedError(
                405, "Only GET, HEAD and POST are answered.", allow="GET, HEAD, POST"
            )
        self._origin(request)
        state["session"] = self._who(request, state["source"])
        if state["session"] is None and not path.startswith(FREE):
            raise RefusedError(401, self._way_in(request))
        if request.method == "POST":
            await self._change(request, state)

    def _way_in(self, request: Request) -> str:
        """What somebody outside is to do."""
        words = "Open the page by a link of `codex-self-iter serve --link`."
        if not request.headers.get("referer", "").partition("?")[0].endswith("/enter"):
            return words
        # it was let in a moment ago, and has not brought the cookie
        return f"This browser keeps no cookie of this address: allow it to. {words}"

    def _source(self, request: Request) -> str:
        """Who asks, as far as failures are counted: an address, of IPv6 its network."""
        peer = request.client.host if request.client else ""
        if self.address.proxy:
            if not _same(peer, self.address.proxy):
                raise RefusedError(403, "This page is behind a proxy: only that may connect.")
            # the last one is the proxy's own word; what stands before it anybody may have sent
            said = ",".join(request.headers.getlist("x-forwarded-for")).rpartition(",")[2]
            peer = said.strip() or peer
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return peer[:64]
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped:
                return str(address.ipv4_mapped)
            return str(ipaddress.ip_network((address, 64), strict=False))
        return str(address)

    def _origin(self, request: Request) -> None:
        headers = request.headers
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in self.address.origins:
            raise RefusedError(403, "Another site's page asks for this.")
        asked_by = headers.get("sec-fetch-site", "none")
        if asked_by not in ("same-origin", "none") and (
            headers.get("sec-fetch-mode") != "navigate" or request.method == "POST"
        ):
            raise RefusedError(403, "Another site's page asks for this.")

    def _who(self, request: Request, source: str) -> Session | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            self.heard(source)
            if self.door.opens(token.strip()):
                self.door.passed(source)
                return Session("token", "")
            self.door.failed(source)
            raise RefusedError(401, "That is not the token.")
        cookie = request.cookies.get(self.cookie_name, "")
        return self.door.session(cookie) if cookie else None

    def heard(self, source: str) -> None:
        """Raises RefusedError for a source that has failed too often."""
        if left := math.ceil(self.door.closed(source)):
            words = f"Too many failures from your address: try again in {-(-left // 60)} min."
            raise RefusedError(429, words, **{"retry-after": str(left)})

    async def _change(self, request: Request, state: dict[str, Any]) -> None:
        """Read what a POST says, and who could have said it."""
        session: Session | None = state["session"]
        by_token = session is not None and not session.csrf
        if not by_token and request.headers.get("origin") is None:
            raise RefusedError(403, "A change must come from this page.")
        entering = request.url.path == "/enter"
        state["form"] = await _form(request)
        if entering or session is None:
            return
        given = request.headers.get(CSRF_HEADER) or as_text(state["form"].get(CSRF_FIELD))
        if not by_token and not hmac.compare_digest(given.encode(), session.csrf.encode()):
            raise RefusedError(403, "This form is of another visit: load the page again.")
        if not self.address.control and request.url.path not in ("/leave", "/link"):
            raise RefusedError(403, "This page only shows: `serve --control` lets it steer.")

    def _refused(self, request: Request, refusal: RefusedError) -> Response:
        if request.url.path.startswith("/api/"):
            said = {"error": refusal.words}
            return JSONResponse(said, refusal.status, headers=refusal.headers)
        if refusal.status in (401, 429) and request.method != "POST":
            return entrance(refusal.words, refusal.status, self.door.has_token, refusal.headers)
        return PlainTextResponse(f"{refusal.words}\n", refusal.status, headers=refusal.headers)

    def let_in(self, response: Response) -> None:
        """Give the device its cookie."""
        response.set_cookie(
            self.cookie_name, self.door.cookie(), max_age=COOKIE_SEC, path="/",
            secure=self.address.secure, httponly=True, samesite="strict",
        )  # fmt: skip


def _same(one: str, other: str) -> bool:
    try:
        mine, named = ipaddress.ip_address(one), ipaddress.ip_address(other)
    except ValueError:
        return False
    return mine == named or (mine.is_loopback and named.is_loopback)


async def _form(request: Request) -> dict[str, object]:
    """The fields of a form, or a JSON object; {} for anything else."""
    try:
        async with asyncio.timeout(BODY_SEC):
            data = b""
            async for part in request.stream():
                data += part
                if len(data) > MOST_BODY:
                    raise RefusedError(413, "That is too long.")
    except TimeoutError:
        raise RefusedError(408, "The rest of the request did not come.") from None
    kind = Headers(scope=request.scope).get("content-type", "").partition(";")[0].strip()
    try:
        if kind == "application/json":
            value = json.loads(data)
            return value if isinstance(value, dict) else {}
        pairs = parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=50)
        return dict(pairs)
    except (ValueError, RecursionError):
        raise RefusedError(400, "The request cannot be read.") from None
