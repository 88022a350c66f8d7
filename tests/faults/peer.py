"""The same three APIs with plain dlt `rest_api`, as a careful user would write it after reading dlt's documents.

Keys and merge are declared, every paginator is the one dlt recommends, credentials use its auth classes, retries are
dlt's own, and one vendor's failure does not stop the next: each has a pipeline of its own. Loads go to one DuckDB file,
`peer/deskhouse.duckdb`, which readers open. Exit code 1 when any pipeline failed.
"""

from __future__ import annotations

import os
import sys

import dlt
from dlt.sources.rest_api import rest_api_source

MERGE = {"write_disposition": "merge"}


def sources() -> dict[str, object]:
    """One source per vendor."""
    environment = os.environ
    screendesk = rest_api_source(
        {
            "client": {
                "base_url": environment["SOURCES__SCREENDESK__BASE_URL"] + "/",
                "auth": {"type": "bearer", "token": environment["SOURCES__SCREENDESK__API_TOKEN"]},
                "paginator": {"type": "page_number", "base_page": 1, "total_path": "pagination.pages"},
            },
            "resources": [
                {"name": "recordings", "primary_key": "uuid", **MERGE,
                 "endpoint": {"path": "recordings", "data_selector": "records"}},
                {"name": "users", "primary_key": "email", **MERGE,
                 "endpoint": {"path": "users", "data_selector": "users"}},
            ],
        },
        name="screendesk",
    )  # fmt: skip
    getscreen = rest_api_source(
        {
            "client": {
                "base_url": environment["SOURCES__GETSCREEN__BASE_URL"] + "/",
                "auth": {"type": "api_key", "name": "X-Api-Key", "location": "header",
                         "api_key": environment["SOURCES__GETSCREEN__API_KEY"]},
                "paginator": {"type": "offset", "limit": 40, "total_path": "total"},
            },
            "resources": [
                {"name": "connections", "primary_key": "id", **MERGE,
                 "endpoint": {"path": "history/list", "data_selector": "data"}},
            ],
        },
        name="getscreen",
    )  # fmt: skip
    project = environment["SOURCES__POSTHOG__PROJECT_ID"]
    posthog = rest_api_source(
        {
            "client": {
                "base_url": environment["SOURCES__POSTHOG__BASE_URL"] + "/",
                "auth": {"type": "bearer", "token": environment["SOURCES__POSTHOG__API_KEY"]},
                "paginator": {"type": "json_link", "next_url_path": "next"},
            },
            "resources": [
                {"name": "desktop_recordings", "primary_key": "id", **MERGE,
                 "endpoint": {"path": f"api/projects/{project}/desktop_recordings/", "params": {"limit": 20},
                              "data_selector": "results"}},
            ],
        },
        name="posthog",
    )  # fmt: skip
    return {"screendesk": screendesk, "getscreen": getscreen, "posthog": posthog}


def main() -> int:
    """Load all three; 0 when all went well."""
    folder = os.path.abspath("peer")  # noqa: PTH100
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    failed = 0
    for vendor, source in sources().items():
        pipeline = dlt.pipeline(
            vendor,
            pipelines_dir=f"{folder}/dlt",
            destination=dlt.destinations.duckdb(f"{folder}/deskhouse.duckdb"),
            dataset_name=vendor,
        )
        try:
            if pipeline.has_pending_data:
                # dlt loads what is pending and reads nothing new: without this, a run after a crash brings no new rows
                pipeline.run()
            pipeline.run(source)
        except Exception as error:  # noqa: BLE001 - one vendor's failure must not stop the others
            sys.stderr.write(f"{vendor}: {error}\n")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
