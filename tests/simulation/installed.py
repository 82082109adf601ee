"""What the simulated hospital has installed: one configuration, compiled once for all runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path

from simulation.database import Disk

from engine.connectors.registry import load
from engine.domain.delivery import QueuedDelivery
from engine.pipeline.admit import GO, Admission, Known, Never, NotBefore, Rule
from engine.pipeline.channel import CompiledConfiguration
from engine.runtime.configurations import compile_site
from engine.settings import Configuration
from engine.snapshot import Snapshot

ROOT = Path(__file__).parents[2]

CRM, LAB, COPY = "crm", "lab", "copy"
"""Takes a delivery twice without acting twice; does not; takes what crm takes."""

_SITE = """
node: simulated
destinations:
  crm: {type: file, path: nowhere, batch_max: 8, timeout_seconds: 3, retry: RETRY}
  lab: {type: mllp, host: nowhere, port: 1, timeout_seconds: 3, retry: RETRY}
  copy: {type: file, path: elsewhere, batch_max: 8, timeout_seconds: 3, retry: RETRY}
shutdown_seconds_max: 10
""".replace(
    "RETRY", "{first_seconds: 0.2, seconds_max: 2, attempts_max: 1000000, breaker_failures: 3, breaker_seconds: 5}"
)

_CHANNEL = """
name: NAME
listen: {port: PORT}
timezone: UTC
ack: {when: WHEN, processed_seconds_max: 4}
identity: {authority: MRN}
mapping: adt
risk: [lace]
protocol: post-discharge
deliver:
  - {to: crm, what: [patient, encounter, task]}
  - {to: lab, what: [message]}
  - {to: copy, what: [patient, encounter, task]}
"""

_PAGE = """
      - {kind: on_call_page, page: on-call, due: {minutes: 5}, late: {minutes: 5}, assignee: on_call, reason: Call them}
"""
_EDITS = {
    "mappings/protocols/post-discharge.yaml": (
        ("page_fresh: {hours: 12}", "page_fresh: {days: 90}"),
        ("# discharge_age_days_max: 30", "discharge_age_days_max: unlimited"),
        ("\n    low:\n", f"\n    low:{_PAGE}"),
    ),
    "mappings/oncall/on-call.yaml": (("example: true", "# "), ("to: files", f"to: {CRM}")),
}
"""What a site would change of what is shipped: every discharge here calls somebody, as all are of a low risk."""

WITHHELD = "no-consent"


def is_withheld(destination: str, key: str) -> bool:
    """Whether the rules of a destination never let a delivery go, by its idempotency key."""
    return destination == LAB and int(key[-2:], 16) % 8 == 3


def _may_go(destination: str, queued: QueuedDelivery, _known: Known, now: datetime) -> Admission:
    key = queued.delivery.idempotency_key
    if is_withheld(destination, key):
        return Never(code=WITHHELD)
    quiet = int(now.timestamp()) % 2 == 0 and destination != COPY and int(key[-2:], 16) % 8 == 5
    return NotBefore(at=now.replace(microsecond=0) + timedelta(seconds=1), code="quiet-hours") if quiet else GO


def rules(destination: str) -> Sequence[Rule]:
    return (Rule(partial(_may_go, destination)),)


CHANNELS = {"prompt": "stored", "late": "processed"}
"""Channels, and when each answers."""


@cache
def configuration() -> Configuration:
    files = {"config.yaml": _SITE}
    for port, (name, when) in enumerate(CHANNELS.items(), start=2):
        text = _CHANNEL.replace("NAME", name).replace("WHEN", when).replace("PORT", str(port))
        files[f"channels/{name}.yaml"] = text
    for path in sorted((ROOT / "mappings").rglob("*.yaml")):
        if not path.name.endswith(".test.yaml"):
            name = path.relative_to(ROOT).as_posix()
            text = path.read_text(encoding="utf-8")
            for shipped, wanted in _EDITS.get(name, ()):
                assert shipped in text, f"{name} says no more {shipped}"
                text = text.replace(shipped, wanted)
            files[name] = text
    return load(Snapshot(ROOT, "config.yaml", files))


@cache
def compiled(disk: Disk) -> CompiledConfiguration:
    return compile_site(configuration(), disk.keys)
