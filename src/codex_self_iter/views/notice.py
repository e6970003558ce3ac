"""Words to a person, as they stand on a lock screen: which loop, what, why, since when, what was done
since the last word, and the one thing to do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from codex_self_iter.core.mailbox import Notice
from codex_self_iter.core.text import age, clean, counted, iso, moment, shorten, typed

TITLES = {
    "completed": "completed",
    "stopped": "has stopped",
    "stagnated": "goes in circles and has ended",
    "crashed": "has crashed",
    "blocked": "needs you",
    "agent_stopped": "asks you",
    "budget": "nears its budget",
    "outage": "cannot go on for now",
    "cooldown": "gets nowhere",
    "digest": "the last day",
    "test": "a test",
}
"""By event: what has happened, in a few words."""
MOST_TEXT, MOST_LISTED = 700, 10


class Message(NamedTuple):
    """What is sent; the body is Markdown where that is asked for."""

    title: str
    body: str


def told(
    notices: Sequence[Notice], last: Notice | None, *, dropped: int, page: str, markdown: bool
) -> Message:
    """One word, or several of one loop as one; the arguments are those of `message`."""
    if len(notices) == 1:
        return message(notices[0], last, dropped=dropped, page=page, markdown=markdown)
    return summary(notices, dropped=dropped, page=page, markdown=markdown)


def message(
    notice: Notice, last: Notice | None, *, dropped: int = 0, page: str = "", markdown: bool = False
) -> Message:
    """One word. `last`: the one before; `dropped`: how many went without; `page`: where the page of
    all loops is, "" for nowhere."""
    if notice.event == "digest":
        title, *lines = notice.text.splitlines()
    else:
        title = f"{notice.loop}: {_what(notice)}"
        lines = [shorten(notice.text, MOST_TEXT), _where(notice)]
        lines += [f"Last: {shorten(notice.said, 200)}"] if notice.said else []
        lines += [_since(notice, last)] if last is not None else []
    lines += [f"{counted(dropped, 'earlier message')} could not be kept."] if dropped else []
    return Message(clean(title, 150), _with_ways(lines, notice, page, markdown))


def summary(
    notices: Sequence[Notice], *, dropped: int = 0, page: str = "", markdown: bool = False
) -> Message:
    """Several words of one loop as one, the newest last."""
    newest = notices[-1]
    title = clean(f"{newest.loop}: {len(notices)} messages, the last: {_what(newest)}", 150)
    shown = notices[-MOST_LISTED:]
    mark = "- " if markdown else ""
    lines = [f"{mark}{moment(one.at)[:16]} {_what(one)}: {shorten(one.text, 120)}" for one in shown]
    left = len(notices) - len(shown) + dropped
    lines = [f"{counted(left, 'earlier message')} not shown.", *lines] if left else lines
    return Message(title, _with_ways([*lines, _where(newest)], newest, page, markdown))


def _what(notice: Notice) -> str:
    return TITLES.get(notice.event, notice.event)


def _where(notice: Notice) -> str:
    """Where the loop was when it happened, and when that was: a message may have waited."""
    if not notice.state:
        return f"No loop has run there yet, {moment(notice.at)[:16]}."
    plan = f", plan {notice.done} of {notice.total}" if notice.total else ""
    files = f", {counted(notice.changed, 'file')} changed by the last" if notice.changed else ""
    lasted = f" for {age(notice.at - notice.since)}" if 0 < notice.since < notice.at - 60 else ""
    when = f", {moment(notice.at)[:16]}"
    return f"{notice.state.capitalize()}{lasted}, iteration {notice.iteration}{plan}{files}{when}."


def _since(notice: Notice, last: Notice) -> str:
    """What was done since the last word."""
    iterations, items = notice.iteration - last.iteration, notice.done - last.done
    parts = [counted(iterations, "iteration")] if iterations > 0 else []
    parts += [counted(items, "item") + " ticked"] if items > 0 else []
    return (
        f"Since the last message, {age(notice.at - last.at)} ago: {', '.join(parts) or 'nothing'}."
    )


def page_key(state_dir: str) -> str:
    """What a loop is called in addresses of the page: no name and no path can be made of it."""
    return hashlib.sha256(state_dir.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _with_ways(lines: Sequence[str], notice: Notice, page: str, markdown: bool) -> str:
    where = f" --workspace {typed(notice.workspace)}"
    own = where + (f" --config {typed(notice.config)}" if notice.config else "")
    command = {
        "digest": "codex-self-iter digest",
        "completed": f"codex-self-iter history{where}",
        "stagnated": f"codex-self-iter show{where} {notice.iteration or ''}".rstrip(),
        "agent_stopped": f'codex-self-iter steer{where} "…" && codex-self-iter run{own}',
        "budget": f"codex-self-iter config show --changed{own}",
        "crashed": f"codex-self-iter doctor{own}",
    }.get(notice.event, f"codex-self-iter status{where}")
    if notice.gone:  # no command takes a workspace that is not there
        command = "codex-self-iter status --all"
    shown = [clean(line, 1000) for line in lines]
    shown.append(f"`{command}`" if markdown else command)
    if page and notice.state_dir and not notice.gone and notice.event != "digest":
        page = f"{page.rstrip('/')}/loop/{page_key(notice.state_dir)}"
    shown += [page] if page else []
    return ("\n\n" if markdown else "\n").join(shown)


def payload(notice: Notice) -> dict[str, object]:
    """What a command is told of it (docs/notifications.md)."""
    return {
        "event": notice.event,
        "text": notice.text,
        "loop": notice.loop,
        "workspace": notice.workspace,
        "iteration": notice.iteration,
        "state": notice.state,
        "at": iso(notice.at),
        "since": iso(notice.since),
        "plan": {"done": notice.done, "total": notice.total},
        "said": notice.said,
        "key": notice.key,
    }
