"""Reading from prose when a limit ends."""

from __future__ import annotations

import datetime
import zoneinfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from codex_self_iter.agents.reset_time import LATEST_SEC, PAST_SEC, parse_reset

UTC = datetime.UTC
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
NOW = datetime.datetime(2026, 11, 22, 11, 0, tzinfo=UTC).timestamp()
ZONES = [
    zoneinfo.ZoneInfo(name)
    for name in ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
]


def at(*parts: int, zone: datetime.tzinfo = UTC) -> float:
    return datetime.datetime(*parts, tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You\u2019ve hit your usage limit. Upgrade or try again at 12:18 PM.",
        at(2026, 11, 22, 12, 18) + 60),
        ("try again at 10:18 AM.", at(2026, 11, 23, 10, 18) + 60),
        ("try again at 12:05 AM", at(2026, 11, 23, 0, 5) + 60),
        ("or try again at Nov 25th, 2026 10:31 AM.", at(2026, 11, 25, 10, 32)),
        ("Try again in 3 hours 12 minutes.", NOW + 3 * 3600 + 12 * 60),
        ("try again in 2 days, 3 hours and 4 minutes", NOW + 2 * 86400 + 3 * 3600 + 240),
        ("rate limit exceeded: Please try again in 1.5s.", NOW + 1.5),
        ("Please try again in 6m0s", NOW + 360),
        ("Please retry after 250ms", NOW + 0.25),
        ("retry after 90 seconds", NOW + 90),
        ("Retry-After: 120", NOW + 120),
        ("429 (Retry-After: 3)", NOW + 3),
        ("Retry-After: Wed, 25 Nov 2026 10:31:00 GMT", at(2026, 11, 25, 10, 31)),
        ('"retryDelay": "34s"', NOW + 34),
        ("resets 3pm (Europe/Berlin)", at(2026, 11, 22, 15, zone=BERLIN) + 60),
        ("You've hit your limit · resets 3pm (Europe/Berlin)", at(2026, 11, 22, 15, zone=BERLIN) + 60),
        ("resets Nov 25, 3pm (Europe/Berlin)", at(2026, 11, 25, 15, zone=BERLIN) + 60),
        ("Your limit resets Jan 2 at 3:30pm (UTC)", None),
        ("resets Dec 20 at 3:30pm (UTC)", at(2026, 12, 20, 15, 30) + 60),
        ("reset at 15:00 UTC", at(2026, 11, 22, 15) + 60),
        ("Your limit will reset at 3pm", at(2026, 11, 22, 15) + 60),
        ("Claude AI usage limit reached|1795360000", 1_795_360_000.0),
        ("limit resets at 1795360000", 1_795_360_000.0),
        ("resets_at=1795360000000", 1_795_360_000.0),
        ("resets at 2026-11-25T10:31:00Z", at(2026, 11, 25, 10, 31)),
        ("resets at 2026-11-25T10:31:00.123+01:00", at(2026, 11, 25, 9, 31)),
        ("resets at 2026-11-25 10:31", at(2026, 11, 25, 10, 32)),
        ("You've hit your limit · resets Dec 8", at(2026, 12, 8)),
        ("resets on 8 December", at(2026, 12, 8)),
        ("resets 8 Dec at 15:00 UTC", at(2026, 12, 8, 15, 1)),
        ("the limit will be lifted on the 8th December, 2026", at(2026, 12, 8)),
        ("Retry-After: Wed, 18 Nov 2026 10:31:00 GMT", None),  # past; no Wednesday to come
        ("resets 2 decimals later", None),
        # days: by name, by date, without a clock
        ("Your limit will reset on Monday at 9am.", at(2026, 11, 23, 9, 1)),
        ("resets Mon 9am (Europe/Berlin)", at(2026, 11, 23, 9, 1, zone=BERLIN)),
        ("resets Thursday", at(2026, 11, 26)),
        ("try again at Sunday 11:30", at(2026, 11, 22, 11, 31)),
        ("available again tomorrow at 9am", at(2026, 11, 23, 9, 1)),
        ("individual spend limit reached · resets Dec 8 · ask", at(2026, 12, 8)),
        ("You will regain access on 2026-12-01 at 00:00 UTC.", at(2026, 12, 1, 0, 1)),
        ("resets at 2026-12-08", at(2026, 12, 8)),
        ("Your quota will reset after 4h32m10s.", NOW + 4 * 3600 + 32 * 60 + 10),
        ("Please wait until sunset", None),
        # words for numbers, weeks, months, an offset: opencode, gemini, claude
        ("resets in 1 week", NOW + 7 * 86400),
        ("try again in 2 weeks", NOW + 14 * 86400),
        ("resets in a week", NOW + 7 * 86400),
        ("try again in an hour and a minute", NOW + 3660),
        ("try again in half an hour", NOW + 1800),
        ("resets in 1 month", NOW + 30 * 86400),
        ("resets in 3d 4h", NOW + 76 * 3600),
        ("Limit reached, resets in 4h 20m", NOW + 4 * 3600 + 1200),
        ("It will reset in less than a minute.", NOW + 60),
        ("It will reset in 3 days 4 hours. To continue", NOW + 76 * 3600),
        ("Please try again in approximately 5 minutes", NOW + 300),
        ("Suggested retry after 34.5s.", NOW + 34.5),
        ("available again in 2 hours", NOW + 7200),
        ("available again at 15:00 UTC", at(2026, 11, 22, 15, 1)),
        ("Access resets at 3:04 PM GMT+1.", at(2026, 11, 22, 14, 5)),
        ("Access resets at 3:04 PM GMT-3:30.", at(2026, 11, 22, 18, 35)),
        ("try again in a moment", None),
        ("try again in a dozen ways", None),
        ("resets in 2 months", None),
        # several limits: the one that is used up
        ("5-hour limit reached, resets 3pm. Weekly limit reached, resets Dec 3 at 9am",
        at(2026, 12, 3, 9, 1)),
        ("Weekly limit reached, resets Dec 3 at 9am; 5-hour limit reached, resets 3pm",
        at(2026, 12, 3, 9, 1)),
        ("Your 5-hour limit resets 3pm. Weekly limit reached, resets Dec 3 at 9am",
        at(2026, 12, 3, 9, 1)),
        ("5-hour limit reached, resets 3pm (your weekly limit resets Dec 3 at 9am)",
        at(2026, 11, 22, 15, 1)),
        ("You've hit your monthly spend limit · your 5-hour limit resets 3pm",
        at(2026, 11, 22, 15, 1)),
        # the clock before its day, words for clocks, a day that is this one, other zones
        ("resets at 9 AM tomorrow", at(2026, 11, 23, 9, 1)),
        ("resets at 9:30 AM (UTC) tomorrow.", at(2026, 11, 23, 9, 31)),
        ("try again at 3pm on Nov 25th", at(2026, 11, 25, 15, 1)),
        ("try again at 15:00 on Wednesday, Nov 25, 2026.", at(2026, 11, 25, 15, 1)),
        ("resets at 14:00 on Tuesday", at(2026, 11, 24, 14, 1)),
        ("resets at noon", at(2026, 11, 22, 12, 1)),
        ("resets at midnight UTC", at(2026, 11, 23, 0, 1)),
        ("resets today at 6pm", at(2026, 11, 22, 18, 1)),
        ("resets at 15:00 CET", at(2026, 11, 22, 14, 1)),
        ("resets 3pm (CEST)", at(2026, 11, 22, 13, 1)),
        ("resets Mon 9am JST", at(2026, 11, 23, 0, 1)),
        ("limit resets in 1:30:05", NOW + 5405),
        # nothing to believe
        ("try again later.", None),
        ("You've hit your usage limit.", None),
        ("", None),
        ("the meeting is at 12:18 PM", None),
        ("try again at 31:99 PM", None),
        ("try again at Feb 31st, 2027 10:00 AM", None),
        ("try again at Nov 25th, 2036 10:31 AM.", None),
        ("limit reached|1", None),
        ("limit reached|1700000000", None),
        ("resets 3pm (Mars/Olympus)", None),
        ("retrying 4/5 requests", None),
        ("Please try again in 99999999 days", None),
    ],
)  # fmt: skip
def test_what_is_said_is_understood(text, expected):
    assert parse_reset(text, NOW, UTC) == expected


def test_the_zone_of_a_plain_clock_time_is_the_given_one():
    assert parse_reset("try again at 12:18 PM", NOW, BERLIN) == at(
        2026, 11, 22, 12, 19, zone=BERLIN
    )
    # Without one, the machine's: the same as if it had been named.
    local = parse_reset("try again at 12:18 PM", NOW)
    assert local is not None
    assert datetime.datetime.fromtimestamp(local).strftime("%H:%M") == "12:19"  # noqa: DTZ006


def test_a_time_just_passed_is_now_and_not_tomorrow():
    passed = at(2026, 11, 22, 12, 20)
    assert parse_reset("try again at 12:18 PM", passed, UTC) == passed
    later = at(2026, 11, 22, 12, 40)
    assert parse_reset("try again at 12:18 PM", later, UTC) == at(2026, 11, 23, 12, 19)


def test_the_hour_that_comes_twice_is_taken_at_its_next_coming():
    first = at(2026, 10, 25, 0, 30)  # 02:30 summer time
    assert parse_reset("try again at 2:45 AM", first, BERLIN) == at(2026, 10, 25, 0, 46)
    between = at(2026, 10, 25, 1, 10)  # 02:10 winter time: the first 02:45 is past
    assert parse_reset("try again at 2:45 AM", between, BERLIN) == at(2026, 10, 25, 1, 46)


moments = st.integers(1_700_000_000, 1_900_000_000).map(float)


@given(moments, st.integers(0, 23), st.integers(0, 59), st.sampled_from(ZONES), st.booleans())
@settings(max_examples=400)
def test_a_clock_time_is_its_next_coming(now, hour, minute, zone, twelve):
    clock = (
        f"{(hour % 12) or 12}:{minute:02d} {'PM' if hour >= 12 else 'AM'}"
        if twelve
        else f"{hour}:{minute:02d}"
    )
    found = parse_reset(f"try again at {clock}.", now, zone)
    assert found is not None
    assert now <= found <= now + 26 * 3600
    if found > now:  # the end of that minute
        found -= 60
        local = datetime.datetime.fromtimestamp(found, zone)
        back = local.astimezone(UTC).timestamp()
        assert back == found
        exists = datetime.datetime.combine(local.date(), datetime.time(hour, minute), zone)
        if exists.astimezone(UTC).astimezone(zone).replace(fold=0) == exists:  # not in a spring gap
            assert (local.hour, local.minute) == (hour, minute)


@given(moments, st.integers(0, 39 * 86400), st.sampled_from(ZONES))
@settings(max_examples=300)
def test_a_written_date_comes_back(now, ahead, zone):
    moment = datetime.datetime.fromtimestamp(now + ahead, zone).replace(second=0, microsecond=0)
    assume(moment.astimezone(UTC).astimezone(zone) == moment and moment.fold == 0)
    expected = max(moment.timestamp(), now)
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(
        moment.day % 10 if moment.day not in (11, 12, 13) else 0, "th"
    )
    text = (
        f"{moment:%b} {moment.day}{suffix}, {moment.year} {moment.hour % 12 or 12}:{moment:%M %p}"
    )
    cut = max(moment.timestamp() + 60, now)  # a minute without seconds
    assert parse_reset(f"or try again at {text}.", now, zone) == cut
    assert parse_reset(f"resets at {moment.isoformat()}", now, UTC) == expected
    assert parse_reset(f"limit reached|{int(moment.timestamp())}", now, zone) == expected


@given(moments, st.integers(0, 12), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_a_duration_adds_up(now, days, hours, minutes, seconds):
    parts = [(days, "day"), (hours, "hour"), (minutes, "minute"), (seconds, "second")]
    words = " ".join(f"{count} {unit}{'s' if count != 1 else ''}" for count, unit in parts)
    total = days * 86400 + hours * 3600 + minutes * 60 + seconds
    assert parse_reset(f"try again in {words}", now, UTC) == now + total
    assert parse_reset(f"Retry-After: {total}", now, UTC) == now + total


@pytest.mark.slow
@given(
    st.text(max_size=300)
    | st.from_regex(r"(try again|resets?|retry after)[ a-zA-Z0-9:,./|()+-]{0,80}"),
    moments,
)
@settings(max_examples=500)
def test_any_text_gives_a_sensible_time_or_none(text, now):
    found = parse_reset(text, now, BERLIN)
    assert found is None or now - PAST_SEC <= now <= found <= now + LATEST_SEC
