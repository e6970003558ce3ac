"""An agent that tries to get at everything around it, in a container and, as the control, without.

Inside, much of what it writes is not refused: it lies in the container's own files. So what counts
is what has changed outside, and what it could read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tests.fence.test_adversary import ATTACKER, INSIDE, Scene, done
from tests.fence_container.conftest import Place
from tests.fence_container.test_inside import SAY
from tests.support.tiny_image import IMAGE

pytestmark = [pytest.mark.root, pytest.mark.slow]
REFUSED = INSIDE | {
    "runtime", "journal", "prompt_of_its_own", "a_file_of_its_own_in_the_state", "key", "password",
    "login_of_another_agent", "by_mount", "by_bind", "device", "kernel_setting", "abstract_socket",
    "path_socket", "network",
}  # fmt: skip


class Inside(Scene):
    ws: Place

    def attacked(self, fence: str) -> dict[str, str]:
        """What the agent reports of one iteration."""
        targets = json.loads(self.targets.read_text()) | {"walled": "container" in fence}
        self.targets.write_text(json.dumps(targets))
        allowed = json.dumps([str(ATTACKER), str(self.targets)])
        table = f'{fence}\nimage = "{IMAGE}"\nengine = "podman"\nallow_read = {allowed}\n'
        self.ws.config(
            f'[verify]\ngate_files = ["tests/**"]\n[fence]\n{table}',
            agent_command_template=f"python3 {ATTACKER} {self.targets} {{prompt_file}} {{workspace}}",
            state_dir=str(self.state),
        )
        self.before = self.seen()
        environment = {"HOME": str(self.home)}
        assert self.ws.run("--max-iterations", "1", environment=environment) == 0, self.ws.log()
        report: dict[str, str] = json.loads((self.ws.path / "report.json").read_text())
        return report


@pytest.fixture
def scene(place: Place) -> Iterator[Inside]:
    made = Inside(place, place.root)
    yield made
    made.close()


def test_what_is_outside_cannot_be_changed_nor_read(scene: Inside) -> None:
    report = scene.attacked('level = "container"\nnetwork = "none"')
    assert sorted(done(report) & REFUSED) == [], report
    assert set(report) >= REFUSED
    assert report["hook_of_its_own"] == "done"  # git itself works
    assert scene.seen() == scene.before
    assert "behind a fence" in scene.ws.log()


def test_without_a_fence_the_same_agent_does_all_of_it(scene: Inside) -> None:
    report = scene.attacked('level = "none"')
    assert done(report) >= REFUSED - {"by_unmount"}, report
    assert scene.seen() != scene.before


def test_what_the_repository_names_is_never_mounted(place: Place) -> None:
    """Links into the person's files: an agent may have left them in an earlier run."""
    key = place.home / ".ssh" / "id"
    key.parent.mkdir()
    key.write_text("KEY\n")
    for name in ("tests", "allowed", "kept", ".git/info/more"):
        (place.path / name).parent.mkdir(exist_ok=True)
        (place.path / name).symlink_to(key.parent)
    place.agent(
        "for each in tests allowed kept .git/info/more .git/hooks; do cat $each/id; done >seen 2>&1\n"
        f"cat /proc/self/mountinfo >mounts; echo x >>{key}\n" + SAY,
        tables='[verify]\ngate_files = ["tests/**"]\n',
    )
    os.rename(place.path / ".git" / "hooks", place.root / "hooks")
    (place.path / ".git" / "hooks").symlink_to(key.parent)
    assert place.run("--max-iterations", "1") == 0, place.log()
    assert "KEY" not in (place.path / "seen").read_text()
    assert ".ssh" not in (place.path / "mounts").read_text()
    assert key.read_text() == "KEY\n"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_git_directory_that_is_not_the_workspaces_is_refused(place: Place, kind: str) -> None:
    other = place.root / "other"
    os.rename(place.path / ".git", other)
    if kind == "file":
        (place.path / ".git").write_text(f"gitdir: {other}\n")
    else:
        (place.path / ".git").symlink_to(other)
    before = (other / "config").read_text()
    (place.path / "agent.sh").write_text(f"#!/bin/sh\ntouch ran; echo x >>'{other}/config'\n{SAY}")
    (place.path / "agent.sh").chmod(0o755)
    assert place.run(*_configured(place), "--max-iterations", "1") != 2
    assert (other / "config").read_text() == before
    assert f".git leads to {other}, which does not know this workspace" in place.log()
    assert not (place.path / "ran").exists()


def test_a_linked_work_tree_is_at_home_in_its_repository_and_no_further(place: Place) -> None:
    tree = place.root / "tree"
    place.git("worktree", "add", "-q", "-b", "other", str(tree))
    main, place.path = place.path, tree
    place.state = tree / ".codex-self-iter"
    (tree / "agent.sh").write_text(
        "#!/bin/sh\nexport GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a\n"
        f"git commit -qm inside --allow-empty >out 2>&1; echo x >'{main}/.git/hooks/post-commit'\n"
        f"echo x >>'{main}/.git/config'; echo x >>'{main}/plan.md'; echo x >'{main}/.git/HEAD'\n"
        + SAY
    )
    (tree / "agent.sh").chmod(0o755)
    before = (main / ".git" / "config").read_text(), (main / ".git" / "HEAD").read_text()
    assert place.run(*_configured(place), "--max-iterations", "1") == 0, place.log()
    assert "inside" in place.git("log", "-1", "--format=%s", "other"), (tree / "out").read_text()
    assert ((main / ".git" / "config").read_text(), (main / ".git" / "HEAD").read_text()) == before
    assert not (main / ".git" / "hooks" / "post-commit").exists()
    assert "x" not in (main / "plan.md").read_text().splitlines()


def test_a_plan_that_is_a_link_out_of_the_workspace_is_refused(place: Place) -> None:
    target = place.home / ".bashrc"
    target.write_text("- [ ] one\n")
    (place.path / "plan.md").unlink()
    (place.path / "plan.md").symlink_to(target)
    place.agent("touch ran\n" + SAY)
    assert place.run("--max-iterations", "1") != 2
    assert "is a link that leads out of the workspace" in place.log()
    assert not (place.path / "ran").exists()


def _configured(place: Place) -> tuple[str, str]:
    text = f"agent_command_template = '\"{place.path}/agent.sh\" {{prompt_file}}'\n"
    text += f'[fence]\nlevel = "container"\nimage = "{IMAGE}"\n'
    (place.root / "config.toml").write_text(text)
    return "--config", str(place.root / "config.toml")
