"""JSON-RPC on stdin and stdout, one message a line; nothing else is ever written to stdout.

The main thread reads, and answers what needs no work. Each call of a tool has a thread, so that a
slow one keeps no ping waiting. It ends with its stdin, with whoever read its stdout, and by a
signal."""

from __future__ import annotations

import json
import os
import select
import signal
import threading
from collections.abc import Iterator
from typing import Any

from codex_self_iter import __version__
from codex_self_iter.mcp.offers import ROOM, TOOLS, Tool, UnfitError, compact, fitted
from codex_self_iter.world.bounded import ShortCommand, ToolResult
from codex_self_iter.world.installed import program

Message = dict[str, Any]
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
STRUCTURED_SINCE = "2025-06-18"
MAX_LINE = 4 * 1024 * 1024
MAX_BATCH = 50
AT_ONCE, WAITING = 4, 64
"""Commands that run at the same time; calls that may be open."""
MAX_OUTPUT = 32 * 1024 * 1024
PARSE, INVALID, NO_METHOD, PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
ABOUT = """Loops of codex-self-iter: each keeps a coding agent working in one workspace, one iteration after
another, until its gates prove that the work is complete. `loops` lists them, `status` says what one does and why it waits,
`history`, `show` and `diff` what it did."""
CONTROL = """ `steer`, `goal`, `pause`, `resume` and `stop_after_iteration` change a loop: ask the
person first."""
INSIDE = """this server was started inside a run of codex-self-iter, and an agent must not change the loop that runs it, or
another; reading works. What the person should do belongs into the answer of the run"""
WHICH = "\n(no workspace was given: the server's working directory is meant; `loops` lists all)"


class _RefusedError(Exception):
    """A request that gets an error: its code, and why."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class _Ended(BaseException):
    """A signal came."""


class _Command(ShortCommand):
    """A command of ours: at Ctrl-C it ends what it has started itself, such as git."""

    ended_by = signal.SIGINT
    grace_sec = 2.0


class _Call:
    """A call of a tool that waits for its turn, or is on."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.cancelled = False
        self._command: ShortCommand | None = None

    def cancel(self) -> None:
        self.cancelled = True
        if self._command:
            self._command.cancelled = True

    def run(self, argv: list[str], stdin: bytes, limit_sec: float, most: int) -> ToolResult:
        """Run a command, unless it is cancelled. Raises OSError."""
        self._command = _Command(argv, None, None, limit_sec, most, stdin)
        self._command.cancelled = self.cancelled
        return self._command.run()


class Server:
    """One client."""

    def __init__(self, which: list[str], *, control: bool, limit_sec: float) -> None:
        """`which`: the options of the commands for the loop that no argument names."""
        self.which, self.limit_sec = which, limit_sec
        self.control = control
        self.inside = control and _inside()
        self.revision = REVISIONS[-1]
        self._calls: list[_Call] = []
        self._threads: list[threading.Thread] = []
        self._room = threading.Semaphore(AT_ONCE)
        self._writing = threading.Lock()
        self._flaw: OSError | None = None

    def serve(self) -> int:
        """Until the end; returns the exit code. Raises OSError when stdout cannot be written."""
        self._out = os.dup(1)
        os.dup2(2, 1)  # what anything else prints must not be taken for a message
        try:
            _listen(_end)
            for line in lines(0, self._out):
                self._take(line)
                if self._flaw:
                    break
            while (busy := self._busy()) and _is_read(self._out):
                busy[0].join(0.1)
        except _Ended as end:
            return 130 if end.args == (signal.SIGINT,) else 0
        finally:
            _listen(signal.SIG_IGN)  # it ends already
            for call in list(self._calls):
                call.cancel()
            for thread in self._threads:
                thread.join(_Command.grace_sec + 1)
        if self._flaw and not isinstance(self._flaw, BrokenPipeError):
            raise self._flaw
        return 0

    # --- messages ---

    def _take(self, line: bytes | None) -> None:
        if line is not None and not line.strip():
            return
        try:
            message = _decode(line)
        except _RefusedError as flaw:
            self._send(_error(None, flaw))
            return
        batch = message if isinstance(message, list) else [message]
        calls = [_Call(one) for one in batch if _is_call(one)]
        if not calls:
            self._reply(message)
            return
        self._calls += calls  # at once: the next line may cancel one
        self._threads = self._busy()
        try:
            if len(self._threads) >= WAITING:
                raise RuntimeError(f"{WAITING} calls are open: wait for their answers")
            thread = threading.Thread(target=self._work, args=(message, calls), daemon=True)
            thread.start()
        except RuntimeError as error:  # or the system gives no thread
            self._forget(calls)
            for one in batch:
                self._send(_error(_ident(one), _RefusedError(INTERNAL, str(error))))
        else:
            self._threads.append(thread)

    def _work(self, message: Any, calls: list[_Call]) -> None:
        self._reply(message)
        self._forget(calls)

    def _forget(self, calls: list[_Call]) -> None:
        for call in calls:
            self._calls.remove(call)

    def _busy(self) -> list[threading.Thread]:
        return [thread for thread in self._threads if thread.is_alive()]

    def _reply(self, message: Any) -> None:
        answer: object
        if not isinstance(message, list):
            answer = self._answer(message)
        elif 0 < len(message) <= MAX_BATCH:
            answer = [one for one in map(self._answer, message) if one is not None] or None
        else:
            answer = _error(None, _RefusedError(INVALID, f"a batch has 1 to {MAX_BATCH} messages"))
        if answer is not None:
            self._send(answer)

    def _answer(self, message: Any) -> Message | None:
        """The answer to one message; None for what gets none."""
        ident = _ident(message)
        try:
            method = _method(message)
            if not method:
                return None
            params = message.get("params") or {}
            if "id" not in message:
                self._hear(method, params)
                return None
            if not isinstance(params, dict):
                raise _RefusedError(PARAMS, "params must be an object")
            result = self._result(message, method, params)
            return None if result is None else {"jsonrpc": "2.0", "id": ident, "result": result}
        except _RefusedError as flaw:
            return _error(ident, flaw)
        except Exception as error:  # a defect ends one answer, not the server
            from codex_self_iter.world import crashlog

            where = crashlog.write(error, ["mcp"])
            why = f"internal error: {type(error).__name__}; the traceback is in {where or 'stderr'}"
            return _error(ident, _RefusedError(INTERNAL, why))

    def _hear(self, method: str, params: Any) -> None:
        if method == "notifications/cancelled" and isinstance(params, dict):
            for call in list(self._calls):
                if _ident(call.message) == params.get("requestId"):
                    call.cancel()

    def _result(self, message: Message, method: str, params: Message) -> Message | None:
        if method == "initialize":
            return self._initialize(params)
        if method == "ping":
            return {}
        if method == "tools/list":
            return {"tools": [tool.listed() for tool in TOOLS if self.control or not tool.control]}
        if method == "tools/call":
            return self._call(message, params)
        raise _RefusedError(NO_METHOD, f"there is no method {method[:80]!r}")

    def _initialize(self, params: Message) -> Message:
        wanted = params.get("protocolVersion")
        if not isinstance(wanted, str):
            raise _RefusedError(PARAMS, "protocolVersion is missing")
        self.revision = wanted if wanted in REVISIONS else REVISIONS[-1]
        return {
            "protocolVersion": self.revision,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "codex-self-iter", "version": __version__},
            "instructions": " ".join((ABOUT + CONTROL * self.control).split()),
        }

    # --- calls ---

    def _call(self, message: Message, params: Message) -> Message | None:
        """What a tool says; None when the call was cancelled. Raises _RefusedError."""
        tool = self._tool(params.get("name"))
        call = next(one for one in self._calls if one.message is message)
        with self._room:
            value, wrong = self._value(tool, call, params.get("arguments"))
        if call.cancelled:
            return None
        text = value["error"] if wrong else value.get("diff") or value.get("done") or compact(value)
        if "cut" in value and text != compact(value):
            text += f"\n({value['cut']})"
        result: Message = {"content": [{"type": "text", "text": text}], "isError": wrong}
        if self.revision >= STRUCTURED_SINCE and not wrong:
            result["structuredContent"] = value
        return result

    def _tool(self, name: object) -> Tool:
        found = next((tool for tool in TOOLS if tool.name == name), None)
        if found is None:
            raise _RefusedError(PARAMS, f"unknown tool: {str(name)[:80]!r}")
        if found.control and not self.control:
            why = (
                f"{name} is offered only by `codex-self-iter mcp --control`: this server only reads"
            )
            raise _RefusedError(PARAMS, why)
        return found

    def _value(self, tool: Tool, call: _Call, arguments: object) -> tuple[Message, bool]:
        """(what it says, whether that is an error)."""
        if call.cancelled:
            return {}, False
        if tool.control and self.inside:
            return {"error": " ".join(INSIDE.split())}, True
        try:
            given = tool.check(arguments)
        except UnfitError as flaw:
            return {"error": f"{tool.name}: {flaw}"}, True
        argv = [*program("codex_self_iter"), *tool.command(given, self.which)]
        most = 4 * ROOM if tool.name == "diff" else MAX_OUTPUT
        try:
            done = call.run(argv, given.get(tool.stdin, "").encode(), self.limit_sec, most)
        except OSError as error:
            return {"error": f"cannot start the command: {error.strerror}"}, True
        if done.timed_out:
            return {"error": f"it took longer than {self.limit_sec:g} s and was ended"}, True
        text, said = (part.decode("utf-8", "replace") for part in (done.stdout, done.stderr))
        from codex_self_iter.world.state.redact import Redactor  # imports much

        redactor = Redactor.from_environment(os.environ)
        if done.exit_code != 0:
            said = said.strip().removeprefix("codex-self-iter: ") or f"exit code {done.exit_code}"
            which = "" if given.get("workspace") or self.which else WHICH
            return {"error": redactor.text(said)[:ROOM] + which}, True
        value: Message = redactor.value(tool.shape(text))
        if done.truncated:
            value["cut"] = "there is more; `stat` lists all files"
        return fitted(value), False

    # --- writing ---

    def _send(self, message: object) -> None:
        """ASCII alone: some clients take U+2028 and its like for the end of a line."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._writing:
            while data and not self._flaw:
                try:
                    data = data[os.write(self._out, data) :]
                except BlockingIOError:  # the client made it so, for itself
                    select.select((), (self._out,), ())
                except OSError as error:
                    self._flaw = error


def _inside() -> bool:
    from codex_self_iter.world.process.around import inside_a_run  # imports psutil

    return inside_a_run()


def _listen(handler: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, handler)


def _end(number: int, _frame: object) -> None:
    _listen(signal.SIG_IGN)
    raise _Ended(number)


# --- reading --------------------------------------------------------------------------------------


def lines(source: int, sink: int) -> Iterator[bytes | None]:
    """The lines of `source` until it ends or nobody reads `sink`; None for one that is too long."""
    poller = select.poll()
    poller.register(source, select.POLLIN)
    poller.register(sink, 0)
    held, dropping = b"", False
    while all(found != sink for found, _ in poller.poll()):
        try:
            data = os.read(source, 256 * 1024)
        except BlockingIOError:
            continue
        except OSError:  # a terminal that is gone
            data = b""
        if not data:
            break
        *whole, rest = data.split(b"\n")
        for part in whole:
            yield None if dropping else held + part
            held, dropping = b"", False
        held += rest
        if len(held) > MAX_LINE:
            held, dropping = b"", True
    if held:
        yield held


def _is_read(sink: int) -> bool:
    poller = select.poll()
    poller.register(sink, 0)
    return not poller.poll(0)


def _decode(line: bytes | None) -> Any:
    """A message, or a list of some. Raises _RefusedError."""
    if line is None:
        raise _RefusedError(INVALID, f"a message may have {MAX_LINE >> 20} MiB")
    try:
        return json.loads(line.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _RefusedError(PARSE, "this line is not JSON") from None


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _is_call(message: Any) -> bool:
    return isinstance(message, dict) and message.get("method") == "tools/call"


def _ident(message: Any) -> str | int | None:
    """The id, if it is one."""
    ident = message.get("id") if isinstance(message, dict) else None
    return ident if isinstance(ident, str | int) and not isinstance(ident, bool) else None


def _method(message: Any) -> str:
    """The method; "" for an answer, which we have asked for nothing. Raises _RefusedError."""
    if not isinstance(message, dict):
        raise _RefusedError(INVALID, "a message is an object")
    method = message.get("method")
    if method is None and ("result" in message or "error" in message):
        return ""
    if message.get("jsonrpc") != "2.0" or not isinstance(method, str):
        raise _RefusedError(INVALID, 'a request has "jsonrpc": "2.0" and a method')
    if "id" in message and _ident(message) is None:
        raise _RefusedError(INVALID, "an id is a text or a whole number")
    return method


def _error(ident: object, flaw: _RefusedError) -> Message:
    return {"jsonrpc": "2.0", "id": ident, "error": {"code": flaw.code, "message": str(flaw)}}
