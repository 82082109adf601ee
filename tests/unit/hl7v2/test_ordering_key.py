"""The ordering key is the first id of PID-3, under any delimiters, or nothing."""

import pytest

from engine.hl7v2.header import read_header
from engine.hl7v2.ordering import ordering_key

HEADER = b"MSH|^~\\&|A|B|C|D|20260301||ADT^A01^ADT_A01|1|P|2.5.1"


def key_of(*segments: bytes, header: bytes = HEADER, end: bytes = b"\r") -> bytes:
    payload = end.join((header, *segments, b""))
    return ordering_key(payload, read_header(payload))


@pytest.mark.parametrize(
    ("pid", "key"),
    [
        (b"PID|1||123^^^H^MR~9^^^X", b"123"),
        (b"PID|1|77| 123 ^^^H", b"123"),
        (b"PID|1||123&4", b"123"),
        (b"PID|1||123", b"123"),
        (b"PID|||~123", b""),
        (b"PID|1|", b""),
        (b"PID|1", b""),
        (b"PIDX|1||123", b""),
        (b"PID|1|" + b"7" * 2000 + b"|123", b""),
        (b"PID|1||" + b"7" * 2000, b"7" * 1017),
    ],
)
def test_the_key_is_the_first_id_of_the_third_field(pid: bytes, key: bytes) -> None:
    assert key_of(b"EVN|A01", pid, b"PV1|1|I") == key


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_any_line_end_ends_the_segment(end: bytes) -> None:
    assert key_of(b"PID|1||123", b"PV1|1|I", end=end) == b"123"
    assert key_of(b"PID|1", b"|2|9", end=end) == b""


def test_only_a_segment_at_the_start_of_a_line_counts() -> None:
    assert key_of(b"NTE|1|see PID|1||9^^^H", b"PID|1||123^^^H") == b"123"
    assert key_of(b"NTE|1|see PID|1||9^^^H") == b""


@pytest.mark.parametrize(
    ("delimiters", "pid"),
    [
        (b"$^~\\&", b"PID$1$$12^H~3"),
        (b"|]-\\[", b"PID|1||12]H-3"),
        (b"|^~\\.", b"PID|1||12.H"),
        (b"*^~\\&", b"PID*1**12"),
    ],
)
def test_the_delimiters_are_those_of_the_message(delimiters: bytes, pid: bytes) -> None:
    assert key_of(pid, header=HEADER.replace(b"|", delimiters[:1]).replace(b"^~\\&", delimiters[1:])) == b"12"
