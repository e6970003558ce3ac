"""docs/how-to.md: each recipe is carried out as it is printed."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from tests.claims.documents import ROOT
from tests.support.control_steps import CLAIM, WORK
from tests.support.harness import FAST, Workspace

PAGE = (ROOT / "docs" / "how-to.md").read_text(encoding="utf-8")
OWN_PLAN = ".codex-self-iter/plan.md"
MAKEFILE = "check:\n\ttest -e good\n"


def fences(title: str, kind: str) -> list[str]:
    """The fences of one kind in a recipe."""
    part = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = re.findall(rf"^```{kind}\n(.*?)^```$", part, re.S | re.M)
    assert found, title
    return found


@pytest.fixture
def mine(ws: Workspace) -> Workspace:
    """A repository as the recipes find it: nothing of ours in it, an agent, the program on PATH."""
    ws.without_plan()
    template = _template(ws)
    (ws.path / "codex-self-iter.toml").unlink()
    ws.environment = ws.with_command()
    ws.environment |= {f"CODEX_SELF_ITER_{key.upper()}": str(value) for key, value in FAST.items()}
    ws.environment["CODEX_SELF_ITER_AGENT_COMMAND_TEMPLATE"] = template
    return ws


def _template(ws: Workspace) -> str:
    line = (ws.path / "codex-self-iter.toml").read_text().partition("\n")[0]
    found: str = json.loads(line.partition("=")[2])
    return found


def program(ws: Workspace, name: str, text: str) -> None:
    path = ws.root / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def sh(ws: Workspace, text: str, *, code: int = 0) -> str:
    """Run a fence in the workspace; what it printed."""
    done = subprocess.run(
        ["sh", "-e", "-c", text], cwd=ws.path, env=ws.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    return done.stdout


def configure(ws: Workspace, text: str) -> None:
    (ws.path / "codex-self-iter.toml").write_text(text)
    (ws.path / ".git" / "info" / "exclude").write_text("codex-self-iter.toml\n")
    assert "is good" in sh(ws, "codex-self-iter config check")


def test_no_recipe_is_left_out() -> None:
    titles = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    tests = (ROOT / "tests" / "claims" / "test_how_to.py").read_text(encoding="utf-8")
    assert [title for title in titles if f'fences("{title}"' not in tests] == []
    listed = re.findall(r"^- \[(.+)\]\(#", PAGE, re.MULTILINE)
    assert [title.lower() for title in titles] == listed


@pytest.mark.slow
def test_a_night_begins_with_a_look_and_ends_with_a_report(mine: Workspace) -> None:
    evening, morning = fences("Leave it alone overnight", "sh")
    (mine.path / "Makefile").write_text(MAKEFILE)
    (mine.path / "good").touch()
    mine.plan("- [ ] a step\n")
    mine.git("add", "-A")
    mine.git("commit", "-q", "-m", "plan")
    (config,) = fences("Leave it alone overnight", "toml")
    configure(mine, config)
    said = sh(mine, evening)
    assert "loginctl enable-linger" in said
    assert mine.git("branch", "--show-current") == "overnight\n"
    assert len(mine.git("log", "--format=%h", "main..overnight").split()) == 1
    assert [line["verdict"] for line in mine.journal()] == ["completed"]
    said = sh(mine, morning)
    assert "completed" in said
    assert "# Report: completed" in said


def test_the_mail_has_the_object_in_it(mine: Workspace) -> None:
    (config,) = fences("Be told when it needs you", "toml")
    mine.environment["PATH"] = f"{mine.root}/bin:/usr/bin:/bin"
    said = sh(
        mine, f"cat > codex-self-iter.toml <<'END'\n{config}END\ncodex-self-iter doctor || true"
    )
    assert "the program 'mail' of [notify] command is not there" in said
    program(mine, "mail", f'echo "$@" >> "{mine.root}/mails"; cat >> "{mine.root}/mails"')
    (trial,) = fences("Be told when it needs you", "sh")
    configure(mine, config)
    sh(mine, trial)
    mine.script({**CLAIM, "write": {OWN_PLAN: "- [x] all\n"}})
    sh(mine, "codex-self-iter run 'Tidy up'")
    mails = (mine.root / "mails").read_text().splitlines()
    assert mails[::2] == ["-s codex-self-iter: a loop ada@example.org"] * 2
    assert [json.loads(mail)["event"] for mail in mails[1::2]] == ["blocked", "completed"]


@pytest.mark.slow
def test_several_repositories_have_one_supervisor(mine: Workspace) -> None:
    (config,) = fences("Look after several repositories", "toml")
    (commands,) = fences("Look after several repositories", "sh")
    (mine.path / "loops.toml").write_text(config)
    for name in ("shop", "blog"):
        repository = mine.path / name
        repository.mkdir()
        (repository / "plan.md").write_text("- [ ] a step\n")
        (repository / "index.html").write_text("x")
        subprocess.run(["git", "init", "-q"], cwd=repository, env=mine.environment, check=True)
    mine.script(CLAIM)
    said = sh(mine, commands)
    assert re.search(r"^shop +completed", said, re.M)
    assert re.search(r"^blog +completed", said, re.M)
    assert "Iteration 1: completed" in said
    gates = [
        json.loads((mine.path / name / ".codex-self-iter/logs/iterations.jsonl").read_text())["gates"]
        for name in ("shop", "blog")
    ]  # fmt: skip
    assert [[gate["command"] for gate in each] for each in gates] == [[], ["test -s index.html"]]


def test_an_issue_becomes_a_plan_that_is_worked_off(mine: Workspace) -> None:
    program(mine, "gh", 'test "$*" = "issue view 17" && echo "The basket loses cents"')
    (commands,) = fences("Make a plan from an issue", "sh")
    plan = "# Plan\n\n- [ ] Keep them\n      check: test -e work.txt\n"
    mine.script({"raw": plan}, {**CLAIM, "write": {OWN_PLAN: plan.replace("[ ]", "[x]")}})
    said = sh(mine, commands)
    assert "> [ ] Keep them" in said
    assert "The basket loses cents" in mine.prompt(1)
    assert "The basket loses cents" in mine.prompt(2)
    assert mine.verdicts() == ["completed"]


def test_a_script_proves_the_end_and_the_agent_cannot_change_it(mine: Workspace) -> None:
    (commands,) = fences("Prove the end without tests", "sh")
    guide = {"guide.md": "## Install\n", OWN_PLAN: "- [x] all\n"}
    mine.script(
        {**CLAIM, "write": {OWN_PLAN: "- [x] all\n", "guide.md": "## Install\n\nTODO\n"}},
        {**CLAIM, "write": {**guide, "acceptance.sh": "true\n"}},
        {**CLAIM, "git": [["checkout", "-q", "acceptance.sh"]]},
    )
    (mine.path / "acceptance.sh").write_text(
        commands.partition("<<'END'\n")[2].partition("END\n")[0]
    )
    mine.git("add", "-A")
    mine.git("commit", "-q", "-m", "the proof")
    said = sh(mine, commands)
    assert "gate.failed" in said.partition("run.started")[0]  # seen to fail once
    assert mine.verdicts() == ["claim_rejected", "claim_rejected", "completed"]
    assert "acceptance.sh" in mine.journal()[1]["unproven"]
    configure(mine, fences("Prove the end without tests", "toml")[0])


def test_the_second_agent_works_on_while_the_first_is_limited(mine: Workspace) -> None:
    del mine.environment["CODEX_SELF_ITER_AGENT_COMMAND_TEMPLATE"]
    (config,) = fences("Have a second agent stand in", "toml")
    limit = {"type": "error", "message": "You've hit your usage limit. Try again in 3 hours."}
    program(
        mine,
        "codex",
        f"cat > /dev/null; echo '{json.dumps(limit)}'; exit 1".replace("You've", "You have"),
    )
    block = {"summary": "s", "next_goal": "", "stop": False, "reason": "", "completed": True}
    ended = {"type": "result", "subtype": "success", "is_error": False, "result": json.dumps(block)}
    program(mine, "claude", f"cat > /dev/null; echo x > work; printf '%s\\n' '{json.dumps(ended)}'")
    mine.plan("- [ ] a step\n")
    configure(mine, config + "[agents.codex]\n")
    said = sh(mine, "codex-self-iter run --max-iterations 4")
    assert mine.journal()[-1]["agent"] == "claude", said
    assert mine.journal()[-1]["verdict"] == "completed"


def test_the_bounds_are_said_before_the_first_run(mine: Workspace) -> None:
    configure(mine, fences("Bound time, tokens and money", "toml")[0])
    mine.plan("- [ ] a step\n")
    said = sh(mine, "codex-self-iter run --dry-run")
    limits = next(line for line in said.splitlines() if line.startswith("limits: "))
    for word in ("40 iterations", "6 iterations in a row", "1 h 0 min a run", "$50", "20000000"):
        assert word.replace(" ", "") in limits.replace(" ", "").replace(",", ""), limits


def test_an_iteration_is_taken_back(mine: Workspace) -> None:
    look, refs = fences("Take back what it did", "sh")
    mine.plan("- [ ] a step\n")
    mine.script({"write": {"a": "1"}, "block": {"next_goal": "b"}}, {**CLAIM, "write": {"a": "2"}})
    sh(mine, "codex-self-iter run")
    said = sh(mine, look)
    assert "2 files changed" in said
    assert re.search(r"codex-self-iter rewind before-rewind-\w+", said)
    assert (mine.path / "a").read_text() == "1"
    assert "refs/codex-self-iter/" in sh(mine, refs)


@pytest.mark.slow
def test_red_is_mended_green_costs_nothing_and_a_circle_ends_it(mine: Workspace) -> None:
    """`sleep` is what changes the world: green, red, green again, and red for ever."""
    (commands,) = fences("Keep the checks green for a week", "sh")
    (mine.path / "Makefile").write_text(MAKEFILE)
    (mine.path / "good").touch()
    mine.git("add", "-A")
    mine.git("commit", "-q", "-m", "green")
    subprocess.run(["git", "init", "-q", "--bare", str(mine.root / "far")], check=True)
    mine.git("remote", "add", "origin", str(mine.root / "far"))
    mine.git("push", "-q", "-u", "origin", "main")
    program(
        mine, "sleep",
        f'echo x >> "{mine.root}/slept"\n'
        f'case $(wc -l < "{mine.root}/slept") in 2|4) git rm -q good; git commit -q -m red;; esac',
    )  # fmt: skip
    mended = {OWN_PLAN: "- [x] it\n", "good": "1\n"}
    mine.script({**CLAIM, "write": mended}, {**WORK, "block": {"stop": True, "reason": "cannot"}})
    said = sh(mine, commands)
    assert (mine.root / "slept").read_text().count("x") == 4, said
    assert mine.verdicts() == ["completed", "stop"]
    assert "test -e good" in mine.prompt(1)
    assert "Make this plan" in mine.prompt(2)
    assert (
        len(mine.git("log", "--format=%h", "origin/main").split()) >= 4
    )  # what mended it is pushed
    assert mine.status()["exit"]["code"] == 4


def test_the_agent_of_the_page_is_one(mine: Workspace) -> None:
    del mine.environment["CODEX_SELF_ITER_AGENT_COMMAND_TEMPLATE"]
    script, commands = fences("Use an agent of your own", "sh")
    program(mine, "my-agent", script.partition("\n")[2])
    program(mine, "your-model", 'test -s "$2" && echo tidy >> shelf')
    said = sh(mine, commands)
    assert "Dry run: nothing was written" in said
    assert (mine.path / "shelf").read_text() == "tidy\n"
    assert [line["agent"] for line in mine.journal()] == ["command"]


def test_the_container_is_built_and_run_as_the_tests_do_it() -> None:
    """tests/service/test_container.py does it for real; here: the same words."""
    (commands,) = fences("Run it in a container", "sh")
    file = ROOT / "deploy" / "docker" / "Dockerfile"
    tested = (ROOT / "tests" / "service" / "test_container.py").read_text()
    for word in re.findall(r"--build-arg (\w+)=", PAGE):
        assert f"ARG {word}=" in file.read_text()
    for line in commands.splitlines():
        verb = line.split()[1]
        assert f'podman("{verb}"' in tested
    assert os.path.exists(ROOT / commands.partition("-f ")[2].split()[0])
    assert ":/workspace" in commands
    assert "WORKDIR /workspace" in file.read_text()
