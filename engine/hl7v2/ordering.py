"""The ordering key of a message: what it says first about who the patient is, found without reading the message."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from engine.hl7v2.header import Header

_PID_BYTES_MAX: Final = 1024
_PATIENT_ID: Final = 3
_ENDS: Final = (b"\r", b"\n")


def ordering_key(payload: bytes, header: Header | None) -> bytes:
    """The id (CX.1) of the first repetition of PID-3, raw; empty when there is none.

    Only for sharing out work and keeping order: who the patient is, the mapping and the charts decide. A message of a
    sender that names a patient by several identifiers in changing order gets different keys; such messages may be
    worked on at the same time, and the versions of the charts and the times of the events keep the result right.
    """
    if header is None or header.wide:
        return b""
    delimiters = header.delimiters
    segment = _patient_segment(delimiters.field, delimiters.repetition, delimiters.component, delimiters.subcomponent)
    if segment is None:
        return b""
    mark, fields = segment
    at = payload.find(mark)
    while at > 0 and payload[at - 1 : at] not in _ENDS:
        at = payload.find(mark, at + 1)
    found = fields.match(payload, at, at + _PID_BYTES_MAX) if at > 0 else None
    return found[1].strip() if found is not None else b""


@lru_cache(maxsize=64)
def _patient_segment(field: str, *inner: str) -> tuple[bytes, re.Pattern[bytes]] | None:
    """How PID begins under these delimiters, and a pattern of it up to the id (CX.1) in its third field."""
    separator = field.encode("latin-1", "ignore")
    if not separator:
        return None
    mark = b"PID" + separator
    other = rb"[^\r\n" + re.escape(separator) + rb"]*"
    stops = b"".join(re.escape(one.encode("latin-1", "ignore")) for one in (field, *inner))
    before = (other + re.escape(separator)) * (_PATIENT_ID - 1)
    return mark, re.compile(re.escape(mark) + before + rb"([^\r\n" + stops + rb"]*)")
