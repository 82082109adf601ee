"""What the engine reads out of a message's bytes before it works on a chart: charset, deviations, who is meant."""

from __future__ import annotations

import pytest
from heart import Heart, adt

from engine.domain.message import EntryState


def named(family: bytes, charset: bytes = b"") -> bytes:
    """An update of a patient of that name, in bytes, that declares the charset in MSH-18."""
    header, rest = adt("A28", pid={5: "FAMILY^Jane"}).split(b"\r", 1)
    return (header + b"||||||" + charset if charset else header) + b"\r" + rest.replace(b"FAMILY", family)


@pytest.mark.parametrize(
    ("payload", "changes", "family", "charset", "deviation"),
    [
        pytest.param(named("Müller".encode()), {}, "Müller", "utf-8", None, id="nothing declared"),
        pytest.param(named(b"\xef\xe4", b"8859/5"), {}, "яф", "iso8859-5", None, id="MSH-18"),
        pytest.param(
            named(b"M\xfcller"), {"charset": {"default": "iso8859-15"}}, "Müller", "iso8859-15", None, id="channel's"
        ),
        pytest.param(
            named(b"\xef\xe4", b"8859/5~ASCII"), {"charset": {"default": "iso8859-1"}}, "яф", "iso8859-5", None,
            id="the first repetition of MSH-18 before the channel's",
        ),
        pytest.param(named(b"M\xfcller"), {}, "Müller", "windows-1252", "charset-fallback", id="last resort"),
        pytest.param(
            named(b"M\xfcller", b"UNICODE UTF-8"), {}, "Müller", "windows-1252", "charset-undecodable",
            id="declared and not so",
        ),
        pytest.param(
            b"\xef\xbb\xbf" + named("Müller".encode(), b"8859/1"), {}, "Müller", "utf-8", "byte-order-mark",
            id="a byte order mark before MSH-18",
        ),
    ],
)  # fmt: skip
def test_the_charset_that_a_message_was_read_with_is_recorded_with_its_outcome(
    payload: bytes, changes: dict[str, object], family: str, charset: str, deviation: str | None
) -> None:
    heart = Heart(**changes)
    outcome = heart.send(payload)
    assert outcome.charset == charset
    assert heart.chart().patient.name is not None
    assert heart.chart().patient.name.family == family
    assert deviation is None or deviation in outcome.deviations


@pytest.mark.parametrize(
    ("end", "deviation"),
    [(b"\n", "line-feed-terminator"), (b"\r\n", "line-feed-terminator"), (b"", "final-cr-missing")],
)
def test_strange_ends_of_segments_are_recorded_as_a_deviation_and_change_nothing_else(
    end: bytes, deviation: str
) -> None:
    plain = adt("A28")
    odd = plain.replace(b"\r", end) if end else plain.rstrip(b"\r")
    first, second = Heart(), Heart()
    usual = set(first.send(plain).deviations)
    assert set(second.send(odd).deviations) - usual == {deviation}
    assert second.chart().patient == first.chart().patient


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_the_patients_key_is_chosen_by_type_and_authority_wherever_it_stands_and_is_never_the_whole_field(
    order: slice,
) -> None:
    repetitions = ["123-45-6789^^^USA^SS", "9^^^PAYER^XX", "4711^3^M11^MRN&1.2.840&ISO^MR^MAIN", "77^^^LAB^PI"]
    heart = Heart(identity={"authority": "MRN", "types": ["MR", "PI"], "authorities": ["MRN"]})
    outcome = heart.send(adt("A28", pid3="~".join(repetitions[order])))
    assert outcome.patient_key == "MRN:4711"


@pytest.mark.parametrize(
    ("pid", "key"),
    [
        ({2: "4711^^^MRN^PT", 3: ""}, "MRN:4711"),
        ({3: "", 4: "4711^^^MRN^MR"}, "MRN:4711"),
        ({2: "9^^^MRN^PT", 3: "4711^^^MRN^MR", 4: "8^^^MRN^MR"}, "MRN:4711"),
    ],
)
def test_pid_2_and_pid_4_name_the_patient_for_senders_that_leave_pid_3_empty(pid: dict[int, str], key: str) -> None:
    assert Heart().send(adt("A28", pid=pid)).patient_key == key


@pytest.mark.parametrize(
    ("pid3", "shared"),
    [("4711^^^REGION^MR", True), ("4711", False), ("4711^^^^MR", False)],
)
def test_two_channels_share_a_patient_only_through_an_authority_that_both_name(pid3: str, shared: bool) -> None:
    east, west = Heart(name="east", identity={}), Heart(name="west", identity={})
    west.charts = east.charts
    first, second = east.send(adt("A28", pid3=pid3)), west.send(adt("A31", at="20260307120000", pid3=pid3))
    assert {first.state, second.state} == {EntryState.PROCESSED}
    assert (first.chart_id == second.chart_id) is shared
    assert (first.patient_key == second.patient_key) is shared
