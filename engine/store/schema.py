"""The tables of both sides, as SQLAlchemy Core knows them. `migrations/` makes them; a test holds the two together.

Two sides, so that acknowledging and processing never wait for each other: `journal` (what arrived, written by the main
process) and `charts` (what became of it, written by the worker). On SQLite they are two files, attached under
these names; on PostgreSQL two schemas of one database.

Times are microseconds since 1970 in UTC: exact, small, and the same on both databases. Truth values are 0 and 1 for the
same reason. Columns named `*_hash` and `*_key` hold keyed hashes (`KeyRing.lookup`); columns marked `sealed` hold what
`KeyRing.seal` gives. Everything else is free of PHI by its nature: ids, states, times, codes, names of channels and
destinations. Wide sealed values stand in tables of their own, so that a change of state rewrites few pages, and so that
a sweep can take them away while the narrow rows, and with them the ids, stay.

What is old, and what is of a patient, is found without a scan: numbers that are given in the order of time (entries,
deliveries, dead letters, holds, audit), the chart's `updated_at` for all that hangs on a chart, and an index by chart.
`tests/integration/store/test_retention_plans.py` asks that of each table.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache, lru_cache
from typing import Final, TypeVar

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, Table, Text, text

from engine.domain import moment

REVISION: Final = "0002"
"""The alembic revision that this code works with."""

JOURNAL: Final = "journal"
CHARTS: Final = "charts"
SHADOW: Final = "shadow"
"""PostgreSQL: the schema that stands in the place of `charts` for channels in shadow."""
SHADOW_NUMBERS: Final = 1_000_000_000
"""Dead letters, held messages and deliveries of channels in shadow have higher ones: none of the living, so that
whoever acts on one finds nothing."""

E = TypeVar("E", bound=StrEnum)

metadata: Final = MetaData()

# SQLite gives ids by itself only to a column that is declared INTEGER.
_AutoId = BigInteger().with_variant(Integer(), "sqlite")

# --- journal ---------------------------------------------------------------------------------------------------------

entry: Final = Table(
    "entry",
    metadata,
    Column("id", _AutoId, primary_key=True, autoincrement=False),  # dense, in commit order; given by the journal
    Column("channel", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("refused", SmallInteger, nullable=False),
    Column("ack", Text),
    Column("ack_state", Text, nullable=False),
    Column("wants_application_ack", SmallInteger, nullable=False),
    Column("message_key", BigInteger),  # see journal.py
    Column("digest", LargeBinary, nullable=False),
    Column("replay_of", BigInteger),
    Column("replay_root", BigInteger),
    Column("config_as_of", Text),
    Column("decision", Text),  # of a replay: the hold that a person has released (code and location)
    Column("flagged_duplicate_of", BigInteger),
    Column("partition", SmallInteger, nullable=False),
    Column("node", Text, nullable=False),  # the node that owes the answer
    Column("day", Integer),  # the day (in UTC, since 1970) under which its payload is kept; none: it is erased
    schema=JOURNAL,
)
Index("entry_message_key", entry.c.message_key)
Index("entry_channel", entry.c.channel, entry.c.id, entry.c.partition)  # a worker finds its entries in the index alone
# `sqlite_where`: an index is partial, on PostgreSQL too. Said once, because its dialect takes long to load.
# Answers that are owed are few at any time: the start of the daemon finds those of the last run without a scan.
Index(
    "entry_owed",
    entry.c.id,
    sqlite_where=entry.c.ack_state == text("'owed'"),
)
Index(
    "entry_refused",
    entry.c.id,
    sqlite_where=entry.c.refused == text("1"),
)

payload: Final = Table(
    "payload",
    metadata,
    Column("entry_id", _AutoId, primary_key=True, autoincrement=False),
    Column("head", LargeBinary, nullable=False),  # sealed: summary, peer, deviations, refusal
    Column("body", LargeBinary),  # sealed: the bytes as they came; none: swept after their retention
    # PostgreSQL: one partition a day (see days.py), so that retention is the dropping of tables.
    Column("day", Integer, nullable=False),
    schema=JOURNAL,
)

repeat: Final = Table(
    "repeat",
    metadata,
    Column("id", _AutoId, primary_key=True, autoincrement=False),
    Column("entry_id", BigInteger, nullable=False),
    Column("channel", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("ack", Text),
    Column("ack_state", Text, nullable=False),
    Column("node", Text, nullable=False),
    schema=JOURNAL,
)
Index("repeat_entry", repeat.c.entry_id)
Index(
    "repeat_owed",
    repeat.c.id,
    sqlite_where=repeat.c.ack_state == text("'owed'"),
)

link: Final = Table(
    "link",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("sequence_number", BigInteger, nullable=False),  # the last one stored (MSH-13)
    schema=JOURNAL,
)

erased: Final = Table(  # what the narrow rows alone are left of
    "erased",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("entries", BigInteger, nullable=False),
    schema=JOURNAL,
)

# --- charts ----------------------------------------------------------------------------------------------------------

cursor: Final = Table(
    "cursor",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("partition", SmallInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),  # every entry of the partition up to this id has an outcome
    schema=CHARTS,
)

worker: Final = Table(  # PostgreSQL: the workers of all nodes, so that each knows its share (see leases.py)
    "worker",
    metadata,
    Column("id", Text, primary_key=True),
    Column("backend_pid", Integer, nullable=False),
    Column("backend_start", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),  # by the database's clock
    schema=CHARTS,
)

outcome: Final = Table(
    "outcome",
    metadata,
    Column("entry_id", _AutoId, primary_key=True, autoincrement=False),
    Column("channel", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("chart_id", Text),
    Column("application_ack", Text, nullable=False),
    Column("error_code", Integer, nullable=False),
    Column("config_version", Text, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("test", SmallInteger, nullable=False),  # of test data
    Column("document", LargeBinary, nullable=False),  # sealed: reason, keys, effects, deviations
    schema=CHARTS,
)
Index("outcome_chart", outcome.c.chart_id, outcome.c.entry_id)
Index("outcome_test", outcome.c.entry_id, sqlite_where=outcome.c.test == text("1"))
Index("outcome_state", outcome.c.state, outcome.c.entry_id, outcome.c.channel)

concerned: Final = Table(  # patients that an entry was about besides its outcome's: a merge, a message about several
    "concerned",
    metadata,
    Column("chart_id", Text, primary_key=True),
    Column("entry_id", BigInteger, primary_key=True, autoincrement=False),
    schema=CHARTS,
    sqlite_with_rowid=False,
)
Index("concerned_entry", concerned.c.entry_id)

chart: Final = Table(
    "chart",
    metadata,
    Column("id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("merged_into", Text),
    Column("updated_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),  # its next deadline, a function of the chart; none: it waits for nothing
    Column("due_rank", SmallInteger),  # 0: somebody is to be called then, 1: other
    Column("partition", SmallInteger),  # of what rings it; none: it waits for nothing
    Column("test", SmallInteger, nullable=False),  # only test data has made it
    Column("document", LargeBinary, nullable=False),  # sealed: patient, stamps, and what belongs to it, in order
    schema=CHARTS,
)
Index(
    "chart_due",
    chart.c.due_rank,
    chart.c.due_at,
    chart.c.partition,
    sqlite_where=chart.c.due_at.is_not(None),
)
Index("chart_updated", chart.c.updated_at)
Index("chart_test", chart.c.id, sqlite_where=chart.c.test == text("1"))
Index(
    "chart_merged",
    chart.c.merged_into,
    sqlite_where=chart.c.merged_into.is_not(None),
)

identifier: Final = Table(
    "identifier",
    metadata,
    Column("key_hash", LargeBinary, primary_key=True),  # authority, value: as the command line names a patient
    Column("identity_hash", LargeBinary, primary_key=True),  # authority, type, value: of these there is one row
    Column("chart_id", Text, nullable=False),
    schema=CHARTS,
    sqlite_with_rowid=False,
)
Index("identifier_chart", identifier.c.chart_id)

encounter: Final = Table(
    "encounter",
    metadata,
    Column("encounter_hash", LargeBinary, primary_key=True),
    Column("chart_id", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),  # sealed: encounter, stamps
    schema=CHARTS,
)
Index("encounter_chart", encounter.c.chart_id)

score: Final = Table(
    "score",
    metadata,
    Column("chart_id", Text, primary_key=True),
    Column("encounter_hash", LargeBinary, primary_key=True),  # empty: not of one stay
    Column("model", Text, primary_key=True),
    Column("document", LargeBinary, nullable=False),  # sealed
    schema=CHARTS,
    sqlite_with_rowid=False,  # the scores of a stay stand together
)


def rows_of_part(what: str) -> Table:
    """The table of a part of charts that is only ever looked up by its chart (`store.parts.stored_plainly`)."""
    return Table(
        what,
        metadata,
        Column("chart_id", Text, primary_key=True),
        Column("key_hash", LargeBinary, primary_key=True),
        Column("document", LargeBinary, nullable=False),  # sealed
        schema=CHARTS,
        sqlite_with_rowid=False,
    )


closed: Final = Table(  # of charts with many stays
    "closed",
    metadata,
    Column("chart_id", Text, primary_key=True),
    Column("document", LargeBinary, nullable=False),  # sealed: what of the chart is over, in short
    schema=CHARTS,
)

task: Final = Table(
    "task",
    metadata,
    Column("id", Text, primary_key=True),
    Column("chart_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("assignee_hash", LargeBinary),
    Column("document", LargeBinary, nullable=False),  # sealed
    schema=CHARTS,
)
Index("task_chart", task.c.chart_id)
Index("task_state_due", task.c.state, task.c.due_at, task.c.id)

page: Final = Table(
    "page",
    metadata,
    Column("id", Text, primary_key=True),
    Column("chart_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("raised_at", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False),  # sealed
    schema=CHARTS,
)
Index("page_chart", page.c.chart_id)
Index("page_state_raised", page.c.state, page.c.raised_at)

patient_text: Final = Table(  # what is written to patients
    "patient_text",
    metadata,
    Column("id", Text, primary_key=True),
    Column("chart_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("planned_for", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False),  # sealed
    schema=CHARTS,
)
Index("patient_text_chart", patient_text.c.chart_id)
Index("patient_text_state_planned", patient_text.c.state, patient_text.c.planned_for)

contact_number: Final = Table(  # which charts have to do with a telephone number
    "contact_number",
    metadata,
    Column("found_by", LargeBinary, primary_key=True),  # keyed hash of the number
    Column("chart_id", Text, primary_key=True),
    schema=CHARTS,
    sqlite_with_rowid=False,
)
Index("contact_number_chart", contact_number.c.chart_id)

oncall_override: Final = Table(  # who stands in on a roster; made by an act, and never changed
    "oncall_override",
    metadata,
    Column("entry_id", _AutoId, primary_key=True, autoincrement=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False),  # sealed
    schema=CHARTS,
)
Index("oncall_override_ends", oncall_override.c.ends_at)

appointment: Final = Table(
    "appointment",
    metadata,
    Column("chart_id", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("starts_at", BigInteger),  # microseconds since 1970; none: it has no time yet
    Column("document", LargeBinary, nullable=False),  # sealed
    schema=CHARTS,
    sqlite_with_rowid=False,
)
Index("appointment_status_starts", appointment.c.status, appointment.c.starts_at)
Index("appointment_starts", appointment.c.starts_at)

delivery: Final = Table(
    "delivery",
    metadata,
    Column("id", _AutoId, primary_key=True, autoincrement=False),  # given in the order of the outcomes
    Column("entry_id", BigInteger),  # none: no entry caused it, a destination was told again (resend)
    Column("channel", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("ordering_key", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("turn", SmallInteger, nullable=False),  # 1: the oldest unfinished one of its ordering key and destination
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("marked", SmallInteger, nullable=False, server_default="0"),  # 1: its chart is asked whether it may leave
    Column("started_at", BigInteger),  # an attempt is under way
    Column("settled_at", BigInteger),
    Column("error", Text),
    Column("disclosed", Text),  # what the copy counts as, by the destination's setting when it was sent
    Column("life", LargeBinary),  # keyed hash of what has happened to it, see lives.py; none: nothing, or delivered
    schema=CHARTS,
)
delivery_payload: Final = Table(
    "delivery_payload",
    metadata,
    Column("delivery_id", _AutoId, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),  # sealed
    schema=CHARTS,
)
delivery_receipt: Final = Table(  # what the far end called it; only of those that have one
    "delivery_receipt",
    metadata,
    Column("delivery_id", _AutoId, primary_key=True, autoincrement=False),
    Column("found_by", LargeBinary, nullable=False),  # keyed hash
    Column("body", LargeBinary, nullable=False),  # sealed: the far end wrote it
    schema=CHARTS,
)
settlement: Final = Table(  # which deliveries were delivered or held: rows are held against it
    "settlement",
    metadata,
    Column("id", _AutoId, primary_key=True, autoincrement=False),  # dense, in commit order
    Column("at", BigInteger, nullable=False),
    Column("said", Text, nullable=False),  # see settlements.py
    Column("mac", LargeBinary, nullable=False),  # keyed hash of the row, and of those that it says were delivered
    schema=CHARTS,
)
Index("delivery_receipt_found", delivery_receipt.c.found_by)
_UNFINISHED = text("state IN ('pending', 'held')")
_HELD = text("state = 'held'")
_READY = text("state = 'pending' AND turn = 1")
Index("delivery_idempotency", delivery.c.idempotency_key, unique=True)
Index("delivery_entry", delivery.c.entry_id)
Index("delivery_without_entry", delivery.c.ordering_key, sqlite_where=text("entry_id IS NULL"))
Index(
    "delivery_unfinished",
    delivery.c.ordering_key,
    delivery.c.destination,
    delivery.c.id,
    delivery.c.state,
    sqlite_where=_UNFINISHED,
)
Index("delivery_held", delivery.c.id, sqlite_where=_HELD)
Index(
    "delivery_ready",
    delivery.c.destination,
    delivery.c.next_attempt_at,
    delivery.c.id,
    sqlite_where=_READY,
)

admission: Final = Table(  # what a rule said of a delivery that it keeps; of others there is no row
    "admission",
    metadata,
    Column("delivery_id", _AutoId, primary_key=True, autoincrement=False),
    Column("destination", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("not_before", BigInteger),  # none: withheld
    Column("said_at", BigInteger, nullable=False),
    Column("decision", Text),  # of a person on a withheld one
    Column("decided_at", BigInteger),
    Column("decided_by", Text),
    Column("released", Text),  # codes of rules that a person has set aside for it
    Column("mac", LargeBinary, nullable=False),  # see bound.py
    schema=CHARTS,
)
Index(
    "admission_withheld",
    admission.c.destination,
    admission.c.code,
    sqlite_where=text("not_before IS NULL AND decision IS NULL"),
)
Index("admission_put_off", admission.c.not_before, sqlite_where=admission.c.not_before.is_not(None))

notice: Final = Table(  # deliveries that are words to a person: whose they are, and what they hang on
    "notice",
    metadata,
    Column("delivery_id", _AutoId, primary_key=True, autoincrement=False),
    Column("chart_id", Text, nullable=False),  # the chart that it was planned on
    Column("ground", LargeBinary),  # keyed hash of what it hangs on; none: on the patient alone
    Column("gone", Text),  # why that is gone, as a code
    Column("gone_at", BigInteger),
    Column("gone_by", BigInteger),  # the entry that made it so
    # 1: what becomes of it is to be put into the journal, and is not yet; 2: that it is held is there, what a person
    # makes of that is not
    Column("awaits", SmallInteger, nullable=False),
    Column("mac", LargeBinary, nullable=False),  # see bound.py
    schema=CHARTS,
)
Index("notice_chart", notice.c.chart_id)
Index("notice_awaits", notice.c.delivery_id, sqlite_where=text("awaits > 0"))
Index("notice_gone", notice.c.gone_by, sqlite_where=notice.c.gone_by.is_not(None))

dead_letter: Final = Table(
    "dead_letter",
    metadata,
    Column("id", _AutoId, primary_key=True),
    Column("entry_id", BigInteger),  # none: of a delivery that no entry caused
    Column("channel", Text, nullable=False),
    Column("delivery_id", BigInteger),
    Column("stage", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("location", Text),
    Column("detail", Text, nullable=False),
    Column("died_at", BigInteger, nullable=False),
    Column("key_hash", LargeBinary),  # of the patient's key (see identifier), where it could be read
    Column("mac", LargeBinary, nullable=False),  # keyed hash of what it says; not of what became of it since
    Column("resolved_by", Text),
    Column("resolved_at", BigInteger),
    schema=CHARTS,
    sqlite_autoincrement=True,
)
Index("dead_letter_entry", dead_letter.c.entry_id)
Index("dead_letter_delivery", dead_letter.c.delivery_id, sqlite_where=text("delivery_id IS NOT NULL"))
Index(
    "dead_letter_key",
    dead_letter.c.key_hash,
    sqlite_where=dead_letter.c.key_hash.is_not(None),
)
Index(
    "dead_letter_open",
    dead_letter.c.id,
    sqlite_where=dead_letter.c.resolved_by.is_(None),
)

hold: Final = Table(
    "hold",
    metadata,
    Column("id", _AutoId, primary_key=True),
    Column("entry_id", BigInteger, nullable=False),  # that opened it
    Column("root_id", BigInteger, nullable=False),  # the first entry of the chain of replays
    Column("channel", Text, nullable=False),
    Column("chart_id", Text),  # as it was then: merges are followed by whoever reads it
    Column("code", Text, nullable=False),
    Column("location", Text, nullable=False),  # empty: none
    Column("detail", Text, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("waits_until", BigInteger),  # until then it may be answered by itself; none: it asks at once
    Column("state", Text, nullable=False),
    Column("decided_at", BigInteger),  # of an open one: its release is under way
    Column("decided_by", Text),
    Column("decision", LargeBinary),  # sealed: a person wrote it
    Column("answered_by", BigInteger),  # the entry that has ended it
    Column("document", LargeBinary, nullable=False),  # sealed: what it is about, and what it asserts
    Column("mac", LargeBinary, nullable=False),  # see bound.py
    schema=CHARTS,
    sqlite_autoincrement=True,
)
Index("hold_asked", hold.c.root_id, hold.c.code, hold.c.location, unique=True)
Index("hold_chart", hold.c.chart_id)
Index(
    "hold_open",
    hold.c.id,
    hold.c.code,
    hold.c.entry_id,
    hold.c.waits_until,
    sqlite_where=hold.c.state == text("'open'"),
)

quality: Final = Table(  # faults of feeds: one row for all messages of a channel with the same
    "quality",
    metadata,
    Column("id", _AutoId, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("example_entry", BigInteger, nullable=False),  # the last one: the oldest is swept first
    Column("state", Text, nullable=False),
    Column("decided_at", BigInteger),  # of an open one: it was done, and has happened again
    Column("decided_by", Text),
    Column("decision", LargeBinary),  # sealed: a person wrote it
    schema=CHARTS,
    sqlite_autoincrement=True,
)
Index("quality_fault", quality.c.channel, quality.c.kind, quality.c.detail, unique=True)

destination: Final = Table(  # how a destination stands; what waits for it stands in delivery
    "destination",
    metadata,
    Column("name", Text, primary_key=True),
    Column("since", BigInteger),  # when it began to fail, or to work again after it had failed
    Column("error", Text),  # why it fails; none: it works, as far as is known
    Column("detail", Text),
    Column("down", SmallInteger, nullable=False),  # 1: it can't be used; 0 with an error: it answers, and refuses
    Column("failures", Integer, nullable=False),  # in a row
    Column("next_attempt_at", BigInteger),
    Column("paused_at", BigInteger),
    Column("paused_until", BigInteger),
    Column("paused_by", Text),
    Column("retry_at", BigInteger),  # when a person last asked for an attempt at once
    Column("fed_by", Text),  # the channels that deliver to it, in order of name; none: not looked at yet
    Column("untold", BigInteger, nullable=False),  # patients of these channels that it was never told of, when counted
    schema=CHARTS,
)

audit: Final = Table(  # the trail: who did what; see audit.py. Triggers refuse every change (fence.py)
    "audit",
    metadata,
    Column("seq", _AutoId, primary_key=True, autoincrement=False),  # dense, from 1; given with the head locked
    Column("version", SmallInteger, nullable=False),  # of what goes into the mac
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("purpose", Text),
    Column("entry_id", BigInteger),  # the entry that did it: an act
    Column("payload_hash", LargeBinary),  # of what is sealed, salted; none: there is nothing more
    Column("prev", LargeBinary, nullable=False),  # the mac of the row before
    Column("mac", LargeBinary, nullable=False),
    Column("key_id", SmallInteger, nullable=False),  # which of the trail's keys
    schema=CHARTS,
)
Index("audit_action", audit.c.action, audit.c.seq)
Index("audit_entry", audit.c.entry_id, sqlite_where=audit.c.entry_id.is_not(None))
Index("audit_action_at", audit.c.action, audit.c.at)
audit_payload: Final = Table(
    "audit_payload",
    metadata,
    Column("seq", _AutoId, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),  # sealed: salt, reason, patients, where from, terms
    schema=CHARTS,
)
audit_patient: Final = Table(  # in which records a patient appears: an index of what is sealed
    "audit_patient",
    metadata,
    Column("chart_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    schema=CHARTS,
    sqlite_with_rowid=False,
)
Index("audit_patient_seq", audit_patient.c.seq)
audit_head: Final = Table(  # the last row, locked by whoever adds one
    "audit_head",
    metadata,
    Column("chain", Text, primary_key=True),  # its random name, given with the tables
    Column("seq", BigInteger, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    schema=CHARTS,
)
audit_purge: Final = Table(  # what the triggers let through; what was lawful is said by a record
    "audit_purge",
    metadata,
    Column("event", BigInteger, primary_key=True, autoincrement=False),  # that record
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("whole", SmallInteger, nullable=False),  # 1: the rows too; 0: their payloads
    schema=CHARTS,
)

account: Final = Table(  # people and services that may come in
    "account",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("document", LargeBinary, nullable=False),  # sealed, for its name and version
    schema=CHARTS,
)
ticket: Final = Table(  # tokens and sessions
    "ticket",
    metadata,
    Column("secret_hash", LargeBinary, primary_key=True),  # of its secret, which nobody keeps here
    Column("id", Text, nullable=False, unique=True),
    Column("account", Text, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False),  # sealed, for the other columns
    schema=CHARTS,
)
Index("ticket_account", ticket.c.account)
Index("ticket_ends", ticket.c.ends_at)
glass: Final = Table(  # glasses that were broken
    "glass",
    metadata,
    Column("id", Text, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("chart_id", Text, nullable=False),
    Column("begins_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("attested", SmallInteger, nullable=False),  # 1: somebody has said whether it was right
    Column("document", LargeBinary, nullable=False),  # sealed, for the other columns: a person wrote in it
    schema=CHARTS,
)
Index("glass_actor_ends", glass.c.actor, glass.c.ends_at)
Index("glass_begins", glass.c.begins_at)
Index("glass_unattested", glass.c.begins_at, sqlite_where=text("attested = 0"))
legal_hold: Final = Table(
    "legal_hold",
    metadata,
    Column("id", _AutoId, primary_key=True, autoincrement=False),  # given in the order of time
    Column("chart_id", Text, nullable=False),  # as it was then: merges are followed by whoever reads it
    Column("placed_at", BigInteger, nullable=False),
    Column("lifted_at", BigInteger),
    Column("document", LargeBinary, nullable=False),  # sealed: by whom, why
    schema=CHARTS,
)
Index("legal_hold_chart", legal_hold.c.chart_id)

config_version: Final = Table(
    "config_version",
    metadata,
    Column("version", Text, primary_key=True),
    Column("first_used_at", BigInteger, nullable=False),
    Column("files", LargeBinary, nullable=False),  # sealed JSON: path -> text
    schema=CHARTS,
)

config_load: Final = Table(
    "config_load",
    metadata,
    Column("load_id", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("who", Text, nullable=False),  # the operating system's user
    Column("by", Text, nullable=False),  # run or reload
    schema=CHARTS,
)

backup_made: Final = Table(  # what `status` says of the last one, and `evidence` of all
    "backup_made",
    metadata,
    Column("id", Text, primary_key=True),
    Column("as_of", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("depth", SmallInteger, nullable=False),  # backups that it rests on
    Column("rehearsed_at", BigInteger),
    Column("rehearsed_millis", BigInteger),
    Column("rehearsed_ok", SmallInteger),
    Column("folder", Text),  # where its erasure keys stand; with the node whose folder it is
    Column("node", Text),
    schema=CHARTS,
)
Index("backup_made_as_of", backup_made.c.as_of)

erasure_key: Final = Table(  # what is left of the tree of erasure keys (erasure.py); no backup holds it
    "erasure_key",
    metadata,
    Column("first", LargeBinary, primary_key=True),  # the lowest leaf below the node: 9 bytes
    Column("depth", SmallInteger, nullable=False),
    Column("tree", Text, nullable=False),  # its id
    Column("key", LargeBinary, nullable=False),  # sealed
    schema=CHARTS,
)
erasing: Final = Table(  # entries whose payloads are about to be erased, and their keys after that
    "erasing",
    metadata,
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, primary_key=True, autoincrement=False),
    schema=CHARTS,
)

restored: Final = Table(  # when the store was set back to an earlier point: see store/backup/mark.py
    "restored",
    metadata,
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("backup", Text, nullable=False),
    Column("as_of", BigInteger, nullable=False),
    Column("last_entry", BigInteger, nullable=False),  # that the backup has; later ones came after the restore
    schema=CHARTS,
)

# --- times -----------------------------------------------------------------------------------------------------------

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

to_micros: Final = moment.to_micros
"""An aware time as the tables keep it."""


def day_of(at: datetime) -> int:
    """Days since 1970, in UTC."""
    return (at - _EPOCH).days


@lru_cache(maxsize=1024)
def from_micros(micros: int) -> datetime:
    """A time as it was stored; 1970 for what can't be one, so that a cell that was altered stops nobody."""
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except (OverflowError, TypeError):
        return _EPOCH


def word(kind: type[E], stored: str, otherwise: E) -> E:
    """A word of a closed vocabulary; `otherwise` for one that is none, because the cell was altered."""
    found: E = _words(kind).get(stored, otherwise)
    return found


@cache
def _words(kind: type[E]) -> Mapping[str, E]:
    return {one.value: one for one in kind}
