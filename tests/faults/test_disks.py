"""A server whose disk runs full in one of three ways: it says so, goes on reading, and loses nothing."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine_disk import OWN_MOUNTS, can_mount
from tests.support.server import BIN, Server, event, wait_until

ROOT = Path(__file__).parents[2]
TEXT = "x" * 150_000
TMPFS = "3m"


class LimitedServer(Server):
    """A server that something stands before: a command that takes its room away."""

    def __init__(self, folder: Path, log: Path, *before: str) -> None:
        super().__init__(folder, engine=f"sqlite:///{log}")
        self.before = before

    def start(self, *, wait: bool = True) -> LimitedServer:
        serve = ["serve", "--port", str(self.port), "--engine", self.engine]
        with (self.folder / "server.log").open("ab") as out:
            self.process = subprocess.Popen(
                [*self.before, *serve], stdout=out, stderr=out, cwd=ROOT, env=self.env
            )
        if wait:
            wait_until(self.ready, timeout=60, what="the server is ready")
        return self


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that can be mounted on."""
    with tempfile.TemporaryDirectory(prefix="steadcast-") as name:
        yield Path(name)


def fill(server: Server) -> list[str]:
    """Publish until the disk is full; gives what was acked."""
    acked: list[str] = []
    for n in range(200):
        answer = server.publish("s", event(n, data=TEXT))
        if answer.status_code != 200:
            problem = answer.json()
            assert answer.status_code == 503, problem
            assert problem["code"] in {"engine_full", "engine_unavailable"}, problem
            assert problem["temporary"] is True
            assert "retry-after" in answer.headers
            return acked
        acked.append(f"e{n}")
    raise AssertionError("the disk never ran full")


def held(server: Server) -> list[str]:
    """Read the whole log."""
    ids: list[str] = []
    address: str | None = "/v1/streams/s/events?from=start"
    while address:
        page = server.get(address).raise_for_status().json()
        ids += [each["id"] for each in page["events"]]
        address = page["next"]
    return ids


def live_through(server: Server, make_room: Callable[[], object]) -> None:
    """Fill the disk, be told so, read on, make room, find everything that was acked and go on."""
    acked = fill(server)
    assert acked
    wait_until(lambda: server.get("/readyz").status_code == 503, what="/readyz says 503")
    assert server.get("/healthz").status_code == 200
    assert held(server) == acked
    make_room()
    wait_until(lambda: server.get("/readyz").status_code == 200, timeout=30, what="/readyz says 200")
    assert server.publish("s", event(5_000, data=TEXT)).status_code == 200
    assert held(server) == [*acked, "e5000"]


def test_a_full_file_is_not_ready_and_loses_nothing(tmp_path: Path) -> None:
    python = [sys.executable, "-m", "tests.faults.small_log", "400"]
    server = LimitedServer(tmp_path, tmp_path / "log.db", *python)
    with server:
        assert server.process is not None
        live_through(server, lambda: _send(server, signal.SIGUSR1))


def test_a_file_that_may_not_grow_is_not_ready_and_loses_nothing(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        assert server.process is not None
        pid = server.process.pid
        before: Any = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1024 * 1024, before[1]))
        live_through(server, lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, before))


def test_a_full_disk_is_not_ready_and_loses_nothing(folder: Path) -> None:
    if not can_mount():
        # The two above are the nearest that can be had; that this one couldn't be is said in the summary.
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("no tmpfs can be mounted here: a full disk was not tried", stacklevel=1)
        return
    disk = folder / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={TMPFS} tmpfs "{disk}" && exec "$@"'
    before = [*OWN_MOUNTS, "sh", "-c", mount, "sh", str(BIN / "steadcast")]
    with LimitedServer(folder, disk / "log.db", *before) as server:
        assert server.process is not None
        # The mount is the server's alone: its own view of the files leads there.
        filler = Path(f"/proc/{server.process.pid}/root{disk}/filler")
        filler.write_bytes(bytes(1024 * 1024))
        live_through(server, filler.unlink)


def _send(server: Server, number: signal.Signals) -> None:
    assert server.process is not None
    os.kill(server.process.pid, number)
