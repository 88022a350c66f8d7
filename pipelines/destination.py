"""DuckDB as a dlt destination in which a load is one transaction and every row is written once.

Stock dlt copies each file into a staging table, and merges each table in a transaction of its own as soon as its files
are staged: rows are written twice, and a kill in between leaves new children beside old parents. Here a file's job does
nothing, and when the package completes, dlt's own merge reads the files themselves, through views that stand where it
expects the staging tables: all tables of the package in one transaction with the row that marks the load as done.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

from pipelines.commits import commit_beside, wait_for_all
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
        """Merge what the package holds and record the load, all or nothing, in as little memory as will do.

        The commit goes on beside when this returns: the package is done with before it is known to be committed, so a kill
        in between costs as much as one before it was packed. Its vendor confirms the commit before it loads another.
        """
        wait_for_all()
        files = self._files(load_id)
        for memory in MEMORY:
            try:
                self._merge(files, load_id, memory)
            except Exception as failure:
                if memory == MEMORY[-1] or not _lacked_memory(failure):
                    raise
                log.info("a slice takes more memory than the %s set aside", memory)
            else:
                self._commit_beside()
                return

    def _merge(self, files: dict[str, list[str]], load_id: str, memory: str | None) -> None:
        self.sql_client.native_connection.begin()
        try:
            with limited(self.sql_client.native_connection, memory), self._staging_of_its_own():
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
        except BaseException:
            # dlt has rolled back already where a statement of its own failed
            with suppress(duckdb.TransactionException):
                self.sql_client.native_connection.rollback()
            raise

    @contextmanager
    def _staging_of_its_own(self) -> Iterator[None]:
        """Views where dlt's merge looks for staging tables, in a schema that dlt makes and empties nothing in meanwhile."""
        dlts = self.sql_client.staging_dataset_name
        self.sql_client.staging_dataset_name = f"{self.sql_client.dataset_name}_merging"
        try:
            yield
        finally:
            self.sql_client.staging_dataset_name = dlts

    def _commit_beside(self) -> None:
        """Commit what was merged in a thread of its own, which takes the connection along; dlt goes on with another."""
        connection, pool = self.sql_client.native_connection, self.config.credentials.conn_pool
        self.sql_client.open_connection()

        def commit() -> None:
            try:
                connection.commit()
            finally:
                pool.return_conn(connection)  # type: ignore[union-attr]  # it was taken from there

        commit_beside(self.schema.name, commit)

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

    def configuration(
        self,
        initial_config: DuckDbClientConfiguration,
        accept_partial: bool = False,  # noqa: ARG002, FBT001, FBT002 - dlt's signature
    ) -> DuckDbClientConfiguration:
        """What was said where it was made, and no more; dlt would look through all settings, eleven times a load."""
        config = initial_config or self.spec()
        if not config.is_resolved():
            config.update(self.config_params)
            if not config.credentials.is_resolved():
                config.credentials.resolve()
            config.resolve()
        return config

    def capabilities(
        self, config: DuckDbClientConfiguration | None = None, naming: NamingConvention | None = None
    ) -> DestinationCapabilitiesContext:
        """What DuckDB can do, whatever the settings; dlt would read all of them each time it asks, 40 times a load."""
        return super().capabilities(config or self.spec(), naming)

    @property
    def client_class(self) -> type[DuckDbClient]:
        """The client that loads."""
        return AtomicDuckDbClient
