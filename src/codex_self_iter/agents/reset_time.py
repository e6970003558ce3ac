"""When a limit ends, from what a CLI or an API says in prose. Pure, but for the machine's own time
zone.

Understood after a word such as "try again", "reset" or "retry after":

| form | example |
|---|---|
| Unix seconds or milliseconds | `limit reached|1700000000`, `resets at 1700000000` |
| ISO 8601 | `resets at 2026-11-25T10:31:00Z`, `2026-11-25 10:31` (no zone: the machine's) |
| HTTP date | `Retry-After: Wed, 25 Nov 2026 10:31:00 GMT` |
| date and clock | `try again at Nov 25th, 2026 10:31 AM`, `resets Nov 25, 3pm (Europe/Berlin)` |
| date alone | `resets Dec 8`, `on 8 December`, `regain access on 2026-12-01`: its beginning |
| weekday | `reset on Monday at 9am`, `resets Thu 09:00 UTC`, `until Friday`, `tomorrow at 9am` |
| duration | `in 3 hours 12 minutes`, `in 1.5s`, `in a week`, `retry after 90`, `Retry-After: 120` |
| clock | `try again at 12:18 PM`, `resets 3pm (Europe/Berlin)`, `reset at 15:00 UTC`, `at noon` |
| clock before its day | `at 9am tomorrow`, `at 3pm on Nov 25` |

A clock time that names no second is cut, so it means the end of its minute. A clock time alone is
the next such time; one that has passed by less than ten minutes has just been
reached. Anything long past or more than forty days away is not believed: None, and the caller backs
off instead. Where several limits are named, those count that are said to be used up, and of them
the one that lasts longest."""

from __future__ import annotations

import datetime
import re
import zoneinfo
from collections.abc import Callable

PAST_SEC = 600.0
"""A time this far in the past still counts as "now": the message may have waited for us."""
_MINUTE_SEC = 60.0
LATEST_SEC = 40 * 86400.0
"""No limit of a plan runs longer than a month and some."""

_CUE = re.compile(
    r"try(?:ing)?\s+again|re-?try(?:ing|[\s_-]*(?:after|delay|in))?|resets?(?:_?at|ting)?"
    r"|available|resumes?|renews?|refresh(?:es)?|lift(?:s|ed)?|regain\s+access|wait|until"
    r"|limit\s+reached",
    re.IGNORECASE,
)
_USED_UP = re.compile(r"\b(?:reached|hit|exceeded|exhausted|used up|out of)\b", re.IGNORECASE)
_WINDOW = 90
_MONTH_NAMES = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES.split("|"), start=1)}
_MONTH = rf"(?P<month>{_MONTH_NAMES})(?:uary|ruary|ch|il|[ey]|ust|t|tember|ober|ember)?\b\.?"
_CLOCK = (
    r"(?P<hour>2[0-4]|[01]?\d)(?!\d)(?:[:.](?P<minute>[0-5]\d))?(?::(?P<second>[0-5]\d))?"
    r"\s*(?P<half>[ap]\.?m\b\.?)?"
)
_ZONE = (
    r"(?:\s*\(?(?P<zone>(?:UTC|GMT)(?:[+-]\d{1,2}(?::?\d\d)?)?|Z\b"
    r"|[A-Z][A-Za-z]+/[A-Za-z_/+-]+\d*|[PMCE][SD]?T\b|(?:[CEW]ES?T|BST|JST)\b)\)?)?"
)
_EPOCH = re.compile(r"(?<![\d.])(\d{13}|\d{10})(?:\.\d+)?(?![\d])")
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:(?:T|,? at | )(\d\d:\d\d(:\d\d)?)(?:[.,]\d+)?)?"
    r"\s*\(?(Z|UTC|GMT|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)
_HTTP = re.compile(
    rf"(?<!\d)(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+{_MONTH},?\s*(?P<year>20\d\d)?,?\s*"
    rf"(?:(?:at\s+)?{_CLOCK}{_ZONE})?",
    re.IGNORECASE,
)
_DATE = re.compile(
    rf"{_MONTH}\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?,?\s*(?P<year>20\d\d)?,?\s*"
    rf"(?:(?:at\s+)?{_CLOCK}{_ZONE})?",
    re.IGNORECASE,
)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKDAY = re.compile(
    r"\b(?P<weekday>tomorrow|(?:mon|tue|wed|thu|fri|sat|sun)"
    r"(?:day|s|sday|nesday|nes|r|rs|rsday|urday)?)\b\.?"
    rf"(?!,?\s*\d{{1,2}}(?:st|nd|rd|th)?\s+(?:{_MONTH_NAMES}))"  # a whole date has been read
    rf",?\s*(?:(?:at\s+)?{_CLOCK}{_ZONE})?",
    re.IGNORECASE,
)
_TURNED = re.compile(
    r"(?:\bat\s+)?(?P<clock>\b(?:\d{1,2}(?::\d\d){0,2}\s*[ap]\.?m\b\.?|\d{1,2}(?::\d\d){1,2})"
    rf"{_ZONE}),?\s+(?P<day>tomorrow|on\s+(?:(?:{'|'.join(_DAYS)})[a-z]*\.?,?\s*)?"
    rf"(?:{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?\s*20\d\d)?)?)",
    re.IGNORECASE,
)
_SPELT = {"noon": "12pm", "midnight": "12am", "today": ""}
_UNIT = (
    r"(?:months?|weeks?|wks?|w|days?|d|hours?|hrs?|h|minutes?|mins?|ms|milliseconds?|m"
    r"|seconds?|secs?|s)(?![a-z])"
)
_NUMBER = r"(?:\d+(?:\.\d+)?\s*|\b(?:half an?|an?|one)\s+)"
_PART = re.compile(rf"({_NUMBER})({_UNIT})", re.IGNORECASE)
_DURATION = re.compile(
    r"^[\s:=\"'~]*(?:again\s+)?(?:(?:after|in|for|delay)[\s:=\"'~]*)?"
    r"(?:(?:about|approximately|around|roughly|another|less than)\s+)?"
    rf"(?:{_NUMBER}{_UNIT}(?:\s*,?\s*(?:and\s+)?)?)+",
    re.IGNORECASE,
)
_BARE_SECONDS = re.compile(
    r"(?:retry[\s_-]*(?:after|delay|in)|try again in)[\s:=\"']*(\d{1,7}(?:\.\d+)?)"
    r"(?![\d:.]*\d|\s*[\w%:/-])",
    re.IGNORECASE,
)
_CLOCK_ONLY = re.compile(
    r"^[\s:=]*(?:(?:is|will|again|at|by|on|after|your|it|the|limit|next|resets?)\s+)*"
    rf"{_CLOCK}{_ZONE}",
    re.IGNORECASE,
)
_SECONDS = {"w": 7 * 86400.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_SECONDS |= {"mo": 30 * 86400.0, "ms": 0.001, "mil": 0.001}
_NUMBERS = {"half": 0.5, "a": 1.0, "an": 1.0, "one": 1.0}
_FIXED_HOURS = {"WET": 0, "WEST": 1, "BST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "JST": 9}
_US_ZONES = {
    "P": "America/Los_Angeles",
    "M": "America/Denver",
    "C": "America/Chicago",
    "E": "America/New_York",
}


def parse_reset(text: str, now: float, tz: datetime.tzinfo | None = None) -> float | None:
    """Find when a limit ends.

    Args:
        text: what the CLI said; its first 4,000 characters are looked at.
        now: Unix seconds at which it was said.
        tz: zone of times that name none; None means the machine's.

    Returns:
        Unix seconds, or None when nothing believable is said."""
    text = text[:4000].replace("\u00a0", " ").replace("\u202f", " ")
    text = re.sub(r"(?i)\b(?:noon|midnight|today)\b", lambda word: _SPELT[word[0].lower()], text)
    text = _TURNED.sub(lambda found: f"{found['day']} at {found['clock']}", text)
    bar = re.search(r"\|(\d{10})(?!\d)", text)
    if bar and (at := believable(float(bar.group(1)), now)) is not None:
        return at
    ends: dict[int, float] = {}
    marks = [mark.start() for mark in _USED_UP.finditer(text)]
    cues = list(_CUE.finditer(text))
    stops = [*(cue.start() for cue in cues), len(text)][1:]
    for cue, stop in zip(cues, stops, strict=True):
        # A time alone is nothing (a log line begins with one): only one after such a word is read.
        at = _first(text[cue.end() : min(stop, cue.end() + _WINDOW)], now, tz)
        if at is not None:
            ends.setdefault(sum(mark < cue.end() for mark in marks), at)
    if ends:
        return max((at for limit, at in ends.items() if limit), default=ends.get(0))
    bare = _BARE_SECONDS.search(text)
    return believable(now + float(bare.group(1)), now) if bare else None


def _first(said: str, now: float, tz: datetime.tzinfo | None) -> float | None:
    """What the first reader makes of it. The one that asks for most goes first, or the hour of a
    date would be taken for a clock."""
    for reader in _READERS:
        if (at := believable(reader(said, now, tz), now)) is not None:
            return at
    return None


def believable(at: float | None, now: float) -> float | None:
    """The time itself when it can be a limit's end; the present for one just passed; else None."""
    if at is None or not now - PAST_SEC <= at <= now + LATEST_SEC:
        return None
    return max(at, now)


def _epoch(said: str, _now: float, _tz: datetime.tzinfo | None) -> float | None:
    found = _EPOCH.search(said)
    if not found:
        return None
    value = float(found.group(1))
    return value / 1000 if len(found.group(1)) == 13 else value


def _iso(said: str, _now: float, tz: datetime.tzinfo | None) -> float | None:
    found = _ISO.search(said)
    if not found:
        return None
    day, clock, second, zone = found.groups()
    offset = {"Z": "+00:00", "UTC": "+00:00", "GMT": "+00:00"}.get((zone or "").upper(), zone or "")
    try:
        moment = datetime.datetime.fromisoformat(f"{day}T{clock or '00:00'}{offset}")
    except ValueError:
        return None
    at = _timestamp(moment, tz)
    return at if at is None or second or not clock else at + _MINUTE_SEC


def _date(said: str, now: float, tz: datetime.tzinfo | None) -> float | None:
    found = _HTTP.search(said) or _DATE.search(said)
    if found is None:
        return None
    clock, zone, known = _clock_or_midnight(found, tz)
    if clock is None or not known:
        return None
    month, day = _MONTHS[found["month"].lower()], int(found["day"])
    year = int(found["year"]) if found["year"] else _local(now, zone).year
    at = _moment(year, month, day, clock, zone)
    if at is not None and not found["year"] and at < now - PAST_SEC:
        at = _moment(year + 1, month, day, clock, zone)
    return at if at is None else at + _rest_of_minute(found)


def _weekday(said: str, now: float, tz: datetime.tzinfo | None) -> float | None:
    found = _WEEKDAY.search(said)
    if found is None:
        return None
    clock, zone, known = _clock_or_midnight(found, tz)
    if clock is None or not known:
        return None
    today = _local(now, zone).date()
    name = found["weekday"].lower()[:3]
    ahead = (_DAYS.index(name) - today.weekday()) % 7 if name in _DAYS else 1
    for days in (ahead, ahead + 7):
        day = today + datetime.timedelta(days=days)
        at = _moment(day.year, day.month, day.day, clock, zone)
        if at is not None and at >= now - PAST_SEC:
            return at + _rest_of_minute(found)
    return None


def _duration(said: str, now: float, _tz: datetime.tzinfo | None) -> float | None:
    counted = re.match(r"\s*in\s+(\d{1,3}):([0-5]\d):([0-5]\d)\b", said)
    if counted:
        return now + int(counted[1]) * 3600 + int(counted[2]) * 60 + int(counted[3])
    found = _DURATION.match(said)
    if not found:
        return None
    total = 0.0
    for part in _PART.finditer(found.group()):
        number, unit = part[1].lower().split()[0], part[2].lower()
        # Of the beginnings that have a length of their own the longest: minutes are no months.
        size = next(_SECONDS[unit[:end]] for end in (3, 2, 1) if unit[:end] in _SECONDS)
        total += (_NUMBERS.get(number) or float(number)) * size
    return now + total


def _clock(said: str, now: float, tz: datetime.tzinfo | None) -> float | None:
    found = _CLOCK_ONLY.match(said)
    if found is None or not (found["minute"] or found["half"]):
        return None
    clock = _clock_of(found)
    zone, known = _zone_of(found, tz)
    if clock is None or not known:
        return None
    today = _local(now, zone).date()
    # The first such time from ten minutes ago on. Yesterday, because five past midnight is still
    # near a "resets at 11:58 PM"; the day after tomorrow, because a spring night may lack the hour.
    for days in (-1, 0, 1, 2):
        day = today + datetime.timedelta(days=days)
        for fold in (0, 1):  # the hour that an autumn night has twice
            at = _moment(day.year, day.month, day.day, clock, zone, fold)
            if at is not None and at + _rest_of_minute(found) >= now - PAST_SEC:
                return at + _rest_of_minute(found)
    return None


_READERS: tuple[Callable[[str, float, datetime.tzinfo | None], float | None], ...] = (
    _iso,
    _date,
    _weekday,
    _epoch,
    _duration,
    _clock,
)


def _clock_or_midnight(
    found: re.Match[str], tz: datetime.tzinfo | None
) -> tuple[datetime.time | None, datetime.tzinfo | None, bool]:
    """Clock and zone of a day; a day that names no clock is meant from its beginning."""
    if found["hour"] is None:
        return datetime.time(), tz, True
    zone, known = _zone_of(found, tz)
    return _clock_of(found), zone, known


def _rest_of_minute(found: re.Match[str]) -> float:
    """What is added to a clock time that names no second."""
    return 0.0 if found["hour"] is None or found["second"] else _MINUTE_SEC


def _clock_of(found: re.Match[str]) -> datetime.time | None:
    hour, half = int(found["hour"]), (found["half"] or "").lower()
    if half and not 1 <= hour <= 12:
        return None
    if half:
        hour = hour % 12 + (12 if half.startswith("p") else 0)
    if hour == 24:
        return None
    return datetime.time(hour, int(found["minute"] or 0), int(found["second"] or 0))


def _zone_of(
    found: re.Match[str], tz: datetime.tzinfo | None
) -> tuple[datetime.tzinfo | None, bool]:
    """The zone named, or the default; False when one is named that this machine does not know."""
    name = found["zone"] or ""
    if not name:
        return tz, True
    if name.upper() == "Z" or name.upper().startswith(("UTC", "GMT")):
        offset = re.fullmatch(r"([+-]\d{1,2}):?(\d\d)?", name[3:])
        if offset is None:
            return datetime.UTC, True
        hours, minutes = int(offset[1]), int(offset[2] or 0)
        ahead = hours * 60 + (minutes if hours >= 0 else -minutes)
        known = abs(ahead) < 24 * 60
        return datetime.timezone(datetime.timedelta(minutes=ahead)) if known else None, known
    if name.upper() in _FIXED_HOURS:
        return datetime.timezone(datetime.timedelta(hours=_FIXED_HOURS[name.upper()])), True
    if "/" not in name:
        name = _US_ZONES[name[0].upper()]
    try:
        return zoneinfo.ZoneInfo(name), True
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None, False


def _moment(
    year: int,
    month: int,
    day: int,
    clock: datetime.time,
    zone: datetime.tzinfo | None,
    fold: int = 0,
) -> float | None:
    try:
        date = datetime.date(year, month, day)
    except ValueError:
        return None
    return _timestamp(datetime.datetime.combine(date, clock.replace(fold=fold)), zone)


def _timestamp(moment: datetime.datetime, zone: datetime.tzinfo | None) -> float | None:
    if moment.tzinfo is None and zone is not None:
        moment = moment.replace(tzinfo=zone)
    try:
        return moment.timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _local(now: float, zone: datetime.tzinfo | None) -> datetime.datetime:
    # None: the machine's zone, with its daylight saving rules.
    return datetime.datetime.fromtimestamp(now, zone)
