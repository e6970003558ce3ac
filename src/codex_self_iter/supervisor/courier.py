"""Words to a person on their way: kept first, then sent, tried again, given up at last.

A target that is slow, wrong or gone is no reason for anything: each word is sent by a program of its
own, for a bounded time, in a task beside the loop."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import anyio

from codex_self_iter.core import mailbox
from codex_self_iter.core.mailbox import Entry, Mailbox, Notice
from codex_self_iter.errors import StorageError, UsageError, WorkspaceBusyError
from codex_self_iter.supervisor import recipients
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.recipients import COMMAND, Target
from codex_self_iter.views import notice as view
from codex_self_iter.world.state import outgoing
from codex_self_iter.world.state.store import StateDirectory

TOGETHER = 3
"""More words than this for one target at a time become one message."""
LEAVE_SEC = 30.0
"""For what is still to be sent when the loop has ended; the rest is sent by the next start."""
ONCE_MORE_SEC = (2.0, 5.0)
"""So long after each failure it is tried again then, unless that has taken SLOW_SEC."""
SLOW_SEC = 10.0
"""Whoever waits for a loop to end does not wait twice for a target that hangs."""
LOOK_SEC = 900.0
"""So often it is looked whether quiet hours are over, clocks were set, or targets have changed."""
SAME_SEC = 3600.0
"""For so long one cause is told by one loop only of those of a supervisor."""


async def keep(ctx: Context, notices: Iterable[tuple[Notice, str]]) -> None:
    """Keep words, each with its cause ("": its own); they are on the disk when this returns, and sent
    soon."""
    who = recipients.targets(ctx.settings)
    if not who:
        return
    box = new = await opened(ctx)
    for notice, cause in notices:
        if notice.key in new.known:
            continue
        if told_elsewhere(ctx, cause, notice.at):
            new = mailbox.passed_over(new, notice.key)
        else:
            names = [one.name for one in who if notice.event in one.events]
            new = mailbox.added(new, notice, names)
    if new is not box:
        await store(ctx, new)
    ctx.mail.woken.set()


def told_elsewhere(ctx: Context, cause: str, now: float) -> bool:
    """Whether another loop of this supervisor has told the same just now."""
    if not cause:
        return False
    name, at = ctx.shared.causes.get(cause, ("", 0.0))
    if name not in ("", ctx.name) and abs(now - at) < SAME_SEC:
        ctx.log.info("notify.shared", about=cause, told_by=name)
        return True
    ctx.shared.causes[cause] = ctx.name, now
    return False


async def run(ctx: Context, daily: Callable[[Context], Awaitable[float | None]]) -> None:
    """Send what is due, for ever. `daily` keeps what is told each day, and says in how many seconds it
    wants to look again."""
    for target in recipients.targets(ctx.settings):
        if flaw := recipients.flaw(target, ctx.shared.environ):
            ctx.warnings.tell(f"notify {target.name}", f"nothing is sent to {target.name}: {flaw}")
    while True:
        ctx.mail.woken, rests = anyio.Event(), list[float | None]()
        if recipients.targets(ctx.settings):
            rests = [await daily(ctx)]
            await _send_due(ctx)
            rests.append(mailbox.patience(ctx.mail.box, ctx.shared.clock.wall()))
        known = [rest for rest in rests if rest is not None]
        with anyio.move_on_after(min(*known, LOOK_SEC) if known else None):
            await ctx.mail.woken.wait()


async def last(ctx: Context) -> None:
    """The loop has ended. Where its supervisor goes on, what is due is sent (`afterwards` does the rest);
    else there are a few last tries, also in quiet hours, for nobody is left to send it later."""
    if not recipients.targets(ctx.settings):
        return
    if ctx.shared.stays(ctx.name):
        await _send_due(ctx)
        return
    ctx.mail.final = True
    with anyio.move_on_after(LEAVE_SEC, shield=True):
        for pause in (0.0, *ONCE_MORE_SEC):
            await anyio.sleep(pause)
            await _send_due(ctx, last=True)
            if mailbox.awaited(ctx.mail.box) <= ctx.mail.slow:
                break


def rest(ctx: Context) -> float | None:
    """After the loop's end: seconds until it is to be looked whether something is due; None where nothing
    waits, or the last tries were made."""
    found = mailbox.patience(ctx.mail.box, ctx.shared.clock.wall())
    return None if found is None or ctx.mail.final else min(found, LOOK_SEC)


async def afterwards(ctx: Context) -> bool:
    """Send what is due of a loop that has ended, as the one who has its lock; whether that could be had.
    In between anybody may start the loop, who then has its words, too."""
    path = ctx.store.path
    if not os.path.exists(f"{path}/{outgoing.OUTBOX}"):
        return False  # somebody has cleared it away
    with anyio.CancelScope(shield=True):
        try:
            store = await ctx.shared.in_thread(_taken, ctx, path)
        except (StorageError, UsageError, WorkspaceBusyError, OSError) as error:
            ctx.log.info("notify.left", error=str(error))
            return False
        try:
            ctx.mail.read = False  # somebody else may have had it
            await last(dataclasses.replace(ctx, store=store))
        finally:
            await ctx.shared.in_thread(store.close)
    return True


def _taken(ctx: Context, path: str) -> StateDirectory:
    store = ctx.shared.open_store(path, str(ctx.paths.workspace))
    try:
        store.acquire_lock(ctx.settings.lock_file_name)
    except BaseException:
        store.close()
        raise
    return store


async def _send_due(ctx: Context, *, last: bool = False) -> None:
    box, gone = mailbox.without(
        await opened(ctx), (one.name for one in recipients.targets(ctx.settings))
    )
    if gone:
        await store(ctx, box, gone)
    async with anyio.create_task_group() as tasks:  # one that hangs holds no other up
        for target in recipients.targets(ctx.settings):
            tasks.start_soon(_send_to, ctx, target, last)


async def _send_to(ctx: Context, target: Target, last: bool) -> None:
    now = ctx.shared.clock.wall()
    until = 0.0 if target.at_night or last else recipients.quiet_until(ctx.settings, now)
    if until:
        if (held := mailbox.held(ctx.mail.box, target.name, until)) != ctx.mail.box:
            await store(ctx, held)
        return
    due = mailbox.due(ctx.mail.box, target.name, now, last=last)
    if last and target.name in ctx.mail.slow:
        due = mailbox.untried(due, target.name)
    together = bool(target.url) and len(due) > TOGETHER
    for group in [due] if together else [(entry,) for entry in due]:
        if not await _sent(ctx, target, group):
            break


async def _sent(ctx: Context, target: Target, group: Sequence[Entry]) -> bool:
    """Send words to a target as one message; whether it was taken."""
    settings, box = ctx.settings, ctx.mail.box
    notices = [entry.notice for entry in group]
    page, markdown = settings.notify.page, target.markdown
    told = view.told(notices, group[0].before, dropped=box.dropped, page=page, markdown=markdown)
    payload = {"event": notices[-1].event, **view.payload(notices[-1]), "title": told.title}
    with anyio.CancelScope(shield=True):  # the loop may be ending: that is what is being told
        began = ctx.shared.clock.monotonic()
        why, rest = await recipients.send(target, told, payload, settings, ctx.shared.environ)
        slow = bool(why) and ctx.shared.clock.monotonic() - began > SLOW_SEC
        (ctx.mail.slow.add if slow else ctx.mail.slow.discard)(target.name)
        why = ctx.shown(why, mailbox.MOST_ERROR)
        keys, now = [one.key for one in notices], ctx.shared.clock.wall()
        box, over = mailbox.settled(ctx.mail.box, keys, target.name, why, now, rest)
        await store(ctx, box, over)
    who = (
        f"the [notify] command {settings.notify.command[0]!r}"
        if target.name == COMMAND
        else target.name
    )
    key = "notify" if target.name == COMMAND else f"notify {target.name}"
    if not why:
        ctx.log.info("notify.sent", target=target.name, about=notices[-1].event, count=len(notices))
        ctx.warnings.clear(key)
        return True
    ctx.log.warning("notify.failed", target=target.name, about=notices[-1].event, error=why)
    for entry in over:
        if entry.outcomes[target.name] != "sent":
            ctx.log.error("notify.given_up", target=target.name, about=entry.notice.event)
    ctx.warnings.tell(key, f"{who} failed: {why}")
    return False


async def opened(ctx: Context) -> Mailbox:
    """What waits, read once. Who changes it does so without waiting in between, and stores it."""
    async with ctx.mail.disk:
        if not ctx.mail.read:
            ctx.mail.box = await _stored(ctx, lambda: outgoing.load(ctx.store.root), ctx.mail.box)
            ctx.mail.read = True
    return ctx.mail.box


async def store(ctx: Context, box: Mailbox, over: Sequence[Entry] = ()) -> None:
    """Take this for what waits, and write down what became of the rest."""
    ctx.mail.box = box
    now = ctx.shared.clock.wall()

    def write() -> None:
        outgoing.save(ctx.store.root, ctx.mail.box)  # the newest, whoever came first
        for entry in over:
            outgoing.remember(ctx.store.root, entry, now)

    async with ctx.mail.disk:
        await _stored(ctx, write, None)


async def _stored(ctx: Context, do: Callable[[], Any], otherwise: Any) -> Any:
    """Read or write in a thread; a disk that fails is told, and holds nothing up."""
    try:
        return await ctx.shared.in_thread(do)
    except (StorageError, OSError) as error:
        ctx.warnings.tell("outbox", f"messages to be sent are only in memory: {error}")
        return otherwise
