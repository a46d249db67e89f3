"""The servers that are compared: how each is started, what it speaks, and how it is published to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from benchmarks import events, machine
from benchmarks.load import Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.events import Template

HERE: Final = Path(__file__).parent
BIN: Final = Path(sys.executable).parent
PATIENCE: Final = 30.0


@dataclass(frozen=True)
class Kind:
    """A server that can be started.

    `command(folder, port)` gives its command line; `answers(n)` tells how many answers a publish of n gets;
    `durable`: what it answered is on disk; `resumes`: a client that comes back gets what it missed.
    """

    name: str
    dialect: str
    command: Callable[[Path, int], list[str]]
    template: Template
    answers: Callable[[int], int]
    variant: str | None = None
    durable: bool = False
    resumes: bool = False
    prepare: Callable[[int], None] | None = None
    health: str | None = None

    @property
    def label(self) -> str:
        """Name it with its variant."""
        return f"{self.name} ({self.variant})" if self.variant else self.name


class Running:
    """A server process of its own core, in a folder of its own."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        """Run `kind`; what it stores is kept in `folder`."""
        self.kind = kind
        self.folder = folder
        self.start_seconds = 0.0

    def __enter__(self) -> Self:
        """Start it, and wait until it takes connections; raises `Failed`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = machine.free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STEADCAST_")}
        env = kept | {"STEADCAST_SPOOL": str(self.folder / "spool"), "HOME": str(self.folder)}
        command = self.kind.command(self.folder, self.port)
        since = time.monotonic()
        with (self.folder / "log").open("wb") as log, machine.pinned(machine.CORE_OF_SERVER):
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=HERE.parent)
        try:
            self._wait(since)
            self.start_seconds = time.monotonic() - since
            if self.kind.prepare:
                self.kind.prepare(self.port + 1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it: it has no say in how a benchmark ends."""
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def cpu(self) -> float:
        """Give the CPU seconds it has used."""
        return machine.cpu_seconds(self.pid)

    def _wait(self, since: float) -> None:
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() - since > PATIENCE:
                log = (self.folder / "log").read_text(errors="replace")[-2000:]
                raise Failed(f"{self.kind.label} didn't start:\n{log}")
            time.sleep(0.002)

    def _ready(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2) as probe:
            if self.kind.prepare:
                socket.create_connection(("127.0.0.1", self.port + 1), 2).close()
            if self.kind.health is None:
                return True
            request = f"GET {self.kind.health} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
            probe.sendall(request.encode())
            return b" 200 " in probe.recv(64)
        return False


def _steadcast(folder: Path, port: int) -> list[str]:
    log = (folder / "steadcast.db").absolute()
    return [str(BIN / "steadcast"), "serve", "--port", str(port), "--engine", f"sqlite:///{log}"]


def _stock(_folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.peers.stock", str(port)]


def _node(_folder: Path, port: int) -> list[str]:
    return [node_command(), str(HERE / "peers" / "node" / "server.mjs"), str(port)]


def _node_recovery(folder: Path, port: int) -> list[str]:
    return [*_node(folder, port), "recovery"]


def node_command() -> str:
    """Name the Node to run: the machine's, else the one that was put beside Python."""
    return shutil.which("node") or str(BIN / "node")


def _nats(folder: Path, port: int, jetstream: str = "") -> list[str]:
    config = folder / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port + 1}"\n'
        f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true, compression: false }}\n{jetstream}'
    )
    return [str(BIN / "nats-server"), "--config", str(config)]


def _jetstream(folder: Path, port: int) -> list[str]:
    return _nats(folder, port, f'jetstream {{ store_dir: "{folder}" }}\n')


def _jetstream_synced(folder: Path, port: int) -> list[str]:
    return _nats(folder, port, f'jetstream {{ store_dir: "{folder}", sync_interval: always }}\n')


def _make_stream(port: int) -> None:
    import nats
    from nats.js.api import StorageType

    async def make() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        # nats-server 2.15 allows 1,000 consumers where a stream doesn't say.
        await client.jetstream().add_stream(
            name=events.STREAM, subjects=[events.STREAM], storage=StorageType.FILE, max_consumers=100_000
        )
        await client.close()

    asyncio.run(make())


def _mosquitto(folder: Path, port: int) -> list[str]:
    config = folder / "mosquitto.conf"
    # Its queue is bounded by default, and what doesn't fit is dropped: a wrong count.
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    return [shutil.which("mosquitto") or "mosquitto", "-c", str(config)]


def _one(_count: int) -> int:
    return 1


def _none(_count: int) -> int:
    return 0


def _each(count: int) -> int:
    return count


STEADCAST: Final = Kind(
    "steadcast",
    "steadcast",
    _steadcast,
    events.by_socketio,
    _one,
    durable=True,
    resumes=True,
    health="/readyz",
)
STOCK: Final = Kind("python-socketio", "socketio", _stock, events.by_socketio, _one)
NODE: Final = Kind("node-socket.io", "socketio", _node, events.by_socketio, _one)
RECOVERY: Final = Kind(
    "node-socket.io", "recovery", _node_recovery, events.by_socketio, _one, variant="recovery", resumes=True
)
NATS: Final = Kind("nats-server", "nats", _nats, events.by_nats, _none)
JETSTREAM: Final = Kind(
    "nats-server",
    "jetstream",
    _jetstream,
    events.by_jetstream,
    _each,
    variant="jetstream",
    resumes=True,
    prepare=_make_stream,
)
JETSTREAM_SYNCED: Final = Kind(
    "nats-server",
    "jetstream",
    _jetstream_synced,
    events.by_jetstream,
    _each,
    variant="jetstream, synced",
    durable=True,
    resumes=True,
    prepare=_make_stream,
)
MOSQUITTO: Final = Kind("mosquitto", "mqtt", _mosquitto, events.by_mqtt, _none)


def raw(tools: Path) -> Kind:
    """Give the send() loop that was built into `tools`."""
    return Kind("raw-c", "raw", lambda _, port: [str(tools / "raw"), str(port)], events.by_raw, _none)


def available(tools: Path) -> list[Kind]:
    """Give every server that this machine can run, Steadcast first and the floor last."""
    node = [NODE, RECOVERY] if (HERE / "peers" / "node" / "node_modules").exists() else []
    mosquitto = [MOSQUITTO] if shutil.which("mosquitto") else []
    return [STEADCAST, STOCK, *node, NATS, JETSTREAM, JETSTREAM_SYNCED, *mosquitto, raw(tools)]
