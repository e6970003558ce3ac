"""docs/agents.md, tried from outside: a stand-in says how it was called and prints what the real CLI
printed when it was recorded (tests/agents has the real ones)."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
import time
from pathlib import Path

import pytest

from tests.support.control_steps import CLAIM, FAILS, PLANNED, WORK, long_run, wait_log
from tests.support.harness import Workspace, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
RECORDED = ROOT / "tests" / "agents" / "recorded"
CLIS = ("codex", "claude", "gemini", "opencode")
NOTE = """#!/bin/sh
here=$(dirname "$0")
printf '%s\\n' "$@" > "$here/NAME.argv"
env > "$here/NAME.env"
while IFS= read -r line; do printf '%s\\n' "$line"; done > "$here/NAME.stdin"
"""


def install(ws: Workspace, name: str, *lines: str) -> Path:
    """A program of this name, first on PATH, that notes how it was called and then does `lines`."""
    place = ws.root / "bin"
    place.mkdir(exist_ok=True)
    (place / name).write_text(NOTE.replace("NAME", name) + "\n".join(lines) + "\n")
    (place / name).chmod(0o755)
    if not ws.environment["PATH"].startswith(str(place)):
        ws.environment["PATH"] = f"{place}:{ws.environment['PATH']}"
    return place


def good(name: str) -> tuple[str, str]:
    """Lines that change something and print a recorded good run of this CLI."""
    return "date +%N >> made.txt", f"cat {shlex.quote(str(RECORDED / name / 'happy.jsonl'))}"


def config(ws: Workspace, tables: str = "", **keys: object) -> None:
    ws.config(tables, **{"agent_command_template": "", **keys})


CALLS = {
    "codex": (["exec", "--json", "--output-schema", "-o"],
              ["-s", "workspace-write"], ["--dangerously-bypass-approvals-and-sandbox"]),
    "claude": (["-p", "--output-format", "stream-json", "--json-schema"],
               ["--permission-mode", "acceptEdits"], ["--dangerously-skip-permissions"]),
    "gemini": (["-o", "stream-json", "--approval-mode"], ["auto_edit"], ["yolo"]),
    "opencode": (["run", "--format", "json"], [], ["--auto"]),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["safe", "bypass"])
@pytest.mark.parametrize("name", CLIS)
def test_each_cli_is_called_as_its_row_says(ws: Workspace, name: str, mode: str) -> None:
    always, safe, bypass = CALLS[name]
    place = install(ws, name, *good(name))
    config(ws, f'[agents.{name}]\nargs = ["--last-word"]\n', agent=name, agent_mode=mode)
    assert ws.run() == 0, ws.log()
    argv = (place / f"{name}.argv").read_text().splitlines()
    wanted, other = (safe, bypass) if mode == "safe" else (bypass, safe)
    assert set(always) <= set(argv)
    assert set(wanted) <= set(argv)
    assert not set(other) - set(wanted) & set(argv)
    assert "--last-word" in argv
    assert argv.index("--last-word") > max(argv.index(word) for word in always)
    said = (place / f"{name}.stdin").read_text()
    assert "- [ ] first" in said  # the prompt, on stdin
    found = (place / f"{name}.env").read_text()
    if name == "claude":
        assert ("IS_SANDBOX=1" in found) is (mode == "bypass")
    (line,) = ws.journal()
    assert (line["verdict"], line["summary"]) == ("completed", "done")
    assert line["usage"]["total_tokens"] > 0
    as_reported = name in ("claude", "opencode")
    assert (line["cost_usd"] is not None) is as_reported


@pytest.mark.parametrize("name", CLIS)
def test_planner_and_reviewer_may_change_nothing(ws: Workspace, name: str) -> None:
    place = install(
        ws, name, 'cp "$here/NAME.argv" "$here/call-$$"'.replace("NAME", name), "exit 3"
    )
    config(ws, agent=name, mode="roles")
    ws.run("--once")
    (call,) = place.glob("call-*")
    argv = call.read_text().splitlines()
    if name == "codex":
        assert argv[argv.index("-s") + 1] == "read-only"
    elif name == "claude":
        tools = argv[argv.index("--allowedTools") + 1].split(",")
        assert not {"Edit", "Write", "Bash"} & set(tools)
    elif name == "gemini":
        assert argv[argv.index("--approval-mode") + 1] != "auto_edit"
    else:
        assert argv[argv.index("--agent") + 1] == "plan"


@pytest.mark.parametrize("there", [CLIS, CLIS[1:], CLIS[2:], CLIS[3:]])
def test_auto_takes_the_first_that_is_installed(ws: Workspace, there: tuple[str, ...]) -> None:
    for name in there:
        install(ws, name, *good(name))
    ws.environment["PATH"] = f"{ws.root / 'bin'}:/usr/bin:/bin"  # and no other CLI
    config(ws)
    assert ws.run() == 0, ws.log()
    assert ws.journal()[0]["agent"] == there[0]


def test_auto_takes_the_template_first_and_never_plan_shell(ws: Workspace) -> None:
    install(ws, "codex", *good("codex"))
    assert ws.run() == 0
    assert ws.journal()[0]["agent"] == "command"
    (ws.root / "bin" / "codex").unlink()
    ws.environment["PATH"] = f"{ws.root / 'bin'}:/usr/bin:/bin"
    ws.plan("- [ ] x\n  ```sh\n  touch made\n  ```\n")
    config(ws)
    assert ws.run() == 2
    assert not (ws.path / "made").exists()


def test_each_role_may_have_an_agent_of_its_own(ws: Workspace) -> None:
    says = {
        "type": "result",
        "subtype": "success",
        "session_id": "s",
        "result": json.dumps(PLANNED),
    }
    install(ws, "claude", f"echo {shlex.quote(json.dumps(says))}")
    install(ws, "codex", *good("codex"))
    review = {"continue": False, "confidence": 1, "next_focus": "", "reason": "r"}
    ws.script({"raw": json.dumps(review)})
    tables = '[roles]\nplanner = "claude"\nexecutor = "codex"\nreviewer = "command"\n'
    ws.config(tables, mode="roles")
    assert ws.run() == 0, ws.log()
    assert [run["agent"] for run in ws.journal()[0]["runs"]] == ["claude", "codex", "command"]


# -- environment -----------------------------------------------------------------------------------

KEYS = {
    name: f"value-of-{name}-0123456789"
    for name in ("CODEX_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY",
                 "GH_TOKEN", "ACME_SECRET")
}  # fmt: skip
OWN = {
    "codex": {"CODEX_API_KEY", "OPENAI_API_KEY"},
    "claude": {"ANTHROPIC_API_KEY"},
    "gemini": {"GEMINI_API_KEY"},
    "opencode": {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"},
}


@pytest.mark.parametrize("name", CLIS)
def test_an_agent_gets_its_own_keys_and_those_that_are_passed_on(ws: Workspace, name: str) -> None:
    place = install(ws, name, *good(name))
    gate = json.dumps(f"env > '{ws.control}/gate'")
    tables = f'[verify]\ncommands = [{gate}]\npass_env = ["ACME_*"]\n[agents.{name}]\npass_env = ["GH_TOKEN"]\n'
    tables += 'env = { COLOUR = "red", PLAIN = "ours" }\n'
    config(ws, tables, agent=name)
    given = {**KEYS, "PLAIN": "theirs", "CODEX_SELF_ITER_HISTORY_TAIL": "4"}
    assert ws.run(environment=given) == 0, ws.log()

    def lines(path: Path) -> dict[str, str]:
        pairs = (line.partition("=") for line in path.read_text().splitlines())
        return {key: value for key, _, value in pairs}

    found = lines(place / f"{name}.env")
    assert {key for key in KEYS if key in found} == OWN[name] | {"GH_TOKEN"}
    assert (found["COLOUR"], found["PLAIN"]) == ("red", "ours")  # last of all
    ours = [key for key in found if key.startswith("CODEX_SELF_ITER_")]
    assert not [
        key for key in ours if "RUN" not in key and "PLACE" not in key and "WORK" not in key
    ]
    assert KEYS.keys() & lines(ws.control / "gate").keys() == {"ACME_SECRET"}  # what gates get


def test_a_templates_program_gets_everything_and_is_told_the_mode(ws: Workspace) -> None:
    seen = ws.control / "seen"
    ws.config(agent_mode="bypass")
    ws.script({**CLAIM, "run": f"env > '{seen}'"})
    assert ws.run(environment={**KEYS, "CODEX_SELF_ITER_HISTORY_TAIL": "4"}) == 0
    text = seen.read_text()
    assert all(f"{key}={value}" in text for key, value in KEYS.items())
    assert "CODEX_SELF_ITER_AGENT_MODE=bypass" in text
    assert "CODEX_SELF_ITER_HISTORY_TAIL" not in text


# -- templates -------------------------------------------------------------------------------------


def test_the_agent_of_the_documentation_is_one(ws: Workspace) -> None:
    (text,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    agent = ws.root / "an agent.sh"
    agent.write_text(textwrap.dedent(text))
    agent.chmod(0o755)
    template = f"{shlex.quote(str(agent))} {{prompt_file}}"
    ws.config(agent_command_template=template, max_iterations=2)
    assert ws.run() == 0, ws.log()
    assert ws.verdicts() == ["continue", "continue"]
    assert [line["goal_in"] for line in ws.journal()] == ["", "write another"]
    assert "lines of prompt" in (ws.path / "work.log").read_text()


@pytest.mark.parametrize(
    ("template", "right"),
    [
        ("agent < {prompt_file}", "sh -c 'exec agent < \"$1\"' agent {prompt_file}"),
        ("cat {prompt_file} | agent", "sh -c 'cat \"$1\" | agent' cat {prompt_file}"),
        ("cd x && agent {prompt_file}", "sh -c 'cd x && agent \"$1\"' cd {prompt_file}"),
        ("agent $(cat {prompt_file})", "sh -c"),
        ("qwen -y {prompt_file}", "sh -c 'exec qwen -y < \"$1\"' qwen {prompt_file}"),
    ],
)
def test_a_line_that_lacks_its_shell_is_refused_with_the_right_one(
    ws: Workspace, template: str, right: str
) -> None:
    ws.config(agent_command_template=template)
    assert ws.run() == 2
    assert right in " ".join(ws.log().split())
    assert ws.started() == 0


def test_the_prompt_file_is_a_path_and_no_shell_reads_the_line(ws: Workspace) -> None:
    agent = ws.root / "agent.sh"
    agent.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" > got\necho \'{"summary": "s", "completed": true}\'\n'
    )
    agent.chmod(0o755)
    ws.config(agent_command_template=f"'{agent}' {{prompt_file}} '$HOME;' '*' \"a b\"")
    assert ws.run() == 0, ws.log()
    path, *rest = (ws.path / "got").read_text().splitlines()
    assert rest == ["$HOME;", "*", "a b"]
    assert Path(path).is_absolute()
    assert "- [ ] first" in Path(path).read_text()


NEARLY = {
    "commas": '{"summary": "s", "next_goal": "n", "stop": false, "completed": true,}',
    "comments": '{"summary": "s", // what\n "next_goal": "n", "stop": false, "completed": true}',
    "backslashes": r'{"summary": "a \d b", "next_goal": "n", "stop": false, "completed": true}',
    "single quotes": "{'summary': 's', 'next_goal': 'n', 'stop': false, 'completed': true}",
    "typographic": "{“summary”: “s”, “next_goal”: “n”, “stop”: false, “completed”: true}",
    "python": '{"summary": "s", "next_goal": None, "stop": False, "completed": True}',
}


@pytest.mark.parametrize("how", NEARLY)
def test_an_answer_that_is_nearly_json_is_read(ws: Workspace, how: str) -> None:
    ws.script({**WORK, "raw": f"Here it is:\n{NEARLY[how]}\n"})
    assert ws.run("--max-iterations", "1") == 0
    assert ws.verdicts() == ["completed"], ws.journal()


NO_ANSWERS = {
    "form": '{"summary": "...", "next_goal": "...", "stop": false, "completed": true}',
    "broken": '{"summary": "s" "next_goal": ["n", "completed": true',
}


@pytest.mark.parametrize("how", NO_ANSWERS)
def test_what_is_no_answer_is_an_error_that_the_next_prompt_explains(
    ws: Workspace, how: str
) -> None:
    ws.script({**WORK, "raw": NO_ANSWERS[how]}, CLAIM)
    assert ws.run() == 0
    assert ws.verdicts() == ["error", "completed"]
    error = ws.journal()[0]["error"]
    assert error
    assert error.split(":")[0] in ws.prompt(2)
    if how == "broken":
        assert re.search(r"line \d+|column \d+|character \d+", error)
        assert "broken at its line 1" in ws.log()


PROMISES = {
    "whole summary": ('{"summary": "PLAN_COMPLETE", "next_goal": "", "stop": false}', "completed"),
    "alone on a line": (
        'PLAN_COMPLETE\n{"summary": "s", "next_goal": "n", "stop": false}',
        "completed",
    ),
    "last line without a block": ("I have done it all.\nPLAN_COMPLETE", "completed"),
    "against completed": (
        '{"summary": "PLAN_COMPLETE", "next_goal": "n", "stop": false, "completed": false}',
        "continue",
    ),
}


@pytest.mark.parametrize("how", PROMISES)
def test_the_promise_word_claims_where_it_is_said_to(ws: Workspace, how: str) -> None:
    raw, verdict = PROMISES[how]
    ws.script({**WORK, "raw": raw + "\n"})
    assert ws.run("--max-iterations", "1") == 0
    assert ws.verdicts() == [verdict]


# -- when a run fails ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_every_variable_that_a_cli_gets_of_ours_is_documented(ws: Workspace, name: str) -> None:
    install(ws, name, f'env > "{ws.root}/env"', *good(name))
    config(ws, agent=name)
    assert ws.run("--once") == 0
    given = dict(line.split("=", 1) for line in (ws.root / "env").read_text().splitlines())
    pages = [(ROOT / "docs" / page).read_text() for page in ("agents.md", "contract.md")]
    told = {found for page in pages for found in re.findall(r"`([A-Z_]+)`", page)}
    shells = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert given.keys() - ws.environment.keys() - shells <= told
    assert given["GIT_CEILING_DIRECTORIES"].startswith(f"{ws.state}/logs/runs/")


def claude_fails(ws: Workspace, status: int, text: str) -> None:
    """A claude that has this HTTP status for its error."""
    event = {"type": "result", "subtype": "success", "is_error": True, "session_id": "s",
             "api_error_status": status, "result": text}  # fmt: skip
    install(ws, "claude", f"echo {shlex.quote(json.dumps(event))}", "exit 1")


FAST_OUTAGE = {"max_outage_sec": 0.5, "backoff_max_sec": 0.1, "backoff_base_sec": 0.01}
STATUSES = [
    (413, "Prompt is too long", "context", 2),
    (402, "Payment required", "billing", 2),
    (401, "no", "auth", 2),
    (403, "no", "auth", 2),
    (404, "no such model", "config", 2),
    (500, "oh", "overload", None),
    (529, "Overloaded", "overload", None),
    (408, "late", "network", None),
]


@pytest.mark.parametrize(("status", "text", "kind", "tries"), STATUSES)
def test_an_http_status_has_its_class_and_its_bound(
    ws: Workspace, status: int, text: str, kind: str, tries: int | None
) -> None:
    claude_fails(ws, status, text)
    config(ws, agent="claude", max_consecutive_errors=2, **FAST_OUTAGE)
    assert ws.run() == 4, ws.log()
    assert {line["failure_class"] for line in ws.journal()} == {kind}
    assert ws.status()["state"] == "blocked"
    if tries:
        assert len(ws.journal()) == tries
    else:  # not the agent's fault: it is bounded by time and ten tries alone
        assert len(ws.journal()) >= 10
        assert "max_outage_sec" in ws.status()["reason"]


@pytest.mark.parametrize(
    ("code", "kind"), [(41, "auth"), (52, "config"), (55, "config"), (44, "sandbox")]
)
def test_geminis_exit_codes_have_their_classes(ws: Workspace, code: int, kind: str) -> None:
    install(ws, "gemini", f"echo it did not work >&2; exit {code}")
    config(ws, agent="gemini")
    assert ws.run() == 4, ws.log()
    assert [line["failure_class"] for line in ws.journal()] == [kind, kind]
    assert ws.status()["state"] == "blocked"


def test_a_limit_is_waited_out_and_nothing_started_into_it(ws: Workspace) -> None:
    claude_fails(ws, 429, "You've hit your limit · resets in 2 hours")
    config(ws, agent="claude")
    process = ws.start()
    ws.wait_state("limited")
    assert [line["failure_class"] for line in ws.journal()] == ["limit"]
    assert ws.status()["wait"]["kind"] == "limit"
    (line,) = ws.journal()  # the reset is counted from the second in which it was read
    assert 7200 + 4 <= line["wait"]["length"] <= 7200 + 36
    process.terminate()
    assert ws.ended(process) == 0
    again = ws.start()  # nor does a restart
    ws.wait_state("limited")
    again.terminate()
    assert ws.ended(again) == 0
    assert len(ws.journal()) == 1


def test_a_program_that_is_not_there_needs_a_person(ws: Workspace) -> None:
    place = install(ws, "claude", *good("claude"))
    config(ws, agent="claude")
    ws.script(CLAIM)
    (place / "claude").write_text("#!/nowhere/at/all\n")
    assert ws.run() in (2, 4)
    assert "Traceback" not in ws.log()


def test_what_we_ended_ourselves_goes_on_without_a_backoff(ws: Workspace) -> None:
    ws.config(backoff_base_sec=600, backoff_max_sec=600)
    ws.script(long_run(), CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    ws.wait_state("running")
    assert ws.cli("steer", "--now", "another way").returncode == 0
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["aborted", "completed"]
    assert ws.journal()[0]["after"]["counters"]["agent_errors"] == 0


def test_failures_are_counted_in_a_row_and_an_answer_starts_anew(ws: Workspace) -> None:
    ws.config(max_consecutive_errors=2)
    ws.script(FAILS, {**WORK, "number": True}, FAILS, {**WORK, "number": True}, FAILS, FAILS)
    assert ws.run() == 4
    assert ws.verdicts() == ["error", "continue", "error", "continue", "error", "error"]


def test_one_that_was_replaced_is_tried_again_after_a_reload(ws: Workspace) -> None:
    place = install(ws, "claude", "exit 3")
    ws.config('[agents]\norder = ["claude", "command"]\n', agent="claude")
    ws.script(long_run("go", number=True), long_run("go on", block={"completed": True}))
    process = ws.start()
    ws.wait_runs(1)
    assert [line["agent"] for line in ws.journal()] == ["claude"] * 3
    (place / "claude").write_text(NOTE.replace("NAME", "claude") + "\n".join(good("claude")) + "\n")
    text = (ws.path / "codex-self-iter.toml").read_text()
    (ws.path / "codex-self-iter.toml").write_text("history_tail = 3\n" + text)
    process.send_signal(1)
    wait_log(ws, "config.changed")
    (ws.control / "go").touch()
    wait_until(lambda: len(ws.journal()) == 5, "the next run")
    assert ws.journal()[4]["agent"] == "claude"
    assert ws.ended(process) == 0


@pytest.mark.parametrize("kind", ["auth", "memory", "unix seconds", "work"])
def test_bounds_of_failing_in_a_row(ws: Workspace, kind: str) -> None:
    """One try with max_consecutive_errors = 1; five for want of memory."""
    if kind == "unix seconds":
        install(
            ws, "agent", f"echo 'Claude AI usage limit reached|{int(time.time()) + 7200}'; exit 1"
        )
        ws.config(agent_command_template=f"'{ws.root}/bin/agent' {{prompt_file}}")
        process = ws.start()
        ws.wait_state("limited")
        assert len(ws.journal()) == 1  # no guess: it is not asked a second time
        process.terminate()
        assert ws.ended(process) == 0
        return
    if kind == "auth":
        claude_fails(ws, 401, "no")
        config(ws, agent="claude", max_consecutive_errors=1)
    elif kind == "memory":
        words = "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory"
        install(ws, "claude", f"echo '{words}' >&2; exit 134")
        config(ws, agent="claude", max_consecutive_errors=1)
    else:
        ws.config(max_stagnation=0, max_consecutive_errors=1, backoff_base_sec=0)
        ws.script({**WORK, "exit": 3})
    assert ws.run(patience=110) == 4, ws.log()
    wanted = {"auth": (1, "auth"), "memory": (5, "memory"), "work": (36, "agent")}
    assert (len(ws.journal()), ws.journal()[-1]["failure_class"]) == wanted[kind]


def test_prompts_of_roles_say_which_object_they_want(ws: Workspace) -> None:
    review = {"continue": False, "confidence": 1, "next_focus": "", "reason": "r"}
    ws.config(mode="roles")
    ws.script({"raw": json.dumps(PLANNED)}, CLAIM, {"raw": json.dumps(review)})
    assert ws.run() == 0
    for number, mine, others in (
        (1, "execution_prompt", "next_focus"),
        (2, "next_goal", "execution_prompt"),
        (3, "next_focus", "execution_prompt"),
    ):
        assert mine in ws.prompt(number)
        assert f'"{others}"' not in ws.prompt(number)


THREAD = """
n=$(cat "$here/count" 2>/dev/null || echo 0); n=$((n+1)); echo $n > "$here/count"
printf '%s ' "$@" >> "$here/calls"; echo >> "$here/calls"
case "$*" in *" resume "*) id=${*##* resume }; id=${id%% *};; *) id=0197a000-0000-7000-8000-00000000000$n;; esac
echo "{\\"type\\":\\"thread.started\\",\\"thread_id\\":\\"$id\\"}"
date +%N >> made.txt
cat "$here/answer"
"""
EVERY_ROLE = {
    **PLANNED,
    "continue": True, "confidence": 1, "next_focus": "f", "reason": "r", "summary": "s",
    "next_goal": "n", "completed": False, "evidence": [],
}  # fmt: skip


@pytest.mark.parametrize("resume", [False, True])
def test_each_role_has_a_fresh_session_or_one_that_goes_on(ws: Workspace, resume: bool) -> None:
    place = install(ws, "codex", THREAD)
    message = {"id": "i", "type": "agent_message", "text": json.dumps(EVERY_ROLE)}
    usage = {"type": "turn.completed", "usage": {"input_tokens": 5, "output_tokens": 1}}
    lines = [{"type": "item.completed", "item": message}, usage]
    (place / "answer").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config(
        ws,
        f"[agents.codex]\nresume = {str(resume).lower()}\nresume_max_turns = 2\n",
        agent="codex", mode="roles", max_iterations=3,
    )  # fmt: skip
    assert ws.run() == 0, ws.log()
    calls = (place / "calls").read_text().splitlines()
    assert len(calls) == 9
    resumed = [re.findall(r" resume (\S+)", call) for call in calls]
    if not resume:
        assert resumed == [[]] * 9
        return
    assert resumed[:3] == [[]] * 3
    own = [f"0197a000-0000-7000-8000-00000000000{number}" for number in (1, 2, 3)]
    assert [one for (one,) in resumed[3:6]] == own  # each its own
    assert resumed[6:] == [[]] * 3  # after resume_max_turns runs the next is fresh


def test_loops_on_one_account_wait_for_its_limit_together(tmp_path: Path) -> None:
    pair = [Workspace(tmp_path, name) for name in ("one", "two")]
    try:
        one, two = pair
        place = install(one, "claude", 'echo x >> "$here/calls"')
        for ws in pair:
            claude_says = {"type": "result", "subtype": "success", "is_error": True,
                           "session_id": "s", "api_error_status": 429,
                           "result": "You've hit your limit · resets in 2 hours"}  # fmt: skip
            with (place / "claude").open("a") as file:
                file.write(f"echo {shlex.quote(json.dumps(claude_says))}; exit 1\n")
            config(ws, agent="claude")
        assert two.cli("pause").returncode == 0
        process = one.start("--workspace", str(two.path))
        one.wait_state("limited")
        two.wait_state("paused")
        assert two.cli("resume").returncode == 0
        two.wait_state("limited")
        assert (place / "calls").read_text() == "x\n"
        process.terminate()
        assert one.ended(process) == 0
    finally:
        for ws in pair:
            ws.close()


def test_an_urgent_message_has_the_first_agent_tried_again(ws: Workspace) -> None:
    place = install(ws, "claude", "exit 3")
    ws.config('[agents]\norder = ["claude", "command"]\n', agent="claude")
    ws.script(long_run())
    process = ws.start()
    ws.wait_runs(1)
    said = wait_until(
        lambda: next((text for text in ws.status()["warnings"] if "stands in" in text), ""),
        "who stands in to be said",
    )
    hour, minute = map(int, re.findall(r"until (?:\S+ )?(\d\d):(\d\d)", said)[0])
    now = time.localtime()
    left = (hour * 60 + minute - now.tm_hour * 60 - now.tm_min) % 1440
    assert 55 <= left <= 61  # each hour
    (place / "claude").write_text(NOTE.replace("NAME", "claude") + "\n".join(good("claude")) + "\n")
    assert ws.cli("steer", "--now", "try again").returncode == 0
    assert ws.ended(process) == 0
    assert [line["agent"] for line in ws.journal()] == [*["claude"] * 3, "command", "claude"]
