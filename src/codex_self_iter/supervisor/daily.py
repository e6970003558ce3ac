"""The daily digest: one message about all loops of this supervisor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from codex_self_iter.core import mailbox
from codex_self_iter.core.foreign import as_dict
from codex_self_iter.core.text import typed
from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor import courier, notify, recipients
from codex_self_iter.supervisor.context import Context
from codex_self_iter.views import digest as view
from codex_self_iter.views.digest import LoopDigest
from codex_self_iter.views.rows import row
from codex_self_iter.views.summary import Life, Seen, Surroundings
from codex_self_iter.world.guarded import read_object
from codex_self_iter.world.state import journal
from codex_self_iter.world.state.store import STATUS

SETTLE_SEC = 5.0
"""So long after its start a loop waits with its digest: by then all of a supervisor have a status."""
LATE_SEC = 2 * mailbox.DAY_SEC
"""A digest longer ago than this is no beginning for the next, which then tells of a day."""
_MOST_STATUS = 4_000_000


async def tell(ctx: Context) -> float | None:
    """Keep the digest, if it is time. Seconds until it is to be looked again; None for never."""
    settings, clock = ctx.settings.notify, ctx.shared.clock
    if not settings.digest_at:
        return None
    if not ctx.mail.begun:
        ctx.mail.begun = clock.monotonic()
    if (settle := ctx.mail.begun + SETTLE_SEC - clock.monotonic()) > 0:
        return settle
    last, now = await courier.opened(ctx), clock.wall()
    today, hour = recipients.digest_hour(ctx.settings, now)
    due, day = mailbox.digest_due(last.digest_day, today, reached=now >= hour)
    if day == last.digest_day:
        return hour - now if hour > now else courier.LOOK_SEC
    at, word, names = last.digest_at, None, []
    if due:
        at = now
        who = recipients.targets(ctx.settings)
        names = [one.name for one in who if "digest" in one.events]
        cause = f"digest {mailbox.key_of(settings.digest_at, settings.zone, who)}"
        if names and not courier.told_elsewhere(ctx, cause, now):
            said = await ctx.shared.in_thread(text, dict(ctx.shared.places), last.digest_at, now)
            word = notify.notice(ctx, "digest", said, ctx.state)
            key = mailbox.key_of(ctx.state.loop_id, "digest", day)  # one day may be like another
            word = dataclasses.replace(word, key=key)
    box = dataclasses.replace(ctx.mail.box, digest_day=day, digest_at=at)
    await courier.store(ctx, mailbox.added(box, word, names) if word else box)
    return courier.LOOK_SEC


def text(places: Mapping[str, tuple[str, str]], last: float, now: float) -> str:
    """What has happened since the last one, in lines. Reads files."""
    since = last if 0 <= now - last <= LATE_SEC else now - mailbox.DAY_SEC
    return "\n".join(view.brief([_of_loop(name, *at, since, now) for name, at in places.items()]))


def _of_loop(name: str, workspace: str, state_dir: str, since: float, now: float) -> LoopDigest:
    status = read_object(f"{state_dir}/{STATUS}", _MOST_STATUS) or {}
    alive = not as_dict(status.get("exit"))
    seen = Seen(name, workspace, state_dir, status, Life(alive, None, 0))
    around = Surroundings(
        now, f" --workspace {typed(workspace)}", stop=False, pause=False, bar="█░"
    )
    try:
        records = journal.since(f"{state_dir}/{journal.JOURNAL}", since)
    except StorageError:
        records = []
    return view.of_loop(seen, around, row(name, seen, around), records)
