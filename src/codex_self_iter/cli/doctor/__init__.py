"""`doctor`: everything that could stop a run tonight, and how to mend it. It changes nothing."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator

from codex_self_iter.cli.doctor import (
    checks_container,
    checks_fence,
    checks_git,
    checks_lanes,
    checks_loop,
    checks_machine,
)
from codex_self_iter.cli.doctor.finding import Check, Context, Finding, fail, good
from codex_self_iter.errors import ExitCode, UsageError
from codex_self_iter.settings import Settings, load
from codex_self_iter.setup.detect import with_gates

LOOP_CHECKS: tuple[Check, ...] = (
    *checks_loop.CHECKS,
    *checks_fence.CHECKS,
    *checks_container.CHECKS,
    *checks_git.CHECKS,
    *checks_lanes.CHECKS,
)
CONFIGURED: tuple[Check, ...] = (
    checks_loop.agent, checks_loop.spent, checks_loop.gates, checks_loop.hooks, checks_loop.notify,
    checks_fence.fence, checks_container.container
)  # fmt: skip
"""Checks that say nothing true while the configuration has errors."""
_MARKS = {"ok": "  ok  ", "warn": " warn ", "fail": " FAIL "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--workspace", metavar="DIR", help="the workspace (default: the current directory)")
    add("--config", metavar="FILE", help="the configuration file")
    add("--json", action="store_true", help="findings as JSON")
    add("--run-gates", action="store_true", help="run the gates, not only look for them")


def run(args: argparse.Namespace) -> int:
    """Print every finding. 0: nothing failed; 4: something needs a person."""
    findings = list(examine(args))
    failed = [finding for finding in findings if finding.status == "fail"]
    if args.json:
        text = json.dumps(_as_json(findings), indent=2, ensure_ascii=False)
    else:
        text = "\n".join([*map(_row, findings), "", _summary(findings)])
    sys.stdout.write(text + "\n")
    return int(ExitCode.NEEDS_HUMAN if failed else ExitCode.OK)


def examine(args: argparse.Namespace) -> Iterator[Finding]:
    """Every finding: the configuration, the machine once, then each loop."""
    settings, finding = _settings(args)
    yield from finding
    broken = any(one.status == "fail" for one in finding)
    context = Context(settings, os.environ, time.time(), args.run_gates)
    yield from run_checks(checks_machine.CHECKS, context)
    loops = settings.loops()
    for loop in loops:
        name = loop.name if len(loops) > 1 else ""
        checks = [check for check in LOOP_CHECKS if not (broken and check in CONFIGURED)]
        for found in run_checks(checks, dataclasses.replace(context, settings=loop)):
            yield dataclasses.replace(found, loop=name)


def run_checks(checks: Iterable[Check], context: Context) -> Iterator[Finding]:
    """The findings of some checks. One that raises is a finding and must not hide the others."""
    for check in checks:
        try:
            yield from list(check(context))
        except Exception as error:
            what = f"the check itself failed: {type(error).__name__}: {error}"
            mend = "report this line; the other checks are not affected"
            yield fail(f"check.{check.__name__}", what, mend)


def _settings(args: argparse.Namespace) -> tuple[Settings, list[Finding]]:
    """The configuration; where it has errors, the defaults, so that the others can be checked."""
    flags = {"workspace": args.workspace}
    try:
        settings = load(flags, config_file=args.config, environ=os.environ, cwd=os.getcwd())
        settings = with_gates(settings, os.environ)
    except UsageError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        mend = "mend it, then: codex-self-iter config check"
        found = [fail("config", line, mend) for line in lines]
        return Settings.model_validate({"workspace": os.path.abspath(args.workspace or ".")}), found
    source = ", ".join(map(str, settings.sources)) or "no file, defaults only"
    return settings, [good("config", source)]


def _row(finding: Finding) -> str:
    loop = f"{finding.loop}: " if finding.loop else ""
    mend = f"\n{'':8}mend: {finding.mend}" if finding.mend else ""
    return f"[{_MARKS[finding.status]}] {loop}{finding.id}: {finding.what}{mend}"


def _summary(findings: list[Finding]) -> str:
    failed = sum(finding.status == "fail" for finding in findings)
    warned = sum(finding.status == "warn" for finding in findings)
    verdict = "a run would be stopped or spoilt" if failed else "nothing stands in the way of a run"
    return f"{len(findings)} findings, {failed} failed, {warned} warnings: {verdict}."


def _as_json(findings: list[Finding]) -> dict[str, object]:
    ok = all(finding.status != "fail" for finding in findings)
    return {"schema": 1, "ok": ok, "findings": [dataclasses.asdict(one) for one in findings]}
