"""Whether a patient has died: what messages say of it, how the stays ended, and what is left to a person.

A death ends every plan, and nobody notices a wrong one. So it is believed when it is certain: said in words that can be
read, at a time that can be, by news that are not old. It is taken back only where it was said: by the sender that said
it (PID-30), or by another disposition of the stay that ended in it. All else (an old message, a mark that nobody can
read, a time that can't be, another sender's "no", a later stay that the patient left alive) is a question for a person.
Until it is decided the patient stays what the chart says, with the plan as it is, and a task asks somebody to find out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from engine.care.dispositions import Dispositions
from engine.care.event import Applied, PatientEvent
from engine.domain.chart import Chart, Stamp
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.hold import QUESTIONS, Fact, HoldCode
from engine.domain.moment import Moment
from engine.domain.patient import Doubt, StatedDeath

FIELDS: Final = ("deceased", "deceased_at")
"""Fields of a patient that only this module sets."""

PRESENT: Final = frozenset({"I", "OBS", "E"})
"""Classes of stays that a patient can't have had after death; accounts of other classes are closed by clerks."""

_SENDERS_MAX: Final = 8
_ROOTS_MAX: Final = 20
_DOUBTS_MAX: Final = 20
"""Of each chart, the newest are kept."""

_NEVER: Final[tuple[float, int]] = (0.0, 0)
_NOTHING_STATED: Final = StatedDeath()
_DISPOSITION: Final = "PV1-36"
_MERGE: Final = "MRG-1"


def settle_death(
    before: Chart, chart: Chart, event: PatientEvent, dispositions: Dispositions, applied: Applied
) -> Chart:
    """The chart with what follows from the event for the patient's death.

    before: the chart as the event found it. chart: with all of the event but its word on death. Questions go to
    `applied`, and stand in the chart (`StatedDeath.doubts`) until they are decided.
    """
    if _nobody_speaks_of_it(chart, event, dispositions):
        return chart
    if chart.closed is not None and _may_concern_closed_stays(chart, event, dispositions):
        chart.need_whole()
    return _Hearing(before, chart, event, dispositions, applied).chart()


def _nobody_speaks_of_it(chart: Chart, event: PatientEvent, dispositions: Dispositions) -> bool:
    """Whether neither the message nor the chart says anything of a death, as a rule."""
    said, patient = event.patient, chart.patient
    return (
        patient.deceased is None
        and patient.deceased_at is None
        and event.unread_death is None
        and "deceased" not in said
        and "deceased_at" not in said
        and chart.death_stated == _NOTHING_STATED
        and not dispositions.means_death(event.disposition)
        and not _any_ended_in_death(chart, dispositions)
    )


def _any_ended_in_death(chart: Chart, dispositions: Dispositions) -> bool:
    deaths = dispositions.deaths
    if chart.closed is not None and not deaths.isdisjoint(chart.closed.dispositions):
        return True
    return any(stay.disposition in deaths for stay in chart.encounters)


def _may_concern_closed_stays(chart: Chart, event: PatientEvent, dispositions: Dispositions) -> bool:
    """Whether a death is spoken of, now or before. To say that there is none (PID-30) has no other stay looked at."""
    stated = chart.death_stated
    return bool(
        chart.patient.deceased is True
        or stated.deceased is True
        or stated.doubts
        or stated.overruled
        or event.patient.get("deceased") is True
        or event.patient.get("deceased_at")
        or event.unread_death is not None
        or dispositions.means_death(event.disposition)
        or _any_ended_in_death(chart, dispositions)
    )


class _Hearing:
    """One event heard on one chart."""

    def __init__(
        self, before: Chart, chart: Chart, event: PatientEvent, dispositions: Dispositions, applied: Applied
    ) -> None:
        self._before = before
        self._chart = chart
        self._event = event
        self._dispositions = dispositions
        self._applied = applied
        self._root = event.at[1]
        self._at = event.at
        self._state = chart.death_stated
        self._asked: list[Doubt] = []
        self._was_dead = before.patient.deceased is True
        self._stay = chart.encounter(applied.encounter) if applied.encounter else None

    def chart(self) -> Chart:
        event = self._event
        self._believe_merge()
        deadly = self._deaths()
        if self._denied(deadly):
            self._overrule()
            deadly = []
        said = self._said(dead=bool(deadly) or self._state.deceased is True)
        said = self._unheard_disposition(said, deadly)
        state, stamps = self._take(said)
        if said.get("deceased") is not True:
            state, deadly, stamps = self._left_alive(state, deadly, stamps)
        dead = bool(deadly) or state.deceased is True
        if dead and event.patient.get("deceased") is False and "deceased" in said:
            self._applied.deviations.append("alive-against-disposition")
        flipped = dead != self._was_dead
        if flipped:
            self._applied.facts.append(Fact(chart_id=self._chart.id))
        state = msgspec.structs.replace(state, doubts=self._doubts(flipped=flipped))
        chart = self._chart
        if state != chart.death_stated or stamps != chart.stamps:
            chart = msgspec.structs.replace(chart, death_stated=state, stamps=stamps)
        deceased = True if dead else state.deceased
        at = (state.deceased_at or (deadly[0].discharged_at if deadly else None)) if dead else None
        if (chart.patient.deceased, chart.patient.deceased_at) == (deceased, at):
            return chart
        patient = msgspec.structs.replace(chart.patient, deceased=deceased, deceased_at=at)
        return msgspec.structs.replace(chart, patient=patient)

    # --- questions

    def _doubt(self, code: HoldCode, location: str, detail: str = "") -> bool:
        """Ask a person, unless one has said already that it is so. Returns whether it is in doubt."""
        if self._event.believed(code, location):
            self._at = self._event.decided_at or self._at
            return False
        if self._asked_before(code, location, settled=True):
            return True  # a person has said that it is not so
        if self._event.settled and QUESTIONS[code].of_its_time:
            return True  # it was applied in its time, and is old news now
        subject = self._stay.key if location == _DISPOSITION and self._stay is not None else self._chart.id
        self._applied.hold(code, location=location, subject=subject, detail=detail)
        self._asked.append(Doubt(root=self._root, code=code, location=location, sender=self._event.sender))
        return True

    def _asked_before(self, code: HoldCode, location: str, *, settled: bool = False) -> bool:
        """The same message has asked it before; and nobody has decided, or (settled) a person has."""
        wanted = (self._root, code, location, settled)
        return any((one.root, one.code, one.location, one.settled) == wanted for one in self._state.doubts)

    def _doubts(self, *, flipped: bool) -> tuple[Doubt, ...]:
        """Open questions: those of other messages, unless the answer is there, and those of this one."""
        kept = (one for one in self._state.doubts if one.settled or (one.root != self._root and not flipped))
        return (*kept, *self._asked)[-_DOUBTS_MAX:]

    # --- what the message says (PID-29, PID-30)

    def _said(self, *, dead: bool) -> dict[str, Any]:
        """What of it counts. dead: the patient is, whatever the message says."""
        values = self._event.patient
        said: dict[str, Any] = {name: values[name] for name in FIELDS if name in values}
        if said.get("deceased_at"):  # then the patient has died, whatever PID-30 says: senders fill that by default
            if said.get("deceased") is False:
                self._applied.deviations.append("death-contradicted")
            said["deceased"] = True
        unread = self._event.unread_death
        if said.get("deceased") is not True and unread is not None:
            if dead or self._doubt(HoldCode.DEATH_UNREADABLE, unread):
                return {}
            return {"deceased": True}
        if said.get("deceased") is True:
            return self._death(said, dead=dead)
        return self._no_death(said) if said else said

    def _death(self, said: dict[str, Any], *, dead: bool) -> dict[str, Any]:
        location = "PID-29" if said.get("deceased_at") else "PID-30"
        wrong = self._impossible(said.get("deceased_at"))
        if wrong is not None:
            del said["deceased_at"]  # whatever becomes of the death, it was not then
            if dead:
                self._applied.deviations.append(f"{wrong[0]}:PID-29")
            elif self._doubt(*wrong):
                return {}
        if dead or self._at >= self._chart.stamps.get("deceased", self._at) or self._root in self._state.heard:
            return said
        return {} if self._doubt(HoldCode.DEATH_STALE, location) else said

    def _impossible(self, at: Moment | None) -> tuple[HoldCode, str, str] | None:
        """Why the patient can't have died then; none: it may be."""
        event, chart = self._event, self._chart
        if at is None:
            return None
        if event.claims is not None and at.earliest > event.claims.latest and not at.is_placeholder:
            return HoldCode.DEATH_IN_FUTURE, "PID-29", ""
        born = chart.patient.birth_date
        if born is not None and at.is_before(born):
            detail = "the time of death (PID-29) lies before the patient's birth"
            return HoldCode.DEATH_CONTRADICTED, "PID-29", f"{detail}; {_WHICH}"
        for stay in chart.encounters:
            if stay.admitted_at is not None and at.is_before(stay.admitted_at) and self._seen_alive(stay):
                detail = "the time of death (PID-29) lies before the admission of a stay that the patient was alive in"
                return HoldCode.DEATH_CONTRADICTED, "PID-29", f"{detail}; {_WHICH}"
        return None

    def _seen_alive(self, stay: Encounter) -> bool:
        if stay.class_ not in PRESENT:
            return False
        if stay.status is EncounterStatus.FINISHED:
            return stay.disposition in self._dispositions.left_alive
        return stay.status in {EncounterStatus.ACTIVE, EncounterStatus.ON_LEAVE}

    def _no_death(self, said: dict[str, Any]) -> dict[str, Any]:
        """A word that the patient has not died, or that nothing is known of a death."""
        state, sender = self._state, self._event.sender
        if state.deceased is not True or state.by == (sender,):
            return said
        if "deceased" not in said:
            return {}  # it clears a time of death that it has not given
        if self._at < self._chart.stamps.get("deceased", self._at):
            return said  # old: it turns nothing back
        known = any(
            one.sender == sender and one.location == "PID-30" and (one.settled or one.root != self._root)
            for one in state.doubts
        )
        detail = "another sender says that the patient has not died (PID-30); release it if the patient is alive,"
        if known:  # senders that say it by default say it in each message: one question is enough
            self._applied.deviations.append("alive-against-death")
        elif not self._doubt(HoldCode.DEATH_CONTRADICTED, "PID-30", f"{detail} dismiss it if not"):
            self._overrule()
            return {"deceased": False, "deceased_at": None}
        return {}

    def _denied(self, deadly: list[Encounter]) -> bool:
        """Whether a person has said that PID-30 `N` is right, and how the stay ended (PV1-36) is not.

        It is asked of a sender that says so only now: many write `N` into each message, that of the death among them.
        """
        event, sender = self._event, self._event.sender
        if not deadly or event.patient.get("deceased") is not False or event.patient.get("deceased_at"):
            return False
        if self._state.deceased is True:  # it was said, not only told by the disposition: `_no_death` sees to it
            return False
        again = self._asked_before(HoldCode.DEATH_CONTRADICTED, "PID-30")
        by_default = self._says_death_by_disposition() or (
            self._state.deceased is False and self._state.denied_by == sender
        )
        if by_default and not again and not event.believed(HoldCode.DEATH_CONTRADICTED, "PID-30"):
            return False
        detail = "the patient's stay ended in death (PV1-36), and a later message says that the patient has not died"
        detail += " (PID-30); release it if the patient is alive, dismiss it if not"
        return not self._doubt(HoldCode.DEATH_CONTRADICTED, "PID-30", detail)

    def _take(self, said: Mapping[str, Any]) -> tuple[StatedDeath, dict[str, Stamp]]:
        state, stamps = self._state, dict(self._chart.stamps)
        changes: dict[str, Any] = {}
        for name, value in said.items():
            if self._at < stamps.get(name, self._at):
                self._applied.deviate("stale-event")
                continue
            stamps[name] = self._at
            changes[name] = value
        if "deceased" in changes:
            sender = self._event.sender
            others = tuple(one for one in state.by if one != sender)
            changes["by"] = (*others, sender)[-_SENDERS_MAX:] if changes["deceased"] else ()
            changes["denied_by"] = 0 if changes["deceased"] else sender
        if said.get("deceased") is True and self._root not in state.heard:
            changes["heard"] = (*state.heard, self._root)[-_ROOTS_MAX:]
        return (msgspec.structs.replace(state, **changes) if changes else state), stamps

    # --- what the stays tell (PV1-36)

    def _deaths(self) -> list[Encounter]:
        """The stays that ended in death, as far as that is certain."""
        certain: list[Encounter] = []
        for stay in self._chart.encounters:
            if not _ended_in_death(stay, self._dispositions) or _discharge(stay) in self._state.overruled:
                continue
            was = self._before.encounter(stay.key)
            known = self._was_dead and was is not None and _ended_in_death(was, self._dispositions)
            if known or not _left_later(stay, self._chart, self._dispositions):
                certain.append(stay)
            elif self._stay is not None and stay.key == self._stay.key:
                new = was is None or not _ended_in_death(was, self._dispositions)
                detail = "the stay ended in death (PV1-36), but the patient left a later stay alive"
                if (new or self._asked_before(HoldCode.DEATH_CONTRADICTED, _DISPOSITION)) and not self._doubt(
                    HoldCode.DEATH_CONTRADICTED, _DISPOSITION, f"{detail}; {_WHICH}"
                ):
                    certain.append(stay)
        if certain and self._root not in self._state.heard and self._says_death_by_disposition():
            self._state = msgspec.structs.replace(self._state, heard=(*self._state.heard, self._root)[-_ROOTS_MAX:])
        return certain

    def _says_death_by_disposition(self) -> bool:
        return self._dispositions.means_death(self._event.disposition)

    def _unheard_disposition(self, said: dict[str, Any], deadly: list[Encounter]) -> dict[str, Any]:
        """A disposition that says death and ended no stay is never just set aside, be it old news or an update."""
        stay = self._stay
        if (
            stay is None
            or deadly
            or said.get("deceased") is True
            or self._state.deceased is True
            or self._root in self._state.heard
            or not self._says_death_by_disposition()
            or _ended_in_death(stay, self._dispositions)
        ):
            return said
        if stay.status is EncounterStatus.FINISHED or self._event.ends_stay:
            detail = "a disposition (PV1-36) says that the patient has died, but is older than what the chart says"
            in_doubt = self._doubt(HoldCode.DEATH_STALE, _DISPOSITION, f"{detail}; {_WHICH}")
        elif self._event.takes_back or self._is_asked_already():
            self._applied.deviations.append("death-without-discharge")
            return said
        else:
            detail = "a disposition (PV1-36) says that the patient has died, but no discharge has ended the stay"
            in_doubt = self._doubt(HoldCode.DEATH_CONTRADICTED, _DISPOSITION, f"{detail}; {_WHICH}")
        return said if in_doubt else {"deceased": True}

    def _is_asked_already(self) -> bool:
        """By another message of this sender: until the discharge comes, each update may say it again."""
        if self._event.believed(HoldCode.DEATH_CONTRADICTED, _DISPOSITION):
            return False
        return any(
            (one.sender, one.location, one.settled) == (self._event.sender, _DISPOSITION, False)
            and one.root != self._root
            for one in self._state.doubts
        )

    def _left_alive(
        self, state: StatedDeath, deadly: list[Encounter], stamps: dict[str, Stamp]
    ) -> tuple[StatedDeath, list[Encounter], dict[str, Stamp]]:
        """A dead patient leaves a stay alive: who of the two is right is for a person to say."""
        stay = self._stay
        if stay is None or not _left_alive(stay, self._dispositions) or not self._after_death(stay, state, deadly):
            return state, deadly, stamps
        was = self._before.encounter(stay.key)
        again = was is not None and _left_alive(was, self._dispositions) and _discharge(was) == _discharge(stay)
        if again and not self._asked_before(HoldCode.DEATH_CONTRADICTED, _DISPOSITION):
            return state, deadly, stamps
        detail = "the patient is recorded as dead, and left a stay alive after that;"
        detail += " release it if the patient is alive, dismiss it if not"
        if self._doubt(HoldCode.DEATH_CONTRADICTED, _DISPOSITION, detail):
            return state, deadly, stamps
        overruled = (*state.overruled, *map(_discharge, deadly))[-_ROOTS_MAX:]
        state = msgspec.structs.replace(
            state, deceased=False if state.deceased is not None else None, deceased_at=None, by=(), overruled=overruled
        )
        return state, [], {**stamps, **dict.fromkeys(FIELDS, self._at)}

    def _after_death(self, stay: Encounter, state: StatedDeath, deadly: list[Encounter]) -> bool:
        if state.deceased is True:
            said = self._chart.stamps.get("deceased", _NEVER)[0]
            if _is_after(stay.discharged_at, state.deceased_at, said):
                return True
        return any(_came_after(stay, death) for death in deadly)

    # --- merges and decisions

    def _believe_merge(self) -> None:
        """The question that the merge of a dead with a living chart has asked stays open until it is decided."""
        if not self._asked_before(HoldCode.DEATH_CONTRADICTED, _MERGE):
            return
        if not self._doubt(HoldCode.DEATH_CONTRADICTED, _MERGE, MERGED_DEATH):
            self._overrule()

    def _overrule(self) -> None:
        """A person says that the patient is alive: no death that is known now counts any more."""
        deadly = [stay for stay in self._chart.encounters if _ended_in_death(stay, self._dispositions)]
        overruled = (*self._state.overruled, *map(_discharge, deadly))[-_ROOTS_MAX:]
        deceased = False if self._state.deceased is not None else None
        self._state = msgspec.structs.replace(
            self._state, deceased=deceased, deceased_at=None, by=(), overruled=overruled
        )


_WHICH: Final = "release it if the patient has died, dismiss it if not"
MERGED_DEATH: Final = (
    "one of the two merged patients is recorded as dead, the other one was seen alive after that;"
    " release it if the patient is alive, dismiss it if not"
)


def fold_death(survivor: Chart, merged: Chart) -> tuple[StatedDeath, dict[str, Stamp]]:
    """What was said of the death of two charts that are one patient, as if all had been said of one.

    The last word counts, but a "no" takes back only what its own sender has said. Also the stamps of the fields.
    """
    ours, theirs = survivor.death_stated, merged.death_stated
    stamps: dict[str, Stamp] = {}
    values: dict[str, Any] = {}
    for name in FIELDS:
        mine, other = survivor.stamps.get(name, _NEVER), merged.stamps.get(name, _NEVER)
        newer = other > mine or (other == mine and bool(getattr(theirs, name)))
        if other != _NEVER or mine != _NEVER:
            stamps[name] = other if newer else mine
        values[name] = getattr(theirs if newer else ours, name)
    last, first = (theirs, ours) if values["deceased"] == theirs.deceased else (ours, theirs)
    if first.deceased is True and last.deceased is not True and first.by != (last.denied_by,):
        values = {name: getattr(first, name) for name in FIELDS}
    state = StatedDeath(
        **values,
        by=tuple(dict.fromkeys((*ours.by, *theirs.by)))[-_SENDERS_MAX:],
        denied_by=last.denied_by,
        heard=(*theirs.heard, *ours.heard)[-_ROOTS_MAX:],
        overruled=(*theirs.overruled, *ours.overruled)[-_ROOTS_MAX:],
        doubts=(*theirs.doubts, *ours.doubts)[-_DOUBTS_MAX:],
    )
    return state, stamps


def merge_contradicts_death(one: Chart, other: Chart, dispositions: Dispositions) -> bool:
    """Whether one of two charts that become one patient is dead, and the other was seen alive after that."""
    for dead, living in ((one, other), (other, one)):
        if dead.patient.deceased is not True or living.patient.deceased is True:
            continue
        stated, denied = dead.death_stated, living.death_stated
        later = living.stamps.get("deceased", _NEVER) > dead.stamps.get("deceased", _NEVER)
        if stated.deceased is True and denied.deceased is False and later and stated.by != (denied.denied_by,):
            return True
        said = dead.stamps.get("deceased", _NEVER)[0]
        alive = (stay for stay in living.encounters if _left_alive(stay, dispositions))
        # A death that the stay's end tells may be the same stay, said of both; one that was said is a time of its own.
        seen = (stay.discharged_at if stated.deceased is True else stay.admitted_at for stay in alive)
        if any(_is_after(time, dead.patient.deceased_at, said) for time in seen):
            return True
    return False


def without_doubt(state: StatedDeath, root: int, code: str, location: str | None) -> StatedDeath:
    """A question of one message is decided: what it says is not so.

    That is remembered, so that its replay, or the next "no" of its sender, is no new question.
    """
    wanted = (root, code, location)
    doubts = tuple(
        msgspec.structs.replace(one, settled=True) if (one.root, one.code, one.location) == wanted else one
        for one in state.doubts
    )
    return msgspec.structs.replace(state, doubts=doubts)


def _ended_in_death(stay: Encounter, dispositions: Dispositions) -> bool:
    return stay.status is EncounterStatus.FINISHED and stay.disposition in dispositions.deaths


def _left_alive(stay: Encounter, dispositions: Dispositions) -> bool:
    return (
        stay.status is EncounterStatus.FINISHED
        and stay.class_ in PRESENT
        and stay.disposition in dispositions.left_alive
    )


def _left_later(death: Encounter, chart: Chart, dispositions: Dispositions) -> bool:
    """The patient left a stay alive that began after this one had ended in death."""
    return any(_came_after(stay, death) for stay in chart.encounters if _left_alive(stay, dispositions))


def _came_after(stay: Encounter, death: Encounter) -> bool:
    """The patient came for a stay after another one had ended in death."""
    admitted, ended = stay.admitted_at, death.discharged_at
    return admitted is not None and ended is not None and ended.is_before(admitted)


def _is_after(time: Moment | None, death: Moment | None, said: float) -> bool:
    """Whether a time is after a death; said: when that was said, for a death without a time; 0: nobody has."""
    if time is None:
        return False
    if death is not None and not death.is_placeholder:
        return death.is_before(time)
    return bool(said) and time.at is not None and time.seconds > said


def _discharge(stay: Encounter) -> str:
    """Which discharge of which stay: a cancelled and repeated one is another one."""
    return f"{stay.key}#{stay.discharges}"
