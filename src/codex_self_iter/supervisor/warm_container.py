"""The container of one loop, in which its agents run: made for the first run of a start, kept warm,
removed at the loop's end, or by the next start."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import codex_self_iter
from codex_self_iter.core import fence_container as inner
from codex_self_iter.core.fence import Ground, inside
from codex_self_iter.core.runs import EndCause, RunOutcome, RunSpec
from codex_self_iter.errors import UsageError
from codex_self_iter.settings import Settings
from codex_self_iter.settings.in_image import image_of
from codex_self_iter.settings.paths import ResolvedPaths
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.guarded import read_object
from codex_self_iter.world.process import inside as program
from codex_self_iter.world.state.durable import replace_private, storing

if TYPE_CHECKING:
    from codex_self_iter.world.process.containers import Engine, First

RECORD, PLACE, DESK = "container.json", "container", "desk"
"""In the state directory: whose container it is; FIFOs; what an agent writes beside its work."""
BUILD = (
    "build one with the agent in it, `podman build -f deploy/docker/Dockerfile "
    "--build-arg NODE_AGENT=@openai/codex -t my-agent .` in a clone of this project, and name it: "
    '[fence] image = "localhost/my-agent"'
)


def flaws(
    settings: Settings, agent: str, paths: ResolvedPaths, environment: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Why an agent's container cannot be made, and what mends it. Blocks."""
    from codex_self_iter.world.git.ground import expanded
    from codex_self_iter.world.process import containers  # seldom needed

    image = image_of(settings, agent)
    if not image:
        yield f'the fence\'s level "container" for {agent} has no image', BUILD
        return
    engine, what, mend = containers.find(settings.fence.engine, environment)
    if engine is not None:
        what, mend = engine.flaw(image)
    if what:
        yield what, mend
    fence = settings.fence, settings.agents.get(agent).fence
    for key in ("allow_write", "allow_read"):
        for path in (path for table in fence for path in getattr(table, key)):
            place = expanded(path, str(paths.workspace), environment)
            if not os.path.exists(place):
                yield f"[fence] {key}: {place} is not there", "make it, or take it out of the list"


def check(
    settings: Settings, agent: str, paths: ResolvedPaths, environment: Mapping[str, str]
) -> None:
    """Raises UsageError where an agent's container cannot be made. Blocks."""
    found = [f"{what}; {mend}" for what, mend in flaws(settings, agent, paths, environment)]
    if found:
        raise UsageError("\n".join(found))


@dataclasses.dataclass(frozen=True, slots=True)
class Living:
    """The container that is there."""

    engine: Engine
    name: str
    image: str
    digest: str
    first: First


class Container:
    """The container of one loop's runs."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._living: Living | None = None
        self._image = ""
        """That of the run which is on, if it is inside."""

    def _at(self, *names: str) -> str:
        return os.path.join(self._ctx.store.path, *names)

    @property
    def desk(self) -> str:
        """What an agent writes beside its work."""
        return self._at(DESK)

    # -- a start, an end

    async def begin(self, *, adopted: bool) -> None:
        """Find what the last supervisor left: an `adopted` run goes on in it; else it is removed."""
        self._living = await self._ctx.shared.in_thread(self._found)
        if self._living is not None and not (adopted and self._living.first.lives):
            await self.leave()
        elif self._living is not None:
            self._image = self._living.image

    async def leave(self) -> None:
        """The loop ends: remove the container."""
        if self._living is not None:
            await self._ctx.shared.in_thread(self._leave)

    def _leave(self) -> None:
        self._remove()
        for name in (PLACE, DESK):
            shutil.rmtree(self._at(name), ignore_errors=True)

    def _found(self) -> Living | None:
        known = read_object(self._at(RECORD))
        if known is None:
            return None
        from codex_self_iter.world.process import containers

        try:
            first = containers.First(*(int(number) for number in known["first"]))
            name, image, digest = (str(known[key]) for key in ("name", "image", "digest"))
            choice = known["engine"] if known["engine"] in containers.ENGINES else "auto"
        except (KeyError, TypeError, ValueError):
            return None
        engine, _, _ = containers.find(choice, self._ctx.shared.environ)
        return Living(engine, name, image, digest, first) if engine is not None else None

    def _remove(self) -> None:
        from codex_self_iter.world.process.containers import unspare

        living, self._living = self._living, None
        assert living is not None
        unspare(living.first)
        if why := self._removed(living.engine, living.name):
            text = f"the container {living.name} could not be removed: {why}"
            self._ctx.warnings.tell("container", text)
            return
        self._ctx.warnings.clear("container")
        with contextlib.suppress(OSError):
            os.unlink(self._at(RECORD))

    def _removed(self, engine: Engine, name: str) -> str:
        """Remove the container of this name if it is ours; why not, or ""."""
        owner = engine.owner(name)
        if owner is None:
            return ""
        if owner != self._ctx.store.path:
            return f"it belongs to {owner or 'somebody else'}"
        return engine.remove(name)

    # -- a run

    def around(
        self, agent: str, spec: RunSpec, ground: Ground, readable: tuple[str, ...], *, offline: bool
    ) -> RunSpec:
        """The same run inside. Blocks. Raises UsageError, StorageError."""
        self._tidy()
        ours = spec.argv[0] == sys.executable
        made = self._made(agent, spec, ground, readable, offline, ours=ours)
        if lost := inner.unmountable(made):
            raise UsageError(f"no container can have this path: {lost[0]!r}")
        living = self._warm(made)
        self._image = image_of(self._ctx.settings, agent)
        words = inner.words_inside(
            spec.argv, python=sys.executable, run=spec.directory, desk=self.desk
        )
        where = os.path.dirname(os.path.dirname(codex_self_iter.__file__))
        configured = self._ctx.settings.agents.get(agent).env
        first = living.first.pid, living.first.start
        order = (
            self._at(PLACE, "control"),
            self._at(PLACE, "run"),
            f"{spec.directory}/{program.REPORT}",
            *map(str, first),
            ",".join(inner.left_out(spec.env, configured)),
            words[0],
            inner.script(words, spec.cwd, spec.stdin_path or os.devnull),
        )
        python = sys.executable, "-I", "-S", "-X", "utf8"
        return dataclasses.replace(
            spec,
            argv=(*python, "-c", program.COMMAND, where, *order),
            env={**spec.env, "PYTHONPATH": where} if ours else spec.env,
            stdin_path=None,
            beside=first,
        )

    def _made(
        self,
        agent: str,
        spec: RunSpec,
        ground: Ground,
        readable: tuple[str, ...],
        offline: bool,
        *,
        ours: bool,
    ) -> inner.Made:
        """What the run's container is made of. Raises UsageError."""
        own = os.path.dirname(os.path.realpath(codex_self_iter.__file__))
        if ours and not inside(own, ground.workspace):
            readable = (*readable, own)
        home = spec.env.get("HOME", "")
        return inner.Made(
            image=image_of(self._ctx.settings, agent),
            binds=tuple(map(self._closed, inner.binds(self._own(ground), readable))),
            home=os.path.realpath(home) if os.path.isabs(home) and home != "/" else "",
            workspace=ground.workspace,
            user=f"{os.geteuid()}:{os.getegid()}",
            offline=offline,
        )

    def _closed(self, bind: inner.Bind) -> inner.Bind:
        """Something empty in the place of what is closed."""
        if bind.kind != "closed":
            return bind
        empty = self._at(PLACE, "empty") if os.path.isdir(bind.path) else os.devnull
        return inner.Bind("ro", empty, bind.path)

    def _own(self, ground: Ground) -> Ground:
        """The ground without what only the repository names. Raises UsageError."""
        from codex_self_iter.world.git.repository import repository_key

        opened, key = ground.open, repository_key(ground.workspace)
        if key is not None and os.path.dirname(key[0]) != ground.workspace:
            # a repository around the workspace: all beside this would look deleted
            opened = tuple(path for path in opened if path not in ground.places)
        elif key is not None and not inside(os.path.realpath(key[0]), ground.workspace):
            what = f"{key[0]} is a link that leads out of the workspace"
            raise UsageError(f"{what}; put the directory there, or `git worktree add` elsewhere")
        plan, real = str(self._ctx.paths.plan), os.path.realpath(self._ctx.paths.plan)
        tops = (ground.workspace, ground.state)
        if inside(plan, ground.workspace) and not any(inside(real, top) for top in tops):
            what = f"{plan} is a link that leads out of the workspace, to {real}"
            raise UsageError(f"{what}; name that place itself: --plan-file {real}")
        return dataclasses.replace(ground, open=opened)

    def _tidy(self) -> None:
        """A desk with nothing on it, in the same place for as long as the container lives."""
        with storing("prepare", self.desk):
            tops = (
                self.desk,
                os.path.join(self.desk, "tmp"),
                self._at(PLACE),
                self._at(PLACE, "empty"),
            )
            for path in tops:
                if os.path.islink(path):
                    os.unlink(path)
                os.makedirs(path, 0o700, exist_ok=True)
            for place, but in ((self.desk, "tmp"), (os.path.join(self.desk, "tmp"), "")):
                for entry in os.scandir(place):
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name != but:
                            shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        os.unlink(entry.path)

    def _warm(self, made: inner.Made) -> Living:
        """The container, made unless it is there. Raises UsageError, StorageError."""
        marks = [_mark(bind.path) for bind in made.binds]
        digest = inner.digest(made, marks)
        living = self._living
        if living is not None and living.digest == digest and living.first.lives:
            return living
        if self._living is not None:
            self._remove()
        return self._make(made, digest)

    def _make(self, made: inner.Made, digest: str) -> Living:
        from codex_self_iter.world.process import containers

        ctx, name = self._ctx, inner.name_of(self._ctx.store.path)
        engine, what, mend = containers.find(ctx.settings.fence.engine, ctx.shared.environ)
        if engine is None:
            raise UsageError(f"{what}; {mend}")
        control = self._at(PLACE, "control")
        with storing("make", control):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(control)
            os.mkfifo(control, 0o600)
        self._note(Living(engine, name, made.image, digest, containers.First()))
        words = inner.create(
            made, name, ctx.store.path, digest, (program.PROCESS_1, "sh", control),
            rootless_podman=engine.rootless_podman,
        )  # fmt: skip
        try:
            if why := self._removed(engine, name):
                raise containers.ContainerError(f"{name} is in the way: {why}")
            engine.make(words)
            first = engine.first(name)
        except containers.ContainerError as error:
            self._removed(engine, name)
            what, mend = engine.flaw(made.image)
            if what:
                raise UsageError(f"{what}; {mend}") from error
            what = f"{engine.name} cannot make a container of {made.image}: {error}"
            raise UsageError(f"{what}; `codex-self-iter doctor` looks closer") from error
        containers.spare(first)
        self._living = Living(engine, name, made.image, digest, first)
        self._note(self._living)
        ctx.log.info("container.made", name=name, image=made.image, engine=engine.name)
        return self._living

    def _note(self, living: Living) -> None:
        """Write down whose container it is, before it is made and after."""
        value = {
            "engine": living.engine.name,
            "name": living.name,
            "image": living.image,
            "digest": living.digest,
            "first": dataclasses.astuple(living.first),
        }
        with storing("write", self._at(RECORD)):
            replace_private(self._at(RECORD), json.dumps(value).encode())

    # -- its end

    async def ended(self, spec: RunSpec, outcome: RunOutcome) -> RunOutcome:
        """A run has ended outside: see that nothing of it is left inside; how it has ended."""
        if not self._image:
            return outcome
        return await self._ctx.shared.in_thread(self._ended, spec, outcome)

    def _ended(self, spec: RunSpec, outcome: RunOutcome) -> RunOutcome:
        image, self._image = self._image, ""
        told = read_object(f"{spec.directory}/{program.REPORT}") or {}
        self._clear()
        self._take_answers(spec.directory)
        swept = told.get("swept")
        if type(swept) is int and swept > 0:
            outcome = dataclasses.replace(outcome, swept=outcome.swept + swept)
        if outcome.cause is not EndCause.EXIT:
            return outcome
        if told.get("missing"):
            said = f"the image {image} has no program {told['missing']!r}"
            return dataclasses.replace(
                outcome, cause=EndCause.SPAWN_FAILED, error=said, argv0_missing=True
            )
        if error := told.get("error"):
            if self._living is not None:
                self._remove()
            said = f"the agent could not be started in its container: {error}"
            return dataclasses.replace(outcome, cause=EndCause.SPAWN_FAILED, error=said)
        return outcome

    def _clear(self) -> None:
        """Nothing outlives its run: a container in which something does goes as a whole."""
        living = self._living
        if living is None or not living.first.lives:
            return
        if not program.emptied(living.first.pid, living.first.start):
            self._remove()

    def _take_answers(self, directory: str) -> None:
        for name in inner.WRITTEN:
            there = os.path.join(self.desk, name)
            with contextlib.suppress(OSError):
                if os.path.isfile(there) and not os.path.islink(there):
                    os.replace(there, os.path.join(directory, name))


def beside(ctx: Context) -> tuple[int, int]:
    """Process 1 of the loop's container as it was written down, (0, 0) where there is none."""
    known: dict[str, Any] = read_object(os.path.join(ctx.store.path, RECORD)) or {}
    try:
        pid, start = known["first"][:2]
        return int(pid), int(start)
    except (KeyError, TypeError, ValueError):
        return 0, 0


def _mark(path: str) -> tuple[int, int] | None:
    """Which file or directory is there: a mount stays with it when another takes its name."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
