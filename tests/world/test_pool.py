"""The pool: never more than its bounds, fair, and cancellation leaves no slot behind."""

from __future__ import annotations

import random
from collections import Counter

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from codex_self_iter.world.pool import Pool

pytestmark = pytest.mark.anyio


class Crowd:
    """Tasks that take a slot each, in a known order, and give it back when told to."""

    def __init__(self, pool: Pool, group: TaskGroup) -> None:
        self.pool, self.group = pool, group
        self.order: list[str] = []
        self.leave: dict[str, anyio.Event] = {}
        self.scopes: dict[str, anyio.CancelScope] = {}

    async def enter(self, owner: str, key: str = "codex", priority: int = 0) -> None:
        self.leave[owner] = anyio.Event()
        self.scopes[owner] = anyio.CancelScope()
        self.group.start_soon(self._visit, owner, key, priority)
        await settle()

    async def _visit(self, owner: str, key: str, priority: int) -> None:
        with self.scopes[owner]:
            async with self.pool.slot(key, priority, owner):
                self.order.append(owner)
                await self.leave[owner].wait()

    async def finish(self, owner: str) -> None:
        self.leave[owner].set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await checkpoint()


async def test_slots_are_bounded_and_first_come_first_served() -> None:
    pool = Pool(2)
    async with anyio.create_task_group() as group:
        crowd = Crowd(pool, group)
        for owner in "abcd":
            await crowd.enter(owner)
        assert crowd.order == ["a", "b"]
        assert (pool.in_use, pool.waiting) == (2, 2)
        await crowd.finish("b")
        await crowd.finish("a")
        assert crowd.order == ["a", "b", "c", "d"]
        await crowd.finish("c")
        await crowd.finish("d")
    assert (pool.in_use, pool.waiting) == (0, 0)


async def test_an_agent_at_its_own_limit_does_not_hold_up_others() -> None:
    pool = Pool(3, {"codex": 1})
    async with anyio.create_task_group() as group:
        crowd = Crowd(pool, group)
        await crowd.enter("a", "codex")
        await crowd.enter("b", "codex")
        await crowd.enter("c", "claude")
        assert crowd.order == ["a", "c"]
        assert pool.waiting_for("b") == "a slot for codex (1 of 1 taken by a, c; 0 ahead)"
        assert pool.waiting_for("a") == ""
        group.cancel_scope.cancel()
    assert (pool.in_use, pool.waiting) == (0, 0)


async def test_higher_priority_goes_first_but_nobody_starves() -> None:
    pool = Pool(1)
    async with anyio.create_task_group() as group:
        crowd = Crowd(pool, group)
        await crowd.enter("first")
        await crowd.enter("low", priority=0)
        holder = "first"
        for number in range(100):
            urgent = f"urgent-{number}"
            await crowd.enter(urgent, priority=3)
            await crowd.finish(holder)
            holder = crowd.order[-1]
            if holder == "low":
                break
        group.cancel_scope.cancel()
    assert crowd.order[1] == "urgent-0"
    assert "low" in crowd.order


async def test_cancelled_waiters_and_holders_give_back_what_they_had() -> None:
    pool = Pool(1)
    async with anyio.create_task_group() as group:
        crowd = Crowd(pool, group)
        for owner in "abc":
            await crowd.enter(owner)
        crowd.scopes["b"].cancel()
        crowd.leave["a"].set()
        crowd.scopes["a"].cancel()  # granted to c, cancelled and released in the same breath
        await settle()
        assert crowd.order == ["a", "c"]
        await crowd.finish("c")
    assert (pool.in_use, pool.waiting) == (0, 0)


async def test_a_grant_that_meets_its_waiters_cancellation_goes_to_the_next() -> None:
    pool = Pool(1)
    async with anyio.create_task_group() as group:
        crowd = Crowd(pool, group)
        for owner in "abc":
            await crowd.enter(owner)
        crowd.leave["a"].set()
        crowd.scopes["b"].cancel()
        await settle()
        assert crowd.order == ["a", "c"]
        await crowd.finish("c")
    assert pool.in_use == 0


async def test_resize_starts_waiters_and_never_ends_holders() -> None:
    pool = Pool(1)
    async with anyio.create_task_group() as group:
        crowd = Crowd(pool, group)
        for owner in "abc":
            await crowd.enter(owner)
        pool.resize(3)
        await settle()
        assert crowd.order == ["a", "b", "c"]
        pool.resize(1)
        await crowd.enter("d")
        await crowd.finish("a")
        await crowd.finish("b")
        assert crowd.order == ["a", "b", "c"]
        assert pool.waiting_for("d") == "a slot of the pool (1 of 1 taken by c; 0 ahead)"
        group.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(5))
async def test_bounds_hold_in_random_traffic(seed: int) -> None:
    chance = random.Random(seed)
    pool, limits = Pool(4, {"codex": 2, "claude": 1}), {"codex": 2, "claude": 1, "other": 4}
    running: Counter[str] = Counter()
    done = 0

    async def visit() -> None:
        nonlocal done
        key = chance.choice(list(limits))
        with anyio.move_on_after(chance.choice([0, 0.001, 5])):
            async with pool.slot(key, chance.randrange(3)):
                running[key] += 1
                try:
                    assert running.total() <= 4
                    assert running[key] <= limits[key]
                    await anyio.sleep(chance.random() / 1000)
                    done += 1
                finally:
                    running[key] -= 1

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(visit)
    assert done > 50
    assert (pool.in_use, pool.waiting) == (0, 0)


@pytest.mark.anyio
async def test_what_holds_runs_back_never_holds_one_alone() -> None:
    reason = "memory"
    pool = Pool(3, hold=lambda: reason)
    async with pool.slot("a", owner="first"):
        with anyio.move_on_after(0.05) as scope:
            async with pool.slot("a", owner="second"):
                raise AssertionError("started although memory holds it back")
        assert scope.cancelled_caught
        reason = ""
        pool.look()
        async with pool.slot("a", owner="third"):
            assert pool.in_use == 2


@pytest.mark.anyio
async def test_a_waiter_is_let_in_when_the_hold_is_over() -> None:
    holds = ["memory"]
    pool = Pool(3, hold=lambda: holds[0])
    entered = anyio.Event()

    async def wait() -> None:
        async with pool.slot("a", owner="second"):
            entered.set()

    async with anyio.create_task_group() as tasks, pool.slot("a", owner="first"):
        tasks.start_soon(wait)
        await anyio.sleep(0.01)
        assert "memory" in pool.waiting_for("second")
        holds[0] = ""
        pool.look()
        await entered.wait()
