"""One run: start the agent, ask, take what it says, steer, end it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace

from codex_self_iter.acp_host import control
from codex_self_iter.acp_host.control import Order
from codex_self_iter.acp_host.permissions import Rules, choose, outcome
from codex_self_iter.acp_host.said import Said, name_of
from codex_self_iter.acp_host.session import AUTH, Session
from codex_self_iter.acp_host.usage import Spending
from codex_self_iter.acp_host.wire import (
    SIGNALS,
    FailedError,
    GoneError,
    RefusalError,
    SignalledError,
    Wire,
)
from codex_self_iter.core.foreign import as_dict, as_text, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

QUIET_SEC = 5.0
"""For the agent's own end when its turn is over: the slowest measured took 2.4 s."""
LATE_SEC = 0.5
"""A turn that was answered is over when nothing comes for so long: opencode may send the end of its
last message after the answer (anomalyco/opencode#17505)."""
LATEST_SEC = 5.0
MOST_REFUSALS = 10
"""So often is an agent that ends its turn for a refusal asked to go on."""
_GO_ON = "This was refused, and stays so: {what}. Go on without it, and end as you were asked to."
_INJECTED = "injected"
"""The answer of an agent that gives the text to its running turn."""
_DATA_CHARS = 4000
_ODD_LINES = 20
"""So many lines that are no message of the protocol are told."""


class Run:
    """One run of one agent."""

    def __init__(self, options: Namespace, prompt: str) -> None:
        self.options, self.prompt = options, prompt
        places = (options.cwd, *options.writable)
        self.rules = Rules(
            bypass=options.mode == "bypass",
            read_only=options.read_only,
            places=tuple(map(os.path.realpath, places)),
            real=lambda path: _real(options.cwd, path),
        )
        self.agent: subprocess.Popen[bytes] | None = None
        self.asking = 0
        """The number of the prompt that is being worked on; 0: none is."""
        self.in_turn = False
        """What the agent says belongs to a turn."""
        self.heard = 0
        """So many notifications have come."""
        self.spoken = False
        """One has come under the name of our session."""
        self.taken: set[str] = set()
        """The orders that were taken, by their ids."""
        self.next: Order | None = None
        """The turn was cancelled for this: the session goes on with it."""
        self.offered: dict[int, Order] = {}
        """Texts given to the running turn whose taking is not confirmed, by their requests."""
        self.refused: list[str] = []
        """What was refused in this turn."""
        self.odd = 0
        self.odd_line = ""

    def run(self) -> int:
        """All of it; the exit code: 0 for an answer, 1 for a failure, 127 without a program, 128
        and the number of the signal that ended it."""
        code = 1
        try:
            self._start()
            if not self.options.probe:
                self._turns()
            code = 0
        except FailedError as failure:
            self._failed(failure)
            code = 127 if failure.fields["code"] == "acp_spawn" else 1
        except GoneError:
            how = self._how_it_ended()
            if self.session.met:
                self._failed(FailedError(f"{how} before its turn had ended", code="gone"))
            else:
                self._failed(FailedError(f"it is no ACP agent: {how}", code="no_acp"))
        except SignalledError as asked:
            code = 128 + asked.number
        finally:  # whatever goes wrong here, the agent is ended
            self._end(answered=code == 0)
        return code

    def emit(self, kind: str, /, **fields: object) -> None:
        """Write one event."""
        line = json.dumps({"type": f"acp.{kind}", **fields}, ensure_ascii=False)
        data = line.encode("utf-8", "replace") + b"\n"
        with contextlib.suppress(OSError):  # nobody reads it any more; the end comes by signal
            while data:
                data = data[os.write(sys.stdout.fileno(), data) :]

    def _failed(self, failure: FailedError) -> None:
        if self.agent is not None:
            self.said.flush()
        fields = dict(failure.fields)
        words = encode(fields.pop("data", None)) or ""
        text = str(failure)
        if fields["code"] == "no_acp":
            text += f"; it was started as: {' '.join(self.options.command)[:300]}"
            text += f"; it said: {self.odd_line}" if self.odd_line else ""
        self.emit("failed", message=text, data=words[:_DATA_CHARS], **fields)

    def _start(self) -> None:
        command = self.options.command
        early: list[int] = []  # from before anybody listens: the agent must not be left behind
        for number in SIGNALS:
            signal.signal(number, lambda got, _frame: early.append(got))
        try:
            # A group of its own: the supervisor's signal is to reach us alone, so that the turn is
            # cancelled before anything dies. That of a probe ends everything at once.
            agent = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                cwd=self.options.cwd,
                process_group=None if self.options.probe else 0,
            )
        except OSError as error:
            what = f"{command[0]} cannot be started: {error.strerror or error}"
            raise FailedError(what, code="acp_spawn") from None
        assert agent.stdin is not None
        assert agent.stdout is not None
        with agent.stdin as stdin, agent.stdout as stdout:
            self.wire = Wire(os.dup(stdin.fileno()), os.dup(stdout.fileno()))
        self.agent = agent
        if early:
            raise SignalledError(early[0])
        self.wire.asked, self.wire.told, self.wire.odd = self._asked, self._told, self._strange
        self.session = Session(self.options, self.wire, self.emit)
        self.said = Said(self.emit, ())
        self.session.open()
        row = self.session.row
        self.said = Said(self.emit, row.asides)
        self.spending = Spending(row.counts, self.options.before)

    # --- turns

    def _turns(self) -> None:
        """The prompt, and what is given to the run meanwhile, until a turn ends by itself."""
        text = self.prompt
        if early := self._order():
            text = f"{text}\n\n{early.steer}"
            self.emit("control", id=early.ident, ok=True, how="the prompt has it")
        patience = MOST_REFUSALS
        while True:
            answer = self._turn(text)
            order, self.next = self.next, None
            if order is not None:
                self.emit("control", id=order.ident, ok=True, how="the turn began anew with it")
                text = order.steer
            elif patience and self._stopped_for_refusal(answer):
                patience -= 1
                text = _GO_ON.format(what="; ".join(self.refused))
            else:
                break
        for order in self.offered.values():
            self.emit("control", id=order.ident, ok=False, how="the turn was over")
        reason = as_text(answer.get("stopReason"))
        if reason != "end_turn":
            raise FailedError(
                f"the turn ended with {reason or 'no reason'}", code=reason or "no_reason"
            )
        if self.session.row.usage_proves and not self.spending.told:
            words = self.said.last or "the turn ended without a call of its model"
            raise FailedError(words, code="no_model_call")
        if self.wire.dropped and not self.said.last:
            raise FailedError(f"no answer, and {self.wire.dropped}", code="too_long")
        self.emit("done", reason=reason)

    def _stopped_for_refusal(self, answer: Json) -> bool:
        """Most agents stop at a refusal, for a word of the person (not claude, gemini and vibe)."""
        ended = answer.get("stopReason") in ("end_turn", "cancelled")
        return ended and bool(self.refused) and not self.said.last

    def _turn(self, text: str) -> Json:
        self.said.last, self.refused, self.in_turn = "", [], True
        self.emit("turn")
        prompt = [{"type": "text", "text": text}]
        self.asking = self.wire.ask("session/prompt", sessionId=self.session.ident, prompt=prompt)
        while (answer := self._answer()) is None:
            self._look()
            self.wire.pump(control.LOOK_SEC)
        self._settle()
        self.said.flush()
        self.in_turn = False
        return answer

    def _settle(self) -> None:
        """Take what comes after the answer."""
        now = time.monotonic()
        quiet, end = now + LATE_SEC, now + LATEST_SEC
        with contextlib.suppress(GoneError):
            while (now := time.monotonic()) < min(quiet, end):
                before = self.heard
                self.wire.pump(quiet - now)
                if self.heard != before:
                    quiet = time.monotonic() + LATE_SEC

    def _answer(self) -> Json | None:
        """The answer to the prompt, when there is one."""
        try:
            answer = self.wire.answer_to(self.asking)
        except RefusalError as error:
            self.asking = 0
            if self.next is None:
                code = "auth_required" if error.code == AUTH else error.code
                raise FailedError(error.message, code=code, data=error.data) from None
            answer = {"stopReason": "cancelled"}  # qwen's way to say so while its server is silent
        if answer is not None:
            self.asking = 0
            self.spending.answer(answer)
            self._tell_spent()
        return answer

    def _tell_spent(self) -> None:
        tokens, cost = self.spending.tokens, self.spending.cost_usd
        if tokens is not None or cost is not None:
            into, cached, out = tokens or (0, 0, 0)
            self.emit("usage", input=into, cached=cached, output=out, cost_usd=cost)

    # --- what the agent says and asks

    def _told(self, method: str, given: Json) -> None:
        update = as_dict(given.get("update"))
        if method == "_session/retrying":
            self.emit("retry", text=as_text(given.get("category")) or "the model's server")
        self.heard += 1
        ours = given.get("sessionId") == self.session.ident
        self.spoken = self.spoken or ours
        if method != "session/update" or not self.in_turn:
            return  # what comes before the prompt is no answer
        if self.spoken and not ours and update.get("sessionUpdate") == "agent_message_chunk":
            update["sessionUpdate"] = "agent_thought_chunk"  # said by an agent of its own
        error = as_dict(as_dict(as_dict(update.get("_meta")).get("codex")).get("error"))
        if error.get("willRetry") is True:
            self.emit("retry", text=as_text(error.get("message")) or "the model's server")
        self.said.update(update, time.monotonic())
        before = self.spending.tokens
        self.spending.update(update)
        if self.spending.tokens != before:
            self._tell_spent()

    def _asked(self, method: str, given: Json) -> Json | None:
        if method != "session/request_permission":
            self.emit("note", text=f"it asks for {method[:200]}, which is not offered")
            return None
        call = self.said.permission(as_dict(given.get("toolCall")))
        why = self.rules.refusal(call)
        options = given.get("options")
        if not why and not choose(options, allow=True):
            why = "it offers no permission for this once"
        answer = outcome(options, allow=not why)
        if why:
            self.refused.append(f"{name_of(call)}: {why}")
            self.emit("refused", text=self.refused[-1])
            self.said.flush()
            self.said.last = ""  # what it said before is no answer
        return answer

    def _strange(self, text: str) -> None:
        """A line that is no message of the protocol."""
        self.odd += 1
        self.odd_line = self.odd_line or text[:300]
        if self.odd <= _ODD_LINES:
            self.emit("note", text=f"no message of the protocol: {text[:300]}")

    # --- what the supervisor wants

    def _look(self) -> None:
        """See to the control file, and to the answers to what it brought."""
        for number, offered in list(self.offered.items()):
            try:
                answer = self.wire.answer_to(number)
            except RefusalError:
                answer = {"outcome": "refused"}
            if answer is None:
                continue
            del self.offered[number]
            if answer.get("outcome", _INJECTED) == _INJECTED:
                self.emit("control", id=offered.ident, ok=True, how="the running turn has it")
            else:
                self._begin_anew(offered)
        order = self._order()
        if order is None:
            return
        if self.session.steers and self.next is None:
            prompt = [{"type": "text", "text": order.steer}]
            ident = self.session.ident
            number = self.wire.ask("_session/steering", sessionId=ident, prompt=prompt)
            self.offered[number] = order
        else:
            self._begin_anew(order)

    def _order(self) -> Order | None:
        """A text that has come for the turn, or None. Raises SignalledError when it is to end."""
        order = control.take(self.options.control) if self.options.control else None
        if order is not None and order.flaw:
            self.emit("control", id=order.ident, ok=False, how=order.flaw)
            return None
        if order is not None and order.cancel:
            self.emit("control", id=order.ident, ok=True, how="cancelled")
            raise SignalledError(signal.SIGINT)
        if order is not None and order.ident in self.taken:
            return None  # by a supervisor that was killed before it heard so
        if order is not None and order.ident:
            self.taken.add(order.ident)
        return order

    def _begin_anew(self, order: Order) -> None:
        """Cancel the turn: the session remembers it, and goes on with the text, or with all of them."""
        if self.next is None:
            self.next = order
            self.wire.tell("session/cancel", sessionId=self.session.ident)
        else:
            self.next = order._replace(steer=f"{self.next.steer}\n\n{order.steer}")

    # --- the end

    def _end(self, *, answered: bool) -> None:
        """End the agent: cancel its turn, close its stdin, TERM, KILL.

        Closing its stdin ends more of its tools than TERM does. All of it takes 0.7 of the grace."""
        agent, grace = self.agent, self.options.grace
        if agent is None:
            return
        try:
            if self.asking:
                self._cancel(0.3 * grace)
            self.wire.hang_up()
            self._wait(QUIET_SEC if answered else 0.3 * grace)
            self._signal(signal.SIGTERM)
            self._wait(0.1 * grace)
        except SignalledError:  # somebody is in a hurry
            pass
        self._signal(signal.SIGKILL)
        agent.wait()

    def _cancel(self, patience_sec: float) -> None:
        self.wire.tell("session/cancel", sessionId=self.session.ident)
        end = time.monotonic() + patience_sec
        with contextlib.suppress(FailedError, GoneError):
            while self._answer() is None and (left := end - time.monotonic()) > 0:
                self.wire.pump(left)
        self.said.flush()

    def _wait(self, patience_sec: float) -> None:
        """Read on until the agent has ended: a tool of it may hold its stdout open."""
        assert self.agent is not None
        end = time.monotonic() + patience_sec
        while self.agent.poll() is None and (left := end - time.monotonic()) > 0:
            if self.wire.closed:
                time.sleep(0.02)
            else:
                with contextlib.suppress(GoneError):
                    self.wire.pump(min(left, 0.1))

    def _signal(self, number: int) -> None:
        """Signal the agent's group, if the agent is still there: it is not reaped before."""
        assert self.agent is not None
        if self.agent.poll() is None:
            with contextlib.suppress(OSError):  # it may have left its group
                os.killpg(self.agent.pid, number)
            self.agent.send_signal(number)

    def _how_it_ended(self) -> str:
        """The agent's end in words, for one that closed its stdout."""
        assert self.agent is not None
        self.wire.hang_up()
        self._wait(2.0)
        code = self.agent.poll()
        if code is None:
            return "it closed its stdout, and went on,"
        return f"it was ended by signal {-code}" if code < 0 else f"it exited with code {code}"


def _real(workspace: str, path: str) -> str:
    """The real path that one of an agent's leads to; "" where that is not known: what `~`, an
    address or a place in /proc stands for is another process's to say."""
    whole = os.path.normpath(os.path.join(workspace, path))
    if path.startswith("~") or "://" in path or whole.lstrip("/").startswith("proc/"):
        return ""
    try:
        return os.path.realpath(os.path.join(workspace, path))
    except ValueError:  # a NUL character
        return ""
