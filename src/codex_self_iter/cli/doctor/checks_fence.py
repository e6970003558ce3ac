"""Checks of the fence: whether it can be built as it is asked for, and what it does not hold."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from codex_self_iter.cli.doctor.finding import Check, Context, Finding, fail, good, warn
from codex_self_iter.core.agent_names import CLIS
from codex_self_iter.core.fence import EXACT, Machine, Means, choose, inside, weakness
from codex_self_iter.errors import UsageError


def agents_in_use(context: Context) -> dict[str, None]:
    """The names of the agents of every role; none where that cannot be told: the check of agents says
    why."""
    from codex_self_iter.supervisor import configured  # imports much

    with contextlib.suppress(UsageError):
        roles = configured.agent_names(context.settings, context.environ).values()
        return dict.fromkeys(name for role in roles for name in role)
    return {}


def fence(context: Context) -> Iterator[Finding]:
    """The fence of each agent in use; where there is none, whether one could be."""
    from codex_self_iter.supervisor import fencing  # imports much
    from codex_self_iter.world.process.fence_machine import look

    settings, paths = context.settings, context.paths
    machine, state_inside = look(), inside(str(paths.state_dir), str(paths.workspace))
    asked = {name: fencing.terms(settings, name) for name in agents_in_use(context)}
    for name, terms in asked.items():
        if terms.level == "write":
            chosen = fencing.choice(settings, name, paths)
            if chosen.means is None:
                yield fail("fence", chosen.flaw, chosen.mend)
            else:
                yield from _built(context, name, machine, chosen.means)
    if all(terms.level == "none" for terms in asked.values()):
        yield good("fence", _none(machine, state_inside))


def _none(machine: Machine, state_inside: bool) -> str:
    chosen = choose(machine, "auto", offline=False, state_inside=state_inside)
    what = "no fence: what an agent may touch is up to its own sandbox and this user's rights"
    if chosen.means is None:
        return f"{what}; {chosen.flaw}"
    return f'{what}; [fence] level = "write" works here, by {chosen.means}'


def _built(context: Context, name: str, machine: Machine, means: Means) -> Iterator[Finding]:
    how = f"Landlock version {machine.landlock}" if means is Means.LANDLOCK else str(means)
    what = f'level "write" for {name}, by {how}'
    gaps = weakness(machine, means)
    if gaps and means not in EXACT:
        mend = "allow unprivileged user namespaces, or install bubblewrap"
        yield warn("fence", f"{what}: {'; '.join(gaps)}", mend)
    elif gaps:
        yield good("fence", f"{what}; not held here: {'; '.join(gaps)}")
    else:
        yield good("fence", what)
    yield from _paths(context, name)


def _paths(context: Context, name: str) -> Iterator[Finding]:
    """What is odd about the paths that are configured."""
    from codex_self_iter.supervisor.fencing import terms
    from codex_self_iter.world.git.ground import Wanted, survey

    asked, paths = terms(context.settings, name), context.paths
    nowhere = os.path.join(str(paths.state_dir), "probe")
    wanted = Wanted(
        agent=name, workspace=str(paths.workspace), state=str(paths.state_dir), run=nowhere,
        scratch=nowhere, environment=context.environ, allow_write=asked.allow_write,
        allow_read=asked.allow_read, deny_read=asked.deny_read,
    )  # fmt: skip
    if asked.offline and name in (*CLIS, "acp"):
        what = f'{name} cannot reach its model with network = "none", unless by a local socket'
        yield warn("fence.paths", what, 'set [fence] network to "all"')
    for remark in survey(wanted, make=False)[1]:
        yield warn("fence.paths", f"{name}: {remark}", "mend [fence], if that is not meant")


CHECKS: tuple[Check, ...] = (fence,)
