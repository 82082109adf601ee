"""The vocabulary as JSON and back: what msgspec does, and a `Moment` as its text (`shapes.plain`: as plain values).

What holds records of `engine.domain` is encoded and decoded here; msgspec alone knows no `Moment`.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, TypeVar

import msgspec

from engine.domain.moment import made

T = TypeVar("T")

text_of: Final = attrgetter("text")  # in C, as `made` is: half the cost of a function of ours

encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder(enc_hook=text_of).encode
"""A record as JSON."""


def decoder(kind: type[T]) -> Callable[[bytes], T]:
    """Reads JSON as a record of this type. What it gives raises msgspec.DecodeError."""
    return msgspec.json.Decoder(kind, dec_hook=made).decode


def converted(value: Any, kind: type[T]) -> T:
    """Plain values as a record. Raises msgspec.ValidationError."""
    return msgspec.convert(value, kind, dec_hook=made)
