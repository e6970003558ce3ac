"""Where each agent keeps what it needs beside the workspace, as far as it was measured or is told by
its documentation: its home directories, which a fence opens, and in them its login, which a fence
closes to the others. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """`tail` below the directory that `variable` names, else below `default`; `~` is HOME."""

    default: str
    variable: str = ""
    tail: str = ""

    def path(self, environment: Mapping[str, str]) -> str:
        """Its path for a program with this environment; "" where HOME would be needed and is not
        absolute."""
        base = environment.get(self.variable) or self.default
        if base == "~" or base.startswith("~/"):
            base = environment.get("HOME", "~") + base[1:]
        path = f"{base.rstrip('/')}/{self.tail}" if self.tail else base
        return path if path.startswith("/") else ""


class Homes(NamedTuple):
    """`write`: what the agent writes; `login`: what no other agent is to read; `there`: what it makes
    elsewhere and must find, but does not write, with `{uid}` for its user; `measured`: with which
    version of it; "" where it is told by its documentation."""

    write: tuple[Place, ...]
    login: tuple[Place, ...] = ()
    there: tuple[str, ...] = ()
    measured: str = ""


def _config(tail: str) -> Place:
    return Place("~/.config", "XDG_CONFIG_HOME", tail)


def _data(tail: str) -> Place:
    return Place("~/.local/share", "XDG_DATA_HOME", tail)


def _cache(tail: str) -> Place:
    return Place("~/.cache", "XDG_CACHE_HOME", tail)


def _state(tail: str) -> Place:
    return Place("~/.local/state", "XDG_STATE_HOME", tail)


def _xdg(name: str) -> tuple[Place, ...]:
    return _config(name), _data(name), _cache(name), _state(name)


def _own(directory: str, variable: str = "", login: str = "", measured: str = "") -> Homes:
    """One directory, and the file in it that holds the login."""
    login_place = (Place(directory, variable, login),) if login else ()
    return Homes((Place(directory, variable),), login_place, measured=measured)


_CLAUDE = _own("~/.claude", "CLAUDE_CONFIG_DIR", ".credentials.json")

# What they try beside it and go on without: claude ~/.config/git/ignore, ~/.cache/claude and ~/.npm/_logs;
# opencode ~/.npm, for a library that only plugins need; copilot ~/.cache/Microsoft, for a telemetry id.
HOMES: dict[str, Homes] = {
    "codex": _own("~/.codex", "CODEX_HOME", "auth.json", "0.171.0")._replace(
        there=("/tmp/codex-daemon-{uid}",)  # noqa: S108 - its sandbox ends without it
    ),
    "claude": Homes(
        # the second is replaced by rename, which only Landlock's refusal lets claude do in place:
        # inside mounts it stays as it is, and claude goes on
        (*_CLAUDE.write, Place("~/.claude.json"), _cache("claude-cli-nodejs")),
        _CLAUDE.login,
        measured="2.1.332",
    ),
    "gemini": Homes(
        (Place("~", "GEMINI_CLI_HOME", ".gemini"),),
        (Place("~", "GEMINI_CLI_HOME", ".gemini/oauth_creds.json"),),
        measured="0.61.0",
    ),
    "opencode": Homes(_xdg("opencode"), (_data("opencode/auth.json"),), measured="1.18.33"),
    "copilot": Homes((Place("~/.copilot", "COPILOT_HOME"), *_xdg("copilot")), measured="1.0.102"),
    "qwen": _own("~/.qwen", "QWEN_HOME", "oauth_creds.json", "0.24.4"),
    "vibe": _own("~/.vibe", "VIBE_HOME", ".env", "3.0.2"),
    "kilo": Homes(
        (*_xdg("kilo"), _state("kilo-sandbox-policy")),
        (_data("kilo/auth.json"),),
        measured="7.7.7",
    ),
    "goose": Homes(_xdg("goose")),
    "cursor": Homes((Place("~/.cursor"), _config("cursor"))),
    "auggie": _own("~/.augment", login="session.json"),
    "droid": _own("~/.factory", login="auth.json"),
    "junie": _own("~/.junie"),
    "cline": _own("~/.cline"),
    "aider": _own("~/.aider", measured="0.86.2"),
}

SECRETS: tuple[Place, ...] = (
    *(
        Place("~", tail=name)
        for name in (
            ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".netrc", ".git-credentials",
            ".password-store", ".docker/config.json",
        )
    ),
    *map(_config, ("gh", "gcloud", "hub", "glab-cli", "git/credentials", "codex-self-iter")),
    _data("keyrings"),
)  # fmt: skip
"""What no agent is to read unless it is allowed: keys, logins and our own configuration."""


def known_as(agent: str, argv: Sequence[str]) -> str:
    """The row of an agent: its own, or that of the program, where a person wrote how it is started; a
    shell's `-c SCRIPT NAME` has that name."""
    name = argv[3] if argv[1:2] == ("-c",) and len(argv) > 3 else argv[0]
    return agent if agent in HOMES else name.rpartition("/")[2]


def homes(agent: str, environment: Mapping[str, str]) -> Iterator[str]:
    """What an agent writes beside the workspace."""
    return _paths(HOMES[agent].write if agent in HOMES else (), environment)


def there(agent: str, uid: int) -> Iterator[str]:
    """What is to be there before an agent starts, and is not opened."""
    return (path.format(uid=uid) for path in (HOMES[agent].there if agent in HOMES else ()))


def secrets(agent: str, environment: Mapping[str, str]) -> Iterator[str]:
    """What an agent is not to read: keys, and the logins of the others."""
    logins = (place for name, row in HOMES.items() if name != agent for place in row.login)
    return _paths((*SECRETS, *logins), environment)


def _paths(places: Iterable[Place], environment: Mapping[str, str]) -> Iterator[str]:
    return filter(None, (place.path(environment) for place in places))


def sandboxed(agent: str, protocol: str, bwrap: bool) -> bool:
    """Whether an agent's commands run in a sandbox of its own that mounts, unless it is to bypass it:
    codex brings bubblewrap; claude needs the installed one, and has none over ACP."""
    return agent == "codex" or (agent == "claude" and protocol != "acp" and bwrap)
