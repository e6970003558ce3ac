"""The pictures of the README: five loops that really run, seen on the board and on the page.

    scripts/capture-screens.sh [DIRECTORY]

Supervisors, agents, git and gates are real; what the scripted agent says was written beforehand."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.board_pilot import at_board
from tests.support.control_steps import LIMITED
from tests.support.harness import Workspace, wait_until
from tests.support.web import served

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SIZE = (104, 18)
PLAN = """# Plan

- [x] Read prices with their currency
- [x] Round totals to cents
- [ ] Refuse a discount above 100 %
- [ ] Print a receipt
"""


def does(summary: str, **more: Any) -> dict[str, Any]:
    """One run that changes something and says what."""
    block = {"summary": summary, "next_goal": more.pop("next", "the next item of the plan")}
    return {
        "append": {"notes.txt": summary + "\n"},
        "block": block | more.pop("answer", {}),
        **more,
    }


def shop(ws: Workspace) -> None:
    """Works on the third item."""
    ws.plan(PLAN)
    ws.git("commit", "-qam", "plan")
    ws.config('[verify]\ncommands = ["test -s notes.txt"]\n')
    ws.script(
        does("Prices are read with their currency", say="reads basket.py\n"),
        does("Totals are rounded to cents", next="Refuse a discount above 100 %"),
        {
            "say": "reads basket.py and its tests\nruns: python3 -m unittest -q\n"
            "FAIL: test_discount_above_100 (test_basket.TestTotal)\nedits basket.py\n",
            "sleep": 600,
            "until": "never",
        },
    )
    ws.start()
    ws.wait_runs(3)


def blog(ws: Workspace) -> None:
    """Proven complete."""
    ws.config('[verify]\ncommands = ["test -s notes.txt"]\n')
    ws.plan("# Plan\n\n- [x] A title for every page\n- [x] No dead links\n")
    done = {"completed": True, "reason": "no page is without a title, no link is dead"}
    ws.script(does("Every page has a title", answer=done))
    assert ws.ended(ws.start()) == 0


def importer(ws: Workspace) -> None:
    """Its agent wants a decision."""
    stop = {
        "stop": True,
        "reason": "the old and the new file contradict each other: which one counts?",
    }
    ws.config('[verify]\ncommands = ["test -e imported"]\n')
    ws.plan("# Plan\n\n- [x] Compare both files\n- [ ] Import the right one\n")
    ws.script(does("Compared both files", answer=stop))
    ws.ended(ws.start())


def parser(ws: Workspace) -> None:
    """In its gates."""
    ws.config('[verify]\ncommands = ["sleep 600"]\n')
    ws.plan("# Plan\n\n- [x] Grammar\n- [x] Tests for it\n")
    ws.script(does("Grammar and tests agree", answer={"completed": True}))
    ws.start()
    wait_until(lambda: ws.status().get("state") == "verifying", "the gates")


def mailer(ws: Workspace) -> None:
    """Waits for the end of a usage limit."""
    ws.config(backoff_base_sec=0)
    ws.script(LIMITED, LIMITED)
    ws.start()
    wait_until(lambda: ws.status().get("state") == "limited", "the limit")


LOOPS = {"shop": shop, "blog": blog, "importer": importer, "parser": parser, "mailer": mailer}


@contextmanager
def running(root: Path) -> Iterator[Workspace]:
    """All loops at once, in one home; one of their workspaces."""
    with ExitStack() as stack:
        places = [Workspace(root, name) for name in LOOPS]
        for ws, begin in zip(places, LOOPS.values(), strict=True):
            stack.callback(ws.close)
            begin(ws)
        yield places[0]
        for process in [process for ws in places for process in ws.supervisors]:
            process.terminate()
            process.wait()


async def board(environment: dict[str, str]) -> str:
    """The board, with the loop that works chosen, as a picture that loads nothing."""
    os.environ |= {"XDG_STATE_HOME": environment["XDG_STATE_HOME"], "HOME": environment["HOME"]}
    async with at_board(SIZE) as seat:
        while seat.board.on.row.name != "shop":
            await seat.press("j")
        await seat.until(lambda text: "FAIL: test_discount" in text)
        picture = seat.board.export_screenshot(title="codex-self-iter top")
    return re.sub(r"@font-face\s*{[^}]*}\s*|<!-- .*? -->\s*", "", picture)


def page(ws: Workspace, path: Path) -> None:
    """The page of all loops."""
    from playwright.sync_api import sync_playwright

    with served(ws.environment, ws.root) as one, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 640})
        tab.goto(one.link)
        tab.wait_for_url(f"{one.origin}/")
        tab.get_by_text("importer").first.wait_for()
        tab.screenshot(path=path)
        browser.close()


def main(directory: Path) -> None:
    """Make both pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="csi-"))
    try:
        with running(root) as ws:
            page(ws, directory / "page.png")
            (directory / "board.svg").write_text(asyncio.run(board(ws.environment)), "utf-8")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
