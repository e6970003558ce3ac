"""Which of several candidates is the best: asked of the reviewer, where there is one."""

from __future__ import annotations

import os
from collections.abc import Sequence

from codex_self_iter.agents.base import Request
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core.control_block import Unreadable, read_json_object
from codex_self_iter.core.foreign import as_text
from codex_self_iter.core.lanes import Lane
from codex_self_iter.core.terms import Role
from codex_self_iter.core.text import one_line
from codex_self_iter.lanes import words
from codex_self_iter.lanes.yard import COMPARING, Yard
from codex_self_iter.supervisor import scratch
from codex_self_iter.supervisor.agent_run import spec_of
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.remains import Remains
from codex_self_iter.world.git.run import Git


async def compare(ctx: Context, yard: Yard, git: Git, lanes: Sequence[Lane]) -> tuple[str, str]:
    """The best lane and why; "" and why there is no answer. Who cancels it waits until nothing of the
    run is left. Raises GitError, StorageError, AgentMissingError, OSError."""
    diffs = []
    for lane in lanes:
        out = await git.run("diff", "--no-ext-diff", lane.base, lane.tip)
        diffs.append(out.stdout.decode("utf-8", "replace"))
    text = words.comparison(lanes, diffs)
    tree = yard.tree(COMPARING)
    await yard.ready_tree(tree, lanes[0].base)
    agent = ctx.agents[ctx.policy.agents[Role.REVIEWER][0].name]
    name = f"compare-{lanes[0].number}"
    directory = ctx.store.hook_directory(name)
    path = ctx.store.save_prompt(0, name, text, redact=False)
    request = Request(
        prompt=text,
        prompt_path=path,
        workspace=yard.workspace(tree),
        plan_path=str(ctx.paths.plan),
        directory=directory,
        role=Role.REVIEWER,
        environment=ctx.shared.environ,
        model_hint=ctx.settings.reviewer_model_hint,
        temporary=scratch.make(directory),
    )
    lock = os.path.join(directory, "lock")
    spec = spec_of(agent, request, f"{ctx.state.loop_id}-{name}", lock, ctx.settings)
    try:
        slot = ctx.shared.pool.slot(key=agent.name, priority=ctx.settings.priority, owner=ctx.name)
        async with slot:
            outcome = await Remains(ctx).run(spec)
        files = RunFiles(directory)
        report = await ctx.shared.in_thread(agent.read, request, outcome, files)
    finally:
        scratch.remove(directory)
        ctx.store.redact_run(directory)
        ctx.store.redact_prompt(path)
    shown = report.shown(ctx.store.redactor.text)
    if shown.failure is not None:
        return "", f"{agent.name} failed ({shown.failure.kind}): {shown.failure.message}"
    found = read_json_object(report.said or report.answer, "best")
    best = "" if isinstance(found, Unreadable) else as_text(found.get("best"))
    if isinstance(found, Unreadable) or best not in {one.id for one in lanes}:
        return "", f"{agent.name} named none of them"
    return best, ctx.store.redactor.text(one_line(as_text(found.get("reason")), 300))
