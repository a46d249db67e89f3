"""The server's log: who reads it slowly, not at all, or no longer, holds nobody up."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import structlog

from steadcast.outlet import Outlet
from tests.support.house import Peer
from tests.support.server import BIN, Server, event, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

    Pipe = tuple[FileIO, FileIO]

PIPE = 4096
"""Bytes that the pipe of these tests holds: the least that Linux gives."""


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as reads, os.fdopen(writing, "wb", 0) as writes:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE)
        yield reads, writes


def is_whole(outlet: Outlet) -> bool:
    counts = outlet.counts
    return counts["accepted"] == outlet.pending + counts["written"] + counts["lost"]


def read_all(reading: FileIO, into: bytearray) -> None:
    while data := reading.read(65536):
        into.extend(data)


def test_lines_come_out_in_their_order(pipe: Pipe) -> None:
    reading, writing = pipe
    outlet = Outlet(writing.fileno())
    told = bytearray()
    reader = threading.Thread(target=read_all, args=(reading, told))
    reader.start()
    for number in range(2_000):
        outlet.write(f"line {number} \udce4\n")
    outlet.settle(60)
    writing.close()
    reader.join(60)
    assert told.decode().splitlines() == [f"line {number} \\udce4" for number in range(2_000)]
    assert (outlet.counts["written"], outlet.pending) == (2_000, 0)


def test_who_writes_does_not_wait_and_what_finds_no_room_is_counted_and_told(pipe: Pipe) -> None:
    reading, writing = pipe
    outlet = Outlet(writing.fileno(), room=2 * PIPE)
    counts: Counter[str] = Counter()
    outlet.lost_in(counts)
    line = "x" * 99 + "\n"
    for _ in range(1_000):
        outlet.write(line)  # nobody reads: to wait here would be for ever
        assert is_whole(outlet)
    lost = outlet.counts["lost"]
    assert lost > 1_000 - 4 * PIPE / len(line)
    assert counts == {"log_lines_lost": lost}
    told = bytearray()
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(outlet))  # type: ignore[arg-type]  # all it uses
    try:
        threading.Thread(target=read_all, args=(reading, told), daemon=True).start()
        wait_until(lambda: b"lines of this log were lost" in told, timeout=60)
        assert f"={lost}".encode() in told.replace(b"\x1b[35m", b"").replace(b"\x1b[0m", b"")
    finally:
        structlog.configure(**before)
    outlet.settle(60)
    writing.close()
    assert is_whole(outlet)


def test_a_pipe_that_was_made_non_blocking_is_waited_for(pipe: Pipe) -> None:
    reading, writing = pipe
    os.set_blocking(writing.fileno(), False)
    outlet = Outlet(writing.fileno())
    outlet.write("y" * 5 * PIPE)
    told = bytearray()
    threading.Thread(target=read_all, args=(reading, told), daemon=True).start()
    outlet.settle(60)
    writing.close()
    wait_until(lambda: len(told) == 5 * PIPE, timeout=60)
    assert outlet.counts == {"accepted": 1, "written": 1}


def test_where_nobody_can_be_written_to_all_is_lost_and_counted(pipe: Pipe) -> None:
    reading, writing = pipe
    reading.close()
    for outlet in (Outlet(writing.fileno()), Outlet(None)):
        outlet.write("to nobody\n")
        outlet.settle(60)
        assert outlet.counts == {"accepted": 1, "lost": 1}
        assert not outlet.isatty()


class Piped(Server):
    """A server whose log goes into a small pipe."""

    def start_into(self, descriptor: int | None) -> None:
        closed = ["sh", "-c", f"exec {BIN}/steadcast serve 2>&-"]
        self.process = subprocess.Popen(
            [BIN / "steadcast", "serve"] if descriptor is not None else closed,
            stderr=descriptor,
            cwd=self.folder,
            env={
                **self.env,
                "STEADCAST_PORT": str(self.port),
                "STEADCAST_ENGINE": self.engine,
                "STEADCAST_PING_INTERVAL": "0.02",
            },
        )
        self._wait()


async def test_a_server_whose_log_nobody_reads_goes_on_and_drains(tmp_path: Path, pipe: Pipe) -> None:
    server = Piped(tmp_path)
    await asyncio.to_thread(server.start_into, pipe[1].fileno())
    peer = Peer()
    await peer.connect(server.url)
    try:
        written = PIPE // len("2026-11-23T14:08:47.806212Z [info     ] Sent pings to 1 clients, 0 failed")
        await peer.until(lambda: len(peer.named("ping")) > written + 20)
        assert (await asyncio.to_thread(server.publish, "s", event(1))).status_code == 200
        assert await asyncio.to_thread(server.kill, signal.SIGTERM) == 0
        await peer.until(lambda: peer.named("goaway"))
    finally:
        await peer.close()
        server.__exit__()


@pytest.mark.parametrize("how", ["gone", "closed"])
async def test_a_server_whose_log_has_no_reader_any_more_pings_and_drains(
    tmp_path: Path, pipe: Pipe, how: str
) -> None:
    server = Piped(tmp_path)
    await asyncio.to_thread(server.start_into, pipe[1].fileno() if how == "gone" else None)
    pipe[0].close()
    pipe[1].close()
    peer = Peer()
    await peer.connect(server.url)
    try:
        await peer.until(lambda: len(peer.named("ping")) > 5)
        lost = (await asyncio.to_thread(server.get, "/v1/stats")).json()["http"]["counts"]["log_lines_lost"]
        assert lost > 0
        assert await asyncio.to_thread(server.kill, signal.SIGTERM) == 0
        await peer.until(lambda: peer.named("goaway"))
    finally:
        await peer.close()
        server.__exit__()
