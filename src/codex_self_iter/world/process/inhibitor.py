"""Keeping the machine awake: a small child that holds off idle sleep and suspend.

It is held by a program of the system, around a `cat` that reads a pipe of ours. The pipe's other
end is in this process alone, so the hold ends with it, also at a kill -9."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping

from codex_self_iter.world.process.fed import Fed

END_SEC = 1.0
"""So long it may take to end by itself."""
LINGER_SEC = 10.0
"""A hold outlives what it was for by so long: the next comes most often at once."""
AGAIN_SEC = 60.0
"""What was refused is asked for again after so long."""
SURE_SEC = 2.0
"""A hold that has lasted so long was not refused."""


def command(environ: Mapping[str, str]) -> tuple[list[str], str]:
    """(the program that keeps this machine awake while another one runs, its name); the first is
    empty where it is not there."""
    if sys.platform == "darwin":
        name, options = "caffeinate", ["-i", "-s"]
    else:
        who = ("--who=codex-self-iter", "--why=a run is on")
        name, options = "systemd-inhibit", ["--what=idle:sleep", "--mode=block", *who]
    path = shutil.which(name, path=environ.get("PATH") or os.defpath)
    return ([path, *options] if path else []), name


class Hold:
    """A hold that was asked for. Methods block for a moment."""

    def __init__(self, argv: list[str], environ: Mapping[str, str]) -> None:
        """Ask for it. Raises OSError when the program cannot be started."""
        self.name = os.path.basename(argv[0])
        self._fed = Fed([*argv, "cat"], environ)

    def ended(self) -> bool:
        """True when it was refused, or somebody has ended it."""
        return self._fed.ended

    def end(self) -> str:
        """Let the machine sleep again; the last line that the program has said."""
        _, word, code = self._fed.close(END_SEC)
        return word or f"exit code {code}"


class Inhibitor:
    """The one hold of this process, for whoever is at work.

    Attributes:
        flaw: why the machine may sleep all the same, or ""."""

    def __init__(self) -> None:
        self.flaw = ""
        self._at_work: set[str] = set()
        self._hold: Hold | None = None
        self._since = self._wanted_at = self._failed_at = float("-inf")
        self._busy = False

    def due(
        self, who: str, environ: Callable[[], Mapping[str, str]], now: float, *, at_work: bool
    ) -> Callable[[], bool] | None:
        """Note whether somebody is at work; what is to be done about it, to be called in a thread,
        or None: true when it has been done, else `flaw` says why not. `now` is monotonic."""
        self._at_work.discard(who)
        if at_work:
            self._at_work.add(who)
            self._wanted_at = now
        if self._busy:
            return None
        if self._hold is None:
            if not self._at_work or now - self._failed_at < AGAIN_SEC:
                return None
            self._since = self._failed_at = now
            self._busy = True
            return lambda: self._begin(environ())
        if self._hold.ended() or now - self._wanted_at >= LINGER_SEC:
            self._busy = True
            return self._end
        if now - self._since >= SURE_SEC:
            self.flaw = ""
        return None

    def leave(self, who: str) -> bool:
        """Somebody is gone; True when nobody is left for whom the hold is."""
        self._at_work.discard(who)
        return self._hold is not None and not self._at_work and not self._busy

    @property
    def held(self) -> bool:
        """Whether there is a hold, as far as is known."""
        return self._hold is not None

    def let_go(self) -> bool:
        """End the hold; false when it had been refused."""
        self._busy = True
        return self._end()

    def _begin(self, environ: Mapping[str, str]) -> bool:
        argv, name = command(environ)
        try:
            if argv:
                self._hold = Hold(argv, environ)
                return True
            self.flaw = f"{name} is not there"
        except OSError as error:
            self.flaw = f"{name} cannot be started ({error.strerror})"
        finally:
            self._busy = False
        return False

    def _end(self) -> bool:
        hold, self._hold = self._hold, None
        assert hold is not None
        try:
            refused, said = hold.ended(), hold.end()
            if refused:
                self.flaw = f"{hold.name} has ended: {said}"
            else:
                self._failed_at = float("-inf")
            return not refused
        finally:
            self._busy = False
