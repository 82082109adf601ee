"""The messages of the tests are of 2026, and a real daemon works on them whenever the tests run.

So their sites plan discharges of any age, which the shipped protocol does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

PROTOCOL: Final = "mappings/protocols/post-discharge.yaml"
_OF_ANY_AGE: Final[Mapping[str, str]] = {
    "# discharge_age_days_max: 30": "discharge_age_days_max: unlimited",
    "page_fresh: {hours: 12}": "page_fresh: {days: 10000}",
}


def of_any_age(text: str) -> str:
    """The shipped protocol, that plans discharges of any age."""
    for shipped, changed in _OF_ANY_AGE.items():
        assert shipped in text
        text = text.replace(shipped, changed)
    return text


def plans_old_discharges(site: Path) -> None:
    """site: the folder of one."""
    file = site / PROTOCOL
    file.write_text(of_any_age(file.read_text(encoding="utf-8")), encoding="utf-8")
    file.with_suffix(".test.yaml").unlink()  # it is of the protocol as it is shipped
