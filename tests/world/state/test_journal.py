"""The journal's reader believes exactly the whole, good lines, and its writer never spoils one."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codex_self_iter.world.state import journal as module
from codex_self_iter.world.state.journal import (
    MAX_LINE,
    Journal,
    encode_line,
    find,
    good_line,
    stream,
    tail,
)
from codex_self_iter.world.state.root import StateRoot


@pytest.fixture
def journal(root: StateRoot):
    made = Journal(root)
    yield made
    made.close()


def numbers(records) -> list[int]:
    return [record["iteration"] for record in records]


def plant(journal: Journal, data: bytes) -> Path:
    path = Path(journal.path)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def test_lines_come_back_in_order(journal: Journal) -> None:
    for number in range(1, 31):
        journal.append({"iteration": number, "summary": "line\nfeed \u2028 ü"})
    assert numbers(journal.tail(8)) == list(range(23, 31))
    assert numbers(tail(journal.path, 100)) == list(range(1, 31))
    assert numbers(stream(journal.path)) == list(range(1, 31))
    assert journal.last() == {"iteration": 30, "summary": "line\nfeed \u2028 ü"}
    assert find(journal.path, 7)["iteration"] == 7
    assert find(journal.path, 31) is None
    assert journal.tail(0) == []


def test_no_journal_is_an_empty_one(journal: Journal) -> None:
    assert journal.tail(8) == []
    assert journal.last() is None
    assert journal.size() == 0
    assert tail(journal.path, 8) == list(stream(journal.path)) == []
    assert find(journal.path, 1) is None
    assert not Path(journal.path).exists()


GOOD = b'{"iteration":1}\n'


@pytest.mark.parametrize(
    "bad",
    [
        b"\n",
        b"\0" * 5000 + b"\n",
        b"not json\n",
        b'{"iteration":2\n',
        b"[1, 2]\n",
        b'"iteration"\n',
        b'{"iteration":true}\n',
        b'{"iteration":"2"}\n',
        b'{"other":2}\n',
        b'{"iteration":2,"x":"\xff"}\n',
        b"[" * 200_000 + b"\n",
        b'{"iteration":' + b"9" * 5000 + b"}\n",
        b'{"iteration":2,"x":"' + b"x" * MAX_LINE + b'"}\n',
        b'{"a":' * 100_000 + b"\n",
    ],
    ids=lambda data: repr(data[:18]),
)
@pytest.mark.parametrize(
    "last", [b"", b'{"iteration":3}\n', b'{"iteration":3}'], ids=["end", "between", "torn"]
)
def test_a_bad_line_is_skipped_wherever_it_is(journal: Journal, bad: bytes, last: bytes) -> None:
    plant(journal, GOOD + bad + last)
    expected = [1, 3] if last.endswith(b"\n") else [1]
    assert numbers(journal.tail(8)) == expected
    assert numbers(stream(journal.path)) == expected


@pytest.mark.parametrize(
    "torn", [b'{"iteration":2,"summ', b'{"iteration":2}', b'{"iteration":2,"a":"x #', b"\0\0\0"]
)
def test_a_torn_tail_is_not_believed_now_nor_after_the_next_append(
    journal: Journal, torn: bytes
) -> None:
    path = plant(journal, GOOD + torn)
    assert numbers(journal.tail(8)) == [1]
    journal.append({"iteration": 2, "true": "yes"})
    assert numbers(journal.tail(8)) == [1, 2]
    assert journal.last() == {"iteration": 2, "true": "yes"}
    assert path.read_bytes().startswith(GOOD + b'{"iteration":2,"true"')
    aside = path.parent.parent / "quarantine"
    assert [found.read_bytes() for found in aside.iterdir()] == [torn], "nothing is thrown away"


def test_closing_a_torn_tail_with_a_mere_line_feed_would_make_it_believed() -> None:
    """The negative control: why such a piece may not stay."""
    assert good_line(b'{"iteration":2}') is not None


def test_what_another_program_appends_is_kept_if_it_is_json(journal: Journal) -> None:
    path = plant(journal, GOOD + b'{"event": "x"}\n[1]\nhello\n\0\0\n')
    journal.append({"iteration": 2})
    assert path.read_bytes() == GOOD + b'{"event": "x"}\n[1]\n{"iteration":2}\n'
    with path.open("ab") as file:
        file.write(b"half a l")
    journal.append({"iteration": 3})
    assert path.read_bytes().endswith(b'{"iteration":2}\n{"iteration":3}\n')
    assert len(list((path.parent.parent / "quarantine").iterdir())) == 2


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_bytes_between_good_lines_change_nothing(tmp_path: Path, data: st.DataObject) -> None:
    junk = st.one_of(
        st.binary(max_size=60),
        st.sampled_from(
            [
                b"",
                b"\n",
                b"\0\0\n",
                b'{"iteration":1',
                b"{}\n",
                b'{"iteration": 99, "torn',
                b"\r\n",
                b'"}',
            ]
        ),
    )
    content, expected = b"", []
    for number in range(1, data.draw(st.integers(1, 6)) + 1):
        piece = data.draw(junk)
        piece += b"" if not piece or piece.endswith(b"\n") else b"\n"
        expected += [
            one for line in piece.split(b"\n")[:-1] if (one := good_line(line)) is not None
        ]
        record = {"iteration": number, "text": data.draw(st.text(max_size=20))}
        content += piece + encode_line(record)
        expected.append(record)
    content += data.draw(junk).replace(b"\n", b"")
    path = tmp_path / "state/logs/iterations.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    block = module._BLOCK
    try:
        module._BLOCK = data.draw(st.sampled_from([1, 2, 7, 64, block]))
        assert tail(str(path), 1000) == list(stream(str(path))) == expected
        count = data.draw(st.integers(1, 5))
        assert tail(str(path), count) == expected[-count:]
    finally:
        module._BLOCK = block
    root = StateRoot(str(tmp_path / "state"))
    journal = Journal(root)
    journal.append({"iteration": 1000})
    assert tail(str(path), 1000) == [*expected, {"iteration": 1000}]
    kept = path.read_bytes().removesuffix(encode_line({"iteration": 1000}))
    assert content.startswith(kept)
    pieces = list((tmp_path / "state/quarantine").glob("*"))
    assert b"".join(piece.read_bytes() for piece in pieces) == content.removeprefix(kept)
    for piece in pieces:
        piece.unlink()
    journal.close()
    root.close()


def test_a_record_that_is_too_long_is_shortened_not_lost(journal: Journal) -> None:
    journal.append(
        {"iteration": 1, "summary": "s" * (2 * MAX_LINE), "changed_files": ["f" * 50] * 200_000}
    )
    (record,) = journal.tail(1)
    assert record["iteration"] == 1
    assert record["summary"].startswith("ssss")
    assert "characters cut" in record["summary"]


def test_what_somebody_else_appended_and_is_no_json_is_set_aside(journal: Journal) -> None:
    journal.append({"iteration": 1})
    with open(journal.path, "ab") as file:
        file.write(b"a note by hand, without a line feed")
    journal.append({"iteration": 2})
    assert numbers(journal.tail(8)) == [1, 2]
    (piece,) = Path(journal.path).parent.parent.joinpath("quarantine").iterdir()
    assert piece.read_bytes() == b"a note by hand, without a line feed"


def test_a_deleted_journal_comes_back_whole(journal: Journal) -> None:
    for number in range(1, 200):
        journal.append({"iteration": number, "text": "x" * 2000})
    before = Path(journal.path).read_bytes()
    os.unlink(journal.path)
    assert journal.heal() == ["logs/iterations.jsonl"]
    assert Path(journal.path).read_bytes() == before
    assert oct(os.stat(journal.path).st_mode)[-3:] == "600"
    assert journal.heal() == []
    journal.append({"iteration": 200})
    assert numbers(tail(journal.path, 2)) == [199, 200]


def test_an_append_finds_out_by_itself(journal: Journal) -> None:
    journal.append({"iteration": 1})
    os.unlink(journal.path)
    os.rmdir(os.path.dirname(journal.path))
    journal.append({"iteration": 2})
    assert numbers(tail(journal.path, 8)) == [1, 2]


def test_a_plain_append_mode_file_would_lose_the_lines(tmp_path: Path) -> None:
    """The negative control: without healing, lines go to the deleted inode."""
    path = tmp_path / "plain.jsonl"
    with open(path, "ab", buffering=0) as file:
        file.write(GOOD)
        path.unlink()
        file.write(GOOD)
    assert tail(str(path), 8) == []


def test_a_replaced_journal_is_set_aside(journal: Journal, root: StateRoot) -> None:
    journal.append({"iteration": 1})
    os.unlink(journal.path)
    plant(journal, b'{"iteration":77}\n')
    journal.append({"iteration": 2})
    assert numbers(tail(journal.path, 8)) == [1, 2]
    (one,) = os.listdir(f"{root.path}/quarantine")
    assert Path(root.path, "quarantine", one).read_bytes() == b'{"iteration":77}\n'


@pytest.mark.parametrize("size", [0, 20])
def test_a_truncated_journal_gets_its_last_lines_back(journal: Journal, size: int) -> None:
    for number in range(1, 6):
        journal.append({"iteration": number})
    os.truncate(journal.path, size)
    assert len(journal.heal()) == 1
    assert numbers(tail(journal.path, 100)) == [1, 2, 3, 4, 5]
    journal.append({"iteration": 6})
    assert numbers(tail(journal.path, 100)) == [1, 2, 3, 4, 5, 6]


def test_a_symlink_in_its_place_is_not_appended_through(
    journal: Journal, root: StateRoot, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    os.makedirs(f"{root.path}/logs")
    os.symlink(outside, journal.path)
    journal.append({"iteration": 1})
    assert outside.read_bytes() == b"precious"
    assert numbers(tail(journal.path, 8)) == [1]


def test_a_journal_with_a_second_name_goes_on_as_a_copy(journal: Journal, tmp_path: Path) -> None:
    plant(journal, GOOD)
    os.link(journal.path, tmp_path / "backup")
    journal.append({"iteration": 2})
    assert numbers(tail(journal.path, 8)) == [1, 2]
    assert (tmp_path / "backup").read_bytes() == GOOD


@pytest.mark.slow
def test_a_gigabyte_slows_neither_start_nor_append_nor_memory(journal: Journal) -> None:
    path = plant(journal, b"")
    line = encode_line({"iteration": 5, "summary": "x" * 1500})
    with open(path, "wb") as file:
        file.write(b'{"iteration":4}\n')
        file.truncate(1024**3)  # a hole: one NUL block, then good lines
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + line * 1000)
    tracemalloc.start()
    started = time.process_time()
    journal.append({"iteration": 6})
    assert numbers(journal.tail(3)) == [5, 5, 6]
    assert journal.last()["iteration"] == 6
    for _ in range(20):
        journal.append({"iteration": 7})
    spent = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert spent < 1.0
    assert peak < 16 * 1024 * 1024


@pytest.mark.slow
def test_an_endless_line_is_passed_in_bounded_memory(journal: Journal) -> None:
    path = plant(journal, GOOD)
    with open(path, "ab") as file:
        file.truncate(200 * 1024**2)
    tracemalloc.start()
    assert journal.last() == {"iteration": 1}
    assert numbers(stream(str(path))) == [1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 1024 * 1024


def test_every_line_is_json_on_a_line_of_its_own(journal: Journal) -> None:
    journal.append({"iteration": 1, "nan": float("nan"), "odd": "\udc80"})
    journal.append({"iteration": 2})
    lines = Path(journal.path).read_bytes().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2]


def test_a_large_journal_goes_on_in_a_new_file_and_the_old_one_stays(journal: Journal) -> None:
    for number in range(1, 41):
        journal.append({"iteration": number, "summary": "x" * 1000})
    assert not journal.rotate(most=1_000_000)
    assert journal.rotate(most=20_000)
    kept = numbers(stream(journal.path))
    assert kept == list(range(kept[0], 41))
    assert 2 <= len(kept) <= 5
    assert numbers(stream(f"{journal.path}.1")) == list(range(1, 41))
    journal.append({"iteration": 41})
    assert journal.heal() == []
    assert numbers(journal.tail(3)) == [39, 40, 41]
    again = Journal(journal._root)
    assert again.last() == {"iteration": 41}
    for number in range(42, 82):
        journal.append({"iteration": number, "summary": "x" * 1000})
    assert journal.rotate(most=20_000)
    assert sorted(os.listdir(os.path.dirname(journal.path))) == [
        "iterations.jsonl",
        "iterations.jsonl.1",
    ]
