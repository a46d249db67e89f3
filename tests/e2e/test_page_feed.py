"""The feed, driven as a person would: rows, details, filters, keys, the log behind it, and much at once."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.support.browser import chromium
from tests.support.page import ROOT, Watched, ids, jump, picture, play_demo, scrolled, until, violations
from tests.support.server import Server, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROW = '[data-testid="row"]'
STATIC = ROOT / "src/steadcast/http/static"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


async def demo(server: Server, browser: Browser, **more: Any) -> Watched:
    await asyncio.to_thread(play_demo, server)
    watched = await Watched.open(browser, server.url, **more)
    await watched.page.wait_for_selector(f'{ROW}:has-text("logout")')
    return watched


async def listed(page: Page, expected: int) -> None:
    """Wait until so many events are listed, whether they stand in the document or not."""
    condition = "document.querySelector('[data-testid=found]')?.textContent.trim().split(' ')[0]"
    await until(page, f"{condition} === '{expected:,}'", f"{expected} rows")


async def test_a_tool_call_is_one_row_and_its_details_show_what_it_did(
    server: Server, browser: Browser, tmp_path: Path
) -> None:
    watched = await demo(server, browser)
    page = watched.page
    await listed(page, 102)  # of 148 events: 46 calls have both ends
    assert re.fullmatch(r"(harbor|lantern) \w{6}", await page.locator(f"{ROW} .source").last.inner_text())
    await page.get_by_test_id("filter").fill("NameError timedelta")
    failed = page.locator(ROW).filter(has_text="failed")
    await failed.click()
    detail = page.get_by_test_id("detail")
    assert ".venv/bin/pytest -q tests/test_orders.py" in await page.get_by_test_id("terminal").inner_text()
    assert "failed · 2.3 s" in await detail.inner_text()
    await page.get_by_test_id("filter").fill("from datetime import date, timedelta")
    await page.locator(ROW).first.click()
    diff = await page.get_by_test_id("diff").inner_text()
    assert "+1" in diff
    assert "from datetime import date, timedelta" in diff
    # When the log took it, the page asks for.
    kept = page.get_by_test_id("times").get_by_role("row").filter(has_text="kept in the log")
    for row in (kept.first, kept.last):
        await expect(row.get_by_role("cell").first).to_contain_text(re.compile(r"\d\d:\d\d:\d\d"))
    steps = await page.get_by_test_id("times").get_by_role("rowheader").all_inner_texts()
    assert steps[:4] == ["published", "kept in the log", "came to this page", "shown"]
    await page.screenshot(path=picture(tmp_path, "detail.png"))
    assert await violations(page) == []
    await page.emulate_media(color_scheme="dark")
    await page.screenshot(path=picture(tmp_path, "detail_dark.png"))
    assert await violations(page) == []
    await page.set_viewport_size({"width": 375, "height": 700})
    await page.screenshot(path=picture(tmp_path, "detail_narrow.png"))
    for menu in ("jump", "export"):
        await page.get_by_test_id(menu).click()
        box = await page.get_by_role("dialog").bounding_box()
        assert box is not None
        assert (box["x"] >= 0, box["x"] + box["width"] <= 375) == (True, True), "a menu stays on the screen"
        await page.keyboard.press("Escape")
    assert watched.complaints == []


async def test_filters_stand_in_the_address_and_back_takes_them_off(server: Server, browser: Browser) -> None:
    page = (await demo(server, browser)).page
    await page.get_by_test_id("filter-priority").select_option("critical")
    await until(page, "location.search.includes('priority=critical')", "the address")
    lanes = await page.locator(ROW).evaluate_all("rows => rows.map(row => row.dataset.lane)")
    assert set(lanes) == {"critical"}
    await page.get_by_test_id("filter-type").select_option("claude.PermissionRequest")
    await listed(page, 2)
    await page.reload()
    await listed(page, 2)
    await page.go_back()
    await listed(page, len(lanes))
    await page.get_by_test_id("clear-filter").click()
    await listed(page, 102)
    await page.locator(ROW).last.click()
    await page.get_by_test_id("detail").get_by_title("Show only this type").click()
    await listed(page, 2)
    assert "type=claude.SessionEnd" in page.url


async def test_everything_in_the_feed_works_by_keys(server: Server, browser: Browser) -> None:
    page = (await demo(server, browser)).page
    active = "document.activeElement.closest('[data-testid=row]')?.dataset.id"
    await page.keyboard.press("j")
    newest = await until(page, active, "the newest row has the focus")
    await page.keyboard.press("k")
    await until(page, f"({active}) !== '{newest}'", "the row before has the focus")
    for _ in range(40):
        await page.keyboard.press("k")
    far = await until(page, active, "a row far up has the focus")
    assert far in await ids(page)
    await page.keyboard.press("Enter")
    await page.wait_for_selector('[data-testid="detail"]')
    await page.keyboard.press("Escape")
    await until(page, f"({active}) === '{far}'", "the row has the focus again")
    assert await page.locator('[data-testid="detail"]').count() == 0
    await page.keyboard.press("g")
    await page.wait_for_selector('[data-testid="feed"][data-following="true"]')
    await page.keyboard.press("/")
    await until(page, "document.activeElement.dataset.testid === 'filter'", "the filter has the focus")
    await page.keyboard.press("g")  # a letter like any other, there
    assert await page.get_by_test_id("filter").input_value() == "g"
    await page.get_by_test_id("filter").fill("")
    await page.get_by_test_id("keys-button").click()
    await page.wait_for_selector('[data-testid="keys"]')
    await page.keyboard.press("Escape")
    await page.locator("body").click(position={"x": 5, "y": 5})
    await page.keyboard.press("?")
    await page.wait_for_selector('[data-testid="keys"]')
    assert await violations(page) == []
    await page.keyboard.press("Escape")
    await page.wait_for_selector('[data-testid="keys"]', state="detached")
    await page.keyboard.press("Space")
    await page.wait_for_selector('[data-testid="pause"][aria-pressed="true"]')


async def test_single_characters_do_nothing_where_the_reader_has_turned_them_off(
    server: Server, browser: Browser
) -> None:
    """WCAG 2.1.4: speech that is taken for typing would walk, pause and filter."""
    page = (await demo(server, browser)).page
    feed = page.get_by_test_id("feed")
    await page.keyboard.press("?")
    await page.get_by_test_id("shortcuts").uncheck()
    assert await violations(page) == []
    await page.keyboard.press("Escape")
    for _ in range(2):
        for key in ("k", "j", "Space", "/", "?", "g"):
            await page.keyboard.press(key)
        await expect(feed).to_have_attribute("data-following", "true")
        assert await page.evaluate("document.activeElement.closest('[data-testid=row], input')") is None
        assert await page.get_by_test_id("keys").count() == 0
        await page.reload()
        await page.wait_for_selector(f'{ROW}:has-text("logout")')
    assert "(" not in str(await page.get_by_test_id("keys-button").get_attribute("title"))
    await page.keyboard.press("ArrowUp")
    await expect(feed).to_have_attribute("data-following", "false")
    await page.get_by_test_id("keys-button").click()
    await page.get_by_test_id("shortcuts").check()
    await page.keyboard.press("Escape")
    await page.locator("body").click(position={"x": 5, "y": 5})
    await page.keyboard.press("g")
    await expect(feed).to_have_attribute("data-following", "true")


async def test_a_paused_feed_stands_still_and_counts_what_is_new(server: Server, browser: Browser) -> None:
    await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(100)])
    page = (await Watched.open(browser, server.url)).page
    await page.wait_for_selector(f'{ROW}[data-id="e99"]')
    await page.get_by_test_id("pause").click()
    before = await page.locator(f'{ROW}[data-id="e99"]').bounding_box()
    await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(100, 160)])
    await page.wait_for_selector('[data-testid="new-button"]:has-text("60 new events")')
    visible = "rows => rows.filter(row => row.getBoundingClientRect().bottom <= innerHeight).length"
    assert await page.locator(f'{ROW}[data-id="e99"]').bounding_box() == before
    assert await page.locator(ROW).evaluate_all(visible) > 10
    await page.get_by_test_id("new-button").click()
    await page.wait_for_selector(f'{ROW}[data-id="e159"]')


async def test_events_are_copied_and_exported_as_they_are(server: Server, browser: Browser) -> None:
    odd = event(1, subject="=1+1", data={"text": 'it\'s, "so"\n', "n": [1, None]})
    await asyncio.to_thread(server.publish, "orders", odd, event(2, priority="critical"))
    page = (await Watched.open(browser, server.url)).page
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.locator(f'{ROW}[data-id="e1"]').click()
    detail = page.get_by_test_id("detail")
    await detail.get_by_label("Copy JSON of the event").click()
    await page.wait_for_selector("text=Copied")
    copied = json.loads(await page.evaluate("navigator.clipboard.readText()"))
    assert (copied["id"], copied["data"], copied["offset"]) == ("e1", odd["data"], 1)
    await detail.get_by_label("Copy curl that publishes it again").click()
    await until(page, "navigator.clipboard.readText().then(text => text.startsWith('curl '))", "curl")
    command = await page.evaluate("navigator.clipboard.readText()")
    shell = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    answer, _ = await asyncio.wait_for(shell.communicate(), 20)
    assert json.loads(answer)["results"][0]["duplicate"] is False
    await listed(page, 3)
    files = {}
    for kind in ("ndjson", "csv"):
        await page.get_by_test_id("export").click()
        async with page.expect_download() as download:
            await page.get_by_test_id(f"export-{kind}").click()
        files[kind] = Path(await (await download.value).path()).read_text()
    lines = [json.loads(line) for line in files["ndjson"].splitlines()]
    assert {line["id"] for line in lines} >= {"e1", "e2"}
    table = {row["id"]: row for row in csv.DictReader(io.StringIO(files["csv"]))}
    assert json.loads(table["e1"]["data"]) == odd["data"]
    assert table["e1"]["subject"] == "'=1+1"


async def test_a_number_that_the_browser_rounds_is_shown_and_exported_as_such(
    server: Server, browser: Browser
) -> None:
    numbers = {"exact": 2**53 - 1, "rounded": 2**53 + 1, "beyond": 10**400}
    await asyncio.to_thread(server.publish, "orders", event(1, data=numbers), event(2))
    page = (await Watched.open(browser, server.url)).page
    await page.locator(f'{ROW}[data-id="e1"]').click()
    rough = page.get_by_test_id("detail").locator('[title*="2^53"]')
    await rough.nth(1).wait_for()
    told = await rough.locator("xpath=..").all_inner_texts()
    assert [text.split()[0].rstrip(":") for text in told] == ["rounded", "beyond"]
    assert "Infinity" in told[1]
    await page.get_by_test_id("export").click()
    async with page.expect_download():
        await page.get_by_test_id("export-all-ndjson").click()
    await page.wait_for_selector('[data-testid="export-said"]:has-text("in 1 event here")')


async def test_everything_in_the_log_that_matches_is_exported(server: Server, browser: Browser) -> None:
    await log_of(server, 3_000, needle=901)
    page = (await Watched.open(browser, server.url)).page
    await listed(page, 204)  # of each lane what is new
    files = {}
    for text, kind in (("", "ndjson"), ("needle", "csv")):
        await page.get_by_test_id("filter").fill(text)
        await page.get_by_test_id("export").click()
        async with page.expect_download() as download:
            await page.get_by_test_id(f"export-all-{kind}").click()
        files[kind] = Path(await (await download.value).path()).read_text()
        await page.wait_for_selector('[data-testid="export-said"]:has-text("Done")')
        assert await violations(page) == []
        await page.keyboard.press("Escape")
    lines = [json.loads(line) for line in files["ndjson"].splitlines()]
    assert [line["id"] for line in lines] == [f"e{n}" for n in range(3_000)]
    assert [row["id"] for row in csv.DictReader(io.StringIO(files["csv"]))] == ["e901"]


async def test_the_whole_log_is_reached_by_scrolling_and_by_time_while_the_page_keeps_little(
    server: Server, browser: Browser
) -> None:
    await log_of(server, 20_000)
    page = (await Watched.open(browser, server.url)).page
    await page.wait_for_selector(f'{ROW}[data-id="e19999"]')
    await page.mouse.move(600, 500)
    # More than the page began with.
    await scrolled(page, -4_000, lambda shown: shown[0] < 19_400)
    # A jump, and from there up and down again: nothing is missing at the seams.
    await jump(page, "2026-01-01T00:00:07")
    await page.wait_for_selector(f'{ROW}[data-id="e7000"]')
    await scrolled(page, -2_500, lambda shown: shown[0] < 7_000)
    await jump(page, "2025-12-31T00:00:00")
    await page.wait_for_selector(f'{ROW}[data-id="e0"]')
    await scrolled(page, 50_000, lambda shown: shown[0] > 5_000)
    kept = await page.get_by_test_id("found").inner_text()
    assert int(kept.split()[0].replace(",", "")) <= 12_500
    await page.keyboard.press("g")
    await page.wait_for_selector(f'{ROW}[data-id="e19999"]')


async def test_a_filter_searches_the_log(server: Server, browser: Browser) -> None:
    await log_of(server, 6_000, needle=901)
    page = (await Watched.open(browser, f"{server.url}/?filter=needle")).page
    search = page.get_by_role("button", name=re.compile("Search (the log|further)"))
    while await page.locator(ROW).count() == 0:
        await page.wait_for_selector(f'{ROW}, [data-testid="search"]:enabled')
        if await search.count():
            await search.first.click()
    assert await ids(page) == ["e901"]


def test_the_page_is_small_enough_to_load_everywhere() -> None:
    built = [path for path in STATIC.rglob("*") if path.suffix in {".js", ".css", ".html"}]
    size = sum(len(gzip.compress(path.read_bytes())) for path in built)
    assert built
    assert size < 150_000, f"{size} bytes, gzipped"


async def log_of(server: Server, count: int, needle: int | None = None) -> None:
    """Publish events a millisecond apart, every fiftieth of them critical."""
    for start in range(0, count, 1_000):
        events = [
            event(
                n,
                priority="critical" if n % 50 == 0 else "normal",
                time=f"2026-01-01T00:{n // 60_000:02d}:{n // 1_000 % 60:02d}.{n % 1_000:03d}Z",
                **({"data": {"text": "needle"}} if n == needle else {}),
            )
            for n in range(start, start + 1_000)
        ]
        answer = await asyncio.to_thread(server.publish, "orders", *events)
        assert answer.status_code == 200


async def test_the_keyboard_stays_on_the_row_that_it_came_to(server: Server, browser: Browser) -> None:
    await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(300)])
    page = (await Watched.open(browser, server.url)).page
    await page.wait_for_selector('[data-testid="row"][data-id="e299"]')
    await page.get_by_test_id("keys-button").focus()
    await page.keyboard.press("Tab")
    await page.wait_for_selector('[data-testid="feed"][data-following="false"]')
    await until(page, "document.activeElement.closest('[data-id]')?.dataset.id === 'e299'", "the focus")
    await page.keyboard.press("Shift+Tab")
    await until(page, "document.activeElement.dataset.testid === 'keys-button'", "the way back")


async def test_who_goes_on_right_after_typing_comes_back_to_what_was_typed(
    server: Server, browser: Browser
) -> None:
    page = (await demo(server, browser)).page
    # Within a frame: the address is written a moment after the last key.
    await page.evaluate(
        """async () => {
            const field = document.querySelector('[data-testid=filter]');
            field.value = 'Stop';
            field.dispatchEvent(new Event('input', { bubbles: true }));
            await new Promise(requestAnimationFrame);
            document.querySelector('[data-testid=view-publish]').click();
        }"""
    )
    await page.wait_for_selector('[data-testid="publish"]')
    assert "filter=Stop" in page.url
    await page.go_back()
    await expect(page.get_by_test_id("filter")).to_have_value("Stop")


async def test_an_export_goes_on_while_somebody_looks_at_another_view(
    server: Server, browser: Browser
) -> None:
    page = (await demo(server, browser)).page
    read = asyncio.Event()

    async def later(route: Route) -> None:
        await read.wait()
        await route.continue_()

    await page.route("**/v1/streams/claude/events*", later)
    await page.get_by_test_id("export").click()
    await page.get_by_test_id("export-all-ndjson").click()
    await expect(page.get_by_test_id("export-stop")).to_be_visible()
    await page.get_by_test_id("view-publish").click()
    await page.wait_for_selector('[data-testid="publish"]')
    async with page.expect_download() as download:
        read.set()
    path = await (await download.value).path()
    assert len(path.read_text().splitlines()) == 148
    await page.get_by_test_id("view-feed").click()
    await page.get_by_test_id("export").click()
    await expect(page.get_by_test_id("export-said")).to_contain_text("Done: 148 events")
