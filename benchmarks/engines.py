"""The same node on each engine: `python -m benchmarks --engines`, for `docs/scale.md`.

JetStream has servers of its own, which flush before they answer; what they use is not counted with the node.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks import cells, machine, report, servers
from benchmarks.cells import SHORT, Scale
from benchmarks.load import Failed
from benchmarks.plan import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.rows import Table
    from benchmarks.servers import Kind

ENGINES: Final = ("memory", "SQLite", "JetStream R1", "JetStream R3")
FULL: Final = Scale(
    clients=(100,),
    flushes=(1, 10),
    growth=(),
    batches=(1, 100),
    storm_clients=100,
    storm_events=1_000,
    idle_clients=300,
)
SMALL: Final = replace(SHORT, flushes=(1,), batches=(1,))
PATIENCE: Final = 30.0
HEAD: Final = (
    ("publish", 1, "cpu_us", "published alone, µs"),
    ("publish", 100, "cpu_us", "published by the hundred, µs"),
    ("publish", 1, "p50_ms", "ms until the answer, p50"),
    ("fanout", 1, "cpu_us", "delivered to 100, µs for each"),
    ("storm", None, "cpu_us", "replayed to 100 that come back, µs for each"),
    ("storm", None, "p50_ms", "ms until one has its 1,000, p50"),
    ("idle", None, "cpu_us", "connect and subscribe, µs"),
    ("idle", None, "rss_mib", "MiB for 1,000 clients"),
)
"""What a line of the table holds: bench, events together, figure, heading."""


class Nats:
    """JetStream servers that hold a log together, or one alone."""

    def __init__(self, folder: Path, count: int) -> None:
        """Prepare so many servers; what they store is kept in `folder`."""
        self._ports = [machine.free_port() for _ in range(count)]
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """The engine of a node, without the stream's name."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return f"nats://{hosts}?replicas={len(self._ports)}&sync=always"

    def __enter__(self) -> str:
        """Start them, and give the URL; raises `Failed`."""
        for number, port in enumerate(self._ports):
            command = [str(servers.BIN / "nats-server"), "-c", str(self._config(number, port))]
            with (self._folder / f"{number}.log").open("wb") as log:
                self._running.append(subprocess.Popen(command, stdout=log, stderr=log))
        deadline = time.monotonic() + PATIENCE
        while not all(_answers(port) for port in self._ports):
            if time.monotonic() > deadline:
                self.__exit__()
                raise Failed("nats-server didn't start")
            time.sleep(0.02)
        return self.url

    def __exit__(self, *_: object) -> None:
        """Kill them."""
        for process in self._running:
            process.kill()
            process.wait()

    def _config(self, number: int, port: int) -> Path:
        routes = ", ".join(f'"nats://127.0.0.1:{other + 1}"' for other in self._ports)
        lines = [
            f'server_name: "n{number}"',
            f'listen: "127.0.0.1:{port}"',
            f'jetstream {{ store_dir: "{self._folder}/{number}", sync_interval: always }}',
        ]
        if len(self._ports) > 1:
            lines.append(f'cluster {{ name: "c", listen: "127.0.0.1:{port + 1}", routes: [{routes}] }}')
        path = self._folder / f"{number}.conf"
        path.write_text("\n".join(lines))
        return path


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as probe:
        return probe.recv(4) == b"INFO"
    return False


def _command(engine: Callable[[Path], str], folder: Path, port: int) -> list[str]:
    return [str(servers.BIN / "steadcast"), "serve", "--port", str(port), "--engine", engine(folder)]


def _kind(name: str, engine: Callable[[Path], str]) -> Kind:
    return replace(servers.STEADCAST, variant=name, command=partial(_command, engine))


@contextlib.contextmanager
def kinds(folder: Path) -> Iterator[list[Kind]]:
    """Give a node on each engine; each run has a log of its own."""
    for name in ("r1", "r3"):
        (folder / name).mkdir(parents=True)
    with Nats(folder / "r1", 1) as one, Nats(folder / "r3", 3) as three:
        urls: dict[str, Callable[[Path], str]] = {
            "memory": lambda _: "memory:",
            "SQLite": lambda own: f"sqlite:///{own / 'log.db'}",
            "JetStream R1": lambda own: f"{one}&stream={own.name}",
            "JetStream R3": lambda own: f"{three}&stream={own.name}",
        }
        yield [_kind(name, urls[name]) for name in ENGINES]


def steps(nodes: list[Kind], tools: Path, scale: Scale) -> list[Step]:
    """Give what one go consists of: publish, fan-out, resume, connect; each engine in turn."""
    found = []
    for node in nodes:
        found += [
            Step("publish", node.label, partial(cells.publish, node, tools, scale)),
            Step("fanout", node.label, partial(cells.fanout, node, tools, scale, scale.clients[0])),
            Step("storm", node.label, partial(cells.storm, node, tools, scale)),
            Step("idle", node.label, partial(cells.idle, node, tools, scale)),
        ]
    return found


def rows(table: Table) -> list[dict[str, Any]]:
    """Give the rows with the engine that each is about."""
    found = []
    for row in table.rows():
        engine = row.pop("variant")
        found.append({"engine": engine, **{name: value for name, value in row.items() if name != "server"}})
    return found


def by_engine(results: dict[str, Any]) -> str:
    """Write a line for each figure, a column for each engine, and what they were measured on."""
    lines = []
    for bench, size, figure, heading in HEAD:
        cells_of = []
        for engine in ENGINES:
            found = [
                row
                for row in results["rows"]
                if (row["engine"], row["bench"]) == (engine, bench) and size in {None, row["per_flush"]}
            ]
            cells_of.append(report.noisy(found[0] if found else None, figure))
        lines.append([heading, *cells_of])
    place = results["machine"]
    where = f"{place['cores']} cores ({place['architecture']}), {place['system']}, Python {place['python']}"
    failed = [f"Failed, and so without a figure: {failure}" for failure in results["failures"]]
    told = f"Measured on {results['date']}: {where}; medians of {results['runs']} (least to most)."
    return "\n\n".join([report.table(["", *ENGINES], lines), told, *failed])


PARTS: Final = {"engines": by_engine}


def rendered(page: str, results: dict[str, Any] | None) -> str:
    """Give `docs/scale.md` with its measured part written anew."""
    return report.render(page, results, PARTS, "Not measured yet: `python -m benchmarks --engines`.")
