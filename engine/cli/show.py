"""The one place that decides how much of a patient is shown: masked, or revealed with a reason that is audited.

Masked output stays useful: states, times, task kinds, codes of disposition and the structure stay; who it is goes. A
patient (or visit) key becomes a pseudonym, `MRN:~3f9a1c2b`, the same one for the same patient everywhere, which
commands take in place of the key. An authority that no channel is configured with is what a sender wrote: `~5be7d2aa`.
So is the name of a sender (MSH-3/MSH-4) that the site does not name and of which nothing listed was processed: in a
message that is garbage a patient's name may stand there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

from engine.domain.parts import PARTS

HIDDEN: Final = "***"
PSEUDONYM: Final = re.compile(r"(?P<authority>[^:]*):~(?P<hash>[0-9a-f]{8})")

_ANSWERS: Final = frozenset({"AA", "AE", "AR", "CA", "CE", "CR"})
_CODE: Final = re.compile(r"[A-Za-z0-9]{1,4}")

# What stays visible of a patient (of other parts: `domain.parts`); everything else is hidden, so that a field which is
# added later is hidden until someone decides.
_PATIENT: Final = frozenset({"deceased", "lives_alone", "transportation", "active_medications"})
_PATIENT_CODES: Final = frozenset({"sex"})
_MASKS: Final = {part.what: part.mask for part in PARTS}
_KEYS_OF_CONTENTS: Final = ("patient_key", "survivor", "merged")
_FLAGS_OF_CONTENTS: Final = ("decides", "withdrawn")


class View:
    """The contract's shapes as they may be shown. `pseudonym` gives the stable stand-in of a patient or visit key."""

    def __init__(
        self, pseudonym: Callable[[str], str], *, revealed: bool, unnamed: Callable[[str], str] | None = None
    ) -> None:
        """unnamed: what of a sender's name the site does not name, replaced; none: a sender is not hidden."""
        self._pseudonym = pseudonym
        self._unnamed = unnamed
        self.revealed = revealed

    def key(self, key: str | None) -> str | None:
        return key if key is None or self.revealed else self._pseudonym(key)

    def sender(self, sender: str | None, *, known: bool) -> str | None:
        """MSH-3/MSH-4, `EPIC/MAIN`. known: a message that it sent was accepted and processed."""
        if known or self.revealed or self._unnamed is None or not sender:
            return sender
        return self._unnamed(sender)

    def receipt(self, receipt: str | None) -> str | None:
        """The far end's word for a delivery: an id, which may be anybody's, or the code of an HL7 answer."""
        return receipt if receipt in _ANSWERS else self.text(receipt)

    def text(self, text: str | None) -> str | None:
        """A text that may hold anything."""
        return text if self.revealed else hide(text)

    def patient(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        if self.revealed:
            return dict(shape)
        masked = _hide_but(shape, _PATIENT, _PATIENT_CODES)
        masked["key"] = self.key(shape["key"])
        masked["identifiers"] = [
            _hide_but(item, (), {"type"}) | {"authority": self._pseudonym(f"{item['authority']}:").partition(":")[0]}
            for item in shape["identifiers"]
        ]
        masked["merged_from"] = [self.key(key) for key in shape["merged_from"]]
        return masked

    def part(self, what: str, shape: Mapping[str, Any]) -> dict[str, Any]:
        """One of the parts of a chart: `encounter`, `score`, `task`."""
        if self.revealed:
            return dict(shape)
        mask = _MASKS[what]
        masked = dict(shape) if mask.shown is None else _hide_but(shape, mask.shown, mask.codes)
        masked |= {name: self.key(shape[name]) for name in mask.keys if name in shape}
        inner = {
            name: [_hide_but(item, shown) for item in shape[name]]
            for name, shown in mask.inner.items()
            if name in shape
        }
        return masked | inner

    def chart(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        return self.patient(shape) | {
            part.name: [self.part(part.what, item) for item in shape[part.name]] for part in PARTS
        }

    def payload(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of a delivery, part by part; what has no mask here is hidden."""
        if self.revealed:
            return dict(payload)
        masks: dict[str, Callable[[Any], Any]] = {
            "patient": self.patient,
            **{what: partial(self.part, what) for what in _MASKS},
            **dict.fromkeys(_KEYS_OF_CONTENTS, self.key),
        }
        shown = {name: payload[name] for name in _FLAGS_OF_CONTENTS if name in payload}
        return {name: masks.get(name, hide)(value) for name, value in payload.items()} | shown


def hide(value: Any) -> Any:
    """The same structure without its content. What was absent stays absent."""
    if isinstance(value, Mapping):
        return {name: hide(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [hide(item) for item in value]
    return None if value is None else HIDDEN


def _hide_but(item: Mapping[str, Any], shown: Collection[str], codes: Collection[str] = frozenset()) -> dict[str, Any]:
    """codes: fields that are shown when they hold a short code, as they should, and no text."""

    def visible(name: str, value: Any) -> bool:
        return name in shown or (name in codes and isinstance(value, str) and _CODE.fullmatch(value) is not None)

    return {name: value if visible(name, value) else hide(value) for name, value in item.items()}
