"""The engines that run containers, podman and docker, and the one container of a loop."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Mapping, Sequence

from codex_self_iter.core.fence_container import STATE_LABEL
from codex_self_iter.world.bounded import MAX_OUTPUT, ToolResult
from codex_self_iter.world.process import kill, proctable
from codex_self_iter.world.process.tool import ChildCommand

ENGINES = ("podman", "docker")
_ASK_SEC = 30.0
_MAKE_SEC = 300.0
"""The first container of an image has its layers prepared for the user who asks."""
_FORMAT = '{{.State.Running}} {{.State.Pid}} {{index .Config.Labels "' + STATE_LABEL + '"}}'


class ContainerError(Exception):
    """An engine refused: one line."""


@dataclasses.dataclass(frozen=True, slots=True)
class First:
    """Process 1 of a container as seen from here; `conmon`: podman's process beside it."""

    pid: int = 0
    start: int = 0
    conmon: int = 0
    conmon_start: int = 0

    @property
    def lives(self) -> bool:
        """Whether exactly this process is there."""
        return self.pid > 1 and proctable.start_ticks(self.pid) == self.start


@dataclasses.dataclass(frozen=True, slots=True)
class Engine:
    """One engine. Every call blocks; the `environment` is the supervisor's own."""

    program: str
    environment: Mapping[str, str]

    @property
    def name(self) -> str:
        return os.path.basename(self.program)

    @property
    def rootless_podman(self) -> bool:
        """Its containers have user ids of their own, unless they are told otherwise."""
        return self.name == "podman" and os.geteuid() != 0

    def flaw(self, image: str) -> tuple[str, str]:
        """Why it cannot run this image, and what mends it; "" twice when it can."""
        if self._ask("image", "inspect", "--format={{.Id}}", image).ok:
            return "", ""
        version = self._ask(
            "version", "--format={{.Server.Version}}" if self.name == "docker" else ""
        )
        if not version.ok:
            said = _last_line(version)
            return f"{self.name} cannot be used: {said}", _start_of(self.name, said)
        what = f"{self.name} has no image {image!r}, and it is never fetched unasked"
        return what, f"get it ({self.name} pull {image}), or build one"

    def make(self, words: Sequence[str]) -> None:
        """Make and start a container. Raises ContainerError."""
        done = self._call(words, _MAKE_SEC)
        if not done.ok:
            raise ContainerError(_last_line(done))

    def first(self, name: str) -> First:
        """Process 1 of a running container. Raises ContainerError."""
        done = self._ask("inspect", f"--format={_FORMAT}", name)
        words = done.stdout.decode("utf-8", "replace").split(maxsplit=2)
        if not done.ok or words[0] != "true":
            raise ContainerError(_last_line(done) or "it has ended at once")
        pids = int(words[1]), self._conmon(name)
        first = First(*(part for pid in pids for part in (pid, proctable.start_ticks(pid))))
        if not first.start:
            what = "its containers run on another machine, and files and processes must be here"
            raise ContainerError(what)
        return first

    def _conmon(self, name: str) -> int:
        if self.name != "podman":
            return 0
        said = self._ask("inspect", "--format={{.State.ConmonPid}}", name).stdout.strip()
        return int(said) if said.isdigit() else 0

    def owner(self, name: str) -> str | None:
        """The state directory of the loop whose container has this name; "" for another's, None
        where there is none."""
        done = self._ask("inspect", "--type=container", f"--format={_FORMAT}", name)
        words = done.stdout.decode("utf-8", "surrogateescape").rstrip("\n").split(" ", 2)
        return words[2] if done.ok and len(words) == 3 else "" if done.ok else None

    def remove(self, name: str) -> str:
        """Remove a container with all that runs in it; why not, or ""."""
        done = self._call(("rm", "--force", "--volumes", name), _ASK_SEC)
        return "" if done.ok or self.owner(name) is None else _last_line(done)

    def _ask(self, *words: str) -> ToolResult:
        return self._call(tuple(filter(None, words)), _ASK_SEC)

    def _call(self, words: Sequence[str], patience: float) -> ToolResult:
        try:
            # what it starts in the background is left: that is the container
            return ChildCommand(
                [self.program, *words], "/", self.environment, patience, MAX_OUTPUT, None
            ).run()
        except OSError as error:
            return ToolResult(None, error=str(error))


def spare(first: First) -> None:
    """podman's process beside the container becomes our child: no left-over of a run."""
    if first.conmon:
        kill.children.spare(first.conmon, first.conmon_start)


def unspare(first: First) -> None:
    """The container is gone, and with it that process."""
    kill.children.unspare(first.conmon, first.conmon_start)


def find(choice: str, environment: Mapping[str, str]) -> tuple[Engine | None, str, str]:
    """The engine that is asked for, or why there is none and what mends it."""
    if not sys.platform.startswith("linux"):
        what = (
            'the fence\'s level "container" needs an engine that runs on this very machine: Linux'
        )
        return None, what, 'set [fence] level to "none"'
    wanted = ENGINES if choice == "auto" else (choice,)
    for name in wanted:
        if program := shutil.which(name, path=environment.get("PATH") or os.defpath):
            return Engine(program, environment), "", ""
    what = f'no program {" or ".join(wanted)} on PATH, which the fence\'s level "container" needs'
    return None, what, f"install {wanted[0]}"


def _last_line(done: ToolResult) -> str:
    """What a command says at its end, or how it ended."""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    text = lines[-1].removeprefix("Error: ") if lines else done.error
    return text or ("it does not answer" if done.timed_out else f"exit code {done.exit_code}")


def _start_of(name: str, said: str) -> str:
    if name != "docker":
        return f"see what `{name} info` says"
    if "permission denied" in said.lower():
        return 'let this user talk to it (group docker), or use podman: [fence] engine = "podman"'
    return 'start it (systemctl start docker), or use podman: [fence] engine = "podman"'
