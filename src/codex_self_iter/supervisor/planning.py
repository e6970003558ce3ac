"""`plan "TASK"`: one run of the agent that drafts a plan, contained like every other."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from codex_self_iter.agents.base import Request
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core import drafting
from codex_self_iter.core.drafting import Draft
from codex_self_iter.core.progress import compare
from codex_self_iter.core.terms import Mode, Role
from codex_self_iter.core.text import one_line
from codex_self_iter.errors import AgentFailedError, StorageError
from codex_self_iter.settings import Settings
from codex_self_iter.settings.paths import OWN_PLAN, OWN_TASK, ResolvedPaths
from codex_self_iter.setup import sentence
from codex_self_iter.supervisor import scratch
from codex_self_iter.supervisor.agent_run import spec_of
from codex_self_iter.supervisor.configured import configure, need_reader
from codex_self_iter.world import threads
from codex_self_iter.world.git.worktree import GitWorkTree
from codex_self_iter.world.process.host import Host
from codex_self_iter.world.process.tool import run_tool
from codex_self_iter.world.state.durable import storing
from codex_self_iter.world.state.inbox import write_goal
from codex_self_iter.world.state.store import RUNTIME, StateDirectory

NEW_GOAL = "Begin with the first open item of the new plan."


class Planner:
    """Drafts plans for one workspace. Only for the holder of its locks."""

    def __init__(
        self, settings: Settings, paths: ResolvedPaths, store: StateDirectory, task: str
    ) -> None:
        """`task`: what is wanted, in words. Raises UsageError when there is no agent that reads it."""
        self._settings, self._paths, self._store, self._task = settings, paths, store, task
        config = configure(settings, paths, os.environ)
        role = Role.PLANNER if config.policy.mode is Mode.ROLES else Role.EXECUTOR
        name = config.policy.agents[role][0].name
        need_reader(name)
        self.agent = config.agents[name]
        self._runs = 0
        self._tree = GitWorkTree(str(paths.workspace), store.path, run_tool)
        self.changed: tuple[str, ...] = ()
        """Files that the last run has changed, although it was only to plan."""

    async def draft(self, plan: str, said: Sequence[str], *, may_ask: bool) -> Draft:
        """Ask the agent. Raises AgentFailedError: it failed, or answered neither plan nor question."""
        text = drafting.ask(self._task, plan, said, may_ask=may_ask)
        self._runs += 1
        directory = self._store.fresh_run_directory(0, "plan", self._runs, again=True)
        path = self._store.save_prompt(0, "plan", text, self._runs, redact=False)
        request = Request(
            prompt=text,
            prompt_path=path,
            workspace=str(self._paths.workspace),
            plan_path=str(self._paths.plan),
            directory=directory,
            role=Role.PLANNER,  # it changes nothing
            environment=os.environ,
            model_hint=self._settings.planner_model_hint,
            temporary=scratch.make(directory),
        )
        run_id, lock = f"{os.urandom(4).hex()}-plan-{self._runs}", f"{self._store.path}/run.lock"
        spec = spec_of(self.agent, request, run_id, lock, self._settings)
        before = await self._tree.snapshot(None)
        try:
            async with Host() as host:
                outcome = await (await host.start(spec)).wait()
            self.changed = compare(before, await self._tree.snapshot(before)).files
            files = RunFiles(directory)
            report = await threads.run_sync(self.agent.read, request, outcome, files)
        finally:
            scratch.remove(directory)
            self._redact(directory, path)
        shown = report.shown(self._store.redactor.text)
        where = f"its output is in {directory}"
        if shown.failure is not None:
            what = f"{self.agent.name} has made no plan ({shown.failure.kind}): {shown.failure.message}"
            raise AgentFailedError(f"{what}; {where}")
        found = drafting.read(report.said or report.answer)
        if not found.plan and not (found.questions and may_ask):
            said_so = one_line(self._store.redactor.text(report.answer), 200) or "nothing"
            what = f"{self.agent.name} has answered without a plan ({said_so})"
            raise AgentFailedError(f"{what}; {where}")
        return found

    def _redact(self, directory: str, path: str) -> None:
        try:
            self._store.redact_run(directory)
            self._store.redact_prompt(path)
        except StorageError:  # it stays as it is, in a private directory
            return


def keep(
    store: StateDirectory, paths: ResolvedPaths, task: str, plan: str, free: Callable[[str], str]
) -> str:
    """Make it the loop's plan and the words its task; the plan's path.

    A plan of the workspace is moved to the name that `free` finds for it; one in the state directory
    stays as `plan-1.md`, … Raises StorageError."""
    own = paths.plan.parent == paths.state_dir or not os.path.lexists(paths.plan)
    files = {OWN_TASK: f"{task.strip()}\n"} | ({OWN_PLAN: plan} if own else {})
    sentence.put(store.root, files)
    where = f"{store.path}/{OWN_PLAN}"
    if not own:
        where = str(paths.plan)
        with storing("write", where):
            os.rename(where, free(where))
            with open(where, "x", encoding="utf-8") as file:
                file.write(plan)
    if store.root.look(RUNTIME):
        write_goal(store.path, NEW_GOAL)
    return where
