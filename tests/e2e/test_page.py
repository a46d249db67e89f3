"""The page as a person sees it. Its pictures go to STEADCAST_PICTURES where that is set (`make pictures`)."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.async_api import Browser, expect

from steadcast.testing import FaultProxy
from tests.support.browser import chromium
from tests.support.page import Watched, ids, picture, play_demo, until, until_state, value, violations
from tests.support.ports import free_port
from tests.support.server import Server, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


async def test_an_empty_stream_of_the_systems_own_asks_nobody_to_send_there(
    server: Server, browser: Browser
) -> None:
    page = (await Watched.open(browser, f"{server.url}/?stream=steadcast.dead")).page
    empty = page.get_by_test_id("empty")
    await expect(empty).to_contain_text("the server alone writes here")
    await expect(empty.locator("pre")).to_have_count(0)
    assert await violations(page) == []


async def test_in_a_window_of_a_hands_height_the_page_scrolls_to_its_events(
    server: Server, browser: Browser, tmp_path: Path
) -> None:
    await asyncio.to_thread(server.publish, "s", *(event(n) for n in range(50)))
    page = (await Watched.open(browser, f"{server.url}/?stream=s")).page
    await page.wait_for_selector('[data-testid="row"]')
    # 1280 by 1024 at 400 % (WCAG 2.2, criterion 1.4.10); a telephone on its side with its keyboard has less.
    await page.set_viewport_size({"width": 320, "height": 256})
    for view in ("feed", "sessions", "pulse", "delivery", "publish"):
        await page.goto(f"{server.url}/?stream=s&view={view}")
        await page.wait_for_selector("main > *")
        await page.evaluate("document.querySelector('main').scrollIntoView({block: 'end'})")
        box = await page.locator("main").bounding_box()
        assert box is not None
        assert box["height"] >= 200, view
        assert box["y"] + box["height"] <= 260, view
    await page.goto(f"{server.url}/?stream=s")
    await page.wait_for_selector('[data-testid="row"]')
    await page.evaluate("document.querySelector('main').scrollIntoView({block: 'end'})")
    box = await page.get_by_test_id("feed").bounding_box()
    assert box is not None
    assert box["height"] >= 100, "room for events"
    await page.screenshot(path=picture(tmp_path, "low.png"))


async def test_where_colours_are_the_readers_own_the_page_still_says_where_one_is(
    server: Server, browser: Browser, tmp_path: Path
) -> None:
    await asyncio.to_thread(play_demo, server)
    page = (await Watched.open(browser, f"{server.url}/?stream=claude", forced_colors="active")).page
    row = page.locator('[data-testid="row"] button').last
    await row.click()

    async def lined(selector: str) -> bool:
        style = "getComputedStyle(document.querySelector(selector)).outlineStyle"
        said: bool = await page.evaluate(f"selector => {style} === 'solid'", selector)
        return said

    assert await lined('nav [aria-current="page"]')
    assert not await lined('[data-testid="view-pulse"]')
    assert await lined('[data-testid="row"] [aria-expanded="true"]')
    colours = "[...document.querySelectorAll('{}')].map(e => getComputedStyle(e).backgroundColor)"
    marks = colours.format("[data-testid=row] .mark")
    assert len(set(await page.evaluate(marks))) > 1, "whose each event is"
    await page.screenshot(path=picture(tmp_path, "forced.png"))
    await page.get_by_test_id("view-pulse").click()
    await page.get_by_role("button", name="60 min").click()
    await until(
        page, f"new Set({colours.format('td i')}).size > 2", "the chart's colours stand at their types"
    )


async def test_the_page_shows_events_as_they_come_and_says_that_nothing_is_lost(
    server: Server, browser: Browser, tmp_path: Path
) -> None:
    watched = await Watched.open(browser, server.url)
    page = watched.page
    await page.wait_for_selector('[data-testid="empty"]')
    assert f"steadcast demo --url {server.url}" in await page.get_by_test_id("empty").inner_text()
    await page.screenshot(path=picture(tmp_path, "empty.png"))
    assert await violations(page) == []
    await asyncio.to_thread(play_demo, server)
    await page.wait_for_selector('[data-testid="row"] >> nth=20', timeout=20_000)
    await until(page, "document.querySelector('[data-testid=lag]').dataset.value === '0'", "no lag")
    await until_state(page, "live")
    assert await value(page, "lost") == 0
    await page.wait_for_selector('[data-testid="row"]:has-text("SessionEnd")')
    await page.screenshot(path=picture(tmp_path, "feed.png"))
    assert await violations(page) == []
    await page.emulate_media(color_scheme="dark")
    await page.screenshot(path=picture(tmp_path, "feed_dark.png"))
    assert await violations(page) == []
    await page.set_viewport_size({"width": 375, "height": 700})
    feed = "document.querySelector('[data-testid=feed]')"
    beyond = f"{feed}.scrollHeight - {feed}.scrollTop - {feed}.clientHeight"
    await until(page, f"{beyond} < 2", "the newest in view")
    await page.screenshot(path=picture(tmp_path, "feed_narrow.png"))
    assert await violations(page) == []
    await page.get_by_test_id("view-publish").click()
    for view in ("feed", "publish"):
        tab = await page.get_by_test_id(f"view-{view}").bounding_box()
        assert tab is not None
        assert (tab["x"] >= 0, tab["x"] + tab["width"] <= 375) == (True, True), "all tabs can be seen"
    await page.get_by_test_id("view-feed").click()
    for width in (375, 1280, 2560):
        await page.set_viewport_size({"width": width, "height": 900})
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), width
    assert (watched.foreign, watched.complaints) == ([], [])


async def test_the_theme_follows_the_system_until_somebody_chooses(server: Server, browser: Browser) -> None:
    page = (await Watched.open(browser, server.url, color_scheme="dark")).page
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = await page.evaluate(ground)
    await page.get_by_test_id("theme-toggle").click()
    light = await page.evaluate(ground)
    assert light != dark
    await page.reload()
    await page.wait_for_selector('[data-testid="theme-toggle"]')
    assert await page.evaluate(ground) == light
    await page.get_by_test_id("theme-toggle").click()
    await page.emulate_media(color_scheme="light")
    assert await page.evaluate(ground) == light


async def test_the_views_are_places_that_back_and_forward_lead_to(server: Server, browser: Browser) -> None:
    watched = await Watched.open(browser, server.url)
    page = watched.page
    for view in ("sessions", "pulse", "delivery", "publish"):
        await page.get_by_test_id(f"view-{view}").click()
        await page.wait_for_selector(f'[data-testid="view-{view}"][aria-current="page"]')
        await page.wait_for_selector("main > *:not(.note)")
        assert f"view={view}" in page.url
    await page.go_back()
    await page.wait_for_selector('[data-testid="view-delivery"][aria-current="page"]')
    await page.go_forward()
    await page.wait_for_selector('[data-testid="view-publish"][aria-current="page"]')
    await page.get_by_test_id("view-feed").click()
    await page.wait_for_selector('[data-testid="empty"]')
    assert watched.complaints == []


async def test_the_story_of_a_cut_tells_when_it_was_and_what_was_read_again(
    server: Server, browser: Browser, tmp_path: Path
) -> None:
    await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(10)])
    async with FaultProxy("127.0.0.1", server.port) as proxy:
        page = (await Watched.open(browser, proxy.url)).page
        await page.wait_for_selector('[data-testid="row"] >> nth=9')
        await page.get_by_test_id("story-button").click()
        assert "Nothing has cut" in await page.get_by_test_id("story").inner_text()
        picker = await page.get_by_test_id("stream-picker").bounding_box()
        proxy.refusing = True
        await proxy.cut()
        await until_state(page, "offline")
        assert await page.get_by_test_id("stream-picker").bounding_box() == picker, "it stays where it is"
        await page.wait_for_selector('[data-testid="story"]:has-text("Trying again")')
        for start in range(0, 6_000, 1_000):
            fresh = [event(n) for n in range(10 + start, 1_010 + start)]
            await asyncio.to_thread(server.publish, "orders", *fresh)
        # So slow that the replay can be seen, and its picture taken.
        proxy.bandwidth = 150_000
        proxy.refusing = False
        await until_state(page, "replaying")
        await until(page, "+document.querySelector('[data-testid=lag]').dataset.value < 4500", "some of it")
        await page.screenshot(path=picture(tmp_path, "replaying.png"))
        proxy.bandwidth = None
        await until_state(page, "live")
        story = page.get_by_test_id("story")
        await page.wait_for_selector('[data-testid="story"]:has-text("Lost: nothing.")')
        assert "6,000 events read from the log" in await story.inner_text()
        assert "Connected again after" in await story.inner_text()
        assert await violations(page) == []
        await page.keyboard.press("Escape")
        assert await page.get_by_test_id("story-button").evaluate("it => it === document.activeElement")
        assert (await value(page, "lost"), await value(page, "replayed")) == (0, 6_010)


async def test_views_open_while_the_server_is_away(server: Server, browser: Browser) -> None:
    async with FaultProxy("127.0.0.1", server.port) as proxy:
        page = await browser.new_page()
        await page.route("**/assets/delivery-*.js", lambda route: route.abort())
        await page.goto(proxy.url)
        await until_state(page, "connected")
        fetched = "performance.getEntriesByType('resource').some(({name}) => /assets.publish.*js/.test(name))"
        await until(page, fetched, "the views that nobody opened yet")
        proxy.refusing = True
        await proxy.cut()
        await until_state(page, "offline")
        await page.get_by_test_id("view-publish").click()
        await page.wait_for_selector('[data-testid="publish"]')
        await page.get_by_test_id("view-delivery").click()
        await page.wait_for_selector("text=this view is loaded when it is back")
        await page.unroute("**/assets/delivery-*.js")
        proxy.refusing = False
        await page.wait_for_selector('[data-testid="delivery"]')


async def test_a_killed_server_is_shown_and_the_page_catches_up(server: Server, browser: Browser) -> None:
    await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(10)])
    page = await browser.new_page()
    await page.goto(server.url)
    await page.wait_for_selector('[data-testid="row"] >> nth=9')
    await asyncio.to_thread(server.kill)
    await until_state(page, "offline")
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(10, 15)])
    await page.wait_for_selector('[data-testid="row"] >> nth=14', timeout=20_000)
    await until_state(page, "live")
    assert await ids(page) == [f"e{n}" for n in range(15)]
    assert await value(page, "lost") == 0
    assert await value(page, "duplicates") == 0


def trimmed(server: Server) -> int:
    """Tell up to where retention has taken the normal lane of `orders`."""
    streams = server.get("/v1/streams").json()["streams"]
    return next(int(s["lanes"]["normal"]["trimmed"]) for s in streams if s["stream"] == "orders")


async def test_what_retention_took_stands_as_a_row_at_its_place(tmp_path: Path, browser: Browser) -> None:
    with Server(tmp_path, STEADCAST_RETENTION_EVENTS="20", STEADCAST_TRIM_INTERVAL="0.2") as server:
        await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(10)])
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.goto(server.url)
        await page.wait_for_selector('[data-testid="row"] >> nth=9')
        await page.context.set_offline(True)
        await until_state(page, "offline")
        for start in range(10, 100, 30):
            await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(start, start + 30)])
        async with asyncio.timeout(30):
            while trimmed(server) < 80:
                await asyncio.sleep(0.05)
        await page.context.set_offline(False)
        await page.wait_for_selector('[data-testid="loss-row"]', timeout=30_000)
        await until_state(page, "live")
        assert await value(page, "lost") > 0
        await page.screenshot(path=picture(tmp_path, "loss_row.png"))


async def test_a_stream_that_appears_is_listed_and_what_tells_of_it_counts_as_no_proof(
    server: Server, browser: Browser
) -> None:
    await asyncio.to_thread(server.publish, "orders", event(1))
    page = (await Watched.open(browser, server.url)).page
    lists: list[str] = []
    page.on("request", lambda asked: lists.append(asked.url) if asked.url.endswith("/v1/streams") else None)
    await until_state(page, "live")
    told = "document.querySelectorAll('[data-testid=stream-picker] option').length"
    await until(page, f"{told} === 2", "orders, and the stream that tells of it")
    before = len(lists)
    for name in ("alarms", "mails"):
        await asyncio.to_thread(server.publish, name, event(1))
    await until(page, f"{told} === 4", "all streams")
    assert len(lists) - before <= 3, "once for each that appeared, and not again and again"
    assert await value(page, "replayed") == 1


async def test_a_token_for_certain_streams_sees_those_that_appear(tmp_path: Path, browser: Browser) -> None:
    some = [
        {"name": "shop", "token": "of-the-shop", "scopes": ["subscribe", "publish"], "streams": ["shop.*"]}
    ]
    with Server(tmp_path, port=free_port(), STEADCAST_TOKENS=json.dumps(some)) as server:
        page = (await Watched.open(browser, server.url)).page
        await page.get_by_test_id("token").fill("of-the-shop")
        await page.get_by_test_id("login-button").click()
        await until_state(page, "connected")
        headers = {"authorization": "Bearer of-the-shop", "content-type": "application/cloudevents+json"}
        for name in ("shop.orders", "shop.mails"):
            url = f"{server.url}/v1/streams/{name}/events"
            (await asyncio.to_thread(httpx.post, url, json=event(1), headers=headers)).raise_for_status()
            await page.wait_for_selector(
                f'[data-testid="stream-picker"] option[value="{name}"]', state="attached"
            )
        await until_state(page, "live")
        assert await value(page, "lost") == 0


async def test_a_token_of_few_rights_is_told_what_it_lacks_and_can_be_changed(
    tmp_path: Path, browser: Browser
) -> None:
    rights = [
        {"name": "in", "token": "publishes", "scopes": ["publish"]},
        {"name": "one", "token": "reads-one", "scopes": ["subscribe"], "streams": ["one"]},
        {"name": "all", "token": "reads-all", "scopes": ["subscribe", "publish"]},
    ]
    with Server(tmp_path, port=free_port(), STEADCAST_TOKENS=json.dumps(rights)) as server:
        page = await browser.new_page()

        async def give(token: str) -> None:
            await page.get_by_test_id("token").fill(token)
            await page.get_by_test_id("login-button").click()

        await page.goto(f"{server.url}/?stream=two")
        await give("publishes")
        refusal = page.get_by_test_id("refusal")
        await expect(refusal).to_contain_text("this token may not read")
        await expect(page.get_by_test_id("trouble")).to_have_count(0)
        await page.get_by_test_id("other-token").click()
        await give("reads-one")
        await expect(refusal).to_contain_text("this token may not read the stream 'two'")
        await refusal.get_by_role("button", name="Try again").click()
        await until_state(page, "refused")
        await page.get_by_test_id("other-token").click()
        await give("reads-all")
        await until_state(page, "live")
        assert "stream=two" in page.url
        await page.context.clear_cookies()
        await page.goto(server.url)
        await give("publishes")
        await expect(page.get_by_test_id("forbidden")).to_contain_text("this token may not read")
        await expect(page.get_by_test_id("trouble")).to_have_count(0)


async def test_with_a_token_the_page_asks_for_it_once(tmp_path: Path, browser: Browser) -> None:
    with Server(tmp_path, port=free_port(), STEADCAST_TOKEN="secret") as server:  # noqa: S106 - a test's
        page = await browser.new_page()
        await page.goto(server.url)
        await page.get_by_test_id("token").fill("wrong")
        await page.get_by_test_id("login-button").click()
        await page.get_by_test_id("token").fill("secret")
        await page.get_by_test_id("login-button").click()
        await until_state(page, "connected")
        await page.reload()
        await until_state(page, "connected")
        cookies = await page.context.cookies()
        assert [(c["httpOnly"], c["sameSite"]) for c in cookies] == [(True, "Strict")]
        assert "secret" not in json.dumps(cookies)


async def test_with_a_token_the_copied_command_reads_it_from_the_shell(
    tmp_path: Path, browser: Browser
) -> None:
    with Server(tmp_path, port=free_port(), STEADCAST_TOKEN="secret") as server:  # noqa: S106 - a test's
        page = await browser.new_page()
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.goto(f"{server.url}/?stream=orders")
        await page.get_by_test_id("token").fill("secret")
        await page.get_by_test_id("login-button").click()
        headers = {"authorization": "Bearer secret"}
        url = f"{server.url}/v1/streams/orders/events"
        await asyncio.to_thread(httpx.post, url, headers=headers, json=event(1), timeout=30)
        await page.locator('[data-testid="row"]').click()
        copy = page.get_by_label("Copy curl that publishes it again")
        async with asyncio.timeout(30):
            while "STEADCAST_TOKEN first" not in await copy.inner_text():
                await copy.click()  # the page may still be asking whether a token is needed
        command = await page.evaluate("navigator.clipboard.readText()")
        assert "secret" not in command
        for token, status in (("secret", 200), ("", 401)):
            shell = await asyncio.create_subprocess_shell(
                f"{command} -s -o /dev/null -w '%{{http_code}}'",
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "STEADCAST_TOKEN": token},
            )
            answer, _ = await asyncio.wait_for(shell.communicate(), 60)
            assert int(answer) == status
