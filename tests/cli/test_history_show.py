"""history and show: what the journal and the files of a run tell about the past."""

import datetime
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest


def record(iteration: int, **changes: Any) -> dict[str, Any]:
    moment = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC) + datetime.timedelta(
        hours=iteration
    )
    return {
        "ts": moment.isoformat(), "iteration": iteration, "phase": "executor", "state": "running",
        "goal_in": f"goal {iteration}", "summary": f"did {iteration}", "reason": "",
        "evidence": ["pytest: 3 passed"],
        "next_goal": f"goal {iteration + 1}", "verdict": "continue", "duration_sec": 61.0,
        "agent": "codex",
        "exit_code": 0, "usage": {"input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200},
        "cost_usd": 0.25, "changed_files": ["a.py", "b.py"],
        "gates": [{"command": "pytest -q", "exit_code": 1, "ok": False, "duration_sec": 2.0,
                   "output": "1 failed"}],
    } | changes  # fmt: skip


def write(command, *records: dict[str, Any]) -> Path:
    path = command.state_dir / "logs" / "iterations.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def numbers(done: subprocess.CompletedProcess[str]) -> list[int]:
    return [json.loads(line)["iteration"] for line in done.stdout.splitlines()]


def test_the_table(command) -> None:
    write(command, record(1, verdict="error", error="no control block", summary=""), record(2))
    done = command("history")
    assert (done.returncode, done.stderr) == (0, "")
    head, first, second = done.stdout.splitlines()
    assert head.split() == ["#", "WHEN", "VERDICT", "TOOK", "TOKENS", "COST", "FILES", "SUMMARY"]
    assert first.endswith("no control block")
    assert second.split() == [
        "2", "2026-03-01", "02:00", "continue", "1", "m", "01", "s", "1.2k", "$0.25", "2", "gate",
        "`pytest", "-q`", "failed:", "did", "2",
    ]  # fmt: skip


def test_why_a_claim_was_not_believed_is_said(command) -> None:
    why = "gate files were changed by the agent: test.sh"
    write(command, record(1, verdict="claim_rejected", unproven=why, gates=[]))
    assert f"{why}: did" in " ".join(command("history").stdout.split())
    assert f"unproven {why}" in " ".join(command("show", "1").stdout.split())


def test_the_newest_are_shown_and_the_limit_holds(command) -> None:
    write(command, *(record(number) for number in range(1, 101)))
    assert numbers(command("history", "--json", "--limit", "3")) == [98, 99, 100]
    for words, lines in ((), 31), (("--json",), 30):
        done = command("history", *words)
        assert len(done.stdout.splitlines()) == lines
        assert "--limit" in done.stderr
    assert command("history", "--limit", "3").stderr == ""  # as asked for
    assert command("history", "--since", "71").stderr == ""  # exactly those


def test_filters(command) -> None:
    records = [
        record(number, verdict="error" if number % 10 == 0 else "continue")
        for number in range(1, 1201)
    ]
    write(command, *records)
    assert numbers(command("history", "--json", "--verdict", "error", "--limit", "2")) == [
        1190,
        1200,
    ]
    assert len(numbers(command("history", "--json", "--verdict", "error", "--limit", "500"))) == 120
    assert numbers(command("history", "--json", "--since", "1199")) == [1199, 1200]
    since = command("history", "--json", "--since", "2026-03-01T05:00:00+00:00", "--limit", "9999")
    assert numbers(since)[0] == 5
    assert "No iteration fits" in command("history", "--since", "2h").stdout


@pytest.mark.parametrize(
    "words", [("--verdict", "errror"), ("--since", "soon"), ("--limit", "0"), ("--limit", "x")]
)
def test_bad_filters_are_explained(command, words: tuple[str, ...]) -> None:
    done = command("history", *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert words[0].strip("-") in done.stderr


def test_broken_lines_are_passed_over(command) -> None:
    path = write(command, record(1), record(2))
    with path.open("ab") as file:
        file.write(
            b"\x00" * 200
            + b"\nforeign\n[]\n"
            + json.dumps(record(3)).encode()
            + b"\n"
            + b'{"iteration": 4, "torn'
        )
    assert numbers(command("history", "--json")) == [1, 2, 3]


def test_no_journal_yet(command) -> None:
    assert "No iteration is recorded" in command("history").stdout
    done = command("show", "1")
    assert done.returncode == 2
    assert "no iteration is recorded" in done.stderr


def test_show_tells_everything(command) -> None:
    write(command, record(1), record(2, summary="\x1b[31mdid it"))
    prompts = command.state_dir / "prompts"
    prompts.mkdir()
    for role in ("reviewer", "executor", "planner"):
        (prompts / f"000002-{role}.md").write_text(f"prompt of the {role}", encoding="utf-8")
    directory = command.state_dir / "logs" / "runs" / "000002-executor"
    directory.mkdir(parents=True)
    (directory / "answer.txt").write_text("the answer\nof two lines", encoding="utf-8")
    done = command("show", "2")
    assert (done.returncode, done.stderr) == (0, "")
    for expected in (
        "Iteration 2: continue, 1 m 01 s", "goal       goal 2", "summary    did it",
        "pytest: 3 passed",
        "codex, exit code 0", "1.2k, $0.25", "pytest -q: exited with code 1", "    1 failed", "a.py",
        "    the answer",
    ):  # fmt: skip
        assert expected in done.stdout, expected
    at = [
        done.stdout.index(f"prompt of the {role}") for role in ("planner", "executor", "reviewer")
    ]
    assert at == sorted(at)
    assert "\x1b" not in done.stdout
    assert command("show").stdout == done.stdout
    value = json.loads(command("show", "2", "--json").stdout)
    assert value["run_directories"] == [str(directory)]


def test_long_texts_are_bounded(command) -> None:
    write(command, record(1))
    (command.state_dir / "prompts").mkdir()
    (command.state_dir / "prompts" / "000001-executor.md").write_text(
        "word\n" * 100_000, encoding="utf-8"
    )
    assert len(command("show", "1").stdout) < 20_000
    assert "--full" in command("show", "1").stdout
    assert len(command("show", "1", "--full").stdout) > 500_000


def test_an_unknown_iteration_names_the_range(command) -> None:
    write(command, *(record(number) for number in range(5, 9)))
    for number in ("4", "9"):
        done = command("show", number)
        assert done.returncode == 2
        assert "recorded are 5 to 8" in done.stderr


def test_the_diff_comes_from_git_where_both_ends_are_known(command) -> None:
    def git(*words: str) -> str:
        argv = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *words]
        environment = os.environ | {"HOME": command.env["HOME"]}
        return subprocess.run(
            argv, cwd=command.workspace, env=environment, capture_output=True, text=True, check=True
        ).stdout

    git("init", "-q")
    heads = []
    for text in ("one\n", "one\ntwo\n"):
        (command.workspace / "file.txt").write_text(text, encoding="utf-8")
        git("add", "file.txt")
        git("commit", "-qm", "change")
        heads.append(git("rev-parse", "HEAD").strip())
    write(
        command,
        record(1, head_before=heads[0], head_after=heads[1]),
        record(2, head_before="--output=x", head_after="y"),
    )
    assert "file.txt | 1 +" in command("show", "1").stdout
    assert "a.py" in command("show", "2").stdout
    assert not (command.workspace / "x").exists()


def test_completion_of_commands_options_and_names(command) -> None:
    from codex_self_iter.world import registry
    from tests.support.shown_loops import lanes

    assert command("complete", "--", "sta").stdout.split() == ["status"]
    assert "--after-iteration" in command("complete", "--", "stop", "--a").stdout.split()
    assert "--max-iterations" in command("complete", "--", "--max").stdout.split()
    directory = Path(command.env["HOME"], ".local/state/codex-self-iter/loops")
    directory.mkdir(parents=True)
    entry = {
        "name": "webshop",
        "workspace": str(command.workspace),
        "state_dir": str(command.workspace),
    }
    (directory / "x.json").write_text(
        json.dumps(entry | {"pid": 1, "boot_id": registry.boot_id()}), encoding="utf-8"
    )
    assert command("complete", "--", "stop", "").stdout.split() == ["webshop"]
    command.write_status(lanes=lanes())
    assert command("complete", "--", "lanes", "").stdout.split() == [
        "keep",
        "drop",
        "retry",
        "show",
    ]
    assert command("complete", "--", "lanes", "drop", "").stdout.split() == ["3", "4", "5"]
    assert "complete -o default" in command("complete", "--script", "bash").stdout
    assert command("complete", "--script", "tcsh").returncode == 2


def test_the_bash_script_completes(command) -> None:
    script = command("complete", "--script", "bash").stdout
    shell = f"""codex-self-iter() {{ {" ".join(map(repr, command.argv()))} "$@"; }}
{script}
COMP_WORDS=(codex-self-iter stat); COMP_CWORD=1; _codex_self_iter; echo "${{COMPREPLY[@]}}" """
    done = subprocess.run(
        ["bash", "-c", shell],
        env=command.env,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == "status"


def test_waits_events_and_refusals_are_shown_in_words(command) -> None:
    wait = {
        "kind": "no_change", "until": 1_795_360_000.0, "length": 30.0, "boot_id": "b",
        "reason": "the last iteration changed nothing", "up_until": 1.0,
    }  # fmt: skip
    edit = {"kind": "plan.changed", "at": 1_795_350_000.0, "added": 3, "removed": 1}
    write(command, record(1, wait=wait, events=[edit], refused=["Bash: pytest -q"]))
    shown = command("show", "1").stdout
    for expected in (
        "wait       no change until 2026-11-22 15:06:40+00:00 (30 s): the last iteration changed nothing",
        "events     plan.changed at 2026-11-22 12:20:00+00:00, added 3, removed 1",
        "refused    Bash: pytest -q",
    ):
        assert expected in shown
    there = command("show", "1", TZ="XYZ-2:30").stdout
    assert "1 m 01 s, 2026-03-01 03:30:00+02:30" in there
    assert "until 2026-11-22 17:36:40+02:30" in there
    assert "boot_id" not in shown
    assert "{" not in shown


def prompts(command, **texts: bytes) -> None:
    directory = command.state_dir / "prompts"
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (directory / f"{name.removeprefix('n').replace('_', '-')}.md").write_bytes(text)


def test_a_prompt_is_shown_byte_for_byte(command) -> None:
    text = "# Ü\r\n\x1b[31mred\x1b[0m\n\n\n".encode() + b"\xff" + b"no end of line"
    write(command, record(1), record(2))
    prompts(command, n000001_executor=text, n000002_executor=b"two\n", n000003_executor=b"three\n")
    for words in (["1", "--prompt"], ["--prompt", "1"], ["1", "--prompt", "executor"]):
        done = subprocess.run(
            command.argv("show", *words), cwd=command.workspace, env=command.env,
            capture_output=True, timeout=30, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, text, b"")
    assert command("show", "--prompt").stdout == "two\n"  # the last that is recorded
    assert command("show", "3", "--prompt").stdout == "three\n"  # it is on


def test_of_several_prompts_one_is_named(command) -> None:
    write(command, record(1))
    prompts(
        command, n000001_executor=b"one\n", n000001_executor_2=b"again\n", n000001_planner=b"p\n"
    )
    done = command("show", "1", "--prompt")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "has several prompts; name one: show 1 --prompt planner | executor | executor-2"
        in done.stderr
    )
    assert command("show", "1", "--prompt", "executor-2").stdout == "again\n"
    assert command("show", "1", "--prompt=planner").stdout == "p\n"
    done = command("show", "1", "--prompt", "reviewer")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no prompt 'reviewer'; name one" in done.stderr


def test_a_prompt_that_is_not_kept_any_more_or_never_was_is_said(command) -> None:
    write(command, record(1))
    done = command("show", "1", "--prompt")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the prompt of iteration 1 is not kept any more; [output] keep_runs" in done.stderr
    done = command("show", "9", "--prompt")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no iteration 9" in done.stderr
