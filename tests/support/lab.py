"""A real `systemd --user` in private namespaces: own processes, mounts, control group; no network,
no trace.

A service manager that shares a directory with the machine can damage it (tmpfiles rules empty
/tmp). So the first thing inside is a private /tmp, /var/tmp and /run; the unit search path is the
lab's own directory, so that no unit of the machine (systemd-tmpfiles among them) is ever loaded;
generators are switched off."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from codex_self_iter.service import systemd
from codex_self_iter.service.spec import ServiceSpec

SOURCE = Path(__file__).resolve().parents[2]
ESCAPEES = ("sleep 54321", "sleep 54322", "sleep 54323")
UNIT = systemd.unit_name("my-loop")
SYSTEMD = "/lib/systemd/systemd"
PATIENCE_SEC = 30.0
STUBS = (
    "basic.target",
    "default.target",
    "shutdown.target",
    "exit.target",
    "app.slice",
    "-.slice",
    "init.scope",
)
MULTI_USER = ("multi-user.target", "network-online.target", "sysinit.target")

# $1 is the lab, the rest are paths that must stay visible although /tmp is private.
BOOT = r"""
set -eu
lab=$1; shift
mount --make-rprivate /
hold=/mnt
mount -t tmpfs -o mode=700 tmpfs "$hold"
n=0
for path in "$lab" "$@"; do n=$((n+1)); mkdir "$hold/$n"; mount --bind "$path" "$hold/$n"; done
for place in /tmp /var/tmp /run; do mount -t tmpfs -o mode=1777 tmpfs "$place"; done
n=0
for path in "$lab" "$@"; do
    n=$((n+1))
    case $path in /tmp/*|/var/tmp/*|/run/*|/mnt/*) mkdir -p "$path"; mount --bind "$hold/$n" "$path";; esac
done
mount -t proc proc /proc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR"
mkdir /sys/fs/cgroup/lab
echo 0 > /sys/fs/cgroup/lab/cgroup.procs
trap '' HUP TERM INT
SYSTEMD_BIN --user --log-level=info --log-target=console > "$lab/systemd.log" 2>&1 &
while :; do wait || :; sleep 0.2; done
"""


def missing() -> str:
    """What keeps the lab from being built here, "" if nothing does."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    if not os.path.exists(SYSTEMD):
        return "needs systemd (Debian package systemd)"
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "needs unshare and nsenter (Debian package util-linux)"
    if cgroup_root() is None:
        return "needs a writable cgroup v2 hierarchy"
    return ""


def cgroup_root() -> Path | None:
    """Where this machine has its cgroup v2 hierarchy."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(",") and os.access(where, os.W_OK):
            return Path(where)
    return None


def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE_SEC) -> None:
    """Wait for something that must happen."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


class Lab:
    """One service manager. Use as a context manager."""

    def __init__(self, directory: Path, keep: tuple[Path, ...] = ()) -> None:
        """`keep` are paths which the services need, wherever they are."""
        self.directory = directory
        self.units = directory / "units"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
            "XDG_RUNTIME_DIR": "/run/lab",
            "XDG_CONFIG_HOME": str(directory / "home" / ".config"),
            "SYSTEMD_UNIT_PATH": str(self.units),
            "SYSTEMD_GENERATOR_PATH": str(directory / "none"),
            "SYSTEMD_ENVIRONMENT_GENERATOR_PATH": str(directory / "none"),
            "LANG": "C.UTF-8",
        }
        self._keep = keep
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0
        root = cgroup_root()
        assert root is not None
        self._cgroup = root / f"codex-self-iter-lab-{os.getpid()}-{time.monotonic_ns()}"

    def __enter__(self) -> Lab:
        for name in ("units", "home", "none"):
            (self.directory / name).mkdir()
        for name in STUBS:
            body = "[Unit]\nDefaultDependencies=no\n" if name.endswith("target") else "[Unit]\n"
            if not name.startswith(("-", "init")):
                (self.units / name).write_text(body, encoding="utf-8")
        for name in MULTI_USER:
            (self.units / name).write_text("[Unit]\nDefaultDependencies=no\n", encoding="utf-8")
        self._cgroup.mkdir()
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _boot(self) -> None:
        script = BOOT.replace("SYSTEMD_BIN", SYSTEMD)
        inner = [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount",
            "--cgroup",
            "--net",
            "--ipc",
            "--uts",
        ]
        paths = [str(path) for path in self._keep]
        enter = f'echo $$ > {self._cgroup}/cgroup.procs; exec "$@"'
        argv = [*inner, "bash", "-c", script, "bash", str(self.directory), *paths]
        with (self.directory / "boot.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", enter, "sh", *argv],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        until(self._is_up, f"systemd is up; {self.log()}")

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the lab ended: {self.log()}"
        if not self._init:
            children = psutil.Process(self._process.pid).children()
            if not children or self._process.args is None:
                return False
            self._init = children[0].pid
        return self.systemctl("is-system-running", check=False).stdout.strip() in (
            "running",
            "degraded",
        )

    def log(self) -> str:
        """What the manager said, for failure messages."""
        parts = [self.directory / name for name in ("boot.log", "systemd.log")]
        return "\n".join(
            path.read_text(errors="replace")[-4000:] for path in parts if path.exists()
        )

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        enter = [
            "nsenter",
            "--target",
            str(self._init),
            "--pid",
            "--mount",
            "--cgroup",
            "--net",
            "--",
        ]
        done = subprocess.run(
            [*enter, *argv],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SEC,
            check=False,
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stderr}\n{self.log()}"
        return done

    def systemctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `systemctl --user`."""
        return self.run("systemctl", "--user", *words, check=check)

    def install(self, unit: str, text: str, **overrides: str) -> None:
        """Place a unit as it is; `overrides` go into a drop-in, as a person would shorten its
        times."""
        (self.units / unit).write_text(text, encoding="utf-8")
        directory = self.units / f"{unit}.d"
        directory.mkdir(exist_ok=True)
        unit_keys = [
            f"{key}={value}" for key, value in overrides.items() if key.startswith("StartLimit")
        ]
        service_keys = [
            f"{key}={value}" for key, value in overrides.items() if not key.startswith("StartLimit")
        ]
        text = "\n".join(["[Unit]", *unit_keys, "[Service]", *service_keys])
        (directory / "lab.conf").write_text(text + "\n", encoding="utf-8")
        self.systemctl("daemon-reload")

    def show(self, unit: str) -> dict[str, str]:
        """The manager's view of a unit."""
        lines = self.systemctl("show", unit).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def until_state(self, unit: str, **expected: str) -> dict[str, str]:
        """Wait until the manager's view has these values; returns it."""
        seen: dict[str, str] = {}

        def reached() -> bool:
            seen.update(self.show(unit))
            return all(seen.get(key) == value for key, value in expected.items())

        try:
            until(reached, f"{unit} {expected}")
        except AssertionError as error:
            keys = (
                "ActiveState",
                "SubState",
                "Result",
                "NRestarts",
                "StatusText",
                "ExecMainStatus",
                "MainPID",
            )
            raise AssertionError(
                f"{error}: {[(key, seen.get(key)) for key in keys]}\n{self.log()}"
            ) from None
        return seen

    def processes(self, *needles: str) -> list[str]:
        """Command lines of the lab's living processes that contain one of the needles."""
        found = []
        for pid in self._pids():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                line = " ".join(process.cmdline())
                if process.status() != psutil.STATUS_ZOMBIE and any(
                    needle in line for needle in needles
                ):
                    found.append(line)
        return found

    def _pids(self) -> list[int]:
        """Every process of the lab, however it was started: its control group holds them all."""
        pids = []
        for file in self._cgroup.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                pids += [int(line) for line in file.read_text(encoding="ascii").split()]
        return pids

    def kill(self, unit: str, number: signal.Signals) -> None:
        """Send a signal to the main process alone."""
        self.systemctl("kill", f"--signal={number.value}", "--kill-who=main", unit)

    def close(self) -> None:
        """End every process of the lab and remove its control group."""
        if self._process is not None:
            # --kill-child: the namespaces' first process goes, and with it all others
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):
            (self._cgroup / "cgroup.kill").write_text("1", encoding="ascii")
        until(lambda: not self._pids(), "the lab is empty")
        for directory in sorted(self._cgroup.rglob("*"), reverse=True):
            if directory.is_dir():
                directory.rmdir()
        self._cgroup.rmdir()


class Service:
    """The unit under test and the files that steer its daemon."""

    def __init__(self, manager: Lab, name: str) -> None:
        self.manager = manager
        self.workspace = manager.directory / name / "my work 100% $HOME"
        self.workspace.mkdir(parents=True)
        self.control = manager.directory / name / "control"
        self.control.mkdir()
        self.env_file = manager.directory / name / "service.env"
        daemon = str(Path(__file__).with_name("daemon.py"))
        self.spec = ServiceSpec(
            name="my-loop",
            workspace=str(self.workspace),
            argv=(sys.executable, daemon, str(self.control)),
            env_file=str(self.env_file),
            environment={"PATH": manager.env["PATH"], "PYTHONPATH": str(SOURCE / "src")},
            stop_sec=2,
        )

    def install(self, text: str = "", **overrides: str) -> None:
        times = {"RestartSec": "100ms", "StartLimitBurst": "50"}
        self.manager.install(UNIT, text or systemd.render(self.spec), **(times | overrides))

    def start(self, **overrides: str) -> dict[str, str]:
        self.install(**overrides)
        self.manager.systemctl("start", UNIT)
        return self.manager.until_state(UNIT, ActiveState="active", SubState="running")

    def tell(self, name: str, content: str = "") -> None:
        (self.control / name).write_text(content, encoding="utf-8")

    def starts(self) -> list[str]:
        return (self.control / "starts").read_text(encoding="utf-8").splitlines()

    def until_gone(self) -> None:
        until(lambda: not self.manager.processes("daemon.py", *ESCAPEES), "every process is gone")

    def forget(self) -> None:
        """End it and whatever is left of it."""
        self.manager.systemctl("kill", "--signal=9", UNIT, check=False)
        self.manager.systemctl("stop", UNIT, check=False)
        self.manager.systemctl("reset-failed", UNIT, check=False)
        self.until_gone()
