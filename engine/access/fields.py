"""The groups of fields that roles name, and which group each field of a chart belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Group(StrEnum):
    IDENTITY = "identity"
    """Who it is: keys, name, birth date, sex."""
    CONTACT = "contact"
    """How they are reached: address, phones, language, primary care provider."""
    STAY = "stay"
    """Where they are, since when, with whom."""
    CLINICAL = "clinical"
    """Diagnoses, procedures, disposition, death, scores, medicines."""
    PLAN = "plan"
    """Tasks, appointments, pages."""
    PAYMENT = "payment"
    """Account, visit number, class and dates that are billed."""
    METADATA = "metadata"
    """Opaque ids, states and times of the engine's own."""


ALL: Final = frozenset(Group)

_I, _C, _S, _K, _P, _B, _M = (frozenset({group}) for group in Group)

FIELDS: Final[Mapping[str, Mapping[str, frozenset[Group]]]] = {
    "patient": {
        **dict.fromkeys(("key", "identifiers", "name", "birth_date", "sex", "merged_from", "links"), _I),
        **dict.fromkeys(("address", "phones", "language", "pcp", "text_consent"), _C),
        **dict.fromkeys(("deceased", "deceased_at"), _K | _C),
        **dict.fromkeys(("lives_alone", "transportation", "active_medications"), _K),
        **dict.fromkeys(("protection", "restrictions", "consent_statements"), _I | _M),
        **dict.fromkeys(("moved_away", "held", "dead"), _S),
    },
    "encounter": {
        **dict.fromkeys(("key", "visit_number", "class", "admitted_at", "discharged_at"), _S | _B),
        "account": _B,
        **dict.fromkeys(("diagnoses", "procedures", "disposition"), _K),
    },
    "score": {},
    "task": {},
    "appointment": {},
    "page": {},
    "text": {**dict.fromkeys(("number", "body", "replies"), _C)},
    "medication": {},
    "delivery": {},
}
"""Part of a chart -> field of its shape -> its groups: who sees one of them sees the field."""

OF_PART: Final[Mapping[str, frozenset[Group]]] = {
    "encounter": _S,
    "score": _K,
    "task": _P,
    "appointment": _P,
    "page": _P,
    "text": _P,
    "medication": _K,
}
"""What a part's other fields belong to, so that one that is added later is seen by who sees the part."""

_ALWAYS: Final = frozenset({"id", "patient_key"})
"""Opaque ids, and the key that is masked where identity is not seen."""


def sees(part: str, field: str, groups: frozenset[Group]) -> bool:
    """Whether who sees these groups sees a field of a part's shape. A field of a patient that nobody has given a group
    is seen by those only who see all.
    """
    if field in _ALWAYS and part != "patient":
        return True
    wanted = FIELDS.get(part, {}).get(field) or OF_PART.get(part)
    return groups >= ALL if wanted is None else bool(wanted & groups)


def sees_part(part: str, groups: frozenset[Group]) -> bool:
    """Whether who sees these groups sees anything of such a part."""
    wanted = set(OF_PART.get(part, ALL)).union(*FIELDS.get(part, {}).values())
    return bool(wanted & groups)
