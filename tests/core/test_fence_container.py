"""What is mounted into a container, how it is made, and what a run inside is given."""

from __future__ import annotations

import csv
import shlex
import subprocess

from codex_self_iter.core import fence_container as inner
from codex_self_iter.core.fence import Ground
from codex_self_iter.core.fence_container import Bind, Made

GROUND = Ground(
    workspace="/w/s",
    state="/w/s/.state",
    run="/w/s/.state/desk",
    scratch="/w/s/.state/desk/tmp",
    open=("/w/s/.git", "/home/a/.codex", "/w/s/.state/inbox", "/w/s/plan.md"),
    sealed=("/w/s/.git/hooks", "/w/s/a/b/gate.py", "/home/a/.gitconfig", "/etc/passwd"),
    closed=("/home/a/.ssh", "/w/s/.env"),
    sockets=("/run/user/1",),
)
MADE = Made("image:1", (Bind("rw", "/w"),), "/home/a", "/w", "1:2", offline=False)


def mounted(ground: Ground, *readable: str) -> dict[str, str]:
    return {bind.target or bind.path: bind.kind for bind in inner.binds(ground, readable)}


def test_only_what_is_open_is_mounted_and_what_is_sealed_lies_over_it() -> None:
    assert mounted(GROUND, "/docs", "/home/a/.codex/own") == {
        "/docs": "ro",
        "/home/a/.codex": "rw",
        "/run/tmp": "rw",
        "/w/s": "rw",
        "/w/s/.env": "closed",
        "/w/s/.git": "rw",
        "/w/s/.git/hooks": "ro",
        "/w/s/.state": "ro",
        "/w/s/.state/desk": "rw",
        "/w/s/.state/inbox": "rw",
        "/w/s/a": "rw",  # a mount of its own: it cannot be renamed
        "/w/s/a/b": "rw",
        "/w/s/a/b/gate.py": "ro",
    }


def test_outer_mounts_come_first() -> None:
    paths = [bind.path for bind in inner.binds(GROUND)[:-1]]
    assert all(
        not other.startswith(path + "/") for at, path in enumerate(paths) for other in paths[:at]
    )


def test_a_mount_is_one_line_of_csv_whatever_is_in_its_path() -> None:
    odd = '/w/a,b "c" $d=e:f'
    (fields,) = csv.reader([inner.mount(Bind("ro", odd))])
    assert fields == ["type=bind", f"src={odd}", f"dst={odd}", "readonly"]
    assert inner.mount(Bind("rw", "/a", "/b")) == "type=bind,src=/a,dst=/b"


def test_the_container_has_no_rights_and_no_network_that_is_not_wanted() -> None:
    words = inner.create(MADE, "n", "/st", "d", ("script", "sh", "fifo"), rootless_podman=False)
    assert {"--cap-drop=all", "--security-opt=no-new-privileges", "--pull=never"} <= set(words)
    assert words[-5:] == ["image:1", "-c", "script", "sh", "fifo"]
    assert not [word for word in words if word.startswith(("--network", "--userns", "--env"))]
    offline = inner.create(
        MADE._replace(offline=True), "n", "/st", "d", ("x",), rootless_podman=True
    )
    assert {"--network=none", "--userns=keep-id"} <= set(offline)


def test_another_container_is_wanted_when_anything_of_it_changes() -> None:
    same = inner.digest(MADE, [(1, 2)])
    assert same == inner.digest(MADE, [(1, 2)])
    assert same != inner.digest(MADE, [(1, 3)])
    assert same != inner.digest(MADE._replace(image="image:2"), [(1, 2)])
    assert same != inner.digest(MADE._replace(binds=()), [(1, 2)])


def test_a_line_break_in_a_path_is_refused() -> None:
    assert inner.unmountable(MADE) == ()
    assert inner.unmountable(MADE._replace(binds=(Bind("rw", "/a\nb"),))) == ("/a\nb",)
    assert inner.unmountable(MADE._replace(home="/a:b")) == ("/a:b",)


def test_what_means_something_outside_only_stays_there() -> None:
    environment = {"PATH": "/o", "SSH_AUTH_SOCK": "/s", "TMPDIR": "/l", "TMP": "/own", "A": "1"}
    assert inner.left_out(environment, configured=["SSH_AUTH_SOCK"]) == ["PATH"]
    assert inner.environment_inside(environment, "/l")["TMPDIR"] == "/run/tmp"
    assert inner.environment_inside(environment, "/l")["TMP"] == "/own"


def test_the_answer_is_written_on_the_desk_and_our_interpreter_is_the_images() -> None:
    words = ["/v/python", "-o", "/r/answer.txt", "/r/schema.json"]
    expected = ["python3", "-o", "/d/answer.txt", "/r/schema.json"]
    assert inner.words_inside(words, python="/v/python", run="/r", desk="/d") == expected


def test_the_script_becomes_the_program_with_its_words_as_they_are() -> None:
    odd = ["printf", "%s|", "a b", "it's $HOME `x`", "", "\n-"]
    script = inner.script(odd, "/", "/dev/null")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"{word}|" for word in odd[2:])


def test_a_program_that_is_not_there_is_said_on_descriptor_9() -> None:
    script = inner.script(["no-such-program", "a"], "/", "/dev/null")
    done = subprocess.run(
        ["sh", "-c", f"exec 9>&1; {script}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (127, "missing\n")


def test_each_state_directory_has_a_name_of_its_own() -> None:
    assert inner.name_of("/a") != inner.name_of("/b")
    assert shlex.quote(inner.name_of("/a b\udcff")) == inner.name_of("/a b\udcff")
