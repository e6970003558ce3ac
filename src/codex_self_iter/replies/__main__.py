"""Listen for a supervisor: lines of JSON on standard input say for which loops and where, lines on
standard output what was heard. The end of the input is the end of the program.

A program of its own, so that what a server sends happens to nobody else, and a supervisor holds none
of the libraries. Of all programs of a user one asks a channel, for the loops of all."""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
from typing import Any

from codex_self_iter.core.backoff import exponential
from codex_self_iter.core.reply import Answered, Loop, Memory, Refused, decide
from codex_self_iter.core.text import clean
from codex_self_iter.replies.acts import act
from codex_self_iter.replies.channels import Channel, ChannelError, Told, channel
from codex_self_iter.replies.desk import Desk, Doing
from codex_self_iter.screens.loops import Target
from codex_self_iter.world import registry

FIRST_SEC, LONGEST_SEC = 2.0, 300.0
"""The wait after a failure; it doubles up to the longest."""
ALIVE_SEC = 20.0
OTHERS_SEC = 2.0
"""So often it is looked whether the program that asks for all is gone."""
ANSWERS, ANSWER_SEC = 3, 30.0
"""So often an answer is tried while a channel asks for a moment, and the longest such moment."""
MOST_REFUSED = 20
"""Refusals a minute that are told one by one; the next after it says how many were not."""


def tell(event: str, **fields: Any) -> None:
    """A line for the supervisor. One write: threads do not mix."""
    try:
        os.write(1, json.dumps({"event": event, **fields}).encode() + b"\n")
    except OSError:  # the supervisor is gone
        os._exit(0)


class Ear(threading.Thread):
    """Asks one channel, while this program is the one to do so."""

    def __init__(self, where: Channel) -> None:
        super().__init__(daemon=True)
        self.channel, self.desk = where, Desk(where.key)
        self.mine: dict[str, tuple[Loop, str]] = {}
        """The supervisor's loops by state directory, with their workspaces."""
        self.over = threading.Event()
        self._memory, self._mark = Memory(), ""
        self._refused: list[float] = []
        self._untold = 0

    def have(self, loops: dict[str, tuple[Loop, str]]) -> None:
        """These loops of the supervisor listen here. Raises OSError."""
        for state_dir in self.mine.keys() - loops.keys():
            self.desk.leave(state_dir)
        for loop, workspace in loops.values():
            self.desk.join(loop, workspace)
        self.mine = dict(loops)

    def run(self) -> None:
        """For ever. A defect ends the program: its supervisor says so, and starts it again."""
        try:
            self._run()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    def _run(self) -> None:
        waits = False
        while not self.desk.mine():
            if not waits:
                waits = True
                tell("waiting", channel=self.channel.shown)
            if self.over.wait(OTHERS_SEC):
                return self.desk.close()
        self._memory, self._mark, doing = self.desk.recall()
        if not self._mark:
            self._remember(self.channel.first())  # what is said until a restart is heard then
        self._say_interrupted(doing)
        tries, listens = 0, False
        while not self.over.is_set():
            try:
                if not listens:
                    self.channel.begin(self._mark)
                    listens = True
                    tell("listening", channel=self.channel.shown)
                    if tries:
                        tries = 0
                        tell("well", channel=self.channel.shown)
                found, mark = self.channel.wait(self._mark)
            except Exception as error:
                why, after = f"{self.channel.shown} sends what is not understood", 0.0
                if isinstance(error, ChannelError):
                    why, after = str(error), error.after_sec
                tell("failing", channel=self.channel.shown, why=why)
                self.channel.close()
                tries += 1
                self.over.wait(max(exponential(tries, FIRST_SEC, LONGEST_SEC, 0.0), after))
                continue
            if tries:
                tries = 0
                tell("well", channel=self.channel.shown)
            loops = self.desk.loops() if found else []
            others = _others(loops) if found else set()
            for one in found:
                if self.over.is_set():
                    break
                self._hear(one, loops, others)
            if mark != self._mark:
                self._remember(mark)
        self.channel.close()
        return self.desk.close()

    def _remember(self, mark: str, doing: Doing | None = None) -> None:
        self._mark = mark
        self.desk.remember(self._memory, mark, doing)

    def _say_interrupted(self, doing: Doing | None) -> None:
        """Somebody was killed while a reply was acted upon: nobody does it a second time unasked."""
        if doing is None:
            return
        about = {"channel": self.channel.shown, "sender": doing.sender, "command": doing.command}
        tell("interrupted", **about)
        what = f"/{doing.command}" if doing.command != "steer" else "your message"
        self._answer(
            f"The supervisor was killed while it did this: {what}. See /status, and send it again if it "
            "was not done.",
            doing.to,
            about,
        )
        self._remember(self._mark)

    def _hear(self, told: Told, loops: list[tuple[Loop, Target]], others: set[str]) -> None:
        code = f"{secrets.randbelow(1_000_000):06d}"
        every = [loop for loop, _ in loops]
        self._memory, decision = decide(self._memory, told.heard, every, time.time(), code, others)
        about = {"channel": self.channel.shown, "sender": told.heard.sender}
        if isinstance(decision, Refused):
            self._tell_refused(about, decision.why)
            return
        if isinstance(decision, Answered):
            self._remember(told.mark)
            said = decision.text
            tell("answered", **about, command=decision.kind)
        else:
            self._remember(told.mark, Doing(told.heard.sender, decision.kind, told.to))
            said = act(decision, {target.state_dir: target for _, target in loops})
            self._remember(told.mark)
            names = [loop.state_dir for loop in decision.loops]
            tell("accepted", **about, command=decision.kind, loops=names, answer=clean(said, 200))
        self._answer(said, told.to, about)

    def _answer(self, text: str, to: tuple[Any, ...], about: dict[str, str]) -> None:
        """Say it; once more, and once again, where the channel asks for a moment."""
        for left in reversed(range(ANSWERS)):
            try:
                self.channel.say(text, to)
                break
            except ChannelError as error:
                if not (left and 0 < error.after_sec <= ANSWER_SEC):
                    tell("unanswered", **about, why=str(error))
                    break
                self.over.wait(error.after_sec)

    def _tell_refused(self, about: dict[str, str], why: str) -> None:
        now = time.monotonic()
        self._refused = [at for at in self._refused if now - at < 60]
        if len(self._refused) >= MOST_REFUSED:
            self._untold += 1
            return
        self._refused.append(now)
        tell("refused", **about, why=why, untold=self._untold)
        self._untold = 0


def _others(loops: list[tuple[Loop, Target]]) -> set[str]:
    """Names of this user's loops that do not listen here."""
    here = {loop.state_dir for loop, _ in loops}
    silent = [one for one in registry.entries(clean=False) if one.state_dir not in here]
    shown = registry.display_names(silent)
    return {name for one in silent for name in (one.name, shown[one.state_dir])}


class Ears:
    """Those of all channels."""

    def __init__(self) -> None:
        self._by_key: dict[str, Ear] = {}

    def take(self, loops: list[dict[str, Any]]) -> None:
        """Listen for these loops, each with `channels`: `url` and `allow`."""
        wanted: dict[str, tuple[Channel, dict[str, tuple[Loop, str]]]] = {}
        for loop in loops:
            for one in loop["channels"]:
                try:
                    where = channel(one["url"])
                    allowed = tuple(where.proof(text) for text in one["allow"])
                except ValueError as error:
                    tell("useless", state_dir=loop["state_dir"], why=str(error))
                    continue
                _, those = wanted.setdefault(where.key, (where, {}))
                before = those[loop["state_dir"]][0].allowed if loop["state_dir"] in those else ()
                entry = Loop(loop["name"], loop["state_dir"], before + allowed)
                those[loop["state_dir"]] = entry, loop["workspace"]
        for key in self._by_key.keys() - wanted.keys():
            gone = self._by_key.pop(key)
            gone.have({})
            gone.over.set()
        for key, (where, those) in wanted.items():
            ear = self._by_key.get(key)
            if ear is not None and ear.channel.login != where.login:
                ear.over.set()  # it ends after its next look
                ear = None
            if ear is None:
                ear = self._by_key[key] = Ear(where)
                ear.start()
            ear.have(those)

    def leave(self) -> None:
        """None of the loops listens any more."""
        for one in self._by_key.values():
            one.have({})


def _live() -> None:
    """Say so now and then: whoever hears nothing ends this program."""
    while True:
        time.sleep(ALIVE_SEC)
        tell("alive")


def main() -> int:
    """Listen until the input ends."""
    os.environ["NETRC"] = os.devnull  # it would go before the token of the URL
    ears = Ears()
    threading.Thread(target=_live, daemon=True).start()
    try:
        for line in sys.stdin:
            ears.take(json.loads(line)["loops"])
        ears.leave()
    except OSError as error:
        tell("broken", why=f"{error.filename or 'a file'}: {error.strerror or error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
