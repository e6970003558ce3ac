"""The texts behind the tabs of the board. They read files: not for the event loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from codex_self_iter.core.text import clean, clean_block, moment, money, shorten, tokens, took
from codex_self_iter.errors import CodexSelfIterError
from codex_self_iter.screens import sources
from codex_self_iter.screens.board.bindings import TABS
from codex_self_iter.screens.board.showing import Line
from codex_self_iter.screens.sources import Kept, Shown
from codex_self_iter.views import lane_rows as lanes
from codex_self_iter.views import series
from codex_self_iter.views.summary import clock, inbox
from codex_self_iter.views.timeline import Iteration
from codex_self_iter.views.transcript import Item

STYLES = {"command": "bold", "change": "green", "error": "red", "note": "dim", "output": "dim"}
MARKS = {"command": "$ ", "change": "± ", "error": "! ", "note": "  ", "output": "  | "}
"""How items of an output are shown, as `logs` does."""
_BAR = 40
_SPARKS = " ▁▂▃▄▅▆▇█"


def items(found: Iterable[Item]) -> list[Line]:
    """What an agent has printed."""
    return [
        (MARKS.get(item.kind, "") + line, STYLES.get(item.kind, ""))
        for item in found
        for line in item.text.split("\n")
    ]


def sheet(
    tab: int, shown: Shown, one: Iteration | None, done: Sequence[Iteration], now: float
) -> list[Line]:
    """The text of a tab but the first: of a loop, and of the iteration that is meant. `done`: the
    iterations that are known, oldest first. Never raises."""
    match TABS[tab]:
        case "plan":
            return _plan(shown)
        case "diff":
            return _diff(shown, one)
        case "gates":
            return _gates(one)
        case "prompt":
            return _prompt(shown, one)
        case "messages":
            return _messages(shown)
        case "history":
            return _history(done, now)
    return _plots(done)


def _plan(shown: Shown) -> list[Line]:
    goal = str(shown.seen.status.get("goal") or "(starts from the plan)")
    found: list[Line] = [("goal", "dim"), *_lines(clean_block(goal)), ("", "")]
    found += [(f"inbox: {clean(line)}", "yellow") for line in inbox(shown.seen)]
    found += _lanes(shown)
    plan = sources.plan(shown.seen)
    done = sum(line.item.ticked for line in plan.lines)
    head = plan.flaw or f"{plan.path}: {done} of {len(plan.lines)} done"
    found.append((head, "yellow" if plan.flaw else "dim"))
    for line in plan.lines:
        mark = "x" if line.item.ticked else " "
        style = "dim" if line.item.ticked else "bold" if line.next else ""
        since = f"  (iteration {line.since})" if line.since else ""
        lead = f"{'>' if line.next else ' '} {'  ' * min(line.level, 8)}"
        found.append((f"{lead}[{mark}] {line.title}{since}", style))
        found += [(f"{' ' * len(lead)}    check: {check}", "dim") for check in line.checks]
    return found


def _lanes(shown: Shown) -> list[Line]:
    """A table of the lanes that are not over; nothing for a loop without."""
    if not (line := lanes.summed(shown.seen.status)):
        return []
    rows = lanes.rows(shown.seen.status)
    wide = max((len(one.lane) for one in rows), default=0)
    found: list[Line] = [(f"lanes: {line}", "dim")]
    for one in rows:
        why = f": {one.why}" if one.why else ""
        style = "" if one.colour == "green" else one.colour
        found.append((f"  {one.lane:<{wide}}  {one.state:<9}  {one.item}{why}", style))
    return [*found, ("", "")]


def _diff(shown: Shown, one: Iteration | None) -> list[Line]:
    if one is None or one.ended is None:
        return [("What is under way is kept, and shown, when the iteration has ended.", "dim")]
    try:
        text = sources.diff(shown.loop, str(one.number))
    except CodexSelfIterError as error:
        return [(clean(str(error)), "yellow"), *((clean(path), "") for path in one.files)]
    return [(line, _diff_style(line)) for line in text.split("\n")]


def _diff_style(line: str) -> str:
    if line.startswith(("diff ", "+++ ", "--- ", "index ")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def _gates(one: Iteration | None) -> list[Line]:
    if one is None or not one.gates:
        return [("No gate ran in this iteration.", "dim")]
    found: list[Line] = []
    for gate in one.gates:
        head = f"{gate.command}: {gate.end}, {took(gate.took_sec)}"
        found.append((head, "bold green" if gate.ok else "bold red"))
        found += [(f"  of {title}", "dim") for title in gate.items]
        found += [(f"  {line}", style) for line, style in _lines(gate.output)]
    return found


def _prompt(shown: Shown, one: Iteration | None) -> list[Line]:
    number = one.number if one else 0
    sent = sources.prompts_of(shown.loop.state_dir, number)
    said = sources.answers_of(shown.loop.state_dir, number)
    if not sent:
        return [("The prompt is not kept, or there is none yet.", "dim")]
    return [*_kept("prompt", sent), *_kept("answer", said)]


def _kept(what: str, texts: list[Kept]) -> list[Line]:
    return [
        line
        for one in texts
        for line in ((f"{what} {one.name}", "dim"), *_lines(one.text), ("", ""))
    ]


def _messages(shown: Shown) -> list[Line]:
    found: list[Line] = []
    for one in sources.messages(shown.loop.state_dir):
        what = "goal" if one.goal else "message, at once" if one.now else "message"
        whose = "waits" if one.iteration is None else f"for iteration {one.iteration}"
        found.append(
            (f"{moment(one.at)}  {what}, {whose}", "yellow" if one.iteration is None else "dim")
        )
        found += [(f"  {line}", style) for line, style in _lines(one.text)]
    return found or [("Nobody has written to this loop. `:` leaves a message for it.", "dim")]


def _history(done: Sequence[Iteration], now: float) -> list[Line]:
    found: list[Line] = []
    for one in reversed(done):
        when = "" if one.ended is None else clock(one.ended, now)
        spent = tokens(one.tokens) if one.tokens else ""
        cost = money(one.cost_usd) if one.cost_usd is not None else ""
        head = f"{one.number:>5}  {when:<16}  {one.told_verdict:<20} {took(one.took_sec):>9}"
        found.append((f"{head}  {spent:>6} {cost:>7}  {shorten(one.summary, 300)}", one.colour))
    return found or [("No iteration is recorded yet.", "dim")]


# -- plots -----------------------------------------------------------------------------------------


def _plots(done: Sequence[Iteration]) -> list[Line]:
    if not done:
        return [("Nothing to draw yet: no iteration is recorded.", "dim")]
    span = f"iterations {done[0].number} to {done[-1].number}"
    stacks = series.verdicts(done)
    found: list[Line] = [(f"Iterations over time ({span})", "bold")]
    if stacks:
        found.append((sparks([stack.total for stack in stacks]), "green"))
        found.append((f"{stacks[0].label} to {stacks[-1].label}", "dim"))
    found += _bars("By verdict", series.by_verdict(done), lambda value: f"{value:.0f}")
    found += _bars("Time by state", series.seconds_by_state(done), took)
    found += _bars("Tokens a day", series.tokens_by_day(done), tokens)
    found += _bars("Money a day", series.money_by_day(done), money)
    for gate in series.gate_times(done):
        seconds = [run[1] for run in gate.runs]
        failed = sum(not ok for _, _, ok in gate.runs)
        found += [("", ""), (f"Gate {gate.command}", "bold"), (sparks(seconds[-60:]), "cyan")]
        most = f"{len(seconds)} runs, {failed} failed, the longest {took(max(seconds))}"
        found.append((most, "dim"))
    return found


def _bars(title: str, bars: Sequence[series.Bar], words: Callable[[float], str]) -> list[Line]:
    if not bars:
        return []
    found: list[Line] = [("", ""), (title, "bold")]
    most = max(bar.value for bar in bars) or 1.0
    wide = max(len(bar.label) for bar in bars)
    for bar in bars[-30:]:
        drawn = "█" * max(1 if bar.value else 0, round(_BAR * bar.value / most))
        found.append((f"{bar.label:<{wide}} {drawn} {words(bar.value)}", bar.colour))
    return found


def sparks(values: Sequence[float]) -> str:
    """One character for each value, the highest for the largest, a blank for nothing."""
    most = max(values, default=0.0) or 1.0
    top = len(_SPARKS) - 1
    return "".join(_SPARKS[min(top, math.ceil(top * max(0.0, value) / most))] for value in values)


def _lines(text: str) -> list[Line]:
    return [(line, "") for line in text.rstrip("\n").split("\n")]
