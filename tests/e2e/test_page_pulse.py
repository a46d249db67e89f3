"""The pulse as a person uses it: what came before the page, what comes, and the way to the events."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from playwright.async_api import expect

from tests.support.pages import check_accessible, check_sizes, viewed
from tests.support.server import Server, event

if TYPE_CHECKING:
    from pathlib import Path

TYPES = ("order.placed", "order.paid", "order.shipped", "mail.sent", "stock.low")


def past(count: int, *, seconds: float) -> list[dict[str, Any]]:
    """Make events of several types, spread over the last `seconds`, more of them lately."""
    now = datetime.now(UTC)
    events = []
    for n in range(count):
        at = now - timedelta(seconds=seconds * (1 - (n / count) ** 0.7))
        kind = TYPES[(n * n + n // 7) % len(TYPES)]
        events.append(event(n, type=kind, time=at.isoformat().replace("+00:00", "Z")))
    return events


async def test_the_last_hour_is_drawn_and_leads_to_its_events(server: Server, tmp_path: Path) -> None:
    await asyncio.to_thread(server.publish, "orders", *past(600, seconds=3_300))
    async with viewed(server, "?view=pulse") as page:
        pulse = page.get_by_test_id("pulse")
        await page.get_by_test_id("pulse-60").click()
        await expect(pulse).to_have_attribute("data-total", "600")
        types = page.get_by_test_id("pulse-types").locator("button")
        await expect(types).to_have_count(len(TYPES))
        await check_sizes(page, tmp_path, "pulse")
        await page.emulate_media(color_scheme="light")
        chart = await page.get_by_test_id("pulse-chart").bounding_box()
        assert chart is not None
        # The foot of a bar belongs to the largest type that has an event in it.
        foot = (chart["x"] + chart["width"] * 0.8, chart["y"] + chart["height"] - 40)
        await page.mouse.move(*foot)
        await expect(pulse.get_by_role("columnheader").nth(1)).not_to_have_text("a second")
        await page.mouse.click(*foot)
        await expect(page.get_by_test_id("feed")).to_be_visible()
        assert any(f"type={each}" in page.url for each in TYPES)
        await page.go_back()
        await types.nth(2).focus()
        third = await types.nth(2).get_attribute("data-type")
        await page.keyboard.press("Enter")
        await expect(page.get_by_test_id("feed")).to_be_visible()
        assert f"type={third}" in page.url


async def test_what_comes_is_counted_once_and_the_window_changes_what_is_seen(server: Server) -> None:
    await asyncio.to_thread(server.publish, "orders", *past(300, seconds=20))
    async with viewed(server, "?view=pulse&minutes=1") as page:
        pulse = page.get_by_test_id("pulse")
        await expect(pulse).to_have_attribute("data-total", "300")
        await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(1_000, 1_040)])
        await expect(page.get_by_test_id("pulse-types")).to_contain_text("test.counted")
        for minutes in ("5", "60"):
            await page.get_by_test_id(f"pulse-{minutes}").click()
            await expect(pulse).to_have_attribute("data-total", "340")
        await page.get_by_test_id("theme-toggle").click()
        await expect(page.get_by_test_id("pulse-chart").locator("canvas")).to_be_visible()
        await check_accessible(page)


async def test_a_stream_without_events_says_so(server: Server) -> None:
    async with viewed(server, "?view=pulse&stream=quiet") as page:
        await expect(page.get_by_test_id("pulse-quiet")).to_contain_text("No event in the last 5 minutes")
        await check_accessible(page)


async def test_critical_events_that_were_not_all_read_are_said_too(server: Server) -> None:
    events = [event(n, type="alarm", priority="critical") for n in range(400)]
    await asyncio.to_thread(server.publish, "alarms", *events)
    async with viewed(server, "?view=pulse&stream=alarms") as page:
        await expect(page.get_by_test_id("pulse")).to_have_attribute("data-total", "256")
        await expect(page.get_by_test_id("pulse-since")).to_contain_text("the log has more")
        await check_accessible(page)


async def test_a_log_that_cannot_be_read_is_told_and_read_again(server: Server) -> None:
    await asyncio.to_thread(server.publish, "orders", *past(300, seconds=20))
    pages = "**/v1/streams/orders/events*"
    async with viewed(server, "?view=delivery&stream=orders") as page:
        # What a proxy may put in its place; an error's status would stand in the browser's console.
        await page.route(pages, lambda route: route.fulfill(body="<html>Please log in.</html>"))
        await page.get_by_test_id("view-pulse").click()
        trouble = page.get_by_test_id("pulse-trouble")
        await expect(trouble).to_contain_text("no page of the log")
        await expect(page.get_by_test_id("pulse-quiet")).to_have_count(0)
        await check_accessible(page)
        await page.unroute(pages)
        await trouble.get_by_role("button").click()
        await expect(page.get_by_test_id("pulse")).to_have_attribute("data-total", "300")
        await expect(trouble).to_have_count(0)
