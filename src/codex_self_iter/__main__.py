"""`python -m codex_self_iter` and the `codex-self-iter` script."""

import sys


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        from codex_self_iter.cli import main as run_cli

        return run_cli(sys.argv[1:])
    except KeyboardInterrupt:  # while still importing
        return 130


if __name__ == "__main__":
    sys.exit(main())
