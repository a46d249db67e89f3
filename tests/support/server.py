"""A real server process that tests start, kill and start again on the same port and file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.plain import PLAIN
from tests.support.ports import free_port

BIN = Path(sys.executable).parent


START = 60.0
"""Seconds that a server may take to be ready: its disk may be busy with others' work."""


def wait_until(condition: Any, *, timeout: float = 40.0, what: str = "the condition") -> None:
    """Poll until something is true; fails in words."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            msg = f"{what}: not within {timeout} s"
            raise AssertionError(msg)
        time.sleep(0.02)


class Server:
    """`steadcast serve` in a process of its own."""

    def __init__(
        self, folder: Path, *, port: int | None = None, engine: str | None = None, **env: str
    ) -> None:
        self.port = port or free_port()
        self.engine = engine or f"sqlite:///{folder / 'steadcast.db'}"
        self.folder = folder
        own = {"STEADCAST_SPOOL": str(folder / "spool"), "STEADCAST_NODE": "node-1"}
        self.env = {**os.environ, **own, **env}
        self.arguments: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> Self:
        with (self.folder / "server.log").open("ab") as out:
            self.process = subprocess.Popen(
                [BIN / "steadcast", "serve", *self.arguments],
                stdout=out,
                stderr=out,
                cwd=self.folder,
                env={**self.env, "STEADCAST_PORT": str(self.port), "STEADCAST_ENGINE": self.engine},
            )
        if wait:
            self._wait()
        return self

    def _wait(self) -> None:
        try:
            wait_until(self.ready, timeout=START, what="the server is ready")
        except AssertionError as error:
            self.__exit__()
            raise AssertionError(f"{error}; it said:\n{self.log()[-3000:]}") from error

    def log(self) -> str:
        path = self.folder / "server.log"
        return path.read_text() if path.exists() else ""

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the server ended"
        try:
            return httpx.get(f"{self.url}/readyz", verify=PLAIN, timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(20)

    def rss(self) -> int:
        """Give the resident memory in bytes."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", verify=PLAIN, timeout=10, **more)

    def publish(self, stream: str, *events: dict[str, Any]) -> httpx.Response:
        headers = {"content-type": "application/cloudevents-batch+json"}
        return httpx.post(
            f"{self.url}/v1/streams/{stream}/events",
            verify=PLAIN,
            json=list(events),
            headers=headers,
            timeout=10,
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()


def event(n: int, **more: Any) -> dict[str, Any]:
    """Make a CloudEvent with the number `n`."""
    return {
        "specversion": "1.0",
        "id": f"e{n}",
        "source": "test",
        "type": "test.counted",
        "data": {"n": n},
    } | more
