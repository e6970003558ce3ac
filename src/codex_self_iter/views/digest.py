"""What happened since some moment, over all loops: one paragraph each, what needs a person first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from codex_self_iter.core.foreign import as_list
from codex_self_iter.core.text import age, clean, counted, money, shorten, tokens
from codex_self_iter.views.lane_rows import summed
from codex_self_iter.views.rows import Row, Urgency, ranked
from codex_self_iter.views.summary import Seen, Surroundings
from codex_self_iter.views.timeline import Record, iteration
from codex_self_iter.views.troubles import Trouble, troubles

MOST_LOOPS = 10
"""Lines of a message; what is urgent comes first."""


class LoopDigest(NamedTuple):
    """One loop since then. Every text is clean and of one line.

    Attributes:
        row: the loop as it is now.
        trouble: what is most urgent now, None where nothing is.
        iterations: how many ended since, by verdict, the most frequent first.
        ticked: items of the plan that were ticked in them; commits, files: made and changed in them.
        tokens, cost_usd: None where nothing is known.
        worked_sec: how long the iterations took together.
        lanes: how its lanes stand, "" for a loop without.
        said: what the last of them says of itself."""

    row: Row
    trouble: Trouble | None
    iterations: dict[str, int]
    ticked: int
    commits: int
    files: int
    tokens: float | None
    cost_usd: float | None
    worked_sec: float
    lanes: str
    said: str

    @property
    def at_rest(self) -> bool:
        """Nothing has happened, and nothing is wrong."""
        return not self.iterations and self.trouble is None and self.row.urgency >= Urgency.WAITING

    @property
    def done(self) -> str:
        """What was done, in some words; "nothing" for nothing."""
        parts = [counted(sum(self.iterations.values()), "iteration")] if self.iterations else []
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in self.iterations.items())
        parts[-1:] = [f"{parts[0]} ({verdicts})"] if parts else []
        parts += [counted(self.ticked, "item") + " ticked"] if self.ticked else []
        parts += [counted(self.commits, "commit")] if self.commits else []
        parts += [counted(self.files, "file") + " changed"] if self.files else []
        return ", ".join(parts) or "nothing"

    @property
    def spent(self) -> str:
        """What that has cost, in some words; "" where nothing is known."""
        parts = [f"{tokens(self.tokens)} tokens"] if self.tokens else []
        parts += [money(self.cost_usd)] if self.cost_usd is not None else []
        parts += [f"worked {age(self.worked_sec)}"] if self.worked_sec else []
        return ", ".join(parts)


def of_loop(seen: Seen, around: Surroundings, row: Row, records: Iterable[Record]) -> LoopDigest:
    """One loop; `records`: the journal's lines of iterations that ended since then, oldest first."""
    lines = list(records)
    ended = [iteration(line) for line in lines]
    known = [one.tokens for one in ended if one.tokens is not None]
    costs = [one.cost_usd for one in ended if one.cost_usd is not None]
    urgent = [one for one in troubles(seen, around) if one.urgency <= Urgency.WAITING]
    return LoopDigest(
        row=row,
        trouble=urgent[0] if urgent else None,
        iterations=dict(Counter(one.verdict for one in ended).most_common()),
        ticked=sum(len(as_list(line.get("ticked"))) for line in lines),
        commits=sum(bool(one.commit) for one in ended),
        files=len({path for one in ended for path in one.files}),
        tokens=sum(known) if known else None,
        cost_usd=sum(costs) if costs else None,
        worked_sec=sum(one.took_sec for one in ended),
        lanes=summed(seen.status),
        said=shorten(ended[-1].summary, 300) if ended else "",
    )


def needy(loops: Sequence[LoopDigest]) -> int:
    """How many need a person."""
    return sum(one.row.urgency is Urgency.NEEDS_YOU for one in loops)


def headline(loops: Sequence[LoopDigest]) -> str:
    """All of it in one line."""
    need = needy(loops)
    done = [(verdict, n) for one in loops for verdict, n in one.iterations.items()]
    count = sum(n for _, n in done)
    parts = [
        counted(len(loops), "loop"),
        f"{need} need{'s' if need == 1 else ''} you" if need else "none needs you",
    ]
    parts.append(counted(count, "iteration"))
    finished = sum(n for verdict, n in done if verdict == "completed")
    parts += [f"{finished} completed"] if finished else []
    used = sum(one.tokens or 0 for one in loops)
    parts += [f"{tokens(used)} tokens"] if used else []
    costs = [one.cost_usd for one in loops if one.cost_usd is not None]
    parts += [money(sum(costs))] if costs else []
    return ", ".join(parts)


def text(loops: Sequence[LoopDigest], since: str) -> list[str]:
    """For a terminal or a mail: lines without colours. `since`: the moment, as people read it."""
    lines = [f"Since {since}: {headline(loops)}."]
    for one in loops:
        if not one.at_rest:
            lines += ["", *_paragraph(one)]
    if rest := [one.row.name for one in loops if one.at_rest]:
        lines += ["", f"Nothing happened in {', '.join(rest)}."]
    return [clean(line, 2000) for line in lines]


def _paragraph(one: LoopDigest) -> list[str]:
    row = one.row
    plan = f", plan {row.done} of {row.total}" if row.total else ""
    rows = [("", f"{row.name}: {row.state}{plan}")]
    if one.trouble:
        rows += [("trouble", one.trouble.words), ("mend", one.trouble.mend)]
    rows += [("done", one.done), ("lanes", one.lanes), ("spent", one.spent), ("last", one.said)]
    return [f"  {label:<9}{words}" if label else words for label, words in rows if words]


def brief(loops: Sequence[LoopDigest]) -> list[str]:
    """For a lock screen: a headline, then one short line for each loop, what needs a person first."""
    busy = {one.row.state_dir: one for one in loops if not one.at_rest}
    told = [busy[row.state_dir] for row in ranked(one.row for one in busy.values())]
    lines = [_line(one) for one in told[:MOST_LOOPS]]
    left, rest = len(told) - len(lines), len(loops) - len(told)
    lines += [f"{left} more: codex-self-iter digest"] if left else []
    lines += [f"{counted(rest, 'loop')}: nothing happened"] if rest else []
    return [f"Digest: {headline(loops)}", *lines]


def _line(one: LoopDigest) -> str:
    need = one.trouble is not None and one.row.urgency is Urgency.NEEDS_YOU
    head = f"{one.row.name} needs you" if need else f"{one.row.name}: {one.row.state}"
    parts = [f"{head}: {shorten(one.trouble.words, 160)}" if need and one.trouble else head]
    count = sum(one.iterations.values())
    parts += [counted(count, "iteration")] if count else ["nothing done"]
    parts += [counted(one.ticked, "item") + " ticked"] if one.ticked else []
    parts += [money(one.cost_usd)] if one.cost_usd is not None else []
    return clean(", ".join(parts), 300)


def to_json(loops: Sequence[LoopDigest], since: str, until: str) -> dict[str, Any]:
    """For programs; `since` and `until` as they stand in the contract's files."""
    return {
        "since": since,
        "until": until,
        "headline": headline(loops),
        "needs_you": needy(loops),
        "loops": [_plain(one) for one in loops],
    }


def _plain(one: LoopDigest) -> dict[str, Any]:
    row, trouble = one.row, one.trouble
    return {
        "name": row.name,
        "workspace": row.workspace,
        "state": row.state,
        "needs_you": row.urgency is Urgency.NEEDS_YOU,
        "trouble": {"words": trouble.words, "mend": trouble.mend} if trouble else None,
        "plan": {"done": row.done, "total": row.total} if row.total else None,
        "iterations": one.iterations,
        "ticked": one.ticked,
        "commits": one.commits,
        "files": one.files,
        "tokens": one.tokens,
        "cost_usd": one.cost_usd,
        "worked_sec": round(one.worked_sec, 1),
        "lanes": one.lanes,
        "said": one.said,
    }
