"""The same histories at the TypeScript client, in Node and in Chromium, through a network that is cut."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import Browser, Page

from steadcast.testing import FaultProxy
from tests.support.browser import chromium
from tests.support.histories import PATIENCE, History, publish_paced, until
from tests.support.node import NodeSubscriber
from tests.support.server import Server, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
STORIES = ["away 2 s", "away 0.2 s", "killed", "both"]


async def until_true(page: Page, expression: str) -> None:
    """Poll from outside: the page's own security policy lets no string be run as code inside."""
    async with asyncio.timeout(20):
        while not await page.evaluate(expression):
            await asyncio.sleep(0.05)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


async def away(proxy: FaultProxy, seconds: float) -> None:
    await asyncio.sleep(1)
    proxy.refusing = True
    await proxy.cut()
    await asyncio.sleep(seconds)
    proxy.refusing = False


async def killed(server: Server) -> None:
    await asyncio.sleep(1.5)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def happen(story: str, server: Server, proxy: FaultProxy, history: History) -> None:
    happenings = [publish_paced(server.url, "orders", history)]
    if story.startswith("away"):
        happenings.append(away(proxy, float(story.split()[1])))
    else:
        happenings.append(killed(server))
    if story == "both":
        happenings.append(away(proxy, 2))
    await asyncio.gather(*happenings)
    assert len(history.acked) == 200


@pytest.mark.parametrize("story", STORIES)
async def test_in_node_nothing_is_lost_doubled_or_reordered(
    server: Server, proxy: FaultProxy, story: str
) -> None:
    node = NodeSubscriber()
    await node.follow(proxy.url)
    await happen(story, server, proxy, node.history)
    await until(lambda: node.history.complete, what="every acked event is applied")
    await node.end()
    node.history.check()
    assert node.told == []


FOLLOW = """() => {
  window.applied = [];
  window.told = [];
  window.socketClient.subscribe("orders", {
    from: "start",
    onEvent: ({ id }) => { window.applied.push(id); },
    onTold: (notice) => { window.told.push(notice); },
  });
}"""


async def applied(page: Page) -> list[str]:
    found: list[str] = await page.evaluate("window.applied")
    return found


async def until_applied(page: Page, history: History, within: float = PATIENCE) -> None:
    deadline = asyncio.get_running_loop().time() + within
    while not history.complete:
        assert asyncio.get_running_loop().time() < deadline, "every acked event is applied: not in time"
        await asyncio.sleep(0.1)
        history.applied = await applied(page)


@pytest.mark.parametrize("story", STORIES)
async def test_in_chromium_nothing_is_lost_doubled_or_reordered(
    browser: Browser, server: Server, proxy: FaultProxy, story: str
) -> None:
    page = await browser.new_page()
    await page.goto(f"{proxy.url}/?stream=elsewhere")
    await until_true(page, "window.socketClient?.connected")
    await page.evaluate(FOLLOW)
    history = History()
    await happen(story, server, proxy, history)
    await until_applied(page, history)
    history.check()
    assert await page.evaluate("window.told") == []


async def test_a_reloaded_page_shows_the_last_events_again_and_goes_on(
    browser: Browser, server: Server
) -> None:
    # High enough for all of them: the list has only those rows that can be seen.
    page = await browser.new_page(viewport={"width": 1280, "height": 1200})
    server.publish("orders", *[event(n) for n in range(20)])
    await page.goto(f"{server.url}/?stream=orders")
    await page.wait_for_selector('[data-testid="row"] >> nth=19')
    await page.reload()
    await page.wait_for_selector('[data-testid="row"] >> nth=19')
    server.publish("orders", *[event(n) for n in range(20, 25)])
    await page.wait_for_selector('[data-testid="row"] >> nth=24')
    assert await page.locator('[data-testid="row"]').count() == 25
    assert await page.locator('[data-testid="lost"]').inner_text() in {"0", "lost 0"}


LIVE = 'window.kept.snapshot().state === "live"'
PERSIST = """() => {
  window.applied = [];
  window.kept = window.socketClient.subscribe("orders", {
    from: "end", persist: true,
    onEvent: ({ id }) => { window.applied.push(id); },
  });
}"""


async def test_a_kept_cursor_resumes_after_a_reload_and_a_duplicated_tab_does_not_share_it(
    browser: Browser, server: Server
) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{server.url}/?stream=elsewhere")
    await until_true(page, "window.socketClient?.connected")
    await page.evaluate(PERSIST)
    await until_true(page, LIVE)
    server.publish("orders", event(1), event(2))
    await until_true(page, "window.applied.length === 2")
    await asyncio.sleep(0.5)
    session = await page.evaluate("JSON.stringify(Object.entries(sessionStorage))")
    await page.goto("about:blank")
    server.publish("orders", event(3))
    await page.goto(f"{server.url}/?stream=elsewhere")
    await until_true(page, "window.socketClient?.connected")
    await page.evaluate(PERSIST)
    await until_true(page, "window.applied.length === 1")
    assert await applied(page) == ["e3"]
    twin = await context.new_page()
    await twin.add_init_script(f"for (const [k, v] of {session}) sessionStorage.setItem(k, v)")
    await twin.goto(f"{server.url}/?stream=elsewhere")
    await until_true(twin, "window.socketClient?.connected")
    await twin.evaluate(PERSIST)
    await until_true(twin, LIVE)
    server.publish("orders", event(4))
    await until_true(twin, "window.applied.length === 1")
    await until_true(page, "window.applied.length === 2")
    assert await applied(twin) == ["e4"]
    assert await applied(page) == ["e3", "e4"]
