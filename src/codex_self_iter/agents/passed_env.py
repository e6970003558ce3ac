"""Which of our variables an agent gets. Pure.

Everything, less what looks secret, plus what this agent needs, `pass_env` and `env`. An agent hands
its environment on to every tool that it runs, so a key that it does not need is a key that can
leak."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Whole words of the name, so that MONKEY_HOME or COMPASS stay.
_SECRET_NAME = re.compile(
    r"(^|_)(API_?KEYS?|KEY|KEYS|TOKENS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|PASS|PWD|CREDENTIALS?|CREDS|AUTH|"
    r"PAT|COOKIES?|DSN|CERT|BEARER|JWT|WEBHOOK|ACCESSKEY|SECRETKEY|APIKEY|AUTHTOKEN)(_|\d|$)|(APIKEY|PASSWORD|SECRET|TOKEN)$",
    re.IGNORECASE,
)
# The beginnings of well-known keys, a private key's armour, and addresses with a password in them.
_SECRET_VALUE = re.compile(
    r"\b(sk-[A-Za-z0-9_-]{16}|gh[opsur]_[A-Za-z0-9]{16}|github_pat_|glpat-|xox[abprs]-|AKIA[0-9A-Z]{12}|AIza[0-9A-Za-z_-]{20}|"
    r"npm_[A-Za-z0-9]{20}|pypi-[A-Za-z0-9_-]{20}|eyJ[A-Za-z0-9_-]{16,}\.)|-----BEGIN [A-Z ]*PRIVATE KEY|://[^/\s:@]+:[^/\s@]+@"
)
# Names that look secret and are not: places and sockets, without which git and ssh do not work. A
# proxy's address may hold a password, and without it nothing is reached.
_HARMLESS = frozenset(
    {
        "ALL_PROXY",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "PWD",
        "OLDPWD",
        "SSH_AUTH_SOCK",
        "GPG_KEY",
        "XAUTHORITY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "NODE_EXTRA_CA_CERTS",
    }
)
# Traces of an agent around us (a supervisor started from within one): they would change how ours
# behaves.
_FOREIGN = re.compile(
    r"^(CODEX_(THREAD_ID|SESSION_ID|TOOL_CALL_ID|CI|SANDBOX.*)|CLAUDECODE|CLAUDE_CODE_(ENTRYPOINT|SESSION_ID|SSE_PORT))$"
)


def looks_secret(name: str, value: str = "") -> bool:
    """True when a variable's name or value looks like a secret's."""
    if name.upper() in _HARMLESS:
        return False
    return bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value))


def agent_environment(
    ours: Mapping[str, str],
    *,
    needed: Iterable[str] = (),
    passed: Iterable[str] = (),
    extra: Mapping[str, str] | None = None,
    configured: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Make an agent's complete environment.

    Args:
        ours: the supervisor's environment.
        needed: names, or beginnings of names that end in `*`, that this agent needs even if they
            look secret.
        passed: the configured `pass_env`, in the same form.
        extra: set by the adapter.
        configured: the configured `env`; wins over everything.
    """
    exact, prefixes = _patterns((*needed, *passed))
    asked = _patterns(tuple(passed))
    env: dict[str, str] = {}
    for name, value in ours.items():
        if _FOREIGN.match(name) and not _matches(name, *asked):
            continue
        if not looks_secret(name, value) or _matches(name, exact, prefixes):
            env[name] = value
    return env | dict(extra or {}) | dict(configured or {})


def _patterns(names: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    exact = frozenset(name for name in names if not name.endswith("*"))
    return exact, tuple(name[:-1] for name in names if name.endswith("*"))


def _matches(name: str, exact: frozenset[str], prefixes: tuple[str, ...]) -> bool:
    return name in exact or name.startswith(prefixes)
