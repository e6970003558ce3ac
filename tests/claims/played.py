"""docs/tutorial.md as a reader types it: every block, with the real codex before a scripted model.

A fence `sh` is a file of commands, run in the home. In a fence `console` a line after `$ ` is a command
and what stands below it is what it prints: `…` alone on a line stands for any lines, and within a line
for any text; times, sizes, commits and the like are compared as such. What a person answers stands
behind the question. `<!-- second terminal -->` is before a block that is typed while the block before
is still at work.

`python -m tests.claims.played` prints what every command printed, to write the page from."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.claims.documents import ROOT
from tests.support.agent_runs import Scene, codex_config, real_program
from tests.support.model_server import Ask, ModelServer, Step, answer, say, shell
from tests.support.program import PYTHON

PAGE = ROOT / "docs" / "tutorial.md"
SECOND = "<!-- second terminal -->"
_FENCE = re.compile(r"(<!-- second terminal -->\n)?```(sh|console)\n(.*?)```", re.S)
_ASKS = re.compile(r"^(.*\?(?: \[y/N\])?) (\w.*)$")

PLAN = """\
# Plan

- [ ] Add receipt(prices): a line for each price, then the total
      check: python3 -m unittest -q test_receipt
"""
REVISED = f"""{PLAN}\
- [ ] Say in README.md how it is used
      check: python3 -m doctest README.md
"""
OWN_PLAN = ".codex-self-iter/plan.md"
TESTS = "python3 -B -m unittest -q"
RECEIPT = '''\
cat >> basket.py <<'END'


def receipt(prices):
    """A line for each price, then the total."""
    return "\\n".join(f"{amount:8.2f}" for amount in [*prices, total(prices)])
END
cat > test_receipt.py <<'END'
import unittest

from basket import receipt


class TestReceipt(unittest.TestCase):
    def test_it_ends_with_the_total(self):
        self.assertEqual(receipt([1, 2]).split(), ["1.00", "2.00", "3.00"])
END
'''
README = """\
cat > README.md <<'END'
# Basket

    >>> from basket import receipt
    >>> print(receipt([1, 2]))
        1.00
        2.00
        3.00
END
"""


def block(summary: str, next_goal: str, evidence: str, *, completed: bool = False) -> Step:
    fields = {"summary": summary, "next_goal": next_goal, "stop": False, "reason": ""}
    return answer({**fields, "evidence": [evidence], "completed": completed})


def script(second: threading.Event) -> Iterator[Step]:
    """What the model says on the page, in order; it waits where a second terminal is used."""
    yield shell(f"cat basket.py test_basket.py; {TESTS}")
    yield shell(
        f"printf '%s\\n' '# Plan' '' '- [x] Round the total to cents instead of cutting it off'"
        f" '      check: {TESTS}' > {OWN_PLAN}"
        " && sed -i 's|sum(prices).*|round(sum(prices) * (100 - discount) / 100, 2)|' basket.py"
        f" && {TESTS}"
    )
    yield block("The total is rounded to cents.", "", f"{TESTS}: OK", completed=True)
    yield shell("cat basket.py")
    yield say(PLAN)
    yield say(REVISED)
    second.wait(90)
    yield shell(f"{RECEIPT}{TESTS} && sed -i 's/\\[ \\] Add/[x] Add/' {OWN_PLAN}")
    yield block("Added receipt(prices).", "Say in README.md how it is used.", f"{TESTS}: OK")
    yield shell(
        f"{README}python3 -m doctest README.md && sed -i 's/\\[ \\] Say/[x] Say/' {OWN_PLAN}"
    )
    yield block(
        "README.md says how it is used.", "", "python3 -m doctest README.md: OK", completed=True
    )


@dataclass
class Typed:
    """A command of the page, with what stands below it."""

    command: str
    shown: list[str] = field(default_factory=list)

    def answers(self) -> list[tuple[str, str]]:
        """Questions and what is typed behind them."""
        found = [_ASKS.match(line) for line in self.shown]
        return [(one[1], one[2]) for one in found if one]


@dataclass
class Block:
    kind: str
    text: str
    second: bool

    def typed(self) -> list[Typed]:
        found: list[Typed] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append(Typed(line[2:]))
            else:
                found[-1].shown.append(line)
        return found


def blocks(page: str) -> list[Block]:
    return [Block(kind, text, bool(mark)) for mark, kind, text in _FENCE.findall(page)]


_SAME = [
    (re.compile(r"\d{4}-\d\d-\d\d"), "DAY"),
    (re.compile(r"\d\d:\d\d:\d\d(\+00:00)?"), "TIME"),
    (re.compile(r"\b[0-9.]+ (ms|s|min|h|bytes|[kMG]i?B)\b"), r"N \1"),
    (re.compile(r"[0-9.]+ (s|min)\b"), r"N \1"),
    (re.compile(r"\b[0-9a-f]{7,40}\b"), "COMMIT"),
    (re.compile(r"\bpid \d+"), "pid N"),
    (re.compile(r"seconds=[0-9.]+"), "seconds=N"),
    (re.compile(r"before-rewind-\w+"), "before-rewind-WHEN"),
    (re.compile(r" {2,}"), "  "),
]


def plain(line: str) -> str:
    """Without what differs from one run to the next."""
    for pattern, word in _SAME:
        line = pattern.sub(word, line)
    return line.rstrip()


def fits(shown: list[str], printed: list[str]) -> bool:
    """Whether what a page shows is what was printed."""
    pattern = ""
    for line in shown:
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(plain(part)) for part in line.split("…")) + "\n"
    text = "".join(f"{plain(line)}\n" for line in printed)
    return re.fullmatch(pattern, text) is not None


class Reader:
    """Who follows the page: a home with codex in it, and a shell."""

    def __init__(self, base: Path, codex: str) -> None:
        self.scene = Scene(base)
        self.second = threading.Event()
        self._steps = script(self.second)
        self.server = ModelServer(self._step)
        codex_config(codex, self.scene, self.server.url)
        self.place = self.scene.home
        programs = base / "programs"
        programs.mkdir()
        for name, target in (
            ("codex", codex),
            ("codex-self-iter", f"{Path(PYTHON).parent}/codex-self-iter"),
        ):
            (programs / name).symlink_to(target)
        self.scene.environment |= {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "NO_COLOR": "1",
            "TERM": "dumb",
        }

    def _step(self, _ask: Ask) -> Step:
        return next(self._steps)

    def left(self) -> list[Step]:
        """What the model has not been asked for."""
        return list(self._steps)

    def script(self, text: str) -> None:
        """A fence of commands."""
        subprocess.run(
            ["sh", "-e", "-c", text], cwd=self.place, env=self.scene.environment, check=True
        )
        self.place = self.scene.home / "shop"

    def type(self, typed: Typed) -> list[str]:
        """What a command printed, without this machine's directories."""
        run = self._in_a_terminal if typed.answers() else self._alone
        text = run(typed).replace(str(self.scene.home), "/home/ada")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r\n", "\n")).splitlines()

    def _alone(self, typed: Typed) -> str:
        done = subprocess.run(
            ["sh", "-c", typed.command], cwd=self.place, env=self.scene.environment, timeout=100,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return done.stdout

    def _in_a_terminal(self, typed: Typed) -> str:
        screen, terminal = os.openpty()
        shown, answers = b"", typed.answers()
        with subprocess.Popen(
            ["sh", "-c", typed.command], cwd=self.place, env=self.scene.environment,
            stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        ) as process:  # fmt: skip
            os.close(terminal)
            with contextlib.suppress(OSError):  # the other side is closed at the end
                seen = 0
                while part := os.read(screen, 65536):
                    shown += part
                    if answers and answers[0][0].encode() in shown[seen:]:
                        seen = len(shown)
                        os.write(screen, answers.pop(0)[1].encode() + b"\n")
            process.wait(100)
        os.close(screen)
        return shown.decode()


def play(reader: Reader, page: str) -> Iterator[tuple[Typed, list[str]]]:
    """Type the page; each command with what it printed, in its order."""
    todo = blocks(page)
    while todo:
        now, meanwhile = todo.pop(0), list[Block]()
        while todo and todo[0].second:
            meanwhile.append(todo.pop(0))
        if now.kind == "sh":
            reader.script(now.text)
            continue
        if not meanwhile:
            yield from ((typed, reader.type(typed)) for typed in now.typed())
            continue
        (typed,), printed = now.typed(), list[str]()
        asked = len(reader.server.main_asks)
        first = threading.Thread(target=_into, args=(printed, reader, typed))
        first.start()
        try:
            for _ in range(600):  # until the agent has asked its model
                if len(reader.server.main_asks) > asked or not first.is_alive():
                    break
                first.join(0.1)
            for block in meanwhile:
                yield from ((other, reader.type(other)) for other in block.typed())
        finally:
            reader.second.set()
            first.join()
        yield typed, printed


def _into(printed: list[str], reader: Reader, typed: Typed) -> None:
    printed += reader.type(typed)


if __name__ == "__main__":
    found = real_program("codex")
    assert found, "run scripts/install-real-agents.sh codex"
    # not below the system's temporary directory: see tests/support/agent_runs.py
    with tempfile.TemporaryDirectory(dir=Path.home()) as directory:
        reader = Reader(Path(directory), found)
        with reader.server:
            for typed, printed in play(reader, PAGE.read_text(encoding="utf-8")):
                mark = "" if fits(typed.shown, printed) else "   <<< differs"
                sys.stdout.write("\n".join([f"$ {typed.command}{mark}", *printed, ""]) + "\n")
