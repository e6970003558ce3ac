"""What is rendered: escaping, exit codes, times; launchd's keys; deploy/; sd_notify's messages."""

import os
import plistlib
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.errors import ExitCode
from codex_self_iter.service import launchd, systemd
from codex_self_iter.service.spec import ServiceSpec, data, service_name, stop_seconds
from codex_self_iter.world.sdnotify import Notifier
from tests.support import deploy

NASTY = '/tmp/a "b" c%d $e \\f é;x'


def spec(**changes: Any) -> ServiceSpec:
    base = ServiceSpec(
        name="name", workspace=NASTY, argv=("/usr/bin/python3", "-m", "x", "--workspace", NASTY),
        env_file="/etc/x y.env", environment={"PATH": "/a b:/c$d%e"}, stop_sec=45,
    )  # fmt: skip
    return base._replace(**changes)


def value(text: str, key: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(key + "=")]
    return line.partition("=")[2]


def test_the_unit_carries_the_contracts_exit_codes() -> None:
    text = systemd.render(spec())
    prevented = {int(code) for code in value(text, "RestartPreventExitStatus").split()}
    assert prevented == {ExitCode.USAGE, ExitCode.STAGNATED, ExitCode.NEEDS_HUMAN, ExitCode.BUSY}
    assert int(value(text, "SuccessExitStatus")) == ExitCode.SIGINT
    assert value(text, "Restart") == "on-failure"


def test_paths_are_escaped_as_each_directive_wants_it() -> None:
    text = systemd.render(spec())
    assert value(text, "WorkingDirectory") == NASTY.replace("%", "%%")
    assert '"/tmp/a \\"b\\" c%%d $$e \\\\f é;x"' in value(text, "ExecStart")
    assert value(text, "Environment") == '"PATH=/a b:/c$d%%e"'
    assert "@" not in "".join(line for line in text.splitlines() if not line.startswith("#"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("system", [False, True])
def test_systemd_finds_nothing_wrong(tmp_path: Path, system: bool) -> None:
    workspace = tmp_path / 'a "b" c%d $e'
    workspace.mkdir()
    user = "root" if system else ""
    fine = spec(argv=("/bin/true",), workspace=str(workspace), system=system, user=user)
    assert systemd.verify(systemd.render(fine), "codex-self-iter-x.service", system=system) == ""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("broken", ["Type=nonsense", "Colour=blue", "ExecStart=/does/not/exist"])
def test_systemd_would_find_what_is_wrong(broken: str) -> None:
    text = systemd.render(spec(argv=("/bin/true",), workspace="/"))
    text = (
        text.replace("Type=notify", broken)
        if not broken.startswith("Exec")
        else text.replace("/bin/true", "/x/y")
    )
    assert systemd.verify(text, "codex-self-iter-x.service", system=False) != ""


def test_a_system_unit_adds_account_mounts_and_hardening() -> None:
    text = systemd.render(spec(system=True, user="someone", workspace="/srv/x"))
    assert value(text, "User") == "someone"
    assert value(text, "RequiresMountsFor") == "/srv/x"
    assert value(text, "ReadWritePaths") == "/srv/x"
    assert value(text, "PrivateTmp") == "yes"
    assert value(text, "WantedBy") == "multi-user.target"
    assert "User=" not in systemd.render(spec())


def test_a_workspace_below_tmp_is_not_hidden_from_its_own_service() -> None:
    assert "PrivateTmp=yes" not in systemd.render(spec(system=True, workspace="/tmp/x"))


def test_every_directive_is_explained() -> None:
    """A comment stands above each directive or the group it belongs to."""
    lines = systemd.render(spec(system=True, workspace="/srv/x")).splitlines()
    service = lines[lines.index("[Service]") + 1 : lines.index("[Install]")]
    explained, unexplained = False, []
    for line in service:
        explained = line.startswith("#") or (explained and bool(line))
        if "=" in line and not line.startswith("#") and not explained:
            unexplained.append(line)
    assert unexplained == ["SyslogIdentifier=codex-self-iter"]


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        ({}, 45),
        ({"kill_grace_sec": 60.5}, 96),
        ({"service": {"on_stop": "finish"}}, 3645),
        ({"service": {"on_stop": "finish", "finish_timeout_sec": 100}, "kill_grace_sec": 0}, 135),
        ({"service": 5, "kill_grace_sec": "x"}, 45),
        ({"kill_grace_sec": float("inf")}, 45),
    ],
)
def test_the_unit_waits_longer_than_the_supervisor_may_take(
    config: dict[str, Any], seconds: int
) -> None:
    assert stop_seconds(config) == seconds


@pytest.mark.parametrize(
    ("workspace", "name"),
    [
        ("/a/my repo", "my-repo"),
        ("/a/b/", "b"),
        ("/", "loop"),
        ("/x/日本", "loop"),
        ("/x/-a.", "a"),
    ],
)
def test_a_service_is_named_after_its_workspace(workspace: str, name: str) -> None:
    assert service_name(workspace) == name


def test_the_files_under_deploy_are_the_rendered_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where one stands must not matter, least of all below /tmp
    for name, text in deploy.rendered().items():
        assert (deploy.DEPLOY / name).read_text(encoding="utf-8") == text, (
            f"run tests/service/deploy.py: {name}"
        )


def test_launchd_keys_have_their_types_and_meaning() -> None:
    text = launchd.render(spec(system=True, user="me"))
    assert launchd.verify(text) == ""
    keys = plistlib.loads(text.encode())
    assert keys["KeepAlive"] == {"SuccessfulExit": False}
    assert keys["ThrottleInterval"] == 30
    assert keys["ExitTimeOut"] == 45
    assert keys["ProgramArguments"][:2] == ["/bin/sh", data("launchd-wrapper.sh")]
    assert keys["ProgramArguments"][-1] == NASTY
    assert Path(keys["ProgramArguments"][1]).is_file()
    assert keys["UserName"] == "me"
    assert keys["AbandonProcessGroup"] is False


@pytest.mark.parametrize(
    "damage",
    [("Label", "Labl"), ("<integer>45</integer>", "<string>45</string>"), ("</plist>", "")],
)
def test_a_broken_property_list_is_found(damage: tuple[str, str]) -> None:
    assert launchd.verify(launchd.render(spec()).replace(*damage)) != ""


class Wrapper:
    """The launchd wrapper around a shell command."""

    def __init__(self, script: str, **env: str) -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", data("launchd-wrapper.sh"), "/bin/sh", "-c", script],
            env={"PATH": os.environ["PATH"], **env}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=20)
        return self.process.returncode, out


@pytest.mark.parametrize(
    ("code", "seen"),
    [(0, 0), (1, 1), (2, 0), (3, 0), (4, 0), (75, 0), (130, 0), (5, 5), (139, 139)],
)
def test_the_wrapper_turns_final_exit_codes_into_success(code: int, seen: int) -> None:
    assert Wrapper(f"exit {code}").end()[0] == seen


def test_the_wrapper_keeps_a_crash_a_crash() -> None:
    assert Wrapper("kill -SEGV $$").end()[0] == 128 + signal.SIGSEGV


def test_the_wrapper_hands_signals_on_and_waits_for_the_end() -> None:
    traps = "trap 'echo hup' HUP; trap 'echo term; sleep 0.3; echo saved; exit 3' TERM"
    script = f"{traps}; echo up; while :; do sleep 0.05; done"
    wrapper = Wrapper(script)
    assert wrapper.process.stdout is not None
    assert wrapper.process.stdout.readline() == "up\n"
    wrapper.process.send_signal(signal.SIGHUP)
    assert wrapper.process.stdout.readline() == "hup\n"
    wrapper.process.send_signal(signal.SIGTERM)
    assert wrapper.end() == (0, "term\nsaved\n")


@pytest.mark.parametrize(("asked", "seen"), [("$PPID", 0), ("$$", 143)])
def test_the_wrapper_tells_a_stop_before_the_first_line_from_a_kill(asked: str, seen: int) -> None:
    assert Wrapper(f"kill -TERM {asked}; exec sleep 20").end()[0] == seen


@pytest.mark.parametrize("attempt", range(10))
def test_the_wrapper_bears_a_signal_at_its_very_start(attempt: int) -> None:
    assert Wrapper("trap '' HUP; kill -HUP $PPID; sleep 0.1; exit 7").end()[0] == 7


def test_the_wrapper_reads_the_environment_file(tmp_path: Path) -> None:
    file = tmp_path / "a b.env"
    file.write_text("KEY='from the file'\n", encoding="utf-8")
    assert Wrapper('echo "$KEY"', CODEX_SELF_ITER_ENV_FILE=str(file)).end() == (
        0,
        "from the file\n",
    )
    assert Wrapper("exit 0", CODEX_SELF_ITER_ENV_FILE=str(tmp_path / "none")).end() == (0, "")


# -- sd_notify --------------------------------------------------------------------------------


def listener(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind("\0" + address[1:] if address.startswith("@") else address)
    sock.settimeout(5)
    return sock


@pytest.mark.parametrize("abstract", [False, True])
def test_messages_arrive_as_the_protocol_says(tmp_path: Path, abstract: bool) -> None:
    address = f"@codex-self-iter-{os.getpid()}" if abstract else str(tmp_path / "s")
    with listener(address) as sock:
        notifier = Notifier(address)
        assert notifier.active
        assert notifier.ready("iteration 3:\nrunning")
        assert sock.recv(4096) == b"READY=1\nSTATUS=iteration 3: running"
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier.reloading()
        first, second = sock.recv(4096).decode().splitlines()
        assert first == "RELOADING=1"
        assert int(second.removeprefix("MONOTONIC_USEC=")) >= before
        for send, expected in (
            (notifier.stopping, b"STOPPING=1"),
            (notifier.watchdog, b"WATCHDOG=1"),
            (lambda: notifier.status("x" * 9999), b"STATUS=" + b"x" * 500),
        ):
            assert send()
            assert sock.recv(4096) == expected


@pytest.mark.parametrize(
    "address", ["", "/does/not/exist", "@nobody-listens-here", "/" + "x" * 300]
)
def test_nobody_listening_is_no_error(address: str) -> None:
    notifier = Notifier(address)
    assert notifier.ready("x") is False
    assert notifier.watchdog() is False


def test_a_listener_that_does_not_read_cannot_stop_us(tmp_path: Path) -> None:
    with listener(str(tmp_path / "s")):
        notifier = Notifier(str(tmp_path / "s"))
        sent = [notifier.status("x" * 400) for _ in range(20_000)]
        assert not all(sent)


# -- containers: as they are read; test_container.py builds and runs the image --------------


def test_the_image_runs_as_a_person_and_needs_no_init() -> None:
    lines = (deploy.DEPLOY / "docker" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    words = [line.split()[0] for line in lines if line and not line.startswith((" ", "#"))]
    known = {
        "FROM",
        "RUN",
        "COPY",
        "ARG",
        "USER",
        "ENV",
        "WORKDIR",
        "VOLUME",
        "STOPSIGNAL",
        "HEALTHCHECK",
    }
    assert set(words) <= known | {"ENTRYPOINT", "CMD"}
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "USER agent" in lines
    assert not any(
        "tini" in line or "dumb-init" in line for line in lines if not line.startswith("#")
    )


def test_the_compose_file_is_plain_and_names_files_that_are_there() -> None:
    text = (deploy.DEPLOY / "docker" / "compose.yaml").read_text(encoding="utf-8")
    assert "\t" not in text
    assert (deploy.DEPLOY / "docker" / "../.." / value_of(text, "dockerfile")).is_file()
    assert value_of(text, "stop_grace_period") == "45s"
    assert value_of(text, "restart") == "on-failure:5"


def value_of(text: str, key: str) -> str:
    (line,) = [line.strip() for line in text.splitlines() if line.strip().startswith(key + ":")]
    return line.partition(":")[2].strip()
