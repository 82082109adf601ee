"""What is wrong with the data of a feed: a closed list, counted for each channel, for whoever looks after the feed.

A message with such a fault was taken, and what could be done with it was done. One row stands for all messages of a
channel with the same fault: a sender that never fills a field is one thing to see to, not one for each patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Final

from engine.domain.record import Record


class QualityState(StrEnum):
    OPEN = "open"
    DONE = "done"
    """A person has seen to it. It opens again when it happens again."""


class QualityKind(StrEnum):
    """What is wrong. `MEANINGS` has the sentences of each."""

    DISPOSITION_MISSING = "disposition_missing"
    DISPOSITION_NO_DISCHARGE = "disposition_no_discharge"
    CLASS_UNKNOWN = "class_unknown"
    CLASS_CONTRADICTED = "class_contradicted"
    CODE_UNKNOWN = "code_unknown"
    CODING_SYSTEM_UNKNOWN = "coding_system_unknown"
    TIME_UNREADABLE = "time_unreadable"
    TIME_IMPLAUSIBLE = "time_implausible"
    TIME_AMBIGUOUS = "time_ambiguous"
    CLOCK_BACKWARDS = "clock_backwards"
    OFFSET_DIFFERS = "offset_differs"
    VALUE_UNREADABLE = "value_unreadable"
    DISCHARGE_BEFORE_ADMISSION = "discharge_before_admission"
    BIRTH_IN_FUTURE = "birth_in_future"
    STAYS_OVERLAP = "stays_overlap"
    ADMISSION_AFTER_DISCHARGE = "admission_after_discharge"
    ORDER_WRONG = "order_wrong"
    DISCHARGE_MISSING = "discharge_missing"
    DEATH_CONTRADICTED = "death_contradicted"
    IDENTIFIER_OF_ANOTHER = "identifier_of_another"
    KEY_UNSURE = "key_unsure"
    OLD_NUMBER_UNSURE = "old_number_unsure"
    AUTHORITY_UNKNOWN = "authority_unknown"
    APPOINTMENT_UNKNOWN = "appointment_unknown"
    APPOINTMENT_CONTRADICTED = "appointment_contradicted"
    MEDICATIONS_TOO_MANY = "medications_too_many"
    REPLY_OF_NOBODY = "reply_of_nobody"
    REPLIES_TOO_MANY = "replies_too_many"
    CHARSET_WRONG = "charset_wrong"
    STRUCTURE_WRONG = "structure_wrong"


class Meaning(Record, frozen=True, kw_only=True):
    """What a kind says to a person, and what to do about it."""

    text: str
    remedy: str
    deviations: tuple[str, ...] = ()
    """Deviations of messages that are such a fault by themselves."""
    location: str = ""
    """The HL7 field, where a deviation names none."""


MEANINGS: Final[Mapping[QualityKind, Meaning]] = {
    QualityKind.DISPOSITION_MISSING: Meaning(
        text="discharges come without a disposition: nobody can tell where the patients went",
        remedy="ask the sender to fill PV1-36, or say in the channel what a blank one means there",
    ),
    QualityKind.DISPOSITION_NO_DISCHARGE: Meaning(
        text="discharges come with a disposition that says that the patient is still there (30, 09)",
        remedy="ask the sender which event these are; what it means stands in the table of dispositions",
        deviations=("disposition-is-no-discharge",),
        location="PV1-36",
    ),
    QualityKind.CLASS_UNKNOWN: Meaning(
        text="discharges come with a patient class that no protocol knows, or with none",
        remedy="add the code to the table of classes, or to classes or classes_without_plan of the protocol",
        deviations=("class-unknown",),
        location="PV1-2",
    ),
    QualityKind.CLASS_CONTRADICTED: Meaning(
        text="a change of class comes with the other class: a change to an inpatient that names an outpatient",
        remedy="ask the sender which of the two is meant, and to fill PV1-2 with the new class",
        deviations=("class-contradicts-event",),
        location="PV1-2",
    ),
    QualityKind.CODE_UNKNOWN: Meaning(
        text="a field comes with a code that its table does not know",
        remedy="see the code in the example message, and add it to the table that the field map names",
        deviations=("unknown-code",),
    ),
    QualityKind.CODING_SYSTEM_UNKNOWN: Meaning(
        text="diagnoses come with a coding system that is not known: no score reads them",
        remedy="add its name to coding_systems in mappings/care/risk-inputs.yaml",
        deviations=("unknown-coding-system",),
        location="DG1-3.3",
    ),
    QualityKind.TIME_UNREADABLE: Meaning(
        text="a date or time can't be read as it is written: it is left out, or what can be read of it is kept",
        remedy="ask the sender to write it as HL7 does (YYYYMMDDHHMM+ZZZZ)",
        deviations=("invalid-date", "invalid-time", "time-cut", "offset-unreadable"),
    ),
    QualityKind.TIME_IMPLAUSIBLE: Meaning(
        text="a time can't be true (far from the receipt, before birth or admission): the next best one is taken",
        remedy="ask the sender to check the clock, and which field that time is written to",
        deviations=("event-time-implausible",),
    ),
    QualityKind.TIME_AMBIGUOUS: Meaning(
        text="local times without an offset mean two moments, or none, where clocks are set",
        remedy="ask the sender to write the offset; until then the first of the two is taken",
        deviations=("ambiguous-local-time",),
    ),
    QualityKind.CLOCK_BACKWARDS: Meaning(
        text="the clock of a sender runs backwards: a later message has an earlier time of sending (MSH-7)",
        remedy="ask the sender to check the clock, and whether it sends messages out of their order",
        location="MSH-7",
    ),
    QualityKind.OFFSET_DIFFERS: Meaning(
        text="the times of a sender have an offset that its zone does not have then",
        remedy="check timezone and zones of the channel, and the clock of the sender",
        deviations=("offset-differs",),
        location="MSH-7",
    ),
    QualityKind.VALUE_UNREADABLE: Meaning(
        text="a value is none of its kind (a yes or no, a number, a phone, an identifier): the field stays as it was",
        remedy="see the value in the example message; a field map with a table can read a sender's own words",
        deviations=("invalid-boolean", "invalid-integer", "invalid-phone", "invalid-identifier"),
    ),
    QualityKind.DISCHARGE_BEFORE_ADMISSION: Meaning(
        text="stays end before they begin",
        remedy="ask the sender to check PV1-44 and PV1-45",
        location="PV1-45",
    ),
    QualityKind.BIRTH_IN_FUTURE: Meaning(
        text="patients come with a birth date that lies ahead",
        remedy="ask the sender to correct PID-7",
        location="PID-7",
    ),
    QualityKind.STAYS_OVERLAP: Meaning(
        text="patients have two stays at the same time",
        remedy="find out whether it is one stay under two numbers, or a discharge that never came",
        location="PV1-19",
    ),
    QualityKind.ADMISSION_AFTER_DISCHARGE: Meaning(
        text="admissions come after the discharge of their stay",
        remedy="ask the sender whether messages are sent out of their order, or numbers are used twice",
        deviations=("admission-after-discharge", "pre-admission-after-arrival", "status-order-uncertain"),
        location="PV1-19",
    ),
    QualityKind.ORDER_WRONG: Meaning(
        text="events come before what they build on: a cancel before what it cancels, a return without a leave",
        remedy="ask the sender whether messages get lost, or are sent out of their order",
        deviations=("undone-before-it-came", "event-does-not-fit-status", "cancels-nothing"),
        location="MSH-9",
    ),
    QualityKind.DISCHARGE_MISSING: Meaning(
        text="stays end by an update: the discharge (A03) did not come",
        remedy="ask the sender to send A03; `handoff gaps` names the patients",
        deviations=("end-without-discharge",),
        location="PV1-45",
    ),
    QualityKind.DEATH_CONTRADICTED: Meaning(
        text="messages contradict each other, or themselves, on whether the patient has died",
        remedy="decide what is asked (`handoff held list`), and have the source corrected",
        deviations=(
            "death-contradicted", "alive-against-death", "alive-against-disposition", "death-without-discharge",
        ),
        location="PID-30",
    ),
    QualityKind.IDENTIFIER_OF_ANOTHER: Meaning(
        text="messages name an identifier that belongs to another patient: it was left where it is",
        remedy="find out which patient it is of; a merge (A40) is due, or the registration is wrong",
        deviations=("identifier-of-another-patient", "former-visit-of-another-patient"),
        location="PID-3",
    ),
    QualityKind.KEY_UNSURE: Meaning(
        text="several numbers of a patient may equally be the key: the first one was taken",
        remedy="name the authorities or types that count in identity of the channel",
        deviations=("key-by-position",),
        location="PID-3",
    ),
    QualityKind.OLD_NUMBER_UNSURE: Meaning(
        text="merges name old numbers without a type, which may be no patient's: those were left as they are",
        remedy="ask the sender to send the type of each old number (MRG-1, CX-5), as PID-3 has it",
        deviations=("old-number-unsure",),
        location="MRG-1",
    ),
    QualityKind.AUTHORITY_UNKNOWN: Meaning(
        text="identifiers name an authority of which identity.authorities knows a part, or two at once",
        remedy="complete the authority (oid, also) in identity.authorities of the channel",
        deviations=("authority-alias", "authority-contradicted"),
    ),
    QualityKind.APPOINTMENT_UNKNOWN: Meaning(
        text="messages of appointments come with an event or a status code that the channel's map does not know",
        remedy="see the code in the example message, and add it to the map of the sender (mappings/appointments/)",
        deviations=("appointment-status-unknown", "appointment-event-unknown"),
        location="SCH-25",
    ),
    QualityKind.APPOINTMENT_CONTRADICTED: Meaning(
        text="messages of appointments contradict themselves: status and event, end and start, a no-show too early",
        remedy="see the example message; what the pair means stands in the map of the sender (mappings/appointments/)",
        deviations=(
            "appointment-status-contradicted", "appointment-noshow-before-start", "appointment-kept-before-its-day",
            "appointment-ends-before-start",
        ),
        location="SCH-25",
    ),
    QualityKind.MEDICATIONS_TOO_MANY: Meaning(
        text="patients have more prescriptions than are kept: the oldest are left out",
        remedy="ask the sender whether each change of a prescription comes under a new number (ORC-3)",
        location="ORC-3",
    ),
    QualityKind.REPLY_OF_NOBODY: Meaning(
        text="texts come from numbers that no patient is known by: nobody has answered them",
        remedy="read the example (`messages show`), and call back; put the number on record where it belongs",
        location="text",
    ),
    QualityKind.REPLIES_TOO_MANY: Meaning(
        text="more texts come from one number in a day than are put before a person each",
        remedy="read them in the journal (`messages list --kind reply`), and call the patient",
        location="text",
    ),
    QualityKind.CHARSET_WRONG: Meaning(
        text="texts are not in the character set that the message declares (MSH-18): names may be wrong",
        remedy="ask the sender to declare what it sends, or set charset of the channel",
        deviations=("charset-unknown", "charset-undecodable", "charset-fallback"),
        location="MSH-18",
    ),
    QualityKind.STRUCTURE_WRONG: Meaning(
        text="messages have lines that are no segments: what stands there was not read",
        remedy="see the example message; as a rule a line end inside of a text is not escaped",
        deviations=("segment-unreadable", "line-feed-doubtful"),
    ),
}  # fmt: skip

DETAIL_CHARS_MAX: Final = 40
DETAILS_MAX: Final = 50
"""Of one kind a channel has at most so many rows; `OTHERS` stands for what is beyond."""
OTHERS: Final = "others"


class QualityItem(Record, frozen=True, kw_only=True, array_like=True, omit_defaults=True):
    """A fault of one message. detail: the HL7 field as a rule, in words of our own, never of the message."""

    kind: QualityKind
    detail: str = ""

    @classmethod
    def of(cls, kind: QualityKind, detail: str | None = None) -> QualityItem:
        """detail: none: the kind's own field."""
        return cls(kind=kind, detail=(MEANINGS[kind].location if detail is None else detail)[:DETAIL_CHARS_MAX])


OF_DEVIATIONS: Final[Mapping[str, QualityKind]] = {
    code: kind for kind, meaning in MEANINGS.items() for code in meaning.deviations
}


@lru_cache(maxsize=1024)
def items_of(deviations: tuple[str, ...]) -> tuple[QualityItem, ...]:
    """The faults among the deviations (`unknown-code:PV1-2`) of a message, each once."""
    found: dict[QualityItem, None] = {}
    for deviation in deviations:
        code, _, location = deviation.partition(":")
        kind = OF_DEVIATIONS.get(code)
        if kind is not None:
            found[QualityItem.of(kind, location or None)] = None
    return tuple(found)
