"""PostHog as a dlt source."""

from collections.abc import Iterator

import dlt
from dlt.extract import DltResource

from sources._resource import whole_tables
from sources._settings import SourceSettings
from sources.posthog import BASE_URL, VENDOR, open_reading


@dlt.source(name=VENDOR, section=VENDOR, max_table_nesting=0)
def posthog(
    api_key: str = dlt.secrets.value,
    project_id: str = dlt.config.value,
    base_url: str = BASE_URL,
    max_concurrency: int = 2,
    requests_per_second: float = 1.2,
) -> Iterator[DltResource]:
    """PostHog desktop recordings as a plain dlt source, for pipelines of your own: merges every row each time.

    Args:
        api_key: personal API key.
        project_id: numeric id of the project.
        base_url: where the API is.
        max_concurrency: requests in flight at most.
        requests_per_second: requests started per second at most; 0 for no limit.
    """
    settings = SourceSettings(
        VENDOR, api_key, base_url, max_concurrency, requests_per_second, project_id=str(project_id)
    )
    yield from whole_tables(open_reading(settings, {}))
