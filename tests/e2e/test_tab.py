"""What a browser does to a tab: it crashes, it is frozen, a service worker answers in the network's place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from steadcast import Settings, Steadcast
from steadcast.testing import FaultProxy
from tests.support.asgi import served
from tests.support.server import Server, event
from tests.support.tab import Chromium, Session, tabs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.requests import Request

MAKE = """(options) => {
  const { constructor: SocketClient } = window.socketClient;
  const client = window.mine = new SocketClient(location.origin, { reconnectDelay: 100, ...options });
  window.connects = 0;
  client.on("connect", () => { window.connects += 1; });
  window.applied = [];
  window.told = [];
  window.feed = client.subscribe("orders", {
    from: "start",
    onEvent: ({ id }) => { window.applied.push(id); },
    onTold: (notice) => { window.told.push(notice.kind); },
  });
}"""
LIVE = 'window.feed?.snapshot().state === "live"'
KEEPING = "{ persistQueue: true, flushSpacing: 10 }"
QUEUE = """(() => {
  for (let n = 0; n < 10; n += 1) {
    window.mine.publish("orders", { id: `e${n}`, type: "t", data: n }).catch(() => {});
  }
})()"""
QUEUED = """(async () => {
  if (!(await indexedDB.databases()).some(({ name }) => name === "steadcast")) return 0;
  const database = await new Promise((resolve) => {
    const opening = indexedDB.open("steadcast");
    opening.onsuccess = () => resolve(opening.result);
  });
  const count = database.transaction("queue").objectStore("queue").count();
  await new Promise((resolve) => { count.onsuccess = resolve; });
  database.close();
  return count.result;
})()"""


@pytest.fixture
async def chromium(tmp_path: Path) -> AsyncIterator[Chromium]:
    profile = tmp_path / "profile"
    profile.mkdir()
    async with tabs(profile) as running:
        yield running


async def follow(tab: Session, options: str = "{}") -> None:
    await tab.until("window.socketClient?.connected")
    await tab.run(f"({MAKE})({options})")
    await tab.until(LIVE)


async def queued(tab: Session, expected: int) -> None:
    """Wait until so many emissions are kept, by whichever tab."""
    async with asyncio.timeout(60):
        while await tab.run(QUEUED) != expected:
            await asyncio.sleep(0.05)


def kept(server: Server) -> list[str]:
    page = httpx.get(f"{server.url}/v1/streams/orders/events", timeout=30).json()
    return [each["id"] for each in page["events"]]


@pytest.mark.parametrize("after", ["the tab is loaded anew", "another tab is opened"])
async def test_what_a_tab_that_crashed_had_kept_is_sent_by_the_next_one_once_and_in_order(
    server: Server, proxy: FaultProxy, chromium: Chromium, after: str
) -> None:
    address = f"{proxy.url}/?stream=elsewhere"
    tab = await chromium.tab(address)
    await follow(tab, KEEPING)
    proxy.refusing = True
    await proxy.cut()
    await tab.until('window.feed.snapshot().state === "offline"')
    await tab.run(QUEUE)
    await queued(tab, 10)
    await tab.crash()
    assert kept(server) == []
    proxy.refusing = False
    another = after == "another tab is opened"
    tab = await (chromium.tab(address) if another else chromium.anew(tab))
    await follow(tab, KEEPING)
    await tab.until("window.applied.length >= 10")
    await queued(tab, 0)
    assert kept(server) == [f"e{n}" for n in range(10)]


async def test_a_tab_that_was_frozen_says_what_happened_and_goes_on_without_loss_or_storm(
    server: Server, chromium: Chromium
) -> None:
    """Until more has come than its window holds, so that the server goes on from the log."""
    tab = await chromium.tab(f"{server.url}/?stream=elsewhere")
    await follow(tab)
    await tab.run("document.addEventListener('freeze', () => { window.frozen = true; })")
    await tab.ask("Page.setWebLifecycleState", state="frozen")
    await tab.until("window.frozen")
    for first in range(0, 2_000, 500):
        await asyncio.to_thread(
            server.publish, "orders", *[event(n, data="x" * 600) for n in range(first, first + 500)]
        )
    assert await tab.run("window.applied.length") == 0
    await tab.run(
        "window.states = []; window.feed.onChange(() => window.states.push(window.feed.snapshot().state))"
    )
    await tab.ask("Page.setWebLifecycleState", state="active")
    await tab.until("window.applied.length >= 2000")
    await tab.until(LIVE)
    assert await tab.run("window.applied") == [f"e{n}" for n in range(2_000)]
    assert await tab.run("window.told") == []
    # Chromium itself ends the connections of a tab that it freezes.
    connects = await tab.run("window.connects")
    assert connects <= 2, "one new connection at most"
    assert ("offline" in await tab.run("window.states")) is (connects == 2)


WORKER = """
addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => event.respondWith((async () => {
  const { request } = event;
  const cache = await caches.open("everything");
  const found = await cache.match(request);
  if (found) return found;
  const answer = await fetch(request);
  if (request.method === "GET") await cache.put(request, answer.clone());
  return answer;
})()));
"""


async def worker(_: Request) -> Response:
    return Response(WORKER, media_type="text/javascript")


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_behind_a_service_worker_that_caches_everything_the_client_goes_on(
    chromium: Chromium, transport: str
) -> None:
    cast = Steadcast(engine="memory:", settings=Settings(engine="memory:"))
    app = Starlette(routes=[Route("/worker.js", worker), Mount("/live", cast)])
    config: dict[str, Any] = {"port": 0, "log_config": None, "lifespan": "off"}
    async with cast, served(uvicorn.Config(app, **config)) as port:
        tab = await chromium.tab(f"http://127.0.0.1:{port}/live/?stream=elsewhere")
        await tab.until("window.socketClient?.connected")
        await tab.run("navigator.serviceWorker.register('/worker.js').then(() => undefined)")
        await tab.until("navigator.serviceWorker.controller")
        await follow(tab, f'{{ path: "/live/socket.io", socket: {{ transports: ["{transport}"] }} }}')
        for n in range(40):
            await cast.publish("orders", type="t", data=n, id=f"e{n}")
            if n == 20:
                await tab.run("window.mine.cut(0.1)")
        await tab.until("window.applied.length >= 40")
        assert await tab.run("window.applied") == [f"e{n}" for n in range(40)]
        assert await tab.run("window.connects") == 2
        polls = "caches.open('everything').then((cache) => cache.keys())"
        found = f"{polls}.then((keys) => keys.filter(({{ url }}) => url.includes('polling')).length)"
        assert (await tab.run(found) > 0) is (transport == "polling")
