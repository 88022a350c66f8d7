"""Screendesk as a dlt source."""

from collections.abc import Iterator

import dlt
from dlt.extract import DltResource

from sources._resource import whole_tables
from sources._settings import SourceSettings
from sources.screendesk import BASE_URL, VENDOR, open_reading


@dlt.source(name=VENDOR, section=VENDOR, max_table_nesting=0)
def screendesk(
    api_token: str = dlt.secrets.value,
    base_url: str = BASE_URL,
    max_concurrency: int = 2,
    requests_per_second: float = 2.0,
) -> Iterator[DltResource]:
    """Screendesk as a plain dlt source, for pipelines of your own: reads and merges every row each time.

    Args:
        api_token: personal API token.
        base_url: where the API is.
        max_concurrency: requests in flight at most.
        requests_per_second: requests started per second at most; 0 for no limit.
    """
    settings = SourceSettings(VENDOR, api_token, base_url, max_concurrency, requests_per_second)
    yield from whole_tables(open_reading(settings, {}))
