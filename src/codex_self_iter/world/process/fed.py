"""A program of ours that is fed lines and says lines, and that nobody ever waits for.

The ends of its pipes that we hold do not block, and are in this process alone: its input ends with
us, also at a kill -9, and it is made to end with its input."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from codex_self_iter.world.process import kill
from codex_self_iter.world.sdnotify import SERVICE_PREFIXES

_PIECE = 65536
_MOST = 1_000_000
"""Bytes of what it says that are kept; of its last words far fewer."""


class Fed:
    """One such program. Only making it and ending it may block for a moment."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start it. Raises OSError."""
        env = {k: text for k, text in environ.items() if not k.startswith(SERVICE_PREFIXES)}
        with kill.children.spawning() as register:
            self._process = subprocess.Popen(
                argv,
                cwd="/",
                env=env,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            register(self._process.pid)
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._in, self._out, self._err = (pipe.fileno() for pipe in pipes if pipe)
        for fd in (self._in, self._out, self._err):
            os.set_blocking(fd, False)
        self._rest = self._said = self._words = b""

    def feed(self, line: bytes = b"") -> bool:
        """Hand it a line, and first what is left of the last one; False when it takes no more now."""
        self._rest = self._written(self._rest)
        if self._rest:
            return False
        self._rest = self._written(line)
        return True

    def said(self) -> list[bytes]:
        """The lines that it has said since it was asked last."""
        self._words = (self._words + _read(self._err))[-4096:]
        *lines, self._said = (self._said + _read(self._out)).split(b"\n")
        return lines

    @property
    def out(self) -> int:
        """The descriptor that can be read when it has said something."""
        return self._out

    @property
    def into(self) -> int:
        """The one that can be written when it takes more."""
        return self._in

    @property
    def ended(self) -> bool:
        """Whether it has ended, or was ended."""
        return self._process.poll() is not None

    def end(self, patience_sec: float) -> tuple[list[bytes], str]:
        """End its input, wait so long for its end, then kill it; the last lines that it has said, and
        how it has ended."""
        said, word, code = self.close(patience_sec)
        if code < 0:
            return said, f"signal {-code}"
        return said, word if word and code else f"exit code {code}"

    def close(self, patience_sec: float) -> tuple[list[bytes], str, int]:
        """The same, with the last line of its complaints, and its exit code."""
        process = self._process
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(patience_sec)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said = self.said()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
        kill.children.forget(process.pid)
        words = self._words.decode("utf-8", "replace").strip().splitlines()
        return said, words[-1] if words else "", process.returncode

    def _written(self, data: bytes) -> bytes:
        """Write what fits; the rest."""
        try:
            while data:
                data = data[os.write(self._in, data) :]
        except BlockingIOError:
            pass
        except OSError:  # it has ended, as is seen elsewhere
            return b""
        return data


def _read(fd: int) -> bytes:
    found = b""
    with contextlib.suppress(BlockingIOError):
        while len(found) < _MOST and (piece := os.read(fd, _PIECE)):
            found += piece
    return found
