"""Level "container" for real: what a run inside is like, seen from the loop outside."""

from __future__ import annotations

import json
import shutil

import psutil
import pytest

from tests.fence_container.conftest import Place
from tests.support.harness import wait_until
from tests.support.tiny_image import IMAGE

pytestmark = [pytest.mark.root, pytest.mark.slow]
ANSWER = json.dumps(
    {
        "summary": "did a step", "next_goal": "go on", "stop": False, "reason": "more", "evidence": [],
        "completed": False,
    }
)  # fmt: skip
SAY = f"echo '{ANSWER}'\n"


def test_two_runs_share_a_container_that_goes_with_the_loop(place: Place) -> None:
    place.agent(
        'echo "$(cat /proc/1/stat)" >>first; echo "$PATH $TMPDIR $(id -u)" >>who\n'
        "echo run >>work; cat /proc/1/comm >&2\n" + SAY
    )
    assert place.run("--max-iterations", "2") == 0, place.log()
    assert place.verdicts() == ["continue", "continue"], place.log()
    assert (place.path / "work").read_text() == "run\nrun\n"
    first, second = (line.split()[21] for line in (place.path / "first").read_text().splitlines())
    assert first == second
    assert place.log().count("container.made") == 1
    path, temporary, user = (place.path / "who").read_text().splitlines()[0].split()
    assert (temporary, user) == ("/run/tmp", "0")
    assert str(place.podman.directory) not in path
    assert not [
        one for one in ("container.json", "container", "desk") if (place.state / one).exists()
    ]


def test_how_an_agent_ends_and_what_it_prints_is_its_own(place: Place) -> None:
    place.agent(
        'n=$(cat n 2>/dev/null); echo "x$n" >n; echo "out $n"; echo "err $n" >&2\n'
        'case $n in "") exit 7 ;; x) kill -SEGV $$ ;; esac\n' + SAY
    )
    assert place.run("--max-iterations", "3") == 0, place.log()
    runs = [place.state / "logs" / "runs" / f"{number:06d}-executor" for number in (1, 2, 3)]
    ends = [json.loads((run / "exit.json").read_text()) for run in runs]
    assert [(end["exit_code"], end["signal"]) for end in ends] == [(7, None), (None, 11), (0, None)]
    assert (runs[1] / "stdout.log").read_text() == "out x\n"
    assert (runs[1] / "stderr.log").read_text() == "err x\n"
    assert place.verdicts() == ["error", "error", "continue"], place.log()


def test_a_secret_is_in_the_environment_and_in_no_command_line(place: Place) -> None:
    """Looked for from outside in everything that runs meanwhile, engine included."""
    place.agent(
        'echo "$WORD" >word; tr "\\0" "\\n" </proc/self/environ >all\n'
        "touch there; until [ -e go ]; do sleep 0.05; done\n" + SAY,
        tables='[agents.command.env]\nWORD = "it\'s a SECRET $HOME\\nof two lines"\n',
    )
    running = place.start("--max-iterations", "1")
    wait_until((place.path / "there").exists, place.log)
    lines = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    (place.path / "go").touch()
    assert place.ended(running) == 0
    assert (place.path / "word").read_text() == "it's a SECRET $HOME\nof two lines\n"
    assert any("agent.sh" in line for line in lines)
    assert not [line for line in lines if "SECRET" in line]
    kept = [
        path for path in place.state.rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()
    ]
    assert kept == []


def test_a_program_that_is_not_in_the_image_is_said_to_be_missing_there(place: Place) -> None:
    place.agent("")
    text = (place.path / "codex-self-iter.toml").read_text()
    line = 'agent_command_template = "no-such-agent {prompt_file}"\n'
    kept = [one for one in text.splitlines(keepends=True) if "agent_command" not in one]
    (place.path / "codex-self-iter.toml").write_text(line + "".join(kept))
    assert place.run("--max-iterations", "1") != 2, place.log()
    assert f"the image {IMAGE} has no program 'no-such-agent'" in place.log()
    (end,) = place.journal()
    assert end["failure_class"] in ("config", "auth"), end


def test_memory_is_bounded_for_what_is_inside(place: Place) -> None:
    place.agent(
        "python3 -c 'import time; x = bytearray(200 << 20); time.sleep(600)'\n" + SAY,
        memory_limit_mb=100,
    )
    assert place.run("--max-iterations", "1") == 0, place.log()
    assert "cause=memory" in place.log()


def test_an_idle_agent_is_ended_and_one_at_work_is_not(place: Place) -> None:
    """Its processor time counts, although it is nobody's child outside."""
    place.agent(
        "if [ -e second ]; then exec sleep 600; fi; touch second\n"
        "python3 -c 'import time; end = time.time() + 2\nwhile time.time() < end: pass'\n" + SAY,
        idle_timeout_sec=1,
    )
    assert place.run("--max-iterations", "2") == 0, place.log()
    assert place.verdicts() == ["continue", "timed_out"], place.log()
    assert "cause=idle_timeout" in place.log()


def test_the_rest_of_this_machine_is_not_there(place: Place) -> None:
    """HOME is empty beside the agent's homes, and what is denied is empty; no process is seen."""
    (place.home / "own").mkdir()
    (place.path / ".env").write_text("KEY\n")
    (place.path / "keys").mkdir()
    (place.path / "keys" / "id").write_text("KEY\n")
    place.agent(
        "ls -a $HOME >home; cat .env keys/* >denied 2>&1; ls /proc | grep '^[0-9]' >processes\n"
        "cat /proc/net/dev >network\n" + SAY,
        fence='level = "container"\nnetwork = "none"\ndeny_read = [".env", "keys"]',
    )
    assert place.run("--max-iterations", "1") == 0, place.log()
    assert (place.path / "home").read_text().split() == [".", ".."]
    assert "KEY" not in (place.path / "denied").read_text()
    assert len((place.path / "processes").read_text().split()) < 10
    lines = (place.path / "network").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]


def test_a_gate_file_that_a_person_replaces_is_seen_inside_before_the_next_run(
    place: Place,
) -> None:
    gate = place.path / "tests" / "gate"
    gate.parent.mkdir()
    gate.write_text("old\n")
    place.agent(
        "cat tests/gate >>seen; echo mine >tests/gate; touch there; until [ -e go ]; do sleep 0.05; done\n"
        + SAY,
        tables='[verify]\ngate_files = ["tests/gate"]\n',
    )
    running = place.start("--max-iterations", "2")
    wait_until((place.path / "there").exists, place.log)
    (place.path / "new").write_text("new\n")
    (place.path / "new").rename(gate)
    (place.path / "go").touch()
    assert place.ended(running) == 0, place.log()
    assert (place.path / "seen").read_text() == "old\nnew\n"
    assert place.log().count("container.made") == 2


def test_of_a_repository_around_the_workspace_nothing_is_there(place: Place) -> None:
    """Else all beside the workspace would look deleted."""
    top, place.path = place.path, place.path / "part"
    place.path.mkdir()
    (top / "plan.md").rename(place.path / "plan.md")
    (place.path / ".git" / "info").mkdir(parents=True)
    place.agent("git rev-parse --show-toplevel >top 2>&1\n" + SAY)
    shutil.rmtree(place.path / ".git")
    assert place.run("--max-iterations", "1") == 0, place.log()
    assert "not a git repository" in (place.path / "top").read_text()


def test_the_embedded_agent_works_inside_with_the_python_of_the_image(place: Place) -> None:
    place.agent("")
    place.plan("- [ ] one\n\n```sh\ncat /proc/1/comm >comm; touch one\n```\n")
    text = (place.path / "codex-self-iter.toml").read_text().splitlines(keepends=True)
    lines = ['agent = "plan-shell"\n', *(one for one in text if "agent_command" not in one)]
    (place.path / "codex-self-iter.toml").write_text("".join(lines))
    place.state = place.path / ".codex-self-iter"
    assert place.run("--max-iterations", "2") == 0, place.log()
    assert (place.path / "comm").read_text() == "sh\n"
    assert place.verdicts()[-1] == "completed", place.log()
