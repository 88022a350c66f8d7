"""Values against declared columns: the fast way and the careful way must agree, and nothing may change in passing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources._schema import Column, Form, Type
from sources._values import MISFIT, canonical, column_array, fit, normalise, text, without_query

TYPES = [
    Column("c", Type.TEXT, ""),
    Column("c", Type.INTEGER, ""),
    Column("c", Type.NUMBER, ""),
    Column("c", Type.BOOLEAN, ""),
    Column("c", Type.TIMESTAMP, ""),
    Column("c", Type.INTEGER, "", form=Form.ID),
    Column("c", Type.TIMESTAMP, "", form=Form.UNIX_SECONDS),
    Column("c", Type.TEXT, "", form=Form.VIDEO_URL),
]
STAMPS = [
    "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00.123456Z",
    "2026-01-01T00:00:00.1234567Z",
    "2026-01-01T02:00:00+0230",
    "2026-01-01T00:00:00",
    "2026-01-01",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-12:00",
    "0001-01-01T00:00:00+10:00",
    "0000-06-01T00:00:00Z",
    "2026-02-29T00:00:00Z",
    "2026-01-01T00:00:00Z\x00",
]
NUMBERS = [
    0,
    -0.0,
    1,
    12.0,
    12.5,
    2**53,
    2**53 + 1,
    2**60,
    2**63 - 1,
    2**63,
    -(2**63),
    2**200,
    10**400,
    1e300,
    1e18,
    253402300799,
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([*STAMPS, "", "0", "007", "17", "9" * 5000, "a\x00b", "\ud800", "https://v/1.mp4?key=1#t"])
    | st.text(st.characters(codec=None), max_size=6)
    | st.datetimes().map(lambda d: f"{d.isoformat()}Z")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(TYPES), st.lists(VALUES, max_size=8))
def test_a_value_is_stored_alike_whether_its_neighbours_fit_or_not(column: Column, values: list[Any]) -> None:
    values = [normalise(column, v) for v in values]
    alone = [fit(column, v) for v in values]
    array, misfits = column_array(column, values)
    assert misfits == [i for i, v in enumerate(alone) if v is MISFIT]
    assert array.to_pylist() == [None if v is MISFIT else v for v in alone]
    fitting = [v for v, stored in zip(values, alone, strict=True) if stored is not MISFIT]
    again, none = column_array(column, fitting)
    assert (again.to_pylist(), none) == ([v for v in alone if v is not MISFIT], [])


@given(st.sampled_from(TYPES), VALUES)
def test_a_stored_value_equals_what_was_sent(column: Column, value: Any) -> None:
    stored = fit(column, value)
    if stored is MISFIT or value is None:
        return
    if isinstance(stored, datetime):
        assert stored.tzinfo is UTC
        if column.form is Form.UNIX_SECONDS:
            assert stored.timestamp() == value
        else:
            assert stored == datetime.fromisoformat(value)
    elif isinstance(stored, str):
        assert stored == text(value)
    else:
        assert stored == value
        assert (type(stored) is bool) == (type(value) is bool)


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        (Type.INTEGER, True, MISFIT),
        (Type.NUMBER, False, MISFIT),
        (Type.BOOLEAN, 1, MISFIT),
        (Type.INTEGER, 12.0, 12),
        (Type.INTEGER, 12.5, MISFIT),
        (Type.INTEGER, 2**63, MISFIT),
        (Type.INTEGER, float("inf"), MISFIT),
        (Type.INTEGER, "12", MISFIT),
        (Type.NUMBER, 2**53 + 1, MISFIT),
        (Type.NUMBER, 2**60, float(2**60)),
        (Type.NUMBER, 10**400, MISFIT),
        (Type.TEXT, 12, MISFIT),
        (Type.TEXT, "a\x00b", "ab"),
        (Type.TEXT, "a\ud800b", "a\ufffdb"),
        (Type.TIMESTAMP, "2026-01-01T00:00:00", MISFIT),
        (Type.TIMESTAMP, "2026-01-01T00:00:00.1234567Z", MISFIT),
        (Type.TIMESTAMP, "9999-12-31T23:59:59-12:00", MISFIT),
        (Type.TIMESTAMP, "0000-06-01T00:00:00Z", MISFIT),
        (Type.TIMESTAMP, "2026-01-01T01:00:00.000001+01:00", datetime(2026, 1, 1, microsecond=1, tzinfo=UTC)),
    ],
)
def test_what_fits_a_type(kind: Type, value: Any, stored: Any) -> None:
    column = Column("c", kind, "")
    assert fit(column, value) is stored or fit(column, value) == stored
    array, misfits = column_array(column, [value])
    assert (array.to_pylist(), misfits) == (([None], [0]) if stored is MISFIT else ([stored], []))


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("17", 17),
        (17, 17),
        (0, None),
        ("0", None),
        ("", None),
        (False, False),
        ("007", "007"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_an_id_keeps_what_is_no_plain_decimal(sent: Any, kept: Any) -> None:
    """Catches two ids becoming one (`007` and `7`), and digits Python refuses to read ending the run."""
    found = normalise(Column("id", Type.INTEGER, "", form=Form.ID), sent)
    assert found == kept
    assert type(found) is type(kept)


def test_unix_seconds_finer_than_a_microsecond_do_not_fit() -> None:
    column = Column("c", Type.TIMESTAMP, "", form=Form.UNIX_SECONDS)
    assert fit(column, 0.1234567) is MISFIT
    assert fit(column, 1608660281.25) == datetime(2020, 12, 22, 18, 4, 41, 250_000, UTC)


@pytest.mark.parametrize(
    "url", ["https://v/1.mp4?apikey=1", "https://v/1.mp4#t=1", "https://v/1.mp4?a#b?c", "https://v/1.mp4#a?b"]
)
def test_a_video_address_loses_query_and_fragment(url: str) -> None:
    assert without_query(url) == "https://v/1.mp4"


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=3), max_size=5))
def test_canonical_json_ignores_the_order_of_members(record: dict[str, Any]) -> None:
    assert canonical(dict(reversed(record.items()))) == canonical(record)
    assert orjson.loads(canonical({k: str(v) for k, v in record.items()})) == {k: str(v) for k, v in record.items()}
