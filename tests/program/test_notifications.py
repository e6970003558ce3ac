"""Words to a person, from outside: to a webhook, ntfy, mail and a command; over faults, kills and quiet
hours; and never a reason for anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from codex_self_iter.views.notice import page_key
from tests.program.test_many import supervise
from tests.support.control_steps import LIMITED, long_run
from tests.support.harness import Workspace, wait_until
from tests.support.listeners import Listener, http, mail
from tests.support.program import PROGRAM

DONE = {"append": {"work.txt": "x\n"}, "block": {"completed": True, "summary": "all of it"}}
FAILS = {"exit": 3}
NOTICE = "[budget]\nmax_hours = 1000\nnotice_at = 0.0000000001\n"
"""The first run is told of as one that nears a budget; the loop lives on."""
LIVES = {"sleep": 600, "until": "go"}
LONG = {
    **LIMITED,
    "sleep": 600,
    "until": "go",
    "raw": "ERROR: usage limit reached, try again in 2 days\n",
}


@pytest.fixture
def hook() -> Iterator[Listener]:
    with http() as one:
        yield one


def toml(*lines: str) -> str:
    return "\n".join(["[notify]", *lines]) + "\n"


def urls(*each: str, **more: Any) -> str:
    return toml(f"urls = {json.dumps(each)}", *(f"{k} = {json.dumps(v)}" for k, v in more.items()))


def webhook(told: Listener) -> str:
    return f"json://127.0.0.1:{told.port}/in"


def history(ws: Workspace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ws.cli("notify", "--json").stdout.splitlines()]


@pytest.mark.slow
def test_an_end_arrives_at_every_kind_of_target(
    ws: Workspace, hook: Listener, tmp_path: Path
) -> None:
    with mail() as post:
        table = (
            f'command = ["sh", "-c", "cat > {tmp_path}/told"]\n'
            f'page = "https://loops.example.org"\n'
            f'urls = ["{webhook(hook)}", "ntfy://127.0.0.1:{hook.port}/${{TOPIC}}"]\n'
            "[[notify.targets]]\n"
            f'url = "mailto://127.0.0.1:{post.port}?from=loop@example.org&to=you@example.org"\n'
            'name = "mail"\nmarkdown = true\n'
        )
        ws.config(f"[notify]\n{table}")
        ws.script(DONE)
        ws.environment["TOPIC"] = "my-secret-topic"
        assert ws.run() == 0
    said = json.loads((tmp_path / "told").read_text())
    assert (said["event"], said["state"], said["title"]) == (
        "completed",
        "completed",
        "work space: completed",
    )
    first = next(one for one in hook.heard if one["path"] == "/in")
    assert first["title"] == "work space: completed"
    lines = first["message"].splitlines()
    assert any(
        line.startswith("Completed, iteration 1, plan 0 of 2, 1 file changed by the last, 20")
        for line in lines
    )
    assert "Last: all of it" in lines
    assert f"codex-self-iter history --workspace '{ws.path}'" in lines
    assert lines[-1] == f"https://loops.example.org/loop/{page_key(os.path.realpath(ws.state))}"
    pushed = next(one for one in hook.heard if "topic" in one)
    assert pushed["topic"] == "my-secret-topic"
    assert pushed["title"] == "work space: completed"
    (letter,) = post.heard
    assert (letter["subject"], letter["to"]) == ("work space: completed", ["you@example.org"])
    assert "Completed, iteration 1, plan" in letter["text"]
    (line,) = history(ws)
    assert line["targets"] == dict.fromkeys(("command", "json", "ntfy", "mail"), "sent")
    assert "my-secret-topic" not in ws.log() + str(line) + json.dumps(ws.status())
    shown = ws.cli("notify", "history").stdout
    assert "completed" in shown
    assert "mail: sent" in shown


@pytest.mark.slow
def test_a_target_that_is_down_is_tried_again_by_the_next_start(
    ws: Workspace, hook: Listener
) -> None:
    hook.faults = [500] * 20
    ws.config(urls(webhook(hook)), max_consecutive_errors=1)
    ws.script(FAILS, DONE)
    assert ws.run() == 4
    assert any("json failed: " in text for text in ws.status()["warnings"])
    (waits,) = history(ws)
    assert re.match(r"waits after [34] tries, again at ", waits["targets"]["json"])
    assert hook.heard == []
    hook.faults.clear()
    ws.make_due()
    assert ws.run() == 0
    titles = sorted(one["title"] for one in hook.heard)
    assert titles == ["work space: completed", "work space: needs you"]
    assert [line["targets"] for line in history(ws)] == [{"json": "sent"}] * 2
    assert not any("json failed" in text for text in ws.status()["warnings"])


@pytest.mark.slow
def test_a_target_that_fails_at_the_end_is_tried_again_at_once(
    ws: Workspace, hook: Listener
) -> None:
    hook.faults = [500, 500]
    ws.config(urls(webhook(hook)))
    ws.script(DONE)
    assert ws.run() == 0
    assert [one["title"] for one in hook.heard] == ["work space: completed"]


@pytest.mark.slow
def test_a_kill_between_the_decision_and_the_sending_loses_nothing(
    ws: Workspace, hook: Listener
) -> None:
    hook.faults = ["hang"]
    ws.config(urls(webhook(hook)), max_consecutive_errors=1)
    ws.script(FAILS, DONE)
    process = ws.start()
    wait_until(lambda: hook.tries == 1, "the first try")
    process.kill()
    process.wait()
    assert hook.heard == []
    assert ws.run() == 0
    titles = [one["title"] for one in hook.heard]
    assert titles.count("work space: needs you") == 1
    assert titles.count("work space: completed") == 1


@pytest.mark.slow
def test_a_target_that_hangs_holds_no_iteration_up(ws: Workspace, hook: Listener) -> None:
    hook.faults = ["hang"]
    ws.config(
        urls(webhook(hook), events=["budget", "completed"])
        + "[budget]\nmax_hours = 1000\nnotice_at = 0.0000000001\n"
    )
    work = {"append": {"work.txt": "x\n"}, "block": {"summary": "s", "next_goal": "n"}}
    ws.script(*[work] * 5, long_run())
    process = ws.start()
    wait_until(lambda: hook.tries == 1, "the first try")
    ws.wait_runs(6)
    assert hook.heard == []
    hook.over.set()
    ws.cli("stop")
    assert ws.ended(process) == 0


def test_in_quiet_hours_a_word_waits_but_not_for_the_command(
    ws: Workspace, hook: Listener, tmp_path: Path
) -> None:
    now = datetime.now().astimezone()
    quiet = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    table = urls(webhook(hook), quiet=quiet, command=["sh", "-c", f"cat > {tmp_path}/told"])
    night = f'[[notify.targets]]\nurl = "{webhook(hook)}"\nname = "night"\nat_night = true\n'
    ws.config(table + night + NOTICE)
    ws.script({"sleep": 0.2}, LIVES)
    process = ws.start()
    wait_until(lambda: hook.heard and (tmp_path / "told").exists(), "whoever is told at night")
    wait_until(lambda: history(ws) and "night" in history(ws)[0]["targets"], "the history")
    line = history(ws)[0]
    assert line["targets"]["night"] == line["targets"]["command"] == "sent"
    until = datetime.fromisoformat(
        line["targets"]["json"].removeprefix("waits, again at ")
    ).astimezone()
    assert timedelta(minutes=50) < until - now < timedelta(minutes=61)
    assert len(hook.heard) == 1
    process.terminate()  # nobody is left who could send it later
    ws.ended(process)
    assert {line["targets"]["json"] for line in history(ws)} == {"sent"}


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "UTC"])
def test_quiet_hours_are_those_of_the_zone(ws: Workspace, hook: Listener, zone: str) -> None:
    """14 hours lie between the two: where one is quiet the other is not."""
    there = datetime.now(ZoneInfo("Pacific/Kiritimati"))
    quiet = f"{there - timedelta(hours=1):%H:%M}-{there + timedelta(hours=1):%H:%M}"
    ws.config(urls(webhook(hook), quiet=quiet, zone=zone) + NOTICE)
    ws.script({"sleep": 0.2}, LIVES)
    process = ws.start()
    said = "waits, again at" if zone != "UTC" else "sent"
    wait_until(lambda: history(ws) and said in history(ws)[0]["targets"]["json"], said)
    assert len(hook.heard) == (zone == "UTC")
    process.terminate()
    ws.ended(process)


def test_who_wants_no_other_events_is_told_of_none(ws: Workspace, hook: Listener) -> None:
    table = f'[[notify.targets]]\nurl = "{webhook(hook)}"\nevents = ["blocked"]\n'
    ws.config(table)
    ws.script(DONE)
    assert ws.run() == 0
    assert hook.tries == 0
    assert history(ws) == []


def test_a_test_message_says_for_each_target_whether_it_arrived(
    ws: Workspace, hook: Listener
) -> None:
    nobody = ws.cli("notify", "test")
    assert nobody.returncode == 2
    assert "nobody is told" in nobody.stderr
    hook.faults = [200, 500]
    ws.config(urls(webhook(hook), f"json://127.0.0.1:{hook.port}/two", "json://${NO_SUCH}/"))
    done = ws.cli("notify", "test")
    assert done.returncode == 4
    first, second, third = done.stdout.splitlines()
    assert first == "json: sent"
    assert second.startswith("json-2: not sent: ")
    assert third == "json-3: not sent: the variable NO_SUCH is not set"
    assert hook.heard[0]["title"] == "work space: a test"
    one = ws.cli("notify", "test", "json")
    assert (one.returncode, one.stdout) == (0, "json: sent\n")
    wrong = ws.cli("notify", "test", "phone")
    assert wrong.returncode == 2
    assert "there are: json, json-2, json-3" in wrong.stderr
    whole, part = history(ws)
    assert (whole["event"], whole["targets"]["json"], part["targets"]) == (
        "test",
        "sent",
        {"json": "sent"},
    )
    assert whole["targets"]["json-2"].startswith("not sent: ")
    assert "No loop has run there yet" in hook.heard[0]["message"]
    assert "iteration" not in hook.heard[0]["message"]
    ws.script(DONE)
    ws.config(urls(webhook(hook), events=["blocked"]))
    assert ws.run() == 0
    ws.cli("notify", "test")
    assert "Completed, iteration 1, plan 0 of 2" in hook.heard[-1]["message"]


def test_doctor_says_what_would_not_arrive(ws: Workspace, hook: Listener) -> None:
    assert "nobody is told" in ws.cli("doctor").stdout
    ws.config(
        urls(
            "json://${NO_SUCH}/",
            "tgram://123456789:AAEhBOweik6ad6PsVMRxjeQKXkq8rQQMwpk/12345",
            webhook(hook),
        )
    )
    said = ws.cli("doctor", "--json").stdout
    findings = {one["id"]: one for one in json.loads(said)["findings"]}
    assert findings["notify.json"]["status"] == "fail"
    assert "NO_SUCH is not set" in findings["notify.json"]["what"]
    assert findings["notify.tgram"]["status"] == "warn"
    assert "secret" in findings["notify.tgram"]["what"]
    assert findings["notify.json-2"]["status"] == "ok"


@pytest.mark.slow
def test_what_nobody_takes_for_days_is_given_up_and_said(ws: Workspace, hook: Listener) -> None:
    hook.faults = [500] * 20
    ws.config(urls(webhook(hook)), max_consecutive_errors=1)
    ws.script(FAILS, DONE)
    assert ws.run() == 4
    del hook.faults[1:]
    ws.make_due(older=4 * 86_400.0)
    assert ws.run() == 0
    assert "notify.given_up" in ws.log()
    given_up = next(line for line in history(ws) if line["event"] == "blocked")
    assert re.match(r"given up after [45] tries: ", given_up["targets"]["json"])


@pytest.mark.slow
def test_more_than_three_at_a_time_are_one_message(ws: Workspace, hook: Listener) -> None:
    hook.faults = [500] * 20
    ws.config(urls(webhook(hook)), max_consecutive_errors=1)
    ws.script(FAILS, DONE)
    assert ws.run() == 4
    hook.faults.clear()
    path = ws.state / "outbox.json"
    box = json.loads(path.read_text())
    (entry,) = box["entries"]
    box["entries"] = [
        entry | {"notice": entry["notice"] | {"key": f"k{n}", "text": f"number {n}"}}
        for n in range(14)
    ]
    path.write_text(json.dumps(box | {"dropped": 7}))
    ws.make_due()
    assert ws.run() == 0
    many, last = hook.heard
    assert many["title"] == "work space: 14 messages, the last: needs you"
    assert many["message"].splitlines()[0] == "11 earlier messages not shown."
    assert "needs you: number 13" in many["message"]
    assert last["title"] == "work space: completed"
    assert len(history(ws)) == 15
    assert len(ws.cli("notify", "--json", "--limit", "3").stdout.splitlines()) == 3


def test_a_redirected_message_was_not_sent(ws: Workspace, hook: Listener) -> None:
    hook.faults = [301]
    ws.config(urls(webhook(hook)))
    result = ws.cli("notify", "test")
    assert result.returncode == 4
    assert "not sent" in result.stdout
    assert "redirects" in result.stdout


def test_targets_can_come_from_a_variable(ws: Workspace, hook: Listener) -> None:
    each = [{"url": webhook(hook), "name": "phone", "events": ["completed"]}]
    ws.environment["CODEX_SELF_ITER_NOTIFY__TARGETS"] = json.dumps(each)
    ws.script(DONE)
    assert ws.run() == 0
    assert history(ws)[0]["targets"] == {"phone": "sent"}


@pytest.mark.slow
def test_loops_that_one_limit_holds_up_send_one_message(tmp_path: Path, hook: Listener) -> None:
    loops = [Workspace(tmp_path, name) for name in ("one", "two", "three")]
    place = tmp_path / "loops"
    place.mkdir()
    try:
        for ws in loops:
            ws.script(*[LONG] * 9)
            ws.config(
                urls(webhook(hook))
                + '[pool]\nmax_agents = 3\n[agents.command]\naccount = "team"\n',
                backoff_base_sec=0,
            )
            text = (ws.path / "codex-self-iter.toml").read_text()
            (place / f"{ws.path.name}.toml").write_text(
                f"workspace = {json.dumps(str(ws.path))}\n{text}"
            )
            (ws.path / "codex-self-iter.toml").unlink()
        with (tmp_path / "supervisor-1.log").open("wb") as log:
            process = subprocess.Popen(
                [*PROGRAM, "--config-dir", str(place)], cwd=tmp_path, env=loops[0].environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        loops[0].supervisors.append(process)
        for ws in loops:
            ws.wait_runs(1)
        for ws in loops:
            (ws.control / "go").touch()
        wait_until(lambda: loops[0].log().count("notify.shared") == 2, "two that say nothing")
        wait_until(lambda: hook.heard, "a message")
        titles = [one["title"] for one in hook.heard]
        assert len(titles) == 1
        assert "cannot go on for now" in titles[0]
        process.terminate()
        assert loops[0].ended(process) == 0
    finally:
        for ws in loops:
            ws.close()


@pytest.mark.slow
def test_one_that_hangs_keeps_no_other_waiting(ws: Workspace, hook: Listener) -> None:
    hook.faults = ["hang"]
    with http() as other:
        ws.config(urls(webhook(hook), webhook(other)))
        ws.script(DONE)
        process = ws.start()
        wait_until(lambda: other.heard, "the other one to hear it")
        assert hook.heard == []
        hook.over.set()
        assert ws.ended(process) == 0


def test_a_command_that_mends_names_the_configuration_that_was_named(
    ws: Workspace, hook: Listener, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "my loop.toml"
    ws.config(urls(webhook(hook), events=["agent_stopped", "crashed", "blocked"]))
    (ws.path / "codex-self-iter.toml").rename(elsewhere)
    ws.script({"block": {"stop": True, "reason": "which database?"}})
    assert ws.run("--config", str(elsewhere)) == 0
    own = f"--workspace '{ws.path}' --config '{elsewhere}'"
    assert f"&& codex-self-iter run {own}" in hook.heard[0]["message"]
    ws.cli("steer", "postgres")
    said = subprocess.run(
        [*PROGRAM, "digest"],
        env=ws.environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"mend     codex-self-iter run {own}" in said
    assert f"codex-self-iter run {own}" in " ".join(ws.cli("status").stdout.split())


def test_a_netrc_says_nothing(ws: Workspace, hook: Listener) -> None:
    (ws.root / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    ws.environment["HOME"] = str(ws.root)
    ws.config(urls(webhook(hook)))
    assert ws.cli("notify", "test").returncode == 0
    assert hook.logins == [""]


@contextmanager
def at_night(tmp_path: Path, hook: Listener) -> Iterator[tuple[subprocess.Popen[bytes], Workspace]]:
    """In quiet hours: a supervisor of two loops, of which one goes on and the other has ended."""
    now = datetime.now().astimezone()
    quiet = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    table = urls(webhook(hook), quiet=quiet, events=["completed"])
    short, long = (Workspace(tmp_path, name) for name in ("short", "long"))
    try:
        for ws, step in ((short, DONE), (long, LIVES)):
            ws.script(step, LIVES)
            ws.config(table)
        process = supervise(short, long, tables=table)
        long.wait_runs(1)
        wait_until(lambda: short.status().get("exit"), "the end of one")
        yield process, short
    finally:
        for ws in (short, long):
            ws.close()


@pytest.mark.slow
def test_the_end_of_a_loop_among_others_waits_for_the_morning(
    tmp_path: Path, hook: Listener
) -> None:
    with at_night(tmp_path, hook) as (process, short):
        wait_until(lambda: "waits, again at " in str(history(short)), "the word")
        assert history(short)[0]["targets"]["json"].startswith("waits, again at ")
        assert hook.tries == 0
        process.terminate()  # nobody is there later
        assert short.ended(process) == 0
        assert [one["title"] for one in hook.heard] == ["short: completed"]


@pytest.mark.slow
def test_whoever_starts_an_ended_loop_has_its_words(tmp_path: Path, hook: Listener) -> None:
    with at_night(tmp_path, hook) as (process, short):
        wait_until(lambda: "waits" in str(history(short)), "the word")
        other = short.start()
        short.wait_runs(2)
        process.terminate()
        assert short.ended(process) == 0
        assert "notify.left" in short.log()
        assert hook.tries == 0
        other.terminate()
        assert short.ended(other) == 0
        assert [one["title"] for one in hook.heard] == ["short: completed"]


@pytest.mark.slow
def test_a_target_has_twenty_seconds_for_its_answer(ws: Workspace, hook: Listener) -> None:
    """More than its library gives it: a message that is taken slowly would be sent again."""
    ws.config(urls(webhook(hook)))
    hook.faults = [6.0]
    assert ws.cli("notify", "test").stdout == "json: sent\n"
    hook.faults = ["hang"]
    begun = time.monotonic()
    assert "json: not sent: " in (said := ws.cli("notify", "test").stdout)
    assert "within 30 s" not in said, "it has given up by itself"
    assert time.monotonic() - begun >= 19
