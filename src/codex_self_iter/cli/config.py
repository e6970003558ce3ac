"""`config show|check|schema`: what is configured and where it comes from."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from codex_self_iter.cli import _common
from codex_self_iter.cli._replies import judged
from codex_self_iter.errors import UsageError
from codex_self_iter.settings import Settings, load
from codex_self_iter.settings.effective import values
from codex_self_iter.settings.example import example_toml, json_schema, toml_value
from codex_self_iter.settings.paths import state_flaws, text_flaws


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = "show every value and its source (the default), check, or print the JSON schema"
    add("action", choices=("show", "check", "schema"), nargs="?", default="show", help=what)
    add("--workspace", metavar="DIR", help="the workspace (default: the current directory)")
    add("--config", metavar="FILE", help="the configuration file")
    add("--json", action="store_true", help="show: as JSON")
    add("--changed", action="store_true", help="show: only what differs from the default")
    add("--example", action="store_true", help="show: print config.example.toml instead")


def run(args: argparse.Namespace) -> int:
    """Print; the errors of a configuration are raised as UsageError."""
    _common.goes_with(args, args.action == "show", "'show'", "json", "changed", "example")
    if args.example and (args.json or args.changed):
        raise UsageError("--example shows every default, as TOML: leave --json and --changed out")
    if args.action == "schema":
        return _print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    if args.example:
        return _print(example_toml().rstrip("\n"))
    settings = load(
        {"workspace": args.workspace}, config_file=args.config, environ=os.environ, cwd=os.getcwd()
    )
    if args.action == "check":
        return _print(_checked(settings))
    if args.json:
        return _print(json.dumps(_as_json(settings, args.changed), indent=2, ensure_ascii=False))
    return _print("\n".join(_rows(settings, args.changed)))


def _print(text: str) -> int:
    sys.stdout.write(text + "\n")
    return 0


def _checked(settings: Settings) -> str:
    """What is said of a good configuration. Raises UsageError for a state directory, and for files of
    `[prompt]`, that a run would refuse."""
    loops = settings.loops()
    there = [loop for loop in loops if loop.workspace_path.is_dir()]
    flaws = [flaw for loop in loops for flaw in state_flaws(loop)]
    if flaws := [*flaws, *(flaw for loop in there for flaw in text_flaws(loop))]:
        raise UsageError("\n".join(dict.fromkeys(flaws)))
    source = ", ".join(map(str, settings.sources)) or "no configuration file, defaults only"
    count = f"; {len(loops)} workspaces" if settings.workspaces else ""
    good = f"The configuration is good ({source}{count})."
    return "\n".join([good, *dict.fromkeys(_warnings(loops))])


def _warnings(loops: Iterable[Settings]) -> Iterator[str]:
    """What a run would warn of at its start, as `doctor` says it."""
    from codex_self_iter.supervisor.shortfalls import command_flaws, without_effect  # import much

    for loop in loops:
        workspace = str(loop.workspace_path)
        lost = command_flaws(loop, workspace, os.environ) if os.path.isdir(workspace) else ()
        yield from (f"Warning: {one.what}; {one.mend}" for one in lost)
        yield from (f"Warning: {text}" for text in without_effect(loop))
        yield from _unheard(loop)


def _unheard(loop: Settings) -> Iterator[str]:
    """Places where nobody is heard who answers; `doctor` says what is not installed, or not set."""
    from codex_self_iter.supervisor.ears import EXTRA
    from codex_self_iter.world.installed import lack

    replies = [] if lack(*EXTRA) else loop.notify.replies
    for number, one in enumerate(replies):
        found = judged(one, os.environ)
        if found.flaw and not found.unset:
            yield f"Warning: notify.replies[{number}]: replies are not heard: {found.flaw}"


def _rows(settings: Settings, changed: bool) -> Iterator[str]:
    yield f"# configuration file: {', '.join(map(str, settings.sources)) or 'none'}"
    shown = values(settings, changed=changed)
    rows = [(f"{key} = {toml_value(value)}", origin) for key, value, origin in shown]
    width = min(56, max((len(text) for text, _ in rows), default=0))
    for text, origin in rows:
        yield f"{text:<{width}}  # {origin}"


def _as_json(settings: Settings, changed: bool) -> dict[str, Any]:
    keys = [
        {"key": key, "value": value, "origin": origin}
        for key, value, origin in values(settings, changed=changed)
    ]
    return {"schema": 1, "files": [str(path) for path in settings.sources], "keys": keys}
