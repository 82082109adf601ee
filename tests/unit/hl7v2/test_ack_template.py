"""A plain answer out of a template is the very bytes that putting it together gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from engine.domain.message import AckCode
from engine.hl7v2 import ack
from engine.hl7v2.ack import Verdict, acknowledge
from engine.hl7v2.header import HeaderError, read_header

FIELD = st.text(st.characters(min_codepoint=1, max_codepoint=0x17F, exclude_characters="\r\n|\x0b\x1c"), max_size=12)


@given(
    fields=st.lists(FIELD, min_size=10, max_size=17),
    charset=st.sampled_from(["", "UNICODE UTF-8", "8859/1", "ASCII", "nonsense"]),
    event=st.sampled_from(["ADT^A01^ADT_A01", "ADT^A08", "ADT"]),
    code=st.sampled_from([AckCode.AA, AckCode.CA]),
    second=st.integers(0, 4_000_000_000),
    hours=st.integers(-12, 14),
)
def test_a_template_gives_the_same_bytes(
    fields: list[str], charset: str, event: str, code: AckCode, second: int, hours: int
) -> None:
    fields = [*fields, *[""] * (17 - len(fields))]
    fields[6] = event  # MSH-9
    fields[15] = charset  # MSH-18
    payload = "|".join(["MSH", "^~\\&", *fields]).encode() + b"\r"
    try:
        header = read_header(payload)
    except HeaderError:
        return
    now = datetime.fromtimestamp(second, UTC).astimezone(timezone(timedelta(hours=hours)))
    verdict = Verdict(code=code)
    time = now.strftime("%Y%m%d%H%M%S%z").encode()
    assert acknowledge(header, verdict, now=now, control_id="H17") == ack._compose(
        header, verdict, time, b"H17", header.raw(10)
    )


def test_a_header_of_great_length_is_mirrored_and_not_remembered() -> None:
    ack._template.cache_clear()
    now = datetime(2026, 1, 5, tzinfo=UTC)
    for number in range(3):
        long = b"E" * 100_000 + str(number).encode()
        header = read_header(b"MSH|^~\\&|" + long + b"|F|||2026||ADT^A01|7|P|2.5\r")
        assert long in acknowledge(header, Verdict(code=AckCode.AA), now=now, control_id="H1")
        header = read_header(b"MSH|^~\\&|A|F|||2026||ADT^" + long + b"|7|P|2.5\r")
        assert long in acknowledge(header, Verdict(code=AckCode.AA), now=now, control_id="H1")
    assert ack._template.cache_info().currsize == 0
