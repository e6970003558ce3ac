"""What stands outside for a run whose agent is inside a container. A program of its own; standard
library only.

The container's process 1 is a shell (PROCESS_1) that waits for runs. The recorder starts this
program in the agent's place; it asks the shell for one run, hands it the environment and the
command, moves what the agent prints, and ends as the agent ends:

    recorder -> this program == FIFOs in the state directory == process 1 -> agent -> whatever

    leash    ours to the shell: names of signals, for everything inside but the shell; when we are
             gone, also at a kill -9, it reads the end of it and kills everything at once
    start    ours to the run: what it is to export and to become; secrets are on no disk and in no
             command line
    said     the run's to us: how the agent has ended, as a shell says it (128 and the signal)
    out, err the agent's to us

Nothing is started by the engine for a run, which would cost 150 to 200 ms; process 1 cannot be
signalled from inside, so nothing inside can keep the others from being killed. Every module that is
imported here costs each run a millisecond or five: it does without `json`, `contextlib`, `typing`
and what these bring."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

COMMAND = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from codex_self_iter.world.process.inside import main; main()"
)
"""What the interpreter is to do; its arguments: where the package is, and the words of an `Order`."""

PROCESS_1 = r"""
exec 2>/dev/null 3<>"$1"
serve() {
    exec 9>"$1/said"
    trap '' TERM
    ( trap - TERM; . "$1/start" ) >"$1/out" 2>"$1/err" 3<&- 4<&- &
    code=0
    wait "$!" || code=$?
    echo "$code" >&9
}
while :; do
    IFS= read -r place <&3 || continue
    [ -p "$place/leash" ] && exec 4<"$place/leash" || continue
    serve "$place" &
    while IFS= read -r name <&4; do
        case $name in TERM|CONT|KILL) kill -"$name" -1 ;; esac
        ( : )
    done
    exec 4<&-
    rounds=0
    while kill -KILL -1 && [ "$rounds" -lt 2000 ]; do ( : ); rounds=$((rounds + 1)); done
    wait
done
"""
"""The shell script that is process 1; its argument is the FIFO by which it hears of runs. (`( : )`
lets a shell collect those of its children that have ended.)"""

FIFOS = ("leash", "start", "said", "out", "err")
REPORT = "inside.json"
"""File in the run's directory: what else is to be known of its end."""

ANSWER_SEC = 10.0
"""How long process 1 may take to answer."""
POLITE_SEC = 0.5
"""How long left-overs of an ended agent have between TERM and KILL."""
GIVE_UP_SEC = 5.0
"""How long a process may take to die of KILL (a hung disk)."""
SETTLE_SEC = 0.05
"""How long the shell's own processes of a run may take to end."""
COLLECT_SEC = 5.0
"""How often process 1 collects orphans that have ended."""
PIECE_BYTES = 64 * 1024
LOST = 70
"""How this program ends when the run could not be had."""


class LostError(Exception):
    """The container does not do what it is to: one line."""


class Order:
    """What is to be run, as words of a command line.

    Attributes:
        control: FIFO of process 1.
        place: directory of the run's own FIFOs.
        report: file for what the exit status cannot tell.
        first: (pid, start) of process 1 as seen from here.
        leave: variables that are not handed in.
        program, script: the agent's, and what follows the exports to become it."""

    def __init__(self, words: Sequence[str]) -> None:
        self.control, self.place, self.report, pid, start, leave, self.program, self.script = words
        self.first = int(pid), int(start)
        self.leave = frozenset(leave.split(","))


class Inside:
    """One run, from asking for it to nothing left of it."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.leash = self.said = self.out = self.err = -1
        self.words: list[str] = []
        self.swept: set[int] = set()
        self.asked = False

    # -- starting

    def begin(self) -> None:
        """Have the run started. Raises LostError."""
        signal.signal(signal.SIGTERM, self._on_term)
        place = self.order.place
        os.makedirs(place, 0o700, exist_ok=True)
        for name in FIFOS:
            _unlink(f"{place}/{name}")
            os.mkfifo(f"{place}/{name}", 0o600)
        reading = os.O_RDONLY | os.O_NONBLOCK
        self.said, self.out, self.err = (os.open(f"{place}/{n}", reading) for n in FIFOS[2:])
        control = self._writing(self.order.control)
        os.write(control, os.fsencode(place) + b"\n")
        os.close(control)
        self.leash = self._writing(f"{place}/leash")
        start = self._writing(f"{place}/start")
        os.set_blocking(start, True)
        data = memoryview(self._script())
        while data:
            data = data[os.write(start, data) :]
        os.close(start)
        if self.asked:
            self.tell("TERM", "CONT")

    def _script(self) -> bytes:
        """Exports, each quoted for a shell, and what becomes the agent."""
        lines = [
            f"export {name}='" + value.replace("'", "'\"'\"'") + "'\n"
            for name, value in os.environ.items()
            if name not in self.order.leave and name.isidentifier() and name.isascii()
        ]
        return os.fsencode("".join(lines) + self.order.script)

    def _writing(self, path: str) -> int:
        """Open for writing what process 1 is to read, as soon as it does."""
        give_up = time.monotonic() + ANSWER_SEC
        while True:
            try:
                return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise LostError(f"{path}: {error.strerror}") from error
            pid, start = self.order.first
            if _start(pid) != start:
                raise LostError("its process 1 is gone")
            if time.monotonic() > give_up:
                raise LostError(f"its process 1 has not answered within {ANSWER_SEC:g} s")
            time.sleep(0.0005)

    # -- signals

    def _on_term(self, _number: int, _frame: object) -> None:
        """The first rung of the ladder reaches everything inside."""
        self.asked = True
        if self.leash >= 0:
            self.tell("TERM", "CONT")

    def tell(self, *names: str) -> None:
        """Have everything inside signalled; "" for having the ended collected."""
        try:
            os.write(self.leash, "".join(f"{name}\n" for name in names).encode())
        except OSError:
            pass  # process 1 is gone, and all with it

    # -- until the end

    def follow(self) -> None:
        """Move what is printed until the agent has ended, or process 1 is gone."""
        poller = select.poll()
        for fd in (self.said, self.out, self.err):
            poller.register(fd, select.POLLIN)
        collect_at = time.monotonic() + COLLECT_SEC
        while True:
            found = dict(poller.poll(max(1.0, (collect_at - time.monotonic()) * 1000)))
            for fd, target in ((self.out, 1), (self.err, 2)):
                if fd in found and not self._move(fd, target):
                    poller.unregister(fd)
            if self.said in found:
                data = os.read(self.said, 4096)
                self.words += data.decode("ascii", "replace").split()
                if not data or any(word.isdecimal() for word in self.words):
                    return
            if time.monotonic() >= collect_at:
                self.tell("")
                collect_at = time.monotonic() + COLLECT_SEC

    def _move(self, source: int, target: int) -> bool:
        """Move one piece; False at the end."""
        try:
            data = os.read(source, PIECE_BYTES)
        except BlockingIOError:
            return True
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(target, view) :]
        except OSError:
            pass  # nobody reads it any more
        return bool(data)

    def sweep(self) -> list[int]:
        """End what the agent has left: TERM, a moment, KILL until nothing is there. Who is left.

        What the shell itself has started is gone within milliseconds, and does not count."""
        begun = time.monotonic()
        before: set[int] = set()
        asked = False
        while left := living_below(*self.order.first):
            now = time.monotonic() - begun
            if now > POLITE_SEC + GIVE_UP_SEC:
                break
            if now < SETTLE_SEC:
                self.tell("")
            elif now > POLITE_SEC:
                self.tell("KILL")
            else:
                self.tell(*(("",) if asked else ("TERM", "CONT")))
                asked = True
            if now > SETTLE_SEC:
                self.swept |= before.intersection(left)
                before = set(left)
            self._drain()
            time.sleep(0.002)
        self._drain()
        return left

    def _drain(self) -> None:
        for fd, target in ((self.out, 1), (self.err, 2)):
            moved = 0
            while moved < 256 and select.select([fd], [], [], 0)[0] and self._move(fd, target):
                moved += 1

    def report(self, facts: Mapping[str, str | int]) -> None:
        """Leave what the exit status cannot tell, if there is anything."""
        if any(facts.values()):
            from codex_self_iter.world.process.bare import write_private

            write_private(self.order.report, facts)

    def remove(self) -> None:
        """Let go of process 1, which kills what there may be, and remove the FIFOs."""
        if self.leash >= 0:
            os.close(self.leash)
        for name in FIFOS:
            _unlink(f"{self.order.place}/{name}")
        try:
            os.rmdir(self.order.place)
        except OSError:
            pass


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _stat(pid: int) -> list[bytes]:
    """/proc/PID/stat behind the name, from the state on; [] if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.readall().rpartition(b")")[2].split()
    except OSError:
        return []


def _start(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb", buffering=0) as file:
            return [int(word) for word in file.readall().split()]
    except OSError:
        return []


def living_below(pid: int, start: int) -> list[int]:
    """Everything inside a container but its process 1, on which all of it hangs."""
    found: list[int] = []
    todo = _children(pid) if _start(pid) == start else []
    while todo:
        child = todo.pop()
        if _stat(child)[:1] not in ([], [b"Z"], [b"X"]):
            found.append(child)
        todo += _children(child)
    return found


def emptied(pid: int, start: int) -> bool:
    """Whether nothing is left inside beside process 1, soon after the end of a run."""
    give_up = time.monotonic() + GIVE_UP_SEC
    while living_below(pid, start):
        if time.monotonic() > give_up:
            return False
        time.sleep(0.005)
    return True


def end_as(words: Sequence[str]) -> NoReturn:
    """End with the code that a shell has said, or by the signal that it stands for."""
    code = next((int(word) for word in words if word.isdecimal()), 128 + signal.SIGKILL)
    number = code - 128
    if number in signal.valid_signals():
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        time.sleep(1.0)  # a signal that ends nobody by default
    os._exit(code & 255)


def main() -> NoReturn:
    """Run one order to its end."""
    run = Inside(Order(sys.argv[2:]))
    try:
        run.begin()
    except LostError as error:
        run.report({"error": str(error)})
        run.remove()
        os._exit(LOST)
    run.follow()
    left = run.sweep()
    missing = run.order.program if "missing" in run.words else ""
    run.report({"missing": missing, "swept": len(run.swept), "left": len(left)})
    run.remove()
    end_as(run.words)
