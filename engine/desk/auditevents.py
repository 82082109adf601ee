"""Records of the trail as others read them: AuditEvent of FHIR R4 (as IHE BALP has it), messages of RFC 5424.

Codes: DICOM PS3.16 CID 400 for what happened, HL7 v3 ActReason for the purpose of use, HL7's value sets of R4 for the
rest. Patients are named by opaque ids; who needs their numbers asks for `handoff patients show`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, Final

from engine.domain.audit import EVENTS, Event, Recorded

DICOM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem"
_KINDS: Final = {
    "110100": "Application Activity",
    "110101": "Audit Log Used",
    "110106": "Export",
    "110109": "Order Record",
    "110110": "Patient Record",
    "110112": "Query",
    "110113": "Security Alert",
    "110114": "User Authentication",
    "110127": "Emergency Override Started",
    "110137": "User Security Attributes Changed",
}
_OUTCOMES: Final = {"allowed": "0", "denied": "4", "failed": "8"}
"""0 success, 4 minor failure, 8 serious failure."""
_UNKNOWN: Final = Event("did something", "E", "110100")
ENTERPRISE: Final = "32473"
_SEVERITIES: Final = {"allowed": 5, "denied": 4, "failed": 3}
_FACILITY_AUDIT: Final = 13
_SYSTEM: Final = frozenset({"system", "clock", "courier"})


def audit_event(record: Recorded, node: str, chain: str) -> dict[str, Any]:
    """chain: the trail's name, which with the number makes an id that no other record has."""
    event = EVENTS.get(record.action, _UNKNOWN)
    found: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": f"{chain[:16]}-{record.seq}",
        "type": _coding(DICOM, event.kind, _KINDS[event.kind]),
        "subtype": [{"system": "urn:handoff:event", "code": record.action, "display": event.what}],
        "action": event.does,
        "recorded": record.at.isoformat(timespec="milliseconds"),
        "outcome": _OUTCOMES[record.result],
    }
    if record.damaged is not None:
        found["outcomeDesc"] = f"this record is damaged: {record.damaged}"
    elif record.reason is not None:
        found["outcomeDesc"] = record.reason
    if record.purpose is not None:
        found["purposeOfEvent"] = [{"coding": [_coding(f"{_TERMINOLOGY}/v3-ActReason", record.purpose)]}]
    found["agent"] = [_who(record), _application(record, event)]
    found["source"] = {
        "site": node,
        "observer": {"display": f"Handoff {node}"},
        "type": [_coding(f"{_TERMINOLOGY}/security-source-type", "4", "Application Server")],
    }
    found["entity"] = [*map(_patient, record.patients), _subject(record)]
    if record.terms is not None:
        found["entity"].append(
            {
                "type": _coding(f"{_TERMINOLOGY}/audit-entity-type", "2", "System Object"),
                "role": _coding(f"{_TERMINOLOGY}/object-role", "24", "Query"),
                "query": base64.b64encode(record.terms.encode()).decode(),
            }
        )
    return found


def bundle(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"fullUrl": f"urn:handoff:audit:{one['id']}", "resource": one} for one in events],
    }


def syslog_line(record: Recorded, node: str) -> str:
    """One message of RFC 5424, without its end."""
    event = EVENTS.get(record.action, _UNKNOWN)
    fields: dict[str, Any] = {
        "seq": record.seq,
        "actor": record.actor,
        "subject": record.subject,
        "result": record.result,
        "purpose": record.purpose,
        "patients": " ".join(record.patients) or None,
        "count": record.count,
        "reason": record.reason,
        "terms": record.terms,
        "damaged": record.damaged,
    }
    if record.whence is not None:
        fields |= {name: getattr(record.whence, name) for name in record.whence.__struct_fields__}
    said = " ".join(f'{name}="{_escaped(str(value))}"' for name, value in fields.items() if value is not None)
    priority = _FACILITY_AUDIT * 8 + _SEVERITIES[record.result]
    at = record.at.isoformat(timespec="milliseconds")
    host = (record.whence.host if record.whence is not None else None) or node
    head = f"<{priority}>1 {at} {_name(host, 255)} handoff - {_name(record.action, 32)}"
    return f"{head} [audit@{ENTERPRISE} {said}] {event.what}"


def _who(record: Recorded) -> dict[str, Any]:
    is_person = record.actor not in _SYSTEM and ":" not in record.actor
    kind = ("humanuser", "human user") if is_person else ("dataprocessor", "data processor")
    system = f"{_TERMINOLOGY}/extra-security-role-type"
    found: dict[str, Any] = {
        "type": {"coding": [_coding(system, *kind)]},
        "who": {"identifier": {"system": "urn:handoff:actor", "value": record.actor}, "display": record.actor},
        "altId": record.actor,
        "requestor": True,
    }
    whence = record.whence
    if whence is not None and whence.address is not None:
        found["network"] = {"address": whence.address, "type": "2"}  # an IP address
    elif whence is not None and whence.host is not None:
        found["network"] = {"address": whence.host, "type": "1"}  # a machine's name
    if record.purpose is not None:
        found["purposeOfUse"] = [{"coding": [_coding(f"{_TERMINOLOGY}/v3-ActReason", record.purpose)]}]
    return found


def _application(record: Recorded, event: Event) -> dict[str, Any]:
    """BALP names the system that somebody used, and the one that was asked: here the same."""
    code = ("110153", "Source Role ID") if event.discloses else ("110150", "Application")
    command = record.whence.command if record.whence is not None else None
    found: dict[str, Any] = {
        "type": {"coding": [_coding(DICOM, *code)]},
        "who": {"display": "Handoff"},
        "requestor": False,
    }
    return found | ({"name": command} if command is not None else {})


def _patient(chart: str) -> dict[str, Any]:
    return {
        "what": {"identifier": {"system": "urn:handoff:chart", "value": chart}},
        "type": _coding(f"{_TERMINOLOGY}/audit-entity-type", "1", "Person"),
        "role": _coding(f"{_TERMINOLOGY}/object-role", "1", "Patient"),
    }


def _subject(record: Recorded) -> dict[str, Any]:
    return {
        "what": {"identifier": {"system": "urn:handoff:subject", "value": record.subject}},
        "type": _coding(f"{_TERMINOLOGY}/audit-entity-type", "2", "System Object"),
        "role": _coding(f"{_TERMINOLOGY}/object-role", "4", "Domain Resource"),
    }


def _coding(system: str, code: str, display: str | None = None) -> dict[str, str]:
    return {"system": system, "code": code} | ({"display": display} if display is not None else {})


def _escaped(value: str) -> str:
    """As RFC 5424 6.3.3 has it; control characters would end a line."""
    plain = "".join(one if one.isprintable() else " " for one in value)
    return plain.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _name(value: str, length_max: int) -> str:
    """Printable ASCII without spaces."""
    return "".join(one if "!" <= one <= "~" else "_" for one in value)[:length_max] or "-"
