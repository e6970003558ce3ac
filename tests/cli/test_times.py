"""Times in our files, and those that others write."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.text import epoch


@given(st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - made aware by the strategy
def test_a_time_as_we_write_it_is_read_as_datetime_reads_it(moment: datetime) -> None:
    assert epoch(moment.isoformat()) == pytest.approx(moment.timestamp(), abs=1e-4)
    whole = moment - timedelta(microseconds=moment.microsecond)
    assert epoch(whole.isoformat().replace("+00:00", "Z")) == whole.timestamp()


@pytest.mark.parametrize(
    "text",
    ["", "T", "yesterday", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:61:00Z",
     "٢026-01-01T00:00:00", "2026-01-01T00:00:00.1.2"],
)  # fmt: skip
def test_what_is_no_time_is_none(text: str) -> None:
    assert epoch(text) is None


def test_other_spellings_of_iso_8601_are_read_too() -> None:
    assert (
        epoch("2026-01-01T02:00:00+02:00")
        == epoch("2026-01-01 00:00")
        == epoch("2026-01-01")
        == 1767225600.0
    )
