"""No secret survives, and text without secrets is not touched."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codex_self_iter.world.state import redact as module
from codex_self_iter.world.state.redact import REDACTED, Redactor, redact_file, secret_values
from codex_self_iter.world.state.root import StateRoot

PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "MIIEowIBAAKCAQEA7\n" * 20
    + "-----END RSA PRIVATE KEY-----"
)
KEYS = {
    "openai": "sk-" + "aB3" * 16,
    "openai project": "sk-proj-" + "aB3_-" * 12,
    "anthropic": "sk-ant-api03-" + "xY9-_" * 18 + "AA",
    "github": "ghp_" + "a1B2" * 9,
    "github server": "ghs_" + "a1B2" * 9,
    "github fine": "github_pat_" + "11ABCDE_" * 8,
    "gitlab": "glpat-" + "x1Y2z3A4-_" * 2,
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "google": "AIza" + "SyA1b2C3d" * 4,
    "slack": "xoxb-123456789012-abcdefABCDEF",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    "pem": PEM,
    "pem in json": json.dumps(PEM)[1:-1],
    "cut pem": PEM[:200],
}
AWS = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
OWN = "correct horse battery"
PLAIN = Redactor()


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize(
    "frame", ["{}", "key={} ", '"{}"', "({}),", "x\n{}\ny", "Authorization: Bearer {}\n"]
)
def test_a_key_of_a_known_format_is_found(key: str, frame: str) -> None:
    clean = PLAIN.text(frame.format(key))
    assert REDACTED in clean
    assert key not in clean
    assert max((len(piece) for piece in clean.split(REDACTED)), default=0) < 30


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("Authorization: Bearer abc123def456\n", "Authorization: Bearer [redacted]\n"),
        ("authorization: bearer " + "x" * 30, "authorization: bearer [redacted]"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [redacted]"),
        ("postgres://me:hunter2@db/x", "postgres://[redacted]@db/x"),
        (f"aws_secret_access_key = {AWS}\n", "aws_secret_access_key = [redacted]\n"),
        (f"export AWS_SECRET_ACCESS_KEY='{AWS}'", "export AWS_SECRET_ACCESS_KEY='[redacted]'"),
        (f'{{"SecretAccessKey": "{AWS}"}}', '{"SecretAccessKey": "[redacted]"}'),
        (f'{{\\"SecretAccessKey\\":\\"{AWS}\\"}}', '{\\"SecretAccessKey\\":\\"[redacted]\\"}'),
    ],
)
def test_the_word_before_a_secret_stays(dirty: str, clean: str) -> None:
    assert PLAIN.text(dirty) == clean


@pytest.mark.parametrize(
    "text",
    [
        "the task-scheduler-with-a-long-name-2024 is a task-runner-of-mine-12345678901234567890",
        "sk-learn-like-pipelines-are-good",
        "bearer authentication is described there",
        "Basic internationalization",
        "http://localhost:8080/path?mail=a@b.c and http://[::1]:80/",
        "eyJ is how they begin; a.b.c",
        "AKIA and AIza are prefixes; ghp_ too; xoxb- as well",
        "commit 5f2c1a9d8e7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d",
        "aws_secret_access_key = var.secret and AWS_SECRET_ACCESS_KEY=${SECRET}, secretAccessKey:",
        "aws_secret_access_key is 5f2c1a9d8e7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d",
        "uuid 123e4567-e89b-12d3-a456-426614174000",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "- [ ] plan item\n- [x] done",
    ],
)
def test_text_without_secrets_is_not_touched(text: str) -> None:
    assert PLAIN.text(text) is text or PLAIN.text(text) == text
    assert Redactor([OWN]).text(text) == text


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet=st.characters(codec="utf-8", categories=("L", "N", "Zs", "Cc")), max_size=200)
)
def test_words_and_numbers_alone_are_never_touched(text: str) -> None:
    assert Redactor([OWN]).text(text.replace("correct", "")) == text.replace("correct", "")


@settings(max_examples=300, deadline=None)
@given(
    values=st.lists(st.text(min_size=8, max_size=40), min_size=1, max_size=5),
    pieces=st.lists(st.text(max_size=20), min_size=1, max_size=6),
)
@example(values=["aaaaaaaa", "aaaaaaaaaaaa"], pieces=["a", "aaaa"])
@example(values=['quo"te\\back\n', "redacted"], pieces=["[", "]"])
def test_no_value_of_the_environment_survives(values: list[str], pieces: list[str]) -> None:
    redactor = Redactor(values)
    dirty = "".join(f"{piece}{values[index % len(values)]}" for index, piece in enumerate(pieces))
    clean = redactor.text(dirty)
    for value in values:
        if value not in REDACTED:
            assert value not in clean.replace(REDACTED, "\0")
    inside = json.loads(json.dumps(redactor.value({"text": dirty, "list": [dirty]})))
    assert inside == {"text": clean, "list": [clean]}
    # as it looks inside a line of JSON that was written by somebody else
    for ascii_only in (True, False):
        line = redactor.text(json.dumps({"text": f" {values[0]} "}, ensure_ascii=ascii_only))
        assert json.dumps(values[0], ensure_ascii=ascii_only)[1:-1] not in line.replace(
            REDACTED, "\0"
        )


def test_names_that_look_like_keys_are_found_and_others_are_not(tmp_path: Path) -> None:
    found = secret_values(
        {
            "OPENAI_API_KEY": "value-one-1",
            "GITHUB_TOKEN": "value-two-2",
            "db_password": "value-three",
            "MY_SECRET": "value-four-4",
            "SOME_CREDENTIALS": "value-five-5",
            "HTTP_AUTH": "value-six-66",
            "APIKEY": "value-seven",
            "DBPASSWORD": "value-eight",
            # not: names of other things, short values, plain words, paths, numbers
            "GIT_AUTHOR_NAME": "Somebody Real",
            "SSH_AUTH_SOCK": "/tmp/ssh-xyz/agent.1",
            "TOKENIZERS_PARALLELISM": "whatever-value",
            "MAX_TOKENS": "a-lot-of-them",
            "SHORT_KEY": "abc",
            "USE_TOKEN": "required",
            "KEY_DIRECTORY_KEY": str(tmp_path),
            "CACHE_KEY": "20240101",
            "POSTGRES_PASSWORD": "postgres",
            "APP_SECRET": "Development",
            "RABBIT_PASS": "CHANGEME",
            "KEYBOARD": "us-international",
            "PWD": "/home/somebody",
        }
    )
    words = ("one-1", "two-2", "three", "four-4", "five-5", "six-66", "seven", "eight")
    assert found == sorted(f"value-{word}" for word in words)


def test_the_longest_value_wins_so_that_no_end_of_it_is_left() -> None:
    assert Redactor(["12345678", "12345678-long-end"]).text("x12345678-long-endx") == "x[redacted]x"


def test_fields_that_recovery_needs_stay_verbatim() -> None:
    redactor = Redactor(["/srv/work"])
    value = {
        "workspace": "/srv/work",
        "goal": "in /srv/work",
        "n": 3,
        "none": None,
        "list": ("/srv/work", 1.5),
    }
    assert redactor.value(value) == {
        "workspace": "/srv/work", "goal": "in [redacted]", "n": 3, "none": None,
        "list": ["[redacted]", 1.5],
    }  # fmt: skip


@pytest.mark.parametrize(
    "unit",
    [
        "plain words of an agent's log, line after line\n", "s", "sk-", "gh", "ghp_", "eyJ", "-eyJ",
        "-eyJ" * 128 + "." + "a" * 8_000, "pypi-", "xoxb", "://", "://a:", "://a:b@", "Bearer ",
        "bearer" + " " * 1_000, "-----BEGIN PRIVATE KEY-----", "-----BEGIN " + "A " * 20, "-",
        "-----BEGIN RSA PRIVATE KEY-----\n" + "abcd\n" * 3_000, "secret_access_key        =", "a1B2-_./",
    ],
    ids=lambda unit: unit[:12],
)  # fmt: skip
def test_no_megabyte_takes_long(unit: str) -> None:
    """By the exact expressions, which are the slower ones, as where one real key is among it."""
    text = unit * (2**20 // len(unit))
    redactor = Redactor([OWN, *(f"value-number-{number}" for number in range(30))])
    redactor.text("ü")
    started = time.process_time()
    redactor.text(text + "ü")
    # 0.02 to 0.25, and three times that on a slow machine; what is not linear takes minutes
    assert time.process_time() - started < 3.0


def lines_of_json(size: int) -> bytes:
    words = (
        "the agent wrote src/main.py, ran pytest -q; see https://example.com/a?b=c light through"
    )
    line = json.dumps({"type": "item.completed", "item": {"id": "item_7", "text": words * 8}})
    return (line.encode() + b"\n") * (size // len(line))


@pytest.mark.parametrize("flood", [b"", b"x", b"y"])
def test_what_holds_no_secret_takes_next_to_nothing(
    flood: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = flood * (8 * 1024**2) or lines_of_json(16 * 1024**2)
    pieces = [data[at : at + 2**19] for at in range(0, len(data), 2**19)]

    def seconds(redactor: Redactor) -> float:
        list(redactor.chunks(pieces[:1]))
        started = time.process_time()
        assert sum(count for _, count in redactor.chunks(pieces)) == 0
        return time.process_time() - started

    exact = Redactor([OWN])
    monkeypatch.setitem(exact.__dict__, "_may_hold", lambda _: True)
    assert seconds(Redactor([OWN])) * 4 < seconds(exact)


@given(
    st.lists(
        st.sampled_from([*KEYS.values(), OWN, "Bearer ", "sk-", "eyJ", "://a:", "b@", "x", " ", "\n", "é"]),
        max_size=12,
    )
)  # fmt: skip
def test_the_rough_expression_misses_nothing(pieces: list[str]) -> None:
    redactor, exact = Redactor([OWN]), Redactor([OWN])
    exact.__dict__["_may_hold"] = lambda _: True
    data = "".join(pieces).encode()
    assert list(redactor.chunks([data])) == list(exact.chunks([data]))
    text = "".join(pieces) + "." * module._LONG
    assert (redactor.text(text) == exact.text(text)) is True  # no diff of so long a text


@pytest.mark.parametrize("many", [3, 200])
def test_long_and_many_values_are_found_as_well(many: int) -> None:
    values = [f"https://hooks.example.com/{number:03}" + "x1-" * 5_000 for number in range(many)]
    redactor = Redactor(values)
    assert redactor.text("." * module._LONG + values[-1]).endswith("." + REDACTED)


def test_in_haste_only_the_end_is_kept_and_nothing_unredacted(root: StateRoot) -> None:
    path, secret = Path(root.path, "out.log"), KEYS["github"].encode()
    size = 3 * 1024**2
    data = bytearray(b"word " * (size // 5))
    kept = len(data) - module._KEPT
    for at in (100, size // 2, kept - 20, len(data) - 100):  # one lies across the cut
        data[at - 1 : at + len(secret)] = b" " + secret
    path.write_bytes(data)
    asked: list[int] = []

    def in_haste() -> bool:
        asked.append(1)
        return len(asked) > 2

    redact_file(root, "out.log", PLAIN, in_haste)
    said, _, rest = path.read_bytes().partition(b"\n")
    assert said.startswith(f"[its first {kept} bytes were left out".encode())
    assert rest[:15] == b"[redacted] word"
    assert b"[redacted] word" in rest[-80:]
    assert [secret[20:] in rest, rest.count(b"[redacted]")] == [False, 2]
    (warning,) = root.take_warnings()
    assert warning.startswith(f"out.log: its first {kept} bytes were left out")
    assert redact_file(root, "out.log", PLAIN, lambda: True) == 0  # small: done at once


def test_others_are_not_held_up_while_a_file_is_redacted(root: StateRoot) -> None:
    Path(root.path, "out.log").write_bytes(KEYS["github"].encode() + b" " * (2 * 1024**2))
    entered: list[bool] = []

    def enter() -> None:
        if root.guard.acquire(timeout=0.5):
            entered.append(True)
            root.guard.release()

    def meanwhile() -> bool:
        other = threading.Thread(target=enter)
        other.start()
        other.join()
        return False

    assert redact_file(root, "out.log", PLAIN, meanwhile) == 1
    assert len(entered) == 4  # between its five pieces


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [70_000, 65_537, 1024 * 1024])
def test_a_secret_across_pieces_of_a_file_is_found(
    root: StateRoot, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    path = Path(root.path, "out.log")
    secret = KEYS["anthropic"]
    for offset in range(chunk - 60, chunk + 60, 7 if chunk < 100_000 else 40):
        filler = b"\xfftask-" * (offset // 6) + b" " * (offset % 6)
        path.write_bytes(filler + secret.encode() + b" end " + OWN.encode() + b"\n" * 100)
        assert redact_file(root, "out.log", Redactor([OWN])) == 2
        assert path.read_bytes() == filler + b"[redacted] end [redacted]" + b"\n" * 100


def test_a_file_without_secrets_keeps_its_inode_and_others_stay_private(root: StateRoot) -> None:
    path = Path(root.path, "out.log")
    path.write_text("nothing here\n" * 1000)
    before = os.stat(path)
    assert redact_file(root, "out.log", PLAIN) == 0
    assert os.stat(path).st_ino == before.st_ino
    path.write_text(KEYS["aws"])
    os.utime(path, (1, 1))
    assert redact_file(root, "out.log", PLAIN) == 1
    assert path.read_text() == REDACTED
    assert oct(os.stat(path).st_mode)[-3:] == "600"
    assert os.stat(path).st_mtime == 1
    assert os.listdir(root.path) == ["out.log"]
    assert redact_file(root, "missing.log", PLAIN) == 0


def test_non_ascii_values_are_found_in_files(root: StateRoot) -> None:
    path = Path(root.path, "out.log")
    path.write_text("x pässwörter-çé y")
    assert redact_file(root, "out.log", Redactor(["pässwörter-çé"])) == 1
    assert path.read_text() == "x [redacted] y"


@pytest.mark.slow
def test_holes_stay_holes(root: StateRoot) -> None:
    path = Path(root.path, "out.log")
    with open(path, "wb") as file:
        file.truncate(64 * 1024**2)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + KEYS["github"].encode() + b"\n")
    assert redact_file(root, "out.log", PLAIN) == 1
    after = os.stat(path)
    assert after.st_size == 64 * 1024**2 + len(REDACTED) + 2
    assert after.st_blocks * 512 < 4 * 1024**2


def test_a_symlink_is_not_redacted_through(root: StateRoot, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text(KEYS["aws"])
    os.symlink(tmp_path / "outside", f"{root.path}/out.log")
    assert redact_file(root, "out.log", PLAIN) == 0
    assert (tmp_path / "outside").read_text() == KEYS["aws"]


def test_names_in_a_table_are_redacted_like_what_they_name() -> None:
    redactor = Redactor(["12345678-long-end"])
    value = {"command:run --key 12345678-long-end": {"kind": "limit"}, "ts": 1}
    assert redactor.value(value) == {"command:run --key [redacted]": {"kind": "limit"}, "ts": 1}
