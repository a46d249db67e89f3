"""Open files: a server takes as many as it may, and says so where they are used up."""

from __future__ import annotations

import re
import resource
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from steadcast import descriptors
from tests.support.server import BIN, Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

UNLIMITED = resource.RLIM_INFINITY


class Limited(Server):
    """A server in a shell that has limits of its own."""

    def start_with(self, ulimit: str) -> None:
        with (self.folder / "server.log").open("ab") as out:
            self.process = subprocess.Popen(
                ["sh", "-c", f"{ulimit} && exec {BIN}/steadcast serve"],
                stderr=out,
                cwd=self.folder,
                env={**self.env, "STEADCAST_PORT": str(self.port), "STEADCAST_ENGINE": self.engine},
            )
        self._wait()

    def limit(self) -> int:
        assert self.process is not None
        limits = Path(f"/proc/{self.process.pid}/limits").read_text()
        found = re.search(r"Max open files +(\d+)", limits)
        assert found is not None
        return int(found[1])


def test_a_server_takes_more_than_it_was_given_where_it_may(tmp_path: Path) -> None:
    server = Limited(tmp_path)
    try:
        server.start_with("ulimit -Sn 128")
        assert server.limit() == descriptors.reachable() > 128
    finally:
        server.__exit__()


def test_a_server_whose_open_files_are_nearly_used_up_says_so(tmp_path: Path) -> None:
    server = Limited(tmp_path)
    try:
        server.start_with("ulimit -n 128")
        assert server.limit() == 128
        with ExitStack() as held:
            for _ in range(100):
                held.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            wait_until(lambda: "open files are nearly used up" in server.log(), timeout=60)
    finally:
        server.__exit__()


@pytest.mark.parametrize(
    ("limits", "there"),
    [
        ((256, 1024), 1024),
        ((1024, 1024), 1024),
        ((1024, 1 << 20), descriptors.MOST),
        ((1024, UNLIMITED), descriptors.MOST),
        ((100_000, UNLIMITED), 100_000),
        ((UNLIMITED, UNLIMITED), descriptors.MOST),
    ],
)
def test_what_is_reachable_is_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], there: int
) -> None:
    asked: list[tuple[int, int]] = []
    note: Callable[[int, tuple[int, int]], None] = lambda _, limit: asked.append(limit)  # noqa: E731 - one line
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", note)
    assert (descriptors.reachable(), descriptors.reach()) == (there, there)
    assert asked == ([] if limits[0] in {there, UNLIMITED} else [(there, limits[1])])


def test_a_system_that_gives_no_more_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, __: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, UNLIMITED))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    with capture_logs() as logs:
        assert descriptors.reach() == 256
    assert [line["event"] for line in logs] == ["no more open files are to be had"]
