"""`deskhouse check`: is each source there, is its token accepted, and what can it see."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from pipelines.settings import VENDOR_NAMES
from sources import getscreen, posthog, screendesk
from sources._http import ApiError, RetryPolicy
from sources._settings import SourceSettings

SOURCES: Final[dict[str, ModuleType]] = {"screendesk": screendesk, "getscreen": getscreen, "posthog": posthog}
IMPATIENT: Final = RetryPolicy(attempts=2, cap_seconds=2.0, deadline_seconds=20.0)
"""A person is waiting: one retry, then the answer."""


@dataclass(frozen=True)
class ReachAnswer:
    """One source's answer in one line."""

    source: str
    name: str
    ok: bool
    text: str


def check_all(sources: Sequence[SourceSettings]) -> list[ReachAnswer]:
    """Ask every source, side by side."""

    async def ask_all() -> list[ReachAnswer]:
        return list(await asyncio.gather(*(_check(source) for source in sources)))

    return asyncio.run(ask_all())


async def _check(source: SourceSettings) -> ReachAnswer:
    module = SOURCES[source.vendor]
    name = VENDOR_NAMES[source.vendor]
    try:
        async with module.open_client(source, retry=IMPATIENT) as client:
            sees = await module.probe(client, source)
    except ApiError as error:
        return ReachAnswer(source.vendor, name, ok=False, text=error.message)
    return ReachAnswer(source.vendor, name, ok=True, text=f"reachable, token accepted, {sees}")
