"""`digest`: what happened since yesterday, over all loops."""

from __future__ import annotations

import argparse
import json
import time

from codex_self_iter.cli import _common
from codex_self_iter.core.text import iso, moment
from codex_self_iter.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--since", metavar="WHEN", default="24h", help="a date, or 90m, 12h, 7d ago (default: 24h)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for programs")
    how.add_argument("--html", action="store_true", help="one page that needs nothing beside it")
    add("-o", "--output", metavar="FILE", default="-", help='write it there; "-": stdout (default)')


def run(args: argparse.Namespace) -> int:
    """Print or write it. Raises UsageError."""
    at = _common.moment_of(args.since)
    if args.html:
        from codex_self_iter.cli._extra import need

        need("screens", "a page", "jinja2", "starlette")
    from codex_self_iter.screens.digests import digest
    from codex_self_iter.views import digest as view

    loops, now = digest(at), time.time()
    if args.html:
        from codex_self_iter.screens.page.site import digest_page

        text = digest_page(loops, at)
    elif args.json:
        text = (
            json.dumps(view.to_json(loops, iso(at), iso(now)), ensure_ascii=False, indent=2) + "\n"
        )
    else:
        text = "\n".join(view.text(loops, moment(at))) + "\n"
    _common.write_out(args.output, text.encode("utf-8", "replace"))
    return int(ExitCode.OK)
