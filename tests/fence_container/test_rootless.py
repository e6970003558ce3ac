"""podman without root: a loop of an ordinary user, whose agent is that user inside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.fence_container.conftest import Place
from tests.fence_container.test_ends import ESCAPE, escaped
from tests.fence_container.test_inside import SAY
from tests.support.container import Podman
from tests.support.tiny_image import IMAGE, PYTHON

pytestmark = [pytest.mark.root, pytest.mark.slow]
PERSON = 54321
ACCOUNT = f"""\
echo person:x:{PERSON}:{PERSON}::/:/bin/sh >>/etc/passwd
echo person:x:{PERSON}: >>/etc/group
echo person:100000:65536 | tee /etc/subuid >/etc/subgid
"""
AS_PERSON = ("setpriv", f"--reuid={PERSON}", f"--regid={PERSON}", "--clear-groups")


class Rootless(Place):
    """Its supervisors are a person's, and so is podman, with a store of its own.

    The interpreter of the tests may lie where only root can go: the system's is used."""

    def start(self, *flags: str, **_: object) -> subprocess.Popen[bytes]:
        program = (str(PYTHON), "-m", "codex_self_iter", "--workspace", str(self.path), *flags)
        with (self.root / f"supervisor-{len(self.supervisors) + 1}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self.podman.entrance, *AS_PERSON, *program],
                cwd=self.root, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.supervisors.append(process)
        return process


def test_an_ordinary_user_s_agent_is_that_user_inside(podman: Podman, place: Place) -> None:
    if not shutil.which("newuidmap"):
        pytest.skip("newuidmap is not installed (Debian package uidmap)")
    packages = os.pathsep.join(path for path in sys.path if path)
    ours = (
        "env",
        f"PYTHONPATH={packages}",
        str(PYTHON),
        "-c",
        "import codex_self_iter.supervisor.app",
    )
    if subprocess.run([*AS_PERSON, *ours], check=False, capture_output=True).returncode:
        pytest.skip(f"an ordinary user cannot run this program with {PYTHON}")
    store = podman.directory / "store"
    image, home = store / "image.tar", store / "person"
    podman("save", "--output", image, IMAGE)
    podman.inside("sh", "-c", ACCOUNT)
    podman.inside(
        "sh", "-c", f"mkdir -p {home}/run; chmod 700 {home}/run; chown -R {PERSON} {home}"
    )
    for path in (podman.directory, store, image, podman.directory / "containers.conf"):
        podman.inside("chmod", "a+rX", path)
    person = Rootless.__new__(Rootless)
    vars(person).update(vars(place))
    person.environment |= {
        "HOME": str(home), "XDG_RUNTIME_DIR": f"{home}/run", "PATH": os.environ["PATH"], "USER": "person",
        "PYTHONPATH": packages,
    }  # fmt: skip
    mine = [f"{name}={person.environment[name]}" for name in ("HOME", "XDG_RUNTIME_DIR", "PATH")]
    mine.append(f"TMPDIR={home}")
    podman.inside(*AS_PERSON, "env", *mine, "podman", "load", "--quiet", "--input", str(image))
    person.agent(f"id -u >who; cat /proc/self/status | grep CapEff >>who\n{ESCAPE}" + SAY)
    place.root.chmod(0o755)
    for path in (place.path, *place.path.rglob("*")):
        os.chown(path, PERSON, PERSON, follow_symlinks=False)
    person.environment["XDG_STATE_HOME"] = person.environment["XDG_CONFIG_HOME"] = f"{home}/state"

    assert person.run("--max-iterations", "2") == 0, person.log()
    assert person.verdicts()[0] == "continue", person.log()
    who = place.path / "who"
    assert who.read_text().split() == [str(PERSON), "CapEff:", "0" * 16]
    assert who.stat().st_uid == PERSON
    assert re.search("swept=[1-9]", person.log())
    assert escaped() == []
    left = podman.inside(*AS_PERSON, "env", *mine, "podman", "ps", "--all", "--quiet")
    assert left.strip() == ""
