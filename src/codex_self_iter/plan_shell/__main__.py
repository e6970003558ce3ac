"""`python -m codex_self_iter.plan_shell [--plan PLAN] [--workspace DIR]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from codex_self_iter.errors import ExitCode, UsageError
from codex_self_iter.plan_shell.step import prepare_output, work


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="codex-self-iter-plan-shell",
        description="Do the next open item of a plan: run the shell commands under it and tick it.",
        epilog="Exit codes: 0 done, or nothing it can do; 1 a command failed; 2 bad usage or plan.",
    )
    here = "where the commands run (default: here)"
    parser.add_argument("--workspace", type=Path, default=Path("."), help=here)
    plan = "plan file, relative to the workspace (default: plan.md)"
    parser.add_argument("--plan", type=Path, default=Path("plan.md"), help=plan)
    prompt = "accepted for use in a command template; never read: the plan says it all"
    parser.add_argument("prompt_file", nargs="?", help=prompt)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one step and print its control block; returns the exit code."""
    prepare_output()
    args = _parser().parse_args(argv)
    workspace: Path = args.workspace
    try:
        if not workspace.is_dir():
            raise UsageError(f"workspace {workspace}: not a directory. Name one with --workspace.")
        answer = work(workspace / args.plan, workspace)
    except UsageError as error:
        print(f"plan-shell: {error}", file=sys.stderr)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        return ExitCode.SIGINT
    print(answer.render(), flush=True)
    return answer.exit_code


if __name__ == "__main__":
    sys.exit(main())
