"""Whatever precision a chart keeps of a time can be shown."""

from __future__ import annotations

import re

import pytest
from site_with_store import Site, first_messages

SENT = {
    "2013": "2013",
    "201302": "2013-02",
    "20130228": "2013-02-28",
    "2013022810": "2013-02-28 1",
    "201302281015": "2013-02-28 1",
    "20130228101520.1234567": "2013-02-28 1",
    "20130200": "2013-02",
    "2013-02-28T10:15Z": "2013-02-28 05:15:00",
}


def admitted(site: Site, number: int, text: str) -> bytes:
    """The first message for another patient, admitted and deceased at that time."""
    payload = first_messages(site)[0].replace(b"FIRST-0001", f"TIME-{number}".encode())
    payload = payload.replace(b"558181838", f"82000{number}".encode()).replace(b"V90001", f"V8200{number}".encode())
    segments = payload.split(b"\r")
    index = next(index for index, segment in enumerate(segments) if segment.startswith(b"PV1"))
    fields = segments[index].split(b"|")
    fields += [b""] * (46 - len(fields))
    fields[44] = text.encode()
    segments[index] = b"|".join(fields)
    return b"\r".join(segments)


def test_try_shows_times_of_any_precision_in_text_and_json(bare: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    file = bare.folder / "times.hl7"
    file.write_bytes(b"\n".join(admitted(bare, number, text) for number, text in enumerate(SENT)))
    results = bare.json("try", "main-campus", str(file))
    kept = [result["encounter"]["admitted_at"] for result in results]
    assert len(kept) == len(SENT)
    assert kept[:3] == ["2013", "2013-02", "2013-02-28"]
    text = bare.run("try", "main-campus", str(file)).out
    assert [shown for shown in SENT.values() if shown not in text] == []


def test_patients_show_and_lists_show_times_of_any_precision(bare: Site) -> None:
    bare.receive(*(admitted(bare, number, text) for number, text in enumerate(SENT)))
    bare.process()
    for number, shown in enumerate(SENT.values()):
        key = f"MRN:82000{number}"
        assert shown in bare.run("patients", "show", key, "--reveal", "--reason", "test").out
        shape = bare.json("patients", "show", key, "--reveal", "--reason", "test")
        assert re.sub("T.*", "", shape["encounters"][0]["admitted_at"]) == shown.split(" ")[0]
        assert bare.run("patients", "show", key).code == 0
    for command in ("patients find --visit V82000", "messages list", "tasks list", "dead list", "held list"):
        assert bare.run(*command.split()).code == 0
