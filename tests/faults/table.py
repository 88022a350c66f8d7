"""The fault list of `facts/reliability.md` §5, with the outcome each must have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from faults import content, lists, network, process, trust

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.case import Case


@dataclass(frozen=True)
class Entry:
    """One fault.

    Attributes:
        number: its number in the list.
        name: what goes wrong.
        outcome: what must come of it: `recover`, `resume`, `quarantine`, `refuse`, or several of them.
        play: makes it go wrong, and looks.
        peer: why plain dlt cannot be compared; empty where it can.
        peer_reads: whether a dashboard looks on while plain dlt is played.
        weight: how long it takes, roughly, in seconds.
    """

    number: int
    name: str
    outcome: str
    play: Callable[[Case], None]
    peer: str = ""
    peer_reads: bool = False
    weight: int = 5

    @property
    def words(self) -> set[str]:
        return set(self.outcome.replace(",", "").split())


FAULTS = (
    Entry(1, "kill -9 while a page is read", "resume", process.killed_while_reading, weight=9),
    Entry(2, "kill -9 while rows are normalised", "resume", process.killed_while_normalizing),
    Entry(3, "kill -9 while tables are loaded, between two of them", "resume", process.killed_while_loading),
    Entry(
        4,
        "kill -9 while models are made and the file is published",
        "resume",
        process.killed_while_publishing,
        peer="it has no publishing step",
    ),
    Entry(5, "SIGTERM, Ctrl-C", "resume", process.interrupted),
    Entry(6, "pipelines folder deleted, warehouse kept", "recover", process.pipelines_folder_lost, weight=7),
    Entry(7, "two runs at once", "recover", process.two_at_once),
    Entry(8, "database file held by a dashboard", "recover, resume", process.locked, peer_reads=True, weight=8),
    Entry(9, "disk full while reading, loading, copying", "resume", process.disk_full),
    Entry(10, "connection refused, unknown name, reset mid-body", "recover, resume", network.unreachable, weight=12),
    Entry(11, "body cut short, with and without Content-Length", "recover", network.cut_short),
    Entry(12, "slow drip", "recover", network.slow_drip),
    Entry(13, "500, 502, 503, 504, then fine", "recover", network.bursts),
    Entry(14, "429 with Retry-After", "recover", network.throttled),
    Entry(
        15, "Retry-After as date, past, 0, negative, garbage, 999999", "recover, resume", network.odd_waits, weight=9
    ),
    Entry(16, "permanent 503 of one vendor, run after run", "resume", network.down_for_good),
    Entry(17, "401, 403", "resume", network.key_refused),
    Entry(18, "200 with a login page, a wrong type, no body", "recover, resume", network.no_json),
    Entry(19, "200 with an error, without its list, with an empty one", "resume", network.no_list),
    Entry(20, "malformed JSON, NaN, repeated keys, half surrogates, BOM", "recover, resume", network.odd_json),
    Entry(21, "poison records: keys null, missing, odd, huge; odd values", "quarantine", content.poison, weight=11),
    Entry(22, "every record of a page is poison", "resume", content.contract_broken),
    Entry(23, "new fields, new lists, 2,000 keys", "recover", content.additive_drift),
    Entry(24, "types change, fields renamed, names collide", "recover", content.breaking_drift),
    Entry(25, "next loops, cursor stands still, empty page with a next", "resume", lists.endless),
    Entry(26, "rows inserted and deleted while paging, pages overlap", "recover", lists.moving),
    Entry(27, "two versions of a key; a stale replica's page", "recover", lists.versions),
    Entry(28, "late arrivals, equal timestamps, sub-second ties", "recover", lists.late),
    Entry(29, "a row dated 2099, skewed and jumping clocks", "recover", lists.wrong_clocks),
    Entry(30, "deletes at the vendor; a list suddenly short", "recover, resume", lists.deleted),
    Entry(
        31,
        "next on another host, http, userinfo, other port, private IP, file:",
        "refuse",
        trust.next_elsewhere,
        weight=8,
    ),
    Entry(32, "redirects to another host", "refuse", trust.redirected),
    Entry(33, "gzip bomb, endless list, an encoding not asked for", "resume", trust.too_large),
    Entry(34, "hostile names and ids, expired signed address", "recover", trust.hostile_names),
    Entry(35, "self-signed, expired, wrong-host certificate", "refuse", trust.untrusted_certificates, weight=9),
    Entry(36, "secrets echoed in body, error, header, address, records", "refuse", trust.secrets_come_back),
)
