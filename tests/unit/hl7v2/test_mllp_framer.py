"""Section 1 of the HL7 rules: framing."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.hl7v2.mllp import (
    AHEAD_BYTES,
    COMMIT_ACK,
    COMMIT_ACK_PAYLOAD,
    COMMIT_NAK,
    COMMIT_NAK_PAYLOAD,
    END_BYTE_IN_PAYLOAD,
    END_WITHOUT_CR,
    JUNK_BEFORE_FRAME,
    START_BYTE_IN_PAYLOAD,
    START_INSIDE_FRAME,
    Frame,
    FrameDecoder,
    is_wide,
    wrap,
)

ONE = b"MSH|^~\\&|A\rPID|1\r"
TWO = b"MSH|^~\\&|B\rPID|2\r"
CUT, REST = b"MSH|^~\\&|A\rOBX|1|TX|||as he", b"said yesterday\rPV1|1|I\r"
LIMIT = 1000

# streams rich in the bytes that matter
WIDE = ONE.decode().encode("utf-16-le")
STREAMS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"\x0b",
                b"\x1c",
                b"\r",
                b"\n",
                b"\x00",
                b"\x1c\r",
                ONE,
                TWO,
                WIDE,
                b"\x0bMSH|",
                b"\x0b\xff\xfeM\x00S\x00",
                b"H\x00|\x00",
                b"\x0bF",
                b"HS|",
                b"M",
                b"SH|",
                b"\x0b\xef\xbb\xbf ",
                CUT,
                wrap(ONE),
                b"\x1c\rtext",
                b"|20240501|Y\r",
                b"PV1|",
                b"PV",
            ]
        ),
        st.binary(max_size=8),
    ),
    max_size=30,
).map(b"".join)


def feed(*chunks: bytes, limit: int = LIMIT) -> tuple[list[Frame], FrameDecoder]:
    decoder = FrameDecoder(limit)
    return [frame for chunk in chunks for frame in decoder.feed(chunk)], decoder


def payloads(frames: list[Frame]) -> list[bytes]:
    return [frame.payload for frame in frames]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(bounds)]


def test_a_frame_is_0b_payload_1c_0d() -> None:
    frames, decoder = feed(b"\x0b" + ONE + b"\x1c\x0d")
    assert frames == [Frame(payload=ONE)]
    assert (decoder.pending, decoder.in_frame, decoder.junk_bytes, decoder.partials) == (0, False, 0, 0)


def test_wrap_makes_what_the_decoder_reads() -> None:
    assert payloads(feed(wrap(ONE))[0]) == [ONE]


def test_release_2_commit_blocks_are_frames_of_one_byte() -> None:
    assert (COMMIT_ACK, COMMIT_NAK) == (b"\x0b\x06\x1c\r", b"\x0b\x15\x1c\r")
    assert payloads(feed(COMMIT_ACK + COMMIT_NAK)[0]) == [COMMIT_ACK_PAYLOAD, COMMIT_NAK_PAYLOAD]


@pytest.mark.parametrize("junk", [b"junk", b"\x00", b"\r", b"\n", b"\r\n", b"\x1c\r", b"\xff" * 50])
def test_junk_between_frames_is_counted_as_a_deviation_and_harms_no_frame(junk: bytes) -> None:
    frames, decoder = feed(wrap(ONE) + junk + wrap(TWO) + junk)
    assert payloads(frames) == [ONE, TWO]
    assert [frame.deviations for frame in frames] == [(), (JUNK_BEFORE_FRAME,)]
    assert decoder.junk_bytes == 2 * len(junk)
    assert decoder.pending == 0


def test_many_frames_in_one_packet_all_arrive_in_order() -> None:
    wanted = [b"MSH|^~\\&|%d\r" % number for number in range(500)]
    assert payloads(feed(b"".join(map(wrap, wanted)))[0]) == wanted


def test_1c_without_0d_before_the_next_frame_keeps_both_messages() -> None:
    frames, _ = feed(b"\x0b" + ONE + b"\x1c" + wrap(TWO))
    assert payloads(frames) == [ONE, TWO]
    assert frames[0].deviations == (END_WITHOUT_CR,)
    assert frames[1].deviations == ()


@pytest.mark.parametrize("follower", [b"\n", b"\x00", b"\x1c\r"])
def test_1c_followed_by_another_control_byte_ends_the_frame(follower: bytes) -> None:
    frames, _ = feed(b"\x0b" + ONE + b"\x1c" + follower + wrap(TWO))
    assert payloads(frames) == [ONE, TWO]
    assert frames[0].deviations == (END_WITHOUT_CR,)


def test_1c_and_then_nothing_can_be_completed_after_a_pause() -> None:
    frames, decoder = feed(b"\x0b" + ONE + b"\x1c")
    assert frames == []
    assert decoder.end_pending
    assert decoder.flush_pending_end() == [Frame(payload=ONE, deviations=(END_WITHOUT_CR,))]
    assert (decoder.pending, decoder.end_pending, decoder.in_frame) == (0, False, False)
    assert payloads(decoder.feed(b"\r" + wrap(TWO))) == [TWO]


def test_a_pause_inside_a_frame_completes_nothing() -> None:
    _, decoder = feed(b"\x0b" + ONE)
    assert decoder.flush_pending_end() == []
    assert payloads(decoder.feed(b"\x1c\r")) == [ONE]


def test_a_single_1c_inside_a_payload_is_payload() -> None:
    frames, _ = feed(wrap(b"MSH|a\x1cb\r"))
    assert frames == [Frame(payload=b"MSH|a\x1cb\r", deviations=(END_BYTE_IN_PAYLOAD,))]


def test_a_new_0b_inside_a_frame_discards_the_partial_one_counts_it_and_keeps_its_bytes_for_the_record() -> None:
    frames, decoder = feed(b"\x0bMSH|cut of" + wrap(TWO))
    assert frames == [Frame(payload=TWO, deviations=(START_INSIDE_FRAME,))]
    assert decoder.partials == 1
    assert decoder.discarded == [b"MSH|cut of"]


def test_discarded_partials_are_those_of_the_last_call_only() -> None:
    _, decoder = feed(b"\x0bMSH|cut of" + wrap(TWO))
    decoder.feed(wrap(ONE))
    assert decoder.discarded == []
    assert decoder.partials == 1


def test_a_partial_frame_that_spans_feeds_is_discarded_whole() -> None:
    frames, decoder = feed(b"\x0bMSH|cu", b"t of\x0b" + TWO + b"\x1c\r")
    assert payloads(frames) == [TWO]
    assert decoder.discarded == [b"MSH|cut of"]


def test_the_end_of_the_connection_completes_a_frame_that_only_lacks_its_cr() -> None:
    _, decoder = feed(b"\x0b" + ONE + b"\x1c")
    assert payloads(decoder.close()) == [ONE]
    assert decoder.partials == 0


def test_the_end_of_the_connection_discards_an_open_frame() -> None:
    _, decoder = feed(b"\x0bMSH|cut of")
    assert decoder.close() == []
    assert (decoder.partials, decoder.discarded, decoder.pending) == (1, [b"MSH|cut of"], 0)


def test_a_frame_without_payload_is_a_frame() -> None:
    assert payloads(feed(wrap(b""))[0]) == [b""]


@pytest.mark.parametrize("excess", [0, 1, 5000])
def test_the_bytes_of_a_frame_over_the_limit_are_kept_up_to_the_limit(excess: int) -> None:
    frames, decoder = feed(wrap(b"x" * (LIMIT + excess)) + wrap(ONE))
    assert payloads(frames) == [b"x" * LIMIT, ONE]
    assert [frame.oversize for frame in frames] == [excess > 0, False]
    assert decoder.pending == 0


def test_memory_stays_bounded_while_an_endless_frame_is_swallowed() -> None:
    decoder = FrameDecoder(LIMIT)
    decoder.feed(b"\x0b")
    chunk = b"y" * 4096 + b"\x1c" + b"y"
    for _ in range(300):
        assert decoder.feed(chunk) == []
        assert decoder.pending <= LIMIT + AHEAD_BYTES
    (frame,) = decoder.feed(b"\x1c\r")
    assert (frame.oversize, len(frame.payload)) == (True, LIMIT)
    assert payloads(decoder.feed(wrap(ONE))) == [ONE]


def test_a_large_frame_fed_byte_by_byte_arrives_whole() -> None:
    payload = bytes(range(32, 127)) * 3000
    frames, _ = feed(*(bytes((byte,)) for byte in wrap(payload)), limit=len(payload))
    assert frames == [Frame(payload=payload)]


def test_wrap_refuses_bytes_that_would_break_the_frame() -> None:
    for payload in (b"a\x0bb", b"a\x1c\rb", b"a\x1c"):
        with pytest.raises(ValueError, match="framing bytes"):
            wrap(payload)


def test_a_frame_never_shows_its_payload() -> None:
    frame = Frame(payload=b"secret")
    assert "secret" not in repr(frame)
    with pytest.raises(TypeError):
        f"{frame}"


@given(STREAMS, st.lists(st.integers(0, 500), max_size=12), st.integers(1, 60))
def test_a_stream_gives_the_same_frames_however_it_is_split(stream: bytes, places: list[int], limit: int) -> None:
    whole = FrameDecoder(limit)
    pieces = FrameDecoder(limit)
    discarded: list[bytes] = []
    frames: list[Frame] = []
    for chunk in cut(stream, places):
        frames += pieces.feed(chunk)
        discarded += pieces.discarded
        assert pieces.pending <= max(limit, AHEAD_BYTES) + AHEAD_BYTES
    assert [replace(frame, cut=False) for frame in whole.feed(stream)] == [replace(one, cut=False) for one in frames]
    assert whole.discarded == discarded
    assert (whole.junk_bytes, whole.partials, whole.in_frame, whole.end_pending) == (
        pieces.junk_bytes,
        pieces.partials,
        pieces.in_frame,
        pieces.end_pending,
    )
    assert whole.close() == pieces.close()


@given(st.lists(st.binary(max_size=40), max_size=10), st.integers(1, 30))
def test_no_bytes_make_the_decoder_raise_and_memory_is_bounded(chunks: list[bytes], limit: int) -> None:
    decoder = FrameDecoder(limit)
    for chunk in chunks:
        for frame in decoder.feed(chunk):
            assert len(frame.payload) <= limit
        assert decoder.pending <= max(limit, AHEAD_BYTES) + AHEAD_BYTES
        assert sum(map(len, decoder.discarded)) <= limit + len(chunk)
    decoder.close()


@given(st.lists(st.binary(max_size=60).filter(lambda p: b"\x0b" not in p and b"\x1c" not in p), max_size=8), STREAMS)
def test_what_is_wrapped_comes_out_again_whatever_was_sent_before(messages: list[bytes], before: bytes) -> None:
    decoder = FrameDecoder(LIMIT)
    decoder.feed(before)
    decoder.close()
    assert payloads(decoder.feed(b"".join(map(wrap, messages)))) == messages


@pytest.mark.parametrize(
    "text", [b"\x0b", b"\x0b\x0b", b"\x0bMS", b"\x0bMSHA", b"\x0bMSH note", b"\x0b \r PID|1|", b"\x0bBTS|1", b"x\x0b"]
)
def test_a_0b_without_a_header_behind_it_is_text(text: bytes) -> None:
    payload = ONE + b"NTE|1||soft" + text + b"return\r"
    wanted = [Frame(payload=payload, deviations=(START_BYTE_IN_PAYLOAD,)), Frame(payload=TWO)]
    assert feed(b"\x0b" + payload + b"\x1c\r" + wrap(TWO))[0] == wanted
    assert feed(*(bytes((byte,)) for byte in b"\x0b" + payload + b"\x1c\r" + wrap(TWO)))[0] == wanted


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\r\n", b" \x00\t"])
@pytest.mark.parametrize("header", [b"MSH|^~\\&|", b"FHS|^~\\&|", b"BHS$%*!@$", b"msh|^~\\&|"])
def test_a_0b_with_a_header_behind_it_starts_a_frame_however_it_is_split(mark: bytes, header: bytes) -> None:
    second = mark + header + b"B\r"
    stream = b"\x0bMSH|cut of\x0b" + second + b"\x1c\r"
    for at in range(1, len(stream)):
        frames, decoder = feed(stream[:at], stream[at:])
        assert frames == [Frame(payload=second, deviations=(START_INSIDE_FRAME,))]
        assert decoder.partials == 1


def test_a_million_starts_take_no_time() -> None:
    decoder = FrameDecoder(1 << 20)
    began = time.perf_counter()
    for _ in range(64):
        decoder.feed(b"\x0b" * 16_384)
    assert time.perf_counter() - began < 5
    assert decoder.pending <= 1 << 20


ENCODINGS = ["utf-16-le", "utf-16-be", "utf-16", "utf-32-le", "utf-32-be", "utf-32"]
# names whose letters hold the bytes 0B, 1C and 0D in one place or the other
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    st.sampled_from("\u0d1c\u1c0d\u041c\u0d0b\u0b1c\u0b95\u0b4d\u4d0b\u5300\u0d0d\u1c1c\u0a1c\u1c0a\u1c00AM^|\r"),
    max_size=12,
)


def wide_message(text: str, encoding: str) -> bytes:
    return f"MSH|^~\\&|A|B|C|D|20260101||ADT^A01|7|P|2.5.1\rPID|1||7^^^MRN||{text}\rPV1|1|I\r".encode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(st.data())
def test_a_message_in_utf_16_or_utf_32_is_kept_whole_whatever_its_bytes_and_however_they_are_split(
    encoding: str, data: st.DataObject
) -> None:
    message = wide_message(data.draw(ANY_TEXT), encoding)
    places = data.draw(st.lists(st.integers(0, 1000), max_size=6))
    decoder = FrameDecoder(4096)
    frames = [frame for chunk in cut(b"\x0b" + message + b"\x1c\r", places) for frame in decoder.feed(chunk)]
    frames += decoder.flush_pending_end()
    assert payloads(frames) == [message]
    assert is_wide(frames[0].payload)
    assert payloads(decoder.feed(wrap(TWO))) == [TWO]


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(st.data())
def test_pauses_in_a_wide_message_make_pieces_of_it_and_no_message(encoding: str, data: st.DataObject) -> None:
    message = wide_message(data.draw(ANY_TEXT), encoding)
    places = data.draw(st.lists(st.integers(0, 1000), max_size=6))
    decoder = FrameDecoder(4096)
    frames: list[Frame] = []
    for chunk in cut(b"\x0b" + message + b"\x1c\r", places):
        frames += [*decoder.feed(chunk), *decoder.flush_pending_end()]
    frames += decoder.close()
    first, *rest = frames
    assert is_wide(first.payload)
    assert all(piece.rest for piece in rest)
    kept = sum(map(len, payloads(frames)))
    assert kept + decoder.junk_bytes >= len(message) - 8 * len(places), "only the bytes of ends are taken away"


def test_wide_messages_that_are_pipelined_are_kept_one_by_one_and_the_next_ordinary_one_is_a_frame() -> None:
    one, two = wide_message("\u0d1c", "utf-16"), wide_message("\u0b95\u041c", "utf-16-be")
    frames, decoder = feed(wrap_wide(one) + wrap_wide(two) + wrap(TWO))
    assert payloads(frames) == [one, two, TWO]
    assert not any(frame.rest for frame in frames)
    assert not decoder.in_frame


def test_a_wide_message_whose_frame_is_wide_too_is_kept_without_its_end() -> None:
    for encoding in ENCODINGS:
        message = wide_message("\u0d1c", encoding)
        start, end = "\x0b".encode(encoding), "\x1c\r".encode(encoding)
        decoder = FrameDecoder(4096)
        frames = [*decoder.feed(start + message + end), *decoder.flush_pending_end()]
        assert len(frames) == 1
        assert is_wide(frames[0].payload)
        assert message.strip(b"\0\xff\xfe")[-20:-4] in frames[0].payload


def test_an_unfinished_wide_message_is_kept_at_the_end_of_the_connection() -> None:
    message = wide_message("ADA", "utf-16")
    _, decoder = feed(b"\x0b" + message)
    assert payloads(decoder.close()) == [message]
    assert decoder.partials == 0


def test_a_wide_message_over_the_limit_is_kept_up_to_the_limit() -> None:
    message = wide_message("x" * 5000, "utf-16")
    decoder = FrameDecoder(LIMIT)
    for chunk in cut(b"\x0b" + message + b"\x1c\r", list(range(0, 10_000, 97))):
        assert decoder.feed(chunk) == []
        assert decoder.pending <= LIMIT + 120
    assert decoder.flush_pending_end() == [Frame(payload=message[:LIMIT], oversize=True)]
    assert payloads(decoder.feed(wrap(ONE))) == [ONE]


# --- 1C 0D inside of a message of single bytes ---

RESTS = [REST, b"s", b"OBX", b"PV1|1|I\r", b"\xe9t\xe9\r", b"a\x0bb", b"a\x1cb\r", b"a\x1c\rb\r"]
SPLITS = st.lists(st.integers(0, 200), max_size=6)


@pytest.mark.parametrize("rest", RESTS)
@pytest.mark.parametrize("blanks", [b"", b"\n", b" \x00\t"])
def test_the_rest_of_a_message_that_its_text_cut_is_kept_and_the_cut_one_is_known(rest: bytes, blanks: bytes) -> None:
    frames, decoder = feed(wrap_wide(CUT) + blanks + rest + b"\x1c\r" + wrap(TWO))
    assert payloads(frames) == [CUT, rest, TWO]
    assert [(frame.cut, frame.rest) for frame in frames] == [(True, False), (False, True), (False, False)]
    assert frames[1].deviations == (JUNK_BEFORE_FRAME,)
    assert decoder.junk_bytes == len(blanks)


@given(st.sampled_from(RESTS), SPLITS)
def test_the_rest_of_a_message_is_the_same_however_it_is_split(rest: bytes, places: list[int]) -> None:
    frames, decoder = feed(*cut(wrap_wide(CUT) + rest + b"\x1c\r" + wrap(TWO), places))
    assert payloads(frames) == [CUT, rest, TWO]
    assert [frame.rest for frame in frames] == [False, True, False]
    assert not decoder.in_frame


@given(SPLITS)
def test_pauses_in_the_rest_of_a_message_make_pieces_of_it_and_no_message(places: list[int]) -> None:
    decoder = FrameDecoder(LIMIT)
    frames: list[Frame] = []
    for chunk in cut(wrap_wide(CUT) + REST + b"\x1c\r", places):
        frames += [*decoder.feed(chunk), *decoder.flush_pending_end()]
    frames += decoder.flush_pending_end()
    first, *rest = frames
    assert first.payload == CUT
    assert all(piece.rest for piece in rest)
    assert b"".join(payloads(rest)).translate(None, b"\r ") == REST.translate(None, b"\r "), "but blanks between pauses"
    assert not decoder.in_frame
    assert payloads(decoder.feed(wrap(b"\x06") + wrap(TWO))) == [b"\x06", TWO]


def test_a_segment_behind_a_frame_is_the_rest_of_it_though_the_frame_ends_as_it_should() -> None:
    for whole in (ONE, ONE + b"\n"):
        frames, _ = feed(wrap_wide(whole) + b"PV1|1|I\r\x1c\r" + wrap(TWO))
        assert [(frame.payload, frame.cut, frame.rest) for frame in frames] == [
            (whole, True, False),
            (b"PV1|1|I\r", False, True),
            (TWO, False, False),
        ]


def test_a_message_without_its_start_is_kept_and_the_one_before_it_is_whole() -> None:
    frames, _ = feed(wrap(ONE) + TWO + b"\x1c\r" + wrap(ONE))
    assert [(frame.payload, frame.cut, frame.rest) for frame in frames] == [
        (ONE, False, False),
        (TWO, False, True),
        (ONE, False, False),
    ]


@pytest.mark.parametrize("text", [b"PV", b"PV1", b"P", b"PV1 ", b"GET / HTTP/1.1\r\n\r\n", b"pv1|", b"1PV|", b"PV1a"])
def test_text_behind_a_whole_message_is_junk_unless_it_begins_with_a_segment(text: bytes) -> None:
    for stream in ([wrap(ONE) + text + wrap(TWO)], [wrap(ONE), *(bytes((one,)) for one in text), wrap(TWO)]):
        frames, decoder = feed(*stream)
        assert payloads(frames) == [ONE, TWO]
        assert not any(frame.cut or frame.rest for frame in frames)
        assert decoder.junk_bytes == len(text)
        decoder.feed(text)
        assert decoder.flush_pending_end() == []
        assert (decoder.junk_bytes, decoder.in_frame) == (2 * len(text), False)


def test_a_segment_behind_a_whole_message_is_its_rest_however_it_is_split() -> None:
    stream = wrap(ONE) + b"PV1|1|I\r\x1c\r" + wrap(TWO)
    for at in range(1, len(stream)):
        assert payloads(feed(stream[:at], stream[at:])[0]) == [ONE, b"PV1|1|I\r", TWO]


def test_what_follows_junk_is_junk_whatever_it_looks_like_and_however_it_is_split() -> None:
    junk = b"|20240501|Y\rPD1||S\r"
    stream = wrap(ONE) + junk + wrap(TWO)
    for at in range(1, len(stream)):
        frames, decoder = feed(stream[:at], stream[at:])
        assert (payloads(frames), decoder.junk_bytes) == ([ONE, TWO], len(junk))


def test_a_line_feed_inside_of_a_text_is_no_end_of_its_segment() -> None:
    frames, _ = feed(wrap_wide(CUT + b"\n") + b"on the next line\r\x1c\r")
    assert frames[0].cut


def test_what_follows_the_end_of_a_rest_at_once_is_a_frame_whatever_it_holds() -> None:
    frames, _ = feed(wrap_wide(CUT) + REST + b"\x1c\r" + COMMIT_ACK + wrap(TWO))
    assert payloads(frames) == [CUT, REST, COMMIT_ACK_PAYLOAD, TWO]
    assert [frame.rest for frame in frames] == [False, True, False, False]


def test_behind_the_end_of_a_connection_there_is_no_message_to_belong_to() -> None:
    _, decoder = feed(wrap(CUT))
    decoder.close()
    assert decoder.feed(REST + wrap(TWO))[0].payload == TWO


@pytest.mark.parametrize("text", [b"hello", b"PV1|1|I\r"])
def test_text_before_the_first_frame_is_junk(text: bytes) -> None:
    frames, decoder = feed(text + wrap(CUT))
    assert [(frame.payload, frame.rest) for frame in frames] == [(CUT, False)]
    assert decoder.junk_bytes == len(text)


def test_blanks_behind_a_message_without_its_last_cr_cut_nothing() -> None:
    frames, decoder = feed(wrap(CUT) + b"\r\n \x00\x1c\r\xef\xbb\xbf" + wrap(TWO))
    assert [(frame.payload, frame.cut) for frame in frames] == [(CUT, False), (TWO, False)]
    assert decoder.junk_bytes == 9


def test_a_rest_that_comes_later_is_kept_and_the_message_is_not_known_as_cut() -> None:
    frames, decoder = feed(wrap(CUT), REST)
    assert (payloads(frames), frames[0].cut) == ([CUT], False)
    assert decoder.end_pending
    assert [(frame.payload, frame.rest) for frame in decoder.close()] == [(REST, True)]
    assert (decoder.pending, decoder.in_frame, decoder.partials) == (0, False, 0)


def test_the_rest_of_a_message_over_the_limit_is_kept_up_to_the_limit_in_little_memory() -> None:
    decoder = FrameDecoder(LIMIT)
    decoder.feed(wrap(CUT))
    for _ in range(300):
        assert decoder.feed(b"x" * 4096) == []
        assert decoder.pending <= LIMIT + AHEAD_BYTES
    (rest, after) = decoder.feed(b"\x1c\r" + wrap(TWO))
    assert (rest.payload, rest.oversize, rest.rest) == (b"x" * LIMIT, True, True)
    assert after.payload == TWO


def wrap_wide(payload: bytes) -> bytes:
    return b"\x0b" + payload + b"\x1c\r"
