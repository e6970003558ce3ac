"""Landing lanes: combine them with the target in the object store, prove that with the gates in a
work tree at exactly that commit, and move the target."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Collection, Sequence

import anyio

from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.lane_items import items, open_boxes, ticked
from codex_self_iter.core.lanes import (
    Delayed,
    Landing,
    Lane,
    Lanes,
    Moved,
    Proven,
    Refused,
)
from codex_self_iter.core.plan import Item, parse_plan
from codex_self_iter.core.text import listed
from codex_self_iter.errors import StorageError
from codex_self_iter.lanes import contained, words
from codex_self_iter.lanes.places import Places
from codex_self_iter.supervisor import gates
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.git import landing as store
from codex_self_iter.world.git import lane_trees
from codex_self_iter.world.git.follow import short
from codex_self_iter.world.git.run import Git, GitError
from codex_self_iter.world.process.tool import run_tool

TREE = "landing"
"""Name of the work tree in which the gates of landings run."""
COMPARING = "comparing"
"""The same, in which a reviewer looks at candidates."""
BESIDE = "refs/heads/codex-self-iter/landed/"
"""Before the name of the target: where what has landed waits while the target cannot follow."""
_MARKER = "^<<<<<<< [0-9a-f]{40}"
"""As a conflict of two commits that were named by their ids begins."""


class Yard:
    """Where lanes of one loop land.

    Attributes:
        plan: the plan's path from the top of the repository; "" where git does not track it."""

    def __init__(self, ctx: Context, git: Git, places: Places) -> None:
        self._ctx, self._git, self._places = ctx, git, places
        self.plan = ""
        self._proving = anyio.Lock()
        self._moving = anyio.Lock()
        """Held while the target is moved: a look whether it can follow is not in a landing's way."""
        self._swept: set[str] = set()
        """Work trees in which the last gates have left nothing that git does not ignore."""
        self._making = anyio.Lock()
        """Held while it is seen whether a work tree that is no lane's is there, or made."""
        self.trees = anyio.Lock()
        """Held while work trees are made or removed: git does not do two at once."""

    def tree(self, name: str) -> str:
        """A work tree of ours that is no lane's."""
        return self._places.tree(name)

    def workspace(self, tree: str) -> str:
        """The workspace in a work tree."""
        return self._places.workspace(tree)

    def kept_as(self, lane: str) -> str:
        """By which name the commits of a lane are kept."""
        return self._places.kept_as(lane)

    def git_in(self, tree: str) -> Git:
        """git in a work tree."""
        return Git(run_tool, tree, self._git.timeout_sec, self._git.env)

    def beside(self, target: str) -> str:
        """The branch on which what has landed waits."""
        return BESIDE + target.removeprefix("refs/heads/")

    async def front(self, state: Lanes) -> tuple[str, str]:
        """Where the target is, and the commit that the next lane begins with and lands on: the same,
        or what waits beside it. Raises GitError."""
        commit = f"{state.target}^{{commit}}"
        target = await self._git.resolve(commit) or state.target_commit
        waiting = await self._git.resolve(f"{self.beside(state.target)}^{{commit}}")
        if not waiting or await self.contains(target, waiting):
            return target, target
        return target, waiting

    async def contains(self, commit: str, other: str) -> bool:
        """Whether the other is the commit or one before it."""
        out = await self._git.run("merge-base", "--is-ancestor", other, commit)
        return out.exit_code == 0

    # -- proving -----------------------------------------------------------------------------------

    async def prove(self, state: Lanes, names: tuple[str, ...]) -> Proven | Refused | Delayed:
        """Combine these lanes, in order, and run the gates there."""
        try:
            async with self._proving:  # one that was called off needs a moment to end
                return await self._prove(state, names)
        except (GitError, StorageError, OSError) as error:
            return Delayed(str(error), isinstance(error, lane_trees.LastingError))

    async def _prove(self, state: Lanes, names: tuple[str, ...]) -> Proven | Refused | Delayed:
        target, front = await self.front(state)
        if not target:
            return Delayed(f"{state.target} is gone, and it is not known where it was")
        commit = front
        if front != target and not await self.contains(front, target):  # somebody went on there
            part = store.Part(target, f"Merge {short(state.target)}")
            merged = await store.combine(self._git, front, part)
            if isinstance(merged, store.Conflict):
                return Delayed(
                    f"{short(state.target)} has gone on and conflicts with what has landed beside it, "
                    f"in {listed(merged.files)}: merge {short(self.beside(state.target))} yourself"
                )
            commit = merged.commit
        begun, lanes = commit, [one for one in map(state.lane, names) if one is not None]
        for number, lane in enumerate(lanes, 1):
            keys = (*state.unticked, *(one.item for one in lanes[:number]))
            part = store.Part(
                lane.tip, self._message(lane), self._ctx.settings.lanes.author,
                self._ctx.settings.lanes.squash,
            )  # fmt: skip
            plan_text = await self._ticked(commit, keys)
            found = await store.combine(self._git, commit, part, self.plan, plan_text)
            if isinstance(found, store.Combined):
                commit = found.commit
            elif number > 1:  # of a batch: each alone
                return Refused(names[:number], "red", "they conflict with each other")
            else:
                return await self._conflict(state, lane, begun, found)
        if left := await self._markers(begun, commit):
            text = f"Conflict markers are left in {listed(left, 20)}: solve the conflict there."
            return Refused(names, "conflict" if len(names) == 1 else "red", text)
        results, strayed = await self._gates(commit, lanes)
        if strayed or not all(one.ok for one in results):
            text = words.red(short(state.target), results, strayed)
            return Refused(names, "red", text, commit if len(names) == 1 else "")
        return Proven(names, target, commit)

    async def _markers(self, old: str, new: str) -> list[str]:
        """The files into which conflict markers of ours came between two commits."""
        found = await self._git.ask(
            "diff",
            "--no-ext-diff",
            "--name-only",
            "-z",
            "--diff-filter=d",
            f"-G{_MARKER}",
            old,
            new,
        )
        left = []
        for name in filter(None, found.split(b"\0")):
            path = os.fsdecode(name)
            out = await self._git.run(
                "grep", "-q", "-E", "-e", _MARKER, new, "--", f":(literal){path}"
            )
            if out.exit_code == 0:
                left.append(path)
        return left

    def _message(self, lane: Lane) -> str:
        text = self._ctx.settings.lanes.message
        for name, value in {
            "{title}": lane.title, "{number}": str(lane.number), "{lane}": lane.id,
            "{body}": lane.body,
        }.items():  # fmt: skip
            text = text.replace(name, value)
        return text

    async def _ticked(self, commit: str, keys: Sequence[str]) -> bytes | None:
        """The plan at a commit with these items ticked; None where that is no change."""
        if not self.plan:
            return None
        out = await self._git.run("cat-file", "blob", f"{commit}:{self.plan}")
        if out.exit_code != 0:
            return None
        try:
            text = out.stdout.decode("utf-8")
        except UnicodeDecodeError:
            return None
        new = ticked(text, keys)
        return new.encode() if new != text else None

    async def _conflict(
        self, state: Lanes, lane: Lane, onto: str, found: store.Conflict
    ) -> Refused:
        base = await self._git.line("merge-base", onto, lane.tip)
        landed = [one for one in state.lanes if one.landed]
        others = [one.body for one in landed if not await self.contains(base, one.landed)]
        theirs = await self._git.run("diff", "--no-ext-diff", base, onto, "--", *found.files)
        text = words.conflict(
            lane,
            short(state.target),
            found.files,
            others,
            theirs.stdout.decode("utf-8", "replace"),
            found.text,
        )
        message = f"Merge {short(state.target)} with conflicts to be solved"
        commit = await store.marked(self._git, lane.tip, onto, found, message)
        return Refused((lane.id,), "conflict", text, commit)

    async def _gates(self, commit: str, lanes: Sequence[Lane]) -> tuple[list[GateResult], str]:
        """Run set-up and gates at a commit; what they said, and what they have changed there."""
        settings, tree = self._ctx.settings, self.tree(TREE)
        checks = [
            check
            for lane in lanes
            if settings.verify.item_checks
            for item in parse_plan(lane.body).items
            for check in item.checks
        ]
        due = list(dict.fromkeys((*settings.verify.commands, *checks)))
        if not due:
            return [], ""
        await self.ready_tree(tree, commit)
        cwd, git = self._places.workspace(tree), self.git_in(tree)
        setup = await contained.run_all(
            self._ctx, "landing-setup", settings.lanes.setup, cwd, {},
            float(settings.lanes.setup_timeout_sec),
        )  # fmt: skip
        if setup and not setup[-1].ok:
            return setup, ""
        slot = self._ctx.shared.pool.slot(
            key="gate", priority=settings.priority, owner=self._ctx.name
        )
        async with slot:
            results = await contained.run_all(
                self._ctx, "landing-gate", due, cwd, {}, float(settings.verify.timeout_sec),
                go_on=True,
            )  # fmt: skip
        for one in results:
            gates.log_result(self._ctx, one)
        if all(one.ok for one in results):
            found = await lane_trees.left_in(git)
            names = [os.fsdecode(one.path) for one in found.records if one.tracked]
            if not found.records:
                self._swept.add(tree)
            if names or found.head != commit:
                what = listed(names, 20) if names else "they have committed"
                return results, (
                    "\nThe gates succeed only after they have changed what they judge: "
                    f"{what}. Commit what they make of it.\n"
                )
        return results, ""

    async def ready_tree(self, tree: str, commit: str) -> None:
        """A work tree at this commit, without what the last gates left that git does not ignore.
        Raises GitError."""
        swept = tree in self._swept
        self._swept.discard(tree)
        if not swept:
            await self._make(tree, commit)
        await lane_trees.force_to(self.git_in(tree), commit, swept=swept)

    async def prepare(self, state: Lanes) -> None:
        """Make the work tree of landings before there is one. What is in the way, that one says."""
        if not self._ctx.settings.verify.commands:
            return
        with contextlib.suppress(GitError, OSError):
            _, front = await self.front(state)
            await self._make(self.tree(TREE), front)

    async def _make(self, tree: str, commit: str) -> None:
        """Make a work tree, unless it is there. Raises GitError."""
        async with self._making:
            there = os.path.lexists(os.path.join(tree, ".git"))
            if not there or not await self.git_in(tree).resolve("HEAD"):
                # a lane's may be on its way, for as long as a checkout takes
                async with self.trees:
                    await lane_trees.add(self._git, tree, commit)

    # -- moving ------------------------------------------------------------------------------------

    async def move(self, state: Lanes, landing: Landing) -> Moved | Delayed:
        """Bring what is proven to the target, or beside it while that cannot follow."""
        try:
            return await self._move(state, landing)
        except (GitError, OSError) as error:
            return Delayed(str(error))

    async def _move(self, state: Lanes, landing: Landing) -> Moved:
        target, beside = state.target, self.beside(state.target)
        held = await self.follow(target, landing.onto, landing.commit, landing.lanes)
        if held is None:
            return Moved(raced=True)
        if held:
            await self._git.ask("update-ref", "--no-deref", beside, landing.commit)
        keys = [one.item for one in map(state.lane, landing.lanes) if one is not None]
        ticked = await self._tick(target, landing.commit, [*state.unticked, *keys])
        return Moved(held=held, ticked=ticked)

    async def follow(
        self, target: str, old: str, new: str, lanes: Sequence[str] = ()
    ) -> str | None:
        """Move the target from one commit to another; why it cannot follow now, or "". None: it is
        elsewhere by now. Raises GitError."""
        async with self._moving:
            return await self._follow(target, old, new, lanes)

    async def _follow(self, target: str, old: str, new: str, lanes: Sequence[str]) -> str | None:
        now = await self._git.resolve(f"{target}^{{commit}}")
        if not now:
            return f"the branch {short(target)} is gone"
        what = (
            f"codex-self-iter: land lane {', '.join(lanes)}" if lanes else "codex-self-iter: land"
        )
        edited = self.plan if self.plan and await self.is_here(target) else ""
        if now == old != new:
            advanced = await store.advance(
                self._git, target, old, new, what, edited, again=not lanes
            )
        elif await self.contains(now, new):  # a person may have gone on since
            advanced = await store.finish_advance(self._git, target, old, new)
        else:
            return None
        if advanced.raced:
            return None
        if advanced.moved:
            await self._forget_beside(target)
            if edited:  # where the person has edited it
                await self._tick_file(await self._done_at(new) - await self._done_at(old))
        return "" if advanced.moved else advanced.why

    async def is_here(self, target: str) -> bool:
        """Whether the person's checkout has the target."""
        return await store.current_branch(self._git) == target

    async def _done_at(self, commit: str) -> set[str]:
        """The items that are ticked in the plan at a commit."""
        out = await self._git.run("cat-file", "blob", f"{commit}:{self.plan}")
        text = out.stdout.decode("utf-8", "replace") if out.exit_code == 0 else ""
        return {one.key for one in items(text) if one.done}

    async def _forget_beside(self, target: str) -> None:
        """What has reached the target waits nowhere any more."""
        beside = self.beside(target)
        waiting = await self._git.resolve(f"{beside}^{{commit}}")
        there = waiting and await self.contains(target, waiting)
        if there and not await store.checkout_of(self._git, beside):
            await self._git.run("update-ref", "-d", "--no-deref", beside, waiting)

    async def catch_up(self, state: Lanes) -> str:
        """Let the target follow what waits beside it; why it cannot, or "". Raises GitError."""
        target, front = await self.front(state)
        if front == target:
            return ""
        if not await self.contains(front, target):
            return (
                f"{short(state.target)} has gone on meanwhile: git merge "
                f"{short(self.beside(state.target))}"
            )
        held = await self.follow(state.target, target, front)
        return state.held if held is None else held

    async def _tick(self, target: str, commit: str, keys: Sequence[str]) -> bool:
        """Whether these items are ticked: in the plan at the commit, or, where git does not have it or
        has other words there, in the file."""
        missing = set(keys)
        if self.plan:
            missing -= await self._done_at(commit)
            if missing and not await self.is_here(target):
                return False
        return await self._tick_file(missing)

    async def _tick_file(self, keys: Collection[str]) -> bool:
        """Tick these items in the file; whether it has none of them open any more."""
        if not keys:
            return True
        plan, warnings = self._ctx.plan, self._ctx.warnings
        key, found = "lanes not ticked", set[str]()

        def choose(text: str) -> list[Item]:
            found.update(one.key for one in items(text))
            return open_boxes(text, keys)

        flaw = await self._ctx.shared.in_thread(plan.tick, choose)
        warnings.tell(key, f"landed, and not ticked: {flaw}") if flaw else warnings.clear(key)
        return not flaw and found.issuperset(keys)


@dataclasses.dataclass(frozen=True, slots=True)
class Stand:
    """How a lane's work stands when its loop has ended. `flaw`: why it cannot land so."""

    tip: str
    size: int
    flaw: str


async def stand(yard: Yard, git: Git, lane: Lane) -> Stand:
    """Look at a lane's work tree, and keep its tip. Raises GitError."""
    tree = yard.git_in(lane.place)
    tip = await lane_trees.keep_all(git, tree, yard.kept_as(lane.id))
    size = await store.size(git, lane.base, tip, yard.plan) if tip and lane.base else 0
    left = await lane_trees.left_in(tree, "none")
    names = [os.fsdecode(one.path) for one in left.records]
    flaw = (
        f"Your work is not committed as a whole: {listed(names, 20)}. Commit what belongs to the item "
        "(a hook may have refused it), and remove what does not."
        if names
        else ""
    )
    return Stand(tip, size, flaw)
