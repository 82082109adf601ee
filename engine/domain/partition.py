"""Partitions: how the work is shared out. All messages that name a patient the same way are in the same one."""

from __future__ import annotations

from typing import Final

PARTITIONS: Final = 64
"""Each is owned by one worker at a time, so this many workers of all nodes together can share the work. It is part of
what is stored: another number would put the messages of a patient into another partition than before."""

ALL_PARTITIONS: Final = frozenset(range(PARTITIONS))
