"""The state directory of one loop: what is persisted, how it is read back, and how it is restored.

Recovery reads in this order: `runtime.json` → `runtime.json.1` → the journal's last line → refuse.
In the place of a line out of which a secret was taken it reads `runtime.json.next`.
A file that is broken or not ours is moved to `quarantine/` and the next one is used; a file of a
newer version is left alone and refused. Nothing ever starts from zero while there is a trace that a
loop has been here.

What was written last stays in memory, and the journal's descriptor stays open, so that `heal` can
put back what another program deleted. Methods are synchronous and safe to call from several
threads."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
from collections.abc import Mapping
from typing import Any

from codex_self_iter.core.state import SCHEMA
from codex_self_iter.errors import StorageError, UsageError
from codex_self_iter.world.guarded import QUARANTINE
from codex_self_iter.world.state.durable import encode_json, encode_lines, storing
from codex_self_iter.world.state.holder import LOCK_FILE
from codex_self_iter.world.state.journal import JOURNAL, Journal
from codex_self_iter.world.state.lock import SupervisorLock
from codex_self_iter.world.state.migrations import Runtime, accept, migrate
from codex_self_iter.world.state.redact import InHaste, Redactor, never, redact_file
from codex_self_iter.world.state.root import Signature, StateRoot, signature

RUNTIME, PREVIOUS, STATUS, REPORT = "runtime.json", "runtime.json.1", "status.json", "report.md"
NEXT = "runtime.json.next"
"""The state of a journal line out of which a secret was taken, until the snapshot has it."""
PARTS = ("inbox", "inbox/done", QUARANTINE, "prompts", "logs", "logs/runs")
_GITIGNORE = b"*\n"
_MAX_RULES = 64 * 1024
_ITS_OWN = "it must be a directory of its own"
_MAX_RUNTIME = 64 * 1024 * 1024
_LAST_LINES = 32
"""Among so many the last one that carries a state is sought."""
_TELLING = ("exit.json", "identity.json", "stdout.log", "stderr.log")
"""Files that tell of a run that has begun."""
_RUN_FILES = ("stdout.log", "stderr.log", "answer.txt", "events.jsonl")


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """What the state directory knew at start.

    Attributes:
        runtime: the persisted loop state (migrated to SCHEMA), or None when there was none.
        last_line: the journal's last good line; the core compares it with `runtime`, or rebuilds
            from it.
        warnings: what had to be set aside, one line each, for the log and `status.json`."""

    runtime: Runtime | None
    last_line: Mapping[str, Any] | None
    warnings: list[str]


@dataclasses.dataclass(slots=True)
class _Held:
    """The content of a file as we wrote it last, and what the file looked like then."""

    data: bytes
    seen: Signature


class StateDirectory:
    """See the module."""

    def __init__(
        self,
        path: str,
        workspace: str,
        *,
        redactor: Redactor | None = None,
    ) -> None:
        """Open the directory, or create it with its parts.

        Raises UsageError when the path cannot be a state directory, StorageError when it cannot be
        written now."""
        self.workspace = os.path.realpath(workspace)
        _refuse_foreign(os.path.realpath(path), self.workspace)
        self.root = StateRoot(path)
        self.journal = Journal(self.root)
        self.lock: SupervisorLock | None = None
        self.in_place = True
        """Whether a heartbeat may overwrite the time in `status.json`; off for a lone loop."""
        self.redactor = redactor if redactor is not None else Redactor.from_environment()
        self._held: dict[str, _Held] = {}
        self._ahead = False
        self._prompts: list[str] = []
        self._restored: list[str] = []
        self._status: tuple[Mapping[str, Any], bytes, bytes] = ({}, b"", b"")
        try:
            self._create_parts()
            self._hide_from_git()
        except BaseException:
            self.root.close()
            raise

    @property
    def path(self) -> str:
        return self.root.path

    def close(self) -> None:
        """Give the lock back and close everything."""
        with self.root.guard:
            if self.lock is not None:
                self.lock.release()
            self.journal.close()
            self.root.close()

    def acquire_lock(self, lock_file_name: str = LOCK_FILE) -> None:
        """Become the one supervisor of this workspace. Raises WorkspaceBusyError (says who)."""
        lock = SupervisorLock(self.root, self.workspace, lock_file_name)
        lock.acquire()
        self.lock = lock
        self.root.warnings += lock.warnings

    def take_warnings(self) -> list[str]:
        """What had to be set aside since the last call, for the log."""
        return self.root.take_warnings()

    def _create_parts(self) -> list[str]:
        done = []
        for part in PARTS:
            with storing("look at", f"{self.path}/{part}"):
                found = self.root.glance(part)
            if found is None or not stat.S_ISDIR(found.st_mode):
                with storing("create", f"{self.path}/{part}"), self.root.directory(part):
                    done.append(f"{part}/")
        if self.root.glance(".gitignore") is None:
            self.root.replace(".gitignore", _GITIGNORE, durable=False)
            done.append(".gitignore")
        return done

    def _hide_from_git(self) -> None:
        """See that our own `.gitignore` holds: another one would let `git add` take what is here."""
        rules = self.root.read(".gitignore", _MAX_RULES) or b""
        if b"*" not in map(bytes.strip, rules.splitlines()):
            self.root.set_aside(".gitignore", "it does not hide this directory from git (*)")
            self._create_parts()

    # -- writing -----------------------------------------------------------------------------------

    def save_runtime(self, runtime: Mapping[str, Any]) -> None:
        """Replace `runtime.json` atomically and durably; the one before stays as `runtime.json.1`.

        Verbatim: the loop goes on from it, and a goal that says `[redacted]` is another goal.
        Raises StorageError; then the file on disk is still the old one."""
        data = encode_lines({"schema": SCHEMA} | dict(runtime)) + b"\n"
        with self.root.guard:
            self._be_there()
            self._set_foreign_aside(RUNTIME)
            before = self._held.get(RUNTIME)
            self._held[RUNTIME] = _Held(data, self.root.replace(RUNTIME, data, keep=PREVIOUS))
            kept = self.root.look(PREVIOUS)
            if before is not None and kept is not None:
                self._held[PREVIOUS] = _Held(before.data, signature(kept))
            if self._ahead:
                with contextlib.suppress(OSError):
                    os.unlink(NEXT, dir_fd=self.root.fd)
                self._ahead = False

    def redact_runtime(self) -> None:
        """Nobody goes on from here: what is kept is to be read only. Raises StorageError."""
        with self.root.guard:
            for name in (RUNTIME, PREVIOUS, NEXT):
                self._held.pop(name, None)
                redact_file(self.root, name, self.redactor)

    def redact_iteration(self, iteration: int, *, but: str = "", in_haste: InHaste = never) -> None:
        """Redact what an earlier supervisor left of an iteration's runs, except the one labelled
        `but`, which is still on. Raises StorageError."""
        for part in ("logs/runs", "prompts"):
            with storing("look at", f"{self.path}/{part}"), self.root.directory(part) as fd:
                names = [name for name in os.listdir(fd) if name.startswith(f"{iteration:06d}-")]
            for name in names:
                if but and name.removesuffix(".md") == but:
                    continue
                if part == "prompts":
                    self.redact_prompt(f"{self.path}/{part}/{name}", in_haste)
                else:
                    self.redact_run(f"{self.path}/{part}/{name}", in_haste)

    def _be_there(self) -> None:
        """Put back a directory that is gone, before something is written to it."""
        if not self.root.is_current() or self.regain():
            self._restored = self.heal()  # told by the next look

    def regain(self) -> bool:
        """Take back the right to look into the directory; True when it was gone, which the next
        `heal` tells. Raises StorageError."""
        with self.root.guard:
            gone = self.root.regain()
            if gone:
                self._restored.append(f"{self.path}/ (its rights)")
            return gone

    def _set_foreign_aside(self, name: str) -> bool:
        """Move a file away that somebody else put in the place of ours."""
        held, here = self._held.get(name), self.root.look(name)
        if held is None or here is None or signature(here) == held.seen:
            return False
        self.root.set_aside(name, "another program had changed it")
        return True

    def save_status(self, status: Mapping[str, Any]) -> None:
        """Replace `status.json` atomically; not synced, it is the present. Raises StorageError.

        With `in_place`, and when only its time has moved, the time alone is written over the old
        one: no reader can find anything but a whole file, and it costs a fifth of a new file, which
        counts where a thousand loops wait."""
        before, after = self._around_time(status)
        time = encode_json({"": status.get("updated_at")})[4:-1]
        with self.root.guard:
            if not (self.in_place and self._overwrite_time(before, time, after)):
                self._replace_held(STATUS, before + time + after, durable=False)

    def _overwrite_time(self, before: bytes, time: bytes, after: bytes) -> bool:
        """True when there was no more to do; False also when somebody has been at the file."""
        held = self._held.get(STATUS)
        if held is None or not self.root.is_current():
            return False
        if held.data != before + held.data[len(before) : len(before) + len(time)] + after:
            return False
        with (
            storing("write", f"{self.path}/{STATUS}"),
            open(self.root.open_file(STATUS, os.O_WRONLY | os.O_CREAT), "wb") as file,
        ):
            fd = file.fileno()
            if signature(os.fstat(fd)) != held.seen:
                return False
            os.pwrite(fd, time, len(before))
            self._held[STATUS] = _Held(before + time + after, signature(os.fstat(fd)))
        return True

    def _around_time(self, status: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """The encoded status before and after its time; of the same status it is made once."""
        still = {**status, "updated_at": None}
        if still != self._status[0]:
            data = encode_lines(self.redactor.value(still)) + b"\n"
            # At the beginning of a line there are only names: no text can contain the line feed.
            before, mark, after = data.partition(b'\n "updated_at":null')
            self._status = still, before + mark[:-4], after
        return self._status[1:]

    def _replace_held(self, name: str, data: bytes, *, durable: bool = True) -> None:
        with self.root.guard:
            self._be_there()
            self._held[name] = _Held(data, self.root.replace(name, data, durable=durable))

    def append_journal(self, record: Mapping[str, Any]) -> None:
        """Append one line, redacted and synced. Raises StorageError; then it does not count.

        Redaction is for what is shown: what the loop goes on from is kept verbatim beside."""
        shown, after = self.redactor.value(record), record.get("after", {})
        with self.root.guard:
            self._be_there()
            if shown.get("after", {}) != after:
                self.root.replace(NEXT, encode_json(after))
                self._ahead = True
            self.journal.append(shown)

    def journal_tail(self, count: int) -> list[dict[str, Any]]:
        """The last `count` good lines, oldest first, in bounded memory. Raises StorageError."""
        return self.journal.tail(count)

    def save_prompt(
        self, iteration: int, role: str, text: str, attempt: int = 1, *, redact: bool = True
    ) -> str:
        """Keep a prompt as `prompts/000012-executor.md` and return its path.

        An agent that is handed this file reads what is in it: with `redact` a key that somebody
        wrote into the plan reaches neither the file nor that agent; without, the file is verbatim
        and `redact_prompt` follows the run. Raises StorageError."""
        name = f"prompts/{_label(iteration, role, attempt)}.md"
        data = (self.redactor.text(text) if redact else text).encode("utf-8", "surrogateescape")
        with self.root.guard:
            made = self.root.create(name, data) if self.root.is_current() else None
            if made is None:
                self._replace_held(name, data, durable=False)
            else:
                self._held[name] = _Held(data, made)
        self._prompts.append(name)
        # those of the present iteration come back when they are deleted
        while len(self._prompts) > 3:
            self._held.pop(self._prompts.pop(0), None)
        return f"{self.path}/{name}"

    def redact_prompt(self, path: str, in_haste: InHaste = never) -> int:
        """Redact a kept prompt after its run; returns how many secrets. Raises StorageError."""
        name = os.path.relpath(path, self.path)
        with self.root.guard:
            self._held.pop(name, None)
        return redact_file(self.root, name, self.redactor, in_haste)

    def run_directory(self, iteration: int, label: str, attempt: int = 1) -> str:
        """Create `logs/runs/000012-executor` (the second run of the same role: `…-2`) and return
        its path.

        Raises StorageError."""
        return self._directory(f"logs/runs/{_label(iteration, label, attempt)}")

    def _directory(self, name: str) -> str:
        """Create a directory and return its path. Raises StorageError."""
        with self.root.guard, storing("create", f"{self.path}/{name}"):
            if not self.root.is_current():
                self._restored = self.heal()  # told by the next look
            with self.root.directory(name):
                return f"{self.path}/{name}"

    def fresh_run_directory(
        self, iteration: int, label: str, attempt: int = 1, *, again: bool = False
    ) -> str:
        """The same for a run that is to start: with nothing in it that could be taken for its own.

        What an earlier run of this number left (a backup was put back) is set aside as a whole; of
        what runs `again` it is removed. Whatever is no regular file is set aside. Raises
        StorageError."""
        path = self.run_directory(iteration, label, attempt)
        if self._emptied(path, again=again):
            return path
        self.set_run_aside(path)
        return self.run_directory(iteration, label, attempt)

    def hook_directory(self, name: str) -> str:
        """`logs/hooks/NAME` for a hook that is to start, with nothing in it. Raises StorageError."""
        path = self._directory(f"logs/hooks/{name}")
        self._emptied(path, again=True)
        return path

    def _emptied(self, path: str, *, again: bool) -> bool:
        """Empty a run's directory, but of what tells of another run unless it runs `again`; False
        for that. Raises StorageError."""
        name = os.path.relpath(path, self.path)
        with self.root.guard, storing("empty", path), self.root.directory(name) as fd:
            found = {
                leaf: os.stat(leaf, dir_fd=fd, follow_symlinks=False) for leaf in os.listdir(fd)
            }
            told = any(found[leaf].st_size for leaf in _TELLING if leaf in found)
            for leaf, about in found.items():
                if not stat.S_ISREG(about.st_mode):
                    self.root.set_aside(f"{name}/{leaf}", "not a regular file of ours")
                elif again or not told:
                    os.unlink(leaf, dir_fd=fd)
        return again or not told

    def set_run_aside(self, directory: str) -> None:
        """Set aside a run's directory that is not of the present history. Raises StorageError."""
        why = "an earlier run of the same number left it"
        self.root.set_aside(os.path.relpath(directory, self.path), why)

    def clear_way(self, *names: str) -> None:
        """Set aside what lies in the way of files that the process host opens (absolute or below
        the directory).

        Raises StorageError."""
        for name in names:
            name = os.path.relpath(name, self.path) if os.path.isabs(name) else name
            with self.root.guard, storing("look at", f"{self.path}/{name}"):
                if self.root.glance(name) is None:
                    continue
                found = self.root.look(name)
                if found is not None and (not stat.S_ISREG(found.st_mode) or found.st_nlink > 1):
                    self.root.set_aside(name, "not a regular file of ours")

    def try_room(self, size: int) -> None:
        """Raise StorageError unless so many bytes can be written now; nothing of them stays."""
        self.root.replace("room", b"\0" * size, durable=True)
        with storing("remove", f"{self.path}/room"):
            os.unlink("room", dir_fd=self.root.fd)

    def redact_run(self, directory: str, in_haste: InHaste = never) -> int:
        """Redact a finished run's files; returns how many secrets. Raises StorageError."""
        name = os.path.relpath(directory, self.path)
        return sum(
            redact_file(self.root, f"{name}/{file}", self.redactor, in_haste) for file in _RUN_FILES
        )

    def write_report(self, text: str) -> str:
        """Write `report.md` (secrets redacted) and return its path. Raises StorageError."""
        data = self.redactor.text(text).encode("utf-8", "replace")
        self._replace_held(REPORT, data, durable=False)
        return f"{self.path}/{REPORT}"

    # -- reading back ------------------------------------------------------------------------------

    def load(self) -> Loaded:
        """Read what the last supervisor left; call it under the lock.

        Raises UsageError when a newer version wrote it, or when there was a loop here of which
        nothing is readable; StorageError when reading fails now."""
        with self.root.guard:
            # Both are read before either is moved: one of a newer version ends here with everything
            # left as it was. The journal is asked even if there is a snapshot, because the two are
            # not written together: the core finds out which of them is a step ahead.
            readings = [(name, *self._read_snapshot(name)) for name in (RUNTIME, PREVIOUS, NEXT)]
            runtime: Runtime | None = None
            previous = False
            present = self.journal.size() > 0
            # a journal that is no file is set aside here; somebody may have appended to it
            lines = reversed(self.journal.tail(_LAST_LINES))
            last = next((line for line in lines if "after" in line), None) or self.journal.last()
            closing = _closing((last or {}).get("after"))
            for name, found, flaw in readings:
                if flaw:
                    self.root.set_aside(name, flaw)
                elif name == NEXT and found is not None:
                    self._ahead = True
                    # else its line was never written, or the snapshot has been replaced
                    if _closing(found) == closing != _closing(runtime):
                        runtime = found
                elif found is not None and runtime is None:
                    runtime, previous = found, name == PREVIOUS
            if runtime is None and last is None:
                self._refuse_to_forget(present)
            self._hold_what_is_there()
            warnings = self.take_warnings()
            if previous:
                unusable = f"{RUNTIME} could not be used"
                warnings.append(f"{unusable}; going on from {PREVIOUS} and the journal")
            elif runtime is None and last is not None:
                warnings.append("no usable snapshot; going on from the journal's last line")
            elif runtime is not None and not present and _has_closed_one(runtime):
                missing = f"{JOURNAL} is missing"
                warnings.append(f"{missing}; going on from {RUNTIME}, the history is lost")
            elif present and last is None:
                warnings.append(f"{JOURNAL} has no readable line; going on from {RUNTIME}")
            return Loaded(runtime, last, warnings)

    def _read_snapshot(self, name: str) -> tuple[Runtime | None, str]:
        """(snapshot, "") or (None, what is wrong with the file); (None, "") when there is none."""
        data = self.root.read(name, _MAX_RUNTIME)
        if data is None:
            return None, ""
        if len(data) > _MAX_RUNTIME:
            return None, "it is far too large for a snapshot"
        try:
            found = json.loads(data.decode())
            if not isinstance(found, dict):
                raise ValueError("it is not a JSON object")
            found = migrate(found)
            accept(found)
        except UsageError as error:
            raise UsageError(f"cannot use {self.path}/{name}: {error}") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return None, f"not a snapshot of ours ({error})"
        return found, ""

    def _refuse_to_forget(self, journal_present: bool) -> None:
        """Raise UsageError if a loop has been here: to begin again is a person's decision."""
        with storing("read", f"{self.path}/{QUARANTINE}"), self.root.directory(QUARANTINE) as fd:
            ours = (RUNTIME, JOURNAL.replace("/", "_"))
            aside = sorted(name for name in os.listdir(fd) if name.startswith(ours))
        if not journal_present and not aside:
            return
        what = f"{JOURNAL} has no readable line"
        if not journal_present:
            what = f"{QUARANTINE}/{aside[-1]} is unreadable"
        raise UsageError(
            f"a loop has been here, but its state cannot be read: in {self.path} there is no usable"
            f" {RUNTIME} and {what}. Put a backup in place, or, to begin again at iteration 1, move"
            f" the directory away: mv {self.path} {self.path}.old"
        )

    def _hold_what_is_there(self) -> None:
        for name in (RUNTIME, PREVIOUS):
            data, found = self.root.read(name, _MAX_RUNTIME), self.root.look(name)
            if data is not None and found is not None:
                self._held[name] = _Held(data, signature(found))
        if self.journal.size():
            self.journal.open()

    # -- healing -----------------------------------------------------------------------------------

    def heal(self) -> list[str]:
        """Put back what other programs deleted or replaced; returns the names, for the log.

        Costs a few stat calls when all is well: call it every second. Raises StorageError when
        restoring fails now (the next call goes on where this one stopped) and WorkspaceBusyError
        when another supervisor got in."""
        with self.root.guard:
            if not self.root.is_current():
                self._reopen()
            else:
                self.regain()
            with storing("look at", self.path):
                self._restored += self._create_parts()
                for name in list(self._held):
                    self._heal_file(name)
            if self.lock is not None:
                self._restored += self.lock.heal()
            self._restored += self.journal.heal()
            restored, self._restored = self._restored, []
            return restored

    def _reopen(self) -> None:
        if not os.path.isdir(self.workspace):
            gone = f"the workspace {self.workspace} is gone"
            raise StorageError(f"cannot restore {self.path}: {gone}")
        self.root.reopen()
        self._restored.append(f"{self.path}/")

    def _heal_file(self, name: str) -> None:
        held, here = self._held[name], self.root.glance(name)
        if here is not None and signature(here) == held.seen:
            return
        if here is not None and name not in (RUNTIME, PREVIOUS):
            # Somebody edited a prompt, a report or the status: it stays until we write again.
            held.seen = signature(here)
            return
        if here is not None:
            self.root.set_aside(name, "another program had changed it")
        held.seen = self.root.replace(name, held.data)
        self._restored.append(name)


def _label(iteration: int, label: str, attempt: int) -> str:
    return f"{iteration:06d}-{label}{f'-{attempt}' if attempt > 1 else ''}"


def _refuse_foreign(path: str, workspace: str) -> None:
    """Raise UsageError for what is certainly something else: ours is hidden from git whole."""
    if workspace == path or workspace.startswith(path.rstrip("/") + "/"):
        raise UsageError(f"state_dir {path} contains the workspace {workspace}; {_ITS_OWN}")
    with storing("read", path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names = set(os.listdir(path))
        if ".git" in names and not names & {RUNTIME, "logs"}:
            raise UsageError(f"state_dir {path} is a git repository; {_ITS_OWN}")


def _closing(state: Any) -> tuple[object, object] | None:
    """Which closing of which iteration a state is of; None: of none."""
    last = state.get("last") if isinstance(state, dict) else None
    return (last.get("iteration"), last.get("ended_at")) if isinstance(last, dict) else None


def _has_closed_one(runtime: Mapping[str, Any]) -> bool:
    """True when the journal must have a line: an iteration before the one open, if one is."""
    number = runtime.get("iteration")
    return isinstance(number, int) and number > (1 if runtime.get("open") else 0)
