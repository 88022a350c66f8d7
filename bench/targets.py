"""What deskhouse promises of its speed, as ratios between things measured in one session, and whether it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from report import Results

_MOST_BYTES, _MOST_APART = 500e6, 1.2
_LARGE, _MILLION, _MEETINGS = 100_000, 1_000_000, 20_000


@dataclass(frozen=True)
class Verdict:
    """Whether one target holds, and by how much."""

    passed: bool
    text: str

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.text}"


def judge(results: Results) -> list[Verdict]:
    """A verdict for each target whose parts were all measured."""
    found = [*_first_load(results), *_slow(results), *_memory(results), *_quiet(results)]
    return [verdict for verdict in found if verdict is not None]


def _first_load(results: Results) -> list[Verdict | None]:
    ours = results.wall("first", _LARGE, "deskhouse")
    meetings = results.wall("meetings", _MEETINGS, "deskhouse")
    subject = "first load of 100,000 recordings"
    return [
        _faster(f"{subject}, against dlt rest_api with defaults", results.wall("first", _LARGE, "dlt"), ours, 15),
        _faster(f"{subject}, against dlt rest_api tuned", results.wall("first", _LARGE, "dlt-tuned"), ours, 3),
        _faster(f"{subject}, against the plain script", results.wall("first", _LARGE, "plain"), ours, 1),
        _at_most(f"{subject}, against the limit", ours, results.wall("first", _LARGE, "limit"), 1.5),
        _faster(
            "20,000 meetings with 1,000,000 segments, against dlt rest_api with defaults",
            results.wall("meetings", _MEETINGS, "dlt"),
            meetings,
            10,
        ),
        _at_most("1,000,000 recordings, against 100,000", results.wall("million", _MILLION, "deskhouse"), ours, 11),
    ]


def _slow(results: Results) -> list[Verdict | None]:
    size = results.largest("slow")
    ours = results.wall("slow", size, "deskhouse")
    subject = f"100 ms per request, {size:,} recordings, 8 connections"
    page_by_page = [results.wall("slow", size, name) for name in ("plain", "dlt-tuned", "dlt")]
    fastest = min((wall for wall in page_by_page if wall is not None), default=None)
    return [
        _at_most(f"{subject}, against the limit with as many", ours, results.wall("slow", size, "limit"), 1.3),
        _faster(f"{subject}, against the fastest that reads page by page", fastest, ours, 6),
    ]


def _memory(results: Results) -> list[Verdict | None]:
    large, million = (
        results.peak("first", _LARGE, "deskhouse"),
        results.peak("million", _MILLION, "deskhouse"),
    )
    if large is None or million is None:
        return []
    apart = max(large, million) / min(large, million)
    most = max(large, million)
    return [
        Verdict(
            apart <= _MOST_APART,
            f"peak memory at 100,000 and 1,000,000 recordings: {apart:.2f} times apart, at most {_MOST_APART:g}",
        ),
        Verdict(most < _MOST_BYTES, f"peak memory: {most / 1e6:,.0f} MB, below {_MOST_BYTES / 1e6:.0f} MB"),
    ]


def _quiet(results: Results) -> list[Verdict | None]:
    size = results.largest("quiet")
    full = results.wall("quiet", size, "quiet full")
    verdicts = [
        _at_most(
            f"quiet --full run of {size:,}, zero rows written, against fetching and parsing the pages alone",
            full,
            results.wall("quiet", size, "pages alone"),
            1.5,
        )
    ]
    for kind in ("full", "light"):
        # within a turn: over minutes, the machine changes more than what is asked for
        more = results.more("quiet", size, f"one row changed, {kind}", f"quiet {kind}")
        if more is not None:
            text = f"one changed row in {size:,}, {kind} run: {more:+.2f} s against the quiet run of the same turn, at most 1 s"
            verdicts.append(Verdict(more <= 1, text))
    return verdicts


def _faster(subject: str, theirs: float | None, ours: float | None, least: float) -> Verdict | None:
    if theirs is None or ours is None:
        return None
    return Verdict(theirs / ours >= least, f"{subject}: {theirs / ours:.2f} times faster, at least {least:g}")


def _at_most(subject: str, ours: float | None, reference: float | None, most: float) -> Verdict | None:
    if ours is None or reference is None:
        return None
    return Verdict(ours / reference <= most, f"{subject}: {ours / reference:.2f} times as long, at most {most:g}")
