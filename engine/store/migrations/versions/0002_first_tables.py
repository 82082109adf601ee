"""The first tables of both sides. (Stores of 0001, from before the first release, can't be brought to it.)"""

from __future__ import annotations

import secrets
from typing import Any, Final

import sqlalchemy as sa
from alembic import context, op

from engine.store import fence

revision: str = "0002"
down_revision: str | None = None

JOURNAL: Final = "journal"
CHARTS: Final = "charts"
_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _only(condition: str) -> dict[str, Any]:
    """A partial index, on both databases."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    if context.config.attributes["side"] == JOURNAL:
        _journal()
    else:
        _charts()
        _deliveries()
        _appointments()
        _pages()
        _texts()
        _medications()
        _access()
        _backups()
        _trail()
        _holds_of_law()


def _journal() -> None:
    op.create_table(
        "entry",
        sa.Column("id", _ID, autoincrement=False, nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.SmallInteger(), nullable=False),
        sa.Column("ack", sa.Text(), nullable=True),
        sa.Column("ack_state", sa.Text(), nullable=False),
        sa.Column("wants_application_ack", sa.SmallInteger(), nullable=False),
        sa.Column("message_key", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("replay_of", sa.BigInteger(), nullable=True),
        sa.Column("replay_root", sa.BigInteger(), nullable=True),
        sa.Column("config_as_of", sa.Text(), nullable=True),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("flagged_duplicate_of", sa.BigInteger(), nullable=True),
        sa.Column("partition", sa.SmallInteger(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        schema=JOURNAL,
    )
    op.create_index("entry_channel", "entry", ["channel", "id", "partition"], schema=JOURNAL)
    op.create_index("entry_message_key", "entry", ["message_key"], schema=JOURNAL)
    op.create_index("entry_owed", "entry", ["id"], schema=JOURNAL, **_only("ack_state = 'owed'"))
    op.create_index("entry_refused", "entry", ["id"], schema=JOURNAL, **_only("refused = 1"))
    op.create_table(
        "link",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("sequence_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("channel"),
        schema=JOURNAL,
    )
    by_day = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "payload",
        sa.Column("entry_id", _ID, autoincrement=False, nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(*(("entry_id", "day") if by_day else ("entry_id",))),
        schema=JOURNAL,
        postgresql_partition_by="RANGE (day)",
    )
    if by_day:  # for days that nobody has prepared: nothing is ever refused for want of a partition
        op.execute("CREATE TABLE journal.payload_other PARTITION OF journal.payload DEFAULT")
    op.create_table(
        "repeat",
        sa.Column("id", _ID, autoincrement=False, nullable=False),
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("ack", sa.Text(), nullable=True),
        sa.Column("ack_state", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema=JOURNAL,
    )
    op.create_index("repeat_entry", "repeat", ["entry_id"], schema=JOURNAL)
    op.create_index("repeat_owed", "repeat", ["id"], schema=JOURNAL, **_only("ack_state = 'owed'"))
    op.create_table(
        "erased",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("channel"),
        schema=JOURNAL,
    )


def _charts() -> None:
    op.create_table(
        "admission",
        sa.Column("delivery_id", _ID, autoincrement=False, nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=True),
        sa.Column("said_at", sa.BigInteger(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("released", sa.Text(), nullable=True),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id"),
        schema=CHARTS,
    )
    op.create_index(
        "admission_withheld",
        "admission",
        ["destination", "code"],
        schema=CHARTS,
        **_only("not_before IS NULL AND decision IS NULL"),
    )
    op.create_index("admission_put_off", "admission", ["not_before"], schema=CHARTS, **_only("not_before IS NOT NULL"))
    op.create_table(
        "chart",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("merged_into", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("due_rank", sa.SmallInteger(), nullable=True),
        sa.Column("partition", sa.SmallInteger(), nullable=True),
        sa.Column("test", sa.SmallInteger(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
    )
    op.create_index(
        "chart_due", "chart", ["due_rank", "due_at", "partition"], schema=CHARTS, **_only("due_at IS NOT NULL")
    )
    op.create_index("chart_merged", "chart", ["merged_into"], schema=CHARTS, **_only("merged_into IS NOT NULL"))
    op.create_index("chart_test", "chart", ["id"], schema=CHARTS, **_only("test = 1"))
    op.create_index("chart_updated", "chart", ["updated_at"], schema=CHARTS)
    op.create_table(
        "config_load",
        sa.Column("load_id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("load_id"),
        schema=CHARTS,
    )
    op.create_table(
        "config_version",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("first_used_at", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("version"),
        schema=CHARTS,
    )
    op.create_table(
        "cursor",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("partition", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("channel", "partition"),
        schema=CHARTS,
    )
    op.create_table(
        "worker",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("backend_pid", sa.Integer(), nullable=False),
        sa.Column("backend_start", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
    )
    op.create_table(
        "dead_letter",
        sa.Column("id", _ID, nullable=False),
        sa.Column("entry_id", sa.BigInteger()),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.BigInteger(), nullable=True),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("died_at", sa.BigInteger(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=True),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.Column("resolved_by", sa.Text(), nullable=True),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
        sqlite_autoincrement=True,
    )
    op.create_index("dead_letter_entry", "dead_letter", ["entry_id"], schema=CHARTS)
    op.create_index(
        "dead_letter_delivery", "dead_letter", ["delivery_id"], schema=CHARTS, **_only("delivery_id IS NOT NULL")
    )
    op.create_index("dead_letter_key", "dead_letter", ["key_hash"], schema=CHARTS, **_only("key_hash IS NOT NULL"))
    op.create_index("dead_letter_open", "dead_letter", ["id"], schema=CHARTS, **_only("resolved_by IS NULL"))
    op.create_table(
        "delivery_payload",
        sa.Column("delivery_id", _ID, autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id"),
        schema=CHARTS,
    )
    op.create_table(
        "destination",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("down", sa.SmallInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=True),
        sa.Column("paused_at", sa.BigInteger(), nullable=True),
        sa.Column("paused_until", sa.BigInteger(), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=True),
        sa.Column("retry_at", sa.BigInteger(), nullable=True),
        sa.Column("fed_by", sa.Text(), nullable=True),
        sa.Column("untold", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        schema=CHARTS,
    )
    op.create_table(
        "encounter",
        sa.Column("encounter_hash", sa.LargeBinary(), nullable=False),
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("encounter_hash"),
        schema=CHARTS,
    )
    op.create_index("encounter_chart", "encounter", ["chart_id"], schema=CHARTS)
    op.create_table(
        "hold",
        sa.Column("id", _ID, nullable=False),
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.Column("root_id", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("chart_id", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("waits_until", sa.BigInteger()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decision", sa.LargeBinary(), nullable=True),
        sa.Column("answered_by", sa.BigInteger(), nullable=True),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
        sqlite_autoincrement=True,
    )
    op.create_index("hold_asked", "hold", ["root_id", "code", "location"], unique=True, schema=CHARTS)
    op.create_index("hold_chart", "hold", ["chart_id"], schema=CHARTS)
    op.create_index(
        "hold_open", "hold", ["id", "code", "entry_id", "waits_until"], schema=CHARTS, **_only("state = 'open'")
    )
    op.create_table(
        "identifier",
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("identity_hash", sa.LargeBinary(), nullable=False),
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key_hash", "identity_hash"),
        schema=CHARTS,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "notice",
        sa.Column("delivery_id", _ID, autoincrement=False, nullable=False),
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("ground", sa.LargeBinary(), nullable=True),
        sa.Column("gone", sa.Text(), nullable=True),
        sa.Column("gone_at", sa.BigInteger(), nullable=True),
        sa.Column("gone_by", sa.BigInteger(), nullable=True),
        sa.Column("awaits", sa.SmallInteger(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id"),
        schema=CHARTS,
    )
    op.create_index("notice_awaits", "notice", ["delivery_id"], schema=CHARTS, **_only("awaits > 0"))
    op.create_index("notice_chart", "notice", ["chart_id"], schema=CHARTS)
    op.create_index("notice_gone", "notice", ["gone_by"], schema=CHARTS, **_only("gone_by IS NOT NULL"))
    op.create_index("identifier_chart", "identifier", ["chart_id"], schema=CHARTS)
    op.create_table(
        "concerned",
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("entry_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("chart_id", "entry_id"),
        schema=CHARTS,
        sqlite_with_rowid=False,
    )
    op.create_index("concerned_entry", "concerned", ["entry_id"], schema=CHARTS)
    op.create_table(
        "outcome",
        sa.Column("entry_id", _ID, autoincrement=False, nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("chart_id", sa.Text(), nullable=True),
        sa.Column("application_ack", sa.Text(), nullable=False),
        sa.Column("error_code", sa.Integer(), nullable=False),
        sa.Column("config_version", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("test", sa.SmallInteger(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("entry_id"),
        schema=CHARTS,
    )
    op.create_index("outcome_chart", "outcome", ["chart_id", "entry_id"], schema=CHARTS)
    op.create_index("outcome_test", "outcome", ["entry_id"], schema=CHARTS, **_only("test = 1"))
    op.create_index("outcome_state", "outcome", ["state", "entry_id", "channel"], schema=CHARTS)
    op.create_table(
        "quality",
        sa.Column("id", _ID, nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("example_entry", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decision", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
        sqlite_autoincrement=True,
    )
    op.create_index("quality_fault", "quality", ["channel", "kind", "detail"], unique=True, schema=CHARTS)
    op.create_table(
        "score",
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("encounter_hash", sa.LargeBinary(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chart_id", "encounter_hash", "model"),
        schema=CHARTS,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "closed",
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chart_id"),
        schema=CHARTS,
    )
    op.create_table(
        "task",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("assignee_hash", sa.LargeBinary(), nullable=True),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
    )
    op.create_index("task_chart", "task", ["chart_id"], schema=CHARTS)
    op.create_index("task_state_due", "task", ["state", "due_at", "id"], schema=CHARTS)


def _deliveries() -> None:
    op.create_table(
        "delivery",
        sa.Column("id", _ID, autoincrement=False, nullable=False),
        sa.Column("entry_id", sa.BigInteger()),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("ordering_key", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("turn", sa.SmallInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("marked", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("disclosed", sa.Text(), nullable=True),
        sa.Column("life", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
    )
    op.create_index("delivery_entry", "delivery", ["entry_id"], schema=CHARTS)
    op.create_index("delivery_without_entry", "delivery", ["ordering_key"], schema=CHARTS, **_only("entry_id IS NULL"))
    op.create_index("delivery_held", "delivery", ["id"], schema=CHARTS, **_only("state = 'held'"))
    op.create_index("delivery_idempotency", "delivery", ["idempotency_key"], unique=True, schema=CHARTS)
    op.create_index(
        "delivery_ready",
        "delivery",
        ["destination", "next_attempt_at", "id"],
        schema=CHARTS,
        **_only("state = 'pending' AND turn = 1"),
    )
    op.create_index(
        "delivery_unfinished",
        "delivery",
        ["ordering_key", "destination", "id", "state"],
        schema=CHARTS,
        **_only("state IN ('pending', 'held')"),
    )
    op.create_table(
        "delivery_receipt",
        sa.Column("delivery_id", _ID, autoincrement=False, nullable=False),
        sa.Column("found_by", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id"),
        schema=CHARTS,
    )
    op.create_index("delivery_receipt_found", "delivery_receipt", ["found_by"], schema=CHARTS)
    op.create_table(
        "settlement",
        sa.Column("id", _ID, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
    )


def _appointments() -> None:
    op.create_table(
        "appointment",
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=True),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chart_id", "id"),
        schema=CHARTS,
        sqlite_with_rowid=False,
    )
    op.create_index("appointment_status_starts", "appointment", ["status", "starts_at"], schema=CHARTS)
    op.create_index("appointment_starts", "appointment", ["starts_at"], schema=CHARTS)


def _pages() -> None:
    op.create_table(
        "oncall_override",
        sa.Column("entry_id", _ID, autoincrement=False, nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("entry_id"),
        schema=CHARTS,
    )
    op.create_index("oncall_override_ends", "oncall_override", ["ends_at"], schema=CHARTS)
    op.create_table(
        "page",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("raised_at", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
    )
    op.create_index("page_chart", "page", ["chart_id"], schema=CHARTS)
    op.create_index("page_state_raised", "page", ["state", "raised_at"], schema=CHARTS)


def _texts() -> None:
    op.create_table(
        "patient_text",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("planned_for", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
    )
    op.create_index("patient_text_chart", "patient_text", ["chart_id"], schema=CHARTS)
    op.create_index("patient_text_state_planned", "patient_text", ["state", "planned_for"], schema=CHARTS)
    op.create_table(
        "contact_number",
        sa.Column("found_by", sa.LargeBinary(), nullable=False),
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("found_by", "chart_id"),
        schema=CHARTS,
        sqlite_with_rowid=False,
    )
    op.create_index("contact_number_chart", "contact_number", ["chart_id"], schema=CHARTS)


def _medications() -> None:
    op.create_table(
        "medication",
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chart_id", "key_hash"),
        schema=CHARTS,
        sqlite_with_rowid=False,
    )


def _backups() -> None:
    op.create_table(
        "backup_made",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("depth", sa.SmallInteger(), nullable=False),
        sa.Column("rehearsed_at", sa.BigInteger(), nullable=True),
        sa.Column("rehearsed_millis", sa.BigInteger(), nullable=True),
        sa.Column("rehearsed_ok", sa.SmallInteger(), nullable=True),
        sa.Column("folder", sa.Text(), nullable=True),
        sa.Column("node", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
    )
    op.create_index("backup_made_as_of", "backup_made", ["as_of"], schema=CHARTS)
    op.create_table(
        "erasure_key",
        sa.Column("first", sa.LargeBinary(), nullable=False),
        sa.Column("depth", sa.SmallInteger(), nullable=False),
        sa.Column("tree", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("first"),
        schema=CHARTS,
    )
    op.create_table(
        "erasing",
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("first", "last"),
        schema=CHARTS,
    )
    op.create_table(
        "restored",
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("backup", sa.Text(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("last_entry", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("at"),
        schema=CHARTS,
    )


def _trail() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", _ID, autoincrement=False, nullable=False),
        sa.Column("version", sa.SmallInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=True),
        sa.Column("entry_id", sa.BigInteger(), nullable=True),
        sa.Column("payload_hash", sa.LargeBinary(), nullable=True),
        sa.Column("prev", sa.LargeBinary(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        schema=CHARTS,
    )
    op.create_index("audit_action", "audit", ["action", "seq"], schema=CHARTS)
    op.create_index("audit_entry", "audit", ["entry_id"], schema=CHARTS, **_only("entry_id IS NOT NULL"))
    op.create_index("audit_action_at", "audit", ["action", "at"], schema=CHARTS)
    op.create_table(
        "audit_payload",
        sa.Column("seq", _ID, autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        schema=CHARTS,
    )
    op.create_table(
        "audit_patient",
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("chart_id", "seq"),
        schema=CHARTS,
        sqlite_with_rowid=False,
    )
    op.create_index("audit_patient_seq", "audit_patient", ["seq"], schema=CHARTS)
    head = op.create_table(
        "audit_head",
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain"),
        schema=CHARTS,
    )
    op.bulk_insert(head, [{"chain": secrets.token_hex(16), "seq": 0, "mac": b""}])
    op.create_table(
        "audit_purge",
        sa.Column("event", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("whole", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event", "first"),
        schema=CHARTS,
    )
    for statement in fence.statements(op.get_bind().dialect.name, context.config.attributes["schema"]):
        op.execute(sa.text(statement.replace(":", r"\:")))


def _access() -> None:
    op.create_table(
        "account",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        schema=CHARTS,
    )
    op.create_table(
        "ticket",
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("secret_hash"),
        sa.UniqueConstraint("id"),
        schema=CHARTS,
    )
    op.create_index("ticket_account", "ticket", ["account"], schema=CHARTS)
    op.create_index("ticket_ends", "ticket", ["ends_at"], schema=CHARTS)
    op.create_table(
        "glass",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("begins_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("attested", sa.SmallInteger(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
    )
    op.create_index("glass_actor_ends", "glass", ["actor", "ends_at"], schema=CHARTS)
    op.create_index("glass_begins", "glass", ["begins_at"], schema=CHARTS)
    op.create_index("glass_unattested", "glass", ["begins_at"], schema=CHARTS, **_only("attested = 0"))


def _holds_of_law() -> None:
    op.create_table(
        "legal_hold",
        sa.Column("id", _ID, autoincrement=False, nullable=False),
        sa.Column("chart_id", sa.Text(), nullable=False),
        sa.Column("placed_at", sa.BigInteger(), nullable=False),
        sa.Column("lifted_at", sa.BigInteger(), nullable=True),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema=CHARTS,
    )
    op.create_index("legal_hold_chart", "legal_hold", ["chart_id"], schema=CHARTS)
