"""`serve`: all loops in a browser, also on a phone; by itself it only shows."""

from __future__ import annotations

import argparse

from codex_self_iter.cli import _common
from codex_self_iter.cli._extra import need
from codex_self_iter.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _common.add_loop_arguments(parser, name=False)
    what = "address to listen on (default: 127.0.0.1, which only this machine reaches)"
    add("--host", default="127.0.0.1", metavar="IP", help=what)
    add("--port", type=_port, default=8420, help="default: 8420; 0: a free one")
    add("--control", action="store_true", help="let the page pause, resume, steer and stop loops")
    add("--open", action="store_true", help="open it in the browser of this machine")
    add("--link", action="store_true", help="print a new link to the page that runs, for a device")
    what = "make every link and every device's cookie void, and end"
    add("--forget", action="store_true", help=what)
    what = "file with a token (20 characters or more) that opens the page, too; chmod 600"
    add("--token-file", default="", metavar="FILE", help=what)
    add("--tls-cert", default="", metavar="FILE", help="certificate chain (PEM), to serve by TLS")
    add("--tls-key", default="", metavar="FILE", help="its private key (PEM)")
    what = "a name under which it is reached, beside --host; repeatable"
    add("--name", action="append", default=[], metavar="NAME", help=what)
    what = "the origin of a proxy before it that does TLS, such as https://loops.example.org"
    add("--proxy", default="", metavar="URL", help=what)
    what = "address that the proxy connects from (default: 127.0.0.1)"
    add("--proxy-from", default="127.0.0.1", metavar="IP", help=what)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes, or print a link. Raises UsageError."""
    need("screens", "the page", "jinja2", "starlette", "uvicorn")
    from codex_self_iter.screens.page import listening
    from codex_self_iter.screens.page.entering import Keys

    if args.forget:
        Keys().forget()
        _common.say("Every link and every device's cookie is void now.")
        return int(ExitCode.OK)
    if args.link:
        _common.say(listening.link(args.port))
        return int(ExitCode.OK)
    named = args.loop or args.workspace or args.state_dir or args.config
    loops = (_common.find_loop(args),) if named else ()
    options = listening.Options(
        host=args.host,
        port=args.port,
        control=args.control,
        browser=args.open,
        token_file=args.token_file,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        names=tuple(args.name),
        proxy=args.proxy,
        proxy_from=args.proxy_from,
        extra=loops,
    )
    return listening.serve(options, _common.say)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port, 0 to 65535, not {text!r}")
    return int(text)
