"""Replies of a person from a phone: who may say what to which loop, and what is to be done about it.

A reply is taken at most once, never when it is old, never from somebody who is not allowed. What ends
or holds up a loop is done only after a code has come back."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import re
from collections.abc import Collection, Sequence

from codex_self_iter.core.text import clean, counted

OLD_SEC = 600.0
"""A reply that is so old when it is heard was meant for another moment."""
CODE_SEC = 300.0
"""So long a code can be sent back."""
TRIES = 3
"""Wrong codes, after which it is void."""
KNOWN = 500
"""Replies that are remembered; what is older than the oldest that was forgotten is refused."""
MOST_A_MINUTE = 20
"""Replies of one sender that are taken."""
HELP = (
    "/status, /pause, /resume, /stop: of the loop that is named after it. "
    "/steer TEXT, or any other text: for the next prompt. "
    "Which loop: its name before the text (shop: use redis), or answer a message of it."
)
_ASKS = ("pause", "stop")
"""What is done only after a code has come back."""
_KINDS = ("status", "pause", "resume", "stop", "steer", "help", "start")
_ALONE = ("status", "pause", "resume", "stop", "help")
"""These alone are commands also without the slash: nobody has an agent told "stop"."""
_GENERAL = ("Digest:", "Loops:", "Which loop?", "/status", "There is ")
"""What messages begin with that are of no loop of their own; the first is of views/notice.py."""
_COMMAND = re.compile(r"/(\w+)(?:@\w+)?(?:\s+|$)")
_CODE = re.compile(r"[0-9]{6}")


@dataclasses.dataclass(frozen=True, slots=True)
class Loop:
    """One that listens here. `name` is unique, `title` is what its messages begin with; `allowed`:
    digests of those who may speak to it (`digest`)."""

    name: str
    state_dir: str
    allowed: tuple[str, ...]
    title: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Heard:
    """One reply.

    Attributes:
        key: tells it from every other of its channel.
        sender: what the log calls who sent it; proof: the digest that `allowed` may have.
        at: Unix seconds; about: the text of the message that it answers, "" for none."""

    key: str
    sender: str
    proof: str
    text: str
    at: float
    about: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A code that was asked for, and what is done when it comes back."""

    code: str
    kind: str
    loop: Loop
    until: float
    tries: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """What is known of earlier replies of a channel.

    Attributes:
        seen: key and time of those that were heard, the newest last.
        floor: the latest time of one that was forgotten; nothing older is taken.
        asked: by sender's digest, the codes that are out.
        taken: sender's digest and time of those of the last minute."""

    seen: tuple[tuple[str, float], ...] = ()
    floor: float = 0.0
    asked: tuple[tuple[str, Asked], ...] = ()
    taken: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is done, and the sender is told nothing."""

    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class Answered:
    """Nothing is done but to say this."""

    kind: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Do:
    """`kind` of _KINDS for these loops; `text` for steer."""

    kind: str
    loops: tuple[Loop, ...]
    text: str = ""


Decision = Refused | Answered | Do


def digest(secret: str) -> str:
    """What is kept of somebody who is allowed: nobody can be found out from a file."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def decide(
    memory: Memory,
    heard: Heard,
    loops: Sequence[Loop],
    now: float,
    code: str,
    others: Collection[str] = (),
) -> tuple[Memory, Decision]:
    """What to do about a reply, and what to remember of it. `code`: six digits that nobody knows;
    `others`: names of loops that do not listen here."""
    if any(key == heard.key for key, _ in memory.seen) or heard.at <= memory.floor:
        return memory, Refused("it was heard before")
    if abs(now - heard.at) > OLD_SEC:
        when = "old" if heard.at < now else "from the future: the clocks differ"
        return memory, Refused(f"it is {when}, by {abs(now - heard.at):.0f} s")
    his = [
        loop for loop in loops if any(hmac.compare_digest(heard.proof, one) for one in loop.allowed)
    ]
    if not his:
        return memory, Refused("the sender is not allowed")
    lately = tuple((who, at) for who, at in memory.taken if abs(now - at) < 60)
    if sum(who == heard.proof for who, _ in lately) >= MOST_A_MINUTE:
        return memory, Refused(f"more than {MOST_A_MINUTE} came within a minute")
    memory = dataclasses.replace(memory, taken=(*lately, (heard.proof, now)))
    memory = _remembered(memory, heard)
    text = heard.text.strip()
    if _CODE.fullmatch(text):
        return _confirmed(memory, heard.proof, text, now, his)
    kind, rest = _parsed(text)
    if kind in ("help", "start"):
        return memory, Answered("help", f"{HELP} Loops: {_names(his)}.")
    if kind not in _KINDS:
        return memory, Answered("unknown", f"There is no /{kind}. {HELP}")
    meant, rest, which = _meant(kind, rest, heard.about, his, set(others))
    if not meant:
        return memory, Answered(kind, which)
    if kind == "steer" and not rest:
        return memory, Answered(kind, "The message is empty: /steer TEXT")
    if kind not in _ASKS:
        return memory, Do(kind, meant, rest)
    asked = dict(memory.asked) | {heard.proof: Asked(code, kind, meant[0], now + CODE_SEC)}
    what = f"To {kind} {clean(meant[0].name)}, send {code} within {CODE_SEC / 60:.0f} minutes."
    return dataclasses.replace(memory, asked=tuple(asked.items())), Answered(kind, what)


def _remembered(memory: Memory, heard: Heard) -> Memory:
    seen = (*memory.seen, (heard.key, heard.at))
    gone, seen = seen[:-KNOWN], seen[-KNOWN:]
    floor = max([memory.floor, *(at for _, at in gone)])
    return dataclasses.replace(memory, seen=seen, floor=floor)


def _confirmed(
    memory: Memory, who: str, text: str, now: float, loops: Sequence[Loop]
) -> tuple[Memory, Decision]:
    """A code has come: what it was asked for, once."""
    asked = dict(memory.asked)
    one = asked.pop(who, None)
    right = one is not None and hmac.compare_digest(one.code, text)
    if one is not None and now <= one.until and not right and one.tries + 1 < TRIES:
        asked[who] = dataclasses.replace(one, tries=one.tries + 1)
    memory = dataclasses.replace(memory, asked=tuple(asked.items()))
    if one is None or now > one.until:
        return memory, Answered("code", "There is nothing to confirm, or it took too long.")
    if not right:
        again = "" if who in asked else f" Nothing is done; send /{one.kind} again."
        return memory, Answered("code", f"That is not the code.{again}")
    if all(loop.state_dir != one.loop.state_dir for loop in loops):
        gone = f"{clean(one.loop.name, 60)} does not listen to you any more. Nothing is done."
        return memory, Answered("code", gone)
    return memory, Do(one.kind, (one.loop,))


def _parsed(text: str) -> tuple[str, str]:
    """Kind and the rest; what begins with no command is for the next prompt."""
    found = _COMMAND.match(text)
    alone = text.lower().removeprefix("/").rstrip(".! ")
    if alone in _ALONE:
        return alone, ""
    return (found[1].lower(), text[found.end() :].strip()) if found else ("steer", text)


def _meant(
    kind: str, rest: str, about: str, loops: Sequence[Loop], others: set[str]
) -> tuple[tuple[Loop, ...], str, str]:
    """(the loops that are meant, what is left of the text, else why none is)."""
    silent = others - {name for loop in loops for name in (loop.name, loop.title)}
    if kind == "steer":
        named, left, deaf = _before_colon(rest, loops, silent)
    else:
        named, left = [loop for loop in loops if loop.name.casefold() == rest.casefold()], ""
        deaf = [name for name in silent if name.casefold() == rest.casefold()]
        if rest and not (named or deaf):
            return (), "", f"No loop is called {clean(rest, 60)!r}. Loops: {_names(loops)}."
    if not (named or deaf):
        (named, _, deaf), left = _before_colon(about, loops, silent), rest
        if any(loop.title in others for loop in named):
            which = f"{_names(named)}: …"
            return (), "", f"Another loop of this name does not listen here. Name it: {which}"
        if about and not (named or deaf or about.startswith(_GENERAL)):
            return (), "", f"That message is of no loop that listens here. Loops: {_names(loops)}."
        named = named or list(loops)
    if deaf:
        return (), "", (
            f"{clean(deaf[0], 60)} does not listen here: it has ended, or is not to be steered from here. "
            f"Nothing is done. Once it is started again (codex-self-iter run) it hears you. "
            f"Loops: {_names(loops)}."
        )  # fmt: skip
    if len(named) == 1 or kind == "status":
        return tuple(named), left, ""
    example = f"/{kind} {named[0].name}" + (": …" if kind == "steer" else "")
    return (), "", f"Which loop? {_names(named)}. For example: {example}"


def _before_colon(
    text: str, loops: Sequence[Loop], silent: set[str]
) -> tuple[list[Loop], str, list[str]]:
    """(the loops whose name stands before the text, as a message's title and a reply have it; what is
    left of the text; of `silent` the name that stands there). The longest name counts."""
    names = {name for loop in loops for name in (loop.name, loop.title) if name}
    found = _named_before(text, names | silent)
    if not found:
        return [], text, []
    longest = found[0]
    named = [loop for loop in loops if longest in (loop.name, loop.title)]
    return named, text[len(longest) + 1 :].strip(), [] if named else [longest]


def _named_before(text: str, names: set[str]) -> list[str]:
    """Of these names those that stand before the text's first colons, the longest first."""
    told = text.casefold()
    found = [name for name in names if told.startswith(f"{name.casefold()}:")]
    return sorted(found, key=lambda name: (-len(name), not text.startswith(name)))


def _names(loops: Sequence[Loop]) -> str:
    shown = [clean(loop.name, 60) for loop in loops[:20]]
    left = len(loops) - len(shown)
    return ", ".join(shown) + (f" and {counted(left, 'other')}" if left else "")
