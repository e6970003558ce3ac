"""Shell completion: commands, options, names of loops. Hidden from `--help`.

`complete --script SHELL` prints what a shell is to source."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from codex_self_iter.errors import ExitCode, UsageError

SCRIPTS = {
    "bash": """_codex_self_iter() {
  local IFS=$'\\n'
  COMPREPLY=($(codex-self-iter complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _codex_self_iter codex-self-iter
""",
    "zsh": """#compdef codex-self-iter
_codex_self_iter() {
  local -a found
  found=("${(@f)$(codex-self-iter complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  compadd -a found || _files
}
if [[ ${funcstack[1]} == _codex-self-iter ]]; then
  _codex_self_iter "$@"
else
  compdef _codex_self_iter codex-self-iter
fi
""",
    "fish": """function __codex_self_iter
  codex-self-iter complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null
end
complete -c codex-self-iter -a '(__codex_self_iter)'
""",
}
NAMED = (
    "status", "stop", "pause", "resume", "logs", "history", "show", "diff", "rewind", "steer", "goal",
)  # fmt: skip
"""Commands whose first word may be the name of a loop."""

ACTIONS = {
    "config": ("show", "check", "schema"), "plan": ("check", "show"),
    "service": ("install", "uninstall", "show"), "lanes": ("keep", "drop", "retry", "show"),
}  # fmt: skip
"""Commands whose first word says what they do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--script", metavar="SHELL", help="print the completion script of bash, zsh or fish"
    )
    parser.add_argument("words", nargs="*", help="the words so far; the last is being completed")


def run(args: argparse.Namespace) -> int:
    """Print candidates, one a line, or a script."""
    if args.script is not None:
        if args.script not in SCRIPTS:
            raise UsageError(f"no completion for {args.script!r}; there is: {', '.join(SCRIPTS)}")
        sys.stdout.write(SCRIPTS[args.script])
    else:
        sys.stdout.writelines(word + "\n" for word in candidates(args.words))
    return int(ExitCode.OK)


def candidates(words: Sequence[str]) -> list[str]:
    """What the last word may become."""
    *before, current = words or [""]
    return [word for word in _all(before, current) if word.startswith(current)]


def _all(before: Sequence[str], current: str) -> Iterable[str]:
    from codex_self_iter.cli import COMMANDS, HIDDEN, build_parser

    command = next((word for word in before if word in COMMANDS or word in HIDDEN), "")
    if before and before[-1] == "--loop":
        return _names()
    if current.startswith("-"):
        try:
            parser, _ = build_parser(command or "run")
        except UsageError:
            return []
        texts = [text for action in parser._actions for text in action.option_strings]
        return [text for text in texts if text.startswith("--")]
    if not command:
        return COMMANDS
    if command == "lanes" and before[-1] in ACTIONS["lanes"]:
        return _lanes()
    return (
        _names() if command in NAMED else ACTIONS.get(command, ()) if command == before[-1] else ()
    )


def _lanes() -> Iterable[str]:
    """Those of the loop in the current directory."""
    from codex_self_iter.screens.loops import DEFAULT_STATE_DIR, read_status
    from codex_self_iter.views.lane_rows import rows

    return [one.lane for one in rows(read_status(DEFAULT_STATE_DIR))]


def _names() -> Iterable[str]:
    from codex_self_iter.world import registry

    return registry.display_names(registry.entries(clean=False)).values()
