"""What people do to patients' follow-up: the payload of entries of the kind `act`.

An act names opaque ids only; a reason, a note or an assignee is what somebody typed, and may hold PHI.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from engine.domain.record import Phi


class _Act(Phi, frozen=True, kw_only=True, tag_field="act"):
    actor: str
    """Who does it: the operating system's user."""
    chart_id: str | None
    """The patient's chart as it was found; it may have been merged since. None: of a question about nobody known."""
    reason: str | None = None
    """Why, in the words of who does it."""


class TaskDone(_Act, frozen=True, kw_only=True, tag="task-done"):
    task: str
    """Its id."""


class TaskAssigned(_Act, frozen=True, kw_only=True, tag="task-assigned"):
    task: str
    assignee: str
    """A role or a person."""


class QuestionDismissed(_Act, frozen=True, kw_only=True, tag="dismiss"):
    """What a message asserts is not so, or was seen to by hand."""

    hold: int
    """Its number (`m12` is 12)."""
    root: int
    """The message that asks: the first entry of its chain of replays."""
    code: str
    location: str | None


Act = TaskDone | TaskAssigned | QuestionDismissed

ACTS: Final[Mapping[str, type[Act]]] = {
    "task-done": TaskDone,
    "task-assigned": TaskAssigned,
    "dismiss": QuestionDismissed,
}
"""By their tag, which is also the action in the audit."""

_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Act] = msgspec.json.Decoder(Act)


def action_of(act: Act) -> str:
    """The stable verb: `task-done`."""
    return str(act.__struct_config__.tag)


def written(act: Act) -> bytes:
    """The act as an entry's payload."""
    return _encode(act)


def read(payload: bytes) -> Act:
    """The act that an entry's payload holds. Raises ValueError; its text holds nothing of the payload."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ValueError("the payload is no act that this version knows") from None
