"""Configuration: the border at which flags, environment and files become frozen values.

types      the kinds of value, each with the words that say what is allowed
schema     every key: kind, default, meaning
model      Settings: all keys, and where each value came from
keys       walking the schema by key
env_source variables and flags as sources
tomlfile   the file as a source, with the line of each key
rules      what keys mean for each other
problems   errors in words
load       sources -> Settings
paths      Settings -> the files and directories of a loop
example    config.example.toml and the JSON schema"""

from codex_self_iter.settings.load import CONFIG_NAME, load, load_directory
from codex_self_iter.settings.model import Settings
from codex_self_iter.settings.paths import ResolvedPaths, resolve_paths, validate_workspace
from codex_self_iter.settings.problems import ConfigError
from codex_self_iter.settings.types import AGENT_NAMES

__all__ = [
    "AGENT_NAMES", "CONFIG_NAME", "ConfigError", "ResolvedPaths", "Settings", "load",
    "load_directory", "resolve_paths", "validate_workspace",
]  # fmt: skip
