"""A real agent process that does what a script says: one step for each run, the last step again and
again.

    scripted_agent.py CONTROL_DIR PROMPT_FILE WORKSPACE

CONTROL_DIR/script.json is a list of steps. Keys of a step, carried out in this order:

    deaf        ignore TERM, INT and HUP
    spawn       list of left-overs: plain, setsid, double (daemon), bare (double fork, env -i), holder (keeps stdout)
    say         text printed first
    write       {relative path: text} written into the workspace
    append      {relative path: text} appended
    git         list of git argument lists, run in the workspace
    run         a shell command run in the workspace
    flood_mb    print so many MiB
    sleep       seconds (in small steps; `until` names a file in CONTROL_DIR that ends it early)
    echo        print the prompt
    block       the control block, printed as JSON; or `raw`: text printed as it is
    exit        exit code
    signal      number of the signal that the agent sends itself

Every run appends "start PID TIME" and "end PID TIME" to CONTROL_DIR/runs.log, so that overlaps can
be seen from outside, and keeps the prompt it was given as CONTROL_DIR/prompt-N.md. While it lives
it holds a lock; a run that finds the lock taken appends a line to CONTROL_DIR/overlaps.log. With
"number": true it says its own number as goal."""

import fcntl
import json
import os
import select
import signal
import sys
import time

# subprocess is imported where it is used: it would be a fifth of what most runs cost
GOOD = {
    "summary": "did a step",
    "next_goal": "go on",
    "stop": False,
    "reason": "more",
    "evidence": [],
    "completed": False,
}
LEFTOVER = "import time,sys; time.sleep(600)"


def spawn(kind: str) -> None:
    import subprocess

    quiet = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    sleeper = [sys.executable, "-I", "-S", "-c", LEFTOVER]
    if kind == "plain":
        subprocess.Popen(sleeper, **quiet)
    elif kind == "setsid":
        subprocess.Popen(sleeper, start_new_session=True, **quiet)
    elif kind == "holder":
        subprocess.Popen(sleeper, start_new_session=True)
    elif kind in ("double", "bare"):
        environment = "{}" if kind == "bare" else "None"
        code = (
            f"import subprocess; subprocess.Popen({sleeper!r}, start_new_session=True, env={environment}, "
            "stdin=-3, stdout=-3, stderr=-3)"
        )
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], start_new_session=True, check=True, **quiet
        )
    else:
        raise SystemExit(f"unknown left-over {kind}")


def note(control: str, word: str) -> None:
    fd = os.open(os.path.join(control, "runs.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{word} {os.getpid()} {time.monotonic():.4f}\n".encode())
    os.close(fd)


def stand_alone(control: str) -> int:
    """Hold the lock that only one living agent can hold; unlike runs.log it also tells the truth of
    killed ones."""
    fd = os.open(os.path.join(control, "alone.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        with open(os.path.join(control, "overlaps.log"), "a") as file:
            file.write(f"{os.getpid()} started beside another agent\n")
    return fd


def main() -> int:
    control, prompt_file, workspace = sys.argv[1:4]
    stand_alone(control)
    with open(os.path.join(control, "script.json")) as file:
        steps = json.load(file)
    counter = os.path.join(control, "counter")
    number = 0
    if os.path.exists(counter):
        with open(counter) as file:
            number = int(file.read())
    with open(counter + ".tmp", "w") as file:
        file.write(str(number + 1))
    os.replace(counter + ".tmp", counter)
    step = steps[min(number, len(steps) - 1)]
    if step.get("deaf"):
        for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signo, signal.SIG_IGN)
    note(control, "start")
    with open(prompt_file, encoding="utf-8", errors="surrogateescape") as file:
        prompt = file.read()
    kept = os.path.join(control, f"prompt-{number + 1}.md")
    with open(kept + ".tmp", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(prompt)
    os.replace(kept + ".tmp", kept)
    for kind in step.get("spawn", ()):
        spawn(kind)
    if "say" in step:
        print(step["say"], flush=True)
    for path, text in step.get("write", {}).items():
        target = os.path.join(workspace, path)
        os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
        with open(target, "w") as file:
            file.write(text)
    for path, text in step.get("append", {}).items():
        with open(os.path.join(workspace, path), "a") as file:
            file.write(text)
    if "git" in step or "run" in step:
        import subprocess
    for arguments in step.get("git", ()):
        subprocess.run(["git", *arguments], cwd=workspace, check=True, stdout=subprocess.DEVNULL)
    if "run" in step:
        subprocess.run(["/bin/sh", "-c", step["run"]], cwd=workspace, check=False)
    for _ in range(step.get("flood_mb", 0)):
        sys.stdout.write(("x" * 127 + "\n") * 8192)
    deadline = time.monotonic() + step.get("sleep", 0)
    while time.monotonic() < deadline:
        if "until" in step and os.path.exists(os.path.join(control, step["until"])):
            break
        select.select((), (), (), 0.02)  # time.sleep fails under a faked clock
    if step.get("echo"):
        print(prompt)
    if "raw" in step:
        sys.stdout.write(step["raw"])
    elif "block" in step or not step.get("echo"):
        goal = {"next_goal": f"goal {number + 1}"} if step.get("number") else {}
        print(json.dumps({**GOOD, **goal, **step.get("block", {})}))
    sys.stdout.flush()
    note(control, "end")
    if "signal" in step:
        os.kill(os.getpid(), step["signal"])
    return int(step.get("exit", 0))


if __name__ == "__main__":
    sys.exit(main())
