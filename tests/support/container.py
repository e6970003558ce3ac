"""podman with a store of its own, in private namespaces: no container, mount or file is left.

podman and runc write below /run, /etc and /var/lib whatever store they are given, and a container
outlives the command that started it. So everything is done inside namespaces of processes and
mounts in which these three directories have a layer of ours over them, and images lie in memory
(a gigabyte); with their first process all of it is gone."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.support.harness import wait_until, wipe

PROGRAMS = ("podman", "runc", "mmdebstrap", "unshare", "nsenter")
RELEASE = "bookworm"
PACKAGES = "passwd,python3,python3-venv"
BASE = "localhost/base:1"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# crun cannot set limits in a hybrid hierarchy of control groups, and its own are high
SETTINGS = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "runc"
[containers]
apparmor_profile = "unconfined"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
netns = "host"
"""
# $1 is our directory; the last line's process is the first of the namespaces
BOOT = r"""
set -eu
mount --make-rprivate /
for place in run etc var/lib; do
    mkdir -p "$1/over/$place/upper" "$1/over/$place/work"
    mount -t overlay overlay "/$place" -o \
        "lowerdir=/$place,upperdir=$1/over/$place/upper,workdir=$1/over/$place/work"
done
mkdir "$1/store"
mount -t tmpfs tmpfs "$1/store"
mount -t proc proc /proc
touch "$1/up"
exec sleep infinity
"""


def missing() -> str:
    """What keeps containers from being run here, "" if nothing does."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"needs {', '.join(lacking)} (Debian packages)" if lacking else ""


class Podman:
    """podman below one directory. Use as a context manager."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._group = f"codex-self-iter-test-{os.getpid()}-{time.monotonic_ns()}"
        self._first: subprocess.Popen[bytes] | None = None
        places = {"root": "store/root", "runroot": "runroot", "tmpdir": "tmp"}
        self._podman = ("podman", *(f"--{name}={directory / at}" for name, at in places.items()))
        settings = directory / "containers.conf"
        self.environment = {"CONTAINERS_CONF": str(settings)}
        self._environment = {**os.environ, **self.environment, "TMPDIR": str(directory)}
        settings.write_text(SETTINGS)

    def __enter__(self) -> Podman:
        inner = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
        with (self.directory / "boot.log").open("wb") as log:
            self._first = subprocess.Popen(
                [*inner, "sh", "-c", BOOT, "sh", str(self.directory)],
                stdin=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        try:
            wait_until(self._is_up, lambda: (self.directory / "boot.log").read_text())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_up(self) -> bool:
        assert self._first is not None
        assert self._first.poll() is None, (self.directory / "boot.log").read_text()
        return (self.directory / "up").exists()

    def _init(self) -> str:
        """The first process inside."""
        assert self._first is not None
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children")
        return children.read_text().split()[0]

    def wrapper(self) -> None:
        """Put a program `podman` on the PATH of `environment` that works below our directory."""
        program = self.directory / "bin" / "podman"
        program.parent.mkdir()
        real, *flags = shutil.which("podman") or "", *self._podman[1:]
        program.write_text(
            f'#!/bin/sh\nfirst=$1; shift\n[ "$first" = run ] && set -- --cgroup-parent=/{self._group} "$@"\n'
            f'exec {shlex.join([real, *flags])} "$first" "$@"\n'
        )
        program.chmod(0o755)
        self.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"

    @property
    def entrance(self) -> tuple[str, ...]:
        """What starts a command in the namespaces."""
        return "nsenter", "--target", self._init(), "--mount", "--pid", "--"

    def inside(self, *words: str | Path, patience: float = 300, code: int = 0) -> str:
        """Run a command in the namespaces; what it printed. It must end with `code`."""
        done = subprocess.run(
            [*self.entrance, *words], env=self._environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=patience,
        )  # fmt: skip
        said = f"{words}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == code, said
        return done.stdout

    def __call__(self, *words: str | Path, code: int = 0) -> str:
        """Run a command of podman; what it printed. It must end with `code`."""
        group = [f"--cgroup-parent=/{self._group}"] if words[0] in ("build", "run") else []
        return self.inside(*self._podman, words[0], *group, *words[1:], code=code)

    def import_base(self) -> None:
        """A bare Debian with Python under the name of BASE, from Debian's archive."""
        store = self.directory / "store"
        tree, settings = store / "base.tar", self.directory / "pip.conf"
        hooks = ['ln -s python3 "$1/usr/bin/python"', f'cp "{settings}" "$1/etc/pip.conf"']
        lines = ["[global]"]
        if CERTIFICATES.exists():  # the package index may be reached through a proxy with its own
            hooks += [f'cp {CERTIFICATES} "$1/etc/index.crt"']
            lines += ["cert = /etc/index.crt"]
        if index := os.environ.get("PIP_INDEX_URL"):
            lines += [f"index-url = {index}"]
        settings.write_text("\n".join(lines) + "\n")
        choice = ("--quiet", "--mode=root", "--variant=apt", f"--include={PACKAGES}")
        added = [f"--customize-hook={hook}" for hook in hooks]
        # in memory: what dpkg syncs costs nothing there
        make = ("env", f"TMPDIR={store}", "mmdebstrap", *choice, *added, RELEASE, tree, _archive())
        self.inside(*make, patience=500)
        self("import", tree, BASE)
        self.inside("rm", tree)

    def close(self) -> None:
        """End every process, unmount everything, remove the control groups and all files."""
        if self._first is not None:
            self._first.kill()  # --kill-child: the namespaces' first process goes with it
            self._first.wait()
        groups = [*Path("/sys/fs/cgroup").glob(f"**/{self._group}")]
        for group in groups:
            wait_until(lambda group=group: _removed(group), f"no process is left in {group}")
        wipe(self.directory)


def _archive() -> str:
    """The archive that this machine itself installs the release from."""
    words = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return next(line.split()[1] for line in found if line.startswith(f"{RELEASE} "))


def _removed(group: Path) -> bool:
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    return not group.exists()
