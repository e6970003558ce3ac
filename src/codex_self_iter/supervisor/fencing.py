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
from codex_self_iter.core.fence_container import environment_inside
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

if TYPE_CHECKING:
    from codex_self_iter.world.git.ground import Wanted

REMARKS, WEAK, CHANGED = "fence", "fence weak", "fence put back"
RECORD = "fence/before.json"
"""In the state directory: what is put back after the run that is on."""
MOST_SEALED = 500
"""Gate files that are closed one by one; a directory counts once."""
_READ_BYTES = 256 * 1024
_MOST_REFUSED = 5
_ERROR = (
    r"(?:read-only file system|permission denied|operation not permitted|device or resource busy|"
    r"invalid cross-device link|EROFS|EACCES|EPERM|EBUSY|EXDEV)\b"
)
_SAID = re.compile(_ERROR, re.IGNORECASE)
_REFUSED = re.compile(
    r"(?:'(?P<a>[^'\n]+)'|\"(?P<b>[^\"\n]+)\"|(?P<c>[^\s'\":]+))\s*:\s*"
    + _ERROR
    + "|"
    + _ERROR
    + r"[^'\"/\n]*(?:'(?P<d>[^'\n]+)'|\"(?P<e>[^\"\n]+)\"|(?P<f>/[^\s'\":,]+))",
    re.IGNORECASE,
)
"""A path just before an error, or the first one after it: as shells, git, Python, Node, Go and Rust
say it."""


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
        if terms(settings, name).level == LEVEL:
            warm_container.check(settings, name, paths, os.environ)
        elif terms(settings, name).level == "write":
            means, flaw, mend = choice(settings, name, paths)
            if means is None:
                raise UsageError(f"{flaw}; {mend}")
            found[name] = means
    return found


def choice(settings: Settings, agent: str, paths: ResolvedPaths) -> fence.Choice:
    """The means for an agent with level "write". Blocks when it is asked for first."""
    from codex_self_iter.world.process.fence_machine import (
        look,
    )  # starts programs, and is seldom needed

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
        """A start: put back what a run had changed whose supervisor was killed, and say how fences are
        built here. Raises UsageError where one cannot be built."""
        ctx = self._ctx
        self._kept = await ctx.shared.in_thread(os.path.exists, self._record)
        await self._put_back()
        chosen = await ctx.shared.in_thread(check, ctx.settings, ctx.policy, ctx.paths)
        for name, means in chosen.items():
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
        scratch = request.temporary or spec.directory
        ground = self._surveyed(agent, means, self._wanted(agent, asked, spec, scratch))
        plan = fence.walls(ground, means, bwrap=look().bwrap, offline=asked.offline)
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
        places = ground.places if means not in fence.EXACT else ()
        self._kept = bool(programs or places)
        too_large = put_back.keep(programs, places, self._record) if self._kept else ()
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
            opened=(str(paths.plan), inbox),
            stdin=spec.stdin_path or "",
        )

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
        yield from single[:MOST_SEALED]

    async def ended(self) -> None:
        """A run is over: put back what it has changed, before git is asked."""
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
        try:
            changed = await ctx.shared.in_thread(put_back.put_back, self._record, aside)
        except StorageError as error:  # the run's result must not be lost with it
            text = f"git may run what a run has made: it could not be put back ({error})"
            ctx.warnings.tell(CHANGED, text)
            return
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


def _weakness(means: fence.Means) -> tuple[str, ...]:
    from codex_self_iter.world.process.fence_machine import look

    return fence.weakness(look(), means)


def refused_paths(text: str, ground: fence.Ground) -> Iterable[str]:
    """The fenced paths of which a line of output says that they could not be reached."""
    home = os.path.expanduser("~")
    for line in re.split(r"\n|\\n", text):
        for found in _REFUSED.finditer(line.replace('\\"', '"')[:2000]):
            word = next(filter(None, found.groups()))
            path = home + word[1:] if word.startswith("~/") else word
            path = os.path.realpath(os.path.join(ground.workspace, path))
            if fence.refused(ground, path):
                yield path
