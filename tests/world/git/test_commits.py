"""The supervisor's commit: what is in it, whose it is, and what a hook may do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.owed import Debt, divide, seen, worked
from codex_self_iter.world.bounded import ToolResult
from codex_self_iter.world.git.commits import CommitResult, SupervisorCommits, message
from codex_self_iter.world.git.ledger import Ledger
from codex_self_iter.world.git.left_out import MAX_HEAP
from codex_self_iter.world.git.run import Git
from codex_self_iter.world.git.worktree import GitWorkTree
from codex_self_iter.world.process.tool import run_tool
from codex_self_iter.world.state.root import StateRoot
from tests.support.git_repo import Repo, isolate

pytestmark = pytest.mark.anyio


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    isolate(monkeypatch)
    return Repo(tmp_path / "r")


async def iteration(
    repo: Repo,
    act: Callable[[], object],
    number: int = 1,
    *,
    no_verify: bool = False,
    timeout_sec: float = 30,
) -> CommitResult:
    """One iteration as the supervisor runs it: look, let the agent act, look, commit, look."""
    root = StateRoot(str(repo.state))
    ledger = Ledger(root)
    ledger.load()
    tree = GitWorkTree(str(repo.path), str(repo.state), run_tool)
    before = await tree.snapshot(None)
    act()
    after = await tree.snapshot(before)
    ledger.worked(before, after, number, 0.0)
    commits = SupervisorCommits(
        Git(run_tool, str(repo.path), timeout_sec), str(repo.state), no_verify=no_verify
    )
    text = message("Make it work", number, "Add the parser")
    result = await commits.commit(ledger.debts, after, text, ledger.staged)
    ledger.worked(after, await tree.snapshot(after), number, 0.0)
    ledger.save()
    root.close()
    return result


def left(result: CommitResult) -> list[str]:
    """As people are told."""
    return sorted(f"{path} ({why})" for path, why in result.left.items())


def hook(repo: Repo, name: str, script: str) -> Path:
    path = repo.path / ".git/hooks" / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return path


async def test_the_iterations_changes_are_committed_and_status_is_clean(repo: Repo) -> None:
    old = repo.head()

    def act() -> None:
        repo.write("a.txt", "agent\n")
        repo.write("new dir/ä 'x'.txt", "n")
        (repo.path / ".gitignore").unlink()
        repo.write("tool.sh", "#!/bin/sh\n").chmod(0o755)

    result = await iteration(repo, act, 7)
    assert result.error == ""
    assert result.commit == repo.head()
    assert repo.git("rev-parse", "HEAD~").strip() == old
    assert result.files == (".gitignore", "a.txt", "new dir/ä 'x'.txt", "tool.sh")
    assert repo.status() == ""
    assert repo.git("diff-files", "--name-only") == ""  # the index's stat data is right, too
    text = repo.git("log", "-1", "--format=%B")
    assert text.splitlines()[0] == "Add the parser"
    assert "Goal: Make it work" in text
    assert (
        repo.git(
            "log", "-1", "--format=%(trailers:key=Codex-Self-Iter-Iteration,valueonly)"
        ).strip()
        == "7"
    )
    assert repo.git("log", "-1", "--format=%an").strip() == "Person"
    assert "100755" in repo.git("ls-files", "-s", "tool.sh")


async def test_what_the_person_staged_or_left_dirty_is_not_taken(repo: Repo) -> None:
    repo.write("person.txt", "committed\n")
    repo.commit("person's file")
    repo.write("staged.txt", "staged\n")
    repo.git("add", "staged.txt")
    repo.write("person.txt", "half done\n")
    repo.write("draft.txt", "draft\n")
    before = repo.status()

    result = await iteration(repo, lambda: repo.write("agent.txt", "a"))
    assert result.files == ("agent.txt",)
    assert repo.status() == before
    assert repo.git("diff", "--cached", "--name-only").split() == ["staged.txt"]
    repo.write("agent.txt", "b")
    repo.git("add", "agent.txt")
    repo.git("commit", "-qm", "the negative control: an ordinary commit takes what is staged")
    assert "staged.txt" in repo.git("show", "--name-only", "--format=")


async def test_a_file_with_two_hands_in_it_is_left_and_listed(repo: Repo) -> None:
    repo.write("a.txt", "person\n")
    result = await iteration(
        repo, lambda: (repo.write("a.txt", "person\nagent\n"), repo.write("b", "b"))
    )
    assert result.files == ("b",)
    assert left(result) == ["a.txt (was changed and not committed before the iteration)"]
    assert repo.read("a.txt") == "person\nagent\n"
    repo.commit("the person commits their part")
    result = await iteration(repo, lambda: repo.write("a.txt", "agent again\n"))
    assert result.files == ("a.txt",)


async def test_a_version_that_exists_only_in_the_index_is_not_lost(repo: Repo) -> None:
    repo.write("a.txt", "precious\n")
    repo.git("add", "a.txt")
    repo.write("a.txt", "one\n")  # as in HEAD: nothing looks dirty by content
    result = await iteration(repo, lambda: repo.write("a.txt", "agent\n"))
    assert result.commit == ""
    assert left(result) == ["a.txt (staged with other content)"]
    assert repo.git("show", ":a.txt") == "precious\n"


async def test_what_the_agent_staged_itself_is_committed(repo: Repo) -> None:
    result = await iteration(repo, lambda: (repo.write("n.txt", "n"), repo.git("add", "n.txt")))
    assert result.files == ("n.txt",)
    assert repo.status() == ""


async def test_what_the_agent_staged_and_edited_again_is_committed_as_it_is(repo: Repo) -> None:
    def act() -> None:
        for name in ("one.txt", "new.txt"):
            repo.write(name, "first\n")
            repo.git("add", name)
            repo.write(name, "second\n")

    repo.write("one.txt", "committed\n")
    repo.commit("a file")
    result = await iteration(repo, act)
    assert (result.files, result.left, repo.status()) == (("new.txt", "one.txt"), {}, "")
    assert repo.git("show", "HEAD:one.txt") == repo.git("show", "HEAD:new.txt") == "second\n"


async def test_what_the_agent_staged_in_an_earlier_iteration_is_its_own(repo: Repo) -> None:
    refusal = hook(repo, "pre-commit", "exit 1\n")
    await iteration(repo, lambda: (repo.write("a.txt", "first\n"), repo.git("add", "a.txt")))
    refusal.unlink()
    result = await iteration(repo, lambda: repo.write("a.txt", "second\n"), 2)
    assert (result.files, repo.git("show", "HEAD:a.txt")) == (("a.txt",), "second\n")


async def test_what_a_person_stages_of_the_agents_work_meanwhile_is_theirs(repo: Repo) -> None:
    refusal = hook(repo, "pre-commit", "exit 1\n")
    await iteration(repo, lambda: repo.write("a.txt", "two\nthree\n"))
    refusal.unlink()
    repo.write("a.txt", "two\n")
    repo.git("add", "a.txt")
    repo.write("a.txt", "two\nthree\n")
    result = await iteration(repo, lambda: repo.write("b.txt", "b\n"), 2)
    assert result.files == ("b.txt",)
    assert left(result) == ["a.txt (staged with other content)"]
    assert repo.git("show", ":a.txt") == "two\n"


@pytest.mark.parametrize("ignored", [True, False])
async def test_what_the_agent_took_out_of_the_index_is_tracked_no_more(
    repo: Repo, ignored: bool
) -> None:
    repo.write("secret.env", "s\n")
    repo.write("person.env", "p\n")
    repo.commit("too much")
    repo.git("rm", "-q", "--cached", "person.env")  # the person is at it themselves

    def act() -> None:
        repo.git("rm", "-q", "--cached", "secret.env")
        if ignored:
            repo.write(".gitignore", ".codex-self-iter\nsecret.env\n")

    result = await iteration(repo, act)
    assert "secret.env" in result.files
    assert result.untracked == ("secret.env",)
    assert repo.git("ls-tree", "HEAD", "secret.env") == ""
    assert repo.read("secret.env") == "s\n"
    assert repo.git("ls-tree", "HEAD", "person.env")
    assert not repo.git("ls-files", "person.env")


async def test_a_mode_that_only_the_index_can_hold_is_committed(repo: Repo) -> None:
    repo.git("config", "core.fileMode", "false")
    repo.write("run.sh", "#!/bin/sh\n")
    repo.commit("a script")
    result = await iteration(repo, lambda: repo.git("update-index", "--chmod=+x", "run.sh"))
    assert (result.files, repo.status()) == (("run.sh",), "")
    assert repo.git("ls-tree", "HEAD", "run.sh").startswith("100755")


async def test_a_persons_file_that_the_agent_staged_stays_theirs(repo: Repo) -> None:
    repo.write("a.txt", "half done\n")
    result = await iteration(
        repo, lambda: (repo.write("a.txt", "half done, edited\n"), repo.git("add", "a.txt"))
    )
    assert (result.commit, [*result.left]) == ("", ["a.txt"])


async def test_what_git_refuses_holds_up_none_of_many_others(repo: Repo) -> None:
    repo.git("config", "filter.lfs.process", "no-such-git-lfs filter-process")
    repo.git("config", "filter.lfs.required", "true")
    repo.write(".gitattributes", "*.bin filter=lfs\n")
    repo.commit("attributes")

    def act() -> None:
        for number in range(300):
            repo.write(f"{number}.txt", "text")
        repo.write("one.bin", "1")
        repo.write("two.bin", "2")

    result = await iteration(repo, act)
    assert len(result.files) == 300
    assert sorted(result.left) == ["one.bin", "two.bin"]
    assert "no-such-git-lfs" in result.error


PERSON = """env -u GIT_INDEX_FILE -u GIT_REFLOG_ACTION sh -c 'echo theirs > theirs.txt; git add theirs.txt; git commit -qm theirs'"""


@pytest.mark.parametrize("when", ["before", "in the filter", "in the hook", "without a reflog"])
async def test_who_commits_at_the_same_time_loses_nothing(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    if when == "without a reflog":
        repo.git("config", "core.logAllRefUpdates", "false")
        repo.git("reflog", "expire", "--expire=all", "--all")
    once = f"[ -e .git/once ] || {{ touch .git/once; {PERSON}; }}"
    if when == "in the filter":
        repo.git("config", "filter.slow.clean", f"{once} >&2; cat")
        repo.write(".gitattributes", "*.bin filter=slow\n")
        repo.commit("attributes")
        (repo.path / ".git" / "once").unlink(missing_ok=True)
    elif when == "in the hook":
        hook(repo, "pre-commit", once)
    else:
        run = Git.run

        async def just_before(self: Git, *args: str, **more: Any) -> ToolResult:
            if "commit" in args:
                await anyio.run_process(["sh", "-c", once], cwd=repo.path)
            return await run(self, *args, **more)

        monkeypatch.setattr(Git, "run", just_before)
    start = repo.git("rev-parse", "HEAD")
    result = await iteration(repo, lambda: repo.write("ours.bin", "ours"))
    assert result.error == ""
    assert result.files == ("ours.bin",)
    assert result.commit == repo.git("rev-parse", "HEAD").strip()
    assert repo.git("log", "--format=%s", f"{start.strip()}..").split("\n")[1] == "theirs"
    assert repo.git("show", "--format=", "--name-status", "HEAD").strip() == "A\tours.bin"
    assert repo.status() == ""


async def test_an_agent_that_commits_itself_leaves_nothing_to_do(repo: Repo) -> None:
    result = await iteration(repo, lambda: (repo.write("n.txt", "n"), repo.commit("own")))
    assert result == CommitResult()
    assert repo.git("log", "-1", "--format=%s").strip() == "own"


async def test_a_refusing_hook_loses_nothing_and_the_next_iteration_commits_all(repo: Repo) -> None:
    hook(repo, "pre-commit", 'grep -q good a.txt || { echo "lint: a.txt is bad"; exit 1; }\n')
    repo.write("person.txt", "person's\n")
    index = repo.index_bytes()
    result = await iteration(
        repo, lambda: (repo.write("a.txt", "bad\n"), repo.write("b.txt", "b\n"))
    )
    assert result.commit == ""
    assert "lint: a.txt is bad" in result.error
    assert repo.read("a.txt") == "bad\n"
    assert repo.index_bytes() == index

    result = await iteration(repo, lambda: repo.write("a.txt", "good\n"), 2)
    assert result.error == ""
    assert result.files == ("a.txt", "b.txt")
    assert repo.status() == "?? person.txt\n"


@pytest.mark.parametrize("end", ["kill -9 $PPID", "exit 3"])
async def test_a_hook_that_ends_git_after_the_commit_undoes_nothing(repo: Repo, end: str) -> None:
    old = repo.head()
    hook(repo, "post-commit", f"echo deploy is down >&2; {end}\n")
    result = await iteration(repo, lambda: repo.write("a.txt", "agent\n"))
    assert result.error == ""
    assert result.commit == repo.head() != old
    assert result.files == ("a.txt",)
    assert repo.status() == ""
    if "kill" in end:  # git itself does not mind what such a hook exits with
        assert "committed, but afterwards git commit was ended by signal 9" in result.note
        assert "deploy is down" in result.note


async def test_a_hook_that_kills_git_before_the_commit_is_no_commit(repo: Repo) -> None:
    old = repo.head()
    hook(repo, "pre-commit", "echo no; kill -9 $PPID\n")
    result = await iteration(repo, lambda: repo.write("a.txt", "agent\n"))
    assert (result.commit, repo.head()) == ("", old)
    assert "was ended by signal 9" in result.error


async def test_of_long_hook_output_whole_lines_are_kept(repo: Repo) -> None:
    hook(repo, "pre-commit", "for i in $(seq 400); do echo line-$i-secret; done; exit 1\n")
    result = await iteration(repo, lambda: repo.write("a.txt", "agent\n"))
    _, first, *_ = result.error.splitlines()
    assert first.startswith("line-")


async def test_a_persons_edit_of_what_was_refused_makes_it_theirs(repo: Repo) -> None:
    refusal = hook(repo, "pre-commit", "exit 1\n")
    await iteration(repo, lambda: repo.write("a.txt", "agent\n"))
    refusal.unlink()
    repo.write("a.txt", "agent and person\n")
    result = await iteration(repo, lambda: repo.write("a.txt", "agent, person, agent\n"), 2)
    assert result.commit == ""
    assert "edited by somebody else" in result.left["a.txt"]


async def test_hooks_run_with_what_is_to_be_committed_and_may_change_it(repo: Repo) -> None:
    hook(
        repo,
        "pre-commit",
        "git diff --cached --name-only > seen.log\necho tidy > a.txt\ngit add a.txt\n",
    )
    result = await iteration(repo, lambda: repo.write("a.txt", "untidy\n"))
    assert repo.read("seen.log") == "a.txt\n"
    assert repo.git("show", "HEAD:a.txt") == "tidy\n"
    assert result.files == ("a.txt",)
    assert repo.status() == ""


async def test_no_verify_is_used_only_when_told_to(repo: Repo) -> None:
    hook(repo, "pre-commit", "exit 1\n")
    assert (await iteration(repo, lambda: repo.write("a.txt", "1\n"))).error
    assert (await iteration(repo, lambda: repo.write("a.txt", "2\n"), no_verify=True)).files == (
        "a.txt",
    )


async def test_a_hook_that_hangs_is_bounded(repo: Repo) -> None:
    hook(repo, "pre-commit", "sleep 600\n")
    result = await iteration(repo, lambda: repo.write("a.txt", "1\n"), timeout_sec=2)
    assert "did not end within 2 s" in result.error
    assert result.commit == ""
    (repo.path / ".git/hooks/pre-commit").unlink()
    assert (await iteration(repo, lambda: None, 2)).files == ("a.txt",)


async def test_no_user_name_falls_back_and_says_so(repo: Repo) -> None:
    repo.git("config", "--unset", "user.name")
    repo.git("config", "--unset", "user.email")
    repo.git("config", "user.useConfigOnly", "true")
    result = await iteration(repo, lambda: repo.write("a.txt", "1\n"))
    assert result.commit
    assert "user.name" in result.note
    assert repo.git("log", "-1", "--format=%an").strip() == "codex-self-iter"


async def test_an_empty_name_is_none(repo: Repo) -> None:
    """git takes the last value, and refuses an empty one."""
    repo.git("config", "--add", "user.name", "")
    result = await iteration(repo, lambda: repo.write("a.txt", "agent\n"))
    assert result.commit
    assert "no user.name" in result.note
    assert repo.git("log", "-1", "--format=%an %ae") == "codex-self-iter person@example.org\n"


async def test_an_unborn_branch_gets_its_first_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(monkeypatch)
    repo = Repo(tmp_path / "u", commit=False)
    repo.write("plan.md", "the person's\n")
    repo.write("staged.md", "staged\n")
    repo.git("add", "staged.md")
    result = await iteration(repo, lambda: repo.write("src.py", "x\n"))
    assert result.error == ""
    assert result.files == ("src.py",)
    assert repo.git("ls-tree", "--name-only", "HEAD").split() == ["src.py"]
    assert repo.git("diff", "--cached", "--name-only").split() == ["staged.md"]


async def test_a_merge_in_progress_is_left_alone(repo: Repo) -> None:
    repo.git("switch", "-q", "-c", "side")
    repo.write("a.txt", "side\n")
    repo.commit("side")
    repo.git("switch", "-q", "main")
    repo.write("a.txt", "main\n")
    head = repo.commit("main")
    repo.git("merge", "side", check=False)
    result = await iteration(repo, lambda: repo.write("n.txt", "n"))
    assert "merge in progress" in result.error
    assert repo.head() == head
    repo.git("merge", "--abort")
    assert (await iteration(repo, lambda: None, 2)).files == ("n.txt",)


async def test_a_left_behind_index_lock_is_named_and_nothing_is_half_done(repo: Repo) -> None:
    (repo.path / ".git/index.lock").touch()
    head = repo.head()
    result = await iteration(repo, lambda: repo.write("n.txt", "n"))
    assert "index.lock" in result.error
    assert repo.head() == head
    (repo.path / ".git/index.lock").unlink()
    assert (await iteration(repo, lambda: None, 2)).files == ("n.txt",)


async def test_files_and_directories_may_change_places(repo: Repo) -> None:
    repo.write("d/f", "f")
    repo.write("g", "g")
    repo.commit("more")

    def act() -> None:
        (repo.path / "d/f").unlink()
        (repo.path / "d").rmdir()
        repo.write("d", "now a file")
        (repo.path / "g").unlink()
        repo.write("g/inner", "now a directory")

    result = await iteration(repo, act)
    assert result.error == ""
    assert repo.status() == ""
    assert repo.git("ls-tree", "-r", "--name-only", "HEAD").split() == [
        ".gitignore",
        "a.txt",
        "d",
        "g/inner",
    ]


async def test_a_directory_replaced_by_a_link_is_committed_as_a_link(
    repo: Repo, tmp_path: Path
) -> None:
    repo.write("d/f", "f")
    repo.commit("d")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/f").write_text("f")

    def act() -> None:
        (repo.path / "d/f").unlink()
        (repo.path / "d").rmdir()
        (repo.path / "d").symlink_to(tmp_path / "other")

    result = await iteration(repo, act)
    assert result.error == ""
    assert repo.status() == ""
    assert "120000" in repo.git("ls-tree", "HEAD", "d")


async def test_odd_names_and_inner_repositories(repo: Repo) -> None:
    odd = os.fsdecode(os.fsencode(repo.path) + b"/:(top)\xff\n name")

    def act() -> None:
        Path(odd).write_text("x")
        Repo(repo.path / "clone")

    result = await iteration(repo, act)
    assert result.files == (":(top)\\xff\n name",)
    assert left(result)[0] == "clone (repository: cannot be committed)"
    assert all("clone" in text for text in left(result))


async def test_a_workspace_below_the_top_commits_only_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(monkeypatch)
    repo = Repo(tmp_path / "r")
    below = tmp_path / "r/pkg"
    (below / "s").mkdir(parents=True)
    tree = GitWorkTree(str(below), str(below / "s"), run_tool)
    before = await tree.snapshot(None)
    repo.write("pkg/x", "x")
    repo.write("outside", "x")
    after = await tree.snapshot(before)
    commits = SupervisorCommits(Git(run_tool, str(below)), str(below / "s"))
    debts = worked({}, before, after, 1, 0.0)
    result = await commits.commit(debts, after, message("", 1, ""), {})
    assert result.files == ("x",)
    assert repo.git("show", "--name-only", "--format=%s", "HEAD").split("\n")[:3] == [
        "Iteration 1",
        "",
        "pkg/x",
    ]


async def test_an_incomplete_snapshot_commits_nothing_and_claims_nothing(repo: Repo) -> None:
    repo.write("person.txt", "p")
    unknown = Snapshot("", "", {}, complete=False, note="git status: no answer within 1 s (ended)")
    commits = SupervisorCommits(Git(run_tool, str(repo.path)), str(repo.state))
    result = await commits.commit({"person.txt": Debt("x")}, unknown, "text", {})
    assert "no answer" in result.error
    assert (await iteration(repo, lambda: repo.write("n", "n"), 2)).files == ("n",)


def test_whose_is_decided_by_content() -> None:
    before = Snapshot("h", "main", {"mine": "1", "both": "1", "owed": "1", "edited": "2"})
    after = Snapshot(
        "h", "main", {"mine": "1", "both": "2", "owed": "3", "edited": "3", "new": "1"}
    )
    debts = worked({"owed": Debt("1", 1), "edited": Debt("1", 1)}, before, after, 2, 9.0)
    ours, kept = divide(debts, after)
    assert set(ours) == {"owed", "new"}
    assert set(kept) == {"both", "edited"}
    assert (debts["owed"].iteration, debts["new"].iteration, debts["new"].since) == (1, 2, 9.0)
    clean = Snapshot("i", "main", {"new": "2", "both": "9"})
    assert set(seen(debts, clean)) == {"new", "both"}
    assert divide(seen(debts, clean), clean)[0] == {}


@pytest.mark.parametrize(
    ("goal", "summary", "subject"),
    [
        ("g", "Short", "Short"),
        ("Only a goal\nmore", "", "Only a goal"),
        ("", " \n ", "Iteration 3"),
        ("", "word " * 40, ("word " * 14).strip() + "…"),
        ("", "x" * 200, "x" * 71 + "…"),
        ("", "a\x00b\x1b[31m\tc", "ab[31m c"),
    ],
)
def test_the_subject_fits_a_line(goal: str, summary: str, subject: str) -> None:
    text = message(goal, 3, summary)
    assert text.splitlines()[0] == subject
    assert len(text.splitlines()[0]) <= 72
    assert text.endswith("\n\nCodex-Self-Iter-Iteration: 3\n")
    assert "\x00" not in text


async def test_a_submodules_new_commit_is_committed_and_its_own_changes_are_named(
    repo: Repo, tmp_path: Path
) -> None:
    Repo(tmp_path / "lib")
    repo.git("submodule", "add", "-q", str(tmp_path / "lib"), "sub")
    repo.commit("with a submodule")
    result = await iteration(repo, lambda: repo.write("sub/a.txt", "agent\n"))
    assert result.commit == ""
    assert "a repository of its own" in result.left["sub/a.txt"]

    def commit_inside() -> None:
        names = ["-c", "user.name=A", "-c", "user.email=a@b"]
        repo.git(*names, "commit", "-qam", "inside", cwd=repo.path / "sub")

    result = await iteration(repo, commit_inside, 2)
    assert result.files == ("sub",)
    assert repo.status() == ""


async def test_a_file_too_large_to_be_read_whole_is_committed_staged_or_not(repo: Repo) -> None:
    for name in ("staged.bin", "plain.bin"):
        repo.write(name, "small")  # a new one as large would be left out
    repo.commit("small files")

    def act() -> None:
        for name in ("staged.bin", "plain.bin"):
            with (repo.path / name).open("wb") as file:
                file.truncate(65 * 2**20)
        repo.git("add", "staged.bin")

    result = await iteration(repo, act)
    assert result.files == ("plain.bin", "staged.bin")
    assert repo.status() == ""


SECRET = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn\n"


def sparse(repo: Repo, name: str, mib: int) -> None:
    with open(repo.path / name, "wb") as file:
        file.truncate(mib * 2**20)


async def test_new_secrets_large_files_and_heaps_are_left_out_and_named(repo: Repo) -> None:
    def act() -> None:
        for name in (".env", ".env.example", "id_rsa", "node_modules/few/a.js", "big ä.txt"):
            repo.write(name, "A=1\n")
        repo.write("server.pem", SECRET)
        sparse(repo, "big.bin", 51)
        sparse(repo, "fair.bin", 2)
        repo.git("add", ".env", "id_rsa")  # whoever stages it does not decide that it is published

    result = await iteration(repo, act)
    assert result.error == ""
    assert result.files == (".env.example", "big ä.txt", "fair.bin", "node_modules/few/a.js")
    end = "left out: let .gitignore name it, or commit it yourself on purpose)"
    assert left(result) == [
        f".env (looks like a secret by its name, {end}",
        f"big.bin (is 51 MiB, {end}",
        f"id_rsa (looks like a secret by its name, {end}",
        f"server.pem (has a private key in it, {end}",
    ]
    repo.write(".gitignore", ".env\nid_rsa\n*.pem\n*.bin\n")
    repo.git("reset", "-q")
    assert left(await iteration(repo, lambda: repo.write("b", "b"), 2)) == []


async def test_what_head_has_is_committed_as_ever(repo: Repo) -> None:
    repo.write(".env", "A=1\n")
    repo.write("server.pem", SECRET)
    sparse(repo, "big.bin", 51)
    repo.write("node_modules/mine.js", "1")
    repo.commit("on purpose")

    def act() -> None:
        repo.write(".env", "A=2\n")
        repo.write("server.pem", f"{SECRET}#\n")
        sparse(repo, "big.bin", 52)
        for number in range(MAX_HEAP + 1):
            repo.write(f"node_modules/{number}.js", "")

    result = await iteration(repo, act)
    assert left(result) == []
    assert len(result.files) == 3 + MAX_HEAP + 1


async def test_a_heap_is_left_out_whole_and_told_once(repo: Repo) -> None:
    def act() -> None:
        repo.write("app/x.js", "x")
        for number in range(MAX_HEAP + 1):
            repo.write(f"app/node_modules/{number:04}/node_modules/i.js", "")
            repo.write(f"work/{number}.txt", "")

    result = await iteration(repo, act)
    assert len(result.files) == MAX_HEAP + 2  # other directories may hold what they like
    told = [why for why in result.left.values() if why]
    assert len(told) == 1
    assert told[0].startswith(f"and {MAX_HEAP} more new files below app/node_modules, left out: ")
    assert len(result.left) == MAX_HEAP + 1


async def test_a_large_file_that_a_filter_makes_small_is_committed(repo: Repo) -> None:
    repo.git("config", "filter.small.clean", "head -c 10")
    repo.write(".gitattributes", "*.bin filter=small\n")
    repo.commit("a filter")
    result = await iteration(repo, lambda: sparse(repo, "big.bin", 51))
    assert result.files == ("big.bin",)


async def test_on_an_unborn_branch_all_is_new(tmp_path: Path, repo: Repo) -> None:
    empty = Repo(tmp_path / "empty", commit=False)
    result = await iteration(empty, lambda: (empty.write(".env", "A"), empty.write("a", "a")))
    assert result.files == ("a",)
    assert list(result.left) == [".env"]


def torn(repo: Repo, how: str) -> None:
    """A conflict in a.txt, and d.txt that one side deleted, without an operation half done."""
    repo.write("d.txt", "d\n")
    repo.commit("before")
    repo.git("checkout", "-qb", "other")
    repo.write("a.txt", "theirs\n")
    repo.git("rm", "-q", "d.txt")
    repo.commit("theirs")
    repo.git("checkout", "-q", "main")
    repo.write("a.txt", "ours\n")
    repo.write("d.txt", "ours, too\n")
    repo.commit("ours")
    assert repo.git(*how.split(), "other", check=False)
    assert "<<<<<<<" in repo.read("a.txt")


CONFLICT = "has an unresolved conflict: resolve it in the file, or git add it"


@pytest.mark.parametrize("how", ["merge --squash", "cherry-pick -n"])
@pytest.mark.parametrize("mend", ["edited", "as HEAD has it", "git add"])
async def test_a_conflict_is_left_until_it_is_resolved(repo: Repo, how: str, mend: str) -> None:
    def resolve() -> None:
        repo.write("a.txt", "ours\n" if mend == "as HEAD has it" else "both\n")
        (repo.path / "d.txt").unlink()
        if mend == "git add":
            repo.git("add", "-A")

    result = await iteration(repo, lambda: (torn(repo, how), repo.write("b.txt", "b")))
    assert result.files == ("b.txt",)
    assert dict(result.left) == {"a.txt": CONFLICT, "d.txt": CONFLICT}
    result = await iteration(repo, lambda: repo.write("c.txt", "c"), 2)
    assert (result.files, dict(result.left)) == (
        ("c.txt",),
        {"a.txt": CONFLICT, "d.txt": CONFLICT},
    )
    result = await iteration(repo, resolve, 3)
    assert (result.error, dict(result.left)) == ("", {})
    assert result.files == (("d.txt",) if mend == "as HEAD has it" else ("a.txt", "d.txt"))
    assert repo.status() == ""
    assert repo.git("ls-files", "--unmerged") == ""


async def test_a_conflict_that_ends_as_head_has_it_ends_in_the_index_too(repo: Repo) -> None:
    def resolve() -> None:
        repo.write("a.txt", "ours\n")
        repo.git("add", "d.txt")

    await iteration(repo, lambda: torn(repo, "merge --squash"))
    result = await iteration(repo, resolve, 2)
    assert (result.commit, result.error, dict(result.left)) == ("", "", {})
    assert repo.status() == ""


async def test_a_binary_conflict_is_not_taken_for_resolved(repo: Repo) -> None:
    def merge() -> None:
        for side in ("theirs", "ours"):
            repo.git("checkout", "-q", *(["-b", "x"] if side == "theirs" else ["main"]))
            repo.write("a.txt", f"\0{side}")
            repo.commit(side)
        repo.git("merge", "--squash", "x", check=False)

    result = await iteration(repo, merge)
    assert dict(result.left) == {"a.txt": CONFLICT}
    result = await iteration(repo, lambda: repo.write("a.txt", "\0both"), 2)
    assert result.files == ("a.txt",)
