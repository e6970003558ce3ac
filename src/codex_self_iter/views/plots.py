"""Plots as SVG: drawn here, so that a page needs no script for them; colours are the page's classes.

Text in a plot is text: it can be read aloud, searched and copied. Nothing in it is from an agent but
names of verdicts and gates, and those are escaped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from codex_self_iter.core.text import shorten
from codex_self_iter.views.series import Bar, GateTimes, Stack

WIDTH, HEIGHT = 640, 160
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 18, 22
Say = Callable[[float], str]
"""A value as people read it."""


def stacked(stacks: Sequence[Stack], title: str) -> str:
    """Bars upon each other, oldest left."""
    most = max((one.total for one in stacks), default=0)
    if not most:
        return ""
    parts = []
    for number, one in enumerate(stacks):
        left, width = _column(number, len(stacks))
        bottom = float(HEIGHT - _BOTTOM)
        for bar in one.parts:
            tall = bar.value / most * (HEIGHT - _TOP - _BOTTOM)
            bottom -= tall
            told = f"{one.label}: {bar.value:.0f} {bar.label}"
            parts.append(_rect(left, bottom, width, tall, bar.colour, told))
    totals: dict[str, float] = {}
    for bar in (bar for one in stacks for bar in one.parts):
        totals[bar.label] = totals.get(bar.label, 0) + bar.value
    said = ", ".join(f"{value:.0f} {label}" for label, value in totals.items())
    ends = _ends(stacks[0].label, stacks[-1].label)
    return _svg(f"{title}: {said}", f"at most {most:.0f}", [*parts, *ends])


def columns(bars: Sequence[Bar], title: str, say: Say) -> str:
    """One bar a day, oldest left."""
    most = max((bar.value for bar in bars), default=0)
    if not most:
        return ""
    parts = []
    for number, bar in enumerate(bars):
        left, width = _column(number, len(bars))
        tall = bar.value / most * (HEIGHT - _TOP - _BOTTOM)
        told = f"{bar.label}: {say(bar.value)}"
        parts.append(_rect(left, HEIGHT - _BOTTOM - tall, width, tall, bar.colour, told))
    said = f"{say(sum(bar.value for bar in bars))} in all, at most {say(most)} a day"
    ends = _ends(bars[0].label, bars[-1].label)
    return _svg(f"{title}: {said}", f"at most {say(most)}", [*parts, *ends])


def shares(bars: Sequence[Bar], title: str, say: Say) -> str:
    """One bar a line, with its name and value."""
    most = max((bar.value for bar in bars), default=0)
    if not most:
        return ""
    tall, label, room = 22, 150, WIDTH - 150 - 110
    parts = []
    for number, bar in enumerate(bars):
        top, long = number * tall + 4, max(1.0, bar.value / most * room)
        middle = top + 11
        parts.append(_text(label - 8, middle, shorten(bar.label, 22), "end"))
        parts.append(
            _rect(label, top, long, tall - 8, bar.colour, f"{bar.label}: {say(bar.value)}")
        )
        parts.append(_text(label + long + 6, middle, say(bar.value)))
    said = ", ".join(f"{bar.label} {say(bar.value)}" for bar in bars)
    return _svg(f"{title}: {said}", "", parts, len(bars) * tall + 6)


def durations(gate: GateTimes, say: Say) -> str:
    """How long a gate took, one bar a run, oldest left."""
    most = max((seconds for _, seconds, _ in gate.runs), default=0)
    if not most:
        return ""
    parts = []
    for place, (number, seconds, passed) in enumerate(gate.runs):
        left, width = _column(place, len(gate.runs))
        tall = max(1.0, seconds / most * (HEIGHT - _TOP - _BOTTOM))
        told = f"iteration {number}: {say(seconds)}, {'passed' if passed else 'failed'}"
        colour = "green" if passed else "red"
        parts.append(_rect(left, HEIGHT - _BOTTOM - tall, width, tall, colour, told))
    failed = sum(not passed for _, _, passed in gate.runs)
    said = f"{gate.command}: {len(gate.runs)} runs, {failed} failed, at most {say(most)}"
    ends = _ends(f"iteration {gate.runs[0][0]}", f"{gate.runs[-1][0]}")
    return _svg(said, f"at most {say(most)}", [*parts, *ends])


def _column(number: int, count: int) -> tuple[float, float]:
    step = min(48.0, (WIDTH - _LEFT - _RIGHT) / count)
    return _LEFT + number * step, max(1.0, step * 0.8)


def _rect(x: float, y: float, width: float, height: float, colour: str, told: str) -> str:
    kind = colour if colour in ("green", "yellow", "red") else "plain"
    return (
        f'<rect class="bar-{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}"><title>{escape(told)}</title></rect>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _ends(first: str, last: str) -> list[str]:
    bottom = HEIGHT - 6
    ends = [_text(_LEFT, bottom, first)]
    return [*ends, _text(WIDTH - _RIGHT, bottom, last, "end")] if last != first else ends


def _svg(told: str, top: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    above = [_text(_LEFT, 12, top)] if top else []
    return (
        f'<svg class="plot" role="img" viewBox="0 0 {WIDTH} {height}" '
        f'aria-label="{escape(told, quote=True)}">{"".join([*above, *parts])}</svg>'
    )
