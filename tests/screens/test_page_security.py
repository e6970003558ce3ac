"""Who may not come in, and who may not change anything. Beside each refusal stands what is let in,
so that a lock which refuses everybody fails as well as one which refuses nobody."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.server import ServerState

from codex_self_iter.errors import UsageError
from codex_self_iter.screens.page import bounded_server, entering, listening
from codex_self_iter.screens.page.bounded_server import (
    ASK_SEC,
    MOST_CONNECTIONS,
    TAKE_SEC,
    BoundedProtocol,
)
from codex_self_iter.screens.page.entering import COOKIE_SEC, LINK_SEC, LOCKED_SEC, TRIES, Keys
from codex_self_iter.screens.page.listening import Options
from tests.support import certificate
from tests.support.harness import PATIENCE, wait_until
from tests.support.program import PROGRAM
from tests.support.shown_loops import GATE, cases, on_disk, record
from tests.support.web import HOME, TOKEN, App, Page, served

pytestmark = pytest.mark.anyio


async def loop_path(app: App) -> str:
    found = (await app.ask("/api/v1/loops")).json()["loops"]
    return f"/loop/{found[0]['id']}"


# -- who may come in -------------------------------------------------------------------------------


async def test_nothing_is_shown_to_a_stranger(held: ExitStack, tmp_path: Path) -> None:
    held.enter_context(on_disk(tmp_path, "secret-loop", cases(time.time())["running"]))
    app = App(tmp_path, control=True)
    for path in (
        "/",
        "/events",
        "/loop/0123456789ab",
        "/api/v1/loops",
        "/api/v1/openapi.json",
        "/x",
    ):
        answer = await app.ask(path)
        assert answer.status == 401, path
        assert "secret-loop" not in answer.text
    for path in ("/healthz", "/enter", "/static/page.css"):
        answer = await app.ask(path)
        assert answer.status == 200, path
        assert "secret-loop" not in answer.text
    await app.enter()
    assert "secret-loop" in (await app.ask("/")).text


async def test_a_link_opens_once(held: ExitStack, tmp_path: Path) -> None:
    app, link = App(tmp_path), ""
    link = app.link()
    assert (await app.ask(link, method="HEAD", bare=True)).status == 200  # a preview uses nothing
    assert (await app.ask(link, bare=True)).status == 200
    again = await app.ask(link, bare=True)
    assert again.status == 403
    assert "set-cookie" not in again.headers
    assert (await App(tmp_path).ask(link, bare=True)).status == 403, "a restart forgot it"


async def test_a_browser_that_keeps_no_cookie_is_told(held: ExitStack, tmp_path: Path) -> None:
    """It was let in, and would be asked for a link again and again."""
    app = App(tmp_path)
    key = app.gate.door.keys.new_link(app.gate.door.port)
    came = {"referer": f"{app.gate.address.origins[0]}/enter?key={key}"}
    answer = await app.ask("/", headers=came)
    assert answer.status == 401
    assert "keeps no cookie" in answer.words
    # negative control: from anywhere else, whatever that says
    for other in ("http://[", "https://example.org/", ""):
        answer = await app.ask("/", headers={"referer": other})
        assert answer.status == 401
        assert "cookie" not in answer.words


async def test_a_link_is_void_after_an_hour(held: ExitStack, tmp_path: Path) -> None:
    app = App(tmp_path)
    early, late = app.link(), app.link()
    app.clock.now += LINK_SEC - 1
    assert (await app.ask(early, bare=True)).status == 200
    app.clock.now += 2
    assert (await app.ask(late, bare=True)).status == 403


async def test_a_link_opens_the_page_of_its_port_only(held: ExitStack, tmp_path: Path) -> None:
    app, other = App(tmp_path), App(tmp_path, port=9000)
    link = app.link()
    assert (await other.ask(link, bare=True)).status == 403
    assert (await app.ask(link, bare=True)).status == 200


async def test_a_cookie_is_hidden_strict_and_of_one_port(held: ExitStack, tmp_path: Path) -> None:
    app, other = App(tmp_path), App(tmp_path, port=9000)
    answer = await app.ask(app.link())
    sent = answer.headers["set-cookie"].lower()
    assert "httponly" in sent
    assert "samesite=strict" in sent
    assert "secure" not in sent
    assert (await app.ask("/")).status == 200
    (value,) = app.cookies.values()
    other.cookies = {other.gate.cookie_name: value}
    assert (await other.ask("/")).status == 401


async def test_behind_tls_a_cookie_never_goes_without(held: ExitStack, tmp_path: Path) -> None:
    app = App(tmp_path, origins=("https://loops.example.org",))
    sent = (await app.ask(app.link())).headers["set-cookie"]
    assert "Secure" in sent
    assert sent.startswith("__Host-")


async def test_a_forged_or_old_cookie_is_nobodys(held: ExitStack, tmp_path: Path) -> None:
    app = App(tmp_path)
    await app.enter()
    name, good = next(iter(app.cookies.items()))
    for bad in (
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        "1" + good,
        good.rpartition(".")[0],
        ".",
        "é",
    ):
        app.cookies = {name: bad}
        assert (await app.ask("/")).status == 401, bad
    app.cookies = {name: good}
    app.clock.now += COOKIE_SEC - 60
    assert (await app.ask("/")).status == 200
    app.clock.now += 120
    assert (await app.ask("/")).status == 401


async def test_forgetting_sends_everybody_out(held: ExitStack, tmp_path: Path) -> None:
    app = App(tmp_path)
    await app.enter()
    link = app.link()
    assert (await app.ask("/")).status == 200
    Keys(app.keys.directory).forget()  # as another process does
    assert (await app.ask("/")).status == 401
    assert (await app.ask(link, bare=True)).status == 403


async def test_five_failures_close_the_door_for_a_quarter_of_an_hour(
    held: ExitStack, tmp_path: Path
) -> None:
    app = App(tmp_path, token=TOKEN)
    for _ in range(TRIES):
        assert (await app.ask("/enter", form={"token": "wrong"}, bare=True)).status == 403
    locked = await app.ask("/enter", form={"token": TOKEN}, bare=True)
    assert locked.status == 429
    assert 0 < int(locked.headers["retry-after"]) <= LOCKED_SEC
    link = app.link()
    assert (await app.ask(link, bare=True)).status == 429
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert (await app.ask("/api/v1/loops", headers=bearer)).status == 429
    app.source = "127.0.0.2"  # another one is not punished for it
    assert (await app.ask("/enter", form={"token": TOKEN}, bare=True)).status == 200
    app.source = "127.0.0.1"
    app.clock.now += LOCKED_SEC + 1
    assert (await app.ask("/enter", form={"token": TOKEN}, bare=True)).status == 200
    assert (await app.ask(link, bare=True)).status == 200, "the link was used up behind the door"


async def test_a_few_slips_lock_nobody_out(held: ExitStack, tmp_path: Path) -> None:
    """Negative control: what is short of five, or lies long back, does not count."""
    app = App(tmp_path, token=TOKEN)
    for _ in range(3):
        for _ in range(TRIES - 1):
            assert (await app.ask("/enter", form={"token": "wrong"}, bare=True)).status == 403
        assert (await app.ask("/enter", form={"token": TOKEN}, bare=True)).status == 200
    for _ in range(TRIES * 2):
        assert (await app.ask("/enter", form={"token": "wrong"}, bare=True)).status == 403
        app.clock.now += LOCKED_SEC + 1


async def test_who_is_in_stays_in_while_others_guess(held: ExitStack, tmp_path: Path) -> None:
    app = App(tmp_path, token=TOKEN)
    await app.enter()
    for _ in range(TRIES + 1):
        await app.ask("/enter", form={"token": "wrong"}, bare=True)
    assert (await app.ask("/")).status == 200


async def test_a_network_of_ipv6_is_one_source(held: ExitStack, tmp_path: Path) -> None:
    app = App(tmp_path, token=TOKEN)
    for number in range(TRIES):
        app.source = f"2001:db8:1:2::{number + 1}"
        assert (await app.ask("/enter", form={"token": "wrong"}, bare=True)).status == 403
    app.source = "2001:db8:1:2:ffff::1"
    assert (await app.ask("/enter", form={"token": TOKEN}, bare=True)).status == 429
    app.source = "2001:db8:1:3::1"
    assert (await app.ask("/enter", form={"token": TOKEN}, bare=True)).status == 200


async def test_no_flood_of_sources_grows(held: ExitStack, tmp_path: Path) -> None:
    app = App(tmp_path, token=TOKEN)
    for number in range(entering.MOST_SOURCES + 50):
        app.door.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(app.door._failures) == entering.MOST_SOURCES


@pytest.mark.parametrize("given", ["", "x", TOKEN[:-1], TOKEN + "x"])
async def test_a_token_opens_for_programs(held: ExitStack, tmp_path: Path, given: str) -> None:
    app = App(tmp_path, token=TOKEN)
    wrong = {"authorization": f"Bearer {given}"}
    assert (await app.ask("/api/v1/loops", headers=wrong)).status == 401
    right = {"authorization": f"Bearer {TOKEN}"}
    assert (await app.ask("/api/v1/loops", headers=right)).status == 200


async def test_without_a_token_none_opens(held: ExitStack, tmp_path: Path) -> None:
    app = App(tmp_path)
    empty = {"authorization": "Bearer "}
    assert (await app.ask("/api/v1/loops", headers=empty)).status == 401
    assert (await app.ask("/enter", form={"token": ""}, bare=True)).status == 403


# -- to whom, and from where -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8420",
        "127.0.0.1",
        "127.0.0.1:9000",
        "localhost.evil.example:8420",
    ],
)
async def test_a_strangers_name_for_us_is_refused(
    held: ExitStack, tmp_path: Path, host: str
) -> None:
    app = App(tmp_path)
    await app.enter()
    answer = await app.ask("/", headers={"host": host})
    assert answer.status == 421
    assert (await app.ask("/healthz", headers={"host": host})).status == 421
    for known in ("127.0.0.1:8420", "localhost:8420", "LOCALHOST:8420"):
        assert (await app.ask("/", headers={"host": known})).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9000", "https://127.0.0.1:8420"]
)
async def test_another_sites_page_is_refused(held: ExitStack, tmp_path: Path, origin: str) -> None:
    held.enter_context(on_disk(tmp_path, "app", cases(time.time())["running"]))
    app = App(tmp_path, control=True)
    await app.enter()
    path = await loop_path(app)
    form = {"verb": "pause", "csrf": (await app.ask(path)).csrf}
    assert (await app.ask(path, headers={"origin": origin})).status == 403
    assert (await app.ask(f"{path}/steer", form=form, headers={"origin": origin})).status == 403
    assert not (tmp_path / "app/.codex-self-iter/PAUSE").exists()
    assert (await app.ask(f"{path}/steer", form=form, headers={"origin": HOME})).status == 200
    assert (tmp_path / "app/.codex-self-iter/PAUSE").exists()


async def test_a_change_that_does_not_say_where_it_comes_from_is_refused(
    held: ExitStack, tmp_path: Path
) -> None:
    held.enter_context(on_disk(tmp_path, "app", cases(time.time())["running"]))
    app = App(tmp_path, control=True)
    await app.enter()
    path = await loop_path(app)
    form = {"verb": "pause", "csrf": (await app.ask(path)).csrf}
    assert (await app.ask(f"{path}/steer", form=form, headers={"origin": ""})).status == 403


async def test_another_site_cannot_load_what_is_here(held: ExitStack, tmp_path: Path) -> None:
    app = App(tmp_path)
    await app.enter()
    for site in ("cross-site", "same-site"):  # of the same site is every other port
        asks = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
        assert (await app.ask("/api/v1/loops", headers=asks)).status == 403
        opens = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
        assert (await app.ask("/", headers=opens)).status == 200


async def test_every_change_needs_the_word_of_its_page(held: ExitStack, tmp_path: Path) -> None:
    held.enter_context(on_disk(tmp_path, "app", cases(time.time())["running"]))
    app, other = App(tmp_path, control=True), App(tmp_path, control=True)
    await app.enter()
    await other.enter()
    path = await loop_path(app)
    words = (await app.ask(path)).csrf, (await other.ask(path)).csrf
    assert words[0] != words[1]
    posts = {
        f"{path}/steer": {"verb": "pause"},
        "/link": {},
        "/leave": {},
        f"/api/v1/loops/{path.rpartition('/')[2]}/control": {"verb": "pause"},
    }
    for post, form in posts.items():
        for wrong in ({}, {"csrf": ""}, {"csrf": words[1]}, {"csrf": "é"}):
            assert (await app.ask(post, form=form | wrong)).status == 403, (post, wrong)
    assert not (tmp_path / "app/.codex-self-iter/PAUSE").exists()
    for post, form in posts.items():
        if post != "/leave":
            assert (await app.ask(post, form=form | {"csrf": words[0]})).status == 200, post
    header = {"x-csrf-token": words[0]}
    assert (await app.ask(f"{path}/steer", form={"verb": "resume"}, headers=header)).status == 200
    assert not (tmp_path / "app/.codex-self-iter/PAUSE").exists()


async def test_nothing_changes_without_control(held: ExitStack, tmp_path: Path) -> None:
    held.enter_context(on_disk(tmp_path, "app", cases(time.time())["running"]))
    app = App(tmp_path, token=TOKEN)
    await app.enter()
    path = await loop_path(app)
    page = await app.ask(path)
    assert 'name="verb"' not in page.text
    form = {"verb": "stop", "csrf": page.csrf}
    assert (await app.ask(f"{path}/steer", form=form)).status == 403
    api = f"/api/v1/loops/{path.rpartition('/')[2]}/control"
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert (await app.ask(api, form=form, headers=bearer)).status == 403
    assert not (tmp_path / "app/.codex-self-iter/STOP").exists()
    may = App(tmp_path, control=True)
    await may.enter()
    form["csrf"] = (await may.ask(path)).csrf
    assert (await may.ask(f"{path}/steer", form=form)).status == 200
    assert (tmp_path / "app/.codex-self-iter/STOP").exists()


async def test_a_get_changes_nothing(held: ExitStack, tmp_path: Path) -> None:
    held.enter_context(on_disk(tmp_path, "app", cases(time.time())["running"]))
    app = App(tmp_path, control=True)
    await app.enter()
    path = await loop_path(app)
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"):
        answer = await app.ask(f"{path}/steer?verb=stop", method=method)
        assert answer.status == 405, method
    assert not (tmp_path / "app/.codex-self-iter/STOP").exists()


async def test_every_answer_forbids_foreign_script_frames_and_keeping(
    held: ExitStack, tmp_path: Path
) -> None:
    held.enter_context(on_disk(tmp_path, "app", cases(time.time())["running"]))
    app = App(tmp_path)
    refused = await app.ask("/")
    await app.enter()
    path = await loop_path(app)
    for answer in (refused, await app.ask("/"), await app.ask(path), await app.ask("/nowhere")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        for inline in ("<script>", " style=", "onclick", "javascript:"):
            assert inline not in answer.text
        # the one style is in the page, and the policy lets no other be used
        (style,) = re.findall("<style[^>]*>(.*?)</style>", answer.text, re.DOTALL)
        assert answer.text.count("<style") == 1
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"; style-src 'sha256-{digest}'; " in policy


# -- behind a proxy --------------------------------------------------------------------------------


async def test_only_the_named_proxy_may_connect_and_it_says_who_asks(
    held: ExitStack, tmp_path: Path
) -> None:
    app = App(tmp_path, token=TOKEN, origins=("https://loops.example.org",), proxy="10.0.0.2")
    app.source = "10.0.0.2"
    for _ in range(TRIES):
        forged = {"x-forwarded-for": f"{os.urandom(1)[0]}.1.1.1, 192.0.2.7"}
        answer = await app.ask("/enter", form={"token": "wrong"}, headers=forged, bare=True)
        assert answer.status == 403
    mine = {"x-forwarded-for": "8.8.8.8, 192.0.2.7"}
    assert (await app.ask("/enter", form={"token": TOKEN}, headers=mine, bare=True)).status == 429
    others = {"x-forwarded-for": "192.0.2.7, 192.0.2.8"}
    assert (await app.ask("/enter", form={"token": TOKEN}, headers=others)).status == 200
    assert (await app.ask("/")).status == 200
    app.source = "10.0.0.3"
    assert (await app.ask("/")).status == 403


# -- where it listens ------------------------------------------------------------------------------


def token_file(tmp_path: Path, text: str = TOKEN, mode: int = 0o600) -> str:
    path = tmp_path / "token"
    path.write_text(text + "\n")
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_beyond_loopback_it_listens_with_token_and_tls_or_behind_a_proxy(
    held: ExitStack, tmp_path: Path, host: str
) -> None:
    token, tls = {"token_file": token_file(tmp_path)}, {"tls_cert": "c", "tls_key": "k"}
    may = listening._may_listen
    for some in ({}, token, tls):
        with pytest.raises(UsageError, match="can be reached from other machines"):
            may(host, Options(**some), TOKEN if some is token else "")
    may(host, Options(**token, **tls, names=("loops.example.org",)), TOKEN)
    may(host, Options(proxy="https://loops.example.org"), "")
    for local in ("127.0.0.1", "::1", "127.8.8.8"):
        may(local, Options(), "")


def test_a_wildcard_needs_the_names_under_which_it_is_reached(held: ExitStack) -> None:
    options = Options(tls_cert="c", tls_key="k")
    with pytest.raises(UsageError, match="--name"):
        listening._may_listen("0.0.0.0", options, TOKEN)
    named = options._replace(names=("loops.example.org",))
    listening._may_listen("0.0.0.0", named, TOKEN)
    assert listening._origins(named, "0.0.0.0", 443) == ("https://loops.example.org",)


def test_a_link_leads_to_where_it_listens(
    held: ExitStack, environment: dict[str, str], tmp_path: Path
) -> None:
    """Of the names for this machine only the one that it listens on answers: here IPv6 alone."""
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("127.0.0.2", "127.0.0.2")):
        origins = listening._origins(Options(), host, 8420)
        assert origins[0] == f"http://{shown}:8420"
        assert {"http://localhost:8420", f"http://{shown}:8420"} <= set(origins)
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with served(environment, tmp_path, "--host", "::1") as page:
        page.enter()
        assert page.host == "::1"
        assert page.ask("/")[0] == 200


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("short", 0o600, "at least 20"),
        ("two words of it, long enough", 0o600, "one word"),
        (TOKEN, 0o644, "others can read"),
    ],
)
def test_a_token_that_is_no_secret_is_refused(
    tmp_path: Path, text: str, mode: int, why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        entering.read_token(token_file(tmp_path, text, mode))
    assert entering.read_token(token_file(tmp_path)) == TOKEN


def test_the_command_refuses_in_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "serve", "--host", "0.0.0.0", "--port", "0"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "can be reached from other machines" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# -- what lies on disk -----------------------------------------------------------------------------


def test_the_secret_and_the_links_are_private(held: ExitStack, tmp_path: Path) -> None:
    keys = Keys()
    keys.secret()
    key = keys.new_link(1)
    for path in Path(keys.directory).rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
        assert key not in path.name
        assert path.is_dir() or key.encode() not in path.read_bytes()


@pytest.mark.parametrize("plant", ["link", "open", "short", "fifo"])
def test_a_planted_secret_is_not_believed(held: ExitStack, tmp_path: Path, plant: str) -> None:
    keys = Keys(str(tmp_path / "page"))
    path = Path(keys.directory, "secret")
    known = tmp_path / "known"
    known.write_bytes(b"x" * 32)
    known.chmod(0o600)
    if plant == "link":
        path.symlink_to(known)
    elif plant == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.write_bytes(b"x" * (32 if plant == "open" else 16))
        path.chmod(0o644 if plant == "open" else 0o600)
    with pytest.raises(UsageError, match="remove it"):
        keys.secret()
    path.unlink()
    assert len(keys.secret()) == 32


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "000012-executor/../x",
        "a" * 5000,
        "\x00",
    ],
)
async def test_no_name_in_an_address_is_a_path(held: ExitStack, tmp_path: Path, name: str) -> None:
    held.enter_context(on_disk(tmp_path, "app", cases(time.time())["running"]))
    app = App(tmp_path)
    await app.enter()
    path = await loop_path(app)
    for tried in (
        f"/loop/{name}",
        f"{path}/output/{name}",
        f"/static/{name}",
        f"/api/v1/loops/{name}",
    ):
        answer = await app.ask(tried)
        assert answer.status == 404, tried
        assert "root:" not in answer.text
    for bad in ("-1", "x", "9" * 30, "1e3"):
        assert (await app.ask(f"{path}/output/000012-executor?after={bad}")).status == 404
    good = await app.ask(f"{path}/output/000012-executor?after=0")
    assert "Reads the grammar" in good.text


async def test_links_planted_in_the_state_directory_lead_nowhere(
    held: ExitStack, tmp_path: Path
) -> None:
    loop = held.enter_context(on_disk(tmp_path, "app", cases(time.time())["running"]))
    state = Path(loop.state_dir)
    secret = tmp_path / "id_rsa"
    secret.write_text("PRIVATE-KEY-OF-A-PERSON\n")
    run, prompt = state / "logs/runs/000012-executor", state / "prompts/000012-executor.md"
    (state / "logs/runs/000013-executor").symlink_to(tmp_path)
    for path in (run / "stdout.log", run / "stderr.log", run / "answer.txt", prompt):
        path.unlink(missing_ok=True)
        path.symlink_to(secret)
    (state / "inbox").mkdir(exist_ok=True)
    (state / "inbox/note.md").symlink_to(secret)
    app = App(tmp_path)
    await app.enter()
    path = await loop_path(app)
    pages = ("", "/iteration/1", "/output/000012-executor", "/output/000013-executor", "/export")
    for tried in (f"{path}{page}" for page in pages):
        assert "PRIVATE-KEY" not in (await app.ask(tried)).text, tried
    (run / "stdout.log").unlink()
    (run / "stdout.log").write_text("an honest line\n")
    assert "an honest line" in (await app.ask(f"{path}/output/000012-executor")).text


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b]0;owned\x07\x1b[31mred\x9b5m\u202erow"


async def test_whatever_agents_write_is_text(held: ExitStack, tmp_path: Path) -> None:
    case = cases(time.time())["blocked"]
    case = case._replace(status=case.status | {"goal": EVIL, "reason": EVIL, "warnings": [EVIL]})
    loop = held.enter_context(on_disk(tmp_path, "app", case))
    state, run = Path(loop.state_dir), Path(loop.state_dir, "logs/runs/000012-executor")
    gate = GATE | {"command": EVIL, "output": EVIL, "items": [EVIL]}
    line = record(12, summary=EVIL, goal_in=EVIL, next_goal=EVIL, error=EVIL, verdict=EVIL,
                  changed_files=[EVIL], gates=[gate], commit=EVIL, agent=EVIL)  # fmt: skip
    import json

    (state / "logs/iterations.jsonl").write_text(json.dumps(line) + "\n")
    for path in (run / "stdout.log", run / "stderr.log", run / "answer.txt"):
        path.write_text(EVIL + "\n")
    (state / "prompts/000012-executor.md").write_text(EVIL)
    (state / "inbox").mkdir(exist_ok=True)
    (state / "inbox/note.md").write_text(EVIL)
    (tmp_path / "app/plan.md").write_text(f"- [ ] {EVIL}\n- [x] {EVIL}\n")
    app = App(tmp_path, control=True)
    await app.enter()
    path = await loop_path(app)
    pages = (
        "",
        "/history",
        "/iteration/12",
        "/output/000012-executor",
        "/plots",
        "/settings",
        "/export",
    )
    for tried in ("/", *(f"{path}{page}" for page in pages)):
        text = (await app.ask(tried)).text
        for bad in ("<script>alert", "<img src=x", "\x1b", "\x07", "\x9b", "\u202e"):
            assert bad not in text, (tried, bad)
    form = {"verb": "steer", "text": EVIL, "csrf": (await app.ask(path)).csrf}
    assert "<script>alert" not in (await app.ask(f"{path}/steer", form=form)).text
    shown = await app.ask(f"{path}/iteration/12")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown.text


async def test_a_state_directory_that_vanishes_is_told(held: ExitStack, tmp_path: Path) -> None:
    import shutil

    loop = held.enter_context(on_disk(tmp_path, "app", cases(time.time())["running"]))
    app = App(tmp_path)
    await app.enter()
    path = await loop_path(app)
    assert (await app.ask(path)).status == 200
    shutil.rmtree(loop.state_dir)
    answer = await app.ask(path)
    assert answer.status == 200
    assert "is gone" in answer.words
    assert (await app.ask("/")).status == 200


# -- connections -----------------------------------------------------------------------------------


@pytest.fixture
def page(environment: dict[str, str], tmp_path: Path, held: ExitStack) -> Iterator[Page]:
    loop = held.enter_context(on_disk(tmp_path, "app", cases(time.time())["running"]))
    big = Path(loop.state_dir, "logs/runs/000012-executor/stdout.log")
    big.write_text("a line of output that is long enough to fill a buffer\n" * 200_000)
    with served(environment, tmp_path) as one:
        one.enter()
        yield one


def closed(sock: socket.socket) -> bool:
    """Whether the other end has closed; waits for it."""
    sock.settimeout(PATIENCE)
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_huge_headers_are_refused(page: Page) -> None:
    with page.connect() as sock:
        try:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"a" * 200_000)
            data = sock.recv(65536)
        except OSError:
            data = b""
        assert data == b"" or data.startswith(b"HTTP/1.1 4")
    assert page.ask("/").status == 200


def test_a_huge_body_is_refused(page: Page) -> None:
    answer = page.ask("/enter", {"token": "x" * 2_000_000})
    assert answer.status == 413
    assert page.ask("/enter", {"token": "x"}).status == 403


@pytest.mark.slow
def test_half_a_request_is_ended_and_many_keep_nobody_out(page: Page) -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        half = [stack.enter_context(page.connect()) for _ in range(MOST_CONNECTIONS + 200)]
        for sock in half:
            try:
                sock.sendall(b"GET / HTTP/1.1\r\nHost:")
            except OSError:
                pass  # that one was dropped already
        assert page.ask("/").status == 200, "they keep others out"
        descriptors = len(os.listdir(f"/proc/{page.process.pid}/fd"))
        assert descriptors < MOST_CONNECTIONS + 50
        for sock in half:
            assert closed(sock)
    assert time.monotonic() - began < ASK_SEC + PATIENCE / 2
    wait_until(lambda: len(os.listdir(f"/proc/{page.process.pid}/fd")) < 40, "descriptors to go")


@pytest.mark.slow
def test_a_slow_dribble_buys_no_time(page: Page) -> None:
    with page.connect() as sock:
        began = time.monotonic()
        try:
            while time.monotonic() - began < PATIENCE:
                sock.sendall(b"G" if time.monotonic() - began < 0.1 else b"E")
                time.sleep(0.2)
        except OSError:
            pass
        assert time.monotonic() - began < ASK_SEC * 2


@pytest.mark.slow
def test_who_does_not_read_is_dropped_and_others_go_on(page: Page) -> None:
    path = page.ask("/api/v1/loops").json()["loops"][0]["id"]
    request = (
        f"GET /api/v1/loops/{path}/output/000012-executor?after=0 HTTP/1.1\r\n"
        f"Host: {page.host}:{page.port}\r\nCookie: {page.cookie}\r\n\r\n"
    ).encode()
    with ExitStack() as stack:
        slow = []
        for _ in range(5):
            sock = socket.socket()
            stack.enter_context(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(PATIENCE)
            sock.connect((page.host, page.port))
            sock.sendall(request * 20)
            slow.append(sock)
        assert page.ask("/").status == 200
        assert page.ask(f"/loop/{path}").status == 200
        wait_until(
            lambda: len(os.listdir(f"/proc/{page.process.pid}/fd")) < 20,
            "the slow ones to be dropped",
        )
        for sock in slow:
            assert closed(sock)


class Wire:
    """A transport, and a loop whose time does not pass by itself."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Any, list[str]]] = []
        self.aborted = False

    def get_extra_info(self, _name: str) -> None:
        return None

    def time(self) -> float:
        return 0.0

    def call_later(self, sec: float, what: Any) -> Any:
        state: list[str] = []
        self.timers.append((sec, what, state))
        return SimpleNamespace(cancel=lambda: state.append("cancelled"))

    def due(self, sec: float) -> list[Any]:
        return [what for length, what, state in self.timers if length == sec and not state]

    def abort(self) -> None:
        self.aborted = True


async def test_a_reader_has_so_long_to_take_what_is_sent(held: ExitStack, tmp_path: Path) -> None:
    """Also where the kernel does not end such a connection by itself."""
    wire: Any = Wire()
    config = bounded_server._config(App(tmp_path).gate)
    one = BoundedProtocol(config, ServerState(), {}, _loop=wire)
    one.connection_made(wire)
    assert wire.due(TAKE_SEC) == []
    one.pause_writing()
    one.resume_writing()
    assert wire.due(TAKE_SEC) == [], "who has caught up is not dropped"
    one.pause_writing()
    (drop,) = wire.due(TAKE_SEC)
    drop()
    assert wire.aborted


def test_tls_from_files_of_ones_own(
    environment: dict[str, str], tmp_path: Path, held: ExitStack
) -> None:
    certificate.make(tmp_path, "localhost")
    flags = ("--host", "0.0.0.0", "--tls-cert", "cert.pem", "--tls-key", "key.pem", "--name", "localhost",
             "--token-file", token_file(tmp_path))  # fmt: skip
    with served(environment, tmp_path, *flags) as page:
        assert page.origin == f"https://localhost:{page.port}"
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        with (
            socket.create_connection(("127.0.0.1", page.port), timeout=PATIENCE) as bare,
            context.wrap_socket(bare, server_hostname="localhost") as sock,
        ):
            sock.sendall(
                f"GET {page.link.removeprefix(page.origin)} HTTP/1.1\r\nHost: localhost:{page.port}\r\n\r\n".encode()
            )
            assert b"Secure" in sock.recv(65536)
        with socket.create_connection(("127.0.0.1", page.port), timeout=PATIENCE) as bare:
            bare.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")  # plain HTTP is no way in
            assert b"200" not in bare.recv(4096)
