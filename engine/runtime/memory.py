"""What of this process's memory others may see: nothing."""

from __future__ import annotations

import ctypes
import resource
from typing import Final

from engine.logs import get_logger

_PR_SET_DUMPABLE: Final = 4

_log = get_logger(__name__)


def protect_memory() -> None:
    """No core file, and no debugger of another process of the same user: keys, secrets and patients are in here.

    RLIMIT_CORE alone is not enough: handlers that the kernel starts (systemd-coredump, ABRT) do not heed it.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")  # noqa: TRY301 - one answer to both
    except (OSError, ValueError, AttributeError) as error:
        _log.warning("memory of this process is not protected from others of the same user", exc_info=error)
