"""The loops of the lanes, and their work trees: made, worked in, cleared away."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from codex_self_iter.core import backoff, budget, holds
from codex_self_iter.core import events as ev
from codex_self_iter.core import lanes as core
from codex_self_iter.core.lanes import Lane, Lanes, LaneState
from codex_self_iter.core.state import Spent, StopSource
from codex_self_iter.core.terms import State, Verdict
from codex_self_iter.core.text import one_line
from codex_self_iter.errors import CodexSelfIterError, ExitCode, StorageError, first_cause
from codex_self_iter.lanes import contained, words
from codex_self_iter.lanes.places import Places, add_item, lane_settings, tick_added, write_texts
from codex_self_iter.lanes.yard import Stand, Yard, stand
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.members import register
from codex_self_iter.supervisor.rounds import Ended
from codex_self_iter.world import registry
from codex_self_iter.world.git import lane_trees
from codex_self_iter.world.git.run import Git, GitError
from codex_self_iter.world.state import inbox
from codex_self_iter.world.state.durable import storing

AGAIN_SEC, MOST_SEC = 5.0, 300.0
"""Before a lane's loop that failed is started again; it doubles, up to the last."""


class LaneLoop(Loop):
    """The loop of one lane: what it would say of itself was said by the loop with the lanes."""

    def introduce(self, ctx: Context) -> None:
        """Nothing."""


def _is_bounded(loop: Loop) -> bool:
    """Whether a loop that has ended has had all iterations of one start, and did not ask to stop."""
    if loop.rounds is None or not holds.all_run(loop.state, loop.rounds.ctx.policy):
        return False
    return loop.state.last is None or loop.state.last.verdict is not Verdict.STOP


class Crew:
    """The lanes at work.

    Attributes:
        loops: those that are on, by lane.
        stop: what all were told, stopping: set when they were told to stop; paused: they are."""

    def __init__(
        self,
        ctx: Context,
        git: Git,
        yard: Yard,
        places: Places,
        lanes: Callable[[], Lanes],
        decide: Callable[[core.Event], Awaitable[None]],
    ) -> None:
        """`lanes`: what is decided by now; `decide`: decide it, and do what follows."""
        self._ctx, self._git, self._yard, self._places = ctx, git, yard, places
        self._lanes, self._decide_now = lanes, decide
        self.loops: dict[str, Loop] = {}
        self.stop: ev.Stop | None = None
        self.stopping, self.paused = anyio.Event(), False
        self._last_spent: dict[str, Spent] = {}
        self._bounded: dict[str, bool] = {}
        """Whether a lane's loop has ended for it may do no more in this start."""

    async def _decide(self, event: core.Event) -> None:
        """Decide in a task of its own: who asks may be called off, and what was written down is done
        all the same."""
        done = anyio.Event()

        async def task() -> None:
            await self._decide_now(event)
            done.set()

        self._ctx.start("decide", task)
        await done.wait()

    async def make(self, which: str) -> None:
        """Make a lane's work tree, and set it up."""
        ctx, lane = self._ctx, self._lanes().lane(which)
        if lane is not None and lane.crashes:
            await self.rest(AGAIN_SEC, lane.crashes)
        if lane is None or self.stop is not None:
            await self._decide(core.Idle(which))
            return
        began = ctx.shared.clock.monotonic()
        place, flaw, lasting, base = self._places.tree(which), "", False, lane.base
        try:
            if not base:
                _, base = await self._yard.front(self._lanes())
            await ctx.shared.host.sweep_strays(self._places.workspace(place), "")
            async with self._yard.trees:
                warned = await lane_trees.add(self._git, place, base)
            key = f"lane {which} submodules"
            ctx.warnings.tell(key, f"lane {which}: {'; '.join(warned)}") if warned else None
            lane = dataclasses.replace(lane, place=place)
            write_texts(ctx, self._places, lane)
            if lane.tip and await self._yard.git_in(place).resolve("HEAD^{commit}") != lane.tip:
                tick_added(self._places, lane)
            setup = ctx.settings.lanes.setup
            if setup and not lane.tip:
                results = await contained.run_all(
                    ctx, f"lane-{which}-setup", setup, self._places.workspace(place),
                    self._places.variables(lane), float(ctx.settings.lanes.setup_timeout_sec),
                )  # fmt: skip
                if not results[-1].ok:
                    said = one_line(results[-1].output[-2000:], 300)
                    flaw = f"[lanes] setup `{results[-1].command}` failed: {said}"
        except (GitError, StorageError, OSError) as error:
            flaw, lasting = str(error), isinstance(error, lane_trees.LastingError)
        seconds = round(ctx.shared.clock.monotonic() - began, 3)
        told = {"lane": which, "place": place, "seconds": seconds, "error": flaw}
        if flaw:
            ctx.log.warning("lane.made", **told)
        else:
            ctx.log.info("lane.made", **told)
        there = place if os.path.isdir(place) else ""
        await self._decide(core.Made(which, base, there, flaw, lasting))

    async def work(self, which: str) -> None:
        """Run a lane's loop to its end."""
        lane = self._lanes().lane(which)
        if lane is None:
            return
        if lane.crashes:
            await self.rest(AGAIN_SEC, lane.crashes)
        if self.stop is not None:
            await self._decide(core.Idle(which))
            return
        try:
            if lane.back is not None:
                await self._put_back(lane)
                await self._decide(core.Returned(which))
            ended = await self._run_loop(lane)
            found = await stand(self._yard, self._git, lane)
        except (GitError, CodexSelfIterError, OSError) as error:
            blocked = getattr(error, "exit_code", ExitCode.INTERNAL) != ExitCode.INTERNAL
            ended = Ended(1, State.BLOCKED if blocked else State.CRASHED, str(error))
            found = Stand(lane.tip, lane.size, "")
            self._ctx.log.error("lane.crashed", lane=which, error=str(error))
        spent = self.spent_by(which)
        await self._decide(
            core.Over(
                which,
                ended.state,
                ended.reason,
                found.tip,
                found.size,
                found.flaw,
                spent.tokens,
                spent.cost_usd,
                spent.hours,
                self._bounded.pop(which, False),
            )
        )

    async def _put_back(self, lane: Lane) -> None:
        """What came back is in the work tree, and why is the next goal. Raises GitError, StorageError."""
        back = lane.back
        assert back is not None
        if back.onto:
            await lane_trees.rest_at(self._yard.git_in(lane.place), back.onto)
        again = f"{words.AGAIN[back.kind]} ({lane.returns})"
        await self._ctx.shared.in_thread(add_item, self._places, lane, again)
        if back.text:
            state_dir = self._state_of(lane.id)
            await self._ctx.shared.in_thread(inbox.write_goal, state_dir, back.text)

    async def forget_old(self) -> None:
        """The commits of lanes that are over are kept as long as checkpoints are."""
        ctx, days = self._ctx, float(self._ctx.settings.git.checkpoint_keep_days)
        before = ctx.shared.clock.wall() - days * 86_400
        old = {one.id for one in self._lanes().of(*core.OVER) if one.since < before}
        if not days or not old:
            return
        try:
            await lane_trees.forget_all(self._git, set(map(self._places.kept_as, old)))
        except GitError as error:
            ctx.log.warning("checkpoints.not_pruned", error=str(error))

    async def rest(self, first_sec: float, tries: int) -> None:
        """Wait before another try, longer each time, unless all are to stop."""
        with anyio.move_on_after(backoff.exponential(tries, first_sec, MOST_SEC, 0.0)):
            await self.stopping.wait()

    async def _run_loop(self, lane: Lane) -> Ended:
        """Run it, with what all loops of this supervisor share."""
        ctx = self._ctx
        environ = {**ctx.shared.environ, **self._places.variables(lane)}
        shared = dataclasses.replace(
            ctx.shared, alone=False, card=False, branchless=True, environ=environ
        )
        self._state_of(lane.id)
        settings = lane_settings(ctx, self._places, lane, self.spent(but=lane.id))
        write_texts(ctx, self._places, lane)
        loop = self.loops[lane.id] = LaneLoop(
            shared, settings, clear_stop=True, again_sec=AGAIN_SEC
        )
        loop.taken = partial(register, settings, ctx.log)
        if self.paused:
            inbox.write_pause(str(settings.state_dir))
        elif inbox.read_pause(str(settings.state_dir)) is not None:
            inbox.remove_pause(str(settings.state_dir))
        if self.stop is not None:
            loop.post(self.stop)
        elif (now := self._lanes().lane(lane.id)) and now.ending:  # asked for before it could hear
            self.end(loop)
        try:
            return await loop.run()
        except CodexSelfIterError:
            raise
        except Exception as error:
            cause = first_cause(error)
            ctx.log.error("lane.crashed", lane=lane.id, error=str(cause))
            return Ended(1, State.CRASHED, f"{type(cause).__name__}: {cause}")
        finally:
            self._last_spent[lane.id] = loop.state.spent
            self._bounded[lane.id] = _is_bounded(loop)
            del self.loops[lane.id]

    def _state_of(self, which: str) -> str:
        """The state directory of a lane's loop. What somebody has planted on the way to it is set
        aside. Raises StorageError."""
        where, store = self._places.lane_state(which), self._ctx.store
        with storing("make", where), store.root.directory(self._places.below(which)):
            self._ctx.warn(store.take_warnings())
        return where

    async def tell(self, which: str, text: str) -> None:
        try:
            state_dir = self._state_of(which)
            await self._ctx.shared.in_thread(inbox.write_message, state_dir, text)
            if (lane := self._lanes().lane(which)) and lane.place:
                write_texts(self._ctx, self._places, lane)
        except (StorageError, OSError) as error:
            self._ctx.warnings.tell(f"lane {which} message", f"lane {which} was not told: {error}")

    async def clear(self, which: str) -> None:
        """Remove a work tree from which nothing can be lost."""
        ctx, lane = self._ctx, self._lanes().lane(which)
        if lane is None or not lane.place:
            return
        key = f"lane {which} left"
        try:
            git = self._yard.git_in(lane.place)
            if os.path.isdir(lane.place):
                tip = await lane_trees.keep_all(self._git, git, self._places.kept_as(which))
                # its work has landed, as it is or as one commit, or another's was better
                known = tip == lane.tip or lane.state is not LaneState.LANDED
                left = await lane_trees.in_the_way(self._git, lane.place, keep_refs=known)
                if left:
                    ctx.warnings.tell(key, f"the work tree of lane {which} stays: {left}")
                    await self._decide(core.Cleared(which, left))
                    return
            async with self._yard.trees:
                await lane_trees.remove(self._git, lane.place)
            if lane.landed:
                await lane_trees.forget(self._git, self._places.kept_as(which), lane.landed)
            state_dir = self._places.lane_state(which)
            await ctx.shared.in_thread(registry.forget, state_dir)
        except (GitError, OSError) as error:
            ctx.warnings.tell(key, f"the work tree of lane {which} stays: {error}")
            await self._decide(core.Cleared(which, str(error)))
            return
        ctx.warnings.clear(key)
        await self._decide(core.Cleared(which))

    def pause(self, now: bool | None) -> None:
        """Pause every lane as a person would (`now`: in mid-run); None: they go on."""
        for which in self.loops:
            try:
                if now is None:
                    inbox.remove_pause(self._state_of(which))
                else:
                    inbox.write_pause(self._state_of(which), now=now)
            except StorageError as error:
                self._ctx.warnings.tell(f"lane {which} pause", f"lane {which}: {error}")

    def forward(self, event: ev.Event) -> None:
        for loop in self.loops.values():
            loop.post(event)

    def pass_messages(self) -> None:
        """What a person says to all is said to each lane."""
        ctx = self._ctx
        try:
            found = ctx.inbox.messages(wall=ctx.shared.clock.wall())
            for message in found:
                for which in self.loops:
                    inbox.write_message(self._state_of(which), message.text, now=message.now)
            ctx.inbox.mark_done((one.name for one in found), 0)
        except StorageError as error:
            ctx.log.debug("inbox.not_read", error=str(error))

    @staticmethod
    def end(loop: Loop) -> None:
        stop = ev.Stop("asked for by `lanes`", after_iteration=True, source=StopSource.CONFIG)
        loop.post(stop)

    def spent_by(self, which: str) -> Spent:
        lane = self._lanes().lane(which)
        kept = Spent()
        if lane is not None:
            kept = Spent(lane.tokens, lane.cost_usd, lane.hours)
        loop = self.loops.get(which)
        live = loop.state.spent if loop is not None else self._last_spent.get(which, kept)
        return live if live.tokens or live.hours or live.cost_usd else kept

    def spent(self, but: str = "") -> Spent:
        """What all lanes have used, without one of them."""
        total = Spent()
        for lane in self._lanes().lanes:
            if lane.id == but:
                continue
            one = budget.today(self.spent_by(lane.id), self._ctx.shared.clock.wall())
            total = dataclasses.replace(
                total,
                tokens=total.tokens + one.tokens,
                cost_usd=total.cost_usd + one.cost_usd,
                hours=total.hours + one.hours,
                day=one.day,
                day_tokens=total.day_tokens + one.day_tokens,
                day_cost_usd=total.day_cost_usd + one.day_cost_usd,
                day_hours=total.day_hours + one.day_hours,
                unpriced_tokens=total.unpriced_tokens + one.unpriced_tokens,
            )
        return total
