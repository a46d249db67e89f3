"""The form for an event, as a person fills it in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.async_api import expect

from tests.support.pages import check_accessible, check_sizes, viewed
from tests.support.server import Server

if TYPE_CHECKING:
    from pathlib import Path


async def test_an_event_is_checked_published_and_answered_in_words(server: Server, tmp_path: Path) -> None:
    async with viewed(server, "?view=publish") as page:
        await page.wait_for_selector('[data-testid="state-pill"][data-state="connected"]')
        field = {name: page.get_by_test_id(f"publish-{name}") for name in ("stream", "type", "id", "data")}
        send, outcome = page.get_by_test_id("publish-send"), page.get_by_test_id("publish-outcome")
        await field["data"].fill('{"order": 17')
        await send.click()
        await expect(field["type"]).to_be_focused()
        await expect(page.locator("#hint-data")).to_contain_text("Not JSON")
        await check_accessible(page)
        await field["type"].fill("order.paid")
        await field["id"].fill("p-1")
        await field["data"].fill('{"order": 17}')
        await page.get_by_test_id("publish-critical").check()
        await field["type"].focus()
        await page.keyboard.press("Enter")
        await expect(outcome).to_contain_text("Durable: orders, critical lane, offset 1")
        await page.wait_for_selector('[data-testid="state-pill"][data-state="live"]')
        await check_sizes(page, tmp_path, "publish")
        await send.click()
        await expect(outcome).to_contain_text("It was there already")
        await field["data"].fill('{"order": 18}')
        await send.click()
        await expect(outcome).to_contain_text("This id stands for another event")
        await expect(outcome).to_have_attribute("data-ok", "false")
        await check_accessible(page)
        await field["id"].fill("")
        await send.click()
        await expect(outcome).to_contain_text("offset 2")
        await page.evaluate("void (window.same = true)")
        await outcome.get_by_role("link").click()
        await expect(page.get_by_test_id("row")).to_have_count(2)
        assert await page.evaluate("window.same"), "a link within the page doesn't load it anew"
    page_of_log = server.get("/v1/streams/orders/events?lane=critical").json()
    assert [each["data"]["order"] for each in page_of_log["events"]] == [17, 18]


async def test_while_the_server_is_away_an_event_waits_and_is_sent_once(server: Server) -> None:
    async with viewed(server, "?view=publish") as page:
        await page.wait_for_selector('[data-testid="state-pill"][data-state="connected"]')
        await page.get_by_test_id("publish-type").fill("order.paid")
        await page.evaluate("void window.socketClient.disconnect()")
        await page.get_by_test_id("publish-send").click()
        outcome = page.get_by_test_id("publish-outcome")
        await expect(outcome).to_contain_text("Waiting for the connection")
        await page.evaluate("void window.socketClient.connect()")
        await expect(outcome).to_contain_text("Durable")
    assert len(server.get("/v1/streams/orders/events").json()["events"]) == 1


async def test_what_is_written_and_what_became_of_it_outlive_a_look_at_another_view(server: Server) -> None:
    async with viewed(server, "?view=publish") as page:
        await page.wait_for_selector('[data-testid="state-pill"][data-state="connected"]')
        await page.get_by_test_id("publish-type").fill("order.paid")
        await page.get_by_test_id("publish-data").fill('{"order": 17}')
        await page.get_by_test_id("view-pulse").click()
        await page.get_by_test_id("view-publish").click()
        await expect(page.get_by_test_id("publish-type")).to_have_value("order.paid")
        await expect(page.get_by_test_id("publish-data")).to_have_value('{"order": 17}')
        await page.get_by_test_id("publish-data").fill('{"order": ')
        await page.get_by_test_id("publish-type").focus()
        await expect(page.locator("#hint-data")).to_contain_text("Not JSON")
        await page.get_by_test_id("publish-data").fill('{"order": 18}')
        await page.evaluate("void window.socketClient.disconnect()")
        await page.get_by_test_id("publish-send").click()
        await expect(page.get_by_test_id("publish-outcome")).to_contain_text("Waiting for the connection")
        await page.get_by_test_id("view-pulse").click()
        await page.evaluate("void window.socketClient.connect()")
        await page.get_by_test_id("view-publish").click()
        await expect(page.get_by_test_id("publish-outcome")).to_contain_text("Durable: orders")
    assert len(server.get("/v1/streams/orders/events").json()["events"]) == 1
