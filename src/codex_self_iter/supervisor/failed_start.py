"""What a loop leaves that has failed before it knew its past: the same as at every end."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import anyio

from codex_self_iter.core.mailbox import Notice, key_of
from codex_self_iter.core.state import LoopState
from codex_self_iter.core.terms import State
from codex_self_iter.errors import ExitCode
from codex_self_iter.settings import Settings
from codex_self_iter.settings.paths import resolve_paths
from codex_self_iter.supervisor import ending, recipients
from codex_self_iter.supervisor.senses import stop_files
from codex_self_iter.supervisor.shared import Shared
from codex_self_iter.views import notice as words
from codex_self_iter.views import status as view
from codex_self_iter.views.report import report
from codex_self_iter.world.guarded import read_object
from codex_self_iter.world.state.inbox import PAUSE_FILE
from codex_self_iter.world.state.redact import Redactor
from codex_self_iter.world.state.store import STATUS, StateDirectory

_MOST = 16 * 1024 * 1024


async def tell(
    shared: Shared,
    settings: Settings,
    error: BaseException,
    again_sec: float | None,
    store: StateDirectory | None,
) -> None:
    """Log it, leave status and report where nobody else has the workspace, tell a person."""
    name, now = settings.name, shared.clock.wall()
    log = shared.log if shared.alone else shared.log.bind(loop=name)
    with anyio.CancelScope(shield=True):
        reason = await ending.say_defect(log, name, error, again_sec)
        code = int(ExitCode.INTERNAL)
        state = LoopState("", state=State.CRASHED, since=now, reason=reason, exit_code=code)
        if again_sec is None:
            log.error("loop.ended", state=state.state.value, reason=reason, exit_code=code)
        with contextlib.suppress(Exception):  # what failed the loop may fail this, too
            await shared.in_thread(_leave, shared, settings, state, store)
        await _tell_person(shared, settings, state)


async def _tell_person(shared: Shared, settings: Settings, state: LoopState) -> None:
    """Once: there is nothing in which it could be kept for another try."""
    event, redact = state.state.value, Redactor.from_environment(shared.environ).text
    word = Notice(
        key=key_of(settings.name, event, state.reason),
        event=event,
        text=redact(state.reason),
        at=state.since,
        loop=settings.name,
        workspace=str(settings.workspace_path),
        state_dir="",
        state=event,
        since=state.since,
        iteration=0,
        config=settings.given_file,
    )
    for target in recipients.targets(settings):
        if event in target.events:
            told = words.message(word, None, page=settings.notify.page, markdown=target.markdown)
            payload = words.payload(word) | {"title": told.title}
            await recipients.send(target, told, payload, settings, shared.environ)


def _leave(
    shared: Shared, settings: Settings, state: LoopState, given: StateDirectory | None
) -> None:
    paths, moment = resolve_paths(settings), shared.moment()
    directory = str(paths.state_dir)
    own, every = (os.path.join(*place) for place in stop_files(settings, paths))
    store = given or shared.open_store(directory, str(paths.workspace))
    try:
        if store.lock is None:
            store.acquire_lock(settings.lock_file_name)
        facts = view.Facts(
            pid=os.getpid(),
            workspace=str(paths.workspace),
            state_dir=directory,
            name=settings.name,
            mode=settings.mode,
            agent=settings.agent,
            started_at=moment.wall,
            config=settings.given_file,
            log=f"{directory}/logs/supervisor.log",
            stop_file=own,
            global_stop_file=every,
            pause_file=os.path.join(directory, PAUSE_FILE),
        )
        fresh: dict[str, Any] = view.status(state, facts, moment)
        known = read_object(os.path.join(directory, STATUS), _MOST) or {}
        kept = (
            "iteration",
            "goal",
            "agent",
            "last",
            "recent",
            "counters",
            "usage",
            "totals",
            "owed",
            "plan",
            "disk",
        )
        past = {key: known[key] for key in kept if known.get("schema") == 1 and key in known}
        store.save_status(store.redactor.value(fresh | past))
        text = report(state, [], plan="", task="", times={}, now=moment.wall)
        store.write_report(store.redactor.text(text))
    finally:
        if given is None:
            store.close()
