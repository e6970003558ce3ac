"""Write the files of `deploy/` that come from the package's templates: `python
tests/service/deploy.py`."""

import os
from pathlib import Path

from codex_self_iter.service import launchd, systemd
from codex_self_iter.service.spec import ServiceSpec, data

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
WRAPPER = "/opt/codex-self-iter/launchd-wrapper.sh"


def rendered() -> dict[str, str]:
    """Path below deploy/ -> its content."""
    return {
        "systemd/user/codex-self-iter@.service": symbolic(system=False),
        "systemd/system/codex-self-iter@.service": symbolic(system=True),
        "systemd/service.env.example": Path(data("service.env")).read_text(encoding="utf-8"),
        "launchd/codex-self-iter.example.plist": example_plist(),
        "launchd/launchd-wrapper.sh": Path(data("launchd-wrapper.sh")).read_text(encoding="utf-8"),
    }


def symbolic(*, system: bool) -> str:
    """The unit of `deploy/systemd`, for use by hand: an instance is an escaped workspace path."""
    env_file = "/etc/codex-self-iter/%i.env" if system else "%E/codex-self-iter/%i.env"
    program = "/usr/local/bin/codex-self-iter" if system else "%h/.local/bin/codex-self-iter"
    path = "" if system else "%h/.local/bin:"
    user = "# The workspace's owner; set it by 'systemctl edit codex-self-iter@.service'.\nUser=nobody\n"
    return systemd.fill(
        {
            "HEAD": "Instance: the workspace's path as 'systemd-escape --path /the/workspace' prints it.",
            "DESCRIPTION": "%f",
            "EXEC": f"{program} --workspace %f",
            "KILL": "/bin/kill",
            "WORKSPACE": "%f",
            "USER": user if system else "",
            "ENVIRONMENT": f"Environment=PATH={path}/usr/local/bin:/usr/bin:/bin\n",
            "ENV_FILE": env_file,
            "STOP_SEC": "45",
        }
        | systemd.system_values("%f", "", system=system)
    )


def example_plist() -> str:
    """The property list of an invented account."""
    home = "/Users/me"
    spec = ServiceSpec(
        name="example",
        workspace=f"{home}/projects/example",
        argv=(f"{home}/.local/bin/codex-self-iter", "--workspace", f"{home}/projects/example"),
        env_file=f"{home}/.config/codex-self-iter/example.env",
        environment={"PATH": f"{home}/.local/bin:/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin"},
        stop_sec=45,
    )
    text = launchd.render(spec, logs=f"{home}/Library/Logs")
    return text.replace(data("launchd-wrapper.sh"), WRAPPER)


if __name__ == "__main__":
    for name, text in rendered().items():
        path = DEPLOY / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    os.chmod(DEPLOY / "launchd" / "launchd-wrapper.sh", 0o755)
