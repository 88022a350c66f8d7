"""DuckDB as a dlt destination in which a load is one transaction and every row is written once.

Stock dlt copies each file into a staging table, and merges each table in a transaction of its own as soon as its files
are staged: rows are written twice, and a kill in between leaves new children beside old parents. Here a file's job does
nothing, and when the package completes, dlt's own merge reads the files themselves, through views that stand where it
expects the staging tables: all tables of the package in one transaction with the row that marks the load as done.
"""

import logging
from pathlib import Path
from typing import Any, Final

import dlt
import duckdb
from dlt.common.configuration import configspec
from dlt.common.configuration.container import Container
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.client import LoadJob, RunnableLoadJob
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.normalizers.naming import NamingConvention
from dlt.common.schema.utils import get_columns_names_with_prop
from dlt.common.storages.load_package import LoadPackageStateInjectableContext
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration
from dlt.destinations.impl.duckdb.duck import DuckDbClient
from dlt.destinations.sql_jobs import SqlMergeFollowupJob

from pipelines.database import limited
from sources._causes import causes_of

log = logging.getLogger("deskhouse.load")

MEMORY: Final = ("48MB", "200MB", "800MB", None)
"""What DuckDB may hold while a package is merged, and then what the next try has: the rest of its cache does nothing."""


@configspec(init=False)
class PrivateDatabase(DuckDbClientConfiguration):
    """Where rows are loaded; dlt's own way to name it would import SQLAlchemy, wherever that is installed."""

    def __str__(self) -> str:
        return "the private database"


class MergedLater(RunnableLoadJob):
    """A file that is merged when the package completes; a job that has run, or dlt would wait a second for it."""

    def run(self) -> None:
        """Nothing: the file stays where it is."""


class AtomicDuckDbClient(DuckDbClient):
    """Merges all tables of a package in the transaction that completes it."""

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:  # noqa: ARG002 - dlt's signature
        """Never: files are read where they lie."""
        return False

    def create_load_job(
        self,
        table: PreparedTableSchema,
        file_path: str,
        load_id: str,
        restore: bool = False,  # noqa: FBT001, FBT002 - dlt's signature
    ) -> LoadJob:
        """A job that has nothing to do for a file that is merged when the package completes; dlt's own for others."""
        if table["write_disposition"] == "merge" and Path(file_path).suffix == ".parquet":
            return MergedLater(file_path)
        return super().create_load_job(table, file_path, load_id, restore)

    def _create_merge_followup_jobs(self, table_chain: Any) -> list[Any]:  # noqa: ARG002 - dlt's signature
        return []

    def complete_load(self, load_id: str) -> None:
        """Merge what the package holds and record the load, all or nothing, in as little memory as will do."""
        files = self._files(load_id)
        for memory in MEMORY:
            try:
                self._merge(files, load_id, memory)
            except Exception as failure:
                if memory == MEMORY[-1] or not _lacked_memory(failure):
                    raise
                log.info("a slice takes more memory than the %s set aside", memory)
            else:
                return

    def _merge(self, files: dict[str, list[str]], load_id: str, memory: str | None) -> None:
        with self.sql_client.begin_transaction():
            with limited(self.sql_client.native_connection, memory):
                staging = self.sql_client.escape_column_name(self.sql_client.staging_dataset_name)
                if files:
                    self.sql_client.execute_sql(f"CREATE SCHEMA IF NOT EXISTS {staging}")
                for name in sorted(files):
                    table = self.prepare_load_table(name)
                    self._show(name, files[name])
                    # dlt's deduplication sorts whole rows; it is needed only where a file repeats a key
                    table["x-stage-data-deduplicated"] = self._each_once(name)  # type: ignore[typeddict-unknown-key]
                    for statement in SqlMergeFollowupJob.generate_sql([table], self.sql_client):
                        self.sql_client.execute_sql(statement)
                if files:
                    self.sql_client.execute_sql(f"DROP SCHEMA {staging} CASCADE")
            super().complete_load(load_id)

    def _files(self, load_id: str) -> dict[str, list[str]]:
        """The package's files by the name of the table they are merged into."""
        storage = Container()[LoadPackageStateInjectableContext].storage
        files: dict[str, list[str]] = {}
        for job in storage.get_load_package_jobs(load_id)["completed_jobs"]:
            merged = self.prepare_load_table(job.table_name)["write_disposition"] == "merge"
            if merged and job.file_format == "parquet":
                path = storage.get_job_file_path(load_id, "completed_jobs", job.file_name())
                files.setdefault(job.table_name, []).append(storage.storage.make_full_path(path))
        return files

    def _show(self, name: str, paths: list[str]) -> None:
        """A view on a table's files where its staging table would be."""
        listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
        with self.sql_client.with_staging_dataset():
            view = self.sql_client.make_qualified_table_name(name)
        self.sql_client.execute_sql(f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM read_parquet([{listed}])")

    def _each_once(self, name: str) -> bool:
        keys = ", ".join(
            self.sql_client.escape_column_name(column)
            for column in get_columns_names_with_prop(self.schema.tables[name], "primary_key")
        )
        with self.sql_client.with_staging_dataset():
            staged = self.sql_client.make_qualified_table_name(name)
        rows = self.sql_client.execute_sql(f"SELECT count(*) = count(DISTINCT ({keys})) FROM {staged}")
        return bool(rows and rows[0][0])


def _lacked_memory(failure: BaseException) -> bool:
    return any(isinstance(cause, duckdb.OutOfMemoryException) for cause in causes_of(failure))


class atomic_duckdb(dlt.destinations.duckdb):  # noqa: N801 - dlt names destinations like functions
    """The `duckdb` destination with whole-package commits."""

    spec = PrivateDatabase

    def capabilities(
        self, config: DuckDbClientConfiguration | None = None, naming: NamingConvention | None = None
    ) -> DestinationCapabilitiesContext:
        """What DuckDB can do, whatever the settings; dlt would read all of them each time it asks, 40 times a load."""
        return super().capabilities(config or self.spec(), naming)

    @property
    def client_class(self) -> type[DuckDbClient]:
        """The client that loads."""
        return AtomicDuckDbClient
