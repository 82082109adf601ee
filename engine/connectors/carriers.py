"""What carriers of texts have in common: what their refusals mean, where they tell us what became of a text, and how a
page reads as a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal
from urllib.parse import quote

from engine.connectors.base import Result, failed, in_doubt
from engine.domain.delivery import Notification
from engine.domain.page import ack_code
from engine.errors import DeliveryFailure
from engine.settings import Configuration

KEY_PARAMETER: Final = "of"
"""Of the address at which a carrier tells what became of a text: the idempotency key of its delivery."""
NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
"""E.164."""
SHORT_CODE: Final = re.compile(r"[0-9]{3,8}", re.ASCII)
RECEIPT: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:-]{0,127}", re.ASCII)
"""What a carrier may call a text."""
TEXT_CHARS_MAX: Final = 4096
"""Of a text that comes in."""
BODY_CHARS_MAX: Final = 1600

Kind = Literal["number", "region", "text", "opted-out", "template", "setup", "busy", "late", "doubt", "refused"]
"""What a refusal is about."""
_PREFIXES: Final[Mapping[Kind, str]] = {
    "number": "bad-number",
    "region": "bad-region",
    "text": "bad-text",
    "opted-out": "opted-out",
    "template": "needs-template",
    "setup": "carrier-setup",
    "busy": "carrier-busy",
    "late": "carrier-late",
    "doubt": "carrier-doubt",
    "refused": "carrier-refused",
}
_SAID: Final[Mapping[Kind, str]] = {
    "number": "the number can't be texted",
    "region": "the account may not text numbers of that region",
    "text": "the carrier does not carry these words",
    "opted-out": "whoever has the number wants no texts from us",
    "template": "outside of WhatsApp's 24 hours only an approved template goes",
    "setup": "the account or its sender is not in order",
    "busy": "the carrier takes nothing now",
    "late": "the carrier could not send it in time",
    "doubt": "the carrier does not say whether it was sent",
    "refused": "the carrier refuses it",
}


def code_of(kind: Kind, number: int) -> str:
    """A code of ours for a carrier's: `opted-out-21610`."""
    return f"{_PREFIXES[kind]}-{number}"


def refusal(kind: Kind, number: int, *, not_before: datetime | None = None, is_busy: bool = False) -> Result:
    """What a refusal makes of a text. What is about the account stops all texts; what is about a number, or about these
    words, that text alone. is_busy: the carrier takes nothing now, whatever the code says besides.
    """
    code, text = code_of(kind, number), _SAID[kind]
    if kind == "doubt":
        return in_doubt(code, text)
    if kind in {"busy", "setup"} or is_busy:
        return failed(DeliveryFailure.TRANSIENT, code, text, of_destination=True, not_before=not_before)
    return failed(DeliveryFailure.PERMANENT, code, text)


def hooks_url(configuration: Configuration) -> str | None:
    """The address of our hooks, as far ends reach it; none: nobody can."""
    hooks = configuration.site.hooks
    if hooks is None:
        return None
    if hooks.public_url is not None:
        return hooks.public_url
    return f"http://{hooks.host}:{hooks.port}" if hooks.port else None


def status_url(hooks: str, destination: str, key: str) -> str:
    """Where a carrier tells what becomes of a text, whatever comes first: its word, or the answer to our call."""
    return f"{hooks}/hooks/{destination}/status?{KEY_PARAMETER}={quote(key, safe='')}"


def page_text(said: Notification, console_url: str | None) -> str:
    """Nothing of a patient: staff texting of patient data is allowed on secure platforms only."""
    link = f" {console_url}/{said.link.lstrip('/')}" if console_url is not None else ""
    return f"{said.text}{link} Reply ACK {ack_code(said.page_id)}"
