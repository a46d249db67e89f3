"""From the publish to the subscriber's handler, through the durable log: in Python, Node and Chromium.

Both ends read one machine's wall clock. A probe is published over HTTP and is durable before it is delivered;
in a page it counts as shown when its text stands in the document, the screen's next frame not included.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from benchmarks import events, machine, servers
from benchmarks.load import Failed, Load
from benchmarks.rows import Key, Sample
from benchmarks.servers import Running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from benchmarks.cells import Scale

HERE: Final = Path(__file__).parent
EVERY: Final = 0.05
"""Seconds between two probes."""
PATIENCE: Final = 60.0
LONG_AGO: Final = 1.0
A_YEAR: Final = 365 * 86400e3
"""Milliseconds: a probe from `LONG_AGO` was under way for longer."""
AHEAD: Final = 64
"""How many events of the steady flow may be unanswered."""
FOLLOW: Final = """stream => {
  window.latencies = [];
  const shown = document.body.appendChild(document.createElement("p"));
  const Client = window.socketClient.constructor;
  new Client(location.origin).subscribe(stream, { from: "end", onEvent: ({ id, data }) => {
    if (!data?.sent) return;
    shown.textContent = id;
    window.latencies.push(performance.timeOrigin + performance.now() - data.sent);
  } });
}"""

Latencies = list[float]


class Follower:
    """A subscriber in a process of its own, which prints a latency a line."""

    def __init__(self, *command: str) -> None:
        """Run `command`."""
        self._command = command
        self.latencies: Latencies = []

    async def __aenter__(self) -> Self:
        """Start it."""
        with machine.pinned(machine.CORE_OF_LOAD):
            self._process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
                self._command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent
            )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._thread.join()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _read(self) -> None:
        if self._process.stdout:
            self.latencies.extend(float(line) for line in self._process.stdout)

    async def read(self) -> Latencies:
        """Give what it has printed."""
        return self.latencies


class Page:
    """The page that the server serves, in Chromium."""

    def __init__(self, page: Any) -> None:
        """Follow in `page`."""
        self._page = page

    async def read(self) -> Latencies:
        """Give what it has measured."""
        found: Latencies = await self._page.evaluate("window.latencies")
        return found


@asynccontextmanager
async def _chromium(url: str) -> AsyncIterator[Page]:
    from tests.support.browser import chromium

    with machine.pinned(machine.CORE_OF_LOAD):
        async with chromium() as browser:
            page = await browser.new_page()
            await page.goto(url)
            await page.wait_for_function("() => window.socketClient?.connected")
            await page.evaluate(FOLLOW, events.STREAM)
            yield Page(page)


def _followers(url: str) -> dict[str, Callable[[], AbstractAsyncContextManager[Follower | Page]]]:
    python = [sys.executable, "-m", "benchmarks.followers.python", url, events.STREAM]
    node = [servers.node_command(), str(HERE / "followers" / "node.mjs"), url, events.STREAM]
    return {
        "python": lambda: Follower(*python),
        "node": lambda: Follower(*node),
        "chromium": lambda: _chromium(url),
    }


class Probes:
    """Publishes single events that carry the time, one at a time."""

    def __init__(self, port: int) -> None:
        """Publish to the server on `port`."""
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._name = secrets.token_hex(4)
        self.count = 0

    def send(self, sent: float | None = None) -> None:
        """Publish one, sent now or as is said; it is durable when this returns. Raises `Failed`."""
        self.count += 1
        event: dict[str, Any] = {
            "id": f"{self._name}-{self.count}",
            "source": "probe",
            "type": "probe",
            "data": {},
        }
        event["data"] = {"sent": time.time() * 1000 if sent is None else sent}
        try:
            answer = self._post(event)
        except (
            ConnectionError
        ):  # the server closes a connection that was quiet; the id makes a second try safe
            self._connection.close()
            answer = self._post(event)
        said = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise Failed(f"a probe was refused: {said.decode()}")

    def _post(self, event: dict[str, Any]) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", f"/v1/streams/{events.STREAM}/events", json.dumps(event), headers)
        return self._connection.getresponse()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


async def _measure(follower: Follower | Page, probes: Probes, count: int) -> Latencies:
    """Probe until one is seen, then `count` times; every probe has to arrive, and once."""
    deadline = time.monotonic() + PATIENCE
    while not await follower.read():
        await asyncio.to_thread(probes.send, LONG_AGO)
        await asyncio.sleep(0.2)
        _in_time(deadline, "the first probe")
    await asyncio.sleep(0.5)
    for _ in range(count):
        await asyncio.to_thread(probes.send)
        await asyncio.sleep(EVERY)
    while len(found := _timed(await follower.read())) < count:
        await asyncio.sleep(0.05)
        _in_time(deadline, "the last probe")
    if len(found) != count:
        raise Failed(f"{len(found)} of {count} probes were seen")
    return found


def _timed(latencies: Latencies) -> Latencies:
    """Leave out the probes that only asked whether somebody follows."""
    return [latency for latency in latencies if latency < A_YEAR]


def _in_time(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise Failed(f"{what} was not seen in time")


def latency(runtime: str, tools: Path, scale: Scale) -> Iterator[Sample]:
    """Measure one runtime, first alone, then beside a steady flow of other events on the same stream."""
    kind = servers.STEADCAST
    folder = Path(tempfile.mkdtemp(dir=tools))
    with Running(kind, folder) as server, Load(tools, kind.dialect, server.port, events.STREAM) as load:
        load.say("publishers 1")
        load.template(kind.template, 1, 1)
        for rate in (0, scale.paced_rate):
            found = asyncio.run(_under(runtime, server.port, load, rate, scale))
            cuts = statistics.quantiles(found, n=100, method="inclusive")
            variant = f"{runtime}, {'idle' if rate == 0 else f'{rate} events/s'}"
            yield Sample(
                Key("latency", kind.name, variant, 1, 1),
                deliveries_per_s=float(rate),
                p50_ms=cuts[49],
                p99_ms=cuts[98],
            )


async def _under(runtime: str, port: int, load: Load, rate: int, scale: Scale) -> Latencies:
    """Measure while the load publishes `rate` events a second in the background."""
    probes = Probes(port)
    done = threading.Event()
    try:
        async with _followers(f"http://127.0.0.1:{port}")[runtime]() as follower:
            background = asyncio.create_task(asyncio.to_thread(_flow, load, rate, done))
            try:
                return await _measure(follower, probes, scale.probes)
            finally:
                done.set()
                await background
    finally:
        probes.close()


def _flow(load: Load, rate: int, done: threading.Event) -> None:
    while rate and not done.is_set():
        load.say(f"pace {rate} 0.5 {AHEAD}")
