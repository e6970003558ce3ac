"""`service`: install, show or uninstall under systemd or launchd. Touches only files."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from typing import NamedTuple
from xml.sax.saxutils import escape

from codex_self_iter.cli import _common
from codex_self_iter.cli._common import say
from codex_self_iter.errors import ExitCode, UsageError
from codex_self_iter.screens.loops import read_config
from codex_self_iter.service import launchd, spec, systemd
from codex_self_iter.world.state.durable import replace_private

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", choices=("install", "uninstall", "show"), help="what to do")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--user", action="store_true", help="for this user (default)")
    kind.add_argument("--system", action="store_true", help="for the machine; needs root")
    add("--workspace", metavar="DIR", help="default: the current directory")
    add("--config", metavar="FILE", help="its configuration file; may name several workspaces")
    add("--config-dir", metavar="DIR", help="one service for all loops configured there")
    add("--name", metavar="NAME", help="of the service (default: the workspace's name)")
    add("--env-file", metavar="FILE", help="variables of the service, one NAME=value a line")
    add("--run-as", metavar="USER", help="account of a --system service (default: the owner)")
    add("--manager", choices=("auto", "systemd", "launchd"), default="auto", help=argparse.SUPPRESS)
    add("--dry-run", action="store_true", help="print what would be written or removed")
    add("--debug", action="store_true", help=argparse.SUPPRESS)


class _Plan(NamedTuple):
    """What is to be done: one file, its text, and the commands that a person runs next."""

    path: str
    text: str
    flaw: str
    commands: tuple[str, ...]


def run(args: argparse.Namespace) -> int:
    """Do it, or say what would be done."""
    installs = args.action != "show"
    _common.goes_with(args, installs, "'install' or 'uninstall'", "dry_run")
    service = _service(args)
    auto = "launchd" if sys.platform == "darwin" else "systemd"
    manager = auto if args.manager == "auto" else args.manager
    make = _systemd if manager == "systemd" else _launchd
    plan = make(service, args.action)
    if args.action == "uninstall":
        return _uninstall(plan, dry_run=args.dry_run)
    if plan.flaw:
        raise UsageError(f"the rendered service is not valid, nothing was written:\n{plan.flaw}")
    if args.action == "show":
        return _show(plan)
    _refuse_foreign(plan.path, service.workspace)
    if args.dry_run:
        then = "\n".join(f"#   {command}" for command in plan.commands)
        say(f"# would write {plan.path}\n{plan.text}\n# and then:\n{then}")
        return int(ExitCode.OK)
    _write(plan.path, plan.text, 0o644)
    made = _make_env_file(service.env_file)
    say(f"Wrote {plan.path}." + (f"\nWrote {made}: put keys there." if made else ""))
    say("Next:\n" + "\n".join(f"  {command}" for command in plan.commands))
    return int(ExitCode.OK)


def _service(args: argparse.Namespace) -> spec.ServiceSpec:
    """The service that the options describe. Raises UsageError."""
    gone = args.action == "uninstall"
    directory, argv = _what_runs(args)
    if not gone and not os.path.isdir(directory):
        raise UsageError(f"{directory} does not exist or is not a directory")
    for path in (directory, *argv):
        if any(ord(character) < 32 for character in path):
            raise UsageError("a path with control characters cannot become a service")
        if any("\ud800" <= character <= "\udfff" for character in path):
            raise UsageError(f"{path}: a path that is not UTF-8 cannot become a service; rename it")
    name = args.name or spec.service_name(directory)
    if not _NAME.fullmatch(name):
        raise UsageError(f"service name {name!r}: letters, digits, '_', '.' and '-' only")
    config = os.path.abspath(args.config) if args.config else ""
    passed = ("PATH", "LANG", "LC_ALL")
    return spec.ServiceSpec(
        name=name,
        workspace=directory,
        argv=argv,
        env_file=os.path.abspath(args.env_file or _default_env_file(name, system=args.system)),
        environment={key: os.environ[key] for key in passed if os.environ.get(key)},
        stop_sec=spec.stop_seconds({} if gone else read_config(directory, config)),
        system=args.system,
        user=_account(args, directory),
    )


def _what_runs(args: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """(working directory, command line): of a workspace, a file or a directory of files."""
    config = os.path.abspath(args.config) if args.config else ""
    if args.config_dir:
        if args.workspace or config:
            what = "--config-dir names its workspaces itself; leave --workspace and --config out"
            raise UsageError(what)
        directory = os.path.abspath(os.path.expanduser(args.config_dir))
        return directory, spec.supervisor_argv(config_dir=directory)
    if config and not args.workspace and read_config("", config).get("workspaces"):
        return os.path.dirname(config), spec.supervisor_argv(config=config)
    workspace = os.path.abspath(os.path.expanduser(args.workspace or "."))
    return workspace, spec.supervisor_argv(workspace, config)


def _account(args: argparse.Namespace, workspace: str) -> str:
    """The account of a system service: as told, else the workspace's owner. Raises UsageError."""
    import pwd

    if args.run_as and not args.system:
        raise UsageError("--run-as needs --system")
    if not args.system or args.action == "uninstall":
        return ""
    try:
        owner = os.stat(workspace).st_uid
        return (pwd.getpwnam(args.run_as) if args.run_as else pwd.getpwuid(owner)).pw_name
    except KeyError:
        who = args.run_as or "of the workspace's owner"
        raise UsageError(f"there is no account {who}; name one with --run-as") from None


def _default_env_file(name: str, *, system: bool) -> str:
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join("/etc" if system else home, "codex-self-iter", f"{name}.env")


def _systemd(service: spec.ServiceSpec, action: str) -> _Plan:
    unit, scope = systemd.unit_name(service.name), "" if service.system else "--user "
    text = systemd.render(service) if action != "uninstall" else ""
    flaw = systemd.verify(text, unit, system=service.system) if text else ""
    words = ["daemon-reload", f"enable --now {unit}", f"status {unit}"]
    if action == "uninstall":
        words = [f"stop {unit}", "daemon-reload"]
    commands = [f"systemctl {scope}{word}" for word in words]
    if action == "install" and not service.system:
        commands.append("loginctl enable-linger   # so that it runs while you are logged out")
    path = systemd.unit_path(service.name, system=service.system)
    return _Plan(path, text, flaw, tuple(commands))


def _launchd(service: spec.ServiceSpec, action: str) -> _Plan:
    path = launchd.plist_path(service.name, system=service.system)
    domain = "system" if service.system else f"gui/{os.getuid()}"
    target = f"{domain}/{launchd.label(service.name)}"
    if action == "uninstall":
        return _Plan(path, "", "", (f"launchctl bootout {target}",))
    text = launchd.render(service)
    commands = (f"launchctl bootstrap {domain} {shlex.quote(path)}", f"launchctl print {target}")
    return _Plan(path, text, launchd.verify(text), commands)


def _show(plan: _Plan) -> int:
    """The installed file, and whether it is what would be written now."""
    installed = _read(plan.path)
    if installed is None:
        say(f"Not installed: there is no {plan.path}. 'service install --dry-run' shows the file.")
    else:
        fresh = "up to date" if installed == plan.text else "differs from what would be written now"
        say(f"# {plan.path} ({fresh})\n{installed}")
    return int(ExitCode.OK)


def _uninstall(plan: _Plan, *, dry_run: bool) -> int:
    _refuse_foreign(plan.path, "")
    directory, unit = os.path.split(plan.path)
    wants = [f"{target}.target.wants" for target in ("default", "multi-user")]
    links = [os.path.join(directory, place, unit) for place in wants]
    there = [path for path in (*links, plan.path) if os.path.lexists(path)]
    if not there:
        raise UsageError(f"not installed: there is no {plan.path}")
    for path in there:
        if not dry_run:
            os.unlink(path)
        say(f"{'Would remove' if dry_run else 'Removed'} {path}.")
    say("Next:\n" + "\n".join(f"  {command}" for command in plan.commands))
    return int(ExitCode.OK)


def _refuse_foreign(path: str, workspace: str) -> None:
    """Raises UsageError for a file of somebody else, or the service of another workspace."""
    text = _read(path)
    if text is None:
        return
    if "codex-self-iter service install" not in text:
        mend = "move it away or choose another --name"
        raise UsageError(f"{path} was not written by this program; {mend}")
    marks = (
        f"WorkingDirectory={systemd.escape_path(workspace)}\n",
        f"<string>{escape(workspace)}</string>",
    )
    if workspace and not any(mark in text for mark in marks):
        raise UsageError(f"{path} is the service of another workspace; choose another --name")


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _write(path: str, text: str, mode: int) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        replace_private(path, text.encode(), mode=mode)
    except OSError as error:
        hint = "; --system needs root" if error.errno in (1, 13) else ""
        raise UsageError(f"cannot write {path}: {error.strerror}{hint}") from error


def _make_env_file(path: str) -> str:
    """The commented example, private, where there is none yet; returns its path, else ""."""
    if os.path.lexists(path):
        return ""
    with open(spec.data("service.env"), encoding="utf-8") as file:
        _write(path, file.read(), 0o600)
    return path
