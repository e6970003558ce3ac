"""The fence around the agents of one loop: chosen at the start, built for each run, told of."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from codex_self_iter.agents.base import Request
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core import fence
from codex_self_iter.core.agent_homes import known_as, sandboxed
from codex_self_iter.core.agent_report import AgentReport, FailureClass
from codex_self_iter.core.fence_container import WRITTEN, environment_inside
from codex_self_iter.core.opening import RULES
from codex_self_iter.core.policy import Policy
from codex_self_iter.core.runs import RunSpec
from codex_self_iter.errors import StorageError, UsageError
from codex_self_iter.settings import CONFIG_NAME, Settings
from codex_self_iter.settings.in_image import LEVEL
from codex_self_iter.settings.paths import ResolvedPaths
from codex_self_iter.supervisor import warm_container
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.warm_container import DESK, Container
from codex_self_iter.world.state.durable import storing

if TYPE_CHECKING:
    from codex_self_iter.world.git.ground import Wanted

REMARKS, WEAK, CHANGED, MANY = "fence", "fence weak", "fence put back", "fence gates"
RECORD = "fence/before.json"
"""In the state directory: what is put back after the run that is on."""
MOST_SEALED = 500
"""Gate files that are closed one by one; a directory counts once."""
_READ_BYTES = 256 * 1024
_MOST_REFUSED = 5
_SAID = re.compile(
    r"\b(?:read-only file system|permission denied|operation not permitted|device or resource busy|"
    r"invalid cross-device link|EROFS|EACCES|EPERM|EBUSY|EXDEV)\b",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    r"\b(?:no such (?:file or directory|device or address)|ENOENT|ENXIO)\b", re.IGNORECASE
)
"""What is said of something closed, where it seems not to be there."""
_QUOTED = r"'([^'\n]+)'|\"([^\"\n]+)\"|`([^`\n]+)`"
_BEFORE = re.compile(rf"(?:{_QUOTED}|([^\s'\"`:()]+))[\s:(]*$")
_AFTER = re.compile(rf"^[^'\"`/\n]*(?:{_QUOTED}|(/[^\s'\"`:,()]+))")
"""A path just before an error, and the first one after it: as shells, git, Python, Node, Go and Rust say it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What is configured for one agent."""

    level: str
    by: str
    offline: bool
    allow_write: tuple[str, ...]
    allow_read: tuple[str, ...]
    deny_read: tuple[str, ...]


def terms(settings: Settings, agent: str) -> Terms:
    """[fence], with what [agents.X.fence] puts in its place or adds."""
    all_of, own = settings.fence, settings.agents.get(agent).fence
    return Terms(
        own.level or all_of.level,
        all_of.by,
        (own.network or all_of.network) == "none",
        (*all_of.allow_write, *own.allow_write),
        (*all_of.allow_read, *own.allow_read),
        (*all_of.deny_read, *own.deny_read),
    )


def agents_in_use(policy: Policy) -> tuple[str, ...]:
    """The agents of every role, those that would take over included."""
    return tuple(dict.fromkeys(one.name for role in policy.roles for one in policy.agents[role]))


def level(settings: Settings, policy: Policy) -> str:
    """The level of the fence that all agents have; the lowest, where they differ."""
    order = ("none", "write", "container")
    found = {terms(settings, name).level for name in agents_in_use(policy)}
    return min(found, key=order.index, default="none")


def check(settings: Settings, policy: Policy, paths: ResolvedPaths) -> dict[str, fence.Means]:
    """The means by agent, of those that have a fence of level "write". Raises UsageError where one
    cannot be built. Blocks when asked first."""
    found = {}
    for name in agents_in_use(policy):
        if flaw := _blinding(settings, name, paths):
            raise UsageError(flaw)
        if terms(settings, name).level == LEVEL:
            warm_container.check(settings, name, paths, os.environ)
        elif terms(settings, name).level == "write":
            means, flaw, mend = choice(settings, name, paths)
            if means is None:
                raise UsageError(f"{flaw}; {mend}")
            found[name] = means
    return found


def _blinding(settings: Settings, agent: str, paths: ResolvedPaths) -> str:
    """What is wrong with `deny_read`, where it holds what the agent works in; "" for nothing."""
    from codex_self_iter.world.git.ground import expanded

    for path in terms(settings, agent).deny_read:
        place = os.path.realpath(expanded(path, str(paths.workspace), os.environ))
        for what, own in (("workspace", paths.workspace), ("state directory", paths.state_dir)):
            if fence.inside(str(own), place):
                return f"[fence] deny_read: {path} holds the {what} {own}; name what lies in it"
    return ""


def choice(settings: Settings, agent: str, paths: ResolvedPaths) -> fence.Choice:
    """The means for an agent with level "write". Blocks when it is asked for first."""
    from codex_self_iter.world.process.fence_machine import look  # starts programs, seldom needed

    asked, machine = terms(settings, agent), look()
    within = fence.inside(str(paths.state_dir), str(paths.workspace))
    protocol = getattr(settings.agents.get(agent), "protocol", "")
    mounts = settings.agent_mode != "bypass" and sandboxed(agent, protocol, bool(machine.bwrap))
    if mounts and protocol == "acp":  # codex-acp 2.6.0 wants to write /tmp, whatever is configured
        flaw = f"over ACP {agent}'s own sandbox cannot work inside a fence"
        return fence.Choice(None, flaw, f"leave [agents.{agent}] protocol out, or {fence.BYPASS}")
    return fence.choose(
        machine,
        asked.by,
        offline=asked.offline,
        state_inside=within,
        sandboxed=agent if mounts else "",
    )


class Fence:
    """The fence of one loop's runs."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.container = Container(ctx)
        self._ground: fence.Ground | None = None
        """What was around the last run, if it had a fence."""
        self._kept = False
        """Something is to be put back."""

    @property
    def _record(self) -> str:
        return os.path.join(self._ctx.store.path, RECORD)

    async def begin(self) -> None:
        """A start, which `check` has let pass: put back what a run had changed whose supervisor was
        killed, and say how fences are built here."""
        ctx = self._ctx
        self._kept = await ctx.shared.in_thread(os.path.exists, self._record)
        await self._put_back()
        for name in agents_in_use(ctx.policy):
            if terms(ctx.settings, name).level != "write":
                continue
            means = (await ctx.shared.in_thread(choice, ctx.settings, name, ctx.paths)).means
            if means is None:
                continue
            cannot = await ctx.shared.in_thread(_weakness, means)
            ctx.log.info("fence.chosen", agent=name, by=str(means), cannot=list(cannot))
            if cannot:
                ctx.warnings.tell(
                    WEAK, f"the fence ({means}) has gaps on this machine: {'; '.join(cannot)}"
                )

    async def around(self, agent: str, request: Request, spec: RunSpec) -> RunSpec:
        """The same run with the fence that is configured for its agent. Raises UsageError when it
        cannot be built, StorageError."""
        ctx, asked = self._ctx, terms(self._ctx.settings, agent)
        self._ground = None
        around = {"write": self._around, LEVEL: self._inside}.get(asked.level)
        if around is None:
            return spec
        return await ctx.shared.in_thread(around, agent, asked, request, spec)

    def _around(self, agent: str, asked: Terms, request: Request, spec: RunSpec) -> RunSpec:
        from codex_self_iter.world.process.fence_machine import look

        means, flaw, mend = choice(self._ctx.settings, agent, self._ctx.paths)
        if means is None:
            raise UsageError(f"{flaw}; {mend}")
        # its own directory is closed but for this: the records in it say who its processes are
        scratch = os.path.realpath(request.temporary or spec.directory)
        ground = self._surveyed(agent, means, self._wanted(agent, asked, spec, scratch, scratch))
        if means not in fence.EXACT and (lost := fence.closed_in_open(ground)):
            text = f"the fence (landlock) cannot close {lost}, which lies in something open"
            raise UsageError(f"{text}; move the workspace, or install bubblewrap")
        anchor = os.path.join(spec.directory, "walls")
        os.makedirs(anchor, 0o700, exist_ok=True)
        plan = fence.walls(ground, means, bwrap=look().bwrap, offline=asked.offline) | {
            "anchor": anchor
        }
        shut = fence.closed_variables(spec.env, (*ground.closed, *ground.sockets))
        env = {name: value for name, value in spec.env.items() if name not in shut}
        return dataclasses.replace(spec, walls=plan, env=env)

    def _inside(self, agent: str, asked: Terms, request: Request, spec: RunSpec) -> RunSpec:
        """The same run in the loop's container."""
        from codex_self_iter.world.git.ground import expanded

        environment = environment_inside(spec.env, request.temporary)
        spec = dataclasses.replace(spec, env=environment)
        desk = os.path.join(self._ctx.store.path, DESK)
        wanted = self._wanted(agent, asked, spec, os.path.join(desk, "tmp"), desk)
        ground = self._surveyed(agent, fence.EXACT[0], wanted)
        places = (expanded(path, ground.workspace, spec.env) for path in asked.allow_read)
        readable = tuple(map(os.path.realpath, places))
        return self.container.around(agent, spec, ground, readable, offline=asked.offline)

    def _surveyed(self, agent: str, means: fence.Means, wanted: Wanted) -> fence.Ground:
        """What is around a run; what may have to be put back after it is kept."""
        from codex_self_iter.world.git.ground import survey
        from codex_self_iter.world.state import put_back

        ground, remarks = survey(wanted)
        programs = fence.guarded(ground, means)
        self._kept = bool(programs or ground.places)
        too_large = put_back.keep(programs, ground.places, self._record) if self._kept else ()
        remarks += tuple(f"{path} is too large to be put back" for path in too_large)
        if remarks:
            self._ctx.warnings.tell(REMARKS, f"the fence around {agent}: {'; '.join(remarks)}")
        else:
            self._ctx.warnings.clear(REMARKS)
        self._ground = ground
        return ground

    def _wanted(
        self, agent: str, asked: Terms, spec: RunSpec, scratch: str, run: str = ""
    ) -> Wanted:
        from codex_self_iter.world.git.ground import Wanted

        paths = self._ctx.paths
        inbox = os.path.join(self._ctx.store.path, "inbox")
        return Wanted(
            agent=known_as(agent, spec.argv),
            workspace=str(paths.workspace),
            state=self._ctx.store.path,
            run=run or spec.directory,
            scratch=scratch,
            environment=spec.env,
            allow_write=asked.allow_write,
            allow_read=asked.allow_read,
            deny_read=asked.deny_read,
            sealed=tuple(self._sealed()),
            opened=(*self._plan(), inbox, *_outputs(spec)),
            stdin=spec.stdin_path or "",
        )

    def _plan(self) -> Iterator[str]:
        """The plan, where it does not lie in the workspace anyway: a link there may be the agent's."""
        paths = self._ctx.paths
        within = fence.inside(str(paths.plan), str(paths.workspace))
        if not within or paths.plan.parent == paths.state_dir:
            yield str(paths.plan)

    def _sealed(self) -> Iterator[str]:
        """The gates' own files, and the configuration in the workspace."""
        ctx, top = self._ctx, str(self._ctx.paths.workspace)
        whole = [
            os.path.join(top, pattern.removesuffix("/**"))
            for pattern in ctx.settings.verify.gate_files
            if pattern.endswith("/**") and not re.search(r"[*?\[]", pattern.removesuffix("/**"))
        ]
        yield from whole
        yield os.path.join(top, CONFIG_NAME)
        yield from map(str, ctx.settings.sources)
        files = (os.path.join(top, name) for name in ctx.state.gate_seen or () if name != RULES)
        single = [path for path in files if not any(fence.inside(path, one) for one in whole)]
        if len(single) > MOST_SEALED:
            text = (
                f"{len(single) - MOST_SEALED} gate files are only watched: more than {MOST_SEALED}"
            )
            ctx.warnings.tell(
                MANY, f"{text} are not closed one by one; name directories (`tests/**`)"
            )
        else:
            ctx.warnings.clear(MANY)
        yield from single[:MOST_SEALED]

    async def ended(self) -> None:
        """A run is over: put back what it has changed, before git is asked. Raises StorageError where
        that is impossible now."""
        await self._put_back()
        await self.settled()

    async def settled(self) -> None:
        """No run is on: what changes from now on is a person's doing."""
        if self._kept:
            from codex_self_iter.world.state import put_back

            with contextlib.suppress(StorageError):
                await self._ctx.shared.in_thread(put_back.forget, self._record)
        self._kept = False

    async def _put_back(self) -> None:
        if not self._kept:
            return
        from codex_self_iter.world.state import put_back

        ctx = self._ctx
        aside = os.path.join(ctx.store.path, "quarantine")
        changed = await ctx.shared.in_thread(put_back.put_back, self._record, aside)
        if changed:
            text = (
                f"a run has changed what tells git which programs to run ({', '.join(changed)}): it is "
                f"as it was before, and what the run had made of it is in {aside}"
            )
            ctx.warnings.tell(CHANGED, text, agent=True)

    def told(self, agent: str, report: AgentReport, files: RunFiles) -> AgentReport:
        """The report with what the last run's agent was refused by its fence, as far as its output
        says so; an agent that came to nothing for it was stopped by the fence."""
        ground, failure = self._ground, report.failure
        if ground is None:
            return report
        said = [files.read_tail(name, _READ_BYTES) for name in ("stdout.log", "stderr.log")]
        found = dict.fromkeys(path for text in said for path in refused_paths(text, ground))
        fenced = (f"{path} (the fence)" for path in list(found)[:_MOST_REFUSED])
        idle = failure is not None and failure.kind is FailureClass.AGENT and failure.idle
        if failure is not None and idle and any(map(_SAID.search, said)):
            mend = f"{fence.lets(ground, agent)}; [agents.{agent}.fence] allow_write opens more"
            failure = dataclasses.replace(failure, kind=FailureClass.SANDBOX, mend=mend)
        return dataclasses.replace(report, refused=(*report.refused, *fenced), failure=failure)


def _outputs(spec: RunSpec) -> Iterator[str]:
    """The files in its own directory that an agent was told to write; they are made."""
    for name in WRITTEN:
        path = os.path.join(spec.directory, name)
        if path in spec.argv:
            with storing("write", path):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            yield path


def _weakness(means: fence.Means) -> tuple[str, ...]:
    from codex_self_iter.world.process.fence_machine import look

    return fence.weakness(look(), means)


def refused_paths(text: str, ground: fence.Ground) -> Iterable[str]:
    """The fenced paths of which a line of output says that they could not be reached."""
    home = os.path.expanduser("~")
    for line in re.split(r"\n|\\n", text):
        line = line.replace('\\"', '"')[:2000]
        for said, where in ((_SAID, fence.refused), (_NOTHING, fence.closed_to)):
            for error in said.finditer(line):
                sides = _BEFORE.search(line[: error.start()]), _AFTER.search(line[error.end() :])
                for word in (next(filter(None, side.groups())) for side in sides if side):
                    path = home + word[1:] if word.startswith("~/") else word
                    path = os.path.realpath(os.path.join(ground.workspace, path))
                    if where(ground, path):
                        yield path
