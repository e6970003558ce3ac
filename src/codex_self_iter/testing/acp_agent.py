"""A scripted agent that speaks the Agent Client Protocol, for tests of whatever drives one.

    python -m codex_self_iter.testing.acp_agent SCRIPT

SCRIPT is a JSON file. Its object may have

    version     the protocol version that it answers (default 1); null: it says nothing at all
    name        what it calls itself
    login       false: it opens no session ("auth required")
    modes       ids of the modes that it offers
    options     categories of what a client may choose, such as "model"
    steering    true: it takes a text into the running turn; steered: what it says of it then
    load        what it does with an old session: "load" (default), "refuse", or "none" (offers none)
    ids         the form in which the ids of requests come back: "text", "float"; as they came
    cancel      how a cancelled turn ends: "cancelled" (default), "error", or "never"
    deaf        true: it stays when its stdin is closed, and when it gets SIGTERM
    turns       a list of turns, each a list of steps; the last is repeated
    count       a file in which the turns are counted, over all processes that play this script
    log         a file to which every message that it gets is appended

and a step is one of

    {"say": TEXT, "id": ID}            a piece of a message
    {"think": TEXT}                    a piece of a thought
    {"tool": {…}, "ended": STATUS}     a tool call as in the protocol; ended: completed or failed
    {"ask": {…}, "options": [KIND…]}   asks for permission for a tool call
    {"want": METHOD}                   asks the client for something
    {"update": {…}}                    any `session/update`
    {"of": ID}                         the updates that follow are those of another session
    {"note": METHOD, "given": {…}}     any notification
    {"raw": TEXT}                      a line as it is
    {"fill": BYTES}                    a line of so many bytes
    {"write": PATH, "text": TEXT}      writes a file, as a tool of it would
    {"spawn": COMMAND}                 starts a command of the shell and leaves it
    {"sleep": SECONDS}                 until then, or until the turn is cancelled
    {"late": TEXT, "id": ID}          a piece of a message that comes after the turn's answer
    {"exit": CODE}
    {"end": REASON, …}                 answers the prompt; more keys go into the answer
    {"fail": {…}}                      answers it with an error
    {"silent": true}                   never answers it

Without one of the last three a turn ends with "end_turn" and a usage of 100 and 20 tokens."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import Any

Json = dict[str, Any]
_USAGE = {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120}


class _Agent:
    def __init__(self, script: Json) -> None:
        self.script = script
        self.incoming: queue.Queue[Json | None] = queue.Queue()
        self.cancelled = threading.Event()
        self.answers: dict[str, Json] = {}
        self.answered = threading.Condition()
        self.asked = 0
        self.turn = 0
        self.late: list[Json] = []
        self.session = f"s-{os.getpid()}"
        self.lock = threading.Lock()

    def send(self, message: Json) -> None:
        form = {"text": str, "float": float}.get(self.script.get("ids", ""))
        if form is not None and "method" not in message:
            message = {**message, "id": form(message["id"])}
        self.write(json.dumps({"jsonrpc": "2.0", **message}))

    def write(self, line: str) -> None:
        with self.lock:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def read(self) -> None:
        """Takes what comes, in a thread of its own: a cancel must be heard within a turn."""
        for line in sys.stdin:
            if self.script.get("log"):
                with open(self.script["log"], "a", encoding="utf-8") as log:
                    log.write(line)
            message: Json = json.loads(line)
            if message.get("method") == "session/cancel":
                self.cancelled.set()
            elif "method" not in message:
                with self.answered:
                    self.answers[str(message.get("id"))] = message
                    self.answered.notify_all()
            elif message["method"] == "_session/steering" and self.script.get("steering"):
                outcome = self.script.get("steered", "injected")
                self.send({"id": message["id"], "result": {"outcome": outcome}})
            else:
                self.incoming.put(message)
        if not self.script.get("deaf"):
            self.incoming.put(None)
            self.cancelled.set()

    def run(self) -> int:
        threading.Thread(target=self.read, daemon=True).start()
        while (message := self.incoming.get()) is not None:
            number, method = message.get("id"), str(message["method"])
            given = message.get("params") or {}
            if method == "session/prompt":
                self.prompt(number)
                continue
            result = self.result(method, given)
            if result is not None:
                key = "error" if "code" in result else "result"
                self.send({"id": number, key: result})
        return 0

    def result(self, method: str, given: Json) -> Json | None:
        script, load = self.script, self.script.get("load", "load")
        session: Json = {"modes": self.modes()} if script.get("modes") else {}
        session["configOptions"] = [
            {"id": f"the-{one}", "category": one} for one in script.get("options", [])
        ]
        match method:
            case "initialize" if script.get("version", 1) is None:
                return None
            case "initialize":
                return {
                    "protocolVersion": script.get("version", 1),
                    "agentInfo": {"name": script.get("name", "scripted"), "version": "1.2.3"},
                    "agentCapabilities": {"loadSession": load != "none"},
                    "_meta": {"steering": {"supported": bool(script.get("steering"))}},
                }
            case "session/new" if script.get("login") is False:
                return {"code": -32000, "message": "Authentication required"}
            case "session/new":
                return {"sessionId": self.session, **session}
            case "session/load" if load == "refuse":
                return {"code": -32002, "message": f"no such session: {given.get('sessionId')}"}
            case "session/load":
                self.session = str(given.get("sessionId"))
                return session
            case "session/set_mode" | "session/set_config_option":
                return session
            case _:
                return {"code": -32601, "message": f"Method not found: {method}"}

    def modes(self) -> Json:
        ids: list[str] = self.script["modes"]
        return {
            "currentModeId": ids[0],
            "availableModes": [{"id": one, "name": one} for one in ids],
        }

    def prompt(self, number: object) -> None:
        turns: list[list[Json]] = self.script.get("turns") or [[]]
        if os.path.exists(self.script.get("count", "")):
            self.turn = os.path.getsize(self.script["count"])
        steps = turns[min(self.turn, len(turns) - 1)]
        self.turn += 1
        if "count" in self.script:
            with open(self.script["count"], "a", encoding="utf-8") as count:
                count.write(".")
        self.cancelled.clear()
        self.late = []
        for step in (*steps, {"end": "end_turn", "usage": _USAGE}):
            if self.cancelled.is_set():
                step = self.stopped()
            if answer := self.step(step):
                if "silent" not in answer:
                    self.send({"id": number, **answer})
                for late in self.late:
                    time.sleep(0.1)
                    self.chunk("agent_message_chunk", late["late"], late.get("id"))
                return

    def stopped(self) -> Json:
        how = self.script.get("cancel", "cancelled")
        error = {"code": -32603, "message": "Request was aborted."}
        steps: dict[str, Json] = {"error": {"fail": error}, "never": {"silent": True}}
        return steps.get(how, {"end": "cancelled", "usage": _USAGE})

    def step(self, step: Json) -> Json | None:
        """Do one step; the answer to the prompt when it ends the turn."""
        match step:
            case {"say": text}:
                self.chunk("agent_message_chunk", text, step.get("id"))
            case {"think": text}:
                self.chunk("agent_thought_chunk", text)
            case {"tool": tool}:
                self.update({"sessionUpdate": "tool_call", **tool})
                if "ended" in step:
                    status = {"toolCallId": tool.get("toolCallId"), "status": step["ended"]}
                    self.update({"sessionUpdate": "tool_call_update", **status})
            case {"ask": tool}:
                kinds = step.get("options", ["allow_once", "allow_always", "reject_once"])
                options = [{"optionId": f"o-{kind}", "name": kind, "kind": kind} for kind in kinds]
                self.want("session/request_permission", {"toolCall": tool, "options": options})
            case {"want": method}:
                self.want(method, step.get("given", {}))
            case {"update": update}:
                self.update(update)
            case {"of": ident}:
                self.session = ident
            case {"note": method}:
                self.send({"method": method, "params": step.get("given", {})})
            case {"raw": text}:
                self.write(text)
            case {"fill": size}:
                self.chunk("agent_message_chunk", "x" * size)
            case {"write": path}:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(step.get("text", ""))
            case {"spawn": command}:
                nothing = subprocess.DEVNULL
                subprocess.Popen(["/bin/sh", "-c", command], stdin=nothing, stdout=nothing)
            case {"sleep": seconds}:
                self.cancelled.wait(seconds)
            case {"late": _}:
                self.late.append(step)
            case {"exit": code}:
                os._exit(code)
            case {"end": reason, **more}:
                return {"result": {"stopReason": reason, **more}}
            case {"fail": error}:
                return {"error": error}
            case {"silent": _}:
                return step
            case _:
                raise ValueError(f"no such step: {step}")
        return None

    def chunk(self, kind: str, text: str, ident: str | None = None) -> None:
        named = {} if ident is None else {"messageId": ident}
        self.update({"sessionUpdate": kind, "content": {"type": "text", "text": text}, **named})

    def update(self, update: Json) -> None:
        given = {"sessionId": self.session, "update": update}
        self.send({"method": "session/update", "params": given})

    def want(self, method: str, given: Json) -> None:
        """Ask the client, and await its answer; the turn goes on whatever that is."""
        self.asked += 1
        number = f"want-{self.asked}"
        self.send({"id": number, "method": method, "params": {"sessionId": self.session, **given}})
        with self.answered:
            self.answered.wait_for(lambda: number in self.answers, timeout=60)


def main() -> int:
    """Play the script."""
    with open(sys.argv[1], encoding="utf-8") as file:
        script: Json = json.load(file)
    if script.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = _Agent(script).run()
    while script.get("deaf"):
        time.sleep(60)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
