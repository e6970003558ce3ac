"""What a loop with lanes does: event -> decide -> persist -> act, until nothing is left.

It starts no agent in the workspace itself: that is the person's. Each lane is a loop of its own in a
work tree of its own; all share pool, limits, log and signals of this supervisor."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
from anyio.abc import ObjectReceiveStream

from codex_self_iter.core import backoff, budget
from codex_self_iter.core import commands as do
from codex_self_iter.core import events as ev
from codex_self_iter.core import lanes as core
from codex_self_iter.core.lane_items import items
from codex_self_iter.core.lane_machine import decide
from codex_self_iter.core.lanes import Lane, Lanes, LaneState, Rules, Wish
from codex_self_iter.core.plan_lint import lint
from codex_self_iter.core.state import Spent, StopSource
from codex_self_iter.core.terms import State
from codex_self_iter.core.text import age, counted, iso, listed, money, one_line, typed
from codex_self_iter.errors import (
    CodexSelfIterError,
    ExitCode,
    StorageError,
    UsageError,
    first_cause,
)
from codex_self_iter.lanes import commands, words
from codex_self_iter.lanes.journal import JOURNAL, append
from codex_self_iter.lanes.landing import TREE, Stand, Yard, stand
from codex_self_iter.lanes.places import Places, add_item, lane_settings, variables, write_texts
from codex_self_iter.settings import Settings
from codex_self_iter.supervisor import courier, ending, notify
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.rounds import Ended, Rounds
from codex_self_iter.views import lanes as view
from codex_self_iter.world import registry
from codex_self_iter.world.git import landing as store
from codex_self_iter.world.git import lane_trees
from codex_self_iter.world.git.repository import Repository, discover
from codex_self_iter.world.git.run import Git, GitError
from codex_self_iter.world.process.tool import run_tool
from codex_self_iter.world.start import start_directory
from codex_self_iter.world.state import inbox, lane_files

STATE = "lanes.json"
MAX_STATE = 64 * 1024 * 1024
SAVE_SEC = 1.0
"""Between two tries to write the state, before which nothing is done."""
FOLLOW_SEC = 5.0
"""So often it is looked whether the target can follow what has landed beside it."""
PAUSE_SEC, AGAIN_SEC, MOST_SEC = 2.0, 5.0, 300.0
"""Before a landing, and a lane's loop, that failed is tried again; it doubles, up to the last."""
LOGGED = {
    "begun": "lane.begun", "ready": "lane.ready", "returned": "lane.returned", "halved": "landing.halved",
    "chosen": "lane.chosen", "landed": "lane.landed", "kept": "lane.kept", "dropped": "lane.dropped",
    "retried": "lane.retried", "needs_you": "lane.needs_you", "lost": "lane.lost",
}  # fmt: skip
"""Events of the journal of lanes as the log has them."""
_CODES = {State.COMPLETED: ExitCode.OK, State.STOPPED: ExitCode.OK}


class LaneLoop(Loop):
    """The loop of one lane: what it would say of itself was said by the loop with the lanes."""

    def introduce(self, ctx: Context) -> None:
        """Nothing."""


class Conductor(Rounds):
    """The lanes of one plan.

    Attributes:
        lanes: what is decided by now; loops: those of the lanes that are on, by lane."""

    def __init__(self, ctx: Context, events: ObjectReceiveStream[ev.Event]) -> None:
        super().__init__(ctx, events)
        self.lanes = Lanes()
        self.loops: dict[str, Loop] = {}
        self._deciding = anyio.Lock()
        self._git = Git(run_tool, str(ctx.paths.workspace), self._patience)
        self._yard: Yard
        self._places: Places
        self._stop: ev.Stop | None = None
        self._stopping, self._booted = anyio.Event(), False
        self._scopes: dict[str, anyio.CancelScope] = {}
        """What is under way of making and landing, by what it is."""
        self._holds: dict[str, str] = {}
        """Why nothing may be begun now, by who says so."""
        self._follow_at = self._counted_at = 0.0
        self._begun_at = ""
        """The target's commit at the start."""
        self._last_spent: dict[str, Spent] = {}

    @property
    def _patience(self) -> float:
        return float(self.ctx.settings.git.timeout_sec) or math.inf

    @property
    def _rules(self) -> Rules:
        found = self.ctx.settings.lanes
        return Rules(found.max, found.candidates, found.batch, found.max_conflicts)

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
            repository = await self._repository()
            self._places = Places.of(ctx, repository)
            self._yard = Yard(ctx, self._git, self._places)
            self.lanes = await self._loaded()
            self._begun_at = self.lanes.target_commit
        except (GitError, OSError) as error:
            raise UsageError(f"lanes: {error}") from error
        tree = self._places.tree(TREE)
        await ctx.shared.host.sweep_strays(self._places.workspace(tree), "")
        self._fit_pool()
        await self._read_plan_place()
        found = items(ctx.plan.text)
        if not found:
            raise UsageError(
                f"{ctx.plan.path} has no items (`- [ ] …`), so there is nothing for lanes"
            )
        faults = [one for one in lint(ctx.plan.text) if one.rule == "after"]
        if faults:
            lines = (f"{ctx.plan.path}:{one.line}: {one.what}; {one.mend}" for one in faults)
            raise UsageError("\n".join(lines))
        target, most = self.lanes.target.removeprefix("refs/heads/"), ctx.settings.lanes.max
        text = f"lanes: {most} at once, landing on {target}; work trees in {self._places.directory}"
        ctx.log.info("loop.terms", text=text)
        if stop is None:
            self.hooks.fire("on_start")
        ready.set()
        if stop is not None:
            await self.handle(dataclasses.replace(stop, after_iteration=False))
            return
        if self.senses.paused_now():
            self._holds["pause"] = "paused"
            await self._decide(core.Pause(True))
        self._booted = True
        if self.lanes.held and not self.lanes.landing:
            await self._follow()  # what was in the way may be gone
        await self._decide(core.Boot(found))

    async def _repository(self) -> Repository:
        """The repository, found fit for lanes. Raises UsageError, GitError."""
        if flaw := await store.too_old(self._git):
            raise UsageError(flaw)
        repository, why = await discover(self._git)
        if repository is None:
            raise UsageError(f"lanes need a git repository: {why}")
        if not await self._git.resolve("HEAD^{commit}"):
            raise UsageError("lanes need a first commit to begin with: make one (git commit)")
        return repository

    async def _loaded(self) -> Lanes:
        """What was decided before, or nothing. Raises UsageError, GitError."""
        ctx, state = self.ctx, Lanes()
        data = ctx.store.root.read(STATE, MAX_STATE)
        if data is not None:
            try:
                state = core.from_json(json.loads(data))
            except (ValueError, TypeError, AttributeError) as error:
                ctx.store.root.set_aside(STATE, f"it cannot be read: {error}")
                ctx.warn(ctx.store.take_warnings())
        target = ctx.settings.lanes.target
        full = target if target.startswith("refs/") or not target else f"refs/heads/{target}"
        full = full or state.target or await store.current_branch(self._git)
        if not full:
            raise UsageError(
                "no branch is checked out (HEAD is detached), so it is not known where lanes land; "
                "check one out, or name it: [lanes] target"
            )
        commit = await self._git.resolve(f"{full}^{{commit}}")
        if not commit and not state.target_commit:
            raise UsageError(
                f"[lanes] target: there is no branch {full.removeprefix('refs/heads/')}"
            )
        return dataclasses.replace(state, target=full, target_commit=commit or state.target_commit)

    def _fit_pool(self) -> None:
        """A place for the run of each lane, unless the pool was bounded on purpose."""
        ctx = self.ctx
        pool, most = ctx.shared.pool, ctx.settings.lanes.max
        if ctx.settings.origin("pool", "max_agents") == "default" and pool.slots < most:
            pool.resize(most, {str(k): n for k, n in ctx.settings.pool.per_agent.items()})

    async def _read_plan_place(self) -> None:
        """Whether git has the plan, and where."""
        name = os.path.relpath(self.ctx.paths.plan, self.ctx.paths.workspace)
        if name.startswith(os.pardir):
            return
        out = await self._git.run("ls-files", "--full-name", "-z", "--error-unmatch", "--", name)
        if out.exit_code == 0:
            self._yard.plan = os.fsdecode(out.stdout.split(b"\0")[0])

    # -- deciding ----------------------------------------------------------------------------------

    async def _decide(self, event: core.Event) -> None:
        """Decide, write down what was decided, then do it."""
        ctx = self.ctx
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
                await ctx.shared.in_thread(partial(ctx.store.root.replace, STATE, data))
                ctx.warnings.clear("lanes not saved")
                return
            except StorageError as error:
                ctx.warnings.tell("lanes not saved", f"the state of the lanes: {error}")
                ctx.tell()
                if self._stop is not None:
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
            await ctx.shared.in_thread(append, ctx.store.root, JOURNAL, kept)
        except StorageError as error:
            ctx.warnings.tell("lanes journal", f"the journal of the lanes: {error}")

    async def _carry_out(self, command: core.Command) -> None:
        match command:
            case core.Make(which):
                self._begin(f"make {which}", self._make, which)
            case core.Begin(which):
                self._begin(f"lane {which}", self._work_in, which)
            case core.End(which):
                if loop := self.loops.get(which):
                    self._end_loop(loop)
            case core.Tell(which, text):
                await self._tell_lane(which, text)
            case core.Land(names, pause):
                if scope := self._scopes.get("land"):  # of other lanes
                    scope.cancel()
                self._begin("land", self._land, names, pause)
            case core.Move():
                self._begin("move", self._move)
            case core.Clear(which):
                self._begin(f"clear {which}", self._clear, which)
            case core.Person(text):
                notify.tell(self.ctx, "blocked", text, self.ctx.state)
            case core.Finish(state, reason):
                await self._finish(state, reason)
            case core.Note():
                pass

    @staticmethod
    def _end_loop(loop: Loop) -> None:
        stop = ev.Stop("asked for by `lanes`", after_iteration=True, source=StopSource.CONFIG)
        loop.post(stop)

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

    # -- a lane's life -----------------------------------------------------------------------------

    async def _make(self, which: str) -> None:
        """Make a lane's work tree, and set it up."""
        ctx, lane = self.ctx, self.lanes.lane(which)
        if lane is not None and lane.crashes:
            await self._rest(AGAIN_SEC, lane.crashes)
        if lane is None or self._stop is not None:
            await self._decide(core.Idle(which))
            return
        began = ctx.shared.clock.monotonic()
        place, flaw, base = self._places.tree(which), "", lane.base
        try:
            if not base:
                _, base = await self._yard.front(self.lanes)
            await ctx.shared.host.sweep_strays(self._places.workspace(place), "")
            async with self._yard.trees:
                warned = await lane_trees.add(self._git, place, base)
            key = f"lane {which} submodules"
            ctx.warnings.tell(key, f"lane {which}: {'; '.join(warned)}") if warned else None
            lane = dataclasses.replace(lane, place=place)
            write_texts(ctx, self._places, lane)
            setup = ctx.settings.lanes.setup
            if setup and not lane.tip:
                results = await commands.run_all(
                    ctx, f"lane-{which}-setup", setup, self._places.workspace(place),
                    variables(ctx.settings, lane), float(ctx.settings.lanes.setup_timeout_sec),
                )  # fmt: skip
                if not results[-1].ok:
                    said = one_line(results[-1].output[-2000:], 300)
                    flaw = f"[lanes] setup `{results[-1].command}` failed: {said}"
        except (GitError, StorageError, OSError) as error:
            flaw = str(error)
        seconds = round(ctx.shared.clock.monotonic() - began, 3)
        self.ctx.log.info("lane.made", lane=which, place=place, seconds=seconds, error=flaw)
        there = place if os.path.isdir(place) else ""
        await self._decide(core.Made(which, base, there, flaw))

    async def _work_in(self, which: str) -> None:
        """Run a lane's loop to its end."""
        lane = self.lanes.lane(which)
        if lane is None:
            return
        if lane.crashes:
            await self._rest(AGAIN_SEC, lane.crashes)
        if self._stop is not None:
            await self._decide(core.Idle(which))
            return
        try:
            if lane.back is not None:
                await self._put_back(lane)
                await self._decide(core.Returned(which))
            ended = await self._run_loop(lane)
            found = await stand(self._yard, self._git, lane)
        except (GitError, CodexSelfIterError, OSError) as error:
            blocked = getattr(error, "exit_code", None) != ExitCode.INTERNAL
            ended = Ended(1, State.BLOCKED if blocked else State.CRASHED, str(error))
            found = Stand(lane.tip, lane.size, "")
        spent = self._spent_by(which)
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
            )
        )

    async def _put_back(self, lane: Lane) -> None:
        """What came back is in the work tree, and why is the next goal. Raises GitError, StorageError."""
        back = lane.back
        assert back is not None
        if back.onto:
            await lane_trees.rest_at(self._yard.git_in(lane.place), back.onto)
        again = f"{words.AGAIN[back.kind]} ({lane.returns})"
        await self.ctx.shared.in_thread(add_item, self._places, lane, again)
        if back.text:
            state_dir = self._places.lane_state(lane.id)
            await self.ctx.shared.in_thread(inbox.write_goal, state_dir, back.text)

    async def _rest(self, first_sec: float, tries: int) -> None:
        """Wait before another try, longer each time, unless all are to stop."""
        with anyio.move_on_after(backoff.exponential(tries, first_sec, MOST_SEC, 0.0)):
            await self._stopping.wait()

    async def _run_loop(self, lane: Lane) -> Ended:
        """Run it, with what all loops of this supervisor share."""
        ctx = self.ctx
        environ = {**ctx.shared.environ, **variables(ctx.settings, lane)}
        shared = dataclasses.replace(ctx.shared, alone=False, card=False, environ=environ)
        settings = lane_settings(ctx, self._places, lane, self._spent(but=lane.id))
        write_texts(ctx, self._places, lane)
        loop = self.loops[lane.id] = LaneLoop(
            shared, settings, clear_stop=True, again_sec=AGAIN_SEC
        )
        loop.taken = partial(self._taken, settings)
        if "pause" in self._holds:
            inbox.write_pause(str(settings.state_dir))
        elif inbox.read_pause(str(settings.state_dir)) is not None:
            inbox.remove_pause(str(settings.state_dir))
        if self._stop is not None:
            loop.post(self._stop)
        elif (now := self.lanes.lane(lane.id)) and now.ending:  # asked for before it could hear
            self._end_loop(loop)
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
            del self.loops[lane.id]

    async def _taken(self, settings: Settings) -> None:
        """Have it found by those who look for all loops."""
        try:
            await self.ctx.shared.in_thread(
                registry.register, settings.name, str(settings.workspace_path),
                str(settings.state_dir),
            )  # fmt: skip
        except OSError as error:
            self.ctx.log.warning("registry.not_written", error=str(error))

    async def _tell_lane(self, which: str, text: str) -> None:
        try:
            state_dir = self._places.lane_state(which)
            await self.ctx.shared.in_thread(inbox.write_message, state_dir, text)
            if (lane := self.lanes.lane(which)) and lane.place:
                write_texts(self.ctx, self._places, lane)
        except (StorageError, OSError) as error:
            self.ctx.warnings.tell(f"lane {which} message", f"lane {which} was not told: {error}")

    async def _clear(self, which: str) -> None:
        """Remove a work tree from which nothing can be lost."""
        ctx, lane = self.ctx, self.lanes.lane(which)
        if lane is None or not lane.place:
            return
        key = f"lane {which} left"
        try:
            git = self._yard.git_in(lane.place)
            if os.path.isdir(lane.place):
                tip = await git.resolve("HEAD^{commit}")
                if tip:
                    await lane_trees.keep(self._git, which, tip)
                # its work has landed, as it is or as one commit, or another's was better
                known = tip == lane.tip or lane.state is not LaneState.LANDED
                left = await lane_trees.in_the_way(self._git, lane.place, keep_refs=known)
                if left:
                    ctx.warnings.tell(key, f"the work tree of lane {which} stays: {left}")
                    await self._decide(core.Cleared(which, left))
                    return
            async with self._yard.trees:
                await lane_trees.remove(self._git, lane.place)
            if lane.landed and await self._yard.contains(lane.landed, lane.tip):
                await lane_trees.forget(self._git, which)
            state_dir = self._places.lane_state(which)
            await ctx.shared.in_thread(registry.forget, state_dir)
        except (GitError, OSError) as error:
            ctx.warnings.tell(key, f"the work tree of lane {which} stays: {error}")
            await self._decide(core.Cleared(which, str(error)))
            return
        ctx.warnings.clear(key)
        await self._decide(core.Cleared(which))

    # -- landing -----------------------------------------------------------------------------------

    async def _land(self, names: tuple[str, ...], pause: int) -> None:
        if pause:
            await self._rest(PAUSE_SEC, pause)
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

    def _answer(self, event: core.Event) -> None:
        """Decide it in a task of its own: what has asked is not to be called off by it."""
        self.ctx.start("decide", self._decide, event)

    async def _follow(self) -> None:
        """Look whether the target can follow by now."""
        try:
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
            case ev.Unstop() if self._stop is not None and self._stop.after_iteration:
                self._stop = None
                self._forward(event)
                await self._decide(core.Halt(""))
            case ev.Pause():
                await self._hold("pause", "paused")
                self._pause_lanes(now=event.now)
            case ev.Resume():
                await self._hold("pause", "")
                self._pause_lanes(now=None)
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
            return await store.current_branch(self._git) == self.lanes.target
        except GitError:
            return False

    def _pause_lanes(self, now: bool | None) -> None:
        """Pause every lane as a person would (`now`: in mid-run); None: they go on."""
        for which in self.loops:
            try:
                if now is None:
                    inbox.remove_pause(self._places.lane_state(which))
                else:
                    inbox.write_pause(self._places.lane_state(which), now=now)
            except StorageError as error:
                self.ctx.warnings.tell(f"lane {which} pause", f"lane {which}: {error}")

    def _forward(self, event: ev.Event) -> None:
        for loop in self.loops.values():
            loop.post(event)

    async def _hold(self, who: str, why: str) -> None:
        if why:
            self._holds[who] = why
        else:
            self._holds.pop(who, None)
        await self._decide(core.Pause(bool(self._holds)))

    async def _stop_all(self, event: ev.Stop) -> None:
        harder = self._stop is None or not event.after_iteration
        self._stop = event if harder else self._stop
        self.hooks.stopping.set()
        self._stopping.set()
        if event.source is not StopSource.SIGNAL:  # that has reached them already
            self._forward(event)
        if not event.after_iteration:
            for what, scope in list(self._scopes.items()):
                if what == "land" or what.startswith("make"):
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
        if self.ctx.inbox.occupied and self.loops:
            self._pass_messages()
        if self.lanes.held and now - self._follow_at >= FOLLOW_SEC and not self.lanes.landing:
            self._follow_at = now
            self._begin("follow", self._follow)
        if now - self._counted_at >= 1.0:
            self._counted_at = now
            self._look_budget()
            self._show()
        return patience

    def _look_wishes(self) -> None:
        ctx = self.ctx
        if not os.path.isdir(os.path.join(ctx.store.path, lane_files.ASKED)):
            return
        try:
            for name, wish, which in lane_files.read_wishes(ctx.store.root):
                lane_files.done(ctx.store.root, name)
                ctx.start("asked", self._asked, wish, which)
        except StorageError as error:
            ctx.log.debug("lanes.asked_not_read", error=str(error))

    async def _asked(self, wish: Wish, which: str) -> None:
        before = self.lanes
        await self._decide(core.Asked(wish, which))
        lane = before.lane(which)
        if before == self.lanes:
            why = f"it is {lane.state.value}" if lane else "there is no such lane"
            self.ctx.log.warning("lane.refused", lane=which, asked=wish.value, error=why)
        else:
            self.ctx.log.info("lane.asked", lane=which, asked=wish.value)

    def _pass_messages(self) -> None:
        """What a person says to all is said to each lane."""
        ctx = self.ctx
        try:
            found = ctx.inbox.messages(wall=ctx.shared.clock.wall())
            for message in found:
                for which in self.loops:
                    where = self._places.lane_state(which)
                    inbox.write_message(where, message.text, now=message.now)
            ctx.inbox.mark_done((one.name for one in found), 0)
        except StorageError as error:
            ctx.log.debug("inbox.not_read", error=str(error))

    # -- budget and what is shown ------------------------------------------------------------------

    def _spent_by(self, which: str) -> Spent:
        lane = self.lanes.lane(which)
        kept = Spent()
        if lane is not None:
            kept = Spent(lane.tokens, lane.cost_usd, lane.hours)
        loop = self.loops.get(which)
        live = loop.state.spent if loop is not None else self._last_spent.get(which, kept)
        return live if live.tokens or live.hours or live.cost_usd else kept

    def _spent(self, but: str = "") -> Spent:
        """What all lanes have used, without one of them."""
        total = Spent()
        for lane in self.lanes.lanes:
            if lane.id == but:
                continue
            one = budget.today(self._spent_by(lane.id), self.ctx.shared.clock.wall())
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

    def _look_budget(self) -> None:
        ctx = self.ctx
        spent = self._spent()
        ctx.state = dataclasses.replace(ctx.state, spent=spent)
        over = budget.exceeded(spent, ctx.policy.budget, ctx.shared.clock.wall())
        if over and not self.lanes.spent and self._stop is None:
            stop = ev.Stop(over, after_iteration=True, source=StopSource.CONFIG)
            self._forward(stop)
            self._answer(core.Halt(over, spent=True))

    def _show(self) -> None:
        """What status.json says."""
        ctx, state = self.ctx, self.lanes
        told = view.told(state, self._rules.most, ctx.store.path)
        said = State.STOPPING if self._stop else State.PAUSED if "pause" in self._holds else None
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
        if self._stop is not None:
            return self._stop.reason
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
        if state is State.STOPPED and self._stop is not None:
            code = self._stop.exit_code
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
        ctx.post(ev.Tick())  # who waits for events hears of it

    async def end_badly(self, error: BaseException, again_sec: float | None) -> None:
        """As every loop does; what was refused before it began leaves nothing."""
        if self._booted or not isinstance(error, UsageError):
            await super().end_badly(error, again_sec)

    async def leave_report(self) -> str:
        """Write the report; the card of this run, or ""."""
        ctx = self.ctx
        await ending.write_report(ctx, self._times, view.section(self.lanes))
        if not ctx.shared.card:
            return ""
        workspace, spent = str(ctx.paths.workspace), self._spent()
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
            await lane_trees.remove(self._git, self._places.tree(TREE))
        except (GitError, OSError) as error:
            self.ctx.log.debug("landing.tree_stays", error=str(error))
