"""What a source is configured with."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sources._policy import Policy


@dataclass(frozen=True)
class SourceSettings:
    """Settings of one vendor, resolved.

    Attributes:
        vendor: `screendesk`, `getscreen` or `posthog`.
        secret: the token or key; never printed.
        base_url: where the API is.
        max_concurrency: requests in flight at most.
        requests_per_second: requests started per second at most; 0 for no limit.
        lookback_days: days before the last run that are read again, where a vendor is read by dates.
        full_sweep_every: days after which a table that allows lighter reading is read whole again.
        project_id: PostHog only: the project.
        privacy: what is stored of personal data; None is the profile `standard`.
    """

    vendor: str
    secret: str = field(repr=False)
    base_url: str
    max_concurrency: int = 2
    requests_per_second: float = 2.0
    lookback_days: float = 7.0
    full_sweep_every: float = 1.0
    project_id: str = ""
    privacy: "Policy | None" = None
