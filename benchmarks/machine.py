"""Where processes run, what they use, and what this machine is."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

CORES: Final = sorted(os.sched_getaffinity(0))
CORE_OF_SERVER: Final = CORES[0]
CORE_OF_LOAD: Final = CORES[-1]
MIB: Final = 1024 * 1024


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Let what is started inside run on one core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """Read a process's own CPU clock: all its threads, the ended ones too (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def resident(pid: int, field: str = "VmRSS") -> int:
    """Give a process's resident memory in bytes; `VmHWM` is the most it ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def forget_peak(pid: int) -> None:
    """Let `VmHWM` start anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def free_port() -> int:
    """Find a port that nobody listens on, nor on the one behind it (some servers want two)."""
    while True:
        with socket.socket() as first, socket.socket() as second, contextlib.suppress(OSError, OverflowError):
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            second.bind(("127.0.0.1", port + 1))
            return port


def raise_descriptors() -> int:
    """Allow as many descriptors as this machine lets us have, and give their number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def describe() -> dict[str, Any]:
    """Say in general words what the figures were measured on."""
    return {
        "cores": len(CORES),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}".split("-")[0],
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }
