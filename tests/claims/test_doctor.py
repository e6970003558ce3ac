"""docs/doctor.md: each check red and green from outside, and no check without its row."""

from __future__ import annotations

import ast
import dataclasses
import fcntl
import functools
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from codex_self_iter.settings.templates import TASK
from tests.claims.documents import ROOT
from tests.support.harness import GIT_ENV, Workspace
from tests.support.program import PROGRAM

SOURCE = ROOT / "src/codex_self_iter"
PAGE = (ROOT / "docs/doctor.md").read_text(encoding="utf-8")
TEMPLATE = 'agent_command_template = "sh agent.sh {prompt_file}"\n'
GATE = '[verify]\ncommands = ["test -f plan.md"]\n'

Faults = dict[str, tuple[str, str]]
"""Check: its level, and words of what was found and how it is mended."""


@dataclasses.dataclass
class Place:
    """A good workspace, and what is called in it."""

    root: Path
    script: str = 'exec "$@"'
    prefix: tuple[str, ...] = ()
    held: IO[str] | None = None

    def __post_init__(self) -> None:
        for name in ("a b", "home", "bin", "tmp"):
            (self.root / name).mkdir()
        kept = {"PATH", "LANG"}
        self.env = {name: value for name, value in os.environ.items() if name in kept}
        self.env |= {"HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp")}
        self.env |= {**GIT_ENV, "XDG_CONFIG_HOME": str(self.root / "config")}
        self.env["PATH"] = f"{self.root}/bin:{self.env['PATH']}"
        self.git("init", "-q")
        self.write("plan.md", "- [ ] a parser\n")
        self.write("TASK.md", "A parser.\n")
        self.config(TEMPLATE + GATE)

    def close(self) -> None:
        if self.held:
            self.held.close()

    @property
    def path(self) -> Path:
        return self.root / "a b"

    @property
    def state(self) -> Path:
        return self.path / ".codex-self-iter"

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        path = self.path / name
        path.write_bytes(text.encode())
        path.chmod(mode)
        return path

    def config(self, text: str) -> None:
        self.write("codex-self-iter.toml", text)

    def program(self, name: str, text: str) -> None:
        """A program that is found first on PATH."""
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.path, env=self.env, check=True, timeout=60)

    def doctor(self, *flags: str) -> subprocess.CompletedProcess[str]:
        words = [*PROGRAM, "doctor", *flags]
        argv = [*self.prefix, "sh", "-c", self.script, "sh", *words]
        return subprocess.run(
            argv, cwd=self.path, env=self.env, capture_output=True, encoding="utf-8", timeout=110,
            check=False,
        )  # fmt: skip

    def findings(self, *flags: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """Exit code, and the findings by name."""
        done = self.doctor("--json", *flags)
        assert done.stdout, done.stderr
        report = json.loads(done.stdout)
        assert report["ok"] is (done.returncode == 0)
        return done.returncode, {found["id"]: found for found in report["findings"]}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path)
    yield workspace
    workspace.close()


# -- scenes ----------------------------------------------------------------------------------------


def nothing_done(place: Place) -> Faults:
    """What `init` wrote and nobody touched, on a machine without git, agents, room and home."""
    for name in ("plan.md", "TASK.md", "codex-self-iter.toml"):
        (place.path / name).unlink()
    done = subprocess.run(
        [*PROGRAM, "init"],
        cwd=place.path,
        env=place.env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "no gate is configured: a completion is believed without proof" in done.stdout
    place.config(
        'min_free_disk_mb = 1000000000000\nmetrics_file = "/nowhere/x.prom"\notlp = "http://${NOWHERE}"\n[output]\nmax_state_mb = 1\n'
        '[notify]\nevents = ["completed"]\n[service]\ninhibit_sleep = true\n'
    )
    place.state.mkdir(mode=0o755)
    (place.state / "logs").write_bytes(b"x" * 3 * 2**20)
    (place.state / "status.json").touch()
    os.utime(place.state / "status.json", (time.time() + 7200,) * 2)
    (place.state / "PAUSE").touch()
    (place.path / ".codex-stop").touch()
    place.env |= {"HOME": str(place.root / "nowhere"), "TMPDIR": str(place.root / "away")}
    for name in ("sh", "true"):
        (place.root / "tmp" / name).symlink_to(f"/bin/{name}")
    place.env["PATH"] = f"{place.root}/tmp"
    place.script = 'ulimit -n 200; exec "$@"'
    place.prefix = ("/usr/bin/env", f"PATH={os.environ['PATH']}", "sh", "-c",
                    f'PATH={shlex.quote(place.env["PATH"])}; export PATH; exec "$@"', "sh")  # fmt: skip
    return {
        "metrics_file": ("warn", "nothing is written to /nowhere/x.prom", "mkdir -p"),
        "otlp": ("fail", "nothing is exported: the variable NOWHERE is not set", "set it where"),
        "service.inhibit_sleep": ("warn", "the machine may sleep", "take [service] inhibit_sleep"),
        "tmp": ("warn", "no temporary file can be made", "TMPDIR"),
        "home": ("warn", "does not exist", "mkdir -p"),
        "limits.files": ("warn", "only 200 files", "ulimit -n 1024"),
        "workspace.task": ("warn", "still as `init` wrote it", "write down what is wanted"),
        "workspace.plan": ("warn", "still as `init` wrote it", "write down what is wanted"),
        "state.private": ("warn", "mode 755", "chmod 700"),
        "state.size": ("warn", "more than max_state_mb = 1", "prunes"),
        "state.status": ("warn", "cannot be read as JSON", "the next start writes it anew"),
        "time.state": ("warn", "120 min in the future", "set the clock"),
        "disk": ("fail", "less than min_free_disk_mb", "make room"),
        "sentinel.stop": ("fail", ".codex-stop is there: no agent would be started", "rm "),
        "sentinel.pause": ("fail", "PAUSE is there: the loop would only wait", "rm "),
        "agent": ("fail", "no agent was found", "install codex"),
        "gates": ("warn", "believed without proof", "name your tests"),
        "config.without_effect": ("warn", "notify.events does nothing", "set what it needs"),
        "git.program": ("warn", "not installed", "install git"),
    }  # fmt: skip


GATES = {
    "[[ -f plan.md ]]": ("fail", "[[ … ]] in the gate", "bash -c '[[ -f plan.md ]]'"),
    "set -o pipefail; test -f plan.md | cat": ("fail", "pipefail in the gate", "bash -c"),
    "A=1 no-such-program x": ("fail", "'no-such-program'", "install no-such-program"),
    "./plain.sh": ("fail", "is not executable", "chmod +x"),
    "./windows.sh": ("fail", "Windows line ends", "sed -i"),
    "./strange.sh": ("fail", "asks for /no/such/shell", "mend its first line"),
    "echo 'x": ("fail", "is no shell command", "mend [verify] commands"),
    "test -f plan.md && no-such-linter .": ("warn", "'no-such-linter'", "install no-such-linter"),
    "ls plan.{md,txt}": ("warn", "{a,b} in the gate", "bash -c"),
    "make; exit 0": ("warn", "proves nothing", "fails while the work is not done"),
    "make || true": ("warn", "proves nothing", "fails while the work is not done"),
    "ls -l | tail -5": ("warn", "that of its last part", "pipefail"),
    "./no-first-line.sh": ("ok", "not run", ""),
    "test -f plan.md": ("ok", "not run", ""),
}


def commands(place: Place) -> Faults:
    """Gates, gate files, notify and template that cannot work; make is there, as a script."""
    place.program("make", "exit 1")
    place.write("plain.sh", "#!/bin/sh\n")
    place.write("windows.sh", "#!/bin/sh\r\necho\r\n", 0o700)
    place.write("strange.sh", "#!/no/such/shell\n", 0o700)
    place.write("no-first-line.sh", "test -f plan.md\n", 0o700)
    place.write("agent.sh", "echo\n", 0o700)
    gates = json.dumps(list(GATES), ensure_ascii=False)
    place.config(
        'agent_command_template = "./agent.sh {prompt_file}"\n[budget]\nmax_cost_usd = 1\nmax_tokens = 1\n'
        f'[verify]\ncommands = {gates}\ngate_files = ["plan.md", "no/such/*.py"]\n'
        '[notify]\ncommand = ["./plain.sh"]\nurls = ["json://${NO_SUCH}/"]\n'
        '[[notify.replies]]\nurl = "tgram://${NO_SUCH}"\nallow = ["1"]\n'
        '[hooks]\non_start = ["./plain.sh", "true"]\non_end = ["true && no-such-linter"]\n'
    )
    place.write("plan.md", "- [x] all\n")
    place.write("TASK.md", " \n")
    dash = "dash" in os.path.realpath("/bin/sh")
    for_bash = () if dash else ("[[", "set -o", "ls plan.{")
    gate = enumerate(GATES.items(), 1)
    return {
        **{f"gate.{n}": fault for n, (one, fault) in gate if not one.startswith(for_bash or "\n")},
        "agent.command": ("fail", "no first line that names its interpreter", "#!/bin/sh"),
        "budget.command": ("warn", "max_cost_usd and max_tokens cannot be kept", "max_hours"),
        "config.without_effect": ("warn", "no file matches no/such/*.py", "take it out"),
        "hook.on_start.1": ("fail", "'./plain.sh' of the on_start hook", "chmod +x"),
        "hook.on_end.1": ("warn", "'no-such-linter' of the on_end hook", "install"),
        "replies": ("fail", "replies by tgram are not heard: the variable NO_SUCH", "[[notify.replies]]"),
        "notify.json": ("fail", "the variable NO_SUCH is not set", "where the supervisor starts"),
        "notify": ("fail", "'./plain.sh' of [notify] command is not executable", "chmod +x"),
        "workspace.task": ("warn", "TASK.md is empty", "write down"),
        "workspace.plan": ("warn", "every item of", "add what is to be done"),
    }  # fmt: skip


CODEX = """case "$*" in
  *--version*) echo "codex-cli 0.42.0" ;;
  *login*) echo "Not logged in"; exit 1 ;;
esac"""


def old_git(place: Place) -> Faults:
    """An old git in the middle of a merge, and a codex that is not logged in."""
    real = subprocess.run(
        ["sh", "-c", "command -v git"], capture_output=True, text=True, check=True
    )
    place.git("config", "user.useConfigOnly", "true")
    for name in [name for name in place.env if name.startswith(("GIT_AUTHOR", "GIT_COMM"))]:
        del place.env[name]
    (place.path / ".git/MERGE_HEAD").touch()
    (place.path / ".git/index.lock").touch()
    os.utime(place.path / ".git/index.lock", (time.time() - 3600,) * 2)
    said = 'case "$*" in *--version*) echo git version 2.24.9; exit ;; esac'
    place.program("git", f'{said}\nexec {real.stdout.strip()} "$@"')
    place.program("codex", CODEX)
    place.program("unshare", "echo not permitted; exit 1")
    place.config(
        'agent = "codex"\n[git]\ncommit = "agent"\n[notify]\ncommand = ["true"]\nevents = []\n'
        "[lanes]\nmax = 2\n"
    )
    return {
        "git.program": ("fail", "version 2.24.9", "install git 2.25 or later"),
        "lanes.git": ("fail", "lanes need git 2.38 or later", "install git 2.38 or later"),
        "lanes.gates": ("warn", "nothing proves what lanes land", "name your tests"),
        "git.identity": ("fail", "does not know who commits", "config user.name"),
        "git.index_lock": ("fail", "left behind 60 min ago", "rm "),
        "git.unfinished": ("warn", "a merge is in progress", "merge --abort"),
        "agent.codex": ("fail", "is not logged in", "login"),
        "sandbox": ("warn", "user namespaces do not work here", "bypass"),
        "config.without_effect": ("warn", "notify.command does nothing", "take it out"),
    }  # fmt: skip


def sandboxes(place: Place) -> Faults:
    """Two agents, one of which would take over: codex's sandbox fails, claude lacks its parts; a git
    that is broken, and a supervisor at work."""
    place.program(
        "codex",
        'case "$1" in sandbox) echo "bwrap: No permissions to create new namespace"; exit 1 ;;\n'
        "login) echo Logged in ;; *) echo codex-cli 0.42.0 ;; esac",
    )
    place.program(
        "claude", 'case "$1" in auth) echo "{\\"loggedIn\\": true}" ;; *) echo 2.1.332 ;; esac'
    )
    (place.path / ".git/config").write_text("[broken")
    away = f'env = {{ PATH = "{place.root}/bin" }}\n'
    place.config(
        '[agents]\norder = ["codex", "claude", "gemini"]\n[agents.gemini]\nbinary = "/no/gemini"\n'
        f"[agents.claude]\n{away}[budget]\nmax_cost_usd = 1\n"
    )
    place.state.mkdir(mode=0o700)
    place.held = (place.state / "loop.lock").open("w")
    fcntl.flock(place.held, fcntl.LOCK_EX)
    return {
        "agent.codex.sandbox": ("warn", "bwrap: No permissions", "user namespaces"),
        "agent.claude.sandbox": ("warn", "without bubblewrap and socat", "apt-get install"),
        "agent.gemini": ("warn", "/no/gemini does not exist", "npm install"),
        "agent.codex": ("ok", "0.42.0 is older than those this was measured with", ""),
        "budget.codex": ("warn", "[prices] lacks its model", "add the price"),
        "git.repository": ("fail", "git fails here", "status"),
        "lock": ("warn", "a supervisor works here", "codex-self-iter stop"),
    }  # fmt: skip


def owned(place: Place) -> Faults:
    """A repository of another user, a plan that is no text, a task that is too large."""
    place.env["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"
    place.env["HOME"] = ""
    place.write("plan.md", "- [ ] a\0b\n")
    place.write("TASK.md", "a" * (4 * 2**20 + 1))
    return {
        "git.ownership": ("fail", "belongs to another user", "safe.directory"),
        "home": ("warn", "HOME is not set", "set HOME"),
        "workspace": ("fail", "TASK.md is larger than 4 MiB", "shorten it"),
    }  # fmt: skip


def root_elsewhere(place: Place) -> Faults:
    """Root at work in what belongs to somebody else."""
    place.state.mkdir(mode=0o700)
    for path in (place.path, place.state):
        os.chown(path, 4321, 4321)
    return {
        "workspace.owner": ("warn", "as root in a workspace of user 4321", "sudo -u '#4321'"),
        "state.owner": ("warn", "belongs to user 4321", "sudo chown"),
    }  # fmt: skip


def mounts(place: Place) -> Faults:
    """A machine of mounts: the files that tell of it are others."""
    place.prefix = ("unshare", "-m" if os.geteuid() == 0 else "-rm")
    place.program("timedatectl", "echo no")
    fake, state, unit = place.root / "fake", place.root / "state", "config/systemd/user"
    for directory in (fake, state, place.root / unit, place.path / "part"):
        directory.mkdir(parents=True)
    (place.root / unit / "codex-self-iter-x.service").touch()
    (fake / "pids.max").write_text("50")
    (fake / "pids.current").write_text("10")
    (fake / "cgroup").write_text(f"0::/../../..{fake}\n")
    (fake / "mountinfo").write_text(
        "1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {} rw - nfs4 host:/ rw\n".format(
            str(place.path).replace(" ", "\\040")
        )
    )
    (fake / "instances").write_text("1")
    place.config(f"state_dir = {json.dumps(str(state))}\n{TEMPLATE}{GATE}")
    q = functools.partial(shlex.quote)
    place.script = "; ".join((
        "set -e",
        f"mount -t tmpfs -o nr_inodes=500,size=2m,noexec,mode=700 none {q(str(state))}",
        f"mount -t tmpfs -o size=1m none {q(place.env['TMPDIR'])}",
        f"mount --bind {q(str(place.path))} {q(str(place.path))}",
        f"mount -o remount,ro,bind {q(str(place.path))}",
        f"mount -t tmpfs -o ro none {q(place.env['HOME'])}",
        f"mount --bind {q(str(fake))}/instances /proc/sys/fs/inotify/max_user_instances",
        "mount -t tmpfs none /run", "mkdir -p /run/systemd/system",
        f"mount --bind {q(str(fake))}/cgroup /proc/$$/cgroup",
        f"mount --bind {q(str(fake))}/mountinfo /proc/$$/mountinfo",
        'cd .; exec "$@"',
    ))  # fmt: skip
    return {
        "time.sync": ("warn", "nothing keeps the clock right", "timedatectl set-ntp true"),
        "service.linger": ("warn", "ends when you log out", "loginctl enable-linger"),
        "inotify": ("warn", "of 1 inotify instances", "sysctl"),
        "tmp": ("warn", "MiB are free", "TMPDIR"),
        "home": ("warn", "cannot be written", "HOME"),
        "limits.processes": ("warn", "10 of 50 processes of this control group", "TasksMax"),
        "workspace": ("fail", "a file system that is read-only", "mount it writable"),
        "workspace.network": ("warn", "another machine (nfs4)", "a disk of this machine"),
        "disk": ("fail", "less than min_free_disk_mb", "make room"),
        "disk.inodes": ("fail", "inodes are free", "delete small files"),
        "disk.noexec": ("warn", "noexec", "mount it with exec"),
    }  # fmt: skip


def other_processes(place: Place) -> Faults:
    """/proc of another pid namespace; room that is about to end."""
    place.prefix = ("unshare", "-mpf" if os.geteuid() == 0 else "-rmpf")
    state = place.root / "state"
    state.mkdir()
    keys = f"min_free_disk_mb = 150\nstate_dir = {json.dumps(str(state))}\n"
    place.config(keys + TEMPLATE + GATE)
    place.script = "; ".join((
        "set -e",
        f"mount -t tmpfs -o size=200m,mode=700 none {shlex.quote(str(state))}",
        f"mount -t tmpfs -o nr_inodes=500 none {shlex.quote(place.env['TMPDIR'])}",
        'exec "$@"',
    ))  # fmt: skip
    return {
        "proc": ("fail", "of another pid namespace", "mount -t proc"),
        "disk": ("warn", "one long output may fill it", "make room"),
        "tmp": ("warn", "inodes are free", "TMPDIR"),
    }


def few_processes(place: Place) -> Faults:
    """A user who may have few processes."""
    place.prefix = ("unshare", "--map-user=1234")
    place.script = 'exec prlimit --nproc=50 "$@"'
    return {"limits.processes": ("warn", "of 50 processes of this user", "ulimit -u")}


def never_set(place: Place) -> Faults:
    """A clock that was never set."""
    place.prefix = ("faketime", "2001-01-01")
    return {"time.clock": ("fail", "the clock says 2001-01-01", "set-ntp true")}


def lanes_astray(place: Place) -> Faults:
    """Lanes that have no branch to land on, a place in the repository, and items in a circle."""
    place.git("add", ".")
    place.git("commit", "-qm", "x")
    place.git("checkout", "-q", "--detach")
    place.write("plan.md", "- [ ] one (after: 2)\n- [ ] two (after: 1)\n")
    (place.root / "link").symlink_to(place.path)
    directory = json.dumps(f"{place.root}/link/trees")
    place.config(f"{TEMPLATE}{GATE}[lanes]\nmax = 2\ndirectory = {directory}\n")
    return {
        "lanes.git": ("ok", "git can make work trees", ""),
        "lanes.target": ("fail", "HEAD is detached", "check one out"),
        "lanes.directory": ("fail", "is inside the repository", "outside of it"),
        "lanes.plan": ("fail", "item 1 can never begin", "take one"),
    }


def lanes_without_git(place: Place) -> Faults:
    """Lanes without a repository, and without anything to do."""
    os.rename(place.path / ".git", place.root / "git")
    place.write("plan.md", "- [x] one\n")
    place.config(f"{TEMPLATE}{GATE}[lanes]\nmax = 2\n")
    return {
        "lanes.repository": ("fail", "lanes need a git repository", "init"),
        "lanes.plan": ("warn", "is ticked", "add what is still to be done"),
    }


def fence_astray(place: Place) -> Faults:
    """Landlock cannot close a state directory that lies in the workspace."""
    place.config(f'{TEMPLATE}{GATE}[fence]\nlevel = "write"\nby = "landlock"\n')
    return {"fence": ("fail", "it cannot close the state directory", "state_dir")}


def fence_container(place: Place) -> Faults:
    """A container of which nobody said the image."""
    place.config(f'{TEMPLATE}{GATE}[fence]\nlevel = "container"\n')
    return {"fence.container": ("fail", "image", "image")}


def fence_paths(place: Place) -> Faults:
    """A path of a fence that is not there."""
    place.config(f'{TEMPLATE}{GATE}[fence]\nlevel = "write"\nallow_write = ["~/none"]\n')
    return {"fence.paths": ("warn", "allow_write: ~/none is not there", "[fence]")}


def wrong_words(place: Place) -> Faults:
    """A configuration with an error: what it says is not taken for anything else."""
    place.config("x = 1\n")
    return {"config": ("fail", "codex-self-iter.toml:1", "config check")}


SCENES: dict[str, Callable[[Place], Faults]] = {
    scene.__name__: scene
    for scene in (
        nothing_done, commands, old_git, sandboxes, owned, root_elsewhere, mounts, other_processes,
        few_processes, never_set, lanes_astray, lanes_without_git, wrong_words,
        fence_astray, fence_container, fence_paths,
    )
}  # fmt: skip
SLOW = {"old_git", "root_elsewhere", "never_set", "other_processes", "few_processes"}
NO_FAULT = {"budget", "python", "time.suspend", "state", "sentinel", "check.NAME"}
"""They have no level of a fault, or a test of their own; a check that fails itself is in tests/cli/test_doctor.py."""


def possible(place: Place) -> None:
    """Skip what this machine does not let us play."""
    if place.prefix and place.prefix[0] in ("unshare", "faketime"):
        tried = subprocess.run([*place.prefix, "true"], capture_output=True, check=False)
        if tried.returncode != 0:
            pytest.skip(f"NOT TESTED HERE: {place.prefix[0]} does not work")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SCENES],
)
def test_a_fault_is_found_and_its_mend_is_said(place: Place, name: str) -> None:
    if name == "root_elsewhere" and os.geteuid() != 0:
        pytest.skip("NOT TESTED HERE: only root can give files away")
    wanted = SCENES[name](place)
    possible(place)
    code, found = place.findings()
    for check, (status, what, mend) in wanted.items():
        assert check in found, (check, list(found))
        said = found[check]
        assert (said["status"], what in said["what"], mend in said["mend"]) == (
            status, True, True), said  # fmt: skip
        assert bool(said["mend"]) is (status != "ok")
    assert code == (4 if any(one["status"] == "fail" for one in found.values()) else 0)
    if name == "wrong_words":
        assert not any(one.startswith(("agent", "gate", "notify")) for one in found)


def test_a_good_workspace_has_no_fault_and_is_left_as_it_was(place: Place) -> None:
    place.config(f'{TEMPLATE}{GATE}gate_files = ["plan.md"]\n[notify]\ncommand = ["true"]\n')
    before = sorted(path.name for path in place.path.iterdir())
    if not os.path.isdir("/run/systemd/system"):  # then nobody is asked about the clock
        place.program("timedatectl", "echo no")
    code, found = place.findings("--run-gates")
    faults = [one for one in found.values() if one["status"] != "ok"]
    # what the machine of this test is like is not the workspace's fault
    assert [one for one in faults if not one["id"].startswith(("limits", "inotify"))] == []
    assert code == 0
    assert "succeeds" in found["gate.1"]["what"]
    assert sorted(path.name for path in place.path.iterdir()) == before
    assert [one for one in found.values() if one["mend"] or one["loop"]] == []
    always = {
        "config", "python", "proc", "time.clock", "time.suspend", "tmp", "home", "limits.files",
        "limits.processes", "workspace", "workspace.task", "workspace.plan", "state", "disk",
        "sentinel", "agent.command", "gate.1", "notify", "git.program",
        "git.repository", "git.identity", "git.index_lock",
    }  # fmt: skip
    assert always <= set(found)


# -- many loops, a fault each ----------------------------------------------------------------------


@dataclasses.dataclass
class Loops:
    """One configuration of many loops, each in a repository of its own with plan and task."""

    place: Place
    entries: list[str] = dataclasses.field(default_factory=list)

    def add(self, name: str, *, keys: str = "", repository: bool = False) -> Path:
        path = self.place.path / name
        path.mkdir()
        (path / "plan.md").write_text("- [ ] a\n")
        (path / "TASK.md").write_text("a\n")
        if repository:
            subprocess.run(["git", "init", "-q", path], env=self.place.env, check=True)
        self.entries.append(f"[[workspaces]]\npath = {json.dumps(name)}\n{keys}")
        return path

    def findings(self) -> dict[tuple[str, str], str]:
        """(loop, check): level and what was found."""
        self.place.config(TEMPLATE + GATE + "\n".join(self.entries))
        done = self.place.doctor("--config", "codex-self-iter.toml", "--json")
        found: dict[tuple[str, str], str] = {}
        for one in json.loads(done.stdout)["findings"]:
            key = one["loop"], one["id"]
            found[key] = "; ".join(
                filter(None, (found.get(key), f"{one['status']}: {one['what']}"))
            )
        return found


def test_each_flaw_of_workspace_plan_task_and_state(place: Place) -> None:
    loops, wanted = Loops(place), dict[tuple[str, str], str]()
    bad = {
        "empty": (b" \n", "is empty"),
        "large": (b"- [ ] a\n" * 2**20, "is larger than 4 MiB"),
        "binary": (b"- [ ] a\n\0\n", "is no text (line 2 holds a zero byte)"),
        "latin": (b"- [ ] \xe4\n", "is not UTF-8 (line 1, byte 0xe4)"),
    }
    for kind, (data, what) in bad.items():
        for name in ("plan.md", "TASK.md"):
            path = loops.add(f"{kind} {name}")
            (path / name).write_bytes(data)
            if (kind, name) == ("empty", "TASK.md"):
                wanted[path.name, "workspace.task"] = f"warn: {path}/TASK.md is empty"
            else:
                wanted[path.name, "workspace"] = f"{name} {what}"
    (loops.add("no plan") / "plan.md").unlink()
    wanted["no plan", "workspace"] = "fail: plan file"
    path = loops.add("plan is a directory") / "plan.md"
    path.unlink()
    path.mkdir()
    wanted["plan is a directory", "workspace"] = "is a directory"
    (loops.add("no task") / "TASK.md").unlink()
    wanted["no task", "workspace.task"] = "warn: "
    (loops.add("state is a file") / ".codex-self-iter").touch()
    wanted["state is a file", "workspace"] = "fail: state directory"
    (loops.add("gone") / "plan.md").unlink()
    (place.path / "gone/TASK.md").unlink()
    (place.path / "gone").rmdir()
    wanted["gone", "workspace"] = "does not exist"
    (loops.add("private") / ".codex-self-iter").mkdir(mode=0o700)
    wanted["private", "state"] = "is private"
    more = loops.add("edited") / "TASK.md"
    more.write_text("\ufeff" + "\r\n".join(TASK.replace("- Must not:\n", "\n").splitlines()))
    wanted["edited", "workspace.task"] = "warn: "
    (loops.add("no box", keys='agent = "plan-shell"\n') / "plan.md").write_text("Do it.\n")
    wanted["no box", "workspace.plan"] = "warn: no checkbox in "
    (loops.add("words") / "plan.md").write_text("Do it.\n")
    wanted["words", "workspace.plan"] = "ok"
    loops.add("good")
    wanted |= {("good", check): "ok" for check in ("workspace", "workspace.task", "workspace.plan")}
    found = loops.findings()
    assert {key: found[key] for key, what in wanted.items() if what not in found[key]} == {}


@pytest.mark.slow
def test_each_flaw_of_git_template_and_agents(place: Place) -> None:
    for name in [name for name in place.env if name.startswith(("GIT_AUTHOR", "GIT_COMM"))]:
        del place.env[name]
    place.env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.useConfigOnly",
                  "GIT_CONFIG_VALUE_0": "true"}  # fmt: skip
    (place.path / ".git/HEAD").unlink()
    (place.path / ".git/config").unlink()
    subprocess.run(["rm", "-rf", place.path / ".git"], check=True)
    loops, wanted = Loops(place), dict[tuple[str, str], str]()
    loops.add("plain")
    wanted["plain", "git.repository"] = "warn: the workspace is no git repository"
    for name, what in {"rebase-merge": "a rebase", "CHERRY_PICK_HEAD": "a cherry-pick"}.items():
        (loops.add(name, repository=True) / ".git" / name).touch()
        wanted[name, "git.unfinished"] = f"warn: {what} is in progress"
    (loops.add("young", repository=True) / ".git/index.lock").touch()
    wanted["young", "git.index_lock"] = "warn: "
    for commit, level in {"none": "ok", "supervisor": "warn", "agent": "fail"}.items():
        loops.add(commit, repository=True, keys=f'git.commit = "{commit}"\n')
        wanted[commit, "git.identity"] = f"{level}: git does not know who commits"
    scripts = {
        "plain.sh": ("#!/bin/sh\n", 0o600, "cannot be executed"),
        "windows.sh": ("#!/bin/sh\r\n", 0o700, "Windows line ends"),
        "strange.sh": ("#!/no/such/shell\n", 0o700, "asks for /no/such/shell"),
        "missing.sh": (None, 0, "does not exist"),
    }
    for name, (text, mode, what) in scripts.items():
        path = loops.add(name, keys=f'agent_command_template = "./agent/{name} {{prompt_file}}"\n')
        (path / "agent").mkdir()
        if text is not None:
            (path / "agent" / name).write_text(text)
            (path / "agent" / name).chmod(mode)
        wanted[name, "agent.command"] = what
    place.program(
        "codex", 'case "$1" in login) echo Logged in ;; *) echo codex-cli 0.169.0 ;; esac'
    )
    place.program("unshare", "exit 1")
    loops.add("safe", keys='agent = "codex"\n')
    wanted["safe", "sandbox"] = "warn: user namespaces do not work here"
    loops.add("bypass", keys='agent = "codex"\nagent_mode = "bypass"\n')
    wanted["bypass", "agent.codex"] = "ok: codex 0.169.0"
    found = loops.findings()
    wrong = {key: found.get(key) for key, what in wanted.items() if what not in found.get(key, "")}
    assert wrong == {}
    assert ("bypass", "sandbox") not in found


KINDS = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "drvfs")
HERE = ("ext4", "overlay", "tmpfs", "btrfs", "xfs", "apfs", "fuse.gvfsd-fuse")


@pytest.mark.slow
def test_each_file_system_of_another_machine(place: Place) -> None:
    place.prefix = ("unshare", "-m" if os.geteuid() == 0 else "-rm")
    possible(place)
    loops, table = Loops(place), place.root / "mountinfo"
    lines = ["1 0 0:1 / / rw - ext4 x rw"]
    for number, kind in enumerate((*KINDS, *HERE), 2):
        path = str(loops.add(kind)).replace(" ", "\\040")
        lines.append(f"{number} 1 0:{number} / {path} rw shared:1 - {kind} x rw")
    table.write_text("\n".join(lines) + "\n")
    place.script = f'mount --bind {shlex.quote(str(table))} /proc/$$/mountinfo; exec "$@"'
    found = loops.findings()
    assert {loop for loop, check in found if check == "workspace.network"} == set(KINDS)


# -- the page --------------------------------------------------------------------------------------


def rows() -> dict[str, str]:
    """Check: level of its fault, as the page says."""
    checks = PAGE[PAGE.index("## The machine") :]
    return dict(re.findall(r"^\| `([a-zA-Z_.]+)` \| ([^|]+?) \|", checks, re.MULTILINE))


def names() -> Iterator[str]:
    """The names of all checks in the code; {…} in one of them is NAME, or N for a gate."""
    for path in (*(SOURCE / "cli/doctor").glob("*.py"), SOURCE / "supervisor/shortfalls.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            if getattr(called, "id", "") in ("good", "warn", "fail", "Shortfall"):
                yield from _literal(node.args[0])  # type: ignore[attr-defined]
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in (
                "key", "OWNER", "NETWORK"):  # fmt: skip
                yield from _literal(node.value)


def _literal(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        text = "".join(str(getattr(part, "value", "")) if isinstance(part, ast.Constant) else "{}"
                       for part in node.values)  # fmt: skip
        if text == "hook.{}.{}":
            yield "hook.MOMENT.N"
        elif text in ("sentinel.{}", "workspace.{}"):
            kinds = ("stop", "pause") if text[0] == "s" else ("task", "plan")
            yield from (text.format(kind) for kind in kinds)
        else:
            yield text.format("N" if text.startswith("gate.") else "NAME")


def test_every_check_has_its_row_and_every_row_its_check() -> None:
    assert set(names()) == set(rows())


def _general(check: str) -> str:
    """The name of a gate's or a hook's check as the page has it."""
    return re.sub(r"^hook\.\w+\.\d+$", "hook.MOMENT.N", re.sub(r"^gate\.\d+$", "gate.N", check))


def test_every_row_is_seen_red(tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}
    for number, scene in enumerate(SCENES.values()):
        if scene is root_elsewhere and os.geteuid() != 0:
            continue
        (tmp_path / str(number)).mkdir()
        place = Place(tmp_path / str(number))
        wanted = scene(place)
        place.close()
        for check, (status, *_) in wanted.items():
            general = _general(check)
            general = re.sub(r"^(agent|budget|notify)\.[a-z]+", r"\1.NAME", general)
            seen.setdefault(general, set()).add(status)
    for check, levels in rows().items():
        told = {level for level in re.split(", ", levels) if level in ("fail", "warn")}
        if check in NO_FAULT or (check.endswith(".owner") and os.geteuid() != 0):
            continue
        assert seen.get(check, set()) & told, check
        assert seen[check] <= told | {"ok"}, check


@pytest.mark.parametrize("manager", ["systemd", "launchd"])
def test_a_service_of_which_nobody_hears_is_a_warning(place: Place, manager: str) -> None:
    def installed(*words: str) -> dict[str, Any]:
        def service(action: str, *more: str) -> None:
            argv = [*PROGRAM, "service", action, "--manager", manager, "--name", "x", *more]
            subprocess.run(argv, cwd=place.path, env=place.env, check=True, timeout=60)

        service("install", *words)
        found: dict[str, Any] = place.findings()[1]["notify"]
        service("uninstall")
        return found

    assert place.findings()[1]["notify"]["status"] == "ok"
    elsewhere = place.root / "elsewhere"
    elsewhere.mkdir()
    assert installed("--workspace", str(elsewhere))["status"] == "ok", "it is another one's"
    for words in ((), ("--config-dir", str(place.path))):
        said = installed(*words)
        assert (said["status"], "runs it unattended" in said["what"]) == ("warn", True), said
        assert "docs/notifications.md" in said["mend"]
    config = (place.path / "codex-self-iter.toml").read_text()
    place.config(config + '[notify]\ncommand = ["true"]\n')
    assert installed()["status"] == "ok"


def test_people_read_the_mend_below_the_fault(place: Place) -> None:
    (place.path / ".codex-stop").touch()
    done = place.doctor()
    assert done.returncode == 4
    assert f"\n        mend: rm '{place.path}/.codex-stop'\n" in done.stdout
    assert done.stdout.rstrip().endswith("a run would be stopped or spoilt.")
    assert place.doctor("--no-such-flag").returncode == 2
    (place.path / ".codex-stop").unlink()
    done = place.doctor()
    assert (done.returncode, "mend:" in done.stdout) == (0, False)
    assert done.stdout.rstrip().endswith("nothing stands in the way of a run.")


def test_a_budget_that_is_spent_is_said_before_a_start_ends_of_it(ws: Workspace) -> None:
    ws.config("[budget]\nmax_hours = 0.000001\n")
    ws.script({"sleep": 0.1, "block": {"completed": False}})
    assert ws.run() == 4
    assert ws.started() == 1
    told = ws.status()["reason"]
    assert told.startswith("budget spent: [budget] max_hours")
    done = ws.cli("doctor")
    assert (done.returncode, f"[ FAIL ] budget: {told}\n" in done.stdout) == (4, True)
    ws.config("[budget]\nmax_hours = 1\n")
    done = ws.cli("doctor")
    assert (done.returncode, "[  ok  ] budget: " in done.stdout) == (0, True)


@pytest.mark.slow
def test_each_loop_has_its_name(place: Place) -> None:
    place.config(f'{TEMPLATE}{GATE}[[workspaces]]\npath = "."\n[[workspaces]]\npath = "gone"\n')
    done = place.doctor("--config", "codex-self-iter.toml")
    assert "[  ok  ] a b: workspace: " in done.stdout
    assert "[ FAIL ] gone: workspace: " in done.stdout
    assert done.stdout.count("time.clock:") == 1
    report = json.loads(place.doctor("--config", "codex-self-iter.toml", "--json").stdout)
    assert set(report) == {"schema", "ok", "findings"}
    assert {tuple(one) for one in report["findings"]} == {("id", "status", "what", "mend", "loop")}
    assert {one["loop"] for one in report["findings"]} == {"", "a b", "gone"}
    fields = set(re.findall(r"^\| `(?:findings\[\]\.)?([a-z]+)` \| ", PAGE, re.MULTILINE))
    assert {"schema", "ok", "findings", "id", "status", "what", "mend", "loop"} <= fields


def test_a_gate_is_run_only_when_asked(place: Place) -> None:
    place.config(TEMPLATE + '[verify]\ncommands = ["touch ran && exit 3"]\n')
    assert place.findings()[1]["gate.1"]["status"] == "ok"
    assert not (place.path / "ran").exists()
    code, found = place.findings("--run-gates")
    assert (code, found["gate.1"]["status"], "exits 3" in found["gate.1"]["what"]) == (
        0,
        "warn",
        True,
    )
    assert (place.path / "ran").exists()


def test_a_start_says_the_same_words(ws: Workspace) -> None:
    ws.script({"say": "x", "exit": 1})
    ws.config(
        '[verify]\ncommands = ["true", "no-such-program"]\ngate_files = ["no/such"]\n'
        '[notify]\ncommand = ["no-such-notify"]\n[budget]\nmax_cost_usd = 1\n'
        '[hooks]\non_end = ["no-such-hook"]\n'
    )
    ws.plan("- [x] all\n")
    (ws.path / "TASK.md").write_text("\n")
    done = subprocess.run(
        [*PROGRAM, "doctor", "--json"], cwd=ws.path, env=ws.environment, capture_output=True,
        text=True, check=False, timeout=110,
    )  # fmt: skip
    marked = {
        name for name, level in rows().items() if "start" in level.split(", ")
    } - {"workspace.owner", "workspace.network"}  # fmt: skip
    said = {}
    for one in json.loads(done.stdout)["findings"]:
        name = _general(one["id"]).replace("budget.command", "budget.NAME")
        if name in marked:
            assert one["status"] != "ok", one
            said[one["id"]] = one["what"]
        elif one["id"] == "config.without_effect":
            said["gate_files"] = one["what"]
    assert "no file matches no/such" in said["gate_files"]
    assert {_general(re.sub("budget.*", "budget.NAME", n)) for n in said} == marked | {"gate_files"}
    checked = subprocess.run(
        [*PROGRAM, "config", "check"], cwd=ws.path, env=ws.environment, capture_output=True,
        text=True, check=False, timeout=110,
    )  # fmt: skip
    ws.run("--once")
    doubtful = said["gate.1"]
    assert "proves nothing" in doubtful
    for report in (
        ws.log(),
        "\n".join(ws.status()["warnings"]),
        (ws.state / "report.md").read_text(),
    ):
        assert [what for what in said.values() if what not in report] == [doubtful]
    assert "TASK.md does not exist" not in str(ws.status()["warnings"])
    commands = [what for name, what in said.items() if name.startswith(("gate", "hook", "notify"))]
    assert [what for what in commands if what not in checked.stdout] == []
