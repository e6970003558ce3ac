"""From the agent's start to a session in its mode: initialize, session, mode, model."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable

from codex_self_iter import __version__
from codex_self_iter.acp_host.wire import FailedError, RefusalError, Wire
from codex_self_iter.core.acp_agents import ACP_AGENTS, AcpRow, Setting
from codex_self_iter.core.foreign import as_dict, as_list, as_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

PROTOCOL = 1
"""The version that is asked for: agents that are asked for 2, a draft, answer 2."""
START_SEC = 90.0
"""For the answer to `initialize`, and to `session/new`: the slowest measured took 16 s and 6 s."""
PROBE_SEC = 45.0
"""The same of a probe: less than whoever has it done allows for, so that it says what was missed."""
SETTLE_SEC = 60.0
"""For each answer that sets a mode."""
AUTH = -32000
_CHOSEN = {"model": "model", "thought_level": "effort"}


class Session:
    """A session with one agent.

    Attributes:
        row: what is particular to the agent.
        ident: the session's id.
        steers: the agent takes texts into the running turn.
        met: it has answered as an ACP agent does."""

    def __init__(self, options: Namespace, wire: Wire, emit: Callable[..., None]) -> None:
        self._options, self._wire, self._emit = options, wire, emit
        self.row: AcpRow = ACP_AGENTS.get(options.agent) or AcpRow(())
        self.ident = ""
        self.steers = False
        self.met = False

    def open(self) -> None:
        """Do all of it. Raises FailedError, GoneError, SignalledError."""
        hello = self._hello()
        about = as_dict(hello.get("agentInfo"))
        name = as_text(about.get("name"))
        if not self.row.command:
            found = (row for row in ACP_AGENTS.values() if name.lower() in row.names)
            self.row = next(found, self.row)
        self._emit("agent", name=name, version=as_text(about.get("version")))
        self.steers = as_dict(as_dict(hello.get("_meta")).get("steering")).get("supported") is True
        self._set_up(self._session(as_dict(hello.get("agentCapabilities"))))

    def _call(self, method: str, timeout_sec: float, **given: object) -> Json:
        patience = min(timeout_sec, PROBE_SEC) if self._options.probe else timeout_sec
        try:
            return self._wire.call(method, patience, **given)
        except TimeoutError as error:
            raise FailedError(str(error), code="mute") from None
        except RefusalError as error:
            code = "auth_required" if error.code == AUTH else error.code
            raise FailedError(error.message, code=code, method=method, data=error.data) from None

    def _hello(self) -> Json:
        """The answer to `initialize`."""
        none = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
        ours = {"name": "codex-self-iter", "version": __version__}
        try:
            hello = self._call(
                "initialize",
                START_SEC,
                protocolVersion=PROTOCOL,
                clientCapabilities=none,
                clientInfo=ours,
            )
        except FailedError as error:
            if error.fields["code"] == "auth_required":
                raise
            raise FailedError(f"it is no ACP agent: {error}", code="no_acp") from None
        spoken = hello.get("protocolVersion")
        if spoken != PROTOCOL:
            text = f"it speaks version {spoken!r} of the Agent Client Protocol, not {PROTOCOL}"
            raise FailedError(text, code="no_acp")
        self.met = True
        return hello

    def _session(self, able: Json) -> Json:
        """A new session, or the old one that is asked for."""
        where: dict[str, object] = {"cwd": self._options.cwd, "mcpServers": []}
        old = self._options.resume
        if not old:
            opened = self._call("session/new", START_SEC, **where)
            self.ident = as_text(opened.get("sessionId"))
            if not self.ident:
                raise FailedError("it opened no session", code="no_acp")
        else:
            opened = self._old_session(old, able, where)
        self._emit("session", id=self.ident, resumed=bool(old))
        return opened

    def _old_session(self, old: str, able: Json, where: dict[str, object]) -> Json:
        kinds = [kind for kind in ("resume", "load") if self.row.loads and _offers(able, kind)]
        why = "it goes on with none"
        for kind in kinds:
            try:
                opened = self._call(f"session/{kind}", START_SEC, sessionId=old, **where)
            except FailedError as failure:
                if failure.fields["code"] == "auth_required":
                    raise
                why = str(failure)
            else:
                self.ident = old
                return opened
        raise FailedError(f"session {old} not found: {why}", code="session")

    def _set_up(self, opened: Json) -> None:
        """Put the session into its mode, and choose the model. What an agent does by default
        differs and changes between versions."""
        options = self._options
        wanted = self.row.setting(bypass=options.mode == "bypass", read_only=options.read_only)
        if wanted.mode:
            self._set_mode(wanted, opened)
        if wanted.option:
            self._set_option(wanted.option, wanted.value)
        if wanted == Setting() and options.mode != "bypass":
            self._emit("note", text="nothing is known of its modes: what it does unasked, it does")
        offered = [as_dict(one) for one in as_list(opened.get("configOptions"))]
        for category, value in (("model", options.model), ("thought_level", options.effort)):
            ids = (as_text(one.get("id")) for one in offered if one.get("category") == category)
            if not value:
                continue
            if option := next(ids, ""):
                self._set_option(option, value)
            elif category == "model" and opened.get("models"):
                self._call("session/set_model", SETTLE_SEC, sessionId=self.ident, modelId=value)
            else:
                self._emit("note", text=f"over ACP it lets nobody choose its {_CHOSEN[category]}")

    def _set_mode(self, wanted: Setting, opened: Json) -> None:
        modes = as_list(as_dict(opened.get("modes")).get("availableModes"))
        ids = [as_text(as_dict(one).get("id")) for one in modes]
        fitting = (one for one in ids if one == wanted.mode or _end_of(one) == wanted.mode)
        why = f"it offers {', '.join(ids) or 'none'}"
        if chosen := next(fitting, ""):
            try:
                self._call("session/set_mode", SETTLE_SEC, sessionId=self.ident, modeId=chosen)
            except FailedError as failure:
                why = str(failure)
            else:
                return
        text = f"it cannot be put into its mode {wanted.mode!r} ({why})"
        if self._options.mode != "bypass":
            raise FailedError(f"{text}: what it does unasked is not known", code="acp_mode")
        self._emit("note", text=text)  # what it asks for is allowed all the same

    def _set_option(self, option: str, value: str) -> None:
        given = {"sessionId": self.ident, "configId": option, "value": value}
        self._call("session/set_config_option", SETTLE_SEC, **given)


def _offers(able: Json, kind: str) -> bool:
    """Whether an agent says that it can go on with an old session in this way."""
    more = as_dict(able.get("sessionCapabilities"))
    return able.get("loadSession") is True if kind == "load" else more.get(kind) is not None


def _end_of(ident: str) -> str:
    """The last word of a mode's id, which may be a URI."""
    return os.path.basename(ident.replace("#", "/"))
