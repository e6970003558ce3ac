"""Where the program was started, and whose home it has: both may be missing, or go away."""

from __future__ import annotations

import functools
import os


@functools.cache
def start_directory() -> str:
    """The working directory as it was at the first call, absolute: relative paths of the person's
    count from it, also after it has been deleted."""
    try:
        return os.getcwd()
    except OSError:  # it was gone already: what the shell last said, so that messages name it
        said = os.environ.get("PWD", "")
        return said if os.path.isabs(said) else "/"


def home_directory() -> str:
    """The home directory; "" where there is neither HOME nor an entry in passwd."""
    home = os.path.expanduser("~")
    return home if os.path.isabs(home) else ""
