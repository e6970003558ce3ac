"""The kinds of faults that the tests cause, and which test belongs to which: docs/faults.md is made
of it (`scripts/fault-report.sh`).

A file belongs to one kind, or to several with the tests that are named; `tests/project/`
checks that no file of the rooms that cause faults is left out."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Kind:
    """One section of the page: what is done to the program, by which tests.

    A test is a path below `tests/`, or `path::first words of its name` for some of a file."""

    title: str
    done: str
    tests: tuple[str, ...]


KINDS = (
    Kind(
        "Kills",
        "SIGKILL for the supervisor, its launcher, a run's recorder, the agent, the whole process group; at random"
        " moments and at the moment at which a chosen file changes.",
        (
            "faults/test_kill_nine.py",
            "program/test_durability_kept.py::test_nothing_is_lost_when",
            "program/test_durability_meddling.py::test_an_agent_that_kills",
            "program/test_durability_meddling.py::test_killing_the_whole_group",
            "program/test_control_messages.py::test_a_killed_supervisor",
            "program/test_control_stop.py::test_a_run_whose_supervisor_was_killed",
            "program/test_control_stop.py::test_what_works_on_without_its_supervisor",
            "program/test_control_stop.py::test_a_stop_ends_what_the_last",
            "program/test_owed.py::test_killed_",
            "program/test_owed.py::test_what_an_ended_run_had_staged",
            "program/test_proof.py::test_a_crash_in_one_role",
            "program/test_proof.py::test_what_a_run_deleted_that_died",
            "program/test_reported.py::test_no_second_agent_beside",
            "program/test_loop.py::test_a_run_that_ended_while_nobody",
            "program/test_loop.py::test_a_living_orphan",
            "program/test_distrust.py::test_a_fifo_among_the_records",
            "world/process/test_host.py::test_a_killed_launcher",
            "world/process/test_host.py::test_what_was_printed_before_the_recorder",
            "world/process/test_host.py::test_an_adopted_run",
            "world/process/test_host.py::test_an_agent_that_kills_its_recorder",
            "world/process/test_host.py::test_no_trace_is_none",
            "world/state/test_lock.py::test_a_killed_one",
        ),
    ),
    Kind(
        "Crash points",
        "The list of what is to be done next is cut at every place, and again soon after the first cut; the next start"
        " must come to the end of an undisturbed run. Damaged records of every kind.",
        ("core/test_crash_points.py", "core/test_recovery.py"),
    ),
    Kind(
        "Full and read-only disks",
        "Real small file systems without room, without inodes, mounted read-only, without permission; limits of file size.",
        (
            "faults/test_disk_full_and_read_only.py",
            "program/test_durability_disk.py",
            "program/test_reported.py::test_a_repository_that_is_read_only",
            "program/test_reported.py::test_the_exit_code_tells_the_end",
            "program/test_side_effects.py::test_a_repository_without_write",
            "world/process/test_output.py::test_a_full_disk",
            "world/state/test_durable.py",
        ),
    ),
    Kind(
        "Clocks",
        "The wall clock of the whole program is set by hours and days, forwards and backwards, before and during waits and"
        " runs (libfaketime); suspend and reboot in virtual time.",
        (
            "program/test_durability_clocks.py",
            "supervisor/test_virtual_waits.py",
            "world/test_clock.py",
            "world/process/test_monitor.py::test_file_watch_survives",
            "world/process/test_monitor.py::test_a_supervisor_that_stood_still",
        ),
    ),
    Kind(
        "Escapes",
        "Processes that get away from their agent: own session, double fork, emptied environment, ignored signals, a name"
        " like ours, all at once.",
        (
            "faults/test_escape_matrix.py",
            "world/process/test_cgroup.py",
            "program/test_distrust.py::test_left_overs_that_cannot",
            "program/test_many.py::test_a_left_over_of_one_loop",
            "program/test_loop.py::test_a_time_out_ends_a_deaf_agent",
            "world/process/test_host.py",
        ),
    ),
    Kind(
        "Attacks by the agent",
        "An agent that writes to hooks, gates, configuration, state, its user's files and other workspaces, by links, moves,"
        " mounts, descriptors and other processes; reads keys; signals and traces; talks to sockets.",
        (
            "fence/test_adversary.py",
            "fence/test_walls.py",
            "fence/test_told.py",
            "fence/test_ground.py",
        ),
    ),
    Kind(
        "Floods, hangs and limits of the machine",
        "Output without end, lines of 200 MiB, fork bombs, no more processes, descriptors or memory, agents that hang, stop"
        " or are deaf.",
        (
            "world/process/test_monitor.py",
            "world/process/test_output.py",
            "program/test_distrust.py::test_at_the_limit_of_processes",
            "program/test_distrust.py::test_the_watcher_survives",
            "program/test_distrust.py::test_without_descriptors_of_processes",
            "program/test_cost.py::test_more_loops_than_open_files",
            "program/test_many.py::test_memory_in_use",
            "program/test_surroundings.py::test_at_the_limit",
            "program/test_control_results.py::test_a_call_that_never",
            "program/test_proof.py::test_a_gate_that_hangs",
            "world/test_bounded.py",
        ),
    ),
    Kind(
        "Churn and a console that nobody reads",
        "A thousand file events a second, no inotify, directories that are made anew, Ctrl-S and full pipes.",
        (
            "program/test_control_disturbed.py",
            "program/test_control_watching.py",
            "program/test_console.py",
            "world/test_console.py",
            "world/test_watch.py",
        ),
    ),
    Kind(
        "Signals and stops at every moment",
        "STOP files, SIGTERM, SIGINT, SIGHUP, SIGQUIT in every phase, twice, from within the agent's own tree, before the"
        " first line of the program, while a result is read.",
        ("program/test_control_stop.py", "program/test_control_results.py"),
    ),
    Kind(
        "The state directory meddled with",
        "`git clean -xdf`, FIFOs, links and directories in the place of files, garbage, truncation, rights taken away, backups"
        " put back, foreign versions.",
        (
            "program/test_durability_meddling.py",
            "program/test_durability_kept.py",
            "program/test_distrust.py",
            "world/state/test_journal.py",
            "world/state/test_lock.py",
            "world/state/test_root.py",
            "world/state/test_store.py",
            "program/test_loop.py::test_broken_state",
            "program/test_loop.py::test_state_from_a_newer",
            "program/test_loop.py::test_a_stale_lock_file",
        ),
    ),
    Kind(
        "git",
        "Refusing, hanging and editing hooks, locks, filters, signing, branches that change, stashes, a repository that is gone"
        " or another's.",
        (
            "program/test_owed.py",
            "program/test_side_effects.py",
            "program/test_reported.py::test_a_signing_tool",
        ),
    ),
    Kind(
        "Lanes and landing",
        "Edits, commits, rebases and resets of a person while lanes work and land, conflicts, red combinations, agents that"
        " leave their lane, work trees that are dirty, lived in or cannot be made, locks, stops in each phase, SIGKILL at"
        " random moments.",
        (
            "lanes/faults/test_branches.py",
            "lanes/faults/test_checkout.py",
            "lanes/faults/test_clearing.py",
            "lanes/faults/test_kill_nine.py",
            "lanes/faults/test_landing.py",
            "lanes/faults/test_making.py",
            "lanes/faults/test_plan.py",
            "lanes/faults/test_stops.py",
            "lanes/test_twelve_items.py",
            "world/git/test_landing_guards.py",
            "world/git/test_landing_killed.py",
        ),
    ),
    Kind(
        "Networks, limits and logins",
        "Usage limits with and without an end, overload, no network, no login, no credit, prompts that do not fit.",
        (
            "program/test_agents.py",
            "program/test_agents_words.py",
            "program/test_bounds.py",
            "core/test_bounds.py",
            "agents/test_error_bodies.py",
        ),
    ),
    Kind(
        "Agents and their CLIs",
        "Answers that linger, die or are broken, words that prove nothing, claims without proof, circles; the real CLIs"
        " against a local model server with faults.",
        (
            "program/test_answers_count.py",
            "program/test_proof.py",
            "program/test_scratch.py",
            "agents/test_field.py",
            "core/test_field.py",
            "agents/test_real_claude.py",
            "agents/test_real_codex.py",
            "agents/test_real_others.py",
            "agents/test_real_program.py",
            "agents/test_real_recipes.py",
        ),
    ),
    Kind(
        "Surroundings",
        "No home, no terminal, no working directory, no workspace, no /proc, another locale, another user's files.",
        ("program/test_surroundings.py",),
    ),
    Kind(
        "Many loops",
        "Bad workspaces, deleted repositories, crashes of one loop among others, configuration files that come and go.",
        ("program/test_many.py", "supervisor/test_bad_ends.py"),
    ),
    Kind(
        "Under systemd",
        "The units under a real systemd in namespaces of their own: kills, crash loops, a supervisor that is deaf or stopped.",
        (
            "service/test_systemd_lab.py",
            "service/test_systemd_page.py",
            "service/test_systemd_supervisor.py",
        ),
    ),
)

ROOMS = (
    "faults/test_*.py",
    "lanes/faults/test_*.py",
    "program/test_durability*.py",
    "program/test_distrust*.py",
    "program/test_control_disturbed*.py",
    "program/test_surroundings*.py",
    "program/test_side_effects*.py",
    "program/test_owed*.py",
    "program/test_agents*.py",
    "program/test_bounds*.py",
    "service/test_systemd*.py",
    "agents/test_real*.py",
)
"""Files whose tests all cause faults: none may be without a kind."""


def files() -> list[str]:
    """Every file with a test that belongs to a kind, relative to `tests/`."""
    return sorted({test.partition("::")[0] for kind in KINDS for test in kind.tests})


def kind_of(file: str, name: str) -> Kind | None:
    """Where a test belongs: by its own name if it is named, else by its file."""
    by_file: Kind | None = None
    for kind in KINDS:
        for test in kind.tests:
            path, _, begins = test.partition("::")
            if path == file and begins and name.startswith(begins):
                return kind
            if path == file and not begins:
                by_file = kind
    return by_file


@cache
def names(file: str) -> tuple[str, ...]:
    """The test functions of a file in its order, also those of classes."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return tuple(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    )


def chosen() -> list[str]:
    """What to give to pytest: whole files, and of the others the tests that have a kind."""
    found = []
    for file in files():
        having = [name for name in names(file) if kind_of(file, name)]
        whole = len(having) == len(names(file))
        found += [f"tests/{file}"] if whole else [f"tests/{file}::{name}" for name in having]
    return found


def unmatched() -> list[str]:
    """Parts of the list above that name no test."""
    return [
        test
        for kind in KINDS
        for test in kind.tests
        for file, _, begins in [test.partition("::")]
        if not (TESTS / file).is_file() or not any(name.startswith(begins) for name in names(file))
    ]


if __name__ == "__main__":
    print("\n".join(chosen()))
