"""Part `salesforce`: discharges into a Salesforce org on this machine, from the first message to the last record.

The org is a stand-in and shares the cores: what it takes to answer is in `machine` of the processor time, not in `all`.
"""

from __future__ import annotations

from typing import Any, Final

from engine.simulator.bench.measure import Say, ratio, warm_up
from engine.simulator.bench.site import Place
from engine.simulator.bench.throughput import to_the_end

_SENDERS: Final = 16


def salesforce(place: Place, org: str, *, messages: int, say: Say) -> dict[str, Any]:
    """Send messages and wait until the org has all that came of them."""
    say(f"{messages} messages into the Salesforce org")
    with place.site(org=org) as site, site.daemon() as daemon, site.store() as store:
        warm_up(daemon, store)
        result = to_the_end(daemon, store, _SENDERS, messages)
    delivered = result["deliveries"]
    return {**result, "senders": _SENDERS, "deliveries_rate": round(ratio(delivered, result["delivered_seconds"]), 1)}
