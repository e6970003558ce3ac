"""The rendered unit under a real systemd: what the unit promises, seen from outside.

`daemon.py` takes the supervisor's place; the unit is the rendered one, its times shortened by a
drop-in."""

import signal
from pathlib import Path

import pytest

from tests.support import lab as laboratory
from tests.support.lab import ESCAPEES, UNIT, Service

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(bool(laboratory.missing()), reason=f"systemd lab: {laboratory.missing()}"),
]


def test_start_is_over_when_the_supervisor_says_so(service: Service) -> None:
    service.env_file.write_text("LAB_KEY=from the file\n", encoding="utf-8")
    shown = service.start()
    assert shown["StatusText"] == "ready with default"
    assert shown["Type"] == "notify"
    assert shown["Delegate"] == "yes"
    (start,) = service.starts()
    pid, rest = start.split(" ", 1)
    assert int(pid) > 1
    assert rest == f"{service.workspace} from the file"


def test_a_service_that_never_gets_ready_is_not_started(service: Service) -> None:
    """Negative control: without READY=1 the start fails, so the test above proves the message."""
    service.spec = service.spec._replace(argv=("/bin/sleep", "54321"))
    service.install(TimeoutStartSec="500ms", Restart="no")
    assert service.manager.systemctl("start", UNIT, check=False).returncode != 0
    assert service.manager.show(UNIT)["Result"] == "timeout"


def test_reload_is_announced_and_over(service: Service) -> None:
    service.start()
    service.tell("config", "another configuration")
    service.manager.systemctl("reload", UNIT)
    shown = service.manager.until_state(
        UNIT, StatusText="ready with another configuration", SubState="running"
    )
    assert shown["NRestarts"] == "0"


@pytest.mark.parametrize("code", [0, 130])
def test_an_ordered_end_is_inactive_and_stays_so(service: Service, code: int) -> None:
    service.start()
    service.tell("exit", str(code))
    shown = service.manager.until_state(UNIT, ActiveState="inactive", SubState="dead")
    assert (shown["Result"], shown["NRestarts"]) == ("success", "0")
    assert len(service.starts()) == 1


@pytest.mark.parametrize("code", [2, 3, 4, 75])
def test_what_a_restart_cannot_mend_is_not_restarted(service: Service, code: int) -> None:
    service.start()
    service.tell("exit", str(code))
    shown = service.manager.until_state(UNIT, ActiveState="failed", SubState="failed")
    assert (shown["NRestarts"], shown["ExecMainStatus"]) == ("0", str(code))
    assert UNIT in service.manager.systemctl("--failed", "--no-legend").stdout
    assert len(service.starts()) == 1


@pytest.mark.parametrize("code", [1, 5])
def test_any_other_code_is_restarted(service: Service, code: int) -> None:
    """Also the negative control of the test above."""
    service.start()
    service.tell("exit", str(code))
    service.manager.until_state(UNIT, ActiveState="active", SubState="running", NRestarts="1")
    assert len(service.starts()) == 2


def test_a_crash_is_restarted(service: Service) -> None:
    service.start()
    service.tell("crash")
    service.manager.until_state(UNIT, ActiveState="active", SubState="running", NRestarts="1")


def test_a_crash_loop_ends(service: Service) -> None:
    service.spec = service.spec._replace(argv=("/bin/false",))
    service.install(StartLimitBurst="3", StartLimitIntervalSec="60", RestartSec="10ms")
    service.manager.systemctl("start", UNIT, check=False)
    service.manager.until_state(UNIT, ActiveState="failed", NRestarts="3")


def test_kill_9_of_the_supervisor_leaves_nothing_and_starts_again(service: Service) -> None:
    service.tell("escapee")
    service.start()
    laboratory.until(lambda: len(service.manager.processes(*ESCAPEES)) >= 4, "the escapees run")
    (service.control / "escapee").unlink()
    service.manager.kill(UNIT, signal.SIGKILL)
    service.manager.until_state(UNIT, ActiveState="active", SubState="running", NRestarts="1")
    assert service.manager.processes(*ESCAPEES) == []


def test_kill_9_leaves_the_escapees_without_the_control_group(service: Service) -> None:
    """Negative control: KillMode=process, and they live on."""
    service.tell("escapee")
    service.start(KillMode="process", Restart="no")
    laboratory.until(lambda: len(service.manager.processes(*ESCAPEES)) >= 4, "the escapees run")
    service.manager.kill(UNIT, signal.SIGKILL)
    service.manager.until_state(UNIT, ActiveState="failed")
    assert len(service.manager.processes(*ESCAPEES)) >= 4


def test_stop_ends_everything_even_what_is_deaf_or_fled(service: Service) -> None:
    service.tell("escapee")
    service.start()
    laboratory.until(lambda: len(service.manager.processes(*ESCAPEES)) >= 4, "the escapees run")
    service.manager.systemctl("stop", UNIT)
    shown = service.manager.show(UNIT)
    assert (shown["ActiveState"], shown["Result"]) == ("inactive", "success")
    assert service.manager.processes("daemon.py", *ESCAPEES) == []


def test_a_deaf_supervisor_is_killed_within_the_bound(service: Service) -> None:
    service.tell("deaf")
    service.start()
    service.manager.systemctl("stop", UNIT)  # would wait for ever, or for the test's patience
    shown = service.manager.show(UNIT)
    assert (shown["ActiveState"], shown["Result"]) == ("failed", "timeout")
    assert shown["TimeoutStopUSec"] == "2s"


def test_the_watchdog_catches_a_stopped_supervisor(service: Service) -> None:
    service.start(WatchdogSec="1")
    service.manager.kill(UNIT, signal.SIGSTOP)
    service.manager.until_state(UNIT, ActiveState="active", SubState="running", NRestarts="1")


def test_a_stopped_supervisor_stays_so_without_the_watchdog(service: Service) -> None:
    """Negative control; the end is a causal one: the watchdog's time has passed three times
    over."""
    service.start(WatchdogSec="0")
    service.manager.kill(UNIT, signal.SIGSTOP)
    service.manager.run("sleep", "3")
    assert service.manager.show(UNIT)["NRestarts"] == "0"


def test_an_instance_of_the_template_under_deploy_works_where_its_name_says(
    service: Service,
) -> None:
    """Installed by hand: the workspace's path is the instance's name, escaped by systemd-escape."""
    template = "codex-self-iter@.service"
    escaped = service.manager.run("systemd-escape", "--path", str(service.workspace)).stdout.strip()
    unit = template.replace("@", f"@{escaped}")
    text = (laboratory.SOURCE / "deploy" / "systemd" / "user" / template).read_text(
        encoding="utf-8"
    )
    command = f"env PYTHONPATH={laboratory.SOURCE}/src {' '.join(service.spec.argv)}"
    service.manager.install(template, text, ExecStart=f"\nExecStart={command}", Restart="no")
    service.manager.systemctl("start", unit)
    service.manager.until_state(unit, ActiveState="active", SubState="running")
    (start,) = service.starts()
    assert start.split(" ", 1)[1].strip() == str(service.workspace)
    service.manager.systemctl("stop", unit)
    service.manager.until_state(unit, ActiveState="inactive")


def test_the_lab_shares_nothing_with_the_machine(manager: laboratory.Lab, tmp_path: Path) -> None:
    (tmp_path / "outside").touch()
    assert manager.run("ls", str(tmp_path), check=False).returncode != 0
    manager.run("touch", "/tmp/inside-the-lab", "/run/inside-the-lab", "/var/tmp/inside-the-lab")
    for place in ("/tmp", "/run", "/var/tmp"):
        assert not (Path(place) / "inside-the-lab").exists()
    units = manager.systemctl("list-unit-files", "--no-legend").stdout
    assert "tmpfiles" not in units


def test_the_lab_leaves_nothing(tmp_path: Path) -> None:
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8")
    with laboratory.Lab(tmp_path) as short:
        assert short.processes("systemd")
    assert Path("/proc/self/mounts").read_text(encoding="utf-8") == mounts
    root = laboratory.cgroup_root()
    assert root is not None
    assert not short._cgroup.exists()
