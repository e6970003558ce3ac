"""A local stand-in for the model APIs, for runs of the real agent CLIs on loopback.

It speaks, streaming, OpenAI Responses (`/responses`), OpenAI chat (`/chat/completions`), Anthropic
Messages (`/messages`) and Gemini (`:streamGenerateContent`). What it says is scripted: each request
of an agent's main conversation takes the next step; the last step is repeated. Requests without
tools (titles, summaries) are auxiliary and take none.

    with ModelServer([shell("echo hi > a.txt"), answer({"summary": "done"})]) as server:
        run_codex(base_url=server.url + "/v1")

As a program, for tests of whole processes:

    python tests/model_server.py --script FILE [--port N] [--port-file FILE]

FILE holds a JSON list of steps: {"say": TEXT}, {"answer": OBJECT}, {"shell": COMMAND},
{"write": {"path": P, "text": T}}, {"fault": NAME, …}. Standard library only."""

from __future__ import annotations

import argparse
import dataclasses
import http.server
import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Json = dict[str, Any]
FAULTS = (
    "status", "usage_limit", "rate_limit", "quota", "server_error", "overloaded", "unauthorized",
    "no_model",
    "context", "stall", "silent", "drop", "reset", "garbage", "drip", "empty",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Step:
    """One answer of the model: `kind` is "say", "shell", "write", "call" or "fault"."""

    kind: str
    text: str = ""
    path: str = ""
    fault: str = ""
    options: Json = dataclasses.field(default_factory=dict)
    tokens: tuple[int, int, int] = (100, 40, 20)
    """Input (cached included), cached input and output tokens of this call."""


def say(text: str, **more: Any) -> Step:
    """A final message."""
    return Step("say", text, **more)


def answer(value: Json, **more: Any) -> Step:
    """A final message that is JSON."""
    return Step("say", json.dumps(value), **more)


def shell(command: str, **more: Any) -> Step:
    """A call of the shell tool."""
    return Step("shell", command, **more)


def call(tool: str, **given: Any) -> Step:
    """A call of a tool by its own name (not for codex)."""
    return Step("call", tool, options=given)


def write(path: str, text: str, **more: Any) -> Step:
    """A call of the tool that writes a new file (absolute path)."""
    return Step("write", text, path, **more)


def fault(name: str, **options: Any) -> Step:
    """A fault: one of FAULTS."""
    assert name in FAULTS, name
    return Step("fault", fault=name, options=options)


@dataclasses.dataclass(frozen=True)
class Ask:
    """A request as it came."""

    api: str
    path: str
    headers: dict[str, str]
    body: Json
    auxiliary: bool


Script = Sequence[Step] | Callable[[Ask], Step]


class ModelServer:
    """The server; a context manager. `asks` lists every model request so far."""

    def __init__(
        self, script: Script, *, host: str = "127.0.0.1", port: int = 0, tools: bool = True
    ) -> None:
        """`tools`: the agent offers tools in its main conversation, as all but aider do."""
        self.script, self.tools = script, tools
        self.asks: list[Ask] = []
        self.other: list[str] = []
        self.closing = threading.Event()
        self._taken = 0
        self._lock = threading.Lock()
        self._http = _Server((host, port), _Handler)
        self._http.model = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def main_asks(self) -> list[Ask]:
        return [ask for ask in self.asks if not ask.auxiliary]

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join(10)
        self._http.server_close()

    def step(self, ask: Ask) -> Step:
        with self._lock:
            self.asks.append(ask)
            if ask.auxiliary and self.tools:
                return say("A title")
            if callable(self.script):
                return self.script(ask)
            self._taken += 1
            return self.script[min(self._taken, len(self.script)) - 1]


_ASIDES = ("managed memory extraction subagent", "Reply with ONLY the suggestion")
"""Words of requests with tools that qwen makes beside its conversation."""


def _aside(body: Json) -> bool:
    messages = body.get("messages") or [{}]
    ends = json.dumps([messages[0], messages[-1]])
    return any(words in ends for words in _ASIDES)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    model: ModelServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        kind = sys.exc_info()[0]
        if kind is not None and not issubclass(kind, OSError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self._reply(200, b"")

    def do_GET(self) -> None:
        self.server.model.other.append(f"GET {self.path}")
        if "upgrade" in (self.headers.get("Connection") or "").lower():
            self._reply(426, b"{}")
            return
        self._reply(
            200 if self.path.rstrip("/").endswith("models") else 404, b'{"data":[],"models":[]}'
        )

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            body = {}
        api = _api_of(self.path)
        if "count_tokens" in self.path or "countTokens" in self.path:
            self._reply(200, b'{"input_tokens":100,"totalTokens":100}')
        elif api is None:
            self.server.model.other.append(f"POST {self.path}")
            self._reply(404, b'{"error":{"message":"no such thing"}}')
        else:
            ask = Ask(
                api,
                self.path,
                {k.lower(): v for k, v in self.headers.items()},
                body,
                not body.get("tools") or _aside(body),
            )
            self._answer(ask, self.server.model.step(ask))

    def _answer(self, ask: Ask, step: Step) -> None:
        if step.kind == "fault":
            self._fault(ask, step)
        elif ask.api == "messages" and not ask.body.get("stream"):
            self._reply(200, json.dumps(_message(ask, step)).encode())
        else:
            self._stream(_ENCODERS[ask.api](ask, step))

    def _fault(self, ask: Ask, step: Step) -> None:
        whole = list(_ENCODERS[ask.api](ask, say("never sent in full")))
        match step.fault:
            case "silent":
                self.server.model.closing.wait(step.options.get("seconds", 3600))
                self.close_connection = True
            case "stall":
                self._stream(whole[:1], end=False)
                self.server.model.closing.wait(step.options.get("seconds", 3600))
            case "drop":
                self._stream(whole[: max(1, len(whole) // 2)], end=False)
            case "reset":
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.close_connection = True
                self.connection.close()
            case "garbage":
                self._stream([b'data: {"type": \xff\xfe not json\n\n', b"\x00\x01\x02\n\n"])
            case "empty":
                self._stream([])
            case "drip":
                text = b"".join(_ENCODERS[ask.api](ask, say(step.options.get("text", "slow"))))
                pause = step.options.get("seconds", 2.0) / len(text)
                self._stream((text[i : i + 1] for i in range(len(text))), pause=pause)
            case _:
                self._status(ask, step)

    def _status(self, ask: Ask, step: Step) -> None:
        status, body, headers = _refusal(ask.api, step)
        self._reply(status, json.dumps(body).encode(), headers | step.options.get("headers", {}))

    def _reply(self, status: int, body: bytes, headers: Json | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self, chunks: Any, *, end: bool = True, pause: float = 0.0) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            if self.server.model.closing.is_set():
                break
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
            if pause:
                time.sleep(pause)
        if end:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True


def _api_of(path: str) -> str | None:
    plain = path.split("?")[0]
    for ending, api in (
        ("/responses", "responses"),
        ("/chat/completions", "chat"),
        ("/messages", "messages"),
        ("GenerateContent", "gemini"),
        (":generateContent", "gemini"),
    ):
        if plain.endswith(ending):
            return api
    return None


def _event(value: Json, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value)}\n\n".encode()


def _responses(ask: Ask, step: Step) -> Iterator[bytes]:
    ident = os.urandom(6).hex()
    tokens, cached, output = step.tokens
    usage = {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens + output,
    }
    names = {tool.get("name") for tool in ask.body.get("tools", [])}
    item: Json
    if step.kind == "write" and "apply_patch" in names:
        lines = "".join(f"+{line}\n" for line in step.text.splitlines())
        patch = f"*** Begin Patch\n*** Add File: {step.path}\n{lines}*** End Patch\n"
        item = {
            "type": "custom_tool_call",
            "call_id": f"call_{ident}",
            "name": "apply_patch",
            "input": patch,
        }
    elif step.kind == "call":
        item = {
            "type": "function_call",
            "id": f"fc_{ident}",
            "call_id": f"call_{ident}",
            "name": step.text,
            "arguments": json.dumps(step.options),
        } | ({"namespace": step.path} if step.path else {})
    elif step.kind in ("shell", "write"):
        command = (
            step.text if step.kind == "shell" else f"cat > '{step.path}' <<'EOF'\n{step.text}\nEOF"
        )
        arguments: Json = {"cmd": command, "yield_time_ms": 30000}
        name = "exec_command"
        if name not in names:
            name, arguments = (
                ("bash", {"command": command, "description": "run"})
                if "bash" in names
                else ("shell", arguments)
            )
        item = {
            "type": "function_call",
            "id": f"fc_{ident}",
            "call_id": f"call_{ident}",
            "name": name,
        }
        item["arguments"] = json.dumps(arguments)
    else:
        content = [{"type": "output_text", "text": step.text, "annotations": []}]
        item = {
            "type": "message",
            "role": "assistant",
            "id": f"msg_{ident}",
            "status": "completed",
            "content": content,
        }
    response = {
        "id": f"resp_{ident}",
        "object": "response",
        "created_at": int(time.time()),
        "model": ask.body.get("model"),
    }
    yield _event(
        {
            "type": "response.created",
            "response": response | {"output": [], "status": "in_progress"},
        },
        "response.created",
    )
    added = item | ({"content": []} if item["type"] == "message" else {})
    yield _event(
        {"type": "response.output_item.added", "output_index": 0, "item": added},
        "response.output_item.added",
    )
    if item["type"] == "message":
        delta = {
            "type": "response.output_text.delta",
            "item_id": item["id"],
            "output_index": 0,
            "content_index": 0,
            "delta": step.text,
        }
        yield _event(delta, "response.output_text.delta")
    yield _event(
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        "response.output_item.done",
    )
    done = response | {"output": [item], "status": "completed", "usage": usage}
    yield _event({"type": "response.completed", "response": done}, "response.completed")


def _tool_of(ask: Ask, step: Step) -> tuple[str, Json]:
    """Name and input of the tool call, in the words of whichever agent asks."""
    if step.kind == "call":
        return step.text, step.options
    offered = _offered(ask)
    if step.kind == "shell":
        wanted, given = ("run_shell_command", "Bash"), {"command": step.text, "description": "run"}
        fallback = "bash"
    else:
        wanted = ("write_file", "Write", "create")
        given, fallback = {"filePath": step.path, "content": step.text}, "write"
    name = next((one for one in wanted if one in offered), fallback)
    known = offered.get(name) or set(given)
    return name, {
        spelt: value for key, value in given.items() if (spelt := _spelt(key, known)) in known
    }


def _offered(ask: Ask) -> dict[str, set[str]]:
    """The tools that the agent offers, and the parameters of each; no parameters: not known."""
    tools = [tool.get("function") or tool for tool in ask.body.get("tools", [])]
    tools += [one for tool in tools for one in tool.get("functionDeclarations", [])]
    schemas = ("parameters", "input_schema", "parametersJsonSchema")
    found: dict[str, set[str]] = {}
    for tool in tools:
        schema: Json = next((tool[key] for key in schemas if tool.get(key)), {})
        found[str(tool.get("name"))] = set(schema.get("properties", {}))
    return found


def _spelt(key: str, known: set[str]) -> str:
    """A parameter as this agent spells it."""
    names = {"filePath": ("filePath", "file_path", "path"), "content": ("content", "file_text")}
    return next((name for name in names.get(key, (key,)) if name in known), key)


def _message(ask: Ask, step: Step) -> Json:
    ident = os.urandom(6).hex()
    tokens, cached, output = step.tokens
    schema_tool = any(tool.get("name") == "StructuredOutput" for tool in ask.body.get("tools", []))
    block: Json
    if step.kind in ("shell", "write", "call"):
        name, given = _tool_of(ask, step)
        block = {"type": "tool_use", "id": f"toolu_{ident}", "name": name, "input": given}
    elif schema_tool and step.text.startswith("{") and not _asked_structured(ask):
        block = {
            "type": "tool_use",
            "id": f"toolu_{ident}",
            "name": "StructuredOutput",
            "input": json.loads(step.text),
        }
    else:
        block = {"type": "text", "text": step.text}
    return {
        "id": f"msg_{ident}",
        "type": "message",
        "role": "assistant",
        "model": ask.body.get("model"),
        "content": [block],
        "stop_reason": "tool_use" if block["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": tokens - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": output,
        },
    }


def _asked_structured(ask: Ask) -> bool:
    """Whether the last thing said is that the answer has come: a resumed run says it before its
    prompt."""
    content = ask.body.get("messages", [{}])[-1].get("content") or [""]
    return "Structured output provided" in json.dumps(content[-1])


def _messages(ask: Ask, step: Step) -> Iterator[bytes]:
    whole = _message(ask, step)
    block = whole["content"][0]
    start = whole | {
        "content": [],
        "stop_reason": None,
        "usage": whole["usage"] | {"output_tokens": 1},
    }
    yield _event({"type": "message_start", "message": start}, "message_start")
    if block["type"] == "text":
        empty: Json = {"type": "text", "text": ""}
        delta: Json = {"type": "text_delta", "text": block["text"]}
    else:
        empty = block | {"input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    yield _event(
        {"type": "content_block_start", "index": 0, "content_block": empty}, "content_block_start"
    )
    yield _event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
    yield _event({"type": "content_block_stop", "index": 0}, "content_block_stop")
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield _event(
        {"type": "message_delta", "delta": ended, "usage": whole["usage"]}, "message_delta"
    )
    yield _event({"type": "message_stop"}, "message_stop")


def _gemini(ask: Ask, step: Step) -> Iterator[bytes]:
    tokens, cached, output = step.tokens
    if step.kind in ("shell", "write", "call"):
        name, given = _tool_of(ask, step)
        part: Json = {"functionCall": {"name": name, "args": given}}
    else:
        part = {"text": step.text}
    yield _event(
        {
            "candidates": [
                {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
            ],
            "usageMetadata": {
                "promptTokenCount": tokens,
                "cachedContentTokenCount": cached,
                "candidatesTokenCount": output,
                "totalTokenCount": tokens + output,
            },
            "modelVersion": "local",
        }
    )


def _chat(ask: Ask, step: Step) -> Iterator[bytes]:
    tokens, cached, output = step.tokens
    base = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": ask.body.get("model"),
    }
    if step.kind in ("shell", "write", "call"):
        name, given = _tool_of(ask, step)
        call = {"index": 0, "id": f"call_{os.urandom(4).hex()}", "type": "function"}
        delta: Json = {
            "role": "assistant",
            "tool_calls": [call | {"function": {"name": name, "arguments": json.dumps(given)}}],
        }
    else:
        delta = {"role": "assistant", "content": step.text}
    yield _event(base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    reason = "tool_calls" if "tool_calls" in delta else "stop"
    usage = {"prompt_tokens": tokens, "completion_tokens": output, "total_tokens": tokens + output}
    usage["prompt_tokens_details"] = {"cached_tokens": cached}  # type: ignore[assignment]
    yield _event(
        base | {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage}
    )
    yield b"data: [DONE]\n\n"


_ENCODERS: dict[str, Callable[[Ask, Step], Iterator[bytes]]] = {
    "responses": _responses,
    "messages": _messages,
    "gemini": _gemini,
    "chat": _chat,
}

# fault: (HTTP status, OpenAI type and code, Anthropic type, Google status, message)
_LIMITED = "RESOURCE_EXHAUSTED"
_USED_UP = "The usage limit has been reached"
_TOO_LONG = "prompt is too long: 300000 tokens > 200000 maximum"
_REFUSALS: dict[str, tuple[int, str, str, str, str]] = {
    "usage_limit": (429, "usage_limit_reached", "rate_limit_error", _LIMITED, _USED_UP),
    "rate_limit": (429, "rate_limit_exceeded", "rate_limit_error", _LIMITED, "Too many requests"),
    "quota": (429, "insufficient_quota", "billing_error", _LIMITED,
    "You exceeded your current quota"),
    "server_error": (500, "server_error", "api_error", "INTERNAL", "Something broke"),
    "overloaded": (503, "server_is_overloaded", "overloaded_error", "UNAVAILABLE", "Overloaded"),
    "unauthorized": (401, "invalid_api_key", "authentication_error", "UNAUTHENTICATED",
    "Invalid API key"),
    "no_model": (404, "model_not_found", "not_found_error", "NOT_FOUND",
    "The model `x` does not exist"),
    "context": (400, "context_length_exceeded", "invalid_request_error", "INVALID_ARGUMENT",
    _TOO_LONG),
    "status": (418, "teapot", "api_error", "UNKNOWN", "An unusual status"),
}  # fmt: skip


def _refusal(api: str, step: Step) -> tuple[int, Json, Json]:
    status, code, kind, google, message = _REFUSALS[step.fault]
    status = step.options.get("status", status)
    message = step.options.get("message", message)
    headers: Json = {}
    reset = step.options.get("resets_at")
    if api == "gemini":
        return status, {"error": {"code": status, "message": message, "status": google}}, headers
    if api == "messages":
        if status == 503:
            status = 529
        if reset:
            headers = {
                "anthropic-ratelimit-unified-reset": reset,
                "anthropic-ratelimit-unified-status": "rejected",
            }
        return status, {"type": "error", "error": {"type": kind, "message": message}}, headers
    error: Json = {"message": message, "type": code, "code": code, "param": None}
    if reset:
        error |= {"plan_type": "plus", "resets_at": reset}
        headers = {
            "x-codex-primary-used-percent": "100",
            "x-codex-primary-window-minutes": "300",
            "x-codex-primary-reset-at": str(reset),
        }
    return status, {"error": error}, headers


def steps_from_json(values: Sequence[Json]) -> list[Step]:
    """Read a script file's list."""
    return [_step_from_json(value) for value in values]


def _step_from_json(value: Json) -> Step:
    if "say" in value:
        return say(value["say"])
    if "answer" in value:
        return answer(value["answer"])
    if "shell" in value:
        return shell(value["shell"])
    if "write" in value:
        return write(value["write"]["path"], value["write"]["text"])
    return fault(value["fault"], **{key: one for key, one in value.items() if key != "fault"})


def main() -> None:
    """Serve until stdin closes or a signal comes."""
    parser = argparse.ArgumentParser(
        description="A scripted stand-in for the model APIs, on loopback."
    )
    parser.add_argument("--script", required=True, help="JSON list of steps")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", help="file that gets the port's number, written whole")
    options = parser.parse_args()
    with open(options.script, encoding="utf-8") as file:
        script = steps_from_json(json.load(file))
    with ModelServer(script, port=options.port) as server:
        if options.port_file:
            with open(options.port_file + ".tmp", "w", encoding="utf-8") as file:
                file.write(str(server.port))
            os.replace(options.port_file + ".tmp", options.port_file)
        print(server.url, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
