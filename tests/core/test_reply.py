"""Who may say what to which loop: nothing from strangers, nothing old, nothing twice."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.reply import (
    CODE_SEC,
    KNOWN,
    MOST_A_MINUTE,
    OLD_SEC,
    Answered,
    Decision,
    Do,
    Heard,
    Loop,
    Memory,
    Refused,
    decide,
    digest,
)

NOW = 1_800_000_000.0
ME, OTHER, NOBODY = (digest(name) for name in ("me", "other", "nobody"))
SHOP = Loop("shop", "/s", (ME,))
APP = Loop("app", "/a", (ME, OTHER))
SHOPS = Loop("shop: two", "/s2", (ME,))
_number = iter(range(1_000_000))


def heard(text: str, **more: object) -> Heard:
    first = Heard(f"k{next(_number)}", "me", ME, text, NOW - 1)
    return dataclasses.replace(first, **more)  # type: ignore[arg-type]


def said(text: str, *loops: Loop, **more: object) -> Decision:
    return decide(Memory(), heard(text, **more), loops, NOW, "123456")[1]


@pytest.mark.parametrize(
    ("text", "loops", "decision"),
    [
        ("/status", (SHOP,), Do("status", (SHOP,))),
        ("/status", (SHOP, APP), Do("status", (SHOP, APP))),
        ("/status app", (SHOP, APP), Do("status", (APP,))),
        ("/STATUS@my_bot app", (SHOP, APP), Do("status", (APP,))),
        ("/resume shop: two", (SHOP, SHOPS), Do("resume", (SHOPS,))),
        ("use redis", (SHOP,), Do("steer", (SHOP,), "use redis")),
        ("/steer use redis", (SHOP,), Do("steer", (SHOP,), "use redis")),
        ("shop: use redis", (SHOP, APP), Do("steer", (SHOP,), "use redis")),
        ("shop: two: use redis", (SHOP, SHOPS), Do("steer", (SHOPS,), "use redis")),
        ("/steer app: use\nredis", (SHOP, APP), Do("steer", (APP,), "use\nredis")),
        ("note: be quick", (SHOP,), Do("steer", (SHOP,), "note: be quick")),
        ("  /resume  ", (SHOP,), Do("resume", (SHOP,))),
        ("١٢٣٤٥٦", (SHOP,), Do("steer", (SHOP,), "١٢٣٤٥٦")),
    ],
)
def test_what_is_done(text: str, loops: tuple[Loop, ...], decision: Decision) -> None:
    assert said(text, *loops) == decision


@pytest.mark.parametrize(
    ("text", "loops", "word"),
    [
        ("/rm -rf", (SHOP,), "There is no /rm"),
        ("/help", (SHOP, APP), "Loops: shop, app."),
        ("/start", (SHOP,), "Loops: shop."),
        ("/resume nothing", (SHOP, APP), "No loop is called 'nothing'. Loops: shop, app."),
        ("/resume", (SHOP, APP), "Which loop? shop, app. For example: /resume shop"),
        ("use redis", (SHOP, APP), "Which loop? shop, app."),
        ("/steer", (SHOP,), "The message is empty"),
        ("shop:", (SHOP,), "The message is empty"),
        ("", (SHOP,), "The message is empty"),
        ("123456", (SHOP,), "There is nothing to confirm"),
        ("/stop", (SHOP,), "To stop shop, send 123456 within 5 minutes."),
        ("/pause", (SHOP,), "To pause shop, send 123456 within 5 minutes."),
    ],
)
def test_what_is_only_answered(text: str, loops: tuple[Loop, ...], word: str) -> None:
    decision = said(text, *loops)
    assert isinstance(decision, Answered)
    assert word in decision.text


@pytest.mark.parametrize("text", ["stop", "Stop", " STOP ", "/stop!", "stop."])
def test_a_command_alone_needs_no_slash(text: str) -> None:
    decision = said(text, SHOP)
    assert isinstance(decision, Answered)
    assert "send 123456" in decision.text
    assert said("stop it", SHOP) == Do("steer", (SHOP,), "stop it")


def test_large_and_small_letters_are_the_same() -> None:
    assert said("/STATUS Shop", SHOP, APP) == Do("status", (SHOP,))
    assert said("SHOP: use redis", SHOP, APP) == Do("steer", (SHOP,), "use redis")


@pytest.mark.parametrize("text", ["api: the key is in .env", "/resume api", "/status api"])
def test_what_is_for_a_loop_that_does_not_listen_goes_to_no_other(text: str) -> None:
    decision = decide(Memory(), heard(text), [SHOP], NOW, "", {"api", "shop"})[1]
    assert isinstance(decision, Answered)
    assert decision.text.startswith("api does not listen here")
    about = decide(Memory(), heard("yes", about="api: asks you"), [SHOP], NOW, "", {"api"})[1]
    assert isinstance(about, Answered)
    assert about.text.startswith("api does not listen here")


def test_an_answer_to_a_message_is_for_its_loop() -> None:
    about = "app: needs you\nno login"
    assert said("try again", SHOP, APP, about=about) == Do("steer", (APP,), "try again")
    assert said("/resume", SHOP, APP, about=about) == Do("resume", (APP,))
    assert said("shop: try", SHOP, APP, about=about) == Do("steer", (SHOP,), "try")
    # the only loop is not meant where another one is answered
    other = said("try again", SHOP, about=about)
    assert isinstance(other, Answered)
    assert "of no loop that listens here" in other.text


def test_an_answer_to_what_is_of_no_loop_is_for_the_only_one() -> None:
    assert said("go on", SHOP, about="Digest: 1 loop") == Do("steer", (SHOP,), "go on")
    assert isinstance(said("go on", SHOP, APP, about="Loops:\nshop: running"), Answered)


def test_a_loop_hears_those_only_whom_it_allows() -> None:
    assert said("/status", SHOP, proof=NOBODY) == Refused("the sender is not allowed")
    assert said("/status", SHOP, proof="") == Refused("the sender is not allowed")
    assert said("/status", proof=ME) == Refused("the sender is not allowed")
    assert said("/status", SHOP, APP, proof=OTHER) == Do("status", (APP,))
    assert isinstance(said("/resume shop", SHOP, APP, proof=OTHER), Answered)


def test_nothing_old_nothing_from_the_future_nothing_twice() -> None:
    assert isinstance(said("/status", SHOP, at=NOW - OLD_SEC - 1), Refused)
    assert isinstance(said("/status", SHOP, at=NOW + OLD_SEC + 1), Refused)
    one = heard("/status")
    memory, first = decide(Memory(), one, [SHOP], NOW, "")
    assert isinstance(first, Do)
    assert decide(memory, one, [SHOP], NOW, "")[1] == Refused("it was heard before")


def test_what_was_forgotten_is_not_taken_again() -> None:
    many = [digest(f"sender {number}") for number in range(KNOWN)]
    shop = Loop("shop", "/s", (ME, *many))
    memory, first = decide(Memory(), one := heard("/status"), [shop], NOW, "")
    assert isinstance(first, Do)
    for proof in many:
        memory, _ = decide(memory, heard("/status", proof=proof), [shop], NOW, "")
    assert len(memory.seen) == KNOWN
    assert isinstance(decide(memory, one, [shop], NOW, "")[1], Refused)
    later = heard("/status", at=NOW)
    assert isinstance(decide(memory, later, [shop], NOW, "")[1], Do)


def test_strangers_leave_nothing_in_memory() -> None:
    memory, _ = decide(Memory(), heard("/status", proof=NOBODY), [SHOP], NOW, "")
    assert memory == Memory()


def test_of_names_that_begin_alike_the_longest_counts_also_of_one_that_does_not_listen() -> None:
    decision = decide(Memory(), heard("shop: eu: go"), [SHOP], NOW, "", {"shop: eu"})[1]
    assert isinstance(decision, Answered)
    assert decision.text.startswith("shop: eu does not listen here")


def test_a_title_that_two_loops_share_asks_which() -> None:
    two = [Loop(f"{where}/app", f"/{where}", (ME,), "app") for where in ("work", "home")]
    decision = said("go on", *two, about="app: needs you")
    assert isinstance(decision, Answered)
    assert decision.text.startswith("Which loop? work/app, home/app.")
    assert said("work/app: go on", *two) == Do("steer", (two[0],), "go on")
    gone = decide(Memory(), heard("go on", about="app: needs you"), two[:1], NOW, "", {"app"})[1]
    assert isinstance(gone, Answered)  # it may be the other one's message
    assert "Name it: work/app" in gone.text


def test_a_code_does_nothing_to_a_loop_that_does_not_listen_any_more() -> None:
    memory, _ = decide(Memory(), heard("/stop shop"), [SHOP, APP], NOW, "111222")
    decision = decide(memory, heard("111222"), [APP], NOW, "")[1]
    assert isinstance(decision, Answered)
    assert decision.text.startswith("shop does not listen to you any more")


def test_a_code_is_good_once_for_a_while_for_its_sender_and_three_tries() -> None:
    memory, _ = decide(Memory(), heard("/stop"), [SHOP], NOW, "111222")
    done, decision = decide(memory, heard("111222"), [SHOP], NOW, "")
    assert decision == Do("stop", (SHOP,))
    assert isinstance(decide(done, heard("111222"), [SHOP], NOW, "")[1], Answered)
    late = NOW + CODE_SEC + 1
    assert isinstance(decide(memory, heard("111222", at=late), [SHOP], late, "")[1], Answered)
    other = decide(memory, heard("111222", proof=OTHER), [SHOP, APP], NOW, "")[1]
    assert isinstance(other, Answered)
    for _ in range(3):
        memory, wrong = decide(memory, heard("000000"), [SHOP], NOW, "")
        assert isinstance(wrong, Answered)
    assert isinstance(decide(memory, heard("111222"), [SHOP], NOW, "")[1], Answered)


def test_a_newer_question_replaces_the_older() -> None:
    memory, _ = decide(Memory(), heard("/stop"), [SHOP], NOW, "111222")
    memory, _ = decide(memory, heard("/pause"), [SHOP], NOW, "333444")
    assert isinstance(decide(memory, heard("111222"), [SHOP], NOW, "")[1], Answered)
    assert decide(memory, heard("333444"), [SHOP], NOW, "")[1] == Do("pause", (SHOP,))


def test_a_sender_that_floods_is_refused_for_a_minute() -> None:
    memory = Memory()
    for _ in range(MOST_A_MINUTE):
        memory, decision = decide(memory, heard("hello"), [SHOP], NOW, "")
        assert isinstance(decision, Do)
    assert isinstance(decide(memory, heard("hello"), [SHOP], NOW, "")[1], Refused)
    assert isinstance(decide(memory, heard("x", at=NOW + 61), [SHOP], NOW + 61, "")[1], Do)


@given(
    st.lists(
        st.tuples(
            st.text(max_size=40) | st.sampled_from(["/stop", "/pause", "111222", "/status x"]),
            st.sampled_from([ME, OTHER, NOBODY, ""]),
            st.integers(-700, 700),
        ),
        max_size=30,
    )
)
def test_nobody_who_is_not_allowed_does_anything(
    each: list[tuple[str, str, int]],
) -> None:
    memory, asked = Memory(), set[str]()
    for text, proof, offset in each:
        one = heard(text, proof=proof, at=NOW + offset)
        memory, decision = decide(memory, one, [SHOP, APP], NOW, "111222")
        if isinstance(decision, Do):
            assert all(proof in loop.allowed for loop in decision.loops)
            assert abs(offset) <= OLD_SEC
            assert decision.kind not in ("stop", "pause") or proof in asked
        if isinstance(decision, Answered) and "send 111222" in decision.text:
            asked.add(proof)
