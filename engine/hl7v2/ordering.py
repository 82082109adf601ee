"""The ordering key of a message: what it says first about who the patient is, found without reading the message."""

from __future__ import annotations

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
    separator = delimiters.field.encode("latin-1", "ignore")
    if not separator:
        return b""
    mark = b"PID" + separator
    at = payload.find(mark)
    while at > 0 and payload[at - 1 : at] not in _ENDS:
        at = payload.find(mark, at + 1)
    if at <= 0:
        return b""
    fields = payload[at : at + _PID_BYTES_MAX].split(separator, _PATIENT_ID + 1)
    if len(fields) <= _PATIENT_ID or any(end in field for field in fields[:_PATIENT_ID] for end in _ENDS):
        return b""
    key = fields[_PATIENT_ID]
    for end in (*_ENDS, *_raw(delimiters.repetition), *_raw(delimiters.component), *_raw(delimiters.subcomponent)):
        key = key.partition(end)[0]
    return key.strip()


def _raw(delimiter: str) -> tuple[bytes, ...]:
    raw = delimiter.encode("latin-1", "ignore")
    return (raw,) if raw else ()
