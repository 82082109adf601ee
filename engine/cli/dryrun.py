"""`handoff try`: a dry run. The code of the daemon, less the write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import NO, Cli, config_option, json_option, reveal_options, table
from engine.cli.messages import told
from engine.cli.patients import human_chart
from engine.cli.site import NotFoundError, open_site, read_input, reveal_of

if TYPE_CHECKING:
    from datetime import datetime

    from engine.cli.show import View
    from engine.domain.chart import Charts
    from engine.domain.message import Entry
    from engine.domain.outcome import Outcome
    from engine.hl7v2.header import Header
    from engine.pipeline.channel import CompiledChannel
    from engine.pipeline.process import Prepared
    from engine.runtime.acceptance import Judgement, Rules


@click.command("try")
@click.argument("channel", metavar="CHANNEL")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
)
@click.option("--charts", is_flag=True, help="Against the stored charts (read only); masked without --reveal.")
@reveal_options
@json_option
@config_option
@click.pass_obj
def try_(cli: Cli, channel: str, files: tuple[Path, ...], charts: bool, reveal: bool, reason: str | None) -> int:
    """Show what would become of messages; writes nothing.

    FILE holds one message or several, also batches, also MLLP captures; - is standard input. Without --charts it begins
    with no chart at all, and each message finds what those before it left. What the files hold is shown as it is. Exit
    code 1 when a message would be refused or become a dead letter.
    """
    from engine.bootstrap import compile_site, open_keys
    from engine.cli.show import View
    from engine.domain.chart import Charts
    from engine.errors import KeyFileError, KeyMissingError
    from engine.pipeline.channel import compile_configuration

    wish = reveal_of(reveal, reason)
    if wish is not None and not charts:
        raise click.UsageError("--reveal goes with --charts: what the files hold is not masked")
    frames = [frame for file in files for frame in _frames(file)]
    if charts:
        with open_site(cli) as site:
            compiled = site.compiled()
            trial = _Trial(_channel(compiled.channels, channel), site.now)
            with site.store.reader() as conn:
                since = site.store.journal.first_received(conn).get(channel)
                trial.prepare(frames, since)
                trial.charts = site.store.charts.load(conn, trial.identities, trial.visits)
            view = site.view(wish, (f"chart:{chart_id}" for chart_id in trial.charts.by_id))
    else:
        from datetime import UTC, datetime

        configuration = cli.configuration()
        try:
            compiled = compile_site(configuration, open_keys(configuration))
        except (KeyMissingError, KeyFileError):  # then only ids and idempotency keys differ from the daemon's
            compiled = compile_configuration(configuration, _unkeyed)
        trial = _Trial(_channel(compiled.channels, channel), datetime.now(UTC))
        trial.prepare(frames, None)
        trial.charts = Charts()
        view = View(str, revealed=True)
    results = trial.run(view)
    cli.print(results[0] if len(results) == 1 else results, "\n\n".join(_human(result) for result in results))
    return NO if any(result["state"] in {"refused", "dead"} for result in results) else 0


_BEHIND_ALL: Final = 1 << 40
"""An entry's id: the messages are tried as if they came now, after all that is stored."""


class _Trial:
    """Messages on their way through intake and processing, without journal and record."""

    charts: Charts

    def __init__(self, channel: CompiledChannel, now: datetime) -> None:
        self._channel = channel
        self._now = now
        self._judged: list[Judgement] = []
        self._prepared: list[Prepared] = []

    def prepare(self, frames: list[bytes], observed_since: datetime | None) -> None:
        import dataclasses

        from engine.runtime.acceptance import Rules

        self._channel = dataclasses.replace(self._channel, observed_since=observed_since or self._now)
        rules = Rules.of(self._channel.settings)
        for frame in frames:
            self._take(rules, frame)

    def _take(self, rules: Rules, frame: bytes) -> None:
        """As intake takes a frame: a batch is taken apart, one that is too long is refused as a whole."""
        from engine.hl7v2 import batch as batches
        from engine.runtime.acceptance import BATCH_TOO_LONG, judge, plan_answers

        listen = self._channel.settings.listen
        if len(frame) > listen.frame_bytes_max:
            payload = frame[: listen.frame_bytes_max]
            self._add(payload, judge(rules, payload, oversize=True))
            return
        try:
            batch = batches.split(frame, messages_max=listen.batch_messages_max)
        except batches.BatchTooLongError:
            self._add(frame, plan_answers(rules, None, BATCH_TOO_LONG))
            return
        if batch is None or not batch.messages:
            self._add(frame, judge(rules, frame))
            return
        for message in batch.messages:
            self._add(message, judge(rules, message), batch.deviations)

    def _add(self, payload: bytes, judgement: Judgement, deviations: tuple[str, ...] = ()) -> None:
        from engine.pipeline.process import prepare

        entry = self._entry(_BEHIND_ALL + len(self._judged), payload, judgement, deviations)
        self._judged.append(judgement)
        self._prepared.append(prepare(entry, self._channel))

    @property
    def identities(self) -> set[tuple[str, str, str]]:
        return {identity for one in self._prepared for identity in one.identities}

    @property
    def visits(self) -> set[str]:
        return {visit for one in self._prepared for visit in one.visits}

    def run(self, view: View) -> list[dict[str, Any]]:
        from engine.pipeline.process import decide

        results = []
        for judgement, prepared in zip(self._judged, self._prepared, strict=True):
            outcome = decide(prepared, self._channel, self.charts, self._now)
            for chart in outcome.charts:
                self.charts.add(chart)
            results.append(self._shape(judgement, outcome, view))
        return results

    def _entry(self, number: int, payload: bytes, judgement: Judgement, deviations: tuple[str, ...]) -> Entry:
        from engine.domain.message import Entry
        from engine.runtime.acceptance import summarize

        if judgement.header is not None:
            deviations += judgement.header.deviations + judgement.plan.deviations
        return Entry(
            id=number,
            channel=self._channel.settings.name,
            peer="file",
            received_at=self._now,
            payload=payload,
            summary=summarize(judgement.header),
            deviations=deviations,
            refusal=judgement.refusal,
            ack=judgement.code,
            ack_state=judgement.ack_state,
            wants_application_ack=judgement.awaits_outcome,
        )

    def _shape(self, judgement: Judgement, outcome: Outcome, view: View) -> dict[str, Any]:
        import msgspec

        from engine.domain.shapes import encounter_shape, patient_shape, plain, score_shape, task_shape

        chart = self.charts.by_id.get(outcome.chart_id) if outcome.chart_id else None
        encounter = chart.encounter(outcome.encounter_key) if chart and outcome.encounter_key else None
        return {
            "ack": _ack(judgement, outcome),
            "state": outcome.state,
            "reason": outcome.reason,
            "header": _header(judgement.header),
            "patient": view.patient(patient_shape(chart.patient)) if chart else None,
            "encounter": view.encounter(encounter_shape(encounter)) if encounter else None,
            "scores": [view.score(score_shape(score)) for score in (chart.scores if chart else ())],
            "tasks": [view.task(task_shape(task, chart.patient.key)) for task in chart.tasks] if chart else [],
            "deliveries": [
                {
                    "destination": delivery.destination,
                    "operation": delivery.operation,
                    "idempotency_key": delivery.idempotency_key,
                    "payload": view.payload(delivery.operation, msgspec.json.decode(delivery.payload)),
                    "state": "pending",
                    "attempts": 0,
                    "next_attempt_at": None,
                }
                for delivery in outcome.deliveries
            ],
            "deviations": list(outcome.deviations),
            "charset": outcome.charset,
            "dead_letter": plain(outcome.dead_letter),
        }


def _ack(judgement: Judgement, outcome: Outcome) -> dict[str, Any]:
    """The first answer that the sender gets; `code` is null when it gets none."""
    refusal = judgement.refusal
    if refusal is not None:
        return {"code": judgement.code, "error": refusal.error, "text": refusal.text, "location": refusal.location}
    letter = outcome.dead_letter
    if judgement.holds or _answers_later(judgement, accepted=letter is None):
        return {
            "code": outcome.application_ack,
            "error": letter.error if letter else None,
            "text": letter.detail if letter else None,
            "location": letter.location if letter else None,
        }
    return {"code": judgement.code, "error": None, "text": None, "location": None}


def _answers_later(judgement: Judgement, *, accepted: bool) -> bool:
    """The only answer is the application's, after processing (enhanced mode without an accept acknowledgment)."""
    from engine.hl7v2.ack import owed

    return judgement.code is None and judgement.awaits_outcome and owed(judgement.plan.application, success=accepted)


def _header(header: Header | None) -> dict[str, Any] | None:
    names = (
        "type", "message_code", "trigger_event", "control_id", "version", "processing_id", "sending_application",
        "sending_facility", "receiving_application", "receiving_facility", "sent_at", "accept_ack", "application_ack",
    )  # fmt: skip
    if header is None:
        return None
    return {name: getattr(header, name) or None for name in names} | {"charset_names": list(header.charset_names)}


def _frames(file: Path) -> list[bytes]:
    """What a file holds, as it would be sent: each message or batch in a frame of its own."""
    from engine.simulator.capture import read_capture

    frames = [unit.payload for unit in read_capture(read_input(file))]
    if not frames:
        raise NotFoundError(f"{_named(file)} holds no message")
    return frames


def _named(file: Path) -> str:
    return "standard input" if str(file) == "-" else str(file)


def _channel(channels: Any, name: str) -> CompiledChannel:
    channel: CompiledChannel | None = channels.get(name)
    if channel is None:
        raise NotFoundError(f"there is no such channel; there are {', '.join(sorted(channels)) or 'none'}")
    return channel


def _unkeyed(*parts: str) -> str:
    import hashlib

    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _human(result: dict[str, Any]) -> str:
    header, ack = result["header"] or {}, result["ack"]
    lines = [
        f"{header.get('type') or 'unreadable'} {header.get('control_id') or ''}: {result['state']}"
        + (f" ({result['reason']})" if result["reason"] else ""),
        f"answer: {ack['code'] or 'none'}" + (f" {ack['error']}: {ack['text']}" if ack["error"] else ""),
    ]
    if result["deviations"]:
        lines.append(f"deviations: {', '.join(result['deviations'])}")
    if result["patient"]:
        encounters = [result["encounter"]] if result["encounter"] else []
        parts = {"encounters": encounters, "scores": result["scores"], "tasks": result["tasks"]}
        lines += ["", human_chart(result["patient"] | parts)]
    deliveries = [(item["destination"], told(item), item["idempotency_key"]) for item in result["deliveries"]]
    if deliveries:
        lines += ["", table(("delivery to", "what", "idempotency key"), deliveries)]
    return "\n".join(lines)
