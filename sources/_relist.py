"""How a list is read under a privacy policy, where the keys of stored rows may be none that the vendor knows."""

from contextlib import aclosing
from dataclasses import replace
from typing import Any

from sources._http import ApiError, Traffic
from sources._plan import Answer, Ask, ListPlan, Presence
from sources._policy import STANDARD, Policy, is_pseudonym
from sources._schema import Privacy
from sources._tables import Converter, Key


def under_policy(plan: ListPlan, policy: Policy | None) -> ListPlan:
    """The plan with the policy its rows are stored under; None is the profile `standard`.

    A row whose key is stored as a hash, or was an erased person's, cannot be asked for: the list itself is asked again.
    """
    plan = replace(plan, table=replace(plan.table, policy=policy or STANDARD))
    is_personal = plan.table.key_column.privacy in {Privacy.PERSONAL, Privacy.SENSITIVE}
    return replace(plan, ask=_by_listing(plan)) if is_personal else plan


def _by_listing(plan: ListPlan) -> Ask:
    """Answers from one more pass over the list for keys the vendor does not know, and from the vendor for others."""
    converter = Converter(plan.table, plan.prepare)
    listed: dict[Key, dict[str, Any]] | None = None

    async def ask(key: Key, traffic: Traffic) -> Answer:
        nonlocal listed
        if not is_pseudonym(str(key)):
            return await plan.ask(key, traffic)
        if listed is None:
            listed = await _listed(plan, converter, traffic)
        return listed.get(key, Presence.GONE)

    return ask


async def _listed(plan: ListPlan, converter: Converter, traffic: Traffic) -> dict[Key, dict[str, Any]]:
    """The vendor's records by the keys they are stored under.

    Raises:
        ApiError: the list moved while it was read, so it proves nothing gone.
    """
    found: dict[Key, dict[str, Any]] = {}
    counts, keyless = set[int | None](), 0
    async with aclosing(plan.walk(traffic)) as pages:
        async for page in pages:
            counts.add(page.count)
            for record in page.records:
                read = converter.read([record])
                keyless += len(read.quarantined)
                found |= dict.fromkeys(read.keys.to_pylist(), record)
    if counts != {len(found) + keyless}:
        raise ApiError(
            plan.table.schema,
            f"{plan.table.qualified_name} changed while it was asked for rows that had vanished; the next run asks again",
        )
    return found
