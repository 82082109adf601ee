"""Why something was done or withheld: a closed list of reasons, said by the code that decides.

An outcome keeps codes and small arguments of what can't be told by the rest of it. Sentences are built when somebody
asks (`pipeline.why`, for `handoff try` and `messages show`; `pipeline.decisions`, for `handoff why`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from engine.domain.record import Phi, Record


class What(StrEnum):
    PLAN = "plan"
    SCORE = "score"
    DELIVERY = "delivery"


class Reason(StrEnum):
    """Why it was done or withheld. `MEANINGS` has the word and the sentence of each."""

    PLANNED = "planned"
    REPLANNED = "replanned"
    CLASS_ASKED = "class-asked"
    DISPOSITION_ASKED = "disposition-asked"
    DOUBT_ASKED = "doubt-asked"
    NO_PROTOCOL = "no-protocol"
    NO_VISIT = "no-visit"
    NOT_DISCHARGED = "not-discharged"
    TAKEN_BACK = "taken-back"
    CANCELLED = "cancelled"
    CLASS_NOT_PLANNED = "class-not-planned"
    TOO_YOUNG = "too-young"
    DISPOSITION = "disposition"
    NEVER_SAID = "disposition-never-said"
    DECEASED = "deceased"
    DEATH_IN_DOUBT = "death-in-doubt"
    TOO_LATE = "too-late"
    PAGE_TOO_LATE = "page-too-late"
    NOT_IN_ROLLOUT = "not-in-rollout"
    WAITS = "waits"
    EARLIER_WAITS = "earlier-waits"
    EARLIER_BAND = "earlier-band"
    PLAN_SAME = "plan-same"
    SCORED = "scored"
    SCORED_IN_PART = "scored-in-part"
    NO_MODEL = "no-model"
    CLASS_NOT_SCORED = "class-not-scored"
    NOT_ARRIVED = "not-arrived"
    SCORE_SAME = "score-same"
    QUEUED = "queued"
    NO_DESTINATION = "no-destination"
    NOT_CHANGED = "not-changed"
    NOT_IN_DELIVER = "not-in-deliver"
    NOT_IN_DELIVER_THEN = "not-in-deliver-then"
    SHADOW = "shadow"
    IN_SHADOW = "in_shadow"
    PAUSED = "paused"
    CHANNEL_PAUSED = "channel-paused"
    RESTRICTED = "restricted"
    NO_PART2_CONSENT = "part2_no_consent"
    PATIENT_REFUSED = "patient_refused"
    TEST_DATA = "test-data"
    DUPLICATE = "duplicate"
    HELD = "held"
    STALE = "stale"
    WITHOUT_EFFECT = "without-effect"
    FILTERED = "filtered"
    DEAD = "dead"
    REFUSED = "refused"
    WAITING = "waiting"


class Meaning(Record, frozen=True, kw_only=True):
    """What a reason says."""

    word: str
    """Of the closed list: commands and `docs/hl7.md` name these."""
    text: str
    """For a person. {name}: of the protocol, model or destination; {0}, {1}: arguments; {all}: all of them."""
    done: bool = False


MEANINGS: Final[Mapping[Reason, Meaning]] = {
    Reason.PLANNED: Meaning(word="planned", text="new tasks: {0}, by {name}", done=True),
    Reason.REPLANNED: Meaning(word="planned", text="the tasks of {name} were brought into line", done=True),
    Reason.CLASS_ASKED: Meaning(word="class", text="{0}: a person is asked, new tasks: {1}", done=True),
    Reason.DISPOSITION_ASKED: Meaning(word="disposition", text="{0}: a person is asked, new tasks: {1}", done=True),
    Reason.DOUBT_ASKED: Meaning(word="hold", text="{0}: a person is asked, new tasks: {1}", done=True),
    Reason.NO_PROTOCOL: Meaning(word="no_protocol", text="the channel names no protocol"),
    Reason.NO_VISIT: Meaning(word="no_visit", text="the message speaks of no stay or visit"),
    Reason.NOT_DISCHARGED: Meaning(word="not_discharged", text="the stay has no discharge"),
    Reason.TAKEN_BACK: Meaning(word="reversed", text="the discharge was taken back"),
    Reason.CANCELLED: Meaning(word="reversed", text="the admission was cancelled"),
    Reason.CLASS_NOT_PLANNED: Meaning(word="class", text="{0} is not in classes of {name}"),
    Reason.TOO_YOUNG: Meaning(
        word="class", text="the patient was younger than {0} at the discharge (age_years_min of {name})"
    ),
    Reason.DISPOSITION: Meaning(word="disposition", text="disposition {0} calls for no task in {name}"),
    Reason.NEVER_SAID: Meaning(
        word="disposition",
        text="the sender has left out the disposition of {0} discharges in a row: nobody is asked about each any more"
        " (see the quality list, and blank_disposition of the channel)",
    ),
    Reason.DECEASED: Meaning(word="deceased", text="the patient has died"),
    Reason.DEATH_IN_DOUBT: Meaning(
        word="hold", text="it is not certain whether the patient has died: a person decides"
    ),
    Reason.TOO_LATE: Meaning(
        word="too_late", text="discharged more than {0} days ago (discharge_age_days_max of {name})"
    ),
    Reason.PAGE_TOO_LATE: Meaning(
        word="too_late", text="discharged more than {0} ago: nobody is called at once (page_fresh of {name})"
    ),
    Reason.NOT_IN_ROLLOUT: Meaning(
        word="not_in_rollout", text="{name} does not act for the patient yet: not in {0} (rollout)"
    ),
    Reason.WAITS: Meaning(
        word="superseded",
        text="the patient was admitted again, or another stay goes on: the plan of this one waits",
    ),
    Reason.EARLIER_WAITS: Meaning(
        word="superseded", text="the patient was admitted again: the open tasks of the other stay wait"
    ),
    Reason.EARLIER_BAND: Meaning(
        word="planned", text="band {0} counts, of an earlier stay whose plan would still be running", done=True
    ),
    Reason.PLAN_SAME: Meaning(word="no_change", text="nothing that decides on the plan of {name} has changed"),
    Reason.SCORED: Meaning(word="scored", text="band {0}", done=True),
    Reason.SCORED_IN_PART: Meaning(word="missing_inputs", text="{0} to {1} points, not known: {2}", done=True),
    Reason.NO_MODEL: Meaning(word="no_model", text="the channel names no model in risk"),
    Reason.CLASS_NOT_SCORED: Meaning(word="class", text="{0} is not scored, inpatient and observation stays are"),
    Reason.NOT_ARRIVED: Meaning(word="not_arrived", text="the stay has not begun"),
    Reason.SCORE_SAME: Meaning(word="no_change", text="it is as before"),
    Reason.QUEUED: Meaning(word="queued", text="{all}", done=True),
    Reason.NO_DESTINATION: Meaning(word="no_destination", text="the channel delivers to no destination"),
    Reason.NOT_CHANGED: Meaning(word="no_change", text="nothing of what it takes has changed: {all}"),
    Reason.NOT_IN_DELIVER: Meaning(word="not_in_deliver", text="what has changed is not in what it takes: {all}"),
    Reason.NOT_IN_DELIVER_THEN: Meaning(word="not_in_deliver", text="the channel did not deliver it there then: {all}"),
    Reason.SHADOW: Meaning(word="shadow", text="the channel is in shadow mode; else would go: {all}"),
    Reason.IN_SHADOW: Meaning(
        word="shadow", text="the channel is in shadow mode; --shadow shows what there would be, were it live"
    ),
    Reason.PAUSED: Meaning(word="paused", text="the channel is paused; when it is live, would go: {all}"),
    Reason.CHANNEL_PAUSED: Meaning(word="paused", text="the channel is paused: the message waits"),
    Reason.RESTRICTED: Meaning(
        word="restricted", text="the record is restricted, and the destination gets nothing of that: {all}"
    ),
    Reason.NO_PART2_CONSENT: Meaning(
        word="part2_no_consent", text="42 CFR Part 2, and no consent of the patient covers the destination: {all}"
    ),
    Reason.PATIENT_REFUSED: Meaning(
        word="patient_refused", text="the patient wants no notices of events sent there: {all}"
    ),
    Reason.TEST_DATA: Meaning(word="test_data", text="the destination takes no test data: {all}"),
    Reason.DUPLICATE: Meaning(word="duplicate", text="queued before, for the message that this one replays: {all}"),
    Reason.HELD: Meaning(word="hold", text="the message is held for a person ({0})"),
    Reason.STALE: Meaning(word="stale", text="older than what the chart says: held for a person ({0})"),
    Reason.WITHOUT_EFFECT: Meaning(word="without_effect", text="this event leaves the charts alone"),
    Reason.FILTERED: Meaning(word="filtered", text="the channel's filter leaves the message out"),
    Reason.DEAD: Meaning(word="dead", text="the message is dead: nothing of it was applied"),
    Reason.REFUSED: Meaning(word="refused", text="the message was refused: nothing of it was applied"),
    Reason.WAITING: Meaning(word="waiting", text="the message is not processed yet"),
}

NO_CLASS: Final = "a stay without a class"
CLASS_UNKNOWN: Final = "a class that no table knows"

Ground = tuple[Reason, tuple[str | int, ...]]
"""A reason with its arguments."""


class Input(Phi, frozen=True, kw_only=True, array_like=True, omit_defaults=True):
    """What a rule has looked at."""

    name: str
    """A field of an encounter or a patient (`disposition`), else a word of ours (`band`)."""
    value: str | int | float | bool | None = None
    """As the chart held it then, codes after their table."""
    entry: int = 0
    """The message that has said so; of a replay the original. 0: no single one has."""
    location: str = ""
    """The HL7 field, where it is not the one that the field map names for it."""


class Why(Phi, frozen=True, kw_only=True, array_like=True, omit_defaults=True):
    """Why the plan, a score or the deliveries of a message were done or withheld."""

    what: What
    reason: Reason
    args: tuple[str | int, ...] = ()
    name: str = ""
    """Of the protocol, model or destination; none: the channel's one, or each of which nothing else is said."""
    inputs: tuple[Input, ...] = ()


class Said(Record, frozen=True, kw_only=True):
    """A reason in words, as it is shown."""

    what: What
    name: str | None
    """None: the channel has none."""
    decided: str
    """`done` or `withheld`."""
    reason: str
    """A word of the closed list, and a sentence."""


def say(why: Why, name: str | None = None) -> Said:
    """In words. name: of what it is said, where it names none itself."""
    meaning = MEANINGS[why.reason]
    name = why.name or name
    text = meaning.text.format(*why.args, name=name or "the protocol", all=", ".join(map(str, why.args)))
    decided = "done" if meaning.done else "withheld"
    return Said(what=why.what, name=name, decided=decided, reason=f"{meaning.word}: {text}")
