"""What an agent may do when it asks."""

from __future__ import annotations

import os

import pytest

from codex_self_iter.acp_host.permissions import Rules, choose, outcome


def real(path: str) -> str:
    return "" if "\0" in path else os.path.normpath(os.path.join("/w", path))


def rules(**more: object) -> Rules:
    given = {"bypass": False, "read_only": False, "places": ("/w", "/state/plan.md")}
    return Rules(real=real, **(given | more))  # type: ignore[arg-type]


def call(kind: str, path: str = "", **more: object) -> dict[str, object]:
    return {"kind": kind, "locations": [{"path": path}] if path else []} | more


@pytest.mark.parametrize(
    "asked",
    [
        call("edit", "a.txt"),
        call("edit", "/w/deep/a.txt"),
        call("edit", "/state/plan.md"),
        call("delete", "a.txt"),
        call("read", "a.txt"),
        call("search"),
        call("think"),
        call("edit", content=[{"type": "diff", "path": "a.txt"}]),
        call("edit", rawInput={"file_path": "a.txt"}),
        call("edit", "a.gitignore"),
    ],
)
def test_safe_mode_lets_files_of_the_workspace_be_changed(asked: dict[str, object]) -> None:
    assert rules().refusal(asked) == ""


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (call("execute", rawInput={"command": "ls"}), "commands"),
        (call("fetch"), "network"),
        (call("switch_mode"), "mode"),
        (call("other"), "tool"),
        (call("a kind of tomorrow", "a.txt"), "tool"),
        ({}, "tool"),
        (call("edit"), "which file"),
        (call("edit", "../a.txt"), "outside"),
        (call("edit", "/w2/a.txt"), "outside"),
        (call("edit", "/state/plan.md.evil"), "outside"),
        (call("edit", "/w"), ""),
        (call("read", "/etc/passwd"), "outside"),
        (call("edit", "a.txt", content=[{"path": "/etc/passwd"}]), "outside"),
        (call("edit", "a.txt", rawInput={"path": "/etc/passwd"}), "outside"),
        (call("edit", ".git/hooks/pre-commit"), "git"),
        (call("move", "deep/.git/config"), "git"),
        (call("edit", "a.txt") | {"kind": 7}, "tool"),
        (call("edit", "a\0.txt"), "outside"),
        (call("edit", locations=["a.txt"]), "which file"),
    ],
)
def test_safe_mode_refuses_the_rest(asked: dict[str, object], why: str) -> None:
    refused = rules().refusal(asked)
    assert why in refused
    assert bool(refused) == bool(why)


def test_bypass_refuses_nothing() -> None:
    assert rules(bypass=True).refusal(call("execute")) == ""
    assert rules(bypass=True).refusal(call("edit", "/etc/passwd")) == ""


@pytest.mark.parametrize("bypass", [True, False])
def test_a_role_that_changes_nothing_may_edit_nothing(bypass: bool) -> None:
    one = rules(bypass=bypass, read_only=True)
    assert "changes nothing" in one.refusal(call("edit", "a.txt"))
    assert one.refusal(call("read", "a.txt")) == ""
    assert bool(one.refusal(call("execute"))) is not bypass


OPTIONS = [
    {"optionId": "for ever", "kind": "allow_always"},
    {"optionId": "yes", "kind": "allow_once"},
    {"optionId": "never", "kind": "reject_always"},
    {"optionId": "no", "kind": "reject_once"},
]


def test_the_answer_is_for_once() -> None:
    assert choose(OPTIONS, allow=True) == "yes"
    assert choose(OPTIONS, allow=False) == "no"
    assert outcome(OPTIONS, allow=True)["outcome"] == {"outcome": "selected", "optionId": "yes"}


def test_without_an_option_for_once_it_is_no() -> None:
    always = [one for one in OPTIONS if one["kind"].endswith("always")]
    assert outcome(always, allow=True) == {"outcome": {"outcome": "cancelled"}}
    assert outcome([*always, OPTIONS[3]], allow=True)["outcome"]["optionId"] == "no"
    for odd in (None, "yes", [1, None], [{"kind": "allow_once"}]):
        assert outcome(odd, allow=True) == {"outcome": {"outcome": "cancelled"}}


@pytest.mark.parametrize(
    "asked",
    [
        call("move", "a.txt", rawInput={"source": "a.txt", "destination": "/etc/b"}),
        call("move", "a.txt", rawInput={"moves": [{"to": "../b"}]}),
        call("delete", rawInput={"targets": ["a.txt", "/etc/b"]}),
        call("edit", "a.txt", rawInput={"edits": [{"file_path": "/etc/b"}]}),
        call("edit", "a.txt", rawInput={"paths": ["/etc/b"]}),
        call("read", "a.txt", rawInput={"relativeDirectory": "/etc"}),
    ],
)
def test_every_place_counts_that_a_call_names(asked: dict[str, object]) -> None:
    assert "outside" in rules().refusal(asked)


def test_what_is_written_into_a_file_is_no_place() -> None:
    text = {"file_path": "a.c", "content": "/* /etc */", "new_string": "/x", "file_text": "/y"}
    assert rules().refusal(call("edit", rawInput=text)) == ""


def test_the_workspace_itself_stays() -> None:
    for kind in ("delete", "move"):
        assert "workspace" in rules().refusal(call(kind, "/w"))
        assert "workspace" in rules().refusal(call(kind, "/state/plan.md"))
    assert "git" in rules().refusal(call("edit", ".GIT/config"))
    inside = rules(places=("/w/.git/trees/one",))
    assert inside.refusal(call("edit", "/w/.git/trees/one/a.txt")) == ""
