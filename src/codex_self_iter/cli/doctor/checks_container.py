"""Checks of the fence's level "container": engine, image, paths."""

from __future__ import annotations

from collections.abc import Iterator

from codex_self_iter.cli.doctor.checks_fence import agents_in_use
from codex_self_iter.cli.doctor.finding import Check, Context, Finding, fail, good
from codex_self_iter.settings.in_image import LEVEL, image_of


def container(context: Context) -> Iterator[Finding]:
    """The container of each agent in use that has one. Nothing is started in it."""
    from codex_self_iter.supervisor import fencing, warm_container  # import much
    from codex_self_iter.world.process import containers

    settings = context.settings
    for name in agents_in_use(context):
        if fencing.terms(settings, name).level != LEVEL:
            continue
        found = [*warm_container.flaws(settings, name, context.paths, context.environ)]
        yield from (fail("fence.container", what, mend) for what, mend in found)
        engine = containers.find(settings.fence.engine, context.environ)[0]
        if engine is not None and not found:
            what = f'level "container" for {name}, in {image_of(settings, name)} by {engine.name}'
            yield good("fence.container", what)


CHECKS: tuple[Check, ...] = (container,)
