"""`run --dry-run`: what a start would do up to its first run, found out on a copy of the state.

Nothing is written where the loop lives and nothing is started: the same parts read the same files,
and the same core decides."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

import anyio
import structlog

from codex_self_iter.core import commands as do
from codex_self_iter.core import events as ev
from codex_self_iter.core import prompt as prompts
from codex_self_iter.core.machine import decide
from codex_self_iter.core.state import LoopState, Message, OpenRun
from codex_self_iter.settings import Settings
from codex_self_iter.settings.in_image import image_of
from codex_self_iter.settings.paths import (
    OWN_PLAN,
    OWN_TASK,
    ResolvedPaths,
    resolve_paths,
    validate_workspace,
)
from codex_self_iter.supervisor import announce, asking, fencing
from codex_self_iter.supervisor.configured import configure
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.logger import FILES
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.note_file import Notes
from codex_self_iter.supervisor.own_texts import OwnTexts
from codex_self_iter.supervisor.senses import stop_files
from codex_self_iter.supervisor.shared import Shared
from codex_self_iter.world.clock import SystemClock
from codex_self_iter.world.pool import Pool
from codex_self_iter.world.process import left
from codex_self_iter.world.state.holder import boot_id
from codex_self_iter.world.state.inbox import MAX_MESSAGES, PAUSE_FILE
from codex_self_iter.world.state.journal import JOURNAL
from codex_self_iter.world.state.store import NEXT, NOTES, PREVIOUS, RUNTIME, StateDirectory

_COPIED = (RUNTIME, PREVIOUS, NEXT, JOURNAL, NOTES, OWN_TASK, OWN_PLAN, "inbox")


def rehearse(settings: Settings, sentence: str, clear_stop: bool) -> str:
    """What a start of this loop would do. Raises UsageError as a start would."""
    return anyio.run(_rehearse, settings, sentence, clear_stop)


async def _rehearse(settings: Settings, sentence: str, clear_stop: bool) -> str:
    paths = resolve_paths(settings)
    real = paths.state_dir
    with tempfile.TemporaryDirectory(prefix="csi-dry-run-") as scratch:
        copy = Path(os.path.realpath(scratch)) / "state"
        _copy(real, copy)
        here = settings.model_copy(update={"state_dir": copy})

        def plain(text: str) -> str:
            """The text with the names of the real places."""
            near, far = (os.path.relpath(one, here.workspace_path) for one in (real, copy))
            return text.replace(far, near).replace(str(copy), str(real))

        said = _played(here, paths, sentence, _first(settings, clear_stop), plain)
        return "\n".join(map(plain, said))


def _copy(real: Path, copy: Path) -> None:
    copy.mkdir()
    for name in _COPIED:
        source = real / name
        (copy / name).parent.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):  # missing, or unreadable: then the start says so
            if source.is_dir() and not source.is_symlink():
                shutil.copytree(source, copy / name, symlinks=True)
            elif source.is_file():
                shutil.copy2(source, copy / name)


def _first(settings: Settings, clear_stop: bool) -> list[str]:
    """What comes before a run that is seen on the files alone."""
    paths = resolve_paths(settings)
    places = [os.path.join(*place) for place in stop_files(settings, paths)]
    stops = [path for path in places if os.path.lexists(path) and not clear_stop]
    found = [f"it would end at once: {path} is there (--clear-stop removes it)" for path in stops]
    if os.path.lexists(paths.state_dir / PAUSE_FILE):
        found.append("it would wait: the loop is paused (codex-self-iter resume)")
    if left.at_work(str(paths.state_dir)):
        found.append("an agent of an earlier supervisor is at work: it would be taken over first")
    return found


def _played(
    settings: Settings,
    paths: ResolvedPaths,
    sentence: str,
    first: list[str],
    plain: Callable[[str], str],
) -> Iterator[str]:
    ctx = _context(settings, sentence)
    yield "Dry run: nothing was written, nothing was started.\n"
    yield from announce.lines(ctx)
    yield from first
    if ctx.plan.problem:
        yield f"it would wait: {ctx.plan.problem}"
    run = _until_a_run(ctx)
    if run is None:
        wait = ctx.state.wait
        yield f"no run would start now: {ctx.state.reason or (wait.reason if wait else '')}"
        return
    notes = Notes(ctx)
    notes.begin()
    text = plain(prompts.build(asking.inputs(ctx, run, OwnTexts(ctx).of(run.role), notes)))
    path = os.path.join(ctx.store.path, "prompts", f"{run.label}.md")
    directory = os.path.join(ctx.store.path, "logs", "runs", run.label)
    asked = asking.request(ctx, run, text, path, directory, "")
    call = ctx.agents[run.agent].prepare(asked)
    number = ctx.state.open.number if ctx.state.open else 0
    yield f"\nIteration {number}, {run.role}, by {run.agent}"
    means = fencing.check(ctx.settings, ctx.policy, paths).get(run.agent)
    yield f"command      {shlex.join(map(plain, call.argv))}"
    yield f"stdin        {call.stdin_path or os.devnull}"
    yield f"environment  {' '.join(sorted(call.env))}"
    if means is not None:
        yield f'fence        level "write", by {means}'
    if image := image_of(ctx.settings, run.agent):
        yield f'fence        level "container", in {image}'
    for gate in ctx.settings.verify.commands:
        yield f"gate         {gate}"
    yield f"prompt       {len(text.encode())} bytes, as follows\n\n{text}"


def _until_a_run(ctx: Context) -> OpenRun | None:
    """Let the core decide until a run is to start; None: it waits, or ends, before one."""
    trace = ev.Trace.GONE if ctx.state.open and ctx.state.open.run else ev.Trace.NONE
    event: ev.Event | None = ev.Boot(trace)
    for _ in range(4):  # boot, what an open iteration still needs, inputs
        if event is None:
            return None
        ctx.state, commands = decide(ctx.state, event, ctx.policy, ctx.shared.moment())
        found = next((one.run for one in commands if isinstance(one, do.StartRun)), None)
        if found is not None:
            return found
        event = _answer(ctx, ctx.state, commands)
    return None


def _answer(ctx: Context, state: LoopState, commands: Iterable[do.Command]) -> ev.Event | None:
    """What the shell would post next, as far as it needs nothing to be started."""
    if any(isinstance(one, do.Prepare) for one in commands):
        found = ctx.inbox.messages(MAX_MESSAGES, ctx.shared.clock.wall())
        return ev.Prepared(tuple(Message(one.name, one.text, one.mark) for one in found))
    if any(isinstance(one, do.Keep) for one in commands) and state.open is not None:
        return ev.Kept()
    return None


def _context(settings: Settings, sentence: str) -> Context:
    shared = Shared(
        host=cast(Any, None),  # nothing is started
        pool=Pool(1),
        clock=SystemClock(),
        boot_id=boot_id(),
        log=structlog.wrap_logger(structlog.ReturnLogger(), processors=[_drop]),
        alone=True,
    )
    loop = Loop(shared, settings, sentence=sentence)
    paths = validate_workspace(settings, documents=not sentence)
    config = configure(settings, paths, shared.environ)
    store = StateDirectory(str(paths.state_dir), str(paths.workspace))
    if sentence:
        paths = loop.take_sentence(store)
    ctx = loop.context(paths, config, store)
    FILES.pop(settings.name, None)
    loop.recover(ctx)
    return ctx


def _drop(*_: object) -> NoReturn:
    raise structlog.DropEvent
