"""Every directive of the units, key of the property list and line of the container files, and the
test that tries it. What cannot be tried here says "not tested here" in docs/operations.md."""

from __future__ import annotations

import plistlib
import re
from pathlib import Path

import pytest

from tests.claims.documents import TESTS, functions
from tests.support import lab as laboratory
from tests.support.lab import UNIT, Service

DEPLOY = TESTS.parent / "deploy"
PAGE = (TESTS.parent / "docs" / "operations.md").read_text(encoding="utf-8")
LAB, LOOP, HARD = (
    f"service/test_{name}.py::" for name in ("systemd_lab", "systemd_supervisor", "hardening")
)
HARDENED = f"{HARD}test_the_system_unit_protects_the_machine_and_lets_an_agent_work"
RENDERED = "service/test_rendering.py::"
HERE = "service/test_directives.py::test_the_manager_takes_each_value_as_it_is_meant"
NOT_HERE = "not tested here"

UNITS = {
    "Description": HERE,
    "StartLimitIntervalSec": f"{LAB}test_a_crash_loop_ends",
    "StartLimitBurst": f"{LAB}test_a_crash_loop_ends",
    "RequiresMountsFor": HERE,
    "Wants": HERE,
    "After": HERE,
    "Type": f"{LAB}test_a_service_that_never_gets_ready_is_not_started",
    "NotifyAccess": HERE,
    "ExecStart": f"{LAB}test_an_instance_of_the_template_under_deploy_works_where_its_name_says",
    "ExecReload": f"{LOOP}test_reload_applies_a_changed_configuration",
    "WorkingDirectory": f"{LAB}test_start_is_over_when_the_supervisor_says_so",
    "User": HERE,
    "Environment": HERE,
    "EnvironmentFile": f"{LAB}test_start_is_over_when_the_supervisor_says_so",
    "Restart": f"{LAB}test_a_crash_is_restarted",
    "RestartSec": HERE,
    "RestartPreventExitStatus": f"{LAB}test_what_a_restart_cannot_mend_is_not_restarted",
    "SuccessExitStatus": f"{LAB}test_an_ordered_end_is_inactive_and_stays_so",
    "WatchdogSec": f"{LAB}test_the_watchdog_catches_a_stopped_supervisor",
    "TimeoutStartSec": f"{LAB}test_a_service_that_never_gets_ready_is_not_started",
    "KillMode": f"{LAB}test_kill_9_leaves_the_escapees_without_the_control_group",
    "TimeoutStopSec": f"{LAB}test_a_deaf_supervisor_is_killed_within_the_bound",
    "Delegate": f"{LAB}test_start_is_over_when_the_supervisor_says_so",
    "OOMPolicy": HERE,
    "TasksMax": HERE,
    "NoNewPrivileges": HARDENED,
    "LockPersonality": HARDENED,
    "RestrictRealtime": HARDENED,
    "ProtectSystem": HARDENED,
    "ReadWritePaths": HARDENED,
    "PrivateTmp": HARDENED,
    "ProtectKernelModules": HARDENED,
    "ProtectHostname": HARDENED,
    "SyslogIdentifier": HERE,
    "WantedBy": "service/test_directives.py::test_enabled_it_is_started_with_the_session",
}
KEYS = f"{RENDERED}test_launchd_keys_have_their_types_and_meaning"
PLIST = dict.fromkeys(
    ("Label", "ProgramArguments", "WorkingDirectory", "EnvironmentVariables", "RunAtLoad",
     "KeepAlive", "ThrottleInterval", "ExitTimeOut", "StandardOutPath", "StandardErrorPath",
     "ProcessType", "AbandonProcessGroup", "SoftResourceLimits"),
    KEYS,
)  # fmt: skip


def directives(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if re.match(r"[A-Z]\w+=", line))
    return {key: value for key, _, value in pairs}


SYSTEM, USER = (
    directives(DEPLOY / "systemd" / kind / "codex-self-iter@.service")
    for kind in ("system", "user")
)


def test_every_directive_has_its_test() -> None:
    assert UNITS.keys() == SYSTEM.keys() | USER.keys()
    plist = plistlib.loads((DEPLOY / "launchd" / "codex-self-iter.example.plist").read_bytes())
    assert PLIST.keys() == plist.keys()
    for test in {*UNITS.values(), *PLIST.values()}:
        file, _, name = test.partition("::")
        assert name in functions(TESTS / file), test


def test_every_directive_that_was_left_out_has_its_reason() -> None:
    for kind in ("system", "user"):
        path = DEPLOY / "systemd" / kind / "codex-self-iter@.service"
        text = " ".join(path.read_text(encoding="utf-8").replace("#", " ").split())
        said = text.partition("Left out on purpose: ")[2].partition("No sudo")[0]
        left = re.findall(r"(?:Protect|Restrict|Memory)[A-Za-z]+", said)
        assert len(left) >= 7
        assert not set(left) & directives(path).keys()
        # a reason in brackets behind each, or behind two together
        assert re.sub(r"[\w ]+\([^)]+\)[,. ]*", "", said).strip() == ""


def test_what_is_not_tried_here_says_so() -> None:
    for heading in ("### macOS", "### Containers"):
        section = PAGE.partition(heading)[2].partition("\n#")[0]
        assert NOT_HERE in section.lower()


def seconds(text: str) -> str:
    minutes, rest = divmod(int(text), 60)
    parts = [f"{minutes}min" if minutes else "", f"{rest}s" if rest else ""]
    return " ".join(part for part in parts if part)


lab = pytest.mark.skipif(
    bool(laboratory.missing()), reason=f"NOT TESTED HERE: systemd lab: {laboratory.missing()}"
)


@pytest.mark.slow
@pytest.mark.root
@lab
def test_the_manager_takes_each_value_as_it_is_meant(service: Service) -> None:
    manager = service.manager
    template = "codex-self-iter@.service"
    text = (DEPLOY / "systemd" / "system" / template).read_text(encoding="utf-8")
    (manager.units / template).write_text(text, encoding="utf-8")
    escaped = manager.run("systemd-escape", "--path", str(service.workspace)).stdout.strip()
    unit = template.replace("@", f"@{escaped}")
    manager.systemctl("daemon-reload")
    shown = manager.show(unit)
    assert shown["Description"] == f"codex-self-iter: coding agent loop in {service.workspace}"
    assert "network-online.target" in shown["Wants"].split()
    assert "network-online.target" in shown["After"].split()
    # of the workspace and of every directory above it
    assert str(service.workspace.parent) in shown["RequiresMountsFor"]
    for name in ("TasksMax", "OOMPolicy", "SyslogIdentifier", "NotifyAccess", "User", "KillMode"):
        assert shown[name] == SYSTEM[name], name
    for name, key in (
        ("RestartUSec", "RestartSec"),
        ("TimeoutStartUSec", "TimeoutStartSec"),
        ("TimeoutStopUSec", "TimeoutStopSec"),
        ("StartLimitIntervalUSec", "StartLimitIntervalSec"),
    ):
        assert shown[name] == seconds(SYSTEM[key]), name
    assert shown["StartLimitBurst"] == SYSTEM["StartLimitBurst"]
    assert SYSTEM["Environment"] in shown["Environment"]


@pytest.mark.slow
@pytest.mark.root
@lab
def test_enabled_it_is_started_with_the_session(service: Service) -> None:
    service.install()
    done = service.manager.systemctl("enable", UNIT)
    link = re.search(r"Created symlink (\S+/default\.target\.wants/\S+) ", done.stderr)
    assert link, done.stderr
    assert link[1].endswith(f"/{UNIT}")
    assert service.manager.run("readlink", link[1]).stdout.strip() == str(
        service.manager.units / UNIT
    )
    service.manager.systemctl("disable", UNIT)
    assert service.manager.run("test", "-e", link[1], check=False).returncode == 1
