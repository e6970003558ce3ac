"""The release workflow: what of it can be known here. Its build job is carried out, in a clone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from codex_self_iter import __version__

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
JOBS: dict[str, Any] = RELEASE["jobs"]
WRITES = {
    "attest": {"attestations", "id-token"},
    "publish": {"id-token"},
    "image": {"attestations", "id-token", "packages"},
}


def steps(job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = JOBS[job].get("steps", [])
    return found


def scripts(job: str) -> list[str]:
    return [step["run"] for step in steps(job) if "run" in step]


def test_only_a_tag_releases() -> None:
    assert RELEASE[True] == {"push": {"tags": ["v*"]}}  # YAML takes `on` for true


def test_nothing_is_uploaded_before_all_is_checked_built_and_attested() -> None:
    def before(job: str) -> set[str]:
        needs = JOBS[job].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*(before(one) for one in direct))

    assert before("publish") == {"checks", "build", "attest"}
    assert before("image") > before("publish")
    called = yaml.safe_load((ROOT / JOBS["checks"]["uses"]).read_text())
    assert "workflow_call" in called[True]
    assert any(".ci/run" in step.get("run", "") for step in called["jobs"]["all"]["steps"])


def test_each_job_may_write_what_it_has_to_and_no_more() -> None:
    assert RELEASE["permissions"] == {"contents": "read"}
    for job, rights in ((job, JOBS[job].get("permissions", {})) for job in JOBS):
        written = {right for right, how in rights.items() if how == "write"}
        assert written == WRITES.get(job, set()), job
        assert set(rights.values()) <= {"read", "write"}


def test_every_action_is_pinned_to_a_commit_with_its_version_beside_it() -> None:
    for line in re.findall(r"uses: (.+)", (ROOT / ".github/workflows/release.yml").read_text()):
        assert line.startswith("./") or re.fullmatch(
            r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line
        )


def test_no_secret_is_needed_for_the_package_index() -> None:
    (publish,) = [one for one in steps("publish") if "pypi-publish" in one["uses"]]
    assert "with" not in publish
    assert JOBS["publish"]["environment"] == "release"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_scripts_are_good_shell_and_name_files_that_are_there(path: Path) -> None:
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        for script in (step["run"] for step in job.get("steps", []) if "run" in step):
            assert "${{ github" not in script  # a tag's name is somebody's text
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)
            for file in re.findall(r"(?<![\w/])(?:\.ci|deploy|scripts|src)/[\w./-]+", script):
                assert (ROOT / file).exists(), file


def test_the_image_is_tried_before_it_is_pushed() -> None:
    (script,) = scripts("image")
    order = [script.index(f"docker {word}") for word in ("build", "run", "login", "push")]
    assert order == sorted(order)
    assert JOBS["image"]["if"] == "vars.CONTAINER_REGISTRY != ''"


def clone(tmp_path: Path, version: str) -> dict[str, str]:
    """A clone whose changelog knows `version`; the variables of a runner."""
    words = ["git", "-c", "protocol.file.allow=always", "clone", "-q", ROOT, tmp_path / "clone"]
    subprocess.run(words, check=True)
    (tmp_path / "clone" / "CHANGELOG.md").write_text(f"# Changelog\n\n## {version} - 2026-11-30\n")
    (tmp_path / "runner").mkdir()
    return {
        **os.environ,
        "PATH": f"{tmp_path / 'python' / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RUNNER_TEMP": str(tmp_path / "runner"),
        "PIP_NO_COMPILE": "1",  # most of what is installed here is never run
        "GITHUB_REF_NAME": f"v{version}",
    }


def carried_out(script: str, tmp_path: Path, environment: dict[str, str]) -> str | None:
    """As a runner does it; what it printed, None when it failed."""
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script], cwd=tmp_path / "clone", env=environment,
        capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    print(done.stdout[-2000:], done.stderr[-2000:])
    return None if done.returncode else done.stdout


@pytest.mark.slow
def test_the_build_job_makes_packages_that_work(tmp_path: Path) -> None:
    environment = clone(tmp_path, __version__)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "python"], check=True)
    said = [carried_out(script, tmp_path, environment) for script in scripts("build")]
    assert None not in said
    assert "completed: Every item of the plan is ticked (5 of 5)." in str(said[-1])
    made = sorted(path.name for path in (tmp_path / "clone" / "dist").iterdir())
    name = f"codex_self_iter-{__version__}"
    assert made == [f"{name}-py3-none-any.whl", f"{name}.tar.gz"]


@pytest.mark.slow
def test_a_tag_that_is_not_the_version_or_has_no_words_for_people_is_refused(
    tmp_path: Path,
) -> None:
    """Also the negative control of the test above."""
    environment = clone(tmp_path, "77.0.0")
    tag = scripts("build")[0]
    assert carried_out(tag, tmp_path, environment) is None
    environment["GITHUB_REF_NAME"] = f"v{__version__}"  # the changelog does not know it
    assert carried_out(tag, tmp_path, environment) is None
