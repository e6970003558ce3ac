"""From facts to HTML: the templates, and what they may say."""

from __future__ import annotations

import base64
import functools
import hashlib
import time
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from codex_self_iter.core.text import clean_block, iso, moment, money, tokens, took
from codex_self_iter.views.summary import clock

MOST_TEXT = 1_000_000
"""Characters of one text on a page."""


def _shown(value: object) -> object:
    """Every text that reaches a page has no control characters; the templates escape it besides."""
    return clean_block(value, MOST_TEXT) if isinstance(value, str) and _plain(value) else value


def _plain(value: str) -> bool:
    return not isinstance(value, Markup)


@functools.cache
def environment() -> jinja2.Environment:
    """The templates of the package."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("codex_self_iter.screens.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        auto_reload=False,
    )
    made.filters |= {
        "iso": iso,
        "clock": lambda at: clock(at, time.time()),
        "moment": moment,
        "took": took,
        "tokens": lambda count: "" if count is None else tokens(count),
        "money": lambda cost: "" if cost is None else money(cost),
    }
    made.globals |= {"version_of": version_of, "style": style}
    return made


@functools.cache
def style() -> Markup:
    """The page's style. It is in the page itself: nothing can be painted before it is there, and a
    second request makes a browser wait for half as long again."""
    return Markup(asset("page.css").decode())  # noqa: S704 - our own


def style_source() -> str:
    """The style as a Content-Security-Policy names it: this one, and no other."""
    digest = hashlib.sha256(style().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@functools.cache
def version_of(name: str) -> str:
    """What changes with the content of an asset: browsers keep one for good under its name and this."""
    return hashlib.blake2b(asset(name), digest_size=6).hexdigest()


def render(template: str, facts: Mapping[str, Any]) -> str:
    """One template's text."""
    return environment().get_template(template).render(facts)


def page(
    template: str,
    facts: Mapping[str, Any],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """A whole page. What `base.html` needs is given, where nobody else did."""
    whole = {"stream": "", "since": "", "session": None, "control": False, **facts}
    return HTMLResponse(render(template, whole), status, headers=dict(headers or {}))


def entrance(
    words: str, status: int, has_token: bool, headers: Mapping[str, str] | None = None
) -> Response:
    """The page outside the door; with a form where a token opens it."""
    return page("enter.html", {"words": words, "token": has_token}, status, headers)


@functools.cache
def asset(name: str) -> bytes:
    """A file of `static/`. Raises FileNotFoundError for any other name."""
    known = resources.files("codex_self_iter.screens.page").joinpath("static")
    for one in known.iterdir():
        if one.name == name:  # compared, not joined: a name leads nowhere else
            return one.read_bytes()
    raise FileNotFoundError(name)
