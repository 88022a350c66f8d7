"""What a warehouse holds, written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sources._known import NONE, Known, words_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sources._schema import Type
    from sources._tables import Key


def known_rows(key_type: Type, rows: Mapping[Key, tuple[str, int | None, bool, int | None, int | None]]) -> Known:
    """What a warehouse holds: hash, cursor, deleted, start and stop of each row."""
    known = Known()
    if rows:
        hashes, cursors, deleted, starts, stops = zip(*rows.values(), strict=True)
        dates = [np.array([NONE if date is None else date for date in dates]) for dates in (cursors, starts, stops)]
        numbers = known.place(pa.array(rows, key_type.arrow))
        known.write(numbers, words_of(pa.array(hashes)), dates[0], deleted=np.array(deleted))
        known.note_spans(numbers, dates[1], dates[2])
    return known
