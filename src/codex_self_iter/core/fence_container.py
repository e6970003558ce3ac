"""The fence of level "container": what is mounted, how the container is made, and what is handed to
a run inside. Pure.

Only the agent is inside. What is mounted is at the same path on both sides, so that prompts,
configurations and answers mean the same; nothing else of this machine is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from codex_self_iter.core.fence import Ground, Means, inside, walls

TEMPORARY = "/run/tmp"
"""A run's temporary directory as it is named inside: short, and with no other mount below it."""
WRITTEN = ("answer.txt",)
"""Files of its run's directory that an agent writes: it writes them on the desk."""
STATE_LABEL, PLAN_LABEL = "codex-self-iter.state", "codex-self-iter.plan"
PROCESSES = 4096
PYTHON = "python3"
"""What stands for the interpreter that we ourselves run with."""

OUTSIDE = frozenset(
    (
        "PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "SHELL", "HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_",
        "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_AGENT_INFO", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS",
        "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DOCKER_HOST", "CONTAINER_HOST", "CONTAINERS_CONF",
        "CONTAINERS_STORAGE_CONF", "TMUX", "TMUX_PANE", "VIRTUAL_ENV", "PYTHONHOME", "NODE_PATH", "NVM_DIR",
        "NVM_BIN", "IFS", "PPID", "UID", "EUID", "GID", "BASHOPTS", "SHELLOPTS", "BASH_ENV", "ENV", "OPTIND",
        "PS4",
    )
)  # fmt: skip
"""Variables that mean something on this side only, or would upset the shell that starts the run."""
_SCRATCH = ("TMPDIR", "TMP", "TEMP", "BUN_TMPDIR")


class Bind(NamedTuple):
    """One mount: `kind` is "rw", "ro" or, before it is known what is empty, "closed"; `target` "" is
    the same path."""

    kind: str
    path: str
    target: str = ""


class Made(NamedTuple):
    """What a container is made of: all that makes another one necessary when it changes."""

    image: str
    binds: tuple[Bind, ...]
    home: str
    workspace: str
    user: str
    offline: bool


def binds(ground: Ground, readable: Iterable[str] = ()) -> tuple[Bind, ...]:
    """What is mounted, outer paths first. `ground.run` is the desk: what a run writes beside its
    work, and its temporary directory."""
    extra = [path for path in readable if not any(inside(path, one) for one in ground.open)]
    tops = (ground.workspace, ground.state, *ground.open, *extra)
    planned = [(str(kind), str(path)) for kind, path in walls(ground, Means.NAMESPACES)["mounts"]]
    there = {path for _, path in planned}
    planned += [("ro", path) for path in extra if path not in there]
    kept = [Bind(kind, path) for kind, path in planned if any(inside(path, top) for top in tops)]
    kept.sort(key=lambda bind: (bind.path.count("/"), bind.path))
    needed = (bind for bind in kept if not _needless(bind, kept))
    return (*needed, Bind("rw", ground.scratch, TEMPORARY))


def _needless(bind: Bind, others: Sequence[Bind]) -> bool:
    """Whether it opens what is open around it, and holds nothing closed. What is mounted cannot be
    replaced, as a plan is by whoever writes a new one and renames it."""
    around = [one for one in others if inside(bind.path, one.path) and one is not bind]
    if bind.kind != "rw" or not around or around[-1].kind != "rw":
        return False
    return not any(one.kind != "rw" and inside(one.path, bind.path) for one in others)


def name_of(state: str) -> str:
    """The container's name: one for each state directory."""
    return f"csi-{hashlib.sha256(state.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def digest(made: Made, marks: Iterable[object]) -> str:
    """Tells containers apart; `marks` say which file is mounted where another may be by now."""
    text = json.dumps([made, list(marks)], default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def create(
    made: Made, name: str, state: str, digest: str, script: Sequence[str], *, rootless_podman: bool
) -> list[str]:
    """The engine's arguments that make the container and start `script` as its process 1."""
    words = [
        "run", "--detach", f"--name={name}", f"--label={STATE_LABEL}={state}", f"--label={PLAN_LABEL}={digest}",
        "--pull=never", "--cap-drop=all", "--security-opt=no-new-privileges",
        "--security-opt=label=disable", f"--pids-limit={PROCESSES}", "--log-driver=none",
        "--stop-timeout=0", f"--user={made.user}", f"--workdir={made.workspace}",
    ]  # fmt: skip
    if rootless_podman:
        words.append("--userns=keep-id")
    if made.offline:
        words.append("--network=none")
    if made.home:
        words.append(f"--tmpfs={made.home}:rw,exec,nosuid,nodev,mode=1777")
    words += [f"--mount={mount(bind)}" for bind in made.binds]
    return [*words, "--entrypoint=/bin/sh", made.image, "-c", *script]


def mount(bind: Bind) -> str:
    """One mount as the engines read it: fields of a line of CSV."""
    fields = ["type=bind", f"src={bind.path}", f"dst={bind.target or bind.path}"]
    if bind.kind != "rw":
        fields.append("readonly")
    return ",".join(
        '"' + field.replace('"', '""') + '"' if set(field) & set(',"') else field
        for field in fields
    )


def unmountable(made: Made) -> tuple[str, ...]:
    """Paths that no engine takes."""
    paths = (*(bind.path for bind in made.binds), made.home)
    return tuple(path for path in paths if "\n" in path or (path == made.home and ":" in path))


def words_inside(argv: Sequence[str], *, python: str, run: str, desk: str) -> list[str]:
    """The agent's command line as it stands inside."""
    written = {f"{run}/{name}": f"{desk}/{name}" for name in WRITTEN}
    words = [written.get(word, word) for word in argv]
    if words[0] == python:
        words[0] = PYTHON
    return words


def left_out(environment: Mapping[str, str], configured: Iterable[str]) -> list[str]:
    """The variables that are not handed in; those that a person has `configured` for it are."""
    return sorted((OUTSIDE & environment.keys()) - set(configured))


def environment_inside(environment: Mapping[str, str], scratch: str) -> dict[str, str]:
    """The run's environment with the temporary directory as it is named inside."""
    return {
        name: TEMPORARY if name in _SCRATCH and value == scratch else value
        for name, value in environment.items()
    }


def script(words: Sequence[str], cwd: str, stdin: str) -> str:
    """What the run's shell does once it has the environment: it becomes the agent.

    A shell lets what it starts in the background ignore Ctrl-C for ever; where `env` can, that is
    mended. Descriptor 9 is where it says that there is no such program."""
    command = " ".join(map(quote, words))
    return (
        f"cd {quote(cwd)} && exec <{quote(stdin)} || exit 126\n"
        f"command -v {quote(words[0])} >/dev/null 2>&1 || {{ echo missing >&9; exit 127; }}\n"
        "exec 9>&-\n"
        "env --default-signal=INT,QUIT true 2>/dev/null && "
        f"exec env --default-signal=INT,QUIT {command}\n"
        f"exec {command}\n"
    )


def quote(word: str) -> str:
    """A word for a POSIX shell."""
    return "'" + word.replace("'", "'\"'\"'") + "'"
