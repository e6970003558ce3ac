"""Send one word by apprise: a JSON object on standard input, the reason of a failure on standard output.

A program of its own, so that what a target does (hang, eat memory, crash) happens to nobody else,
and a supervisor holds none of the libraries. Exit code 0: sent; 1: not sent; 2: not understood."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any


class _Heard(logging.Handler):
    """What the library says of a failure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def send(url: str, title: str, body: str, form: str) -> tuple[int, str]:
    """(exit code, why it was not sent)."""
    import apprise

    heard = _Heard()
    logger = logging.getLogger("apprise")
    logger.addHandler(heard)
    logger.propagate = False
    where = apprise.Apprise()
    if not where.add(url):
        return 2, "this is no URL that apprise knows"
    sent = where.notify(body=body, title=title, body_format=form)
    return (0, "") if sent else (1, "; ".join(heard.said[-3:]) or "it was not taken")


def main() -> int:
    """Read, send, say."""
    asked: dict[str, Any] = json.load(sys.stdin)
    code, why = send(asked["url"], asked["title"], asked["body"], asked["format"])
    for secret in asked["secrets"]:
        why = why.replace(secret, "[redacted]")
    sys.stdout.write(why[:500])
    return code


if __name__ == "__main__":
    sys.exit(main())
