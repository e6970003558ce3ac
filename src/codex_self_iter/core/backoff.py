"""How long to wait. Pure arithmetic; the numbers come from the configuration."""

from __future__ import annotations

JITTER = 0.1
"""Up to this share is added, so that many loops do not come back in the same second."""
LIMIT_MARGIN_SEC = 5.0
"""A limit's end is trusted to the second at best; starting a little later costs less than one
refused run."""


def exponential(count: int, base: float, ceiling: float, u: float) -> float:
    """Wait after the `count`-th failure in a row (1, 2, …): base · 2^(count-1), at most `ceiling`,
    jitter included. `u` is a random number in [0, 1)."""
    if count < 1 or base <= 0:
        return 0.0
    # 2**64 exceeds every ceiling; a larger power would overflow a float
    doublings = min(count - 1, 64)
    return min(base * 2.0**doublings * (1.0 + JITTER * u), max(ceiling, 0.0))


def limit_wait(reset_at: float, now: float, u: float) -> float:
    """Wait for a limit whose end is known: until then, plus a margin, plus a spread of up to 30
    s."""
    rest = max(0.0, reset_at - now)
    return rest + LIMIT_MARGIN_SEC + min(30.0, JITTER * rest) * u


def remaining(end: float, now: float, length: float) -> float:
    """What is left of a wait: never negative, never longer than its length, whatever the clock
    did."""
    return min(max(0.0, end - now), length)
