"""An image made of this machine's own programs: nothing is fetched, and it is there in a second."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.support.container import Podman

IMAGE = "localhost/tiny:1"
PYTHON = Path("/usr/bin/python3")
PROGRAMS = (
    "sh", "cat", "chmod", "env", "git", "grep", "head", "id", "kill", "ln", "ls", "mkdir", "mv", "ps", "rm", "setsid",
    "sleep", "touch", "tr", "unshare",
)  # fmt: skip


def load(podman: Podman) -> None:
    """Import it under the name of IMAGE."""
    tree = podman.directory / "store" / "tree"
    here = podman.directory / "tree"
    for name in PROGRAMS:
        program = shutil.which(name)
        assert program, f"{name} is needed for the image"
        _with_libraries(Path(program), here)
    if not (here / "bin").exists():
        (here / "bin").symlink_to("usr/bin")
    _python(here)
    (here / "tmp").mkdir(mode=0o1777)
    archive = podman.directory / "tiny.tar"
    subprocess.run(["tar", "-C", here, "-cf", archive, "."], check=True)
    podman("import", archive, IMAGE)
    shutil.rmtree(here)
    archive.unlink()
    assert not tree.exists()


def _with_libraries(program: Path, tree: Path) -> None:
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for name in (str(program), *re.findall(r"(/\S+) \(", said)):
        place = tree / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            shutil.copy(Path(name).resolve(), place)


def _python(tree: Path) -> None:
    """The system's interpreter with the modules that it needs for a small program."""
    where = subprocess.run(
        [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    _with_libraries(PYTHON, tree)
    skipped = shutil.ignore_patterns(
        "test", "tests", "__pycache__", "site-packages", "dist-packages", "idlelib", "lib2to3", "config-*",
        "ensurepip", "pydoc_data", "tkinter", "distutils",
    )  # fmt: skip
    shutil.copytree(where, tree / where.lstrip("/"), ignore=skipped, symlinks=False)
    for module in Path(where, "lib-dynload").glob("_ctypes.*"):
        _with_libraries(module, tree)
