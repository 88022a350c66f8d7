"""DuckDB as a dlt destination in which a load is one transaction.

Stock dlt merges each table in a transaction of its own as soon as its files are staged: a kill in between leaves new
children beside old parents. Here the files are only staged by the jobs, and all tables of the package are merged when
the package completes, in one transaction with the row that marks the load as done.
"""

from typing import Any

import dlt
from dlt.common.configuration.container import Container
from dlt.common.schema.utils import get_columns_names_with_prop
from dlt.common.storages.load_package import LoadPackageStateInjectableContext
from dlt.destinations.impl.duckdb.duck import DuckDbClient
from dlt.destinations.sql_jobs import SqlMergeFollowupJob


class AtomicDuckDbClient(DuckDbClient):
    """Merges all tables of a package in the transaction that completes it."""

    def _create_merge_followup_jobs(self, table_chain: Any) -> list[Any]:  # noqa: ARG002 - dlt's signature
        return []

    def complete_load(self, load_id: str) -> None:
        """Merge what the package staged and record the load, all or nothing."""
        package = Container()[LoadPackageStateInjectableContext]
        jobs = package.storage.get_load_package_jobs(load_id)["completed_jobs"]
        staged = {job.table_name for job in jobs}
        with self.sql_client.begin_transaction():
            for name in sorted(staged):
                table = self.prepare_load_table(name)
                if table["write_disposition"] == "merge":
                    # dlt's deduplication sorts whole rows; it is needed only where a resumed load staged a file twice
                    table["x-stage-data-deduplicated"] = self._staged_once(name)  # type: ignore[typeddict-unknown-key]
                    for statement in SqlMergeFollowupJob.generate_sql([table], self.sql_client):
                        self.sql_client.execute_sql(statement)
            super().complete_load(load_id)

    def _staged_once(self, name: str) -> bool:
        keys = ", ".join(
            self.sql_client.escape_column_name(column)
            for column in get_columns_names_with_prop(self.schema.tables[name], "primary_key")
        )
        with self.sql_client.with_staging_dataset():
            staged = self.sql_client.make_qualified_table_name(name)
        rows = self.sql_client.execute_sql(f"SELECT count(*) = count(DISTINCT ({keys})) FROM {staged}")
        return bool(rows and rows[0][0])


class atomic_duckdb(dlt.destinations.duckdb):  # noqa: N801 - dlt names destinations like functions
    """The `duckdb` destination with whole-package commits."""

    @property
    def client_class(self) -> type[DuckDbClient]:
        """The client that loads."""
        return AtomicDuckDbClient
