"""The fence's decisions: the means that are taken, what is open, what is put back."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.agents import catalog
from codex_self_iter.core.agent_homes import HOMES, homes, known_as, sandboxed, secrets, there
from codex_self_iter.core.agent_names import CLIS
from codex_self_iter.core.fence import (
    EXACT,
    Ground,
    Machine,
    Means,
    choose,
    closed_variables,
    guarded,
    inside,
    lets,
    refused,
    walls,
    weakness,
)

ALL = Machine(7, "", "", "/usr/bin/bwrap", offline=True)
GROUND = Ground(
    workspace="/w", state="/w/.state", run="/w/.state/run/1", scratch="/w/.state/run/1/tmp",
    open=("/home/.codex", "/w/.git"), sealed=("/w/.git/hooks", "/w/.git/config", "/w/a/b/gate"),
    programs=("/w/.git/hooks", "/w/.git/config", "/w/.git/info", "/w/.git/config.worktree"),
    places=("/w/.git",), closed=("/home/.ssh",), sockets=("/run/d.sock",),
    readable=("/usr",), below=("/w/mounted", "/w/.state/run", "/w/.git/hooks/m"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("machine", "by", "inside_", "means"),
    [
        (ALL, "auto", True, Means.NAMESPACES),
        (ALL, "landlock", False, Means.LANDLOCK),
        (Machine(7, "no", "", "/b"), "auto", True, Means.BUBBLEWRAP),
        (Machine(7, "no", "no"), "auto", False, Means.LANDLOCK),
        (Machine(7, "no", "no"), "auto", True, None),
        (Machine(0, "no", "no"), "auto", False, None),
        (ALL, "landlock", True, None),
        (Machine(7, "no", ""), "namespaces", False, None),
    ],
)
def test_the_strongest_means_that_work_are_taken(
    machine: Machine, by: str, inside_: bool, means: Means | None
) -> None:
    found = choose(machine, by, offline=False, state_inside=inside_)
    assert found.means is means
    assert bool(found.flaw) == bool(found.mend) == (means is None)


def test_a_refusal_says_every_means_and_what_to_do() -> None:
    found = choose(
        Machine(7, "no namespaces", "not installed"), "auto", offline=False, state_inside=True
    )
    for text in (
        "namespaces: no namespaces",
        "bubblewrap: not installed",
        "landlock: it cannot close",
    ):
        assert text in found.flaw
    assert "install bubblewrap" in found.mend
    assert "state_dir" in found.mend
    named = choose(Machine(7, "no", "no"), "bubblewrap", offline=False, state_inside=True)
    assert named.mend == 'set [fence] by to "auto"'
    off = choose(Machine(7, ""), "auto", offline=True, state_inside=False)
    assert off.means is None
    assert "network" in off.mend


def test_where_an_agents_own_sandbox_mounts_landlock_is_nothing() -> None:
    only = Machine(7, "no", "no")
    assert choose(only, "auto", offline=False, state_inside=False).means is Means.LANDLOCK
    found = choose(only, "auto", offline=False, state_inside=False, sandboxed="codex")
    assert found.means is None
    assert "landlock: codex's own sandbox cannot work inside it" in found.flaw
    assert 'agent_mode to "bypass"' in found.mend
    other = choose(Machine(7, ""), "auto", offline=False, state_inside=False, sandboxed="codex")
    assert other.means is Means.NAMESPACES


@pytest.mark.parametrize(
    ("agent", "protocol", "bwrap", "mounts"),
    [
        ("codex", "", False, True),
        ("claude", "", True, True),
        ("claude", "", False, False),
        ("claude", "acp", True, False),
        ("gemini", "", True, False),
    ],
)
def test_whose_sandbox_mounts(agent: str, protocol: str, bwrap: bool, mounts: bool) -> None:
    assert sandboxed(agent, protocol, bwrap) is mounts


def test_what_its_surroundings_open_is_not_mounted_and_can_be_renamed_over() -> None:
    plans = ("/w/plan.md", "/w/.state/plan.md", "/w/gate/plan.md")
    ground = Ground(
        "/w", "/w/.state", "/w/.state/run", "/w/.state/run/tmp", open=plans, sealed=("/w/gate",)
    )
    mounted = [path for _, path in walls(ground, Means.NAMESPACES)["mounts"]]
    assert [path for path in plans if path in mounted] == [*plans[1:]]


def test_what_an_agent_may_write_is_told_without_what_is_there_anyway() -> None:
    ground = Ground("/w", "/s", "/s/run", "/s/run/tmp", open=("/h/.codex", "/w/.git", "/s/plan.md"))
    said = "its fence lets codex write {} beside the workspace"
    assert lets(ground, "codex") == said.format("/h/.codex")
    assert lets(dataclasses.replace(ground, open=()), "codex") == said.format("nothing")


def test_what_does_not_hold_is_said() -> None:
    assert weakness(ALL, Means.NAMESPACES) == ()
    assert any("signal" in one for one in weakness(Machine(5, ""), Means.NAMESPACES))
    gaps = " ".join(weakness(Machine(2), Means.LANDLOCK))
    for text in ("put back", "gate files", "sockets", "own sandbox", "emptied", "signal"):
        assert text in gaps


def test_every_path_has_its_wall() -> None:
    kinds = {path: kind for kind, path in walls(GROUND, Means.NAMESPACES)["mounts"]}
    assert {path for path, kind in kinds.items() if kind == "ro"} == {"/w/.state", *GROUND.sealed}
    assert {path for path, kind in kinds.items() if kind == "closed"} == {
        "/home/.ssh",
        "/run/d.sock",
    }
    # what is open, what is mounted in it, and every directory above what is sealed
    assert {path for path, kind in kinds.items() if kind == "rw"} == {
        "/w", "/home/.codex", "/w/.git", "/w/.state/run/1", "/w/a", "/w/a/b", "/w/mounted",
    }  # fmt: skip


def test_under_landlock_only_what_is_open_is_named() -> None:
    plan = walls(GROUND, Means.LANDLOCK)
    assert set(plan["writable"]) >= {
        "/w",
        "/home/.codex",
        "/w/.git",
        "/w/.state/run/1",
        "/dev/null",
    }
    assert "/home" not in plan["writable"]
    assert plan["readable"][0] == "/usr"
    assert walls(Ground("/w", "/s", "/s/r", "/s/r/t"), Means.LANDLOCK)["readable"] is None


@given(
    st.lists(
        st.sampled_from(["/w/a", "/w/a/b", "/w/c", "/x", "/x/y", "/w/.state/run/1"]), unique=True
    )
)
def test_outer_walls_come_first_and_nothing_stands_in_what_is_closed(paths: list[str]) -> None:
    half = len(paths) // 2
    ground = Ground(
        "/w",
        "/w/.state",
        "/w/.state/run/1",
        "/t",
        open=tuple(paths[:half]),
        closed=tuple(paths[half:]),
    )
    mounts = walls(ground, Means.NAMESPACES)["mounts"]
    order = [path for _, path in mounts]
    for at, path in enumerate(order):
        assert not any(
            inside(later, path) is False and inside(path, later) for later in order[at + 1 :]
        )
    closed = [path for kind, path in mounts if kind == "closed"]
    assert not any(inside(path, one) and path != one for path in order for one in closed)


def test_what_no_wall_closes_is_put_back() -> None:
    person = dataclasses.replace(GROUND, programs=(*GROUND.programs, "/home/.gitconfig"))
    assert guarded(person, Means.LANDLOCK) == GROUND.programs  # no agent can have changed the last
    for means in EXACT:  # what is not there; git reads config.worktree only where `config` says so
        assert guarded(GROUND, means) == ("/w/.git/info",)


@pytest.mark.parametrize(
    ("path", "is_refused"),
    [
        ("/w/x", False), ("/w/.git/index", False), ("/home/.codex/x", False), ("/w/.state/run/1/x", False),
        ("/w/.git/hooks/x", True), ("/w/.state/runtime.json", True), ("/home/.bashrc", True), ("/home/.ssh/id", True),
        ("/w/a/b/gate", True), ("/proc/1/x", False), ("/dev/null", False), ("/wx", True),
    ],
)  # fmt: skip
def test_what_is_refused(path: str, is_refused: bool) -> None:
    assert refused(GROUND, path) is is_refused


def test_variables_that_lead_behind_the_walls_are_left_out() -> None:
    environment = {
        "SSH_AUTH_SOCK": "/tmp/ssh/agent", "XDG_RUNTIME_DIR": "/run/user/1", "DOCKER_HOST": "unix:///run/docker.sock",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1/bus", "TMUX": "/tmp/tmux-1/default,1,0", "HOME": "/run/user/1",
    }  # fmt: skip
    closed = ("/tmp/ssh/agent", "/run/user/1", "/tmp/tmux-1", "/run/docker.sock")
    assert set(closed_variables(environment, closed)) == environment.keys() - {"HOME"}
    assert closed_variables(environment, ("/run/user/2",)) == ()


def test_homes_are_found_by_their_variables() -> None:
    assert [*homes("codex", {"HOME": "/h"})] == ["/h/.codex"]
    assert [*homes("codex", {"HOME": "/h", "CODEX_HOME": "/c"})] == ["/c"]
    assert "/x/opencode" in [*homes("opencode", {"HOME": "/h", "XDG_DATA_HOME": "/x"})]
    assert [*homes("command", {"HOME": "/h"})] == []
    assert [*homes("codex", {})] == []


def test_an_agent_reads_its_own_login_and_no_other() -> None:
    found = set(secrets("codex", {"HOME": "/h"}))
    assert {"/h/.ssh", "/h/.aws", "/h/.config/gh", "/h/.claude/.credentials.json"} <= found
    assert "/h/.codex/auth.json" not in found
    assert "/h/.codex/auth.json" in set(secrets("claude", {"HOME": "/h"}))


def test_what_must_be_there_is_the_users_own() -> None:
    assert [*there("codex", 7)] == ["/tmp/codex-daemon-7"]
    assert [*there("command", 7)] == []


def test_every_agent_has_homes_of_the_version_that_its_adapter_knows() -> None:
    assert set(HOMES) == {*CLIS, "aider"}
    for name in CLIS:
        known = catalog.get(name).known_versions
        assert HOMES[name].measured == (known.last if known else ""), name


def test_a_program_that_a_person_names_has_the_homes_of_its_name() -> None:
    assert known_as("command", ("/usr/bin/qwen",)) == "qwen"
    assert known_as("command", ("/bin/sh", "-c", "exec qwen -y", "qwen", "/p.md")) == "qwen"
    assert known_as("command", ("/bin/sh", "-c", "qwen")) == "sh"
    assert known_as("codex", ("/opt/aider",)) == "codex"
