"""`codex-self-iter-acp [OPTIONS] -- COMMAND`: one run of an ACP agent, the prompt on stdin."""

from __future__ import annotations

import argparse
import os
import sys

from codex_self_iter.acp_host.turn import Run
from codex_self_iter.core.acp_agents import ACP_AGENTS

_ABOUT = """\
Give the prompt on stdin to an agent that speaks the Agent Client Protocol, and write what it says
to stdout, a JSON object a line.
"""
_CODES = (
    "Exit codes: 0 it answered; 1 it failed (the last line says why); 2 bad usage; 127 its program "
    "is not there; 130 and 143 it was ended by SIGINT or SIGTERM."
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="codex-self-iter-acp", description=_ABOUT, epilog=_CODES)
    add = parser.add_argument
    known = ", ".join(ACP_AGENTS)
    add("--agent", default="", help=f"whose peculiarities to heed: {known} (default: by its name)")
    modes = ("safe", "bypass")
    add("--mode", choices=modes, default="safe", help="what it may do (default: edit files)")
    add("--read-only", action="store_true", help="it may change nothing")
    add("--cwd", default="", metavar="DIR", help="the workspace (default: here)")
    more = "a place outside the workspace that it may change, too"
    add("--writable", action="append", default=[], metavar="PATH", help=more)
    add("--model", default="", help="the model to ask for")
    add("--effort", default="", help="the reasoning effort to ask for")
    add("--resume", default="", metavar="ID", help="the session to go on with")
    before = "what that session has used before, as INPUT,CACHED,OUTPUT,COST"
    add("--before", type=_used, default=None, metavar="USED", help=before)
    add("--probe", action="store_true", help="open a session, and end: nothing is asked")
    add("--control", default="", metavar="FILE", help="where texts for the running turn arrive")
    grace = "seconds in which the agent must be gone after SIGTERM (default: 10)"
    add("--grace", type=float, default=10.0, metavar="SEC", help=grace)
    add("command", nargs="+", metavar="COMMAND", help="the agent's program, with its arguments")
    return parser


def _used(text: str) -> tuple[int, int, int, float]:
    into, cached, out, cost = text.split(",")
    return int(into), int(cached), int(out), float(cost)


def main(argv: list[str] | None = None) -> int:
    """Run; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        options.cwd = os.path.abspath(options.cwd or ".")
    except OSError as error:
        options.cwd, flaw = "", error.strerror
    else:
        flaw = "" if os.path.isdir(options.cwd) else "not a directory"
    if flaw:
        print(f"codex-self-iter-acp: workspace {options.cwd}: {flaw}", file=sys.stderr)
        return 2
    prompt = "" if options.probe else sys.stdin.buffer.read().decode("utf-8", "replace")
    return Run(options, prompt).run()


def run() -> None:
    """The program `codex-self-iter-acp`."""
    sys.exit(main())


if __name__ == "__main__":
    run()
