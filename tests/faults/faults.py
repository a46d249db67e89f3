"""Faults that are done to real processes and real connections; each ends what it began."""

from __future__ import annotations

import asyncio
import resource
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.faults.history import Follower, History


def process_of(history: History) -> int:
    assert history.server.process is not None
    return history.server.process.pid


def some(history: History, rng: Random) -> Follower:
    return rng.choice(history.followers)


async def rst(history: History, rng: Random) -> None:
    history.record.fault("RST", "every connection is reset")
    for _ in range(rng.randint(1, 4)):
        await history.proxy.cut()
        await asyncio.sleep(rng.uniform(0, 0.3))


async def fin(history: History, rng: Random) -> None:
    history.record.fault("FIN", "every connection is closed")
    await history.proxy.cut(reset=False)


async def half_open(history: History, rng: Random) -> None:
    if history.proxy.half_open():
        history.record.fault("half open", "the connections carry nothing any more, and neither end knows")
        await asyncio.sleep(rng.uniform(0.1, 1))


async def blackhole(history: History, rng: Random) -> None:
    history.record.fault("blackhole", "bytes are swallowed")
    history.proxy.blackhole = True
    await asyncio.sleep(rng.uniform(0.2, 3))
    history.proxy.blackhole = False
    await history.proxy.cut()  # what was swallowed is missing in the middle of each: nothing can go on


async def latency(history: History, rng: Random) -> None:
    history.record.fault("latency", "everything takes longer")
    history.proxy.latency = rng.uniform(0.05, 0.4)
    await asyncio.sleep(rng.uniform(0.5, 2))
    history.proxy.latency = 0.0


async def bandwidth(history: History, rng: Random) -> None:
    history.record.fault("1 KB/s", "1,000 bytes a second come through")
    history.proxy.bandwidth = 1_000
    await asyncio.sleep(rng.uniform(0.5, 2.5))
    history.proxy.bandwidth = None


async def refusing(history: History, rng: Random) -> None:
    history.record.fault("refused", "no connection is taken")
    history.proxy.refusing = True
    await history.proxy.cut()
    await asyncio.sleep(rng.uniform(0.2, 1.5))
    history.proxy.refusing = False


async def server_killed(history: History, rng: Random) -> None:
    history.record.fault("server SIGKILL", "the server is killed")
    await asyncio.to_thread(history.server.kill)
    await asyncio.sleep(rng.uniform(0, 0.5))
    await asyncio.to_thread(history.server.start)


async def server_stopped(history: History, rng: Random) -> None:
    assert history.server.process is not None
    history.record.fault("server SIGSTOP", "the server stands still")
    history.server.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(rng.uniform(0.3, 3))
    history.server.process.send_signal(signal.SIGCONT)


async def server_drained(history: History, rng: Random) -> None:
    history.record.fault("drain", "the server is told to stop, and started again")
    await asyncio.to_thread(history.server.kill, signal.SIGTERM)
    await asyncio.sleep(rng.uniform(0, 0.3))
    await asyncio.to_thread(history.server.start)


async def subscriber_killed(history: History, rng: Random) -> None:
    who = some(history, rng)
    history.record.fault("subscriber SIGKILL", f"{who.name} is killed")
    await who.kill()
    await asyncio.sleep(rng.uniform(0, 0.5))
    who.start()


async def subscriber_stopped(history: History, rng: Random) -> None:
    who = some(history, rng)
    history.record.fault("subscriber SIGSTOP", f"{who.name} stands still")
    who.send(signal.SIGSTOP)
    await asyncio.sleep(rng.uniform(0.3, 5))
    who.send(signal.SIGCONT)


async def file_too_large(history: History, rng: Random) -> None:
    """Let no file of the server's grow any more: SQLite meets EFBIG, and tells it as SQLITE_IOERR."""
    history.record.fault("disk: file-size limit", "no file may grow: SQLITE_IOERR")
    pid = process_of(history)
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (history.wal(), hard))
    await history.until_ready(503)
    await asyncio.sleep(rng.uniform(0, 0.5))
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    await history.until_ready()


FAULTS: dict[str, Callable[[History, Random], Any]] = {
    fault.__name__: fault
    for fault in (
        rst, fin, half_open, blackhole, latency, bandwidth, refusing, server_killed, server_stopped,
        server_drained, subscriber_killed, subscriber_stopped, file_too_large,
    )
}  # fmt: skip
