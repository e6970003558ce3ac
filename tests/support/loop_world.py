"""A world for the core alone: files, agents and clocks in memory, and an interpreter of the core's
commands.

`Disk` outlives a crash of the supervisor, and so does the agent that `Agents` has running. What an
agent will answer is written down beforehand (`Script`) and does not depend on who asks: a crash
must not change the story."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from codex_self_iter.core import commands as cmd
from codex_self_iter.core import events as ev
from codex_self_iter.core import waits
from codex_self_iter.core.agent_report import AgentReport, Failure, FailureClass, Usage
from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.machine import decide
from codex_self_iter.core.owed import NOTHING, Owed
from codex_self_iter.core.policy import AgentPolicy, Policy
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.core.state import Dropped, LoopState, Message, OpenRun, Step, to_json
from codex_self_iter.core.terms import Mode, Moment, Role, State
from codex_self_iter.world.state.codec import from_json, recover

GOAL = "goal"
ENDS = (State.COMPLETED, State.STOPPED, State.STAGNATED, State.BLOCKED)
STARTERS = (cmd.Prepare, cmd.StartRun, cmd.RunGates, cmd.Keep, cmd.Exit)


def policy(*agents: str, steers: bool = False, **changes: Any) -> Policy:
    """A policy whose agents each have an account of their own name."""
    names = agents or ("one",)
    order = tuple(AgentPolicy(name, f"account-{name}", steers=steers) for name in names)
    changes = {"checkpoints": False} | changes
    changes["mode"] = Mode(changes.get("mode", Mode.GOAL))
    return Policy(agents=dict.fromkeys(Role, order), **changes)


# -- what must hold always -------------------------------------------------------------------------


def invariants(state: LoopState) -> None:
    """Whatever happens, a state is one of these."""
    opened = state.open
    assert state.finished == (state.exit_code is not None)
    if state.finished:
        assert state.state in ENDS
        assert not state.preparing
        assert state.ending is None
        assert opened is None or opened.run is None
    else:
        assert state.state not in (State.COMPLETED, State.STOPPED, State.STAGNATED)
    if opened is not None:
        assert opened.number == state.iteration
        assert opened.run is None or (opened.step is Step.RUN and opened.run.attempt >= 1)
        files = {(message.name, message.mark) for message in opened.messages}
        assert len(files) == len(opened.messages)
        assert opened.step is Step.RUN or opened.block is not None or opened.failure is not None
    if state.preparing:
        assert opened is None or (opened.step is Step.RUN and opened.run is None)
    if state.ending is not None:
        assert opened is not None
        assert opened.run is not None or opened.step is not Step.RUN
    if state.state is State.PAUSED:
        assert state.paused or state.preparing
    if state.state is State.STOPPING:
        assert opened is not None
    assert state.wait is None or state.wait.length >= 0
    assert all(
        value >= 0
        for value in dataclasses.asdict(state.counters).values()
        if isinstance(value, int)
    )


def round_trips(state: LoopState) -> None:
    """What is written is what will be read."""
    assert from_json(LoopState, json.loads(json.dumps(to_json(state)))) == state


def lawful(before: LoopState, event: ev.Event, commands: Sequence[cmd.Command]) -> None:
    """The order that durability needs."""
    kinds = [type(command) for command in commands]
    starts = kinds[kinds.index(cmd.StartRun) - 1 :] if cmd.StartRun in kinds else []
    assert sum(kind in STARTERS for kind in kinds) <= 1
    assert kinds.count(cmd.Journal) <= 1
    if before.finished and not isinstance(event, ev.Boot):
        assert not kinds
    if cmd.StartRun in kinds:
        assert kinds.index(cmd.Persist) < kinds.index(cmd.StartRun)
        assert starts == [cmd.TakeMessages, cmd.StartRun]
    if cmd.Journal in kinds:
        at = kinds.index(cmd.Journal)
        assert set(kinds[:at]) <= {cmd.Notify}  # budget notices of the run that has just ended
        assert cmd.Persist in kinds[at:] or cmd.Prepare in kinds[at:]
    if cmd.Exit in kinds:
        assert kinds[-1] is cmd.Exit
        assert cmd.Persist in kinds


# -- the story -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Answer:
    """How one run goes."""

    text: str = ""
    cause: EndCause = EndCause.EXIT
    exit_code: int = 0
    failure: Failure | None = None
    changed: bool | None = True
    seconds: float = 60.0
    usage: Usage | None = None
    gate_files: dict[str, str] = dataclasses.field(default_factory=dict)
    plan_open: int = 0
    ticked: int = 0
    ticked_marks: tuple[str, ...] = ()
    dropped: Dropped | None = None


def block(goal: str = "go on", **fields: Any) -> str:
    return json.dumps(
        {"summary": "did it", "next_goal": goal, "stop": False, "reason": ""} | fields
    )


def work(goal: str, **more: Any) -> Answer:
    return Answer(block(goal), **more)


def claim(**more: Any) -> Answer:
    return Answer(block("", completed=True), **more)


def fail(kind: FailureClass, message: str = "it failed", reset_at: float | None = None) -> Answer:
    return Answer("", exit_code=1, failure=Failure(kind, message, reset_at), changed=False)


def plan(stop: bool = False) -> Answer:
    return Answer(
        json.dumps(
            {
                "objective": "o",
                "execution_prompt": "p",
                "done_if": "d",
                "stop": stop,
                "rationale": "r",
            }
        ),
        changed=False,
    )


def review(go_on: bool, focus: str = "") -> Answer:
    return Answer(
        json.dumps({"continue": go_on, "confidence": 0.9, "next_focus": focus, "reason": "looked"}),
        changed=False,
    )


def passing(command: str = "true") -> tuple[GateResult, ...]:
    return (GateResult(command, 0, 1.0, "fine"),)


def failing(output: str = "1 failed", command: str = "true") -> tuple[GateResult, ...]:
    return (GateResult(command, 1, 1.0, output),)


@dataclasses.dataclass
class Script:
    """What each role's runs answer, in order, the last one for ever; for each executor's run the
    gates."""

    executor: Sequence[Answer]
    planner: Sequence[Answer] = (plan(),)
    reviewer: Sequence[Answer] = (review(True),)
    gates: Sequence[tuple[GateResult, ...]] = (passing(),)

    def answer(self, role: Role, index: int) -> Answer:
        answers: Sequence[Answer] = getattr(self, role.value)
        return answers[min(index, len(answers) - 1)]


# -- what outlives a crash -------------------------------------------------------------------------


class Disk:
    """The state directory."""

    def __init__(self) -> None:
        self.runtime: LoopState | None = None
        self.journal: list[dict[str, Any]] = []
        self.notes: tuple[str, ...] = ()
        self.inbox: dict[str, str] = {}
        self.urgent: set[str] = set()
        """Messages that are to be heard at once."""
        self.stop: ev.Stop | None = None
        self.paused = False

    def load(self) -> LoopState:
        """What the next supervisor reads."""
        runtime = None if self.runtime is None else json.loads(json.dumps(to_json(self.runtime)))
        line = json.loads(json.dumps(self.journal[-1])) if self.journal else None
        return recover(runtime, line, "loop")


class Agents:
    """The agent that is running, if there is one, and what every message's readers were."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.running: OpenRun | None = None
        self.next: dict[str, int] = {}
        self.readers: dict[str, list[str]] = {}
        """Message name -> runs that worked with it in their prompt."""
        self.ended: tuple[OpenRun, Answer] | None = None
        """The last run that came to its own end: its files say how."""
        self._reading: tuple[str, ...] = ()

    def start(self, run: OpenRun, messages: tuple[str, ...]) -> None:
        assert self.running is None, "a second agent beside a living one"
        self.running, self._reading = run, messages

    def give(self, names: Iterable[str]) -> None:
        """Its running turn takes these messages, each once."""
        self._reading = tuple(dict.fromkeys((*self._reading, *names)))

    def finish(self) -> tuple[OpenRun, Answer]:
        """It ends by itself: its work is done. Asked again, its files say the same."""
        if self.running is None:
            assert self.ended is not None
            return self.ended
        role = self.running.role
        index = self.next.get(role.value, 0)
        self.next[role.value] = index + 1
        answer = self.script.answer(role, index)
        if answer.failure is None:
            for name in self._reading:
                self.readers.setdefault(name, []).append(self.running.run_id)
        self.ended = self.running, answer
        self.running = None
        return self.ended

    def gone(self) -> None:
        self.running = None


class CrashError(Exception):
    """The supervisor is killed here."""


class World:
    """One supervisor over disk and agents; `boot` makes the next one."""

    def __init__(
        self,
        script: Script,
        rules: Policy,
        *,
        at: dict[tuple[str, int], Callable[[World], None]] | None = None,
        swap: Callable[[tuple[cmd.Command, ...]], tuple[cmd.Command, ...]] | None = None,
    ) -> None:
        self.rules = rules
        self.disk, self.agents = Disk(), Agents(script)
        self.wall, self.up, self.boot_id = 1_700_000_000.0, 1_000.0, "boot-1"
        self.at = dict(at or {})
        self.swap = swap
        self.executed = 0
        self.crash_at: set[int] = set()
        self.heard = 0.0
        self.exit: cmd.Exit | None = None
        self.log: list[str] = []
        self.slept: list[float] = []
        self.notified: list[str] = []
        self.shared: list[cmd.ShareLimit] = []
        self.state = LoopState("")
        self.queue: deque[Callable[[], ev.Event]] = deque()

    # -- life --------------------------------------------------------------------------------------

    def moment(self) -> Moment:
        return Moment(self.wall, self.up, self.boot_id, 0.5)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.up += seconds

    def boot(self, *, kill: bool = False) -> None:
        """A new supervisor: read the disk, look for the orphan, go on."""
        self.queue.clear()
        self.state = self.disk.load()
        invariants(self.state)
        run = self.state.open.run if self.state.open else None
        trace = ev.Trace.NONE
        if self.agents.running is not None:
            assert run is not None, "an agent that nobody knows of"
            assert run.run_id == self.agents.running.run_id
            trace = ev.Trace.ADOPTED
            if kill or self.disk.stop is not None:
                self.agents.gone()
                trace = ev.Trace.GONE
            else:
                self.queue.append(self._run_ends)
        elif run is not None and self.agents.ended is not None and self.agents.ended[0] == run:
            trace = ev.Trace.ADOPTED  # it ended by itself; its files say how
            self.queue.append(self._run_ends)
        elif run is not None and run.run_id in self.log:
            trace = ev.Trace.GONE
        self.handle(ev.Boot(trace, paused=self.disk.paused, heard=self.heard))
        if self.disk.stop is not None:
            self.handle(dataclasses.replace(self.disk.stop, after_iteration=False))
        elif GOAL in self.disk.inbox:
            self.handle(ev.GoalSet(self.disk.inbox[GOAL], (GOAL,)))
        if self.agents.running is not None and (
            waiting := self.disk.urgent & self.disk.inbox.keys()
        ):
            self.handle(ev.Steer(now=True, names=tuple(waiting)))

    def run(self, limit: int = 400) -> cmd.Exit:
        """Go on until the loop has ended."""
        for _ in range(limit):
            if self.exit is not None:
                return self.exit
            self.step()
        raise AssertionError(f"no end after {limit} steps: {self.state.state} {self.state.reason}")

    def step(self) -> None:
        """Let the next thing happen."""
        self._meanwhile()
        if self.exit is not None:
            return
        if self.queue:
            self.handle(self.queue.popleft()())
        elif self.state.paused:
            self.disk.paused = False
            self.handle(ev.Resume())
        else:
            wait = self.state.wait
            assert wait is not None, f"nothing is on and nothing is waited for: {self.state}"
            rest = waits.rest(wait, self.moment())
            assert 0 <= rest <= wait.length
            self.slept.append(rest)
            self.pass_time(rest)
            self.handle(ev.Tick())

    def _meanwhile(self) -> None:
        """What the script of the person says for this situation, once."""
        opened = self.state.open
        kind = self.state.state.value
        if opened is not None and opened.run is not None and self.agents.running is not None:
            kind = f"{opened.run.role}"
        elif opened is not None and opened.step is not Step.RUN:
            kind = opened.step.value
        action = self.at.pop((kind, self.state.iteration), None)
        if action is not None:
            action(self)

    def handle(self, event: ev.Event) -> None:
        """Decide, then carry out, as the supervisor does."""
        before = self.state
        state, commands = decide(before, event, self.rules, self.moment())
        invariants(state)
        lawful(before, event, commands)
        self.state = state
        for command in self.swap(commands) if self.swap else commands:
            if self.executed in self.crash_at:
                self.executed += 1
                raise CrashError
            self.executed += 1
            self.carry_out(command, state)
            self.pass_time(0.01)

    # -- commands ----------------------------------------------------------------------------------

    def carry_out(self, command: cmd.Command, state: LoopState) -> None:
        if isinstance(command, cmd.Persist):
            self.disk.runtime = state  # becomes JSON when it is read
        elif isinstance(command, cmd.Journal):
            assert command.record["iteration"] == 1 + (
                self.disk.journal[-1]["iteration"] if self.disk.journal else 0
            ), "a number is repeated or left out"
            self.disk.journal.append(command.record)
        elif isinstance(command, cmd.KeepNotes):
            self.disk.notes = tuple(dict.fromkeys((*self.disk.notes, *command.notes)))
        elif isinstance(command, cmd.TakeMessages):
            for message in command.messages:
                if message.mark in ("", self.disk.inbox.get(message.name)):
                    self.disk.inbox.pop(message.name, None)
        elif isinstance(command, cmd.SteerRun):
            self.agents.give(command.names)
            given = tuple(Message(name, self.disk.inbox[name], mark=self.disk.inbox[name])
                          for name in command.names)  # fmt: skip
            self.queue.appendleft(lambda: ev.Steered(command.run_id, given))
        elif isinstance(command, cmd.Prepare):
            self.queue.append(self._prepared)
        elif isinstance(command, cmd.StartRun):
            assert state.open is not None
            self.agents.start(command.run, tuple(message.name for message in state.open.messages))
            self.log.append(command.run.run_id)
            self.queue.append(self._run_ends)
        elif isinstance(command, cmd.RunGates):
            self.queue.append(self._gates_end)
        elif isinstance(command, cmd.Keep):
            # a hook refuses the commits of every other iteration
            refused = Owed(1, command.iteration, ("a.txt",), "refused", mendable=True)
            owed = NOTHING if command.iteration % 2 else refused
            self.queue.append(lambda: ev.Kept("c1", "k1", "head-2", owed=owed))
        elif isinstance(command, cmd.Abort):
            self._abort()
        elif isinstance(command, cmd.Exit):
            assert self.agents.running is None
            self.exit = command
        elif isinstance(command, cmd.Notify):
            self.notified.append(command.event)
        elif isinstance(command, cmd.ShareLimit):
            self.shared.append(command)

    def _prepared(self) -> ev.Event:
        messages = tuple(
            Message(name, text, mark=text)
            for name, text in sorted(self.disk.inbox.items())
            if name != GOAL
        )
        return ev.Prepared(messages, "head-1")

    def _run_ends(self) -> ev.Event:
        run, answer = self.agents.finish()
        self.pass_time(answer.seconds)
        asked = self.at.pop(("looked at", self.state.iteration), None)
        if asked is not None:  # somebody asks for an end while its output is being read
            asked(self)
        outcome = RunOutcome(
            run.run_id, answer.cause, answer.exit_code, None, run.started_at, answer.seconds
        )
        report = AgentReport(answer.text, usage=answer.usage, failure=answer.failure)
        return ev.RunEnded(
            run.run_id, outcome, report, changed=answer.changed, gate_files=answer.gate_files,
            plan_open=answer.plan_open,
            ticked=answer.ticked,
            ticked_marks=answer.ticked_marks,
            dropped=answer.dropped,
        )  # fmt: skip

    def _gates_end(self) -> ev.Event:
        self.pass_time(10.0)
        results = self.agents.script.gates
        index = self.agents.next["executor"] - 1
        return ev.GatesEnded(results[min(index, len(results) - 1)])

    def _abort(self) -> None:
        run = self.agents.running
        if run is not None:
            self.agents.gone()
            self.agents.ended = run, Answer("", EndCause.REQUEST, 143, changed=False)
            outcome = RunOutcome(run.run_id, EndCause.REQUEST, None, 15, run.started_at, 5.0)
            event: ev.Event = ev.RunEnded(run.run_id, outcome, AgentReport(""), changed=False)
        elif self.state.open is not None and self.state.open.step is Step.VERIFY:
            event = ev.GatesEnded((), aborted=True)
        else:
            return  # it had ended by itself already
        self.queue.clear()
        self.queue.append(lambda: event)

    # -- what the person does ----------------------------------------------------------------------

    def say(self, name: str, text: str = "look at this", now: bool = False) -> None:
        self.disk.inbox[name] = text
        self.disk.urgent |= {name} if now else set()
        self.handle(ev.Steer(now, (name,) if now else ()))

    def set_goal(self, goal: str) -> None:
        self.disk.inbox[GOAL] = goal
        self.handle(ev.GoalSet(goal, (GOAL,)))

    def stop(self, after_iteration: bool = False) -> None:
        self.disk.stop = ev.Stop("a STOP file", after_iteration)
        self.handle(self.disk.stop)

    def pause(self, now: bool = False) -> None:
        self.disk.paused = True
        self.handle(ev.Pause("a PAUSE file", now))

    # -- what came of it ---------------------------------------------------------------------------

    @property
    def verdicts(self) -> list[str]:
        return [line["verdict"] for line in self.disk.journal]
