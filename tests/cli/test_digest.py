"""`digest`: what happened since some moment, over all loops, as text, page and JSON."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.core.text import iso
from codex_self_iter.screens import digests
from codex_self_iter.screens.loops import Target
from codex_self_iter.views import digest as view
from tests.support.shown_loops import cases, on_disk, record

HOUR = 3600.0


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    with ExitStack() as stack:
        yield stack


def loop(held: ExitStack, root: Path, name: str, case: str, *ends: float, **more: Any) -> Target:
    """A loop whose iterations ended so many hours ago."""
    now = time.time()
    made = held.enter_context(on_disk(root, name, cases(now)[case]))
    lines = [
        json.dumps(record(number, now - hours * HOUR, **more)) + "\n"
        for number, hours in enumerate(sorted(ends, reverse=True), 1)
    ]
    Path(made.state_dir, "logs/iterations.jsonl").write_text("".join(lines))
    return made


def test_what_happened_since_yesterday(held: ExitStack, tmp_path: Path, command: Any) -> None:
    more = {"ticked": ["a", "b"], "commit": "abc", "changed_files": ["x.py", "y.py"]}
    loop(held, tmp_path, "works", "running", 90, 30, 5, 1, **more)
    loop(held, tmp_path, "stuck", "stagnated", 2, verdict="no_change", usage=None, cost_usd=None)
    loop(held, tmp_path, "still", "completed", 50)
    said = command("digest").stdout
    head = said.splitlines()[0]
    assert head.startswith("Since 20")
    assert "3 loops, 1 needs you, 3 iterations, 2.0k tokens, $0.02." in head
    works = said[said.index("works: running, plan 8 of 12") :]
    assert "done     2 iterations (2 continue), 4 items ticked, 2 commits, 2 files changed" in works
    assert "spent    2.0k tokens, $0.02, worked 2 m 00 s" in works
    assert "last     Step 4 is done" in works
    stuck = said[: said.index("works:")]
    assert "stuck: stagnated" in stuck, "what needs a person is first"
    assert "mend     codex-self-iter show --workspace" in stuck
    assert said.splitlines()[-1] == "Nothing happened in still."
    longer = command("digest", "--since", "4d").stdout
    assert "4 iterations (4 continue)" in longer
    assert "Nothing happened" not in longer
    day = command("digest", "--json")
    found = json.loads(day.stdout)
    assert (found["needs_you"], len(found["loops"])) == (1, 3)
    one = found["loops"][1]
    assert (one["name"], one["iterations"], one["tokens"]) == ("works", {"continue": 2}, 2000)
    assert found["loops"][0]["trouble"]["mend"].startswith("codex-self-iter show")
    assert (found["loops"][0]["tokens"], found["loops"][0]["cost_usd"]) == (None, None)
    assert found["since"] < found["until"]


def test_a_page_of_it_needs_nothing_and_runs_nothing(
    held: ExitStack, tmp_path: Path, command: Any
) -> None:
    loop(held, tmp_path, "app", "running", 1, summary="<script>alert(1)</script>")
    out = tmp_path / "digest.html"
    said = command("digest", "--html", "-o", str(out)).stdout
    assert f"Wrote {out}." in said
    text = out.read_text()
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text
    assert 'src="' not in text
    assert "1 loop, none needs you, 1 iteration" in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text


def test_without_any_loop_it_says_so(command: Any) -> None:
    assert "0 loops, none needs you, 0 iterations." in command("digest").stdout
    assert json.loads(command("digest", "--json").stdout)["loops"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--since", "yesterday"), "expected 90m, 12h, 7d or a date"),
        (("--since", "9" * 30 + "d"), ""),
        (("--json", "--html"), "not allowed with"),
        (("-o", "/nowhere/x"), "cannot write /nowhere/x"),
    ],
)
def test_bad_input_is_one_clear_line(command: Any, words: tuple[str, ...], said: str) -> None:
    done = command("digest", *words)
    assert done.returncode == (2 if said else 0)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_it_reads_as_far_back_as_it_must(held: ExitStack, tmp_path: Path) -> None:
    ends = [n / 60 for n in range(300)]
    made = loop(held, tmp_path, "app", "running", *ends)
    now = time.time()
    for minutes in (0.5, 10.5, 63.5, 64.5, 299.5, 1000):
        expected = sum(end * 60 <= minutes for end in ends)
        assert len(digests.since(made.state_dir, now - minutes * 60)) == expected, minutes
    Path(made.state_dir, "logs/iterations.jsonl").write_text("torn\n")
    assert digests.since(made.state_dir, 0.0) == []


def test_a_loop_whose_journal_anybody_wrote_is_no_error(held: ExitStack, tmp_path: Path) -> None:
    made = loop(held, tmp_path, "app", "foreign", 1)
    bad = {
        "iteration": 3,
        "ts": iso(time.time()),
        "ticked": 5,
        "gates": {},
        "usage": [],
        "verdict": [],
    }
    with Path(made.state_dir, "logs/iterations.jsonl").open("a") as file:
        file.write(json.dumps(bad) + "\n")
    (one,) = digests.digest(time.time() - HOUR * 2)
    assert sum(one.iterations.values()) == 2
    assert all("\x1b" not in line for line in view.text([one], "x"))


def test_on_a_lock_screen_it_is_a_line_for_each_loop_what_is_urgent_first(
    held: ExitStack, tmp_path: Path
) -> None:
    more = {"ticked": ["a", "b"]}
    for number in range(11):
        loop(held, tmp_path, f"works{number:02}", "running", 5, 1, **more)
    loop(held, tmp_path, "stuck", "stagnated", 2, verdict="no_change", usage=None, cost_usd=None)
    loop(held, tmp_path, "still", "completed", 50)
    head, first, second, *_, left, rest = view.brief(digests.digest(time.time() - 24 * HOUR))
    assert head.startswith("Digest: 13 loops, 1 needs you, 23 iterations")
    assert first.startswith("stuck needs you: stagnated: ")
    assert first.endswith(", 1 iteration")
    assert second == "works00: running, 2 iterations, 4 items ticked, $0.02"
    assert (left, rest) == ("2 more: codex-self-iter digest", "1 loop: nothing happened")
