"""The page in a real browser: a loop from its start to its end, on a phone, without script, by keys."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, expect, sync_playwright
from playwright.sync_api import Page as Tab

from tests.support.agent_runs import real_agents_directory
from tests.support.harness import PATIENCE, Workspace
from tests.support.web import Page, served

pytestmark = pytest.mark.slow
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
AXE = Path(real_agents_directory()) / "axe/node_modules/axe-core/axe.min.js"
expect.set_options(timeout=PATIENCE * 1000)


def need(path: str | Path, how: str) -> None:
    """A program that tests need: without it they are skipped, or fail where they must not be."""
    if not Path(path).exists():
        if os.environ.get("CODEX_SELF_ITER_REQUIRE_REAL_AGENTS") == "1":
            pytest.fail(f"{path} is not there: {how}")
        pytest.skip(f"{path} is not there: {how}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need(CHROMIUM, "apt-get install chromium")
    with sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path, "loop")
    workspace.config()
    yield workspace
    workspace.close()


@pytest.fixture
def page(ws: Workspace) -> Iterator[Page]:
    with served(ws.environment, ws.root, "--control") as one:
        yield one


def opened(browser: Browser, page: Page, **how: Any) -> Tab:
    """A device that came in by the link, on the page of all loops."""
    context = browser.new_context(**how)
    context.set_default_timeout(PATIENCE * 1000)
    if page.cookie:
        name, _, value = page.cookie.partition("=")
        context.add_cookies([{"name": name, "value": value, "url": page.origin}])
        tab = context.new_page()
        tab.goto(page.origin)
    else:
        tab = context.new_page()
        tab.goto(page.link)
        tab.wait_for_url(f"{page.origin}/")
        (cookie,) = context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        page.cookie = f"{cookie['name']}={cookie['value']}"
    return tab


def step(number: int) -> dict[str, Any]:
    """One run that waits until the test lets it end."""
    return {
        "say": f"works on step {number}\n", "append": {"work.txt": f"{number}\n"}, "sleep": 600,
        "until": f"end-{number}", "block": {"summary": f"step {number} is done"},
    }  # fmt: skip


def end(ws: Workspace, number: int) -> None:
    (ws.control / f"end-{number}").touch()


def test_a_loop_from_its_start_to_its_proven_end(
    browser: Browser, page: Page, ws: Workspace
) -> None:
    last = {
        "say": "all is done\n",
        "append": {"work.txt": "x\n"},
        "block": {"completed": True, "summary": "done"},
    }
    ws.script(step(1), step(2), step(3), last)
    ws.config('[verify]\ncommands = ["test -s work.txt"]\n')
    tab = opened(browser, page)
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    expect(tab.get_by_text("No loop of this user is known")).to_be_visible()
    supervisor = ws.start()
    ws.wait_runs(1)
    tab.get_by_role("link", name="loop", exact=True).click()  # it came by itself
    expect(tab.locator("#link")).to_have_text("live")
    expect(tab.locator("#output")).to_contain_text("works on step 1")

    tab.get_by_label("A message for the next prompt").fill("Mind the <edges>")
    tab.get_by_role("button", name="Send", exact=True).click()
    expect(tab.get_by_role("status")).to_contain_text("puts it into the next prompt")
    tab.get_by_role("link", name="Back").click()
    expect(tab.locator("#messages")).to_contain_text("Mind the <edges>")
    end(ws, 1)
    expect(tab.locator("#history")).to_contain_text("step 1 is done")
    expect(tab.locator("#output")).to_contain_text("works on step 2")
    assert "Mind the <edges>" in ws.prompt(2)

    tab.get_by_role("button", name="Pause after this iteration").click()
    expect(tab.get_by_role("status")).to_contain_text("pauses when this iteration ends")
    tab.get_by_role("link", name="Back").click()
    end(ws, 2)
    expect(tab.locator("#now .state")).to_have_text("paused")
    tab.get_by_role("button", name="Resume").click()
    expect(tab.get_by_role("status")).to_contain_text("goes on")
    tab.get_by_role("link", name="Back").click()
    expect(tab.locator("#output")).to_contain_text("works on step 3")

    end(ws, 3)
    expect(tab.locator("#now .state")).to_have_text("completed")
    expect(tab.locator("#proof")).to_contain_text("passed")
    assert ws.ended(supervisor) == 0
    tab.get_by_role("link", name="What iteration 4 changed").click()
    expect(tab.get_by_label("diff")).to_contain_text("work.txt")
    key = page.ask("/api/v1/loops").json()["loops"][0]["id"]
    diff = page.ask(f"/api/v1/loops/{key}/iterations/4/diff").json()
    assert "work.txt" in diff["diff"]
    assert errors == []
    tab.context.close()


def test_stop_now_ends_the_agent(browser: Browser, page: Page, ws: Workspace) -> None:
    ws.script(step(1))
    supervisor = ws.start()
    ws.wait_runs(1)
    tab = opened(browser, page)
    tab.get_by_role("link", name="loop", exact=True).click()
    expect(tab.get_by_role("button", name="Stop now")).to_be_hidden()
    tab.get_by_text("Stop now…").click()
    tab.get_by_role("button", name="Stop now").click()
    expect(tab.get_by_role("status")).to_contain_text("ends the running agent and stops now")
    assert ws.ended(supervisor) == 0
    tab.get_by_role("link", name="Back").click()
    expect(tab.locator("#now .state")).to_have_text("stopped")
    tab.context.close()


def test_an_open_page_goes_on_over_restarts_and_lost_connections(
    browser: Browser, ws: Workspace
) -> None:
    ws.script(step(1), step(2), step(3))
    ws.start()
    ws.wait_runs(1)
    with served(ws.environment, ws.root) as page:
        tab = opened(browser, page)
        tab.get_by_role("link", name="loop", exact=True).click()
        expect(tab.locator("#output")).to_contain_text("works on step 1")
        tab.context.set_offline(True)
        tab.evaluate("dispatchEvent(new Event('pagehide'))")
        end(ws, 1)
        ws.wait_runs(2)
        tab.context.set_offline(False)
        tab.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
        expect(tab.locator("#output")).to_contain_text("works on step 2")
        port = page.port
    expect(tab.locator("#link")).to_contain_text("not connected")
    end(ws, 2)
    ws.wait_runs(3)
    with served(ws.environment, ws.root, "--port", str(port)):
        expect(tab.locator("#link")).to_have_text("live")
        expect(tab.locator("#output")).to_contain_text("works on step 3")
        expect(tab.locator("#history")).to_contain_text("step 2 is done")
        for number in (1, 2, 3):  # nothing twice
            assert tab.locator("#output").inner_text().count(f"works on step {number}") == 1
        ws.cli("stop", "--wait")
        expect(tab.locator("#now .state")).to_have_text("stopped")
        end(ws, 3)
        ws.cli("run", "--dry-run")
        ws.start("--clear-stop")
        expect(tab.locator("#now .state")).to_have_text("running")
        tab.context.close()
        ws.cli("stop", "--wait")


def test_an_open_page_says_that_the_supervisor_is_gone_and_goes_on_with_the_next(
    browser: Browser, page: Page, ws: Workspace
) -> None:
    ws.script(step(1), step(2))
    supervisor = ws.start()
    ws.wait_runs(1)
    tab = opened(browser, page)
    tab.get_by_role("link", name="loop", exact=True).click()
    expect(tab.locator("#output")).to_contain_text("works on step 1")
    supervisor.kill()
    supervisor.wait()
    expect(tab.locator("#now .state")).to_have_text("orphan")
    expect(tab.locator("#now")).to_contain_text("codex-self-iter run")
    ws.start()
    expect(tab.locator("#now .state")).to_have_text("running")
    end(ws, 1)
    expect(tab.locator("#history")).to_contain_text("step 1 is done")
    expect(tab.locator("#output")).to_contain_text("works on step 2")
    assert tab.locator("#output").inner_text().count("works on step 1") == 1
    tab.context.close()
    ws.cli("stop", "--wait")


@pytest.fixture
def ended(ws: Workspace) -> Workspace:
    """A loop that has ended, with three iterations and a failed gate."""
    block = {"summary": "did <b>bold</b> things", "completed": True}
    ws.script(
        {
            "say": "\x1b[31mred\x1b[0m <script>alert(1)</script>\n",
            "append": {"work.txt": "x\n"},
            "block": block,
        }
    )
    ws.config('[verify]\ncommands = ["test $(wc -l < work.txt) -ge 3"]\n')
    assert ws.run() == 0
    return ws


def overflow(tab: Tab) -> int:
    """By how many pixels the page is wider than the screen."""
    return int(
        tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    )


def pages(tab: Tab, page: Page) -> list[str]:
    """Every kind of page of the loop."""
    tab.goto(page.origin)
    loop = tab.get_by_role("link", name="loop", exact=True).get_attribute("href")
    assert loop
    run = "output/000001-executor"
    return [
        "/",
        *(f"{loop}{p}" for p in ("", "/history", "/iteration/1", "/plots", "/settings", f"/{run}")),
    ]


def test_on_a_phone_everything_fits(browser: Browser, page: Page, ended: Workspace) -> None:
    size = {"width": 390, "height": 844}
    tab = opened(
        browser, page, viewport=size, has_touch=True, is_mobile=True, device_scale_factor=2
    )
    for path in pages(tab, page):
        tab.goto(page.origin + path)
        assert overflow(tab) <= 0, path
    tab.goto(page.origin + pages(tab, page)[1])
    for button in tab.get_by_role("button").all():
        box = button.bounding_box()
        assert box is None or box["height"] >= 36, button  # a finger finds it
    tab.context.close()


def test_without_script_all_can_be_read_and_steered(
    browser: Browser, page: Page, ended: Workspace
) -> None:
    tab = opened(browser, page, java_script_enabled=False)
    assert tab.locator("head noscript").count() == 1
    tab.get_by_role("link", name="loop", exact=True).click()
    expect(tab.locator("#now .state")).to_have_text("completed")
    expect(tab.locator("#output")).to_contain_text("<script>alert(1)</script>")
    expect(tab.locator("#history")).to_contain_text("did <b>bold</b> things")
    tab.get_by_role("button", name="Pause after this iteration").click()
    expect(tab.get_by_role("status")).to_contain_text("the next start will pause at once")
    tab.get_by_role("link", name="Back").click()
    expect(tab.locator("#now")).to_contain_text("a PAUSE file is there")
    tab.get_by_role("button", name="Resume").click()
    assert not (ended.state / "PAUSE").exists()
    tab.context.close()


def test_the_title_of_a_tab_left_open_says_what_needs_you(
    browser: Browser, page: Page, ended: Workspace
) -> None:
    every = opened(browser, page)
    one = every.context.new_page()
    one.goto(page.origin + pages(every, page)[1])
    every.goto(page.origin)
    assert every.title() == "Loops · codex-self-iter"
    assert one.title() == "loop · codex-self-iter"
    status = ended.state / "status.json"
    changed = json.loads(status.read_text()) | {"state": "blocked", "reason": "No key"}
    status.write_text(json.dumps(changed))
    expect(every).to_have_title("1 needs you · codex-self-iter")
    expect(one).to_have_title("loop needs you · codex-self-iter")
    status.write_text(json.dumps(changed | {"state": "completed"}))
    expect(every).to_have_title("Loops · codex-self-iter")
    expect(one).to_have_title("loop · codex-self-iter")


def test_by_keys_alone(browser: Browser, page: Page, ended: Workspace) -> None:
    tab = opened(browser, page)
    tab.keyboard.press("Tab")
    expect(tab.get_by_text("Skip to the content")).to_be_focused()
    tab.keyboard.press("j")
    expect(tab.get_by_role("link", name="loop", exact=True)).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator("#now .state")).to_have_text("completed")
    reached: set[str] = set()
    for _ in range(80):
        tab.keyboard.press("Tab")
        reached.add(
            str(
                tab.evaluate("document.activeElement.innerText || document.activeElement.id")
            ).strip()
        )
    for name in ("Iterations", "Plots", "text", "Send", "Resume", "Stop now…", "Leave"):
        assert name in reached, (name, reached)
    tab.get_by_label("A message for the next prompt").focus()
    tab.keyboard.type("just a u and a j")  # what is typed is no key of the page
    expect(tab.get_by_label("A message for the next prompt")).to_have_value("just a u and a j")
    tab.get_by_role("link", name="Plots").focus()
    tab.keyboard.press("u")
    tab.wait_for_url(f"{page.origin}/")
    tab.context.close()


def test_whoever_scrolled_up_is_not_pulled_down(
    browser: Browser, page: Page, ws: Workspace
) -> None:
    ws.script({**step(1), "say": "".join(f"line {n}\n" for n in range(500))}, step(2))
    ws.start()
    ws.wait_runs(1)
    tab = opened(browser, page)
    tab.get_by_role("link", name="loop", exact=True).click()
    output = tab.locator("#output")
    expect(output).to_contain_text("line 499")
    at_end = "(o) => o.scrollHeight - o.scrollTop - o.clientHeight < 40"
    assert output.evaluate(at_end)
    expect(tab.locator("#newer")).to_be_hidden()
    output.evaluate("(o) => { o.scrollTop = 0; }")
    end(ws, 1)
    expect(tab.locator("#newer")).to_be_visible()
    assert output.evaluate("(o) => o.scrollTop") == 0
    tab.locator("#newer").click()
    assert output.evaluate(at_end)
    tab.context.close()
    ws.cli("stop", "--wait")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out_by_how_it_looks(
    browser: Browser, page: Page, ended: Workspace, scheme: Any
) -> None:
    need(AXE, "scripts/install-real-agents.sh axe")
    tab = opened(browser, page, color_scheme=scheme)
    paper = set()
    for path in pages(tab, page):
        tab.goto(page.origin + path)
        paper.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert _serious(tab) == [], path
    tab.context.clear_cookies()
    tab.goto(page.origin)
    assert _serious(tab) == []
    (colour,) = paper
    assert (colour == "rgb(22, 23, 26)") is (scheme == "dark")
    tab.context.close()


def _serious(tab: Tab) -> list[str]:
    tab.evaluate(AXE.read_text())
    found = tab.evaluate("axe.run()")
    return [
        f"{one['id']}: {node['html']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def test_negative_control_axe_finds_a_fault(browser: Browser, page: Page) -> None:
    need(AXE, "scripts/install-real-agents.sh axe")
    tab = opened(browser, page)
    tab.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=/static/icon.svg><input>')"
    )
    assert _serious(tab)
    tab.context.close()


def test_the_policy_runs_no_planted_script(browser: Browser, page: Page, ended: Workspace) -> None:
    """Negative control for escaping: even what got into the page would not run."""
    tab = opened(browser, page)
    planted = (
        '<img src=x onerror="document.title=1"><a id=a href="javascript:document.title=2">x</a>'
    )
    tab.evaluate("(html) => document.body.insertAdjacentHTML('beforeend', html)", planted)
    tab.evaluate(
        "const s = document.createElement('script'); s.textContent = 'document.title=3';"
        "document.body.append(s);"
    )
    tab.locator("#a").click()
    tab.wait_for_timeout(300)
    assert tab.title().endswith("codex-self-iter")
    tab.context.close()


def test_a_server_at_another_port_is_sent_the_cookie_and_at_another_address_is_not(
    browser: Browser, page: Page
) -> None:
    """Not a wish: what docs/screens.md warns of, and what helps."""
    sent: dict[str, str] = {}

    class Curious(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent[self.headers["Host"].partition(":")[0]] = self.headers.get("Cookie", "")
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    tab = opened(browser, page)
    with ThreadingHTTPServer(("0.0.0.0", 0), Curious) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for host in ("127.0.0.1", "127.0.0.2"):
            with suppress(Error):  # 204: there is nothing to show
                tab.goto(f"http://{host}:{server.server_port}/")
        server.shutdown()
    assert "codex-self-iter" in sent["127.0.0.1"]
    assert sent["127.0.0.2"] == ""
    tab.context.close()


def test_an_export_needs_nothing_beside_it(
    browser: Browser, ended: Workspace, tmp_path: Path
) -> None:
    done = ended.cli("export", "-o", str(tmp_path / "report.html"))
    assert done.returncode == 0, done.stderr
    context: BrowserContext = browser.new_context()
    tab = context.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    shutil.rmtree(ended.state)
    tab.goto((tmp_path / "report.html").as_uri())
    expect(tab.get_by_role("heading", name="loop", exact=True)).to_be_visible()
    expect(tab.get_by_role("heading", name="Iteration 1:")).to_be_visible()
    assert tab.locator("svg").count() >= 2
    assert tab.evaluate("getComputedStyle(document.querySelector('.plot')).borderRadius") == "6px"
    tab.get_by_role("link", name="iteration 2").first.click()
    assert tab.url.endswith("#iteration-2")
    assert {url.partition("#")[0] for url in asked} == {(tmp_path / "report.html").as_uri()}
    context.close()
