"""What is fuzzed: one function a language that strangers or operators write, which takes any bytes and checks what
must hold for them.

It raises AssertionError when something does not hold; any other exception is one that the engine did not declare.
`test_fuzz.py` runs the same functions with the kept corpus and hypothesis, `run.py` with atheris, guided by coverage.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from engine.clock import SystemClock
from engine.connectors.fieldmap import FieldMap, UnsafeKeyError, compile_field_map
from engine.connectors.registry import build_connectors, load
from engine.domain import codec
from engine.domain.chart import Chart, Charts
from engine.domain.message import AckCode, Entry, EntryState, Summary
from engine.domain.outcome import Outcome
from engine.errors import HandoffError, MappingError, MessageError, SettingsError
from engine.hl7v2 import batch as batches
from engine.hl7v2.ack import acknowledge, parse_ack
from engine.hl7v2.message import Message
from engine.hl7v2.mllp import AHEAD_BYTES, FrameDecoder, wrap
from engine.hl7v2.ordering import ordering_key
from engine.hl7v2.path import Path as Place
from engine.hl7v2.path import PathError
from engine.mapping.compile import compile_mapping
from engine.mapping.expression import FilterError, compile_filter
from engine.mapping.tables import Tables, load_tables
from engine.pipeline.acceptance import Rules, judge, rest_of_message, summarize, verdict
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.compiling import compile_configuration
from engine.pipeline.messages import TARGETS as FIELDS
from engine.pipeline.process import process as work_on
from engine.settings import Channel
from engine.snapshot import Snapshot
from engine.store.journal import Head
from engine.yamlfile import parse

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = Path(__file__).parent / "corpus"
MESSAGES: Final = ROOT / "tests" / "messages"
NOW: Final = datetime(2026, 3, 6, 18, 0, tzinfo=UTC)
MARKER: Final = "ZQXV"
"""Stands in the values of many seeds, and so in much of what is made of them. No error text may hold it."""
ZONE: Final = ZoneInfo("America/New_York")


@dataclass(frozen=True)
class Target:
    """check: see above. seeds: what to begin with, beside the kept corpus. tokens: words of its language."""

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    tokens: tuple[bytes, ...]

    def corpus(self) -> list[bytes]:
        """The kept inputs and the seeds."""
        kept = sorted((CORPUS / self.name).glob("*"))
        return [file.read_bytes() for file in kept] + self.seeds()


# --- framer ----------------------------------------------------------------------------------------------------------


def framer(data: bytes) -> None:
    """Bytes 1 and 2: the limit and how the stream is cut. The rest is the stream."""
    limit, step, stream = 1 + 4 * first(data), 1 + first(data[1:]), data[2:]
    whole, cut = FrameDecoder(limit), FrameDecoder(limit)
    frames = whole.feed(stream)
    discarded = list(whole.discarded)
    pieces = []
    for at in range(0, len(stream), step):
        pieces += cut.feed(stream[at : at + step])
        assert cut.pending <= 2 * max(limit, AHEAD_BYTES) + step + AHEAD_BYTES, "more is held than the limit allows"
    assert [(f.payload, f.oversize) for f in pieces] == [(f.payload, f.oversize) for f in frames]
    assert (cut.junk_bytes, cut.partials, cut.in_frame) == (whole.junk_bytes, whole.partials, whole.in_frame)
    for piece in [frame.payload for frame in frames] + discarded:
        assert len(piece) <= limit
        assert piece in stream
    assert sum(len(frame.payload) for frame in frames) + whole.junk_bytes <= len(stream)
    good = b"MSH|^~\\&|next"
    for decoder in (whole, cut):
        after = decoder.feed(wrap(good))
        assert after, "the next message is not served"
        assert after[-1].payload == good[:limit]
        decoder.close()
        assert (decoder.pending, decoder.in_frame) == (0, False)


_WIDE: Final = ("utf-16-le", "utf-16-be", "utf-16", "utf-32-le", "utf-32-be", "utf-32")


def wide(data: bytes) -> None:
    """Bytes 1 to 3: the encoding, the channel's rules and how the stream is cut. The rest is text of a message.

    Nothing of what MLLP can't carry is ever accepted, all of it is kept, and it is answered once.
    """
    encoding, chosen, step = _WIDE[first(data) % len(_WIDE)], rules()[first(data[1:]) % len(rules())], first(data[2:])
    text = data[3:].decode("utf-8", "replace")
    message = f"MSH|^~\\&|A|B|||20260301||ADT^A01|1|P|2.5.1\rPID|1||7||{text}\r".encode(encoding)
    stream, decoder, frames = wrap_anything(message), FrameDecoder(1 << 20), []
    for at in range(0, len(stream), 8 * step or len(stream)):
        frames += decoder.feed(stream[at : at + (8 * step or len(stream))])
        if step % 2:  # a pause
            frames += decoder.flush_pending_end()
    frames += decoder.close()
    for frame in frames:
        judgement = judge(chosen, frame.payload) if not frame.rest else rest_of_message(chosen)
        assert judgement.refusal is not None
        assert judgement.code not in {AckCode.AA, AckCode.CA}
    if "MSH" not in text.upper() and "HS" not in text.upper():  # behind a 0B, it would be the next message
        assert not frames[0].rest
        assert all(frame.rest for frame in frames[1:]), "a part of it is taken for another message"
        if not step % 2:
            assert b"".join(frame.payload for frame in frames) == message


def wrap_anything(payload: bytes) -> bytes:
    """A frame of bytes that no frame should hold."""
    return b"\x0b" + payload + b"\x1c\r"


# --- intake: header, acceptance, answers, batches --------------------------------------------------------------------


@cache
def rules() -> tuple[Rules, ...]:
    made = []
    for ack in (
        {},
        {"mode": "original", "when": "processed"},
        {"mode": "enhanced", "duplicate_conflict": "refuse"},
        {"sequence_numbers": True},
        {"mode": "none"},
    ):
        channel = {"name": "fuzz", "listen": {"port": 0}, "timezone": "UTC", "mapping": "adt", "ack": ack}
        made.append(Rules.of(Channel.model_validate_json(msgspec.json.encode(channel))))
    return tuple(made)


def intake(data: bytes) -> None:
    """Byte 1: the channel's rules. The rest is a frame's payload: everything in it is judged, kept and answered."""
    chosen, payload = rules()[first(data) % len(rules())], data[1:]
    try:
        batch = batches.split(payload, messages_max=100)
    except batches.BatchTooLongError:
        batch = None
    messages = batch.messages if batch is not None and batch.messages else (payload,)
    answers = [answered(chosen, message) for message in messages]
    if batch is not None and batch.messages and any(answers):
        whole = batches.answer(batch, [answer or b"" for answer in answers], now=NOW, control_id="H1")
        wrap(whole)


def answered(chosen: Rules, message: bytes) -> bytes | None:
    judgement = judge(chosen, message)
    header, refusal, code = judgement.header, judgement.refusal, judgement.code
    ordering_key(message, header)
    head = Head(peer="fuzz", summary=summarize(header), deviations=(), refusal=refusal)
    msgspec.json.decode(msgspec.json.encode(head), type=Head)  # as it is stored
    if refusal is not None:
        says_no_value(refusal.text, refusal.error, refusal.location)
    if code is None:
        return None
    answer = acknowledge(header, verdict(code, refusal, expected_sequence=7), now=NOW, control_id="H12")
    wrap(answer)
    lines = answer.split(b"\r")
    assert [line[:3] for line in lines] == ([b"MSH", b"MSA", b"ERR", b""] if refusal else [b"MSH", b"MSA", b""])
    said = parse_ack(answer)
    assert said.code is code
    if refusal is not None:
        assert said.hl7_code == refusal.hl7_code
        says_no_value(lines[2].decode("latin-1"))
    if header is not None:
        assert said.control_id == header.raw(10).translate(None, b"\x0b\x1c")
        assert len(answer) <= 2 * len(message) + 1024
    return answer


def acknowledgment(data: bytes) -> None:
    """What a destination answers."""
    try:
        said = parse_ack(data)
    except MessageError as error:
        says_no_value(str(error), error.error, error.location)
        return
    assert said.accepted == (said.code.value in {"AA", "CA"})
    assert MARKER not in repr(said)


def batch(data: bytes) -> None:
    """Files of messages: nothing that stands in them gets lost."""
    found = batches.messages_in(data)
    if b"\x0b" not in data:
        assert all(message in data for message in found)
        for line in (line.strip(b" \t\x00\xef\xbb\xbf") for line in re.split(rb"[\r\n]", data)):
            assert line[:3] in {b"", b"FHS", b"BHS", b"BTS", b"FTS"} or any(line in message for message in found)
    with contextlib.suppress(batches.BatchTooLongError):
        batches.split(data, messages_max=3)


# --- reader ----------------------------------------------------------------------------------------------------------

_PLACES: Final = tuple(
    Place.parse(text)
    for text in ("MSH-1", "MSH-2", "MSH-9.2", "PID-3[type=MR].1", "PID-3[*].4.2", "PID-5[2].1", "OBX[*]-5", "DG1[3]-3",
                 "PV1-19", "ZZZ[*]-1[1=x].2")
)  # fmt: skip
_CHARSETS: Final = ((None, "windows-1252"), ("iso8859-1", "ascii"), ("shift_jis", "utf-8"), ("gb18030", "cp950"))


def reader(data: bytes) -> None:
    """Byte 1: the channel's charsets. The rest is a message."""
    default, fallback = _CHARSETS[first(data) % len(_CHARSETS)]
    payload = data[1:]
    try:
        message = Message.parse(payload, default=default, fallback=fallback)
    except MessageError as error:
        says_no_value(str(error), error.error, error.location)
        return
    assert message.raw == payload
    assert payload.hex() not in repr(message)
    for place in _PLACES:
        one, several = message.get(place), message.all(place)
        assert one is None or isinstance(one, str)
        assert one is None or one in several
    segments = list(message)
    assert segments[0].name == "MSH"
    assert sum(segment.name == "MSH" for segment in segments) == 1, "two messages are read as one"
    for segment in segments:
        assert MARKER not in repr(segment)
        for field in range(1, len(segment.fields) + 1):
            for repetition in segment.repetitions(field):
                repetition.get(1, 1)
                repetition.get(2, 3)
                assert MARKER not in repr(repetition)
    for group in message.groups("PID"):
        assert len(group.segments("PID")) == 1
    for deviation in message.deviations:
        says_no_value(deviation)


# --- the heart: mapping, filter, events, scores, plans, deliveries ---------------------------------------------------


def key(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@cache
def shipped() -> Snapshot:
    return Snapshot.read(ROOT / "config.yaml")


@cache
def channels() -> tuple[CompiledChannel, ...]:
    compiled = compile_configuration(load(shipped()), key).channels["main-campus"]
    made = []
    for changes in (
        {},
        {"identity": {"authority": "MRN", "merge_pairing": "type"}, "charset": {"default": "iso8859-1"}},
        {
            "filter": "PV1-2 in ('I', 'E') or MSH-9.2 matches '^A[34]'",
            "deliver": [{"to": "files", "what": ["message"]}],
        },
    ):
        settings = Channel.model_validate_json(msgspec.json.encode(compiled.settings.model_dump(mode="json") | changes))
        chosen = compile_filter(settings.filter) if settings.filter else None
        made.append(replace(compiled, settings=settings, filter=chosen, observed_since=NOW))
    return tuple(made)


@cache
def field_map() -> FieldMap:
    name = next(name for name in shipped().files if name.endswith("destinations/salesforce.yaml"))
    return compile_field_map(shipped().document(name), zone=ZONE)


def heart(data: bytes) -> None:
    """Byte 1: the channel. The rest are messages, one after the other, of the same patients perhaps."""
    channel = channels()[first(data) % len(channels())]
    charts = Charts()
    for number, payload in enumerate(batches.messages_in(data[1:])[:8], 1):
        entry = Entry(
            id=number, channel="main-campus", peer="fuzz", received_at=NOW, payload=payload, summary=Summary()
        )
        outcome = work_on(entry, channel, charts, NOW)
        assert work_on(entry, channel, charts, NOW) == outcome, "the same entry has two outcomes"
        judge_outcome(outcome)
        for chart in outcome.charts:
            assert codec.decoder(Chart)(codec.encode(chart)) == chart  # as it is stored
            charts.add(chart)


def judge_outcome(outcome: Outcome) -> None:
    assert outcome.state in {EntryState.PROCESSED, EntryState.FILTERED, EntryState.DEAD}
    assert (outcome.dead_letter is not None) == (outcome.state is EntryState.DEAD)
    if outcome.state is not EntryState.PROCESSED:
        assert not outcome.charts
        assert not outcome.deliveries
    says_no_value(outcome.reason, *outcome.deviations)
    if outcome.dead_letter is not None:
        assert outcome.dead_letter.error != "internal"
        says_no_value(outcome.dead_letter.detail, outcome.dead_letter.error, outcome.dead_letter.location)
    assert MARKER not in repr(outcome)
    for delivery in outcome.deliveries:
        payload = msgspec.json.decode(delivery.payload)
        try:
            field_map().row(delivery.operation, payload, NOW)
        except UnsafeKeyError as error:
            says_no_value(str(error))


# --- what operators write --------------------------------------------------------------------------------------------


@cache
def samples() -> tuple[Message, ...]:
    marked = (
        f"MSH|^~\\&|{MARKER}|{MARKER}|||20260301||ADT^A01|{MARKER}|P|2.5.1\rEVN|A01|20260301{MARKER}\r"
        f'PID|1||{MARKER}1^^^{MARKER}^MR~{MARKER}||{MARKER}^{MARKER}~""||1948{MARKER}|{MARKER}|||{MARKER}||{MARKER}\r'
        f"PV1|1|{MARKER}|{MARKER}^1^2|||||||||||||||||{MARKER}|{'|' * 16}{MARKER}\r"
        f"DG1|1||{MARKER}^{MARKER}|||{MARKER}\r"
    ).encode()
    good = (MESSAGES / "adt_a03_discharge_home_health.hl7").read_bytes()
    empty = b"MSH|^~\\&|||||||ADT^A01|1|P|2.5.1\r"
    return tuple(Message.parse(payload) for payload in (good, marked, empty))


@cache
def tables() -> Tables:
    names = [name for name in shipped().files if name.startswith("mappings/tables/")]
    return load_tables(shipped().document(name) for name in names)


def mapping(data: bytes) -> None:
    """A mapping file. What compiles is applied."""
    text = data.decode("utf-8", "replace")
    try:
        compiled = compile_mapping(parse(text, "fuzz.yaml"), tables(), zone=ZONE, targets=FIELDS)
    except SettingsError as error:
        judge_problems(error)
        return
    for sample in samples():
        try:
            mapped = compiled.apply(sample)
        except (MessageError, MappingError) as error:
            if MARKER not in text:
                says_no_value(str(error), error.error, error.location)
            continue
        assert MARKER not in repr(mapped)
        if MARKER not in text:
            says_no_value(*mapped.deviations)


def filter_(data: bytes) -> None:
    """A filter. What compiles gives yes or no to any message, or that it costs too much, in bounded time (the fuzzer's
    limit is the judge).
    """
    text = data.decode("utf-8", "replace")
    try:
        compiled = compile_filter(text)
    except FilterError as error:
        has_place(error.line, error.column)
        return
    for sample in samples():
        with suppress(MessageError):
            assert isinstance(compiled(sample), bool)


def path(data: bytes) -> None:
    """A path, as mappings and filters hold them."""
    text = data.decode("utf-8", "replace")
    try:
        place = Place.parse(text)
    except PathError as error:
        has_place(1, error.column)
        return
    assert str(place) == text
    for sample in samples():
        one, several = sample.get(place), sample.all(place)
        assert one is None or one in several


def configuration(data: bytes) -> None:
    """Byte 1: which file of the configuration. The rest is its text: it is taken, or every problem has its place."""
    names = sorted(shipped().files)
    name = names[first(data) % len(names)]
    text = data[1:].decode("utf-8", "replace")
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Snapshot(Path(folder), "config.yaml", {**shipped().files, name: text})
        try:
            loaded = load(snapshot)
            compile_configuration(loaded, key)
            build_connectors(loaded, clock=SystemClock())
        except SettingsError as error:
            judge_problems(error)
        assert not list(Path(folder).iterdir()), "looking at a configuration has made a file"


def judge_problems(error: HandoffError) -> None:
    assert isinstance(error, SettingsError)
    assert error.problems
    for problem in error.problems:
        has_place(problem.line, problem.column)
        assert problem.message
        assert len(str(problem)) < 8192


# --- helpers ---------------------------------------------------------------------------------------------------------


def first(data: bytes) -> int:
    return data[0] if data else 0


def has_place(line: int, column: int) -> None:
    assert line >= 1
    assert column >= 1


def says_no_value(*texts: str | None) -> None:
    for text in texts:
        assert text is None or MARKER not in text, "an error's text holds a value of the message"


def hl7_seeds(prefix: bytes = b"") -> list[bytes]:
    raw = [file.read_bytes() for file in sorted(MESSAGES.glob("*.hl7"))]
    return [prefix + one for one in raw] + [prefix + sample.raw for sample in samples()]


def yaml_seeds() -> list[bytes]:
    names = sorted(shipped().files)
    return [bytes((index,)) + shipped().files[name].encode() for index, name in enumerate(names)]


_HL7: Final = (
    b"MSH|^~\\&|", b"MSH", b"PID|", b"PV1|", b"EVN|", b"MRG|", b"DG1|", b"OBX|", b"MSA|AA|", b"ERR|", b"BHS|", b"BTS|",
    b"FHS|", b"FTS|", b"ADT^A01", b"ADT^A03", b"ADT^A08", b"ADT^A11", b"ADT^A13", b"ADT^A40", b"ACK", b"^~\\&#", b"-1",
    b"\\X0D\\", b"\\.br\\", b"\\F\\", b'""', b"|", b"^", b"~", b"&", b"\\", b"\r", b"\n", b"\r\n", b"\x0b", b"\x1c\r",
    b"\x1c", b"\x00", b"UNICODE UTF-8", b"ISO IR87", b"8859/1", b"GB 18030-2000", b"\xef\xbb\xbf", b"\xff\xfe", b"AL",
    b"NE", b"M\x00S\x00H\x00", b"2.5.1", b"2.3", b"20260301120000-0500", b"99991231", b"19480230", b"^^^MRN^MR",
    b"ZQXV", b"\x1b$B", b"\xed\xa0\x80",
)  # fmt: skip
_FILTER: Final = (
    b" and ", b" or ", b"not ", b" in ", b" matches ", b"==", b"!=", b"('I', 'E')", b"['I']", b"PV1-2", b"OBX[*]-5",
    b"PID-3[type=MR].1", b"'^A+$'", b"'(a|b)*'", b"'[^x]{1,9}'", b"1.0", b"-1", b'"', b"'", b"(", b")", b"[*]", b"[",
    b"]", b",",
)  # fmt: skip
_YAML: Final = (
    b": ", b"- ", b"\n  ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"<<: ", b"!!python/object ", b"|\n", b">\n", b"'",
    b'"', b"#", b"null", b"true", b"no", b"012", b"1e309", b"-1", b"~", b"{env: X}", b"{file: x}", b"from: PID-3",
    b"first_of: ", b"where: ", b"each: DG1", b"parts: ", b"table: sex", b"required: true", b"on_error: dead", b"\t",
    b"default: x", b"prefer: [L]", b"region: US", b"patient.identifiers: ", b"patient.name: ", b"encounter.diagnoses: ",
)  # fmt: skip


def _acknowledgments() -> list[bytes]:
    return [acknowledge(None, verdict(code, None), now=NOW, control_id="1") for code in AckCode]


def _batches() -> list[bytes]:
    return [b"FHS|^~\\&|\rBHS|^~\\&|\r" + one + b"BTS|1\rFTS|1\r" for one in hl7_seeds()]


def _filters() -> list[bytes]:
    return [b"PV1-2 in ('I', 'E', 'O') and not (PID-3.4.1 == 'TEST' or PV1-3.1 matches '^ZZ')"]


TARGETS: Final = {
    target.name: target
    for target in (
        Target("framer", framer, lambda: [b"\x10\x03" + wrap(one) for one in hl7_seeds()], _HL7),
        Target("wide", wide, lambda: [bytes((at, 0, at)) + "\u0d1c\u041c\u0b95".encode() for at in range(6)], _HL7),
        Target("intake", intake, lambda: hl7_seeds(b"\x00"), _HL7),
        Target("acknowledgment", acknowledgment, _acknowledgments, _HL7),
        Target("batch", batch, _batches, _HL7),
        Target("reader", reader, lambda: hl7_seeds(b"\x00"), _HL7),
        Target("heart", heart, lambda: [*hl7_seeds(b"\x00"), b"\x01" + b"".join(hl7_seeds())], _HL7),
        Target("filter", filter_, _filters, _FILTER),
        Target("path", path, lambda: [place.text.encode() for place in _PLACES], _FILTER),
        Target("mapping", mapping, lambda: [shipped().files["mappings/fields/adt.yaml"].encode()], _YAML),
        Target("configuration", configuration, yaml_seeds, _YAML),
    )
}
