"""What the warehouse holds, in arrays: it must answer like a dictionary."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import _known
from sources._known import NONE, Known, Marks, words_of

if TYPE_CHECKING:
    import pytest

UUIDS = [str(uuid.UUID(int=i * 7919**9 % 2**128)) for i in range(40)]
TEXTS = [*UUIDS, "", "a", "ann@x.example", UUIDS[0].upper(), UUIDS[0].replace("-", ""), "é" * 18, "-" * 36, "x" * 512]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.sampled_from(TEXTS), max_size=30), max_size=8))
def test_texts_are_found_where_they_were_placed(batches: list[list[str]]) -> None:
    """Two keys taken for one loses a row; one taken for two loads it twice."""
    known, model = Known(), dict[str, int]()
    for batch in batches:
        numbers = known.place(pa.array(batch, pa.string()))
        for key in batch:
            model.setdefault(key, len(model))
        assert numbers.tolist() == [model[key] for key in batch]
    assert len(known) == len(model)
    assert known.keys(range(len(known))) == list(model)
    assert known.find(pa.array(TEXTS)).tolist() == [model.get(key, -1) for key in TEXTS]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=200))
def test_integers_are_found_and_given_back(keys: list[int]) -> None:
    known = Known()
    known.place(pa.array(keys, pa.int64()))
    assert known.keys(range(len(known))) == list(dict.fromkeys(keys))


def test_it_grows_past_its_first_size_without_losing_anyone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_known, "_LEAST", 4)
    keys = [str(uuid.UUID(int=i * 2**64 + i)) for i in range(20_000)]
    known = Known()
    for start in range(0, len(keys), 700):
        batch = keys[max(0, start - 50) : start + 700]
        numbers = known.place(pa.array(batch))
        known.write(numbers, numbers.astype(np.uint64), numbers)
    assert known.find(pa.array(keys)).tolist() == list(range(len(keys)))
    assert known.live == len(keys)
    assert known.hashes[: len(keys)].tolist() == known.cursors[: len(keys)].tolist() == list(range(len(keys)))


def test_a_slice_of_an_array_is_read_from_where_it_begins() -> None:
    """Arrow arrays share buffers: read from the start, every key after the first slice would be another's."""
    keys = pa.array(UUIDS)
    known = Known()
    known.place(keys.slice(10, 20))
    assert known.keys(range(20)) == UUIDS[10:30]
    hashes = pa.array([f"{i:032x}" for i in range(2**64 - 3, 2**64 + 3)]).slice(3)
    assert words_of(hashes).tolist() == [1, 1, 1]
    assert words_of(pa.array([f"{i:016x}{0:016x}" for i in (1, 2**64 - 1)])).tolist() == [1, 2**64 - 1]


def test_rows_are_live_once_written_and_until_marked_deleted() -> None:
    known = Known()
    numbers = known.place(pa.array(["a", "b", "c"]))
    assert known.live == 0
    known.write(numbers[:2], np.array([1, 2], np.uint64), np.array([NONE, 5]), deleted=np.array([False, True]))
    assert known.live_rows().tolist() == [True, False, False]


@given(st.lists(st.lists(st.integers(0, 500), max_size=20), max_size=10))
def test_marks_are_a_set_of_numbers(batches: list[list[int]]) -> None:
    marks, model = Marks(), set[int]()
    for batch in batches:
        marks.add(np.array(batch, np.int64))
        model |= set(batch)
    assert len(marks) == len(model)
    everyone = np.arange(600)
    assert marks.has(everyone).tolist() == marks.first(600).tolist() == [n in model for n in everyone.tolist()]
