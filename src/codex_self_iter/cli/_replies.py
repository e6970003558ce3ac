"""What is wrong with a place that a person answers from, before anybody listens there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from codex_self_iter.settings.schema import NotifyReplies


class Judged(NamedTuple):
    """`flaw`: why nobody is heard there, "" for nothing; `shown`: what logs call it;
    `unset`: the flaw is a variable that is not set here."""

    flaw: str
    shown: str = ""
    unset: bool = False


def judged(one: NotifyReplies, environ: Mapping[str, str]) -> Judged:
    """Of one entry of `[[notify.replies]]`. Needs the extra [notify]."""
    from codex_self_iter.replies.channels import channel
    from codex_self_iter.supervisor.recipients import expanded

    try:
        url, _ = expanded(one.url, environ)
        allowed = [expanded(text, environ)[0] for text in one.allow]
    except ValueError as error:
        return Judged(str(error), unset=True)
    try:
        there = channel(url)
        for text in allowed:
            there.proof(text)
    except ValueError as error:
        return Judged(str(error))
    return Judged("", there.shown)
