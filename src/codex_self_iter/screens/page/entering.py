"""Who may come in: the secret of this user's page, links that work once, cookies, failed tries.

All of it lies in a private directory of the user's. A link is a file there, named by the hash of its
key: whoever removes the file has used it, so it works once whatever happens in between, also across
restarts. A cookie is signed with the secret and the port, so that it survives a restart of the page
and is worth nothing at another port."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
import time
from collections.abc import Callable
from typing import NamedTuple

from codex_self_iter.core.foreign import as_int, as_text
from codex_self_iter.errors import UsageError
from codex_self_iter.world import registry
from codex_self_iter.world.guarded import read_guarded, read_object
from codex_self_iter.world.state.durable import replace_private

LINK_SEC = 3600.0
"""A link that nobody has opened by then is void."""
COOKIE_SEC = 30 * 86400
"""A device that came in stays for a month."""
MOST_LINKS = 100
TRIES, LOCKED_SEC = 5, 900.0
"""So many failures of one source close the door to it for a quarter of an hour."""
MOST_SOURCES = 4096
LEAST_TOKEN = 20
"""Characters: what is shorter can be guessed."""


class Keys:
    """What lies on disk: the secret, the links that are open, which pages run."""

    def __init__(self, directory: str = "", clock: Callable[[], float] = time.time) -> None:
        """`directory`: by default below the user's state directory. Raises UsageError where there is
        no place for it."""
        known = registry.directory()
        if not (directory or known):
            raise UsageError("there is no home directory to keep the page's secret in: set HOME")
        self.directory = directory or os.path.join(os.path.dirname(known), "page")
        self._clock = clock
        self._known: tuple[object, bytes] = (None, b"")
        try:
            os.makedirs(os.path.join(self.directory, "links"), mode=0o700, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot make {self.directory}: {error.strerror}; the page keeps its secret there"
            ) from error

    def secret(self) -> bytes:
        """The secret, made at the first call; another one after `forget`, also in another process.

        Raises UsageError for a file that others may have had their hands in."""
        path = os.path.join(self.directory, "secret")
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            replace_private(path, secrets.token_bytes(32), sync=True)
            found = os.lstat(path)
        mark = (found.st_ino, found.st_mtime_ns)
        if mark != self._known[0]:
            mine = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
            data = read_guarded(path, 33) if mine and not found.st_mode & 0o077 else b""
            if len(data) != 32:
                what = "is not a private file of 32 bytes of yours"
                raise UsageError(f"{path} {what}; remove it, and every device comes in anew")
            self._known = mark, data
        return self._known[1]

    def forget(self) -> None:
        """A new secret: every cookie and every link is void from here on."""
        for name in os.listdir(os.path.join(self.directory, "links")):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.directory, "links", name))
        replace_private(os.path.join(self.directory, "secret"), secrets.token_bytes(32), sync=True)

    def new_link(self, port: int) -> str:
        """The key of a new link to the page at that port."""
        links = os.path.join(self.directory, "links")
        for name in sorted(os.listdir(links))[: -MOST_LINKS or None]:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(links, name))
        key = secrets.token_urlsafe(32)
        value = {"port": port, "until": self._clock() + LINK_SEC}
        replace_private(self._link(key), json.dumps(value).encode())
        return key

    def use_link(self, key: str, port: int) -> bool:
        """Whether the key opens the page at that port. It never does so again."""
        path = self._link(key)
        value = read_object(path, 4096) or {}
        until = value.get("until")
        if value.get("port") != port or not isinstance(until, int | float):
            return False
        try:
            os.unlink(path)  # whoever removes it has it: of two at once, one
        except OSError:
            return False
        return self._clock() < until

    def _link(self, key: str) -> str:
        # looked up by its hash: how long that takes says nothing about a key
        name = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
        return os.path.join(self.directory, "links", name)

    def say_running(self, port: int, origin: str) -> str:
        """Leave word of the page that runs at a port; the path."""
        path = os.path.join(self.directory, f"running-{port}.json")
        replace_private(path, json.dumps({"pid": os.getpid(), "origin": origin}).encode())
        return path

    def running(self, port: int) -> tuple[int, str]:
        """(pid, origin) of the page that was started last at a port; (0, "") for none."""
        value = read_object(os.path.join(self.directory, f"running-{port}.json")) or {}
        pid, origin = as_int(value.get("pid")), as_text(value.get("origin"))
        return (pid, origin) if origin and registry.process_alive(pid, "") else (0, "")


class Session(NamedTuple):
    """One device that came in. `csrf`: the word that every change from its pages carries; "" for a
    program with a token, which no page of somebody else's can speak for."""

    name: str
    csrf: str


class Door:
    """Cookies and the token, and how often a source has failed."""

    def __init__(
        self, keys: Keys, port: int, *, token: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        """`clock`: Unix seconds."""
        self.keys, self.port, self._token, self._clock = keys, port, token, clock
        self._failures: dict[str, tuple[int, float]] = {}

    @property
    def has_token(self) -> bool:
        """Whether a token opens, too."""
        return bool(self._token)

    def cookie(self) -> str:
        """A new device's cookie."""
        name = f"{self._clock():.0f}.{secrets.token_hex(16)}"
        return f"{name}.{self._sign('cookie', name)}"

    def session(self, cookie: str) -> Session | None:
        """The device whose cookie this is; None for anything that is not from here, or too old."""
        name, _, signed = cookie.rpartition(".")
        # the signature first: nothing that was not written here is looked at
        if not hmac.compare_digest(self._sign("cookie", name).encode(), signed.encode()):
            return None
        if self._clock() - float(name.partition(".")[0]) > COOKIE_SEC:
            return None
        return Session(name, self._sign("csrf", name))

    def opens(self, token: str) -> bool:
        """Whether it is the token."""
        given, mine = (hashlib.sha256(text.encode()).digest() for text in (token, self._token))
        return hmac.compare_digest(given, mine) and bool(self._token)

    def _sign(self, what: str, name: str) -> str:
        text = f"{what} {self.port} {name}".encode("utf-8", "replace")
        return hmac.new(self.keys.secret(), text, "sha256").hexdigest()

    def closed(self, source: str) -> float:
        """Seconds for which a source is not listened to; 0 when it is."""
        count, last = self._failures.get(source, (0, 0.0))
        return max(0.0, last + LOCKED_SEC - self._clock()) if count >= TRIES else 0.0

    def failed(self, source: str) -> None:
        """One more failure of a source. Those that lie long back do not count."""
        count, last = self._failures.pop(source, (0, 0.0))
        fresh = self._clock() - last < LOCKED_SEC
        self._failures[source] = (count + 1 if fresh else 1), self._clock()
        if len(self._failures) > MOST_SOURCES:
            del self._failures[next(iter(self._failures))]

    def passed(self, source: str) -> None:
        """It came in: what failed before was a slip."""
        self._failures.pop(source, None)


def read_token(path: str) -> str:
    """The token in a file of the person's. Raises UsageError for one that is no secret."""
    try:
        found = os.stat(path)
        text = read_guarded(path, 4096, follow=True).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"cannot read the token in {path}: {why}") from error
    if found.st_mode & 0o077:
        raise UsageError(f"others can read the token in {path}: chmod 600 {path}")
    if len(text) < LEAST_TOKEN or len(text.split()) != 1:
        how = f"python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > {path}"
        raise UsageError(f"{path} must hold one word of at least {LEAST_TOKEN} characters: {how}")
    return text
