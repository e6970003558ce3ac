"""Opening the page: where it listens, under which names, with which locks; who is told how to get in."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from codex_self_iter.errors import ExitCode, UsageError
from codex_self_iter.screens.loops import Target
from codex_self_iter.screens.page.entering import Door, Keys, read_token
from codex_self_iter.screens.page.gatekeeper import Address, Gatekeeper

PORT = 8420
LOOPBACK = "127.0.0.1"
WAKE_SEC = 10.0
"""For a service manager to start the page."""
LISTEN_FD = 3
"""The first socket of a service manager's (sd_listen_fds)."""


class Options(NamedTuple):
    """What the command line asks for; "" and () where it does not.

    Attributes:
        names: by which the page is reached, beside what it listens on; proxy: a proxy's origin;
        proxy_from: the address that it connects from."""

    host: str = LOOPBACK
    port: int = PORT
    control: bool = False
    browser: bool = False
    token_file: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    names: tuple[str, ...] = ()
    proxy: str = ""
    proxy_from: str = LOOPBACK
    extra: tuple[Target, ...] = ()


def serve(options: Options, say: Callable[[str], None]) -> int:
    """Show the loops until a signal comes. Raises UsageError for what would be unsafe or cannot be."""
    options = options._replace(host=_address(options.host))
    keys = Keys()
    keys.secret()
    token = read_token(options.token_file) if options.token_file else ""
    tls = _tls(options)
    sock, handed = _handed(), True
    if sock is None:
        _may_listen(options.host, options, token)
        sock, handed = _listen(options, keys), False
    with sock:
        host, port = sock.getsockname()[:2]
        if handed:
            _may_listen(host, options, token)
        address = Address(_origins(options, host, port), _proxy_from(options), options.control)
        door = Door(keys, port, token=token)
        running = keys.say_running(port, address.origins[0])
        _say_how(options, keys, address, door, say)
        from codex_self_iter.screens.page.bounded_server import serve as answer
        from codex_self_iter.screens.page.site import site

        over = asyncio.Event()
        make = lambda keeper: site(keeper, options.extra, over)  # noqa: E731
        gate = Gatekeeper(make, door, address)
        try:
            ended_by = asyncio.run(answer(gate, sock, tls, over))
        finally:
            with contextlib.suppress(OSError):
                os.unlink(running)
    return int(ExitCode.SIGINT if ended_by == signal.SIGINT else ExitCode.OK)


def link(port: int) -> str:
    """A new link to the page that runs at a port. Raises UsageError when none does."""
    keys = Keys()
    origin = keys.running(port)[1] or _woken(keys, port)
    if not origin:
        raise UsageError(f"no page of yours runs at port {port}; start one: codex-self-iter serve")
    return f"{origin}/enter?key={keys.new_link(port)}"


def _woken(keys: Keys, port: int) -> str:
    """The origin of a page that a service manager starts for whoever connects; "" for none."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=WAKE_SEC).close()
    except OSError:
        return ""
    patience = time.monotonic() + WAKE_SEC
    while not (origin := keys.running(port)[1]) and time.monotonic() < patience:
        time.sleep(0.1)
    return origin


def _say_how(
    options: Options, keys: Keys, address: Address, door: Door, say: Callable[[str], None]
) -> None:
    home = address.origins[0]
    way = f"{home}/enter?key={keys.new_link(door.port)}"
    does = "It may pause, steer and stop loops." if address.control else "It only shows."
    port = "" if door.port == PORT else f" --port {door.port}"
    say(f"The page is at {home}. {does} Ctrl-C ends it; the loops go on.")
    say(f"Open it by this link, which works once, within an hour:\n  {way}")
    say(f"For another device: codex-self-iter serve --link{port}")
    if options.browser:
        import webbrowser

        if not webbrowser.open(way):
            say("No browser could be opened here: open the link yourself.")


def _address(host: str) -> str:
    """An IP address in its usual form. Raises UsageError for a name, which may mean several."""
    try:
        return str(ipaddress.ip_address(LOOPBACK if host == "localhost" else host))
    except ValueError:
        raise UsageError(f"--host {host!r} is no IP address") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to that address."""
    return ipaddress.ip_address(host).is_loopback


def _may_listen(host: str, options: Options, token: str) -> None:
    """Raises UsageError for an address that others can reach, without what keeps them out."""
    if not options.proxy and options.proxy_from != LOOPBACK:
        raise UsageError("--proxy-from does nothing without --proxy")
    if is_loopback(host) or options.proxy:
        return
    if not (token and options.tls_cert):
        raise UsageError(
            f"{host} can be reached from other machines: that needs --token-file FILE with "
            "--tls-cert and --tls-key, or --proxy https://NAME of a proxy that does TLS. "
            "Without them: an ssh tunnel to 127.0.0.1 (docs/screens.md)"
        )
    if not options.names and ipaddress.ip_address(host).is_unspecified:
        raise UsageError(f"say by which name {host} is reached: --name loops.example.org")


def _tls(options: Options) -> ssl.SSLContext | None:
    if bool(options.tls_cert) != bool(options.tls_key):
        raise UsageError("--tls-cert and --tls-key go together")
    if not options.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", None) or error
        what = f"{options.tls_cert} and {options.tls_key}"
        raise UsageError(f"no TLS with {what}: {why}") from error
    return context


def _origins(options: Options, host: str, port: int) -> tuple[str, ...]:
    if options.proxy:
        parts = urlsplit(options.proxy)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/"):
            raise UsageError(
                f"--proxy {options.proxy!r}: expected https://NAME, the proxy's origin"
            )
        return (f"https://{parts.netloc.lower()}",)
    scheme, usual = ("https", 443) if options.tls_cert else ("http", 80)
    local = [LOOPBACK, "localhost", "::1"] if is_loopback(host) else []
    own = [] if host in local or ipaddress.ip_address(host).is_unspecified else [host]
    local.sort(key=lambda name: name != host)  # where only ::1 listens, a link must lead there
    names = [*options.names, *own, *local]
    shown = (f"[{name}]" if ":" in name else name.lower() for name in names)
    return tuple(f"{scheme}://{name}{'' if port == usual else f':{port}'}" for name in shown)


def _proxy_from(options: Options) -> str:
    if options.proxy:
        try:
            ipaddress.ip_address(options.proxy_from)
        except ValueError:
            raise UsageError(f"--proxy-from {options.proxy_from!r} is no IP address") from None
        return options.proxy_from
    return ""


def _listen(options: Options, keys: Keys) -> socket.socket:
    from codex_self_iter.screens.page.bounded_server import listener

    try:
        return listener(options.host, options.port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            what = f"cannot listen on {options.host} port {options.port}"
            raise UsageError(f"{what}: {error.strerror}") from error
    pid, _ = keys.running(options.port)
    if pid:
        how = f"codex-self-iter serve --link --port {options.port}"
        raise UsageError(f"a page of yours runs at port {options.port} (pid {pid}); a link: {how}")
    who = _user_of(options.port)
    raise UsageError(f"port {options.port} is in use{who}; choose another one: --port N")


def _user_of(port: int) -> str:
    """Which process listens there, as far as this user may know it."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,) and one.pid:
                return f" by {psutil.Process(one.pid).name()} (pid {one.pid})"
    return ""


def _handed() -> socket.socket | None:
    """The socket of a service manager, if this process was given one."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    os.set_inheritable(LISTEN_FD, False)
    sock = socket.socket(fileno=LISTEN_FD)
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise UsageError("the socket of the service manager is no TCP socket (ListenStream=)")
    return sock
