"""A40: two charts that are one patient."""

from __future__ import annotations

from typing import Final

import msgspec

from engine.care.adt.event import Merge
from engine.care.adt.numbers import fold_renamed
from engine.care.adt.persons import united_links
from engine.care.death import FIELDS as DEATH_FIELDS
from engine.care.death import fold_death, merge_contradicts_death
from engine.care.dispositions import Dispositions
from engine.care.event import Applied, PatientEvent
from engine.care.fields import NEVER
from engine.care.forgotten import remembered
from engine.care.patient import IDENTIFIERS_MAX, speaks_of_another, too_many_identifiers
from engine.care.person import are_two, is_another, said_of
from engine.care.plausible import overlap
from engine.care.texts.consent import united
from engine.domain.chart import Chart, Charts, identity
from engine.domain.hold import HoldCode
from engine.domain.outcome import Effect
from engine.domain.parts import folded
from engine.domain.patient import Doubt, Identifier, Patient
from engine.domain.quality import QualityKind
from engine.errors import DATA_TYPE, MessageError

_OF_BOTH: Final = frozenset({"identifiers", "merged_from", "links", *DEATH_FIELDS})
"""Fields of a patient that both charts of a merge have a say in."""

_TWO_PEOPLE: Final = (
    "the merge is of two patients of other names, birth dates and sexes;"
    " release it if they are the same person, dismiss it if not and have the sender correct it"
)


def merges_in_doubt(
    charts: Charts, events: tuple[PatientEvent, ...], merges: tuple[Merge, ...]
) -> dict[Merge, tuple[Chart, str]]:
    """Merges that may be of two people: each with the chart that it leads to, and what is unclear (empty: as always).

    The PID speaks of another person than the chart of the number that survives (where that does not know who it is
    about: of the number that goes), or the two charts are clearly of two people.
    """
    found: dict[Merge, tuple[Chart, str]] = {}
    by_key = {event.identifiers[0]: event for event in events}
    for merge in merges:
        event, survivor, merged = by_key.get(merge.survivor), charts.find(merge.survivor), charts.find(merge.merged)
        known = survivor is not None and survivor.patient.name is not None and survivor.patient.birth_date is not None
        chart = survivor if known else merged
        if event is None or chart is None:
            continue
        if speaks_of_another(chart, event):
            found[merge] = chart, ""
        elif (
            survivor is not None
            and merged is not None
            and are_two(survivor.patient, merged.patient)
            and not event.believed(HoldCode.PERSON_CONTRADICTED, "PID-5")
        ):
            found[merge] = survivor, _TWO_PEOPLE
    return found


def apply_merges(charts: Charts, merges: tuple[Merge, ...], dispositions: Dispositions, root: int) -> Applied:
    """The merged identity becomes an alias of the survivor; encounters, scores and tasks follow.

    The result's `chart` is the survivor of the last pair; `others` holds every other chart that changed. Raises
    MessageError when the pairs contradict each other or what was merged before: which patient is meant is then for a
    person to say. root: the entry (of a replay: the original).
    """
    merging = _Merging(charts, dispositions, root)
    for merge in merges:
        merging.take(merge)
    return merging.result()


class _Merging:
    """The pairs of one message, one after the other."""

    def __init__(self, charts: Charts, dispositions: Dispositions, root: int) -> None:
        self._charts = charts
        self._dispositions = dispositions
        self._root = root
        self._applied = Applied()
        self._changed: dict[str, Chart] = {}
        self._retired: set[tuple[str, str, str]] = set()

    def take(self, merge: Merge) -> None:
        if identity(merge.survivor) == identity(merge.merged):
            raise MessageError("merge-with-itself", "MRG-1 names the patient's own key in PID-3", location="MRG-1")
        survivor = self._living(merge.survivor) or self._made(merge.survivor_id) or self._create(merge)
        partner = self._living(merge.partner) if merge.partner is not None else None
        if partner is not None and partner.id != survivor.id:
            raise _contradiction("two identifiers of PID-3 belong to two patients: which one survives?", "PID-3")
        merged = self._living(merge.merged) or self._made(merge.merged_id)
        if merged is not None and merged.id == survivor.id:
            survivor = self._again(survivor, merge)
        else:
            survivor = self._fold(survivor, merged, merge)
        self._retired.add(identity(merge.merged))
        self._applied.chart = survivor

    def result(self) -> Applied:
        applied, changed = self._applied, self._changed
        if changed and not any(chart.merged_into for chart in changed.values()):
            applied.note = "these identities are one patient already"
        survivor_id = applied.chart.id if applied.chart else ""
        applied.chart = changed.get(survivor_id)
        applied.others = [chart for chart in changed.values() if chart.id != survivor_id]
        return applied

    def _living(self, identifier: Identifier) -> Chart | None:
        chart = self._charts.find(identifier)
        if chart is not None:
            chart.need_whole()
        while chart is not None:
            chart = self._changed.get(chart.id, chart)
            if chart.merged_into is None:
                return chart
            chart = self._changed.get(chart.merged_into) or self._charts.by_id.get(chart.merged_into)
        return None

    def _made(self, chart_id: str) -> Chart | None:
        """A chart that an earlier group of the same message made; an identity is not in `charts` yet then."""
        chart = self._changed.get(chart_id)
        while chart is not None and chart.merged_into is not None:
            chart = self._changed.get(chart.merged_into)
        return chart

    def _create(self, merge: Merge) -> Chart:
        survivor = Chart(id=merge.survivor_id, patient=Patient(identifiers=(merge.survivor,)))
        self._applied.effects.append(Effect(kind="patient-created", subject=survivor.id))
        return survivor

    def _again(self, survivor: Chart, merge: Merge) -> Chart:
        """Both lead to one chart already."""
        if identity(merge.survivor) in self._retired and identity(merge.merged) not in self._retired:
            raise _contradiction("the groups of the message merge in a circle", "MRG-1")
        if identity(merge.merged) == identity(survivor.patient.identifiers[0]):
            # The hospital has turned the merge round. Both identities go on leading to this patient; the key stays,
            # or every destination would have to move all that it holds, once for each change of mind.
            self._applied.deviations.append("merge-reversed")
            self._applied.hold(HoldCode.MERGE_WITHOUT_EFFECT, location="MRG-1", subject=survivor.id)
        return self._changed.setdefault(survivor.id, survivor)

    def _fold(self, survivor: Chart, merged: Chart | None, merge: Merge) -> Chart:
        if merged is None:
            # Nothing was known of the old identity; from now on it leads to the survivor.
            merged = Chart(id=merge.merged_id, patient=Patient(identifiers=(merge.merged,)))
        elif merge.merged.key in merged.patient.merged_from:
            raise _contradiction("the identity in MRG-1 was merged into another patient before", "MRG-1")
        contradicted = merge_contradicts_death(survivor, merged, self._dispositions)
        if any(overlap(one, other) for one in survivor.encounters for other in merged.encounters):
            self._applied.quality(QualityKind.STAYS_OVERLAP)
        survivor, merged = _fold(survivor, merged)
        if contradicted:
            survivor = _death_in_doubt(survivor, self._root)
        self._changed[survivor.id] = survivor
        self._changed[merged.id] = merged
        self._applied.effects.append(Effect(kind="patient-merged", subject=survivor.id, detail=merged.id))
        return survivor


def _death_in_doubt(survivor: Chart, root: int) -> Chart:
    """One of the two is dead, the other one was seen alive after that; `settle_death` asks a person."""
    code, location = HoldCode.DEATH_CONTRADICTED, "MRG-1"
    doubt = Doubt(root=root, code=code, location=location, sender=0)
    stated = survivor.death_stated
    stated = msgspec.structs.replace(stated, doubts=(*stated.doubts, doubt))
    return msgspec.structs.replace(survivor, death_stated=stated)


def _contradiction(text: str, location: str) -> MessageError:
    return MessageError("merge-contradiction", text, hl7_code=DATA_TYPE, location=location)


def _fold(survivor: Chart, merged: Chart) -> tuple[Chart, Chart]:
    """Both charts after the first has taken over all of the second.

    Of the person each field is as it was said last, under whichever of the numbers: so it does not matter whether a
    message comes before the merge or after it. Where the second was registered under another name and birth date, the
    survivor is who they are: of a message that came after the merge it would be asked.
    """
    known = {identity(identifier) for identifier in survivor.patient.identifiers}
    aliases = tuple(i for i in merged.patient.identifiers if identity(i) not in known)
    if len(known) + len(aliases) > IDENTIFIERS_MAX:
        raise too_many_identifiers("MRG-1")
    survivor, merged = remembered(survivor), remembered(merged)
    two = is_another(survivor.patient, said_of(merged.patient))
    filled = {
        name: getattr(merged.patient, name)
        for name in Patient.__struct_fields__
        if name not in _OF_BOTH
        and _said_last(name, merged, survivor)
        and not (two and getattr(survivor.patient, name) not in (None, ()))
    }
    latest = {
        name: max(at, survivor.stamps.get(name, at))
        for name, at in merged.stamps.items()
        if name in filled or name not in Patient.__struct_fields__
    }
    death, said = fold_death(survivor, merged)
    stamps = survivor.stamps | latest | said
    if merged.patient.deceased is True:  # `settle_death` has the last word, on all that is known of the two
        filled |= {name: getattr(merged.patient, name) for name in DEATH_FIELDS}
    former = dict.fromkeys((*survivor.patient.merged_from, merged.patient.key, *merged.patient.merged_from))
    identifiers = (*survivor.patient.identifiers, *aliases)
    patient = msgspec.structs.replace(survivor.patient, identifiers=identifiers, merged_from=tuple(former), **filled)
    patient = msgspec.structs.replace(patient, links=united_links(survivor, merged, patient))
    renamed = fold_renamed(survivor, merged)
    survivor, merged = folded(survivor, merged)
    # What a patient has refused or consented to holds for the person, under whatever number it was said.
    consents = tuple({one.id: one for one in (*survivor.consents, *merged.consents)}.values())
    contact = united(survivor, merged)
    survivor = msgspec.structs.replace(
        survivor,
        patient=patient,
        stamps=stamps,
        death_stated=death,
        renamed=renamed,
        consents=consents,
        contact_consents=contact,
    )
    return survivor, msgspec.structs.replace(merged, merged_into=survivor.id)


def _said_last(name: str, one: Chart, other: Chart) -> bool:
    """Whether what the first chart knows in this field was said after what the second does; or is all that is known."""
    at, than = one.stamps.get(name, NEVER), other.stamps.get(name, NEVER)
    return at > than or (at == than and getattr(other.patient, name) in (None, ()))
