"""The one screen of `status`: `status.json` and the supervisor's life -> lines of text. Nothing is
read.
"""

from __future__ import annotations

import os

from codex_self_iter.cli.common import Life, Loop, epoch
from codex_self_iter.cli.terminal import Paint, clock
from codex_self_iter.core.text import age, clean, cut, money, shorten, size, tokens, took

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    Status = Mapping[str, Any]

WAITING = ("backoff", "cooldown", "limited", "paused")
GOOD = ("completed", "stopped")
BAD = ("stagnated", "blocked", "crashed")
LABEL = 11
QUIET_SEC = 300.0
"""Without output for this long, a run is called quiet."""


def render(
    status: Status, loop: Loop, life: Life, now: float, paint: Paint, width: int
) -> list[str]:
    """All lines of the screen, none longer than `width` (colours apart)."""
    view = _View(status, loop, life, now, paint, width)
    return [view.head(), *view.rows()]


class _View:
    def __init__(
        self, status: Status, loop: Loop, life: Life, now: float, paint: Paint, width: int
    ) -> None:
        self.status, self.loop, self.life = status, loop, life
        self.now, self.paint, self.width = now, paint, width

    def head(self) -> str:
        name = shorten(str(self.status.get("name") or self.loop.name), 40)
        parts = [self.paint(name, "bold"), self.state_word()]
        iteration = _number(self.status.get("iteration"))
        parts += [f"iteration {iteration:.0f}"] if iteration else []
        since = epoch(self.status.get("since"))
        if since is not None:
            parts.append(f"since {clock(since, self.now)} ({age(self.now - since)})")
        return "  ".join(parts)

    def state_word(self) -> str:
        state = clean(str(self.status.get("state") or "unknown"))
        if not self.life.alive and state not in GOOD + BAD:
            return self.paint("gone", "red", "bold")
        if self.life.late:
            return self.paint("not responding", "red", "bold")
        colour = (
            "green"
            if state in (*GOOD, "running", "verifying")
            else "red"
            if state in BAD
            else "yellow"
        )
        return self.paint(state, colour, "bold")

    def rows(self) -> Iterator[str]:
        for label, texts in (
            ("workspace", [self.loop.workspace]),
            ("supervisor", [self.supervisor()]),
            ("why", [self.why()]),
            ("wait", [self.wait()]),
            ("goal", [str(self.status.get("goal") or "")]),
            ("agent", self.agent()),
            ("stuck?", [self.stuck()]),
            ("plan", [self.plan()]),
            ("recent", self.recent()),
            ("usage", [self.usage()]),
            ("disk", [self.disk()]),
            ("warning", [str(text) for text in _list(self.status.get("warnings"))]),
            ("next", self.advice()),
        ):
            for text in filter(None, texts):
                line = cut(text, self.width - LABEL - 2)
                style = ("yellow",) if label == "warning" else ()
                yield f"  {self.paint(f'{label:<{LABEL}}', 'dim')}{self.paint(line, *style)}"
                label = ""

    def supervisor(self) -> str:
        stale = self.life.stale_sec
        heard = "no heartbeat yet" if stale is None else f"heartbeat {age(stale)} ago"
        if self.life.alive:
            started = epoch(self.status.get("started_at"))
            up = "" if started is None else f", up {age(self.now - started)}"
            if self.life.late:
                return f"pid {self.life.pid} is not responding for {age(stale or 0)}"
            return f"alive, pid {self.life.pid}{up}, {heard}"
        ended = _dict(self.status.get("exit"))
        if ended:
            at = epoch(ended.get("at"))
            when = "" if at is None else f" at {clock(at, self.now)}, {age(self.now - at)} ago"
            return f"ended{when}: exit {ended.get('code')}, {ended.get('reason') or ended.get('state')}"
        if stale is None:
            return "none has run here yet"
        return f"gone since about {clock(self.now - stale, self.now)} ({age(stale)}) without saying why"

    def why(self) -> str:
        """The state's reason, where no other line says it."""
        reason = str(self.status.get("reason") or "")
        said = (_dict(self.status.get(key)).get("reason") for key in ("wait", "exit"))
        return "" if reason in said else reason

    def wait(self) -> str:
        wait = _dict(self.status.get("wait"))
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
        run = _dict(self.status.get("run"))
        if not run or not self.life.alive:
            return []
        first = (
            f"{run.get('agent')} ({run.get('role')}), pid {run.get('pid')}"
            f", age {age(_number(run.get('age_sec')) + (self.life.stale_sec or 0.0))}"
            f", cpu {_number(run.get('cpu_percent')):.0f} %, memory {_number(run.get('memory_mb')):.0f} MB"
            f", {_number(run.get('processes')):.0f} process{'' if run.get('processes') == 1 else 'es'}"
        )
        heard = epoch(run.get("last_output_at"))
        second = "no output yet" if heard is None else f"last output {age(self.now - heard)} ago"
        second += f", {size(_number(run.get('output_bytes')))} written"
        deadline = epoch(run.get("deadline_at"))
        if deadline is not None:
            second += f", must end by {clock(deadline, self.now)} (in {age(deadline - self.now)})"
        return [first, second]

    def stuck(self) -> str:
        """Signs of trouble, worst first; "" while no agent works and nothing repeats."""
        if self.status.get("state") in GOOD:
            return ""
        counters, signs = _dict(self.status.get("counters")), []
        for key, least, text in (
            ("consecutive_errors", 1, "errors in a row"),
            ("no_change", 1, "iterations in a row changed nothing"),
            ("same_goal", 2, "times the same goal"),
            ("gate_failures", 1, "gate failures in a row"),
        ):
            count = _number(counters.get(key))
            signs += [f"{count:.0f} {text}"] if count >= least else []
        run = _dict(self.status.get("run"))
        idle = _number(run.get("idle_sec")) if self.life.alive else 0.0
        signs += [f"no sign of life from the agent for {age(idle)}"] if idle >= QUIET_SEC else []
        if signs:
            return "perhaps: " + ", ".join(signs)
        return "no" if run and self.life.alive and not self.life.late else ""

    def plan(self) -> str:
        plan = _dict(self.status.get("plan"))
        total, done = int(_number(plan.get("total"))), int(_number(plan.get("done")))
        if total <= 0:
            return ""
        filled = max(0, min(20, 20 * done // total))
        on, off = ("█", "░") if self.paint.unicode else ("#", ".")
        last = f", last: {plan['last_ticked']}" if plan.get("last_ticked") else ""
        return f"{on * filled}{off * (20 - filled)} {done} of {total}{last}"

    def recent(self) -> list[str]:
        rows = []
        for item in map(_dict, _list(self.status.get("recent"))):
            usage = [tokens(_number(item["tokens"]))] if item.get("tokens") else []
            usage += [money(_number(item["cost_usd"]))] if item.get("cost_usd") else []
            head = f"#{item.get('iteration')} {item.get('verdict')}"
            lasted = took(_number(item.get("duration_sec")))
            summary = " ".join(str(item.get("summary") or "").split())
            rows.append(f"{head:<24} {lasted:>9}  {' '.join(usage):<13} {summary}")
        return rows

    def usage(self) -> str:
        usage = _dict(self.status.get("usage"))
        parts = [f"{tokens(_number(usage['tokens']))} tokens"] if usage.get("tokens") else []
        parts += [money(_number(usage["cost_usd"]))] if usage.get("cost_usd") else []
        hours = _number(usage.get("hours"))
        parts += [f"agents worked {age(hours * 3600)}"] if hours else []
        return ", ".join(parts)

    def disk(self) -> str:
        disk = _dict(self.status.get("disk"))
        if not disk:
            return ""
        words = (("state_mb", "state directory {}"), ("free_mb", "{} free"))
        known = ((text, _number(disk.get(key))) for key, text in words)
        # 0: not measured yet
        return ", ".join(text.format(size(number * 1e6)) for text, number in known if number)

    def advice(self) -> list[str]:
        """The commands that help from here."""
        where, state = _where(self.loop), str(self.status.get("state") or "")
        if self.life.alive and state == "paused":
            return [f"codex-self-iter resume{where}"]
        if self.life.alive:
            return [f"codex-self-iter logs -f{where}", f"codex-self-iter stop{where}"]
        if state == "completed":
            return [f"codex-self-iter history{where}", f"{self.loop.state_dir}/report.md"]
        if state in BAD:
            return [f"codex-self-iter history{where}", f"codex-self-iter doctor{where}"]
        stop = self.status.get("stop_file")
        clear = " --clear-stop" if isinstance(stop, str) and os.path.lexists(stop) else ""
        return [f"codex-self-iter run{where}{clear}   (goes on where it ended)"]


def table(
    rows: Sequence[tuple[str, Loop, Status, Life]], now: float, paint: Paint, width: int
) -> list[str]:
    """One line for each loop of this user."""
    cells = [("NAME", "STATE", "ITERATION", "SINCE", "PLAN", "WORKSPACE")]
    for name, loop, status, life in rows:
        view = _View(status, loop, life, now, Paint(colour=False), width)
        since, plan = epoch(status.get("since")), _dict(status.get("plan"))
        cells.append(
            (
                shorten(name, 30),
                view.state_word(),
                f"{_number(status.get('iteration')):.0f}",
                "" if since is None else age(now - since),
                f"{plan.get('done')}/{plan.get('total')}" if plan.get("total") else "",
                clean(loop.workspace),
            )
        )
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()[:width]
        for row in cells
    ]
    return [paint(lines[0], "bold"), *lines[1:]]


def _where(loop: Loop) -> str:
    import shlex

    if os.path.realpath(loop.workspace) == os.path.realpath(os.curdir):
        return ""
    return f" --workspace {shlex.quote(loop.workspace)}"


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
