"""The accounting of disclosures of a patient (45 CFR 164.528): who was told what, when and why. Pure.

What a copy counts as is in `mappings/privacy/disclosures.yaml`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, tzinfo
from typing import Annotated, Final

from pydantic import Field, model_validator

from engine.domain.actor import Purpose
from engine.domain.delivery import NOTHING_SENT, Operation
from engine.domain.record import Phi, Record
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

IMPERMISSIBLE: Final = "impermissible"
"""The ground of what a worksheet of a breach says that somebody outside has got: it has to be in the file."""
USE: Final = "use"
"""The ground of what was looked at here: it has to be in the file."""
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Act = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
_Text = Annotated[str, Field(min_length=1, max_length=500)]


class Ground(StrictModel):
    """What a copy counts as."""

    says: _Text
    """What it is, in words."""
    law: _Text
    """Where the rule says so."""
    accounted: bool
    """It is in the accounting; else the accounting says that such copies are left out."""


class RefusalSpec(StrictModel):
    """An exception by which sharing may be refused (45 CFR 171)."""

    says: _Text
    """What it is, in words."""
    law: _Text
    """Where the rule says so."""


class DisclosuresFile(StrictModel):
    """What a copy that leaves the house counts as, and how it is described."""

    version: _Text
    """Of the rules; it stands on each accounting."""
    years: Annotated[int, Field(ge=1, le=50)] = 6
    """How far back a patient may ask."""
    answer_days: Annotated[int, Field(ge=1, le=366)] = 60
    """Days in which the answer is owed."""
    extension_days: Annotated[int, Field(ge=0, le=366)] = 30
    """Days by which that may be put off once, with the reason in writing."""
    grounds: Annotated[dict[_Name, Ground], Field(min_length=1, max_length=50)]
    """Name -> what it is. Destinations name one in `disclosure.as`."""
    purposes: Annotated[dict[Purpose, _Name], Field(max_length=50)] = {}
    """HL7 PurposeOfUse -> ground, of what was looked at here; others: `use`."""
    described: Annotated[dict[Operation, _Text], Field(max_length=100)]
    """Operation of a delivery -> what the patient reads."""
    acts: Annotated[dict[_Act, _Text], Field(max_length=100)] = {}
    """Event of the trail by which people gave something out -> what the patient reads."""
    oral_days: Annotated[int, Field(ge=1, le=366)] = 30
    """Longest time that law enforcement can keep disclosures to it out of the accounting by word of mouth."""
    refusals: Annotated[dict[_Name, RefusalSpec], Field(max_length=50)] = {}
    """Name -> exception by which sharing may be refused."""

    @model_validator(mode="after")
    def _whole(self) -> DisclosuresFile:
        named = {*self.purposes.values(), USE, IMPERMISSIBLE}
        unknown = sorted(named - self.grounds.keys())
        if unknown:
            raise ValueError(f"there is no ground {unknown[0]} among the grounds")
        missing = [one.value for one in Operation if one not in self.described]
        if missing:
            raise ValueError(f"described: the operation {missing[0]} has no description")
        return self

    def of_purpose(self, purpose: str | None) -> str:
        """The ground of what was looked at here."""
        return next((ground for one, ground in self.purposes.items() if one.value == purpose), USE)

    def accounted(self, ground: str | None) -> bool | None:
        """None: nobody has marked it, or the file does not know the mark any more."""
        known = self.grounds.get(ground) if ground is not None else None
        return None if known is None else known.accounted


def load_disclosures(document: Document) -> DisclosuresFile:
    """Raises SettingsError."""
    return validate(document, DisclosuresFile)


class Recipient(Record, frozen=True, kw_only=True):
    name: str
    address: str | None = None


class Copy(Phi, frozen=True, kw_only=True):
    """What somebody was told once."""

    at: datetime
    ground: str | None
    recipient: Recipient
    operation: str
    """Of the delivery, or the event of the trail."""
    purpose: str | None = None
    description: str | None = None
    """What it was; none: what the file says of the operation."""
    typed: bool = False
    """Somebody has typed what is said of it: it may name a patient."""


class Line(Phi, frozen=True, kw_only=True):
    """What one recipient was told for one purpose (45 CFR 164.528(b)(3)): the first, how often, the last."""

    first: date
    last: date
    number: int
    days: int
    """On how many days."""
    recipient: Recipient
    description: str
    purpose: str | None
    ground: str | None
    typed: bool = False

    @property
    def frequency(self) -> str:
        if self.number == 1:
            return "once"
        often = f"{self.number:,} times"
        return f"{often} on one day" if self.days == 1 else f"{often}, on {self.days:,} days"


class LeftOut(Record, frozen=True, kw_only=True):
    """What the rule leaves out of the accounting."""

    ground: str
    says: str
    law: str
    number: int


class Suspension(Phi, frozen=True, kw_only=True):
    """Law enforcement, or who oversees health care, has said that an accounting would hinder it (164.528(a)(2))."""

    recipient: str
    """To whom disclosures are left out of the accounting."""
    until: datetime
    by: str
    oral: bool = False

    def holds(self, copy: Copy, now: datetime) -> bool:
        return now < self.until and copy.recipient.name.casefold() == self.recipient.casefold()


class Accounting(Phi, frozen=True, kw_only=True):
    disclosures: tuple[Line, ...]
    unmarked: tuple[Line, ...]
    """To recipients of which nobody has said what they get it for."""
    excluded: tuple[LeftOut, ...]
    suspended: tuple[Line, ...] = ()
    """Left out for law enforcement: the patient is not to know of them now."""


def account(
    copies: Iterable[Copy],
    rules: DisclosuresFile,
    zone: tzinfo,
    *,
    uses: Mapping[str, int] = {},
    suspensions: Sequence[Suspension] = (),
    now: datetime | None = None,
) -> Accounting:
    """uses: ground -> how often it was looked at here. suspensions: with `now`."""
    kept: list[Copy] = []
    told: dict[bool, list[Copy]] = {True: [], False: []}
    out: Counter[str] = Counter(uses)
    for copy in copies:
        if copy.ground == NOTHING_SENT:
            continue
        accounted = rules.accounted(copy.ground)
        if now is not None and accounted is not False and any(one.holds(copy, now) for one in suspensions):
            kept.append(copy)
        elif accounted is False and copy.ground is not None:
            out[copy.ground] += 1
        else:
            told[accounted is True].append(copy)
    left = (
        LeftOut(ground=name, says=rules.grounds[name].says, law=rules.grounds[name].law, number=number)
        for name, number in sorted(out.items())
        if number
    )
    return Accounting(
        disclosures=_lines(told[True], rules, zone),
        unmarked=_lines(told[False], rules, zone),
        excluded=tuple(left),
        suspended=_lines(kept, rules, zone),
    )


def _lines(copies: Sequence[Copy], rules: DisclosuresFile, zone: tzinfo) -> tuple[Line, ...]:
    groups: dict[tuple[Recipient, str | None, str | None], list[Copy]] = {}
    for copy in sorted(copies, key=_at):
        groups.setdefault((copy.recipient, copy.purpose, copy.ground), []).append(copy)
    return tuple(
        Line(
            first=group[0].at.astimezone(zone).date(),
            last=group[-1].at.astimezone(zone).date(),
            number=len(group),
            days=len({one.at.astimezone(zone).date() for one in group}),
            recipient=recipient,
            description="; ".join(dict.fromkeys(_described(one, rules) for one in group)),
            purpose=purpose,
            ground=ground,
            typed=any(one.typed for one in group),
        )
        for (recipient, purpose, ground), group in groups.items()
    )


def _at(copy: Copy) -> datetime:
    return copy.at


def _described(copy: Copy, rules: DisclosuresFile) -> str:
    if copy.description is not None:
        return copy.description
    said = {one.value: text for one, text in rules.described.items()} | rules.acts
    return said.get(copy.operation, copy.operation)
