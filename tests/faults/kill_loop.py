#!/usr/bin/env python3
"""Kill the real program at random moments, start it again, and check from outside that nothing was
lost.

    python -m tests.faults.kill_loop --count 200 --seed 1 --on-orphan adopt

A scripted agent works with short, varied durations and some errors; messages are dropped in
between. Each round kills one victim (supervisor, a stopped supervisor, its process group, the
launcher, a recorder) either after a random time or at the moment at which a chosen file changes,
which hits the gaps between two writes. At the end the loop is stopped in good order, and the files
must tell one story: numbers 1, 2, 3… without gap or repetition, goals handed on, messages delivered
once, all work committed and nothing of the person's, never two agents at once, nothing left
running, no temporary files, nothing in quarantine."""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.harness import Workspace, wait_until

VICTIMS = (
    "supervisor",
    "supervisor",
    "supervisor",
    "stopped",
    "group",
    "launcher",
    "recorder",
    "both",
)
AIMS = (
    "",
    "",
    "runtime.json",
    "status.json",
    "logs/iterations.jsonl",
    "logs/runs",
    "prompts",
    "run.lock",
    "git/owed.json",
    "git/commit.index",
)
LONGEST_SEC = 2.0
RUN_SEC = 0.5
"""Longest run of the scripted agent."""


class Killing:
    """One workspace and everything that is done to it."""

    def __init__(self, root: Path, seed: int, on_orphan: str) -> None:
        self.rng = random.Random(seed)
        self.ws = Workspace(root)
        (self.ws.path / "mine.txt").write_text("half done by a person\n")
        self.ws.config(
            '[git]\ncommit = "supervisor"\n[verify]\ncommands = ["date +%N > gate.txt"]\n'
            "every_iteration = true\n",
            on_orphan=on_orphan,
            max_stagnation=0,
            no_change_gate=False,
            max_consecutive_errors=0,
            kill_grace_sec=0.3,
        )
        self.ws.script(*(self.step() for _ in range(2000)))
        self.on_orphan = on_orphan
        self.sent: list[str] = []
        self.kills: collections.Counter[str] = collections.Counter()
        self.verdicts: list[str] = []
        self.story = ""

    def step(self) -> dict[str, object]:
        """What one agent run does."""
        step: dict[str, object] = {
            "number": True,
            "sleep": round(self.rng.random() ** 3 * RUN_SEC, 3),
        }
        kind = self.rng.random()
        if kind < 0.1:
            step |= {"exit": 3}
        elif kind < 0.2:
            step |= {"raw": "no control block\n"}
        elif kind < 0.6:
            step |= {"append": {"work.txt": "x\n"}}
        if self.rng.random() < 0.1:
            step |= {"spawn": ["double"]}
        return step

    # -- one round ---------------------------------------------------------------------------------

    def round(self) -> None:
        """Start, wait for the moment, kill."""
        process = self.ws.start(start_new_session=True)
        if self.rng.random() < 0.5:
            self.steer()
        if self.rng.random() < 0.8:  # else it may be killed before it has done anything
            wait_until(
                lambda: self.ws.status().get("pid") == process.pid or process.poll() is not None,
                "it to be up",
            )
        victim, aim = self.rng.choice(VICTIMS), self.rng.choice(AIMS)
        self.await_moment(process, aim)
        self.kill(process, victim)
        self.kills[victim] += 1
        if victim in ("launcher", "recorder"):
            # The supervisor must go on by itself: another iteration, then it is killed as well.
            if process.poll() is None:
                self.await_moment(process, self.rng.choice(AIMS))
            else:
                raise AssertionError(
                    f"the supervisor ended when its {victim} was killed:\n{self.ws.log()[-3000:]}"
                )
            self.kill(process, "supervisor")
        process.wait(20)
        if process.returncode != -signal.SIGKILL:
            raise AssertionError(
                f"ended with {process.returncode} before it was killed:\n{self.ws.log()[-3000:]}"
            )
        self.check_journal()

    def steer(self) -> None:
        """Drop a message the way an editor or a script would."""
        token = f"token-{len(self.sent) + 1:04d}."
        inbox = self.ws.state / "inbox"
        if not inbox.is_dir():
            return
        temporary = inbox / ".message"
        temporary.write_text(f"please mind {token}\n")
        temporary.rename(inbox / f"{len(self.sent) + 1:04d}.md")
        self.sent.append(token)

    def await_moment(self, process: subprocess.Popen[bytes], aim: str) -> None:
        """Let a random time pass, or wait until a file changes for the n-th time and a little
        longer."""
        give_up = time.monotonic() + (
            self.rng.random() * LONGEST_SEC if not aim else 2 * LONGEST_SEC
        )
        changes, seen = self.rng.randint(1, 6), self.look(aim)
        while time.monotonic() < give_up and process.poll() is None:
            if not aim:
                time.sleep(0.01)
                continue
            now = self.look(aim)
            if now != seen:
                seen, changes = now, changes - 1
                if changes == 0:
                    time.sleep(self.rng.choice((0.0, 0.0, 0.001, 0.005)))
                    return

    def look(self, aim: str) -> tuple[int, ...]:
        try:
            found = (self.ws.state / aim).stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def kill(self, process: subprocess.Popen[bytes], victim: str) -> None:
        """Kill one victim with SIGKILL; only processes of this workspace."""
        if victim == "stopped":
            process.send_signal(signal.SIGSTOP)
            time.sleep(self.rng.random() * 0.5)
            process.kill()
        elif victim == "group":
            os.killpg(process.pid, signal.SIGKILL)
        elif victim == "supervisor":
            process.kill()
        else:
            for child in self.children(process, victim):
                with contextlib.suppress(psutil.NoSuchProcess):  # a run that has just ended
                    child.kill()
            if victim == "both":
                process.kill()

    def children(self, process: subprocess.Popen[bytes], victim: str) -> list[psutil.Process]:
        """Launcher or recorders of this supervisor."""
        found = []
        try:
            for child in psutil.Process(process.pid).children(recursive=True):
                name = child.name()
                is_launcher = name == "csi-launcher"
                if name.startswith("csi-") and (
                    victim == "both" or is_launcher == (victim == "launcher")
                ):
                    found.append(child)
        except psutil.NoSuchProcess:
            pass
        return found

    # -- what must hold ----------------------------------------------------------------------------

    def lines(self) -> list[dict[str, object]]:
        """All whole lines: every one is JSON. (A torn last one does not count.)"""
        path = self.ws.state / "logs" / "iterations.jsonl"
        whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [json.loads(raw) for raw in whole]

    def check_journal(self) -> None:
        lines = self.lines()
        numbers = [line["iteration"] for line in lines]
        assert numbers == list(range(1, len(numbers) + 1)), f"numbers: {numbers[-20:]}"
        for before, line in itertools.pairwise(lines):
            assert line["goal_in"] == before["next_goal"], (
                f"goal lost before iteration {line['iteration']}"
            )
        said = [
            str(line["next_goal"]) for line in lines if line["verdict"] in ("continue", "no_change")
        ]
        order = [int(goal.split()[1]) for goal in said]
        assert order == sorted(set(order)), f"an answer was believed twice: {order[-20:]}"
        overlaps = self.ws.control / "overlaps.log"
        assert not overlaps.exists(), overlaps.read_text()

    def finish(self) -> None:
        """Run undisturbed until every message is through, stop in good order, check what is
        left."""
        process = self.ws.start(start_new_session=True)
        target = len(self.lines()) + 3
        inbox = self.ws.state / "inbox"
        wait_until(
            lambda: len(self.lines()) >= target or process.poll() is not None,
            f"more iterations:\n{self.ws.log()[-3000:]}",
        )
        wait_until(lambda: not list(inbox.glob("*.md")), "an empty inbox")
        assert self.ws.cli("stop", "--after-iteration").returncode == 0
        assert self.ws.ended(process) == 0, self.ws.log()[-3000:]
        self.check_journal()
        self.check_messages()
        self.check_commits()
        assert self.ws.runtime()["iteration"] == len(self.lines())
        state = self.ws.state
        assert not list((state / "quarantine").iterdir()), sorted(os.listdir(state / "quarantine"))
        stray = [
            str(path.relative_to(state))
            for path in state.rglob("*.tmp")
            if "runs" not in path.parts
        ]
        assert not stray, stray
        assert len(list(state.rglob("*.tmp"))) <= 3
        wait_until(lambda: not self.ws.leftovers(), "nothing left", 10)
        self.verdicts = [str(line["verdict"]) for line in self.lines()]
        counted = dict(collections.Counter(self.verdicts))
        self.story = f"{len(self.verdicts)} iterations {counted}, {len(self.sent)} messages"

    def check_commits(self) -> None:
        """All that agents and gates changed is committed, nothing of the person's, and git is
        whole."""
        git = self.ws.git
        assert git("status", "--porcelain") == "?? mine.txt\n", git("status", "--porcelain")
        assert "mine.txt" not in git("log", "--format=", "--name-only")
        assert self.ws.status()["owed"] is None, self.ws.status()["owed"]
        git("fsck", "--full")
        assert not list((self.ws.path / ".git").glob("*.lock"))

    def check_messages(self) -> None:
        """Each message reached a prompt, and no second one whose run came to an answer."""
        delivered: collections.Counter[str] = collections.Counter()
        unanswered: set[str] = set()
        for line in self.lines():
            texts = [message["text"] for message in line["messages"]]  # type: ignore[attr-defined]
            tokens = [re.findall(r"token-\d+\.", text)[0] for text in texts]
            if line["failure_class"]:
                unanswered.update(tokens)
            else:
                delivered.update(tokens)
        prompts: collections.Counter[str] = collections.Counter()
        for path in self.ws.control.glob("prompt-*.md"):
            prompts.update(re.findall(r"token-\d+\.", path.read_text()))
        missing = [token for token in self.sent if not prompts[token]]
        assert not missing, f"never delivered: {missing}"
        twice = [token for token in self.sent if delivered[token] > 1]
        assert not twice, f"delivered twice: {twice}"
        if self.on_orphan == "adopt":
            again = [token for token in self.sent if prompts[token] > 1 and token not in unanswered]
            # A run whose recorder was killed with the supervisor is lost; only then a prompt is
            # written again.
            assert (
                len(again) <= self.kills["both"] + self.kills["recorder"] + self.kills["launcher"]
            ), again


def main() -> int:
    """Parse flags, run, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--on-orphan", choices=("adopt", "kill"), default="adopt")
    parser.add_argument("--keep", action="store_true", help="keep the directory")
    parser.add_argument("--json", metavar="FILE", help="write what it came to here as well")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}, {options.count} kills, on_orphan {options.on_orphan}", flush=True)
    root = Path(tempfile.mkdtemp(prefix="kill-loop-"))
    killing = Killing(root, seed, options.on_orphan)
    began = time.monotonic()
    try:
        for number in range(options.count):
            try:
                killing.round()
            except AssertionError as error:
                raise AssertionError(f"round {number + 1}: {error}") from error
        killing.finish()
    except BaseException:
        print(f"kept {root}", flush=True)
        options.keep = True
        raise
    finally:
        killing.ws.close()
        if not options.keep:
            subprocess.run(["rm", "-rf", str(root)], check=False)
    if options.json:
        came_to = {
            "count": options.count, "seed": seed, "on_orphan": options.on_orphan,
            "kills": killing.kills, "iterations": len(killing.verdicts),
            "verdicts": collections.Counter(killing.verdicts), "messages": len(killing.sent),
            "seconds": time.monotonic() - began,
        }  # fmt: skip
        Path(options.json).write_text(json.dumps(came_to))
    print(
        f"{options.count} kills {dict(killing.kills)} in {time.monotonic() - began:.0f} s: "
        f"{killing.story}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
