"""`deskhouse forget EMAIL`: one person erased from everything the warehouse keeps, and kept out of later syncs.

What is removed: the e-mail wherever it stands, in columns, inside texts, in `_extra`, in quarantine and in the ledger;
names that the data gives for that e-mail and for no other, in columns that hold names; and what stands beside them about
the same person. What later syncs bring is compared with keyed hashes of the e-mail and the names, which is all that is
kept of them. A row is never taken out, so every vendor's count still holds: a user, who is known by e-mail alone, stays
as a pseudonym.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pipelines import privacy, rewrite
from pipelines.database import connect
from pipelines.settings import Settings, SettingsError
from pipelines.sync import ALL_TABLES, RunResult, open_run
from pipelines.warehouse import Warehouse, current_generation
from sources._policy import FULL, Policy

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb
    from rich.console import Console

    from pipelines.progress import Reporter

_EMAIL: Final = re.compile(r"[^\s@<>\"(),;\[\]\\]{1,64}@[^\s@<>\"(),;\[\]\\]{1,255}")
_NAMES_OF: Final = (("screendesk.users", "email", "name"), ("screendesk.recordings", "user__email", "user__name"))
"""Where the data says which name belongs to an e-mail: table, e-mail, name."""


@dataclass
class Forgotten:
    """What is known of a person, in numbers.

    Attributes:
        names: names that belong to this e-mail alone.
        shared_names: names that belong to others too, and are left where they stand without the e-mail.
        tables: rows, list items, quarantined records and drift that name the person, by table.
        ledger: texts in `ops` that do.
        generations: published copies that are kept.
    """

    names: int = 0
    shared_names: int = 0
    tables: dict[str, privacy.Changed] = field(default_factory=dict)
    ledger: int = 0
    generations: int = 0

    @property
    def counts(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "tables": {name: vars(changed) for name, changed in self.tables.items()},
            "ledger_texts": self.ledger,
            "names": self.names,
            "shared_names": self.shared_names,
            "generations": self.generations,
        }


def check_email(email: str) -> str:
    """The e-mail in lower case.

    Raises:
        SettingsError: it is none.
    """
    email = email.strip().lower()
    if not _EMAIL.fullmatch(email):
        raise SettingsError("What is to be forgotten must be one e-mail address, like ann@example.com.")
    return email


def look_up(settings: Settings, email: str) -> Forgotten:
    """What the warehouse keeps of a person, as published; nothing is touched.

    Raises:
        SettingsError: it is no e-mail.
    """
    email, warehouse = check_email(email), Warehouse(settings.warehouse_dir)
    generation = current_generation(warehouse)
    database = generation.database if generation else warehouse.private_database
    if not database.exists():
        return Forgotten()
    with connect(database, read_only=True) as con:
        found, _ = _erase(con, _bare(privacy.policy_of(settings, warehouse, make_key=False)), email, dry_run=True)
    found.generations = _generations(warehouse)
    return found


def forget(
    settings: Settings,
    email: str,
    reporter: Reporter,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> tuple[RunResult, Forgotten]:
    """Erase a person and publish; every older generation is removed. No vendor is asked.

    Raises:
        SettingsError: it is no e-mail, or a setting cannot be used. Nothing was touched.
        LockHeld, PublishError, Interrupted: as for a sync.
    """
    email, warehouse = check_email(email), Warehouse(settings.warehouse_dir)
    with open_run(replace(settings, skipped=()), [], reporter, clock=clock) as run:
        rewrite.require(warehouse)
        run.sync_all([])
        reporter.step("erasing")
        now, policy = clock(), _bare(run.policy)
        with connect(warehouse.private_database) as con:
            con.begin()
            found, marks = _erase(con, policy, email, dry_run=False)
            found.generations = _generations(warehouse)
            erasure = {
                "run_id": run.result.run_id,
                "erased_at": now,
                "person": policy.mark(email),
                "counts": privacy.as_json(found.counts),
            }
            privacy.suppress(con, policy, marks, erasure)
            con.commit()
        run.rows_changed = True
        run.result.notes.append("forget: one person was erased")
        run.finish()
    return run.result, found


def _bare(policy: Policy) -> Policy:
    """A policy that changes nothing, with the key of another."""
    return replace(FULL, key=policy.key)


def _erase(con: duckdb.DuckDBPyConnection, policy: Policy, email: str, *, dry_run: bool) -> tuple[Forgotten, list[str]]:
    own, shared = _names(con, policy, email)
    marks = [policy.mark(email), *sorted(own)]
    policy = replace(policy, erased=frozenset(marks))
    found, now = Forgotten(len(own), len(shared)), datetime.now(UTC)
    for table in ALL_TABLES:
        changed = privacy.rewrite_table(con, table, policy, now, dry_run=dry_run)
        found.tables[table.qualified_name] = changed
    for table_name, column, text in list(privacy.texts_of_the_ledger(con)):
        left = policy.erase(text, names=False) or ""
        if left != text:
            found.ledger += 1
            if not dry_run:
                con.execute(f"UPDATE {table_name} SET {column} = ? WHERE {column} = ?", [left, text])
    return found, marks


def _names(con: duckdb.DuckDBPyConnection, policy: Policy, email: str) -> tuple[set[str], set[str]]:
    """Marks of the names that the data gives for an e-mail: for it alone, and for others too."""
    person = policy.mark(email)
    own, others = set[str](), set[str]()
    for table, email_column, name_column in _NAMES_OF:
        pairs = con.execute(
            f"SELECT DISTINCT {email_column}, {name_column} FROM {table} "
            f"WHERE {email_column} IS NOT NULL AND trim({name_column}) <> ''"
        ).fetchall()
        for address, name in pairs:
            (own if policy.mark(address) == person else others).add(policy.mark(name))
    return own - others, own & others


def _generations(warehouse: Warehouse) -> int:
    return sum(1 for path in warehouse.generations.glob("*/*.duckdb"))


def show(found: Forgotten, console: Console, *, done: bool) -> None:
    """The numbers for people."""
    verb = "changed" if done else "would be changed"
    for name, changed in found.tables.items():
        line = f"{name}: {changed.rows:,} rows {verb}, with {changed.items:,} list items"
        if changed.quarantined or changed.drift:
            line += f", {changed.quarantined:,} quarantined records and {changed.drift:,} lines of drift"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"ops: {found.ledger:,} texts {verb}", highlight=False)
    console.print(
        f"Names: {found.names} of this person alone, matched wherever names stand; {found.shared_names} shared with others, "
        "left where the e-mail is not beside them.",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"Published copies: {found.generations}, {'replaced by one new one' if done else 'to be replaced by one new one'}.",
        highlight=False,
    )
