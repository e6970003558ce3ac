"""What an agent may do when it asks. Pure: where a path leads is looked up by the caller.

The answer is by the kind of the tool and the places that it names, and for once only: what "always"
would mean is the agent's to say, and some write it into their settings for good."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from codex_self_iter.core.foreign import as_dict, as_list, as_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_READS = ("read", "search", "think")
_EDITS = ("edit", "delete", "move")
_WHOLE = ("delete", "move")
"""Their input is names only, whatever its keys are called: where a file goes to is one."""
_NAMES_A_PATH = re.compile(r"(?:path|file|file_?name|dir|directory|folder|uri)s?$", re.IGNORECASE)
_FOR_GIT = ".git"


class Rules:
    """The rules of one run.

    Attributes:
        bypass: whatever it asks for is allowed, but for what `read_only` forbids.
        read_only: nothing may be changed.
        places: real paths in which files may be changed.
        real: gives the real path that a path leads to."""

    def __init__(
        self, *, bypass: bool, read_only: bool, places: tuple[str, ...], real: Callable[[str], str]
    ) -> None:
        self.bypass, self.read_only = bypass, read_only
        self.places, self.real = places, real

    def refusal(self, call: Mapping[str, Any]) -> str:
        """Why this tool call is not allowed; "" when it is."""
        kind = as_text(call.get("kind")) or "other"
        if self.read_only and kind in _EDITS:
            return "this role changes nothing"
        if self.bypass:
            return ""
        if kind not in (*_READS, *_EDITS):
            return f"safe mode allows no {_WORDS.get(kind, 'tool that does more than edit files')}"
        paths = list(dict.fromkeys(_paths(call)))
        if kind in _EDITS and not paths:
            return "it does not say which file it changes"
        for path in paths:
            real = self.real(path)
            within = (one for one in self.places if real == one or real.startswith(f"{one}/"))
            place = next(within, None)
            if place is None:
                return f"{path} is outside the workspace"
            if kind in _WHOLE and real == place:
                return f"{path} is the workspace, or the plan"
            if kind in _EDITS and _FOR_GIT in real[len(place) :].lower().split("/"):
                return f"{path} belongs to git"
        return ""


_WORDS = {"execute": "commands", "fetch": "network", "switch_mode": "change of mode"}


def _paths(call: Mapping[str, Any]) -> Iterator[str]:
    """Every path that a tool call names."""
    for place in (*as_list(call.get("locations")), *as_list(call.get("content"))):
        if path := as_text(as_dict(place).get("path")):
            yield path
    yield from _within(call.get("rawInput"), every=call.get("kind") in _WHOLE)


def _within(given: object, *, every: bool) -> Iterator[str]:
    """The texts in a tool's input that are paths by their keys, or all of them."""
    for key, value in as_dict(given).items():
        taken = every or _NAMES_A_PATH.search(key) is not None
        for one in value if isinstance(value, list) else [value]:
            if taken and (path := as_text(one)):
                yield path
            yield from _within(one, every=every)


def choose(options: object, *, allow: bool) -> str:
    """The option to choose: of this once; "" when there is none."""
    wanted = "allow_once" if allow else "reject_once"
    found = map(as_dict, as_list(options))
    return next((as_text(one.get("optionId")) for one in found if one.get("kind") == wanted), "")


def outcome(options: object, *, allow: bool) -> dict[str, Any]:
    """The answer to a request for permission. Without an option to say no, the call is cancelled;
    without one to say yes once, it is refused."""
    chosen = choose(options, allow=allow) or choose(options, allow=False)
    if chosen:
        return {"outcome": {"outcome": "selected", "optionId": chosen}}
    return {"outcome": {"outcome": "cancelled"}}
