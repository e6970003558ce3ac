"""Optional parts of the installation: imported when asked for, and missed in words."""

from __future__ import annotations

from codex_self_iter.errors import UsageError


def need(extra: str, what: str, *modules: str) -> None:
    """Raises UsageError, with the command that installs them, unless the modules of an extra are
    there. `what`: who needs them, such as "the page"."""
    from codex_self_iter.world.installed import lack

    if flaw := lack(extra, *modules):
        raise UsageError(f"{what} {flaw}")
