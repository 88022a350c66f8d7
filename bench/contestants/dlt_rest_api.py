"""dlt's `rest_api` source as its documentation shows it, with a primary key and merge, so that it can be run again.

Without `--tuned` every setting is dlt's default. With it: parquet instead of INSERT statements, files of 10,000 items so
that two processes can normalise side by side, and four load threads.
"""

import argparse
import os
from pathlib import Path

LISTS = {
    "screendesk": {
        "name": "recordings",
        "primary_key": "uuid",
        "endpoint": {
            "data_selector": "records",
            "paginator": {"type": "page_number", "base_page": 1, "total_path": "pagination.last_page"},
        },
    },
    "posthog": {
        "name": "desktop_recordings",
        "primary_key": "id",
        "endpoint": {
            "data_selector": "results",
            "paginator": {"type": "offset", "limit": 100, "total_path": "count"},
        },
    },
}
TUNED = {
    "DATA_WRITER__BUFFER_MAX_ITEMS": "10000",
    "DATA_WRITER__FILE_MAX_ITEMS": "10000",
    "NORMALIZE__WORKERS": "2",
    "LOAD__WORKERS": "4",
}


def main() -> None:
    """Load one vendor's list into a new DuckDB file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vendor", choices=LISTS, required=True)
    parser.add_argument("--url", required=True, help="the list's address")
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--tuned", action="store_true")
    options = parser.parse_args()
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    if options.tuned:
        os.environ.update(TUNED)
    import dlt  # noqa: PLC0415 - reads the environment
    from dlt.sources.rest_api import rest_api_source  # noqa: PLC0415

    listed = LISTS[options.vendor]
    source = rest_api_source(
        {
            "client": {"base_url": options.url},
            "resources": [
                {
                    **listed,
                    "write_disposition": "merge",
                    "endpoint": {**listed["endpoint"], "path": options.url},
                }
            ],
        }
    )
    pipeline = dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=str(options.database.parent / "dlt"),
        destination=dlt.destinations.duckdb(str(options.database)),
        dataset_name=options.vendor,
    )
    pipeline.run(source, **({"loader_file_format": "parquet"} if options.tuned else {}))


if __name__ == "__main__":
    main()
