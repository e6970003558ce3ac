"""Secrets out of everything that is kept on disk.

Two kinds are known (see `core.secrets`): the values of environment variables whose names look like
keys, wherever they appear, and the known formats of keys. Overlapping finds become one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from codex_self_iter.core.secrets import SECRETS
from codex_self_iter.world.state.durable import storing, write_all
from codex_self_iter.world.state.root import StateRoot

REDACTED = "[redacted]"
_MINIMUM = 8
_CHUNK = 1024 * 1024
_OVERLAP = 64 * 1024  # no secret and no label is longer
_HARMLESS = re.compile(
    r"\d{1,15}|[a-z]{1,15}|[A-Z]{1,15}|[A-Z][a-z]{1,14}"  # a word: POSTGRES_PASSWORD=postgres
)

_OURS = """boot_id branch cwd directory fingerprint head head_after head_before log path run_id
    schema session_id state state_dir thread_id ts verdict workspace"""
VERBATIM = frozenset(_OURS.split())
"""Fields that recovery needs as they are: names and numbers of ours, never text from outside."""


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """Values of variables named like keys, but for short ones, plain words and existing paths."""
    found = set()
    for name, value in environment.items():
        value = value.strip()
        if len(value) < _MINIMUM or not SECRETS.names_value(name):
            continue
        is_path = value.startswith(("/", "~", "./")) and os.path.exists(value)
        if not (is_path or _HARMLESS.fullmatch(value)):
            found.add(value)
    return sorted(found)


def _spellings(values: Iterable[str]) -> set[str]:
    """Each value as it is, and as it looks inside JSON."""
    plain = {value for value in values if len(value) >= _MINIMUM}
    return plain | {
        json.dumps(value, ensure_ascii=ascii_)[1:-1] for value in plain for ascii_ in (False, True)
    }


def _finds(text: str, values: Iterable[str], start: int) -> Iterator[tuple[int, int]]:
    """(start, end) of every secret from `start` on; unsorted, may overlap."""
    for value in values:
        position = text.find(value, start)
        while position >= 0:
            yield position, position + len(value)
            position = text.find(value, position + len(value))
    yield from SECRETS.spans(text, start)


def _spans(text: str, values: Iterable[str], start: int = 0) -> list[tuple[int, int]]:
    """The secrets' places in order, overlapping ones joined."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(_finds(text, values, start)):
        if joined and begin < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((begin, end))
    return joined


class Redactor:
    """Replaces secrets by `[redacted]`. Immutable; safe to share between threads."""

    def __init__(self, values: Iterable[str] = (), *, verbatim: frozenset[str] = VERBATIM) -> None:
        """`values`: secrets to find anywhere; `verbatim`: JSON fields left as they are."""
        self._values = sorted(_spellings(values))
        # Files are read as bytes that may be no UTF-8: one character a byte.
        self._byte_values = [
            value.encode("utf-8", "replace").decode("latin-1") for value in self._values
        ]
        self._verbatim = verbatim

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Redactor:
        """With the values of this process's environment (or the given one)."""
        return cls(secret_values(os.environ if environment is None else environment))

    def text(self, text: str) -> str:
        """The text without secrets; the same object if there are none."""
        spans = _spans(text, self._values)
        if not spans:
            return text
        out, position = [], 0
        for begin, end in spans:
            out += [text[position:begin], REDACTED]
            position = end
        return "".join([*out, text[position:]])

    def value(self, value: Any) -> Any:
        """A JSON-like value with every text redacted, keys too, except the fields in `verbatim`.

        The same object when there is nothing to redact: all texts are looked through as one."""
        texts: list[str] = []
        self._gather(value, texts)
        return self._redacted(value) if _spans("\0".join(texts), self._values) else value

    def _gather(self, value: Any, texts: list[str]) -> None:
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, Mapping):
            texts += [key for key in value if isinstance(key, str)]
            for key, item in value.items():
                if not (isinstance(item, str) and key in self._verbatim):
                    self._gather(item, texts)
        elif isinstance(value, list | tuple):
            for item in value:
                self._gather(item, texts)

    def _redacted(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self._redacted(key): item
                if key in self._verbatim and isinstance(item, str)
                else self._redacted(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._redacted(item) for item in value]
        return value

    def chunks(self, source: Iterable[bytes]) -> Iterable[tuple[bytes, int]]:
        """A stream without secrets, even across pieces: (bytes, number replaced) for each."""
        # the first `seen` characters of carry are done: only lookbehind needs them
        carry, seen = "", 0
        for block in source:
            out, carry, seen, count = self._step(carry + block.decode("latin-1"), seen, final=False)
            yield out, count
        out, carry, seen, count = self._step(carry, seen, final=True)
        yield out, count

    def _step(self, text: str, seen: int, *, final: bool) -> tuple[bytes, str, int, int]:
        cut = len(text) if final else max(seen, len(text) - _OVERLAP)
        out, position, count = [], seen, 0
        for begin, end in _spans(text, self._byte_values, seen):
            if begin >= cut:
                break
            out += [text[position:begin], REDACTED]
            position = end
            count += 1
        if position < cut:
            out.append(text[position:cut])
            position = cut
        keep = min(position, 1)
        return "".join(out).encode("latin-1"), text[position - keep :], keep, count


def redact_file(root: StateRoot, name: str, redactor: Redactor) -> int:
    """Redact a finished file by a new one; returns how many secrets were replaced.

    Memory is bounded. A file without secrets is left untouched; holes stay holes, the time of
    change is kept. Raises StorageError."""
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
    with root.replacing(name, ".redacting") as target:
        for piece, _ in redactor.chunks(_blocks(source)):
            if piece.count(0) == len(piece):
                os.lseek(target, len(piece), os.SEEK_CUR)
            else:
                write_all(target, piece)
        os.ftruncate(target, os.lseek(target, 0, os.SEEK_CUR))
        found = os.fstat(source)
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
