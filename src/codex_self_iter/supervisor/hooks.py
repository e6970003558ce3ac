"""The person's own commands at turns of the loop: `[hooks]`, run with the containment of agents.

One at a time, and never while something else of the loop is about to begin: whoever reads inputs or
runs gates waits for those that were asked for before. Only `before_iteration` has a say: while it
fails no iteration begins. That is a condition of the surroundings, looked at again and again like
free disk, so the core knows it as one more `Hold` and as no state of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

import anyio

from codex_self_iter.agents.passed_env import agent_environment
from codex_self_iter.core import asked, waits
from codex_self_iter.core import events as ev
from codex_self_iter.core.runs import EndCause, RunOutcome, RunSpec
from codex_self_iter.core.terms import State
from codex_self_iter.core.text import clean_block, iso, one_line
from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor.configured import run_limits
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.remains import Remains
from codex_self_iter.supervisor.work import Work
from codex_self_iter.supervisor.workspace import Workspace
from codex_self_iter.world.process.output import read_head_tail
from codex_self_iter.world.state.durable import replace_private, storing

BEFORE, AFTER = "before_iteration", "after_iteration"
AGAIN_SEC, AGAIN_MAX_SEC = 2.0, 300.0
"""Shortest and longest pause before a hook that holds an iteration is asked again."""
PASSED_SEC = 5.0
"""So long what it has said counts for the iteration that was held."""
LONG_SEC = 5.0
"""A wait as long as this is told to `on_wait`."""
GRACE_SEC = 5.0
"""Longest time between asking a hook to end and killing it."""
MAX_BYTES, TAIL_BYTES = 2**20, 2_000
"""Of a hook's output: what is kept, and what is looked at for its last line."""
WAITING = asked.WAITING | {State.PAUSED}


@dataclasses.dataclass(eq=False, slots=True)
class _Asked:
    """A moment whose commands are running, or wait for their turn."""

    moment: str
    scope: anyio.CancelScope = dataclasses.field(default_factory=anyio.CancelScope)
    done: anyio.Event = dataclasses.field(default_factory=anyio.Event)


class Hooks:
    """The hooks of one loop."""

    def __init__(
        self,
        ctx: Context,
        work: Work,
        workspace: Workspace,
        stops_seen: Callable[[], tuple[object, ...]],
    ) -> None:
        """`stops_seen` tells the STOP files that are there from those of another look."""
        self._ctx, self._work, self._workspace = ctx, work, workspace
        self._stops_seen = stops_seen
        self.stopping = anyio.Event()
        """Set once somebody wants the loop to end now."""
        self._remains = Remains(ctx)
        self._turn = anyio.Lock()
        self._asked: list[_Asked] = []
        self._failures, self._again_at, self._trying = 0, 0.0, False
        self._passed_at = float("-inf")
        self._wait: tuple[tuple[State, float], float] | None = None
        """The wait that is on (state, since), and when it was first seen."""
        self._told_wait: tuple[State, float] | None = None

    def fire(self, moment: str, **more: Any) -> None:
        """Run the commands of this moment as soon as it is their turn; one that fails is told."""
        if not self._commands(moment):
            return
        asked_for = _Asked(moment)
        self._asked.append(asked_for)
        facts = self._facts(moment, **more)
        self._ctx.start(f"hook {moment}", self._tell, asked_for, facts)

    async def turn(self) -> None:
        """Wait until all that was asked for has run."""
        async with self._turn:
            return

    async def may_begin(self) -> bool:
        """Wait for what was asked for; at the beginning of an iteration, ask `before_iteration`.

        When that fails the loop is held, and asked again later."""
        fresh = self._now() - self._passed_at < PASSED_SEC
        self._passed_at = float("-inf")
        if self._ctx.state.open is not None or fresh or not self._commands(BEFORE):
            await self.turn()
            return True
        return await self._ask()

    async def leave(self, code: int | None) -> None:
        """The loop has ended: let the last `after_iteration` end, then run `on_end`, until somebody is
        in a hurry. None: it starts again."""
        with self._work.cut_short() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, name=f"{self._ctx.name}: stop")
                await self._leave(code)
                tasks.cancel_scope.cancel()
        if scope.cancelled_caught:
            for one in [*self._asked]:
                one.scope.cancel()
            text = "[hooks] on_end, or what ran before it, was cut short: the stop was in a hurry"
            self._ctx.warnings.tell("hook on_end", text)

    async def _leave(self, code: int | None) -> None:
        for one in [*self._asked]:
            if one.moment != AFTER:
                one.scope.cancel()
            elif not self._ctx.tasks.cancel_scope.cancel_called:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._cut, one, name=f"{self._ctx.name}: cut a hook")
                    await one.done.wait()
                    tasks.cancel_scope.cancel()
        if code is not None and self._commands("on_end"):
            self.stopping.set()  # a stop that comes from now on is one too many
            await self._tell(_Asked("on_end"), self._facts("on_end", exit_code=code))

    async def _cut(self, one: _Asked) -> None:
        """After a stop it may come to its end by itself, but not for long."""
        await self.stopping.wait()
        grace = float(self._ctx.settings.kill_grace_sec)
        await self._ctx.shared.clock.sleep(grace)
        text = f"the {one.moment} hook was ended {grace:g} s (kill_grace_sec) after the stop"
        self._ctx.warnings.tell(f"hook {one.moment}", text)
        one.scope.cancel()

    async def _watch(self) -> None:
        """The loop looks at nothing any more: hear of a stop that comes now, the second of which
        waits for no hook, and tell the service manager that it lives."""
        seen = self._stops_seen()
        while True:
            self._ctx.shared.on_round()
            await self._ctx.shared.clock.sleep(self._ctx.shared.poll_sec)
            before, seen = seen, self._stops_seen()
            if seen and seen != before:
                if self.stopping.is_set():
                    self._work.hurry()
                self.stopping.set()

    # -- looking -----------------------------------------------------------------------------------

    def look(self) -> None:
        """See to what is due: a hold that is to be tried again, a wait that has become long."""
        state = self._ctx.state
        if state.finished or state.preparing:
            return
        if ev.Hold.HOOK in state.blocked_by:
            self._look_hold()
        if state.state not in WAITING:
            self._wait = None
            return
        key = state.state, state.since
        if self._wait is None or self._wait[0] != key:
            self._wait = key, self._now()
        wait = None if state.blocked_by else asked.told_wait(state)
        lasted = self._now() - self._wait[1]
        rest = waits.rest(wait, self._ctx.shared.moment()) if wait is not None else lasted
        if rest >= LONG_SEC and key != self._told_wait:
            self._told_wait = key
            self.fire("on_wait", until=iso(wait.until) if wait is not None else None)

    def _look_hold(self) -> None:
        if not self._commands(BEFORE):
            self._ctx.post(ev.Unblock(ev.Hold.HOOK))
        elif self._now() >= self._again_at and not (self._trying or self._ctx.state.paused):
            self._trying = True
            self._ctx.start(f"hook {BEFORE}", self._try_again)

    async def _try_again(self) -> None:
        if await self._ask():
            self._passed_at = self._now()
            self._ctx.post(ev.Unblock(ev.Hold.HOOK))
        self._trying = False

    async def _ask(self) -> bool:
        """Run `before_iteration`; one that fails holds the loop."""
        asked_for = _Asked(BEFORE)
        self._asked.append(asked_for)
        flaw = await self._run(asked_for, self._facts(BEFORE))
        if not flaw:
            self._failures = 0
            return True
        self._failures += 1
        pause = min(AGAIN_SEC * 2.0 ** min(self._failures - 1, 20), AGAIN_MAX_SEC)
        self._again_at = self._now() + pause
        self._ctx.post(ev.Block(ev.Hold.HOOK, f"{flaw}; it is asked again until it succeeds"))
        return False

    # -- running -----------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._ctx.shared.clock.monotonic()

    def _commands(self, moment: str) -> tuple[str, ...]:
        found: tuple[str, ...] = getattr(self._ctx.settings.hooks, moment)
        return found

    def _facts(self, moment: str, **more: Any) -> dict[str, Any]:
        """What a hook is told (docs/hooks.md)."""
        ctx, state = self._ctx, self._ctx.state
        facts: dict[str, Any] = ctx.store.redactor.value(
            {
                "hook": moment,
                "loop": ctx.name,
                "workspace": str(ctx.paths.workspace),
                "state_dir": str(ctx.paths.state_dir),
                "iteration": state.iteration + (moment == BEFORE),
                "goal": state.open.aim if state.open else state.goal,
                "state": state.state.value,
                "reason": state.reason,
                **more,
            }
        )
        return facts

    async def _tell(self, asked_for: _Asked, facts: dict[str, Any]) -> None:
        """Run them; a failure is a warning until they succeed again."""
        key = f"hook {asked_for.moment}"
        flaw = await self._run(asked_for, facts)
        if flaw:
            self._ctx.warnings.tell(key, flaw)
        elif not asked_for.scope.cancelled_caught:
            self._ctx.warnings.clear(key)

    async def _run(self, asked_for: _Asked, facts: dict[str, Any]) -> str:
        """Run the commands of a moment in order; why the first that failed has, or ""."""
        moment, flaws = asked_for.moment, list[str]()
        try:
            with asked_for.scope:
                async with self._turn, self._ours():
                    for index, command in enumerate(self._commands(moment), 1):
                        flaw = await self._one(f"{moment}-{index}", command, facts)
                        if flaw:
                            flaws.append(f"the {moment} hook {command!r} failed: {flaw}")
                        if flaw and moment == BEFORE:
                            break
        finally:
            self._work.hook = ""
            self._workspace.look_again()
            asked_for.done.set()
            if asked_for in self._asked:
                self._asked.remove(asked_for)
        if asked_for.scope.cancelled_caught and moment == BEFORE:
            return "the loop has ended"
        return next(iter(flaws), "")

    def _ours(self) -> contextlib.AbstractAsyncContextManager[None]:
        """What a hook changes is the loop's, but for one that runs beside an adopted run."""
        if asked.working(self._ctx.state):
            return contextlib.nullcontext()
        return self._workspace.working()

    async def _one(self, name: str, command: str, facts: dict[str, Any]) -> str:
        """Run one command; why it failed, or ""."""
        ctx = self._ctx
        self._work.hook = f"waits for the {facts['hook']} hook: {command}"
        ctx.tell()
        try:
            spec = self._spec(name, command, facts)
            outcome = await self._remains.run(spec, self._work.in_haste)
            said = await ctx.shared.in_thread(self._said, spec.directory)
        except StorageError as error:
            return str(error)
        flaw = "" if outcome.ok else self._flaw(outcome, said)
        ctx.log.info(
            "hook.failed" if flaw else "hook.passed",
            hook=facts["hook"],
            command=command,
            exit_code=outcome.exit_code,
            seconds=round(outcome.duration_sec, 1),
        )
        return flaw

    def _spec(self, name: str, command: str, facts: dict[str, Any]) -> RunSpec:
        """How it is run. Raises StorageError."""
        ctx, hooks = self._ctx, self._ctx.settings.hooks
        directory = ctx.store.hook_directory(name)
        told = os.path.join(directory, "facts.json")
        with storing("write", told):
            replace_private(told, json.dumps(facts, ensure_ascii=False).encode("utf-8", "replace"))
        names = ("hook", "loop", "iteration", "state", "reason", "verdict", "exit_code")
        ours = {
            f"CODEX_SELF_ITER_{key.upper()}": one_line(str(facts[key]), 1000).replace("\0", "")
            for key in names
            if key in facts
        }
        limits = run_limits(ctx.settings)
        return RunSpec(
            run_id=f"{ctx.state.loop_id}-hook-{name}",
            argv=("/bin/sh", "-c", f"exec 2>&1\n{command}"),
            cwd=str(ctx.paths.workspace),
            env=agent_environment(ctx.shared.environ, passed=hooks.pass_env, extra=ours),
            directory=directory,
            # not the agents': `on_start` runs beside an adopted one
            run_lock_path=os.path.join(directory, "lock"),
            stdin_path=told,
            limits=dataclasses.replace(
                limits,
                wall_sec=float(hooks.timeout_sec),
                idle_sec=0.0,
                kill_grace_sec=min(limits.kill_grace_sec, GRACE_SEC),
                output_bytes=MAX_BYTES,
            ),
        )

    def _said(self, directory: str) -> str:
        """The last line that it has printed, without secrets. Raises StorageError."""
        path = os.path.join(directory, "stdout.log")
        with storing("read", path):
            self._ctx.store.redact_run(directory)
            _, tail, _ = read_head_tail(path, 0, TAIL_BYTES)
        lines = clean_block(tail.decode("utf-8", "replace")).strip().splitlines()
        return one_line(lines[-1], 300) if lines else ""

    def _flaw(self, outcome: RunOutcome, said: str) -> str:
        timeout = float(self._ctx.settings.hooks.timeout_sec)
        flaws = {
            EndCause.WALL_TIMEOUT: f"it was ended after [hooks] timeout_sec = {timeout:g}",
            EndCause.SPAWN_FAILED: outcome.error,
            EndCause.MEMORY: "ended: it used more than memory_limit_mb",
            EndCause.LOST: "it vanished without an exit status",
        }
        signalled = f"ended by signal {outcome.signal}" if outcome.signal else ""
        why = flaws.get(outcome.cause) or signalled or f"exit code {outcome.exit_code}"
        return f"{why}: {said}" if said else why
