"""Open files: each client takes one, and most systems give a process 1,024 where it could have many more."""

from __future__ import annotations

import resource
from typing import Final

import structlog

log = structlog.get_logger("steadcast.descriptors")

MOST: Final = 65_536
"""So many a server asks for, where the system lets it."""


def reachable() -> int:
    """Tell how many files a server may have open, once it has asked for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(soft, MOST if hard == resource.RLIM_INFINITY else min(hard, MOST))


def reach() -> int:
    """Ask for as many as may be; tells how many there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = reachable()
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        # macOS has another limit above, which it doesn't tell.
        log.warning("no more open files are to be had", limit=soft, error=str(error))
        return soft
    return wanted
