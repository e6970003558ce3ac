"""Send one word by apprise: a JSON object on standard input; on standard output, as JSON, why it failed,
and for how many seconds the target asks to be left alone.

A program of its own, so that what a target does (hang, eat memory, crash) happens to nobody else,
and a supervisor holds none of the libraries. Exit code 0: sent; 1: not sent; 2: not understood."""

from __future__ import annotations

import email.utils
import functools
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

MOVED = (301, 302, 303)
SLOW_SEC = 20.0
"""For an answer, where the URL has no `rto`: one that is taken and not waited for is sent again."""
BUSY = (429, 503)
"""HTTP statuses with which a server may say when it is to be asked again."""


class _Heard(logging.Handler):
    """What the library says of a failure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def rest_of(response: Any) -> float:
    """Seconds after which a server wants to be asked again, by its header or (Telegram) its JSON; 0.0
    when it does not say."""
    if response.status_code not in BUSY:
        return 0.0
    said, found = response.headers.get("retry-after", ""), [0.0]
    with suppress(ValueError):
        found.append(float(said))
    with suppress(ValueError, OverflowError):
        found.append(email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    with suppress(ValueError, TypeError, KeyError, OverflowError):
        found.append(float(response.json()["parameters"]["retry_after"]))
    return max(filter(math.isfinite, found))


def heard_by(send: Callable[..., Any], rests: list[float], said: list[str]) -> Callable[..., Any]:
    """The same function, which notes what servers ask for, and where they redirect: apprise does not
    hand it out."""

    @functools.wraps(send)
    def sends(*args: Any, **how: Any) -> Any:
        response = send(*args, **how)
        rests.append(rest_of(response))
        moved = [one for one in response.history if one.status_code in MOVED]
        if moved:  # what came after was a GET: the message was not taken, whatever was answered
            response.status_code = moved[0].status_code
            said.append("it redirects: is the address right, with https (ntfys://, jsons://)?")
        return response

    return sends


def send(url: str, title: str, body: str, form: str) -> tuple[int, str, float]:
    """(exit code, why it was not sent, seconds to be left alone)."""
    import apprise
    import requests

    heard, rests = _Heard(), [0.0]
    logger = logging.getLogger("apprise")
    logger.addHandler(heard)
    logger.propagate = False
    requests.Session.send = heard_by(requests.Session.send, rests, heard.said)  # type: ignore[method-assign]
    apprise.URLBase.socket_read_timeout = SLOW_SEC
    where = apprise.Apprise()
    if not where.add(url):
        return 2, "this is no URL that apprise knows", 0.0
    sent = where.notify(body=body, title=title, body_format=form)
    return (
        (0, "", 0.0) if sent else (1, "; ".join(heard.said[-3:]) or "it was not taken", max(rests))
    )


def main() -> int:
    """Read, send, say."""
    asked: dict[str, Any] = json.load(sys.stdin)
    os.environ["NETRC"] = os.devnull  # it would go before the token of the URL
    code, why, rest = send(asked["url"], asked["title"], asked["body"], asked["format"])
    for secret in asked["secrets"]:
        why = why.replace(secret, "[redacted]")
    json.dump({"why": why[:500], "rest_sec": rest}, sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
