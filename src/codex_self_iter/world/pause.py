"""A blocking pause for worker threads. Only light imports."""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess


def pause(seconds: float) -> None:
    """Do nothing for so long.

    Not `time.sleep`: that waits for a point of the monotonic clock, and fails (EINVAL) or returns
    at once where a preloaded library shifts the clocks of this process. A relative wait of the
    kernel depends on no clock we read."""
    select.select((), (), (), max(0.0, seconds))


def ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait at most so long for a child of ours; False when it still lives."""
    give_up = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > give_up:
            return False
        pause(0.002)
    return True
