"""From outside: every way of failing ends and is told, work counts, another agent stands in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.control_steps import notify, told
from tests.support.harness import Workspace, wait_until

CLAUDE = """#!/bin/sh
# Prints what claude prints.
cat >/dev/null
cd "$(dirname "$0")"
echo '{"type":"system","subtype":"init","session_id":"s","model":"m"}'
"""
FAILED = (
    '{"type":"result","subtype":"success","is_error":true,"session_id":"s",'
    '"api_error_status":%d,"result":"%s"}'
)
RETRY = (
    '{"type":"system","subtype":"api_retry","session_id":"s","attempt":3,"max_retries":10,'
    '"error_status":529,"error":"overloaded"}'
)
ON = {"append": {"work.txt": "x\n"}, "block": {"next_goal": "go on"}}


def stand_in(ws: Workspace, *lines: str, tables: str = "", **keys: object) -> Path:
    """Let a program that does this be claude; the scripted agent stands in for it."""
    binary = ws.root / "bin" / "claude"
    binary.parent.mkdir(exist_ok=True)
    binary.write_text(CLAUDE + "\n".join(lines) + "\n")
    binary.chmod(0o755)
    order = '[agents]\norder = ["claude", "command"]\n' if keys.pop("two", False) else ""
    table = f"{order}[agents.claude]\nbinary = {json.dumps(str(binary))}\n{tables}\n"
    ws.config(table, agent="claude", **keys)
    return binary.parent


def fails(status: int, text: str) -> str:
    return f"echo '{FAILED % (status, text)}'; exit 1"


def test_a_missing_login_is_told_once_with_what_to_do(ws: Workspace) -> None:
    stand_in(ws, fails(401, "Invalid API key"), tables=notify(ws))
    assert ws.run() == 4
    assert [line["failure_class"] for line in ws.journal()] == ["auth", "auth"]
    assert "claude auth login" in ws.status()["reason"]
    assert [one["event"] for one in told(ws)] == ["blocked"]
    assert "claude auth login" in told(ws)[0]["text"]


def test_an_outage_is_told_at_the_third_try_and_ends(ws: Workspace) -> None:
    tables = notify(ws)
    stand_in(ws, fails(529, "Overloaded"), tables=tables, max_outage_sec=1, backoff_max_sec=0.2)
    process = ws.start()
    wait_until(lambda: told(ws), "the notice")
    assert ws.ended(process) == 4
    assert {line["failure_class"] for line in ws.journal()} == {"overload"}
    assert len(ws.journal()) >= 10
    assert [one["event"] for one in told(ws)] == ["outage", "blocked"]
    assert "max_outage_sec" in ws.status()["reason"]
    assert ws.status()["last"]["failure_class"] == "overload"
    assert "error (overload)" in ws.cli("history").stdout
    assert "error (overload)" in ws.cli("status").stdout
    assert "failure_class=overload" in ws.log()


ANSWERS = (
    '{"type":"result","subtype":"success","is_error":false,"session_id":"s",'
    '"result":"{\\"next_goal\\": \\"go on\\", \\"stop\\": false}"}'
)
AWAY = {
    "gone": 'mv "$PWD/claude" "$PWD/kept"',
    "not executable": 'cp claude kept; chmod -x "$PWD/claude"',
    "half of it": "cp -p claude kept; head -c 8 /bin/sh | tr -d E > new; chmod +x new; mv new claude",
}


@pytest.mark.parametrize("way", AWAY)
def test_an_update_of_the_agents_program_ends_nothing(ws: Workspace, way: str) -> None:
    work = f"echo x >> '{ws.path}/work.txt'; {AWAY[way]}; echo '{ANSWERS}'"
    at = stand_in(ws, work, tables=notify(ws), backoff_max_sec=0.2)
    process = ws.start()
    wait_until(lambda: len(ws.journal()) >= 4, "more tries than a person's")
    assert [line["failure_class"] for line in ws.journal()][1:4] == ["missing"] * 3
    wait_until(lambda: told(ws), "the notice")
    assert [one["event"] for one in told(ws)] == ["outage"]
    wait_until(lambda: "was there before" in "".join(ws.status()["warnings"]), "the warning")
    (at / "new").write_text(CLAUDE + f"echo y >> '{ws.path}/work.txt'; echo '{ANSWERS}'\n")
    (at / "new").chmod(0o755)
    (at / "new").rename(at / "claude")
    wait_until(lambda: ws.journal()[-1]["failure_class"] == "", "the program to be back")
    ws.cli("stop")
    assert ws.ended(process) == 0
    assert ws.status()["warnings"] == []
    assert len(told(ws)) == 1


def test_a_file_that_never_was_a_program_is_for_a_person(ws: Workspace) -> None:
    at = stand_in(ws, "")
    (at / "claude").write_text("echo no first line\n")
    assert ws.run() == 4
    assert [line["failure_class"] for line in ws.journal()] == ["config", "config"]
    assert "begin it with #!/bin/sh" in ws.status()["reason"]


def test_a_prompt_that_does_not_fit_is_shortened_and_then_given_up(ws: Workspace) -> None:
    at = stand_in(ws, "cat > last", fails(413, "Prompt is too long"))
    (at / "claude").write_text((at / "claude").read_text().replace("cat >/dev/null", ""))
    ws.cli("steer", "A MESSAGE " + "x" * 50_000)
    assert ws.run() == 4
    assert [line["failure_class"] for line in ws.journal()] == ["context", "context"]
    full, short = [path.read_text() for path in sorted((ws.state / "prompts").iterdir())]
    assert "- [ ] first" in full
    assert "- [ ] first" not in short
    assert f"Read it in {ws.path}/plan.md" in short
    assert "A MESSAGE" in short
    assert len(short) < 20_000 < len(full)
    assert f"[the whole message is in {ws.state}/inbox/done/*-" in short
    assert "shorten task and plan" in ws.status()["reason"]
    assert any("prompts were too long" in text for text in ws.status()["warnings"])


def stands_in(ws: Workspace) -> list[str]:
    return [text for text in ws.status().get("warnings", []) if "stands in" in text]


def test_who_stands_in_for_whom_until_when_is_said(ws: Workspace) -> None:
    stand_in(ws, fails(401, "Invalid API key"), tables=notify(ws), two=True)
    ws.script(ON, {"sleep": 600, "until": "go", "append": {"work.txt": "x\n"},
                   "block": {"completed": True}})  # fmt: skip
    process = ws.start()
    ws.wait_runs(2)
    wait_until(lambda: stands_in(ws), "who stands in to be said")
    (said,) = stands_in(ws)
    assert said.startswith("command stands in for claude as executor until ")
    assert "claude auth login" in said
    assert "agent.handed_over" in ws.log()
    assert [one["event"] for one in told(ws)] == ["blocked"]  # not one a try
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert [line["agent"] for line in ws.journal()] == ["claude", "command", "command"]


def test_an_agent_that_simply_fails_hands_over(ws: Workspace) -> None:
    stand_in(ws, "echo no >&2; exit 3", two=True)
    ws.script({**ON, "block": {"completed": True}})
    assert ws.run() == 0
    assert [line["agent"] for line in ws.journal()] == [*["claude"] * 3, "command"]


def test_retries_of_the_cli_are_a_state_of_the_run(ws: Workspace) -> None:
    result = json.dumps(
        {
            "type": "result",
            "subtype": "success",
            "session_id": "s",
            "result": json.dumps(
                {
                    "summary": "s",
                    "next_goal": "n",
                    "stop": False,
                    "reason": "",
                    "evidence": [],
                    "completed": True,
                }
            ),
        }
    )
    at = stand_in(
        ws,
        f"echo '{RETRY}'",
        "while ! test -e on; do sleep 0.05; done",
        'echo \'{"type":"assistant","session_id":"s","message":{"content":[{"type":"text","text":"hm"}]}}\'',
        "while ! test -e end; do sleep 0.05; done",
        f"cat <<'EOF'\n{result}\nEOF",
    )  # fmt: skip
    process = ws.start()

    def retrying() -> str | None:
        return (ws.status().get("run") or {}).get("retrying")

    wait_until(retrying, "the retry in the status")
    assert "3/10" in str(retrying())
    assert "3/10" in ws.cli("status").stdout
    assert "run.retrying" in ws.log()
    (at / "on").touch()
    wait_until(lambda: ws.status()["run"] and not retrying(), "the end of the retries")
    (at / "end").touch()
    assert ws.ended(process) == 0


@pytest.mark.slow
def test_time_outs_that_leave_work_behind_count_no_error(ws: Workspace) -> None:
    ws.config(command_timeout_sec=1, max_consecutive_errors=2, kill_grace_sec=0.1)
    cut = {"append": {"work.txt": "x\n"}, "sleep": 600}
    ws.script(*[cut] * 4, {**ON, "block": {"completed": True}})
    assert ws.run() == 0
    assert ws.verdicts() == ["timed_out"] * 4 + ["completed"]
    assert "The work is kept" in ws.prompt(2)
    assert "work.txt" in ws.prompt(2)


def test_a_plan_that_is_ticked_off_never_goes_in_circles(ws: Workspace) -> None:
    items = [f"- [{{}}] item {number}" for number in range(8)]

    def ticked(count: int) -> str:
        return "\n".join(one.format("x" if n < count else " ") for n, one in enumerate(items))

    ws.plan(ticked(0))
    ws.config(max_stagnation=2)
    steps = [
        {"write": {"plan.md": ticked(n)}, "block": {"next_goal": "the next open item"}}
        for n in range(1, 8)
    ]
    ws.script(*steps, {"write": {"plan.md": ticked(8)}, "block": {"completed": True}})
    assert ws.run() == 0
    assert len(ws.journal()) == 8


@pytest.mark.slow
def test_after_an_outage_the_prompt_still_knows_what_was_done(ws: Workspace) -> None:
    ws.config(history_tail=3, max_consecutive_errors=0)
    work = [{**ON, "block": {"next_goal": "on", "summary": f"useful {n}"}} for n in range(4)]
    ws.script(*work, *[{"exit": 3}] * 9, {**ON, "block": {"completed": True}})
    assert ws.run() == 0
    text = ws.prompt(14)
    assert [f"useful {n}" in text for n in range(4)] == [False, True, True, True]
    assert "Iterations 5 to 13: no answer (9 agent)." in text


@pytest.mark.parametrize("step", [{"exit": 3}, {"block": {"next_goal": "x"}}])
def test_the_last_iteration_waits_for_nothing(ws: Workspace, step: dict[str, object]) -> None:
    ws.config(backoff_base_sec=600, backoff_max_sec=600, no_change_backoff_sec=600)
    ws.script(step)
    assert ws.run("--once") == 0
    assert "iteration limit" in ws.status()["reason"]


def test_once_into_a_missing_login_needs_a_person(ws: Workspace) -> None:
    stand_in(ws, fails(401, "Invalid API key"), backoff_base_sec=600, backoff_max_sec=600)
    assert ws.run("--once") == 4
    assert "claude auth login" in ws.status()["reason"]


@pytest.mark.slow
def test_who_ticks_deletes_and_adds_an_item_again_goes_in_circles(ws: Workspace) -> None:
    agent = ws.root / "agent.sh"
    answer = json.dumps({"summary": "s", "next_goal": "on", "stop": False, "completed": False})
    agent.write_text(
        "#!/bin/sh\n"
        f"cd '{ws.path}'\n"
        "if grep -q '^- .x. extra' plan.md; then sed -i '/extra/d' plan.md\n"
        "elif grep -q extra plan.md; then sed -i 's/^- .*extra/- [x] extra/' plan.md\n"
        "else echo '- [ ] extra' >> plan.md; fi\n"
        f"echo '{answer}'\n"
    )
    agent.chmod(0o755)
    template = f"{agent} {{prompt_file}} {{workspace}}"
    ws.config(agent_command_template=template, max_stagnation=2)
    assert ws.run("--max-iterations", "30") == 3
    assert len(ws.journal()) < 20
