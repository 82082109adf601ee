"""Consent to texts that registration says (`patient.text_consent` of a field map): on record for the patient's numbers.

A yes counts for numbers of which nothing was ever said: it lifts no opt-out. A no ends what registration had given, and
nothing that the patient or a person has said since.
"""

from __future__ import annotations

from typing import Final

from engine.care.texts.consent import CARE, ConsentState, FullError, said, standing
from engine.care.texts.deciding import NOT_THEIRS
from engine.domain.chart import Chart
from engine.domain.consent import ContactConsent
from engine.domain.quality import QualityKind
from engine.pipeline.contactconsents import statement_id
from engine.pipeline.rule import Deciding

BY_REGISTRATION: Final = NOT_THEIRS
"""`ContactConsent.how`."""
_CHANNEL: Final = "sms"


def follow_registration(before: Chart | None, chart: Chart, deciding: Deciding) -> Chart:
    """A follower of `engine.pipeline.follow`, before the texts."""
    agreed = chart.patient.text_consent
    if agreed is None or deciding.channel is None or (before is not None and before.patient is chart.patient):
        return chart
    entry = deciding.entry.replay_root or deciding.entry.id
    new: list[ContactConsent] = []
    for phone in chart.patient.phones:
        number, _ = deciding.channel.texts.number_of(phone)
        if number is None or number in {one.number for one in new}:
            continue
        known = standing(chart, CARE, _CHANNEL, number)
        given_here = known.statement is not None and known.statement.how == BY_REGISTRATION
        if known.state is ConsentState.NONE if agreed else (known.state is ConsentState.GIVEN and given_here):
            new.append(
                ContactConsent(
                    id=f"{statement_id(entry)}/registration/{len(new)}", purpose=CARE, channel=_CHANNEL, number=number,
                    given=agreed, at=deciding.at, how=BY_REGISTRATION, by=f"channel:{deciding.channel.settings.name}",
                    evidence=f"entry {entry}",
                )
            )  # fmt: skip
    try:
        return said(chart, *new) if new else chart
    except FullError:
        deciding.heard.quality(QualityKind.VALUE_UNREADABLE, "patient.text_consent")
        return chart
