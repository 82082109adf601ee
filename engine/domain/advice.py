"""What each code means to whoever is on call, and what to do: one table for the commands, the guide and its test.

A key that ends with `*` stands for all codes that begin so: what a destination said itself.
"""

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


ERRORS: Final[Mapping[str, Advice]] = {}


def advice_of(trouble: str) -> Advice:
    """Of a trouble as the daemon names it, with what it is about: `destination-down:crm`."""
    code, _, name = trouble.partition(":")
    found = TROUBLES.get(code) or Advice("this version has no text for it", "handoff status", "See the log.")
    return found._replace(first=found.first.replace("NAME", name)) if name else found


def remedy_of(error: str, detail: str = "") -> str:
    """What to do about a dead letter or a failing destination. detail: said where the code has no remedy of its own."""
    found = ERRORS.get(error)
    if found is None:
        found = next((one for code, one in ERRORS.items() if code[-1:] == "*" and error.startswith(code[:-1])), None)
    return found.remedy if found is not None else detail
