"""The one screen of `status`: `status.json` and the supervisor's life -> lines of text.

Only light imports: every reading command starts through here."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime

from codex_self_iter.core.foreign import as_dict, as_list, as_number
from codex_self_iter.core.text import (
    age,
    clean,
    counted,
    cut,
    epoch,
    in_a_row,
    money,
    shorten,
    size,
    tokens,
    took,
    typed,
)

Status = Mapping[str, object]
Paint = Callable[..., str]
"""Takes a text and the names of its styles."""

HEARTBEAT_LATE_SEC = 20.0
"""Four missed heartbeats: then a living supervisor is called "not responding"."""
WAITING = ("backoff", "cooldown", "limited", "paused")
GOOD = ("completed", "stopped")
BAD = ("stagnated", "blocked", "crashed")
WHOLE = ("supervisor", "orphan", "why", "wait", "lanes", "owed", "unproven", "warning", "next")
"""Rows that may say what a person can do: they go on in the next line, and no path is broken."""
LABEL = 11
QUIET_SEC = 300.0
"""Without output for this long, a run is called quiet."""


class Life:
    """Whether a supervisor has a loop.

    Attributes:
        alive: a process holds the loop's lock (or, where that cannot be known, has its pid).
        stale_sec: age of the last heartbeat; None when there was never one.
        pid: the process, 0 when unknown.
        orphan: process of an agent or gate that works on although its supervisor is gone, or 0."""

    def __init__(self, alive: bool, stale_sec: float | None, pid: int, orphan: int = 0) -> None:
        self.alive, self.stale_sec, self.pid, self.orphan = alive, stale_sec, pid, orphan

    @property
    def late(self) -> bool:
        """Alive, but its heartbeat is overdue."""
        return self.alive and self.stale_sec is not None and self.stale_sec > HEARTBEAT_LATE_SEC


class Seen:
    """One loop at this moment: what it is called, what its file says, whether it lives.

    Attributes:
        waiting: the goal ("": none) and the number of messages that nothing has read yet.
        flaw: why its file cannot be believed, and what helps; else "".
        gone: its state directory is gone."""

    def __init__(
        self,
        name: str,
        workspace: str,
        state_dir: str,
        status: Status,
        life: Life,
        waiting: tuple[str, int] = ("", 0),
        flaw: str = "",
        *,
        gone: bool = False,
    ) -> None:
        self.name, self.workspace, self.state_dir = name, workspace, state_dir
        self.status, self.life, self.waiting, self.flaw = status, life, waiting, flaw
        self.gone = gone

    def state(self) -> tuple[str, str]:
        """The state in a word or two, and its colour."""
        state = clean(str(self.status.get("state") or "unknown"))
        if self.life.orphan:
            return "orphan", "red"
        if self.flaw:
            return "unreadable", "red"
        if not self.status and not self.life.alive:
            return "not started", "yellow"
        if not self.life.alive and state not in GOOD + BAD:
            return "gone", "red"
        if self.life.late:
            return "not responding", "red"
        if state in (*GOOD, "running", "verifying"):
            return state, "green"
        return state, "red" if state in BAD else "yellow"


class Surroundings:
    """What the screen says beside the loop itself.

    Attributes:
        now: Unix seconds.
        where: the option that names the loop from here, such as ` --workspace DIR`, or "".
        stop, pause: whether a file that says so is there.
        own: the same for what reads its configuration, which may be a file of its own.
        gone: the workspace is not; then `where` names the state directory.
        bar: two characters that draw what is done and what is open."""

    def __init__(
        self, now: float, where: str, *, stop: bool, pause: bool, bar: str, gone: bool = False,
        config: str = "",
    ) -> None:  # fmt: skip
        """`config`: the file that its last start was given, "" for none."""
        self.own = where + (f" --config {typed(config)}" if config else "")
        self.now, self.where, self.bar = now, where, bar
        self.stop, self.pause, self.gone = stop, pause, gone


def render(seen: Seen, around: Surroundings, paint: Paint, width: int) -> list[str]:
    """All lines of the screen, none longer than `width` (colours apart) but for a long word."""
    view = View(seen, around)
    lines = [view.head(paint)]
    room = width - LABEL - 2
    for label, texts in view.rows():
        shown = label
        for text in filter(None, texts):
            for line in _wrapped(text, room) if label in WHOLE else (cut(text, room),):
                told = paint(line, "yellow") if label == "warning" else line
                lines.append(f"  {paint(f'{shown:<{LABEL}}', 'dim')}{told}")
                shown = ""
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(clean(text), width, break_long_words=False, break_on_hyphens=False)


def inbox(seen: Seen) -> list[str]:
    """What waits in the inbox, one line each."""
    goal, messages = seen.waiting
    lines = [f"the next goal: {goal}"] if goal else []
    return [*lines, f"{counted(messages, 'message')} for the next prompt"] if messages else lines


def table(rows: Iterable[tuple[str, Seen]], now: float, paint: Paint, width: int) -> list[str]:
    """One line for each loop of this user; `width` 0: as long as it is."""
    cells = [("NAME", "STATE", "ITERATION", "SINCE", "PLAN", "WORKSPACE")]
    for name, seen in rows:
        since, plan = epoch(seen.status.get("since")), as_dict(seen.status.get("plan"))
        cells.append(
            (
                shorten(name, 30),
                seen.state()[0],
                f"{as_number(seen.status.get('iteration')):.0f}" if seen.status else "",
                "" if since is None else age(now - since),
                f"{plan.get('done')}/{plan.get('total')}" if plan.get("total") else "",
                clean(seen.workspace),
            )
        )
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    lines = [cut(line, width) if width else line for line in lines]
    return [paint(lines[0], "bold"), *lines[1:]]


def standstill(seen: Seen) -> str:
    """Why the agent is silent: the loop waits, is paused or has ended; "" while it works, and where
    none has run. The same words for as long as it is the same. An orphan works."""
    status, state = seen.status, str(seen.status.get("state") or "")
    if seen.life.orphan:
        return ""
    if not seen.life.alive:
        ended = as_dict(status.get("exit"))
        told = f"the loop has ended: {ended.get('state')}, {ended.get('reason')}"
        gone = "the supervisor is gone without saying why" if status else ""
        return clean(told if ended else gone)
    if state not in (*WAITING, "blocked"):
        return ""
    until, since = epoch(status.get("until")), epoch(status.get("since"))
    when = "" if until is None else f" until {clock(until, since or until)}"
    reason = as_dict(status.get("wait")).get("reason") or status.get("reason")
    return clean(f"waits{when} ({state}){f': {reason}' if reason else ''}")


def against(unproven: object, gates: object) -> str:
    """Why an iteration was not believed, in a few words: the gates that have failed stand for what
    no verdict came to judge; "" when nothing did."""
    if unproven:
        return shorten(str(unproven), 120)
    named = [shorten(clean(str(command)), 40) for command in as_list(gates)]
    more = ", …" if len(named) > 1 else ""
    return f"gate `{named[0]}`{more} failed" if named else ""


def clock(seconds: float, now: float) -> str:
    """A local time of day, with the date when it is not within half a day of now."""
    form = "%H:%M:%S" if abs(seconds - now) < 43200 else "%Y-%m-%d %H:%M"
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime(form)


class View:
    """What each row of the screen says; "" and [] where there is nothing to say."""

    def __init__(self, seen: Seen, around: Surroundings) -> None:
        self.seen, self.status, self.life = seen, seen.status, seen.life
        self.now, self.around = around.now, around

    def head(self, paint: Paint) -> str:
        name = shorten(str(self.status.get("name") or self.seen.name), 40)
        state, colour = self.seen.state()
        parts = [paint(name, "bold"), paint(state, colour, "bold")]
        iteration = as_number(self.status.get("iteration"))
        parts += [f"iteration {iteration:.0f}"] if iteration else []
        since = epoch(self.status.get("since"))
        if since is not None:
            parts.append(f"since {clock(since, self.now)} ({age(self.now - since)})")
        return "  ".join(parts)

    def rows(self) -> Iterator[tuple[str, list[str]]]:
        yield "workspace", [self.seen.workspace]
        yield "supervisor", [self.supervisor()]
        yield "orphan", [self.orphan()]
        yield "why", [self.why()]
        yield "wait", [self.wait()]
        yield "goal", [str(self.status.get("goal") or "")]
        yield "inbox", inbox(self.seen)
        yield "agent", self.agent()
        yield "stuck?", [self.stuck()]
        yield "plan", [self.plan()]
        yield "notes", [self.notes()]
        yield "lanes", self.lanes()
        yield "owed", [self.owed()]
        yield "recent", self.recent()
        yield "unproven", [str(as_dict(self.status.get("last")).get("unproven") or "")]
        yield "usage", [self.usage()]
        yield "disk", [self.disk()]
        yield "warning", [str(text) for text in as_list(self.status.get("warnings"))]
        yield "next", self.advice()

    def supervisor(self) -> str:
        stale = self.life.stale_sec
        heard = "no heartbeat yet" if stale is None else f"heartbeat {age(stale)} ago"
        if self.life.alive:
            started = epoch(self.status.get("started_at"))
            up = "" if started is None else f", up {age(self.now - started)}"
            if self.life.late:
                return f"pid {self.life.pid} is not responding for {age(stale or 0)}"
            return f"alive, pid {self.life.pid}{up}, {heard}"
        ended = as_dict(self.status.get("exit"))
        if ended:
            at = epoch(ended.get("at"))
            when = "" if at is None else f" at {clock(at, self.now)}, {age(self.now - at)} ago"
            why = ended.get("reason") or ended.get("state")
            return f"ended{when}: exit {ended.get('code')}, {why}"
        if stale is None:
            return "none has run here yet"
        since = clock(self.now - stale, self.now)
        return f"gone since about {since} ({age(stale)}) without saying why"

    def orphan(self) -> str:
        """What the supervisor that is gone has left at work."""
        pid = self.life.orphan
        return f"pid {pid} works on without a supervisor: it is ended, or taken over" if pid else ""

    def why(self) -> str:
        """The state's reason, where no other line says it."""
        reason = str(self.status.get("reason") or "")
        said = (as_dict(self.status.get(key)).get("reason") for key in ("wait", "exit"))
        return "" if reason in said else reason

    def wait(self) -> str:
        wait = as_dict(self.status.get("wait"))
        until = epoch(wait.get("until") or self.status.get("until"))
        state = str(wait.get("kind") or self.status.get("state") or "")
        if until is None or not (wait or state in WAITING):
            return ""
        left = until - self.now
        text = f"{state} until {clock(until, self.now)} " + (
            f"(in {age(left)})" if left > 0 else "(over)"
        )
        return f"{text}: {wait['reason']}" if wait.get("reason") else text

    def agent(self) -> list[str]:
        run = as_dict(self.status.get("run"))
        if not run or not self.life.alive:
            return []
        pid = run.get("pid")
        first = (
            f"{run.get('agent')} ({run.get('role')}), {f'pid {pid}' if pid else 'starting'}"
            f", age {age(as_number(run.get('age_sec')) + (self.life.stale_sec or 0.0))}"
            f", cpu {as_number(run.get('cpu_percent')):.0f} %"
            f", memory {as_number(run.get('memory_mb')):.0f} MB"
            f", {as_number(run.get('processes')):.0f} process"
            f"{'' if run.get('processes') == 1 else 'es'}"
        )
        heard = epoch(run.get("last_output_at"))
        second = "no output yet" if heard is None else f"last output {age(self.now - heard)} ago"
        second += f", {size(as_number(run.get('output_bytes')))} written"
        deadline = epoch(run.get("deadline_at"))
        if deadline is not None:
            second += f", must end by {clock(deadline, self.now)} (in {age(deadline - self.now)})"
        return [first, second]

    def stuck(self) -> str:
        """Signs of trouble, worst first; "" while no agent works and nothing repeats."""
        if not self.life.alive:
            return ""
        counters, signs = as_dict(self.status.get("counters")), []
        for key, noun, more in (
            ("consecutive_errors", "error", ""),
            ("no_change", "iteration", " changed nothing"),
            ("gate_failures", "gate failure", ""),
        ):
            count = as_number(counters.get(key))
            signs += [in_a_row(count, noun) + more] if count else []
        same = as_number(counters.get("same_goal"))
        signs += [f"{same:.0f} times the same goal"] if same > 1 else []
        run = as_dict(self.status.get("run"))
        idle = as_number(run.get("idle_sec"))
        if run.get("retrying"):
            signs.append(f"the agent tries again to reach its model: {run['retrying']}")
        signs += [f"no sign of life from the agent for {age(idle)}"] if idle >= QUIET_SEC else []
        if signs:
            return "perhaps: " + ", ".join(signs)
        return "no" if run and not self.life.late else ""

    def notes(self) -> str:
        """How many facts every prompt shows."""
        count = int(as_number(self.status.get("notes")))
        return (
            f"{counted(count, 'note')} for later iterations ({self.seen.state_dir}/notes.md)"
            if count
            else ""
        )

    def plan(self) -> str:
        plan = as_dict(self.status.get("plan"))
        total, done = int(as_number(plan.get("total"))), int(as_number(plan.get("done")))
        if total <= 0:
            return ""
        filled = max(0, min(20, 20 * done // total))
        on, off = self.around.bar[0], self.around.bar[1]
        last = f", last: {plan['last_ticked']}" if plan.get("last_ticked") else ""
        return f"{on * filled}{off * (20 - filled)} {done} of {total}{last}"

    def recent(self) -> list[str]:
        rows = []
        for item in map(as_dict, as_list(self.status.get("recent"))):
            usage = [tokens(as_number(item["tokens"]))] if item.get("tokens") else []
            usage += [money(as_number(item["cost_usd"]))] if item.get("cost_usd") else []
            head = f"#{item.get('iteration')} {item.get('verdict')}"
            head += f" ({item['failure_class']})" if item.get("failure_class") else ""
            lasted = took(as_number(item.get("duration_sec")))
            summary = " ".join(str(item.get("summary") or "").split())
            if why := against(item.get("unproven"), item.get("gates_failed")):
                summary = f"{why}: {summary}"
            rows.append(f"{head:<24} {lasted:>9}  {' '.join(usage):<13} {summary}")
        return rows

    def owed(self) -> str:
        """What the loop changed and could not commit yet."""
        owed = as_dict(self.status.get("owed"))
        if not owed:
            return ""
        files = ", ".join(map(str, as_list(owed.get("files"))[:3]))
        why = " ".join(str(owed.get("why") or "the next commit takes them").split())
        count = as_number(owed.get("count"))
        return f"{count:.0f} not committed ({files}): {why}" if count else f"not committed: {why}"

    def usage(self) -> str:
        usage = as_dict(self.status.get("usage"))
        parts = [f"{tokens(as_number(usage['tokens']))} tokens"] if usage.get("tokens") else []
        parts += [money(as_number(usage["cost_usd"]))] if usage.get("cost_usd") else []
        if unpriced := as_number(usage.get("unpriced_tokens")):
            parts.append(f"the cost of {tokens(unpriced)} is not known")
        hours = as_number(usage.get("hours"))
        parts += [f"agents worked {age(hours * 3600)}"] if hours else []
        return ", ".join(parts)

    def disk(self) -> str:
        disk = as_dict(self.status.get("disk"))
        if not disk:
            return ""
        words = (
            ("state_mb", "state directory {}"), ("git_mb", "git objects {}"), ("free_mb", "{} free"),
        )  # fmt: skip
        known = ((text, as_number(disk.get(key))) for key, text in words)
        # 0: not measured yet
        return ", ".join(text.format(size(number * 1e6)) for text, number in known if number)

    def lanes(self) -> list[str]:
        """How its lanes stand."""
        if not self.status.get("lanes"):
            return []
        from codex_self_iter.views.lane_rows import summed  # a loop without is spared it

        return [summed(self.status)]

    def advice(self) -> list[str]:
        """The commands that help from here."""
        asking: list[str] = []
        if self.status.get("lanes"):
            from codex_self_iter.views.lane_rows import needy  # a loop without is spared it

            show = "codex-self-iter lanes show {}{}   (what it needs)"
            asking = [show.format(one.lane, self.around.where) for one in needy(self.status)]
        return asking[:3] + self._advice() if not self.life.late else self._advice()

    def _advice(self) -> list[str]:
        where, state = self.around.where, str(self.status.get("state") or "")
        resume = f"codex-self-iter resume{where}"
        if self.life.late:
            pid = self.life.pid
            return [
                f"kill -CONT {pid}   (if somebody has stopped it: Ctrl-Z, SIGSTOP)",
                f"kill -KILL {pid}   (else; it hears no `stop`. Then start it: it goes on from here)",
            ]
        if self.life.alive and state == "paused":
            return [resume]
        if self.life.alive:
            return [f"codex-self-iter logs -f{where}", f"codex-self-iter stop{where}"]
        if self.around.gone:
            return [
                f"codex-self-iter history{where}   (its workspace {self.seen.workspace} is gone)"
            ]
        if self.life.orphan:
            ends, takes = "   (ends what works on)", "   (takes it over)"
            return [
                f"codex-self-iter stop{where}{ends}",
                f"codex-self-iter run{self.around.own}{takes}",
            ]
        if state == "completed":
            return [f"codex-self-iter history{where}", f"{self.seen.state_dir}/report.md"]
        clear = " --clear-stop" if self.around.stop else ""
        how = "goes on where it ended; give it the options of its last start"
        again = [resume] if self.around.pause else []
        again += [f"codex-self-iter run{self.around.own}{clear}   ({how})"]
        last = as_dict(self.status.get("last"))
        if last.get("verdict") == "stop" and state in ("stopped", "blocked"):
            return [
                "its agent waits for a person: do or decide what it asks for, and say so:",
                f"codex-self-iter show {last.get('iteration')}{where}   (all that it said)",
                f'codex-self-iter steer{where} "…"   (what the next iteration is told)',
                *again,
            ]
        report = f"{self.seen.state_dir}/report.md says what happened: mend it, then"
        return (
            [report, f"codex-self-iter doctor{self.around.own}", *again] if state in BAD else again
        )
