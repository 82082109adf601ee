"""Times of stays and patients, written as texts in tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.domain.moment import Moment

_TIMES = frozenset({"admitted_at", "discharged_at", "performed_at", "birth_date", "deceased_at", "happened_at"})


def moments(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a stay or a patient, their times as moments."""
    return {
        name: Moment.of(value) if name in _TIMES and isinstance(value, str) else value for name, value in fields.items()
    }
