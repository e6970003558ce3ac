"""A terminal as people have it: a tmux server of the test's own, with one window."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

import pytest

from tests.support.harness import wait_until


def need_tmux() -> None:
    """Skip loudly where there is none; where CI requires the real parts, fail."""
    if shutil.which("tmux") is None:
        if os.environ.get("CODEX_SELF_ITER_REQUIRE_REAL_AGENTS") == "1":
            pytest.fail("tmux is required here: apt-get install tmux")
        pytest.skip("NOT TESTED HERE: there is no tmux")


class Terminal:
    """One program in a terminal of a size; `close` ends what is left of it."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], size: tuple[int, int] = (120, 30)
    ) -> None:
        self._directory = tempfile.mkdtemp(prefix="csi-tmux-")
        self._socket = f"{self._directory}/s"
        self._environment = dict(environment)
        command = f"{shlex.join(argv)}; echo ended with $?; exec sleep 600"
        columns, lines = map(str, size)
        self.tmux("new-session", "-d", "-x", columns, "-y", lines, command)

    def tmux(self, *words: str) -> str:
        """What tmux answers."""
        argv = ["tmux", "-f", "/dev/null", "-S", self._socket, *words]
        done = subprocess.run(
            argv, env=self._environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def screen(self, *, colours: bool = False) -> str:
        """What is to be seen."""
        return self.tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def keys(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self.tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type a text as it is."""
        self.tmux("send-keys", "-l", text)

    def until(self, words: str) -> str:
        """Wait until that is to be seen, perhaps in two lines; the screen then."""
        wait_until(
            lambda: words in " ".join(self.screen().split()),
            lambda: f"{words!r} on:\n{self.screen()}",
        )
        return self.screen()

    def gone(self, words: str) -> None:
        """Wait until that is not to be seen any more."""
        wait_until(lambda: words not in self.screen(), lambda: f"{words!r} on:\n{self.screen()}")

    def close(self) -> None:
        """End the server of this terminal."""
        subprocess.run(
            ["tmux", "-S", self._socket, "kill-server"],
            capture_output=True,
            check=False,
            timeout=60,
        )
        shutil.rmtree(self._directory, ignore_errors=True)
