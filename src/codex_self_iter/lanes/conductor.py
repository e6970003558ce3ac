"""What a loop with lanes does: event -> decide -> persist -> act, until nothing is left.

It starts no agent in the workspace itself: that is the person's. Each lane is a loop of its own in a
work tree of its own; all share pool, limits, log and signals of this supervisor."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import anyio
from anyio.abc import ObjectReceiveStream

from codex_self_iter.core import budget
from codex_self_iter.core import commands as do
from codex_self_iter.core import events as ev
from codex_self_iter.core import lanes as core
from codex_self_iter.core.lane_items import items
from codex_self_iter.core.lane_machine import decide
from codex_self_iter.core.lanes import Lanes, LaneState, Rules, Wish
from codex_self_iter.core.plan_lint import lint
from codex_self_iter.core.state import StopSource
from codex_self_iter.core.terms import State
from codex_self_iter.core.text import age, counted, iso, listed, money, typed
from codex_self_iter.errors import (
    CodexSelfIterError,
    ExitCode,
    StorageError,
    UsageError,
)
from codex_self_iter.lanes import comparison, found_there
from codex_self_iter.lanes.crew import Crew
from codex_self_iter.lanes.lane_journal import append
from codex_self_iter.lanes.places import Places
from codex_self_iter.lanes.yard import COMPARING, TREE, Yard
from codex_self_iter.supervisor import courier, ending, notify
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.rounds import Rounds
from codex_self_iter.views import lane_rows as view
from codex_self_iter.world.git import lane_trees
from codex_self_iter.world.git.follow import short
from codex_self_iter.world.git.run import Git, GitError
from codex_self_iter.world.process.tool import run_tool
from codex_self_iter.world.start import start_directory
from codex_self_iter.world.state import lane_files

SAVE_SEC = 1.0
"""Between two tries to write the state, before which nothing is done."""
FOLLOW_SEC = 5.0
"""So often it is looked whether the target can follow what has landed beside it."""
PAUSE_SEC = 2.0
"""Before a landing that failed is tried again; it doubles, up to MOST_SEC."""
LOGGED = {
    "begun": "lane.begun", "ready": "lane.ready", "returned": "lane.returned", "halved": "landing.halved",
    "chosen": "lane.chosen", "landed": "lane.landed", "kept": "lane.kept", "dropped": "lane.dropped",
    "retried": "lane.retried", "needs_you": "lane.needs_you", "lost": "lane.lost",
}  # fmt: skip
"""Events of the journal of lanes as the log has them."""
_CODES = {State.COMPLETED: ExitCode.OK, State.STOPPED: ExitCode.OK}


class Conductor(Rounds):
    """The lanes of one plan.

    Attributes:
        lanes: what is decided by now; crew: the loops of the lanes, once it has begun."""

    def __init__(self, ctx: Context, events: ObjectReceiveStream[ev.Event]) -> None:
        super().__init__(ctx, events)
        self.lanes = Lanes()
        self._deciding = anyio.Lock()
        self._git = Git(run_tool, str(ctx.paths.workspace), self._patience)
        self._yard: Yard
        self._places: Places
        self.crew: Crew
        self._booted = False
        self._held = ExitStack()
        """What is had until the end."""
        self._scopes: dict[str, anyio.CancelScope] = {}
        """What is under way of making and landing, by what it is."""
        self._holds: dict[str, str] = {}
        """Why nothing may be begun now, by who says so."""
        self._follow_at = self._counted_at = 0.0
        self._taken: set[str] = set()
        """Files of wishes that are being carried out."""
        self._begun_at = ""
        """The target's commit at the start."""

    @property
    def loops(self) -> list[Loop]:
        """Those of the lanes that are on."""
        return [*self.crew.loops.values()] if self._booted else []

    @property
    def _patience(self) -> float:
        return float(self.ctx.settings.git.timeout_sec) or math.inf

    @property
    def _rules(self) -> Rules:
        found = self.ctx.settings.lanes
        roles = self.ctx.settings.mode == "roles"
        return Rules(found.max, found.candidates, found.batch, found.max_conflicts, roles)

    # -- a start -----------------------------------------------------------------------------------

    async def _boot(self, ready: anyio.Event) -> None:
        ctx, stop = self.ctx, self.senses.stop_request()
        if ctx.state.open is not None:
            raise UsageError(
                f"iteration {ctx.state.open.number} of the loop without lanes has not ended; end it "
                "first: run once without --lanes (with --once)"
            )
        ctx.state = dataclasses.replace(
            ctx.state, state=State.RUNNING, since=ctx.shared.clock.wall(), reason="", wait=None,
            exit_code=None, blocked_by={}, stops={}, paused=False,
        )  # fmt: skip
        try:
            repository = await found_there.repository(self._git)
            self._places = Places.of(ctx, repository, self._held)
            self._yard = Yard(ctx, self._git, self._places)
            self._yard.plan = await found_there.plan_place(ctx, self._git)
            self.lanes = await found_there.loaded(ctx, self._git)
            self._begun_at = self.lanes.target_commit
            self.crew = Crew(
                ctx, self._git, self._yard, self._places, lambda: self.lanes, self._decide
            )
        except (GitError, OSError) as error:
            raise UsageError(f"lanes: {error}") from error
        for name in (TREE, COMPARING):
            tree = self._places.tree(name)
            await ctx.shared.host.sweep_strays(self._places.workspace(tree), "")
        self._fit_pool()
        found = items(ctx.plan.text)
        if not found:
            raise UsageError(
                f"{ctx.plan.path} has no items (`- [ ] …`), so there is nothing for lanes"
            )
        faults = [one for one in lint(ctx.plan.text) if one.rule == "after"]
        if faults:
            lines = (f"{ctx.plan.path}:{one.line}: {one.what}; {one.mend}" for one in faults)
            raise UsageError("\n".join(lines))
        target, most = short(self.lanes.target), ctx.settings.lanes.max
        text = f"lanes: {most} at once, landing on {target}; work trees in {self._places.directory}"
        ctx.log.info("loop.terms", text=text)
        if stop is None:
            self.hooks.fire("on_start")
        self._booted = True
        ready.set()
        if stop is not None:
            await self.handle(dataclasses.replace(stop, after_iteration=False))
            return
        if self.senses.paused_now():
            await self._hold("pause", "paused")
        if self.lanes.held and not self.lanes.landing:
            await self._follow()  # what was in the way may be gone
        wishes = self._wishes()
        if wishes:  # else it might end before they are heard: all that is left waits for a person
            await self._decide(core.Pause(True))
        await self.crew.forget_old()
        await self._decide(core.Boot(found))
        for wish in wishes:
            await self._take(*wish)
        if wishes and not self._holds:
            await self._decide(core.Pause(False))

    def _fit_pool(self) -> None:
        """A place for the run of each lane, unless the pool was bounded on purpose."""
        ctx = self.ctx
        pool, most = ctx.shared.pool, ctx.settings.lanes.max
        if ctx.settings.origin("pool", "max_agents") == "default" and pool.slots < most:
            pool.resize(most, {str(k): n for k, n in ctx.settings.pool.per_agent.items()})

    # -- deciding ----------------------------------------------------------------------------------

    async def _decide(self, event: core.Event) -> None:
        """Decide, write down what was decided, then do it."""
        ctx = self.ctx
        if isinstance(event, core.Over) and (over := self._overspent()):
            await self._decide(
                core.Halt(over, spent=True)
            )  # the lane is not to need a person for it
        async with self._deciding:
            if self.ended is not None:
                return
            before = self.lanes
            state, todo = decide(before, event, self._rules, ctx.shared.clock.wall())
            if state != before:
                self.lanes = state
                await self._save()
            notes = [one for one in todo if isinstance(one, core.Note)]
            if notes:
                await self._journal(notes)
            self._call_off()
            self._show()
            for one in todo:
                await self._carry_out(one)
        ctx.shared.on_round()

    async def _save(self) -> None:
        """Write the state; while that cannot be, nothing is done, and it is said."""
        ctx = self.ctx
        data = json.dumps(core.to_json(self.lanes), ensure_ascii=False).encode("utf-8", "replace")
        while True:
            try:
                await ctx.shared.in_thread(partial(ctx.store.root.replace, found_there.STATE, data))
                ctx.warnings.clear("lanes not saved")
                return
            except StorageError as error:
                ctx.warnings.tell("lanes not saved", f"the state of the lanes: {error}")
                ctx.tell()
                if self.crew.stop is not None:
                    return
            await ctx.shared.clock.sleep(SAVE_SEC)

    async def _journal(self, notes: list[core.Note]) -> None:
        ctx, now = self.ctx, iso(self.ctx.shared.clock.wall())
        lines = [{"ts": now, "event": n.event, "lane": n.lane, **n.fields} for n in notes]
        for one in notes:
            say = ctx.log.warning if one.event == "needs_you" else ctx.log.info
            say(LOGGED[one.event], lane=one.lane, **one.fields)
        kept = [ctx.store.redactor.value(line) for line in lines]
        try:
            await ctx.shared.in_thread(append, ctx.store.root, kept)
        except StorageError as error:
            ctx.warnings.tell("lanes journal", f"the journal of the lanes: {error}")

    async def _carry_out(self, command: core.Command) -> None:
        match command:
            case core.Make(which):
                self._begin(f"make {which}", self.crew.make, which)
            case core.Begin(which):
                self._begin(f"lane {which}", self.crew.work, which)
                if not self.lanes.of(LaneState.MAKING):
                    self._begin("make the tree of landings", self._yard.prepare, self.lanes)
            case core.End(which):
                if loop := self.crew.loops.get(which):
                    self.crew.end(loop)
            case core.Tell(which, text):
                await self.crew.tell(which, text)
            case core.Land(names, pause):
                if scope := self._scopes.get("land"):  # of other lanes
                    scope.cancel()
                self._begin("land", self._land, names, pause)
            case core.Move():
                self._begin("move", self._move)
            case core.Judge(item, names):
                self._begin(f"judge {item}", self._judge, item, names)
            case core.Clear(which):
                self._begin(f"clear {which}", self.crew.clear, which)
            case core.Person(text):
                notify.tell(self.ctx, "blocked", text, self.ctx.state)
            case core.Finish(state, reason):
                await self._finish(state, reason)
            case core.Note():
                pass

    def _begin(self, what: str, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Do it in a task that can be called off."""

        async def task() -> None:
            with anyio.CancelScope() as scope:
                self._scopes[what] = scope
                await function(*args)
            if self._scopes.get(what) is scope:
                del self._scopes[what]

        self.ctx.start(what, task)

    def _call_off(self) -> None:
        """End a landing that is not wanted any more."""
        if self.lanes.landing is None and (scope := self._scopes.get("land")):
            scope.cancel()

    # -- landing -----------------------------------------------------------------------------------

    async def _land(self, names: tuple[str, ...], pause: int) -> None:
        if pause:
            await self.crew.rest(PAUSE_SEC, pause)
        self.ctx.log.info("landing.started", lanes=list(names))
        answer = await self._yard.prove(self.lanes, names)
        if isinstance(answer, core.Delayed):
            self.ctx.log.warning("landing.delayed", lanes=list(names), error=answer.why)
        self._answer(answer)

    async def _move(self) -> None:
        landing = self.lanes.landing
        if landing is None:
            return
        with anyio.CancelScope(shield=True):
            answer = await self._yard.move(self.lanes, landing)
        self._answer(answer)

    async def _judge(self, item: str, names: tuple[str, ...]) -> None:
        """Have the reviewer compare candidates; where that cannot be, it is said."""
        lanes = [one for one in map(self.lanes.lane, names) if one is not None]
        try:
            best, why = await comparison.compare(self.ctx, self._yard, self._git, lanes)
        except (GitError, CodexSelfIterError, OSError) as error:
            best, why = "", str(error)
        key = f"compare {item}"
        if best:
            self.ctx.warnings.clear(key)
        else:
            text = f"the candidates {listed(names)} were not compared by the reviewer: {why}"
            self.ctx.warnings.tell(key, text)
        self.ctx.log.info("lane.compared", lane=best, lanes=list(names), why=why)
        self._answer(core.Judged(item, best, why if best else ""))

    def _answer(self, event: core.Event) -> None:
        """Decide it in a task of its own: what has asked is not to be called off by it."""
        self.ctx.start("decide", self._decide, event)

    async def _follow(self) -> None:
        """Look whether the target can follow by now."""
        try:
            with anyio.CancelScope(shield=True):  # else it leaves the locks of the checkout
                held = await self._yard.catch_up(self.lanes)
            commit = await self._git.resolve(f"{self.lanes.target}^{{commit}}")
        except GitError as error:
            held, commit = str(error), ""
        if held != self.lanes.held:
            await self._decide(core.Followed(held, commit))

    # -- what is asked for -------------------------------------------------------------------------

    async def handle(self, event: ev.Event) -> None:
        """What the person's files, signals and conditions ask for."""
        ctx = self.ctx
        match event:
            case ev.Stop():
                await self._stop_all(event)
            case ev.Unstop() if self.crew.stop is not None and self.crew.stop.after_iteration:
                self.crew.stop = None
                self.crew.stopping = anyio.Event()
                self.crew.forward(event)
                await self._decide(core.Halt(""))
            case ev.Pause():
                await self._hold("pause", "paused")
                self.crew.pause(now=event.now)
            case ev.Resume():
                await self._hold("pause", "")
                self.crew.pause(now=None)
            case ev.Block(name, reason):
                await self._hold(name.value, reason)
            case ev.Unblock(name):
                await self._hold(name.value, "")
            case ev.Edited(what="plan"):
                if await self._plan_is_the_targets():
                    await self._decide(core.Planned(items(ctx.plan.text)))
            case _:
                pass
        self._apply_when_due()
        if self.ended is None:
            ctx.tell()
        ctx.shared.on_round()

    async def _plan_is_the_targets(self) -> bool:
        """Whether the file is the target's plan: not while another branch is checked out."""
        if not self._yard.plan:
            return True
        try:
            return await self._yard.is_here(self.lanes.target)
        except GitError:
            return False

    async def _hold(self, who: str, why: str) -> None:
        if why:
            self._holds[who] = why
        else:
            self._holds.pop(who, None)
        self.crew.paused = "pause" in self._holds
        await self._decide(core.Pause(bool(self._holds)))

    async def _stop_all(self, event: ev.Stop) -> None:
        harder = self.crew.stop is None or not event.after_iteration
        self.crew.stop = event if harder else self.crew.stop
        self.hooks.stopping.set()
        self.crew.stopping.set()
        if event.source is not StopSource.SIGNAL:  # that has reached them already
            self.crew.forward(event)
        if not event.after_iteration:
            for what, scope in list(self._scopes.items()):
                if what == "land" or what.startswith(("make", "judge")):
                    scope.cancel()
        await self._decide(core.Halt(event.reason))
        if not event.after_iteration:
            if self.lanes.landing is not None and not self.lanes.landing.commit:
                await self._decide(core.Delayed(event.reason))
            for one in self.lanes.of(LaneState.MAKING):
                if one.id not in self.lanes.idle:
                    await self._decide(core.Idle(one.id))

    def look(self) -> float:
        """One look at everything, also at what lanes need."""
        patience = super().look()
        now = self.ctx.shared.clock.monotonic()
        self._look_wishes()
        if self.ctx.inbox.occupied and self.crew.loops:
            self.crew.pass_messages()
        if now - self._follow_at >= FOLLOW_SEC:
            self._follow_at = now
            self._look_again()
        if now - self._counted_at >= 1.0:
            self._counted_at = now
            self._look_budget()
            self._show()
        return patience

    def _look_again(self) -> None:
        """Whether what was in the way of the target, or of the end of a work tree, is gone."""
        if self.lanes.held and not self.lanes.landing:
            self._begin("follow", self._follow)
        for one in self.lanes.of(*core.OVER):
            if one.left and f"clear {one.id}" not in self._scopes:
                self._begin(f"clear {one.id}", self.crew.clear, one.id)

    def _look_wishes(self) -> None:
        for one in self._wishes():
            self._taken.add(one[0])
            self.ctx.start("asked", self._take, *one)

    def _wishes(self) -> list[tuple[str, Wish, str]]:
        """What is asked of lanes, and is not under way."""
        ctx = self.ctx
        if not os.path.isdir(os.path.join(ctx.store.path, lane_files.ASKED)):
            return []
        try:
            found = lane_files.read_wishes(ctx.store.root)
        except StorageError as error:
            ctx.log.debug("inbox.not_read", error=str(error))
            return []
        return [one for one in found if one[0] not in self._taken]

    async def _take(self, name: str, wish: Wish, which: str) -> None:
        """Decide it, then take its file away: a kill in between asks once more."""
        self._taken.add(name)
        await self._asked(wish, which)
        try:
            lane_files.done(self.ctx.store.root, name)
        except StorageError as error:
            self.ctx.log.debug("inbox.not_read", error=str(error))
        else:
            self._taken.discard(name)

    async def _asked(self, wish: Wish, which: str) -> None:
        before = self.lanes
        await self._decide(core.Asked(wish, which))
        lane = before.lane(which)
        if before == self.lanes:
            why = f"it is {lane.state.value}" if lane else "there is no such lane"
            self.ctx.log.warning("lane.refused", lane=which, asked=wish.value, error=why)
        else:
            self.ctx.log.info("lane.asked", lane=which, asked=wish.value)

    # -- budget and what is shown ------------------------------------------------------------------

    def _look_budget(self) -> None:
        if over := self._overspent():
            self._answer(core.Halt(over, spent=True))

    def _overspent(self) -> str:
        """Which budget is spent since the last look, "" for none; then no loop begins another run."""
        ctx = self.ctx
        spent = self.crew.spent()
        ctx.state = dataclasses.replace(ctx.state, spent=spent)
        over = budget.exceeded(spent, ctx.policy.budget, ctx.shared.clock.wall())
        if over and not self.lanes.spent and self.crew.stop is None:
            stop = ev.Stop(over, after_iteration=True, source=StopSource.CONFIG)
            self.crew.forward(stop)
            return over
        return ""

    def _show(self) -> None:
        """What status.json says, until the end has been said."""
        ctx, state = self.ctx, self.lanes
        if ctx.state.exit_code is not None:
            return
        told = view.told(state, self._rules.most, ctx.store.path)
        said = (
            State.STOPPING if self.crew.stop else State.PAUSED if "pause" in self._holds else None
        )
        reason = self._reason()
        now = said or (State.BLOCKED if self._holds else State.RUNNING)
        if (told, now, reason) != (ctx.lanes, ctx.state.state, ctx.state.reason):
            self._count_time(ctx.state.state)
            since = ctx.state.since if now is ctx.state.state else ctx.shared.clock.wall()
            ctx.state = dataclasses.replace(ctx.state, state=now, since=since, reason=reason)
            ctx.lanes = told
            ctx.tell()

    def _reason(self) -> str:
        state = self.lanes
        if self.crew.stop is not None:
            return self.crew.stop.reason
        if self._holds:
            return "; ".join(self._holds.values())
        parts = [f"{counted(len(state.at_work), 'lane')} at work"]
        if landing := state.of(LaneState.LANDING):
            parts.append(f"{listed([one.id for one in landing])} landing")
        landed = len(state.items) - len(state.open_items)
        parts.append(f"{landed} of {counted(len(state.items), 'item')} done")
        if resting := state.of(LaneState.NEEDS_YOU):
            parts.append(f"needs you: lane {listed([one.id for one in resting])}")
        if state.held:
            parts.append(f"the target waits: {state.held}")
        return ", ".join(parts)

    # -- the end -----------------------------------------------------------------------------------

    async def _finish(self, state: State, reason: str) -> None:
        ctx = self.ctx
        code = int(_CODES.get(state, ExitCode.NEEDS_HUMAN))
        if state is State.STOPPED and self.crew.stop is not None:
            code = self.crew.stop.exit_code
        self._look_budget()
        self._count_time(ctx.state.state)
        ctx.state = dataclasses.replace(
            ctx.state, state=state, since=ctx.shared.clock.wall(), reason=reason, exit_code=code
        )
        if state is State.COMPLETED:
            await self._remove_landing_tree()
        word = notify.notice(ctx, state.value, reason, ctx.state)
        await courier.keep(ctx, [(word, "")])
        await self._end(do.Exit(code, state, reason))
        self._held.close()
        ctx.post(ev.Tick())  # who waits for events hears of it

    async def end_badly(self, error: BaseException, again_sec: float | None) -> None:
        """As every loop does; what was refused before it began leaves nothing."""
        if self._booted or not isinstance(error, UsageError):
            await super().end_badly(error, again_sec)
        self._held.close()

    async def leave_report(self) -> str:
        """Write the report; the card of this run, or ""."""
        ctx = self.ctx
        await ending.write_report(ctx, self._times, view.section(self.lanes))
        if not ctx.shared.card:
            return ""
        workspace, spent = str(ctx.paths.workspace), self.crew.spent()
        elsewhere = workspace != os.path.realpath(start_directory())
        used = f"{spent.tokens:,} tokens, {money(spent.cost_usd)}" if spent.tokens else "not known"
        return ctx.store.redactor.text(
            view.card(
                self.lanes,
                end=f"{ctx.state.state.value}: {ctx.state.reason}",
                seconds=sum(self._times.values()),
                spent=f"{used}, {age(spent.hours * 3600)} of agent runs",
                begun=self._begun_at,
                warnings=list(ctx.warnings),
                report=f"{ctx.store.path}/report.md",
                where=f" --workspace {typed(workspace)}" if elsewhere else "",
            )
        )

    async def _remove_landing_tree(self) -> None:
        try:
            for name in (TREE, COMPARING):
                await lane_trees.remove(self._git, self._places.tree(name))
        except (GitError, OSError) as error:
            self.ctx.warnings.tell("landing tree", f"the work tree of landings stays: {error}")
