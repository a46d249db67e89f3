"""Real NATS servers for tests: one that all share, or a cluster of one's own."""

from __future__ import annotations

import atexit
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from tests.support.ports import free_ports

BINARY = Path(sys.executable).with_name("nats-server")


class NatsServer:
    """A nats-server with a store of its own; it keeps its port and its store over a restart."""

    def __init__(
        self, folder: Path, *, name: str = "one", sync: str = "always", extra: str = "", room: str = ""
    ) -> None:
        self.folder = folder
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        [self.port] = free_ports(1)
        folder.mkdir(parents=True, exist_ok=True)
        self._config = (
            f'server_name: "{name}"\nhost: "127.0.0.1"\nport: {self.port}\n'
            f'jetstream {{ store_dir: "{folder}/store", sync_interval: {sync}, {room} }}\n'
        )
        self._configure(extra)

    def _configure(self, extra: str) -> None:
        (self.folder / "nats.conf").write_text(f"{self._config}{extra}\n")

    def reload(self, extra: str) -> None:
        """Let it go on with another end of its configuration."""
        assert self.process is not None
        self._configure(extra)
        self.process.send_signal(signal.SIGHUP)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [BINARY, "-c", self.folder / "nats.conf"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.01)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.2) as sock:
                return sock.recv(4) == b"INFO"
        except OSError:
            return False

    def kill(self) -> None:
        """End it as a power cut would end the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None

    def freeze(self) -> None:
        """Stop it where it stands: its connections stay open, and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        self.stop()
        self.start()


NAMES = ("n1", "n2", "n3")
NOWHERE = "127.0.0.1:1"
"""Nobody listens there."""


class Cluster:
    """Three servers that hold what is replicated between them, flushed before it is acked.

    `routes` are the ports on which they take each other's connections, `ways[a, b]` the port at which `a` is
    to reach `b`: with them no server learns another address, neither for itself nor for its clients.
    """

    def __init__(
        self,
        folder: Path,
        *,
        routes: dict[str, int] | None = None,
        ways: dict[tuple[str, str], int] | None = None,
    ) -> None:
        at = routes or dict(zip(NAMES, free_ports(3), strict=True))
        silent = f'no_advertise: true, advertise: "{NOWHERE}", ' if ways else ""
        self.servers = []
        for name, port in at.items():
            ports = [ways[name, other] if ways else at[other] for other in NAMES if other != name]
            urls = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
            told = f'cluster {{ name: "c", listen: "127.0.0.1:{port}", {silent}routes: [{urls}] }}'
            self.servers.append(NatsServer(folder / name, name=name, extra=told))

    @property
    def addresses(self) -> str:
        return ",".join(server.address for server in self.servers)

    def start(self) -> None:
        for server in self.servers:
            server.start()

    def named(self, name: str) -> NatsServer:
        return next(server for server in self.servers if server.name == name)

    def kill(self) -> None:
        for server in self.servers:
            server.kill()


@cache
def shared_server() -> NatsServer:
    """Give the server that tests share, each with streams of its own. It ends with the test run."""
    folder = Path(tempfile.mkdtemp(prefix="steadcast-nats-"))
    # Nothing here outlives the run, so nothing needs to be flushed.
    server = NatsServer(folder / "shared", sync='"2m"')
    server.start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    return server
