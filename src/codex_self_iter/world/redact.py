"""Secrets out of everything that is kept on disk.

Two kinds are known: the values of environment variables whose names look like keys, wherever they appear, and the
known formats of keys. One compiled expression finds both. Every alternative begins with a plain character, so
that the engine skips to candidates instead of trying each position; that is why the word boundary of a format is
checked after its first letter.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from codex_self_iter.world.files import StateRoot, storing, write_all

__all__ = ["REDACTED", "VERBATIM", "Redactor", "redact_file", "secret_values"]

REDACTED = "[redacted]"
_MINIMUM = 8
_CHUNK = 1024 * 1024
_OVERLAP = 64 * 1024  # no secret is longer
_NAME = re.compile(
    r"SECRET|TOKEN(?!IZ|S\b|S_)|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|APIKEY"
    r"|(?:^|_)(?:AUTH|PASS|PAT|JWT|BEARER|COOKIE)(?:_|$)|KEYS?(?:_|$)"
)
_NOT_A_NAME = re.compile(r"_(?:SOCK|SOCKET|PATH|FILE|DIR|HOME|TYPE|METHOD|ID)$")
_HARMLESS = re.compile(
    r"\d{1,15}|true|false|disabled|enabled|required|optional|password|keyring|anonymous", re.I
)

_EDGE = r"(?<![A-Za-z0-9].)"  # after the first letter: what comes before it is no letter or digit
_WORD = r"[A-Za-z0-9_-]"
_BEARER = r"(?:[A-Za-z0-9._~+/=-]{20,}|(?=[A-Za-z._~+/=-]*\d)[A-Za-z0-9._~+/=-]{8,})"
_PEM = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----"
_PEM_END = r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----"
_FORMATS = (
    rf"s{_EDGE}k-(?:ant|proj|svcacct|admin|live|test|or)-{_WORD}{{8,}}",
    rf"s{_EDGE}k-(?={_WORD}*[0-9A-Z]){_WORD}{{16,}}",
    rf"g{_EDGE}h[pousr]_[A-Za-z0-9]{{16,}}",
    rf"g{_EDGE}ithub_pat_[A-Za-z0-9_]{{16,}}",
    rf"g{_EDGE}lpat-{_WORD}{{16,}}",
    rf"A{_EDGE}(?:KIA|SIA)[A-Z0-9]{{16}}(?![A-Za-z0-9])",
    rf"A{_EDGE}Iza{_WORD}{{30,}}",
    rf"x{_EDGE}ox[abeprs]-[A-Za-z0-9-]{{10,}}",
    rf"h{_EDGE}f_[A-Za-z0-9]{{24,}}",
    rf"e{_EDGE}yJ{_WORD}{{8,}}\.{_WORD}{{8,}}\.{_WORD}*",
    rf"{_PEM}(?:[\s\S]{{0,16384}}?{_PEM_END}|(?:[A-Za-z0-9+/=]{{16,}}|\s|\\[nr])*)",
)
# Here the word before the secret is kept.
_LABELLED = (
    rf"(?P<bearer>[Bb]{_EDGE}(?:earer|EARER)[ \t]+){_BEARER}",
    r"(?P<login>://)[^\s/:@\"'<>]{1,256}:[^\s/@\"'<>]{1,256}(?=@)",
    rf"(?P<basic>[Aa]{_EDGE}(?:uthorization|UTHORIZATION)[\"']?:[ \t]*[\"']?[Bb]asic[ \t]+)[A-Za-z0-9+/=]{{8,}}",
)

VERBATIM = frozenset(
    {
        "boot_id", "branch", "cwd", "directory", "fingerprint", "head", "head_after", "head_before", "log",
        "path", "run_id", "schema", "session_id", "state", "state_dir", "thread_id", "ts", "verdict", "workspace",
    }
)  # fmt: skip
"""Fields that recovery needs as they are; they hold names and numbers of ours, never text from outside."""


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """Values of the variables whose names look like keys. Left out: short ones, plain words and existing paths."""
    found = set()
    for name, value in environment.items():
        upper = name.upper()
        value = value.strip()
        if len(value) < _MINIMUM or not _NAME.search(upper) or _NOT_A_NAME.search(upper):
            continue
        if _HARMLESS.fullmatch(value) or (value.startswith(("/", "~", "./")) and os.path.exists(value)):
            continue
        found.add(value)
    return sorted(found)


def _spellings(values: Iterable[str]) -> set[str]:
    """Each value as it is, and as it looks inside JSON."""
    plain = {value for value in values if len(value) >= _MINIMUM}
    return plain | {
        json.dumps(value, ensure_ascii=ascii_)[1:-1] for value in plain for ascii_ in (False, True)
    }


def _compile(values: set[str]) -> re.Pattern[str]:
    longest_first = sorted(values, key=lambda value: (-len(value), value))
    return re.compile("|".join([re.escape(value) for value in longest_first] + [*_FORMATS, *_LABELLED]))


class Redactor:
    """Replaces secrets by `[redacted]`. Immutable; safe to share between threads."""

    def __init__(self, values: Iterable[str] = (), *, verbatim: frozenset[str] = VERBATIM) -> None:
        """`values`: secrets to find anywhere (see `secret_values`); `verbatim`: JSON fields left as they are."""
        spellings = _spellings(values)
        self._pattern = _compile(spellings)
        # Files are read as bytes that may be no UTF-8: one character a byte.
        self._bytes_pattern = _compile(
            {value.encode("utf-8", "replace").decode("latin-1") for value in spellings}
        )
        self._verbatim = verbatim

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Redactor:
        """With the values of this process's environment (or the given one)."""
        return cls(secret_values(os.environ if environment is None else environment))

    def text(self, text: str) -> str:
        """The text without secrets; the same object if there are none."""
        return self._pattern.sub(_replacement, text)

    def value(self, value: Any) -> Any:
        """A JSON-like value with every text redacted, except keys and the fields in `verbatim`."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                key: item if key in self._verbatim and isinstance(item, str) else self.value(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def chunks(self, source: Iterable[bytes]) -> Iterable[tuple[bytes, int]]:
        """A stream without secrets: (bytes, number replaced) for each piece. A secret may lie across pieces."""
        carry, seen = "", 0  # the first `seen` characters of carry are done: only lookbehind needs them
        for block in source:
            out, carry, seen, count = self._step(carry + block.decode("latin-1"), seen, final=False)
            yield out, count
        out, carry, seen, count = self._step(carry, seen, final=True)
        yield out, count

    def _step(self, text: str, seen: int, *, final: bool) -> tuple[bytes, str, int, int]:
        cut = len(text) if final else max(seen, len(text) - _OVERLAP)
        out, position, count = [], seen, 0
        for match in self._bytes_pattern.finditer(text, seen):
            if match.start() >= cut:
                break
            out += [text[position : match.start()], _replacement(match)]
            position = match.end()
            count += 1
        if position < cut:
            out.append(text[position:cut])
            position = cut
        keep = min(position, 1)
        return "".join(out).encode("latin-1"), text[position - keep :], keep, count


def _replacement(match: re.Match[str]) -> str:
    kept = match.lastgroup
    return f"{match[kept]}{REDACTED}" if kept else REDACTED


def redact_file(root: StateRoot, name: str, redactor: Redactor) -> int:
    """Redact a finished file in place (temporary file and rename); returns how many secrets were replaced.

    Memory is bounded. A file without secrets is left untouched; holes stay holes, the time of change is kept.
    Raises StorageError.
    """
    with storing("redact", f"{root.path}/{name}"):
        try:
            source = root.open_file(name, os.O_RDONLY)
        except FileNotFoundError:
            return 0
        try:
            total = sum(count for _, count in redactor.chunks(_blocks(source)))
            if total:
                _rewrite(root, name, redactor, source)
            return total
        finally:
            os.close(source)


def _blocks(fd: int) -> Iterator[bytes]:
    position = 0
    while block := os.pread(fd, _CHUNK, position):
        yield block
        position += len(block)


def _rewrite(root: StateRoot, name: str, redactor: Redactor, source: int) -> None:
    temporary = f"{name}.redacting"
    parent, _, leaf = name.rpartition("/")
    with root.guard, root.directory(parent) as directory:
        target = root.open_file(temporary, os.O_WRONLY | os.O_CREAT)
        try:
            os.ftruncate(target, 0)
            for piece, _ in redactor.chunks(_blocks(source)):
                if piece.count(0) == len(piece):
                    os.lseek(target, len(piece), os.SEEK_CUR)
                else:
                    write_all(target, piece)
            os.ftruncate(target, os.lseek(target, 0, os.SEEK_CUR))
            found = os.fstat(source)
            os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
            os.rename(f"{leaf}.redacting", leaf, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(f"{leaf}.redacting", dir_fd=directory)
            raise
        finally:
            os.close(target)
