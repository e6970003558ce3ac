"""Text as people may safely see it: bounded, and without control characters. Pure.

What an agent prints reaches a terminal through here. An escape sequence could retitle the terminal,
rewrite what stands above it or hide what follows, so none gets through."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A text, not a compiled expression: most processes that import this never meet an escape.
SEQUENCE = (
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    # OSC, DCS, SOS, PM, APC: titles, links, clipboard
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]*[0-~]"  # two-character escapes, among them RIS (reset)
)
_BAD = {code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)}
_BAD |= {0x7F: "␡"} | dict.fromkeys(range(0x80, 0xA0), "�")
# Bidirectional overrides make a line read otherwise than it is; lone surrogates cannot be printed
# at all.
_BAD |= dict.fromkeys(
    (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029, *range(0xD800, 0xE000)), "�"
)

FIRST_SEC, END_SEC = -62_135_596_800.0, 253_402_300_799.0
"""The years 1 to 9999 as Unix seconds."""


def clean_block(text: str, limit: int = 65536) -> str:
    """Neutralise `text`, keep its line breaks, bound it to about `limit` characters."""
    cut = len(text) > limit
    text = text[:limit]
    if "\x1b" in text:
        text = re.sub(SEQUENCE, "", text)
    if "\r" in text:  # a progress bar redraws its line: what stood there last is what people saw
        text = "\n".join(_last_drawn(line) for line in text.split("\n"))
    text = text.translate(_BAD)
    return text + " […]" if cut else text


def _last_drawn(line: str) -> str:
    parts = [part for part in line.split("\r") if part]
    return parts[-1] if parts else ""


def clean(text: str, limit: int = 4096) -> str:
    """Neutralise `text` and make one line of it."""
    return clean_block(text, limit).replace("\n", " ").replace("\t", " ")


def typed(path: str) -> str:
    """A path as one word of a command line that can be shown and pasted: what cannot be seen, or is
    not UTF-8, is written as bash, zsh and ksh read it, `$'…'`."""
    import shlex  # only where a path is to be quoted

    if path == clean(path):
        return shlex.quote(path)
    raw = path.encode("utf-8", "surrogateescape")
    plain = (chr(b) if 0x20 <= b < 0x7F and b not in b"\\'" else f"\\{b:03o}" for b in raw)
    return f"$'{''.join(plain)}'"


def shorten(text: str, width: int) -> str:
    """One clean line of at most `width` characters, single-spaced."""
    return cut(" ".join(clean(text).split()), width)


def cut(text: str, width: int) -> str:
    """One clean line of at most `width` characters, its spaces kept."""
    line = clean(text)
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"


def one_line(text: str, limit: int) -> str:
    """The text, as it is but for its white space, on one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def both_ends(text: str, limit: int) -> str:
    """Keep head and tail of a text within `limit` bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return text
    half = limit // 2
    head, tail = data[:half].decode("utf-8", "ignore"), data[-half:].decode("utf-8", "ignore")
    return f"{head}\n[… {len(data) - 2 * half} bytes left out …]\n{tail}"


def age(seconds: float) -> str:
    """A duration as people say it: `7 s`, `12 m 05 s`, `3 h 07 m`, `2 d 04 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def iso(wall: float) -> str:
    """UTC time stamp with milliseconds; what no calendar has becomes the beginning of 1970."""
    # Most processes that import this print no date.
    from datetime import UTC, datetime

    sane = wall if FIRST_SEC <= wall < END_SEC else 0.0
    text = datetime.fromtimestamp(sane, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def epoch(text: object) -> float | None:
    """Unix seconds of an ISO 8601 time, None for anything else; without a zone it is UTC."""
    from datetime import UTC, datetime

    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def moment(seconds: float) -> str:
    """A local date and time with its offset from UTC, `2026-01-31 23:59:59+01:00`."""
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(" ", "seconds")
    except (OverflowError, ValueError, OSError):
        return iso(seconds)


def took(seconds: float) -> str:
    """A duration that is over: like `age`, but short ones keep a decimal, `0.4 s`."""
    return f"{max(0.0, seconds):.1f} s" if seconds < 9.95 else age(seconds)


def counted(count: float, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count:.0f} {noun}{'' if count == 1 else 's'}"


def in_a_row(count: float, noun: str) -> str:
    """`1 error`, `2 errors in a row`."""
    return counted(count, noun) + ("" if count == 1 else " in a row")


def listed(texts: Sequence[str], most: int = 5) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def size(num_bytes: float) -> str:
    """A size in decimal units: `12 kB`, `1.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            places = 0 if num_bytes >= 10 or unit == "B" else 1
            return f"{num_bytes:.{places}f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def tokens(count: float) -> str:
    """A number of tokens: `830`, `12.3k`, `4.1M`."""
    if count < 1000:
        return f"{count:.0f}"
    return f"{count / 1000:.1f}k" if count < 999_950 else f"{count / 1_000_000:.1f}M"


def money(usd: float) -> str:
    """US dollars; small amounts keep their cents visible."""
    return f"${usd:.4f}" if 0 < usd < 0.01 else f"${usd:.2f}"
