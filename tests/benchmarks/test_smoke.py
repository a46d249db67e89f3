"""The benchmark in small: every subscriber gets every event once and in order. Counts, and never times."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from benchmarks import engines, events, plan, servers
from benchmarks.cells import SHORT, bench
from benchmarks.load import Failed, Load, build
from benchmarks.plan import Outcome


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def outcome(tools: Path) -> Outcome:
    """Run what needs no installation, once."""
    kinds = [servers.STEADCAST, servers.STOCK, servers.NATS, servers.raw(tools)]
    return plan.run(plan.steps(kinds, tools, SHORT, {"fanout", "publish", "storm"}), 1, lambda _: None)


def test_nothing_is_missing_doubled_or_out_of_order(outcome: Outcome) -> None:
    assert outcome.failures == []


def test_each_server_has_its_rows(outcome: Outcome) -> None:
    rows = {(key.bench, key.server) for key in outcome.table.samples}
    assert rows == {
        *(("fanout", name) for name in ("steadcast", "python-socketio", "nats-server", "raw-c")),
        *(("publish", name) for name in ("steadcast", "python-socketio", "nats-server", "sqlite")),
        ("storm", "steadcast"),
    }


def test_a_node_on_three_jetstream_servers_goes_through_each_bench_of_the_engines(tools: Path) -> None:
    with engines.kinds(tools / "nats") as nodes:
        assert tuple(node.variant for node in nodes) == engines.ENGINES
        told = plan.run(engines.steps(nodes[-1:], tools, engines.SMALL), 1, lambda _: None)
    assert told.failures == []
    measured = {(row["engine"], row["bench"]) for row in engines.rows(told.table)}
    assert measured == {("JetStream R3", bench) for bench, *_ in engines.HEAD}


def test_what_was_delivered_is_counted_event_by_event(tools: Path) -> None:
    with bench(servers.raw(tools), tools, clients=3) as on:
        on.publish(7)
        report = on.load.run("send 2")
    assert (report["events"], report["least"], report["most"]) == (42, 14, 14)


Spoil = Callable[[list[bytes], int], list[bytes]]
SPOILED: dict[str, Spoil] = {
    "doubled": lambda frames, _: [*frames, frames[-1]],
    "swapped": lambda frames, _: frames[::-1],
    "lost here and doubled there": lambda frames, subscriber: frames * 2 if subscriber else [],
}


class Spoiler:
    """A server that hands two subscribers what one publisher sends, but not as it came."""

    def __init__(self, spoil: Spoil) -> None:
        self._spoil = spoil
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(self._listener.accept()[0]) for _ in range(3)]
            coming = stack.enter_context(connections[0].makefile("rb"))
            whole = coming.read(int.from_bytes(coming.read(4), "big"))
            half = len(whole) // 2
            for number, subscriber in enumerate(connections[1:]):
                subscriber.sendall(b"".join(self._spoil([whole[:half], whole[half:]], number)))
            with contextlib.suppress(ConnectionResetError):  # the load is killed
                coming.read()


@pytest.fixture(params=SPOILED)
def spoiler(request: pytest.FixtureRequest) -> Iterator[Spoiler]:
    with Spoiler(SPOILED[request.param]) as running:
        yield running


def test_a_run_with_a_wrong_count_or_order_is_a_failure_and_no_figure(tools: Path, spoiler: Spoiler) -> None:
    with Load(tools, "raw", spoiler.port, events.STREAM) as load:
        load.say("publishers 1")
        load.say("open 2 1 0")
        load.template(events.by_raw, 2, 0)
        with pytest.raises(Failed, match="wrong counts"):
            load.run("send 1")
