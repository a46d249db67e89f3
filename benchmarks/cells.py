"""The benches. Each function takes one server through one bench once, and gives its samples."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import events, machine, servers
from benchmarks.load import Load
from benchmarks.rows import Key, Sample
from benchmarks.servers import Running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.servers import Kind

PUBLISHERS: Final = 64
AHEAD: Final = 64
"""Flushes that a paced publisher runs ahead at most; a server that is slower makes it wait."""
SETTLED_PER_SECOND: Final = 5000
"""Clients whose connects are behind the server after a second of rest: none is measured with what follows."""
SMALL_BUFFER: Final = 4096
"""What a stalled client's receive buffer is set to: the kernel shall not hide it."""


@dataclass(frozen=True)
class Scale:
    """How much is done: numbers of clients and events, and seconds for each run."""

    clients: tuple[int, ...] = (100, 500, 1000)
    flushes: tuple[int, ...] = (1, 10, 100)
    growth: tuple[int, ...] = (5000,)
    seconds: float = 0.5
    paced_clients: int = 500
    paced_rate: int = 1000
    paced_seconds: float = 2.0
    batches: tuple[int, ...] = (1, 10, 100, 1000)
    storm_clients: int = 1000
    storm_events: int = 1000
    stall_clients: int = 500
    stalled: int = 10
    stall_seconds: float = 1.2
    idle_clients: int = 1000
    runtimes: tuple[str, ...] = ("python", "node", "chromium")
    probes: int = 50
    runs: int = 3


SHORT: Final = Scale(
    clients=(20,),
    flushes=(1, 10),
    growth=(),
    seconds=0.05,
    paced_clients=20,
    paced_rate=200,
    paced_seconds=0.1,
    batches=(1, 100),
    storm_clients=20,
    storm_events=50,
    stall_clients=20,
    stalled=2,
    stall_seconds=0.05,
    idle_clients=20,
    runtimes=("python",),
    probes=5,
    runs=1,
)


@dataclass
class Bench:
    """A server and a load that speaks to it."""

    server: Running
    load: Load
    kind: Kind

    @contextlib.contextmanager
    def metered(self) -> Iterator[Meter]:
        """Measure the server's CPU time inside."""
        meter = Meter(self.server.cpu())
        yield meter
        meter.seconds = self.server.cpu() - meter.seconds

    def flood(self, seconds: float, window: int = 1) -> tuple[dict[str, Any], float]:
        """Publish as fast as deliveries come back; give the report and CPU µs for each delivery."""
        return self.run(f"flood {seconds} {window}")

    def run(self, command: str) -> tuple[dict[str, Any], float]:
        """Run a command that publishes; give the report and CPU µs for each delivery."""
        with self.metered() as meter:
            report = self.load.run(command)
        return report, meter.seconds / max(1, report["events"]) * 1e6

    def publish(self, count: int) -> None:
        """Publish `count` events at a time from now on."""
        self.load.template(self.kind.template, count, self.kind.answers(count))


@dataclass
class Meter:
    """CPU seconds."""

    seconds: float


@contextlib.contextmanager
def bench(kind: Kind, tools: Path, clients: int = 0, publishers: int = 1) -> Iterator[Bench]:
    """Start a server, and a load with one publisher and so many subscribers."""
    folder = Path(tempfile.mkdtemp(dir=tools))
    try:
        with Running(kind, folder) as server, Load(tools, kind.dialect, server.port, events.STREAM) as load:
            load.say(f"publishers {publishers}")
            if clients:
                load.say(f"open {clients} 128 0")
                load.say(f"rest {clients / SETTLED_PER_SECOND}")
            yield Bench(server, load, kind)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _delivered(key: Key, report: dict[str, Any], cpu_us: float) -> Sample:
    return Sample(
        key,
        cpu_us=cpu_us,
        deliveries_per_s=report["events"] / report["seconds"],
        p50_ms=report["p50_ms"],
        p99_ms=report["p99_ms"],
    )


def fanout(kind: Kind, tools: Path, scale: Scale, clients: int) -> Iterator[Sample]:
    """Publish a flush when every subscriber has the one before, by several sizes of a flush."""
    sizes = scale.flushes if clients in scale.clients else (10,)
    with bench(kind, tools, clients) as on:
        on.publish(1)
        on.load.run("send 3")
        for size in sizes:
            on.publish(size)
            report, cpu = on.flood(scale.seconds)
            yield _delivered(Key("fanout", kind.name, kind.variant, clients, size), report, cpu)


def backlogged(kind: Kind, tools: Path, scale: Scale, clients: int) -> Iterator[Sample]:
    """Publish up to 64 flushes ahead, so that a server can put many into one write."""
    with bench(kind, tools, clients) as on:
        on.publish(1)
        on.load.run("send 3")
        report, cpu = on.flood(scale.seconds, 64)
        yield _delivered(Key("fanout", kind.name, "backlogged", clients, 1), report, cpu)


def paced(kind: Kind, tools: Path, scale: Scale) -> Iterator[Sample]:
    """Publish single events at a steady rate."""
    with bench(kind, tools, scale.paced_clients) as on:
        on.publish(1)
        on.load.run("send 3")
        report, cpu = on.run(f"pace {scale.paced_rate} {scale.paced_seconds} {AHEAD}")
        yield _delivered(Key("paced", kind.name, kind.variant, scale.paced_clients, 1), report, cpu)


def publish(kind: Kind, tools: Path, scale: Scale) -> Iterator[Sample]:
    """Publish without a subscriber: from 64 connections one event each, from fewer the larger the batch."""
    with bench(kind, tools, 0, PUBLISHERS) as on:
        for size in scale.batches:
            publishers = max(4, PUBLISHERS // size)
            on.publish(size)
            on.load.say(f"publish {scale.seconds / 5} 1 {publishers}")
            with on.metered() as meter:
                report = on.load.say(f"publish {scale.seconds} 1 {publishers}")
            count = report["expected"]
            yield Sample(
                Key("publish", kind.name, kind.variant, publishers, size),
                cpu_us=meter.seconds / count * 1e6,
                deliveries_per_s=count / report["seconds"],
                p50_ms=report["answer_p50_ms"],
                p99_ms=report["answer_p99_ms"],
            )


def storm(kind: Kind, tools: Path, scale: Scale) -> Iterator[Sample]:
    """Cut all clients at once, publish behind their backs, and let all come back at once.

    The latencies are a client's time from its first step back to its last missed event.
    """
    size = min(100, scale.storm_events)
    with bench(kind, tools, scale.storm_clients) as on:
        on.publish(1)
        on.load.run("send 1")
        on.load.say("cut")
        on.publish(size)
        on.load.say(f"send {scale.storm_events // size}")
        on.load.say("rest 0.2")
        machine.forget_peak(on.server.pid)
        before = machine.resident(on.server.pid)
        with on.metered() as meter:
            report = on.load.say(f"return {scale.storm_events}")
        _check_storm(report, scale)
        peak = machine.resident(on.server.pid, "VmHWM")
        yield replace(
            _delivered(
                Key("storm", kind.name, kind.variant, scale.storm_clients, size),
                report,
                meter.seconds / report["events"] * 1e6,
            ),
            rss_mib=(peak - before) / machine.MIB,
        )


def _check_storm(report: dict[str, Any], scale: Scale) -> None:
    from benchmarks.load import Failed

    each = scale.storm_events
    if report["least"] != each or report["most"] != each or report["disorder"]:
        raise Failed(f"wrong counts: {report}")


def stall(kind: Kind, tools: Path, scale: Scale) -> Iterator[Sample]:
    """Measure the clients that read, first alone, then beside some that don't.

    Memory is what the server grew by meanwhile.
    """
    live = scale.stall_clients - scale.stalled
    with bench(kind, tools, live) as on:
        on.load.say(f"open {scale.stalled} {scale.stalled} {SMALL_BUFFER}")
        on.publish(10)
        on.load.run("send 3")
        for name in ("none", str(scale.stalled)):
            if name != "none":
                on.load.say(f"freeze {scale.stalled}")
            machine.forget_peak(on.server.pid)
            before = machine.resident(on.server.pid)
            report, cpu = on.flood(scale.stall_seconds)
            grown = machine.resident(on.server.pid, "VmHWM") - before
            variant = ", ".join(filter(None, [kind.variant, f"{name} stalled"]))
            sample = _delivered(Key("stall", kind.name, variant, scale.stall_clients, 10), report, cpu)
            yield replace(sample, rss_mib=grown / machine.MIB)


def idle(kind: Kind, tools: Path, scale: Scale) -> Iterator[Sample]:
    """Connect and subscribe: CPU µs for each connect, and memory for each 1,000 of them."""
    with bench(kind, tools) as on:
        on.load.say("rest 0.3")
        before = machine.resident(on.server.pid)
        with on.metered() as meter:
            report = on.load.say(f"open {scale.idle_clients} 128 0")
        on.load.say("rest 0.3")
        grown = machine.resident(on.server.pid) - before
        yield Sample(
            Key("idle", kind.name, kind.variant, scale.idle_clients, None),
            cpu_us=meter.seconds / scale.idle_clients * 1e6,
            deliveries_per_s=scale.idle_clients / report["seconds"],
            rss_mib=grown / machine.MIB * 1000 / scale.idle_clients,
        )


def start(kind: Kind, tools: Path, scale: Scale) -> Iterator[Sample]:
    """Start in an empty folder, then once more in the same: ms until it takes a connection or says ready."""
    folder = Path(tempfile.mkdtemp(dir=tools))
    try:
        for name in ("first", "second"):
            with Running(kind, folder) as server:
                variant = ", ".join(filter(None, [kind.variant, name]))
                yield Sample(
                    Key("start", kind.name, variant, None, None),
                    p50_ms=server.start_seconds * 1000,
                    cpu_us=server.cpu() * 1e6,
                    rss_mib=machine.resident(server.pid) / machine.MIB,
                )
                if kind.answers(1) and name == "first":
                    with Load(tools, kind.dialect, server.port, events.STREAM) as load:
                        load.say("publishers 1")
                        load.template(kind.template, 10, kind.answers(10))
                        load.say(f"send {max(1, scale.storm_events // 10)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish_kinds(kinds: list[Kind]) -> list[Kind]:
    """Give what answers a publish, and Steadcast by both its doors."""
    by_http = replace(servers.STEADCAST, dialect="http", template=events.by_http, variant="http")
    found = [by_http]
    for kind in kinds:
        if kind is servers.STEADCAST:
            found.append(replace(kind, variant="socketio"))
        elif kind is servers.NATS:
            found.append(replace(kind, template=events.by_nats_with_ping, answers=lambda _: 1))
        elif kind.answers(1):
            found.append(kind)
    return found
