"""`notify test|history`: whether a word arrives, and what became of those that were sent."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from codex_self_iter.cli import _common
from codex_self_iter.core.foreign import as_dict, as_int, as_list, as_number, as_text
from codex_self_iter.core.text import clean, epoch, moment, shorten
from codex_self_iter.errors import ExitCode, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from codex_self_iter.core.mailbox import Notice
    from codex_self_iter.settings import Settings

LIMIT = 30
_MOST = 4_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = "test: send one to every target, or to one; history: what became of them (the default)"
    add("action", choices=("test", "history"), nargs="?", default="history", help=what)
    add("target", nargs="?", metavar="TARGET", help="test: only this one, by its name")
    _common.add_loop_arguments(parser, name=False)
    add("--json", action="store_true", help="history: as JSON lines")
    how = f"history: at most N (default: {LIMIT})"
    add("--limit", type=_common.positive_int, metavar="N", help=how)


def run(args: argparse.Namespace) -> int:
    """Do it. Raises UsageError where nobody is named."""
    _common.goes_with(args, args.action == "history", "'history'", "json", "limit")
    _common.goes_with(args, args.action == "test", "'test'", "target")
    return _test(args) if args.action == "test" else _history(args)


def _test(args: argparse.Namespace) -> int:
    import anyio

    from codex_self_iter.settings import load
    from codex_self_iter.supervisor import recipients
    from codex_self_iter.views.notice import message, payload

    settings = load(
        {"workspace": args.workspace}, config_file=args.config, environ=os.environ, cwd=os.getcwd()
    )
    chosen = {
        target: loop
        for loop in reversed(settings.loops())
        for target in recipients.targets(loop)
        if args.target in (None, target.name)
    }
    if not chosen:
        every = (t.name for loop in settings.loops() for t in recipients.targets(loop))
        names = ", ".join(dict.fromkeys(every))
        known = f"no target is called {args.target!r}; there are: {names}"
        raise UsageError(
            known if names else "nobody is told: [notify] names no command, url or target"
        )
    ends: dict[str, tuple[Notice, dict[str, str]]] = {}
    for target, loop in chosen.items():
        word, said = ends.setdefault(loop.name, (_word(loop), {}))
        told = message(word, None, page=loop.notify.page, markdown=target.markdown)
        why, _ = anyio.run(
            recipients.send, target, told, payload(word) | {"title": told.title}, loop, os.environ
        )
        said[target.name] = f"not sent: {why}" if why else "sent"
        _common.say(f"{target.name}: {said[target.name]}")
    for word, said in ends.values():
        _remember(word, said)
    failed = any(end != "sent" for _, said in ends.values() for end in said.values())
    return int(ExitCode.NEEDS_HUMAN if failed else ExitCode.OK)


def _word(loop: Settings) -> Notice:
    """What is sent, with what the loop's status says."""
    from codex_self_iter.core.mailbox import Notice, key_of
    from codex_self_iter.screens.loops import read_status
    from codex_self_iter.settings.paths import resolve_paths

    paths, now = resolve_paths(loop), time.time()
    status = read_status(str(paths.state_dir))
    plan = as_dict(status.get("plan"))
    return Notice(
        key=key_of("test", now),
        event="test",
        text="This is what a message looks like. Nothing has happened.",
        at=now,
        loop=loop.name,
        workspace=str(paths.workspace),
        state_dir=str(paths.state_dir),
        state=as_text(status.get("state")),
        since=epoch(status.get("since")) or 0.0,
        iteration=as_int(status.get("iteration")),
        done=as_int(plan.get("done")),
        total=as_int(plan.get("total")),
        config=loop.given_file,
    )


def _remember(word: Notice, ends: dict[str, str]) -> None:
    """Have it in the history of the loop."""
    from codex_self_iter.core.mailbox import Entry
    from codex_self_iter.errors import StorageError
    from codex_self_iter.world.state import outgoing
    from codex_self_iter.world.state.store import StateDirectory

    if not os.path.isdir(word.workspace):
        return
    try:
        store = StateDirectory(word.state_dir, word.workspace)
        try:
            outgoing.remember(store.root, Entry(word, (), ends), word.at)
        finally:
            store.close()
    except (OSError, StorageError, UsageError) as error:
        _common.say(f"Not in the history: {error}")


def _history(args: argparse.Namespace) -> int:
    """What was sent and given up, then what waits."""
    from codex_self_iter.world.guarded import read_object
    from codex_self_iter.world.state.outgoing import HISTORY, OUTBOX

    loop = _common.named_loop(args)
    path = os.path.join(loop.state_dir, HISTORY)
    over = [line for name in (f"{path}.1", path) for line in _lines(name)]
    box = read_object(os.path.join(loop.state_dir, OUTBOX), _MOST) or {}
    rests = as_dict(box.get("rests"))
    waiting = [_waiting(as_dict(entry), rests) for entry in as_list(box.get("entries"))]
    found = [*over, *waiting][-(args.limit or LIMIT) :]
    if args.json:
        sys.stdout.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in found)
        return int(ExitCode.OK)
    if not found:
        _common.say("No message was sent yet.")
    for one in found:
        at = epoch(one.get("at"))
        when = "" if at is None else moment(at)[:19]
        head = f"{when}  {clean(as_text(one.get('event')), 20):<14} {shorten(as_text(one.get('text')), 90)}"
        _common.say(head)
        for name, end in as_dict(one.get("targets")).items():
            _common.say(f"    {clean(name, 40)}: {shorten(as_text(end), 160)}")
    return int(ExitCode.OK)


def _lines(path: str) -> list[dict[str, Any]]:
    from codex_self_iter.world.guarded import parse_object, read_guarded

    try:
        data = read_guarded(path, _MOST)
    except OSError:
        return []
    return [found for line in data.splitlines() if (found := parse_object(line)) is not None]


def _waiting(entry: dict[str, Any], rests: dict[str, Any]) -> dict[str, Any]:
    """A word that waits, as the history has those that do not."""
    from codex_self_iter.core.text import iso

    notice, ends = as_dict(entry.get("notice")), dict(as_dict(entry.get("outcomes")))
    for one in map(as_dict, as_list(entry.get("pending"))):
        tries = one.get("tries")
        due = max(as_number(one.get("due")), as_number(rests.get(as_text(one.get("target")))))
        when = f", again at {moment(due)[:19]}" if due else ""
        why = f": {one['error']}" if one.get("error") else ""
        ends[as_text(one.get("target"))] = (
            f"waits after {tries} tries{when}{why}" if tries else f"waits{when}"
        )
    times = {name: iso(float(notice.get(name) or 0.0)) for name in ("at", "since")}
    return {**notice, **times, "targets": ends}
