"""Restrictions on what leaves, where deliveries are made: which are marked, which are withheld from the beginning.

The courier asks again right before it sends (`asked_again`): what restricts a record may have come or gone since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import structs

from engine.access.copies import Copies, Judged, Terms, dressed
from engine.domain.chart import Chart
from engine.domain.delivery import TEST_DATA, Delivery, Forward, QueuedDelivery
from engine.domain.encounter import Encounter, Location
from engine.domain.patient import AccessRestriction, Identifier, Patient
from engine.errors import MessageError
from engine.hl7v2.message import Message
from engine.pipeline.admit import GO, Admission, Known, Never, Rule

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel


def judged(
    deliveries: Iterable[Delivery], chart: Chart | None, channel: CompiledChannel, now: datetime | None
) -> list[Delivery]:
    """The deliveries of one patient, each with what restricts it. chart: as it is after the entry; none: nobody is
    known, and a message is judged by what it says itself. now: none: nothing is withheld yet, the courier asks.
    """
    found = list(deliveries)
    if not found or not channel.copies.restrictions:
        return found
    about = chart or of_message(found[0])
    if about is None or not channel.copies.marks(about):
        return found
    return [_judged(one, about, channel, now) for one in found]


def of_test(deliveries: Iterable[Delivery], channel: CompiledChannel) -> list[Delivery]:
    """Deliveries of test data: they go where test data is taken, and nowhere else."""
    return [
        structs.replace(one, marked=True, kept=None if terms is not None and terms.test_data else TEST_DATA)
        for one in deliveries
        for terms in [channel.terms.get(one.destination)]
    ]


def _judged(one: Delivery, chart: Chart, channel: CompiledChannel, now: datetime | None) -> Delivery:
    terms, kept = channel.terms.get(one.destination), None
    if terms is not None and now is not None:
        kept = channel.copies.judge(one.content, one.operation, chart, terms, now).code
    return structs.replace(one, marked=True, kept=kept)


def of_message(one: Delivery) -> Chart | None:
    """What a message that is passed on says of restrictions itself, as a chart with one stay."""
    content = one.content
    if not isinstance(content, Forward):
        return None
    try:
        message = Message.parse(content.hl7)
    except (MessageError, ValueError):
        return None
    read = message.get
    place = Location(point_of_care=read("PV1-3.1"), facility=read("PV1-3.4"))
    stay = Encounter(
        key=_STAY,
        location=place,
        vip=read("PV1-16"),
        hospital_service=read("PV1-10"),
        sending_facility=read("MSH-4"),
    )
    code = read("ARV-3.1")
    patient = Patient(
        identifiers=(Identifier(value="", authority=""),),
        protection={"Y": True, "N": False}.get(read("PD1-12") or ""),
        restrictions=(AccessRestriction(code=code),) if code else (),
    )
    return Chart(id=one.ordering_key, patient=patient, encounters=(stay,))


_STAY: Final = "of-the-message"


def rule_of(copies: Copies, terms: Terms) -> Rule:
    """The rule of admission for a destination. Asked of what is marked only."""

    def ask(queued: QueuedDelivery, known: Known, now: datetime) -> Admission:
        if not queued.delivery.marked:
            return GO
        code = judge(copies, terms, queued, known.chart, now).code
        return GO if code is None else Never(code=code)

    return Rule(ask, frozenset({"chart"}))


def judge(copies: Copies, terms: Terms, queued: QueuedDelivery, chart: Chart | None, now: datetime) -> Judged:
    about = chart or of_message(queued.delivery)
    if about is None:
        return Judged()
    try:
        return copies.judge(queued.delivery.content, queued.delivery.operation, about, terms, now)
    except msgspec.DecodeError:  # the connector says so
        return Judged()


def as_it_leaves(
    copies: Copies, terms: Terms, queued: QueuedDelivery, chart: Chart | None, now: datetime
) -> QueuedDelivery:
    """The copy as it goes out: without what the destination may not get, and with its notice."""
    found = judge(copies, terms, queued, chart, now)
    if not found.without and found.marking is None:
        return queued
    payload = dressed(queued.delivery.content, found).encoded()
    return structs.replace(queued, delivery=structs.replace(queued.delivery, payload=payload))


def marked_anew(before: Chart | None, chart: Chart, channel: CompiledChannel, *, folded: bool) -> Iterator[str]:
    """The chart's id, when other copies of it may leave than before. folded: another chart was merged into it."""
    now = channel.copies.marks(chart)
    was = channel.copies.marks(before) if before is not None else ()
    if now != was or (folded and now):
        yield chart.id
