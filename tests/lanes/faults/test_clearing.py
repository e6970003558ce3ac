"""Work trees, refs, slots and locks: what goes, when, and what has to stay."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import psutil

from tests.lanes.conftest import Make
from tests.support.checkouts import careless
from tests.support.harness import wait_until
from tests.support.lanes import LaneWorkspace

NEEDS_HUMAN = 4
LANES = "refs/codex-self-iter/lanes/"


def trees(ws: LaneWorkspace) -> set[str]:
    """The names of the work trees on the disk, and of those that git knows."""
    known = ws.git("worktree", "list", "--porcelain").splitlines()
    paths = [line.partition(" ")[2] for line in known if line.startswith("worktree ")]
    return {one.name for one in ws.trees.glob("*/*")} | {os.path.basename(one) for one in paths[1:]}


def refs(ws: LaneWorkspace) -> list[str]:
    """Branches, and what is kept of lanes."""
    asked = ("for-each-ref", "--format=%(refname)", "refs/heads", LANES)
    return ws.git(*asked).split()


def test_no_work_tree_and_no_ref_goes_before_its_work_has_landed(make: Make) -> None:
    """The target cannot follow: what has landed is on a branch beside it, and each lane that has
    not has its work tree and its ref."""
    ws = make({"first": "", "second": "", "third": "echo 3 > 3.txt; echo 4 > 4.txt"})
    ws.agent(2, "echo half > half.txt; answer=")  # says nothing that could be read
    (ws.path / "3.txt").write_text("mine\n")
    process = ws.start_lanes()
    wait_until(lambda: len(ws.events("landed")) == 2, lambda: f"two to land\n{ws.log()[-3000:]}")
    for lane in ("1", "3"):
        tip = ws.lane(lane)["tip"]
        assert ws.git("for-each-ref", "--contains", tip, "refs/heads", LANES)
    assert "2" in trees(ws)
    process.send_signal(signal.SIGTERM)
    ws.ended(process)
    assert "2" in trees(ws)
    assert (next(ws.trees.glob("*/2")) / "half.txt").exists() or ws.lost() == set()
    assert ws.lost() == set()
    # the control: with the branch and the directory gone too early, the work is lost, and it is seen
    tip = ws.lane(3)["tip"]
    drop = "git for-each-ref --format='%(refname)' refs/codex-self-iter refs/heads/codex-self-iter"
    careless(ws, f"{drop} | xargs -n 1 git update-ref -d; git reflog expire --expire=now --all")
    twin = ws.root / "twin"
    left = subprocess.run(
        ["git", "for-each-ref", "--contains", tip], cwd=twin, capture_output=True, check=True
    )
    assert left.stdout == b""


def test_nothing_leaks_over_many_items(make: Make) -> None:
    """Slots, ports, work trees, locks, refs and processes of sixteen items."""
    count = 16
    note = (
        'echo "$CODEX_SELF_ITER_LANE $CODEX_SELF_ITER_PORT_BASE begin" >> "$LANE_AGENT/ports"; '
        "echo {0} > {0}.txt; "
        'echo "$CODEX_SELF_ITER_LANE $CODEX_SELF_ITER_PORT_BASE end" >> "$LANE_AGENT/ports"'
    )
    ws = make({f"item {n}": note.format(n) for n in range(1, count + 1)}, max=3, batch=5)
    assert ws.run_lanes(patience=110) == 0, ws.log()[-3000:]
    assert ws.contents("main") >= {f"{n}.txt" for n in range(1, count + 1)}
    assert trees(ws) == set()
    assert refs(ws) == ["refs/heads/main"]
    assert not list((ws.path / ".git").rglob("*.lock"))
    assert not list((ws.path / ".git" / "worktrees").glob("*"))
    rows = [line.split() for line in (ws.agents / "ports").read_text().splitlines()]
    assert len(rows) == 2 * count
    ports = {int(port) for _, port, _ in rows}
    assert len(ports) <= 2 * count // 3  # those that wait to land still have theirs
    alive: dict[str, str] = {}
    for lane, port, word in rows:
        if word == "begin":
            assert port not in alive.values()
            alive[lane] = port
        else:
            del alive[lane]
    known = json.loads((ws.state / "lanes.json").read_text())
    assert all(one["place"] == "" for one in known["lanes"])


def test_ports_of_lanes_at_the_same_time_are_apart(make: Make) -> None:
    """Each binds all that is its own; another in the same range could not."""
    bind = (
        "import os,socket,time,pathlib\n"
        "base=int(os.environ['CODEX_SELF_ITER_PORT_BASE']);where=pathlib.Path(os.environ['LANE_AGENT'])\n"
        "held=[socket.socket() for _ in range(100)]\n"
        "[one.bind(('127.0.0.1',base+n)) for n,one in enumerate(held)]\n"
        "(where/('bound.'+str(base))).touch()\n"
        "while len(list(where.glob('bound.*')))<3: time.sleep(.05)\n"
    )
    ws = make(["first", "second", "third"], port_base=42000)
    (ws.agents / "bind.py").write_text(bind)
    for number in (1, 2, 3):
        ws.agent(number, f'python3 "$LANE_AGENT/bind.py" && echo {number} > {number}.txt')
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert {one.name for one in ws.agents.glob("bound.*")} == {
        "bound.42000", "bound.42100", "bound.42200",
    }  # fmt: skip
    # the control: two with one range collide
    both = subprocess.run(
        ["python3", "-c", bind.replace("base=int", "socket.socket().bind;base=int").replace(
            "while len", "other=socket.socket();other.bind(('127.0.0.1',base))\nwhile len")],
        env={**ws.environment, "CODEX_SELF_ITER_PORT_BASE": "42000"}, capture_output=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert b"Address already in use" in both.stderr


def test_a_work_tree_with_something_in_it_or_somebody_stays_and_it_is_said(make: Make) -> None:
    """A file that came after the last commit, a commit that is nowhere else, and a process that
    lives there; once they are gone, so is the work tree."""
    ws = make(["first", "second", "third", "fourth (after: 1, 2, 3)"], batch=3, gates=[GATE])
    ws.agent(4, 'until test -e "$LANE_AGENT/enough"; do sleep 0.05; done; echo 4 > 4.txt')
    process = ws.start_lanes()
    living = subprocess.Popen(["sleep", "600"], cwd="/")
    try:
        wait_until(
            lambda: len(ws.events("ready")) == 3 and (ws.agents / "at.gate").exists(),
            lambda: f"all to be ready\n{ws.log()[-3000:]}",
        )
        place = {one.name: one for one in ws.trees.glob("*/*")}
        (place["1"] / "late.txt").write_text("late\n")
        tree = ["git", "-C", str(place["2"])]
        subprocess.run(
            [*tree, "commit", "-q", "--allow-empty", "-m", "more"], env=ws.environment, check=True
        )
        late = subprocess.run([*tree, "rev-parse", "HEAD"], capture_output=True, check=True)
        living.kill()
        living.wait()
        living = subprocess.Popen(["sleep", "600"], cwd=place["3"])
        (ws.agents / "go").touch()
        wait_until(
            lambda: all(ws.lane(n).get("left") for n in (1, 2, 3)),
            lambda: f"it to be said\n{ws.log()[-3000:]}",
        )
        assert ws.contents("main") >= {"1.txt", "2.txt", "3.txt"}
        assert trees(ws) >= {"1", "2", "3"}  # the control to what is asserted of all other tests
        assert (place["1"] / "late.txt").read_text() == "late\n"
        log = ws.log()
        for lane, word in (("1", "late.txt"), ("2", "no branch"), ("3", f"process {living.pid}")):
            assert f"work tree of lane {lane} stays" in log
            assert word in ws.lane(lane)["left"]
        kept = ws.git("for-each-ref", "--format=%(objectname)", LANES).split()
        assert late.stdout.decode().strip() in kept
        living.kill()
        living.wait()
        wait_until(lambda: not ws.lane(3)["place"], "its work tree to go while others work")
        assert not place["3"].exists()
        assert place["1"].exists()
        (ws.agents / "enough").touch()
        assert ws.ended(process) == 0, ws.log()[-3000:]
        assert trees(ws) == {"1", "2"}
    finally:
        living.kill()
        living.wait()
    (place["1"] / "late.txt").unlink()
    subprocess.run([*tree, "reset", "-q", "--hard", "HEAD~1"], env=ws.environment, check=True)
    ws.agent(5, "echo 5 > 5.txt")
    ws.plan((ws.path / "plan.md").read_text() + "- [ ] one more\n")
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert trees(ws) == set()
    assert late.stdout.decode().strip() in ws.git("for-each-ref", "--format=%(objectname)", LANES)


GATE = (
    'case $(basename "$(git rev-parse --show-toplevel)") in landing) touch "$LANE_AGENT/at.gate"; '
    'until test -e "$LANE_AGENT/go"; do sleep 0.05; done;; esac'
)


def test_locks_that_a_killed_git_has_left(make: Make) -> None:
    """In a lane and in the landing's work tree they are ours and go; in the checkout it is said that
    there is one, and nothing lands over it."""
    ws = make({"first": "", "second": ""}, gates=[GATE])
    ws.agent(2, 'echo 2 > 2.txt; touch "$(git rev-parse --git-dir)/index.lock"')
    process = ws.start_lanes()
    wait_until(lambda: (ws.agents / "at.gate").exists(), lambda: f"a gate\n{ws.log()[-3000:]}")
    (ws.path / ".git" / "worktrees" / "landing" / "index.lock").touch()
    lock = ws.path / ".git" / "index.lock"
    lock.touch()
    index = (ws.path / ".git" / "index").read_bytes()
    (ws.agents / "go").touch()
    assert ws.ended(process) == NEEDS_HUMAN, ws.log()[-3000:]
    assert lock.exists()
    assert (ws.path / ".git" / "index").read_bytes() == index
    assert str(lock) in ws.status()["reason"]
    assert ws.contents("codex-self-iter/landed/main") >= {"1.txt", "2.txt"}
    # the control: git itself can do nothing there
    naive = subprocess.run(
        ["git", "merge", "-q", "codex-self-iter/landed/main"], cwd=ws.path, env=ws.environment,
        capture_output=True, check=False,
    )  # fmt: skip
    assert b"index.lock" in naive.stderr
    lock.unlink()
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert ws.contents("main") >= {"1.txt", "2.txt"}
    assert ws.git("status", "--porcelain") == ""


def test_no_process_of_a_lane_outlives_it(make: Make) -> None:
    ws = make({"first": "", "second": ""})
    ws.agent(1, 'setsid sleep 3000 & echo $! > "$LANE_AGENT/pid"; echo 1 > 1.txt')
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert not psutil.pid_exists(int((ws.agents / "pid").read_text()))
    assert trees(ws) == set()
