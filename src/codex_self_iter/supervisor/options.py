"""How a person started the supervisor, beside the configuration. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class RunOptions(NamedTuple):
    """Options of `run` that are no configuration keys.

    Attributes:
        workspaces: as given with --workspace, in order; empty: the configuration decides.
        config: file given with --config, or "".
        config_dir: directory of configuration files given with --config-dir, or "".
        sentence: the task in words, or "": the only workspace's.
        no_git: a task in words may be for a workspace that is no git repository.
        clear_stop: remove a STOP file before the start.
        flag_names: dotted key -> flag, for messages about values that came from flags.
        debug: show every event, decision and spawn."""

    workspaces: tuple[str, ...] = ()
    config: str = ""
    config_dir: str = ""
    sentence: str = ""
    no_git: bool = False
    clear_stop: bool = False
    debug: bool = False
    flag_names: Mapping[str, str] = {}
