"""Real loops of many kinds, watched from outside at every moment: `status.json`, the log, and what
the notify command is told.

A scene brings one loop into a situation and to its end. It runs once; tests look at what was seen."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from codex_self_iter.world.process.signals import TWIN_SEC
from tests.support import control_steps
from tests.support.control_steps import KEEP, LIMITED, WORK, agents_alive, long_run, wait_log
from tests.support.harness import Workspace, wait_until
from tests.support.lanes import AGENT
from tests.support.program import PROGRAM

EVENTS = (
    "blocked", "completed", "stagnated", "crashed", "agent_stopped", "budget", "outage", "cooldown",
    "digest", "stopped",
)  # fmt: skip
DONE: dict[str, Any] = {**WORK, "block": {"completed": True}}
PLAN = {"objective": "the objective", "execution_prompt": "p", "done_if": "d", "rationale": "r"}
SEEN_SEC = 0.8
"""A run, gate or wait lasts so long where each state is to be seen: status.json is written at most
five times a second, and the watcher may be late on a busy machine."""
AT_ONCE = 2
"""So many scenes are played at a time."""

RESULT = {
    "type": "result", "subtype": "success", "session_id": "s",
    "result": json.dumps({"summary": "did it", "next_goal": "n", "stop": False, "reason": "r",
                          "evidence": [], "completed": False}),
    "usage": {"input_tokens": 600, "output_tokens": 300}, "total_cost_usd": 0.5,
}  # fmt: skip
FAILED = {"type": "result", "subtype": "success", "is_error": True, "session_id": "s"}
RETRY = {
    "type": "system", "subtype": "api_retry", "session_id": "s", "attempt": 3, "max_retries": 10,
    "error_status": 529, "error": "overloaded",
}  # fmt: skip

DEFECT = """
import sys
if "codex_self_iter" in sys.orig_argv[:4]:
    import os
    import codex_self_iter.{module} as module
    whole = module.{name}
    def fails(*args, whole=whole, **kwargs):
        if os.path.exists({flag!r}):
            raise {error}
        return whole(*args, **kwargs)
    module.{name} = fails
"""


KEPT = ("statuses", "printed", "console", "kept", "told", "journal", "facts")


@dataclasses.dataclass
class Seen:
    """What was seen of one loop, in the order of time.

    Attributes:
        statuses: every content of status.json that stood there when somebody looked.
        printed: what `status --json` printed.
        console, kept: JSON lines of the console, and of supervisor.log.
        told: what the notify command was given.
        facts: what the scene itself knows (pids, codes, times)."""

    name: str
    statuses: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    printed: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    console: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    kept: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    told: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    journal: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All log lines, most of them twice."""
        return self.console + self.kept

    @property
    def last(self) -> dict[str, Any]:
        """The last status."""
        return self.statuses[-1]

    def of(self, event: str) -> list[dict[str, Any]]:
        """The lines of an event, as the console had them."""
        return [line for line in self.console if line["event"] == event]


class Stage(Seen):
    """A scene that is being played, and watched."""

    def __init__(self, name: str, ws: Workspace) -> None:
        super().__init__(name)
        self.ws, self.workspaces = ws, [ws]
        self.facts |= {"workspace": str(ws.path), "root": str(ws.root)}
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        last, path = "", self.ws.state / "status.json"
        while not self._over.is_set():
            text = last
            with contextlib.suppress(OSError):
                text = path.read_text()
            if text != last:
                try:
                    self.statuses.append(json.loads(text))
                except ValueError:
                    self.facts["torn"] = text
                last = text
            time.sleep(0.02)

    def look(self) -> dict[str, Any]:
        """What `status --json` says now."""
        self.printed.append(json.loads(self.ws.cli("status", "--json").stdout))
        return self.printed[-1]

    def until(self, fits: Callable[[dict[str, Any]], Any], what: str) -> None:
        """Wait for a status that fits."""
        wait_until(lambda: any(map(fits, self.statuses)), what)

    def ended(self, *flags: str, environment: dict[str, str] | None = None) -> None:
        """Run a supervisor to its end."""
        self.over(self.ws.start(*flags, environment=environment))

    def over(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for its end, and remember how it was."""
        self.facts["pid"] = process.pid
        self.facts["code"] = self.ws.ended(process)

    def end(self) -> None:
        """Nothing more will come."""
        with contextlib.suppress(AssertionError):  # a last content that the watcher has not met
            wait_until(lambda: self.statuses[-1:] == [self.ws.status()], "the last status", 2)
        self._over.set()
        self._watcher.join()
        root, state = self.ws.root, self.ws.state
        self.journal = self.ws.journal()
        self.console = json_lines(*sorted(root.glob("supervisor-*.log")))
        self.kept = json_lines(*state.glob("logs/supervisor.log*"))
        self.told = json_lines(root / "told")
        places = root / "told.in"
        self.facts["told in"] = places.read_text().splitlines() if places.exists() else []
        for key, path in {
            "report": state / "report.md",
            "crash.log": root / "home" / "state" / "codex-self-iter" / "crash.log",
        }.items():
            self.facts[key] = path.read_text() if path.exists() else None
        logs = sorted(root.glob("supervisor-*.log"))
        self.facts["printed"] = "".join(log.read_text(errors="replace") for log in logs)


def json_lines(*paths: Path) -> list[dict[str, Any]]:
    """Every line that is a JSON object."""
    lines = [one for path in paths if path.exists() for one in path.read_text().splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


# -- small tools -------------------------------------------------------------------------------------


def notify(ws: Workspace) -> str:
    """A [notify] table that keeps what it is told."""
    command = ["sh", "-c", f'pwd >> "$0.in"; {KEEP}', str(ws.root / "told")]
    return control_steps.notify(ws, command=command, events=EVENTS)


def set_up(ws: Workspace, tables: str = "", **keys: Any) -> None:
    """A configuration that says and tells everything."""
    ws.config(f'{tables}\n[log]\nformat = "json"\nlevel = "debug"\n{notify(ws)}', **keys)


def claude(ws: Workspace, *lines: str) -> str:
    """A program that does this, as [agents.claude]; returns the table."""
    binary = ws.root / "bin" / "claude"
    binary.parent.mkdir(exist_ok=True)
    for name, said in {"result": RESULT, "retry": RETRY, "failed": FAILED}.items():
        (ws.root / "bin" / name).write_text(json.dumps(said) + "\n")
    init = '{"type":"system","subtype":"init","session_id":"s","model":"m"}'
    head = f'#!/bin/sh\ncat >/dev/null\ncd "$(dirname "$0")"\necho \'{init}\'\n'
    binary.write_text(head + "\n".join(lines) + "\n")
    binary.chmod(0o755)
    return f"[agents.claude]\nbinary = {json.dumps(str(binary))}\n"


def failed(status: int, text: str) -> str:
    """A line of claude's that says this failure."""
    said = FAILED | {"api_error_status": status, "result": text}
    return f"echo '{json.dumps(said)}'; exit 1"


def hook(ws: Workspace, script: str) -> None:
    """A pre-commit hook."""
    path = ws.path / ".git" / "hooks" / "pre-commit"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


STORAGE = "__import__('codex_self_iter.errors').errors.StorageError('no room')"


def defect(
    ws: Workspace, module: str, name: str, error: str = "", flag: str = "flag"
) -> tuple[dict[str, str], Path]:
    """(environment, path of the flag): a supervisor that is started with it has a defect there, as
    soon as the flag is a file and for as long."""
    place, path = ws.root / "defect", ws.root / flag
    place.mkdir(exist_ok=True)
    error = error or "RuntimeError('a defect\\nof ours')"
    code = DEFECT.format(module=module, name=name, flag=str(path), error=error)
    with (place / "sitecustomize.py").open("a") as file:
        file.write(code)
    return {"PYTHONPATH": str(place)}, path


# -- scenes ------------------------------------------------------------------------------------------

Scene = Callable[[Stage], None]
SCENES: dict[str, Scene] = {}


def scene(function: Scene) -> Scene:
    SCENES[function.__name__] = function
    return function


@scene
def proof(seen: Stage) -> None:
    """A claim that a gate rejects, one that is confirmed; a message, an edit, commits, a goal."""
    ws = seen.ws
    tables = f'[verify]\ncommands = ["sleep {SEEN_SEC}", "test -e done"]\nconfirmations = 1\n'
    set_up(ws, tables + '[git]\ncommit = "supervisor"\n', command_timeout_sec=500)
    ws.script(
        {**long_run("go"), "say": "hello", "run": f"printenv CODEX_SELF_ITER_RUN_ID > '{ws.root}/id'",
         "block": {"completed": True, "summary": "claims", "notes": ["one", "two"]}},
        {**long_run("rest"), "write": {"done": "1", "plan.md": "- [x] first\n- [x] second\n"},
         "block": {"completed": True, "summary": "did the rest"}},
        {**long_run("go on"), "block": {"completed": True}},
    )  # fmt: skip
    seen.look()
    ws.cli("steer", "mind the gap")
    ws.cli("goal", "the first goal")
    seen.look()
    process = ws.start()
    ws.wait_runs(1)
    seen.until(lambda one: one["run"] and one["run"]["output_bytes"], "a sample of the run")
    seen.look()
    (ws.path / "TASK.md").write_text("What is wanted.\n")
    seen.facts["run_id"] = (ws.root / "id").read_text().strip()
    wait_log(ws, "task.changed")
    (ws.control / "go").touch()
    seen.until(lambda one: one["run"] and one["iteration"] == 2, "the second iteration's run")
    (ws.control / "rest").touch()
    wait_until(lambda: len(ws.journal()) == 2, "the claim that is to be confirmed")
    ws.plan("- [x] first\n- [x] second\n- [x] third\n")
    wait_log(ws, "plan.changed")
    seen.until(lambda one: one["run"] and one["iteration"] == 3, "the third iteration's run")
    (ws.control / "go on").touch()
    seen.over(process)
    seen.look()


@scene
def errors(seen: Stage) -> None:
    """An agent that fails, until the loop gives up."""
    set_up(seen.ws, max_consecutive_errors=2, backoff_base_sec=1, backoff_max_sec=1)
    seen.ws.script({"exit": 3, "raw": "no idea\n", "sleep": SEEN_SEC})
    seen.ended()


@scene
def limit(seen: Stage) -> None:
    """A limit that is waited for, a pause in it, and Ctrl-C."""
    ws = seen.ws
    set_up(ws, backoff_base_sec=0, backoff_max_sec=900)
    ws.script(LIMITED)
    process = ws.start()
    ws.wait_state("limited")
    seen.look()
    ws.cli("pause")
    ws.wait_state("paused")
    seen.look()
    ws.cli("resume")
    ws.wait_state("limited")
    begun = len(seen.statuses)
    wait_until(lambda: len(seen.statuses) > begun + 2, "three heartbeats")
    process.send_signal(signal.SIGINT)
    seen.over(process)


@scene
def login(seen: Stage) -> None:
    """An agent that is not logged in: a person must act."""
    set_up(seen.ws, claude(seen.ws, failed(401, "Invalid API key")), agent="claude",
           backoff_base_sec=1, backoff_max_sec=1)  # fmt: skip
    seen.ended()


@scene
def roles(seen: Stage) -> None:
    """Planner, executor, reviewer; both kinds of cooldown, until a person is told."""
    ws = seen.ws
    set_up(ws, mode="roles", planner_stop_backoff_sec=SEEN_SEC, continue_false_backoff_sec=SEEN_SEC)
    go_on = {"next_focus": "f", "reason": "enough", "confidence": 1}
    ws.script(
        {"block": {**PLAN, "stop": False}, "sleep": SEEN_SEC},
        {**WORK, "sleep": SEEN_SEC},
        {"block": {**go_on, "continue": False}, "sleep": SEEN_SEC},
        {"block": {**PLAN, "stop": True}, "sleep": SEEN_SEC},
    )
    process = ws.start()
    wait_until(lambda: (ws.root / "told").exists(), "a word about the cooldowns")
    ws.wait_state("cooldown")
    ws.cli("stop")
    seen.over(process)


@scene
def circles(seen: Stage) -> None:
    """The same again and again, and a pause of its own for each."""
    set_up(seen.ws, max_stagnation=2, no_change_backoff_sec=SEEN_SEC)
    seen.ws.script({"block": {"next_goal": "the same"}})
    seen.ended()


@scene
def person(seen: Stage) -> None:
    """An agent that says that a person must act."""
    set_up(seen.ws)
    seen.ws.environment["MY_API_KEY"] = "sk-0123456789-secret"
    reason = "the key sk-0123456789-secret is refused"
    seen.ws.script({**WORK, "block": {"stop": True, "reason": reason}})
    seen.ended()


@scene
def money(seen: Stage) -> None:
    """A budget that is nearly spent, then spent; a part of it has no price."""
    ws = seen.ws
    lines = (
        "n=$(cat n 2>/dev/null || echo 0); echo $((n+1)) > n",
        f"sleep {SEEN_SEC}",
        "echo $n >> ../work\\ space/w.txt",
        "[ $n = 1 ] && sed -i 's/, \"total_cost_usd\": 0.5//' result",
        "cat result",
    )
    budget = "[budget]\nmax_cost_usd = 1.2\nmax_tokens = 2500\nnotice_at = 0.4\n"
    set_up(ws, claude(ws, *lines) + budget, agent="claude", max_stagnation=0)
    seen.ended()


@scene
def controls(seen: Stage) -> None:
    """Pause, resume, stop after the iteration, stop at once; a second signal."""
    ws = seen.ws
    set_up(ws, kill_grace_sec=20)
    ws.script(WORK, long_run("go"), {**long_run(), "deaf": True})
    process = ws.start()
    ws.wait_runs(2)
    ws.cli("pause")
    seen.until(lambda one: "pauses after it" in one["reason"], "the pause to be announced")
    ws.cli("resume")
    ws.cli("stop", "--after-iteration")
    seen.until(lambda one: "stops after" in one["reason"], "the stop to be announced")
    (ws.state / "STOP").unlink()
    wait_until(lambda: "stops after" not in ws.status()["reason"], "the stop to be taken back")
    (ws.control / "go").touch()
    ws.wait_runs(3)
    os.kill(process.pid, signal.SIGUSR1)
    wait_log(ws, "signal.ignored")
    os.kill(process.pid, signal.SIGTERM)
    ws.wait_state("stopping")
    time.sleep(2 * TWIN_SEC)  # sooner it would be the first one once more
    os.kill(process.pid, signal.SIGTERM)
    seen.over(process)


@scene
def crash(seen: Stage) -> None:
    """A defect while an agent works."""
    ws = seen.ws
    set_up(ws)
    ws.script(WORK, long_run())
    environment, flag = defect(ws, "supervisor.senses", "Senses.look")
    process = ws.start(environment=environment)
    ws.wait_runs(2)
    flag.touch()
    seen.over(process)
    seen.look()


@scene
def owed(seen: Stage) -> None:
    """Commits that a hook refuses, mends and refuses, and lets through; files that are left."""
    ws = seen.ws
    set_up(ws, '[git]\ncommit = "supervisor"\n')
    hook(ws, "echo 'the hook says no' >&2; exit 1")
    mends = "grep -q formatted work.txt || { echo formatted >> work.txt; exit 1; }"
    ws.script(
        WORK,
        {**WORK, "run": f"printf '#!/bin/sh\\n%s\\n' '{mends}' > .git/hooks/pre-commit"},
        {**WORK, "run": "rm .git/hooks/pre-commit; git init -q sub; date > sub/x; "
                        "git -C sub add x; git -C sub commit -q -m x"},
        DONE,
    )  # fmt: skip
    seen.ended()


@scene
def bounds(seen: Stage) -> None:
    """More of everything than is shown."""
    ws = seen.ws
    gates = ", ".join(f'"false {number}"' for number in range(4))
    set_up(ws, f'[verify]\ncommands = [{gates}]\n[git]\ncommit = "supervisor"\n', max_iterations=1)
    hook(ws, "exit 1")
    files = {f"file {number:02}.txt": "x" for number in range(14)}
    inbox = ws.state / "inbox"
    inbox.mkdir(parents=True)
    for number in range(25):
        (inbox / f"picture {number:02}").write_bytes(b"\x89PNG\0\xff\xfe\0")
    ws.script({"write": files, "block": {"completed": True, "summary": "many words " * 100}})
    seen.ended()


@scene
def reload(seen: Stage) -> None:
    """A configuration that is read again: bad, good, and what needs a restart."""
    ws = seen.ws
    set_up(ws, '[roles]\nexecutor = "claude"\n', min_free_disk_mb=100_000_000)
    ws.script(DONE)
    process = ws.start()
    ws.wait_state("blocked")
    there = os.statvfs(ws.path)
    seen.facts["free_mb"] = there.f_bavail * there.f_frsize / 2**20
    config = ws.path / "codex-self-iter.toml"
    good = config.read_text()
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "config.unchanged")
    config.write_text("nonsense = 1\n" + good)
    process.send_signal(signal.SIGHUP)
    wait_log(ws, "config.not_reloaded")
    seen.until(lambda one: any("not read again" in text for text in one["warnings"]), "the warning")
    good = good.replace("min_free_disk_mb = 100000000", "min_free_disk_mb = 1")
    config.write_text(good.replace('format = "json"', 'format = "console"'))
    process.send_signal(signal.SIGHUP)
    seen.over(process)


@scene
def killed(seen: Stage) -> None:
    """kill -9, adoption; kill -9, and what is left is ended."""
    ws = seen.ws
    set_up(ws)
    ws.script(long_run("go"), long_run(), DONE)
    first = ws.start()
    ws.wait_runs(1)
    seen.until(lambda one: one["run"] and one["run"]["pid"], "the agent's process")
    first.kill()
    first.wait()
    seen.look()
    second = ws.start()
    wait_log(ws, "orphan.adopted")
    adopted = (second.pid, True)
    seen.until(
        lambda one: (one["pid"], bool(one["run"] and one["run"]["pid"])) == adopted,
        "the adopted run",
    )
    (ws.control / "go").touch()
    ws.wait_runs(2)
    seen.until(lambda one: one["iteration"] == 2 and one["run"] and one["run"]["pid"], "the second")
    ws.supervisors[-1].kill()
    ws.supervisors[-1].wait()
    seen.ended("--on-orphan", "kill")
    assert agents_alive(ws) == []


@scene
def outage(seen: Stage) -> None:
    """A model that is away: retries, another agent, a person is told."""
    ws = seen.ws
    lines = ("cat retry", "sleep 1.5", failed(529, "Overloaded"))
    tables = claude(ws, *lines) + '[agents]\norder = ["claude", "command"]\n'
    set_up(ws, tables, agent="claude")
    ws.script({**DONE, "sleep": SEEN_SEC})
    seen.ended()


@scene
def daily(seen: Stage) -> None:
    """A supervisor that was down at the hour of the digest."""
    ws = seen.ws
    ws.config(max_iterations=1)
    ws.script(WORK, long_run())
    ws.run()
    yesterday = {"digest_day": datetime.now().astimezone().toordinal() - 1}
    (ws.state / "outbox.json").write_text(json.dumps(yesterday))
    set_up(ws, "")
    with (ws.path / "codex-self-iter.toml").open("a") as file:
        file.write('digest_at = "00:00"\n')  # the table [notify] is the last one
    process = ws.start()
    wait_until(lambda: (ws.root / "told").exists(), "the digest")
    ws.cli("stop")
    seen.over(process)


@scene
def lingers(seen: Stage) -> None:
    """An agent that has answered and does not end."""
    ws = seen.ws
    set_up(ws, claude(ws, "cat result", "exec sleep 600") + "linger_sec = 0.3\n", agent="claude",
           max_iterations=1)  # fmt: skip
    seen.ended()


@scene
def git(seen: Stage) -> None:
    """What runs and people do to the repository."""
    ws = seen.ws
    set_up(ws, '[git]\ncommit = "supervisor"\ncheckpoint_max_file_mb = 1\n', no_change_gate=False)
    ws.script(
        {**WORK, "run": "touch .git/index.lock; head -c 2000000 /dev/zero > large"},
        {**WORK, "run": "git checkout -q -b other"},
        {"run": "git reset -q --hard HEAD~1; echo y > y.txt"},
        {**WORK, "run": "git checkout -q main"},
        long_run("go"),
        DONE,
    )  # fmt: skip
    process = ws.start()
    ws.wait_runs(5)
    ws.cli("pause")
    (ws.control / "go").touch()
    ws.wait_state("paused")
    time.sleep(1.2)  # so long the look after a run is still the present
    (ws.path / "theirs.txt").write_text("a person's\n")
    ws.cli("resume")
    seen.over(process)


@scene
def wiped(seen: Stage) -> None:
    """An agent that deletes a part of the state directory, and leaves a large file."""
    ws = seen.ws
    set_up(ws, "[git]\ncheckpoint_max_file_mb = 1\n")
    away = "rm -rf .codex-self-iter/inbox .codex-self-iter/runtime.json"
    ws.script({"run": f"{away}; head -c 2000000 /dev/zero > large", **long_run("go")}, DONE)
    process = ws.start()
    wait_log(ws, "state.restored")
    (ws.control / "go").touch()
    seen.over(process)


@scene
def told_in_vain(seen: Stage) -> None:
    """A notify command that fails, and succeeds later; a hook that fails."""
    ws = seen.ws
    budget = "[budget]\nmax_hours = 1\nnotice_at = 0.0000001\n"
    ws.config(
        f'{budget}[notify]\ncommand = ["sh", "-c", "test -e ok || exit 7"]\n'
        '[log]\nformat = "json"\n[git]\ncheckpoints = false\n[hooks]\non_start = ["true", "false"]\n',
        mode="roles", planner_stop_backoff_sec=0.3,
    )  # fmt: skip
    ws.script(
        {"block": {**PLAN, "stop": True}, **long_run("go")}, {"block": {**PLAN, "stop": True}}
    )
    ws.script(
        {"block": {**PLAN, "stop": False}, "sleep": 0.1},
        long_run("go"),
        {"block": {"next_focus": "f", "reason": "r", "confidence": 1, "continue": True}},
        {"block": {**PLAN, "stop": True}},
    )
    process = ws.start()
    seen.until(lambda one: any("[notify]" in text for text in one["warnings"]), "the warning")
    (ws.path / "ok").touch()
    (ws.control / "go").touch()
    ws.wait_state("cooldown")
    wait_until(lambda: not any("[notify]" in x for x in ws.status()["warnings"]), "its end")
    ws.cli("stop")
    seen.over(process)


# -- scenes of the surroundings that fail ------------------------------------------------------------


@scene
def storage(seen: Stage) -> None:
    """What cannot be kept, and is no reason to stop."""
    ws = seen.ws
    set_up(ws, "[git]\ncheckpoint_keep = 10\n")
    ws.script({**WORK, "sleep": 3}, DONE)
    (ws.path / ".git" / "refs" / "codex-self-iter").write_text("in the way\n")
    git_error = "__import__('codex_self_iter.world.git.run').world.git.run.GitError('git is ill')"
    for module, name, error in (
        ("world.state.store", "StateDirectory.save_status", STORAGE),
        ("world.state.store", "StateDirectory.redact_run", STORAGE),
        ("world.state.store", "StateDirectory.write_report", STORAGE),
        ("world.state.store", "StateDirectory.heal", STORAGE),
        ("world.state.inbox", "Inbox.names", STORAGE),
        ("world.state.retention", "Retention.prune", STORAGE),
        ("supervisor.workspace", "replace_private", "OSError(28, 'no room')"),
        ("world.git.objects", "count", git_error),
        ("world.git.checkpoints", "Checkpoints.prune", git_error),
    ):
        environment, flag = defect(ws, module, name, error)
    flag.touch()
    process = ws.start(environment=environment)
    ws.wait_runs(1)
    (ws.state / "inbox" / "note.md").write_text("a message\n")
    seen.over(process)


@scene
def unwritable(seen: Stage) -> None:
    """A state directory that cannot be written for a while, and at the end."""
    ws = seen.ws
    set_up(ws)
    ws.script(WORK, WORK, long_run("go"))
    defect(ws, "world.state.logfile", "write_all", "OSError(28, 'no room')", "no log")
    for name in ("fresh_run_directory", "try_room"):
        defect(ws, "world.state.store", f"StateDirectory.{name}", STORAGE, "no run")
    environment, state = defect(ws, "world.state.store", "StateDirectory.save_runtime", STORAGE)
    run, log = ws.root / "no run", ws.root / "no log"
    run.touch()
    process = ws.start(environment=environment)
    wait_log(ws, "run.cannot_start_yet")
    log.touch()
    os.kill(process.pid, signal.SIGUSR1)
    wait_log(ws, "signal.ignored")
    log.unlink()
    run.unlink()
    ws.wait_runs(1)
    state.touch()
    wait_log(ws, "state.cannot_write")
    state.unlink()
    wait_log(ws, "state.writable_again")
    ws.wait_runs(3)
    state.touch()
    process.send_signal(signal.SIGTERM)
    seen.over(process)


@scene
def blind(seen: Stage) -> None:
    """No file notification, no look at processes; a journal and runs that are too many."""
    ws = seen.ws
    set_up(ws, "[output]\nkeep_runs = 1\n", max_iterations=3, max_stagnation=0)
    ws.script(WORK)
    assert ws.run() == 0
    journal = ws.state / "logs" / "iterations.jsonl"
    lines = journal.read_text().splitlines()
    long = json.dumps({**json.loads(lines[0]), "padding": "x" * 1_000_000})
    journal.write_text("\n".join([*[long] * 70, *lines]) + "\n")
    (ws.control / "counter").unlink()
    ws.script({**WORK, "sleep": 3.5}, DONE)
    defect(ws, "world.watch", "Watcher._listen", "OSError(11, 'no thread')")
    environment, flag = defect(ws, "world.process.keeper", "Keeper._look", "OSError(24, 'no file')")
    flag.touch()
    seen.ended(environment=environment)


@scene
def unread(seen: Stage) -> None:
    """A console that nobody reads for a while."""
    ws = seen.ws
    set_up(ws)
    ws.script(long_run("go"), DONE)
    pipe = ws.root / "supervisor-1.log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    process = ws.start()
    ws.wait_runs(1)
    kept = ws.state / "logs" / "supervisor.log"
    kinds = itertools.cycle((signal.SIGUSR1, signal.SIGUSR2))  # the same again is one and the same
    while kept.read_text().count("signal.ignored") < 1600:
        for _ in range(50):
            os.kill(process.pid, next(kinds))
            time.sleep(0.002)
    said = b""
    os.set_blocking(reader, True)
    (ws.control / "go").touch()
    while block := os.read(reader, 65536):
        said += block
    os.close(reader)
    seen.over(process)
    pipe.unlink()
    pipe.write_bytes(said)


# -- many loops under one supervisor -----------------------------------------------------------------


@scene
def many(seen: Stage) -> None:
    """A directory of configurations: one of a bad file, one that crashes and starts again, one of
    an invalid workspace, one that comes, one that is renamed, one that goes."""
    ws = seen.ws
    set_up(ws)
    ws.script(long_run("go"), DONE)
    config = (ws.path / "codex-self-iter.toml").read_text()
    (ws.path / "codex-self-iter.toml").unlink()
    place = ws.root / "loops"
    place.mkdir()

    def write(name: str, workspace: Path, config: str) -> None:
        text = f"workspace = {json.dumps(str(workspace))}\n{config}"
        (place / f"{name}.tmp").write_text(text)
        (place / f"{name}.tmp").rename(place / f"{name}.toml")

    other = Workspace(ws.root, "other")
    other.script(long_run())
    set_up(other)
    others = (other.path / "codex-self-iter.toml").read_text()
    (other.path / "codex-self-iter.toml").unlink()
    seen.workspaces.append(other)
    write("first", ws.path, config)
    write("lost", ws.root / "nowhere", config)
    (place / "bad.toml").write_text("nonsense = 1\n")
    environment, flag = defect(ws, "supervisor.senses", "Senses.look")
    log = (ws.root / "supervisor-1.log").open("wb")
    with log:
        process = subprocess.Popen(
            [*PROGRAM, "--config-dir", str(place)], cwd=ws.root, stdin=subprocess.DEVNULL,
            env={**ws.environment, **environment}, stdout=log, stderr=log,
        )  # fmt: skip
    ws.supervisors.append(process)
    ws.wait_runs(1)
    (place / "bad.toml").unlink()
    flag.touch()
    wait_until(lambda: ws.status().get("state") == "crashed", "the crash")
    seen.look()
    flag.unlink()
    write("second", other.path, others)
    other.wait_runs(1)
    (place / "second.toml").rename(place / "third.toml")
    wait_log(ws, "loop.renamed")
    (place / "third.toml").unlink()
    wait_log(ws, "loop.removed")
    other.cli("stop")
    other.wait_state("stopped")
    seen.over(process)


@scene
def lanes(seen: Stage) -> None:
    """Two lanes: one lands while the person is in the middle of something, one needs the person."""
    ws = seen.ws
    agents = ws.control / "lanes"
    agents.mkdir(parents=True)
    ws.environment["LANE_AGENT"] = str(agents)
    asks = (
        '{"summary": "s", "next_goal": "n", "stop": true, "reason": "which one?", "evidence": ""}'
    )
    (agents / "1").write_text("echo 1 > 1.txt\n")
    until = 'until [ -e "$LANE_AGENT/go" ]; do sleep 0.05; done'
    (agents / "2").write_text(f"{until}\nanswer='{asks}'\n")
    trees = json.dumps(str(ws.root / "trees"))
    tables = f"[lanes]\nmax = 2\ndirectory = {trees}\n[verify]\ncommands = ['sleep {SEEN_SEC}']\n"
    set_up(ws, tables, agent_command_template=f"sh {AGENT} {{prompt_file}}")
    ws.plan("- [ ] first\n- [ ] second\n")
    (ws.path / "mine.txt").write_text("mine\n")
    ws.git("add", "plan.md", "mine.txt")
    ws.git("commit", "-q", "-m", "the plan")
    seen.facts["branch"] = ws.git("symbolic-ref", "HEAD").strip()
    (ws.path / "mine.txt").write_text("in the middle of it\n")
    process = ws.start()
    seen.until(lambda one: one["lanes"] and one["lanes"]["held"], "the target to be held")
    seen.look()
    ws.git("checkout", "-q", "mine.txt")
    wait_until(lambda: ws.status()["lanes"]["held"] == "", "the target to follow")
    (agents / "go").touch()
    seen.over(process)
    seen.look()


# -- running them ------------------------------------------------------------------------------------


class Theatre:
    """Plays each scene once, when somebody wants to see it, whichever process asks first; some at a
    time."""

    def __init__(self, root: Path) -> None:
        """`root`: a directory that all test processes of one session share."""
        self._root = root
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._begun: dict[str, Future[Seen]] = {}

    def begin(self, *names: str) -> None:
        """Let these be played."""
        for name in names:
            if name not in self._begun:
                self._begun[name] = self._pool.submit(self._see, name)

    def all(self, *names: str) -> list[Seen]:
        """What was seen in these."""
        self.begin(*names)
        return [self[name] for name in names]

    def __getitem__(self, name: str) -> Seen:
        self.begin(name)
        return self._begun[name].result()

    def close(self) -> None:
        self._pool.shutdown()

    def _see(self, name: str) -> Seen:
        kept = self._root / f"{name}.json"
        with (self._root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                kept.write_text(json.dumps({"failed": "it has failed before"}))  # once is enough
                seen = self._play(name)
                kept.write_text(json.dumps({key: getattr(seen, key) for key in KEPT}))
        what = json.loads(kept.read_text())
        assert "failed" not in what, f"the scene {name!r} could not be played"
        return Seen(name, **what)

    def _play(self, name: str) -> Seen:
        root = self._root / name
        root.mkdir()
        stage = Stage(name, Workspace(root))
        try:
            SCENES[name](stage)
        finally:
            for ws in stage.workspaces:
                ws.close()
            stage.end()
        return stage


@contextlib.contextmanager
def theatre(root: Path) -> Iterator[Theatre]:
    one = Theatre(root)
    try:
        yield one
    finally:
        one.close()
