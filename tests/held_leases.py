"""Leases for tests in which there is one worker, to which everything belongs."""

from __future__ import annotations

import secrets

from engine.store import Store
from engine.store.leases import Leases, database_leases, file_leases


def held_leases(store: Store, *destinations: str) -> Leases:
    """What a worker holds that is alone."""
    if store.location.is_sqlite:
        leases = file_leases(store.location, 0, 1, destinations)
    else:
        leases = database_leases(store.location, store.charts_ledger, secrets.token_hex(4), destinations)
    leases.beat()
    leases.take()
    leases.may_act = lambda name: (
        name in leases.destinations
    )  # nobody beats for it, and nobody is there to take anything over
    return leases
