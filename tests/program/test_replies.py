"""A person's answers, from outside: by ntfy and Telegram to running loops; nothing from strangers,
nothing twice; one program asks for all; and never a reason for anything."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from codex_self_iter.replies import channels
from codex_self_iter.replies.__main__ import ALIVE_SEC
from codex_self_iter.supervisor import ears
from tests.support.harness import Workspace, wait_until
from tests.support.program import running
from tests.support.talkers import Bot, Topic, ntfy, telegram

WORD = "let-me-in-please"
WORKS = {"sleep": 0.2, "number": True, "append": {"work.txt": "x\n"}}
LONG = {**WORKS, "sleep": 600, "until": "go"}
ME, STRANGER = 4711, 666


@pytest.fixture
def topic() -> Iterator[Topic]:
    with ntfy() as one:
        yield one


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("telegram")


@pytest.fixture
def bot(place: Path) -> Iterator[Bot]:
    with telegram(place) as one:
        yield one


def by_ntfy(ws: Workspace, topic: Topic, **keys: Any) -> None:
    ws.environment["WORD"] = WORD
    url = f"ntfy://127.0.0.1:{topic.port}/talk"
    ws.config(f'[[notify.replies]]\nurl = "{url}"\nallow = ["${{WORD}}"]\n', **keys)


def by_telegram(ws: Workspace, bot: Bot, **keys: Any) -> None:
    ws.environment |= bot.environment
    table = f'url = "tgram://${{TELEGRAM_TOKEN}}/{ME}"\nallow = ["{ME}"]\n'
    ws.config(f"[[notify.replies]]\n{table}", **keys)


def listens(ws: Workspace, count: int = 1) -> None:
    wait_until(
        lambda: ws.log().count("reply.listening") >= count, f"it listens\n{ws.log()[-2000:]}"
    )


@contextlib.contextmanager
def listening(ws: Workspace, step: dict[str, Any] = LONG) -> Iterator[subprocess.Popen[bytes]]:
    """Its supervisor, from when it listens until the block has ended."""
    ws.script(step)
    process = ws.start()
    listens(ws)
    yield process
    process.terminate()
    ws.ended(process)


def hasty(ws: Workspace, code: str) -> None:
    """Every Python of this workspace begins with it."""
    place = ws.root / "hasty"
    place.mkdir()
    (place / "sitecustomize.py").write_text(code)
    ws.environment["PYTHONPATH"] = str(place)


def programs(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return running("codex_self_iter.replies", psutil.Process(process.pid).children())


def lines(ws: Workspace, event: str) -> list[str]:
    return [line for line in ws.log().splitlines() if f" {event} " in line]


def answered(topic: Topic, count: int) -> str:
    wait_until(lambda: len(topic.answers()) >= count, f"answer {count}, have {topic.answers()}")
    return topic.answers()[count - 1]


def test_a_reply_steers_a_running_loop_and_stops_it(ws: Workspace, topic: Topic) -> None:
    by_ntfy(ws, topic)
    ws.script(LONG, WORKS)
    process = ws.start()
    listens(ws)
    ws.wait_runs(1)
    topic.write(f"{WORD.capitalize()} /status")
    assert answered(topic, 1).startswith("work space: running for ")
    assert ", iteration 1, plan 0 of 2. " in answered(topic, 1)
    topic.write(f"{WORD} use redis, not memcached")
    assert re.fullmatch(
        r"work space: The supervisor of work space puts it into the next prompt\.",
        answered(topic, 2),
    )
    (ws.control / "go").touch()
    wait_until(lambda: ws.started() >= 2, "the next run")
    assert "use redis, not memcached" in ws.prompt(2)
    topic.write(f"{WORD} /stop")
    code = re.fullmatch(r"To stop work space, send (\d{6}) within 5 minutes\.", answered(topic, 3))
    assert code is not None
    assert process.poll() is None
    topic.write(f"{WORD} {code[1]}")
    assert ws.ended(process) == 0
    assert "STOP" in ws.status()["reason"]
    assert answered(topic, 4).startswith(
        "work space: The supervisor of work space ends the running agent"
    )
    for command in ("status", "steer", "stop"):
        wait_until(lambda: f"command={command}" in "".join(lines(ws, "reply.accepted")), command)  # noqa: B023
    log = ws.log()
    assert "command=stop" in "".join(lines(ws, "reply.answered"))
    assert WORD not in log
    assert code[1] not in log


def test_pause_asks_and_resume_does_not(ws: Workspace, topic: Topic) -> None:
    by_ntfy(ws, topic)
    with listening(ws, WORKS):
        topic.write(f"{WORD} Pause")
        topic.write(f"{WORD} {answered(topic, 1).split('send ')[1][:6]}")
        ws.wait_state("paused")
        topic.write(f"{WORD} /resume")
        ws.wait_state("running", "verifying", "backoff")


def test_strangers_and_old_messages_are_refused_and_logged(ws: Workspace, topic: Topic) -> None:
    topic.write(f"{WORD} /status")  # before anybody listened
    by_ntfy(ws, topic)
    with listening(ws):
        # before it reads, the server goes by times, and these are in no order
        wait_until(lambda: topic.readers == 1, "a reader")
        topic.write("another-word-entirely /status")
        topic.write(f"{WORD} /status", at=time.time() - 700)
        topic.write(f"{WORD} /status", at=time.time() + 700)
        topic.write(f"{WORD} a message of a loop", title="work space: needs you")
        topic.write(f"{WORD} /status", key="twice")
        assert "running" in answered(topic, 1)
        topic.messages.append(dict(topic.messages[-2]))
        assert topic.messages[-1]["id"] == "twice"
        topic.write(f"{WORD} /help")
        assert "/steer TEXT" in answered(topic, 2)
        assert len(topic.answers()) == 2
        wait_until(
            lambda: len(lines(ws, "reply.refused")) >= 4,
            lambda: f"what was refused in the log\n{ws.log()}\n{topic.messages}",
        )
        for why in ("not allowed", "it is old, by 7", "from the future", "heard before"):
            assert sum(why in line for line in lines(ws, "reply.refused")) == 1
        assert "a message of a loop" not in "".join(map(str, ws.status().items()))


def test_a_flood_is_counted_and_not_logged_line_by_line(ws: Workspace, topic: Topic) -> None:
    by_ntfy(ws, topic)
    with listening(ws):
        for number in range(200):
            topic.write(f"stranger number {number}")
        topic.write(f"{WORD} /status")
        answered(topic, 1)
        wait_until(lambda: ws.log().count("reply.refused") == 20, "20 refusals")


def test_a_sender_that_floods_is_refused(ws: Workspace, topic: Topic) -> None:
    by_ntfy(ws, topic)
    with listening(ws):
        for _ in range(25):
            topic.write(f"{WORD} /help")
        wait_until(lambda: ws.log().count("more than 20 came within a minute") == 5, "refusals")
        assert len(topic.answers()) == 20


def test_by_telegram_only_who_is_allowed_and_to_the_loop_whose_message_is_answered(
    ws: Workspace, bot: Bot
) -> None:
    by_telegram(ws, bot)
    ws.script(LONG, WORKS)
    process = ws.start()
    listens(ws)
    ws.wait_runs(1)
    bot.write("/resume@another_bot", ME)
    bot.write("/stop", STRANGER)
    bot.write("/stop", ME, sender_chat={"id": -100})
    bot.write("/stop", ME, **{"from": {"id": ME, "is_bot": True}})
    bot.write("be careful", ME, about="work space: needs you\nRunning, iteration 1")
    bot.write("in a group", ME, chat={"id": -100200})
    wait_until(lambda: len(bot.said) == 2, "two answers")
    assert [(one["chat_id"], one["text"].partition(" (pid")[0]) for one in bot.said] == [
        (ME, bot.said[0]["text"].partition(" (pid")[0]),
        (-100200, bot.said[1]["text"].partition(" (pid")[0]),
    ]
    wait_until(lambda: "".join(lines(ws, "reply.refused")).count("not allowed") == 3, "refusals")
    assert f"sender={STRANGER}" in ws.log().replace("'", "")
    (ws.control / "go").touch()
    wait_until(lambda: ws.started() >= 2, "the next run")
    assert "be careful" in ws.prompt(2)
    assert "in a group" in ws.prompt(2)
    assert bot.environment["TELEGRAM_TOKEN"] not in ws.log() + json.dumps(ws.status())
    process.terminate()
    ws.ended(process)


@pytest.mark.slow
def test_one_program_asks_for_the_loops_of_all_supervisors(
    ws: Workspace, tmp_path: Path, bot: Bot
) -> None:
    other = Workspace(tmp_path / "elsewhere", "other")
    other.environment["XDG_STATE_HOME"] = ws.environment["XDG_STATE_HOME"]
    try:
        for one in (ws, other):
            by_telegram(one, bot)
            one.script(LONG)
        first = ws.start()
        listens(ws)
        second = other.start()
        other.wait_runs(1)
        place = Path(ws.environment["XDG_STATE_HOME"]) / "codex-self-iter" / "replies"
        wait_until(lambda: len([*place.glob("*/loop-*.json")]) == 2, "both listen")
        bot.write("/status", ME)
        wait_until(lambda: len(bot.said) == 1, "an answer")
        assert bot.texts()[0].count(": running for ") == 2
        bot.write("use redis", ME)
        wait_until(lambda: any("Which loop? " in text for text in bot.texts()), "a question")
        bot.write("other: use redis", ME)
        wait_until(lambda: list((other.state / "inbox").glob("*.md")) != [], "the message")
        assert list((ws.state / "inbox").glob("*.md")) == []
        assert bot.most_polling == 1
        first.kill()
        first.wait()
        (ws.control / "go").touch()  # its orphan may end
        listens(other)
        before = len(bot.said)
        bot.write("/status", ME)
        wait_until(lambda: len(bot.said) == before + 1, "an answer of the other")
        assert bot.texts()[-1].startswith("other: running")
        assert "work space" not in bot.texts()[-1]
        bot.write("work space: use redis", ME)
        wait_until(lambda: len(bot.said) == before + 2, "an answer about the loop that is gone")
        assert bot.texts()[-1].startswith("work space does not listen here")
        second.terminate()
        other.ended(second)
    finally:
        other.close()


@pytest.mark.slow
def test_a_kill_repeats_nothing_and_leaves_no_program(ws: Workspace, topic: Topic) -> None:
    by_ntfy(ws, topic)
    ws.script(LONG)
    process = ws.start()
    listens(ws)
    topic.write(f"{WORD} once only")
    answered(topic, 1)
    (program,) = programs(process)
    process.kill()
    process.wait()
    psutil.wait_procs([program], timeout=20)
    assert not program.is_running()
    again = ws.start()
    listens(ws, 2)
    wait_until(lambda: len(topic.asked) == 2, "it asks")
    assert topic.asked[1] in [one["id"] for one in topic.messages]
    topic.write(f"{WORD} /status")
    answered(topic, 2)
    texts = [path.read_text() for path in (ws.state / "inbox").rglob("*.md")]
    assert sum("once only" in text for text in texts) == 1
    again.terminate()
    ws.ended(again)


@pytest.mark.slow
def test_a_program_that_dies_is_said_and_started_again(ws: Workspace, topic: Topic) -> None:
    by_ntfy(ws, topic)
    with listening(ws) as process:
        programs(process)[0].kill()
        said = "replies are not heard: the program has ended (signal 9)"
        wait_until(lambda: said in ws.status().get("warnings", ()), "the warning")
        listens(ws, 2)
        wait_until(lambda: said not in ws.status()["warnings"], "no warning any more")
        topic.write(f"{WORD} /status")
        answered(topic, 1)


@pytest.mark.slow
def test_a_server_that_fails_is_said_until_it_answers(ws: Workspace, bot: Bot) -> None:
    bot.faults.append(409)
    by_telegram(ws, bot)
    ws.script(LONG)
    process = ws.start()
    said = "replies are not heard: Telegram's bot 123456 is asked by another program, too, or has a webhook"
    wait_until(lambda: said in ws.status().get("warnings", ()), "the warning")
    process.terminate()
    ws.ended(process)
    bot.faults.extend([502, 502, 429])
    process = ws.start()
    wait_until(
        lambda: "bot 123456 answers 502" in str(ws.status().get("warnings")),
        lambda: f"the warning\n{ws.log()}\n{ws.status()}",
    )
    wait_until(lambda: bot.polling == 1, "it listens again")
    bot.write("/status", ME)
    wait_until(lambda: len(bot.said) == 1, "an answer")
    wait_until(lambda: ws.status()["warnings"] == [], "no warning any more")
    process.terminate()
    ws.ended(process)


def test_a_connection_that_ends_is_made_again_where_it_was(ws: Workspace, topic: Topic) -> None:
    by_ntfy(ws, topic)
    with listening(ws):
        topic.write(f"{WORD} /status")
        answered(topic, 1)
        topic.drop_readers()
        wait_until(lambda: topic.readers == 0, "no reader")
        topic.write(f"{WORD} /help")
        assert "/steer" in answered(topic, 2)
        assert len(topic.asked) == 2


def test_a_reload_begins_and_ends_it(ws: Workspace, topic: Topic) -> None:
    ws.config()
    ws.environment["WORD"] = WORD
    ws.script(WORKS)
    process = ws.start()
    ws.wait_runs(1)
    assert programs(process) == []
    by_ntfy(ws, topic)
    process.send_signal(signal.SIGHUP)
    listens(ws)
    (program,) = programs(process)
    ws.config()
    process.send_signal(signal.SIGHUP)
    psutil.wait_procs([program], timeout=20)
    assert not program.is_running()
    assert programs(process) == []
    process.terminate()
    ws.ended(process)


def test_one_topic_serves_for_both_directions(ws: Workspace, topic: Topic) -> None:
    url = f"ntfy://127.0.0.1:{topic.port}/talk"
    ws.environment |= {
        "WORD": WORD,
        "CODEX_SELF_ITER_NOTIFY__REPLIES": json.dumps([{"url": url, "allow": ["${WORD}"]}]),
    }
    ws.config(f'[notify]\nurls = ["{url}"]\nevents = ["stopped"]\n')
    ws.script(LONG)
    process = ws.start()
    listens(ws)
    ws.wait_runs(1)
    topic.write(f"{WORD} use $(touch {ws.path}/shell) `touch {ws.path}/shell`; touch shell")
    answered(topic, 1)
    topic.write(f"{WORD} /stop")
    topic.write(f"{WORD} {answered(topic, 2).split('send ')[1][:6]}")
    assert ws.ended(process) == 0
    titles = [one["title"] for one in topic.messages if "title" in one]
    assert titles[-1] == "work space: has stopped"
    again = ws.start("--clear-stop")  # what was said meanwhile is heard by the next start
    listens(ws, 2)
    topic.write(f"{WORD} /status")
    answered(topic, 4)
    assert "reply.refused" not in ws.log()
    (message,) = (ws.state / "inbox").rglob("*.md")
    assert f"$(touch {ws.path}/shell)" in message.read_text()
    assert not (ws.path / "shell").exists()
    again.terminate()
    ws.ended(again)


@pytest.mark.slow
def test_an_answer_that_is_to_come_later_comes_later(ws: Workspace, topic: Topic, bot: Bot) -> None:
    """Both say when: Telegram in its answer; ntfy does not, and gets two seconds."""
    url = f"ntfy://127.0.0.1:{topic.port}/talk"
    ws.environment |= {**bot.environment, "WORD": WORD}
    ws.config(
        f'[[notify.replies]]\nurl = "{url}"\nallow = ["${{WORD}}"]\n'
        f'[[notify.replies]]\nurl = "tgram://${{TELEGRAM_TOKEN}}"\nallow = ["{ME}"]\n'
    )
    ws.script(LONG)
    process = ws.start()
    listens(ws, 2)
    wait_until(lambda: bot.polling == 1, "it listens")
    topic.refusals = [429, 503]
    topic.write(f"{WORD} /status")
    assert "running" in answered(topic, 1)
    assert topic.refusals == []
    bot.faults.append(429)
    bot.write("/status", ME)
    wait_until(lambda: len(bot.said) == 1, "the answer")
    assert "reply.unanswered" not in ws.log()
    topic.refusals = [429, 429, 429]
    topic.write(f"{WORD} /help")
    wait_until(lambda: "answers 429" in "".join(lines(ws, "reply.unanswered")), "given up")
    process.terminate()
    ws.ended(process)


def test_it_listens_once_the_channel_has_answered(ws: Workspace, bot: Bot) -> None:
    by_telegram(ws, bot)
    bot.faults.append(502)
    with listening(ws):
        log = ws.log()
        assert log.index("bot 123456 answers 502") < log.index("reply.listening")
        wait_until(lambda: ws.status()["warnings"] == [], "no warning any more")


def test_a_reply_that_a_kill_interrupts_is_said_by_the_next_start(
    ws: Workspace, topic: Topic
) -> None:
    by_ntfy(ws, topic)
    place = ws.root / "killed"
    place.mkdir()
    (place / "sitecustomize.py").write_text(
        "import os\n"
        "from codex_self_iter.screens import steering\n"
        f"if os.path.exists({str(ws.root / 'flag')!r}):\n"
        "    steering.steer = lambda *_: os._exit(9)\n"
    )
    ws.environment["PYTHONPATH"] = str(place)
    (ws.root / "flag").touch()
    ws.script(LONG)
    process = ws.start()
    listens(ws)
    topic.write(f"{WORD} use redis")
    (ws.root / "flag").unlink()
    wait_until(lambda: lines(ws, "reply.interrupted"), lambda: f"the line\n{ws.log()}")
    assert "command=steer" in lines(ws, "reply.interrupted")[0]
    assert answered(topic, 1).startswith(
        "The supervisor was killed while it did this: your message"
    )
    listens(ws, 2)
    topic.write(f"{WORD} use sqlite")
    assert "puts it into the next prompt" in answered(topic, 2)
    (message,) = (ws.state / "inbox").rglob("*.md")
    assert "sqlite" in message.read_text()
    assert len(lines(ws, "reply.interrupted")) == 1
    process.terminate()
    ws.ended(process)
    again = ws.start()
    listens(ws, 3)
    assert len(lines(ws, "reply.interrupted")) == 1
    again.terminate()
    ws.ended(again)


def test_an_answer_that_cannot_be_sent_is_logged(ws: Workspace, bot: Bot) -> None:
    by_telegram(ws, bot)
    ws.script(LONG)
    process = ws.start()
    wait_until(lambda: bot.polling == 1, "it listens")
    bot.faults.append(500)
    bot.write("/status", ME)
    wait_until(lambda: "answers 500" in "".join(lines(ws, "reply.unanswered")), "the line")
    process.terminate()
    ws.ended(process)


def test_without_the_extra_it_says_what_to_install(ws: Workspace, tmp_path: Path) -> None:
    ws.config('[[notify.replies]]\nurl = "tgram://123:abc"\nallow = ["4711"]\n')
    ws.script(LONG)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'requests' else find(name, *rest)\n"
    )
    ws.environment["PYTHONPATH"] = str(hidden)
    process = ws.start()
    said = "replies are not heard: it needs the extra [notify] (requests is not installed)"
    wait_until(lambda: said in str(ws.status().get("warnings")), lambda: f"a warning\n{ws.log()}")
    assert programs(process) == []
    process.terminate()
    ws.ended(process)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            'url = "ntfy://127.0.0.1/talk"\nallow = ["${NOT_SET}"]',
            "the variable NOT_SET is not set",
        ),
        ('url = "ntfy://127.0.0.1/talk"\nallow = ["short"]', "8 characters or more"),
        ('url = "ntfy://just-a-topic"\nallow = ["long-enough-a-word"]', "ntfys://HOST/TOPIC"),
        ('url = "tgram://123/456"\nallow = ["4711"]', "tgram://TOKEN"),
        ('url = "tgram://123:abc"\nallow = ["@myself"]', "by the number of the user"),
    ],
)
def test_what_cannot_be_heard_is_said(ws: Workspace, table: str, said: str) -> None:
    ws.config(f"[[notify.replies]]\n{table}\n")
    ws.script(LONG)
    process = ws.start()
    wait_until(lambda: said in str(ws.status().get("warnings")), f"the warning\n{ws.log()}")
    process.terminate()
    assert ws.ended(process) == 0


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('url = "https://example.org"\nallow = ["x"]', "notify.replies[0].url: must begin with"),
        ('url = "tgram://${T}"\nallow = []', "notify.replies[0].allow: must name somebody"),
        ('url = "tgram://${T}"', "notify.replies[0].allow"),
    ],
)
def test_a_bad_table_is_refused(ws: Workspace, table: str, said: str) -> None:
    ws.config(f"[[notify.replies]]\n{table}\n")
    result = ws.cli("run")
    assert result.returncode == 2
    assert said in result.stderr


def test_no_agent_and_no_gate_gets_the_words_and_no_log_has_them(
    ws: Workspace, topic: Topic
) -> None:
    ws.environment["TOPIC"] = "talk"
    look = f"env > '{ws.control}/gate-env'"
    by_ntfy(ws, topic)
    table = f'[[notify.replies]]\nurl = "ntfy://127.0.0.1:{topic.port}/${{TOPIC}}"\nallow = ["${{WORD}}"]\n'
    ws.config(table + f"[verify]\nevery_iteration = true\ncommands = [{json.dumps(look)}]\n")
    ws.script({"run": f"env > '{ws.control}/agent-env'", **WORKS}, {**LONG, "sleep": 60})
    process = ws.start()
    listens(ws)
    ws.wait_runs(2)
    for name in ("agent-env", "gate-env"):
        text = (ws.control / name).read_text()
        assert "HOME=" in text
        assert WORD not in text
        assert "TOPIC=" not in text
    ws.config(table.replace("${WORD}", "another-literal-word"))
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "config.changed" in ws.log(), "the new settings")
    assert "another-literal-word" not in ws.log()
    process.terminate()
    ws.ended(process)


def test_a_stream_that_breaks_off_is_taken_up_by_the_same_program(
    ws: Workspace, topic: Topic
) -> None:
    by_ntfy(ws, topic)
    with listening(ws) as process:
        (program,) = programs(process)
        wait_until(lambda: topic.readers == 1, "a reader")
        topic.torn = True
        topic.drop_readers()
        wait_until(lambda: len(topic.asked) == 2, "another request")
        topic.write(f"{WORD} /status")
        answered(topic, 1)
        assert programs(process) == [program]


@pytest.mark.slow
def test_a_program_that_stands_still_is_ended_and_started_again(
    ws: Workspace, topic: Topic
) -> None:
    assert (ears.SILENT_SEC, ALIVE_SEC) == (90.0, 20.0)
    hasty(ws, "from codex_self_iter.supervisor import ears\nears.SILENT_SEC = 30.0\n")
    by_ntfy(ws, topic)
    with listening(ws) as process:
        programs(process)[0].suspend()
        said = "replies are not heard: the program was silent for 30 s"
        wait_until(lambda: said in ws.log(), "the warning")
        listens(ws, 2)
        topic.write(f"{WORD} /status")
        answered(topic, 1)


def test_what_is_said_while_nobody_listens_is_heard_by_the_next_start(
    ws: Workspace, topic: Topic
) -> None:
    by_ntfy(ws, topic)
    ws.script(LONG)
    process = ws.start()
    listens(ws)
    process.terminate()
    ws.ended(process)
    topic.write(f"{WORD} use redis")
    again = ws.start()
    assert "puts it into the next prompt" in answered(topic, 1)
    again.terminate()
    ws.ended(again)


def test_the_check_of_the_configuration_judges_where_answers_come_from(ws: Workspace) -> None:
    good = '[[notify.replies]]\nurl = "tgram://${NO_TOKEN_HERE}"\nallow = ["4711"]\n'
    bad = '[[notify.replies]]\nurl = "ntfy://just-a-topic"\nallow = ["long-enough-a-word"]\n'
    who = '[[notify.replies]]\nurl = "ntfy://127.0.0.1/talk"\nallow = ["short"]\n'
    ws.config(good)
    assert len(ws.cli("config", "check").stdout.splitlines()) == 1
    ws.config(good + bad + who)
    result = ws.cli("config", "check")
    assert result.returncode == 0
    _, first, second = result.stdout.splitlines()
    assert first == (
        "Warning: notify.replies[1]: replies are not heard: "
        "a topic is written ntfys://HOST/TOPIC or ntfys://TOKEN@HOST/TOPIC"
    )
    assert second.startswith("Warning: notify.replies[2]: replies are not heard: a word that is")


def test_a_netrc_says_nothing(ws: Workspace, topic: Topic) -> None:
    (ws.root / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    ws.environment |= {"WORD": WORD, "HOME": str(ws.root)}
    url = f"ntfy://tk_mine@127.0.0.1:{topic.port}/talk"
    ws.config(f'[[notify.replies]]\nurl = "{url}"\nallow = ["${{WORD}}"]\n')
    with listening(ws):
        assert topic.logins == ["Bearer tk_mine"]


def test_a_topic_whose_stream_is_held_back_on_its_way_is_asked_now_and_then(
    ws: Workspace, topic: Topic
) -> None:
    assert (channels.SILENT_SEC, channels.BETWEEN_SEC) == (90.0, 15.0)
    hasty(
        ws,
        "from codex_self_iter.replies import channels\n"
        "channels.SILENT_SEC, channels.BETWEEN_SEC = 1.0, 0.1\n",
    )
    topic.held_back = "nothing"
    by_ntfy(ws, topic)
    with listening(ws):
        topic.write(f"{WORD} /status")
        assert "running" in answered(topic, 1)
        assert ws.status()["warnings"] == []
        assert topic.polled > 1
