"""`codex-self-iter mcp` speaks the protocol, whatever it is told; each test talks to the real process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from codex_self_iter.cli import COMMANDS
from tests.support.control_steps import CLAIM
from tests.support.harness import Workspace, wait_until
from tests.support.mcp_client import Json, McpClient, said, servers, serving
from tests.support.program import PROGRAM, PYTHON

READING = ["loops", "status", "history", "show", "diff"]
CONTROL = ["steer", "goal", "pause", "resume", "stop_after_iteration"]
SECRET = "sk-proj-" + "a1B2c3D4e5F6g7H8i9J0" * 3


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Two iterations that have ended: much that was said and written, then a proven end."""
    ws = Workspace(tmp_path_factory.mktemp("mcp"), "shop")
    ws.config("[verify]\ncommands = ['echo of the gate; test -f two']")
    lines = "".join(f"line {number}\n" for number in range(20_000))
    ws.script(
        {
            "write": {"a": f"first \u2028 line\nkey = {SECRET}\n", "long": lines},
            "block": {"summary": "made\u2028one " + "word " * 9000, "next_goal": "two"},
        },
        {**CLAIM, "write": {"two": "2\n"}, "block": {"completed": True, "summary": "made two"}},
    )
    assert ws.run() == 0, ws.log()
    yield ws
    ws.close()


@pytest.fixture
def client(over: Workspace) -> Iterator[McpClient]:
    """Somebody who has the workspace for working directory, and has greeted."""
    with serving(over.environment, over.path) as one:
        yield one


@pytest.fixture
def slow(over: Workspace, tmp_path: Path) -> Iterator[tuple[McpClient, Path]]:
    """A client whose `diff` hangs until the file is there, or it is ended: its git waits."""
    go, git = tmp_path / "go", tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text(
        f'#!/bin/sh\n: > "{go}.asked"\nwhile ! [ -e "{go}" ]; do sleep 0.02; done\nexit 3\n'
    )
    git.chmod(0o755)
    path = f"{git.parent}:{over.environment['PATH']}"
    with serving({**over.environment, "PATH": path}, over.path) as one:
        yield one, go


def hang(slow: tuple[McpClient, Path]) -> int:
    """Ask for a diff, and wait until it hangs."""
    client, go = slow
    ident = client.begin("diff", iteration=1)
    wait_until(Path(f"{go}.asked").exists, "git to be asked")
    return ident


def git_waits(go: Path) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if str(go.parent) in str(one.info)]


# --- the handshake ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2031-01-01"]
)
def test_every_revision_is_spoken_and_a_later_one_gets_the_newest(
    over: Workspace, wanted: str
) -> None:
    with serving(over.environment, over.path) as client:
        greeting = client.greet(wanted)
        spoken = greeting["protocolVersion"]
        assert spoken == (wanted if wanted < "2026" else "2025-11-25")
        assert greeting["serverInfo"]["name"] == "codex-self-iter"
        result = client.ask("tools/call", name="status")["result"]
        assert json.loads(said(result))["state"] == "completed"
        structured = result.get("structuredContent")
        assert (structured is not None) is (spoken >= "2025-06-18")
        assert structured in (None, json.loads(said(result)))


def test_the_newest_clients_are_told_to_fall_back(client: McpClient) -> None:
    assert client.ask("server/discover")["error"]["code"] == -32601


@pytest.mark.parametrize("flags", [(), ("--control",)])
def test_the_tools_are_named_like_the_commands(over: Workspace, flags: tuple[str, ...]) -> None:
    with serving(over.environment, over.path, *flags) as client:
        tools = client.ask("tools/list")["result"]["tools"]
    assert [tool["name"] for tool in tools] == READING + CONTROL * len(flags)
    for tool in tools:
        assert tool["name"].partition("_")[0] in {*COMMANDS, "loops"}
        assert tool["annotations"]["readOnlyHint"] is (tool["name"] in READING)
        assert tool["inputSchema"]["type"] == "object"
        assert tool["inputSchema"]["additionalProperties"] is False
        assert all(one["description"] for one in tool["inputSchema"]["properties"].values())
        assert tool["description"]
        # as Claude Code calls it: no model takes a longer name
        assert len(f"mcp__codex-self-iter__{tool['name']}") <= 64
        plugins = f"mcp__plugin_codex-self-iter_codex-self-iter__{tool['name']}"
        assert len(plugins) <= 64 or tool["name"] in CONTROL  # which the plugin does not offer


# --- what the tools say -------------------------------------------------------------------------


def test_each_tool_says_what_its_command_says(client: McpClient, over: Workspace) -> None:
    (loop,) = client.call("loops")["loops"]
    assert (loop["name"], loop["workspace"]) == ("shop", str(over.path))
    assert (loop["state"], loop["alive"]) == ("completed", False)
    status = json.loads(over.cli("status", "--json").stdout)
    moving = dict.fromkeys(("stale_sec",))
    assert client.call("status") | moving == status | moving
    records = client.call("history")["iterations"]
    assert [one["iteration"] for one in records] == [2, 1]
    assert [one["verdict"] for one in records] == ["completed", "continue"]
    assert client.call("history", limit=1)["iterations"] == records[:1]
    assert client.call("history", since="2")["iterations"] == records[:1]
    assert client.call("show", iteration=2) == json.loads(over.cli("show", "2", "--json").stdout)
    assert client.call("show")["iteration"] == 2
    assert client.call("diff", iteration=2)["diff"] == over.cli("diff", "2").stdout
    stat = client.call("diff", iteration=1, to=2, stat=True)["diff"]
    assert stat == over.cli("diff", "1", "2", "--stat").stdout
    assert "two" in stat


def test_a_loop_is_named_by_its_path_or_its_name(over: Workspace, tmp_path: Path) -> None:
    with serving({**over.environment, "HOME": str(over.root)}, tmp_path) as client:
        for name in (str(over.path), "shop", os.path.relpath(over.path, tmp_path), "~/shop"):
            assert client.call("status", workspace=name)["state"] == "completed", name
        assert "all loops" in client.call("status")["note"]  # here is no workspace
        assert "`loops` lists all" in client.wrong("show")
        assert "`loops` lists all" in client.call("history")["note"]
        assert "no loop is called 'ship'" in client.wrong("history", workspace="ship")
        assert "called '--help'" in client.wrong("show", workspace="--help")
    with serving(over.environment, tmp_path, "--workspace", str(over.path)) as client:
        assert client.call("status")["state"] == "completed"


def test_an_answer_is_bounded_and_says_what_was_cut(client: McpClient) -> None:
    shown = client.call("show", iteration=1)
    assert "shortened" in shown["cut"]
    assert re.search(r"… \(\d+ more characters\)$", shown["summary"])
    patch = client.ask("tools/call", name="diff", arguments={"iteration": 1})["result"]
    assert "`stat` lists" in patch["structuredContent"]["cut"]
    assert said(patch).endswith(f"({patch['structuredContent']['cut']})")
    for result in (shown, patch["structuredContent"]):
        assert len(json.dumps(result, ensure_ascii=False)) <= 41_000
    assert "cut" not in client.call("show", iteration=2)


def test_no_secret_leaves(client: McpClient, over: Workspace) -> None:
    client.begin("diff", iteration=1)
    line = client.line()
    assert b"[redacted]" in line
    assert SECRET.encode() not in line
    assert SECRET in (over.path / "a").read_text()


def test_what_leaves_is_ascii_so_that_no_client_splits_a_line(client: McpClient) -> None:
    client.begin("diff", iteration=1)
    line = client.line()
    assert line.isascii()
    assert "\u2028" in said(json.loads(line)["result"])


# --- bad input ----------------------------------------------------------------------------------

BAD = [
    (b"nonsense\n", -32700, None),
    (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"\n', -32700, None),
    (b"\xff\xfe\n", -32700, None),
    (b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}\n', -32700, None),
    (b"[" * 200_000 + b"\n", -32700, None),
    (b"9" * 9000 + b"\n", -32700, None),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping","x":"' + b"x" * 5_000_000 + b'"}\n', -32600, None),
    (b"null\n", -32600, None),
    (b"[]\n", -32600, None),
    ([{"jsonrpc": "2.0", "method": "ping", "id": 1}] * 51, -32600, None),
    ({"jsonrpc": "1.0", "id": 7, "method": "ping"}, -32600, 7),
    ({"jsonrpc": "2.0", "id": "a", "method": 3}, -32600, "a"),
    ({"jsonrpc": "2.0", "id": None, "method": "ping"}, -32600, None),
    ({"jsonrpc": "2.0", "id": True, "method": "ping"}, -32600, None),
    ({"jsonrpc": "2.0", "id": {}, "method": "ping"}, -32600, None),
    ({"jsonrpc": "2.0", "id": 1, "method": "resources/list"}, -32601, 1),
    ({"jsonrpc": "2.0", "id": 1, "method": "x" * 100_000}, -32601, 1),
    ({"jsonrpc": "2.0", "id": 1, "method": "initialize"}, -32602, 1),
    ({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": [1]}, -32602, 1),
    ({"jsonrpc": "2.0", "id": 1, "method": "tools/call"}, -32602, 1),
    ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "rm"}}, -32602, 1),
    ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": ["x"]}}, -32602, 1),
    ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "stop"}}, -32602, 1),
]


def test_a_bad_message_is_an_error_and_the_next_one_is_answered(client: McpClient) -> None:
    for message, code, ident in BAD:
        client.send(message)
        answer = client.answer()
        assert (answer["error"]["code"], answer["id"]) == (code, ident), message
        assert len(answer["error"]["message"]) < 400
        assert client.ask("ping")["result"] == {}


def test_what_asks_for_nothing_gets_nothing(client: McpClient) -> None:
    client.send(
        b"\n", b"  \r\n",
        {"jsonrpc": "2.0", "method": "notifications/who/knows"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": [1]},
        {"jsonrpc": "2.0", "id": 5, "result": {}},
        {"jsonrpc": "2.0", "id": 5, "error": {"code": 1, "message": "x"}},
        [{"jsonrpc": "2.0", "method": "notifications/initialized"}],
    )  # fmt: skip
    assert client.ask("ping")["result"] == {}


def test_a_mark_at_the_beginning_and_windows_ends_of_lines_are_taken(over: Workspace) -> None:
    client = McpClient(over.environment, over.path)
    try:
        client.send(b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}\r\n')
        assert client.answer()["id"] == 1
        assert client.end() == (0, b"")
    finally:
        client.close()


def test_a_batch_is_answered_as_one(client: McpClient) -> None:
    asked: list[Json] = [
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "status"}},
        {"jsonrpc": "2.0", "id": 3, "method": "nothing"},
    ]
    client.send(asked)
    answers = client.answer()
    assert [one["id"] for one in answers] == [1, 2, 3]
    assert json.loads(said(answers[1]["result"]))["state"] == "completed"


WRONG = [
    ("history", {"limit": "ten"}, "'limit' must be a whole number from 1 to 200"),
    ("history", {"limit": 0}, "whole number"),
    ("history", {"limit": True}, "whole number"),
    ("history", {"limit": 1.5}, "whole number"),
    ("history", {"limits": 1}, "unknown argument 'limits'; it takes 'workspace', 'limit', 'since'"),
    ("history", {"since": "yesterday"}, "12h"),
    ("history", {"since": ""}, "'since' must be a text"),
    ("loops", {"workspace": "shop"}, "it takes nothing"),
    ("status", {"workspace": "a\0b"}, "'workspace' is not valid text"),
    ("status", {"workspace": "\ud800"}, "'workspace' is not valid text"),
    ("status", {"workspace": "x" * 5000}, "4096"),
    ("status", {"workspace": 5}, "must be a text"),
    ("status", {"workspace": "/nowhere/at/all"}, "/nowhere/at/all"),
    ("show", {"iteration": 99}, "99"),
    ("diff", {}, "'iteration' is missing"),
    ("diff", {"iteration": None}, "'iteration' is missing"),
    ("diff", {"iteration": 77}, "77"),
    ("diff", {"iteration": 1, "stat": "yes"}, "'stat' must be true or false"),
]


def test_wrong_arguments_are_said_to_the_model(client: McpClient) -> None:
    for tool, arguments, words in WRONG:
        text = client.wrong(tool, **arguments)
        assert words in text, (tool, arguments, text)
        assert "Traceback" not in text
    assert "arguments must be an object" in said(
        client.ask("tools/call", name="status", arguments=[1])["result"]
    )
    # as some clients write them; the last is Gemini's own
    whole = client.call("history", limit=2.0, since=None, wait_for_previous=True)
    assert len(whole["iterations"]) == 2


# --- surroundings -------------------------------------------------------------------------------


def test_it_works_from_a_directory_that_is_gone(over: Workspace, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with serving(over.environment, gone) as client:
        gone.rmdir()
        assert client.call("status", workspace="shop")["state"] == "completed"
        assert "current directory" in client.wrong("history")


def test_it_works_with_next_to_no_environment(over: Workspace) -> None:
    with serving({}, over.path) as client:  # some clients hand nothing on
        assert client.call("status")["state"] == "completed"
        assert "two" in client.call("diff", iteration=2)["diff"]


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1"])
def test_it_works_in_every_locale(over: Workspace, locale: str) -> None:
    with serving({**over.environment, "LC_ALL": locale}, over.path) as client:
        assert "\u2028" in client.call("show", iteration=1)["summary"]


def test_what_anything_prints_is_not_taken_for_an_answer(over: Workspace) -> None:
    code = """if True:
        import os, sys
        from codex_self_iter.mcp.server import Server
        class Noisy(Server):
            def _result(self, *args):
                print("noise", flush=True)
                os.system("echo noise")
                return super()._result(*args)
        sys.exit(Noisy([], control=False, limit_sec=9).serve())"""
    client = McpClient(over.environment, over.path, argv=[PYTHON, "-c", code])
    try:
        assert client.ask("ping")["result"] == {}
        assert client.end() == (0, b"noise\nnoise\n")
    finally:
        client.close()


def test_a_client_that_reads_late_and_does_not_block_loses_nothing(over: Workspace) -> None:
    """The flag belongs to the open file, which a client may share with the server."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    params = {"name": "diff", "arguments": {"iteration": 1}}
    asked = [
        {"jsonrpc": "2.0", "id": ident, "method": "tools/call", "params": params}
        for ident in range(4)
    ]
    with subprocess.Popen(
        [*PROGRAM, "mcp"], stdin=theirs, stdout=theirs, env=over.environment, cwd=over.path
    ) as process:
        theirs.close()
        ours.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in asked))
        ours.shutdown(socket.SHUT_WR)
        ours.recv(1, socket.MSG_PEEK)  # the first answer has begun
        server = psutil.Process(process.pid)
        wait_until(lambda: not server.children(), "all to be ready, and to wait for room")
        got = b""
        while piece := ours.recv(65536):
            got += piece
        assert process.wait(60) == 0
    ours.close()
    assert sorted(json.loads(line)["id"] for line in got.splitlines()) == [0, 1, 2, 3]


# --- many at a time, slow, cancelled ------------------------------------------------------------


def test_many_calls_at_once_are_all_answered(client: McpClient) -> None:
    wanted = {client.begin("status") for _ in range(12)}
    assert {client.answer()["id"] for _ in wanted} == wanted


def test_too_many_calls_are_refused_and_the_rest_answered(slow: tuple[McpClient, Path]) -> None:
    client, go = slow
    wanted = {client.begin("diff", iteration=1) for _ in range(70)}
    refused = [client.answer() for _ in range(6)]
    assert all("64 calls" in one["error"]["message"] for one in refused)
    for ident in wanted - {one["id"] for one in refused}:
        cancelled = {"requestId": ident}
        client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled})
    assert client.ask("ping")["result"] == {}
    go.touch()
    client.end()


def test_a_slow_tool_keeps_no_ping_waiting(slow: tuple[McpClient, Path]) -> None:
    client, go = slow
    ident = hang(slow)
    assert client.ask("ping")["result"] == {}
    assert client.call("status")["state"] == "completed"
    go.touch()
    assert client.answer()["id"] == ident


def test_a_cancelled_call_is_ended_and_gets_no_answer(slow: tuple[McpClient, Path]) -> None:
    client, go = slow
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {}}
    client.send(cancel | {"params": {"requestId": hang(slow)}})
    wait_until(lambda: not git_waits(go), "git to be ended")
    assert client.ask("ping")["result"] == {}


def test_a_tool_that_takes_too_long_is_ended(over: Workspace, slow: tuple[McpClient, Path]) -> None:
    _, go = slow
    path = f"{go.parent}/bin:{over.environment['PATH']}"
    with serving({**over.environment, "PATH": path}, over.path, "--timeout", "0.5") as client:
        assert "longer than 0.5 s" in client.wrong("diff", iteration=1)
        wait_until(lambda: not git_waits(go), "git to be ended")


def test_a_call_that_is_cancelled_in_the_same_breath_is_not_answered(
    slow: tuple[McpClient, Path],
) -> None:
    client, go = slow
    call = {"jsonrpc": "2.0", "id": "x", "method": "tools/call"}
    call |= {"params": {"name": "diff", "arguments": {"iteration": 1}}}
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "x"}}
    client.send(b"".join(json.dumps(one).encode() + b"\n" for one in (call, cancel)))
    assert client.ask("ping")["result"] == {}
    assert client.end() == (0, b"")
    assert not git_waits(go)


# --- the end ------------------------------------------------------------------------------------


def test_the_end_of_its_stdin_ends_it_when_what_was_asked_is_answered(over: Workspace) -> None:
    asked = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"status"}}'
    for ending in (b"\n", b""):
        done = subprocess.run(
            [*PROGRAM, "mcp"], input=asked + ending, cwd=over.path, env=over.environment,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(said(json.loads(done.stdout)["result"]))["state"] == "completed"
    torn = subprocess.run(
        [*PROGRAM, "mcp"], input=asked[:30], cwd=over.path, env=over.environment,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (torn.returncode, json.loads(torn.stdout)["error"]["code"]) == (0, -32700)


def test_it_ends_when_nobody_reads_it_although_its_stdin_is_open(
    slow: tuple[McpClient, Path],
) -> None:
    client, go = slow
    hang(slow)
    assert client.process.stdout
    client.process.stdout.close()
    assert client.process.wait(60) == 0
    wait_until(lambda: not git_waits(go), "nothing to be left of the call")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
)
def test_a_signal_ends_it_and_its_calls(
    slow: tuple[McpClient, Path], number: int, code: int
) -> None:
    client, go = slow
    hang(slow)
    assert client.signalled(number) == code
    wait_until(lambda: not git_waits(go), "nothing to be left of the call")


def test_nothing_is_left_when_the_client_is_killed(over: Workspace) -> None:
    """The client is a process of its own, which is killed while the server waits."""
    code = (
        "import subprocess, sys\n"
        "p = subprocess.Popen(sys.argv[1:], stdin=-1, stdout=-1)\n"
        'p.stdin.write(b\'{"jsonrpc":"2.0","id":1,"method":"ping"}\\n\'); p.stdin.flush()\n'
        "print(p.stdout.readline().decode(), flush=True); p.wait()"
    )
    mark = str(over.path)
    argv = [sys.executable, "-c", code, *PROGRAM, "mcp", "--workspace", mark]
    with subprocess.Popen(argv, env=over.environment, stdout=subprocess.PIPE) as client:
        assert client.stdout
        assert b"result" in client.stdout.readline()
        assert servers(mark)
        client.kill()
    wait_until(lambda: not servers(mark), "the server to end")


def test_nothing_asked_costs_nothing(client: McpClient) -> None:
    process = psutil.Process(client.process.pid)
    client.ask("ping")
    wait_until(lambda: process.status() == psutil.STATUS_SLEEPING, "it to sleep")
    before = process.num_ctx_switches()
    time.sleep(0.3)  # it would have woken up
    assert process.num_ctx_switches() == before
    assert process.net_connections() == []


def test_a_terminal_is_told_what_this_is(over: Workspace) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*PROGRAM, "mcp"], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=over.environment, cwd=over.path,
    ) as process:  # fmt: skip
        os.close(theirs)
        assert process.stderr
        assert b"this is for programs" in process.stderr.readline()
        os.close(ours)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--timeout 0", "above 0"), ("--timeout x", "seconds"), ("--workspace /nowhere", "does not exist"),
        ("--loop ship", "no loop is called"), ("--config /nowhere", "does not exist"), ("more", "unrecognized"),
    ],
)  # fmt: skip
def test_bad_flags_are_said_at_once(over: Workspace, flags: str, words: str) -> None:
    done = subprocess.run(
        [*PROGRAM, "mcp", *flags.split()], env=over.environment, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
