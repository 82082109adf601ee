"""What a patient has said to copies of the record that leave, and what a copy says of that."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from engine.domain.record import Phi, Record


class ConsentKind(StrEnum):
    PART2_TPO = "part2_tpo"
    """One consent for all future uses and disclosures for treatment, payment and operations (42 CFR 2.31(a)(4))."""
    PART2_SPECIFIC = "part2_specific"
    """Consent to copies for named recipients (42 CFR 2.31)."""
    NOTICES_REFUSED = "notices_refused"
    """The patient wants no notices of events sent to other providers (42 CFR 482.24(d))."""


class Consent(Phi, frozen=True, kw_only=True):
    """Said to a person of the site, who has put it on record; it can be taken back at any time."""

    id: str
    """Opaque: the entry that brought it."""
    kind: ConsentKind
    to: tuple[str, ...] = ()
    """Destinations, of one for named recipients."""
    begins: datetime
    ends: datetime | None = None
    by: str
    """Who has put it on record."""
    because: str = ""
    revoked_at: datetime | None = None
    revoked_by: str | None = None

    def holds(self, now: datetime) -> bool:
        return self.revoked_at is None and self.begins <= now and (self.ends is None or now < self.ends)


class ContactConsent(Phi, frozen=True, kw_only=True):
    """A statement of the ledger of consents to be written to or called: what was said is never changed, only said anew.

    What counts for a purpose, a channel and a number is the last statement (`care.texts.consent`).
    """

    id: str
    """Opaque: the entry that brought it."""
    purpose: str
    """`care`."""
    channel: str
    """`sms`, `whatsapp`, `voice`."""
    number: str
    """E.164."""
    given: bool
    """False: revoked."""
    at: datetime
    how: str
    """`form`, `registration`, `file`, `reply`, `carrier`, or in the words of who puts it on record."""
    by: str
    """Who has said or recorded it: an actor, `patient`, `destination:NAME`."""
    wording: str | None = None
    """Version of the words that were agreed to."""
    evidence: str | None = None
    """What shows it."""
    word: str | None = None
    """What the patient wrote, of one by reply: `opt_out`, `opt_in`; or the carrier's code."""


class Marking(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What a copy of a restricted record says of itself to whoever gets it."""

    notice: tuple[str, ...] = ()
    """Sentences, as the file of roles has them: 42 CFR 2.32(a)."""
    confidentiality: str | None = None
    """HL7 table 0177: `R`, `V`, `ETH`, ..."""
    consent: str | None = None
    """Scope of the consent by which it goes out (42 CFR 2.32(b))."""
    without: tuple[str, ...] = ()
    """Groups of fields that were left out."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The same as text, where a format has no fields for it."""
        return (
            *self.notice,
            *([f"Confidentiality: {self.confidentiality} (HL7 table 0177)"] if self.confidentiality else []),
            *([f"Consent: {self.consent}"] if self.consent else []),
        )
