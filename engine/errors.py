"""Every error the engine raises on purpose, in one tree.

The raiser knows the class, and nobody reads texts to find out what happened. No error carries a value that came out of
a message or a chart: texts name places (file, line, field), codes and what to do, so that an error may be logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal


class HandoffError(Exception):
    """Base of all errors raised on purpose. Its text is safe to log and to show."""


class NotFoundError(HandoffError):
    """There is nothing of the name or number that was given."""


class WhichError(HandoffError):
    """A name means nothing, or several things. name, known: what was said, and what there is, for a guess."""

    def __init__(self, text: str, *, name: str = "", known: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.name = name
        self.known = tuple(known)


# HL7 table 0357, message error condition codes (HL7 v2.9.1, chapter 2C).
SEGMENT_SEQUENCE: Final = 100
REQUIRED_FIELD_MISSING: Final = 101
DATA_TYPE: Final = 102
TABLE_VALUE: Final = 103
VALUE_TOO_LONG: Final = 104
UNSUPPORTED_TYPE: Final = 200
UNSUPPORTED_EVENT: Final = 201
UNSUPPORTED_PROCESSING_ID: Final = 202
UNSUPPORTED_VERSION: Final = 203
UNKNOWN_KEY: Final = 204
DUPLICATE_KEY: Final = 205
RECORD_LOCKED: Final = 206
INTERNAL_ERROR: Final = 207


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why something was refused or failed: told to its sender, kept in a dead letter. Holds no value of a message."""

    error: str
    """Our own stable code (`identifier-missing`), shown in ERR-5 and in dead letters."""
    text: str
    """For people."""
    hl7_code: int = INTERNAL_ERROR
    """Of table 0357."""
    location: str | None = None
    """In HL7 notation (`PID-3`, `MSH-9.2`)."""


class MessageError(HandoffError):
    """The message is at fault: refused at intake or dead-lettered, never retried by itself. The rest: see `Fault`."""

    def __init__(self, error: str, text: str, *, hl7_code: int = INTERNAL_ERROR, location: str | None = None) -> None:
        super().__init__(f"{location}: {text}" if location else text)
        self.error = error
        self.text = text
        self.hl7_code = hl7_code
        self.location = location

    @property
    def fault(self) -> Fault:
        return Fault(error=self.error, text=self.text, hl7_code=self.hl7_code, location=self.location)


class MappingError(HandoffError):
    """A mapping of ours could not be applied: the entry is dead-lettered and replayed after the fix.

    file, line: where the rule stands. target: what it feeds (`patient.birth_date`). location: the HL7 place read.
    """

    def __init__(
        self, text: str, *, file: str, line: int, target: str, location: str | None = None, error: str = "mapping"
    ) -> None:
        at = f" (from {location})" if location else ""
        super().__init__(f"{file}:{line}: {target}{at}: {text}")
        self.error = error
        self.text = text
        self.file = file
        self.line = line
        self.target = target
        self.location = location

    @property
    def fault(self) -> Fault:
        return Fault(error=self.error, text=str(self), location=self.location)


class StoreError(HandoffError):
    """The store could not do what was asked."""


class BackupError(StoreError):
    """A backup can't be made, or can't be believed: damaged, cut off, of another version."""


class StoreUnavailableError(StoreError):
    """The store can't be written or read now (disk full, database gone). The sender resends, the daemon goes on."""


class StoreMissingError(StoreUnavailableError):
    """The store was not made yet."""


class StoreDamagedError(StoreUnavailableError):
    """What was to be read lies in a damaged part of the store's file."""


class StoreBusyError(StoreUnavailableError):
    """Another writer was in the way, and the database has undone this transaction. The same again may well succeed."""


class StaleChartError(StoreError):
    """Somebody else changed a chart since it was read: process the batch again."""

    def __init__(self, chart_ids: tuple[str, ...]) -> None:
        super().__init__(f"{len(chart_ids)} chart(s) were changed by another writer since they were read")
        self.chart_ids = chart_ids


class ChartNotWholeError(StoreError):
    """A rule needs more of a chart than was loaded, its closed stays or all of it: load it whole, and decide again."""

    def __init__(self, chart_id: str) -> None:
        super().__init__("the chart was not loaded, or without its closed stays")
        self.chart_id = chart_id


class KeyMissingError(StoreError):
    """A stored value is sealed with a key that the key file does not hold."""


class KeyFileError(StoreError):
    """The key file can't be used: it is damaged, can't be read, or can be read by others."""


class TamperedError(StoreError):
    """A stored value is not what was sealed in its place: altered, cut off, or moved there from another row."""

    def __init__(self, place: str) -> None:
        super().__init__(f"the stored value at {place} was altered, or belongs to another row")
        self.place = place


class AlteredSchemaError(StoreError):
    """Triggers, rules or tables of the store are not as we made them: what we write may be swallowed."""


class CheckpointError(HandoffError):
    """A checkpoint of the trail could not be written to a place, or those there can't be read."""


class UnrecordedError(StoreError):
    """The trail did not take a record, so what it records is not done."""


class IdentityTakenError(StoreError):
    """A chart claims an identifier, encounter or task of another living chart. Nothing was written."""


class CursorMovedError(StoreError):
    """Another processor has recorded outcomes since this batch was read. Nothing was written."""


class RowTakenError(StoreError):
    """Another writer has made a row with this key meanwhile. Nothing was written."""


class LeaseLostError(StoreError):
    """What was about to be written belongs to another worker now. Nothing was written."""


class DeniedError(HandoffError):
    """The actor may not do it. The text says why, and what helps."""

    def __init__(self, text: str, subject: str, reason: str) -> None:
        super().__init__(text)
        self.subject = subject
        self.reason = reason
        self.recorded = False
        """It is on the trail."""


class AccountError(HandoffError):
    """An account can't be made or changed so, or what somebody came in by does not count."""


class DeliveryFailure(StrEnum):
    """What a failed attempt at a destination means for the next step."""

    TRANSIENT = "transient"
    """It may work later: retry with backoff."""
    AMBIGUOUS = "ambiguous"
    """It may have been done: retry when the destination is idempotent, else hold for a person."""
    UNDECIDED = "undecided"
    """It was refused without a reason, and the site wants a person to decide: hold it."""
    PERMANENT = "permanent"
    """It will never work as it is: bury it."""


class DeliveryError(HandoffError):
    """A destination did not take a delivery. `error` is a stable code (`request-limit-exceeded`), never the payload.

    retry_after_seconds: how long the destination asked to be left alone, when it said so.
    """

    def __init__(
        self,
        destination: str,
        error: str,
        text: str,
        *,
        kind: DeliveryFailure,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{destination}: {error}: {text}")
        self.destination = destination
        self.error = error
        self.text = text
        self.kind = kind
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the configuration. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    key: str
    message: str
    level: Literal["problem", "warning"] = "problem"
    """A warning keeps nothing from starting: it is for a person to judge."""

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        level = "warning: " if self.level == "warning" else ""
        return f"{self.file}:{self.line}:{self.column}: {level}{key}{self.message}"


class SettingsError(HandoffError):
    """The configuration is wrong. Raised at start or reload only; carries every problem found, not just the first."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class CandidateError(SettingsError):
    """A candidate for a configuration is wrong, and nothing of the site. Places name the candidate's own files."""
