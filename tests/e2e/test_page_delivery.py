"""The delivery view as an operator uses it: who is connected, what died, and the wire cut on purpose."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest
from playwright.async_api import expect

from steadcast.event import Event
from steadcast.socketio.dead_file import DeadFile, Why, encode
from tests.support.house import Peer
from tests.support.pages import check_accessible, check_sizes, viewed
from tests.support.server import Server, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Page


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    bury(tmp_path, "lost-1", "lost-2")
    running = await asyncio.to_thread(Server(tmp_path).start)
    yield running
    running.__exit__()


def bury(folder: Path, *names: str) -> None:
    """Leave dead events in the file, as a server does whose log was away."""
    died = Why("exhausted", "2026-01-31T12:00:09Z", 4, "engine_unavailable: the log is away")
    events = [
        Event(name, "/shop", "order.paid", "2026-01-31T12:00:00Z", msgspec.Raw(b'{"order":17}'))
        for name in names
    ]
    DeadFile(folder / "steadcast.db.dead").append([encode("orders", each, died) for each in events])


async def connected(page: Page) -> None:
    await page.wait_for_selector('[data-testid="client"][data-own="true"]')


async def test_the_operator_sees_who_is_behind_pings_and_disconnects(server: Server, tmp_path: Path) -> None:
    await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(40)])
    await asyncio.to_thread(server.publish, "alarms", event(1, priority="critical"))
    peer = Peer()
    await peer.connect(server.url, {"client": {"id": "worker-7", "version": "1"}})
    await peer.call("subscribe", {"stream": "orders", "from": "start"})
    await peer.until(lambda: len(peer.events()) == 40)
    async with viewed(server, "?view=delivery") as page:
        await connected(page)
        worker = page.get_by_test_id("client").filter(has_text="worker-7")
        await expect(worker).to_contain_text("40")
        await expect(worker).to_contain_text("live")
        await expect(page.get_by_test_id("engine")).to_have_attribute("data-available", "true")
        await expect(page.get_by_test_id("breaker")).to_have_attribute("data-state", "closed")
        await expect(page.get_by_test_id("queue-queue_size")).to_have_text("0")
        alarms = page.locator('[data-testid="lane"][data-stream="alarms"][data-lane="critical"]')
        await expect(alarms).to_contain_text("1")
        own = page.locator('[data-testid="client"][data-own="true"]')
        await expect(own).to_contain_text("live")
        await expect(page.get_by_test_id("rates-known")).to_be_visible()
        await check_sizes(page, tmp_path, "delivery")
        await own.get_by_test_id("ping").click()
        await expect(page.get_by_test_id("delivery-said")).to_contain_text("this page answered in")
        await worker.get_by_test_id("disconnect").click()
        await expect(page.get_by_test_id("delivery-said")).to_contain_text("worker-7 was disconnected")
        await expect(worker).to_have_count(0)
        await peer.until(lambda: peer.named("disconnect"))
        [told] = peer.named("error")
        assert told["code"] == "disconnected"
    await peer.close()


async def test_dead_events_are_sent_again_and_dropped_after_a_question(server: Server) -> None:
    async with viewed(server, "?view=delivery") as page:
        dead = page.get_by_test_id("dead")
        await expect(dead).to_have_count(2)
        await expect(dead.first).to_contain_text("exhausted: engine_unavailable")
        await dead.first.get_by_test_id("redrive").click()
        await expect(page.get_by_test_id("delivery-said")).to_contain_text("is in its stream again")
        await expect(dead).to_have_count(1)
        drop = dead.first.get_by_test_id("drop")
        await drop.click()
        await expect(drop).to_have_text("Yes, drop")
        await check_accessible(page)
        await drop.click()
        await expect(page.get_by_test_id("no-dead")).to_be_visible()
    [kept] = server.get("/v1/streams/orders/events").json()["events"]
    assert kept["data"] == {"order": 17}


async def test_the_wire_is_cut_and_the_page_catches_up(server: Server) -> None:
    await asyncio.to_thread(server.publish, "orders", event(0))
    async with viewed(server, "?view=delivery&stream=orders") as page:
        await connected(page)
        await page.wait_for_selector('[data-testid="state-pill"][data-state="live"]')
        said = page.get_by_test_id("wire-said")
        # Looked for from before on: it doesn't last.
        offline = asyncio.create_task(
            page.wait_for_selector('[data-testid="state-pill"][data-state="offline"]')
        )
        cut = asyncio.create_task(page.wait_for_selector("text=The wire is cut"))
        await page.get_by_test_id("cut").click()
        await asyncio.gather(offline, cut)
        await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(1, 31)])
        await expect(said).to_contain_text("30 events that came meanwhile were caught up")
        await expect(said).to_contain_text("0 lost")
