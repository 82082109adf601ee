"""What each code means to whoever is on call, and what to do: one table for the commands, the guide and its test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Advice(NamedTuple):
    """meaning: one clause. first: the command that shows more. remedy: what to do, in one sentence.

    urgent: of a trouble: a person has to see to it now, `handoff status` exits 1.
    """

    meaning: str
    first: str
    remedy: str
    urgent: bool = True


TROUBLES: Final[Mapping[str, Advice]] = {
    "not-running": Advice(
        "the daemon does not run; senders get no connection",
        "systemctl status handoff",
        "Start it (`systemctl start handoff`); its log says why it stopped.",
    ),
    "store-not-writable": Advice(
        "messages can't be stored; senders are told to send again",
        "df -h",
        "Make room on the store's disk or bring the database back; the log names the error.",
    ),
    "disk-almost-full": Advice(
        "the store's disk has next to no room left",
        "df -h",
        "Make room on it, at least 64 MiB; move backups and old outbox files first.",
    ),
    "node-name-taken": Advice(
        "another daemon on this store has this node's name",
        "handoff status",
        "Give each daemon its own `node` in config.yaml and restart both.",
    ),
    "worker-keeps-dying": Advice(
        "a worker dies again and again; what is stored is not worked on",
        "journalctl -u handoff -g worker",
        "The log says how it died; with no memory left lower `workers`, else report it.",
    ),
    "worker-not-ready": Advice(
        "a worker does not begin its work",
        "journalctl -u handoff -g worker",
        "The log says what it waits for, mostly the store; restart the daemon once that is right.",
    ),
    "worker-silent": Advice(
        "a worker hangs; it is killed and started again after 30 s",
        "journalctl -u handoff -g worker",
        "Wait a minute; when it comes back, the store's disk is too slow or the machine out of memory.",
    ),
    "console-down": Advice(
        "the process that serves log-ins and the API does not run; messages are taken and worked on as ever",
        "journalctl -u handoff -g worker=console",
        "It is started again by itself; when it dies again and again, the log says how.",
    ),
    "message-repeated": Advice(
        "a sender sends the same message again and again: it does not understand our answers, or asks for none",
        "handoff messages list --channel NAME",
        "Set the channel's `ack` as docs/guides/beside-mirth.md says, or ask who runs the sender.",
    ),
    "service-failing": Advice(
        "a part of a worker failed lately and was started again",
        "journalctl -u handoff -g 'service failed'",
        "Nothing is lost; the log names part and error. When it lasts, report it.",
    ),
    "reload-refused": Advice(
        "the last reload was refused; the configuration before it is in force",
        "handoff check",
        "Mend the problems it names and `handoff reload`.",
        urgent=False,
    ),
    "configuration-broken": Advice(
        "the files on disk can't be loaded; the daemon would not start with them",
        "handoff check",
        "Mend the problems it names before the next restart.",
        urgent=False,
    ),
    "destination-down": Advice(
        "a destination takes nothing; its deliveries wait, none is lost",
        "handoff destinations show NAME",
        "The error says why; once the destination is back all goes out by itself (`handoff destinations retry NAME`).",
    ),
    "destination-paused": Advice(
        "a destination was paused by a person; its deliveries wait",
        "handoff destinations show NAME",
        "`handoff destinations resume NAME` once the reason for the pause is gone.",
        urgent=False,
    ),
    "destination-unknown": Advice(
        "deliveries wait for a destination that the configuration does not have any more",
        "handoff destinations list",
        "Put it back into config.yaml, or give its deliveries up.",
    ),
    "deliveries-held": Advice(
        "nobody knows whether these deliveries arrived; what comes after them for the same patient waits",
        "handoff held list",
        "Look at the destination, then `handoff held release`, `confirm` or `bury`.",
    ),
    "store-restored": Advice(
        "the store was set back to a backup; what may have been sent since is held, and nobody has decided on it",
        "handoff held list",
        "Ask senders to send again, then `handoff held confirm` what arrived and `release` what did not; calls first.",
    ),
    "backup-old": Advice(
        "the last backup is older than `backup.hours_max` allows, or there is none",
        "systemctl list-timers",
        "`handoff backup FOLDER` by hand says why the timer's failed; docs/guides/backup.md.",
    ),
    "messages-held": Advice(
        "messages whose meaning is in doubt wait for a person",
        "handoff held list",
        "Read why with `handoff held show ID`, then `handoff held release` or `dismiss`.",
    ),
    "dead-letters": Advice(
        "messages or deliveries failed and wait for a person; each may be a patient without follow-up",
        "handoff dead list",
        "Put the cause right and `handoff dead replay`, or `discard` with a reason.",
    ),
    "processing-behind": Advice(
        "messages wait for processing for longer than 5 minutes",
        "handoff status",
        "Workers must be up; with a long backlog it falls by itself, else see the log for errors of the store.",
    ),
    "deadlines-behind": Advice(
        "deadlines have come and did not ring for longer than a minute; calls and escalations are late",
        "handoff status",
        "Workers must be up; after a long stop it falls by itself, else see the log for errors of the store.",
    ),
    "pages-unanswered": Advice(
        "nobody on the ladder has acknowledged a page; the house supervisor was told, and a task is open",
        "handoff pages list --state exhausted",
        "See to the patients, and acknowledge (`handoff pages ack ID`); `handoff pages show ID` says who was called.",
        urgent=False,
    ),
    "oncall-gap": Advice(
        "nobody would be called at some time of the next 14 days",
        "handoff oncall check",
        "Fill the roster in mappings/oncall/ and `handoff reload`, or `handoff oncall override`.",
        urgent=False,
    ),
    "access-unusual": Advice(
        "somebody has looked at patients, nothing explains why, and the rules put it above the line",
        "handoff audit unusual",
        "Ask who did it, and say what was found: `handoff audit review ID --right` or `--wrong`.",
        urgent=False,
    ),
    "glass-broken": Advice(
        "somebody has broken the glass to look at a patient who is none of theirs, and nobody has attested it",
        "handoff audit glasses --open",
        "Ask who did it, and say what was found: `handoff audit attest ID --right` or `--wrong`.",
        urgent=False,
    ),
    "breach-due": Advice(
        "somebody has to be told of a breach of patient data within 14 days",
        "handoff breach show NAME",
        "Tell them, and say so: `handoff breach notified`; or assess it, when that was not done.",
        urgent=False,
    ),
    "breach-overdue": Advice(
        "somebody had to be told of a breach of patient data, and nobody has said that they were",
        "handoff breach show NAME",
        "Tell them today, say so (`handoff breach notified`), and write down why it was late.",
    ),
    "trail-broken": Advice(
        "the audit trail is not as it was written, or does not take records: somebody has altered the database",
        "handoff audit verify",
        "Keep a copy of the database as it is, and find out who could write to it; docs/guides/audit.md says more.",
    ),
    "trail-rolled-back": Advice(
        "the audit trail ends before what a checkpoint has seen: it was cut off, or the store was set back",
        "handoff audit verify",
        "After a restore that was meant: `handoff audit reseal --reason TEXT`. Else as for `trail-broken`.",
    ),
    "trail-checkpoint-failed": Advice(
        "a checkpoint of the audit trail could not be written to one of its places",
        "handoff audit checkpoint",
        "Put right what the detail names (the folder, the network, the receiver); the next one follows by itself.",
    ),
    "trail-silent": Advice(
        "no checkpoint of the audit trail was made for a quarter of an hour",
        "handoff audit checkpoint",
        "See the other troubles of the trail and of the store; the log names the error.",
    ),
    "trail-unrecorded": Advice(
        "people have worked, and the audit trail is silent about it",
        "handoff audit verify",
        "Somebody, or something, takes records away: keep a copy of the database as it is, and see"
        " docs/guides/audit.md.",
    ),
    "trail-unwatched": Advice(
        "the audit trail has no place for checkpoints: nobody would notice that its end was cut off",
        "handoff check",
        "Name one under `trail.checkpoints` of config.yaml, best on another host.",
        urgent=False,
    ),
    "deliveries-failing": Advice(
        "ten or more deliveries to a destination have failed for good, and nobody has decided on them",
        "handoff dead summary",
        "The detail says how many: what they have in common is wrong at the destination or in its mapping. Mend that,"
        " then `handoff dead replay`.",
    ),
    "deliveries-behind": Advice(
        "deliveries wait at a destination for longer than 15 minutes, though it is up",
        "handoff destinations show NAME",
        "See its error and its rate; a slow destination may need larger batches (`batch_max`).",
    ),
    "certificate-expires": Advice(
        "a certificate ends within 14 days or has ended; after that no peer connects",
        "handoff status",
        "Put the new certificate and key in its place and `handoff reload`.",
    ),
}
"""Codes of `trouble`; what a code is about follows a colon (`destination-down:crm`)."""


def _error(code: str, meaning: str, remedy: str) -> Advice:
    return Advice(meaning, f"handoff dead list --error {code} --each", remedy)


ERRORS: Final[Mapping[str, Advice]] = {
    "frame-too-long": _error(
        "frame-too-long",
        "a frame is longer than the channel takes",
        "Raise `listen.frame_bytes_max` if such messages are meant; have it sent again.",
    ),
    "batch-too-long": _error(
        "batch-too-long",
        "a batch holds more messages than the channel takes",
        "Raise `listen.batch_messages_max`, or have smaller batches sent.",
    ),
    "header-missing": _error(
        "header-missing",
        "the message does not begin with MSH",
        "Ask the sender what it sends; nothing can be done with it here.",
    ),
    "several-headers": _error(
        "several-headers",
        "one payload holds several messages",
        "Have the sender put each message into a frame of its own.",
    ),
    "field-separator": _error("field-separator", "MSH-1 is no field separator", "The sender must mend MSH."),
    "encoding-characters": _error(
        "encoding-characters", "MSH-2 can't be used", "The sender must mend MSH-2 (`^~\\&`)."
    ),
    "message-type-missing": _error("message-type-missing", "MSH-9 is empty", "The sender must fill MSH-9."),
    "control-id-missing": _error(
        "control-id-missing", "MSH-10 is empty", "The sender must fill MSH-10: answers name it."
    ),
    "ack-code-unknown": _error(
        "ack-code-unknown",
        "an acknowledgment has a code that HL7 does not know",
        "Ask the sender of the acknowledgment.",
    ),
    "event-missing": _error("event-missing", "an ADT message names no event", "The sender must fill MSH-9.2 or EVN-1."),
    "type-not-accepted": _error(
        "type-not-accepted",
        "the channel does not take this message type",
        "Add it to `accept.types` if it is meant for us, else have it not sent; then discard.",
    ),
    "event-not-accepted": _error(
        "event-not-accepted",
        "the channel does not take this event",
        "Add it to `accept.types` if it is meant for us, else discard.",
    ),
    "version-not-accepted": _error(
        "version-not-accepted",
        "the channel does not take this HL7 version",
        "Add it to `accept.versions`, reload and replay.",
    ),
    "processing-id-not-accepted": _error(
        "processing-id-not-accepted",
        "MSH-11 is not one that the channel takes: a test message?",
        "Discard it; if tests are meant add `T` to `accept.processing_ids`.",
    ),
    "charset-not-accepted": _error(
        "charset-not-accepted",
        "the message is in a character set that MLLP can't carry or we can't read",
        "Have the sender use UTF-8 or the declared set.",
    ),
    "frame-cut": _error(
        "frame-cut",
        "the bytes 1C 0D inside of a message ended its frame: only its first part is here, and was refused",
        "Have the sender leave these bytes out of texts and send it again; its rest is the `frame-rest` after it.",
    ),
    "frame-rest": _error(
        "frame-rest",
        "what came behind the end of a frame: the rest of the message of the same control id, before this one",
        "Look whether that message was taken without its rest (`handoff messages show`); have it sent again, whole.",
    ),
    "sequence-number-missing": _error(
        "sequence-number-missing",
        "the channel speaks the sequence number protocol and MSH-13 is empty",
        "The sender must send MSH-13, or take `sequence_numbers` away.",
    ),
    "sequence-number-low": _error(
        "sequence-number-low",
        "a message comes again that was sent before, by its sequence number",
        "The sender must resynchronise (MSH-13 = 0 or -1).",
    ),
    "sequence-number-high": _error(
        "sequence-number-high", "a message is missing before this one", "The sender must send it, or resynchronise."
    ),
    "duplicate-conflict": _error(
        "duplicate-conflict",
        "two different messages have one control id",
        "Ask the sender: one of them may be lost on its side (`handoff messages list --flagged`).",
    ),
    "too-many-connections": _error(
        "too-many-connections",
        "the channel has all the connections that it may have",
        "`handoff connections`; raise `listen.connections_max` or have old ones closed.",
    ),
    "store-unavailable": _error(
        "store-unavailable", "the message could not be stored; the sender sends it again", "See `store-not-writable`."
    ),
    "not-processed-yet": _error(
        "not-processed-yet",
        "the sender waited for the outcome, and it did not come in time",
        "Nothing is lost: see `processing-behind`.",
    ),
    "internal": _error(
        "internal", "a defect of the engine", "Report the lines of the log at that time; replay after the update."
    ),
    "mapping": _error(
        "mapping",
        "a rule of the mapping could not be applied",
        "Mend the rule that the detail names, reload, `handoff dead replay --error mapping`.",
    ),
    "channel-unknown": _error(
        "channel-unknown",
        "the channel was taken away before its messages were processed",
        "Put it back, reload, replay; or discard.",
    ),
    "entry-damaged": _error(
        "entry-damaged",
        "what is stored of the message can't be read any more",
        "Have the sender send it again; look for a failing disk.",
    ),
    "act-unreadable": _error(
        "act-unreadable",
        "what a person did was written by another version of the engine",
        "Do it again with this version; then discard the dead letter with a reason.",
    ),
    "chart-damaged": _error(
        "chart-damaged",
        "rows of the store were altered, moved or are missing for this patient",
        "Tell whoever keeps the database; restore from a backup; see docs/guarantees.md.",
    ),
    "pid-missing": _error(
        "pid-missing", "there is no PID segment", "The sender must send PID; nothing can be done with it here."
    ),
    "identifier-missing": _error(
        "identifier-missing",
        "PID-3 names no patient by an authority that we know",
        "See PID-3 (`handoff dead show ID --reveal --reason TEXT`); mend `identity` or have the sender mend it.",
    ),
    "identifier-type": _error(
        "identifier-type",
        "an identifier is of a type that can't name a patient",
        "Mend `identity` of the channel, or have the sender mend PID-3.5; replay.",
    ),
    "segment-repeated": _error(
        "segment-repeated",
        "a segment stands twice where the structure has one",
        "Ask the sender which is right; have it sent again.",
    ),
    "encounter-ambiguous": _error(
        "encounter-ambiguous",
        "the message means a stay, and several of the patient could be it",
        "Have the sender give the visit number (PV1-19); replay after the chart is right.",
    ),
    "visit-of-another-patient": _error(
        "visit-of-another-patient",
        "its visit number belongs to another patient",
        "The wrong patient must not be touched: ask the sender who it is; merge or mend there, then replay.",
    ),
    "merge-empty": _error("merge-empty", "a merge names nobody to be merged", "The sender must fill MRG-1."),
    "merge-pairing": _error(
        "merge-pairing",
        "which identities a merge means can't be told",
        "Ask the sender; have it sent again with one pair.",
    ),
    "merge-positions": _error(
        "merge-positions",
        "the parts of a merge stand in an order that can't be read",
        "Ask the sender; have it sent again.",
    ),
    "merge-structure": _error(
        "merge-structure", "a merge has not the segments that it needs", "The sender must send PID and MRG in pairs."
    ),
    "merge-with-itself": _error(
        "merge-with-itself", "a merge names one patient twice", "Nothing to merge: discard it."
    ),
    "merge-contradiction": _error(
        "merge-contradiction",
        "a merge contradicts one that was done before",
        "Ask which is right; mend it at the source, then replay.",
    ),
    "buried": _error(
        "buried", "a person gave this delivery up", "Replay it if it is to go out after all, else discard it."
    ),
    "destination-discarded": _error(
        "destination-discarded", "what waited for a destination that is gone was given up", "Nothing to do."
    ),
    "framing-bytes": _error(
        "framing-bytes",
        "the message holds bytes that end an MLLP frame",
        "It can't be forwarded: tell the receiver by other means, discard.",
    ),
    "header-unreadable": _error(
        "header-unreadable", "the message to be forwarded has no header that can be read", "Discard it."
    ),
    "operation-unknown": _error(
        "operation-unknown",
        "the destination does not know what is to be done",
        "`deliver.what` of the channel names something that its type can't take.",
    ),
    "payload-unreadable": _error(
        "payload-unreadable", "the payload is no JSON that can be read", "Report it; replay makes it anew."
    ),
    "key-unsafe": _error(
        "key-unsafe", "a key holds characters that the org's address can't carry", "See the mapping of the destination."
    ),
    "not-mapped": _error(
        "not-mapped",
        "the destination's mapping has nothing for this",
        "Add it to mappings/destinations, reload, replay.",
    ),
    "session-ended": _error("session-ended", "the org ended the session", "Nothing: it is logged in to again."),
    "filter-budget": _error(
        "filter-budget",
        "the channel's filter took too long for this message",
        "Simplify `filter` of the channel; replay.",
    ),
    "identifiers-too-many": _error(
        "identifiers-too-many",
        "the message goes beyond a limit of the channel",
        "Raise the limit that the detail names, if such messages are meant; reload and replay.",
    ),
    "items-too-many": _error(
        "items-too-many",
        "the message goes beyond a limit of the channel",
        "Raise the limit that the detail names, if such messages are meant; reload and replay.",
    ),
    "repetitions-too-many": _error(
        "repetitions-too-many",
        "the message goes beyond a limit of the channel",
        "Raise the limit that the detail names, if such messages are meant; reload and replay.",
    ),
    "results-too-many": _error(
        "results-too-many",
        "one message (ORU) holds more results than are read at once",
        "Have the sender split it; what it says closes no task until then.",
    ),
    "orders-too-many": _error(
        "orders-too-many",
        "one message (RDE, RDS) holds more prescriptions than are read at once",
        "Have the sender split it; none of them is on a list until then.",
    ),
    "order-missing": _error(
        "order-missing",
        "a message of a pharmacy has no order (ORC)",
        "Have the sender put an ORC before each prescription, and send it again; replay.",
    ),
    "order-number-missing": _error(
        "order-number-missing",
        "a prescription has no number (ORC-3, ORC-2)",
        "Have the sender fill ORC-3: without it a change or a stop can't be told from a new one.",
    ),
    "medication-missing": _error(
        "medication-missing",
        "a prescription names no medicine (RXE-2, RXO-1, RXD-2)",
        "Have the sender fill it with a code or with words; replay.",
    ),
    "segments-too-many": _error(
        "segments-too-many",
        "the message has more segments than the channel takes",
        "Raise the limit of the channel if it is meant; replay.",
    ),
    "links-too-many": _error(
        "links-too-many",
        "a link (A24) would give the patient more links than there can be",
        "Something is wrong with the numbers: ask the sender what it links; have wrong links ended (A37), then replay.",
    ),
    "renumbered-too-often": _error(
        "renumbered-too-often",
        "more numbers of the patient would have become others than there can be",
        "Something is wrong with the numbers: ask the sender which are right, and mend the patient there.",
    ),
    "appointment-number-missing": _error(
        "appointment-number-missing",
        "the appointment has no number where the channel's map looks for one",
        "Name in `id` of the map in mappings/appointments where it stands, reload, replay; or the sender fills SCH-2.",
    ),
}
"""Codes of refusals and dead letters; those of destinations are in `engine.connectors.remedies`."""


def advice_of(trouble: str) -> Advice:
    """Of a trouble as the daemon names it, with what it is about: `destination-down:crm`."""
    code, _, name = trouble.partition(":")
    found = TROUBLES.get(code) or Advice("this version has no text for it", "handoff status", "See the log.")
    return found._replace(first=found.first.replace("NAME", name)) if name else found


def remedy_of(error: str, detail: str = "") -> str:
    """What to do about a dead letter or a failing destination. detail: said where the code has no remedy of its own."""
    found = ERRORS.get(error)
    return found.remedy if found is not None else detail
