"""The person's side of a loop: sentinels, inbox, goal, plan and task edits.

What is true is what `stat` says. `watchfiles` calls for a look after each change, so that the looks
of our own are few while it is heard; a file is opened only when it is another one than before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from codex_self_iter.core import asked
from codex_self_iter.core import events as ev
from codex_self_iter.core.plan import open_items
from codex_self_iter.core.state import GoalNote, Message
from codex_self_iter.core.terms import State
from codex_self_iter.core.text import listed
from codex_self_iter.errors import StorageError
from codex_self_iter.settings import Settings
from codex_self_iter.settings.paths import ResolvedPaths
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.documents import Document
from codex_self_iter.supervisor.workspace import Workspace
from codex_self_iter.world.state import inbox as files
from codex_self_iter.world.watch import Subscription

HEARD_SEC = 1.0
"""Between two looks while the watcher tells of changes: it may be blind on this file system."""
RESTLESS_SEC = 2.0
"""So long after a change everything is read: a file may change twice within a tick of its time."""
AFTER_ITERATION = "after-iteration"
NOW = "now"


def stop_files(settings: Settings, paths: ResolvedPaths) -> tuple[tuple[str, str], tuple[str, str]]:
    """(directory, name) of the loop's own STOP and of the workspace's."""
    return (
        (str(paths.state_dir), settings.stop_file_name),
        (str(paths.workspace), settings.global_stop_file_name),
    )


class Senses:
    """Looks at the control files of one loop and posts what changed."""

    def __init__(self, ctx: Context, workspace: Workspace) -> None:
        self._ctx, self._workspace = ctx, workspace
        # The names of the start stay: `stop` and every script follow what status.json says.
        self._stops = stop_files(ctx.settings, ctx.paths)
        self.stop_path, self.global_stop_path = (os.path.join(*stop) for stop in self._stops)
        self._state_dir = str(ctx.paths.state_dir)
        self.pause_path = os.path.join(self._state_dir, files.PAUSE_FILE)
        self._inbox_path = os.path.join(self._state_dir, "inbox")
        self._files: object = None
        self._restless = float("-inf")
        self._subscription: Subscription | None = None
        self._stop: ev.Stop | None = None
        self._pause: ev.Pause | None = None
        self._names: set[str] = set()
        self._goal: str | None = None
        self.problem = ""
        """Why a document cannot be used, at the last look; else ""."""

    # -- when to look ------------------------------------------------------------------------------

    def listen(self, hint: Callable[[], None]) -> None:
        """Let the watcher call `hint` after each change, until `stop_listening`."""
        ctx, watcher = self._ctx, self._ctx.shared.watcher
        if watcher is None:
            return
        watched = {
            "stop": self.stop_path,
            "global_stop": self.global_stop_path,
            "pause": self.pause_path,
            "inbox": self._inbox_path,
            "plan": ctx.plan.path,
            "task": ctx.task.path,
        }
        self._subscription = watcher.subscribe(watched, lambda _kind: hint())

    def stop_listening(self) -> None:
        """The loop ends: the watcher of the last one needs a moment to end, too."""
        if self._subscription is not None:
            self._subscription.close()

    def pause(self) -> float:
        """Seconds to the next look: few, unless changes are heard of and there was none lately."""
        shared = self._ctx.shared
        heard = shared.watcher is not None and shared.watcher.hint_alive
        calm = heard and shared.clock.monotonic() >= self._restless
        return max(HEARD_SEC, shared.poll_sec) if calm else shared.poll_sec

    def look(self) -> None:
        """One look at everything."""
        now = self._ctx.shared.clock.monotonic()
        paths = (self.stop_path, self.global_stop_path, self.pause_path, self._inbox_path)
        found = tuple(map(_stat, paths))
        if found != self._files:
            self._files, self._restless = found, now + RESTLESS_SEC
        restless = now < self._restless
        if restless:
            self._look_stop()
            self._look_pause()
        if restless or self._ctx.inbox.occupied:
            self._look_inbox()
        self._look_documents(now)
        if any(document.settling for document in self._ctx.documents):
            self._restless = max(self._restless, now + RESTLESS_SEC)

    def look_requests(self) -> None:
        """What was asked for before a run starts is decided before it does."""
        self._look_stop()
        self._look_pause()
        with contextlib.suppress(StorageError):
            self._look_goal()

    # -- sentinels ---------------------------------------------------------------------------------

    def stop_request(self) -> ev.Stop | None:
        """What the STOP files ask for now."""
        found = [
            (os.path.join(directory, name), text)
            for directory, name in self._stops
            if (text := files.read_stop(directory, name)) is not None
        ]
        if not found:
            return None
        # Two files may ask for different things: the one that is in a hurry counts.
        hurried = (request for request in found if request[1] != AFTER_ITERATION)
        path, text = next(hurried, found[0])
        reason = f"stopped by {path}; remove this file to run again"
        return ev.Stop(reason, after_iteration=text == AFTER_ITERATION)

    def stops_seen(self) -> tuple[object, ...]:
        """What tells the STOP files that are there from those of another look; () for none."""
        found = (_stat(self.stop_path), _stat(self.global_stop_path))
        return found if any(found) else ()

    def _look_stop(self) -> None:
        request = self.stop_request()
        if request != self._stop:
            self._stop = request
            self._ctx.post(request or ev.Unstop())

    def paused_now(self) -> bool:
        """True when a PAUSE file is there; remembers it."""
        self._pause = self._pause_request()
        return self._pause is not None

    def _pause_request(self) -> ev.Pause | None:
        text = files.read_pause(self._state_dir)
        return None if text is None else ev.Pause(f"paused by {self.pause_path}", now=text == NOW)

    def _look_pause(self) -> None:
        request = self._pause_request()
        if request != self._pause:
            self._pause = request
            self._ctx.post(request or ev.Resume())

    # -- inbox -------------------------------------------------------------------------------------

    def _look_inbox(self) -> None:
        ctx = self._ctx
        try:
            names = set(ctx.inbox.names(ctx.shared.clock.wall()))
            self._look_goal()
        except StorageError as error:
            ctx.log.debug("inbox.not_read", error=str(error))
            self._files = None  # and again
            return
        opened = ctx.state.open
        waiting = names - ({message.name for message in opened.messages} if opened else set())
        fresh = waiting - self._names
        self._names = names
        if fresh:
            ctx.log.info("inbox.message", names=sorted(fresh))
        urgent = tuple(sorted(filter(files.is_now, waiting)))
        if event := asked.steered(ctx.state, fresh=bool(fresh), urgent=urgent):
            ctx.post(event)

    def _look_goal(self) -> None:
        """Post a new goal once; its file is put aside when the goal is kept. Raises StorageError."""
        there = os.path.lexists(os.path.join(self._inbox_path, files.GOAL))
        goal = self._ctx.inbox.goal() if there else None
        if goal is not None and goal != self._goal:
            self._ctx.post(ev.GoalSet(goal, (files.GOAL,)))
        self._goal = goal

    def take(self, messages: Iterable[Message], iteration: int) -> None:
        """Put messages aside that are kept elsewhere by now. Raises StorageError."""
        inbox, marks = self._ctx.inbox, dict[str, set[str]]()
        for message in messages:
            marks.setdefault(message.name, set()).add(message.mark)
        if files.GOAL in marks and inbox.goal() != self._goal:
            del marks[files.GOAL]  # it was replaced: the next look posts it
        if marks:
            inbox.mark_done(marks, iteration, marks)

    def tell_unheard(self) -> None:
        """Say at the end which messages, goal and items of the plan came too late for every run."""
        ctx, name = self._ctx, os.path.basename(self._ctx.plan.path)
        goals = [note.goal for note in ctx.state.events if isinstance(note, GoalNote)]
        names: list[str] = []
        with contextlib.suppress(StorageError):
            goals += filter(None, [ctx.inbox.goal()])
            names = ctx.inbox.names()
        if names:
            text = (
                f"no agent has read what is in inbox/: {listed([repr(one)[:200] for one in names])}"
            )
            ctx.warnings.tell("unheard", f"{text}; the next run has it")
        if goals:
            text = f"no agent has worked on the goal that was set last: {goals[-1][:200]}"
            ctx.warnings.tell("unheard goal", f"{text}; the next start begins with it")
        late = [text for text in ctx.plan.came if text in open_items(ctx.plan.text)]
        if late and ctx.state.state is State.COMPLETED:
            text = f"{name} has open items that came in during the last run: {listed([one[:200] for one in late])}"
            ctx.warnings.tell("unheard items", text)

    # -- plan and task -----------------------------------------------------------------------------

    def _look_documents(self, now: float) -> None:
        in_run = asked.working(self._ctx.state)
        for document in self._ctx.documents:
            self.look_document(document, now, in_run=in_run)
        self.look_problem()

    def look_document(self, document: Document, now: float, *, in_run: bool) -> None:
        """Post an edit. `in_run`: while an agent is working, or has just ended."""
        edit = document.poll(now, in_run=in_run)
        if edit is None:
            return
        self._ctx.warnings.clear(f"{edit.what} unwritten")
        in_run = in_run or document.as_left
        self._ctx.post(ev.Edited(edit.what, edit.added, edit.removed, edit.ticks_only, in_run))
        if not in_run:  # who edits it has seen what is in it
            document.missing = ()
            self._ctx.warnings.clear(f"{document.what} items")
            self._workspace.look_again()

    async def mend_documents(self) -> None:
        """Put back what a run or the gates have deleted, and say so, to the next agent as well."""
        if not self._ctx.paths.workspace.is_dir():
            return  # nothing is made in its place
        warnings = self._ctx.warnings
        for document in self._ctx.documents:
            home = await self._workspace.left_on(document.path) if document.lost() else ""
            document.away = bool(home)
            try:
                said = document.put_back() if not home else _away(document, home)
            except StorageError as error:
                said = str(error)
            key = f"{document.what} put back"
            warnings.tell(key, said, agent=True) if said else warnings.clear(key)

    def look_problem(self) -> None:
        """Hold the loop while a document cannot be used."""
        problem = "; ".join(filter(None, (document.problem for document in self._ctx.documents)))
        if problem != self.problem:
            self.problem = problem
            self._ctx.post(ev.Block(ev.Hold.PLAN, problem) if problem else ev.Unblock(ev.Hold.PLAN))


def _away(document: Document, home: str) -> str:
    name, now = os.path.basename(document.path), "the branch that a run has checked out"
    return f"{name} is not on {now}: the loop goes on with its text of {home}"


def _stat(path: str) -> tuple[int, int, int, int] | None:
    """What is another one after each change; None for what cannot be looked at."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
