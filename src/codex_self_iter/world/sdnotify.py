"""sd_notify: tell the service manager how we are; without NOTIFY_SOCKET calls do nothing.

The protocol is a datagram of `KEY=VALUE` lines to a UNIX socket (man sd_notify). No call raises and
none waits: a service manager that does not listen must not stop a loop."""

from __future__ import annotations

import contextlib
import os
import socket
import time

MAX_STATUS = 500
_SYSTEMD = """NOTIFY_SOCKET WATCHDOG_ LISTEN_ INVOCATION_ID JOURNAL_STREAM MAINPID MANAGERPID
    SYSTEMD_EXEC_PID CREDENTIALS_DIRECTORY FDSTORE MEMORY_PRESSURE_"""
SERVICE_PREFIXES = tuple(_SYSTEMD.split())
"""How the names of variables begin that a service manager means for us alone: what we start would
answer in our name, take itself for a service, or read our credentials."""


class Notifier:
    """Speaks to the socket that NOTIFY_SOCKET names at the time of construction."""

    def __init__(self, address: str | None = None) -> None:
        """`address` replaces the variable; "@name" is an abstract socket, "" is nobody."""
        self._address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address

    @property
    def active(self) -> bool:
        """Whether somebody listens."""
        return bool(self._address)

    def ready(self, status: str = "") -> bool:
        """The start is complete: lock held, recovery done."""
        return self.send(["READY=1", *_status(status)])

    def status(self, text: str) -> bool:
        """The line that `systemctl status` shows."""
        return self.send(_status(text))

    def reloading(self) -> bool:
        """The configuration is being read again; `ready` ends that."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self.send(["RELOADING=1", f"MONOTONIC_USEC={microseconds}"])

    def stopping(self, status: str = "") -> bool:
        """The end has begun; nothing comes back from here."""
        return self.send(["STOPPING=1", *_status(status)])

    def watchdog(self) -> bool:
        """A sign of life. Only to be given by a tick that has just finished its work."""
        return self.send(["WATCHDOG=1"])

    def send(self, lines: list[str]) -> bool:
        """Send lines; False when nobody listens or it could not be sent."""
        if not self._address or not lines:
            return False
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out,
        ):
            out.setblocking(False)
            out.connect(address)
            out.send("\n".join(lines).encode("utf-8", "replace"))
            return True
        return False


def _status(text: str) -> list[str]:
    return ["STATUS=" + " ".join(text.split())[:MAX_STATUS]] if text else []
