"""The end of a process, and what is to be done before it."""

from __future__ import annotations

import atexit
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LAST = -100
"""Behind the finalizers of queues and pools, which may publish (`multiprocessing.util.Finalize`)."""


def at_end(call: Callable[[], None]) -> Callable[[], None]:
    """Have something called when this process ends; gives what takes that back.

    A process that `multiprocessing` has forked leaves by `os._exit`, past `atexit`: only the finalizers of
    that library are called there. Where both are, it is called twice.
    """
    atexit.register(call)
    finalizer = None
    if "multiprocessing.util" in sys.modules:  # as it is in each of its processes
        from multiprocessing import parent_process
        from multiprocessing.util import Finalize

        finalizer = None if parent_process() is None else Finalize(None, call, exitpriority=_LAST)

    def forget() -> None:
        atexit.unregister(call)
        if finalizer is not None:
            finalizer.cancel()

    return forget
