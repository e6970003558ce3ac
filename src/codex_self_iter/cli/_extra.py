"""Optional parts of the installation: imported when asked for, and missed in words."""

from __future__ import annotations

import importlib.util
import shlex
import sys

from codex_self_iter.errors import UsageError


def need(extra: str, what: str, *modules: str) -> None:
    """Raises UsageError, with the command that installs them, unless the modules of an extra are
    there. `what`: who needs them, such as "the page"."""
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        from codex_self_iter.world import installed  # only where something is missing

        asked = installed.requirements().get(extra, ())
        pip = f"{shlex.quote(sys.executable)} -m pip install"
        if importlib.util.find_spec("pip") is None:
            pip = f"uv pip install --python {shlex.quote(sys.executable)}"
        raise UsageError(
            f"{what} needs the extra [{extra}] ({', '.join(missing)} is not installed): "
            f"{pip} {' '.join(asked) or ' '.join(missing)}"
        )
