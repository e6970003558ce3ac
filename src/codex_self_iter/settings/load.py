"""From the surroundings to `Settings`: flag > environment > file > default, all errors at once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from codex_self_iter.errors import UsageError
from codex_self_iter.settings.env_source import PREFIX, FlagSource, VariableSource
from codex_self_iter.settings.model import KeyPath, Origin, Settings, merge
from codex_self_iter.settings.paths import resolve_paths
from codex_self_iter.settings.problems import ConfigError, Problem, from_validation
from codex_self_iter.settings.rules import breaches
from codex_self_iter.settings.schema import LoopFields
from codex_self_iter.settings.tomlfile import FileSource, has

CONFIG_NAME = "codex-self-iter.toml"
"""The configuration file that is looked for in the workspace."""

_SUPERVISORS = "it belongs to the supervisor, not to one workspace"
_NOT_A_LOOPS = {
    "workspace": "use path",
    "workspaces": "entries do not nest",
    "pool": _SUPERVISORS,
    "service": _SUPERVISORS,
    "log": _SUPERVISORS,
}
"""Keys that a [[workspaces]] entry cannot have, and why."""

_Model = TypeVar("_Model", bound=BaseModel)
Wrong = tuple[KeyPath, str]
"""A key and what is wrong with it."""


class Sources(Origin):
    """The sources in order of precedence; `values` are those of all, merged."""

    def __init__(self, flags: FlagSource, variables: VariableSource, file: FileSource) -> None:
        self.inputs = flags, variables, file
        self.pinned = merge(variables.values, flags.values)
        self.values = merge(file.values, self.pinned)
        self.path = file.file.path if file.file is not None else None
        self.problems = [*flags.problems, *variables.problems, *file.problems]

    def of(self, path: KeyPath) -> str:
        return self.find(path) or "default"

    def find(self, path: KeyPath) -> str | None:
        """The highest source that has this key, or None."""
        names = (source.find(path) for source in self.inputs)
        return next((name for name in names if name is not None), None)

    def place(self, path: KeyPath) -> str:
        """Where an error about a key is to be mended: the source of it, or of a key above it."""
        for end in range(len(path), 0, -1):
            found = self.find(path[:end])
            if found is not None:
                return found.removeprefix("file ")
        return str(self.path or "default")


def load(
    flags: Mapping[str, Any],
    *,
    config_file: str | None,
    environ: Mapping[str, str],
    cwd: str,
    options: Mapping[str, str] | None = None,
) -> Settings:
    """Read every source and check it.

    Args:
        flags: nested as in a file; None for a flag that was not given. Texts are read like
            variables.
        config_file: the value of `--config`, or None.
        environ: the environment.
        cwd: directory that relative paths of flags and of `workspace` count from.
        options: dotted key -> the flag that gave it; another key came by `--set`. For messages
            only; without it each flag is taken to be named like its key.

    Raises:
        UsageError: its message lists every error with file and line, variable or flag."""
    given, variables = FlagSource(flags, options or {}), VariableSource(environ)
    workspace = merge(variables.values, given.values).get("workspace")
    path = find_config(workspace, config_file=config_file, environ=environ, cwd=cwd)
    return _checked(Sources(given, variables, FileSource(path)), cwd)


def find_config(
    workspace: Any, *, config_file: str | None, environ: Mapping[str, str], cwd: str
) -> Path | None:
    """The configuration file: `--config`, its variable, the workspace's own, the user's, or None.

    The first two are returned whether they exist or not."""
    asked = config_file if config_file is not None else environ.get(PREFIX + "CONFIG") or None
    if asked is not None:
        return Path(os.path.abspath(os.path.join(cwd, os.path.expanduser(asked))))
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "~", ".config")
    home = os.path.expanduser(home)  # without any home it stays relative: nobody's configuration
    start = workspace if isinstance(workspace, str) and workspace and "\0" not in workspace else "."
    place = os.path.join(cwd, os.path.expanduser(start))
    # the second is the same, but for a `..` that leads out of a deleted working directory
    places = [os.path.join(place, CONFIG_NAME), os.path.join(os.path.realpath(place), CONFIG_NAME)]
    if os.path.isabs(home):
        places.append(os.path.join(home, "codex-self-iter", "config.toml"))
    return next((Path(os.path.abspath(place)) for place in places if os.path.lexists(place)), None)


def load_directory(
    path: str | os.PathLike[str],
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> tuple[list[Settings], list[UsageError]]:
    """Load every `*.toml` of a directory, in order of name: the good, and an error for each bad.

    A file stands for itself: relative paths in it count from the directory. Two files that name the
    same workspace are an error of the second. Raises UsageError when the directory itself cannot be
    listed."""
    directory = os.path.abspath(path)
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        what = f"the directory of configurations cannot be read ({error.strerror})"
        raise UsageError(f"{directory}: {what}") from None
    loaded: list[Settings] = []
    errors: list[UsageError] = []
    given, variables = flags or {}, environ or {}
    taken: dict[Path, str] = {}
    for name in names:
        if not name.endswith(".toml") or name[0] == ".":
            continue
        file = os.path.join(directory, name)
        try:
            settings = load(
                given, config_file=file, environ=variables, cwd=directory, options=options
            )
            _claim(settings, file, taken)
        except UsageError as error:
            errors.append(error)
            continue
        own = {} if settings.workspaces else {"name": name.removesuffix(".toml")}
        loaded.append(settings.loaded_as(**own))
    return loaded, errors


def _claim(settings: Settings, file: str, taken: dict[Path, str]) -> None:
    if settings.origin("workspace") == "default" and not settings.workspaces:
        what = "is required in a directory of configurations"
        raise ConfigError([Problem(file, ("workspace",), what)])
    paths = [loop.workspace_path for loop in settings.loops()]
    clashes = [path for path in paths if path in taken]
    if clashes:
        words = [f"{path} is already that of {taken[path]}" for path in clashes]
        raise ConfigError(Problem(file, ("workspace",), text) for text in words)
    states = [resolve_paths(loop).state_dir for loop in settings.loops()]
    if clashes := [state for state in states if state in taken]:
        words = [f"{state} is already that of {taken[state]}" for state in clashes]
        raise ConfigError(Problem(file, ("state_dir",), text) for text in words)
    taken.update(dict.fromkeys([*paths, *states], file))


def _checked(sources: Sources, cwd: str) -> Settings:
    problems = sources.problems
    read = functools.partial(Settings.read_from, *sources.inputs)
    settings, found = _validated(read, Settings, sources.values)
    settings = settings.loaded_as(origin=sources, base=cwd)
    bad = {key for key, _ in found}
    problems += [Problem(sources.place(key), key, message) for key, message in found]
    problems += _broken_rules(settings, sources, bad, ())
    problems += _entry_problems(settings, sources, bad)
    if problems:
        raise ConfigError(sorted(problems, key=_in_order))
    return settings


def _in_order(problem: Problem) -> tuple[str, int]:
    """By source, and within a file by line."""
    source, _, line = problem.where.rpartition(":")
    return (source, int(line)) if line.isdigit() else (problem.where, 0)


def _validated(
    make: Callable[[], _Model],
    model: type[_Model],
    values: Mapping[str, Any],
    above: KeyPath = (),
) -> tuple[_Model, list[Wrong]]:
    """What can be made, and what is wrong: wrong keys are taken out until all is right.

    Only the first look is reported; what a later one finds is the doing of taking something out."""
    found: list[Wrong] = []
    while True:
        try:
            return make(), found
        except ValidationError as error:
            wrong = list(from_validation(error, above))
        found = found or wrong
        keys = [key for key, _ in wrong]
        fewer = _without(values, keys)
        values = fewer if fewer != values else _without(values, [key[:1] for key in keys])
        make = functools.partial(model.model_validate, values)


def _without(values: Any, keys: Iterable[KeyPath]) -> Any:
    """The values without some keys; a key that is missing takes the table with it that lacks it."""
    for key in reversed(list(keys)):  # the last first, so that positions in lists stay right
        values = _drop(values, key if has(values, key) else key[:-1])
    return values


def _drop(values: Any, key: KeyPath) -> Any:
    if not key or not has(values, key[:1]):
        return values
    head, rest = key[0], key[1:]
    kept: Any = dict(values) if isinstance(values, Mapping) else list(values)
    if rest:
        kept[head] = _drop(kept[head], rest)
    else:
        del kept[head]
    return kept


def _broken_rules(
    settings: Settings, sources: Sources, bad: set[KeyPath], prefix: KeyPath
) -> Iterator[Problem]:
    """Broken rules whose keys are right by themselves, each at the first key that was set."""
    for keys, message in breaches(settings):
        paths = [(*prefix, *key) for key in keys]
        if any(path[: len(wrong)] == wrong[: len(path)] for path in paths for wrong in bad):
            continue
        given = [path for path in paths if sources.find(path)]
        if prefix and not given:
            continue  # not this entry's doing: reported above
        at = given[0] if given else paths[0]
        note = "" if at == paths[0] else f"{'.'.join(map(str, keys[0]))} "
        yield Problem(sources.place(at), at, note + message)


def _entry_problems(settings: Settings, sources: Sources, bad: set[KeyPath]) -> Iterator[Problem]:
    """What is wrong in the overrides of each [[workspaces]] entry."""
    if any(key[:1] == ("workspaces",) for key in bad):
        return
    for index, entry in enumerate(settings.workspaces):
        prefix: KeyPath = ("workspaces", index)
        alien = [key for key in entry.overrides if key in _NOT_A_LOOPS]
        found: list[Wrong] = [((key,), f"unknown key; {_NOT_A_LOOPS[key]}") for key in alien]
        values = {k: v for k, v in settings.loop_values(entry).items() if k not in alien}
        check = functools.partial(LoopFields.model_validate, values)
        fields, wrong = _validated(check, LoopFields, values, prefix)
        found += [(key, message) for key, message in wrong if has(entry.overrides, key[:1])]
        for key, message in found:
            yield Problem(sources.place((*prefix, *key)), (*prefix, *key), message)
        if entry.overrides:
            seen = bad | {(*prefix, *key) for key, _ in wrong}
            yield from _broken_rules(settings.loop(entry, fields), sources, seen, prefix)
