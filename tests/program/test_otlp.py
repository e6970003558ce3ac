"""`otlp` from outside: what a receiver is sent, and what becomes of a loop whose receiver fails."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from codex_self_iter.core.text import epoch
from tests.program.test_many import supervise
from tests.program.test_metrics_file import numbers
from tests.support import certificate
from tests.support.control_steps import long_run
from tests.support.harness import Workspace, wait_until
from tests.support.otlp_receiver import Receiver, collecting, collector_program, receiving
from tests.support.program import running

DONE = {"append": {"work.txt": "x\n"}, "block": {"completed": True, "summary": "a secret thought"}}
SEEN = "env | grep ^TRACE >> ../seen; echo end >> ../seen"
PROGRAM = "codex_self_iter.metrics.otlp"
NOT = "traces and numbers (otlp) are not exported"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def ws(ws: Workspace) -> Workspace:
    """With a short patience for receivers that do not answer."""
    ws.environment["OTEL_EXPORTER_OTLP_TIMEOUT"] = "1"
    return ws


def exporters(ws: Workspace) -> list[psutil.Process]:
    """The programs that export for this workspace's supervisors."""
    return running(PROGRAM, ws.leftovers())


def seen(ws: Workspace) -> list[dict[str, str]]:
    """What each run saw of the variables TRACE…."""
    path = ws.root / "seen"
    blocks = path.read_text().split("end\n")[:-1] if path.exists() else []
    return [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]


def told(ws: Workspace, text: str) -> bool:
    return any(text in one for one in ws.status().get("warnings", ()))


@pytest.fixture(params=["straight", "by a collector"])
def address(request: pytest.FixtureRequest, receiver: Receiver) -> Iterator[str]:
    """Where the loop exports to: the receiver, or a real collector that hands on to it."""
    if request.param == "straight":
        yield receiver.url + "/"
        return
    if not collector_program():
        pytest.skip(
            "NOT TESTED HERE: a collector that is not ours needs rotel (.ci/run installs it)"
        )
    with collecting(receiver) as url:
        yield url


def test_an_iteration_is_a_trace_with_its_runs_and_gates_as_children(
    ws: Workspace, receiver: Receiver, tmp_path: Path, address: str
) -> None:
    gates = [f"{SEEN}; test -e done", "true"]
    ws.config(
        f"[verify]\ncommands = {gates}\n",
        otlp=address, metrics_file=f"{tmp_path}/x.prom",
    )  # fmt: skip
    ws.script(
        {"run": SEEN, **DONE},
        {"run": SEEN, "exit": 3, "raw": ""},
        {"run": SEEN, "write": {"done": ""}, **DONE},
    )
    of_another = {"TRACEPARENT": f"00-{'1' * 32}-{'2' * 16}-01", "TRACESTATE": "a=b"}
    assert ws.run(environment=of_another) == 0
    wait_until(
        lambda: (
            len(receiver.spans) >= 10 and receiver.numbers.get(("csi_loop_state", "completed")) == 1
        ),
        lambda: f"all to arrive: {receiver.spans}",
    )
    receiver.spans.sort(key=lambda one: one.begin)
    journal, roots = ws.journal(), receiver.named("iteration")
    assert [line["verdict"] for line in journal] == ["claim_rejected", "error", "completed"]
    assert [one.attributes["csi.verdict"] for one in roots] == ws.verdicts()
    assert [one.failed for one in roots] == [False, True, False]
    assert roots[1].error == "agent"
    assert len({one.trace for one in roots}) == 3
    runs = [[one for one in receiver.named("run executor") if one.trace == r.trace] for r in roots]
    proofs = [[one for one in receiver.named("gate") if one.trace == r.trace] for r in roots]
    assert [len(one) for one in runs] == [1, 1, 1]
    assert [len(one) for one in proofs] == [2, 0, 2]
    # what agents and gates saw are their own spans, and nothing of whoever started the supervisor
    parents = [
        f"00-{one.trace}-{one.id}-01"
        for one in (runs[0][0], proofs[0][0], runs[1][0], runs[2][0], proofs[2][0])
    ]
    assert seen(ws) == [{"TRACEPARENT": parent} for parent in parents]
    for root, line, own, ran in zip(roots, journal, runs, proofs, strict=True):
        assert root.parent == ""
        assert {one.parent for one in (*own, *ran)} == {root.id}
        assert root.begin == pytest.approx(1e9 * (epoch(line["started_at"]) or 0), abs=2e6)
        assert root.end - root.begin == pytest.approx(1e9 * line["duration_sec"], abs=2e6)
        pairs = zip((*own, *ran), (*line["runs"], *line["gates"]), strict=True)
        for span, kept in pairs:
            assert span.begin == pytest.approx(1e9 * (epoch(kept["started_at"]) or 0), abs=2e6)
            assert span.end - span.begin == pytest.approx(1e9 * kept["duration_sec"], abs=2e6)
            assert root.begin <= span.begin <= span.end
    (run,), (red, green) = runs[0], proofs[0]
    assert run.attributes["csi.role"] == "executor"
    assert run.attributes["csi.agent"] == "command"
    assert run.attributes["csi.exit_code"] == 0
    assert not run.failed
    assert runs[1][0].failed
    assert runs[1][0].attributes["csi.exit_code"] == 3
    assert runs[1][0].attributes["csi.failure_class"] == "agent"
    assert (red.failed, red.error) == (True, "exited with code 1")
    assert red.attributes["csi.command"] == gates[0]
    assert red.attributes["csi.exit_code"] == 1
    assert not green.failed
    assert green.attributes["csi.ok"]
    assert "secret thought" not in str(receiver.spans)
    # the same numbers as Prometheus is shown
    last = numbers(tmp_path / "x.prom")
    assert {
        (name + "_total" * (name in receiver.counters), *labels): value
        for (name, *labels), value in receiver.numbers.items()
    } == pytest.approx(last, abs=0.5)
    assert receiver.numbers["csi_iterations", "completed"] == 1
    assert receiver.numbers["csi_loop_state", "completed"] == 1
    assert ws.status()["warnings"] == []
    assert "otlp.left" not in ws.log()
    assert roots[0].resource["service.name"] == "codex-self-iter"
    assert roots[0].resource["service.instance.id"].endswith(f":{ws.state}")


def test_without_the_key_there_is_no_program_and_no_trace(ws: Workspace) -> None:
    """The control of the test above."""
    ws.script({"run": SEEN, **long_run("go"), **DONE}, {"run": SEEN, **DONE})
    own = {"TRACEPARENT": f"00-{'1' * 32}-{'2' * 16}-01", "TRACESTATE": "a=b"}
    process = ws.start(environment=own)
    wait_until(lambda: seen(ws), "the run's environment")
    assert exporters(ws) == []
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert ws.run() == 0
    assert [seen(ws)[0], seen(ws)[-1]] == [own, {}]


def test_the_environment_says_who_tells_and_how(ws: Workspace, receiver: Receiver) -> None:
    ws.config(otlp="${RECEIVER}")
    ws.environment |= {
        "RECEIVER": receiver.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc",
        "OTEL_SERVICE_NAME": "mine",
        "OTEL_RESOURCE_ATTRIBUTES": "team=night,service.instance.id=one",
        "OTEL_METRICS_EXPORTER": "none",
    }
    assert ws.run() == 0
    assert {one["authorization"] for one in receiver.headers} == {"Bearer abc"}
    resource = receiver.named("iteration")[0].resource
    assert resource["service.name"] == "mine"
    assert resource["team"] == "night"
    assert resource["service.instance.id"] == "one"
    assert set(receiver.asked) == {"/v1/traces"}


@pytest.mark.slow
def test_a_certificate_of_ones_own_is_believed_where_it_is_named(
    ws: Workspace, tmp_path: Path
) -> None:
    certificate.make(tmp_path, "localhost")
    with receiving(tls=tmp_path) as secure:
        ws.config(otlp=secure.url)
        ws.environment["OTEL_TRACES_EXPORTER"] = "none"
        assert ws.run() == 0
        assert re.search(r"otlp.left +.*certificate", ws.log(), re.I)
        assert secure.asked == []
        ws.environment["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(tmp_path / "cert.pem")
        assert ws.run() == 0
        assert secure.numbers["csi_iterations", "completed"] == 2
        assert set(secure.asked) == {"/v1/metrics"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("503", "the receiver says 503 Service Unavailable"),
        ("hang", "no answer in time"),
        ("broken", "this is no HTTP"),
        ("302", "the receiver says 302 Found"),
        ("refuses", "Connection refused"),
    ],
)
def test_a_receiver_that_fails_is_told_and_holds_nothing_up(
    ws: Workspace, receiver: Receiver, how: str, why: str
) -> None:
    """What it did not take arrives once it takes something again."""
    receiver.how = how
    if how == "refuses":
        with receiving() as gone:
            address = gone.url
    ws.config(otlp=address if how == "refuses" else receiver.url)
    ws.script({"number": True, "append": {"work.txt": "x\n"}}, long_run("go"), DONE)
    process = ws.start()
    ws.wait_runs(2)  # the first iteration has ended meanwhile
    wait_until(lambda: told(ws, f"{NOT}: ") and told(ws, why), why)
    receiver.how = "take"
    receiver.let_go.set()
    if how == "refuses":
        with receiving(int(address.rpartition(":")[2])) as back:
            wait_until(lambda: not told(ws, NOT), "it to work again")
            assert len(back.named("iteration")) == 1
    elif how == "302":  # the next one would be refused, too: it was not tried again
        assert receiver.spans == []
    else:
        wait_until(lambda: not told(ws, NOT), "it to work again")
        assert len(receiver.named("iteration")) == 1
        assert "otlp.recovered" in ws.log()
    assert sum("state.warning" in line for line in ws.log().splitlines()) <= 4
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert "completed" in ws.verdicts()


@pytest.mark.slow
def test_a_receiver_that_hangs_delays_the_end_by_three_seconds_at_most(
    ws: Workspace, receiver: Receiver
) -> None:
    ws.environment["OTEL_EXPORTER_OTLP_TIMEOUT"] = "100"
    receiver.how = "hang"
    ws.config(otlp=receiver.url)
    ws.script(*({"number": True, "append": {"work.txt": "x\n"}} for _ in range(3)), DONE)
    begun = time.monotonic()
    process = ws.start()
    wait_until(lambda: ws.status().get("exit"), "the end of the loop")
    assert len(ws.journal()) == 4
    assert receiver.spans == []
    assert ws.ended(process) == 0
    assert time.monotonic() - begun < 60  # it would be a hundred
    line = next(line for line in ws.log().splitlines() if "otlp.left" in line)
    assert re.search(r"lines=[1-9]", line)
    assert "error='no answer within 3 s'" in line


@pytest.mark.slow
def test_a_program_that_is_killed_is_told_and_started_again(
    ws: Workspace, receiver: Receiver
) -> None:
    ws.config(otlp=receiver.url)
    ws.script(long_run("go"), long_run("end"), DONE)
    process = ws.start()
    wait_until(lambda: receiver.numbers, "its numbers")
    (first,) = exporters(ws)
    first.send_signal(signal.SIGKILL)
    wait_until(lambda: told(ws, f"{NOT}: its program has ended (signal 9)"), "what happened")
    wait_until(lambda: exporters(ws) not in ([], [first]), "the next one")
    (ws.control / "go").touch()
    ws.wait_runs(2)
    wait_until(lambda: receiver.named("iteration"), "the trace")
    wait_until(lambda: not told(ws, NOT), "it to be over")
    (ws.control / "end").touch()
    assert ws.ended(process) == 0
    assert len(receiver.named("iteration")) == len(ws.journal())


@pytest.mark.slow
def test_a_program_that_stands_still_holds_nothing_up(ws: Workspace, receiver: Receiver) -> None:
    ws.config(otlp=receiver.url)
    ws.script(long_run("go"), *({"number": True, "append": {"w": "x\n"}} for _ in range(3)), DONE)
    process = ws.start()
    wait_until(lambda: receiver.numbers, "its numbers")
    (one,) = exporters(ws)
    one.suspend()
    (ws.control / "go").touch()
    wait_until(lambda: ws.status().get("exit"), "the end of the loop")
    assert ws.ended(process) == 0
    assert receiver.named("iteration") == []
    assert not one.is_running()
    assert "otlp.left" in ws.log()


@pytest.mark.parametrize("how", ["take", "hang"])
def test_nothing_outlives_a_supervisor_that_is_killed(
    ws: Workspace, receiver: Receiver, how: str
) -> None:
    ws.environment["OTEL_EXPORTER_OTLP_TIMEOUT"] = "100"
    receiver.how = how
    ws.config(otlp=receiver.url)
    ws.script({"number": True, "append": {"work.txt": "x\n"}}, long_run("go"), DONE)
    process = ws.start()
    ws.wait_runs(2)
    path = "/v1/metrics" if how == "hang" else "/v1/traces"  # the first one holds up the others
    wait_until(lambda: path in receiver.asked, "a request")
    (one,) = exporters(ws)
    process.kill()
    process.wait()
    wait_until(lambda: not one.is_running(), "its end", 10)
    receiver.how = "take"
    (ws.control / "go").touch()
    assert ws.run() == 0
    found = [root.attributes["csi.iteration"] for root in receiver.named("iteration")]
    lines = [line["iteration"] for line in ws.journal()]
    assert found == (lines if how == "take" else lines[1:])


def test_an_adopted_run_is_in_the_trace_that_it_was_told(ws: Workspace, receiver: Receiver) -> None:
    ws.config(otlp=receiver.url)
    ws.script({"run": SEEN, **long_run("go"), **DONE})
    process = ws.start()
    wait_until(lambda: seen(ws), "the run's environment")
    process.kill()
    process.wait()
    again = ws.start()
    wait_until(lambda: "run.adopted" in ws.log(), "the run to be adopted")
    (ws.control / "go").touch()
    assert ws.ended(again) == 0
    (run,) = receiver.named("run executor")
    assert seen(ws) == [{"TRACEPARENT": f"00-{run.trace}-{run.id}-01"}]
    assert [one.trace for one in receiver.named("iteration")] == [run.trace]


def test_what_cannot_be_exported_is_said_before_and_while_it_runs(ws: Workspace) -> None:
    ws.config(otlp="http://${NOT_THERE}:4318")
    doctor = ws.cli("doctor")
    assert "nothing is exported: the variable NOT_THERE is not set" in doctor.stdout
    assert ws.run() == 0
    assert told(ws, f"{NOT}: the variable NOT_THERE is not set")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("localhost:4318", "must be the address of a receiver of OTLP over HTTP"),
        ("http://localhost:4318/v1/traces", "must be the base address"),
    ],
)
def test_an_address_that_is_none_is_refused(ws: Workspace, address: str, said: str) -> None:
    ws.config(otlp=address)
    refused = ws.cli("config", "check")
    assert refused.returncode == 2
    assert said in refused.stderr


def test_without_the_extra_it_is_said(ws: Workspace, receiver: Receiver) -> None:
    hidden = "import importlib.util as u\nf = u.find_spec\nu.find_spec = lambda n, *a: None if n == 'opentelemetry' else f(n, *a)\n"
    (ws.root / "hidden").mkdir()
    (ws.root / "hidden" / "sitecustomize.py").write_text(hidden)
    ws.environment["PYTHONPATH"] = str(ws.root / "hidden")
    ws.config(otlp=receiver.url)
    found = json.loads(ws.cli("doctor", "--json").stdout)["findings"]
    (finding,) = [one for one in found if one["id"] == "otlp"]
    assert finding["status"] == "fail"
    assert "nothing is exported: it needs the extra [metrics]" in finding["what"]
    assert "pip install" in finding["mend"]
    assert ws.run() == 0
    assert told(ws, f"{NOT}: it needs the extra [metrics] (opentelemetry is not installed)")
    assert receiver.asked == []


def test_doctor_says_what_will_be_exported_and_sees_a_secret(ws: Workspace) -> None:
    for address, status, what in (
        ("http://localhost:4318", "ok", "are exported to http://localhost:4318"),
        ("https://example.org/abcdef0123456789abcd", "warn", "a secret seems to stand in"),
    ):
        ws.config(otlp=address)
        found = json.loads(ws.cli("doctor", "--json").stdout)["findings"]
        (finding,) = [one for one in found if one["id"] == "otlp"]
        assert (finding["status"], what in finding["what"]) == (status, True), finding


@pytest.mark.slow
def test_a_secret_of_the_address_is_in_no_log(ws: Workspace) -> None:
    with receiving() as gone:
        address = gone.url
    ws.environment |= {"WHERE": f"{address}/sesame"}
    ws.config(otlp="${WHERE}")
    ws.script(long_run("go"), DONE)
    process = ws.start()
    wait_until(lambda: told(ws, NOT), "the warning")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    kept = [path.read_bytes() for path in ws.state.rglob("*") if path.is_file()]
    assert not any(b"sesame" in text for text in (ws.log().encode(), *kept))


@pytest.mark.slow
def test_loops_of_one_supervisor_share_the_program(tmp_path: Path, receiver: Receiver) -> None:
    both = [Workspace(tmp_path, f"repo {name}") for name in "ab"]
    try:
        for ws in both:
            ws.config()
            ws.script(long_run("go"), DONE)
        process = supervise(*both, tables=f'otlp = "{receiver.url}"')
        for ws in both:
            ws.wait_runs(1)
        wait_until(lambda: receiver.asked, "the first request")
        assert len(exporters(both[0])) == 1
        (both[0].control / "go").touch()
        wait_until(lambda: both[0].status().get("exit"), "the end of one")
        assert len(exporters(both[0])) == 1
        (both[1].control / "go").touch()
        assert both[0].ended(process) == 0
        assert exporters(both[0]) == []
        places = {one.resource["service.instance.id"].partition(":")[2] for one in receiver.spans}
        assert places == {str(ws.state) for ws in both}
        assert len(receiver.named("iteration")) == sum(len(ws.journal()) for ws in both)
    finally:
        for ws in both:
            ws.close()


@pytest.mark.slow
def test_a_reload_takes_another_receiver_and_none(ws: Workspace, receiver: Receiver) -> None:
    ws.config(otlp=receiver.url)
    ws.script(long_run("one"), long_run("two"), long_run("three"), DONE)
    process = ws.start()
    wait_until(lambda: receiver.asked, "the first receiver")
    with receiving() as other:
        ws.config(otlp=other.url)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "config.changed" in ws.log(), "the reload")
        (ws.control / "one").touch()
        wait_until(lambda: other.asked, "the second receiver")
        ws.config()
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: ws.log().count("config.changed") == 2, "the reload")
        (ws.control / "two").touch()
        wait_until(lambda: exporters(ws) == [], "the end of the program")
        (ws.control / "three").touch()
        assert ws.ended(process) == 0
