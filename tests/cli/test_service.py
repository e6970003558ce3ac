"""service install, show, uninstall: the files, what they refuse, what to do next. Nothing is
started."""

import os
import plistlib
import stat
from pathlib import Path


def unit_of(command, name: str = "my-repo") -> Path:
    return Path(command.env["HOME"], ".config/systemd/user", f"codex-self-iter-{name}.service")


def install(command, *words: str, **env: str):
    return command("service", "install", "--manager", "systemd", *words, **env)


def test_install_writes_a_unit_with_absolute_paths_and_says_what_is_next(command) -> None:
    done = install(command)
    assert (done.returncode, done.stderr) == (0, "")
    text = unit_of(command).read_text(encoding="utf-8")
    assert f"WorkingDirectory={command.workspace}\n" in text
    assert f'--workspace "{command.workspace}"' in text
    assert "systemctl --user daemon-reload" in done.stdout
    assert "systemctl --user enable --now codex-self-iter-my-repo.service" in done.stdout
    assert "enable-linger" in done.stdout
    env_file = Path(command.env["HOME"], ".config/codex-self-iter/my-repo.env")
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    assert f"EnvironmentFile=-{env_file}" in text
    assert f"PATH={command.env['PATH']}" in text


def test_a_dry_run_writes_nothing(command) -> None:
    done = install(command, "--dry-run")
    assert done.returncode == 0
    assert "[Service]" in done.stdout
    assert not unit_of(command).exists()
    assert not Path(command.env["HOME"], ".config").exists()


def test_install_again_keeps_the_environment_file(command) -> None:
    install(command)
    env_file = Path(command.env["HOME"], ".config/codex-self-iter/my-repo.env")
    env_file.write_text("KEY=1\n", encoding="utf-8")
    assert install(command).returncode == 0
    assert env_file.read_text(encoding="utf-8") == "KEY=1\n"


def test_the_configuration_decides_how_long_stop_may_take(command) -> None:
    (command.workspace / "codex-self-iter.toml").write_text(
        "kill_grace_sec = 100\n", encoding="utf-8"
    )
    install(command)
    assert "TimeoutStopSec=135\n" in unit_of(command).read_text(encoding="utf-8")


def test_show_tells_whether_it_is_up_to_date(command) -> None:
    show = ("service", "show", "--manager", "systemd")
    assert "Not installed" in command(*show).stdout
    install(command)
    assert "up to date" in command(*show).stdout
    assert "differs" in command(*show, LANG="C").stdout


def test_uninstall_removes_the_unit_and_its_link(command) -> None:
    install(command)
    wants = unit_of(command).parent / "default.target.wants"
    wants.mkdir()
    (wants / unit_of(command).name).symlink_to(unit_of(command))
    words = ("service", "uninstall", "--manager", "systemd")
    assert "Would remove" in command(*words, "--dry-run").stdout
    assert unit_of(command).exists()
    done = command(*words)
    assert done.returncode == 0
    assert "systemctl --user stop" in done.stdout
    assert not unit_of(command).exists()
    assert list(wants.iterdir()) == []
    assert command(*words).returncode == 2


def test_a_foreign_unit_is_never_touched(command) -> None:
    unit = unit_of(command)
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n", encoding="utf-8")
    for action in ("install", "uninstall"):
        done = command("service", action, "--manager", "systemd")
        assert done.returncode == 2
        assert "not written by this program" in done.stderr
    assert "ExecStart=/bin/true" in unit.read_text(encoding="utf-8")


def test_a_twin_of_another_workspace_is_refused(command, make_command) -> None:
    install(command)
    other = make_command("deeper/my repo")
    done = install(other)
    assert done.returncode == 2
    assert "another workspace" in done.stderr
    assert install(other, "--name", "twin").returncode == 0
    assert unit_of(command, "twin").exists()


def test_bad_usage(command) -> None:
    for words in (
        ["--workspace", "nowhere"],
        ["--name", "a/b"],
        ["--run-as", "root"],
        ["--config", "nowhere.toml"],
    ):
        done = install(command, *words)
        assert done.returncode == 2, words
        assert "Traceback" not in done.stderr
    assert command("service").returncode == 2
    assert command("service", "instal").returncode == 2


def test_a_system_unit_runs_as_the_owner(command) -> None:
    done = install(command, "--system", "--dry-run")
    assert done.returncode == 0
    import pwd

    assert f"User={pwd.getpwuid(os.getuid()).pw_name}\n" in done.stdout
    assert "/etc/systemd/system/codex-self-iter-my-repo.service" in done.stdout
    unknown = install(command, "--system", "--dry-run", "--run-as", "nobody-of-that-name")
    assert unknown.returncode == 2
    assert "no account" in unknown.stderr


def test_launchd_gets_a_property_list(command) -> None:
    done = command("service", "install", "--manager", "launchd")
    assert (done.returncode, done.stderr) == (0, "")
    path = Path(command.env["HOME"], "Library/LaunchAgents/codex-self-iter.my-repo.plist")
    keys = plistlib.loads(path.read_bytes())
    assert keys["WorkingDirectory"] == str(command.workspace)
    assert "launchctl bootstrap gui/" in done.stdout
    assert command("service", "install", "--manager", "launchd").returncode == 0
    assert command("service", "uninstall", "--manager", "launchd").returncode == 0
    assert not path.exists()


def test_one_service_for_many_loops(command, tmp_path: Path) -> None:
    configs = tmp_path / "loops"
    configs.mkdir()
    assert install(command, "--config-dir", str(configs)).returncode == 0
    text = unit_of(command, "loops").read_text(encoding="utf-8")
    assert f"--config-dir {configs}\n" in text
    assert "--workspace" not in text
    many = tmp_path / "many.toml"
    many.write_text(f"[[workspaces]]\npath = {str(command.workspace)!r}\n", encoding="utf-8")
    assert install(command, "--config", str(many), "--name", "many").returncode == 0
    text = unit_of(command, "many").read_text(encoding="utf-8")
    assert f"--config {many}\n" in text
    assert "--workspace" not in text
    both = install(command, "--config-dir", str(configs), "--workspace", ".")
    assert both.returncode == 2
