"""Everything that strangers and operators write holds what `targets.py` says, whatever it is: the short form.

The kept corpus and the seeds, then what hypothesis makes of them by cutting, doubling and planting words. The long
form, guided by coverage: `make fuzz`.
"""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable

import pytest
from fuzz.run import KEPT_BYTES_MAX, NAMES
from fuzz.targets import CORPUS, TARGETS, Target
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import MessageError
from engine.hl7v2.batch import messages_in
from engine.hl7v2.message import Message
from engine.hl7v2.mllp import FrameDecoder
from engine.pipeline.acceptance import judge

EXAMPLES = int(os.environ.get("HANDOFF_FUZZ_EXAMPLES", "400"))
COSTLY = {"configuration"}
"""Targets that compile a whole site for each input: they get a quarter of the examples."""

Edit = tuple[str, float, int, bytes]


def test_the_runner_knows_every_target_and_the_corpus_holds_no_others() -> None:
    assert tuple(TARGETS) == NAMES
    assert {folder.name for folder in CORPUS.iterdir()} <= set(TARGETS)


def test_the_kept_corpus_is_small() -> None:
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    assert all(file.stat().st_size <= KEPT_BYTES_MAX for file in files)
    assert len(files) < 1000


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus_and_the_seeds_hold(name: str) -> None:
    for data in TARGETS[name].corpus():
        TARGETS[name].check(data)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_made_of_them_holds(name: str) -> None:
    """The same inputs in each run, so that a change is judged by what it changes; `make fuzz` looks for new ones."""
    target = TARGETS[name]

    @settings(
        max_examples=EXAMPLES // 4 if name in COSTLY else EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(edited(target))
    def holds(data: bytes) -> None:
        target.check(data)

    holds()


def edited(target: Target) -> st.SearchStrategy[bytes]:
    corpus = sorted(set(target.corpus()), key=lambda data: (len(data), data))
    words = st.one_of(st.sampled_from(target.tokens), st.binary(min_size=1, max_size=6))
    kinds = st.sampled_from(["insert", "replace", "delete", "double", "cut"])
    edits = st.lists(
        st.tuples(kinds, st.floats(min_value=0, max_value=1, exclude_max=True), st.integers(1, 40), words), max_size=8
    )
    return st.builds(_apply, st.sampled_from(corpus), edits)


def _apply(data: bytes, edits: list[Edit]) -> bytes:
    for kind, place, size, word in edits:
        at = int(place * (len(data) + 1))
        match kind:
            case "insert":
                data = data[:at] + word + data[at:]
            case "replace":
                data = data[:at] + word + data[at + len(word) :]
            case "delete":
                data = data[:at] + data[at + size :]
            case "double":
                data = data[:at] + data[at : at + size] * 2 + data[at + size :]
            case "cut":
                data = data[:at]
    return data


# --- memory ----------------------------------------------------------------------------------------------------------

_HEADER = b"MSH|^~\\&|A|B|||20260301||ADT^A01|1|P|2.5.1\r"
_SHAPES = {
    "empty segments": b"\r",
    "line feeds": b"\n",
    "one-letter segments": b"Z\r",
    "fields": b"|",
    "repetitions": b"~",
    "components": b"^",
    "escapes": b"\\F\\",
    "headers of nothing": b"MSX|\r",
    "batch headers": b"BHS|\r",
    "starts of frames": b"\x0b",
    "ends of frames": b"\x1c\r",
    "ends without CR": b"\x1cx",
}
_READERS: dict[str, Callable[[bytes], object]] = {}


def _reads(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    _READERS[read.__name__] = read
    return read


@_reads
def framing(data: bytes) -> object:
    decoder = FrameDecoder(1 << 16)
    return [decoder.feed(data[at : at + 4096]) for at in range(0, len(data), 4096)], decoder.close()


@_reads
def reading(data: bytes) -> object:
    try:
        message = Message.parse(_HEADER + b"PID|1|" + data)
        return [(segment, segment.fields, segment.repetitions(2)) for segment in message]
    except MessageError:
        return None


@_reads
def judging(data: bytes) -> object:
    from fuzz.targets import rules

    return judge(rules()[0], _HEADER + data), judge(rules()[0], data)


@_reads
def splitting(data: bytes) -> object:
    return messages_in(b"FHS|^~\\&|\r" + data)


@pytest.mark.parametrize("reader", _READERS)
@pytest.mark.parametrize("shape", _SHAPES)
def test_memory_grows_with_what_was_sent_and_not_faster(reader: str, shape: str) -> None:
    """Whatever 16 and 64 KiB are full of: four times as much takes no more than about four times as much."""
    small, large = (_peak_bytes(_READERS[reader], _SHAPES[shape], size) for size in (1 << 14, 1 << 16))
    assert large < 5 * small + 65_536
    assert large < 320 * (1 << 16)


def _peak_bytes(read: Callable[[bytes], object], piece: bytes, size: int) -> int:
    data = piece * (size // len(piece))
    tracemalloc.start()
    try:
        read(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
