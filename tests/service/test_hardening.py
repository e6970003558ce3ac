"""The system unit's hardening, from inside: what an agent may not do, and all that it must still be
able to do."""

import pytest

from codex_self_iter.service import systemd
from codex_self_iter.service.spec import ServiceSpec
from tests.support import lab as laboratory
from tests.support.lab import UNIT

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(laboratory.missing()), reason=f"systemd lab: {laboratory.missing()}"),
]

WORKSPACE = "/mnt/workspace"
PROBE = r"""
exec > result.tmp 2>&1
say() { if "$@" > /dev/null 2>&1; then echo "yes"; else echo "no"; fi; }
echo "write workspace: $(say touch file)"
echo "write home: $(say touch "$HOME/file")"
echo "write tmp: $(say touch /tmp/file)"
echo "write usr: $(say test -w /usr)"
echo "write etc: $(say test -w /etc)"
echo "see foreign tmp: $(say test -e /tmp/foreign)"
echo "nested sandbox: $(say unshare --user --map-root-user --mount --pid --fork --mount-proc true)"
echo "other personality: $(say setarch "$(uname -m)" -R true)"
echo "real time: $(say chrt -f 1 true)"
echo "host name: $(say hostname "$(hostname)")"
bounding=0x$(sed -n 's/^CapBnd:.//p' /proc/self/status)
echo "load modules: $(say test $((bounding >> 16 & 1)) = 1)"
echo "new privileges: $(grep -c 'NoNewPrivs:.0' /proc/self/status)"
mv result.tmp result
sleep 54321
"""


def probe(manager: laboratory.Lab, text: str) -> dict[str, str]:
    """Run the probe in the unit and return its findings."""
    manager.run("rm", "-rf", f"{WORKSPACE}/result")
    manager.run("mkdir", "-p", WORKSPACE, "/mnt/home")
    manager.run("touch", "/tmp/foreign")
    manager.install(UNIT, text, Type="exec", Restart="no", WatchdogSec="0")
    manager.systemctl("start", UNIT)
    found = ["cat", f"{WORKSPACE}/result"]
    laboratory.until(
        lambda: manager.run(*found, check=False).returncode == 0, f"the probe\n{manager.log()}"
    )
    lines = manager.run(*found).stdout.splitlines()
    manager.systemctl("stop", UNIT)
    return dict(line.split(": ", 1) for line in lines)


def spec(manager: laboratory.Lab, *, system: bool) -> ServiceSpec:
    # The lab's manager runs as root, so it can apply the system unit's directives; only User= is
    # not its business.
    return ServiceSpec(
        name="my-loop",
        workspace=WORKSPACE,
        argv=("/bin/sh", "-c", PROBE),
        env_file="/mnt/none.env",
        environment={"PATH": manager.env["PATH"], "HOME": "/mnt/home"},
        stop_sec=5,
        system=system,
    )


def test_the_system_unit_protects_the_machine_and_lets_an_agent_work(
    manager: laboratory.Lab,
) -> None:
    assert probe(manager, systemd.render(spec(manager, system=True))) == {
        "write workspace": "yes",
        "write home": "yes",
        "write tmp": "yes",
        "write usr": "no",
        "write etc": "no",
        "see foreign tmp": "no",
        "nested sandbox": "yes",
        "other personality": "no",
        "real time": "no",
        "host name": "no",
        "load modules": "no",
        "new privileges": "0",
    }


def test_without_the_directives_the_probe_finds_otherwise(manager: laboratory.Lab) -> None:
    """Negative control: the same probe, the hardening taken out."""
    lines = systemd.render(spec(manager, system=True)).splitlines()
    hardening = (
        "ProtectSystem",
        "PrivateTmp",
        "NoNewPrivileges",
        "LockPersonality",
        "Restrict",
        "ProtectHost",
        "ProtectKernelModules",
    )
    text = "\n".join(line for line in lines if not line.startswith(hardening)) + "\n"
    found = probe(manager, text)
    assert found["write etc"] == found["write usr"] == found["see foreign tmp"] == "yes"
    assert found["new privileges"] == "1"
    for name in ("other personality", "real time", "host name", "load modules"):
        assert found[name] == "yes", name


def test_what_is_left_out_would_break_an_agents_own_sandbox(manager: laboratory.Lab) -> None:
    """The reason that the unit gives for leaving RestrictNamespaces out."""
    text = systemd.render(spec(manager, system=True)).replace(
        "PrivateTmp=yes", "RestrictNamespaces=yes"
    )
    assert probe(manager, text)["nested sandbox"] == "no"
