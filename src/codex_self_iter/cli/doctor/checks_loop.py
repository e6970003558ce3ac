"""Checks of one loop: workspace, documents, state, disk, lock, sentinels, agents, gates."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from codex_self_iter.agents.passed_env import agent_environment
from codex_self_iter.cli._replies import judged
from codex_self_iter.cli.doctor.ask import ask
from codex_self_iter.cli.doctor.checks_machine import SPARE_INODES, sandbox
from codex_self_iter.cli.doctor.finding import (
    Check,
    Context,
    Finding,
    Status,
    fail,
    good,
    warn,
)
from codex_self_iter.core.budget import exceeded
from codex_self_iter.core.plan import parse_plan
from codex_self_iter.core.recovery import RecoveryError
from codex_self_iter.core.template import parse_template
from codex_self_iter.errors import UsageError
from codex_self_iter.screens.loops import flaw_of, read_status
from codex_self_iter.settings import validate_workspace
from codex_self_iter.settings.in_image import image_of
from codex_self_iter.settings.templates import HOW_AGENT, NO_AGENT, NO_GATE, unwritten
from codex_self_iter.world.guarded import read_object
from codex_self_iter.world.process import left
from codex_self_iter.world.state.holder import probe

_MIB = 1024 * 1024
_STATE_BYTES = 64 * _MIB
_MOST_ENTRIES = 200_000
"""Files of the state directory that are added up; beyond it the size is "more than"."""


def workspace(context: Context) -> Iterator[Finding]:
    """Workspace, plan and task, as a start would check them."""
    init = f"codex-self-iter init --workspace {context.quoted}"
    try:
        paths = validate_workspace(context.settings)
    except UsageError as error:
        for line in str(error).splitlines():
            what, _, mend = line.partition("; ")
            yield fail("workspace", what, mend or init)
        return
    yield good("workspace", f"{paths.workspace}, plan {paths.plan.name}")
    if not paths.task.exists():
        what = f"{paths.task} does not exist: the agent has only the plan"
        yield warn("workspace.task", what, init)
    used = context.settings.agent_names()
    for name, path in ("task", paths.task), ("plan", paths.plan):
        if path.exists():
            text = path.read_text("utf-8-sig")
            what, _, mend = unwritten(name, str(path), text).partition("; ")
            if name == "plan" and "plan-shell" in used and not parse_plan(text).total:
                what, mend = f"no checkbox in {path}: plan-shell works through them", "- [ ] item"
            yield (
                warn(f"workspace.{name}", what, mend)
                if what
                else good(f"workspace.{name}", str(path))
            )


def state_directory(context: Context) -> Iterator[Finding]:
    """Writable, private, not too big, and enough room beside it."""
    path = str(context.paths.state_dir)
    if not os.path.isdir(path):
        yield good("state", f"{path} will be made")
    else:
        yield from _privacy(path)
        size, whole = _size(path)
        most = context.settings.output.max_state_mb
        text = f"{'' if whole else 'more than '}{size / _MIB:.0f} MiB in {path}"
        if most and size > most * _MIB:
            text += f", more than max_state_mb = {most:g}"
            yield warn("state.size", text, "the next run prunes it")
        else:
            yield good("state.size", text)
        if flaw := flaw_of(path, read_status(path)):
            mend = "the next start writes it anew; 'codex-self-iter history' reads the journal"
            yield warn("state.status", flaw.partition("; 'codex")[0], mend)
        yield from _future(path, context.now)
    yield from _disk(context)


def _privacy(path: str) -> Iterator[Finding]:
    found = os.stat(path)
    if found.st_uid != os.geteuid():
        mend = f"sudo chown -R $(id -un) {shlex.quote(path)}"
        yield warn("state.owner", f"{path} belongs to user {found.st_uid}, not to you", mend)
    if stat.S_IMODE(found.st_mode) & 0o077:
        mend = f"chmod 700 {shlex.quote(path)}"
        what = f"{path} can be read by others (mode {found.st_mode & 0o777:o})"
        yield warn("state.private", what, mend)
    else:
        yield good("state", f"{path} is private")


def _future(path: str, now: float) -> Iterator[Finding]:
    """A state that was written in the future tells of a clock that went back."""
    times = (os.stat(entry).st_mtime for entry in os.scandir(path) if entry.is_file())
    ahead = max(times, default=now) - now
    if ahead > 60:
        what = f"the state was last written {ahead / 60:.0f} min in the future: the clock went back"
        yield warn("time.state", what, "set the clock: sudo timedatectl set-ntp true")


def _disk(context: Context) -> Iterator[Finding]:
    place = _existing(str(context.paths.state_dir))
    free = shutil.disk_usage(place).free / _MIB
    least = context.settings.min_free_disk_mb
    text = f"{free:.0f} MiB free at {place}"
    if free < least:
        text += f", less than min_free_disk_mb = {least}: no agent would be started"
        yield fail("disk", text, "make room, or lower min_free_disk_mb")
    elif free < least + context.settings.output.max_run_mb * 2:
        yield warn("disk", f"{text}: one long output may fill it", "make room, or lower max_run_mb")
    else:
        yield good("disk", text)
    space = os.statvfs(place)
    if space.f_files and space.f_favail < SPARE_INODES:
        what = f"only {space.f_favail} inodes are free at {place}"
        yield fail("disk.inodes", what, "delete small files")
    if space.f_flag & getattr(os, "ST_NOEXEC", 0):
        what = (
            f"{place} is on a file system without execution (noexec): agents can run nothing there"
        )
        yield warn("disk.noexec", what, "mount it with exec, or set state_dir")


def lock(context: Context) -> Iterator[Finding]:
    """Whether another supervisor works here."""
    if not os.path.isdir(context.paths.state_dir):
        return
    name = context.settings.lock_file_name
    holder = probe(str(context.paths.state_dir), name, workspace=context.workspace)
    if holder:
        mend = f"codex-self-iter stop --workspace {context.quoted} (a second run would exit 75)"
        yield warn("lock", f"a supervisor works here: {holder}", mend)
    elif found := left.at_work(str(context.paths.state_dir)):
        pids = ", ".join(f"pid {left.pid_of(one)}" for one in found.values())
        mend = f"codex-self-iter stop --workspace {context.quoted} (a run takes it over)"
        yield warn("lock", f"an agent of a supervisor that is gone is still at work ({pids})", mend)
    else:
        yield good("lock", "no supervisor works here now")


def sentinels(context: Context) -> Iterator[Finding]:
    """STOP and PAUSE files that are there already."""
    settings, paths = context.settings, context.paths
    sentinels = {
        paths.state_dir / settings.stop_file_name: "stop",
        paths.workspace / settings.global_stop_file_name: "stop",
        paths.state_dir / "PAUSE": "pause",
    }
    effects = {"stop": "no agent would be started", "pause": "the loop would only wait"}
    there = {path: kind for path, kind in sentinels.items() if os.path.lexists(path)}
    for path, kind in there.items():
        mend = f"rm {shlex.quote(str(path))}"
        yield fail(f"sentinel.{kind}", f"{path} is there: {effects[kind]}", mend)
    if not there:
        yield good("sentinel", "no STOP and no PAUSE")


def agent(context: Context) -> Iterator[Finding]:
    """The agents of every role, those that would take over included. No tokens are spent."""
    from codex_self_iter.supervisor import configured, shortfalls  # import much

    try:
        roles = configured.agent_names(context.settings, context.environ)
        agents = configured.make_agents(context.settings, context.environ)
    except UsageError as error:
        what, _, mend = str(error).partition(": ")
        yield (
            fail("agent", what, mend) if what == NO_AGENT else fail("agent", str(error), HOW_AGENT)
        )
        return
    alone = context.settings.mode != "roles"
    used = [names for role, names in roles.items() if role == "executor" or not alone]
    in_use = {name for names in used for name in names}
    found = {name: _agent(context, name, agents[name]) for name in sorted(in_use)}
    for name, finding in found.items():
        own = [names for names in used if name in names]
        spare = all(any(found[other].status != "fail" for other in names) for names in own)
        # a broken agent stops nothing while another can take over in each of its roles
        harmless = finding.status == "fail" and spare
        yield dataclasses.replace(finding, status="warn") if harmless else finding
    working = [agents[name] for name in found]
    for lost in shortfalls.shortfalls(context.settings, working, context.environ):
        yield _lost(lost, "warn")
    here = {name for name in in_use if not image_of(context.settings, name)}
    if context.settings.agent_mode == "safe" and here & {"codex", "claude"}:
        yield from sandbox(context)
        yield from _own_sandbox(
            context, agents, [name for name in found if found[name].status == "ok"]
        )


def _agent(context: Context, name: str, adapter: Any) -> Finding:
    key = f"agent.{name}"
    if name == "plan-shell":
        return good(key, "plan-shell is part of this program")
    if name == "command":
        return _template(context, key, adapter)
    probe = adapter.probe(context.environ)
    if not probe.installed:
        what = probe.detail or f"{name} is not installed"
        return fail(key, what, probe.mend or f"install {name}")
    said = " ".join(filter(None, (name, probe.version, f"({probe.path})")))
    if not probe.version:
        return fail(key, f"{name} ({probe.path}) does not work: {probe.detail}", probe.mend)
    if probe.logged_in is False:
        return fail(key, f"{said} is not logged in", probe.mend or f"log in: {name} login")
    if probe.mend:
        return warn(key, f"{said}: {probe.detail}", probe.mend)
    if not probe.measured:
        said += f", {probe.detail.partition(';')[0]}"
    sure = "logged in" if probe.logged_in else "whether it is logged in cannot be told"
    return good(key, f"{said}, {sure}")


def _own_sandbox(
    context: Context, agents: Mapping[str, Any], names: list[str]
) -> Iterator[Finding]:
    for name in names:
        flaw, mend = getattr(agents[name], "sandbox_flaw", lambda _: ("", ""))(context.environ)
        if flaw:
            yield warn(
                f"agent.{name}.sandbox", f"the sandbox of {name} does not work here: {flaw}", mend
            )


def _template(context: Context, key: str, adapter: Any) -> Finding:
    if "{" in parse_template(context.settings.agent_command_template)[0]:
        return good(key, "the program of agent_command_template is known only when it runs")
    from codex_self_iter.supervisor import configured, shortfalls  # import much

    try:
        path = configured.program_of(adapter, context.paths, context.environ)
    except UsageError as error:
        mend = "correct agent_command_template, or make the program executable (chmod +x)"
        return fail(key, str(error).partition("; ")[0], mend)
    why, mend = shortfalls.unstartable(path, by_shell=False)
    if why:
        return fail(key, f"agent_command_template: {path} {why}", mend)
    return good(key, f"agent_command_template runs {path}")


def gates(context: Context) -> Iterator[Finding]:
    """Whether the gates can work; with --run-gates, whether they succeed now."""
    verify = context.settings.verify
    if not verify.commands:
        yield warn("gates", NO_GATE, 'name your tests: [verify] commands = ["…"]')
    if not context.has_workspace:
        return
    from codex_self_iter.supervisor.shortfalls import gate_flaws  # import much

    flaws = gate_flaws(context.settings, context.workspace, context.environ)
    flawed = {one.key: _lost(one) for one in flaws}
    for number, command in enumerate(verify.commands, 1):
        key = f"gate.{number}"
        sure = key in flawed and flawed[key].status == "fail"
        ran = _ran(context, key, command) if context.run_gates and not sure else None
        if ran and (ran.status != "ok" or key not in flawed):
            yield ran
        else:
            said = f"{command!r} (not run; --run-gates runs it)"
            yield flawed.get(key) or good(key, said)


def without_effect(context: Context) -> Iterator[Finding]:
    """Keys and globs that do nothing as things are here."""
    from codex_self_iter.supervisor.shortfalls import without_effect as found  # import much

    if context.has_workspace:
        for text in found(context.settings):
            yield warn("config.without_effect", text, "take it out, or set what it needs")


def hooks(context: Context) -> Iterator[Finding]:
    """Whether the hooks can be run; none is."""
    from codex_self_iter.supervisor.shortfalls import hook_flaws  # import much

    if context.has_workspace:
        found = hook_flaws(context.settings, context.workspace, context.environ)
        yield from map(_lost, found)


def notify(context: Context) -> Iterator[Finding]:
    """Whether somebody is told; of a loop that runs as a service nobody else sees what happens."""
    from codex_self_iter.service import found
    from codex_self_iter.supervisor.recipients import targets
    from codex_self_iter.supervisor.shortfalls import notify_flaw  # import much

    command = context.settings.notify.command
    lost = notify_flaw(context.settings, context.workspace, context.environ)
    if lost or command:
        yield _lost(lost) if lost else good("notify", f"{command[0]} is told what happens")
    elif not targets(context.settings):
        told = "nobody is told what happens: [notify] names no command, url or target"
        unit = found.of(context.workspace, map(str, context.settings.sources))
        mend = "name one; see docs/notifications.md"
        yield (
            warn("notify", f"{told}, and {unit} runs it unattended", mend)
            if unit
            else good("notify", told)
        )
    yield from _urls(context)
    yield from _replies(context)


def _replies(context: Context) -> Iterator[Finding]:
    """Of each place that a person answers from, whether it can be listened to."""
    from codex_self_iter.supervisor import ears, recipients

    for one in context.settings.notify.replies:
        where = one.url.partition("://")[0]
        said = f"replies by {where} are not heard"
        if missing := _missing("replies", said, ears.EXTRA):
            yield missing
            continue
        if (found := judged(one, context.environ)).flaw:
            mend = "mend [[notify.replies]], or set the variable where the supervisor starts"
            yield fail("replies", f"{said}: {found.flaw}", mend)
            continue
        words = where != "tgram" and any(recipients.literal(text) for text in one.allow)
        if words or recipients.looks_secret(one.url):
            text = f"a secret of the replies by {where} stands in the file"
            yield warn("replies", text, "put it into a variable, and ${VARIABLE} in its place")
        else:
            yield good("replies", f"replies are heard: {found.shown}")


def _urls(context: Context) -> Iterator[Finding]:
    """Of each target with a URL, whether it can be reached for all that can be known."""
    from codex_self_iter.supervisor import recipients

    for target in recipients.targets(context.settings):
        key = f"notify.{target.name}"
        said = f"nothing is sent to {target.name}"
        if not target.url:
            continue
        if lost := _unsent(context, key, said, target.url, recipients.EXTRA, "notifications"):
            yield lost
        elif not _known(recipients.expanded(target.url, context.environ)[0]):
            mend = "see the list of services of apprise; codex-self-iter notify test"
            yield fail(key, f"{said}: its url is none that apprise knows", mend)
        elif recipients.looks_secret(target.url):
            text = f"a secret seems to stand in the url of {target.name}"
            yield warn(key, text, "put it into a variable, and ${VARIABLE} into the url")
        else:
            yield good(
                key, f"{target.name} is told what happens; try it: codex-self-iter notify test"
            )


def otlp(context: Context) -> Iterator[Finding]:
    """Whether traces and numbers can be exported, for all that can be known."""
    from codex_self_iter.metrics import OTLP
    from codex_self_iter.supervisor import recipients  # imports much

    address = context.settings.otlp
    if not address:
        return
    if lost := _unsent(context, "otlp", "nothing is exported", address, OTLP, "metrics"):
        yield lost
    elif recipients.looks_secret(address):
        mend = "put it into a variable, and ${VARIABLE} into the address"
        yield warn("otlp", "a secret seems to stand in the address", mend)
    else:
        yield good("otlp", f"traces and numbers are exported to {address}")


def _unsent(
    context: Context, key: str, said: str, url: str, extra: tuple[str, ...], page: str
) -> Finding | None:
    """Why nothing goes to a URL: its extra is missing, or a variable in it."""
    from codex_self_iter.supervisor import recipients

    if missing := _missing(key, said, extra):
        return missing
    try:
        recipients.expanded(url, context.environ)
    except ValueError as error:
        mend = f"set it where the supervisor starts (docs/{page}.md)"
        return fail(key, f"{said}: {error}", mend)
    return None


def _missing(key: str, said: str, extra: tuple[str, ...]) -> Finding | None:
    """That an extra is not installed, and what installs it."""
    from codex_self_iter.world.installed import lack

    what, _, mend = lack(*extra).partition(": ")
    return fail(key, f"{said}: it {what}", mend) if what else None


def _known(url: str) -> bool:
    import apprise

    return apprise.Apprise.instantiate(url) is not None


def _lost(lost: Any, status: Status = "fail") -> Finding:
    return Finding(lost.key, status if lost.sure else "warn", lost.what, lost.mend)


def _ran(context: Context, key: str, command: str) -> Finding:
    limit = context.settings.verify.timeout_sec or 86400.0
    environ = agent_environment(context.environ, passed=context.settings.verify.pass_env)
    answer = ask(
        ["/bin/sh", "-c", command],
        dataclasses.replace(context, environ=environ),
        timeout_sec=limit,
        cwd=context.workspace,
    )
    if answer.ok:
        return good(key, f"{command!r} succeeds")
    last = (answer.text or "no output").splitlines()[-1]
    how = last if answer.code is None else f"exits {answer.code}: {last}"
    mend = "it must succeed before a completion is believed"
    return warn(key, f"{command!r} fails now ({how})", mend)


def spent(context: Context) -> Iterator[Finding]:
    """Whether the budget of the loop that is kept here is used up."""
    kept = read_object(str(context.paths.state_dir / "runtime.json"), _STATE_BYTES)
    if kept is None:
        return
    from codex_self_iter.supervisor import configured  # import much
    from codex_self_iter.world.state.codec import recover

    try:
        state = recover(kept, None, "")
    except RecoveryError:
        return  # a start says it, and may have the snapshot before it
    if said := exceeded(state.spent, configured.budget_of(context.settings), context.now):
        yield fail("budget", said, "raise it; what is of a day begins anew at midnight UTC")
    else:
        yield good("budget", "nothing that is bounded is spent")


def _existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _size(path: str) -> tuple[int, bool]:
    """Disk use of a tree in bytes, and whether all of it was seen."""
    total, left, stack = 0, _MOST_ENTRIES, [path]
    while stack and left > 0:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                left -= 1
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
    return total, not stack


CHECKS: tuple[Check, ...] = (
    workspace, state_directory, lock, sentinels, agent, spent, gates, hooks, without_effect,
    notify, otlp,
)  # fmt: skip
