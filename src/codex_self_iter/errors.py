"""Exit codes and the exception tree. Standard library only.

    CodexSelfIterError          exit 1: an internal error
    ├── UsageError              exit 2: bad usage, configuration, plan, workspace or state directory
    ├── WorkspaceBusyError      exit 75: another supervisor has this workspace
    ├── WorkspaceGoneError      exit 4: the workspace was deleted under its loop
    ├── AgentFailedError        exit 4: the agent of a single run has not done what it was asked
    └── StorageError            the state directory cannot be read or written *now*; callers wait and retry

An exception's message is one clear line (or a short list): what is wrong, where, and what to do."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """The process exit codes of the contract; service units rely on them."""

    OK = 0
    """The loop ended well: completed, stopped on request, iteration limit reached, SIGTERM."""
    INTERNAL = 1
    """A defect of the supervisor."""
    USAGE = 2
    """Bad usage, configuration, plan, workspace or state directory."""
    STAGNATED = 3
    """The loop went in circles and gave up."""
    NEEDS_HUMAN = 4
    """Budget spent, agent not logged in, `stop=true` with an unmet gate, too many errors."""
    BUSY = 75
    """Another supervisor has this workspace (sysexits EX_TEMPFAIL)."""
    SIGINT = 130
    """Interrupted from the keyboard."""


class CodexSelfIterError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = ExitCode.INTERNAL


class UsageError(CodexSelfIterError):
    """The person can mend this: bad usage, configuration, plan, workspace or state directory."""

    exit_code = ExitCode.USAGE


class WorkspaceBusyError(CodexSelfIterError):
    """Another supervisor has this workspace; the message says who."""

    exit_code = ExitCode.BUSY


class WorkspaceGoneError(CodexSelfIterError):
    """The workspace was deleted, moved away or unmounted while its loop ran."""

    exit_code = ExitCode.NEEDS_HUMAN


class AgentFailedError(CodexSelfIterError):
    """An agent that was run once, for a command, failed or did not answer what was asked."""

    exit_code = ExitCode.NEEDS_HUMAN


class StorageError(CodexSelfIterError):
    """The state directory cannot be read or written now (disk full, permission lost); retry
    later."""


def first_cause(error: BaseException) -> BaseException:
    """What task groups wrapped: the error in it that says most to the person."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    flat = [first_cause(one) for one in error.exceptions]
    return next((one for one in flat if isinstance(one, CodexSelfIterError)), flat[0])
