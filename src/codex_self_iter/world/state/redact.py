"""Secrets out of everything that is kept on disk.

Two kinds are known (see `core.secrets`): the values of environment variables whose names look like
keys, wherever they appear, and the known formats of keys. Overlapping finds become one.

Most text has none. So one rough expression is tried first, in the engine that pydantic brings: it
reads a text once, at 1 ms a MiB, where the exact ones take 20 to 50 (200 where every word is a
key)."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from codex_self_iter.core.secrets import SECRETS
from codex_self_iter.world.state.durable import storing, write_all
from codex_self_iter.world.state.root import StateRoot

REDACTED = "[redacted]"
_MINIMUM = 8
_CHUNK = 512 * 1024
_LONG = 256 * 1024  # from this length on it pays to make the rough expression ready
_OVERLAP = 64 * 1024  # no secret and no label is longer
_MANY = 64  # with more values the rough expression is the slower one
_KEPT = 256 * 1024
"""So much is kept of the end of a file for which there was no time."""
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


def _literal(value: str) -> str:
    """An expression for this very text."""
    return "".join(
        char if char.isascii() and char.isalnum() else rf"\x{{{ord(char):x}}}" for char in value
    )


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


def _without(text: str, spans: list[tuple[int, int]], position: int = 0) -> str:
    """The text from `position` on, the spans replaced."""
    out = []
    for begin, end in spans:
        if end > position:
            out += [text[position:begin], REDACTED]
            position = end
    return "".join([*out, text[position:]])


InHaste = Callable[[], bool]
"""True once somebody waits for the end and there is no time for the rest."""


def never() -> bool:
    """Nobody waits."""
    return False


class Redactor:
    """Replaces secrets by `[redacted]`. Immutable; safe to share between threads."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        """`values`: secrets to find anywhere, but in JSON's fields of VERBATIM."""
        self._values = sorted(_spellings(values))
        # Files are read as bytes that may be no UTF-8: one character a byte.
        self._byte_values = [
            value.encode("utf-8", "replace").decode("latin-1") for value in self._values
        ]

    @functools.cached_property
    def _may_hold(self) -> Callable[[str], bool]:
        """False for a text without a secret. A text must be one that UTF-8 can say."""
        from pydantic_core import SchemaValidator, core_schema  # too heavy for the fast commands

        ends = {value[-_MINIMUM:] for value in (*self._values, *self._byte_values)}
        if len(ends) > _MANY:
            return lambda _: True
        rough = "|".join([*map(_literal, sorted(ends)), SECRETS.rough])
        text = core_schema.str_schema(pattern=rough, regex_engine="rust-regex")
        return SchemaValidator(text).isinstance_python

    def _places(self, text: str) -> list[tuple[int, int]]:
        if len(text) > _LONG and text.isascii() and not self._may_hold(text):
            return []
        return _spans(text, self._values)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Redactor:
        """With the values of this process's environment (or the given one)."""
        return cls(secret_values(os.environ if environment is None else environment))

    def text(self, text: str) -> str:
        """The text without secrets; the same object if there are none."""
        spans = self._places(text)
        return _without(text, spans) if spans else text

    def ending(self, data: bytes, start: int) -> bytes:
        """What is left of some bytes from `start` on, also of a secret that began before it."""
        text = data.decode("latin-1")
        return _without(text, _spans(text, self._byte_values), start).encode("latin-1")

    def value(self, value: Any) -> Any:
        """A JSON-like value with every text redacted, keys too, except the fields in `verbatim`.

        The same object when there is nothing to redact: all texts are looked through as one."""
        texts: list[str] = []
        self._gather(value, texts)
        return self._redacted(value) if self._places("\0".join(texts)) else value

    def _gather(self, value: Any, texts: list[str]) -> None:
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, Mapping):
            texts += [key for key in value if isinstance(key, str)]
            for key, item in value.items():
                if not (isinstance(item, str) and key in VERBATIM):
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
                if key in VERBATIM and isinstance(item, str)
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
        found = _spans(text, self._byte_values, seen) if self._may_hold(text) else []
        for begin, end in found:
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


def redact_file(root: StateRoot, name: str, redactor: Redactor, in_haste: InHaste = never) -> int:
    """Redact a finished file by a new one; returns how many secrets were replaced.

    Memory is bounded. A file without secrets is left untouched; holes stay holes, the time of
    change is kept. Once `in_haste` is true, what is not done yet is not kept, but for the file's
    end; the root's warnings say so. Raises StorageError."""
    with storing("redact", f"{root.path}/{name}"):
        try:
            source = root.open_file(name, os.O_RDONLY)
        except FileNotFoundError:
            return 0
        try:
            for _, count in redactor.chunks(_blocks(source, in_haste)):
                if count:
                    return _rewrite(root, name, source, redactor.chunks(_blocks(source, in_haste)))
            return 0
        except _InHasteError:
            _keep_end(root, name, source, redactor)
            return 0
        finally:
            os.close(source)


class _InHasteError(Exception):
    """There is no time for the rest."""


def _blocks(fd: int, in_haste: InHaste) -> Iterator[bytes]:
    position = 0
    while block := os.pread(fd, _CHUNK, position):
        if position and in_haste():
            raise _InHasteError
        yield block
        position += len(block)


def _rewrite(root: StateRoot, name: str, source: int, pieces: Iterable[tuple[bytes, int]]) -> int:
    total = 0
    with root.replacing(name, ".redacting") as target:
        for piece, count in pieces:
            total += count
            if piece.count(0) == len(piece):
                os.lseek(target, len(piece), os.SEEK_CUR)
            else:
                write_all(target, piece)
        os.ftruncate(target, os.lseek(target, 0, os.SEEK_CUR))
        found = os.fstat(source)
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
    return total


def _keep_end(root: StateRoot, name: str, source: int, redactor: Redactor) -> None:
    size = os.fstat(source).st_size
    gone = max(0, size - _KEPT)
    begin = max(0, gone - _OVERLAP)
    end = redactor.ending(os.pread(source, size - begin, begin), gone - begin)
    said = f"its first {gone} bytes were left out: there was no time to take secrets out of them"
    _rewrite(root, name, source, [(f"[{said}]\n".encode() + end, 0)])
    root.warnings.append(f"{name}: {said}")
