"""What the specification asks of the browser's client, in Chromium: an outage, a disconnect, a reload."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import Browser, Page
from playwright.async_api import WebSocket as Socket

from steadcast.testing import FaultProxy
from tests.support.browser import chromium
from tests.support.delivery import Place, serving, until
from tests.support.server import Server, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


class Sockets:
    """The Socket.IO connections of a page, as the browser itself reports them."""

    def __init__(self, page: Page) -> None:
        self.opened: list[Socket] = []
        page.on("websocket", self._opens)

    def _opens(self, socket: Socket) -> None:
        self.opened.append(socket)

    @property
    def open(self) -> int:
        return sum(not socket.is_closed() for socket in self.opened)


FOLLOW = """() => {
  window.applied = [];
  window.socketClient.subscribe("spec", {
    from: "start", onEvent: ({ id }) => { window.applied.push(id); },
  });
}"""


async def applied(page: Page) -> list[str]:
    found: list[str] = await page.evaluate("window.applied")
    return found


async def holds(page: Page, condition: str) -> None:
    """Wait until something is true in the page, whose security policy lets it evaluate no text by itself."""
    async with asyncio.timeout(20):
        while not await page.evaluate(condition):
            await asyncio.sleep(0.02)


async def connected(page: Page, url: str) -> None:
    await page.goto(url)
    await holds(page, "window.socketClient?.connected")


async def test_after_six_seconds_offline_there_is_one_socket_and_nothing_is_doubled(
    browser: Browser, server: Server
) -> None:
    async with FaultProxy("127.0.0.1", server.port) as proxy:
        page = await browser.new_page()
        sockets = Sockets(page)
        await connected(page, proxy.url)
        await page.evaluate(FOLLOW)
        server.publish("spec", *[event(n) for n in range(3)])
        await holds(page, "window.applied.length === 3")
        proxy.refusing = True
        await proxy.cut()
        server.publish("spec", *[event(n) for n in range(3, 6)])
        await asyncio.sleep(6)
        assert await page.evaluate("window.socketClient.getConnectionMetrics().isConnected") is False
        proxy.refusing = False
        await holds(page, "window.applied.length >= 6")
        server.publish("spec", event(6))
        await holds(page, "window.applied.length >= 7")
        # Were there several sockets, each would bring the event: give the others time to.
        await asyncio.sleep(1)
        assert await applied(page) == [f"e{n}" for n in range(7)]
        assert sockets.open == 1
        stats = server.get("/v1/stats").json()
        assert stats["connections"]["connected"] == 1


async def test_a_client_that_the_server_disconnected_is_back_within_five_seconds(browser: Browser) -> None:
    async with serving() as place:
        page = await browser.new_page()
        sockets = Sockets(page)
        await connected(page, place.url)
        await page.evaluate(FOLLOW)
        await place.post(1, stream="spec")
        await holds(page, "window.applied.length === 1")
        [sid] = sids(place)
        began = time.monotonic()
        await place.cast.sio.disconnect(sid)
        await until(lambda: [each for each in sids(place) if each != sid], "a new connection", within=5)
        assert time.monotonic() - began < 5
        await place.post(2, stream="spec")
        await holds(page, "window.applied.length === 2")
        assert await applied(page) == ["e1", "e2"]
        assert await page.evaluate("window.socketClient.getConnectionMetrics().disconnects") == 1
        await until(lambda: sockets.open == 1, "one socket")
        await page.close()


def sids(place: Place) -> list[str]:
    return [client.id for client in place.cast.connections]


KEEPER = """async () => {
  const Client = window.socketClient.constructor;
  window.keeper = new Client(undefined, { persistQueue: "spec", clientId: "keeper" });
}"""
PUBLISH = """() => {
  for (const n of [1, 2, 3]) {
    const event = { id: `k${n}`, source: "page", type: "t", data: n };
    void window.keeper.emitWithRetry("publish", { stream: "spec", events: [event] }).catch(() => {});
    void window.keeper.emitWithRetry("count", n).catch(() => {});
  }
}"""


async def test_a_queue_that_is_kept_outlives_a_reload_and_is_delivered_once(browser: Browser) -> None:
    counted: list[Any] = []

    async def count(sid: str, data: Any) -> int:
        counted.append(data)
        return len(counted)

    async with serving() as place:
        place.cast.sio.on("count", count)
        host, port = place.url.removeprefix("http://").split(":")
        async with FaultProxy(host, int(port)) as proxy:
            page = await browser.new_page()
            await connected(page, proxy.url)
            await page.evaluate(KEEPER)
            await holds(page, "window.keeper.connected")
            proxy.refusing = True
            await proxy.cut()
            await holds(page, "!window.keeper.connected")
            await page.evaluate(PUBLISH)
            assert await page.evaluate("window.keeper.getConnectionMetrics().queuedEvents") == 6
            await asyncio.sleep(0.3)  # until IndexedDB has written it
            proxy.refusing = False
            await connected(page, proxy.url)
            assert counted == []
            await page.evaluate(KEEPER)
            await until(lambda: counted == [1, 2, 3], "the queue")
            await holds(page, "window.keeper.getConnectionMetrics().queuedEvents === 0")
            await holds(page, "window.keeper.getConnectionMetrics().pendingEmissions === 0")
            follower = await place.follow("spec", live=False)
            await until(lambda: len(follower.ids) == 3, "what was published")
            # A third load finds nothing kept: what was acked has left the store.
            await connected(page, proxy.url)
            await page.evaluate(KEEPER)
            await holds(page, "window.keeper.connected")
            await asyncio.sleep(0.5)
            assert (counted, follower.ids) == ([1, 2, 3], ["k1", "k2", "k3"])
            await page.close()


@pytest.mark.parametrize(
    ("fault", "words"),
    [("fill_disk", "full"), ("go_away", "away"), ("hang", "doesn't answer")],
)
async def test_the_page_says_in_words_what_is_wrong_with_the_engine_and_loses_nothing(
    browser: Browser, fault: str, words: str
) -> None:
    async with serving() as place:
        assert (await place.post(0)).status_code == 200
        page = await browser.new_page()
        await connected(page, place.url)
        await page.wait_for_selector('[data-testid="row"]')
        if fault == "hang":
            place.engine.append_hangs = True
        else:
            getattr(place.engine, fault)()
        trouble = page.get_by_test_id("trouble")
        await trouble.wait_for(timeout=20_000)
        told = await trouble.inner_text()
        assert words in told, told
        assert await page.evaluate("window.socketClient.connected")
        accepted = asyncio.create_task(place.cast.publish("s", type="t", id="waiting"))
        await until(lambda: place.cast.broadcaster.queue.stats["queue_size"] == 1, "the queue")
        place.engine.heal()
        await accepted
        await page.wait_for_selector('[data-testid="row"][data-id="waiting"]', timeout=20_000)
        await trouble.wait_for(state="detached", timeout=20_000)
        assert await page.locator('[data-testid="row"]').count() == 2
        assert await page.get_by_test_id("lost").get_attribute("data-value") == "0"
